"""What commands and the API return: plain objects with a text, an HTML and a JSON form.

A Job is a view of its row, read when looked at, so that a variable in a notebook stays true.
Listings are sequences; every result has ``to_dict()``, and shows itself as text and as HTML.
"""

from __future__ import annotations

import asyncio
import json
import re
import time
from collections.abc import Callable, Generator, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar, TypeVar, overload

from paise2nb import render
from paise2nb.clock import iso
from paise2nb.errors import JobFailed, NotFound, PaiseError, redacted
from paise2nb.jobs import NewJob, value_of
from paise2nb.render import Column

if TYPE_CHECKING:
    from paise2nb.app import App
    from paise2nb.plugins import DataStorageProvider

JOB_KEYS = (
    "id", "task", "args", "state", "waiting_for", "tag", "attempt", "max_attempts",
    "error_class", "error", "enqueued_at", "started_at", "finished_at", "run_at", "worker_pid",
    "parent_id", "root_id",
)  # fmt: skip
_TIMES = ("enqueued_at", "started_at", "finished_at", "run_at")
TAIL_BYTES = 1_000_000
STOPPED = "stopped waiting; the work goes on"
T = TypeVar("T")


def arguments(args: Sequence[Any]) -> str:
    """What a person calls the input: the arguments but cache keys and facts for follow-ups."""
    shown = [a for a in args if not isinstance(a, dict | list) and not _is_key(a)] or args
    return redacted(
        ", ".join(a if isinstance(a, str) else json.dumps(a, ensure_ascii=False) for a in shown)
    )


def _is_key(value: Any) -> bool:
    return isinstance(value, str) and re.fullmatch("[0-9a-f]{64}", value) is not None


def progress(row: Mapping[str, Any]) -> str:
    """How far a running job says it is: ``3 of 10``; nothing where it has not said."""
    noted = value_of(row.get("progress"))
    if row["state"] != "running" or not isinstance(noted, list):
        return ""
    return " of ".join(f"{number:,}" for number in noted if isinstance(number, int | float))


class Shown:
    """Something with a text and an HTML form."""

    def _repr_html_(self) -> str:
        return render.panel(f"<pre>{render.escape(str(self))}</pre>")

    def __repr__(self) -> str:
        return str(self)


class Listing(Shown, Sequence[T]):
    """A sequence of rows: complete, with a view of the first ones."""

    columns: ClassVar[Sequence[str | Column]] = ()
    empty: ClassVar[str] = "nothing"

    def to_dicts(self) -> list[dict[str, Any]]:
        """Every row as a dictionary."""
        raise NotImplementedError

    def to_dict(self) -> list[dict[str, Any]]:
        """The same: the JSON form of a listing is a list."""
        return self.to_dicts()

    def to_frame(self) -> Any:
        """A pandas DataFrame, one line a row. Raises PaiseError without pandas."""
        return frame(self.to_dicts())

    def first(self, number: int) -> list[dict[str, Any]]:
        """The first rows, without reading the others."""
        return self.to_dicts()[:number]

    def __str__(self) -> str:
        rows = self.first(render.VIEW_ROWS)
        return render.text_table(rows, self.columns, of=len(self)) if rows else self.empty

    def _repr_html_(self) -> str:
        rows = self.first(render.VIEW_ROWS)
        if not rows:
            return render.panel(render.note(self.empty))
        return render.html_table(rows, self.columns, of=len(self))


def frame(rows: Sequence[Mapping[str, Any]]) -> Any:
    """Rows as a pandas DataFrame."""
    try:
        import pandas as pd
    except ImportError:
        raise PaiseError("to_frame() needs pandas: pip install 'paise2nb[pandas]'") from None
    return pd.DataFrame(list(rows))


# Jobs ----------------------------------------------------------------------------------------


class Job(Shown):
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
        self._row = self._app.queue.table.rows([self.id]).get(self.id, self._row)
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
        return self._app.queue.table.attempts(self.id)

    @property
    def children(self) -> Jobs:
        """The follow-ups that this job enqueued."""
        return Jobs(self._app, self._app.queue.table.children(self.id))

    @property
    def tree(self) -> Jobs:
        """This job and all that descends from it."""
        return Jobs(self._app, self._app.queue.table.trees([self.id])[self.id])

    @property
    def items(self) -> Items:
        """What its tree stored."""
        return Jobs(self._app, [self.id]).items

    @property
    def every(self) -> float | None:
        """The seconds between two runs of a job that recurs, else None."""
        every: float | None = self.row()["every"]
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
        """The value that its function returned; waits for it (not for its tree).

        Args:
            timeout: seconds; None waits as long as there is a worker.

        Raises:
            JobFailed: it failed or was cancelled; with the worker's traceback.
            Timeout: the time is over.
        """
        for pause in self._app.waiting(timeout, jobs=[self.id], ended=True):
            time.sleep(pause)
        row = self.row()
        if row["state"] != "completed":
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
            "every": row["every"],
            "result": value_of(row["result"]),
            "attempts": self.attempts,
            "children": self._app.queue.table.children(self.id),
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
    job.update({key: app.queue.table.shown(row[key]) for key in _TIMES})
    job["args"] = [redacted(a) if isinstance(a, str) else a for a in row["args"]]
    return job


def _view(app: App, row: Mapping[str, Any]) -> dict[str, Any]:
    """A row for a table: what recurs says so after its input."""
    job = _public(app, row)
    if row["every"]:
        job["args"] = [arguments(job["args"]), _interval(row["every"])]
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
        Column("error", wide=True),
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
        rows = self._app.queue.table.rows(self.ids)
        return [_public(self._app, rows[job_id]) for job_id in self.ids if job_id in rows]

    def first(self, number: int) -> list[dict[str, Any]]:
        """The first rows, without reading the others; what recurs says so after its input."""
        rows = self._app.queue.table.rows(self.ids[:number])
        return [_view(self._app, rows[job_id]) for job_id in self.ids[:number] if job_id in rows]

    @property
    def items(self) -> Items:
        """What the trees of these jobs stored, in the order of the jobs."""
        found = {item_id: None for ids in self._stored().values() for item_id in ids}
        rows = (self._app.store.get(item_id) for item_id in found)
        return Items([row for row in rows if row is not None], self._app.store)

    def _stored(self) -> dict[int, list[int]]:
        """For each job the items that its tree stored."""
        table = self._app.queue.table
        trees = table.trees(self.ids)
        rows = table.rows({job_id for tree in trees.values() for job_id in tree})
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
        table = self._app.queue.table
        trees = table.trees(self.ids)
        rows = table.rows({job_id for tree in trees.values() for job_id in tree})
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
        waiting = self._app.queue.table.retry(self.ids)
        self._app.jobs_added(waiting)
        return Jobs(self._app, waiting)

    def cancel(self) -> Jobs:
        """Out of the queue with their descendants, in one transaction; those that moved."""
        cancelled = self._app.queue.table.cancel(self.ids)
        self._app.queue.ringer.ring()
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
class Replay(Shown):
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


# Items ---------------------------------------------------------------------------------------


class Item(Shown):
    """One stored document, with its text."""

    def __init__(self, row: dict[str, Any], store: DataStorageProvider) -> None:
        self._row = row
        self._store = store

    def history(self) -> History:
        """What it has held, oldest first; the last one is what it holds now."""
        return History(self._store.versions(self.id))

    def diff(self, a: int = -2, b: int = -1) -> Diff:
        """What changed in its text.

        Args:
            a, b: the earlier and the later version; a negative one counts from the last, -1.

        Raises:
            NotFound: no such version.
        """
        return Diff(self.id, self._store.diff(self.id, a, b))

    def __getattr__(self, name: str) -> Any:
        try:
            return self.__dict__["_row"][name]
        except KeyError:
            raise AttributeError(f"an item has no {name!r}") from None

    def to_dict(self) -> dict[str, Any]:
        """The JSON of ``item ID``."""
        return dict(self._row)

    def _facts(self) -> str:
        row = self._row
        facts = [row.get(key) for key in ("author", "date", "language", "mime_type", "tag")]
        if row.get("versions", 1) > 1:
            facts.append(f"{row['versions']} versions")
        if row.get("duplicates"):
            facts.append(f"the same bytes as item {', '.join(map(str, row['duplicates']))}")
        return " · ".join(str(fact) for fact in facts if fact)

    def __str__(self) -> str:
        head = [
            render.one_line(self._row.get("title") or "(no title)"),
            render.one_line(self._row["url"]),
            render.one_line(self._facts()),
        ]
        return "\n".join([*filter(None, head), "", render.plain(self._row.get("text") or "")])

    def _repr_html_(self) -> str:
        paragraphs = (self._row.get("text") or "").split("\n")
        return render.panel(
            f"<h3>{render.escape(self._row.get('title') or '(no title)')}</h3>",
            f"<div>{render.link(self._row['url'])}</div>",
            render.note(self._facts()),
            *(f"<p>{render.escape(line)}</p>" for line in paragraphs if line.strip()),
        )


class Diff(Shown):
    """What changed in the text of an item between two versions."""

    def __init__(self, item_id: int, text: str) -> None:
        self.item_id = item_id
        self.text = text

    def to_dict(self) -> dict[str, Any]:
        """The JSON of ``item ID --diff``; an empty ``diff`` where nothing has changed."""
        return {"id": self.item_id, "diff": self.text}

    def __str__(self) -> str:
        lines = [render.plain(line) for line in self.text.splitlines()]
        return "\n".join(lines) or f"the text of item {self.item_id} has not changed"


class History(Listing[dict[str, Any]]):
    """What an item has held: its versions, oldest first."""

    columns = (
        Column("version", right=True),
        Column("fetched_at"),
        Column("size", right=True),
        Column("title", wide=True),
        Column("sha256", text=lambda digest: digest[:12]),
    )

    def __init__(self, rows: Sequence[dict[str, Any]]) -> None:
        self._rows = list(rows)

    def __len__(self) -> int:
        return len(self._rows)

    def __getitem__(self, index: Any) -> Any:
        return self._rows[index]

    def to_dicts(self) -> list[dict[str, Any]]:
        """The rows of ``item ID --versions --json``."""
        return self._rows


class Items(Listing[Item]):
    """Stored documents."""

    columns = (
        Column("id", right=True),
        Column("title", wide=True),
        Column("url", title="address", wide=True, html=render.link),
        Column("date"),
        Column("tag"),
    )
    empty = "no items"

    def __init__(self, rows: Sequence[dict[str, Any]], store: DataStorageProvider) -> None:
        self._rows = list(rows)
        self._store = store

    def __len__(self) -> int:
        return len(self._rows)

    @overload
    def __getitem__(self, index: int) -> Item: ...

    @overload
    def __getitem__(self, index: slice) -> Items: ...

    def __getitem__(self, index: int | slice) -> Item | Items:
        if isinstance(index, slice):
            return Items(self._rows[index], self._store)
        return Item(self._rows[index], self._store)

    def to_dicts(self) -> list[dict[str, Any]]:
        """The rows of ``items --json``: without the texts."""
        return [{k: v for k, v in row.items() if k != "text"} for row in self._rows]


class Hits(Listing[dict[str, Any]]):
    """What a search found, best first."""

    columns = (
        Column("id", right=True),
        Column("title", wide=True),
        Column("snippet", wide=True, text=render.snippet_text, html=render.snippet_html),
        Column("url", title="address", wide=True, html=render.link),
    )

    def __init__(self, query: str, rows: Sequence[dict[str, Any]]) -> None:
        self.query = query
        self._rows = list(rows)

    def __len__(self) -> int:
        return len(self._rows)

    def __getitem__(self, index: Any) -> Any:
        return self._rows[index]

    def to_dicts(self) -> list[dict[str, Any]]:
        """The rows of ``search --json``; a hit in a snippet stands in ``**``."""
        marks = str.maketrans({render.HIT_START: "**", render.HIT_END: "**"})
        return [{**row, "snippet": row["snippet"].translate(marks)} for row in self._rows]

    def __str__(self) -> str:
        if not self._rows:
            return f"no item holds {render.one_line(self.query, 80)!r}"
        blocks = []
        for row in self._rows[: render.VIEW_ROWS]:
            title = render.one_line(row["title"] or "(no title)", 100)
            blocks.append(
                f"{row['id']:>4}  {title}\n      {render.snippet_text(row['snippet'])}\n"
                f"      {render.one_line(row['url'])}"
            )
        if len(self._rows) > render.VIEW_ROWS:
            blocks.append(f"… {len(self._rows) - render.VIEW_ROWS:,} more")
        return "\n".join(blocks)

    def _repr_html_(self) -> str:
        if not self._rows:
            return render.panel(render.note(str(self)))
        return render.html_table(self._rows, self.columns)


# The state of things -------------------------------------------------------------------------


def _worker_columns() -> tuple[Column, ...]:
    return (
        Column("pool"), Column("pid", right=True), Column("state", html=render.tone),
        Column("jobs", text=lambda ids: " ".join(map(str, ids))), Column("error", wide=True),
    )  # fmt: skip


@dataclass(repr=False)
class WorkersStatus(Shown):
    """The background workers.

    Attributes:
        workers: one entry for each process: pool, pid, state, jobs, started_at, …
        supervisor: its pid and start, or None.
        problem: what keeps jobs from running, with what helps; or None.
        message: what a command that returns this has done.
    """

    workers: list[dict[str, Any]]
    supervisor: dict[str, Any] | None
    problem: str | None = None
    message: str | None = None

    def to_dict(self) -> dict[str, Any]:
        """The JSON of ``worker status``."""
        return {name: getattr(self, name) for name in ("workers", "supervisor", "problem")}

    def summary(self) -> str:
        """The workers in one line."""
        if not self.workers:
            return "no workers"
        pools = [worker["pool"] for worker in self.workers]
        parts = [f"{name} {pools.count(name)}" for name in sorted(set(pools))]
        return f"{render.amount(len(pools), 'worker')} ({', '.join(parts)})"

    def __str__(self) -> str:
        lines = [render.one_line(self.message or self.summary())]
        if self.workers:
            lines.append(render.text_table(self.workers, _worker_columns()))
        if self.problem:
            lines.append(render.one_line(self.problem))
        return "\n".join(lines)

    def __repr__(self) -> str:
        # Without pids and states: the same for the same workers, in a notebook's output too.
        lines = [self.message or self.summary(), self.problem]
        return "\n".join(render.one_line(line) for line in lines if line)

    def _repr_html_(self) -> str:
        parts = [render.note(render.in_cell_words(line)) for line in repr(self).splitlines()]
        if self.message is None and self.workers:  # asked for: then pids are of use
            parts.insert(1, render.bare_table(self.workers, _worker_columns()))
        return render.panel(*parts)


def _labelled(label: str, text: str) -> str:
    return f"{label:<9}{render.one_line(text)}"


@dataclass(repr=False)
class Status(Shown):
    """The whole state: the keys of ``status --json`` as attributes, and what a person asks next."""

    profile: str
    data_dir: str
    immediate: bool
    jobs: dict[str, int]
    roots: dict[str, int]
    workers: list[dict[str, Any]]
    supervisor: dict[str, Any] | None
    oldest_queued_seconds: float | None
    next_retry_at: str | None
    completed_per_minute: float
    seconds_left: float | None
    items: int
    paused: str | None
    problem: str | None = None
    retries: list[dict[str, Any]] = field(default_factory=list)
    failures: list[dict[str, Any]] = field(default_factory=list)

    def to_dict(self) -> dict[str, Any]:
        """The JSON of ``status``."""
        extra = ("problem", "retries", "failures")
        return {f.name: getattr(self, f.name) for f in fields(self) if f.name not in extra}

    def lines(self) -> list[str]:
        """What the text form says, line by line, without times and pids."""
        counts = [f"{number:,} {state}" for state, number in self.jobs.items() if number]
        workers = WorkersStatus(self.workers, self.supervisor).summary()
        lines = [
            _labelled("profile", self.profile),
            _labelled("jobs", " · ".join(counts) or "none"),
            _labelled("items", f"{self.items:,}"),
            _labelled("workers", "jobs run in this process" if self.immediate else workers),
        ]
        if self.paused:
            lines.append(_labelled("paused", self.paused))
        lines += [
            _labelled(
                "failed",
                f"{group['jobs']} × {group['error_class']}: {group['error']}"
                f" → paise2 retry --error {group['error_class']}",
            )
            for group in self.failures
        ]
        if self.problem:
            lines.append(render.one_line(self.problem))
        return lines

    def __str__(self) -> str:
        lines = self.lines()
        lines.insert(1, _labelled("data", self.data_dir))
        if self.completed_per_minute:
            pace = f"{self.completed_per_minute:,.0f} completed a minute"
            if self.seconds_left is not None:
                pace += f", about {render.duration(self.seconds_left)} left"
            lines.append(_labelled("pace", pace))
        if self.oldest_queued_seconds is not None:
            oldest = f"the oldest for {render.duration(self.oldest_queued_seconds)}"
            lines.append(_labelled("waiting", oldest))
        for row in self.retries:
            text = (
                f"job {row['id']} in {render.duration(max(0.0, row['in']))}: {row['task']}"
                f" {arguments(row['args'])}, attempt {row['attempt']} of {row['max_attempts']}"
                f" failed: {row['error']}"
            )
            lines.append(_labelled("retry", text))
        return "\n".join(lines)

    def __repr__(self) -> str:
        return "\n".join(self.lines())

    def _repr_html_(self) -> str:
        # As `lines`: without times and pids.
        counts = (f"{n:,} {render.tone(state)}" for state, n in self.jobs.items() if n)
        workers = WorkersStatus(self.workers, self.supervisor).summary()
        rows = [
            ("profile", render.escape(self.profile)),
            ("jobs", " · ".join(counts) or "none"),
            ("items", f"{self.items:,}"),
            ("workers", "jobs run in this process" if self.immediate else workers),
            ("paused", render.escape(self.paused or "")),
        ]
        rows += [
            (
                "failed",
                f'<div><b class="bad">{group["jobs"]:,} × {render.escape(group["error_class"])}</b>'
                f" · {render.escape(render.one_line(group['error']))}</div>"
                f"<code>%paise2 retry --error {render.escape(group['error_class'])}</code>",
            )
            for group in self.failures
        ]
        lines = (
            f'<tr><th>{name}</th><td class="wide">{told}</td></tr>' for name, told in rows if told
        )
        problem = render.note(render.in_cell_words(self.problem)) if self.problem else ""
        return render.panel(f"<table><tbody>{''.join(lines)}</tbody></table>", problem)


@dataclass(repr=False)
class Since(Shown):
    """What happened since an app was last open.

    ``stored``, ``failed`` and ``waiting`` are counts; ``since`` is seconds since the epoch, None
    for the first time.
    """

    since: float | None
    stored: int
    failed: int
    waiting: int
    found: WorkersStatus

    def to_dict(self) -> dict[str, Any]:
        """As JSON."""
        return {
            "since": iso(self.since), "stored": self.stored, "failed": self.failed,
            "waiting": self.waiting, **self.found.to_dict(),
        }  # fmt: skip

    def __str__(self) -> str:
        workers = render.amount(len(self.found.workers), "worker")
        news = (
            f"{self.stored:,} stored, {self.failed:,} failed, {self.waiting:,} waiting, {workers}"
        )
        if self.since is None:
            text = f"new; {self.waiting:,} waiting, {workers}"
        else:
            seen = time.localtime(self.since)
            today = time.strftime("%x", seen) == time.strftime("%x")
            moment = time.strftime("%H:%M" if today else "%Y-%m-%d %H:%M", seen)
            text = f"since {moment}: {news}"
        return "\n".join(filter(None, [text, self.found.problem]))


@dataclass(repr=False)
class ResetCounts(Shown):
    """What a reset forgot."""

    jobs: int
    cached: int
    items: int

    def to_dict(self) -> dict[str, Any]:
        """As JSON."""
        return {"jobs": self.jobs, "cached": self.cached, "items": self.items}

    def __str__(self) -> str:
        return (
            f"forgot {render.amount(self.jobs, 'job')}, {render.amount(self.cached, 'cached file')}"
            f" and {render.amount(self.items, 'item')}"
        )


@dataclass(repr=False)
class Log(Shown):
    """Lines of the workers' log."""

    path: Path
    lines: list[str]

    @classmethod
    def tail(cls, path: Path, number: int) -> Log:
        """The last lines of a file; none if there is no such file."""
        try:
            with path.open("rb") as file:
                file.seek(0, 2)
                file.seek(max(0, file.tell() - TAIL_BYTES))
                text = file.read().decode(errors="replace")
        except FileNotFoundError:
            text = ""
        return cls(path, text.splitlines()[-number:] if number else [])

    def to_dict(self) -> dict[str, Any]:
        """As JSON."""
        return {"path": str(self.path), "lines": self.lines}

    def __str__(self) -> str:
        return "\n".join(render.plain(line) for line in self.lines) or "the log is empty"


__all__ = [
    "Enqueued", "Hits", "Item", "Items", "Job", "Jobs", "Listing", "Log", "Replay",
    "ResetCounts", "Shown", "Since", "Status", "WorkersStatus",
]  # fmt: skip
