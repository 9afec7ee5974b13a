"""The log of the background processes: one file of limited size that contains no secrets."""

from __future__ import annotations

import logging
from pathlib import Path

from paise2nb.core.errors import redacted


def log_path(data_dir: Path) -> Path:
    """Return the path of the log. Its directory is created, readable by the user only."""
    directory = data_dir / "logs"
    directory.mkdir(mode=0o700, exist_ok=True)
    return directory / "workers.log"


class _RedactingFormatter(logging.Formatter):
    """Removes secrets from URLs, whatever logged them."""

    def format(self, record: logging.LogRecord) -> str:
        return redacted(super().format(record))


def configure_logging(handler: logging.Handler) -> None:
    """Send all log records of this process to a handler."""
    layout = "%(asctime)s %(process)d %(levelname)s %(name)s: %(message)s"
    handler.setFormatter(_RedactingFormatter(layout))
    root = logging.getLogger()
    root.setLevel(logging.INFO)
    root.addHandler(handler)
