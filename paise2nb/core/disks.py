"""Tell a full disk, a network filesystem and a missing network from other failures."""

import errno
import os
import socket
import sqlite3
from collections.abc import Iterable, Iterator
from pathlib import Path

from paise2nb.core.errors import DiskFull

FREE_BYTES = 1_000_000  # a disk with less counts as full: SQLite and one small file need that much

# Filesystems without the shared memory that SQLite's write-ahead log needs (sqlite.org/wal.html).
_NAMES = (
    "9p afs ceph cifs fuse.ceph fuse.glusterfs fuse.s3fs fuse.sshfs glusterfs gpfs lustre nfs nfs4"
    " smb3 smbfs vboxsf"
)
NETWORK = frozenset(_NAMES.split())

_FULL = {errno.ENOSPC, errno.EDQUOT}
# Raised on a machine without a network. ECONNREFUSED is not: an answer proves that there is one.
_OFFLINE = {errno.ENETUNREACH, errno.ENETDOWN, errno.EHOSTUNREACH, errno.EHOSTDOWN}


def _chain(error: BaseException | None) -> Iterator[BaseException]:
    """Yield an error, its cause, the cause of that, and so on."""
    seen: set[int] = set()
    while error is not None and id(error) not in seen:
        seen.add(id(error))
        yield error
        error = error.__cause__ or error.__context__


def is_disk_full(error: BaseException) -> bool:
    """Whether an error, or one of its causes, means that the disk is full."""
    return any(
        isinstance(cause, DiskFull)
        or (isinstance(cause, OSError) and cause.errno in _FULL)
        or (isinstance(cause, sqlite3.Error) and "disk is full" in str(cause))
        for cause in _chain(error)
    )


def may_be_full(error: BaseException) -> bool:
    """Whether SQLite raises this error, among other reasons, when the disk is full."""
    return any(
        isinstance(cause, sqlite3.OperationalError)
        and cause.sqlite_errorname.startswith(("SQLITE_IOERR", "SQLITE_CANTOPEN"))
        for cause in _chain(error)
    )


def is_offline(error: BaseException) -> bool:
    """Whether an error, or one of its causes, means that this machine has no network."""
    return any(
        (isinstance(cause, socket.gaierror) and cause.errno == socket.EAI_AGAIN)
        or (isinstance(cause, OSError) and cause.errno in _OFFLINE)
        for cause in _chain(error)
    )


def full_disk(paths: Iterable[Path]) -> str | None:
    """Return a message about the first of these paths that is on a full disk, or None."""
    for path in paths:
        try:
            disk = os.statvfs(path)
        except OSError:
            continue
        if disk.f_bavail * disk.f_frsize < FREE_BYTES:
            return f"no space left at {path}: free some, and the work goes on by itself"
    return None


def filesystem(path: Path, mounts: Path = Path("/proc/self/mounts")) -> str:
    """Return the type of the filesystem that holds a path, such as ``ext4``."""
    resolved = path.resolve()
    kind, longest = "", 0
    for line in mounts.read_text("utf-8", errors="surrogateescape").splitlines():
        _, point, mounted, *_ = line.split(" ")
        point = point.replace("\\040", " ")  # fstab(5): a space in a name
        # The longest mount point wins; of two on the same point, the later one hides the other.
        if resolved.is_relative_to(point) and len(point) >= longest:
            kind, longest = mounted, len(point)
    return kind


def network_filesystem(path: Path) -> str | None:
    """Return the type of the filesystem that holds a path if SQLite is not safe on it, or None."""
    kind = filesystem(path)
    return kind if kind in NETWORK else None
