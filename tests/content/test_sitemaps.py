"""The sitemaps of a host are found, and it is said where."""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from pathlib import Path

import pytest

import paise2nb
from paise2nb.app import App
from paise2nb.core.errors import UsageError
from tests.site import Site

LOCAL = {
    "fetch.allow_private_addresses": True, "fetch.host_delay": 0, "workers.retry.max_retries": 0,
}  # fmt: skip
MAP = (
    b"<?xml version='1.0'?><urlset xmlns='http://www.sitemaps.org/schemas/sitemap/0.9'>"
    b"<url><loc>/ok</loc></url></urlset>"
)


@pytest.fixture
def app(tmp_path: Path) -> Iterator[App]:
    with paise2nb.open("test", data_dir=tmp_path / "data", settings=LOCAL) as app:
        yield app


@pytest.mark.parametrize(
    "form", ["127.0.0.1:{port}", "localhost:{port}", "http://127.0.0.1:{port}/"]
)
def test_the_sitemaps_that_robots_txt_names_are_found_by_the_host(
    app: App, site: Site, form: str
) -> None:
    site.add("/robots.txt", b"Sitemap: /one.xml\nSitemap: /two.xml", "text/plain")
    site.add("/one.xml", MAP)
    site.add("/two.xml", MAP.replace(b"/ok", b"/ok?2"))
    job = app.enqueue("sitemap", form.format(port=site.port))
    assert len(app.items()) == 2
    assert job.result()["sitemaps"] == 2
    assert job.summary().endswith("— sitemap: 2 named by " + job.result()["sitemap"])


@pytest.mark.parametrize("robots", [None, b"User-agent: *\nDisallow: /x", b"Sitemap:"])
@pytest.mark.parametrize("place", ["/sitemap.xml", "/wp-sitemap.xml", "/sitemap.xml.gz"])
def test_a_sitemap_in_a_usual_place_is_found(
    app: App, site: Site, robots: bytes | None, place: str
) -> None:
    if robots is not None:
        site.add("/robots.txt", robots, "text/plain")
    site.add("/sitemap_index.xml", b"<html><body>Not found.</body></html>", "text/html")
    site.add(place, MAP)
    job = app.enqueue("sitemap", f"127.0.0.1:{site.port}")
    assert job.result() == {
        "found": 1, "new": 1, "sitemap": site.url(place), "note": f"sitemap: {site.url(place)}",
    }  # fmt: skip
    assert [row["url"] for row in app.items().to_dicts()] == [site.url("/ok")]


def test_the_sitemap_is_looked_for_at_the_pace_of_the_host(tmp_path: Path, site: Site) -> None:
    site.add("/sitemap.txt", site.url("/ok").encode(), "text/plain")
    settings = {**LOCAL, "fetch.host_delay": 0.2}
    with paise2nb.open("test", data_dir=tmp_path / "data", settings=settings) as app:
        job = app.enqueue("sitemap", site.url("/"))
        app.wait()
        assert job.result()["sitemap"] == site.url("/sitemap.txt")
    times = [request.at for request in site.requests]
    assert all(later - earlier > 0.15 for earlier, later in itertools.pairwise(times))


def test_a_host_without_a_sitemap_fails_and_says_what_else_helps(app: App, site: Site) -> None:
    job = app.enqueue("sitemap", f"127.0.0.1:{site.port}")
    assert (job.state, job.error_class) == ("failed", "not_found")
    assert job.error is not None
    assert "/wp-sitemap.xml" in job.error
    assert f"paise2 enqueue links {site.url('/')} --depth 5" in job.error


def test_a_path_without_a_scheme_is_refused_with_the_url_that_is_meant(app: App) -> None:
    with pytest.raises(UsageError, match=r"did you mean https://example\.org/sitemap\.xml"):
        app.enqueue("sitemap", "example.org/sitemap.xml")
