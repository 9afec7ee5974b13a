"""The lock between processes: one has it at a time, and a wait can time out."""

from __future__ import annotations

import fcntl
import os
import signal
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from itertools import pairwise
from pathlib import Path

import pytest

from paise2nb.core.file_lock import LAST_PAUSE, SHRINKING_SECONDS, FileLock, pause

NewLock = Callable[[], FileLock]

WAITER = """
import sys
from pathlib import Path
from paise2nb.core.file_lock import FileLock
lock = FileLock(Path(sys.argv[1]))
print("waiting", flush=True)
lock.acquire(60)
"""


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "lock"


@pytest.fixture
def new_lock(path: Path) -> Iterator[NewLock]:
    locks = []

    def opened() -> FileLock:
        locks.append(FileLock(path))
        return locks[-1]

    yield opened
    for lock in locks:
        lock.close()


def release(lock: FileLock) -> None:
    fcntl.flock(lock.file, fcntl.LOCK_UN)


def test_a_wait_times_out_and_leaves_nothing_behind(new_lock: NewLock) -> None:
    holder, hasty, patient = new_lock(), new_lock(), new_lock()
    assert holder.acquire(0)
    for _ in range(3):
        assert not hasty.acquire(0.02)
    release(holder)
    assert patient.acquire(0)


def test_a_waiting_process_gets_the_lock_when_it_is_released(new_lock: NewLock) -> None:
    holder, waiting = new_lock(), new_lock()
    assert holder.acquire(0)
    acquired: list[bool] = []
    thread = threading.Thread(target=lambda: acquired.append(waiting.acquire(30)))
    thread.start()
    release(holder)
    thread.join()
    assert acquired == [True]
    assert not holder.acquire(0)


def test_a_stopped_process_does_not_hold_up_others(new_lock: NewLock, path: Path) -> None:
    holder, other = new_lock(), new_lock()
    assert holder.acquire(0)
    command = [sys.executable, "-c", WAITER, str(path)]
    with subprocess.Popen(command, stdout=subprocess.PIPE) as waiter:
        try:
            assert waiter.stdout is not None
            waiter.stdout.readline()
            os.kill(waiter.pid, signal.SIGSTOP)
            os.waitpid(waiter.pid, os.WUNTRACED)
            release(holder)
            assert other.acquire(30)
        finally:
            waiter.kill()


def test_a_lock_that_was_closed_is_free_and_can_be_acquired_again(new_lock: NewLock) -> None:
    first, second = new_lock(), new_lock()
    assert first.acquire(0)
    first.close()
    assert second.acquire(0)
    second.close()
    assert first.acquire(0)


def test_the_longer_a_process_waits_the_more_often_it_tries() -> None:
    pauses = [pause(waited / 1000) for waited in range(1, int(1000 * SHRINKING_SECONDS) + 1)]
    assert all(later < earlier for earlier, later in pairwise(pauses))
    assert pauses[-1] == pytest.approx(LAST_PAUSE)
    assert pause(3600) == LAST_PAUSE
