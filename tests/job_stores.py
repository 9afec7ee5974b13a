"""A job store whose time a test moves, and what tests of job stores do."""

from __future__ import annotations

import os
import signal
from collections.abc import Iterator, Mapping
from pathlib import Path

import pytest

from paise2nb.jobs.models import Claim, Limits, Outcome, Wanted, Worker
from paise2nb.jobs.store import JobStore


class Clock:
    """A clock that a test moves."""

    now = 1e9


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def store(tmp_path: Path, clock: Clock) -> Iterator[JobStore]:
    store = JobStore(tmp_path / "tasks.db", durable=False, host_delay=1.0)
    store.now = lambda: clock.now  # type: ignore[method-assign]  # the test moves the time
    yield store
    store.close()


@pytest.fixture
def worker(store: JobStore) -> Worker:
    return store.register("default", 1)


def suspend(store: JobStore, pid: int) -> None:
    """Suspend a process, but not while it writes: then no other could write any more."""
    store.database.write(lambda connection: os.kill(pid, signal.SIGSTOP))


def end_and_claim(
    store: JobStore, claim: Claim, outcome: Outcome, worker: Worker, limits: Mapping[str, Limits]
) -> tuple[bool, Claim | None]:
    """Write an outcome and claim the next job in one transaction, as a worker does."""
    [accepted], claims = store.end_several([(claim, outcome)], worker, Wanted(limits))
    return accepted, next(iter(claims), None)
