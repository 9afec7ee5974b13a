"""Commands about the background workers."""

from __future__ import annotations

import time
from typing import Any

import click

from paise2nb.commands import completion
from paise2nb.commands.cli import CommandGroup
from paise2nb.commands.jobs import pass_session, span
from paise2nb.commands.session import Session
from paise2nb.core.render import plain
from paise2nb.jobs.workers_status import WorkersStatus
from paise2nb.views.status import Log

FOLLOW_SECONDS = 0.25

worker = CommandGroup("worker", help="Start, stop and look at the background workers.")


@worker.command("start")
@click.option("--concurrency", type=click.IntRange(1, 1024), metavar="N", help="Processes.")
@click.option("--pool", metavar="NAME", help="Only this pool.", shell_complete=completion.pools)
@click.option("--burst", is_flag=True, help="Leave when nothing is left to do.")
@click.option("--daemonize", is_flag=True, help="In the background; always so in a notebook.")
@pass_session
def start(
    session: Session, concurrency: int | None, pool: str | None, burst: bool, daemonize: bool
) -> WorkersStatus:
    """Start the workers; return when every one is ready.

    In a shell without --daemonize they run here until Ctrl-C, which lets running jobs finish.
    """
    workers = session.app.workers
    foreground = not daemonize and not session.in_notebook
    workers.sizes(concurrency, pool)  # what is wrong with them is said first
    if foreground and not workers.present():
        session.say("workers run here until Ctrl-C, which lets running jobs finish")
    return workers.start(concurrency, pool, burst=burst, foreground=foreground)


@worker.command("stop")
@click.option("--timeout", type=span, metavar="S", help="For running jobs to finish; 30 s.")
@pass_session
def stop(session: Session, timeout: float | None) -> WorkersStatus:
    """Let running jobs finish, then stop.

    What has not finished by the timeout goes back to the queue, and no attempt is charged.
    """
    return session.app.workers.stop(timeout)


@worker.command("restart")
@click.option("--timeout", type=span, metavar="S", help="For running jobs to finish; 30 s.")
@pass_session
def restart(session: Session, timeout: float | None) -> WorkersStatus:
    """Stop, then start with the settings and plugins as they are now."""
    return session.app.workers.restart(timeout)


@worker.command("status")
@pass_session
def status(session: Session) -> WorkersStatus:
    """Show who runs, and what keeps jobs from running."""
    return session.app.workers.status()


@worker.command("logs")
@click.option("-n", "lines", type=click.IntRange(0), default=20, metavar="N", help="Lines; 20.")
@click.option("--follow", is_flag=True, help="Show what is added, until Ctrl-C.")
@pass_session
def logs(session: Session, lines: int, follow: bool) -> Any:
    """Show the last lines of the workers' log."""
    log = session.app.logs(lines)
    if not follow:
        return log
    print(log, flush=True)
    _follow(log)
    return None


def _follow(log: Log) -> None:
    """Print what is added to a log, in its next file too after it was rotated."""
    position = log.path.stat().st_size if log.path.exists() else 0
    while True:
        size = log.path.stat().st_size if log.path.exists() else 0
        if size < position:
            position = 0
        if size > position:
            with log.path.open("rb") as file:
                file.seek(position)
                added = file.read()
            # Whole lines only: a character may be cut at the end of what is there.
            whole = added[: added.rfind(b"\n") + 1]
            position += len(whole)
            print(plain(whole.decode(errors="replace")), end="", flush=True)
        time.sleep(FOLLOW_SECONDS)
