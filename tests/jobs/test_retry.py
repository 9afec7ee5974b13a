"""Retries: which policy applies to an error, and what it decides."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from paise2nb.config.settings import RetryRules, Settings
from paise2nb.core.errors import PermanentError, TaskError, TransientError
from paise2nb.jobs.retry import (
    JITTER,
    LONGEST_RETRY_AFTER,
    charge_crash,
    decide,
    error_class,
    policy,
)
from paise2nb.plugins import Task

RULES: dict[str, Any] = {
    "workers.retry.max_retries": 3,
    "workers.retry.retry_delay": 10,
    "workers.retry.backoff": 2,
    "workers.retry.max_delay": 60,
}


def settings(tmp_path: Path, **policies: dict[str, float]) -> Settings:
    overrides = {**RULES, "workers.retry.policies": policies}
    return Settings.resolve("development", data_dir=tmp_path, overrides=overrides)


def make_task(name: str = "shout", **values: Any) -> Task:
    return Task(name, lambda context: None, plugin="loud", **values)


@pytest.mark.parametrize(
    ("error", "name"),
    [
        (TransientError("x"), "transient"),
        (TransientError("x", "dns"), "dns"),
        (PermanentError("x"), "permanent"),
        (TaskError("x"), "error"),
        (TimeoutError("x"), "timeout"),
        (ConnectionResetError("x"), "connection"),
        (MemoryError(), "memory"),
        (ValueError("x"), "ValueError"),
        (FileNotFoundError("x"), "FileNotFoundError"),
    ],
)
def test_every_error_has_a_class(error: Exception, name: str) -> None:
    assert error_class(error) == name


@pytest.mark.parametrize(
    ("retry", "seconds"), [(1, 10), (2, 20), (3, 40), (4, 60), (5, 60), (10_000, 60)]
)
def test_delays_grow_up_to_the_maximum(retry: int, seconds: float) -> None:
    assert RetryRules(3, 10, 2, 60).delay(retry) == seconds


DNS = {"dns": {"max_retries": 6}}


@pytest.mark.parametrize(
    ("task", "policies", "max_retries", "retry_delay"),
    [
        (make_task(), {}, 3, 10),
        (make_task(max_retries=0), {}, 0, 10),
        (make_task(retry_delay=5), {}, 3, 5),
        (make_task(), {"dns": {"max_retries": 9}}, 9, 10),
        (make_task(max_retries=1, retry_delay=5), {"dns": {"max_retries": 9}}, 9, 5),
        (make_task(), {"timeout": {"max_retries": 9}}, 3, 10),
        (make_task(), {"loud.dns": {"max_retries": 8}, "dns": {"max_retries": 9}}, 8, 10),
        (make_task(), {"shout.dns": {"max_retries": 7}, "loud.dns": {"max_retries": 8}}, 7, 10),
        (make_task(), {"shout.dns": {"max_retries": 7}, "dns": {"retry_delay": 1}}, 7, 1),
        (make_task(), {"other.dns": {"max_retries": 9}}, 3, 10),
        (make_task(policies=DNS), {"dns": {"max_retries": 9}}, 6, 10),
        (make_task(policies=DNS), {"loud.dns": {"max_retries": 8}}, 6, 10),
        (make_task(policies=DNS), {"shout.dns": {"max_retries": 7}}, 7, 10),
        (make_task(policies=DNS, max_retries=1, retry_delay=5), {}, 6, 5),
        (None, {"dns": {"max_retries": 9}}, 9, 10),
        (None, {}, 3, 10),
    ],
    ids=[
        "default",
        "task's max_retries",
        "task's retry_delay",
        "class",
        "class before task",
        "another class",
        "plugin and class",
        "task and class",
        "values of several policies",
        "another task",
        "task's policy before class",
        "task's policy before plugin and class",
        "settings before task's policy",
        "task's policy before task's values",
        "task is gone, class",
        "task is gone, default",
    ],
)
def test_the_most_specific_policy_applies(
    tmp_path: Path,
    task: Task | None,
    policies: dict[str, dict[str, float]],
    max_retries: int,
    retry_delay: float,
) -> None:
    chosen = policy(settings(tmp_path, **policies), task, "dns")
    assert (chosen.max_retries, chosen.retry_delay) == (max_retries, retry_delay)
    assert chosen.max_attempts == max_retries + 1


@pytest.mark.parametrize(
    ("error", "failures", "minimum"),
    [
        (TransientError("x"), 1, 10),
        (TransientError("x"), 2, 20),
        (TransientError("x"), 3, 40),
        (TransientError("x"), 4, None),
        (ValueError("x"), 1, 10),
        (PermanentError("x"), 1, None),
        (PermanentError("x", "timeout"), 1, None),
        (TransientError("x", "throttled", retry_after=300), 1, 300),
        (TransientError("x", "throttled", retry_after=5), 1, 10),
        (TransientError("x", "throttled", retry_after=300), 4, None),
        (TransientError("x", "throttled", retry_after=0), 1, 10),
        (TransientError("x", "throttled", retry_after=-5), 1, 10),
        (TransientError("x", "throttled", retry_after=1e300), 1, LONGEST_RETRY_AFTER),
        (TransientError("x", "throttled", retry_after=float("inf")), 1, LONGEST_RETRY_AFTER),
        (TransientError("x", "throttled", retry_after=float("nan")), 1, 10),
    ],
)
def test_a_failure_is_retried_or_final(
    tmp_path: Path, error: Exception, failures: int, minimum: float | None
) -> None:
    delay, attempts = decide(settings(tmp_path), make_task(), error, failures)
    assert attempts == 4
    if minimum is None:
        assert delay is None
    else:
        assert delay is not None
        assert minimum <= delay <= minimum * (1 + JITTER)


def test_a_delay_of_zero_has_no_jitter(tmp_path: Path) -> None:
    immediate = Settings.resolve("test", data_dir=tmp_path)
    assert decide(immediate, make_task(), ValueError("x"), 1) == (0, 4)


def test_jobs_that_failed_together_are_retried_at_different_times(tmp_path: Path) -> None:
    found = settings(tmp_path)
    delays = {decide(found, make_task(), ValueError("x"), 1)[0] for _ in range(20)}
    assert len(delays) > 10


@pytest.mark.parametrize(
    ("policies", "crashes", "state"),
    [
        ({}, 1, "retrying"),
        ({}, 2, "retrying"),
        ({}, 3, "failed"),
        ({"crash": {"max_retries": 0}}, 1, "failed"),
        ({"crash": {"max_retries": 5}}, 5, "retrying"),
        ({"shout.crash": {"max_retries": 0}}, 1, "failed"),
        ({"whisper.crash": {"max_retries": 0}}, 1, "retrying"),
    ],
)
def test_crashes_are_limited_separately(
    tmp_path: Path, policies: dict[str, dict[str, float]], crashes: int, state: str
) -> None:
    row = {"task": "shout", "crashes": crashes - 1}
    outcome = charge_crash(settings(tmp_path, **policies), row, "crashed", "died", None)
    assert (outcome.outcome, outcome.state) == ("crashed", state)
    assert (outcome.error_class, outcome.error) == ("crash", "died")
    assert (outcome.retry_in is None) == (state == "failed")


def test_jitter_exceeds_no_maximum_and_cuts_nothing_that_a_server_requires(tmp_path: Path) -> None:
    errors = [(TransientError("x"), 60.0), (TransientError("x", retry_after=300), 300.0)]
    for error, expected in errors:
        assert {decide(settings(tmp_path), make_task(max_retries=9), error, 8)[0]} == {expected}
    crashes = {"crashes": 1, "task": "shout", "worker_pid": 1}
    slow = settings(tmp_path, crash={"retry_delay": 50})
    assert charge_crash(slow, crashes, "crashed", "died", None).retry_in == 60
