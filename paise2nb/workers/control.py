"""Start, find and stop background workers from any process.

Each job store has one supervisor, in a session of its own, which starts the worker processes. The
job store has a row for each of them, so that every process can find them. A row names a process by
its identity, because a pid alone may belong to another process by now.
"""

from __future__ import annotations

import json
import signal
import subprocess
import time
from functools import cached_property
from typing import Any

from paise2nb.config.settings import Settings
from paise2nb.core import processes
from paise2nb.core.disks import network_filesystem
from paise2nb.core.errors import UsageError, WorkersError
from paise2nb.core.wakeup import Notifier
from paise2nb.jobs.models import IMMEDIATE
from paise2nb.jobs.parts import Parts
from paise2nb.jobs.retry import released
from paise2nb.jobs.workers_status import WorkersStatus, no_worker_runs
from paise2nb.workers.logs import log_path
from paise2nb.workers.spawn import STOP_SECONDS, spawn

START_SECONDS = 60.0  # a start that takes longer has failed
POLL_SECONDS = 0.02


class Workers:
    """The background workers of one job store.

    Args:
        parts: The job store, the settings and the plugins.
        notifier: Wakes the supervisor.
        immediate: Whether jobs run in this process.
    """

    def __init__(self, parts: Parts, notifier: Notifier, *, immediate: bool) -> None:
        self._parts = parts
        self._job_store = parts.job_store
        self._notifier = notifier
        self._immediate = immediate
        self._child: subprocess.Popen[bytes] | None = None  # the supervisor, if started here

    @cached_property
    def _network_filesystem(self) -> str | None:
        return network_filesystem(self._job_store.path.parent)

    # Status ----------------------------------------------------------------------------------

    def status(self) -> WorkersStatus:
        """Return the workers that run now, and the problem that keeps jobs from running."""
        iso_time = self._job_store.iso_time
        workers = [
            {
                "pool": row["pool"],
                "pid": row["pid"],
                "state": _shown_state(row),
                "jobs": row["jobs"],
                "started_at": iso_time(row["started_at"]),
                "heartbeat_at": iso_time(row["heartbeat_at"]),
                "error": row["error"],
            }
            for row in self._rows()
            if row["state"] == "failed" or processes.alive(row["process"])
        ]
        row = self._running_supervisor()
        supervisor = None
        if row is not None:
            pid = processes.pid_of(row["process"])
            supervisor = {"pid": pid, "started_at": iso_time(row["started_at"])}
        return WorkersStatus(workers, supervisor, self._problem(row, workers))

    def _problem(
        self, supervisor: dict[str, Any] | None, workers: list[dict[str, Any]]
    ) -> str | None:
        if supervisor is None:
            waiting = self._job_store.busy()
            if waiting and not workers and not self._immediate:
                return no_worker_runs(waiting)
            return None
        if supervisor["problem"]:
            return f"{supervisor['problem']}; fix it, then: paise2 worker restart"
        if kind := self._network_filesystem:
            return (
                f"{self._parts.data_dir} is on a network filesystem ({kind}), where jobs may be "
                "lost; choose a local directory with --data-dir or PAISE2_DATA_DIR"
            )
        if Settings.from_json(supervisor["settings"]) != self._parts.settings:
            return "the workers run with other settings; to use these: paise2 worker restart"
        if unknown := self._job_store.ready_tasks() - set(self._parts.plugins.tasks):
            names = ", ".join(sorted(unknown))
            return (
                f"jobs of task {names} wait: no loaded plugin defines it; add one to `plugins`, "
                "or: paise2 plugins enable NAME"
            )
        return None

    def _rows(self) -> list[dict[str, Any]]:
        return [row for row in self._job_store.workers() if row["pool"] != IMMEDIATE]

    def _running_supervisor(self) -> dict[str, Any] | None:
        """Return the supervisor's row if its process is running."""
        if self._child is not None:
            self._child.poll()  # so that an ended one is no zombie
        row = self._job_store.supervisor()
        if row is not None and row["process"] and processes.alive(row["process"]):
            return row
        return None

    def present(self) -> bool:
        """Whether any background process runs jobs, or will."""
        if self._running_supervisor() is not None:
            return True
        return any(processes.alive(row["process"]) for row in self._rows())

    # Starting --------------------------------------------------------------------------------

    def start(
        self,
        concurrency: int | None = None,
        pool: str | None = None,
        *,
        burst: bool = False,
        foreground: bool = False,
    ) -> WorkersStatus:
        """Start the workers, and return when all are ready. Workers that run already are kept.

        Args:
            concurrency: The number of processes of the named pool, or of the pool ``default``.
            pool: Start (or add) only this pool.
            burst: Stop when no work is left.
            foreground: Supervise in this process until Ctrl-C, which drains.

        Raises:
            UsageError: The pool is unknown, or the concurrency is out of range.
            WorkersError: A worker can't start. The message contains the reason.
        """
        sizes = self.sizes(concurrency, pool)
        running = self._supervisor_after_drain()
        if running is not None:
            options = json.loads(running["options"])
            missing = {name: size for name, size in sizes.items() if name not in options["sizes"]}
            added = pool is not None and missing
            if added:
                options["sizes"].update(missing)
            # A new time makes the supervisor start the workers that it stopped when idle.
            options["asked_at"] = self._job_store.now()
            self._job_store.set_supervisor(options=json.dumps(options))
            self._notifier.notify()
            return self._wait_until_ready("added" if added else "already running", None)
        options = {"sizes": sizes, "burst": burst, "foreground": foreground}
        if foreground:
            from paise2nb.workers.supervisor import Supervisor

            Supervisor(self._parts.settings, options, self._job_store.path).run()
            return self._status_with_message("stopped")
        child = self._spawn(self._parts.settings.to_json(), options)
        return self._wait_until_ready("started", child)

    def sizes(self, concurrency: int | None = None, pool: str | None = None) -> dict[str, int]:
        """Return the number of processes of each pool that such a start would start.

        Raises:
            UsageError: The pool is unknown, or the concurrency is out of range.
            WorkersError: The queue has no workers.
        """
        if self._parts.settings.task_queue.provider == "none":
            raise WorkersError(
                "task_queue.provider is none: jobs run where they are enqueued; "
                "use a profile with provider sqlite"
            )
        workers = self._parts.settings.workers
        if concurrency is not None and not 1 <= concurrency <= 1024:
            raise UsageError(f"concurrency is {concurrency}; give a number from 1 to 1024")
        sizes = {"default": workers.concurrency}
        sizes |= {name: configured.processes for name, configured in workers.pools.items()}
        if pool is not None:
            if pool not in sizes:
                raise UsageError(f"unknown pool {pool!r}; known: {', '.join(sizes)}")
            sizes = {pool: sizes[pool]}
        if concurrency is not None:
            sizes[pool or "default"] = concurrency
        return sizes

    def restart_idle(self) -> None:
        """Start the supervisor again if it stopped when idle, not if a user stopped it."""
        row = self._job_store.supervisor()
        if row is not None and row["state"] == "idle":
            self._spawn(row["settings"], json.loads(row["options"]))

    def restart(self, timeout: float | None = None) -> WorkersStatus:
        """Drain, then start with the current settings and plugins, and the same options.

        Args:
            timeout: Seconds that the drain may take; 30 by default.
        """
        row = self._job_store.supervisor()
        options = json.loads(row["options"]) if row is not None else {}
        self.stop(timeout)
        configured = self.sizes()
        before = options.get("sizes", configured)
        sizes = {name: size for name, size in before.items() if name in configured}
        burst = options.get("burst", False)
        options = {"sizes": sizes or configured, "burst": burst, "foreground": False}
        child = self._spawn(self._parts.settings.to_json(), options)
        return self._wait_until_ready("restarted", child)

    def _spawn(self, settings: str, options: dict[str, Any]) -> subprocess.Popen[bytes]:
        path = str(self._job_store.path)
        message = {"settings": settings, "options": options, "job_store": path}
        self._child = spawn("supervisor", message, self._parts.data_dir)
        return self._child

    def _supervisor_after_drain(self) -> dict[str, Any] | None:
        """Return the running supervisor's row. Wait for the end of one that drains.

        Raises:
            WorkersError: The drain takes longer than it may.
        """
        deadline: float | None = None
        while (row := self._running_supervisor()) and row["state"] == "stopping":
            seconds = json.loads(row["options"]).get("stop_seconds", STOP_SECONDS)
            deadline = deadline or time.monotonic() + seconds + START_SECONDS
            _pause(deadline, row)
        return row

    def _wait_until_ready(
        self, message: str, child: subprocess.Popen[bytes] | None
    ) -> WorkersStatus:
        """Wait until all wanted workers are ready.

        Raises:
            WorkersError: They do not become ready. The message contains the reason.
        """
        deadline = time.monotonic() + START_SECONDS
        while time.monotonic() < deadline:
            ended = child is None or child.poll() is not None
            row = self._running_supervisor()
            if row is None:
                if child is None:
                    raise WorkersError("the workers have just stopped; again: paise2 worker start")
                if ended and child.returncode == 0:  # a burst that has already done everything
                    return self._status_with_message(message)
                if ended:
                    break
            elif row["problem"]:
                raise WorkersError(f"{row['problem']}; fix it, then: paise2 worker restart")
            elif self._all_ready(row):
                return self._status_with_message(message)
            time.sleep(POLL_SECONDS)
        log = log_path(self._parts.data_dir)
        raise WorkersError(f"the workers did not start; the reason is at the end of {log}")

    def _all_ready(self, supervisor: dict[str, Any]) -> bool:
        pools = [row["pool"] for row in self._rows() if _is_ready(row, supervisor)]
        wanted: dict[str, int] = json.loads(supervisor["options"])["sizes"]
        return all(pools.count(name) >= size for name, size in wanted.items())

    def _status_with_message(self, message: str) -> WorkersStatus:
        status = self.status()
        subject = status.summary() if status.workers else "workers"
        status.message = f"{subject} {message}"
        return status

    # Stopping --------------------------------------------------------------------------------

    def stop(self, timeout: float | None = None) -> WorkersStatus:
        """Drain: let running jobs finish until the timeout, then return them to the queue.

        Args:
            timeout: Seconds; 30 by default.
        """
        seconds = STOP_SECONDS if timeout is None else timeout
        supervisor = self._running_supervisor()
        if supervisor is None:
            stopped = self._stop_orphans(seconds)
            if self._job_store.supervisor() is not None:
                self._job_store.set_supervisor(state="stopped", process=None)
            return self._status_with_message("stopped" if stopped else "not running")
        options = {**json.loads(supervisor["options"]), "stop_seconds": seconds}
        self._job_store.set_supervisor(options=json.dumps(options))
        processes.send(supervisor["process"], signal.SIGTERM)
        deadline = time.monotonic() + seconds + START_SECONDS
        while processes.alive(supervisor["process"]):
            _pause(deadline, supervisor)
        return self._status_with_message("stopped")

    def _stop_orphans(self, seconds: float) -> bool:
        """Stop workers whose supervisor has died. Return whether there were any."""
        rows = self._rows()
        living = [row for row in rows if processes.send(row["process"], signal.SIGTERM)]
        deadline = time.monotonic() + seconds
        while any(processes.alive(row["process"]) for row in living):
            if time.monotonic() > deadline:
                for row in living:
                    processes.send(row["process"], signal.SIGKILL)
            time.sleep(POLL_SECONDS)
        for row in rows:
            self._job_store.rescue_jobs(row["id"], released)
        return bool(living)


def _pause(deadline: float, supervisor: dict[str, Any]) -> None:
    """Sleep before the next check whether the supervisor has stopped.

    Raises:
        WorkersError: The deadline (monotonic) has passed.
    """
    if time.monotonic() > deadline:
        pid = processes.pid_of(supervisor["process"])
        raise WorkersError(f"the supervisor (pid {pid}) does not stop; kill it: kill -9 {pid}")
    time.sleep(POLL_SECONDS)


def _is_ready(row: dict[str, Any], supervisor: dict[str, Any]) -> bool:
    """Ready, and started by the current supervisor.

    An orphan of an earlier supervisor was registered earlier, or is never ready, because it checks
    its parent first.
    """
    ready = row["state"] == "ready" and row["started_at"] >= supervisor["started_at"]
    return ready and processes.alive(row["process"])


def _shown_state(row: dict[str, Any]) -> str:
    if row["state"] != "ready":
        return str(row["state"])
    return "busy" if row["jobs"] else "idle"
