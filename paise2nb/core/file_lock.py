"""The line of processes before one file: first come, first served, and the wait has an end.

SQLite polls its own lock at ever longer pauses, so that one of many may wait for seconds while
others take turns. Here the kernel wakes who came first.
"""

from __future__ import annotations

import _thread
import fcntl
import os
import threading
import time
from io import FileIO
from pathlib import Path

SPINS = 200  # whether the turn is free, awake: most turns take less time than a sleep and its end
# Seconds between the looks of a sleeper for itself: who was called, but is stopped (Ctrl-Z, a
# debugger) before it can go, makes the kernel wake those behind it only when it goes on.
RECHECK_SECONDS = 1.0
PAUSE = 0.01  # seconds between the looks while a place that was given up still stands in the line


class FairFileLock:
    """One process's way to its turn; its threads take turns among themselves before.

    Args:
        path: the file that processes lock; beside it lies one that those lock who sleep.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        self._process = 0
        self.file: FileIO  # locked while it is this process's turn
        self._abandoned: _Waiter | None  # the last place that was left before the turn came

    def open(self) -> None:
        """Make the files, anew after a fork: parent and child may not share a lock.

        Raises:
            OSError: they can't be made.
        """
        if self._process != os.getpid():
            self.file, self._waiting = self._opened(""), self._opened(".asleep")
            self._abandoned = None
            self._process = os.getpid()

    def wait(self, seconds: float) -> bool:
        """Wait for the turn, at most that long; whether it has come.

        It ends with ``fcntl.flock(line.turn, fcntl.LOCK_UN)``: no call that makes this call, for
        an interrupt could come in between.
        """
        deadline = time.monotonic() + seconds
        while not self._spin():
            if time.monotonic() >= deadline:
                return False
            if self._abandoned is None or not self._abandoned.is_waiting:
                return self._sleep_in_queue(deadline)
            time.sleep(PAUSE)  # one place is enough: each takes a thread and two open files
        return True

    def _spin(self) -> bool:
        for look in range(SPINS):
            try:
                fcntl.flock(self.file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                if look == 0 and self._others_wait():
                    break  # who looks again and again would overtake them
                os.sched_yield()
            else:
                return True
        return False

    def _sleep_in_queue(self, deadline: float) -> bool:
        self._abandoned = waiter = _Waiter(self._opened(""), self._opened(".asleep"))
        try:
            while (left := deadline - time.monotonic()) > 0:
                if waiter.acquired.acquire(timeout=min(RECHECK_SECONDS, left)):
                    self.file, self._abandoned = waiter.file, None
                    return True
                if self._spin():
                    waiter.leave()
                    return True
        except BaseException:
            waiter.leave()
            raise
        waiter.leave()
        return False

    def close(self) -> None:
        """Close the files; the next use opens them anew."""
        if self._process:
            self.file.close()
            self._waiting.close()
            self._process = 0

    def _others_wait(self) -> bool:
        try:
            fcntl.flock(self._waiting, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            return True
        fcntl.flock(self._waiting, fcntl.LOCK_UN)
        return False

    def _opened(self, suffix: str) -> FileIO:
        path = f"{self._path}{suffix}"
        return FileIO(os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600), "r+")


class _Waiter:
    """A sleeper's place in the line.

    It is a thread of its own that sleeps there, since only so can the wait end: who has the turn
    may have been stopped.
    """

    def __init__(self, file: FileIO, sleepers: FileIO) -> None:
        self.file = file
        self.acquired = threading.Lock()
        self.acquired.acquire()
        self.is_waiting = True
        self._gave_up = False
        _thread.start_new_thread(self._sleep, (sleepers,))

    def _sleep(self, sleepers: FileIO) -> None:
        with sleepers:
            fcntl.flock(sleepers, fcntl.LOCK_SH)
            fcntl.flock(self.file, fcntl.LOCK_EX)
        self.is_waiting = False
        self.acquired.release()
        if self._gave_up:
            fcntl.flock(self.file, fcntl.LOCK_UN)

    def leave(self) -> None:
        """Give up the turn, whether it has come or not."""
        self._gave_up = True
        fcntl.flock(self.file, fcntl.LOCK_UN)
