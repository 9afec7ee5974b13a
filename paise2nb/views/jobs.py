"""Jobs in their current state.

A Job reads its row each time, so a variable in a notebook never shows an outdated state.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Generator, Iterable, Iterator, Mapping, Sequence
from typing import Any, Self

from paise2nb.core import render
from paise2nb.core.clock import local_time
from paise2nb.core.display import Listing, arguments, frame
from paise2nb.core.errors import JobFailed, NotFound, without_secrets
from paise2nb.core.render import Column
from paise2nb.jobs.models import value_of, whole_number
from paise2nb.jobs.queries import Counts, Kind
from paise2nb.views.client import JobClient
from paise2nb.views.history import (
    COLUMNS,
    counts_in_words,
    executions,
    parts_of,
    row_time,
    shown_traceback,
)
from paise2nb.views.items import Items
from paise2nb.views.job_rows import (
    ARGUMENT_LENGTH,
    JOB_KEYS,
    TIMES,
    JobRecord,
    as_pages,
    items_of,
    public,
    summary_of,
    table_row,
)
from paise2nb.views.left_out import left_out
from paise2nb.views.waiting import Progress, no_progress, wait, wait_async

# The columns of a data frame with items.
_WITH_ITEMS = ("id", "input", "state", "title", "text", "error")


class _JobActions:
    """Actions on jobs, shared by `Job` and `Jobs`."""

    _client: JobClient
    _rows: Sequence[int]  # the ids of the jobs
    waited = False  # whether they have ended, since a wait for them has

    @property
    def items(self) -> Items:
        """The items stored by the jobs and their descendants, in the order of the jobs."""
        results = self._client.job_store.results(self._rows)
        ids = dict.fromkeys(n for root in self._rows for n in items_of(results.get(root, ())))
        return Items.of(self._client.items, list(ids))

    def _trees(self) -> dict[int, list[dict[str, Any]]]:
        """Return the rows of each job's tree, its own first; none if the job has been deleted."""
        job_store = self._client.job_store
        trees = job_store.trees(self._rows)
        rows = job_store.rows({job_id for tree in trees.values() for job_id in tree})
        return {root: [rows[n] for n in trees.get(root, []) if n in rows] for root in self._rows}

    def retry(self) -> Jobs:
        """Queue again with new attempts, in one transaction. Of a page, the part that failed.

        Returns:
            The jobs that are queued now. A job with an unfinished duplicate is replaced by it.
        """
        queued = self._client.job_store.retry(self._rows, self._client.is_cached)
        self._client.jobs_added(queued)
        return Jobs(self._client, queued, pages=True)

    def cancel(self) -> Jobs:
        """Cancel with all descendants, in one transaction; return the cancelled jobs."""
        cancelled = self._client.job_store.cancel(self._rows)
        return Jobs(self._client, cancelled, pages=True)

    def ended(self) -> tuple[Counts, Counts]:
        """The states of the pages in the trees of the jobs, and of the jobs that are part of none.

        A recurring job that failed in its last run counts as failed.
        """
        return self._client.job_store.tree_counts(self._rows)

    def wait(self, timeout: float | None = None, on_progress: Progress | None = None) -> Self:
        """Wait for the whole tree, then return this object. Raises like `App.wait`."""
        wait(self._client, timeout, jobs=self._rows, on_progress=on_progress)
        self.waited = True
        return self

    def __await__(self) -> Generator[Any, None, Self]:
        yield from wait_async(self._client, self._rows).__await__()
        self.waited = True
        return self


class Job(_JobActions, JobRecord):
    """One job. Its attributes, those of `JobRecord`, are read from its row each time.

    Attributes:
        answer: how the enqueue that returned it was answered, see `Enqueued`; else None.
    """

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
        row = self.row()
        if name == "page_state" and row["page_id"] not in (None, self.id):
            page = self._client.job_store.rows([row["page_id"]]).get(row["page_id"], row)
            return page["page_state"]  # None if the page has been deleted
        if name in ("error", "error_class") and row["page_state"] is not None:
            row = dict(row)
            as_pages(self._client.job_store, {self.id: row})
        return public(row, self._client.job_store.iso_time)[name]

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
        wait(self._client, timeout, jobs=self._rows, ended=not self.every, on_progress=no_progress)
        row = self.row()
        between_runs = row["interval"] and row["state"] == "scheduled" and not row["error_class"]
        if row["state"] != "completed" and not between_runs:
            traceback = next((last["traceback"] for last in self.attempts[-1:]), None)
            reason = f"{row['state']}: {row['error']}" if row["error"] else row["state"]
            raise JobFailed(f"job {self.id} ({row['task']}) {reason}", traceback or "")
        return self._value_of(row)

    def _value_of(self, row: Mapping[str, Any]) -> Any:
        """The value of the job's function; of a crawl with what all of its pages have left out."""
        value = value_of(row["result"])
        if row["task"] == "links" and row["parent_id"] is None and isinstance(value, dict):
            value.pop("left_out", None)
            if left_out := self._client.job_store.left_out(self.id):
                value["left_out"] = left_out
        return value

    def to_dict(self) -> dict[str, Any]:
        """The JSON of ``job ID``: also ``result``, ``attempts``, ``children``, and ``every`` in
        seconds."""
        row = self.row()
        return {
            **public(row, self._client.job_store.iso_time),
            "every": row["interval"],
            "result": without_secrets(self._value_of(row)),
            "attempts": self.attempts,
            "children": self._client.job_store.children(self.id),
        }

    def summary(self) -> str:
        """The job on one line; a page has its page state."""
        return summary_of(self._client.job_store, self.row(), self.answer)

    def __str__(self) -> str:
        lines = [self.summary()]
        for attempt in self.attempts:
            outcome = f"{attempt['number']}. {attempt['outcome']} {attempt['error'] or ''}"
            lines.append("  " + render.one_line(outcome))
        return "\n".join([*lines, *self._below([self.id])])

    def _below(self, ids: Sequence[int]) -> list[str]:
        """What became of the pages below this job, and the first of the jobs below some jobs."""
        job_store = self._client.job_store
        root = ids[0]
        found = [n for n in job_store.trees([root]).get(root, []) if n not in ids]
        rows = job_store.rows(found[: render.VIEW_ROWS], "listed")
        lines = [summary_of(job_store, row) for row in rows.values()]
        if len(found) > len(rows):
            lines.append(f"… {len(found) - len(rows):,} more")
        if (pages := self._pages_below(root)) is not None:
            lines.insert(0, pages)
        return [f"  {line}" for line in lines]

    def _pages_below(self, root: int) -> str | None:
        """What became of the pages that follow from a job, such as a feed."""
        job_store = self._client.job_store
        pages, _ = job_store.tree_counts([root])
        pages.subtract(row["page_state"] for row in job_store.rows([root]).values())
        return counts_in_words(pages, Counter()) or None

    def details(self) -> str:
        """The whole history of the job and its page, with tracebacks and tree, as text."""
        job_store, row = self._client.job_store, self.row()
        parts = parts_of(job_store, row)
        lines = [summary_of(job_store, parts[0])]
        if parts[0]["id"] != self.id:
            lines.append(self.summary())
        lines.append(f"  enqueued {row_time(job_store, parts[0]['enqueued_at'])}")
        if self.run_at is not None:
            lines.append(f"  runs next at {local_time(self.run_at)}")
        lines.append(render.text_table(executions(job_store, parts), COLUMNS))
        lines += self._below([part["id"] for part in parts])
        lines += left_out(self._value_of(row))
        if len(argument := arguments(self.args)) > ARGUMENT_LENGTH:
            lines.append(f"\nArgument:\n{render.plain(argument)}")
        for title, traceback in self._tracebacks(parts):
            lines += [f"\n{title}:", render.plain(traceback).rstrip()]
        return "\n".join(lines)

    def _tracebacks(self, parts: Iterable[Mapping[str, Any]]) -> Iterator[tuple[str, str]]:
        for part in parts:
            for attempt in self._client.job_store.attempts(part["id"]):
                if traceback := shown_traceback(attempt["traceback"]):
                    title = f"Attempt {attempt['number']} of job {part['id']} ({part['task']})"
                    yield title, traceback

    def _repr_html_(self) -> str:
        job_store, row = self._client.job_store, self.row()
        parts = parts_of(job_store, row)
        shown = Jobs(self._client, dict.fromkeys((parts[0]["id"], self.id)), pages=True)
        pages = self._pages_below(parts[0]["id"])
        return render.panel(
            render.html_table(shown.first(2), Jobs.columns),
            render.html_table(executions(job_store, parts), COLUMNS),
            render.note(pages) if pages else "",
            render.note(self.summary()) if self.answer not in (None, "new") else "",
            *(
                f"<details><summary>{render.escape(title)}</summary>"
                f"<pre>{render.escape(traceback)}</pre></details>"
                for title, traceback in self._tracebacks(parts)
            ),
        )


class Jobs(_JobActions, Listing[Job]):
    """Jobs in a given order.

    Args:
        client: the app's client.
        ids: the jobs.
        pages: in the rows, pages have their page state, and the error and times of the page.
    """

    columns = (
        Column("id", right=True),
        Column("task"),
        render.url("args", "argument", arguments),
        Column("state", html=render.tone),
        Column("error", title="message", wide=True),
        Column("attempt", right=True),
        Column("time", html=render.moment),
    )
    keys, times = JOB_KEYS, TIMES
    whole_numbers = ("worker_pid", "parent_id", "page_id")
    empty = "no jobs"

    def __init__(self, client: JobClient, ids: Iterable[int], *, pages: bool = False) -> None:
        self._client = client
        self._rows = list(ids)
        self._pages = pages

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
        rows = self._known(self._rows, "public")
        return [public(rows[job_id], time) for job_id in self._rows if job_id in rows]

    def _known(self, ids: Sequence[int], kind: Kind) -> dict[int, dict[str, Any]]:
        rows = self._client.job_store.rows(ids, kind)
        if self._pages:
            as_pages(self._client.job_store, rows, kind)
        return rows

    def first(self, number: int) -> list[dict[str, Any]]:
        """Return the first rows of the table. The others are not read."""
        ids = self._rows[:number]
        rows = self._known(ids, "listed")
        return [table_row(self._client.job_store, rows[n]) for n in ids if n in rows]

    def to_frame(self, items: bool = False) -> Any:
        """A DataFrame with one row for each job.

        Args:
            items: give the input of each job with the title and text of its item. The state is
                that of the page; for a job that is no page, state and error are those of the
                first job in its tree that has not completed.
        """
        if items:
            return frame(self._with_items(), _WITH_ITEMS)
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
            item = next(
                filter(None, map(self._client.items.get, items_of(row["result"] for row in tree))),
                {},
            )
            row = {
                "id": job_id,
                "input": arguments(tree[0]["args"]) if tree else None,
                "state": (tree[0]["page_state"] if tree else None) or decisive["state"],
                "title": item.get("title"),
                "text": item.get("text"),
                "error": decisive["error"],
            }
            rows.append(row)
        return rows
