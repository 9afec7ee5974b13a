"""Pages are what listings, bars and frames show: a fetch with its extract and its store."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from pathlib import Path

import pytest

from paise2nb.app import App
from paise2nb.core.clock import local_time
from paise2nb.core.errors import UsageError
from paise2nb.jobs.models import Outcome
from tests.views.queue import end_next

Make = Callable[..., App]
PLUGIN = """
from paise2nb import task

@task("index")
def index(context, word):
    context.enqueue("part", word)

@task("part", max_retries=0)
def part(context, word):
    raise ValueError(word)
"""


@pytest.fixture
def app(make: Make) -> App:
    """Jobs run immediately, in this process."""
    return make()


@pytest.fixture
def good(tmp_path: Path) -> str:
    path = tmp_path / "good.md"
    path.write_text("# Good\n\nWords about locks.\n")
    return str(path)


@pytest.fixture
def bad(tmp_path: Path) -> str:
    path = tmp_path / "bad.bin"
    path.write_bytes(bytes(range(256)) * 4)
    return str(path)


@pytest.fixture
def folder(tmp_path: Path) -> str:
    path = tmp_path / "folder"
    path.mkdir()
    for number in range(30):
        (path / f"{number:02}.md").write_text(f"# Number {number}\n\nWords about {number}.\n")
    (path / "odd.bin").write_bytes(bytes(range(256)) * 4)
    return str(path)


def test_a_listing_has_pages_and_other_jobs_of_users(app: App, good: str, bad: str) -> None:
    app.enqueue_many("fetch", [good, bad])
    app.enqueue("cleanup")
    rows = app.jobs().to_dicts()
    assert [(row["task"], row["state"]) for row in rows] == [
        ("fetch", "stored"), ("fetch", "failed"), ("cleanup", "completed"),
    ]  # fmt: skip
    assert rows[1]["error_class"] == "unsupported", "the error of its extract"
    assert rows[1]["finished_at"] is not None
    assert list(app.jobs().to_frame()["state"]) == ["stored", "failed", "completed"]
    everything = app.jobs(all=True).to_dicts()
    states = Counter((row["task"], row["state"]) for row in everything)
    assert states == {
        ("fetch", "completed"): 2, ("extract", "completed"): 1, ("extract", "failed"): 1,
        ("store", "completed"): 1, ("cleanup", "completed"): 1,
    }  # fmt: skip


def test_a_state_is_that_of_the_page_or_with_all_that_of_the_job(
    app: App, good: str, bad: str
) -> None:
    first, second = app.enqueue_many("fetch", [good, bad])
    assert app.jobs(state="stored").ids == [first.id]
    assert app.jobs(state="failed").ids == [second.id]
    assert [job.task for job in app.jobs(state="failed", all=True)] == ["extract"]
    assert app.jobs(state="failed", error="unsupported").ids == [second.id]
    assert [job.task for job in app.jobs(task="store")] == ["store"]
    with pytest.raises(UsageError, match="unknown state 'stored'"):
        app.jobs(state="stored", all=True)
    assert (first.state, first.page_state) == ("completed", "stored")
    assert [job.page_state for job in first.tree] == ["stored"] * 3
    assert (second.state, second.page_state) == ("completed", "failed")
    assert (second.error_class, first.error_class) == ("unsupported", None)


def test_rows_have_times(app: App, good: str) -> None:
    app.enqueue("fetch", good)
    assert app.jobs().first(1)[0]["time"][:2] == "20"
    for form in (str(app.jobs()), app.jobs()._repr_html_()):
        assert "time" in form


@pytest.mark.parametrize("part", [0, 1, 2])
def test_any_job_of_a_page_shows_the_whole_way(app: App, good: str, part: int) -> None:
    page = app.enqueue("fetch", good)
    job = page.tree[part]
    for form in (job.details(), job._repr_html_()):
        for task in ("fetch", "extract", "store"):
            assert task in form
        assert "stored" in form
        assert form.count(" ms") + form.count(" s") >= 3, "durations"
        assert form.count("20") >= 3, "times"
    assert "enqueued 20" in job.details()


def test_the_way_has_attempts_and_what_waits(make: Make) -> None:
    app = make("development")
    job = app.enqueue("fetch", "http://a.example/")
    end_next(app, Outcome("failed", "retrying", None, "dns", "no such host", retry_in=600))
    for form in (job.details(), job._repr_html_()):
        assert "no such host (retried after 10 min)" in form
        assert "retrying" in form
        assert "until 20" in form


def test_an_enqueue_of_what_waits_for_later_says_until_when(make: Make) -> None:
    app = make("development")
    later = app.enqueue("index", "x", delay=3600)
    again = app.enqueue("index", "x")
    assert again.id == later.id
    for form in (str(again), again._repr_html_()):
        assert f"already waiting until {local_time(later.run_at)}; --force runs it now" in form
    assert app.enqueue("index", "x", force=True).state == "queued"


def test_a_source_shows_what_became_of_its_pages(app: App, folder: str) -> None:
    job = app.enqueue("folder", folder)
    assert job.ended()[0] == {"stored": 30, "failed": 1}
    for form in (str(job), job.details(), job._repr_html_()):
        assert "pages: 30 stored, 1 failed" in form
    assert "… 72 more" in str(job)


def test_a_failed_page_is_retried_by_its_own_id(app: App, bad: str) -> None:
    page = app.enqueue("fetch", bad)
    [retried] = page.retry()
    assert retried.id == page.id
    assert [len(job.attempts) for job in page.tree] == [1, 2]


def test_a_bar_counts_pages(app: App, folder: str) -> None:
    seen: list[tuple[int, int]] = []
    job = app.enqueue("folder", folder)
    job.wait(on_progress=lambda done, total: seen.append((done, total)))
    assert seen == [(32, 32)], "31 pages and the folder"


def test_a_bar_of_everything_counts_pages(make: Make) -> None:
    app = make("development")
    app.enqueue_many("fetch", [f"http://a.example/{n}" for n in range(5)])
    seen: list[tuple[int, int]] = []
    with pytest.raises(TimeoutError, match="5 of 5"):
        app.wait(0, on_progress=lambda done, total: seen.append((done, total)))
    assert seen == [(0, 5)]


def test_a_failed_job_below_a_source_is_found_and_retried(app: App) -> None:
    parent = app.enqueue("index", "x")
    [failed] = app.jobs(state="failed")
    assert (failed.task, failed.parent_id) == ("part", parent.id)
    assert app.jobs().ids == [parent.id, failed.id]
    assert app.jobs(error=failed.error_class).retry().ids == [failed.id]
