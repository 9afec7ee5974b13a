"""Start a supervisor or a worker as a new process in a session of its own."""

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

from paise2nb.config.settings import Settings
from paise2nb.core import processes
from paise2nb.workers.logs import log_path

STOP_SECONDS = 30.0  # how long the drain of `worker stop` may take by default
DRAIN_SECONDS = 25.0  # the same after a signal: less than the 30 s of Kubernetes until SIGKILL
# By name, because a worker opens an app, which is above this layer.
PROGRAMS = {"supervisor": "paise2nb.workers.supervisor", "worker": "paise2nb.worker"}


def spawn(
    role: str,
    settings: str,
    job_store: Path,
    data_dir: Path,
    mark: str | None = None,
    **options: Any,
) -> subprocess.Popen[bytes]:
    """Start a supervisor or a worker. It runs on when this process is interrupted or ends.

    Args:
        role: ``supervisor`` or ``worker``.
        settings: JSON. The new process reads no file and no environment variable for them.
        job_store: The path of the job store.
        data_dir: Where the log is, to which standard output and standard error go.
        mark: Identifies the process and its descendants to `processes.end_marked`.
        options: More of what `receive_message` returns in the new process.

    Raises:
        UsageError: The working directory was deleted.
    """
    message = {"settings": settings, "job_store": str(job_store), "parent": os.getpid(), **options}
    log = os.open(log_path(data_dir), os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o600)
    try:
        child = subprocess.Popen(
            processes.program(PROGRAMS[role], "paise2nb", role),
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
        pipe.write(json.dumps(message).encode())
    return child


def receive_message() -> tuple[Settings, dict[str, Any]]:
    """Read the settings and the options from the parent. Afterwards standard input is empty."""
    received: dict[str, Any] = json.loads(sys.stdin.buffer.read())
    settings = Settings.from_json(received["settings"])
    os.environ["PAISE2_PROFILE"] = settings.profile
    nothing = os.open(os.devnull, os.O_RDONLY)
    os.dup2(nothing, 0)
    os.close(nothing)
    return settings, received
