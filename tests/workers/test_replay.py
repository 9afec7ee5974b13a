"""Replays and results: the value of a task, or its exception."""

from __future__ import annotations

from typing import Any

import pytest

from paise2nb.app import App
from paise2nb.core.errors import JobFailed, PermanentError, UsageError
from tests.workers.plugin import PLUGIN as PLUGIN  # for the fixture `make`


def rows_of(app: App) -> list[Any]:
    job_store = app.queue.job_store
    return [
        job_store.rows(job_store.find()),
        [job_store.attempts(i) for i in job_store.find()],
        job_store.counts(),
    ]


def test_a_replay_returns_the_value_and_the_follow_ups_and_changes_nothing(waiting: App) -> None:
    job = waiting.enqueue("parent", "a", "b")
    before = rows_of(waiting)
    replay = waiting.replay(job.id)
    assert (replay.value, [f.args for f in replay.followups]) == (2, ['["a"]', '["b"]'])
    assert replay.to_dict() == {
        "job": job.id,
        "task": "parent",
        "value": 2,
        "followups": [{"task": "echo", "args": ["a"]}, {"task": "echo", "args": ["b"]}],
    }
    assert rows_of(waiting) == before


def test_a_replay_raises_what_the_task_raises(app: App) -> None:
    job = app.enqueue("permanent", "gone for good")
    before = rows_of(app)
    with pytest.raises(PermanentError, match="gone for good"):
        app.replay(job.id)
    assert rows_of(app) == before


def test_a_replay_stores_no_progress(waiting: App) -> None:
    job = waiting.enqueue("steps", 2)
    before = rows_of(waiting)
    waiting.replay(job.id)
    assert rows_of(waiting) == before


def test_a_replay_of_an_unknown_task_names_the_nearest(waiting: App) -> None:
    job = waiting.enqueue("echo", "x")
    waiting.queue.job_store.database.write(lambda c: c.execute("UPDATE jobs SET task = 'ecko'"))
    with pytest.raises(UsageError, match="unknown task 'ecko'; did you mean 'echo'"):
        waiting.replay(job.id)


def test_the_error_of_a_result_has_the_traceback_of_the_task(app: App) -> None:
    job = app.enqueue("hopeless", "no way")
    with pytest.raises(JobFailed, match=r"job 1 \(hopeless\) failed: ValueError: no way") as caught:
        job.result()
    assert "in hopeless" in caught.value.traceback
    assert "In the worker:\nTraceback" in str(caught.value)
