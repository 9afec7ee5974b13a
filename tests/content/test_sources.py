"""Sources in a real app over a real site: they enqueue only what is new or has changed."""

from __future__ import annotations

import gzip
import json
import os
import random
import subprocess
import sys
from collections.abc import Iterator
from contextlib import suppress
from email.utils import formatdate
from pathlib import Path
from typing import Any

import pytest

import paise2nb
from paise2nb.app import App
from paise2nb.content import sources
from paise2nb.content.sources.reading import feed_entries, read_page, sitemap_entries
from paise2nb.core.errors import UsageError
from paise2nb.jobs.context import Context
from paise2nb.plugins import Fetched
from tests.site import PAGE, Site

FUTURE = 4102444800.0  # 2100


@pytest.fixture
def app(tmp_path: Path) -> Iterator[App]:
    settings = {
        "fetch.allow_private_addresses": True, "fetch.host_delay": 0,
        "workers.retry.max_retries": 0,
    }  # fmt: skip
    with paise2nb.open("test", data_dir=tmp_path / "data", settings=settings) as app:
        yield app


def rss(*entries: tuple[str, float | None]) -> bytes:
    items = "".join(
        f"<item><title>T</title><link>{link}</link>"
        + (f"<pubDate>{formatdate(at, usegmt=True)}</pubDate>" if at else "")
        + "</item>"
        for link, at in entries
    )
    return (
        f"<?xml version='1.0'?><rss version='2.0'><channel><title>F</title>{items}</channel></rss>"
    ).encode()


def sitemap(*entries: str, kind: str = "url") -> bytes:
    outer = "urlset" if kind == "url" else "sitemapindex"
    inner = "".join(f"<{kind}>{entry}</{kind}>" for entry in entries)
    return (
        f"<?xml version='1.0'?><{outer} xmlns='http://www.sitemaps.org/schemas/sitemap/0.9'>"
        f"{inner}</{outer}>"
    ).encode()


def run(app: App, *args: Any, **named: Any) -> dict[str, int]:
    job = app.enqueue(*args, **named)
    assert job.error is None
    return job.result()  # type: ignore[no-any-return]


def fetches(app: App) -> list[str]:
    return [job["args"][0] for job in app.jobs(task="fetch").to_dicts()]


# Feeds ---------------------------------------------------------------------------------------


def test_the_entries_of_a_feed_become_items_under_its_tag(app: App, site: Site) -> None:
    url = site.add("/feed", rss(("/ok?1", None), (site.url("/ok?2"), None)), "application/rss+xml")
    assert run(app, "feed", url, tag="news") == {"found": 2, "new": 2}
    assert {(row["url"], row["tag"]) for row in app.items().to_dicts()} == {
        (site.url("/ok?1"), "news"), (site.url("/ok?2"), "news"),
    }  # fmt: skip


def test_only_entries_that_are_new_or_changed_are_enqueued(app: App, site: Site) -> None:
    site.add("/feed", rss(("/ok?1", 1.0), ("/gone", 1.0), ("/ok?3", None)))
    assert run(app, "feed", site.url("/feed")) == {"found": 3, "new": 3}
    assert run(app, "feed", site.url("/feed")) == {"found": 3, "new": 0}
    site.add("/feed", rss(("/ok?1", FUTURE), ("/gone", 1.0), ("/ok?3", None), ("/ok?4", None)))
    assert run(app, "feed", site.url("/feed")) == {"found": 4, "new": 2}
    assert fetches(app)[3:] == [site.url("/ok?1"), site.url("/ok?4")]


def test_a_stored_item_counts_after_its_jobs_are_removed(app: App, site: Site) -> None:
    site.add("/feed", rss(("/ok?1", 1.0), ("/ok?2", 1.0)))
    run(app, "feed", site.url("/feed"))
    app.reset()
    assert len(app.jobs()) == 0
    site.add("/feed", rss(("/ok?1", 1.0), ("/ok?2", FUTURE)))
    assert run(app, "feed", site.url("/feed")) == {"found": 2, "new": 1}


def test_a_page_from_a_feed_is_up_to_date_for_the_user(app: App, site: Site) -> None:
    site.add("/feed", rss(("/ok?1", None)))
    run(app, "feed", site.url("/feed"))
    [known] = app.jobs(task="fetch")
    assert app.enqueue("fetch", site.url("/ok?1")).id == known.id


def test_a_feed_runs_again_and_again(app: App, site: Site) -> None:
    site.add("/feed", rss(("/ok?1", None)))
    job = app.enqueue("feed", site.url("/feed"), every=86400)
    assert job.state == "scheduled"
    site.add("/feed", rss(("/ok?1", None), ("/ok?2", None)))
    app.jobs(job.id).retry()  # now instead of tomorrow
    app.queue.run_tree(job.id)
    assert len(app.jobs(task="feed")) == 1
    assert fetches(app) == [site.url("/ok?1"), site.url("/ok?2")]


def due_at(app: App, job_id: int) -> float:
    return float(app.queue.job_store.rows([job_id])[job_id]["run_at"])


def test_a_recurring_job_is_one_row_with_the_latest_interval(app: App, site: Site) -> None:
    url = site.add("/feed", rss(("/ok?1", None)))
    once = app.enqueue("feed", url, delay=1000)
    due = due_at(app, once.id)
    daily = app.enqueue("feed", url, every=86400)
    assert (daily.id, daily.answer, daily.every) == (once.id, "waiting", 86400)
    assert due_at(app, once.id) == due
    once.retry()
    app.queue.run_tree(once.id)
    due = due_at(app, once.id)
    app.enqueue("feed", url, every=3600)
    assert (once.state, once.every) == ("scheduled", 3600)
    assert due_at(app, once.id) == pytest.approx(due - 86400 + 3600)
    assert len(app.jobs(task="feed")) == 1
    # Being up to date now is no reason not to fetch it every day.
    assert app.enqueue("fetch", site.url("/ok?1"), every=86400).answer == "new"


def test_a_recurring_job_is_listed_cancelled_retried_and_removed_like_any_other(
    app: App, site: Site
) -> None:
    job = app.enqueue("feed", site.add("/feed", rss(("/ok?1", None))), every=86400)
    assert job.summary().endswith("/feed · scheduled every 1 d")
    assert "runs next at 20" in job.details()
    for shown in (str(app.jobs(state="scheduled")), app.jobs(job.id)._repr_html_()):
        assert "/feed, every 1 d" in shown
    assert job.to_dict()["every"] == 86400
    assert job.result() == {"found": 1, "new": 1}
    job.cancel()
    assert (job.state, job.run_at) == ("cancelled", None)
    job.retry()
    app.queue.run_tree(job.id)
    assert (job.state, len(job.attempts)) == ("scheduled", 2)
    job.cancel()
    app.reset()
    assert len(app.jobs()) == 0


def test_runs_missed_while_asleep_are_caught_up_once(tmp_path: Path, site: Site) -> None:
    settings = {
        "workers.concurrency": 3, "fetch.host_delay": 0, "fetch.allow_private_addresses": True,
    }  # fmt: skip
    with paise2nb.open("development", tmp_path / "data", settings) as app:
        urls = [site.add(f"/feed/{n}", rss(("/ok", None))) for n in range(6)]
        jobs = app.enqueue_many("feed", urls, every=86400)
        app.workers.start()
        app.wait(timeout=60)
        app.workers.stop()
        week = 7 * 86400  # as if the machine had slept that long
        app.queue.job_store.database.write(
            lambda c: c.execute("UPDATE jobs SET run_at = run_at - ? WHERE interval > 0", (week,))
        )
        app.workers.start()
        app.wait(timeout=60)
        app.workers.stop()
        assert [site.visits[f"/feed/{n}"] for n in range(6)] == [2] * 6
        assert [(job.state, len(job.attempts)) for job in jobs] == [("scheduled", 2)] * 6
        now = app.queue.job_store.now()
        due = [row["run_at"] - now for row in app.queue.job_store.rows(jobs.ids).values()]
        assert all(86400 - 120 < seconds <= 86400 for seconds in due)


LEADING_AWAY = ["file:///etc/passwd", "/etc/../../etc/passwd", "javascript:1", "ftp://x/", "//[x/"]


@pytest.mark.parametrize("link", [*LEADING_AWAY, "gopher://x/", "data:text/plain,x"])
def test_a_feed_can_not_lead_to_files_or_other_schemes(app: App, site: Site, link: str) -> None:
    site.add("/feed", rss((link, None)))
    run(app, "feed", site.url("/feed"))
    assert all(url.startswith(site.url("/")) for url in fetches(app))


def feed_of(data: bytes) -> dict[str, float | None]:
    return feed_entries(Fetched(data, "http://example.org/feeds/f", None, None))


LAUGHS = (
    "<!DOCTYPE x [<!ENTITY a 'ha'>"
    + "".join(
        f"<!ENTITY {after} '{f'&{name};' * 10}'>"
        for name, after in zip("abcdefghi", "bcdefghij", strict=True)
    )
    + "]>"
)


def test_expanding_and_external_entities_in_a_feed_are_harmless() -> None:
    body = LAUGHS.encode() + rss(("http://example.org/&j;", None)).partition(b"?>")[2]
    try:
        assert all(len(link) < 10_000 for link in feed_of(body))
    except paise2nb.PermanentError as error:
        assert error.error_class == "damaged"  # noqa: PT017
    outside = b"<!DOCTYPE x [<!ENTITY e SYSTEM 'file:///etc/passwd'>]>"
    body = outside + rss(("http://example.org/&e;", None)).partition(b"?>")[2]
    assert not any("root" in link for link in feed_of(body))


@pytest.mark.parametrize("data", [b"", b"no feed", b"<?xml version='1.0'?><x/>", b"/etc/passwd"])
def test_content_that_is_not_a_feed_is_refused(data: bytes) -> None:
    with pytest.raises(paise2nb.PermanentError, match="not a feed: http://example"):
        feed_of(data)


def test_the_error_names_the_feed_that_a_page_links_to() -> None:
    page = PAGE.replace(
        b"<title>",
        b"<link rel='alternate' hreflang='de' href='/de'>"
        b"<link rel='alternate' type='application/atom+xml' href='/news.atom'><title>",
    )
    assert b"/news.atom" in page
    hint = "not a feed, but the page links to one: paise2 enqueue feed http://example.org/news.atom"
    with pytest.raises(paise2nb.PermanentError, match=hint):
        feed_of(page)


def test_atom_and_relative_links_are_read() -> None:
    atom = b"""<feed xmlns="http://www.w3.org/2005/Atom"><title>F</title>
    <entry><link href="../a"/><updated>2026-01-01T00:00:00Z</updated></entry>
    <entry><link href="http://example.org/b"/><published>2026-01-02T01:00:00+01:00</published>
    </entry></feed>"""
    assert feed_of(atom) == {"http://example.org/a": 1767225600, "http://example.org/b": 1767312000}


def test_a_json_feed_is_read() -> None:
    items = [
        {"id": "1", "url": "../a", "date_modified": "2026-01-01T00:00:00Z"},
        {"id": 2, "external_url": "http://x.example/b", "date_published": "2026-01-02T00:00:00Z"},
        {"id": "http://example.org/c", "attachments": [{"url": "/no"}]},
        {"id": "4", "attachments": [
            {"url": "/d.txt", "mime_type": "text/plain"},
            {"url": "/d.mp3", "mime_type": "audio/mpeg"},
        ]},
        {"id": "5"}, {"url": 7}, {"url": "http://[x"},
    ]  # fmt: skip
    assert feed_of(json.dumps({**JSON_FEED, "items": items}).encode()) == {
        "http://example.org/a": 1767225600, "http://x.example/b": 1767312000,
        "http://example.org/c": None, "http://example.org/d.txt": None,
        "http://example.org/feeds/7": None,
    }  # fmt: skip
    for damaged in (
        b'{"version": "https://jsonfeed.org/version/1"',
        b'"items": 7}',
        b"}",
        b'"items": [7]}',
        b'"items": [{"attachments": 5}]}',
    ):
        start = b'{"version": "https://jsonfeed.org/version/1",'
        with pytest.raises(paise2nb.PermanentError, match="not a feed"):
            feed_of(start + damaged)


def test_an_entry_without_a_link_leads_to_its_enclosures() -> None:
    entries = (
        "<item><guid isPermaLink='false'>1</guid><enclosure url='/a.pdf' type='application/pdf'/>"
        "<enclosure url='/a.mp3' type='audio/mpeg'/></item>"
        "<item><link>/b</link><enclosure url='/b.pdf' type='application/pdf'/></item>"
        "<item><guid>http://example.org/c</guid></item>"
    )
    data = rss().replace(b"</channel>", entries.encode() + b"</channel>")
    assert list(feed_of(data)) == [f"http://example.org/{end}" for end in ("a.pdf", "b", "c")]


# Sitemaps ------------------------------------------------------------------------------------


def test_a_sitemap_index_leads_to_sitemaps_and_these_to_pages(app: App, site: Site) -> None:
    pages = sitemap(f"<loc>{site.url('/ok?1')}</loc>", f"<loc> {site.url('/ok?2')}\n</loc>")
    site.add("/one.xml.gz", gzip.compress(pages, mtime=0), "application/octet-stream")
    site.add(
        "/two.xml", sitemap("<loc>file:///etc/passwd</loc>", f"<loc>{site.url('/ok?3')}</loc>")
    )
    index = sitemap(
        f"<loc>{site.url('/one.xml.gz')}</loc>", f"<loc>{site.url('/two.xml')}</loc>",
        "<loc>file:///x.xml</loc>", kind="sitemap",
    )  # fmt: skip
    result = run(app, "sitemap", site.add("/index.xml", index, "text/xml"), tag="maps")
    assert result == {"found": 0, "new": 0, "sitemaps": 3}
    assert sorted(row["url"] for row in app.items(tag="maps").to_dicts()) == [
        site.url(f"/ok?{number}") for number in (1, 2, 3)
    ]
    assert len(app.jobs(task="sitemap")) == 3


def test_a_sitemap_of_an_index_that_failed_is_listed(app: App, site: Site) -> None:
    good = site.add("/good.xml", sitemap(f"<loc>{site.add('/page')}</loc>"), "application/xml")
    bad = site.url("/status/404")
    index = sitemap(f"<loc>{good}</loc>", f"<loc>{bad}</loc>", kind="sitemap")
    app.enqueue("sitemap", site.add("/sitemap.xml", index, "application/xml"))
    found = [(job.task, job.state) for job in app.jobs()]
    assert found == [("sitemap", "completed"), ("sitemap", "failed"), ("fetch", "completed")]


def test_sitemap_indexes_in_each_other_are_read_but_not_without_end(app: App, site: Site) -> None:
    pages = site.add("/pages.xml", sitemap(f"<loc>{site.url('/ok')}</loc>"))
    index = sitemap(f"<loc>{pages}</loc>", kind="sitemap")
    inner = site.add("/inner.xml", index.replace(b"/pages.xml", b"/innermost.xml"))
    site.add("/innermost.xml", index)
    run(app, "sitemap", site.add("/outer.xml", index.replace(b"/pages.xml", b"/inner.xml")))
    assert [row["url"] for row in app.items().to_dicts()] == [site.url("/ok")]
    site.add("/inner.xml", index.replace(b"/pages.xml", b"/inner.xml"))  # in itself
    run(app, "sitemap", inner)
    assert [job.state for job in app.jobs(task="sitemap")].count("failed") == 1


@pytest.mark.parametrize(
    ("lastmod", "new"), [("2100", 1), ("2100-01", 1), ("2100-01-01T00:00:00+02:00", 1),
                         ("2001-01-01", 0), ("", 0), ("tomorrow", 0)],
)  # fmt: skip
def test_a_page_changed_since_it_was_fetched_is_fetched_again(
    app: App, site: Site, lastmod: str, new: int
) -> None:
    entry = f"<loc>{site.url('/ok')}</loc><lastmod>{lastmod}</lastmod>"
    url = site.add("/sitemap.xml", sitemap(entry))
    assert run(app, "sitemap", url) == {"found": 1, "new": 1}
    assert run(app, "sitemap", url) == {"found": 1, "new": new}


def test_a_day_counts_to_its_end_when_it_is_over() -> None:
    days = ("2026-01-01", "2100-01-01")
    pages, _ = map_of(sitemap(*(f"<loc>/{day}</loc><lastmod>{day}</lastmod>" for day in days)))
    assert list(pages.values()) == [1767312000, FUTURE]


def map_of(data: bytes) -> tuple[dict[str, float | None], list[str]]:
    return sitemap_entries(Fetched(data, "http://example.org/sitemap.xml"))


def test_the_plain_form_of_a_sitemap_is_read() -> None:
    assert list(map_of(b"http://a.example/\r\nhttps://b.example/\n")[0]) == [
        "http://a.example/", "https://b.example/",
    ]  # fmt: skip


HOSTILE = [
    (b"", "damaged"),
    (b"<html></html>", "damaged"),
    (b"\x1f\x8b damaged", "damaged"),
    (sitemap("<loc>x</loc>")[:-20], "damaged"),
    (gzip.compress(bytes(60 << 20), mtime=0), "too_large"),
    (LAUGHS.encode() + b"<urlset><url><loc>&j;</loc></url></urlset>", None),
    (b"<!DOCTYPE x [<!ENTITY e SYSTEM 'file:///etc/passwd'>]><urlset><url><loc>&e;</loc></url>"
     b"</urlset>", None),
]  # fmt: skip


@pytest.mark.parametrize(("data", "word"), HOSTILE)
def test_hostile_sitemaps_are_refused_or_harmless(data: bytes, word: str | None) -> None:
    if word is None:
        assert all(len(url) < 100 and "root" not in url for url in map_of(data)[0])
    else:
        with pytest.raises(paise2nb.PermanentError) as caught:
            map_of(data)
        assert caught.value.error_class == word


def locs(*urls: str) -> bytes:
    return sitemap(*(f"<loc>{url}</loc>" for url in urls))


@pytest.mark.parametrize(
    "data",
    [
        b"\n  \r\n" + locs("http://a.example/?x=1&amp;y=2", "http://example.org/b"),
        b"\xef\xbb\xbf\n" + locs("http://a.example/?x=1&y=2", "b"),
        locs("<![CDATA[http://a.example/?x=1&y=2]]>", "/b").decode().encode("utf-16"),
        locs("<![CDATA[http://a.example/?x=1&y=2]]>", "//example.org/b"),
        b"\xef\xbb\xbfhttp://a.example/?x=1&y=2\r\n\r\nhttp://example.org/b",
        gzip.compress(b"\nhttp://a.example/?x=1&y=2\nhttp://example.org/b", mtime=0),
        rss(("http://a.example/?x=1&amp;y=2", None), ("/b", None)),
    ],
)
def test_sitemaps_are_read_as_they_are_found(data: bytes) -> None:
    pages, maps = map_of(data)
    assert (list(pages), maps) == (["http://a.example/?x=1&y=2", "http://example.org/b"], [])


def test_undeclared_names_of_characters_hide_no_other_page() -> None:
    pages, _ = map_of(locs("/a", "/n&ordm;1", "", "http://[x", "/b"))
    assert list(pages) == [f"http://example.org/{end}" for end in ("a", "n&ordm;1", "b")]


def test_an_entry_of_an_index_without_a_location_is_no_sitemap() -> None:
    index = sitemap("<loc>/a.xml</loc>", "<loc/>", "", kind="sitemap")
    assert map_of(index) == ({}, ["http://example.org/a.xml"])


def test_robots_txt_leads_to_the_sitemaps_that_it_names(app: App, site: Site) -> None:
    rules = "\ufeffUser-agent: *\nCrawl-delay: 0\rSITEMAP : /one.xml\n"
    site.add("/robots.txt", f"{rules}Sitemap: {site.url('/two.xml')}\n".encode(), "text/plain")
    site.add("/one.xml", sitemap("<loc>/two.xml</loc>", kind="sitemap"))
    site.add("/two.xml", locs("/ok"))
    robots = site.url("/robots.txt")
    assert run(app, "sitemap", robots) == {"found": 0, "new": 0, "sitemaps": 2}
    assert [row["url"] for row in app.items().to_dicts()] == [site.url("/ok")]
    # It can not lead to itself for ever.
    site.add("/robots.txt", b"Sitemap: /robots.txt?again\nSitemap: /robots.txt", "text/plain")
    app.enqueue("sitemap", site.url("/robots.txt?2"))
    assert len(app.jobs(task="sitemap")) < 10


# What is in the wrong place, and what is empty -----------------------------------------------

ATOM = b"<feed xmlns='http://www.w3.org/2005/Atom'><entry><link href='/a'/></entry></feed>"
JSON_FEED = {"version": "https://jsonfeed.org/version/1.1", "title": "F", "items": []}


@pytest.mark.parametrize(
    ("task", "data", "fix"),
    [
        ("fetch", rss(), "enqueue feed"),
        ("fetch", ATOM, "enqueue feed"),
        ("fetch", json.dumps(JSON_FEED).encode(), "enqueue feed"),
        ("fetch", locs("/ok"), "enqueue sitemap"),
        ("feed", PAGE, "enqueue fetch"),
        ("feed", locs("/ok"), "enqueue sitemap"),
        ("feed", gzip.compress(b"words", mtime=0), "enqueue fetch"),
        ("sitemap", PAGE, "enqueue links"),
        ("sitemap", b"%PDF-1.7 \0", "enqueue fetch"),
        ("links", rss(), "enqueue feed"),
        ("links", locs("/ok"), "enqueue sitemap"),
        ("links", b"%PDF-1.7 \0", "enqueue fetch"),
    ],
)
def test_the_error_says_which_task_fits(
    app: App, site: Site, task: str, data: bytes, fix: str
) -> None:
    url = site.add("/a", data, "application/octet-stream")
    [failed] = [job for job in app.enqueue(task, url).tree if job.state == "failed"]
    assert failed.error_class == "wrong_task"
    assert f"paise2 {fix} {url}" in failed.error


def test_a_feed_in_a_file_is_a_text(app: App, tmp_path: Path) -> None:
    for name, data in [("a.rss", rss(("/a", None))), ("b.json", json.dumps(JSON_FEED).encode())]:
        (tmp_path / name).write_bytes(data)
        assert len(app.enqueue("fetch", tmp_path / name).items) == 1


@pytest.mark.parametrize(
    ("task", "data", "why"),
    [
        ("feed", rss(), "no entry links to a page or a document"),
        ("feed", rss(("file:///etc/passwd", None)), "none of 1 URLs can be fetched"),
        ("feed", json.dumps(JSON_FEED).encode(), "no entry links to a page or a document"),
        ("sitemap", locs(), "it lists no page"),
        ("links", PAGE, "no link to a page on its host"),
    ],
)
def test_nothing_found_is_a_warning_that_says_why(
    app: App, site: Site, caplog: pytest.LogCaptureFixture, task: str, data: bytes, why: str
) -> None:
    job = app.enqueue(task, site.add("/a", data, "text/html" if task == "links" else None))
    assert job.result() == {"found": 0, "new": 0, "warning": f"0 found: {why}"}
    assert str(job).splitlines()[0].endswith(f"completed — 0 found: {why}")
    assert why in caplog.text


# Folders -------------------------------------------------------------------------------------


@pytest.fixture
def place(tmp_path: Path) -> Path:
    place = tmp_path / "papers"
    (place / "deep/er").mkdir(parents=True)
    (place / ".hidden").mkdir()
    for name in ("a.txt", "b.md", "deep/c.txt", "deep/er/d.md", ".e.txt", ".hidden/f.txt"):
        (place / name).write_text(f"words of {name}")
    (place / "passwords.txt").symlink_to("/etc/passwd")
    (place / "loop").symlink_to(place)
    return place


@pytest.mark.parametrize(
    ("options", "names"),
    [
        ((), ["a.txt", "b.md"]),
        ((True,), ["a.txt", "b.md", "deep/c.txt", "deep/er/d.md"]),
        ((True, ["*.md"]), ["b.md", "deep/er/d.md"]),
        ((True, ["deep/*"]), ["deep/c.txt", "deep/er/d.md"]),
        ((False, ["*.pdf", "a*"]), ["a.txt"]),
    ],
)
def test_a_folder_becomes_its_files(
    app: App, place: Path, options: tuple[Any, ...], names: list[str]
) -> None:
    run(app, "folder", str(place), *options, tag="papers")
    assert sorted(row["url"] for row in app.items(tag="papers").to_dicts()) == [
        (place / name).as_uri() for name in names
    ]


def test_only_files_that_are_new_or_changed_are_enqueued(app: App, place: Path) -> None:
    (place / "picture.png").write_bytes(
        b"\x89PNG\r\n\x1a\n"
    )  # fails to be extracted, and is not tried again
    assert run(app, "folder", str(place)) == {"found": 3, "new": 3}
    assert run(app, "folder", str(place)) == {"found": 3, "new": 0}
    (place / "new.txt").write_text("new words")
    os.utime(place / "a.txt", ns=(0, 12345))
    assert run(app, "folder", str(place)) == {"found": 4, "new": 2}
    app.reset()
    (place / "picture.png").unlink()
    assert run(app, "folder", str(place)) == {"found": 3, "new": 0}


def test_a_folder_that_can_not_be_read_is_told(app: App, place: Path) -> None:
    inner = os.open(place / "deep", os.O_RDONLY)
    for _ in range(20):  # also root can't read a path that is too long
        outer, name = inner, "d" * 250
        os.mkdir(name, dir_fd=outer)
        inner = os.open(name, os.O_RDONLY, dir_fd=outer)
        os.close(outer)
    os.close(inner)
    job = app.enqueue("folder", str(place), True)
    assert job.result()["found"] == 4
    assert "left out: 1 folder that can't be read: /" in job.summary()
    assert "(File name too long)" in job.result()["warning"]


@pytest.mark.parametrize("ending", ["released", "cancelled"])
def test_a_folder_is_enqueued_in_portions_and_goes_on_where_it_was_interrupted(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, ending: str
) -> None:
    monkeypatch.setattr(sources, "PORTION", 10)
    files = tmp_path / "files"
    files.mkdir()
    for number in range(25):
        (files / f"{number}.txt").write_text(f"words of {number}")
    with paise2nb.open("development", data_dir=tmp_path / "data") as app:
        job_store = app.queue.job_store
        job = app.enqueue("folder", str(files))
        worker = job_store.register("default", 1)
        claim = job_store.claim(worker, app.parts.limits())
        assert claim is not None
        context = Context(app.parts, claim)
        if ending == "cancelled":
            job.cancel()
        sources.folder(context, str(files))  # and then its process is killed: no outcome
        assert len(fetches(app)) == (20 if ending == "released" else 0)
        if ending == "released":
            job_store.release(worker)
            app.queue.run_ready()
            assert job.result() == {"found": 25, "new": 5}
            assert len(set(fetches(app))) == len(fetches(app)) == len(app.items()) == 25


@pytest.mark.parametrize("argument", ["/no/such/place", "a.txt", "http://example.org/", 7, "a\0"])
def test_an_argument_that_is_not_a_folder_is_refused(app: App, argument: Any) -> None:
    with pytest.raises(UsageError, match="is not a folder"):
        app.enqueue("folder", argument)


def test_only_a_user_or_a_folder_leads_to_a_file(tmp_path: Path) -> None:
    secret = tmp_path / "secret.txt"
    secret.write_text("secret words")
    plugin = tmp_path / "mine.py"
    plugin.write_text(
        "from paise2nb import task\n"
        "@task('follow')\n"
        "def follow(context, url):\n"
        "    context.enqueue('fetch', url)\n"
    )
    with paise2nb.open(
        "test", data_dir=tmp_path / "data", settings={"plugins": [str(plugin)]}
    ) as app:
        for url in (str(secret), secret.as_uri()):
            app.enqueue("follow", url)
        assert [job["error_class"] for job in app.jobs(task="fetch").to_dicts()] == ["blocked"] * 2
        assert len(app.items()) == 0


# Links ---------------------------------------------------------------------------------------


def page(*links: str) -> bytes:
    anchors = "".join(f"<a href='{link}'>to {link}</a> " for link in links)
    return f"<html><body><p>A page of links.</p>{anchors}</body></html>".encode()


@pytest.fixture
def web(site: Site) -> Site:
    """Pages that link in circles. /c is two links away from /, and /d is three."""
    site.add("/", page("/a", "b", "/a#part", "http://elsewhere.invalid/", *LEADING_AWAY))
    site.add("/a", page("/", "/b", "/c", "/c.pdf"))
    site.add("/b", page("/a", "/b"))
    site.add("/c", page("/d", "/a"))
    site.add("/d", page("/"))
    return site


def stored(app: App, site: Site) -> list[str]:
    return sorted(row["url"].removeprefix(site.url("")) for row in app.items().to_dicts())


@pytest.mark.parametrize(
    ("depth", "paths"),
    [(1, ["/a", "/b"]), (2, ["/", "/a", "/b", "/c"]), (3, ["/", "/a", "/b", "/c", "/d"])],
)
def test_links_are_followed_to_a_depth(app: App, web: Site, depth: int, paths: list[str]) -> None:
    run(app, "links", web.url("/"), depth, tag="web")
    assert stored(app, web) == paths
    assert {row["tag"] for row in app.items().to_dicts()} == {"web"}
    assert all(url.startswith(web.url("/")) for url in fetches(app))


def test_links_to_other_hosts_and_by_pattern(app: App, web: Site) -> None:
    run(app, "links", web.url("/"), 1, False, ["*elsewhere*"])
    assert fetches(app) == ["http://elsewhere.invalid/"]
    run(app, "links", web.url("/a"), 1, True, ["*/b", "*/c"])
    assert fetches(app)[1:] == [web.url("/b"), web.url("/c")]


def test_a_second_run_finds_what_is_new_further_down(app: App, web: Site) -> None:
    run(app, "links", web.url("/"), 2)
    web.add("/b", page("/new"))
    web.add("/new", PAGE)
    run(app, "links", web.url("/"), 2)
    assert "/new" in stored(app, web)


@pytest.mark.parametrize(
    ("task", "args"),
    [("links", ("file:///etc/passwd",)), ("links", ("http://x/", 0)), ("links", ("http://x/", "x")),
     ("feed", ("/etc/passwd",)), ("feed", (7,)), ("sitemap", ("http://ada:secret@x y/",))],
)  # fmt: skip
def test_arguments_that_are_not_valid_are_refused(
    app: App, task: str, args: tuple[Any, ...]
) -> None:
    with pytest.raises(UsageError) as caught:
        app.enqueue(task, *args)
    assert "secret" not in str(caught.value)


def test_links_are_resolved_as_in_a_browser() -> None:
    html = (
        "<base href='http://b.example/x/'><a href=' y '>1</a><a>2</a><a href=''>3</a><area href=z>"
    )
    fetched = Fetched(html.encode(), "http://a.example/", "text/html")
    assert list(read_page(fetched).links) == ["http://b.example/x/y", "http://b.example/x/z"]
    for data in (b"", b"\0\xff", b"<!--"):
        assert list(read_page(Fetched(data, "http://a.example/")).links) == []


DAMAGED = {
    "feed": (feed_entries, rss(("http://example.org/a?b&amp;c", 1.0), ("../d", None))),
    "sitemap": (sitemap_entries, sitemap("<loc>http://x/1</loc><lastmod>2024-01-01</lastmod>")),
    "page": (lambda fetched: list(read_page(fetched).links), page("/a", "http://[x", "b#c")),
}


@pytest.mark.parametrize("kind", DAMAGED)
def test_random_damage_gives_urls_or_a_permanent_error(kind: str) -> None:
    read, intact = DAMAGED[kind]
    rng = random.Random(7)
    for _ in range(400):
        data = bytearray(intact)
        for _ in range(rng.randint(1, 5)):
            place = rng.randrange(len(data))
            data[place : place + rng.choice((0, 1, 9))] = rng.randbytes(rng.choice((0, 1, 3)))
        with suppress(paise2nb.PermanentError):  # any other exception fails the test
            read(Fetched(bytes(data), "http://example.org/f"))
    with suppress(paise2nb.PermanentError):
        read(Fetched(intact.replace(b"version='1.0'", b"encoding='ut\xf7-8'"), "http://x/"))


# On the command line -------------------------------------------------------------------------


def test_options_of_sources_are_given_by_name(app: App, place: Path) -> None:
    task = app.plugins.task("folder")
    assert task.with_options(("x",), {"recursive": True}) == ("x", True, ())
    assert task.with_options(("x",), {"pattern": ["*.md"]}) == ("x", False, ["*.md"])
    with pytest.raises(UsageError, match="task 'feed' takes no --same-host"):
        app.plugins.task("feed").with_options(("x",), {"same_host": True})


def test_options_of_sources_work_in_the_shell(tmp_path: Path, place: Path) -> None:
    def shell(*words: str) -> tuple[int, Any]:
        line = ["--profile", "test", "--data-dir", str(tmp_path / "data"), "--json"]
        done = subprocess.run(
            [sys.executable, "-m", "paise2nb", *line, "enqueue", *words],
            capture_output=True, text=True, cwd=tmp_path,
        )  # fmt: skip
        return done.returncode, json.loads(done.stdout) if done.stdout else done.stderr

    status, answer = shell("folder", "papers", "--recursive", "--pattern", "*.md")
    assert status == 0
    assert answer["jobs"][0]["args"] == [str(place), True, ["*.md"]]
    assert shell("links", "http://example.org/", "--recursive") == (
        2, "error: task 'links' takes no --recursive\n",
    )  # fmt: skip
    with paise2nb.open("test", data_dir=tmp_path / "data") as app:
        assert sorted(fetches(app)) == [str(place / "b.md"), str(place / "deep/er/d.md")]


def test_a_listing_shows_the_url_of_a_crawl_and_none_of_its_options(app: App, site: Site) -> None:
    job = app.enqueue_many("links", [(site.url("/"), 3, True, ["*"], 7, None)])[0]
    assert str(job).startswith(f"job {job.id}: links {site.url('/')} · ")
