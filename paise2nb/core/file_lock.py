"""A lock between processes that is granted in the order of arrival, and can time out.

SQLite polls its own lock with growing pauses, so that one of many processes may wait for seconds
while others get the lock again and again. Here the kernel queues the processes: flock(2). The
chaos suite's crowd of producers (``python -m tests.chaos --rows 11``) pays for it: with polling at
random intervals, its slowest enqueue took longer than the promised half second in every run.

A process that got the lock, or finds that no other sleeps, may overtake the others for a short
turn: to hand the lock over takes longer than a write. Of the processes that would overtake, one
spins, so that the lock is hardly ever free, and the others nap before they sleep: they would only
take the processor from those two. The lines "drain as installed" of ``tests.benchmarks.queue`` pay
for both: four processes drain a fifth slower without turns, and a quarter slower without naps.
"""

import _thread
import fcntl
import os
import threading
import time
from io import FileIO
from pathlib import Path

SPINS = 1000  # attempts before sleeping: most writes are shorter than a sleep and a wake-up
TURN_SECONDS = 0.002
NAPS, NAP_SECONDS = 4, 0.01  # before sleeping, while another process spins
# Seconds between the attempts of a sleeping process. If the process that is next is stopped
# (Ctrl-Z, a debugger), the kernel wakes those behind it only when it continues.
RECHECK_SECONDS = 1.0
PAUSE = 0.01  # seconds between attempts while an abandoned waiter is still queued


class FairFileLock:
    """The lock of one process. At most one of its threads may use it at a time.

    Args:
        path: The file to lock. Sleeping processes lock a second file beside it, so that others
            can tell that they exist, and the one that spins a third.
        recheck_seconds: Seconds between the attempts of a sleeping process.
        spins: Attempts before sleeping.
        turn_seconds: How long it may overtake others.
        naps: How often it waits for a moment before it sleeps. Not for a user who waits.
    """

    def __init__(
        self,
        path: Path,
        *,
        recheck_seconds: float = RECHECK_SECONDS,
        spins: int = SPINS,
        turn_seconds: float = TURN_SECONDS,
        naps: int = NAPS,
    ) -> None:
        self.path = path
        self._recheck_seconds = recheck_seconds
        self._spins = spins
        self._turn_seconds = turn_seconds
        self._naps = naps
        self._process = 0
        self._turn_ends = 0.0  # monotonic
        self.file: FileIO  # locked while this process has the lock
        self._abandoned: _Waiter | None  # the last waiter that timed out

    def open(self) -> None:
        """Open the files; after a fork again, because parent and child must not share a lock.

        Raises:
            OSError: The files can't be created.
        """
        if self._process != os.getpid():
            self.file, self._sleepers = self._opened(""), self._opened(".sleepers")
            self._spinner = self._opened(".spinner")
            self._abandoned = None
            self._process = os.getpid()

    def acquire(self, seconds: float) -> bool:
        """Wait for the lock.

        It is released by ``fcntl.flock(lock.file, fcntl.LOCK_UN)`` and not by a method: an
        interrupt could come between the calls of the method and of flock.

        Args:
            seconds: The longest wait.

        Returns:
            Whether this process has the lock.
        """
        deadline = time.monotonic() + seconds
        while not (_try(self.file) or (self._has_turn() and self._overtake(deadline))):
            if time.monotonic() >= deadline:
                return False
            if self._abandoned is None or not self._abandoned.is_waiting:
                return self._sleep_in_queue(deadline)
            time.sleep(PAUSE)  # no second waiter: each needs a thread and two open files
        return True

    def close(self) -> None:
        """Close the files. They can be opened again."""
        if self._process:
            self.file.close()
            self._sleepers.close()
            self._spinner.close()
            self._process = 0

    def _overtake(self, deadline: float) -> bool:
        """Try for a while: by spinning, or now and then while another process spins."""
        naps = self._naps
        try:
            while not _try(self._spinner):
                if naps == 0 or time.monotonic() >= deadline:
                    return False
                naps -= 1
                time.sleep(NAP_SECONDS)
                if _try(self.file):
                    return True
            for _ in range(self._spins):
                if _try(self.file):
                    return True
                # With other programs on all cores, each takes milliseconds.
                if time.monotonic() >= deadline:
                    return False
                os.sched_yield()
            return False
        finally:
            fcntl.flock(self._spinner, fcntl.LOCK_UN)

    def _has_turn(self) -> bool:
        """Whether this process may overtake those that sleep. A turn begins if there are none."""
        now = time.monotonic()
        if now > self._turn_ends:
            if self._others_sleep():
                return False
            self._turn_ends = now + self._turn_seconds
        return True

    def _sleep_in_queue(self, deadline: float) -> bool:
        waiter = self._abandoned = _Waiter(self._opened(""))
        try:
            _thread.start_new_thread(waiter.sleep, (self._opened(".sleepers"),))
            while (left := deadline - time.monotonic()) > 0:
                if waiter.acquired.acquire(timeout=min(self._recheck_seconds, left)):
                    self.file, self._abandoned = waiter.file, None
                    self._turn_ends = time.monotonic() + self._turn_seconds
                    return True
                if _try(self.file):
                    return True
            return False
        finally:
            # Not in a method, and from the start of the thread on: see `acquire`.
            if self.file is not waiter.file:
                waiter.is_abandoned = True
                fcntl.flock(waiter.file, fcntl.LOCK_UN)  # or the thread does, once it has the lock

    def _others_sleep(self) -> bool:
        try:
            return not _try(self._sleepers)
        finally:  # also after an interrupt: who sleeps next would wait for this process
            fcntl.flock(self._sleepers, fcntl.LOCK_UN)

    def _opened(self, suffix: str) -> FileIO:
        path = f"{self.path}{suffix}"
        return FileIO(os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600), "r+")


def _try(file: FileIO) -> bool:
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True


class _Waiter:
    """A thread that sleeps in the kernel's queue, so that the wait itself can time out."""

    def __init__(self, file: FileIO) -> None:
        self.file = file
        self.acquired = threading.Lock()
        self.acquired.acquire()
        self.is_waiting = self.is_abandoned = False

    def sleep(self, sleepers: FileIO) -> None:
        """Wait for the lock. One that is abandoned is released at once."""
        self.is_waiting = True
        with sleepers:
            fcntl.flock(sleepers, fcntl.LOCK_SH)
            fcntl.flock(self.file, fcntl.LOCK_EX)
        self.is_waiting = False
        self.acquired.release()
        if self.is_abandoned:
            fcntl.flock(self.file, fcntl.LOCK_UN)


def lock_holder(path: Path, *, byte: int | None = None) -> int | None:
    """Return the pid of the other process that has locked a file, None if unknown.

    Args:
        path: The file.
        byte: The locked byte of a lock by fcntl(2). None means a lock by flock(2).
    """
    try:
        found = path.stat()
        lines = Path("/proc/locks").read_text().splitlines()  # see proc_locks(5)
    except OSError:
        return None
    device = f"{os.major(found.st_dev):02x}:{os.minor(found.st_dev):02x}:{found.st_ino}"
    kind, first = ("FLOCK", "0") if byte is None else ("POSIX", str(byte))
    wanted = [kind, "ADVISORY", "WRITE", device, first]
    for line in lines:
        _, *words = line.split()
        if len(words) > 5 and words[:3] + words[4:6] == wanted and int(words[3]) != os.getpid():
            return int(words[3])
    return None
