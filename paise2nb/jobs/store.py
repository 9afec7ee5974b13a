"""The job store: the one place that knows the state of every job."""

import json
import sqlite3
import time
from collections import Counter
from collections.abc import Callable, Collection, Sequence, Set
from contextlib import suppress
from itertools import groupby
from operator import itemgetter
from typing import Any

from paise2nb.core.space import PAUSE
from paise2nb.jobs.batch import ExecutionKey, batch_path, execution_key, read_batch
from paise2nb.jobs.database import Transaction, transaction
from paise2nb.jobs.history import execution
from paise2nb.jobs.host_limits import WAITING
from paise2nb.jobs.leases import LeaseMixin
from paise2nb.jobs.models import Claim, Decide, Outcome, Worker, claim_of
from paise2nb.jobs.queries import CACHE_KEY
from paise2nb.jobs.retry import released
from paise2nb.jobs.sql import SQL
from paise2nb.jobs.worker_registry import WorkerRegistry

NOT_CACHED = "not_cached"  # the error class of a part if its input is no longer in the cache
TREES_AT_ONCE = 300  # that are looked for together when jobs are pruned
PRUNED_AT_ONCE = 1000  # jobs in one transaction: other processes that write wait meanwhile
CANCELLED_RUN = "the cancelled run to stop"  # what a retried job waits for


class JobStore(LeaseMixin, WorkerRegistry):
    """The state of every job. See `JobDatabase` for the arguments.

    Attributes:
        is_remote: Whether it is at home, and this process on another machine.
    """

    is_remote = False

    def begin(self, claim: Claim) -> None:
        """Note that this thread runs an execution, where the job store is remote."""

    @transaction
    def retry(
        self,
        tx: Transaction,
        ids: Collection[int],
        is_cached: Callable[[str], bool] = lambda key: True,
    ) -> list[int]:
        """Queue failed, cancelled, retrying and scheduled jobs, with all their attempts.

        A page with a completed fetch stands for its extract or store. If the cached bytes that
        this part needs are gone, the page is fetched again.

        Args:
            ids: The jobs.
            is_cached: Whether the cache has the bytes of a key.

        Returns:
            For each job or page that was queued its id, or that of an unfinished twin. If the
            cancelled run of a job has not stopped yet, the job may start when it has.
        """
        parts = tx.execute(SQL["parts_to_retry"], (json.dumps(list(ids)),)).fetchall()
        pages = {row["id"]: row["page_id"] for row in parts}
        superseded = {
            row["id"]
            for row in parts
            # The first key in its arguments is that of its input.
            if row["error_class"] == NOT_CACHED
            or not all(map(is_cached, CACHE_KEY.findall(str(row["args"]))[:1]))
        }
        parameters = {
            "ids": json.dumps(list({*ids, *pages} - superseded)),
            "again": json.dumps([pages[part] for part in superseded]),
        }
        rows = tx.execute(SQL["retryable"], parameters).fetchall()
        answers: list[int] = []
        queued: list[sqlite3.Row] = []
        by_key: dict[int, int] = {}  # twins may be among the jobs themselves
        for row in rows:
            twin = row["twin"] or by_key.get(row["key"])
            if twin is None:
                tx.counters.move(row["state"], "queued", row["parent_id"] is None, row["page_id"])
                queued.append(row)
                if row["key"] is not None:
                    by_key[row["key"]] = row["id"]
            answers.append(twin or pages.get(row["id"], row["id"]))
        ids_to_queue = json.dumps([row["id"] for row in queued])
        tx.execute(SQL["record_completed"], (ids_to_queue,))
        values = {"ids": ids_to_queue, "waiting_for": CANCELLED_RUN, "now": self.now()}
        tx.execute(SQL["retry"], values)
        for row in queued:
            if row["host"] is not None and not row["host_slot"] and not row["worker"]:
                tx.host_limits.requeue(row["id"], row["host"])
        return answers

    @transaction
    def cancel(self, tx: Transaction, ids: Collection[int]) -> list[int]:
        """Cancel unfinished jobs and all their descendants.

        A running job keeps its worker until the worker leaves it.

        Returns:
            The ids of the cancelled jobs.
        """
        now = self.now()
        rows = tx.execute(SQL["cancellable"], {"ids": json.dumps(list(ids))}).fetchall()
        for row in rows:
            is_root = row["parent_id"] is None
            tx.counters.move(row["state"], "cancelled", is_root, row["page_id"])
            if row["state"] == "running":
                claim, outcome = claim_of(row), Outcome("cancelled", "cancelled")
                self._record_attempt(tx, claim, outcome, now)
                tx.ended.append(execution(claim, outcome, now))
        tx.executemany(SQL["cancel"], [(now, row["id"]) for row in rows])
        released = [row for row in rows if row["host_slot"] and row["worker"] is None]
        waited = Counter(row["host"] for row in released if row["host_slot"] == WAITING)
        for host in {row["host"] for row in released}:
            tx.host_limits.release(host, waited=waited[host])
        return [row["id"] for row in rows]

    @transaction
    def progress(self, tx: Transaction, claim: Claim, done: float, total: float | None) -> bool:
        """Store the progress of an execution; False if it no longer has the job."""
        progress = json.dumps([done, total])
        return bool(tx.execute(SQL["progress"], (progress, claim.id, claim.run)).rowcount)

    def progress_of(self, token: str, done: float, total: float | None) -> None:
        """Store the progress of an execution, if it still has its job."""
        for _, *claim in self._read(SQL["leased_jobs"], (json.dumps([token]),)):
            self.progress(Claim(*claim), done, total)

    def prune(self, before: float) -> int:
        """Delete jobs that finished before a time, with their attempts; roll the history up.

        A tree is deleted when all of it has finished.

        Args:
            before: seconds since the epoch.

        Returns:
            The number of jobs.
        """
        roots = self._column(SQL["old_roots"], (before,))
        deleted = 0
        for start in range(0, len(roots), TREES_AT_ONCE):
            deleted += self._prune_trees(roots[start : start + TREES_AT_ONCE], before)
        self.roll_up()
        return deleted + self._prune_rest(before)

    def _prune_trees(self, roots: list[int], before: float) -> int:
        """Delete trees in portions, except what remains of them when a job is retried meanwhile."""
        parameters = {"ids": json.dumps(roots), "before": before}
        portions: list[list[int]] = [[]]
        for _, unit in groupby(self._read(SQL["old_trees"], parameters), itemgetter("unit")):
            if len(portions[-1]) >= PRUNED_AT_ONCE:
                portions.append([])
            portions[-1] += [row["id"] for row in unit]
        deleted = 0
        for portion in portions:
            if not (number := self._prune_jobs(portion, before)):
                break
            deleted += number
            time.sleep(PAUSE)
        return deleted

    @transaction
    def _prune_jobs(self, tx: Transaction, ids: list[int], before: float) -> int:
        parameters = {"ids": json.dumps(ids), "before": before}
        return self._delete(tx, tx.execute(SQL["old_jobs"], parameters).fetchall())

    @transaction
    def _prune_rest(self, tx: Transaction, before: float) -> int:
        deleted = 0
        while old := tx.execute(SQL["old_leaves"], (before,)).fetchall():
            deleted += self._delete(tx, old)
        tx.execute(SQL["prune_recurring_attempts"], (before,))
        tx.execute("DELETE FROM hosts WHERE waiting = 0 AND free_at < ?", (before,))
        return deleted

    @staticmethod
    def _delete(tx: Transaction, jobs: list[sqlite3.Row]) -> int:
        last, counted, _ = tx.ids()
        tx.counters.count_late(last - counted, tx.late_pages(counted))
        for row in jobs:
            tx.counters.count("state", row["state"], -1, row["parent_id"] is None)
            tx.counters.count("page", row["page_state"], -1)
            if row["page_id"] is not None:
                tx.counters.count("part", row["state"], -1)
        tx.counters.pages.update(row["page_id"] for row in jobs if row["page_id"])
        deleted = [row["id"] for row in jobs]
        JobStore._forget_crawls(tx, deleted)
        ids = json.dumps(deleted)
        tx.execute(SQL["delete_attempts"], (ids,))
        return tx.execute(SQL["delete_jobs"], (ids,)).rowcount

    @transaction
    def clear(self, tx: Transaction) -> int:
        """Delete every job; returns the number of jobs."""
        for table in ("attempts", "crawls", "history", "hosts", "leases", "plugin_state"):
            tx.execute(f"DELETE FROM {table}")
        tx.execute("UPDATE counters SET jobs = (SELECT last FROM ids) WHERE kind = 'id'")
        tx.execute(
            "UPDATE counters SET jobs = 0, roots = 0 WHERE kind IN ('state', 'page', 'part')"
        )
        tx.execute("DELETE FROM counters WHERE kind = 'crawl'")
        return tx.execute("DELETE FROM jobs").rowcount

    # Jobs of workers that have ended ---------------------------------------------------------

    def rescue_jobs(self, worker_id: int, decide: Decide) -> list[int]:
        """Delete the row of a dead worker, and end the executions of its jobs.

        Args:
            worker_id: a worker that is known to be dead.
            decide: gives the outcome of each job that it ran.

        Returns:
            The ids of the jobs that it had not completed.
        """
        ids = self._rescue_jobs(worker_id, decide)
        with suppress(OSError):  # it tells nothing any more
            batch_path(self.path, worker_id).unlink()
        return ids

    @transaction
    def _rescue_jobs(self, tx: Transaction, worker_id: int, decide: Decide) -> list[int]:
        waiting, rows = self._settle(tx, worker_id)
        for row in rows:
            self._end(tx, claim_of(row), decide(dict(row), len(rows) == 1))
        tx.execute("DELETE FROM workers WHERE id = ?", (worker_id,))
        return [row["id"] for row in (*rows, *waiting)]

    @transaction
    def settle(self, tx: Transaction, worker_id: int, executions: Set[ExecutionKey]) -> None:
        """End some executions of a worker: those that have completed, and those that wait in it.

        The jobs that wait are queued again, so that another worker runs them.
        """
        self._settle(tx, worker_id, executions)

    def _settle(
        self, tx: Transaction, worker_id: int, executions: Set[ExecutionKey] | None = None
    ) -> tuple[list[sqlite3.Row], list[sqlite3.Row]]:
        """Do that, by default with all executions of a worker.

        Returns:
            The rows of the jobs that waited, and of the worker's other jobs.
        """
        rows = tx.execute(SQL["claimed_by"], (worker_id,)).fetchall()
        progress = read_batch(self.path, worker_id)
        keys = progress.waiting([*map(execution_key, rows)])
        waiting, rest = list[sqlite3.Row](), list[sqlite3.Row]()
        for row in rows:
            key = execution_key(row)
            if executions is not None and key not in executions:
                rest.append(row)
            elif result := progress.completed.get(key):
                self._end(tx, claim_of(row), Outcome("completed", "completed", result))
            elif key in keys:
                self._end(tx, claim_of(row), Outcome("released", "queued"))
                waiting.append(row)
            else:
                rest.append(row)
        return waiting, rest

    def begun(self, worker_id: int, jobs: Sequence[dict[str, Any]]) -> list[dict[str, Any]]:
        """Return those of a worker's jobs that it runs; the others wait in it or have completed."""
        if len(jobs) < 2:
            return [*jobs]
        progress = read_batch(self.path, worker_id)
        others = progress.completed.keys() | progress.waiting([*map(execution_key, jobs)])
        return [job for job in jobs if execution_key(job) not in others]

    @transaction
    def release(self, tx: Transaction, worker: Worker, but: Collection[int] = ()) -> None:
        """Queue the jobs of a living worker again, except some."""
        for row in tx.execute(SQL["claimed_by"], (worker.id,)).fetchall():
            if row["id"] not in but:
                self._end(tx, claim_of(row), Outcome("released", "queued"))

    def forget_workers(self) -> None:
        """Delete the rows of all processes, and queue their jobs again; for a copy of a job store.

        Other job stores may not be used in this way: the processes may run.
        """
        for worker_id in {row["worker"] for row in self.claimed()}:
            self.rescue_jobs(worker_id, released)
        for table in ("leases", "machines", "workers", "supervisor"):
            self.database.write(sqlite3.Connection.execute, f"DELETE FROM {table}")
        self.collection(new=True)

    def leave(self, worker: Worker) -> None:
        """Delete the row of a worker that exits, and queue its jobs again."""
        self.rescue_jobs(worker.id, released)
