"""The session of one line in a notebook. It works on the kernel's current app."""

import os
import sqlite3
import sys
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager, suppress
from typing import Any

from IPython.core.interactiveshell import InteractiveShell
from IPython.display import display

from paise2nb import app as apps
from paise2nb.app import App
from paise2nb.commands.session import Ended, Progress, Session
from paise2nb.config.settings import Settings
from paise2nb.core.display import Message
from paise2nb.core.errors import PaiseError, UsageError
from paise2nb.core.render import in_cell_words, in_kernel, progress_line
from paise2nb.plugins import Plugins


class NotebookSession(Session):
    """The session of one line of the magic.

    Args:
        shell: the shell that runs the cell.
        others: the apps that lines with their own options have opened, by their settings as
            JSON. They stay open, because results use them after the line.
    """

    in_notebook = True

    def __init__(self, shell: InteractiveShell, others: dict[str, App]) -> None:
        super().__init__()
        self.shell = shell
        self.others = others

    @property
    def app(self) -> App:
        """The kernel's current app, or the one that this line's options name."""
        current = apps.current()
        if self.profile or self.data_dir or self.overrides:
            settings = self.settings()
            if current is None or settings != current.settings:
                key = settings.to_json()
                if key not in self.others:
                    self.others[key] = self._open(settings)
                return self.others[key]
        if current is None:
            current = self._open(self.settings())
            apps.make_current(current)
        return current

    def settings(self, profile: str | None = None, *, plugins: bool = True) -> Settings:
        """Return the current app's settings with this line's options over them.

        Another profile is resolved from its own layers.
        """
        current, wanted = apps.current(), profile or self.profile
        if current is None or (wanted is not None and wanted != current.profile):
            return super().settings(profile, plugins=plugins)
        settings = current.settings.override(self.overrides, "--set")
        if self.data_dir is not None:
            settings = settings.override({"data_dir": self.data_dir}, "--data-dir")
        return settings

    def choose(self, profile: str | None) -> App:
        """Open a profile as the current app, and print what happened since it was last open."""
        current = apps.current()
        if current is None or profile is not None:
            # Read from the layers: a file may have changed since the current app was opened.
            settings = super().settings(profile)
            wanted = settings
            if current is not None and settings.data_dir is None:  # both have a temporary one
                wanted = settings.with_data_dir(current.data_dir)
            if current is None or wanted != current.settings:
                opened = self._open(settings)
                if current is not None:
                    self._rebind(current, opened)
                    current.close()
                apps.make_current(opened)
                current = opened
        if profile is not None:
            os.environ["PAISE2_PROFILE"] = profile
        self.say(str(current.since()))
        return current

    def reload(self, settings: Settings | None = None) -> None:
        """Replace the current app, if there is one, because settings or plugins have changed.

        Args:
            settings: the settings of the new app; None reads the layers again, and keeps what
                the line (or the call) that opened the current app has chosen.
        """
        current = apps.current()
        if current is None:
            return
        if settings is None:
            settings = super().settings(current.profile)
            for origin in ("--set", "--data-dir"):
                settings = settings.override(current.settings.set_by(origin), origin)
        if settings.data_dir is None:  # a temporary directory stays as long as the kernel
            settings = settings.with_data_dir(current.data_dir)
        reopened = self._open(settings)
        apps.make_current(reopened)
        self._rebind(current, reopened)
        # Results still use the old app; it is closed with the others.
        self.others.setdefault(current.settings.to_json(), current)
        if problem := reopened.workers.status().problem:
            self.say(problem)

    @staticmethod
    def _rebind(app: App, new: App) -> None:
        """Let the open panel of an app show the new one."""
        if panel := sys.modules.get("paise2nb.notebook.panel"):
            panel.show_instead(app, new)

    def beside(self, panel: Any) -> Message:
        """Show the panel beside the notebook.

        Raises:
            PaiseError: the package sidecar is not installed.
        """
        try:
            from sidecar import Sidecar
        except ImportError:
            raise PaiseError("--side needs sidecar: pip install 'paise2nb[lab]'") from None
        data, _ = panel.bundle()
        publish: Any = display  # IPython declares no types here
        with Sidecar(title="paise2"):
            publish(data, raw=True)
        return Message("the panel is open beside the notebook")

    def _open(self, settings: Settings) -> App:
        """Open an app, and say which plugins can't be loaded."""
        app = App(settings, plugins=Plugins(settings, tolerant=True))
        self.say_broken(app)
        return app

    def plugins_changed(self) -> None:
        """Load the plugins of the current app again."""
        current = apps.current()
        if current is not None and not current.plugins.refresh():
            self.reload(current.settings)

    def names(self) -> set[str]:
        """Return the names that are defined in the notebook."""
        return set(self.shell.user_ns)

    def say(self, text: str) -> None:
        """Print below the cell, to standard output: standard error looks like an error there."""
        print(in_cell_words(text), flush=True)

    def ask(self, question: str) -> bool:
        """Raise UsageError: a cell can't wait for an answer."""
        raise UsageError(f"{question} To confirm, add --yes")

    @contextmanager
    def progress(self, label: str, ended: Ended = None) -> Iterator[Progress]:
        """Show a progress bar on one line of the output, in a kernel."""
        shown: AbstractContextManager[Progress]
        if in_kernel() and not self.json:
            shown = progress_line(lambda: in_cell_words(ended() if ended else f"{label}: done"))
        else:
            shown = super().progress(label, ended)
        with shown as report:
            yield report

    def close(self) -> None:
        """Record that the app was used: a kernel may end without notice."""
        current = apps.current()
        if current is not None:
            # The command has already reported what is wrong with the database.
            with suppress(PaiseError, sqlite3.Error):
                current.client.mark_seen()
