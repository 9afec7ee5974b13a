"""Start a supervisor or a worker as a new process in a session of its own."""

import json
import os
import subprocess
import sys
from collections.abc import Sequence
from contextlib import suppress
from functools import partial
from pathlib import Path
from typing import IO, Any

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
    with open(log_path(data_dir), "ab", opener=partial(os.open, mode=0o600)) as log:
        mark = mark or processes.new_mark()
        return start_program(PROGRAMS[role], role, message, log, mark=mark)


def start_program(
    module: str,
    role: str,
    message: object,
    output: IO[bytes] | None = None,
    *,
    mark: str = "",
    pass_fds: Sequence[int] = (),
) -> subprocess.Popen[bytes]:
    """Call ``main`` of a module in a new process, in a session of its own.

    Args:
        module: The name of the module.
        role: Shown in lists of processes.
        message: JSON that it gets on standard input.
        output: The file for standard output and standard error; None for none.
        mark: As in `spawn`.
        pass_fds: File descriptors that it inherits.
    """
    child = subprocess.Popen(
        processes.program(module, "paise2nb", role),
        stdin=subprocess.PIPE,
        stdout=output or subprocess.DEVNULL,
        stderr=output or subprocess.DEVNULL,
        start_new_session=True,
        env={**os.environ, processes.MARK: mark} if mark else None,
        pass_fds=pass_fds,
    )
    assert child.stdin is not None
    with suppress(BrokenPipeError), child.stdin as pipe:  # it ended at once: its output says why
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
