"""Pages are listed in windows: sorted, filtered, and counted exactly."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from paise2nb.app import App
from paise2nb.jobs import page_queries
from paise2nb.views import page_rows
from paise2nb.views.page_rows import SORTS, failed_window, window

Make = Callable[..., App]
PLUGIN = """
from paise2nb import task

@task("shout", max_retries=0)
def shout(context, word):
    raise ValueError(word)
"""


@pytest.fixture
def app(make: Make, tmp_path: Path) -> App:
    """Twelve stored pages of two tags, six failed ones without a tag, and two for later."""
    app = make()
    for number in range(12):
        path = tmp_path / f"page-{number:02}.md"
        path.write_text(f"# {'Odd' if number % 2 else 'Even'} {11 - number:02}\n\nAbout locks.\n")
        app.enqueue("fetch", str(path), tag="locks" if number < 8 else "moon")
    for number in range(6):
        path = tmp_path / f"empty-{number}.md"
        path.touch()
        app.enqueue("fetch", str(path))
    for number in range(2):
        app.enqueue("fetch", f"https://later.example/{number}", tag="moon", delay=1000)
    return app


def titles(rows: list[dict[str, Any]]) -> list[str | None]:
    return [row["title"] for row in rows]


def test_windows_one_after_the_other_have_every_page_once_in_each_order(app: App) -> None:
    for sort in SORTS:
        found = []
        for offset in range(0, 21, 3):
            part = window(app.client, sort=sort, offset=offset, limit=3)
            assert part.total == 20
            found += [row["id"] for row in part.rows]
        assert len(found) == len(set(found)) == 20, sort
        assert found == [row["id"] for row in window(app.client, sort=sort).rows]


def test_each_order_is_what_its_name_says(app: App) -> None:
    def rows(sort: str) -> list[dict[str, Any]]:
        return window(app.client, sort=sort).rows

    ids = [row["id"] for row in rows("newest")]
    assert ids == sorted(ids, reverse=True)
    assert [row["id"] for row in rows("oldest")] == ids[::-1]
    states = [row["state"] for row in rows("state")]
    assert states == sorted(states)
    assert [row["host"] for row in rows("host")] == ["later.example"] * 2 + [""] * 18
    even = [f"Even {number:02}" for number in range(1, 12, 2)]
    odd = [f"Odd {number:02}" for number in range(0, 12, 2)]
    assert titles(rows("title")) == [*even, *odd, *[None] * 8]
    seconds = [row["duration"] for row in rows("duration")]
    assert seconds[18:] == [None, None]
    assert seconds[:18] == sorted(seconds[:18], reverse=True)


def test_filters_select_by_state_tag_and_words_of_url_title_and_text(app: App) -> None:
    def total(**filters: Any) -> int:
        selected = window(app.client, limit=1, **filters)
        assert len(selected.rows) == min(selected.total, 1)
        return selected.total

    assert total(states=["stored"]) == 12
    assert total(states=["failed", "scheduled"]) == 8
    assert total(tag="locks") == 8
    assert total(tag="moon", states=["scheduled"]) == 2
    assert total(tag=page_queries.NO_TAG) == 6
    assert total(tag="unknown") == 0
    assert total(words="EMPTY .md") == 6
    assert total(words="odd") == 6  # of a title
    assert total(words="locks", tag="moon") == 4  # of a text
    assert total(words="later.example") == 2
    assert total(words="page_1") == total(words="100%") == 0
    facts = {"sha256": app.cache.put(b"Otters"), "size": 6, "fetched_at": 1.0, "archive": "a.warc"}
    app.enqueue("fetch", "http://archived.example/é", {**facts, "mime_type": "text/plain"})
    assert total(words="otters") == 1


def test_a_row_is_json_with_what_a_list_shows_of_a_page(app: App, tmp_path: Path) -> None:
    stored = window(app.client, states=["stored"], limit=1).rows[0]
    assert json.loads(json.dumps(stored)) == stored
    assert stored["title"] == "Odd 00"
    assert app.item(stored["item"]).title == "Odd 00"
    assert stored["url"] == f"{tmp_path}/page-11.md"
    assert stored["path"].endswith("/page-11.md")
    assert stored["time"] >= stored["started"] >= stored["enqueued"]
    failed = window(app.client, states=["failed"], limit=1).rows[0]
    assert (failed["error_class"], failed["title"]) == ("empty", None)
    assert failed["path"].endswith("/empty-5.md")
    assert failed["error"]
    later = window(app.client, states=["scheduled"], limit=1).rows[0]
    assert (later["host"], later["path"]) == ("later.example", "/1")
    assert later["time"] == later["due"] > later["enqueued"]


def test_a_page_that_was_found_unchanged_has_its_title(app: App, tmp_path: Path) -> None:
    app.enqueue("fetch", str(tmp_path / "page-00.md"), force=True)
    (unchanged,) = window(app.client, states=["unchanged"]).rows
    stored = window(app.client, sort="oldest", limit=1).rows[0]
    assert unchanged["title"] == stored["title"] == "Even 11"
    assert unchanged["item"] == stored["item"]


def test_secrets_of_a_url_are_hidden(make: Make) -> None:
    app = make()
    app.enqueue("fetch", "https://user:word@e.example/?api_key=word&page=2", delay=1000)
    assert "word" not in json.dumps(window(app.client).rows)


def test_failures_of_a_kind_are_listed_with_pages_and_other_jobs(app: App) -> None:
    group = next(g for g in app.status().failures if g["error_class"] == "empty")
    found = failed_window(app.client, group["error_class"], group["status"], offset=4)
    assert (len(found.rows), found.total) == (2, group["jobs"])
    assert {row["state"] for row in found.rows} == {"failed"}
    job = app.enqueue("shout", "hello")
    (row,) = failed_window(app.client, job.error_class, None).rows
    assert (row["id"], row["url"], row["path"], row["task"]) == (job.id, None, "hello", "shout")


def test_more_tags_than_a_query_has_parts_are_listed_all_the_same(
    app: App, monkeypatch: pytest.MonkeyPatch
) -> None:
    expected = {sort: window(app.client, sort=sort, offset=2, limit=9).rows for sort in SORTS}
    monkeypatch.setattr(page_queries, "MOST_GROUPS", 1)
    for sort, rows in expected.items():
        assert window(app.client, sort=sort, offset=2, limit=9).rows == rows, sort


def test_pages_after_those_sorted_by_title_are_newest_first(
    app: App, monkeypatch: pytest.MonkeyPatch
) -> None:
    by_title = window(app.client, sort="title", limit=20).rows
    newest = window(app.client, limit=20).rows
    monkeypatch.setattr(page_rows, "TITLED", 5)
    rows = window(app.client, sort="title", offset=1, limit=19).rows
    assert rows[4:] == newest[5:]
    assert {row["id"] for row in rows[:4]} < {row["id"] for row in newest[:5]}
    assert len(by_title) == 20
