"""Run commands in a pid namespace of their own, as a container does."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
from collections.abc import Sequence
from functools import cache
from types import TracebackType
from typing import Any, Self

import pytest

from paise2nb.core import processes
from tests.waiting import until


@cache
def unshare() -> tuple[str, ...]:
    """The beginning of a command that runs in a new pid namespace; skips where there is none."""
    command = ["unshare", "--pid", "--fork", "--mount-proc", "--kill-child"]
    if os.geteuid() != 0:
        command[1:1] = ["--user", "--map-root-user"]
    if shutil.which(command[0]) is None:
        pytest.skip("machine: it has no unshare(1)")
    if subprocess.run([*command, "true"], capture_output=True, check=False).returncode:
        pytest.skip("machine: a new pid namespace is not allowed")
    return tuple(command)


def run_in_namespace(command: Sequence[str], **options: Any) -> subprocess.CompletedProcess[str]:
    """Run a command in a new pid namespace, and return its output."""
    return subprocess.run(
        [*unshare(), *command], capture_output=True, text=True, check=False, timeout=120, **options
    )


class Container:
    """A command that runs as pid 1 of a new pid namespace. A context manager: it is killed."""

    def __init__(self, command: Sequence[str], **options: Any) -> None:
        self.process = subprocess.Popen([*unshare(), *command], text=True, **options)
        self.first: int = until(lambda: processes.descendants(self.process.pid))[0]

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        tb: TracebackType | None,
    ) -> None:
        self.kill()

    def terminate(self) -> None:
        """Send SIGTERM to the command, as `docker stop` does at first."""
        os.kill(self.first, signal.SIGTERM)

    def kill(self) -> None:
        """Kill all processes of the namespace."""
        if self.process.poll() is None:
            os.kill(self.first, signal.SIGKILL)
            self.process.communicate()
