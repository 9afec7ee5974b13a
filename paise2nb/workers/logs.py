"""The log of the background processes: one file of limited size that contains no secrets."""

import logging
import logging.handlers
import os
import sys
from contextlib import suppress
from itertools import pairwise
from pathlib import Path
from typing import BinaryIO

from paise2nb.core.errors import redacted, shortened
from paise2nb.core.files import write_atomically
from paise2nb.core.render import plain

LOG_BYTES = 5_000_000
LOG_FILES = 3  # the number of earlier files, each of that size
RECORD_LENGTH = 20_000  # characters of one record


def log_path(data_dir: Path) -> Path:
    """Return the path of the log. Its directory is created, readable by the user only."""
    directory = data_dir / "logs"
    directory.mkdir(mode=0o700, exist_ok=True)
    return directory / "workers.log"


class _Formatter(logging.Formatter):
    """Removes secrets from URLs and the middle of long records, whatever logged them."""

    def format(self, record: logging.LogRecord) -> str:
        return shortened(redacted(super().format(record)), RECORD_LENGTH)


def configure_logging(data_dir: Path) -> None:
    """Send all log records of this process to the log."""
    handler = logging.handlers.WatchedFileHandler(log_path(data_dir))
    log_path(data_dir).chmod(0o600)
    handler.setFormatter(_Formatter("%(asctime)s %(process)d %(levelname)s %(name)s: %(message)s"))
    logging.root.setLevel(logging.INFO)
    logging.root.addHandler(handler)


class LogKeeper:
    """Limits the size of the log, to which several processes write, and shows what is new in it.

    Args:
        path: The log.
        show: Whether to copy new lines to standard error.
    """

    def __init__(self, path: Path, *, show: bool) -> None:
        self._path = path
        self._show = show and sys.stderr is not None
        self._shown = path.stat().st_size  # bytes

    def check(self) -> None:
        """Show what is new, and empty the log if it is too long. Its end goes to another file.

        It is copied and truncated, not renamed, because what tasks print goes to the open file.
        """
        with suppress(OSError):
            if self._path.stat().st_size <= (self._shown if self._show else LOG_BYTES):
                return
            with self._path.open("rb") as file:
                size = file.seek(0, os.SEEK_END)
                if self._show:
                    file.seek(max(self._shown, size - LOG_BYTES))
                    sys.stderr.write(plain(file.read().decode(errors="replace")))
                    sys.stderr.flush()
                    self._shown = file.tell()
                if size > LOG_BYTES:
                    file.seek(-LOG_BYTES, os.SEEK_END)
                    self._store_end(file)
                    self._shown = 0

    def _store_end(self, file: BinaryIO) -> None:
        names = [f"{self._path.name}.{number}" for number in range(1, LOG_FILES + 1)]
        paths = [self._path.with_name(name) for name in names]
        try:
            for source, target in reversed(list(pairwise(paths))):
                with suppress(FileNotFoundError):
                    source.rename(target)
            write_atomically(paths[0], file.read(), sync=False)
            with paths[0].open("ab") as stored:
                while printed_meanwhile := file.read():
                    stored.write(printed_meanwhile)
        finally:  # also if the disk is full
            os.truncate(self._path, 0)
