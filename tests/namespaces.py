"""Run commands in a pid namespace of their own, as a container does."""

from __future__ import annotations

import os
import secrets
import shutil
import signal
import subprocess
from collections.abc import Sequence
from functools import cache
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

    def __exit__(self, *raised: object) -> None:
        self.kill()

    def terminate(self) -> None:
        """Send SIGTERM to the command, as `docker stop` does at first."""
        os.kill(self.first, signal.SIGTERM)

    def kill(self) -> None:
        """Kill all processes of the namespace."""
        if self.process.poll() is None:
            os.kill(self.first, signal.SIGKILL)
            self.process.communicate()


class Host:
    """Another machine: a network, a pid namespace and a host name of its own, by cable.

    Attributes:
        gateway: The IP address of this machine on the cable.
        network: The beginning of a command that runs in its network.
        command: The same for a command that runs there altogether.
    """

    def __init__(self, name: str = "lab") -> None:
        if os.geteuid() != 0 or shutil.which("ip") is None:
            pytest.skip("machine: network namespaces need root and ip(8)")
        self._space = f"paise2-{secrets.token_hex(4)}"
        self._cable = f"p2-{self._space[7:]}"
        network = f"10.231.{secrets.randbelow(256)}.{4 * secrets.randbelow(64)}".rpartition(".")
        self.gateway = f"{network[0]}.{int(network[2]) + 1}"
        there = f"{network[0]}.{int(network[2]) + 2}/30"
        for words in (
            f"netns add {self._space}",
            f"link add {self._cable} type veth peer name eth0 netns {self._space}",
            f"addr add {self.gateway}/30 dev {self._cable}",
            f"link set {self._cable} up",
            f"-n {self._space} addr add {there} dev eth0",
            f"-n {self._space} link set eth0 up",
            f"-n {self._space} link set lo up",
        ):
            done = subprocess.run(["ip", *words.split()], capture_output=True, check=False)
            if done.returncode:
                self.close()
                pytest.skip("machine: a new network namespace is not allowed")
        self.network = ["ip", "netns", "exec", self._space]
        self.command = [
            *self.network,
            *("unshare", "--uts", "--pid", "--fork", "--kill-child", "--mount-proc"),
            *("sh", "-c", f'hostname {name}; exec "$@"', "sh"),
        ]

    def cut(self) -> None:
        """Let no packet through."""
        subprocess.run(["ip", "link", "set", self._cable, "down"], check=True)

    def connect(self) -> None:
        """Let packets through again."""
        subprocess.run(["ip", "link", "set", self._cable, "up"], check=True)

    def close(self) -> None:
        """Remove the network. Its processes must have ended."""
        subprocess.run(["ip", "netns", "del", self._space], capture_output=True, check=False)
