"""Jobs as they are now, what an enqueue has answered, and what a replay gave.

A Job is a view of its row, read when looked at, so that a variable in a notebook stays true.
"""

from __future__ import annotations

import asyncio
import json
import time
from collections.abc import Callable, Generator, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, overload

from paise2nb.core import render
from paise2nb.core.display import Displayable, Listing, arguments, frame
from paise2nb.core.errors import JobFailed, NotFound, redacted
from paise2nb.core.render import Column
from paise2nb.jobs import NewJob, value_of
from paise2nb.views.items import Items

if TYPE_CHECKING:
    from paise2nb.app import App

JOB_KEYS = (
    "id", "task", "args", "state", "waiting_for", "tag", "attempt", "max_attempts",
    "error_class", "error", "enqueued_at", "started_at", "finished_at", "run_at", "worker_pid",
    "parent_id", "root_id",
)  # fmt: skip
_TIMES = ("enqueued_at", "started_at", "finished_at", "run_at")
STOPPED = "stopped waiting; the work goes on"


def progress(row: Mapping[str, Any]) -> str:
    """How far a running job says it is: ``3 of 10``; nothing where it has not said."""
    noted = value_of(row.get("progress"))
    if row["state"] != "running" or not isinstance(noted, list):
        return ""
    return " of ".join(f"{number:,}" for number in noted if isinstance(number, int | float))


class Job(Displayable):
    """One job. Its attributes are read from its row each time they are looked at."""

    def __init__(
        self, app: App, job_id: int, row: dict[str, Any] | None = None, answer: str | None = None
    ) -> None:
        self._app = app
        self._row = row
        self.id = job_id
        self.answer = answer  # how an enqueue was answered: new, waiting, fresh

    def row(self) -> dict[str, Any]:
        """The row as it is now; the last one known if the job has been forgotten.

        Raises:
            NotFound: it was forgotten before it was ever looked at.
        """
        self._row = self._app.queue.job_store.rows([self.id]).get(self.id, self._row)
        if self._row is None:
            raise NotFound(f"no job {self.id}; `paise2 jobs` lists them")
        return self._row

    def __getattr__(self, name: str) -> Any:
        if name not in JOB_KEYS:
            raise AttributeError(f"a job has no {name!r}; it has {', '.join(JOB_KEYS)}")
        return _public(self._app, self.row())[name]

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Job) and (other._app, other.id) == (self._app, self.id)

    def __hash__(self) -> int:
        return hash(self.id)

    @property
    def attempts(self) -> list[dict[str, Any]]:
        """Every execution that has ended, oldest first."""
        return self._app.queue.job_store.attempts(self.id)

    @property
    def children(self) -> Jobs:
        """The follow-ups that this job enqueued."""
        return Jobs(self._app, self._app.queue.job_store.children(self.id))

    @property
    def tree(self) -> Jobs:
        """This job and all that descends from it."""
        return Jobs(self._app, self._app.queue.job_store.trees([self.id])[self.id])

    @property
    def items(self) -> Items:
        """What its tree stored."""
        return Jobs(self._app, [self.id]).items

    @property
    def every(self) -> float | None:
        """The seconds between two runs of a job that recurs, else None."""
        every: float | None = self.row()["interval"]
        return every

    def wait(
        self, timeout: float | None = None, on_progress: Callable[[int, int], None] | None = None
    ) -> Job:
        """Wait for the job and its tree; the job itself. Raises like `App.wait`."""
        self._app.wait(timeout, jobs=[self.id], on_progress=on_progress)
        return self

    def __await__(self) -> Generator[Any, None, Job]:
        yield from _awaited(self._app, [self.id]).__await__()
        return self

    def result(self, timeout: float | None = None) -> Any:
        """The value that its function returned; waits for it (not for its tree). Of a job that
        recurs: that of its last run.

        Args:
            timeout: seconds; None waits as long as there is a worker.

        Raises:
            JobFailed: it failed or was cancelled; with the worker's traceback.
            Timeout: the time is over.
        """
        for pause in self._app.waiting(timeout, jobs=[self.id], ended=not self.every):
            time.sleep(pause)
        row = self.row()
        waits_again = row["interval"] and row["state"] == "scheduled" and not row["error_class"]
        if row["state"] != "completed" and not waits_again:
            last = self.attempts[-1:]
            traceback = (last[0]["traceback"] or "") if last else ""
            reason = f"{row['state']}: {row['error']}" if row["error"] else row["state"]
            raise JobFailed(f"job {self.id} ({row['task']}) {reason}", traceback)
        return value_of(row["result"])

    def retry(self) -> Jobs:
        """Back to the queue with new attempts; the job, or its unfinished twin."""
        return Jobs(self._app, [self.id]).retry()

    def cancel(self) -> Jobs:
        """Out of the queue, with its descendants; those that moved."""
        return Jobs(self._app, [self.id]).cancel()

    def to_dict(self) -> dict[str, Any]:
        """The JSON of ``paise2 job ID``: with result, attempts and children; ``every`` in seconds
        for a job that recurs."""
        row = self.row()
        return {
            **_public(self._app, row),
            "every": row["interval"],
            "result": value_of(row["result"]),
            "attempts": self.attempts,
            "children": self._app.queue.job_store.children(self.id),
        }

    def summary(self) -> str:
        """The job in one line."""
        known = self.row()
        row = _public(self._app, known)
        words = [f"job {self.id}: {row['task']} {arguments(row['args'])} · {row['state']}"]
        if self.every:
            words.append(_interval(self.every))
        if far := progress(known):
            words.append(f"({far})")
        if self.answer in ("waiting", "fresh"):
            words.append(f"({self.answer} already)")
        if row["state"] == "retrying":
            words.append(f"(attempt {row['attempt']} of {row['max_attempts']} failed)")
        if row["waiting_for"]:
            words.append(f"(waits for {row['waiting_for']})")
        if row["error"] and row["state"] in ("retrying", "failed"):
            words.append(f"— {row['error']}")
        return render.one_line(" ".join(words))

    def __str__(self) -> str:
        lines = [self.summary()]
        for attempt in self.attempts:
            outcome = f"{attempt['number']}. {attempt['outcome']} {attempt['error'] or ''}"
            lines.append("  " + render.one_line(outcome))
        tree = self.tree
        lines += ["  " + render.one_line(job.summary()) for job in tree if job.id != self.id]
        return "\n".join(lines)

    def details(self) -> str:
        """The job with its attempts, tracebacks and tree, as text."""
        lines = [str(self)]
        if self.run_at is not None:
            lines.insert(1, f"  runs next at {self.run_at}")
        for attempt in self.attempts:
            if attempt["traceback"]:
                lines.append(f"\nAttempt {attempt['number']}:")
                lines.append(render.plain(attempt["traceback"]).rstrip())
        return "\n".join(lines)

    def _repr_html_(self) -> str:
        row = _view(self._app, self.row())
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


def _public(app: App, row: Mapping[str, Any]) -> dict[str, Any]:
    job = {key: row[key] for key in JOB_KEYS}
    job.update({key: app.queue.job_store.shown(row[key]) for key in _TIMES})
    job["args"] = [redacted(a) if isinstance(a, str) else a for a in row["args"]]
    return job


def _view(app: App, row: Mapping[str, Any]) -> dict[str, Any]:
    """A row for a table: what recurs says so after its input, what waits says for what."""
    job = _public(app, row)
    if job["waiting_for"]:
        job["error"] = f"waits for {job['waiting_for']}"
    if row["interval"]:
        job["args"] = [arguments(job["args"]), _interval(row["interval"])]
    return job


def _interval(seconds: float) -> str:
    return f"every {render.duration(seconds)}"


def _items_of(result: Any) -> list[int]:
    """The items that a job's result names: ``{"item": id}``, or ``{"items": [ids]}``."""
    if not isinstance(result, dict):
        return []
    several: list[int] = result.get("items") or []
    return several or [result["item"]] if "item" in result else several


async def _awaited(app: App, ids: list[int]) -> None:
    try:
        with render.progress_line("waiting") as report:
            for pause in app.waiting(jobs=ids, on_progress=report):
                await asyncio.sleep(pause)
    except asyncio.CancelledError:  # what an interrupt of a kernel makes of it, too
        raise asyncio.CancelledError(STOPPED) from None


class Jobs(Listing[Job]):
    """Jobs in a given order."""

    columns = (
        Column("id", right=True),
        Column("task"),
        Column("args", title="argument", wide=True, text=arguments),
        Column("state", html=render.tone),
        Column("attempt", right=True),
        Column("error", title="why", wide=True),
    )
    empty = "no jobs"

    def __init__(self, app: App, ids: Iterable[int]) -> None:
        self._app = app
        self.ids = list(ids)

    def __len__(self) -> int:
        return len(self.ids)

    @overload
    def __getitem__(self, index: int) -> Job: ...

    @overload
    def __getitem__(self, index: slice) -> Jobs: ...

    def __getitem__(self, index: int | slice) -> Job | Jobs:
        if isinstance(index, slice):
            return Jobs(self._app, self.ids[index])
        return Job(self._app, self.ids[index])

    def to_dicts(self) -> list[dict[str, Any]]:
        """A row for each job, in order; jobs that have been forgotten are left out."""
        rows = self._app.queue.job_store.rows(self.ids)
        return [_public(self._app, rows[job_id]) for job_id in self.ids if job_id in rows]

    def first(self, number: int) -> list[dict[str, Any]]:
        """The first rows, without reading the others; what recurs says so after its input."""
        rows = self._app.queue.job_store.rows(self.ids[:number])
        return [_view(self._app, rows[job_id]) for job_id in self.ids[:number] if job_id in rows]

    @property
    def items(self) -> Items:
        """What the trees of these jobs stored, in the order of the jobs."""
        found = {item_id: None for ids in self._stored().values() for item_id in ids}
        rows = (self._app.store.get(item_id) for item_id in found)
        return Items([row for row in rows if row is not None], self._app.store)

    def _stored(self) -> dict[int, list[int]]:
        """For each job the items that its tree stored."""
        job_store = self._app.queue.job_store
        trees = job_store.trees(self.ids)
        rows = job_store.rows({job_id for tree in trees.values() for job_id in tree})
        return {
            root: [
                item_id
                for row in (rows[job_id] for job_id in tree if job_id in rows)
                for item_id in _items_of(value_of(row["result"]))
            ]
            for root, tree in trees.items()
        }

    def to_frame(self, items: bool = False) -> Any:
        """A DataFrame, one line a job. ``items``: the input with state, title, text and error.

        The error is that of the first failure in the job's tree, the state that of the job or,
        where it completed, of what failed or still waits below it.
        """
        return frame(self._with_items() if items else self.to_dicts())

    def _with_items(self) -> list[dict[str, Any]]:
        job_store = self._app.queue.job_store
        trees = job_store.trees(self.ids)
        rows = job_store.rows({job_id for tree in trees.values() for job_id in tree})
        stored = self._stored()
        lines = []
        for job_id in self.ids:
            tree = [rows[i] for i in trees.get(job_id, []) if i in rows]
            worst = next((row for row in tree if row["state"] != "completed"), None)
            item = next(filter(None, map(self._app.store.get, stored.get(job_id, []))), {})
            lines.append({
                "id": job_id,
                "input": arguments(rows[job_id]["args"]) if job_id in rows else None,
                "state": worst["state"] if worst else "completed" if tree else None,
                "title": item.get("title"),
                "text": item.get("text"),
                "error": worst["error"] if worst else None,
            })  # fmt: skip
        return lines

    def retry(self) -> Jobs:
        """Back to the queue with new attempts, in one transaction; the jobs that wait now."""
        waiting = self._app.queue.job_store.retry(self.ids)
        self._app.jobs_added(waiting)
        return Jobs(self._app, waiting)

    def cancel(self) -> Jobs:
        """Out of the queue with their descendants, in one transaction; those that moved."""
        cancelled = self._app.queue.job_store.cancel(self.ids)
        self._app.queue.notifier.notify()
        return Jobs(self._app, cancelled)

    def wait(
        self, timeout: float | None = None, on_progress: Callable[[int, int], None] | None = None
    ) -> Jobs:
        """Wait for these jobs and their trees. Raises like `App.wait`."""
        self._app.wait(timeout, jobs=self.ids, on_progress=on_progress)
        return self

    def __await__(self) -> Generator[Any, None, Jobs]:
        yield from _awaited(self._app, self.ids).__await__()
        return self


class Enqueued(Jobs):
    """The answer to an enqueue: an entry for each argument, in order.

    Attributes:
        new, waiting, fresh: how many were added, wait already, or are fresh.
    """

    def __init__(self, app: App, answers: Sequence[tuple[int, str]]) -> None:
        super().__init__(app, [job_id for job_id, _ in answers])
        self.answers = [answer for _, answer in answers]
        self.new, self.waiting, self.fresh = map(self.answers.count, ("new", "waiting", "fresh"))

    def __getitem__(self, index: Any) -> Any:
        found = super().__getitem__(index)
        if isinstance(found, Job):
            found.answer = self.answers[index]
        return found

    def to_dict(self) -> Any:
        """The JSON of ``enqueue``."""
        keys = ("id", "task", "args", "state")
        jobs = [{key: row[key] for key in keys} for row in self.to_dicts()]
        return {"jobs": jobs, "new": self.new, "waiting": self.waiting, "fresh": self.fresh}

    def __str__(self) -> str:
        counts = {"new": self.new, "waiting": self.waiting, "fresh": self.fresh}
        return ", ".join(f"{n:,} {word}" for word, n in counts.items() if n) or "nothing to add"

    def _repr_html_(self) -> str:
        return render.panel(render.note(str(self)))


@dataclass(repr=False)
class Replay(Displayable):
    """What a replay gave: the value, and the follow-ups that a worker would have enqueued."""

    job: int
    task: str
    value: Any
    followups: list[NewJob]

    def to_dict(self) -> dict[str, Any]:
        """As JSON."""
        followups = [{"task": job.task, "args": json.loads(job.args)} for job in self.followups]
        return {"job": self.job, "task": self.task, "value": self.value, "followups": followups}

    def __str__(self) -> str:
        lines = [f"replay of job {self.job} ({self.task}): {_short(self.value)}"]
        lines += [
            f"  would enqueue {job.task} {arguments(json.loads(job.args))}"
            for job in self.followups
        ]
        return "\n".join(render.one_line(line) for line in lines)


def _short(value: Any) -> str:
    return render.one_line(json.dumps(value, ensure_ascii=False, default=repr), 200)
