"""A lock between processes that can time out, and in which none waits much longer than others.

SQLite polls its own lock with growing pauses, so that one of many processes may wait for seconds
while others get the lock again and again. Here the pauses shrink, so that those who have waited
longest try most often. The chaos suite's crowd of producers (``python -m tests.chaos --rows 11``)
pays for it: its slowest enqueue takes no longer than half a second.
"""

import fcntl
import os
import time
from functools import cached_property
from io import FileIO
from pathlib import Path

SPIN_SECONDS = 0.0005  # without pauses: most writes are shorter than a sleep and a wake-up
FIRST_PAUSE, LAST_PAUSE = 0.005, 0.001  # seconds
SHRINKING_SECONDS = 0.1  # from the first pause to the last


class FileLock:
    """The lock of one process. At most one of its threads may use it at a time.

    Args:
        path: The file to lock. It is created, private to the user.
    """

    def __init__(self, path: Path) -> None:
        self.path = path

    @cached_property
    def file(self) -> FileIO:
        """The open file. Raises OSError if it can't be created."""
        return FileIO(os.open(self.path, os.O_RDWR | os.O_CREAT, 0o600), "r+")

    def acquire(self, seconds: float) -> bool:
        """Wait for the lock.

        It is released by ``fcntl.flock(lock.file, fcntl.LOCK_UN)`` and not by a method: an
        interrupt could come between the calls of the method and of flock.

        Args:
            seconds: The longest wait.

        Returns:
            Whether this process has the lock.
        """
        started = time.monotonic()
        while True:
            try:
                fcntl.flock(self.file, fcntl.LOCK_EX | fcntl.LOCK_NB)
                return True
            except BlockingIOError:
                waited = time.monotonic() - started
            if waited >= seconds:
                return False
            time.sleep(pause(waited))

    def close(self) -> None:
        """Close the file. The next use opens it again."""
        if file := self.__dict__.pop("file", None):
            file.close()


def pause(waited: float) -> float:
    """Return the seconds until the next attempt of a process that has waited for some seconds."""
    shrunk = (FIRST_PAUSE - LAST_PAUSE) * waited / SHRINKING_SECONDS
    return 0.0 if waited < SPIN_SECONDS else max(LAST_PAUSE, FIRST_PAUSE - shrunk)


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
