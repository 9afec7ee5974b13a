"""Jobs in their current state.

A Job reads its row each time, so a variable in a notebook never shows an outdated state.
"""

from __future__ import annotations

from collections.abc import Callable, Generator, Iterable, Mapping, Sequence
from typing import Any, Self

from paise2nb.core import render
from paise2nb.core.display import Listing, arguments, frame
from paise2nb.core.errors import JobFailed, NotFound, redacted
from paise2nb.core.render import Column
from paise2nb.jobs.models import value_of, whole_number
from paise2nb.jobs.store import JobStore
from paise2nb.views.client import JobClient
from paise2nb.views.items import Items
from paise2nb.views.record import Record
from paise2nb.views.waiting import Progress, block, wait_async, waiting

ARGUMENT_LENGTH = 1000  # characters in the line about a job
LATER = ("scheduled", "retrying")  # the states of a job that waits for a time
NOW = "now instead of later"
_TIMES = ("enqueued_at", "started_at", "finished_at", "run_at")


def progress(row: Mapping[str, Any]) -> str:
    """The progress that a running job has reported, such as ``3 of 10``; empty without any."""
    reported = value_of(row.get("progress"))
    if row["state"] != "running" or not isinstance(reported, list):
        return ""
    return " of ".join(f"{number:,}" for number in reported if isinstance(number, int | float))


class _JobActions:
    """Actions on jobs, shared by `Job` and `Jobs`."""

    _client: JobClient
    _rows: Sequence[int]  # the ids of the jobs

    @property
    def items(self) -> Items:
        """The items stored by the jobs and their descendants, in the order of the jobs."""
        ids = dict.fromkeys(item for tree in self._trees().values() for item in _items_of(tree))
        rows = filter(None, map(self._client.items.get, ids))
        return Items(list(rows), self._client.items)

    def _trees(self) -> dict[int, list[dict[str, Any]]]:
        """Return the rows of each job's tree, its own first; none if the job has been deleted."""
        job_store = self._client.job_store
        trees = job_store.trees(self._rows)
        rows = job_store.rows({job_id for tree in trees.values() for job_id in tree})
        return {root: [rows[n] for n in trees.get(root, []) if n in rows] for root in self._rows}

    def retry(self) -> Jobs:
        """Queue again with new attempts, in one transaction.

        Returns:
            The jobs that are queued now. A job with an unfinished duplicate is replaced by it.
        """
        queued = self._client.job_store.retry(self._rows)
        self._client.jobs_added(queued)
        return Jobs(self._client, queued)

    def cancel(self) -> Jobs:
        """Cancel with all descendants, in one transaction; return the cancelled jobs."""
        cancelled = self._client.job_store.cancel(self._rows)
        self._client.notify()
        return Jobs(self._client, cancelled)

    def wait(self, timeout: float | None = None, on_progress: Progress | None = None) -> Self:
        """Wait for the whole tree, then return this object. Raises like `App.wait`."""
        block(waiting(self._client, timeout, jobs=self._rows, on_progress=on_progress))
        return self

    def __await__(self) -> Generator[Any, None, Self]:
        yield from wait_async(self._client, self._rows).__await__()
        return self


class Job(_JobActions, Record):
    """One job. Its attributes are read from its row each time.

    Attributes:
        id: its number.
        task: the name of its task.
        args: the arguments.
        state: queued, scheduled, running, retrying, completed, failed or cancelled.
        waiting_for: what a queued job waits for; None if it may start.
        tag: inherited by its follow-up jobs and items.
        attempt: the number of attempts so far; released ones do not count.
        max_attempts: the number of attempts before the job fails for good.
        error_class, error: the last failure.
        enqueued_at, started_at, finished_at: ISO 8601 in UTC.
        run_at: when a scheduled or retrying job is due, in ISO 8601.
        worker_pid: the process that runs it, or ran it last.
        parent_id: the job that enqueued it.
        root_id: the first job of its tree.
        answer: how the enqueue that returned it was answered, see `Enqueued`; else None.
    """

    id: int
    task: str
    args: list[Any]
    state: str
    waiting_for: str | None
    tag: str | None
    attempt: int
    max_attempts: int
    error_class: str | None
    error: str | None
    enqueued_at: str
    started_at: str | None
    finished_at: str | None
    run_at: str | None
    worker_pid: int | None
    parent_id: int | None
    root_id: int

    def __init__(self, client: JobClient, job_id: int) -> None:
        self._client = client
        self._rows = [whole_number("id", job_id)]
        self._row: dict[str, Any] | None = None
        self.answer: str | None = None

    def row(self) -> dict[str, Any]:
        """The current row; the last one known if the job has been deleted.

        Raises:
            NotFound: the job was deleted before its row was ever read.
        """
        self._row = self._client.job_store.rows([self.id]).get(self.id, self._row)
        if self._row is None:
            raise NotFound(f"no job {self.id}; `paise2 jobs` lists them")
        return self._row

    def _value(self, name: str) -> Any:
        if name == "id":
            return self._rows[0]
        return _public(self.row(), self._client.job_store.iso_time)[name]

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Job) and (other._client, other.id) == (self._client, self.id)

    def __hash__(self) -> int:
        return hash(self.id)

    @property
    def attempts(self) -> list[dict[str, Any]]:
        """The executions that have ended, oldest first."""
        return self._client.job_store.attempts(self.id)

    @property
    def children(self) -> Jobs:
        """The follow-up jobs that this job enqueued."""
        return Jobs(self._client, self._client.job_store.children(self.id))

    @property
    def tree(self) -> Jobs:
        """This job and all its descendants."""
        return Jobs(self._client, self._client.job_store.trees([self.id])[self.id])

    @property
    def every(self) -> float | None:
        """Seconds between two runs of a recurring job, else None."""
        every: float | None = self.row()["interval"]
        return every

    def result(self, timeout: float | None = None) -> Any:
        """Wait for the job, not for its tree, and return the value of its function.

        For a recurring job, that is the value of its last run.

        Args:
            timeout: seconds; None waits as long as there is a worker.

        Raises:
            JobFailed: it failed or was cancelled; carries the worker's traceback.
            Timeout: the timeout has expired.
        """
        block(waiting(self._client, timeout, jobs=self._rows, ended=not self.every))
        row = self.row()
        between_runs = row["interval"] and row["state"] == "scheduled" and not row["error_class"]
        if row["state"] != "completed" and not between_runs:
            traceback = next((last["traceback"] for last in self.attempts[-1:]), None)
            reason = f"{row['state']}: {row['error']}" if row["error"] else row["state"]
            raise JobFailed(f"job {self.id} ({row['task']}) {reason}", traceback or "")
        return value_of(row["result"])

    def to_dict(self) -> dict[str, Any]:
        """The JSON of ``job ID``: also ``result``, ``attempts``, ``children``, and ``every`` in
        seconds."""
        row = self.row()
        return {
            **_public(row, self._client.job_store.iso_time),
            "every": row["interval"],
            "result": value_of(row["result"]),
            "attempts": self.attempts,
            "children": self._client.job_store.children(self.id),
        }

    def summary(self) -> str:
        """The job on one line."""
        known = self.row()
        row = _public(known, self._client.job_store.iso_time)
        retrying = row["state"] == "retrying"
        notes = (
            progress(known),
            self._answered(row),
            retrying and f"attempt {row['attempt']} of {row['max_attempts']} failed",
            row["waiting_for"] and f"waiting for {row['waiting_for']}",
        )
        argument = render.one_line(arguments(row["args"]), ARGUMENT_LENGTH)
        words = [f"job {self.id}: {row['task']} {argument} · {row['state']}"]
        words += [_interval(known["interval"])] if known["interval"] else []
        words += [f"({note})" for note in notes if note]
        if row["error"] and (retrying or row["state"] == "failed"):
            words.append(f"— {row['error']}")
        return render.one_line(" ".join(words))

    def _answered(self, row: Mapping[str, Any]) -> str | None:
        if self.answer == "waiting" and row["state"] in LATER:
            return f"already waiting until {row['run_at']}; --force runs it now"
        return _ALREADY.get(self.answer or "")

    def __str__(self) -> str:
        lines = [self.summary()]
        for attempt in self.attempts:
            outcome = f"{attempt['number']}. {attempt['outcome']} {attempt['error'] or ''}"
            lines.append("  " + render.one_line(outcome))
        lines += ["  " + job.summary() for job in self.tree if job.id != self.id]
        return "\n".join(lines)

    def details(self) -> str:
        """The job with its attempts, tracebacks and tree, as text."""
        lines = [str(self)]
        if self.run_at is not None:
            lines.insert(1, f"  runs next at {self.run_at}")
        if len(argument := arguments(self.args)) > ARGUMENT_LENGTH:
            lines.append(f"\nArgument:\n{render.plain(argument)}")
        for attempt in self.attempts:
            if attempt["traceback"]:
                lines.append(f"\nAttempt {attempt['number']}:")
                lines.append(render.plain(attempt["traceback"]).rstrip())
        return "\n".join(lines)

    def _repr_html_(self) -> str:
        row = _table_row(self._client.job_store, self.row())
        parts = [render.html_table([row], Jobs.columns)]
        attempts = self.attempts
        if any(attempt["outcome"] != "completed" for attempt in attempts):
            parts.append(render.html_table(attempts, ("number", "outcome", "error_class", "error")))
        parts += [
            f"<details><summary>Traceback of attempt {attempt['number']}</summary>"
            f"<pre>{render.escape(attempt['traceback'])}</pre></details>"
            for attempt in attempts
            if attempt["traceback"]
        ]
        return render.panel(*parts)


JOB_KEYS = Job.fields
_ALREADY = {"waiting": "already waiting", "now": NOW, "fresh": "already up to date"}


def _public(row: Mapping[str, Any], time: Callable[[float | None], Any]) -> dict[str, Any]:
    """A row of ``jobs --json``.

    Args:
        row: the row.
        time: gives the form of a time of the job store's clock.
    """
    job = {key: row[key] for key in JOB_KEYS}
    job.update({key: time(row[key]) for key in _TIMES})
    job["args"] = [redacted(a) if isinstance(a, str) else a for a in row["args"]]
    return job


def _table_row(job_store: JobStore, row: Mapping[str, Any]) -> dict[str, Any]:
    """A row of the table: with what a job waits for, and the interval of a recurring one."""
    job = _public(row, job_store.iso_time)
    if job["waiting_for"]:
        job["error"] = f"waiting for {job['waiting_for']}"
    if row["interval"]:
        job["args"] = [arguments(job["args"]), _interval(row["interval"])]
    return job


def _interval(seconds: float) -> str:
    return f"every {render.duration(seconds)}"


def _items_of(rows: Iterable[Mapping[str, Any]]) -> list[int]:
    """The items that the results of jobs name: ``{"item": id}``, or ``{"items": [ids]}``."""
    found: list[int] = []
    for row in rows:
        result = value_of(row["result"])
        if isinstance(result, dict):
            found += result.get("items") or ([result["item"]] if "item" in result else [])
    return found


class Jobs(_JobActions, Listing[Job]):
    """Jobs in a given order."""

    columns = (
        Column("id", right=True),
        Column("task"),
        Column("args", title="argument", wide=True, text=arguments),
        Column("state", html=render.tone),
        Column("attempt", right=True),
        Column("error", title="message", wide=True),
    )
    keys, times, whole_numbers = JOB_KEYS, _TIMES, ("worker_pid", "parent_id")
    empty = "no jobs"

    def __init__(self, client: JobClient, ids: Iterable[int]) -> None:
        self._client = client
        self._rows = list(ids)

    @property
    def ids(self) -> list[int]:
        """The ids of the jobs."""
        return list(self._rows)

    def _element(self, row: int) -> Job:
        return Job(self._client, row)

    def to_dicts(self) -> list[dict[str, Any]]:
        """A row for each job, in order; jobs that have been deleted are left out."""
        return self._read(self._client.job_store.iso_time)

    def _read(self, time: Callable[[float | None], Any]) -> list[dict[str, Any]]:
        rows = self._client.job_store.rows(self._rows, "public")
        return [_public(rows[job_id], time) for job_id in self._rows if job_id in rows]

    def first(self, number: int) -> list[dict[str, Any]]:
        """Return the first rows of the table. The others are not read."""
        ids = self._rows[:number]
        rows = self._client.job_store.rows(ids, "listed")
        return [_table_row(self._client.job_store, rows[n]) for n in ids if n in rows]

    def to_frame(self, items: bool = False) -> Any:
        """A DataFrame with one row for each job.

        Args:
            items: give the input of each job with the title and text of its item. State and
                error are those of the first job in its tree that has not completed.
        """
        if items:
            return frame(self._with_items())
        # As numbers: to format and parse 100,000 times would take a second.
        wall = self._client.job_store.clock.wall
        rows = self._read(lambda time: None if time is None else wall(time))
        return frame(rows, self.keys, self.times, self.whole_numbers)

    def _with_items(self) -> list[dict[str, Any]]:
        rows = []
        trees = self._trees()
        for job_id in self.ids:  # the same job more than once if arguments were duplicates
            tree = trees[job_id]
            completed = {"state": "completed" if tree else None, "error": None}
            decisive = next((row for row in tree if row["state"] != "completed"), completed)
            item = next(filter(None, map(self._client.items.get, _items_of(tree))), {})
            row = {
                "id": job_id,
                "input": arguments(tree[0]["args"]) if tree else None,
                "state": decisive["state"],
                "title": item.get("title"),
                "text": item.get("text"),
                "error": decisive["error"],
            }
            rows.append(row)
        return rows
