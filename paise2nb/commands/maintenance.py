"""Commands about the installation: profile, settings, reset, demo, doctor, watch."""

from __future__ import annotations

import json
import os
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import click

from paise2nb.commands import completion
from paise2nb.commands.cli import Command, CommandGroup
from paise2nb.commands.jobs import pass_session
from paise2nb.commands.session import Message, Session
from paise2nb.core import render
from paise2nb.core.display import RowList
from paise2nb.core.errors import PaiseError, UsageError
from paise2nb.core.render import Column
from paise2nb.views.status import ResetCounts

WATCH_SECONDS = 0.5
NEW_FILE = """\
# Settings of paise2nb. `paise2 config show` lists every key, its value and where it comes from.
# workers:
#   concurrency: 4
"""


class Rows(RowList):
    """A listing of plain rows, which are few enough to be shown all."""

    def __init__(self, rows: list[dict[str, Any]], shown: Sequence[Column]) -> None:
        super().__init__(rows)
        self._shown = shown

    def __str__(self) -> str:
        return render.text_table(self._rows, self._shown, limit=None)

    def _repr_html_(self) -> str:
        return render.html_table(self._rows, self._shown, limit=None)


@click.command("profile", cls=Command)
@click.argument("name", metavar="[NAME]", required=False, shell_complete=completion.profiles)
@pass_session
def profile(session: Session, name: str | None) -> Any:
    """Show or choose the profile: development, test or production.

    In a notebook it opens the profile and says what happened meanwhile; in a shell it prints the
    line to paste.
    """
    if name is not None or session.in_notebook:
        return session.choose(name)
    settings = session.settings()
    origin, where = settings.origin("profile"), settings.data_dir or "a temporary directory"
    data = {"profile": settings.profile, "origin": origin, "data_dir": str(where)}
    return Message(f"{settings.profile} ({origin}), data in {where}", data)


# Settings ------------------------------------------------------------------------------------


@click.pass_context
def _config(context: click.Context) -> Message | None:
    session = context.find_object(Session)
    assert session is not None
    if context.invoked_subcommand is not None:
        return None
    body = session.take_cell()
    if body is None:
        click.echo(context.get_help())
        return None
    return _save(session, body)


config = CommandGroup("config", help="Show, edit and check the settings.", callback=_config)


def _save(session: Session, body: str) -> Message:
    """Check a cell of YAML, and make it the settings file of the working directory."""
    from paise2nb.config.parser import parse_mapping
    from paise2nb.config.settings import Settings, config_files

    *others, path = config_files()
    Settings.resolve(session.profile, files=others, overrides=parse_mapping(body, "the cell"))
    aside = path.with_name(f".{path.name}.{os.getpid()}")
    try:
        aside.write_text(body, "utf-8")
        aside.replace(path)
    except OSError as error:
        aside.unlink(missing_ok=True)
        raise PaiseError(f"can't write {path}: {error.strerror}") from error
    session.reload()
    return Message(f"saved {path}", {"path": str(path)})


@config.command("show")
@pass_session
def show(session: Session) -> Rows:
    """Show every setting, its value, and which layer set it."""

    def yaml(value: Any) -> str:
        return value if isinstance(value, str) else json.dumps(value)

    # A value may be null, which a table would leave blank.
    rows = session.settings().rows()
    columns = (
        Column("key"),
        Column("shown", title="value", wide=True),
        Column("origin", wide=True),
    )
    return Configuration([{**row, "shown": yaml(row["value"])} for row in rows], columns)


class Configuration(Rows):
    """Settings with their origins."""

    def to_dicts(self) -> list[dict[str, Any]]:
        """The rows: key, value, origin."""
        return [{key: row[key] for key in ("key", "value", "origin")} for row in self._rows]


@config.command("edit")
@pass_session
def edit(session: Session) -> Message:
    """Open the settings file in $EDITOR.

    The working directory's if there is one, else the user's.
    """
    from paise2nb.config.settings import config_files

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


@config.command("validate")
@pass_session
def validate(session: Session) -> Message:
    """Check the settings that hold here."""
    settings = session.settings()
    files = [str(path) for path in _files() if path.exists()]
    read = f"; read {', '.join(files)}" if files else ""
    return Message(
        f"the settings of profile {settings.profile} are valid{read}",
        {"valid": True, "profile": settings.profile, "files": files},
    )


@config.command("path")
@pass_session
def path(session: Session) -> Rows:
    """Show where settings files are looked for; the later one wins."""
    rows = [{"path": str(path), "exists": path.exists()} for path in _files()]
    return Rows(rows, (Column("path", wide=True), Column("exists")))


def _files() -> list[Path]:
    from paise2nb.config.settings import config_files

    return config_files()


# The rest ------------------------------------------------------------------------------------


@click.command("reset", cls=Command)
@click.option("--hard", is_flag=True, help="Forget everything, items too.")
@click.option("--yes", is_flag=True, help="Do not ask.")
@pass_session
def reset(session: Session, hard: bool, yes: bool) -> ResetCounts:
    """Forget finished jobs and cached bytes; with --hard everything."""
    app = session.app
    what = "all jobs, cached bytes and items" if hard else "the finished jobs and the cached bytes"
    if not yes and not session.ask(f"Forget {what} in {app.data_dir}?"):
        raise PaiseError("not confirmed; nothing was forgotten")
    return app.reset(hard=hard)


@click.command("demo", cls=Command)
@pass_session
def demo(session: Session) -> Any:
    """Run the main job on a bundled site over loopback.

    The exit status is 0 only if all of it worked.
    """
    from paise2nb.demo import run_demo

    return run_demo(session.say, session.progress)


@click.command("doctor", cls=Command)
@pass_session
def doctor(session: Session) -> Any:
    """Check the installation and the data.

    Each finding says what to do about it; the exit status is 1 if something is wrong.
    """
    from paise2nb.doctor import examine

    return examine(session.settings)


@click.command("watch", cls=Command)
@pass_session
def watch(session: Session) -> Any:
    """Show the status live, until Ctrl-C."""
    app = session.app
    if session.in_notebook:
        return app.watch()
    if session.json or not sys.stdout.isatty():
        return app.status()
    from rich.console import Console
    from rich.live import Live

    from paise2nb.views import snapshot as snapshot

    console = Console(highlight=False)
    shown = app.snapshot()
    with Live(console=console, auto_refresh=False, vertical_overflow="crop") as live:
        while True:
            text = snapshot.text(shown, time.time(), console.height - 1)
            live.update(render.painted(text), refresh=True)
            time.sleep(WATCH_SECONDS)
            shown = app.snapshot()
