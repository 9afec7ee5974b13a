"""The worker processes and their supervisor, as rows of the job store."""

from __future__ import annotations

import json
import os
from typing import Any

from paise2nb.core import processes as process
from paise2nb.jobs.database import JobDatabase, Transaction, transaction
from paise2nb.jobs.models import Worker
from paise2nb.jobs.sql import SQL

PAUSE = "pause:"  # before the name of a paused pool in a key of ``meta``; see the statement `claim`


class WorkerRegistry(JobDatabase):
    """The rows of the workers and of the supervisor."""

    @transaction
    def register(self, tx: Transaction, pool: str, threads: int, state: str = "starting") -> Worker:
        """Register this process as a worker."""
        name = process.identity(os.getpid())
        values = {"pool": pool, "process": name, "threads": threads, "state": state}
        worker_id = tx.execute(SQL["register"], {**values, "now": self.now()}).lastrowid
        assert worker_id is not None, "an INSERT gives an id"
        return Worker(worker_id, os.getpid(), pool.partition(":")[0], threads == 1)

    @transaction
    def heartbeat(
        self, tx: Transaction, worker: Worker, state: str, error: str | None = None
    ) -> bool:
        """Store that a worker is alive, and its state; False if it was declared dead."""
        sql = "UPDATE workers SET state = ?, error = ?, heartbeat_at = ? WHERE id = ?"
        return bool(tx.execute(sql, (state, error, self.now(), worker.id)).rowcount)

    def workers(self) -> list[dict[str, Any]]:
        """The registered worker processes, with the ids of the jobs that they have claimed."""
        return [
            {**row, "pid": process.pid_of(row["process"]), "jobs": json.loads(row["jobs"])}
            for row in self._read(SQL["workers"])
        ]

    def claimed(self) -> list[dict[str, Any]]:
        """The executions that workers have now, including cancelled ones."""
        return [dict(row) for row in self._read(SQL["claimed"])]

    def pools_waiting_alone(self) -> set[str]:
        """The pools with a job that must run alone and may start now."""
        return {row["pool"] for row in self._read(SQL["pools_waiting_alone"], (self.now(),))}

    # Pauses ----------------------------------------------------------------------------------

    @transaction
    def pause(self, tx: Transaction, pool: str = "") -> None:
        """Claim no more jobs of a pool until `resume`, or of any pool if the name is empty."""
        tx.execute("INSERT OR IGNORE INTO meta VALUES (?, ?)", (PAUSE + pool, str(self.now())))

    @transaction
    def resume(self, tx: Transaction, pool: str = "") -> bool:
        """End the pause of a pool, or all pauses if the name is empty; False if there was none."""
        return bool(tx.execute(SQL["resume"], {"prefix": PAUSE, "pool": pool}).rowcount)

    def paused_pools(self) -> set[str]:
        """The paused pools; an empty name stands for all pools."""
        rows = self._read("SELECT key FROM meta WHERE key GLOB ?", (PAUSE + "*",))
        return {row["key"].removeprefix(PAUSE) for row in rows}

    # The supervisor --------------------------------------------------------------------------

    def supervisor(self) -> dict[str, Any] | None:
        """The supervisor's row: process (None after it has left), state, options, problem, …"""
        return next(map(dict, self._read("SELECT * FROM supervisor")), None)

    @transaction
    def take_supervision(self, tx: Transaction, options: str, settings: str) -> bool:
        """Make this process the one supervisor; False if another one is alive."""
        row = tx.execute("SELECT process FROM supervisor").fetchone()
        if row is not None and row["process"] and process.alive(row["process"]):
            return False
        tx.execute(
            "REPLACE INTO supervisor VALUES (1, ?, 'running', ?, ?, NULL, ?)",
            (process.identity(os.getpid()), options, settings, self.now()),
        )
        return True

    @transaction
    def leave_supervision(self, tx: Transaction, state: str, *, unless_ready: bool) -> bool:
        """Give up supervision; with ``unless_ready`` only if no job may start now."""
        ready = "SELECT 1 FROM jobs WHERE ready = 1 LIMIT 1"
        if unless_ready and tx.execute(ready).fetchone():
            return False
        tx.execute("UPDATE supervisor SET process = NULL, state = ?", (state,))
        return True

    @transaction
    def set_supervisor(self, tx: Transaction, /, **values: object) -> None:
        """Set columns of the supervisor's row."""
        columns = ", ".join(f"{name} = ?" for name in values)
        tx.execute(f"UPDATE supervisor SET {columns}", tuple(values.values()))
