"""Commands about the installation and its data: profile, reset, demo, doctor, watch."""

import sys
import time
from typing import Any

import click

from paise2nb.commands import completion
from paise2nb.commands.cli import command, option
from paise2nb.commands.session import Session
from paise2nb.core import render
from paise2nb.core.display import Message
from paise2nb.core.errors import PaiseError

WATCH_SECONDS = 0.5


@command("profile")
@click.argument("name", metavar="[NAME]", required=False, shell_complete=completion.profiles)
def profile(session: Session, name: str | None) -> Any:
    """Show or choose the profile: development, test or production.

    In a notebook it opens the profile and shows what has happened since it was last open. In a
    shell it prints the line to paste.
    """
    if name is not None or session.in_notebook:
        return session.choose(name)
    settings = session.settings()
    origin, directory = (
        settings.entries["profile",].origin,
        settings.data_dir or "a temporary directory",
    )
    data = {"profile": settings.profile, "origin": origin, "data_dir": str(directory)}
    return Message(f"{settings.profile} ({origin}), data in {directory}", data)


@command("reset")
@option("--hard", "Delete everything, the items too.")
@option("--yes", "Do not ask.")
def reset(session: Session, hard: bool, yes: bool) -> Message:
    """Delete finished jobs and cached bytes; keep the items."""
    from paise2nb.operate.lost import lost_databases, replace

    settings = session.settings(plugins=False)
    databases = lost_databases(settings)
    directory = settings.data_dir if databases else session.app.data_dir
    data = "all jobs, cached bytes and items" if hard else "the finished jobs and the cached bytes"
    lost = ", and go on with an empty database in place of the lost one" if databases else ""
    if not yes and not session.ask(f"Delete {data} in {directory}{lost}?"):
        raise PaiseError("not confirmed; nothing was deleted")
    replace(databases)
    return session.app.reset(hard=hard)


@command("demo")
def demo(session: Session) -> Any:
    """Fetch, store and search a small bundled site.

    It needs no network. The exit status is 0 only if everything worked.
    """
    from paise2nb.demo import run_demo

    return run_demo(session.say, session.progress)


@command("doctor")
def doctor(session: Session) -> Any:
    """Check the installation and the data.

    Each finding says what to do about it. The exit status is 1 if something is wrong.
    """
    from paise2nb.doctor import examine

    return examine(session.settings)


@command("watch")
@option("--side", "Show the panel beside the notebook.")
def watch(session: Session, side: bool) -> Any:
    """Show the status live until Ctrl-C, in a notebook as a panel."""
    app = session.app
    if side:
        return session.beside(app.watch() if session.in_notebook else None)
    if session.in_notebook:
        return app.watch()
    from rich.console import Console
    from rich.live import Live

    console = Console(highlight=False)
    if session.json or not sys.stdout.isatty() or console.is_dumb_terminal:
        return app.status()
    with Live(console=console, auto_refresh=False, vertical_overflow="crop") as live:
        while True:
            live.update(render.painted(app.screen(console.height - 1)), refresh=True)
            time.sleep(WATCH_SECONDS)
