"""From claim to end: each one guarded transaction, an end and the next claim together one.

A row carries ``ready`` (1: may be claimed now) beside its state, so that claims read one small
index whatever else the table holds; ``run`` counts executions and is the fencing token of a
claim: an outcome is only accepted from the execution that the row still names.
"""

from __future__ import annotations

import json
import sqlite3
from collections.abc import Iterable, Sequence
from functools import cache

from paise2nb.jobs.database import TREES
from paise2nb.jobs.enqueue import EnqueueMixin
from paise2nb.jobs.host_limits import BACK_TO_WAITING, HAS_SLOT, WAITING, HostDelay
from paise2nb.jobs.models import UNFINISHED, Claim, Limits, Outcome, StateCounters, Worker

IN_TREE = (
    TREES + "SELECT id, task, state, parent_id, host FROM jobs WHERE id IN (SELECT id FROM tree)"
    " AND {} = 1 ORDER BY priority DESC, id LIMIT 1"
)
# Turns that are held by jobs of other tasks, and in whose lines jobs of these stand.
UNUSED_SLOTS = (
    "SELECT host, (SELECT id FROM jobs AS line INDEXED BY jobs_waiting_for_host WHERE host_slot = 1"
    " AND line.host = holder.host AND task IN (SELECT value FROM json_each(?1))"
    " ORDER BY priority DESC, id LIMIT 1) AS following"
    " FROM jobs AS holder INDEXED BY jobs_host_slots JOIN hosts USING (host) WHERE host_slot = 2"
    " AND ready = 1 AND task NOT IN (SELECT value FROM json_each(?1))"
    " AND waiting > 0 AND free_at < ?2 AND following IS NOT NULL GROUP BY host LIMIT ?3"
)
UNUSED_SECONDS = 1.0  # from when a host may be asked until another pool takes the turn
PROMOTED_AT_ONCE = 1000  # due rows made ready by one claim: bounds its time
# One index seek for each task. Not one query with a part for each: its many small sorters cost
# thirty times as much. With it whether rows are due that have to be made ready first.
NEXT = (
    "SELECT (SELECT 1 FROM jobs WHERE ready = 0 AND run_at <= ? LIMIT 1) AS due, found.*"
    " FROM (SELECT 1) LEFT JOIN (SELECT jobs.id, jobs.task, state, parent_id, host"
    " FROM json_each(?) AS tasks JOIN json_each(?) AS kinds JOIN jobs ON jobs.id = ("
    "SELECT id FROM jobs INDEXED BY jobs_active WHERE ready = 1 AND task = tasks.value"
    " AND isolated = kinds.value ORDER BY priority DESC, id LIMIT 1)"
    " ORDER BY priority DESC, root_id, jobs.id LIMIT 1) AS found"
)


@cache
def _listed(tasks: tuple[str, ...]) -> str:
    return json.dumps(tasks)


class ExecutionMixin(EnqueueMixin):
    """The moves of an execution."""

    def claimable(self, tasks: Sequence[str]) -> bool:
        """Whether a claim of these tasks may find something; takes no lock."""
        marks = ",".join("?" * len(tasks))
        return bool(
            self._read(
                f"SELECT 1 FROM jobs WHERE ready = 1 AND task IN ({marks})"
                " UNION ALL SELECT 1 FROM jobs WHERE ready = 0 AND run_at <= ? LIMIT 1",
                (*tasks, self.now()),
            )
        )

    def take_unused_slots(self, tasks: Sequence[str]) -> bool:
        """Give these tasks' jobs the turns that nobody takes: the workers that run the holders'
        tasks are busy, or there are none. Whether there were any; takes no lock where not."""
        sought = json.dumps(tasks), self.now() - UNUSED_SECONDS, PROMOTED_AT_ONCE

        def work(connection: sqlite3.Connection, counters: StateCounters) -> bool:
            untaken = connection.execute(UNUSED_SLOTS, sought).fetchall()
            taken = [counters.host_limits.preempt(row["following"], row["host"]) for row in untaken]
            return any(taken)

        return bool(self._read(UNUSED_SLOTS, sought)) and self._write(work)

    def claim(
        self, worker: Worker, limits: dict[str, Limits], *, tree: int | None = None
    ) -> Claim | None:
        """Take the next job: highest priority first, then oldest; of those of different tasks the
        one whose root is oldest, so that what was begun is brought to its end.

        Args:
            worker: who takes it; one with a single thread also takes jobs that must run alone,
                one that has been declared dead takes nothing.
            limits: the tasks to choose from, each with the limits of one execution.
            tree: only from the tree under that job.
        """
        return self._write(self._claim, worker, limits, tree)  # type: ignore[no-any-return]

    def _claim(
        self,
        connection: sqlite3.Connection,
        counters: StateCounters,
        worker: Worker,
        limits: dict[str, Limits],
        tree: int | None = None,
    ) -> Claim | None:
        now = self.now()
        while (found := self._next(connection, counters, worker, limits, tree, now)) is not None:
            if not counters.host_limits.is_crowded(found["host"]):
                break
            connection.execute(BACK_TO_WAITING, (found["id"],))
            counters.host_limits.release(found["host"], waited=-1)
        if found is None:
            return None
        limit = limits.get(found["task"], Limits(None, None))
        row = connection.execute(
            "UPDATE jobs SET state = 'running', ready = 0, run_at = NULL, waiting_for = NULL,"
            " pool = ?, worker = ?, worker_pid = ?, started_at = ?, finished_at = NULL,"
            " progress = NULL,"
            " attempt = max(attempt, 0) + 1, run = run + 1, timeout = ?, memory_mb = ?,"
            # Numbers, whatever a damaged row holds: its end will be counted with them. More
            # crashes than attempts would make its retries come without any delay.
            " crashes = min(max(crashes + 0, 0), max(attempt + 0, 0)),"
            " max_attempts = max_attempts + 0,"
            " interval = max(interval + 0, 1)"
            " WHERE id = ? AND EXISTS (SELECT 1 FROM workers WHERE workers.id = ?)"
            " RETURNING id, task, args, run, attempt, crashes, max_attempts, tag,"
            " priority, parent_id, root_id, interval, started_at, worker, worker_pid, host, resume",
            (
                worker.pool, worker.id, worker.pid, now, limit.timeout, limit.memory_mb,
                found["id"], worker.id,
            ),
        ).fetchone()  # fmt: skip
        if row is None:
            return None
        counters.move(found["state"], "running", found["parent_id"] is None)
        return Claim(*row)

    @staticmethod
    def _promote(connection: sqlite3.Connection, counters: StateCounters, now: float) -> None:
        """Make due rows ready, unless their host's turn has yet to come."""
        due = connection.execute(
            "SELECT id, host, host_slot FROM jobs WHERE ready = 0 AND run_at <= ?"
            " ORDER BY run_at LIMIT ?",
            (now, PROMOTED_AT_ONCE),
        ).fetchall()
        free = [row["id"] for row in due if row["host"] is None or row["host_slot"] == HAS_SLOT]
        if free:
            connection.execute(
                "UPDATE jobs SET ready = 1, run_at = iif(host_slot = 0, run_at, NULL)"
                " WHERE id IN (SELECT value FROM json_each(?))",
                (json.dumps(free),),
            )
        for row in due:
            if row["host"] is not None and row["host_slot"] != HAS_SLOT:
                counters.host_limits.requeue(row["id"], row["host"])

    def _next(
        self,
        connection: sqlite3.Connection,
        counters: StateCounters,
        worker: Worker,
        limits: dict[str, Limits],
        tree: int | None,
        now: float,
    ) -> sqlite3.Row | None:
        found: sqlite3.Row | None
        if tree is None:
            query = now, _listed(tuple(limits)), "[0, 1]" if worker.lone else "[0]"
            row = connection.execute(NEXT, query).fetchone()  # one, whatever there is
            if row["due"]:
                self._promote(connection, counters, now)
                row = connection.execute(NEXT, query).fetchone()
            return None if row["id"] is None else row
        self._promote(connection, counters, now)
        sought = IN_TREE.format("ready"), (f"[{tree}]",)
        found = connection.execute(*sought).fetchone()
        if found is None:  # jobs of other trees may hold the turn, and nobody who runs them
            in_line = connection.execute(IN_TREE.format("host_slot"), (f"[{tree}]",)).fetchone()
            if in_line is not None and counters.host_limits.preempt(in_line["id"], in_line["host"]):
                found = connection.execute(*sought).fetchone()
        return found

    def end(
        self,
        claim: Claim,
        ending: Outcome,
        worker: Worker | None = None,
        limits: dict[str, Limits] | None = None,
    ) -> tuple[bool, Claim | None]:
        """Write how an execution ended, with its follow-ups; claim the next job in the same
        transaction if a worker and its limits are given.

        Returns:
            Whether the outcome was accepted (it is refused when the job has been cancelled, or
            given to another worker, meanwhile), and the next claim.
        """

        def work(
            connection: sqlite3.Connection, counters: StateCounters
        ) -> tuple[bool, Claim | None]:
            accepted = self._end(connection, counters, claim, ending)
            next_claim = None
            if worker is not None and limits:
                next_claim = self._claim(connection, counters, worker, limits)
            return accepted, next_claim

        return self._write(work)  # type: ignore[no-any-return]

    def _end(
        self, connection: sqlite3.Connection, counters: StateCounters, claim: Claim, ending: Outcome
    ) -> bool:
        now = self.now()
        if ending.kept:
            ending = self._keep(connection, claim, ending)
        state, run_at = ending.state, None
        if state == "retrying":
            run_at = now + (ending.retry_in or 0)
        snoozed = ending.outcome == "snoozed"
        charged = ending.outcome != "released" and not snoozed
        crashed = ending.outcome in ("crashed", "timeout", "memory")
        unfinished = state in UNFINISHED
        again = state == "queued" and charged
        changed = connection.execute(
            "UPDATE jobs SET state = ?, ready = ?, run_at = ?, worker = NULL, host_slot = 0,"
            " host = coalesce(?, host), resume = ?, run = run - ?, isolated = max(isolated, ?),"
            " attempt = ?, crashes = ?, max_attempts = coalesce(?, max_attempts),"
            " finished_at = ?, error_class = ?, error = ?, result = ?"
            # A snoozed execution gives its run number back, so the time tells it from the next one.
            " WHERE id = ? AND run = ? AND started_at IS ? AND state = 'running'"
            " RETURNING interval",
            (
                state, state == "queued", run_at, ending.host, ending.resume, snoozed,
                ending.isolated,
                0 if again else claim.attempt - (not charged),
                0 if again else claim.crashes + crashed,
                ending.max_attempts, None if unfinished else now,
                ending.error_class, ending.error, ending.result,
                claim.id, claim.run, claim.started_at,
            ),
        ).fetchone()  # fmt: skip
        if changed is None:
            let_go = connection.execute(
                "UPDATE jobs SET worker = NULL, ready = state = 'queued', waiting_for = NULL,"
                " host_slot = 0 WHERE id = ? AND run = ? AND started_at IS ? AND worker = ?"
                " RETURNING state",
                (claim.id, claim.run, claim.started_at, claim.worker),
            ).fetchone()
            if let_go is not None:
                self._release_slot(counters, claim, ending.host_delays, let_go["state"], claim.host)
            return False
        # By its row: it may have been asked to recur, or at another interval, meanwhile.
        if changed["interval"] and state in ("completed", "failed"):
            state = "scheduled"
            connection.execute(
                # A time in the future, whatever number of runs was missed.
                "UPDATE jobs SET state = 'scheduled', run_at = ? + interval, attempt = 0,"
                " crashes = 0, finished_at = NULL WHERE id = ?",
                (now, claim.id),
            )
        counters.move("running", state, claim.parent_id is None)
        self._release_slot(counters, claim, ending.host_delays, state, ending.host or claim.host)
        if state != "completed" and not snoozed:
            self._record(connection, claim, ending, now)
        if ending.state in ("completed", "failed"):
            counters.count(ending.state, int(now // 60), 1)
        if ending.followups:
            last, counted = connection.execute("SELECT last, counted FROM ids").fetchone()
            jobs = list(enumerate(ending.followups, last + 1))
            self._insert(connection, counters, jobs, counted, claim)
        return True

    @staticmethod
    def _keep(connection: sqlite3.Connection, claim: Claim, ending: Outcome) -> Outcome:
        """Write what an execution leaves in its plugin's state, if the job is still its own.

        Where another one has changed what it has read, it goes back: its ending, then.
        """
        if not connection.execute(
            "SELECT 1 FROM jobs WHERE id = ? AND run = ? AND state = 'running'",
            (claim.id, claim.run),
        ).fetchone():
            return ending
        for plugin, key, _, version, _ in ending.kept:
            row = connection.execute(
                "SELECT version FROM plugin_state WHERE plugin = ? AND key = ?", (plugin, key)
            ).fetchone()
            if version is not None and version != (row["version"] if row else 0):
                what = f"another job has changed the state {key!r} of {plugin} meanwhile"
                return Outcome("released", "queued", error_class="state", error=what)
        connection.executemany(
            "INSERT INTO plugin_state VALUES (?, ?, ?, 1) ON CONFLICT DO UPDATE"
            " SET value = excluded.value, version = version + 1",
            [(plugin, key, value) for plugin, key, value, _, written in ending.kept if written],
        )
        return ending

    @staticmethod
    def _release_slot(
        counters: StateCounters,
        claim: Claim,
        host_delays: Iterable[HostDelay],
        state: str,
        host: str | None,
    ) -> None:
        """Give on the turn of an execution that has ended; stand in the row's line for the next."""
        counters.host_limits.record(host_delays)
        if claim.host is not None:
            counters.host_limits.release(claim.host, host_delays=True)
        if host is not None and state == "queued":
            counters.host_limits.requeue(claim.id, host)

    @staticmethod
    def _record(
        connection: sqlite3.Connection, claim: Claim, ending: Outcome, finished_at: float
    ) -> None:
        connection.execute(
            "INSERT OR IGNORE INTO attempts VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?)",
            (
                claim.id, claim.run, claim.started_at, finished_at, claim.worker_pid,
                ending.outcome, ending.error_class, ending.error, ending.traceback,
                ending.retry_in,
            ),
        )  # fmt: skip

    def refund(self, claims: Iterable[Claim]) -> list[Claim]:
        """Take back that these executions were charged: their failures were not the jobs' fault.

        Returns:
            Those whose failure has not been written yet.
        """

        def work(connection: sqlite3.Connection, counters: StateCounters) -> list[Claim]:
            unwritten = []
            for claim in claims:
                token = (claim.id, claim.run)
                failed = connection.execute(
                    "UPDATE attempts SET outcome = 'released', retry_in = NULL"
                    " WHERE job_id = ? AND run = ? AND outcome = 'failed'",
                    token,
                ).rowcount
                row = connection.execute(
                    "SELECT state, host, host_slot FROM jobs WHERE id = ? AND run = ?", token
                ).fetchone()
                if not failed and row is not None and row["state"] == "running":
                    unwritten.append(claim)
                elif failed and row is not None and row["state"] in ("retrying", "failed"):
                    counters.move(row["state"], "queued", claim.parent_id is None)
                    connection.execute(
                        "UPDATE jobs SET state = 'queued', ready = 1, run_at = NULL,"
                        " finished_at = NULL, attempt = attempt - 1, host_slot = 0 WHERE id = ?",
                        (claim.id,),
                    )
                    if row["host"] is not None:
                        counters.host_limits.release(
                            row["host"], waited=row["host_slot"] == WAITING
                        )
                        counters.host_limits.requeue(claim.id, row["host"])
            return unwritten

        return self._write(work)  # type: ignore[no-any-return]
