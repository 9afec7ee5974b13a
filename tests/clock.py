"""A job store whose time a test moves."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from paise2nb.jobs.models import Worker
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
