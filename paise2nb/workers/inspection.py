"""What the rows of the job store say about its workers: who runs, and what keeps jobs waiting."""

import json
import subprocess
from collections.abc import Iterable
from contextlib import suppress
from typing import Any

from paise2nb.config.settings import DEFAULT_POOL, Settings
from paise2nb.core import processes
from paise2nb.core.disks import network_filesystem
from paise2nb.core.errors import PluginError, SettingsError
from paise2nb.jobs.models import ELSEWHERE, HERE, IMMEDIATE, RUNNING
from paise2nb.jobs.parts import Parts
from paise2nb.jobs.workers_status import (
    OTHER_SETTINGS,
    Pauses,
    WorkersStatus,
    elsewhere,
    no_worker_runs,
    pause_reason,
    pool_without_workers,
)
from paise2nb.workers.queue import JobHuey

_TIMES = ("started_at", "heartbeat_at")
_SHOWN = ("pool", "pid", "host", "presence", "state", "jobs", "started_at", "heartbeat_at", "error")
_MACHINE = (
    "host", "pid", "state", "jobs", "pools", "version", "started_at", "heartbeat_at", "problem",
)  # fmt: skip


class WorkersInspection:
    """The background workers of one job store, as its rows describe them.

    Args:
        parts: The job store, the settings and the plugins.
        queue: The queue of this process.
    """

    def __init__(self, parts: Parts, queue: JobHuey) -> None:
        self._parts = parts
        self._job_store = parts.job_store
        self._queue = queue
        self._child: subprocess.Popen[bytes] | None = None  # the supervisor, if started here

    def status(self) -> WorkersStatus:
        """Return the workers that run now, and the problem that keeps jobs from running."""
        workers = [
            self._shown(row, _SHOWN)
            for row in self._rows()
            if row["state"] == "failed" or row["presence"] in RUNNING
        ]
        workers.sort(key=lambda row: (row["pool"] != DEFAULT_POOL, row["pool"]))
        running = self._running_supervisor()
        problem = self._problem(running, workers)
        rows = ({**row, **row["about"]} for row in self._job_store.machines())
        machines = [self._shown(row, _MACHINE) for row in rows]
        supervisor = None
        if running is not None:
            started_at = self._job_store.iso_time(running["started_at"])
            supervisor = {"pid": running["pid"], "started_at": started_at}
        return WorkersStatus(workers, supervisor, problem, machines=machines)

    def _shown(self, row: dict[str, Any], names: Iterable[str]) -> dict[str, Any]:
        """Return what users see of a worker or a machine."""
        times = {name: self._job_store.iso_time(row[name]) for name in _TIMES}
        state = row["state"] if row["state"] != "ready" else "busy" if row["jobs"] else "idle"
        row = {**row, **times, "state": state}
        return {name: row[name] for name in names}

    def _served(self, supervisor: dict[str, Any]) -> set[str]:
        """Return the pools with workers, here or on a machine that has joined."""
        machines = (row["about"]["pools"] for row in self._job_store.machines())
        return set(supervisor["options"]["sizes"]).union(*machines)

    def _problem(
        self, supervisor: dict[str, Any] | None, workers: list[dict[str, Any]]
    ) -> str | None:
        if (pauses := self.pauses()).reasons():
            return str(pauses)
        if supervisor is None:
            waiting = self._job_store.busy()
            if waiting and not workers and not self._queue.runs_immediately:
                return no_worker_runs(waiting)
            return None
        if supervisor["problem"]:
            return f"{supervisor['problem']}; fix it, then: paise2 worker restart"
        if kind := network_filesystem(self._job_store.path.parent):
            return (
                f"{self._parts.data_dir} is on a network filesystem ({kind}), where jobs may be "
                "lost; choose a local directory with --data-dir or PAISE2_DATA_DIR"
            )
        try:
            running = Settings.from_json(supervisor["settings"])
        except SettingsError:
            return "the workers run another version of paise2nb; to use this: paise2 worker restart"
        same = running == self._parts.settings.without_secrets()
        if not same and supervisor["presence"] == HERE:
            return OTHER_SETTINGS
        with suppress(PluginError):
            self._parts.plugins.refresh()  # another process may have saved one
        tasks = self._job_store.ready_tasks()
        if unknown := tasks - set(self._parts.plugins.tasks):
            names = ", ".join(sorted(unknown))
            return (
                f"jobs of task {names} wait: no loaded plugin defines it; add one to `plugins`, "
                "or: paise2 plugins enable NAME"
            )
        pools = set(map(self._parts.pool_of, tasks)) - self._served(supervisor)
        reasons = map(pool_without_workers, sorted(pools))
        return next((f"jobs wait, and {reason}" for reason in reasons), None)

    def _rows(self) -> list[dict[str, Any]]:
        return [row for row in self._job_store.workers() if row["pool"] != IMMEDIATE]

    def _running_supervisor(self) -> dict[str, Any] | None:
        """Return the supervisor if its process is running: its row, pid and decoded options."""
        if self._child is not None:
            self._child.poll()  # so that an ended one is no zombie
        row = self._job_store.running_supervisor()
        if row is None:
            return None
        pid, options = processes.pid_of(row["process"]), json.loads(row["options"])
        return {**row, "pid": pid, "options": options}

    def sizes(self) -> dict[str, int]:
        """Return the number of processes of each pool that runs, as it was chosen."""
        supervisor = self._running_supervisor()
        return dict(supervisor["options"]["sizes"]) if supervisor else {}

    def present(self) -> bool:
        """Whether any background process runs jobs, or will."""
        found = (row["presence"] in RUNNING for row in self._rows())
        return self._running_supervisor() is not None or any(found)

    def elsewhere(self) -> str | None:
        """Return where a supervisor runs that this process can't see, or None."""
        supervisor = self._running_supervisor()
        if supervisor is None or supervisor["presence"] != ELSEWHERE:
            return None
        return elsewhere(supervisor)

    def pauses(self) -> Pauses:
        """Return what is paused now."""
        return Pauses.of(self._job_store.paused_pools())

    def held(self, ids: Iterable[int] | None = None) -> str | None:
        """Return why no unfinished job can start, or none of some trees.

        Their pools are paused or have no workers. None if a job can start or runs.

        Args:
            ids: The roots of the trees; None: all jobs.
        """
        if self._job_store.counts()[0]["running"]:
            return None
        paused = self._job_store.paused_pools()
        supervisor = self._running_supervisor()
        served = self._served(supervisor) if supervisor else None
        if "" in paused:
            return pause_reason()
        reasons = []
        for pool in sorted(set(map(self._parts.pool_of, self._job_store.unfinished_tasks(ids)))):
            if pool in paused:
                reasons.append(pause_reason(pool))
            elif served is not None and pool not in served:
                reasons.append(pool_without_workers(pool))
            else:
                return None
        return "; ".join(reasons) or None
