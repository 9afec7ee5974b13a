"""Commands about jobs: enqueue, look, wait, and move them."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Mapping, Sequence
from contextlib import nullcontext
from functools import partial
from typing import Any

import click

from paise2nb.app import App
from paise2nb.commands import completion
from paise2nb.commands.arguments import expand, is_literal, lines_of, read_list
from paise2nb.commands.cli import Command, filters
from paise2nb.commands.session import Session
from paise2nb.core.errors import UsageError
from paise2nb.views.jobs import Job, Jobs, Replay
from paise2nb.views.status import Status
from paise2nb.views.waiting import STOPPED

UNITS = {"": 1, "s": 1, "min": 60, "m": 60, "h": 3600, "d": 86400, "w": 7 * 86400}
BULK = 2000  # arguments from which on an enqueue shows its progress
pass_session = click.make_pass_decorator(Session)
some_ids = partial(click.argument, "ids", metavar="[ID]...", type=int, nargs=-1)


def span(text: str) -> float:
    """Seconds in a time span: ``90``, ``15m``, ``1.5h``, ``1d``. Raises UsageError."""
    match = re.fullmatch(r"(\d+(?:\.\d+)?) *([a-z]*)", text.strip())
    if match is None or match[2] not in UNITS:
        raise UsageError(f"{text!r} is no time span; write 90, 15m, 2h, 1d or 1w")
    return float(match[1]) * UNITS[match[2]]


@click.command("enqueue", cls=Command)
@click.argument("task", metavar="TASK", shell_complete=completion.tasks)
@click.argument("words", metavar="[ARG]...", nargs=-1)
@click.option("--from", "source", metavar="FILE", help="One argument a line; - is standard input.")
@click.option("--column", metavar="NAME", help="The column of a .csv given by --from.")
@click.option(
    "--tag",
    metavar="NAME",
    help="A word that follow-up jobs and items inherit.",
    shell_complete=completion.tags,
)
@click.option("--priority", type=int, default=0, metavar="N", help="Higher first.")
@click.option("--delay", type=span, metavar="SECONDS", help="Not before so many seconds.")
@click.option("--every", type=span, metavar="1d", help="Again and again: 90, 15m, 2h, 1d, 1w.")
@click.option("--force", is_flag=True, help="Even what is fresh.")
@click.option("--recursive", is_flag=True, default=None, help="folder: the folders in it too.")
@click.option("--depth", type=int, metavar="N", help="links: so many links away from the page; 1.")
@click.option("--same-host/--any-host", default=None, help="links: to its own host only, or any.")
@click.option("--pattern", multiple=True, metavar="GLOB", help="folder, links: only these.")
@click.option("--wait", "wait_for_it", is_flag=True, help="Return when all of it has ended.")
@pass_session
def enqueue(
    session: Session,
    /,
    task: str,
    words: tuple[str, ...],
    source: str | None,
    column: str | None,
    wait_for_it: bool,
    **options: Any,
) -> Job | Jobs:
    """Add one job for each argument.

    Globs and ~ expand, and paths become absolute. All arguments are checked first: if one of
    them is wrong, nothing is added. What waits already, or is fresh, is answered with its job.
    """
    app = session.app
    declared = app.plugins.task(task)
    named = {name: options.pop(name) for name in ("recursive", "depth", "same_host", "pattern")}
    named = {name: value for name, value in named.items() if value not in (None, ())}
    if column is not None and source is None:
        raise UsageError("--column names a column of a file; add --from FILE")
    body = session.take_cell()
    arguments: list[Any] = expand(words, task=task)
    if source == "-" and session.in_notebook:
        raise UsageError(
            f"a notebook has no standard input; write lines in a cell: %%paise2 enqueue {task}"
        )
    if source is not None:
        arguments += expand(read_list(source, column, app, task), task=task)
    if body is not None:
        arguments += expand(lines_of(body), task=task)
    single = source is None and body is None and is_literal(words, arguments)
    if single and not words:
        arguments = [()]  # a task without arguments, such as cleanup
    if named:
        arguments = [declared.with_options((argument,), named) for argument in arguments]
    bulk = session.progress("enqueueing") if len(arguments) >= BULK else nullcontext()
    with bulk as report:
        jobs = app.enqueue_many(task, arguments, on_progress=report, **options)
    if wait_for_it:
        _wait(session, None, jobs)
    else:
        _say_what_is_missing(session, jobs)
    return jobs[0] if single and not session.json else jobs


enqueue.callback.reads_cell = True  # type: ignore[union-attr]


def _say_what_is_missing(session: Session, jobs: Jobs) -> None:
    """Say at once what keeps jobs that wait from running, and what helps."""
    app = session.app
    if app.immediate or not app.queue.job_store.unfinished(jobs.ids):
        return
    supervisor = app.queue.job_store.supervisor()
    if supervisor is not None and supervisor["state"] == "idle":
        return  # the workers had left for want of work; the enqueue has brought them back
    found = app.workers.status()
    problem = found.problem
    if problem is None and found.workers:
        pools = {app.pool_of(app.plugins.tasks[row["task"]]) for row in _waiting(app, jobs)}
        missing = sorted(pools - {worker["pool"] for worker in found.workers})
        if missing:
            problem = (
                f"no worker of pool {missing[0]} runs: paise2 worker start --pool {missing[0]}"
            )
    if problem:
        session.say(problem)


def _waiting(app: App, jobs: Jobs) -> list[Mapping[str, Any]]:
    tasks = app.plugins.tasks
    return [row for row in jobs.to_dicts() if row["state"] == "queued" and row["task"] in tasks]


def select(session: Session, ids: Sequence[int], limit: int | None = None, **given: Any) -> Jobs:
    """The jobs with these ids, or that fit the filters.

    Raises:
        UsageError: a filter names a task that neither a plugin nor a job knows.
    """
    found = session.app.jobs(*ids, limit=limit, **given)
    if not found and given.get("task"):
        session.app.plugins.task(given["task"])
    return found


def _chosen(session: Session, verb: str, ids: Sequence[int], given: Mapping[str, Any]) -> Jobs:
    if not ids and not any(given.values()):
        raise UsageError(f"which jobs? Give ids, or a filter such as: paise2 {verb} --state failed")
    return select(session, ids, **given)


def _say_unmoved(session: Session, verb: str, chosen: Jobs, moved: Jobs) -> None:
    """Say why a move moved nothing: the states that the jobs are in."""
    if chosen and not moved:
        states = Counter(row["state"] for row in chosen.to_dicts())
        words = ", ".join(f"{number:,} {state}" for state, number in states.items())
        session.say(f"nothing to {verb}: {words}")


def _wait(session: Session, timeout: float | None, jobs: Jobs | None) -> None:
    try:
        with session.progress("waiting") as report:
            session.app.wait(timeout, jobs=None if jobs is None else jobs.ids, on_progress=report)
    except KeyboardInterrupt:
        session.say(STOPPED)
        raise


@click.command("jobs", cls=Command)
@filters
@click.option("--limit", type=click.IntRange(0), metavar="N", help="The first N only.")
@pass_session
def jobs(session: Session, /, limit: int | None, **given: Any) -> Jobs:
    """List jobs."""
    return select(session, (), limit, **given)


@click.command("job", cls=Command)
@click.argument("job_id", metavar="ID", type=int, shell_complete=completion.jobs())
@pass_session
def job(session: Session, job_id: int) -> Job:
    """Show one job with its attempts, errors, tracebacks and tree."""
    session.text = Job.details
    return session.app.job(job_id)


@click.command("wait", cls=Command)
@some_ids(shell_complete=completion.UNENDED)
@filters
@click.option("--timeout", type=span, metavar="S", help="At most so many seconds.")
@pass_session
def wait(session: Session, /, ids: tuple[int, ...], timeout: float | None, **given: Any) -> Any:
    """Wait until nothing is queued, running, retrying, or due.

    Failures are reported, and are no reason for another exit status than 0.
    """
    chosen = select(session, ids, **given) if ids or any(given.values()) else None
    _wait(session, timeout, chosen)
    return session.app.status() if chosen is None else chosen


@click.command("retry", cls=Command)
@some_ids(shell_complete=completion.RETRIABLE)
@filters
@pass_session
def retry(session: Session, /, ids: tuple[int, ...], **given: Any) -> Jobs:
    """Put jobs that failed back into the queue, with new attempts.

    Those that were cancelled too; what is retrying or scheduled starts now instead of later.
    """
    chosen = _chosen(session, "retry", ids, given)
    moved = chosen.retry()
    _say_unmoved(session, "retry", chosen, moved)
    _say_what_is_missing(session, moved)
    return moved


@click.command("cancel", cls=Command)
@some_ids(shell_complete=completion.UNENDED)
@filters
@pass_session
def cancel(session: Session, /, ids: tuple[int, ...], **given: Any) -> Jobs:
    """Take jobs out of the queue, with all that descends from them.

    Running ones are ended.
    """
    chosen = _chosen(session, "cancel", ids, given)
    moved = chosen.cancel()
    _say_unmoved(session, "cancel", chosen, moved)
    return moved


@click.command("replay", cls=Command)
@click.argument(
    "job_id",
    metavar="ID",
    type=int,
    shell_complete=completion.WORTH_REPLAYING,
)
@pass_session
def replay(session: Session, job_id: int) -> Replay:
    """Run a job here and now with the same input.

    Nothing is stored or enqueued. What it raises is raised here, so that %debug opens the frame
    that failed.
    """
    app = session.app
    app.job(job_id)
    session.raw = True
    return app.replay(job_id)


@click.command("status", cls=Command)
@pass_session
def status(session: Session) -> Status:
    """Show the queue, the workers, the next retries and the failures."""
    return session.app.status()
