"""The log of the background processes: one file of limited size that contains no secrets."""

import fcntl
import io
import json
import logging
import logging.handlers
import os
import socket
import sys
import time
from contextlib import suppress
from contextvars import ContextVar
from itertools import pairwise
from pathlib import Path
from typing import Any, BinaryIO

from paise2nb.config.settings import LoggingSettings
from paise2nb.core.clock import iso
from paise2nb.core.errors import redacted, shortened
from paise2nb.core.files import write_atomically
from paise2nb.core.render import plain
from paise2nb.jobs.models import Claim

LOG_BYTES = 4_000_000  # a longer log is emptied
LOG_FILES = 3  # the number of earlier files, each of that size
CHECK_BYTES = 50_000  # that a process writes between two checks of the size
SHOWN_BYTES = 1000  # the last ones that were shown, to find them in the file of an emptied log
RECORD_LENGTH = 20_000  # characters of one record, or bytes of one printed line


def log_path(data_dir: Path) -> Path:
    """Return the path of the log. Its directory is created, readable by the user only."""
    directory = data_dir / "logs"
    directory.mkdir(mode=0o700, exist_ok=True)
    return directory / "workers.log"


def rest_of_emptied(path: Path, shown: bytes) -> bytes:
    """Return what had been added to a log before another process emptied it.

    Args:
        path: The log.
        shown: The last lines that were read of it.
    """
    with suppress(FileNotFoundError):
        earlier = path.with_name(f"{path.name}.1").read_bytes()
        if shown and shown in earlier:
            rest = earlier.rpartition(shown)[2]
            return rest[: rest.rfind(b"\n") + 1]
    return b""


class LogLimiter:
    """Limits the size of the log, to which several processes write, and shows what is new in it.

    Args:
        path: The log.
        show: Whether to copy new lines to standard error.
        as_json: Whether each line that is shown must be a JSON object.
    """

    def __init__(self, path: Path, *, show: bool = False, as_json: bool = False) -> None:
        self._path = path
        self._show = show and sys.stderr is not None
        self._as_json = as_json
        self._shown = path.stat().st_size  # bytes
        self._last = b""
        self._unchecked = 0  # bytes

    def wrote(self, size: int) -> None:
        """Check the log now and then; this process is about to write that many bytes."""
        self._unchecked += size
        if self._unchecked >= CHECK_BYTES:
            self._unchecked = 0
            self.check()

    def check(self) -> None:
        """Show what is new, and empty the log if it is too long. Its end goes to another file.

        It is copied and truncated, not renamed, because what tasks print goes to the open file.
        """
        with suppress(OSError):
            size = self._path.stat().st_size
            if self._show and size < self._shown:  # another process has emptied it
                self._shown = 0
                self._copy(rest_of_emptied(self._path, self._last))
            if size <= (self._shown if self._show else LOG_BYTES):
                return
            with self._path.open("rb") as file:
                # Raises if another process empties it now, which may be stopped meanwhile.
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
                size = file.seek(0, os.SEEK_END)
                if self._show:
                    self._shown = file.seek(max(self._shown, size - LOG_BYTES))
                    new = file.read()
                    new = new[: new.rfind(b"\n") + 1]  # complete lines
                    self._copy(new)
                    self._shown += len(new)
                if size > LOG_BYTES:
                    file.seek(-LOG_BYTES, os.SEEK_END)
                    self._store_end(file)
                    self._shown = 0

    def _copy(self, new: bytes) -> None:
        self._last = (self._last + new)[-SHOWN_BYTES:]
        for line in plain(new.decode(errors="replace")).splitlines():
            text = _as_object(line) if self._as_json else shortened(line, RECORD_LENGTH)
            sys.stderr.write(f"{text}\n")
        sys.stderr.flush()

    def _store_end(self, file: BinaryIO) -> None:
        names = [f"{self._path.name}.{number}" for number in range(1, LOG_FILES + 1)]
        paths = [self._path.with_name(name) for name in names]
        try:
            for source, target in reversed(list(pairwise(paths))):
                with suppress(FileNotFoundError):
                    source.rename(target)
            write_atomically(paths[0], file.read(LOG_BYTES), sync=False)
            with paths[0].open("ab") as stored:
                stored.write(file.read(CHECK_BYTES))  # what was printed meanwhile
        finally:  # also if the disk is full
            os.truncate(self._path, 0)


def _as_object(line: str) -> str:
    """Return a line that is a JSON object as it is, and a printed one as the message of one."""
    with suppress(ValueError):
        if isinstance(json.loads(line), dict):
            return line
    values = {"time": iso(time.time()), "level": "info"}
    return json.dumps({**values, "message": shortened(line, RECORD_LENGTH)})


# Records -------------------------------------------------------------------------------------


class _Formatter(logging.Formatter):
    """Removes secrets from URLs and the middle of long records, whatever logged them."""

    def format(self, record: logging.LogRecord) -> str:
        return shortened(redacted(super().format(record)), RECORD_LENGTH)


running: ContextVar[Claim | None] = ContextVar("running", default=None)
"""The execution to which the log records of this thread belong."""


class _JSONFormatter(_Formatter):
    """Writes a JSON object for each record, with the job, page and worker to which it belongs."""

    host = socket.gethostname()

    def format(self, record: logging.LogRecord) -> str:
        values: dict[str, Any] = {
            "time": iso(record.created),
            "level": record.levelname.lower(),
            "pid": record.process,
            "logger": record.name,
            "message": super().format(record),  # with the traceback
            "host": self.host,
        }
        if claim := running.get():
            values |= {"job": claim.id, "page": claim.page_id, "task": claim.task}
            values["worker"] = claim.worker_pid
        values |= {
            name: getattr(record, name) for name in ("job", "worker") if name in vars(record)
        }
        return json.dumps({name: value for name, value in values.items() if value is not None})


class _Handler(logging.handlers.WatchedFileHandler):
    """Keeps the log within its limit."""

    def __init__(self, path: Path) -> None:
        # Names of files may have characters that no encoding has.
        super().__init__(path, encoding="utf-8", errors="backslashreplace")
        self._limiter = LogLimiter(path)

    def format(self, record: logging.LogRecord) -> str:
        text = super().format(record)
        self._limiter.wrote(len(text))
        return text


def configure_logging(data_dir: Path, settings: LoggingSettings) -> None:
    """Send all log records of this process to the log."""
    handler = _Handler(log_path(data_dir))
    log_path(data_dir).chmod(0o600)
    text = _Formatter("%(asctime)s %(process)d %(levelname)s %(name)s: %(message)s")
    handler.setFormatter(_JSONFormatter() if settings.format == "json" else text)
    logging.root.setLevel(settings.level.upper())
    for earlier in [each for each in logging.root.handlers if isinstance(each, _Handler)]:
        logging.root.removeHandler(earlier)  # of an earlier supervisor in this process
        earlier.close()
    logging.root.addHandler(handler)


# Printed text --------------------------------------------------------------------------------


class _Printed(io.FileIO):
    """A standard stream that writes to the log. Long lines are cut, and the log is kept short."""

    def __init__(self, descriptor: int, limiter: LogLimiter) -> None:
        super().__init__(descriptor, "w", closefd=False)
        self._limiter = limiter
        self._length = 0  # of the last line, which may be unfinished

    def write(self, data: Any, /) -> int:
        lines = bytes(data).splitlines(keepends=True)
        left = memoryview(b"".join(map(self._cut, lines)))
        self._limiter.wrote(len(left))
        while left:
            left = left[super().write(left) :]
        return len(data)

    def _cut(self, line: bytes) -> bytes:
        text = line.rstrip(b"\r\n")
        room = max(RECORD_LENGTH - self._length, 0)
        ended = len(text) < len(line)
        self._length = 0 if ended else self._length + len(text)
        return text[:room] + line[len(text) :]


def limit_printed_text(data_dir: Path) -> None:
    """Bound what this process prints. The files of its standard streams are the log."""
    limiter = LogLimiter(log_path(data_dir))
    for name, descriptor in (("stdout", 1), ("stderr", 2)):
        stream = io.BufferedWriter(_Printed(descriptor, limiter))
        text = io.TextIOWrapper(
            stream, "utf-8", "backslashreplace", line_buffering=name == "stderr"
        )
        setattr(sys, name, text)
