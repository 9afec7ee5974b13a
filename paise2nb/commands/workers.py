"""Commands about the background workers."""

import operator
import os
import time
from contextlib import suppress
from pathlib import Path
from typing import Any

import click

from paise2nb.commands import completion
from paise2nb.commands.cli import CommandGroup, command, option
from paise2nb.commands.jobs import everything, in_words
from paise2nb.commands.session import Session
from paise2nb.config.specs import AUTO, FieldSpec, RedisURL
from paise2nb.core.display import Message
from paise2nb.core.errors import UsageError
from paise2nb.core.render import plain
from paise2nb.core.text import time_span
from paise2nb.core.urls import without_credentials
from paise2nb.jobs.workers_status import Pauses, WorkersStatus
from paise2nb.views.status import TAIL_BYTES
from paise2nb.workers.logs import SHOWN_BYTES, rest_of_emptied

FOLLOW_SECONDS = 0.25

worker = CommandGroup("worker", help="Start, stop and show the background workers.")
_timeout = option("--timeout S", "Time for running jobs to finish (default 30).", type=time_span)


class _Processes(click.IntRange):
    """A number of processes, or ``auto``."""

    def convert(self, value: Any, *context: Any) -> Any:
        return value if value == AUTO else super().convert(value, *context)


_concurrency = option(
    "--concurrency N",
    "Processes, or auto for one for each core (default: the settings').",
    type=_Processes(1, 1024),
)


@command("start", group=worker)
@_concurrency
@option("--pool NAME", "Only this pool.", shell_complete=completion.pools)
@option("--burst", "Stop when no work is left.")
@option("--daemonize", "Run in the background (always in a notebook).")
@option(
    "--drain-timeout S",
    "Time for running jobs to finish after Ctrl-C or SIGTERM (default 25).",
    type=time_span,
)
def start(
    session: Session,
    concurrency: int | str | None,
    pool: str | None,
    burst: bool,
    daemonize: bool,
    drain_timeout: float | None,
) -> WorkersStatus:
    """Start the workers; return when all are ready.

    Running workers go on. With --concurrency their pool is scaled: those that leave finish their
    jobs first.

    In a shell without --daemonize they run until Ctrl-C, which lets running jobs finish, and the
    log is also printed to standard error.

    \b
    Examples:
      paise2 worker start --daemonize
      paise2 worker start --burst --concurrency 8
    """
    workers = session.app.workers
    if session.app.is_temporary and not session.in_notebook:
        raise UsageError(
            f"the data directory of profile {session.app.profile} is temporary and is deleted when "
            "this command ends; choose another profile, or a directory with --data-dir"
        )
    foreground = not daemonize and not session.in_notebook
    workers.check(concurrency, pool)  # raises for wrong options before anything is printed
    if foreground and session.app.settings.logging.format != "json":
        if place := workers.elsewhere():
            session.say(f"workers run {place}, or did a moment ago: waiting for their heartbeat")
        elif not workers.present():
            session.say("workers run here until Ctrl-C, which lets running jobs finish")
    before = everything(session)
    started = workers.start(
        concurrency, pool, burst=burst, foreground=foreground, drain_timeout=drain_timeout
    )
    if burst and foreground:
        pages, others = map(operator.sub, everything(session), before)
        if pages or others:
            session.say(in_words((pages, others)))
    return started


@command("join", group=worker)
@click.argument("url", metavar="URL", envvar="PAISE2_REDIS_URL")
@option(
    "--name NAME",
    "The queue's name (default paise2); several are served in turn.",
    "names",
    multiple=True,
    default=["paise2"],
)
@_concurrency
@option("--pool NAME", "Only this pool.")
@option("--accept-plugins", "Run the plugins that were written in cells at home.")
@option("--daemonize", "Run in the background (always in a notebook).")
def join(
    session: Session,
    url: str,
    names: tuple[str, ...],
    concurrency: int | str | None,
    pool: str | None,
    accept_plugins: bool,
    daemonize: bool,
) -> Message:
    """Run workers of this machine for the queue at a Redis server.

    The jobs, items and settings stay at the home of the queue, where task_queue.provider is redis.
    Tasks that may run anywhere run here, too: fetch, extract, and those of plugins that are the
    same here and there. Pages behind a login need fetch.cookies or fetch.headers here.

    \b
    Examples:
      paise2 worker join redis://queue.example:6379/0
      paise2 worker join redis://queue.example:6379/0 --pool fetch --concurrency 2
    """
    from paise2nb.workers.machines.join import join, spawn_joined

    try:
        FieldSpec(RedisURL).checked(url, Path())
    except ValueError:
        shown = without_credentials(url)
        raise UsageError(f"{shown!r} is not {FieldSpec(RedisURL).allowed}") from None
    if not all(names):
        raise UsageError("--name is empty; give the queue's name, task_queue.redis.name at home")
    foreground = not daemonize and not session.in_notebook
    fetch = session.settings(plugins=False).fetch
    logins: dict[str, Any] = {
        "fetch.cookies": fetch.cookies and str(fetch.cookies),
        "fetch.headers": {host: dict(named) for host, named in fetch.headers.items()},
    }
    options: dict[str, Any] = {"concurrency": concurrency, "pool": pool, "foreground": foreground}
    options |= {"accept_plugins": accept_plugins, "logins": logins}
    if foreground:
        join(url, names, options, session.say)
        return Message("workers stopped", {"state": "stopped"})
    pid = spawn_joined(url, names, options)
    return Message(f"workers joined (pid {pid}); to stop them: kill {pid}", {"pid": pid})


@command("stop", group=worker)
@_timeout
@option("--host NAME", "Only the machines with this host name that have joined the queue.")
def stop(session: Session, timeout: float | None, host: str | None) -> WorkersStatus:
    """Let running jobs finish, then stop.

    Jobs that have not finished by the timeout go back to the queue and lose no attempt.
    """
    if host is not None:
        return session.app.workers.stop_machines(host)
    return session.app_to_stop().workers.stop(timeout)


@command("restart", group=worker)
@_timeout
@_concurrency
def restart(
    session: Session, timeout: float | None, concurrency: int | str | None
) -> WorkersStatus:
    """Stop, then start with the current settings and plugins.

    Options of the start are kept: --concurrency, --pool and --burst.
    """
    return session.app.workers.restart(timeout, concurrency)


@command("status", group=worker)
def status(session: Session) -> WorkersStatus:
    """Show the workers, and what keeps jobs from running."""
    return session.app.workers.status()


_pool = click.argument("pool", required=False, metavar="[POOL]", shell_complete=completion.pools)


@command("pause")
@_pool
def pause(session: Session, pool: str | None) -> Pauses:
    """Claim no more jobs until they are resumed.

    Running jobs go on. A pause lasts until `resume`, also when workers restart.

    \b
    Examples:
      paise2 pause
      paise2 pause fetch
    """
    return session.app.pause(pool)


@command("resume")
@_pool
def resume(session: Session, pool: str | None) -> Pauses:
    """Go on after a pause: of one pool, or of all."""
    return session.app.resume(pool)


@command("logs", group=worker)
@option("-n N", "Lines (default 20).", "lines", type=click.IntRange(0), default=20)
@option("--follow", "Go on with new lines, until Ctrl-C.")
def logs(session: Session, lines: int, follow: bool) -> Any:
    """Show the last lines of the workers' log."""
    log = session.app.logs(lines)
    if not follow:
        return log
    _follow(log.path, lines)
    return None


def _follow(log: Path, lines: int) -> None:
    """Print the last lines of a log and what is added to it, also after it was rotated."""
    position = max(0, log.stat().st_size - TAIL_BYTES) if log.exists() else 0
    limit: int | None = lines
    shown = b""
    while True:
        with suppress(FileNotFoundError), log.open("rb") as file:
            rest = b""
            if file.seek(0, os.SEEK_END) < position:
                position, rest = 0, rest_of_emptied(log, shown)
            file.seek(position)
            added = file.read()
            # Only complete lines: the last character may be half-written.
            complete = added[: added.rfind(b"\n") + 1]
            position += len(complete)
            shown = (shown + rest + complete)[-SHOWN_BYTES:]
            new = (rest + complete).decode(errors="replace").splitlines()
            # Line by line: an escape sequence that has no end hides only the rest of its line.
            for line in new if limit is None else new[max(0, len(new) - limit) :]:
                print(plain(line), flush=True)
            limit = None
        time.sleep(FOLLOW_SECONDS)
