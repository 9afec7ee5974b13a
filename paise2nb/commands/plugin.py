"""Plugins: a cell becomes one, and what is registered, by whom, and whether it is in use."""

from __future__ import annotations

import json
import os
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import click

from paise2nb.commands import completion
from paise2nb.commands import plugin_check as trial
from paise2nb.commands.cli import Command, CommandGroup
from paise2nb.commands.jobs import pass_session
from paise2nb.commands.maintenance import Rows
from paise2nb.commands.session import Message, Session
from paise2nb.core.display import Displayable
from paise2nb.core.errors import UsageError
from paise2nb.core.files import make_private_directory
from paise2nb.core.render import Column, amount, one_line
from paise2nb.plugins.saved import SavedPlugins

TEXT = 300  # characters of a document that a trial shows


@dataclass(repr=False)
class Tried(Displayable):
    """What a plugin made of a job or an item; nothing was saved."""

    found: dict[str, Any]

    def to_dict(self) -> dict[str, Any]:
        """As JSON."""
        return self.found

    def __str__(self) -> str:
        found = self.found
        value = found["value"]
        if "documents" in found:  # what the key stands for is shown below
            value = {name: value[name] for name in value if name != "document"}
        shown = one_line(json.dumps(value, ensure_ascii=False), 200)
        lines = [f"{found['tried']} ({found['task']}): {shown}"]
        for document in found.get("documents", ()):
            lines.append(f"  {one_line(document['title'] or 'untitled')}")
            lines.append(f"  {one_line(document['text'], TEXT)}")
        if found["followups"]:
            lines.append(f"  would enqueue {amount(found['followups'], 'job')}")
        if found["said"]:
            lines.append(found["said"])
        lines.append(f"{found['registers']}: not saved; for that, without --try")
        return "\n".join(lines)


@click.command("plugin", cls=Command)
@click.argument("name")
@click.option(
    "--try", "to_try", type=int, metavar="ID", help="Only show what it makes of a job or an item."
)
@pass_session
def plugin(session: Session, name: str, to_try: int | None) -> Message | Tried:
    """Save the cell as a plugin in the data directory, and load it.

    It is checked in a fresh process first. Running workers use it from their next job on.
    """
    body = session.take_cell()
    if body is None:
        raise UsageError("write the plugin's code in a cell below %%paise2 plugin NAME")
    if not (name.isidentifier() and name.isascii()):
        raise UsageError(f"{name!r} can't be a module's name; use letters, digits and _")
    app = session.app
    _, others = _known(session)
    if name in others:
        raise UsageError(f"another plugin is called {name!r}; choose another name")
    # With its first line a cell's lines have the same numbers in the file.
    text = f"# %%paise2 plugin {name}\n{body}"
    make_private_directory(app.saved_plugins.directory)
    with TemporaryDirectory(prefix=".trial-", dir=app.saved_plugins.directory) as draft:
        candidate = Path(draft) / f"{name}.py"
        candidate.write_text(text, "utf-8")
        found = trial.check(app.settings, candidate, session.names(), to_try)
    if to_try is not None:
        return Tried(found)
    version = app.saved_plugins.save(name, text)
    session.plugins_changed()
    path = app.saved_plugins.path(name)
    data = {"path": str(path), "version": version, "registers": found["registers"]}
    words = f"{_shown(path)} registers {found['registers']}"
    if version > 1:
        data["before"] = str(app.saved_plugins.previous(name))
        words += (
            f"; version {version}, the one before it in {_shown(app.saved_plugins.previous(name))}"
        )
    return Message(words, data)


plugin.callback.reads_cell = True  # type: ignore[union-attr]


def _shown(path: Path) -> str:
    """A path from the working directory on, if it lies there."""
    return os.path.relpath(path) if path.is_relative_to(Path.cwd()) else str(path)


@click.pass_context
def _list(context: click.Context) -> Rows | None:
    session = context.find_object(Session)
    assert session is not None
    if context.invoked_subcommand is not None:
        return None
    columns = (
        Column("kind"), Column("name", wide=True), Column("plugin"), Column("version"),
        Column("state"), Column("origin", wide=True),
    )  # fmt: skip
    return Rows(session.app.plugins.describe(), columns)


plugins = CommandGroup(
    "plugins", help="Show every provider, fetcher, extractor and task.", callback=_list
)


@plugins.command("disable")
@click.argument("name", shell_complete=completion.plugins)
@pass_session
def disable(session: Session, name: str) -> Message:
    """Load a plugin no more, here and in the workers.

    Jobs of its tasks wait. One that can't be loaded any more can be disabled too.
    """
    cells, others = _known(session)
    known = others | {path.stem for path in cells.paths()}
    if name not in known:
        raise UsageError(f"no plugin {name!r}; known: {', '.join(sorted(known)) or 'none'}")
    cells.disable(name)
    return _changed(session, name, "disabled")


@plugins.command("enable")
@click.argument("name", shell_complete=completion.plugins)
@pass_session
def enable(session: Session, name: str) -> Message:
    """Load a plugin again that was disabled."""
    cells, _ = _known(session)
    disabled = cells.manifest()["disabled"]
    if name not in disabled:
        raise UsageError(f"{name!r} is not disabled; disabled: {', '.join(disabled) or 'none'}")
    cells.enable(name)
    return _changed(session, name, "enabled")


def _known(session: Session) -> tuple[SavedPlugins, set[str]]:
    """The cells of the data directory, and the names of all other plugins but the built-in ones."""
    from importlib.metadata import entry_points

    from paise2nb.plugins import ENTRY_POINTS, short_name

    settings = session.settings(plugins=False)
    if settings.data_dir is None:  # a temporary one
        settings = session.app.settings
    assert settings.data_dir is not None
    cells = SavedPlugins(settings.data_dir / "plugins")
    names = {entry.name for entry in entry_points(group=ENTRY_POINTS)}
    return cells, names | set(map(short_name, settings.plugins))


def _changed(session: Session, name: str, state: str) -> Message:
    session.plugins_changed()
    return Message(f"{name} is {state}", {"plugin": name, "state": state})
