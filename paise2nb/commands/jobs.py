"""Commands about jobs: enqueue, show, wait, retry, cancel, replay."""

from collections import Counter
from collections.abc import Mapping, Sequence
from contextlib import nullcontext
from functools import partial
from typing import Any

import click

from paise2nb.commands import completion
from paise2nb.commands.arguments import argument_lines, expand, is_literal, read_list
from paise2nb.commands.cli import command, filters, option
from paise2nb.commands.session import Session
from paise2nb.core.errors import UsageError
from paise2nb.core.text import time_span
from paise2nb.jobs.queries import Counts
from paise2nb.plugins import AppInfo, Task
from paise2nb.views.enqueued import Replay
from paise2nb.views.history import counts_in_words, row_time
from paise2nb.views.jobs import Job, Jobs
from paise2nb.views.stats import GROUPS, Stats
from paise2nb.views.status import Status
from paise2nb.views.waiting import Bar

PROGRESS_FROM = 2000  # arguments from which on an enqueue shows its progress
_TASK_OPTIONS = ("recursive", "depth", "same_host", "pattern", "max_pages")
ids_argument = partial(click.argument, "ids", metavar="[ID]...", type=int, nargs=-1)


@command("enqueue", reads_cell=True)
@click.argument("task", metavar="TASK", shell_complete=completion.tasks)
@click.argument("words", metavar="[ARG]...", nargs=-1)
@option("--from FILE", "One argument per line, or a browser's bookmarks; - reads stdin.", "source")
@option("--column NAME", "Read this column of the .csv given by --from.")
@option("--tag NAME", "A tag for the jobs and items.", shell_complete=completion.tags)
@option("--priority N", "Higher runs first; default 0.", type=int, default=0)
@option("--delay SECONDS", "Wait this long first: 90, 15m, 2h.", type=time_span)
@option("--every 1d", "Run again and again at this interval.", type=time_span)
@option("--force", "Run now even if up to date or due later.")
@option("--recursive", "folder: include subfolders.", default=None)
@option("--depth N", "links: how many links to follow (default 1).", type=int)
@option("--same-host/--any-host", "links: only the page's host, or any.", default=None)
@option("--pattern GLOB", "folder, links: only matches.", multiple=True)
@option("--max-pages N", "links: the most pages to visit (default 50,000).", type=int)
@option("--wait", "Return when the jobs have finished.", "and_wait")
def enqueue(
    session: Session,
    /,
    task: str,
    words: tuple[str, ...],
    source: str | None,
    column: str | None,
    and_wait: bool,
    **options: Any,
) -> Job | Jobs:
    """Add one job for each argument.

    Globs and ~ are expanded, and paths become absolute. All arguments are checked first: if
    one is wrong, nothing is added. An argument that is waiting already, or up to date, returns
    its existing job. Intervals are 90 (seconds), 15m, 2h, 1d or 1w.

    \b
    Examples:
      paise2 enqueue fetch https://example.org/ --tag news
      paise2 enqueue fetch --from urls.csv --column url
      paise2 enqueue feed https://example.org/feed.xml --every 1d
      paise2 enqueue sitemap example.org
      paise2 enqueue links https://example.org/ --depth 2
      paise2 enqueue folder papers --recursive --pattern "*.pdf"
      paise2 enqueue warc pages.warc.gz
    """
    app = session.app
    app.plugins.refresh()  # another process may have saved one
    declared = app.plugins.task(task)
    given = {name: options.pop(name) for name in _TASK_OPTIONS}
    given = {name: value for name, value in given.items() if value not in (None, ())}
    if column is not None and source is None:
        raise UsageError("--column names a column of a file; add --from FILE")
    body = session.take_cell()
    if source == "-" and session.in_notebook:
        raise UsageError(
            f"a notebook has no standard input; write lines in a cell: %%paise2 enqueue {task}"
        )
    arguments: list[Any] = expand(words, task=task)
    if source is not None:
        arguments += expand(read_list(source, column, partial(_fits, app, declared)), task=task)
    if body is not None:
        arguments += expand(argument_lines(body), task=task)
    single = source is None and body is None and is_literal(words, arguments)
    if single and not words:
        arguments = [()]  # a task without arguments, such as cleanup
    if given:
        if given.get("same_host") is False and "same_host" not in declared.parameters:
            raise UsageError(f"task {task!r} takes no --any-host")
        every = [argument if argument == () else (argument,) for argument in arguments]
        arguments = [declared.with_options(argument, given) for argument in every]
    shows = len(arguments) >= PROGRESS_FROM
    with session.progress("enqueueing") if shows else nullcontext() as report:
        jobs = app.enqueue_many(task, arguments, on_progress=report, **options)
    if and_wait:
        _start_workers(session, jobs)
        _wait(session, None, jobs, fail=True)
    else:
        _warn_if_stuck(session, jobs)
    return jobs[0] if single and not session.json else jobs


def _fits(app: AppInfo, task: Task, value: str) -> bool:
    """Whether a text is an argument of a task."""
    try:
        task.accept(app, tuple(expand([value], task=task.name)))
    except UsageError:
        return False
    return True


def _start_workers(session: Session, jobs: Jobs) -> None:
    """Start workers if jobs wait and none run; they stop when no work is left."""
    app = session.app
    is_waiting = not app.immediate and app.queue.job_store.unfinished(jobs.ids)
    if is_waiting and not app.workers.present():
        session.say(f"{app.workers.start(burst=True).message}, until no work is left")


def _warn_if_stuck(session: Session, jobs: Jobs) -> None:
    """Say what keeps waiting jobs from running, and which command helps."""
    app = session.app
    if app.immediate or not app.queue.job_store.unfinished(jobs.ids):
        return
    supervisor = app.queue.job_store.supervisor()
    if supervisor is not None and supervisor["state"] == "idle":
        return  # the workers had left because nothing waited; the enqueue starts them again
    if problem := app.workers.status().problem:
        session.say(problem)


def select(session: Session, ids: Sequence[int], limit: int | None = None, **given: Any) -> Jobs:
    """Return the jobs with these ids, or those that fit the filters.

    Raises:
        UsageError: a filter names a task that neither a plugin nor a job has.
    """
    found = session.app.jobs(*ids, limit=limit, **given)
    if not found and given.get("task"):
        session.app.plugins.task(given["task"])
    return found


def _change(session: Session, command: str, ids: Sequence[int], given: Mapping[str, Any]) -> Jobs:
    """Retry or cancel the selected jobs. If none of them changes, print their states."""
    if not ids and not any(given.values()):
        raise UsageError(
            f"no jobs selected; give ids or a filter, such as: paise2 {command} --state failed"
        )
    selected = select(session, ids, **given)
    changed: Jobs = getattr(selected, command)()
    if selected and not changed:
        states = Counter(row["state"] for row in selected.to_dicts())
        counts = ", ".join(f"{number:,} {state}" for state, number in states.items())
        session.say(f"nothing to {command}: {counts}")
    return changed


def everything(session: Session) -> tuple[Counts, Counts]:
    """The states of all pages, and of all jobs that are part of none."""
    job_store = session.app.queue.job_store
    pages, others = Counter(job_store.page_counts()), Counter(job_store.other_counts())
    for row in job_store.recurring_failed():
        counts = others if row["page_id"] is None else pages
        counts.update({"failed": 1, row["page_state"] or row["state"]: -1})
    return pages, others


def in_words(ended: tuple[Counts, Counts]) -> str:
    """Say how many pages and jobs ended in which state, and which command shows those that failed.

    Args:
        ended: the pages, and the jobs that are part of none.
    """
    text = counts_in_words(*ended) or "nothing to wait for"
    return f"{text}; see: paise2 jobs --state failed" if has_failed(ended) else text


def has_failed(ended: tuple[Counts, Counts]) -> bool:
    """Whether any page or other job has."""
    return any(counts["failed"] for counts in ended)


def _wait(session: Session, timeout: float | None, jobs: Jobs | None, fail: bool) -> None:
    """Wait with a progress bar, say what came of it, and set the exit status if that matters."""
    bar = Bar(session.app.client, None if jobs is None else jobs.ids)
    ended = bar.ended if jobs is not None else partial(everything, session)
    is_told = fail or jobs is not None  # else the status tells it, which is returned
    with session.progress("waiting", (lambda: in_words(ended())) if is_told else None) as draw:
        (session.app if jobs is None else jobs).wait(timeout, on_progress=bar.drawn_by(draw))
    session.exit_status = int(fail and has_failed(ended()))


@command("jobs")
@filters
@option("--all", "Every job; --state takes a job state.")
@option("--limit N", "Only the first N.", type=click.IntRange(0))
def jobs(session: Session, /, limit: int | None, **given: Any) -> Jobs:
    """List pages, and jobs that are no page.

    A page is a fetch with its extract and its store; its state is queued, scheduled, running,
    retrying, stored, unchanged, failed, cancelled or skipped.

    \b
    Examples:
      paise2 jobs --state failed
      paise2 jobs --all --state completed
      paise2 jobs --tag news --error timeout
    """
    return select(session, (), limit, **given)


@command("job")
@click.argument("job_id", metavar="ID", type=int, shell_complete=completion.job_ids())
def job(session: Session, job_id: int) -> Job:
    """Show one job with its attempts, errors, tracebacks and tree."""
    session.text = Job.details
    return session.app.job(job_id)


@command("wait")
@ids_argument(shell_complete=completion.unfinished)
@filters
@option("--timeout S", "Give up after this: 90, 15m, 2h.", type=time_span)
@option("--fail", "Exit status 1 if any page or job failed.")
def wait(
    session: Session, /, ids: tuple[int, ...], timeout: float | None, fail: bool, **given: Any
) -> Any:
    """Wait until no job is queued, running, retrying or due.

    Failed pages and jobs are reported.
    """
    selected = select(session, ids, **given) if ids or any(given.values()) else None
    _wait(session, timeout, selected, fail)
    return session.app.status() if selected is None else selected


@command("retry")
@ids_argument(shell_complete=completion.retriable)
@filters
def retry(session: Session, /, ids: tuple[int, ...], **given: Any) -> Jobs:
    """Put failed jobs back into the queue, with new attempts.

    Cancelled jobs too. Jobs that are retrying or scheduled start now instead of later.

    \b
    Examples:
      paise2 retry 17
      paise2 retry --error timeout
    """
    retried = _change(session, "retry", ids, given)
    _warn_if_stuck(session, retried)
    job_store = session.app.queue.job_store
    for host, until in job_store.pauses_of_hosts(retried.ids).items():
        session.say(f"{host} asked for a pause until {row_time(job_store, until)}")
    return retried


@command("cancel")
@ids_argument(shell_complete=completion.unfinished)
@filters
def cancel(session: Session, /, ids: tuple[int, ...], **given: Any) -> Jobs:
    """Cancel jobs and all their follow-up jobs.

    Running jobs are ended.
    """
    return _change(session, "cancel", ids, given)


@command("replay")
@click.argument("job_id", metavar="ID", type=int, shell_complete=completion.replayable)
def replay(session: Session, job_id: int) -> Replay:
    """Run a job here and now with the same input.

    Nothing is stored or enqueued. An exception of the task is raised unchanged, so that %debug
    opens the frame that failed.
    """
    app = session.app
    app.job(job_id)
    session.raw = True
    return app.replay(job_id)


@command("status")
def status(session: Session) -> Status:
    """Show the queue, the workers, the next retries and the failures."""
    return session.app.status()


@command("stats")
@option("--since TIME", "How long ago: 15m, 1d (the default), 4w.", default="1d")
@option(
    "--by NAME", "task (the default), pool, host or error.", default="task",
    shell_complete=completion.candidates(GROUPS),
)  # fmt: skip
def stats(session: Session, since: str, by: str) -> Stats:
    """Show what has run: counts, failures, waiting and run time.

    In a notebook the result has plot() and to_frame().
    """
    return session.app.stats(since, by)
