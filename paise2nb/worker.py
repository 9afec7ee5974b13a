"""The program of a worker process.

It opens an app with the settings of the supervisor, and runs Huey's consumer. If the start fails,
the process records the reason and ends without having claimed a job.
"""

import faulthandler
import logging
import os
import signal
import sys
import threading
import time
from contextlib import suppress
from pathlib import Path
from typing import Any

from paise2nb.app import App
from paise2nb.config.settings import DEFAULT_POOL, RELAY, Settings
from paise2nb.content import engine, render
from paise2nb.core import processes
from paise2nb.core.errors import NewerFormat, PaiseError, StorageError, WorkersError, message
from paise2nb.core.wakeup import Listener
from paise2nb.jobs.models import Worker
from paise2nb.jobs.store import JobStore
from paise2nb.plugins import Plugins
from paise2nb.workers.claims import LONGEST_AHEAD, SAFETY_POLL, end_outdated
from paise2nb.workers.logs import configure_logging, limit_printed_text
from paise2nb.workers.queue import JobHuey
from paise2nb.workers.spawn import receive_message

logger = logging.getLogger("paise2nb.worker")

HEARTBEAT_SECONDS = 3.0
START_FAILED = 3  # exit status
MAX_FILES = 1024  # open files of a worker, in addition to those of its threads' connections
FILES_PER_THREAD = 32
BRIEF_THREADS = 4  # of a process of the pool default, for jobs of tasks with threads=True
MAX_LEFT_THREADS = 50  # threads that jobs have left running, before the process is recycled


def main() -> None:
    """Run one worker process of a pool."""
    settings, received = receive_message()
    assert settings.data_dir is not None
    limit_printed_text(settings.data_dir)
    configure_logging(settings.data_dir, settings.logging)
    logging.getLogger("huey").setLevel(logging.ERROR)
    faulthandler.enable()  # to standard error, which goes to the log
    processes.adopt_orphans()
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # the supervisor handles Ctrl-C
    pool = settings.workers.pools.get(received["pool"])  # none if jobs must run alone
    threads = pool.threads if pool else 1
    processes.bound_files(MAX_FILES + FILES_PER_THREAD * max(threads, BRIEF_THREADS))
    path, host_delay = Path(received["job_store"]), settings.fetch.host_delay
    try:
        job_store: Any
        if path.is_socket():  # on a machine that has joined; other workers do not pay the import
            from paise2nb.workers.machines.remote import RemoteStore

            job_store = RemoteStore(path, settings.data_dir)
        else:
            job_store = JobStore(path, durable=False, host_delay=host_delay)
        worker = job_store.register(received["pool"], threads)
    except NewerFormat as error:
        sys.exit(f"this worker can't start: {error}")
    program = _Relay if received["pool"] == RELAY else _Process
    try:
        program(settings, job_store, worker, threads, received["parent"]).run()
    except Exception as error:  # of any part: the status shows the reason
        logger.exception("this worker can't start")
        job_store.heartbeat(worker, "failed", message(error))
        sys.exit(START_FAILED)
    render.close_browser()
    job_store.leave(worker)
    job_store.close()
    # Python would wait for the threads that jobs have left running, and xberg might abort.
    if engine.is_used() or any(not thread.daemon for thread in threading.enumerate()[1:]):
        logging.shutdown()
        os._exit(0)


class _Process:
    """A worker process while it runs.

    Args:
        parent: The pid of the supervisor that started this process. It may have ended by now.
    """

    def __init__(
        self, settings: Settings, job_store: JobStore, worker: Worker, threads: int, parent: int
    ) -> None:
        self.job_store = job_store
        self.worker = worker
        self.threads = threads
        self.parent = parent
        # A machine that has joined a queue may lack plugins of home. It gets no jobs of theirs.
        plugins = Plugins(settings, tolerant=True) if job_store.is_remote else None
        self.app = App(settings, plugins=plugins, is_worker=True)
        self.huey: JobHuey = self.app.queue
        if self.app.immediate or not job_store.path.samefile(self.huey.job_store.path):
            provider = f"task_queue.provider {settings.task_queue.provider}"
            raise WorkersError(f"{provider} gives a worker no jobs of {job_store.path}")
        if job_store.is_remote:
            from paise2nb.workers.machines.remote import use_remote_parts

            use_remote_parts(self.app.parts)
        self.huey.work_for(worker)
        if worker.pool == DEFAULT_POOL and self.huey.claims.brief:
            self.threads = threads = BRIEF_THREADS
        self._failure: Exception | None = None
        self._started = threading.Barrier(threads + 1)
        self._terminated = False
        self._next_heartbeat = float("-inf")  # monotonic

    def lasts(self) -> bool:
        """Whether to go on; called often. A heartbeat is stored now and then."""
        # Before the heartbeat: an orphan must not be ready under the next supervisor.
        if os.getppid() != self.parent:
            logger.warning("the supervisor is gone: this worker finishes its jobs and stops")
            return False
        if time.monotonic() >= self._next_heartbeat:
            is_new = self._next_heartbeat < 0
            self._next_heartbeat = time.monotonic() + HEARTBEAT_SECONDS
            self._check_database()
            self._check_resources()
            with suppress(StorageError):  # a full disk, which is reported elsewhere
                if not self.job_store.heartbeat(self.worker, "ready"):
                    logger.warning("this worker was declared dead: it stops")
                    return False
            if is_new:  # the supervisor may start the next one
                self.huey.notifier.notify()
        return not self._terminated

    def run(self) -> None:
        """Claim and run jobs until SIGTERM, a recycle, or the end of the supervisor.

        Raises:
            Exception: A thread can't start.
        """
        listener = Listener(self.job_store.path, f"worker-{self.worker.id}")
        self.huey.on_startup()(self._start_thread)
        self.huey.on_shutdown()(self.huey.claims.release_ahead)
        consumer = self.huey.create_consumer(
            workers=self.threads, periodic=False, check_worker_health=False, scheduler_interval=60
        )
        consumer.start()
        signal.signal(signal.SIGTERM, self._on_term)
        signal.signal(signal.SIGINT, signal.SIG_IGN)
        signal.signal(signal.SIGHUP, signal.SIG_IGN)
        signal.set_wakeup_fd(listener.wake_descriptor, warn_on_full_buffer=False)
        try:
            self._started.wait()
            if self._failure is None:
                self._serve(listener)
        finally:
            self.huey.claims.stop()
            with suppress(StorageError):  # the end of the consumer tries again
                self.huey.claims.release_ahead()
            consumer.stop(graceful=True)
            # Another SIGTERM has no effect: this process ends anyway.
            signal.signal(signal.SIGTERM, signal.SIG_IGN)
            signal.set_wakeup_fd(-1)
            listener.close()
            self.app.close()
        if self._failure is not None:
            raise self._failure

    def _serve(self, listener: Listener) -> None:
        claims, woken = self.huey.claims, False
        while not self._terminated and not claims.stopping and self.lasts():
            woken = listener.wait(LONGEST_AHEAD if woken or claims.is_busy else SAFETY_POLL)
            if woken:
                claims.idle_waiter.wake()
            with suppress(StorageError):  # the next outcome is written with these
                claims.release_late()
        with suppress(PaiseError):
            self.job_store.heartbeat(self.worker, "stopping")
            self.huey.notifier.notify()  # the supervisor, which may have to start another worker

    def _check_database(self) -> None:
        try:
            self.job_store.database.check()
        except NewerFormat as error:
            end_outdated(error)

    def _check_resources(self) -> None:
        """Recycle this process if jobs have left too many files open or threads running."""
        processes.reap_orphans()
        files, threads = processes.open_files(), threading.active_count()
        if files > MAX_FILES * 0.75 + FILES_PER_THREAD * self.threads:
            self.huey.claims.recycle(f"jobs have left {files} files open")
        elif threads > self.threads + MAX_LEFT_THREADS:
            self.huey.claims.recycle(f"jobs have left {threads} threads running")

    def _start_thread(self) -> None:
        """Open this thread's connections, so that an error is found before a job needs them."""
        try:
            self.huey.job_store.counts()
            self.app.store.count()
        except Exception as error:  # Huey would log it and continue
            self._failure = error
            self.huey.claims.stop()
        finally:
            self._started.wait()

    def _on_term(self, number: int, frame: Any) -> None:
        self._terminated = True


class _Relay(_Process):
    """The process that gives jobs to other machines: it claims none itself."""

    def run(self) -> None:
        """Relay until SIGTERM, or the end of the supervisor."""
        signal.signal(signal.SIGTERM, self._on_term)
        try:
            from paise2nb.workers.machines.relay import Relay

            Relay(self.app.parts, self.lasts).run()
        finally:
            self.app.close()
