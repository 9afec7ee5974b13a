"""The doorbell: an enqueue wakes idle workers at once, in place of frequent polling.

Each process that may sleep owns one Unix datagram socket in a directory beside the database; to
ring is to send a byte to each. Nothing depends on a ring being heard: those who sleep also look
by themselves now and then, and that alone is how it works where there are no such sockets.
"""

from __future__ import annotations

import os
import select
import socket
import time
from contextlib import suppress
from pathlib import Path

TICK_NS = 2_500_000_000  # more than the coarsest tick of a filesystem's clock: FAT has two seconds
_PATH_LIMIT = 100  # sockaddr_un holds 108 bytes on Linux, 104 on macOS: unix(7)


def sockets_directory(database: Path) -> Path:
    """Where the sockets of a job table lie."""
    return database.with_name(database.name + ".bells")


class _Directory:
    """A directory whose entries fit a socket address, however long its own path is."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self._descriptor: int | None = None

    def address(self, name: str) -> str:
        plain = str(self.path / name)
        if len(os.fsencode(plain)) <= _PATH_LIMIT:
            return plain
        if self._descriptor is None:
            self._descriptor = os.open(self.path, os.O_RDONLY | os.O_DIRECTORY)
        return f"/proc/self/fd/{self._descriptor}/{name}"

    def close(self) -> None:
        if self._descriptor is not None:
            os.close(self._descriptor)
            self._descriptor = None


class Notifier:
    """Wakes whoever sleeps beside one database."""

    def __init__(self, database: Path) -> None:
        self._directory = _Directory(sockets_directory(database))
        self._socket: socket.socket | None = None
        self._names: list[str] = []
        self._names_of: int | None = None  # the directory's time when they were read

    def _sleepers(self) -> list[str]:
        """The names in the directory, read again when its time has changed."""
        changed = os.stat(self._directory.path).st_mtime_ns
        if changed != self._names_of:
            self._names = os.listdir(self._directory.path)
            # What comes within one tick of the filesystem's clock does not change that time.
            settled = time.time_ns() - changed > TICK_NS
            self._names_of = changed if settled else None
        return self._names

    def notify(self) -> bool:
        """Send a byte to each socket; a dead one is removed. Whether anyone is there to hear."""
        try:
            names = self._sleepers()
        except OSError:
            return False
        if self._socket is None:
            if not hasattr(socket, "AF_UNIX"):
                return False
            self._socket = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
            self._socket.setblocking(False)
        heard = False
        for name in names:
            try:
                self._socket.sendto(b"!", self._directory.address(name))
                heard = True
            except BlockingIOError:
                heard = True  # full: it rings already
            except ConnectionRefusedError:
                with suppress(OSError):
                    os.unlink(self._directory.path / name)
            except OSError:
                pass  # gone: nobody sleeps there
        return heard

    def close(self) -> None:
        """Let go of the socket."""
        if self._socket is not None:
            self._socket.close()
            self._socket = None
        self._directory.close()


class Listener:
    """This process's socket, to sleep on."""

    def __init__(self, database: Path, name: str) -> None:
        """Make the socket; without one (no such sockets here) `wait` only sleeps.

        Args:
            database: the path of the job table.
            name: unique among those beside that database.
        """
        path = sockets_directory(database)
        path.mkdir(mode=0o700, exist_ok=True)
        self._directory = _Directory(path)
        self._name = name
        self._socket: socket.socket | None = None
        self._waker, self._wake = os.pipe()
        os.set_blocking(self._wake, False)
        try:
            listening = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
            with suppress(FileNotFoundError):
                os.unlink(path / name)
            listening.bind(self._directory.address(name))
            listening.setblocking(False)
            self._socket = listening
        except (AttributeError, OSError):
            self._socket = None

    def wait(self, seconds: float, *, debounce: float = 0.0) -> bool:
        """Sleep until it rings, `wake` is called, or the time is over; True if it rang.

        Args:
            seconds: the longest sleep.
            deaf: the first of these seconds, in which only `wake` ends it: however often it
                rings, who listens is not woken more often.
        """
        sources: list[int] = [self._waker]
        ready: list[int] = []
        if debounce:
            ready, _, _ = select.select(sources, [], [], min(debounce, seconds))
        if self._socket is not None:
            sources.append(self._socket.fileno())
        if not ready:
            ready, _, _ = select.select(sources, [], [], max(0.0, seconds - debounce))
        if self._waker in ready:
            os.read(self._waker, 4096)
        if self._socket is not None:
            with suppress(BlockingIOError):
                while self._socket.recv(16):
                    pass
        return bool(ready)

    @property
    def wake_descriptor(self) -> int:
        """A descriptor to write to from a signal: see signal.set_wakeup_fd."""
        return self._wake

    def wake(self) -> None:
        """End a wait of this process."""
        with suppress(BlockingIOError):
            os.write(self._wake, b"!")

    def close(self) -> None:
        """Remove the socket."""
        if self._socket is not None:
            self._socket.close()
            with suppress(OSError):
                os.unlink(self._directory.path / self._name)
        self._directory.close()
        os.close(self._waker)
        os.close(self._wake)
