"""Starting a supervisor or a worker: a fresh process in a session of its own."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

from paise2nb.core import processes as process


def log_directory(data_dir: Path) -> Path:
    """Where the logs lie, made private."""
    path = data_dir / "logs"
    path.mkdir(mode=0o700, exist_ok=True)
    return path


def spawn(
    role: str, message: dict[str, Any], data_dir: Path, mark: str | None = None
) -> subprocess.Popen[bytes]:
    """Start a supervisor or a worker: a fresh process in a session of its own.

    It gets its settings over its standard input and reads no file and no environment for them;
    its output lands in the log. A kernel's interrupt, restart or end does not reach it, and it
    bears a mark of its own: see `paise2nb.core.processes.end_marked`.
    """
    log = os.open(
        log_directory(data_dir) / "workers.log", os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o600
    )
    # The same import path as here, so that what loads here loads there.
    path = [entry or os.getcwd() for entry in sys.path]
    program = (
        f"import sys; sys.path[:] = {path!r}; from paise2nb.workers.main import {role}; {role}()"
    )
    try:
        child = subprocess.Popen(
            [sys.executable, "-c", program, "paise2nb", role],
            stdin=subprocess.PIPE, stdout=log, stderr=log, start_new_session=True,
            env={**os.environ, process.MARK: mark or process.new_mark()},
        )  # fmt: skip
    finally:
        os.close(log)
    assert child.stdin is not None
    with child.stdin as pipe:
        pipe.write(json.dumps({**message, "parent": os.getpid()}).encode())
    return child
