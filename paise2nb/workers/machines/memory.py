"""The executions that a machine has, in memory, in place of a job store.

The supervisor of the machine and its workers use it like one. It holds nothing that home does not
know: a machine that ends leaves nothing behind.
"""

import os
import socket
import threading
import time
from collections import Counter
from collections.abc import Callable, Collection, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from paise2nb.core import processes
from paise2nb.core.wakeup import Notifier
from paise2nb.jobs.models import DEAD, HERE, Claim, Decide, Limits, Outcome
from paise2nb.jobs.transfer import outcome_to_json

PLUGINS = "plugins"  # the key under which a worker leaves what it can run
LEASE_SHARE = 0.8  # of the lease, after which a machine without Redis ends its jobs


@dataclass
class Execution:
    """One claim that home has given to this machine.

    Attributes:
        token: Its name at home.
        claim: With home's values; a worker gets it with its own ``worker`` and ``worker_pid``.
        extras: What home sent along for the task.
        worker: The worker that has begun it, None before.
        dropped: Home has given up this execution; when, for one that was cancelled.
    """

    token: str
    claim: Claim
    limits: Limits
    extras: dict[str, Any]
    worker: int | None = None
    is_dropped: bool = False
    dropped_at: float | None = None
    progress: tuple[float, float | None] | None = None


class MemoryStore:
    """The executions and the workers of one machine.

    Args:
        path: The socket on which workers reach it.
        on_change: Called when there are outcomes to report.
        ask_home: ``(kind, body) -> answer``, a question that only home can answer.
    """

    def __init__(
        self, path: Path, on_change: Callable[[], None], ask_home: Callable[[str, Any], Any]
    ) -> None:
        self.path = path
        self.database = self  # a worker calls its `check`
        self.outcomes: dict[str, dict[str, Any]] = {}  # not acknowledged yet, by token
        self.lease: float | None = None  # seconds; None until home has answered
        self.heard_at = time.monotonic()  # when Redis last took a heartbeat
        self._on_change = on_change
        self._ask_home = ask_home
        self._notifier = Notifier(path)
        self._lock = threading.RLock()
        self._executions: dict[tuple[int, float], Execution] = {}
        self._workers: dict[int, dict[str, Any]] = {}
        self._last_worker = 0
        self._values: dict[str, str] = {}
        self._supervisor: dict[str, Any] = {}

    # For the link to home ----------------------------------------------------------------------

    def add(self, executions: Iterable[Execution]) -> None:
        """Take executions that home has claimed for this machine."""
        with self._lock:
            for new in executions:
                self._executions[new.claim.id, new.claim.started_at] = new
        self._notifier.notify()

    def held(self) -> dict[str, int]:
        """The tokens of all executions, and whether each has begun."""
        with self._lock:
            return {e.token: int(e.worker is not None) for e in self._executions.values()}

    def progress_by_token(self) -> dict[str, tuple[float, float | None]]:
        """The latest progress of each execution that has reported some."""
        with self._lock:
            executions = self._executions.values()
            return {e.token: e.progress for e in executions if e.progress is not None}

    def drop(self, tokens: Collection[str] | None, *, grace: bool) -> None:
        """Give up executions: those that have begun are killed, and none is reported.

        Args:
            tokens: None for all.
            grace: Whether they may end by themselves within ``workers.cancel_grace``.
        """
        with self._lock:
            for key, execution in list(self._executions.items()):
                if tokens is not None and execution.token not in tokens:
                    continue
                if execution.worker is None:
                    del self._executions[key]
                elif not execution.is_dropped:
                    execution.is_dropped = True
                    execution.dropped_at = self.now() if grace else None

    def return_waiting(self) -> None:
        """Give back the executions that have not begun: the machine drains."""
        with self._lock:
            for execution in list(self._executions.values()):
                if execution.worker is None:
                    self._record(execution, outcome_to_json(Outcome("released", "queued")))
        self._on_change()

    def capacity(self) -> dict[str, int]:
        """The threads of the workers that are ready, by pool."""
        sizes: Counter[str] = Counter()
        for row in self.workers():
            if row["state"] == "ready" and row["presence"] == HERE and ":" not in row["pool"]:
                sizes[row["pool"]] += row["threads"]
        return dict(sizes)

    def is_leased(self) -> bool:
        """Whether this machine may still run its jobs: Redis took a heartbeat not long ago."""
        return self.lease is None or time.monotonic() - self.heard_at < LEASE_SHARE * self.lease

    # For the supervisor ------------------------------------------------------------------------

    def now(self) -> float:
        """Seconds on the clock of this machine."""
        return time.monotonic()

    def check(self) -> None:
        """Do nothing: memory can't be replaced by another file."""

    def wait_at_most(self, seconds: float) -> None:
        """Do nothing: no other process locks it."""

    def close(self) -> None:
        """Close the socket of the notifier."""
        self._notifier.close()

    def take_supervision(self, options: str, settings: str) -> bool:
        """Make this process the supervisor."""
        name = processes.identity(os.getpid())
        values = {"options": options, "settings": settings, "process": name, "problem": None}
        self._supervisor = {**values, "state": "running", "presence": HERE}
        return True

    def supervisor(self) -> dict[str, Any]:
        """The supervisor's row."""
        return dict(self._supervisor)

    def supervisor_heartbeat(self) -> bool:
        """Always true: no other supervisor can take its place."""
        return True

    def set_supervisor(self, **values: Any) -> None:
        """Set values of the supervisor's row."""
        self._supervisor |= values

    def leave_supervision(self, state: str, *, unless_ready: bool) -> bool:
        """Give up supervision."""
        self._supervisor["state"] = state
        return True

    def stopping(self, names: Collection[str]) -> None:
        """Store that workers drain."""
        with self._lock:
            for row in self._workers.values():
                if row["process"] in names and row["state"] != "failed":
                    row["state"] = "stopping"

    def workers(self) -> list[dict[str, Any]]:
        """The registered worker processes, as `WorkerRegistry.workers` returns them."""
        with self._lock:
            rows = [dict(row) for row in self._workers.values()]
            for row in rows:
                row["jobs"] = [
                    e.claim.id for e in self._executions.values() if e.worker == row["id"]
                ]
        for row in rows:
            row["presence"] = HERE if processes.alive(row["process"]) else DEAD
        return rows

    def claimed(self) -> list[dict[str, Any]]:
        """The executions that workers have now, including dropped ones."""
        with self._lock:
            return [
                {
                    **e.claim._asdict(),
                    **e.limits._asdict(),
                    "worker": e.worker,
                    "state": "cancelled" if e.is_dropped else "running",
                    "finished_at": e.dropped_at,
                }
                for e in self._executions.values()
                if e.worker is not None
            ]

    def begun(self, worker_id: int, jobs: Sequence[dict[str, Any]]) -> list[dict[str, Any]]:
        """Return all jobs of a worker: none waits in it for another one."""
        return [*jobs]

    def rescue_jobs(self, worker_id: int, decide: Decide) -> list[int]:
        """Delete the row of a dead worker, and end the executions that it had."""
        with self._lock:
            worker = self._workers.pop(worker_id, {"pid": 0})
            mine = [e for e in self._executions.values() if e.worker == worker_id]
            for execution in mine:
                row = {**execution.claim._asdict(), "worker_pid": worker["pid"]}
                self._record(execution, outcome_to_json(decide(row, len(mine) == 1)))
        self._on_change()
        return [execution.claim.id for execution in mine]

    def pools_waiting_alone(self) -> set[str]:
        """The pools with an execution that must run alone."""
        with self._lock:
            return {e.claim.pool for e in self._executions.values() if e.claim.isolated}

    def ready_tasks(self) -> set[str]:
        """The tasks of executions that have not begun."""
        with self._lock:
            return {e.claim.task for e in self._executions.values() if e.worker is None}

    def next_time(self, *arguments: Any, **options: Any) -> None:
        """None: home waits for times."""

    def busy(self) -> int:
        """The number of executions."""
        return len(self._executions)

    def counts(self) -> tuple[dict[str, int], dict[str, int]]:
        """The number of executions that wait and that run."""
        held = list(self.held().values())
        return {"queued": held.count(0), "running": held.count(1), "retrying": 0}, {}

    def get(self, key: str) -> str | None:
        """A value that a worker has put."""
        return self._values.get(key)

    # For the workers, through the socket -------------------------------------------------------

    def put(self, key: str, value: str) -> None:
        """Set a value about the whole machine."""
        self._values[key] = value

    def register(self, pool: str, threads: int, process: str) -> int:
        """Register a worker, and return its id."""
        with self._lock:
            self._last_worker += 1
            row = {"id": self._last_worker, "pool": pool, "threads": threads, "process": process}
            row |= {"pid": processes.pid_of(process), "state": "starting", "error": None}
            row |= {"host": socket.gethostname(), "started_at": self.now()}
            self._workers[self._last_worker] = {**row, "heartbeat_at": self.now()}
            return self._last_worker

    def heartbeat(self, worker_id: int, state: str, error: str | None) -> bool:
        """Store the state of a worker; False if it was declared dead."""
        with self._lock:
            row = self._workers.get(worker_id)
            if row is None:
                return False
            if not (row["state"] == "stopping" and state == "ready"):
                row["state"] = state
            row |= {"error": error, "heartbeat_at": self.now()}
            return True

    def leave(self, worker_id: int) -> None:
        """Delete the row of a worker that exits, and give its executions back."""
        self.rescue_jobs(worker_id, lambda row, alone: Outcome("released", "queued"))

    def claimable(self, tasks: Collection[str]) -> bool:
        """Whether an execution of these tasks waits."""
        return not self.ready_tasks().isdisjoint(tasks)

    def end_several(
        self,
        ended: Collection[tuple[tuple[int, float], dict[str, Any]]],
        worker_id: int,
        one_at_a_time: bool,
        wanted: tuple[Collection[str], Collection[str], int, bool] | None,
    ) -> tuple[list[bool], list[Any]]:
        """Take outcomes for home, and begin the next executions; see `JobStore.end_several`.

        Args:
            ended: Outcomes by id and start of their executions.
            worker_id: The worker.
            one_at_a_time: Whether it may run what must run alone.
            wanted: The fields of a `Wanted`, with the names of the tasks only.

        Returns:
            Whether each outcome was accepted; and the claims, each with what home sent along.
        """
        accepted = []
        with self._lock:
            for (job_id, started_at), outcome in ended:
                execution = self._executions.get((job_id, started_at))
                accepted.append(execution is not None and not execution.is_dropped)
                if execution is not None:
                    self._record(execution, outcome)
            claims = self._begin(worker_id, one_at_a_time, *wanted) if wanted else []
        if ended:
            self._on_change()
        return accepted, claims

    def _begin(
        self,
        worker_id: int,
        one_at_a_time: bool,
        tasks: Collection[str],
        brief: Collection[str],
        number: int,
        beside: bool,
    ) -> list[Any]:
        worker = self._workers.get(worker_id)
        if worker is None or not self.is_leased():
            return []
        pool, first, claims = worker["pool"].partition(":")[0], None, []
        for execution in self._executions.values():
            claim = execution.claim
            alone = claim.isolated or claim.task not in brief
            fits = claim.pool == pool and claim.task in tasks
            if execution.worker is not None or not fits:
                continue
            if (claim.isolated and not one_at_a_time) or (alone and beside):
                continue
            if first is not None and (claim.task != first.task or alone):
                continue
            execution.worker = worker_id
            own = claim._replace(worker=worker_id, worker_pid=worker["pid"])
            claims.append([own, execution.extras])
            first = claim
            if alone or len(claims) >= number:
                break
        return claims

    def runs(self, job: tuple[int, float]) -> bool:
        """Whether an execution still has its job, and this machine its lease."""
        execution = self._executions.get((job[0], job[1]))
        return execution is not None and not execution.is_dropped and self.is_leased()

    def report_progress(self, job: tuple[int, float], done: float, total: float | None) -> bool:
        """Keep the progress of an execution for the next heartbeat."""
        execution = self._executions.get((job[0], job[1]))
        if execution is None:
            return False
        execution.progress = (done, total)
        return True

    def ask(self, kind: str, body: Any) -> Any:
        """Ask home, and wait for the answer."""
        return self._ask_home(kind, body)

    def _record(self, execution: Execution, outcome: dict[str, Any]) -> None:
        del self._executions[execution.claim.id, execution.claim.started_at]
        if not execution.is_dropped:
            self.outcomes[execution.token] = outcome


def execution_from_json(values: list[Any]) -> Execution:
    """The execution in a message of home."""
    token, claim, limits, extras = values
    return Execution(token, Claim(*claim), Limits(*limits), extras)
