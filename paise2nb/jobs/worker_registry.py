"""The worker processes and their supervisor, as rows of the job store."""

import json
import os
import socket
from collections.abc import Callable, Collection, Mapping
from typing import Any

from paise2nb.core import processes as process
from paise2nb.core.errors import WorkersError
from paise2nb.jobs.database import JobDatabase, Transaction, transaction
from paise2nb.jobs.models import COPIED, DEAD, ELSEWHERE, HERE, IMMEDIATE, LOST, RUNNING, Worker
from paise2nb.jobs.sql import SQL

PAUSE = "pause:"  # before the name of a paused pool in a key of ``meta``; see the statement `claim`
LEASE_SECONDS = 15.0  # without a heartbeat, after which a process that can't be seen is given up
IMMEDIATE_LEASE_SECONDS = 3600.0  # the same in immediate mode, which has no heartbeat


class WorkerRegistry(JobDatabase):
    """The rows of the workers and of the supervisor."""

    def _myself(self) -> dict[str, Any]:
        if not process.sees_itself():
            raise WorkersError(
                "/proc shows another pid namespace than that of this process; "
                "mount its own: mount -t proc proc /proc"
            )
        name, host = process.identity(os.getpid()), socket.gethostname()
        return {"process": name, "host": host, "file": self.database.file, "now": self.now()}

    def _presence(self, row: Mapping[str, Any], heartbeat_at: float, lease: float) -> str:
        """Where a registered process is: one of the constants of ``models``."""
        if row["process"] is None:
            return DEAD
        if row["file"] not in ("", self.database.file):  # "" was stored by an earlier version
            return COPIED
        if process.is_visible(row["process"]):
            return HERE if process.alive(row["process"]) else DEAD
        # After a boot with a wrong clock, heartbeats of the last boot may lie in the future.
        return ELSEWHERE if abs(self.now() - heartbeat_at) < lease else LOST

    @transaction
    def register(self, tx: Transaction, pool: str, threads: int, state: str = "starting") -> Worker:
        """Register this process as a worker."""
        values = {"pool": pool, "threads": threads, "state": state, **self._myself()}
        worker_id = tx.execute(SQL["register"], values).lastrowid
        assert worker_id is not None, "an INSERT gives an id"
        return Worker(worker_id, os.getpid(), pool.partition(":")[0], one_at_a_time=threads == 1)

    @transaction
    def heartbeat(
        self, tx: Transaction, worker: Worker, state: str, error: str | None = None
    ) -> bool:
        """Store that a worker is alive, and its state; False if it was declared dead."""
        values = {"state": state, "error": error, "now": self.now(), "id": worker.id}
        return bool(tx.execute(SQL["heartbeat"], values).rowcount)

    @transaction
    def stopping(self, tx: Transaction, names: Collection[str]) -> None:
        """Store that workers drain, given by their processes: their jobs are no longer charged."""
        tx.execute(SQL["stopping"], (json.dumps(list(names)),))

    def workers(self) -> list[dict[str, Any]]:
        """The registered worker processes.

        Returns:
            Their rows, with ``pid``, ``jobs`` (the ids of those that they have claimed) and
            ``presence``.
        """
        supervisor = self.supervisor()
        workers = []
        for row in map(dict, self._read(SQL["workers"])):
            row |= {"pid": process.pid_of(row["process"]), "jobs": json.loads(row["jobs"])}
            heartbeat_at, lease = row["heartbeat_at"], LEASE_SECONDS
            if row["pool"] == IMMEDIATE:
                lease = IMMEDIATE_LEASE_SECONDS
            elif supervisor and supervisor["presence"] == ELSEWHERE:
                # A job may keep a worker from its heartbeat, but not its supervisor.
                heartbeat_at = max(heartbeat_at, supervisor["heartbeat_at"])
            workers.append({**row, "presence": self._presence(row, heartbeat_at, lease)})
        return workers

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
        """The supervisor's row: process (None after it has left), presence, state, options, …"""
        for row in map(dict, self._read("SELECT * FROM supervisor")):
            presence = self._presence(row, row["heartbeat_at"], LEASE_SECONDS)
            return {**row, "presence": presence}
        return None

    def running_supervisor(self) -> dict[str, Any] | None:
        """The supervisor's row while its process runs, here or elsewhere."""
        row = self.supervisor()
        return row if row is not None and row["presence"] in RUNNING else None

    @transaction
    def take_supervision(self, tx: Transaction, options: str, settings: str) -> bool:
        """Make this process the one supervisor; False if another one runs."""
        running, me = self.running_supervisor(), self._myself()
        if running is not None:
            if running["process"] != me["process"]:
                return False
            options = running["options"]  # announced, and perhaps changed by a start meanwhile
        tx.execute(SQL["take_supervision"], {"options": options, "settings": settings, **me})
        return True

    @transaction
    def announce_supervision(self, tx: Transaction, pid: int, options: str, settings: str) -> None:
        """Store that a child of this process takes the place of a supervisor that left idle.

        The state stays, so that it is started again if it ends before it takes supervision.
        """
        name = process.identity(pid)
        if name is not None and not self.running_supervisor():
            values = {"options": options, "settings": settings, **self._myself(), "process": name}
            tx.execute(SQL["announce_supervision"], values)

    @transaction
    def supervisor_heartbeat(self, tx: Transaction) -> bool:
        """Store that this supervisor is alive; False if another one has taken its place."""
        return bool(tx.execute(SQL["supervisor_heartbeat"], self._myself()).rowcount)

    @transaction
    def leave_supervision(self, tx: Transaction, state: str, *, unless_ready: bool) -> bool:
        """Give up supervision; with ``unless_ready`` only if no job may start, now or later."""
        if unless_ready and tx.execute(SQL["may_start"]).fetchone():
            return False
        tx.execute(SQL["leave_supervision"], {"state": state, **self._myself()})
        return True

    @transaction
    def stop_supervision(self, tx: Transaction) -> None:
        """Store that a user stopped the workers, unless others have been started meanwhile.

        A supervisor that left idle before it got the signal must not be started again, either.
        """
        if not self.running_supervisor():
            tx.execute("UPDATE supervisor SET process = NULL, state = 'stopped'")

    @transaction
    def set_supervisor(self, tx: Transaction, /, **values: object) -> None:
        """Set columns of the supervisor's row."""
        columns = ", ".join(f"{name} = ?" for name in values)
        tx.execute(f"UPDATE supervisor SET {columns}", tuple(values.values()))

    @transaction
    def change_options(self, tx: Transaction, change: Callable[[dict[str, Any]], None]) -> None:
        """Change the options of the supervisor while no other process does."""
        for row in tx.execute("SELECT options FROM supervisor").fetchall():
            options = json.loads(row["options"])
            change(options)
            tx.execute("UPDATE supervisor SET options = ?", (json.dumps(options),))

    @transaction
    def ask_to_stop(self, tx: Transaction, name: str, seconds: float) -> bool:
        """Store how long the drain of a supervisor, given by its process, may take.

        False if it drains, is about to, or has left.
        """
        return bool(tx.execute(SQL["ask_to_stop"], {"process": name, "seconds": seconds}).rowcount)
