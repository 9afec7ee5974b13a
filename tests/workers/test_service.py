"""The workers as a service: the protocol of systemd against a socket of the test, and the units."""

from __future__ import annotations

import os
import re
import shutil
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from tests.waiting import until

DEPLOY = Path(__file__).parents[2] / "deploy"
SECONDS = 60


class Manager:
    """A socket that gets what a service tells."""

    def __init__(self, address: str) -> None:
        self.address = address
        self._socket = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        self._socket.settimeout(SECONDS)
        self._socket.bind(address.replace("@", "\0", 1))

    def next(self) -> dict[str, str]:
        text = self._socket.recv(10_000).decode()
        return dict(line.split("=", 1) for line in text.splitlines())

    def until(self, name: str) -> dict[str, str]:
        """The first message with that name."""
        while name not in (told := self.next()):
            pass
        return told

    def nothing_for(self, seconds: float) -> bool:
        self._socket.settimeout(seconds)
        try:
            self._socket.recv(10_000)
        except TimeoutError:
            return True
        finally:
            self._socket.settimeout(SECONDS)
        return False

    def close(self) -> None:
        self._socket.close()


@pytest.fixture(params=["path", "abstract"])
def manager(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Manager]:
    path = str(tmp_path / "notify") if request.param == "path" else f"@paise2-{os.getpid()}"
    found = Manager(path)
    yield found
    found.close()


@contextmanager
def service(
    manager: Manager, data_dir: Path, *words: str, watchdog: float = 0.3
) -> Iterator[subprocess.Popen[bytes]]:
    """The process that a service manager starts."""
    command = [sys.executable, "-m", "paise2nb", "--data-dir", str(data_dir), "worker", "start"]
    environment = {"NOTIFY_SOCKET": manager.address, "WATCHDOG_USEC": f"{watchdog * 1e6:.0f}"}
    process = subprocess.Popen(
        [*command, "--concurrency", "1", "--set", "workers.pools={fetch: null}", *words],
        env={**os.environ, **environment}, stderr=subprocess.PIPE,
    )  # fmt: skip
    try:
        yield process
    finally:
        process.terminate()
        process.communicate(timeout=SECONDS)


def test_a_service_tells_that_it_is_ready_lives_and_stops(manager: Manager, tmp_path: Path) -> None:
    with service(manager, tmp_path / "data") as process:
        told = manager.until("READY")
        assert told["READY"] == "1"
        assert told["STATUS"] == "1 worker, 0 jobs running, 0 jobs waiting"
        for _ in range(3):
            assert manager.next()["WATCHDOG"] == "1"
        process.send_signal(signal.SIGTERM)
        stopping = manager.until("STOPPING")
        assert stopping["STATUS"].startswith("draining: ")
        assert process.wait(SECONDS) == 0


def test_a_supervisor_that_hangs_gives_no_sign_of_life(manager: Manager, tmp_path: Path) -> None:
    with service(manager, tmp_path / "data", watchdog=0.1) as process:
        manager.until("READY")
        process.send_signal(signal.SIGSTOP)
        until(lambda: manager.nothing_for(2.5))  # a step takes a second at most
        process.send_signal(signal.SIGCONT)
        assert manager.until("WATCHDOG")


def test_a_worker_that_cannot_start_is_told_and_the_service_is_not_ready(
    manager: Manager, tmp_path: Path
) -> None:
    plugin = tmp_path / "broken.py"
    plugin.write_text("import os\nif 'PAISE2_MARK' in os.environ: raise ValueError('no key')\n")
    with service(manager, tmp_path / "data", "--set", f"plugins=[{plugin}]"):
        while "can't start" not in (told := manager.next())["STATUS"]:
            assert "READY" not in told
        assert "no key" in told["STATUS"]


def test_a_service_whose_job_store_is_gone_fails_so_that_it_is_started_again(
    manager: Manager, tmp_path: Path
) -> None:
    with service(manager, tmp_path / "data") as process:
        manager.until("READY")
        for path in (tmp_path / "data").glob("tasks.db*"):
            if path.is_file():
                path.unlink()
        assert process.wait(SECONDS) == 1


@pytest.mark.parametrize(("unit", "scope"), [("paise2", "--system"), ("paise2-user", "--user")])
def test_systemd_accepts_the_units(
    unit: str, scope: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    if shutil.which("systemd-analyze") is None:
        pytest.skip("machine: systemd is not installed")
    monkeypatch.setenv("XDG_RUNTIME_DIR", str(tmp_path))
    text = (DEPLOY / f"{unit}.service").read_text()
    program = shutil.which("true")
    copy = tmp_path / f"{unit}.service"
    copy.write_text(re.sub(r"^(ExecStart=)\S+", rf"\g<1>{program}", text, flags=re.MULTILINE))
    done = subprocess.run(
        ["systemd-analyze", "verify", scope, "--man=no", "--recursive-errors=no", str(copy)],
        capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert (done.returncode, done.stdout + done.stderr) == (0, "")


def test_a_unit_waits_for_longer_than_the_drain_takes() -> None:
    for unit in DEPLOY.glob("*.service"):
        text = unit.read_text()
        [drain] = re.findall(r"--drain-timeout (\d+)", text)
        [stop] = re.findall(r"^TimeoutStopSec=(\d+)$", text, re.MULTILINE)
        assert int(stop) > int(drain) + 10
