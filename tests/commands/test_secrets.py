"""Passwords and tokens in URLs appear in no listing, error or log."""

from __future__ import annotations

import json
import zipfile
from collections.abc import Iterator
from io import BytesIO
from pathlib import Path
from typing import Any

import pytest

import paise2nb
from paise2nb.app import App
from paise2nb.core.errors import PermanentError, UsageError, redacted
from paise2nb.core.urls import canonical_url, shown_url
from paise2nb.views.jobs import Job
from tests.site import PAGE, Site

SECRETS = ("hunter2", "s3cret")


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("http://me:hunter2@h/", "http://me:…@h/"),
        (
            "see https://a:b@c.org/x?y=1 and ftp://:p@d",
            "see https://a:…@c.org/x?y=1 and ftp://:…@d",
        ),
        ("http://h/?api_key=abc&page=2", "http://h/?api_key=…&page=2"),
        ("http://h/?page=2&access_token=abc#top", "http://h/?page=2&access_token=…#top"),
        ("http://h/#access_token=abc", "http://h/#access_token=…"),
        ("http://h/a.zip?token=abc!/b.txt", "http://h/a.zip?token=…!/b.txt"),
        (
            "http://h/?X-Amz-Signature=abc&sig=d&API%5FKEY=e",
            "http://h/?X-Amz-Signature=…&sig=…&API%5FKEY=…",
        ),
        (
            "http://h/?pageToken=abc&max_tokens=5&design=6",
            "http://h/?pageToken=abc&max_tokens=5&design=6",
        ),
        ("http://h/a@b?c=d", "http://h/a@b?c=d"),
        ("not a URL: password=x", "not a URL: password=x"),
    ],
)
def test_secrets_in_urls_are_left_out(text: str, shown: str) -> None:
    assert redacted(text) == shown


@pytest.mark.parametrize(
    ("url", "key"),
    [
        ("http://h/?api_key=abc&page=2", "http://h/?api_key=%E2%80%A6&page=2"),
        ("http://me:hunter2@h/?token=abc", "http://h/?token=%E2%80%A6"),
        ("http://h/a.zip?token=a;b!/c.txt", "http://h/a.zip?token=%E2%80%A6!/c.txt"),
        ("http://h/?pageToken=abc", "http://h/?pageToken=abc"),
    ],
)
def test_the_key_of_an_item_does_not_depend_on_a_secret(url: str, key: str) -> None:
    assert canonical_url(url) == canonical_url(shown_url(url)) == canonical_url(key) == key


def test_a_long_name_takes_no_long_time() -> None:
    """The time grows in proportion to the length: a square would take hours."""
    url = "http://h/?" + "secret" * 200_000 + "&" + "?token" * 200_000
    assert shown_url(url) == redacted(url) == url


# The doors -----------------------------------------------------------------------------------


@pytest.fixture
def app(tmp_path: Path, site: Site) -> Iterator[App]:
    settings = {"fetch.allow_private_addresses": True, "fetch.robots": False}
    with paise2nb.open("test", tmp_path / "data", settings) as app:
        yield app


def views(app: App, job: Job) -> list[str]:
    """Everything that shows a job, its results and its items."""
    exports = [app.data_dir.parent / name for name in ("all.jsonl", "all.csv", "pages")]
    for path in exports:
        app.export(path, force=True)
    written = [path for path in exports if path.is_file()] + list(exports[-1].glob("*"))
    hits, items, jobs = app.search("written"), app.items(), app.jobs()
    shown: list[Any] = [
        job.tree, job.details(), job._repr_html_(), jobs, jobs._repr_html_(), jobs.to_dicts(),
        [one.to_dict() for one in jobs], [one.result() for one in jobs if one.error is None],
        items, items._repr_html_(), items.to_dicts(), [one.to_dict() for one in items],
        [one.text for one in items], hits, hits._repr_html_(), hits.to_dicts(), app.status(),
        app.status()._repr_html_(), app.status().to_dict(), app.screen(), app.logs(500),
        jobs.to_frame(items=True).to_csv(), app.since(),
        *(path.read_text() for path in written),
        *(path.name for path in written),
    ]  # fmt: skip
    return [view if isinstance(view, str) else f"{view}{view!r}" for view in shown]


def assert_hidden(app: App, job: Job) -> None:
    for view in views(app, job):
        assert not [secret for secret in SECRETS if secret in view], view


def asked(site: Site, path: str) -> list[str]:
    return [request.path for request in site.requests if request.path.startswith(path)]


def test_a_secret_is_sent_and_shown_nowhere(app: App, site: Site) -> None:
    site.on("/go", lambda visit, _: visit.answer(
        b"", status=302, headers={"Location": "/page?access_token=s3cret&page=2"}))  # fmt: skip
    site.add("/page", PAGE, headers={"ETag": '"one"'})
    job = app.enqueue("fetch", site.url("/go?api_key=s3cret"))
    assert job.state == "completed", job.error
    assert asked(site, "/") == ["/go?api_key=s3cret", "/page?access_token=s3cret&page=2"]
    assert_hidden(app, job)
    item = app.item(1)
    assert item.url == site.url("/go?api_key=…")
    source = item.to_dict()["metadata"]["source"]
    assert source["final_url"] == job.result()["url"] == site.url("/page?access_token=…&page=2")


def test_urls_that_differ_only_in_the_secret_are_one_item(app: App, site: Site) -> None:
    site.add("/page", PAGE)
    app.enqueue("fetch", site.url("/page?api_key=s3cret&n=1"))
    again = app.enqueue("fetch", site.url("/page?api_key=hunter2&n=1"), force=True)
    other = app.enqueue("fetch", site.url("/page?api_key=hunter2&n=2"))
    assert [again.items[0].id, other.items[0].id] == [1, 2]
    assert len(app.items()) == 2
    assert asked(site, "/page") == [
        "/page?api_key=s3cret&n=1", "/page?api_key=hunter2&n=1", "/page?api_key=hunter2&n=2",
    ]  # fmt: skip


def test_a_retry_a_replay_and_a_conditional_request_use_the_secret(app: App, site: Site) -> None:
    site.add("/page", PAGE, headers={"ETag": '"one"'})
    url = site.url("/busy/1?api_key=s3cret")
    job = app.enqueue("fetch", url)  # retried once
    assert (job.state, job.attempt) == ("completed", 2)
    assert set(asked(site, "/busy")) == {"/busy/1?api_key=s3cret"}
    replay = app.replay(job.id)
    assert set(asked(site, "/busy")) == {"/busy/1?api_key=s3cret"}
    assert len(asked(site, "/busy")) == 3
    for view in (str(replay), repr(replay), str(replay.to_dict())):
        assert "s3cret" not in view
        assert "api_key=…" in view
    app.enqueue("fetch", site.url("/page?token=s3cret"))
    app.enqueue("fetch", site.url("/page?token=s3cret"), force=True)
    assert [r.headers["If-None-Match"] for r in site.requests if r.path.startswith("/page")] == [
        None, '"one"',
    ]  # fmt: skip


def test_the_error_of_a_replay_is_raised_without_the_secret(app: App, site: Site) -> None:
    for path in ("/missing?api_key=s3cret", "/to?url=ftp://h/?token=s3cret"):
        job = app.enqueue("fetch", site.url(path))
        assert job.state == "failed"
        with pytest.raises(PermanentError) as error:
            app.replay(job.id)
        assert "s3cret" not in str(error.value)
        assert_hidden(app, job)


def test_a_recurring_job_uses_its_secret_in_each_run(app: App, site: Site) -> None:
    site.add("/page", PAGE)
    job = app.enqueue("fetch", site.url("/page?api_key=s3cret"), every=3600)
    assert job.state == "scheduled"
    job.retry()
    assert asked(site, "/page") == ["/page?api_key=s3cret"] * 2
    assert_hidden(app, job)


def test_a_failed_job_is_retried_with_its_secret(app: App, site: Site) -> None:
    job = app.enqueue("fetch", site.url("/later?signature=s3cret"))
    assert job.state == "failed"
    assert_hidden(app, job)
    site.add("/later", PAGE)
    job.retry()
    assert job.state == "completed"
    assert asked(site, "/later") == ["/later?signature=s3cret"] * 2
    assert_hidden(app, job)


def test_links_of_feeds_and_pages_are_fetched_with_their_secrets(app: App, site: Site) -> None:
    entry = f"<item><link>{site.url('/entry?token=s3cret&amp;n=1')}</link></item>"
    feed = f"<rss version='2.0'><channel>{entry}</channel></rss>"
    site.add("/feed", feed.encode(), "application/rss+xml")
    site.add("/entry", PAGE)
    site.add(
        "/list", b"<a href='/entry?token=hunter2&amp;n=2'>2</a><a href='?api_key=%E2%80%A6'>3</a>"
    )
    for task, path in (("feed", "/feed?api_key=s3cret"), ("links", "/list?api_key=s3cret")):
        job = app.enqueue(task, site.url(path))
        app.wait(timeout=60)
        assert job.state == "completed", job.error
        assert_hidden(app, job)
    assert asked(site, "/entry") == ["/entry?token=s3cret&n=1", "/entry?token=hunter2&n=2"]
    assert len(app.items()) == 2


def test_members_of_an_archive_behind_a_secret_are_items_of_their_own(app: App, site: Site) -> None:
    packed = BytesIO()
    with zipfile.ZipFile(packed, "w") as archive:
        archive.writestr("a.txt", "What is written in a.")
        archive.writestr("b.txt", "What is written in b.")
    site.add("/all.zip", packed.getvalue(), "application/zip")
    job = app.enqueue("fetch", site.url("/all.zip?token=s3cret"))
    assert {item.url for item in app.items()} == {
        site.url(f"/all.zip?token=…!/{name}.txt") for name in "ab"
    }
    assert_hidden(app, job)


def test_a_url_with_a_hidden_secret_is_refused(app: App, site: Site) -> None:
    for hidden in ("…", "%E2%80%A6"):
        with pytest.raises(UsageError, match=r"the secret in .*is hidden; give the URL with its"):
            app.enqueue("fetch", site.url(f"/page?api_key={hidden}&page=2"))
    assert len(app.jobs()) == 0


def test_what_a_plugin_stores_and_returns_is_shown_without_secrets(
    tmp_path: Path, site: Site
) -> None:
    (tmp_path / "plugin.py").write_text(
        "from paise2nb import Document, extractor, task\n"
        "@task('links_of')\n"
        "def links_of(context, page):\n"
        "    return {'links': ['http://h/?token=s3cret']}\n"
        "@extractor('text/x-odd', suffixes=['.odd'])\n"
        "def odd(context, data, source):\n"
        "    return Document(text='Something written.', url='http://h/?token=s3cret',"
        " metadata={'image': 'http://h/?sig=hunter2'})\n"
    )
    site.add("/page.odd", b"odd", "text/x-odd")
    settings = {"fetch.allow_private_addresses": True, "plugins": [str(tmp_path / "plugin.py")]}
    with paise2nb.open("test", tmp_path / "data", settings) as app:
        app.enqueue("fetch", site.url("/page.odd"))
        job = app.enqueue("links_of", {"of": "http://h/?token=s3cret"})
        assert job.result() == {"links": ["http://h/?token=s3cret"]}  # the value of the function
        assert job.to_dict()["result"] == {"links": ["http://h/?token=…"]}
        assert job.args == [{"of": "http://h/?token=…"}]
        assert app.item(1).url == "http://h/?token=…"
        assert app.item(1).to_dict()["metadata"]["image"] == "http://h/?sig=…"


def test_a_failed_fetch_with_secrets_shows_none_of_them(tmp_path: Path, site: Site) -> None:
    url = site.url("/missing?api_key=s3cret").replace("://", "://me:hunter2@")
    settings = {"fetch.allow_private_addresses": True, "workers.concurrency": 1}
    with paise2nb.open("development", tmp_path / "data", settings) as app:
        app.workers.start()
        job = app.enqueue("fetch", url)
        job.wait(timeout=60)
        app.workers.stop()
        assert job.state == "failed"
        status = app.status()
        views = [
            str(job), job.details(), job._repr_html_(), json.dumps(job.to_dict()),
            str(app.jobs()), app.jobs()._repr_html_(), json.dumps(app.jobs().to_dicts()),
            str(status), status._repr_html_(), str(app.logs(500)),
        ]  # fmt: skip
    for view in views:
        assert not [secret for secret in SECRETS if secret in view]
