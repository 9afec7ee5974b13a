"""What is asked about jobs: every query that changes nothing."""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Sequence
from contextlib import suppress
from typing import Any

from paise2nb.jobs.database import TREES, JobDatabase
from paise2nb.jobs.models import STATES, UNFINISHED, Claim, decoded


class QueryMixin(JobDatabase):
    """The questions."""

    def find(
        self,
        ids: Iterable[int] | None = None,
        *,
        state: str | None = None,
        task: str | None = None,
        tag: str | None = None,
        error: str | None = None,
        limit: int | None = None,
    ) -> list[int]:
        """The ids of the jobs that fit every filter, oldest first."""
        conditions, parameters = ["1"], list[object]()
        filters = {"state": state, "task": task, "tag": tag, "error_class": error}
        for column, value in filters.items():
            if value is not None:
                conditions.append(f"{column} = ?")
                parameters.append(value)
        if ids is not None:
            conditions.append("id IN (SELECT value FROM json_each(?))")
            parameters.append(json.dumps(list(ids)))
        parameters.append(-1 if limit is None else limit)
        sql = f"SELECT id FROM jobs WHERE {' AND '.join(conditions)} ORDER BY id LIMIT ?"
        return [row["id"] for row in self._read(sql, parameters)]

    def rows(self, ids: Iterable[int]) -> dict[int, dict[str, Any]]:
        """The rows of jobs by id, with ``args`` decoded; an id that is gone is left out."""
        found = self._read(
            "SELECT * FROM jobs WHERE id IN (SELECT value FROM json_each(?))",
            (json.dumps(list(ids)),),
        )
        return {row["id"]: decoded(row) for row in found}

    def latest(self, keys: Iterable[int | None]) -> dict[int, dict[str, Any]]:
        """The last job of each key: its state, result and times; a key without one is left out."""
        rows = self._read(
            "SELECT key, state, result, enqueued_at, finished_at FROM jobs"
            " WHERE key IN (SELECT value FROM json_each(?)) ORDER BY id",
            (json.dumps(list(keys)),),
        )
        return {row["key"]: dict(row) for row in rows}

    def attempts(self, job_id: int) -> list[dict[str, Any]]:
        """The executions of a job that have ended, oldest first."""
        rows = self._read(
            "SELECT * FROM attempts WHERE job_id = ? UNION ALL"
            " SELECT id, run, started_at, finished_at, worker_pid, 'completed', NULL, NULL,"
            " NULL, NULL FROM jobs WHERE id = ? AND state = 'completed' ORDER BY run",
            (job_id, job_id),
        )
        return [
            {
                "number": row["run"],
                **{key: row[key] for key in row.keys() if key not in ("job_id", "run")},  # noqa: SIM118
                "started_at": self.shown(row["started_at"]),
                "finished_at": self.shown(row["finished_at"]),
            }
            for row in rows
        ]

    def children(self, job_id: int) -> list[int]:
        """The follow-ups of a job."""
        rows = self._read("SELECT id FROM jobs WHERE parent_id = ? ORDER BY id", (job_id,))
        return [row["id"] for row in rows]

    def trees(self, ids: Iterable[int]) -> dict[int, list[int]]:
        """For each job the ids of its tree: itself and all that descends from it."""
        trees: dict[int, list[int]] = {}
        rows = self._read(TREES + "SELECT root, id FROM tree ORDER BY id", (json.dumps(list(ids)),))
        for row in rows:
            trees.setdefault(row["root"], []).append(row["id"])
        return trees

    def unfinished(self, ids: Iterable[int]) -> set[int]:
        """Those of the jobs in whose tree something is queued, running, retrying, or due."""
        rows = self._read(
            TREES + "SELECT DISTINCT root FROM tree JOIN jobs USING (id) WHERE"
            " state IN ('queued', 'running', 'retrying')"
            " OR (state = 'scheduled' AND (ready + host_slot > 0 OR run_at <= ?))",
            (json.dumps(list(ids)), self.now()),
        )
        return {row["root"] for row in rows}

    def not_ended(self, ids: Iterable[int]) -> set[int]:
        """Those of the jobs that are unfinished themselves."""
        rows = self.rows(ids)
        return {job_id for job_id, row in rows.items() if row["state"] in UNFINISHED}

    def busy(self) -> int:
        """How many jobs are queued, running, retrying, or scheduled and due."""
        rows = self._read(
            "SELECT (SELECT sum(jobs) FROM counts WHERE"
            " name IN ('queued', 'running', 'retrying'))"
            " + (SELECT count(*) FROM jobs WHERE ready = 0 AND run_at <= ? AND host_slot = 0"
            " AND state = 'scheduled')"
            " + (SELECT count(*) FROM jobs INDEXED BY jobs_overdue WHERE state = 'scheduled'"
            " AND ready + host_slot > 0) AS busy",
            (self.now(),),
        )
        return int(rows[0]["busy"])

    def next_time(
        self, tasks: Sequence[str] | None = None, within: float = float("inf")
    ) -> float | None:
        """When the next job that has a time is due, in seconds since the epoch.

        Args:
            tasks: of these only.
            within: of these, seconds from now: what is later may be many jobs of other tasks.
        """
        if tasks is None:
            rows = self._read(
                "SELECT min(run_at) AS at FROM jobs WHERE ready = 0 AND run_at IS NOT NULL"
            )
        else:
            marks = ",".join("?" * len(tasks))
            rows = self._read(
                "SELECT run_at AS at FROM jobs INDEXED BY jobs_due WHERE ready = 0"
                f" AND run_at <= ? AND task IN ({marks}) ORDER BY run_at LIMIT 1",
                (self.now() + within, *tasks),
            )
        return rows[0]["at"] if rows else None

    def counts(self) -> tuple[dict[str, int], dict[str, int]]:
        """The number of jobs in each state, and of those without a parent."""
        rows = {row["name"]: row for row in self._read("SELECT * FROM counts")}
        return (
            {state: rows[state]["jobs"] for state in STATES},
            {state: rows[state]["roots"] for state in STATES},
        )

    def oldest_queued(self) -> float | None:
        """When the oldest job that may start was enqueued."""
        rows = self._read(
            "SELECT enqueued_at FROM jobs WHERE id ="
            " (SELECT min(id) FROM (SELECT min(id) AS id FROM jobs INDEXED BY jobs_active"
            " WHERE ready = 1 UNION ALL SELECT min(id) FROM jobs INDEXED BY jobs_host_slots"
            " WHERE host_slot = 2 AND worker IS NULL))"
        )
        return rows[0]["enqueued_at"] if rows else None

    def ready_tasks(self) -> set[str]:
        """The names of the tasks that have jobs which may start now."""
        rows = self._read("""
            WITH RECURSIVE ready (task) AS (
                SELECT min(task) FROM jobs WHERE ready = 1 UNION ALL
                SELECT (SELECT min(task) FROM jobs WHERE ready = 1 AND task > ready.task)
                FROM ready WHERE task IS NOT NULL
            ) SELECT CAST(task AS TEXT) AS task FROM ready WHERE task IS NOT NULL
            """)
        return {row["task"] for row in rows}

    def retries(self, limit: int) -> list[dict[str, Any]]:
        """The retries that come next."""
        rows = self._read(
            "SELECT * FROM jobs INDEXED BY jobs_retrying WHERE state = 'retrying' AND ready = 0"
            " AND run_at IS NOT NULL ORDER BY run_at LIMIT ?",
            (limit,),
        )
        return [decoded(row) for row in rows]

    def tags(self) -> list[str]:
        """The tags that jobs carry."""
        rows = self._read("SELECT DISTINCT tag FROM jobs WHERE tag IS NOT NULL ORDER BY tag")
        return [row["tag"] for row in rows]

    def slowest_host(self) -> tuple[str, int, float, float] | None:
        """The host whose line lasts longest: its name, how many stand there, the seconds between
        two of them, and the seconds until the last one's turn."""
        rows = self._read(
            "SELECT host, waiting, delay, max(free_at - ?2, 0) + waiting * delay AS left FROM"
            " (SELECT *, iif(?1, max(crawl_delay, ?1), 0) AS delay FROM hosts) AS hosts"
            " WHERE (waiting > 0 OR free_at > ?2) AND EXISTS (SELECT 1 FROM jobs INDEXED BY"
            " jobs_host_slots WHERE host_slot = 2 AND jobs.host = hosts.host)"
            " ORDER BY left DESC LIMIT 1",
            (self.host_delay, self.now()),
        )
        return tuple(rows[0]) if rows else None

    def last_retry(self) -> float | None:
        """When the last of the retries that have a time now is due."""
        rows = self._read(
            "SELECT max(run_at) AS at FROM jobs INDEXED BY jobs_retrying WHERE state = 'retrying'"
            " AND ready = 0 AND run_at IS NOT NULL"
        )
        return rows[0]["at"] if rows else None

    def failures(self) -> list[dict[str, Any]]:
        """Failed jobs by error class, and HTTP status where the error opens with one.

        Returns:
            the number of each group, and the last one's id, task, args and error.
        """
        rows = self._read(
            "SELECT error_class, iif(error GLOB '[45][0-9][0-9] *', substr(error, 1, 3), NULL)"
            " AS status, count(*) AS jobs, max(id) AS id, task, args, error FROM jobs"
            " WHERE state = 'failed' GROUP BY 1, 2 ORDER BY jobs DESC, 1, 2"
        )
        return [decoded(row) for row in rows]

    def failed_since(self, since: float) -> int:
        """How many failed jobs ended after that time."""
        rows = self._read(
            "SELECT count(*) AS n FROM jobs WHERE state = 'failed' AND finished_at >= ?", (since,)
        )
        return int(rows[0]["n"])

    def pace(self, minutes: int) -> list[tuple[int, int, int]]:
        """(minute since the epoch, completed, failed) for the last minutes that saw an end."""
        first = int(self.now() // 60) - minutes
        rows = self._read(
            "SELECT name, sum(jobs * (kind = 'completed')), sum(jobs * (kind = 'failed'))"
            " FROM counters WHERE kind IN ('completed', 'failed') AND name > ?"
            " GROUP BY name ORDER BY name",
            (first,),
        )
        return [tuple(row) for row in rows]

    def kept(self, plugin: str, key: str) -> tuple[str | None, int]:
        """A value of a plugin's state as JSON text, None where there is none, and its version."""
        rows = self._read(
            "SELECT value, version FROM plugin_state WHERE plugin = ? AND key = ?", (plugin, key)
        )
        return (rows[0]["value"], rows[0]["version"]) if rows else (None, 0)

    def kept_keys(self, plugin: str) -> set[str]:
        """The keys of a plugin's state."""
        rows = self._read(
            "SELECT key FROM plugin_state WHERE plugin = ? AND value IS NOT NULL", (plugin,)
        )
        return {row["key"] for row in rows}

    def runs(self, claim: Claim) -> bool:
        """Whether an execution is still the job's: neither cancelled nor given to another."""
        return bool(
            self._read(
                "SELECT 1 FROM jobs WHERE id = ? AND run = ? AND state = 'running'",
                (claim.id, claim.run),
            )
        )

    def needed_keys(self) -> set[str]:
        """Every text of 64 hexadecimal digits in the arguments of unfinished jobs: cache keys."""
        keys: set[str] = set()
        rows = self._read(
            "SELECT args FROM jobs WHERE state IN ('queued', 'scheduled', 'running', 'retrying')"
        )
        for row in rows:
            with suppress(ValueError, RecursionError):
                keys.update(_hashes(json.loads(row["args"])))
        return keys


def _hashes(value: object) -> Iterator[str]:
    if isinstance(value, str):
        if len(value) == 64:
            yield value
    elif isinstance(value, dict):
        for entry in value.values():
            yield from _hashes(entry)
    elif isinstance(value, list):
        for entry in value:
            yield from _hashes(entry)
