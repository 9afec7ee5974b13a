"""Starting a supervisor or a worker: a fresh process in a session of its own."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

from paise2nb.core import processes
from paise2nb.workers.logs import log_directory

STOP_SECONDS = 30.0  # how long a drain may take, unless `stop --timeout` says otherwise
# By name, because a worker opens an app, which is above this layer.
PROGRAMS = {"supervisor": "paise2nb.workers.supervisor", "worker": "paise2nb.worker"}


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
    program = f"import sys; sys.path[:] = {path!r}; from {PROGRAMS[role]} import main; main()"
    try:
        child = subprocess.Popen(
            [sys.executable, "-c", program, "paise2nb", role],
            stdin=subprocess.PIPE,
            stdout=log,
            stderr=log,
            start_new_session=True,
            env={**os.environ, processes.MARK: mark or processes.new_mark()},
        )
    finally:
        os.close(log)
    assert child.stdin is not None
    with child.stdin as pipe:
        pipe.write(json.dumps({**message, "parent": os.getpid()}).encode())
    return child


def received_message() -> dict[str, Any]:
    """What the parent has sent to a spawned process; its standard input is empty from then on."""
    received: dict[str, Any] = json.loads(sys.stdin.buffer.read())
    nothing = os.open(os.devnull, os.O_RDONLY)
    os.dup2(nothing, 0)
    os.close(nothing)
    return received
