"""Results: attributes, listings, frames aligned with their input, awaiting, safe HTML."""

from __future__ import annotations

import asyncio
import copy
import json
import pickle
import re
import sqlite3
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import pandas as pd
import pytest

import paise2nb
from paise2nb.app import App
from paise2nb.collection import items
from paise2nb.core.display import Displayable
from paise2nb.core.errors import JobFailed, NotFound, PaiseError
from paise2nb.jobs import queries
from paise2nb.jobs.models import Outcome
from paise2nb.plugins import Document
from paise2nb.views.enqueued import Enqueued
from paise2nb.views.items import Item, SearchResult
from paise2nb.views.job_rows import JOB_KEYS
from paise2nb.views.jobs import Job, Jobs
from paise2nb.views.status import tail

CONTROL = re.compile(r"[\x00-\x08\x0b-\x1f\x7f-\x9f\u202a-\u202e\u2066-\u2069]")
HOSTILE = "<script>alert(1)</script>\x1b[31m\u202e&\"'"

PLUGIN = """
from paise2nb import task

@task("echo")
def echo(context, *words):
    return words[0] if words else None

@task("parent")
def parent(context, *words):
    for word in words:
        context.enqueue("echo", word)

@task("fails", max_retries=1, retry_delay=0)
def fails(context, word):
    raise ValueError(word)

@task("fails_below")
def fails_below(context, word):
    context.enqueue("fails", word)
"""


@pytest.fixture
def here(tmp_path: Path) -> Path:
    (tmp_path / "extra.py").write_text(PLUGIN)
    (tmp_path / "one.md").write_text("# The first\n\nWords about knots.\n")
    (tmp_path / "two.txt").write_text("Words about ferries.\n")
    (tmp_path / "odd.bin").write_bytes(bytes(range(256)) * 4)
    return tmp_path


@pytest.fixture
def app(here: Path) -> Iterator[App]:
    """An app that runs jobs at once, in this process."""
    settings = {"plugins": [str(here / "extra.py")]}
    with paise2nb.open("test", data_dir=here / "data", settings=settings) as app:
        yield app


@pytest.fixture
def waiting(here: Path) -> Iterator[App]:
    """An app without workers: jobs stay in the queue."""
    settings = {"plugins": [str(here / "extra.py")]}
    with paise2nb.open("development", data_dir=here / "data", settings=settings) as app:
        yield app


# A job ---------------------------------------------------------------------------------------

DETAIL_KEYS = (*JOB_KEYS, "every", "result", "attempts", "children")


def test_the_keys_of_a_job_are_those_of_the_contract(app: App) -> None:
    assert JOB_KEYS == (
        "id", "task", "args", "state", "waiting_for", "tag", "attempt", "max_attempts",
        "error_class", "error", "enqueued_at", "started_at", "finished_at", "run_at",
        "worker_pid", "parent_id", "root_id", "page_id", "page_state",
    )  # fmt: skip
    job = app.enqueue("parent", "a", "b")
    assert [tuple(row) for row in app.jobs(all=True).to_dicts()] == [JOB_KEYS] * 3
    found = job.to_dict()
    assert tuple(found) == DETAIL_KEYS
    assert found["children"] == [2, 3]
    assert json.loads(json.dumps(found)) == found
    assert all(getattr(job, key) == found[key] for key in JOB_KEYS)


def test_a_misspelled_attribute_of_a_job_gets_a_suggestion(app: App) -> None:
    job = app.enqueue("echo", "x")
    with pytest.raises(AttributeError) as caught:
        job.sate  # type: ignore[attr-defined]  # noqa: B018
    assert (caught.value.name, caught.value.obj) == ("sate", job)  # Python suggests by these
    assert set(JOB_KEYS) <= set(dir(job))
    assert not hasattr(job, "progress")
    with pytest.raises(AttributeError, match="property of 'Job' object has no setter"):
        job.state = "failed"


def test_a_job_shows_the_current_state_of_its_row(waiting: App) -> None:
    job = waiting.enqueue("echo", "x")
    assert job.state == "queued"
    job.cancel()
    assert job.state == "cancelled"
    job.retry()
    assert job.state == "queued"


def test_jobs_are_equal_by_id_and_app(app: App) -> None:
    job = app.enqueue("echo", "x")
    assert job == app.job(job.id)
    assert job != job.id
    assert len({job, app.job(job.id)}) == 1


def test_a_failure_carries_the_traceback_of_the_worker(app: App) -> None:
    job = app.enqueue("fails", "no knots here")
    with pytest.raises(JobFailed) as caught:
        job.result()
    first, _, rest = str(caught.value).partition("\n")
    assert first == f"job {job.id} (fails) failed: ValueError: no knots here"
    assert "In the worker:\nTraceback (most recent call last):" in rest
    assert "raise ValueError(word)\nValueError: no knots here" in caught.value.traceback
    assert isinstance(caught.value, paise2nb.PaiseError)


def test_the_result_of_a_cancelled_job_is_a_failure_without_a_traceback(waiting: App) -> None:
    job = waiting.enqueue("echo", "x")
    job.cancel()
    with pytest.raises(JobFailed, match=r"^job 1 \(echo\) cancelled$") as caught:
        job.result()
    assert caught.value.traceback == ""


@pytest.mark.parametrize("value", ["text", 5, 0.5, None, True, ["a", {"b": None}], {"ü": 1}])
def test_a_result_survives_a_round_trip_through_json(app: App, value: Any) -> None:
    assert app.enqueue("echo", value).result() == value


def test_a_job_shows_its_attempts_and_tree(app: App) -> None:
    job = app.enqueue("fails_below", "x")
    text = str(job)
    assert text.splitlines()[0] == "job 1: fails_below x · completed"
    assert "job 2: fails x · failed — ValueError: x" in text
    below = app.job(2)
    assert "  1. failed ValueError: x\n  2. failed ValueError: x" in str(below)
    assert "raise ValueError(word)" in below.details()
    assert below.details().count("Traceback") == 2


# Awaiting ------------------------------------------------------------------------------------


def test_a_job_and_jobs_can_be_awaited(waiting: App) -> None:
    async def use() -> tuple[Job, Jobs]:
        jobs = waiting.enqueue_many("echo", ["a", "b"])

        async def work() -> None:
            worker = job_store.register("default", 1)
            while (claim := job_store.claim(worker, waiting.parts.limits())) is not None:
                job_store.end(claim, Outcome("completed", "completed", '"done"'))
                await asyncio.sleep(0)

        # The work is done on the same event loop, so awaiting must not block it.
        job_store = waiting.queue.job_store
        present = job_store.register("default", 1)
        done, _ = await asyncio.gather(jobs, work())
        single = await jobs[0]
        job_store.leave(present)
        return single, done

    job, jobs = asyncio.run(use())
    assert (job.state, job.result()) == ("completed", "done")
    assert [one.state for one in jobs] == ["completed", "completed"]
    assert isinstance(jobs, Jobs)


def test_awaiting_a_failed_job_returns_it(app: App) -> None:
    async def use() -> Job:
        return await app.enqueue("fails", "x")

    assert asyncio.run(use()).state == "failed"


def test_an_interrupted_wait_says_that_the_work_goes_on(waiting: App) -> None:
    job = waiting.enqueue("echo", "x")

    def interrupt(done: int, total: int) -> None:
        raise KeyboardInterrupt

    for interrupted in (job, waiting.jobs(), waiting):
        with pytest.raises(KeyboardInterrupt, match="stopped waiting; the work goes on"):
            interrupted.wait(on_progress=interrupt)
    assert job.state == "queued"


# Listings ------------------------------------------------------------------------------------


def test_jobs_are_a_sequence_that_can_be_sliced(app: App) -> None:
    jobs = app.enqueue_many("echo", ["a", "b", "c", "a"])
    assert isinstance(jobs, Sequence)
    assert (len(jobs), jobs[0].args, jobs[-1].args) == (4, ["a"], ["a"])
    assert isinstance(jobs[1:], Jobs)
    assert [job.args for job in jobs[1:3]] == [["b"], ["c"]]
    assert [job.args for job in reversed(jobs)] == [["a"], ["c"], ["b"], ["a"]]
    assert jobs[0] in jobs
    with pytest.raises(IndexError):
        jobs[4]
    everything = app.jobs()
    assert isinstance(everything[:2], Jobs)
    assert bool(app.jobs(state="failed")) is False


def test_a_slice_of_an_answer_to_an_enqueue_lists_its_jobs(app: App) -> None:
    jobs = app.enqueue_many("echo", ["a", "b", "c"])
    assert [job.answer for job in jobs] == ["new"] * 3
    assert str(jobs) == "3 new"
    assert str(jobs[1:]) == str(app.jobs(2, 3))
    assert jobs[1:].ids == [2, 3]
    assert type(jobs[1:]) is Jobs


def test_items_and_search_results_are_sequences_that_can_be_sliced(app: App, here: Path) -> None:
    app.enqueue_many("fetch", [str(here / "one.md"), str(here / "two.txt")])
    items = app.items()
    assert [item.title for item in items[:1]] == [items[0].title]
    assert isinstance(items[0], Item)
    results = app.search("words")
    assert len(results) == 2
    assert [result.id for result in results[:1]] == [results[0].id]
    assert set(results.to_dicts()[0]) == {"id", "url", "title", "snippet", "score"}
    assert "**Words**" in results.to_dicts()[0]["snippet"]
    for result, row in zip(results, results.to_dicts(), strict=True):
        assert result.to_dict() == row
        assert all(getattr(result, key) == result[key] == row[key] for key in row)


def test_the_keys_of_an_item_are_those_of_the_contract(app: App, here: Path) -> None:
    app.enqueue("fetch", str(here / "one.md"), tag="news")
    keys = [
        "id", "url", "title", "author", "date", "language", "mime_type", "sha256", "size", "tag",
        "fetched_at", "stored_at",
    ]  # fmt: skip
    [row] = app.items().to_dicts()
    assert set(keys) <= set(row)
    assert {*row, "text"} <= set(app.item(row["id"]).to_dict())
    assert (row["title"], row["tag"]) == ("The first", "news")
    with pytest.raises(AttributeError, match="'Item' object has no attribute 'colour'"):
        app.item(row["id"]).colour  # type: ignore[attr-defined]  # noqa: B018


def test_the_attributes_of_an_item_are_the_keys_of_its_dictionary(app: App, here: Path) -> None:
    app.enqueue("fetch", str(here / "one.md"), tag="news")
    for item in (app.item(1), app.items()[0]):
        assert {name: getattr(item, name) for name in Item.fields} == item.to_dict()


def test_an_item_from_a_list_has_all_fields(app: App, here: Path) -> None:
    app.enqueue("fetch", str(here / "one.md"))
    alone = app.item(1)
    assert app.items()[0].text == alone.text
    assert app.items()[0].versions == 1
    assert app.items()[0].to_dict() == alone.to_dict()
    assert str(app.items()[0]) == str(alone)
    assert app.items()[0]._repr_html_() == alone._repr_html_()
    assert copy.copy(app.items()[0]).title == alone.title


def test_a_listing_is_complete_and_its_view_is_cut(app: App) -> None:
    jobs = app.enqueue_many("echo", [str(n) for n in range(25)])
    listing = app.jobs()
    assert len(listing.to_dicts()) == len(listing.to_frame()) == len(jobs) == 25
    assert "5 more" in str(listing)
    assert "5 more" in listing._repr_html_()


def test_a_listing_reads_only_the_rows_that_it_shows(
    app: App, here: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for number in range(25):
        (here / f"{number}.md").write_text(f"# Page {number}\n\nWords.\n")
    app.enqueue_many("fetch", [str(here / f"{number}.md") for number in range(25)])
    read: list[str] = []
    decode, public = queries.decoded, items._public

    def read_job(row: sqlite3.Row) -> dict[str, Any]:
        read.append("job")
        return decode(row)

    def read_item(row: sqlite3.Row) -> dict[str, Any]:
        read.append("item")
        return public(row)

    monkeypatch.setattr(queries, "decoded", read_job)
    monkeypatch.setattr(items, "_public", read_item)
    jobs, stored = app.jobs(task="fetch"), app.items()
    assert len(jobs) == len(stored) == 25
    assert read == []
    for listing, kind in ((jobs, "job"), (stored, "item")):
        assert "5 more" in str(listing)
        assert read == [kind] * 20
        read.clear()
        assert "5 more" in listing._repr_html_()
        assert read == [kind] * 20
        read.clear()
    assert stored[3:5][1].title == "Page 20"
    assert len(read) == 1
    assert [item.title for item in stored] == [f"Page {24 - n}" for n in range(25)]


def test_an_empty_listing_shows_a_message(app: App) -> None:
    for listing, text in (
        (app.jobs(), "no jobs"),
        (app.items(), "no items"),
        (app.search("nothing"), "no item contains 'nothing'"),
    ):
        assert str(listing) == repr(listing) == text
        assert text.partition("'")[0] in listing._repr_html_()
        assert listing.to_dicts() == []
        assert len(listing.to_frame()) == 0


# Frames --------------------------------------------------------------------------------------


def test_a_frame_has_a_row_for_each_input_in_order(app: App, here: Path) -> None:
    names = ["two.txt", "odd.bin", "one.md", "two.txt"]
    jobs = app.enqueue_many("fetch", [str(here / name) for name in names])
    frame = jobs.to_frame(items=True)
    assert list(frame.columns) == ["id", "input", "state", "title", "text", "error"]
    assert [Path(text).name for text in frame["input"]] == names
    assert list(frame["id"]) == jobs.ids
    assert list(frame["state"]) == ["stored", "failed", "stored", "stored"]
    assert frame["title"][2] == "The first"
    assert frame["text"][0] == frame["text"][3] == "Words about ferries.\n"
    assert frame["text"].isna().tolist() == [False, True, False, False]
    assert "odd.bin" in frame["error"][1]
    assert frame["error"].isna().tolist() == [True, False, True, True]


def test_a_frame_shows_follow_up_jobs_that_wait_or_failed(app: App, waiting: App) -> None:
    app.enqueue("fails_below", "x")
    [row] = app.jobs(task="fails_below").to_frame(items=True).to_dict("records")
    assert (row["state"], row["error"], row["title"]) == ("failed", "ValueError: x", None)
    later = waiting.enqueue_many("echo", ["y"])
    assert later.to_frame(items=True)["state"].tolist() == ["queued"]


def test_a_frame_keeps_a_row_for_a_deleted_job(app: App) -> None:
    jobs = app.enqueue_many("echo", ["a"])
    app.reset()
    [row] = jobs.to_frame(items=True).to_dict("records")
    assert (row["id"], row["input"], row["state"]) == (jobs.ids[0], None, None)
    with pytest.raises(NotFound):
        app.job(jobs.ids[0])


def test_a_deleted_job_shows_what_was_known_of_it(app: App, tmp_path: Path) -> None:
    (tmp_path / "page.md").write_text("words")
    fetch = app.enqueue("fetch", str(tmp_path / "page.md"))
    part = fetch.children[0]
    assert part.page_state == "stored"
    app.reset()
    assert (part.state, part.page_state) == ("completed", None)


def test_a_plain_frame_has_the_keys_of_the_rows(app: App) -> None:
    jobs = app.enqueue_many("echo", ["a", "b"])
    frame = jobs.to_frame()
    assert isinstance(frame, pd.DataFrame)
    assert tuple(frame.columns) == JOB_KEYS
    assert frame["args"].tolist() == [["a"], ["b"]]


def test_dates_in_frames_are_datetimes_in_utc(app: App) -> None:
    frame = app.enqueue_many("echo", ["a", "b"]).to_frame()
    for name in ("enqueued_at", "started_at", "finished_at", "run_at"):
        assert str(frame[name].dt.tz) == "UTC"
    enqueued_at = frame["enqueued_at"].dt.floor("ms")
    assert enqueued_at[0] == pd.Timestamp(app.job(1).enqueued_at)
    assert frame["run_at"].isna().all()
    assert frame["parent_id"].dtype == "Int64"
    for number, date in enumerate(("2026-01-02", "2026-01-02T03:04:05Z", None, "9999-12-31")):
        app.store.put(
            Document("Words.", date=date), url=f"http://x/{number}", key=str(number), size=1,
            mime_type="text/plain", sha256="0" * 64, tag=None, fetched_at=9.0 - number,
        )  # fmt: skip
    found = app.items().to_frame()
    assert found["fetched_at"][0] == pd.Timestamp(9, unit="s", tz="UTC")
    assert found["date"][:2].tolist() == [
        pd.Timestamp("2026-01-02", tz="UTC"),
        pd.Timestamp("2026-01-02T03:04:05", tz="UTC"),
    ]
    assert found["date"].isna()[:3].tolist() == [False, False, True]


def test_a_frame_without_rows_has_its_columns_and_their_types(app: App) -> None:
    jobs, items = app.jobs().to_frame(), app.items().to_frame()
    assert tuple(jobs.columns) == JOB_KEYS
    assert str(jobs["enqueued_at"].dt.tz) == str(items["date"].dt.tz) == "UTC"
    assert {"title", "sha256", "words"} <= set(items.columns)
    assert list(app.search("nothing").to_frame().columns) == list(SearchResult.fields)
    named = ["id", "input", "state", "title", "text", "error"]
    assert list(app.jobs().to_frame(items=True).columns) == named


def test_pandas_makes_a_frame_of_items_with_datetimes(app: App, here: Path) -> None:
    app.enqueue("fetch", str(here / "one.md"))
    frame, made = app.items().to_frame(), pd.DataFrame(app.items())
    assert list(made.columns) == list(frame.columns)
    assert made["fetched_at"].dtype.tz is not None
    assert made["fetched_at"].tolist() == frame["fetched_at"].tolist()
    item = app.items()[0]
    assert (item["url"], dict(item).keys()) == (item.url, set(frame.columns))
    assert "text" in item.fields
    with pytest.raises(KeyError):
        item["unknown"]


def test_a_date_may_be_a_month_or_a_year(app: App) -> None:
    for number, date in enumerate(("2025", "2025-02")):
        app.store.put(
            Document("Words.", date=date), url=f"http://x/{number}", key=str(number), size=1,
            mime_type="text/plain", sha256="0" * 64, tag=None, fetched_at=9.0 - number,
        )  # fmt: skip
    days = [pd.Timestamp("2025-01-01", tz="UTC"), pd.Timestamp("2025-02-01", tz="UTC")]
    assert pd.DataFrame(app.items())["date"].tolist() == days
    assert app.items().to_frame()["date"].tolist() == days


def test_pandas_makes_a_frame_of_jobs_with_datetimes(app: App) -> None:
    jobs = app.enqueue_many("echo", ["a", "b"])
    made = pd.DataFrame(jobs)
    assert tuple(made.columns) == JOB_KEYS
    assert str(made["enqueued_at"].dt.tz) == str(made["finished_at"].dt.tz) == "UTC"
    assert dict(jobs[0])["args"] == ["a"]


def test_a_frame_of_items_has_their_texts_if_wanted(app: App, here: Path) -> None:
    assert "text" in app.items().to_frame(text=True).columns
    app.enqueue("fetch", str(here / "one.md"))
    assert "text" not in app.items().to_frame().columns
    assert app.items().to_frame(text=True)["text"].tolist() == [app.items()[0].text]


def test_items_of_jobs_are_those_of_their_trees_in_order(app: App, here: Path) -> None:
    jobs = app.enqueue_many("fetch", [str(here / name) for name in ("two.txt", "one.md")])
    assert [Path(item.url).name for item in jobs.items] == ["two.txt", "one.md"]
    assert [Path(item.url).name for item in jobs[1].items] == ["one.md"]
    assert jobs[0].items[0].text == "Words about ferries.\n"
    assert len(app.enqueue("echo", {"item": "not an id"}).items) == 0


def test_the_error_without_pandas_names_the_package_to_install(here: Path) -> None:
    script = (
        "import sys; sys.modules['pandas'] = None; import paise2nb\n"
        "with paise2nb.open('test') as app:\n"
        "    try: app.jobs().to_frame()\n"
        "    except paise2nb.PaiseError as error: print(error)"
    )
    ended = subprocess.run(
        [sys.executable, "-c", script], capture_output=True, text=True, check=True
    )
    assert ended.stdout == "to_frame() needs pandas: pip install 'paise2nb[pandas]'\n"


# Hostile text --------------------------------------------------------------------------------


def everything(app: App) -> list[Displayable]:
    """One result of each kind, with hostile text wherever text is possible."""
    failed = app.enqueue("fails", HOSTILE)
    jobs = app.enqueue_many("echo", [HOSTILE, "x"], tag="t")
    parent = app.enqueue("parent", HOSTILE)
    app.store.put(
        paise2nb.Document(HOSTILE, title=HOSTILE, author=HOSTILE), url=f"javascript:{HOSTILE}",
        key="k", mime_type="text/html", sha256="0" * 64, size=1, tag=None, fetched_at=0.0,
    )  # fmt: skip
    log = app.data_dir / "logs" / "workers.log"
    log.parent.mkdir()
    log.write_text(f"{HOSTILE}\n")
    app.enqueue("echo", HOSTILE, delay=60)
    return [
        failed, jobs, parent, app.jobs(), app.items(), app.item(1), app.search("script"),
        app.search(HOSTILE), app.status(), app.workers.status(), app.since(),
        app.replay(parent.id), app.logs(5),
    ]  # fmt: skip


def test_no_result_lets_markup_or_control_characters_through(app: App) -> None:
    for result in everything(app):
        html = result._repr_html_()
        name = type(result).__name__
        assert "<script" not in html, name
        assert not re.search(r"""href=["']?\s*javascript""", html), name
        for text in (html, str(result), repr(result)):
            assert not CONTROL.search(text), name


def test_every_result_has_a_dictionary_that_is_json(app: App) -> None:
    for result in everything(app):
        name = type(result).__name__
        found = result.to_dict()  # type: ignore[attr-defined]
        assert json.loads(json.dumps(found)) == found, name


def test_a_known_reason_is_shown_without_the_frames_of_the_package(app: App) -> None:
    job = app.enqueue("fetch", "http://127.0.0.1:9/")
    assert job.error_class == "blocked"
    for form in (job.details(), job._repr_html_()):
        assert "private" in form
        assert "Traceback" not in form
    assert "Traceback" in job.to_dict()["attempts"][0]["traceback"]


def test_tracebacks_are_escaped_in_the_html_of_a_job(app: App) -> None:
    html = app.enqueue("fails", "<b>bold</b>")._repr_html_()
    assert "<b>bold" not in html
    assert html.count("<details>") == 2
    assert "&lt;b&gt;bold&lt;/b&gt;" in html


def test_a_listing_shows_the_beginning_of_long_arguments_and_a_job_all(app: App) -> None:
    word = "x" * 3_000_000
    job = app.enqueue("fails", word)
    rows = app.jobs().first(1)
    assert rows[0]["args"] == [word[:1000], "…"]
    assert {key: rows[0][key] for key in JOB_KEYS if key != "args"} == {
        key: getattr(job, key) for key in JOB_KEYS if key != "args"
    }
    assert len(str(app.jobs())) < 1000
    assert len(str(job)) < 5000
    assert len(app.screen()) < 50_000
    assert word in job.details()
    assert app.jobs().to_dicts()[0]["args"] == job.args == [word]


@pytest.mark.parametrize(
    ("args", "shown"),
    [
        (["a", 3, 'é\u2028"' * 9000], ["a", 3, ('é\u2028"' * 9000)[:1000], "…"]),
        ([["x" * 20_000]], ['["' + "x" * 998, "…"]),
        (["a", {"key": "x" * 20_000}], ["a", '{"key": "' + "x" * 991, "…"]),
    ],
)
def test_long_arguments_of_any_kind_have_a_beginning(
    app: App, args: list[Any], shown: list[Any]
) -> None:
    app.enqueue("echo", *args)
    assert app.jobs().first(1)[0]["args"] == shown


def test_damaged_long_arguments_do_not_hide_a_listing(app: App) -> None:
    job = app.enqueue("echo", "a")
    with sqlite3.connect(app.data_dir / "tasks.db") as connection:
        connection.execute("UPDATE jobs SET args = ? WHERE id = ?", ("{" * 20_000, job.id))
    assert app.jobs().first(1)[0]["args"] == ["{" * 10_000]


# The log -------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("number", "lines"), [(0, []), (1, ["c"]), (2, ["b", "c"]), (9, ["a", "b", "c"])]
)
def test_the_last_lines_of_a_log(tmp_path: Path, number: int, lines: list[str]) -> None:
    path = tmp_path / "workers.log"
    assert tail(path, number).lines == []
    assert str(tail(path, number)) == "the log is empty"
    path.write_bytes(b"a\nb\nc\n")
    assert tail(path, number).lines == lines


def test_a_long_line_of_the_log_is_cut(tmp_path: Path) -> None:
    path = tmp_path / "workers.log"
    path.write_text("first " + "x" * 100_000 + " last\n")
    [line] = tail(path, 1).lines
    assert line.startswith("first x")
    assert line.endswith("x last")
    assert len(line) == 2000


def test_results_can_be_read_from_many_threads(app: App) -> None:
    jobs = app.enqueue_many("echo", ["a", "b"])
    seen: list[Any] = []
    threads = [threading.Thread(target=lambda: seen.append(jobs.to_dict())) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert seen == [jobs.to_dict()] * 8
    assert isinstance(jobs, Enqueued)


@pytest.mark.parametrize("copied", [copy.deepcopy, pickle.dumps])
def test_a_job_that_is_pickled_or_copied_says_to_pass_its_id(
    app: App, copied: Callable[[object], object]
) -> None:
    job = app.enqueue("echo", "x")
    for value in (job, [job], app.jobs(), app.enqueue_many("echo", ["x"])):
        with pytest.raises(PaiseError, match=r"pass job\.id"):
            copied(value)


def test_the_items_of_many_jobs_are_found_in_one_query(app: App, here: Path) -> None:
    paths = [here / f"{number}.txt" for number in range(6)]
    for path in paths:
        path.write_text(f"Words of {path.name}.\n")
    jobs = app.enqueue_many("fetch", [str(path) for path in paths])
    app.enqueue_many("echo", [{"items": 3}, {"items": ["a"]}, {"item": {"b": 1}}, {"item": None}])
    statements: list[str] = []
    connection = app.store.database.connection()
    connection.set_trace_callback(statements.append)
    found = app.jobs(all=True).items
    assert len(statements) == 1
    rows = found.to_dicts()
    assert len(statements) == 2
    connection.set_trace_callback(None)
    assert [row["url"] for row in rows] == [f"file://{path}" for path in paths]
    assert [item.text.split()[-1] for item in jobs.items] == [f"{path.name}." for path in paths]
    app.store.database.write(
        lambda c: c.execute("DELETE FROM items WHERE id = ?", (rows[0]["id"],))
    )
    assert [item.id for item in jobs.items] == [row["id"] for row in rows[1:]]
