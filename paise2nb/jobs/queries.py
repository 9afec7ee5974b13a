"""The queries about jobs. Nothing here changes a row."""

import json
import re
import sqlite3
from collections import Counter
from collections.abc import Iterable, Sequence
from contextlib import suppress
from typing import Any, Literal, TypeAlias

from paise2nb.jobs.host_limits import WAITING, reason_to_wait
from paise2nb.jobs.models import PAGE_STATES, STATES, UNFINISHED, Claim
from paise2nb.jobs.page_queries import PageQueryMixin
from paise2nb.jobs.sql import SQL

# What is listed: also what failed below a root, such as a sitemap in a sitemap index.
LISTED = "(page_id = id OR (page_id IS NULL AND (parent_id IS NULL OR state = 'failed')))"
RATE_NUMBER = 200  # of the latest pages and jobs over which rates are averaged
RATE_SECONDS = (10.0, 300.0)  # the shortest and the longest time for this average
SHORTEST_SECONDS = 0.25  # over which a rate is averaged at first, see tests.benchmarks.time_left
BREAK_SECONDS = 60.0  # without any end, after which an average begins again
_WHOLE = {
    *("priority", "attempt", "max_attempts", "crashes", "run", "worker_pid", "parent_id"),
    *("root_id", "page_id"),
}
_TIMES = dict.fromkeys(("run_at", "enqueued_at", "started_at", "finished_at"), (0, 10**11))
_RANGES = {**_TIMES, "interval": (1, 10**10)}

_ROWS = {"all": SQL["all_rows"], "public": SQL["public_rows"], "listed": SQL["listed_rows"]}
_SHORT_ARGS = 10_000  # characters, see short_args in statements.sql
CACHE_KEY = re.compile('"([0-9a-f]{64})"')  # in the arguments of a job
# Of a JSON string, without a part of an escape sequence.
_BEGINNING = re.compile(r'"(?:[^"\\]|\\u[0-9a-f]{4}|\\[^u]){1,1000}')


Counts: TypeAlias = Counter[str]
Kind: TypeAlias = Literal["all", "public", "listed"]  # of columns, see `QueryMixin.rows`


class QueryMixin(PageQueryMixin):
    """The methods that only read."""

    def _named(self, ids: Iterable[int] = ()) -> dict[str, Any]:
        """The parameters that statements have in common."""
        chosen = json.dumps(list(ids))
        return {"ids": chosen, "now": self.now(), "host_delay": self.host_delay}

    def find(
        self,
        ids: Iterable[int] | None = None,
        *,
        state: str | None = None,
        task: str | None = None,
        tag: str | None = None,
        error: str | None = None,
        limit: int | None = None,
        pages: bool = False,
    ) -> list[int]:
        """The ids of the jobs that match every filter, oldest first.

        With ``pages`` only pages, other jobs without a parent, and failed ones with a parent, such
        as a sitemap in a sitemap index; where a state other than ``completed`` or an error is
        looked for, all other jobs with a parent, too. Then ``state`` is the page's state, and
        ``error`` that of any of its parts. A recurring job that failed in its last run is found as
        ``failed``, too.
        """
        chosen = None if ids is None else json.dumps(list(ids))
        has_state = "coalesce(page_state, state) = ?" if pages else "state = ?"
        if state == "failed":
            has_state = f"({has_state} OR {SQL['last_run_failed']})"
        filters = {
            has_state: state,
            "task = ?": task,
            "tag = ?": tag,
            (f"id IN ({SQL['pages_with_error']})" if pages else "error_class = ?"): error,
            "id IN (SELECT value FROM json_each(?))": chosen,
        }
        used = {condition: value for condition, value in filters.items() if value is not None}
        looks_below = error is not None or state not in (None, "completed")
        shown = SQL["counted"] if looks_below else LISTED
        candidates = f"SELECT id FROM jobs WHERE {shown if pages else 1}"
        sql = " AND ".join([candidates, *used]) + " ORDER BY id LIMIT ?"
        return self._column(sql, (*used.values(), -1 if limit is None else limit))

    def page_parts(self, ids: Iterable[int]) -> dict[int, tuple[list[int], float | None]]:
        """The parts of those jobs that are pages.

        Returns:
            By id the ids of the page's fetch and of what follows from it, as far as there is
            any, and when the last of the others finished.
        """
        rows = self._read(SQL["page_parts"], (json.dumps(list(ids)),))
        return {
            page: ([part for part in (page, *others) if part is not None], finished_at)
            for page, *others, finished_at in map(tuple, rows)
        }

    def rows(self, ids: Iterable[int], kind: Kind = "all") -> dict[int, dict[str, Any]]:
        """The rows of jobs by id, with ``args`` decoded; without ids that are gone.

        Args:
            ids: the jobs.
            kind: which columns: ``all``; ``public`` leaves out those that no user sees, and
                results; ``listed`` is the same with only the beginning of long arguments.
        """
        rows = self._read(_ROWS[kind], (json.dumps(list(ids)),))
        return {row["id"]: row for row in self._decoded(rows)}

    def task_of(self, job_id: int) -> str | None:
        """The name of a job's task, or None if the job is gone."""
        return self._scalar(str, "SELECT task FROM jobs WHERE id = ?", (job_id,))

    def _decoded(self, rows: Iterable[sqlite3.Row]) -> list[dict[str, Any]]:
        """Rows with their arguments decoded and the host that each one waits for."""
        jobs = [decoded(row) for row in rows]
        waiting = [j for j in jobs if j["host_slot"] == WAITING or (j["host_slot"] and j["run_at"])]
        if waiting:
            reasons = self.reasons_to_wait({job["host"] for job in waiting})
            for job in waiting:
                reason = f" ({reasons[job['host']]})" if job["host"] in reasons else ""
                job["waiting_for"] = f"{job['host']}{reason}"
        return jobs

    def reasons_to_wait(self, hosts: Iterable[str]) -> dict[str, str]:
        """Why jobs wait for each of some hosts, without hosts that are unknown."""
        rows = self._read(SQL["delays"], {**self._named(), "hosts": json.dumps(list(hosts))})
        return {row["host"]: reason_to_wait(row["delay"], row["left"]) for row in rows}

    def latest(self, keys: Iterable[int | None]) -> dict[int, dict[str, Any]]:
        """The last job of each key: its state, result and times; without keys that have none."""
        rows = self._read(SQL["latest"], (json.dumps(list(keys)),))
        return {row["key"]: dict(row) for row in rows}

    def attempts(self, job_id: int) -> list[dict[str, Any]]:
        """The ended executions of a job, oldest first."""
        rows = self._read(SQL["attempts"], {"id": job_id})
        times = ("started_at", "finished_at")
        return [{**row, **{name: self.iso_time(row[name]) for name in times}} for row in rows]

    def children(self, job_id: int) -> list[int]:
        """The ids of the follow-up jobs of a job."""
        return self._column("SELECT id FROM jobs WHERE parent_id = ? ORDER BY id", (job_id,))

    def trees(self, ids: Iterable[int]) -> dict[int, list[int]]:
        """For each job the ids of its tree: its own and those of all descendants."""
        trees: dict[int, list[int]] = {}
        for row in self._read(SQL["descendants"], {"ids": json.dumps(list(ids))}):
            trees.setdefault(row["root"], []).append(row["id"])
        return trees

    def results(self, ids: Iterable[int]) -> dict[int, list[str]]:
        """For each job with any the results in its tree, as JSON."""
        results: dict[int, list[str]] = {}
        for row in self._read(SQL["results"], {"ids": json.dumps(list(ids))}):
            results.setdefault(row["root"], []).append(row["result"])
        return results

    def ready_in_tree(self, root: int) -> list[int]:
        """The jobs of a tree that may start now, in the order in which they are claimed."""
        return self._column(SQL["ready_in_tree"], {"ids": json.dumps([root])})

    def unfinished(self, ids: Iterable[int]) -> set[int]:
        """Those of the jobs with a queued, running, retrying or due job in their tree."""
        return {row["root"] for row in self._read(SQL["unfinished"], self._named(ids))}

    def tree_progress(self, ids: Iterable[int]) -> dict[int, tuple[int, int, bool]]:
        """For each job the pages and other jobs in its tree: how many, how many of them are left,
        and whether any job of the tree is unfinished.
        """
        rows = self._read(SQL["tree_progress"], self._named(ids))
        return {row["root"]: (row["total"], row["left"], bool(row["busy"])) for row in rows}

    def tree_counts(self, ids: Iterable[int]) -> tuple[Counts, Counts]:
        """The states of the pages in the trees of jobs, and of the jobs that are part of none.

        A recurring job that failed in its last run counts as failed.
        """
        counts: tuple[Counts, Counts] = (Counter(), Counter())
        for row in self._read(SQL["tree_counts"], {"ids": json.dumps(list(ids))}):
            counts[not row["is_page"]][row["state"]] += row["number"]
        return counts

    def unfinished_tasks(self, ids: Iterable[int] | None) -> set[str]:
        """The tasks of queued, running, retrying and due jobs: all, or those of some trees."""
        sql = SQL["all_unfinished_tasks"] if ids is None else SQL["unfinished_tasks"]
        return set(self._column(sql, self._named(ids or ())))

    def not_ended(self, ids: Iterable[int]) -> set[int]:
        """Those of the jobs that are unfinished themselves."""
        rows = self.rows(ids)
        return {job_id for job_id, row in rows.items() if row["state"] in UNFINISHED}

    def busy(self) -> int:
        """The number of jobs that are queued, running, retrying, or scheduled and due."""
        return self._scalar(int, SQL["busy"], {"now": self.now()}) or 0

    def next_time(
        self, tasks: Sequence[str] | None = None, within: float = float("inf")
    ) -> float | None:
        """The time at which the next job that waits for a time is due, in seconds since the epoch.

        Args:
            tasks: only jobs of these tasks.
            within: of these tasks only jobs that are due in this many seconds, because the later
                ones may be many jobs of other tasks.
        """
        parameters = {"tasks": json.dumps(tasks), "until": self.now() + within}
        sql = SQL["next_time"] if tasks is None else SQL["next_time_of_tasks"]
        return self._scalar(float, sql, parameters)

    def has_work(self, overdue: float = 0.0) -> bool:
        """Whether a job may start now, or has been due for some seconds."""
        due = self.next_time()
        return bool(self.ready_tasks()) or (due is not None and due <= self.now() - overdue)

    def counts(self) -> tuple[dict[str, int], dict[str, int]]:
        """The number of jobs in each state, and of those without a parent."""
        rows = {row["name"]: row for row in self._read("SELECT * FROM counts")}
        jobs, roots = ({s: rows[s][column] for s in STATES} for column in ("jobs", "roots"))
        return jobs, roots

    def page_counts(self) -> dict[str, int]:
        """The number of pages in each state."""
        return self._page_counts("page", PAGE_STATES)

    def other_counts(self) -> dict[str, int]:
        """The number of jobs in each state that are part of no page."""
        return self._page_counts("other", STATES)

    def _page_counts(self, kind: str, states: Sequence[str]) -> dict[str, int]:
        rows = self._read("SELECT name, number FROM page_counts WHERE kind = ?", (kind,))
        counts = {row["name"]: row["number"] for row in rows}
        return {state: counts[state] for state in states}

    def oldest_time(self) -> float | None:
        """The time at which the oldest job was enqueued or finished."""
        return self._scalar(float, SQL["oldest_time"])

    def oldest_queued(self) -> float | None:
        """Since when the oldest job that may start could have been started."""
        return self._scalar(float, SQL["oldest_queued"])

    def ready_tasks(self) -> set[str]:
        """The names of the tasks with jobs that may start now."""
        return set(self._column(SQL["ready_tasks"]))

    def retries(self, limit: int) -> list[dict[str, Any]]:
        """The next retries; the first ones are due and wait for their host or a worker."""
        return self._decoded(self._read(SQL["retries"], (limit,)))

    def scheduled(self, limit: int) -> list[dict[str, Any]]:
        """The jobs that wait for their time, the next first."""
        return self._decoded(self._read(SQL["scheduled"], (limit,)))

    def recurring_failed(self) -> list[dict[str, Any]]:
        """The recurring jobs that failed in their last run, oldest first."""
        return self._decoded(self._read(SQL["recurring_failed"]))

    def next_retry(self) -> float | None:
        """The time of the next retry that has a time now."""
        sql = "SELECT min(run_at) FROM jobs INDEXED BY jobs_retrying WHERE state = 'retrying'"
        return self._scalar(float, sql)

    def last_retry(self) -> float | None:
        """The time of the last retry that has a time now."""
        sql = "SELECT max(run_at) FROM jobs INDEXED BY jobs_retrying WHERE state = 'retrying'"
        return self._scalar(float, sql)

    def tags(self) -> list[str]:
        """The tags of jobs."""
        return self._column("SELECT DISTINCT tag FROM jobs WHERE tag IS NOT NULL ORDER BY tag")

    def pauses_of_hosts(self, ids: Iterable[int]) -> dict[str, float]:
        """The hosts that some jobs wait for and that asked for a pause, with the time of its end
        in seconds since the epoch.
        """
        return dict(map(tuple, self._read(SQL["pauses_of_hosts"], self._named(ids))))

    def slowest_host(self) -> tuple[str, int, float, float] | None:
        """Return the host that takes longest to serve its waiting jobs.

        Returns:
            Its name, the number of waiting jobs, the delay between two requests in seconds, and
            the seconds until the last request.
        """
        return next(map(tuple, self._read(SQL["slowest_host"], self._named())), None)

    def failures(self) -> list[dict[str, Any]]:
        """Failed jobs by error class, and by HTTP status if the error begins with one.

        Returns:
            For each group the number of jobs, and the id, task, args and error of the last one.
        """
        return [decoded(row) for row in self._read(SQL["failures"])]

    def failed_pages(self, since: float) -> int:
        """The number of pages, and of other jobs, that failed after a time."""
        sql = (
            "SELECT count(DISTINCT coalesce(page_id, id)) FROM jobs"
            " WHERE state = 'failed' AND finished_at >= ?"
        )
        return self._scalar(int, sql, (since,)) or 0

    def pace(self, minutes: int) -> list[tuple[int, int, int]]:
        """(minute since the epoch, completed, failed) for each of the last minutes with any.

        Pages are counted, with jobs that are part of none.
        """
        found: dict[int, list[int]] = {}
        for name, completed, failed in self.ended((int(self.now() // 60) - minutes + 1) * 60):
            sums = found.setdefault(name // 60, [0, 0])
            sums[0] += completed
            sums[1] += failed
        return [(minute, sums[0], sums[1]) for minute, sums in found.items()]

    def rates(self) -> tuple[float, float]:
        """How many pages and other jobs complete in a second, and how many end in any way.

        Over the last minutes without a longer break. The second in which they begin is left out,
        because the work may have begun in the middle of it.
        """
        now = self.now()
        counted, oldest, number = [], int(now), 0
        for name, completed, failed in reversed(self.ended(now - RATE_SECONDS[1])):
            enough = number >= RATE_NUMBER and now - oldest >= RATE_SECONDS[0]
            if oldest - name > BREAK_SECONDS or enough:
                break
            counted.append((completed, completed + failed))
            oldest, number = name, number + completed + failed
        if len(counted) > 1:
            counted.pop()
            oldest += 1
        seconds = max(now - oldest, SHORTEST_SECONDS)
        completed, ended = map(sum, zip(*counted, strict=True)) if counted else (0, 0)
        return completed / seconds, ended / seconds

    def plugin_value(self, plugin: str, key: str) -> tuple[str | None, int]:
        """A value of a plugin's state as JSON text (None if there is none), and its version."""
        rows = self._read(SQL["plugin_state"], (plugin, key))
        return (rows[0]["value"], rows[0]["version"]) if rows else (None, 0)

    def plugin_keys(self, plugin: str) -> set[str]:
        """The keys of a plugin's state."""
        sql = "SELECT key FROM plugin_state WHERE plugin = ? AND value IS NOT NULL"
        return set(self._column(sql, (plugin,)))

    def runs(self, claim: Claim) -> bool:
        """Whether an execution still has its job: neither cancelled nor given to another worker."""
        return bool(self._read(SQL["is_running"], (claim.id, claim.run)))

    def needed_keys(self) -> set[str]:
        """Return every SHA-256 in the arguments of unfinished jobs: keys of the cache."""
        args = self._column(SQL["unfinished_arguments"])
        return {key for text in args for key in CACHE_KEY.findall(str(text))}


def decoded(row: sqlite3.Row) -> dict[str, Any]:
    """A row with its arguments as a list.

    SQLite stores any type of value in any column, and a damaged row must not hide the others: text
    that can't be decoded is returned as it is, and what is no number of its kind becomes None.
    """
    # Faster than dict(row), which searches each name: see tests/benchmarks/listings.py.
    job = dict(zip(row.keys(), row, strict=True))
    if bytes in map(type, row):
        for name, value in job.items():
            if isinstance(value, bytes):
                job[name] = value.decode(errors="replace")
    for name in _WHOLE & job.keys():
        if type(job[name]) is not int:
            job[name] = None
    for name in _RANGES.keys() & job.keys():
        if (value := job[name]) is not None:
            least, most = _RANGES[name]
            if isinstance(value, str) or not least <= value <= most:
                job[name] = None
    text = job["args"]
    try:
        args = json.loads(text)
    except (ValueError, RecursionError):
        args = _first_arguments(text)
    job["args"] = args if isinstance(args, list) else [text]
    return job


def _first_arguments(text: str) -> list[Any] | None:
    """The arguments in JSON that was cut off, with the beginning of the last one; None: damaged."""
    if len(text) != _SHORT_ARGS or not text.startswith("["):
        return None
    args: list[Any] = []
    decoder, position = json.JSONDecoder(), 1
    with suppress(ValueError, RecursionError):
        while True:
            value, position = decoder.raw_decode(text, position)
            args.append(value)
            position += 2  # a comma and a space
    string = _BEGINNING.match(text, position)
    beginning = json.loads(f'{string[0]}"') if string else text[position : position + 1000]
    return [*args, beginning, "…"]
