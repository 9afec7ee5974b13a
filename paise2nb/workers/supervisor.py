"""The supervisor: spawns the worker processes of one job table and looks after them.

It runs no job and loads no plugin, so that nothing a job does can take it down. It owns what a
worker can't do for itself: rescue its jobs when it dies, end it when a job is past its limits,
bring it back, and let it go when there has been no work for a while.
"""

from __future__ import annotations

import json
import logging
import logging.handlers
import os
import signal
import subprocess
import sys
import time
from collections import Counter
from contextlib import suppress
from pathlib import Path
from typing import Any, NamedTuple

from paise2nb.config.settings import Settings
from paise2nb.core import processes
from paise2nb.core.errors import PaiseError, StorageError, WorkersError
from paise2nb.core.wakeup import Listener
from paise2nb.jobs import IMMEDIATE, JobStore, Outcome
from paise2nb.jobs.retry import CRASH_POLICIES, charge_crash, crash_outcomes, released
from paise2nb.workers.logs import configure_logging, log_directory
from paise2nb.workers.spawn import STOP_SECONDS, received_message, spawn

logger = logging.getLogger("paise2nb.supervisor")

BUSY_TICK = 0.25  # seconds between looks at limits while jobs run
# The same while one holds over half of its memory: a bomb grows fast. Nor does it look more often
# than this when brief jobs ring hundreds of times a second; a death is seen at once.
NEAR_TICK = 0.02
IDLE_TICK = 1.0
CHECK_SECONDS = 2.0  # between looks at the database file itself
MINUTE = 60.0
STARTS_A_MINUTE = 8  # of workers that have not yet become ready
LOG_BYTES = 5_000_000
LOG_FILES = 3


class Verdict(NamedTuple):
    """Why a worker is being killed: a job that is past its limits, or one that was cancelled."""

    job: int
    outcome: str
    reason: str


class Supervisor:
    """The one supervisor of a job table.

    Args:
        settings: resolved; the workers get exactly these.
        options: ``sizes`` (processes of each pool), ``burst``, ``foreground``.
        path: of the job table, as the provider of the queue chose it.
    """

    def __init__(self, settings: Settings, options: dict[str, Any], path: Path) -> None:
        assert settings.data_dir is not None
        self.settings = settings
        self.options = options
        self.data_dir = settings.data_dir
        self.job_store = JobStore(path, durable=False, host_delay=settings.fetch.host_delay)
        self._children: dict[str, tuple[str, subprocess.Popen[bytes]]] = {}  # by process name
        self._marks: dict[str, str] = {}  # by process name: for what a worker leaves behind
        self._unproven: dict[str, float] = {}  # starts that have not become ready: their times
        self._ready_at = -MINUTE  # monotonic: when a worker was last seen to have become ready
        self._since: dict[tuple[int, int], float] = {}  # executions: when first seen, monotonic
        self._memory: dict[int, float] = {}  # by pid: what is held at this look, in MB
        self._verdicts: dict[str, Verdict] = {}  # by process name
        self._near = False  # whether a job may soon be past its memory
        self._stop_at: float | None = None  # monotonic: the deadline of a drain
        self._quiet_since = time.monotonic()
        self._checked_at = time.monotonic()
        self._away = False  # the workers have left for want of work

    def run(self) -> None:
        """Take supervision and keep it until stopped, or idle. Ctrl-C and SIGTERM drain.

        Raises:
            WorkersError: another supervisor has it.
        """
        if not self.job_store.take_supervision(json.dumps(self.options), self.settings.to_json()):
            raise WorkersError("workers run already; see them: paise2 worker status")
        self._log_to_file()
        logger.info("supervisor starts: %s", self.options["sizes"])
        listener = Listener(self.job_store.path, "supervisor")
        previous = {
            number: signal.signal(number, self._on_signal)
            for number in (signal.SIGTERM, signal.SIGINT, signal.SIGCHLD)
        }
        wakeup = signal.set_wakeup_fd(listener.wake_descriptor, warn_on_full_buffer=False)
        try:
            while not self._step():
                listener.wait(self._patience(), debounce=NEAR_TICK)
            self._children.clear()
            self._end_left_behind()
        finally:
            signal.set_wakeup_fd(wakeup)
            for number, action in previous.items():
                signal.signal(number, action)
            listener.close()
            self.job_store.close()
            logger.info("supervisor leaves")

    def _on_signal(self, number: int, frame: object) -> None:
        if number == signal.SIGCHLD:
            return  # only to end the wait
        if self._stop_at is not None:
            self._stop_at = time.monotonic()  # asked twice: at once
        else:
            self._stop_at = float("inf")  # _step reads how long the drain may take

    def _log_to_file(self) -> None:
        path = log_directory(self.data_dir) / "workers.log"
        file = logging.handlers.RotatingFileHandler(path, maxBytes=LOG_BYTES, backupCount=LOG_FILES)
        path.chmod(0o600)
        configure_logging(file)

    def _patience(self) -> float:
        busy = self._children and (self._since or self._unproven or self._stop_at is not None)
        return (NEAR_TICK if self._near else BUSY_TICK) if busy else IDLE_TICK

    def _step(self) -> bool:
        """Look once at everything; True at the end."""
        if time.monotonic() - self._checked_at >= CHECK_SECONDS:
            self._checked_at = time.monotonic()
            try:
                self.job_store.database.check()
            except StorageError as error:
                return self._abandon(error)
        try:
            self._reap()
            self._check_limits()
            if self._stop_at is not None:
                return self._drain()
            self._read_options()
            if self._is_quiet():
                return self._leave()
            self._fill_pools()
        except StorageError:
            logger.exception("the job table can't be used now")
        return False

    def _abandon(self, error: StorageError) -> bool:
        """The job table is lost: end the workers, whose outcomes nobody could keep, and leave."""
        logger.critical("%s; the workers end", error)
        for name in self._children:
            processes.send(name, signal.SIGKILL)
        return True

    # Deaths ----------------------------------------------------------------------------------

    def _reap(self) -> None:
        """Bury whoever died: children, and workers that an earlier supervisor left behind."""
        for name, (pool, child) in list(self._children.items()):
            if child.poll() is not None:
                del self._children[name]
                self._note_death(name, pool, child.returncode)
        for row in self.job_store.workers():
            if row["process"] not in self._children and not processes.alive(row["process"]):
                if row["state"] != "failed":
                    self._rescue_jobs(row)
            elif row["state"] == "ready" and self._unproven.pop(row["process"], None):
                self._ready_at = time.monotonic()
                self.job_store.set_supervisor(problem=None)
                self._forget_failures(row["pool"])
        self._end_left_behind()

    def _end_left_behind(self) -> None:
        """End what dead workers have left behind; after their jobs were taken back: it takes ms."""
        for name in self._marks.keys() - self._children.keys():
            if left := processes.end_marked(self._marks.pop(name)):
                logger.warning("worker %s has left %d processes behind: ended", name, left)

    def _note_death(self, name: str, pool: str, status: int) -> None:
        rows = {row["process"]: row for row in self.job_store.workers()}
        row = rows.get(name)
        if row is not None and (row["state"] in ("ready", "stopping") or row["jobs"]):
            self._unproven.pop(name, None)  # it had started: what it ran has ended it
        if any(row["state"] == "ready" for row in rows.values()):
            self._ready_at = time.monotonic()
        if status == -signal.SIGKILL and time.monotonic() - self._ready_at < MINUTE:
            # Killed from outside, where others did start: that says nothing about this start.
            self._unproven.pop(name, None)
        if name not in self._unproven:
            logger.log(
                logging.INFO if status == 0 else logging.WARNING,
                "worker %s of pool %s ended with status %s", name, pool, status,
            )  # fmt: skip
            return
        reason = (row and row["error"]) or f"it ended with status {status}"
        if status != 0 and self._stop_at is None:
            self._forget_failures(pool, but=name)
            problem = f"a worker of pool {pool} can't start: {reason}"
            self.job_store.set_supervisor(problem=problem)
            logger.error(problem)

    def _forget_failures(self, pool: str, but: str | None = None) -> None:
        """Take out the rows of failed starts; not of those whose reason has yet to be read."""
        kept = {but, *self._children}
        for row in self.job_store.workers():
            if row["state"] == "failed" and row["pool"] == pool and row["process"] not in kept:
                self.job_store.rescue_jobs(row["id"], released)

    def _rescue_jobs(self, row: dict[str, Any]) -> None:
        verdict = self._verdicts.pop(row["process"], None)
        noted = self.job_store.get(CRASH_POLICIES)
        crashed = crash_outcomes(self.settings, noted)

        def decide(job: dict[str, Any], only: bool) -> Outcome:
            if self._stop_at is not None and time.monotonic() >= self._stop_at:
                return released(job, only)
            if verdict is None:
                return crashed(job, only)
            if job["id"] == verdict.job and verdict.outcome != "cancelled":
                return charge_crash(
                    self.settings, job["task"], job["crashes"] + 1,
                    verdict.outcome, verdict.outcome, verdict.reason, noted,
                )  # fmt: skip
            # Who took the memory can't be told where several run: each runs alone next.
            return Outcome("released", "queued", isolated=verdict.outcome == "memory")

        moved = self.job_store.rescue_jobs(row["id"], decide)
        if moved:
            logger.warning("worker %s died; its jobs %s are taken back", row["process"], moved)

    # Limits ----------------------------------------------------------------------------------

    def _check_limits(self) -> None:
        """Kill the process of a job that is past its time or memory, or was cancelled."""
        now, self._near = time.monotonic(), False
        self._memory = {}
        held = self.job_store.claimed()
        names = {row["id"]: row for row in self.job_store.workers()} if held else {}
        jobs_of = Counter(job["worker"] for job in held)
        # Monotonic, and from the first look on: the wall clock may move.
        self._since = {
            (job["id"], job["run"]): self._since.get((job["id"], job["run"]), now) for job in held
        }
        for job in held:
            worker = names.get(job["worker"])
            if worker is None or worker["pool"] == IMMEDIATE:
                continue
            ran = now - self._since[job["id"], job["run"]]
            verdict = self._verdict(job, worker, ran, jobs_of[job["worker"]])
            if verdict is not None and worker["process"] not in self._verdicts:
                self._verdicts[worker["process"]] = verdict
                logger.warning("worker %s is killed: %s", worker["process"], verdict.reason)
                processes.send(worker["process"], signal.SIGKILL)

    def _verdict(
        self, job: dict[str, Any], worker: dict[str, Any], ran: float, running: int
    ) -> Verdict | None:
        if job["state"] != "running":
            # Cancelled; there is no grace any more once it is to run again.
            ended = job["finished_at"]
            grace = self.settings.workers.cancel_grace
            if ended is not None and self.job_store.now() - ended < grace:
                return None
            return Verdict(job["id"], "cancelled", f"job {job['id']} was cancelled")
        if job["timeout"] and ran > job["timeout"]:
            return Verdict(job["id"], "timeout", f"timeout: ran longer than {job['timeout']:g} s")
        if job["memory_mb"]:
            pid = worker["pid"]
            resident = self._memory[pid] = self._memory.get(pid) or processes.family_mb(pid)
            self._near = self._near or resident > job["memory_mb"] / 2
            if resident > job["memory_mb"]:
                reason = f"memory: {resident:,.0f} MB, more than {job['memory_mb']:g} MB"
                return Verdict(job["id"] if running == 1 else 0, "memory", reason)
        return None

    # Coming and going ------------------------------------------------------------------------

    def _read_options(self) -> None:
        row = self.job_store.supervisor()
        if row is not None:
            before, self.options = self.options, json.loads(row["options"])
            if self.options.get("asked_at") != before.get("asked_at"):
                self._quiet_since, self._away = time.monotonic(), False

    def _fill_pools(self) -> None:
        """Spawn what is missing, but only so many a minute that never become ready."""
        if self._away:
            if not self._has_work():
                return
            self._away = False
        now = time.monotonic()
        self._unproven = {name: at for name, at in self._unproven.items() if now - at < MINUTE}
        # One that gives way to a fresh process may have a long job to finish.
        leaving = {row["process"] for row in self.job_store.workers() if row["state"] == "stopping"}
        alive = Counter(pool for name, (pool, _) in self._children.items() if name not in leaving)
        wanted = Counter(self.options["sizes"])
        # Jobs that must run alone need a process with a single thread, as long as there are some.
        for name in self.job_store.pools_waiting_alone() & wanted.keys():
            if (
                name in self.settings.workers.pools
                and self.settings.workers.pools[name].threads > 1
            ):
                wanted[f"{name}:alone"] = 1
        for pool_name, size in wanted.items():
            for _ in range(size - alive[pool_name]):
                if len(self._unproven) < STARTS_A_MINUTE:
                    self._spawn(pool_name)
        for name, (pool, _) in self._children.items():
            if pool not in wanted and name not in self._unproven:
                processes.send(name, signal.SIGTERM)

    def _spawn(self, pool: str) -> None:
        sent = {
            "settings": self.settings.to_json(),
            "pool": pool,
            "job_store": str(self.job_store.path),
        }
        mark = processes.new_mark()
        child = spawn("worker", sent, self.data_dir, mark)
        name = processes.identity(child.pid) or f"{child.pid}-gone"
        self._marks[name] = mark
        self._children[name] = (pool, child)
        self._unproven[name] = time.monotonic()

    def _has_work(self) -> bool:
        due = self.job_store.next_time()
        return bool(self.job_store.ready_tasks()) or (
            due is not None and due <= self.job_store.now()
        )

    def _is_quiet(self) -> bool:
        """Whether it is time to leave: in a burst when all is done, else after idle_exit."""
        if self.options["burst"]:
            return not self._unproven and not self.job_store.busy()
        if self._since or self._has_work() or self._unproven:
            self._quiet_since = time.monotonic()
        limit = self.settings.workers.idle_exit
        if self.options["foreground"] or not limit:
            return False
        return time.monotonic() - self._quiet_since >= limit

    def _leave(self) -> bool:
        """Let the workers go; leave too, unless a job has a time or arrives this moment."""
        if self._children:
            logger.info("no work: the workers leave")
            for name in self._children:
                processes.send(name, signal.SIGTERM)
        burst = self.options["burst"]
        self._away = True
        if self._children or (not burst and self.job_store.next_time() is not None):
            return self._comes_back()
        state = "stopped" if burst else "idle"
        return self.job_store.leave_supervision(state, unless_ready=not burst)

    def _comes_back(self) -> bool:
        if self._has_work() and not self._children:
            self._quiet_since = time.monotonic()
            self._fill_pools()
        return False

    def _drain(self) -> bool:
        """Tell every worker to finish; at the deadline end the rest; True when all are gone."""
        assert self._stop_at is not None
        if self._stop_at == float("inf"):
            self._read_options()
            seconds = self.options.get("stop_seconds", STOP_SECONDS)
            self._stop_at = time.monotonic() + seconds
            logger.info("draining for at most %g s", seconds)
            for name in self._all_workers():
                processes.send(name, signal.SIGTERM)
            self.job_store.set_supervisor(state="stopping")
        living = [name for name in self._all_workers() if processes.alive(name)]
        if not living:
            self._reap()  # who died since the last look, too: nobody else knows why
            if self._children:
                return False  # whose last threads are still ending: to be buried at the next look
            with suppress(StorageError):  # a full disk; that this process is gone tells as much
                self.job_store.leave_supervision("stopped", unless_ready=False)
            return True
        if time.monotonic() >= self._stop_at:
            for name in living:
                processes.send(name, signal.SIGKILL)
        return False

    def _all_workers(self) -> set[str]:
        rows = self.job_store.workers()
        named = {row["process"] for row in rows if row["pool"] != IMMEDIATE}
        return named | set(self._children)


def main() -> None:
    """Run the supervisor in a process of its own."""
    received = received_message()
    settings = Settings.from_json(received["settings"])
    os.environ["PAISE2_PROFILE"] = settings.profile
    try:
        Supervisor(settings, received["options"], Path(received["job_store"])).run()
    except PaiseError as error:
        sys.exit(str(error))


__all__ = ["Supervisor", "main"]
