"""Wake idle workers at once when jobs are enqueued, in place of frequent polling.

Each process that waits binds a Unix datagram socket in a directory beside the database. To wake
all of them, a byte is sent to each socket. No correctness depends on it: those who wait also
poll now and then, which is all that happens where sockets can't be created.
"""

import os
import select
import socket
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from functools import cached_property
from pathlib import Path

SUPERVISOR = "supervisor"  # how the names of their sockets begin
LONGEST_DIRECTORY = 75  # bytes, which leave room for the name of a socket


def sockets_directory(database: Path) -> Path:
    """Return the directory of the sockets beside a database."""
    return database.with_name(database.name + ".sockets")


@contextmanager
def short_path(directory: Path) -> Iterator[str]:
    """Give a path to a directory that is short enough for sockaddr_un: 108 bytes, unix(7)."""
    if len(os.fsencode(directory)) <= LONGEST_DIRECTORY:  # a shortcut for the enqueue benchmark
        yield str(directory)
        return
    descriptor = os.open(directory, os.O_RDONLY | os.O_DIRECTORY)
    try:
        yield f"/proc/self/fd/{descriptor}"
    finally:
        os.close(descriptor)


def _new_socket() -> socket.socket:
    new = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
    new.setblocking(False)
    return new


class Notifier:
    """Wakes every process that waits beside one database."""

    def __init__(self, database: Path) -> None:
        self._directory = sockets_directory(database)

    @cached_property
    def _sender(self) -> socket.socket:  # kept open: a new one costs an enqueue 10 % more
        return _new_socket()

    def notify(self) -> bool:
        """Send a byte to each socket, and remove the sockets of ended processes.

        Returns:
            Whether at least one process other than a supervisor has been notified. A supervisor may
            have decided to end, and not removed its socket yet.
        """
        found = False
        # Without the directory, no process has ever waited.
        with suppress(OSError), short_path(self._directory) as directory:
            for name in os.listdir(directory):
                try:
                    with suppress(BlockingIOError):  # its buffer is full: it has been notified
                        self._sender.sendto(b"!", f"{directory}/{name}")
                    found = found or not name.startswith(SUPERVISOR)
                except ConnectionRefusedError:
                    with suppress(OSError):
                        os.unlink(f"{directory}/{name}")
                except OSError:
                    pass  # it was removed meanwhile
        return found

    def close(self) -> None:
        """Close the socket. The next use opens another one."""
        if sender := self.__dict__.pop("_sender", None):
            sender.close()


class Listener:
    """The socket of this process. If it can't be created, `wait` only sleeps.

    Args:
        database: The path of the database.
        name: A name that no other process beside that database uses.
    """

    def __init__(self, database: Path, name: str) -> None:
        directory = sockets_directory(database)
        directory.mkdir(mode=0o700, exist_ok=True)
        self._path = directory / name
        self._closing, self._is_closed = threading.Lock(), False
        self._read_end, self._write_end = os.pipe()
        os.set_blocking(self._write_end, False)
        self._socket = _new_socket()
        with suppress(OSError), short_path(directory) as short:
            self._path.unlink(missing_ok=True)
            self._socket.bind(f"{short}/{name}")

    def wait(self, seconds: float, *, debounce: float = 0.0) -> bool:
        """Sleep until this process is notified, `wake` is called, or the time is over.

        Args:
            seconds: The longest sleep.
            debounce: The first of these seconds, in which only `wake` ends the sleep, so that
                frequent notifications don't wake this process more often than that.

        Returns:
            Whether the sleep ended early.
        """
        sources, ready = [self._read_end], list[int]()
        if debounce:
            ready, _, _ = select.select(sources, [], [], min(debounce, seconds))
        if not ready:
            sources.append(self._socket.fileno())
            ready, _, _ = select.select(sources, [], [], max(0.0, seconds - debounce))
        if self._read_end in ready:
            os.read(self._read_end, 4096)
        with suppress(BlockingIOError):
            while self._socket.recv(16):
                pass
        return bool(ready)

    @property
    def wake_descriptor(self) -> int:
        """The file descriptor for `signal.set_wakeup_fd`, so that a signal ends the sleep."""
        return self._write_end

    def wake(self) -> None:
        """End the sleep of this process. Another thread may have closed the socket."""
        with self._closing, suppress(BlockingIOError):
            if not self._is_closed:  # its number may be that of another file by now
                os.write(self._write_end, b"!")

    def close(self) -> None:
        """Close and remove the socket."""
        self._socket.close()
        with suppress(OSError):
            self._path.unlink()
        with self._closing:
            self._is_closed = True
            os.close(self._read_end)
            os.close(self._write_end)
