"""Apps that run jobs immediately, or only when they are claimed."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from paise2nb.app import App

Make = Callable[..., App]


@pytest.fixture
def app(make: Make) -> App:
    """Jobs run immediately, in this process."""
    return make()


@pytest.fixture
def waiting(make: Make) -> App:
    """Jobs wait until they are claimed."""
    return make("development", workers__retry__retry_delay=3600, workers__retry__max_delay=3600)


@pytest.fixture
def working(request: pytest.FixtureRequest, make_workers: Make, tmp_path: Path) -> App:
    """One worker process can be started, with the plugin of the test's module."""
    (tmp_path / "extra.py").write_text(request.module.PLUGIN)
    return make_workers(
        workers__concurrency=1,
        workers__pools={},
        workers__retry__policies={"crash": {"max_retries": 1, "retry_delay": 0}},
    )
