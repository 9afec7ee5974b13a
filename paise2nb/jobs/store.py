"""The job table: what users and time do to jobs, beside their executions."""

from __future__ import annotations

import json
import sqlite3
from collections import Counter
from collections.abc import Collection, Iterable
from typing import Any

from paise2nb.jobs.database import TREES
from paise2nb.jobs.execution import ExecutionMixin
from paise2nb.jobs.host_limits import WAITING
from paise2nb.jobs.models import Claim, Outcome, StateCounters, Worker, claim_of
from paise2nb.jobs.queries import QueryMixin
from paise2nb.jobs.worker_registry import WorkerRegistry

# What is old enough to be forgotten. A recurring job never finishes: below it what is old goes leaf
# by leaf.
WHOLE_TREES = (
    "root_id NOT IN (SELECT root_id FROM jobs"
    " WHERE finished_at IS NULL OR finished_at >= ? OR worker IS NOT NULL)"
)
OLD_LEAVES = (
    "parent_id IS NOT NULL AND finished_at < ? AND worker IS NULL"
    " AND root_id IN (SELECT id FROM jobs WHERE interval IS NOT NULL)"
    " AND NOT EXISTS (SELECT 1 FROM jobs AS child WHERE child.parent_id = jobs.id)"
)
HELD_BY = "SELECT * FROM jobs INDEXED BY jobs_active WHERE ready = 0 AND worker = ?"
HELD = "its cancelled run to end"  # what a retried job waits for


class JobStore(ExecutionMixin, QueryMixin, WorkerRegistry):
    """The one host_slot that knows what is true about a job. See `JobDatabase` for how it opens."""

    # The user's moves ------------------------------------------------------------------------

    def retry(self, ids: Iterable[int]) -> list[int]:
        """Back to the queue, attempts granted anew: failed, cancelled, retrying and scheduled jobs.

        Returns:
            The jobs that wait now: for each that moved its id, or that of an unfinished twin.
            One whose cancelled run has not ended yet may start when it has.
        """
        return self._write(self._retry, list(ids))  # type: ignore[no-any-return]

    def _retry(
        self, connection: sqlite3.Connection, counters: StateCounters, ids: list[int]
    ) -> list[int]:
        rows = connection.execute(
            "SELECT id, key, state, parent_id, host, host_slot, worker,"
            " (SELECT min(twin.id) FROM jobs AS twin"
            " WHERE twin.key = jobs.key AND twin.id != jobs.id AND twin.state IN"
            " ('queued', 'scheduled', 'running', 'retrying')) AS twin FROM jobs"
            " WHERE id IN (SELECT value FROM json_each(?))"
            " AND state IN ('failed', 'cancelled', 'retrying', 'scheduled') ORDER BY id",
            (json.dumps(ids),),
        ).fetchall()
        waiting: list[int] = []
        queued: list[int] = []
        by_key: dict[int, int] = {}  # twins may be among the jobs themselves
        for row in rows:
            twin = row["twin"] or by_key.get(row["key"])
            if twin is None:
                counters.move(row["state"], "queued", row["parent_id"] is None)
                queued.append(row["id"])
                if row["key"] is not None:
                    by_key[row["key"]] = row["id"]
            waiting.append(twin or row["id"])
        connection.execute(
            "UPDATE jobs SET state = 'queued', attempt = 0, crashes = 0, finished_at = NULL,"
            " ready = iif(host_slot = 0, worker IS NULL, ready),"
            " run_at = iif(host_slot = 0, NULL, run_at),"
            " waiting_for = iif(worker IS NULL, NULL, ?)"
            " WHERE id IN (SELECT value FROM json_each(?))",
            (HELD, json.dumps(queued)),
        )
        again = set(queued)
        for row in rows:
            placed = row["host_slot"] or row["worker"]  # who has a host_slot already keeps it
            if row["host"] is not None and row["id"] in again and not placed:
                counters.host_limits.requeue(row["id"], row["host"])
        return waiting

    def cancel(self, ids: Iterable[int]) -> list[int]:
        """Take jobs and all their descendants out of the queue; the ids that moved.

        A running one keeps naming its worker until the worker lets go of it.
        """
        return self._write(self._cancel, list(ids))  # type: ignore[no-any-return]

    def _cancel(
        self, connection: sqlite3.Connection, counters: StateCounters, ids: list[int]
    ) -> list[int]:
        now = self.now()
        rows = connection.execute(
            TREES + "SELECT * FROM jobs WHERE id IN (SELECT id FROM tree)"
            " AND state IN ('queued', 'scheduled', 'running', 'retrying')",
            (json.dumps(ids),),
        ).fetchall()
        for row in rows:
            counters.move(row["state"], "cancelled", row["parent_id"] is None)
            if row["state"] == "running":
                claim = claim_of(row)
                self._record(connection, claim, Outcome("cancelled", "cancelled"), now)
        connection.executemany(
            "UPDATE jobs SET state = 'cancelled', ready = 0, run_at = NULL, waiting_for = NULL,"
            " finished_at = ?, host_slot = iif(worker IS NULL, 0, host_slot) WHERE id = ?",
            [(now, row["id"]) for row in rows],
        )
        gone = [row for row in rows if row["host_slot"] and row["worker"] is None]
        waited = Counter(row["host"] for row in gone if row["host_slot"] == WAITING)
        for host in {row["host"] for row in gone}:
            counters.host_limits.release(host, waited=waited[host])
        return [row["id"] for row in rows]

    def progress(self, claim: Claim, done: float, total: float | None) -> bool:
        """Note how far an execution is; False when the job is no longer its own."""

        def work(connection: sqlite3.Connection, _: StateCounters) -> bool:
            return bool(
                connection.execute(
                    "UPDATE jobs SET progress = ? WHERE id = ? AND run = ? AND state = 'running'",
                    (json.dumps([done, total]), claim.id, claim.run),
                ).rowcount
            )

        return self._write(work)  # type: ignore[no-any-return]

    def prune(self, before: float) -> int:
        """Forget jobs that finished before that time (seconds since the epoch), with their
        attempts, tree by tree: a tree goes when all of it has finished. The number of jobs."""
        return self._write(self._prune, before)  # type: ignore[no-any-return]

    def _prune(self, connection: sqlite3.Connection, counters: StateCounters, before: float) -> int:
        (late,) = connection.execute("SELECT last - counted FROM ids").fetchone()
        counters.count_late(late)
        forgotten = 0
        for condition in (WHOLE_TREES, OLD_LEAVES):
            while old := connection.execute(
                f"SELECT id, state, parent_id FROM jobs WHERE {condition}", (before,)
            ).fetchall():
                for row in old:
                    counters.add(row["state"], -1, row["parent_id"] is None)
                ids = json.dumps([row["id"] for row in old])
                for table, column in (("attempts", "job_id"), ("jobs", "id")):
                    connection.execute(
                        f"DELETE FROM {table} WHERE {column} IN (SELECT value FROM json_each(?))",
                        (ids,),
                    )
                forgotten += len(old)
        connection.execute(
            "DELETE FROM counters WHERE kind IN ('completed', 'failed') AND name < ?",
            (int(before // 60),),
        )
        connection.execute(  # of jobs that recur
            "DELETE FROM attempts WHERE finished_at < ?"
            " AND job_id IN (SELECT id FROM jobs WHERE interval IS NOT NULL)",
            (before,),
        )
        connection.execute("DELETE FROM hosts WHERE waiting = 0 AND free_at < ?", (before,))
        return forgotten

    def clear(self) -> int:
        """Forget every job; the number of them."""

        def work(connection: sqlite3.Connection, _: StateCounters) -> int:
            connection.execute("DELETE FROM attempts")
            connection.execute("DELETE FROM hosts")
            connection.execute("DELETE FROM plugin_state")
            connection.execute("DELETE FROM counters WHERE kind IN ('completed', 'failed')")
            connection.execute(
                "UPDATE counters SET jobs = (SELECT last FROM ids) WHERE kind = 'id'"
            )
            connection.execute("UPDATE counters SET jobs = 0, roots = 0 WHERE kind = 'state'")
            return connection.execute("DELETE FROM jobs").rowcount

        return self._write(work)  # type: ignore[no-any-return]

    # Deaths -------------------------------------------------------------------------------------

    def rescue_jobs(self, worker_id: int, decide: Any) -> list[int]:
        """Take a dead worker out, and its jobs back.

        Args:
            worker_id: a worker whose death is proven.
            decide: ``(row, only) -> Ending`` for each job that it was running; ``only`` tells
                that nothing else ran in that process.

        Returns:
            The jobs that moved.
        """

        def work(connection: sqlite3.Connection, counters: StateCounters) -> list[int]:
            rows = connection.execute(HELD_BY, (worker_id,)).fetchall()
            for row in rows:
                ending = decide(dict(row), len(rows) == 1)
                self._end(connection, counters, claim_of(row), ending)
            connection.execute("DELETE FROM workers WHERE id = ?", (worker_id,))
            return [row["id"] for row in rows]

        return self._write(work)  # type: ignore[no-any-return]

    def release(self, worker: Worker, but: Collection[int] = ()) -> None:
        """Give back what a living worker holds, but for some jobs."""

        def work(connection: sqlite3.Connection, counters: StateCounters) -> None:
            held = connection.execute(HELD_BY, (worker.id,))
            for row in held.fetchall():
                if row["id"] not in but:
                    self._end(connection, counters, claim_of(row), Outcome("released", "queued"))

        self._write(work)

    def leave(self, worker: Worker) -> None:
        """Take a worker that ends in good order out; nothing may be left with it."""
        self.rescue_jobs(worker.id, lambda row, only: Outcome("released", "queued"))
