"""The lock between processes is granted in the order of arrival, and a wait can time out."""

from __future__ import annotations

import _thread
import fcntl
import os
import signal
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from io import FileIO
from pathlib import Path
from typing import Any

import pytest

from paise2nb.core import file_lock
from paise2nb.core.file_lock import FairFileLock
from tests.waiting import until

NewLock = Callable[..., FairFileLock]

SLEEPER = """
import sys
from pathlib import Path
from paise2nb.core.file_lock import FairFileLock
lock = FairFileLock(Path(sys.argv[1]))
lock.open()
lock.acquire(60)
"""


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "lock"


@pytest.fixture
def new_lock(path: Path) -> Iterator[NewLock]:
    locks = []

    def opened(lock: type[FairFileLock] = FairFileLock, **options: Any) -> FairFileLock:
        locks.append(lock(path, **options))
        locks[-1].open()
        return locks[-1]

    yield opened
    for lock in locks:
        lock.close()


def asleep(path: Path) -> list[int]:
    """The process of each wait for the lock of a file, in the order of the kernel's queue."""
    inode = f":{path.stat().st_ino} "
    locks = [lock.split() for lock in Path("/proc/locks").read_text().splitlines() if inode in lock]
    return [int(lock[5]) for lock in locks if lock[1] == "->"]


def test_sleeping_processes_get_the_lock_in_the_order_of_arrival(
    new_lock: NewLock, path: Path
) -> None:
    holder, order = new_lock(), []
    assert holder.acquire(0)

    def use(number: int, mine: FairFileLock) -> None:
        assert mine.acquire(30)
        order.append(number)
        fcntl.flock(mine.file, fcntl.LOCK_UN)

    threads = []
    for number in range(6):
        threads.append(threading.Thread(target=use, args=(number, new_lock(recheck_seconds=60))))
        threads[-1].start()
        until(lambda number=number: len(asleep(path)) == number + 1)
    fcntl.flock(holder.file, fcntl.LOCK_UN)
    for thread in threads:
        thread.join(30)
    assert order == [0, 1, 2, 3, 4, 5]


@pytest.mark.parametrize("turn_seconds", [0, 600])
def test_a_process_overtakes_others_only_in_its_turn(
    new_lock: NewLock, path: Path, turn_seconds: float
) -> None:
    holder, sleeper = new_lock(), new_lock(recheck_seconds=60)
    mine = new_lock(spins=5, turn_seconds=turn_seconds, recheck_seconds=60)
    assert mine._has_turn()  # nobody sleeps: its turn begins
    assert holder.acquire(0)
    thread = threading.Thread(target=sleeper.acquire, args=(30,))
    thread.start()
    until(lambda: asleep(path) != [])
    assert mine._has_turn() == (turn_seconds > 0)
    fcntl.flock(holder.file, fcntl.LOCK_UN)
    thread.join()
    fcntl.flock(sleeper.file, fcntl.LOCK_UN)


def test_a_wait_times_out_and_an_abandoned_waiter_holds_up_no_other(
    new_lock: NewLock, path: Path
) -> None:
    holder, hasty, patient = new_lock(), new_lock(spins=1), new_lock()
    assert holder.acquire(0)

    def left_a_waiter() -> bool:
        assert not hasty.acquire(0.05)
        return asleep(path) != []

    until(left_a_waiter)
    for _ in range(3):
        assert not hasty.acquire(0.05)
    assert asleep(path) == [os.getpid()]  # no second waiter
    fcntl.flock(holder.file, fcntl.LOCK_UN)
    assert patient.acquire(30)
    fcntl.flock(patient.file, fcntl.LOCK_UN)
    assert hasty.acquire(30)


@pytest.fixture
def attempts(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """The file descriptors of all attempts to lock a file."""
    found: list[int] = []
    attempt = file_lock._try

    def counted(file: FileIO) -> bool:
        found.append(file.fileno())
        return attempt(file)

    monkeypatch.setattr(file_lock, "_try", counted)
    return found


def test_a_long_wait_keeps_its_place_in_the_queue(
    new_lock: NewLock, path: Path, attempts: list[int]
) -> None:
    holder, patient = new_lock(), new_lock(recheck_seconds=0.01, spins=1, naps=0)
    assert holder.acquire(0)
    thread = threading.Thread(target=patient.acquire, args=(30,))
    thread.start()
    until(lambda: attempts.count(patient.file.fileno()) > 5 and asleep(path) != [])
    assert asleep(path) == [os.getpid()]
    fcntl.flock(holder.file, fcntl.LOCK_UN)
    thread.join()
    assert not holder.acquire(0)
    fcntl.flock(patient.file, fcntl.LOCK_UN)
    assert holder.acquire(30)


def test_while_another_process_spins_a_process_naps_before_it_sleeps(
    new_lock: NewLock, path: Path, attempts: list[int]
) -> None:
    holder, spinner, napper = new_lock(), new_lock(), new_lock(naps=10**6)
    hasty = new_lock(naps=0, recheck_seconds=60)
    assert holder.acquire(0)
    fcntl.flock(spinner._spinner, fcntl.LOCK_EX)
    napping = threading.Thread(target=napper.acquire, args=(30,))
    napping.start()
    until(lambda: attempts.count(napper.file.fileno()) > 5)
    assert asleep(path) == []
    sleeping = threading.Thread(target=hasty.acquire, args=(30,))
    sleeping.start()
    until(lambda: asleep(path) == [os.getpid()])
    fcntl.flock(holder.file, fcntl.LOCK_UN)
    sleeping.join()
    fcntl.flock(hasty.file, fcntl.LOCK_UN)
    napping.join()


def test_only_one_process_spins(new_lock: NewLock, attempts: list[int]) -> None:
    holder, spinner, other = new_lock(), new_lock(spins=10**9), new_lock(naps=0)
    assert holder.acquire(0)
    spinning = threading.Thread(target=spinner.acquire, args=(30,))
    spinning.start()
    until(lambda: attempts.count(spinner.file.fileno()) > 5)
    assert not other.acquire(0)
    assert attempts.count(other.file.fileno()) == 1
    fcntl.flock(holder.file, fcntl.LOCK_UN)
    spinning.join()


def test_a_wait_that_spins_ends_in_time(new_lock: NewLock, attempts: list[int]) -> None:
    holder, hasty = new_lock(), new_lock(spins=10**6)
    assert holder.acquire(0)
    assert not hasty.acquire(0.01)
    assert attempts.count(hasty.file.fileno()) < 10**6


@pytest.mark.parametrize("name", ["_spinner", "_sleepers"])
def test_an_interrupt_of_a_wait_leaves_no_file_locked(
    new_lock: NewLock, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    holder, mine, other = new_lock(), new_lock(), new_lock()
    assert holder.acquire(0)
    attempt = file_lock._try

    def interrupted(file: FileIO) -> bool:
        locked = attempt(file)
        if file is getattr(mine, name):
            raise KeyboardInterrupt
        return locked

    monkeypatch.setattr(file_lock, "_try", interrupted)
    with pytest.raises(KeyboardInterrupt):
        mine.acquire(30)
    assert attempt(getattr(other, name))


def test_an_interrupt_right_after_a_wait_has_begun_leaves_no_lock(
    new_lock: NewLock, path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    holder, mine, other = new_lock(), new_lock(spins=1), new_lock()
    assert holder.acquire(0)
    start = _thread.start_new_thread

    def interrupted(*args: Any) -> None:
        start(*args)
        raise KeyboardInterrupt

    monkeypatch.setattr(_thread, "start_new_thread", interrupted)
    # A kernel keeps the exception, too, with all that its frames refer to.
    with pytest.raises(KeyboardInterrupt) as kept:
        mine.acquire(30)
    monkeypatch.undo()
    until(lambda: asleep(path) == [os.getpid()])
    fcntl.flock(holder.file, fcntl.LOCK_UN)
    until(lambda: asleep(path) == [])
    assert other.acquire(1)
    assert kept.tb is not None


def test_a_stopped_process_does_not_hold_up_those_behind_it(new_lock: NewLock, path: Path) -> None:
    holder, behind = new_lock(), new_lock()
    assert holder.acquire(0)
    command = [sys.executable, "-c", SLEEPER, str(path)]
    with subprocess.Popen(command, stdout=subprocess.DEVNULL) as stopped:
        try:
            until(lambda: asleep(path) == [stopped.pid])
            os.kill(stopped.pid, signal.SIGSTOP)
            acquired = threading.Event()
            thread = threading.Thread(target=lambda: behind.acquire(30) and acquired.set())
            thread.start()
            # The kernel takes the stopped process out of its queue.
            until(lambda: asleep(path) == [os.getpid()])
            fcntl.flock(holder.file, fcntl.LOCK_UN)
            assert acquired.wait(30)
            thread.join()
        finally:
            stopped.kill()
