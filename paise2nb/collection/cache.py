"""Bytes by the SHA-256 of their content: what a task hands to the next one is a key, not contents.

An entry is complete or absent, whatever is cut off when: written aside, synced, renamed. It is
checked when read, so a damaged file counts as absent instead of becoming wrong text.
"""

from __future__ import annotations

import fcntl
import hashlib
import os
import re
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import TYPE_CHECKING

from paise2nb.core.errors import StorageError
from paise2nb.core.files import make_private_directory
from paise2nb.plugins import hookimpl

if TYPE_CHECKING:
    from paise2nb.app import App

_KEY = re.compile(r"[0-9a-f]{64}")
_ASIDE = "."  # names of files that are being written begin with it


class Cache:
    """A directory of entries ``ab/cdef…``, private to the user, safe for many processes.

    Args:
        directory: made, with mode 0700, if it is missing.

    Raises:
        StorageError: the directory can't be made or written to.
    """

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        make_private_directory(directory)

    def put(self, data: bytes) -> str:
        """Store bytes durably; the key is their SHA-256 in hexadecimal.

        An entry that exists is made young again, so that `remove` spares it.

        Raises:
            StorageError: the bytes can't be written.
        """
        key = hashlib.sha256(data).hexdigest()
        path = self._path(key)
        try:
            with suppress(FileNotFoundError), _alone(path.parent):
                os.utime(path)
                return key
            self._write(path, data)
        except OSError as error:
            raise StorageError(
                f"can't write to the cache {self.directory}: {error.strerror}; "
                "free some space, or run `paise2 doctor`"
            ) from error
        return key

    def get(self, key: str) -> bytes:
        """The bytes of a key.

        Raises:
            KeyError: there is no such entry, or it is damaged.
        """
        try:
            data = self._path(key).read_bytes()
        except FileNotFoundError:
            raise KeyError(key) from None
        if hashlib.sha256(data).hexdigest() != key:
            self._path(key).unlink(missing_ok=True)
            raise KeyError(key)
        return data

    def __contains__(self, key: str) -> bool:
        try:
            return self._path(key).is_file()
        except KeyError:
            return False

    def size(self) -> int:
        """The bytes that all entries take together."""
        return sum(entry.stat().st_size for entry in self._entries())

    def remove(self, needed: set[str], older_than: float) -> int:
        """Remove entries whose key is not needed and which are older than that many seconds.

        What a killed process left half written goes too, once it is as old.

        Returns:
            the number of entries removed.
        """
        before = time.time() - older_than
        removed = 0
        for path in self._entries(aside=True):
            key = path.parent.name + path.name
            if key not in needed and self._modified(path) <= before:
                removed += self._unlink(path, before)
        return removed

    def clear(self) -> int:
        """Remove everything; the number of entries."""
        removed = 0
        for path in self._entries(aside=True):
            path.unlink(missing_ok=True)
            removed += not path.name.startswith(_ASIDE)
        return removed

    def close(self) -> None:
        """Nothing: no file stays open."""

    def _path(self, key: str) -> Path:
        # A key comes from a job's arguments: it must never lead out of the directory.
        if not _KEY.fullmatch(key):
            raise KeyError(key)
        return self.directory / key[:2] / key[2:]

    def _entries(self, aside: bool = False) -> Iterator[Path]:
        for folder in sorted(self.directory.glob("[0-9a-f][0-9a-f]")):
            for path in sorted(folder.iterdir()):
                if aside or not path.name.startswith(_ASIDE):
                    yield path

    def _write(self, path: Path, data: bytes) -> None:
        folder = path.parent
        if not folder.is_dir():
            folder.mkdir(mode=0o700, exist_ok=True)
            _sync_directory(self.directory)
        descriptor, name = tempfile.mkstemp(prefix=_ASIDE, dir=folder)  # mode 0600
        aside = Path(name)
        try:
            with os.fdopen(descriptor, "wb") as file:
                file.write(data)
                file.flush()
                os.fsync(file.fileno())
            aside.replace(path)
        except BaseException:
            aside.unlink(missing_ok=True)
            raise
        _sync_directory(folder)

    def _unlink(self, path: Path, before: float) -> bool:
        """Remove one file, unless a `put` has made it young meanwhile; whether an entry went."""
        with _alone(path.parent):
            if self._modified(path) > before:
                return False
            path.unlink(missing_ok=True)
        return not path.name.startswith(_ASIDE)

    @staticmethod
    def _modified(path: Path) -> float:
        try:
            return path.stat().st_mtime
        except FileNotFoundError:
            return float("inf")  # another process was faster; nothing to remove


@contextmanager
def _alone(folder: Path) -> Iterator[None]:
    """No other thread or process is in this block for that folder meanwhile."""
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX)
        yield
    finally:
        fcntl.flock(descriptor, fcntl.LOCK_UN)  # for a child, too, that was forked here
        os.close(descriptor)


def _sync_directory(path: Path) -> None:
    """Make the names in a directory durable."""
    descriptor = os.open(path, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


@hookimpl
def cache_provider(app: App) -> Cache:
    """The built-in cache: files in the data directory."""
    return Cache(app.data_dir / "cache")
