"""Commands about plugins: save a cell as one, list all of them, disable and enable them."""

import json
import os
from importlib.metadata import entry_points
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import click

from paise2nb.commands import completion
from paise2nb.commands.cli import CommandGroup, command, option
from paise2nb.commands.session import Session
from paise2nb.core import render
from paise2nb.core.display import Message, Rows
from paise2nb.core.errors import UsageError
from paise2nb.core.files import make_private_directory
from paise2nb.core.render import Column, amount, one_line
from paise2nb.plugins import ENTRY_POINTS, short_name
from paise2nb.plugins.saved import SavedPlugins

PREVIEW_LENGTH = 300  # characters of a document that --try shows
_PLUGINS = (
    Column("kind"),
    Column("name", wide=True),
    Column("plugin", wide=True),
    Column("version"),
    Column("state"),
    Column("origin", wide=True, html=lambda path: render.link(path, length=32)),
)


def _preview(outcome: dict[str, Any]) -> Message:
    """Say what a plugin makes of a job or an item, from the result of `plugin_check.check`."""
    value = outcome["value"]
    if "documents" in outcome:  # the value has only a key of the document, shown below
        value = {name: value[name] for name in value if name != "document"}
    shown = one_line(json.dumps(value, ensure_ascii=False), 200)
    lines = [f"{outcome['tried']} ({outcome['task']}): {shown}"]
    for document in outcome.get("documents", ()):
        lines.append(f"  {one_line(document['title'] or 'untitled')}")
        lines.append(f"  {one_line(document['text'], PREVIEW_LENGTH)}")
    if outcome["followups"]:
        lines.append(f"  would enqueue {amount(outcome['followups'], 'job')}")
    if outcome["said"]:
        lines.append(outcome["said"])
    lines.append(f"{outcome['registers']}: not saved; to save it, leave out --try")
    return Message("\n".join(lines), outcome)


class PluginRows(Rows):
    """The parts of all plugins, and why some can't be loaded."""

    def notes(self) -> list[str]:
        """Return why some can't be loaded."""
        return [row["reason"] for row in self._rows if "reason" in row]


@command("plugin", reads_cell=True)
@click.argument("name")
@option("--try ID", "Run it on a job or item; save nothing.", "try_id", type=int)
def plugin(session: Session, name: str, try_id: int | None) -> Message:
    """Save the cell as a plugin in the data directory, and load it.

    It is checked in a separate process first. Running workers use it from their next job on.

    \b
    Example of a cell:
      %%paise2 plugin shout
      from paise2nb import task
      @task("shout")
      def shout(context, word):
          return word.upper()
    """
    body = session.take_cell()
    if body is None:
        raise UsageError("write the plugin's code in a cell below %%paise2 plugin NAME")
    if not (name.isidentifier() and name.isascii()):
        raise UsageError(f"{name!r} can't be the name of a module; use letters, digits and _")
    from paise2nb.commands.plugin_check import check  # imports what no other command needs

    app = session.app
    _, others = _known(session)
    if name in others:
        raise UsageError(f"there is another plugin named {name!r}; choose another name")
    # With its first line, the lines of the cell have the same numbers in the file.
    text = f"# %%paise2 plugin {name}\n{body}"
    make_private_directory(app.saved_plugins.directory)
    with TemporaryDirectory(prefix=".check-", dir=app.saved_plugins.directory) as draft:
        candidate = Path(draft) / f"{name}.py"
        candidate.write_text(text, "utf-8")
        outcome = check(app.settings, candidate, session.names(), try_id)
    if try_id is not None:
        return _preview(outcome)
    version = app.saved_plugins.save(name, text)
    session.plugins_changed()
    path = app.saved_plugins.path(name)
    data = {"path": str(path), "version": version, "registers": outcome["registers"]}
    message = f"{_shown(path)} registers {outcome['registers']}"
    if version > 1:
        previous = app.saved_plugins.previous(name)
        data["before"] = str(previous)
        message += f"; version {version}, the previous one is {_shown(previous)}"
    return Message(message, data)


def _shown(path: Path) -> str:
    """Return a path, relative to the working directory if it is inside."""
    return os.path.relpath(path) if path.is_relative_to(Path.cwd()) else str(path)


plugins = CommandGroup(
    "plugins",
    help="List every provider, fetcher, extractor and task.",
    default=lambda session: PluginRows(session.app.plugins.describe(), _PLUGINS),
)


@command("disable", group=plugins)
@click.argument("name", shell_complete=completion.plugins)
def disable(session: Session, name: str) -> Message:
    """Stop loading a plugin, here and in the workers.

    Jobs of its tasks wait until it is enabled. A plugin that fails to load can be disabled too.
    """
    saved, others = _known(session)
    known = others | {path.stem for path in saved.paths()}
    if name not in known:
        raise UsageError(f"no plugin {name!r}; known: {', '.join(sorted(known)) or 'none'}")
    saved.set_enabled(name, False)
    return _changed(session, name, "disabled")


@command("enable", group=plugins)
@click.argument("name", shell_complete=completion.plugins)
def enable(session: Session, name: str) -> Message:
    """Load a disabled plugin again."""
    saved, _ = _known(session)
    disabled = saved.manifest()["disabled"]
    if name not in disabled:
        raise UsageError(f"{name!r} is not disabled; disabled: {', '.join(disabled) or 'none'}")
    saved.set_enabled(name, True)
    return _changed(session, name, "enabled")


def _known(session: Session) -> tuple[SavedPlugins, set[str]]:
    """Return the saved plugins, and the names of all others but the built-in ones."""
    settings = session.settings(plugins=False)
    if settings.data_dir is None:  # a temporary directory
        settings = session.app.settings
    assert settings.data_dir is not None
    names = {entry.name for entry in entry_points(group=ENTRY_POINTS)}
    names.update(map(short_name, settings.plugins))
    return SavedPlugins(settings.data_dir / "plugins"), names


def _changed(session: Session, name: str, state: str) -> Message:
    session.plugins_changed()
    return Message(f"{name} is {state}", {"plugin": name, "state": state})
