"""The line of processes that want to write: who comes first goes first, and the wait has an end."""

from __future__ import annotations

import fcntl
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from paise2nb.line import Line

SLEEPER = """
import sys
from pathlib import Path
from paise2nb.line import Line
line = Line(Path(sys.argv[1]))
line.open()
line.wait(60)
"""


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "line"


@pytest.fixture
def line(path: Path) -> Iterator[Callable[[], Line]]:
    lines = []

    def opened() -> Line:
        lines.append(Line(path))
        lines[-1].open()
        return lines[-1]

    yield opened
    for each in lines:
        each.close()


def asleep(path: Path) -> int:
    """How many wait for the lock of a file, as the kernel tells."""
    inode = f":{path.stat().st_ino} "
    locks = Path("/proc/locks").read_text().splitlines()
    return sum("->" in lock and inode in lock for lock in locks)


def until(condition: Callable[[], bool]) -> None:
    deadline = time.monotonic() + 30
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.005)


def test_sleepers_go_in_the_order_in_which_they_came(
    line: Callable[[], Line], path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("paise2nb.line.PATIENCE", 60.0)
    holder, went = line(), []
    assert holder.wait(0)

    def go(number: int, mine: Line) -> None:
        assert mine.wait(30)
        went.append(number)
        fcntl.flock(mine.turn, fcntl.LOCK_UN)

    threads = []
    for number in range(6):
        threads.append(threading.Thread(target=go, args=(number, line())))
        threads[-1].start()
        until(lambda number=number: asleep(path) == number + 1)
    fcntl.flock(holder.turn, fcntl.LOCK_UN)
    for thread in threads:
        thread.join(30)
    assert went == [0, 1, 2, 3, 4, 5]


def test_a_wait_ends_and_what_was_given_up_is_free_for_others(line: Callable[[], Line]) -> None:
    holder, hasty, patient = line(), line(), line()
    assert holder.wait(0)
    assert not hasty.wait(0.05)
    fcntl.flock(holder.turn, fcntl.LOCK_UN)
    assert patient.wait(30)
    fcntl.flock(patient.turn, fcntl.LOCK_UN)
    assert hasty.wait(30)


def test_who_stands_behind_a_stopped_process_goes_on(line: Callable[[], Line], path: Path) -> None:
    holder, behind = line(), line()
    assert holder.wait(0)
    command = [sys.executable, "-c", SLEEPER, str(path)]
    with subprocess.Popen(command, stdout=subprocess.DEVNULL) as stopped:
        try:
            until(lambda: asleep(path) == 1)
            os.kill(stopped.pid, signal.SIGSTOP)
            came = threading.Event()
            thread = threading.Thread(target=lambda: behind.wait(30) and came.set())
            thread.start()
            until(lambda: asleep(path) == 2)
            fcntl.flock(holder.turn, fcntl.LOCK_UN)
            assert came.wait(30)
            thread.join()
        finally:
            stopped.kill()
