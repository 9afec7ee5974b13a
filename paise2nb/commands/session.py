"""The context of one command: the shared options of its line, and the app that they select.

The shell's session opens an app for one command; the notebook's (`paise2nb.notebook.session`)
keeps one open for the kernel. Commands talk to the user through it and need not know which it is.
"""

from __future__ import annotations

import sys
import traceback
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import click

from paise2nb.core.display import Message
from paise2nb.core.errors import PluginError, SettingsError, UsageError

if TYPE_CHECKING:
    from paise2nb.app import App
    from paise2nb.config.settings import Settings

Progress = Callable[..., None] | None  # called with (done, total), and a text beside the bar
Ended = Callable[[], str] | None


class Session:
    """The shell's session: one command, one app.

    Attributes:
        profile, data_dir, overrides, json, debug: the options of all commands.
        cell: the body of a notebook cell, None elsewhere.
        raw: whether an exception belongs to the user's own code and is shown unchanged.
        text: the function that turns the result into text.
        exit_status: of a command that returns a result all the same.
    """

    in_notebook = False

    def __init__(self) -> None:
        self.profile: str | None = None
        self.data_dir: str | None = None
        self.overrides: dict[str, Any] = {}
        self.json = False
        self.debug = False
        self.cell: str | None = None
        self.raw = False
        self.exit_status = 0
        self.text: Callable[[Any], str] = str
        self._app: App | None = None

    @property
    def app(self) -> App:
        """The app of the chosen profile, opened on first use."""
        if self._app is None:
            from paise2nb.app import App
            from paise2nb.plugins.registry import resolve

            resolved = resolve(self.profile, self.data_dir, self.overrides, tolerant=True)
            self._app = App(resolved[0], plugins=resolved[1])
            self.say_broken(self._app)
        return self._app

    def app_to_stop(self) -> App:
        """The app, or one without the user's settings if something is wrong with them.

        Raises:
            PaiseError: something is wrong, and the line has settings of its own: without them it
                may mean other workers.
        """
        from paise2nb.app import App
        from paise2nb.config.salvage import salvaged
        from paise2nb.plugins import Plugins

        try:
            return self.app
        except (SettingsError, PluginError) as error:
            if self.overrides:
                raise
            settings = salvaged(self.profile, self.data_dir)
            self.say(f"{error}; stopping the workers of {settings.data_dir} nevertheless")
            self._app = App(settings, plugins=Plugins(settings, tolerant=True))
            return self._app

    def say_broken(self, app: App) -> None:
        """Say which plugins of an app can't be loaded."""
        for error in app.plugins.broken.values():
            self.say("".join(traceback.format_exception(error)) if self.debug else str(error))

    def settings(self, profile: str | None = None, *, plugins: bool = True) -> Settings:
        """Resolve the settings from the options of this line, without opening an app.

        Args:
            profile: a profile to use in place of the line's own.
            plugins: whether to load the plugins; their defaults are a layer of the settings.
        """
        from paise2nb.config.settings import Settings
        from paise2nb.plugins.registry import resolve

        chosen = profile or self.profile
        if plugins:
            return resolve(chosen, self.data_dir, self.overrides, tolerant=True)[0]
        return Settings.resolve(chosen, data_dir=self.data_dir, overrides=self.overrides)

    def choose(self, profile: str | None) -> Any:
        """Choose the profile for the commands that follow.

        A process can't set its parent's environment, so the shell gets a line to paste.
        """
        name = self.settings(profile, plugins=False).profile
        line = f"export PAISE2_PROFILE={name}"
        return Message(line, {"profile": name, "line": line})

    def reload(self, settings: Settings | None = None) -> None:
        """Read the settings again. Here nothing is open: the next command reads them anyway."""

    def beside(self, panel: Any) -> Message:
        """Show a panel beside the notebook. Raises UsageError: there is none."""
        raise UsageError("--side works in a notebook: %paise2 watch --side")

    def plugins_changed(self) -> None:
        """Load the plugins again. Here nothing is open: the next command loads them anyway."""

    def names(self) -> set[str]:
        """Return the names that are defined in the notebook."""
        return set()

    def say(self, text: str) -> None:
        """Print a message that is not the result, to standard error."""
        click.echo(text, err=True)

    def ask(self, question: str) -> bool:
        """Ask the user to confirm. Raises UsageError without a terminal."""
        if not sys.stdin.isatty():
            raise UsageError(f"{question} There is no terminal to ask in: add --yes")
        return click.confirm(question, err=True)

    def take_cell(self) -> str | None:
        """Return the body of the cell once, for a command that reads it."""
        cell, self.cell = self.cell, None
        return cell

    @contextmanager
    def progress(self, label: str, ended: Ended = None) -> Iterator[Progress]:
        """Show a progress bar while the block runs, if standard error is a terminal.

        Args:
            label: what is done.
            ended: returns what to say at the end.
        """
        with self._bar(label) as report:
            yield report
        if ended is not None:
            self.say(ended())

    @contextmanager
    def _bar(self, label: str) -> Iterator[Progress]:
        if self.json or not sys.stderr.isatty():
            yield None
            return
        from rich.console import Console
        from rich.progress import BarColumn, MofNCompleteColumn, TextColumn, TimeElapsedColumn
        from rich.progress import Progress as Bar

        console = Console(stderr=True)
        beside = TextColumn("{task.fields[beside]}")
        columns = (TextColumn(label), BarColumn(), MofNCompleteColumn(), beside)
        with Bar(*columns, TimeElapsedColumn(), console=console, transient=True) as bar:
            row = bar.add_task(label, total=None, beside="")

            def report(done: int, total: int, beside: str = "") -> None:
                bar.update(row, completed=done, total=total, beside=beside)

            yield report

    def close(self) -> None:
        """Close the app that this session has opened."""
        if self._app is not None:
            self._app.close()
            self._app = None


pass_session = click.make_pass_decorator(Session)
