"""The moves of a job between its states: each one guarded transaction.

A row carries ``ready`` (1: may be claimed now) beside its state, so that claims read one small
index whatever else the table holds; ``number`` counts executions and is the fencing token of a
claim: an outcome is only accepted from the execution that the row still names.
"""

from __future__ import annotations

import json
import sqlite3
from collections import Counter
from collections.abc import Collection, Iterable, Sequence
from typing import Any

from paise2nb.jobs.base import TREES
from paise2nb.jobs.reading import Reading
from paise2nb.jobs.roster import Roster
from paise2nb.jobs.rows import (
    UNFINISHED,
    Claim,
    Ending,
    Limits,
    Moves,
    NewJob,
    Worker,
    claim_of,
    next_job,
    value_of,
)
from paise2nb.jobs.turns import BACK_IN_LINE, HAS_TURN, IN_LINE, NOWHERE, Place

_SOME_ALONE = (
    "SELECT 1 FROM jobs INDEXED BY jobs_alone WHERE alone = 1 AND finished_at IS NULL LIMIT 1"
)
IN_TREE = (
    TREES + "SELECT id, task, state, parent_id, host FROM jobs WHERE id IN (SELECT id FROM tree)"
    " AND {} = 1 ORDER BY priority DESC, id LIMIT 1"
)
PROMOTED_AT_ONCE = 1000  # due rows made ready by one claim: bounds its time
LIVES = "SELECT 1 FROM workers WHERE id = ?"
# What is old enough to be forgotten. A recurring job never finishes: below it what is old goes leaf
# by leaf.
WHOLE_TREES = (
    "root_id NOT IN (SELECT root_id FROM jobs"
    " WHERE finished_at IS NULL OR finished_at >= ? OR worker IS NOT NULL)"
)
OLD_LEAVES = (
    "parent_id IS NOT NULL AND finished_at < ? AND worker IS NULL"
    " AND root_id IN (SELECT id FROM jobs WHERE every IS NOT NULL)"
    " AND NOT EXISTS (SELECT 1 FROM jobs AS child WHERE child.parent_id = jobs.id)"
)
HELD = "its cancelled run to end"  # what a retried job waits for


class JobTable(Reading, Roster):
    """The one place that knows what is true about a job. See `Table` for how it opens."""

    # Adding ----------------------------------------------------------------------------------

    def add(
        self, jobs: Sequence[NewJob], is_fresh: Any = None, *, force: bool = False
    ) -> list[tuple[int, str]]:
        """Add jobs of a user or a source in one transaction; duplicates are answered, not added.

        Args:
            jobs: in the order of the answer.
            is_fresh: ``(index, result, age in seconds) -> bool``, asked for a completed twin.
            force: add even where a completed twin is fresh.

        Returns:
            For each job its id and ``new``, ``waiting`` (an unfinished twin) or ``fresh``.
        """
        return self._write(self._add, jobs, is_fresh, force)  # type: ignore[no-any-return]

    def _add(
        self,
        connection: sqlite3.Connection,
        moves: Moves,
        jobs: Sequence[NewJob],
        is_fresh: Any,
        force: bool,
    ) -> list[tuple[int, str]]:
        answers: list[tuple[int, str]] = []
        added: list[tuple[int, NewJob]] = []
        new_ids: dict[int | None, int] = {}  # duplicates within this very call
        last = connection.execute("SELECT jobs FROM tally WHERE kind = 'id'").fetchone()[0]
        for index, job in enumerate(jobs):
            if (twin := new_ids.get(job.key)) is not None and job.key is not None:
                answers.append((twin, "waiting"))
                continue
            answer = self._twin(connection, index, job, is_fresh, force)
            if answer is None:
                last += 1
                answer = (last, "new")
                added.append((last, job))
                new_ids[job.key] = last
            answers.append(answer)
        self._insert(connection, moves, added, None)
        return answers

    def _twin(
        self, connection: sqlite3.Connection, index: int, job: NewJob, is_fresh: Any, force: bool
    ) -> tuple[int, str] | None:
        if job.key is None:
            return None
        rows = connection.execute(
            "SELECT id, task, state, result, finished_at FROM jobs WHERE key = ? ORDER BY id DESC",
            (job.key,),
        )
        latest = None
        for row in rows:
            if row["state"] in UNFINISHED:
                return row["id"], "waiting"
            if latest is None and row["state"] == "completed":
                latest = row
        if latest is None or force or is_fresh is None:
            return None
        result = value_of(latest["result"])
        age = self.now() - latest["finished_at"]
        return (latest["id"], "fresh") if is_fresh(index, result, age) else None

    def _insert(
        self,
        connection: sqlite3.Connection,
        moves: Moves,
        jobs: Sequence[tuple[int, NewJob]],
        parent: Claim | None,
    ) -> None:
        if not jobs:
            return
        now = self.now()
        rows = []
        for job_id, job in jobs:
            state = "scheduled" if job.delay else "queued"
            moves.add(state, 1, parent is None)
            due = Place(NOWHERE, 0, now + job.delay) if job.delay else moves.turns.enter(job.host)
            rows.append((
                job_id, job.task, job.args, job.key, state, job.host, *due, job.every,
                job.priority, job.tag,
                parent and parent.id, parent.root_id if parent else job_id,
                job.max_attempts, now,
            ))  # fmt: skip
        connection.executemany(
            "INSERT INTO jobs (id, task, args, key, state, host, place, ready, run_at, every,"
            " priority, tag, parent_id, root_id, max_attempts, enqueued_at)"
            " VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)",
            rows,
        )
        connection.execute("UPDATE tally SET jobs = ? WHERE kind = 'id'", (jobs[-1][0],))

    # Claiming and ending ---------------------------------------------------------------------

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

    def claim(
        self, worker: Worker, limits: dict[str, Limits], *, tree: int | None = None
    ) -> Claim | None:
        """Take the next job: highest priority first, then oldest.

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
        moves: Moves,
        worker: Worker,
        limits: dict[str, Limits],
        tree: int | None = None,
    ) -> Claim | None:
        if not limits or not connection.execute(LIVES, (worker.id,)).fetchone():
            return None
        now = self.now()
        self._promote(connection, moves, now)
        while (found := self._next(connection, moves, worker, limits, tree)) is not None:
            if not moves.turns.is_crowded(found["host"]):
                break
            connection.execute(BACK_IN_LINE, (found["id"],))
            moves.turns.leave(found["host"], waited=-1)
        if found is None:
            return None
        limit = limits.get(found["task"], Limits(None, None))
        moves.move(found["state"], "running", found["parent_id"] is None)
        row = connection.execute(
            "UPDATE jobs SET state = 'running', ready = 0, run_at = NULL, waiting_for = NULL,"
            " pool = ?, worker = ?, worker_pid = ?, started_at = ?, finished_at = NULL,"
            " progress = NULL,"
            " attempt = max(attempt, 0) + 1, number = number + 1, timeout = ?, memory_mb = ?,"
            # Numbers, whatever a damaged row holds: its end will be counted with them.
            " crashes = max(crashes + 0, 0), max_attempts = max_attempts + 0,"
            " every = max(every + 0, 1)"
            " WHERE id = ? RETURNING id, task, args, number, attempt, crashes, max_attempts, tag,"
            " priority, parent_id, root_id, every, started_at, worker, worker_pid, host, resume",
            (worker.pool, worker.id, worker.pid, now, limit.timeout, limit.memory_mb, found["id"]),
        ).fetchone()
        return Claim(*row)

    @staticmethod
    def _promote(connection: sqlite3.Connection, moves: Moves, now: float) -> None:
        """Make due rows ready, unless their host's turn has yet to come."""
        due = connection.execute(
            "SELECT id, host, place FROM jobs WHERE ready = 0 AND run_at <= ?"
            " ORDER BY run_at LIMIT ?",
            (now, PROMOTED_AT_ONCE),
        ).fetchall()
        free = [row["id"] for row in due if row["host"] is None or row["place"] == HAS_TURN]
        if free:
            connection.execute(
                "UPDATE jobs SET ready = 1, run_at = iif(place = 0, run_at, NULL)"
                " WHERE id IN (SELECT value FROM json_each(?))",
                (json.dumps(free),),
            )
        for row in due:
            if row["host"] is not None and row["place"] != HAS_TURN:
                moves.turns.stand(row["id"], row["host"])

    @staticmethod
    def _next(
        connection: sqlite3.Connection,
        moves: Moves,
        worker: Worker,
        limits: dict[str, Limits],
        tree: int | None,
    ) -> sqlite3.Row | None:
        if tree is None:
            # Jobs that must run alone are rare, and twice the seeks cost ten times as much.
            alone = worker.lone and connection.execute(_SOME_ALONE).fetchone() is not None
            return connection.execute(*next_job(tuple(limits), alone)).fetchone()  # type: ignore[no-any-return]
        found: sqlite3.Row | None = connection.execute(
            IN_TREE.format("ready"), (f"[{tree}]",)
        ).fetchone()
        if found is None:  # jobs of other trees may hold the turn, and nobody who runs them
            in_line = connection.execute(IN_TREE.format("place"), (f"[{tree}]",)).fetchone()
            if in_line is not None and moves.turns.cut_in(in_line["id"], in_line["host"]):
                found = connection.execute(IN_TREE.format("ready"), (f"[{tree}]",)).fetchone()
        return found

    def end(
        self,
        claim: Claim,
        ending: Ending,
        worker: Worker | None = None,
        limits: dict[str, Limits] | None = None,
    ) -> tuple[bool, Claim | None]:
        """Write how an execution ended, with its follow-ups; claim the next job in the same
        transaction if a worker and its limits are given.

        Returns:
            Whether the outcome was accepted (it is refused when the job has been cancelled, or
            given to another worker, meanwhile), and the next claim.
        """

        def work(connection: sqlite3.Connection, moves: Moves) -> tuple[bool, Claim | None]:
            accepted = self._end(connection, moves, claim, ending)
            following = None
            if worker is not None and limits:
                following = self._claim(connection, moves, worker, limits)
            return accepted, following

        return self._write(work)  # type: ignore[no-any-return]

    def _end(
        self, connection: sqlite3.Connection, moves: Moves, claim: Claim, ending: Ending
    ) -> bool:
        now = self.now()
        if ending.kept:
            ending = self._keep(connection, claim, ending)
        state, run_at = ending.state, None
        if state == "retrying":
            run_at = now + (ending.retry_in or 0)
        elif claim.every and state in ("completed", "failed"):
            # The next run is a time in the future, whatever number of runs was missed.
            state, run_at = "scheduled", now + claim.every
        postponed = ending.outcome == "postponed"
        charged = ending.outcome != "released" and not postponed
        crashed = ending.outcome in ("crashed", "timeout", "memory")
        unfinished = state in UNFINISHED
        again = state in ("queued", "scheduled") and charged
        changed = connection.execute(
            "UPDATE jobs SET state = ?, ready = ?, run_at = ?, worker = NULL, place = 0,"
            " host = coalesce(?, host), resume = ?, number = number - ?, alone = max(alone, ?),"
            " attempt = ?, crashes = ?, max_attempts = coalesce(?, max_attempts),"
            " finished_at = ?, error_class = ?, error = ?, result = ?"
            " WHERE id = ? AND number = ? AND state = 'running'",
            (
                state, state == "queued", run_at, ending.host, ending.resume, postponed,
                ending.alone,
                0 if again else claim.attempt - (not charged),
                0 if again else claim.crashes + crashed,
                ending.max_attempts, None if unfinished else now,
                ending.error_class, ending.error, ending.result, claim.id, claim.number,
            ),
        ).rowcount  # fmt: skip
        if not changed:
            let_go = connection.execute(
                "UPDATE jobs SET worker = NULL, ready = state = 'queued', waiting_for = NULL,"
                " place = 0 WHERE id = ? AND number = ? AND worker = ? RETURNING state",
                (claim.id, claim.number, claim.worker),
            ).fetchone()
            if let_go is not None:
                self._leave_host(moves, claim, ending, let_go["state"])
            return False
        moves.move("running", state, claim.parent_id is None)
        self._leave_host(moves, claim, ending, state)
        if state != "completed" and not postponed:
            self._record(connection, claim, ending, now)
        if ending.state in ("completed", "failed"):
            connection.execute(
                "INSERT INTO tally VALUES (?, ?, 1, 0) ON CONFLICT DO UPDATE SET jobs = jobs + 1",
                (ending.state, int(now // 60)),
            )
        if ending.followups:
            last = connection.execute("SELECT jobs FROM tally WHERE kind = 'id'").fetchone()[0]
            self._insert(connection, moves, list(enumerate(ending.followups, last + 1)), claim)
        return True

    @staticmethod
    def _keep(connection: sqlite3.Connection, claim: Claim, ending: Ending) -> Ending:
        """Write what an execution leaves in its plugin's state, if the job is still its own.

        Where another one has changed what it has read, it goes back: its ending, then.
        """
        if not connection.execute(
            "SELECT 1 FROM jobs WHERE id = ? AND number = ? AND state = 'running'",
            (claim.id, claim.number),
        ).fetchone():
            return ending
        for plugin, key, _, version, _ in ending.kept:
            row = connection.execute(
                "SELECT version FROM state WHERE plugin = ? AND key = ?", (plugin, key)
            ).fetchone()
            if version is not None and version != (row["version"] if row else 0):
                what = f"another job has changed the state {key!r} of {plugin} meanwhile"
                return Ending("released", "queued", error_class="state", error=what)
        connection.executemany(
            "INSERT INTO state VALUES (?, ?, ?, 1) ON CONFLICT DO UPDATE"
            " SET value = excluded.value, version = version + 1",
            [(plugin, key, value) for plugin, key, value, _, written in ending.kept if written],
        )
        return ending

    @staticmethod
    def _leave_host(moves: Moves, claim: Claim, ending: Ending, state: str) -> None:
        """Give on the turn of an execution that has ended; stand in line for the next one."""
        moves.turns.note(ending.asked)
        if claim.host is not None:
            moves.turns.leave(claim.host, asked=True)
        host = ending.host or claim.host
        if host is not None and state == "queued":
            moves.turns.stand(claim.id, host)

    @staticmethod
    def _record(
        connection: sqlite3.Connection, claim: Claim, ending: Ending, finished_at: float
    ) -> None:
        connection.execute(
            "INSERT OR IGNORE INTO attempts VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?)",
            (
                claim.id, claim.number, claim.started_at, finished_at, claim.worker_pid,
                ending.outcome, ending.error_class, ending.error, ending.traceback,
                ending.retry_in,
            ),
        )  # fmt: skip

    def refund(self, claims: Iterable[Claim]) -> list[Claim]:
        """Take back that these executions were charged: their failures were not the jobs' fault.

        Returns:
            Those whose failure has not been written yet.
        """

        def work(connection: sqlite3.Connection, moves: Moves) -> list[Claim]:
            unwritten = []
            for claim in claims:
                token = (claim.id, claim.number)
                failed = connection.execute(
                    "UPDATE attempts SET outcome = 'released', retry_in = NULL"
                    " WHERE job_id = ? AND number = ? AND outcome = 'failed'",
                    token,
                ).rowcount
                row = connection.execute(
                    "SELECT state, host, place FROM jobs WHERE id = ? AND number = ?", token
                ).fetchone()
                if not failed and row is not None and row["state"] == "running":
                    unwritten.append(claim)
                elif failed and row is not None and row["state"] in ("retrying", "failed"):
                    moves.move(row["state"], "queued", claim.parent_id is None)
                    connection.execute(
                        "UPDATE jobs SET state = 'queued', ready = 1, run_at = NULL,"
                        " finished_at = NULL, attempt = attempt - 1, place = 0 WHERE id = ?",
                        (claim.id,),
                    )
                    if row["host"] is not None:
                        moves.turns.leave(row["host"], waited=row["place"] == IN_LINE)
                        moves.turns.stand(claim.id, row["host"])
            return unwritten

        return self._write(work)  # type: ignore[no-any-return]

    # The user's moves ------------------------------------------------------------------------

    def retry(self, ids: Iterable[int]) -> list[int]:
        """Back to the queue, attempts granted anew: failed, cancelled, retrying and scheduled jobs.

        Returns:
            The jobs that wait now: for each that moved its id, or that of an unfinished twin.
            One whose cancelled run has not ended yet may start when it has.
        """
        return self._write(self._retry, list(ids))  # type: ignore[no-any-return]

    def _retry(self, connection: sqlite3.Connection, moves: Moves, ids: list[int]) -> list[int]:
        rows = connection.execute(
            "SELECT id, key, state, parent_id, host, place, worker,"
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
                moves.move(row["state"], "queued", row["parent_id"] is None)
                queued.append(row["id"])
                if row["key"] is not None:
                    by_key[row["key"]] = row["id"]
            waiting.append(twin or row["id"])
        connection.execute(
            "UPDATE jobs SET state = 'queued', attempt = 0, crashes = 0, finished_at = NULL,"
            " ready = iif(place = 0, worker IS NULL, ready), run_at = iif(place = 0, NULL, run_at),"
            " waiting_for = iif(worker IS NULL, NULL, ?)"
            " WHERE id IN (SELECT value FROM json_each(?))",
            (HELD, json.dumps(queued)),
        )
        again = set(queued)
        for row in rows:
            placed = row["place"] or row["worker"]  # who has a place already keeps it
            if row["host"] is not None and row["id"] in again and not placed:
                moves.turns.stand(row["id"], row["host"])
        return waiting

    def cancel(self, ids: Iterable[int]) -> list[int]:
        """Take jobs and all their descendants out of the queue; the ids that moved.

        A running one keeps naming its worker until the worker lets go of it.
        """
        return self._write(self._cancel, list(ids))  # type: ignore[no-any-return]

    def _cancel(self, connection: sqlite3.Connection, moves: Moves, ids: list[int]) -> list[int]:
        now = self.now()
        rows = connection.execute(
            TREES + "SELECT * FROM jobs WHERE id IN (SELECT id FROM tree)"
            " AND state IN ('queued', 'scheduled', 'running', 'retrying')",
            (json.dumps(ids),),
        ).fetchall()
        for row in rows:
            moves.move(row["state"], "cancelled", row["parent_id"] is None)
            if row["state"] == "running":
                claim = claim_of(row)
                self._record(connection, claim, Ending("cancelled", "cancelled"), now)
        connection.executemany(
            "UPDATE jobs SET state = 'cancelled', ready = 0, run_at = NULL, waiting_for = NULL,"
            " finished_at = ?, place = iif(worker IS NULL, 0, place) WHERE id = ?",
            [(now, row["id"]) for row in rows],
        )
        gone = [row for row in rows if row["place"] and row["worker"] is None]
        waited = Counter(row["host"] for row in gone if row["place"] == IN_LINE)
        for host in {row["host"] for row in gone}:
            moves.turns.leave(host, waited=waited[host])
        return [row["id"] for row in rows]

    def progress(self, claim: Claim, done: float, total: float | None) -> bool:
        """Note how far an execution is; False when the job is no longer its own."""

        def work(connection: sqlite3.Connection, _: Moves) -> bool:
            return bool(
                connection.execute(
                    "UPDATE jobs SET progress = ?"
                    " WHERE id = ? AND number = ? AND state = 'running'",
                    (json.dumps([done, total]), claim.id, claim.number),
                ).rowcount
            )

        return self._write(work)  # type: ignore[no-any-return]

    def prune(self, before: float) -> int:
        """Forget jobs that finished before that time (seconds since the epoch), with their
        attempts, tree by tree: a tree goes when all of it has finished. The number of jobs."""
        return self._write(self._prune, before)  # type: ignore[no-any-return]

    def _prune(self, connection: sqlite3.Connection, moves: Moves, before: float) -> int:
        forgotten = 0
        for condition in (WHOLE_TREES, OLD_LEAVES):
            while old := connection.execute(
                f"SELECT id, state, parent_id FROM jobs WHERE {condition}", (before,)
            ).fetchall():
                for row in old:
                    moves.add(row["state"], -1, row["parent_id"] is None)
                ids = json.dumps([row["id"] for row in old])
                for table, column in (("attempts", "job_id"), ("jobs", "id")):
                    connection.execute(
                        f"DELETE FROM {table} WHERE {column} IN (SELECT value FROM json_each(?))",
                        (ids,),
                    )
                forgotten += len(old)
        connection.execute(
            "DELETE FROM tally WHERE kind IN ('completed', 'failed') AND name < ?",
            (int(before // 60),),
        )
        connection.execute("DELETE FROM hosts WHERE waiting = 0 AND free_at < ?", (before,))
        return forgotten

    def clear(self) -> int:
        """Forget every job; the number of them."""

        def work(connection: sqlite3.Connection, _: Moves) -> int:
            connection.execute("DELETE FROM attempts")
            connection.execute("DELETE FROM hosts")
            connection.execute("DELETE FROM state")
            connection.execute("DELETE FROM tally WHERE kind IN ('completed', 'failed')")
            connection.execute("UPDATE tally SET jobs = 0, roots = 0 WHERE kind = 'state'")
            return connection.execute("DELETE FROM jobs").rowcount

        return self._write(work)  # type: ignore[no-any-return]

    # Deaths -------------------------------------------------------------------------------------

    def bury(self, worker_id: int, decide: Any) -> list[int]:
        """Take a dead worker out, and its jobs back.

        Args:
            worker_id: a worker whose death is proven.
            decide: ``(row, only) -> Ending`` for each job that it was running; ``only`` tells
                that nothing else ran in that process.

        Returns:
            The jobs that moved.
        """

        def work(connection: sqlite3.Connection, moves: Moves) -> list[int]:
            rows = connection.execute(
                "SELECT * FROM jobs WHERE worker = ?", (worker_id,)
            ).fetchall()
            for row in rows:
                ending = decide(dict(row), len(rows) == 1)
                self._end(connection, moves, claim_of(row), ending)
            connection.execute("DELETE FROM workers WHERE id = ?", (worker_id,))
            return [row["id"] for row in rows]

        return self._write(work)  # type: ignore[no-any-return]

    def release(self, worker: Worker, but: Collection[int] = ()) -> None:
        """Give back what a living worker holds, but for some jobs."""

        def work(connection: sqlite3.Connection, moves: Moves) -> None:
            held = connection.execute("SELECT * FROM jobs WHERE worker = ?", (worker.id,))
            for row in held.fetchall():
                if row["id"] not in but:
                    self._end(connection, moves, claim_of(row), Ending("released", "queued"))

        self._write(work)

    def leave(self, worker: Worker) -> None:
        """Take a worker that ends in good order out; nothing may be left with it."""
        self.bury(worker.id, lambda row, only: Ending("released", "queued"))
