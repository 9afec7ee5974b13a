"""Start, find and stop background workers from any process.

Each job store has one supervisor, in a session of its own, which starts the worker processes. The
job store has a row for each of them, so that every process can find them. A row names a process by
its identity, because a pid alone may belong to another process by now.
"""

import json
import signal
import subprocess
import time
from collections import Counter
from contextlib import suppress
from copy import deepcopy
from typing import Any

from paise2nb.config.settings import DEFAULT_POOL, RELAY, Settings
from paise2nb.config.specs import AUTO
from paise2nb.core import processes
from paise2nb.core.disks import full_disk
from paise2nb.core.errors import NotFound, StorageError, UsageError, WorkersError
from paise2nb.jobs.models import ELSEWHERE, HERE, whole_number
from paise2nb.jobs.retry import released
from paise2nb.jobs.store import JobStore
from paise2nb.jobs.workers_status import Pauses, WorkersStatus, elsewhere
from paise2nb.workers.inspection import WorkersInspection
from paise2nb.workers.logs import log_path
from paise2nb.workers.spawn import STOP_SECONDS, spawn

START_SECONDS = 60.0  # a start that takes longer has failed
POLL_SECONDS = 0.02
# What a restart keeps, with its default.
_TYPED = {"typed": {}, "only": False, "burst": False, "drain_timeout": None}


class _HasLeft(WorkersError):
    """The supervisor left for want of work before it read what was asked of it."""


class Workers(WorkersInspection):
    """The background workers of one job store. See `WorkersInspection` for the arguments."""

    # Pauses ----------------------------------------------------------------------------------

    def pause(self, pool: str | None = None) -> Pauses:
        """Claim no more jobs until `resume`, also after a restart. Running jobs go on.

        Args:
            pool: Only the jobs of this pool; None: all jobs.

        Raises:
            UsageError: The pool is unknown.
        """
        self._job_store.pause(self._known_pool(pool))
        return self.pauses()

    def resume(self, pool: str | None = None) -> Pauses:
        """End the pause of a pool, or all pauses for None.

        Raises:
            UsageError: The pool is unknown.
        """
        if pool not in self._job_store.paused_pools():  # its settings may have changed
            pool = self._known_pool(pool)
        self._job_store.resume(pool or "")
        return self.pauses()

    def _known_pool(self, pool: str | None) -> str:
        known = {DEFAULT_POOL, *self._parts.settings.workers.pools}
        if pool is not None and pool not in known:
            raise UsageError(f"unknown pool {pool!r}; known: {', '.join(sorted(known))}")
        return pool or ""

    # Starting --------------------------------------------------------------------------------

    def start(
        self,
        concurrency: int | str | None = None,
        pool: str | None = None,
        *,
        burst: bool = False,
        foreground: bool = False,
        drain_timeout: float | None = None,
    ) -> WorkersStatus:
        """Start the workers, and return when all are ready.

        Running workers go on. What is missing is started, and a pool with a given size is scaled:
        workers that leave finish their jobs first.

        Args:
            concurrency: The number of processes of the named pool, or of the pool ``default``;
                ``auto`` is one for each core.
            pool: Start (or add) only this pool.
            burst: Stop when no work is left: of all pools, or of the named one.
            foreground: Supervise in this process until Ctrl-C, which drains.
            drain_timeout: Seconds that running jobs have to finish after Ctrl-C or SIGTERM; 25 by
                default.

        Raises:
            UsageError: The pool is unknown, or the concurrency is out of range.
            WorkersError: A worker can't start. The message contains the reason.
        """
        typed = self.check(concurrency, pool)
        running = self._supervisor_after_drain()
        if running is not None and running["presence"] == ELSEWHERE:
            running = self._after_lease(running)
        if running is not None:
            with suppress(_HasLeft):
                return self._change(running, typed, drain_timeout, named=pool is not None)
        if burst and (pauses := self.pauses()).reasons():
            raise WorkersError(f"a burst would not end: {pauses}")
        options = {"typed": typed, "only": pool is not None}
        options |= {"sizes": _sizes(self._parts.settings, options)}
        options |= {"burst": burst, "foreground": foreground, "drain_timeout": drain_timeout}
        options |= {"pools": {name: self._parts.pool_of(name) for name in self._parts.limits()}}
        if foreground:
            from paise2nb.workers.supervisor import Supervisor

            settings = self._parts.settings
            path, host_delay = self._job_store.path, settings.fetch.host_delay
            job_store = JobStore(path, durable=False, host_delay=host_delay)
            Supervisor(settings, options, job_store).run()
            return self._status_with_message("stopped")
        child = self._spawn(self._parts.settings.to_json(), options)
        status = self._wait_until_ready("started", child)
        running = self._running_supervisor()
        if running is not None and running["pid"] != child.pid:  # that of another process
            return self._change(running, typed, drain_timeout, named=pool is not None)
        return status

    def check(
        self, concurrency: int | str | None = None, pool: str | None = None
    ) -> dict[str, Any]:
        """Check the options of a start.

        Returns:
            The size of the pool that they name, None for that of the settings.

        Raises:
            UsageError: The pool is unknown, the concurrency is out of range, or jobs run in the
                process that enqueues them.
            PluginError: A plugin can't be loaded.
            WorkersError: The queue has no workers, or the provider redis needs redis-py.
        """
        self._parts.plugins.require_all()
        provider = self._parts.settings.task_queue.provider
        if provider == "redis":
            from paise2nb.workers.machines.messages import require_redis

            require_redis()
        if provider == "none":
            raise WorkersError(
                "task_queue.provider is none: jobs run where they are enqueued; "
                "use a profile with provider sqlite"
            )
        if self._queue.runs_immediately:
            raise UsageError(
                "task_queue.sqlite.immediate is true: jobs run where they are enqueued; choose "
                "another profile"
            )
        if concurrency == AUTO:
            concurrency = processes.usable_cores()
        if concurrency is not None:
            concurrency = whole_number("concurrency", concurrency, " from 1 to 1024, or auto")
            if not 1 <= concurrency <= 1024:
                raise UsageError(
                    f"concurrency is {concurrency}; give a number from 1 to 1024, or auto"
                )
        self._known_pool(pool)
        if concurrency is None and pool is None:
            return {}
        return {pool or DEFAULT_POOL: concurrency}

    def _change(
        self,
        running: dict[str, Any],
        typed: dict[str, int | None],
        drain_timeout: float | None,
        *,
        named: bool,
    ) -> WorkersStatus:
        """Add pools to running workers, or scale them.

        Args:
            running: The supervisor.
            typed: The sizes of pools that were given, None for those of the settings.
            drain_timeout: As in `start`.
            named: Whether only the pool in `typed` is wanted.
        """
        settings = Settings.from_json(running["settings"])
        before: dict[str, int] = {}
        sizes: dict[str, int] = {}
        if unknown := typed.keys() - _sizes(settings, {}).keys():
            raise WorkersError(
                f"the workers run with other settings, without a pool {unknown.pop()}; "
                "to use these: paise2 worker restart"
            )

        def change(options: dict[str, Any]) -> None:  # another process may just have changed them
            before.update(options["sizes"])
            kept = options.get("typed", {})
            options["typed"] = {**typed, **kept, **{k: size for k, size in typed.items() if size}}
            options["only"] = options.get("only", False) and named
            sizes.update(_sizes(settings, options))
            options["sizes"] = sizes
            if drain_timeout is not None:
                options["drain_timeout"] = drain_timeout
            # A new time makes the supervisor start the workers that it stopped when idle.
            options["asked_at"] = self._job_store.now()

        self._job_store.change_options(change)
        message = "added" if sizes.keys() - before.keys() else "scaled"
        return self._wait_until_ready(message if sizes != before else "already running", None)

    def restart_idle(self) -> None:
        """Start the supervisor again if it stopped when idle, not if a user stopped it.

        Like all workers, these have the settings of the process that starts them.
        """
        row = self._job_store.supervisor()
        # Another enqueue may have started it just now.
        if row is None or row["state"] != "idle" or self._running_supervisor() is not None:
            return
        options = _typed_options(row)
        options |= {"sizes": _sizes(self._parts.settings, options), "foreground": False}
        child = self._spawn(self._parts.settings.to_json(), options)
        # Before it can do that itself: until then a wait would find no workers, a stop would miss
        # it, and each further enqueue would start another one.
        stored = self._parts.settings.without_secrets().to_json()
        with suppress(StorageError):  # a full disk, or a lock: the jobs are stored already
            self._job_store.announce_supervision(child.pid, json.dumps(options), stored)

    def restart(
        self, timeout: float | None = None, concurrency: int | str | None = None
    ) -> WorkersStatus:
        """Drain, then start with the current settings and plugins, and the options of the start.

        Args:
            timeout: Seconds that the drain may take; 30 by default.
            concurrency: As in `start`. A pool that was started alone is scaled.

        Raises:
            UsageError: The concurrency is out of range.
            WorkersError: A worker can't start. The message contains the reason.
        """
        options = _typed_options(self._job_store.supervisor())
        alone = options["only"] and len(options["typed"]) == 1
        typed = self.check(concurrency, next(iter(options["typed"])) if alone else None)
        options["typed"] |= {name: size for name, size in typed.items() if size}
        self.stop(timeout)
        options |= {"sizes": _sizes(self._parts.settings, options), "foreground": False}
        child = self._spawn(self._parts.settings.to_json(), options)
        return self._wait_until_ready("restarted", child)

    def _spawn(self, settings: str, options: dict[str, Any]) -> subprocess.Popen[bytes]:
        path, data_dir = self._job_store.path, self._parts.data_dir
        self._child = spawn("supervisor", settings, path, data_dir, options=options)
        return self._child

    def _supervisor_after_drain(self) -> dict[str, Any] | None:
        """Return the running supervisor's row. Wait for the end of one that drains.

        Raises:
            WorkersError: The drain takes longer than it may.
        """
        deadline: float | None = None
        while (row := self._running_supervisor()) and row["state"] == "stopping":
            typed = row["options"].get("drain_timeout") or STOP_SECONDS
            seconds = row["options"].get("stop_seconds", typed)
            deadline = deadline or time.monotonic() + seconds + START_SECONDS
            _pause(deadline, row)
        return row

    def _after_lease(self, supervisor: dict[str, Any]) -> dict[str, Any] | None:
        """Wait until it is clear whether a supervisor that can't be seen is still running.

        Returns:
            The row of a supervisor that has been started here meanwhile, or None.

        Raises:
            WorkersError: It is running.
        """
        row: dict[str, Any] | None = supervisor
        while row is not None and row["presence"] == ELSEWHERE:
            if row["heartbeat_at"] != supervisor["heartbeat_at"]:
                raise WorkersError(f"workers run already, {elsewhere(row)}; stop them there first")
            time.sleep(POLL_SECONDS)
            row = self._running_supervisor()
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
            exit_status = None if child is None else child.poll()
            row = self._running_supervisor()
            if row is not None:
                if row["problem"]:
                    raise WorkersError(f"{row['problem']}; fix it, then: paise2 worker restart")
                if self._all_ready(row):
                    return self._status_with_message(message)
            elif child is None:
                if (left := self._job_store.supervisor()) is None or left["state"] == "idle":
                    raise _HasLeft("the workers left for want of work; again: paise2 worker start")
                raise WorkersError("the workers have just stopped; again: paise2 worker start")
            elif exit_status == 0:  # a burst that has already done everything
                return self._status_with_message(message)
            elif exit_status is not None:
                break
            time.sleep(POLL_SECONDS)
        if reason := full_disk(self._parts.write_dirs()):  # the log can't be written either
            raise WorkersError(f"the workers did not start: {reason}")
        log = log_path(self._parts.data_dir)
        raise WorkersError(f"the workers did not start; the reason is at the end of {log}")

    def _all_ready(self, supervisor: dict[str, Any]) -> bool:
        """Whether just the wanted workers are ready, and started by the current supervisor.

        An orphan of an earlier supervisor was registered earlier, or is never ready, because it
        checks its parent first.
        """
        ready = Counter(
            row["pool"]
            for row in self._rows()
            if row["state"] == "ready"
            and row["started_at"] >= supervisor["started_at"]
            and row["presence"] == HERE
        )
        sizes = supervisor["options"]["sizes"]
        return all(ready[pool] == size for pool, size in sizes.items())

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

        Raises:
            WorkersError: They run where this process can't stop them, or do not stop.
        """
        seconds = STOP_SECONDS if timeout is None else timeout
        supervisor = self._running_supervisor()
        for row in [supervisor] if supervisor is not None else self._rows():
            if row["presence"] == ELSEWHERE:
                raise WorkersError(f"the workers run {elsewhere(row)}; stop them there")
        if supervisor is None:
            stopped = self._stop_orphans(seconds)
            self._job_store.stop_supervision()
            return self._status_with_message("stopped" if stopped else "not running")
        name, signal_at = supervisor["process"], time.monotonic()
        if not self._job_store.ask_to_stop(name, seconds):
            signal_at += seconds  # a second signal ends the drain, which another process began
        deadline = time.monotonic() + seconds + START_SECONDS
        while processes.alive(name):
            if time.monotonic() >= signal_at:
                processes.send(name, signal.SIGTERM)
                signal_at = float("inf")
            _pause(deadline, supervisor)
        self._job_store.stop_supervision()
        if self._running_supervisor() is None:  # or a start that waited would lose its workers
            self._stop_orphans(seconds)  # also the rows of workers that could not start
        return self._status_with_message("stopped")

    def stop_machines(self, host: str) -> WorkersStatus:
        """Ask the machines with a host name to finish their jobs and leave the queue.

        Raises:
            NotFound: No machine with that name has joined.
        """
        if not self._job_store.stop_machines(host):
            names = ", ".join(sorted({row["host"] for row in self._job_store.machines()}))
            raise NotFound(f"no machine {host!r} has joined the queue; known: {names or 'none'}")
        status = self.status()
        status.message = f"the machines {host!r} finish their jobs and leave"
        return status

    def _stop_orphans(self, seconds: float) -> bool:
        """Stop the workers of a supervisor that has ended. Return whether there were any."""
        rows = self._rows()
        living = [
            row
            for row in rows
            if row["presence"] == HERE and processes.send(row["process"], signal.SIGTERM)
        ]
        deadline = time.monotonic() + seconds
        while any(processes.alive(row["process"]) for row in living):
            if time.monotonic() > deadline:
                for row in living:
                    processes.send(row["process"], signal.SIGKILL)
            time.sleep(POLL_SECONDS)
        for row in rows:
            self._job_store.rescue_jobs(row["id"], released)
        return bool(living)


def _typed_options(supervisor: dict[str, Any] | None) -> dict[str, Any]:
    """Return the options of a supervisor that were typed when it was started."""
    options = json.loads(supervisor["options"]) if supervisor is not None else {}
    return {name: options.get(name, default) for name, default in deepcopy(_TYPED).items()}


def _sizes(settings: Settings, options: dict[str, Any]) -> dict[str, int]:
    """Return the number of processes of each pool.

    Args:
        settings: They have all pools.
        options: ``typed``, the sizes that a user has given, None for those of the settings; and
            ``only``, whether there are no other pools.
    """
    workers, typed = settings.workers, options.get("typed", {})
    sizes = {DEFAULT_POOL: workers.concurrency}
    sizes |= {name: configured.processes for name, configured in workers.pools.items()}
    if options.get("only"):
        sizes = {name: size for name, size in sizes.items() if name in typed} or sizes
    sizes |= {name: size for name, size in typed.items() if size and name in sizes}
    return sizes | ({RELAY: 1} if settings.task_queue.provider == "redis" else {})


def _pause(deadline: float, supervisor: dict[str, Any]) -> None:
    """Sleep before the next check whether the supervisor has stopped.

    Raises:
        WorkersError: The deadline (monotonic) has passed.
    """
    if time.monotonic() > deadline:
        if supervisor["presence"] == ELSEWHERE:
            raise WorkersError(f"the workers {elsewhere(supervisor)} do not stop")
        pid = supervisor["pid"]
        raise WorkersError(f"the supervisor (pid {pid}) does not stop; kill it: kill -9 {pid}")
    time.sleep(POLL_SECONDS)
