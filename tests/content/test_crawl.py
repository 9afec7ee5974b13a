"""Crawls of whole sites: exactly the pages that should be there, and what is left out and why."""

from __future__ import annotations

import os
import signal
import sqlite3
from collections.abc import Iterator
from itertools import count
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import pytest

import paise2nb
from paise2nb.app import App
from paise2nb.content import crawl, traps
from paise2nb.content.crawl import Crawl, sorted_links
from paise2nb.core.errors import UsageError
from tests.site import Behaviour, Site, Visit
from tests.waiting import until

LOCAL = {
    "fetch.allow_private_addresses": True, "fetch.host_delay": 0, "workers.retry.max_retries": 0,
}  # fmt: skip


@pytest.fixture
def app(tmp_path: Path) -> Iterator[App]:
    with paise2nb.open("test", data_dir=tmp_path / "data", settings=LOCAL) as app:
        yield app


def page(text: str, *links: str, head: str = "") -> bytes:
    anchors = "".join(
        link if link.startswith("<") else f"<a href='{link}'>a link</a> " for link in links
    )
    return (
        f"<html><head><title>{text[:20]}</title>{head}</head><body><article><p>{text}</p></article>"
        f"{anchors}</body></html>"
    ).encode()


def words(name: object) -> str:
    """A text that only one page has, long enough to be compared with others."""
    return f"The page {name} tells of {name} and of hardly anything else but {name}, at length."


def stored(app: App) -> set[str]:
    rows = app.items().to_dicts()
    return {urlsplit(row["url"]).path + "?" * ("?" in row["url"]) for row in rows}


def left_out(app: App, job: Any) -> dict[str, int]:
    return {name: found["number"] for name, found in job.result().get("left_out", {}).items()}


# What pages and links ask for ----------------------------------------------------------------


@pytest.mark.parametrize("depth", [1, 2])
@pytest.mark.parametrize("how", ["meta", "header"])
def test_a_page_that_asks_not_to_be_stored_is_skipped_and_says_so(
    app: App, site: Site, how: str, depth: int
) -> None:
    start = site.add("/", page(words("start"), "/private", "/public"))
    head = "<meta name='ROBOTS' content='NoIndex'>" if how == "meta" else ""
    headers = {"X-Robots-Tag": "noindex"} if how == "header" else None
    site.add("/private", page(words("private"), "/below", head=head), headers=headers)
    site.add("/public", page(words("public")))
    site.add("/below", page(words("below")))
    job = app.enqueue("links", start, depth)
    assert stored(app) == {"/public"} | ({"/below"} if depth == 2 else set())
    [skipped] = app.jobs(state="skipped")
    assert skipped.args[0] == site.url("/private")
    assert skipped.summary().endswith("skipped — pages that ask not to be stored (noindex)")
    assert job.result()["left_out"] == {
        "noindex": {"number": 1, "examples": [site.url("/private")]}
    }
    assert f"left out: 1 pages that ask not to be stored (noindex): {site.url('/private')}" in (
        job.details()
    )
    app.enqueue("fetch", site.url("/private"))  # a user asks for this very page
    assert "/private" in stored(app)


@pytest.mark.parametrize(
    ("value", "directives"),
    [
        ("noindex, follow, max-image-preview:large", {"noindex"}),
        ("max-snippet: -1, NoIndex", {"noindex"}),
        ("noindex, otherbot: nofollow", {"noindex"}), ("otherbot: noindex, nofollow", set()),
        ("otherbot: noindex, paise2nb: nofollow", {"nofollow"}),
        ("unavailable_after: 31 Dec 2030 15:00:00 PST, nofollow", {"nofollow"}),
    ],
)  # fmt: skip
def test_directives_are_read_beside_those_with_values_and_for_others(
    app: App, value: str, directives: set[str]
) -> None:
    claim = type("Claim", (), {"task": "fetch", "id": 0})()
    context = paise2nb.Context(app.parts, claim)  # type: ignore[arg-type]
    assert {"noindex", "nofollow"} & crawl.directives(context, value) == directives


def test_links_that_ask_not_to_be_followed_are_not(app: App, site: Site) -> None:
    start = site.add("/", page(words("start"), "<a rel='ugc nofollow' href='/spam'>x</a>", "/a"))
    nofollow = "<meta name='robots' content='nofollow'>"
    site.add("/a", page(words("a"), "/ads", "/b", head=nofollow))
    site.add("/ads", page(words("ads")))
    site.add("/spam", page(words("spam"), "/deep"))
    job = app.enqueue("links", start, 3)
    assert stored(app) == {"/a"}
    assert left_out(app, job) == {"nofollow": 3}


def test_robots_false_ignores_what_pages_ask_for(tmp_path: Path, site: Site) -> None:
    start = site.add("/", page(words("start"), "<a rel='nofollow' href='/a'>x</a>"))
    site.add("/a", page(words("a"), head="<meta name='robots' content='none'>"))
    settings = {**LOCAL, "fetch.robots": False}
    with paise2nb.open("test", data_dir=tmp_path / "data", settings=settings) as app:
        job = app.enqueue("links", start)
        assert stored(app) == {"/a"}
        assert left_out(app, job) == {}


def test_a_link_that_is_followed_elsewhere_is_followed(app: App, site: Site) -> None:
    start = site.add("/", page(words("start"), "<a rel='nofollow' href='/a'>x</a>", "/b"))
    site.add("/b", page(words("b"), "/a"))
    site.add("/a", page(words("a")))
    job = app.enqueue("links", start, 2)
    assert stored(app) == {"/a", "/b"}
    assert left_out(app, job) == {}


@pytest.mark.parametrize("depth", [1, 2])
def test_the_canonical_page_is_stored_in_place_of_its_copies(
    app: App, site: Site, depth: int
) -> None:
    canonical = "<link rel='canonical' href='/story'>"
    start = site.add("/", page(words("start"), "/print?story", "/amp/story"))
    for path in ("/print", "/amp/story", "/story"):
        site.add(path, page(words(path), head=canonical))
    job = app.enqueue("links", start, depth)
    assert stored(app) == {"/story"}
    assert left_out(app, job) == {"canonical": 2}
    assert site.visits["/story"] == 1


def test_canonical_urls_that_can_not_be_right_are_ignored(app: App, site: Site) -> None:
    start = site.add("/", page(words("start"), "/a", "/b", "/c", "/d"))
    for path, named in (("/a", "/"), ("/b", "http://other.invalid/b"), ("/c", "/d"), ("/d", "/c")):
        site.add(path, page(words(path), head=f"<link rel=canonical href='{named}'>"))
    app.enqueue("links", start, 1)
    assert {"/a", "/b"} < stored(app)
    assert len(stored(app)) == 3  # /c and /d name each other: one of them is stored


# Limits --------------------------------------------------------------------------------------


def test_a_crawl_stops_at_its_largest_number_of_pages(app: App, site: Site) -> None:
    for number in range(30):
        links = [f"/p/{n}" for n in (2 * number + 1, 2 * number + 2)]
        site.add(f"/p/{number}", page(words(number), *links))
    job = app.enqueue("links", site.url("/p/0"), 20, True, [], 10)
    assert stored(app) == {f"/p/{n}" for n in range(1, 11)}
    assert left_out(app, job) == {"max_pages": 12}
    assert sum(part.result().get("new", 0) for part in job.tree) == 10


def test_a_crawl_stays_on_its_host_also_by_redirects(app: App, site: Site) -> None:
    other = site.url("/other", host="localhost")
    site.add("/other", page(words("other"), "/beyond"))
    site.add("/beyond", page(words("beyond")))
    site.add("/gone", b"", status=302, headers={"Location": other})
    start = site.add("/", page(words("start"), "/gone", other, "/here"))
    site.add("/here", page(words("here")))
    for depth in (1, 3):
        job = app.enqueue("links", start, depth)
        assert stored(app) == {"/here"}
        assert left_out(app, job)["other_host"] == 2
    app.enqueue("links", start, 3, False)
    assert "/beyond" in stored(app)


def test_a_crawl_that_another_task_starts_stays_on_its_host(tmp_path: Path, site: Site) -> None:
    plugin = tmp_path / "mine.py"
    plugin.write_text(
        "from paise2nb import task\n"
        "@task('begin')\n"
        "def begin(context, url):\n"
        "    context.enqueue('links', url, 3)\n"
    )
    other = site.url("/other", host="localhost")
    start = site.add("/", page(words("start"), other, "/here"))
    site.add("/other", page(words("other")))
    site.add("/here", page(words("here"), other))
    settings = {**LOCAL, "plugins": [str(plugin)]}
    with paise2nb.open("test", data_dir=tmp_path / "data", settings=settings) as app:
        app.enqueue("begin", start)
        assert stored(app) == {"/", "/here"}


@pytest.mark.parametrize(
    "args", [(0,), (101,), ("x",), (1, True, [], 0), (1, True, [], -3), (1, True, [], "many")]
)
def test_numbers_that_make_no_sense_are_refused(app: App, args: tuple[Any, ...]) -> None:
    with pytest.raises(UsageError):
        app.enqueue("links", "http://example.org/", *args)


# Traps ---------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("path", "reason"),
    [
        ("/calendar/2026/11", "calendar"), ("/calendar/month/2031-05/", "calendar"),
        ("/events/2026-11-27/", "calendar"), ("/events?month=2031-05", "calendar"),
        ("/kalender.php?year=2031&month=4", "calendar"), ("/2150/05/", "calendar"),
        ("/index.php?date=2150-01-01", "calendar"), ("/cal/2026/w48", "calendar"),
        ("/a/b/a/b/a/b", "long_path"), ("/x/x/x", "long_path"), ("/" + "d/" * 1, ""),
        ("/" + "/".join(map(str, range(30))), "long_path"), ("/?" + "q" * 3000, "long_path"),
        ("/cal.php?y=2031&m=4", "calendar"), ("/termine/2031/kw12", "calendar"),
        ("/events/list/?tribe-bar-date=2031-01-01", "calendar"), ("/shop?m=4711&d=4711", ""),
        ("/calendar/", ""), ("/events/2026/11/harvest-festival", ""), ("/2019/05/", ""),
        ("/2019/05/17/a-story", ""), ("/blog?year=2019", ""), ("/articles/1024/", ""),
        ("/issue?date=1951-03-04", ""), ("/docs/docs/", ""), ("/11/11/11/", ""),
        ("/node/12345", ""), ("/news/203499", ""), ("/p/9876543", ""), ("/events/48213", ""),
        ("/topic/4711/2", ""), ("/calendar/20311127", "calendar"), ("/cal/203111", "calendar"),
    ],
)  # fmt: skip
def test_traps_are_known_by_their_urls(path: str, reason: str) -> None:
    assert traps.trap(f"http://example.org{path}") == reason


@pytest.mark.parametrize(
    ("with_session", "without"),
    [
        ("/a?PHPSESSID=1", "/a"), ("/a;jsessionid=A1.node?x=1", "/a?x=1"), ("/(S(abc))/a", "/a"),
        ("/a?x=1&sessionid=12&y=2", "/a?x=1&y=2"), ("/a?ASPSESSIONIDABCDEFGH=X", "/a"),
        ("/a?sid=0123456789abcdef", "/a"), ("/a?sid=12", "/a?sid=12"), ("/a?s=words", "/a?s=words"),
        ("/talks?session=2026-spring", "/talks?session=2026-spring"),
        ("/a?sid=20261127093000", "/a?sid=20261127093000"),
        ("/a?session=", "/a?session="), ("/talks?session_title=x", "/talks?session_title=x"),
    ],
)  # fmt: skip
def test_ids_of_sessions_are_no_part_of_a_url(with_session: str, without: str) -> None:
    base = "http://example.org"
    assert traps.without_session(base + with_session) == base + without


def test_parameters_in_another_order_are_the_same_page() -> None:
    one, other = "http://example.org/?a=1&b=2", "http://example.org/?b=2&a=1"
    [link] = sorted_links(Crawl(host="example.org"), {one: False, other: False}, follows=True)
    assert link.url == one
    assert crawl.key_of(one) != crawl.key_of("http://example.org/?a=2&b=1")


def test_a_text_at_many_urls_is_stored_once_and_followed_once(app: App, site: Site) -> None:
    for number in range(20):
        site.add(f"/copy/{number}", page(words("same"), f"/copy/{number + 1}"))
    job = app.enqueue("links", site.url("/copy/0"), 15)
    assert len(stored(app)) == 1
    assert left_out(app, job) == {"same_text": 1}
    assert [row["args"][0] for row in app.jobs(state="skipped").to_dicts()] == [site.url("/copy/2")]


def test_a_list_is_the_same_however_it_is_sorted(app: App, site: Site) -> None:
    things = [words(name) for name in ("oar", "boat", "buoy", "sail")]
    orders = {"/things": things, "/things?sort=name": sorted(things), "/things?desc": things[::-1]}
    start = site.add("/", page(words("start"), *orders))

    def sort(visit: Visit, argument: str) -> None:
        visit.answer(page(" ".join(orders[visit.path]), "/about"), "text/html")

    site.on("/things", sort)
    site.add("/about", page(words("about")))
    job = app.enqueue("links", start, 2)
    assert len(stored(app)) == 2
    assert left_out(app, job) == {"same_text": 2}


def test_pages_with_hardly_any_text_are_not_the_same(app: App, site: Site) -> None:
    start = site.add("/", page(words("start"), "/a", "/b"))
    site.add("/a", page("Words."))
    site.add("/b", page("Words."))
    app.enqueue("links", start)
    assert stored(app) == {"/a", "/b"}


# Whole sites ---------------------------------------------------------------------------------


class Generated(dict[str, Behaviour]):
    """A site of generated pages with traps: each page leads to ten others, and into each trap.

    All links to pages carry a new id of a session. The traps are a calendar, a text at ever new
    URLs, and relative links that make paths ever longer.
    """

    def __init__(self, pages: int) -> None:
        self.pages = pages
        self._session = count()

    def get(self, path: str, default: Any = None) -> Any:
        kind, _, rest = path.strip("/").partition("/")
        if kind == "p" and rest.isdigit() and int(rest) < self.pages:
            number = int(rest)
            pages = [*range(10 * number + 1, 10 * number + 11), number + 1, number // 2]
            links = [f"/p/{n}?PHPSESSID={next(self._session)}" for n in pages if n < self.pages]
            body = page(words(number), *links, "/calendar/2026/11", f"/same/{number}", "more/")
        elif kind == "calendar":
            year, month = map(int, rest.split("/"))
            body = page(words(rest), f"/calendar/{year + month // 12}/{month % 12 + 1}")
        elif kind == "same":
            body = page(words("same"), f"/same/{int(rest) + 1}", f"/same/{2 * int(rest)}")
        elif path.endswith("more/"):
            body = page(words(path), "more/", "/p/0")
        else:
            return default

        def answer(visit: Visit, argument: str) -> None:
            visit.answer(body)

        return answer

    def expected(self) -> set[str]:
        """The paths of the pages, and of the ways into the traps."""
        return {f"/p/{n}" for n in range(self.pages)} | {"/p/more/", "/p/more/more/"}


def rows(app: App, sql: str) -> list[tuple[Any, ...]]:
    with sqlite3.connect(app.queue.job_store.path) as connection:
        return connection.execute(sql).fetchall()


@pytest.mark.parametrize("pages", [300, pytest.param(10_000, marks=pytest.mark.slow)])
def test_a_site_with_traps_is_crawled_to_its_end_though_workers_are_killed(
    tmp_path: Path, site: Site, pages: int
) -> None:
    site.behaviours = Generated(pages)
    settings = {**LOCAL, "workers.concurrency": 2, "workers.retry.retry_delay": 0.1}
    with paise2nb.open("development", tmp_path / "data", settings) as app:
        job = app.enqueue("links", site.url("/p/0"), 100)
        app.workers.start()
        until(lambda: len(app.items()) > pages // 3, pages / 5)
        running = rows(app, "SELECT worker_pid FROM jobs WHERE state = 'running'")
        killed = {pid for (pid,) in running if pid}
        for pid in killed:
            os.kill(pid, signal.SIGKILL)
        app.wait(timeout=max(120, pages / 5))
        app.workers.stop()
        found = [urlsplit(row["url"]).path for row in app.items().to_dicts()]
        assert sorted(path for path in found if not path.startswith("/same/")) == sorted(
            site.behaviours.expected()
        )
        assert sum(path.startswith("/same/") for path in found) == 1
        assert not any(path.startswith("/calendar") for path in site.visits)
        # What ran when its worker was killed is fetched again, nothing else.
        again = sum(times - 1 for path, times in site.visits.items() if path.startswith("/p/"))
        assert killed
        assert again <= 1 + len(running)
        # The trap costs a few requests, however many links lead into it.
        assert sum(p.startswith("/same/") for p in site.visits) < 50
        counts = left_out(app, job)
        assert set(counts) == {"calendar", "long_path", "same_text"}
        assert counts["same_text"] == pages - 1


def test_secrets_in_urls_that_are_left_out_are_hidden(app: App, site: Site) -> None:
    links = ["<a rel=nofollow href='/a?api_key=s3cret'>x</a>", "/b?api_key=s3cret"]
    start = site.add("/", page(words("start"), *links))
    site.add("/b", page(words("b"), head="<meta name='robots' content='noindex'>"))
    job = app.enqueue("links", start)
    assert set(left_out(app, job)) == {"nofollow", "noindex"}
    assert "s3cret" not in job.details() + str(job.result()) + str(job.to_dict())
