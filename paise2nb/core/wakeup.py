"""Wake idle workers at once when jobs are enqueued, in place of frequent polling.

Each process that waits binds a Unix datagram socket in a directory beside the database. To wake
all of them, a byte is sent to each socket. No correctness depends on it: those who wait also
poll now and then, which is all that happens where sockets can't be created.
"""

from __future__ import annotations

import os
import select
import socket
from contextlib import suppress
from pathlib import Path

_ADDRESS_BYTES = 100  # of the 108 in sockaddr_un: unix(7)


def sockets_directory(database: Path) -> Path:
    """Return the directory of the sockets beside a database."""
    return database.with_name(database.name + ".sockets")


class _Directory:
    """Builds socket addresses in a directory, also if its path is too long for sockaddr_un."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self._descriptor: int | None = None

    def address(self, name: str) -> str:
        plain = str(self.path / name)
        if len(os.fsencode(plain)) <= _ADDRESS_BYTES:
            return plain
        if self._descriptor is None:
            self._descriptor = os.open(self.path, os.O_RDONLY | os.O_DIRECTORY)
        return f"/proc/self/fd/{self._descriptor}/{name}"

    def close(self) -> None:
        if self._descriptor is not None:
            os.close(self._descriptor)
            self._descriptor = None


class Notifier:
    """Wakes every process that waits beside one database."""

    def __init__(self, database: Path) -> None:
        self._directory = _Directory(sockets_directory(database))
        self._socket: socket.socket | None = None

    def notify(self) -> bool:
        """Send a byte to each socket, and remove the sockets of ended processes.

        Returns:
            Whether any process is there to be woken.
        """
        try:
            names = os.listdir(self._directory.path)
        except OSError:
            return False
        if self._socket is None:
            self._socket = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
            self._socket.setblocking(False)
        found = False
        for name in names:
            try:
                self._socket.sendto(b"!", self._directory.address(name))
                found = True
            except BlockingIOError:
                found = True  # its buffer is full: it has been notified already
            except ConnectionRefusedError:
                with suppress(OSError):
                    os.unlink(self._directory.path / name)
            except OSError:
                pass  # it was removed meanwhile
        return found

    def close(self) -> None:
        """Close the socket. The next use opens another one."""
        if self._socket is not None:
            self._socket.close()
            self._socket = None
        self._directory.close()


class Listener:
    """The socket of this process. If it can't be created, `wait` only sleeps.

    Args:
        database: The path of the database.
        name: A name that no other process beside that database uses.
    """

    def __init__(self, database: Path, name: str) -> None:
        path = sockets_directory(database)
        path.mkdir(mode=0o700, exist_ok=True)
        self._directory = _Directory(path)
        self._name = name
        self._socket: socket.socket | None = None
        self._read_end, self._write_end = os.pipe()
        os.set_blocking(self._write_end, False)
        listening = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        try:
            with suppress(FileNotFoundError):
                os.unlink(path / name)
            listening.bind(self._directory.address(name))
        except OSError:
            listening.close()
        else:
            listening.setblocking(False)
            self._socket = listening

    def wait(self, seconds: float, *, debounce: float = 0.0) -> bool:
        """Sleep until this process is notified, `wake` is called, or the time is over.

        Args:
            seconds: The longest sleep.
            debounce: The first of these seconds, in which only `wake` ends the sleep, so that
                frequent notifications don't wake this process more often than that.

        Returns:
            Whether the sleep ended early.
        """
        sources: list[int] = [self._read_end]
        ready: list[int] = []
        if debounce:
            ready, _, _ = select.select(sources, [], [], min(debounce, seconds))
        if self._socket is not None:
            sources.append(self._socket.fileno())
        if not ready:
            ready, _, _ = select.select(sources, [], [], max(0.0, seconds - debounce))
        if self._read_end in ready:
            os.read(self._read_end, 4096)
        if self._socket is not None:
            with suppress(BlockingIOError):
                while self._socket.recv(16):
                    pass
        return bool(ready)

    @property
    def wake_descriptor(self) -> int:
        """The file descriptor for `signal.set_wakeup_fd`, so that a signal ends the sleep."""
        return self._write_end

    def wake(self) -> None:
        """End the sleep of this process."""
        with suppress(BlockingIOError):
            os.write(self._write_end, b"!")

    def close(self) -> None:
        """Close and remove the socket."""
        if self._socket is not None:
            self._socket.close()
            with suppress(OSError):
                os.unlink(self._directory.path / self._name)
        self._directory.close()
        os.close(self._read_end)
        os.close(self._write_end)
