"""From a URL to an item: the four core tasks, in a real app that runs them at once."""

from __future__ import annotations

import os
import time
import zipfile
from collections.abc import Iterator
from functools import partial
from io import BytesIO
from pathlib import Path
from typing import Any

import pytest
from reportlab.pdfgen.canvas import Canvas

import paise2nb
from paise2nb.app import App
from paise2nb.commands import Session, main
from paise2nb.content.tasks import is_up_to_date
from paise2nb.core.errors import NotFound, UsageError
from tests import documents
from tests.site import PAGE, Site, Visit

PLUGIN = """
from paise2nb import Document, Fetched, extractor, fetcher

@extractor("text/x-bibtex", suffixes=[".bib"])
def bib(context, data, source):
    return Document("bibliography " + data.decode(), title=source.mime_type)

@extractor("application/x-bundle")
def bundle(context, data, source):
    return [Document(t, url=f"{source.url}/{n}") for n, t in enumerate(data.decode().split())]

@extractor("application/x-gaps")
def gaps(context, data, source):
    texts = data.decode().split(",")
    return [Document(text, url=f"{source.url}/{n}") for n, text in enumerate(texts)]

@extractor("application/x-muddle", suffixes=[".muddle"])
def muddle(context, data, source):
    return [Document("one"), Document("two")]

@extractor("application/x-news")
def news(context, data, source):
    return Document(data.decode(), metadata={"source": "Reuters", "pages": 2})

@extractor("application/x-sloppy")
def sloppy(context, data, source):
    return data.decode()

@fetcher("gopher")
def gopher(context, url):
    return b"gopher says " + url.encode()

@fetcher("validated")
def validated(context, url):
    return Fetched(b"<p>validated</p>", url, "text/html", meta={"etag": "1"})
"""


@pytest.fixture
def app(tmp_path: Path) -> Iterator[App]:
    plugin = tmp_path / "mine.py"
    plugin.write_text(PLUGIN)
    settings = {
        "fetch.allow_private_addresses": True,
        "fetch.host_delay": 0,
        "fetch.robots": False,
        "workers.retry.max_retries": 0,
        "plugins": [str(plugin)],
    }
    with paise2nb.open("test", data_dir=tmp_path / "data", settings=settings) as app:
        yield app


def item_of(app: App, *args: Any, task: str = "fetch", **named: Any) -> dict[str, Any]:
    """Run a job; the one item that its tree stored."""
    job = app.enqueue(task, *args, **named)
    assert job.error is None
    (item,) = app.items() if task == "fetch" else [app.item(job.result()["item"])]
    row = app.store.get(item.id)
    assert row is not None
    return row


def tree_error(app: App, *args: Any, task: str = "fetch") -> tuple[str, str]:
    """The class and the message of the failure in a job's tree."""
    app.enqueue(task, *args)
    failed = app.jobs(state="failed").to_dicts()
    return failed[-1]["error_class"], failed[-1]["error"]


# From a URL to an item -----------------------------------------------------------------------


def test_a_url_becomes_an_item(app: App, site: Site) -> None:
    url = site.add("/page?id=1", PAGE)
    url = site.add("/page", PAGE) + "?id=1#part"
    row = item_of(app, url, tag="news")
    assert (row["url"], row["title"], row["language"]) == (url, "A small page", "en")
    assert row["text"] == "Nothing much is written here, but enough to be found."
    assert (row["mime_type"], row["size"], row["tag"]) == ("text/html", len(PAGE), "news")
    assert app.cache.get(row["sha256"]) == PAGE
    assert app.search('"much is written"')[0]["id"] == row["id"]


def test_the_result_of_a_fetch_describes_the_answer(app: App, site: Site) -> None:
    url = site.add("/page", PAGE, headers={"ETag": '"7"'})
    result = app.enqueue("fetch", url).result()
    assert result == {
        "url": url, "sha256": result["sha256"], "size": len(PAGE), "mime_type": "text/html",
        "status": 200, "etag": '"7"',
    }  # fmt: skip


def test_a_redirected_item_keeps_the_url_that_was_enqueued(app: App, site: Site) -> None:
    row = item_of(app, site.url("/redirect/1"))
    assert row["url"] == site.url("/redirect/1")
    assert row["metadata"]["source"]["final_url"] == site.url("/ok")


def test_the_suffix_after_a_redirect_counts_too(app: App, site: Site) -> None:
    site.add("/real.md", b"# Called\n\ntext", "application/octet-stream")
    assert item_of(app, site.url("/to?url=/real.md"))["mime_type"] == "text/markdown"


def test_a_pdf_is_read_whatever_it_is_served_as(app: App, site: Site) -> None:
    row = item_of(app, site.add("/x", documents.pdf("a needle", title="T"), "text/html"))
    assert (row["mime_type"], row["title"], row["text"]) == ("application/pdf", "T", "a needle")


def test_passwords_stay_in_the_fetch(app: App, site: Site) -> None:
    url = site.add("/page", PAGE).replace("//", "//ada:secret@")
    row = item_of(app, url)
    assert "secret" not in repr(row)
    assert site.requests[0].headers["Authorization"] is not None
    assert "secret" not in repr([j for j in app.jobs().to_dicts() if j["task"] != "fetch"])


def test_two_urls_with_equal_bytes_are_two_items(app: App, site: Site) -> None:
    app.enqueue_many("fetch", [site.url("/ok?1"), site.url("/ok?2")])
    first, second = app.items().to_dicts()
    assert first["sha256"] == second["sha256"]
    assert first["id"] != second["id"]


def test_a_second_fetch_changes_the_item_and_keeps_its_id(app: App, site: Site) -> None:
    first = item_of(app, site.add("/page", b"old words", "text/plain"))
    second = item_of(app, site.add("/page", b"new words", "text/plain"), force=True)
    assert first["id"] == second["id"]
    assert len(app.search("old")) == 0
    assert len(app.search("new")) == 1


@pytest.mark.parametrize("path", ["/status/500", "/empty", "/picture"])
def test_a_failed_fetch_leaves_the_item_as_it_was(app: App, site: Site, path: str) -> None:
    def answer(visit: Visit, argument: str) -> None:
        if len(visit.server.site.requests) == 1:
            visit.answer(b"good words", "text/plain")
        elif path == "/status/500":
            visit.answer(b"broken", status=500)
        elif path == "/empty":
            visit.answer(b"", "text/plain")
        else:
            visit.answer(b"\x89PNG\r\n\x1a\n", "image/png")

    url = site.on("/page", answer)
    before = item_of(app, url)
    app.enqueue("fetch", url, force=True)
    assert app.store.get(before["id"]) == before


def with_etag(site: Site, path: str = "/page") -> str:
    """The URL of a page that answers 304 to requests with its ETag."""

    def answer(visit: Visit, argument: str) -> None:
        if visit.headers["If-None-Match"] == '"1"':
            visit.begin(None, status=304)
        else:
            visit.answer(headers={"ETag": '"1"'})

    return site.on(path, answer)


def test_an_unchanged_page_is_visited_and_its_item_stays(app: App, site: Site) -> None:
    url = with_etag(site)
    before = item_of(app, url)
    job = app.enqueue("fetch", url, force=True)
    assert job.result() == {"url": url, "item": before["id"], "status": 304}
    assert [item.id for item in job.items] == [before["id"]]
    after = app.store.get(before["id"])
    assert after is not None
    assert after["visited_at"] > before["visited_at"] == before["fetched_at"]
    assert {**after, "visited_at": None} == {**before, "visited_at": None}


def test_an_unchanged_page_or_file_is_stored_again_for_another_tag(
    app: App, site: Site, tmp_path: Path
) -> None:
    page, file = with_etag(site), tmp_path / "page.md"
    file.write_text("some words")
    for url in (page, str(file)):
        app.enqueue("fetch", url, tag="first")
        for tag, is_unchanged in (("second", False), ("second", True), (None, True)):
            job = app.enqueue("fetch", url, tag=tag, force=True)
            assert (job.page_state == "unchanged") is is_unchanged
    for tag in ("first", "second"):
        assert len(app.items(tag=tag)) == 2


def test_a_text_that_a_power_cut_took_is_extracted_again(app: App, site: Site) -> None:
    item = item_of(app, site.add("/page", PAGE))
    (extracted,) = app.jobs(task="extract")
    key = extracted.result()["document"]
    Path(app.data_dir, "cache", key[:2], key[2:]).write_bytes(b"")
    assert app.replay(app.jobs(task="store")[0].id).value == {"item": item["id"]}


def test_a_replay_fetches_an_unchanged_page_and_changes_no_row(app: App, site: Site) -> None:
    url = with_etag(site)
    before = item_of(app, url)
    [job] = app.jobs(task="fetch")
    replayed = app.replay(job.id)
    assert site.requests[-1].headers["If-None-Match"] is None
    assert [followup.task for followup in replayed.followups] == ["extract"]
    assert app.store.get(before["id"]) == before


def test_bytes_missing_from_the_cache_are_fetched_again(app: App, site: Site) -> None:
    url = with_etag(site)
    item_of(app, url)
    app.cache.clear()
    row = item_of(app, url, force=True)
    assert site.requests[-1].headers["If-None-Match"] is None
    assert app.cache.get(row["sha256"]) == PAGE


def test_a_changed_page_adds_a_version(app: App, site: Site) -> None:
    item_of(app, site.add("/page", b"old words", "text/plain"))
    row = item_of(app, site.add("/page", b"new words", "text/plain"), force=True)
    assert row["versions"] == 2
    assert app.store.diff(row["id"]).splitlines()[-2:] == ["-old words", "+new words"]
    assert "2 versions" in str(app.item(row["id"]))
    app.enqueue("fetch", site.add("/copy", b"new words", "text/plain"))
    assert "the same bytes as item 2" in str(app.item(row["id"]))
    assert [len(app.store.versions(item.id)) for item in app.items()] == [1, 2]
    session = Session()
    session.profile, session.data_dir = "test", str(app.data_dir)
    for line in ("--diff", "--since 1"):
        shown = main(["item", str(row["id"]), *line.split()], session)
        assert str(shown).endswith("-old words\n+new words")
    assert str(app.items()[1].diff(2)) == f"the text of item {row['id']} has not changed"
    versions = main(["item", str(row["id"]), "--versions"], session)
    assert [(v["version"], v["size"]) for v in versions] == [(1, 9), (2, 9)]
    assert versions[1]["sha256"] == row["sha256"]
    with pytest.raises(NotFound, match="has 2 versions, none is 3"):
        main(["item", str(row["id"]), "--since", "3"], session)


def test_disallowed_pages_are_not_fetched(app: App, site: Site) -> None:
    site.add("/robots.txt", b"User-agent: *\nDisallow: /ok", "text/plain")
    with paise2nb.open(
        "test", data_dir=app.data_dir, settings={"fetch.allow_private_addresses": True}
    ) as polite:
        for url in (site.url("/ok"), site.url("/redirect/1")):
            job = polite.enqueue("fetch", url)
            assert (job.state, job.to_dict()["error_class"]) == ("failed", "robots")
            assert job.to_dict()["attempt"] == 1
    assert site.visits["/ok"] == 0
    assert site.visits["/robots.txt"] == 1
    item_of(app, site.url("/ok"))  # fetch.robots is false here


def locked_pdf() -> bytes:
    data = BytesIO()
    canvas = Canvas(data, encrypt="secret")
    canvas.drawString(50, 700, "words")
    canvas.save()
    return data.getvalue()


def blank_pdf() -> bytes:
    data = BytesIO()
    canvas = Canvas(data)
    canvas.rect(50, 50, 100, 100)
    canvas.save()
    return data.getvalue()


def locked_zip() -> bytes:
    """A zip file whose only member is marked as encrypted."""
    data = BytesIO()
    with zipfile.ZipFile(data, "w") as archive:
        archive.writestr("a.txt", "words")
    body = bytearray(data.getvalue())
    body[6] |= 1
    body[body.index(b"PK\1\2") + 8] |= 1
    return bytes(body)


def zip_of_unknown_compression() -> bytes:
    """A zip file whose only member names a method that no program has."""
    data = BytesIO()
    with zipfile.ZipFile(data, "w") as archive:
        archive.writestr("a.txt", "words")
    body = bytearray(data.getvalue())
    body[8] = body[body.index(b"PK\1\2") + 10] = 77
    return bytes(body)


OLE = b"\xd0\xcf\x11\xe0\xa1\xb1\x1a\xe1" + bytes(504)
LOCKED_WORD = OLE + "EncryptedPackage".encode("utf-16-le")
FAILURES = [
    (locked_pdf(), "application/pdf", "password", "needs a password: "),
    (locked_zip(), "application/zip", "password", "needs a password: "),
    (locked_zip(), "application/epub+zip", "password", "needs a password: "),
    (zip_of_unknown_compression(), "application/epub+zip", "unsupported", "can't be unpacked ("),
    (LOCKED_WORD, "application/octet-stream", "password", "needs a password: "),
    (LOCKED_WORD, "application/vnd.ms-excel", "password", "needs a password: "),
    (blank_pdf(), "application/pdf", "scan", "a scan: it has pictures of pages, but no text; see "),
    (documents.pdf(), "application/pdf", "empty", "no text in it (application/pdf): "),
    (b"", "text/plain", "empty", "no text in it (text/plain): "),
    (b"<html><script>1</script></html>", "text/html", "empty", "no text in it (text/html): "),
    (b"\x89PNG\r\n\x1a\n", "image/png", "unsupported", "no extractor for image/png, unless ext"),
    (bytes(range(256)), None, "unsupported", "no extractor for application/octet-stream: "),
    (b"%PDF-1.7 damaged", "application/pdf", "damaged", "can't be read as application/pdf ("),
    (b"x", "application/x-sloppy", "plugin", "the extractor for application/x-sloppy returned str"),
    (b"x", "application/x-muddle", "plugin", "the extractor for application/x-muddle returned sev"),
]  # fmt: skip


@pytest.mark.parametrize(("body", "kind", "word", "message"), FAILURES)
def test_content_without_a_document_fails_permanently_with_the_reason(
    app: App, site: Site, body: bytes, kind: str | None, word: str, message: str
) -> None:
    url = site.add("/page", body, kind)
    error_class, error = tree_error(app, url)
    assert error_class == word
    assert error.startswith(message)
    assert error.endswith(url)
    assert len(app.items()) == 0


def test_documents_of_a_member_with_one_url_are_refused_and_named(app: App, site: Site) -> None:
    body = BytesIO()
    with zipfile.ZipFile(body, "w") as archive:
        archive.writestr("a.muddle", "x")
        archive.writestr("b.txt", "A text about tides.")
    url = site.add("/a.zip", body.getvalue(), "application/zip")
    [item] = app.enqueue("fetch", url).items
    assert item.url == f"{url}!/b.txt"
    [left_out] = item.metadata["left_out"]
    assert "returned several documents with the same URL" in left_out


def test_the_error_names_the_http_status(app: App, site: Site) -> None:
    assert tree_error(app, site.url("/gone")) == (
        "http_4xx", f"404 Not Found: {site.url('/gone')}",
    )  # fmt: skip


# Files ---------------------------------------------------------------------------------------


def test_a_path_becomes_absolute_and_then_an_item(
    app: App, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "my notes.md"
    path.write_text("# Notes\n\nSome words.")
    monkeypatch.chdir(tmp_path)
    job = app.enqueue("fetch", "./x/../my notes.md")
    assert job.to_dict()["args"] == [str(path)]
    assert job.result()["mtime_ns"] == path.stat().st_mtime_ns
    row = app.store.get(1)
    assert row is not None
    assert (row["url"], row["title"], row["mime_type"]) == (path.as_uri(), "Notes", "text/markdown")


def test_the_file_name_is_the_title_of_documents_without_one_except_pages(
    app: App, site: Site, tmp_path: Path
) -> None:
    note = tmp_path / "Notes, 100%.txt"
    note.write_text("words of a note")
    urls = [
        site.add("/data/table%201.csv", b"a,b\n1,2\n", "text/csv"),
        site.add("/plain.html", b"<p>words of a page</p>"),
        site.add("/titled.md", b"# Its heading\n\nwords", "text/markdown"),
    ]
    app.enqueue_many("fetch", [note, *urls]).wait(30)
    titles = [item.title for item in reversed(app.items())]
    assert titles == ["Notes, 100%.txt", "table 1.csv", None, "Its heading"]
    assert [hit["title"] for hit in app.search("100")] == ["Notes, 100%.txt"]


def test_a_path_and_its_file_url_are_one_item(app: App, tmp_path: Path) -> None:
    path = tmp_path / "a b.txt"
    path.write_text("words")
    app.enqueue("fetch", str(path))
    app.enqueue("fetch", path.as_uri(), force=True)
    assert [row["url"] for row in app.items().to_dicts()] == [path.as_uri()]


@pytest.mark.parametrize(
    "name", ["notes.txt", "table.csv", "data.json", "a:b.txt", "per%20cent.txt"]
)
def test_any_file_name_can_be_fetched(app: App, tmp_path: Path, name: str) -> None:
    (tmp_path / name).write_text('{"needle": 1}')
    assert item_of(app, str(tmp_path / name))["text"] == '{"needle": 1}'


# What may be enqueued ------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("argument", "message"),
    [
        ("exmaple", r"'exmaple' is neither a URL \(http://…\) nor a file$"),
        ("example.org/a", r"nor a file; did you mean https://example\.org/a \?"),
        ("http://", "'http://' is not a URL that can be fetched: the host is missing"),
        ("http://ada:secret@exa mple/", r"'http://exa mple/' is not a URL that can be"),
        ("ftp://example.org/", r"no fetcher for ftp: URLs \('ftp://example\.org/'\)"),
        ("/no/such/file.txt", "no such file: '/no/such/file.txt'"),
        ("./nothing.txt", "no such file"),
        ("file:///no/such/file", "no such file: 'file:///no/such/file'"),
        ("file://elsewhere/etc/passwd", "the file is on another host"),
        ("/tmp", "'/tmp' is a directory; to fetch its files: enqueue folder /tmp"),
        ("", "fetch takes a URL or a path, not ''"),
        ("  ", "fetch takes a URL or a path"),
        (7, "fetch takes a URL or a path, not 7"),
        ("notes.txt", "no such file: 'notes.txt'"),
        ("a\0b", "is neither a URL"),
        ("x" * 5000, "is not a path that can be read"),
    ],
)
def test_an_argument_that_can_not_be_fetched_is_refused_with_the_reason(
    app: App, argument: Any, message: str
) -> None:
    with pytest.raises(UsageError, match=message) as caught:
        app.enqueue("fetch", argument)
    assert "secret" not in str(caught.value)
    assert len(app.jobs()) == 0


def test_one_bad_argument_refuses_all(app: App, site: Site) -> None:
    with pytest.raises(UsageError):
        app.enqueue_many("fetch", [site.url(), "exmaple"])
    assert len(app.jobs()) == 0
    assert site.requests == []


def test_a_page_that_is_up_to_date_is_not_fetched_again(app: App, site: Site) -> None:
    url = site.url("/ok")
    first = app.enqueue("fetch", url)
    assert app.enqueue("fetch", url + "?utm_source=again#part").id == first.id
    assert app.enqueue("fetch", url, force=True).id != first.id
    assert len(site.requests) == 2


def test_a_page_is_up_to_date_by_its_age(app: App) -> None:
    args = ("http://example.org/",)
    assert is_up_to_date(app.settings, {}, 86000, args)
    assert not is_up_to_date(app.settings, {}, 87000, args)


def test_a_file_is_up_to_date_until_it_changes(app: App, tmp_path: Path) -> None:
    path = tmp_path / "a.txt"
    path.write_text("words")
    first = app.enqueue("fetch", str(path))
    assert app.enqueue("fetch", str(path)).id == first.id
    os.utime(path, ns=(0, 12345))
    assert app.enqueue("fetch", str(path)).id != first.id
    args = (str(tmp_path / "gone"),)
    assert not is_up_to_date(app.settings, {"size": 1, "mtime_ns": 1}, time.time(), args)


def test_a_file_with_the_bytes_of_its_item_is_unchanged(app: App, tmp_path: Path) -> None:
    path = tmp_path / "a.txt"
    path.write_text("words")
    before = item_of(app, str(path))
    job = app.enqueue("fetch", str(path), force=True)
    assert [child.task for child in app.replay(job.id).followups] == ["extract"]
    assert (job.result()["status"], [item.id for item in job.items]) == (304, [before["id"]])
    assert app.enqueue("fetch", str(path)).id == job.id
    path.write_text("other")
    assert item_of(app, str(path), force=True)["text"] == "other"
    counts = {state: n for state, n in app.queue.job_store.page_counts().items() if n}
    assert counts == {"stored": 2, "unchanged": 1}


def test_a_page_whose_cached_bytes_are_gone_is_fetched_again(app: App, site: Site) -> None:
    job = app.enqueue("fetch", site.add("/page", bytes(range(256)), "application/x-unknown"))
    find = partial(app.queue.job_store.find, state="failed", pages=True)
    assert find(error="unsupported") == [job.id]
    app.cache.clear()
    site.add("/page", b"words", "text/plain")
    assert job.retry().ids == [job.id]
    assert [item.text for item in job.items] == ["words"]
    assert app.queue.job_store.page_counts()["stored"] == 1


def test_a_page_whose_text_is_gone_before_it_is_stored_is_fetched_again(
    app: App, site: Site, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(app.store, "put_many", lambda entries: 1 / 0)
    job = app.enqueue("fetch", site.add("/page", b"words", "text/plain"))
    assert job.children
    monkeypatch.undo()
    app.cache.clear()
    assert job.retry().ids == [job.id]
    assert [item.text for item in job.items] == ["words"]


# Plugins -------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", ["text/x-bibtex", "text/plain", "application/octet-stream", None])
def test_the_suffix_of_a_plugin_counts_if_the_type_is_vague(
    app: App, site: Site, kind: str | None
) -> None:
    assert item_of(app, site.add("/a.bib", b"@book", kind))["text"] == "bibliography @book"


def test_a_signature_outweighs_the_suffix_of_a_plugin(app: App, site: Site) -> None:
    row = item_of(app, site.add("/a.bib", documents.pdf("words"), "application/octet-stream"))
    assert row["mime_type"] == "application/pdf"


def test_one_source_may_have_several_documents(app: App, site: Site) -> None:
    url = site.add("/bundle", b"one two three", "application/x-bundle")
    app.enqueue("fetch", url)
    rows = app.items().to_dicts()
    assert {row["url"] for row in rows} == {f"{url}/{n}" for n in range(3)}
    (stored,) = app.jobs(task="store")
    assert stored.result()["items"] == [1, 2, 3]


def test_the_source_in_the_metadata_of_an_item_is_that_of_its_bytes(app: App, site: Site) -> None:
    url = site.add("/news", b"some words", "application/x-news")
    metadata = item_of(app, url)["metadata"]
    assert (metadata["pages"], metadata["source"]["final_url"]) == (2, url)


def test_an_empty_document_among_several_replaces_nothing(app: App, site: Site) -> None:
    app.enqueue("fetch", site.add("/page", b"first,second", "application/x-gaps"))
    app.enqueue("fetch", site.add("/page", b"changed,", "application/x-gaps"), force=True)
    texts = [app.item(row["id"]).text for row in app.items().to_dicts()]
    assert sorted(texts) == ["changed", "second"]


def test_a_plugins_fetcher_may_return_bytes_or_more(app: App) -> None:
    assert item_of(app, "gopher://example.org/1")["text"] == "gopher says gopher://example.org/1"
    result = app.enqueue("fetch", "validated:you").result()
    assert (result["etag"], result["mime_type"]) == ("1", "text/html")


# Extracting again ----------------------------------------------------------------------------


@pytest.mark.parametrize("by", ["id", "digits", "url"])
def test_an_item_is_extracted_again_without_fetching(app: App, site: Site, by: str) -> None:
    url = site.add("/page", "größer".encode("latin-1"), "text/plain; charset=latin-1")
    before = item_of(app, url, tag="news")
    source = {"id": before["id"], "digits": str(before["id"]), "url": url}[by]
    app.enqueue("extract", source)
    after = app.store.get(before["id"])
    assert after is not None
    assert after["stored_at"] > before["stored_at"]
    assert {**after, "stored_at": None} == {**before, "stored_at": None}
    assert len(site.requests) == 1


@pytest.mark.parametrize("source", [99, "99", "http://example.org/never", "exmaple"])
def test_extracting_an_unknown_item_is_refused(app: App, source: Any) -> None:
    with pytest.raises(NotFound, match="no item"):
        app.enqueue("extract", source)


def test_extracting_removed_bytes_fails_with_the_command_to_fetch_them(
    app: App, site: Site
) -> None:
    row = item_of(app, site.url("/ok"))
    app.cache.clear()
    error_class, error = tree_error(app, row["id"], task="extract")
    assert error_class == "not_cached"
    assert error.endswith(f"paise2 enqueue fetch --force {site.url('/ok')}")


# Cleanup -------------------------------------------------------------------------------------


def test_cleanup_removes_old_bytes_unless_a_job_needs_them(app: App, site: Site) -> None:
    row = item_of(app, site.url("/ok"))
    entries = list((app.data_dir / "cache").glob("??/*"))
    assert app.enqueue("cleanup").result() == {"jobs": 0, "cached": 0}
    for entry in entries:
        os.utime(entry, (time.time() - 31 * 86400,) * 2)
    # No worker runs for this one, so these wait.
    settings = {"task_queue.sqlite.immediate": False, "fetch.allow_private_addresses": True}
    with paise2nb.open("test", data_dir=app.data_dir, settings=settings) as waiting:
        needing = waiting.enqueue("extract", row["id"], delay=3600)
        assert app.enqueue("cleanup").result()["cached"] == len(entries) - 1
        assert app.cache.get(row["sha256"]) == PAGE
        app.jobs(needing.id).cancel()
    assert app.enqueue("cleanup").result()["cached"] == 1
    with pytest.raises(KeyError):
        app.cache.get(row["sha256"])
    assert app.item(row["id"]).text == row["text"]
