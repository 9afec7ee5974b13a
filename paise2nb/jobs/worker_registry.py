"""Who works on the job table: the worker processes and their one supervisor, as rows."""

from __future__ import annotations

import os
import sqlite3
from typing import Any

from paise2nb.core import processes as process
from paise2nb.jobs.database import JobDatabase
from paise2nb.jobs.models import StateCounters, Worker


class WorkerRegistry(JobDatabase):
    """The workers' and the supervisor's rows."""

    def register(self, pool: str, threads: int, state: str = "starting") -> Worker:
        """Enter this process as a worker."""
        name = process.identity(os.getpid())
        assert name is not None, "this process is alive"

        def work(connection: sqlite3.Connection, _: StateCounters) -> int | None:
            now = self.now()
            return connection.execute(
                "INSERT INTO workers (pool, process, threads, state, started_at, heartbeat_at)"
                " VALUES (?, ?, ?, ?, ?, ?)",
                (pool, name, threads, state, now, now),
            ).lastrowid

        return Worker(int(self._write(work)), os.getpid(), pool.partition(":")[0], threads == 1)

    def heartbeat(self, worker: Worker, state: str, error: str | None = None) -> bool:
        """Say that a worker lives, and how it is; False when it has been declared dead."""

        def work(connection: sqlite3.Connection, _: StateCounters) -> bool:
            return bool(
                connection.execute(
                    "UPDATE workers SET state = ?, error = ?, heartbeat_at = ? WHERE id = ?",
                    (state, error, self.now(), worker.id),
                ).rowcount
            )

        return self._write(work)  # type: ignore[no-any-return]

    def workers(self) -> list[dict[str, Any]]:
        """The registered worker processes, with the ids of the jobs that they hold."""
        held: dict[int, list[int]] = {}
        for row in self._read(
            "SELECT worker, id FROM jobs INDEXED BY jobs_active"
            " WHERE ready = 0 AND worker IS NOT NULL ORDER BY id"
        ):
            held.setdefault(row["worker"], []).append(row["id"])
        return [
            {**row, "pid": int(row["process"].split("-")[0]), "jobs": held.get(row["id"], [])}
            for row in map(dict, self._read("SELECT * FROM workers ORDER BY id"))
        ]

    def held(self) -> list[dict[str, Any]]:
        """The executions that workers hold now, cancelled ones included."""
        return [
            dict(row)
            for row in self._read(
                "SELECT id, run, worker, state, timeout, memory_mb, finished_at FROM jobs"
                " INDEXED BY jobs_active WHERE ready = 0 AND worker IS NOT NULL"
            )
        ]

    def pools_waiting_alone(self) -> set[str]:
        """The pools in which a job has to run alone, and may do so now."""
        rows = self._read(
            "SELECT DISTINCT pool FROM jobs INDEXED BY jobs_isolated WHERE isolated = 1"
            " AND finished_at IS NULL AND (ready = 1 OR (ready = 0 AND run_at <= ?))",
            (self.now(),),
        )
        return {row["pool"] for row in rows}

    # The supervisor --------------------------------------------------------------------------

    def supervisor(self) -> dict[str, Any] | None:
        """The supervisor's row: process (None once it has left), state, options, problem, …"""
        rows = self._read("SELECT * FROM supervisor")
        return dict(rows[0]) if rows else None

    def take_supervision(self, options: str, settings: str) -> bool:
        """Make this process the one supervisor; False while another one lives."""
        name = process.identity(os.getpid())

        def work(connection: sqlite3.Connection, _: StateCounters) -> bool:
            row = connection.execute("SELECT process FROM supervisor").fetchone()
            if row is not None and row["process"] and process.alive(row["process"]):
                return False
            connection.execute(
                "REPLACE INTO supervisor VALUES (1, ?, 'running', ?, ?, NULL, ?)",
                (name, options, settings, self.now()),
            )
            return True

        return self._write(work)  # type: ignore[no-any-return]

    def leave_supervision(self, state: str, *, unless_ready: bool) -> bool:
        """Let go of supervision; not where a job may start by now, if so wished."""

        def work(connection: sqlite3.Connection, _: StateCounters) -> bool:
            ready = "SELECT 1 FROM jobs WHERE ready = 1 LIMIT 1"
            if unless_ready and connection.execute(ready).fetchone():
                return False
            connection.execute("UPDATE supervisor SET process = NULL, state = ?", (state,))
            return True

        return self._write(work)  # type: ignore[no-any-return]

    def set_supervisor(self, **values: object) -> None:
        """Change columns of the supervisor's row."""

        def work(connection: sqlite3.Connection, _: StateCounters) -> None:
            columns = ", ".join(f"{name} = ?" for name in values)
            connection.execute(f"UPDATE supervisor SET {columns}", tuple(values.values()))

        self._write(work)
