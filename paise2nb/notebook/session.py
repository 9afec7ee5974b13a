"""The session of a line in a notebook: it works on the kernel's current app."""

from __future__ import annotations

import os
import sqlite3
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from typing import TYPE_CHECKING

from paise2nb import app as apps
from paise2nb.app import App
from paise2nb.commands.session import Progress, Session
from paise2nb.config.settings import Settings
from paise2nb.core.errors import PaiseError, UsageError
from paise2nb.core.render import in_cell_words, progress_line

if TYPE_CHECKING:
    from IPython.core.interactiveshell import InteractiveShell


class NotebookSession(Session):
    """One line of the magic.

    Args:
        shell: the shell that runs the cell.
        others: the apps that lines with options of their own have opened, by their settings;
            results go on using them after the line.
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
                    self.others[key] = App(settings)
                return self.others[key]
        if current is None:
            current = App(self.settings())
            apps.make_current(current)
        return current

    def settings(self, profile: str | None = None, *, plugins: bool = True) -> Settings:
        """The current app's settings with this line's options over them.

        Those of another profile come from its own layers.
        """
        current, wanted = apps.current(), profile or self.profile
        if current is None or (wanted is not None and wanted != current.profile):
            return super().settings(profile, plugins=plugins)
        settings = current.settings
        if self.overrides:
            settings = settings.override(self.overrides, "--set")
        if self.data_dir is not None:
            settings = settings.override({"data_dir": self.data_dir}, "--data-dir")
        return settings

    def choose(self, profile: str | None) -> App:
        """Open a profile as the current app, and say what happened since it was last open."""
        current = apps.current()
        if current is None or profile is not None:
            # Afresh from the layers: a file may have changed since the current app was opened.
            settings = super().settings(profile)
            if current is None or not _same(settings, current.settings):
                opened = App(settings)
                if current is not None:
                    current.close()
                apps.make_current(opened)
                current = opened
        if profile is not None:
            os.environ["PAISE2_PROFILE"] = profile
        self.say(str(current.since()))
        return current

    def reload(self, settings: Settings | None = None) -> None:
        """Open the current app anew, if there is one: its settings, or its plugins, have changed.

        Args:
            settings: to open it with; None reads the layers again, below what the line (or the
                call) that opened the app has chosen.
        """
        current = apps.current()
        if current is not None:
            if settings is None:
                settings = super().settings(current.profile)
                for origin in ("--set", "--data-dir"):
                    settings = settings.override(current.settings.set_by(origin), origin)
            if settings.data_dir is None:  # a temporary directory stays as long as the kernel
                settings = settings.with_data_dir(current.data_dir)
            reopened = App(settings)
            apps.make_current(reopened)
            # Results go on using the one that was current; it is closed with the rest.
            self.others.setdefault(current.settings.to_json(), current)
            problem = reopened.workers.status().problem
            if problem:
                self.say(problem)

    def plugins_changed(self) -> None:
        """Have the current app load the plugins anew."""
        current = apps.current()
        if current is not None and not current.refresh():
            self.reload(current.settings)

    def names(self) -> set[str]:
        """The names that the notebook defines."""
        return set(self.shell.user_ns)

    def say(self, text: str) -> None:
        """Print below the cell; to standard output, for the other one looks like an error."""
        print(in_cell_words(text), flush=True)

    def ask(self, question: str) -> bool:
        """A cell can't wait for an answer."""
        raise UsageError(f"{question} To confirm, add --yes")

    @contextmanager
    def progress(self, words: str) -> Iterator[Progress]:
        """A bar in one line of the output, in a kernel; the shell's own elsewhere."""
        in_kernel = not self.json and hasattr(self.shell, "kernel")
        with progress_line(words) if in_kernel else super().progress(words) as report:
            yield report

    def close(self) -> None:
        """Note that this app was looked at: a kernel may end without a word."""
        current = apps.current()
        if current is not None:
            # Whatever is wrong with the database has been said by the command itself.
            with suppress(PaiseError, sqlite3.Error):
                current.queue.job_store.put("last_seen", str(current.queue.job_store.now()))


def _same(settings: Settings, current: Settings) -> bool:
    if settings.data_dir is None and current.data_dir is not None:
        settings = settings.with_data_dir(current.data_dir)
    return settings == current
