"""Commands for those who operate an installation: backup, restore, health."""

from pathlib import Path
from typing import Any

import click

from paise2nb.commands.arguments import time_span
from paise2nb.commands.cli import command, option
from paise2nb.commands.session import Session


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
        return back_up(app, Path(path).expanduser(), cache=not no_cache, on_progress=progress)


@command("restore")
@click.argument("path", metavar="PATH")
def restore(session: Session, path: str) -> Any:
    """Put a backup into the data directory, which must be empty.

    Choose a new one with --data-dir.
    """
    from paise2nb.operate.backup import restore

    return restore(Path(path).expanduser(), session.settings(plugins=False))


@command("health")
@option("--max-age TIME", "Longest time that a job may wait: 90, 15m, 1d.")
@option("--max-failed N", "Most pages that may fail in an hour.", type=int)
def health(session: Session, max_age: str | None, max_failed: int | None) -> Any:
    """Check whether work goes on: exit status 0, or 1 with reasons.

    It changes nothing, and suits the health check of a container.
    """
    from paise2nb.operate.health import check

    longest = None if max_age is None else time_span(max_age)
    settings = session.settings(plugins=False)
    return check(settings, max_age=longest, max_failed=max_failed)
