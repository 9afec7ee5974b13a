"""The cache: bytes by the SHA-256 of their content, so that jobs hand on keys and not contents.

An entry is complete or absent, even after a crash or a power cut, unless it can be made again. It
is checked when it is read: a damaged file counts as absent.
"""

from __future__ import annotations

import hashlib
import math
import os
import re
import time
from collections.abc import Callable, Collection, Iterator
from contextlib import suppress
from pathlib import Path

from paise2nb.core.errors import StorageError
from paise2nb.core.files import (
    PARTIAL,
    locked,
    make_private_directory,
    sync_to_disk,
    write_atomically,
)
from paise2nb.core.render import counted
from paise2nb.plugins import AppInfo, hookimpl

_KEY = re.compile(r"[0-9a-f]{64}")


class Cache:
    """A directory of entries ``ab/cdef…``, private to the user. Safe for many processes.

    Args:
        directory: Created with mode 0700 if it is missing.
        durable: Whether entries have to survive a power cut.

    Raises:
        StorageError: The directory can't be created or written to.
    """

    def __init__(self, directory: Path, *, durable: bool = True) -> None:
        self.directory = directory
        self._durable = durable
        make_private_directory(directory)

    def put(self, data: bytes) -> str:
        """Store bytes and return their key, the SHA-256 in hexadecimal.

        Putting an existing entry again makes it new, so that `remove` keeps it. A damaged one is
        replaced.

        Raises:
            StorageError: The bytes can't be written.
        """
        return self._put(data, sync=self._durable)

    def put_derived(self, data: bytes) -> str:
        """Store bytes that can be made again, as they may be lost or damaged in a power cut."""
        return self._put(data, sync=False)

    def _put(self, data: bytes, *, sync: bool) -> str:
        key = hashlib.sha256(data).hexdigest()
        path = self._path(key)
        try:
            if path.exists():
                with suppress(FileNotFoundError), locked(path.parent):
                    if path.read_bytes() == data:
                        os.utime(path)
                        return key
            try:
                write_atomically(path, data, sync=sync)
            except FileNotFoundError:
                path.parent.mkdir(mode=0o700, exist_ok=True)
                if self._durable:  # others will rely on the directory
                    sync_to_disk(self.directory)
                write_atomically(path, data, sync=sync)
        except OSError as error:
            problem = f"can't write to the cache {self.directory}: {error.strerror}"
            raise StorageError(f"{problem}; free some space, or run `paise2 doctor`") from error
        return key

    def get(self, key: str) -> bytes:
        """The bytes of a key.

        Raises:
            KeyError: There is no such entry, or it is damaged.
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
        return bool(_KEY.fullmatch(key)) and self._path(key).is_file()

    def size(self) -> int:
        """The number of bytes of all entries together."""
        return sum(e.stat().st_size for e in self._files() if not e.name.startswith(PARTIAL))

    def remove(self, needed: set[str], older_than: float) -> int:
        """Remove old entries, and equally old partial files of processes that were killed.

        Args:
            needed: Keys to keep at any age.
            older_than: The minimum age in seconds.

        Returns:
            The number of entries removed.
        """
        before = time.time() - older_than
        removed = 0
        for path in self._files():
            key = path.parent.name + path.name
            if key in needed or _modified(path) > before:
                continue
            with locked(path.parent):
                if _modified(path) <= before:  # or else a `put` was faster
                    path.unlink(missing_ok=True)
                    removed += not path.name.startswith(PARTIAL)
        return removed

    def damaged(self) -> tuple[list[Path], int]:
        """Return the files of entries that don't have their content, and the number of entries."""
        files = [path for path in self._files() if not path.name.startswith(PARTIAL)]
        wrong = []
        for path in files:
            with suppress(FileNotFoundError):
                found = hashlib.sha256(path.read_bytes()).hexdigest()
                if found != path.parent.name + path.name:
                    wrong.append(path)
        return wrong, len(files)

    def copy_to(
        self,
        other: Cache,
        keys: Collection[str] | None = None,
        on_progress: Callable[[int, int], None] | None = None,
    ) -> int:
        """Copy entries to another cache, with their age; damaged ones are left out.

        Args:
            other: Not synchronized to the disk: that is left to the caller.
            keys: Only these, None for all.
            on_progress: Called with (done, total).

        Returns:
            The number of entries copied.
        """
        files = [path for path in self._files() if not path.name.startswith(PARTIAL)]
        copied = 0
        for path in counted(files, on_progress):
            key = path.parent.name + path.name
            if keys is None or key in keys:
                with suppress(KeyError, FileNotFoundError):  # damaged, or removed meanwhile
                    times, data = path.stat(), self.get(key)
                    target = other._path(key)
                    target.parent.mkdir(mode=0o700, exist_ok=True)
                    write_atomically(target, data, sync=False)
                    os.utime(target, ns=(times.st_atime_ns, times.st_mtime_ns))
                    copied += 1
        return copied

    def clear(self) -> int:
        """Remove everything and return the number of entries."""
        return self.remove(set(), older_than=-math.inf)

    def close(self) -> None:
        """Do nothing: no file stays open."""

    def _path(self, key: str) -> Path:
        # A key comes from the arguments of a job: it must never lead out of the directory.
        if not _KEY.fullmatch(key):
            raise KeyError(key)
        return Path(f"{self.directory}/{key[:2]}/{key[2:]}")  # parsed once

    def _files(self) -> Iterator[Path]:
        for folder in sorted(self.directory.glob("[0-9a-f][0-9a-f]")):
            yield from sorted(folder.iterdir())


def _modified(path: Path) -> float:
    try:
        return path.stat().st_mtime
    except FileNotFoundError:
        return float("inf")  # another process has removed it


@hookimpl
def cache_provider(app: AppInfo) -> Cache:
    """The built-in cache: files in the data directory."""
    return Cache(app.data_dir / "cache")
