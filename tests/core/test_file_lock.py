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

from paise2nb.core.file_lock import FairFileLock

SLEEPER = """
import sys
from pathlib import Path
from paise2nb.core.file_lock import FairFileLock
line = FairFileLock(Path(sys.argv[1]))
line.open()
line.wait(60)
"""


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "line"


@pytest.fixture
def line(path: Path) -> Iterator[Callable[[], FairFileLock]]:
    lines = []

    def opened() -> FairFileLock:
        lines.append(FairFileLock(path))
        lines[-1].open()
        return lines[-1]

    yield opened
    for each in lines:
        each.close()


def asleep(path: Path) -> list[int]:
    """The processes that wait for the lock of a file, as the kernel tells; one for each wait."""
    inode = f":{path.stat().st_ino} "
    locks = [lock.split() for lock in Path("/proc/locks").read_text().splitlines() if inode in lock]
    return [int(lock[5]) for lock in locks if lock[1] == "->"]


def until(condition: Callable[[], bool]) -> None:
    deadline = time.monotonic() + 30
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.005)


def test_sleepers_go_in_the_order_in_which_they_came(
    line: Callable[[], FairFileLock], path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("paise2nb.core.file_lock.RECHECK_SECONDS", 60.0)
    holder, went = line(), []
    assert holder.wait(0)

    def go(number: int, mine: FairFileLock) -> None:
        assert mine.wait(30)
        went.append(number)
        fcntl.flock(mine.file, fcntl.LOCK_UN)

    threads = []
    for number in range(6):
        threads.append(threading.Thread(target=go, args=(number, line())))
        threads[-1].start()
        until(lambda number=number: len(asleep(path)) == number + 1)
    fcntl.flock(holder.file, fcntl.LOCK_UN)
    for thread in threads:
        thread.join(30)
    assert went == [0, 1, 2, 3, 4, 5]


def test_a_wait_ends_and_what_was_given_up_is_free_for_others(
    line: Callable[[], FairFileLock], path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("paise2nb.core.file_lock.SPINS", 1)
    holder, hasty, patient = line(), line(), line()
    assert holder.wait(0)

    def gave_up_a_place() -> bool:
        assert not hasty.wait(0.05)
        return asleep(path) != []

    until(gave_up_a_place)
    for _ in range(3):
        assert not hasty.wait(0.05)
    assert asleep(path) == [os.getpid()]  # no place beside the one that was given up
    fcntl.flock(holder.file, fcntl.LOCK_UN)
    assert patient.wait(30)
    fcntl.flock(patient.file, fcntl.LOCK_UN)
    assert hasty.wait(30)


def test_who_waits_long_keeps_its_place(
    line: Callable[[], FairFileLock], path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("paise2nb.core.file_lock.RECHECK_SECONDS", 0.01)
    looks, looked = [], FairFileLock._spin
    monkeypatch.setattr(FairFileLock, "_spin", lambda line: looks.append(line) or looked(line))
    holder, patient = line(), line()
    assert holder.wait(0)
    thread = threading.Thread(target=patient.wait, args=(30,))
    thread.start()
    until(lambda: looks.count(patient) > 5 and asleep(path) != [])
    assert asleep(path) == [os.getpid()]
    fcntl.flock(holder.file, fcntl.LOCK_UN)
    thread.join()
    assert not holder.wait(0)
    fcntl.flock(patient.file, fcntl.LOCK_UN)
    assert holder.wait(30)


def test_who_stands_behind_a_stopped_process_goes_on(
    line: Callable[[], FairFileLock], path: Path
) -> None:
    holder, behind = line(), line()
    assert holder.wait(0)
    command = [sys.executable, "-c", SLEEPER, str(path)]
    with subprocess.Popen(command, stdout=subprocess.DEVNULL) as stopped:
        try:
            until(lambda: asleep(path) == [stopped.pid])
            os.kill(stopped.pid, signal.SIGSTOP)
            came = threading.Event()
            thread = threading.Thread(target=lambda: behind.wait(30) and came.set())
            thread.start()
            # The kernel takes who is stopped out of the line.
            until(lambda: asleep(path) == [os.getpid()])
            fcntl.flock(holder.file, fcntl.LOCK_UN)
            assert came.wait(30)
            thread.join()
        finally:
            stopped.kill()
