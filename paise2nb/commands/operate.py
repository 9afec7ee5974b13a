"""Commands for those who operate an installation: backup, restore, health, metrics, alerts."""

from typing import Any

import click

from paise2nb.commands.cli import CommandGroup, command, option
from paise2nb.commands.session import Session
from paise2nb.core.display import Message, Rows
from paise2nb.core.errors import UsageError
from paise2nb.core.files import expand_user
from paise2nb.core.render import Column
from paise2nb.core.text import time_span


@command("backup")
@click.argument("path", metavar="PATH")
@option("--no-cache", "Leave out raw bytes that no job needs.")
def backup(session: Session, path: str, no_cache: bool) -> Any:
    """Copy jobs, items, raw bytes and saved plugins to a directory.

    Workers may run meanwhile. The running jobs are queued in the copy.
    """
    from paise2nb.operate.backup import back_up

    app = session.app
    with session.progress("backup") as progress:
        return back_up(app, expand_user(path), cache=not no_cache, on_progress=progress)


@command("restore")
@click.argument("path", metavar="PATH")
def restore(session: Session, path: str) -> Any:
    """Put a backup into the data directory, which must be empty.

    Choose a new one with --data-dir.
    """
    from paise2nb.operate.backup import restore

    return restore(expand_user(path), session.settings(plugins=False))


@command("health")
@option("--max-age TIME", "Longest time that a job may wait: 90, 15m, 1d.")
@option("--max-failed N", "Most pages that may fail in an hour.", type=click.IntRange(0))
def health(session: Session, max_age: str | None, max_failed: int | None) -> Any:
    """Check whether work goes on: exit status 0, or 1 with reasons.

    It changes nothing, and suits the health check of a container.
    """
    from paise2nb.operate.health import check

    longest = None if max_age is None else time_span(max_age)
    settings = session.settings(plugins=False)
    return check(settings, max_age=longest, max_failed=max_failed)


@command("metrics")
@option("--serve [HOST:]PORT", "Serve them until Ctrl-C, on the loopback interface by default.")
@option("--write FILE", "Write them to a file, for the textfile collector of a node exporter.")
def metrics(session: Session, serve: str | None, write: str | None) -> Any:
    """Show the metrics of queue, workers and data for Prometheus."""
    from paise2nb.operate import metrics

    if serve and write:
        raise UsageError("give --serve or --write, not both")
    if write:
        path = expand_user(write)
        metrics.write(session.app, path)
        return Message(f"wrote {path}", {"path": path})
    if serve is None:
        return metrics.read(session.app)
    url, thread = metrics.serve(session.app, serve)
    served = Message(f"metrics at {url}", {"url": url})
    if not session.in_notebook:  # there the thread ends with the kernel
        session.say(served.text)
        thread.join()
    return served


alerts = CommandGroup("alerts", help="Messages about what is wrong: see `alerts` in the settings.")
_TESTED = (Column("name"), Column("to"), Column("result", wide=True))


@command("test", group=alerts)
def test(session: Session) -> Any:
    """Send each alert once, marked as a test.

    The exit status is 1 if one can't be delivered.
    """
    from paise2nb.workers.alerts import send_tests

    settings = session.settings(plugins=False)
    if not settings.alerts:
        return Message("there are no alerts; add some to the settings: alerts", {"alerts": []})
    rows = send_tests(settings)
    session.exit_status = int(any(row["error"] for row in rows))
    return Rows([{**row, "result": row["error"] or "delivered"} for row in rows], _TESTED)
