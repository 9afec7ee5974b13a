"""What a command works with: the options of its line, and the app that they lead to.

The shell's session opens an app for one command; the notebook's (see `paise2nb.notebook.magic`)
keeps one open for the kernel. Commands talk to the person through it, so they need not know which.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import click

from paise2nb.core.display import Displayable
from paise2nb.core.errors import UsageError
from paise2nb.core.render import plain

if TYPE_CHECKING:
    from paise2nb.app import App
    from paise2nb.config.settings import Settings

Progress = Callable[[int, int], None] | None


@dataclass(repr=False)
class Message(Displayable):
    """A result that is a sentence, with what it says as data."""

    text: str
    data: dict[str, Any] = field(default_factory=dict)

    def to_dict(self) -> dict[str, Any]:
        """As JSON."""
        return self.data

    def __str__(self) -> str:
        return plain(self.text)


class Session:
    """The shell's session: one command, one app.

    Attributes:
        profile, data_dir, overrides, json, debug: the options of all commands.
        cell: the body of a notebook cell, None elsewhere.
        raw: an exception is the user's to look at, not an error of the command.
        text: how the result is shown as text.
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
        self.text: Callable[[Any], str] = str
        self._app: App | None = None

    @property
    def app(self) -> App:
        """The app of the chosen profile, opened when first asked for."""
        if self._app is None:
            from paise2nb.app import App

            self._app = App(self.settings())
        return self._app

    def settings(self, profile: str | None = None, *, plugins: bool = True) -> Settings:
        """The settings that this line's options lead to, without opening anything.

        Without ``plugins`` none is loaded, and so their defaults are not among the layers.
        """
        from paise2nb.app import resolve
        from paise2nb.config.settings import Settings

        chosen = profile or self.profile
        if plugins:
            return resolve(chosen, self.data_dir, self.overrides)[0]
        return Settings.resolve(chosen, data_dir=self.data_dir, overrides=self.overrides)

    def choose(self, profile: str | None) -> Any:
        """Make a profile the one of the commands that follow.

        A process can't set its parent's environment, so the shell gets the line to paste.
        """
        name = self.settings(profile, plugins=False).profile
        line = f"export PAISE2_PROFILE={name}"
        return Message(line, {"profile": name, "line": line})

    def reload(self, settings: Settings | None = None) -> None:
        """Work with the settings as they are now; a shell's next command does so anyway."""

    def plugins_changed(self) -> None:
        """Load the plugins anew where an app is open; a shell's next command does so anyway."""

    def names(self) -> set[str]:
        """The names that the notebook defines."""
        return set()

    def say(self, text: str) -> None:
        """Tell the person something that is not the result."""
        click.echo(text, err=True)

    def ask(self, question: str) -> bool:
        """Ask for a yes; no where nobody can answer."""
        if not sys.stdin.isatty():
            raise UsageError(f"{question} Nobody is here to answer: add --yes")
        return click.confirm(question, err=True)

    def take_cell(self) -> str | None:
        """The body of the cell, for a command that reads one."""
        cell, self.cell = self.cell, None
        return cell

    @contextmanager
    def progress(self, words: str) -> Iterator[Progress]:
        """A bar that is shown while the block runs, where a person watches."""
        if self.json or not sys.stderr.isatty():
            yield None
            return
        from rich.console import Console
        from rich.progress import BarColumn, MofNCompleteColumn, TextColumn, TimeElapsedColumn
        from rich.progress import Progress as Bar

        console = Console(stderr=True)
        columns = (TextColumn(words), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn())
        with Bar(*columns, console=console, transient=True) as bar:
            row = bar.add_task(words, total=None)
            yield lambda done, total: bar.update(row, completed=done, total=total)

    def close(self) -> None:
        """Close what this session has opened."""
        if self._app is not None:
            self._app.close()
            self._app = None
