"""Background workers: started, found again, and stopped from any process.

One supervisor for each job table, in a session of its own, spawns the worker processes and looks
after them. Who and what runs is written in the job table, so any process can tell; a process is
named by pid and start time, so none is ever mistaken for another.
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
from paise2nb.jobs import IMMEDIATE
from paise2nb.jobs.parts import Parts
from paise2nb.jobs.retry import released
from paise2nb.jobs.workers_status import WorkersStatus, no_worker_runs
from paise2nb.workers.spawn import STOP_SECONDS, spawn

START_SECONDS = 60.0  # a start that takes longer has failed
POLL_SECONDS = 0.02


class Workers:
    """The background workers of one job store.

    Args:
        parts: the job store, the settings and the plugins.
        notifier: wakes the supervisor.
        immediate: jobs run in this process.
    """

    def __init__(self, parts: Parts, notifier: Notifier, *, immediate: bool) -> None:
        self._parts = parts
        self._job_store = parts.job_store
        self._notifier = notifier
        self._immediate = immediate
        self._child: subprocess.Popen[bytes] | None = None  # the supervisor, if started here

    @cached_property
    def _network(self) -> str | None:
        return network_filesystem(self._job_store.path.parent)

    # Looking ---------------------------------------------------------------------------------

    def status(self) -> WorkersStatus:
        """Who runs now, and what keeps jobs from running."""
        rows = [row for row in self._job_store.workers() if row["pool"] != IMMEDIATE]
        workers = [
            {
                "pool": row["pool"],
                "pid": row["pid"],
                "state": _shown_state(row),
                "jobs": row["jobs"],
                "started_at": self._job_store.iso_time(row["started_at"]),
                "heartbeat_at": self._job_store.iso_time(row["heartbeat_at"]),
                "error": row["error"],
            }
            for row in rows
            if row["state"] == "failed" or processes.alive(row["process"])
        ]
        row = self._supervisor()
        alive = row is not None and row["process"] is not None
        supervisor = None
        if row is not None and alive:
            pid = int(row["process"].split("-")[0])
            supervisor = {"pid": pid, "started_at": self._job_store.iso_time(row["started_at"])}
        return WorkersStatus(workers, supervisor, self._problem(row if alive else None, workers))

    def _problem(
        self, supervisor: dict[str, Any] | None, workers: list[dict[str, Any]]
    ) -> str | None:
        if supervisor is None:
            waiting = self._job_store.busy()
            if waiting and not workers and not self._immediate:
                return no_worker_runs(waiting)
            return None
        if supervisor["problem"]:
            return f"{supervisor['problem']}; mend it, then: paise2 worker restart"
        if kind := self._network:
            return (
                f"{self._parts.data_dir} lies on a network filesystem ({kind}), where jobs may be "
                "lost; choose a local one with --data-dir or PAISE2_DATA_DIR"
            )
        if Settings.from_json(supervisor["settings"]) != self._parts.settings:
            return "the workers run with other settings; to use these: paise2 worker restart"
        if unknown := self._job_store.ready_tasks() - set(self._parts.plugins.tasks):
            names = ", ".join(sorted(unknown))
            return (
                f"jobs of task {names} wait: no loaded plugin defines it; add it to `plugins`, "
                "or: paise2 plugins enable NAME"
            )
        return None

    def _supervisor(self) -> dict[str, Any] | None:
        """The supervisor's row; its process None where that is gone."""
        if self._child is not None:
            self._child.poll()  # one that has ended is no zombie from here on
        row = self._job_store.supervisor()
        if row is not None and row["process"] and not processes.alive(row["process"]):
            row["process"] = None
        return row

    def present(self) -> bool:
        """Whether anything runs, or will run, jobs in the background."""
        row = self._supervisor()
        if row is not None and row["process"] is not None:
            return True
        return any(
            row["pool"] != IMMEDIATE and processes.alive(row["process"])
            for row in self._job_store.workers()
        )

    # Starting --------------------------------------------------------------------------------

    def start(
        self,
        concurrency: int | None = None,
        pool: str | None = None,
        *,
        burst: bool = False,
        foreground: bool = False,
    ) -> WorkersStatus:
        """Start the workers; return when every one is ready. What runs already is said.

        Args:
            concurrency: processes of the pool ``default``, or of the pool that is named.
            pool: start (or add) only this one.
            burst: leave when nothing is left to do.
            foreground: this process is the supervisor, until Ctrl-C, which drains.

        Raises:
            UsageError: an unknown pool.
            WorkersError: a worker can't start; with its reason.
        """
        sizes = self.sizes(concurrency, pool)
        row = self._drained()
        if row is not None and row["process"] is not None:
            running = json.loads(row["options"])
            missing = {name: size for name, size in sizes.items() if name not in running["sizes"]}
            added = pool is not None and missing
            if added:
                running["sizes"].update(missing)
            # The time ends the rest of workers that had left for want of work.
            running["asked_at"] = self._job_store.now()
            self._job_store.set_supervisor(options=json.dumps(running))
            self._notifier.notify()
            return self._ready("added" if added else "already running", None)
        options = {"sizes": sizes, "burst": burst, "foreground": foreground}
        if foreground:
            from paise2nb.workers.supervisor import Supervisor

            Supervisor(self._parts.settings, options, self._job_store.path).run()
            return self._said("stopped")
        child = self._spawn(self._parts.settings.to_json(), json.dumps(options))
        return self._ready("started", child)

    def _drained(self) -> dict[str, Any] | None:
        """The supervisor's row; one that is told to stop is waited for.

        Raises:
            WorkersError: its drain takes longer than was said.
        """
        deadline: float | None = None
        while (row := self._supervisor()) and row["process"] and row["state"] == "stopping":
            seconds = json.loads(row["options"]).get("stop_seconds", STOP_SECONDS)
            deadline = deadline or time.monotonic() + seconds + START_SECONDS
            if time.monotonic() > deadline:
                raise _stuck(row)
            time.sleep(POLL_SECONDS)
        return row

    def sizes(self, concurrency: int | None = None, pool: str | None = None) -> dict[str, int]:
        """The pools that a start with these options starts, with their numbers of processes.

        Raises:
            UsageError: an unknown pool, or a concurrency out of range.
            WorkersError: no worker can have a part in this queue.
        """
        if self._parts.settings.task_queue.provider == "none":
            raise WorkersError(
                "task_queue.provider is none: jobs run where they are enqueued; "
                "use a profile with provider sqlite"
            )
        workers = self._parts.settings.workers
        if concurrency is not None and not 1 <= concurrency <= 1024:
            raise UsageError(f"concurrency is {concurrency}; give a number from 1 to 1024")
        known = {"default": workers.concurrency} | {
            name: entry.processes for name, entry in workers.pools.items()
        }
        if pool is not None:
            if pool not in known:
                raise UsageError(f"unknown pool {pool!r}; known: {', '.join(known)}")
            known = {pool: known[pool]}
        if concurrency is not None:
            known[pool or "default"] = concurrency
        return known

    def _spawn(self, settings: str, options: str) -> subprocess.Popen[bytes]:
        received = {
            "settings": settings, "options": json.loads(options),
            "job_store": str(self._job_store.path),
        }  # fmt: skip
        self._child = spawn("supervisor", received, self._parts.data_dir)
        return self._child

    def _ready(self, word: str, child: subprocess.Popen[bytes] | None) -> WorkersStatus:
        """Wait until every wanted worker is there. Raises WorkersError with the reason if not."""
        deadline = time.monotonic() + START_SECONDS
        while time.monotonic() < deadline:
            row = self._supervisor()
            ended = child is None or child.poll() is not None
            if ended and (row is None or row["process"] is None):
                if child is None:
                    raise WorkersError("the workers have just left; again: paise2 worker start")
                if child.returncode == 0:  # all done already, in a burst
                    return self._said(word)
                break
            if row is not None and row["process"] is not None:
                if row["problem"]:
                    raise WorkersError(f"{row['problem']}; mend it, then: paise2 worker restart")
                wanted: dict[str, int] = json.loads(row["options"])["sizes"]
                pools = [w["pool"] for w in self._job_store.workers() if _serves(w, row)]
                if all(pools.count(name) >= size for name, size in wanted.items()):
                    return self._said(word)
            time.sleep(POLL_SECONDS)
        log = self._parts.data_dir / "logs" / "workers.log"
        raise WorkersError(f"the workers did not start; the reason stands at the end of {log}")

    def _said(self, what: str) -> WorkersStatus:
        found = self.status()
        found.message = f"{found.summary()} {what}" if found.workers else f"workers {what}"
        return found

    def restart_idle(self) -> None:
        """Start again what left for want of work; not what a user stopped."""
        row = self._job_store.supervisor()
        if row is not None and row["state"] == "idle":
            self._spawn(row["settings"], row["options"])

    # Stopping --------------------------------------------------------------------------------

    def stop(self, timeout: float | None = None) -> WorkersStatus:
        """Drain: running jobs may finish until the timeout, then they go back to the queue.

        Args:
            timeout: seconds; 30 by default.
        """
        seconds = STOP_SECONDS if timeout is None else timeout
        row = self._supervisor()
        if row is None or row["process"] is None:
            found = self._stop_orphans(seconds)
            if row is not None:
                self._job_store.set_supervisor(state="stopped", process=None)
            return self._said("stopped" if found else "not running")
        options = {**json.loads(row["options"]), "stop_seconds": seconds}
        self._job_store.set_supervisor(options=json.dumps(options))
        processes.send(row["process"], signal.SIGTERM)
        deadline = time.monotonic() + seconds + START_SECONDS
        while processes.alive(row["process"]):
            if time.monotonic() > deadline:
                raise _stuck(row)
            time.sleep(POLL_SECONDS)
        return self._said("stopped")

    def _stop_orphans(self, seconds: float) -> bool:
        """Stop workers whose supervisor has died."""
        rows = [row for row in self._job_store.workers() if row["pool"] != IMMEDIATE]
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

    def restart(self, timeout: float | None = None) -> WorkersStatus:
        """Drain, then start with the settings and plugins as they are now, and the same options."""
        row = self._job_store.supervisor()
        options = json.loads(row["options"]) if row is not None else {}
        self.stop(timeout)
        configured = self.sizes()
        sizes = {
            name: size
            for name, size in options.get("sizes", configured).items()
            if name in configured
        }
        child = self._spawn(
            self._parts.settings.to_json(),
            json.dumps({
                "sizes": sizes or configured, "burst": options.get("burst", False),
                "foreground": False,
            }),
        )  # fmt: skip
        return self._ready("restarted", child)


def _stuck(supervisor: dict[str, Any]) -> WorkersError:
    pid = supervisor["process"].split("-")[0]
    return WorkersError(f"the supervisor (pid {pid}) does not stop; kill it: kill -9 {pid}")


def _serves(row: dict[str, Any], supervisor: dict[str, Any]) -> bool:
    """Whether a worker is ready, and no orphan of an earlier supervisor, which is about to leave.

    An orphan has registered before, or finds its parent gone before it says that it is ready.
    """
    ready = row["state"] == "ready" and row["started_at"] >= supervisor["started_at"]
    return ready and processes.alive(row["process"])


def _shown_state(row: dict[str, Any]) -> str:
    if row["state"] != "ready":
        return str(row["state"])
    return "busy" if row["jobs"] else "idle"


__all__ = ["Workers"]
