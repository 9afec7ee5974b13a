"""How far a worker process has come with jobs that it claimed together and runs in turn.

Their outcomes are written together. Until then this file, which outlives the process, tells which
have completed. So if the process dies, those do not run again; the one that ran is charged, and
those that waited for it are not.
"""

import os
import sqlite3
import zlib
from collections.abc import Collection, Iterable
from pathlib import Path
from typing import Any, NamedTuple

from paise2nb.jobs.models import Claim

LONGEST, HEAD = 2000, 48  # bytes of the text and of the line before it, which one write replaces


class ExecutionKey(NamedTuple):
    """What identifies an execution: see `Claim`."""

    id: int
    run: int
    started_at: float


class Progress(NamedTuple):
    """What has become of executions that were claimed together.

    Attributes:
        completed: Those that have completed, with the JSON text that each returned.
        left: The others, in their order. The first one that still has its job is running.
    """

    completed: dict[ExecutionKey, str]
    left: list[ExecutionKey]

    def waiting(self, holding: Collection[ExecutionKey]) -> set[ExecutionKey]:
        """Return those that wait for an earlier one.

        Args:
            holding: The executions that still have their jobs.
        """
        return {*[key for key in self.left if key in holding][1:]}


def execution_key(row: sqlite3.Row | dict[str, Any]) -> ExecutionKey:
    """Return the execution that a row of a job names."""
    return ExecutionKey(row["id"], row["run"], row["started_at"])


def batch_path(database: Path, worker_id: int) -> Path:
    """Return the path of a worker's file beside a database."""
    return database.with_name(f"{database.name}.batches") / str(worker_id)


class BatchFile:
    """The file of one worker process, which writes it. Use `open`."""

    def __init__(self, file: int) -> None:
        self._file = file

    @classmethod
    def open(cls, database: Path, worker_id: int) -> "BatchFile | None":
        """Open the file of a worker, or return None if it can't be written.

        Args:
            database: The path of the job store.
            worker_id: The id of the worker.
        """
        path = batch_path(database, worker_id)
        try:
            path.parent.mkdir(mode=0o700, exist_ok=True)
            file = os.open(path, os.O_WRONLY | os.O_CREAT, 0o600)
        except OSError:
            return None
        try:
            os.pwrite(file, bytes(LONGEST + HEAD), 0)  # takes its space now, not on a full disk
        except OSError:
            os.close(file)
            return None
        return cls(file)

    def write(self, completed: Iterable[tuple[Claim, str]], left: Iterable[Claim]) -> bool:
        """Replace what the file tells.

        Args:
            completed: Executions with the JSON text that each returned.
            left: The others, in their order.

        Returns:
            Whether it was possible. If not, the outcomes must be written at once.
        """
        results = [*completed, *((claim, "") for claim in left)]
        lines = [f"{c.id} {c.run} {c.started_at!r} {result}" for c, result in results]
        text = "\n".join(lines).encode()
        if len(text) > LONGEST:
            return False
        data = b"%d %d\n%b" % (zlib.crc32(text), len(text), text)
        try:
            # Not truncated: the first line tells the length. Not synced: after a power cut, the
            # database is that of some time ago, too.
            return os.pwrite(self._file, data, 0) == len(data)
        except OSError:  # of the disk
            return False

    def close(self) -> None:
        """Close the file."""
        os.close(self._file)


def read_batch(database: Path, worker_id: int) -> Progress:
    """Read the file of a worker. It tells nothing if it is missing, damaged or being written."""
    progress = Progress({}, [])
    try:
        head, _, rest = batch_path(database, worker_id).read_bytes().partition(b"\n")
        checksum, length = map(int, head.split())
        if zlib.crc32(text := rest[:length]) != checksum:
            return progress
        for line in text.decode().split("\n"):
            job_id, run, started_at, result = line.split(" ", 3)
            execution = ExecutionKey(int(job_id), int(run), float(started_at))
            if result:
                progress.completed[execution] = result
            else:
                progress.left.append(execution)
    except (OSError, ValueError):
        return Progress({}, [])
    return progress
