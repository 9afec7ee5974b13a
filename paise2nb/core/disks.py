"""Whether a disk is full, a filesystem is unfit for SQLite, or the network is gone."""

from __future__ import annotations

import errno
import os
import socket
import sqlite3
from collections.abc import Iterable, Iterator
from pathlib import Path

FREE_BYTES = 1_000_000  # a disk with less is full: what SQLite and one small file need


# Filesystems on which SQLite's write-ahead log can't work: it needs shared memory
# (sqlite.org/wal.html).
NETWORK = {
    "9p", "afs", "ceph", "cifs", "fuse.ceph", "fuse.glusterfs", "fuse.s3fs", "fuse.sshfs",
    "glusterfs", "gpfs", "lustre", "nfs", "nfs4", "smb3", "smbfs", "vboxsf",
}  # fmt: skip


_FULL = {errno.ENOSPC, errno.EDQUOT}


# What a machine without a network answers; a refused connection shows that there is one.
_OFFLINE = {errno.ENETUNREACH, errno.ENETDOWN, errno.EHOSTUNREACH, errno.EHOSTDOWN}


def _causes(error: BaseException | None) -> Iterator[BaseException]:
    seen: set[int] = set()
    while error is not None and id(error) not in seen:
        seen.add(id(error))
        yield error
        error = error.__cause__ or error.__context__


def is_disk_full(error: BaseException) -> bool:
    """Whether an error, or what led to it, is for want of space."""
    return any(
        (isinstance(cause, OSError) and cause.errno in _FULL)
        or (isinstance(cause, sqlite3.Error) and "disk is full" in str(cause))
        for cause in _causes(error)
    )


def may_be_full(error: BaseException) -> bool:
    """Whether an error is what SQLite says, too, where it finds no space for a file beside."""
    return any(
        isinstance(cause, sqlite3.OperationalError)
        and cause.sqlite_errorname.startswith(("SQLITE_IOERR", "SQLITE_CANTOPEN"))
        for cause in _causes(error)
    )


def is_offline(error: BaseException) -> bool:
    """Whether an error, or what led to it, is what a machine without a network meets."""
    return any(
        (isinstance(cause, socket.gaierror) and cause.errno == socket.EAI_AGAIN)
        or (isinstance(cause, OSError) and cause.errno in _OFFLINE)
        for cause in _causes(error)
    )


def full_disk(paths: Iterable[Path]) -> str | None:
    """Why nothing can be written at one of these places; None where there is room."""
    for path in paths:
        try:
            disk = os.statvfs(path)
        except OSError:
            continue
        if disk.f_bavail * disk.f_frsize < FREE_BYTES:
            return f"no space left at {path}: free some, and the work goes on by itself"
    return None


def filesystem(path: Path, mounts: Path = Path("/proc/self/mounts")) -> str | None:
    """The type of the filesystem that holds a path; None where the system does not tell."""
    try:
        lines = mounts.read_text("utf-8", errors="surrogateescape").splitlines()
    except OSError:
        return None
    here = path.resolve()
    found: tuple[int, str | None] = (-1, None)
    for line in lines:
        _, point, kind, *_ = line.split(" ")
        point = point.replace("\\040", " ")  # fstab(5): a blank in a name
        # Of two on one point the later one is on top.
        if here.is_relative_to(point) and len(point) >= found[0]:
            found = (len(point), kind)
    return found[1]


def network_filesystem(path: Path) -> str | None:
    """The type of the filesystem that holds a path, if databases are not safe there."""
    kind = filesystem(path)
    return kind if kind in NETWORK else None
