"""Tell systemd, or another manager with its protocol, about a supervisor: sd_notify(3)."""

import os
import socket
import time
from collections import Counter
from contextlib import suppress

from paise2nb.core.errors import StorageError
from paise2nb.core.render import amount
from paise2nb.jobs.store import JobStore

STATUS_SECONDS = 10.0  # between two status texts, if the manager has no watchdog


class ServiceManager:
    """The manager that has started this process, if any.

    Its environment variables are removed, so that they reach no child.

    Args:
        job_store: That of the supervisor.
    """

    def __init__(self, job_store: JobStore) -> None:
        self._job_store = job_store
        self._address = os.environ.pop("NOTIFY_SOCKET", "")
        interval = float(os.environ.pop("WATCHDOG_USEC", 0)) / 1e6
        if os.environ.pop("WATCHDOG_PID", str(os.getpid())) != str(os.getpid()):
            interval = 0.0
        self._pause = interval / 3 or STATUS_SECONDS
        self._tell_at = 0.0  # monotonic
        self._ready = self._stopping = False

    def report(self, sizes: dict[str, int], *, stopping: bool, progress: bool) -> None:
        """Report a step of the supervisor: often enough for the watchdog, and what has changed.

        Args:
            sizes: The number of wanted processes of each pool.
            stopping: Whether it drains.
            progress: Whether it could do its work. If not, the watchdog gets no keep-alive message.
        """
        if not self._address or not progress:
            return
        with suppress(StorageError):  # the next step finds it, too
            self._report(sizes, stopping)

    def _report(self, sizes: dict[str, int], stopping: bool) -> None:
        state: dict[str, object] = {}
        if not (self._ready or stopping) and self._all_ready(sizes):
            self._ready, state["READY"] = True, 1
        if stopping and not self._stopping:
            self._stopping, state["STOPPING"] = True, 1
        if not state and time.monotonic() < self._tell_at:
            return
        self._tell_at = time.monotonic() + self._pause
        self._tell(**state, WATCHDOG=1, STATUS=self._status())

    def _all_ready(self, sizes: dict[str, int]) -> bool:
        rows = self._job_store.workers()
        return Counter(sizes) <= Counter(row["pool"] for row in rows if row["state"] == "ready")

    def _status(self) -> str:
        supervisor = self._job_store.supervisor()
        if supervisor and supervisor["problem"]:
            return str(supervisor["problem"])
        jobs, _ = self._job_store.counts()
        workers = amount(len(self._job_store.workers()), "worker")
        waiting = amount(jobs["queued"] + jobs["retrying"], "job")
        text = f"{workers}, {amount(jobs['running'], 'job')} running, {waiting} waiting"
        return f"draining: {text}" if self._stopping else text

    def _tell(self, **state: object) -> None:
        # A name that begins with @ is one of Linux' abstract sockets.
        address = "\0" + self._address[1:] if self._address[0] == "@" else self._address
        text = "\n".join(f"{name}={value}" for name, value in state.items())
        with (
            suppress(OSError),  # the manager is gone
            socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM | socket.SOCK_CLOEXEC) as sender,
        ):
            sender.settimeout(1.0)
            sender.sendto(text.encode(), address)
