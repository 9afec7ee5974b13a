"""Jobs in Python: how they are enqueued, found, moved and waited for, and what they tell."""

from __future__ import annotations

import asyncio
import json
from datetime import datetime
from pathlib import Path
from typing import Any

import pytest

import paise2nb
from paise2nb import App
from tests.acceptance.support import Place, Shell

JOB = {
    "id", "task", "args", "state", "waiting_for", "tag", "attempt", "max_attempts", "error_class",
    "error", "enqueued_at", "started_at", "finished_at", "run_at", "worker_pid", "parent_id",
    "root_id",
}  # fmt: skip


# Enqueueing ------------------------------------------------------------------------------------


def test_a_job_that_is_enqueued_waits_and_says_what_it_is(app: App) -> None:
    job = app.enqueue("shout", "hello", tag="news")
    assert (job.id, job.task, job.args, job.state) == (1, "shout", ["hello"], "queued")
    assert (job.tag, job.attempt, job.attempts, job.error) == ("news", 0, [], None)
    assert (job.parent_id, job.root_id, job.worker_pid) == (None, 1, None)
    assert (job.started_at, job.finished_at) == (None, None)
    assert datetime.fromisoformat(job.enqueued_at).utcoffset() is not None
    assert app.job(1).to_dict().keys() >= JOB | {"result", "attempts", "children"}
    assert json.loads(json.dumps(job.to_dict())) == job.to_dict()


def test_many_are_answered_in_the_order_of_their_arguments(app: App) -> None:
    jobs = app.enqueue_many("shout", ["a", "b", "a"], tag="t")
    assert [job.args for job in jobs] == [["a"], ["b"], ["a"]]
    assert (jobs.new, jobs.waiting, jobs.fresh) == (2, 1, 0)
    assert jobs[0].id == jobs[2].id
    assert jobs.to_dict().keys() >= {"jobs", "new", "waiting", "fresh"}
    again = app.enqueue_many("shout", ["b", "c"])
    assert (again.new, again.waiting) == (1, 1)
    assert again[0].id == jobs[1].id
    assert len(app.enqueue_many("shout", [])) == 0


def test_a_tuple_is_several_arguments(here: App) -> None:
    [job] = here.enqueue_many("add", [(1, 2.5)])
    assert (job.args, job.result()) == ([1, 2.5], 3.5)


def test_a_text_in_the_place_of_a_number_is_that_number(here: App) -> None:
    assert here.enqueue("add", "1").result() == 1.5


@pytest.mark.parametrize(
    ("task", "args", "options", "named"),
    [
        ("shuot", ("a",), {}, "shout"),
        ("shout", (), {}, "word"),
        ("shout", ("a", "b"), {}, "word"),
        ("shout", (object(),), {}, "shout"),
        ("shout", (float("nan"),), {}, "shout"),
        ("add", ("many",), {}, "many"),
        ("fetch", ("exmaple",), {}, "exmaple"),
        ("fetch", ("http://",), {}, "http://"),
        ("shout", ("a",), {"delay": -1}, "delay"),
        ("shout", ("a",), {"priority": 1.5}, "priority"),
        ("shout", ("a",), {"every": 0}, "every"),
        ("shout", ("a",), {"tag": " "}, "tag"),
    ],
)
def test_what_can_not_be_enqueued_is_refused_and_adds_nothing(
    app: App, task: str, args: tuple[Any, ...], options: dict[str, Any], named: str
) -> None:
    with pytest.raises(paise2nb.UsageError, match=named) as refused:
        app.enqueue(task, *args, **options)
    assert "\n" not in str(refused.value)
    assert len(app.jobs()) == 0


def test_one_wrong_argument_among_many_adds_none_of_them(app: App) -> None:
    with pytest.raises(paise2nb.UsageError, match="http://"):
        app.enqueue_many("fetch", ["https://example.org/", "http://"])
    assert len(app.jobs()) == 0


def test_a_delay_makes_a_job_scheduled_and_force_or_a_retry_makes_it_run_now(app: App) -> None:
    job = app.enqueue("shout", "later", delay=3600)
    assert job.state == "scheduled"
    assert datetime.fromisoformat(job.run_at) > datetime.fromisoformat(job.enqueued_at)
    assert app.enqueue("shout", "later").id == job.id
    assert [moved.id for moved in job.retry()] == [job.id]
    assert job.state == "queued"


def test_a_job_that_recurs_stays_one_job(app: App) -> None:
    job = app.enqueue("shout", "again", every=3600)
    assert (job.state, job.every) == ("queued", 3600)  # its first run is due
    again = app.enqueue_many("shout", ["again"], every=60)
    assert (again[0].id, again.waiting, job.every) == (job.id, 1, 60)
    assert job.to_dict()["every"] == 60


def test_higher_priorities_run_first_and_equal_ones_in_their_order(app: App, place: Place) -> None:
    path = place.root / "order"
    for word, priority in (("low", -1), ("first", 0), ("second", 0), ("high", 5)):
        app.enqueue("order", str(path), word, priority=priority)
    with paise2nb.open("test", place.data) as here:
        here.wait(timeout=60)
    assert path.read_text().split() == ["high", "first", "second", "low"]


# What a job tells ------------------------------------------------------------------------------


def test_a_job_that_has_completed_has_its_result_and_its_times(here: App) -> None:
    job = here.enqueue("shout", "hello")
    assert (job.state, job.result()) == ("completed", "HELLO")
    times = [job.enqueued_at, job.started_at, job.finished_at]
    assert times == sorted(times, key=datetime.fromisoformat)
    [attempt] = job.attempts
    assert (attempt["number"], attempt["outcome"], attempt["error"]) == (1, "completed", None)


def test_a_job_that_failed_has_its_error_and_carries_the_traceback(here: App) -> None:
    job = here.enqueue("stumble", "over this")
    assert (job.state, job.error_class) == ("failed", "ValueError")
    assert "over this" in job.error
    with pytest.raises(paise2nb.JobFailed, match="over this") as failed:
        job.result()
    assert "in stumble" in failed.value.traceback
    assert "in stumble" in job.attempts[0]["traceback"]
    for form in (str(job), job._repr_html_(), str(here.jobs()), here.jobs()._repr_html_()):
        assert "over this" in form


def test_a_coroutine_is_a_task_like_any_other(here: App) -> None:
    assert here.enqueue("later", "word").result() == "word"


def test_an_error_that_may_pass_is_tried_again_until_it_has_passed(here: App, place: Place) -> None:
    job = here.enqueue("flaky", str(place.root / "tries"), 2)
    assert (job.result(), job.attempt, job.max_attempts) == ("done", 3, 4)
    assert [attempt["outcome"] for attempt in job.attempts] == ["failed", "failed", "completed"]
    assert [attempt["number"] for attempt in job.attempts] == [1, 2, 3]


def test_attempts_end_and_the_last_error_is_kept(here: App, place: Place) -> None:
    job = here.enqueue("flaky", str(place.root / "tries"), 99)
    assert (job.state, job.error_class, len(job.attempts)) == ("failed", "connection", 4)


def test_a_permanent_error_is_not_tried_again(here: App) -> None:
    job = here.enqueue("refuse", "no")
    assert (job.state, job.error_class, job.attempt, job.max_attempts) == ("failed", "gone", 1, 6)


def test_a_task_may_ask_to_be_run_again(here: App) -> None:
    assert here.enqueue("asks").result() == 3


def test_a_result_that_is_no_json_fails_the_job(here: App) -> None:
    job = here.enqueue("unprintable")
    assert job.state == "failed"
    assert "JSON" in job.error


def test_follow_ups_inherit_the_tag_and_are_there_only_if_the_job_completed(here: App) -> None:
    job = here.enqueue("parent", "a", "b", tag="t")
    assert [child.result() for child in job.children] == ["A", "B"]
    assert [(child.tag, child.parent_id, child.root_id) for child in job.children] == [
        ("t", job.id, job.id)
    ] * 2
    assert [child.task for child in job.tree] == ["parent", "shout", "shout"]
    assert job.to_dict()["children"] == [child.id for child in job.children]
    failed = here.enqueue("half", "never")
    assert (failed.state, len(failed.children)) == ("failed", 0)


# Listings --------------------------------------------------------------------------------------


def test_filters_choose_jobs_oldest_first(here: App) -> None:
    here.enqueue_many("stumble", ["a", "b"], tag="t")
    here.enqueue("shout", "c", tag="t")
    here.enqueue("refuse", "d")
    assert [job.args for job in here.jobs(task="stumble")] == [["a"], ["b"]]
    assert [job.args for job in here.jobs(state="failed", tag="t")] == [["a"], ["b"]]
    assert [job.args for job in here.jobs(error="gone")] == [["d"]]
    assert [job.args for job in here.jobs(tag="t", limit=1)] == [["a"]]
    assert len(here.jobs(task="nobody")) == 0


def test_what_is_not_there_is_said(here: App) -> None:
    for call in (here.job, here.jobs, here.item, here.replay):
        with pytest.raises(paise2nb.NotFound, match="7"):
            call(7)
    with pytest.raises(paise2nb.UsageError, match="broken"):
        here.jobs(state="broken")


def test_a_listing_is_a_sequence_with_dictionaries_and_a_frame(here: App) -> None:
    here.enqueue_many("shout", [str(number) for number in range(25)])
    jobs = here.jobs()
    assert len(jobs) == len(jobs.to_dicts()) == len(jobs.to_frame()) == 25
    assert (jobs[0].args, jobs[-1].args) == (["0"], ["24"])
    assert [job.args for job in jobs[3:5]] == [["3"], ["4"]]
    assert set(jobs.to_dicts()[0]) >= JOB
    assert list(jobs.to_frame()["state"]) == ["completed"] * 25
    # Only the view is cut.
    assert jobs._repr_html_().count("<tr>") == 21
    assert str(here.jobs(task="nobody"))


def test_a_frame_of_jobs_is_aligned_with_the_input(here: App, place: Place) -> None:
    good = place.write("good.md", "# Good\n\nWith words.")
    bad = place.root / "bad.nobody"
    bad.write_bytes(bytes(range(256)))
    frame = here.enqueue_many("fetch", [str(bad), str(good)]).to_frame(items=True)
    assert list(frame["state"]) == ["failed", "stored"]
    assert list(frame["title"].fillna("")) == ["", "Good"]
    assert "With words." in frame["text"][1]
    assert frame["error"][0]


def test_the_status_counts_and_groups_failures_with_the_command_that_helps(here: App) -> None:
    here.enqueue_many("stumble", ["over", "over this"])
    here.enqueue("parent", "a")
    status = here.status()
    assert (status.jobs["failed"], status.roots["failed"]) == (2, 2)
    assert (status.jobs["completed"], status.roots["completed"]) == (2, 1)
    assert (status.immediate, status.profile) == (True, "test")
    for form in (str(status), status._repr_html_()):
        assert "paise2 retry --error ValueError" in form
    assert json.loads(json.dumps(status.to_dict())) == status.to_dict()


# Moves -----------------------------------------------------------------------------------------


def test_a_cancelled_job_can_be_put_back(app: App) -> None:
    job = app.enqueue("shout", "a")
    assert [moved.id for moved in job.cancel()] == [job.id]
    assert job.state == "cancelled"
    with pytest.raises(paise2nb.JobFailed, match="cancelled"):
        job.result()
    assert [moved.id for moved in job.retry()] == [job.id]
    assert job.state == "queued"


def test_a_retry_keeps_the_history_and_grants_attempts_anew(here: App) -> None:
    job = here.enqueue("stumble", "a")
    here.jobs(state="failed", error="ValueError").retry()
    assert (job.state, [attempt["number"] for attempt in job.attempts]) == ("failed", [1, 2])


def test_a_retry_where_a_twin_waits_answers_with_the_twin(app: App) -> None:
    job = app.enqueue("shout", "a")
    job.cancel()
    twin = app.enqueue("shout", "a")
    assert twin.id != job.id
    assert [moved.id for moved in job.retry()] == [twin.id]
    assert job.state == "cancelled"


def test_what_has_completed_can_neither_be_retried_nor_cancelled(here: App) -> None:
    job = here.enqueue("shout", "a")
    assert (len(job.retry()), len(job.cancel()), job.state) == (0, 0, "completed")


def test_a_replay_runs_the_job_here_and_changes_nothing(here: App) -> None:
    job = here.enqueue("parent", "a")
    stumbled = here.enqueue("stumble", "raw")
    before = here.jobs().to_dicts(), stumbled.attempts
    replayed = here.replay(job.id)
    assert replayed.value == 1
    assert replayed.to_dict()["followups"] == [{"task": "shout", "args": ["a"]}]
    with pytest.raises(ValueError, match="raw"):
        here.replay(stumbled.id)
    assert (here.jobs().to_dicts(), stumbled.attempts) == before


# Waiting ---------------------------------------------------------------------------------------


def test_a_wait_without_workers_says_how_to_start_some(app: App) -> None:
    job = app.enqueue("shout", "a")
    for wait in (app.wait, job.wait, job.result, app.jobs().wait):
        with pytest.raises(paise2nb.PaiseError, match="paise2 worker start"):
            wait()


def test_a_wait_ends_by_its_timeout_and_the_job_stays(app: App) -> None:
    job = app.enqueue("shout", "a")
    for wait in (app.wait, job.wait, job.result, app.jobs().wait):
        with pytest.raises(TimeoutError) as over:
            wait(timeout=0.05)
        assert isinstance(over.value, paise2nb.Timeout)
        assert isinstance(over.value, paise2nb.PaiseError)
    assert job.state == "queued"


def test_a_wait_for_what_has_ended_returns_what_was_waited_for(here: App) -> None:
    job = here.enqueue("shout", "a")
    jobs = here.enqueue_many("shout", ["b", "c"])
    here.enqueue("shout", "not due", delay=3600)
    assert job.wait() is job
    assert jobs.wait() is jobs
    here.wait()

    async def both() -> None:
        assert await job is job
        assert await jobs is jobs

    asyncio.run(both())


def test_jobs_that_waited_run_where_another_app_runs_them(app: App, place: Place) -> None:
    jobs = app.enqueue_many("shout", ["a", "b"])
    with paise2nb.open("test", place.data) as here:
        here.wait()
    assert [job.result() for job in jobs] == ["A", "B"]


# Opening and closing ---------------------------------------------------------------------------


def test_jobs_and_items_outlive_the_app(place: Place) -> None:
    path = place.write("page.md", "# Kept\n\nWith words.")
    with paise2nb.open("test", place.data) as here:
        here.enqueue("fetch", str(path))
    with paise2nb.open("development", place.data) as app:
        assert app.profile == "development"
        assert app.data_dir == place.data
        assert [item.title for item in app.items()] == ["Kept"]


@pytest.mark.parametrize(
    ("profile", "settings", "named"),
    [
        ("prodution", {}, "production"),
        ("test", {"workers.concurency": 2}, "workers.concurrency"),
        ("test", {"workers.concurrency": "many"}, "workers.concurrency"),
        ("test", {"plugins": ["no_such_module_at_all"]}, "no_such_module_at_all"),
    ],
)
def test_an_app_does_not_open_with_wrong_settings(
    place: Place, profile: str, settings: dict[str, Any], named: str
) -> None:
    with pytest.raises(paise2nb.PaiseError, match=named) as refused:
        paise2nb.open(profile, place.data, settings)
    assert "\n" not in str(refused.value)


def test_the_temporary_data_of_the_profile_test_go_with_the_app(
    place: Place, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("PAISE2_DATA_DIR")
    with paise2nb.open("test") as here:
        directory = Path(here.data_dir)
        assert here.enqueue("shout", "a").result() == "A"
        assert directory.is_dir()
    assert not directory.exists()
    here.close()


def test_every_exception_of_the_package_is_a_paise_error() -> None:
    names = (
        "JobFailed", "NotFound", "PermanentError", "PluginError", "SettingsError", "StorageError",
        "Timeout", "TransientError", "UnknownTask", "UsageError", "WorkersError",
    )  # fmt: skip
    assert all(issubclass(getattr(paise2nb, name), paise2nb.PaiseError) for name in names)
    with pytest.raises(AttributeError, match="no_such_name"):
        paise2nb.no_such_name  # noqa: B018


# Statistics ------------------------------------------------------------------------------------


def test_statistics_count_executions_and_failures(here: App, shell: Shell) -> None:
    here.enqueue_many("shout", ["a", "b", "c"])
    here.enqueue_many("refuse", ["d", "e"])
    rows = {row["group"]: row for row in here.stats(since="1h").to_dicts()}
    assert (rows["shout"]["started"], rows["shout"]["completed"]) == (3, 3)
    assert (rows["refuse"]["completed"], rows["refuse"]["failed"]) == (0, 2)
    assert 0 < rows["shout"]["run_p50"] <= rows["shout"]["run_p95"] <= rows["shout"]["run_p99"]
    [error] = here.stats(by="error").to_dicts()
    assert (error["group"], error["failed"]) == ("gone", 2)
    assert list(here.stats().to_frame()["group"]) == ["shout", "refuse"]
    wrong = shell("stats", "--by", "colour")
    assert (wrong.status, wrong.stderr.count("\n")) == (2, 1)
