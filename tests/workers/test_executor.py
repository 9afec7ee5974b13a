"""What the exceptions and values of a task mean for its job."""

from __future__ import annotations

import pytest

from paise2nb.app import App
from tests.workers.plugin import PLUGIN as PLUGIN  # for the fixture `make`
from tests.workers.plugin import outcomes


@pytest.mark.parametrize(
    ("kind", "error_class", "error"),
    [
        ("exit", "SystemExit", "SystemExit: 3"),
        ("cancelled", "CancelledError", "CancelledError"),
        ("generator", "GeneratorExit", "GeneratorExit"),
        ("surrogate", "not_found", "no file 'a\\udcffb'"),
        ("lines", "ValueError", "ValueError: one two three"),
        ("mute", "Mute", "Mute: (no message)"),
        ("empty", "KeyError", "KeyError"),
    ],
)
def test_every_exception_of_a_task_is_stored(
    app: App, kind: str, error_class: str, error: str
) -> None:
    job = app.enqueue("odd", kind)
    assert (job.state, job.error_class, job.error) == ("failed", error_class, error)
    assert "in odd" in job.attempts[0]["traceback"]
    assert app.queue.job_store.claimed() == []


def test_long_errors_and_tracebacks_keep_their_ends(app: App) -> None:
    job = app.enqueue("odd", "long")
    traceback = job.attempts[0]["traceback"]
    assert len(job.error) == 1000
    assert len(traceback) == 20_000
    assert "characters left out" in job.error
    assert "characters left out" in traceback
    assert traceback.startswith("Traceback")
    assert "in odd" in traceback
    [group] = app.status().failures
    assert len(str(group)) < 25_000


def test_a_permanent_error_is_not_retried(app: App) -> None:
    job = app.enqueue("permanent", "nothing there")
    assert (job.state, job.error, job.error_class) == ("failed", "nothing there", "gone")
    assert len(job.attempts) == 1


def test_a_task_limits_its_attempts(app: App) -> None:
    job = app.enqueue("hopeless", "no way")
    assert outcomes(app, job.id) == ["failed"] * 3
    assert (job.attempt, job.max_attempts) == (3, 3)
    assert [a["retry_in"] for a in job.attempts] == [0, 0, None]


@pytest.mark.parametrize(("words", "error"), [((), "requested a retry"), (("please",), "please")])
def test_a_task_may_ask_for_a_retry_but_only_as_often_as_it_has_attempts(
    app: App, words: tuple[str, ...], error: str
) -> None:
    job = app.enqueue("asks", *words)
    assert (job.state, job.error_class, job.error) == ("failed", "retry", error)
    assert len(job.attempts) == 2


@pytest.mark.parametrize("kind", ["object", "nan", "bytes"])
def test_a_value_that_is_not_json_fails_at_once_without_follow_ups(app: App, kind: str) -> None:
    job = app.enqueue("not_json", kind)
    assert (job.state, job.error_class, len(job.attempts)) == ("failed", "result", 1)
    assert "not_json" in job.error
    assert len(app.jobs()) == 1


@pytest.mark.parametrize(
    ("arguments", "error"),
    [
        (("ecko", "x"), "unknown task 'ecko'; did you mean 'echo'?"),
        (("echo",), "task 'echo' takes (word), not ()"),
        (("echo", "x", "y"), "task 'echo' takes (word), not ('x', 'y')"),
    ],
)
def test_a_follow_up_job_is_checked_when_it_is_enqueued(
    app: App, arguments: tuple[str, ...], error: str
) -> None:
    job = app.enqueue("wrong_followup", *arguments)
    assert (job.state, job.error) == ("failed", error)
