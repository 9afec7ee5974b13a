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

LONGEST = 2048  # bytes, which one write replaces as a whole


class ExecutionKey(NamedTuple):
    """What identifies an execution: see `Claim`."""

    id: int
    run: int
    started_at: float


class Progress(NamedTuple):
    """What has become of executions that were claimed together.

    Attributes:
        completed: Those that have completed, with the JSON text that each returned.
        left: The others in their order. The first of those that still have their job runs.
    """

    completed: dict[ExecutionKey, str]
    left: list[ExecutionKey]

    def waiting(self, holding: Collection[ExecutionKey]) -> set[ExecutionKey]:
        """Return those that wait for another one, of the executions that still have their jobs."""
        return {*[key for key in self.left if key in holding][1:]}


def execution_key(row: sqlite3.Row | dict[str, Any]) -> ExecutionKey:
    """Return the execution that a row of a job names."""
    return ExecutionKey(row["id"], row["run"], row["started_at"])


def batch_path(database: Path, worker_id: int) -> Path:
    """Return the path of a worker's file beside a database."""
    return database.with_name(f"{database.name}.batches") / str(worker_id)


class BatchFile:
    """The file of one worker process, which writes it.

    Args:
        database: The path of the job store.
        worker_id: The id of the worker.
    """

    def __init__(self, database: Path, worker_id: int) -> None:
        self._path = batch_path(database, worker_id)
        self._file: int | None = None

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
        try:
            if self._file is None:
                self._path.parent.mkdir(mode=0o700, exist_ok=True)
                self._file = os.open(self._path, os.O_WRONLY | os.O_CREAT, 0o600)
            # No shorter than what it replaces, and no sync: it outlives the process, and after a
            # power cut the database is that of some time ago, too.
            os.pwrite(self._file, b"%d %d\n%b" % (zlib.crc32(text), len(text), text), 0)
        except OSError:  # a full disk, which the next commit reports
            return False
        return True

    def close(self) -> None:
        """Close the file."""
        if self._file is not None:
            os.close(self._file)
            self._file = None


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
