"""Apps that run jobs immediately, or only when they are claimed."""

from __future__ import annotations

from collections.abc import Callable

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
