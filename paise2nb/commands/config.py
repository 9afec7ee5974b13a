"""Commands about settings: ``config show``, ``edit``, ``validate``, ``path``, and YAML cells."""

import json
from typing import Any

import click

from paise2nb.commands.cli import CommandGroup, command
from paise2nb.commands.session import Session
from paise2nb.config.parser import parse_mapping
from paise2nb.config.settings import Settings, config_files
from paise2nb.core.display import Message, Rows
from paise2nb.core.errors import PaiseError, SettingsError, UsageError
from paise2nb.core.files import write_atomically
from paise2nb.core.render import Column

NEW_FILE = """\
# Settings of paise2nb. `paise2 config show` lists every key with its value and its origin.
# workers:
#   concurrency: 4
"""
_SETTINGS = (Column("key"), Column("shown", title="value", wide=True), Column("origin", wide=True))


def _save(session: Session) -> Message | None:
    """Check a cell of YAML, and make it the settings file of the working directory."""
    body = session.take_cell()
    if body is None:
        click.echo(click.get_current_context().get_help())
        return None
    *others, path = config_files()
    Settings.resolve(session.profile, files=others, overrides=parse_mapping(body, "the cell"))
    try:
        write_atomically(path, body, mode=0o666)
    except OSError as error:
        raise PaiseError(f"can't write {path}: {error.strerror}") from error
    session.reload()
    return Message(f"saved {path}", {"path": str(path)})


config = CommandGroup("config", help="Show, edit and check the settings.", default=_save)


class SettingRows(Rows):
    """The settings with their origins."""

    def to_dicts(self) -> list[dict[str, Any]]:
        """Return the rows: key, value, origin."""
        return [{key: row[key] for key in ("key", "value", "origin")} for row in self._rows]


@command("show", group=config)
def show(session: Session) -> Rows:
    """Show every setting, its value, and the layer that set it."""

    def shown(value: Any) -> str:  # null too, which a table would leave blank
        return value if isinstance(value, str) else json.dumps(value)

    rows = session.settings().rows()
    return SettingRows([{**row, "shown": shown(row["value"])} for row in rows], _SETTINGS)


@command("edit", group=config)
def edit(session: Session) -> Message:
    """Open the settings file in $EDITOR.

    This is the file in the working directory if there is one, else the user's.
    """
    if session.in_notebook:
        raise UsageError("a notebook has no editor; write the settings in a cell: %%paise2 config")
    user, local = config_files()
    path = local if local.exists() else user
    try:
        if not path.exists():
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(NEW_FILE, "utf-8")
    except OSError as error:
        raise PaiseError(f"can't write {path}: {error.strerror}") from error
    click.edit(filename=str(path))
    session.settings()
    return Message(f"{path} is valid", {"path": str(path)})


@command("validate", group=config)
def validate(session: Session) -> Message:
    """Check the settings that apply here."""
    from paise2nb.content.fetch import logins
    from paise2nb.plugins import Plugins

    settings = session.settings()
    Plugins(settings).provider(settings.task_queue.provider)
    if problems := logins.problems(settings.fetch):
        raise SettingsError(problems[0])
    files = [str(path) for path in config_files() if path.exists()]
    read = f"; read {', '.join(files)}" if files else ""
    return Message(
        f"the settings of profile {settings.profile} are valid{read}",
        {"valid": True, "profile": settings.profile, "files": files},
    )


@command("path", group=config)
def path(session: Session) -> Rows:
    """Show the settings files; later ones override earlier ones."""
    rows = [{"path": str(path), "exists": path.exists()} for path in config_files()]
    return Rows(rows, (Column("path", wide=True), Column("exists")))
