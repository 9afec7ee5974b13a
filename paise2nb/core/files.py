"""Files and directories that are private to the user, and atomic replacement of files."""

import fcntl
import os
import stat
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from paise2nb.core.errors import StorageError, UsageError

PARTIAL = "."  # the names of files that are still being written begin with it


def make_private_directory(path: Path) -> None:
    """Make a directory and its missing parents, readable by the user only.

    Raises:
        StorageError: The directory can't be created or written to.
    """
    try:
        for directory in reversed((path, *path.parents)):
            if not directory.is_dir():
                directory.mkdir(mode=0o700, exist_ok=True)
    except OSError as error:
        raise StorageError(
            f"can't create {path}: {error.strerror}; choose another with --data-dir"
        ) from error
    if not os.access(path, os.W_OK | os.X_OK):
        raise StorageError(f"can't write to {path}; choose another with --data-dir")


def claim_directory(path: Path) -> None:
    """Make a data directory private. An existing one is made private only if it is empty.

    Raises:
        StorageError: The directory can't be used, or others could replace the files in it. A
            volume of root is accepted unless everybody may write to it.
    """
    make_private_directory(path)
    found, user = path.stat(), os.geteuid()
    if found.st_uid == user:
        if not any(path.iterdir()):
            path.chmod(0o700)
    elif found.st_uid != 0 or found.st_mode & stat.S_IWOTH:
        raise StorageError(
            f"{path} belongs to another user, so others could replace your data; use a directory "
            f"in it (--data-dir {path / 'paise2'}), or make it yours: chown {user} {path}"
        )


def expand_user(path: str) -> Path:
    """Return a path with ``~`` replaced by the home directory.

    Raises:
        UsageError: There is none.
    """
    try:
        return Path(path).expanduser()
    except RuntimeError:
        raise UsageError(f"{path}: there is no such home directory; give the whole path") from None


def working_directory() -> Path:
    """Return the working directory.

    Raises:
        UsageError: It was deleted.
    """
    try:
        return Path.cwd()
    except FileNotFoundError:
        raise UsageError("the working directory was deleted; change to another one: cd") from None


def write_atomically(
    path: Path, data: bytes | str, *, mode: int = 0o600, sync: bool = True
) -> None:
    """Replace the content of a file, so that readers see either the old or the new content.

    Args:
        path: The file. Its directory must exist.
        data: The new content. Text is written as UTF-8.
        mode: The permissions of the file, from which the umask is subtracted.
        sync: Whether the new content must survive a power cut.

    Raises:
        OSError: The file can't be written. The old content is still there.
    """
    content = data.encode() if isinstance(data, str) else data
    # Not by `replacement`, which opens the file three times: a write without a sync takes half the
    # processor time, and each page needs two (tests.benchmarks.pipeline).
    partial = _partial(path)
    descriptor = os.open(partial, os.O_WRONLY | os.O_CREAT | os.O_EXCL, mode)
    try:
        with open(descriptor, "wb") as file:
            file.write(content)
            file.flush()
            if sync:
                os.fsync(descriptor)
        os.replace(partial, path)
    except BaseException:
        partial.unlink(missing_ok=True)
        raise
    if sync:
        sync_to_disk(path.parent)


@contextmanager
def replacement(path: Path, *, mode: int = 0o600, sync: bool = True) -> Iterator[Path]:
    """Give an empty file to write to, which replaces `path` unless the block raises.

    Args:
        path: The file to replace. Its directory must exist.
        mode: The permissions of the file, from which the umask is subtracted.
        sync: Whether the new content must survive a power cut.
    """
    partial = _partial(path)
    os.close(os.open(partial, os.O_WRONLY | os.O_CREAT | os.O_EXCL, mode))
    try:
        yield partial
        if sync:
            sync_to_disk(partial)
        partial.replace(path)
    except BaseException:
        partial.unlink(missing_ok=True)
        raise
    if sync:
        sync_to_disk(path.parent)


def _partial(path: Path) -> Path:
    # In the same directory: a rename works only in one filesystem.
    return path.with_name(f"{PARTIAL}{os.urandom(8).hex()}")


@contextmanager
def locked(folder: Path) -> Iterator[None]:
    """Keep other threads and processes from entering a block for that folder."""
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX)
        yield
    finally:
        # Not left to close(): a child forked here would keep the lock.
        fcntl.flock(descriptor, fcntl.LOCK_UN)
        os.close(descriptor)


def sync_to_disk(path: Path) -> None:
    """Make the content of a file, or the names in a directory, survive a power cut."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
