"""The log of the background processes: one file, with bounded size and without secrets."""

from __future__ import annotations

import logging
from pathlib import Path

from paise2nb.core.errors import redacted


def log_directory(data_dir: Path) -> Path:
    """The directory of the logs, made private to the user."""
    path = data_dir / "logs"
    path.mkdir(mode=0o700, exist_ok=True)
    return path


class _Redacting(logging.Formatter):
    """Lines without the secrets of addresses, whoever wrote them."""

    def format(self, record: logging.LogRecord) -> str:
        return redacted(super().format(record))


def configure_logging(target: logging.Handler) -> None:
    """Send the log of this process to a file: time, process, logger, message."""
    target.setFormatter(_Redacting("%(asctime)s %(process)d %(levelname)s %(name)s: %(message)s"))
    root = logging.getLogger()
    root.setLevel(logging.INFO)
    root.addHandler(target)
