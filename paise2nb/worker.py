"""The program of a worker process.

It opens an app of its own from the settings that it is given, and runs Huey's consumer on it. A
start-up that fails is recorded and ends the process, which then never claims a job.
"""

from __future__ import annotations

import faulthandler
import logging
import logging.handlers
import os
import signal
import sys
import threading
import time
from contextlib import suppress
from pathlib import Path
from typing import Any

from paise2nb.app import App
from paise2nb.config.settings import Settings
from paise2nb.core import processes
from paise2nb.core.errors import PaiseError, StorageError, WorkersError, message
from paise2nb.core.wakeup import Listener
from paise2nb.jobs import JobStore, Worker
from paise2nb.workers.claims import SAFETY_POLL
from paise2nb.workers.logs import configure_logging, log_directory
from paise2nb.workers.queue import JobHuey
from paise2nb.workers.spawn import received_message

logger = logging.getLogger("paise2nb.worker")

HEARTBEAT_SECONDS = 3.0
CAN_NOT_START = 3  # exit status
FILES = 1024  # that a worker may hold open, and so many more for each thread's connections
FILES_A_THREAD = 32
THREADS_LEFT = 50  # by jobs; more of them are too many


def main() -> None:
    """Run one worker process of a pool."""
    received = received_message()
    settings = Settings.from_json(received["settings"])
    os.environ["PAISE2_PROFILE"] = settings.profile
    assert settings.data_dir is not None
    log = log_directory(settings.data_dir) / "workers.log"
    configure_logging(logging.handlers.WatchedFileHandler(log))
    logging.getLogger("huey").setLevel(logging.ERROR)
    faulthandler.enable()
    processes.adopt_orphans()
    # Standard error may hold a crash's last words; Ctrl-C is the supervisor's to answer.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    pool, _, alone = received["pool"].partition(":")
    threads = (
        1 if alone or pool not in settings.workers.pools else settings.workers.pools[pool].threads
    )
    processes.bound_files(FILES + FILES_A_THREAD * threads)
    host_delay = settings.fetch.host_delay
    job_store = JobStore(Path(received["job_store"]), durable=False, host_delay=host_delay)
    entry = job_store.register(received["pool"], threads)
    try:
        _Process(settings, job_store, entry, pool, threads, received["parent"]).run()
    except Exception as error:
        logger.exception("this worker can't start")
        job_store.heartbeat(entry, "failed", message(error))
        sys.exit(CAN_NOT_START)
    job_store.leave(entry)
    job_store.close()
    if any(not thread.daemon for thread in threading.enumerate()[1:]):
        logging.shutdown()
        os._exit(0)  # threads that jobs have left would keep this process for ever


class _Process:
    """A worker process while it works."""

    def __init__(
        self,
        settings: Settings,
        job_store: JobStore,
        entry: Worker,
        pool: str,
        threads: int,
        parent: int,
    ) -> None:
        self.job_store = job_store
        self.entry = entry
        self.threads = threads
        self.app = App(settings, is_worker=True)
        self.huey: JobHuey = self.app.queue
        if self.app.immediate or not job_store.path.samefile(self.huey.job_store.path):
            provider = settings.task_queue.provider
            raise WorkersError(
                f"task_queue.provider {provider} gives a worker no jobs of {job_store.path}"
            )
        self.huey.work_for(entry, self.app.limits(pool))
        self.failure: Exception | None = None
        self._started = threading.Semaphore(0)
        self._drain = False
        self._parent = parent  # told, not asked for: it may have ended by now

    def run(self) -> None:
        """Claim and run jobs until told to drain, or the supervisor is gone.

        Raises:
            Exception: what a thread's start-up raised.
        """
        listener = Listener(self.job_store.path, f"worker-{self.entry.id}")
        self.huey.on_startup()(self._thread_starts)
        self.huey.on_shutdown()(self._thread_ends)
        consumer = self.huey.create_consumer(
            workers=self.threads, periodic=False, check_worker_health=False, scheduler_interval=60
        )
        consumer.start()
        signal.signal(signal.SIGTERM, self._on_term)
        signal.signal(signal.SIGINT, signal.SIG_IGN)
        signal.signal(signal.SIGHUP, signal.SIG_IGN)
        signal.set_wakeup_fd(listener.wake_descriptor, warn_on_full_buffer=False)
        try:
            for _ in range(self.threads):
                self._started.acquire()
            if self.failure is None:
                self._serve(listener, consumer)
        finally:
            self.huey.stop_claiming()
            consumer.stop(graceful=True)
            listener.close()
            self.app.close()
        if self.failure is not None:
            raise self.failure

    def _serve(self, listener: Listener, consumer: Any) -> None:
        beat = float("-inf")
        while not self._drain and not self.huey.stopping:
            # Asked first: an orphan never says that it is ready under the next supervisor.
            if os.getppid() != self._parent:
                logger.warning("the supervisor is gone: this worker finishes its jobs and leaves")
                break
            if time.monotonic() - beat >= HEARTBEAT_SECONDS:
                beat = time.monotonic()
                self.job_store.database.check()
                self._look_after_itself()
                with suppress(StorageError):  # a full disk, which shows elsewhere
                    if not self.job_store.heartbeat(self.entry, "ready"):
                        logger.warning("this worker was declared dead: it leaves")
                        break
            if listener.wait(SAFETY_POLL):
                self.huey.idle_waiter.end_one()
        with suppress(PaiseError):
            self.job_store.heartbeat(self.entry, "stopping")
            self.huey.notifier.notify()  # the supervisor: another one may have to take over

    def _look_after_itself(self) -> None:
        """Make room for a fresh process when jobs have left too much in this one."""
        processes.reap_orphans()
        if processes.open_files() > FILES * 0.75 + FILES_A_THREAD * self.threads:
            self.huey.recycle(f"jobs have left {processes.open_files()} files open")
        elif threading.active_count() > self.threads + THREADS_LEFT:
            self.huey.recycle(f"jobs have left {threading.active_count()} threads running")

    def _open_connections(self) -> None:
        """Open this thread's connections, so that what is wrong shows before a job needs them."""
        self.huey.job_store.counts()
        self.app.store.count()

    def _on_term(self, number: int, frame: object) -> None:
        self._drain = True

    def _thread_starts(self) -> None:
        """Make this thread's context: its connections, opened before the first job needs them."""
        try:
            self._open_connections()
        except Exception as error:  # Huey would log it and go on without
            self.failure = error
            self.huey.stop_claiming()
        finally:
            self._started.release()

    def _thread_ends(self) -> None:
        self.huey.release_next_claim()
