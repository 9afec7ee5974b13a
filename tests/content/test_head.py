"""The head of an answer, and the ways that lead to a page, as browsers take them."""

from __future__ import annotations

import gzip
import json
import socket
import threading
from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import replace
from io import BytesIO
from pathlib import Path

import pytest

import paise2nb
from paise2nb.app import App
from paise2nb.config.settings import FetchSettings, Settings
from paise2nb.content.fetch.head import (
    content_type,
    file_name,
    read_head,
    refresh_target,
)
from paise2nb.content.fetch.http import get
from paise2nb.core.errors import PermanentError, TransientError
from paise2nb.core.urls import parse
from tests.site import PAGE, Site, Visit


@pytest.fixture
def settings() -> FetchSettings:
    return replace(Settings.resolve("test").fetch, allow_private_addresses=True, timeout=20.0)


@pytest.fixture
def app(tmp_path: Path) -> Iterator[App]:
    settings = {"fetch.allow_private_addresses": True, "workers.retry.max_retries": 1}
    with paise2nb.open("test", data_dir=tmp_path / "data", settings=settings) as app:
        yield app


@pytest.fixture
def raw() -> Iterator[Callable[[bytes], str]]:
    """A server that sends the given bytes to each request, and then closes the connection."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        answers: list[bytes] = []

        def serve() -> None:
            while True:
                try:
                    connection, _ = server.accept()
                except OSError:
                    return
                with connection:
                    while b"\r\n\r\n" not in connection.recv(65536):
                        pass
                    connection.sendall(answers[-1])

        threading.Thread(target=serve, daemon=True).start()

        def answer(data: bytes) -> str:
            answers.append(data)
            return f"http://127.0.0.1:{server.getsockname()[1]}/"

        yield answer
        server.shutdown(socket.SHUT_RDWR)


# Lines of the head ---------------------------------------------------------------------------

OK = b"HTTP/1.1 200 OK\r\n"


@pytest.mark.parametrize(
    ("lines", "read"),
    [
        (b"A: 1\r\nB : 2\r\n", b"A: 1\r\nB: 2\r\n"),
        (b"A: 1\nno colon here\nB: 2\n", b"A: 1\r\nB: 2\r\n"),
        (b"A: 1\r\n  more\r\n\tstill\r\nB: 2\r\n", b"A: 1 more still\r\nB: 2\r\n"),
        (b" before the first\r\nA: 1\r\n", b"A: 1\r\n"),
        (b"A: x\ry\0z\r\n", b"A: x y z\r\n"),
        (b": no name\r\na name: x\r\nN\xc3: x\r\nA:\r\n", b"A:\r\n"),
    ],
)
def test_malformed_lines_do_not_spoil_the_others(lines: bytes, read: bytes) -> None:
    assert read_head(BytesIO(OK + lines + b"\r\nbody")) == OK + read + b"\r\n"


def test_what_matters_is_kept_of_any_number_of_lines() -> None:
    many = b"".join(b"X-%d: y\r\n" % number for number in range(500))
    head = read_head(BytesIO(OK + many + b"Content-Type: text/html\r\nLocation: /a\r\n\r\n"))
    assert head.count(b"\r\n") == 100
    assert b"\r\nContent-Type: text/html\r\nLocation: /a\r\n" in head
    assert read_head(BytesIO(b"")) == b""


@pytest.mark.parametrize("status", [100, 102, 103, 199])
def test_interim_answers_are_skipped(
    raw: Callable[[bytes], str], settings: FetchSettings, status: int
) -> None:
    interim = b"HTTP/1.1 %d Wait\r\nLink: </a.css>\r\nContent-Length: 5\r\n\r\n" % status
    final = b"HTTP/1.1 200 OK\r\nContent-Type: text/html\r\nContent-Length: 4\r\n\r\nbody"
    fetched = get(raw(interim * 3 + final), settings)
    assert (fetched.data, fetched.mime_type, fetched.meta) == (
        b"body",
        "text/html",
        {"status": 200},
    )


def test_a_malformed_line_hides_no_encoding_and_no_chunks(
    raw: Callable[[bytes], str], settings: FetchSettings
) -> None:
    packed = gzip.compress(PAGE)
    chunks = b"%x\r\n%s\r\n0\r\n\r\n" % (len(packed), packed)
    head = b"nonsense\r\nX : y\r\nContent-Encoding: gzip\r\nTransfer-Encoding: chunked\r\n\r\n"
    assert get(raw(OK + head + chunks), settings).data == PAGE


@pytest.mark.parametrize("coding", ["UTF-8", "none", "identity", "ISO-8859-1, none", "gzip, utf-8"])
def test_an_unknown_encoding_is_ignored_where_the_bytes_make_sense(
    site: Site, settings: FetchSettings, coding: str
) -> None:
    body = gzip.compress(PAGE) if "gzip" in coding else PAGE
    url = site.add("/a", body, headers={"Content-Encoding": coding})
    assert get(url, settings).data == PAGE


# Content-Type and Content-Disposition --------------------------------------------------------


@pytest.mark.parametrize(
    ("values", "found"),
    [
        ([], (None, None)),
        (["text/html"], ("text/html", None)),
        (["Text/HTML;Charset=UTF-8"], ("text/html", "UTF-8")),
        (['text/html; charset="koi8-r"; x=y'], ("text/html", "koi8-r")),
        (["text/html; charset='utf-8'"], ("text/html", "utf-8")),
        (['text/html; x="; charset=koi8-r"; charset=utf-8'], ("text/html", "utf-8")),
        (["text/html; charset=utf-8; charset=koi8-r"], ("text/html", "utf-8")),
        (["text/plain; charset=koi8-r", "text/html"], ("text/html", None)),
        (["text/html; charset=koi8-r", "text/html"], ("text/html", "koi8-r")),
        (["text/html; charset=koi8-r, text/html; charset=utf-8"], ("text/html", "utf-8")),
        (['text/html; x="a,b/c", */*'], ("text/html", None)),
        (["html"], (None, None)),
        (["*/*"], (None, None)),
        (['"text/html"'], (None, None)),
        (["text/html charset=utf-8"], (None, None)),
        (["text/html, text"], ("text/html", None)),
        (["", "application/pdf", ";"], ("application/pdf", None)),
    ],
)
def test_the_type_is_extracted_as_the_standard_says(
    values: list[str], found: tuple[str | None, str | None]
) -> None:
    assert content_type(values) == found


@pytest.mark.parametrize(
    ("header", "name"),
    [
        ("attachment; filename=a.csv", "a.csv"),
        ('attachment; filename="a b; c.csv"; x=y', "a b; c.csv"),
        ('inline; FileName="a\\"b.csv"', 'a"b.csv'),
        ("attachment; filename=x.bin; filename*=UTF-8''%e2%82%ac%20rates.csv", "€ rates.csv"),
        ("attachment; filename*=iso-8859-1'en'%A3.csv", "£.csv"),
        ("attachment; filename*=nonsense''%A3.csv; filename=b.csv", "b.csv"),
        ("attachment; filename=" + "größe.csv".encode().decode("latin-1"), "größe.csv"),
        ("attachment; filename=a%20b.csv", "a b.csv"),
        ('attachment; filename="..\\..\\a.csv"', "a.csv"),
        ("attachment; filename=/etc/passwd", "passwd"),
        ('attachment; filename="a\u202ecsv.exe"', "acsv.exe"),
        ("attachment", None),
        ("attachment; filename=..", None),
        ("", None),
    ],
)
def test_a_file_is_named_by_its_disposition(header: str, name: str | None) -> None:
    assert file_name(header) == name


def test_the_name_of_a_download_gives_its_type_and_its_title(app: App, site: Site) -> None:
    headers = {"Content-Disposition": 'attachment; filename="tides 2024.csv"'}
    url = site.add("/get", b"a,b\n1,2\n", "application/octet-stream", headers=headers)
    [item] = app.enqueue("fetch", url).items
    assert (item.title, item.mime_type) == ("tides 2024.csv", "text/csv")
    assert app.enqueue("extract", item.id).items[0].title == "tides 2024.csv"


# Cookies -------------------------------------------------------------------------------------


def test_a_redirect_may_set_a_cookie_and_lead_back(site: Site, settings: FetchSettings) -> None:
    def gate(visit: Visit, _: str) -> None:
        if visit.headers["Cookie"] == "seen=yes":
            visit.answer()
        else:
            visit.answer(b"", status=302, headers={"Location": "/check"})

    def check(visit: Visit, _: str) -> None:
        headers = {"Location": "/gate", "Set-Cookie": "seen=yes; Path=/"}
        visit.answer(b"", status=302, headers=headers)

    site.on("/gate", gate)
    site.on("/check", check)
    assert get(site.url("/gate"), settings).data == PAGE
    site.on("/gate", check)
    with pytest.raises(PermanentError, match=r"redirected more than 5 times"):
        get(site.url("/gate"), settings)
    # Nothing is kept for another fetch.
    site.on("/gate", lambda visit, _: visit.answer())
    get(site.url("/gate"), settings)
    assert site.requests[-1].headers["Cookie"] is None


def test_cookies_survive_the_wait_for_a_slot(tmp_path: Path, site: Site) -> None:
    def gate(visit: Visit, _: str) -> None:
        if visit.headers["Cookie"]:
            visit.answer()
        else:
            headers = {"Location": "/gate?again", "Set-Cookie": "seen=yes"}
            visit.answer(b"", status=302, headers=headers)

    site.on("/gate", gate)
    options = {"fetch.allow_private_addresses": True, "fetch.host_delay": 0.05}
    with paise2nb.open("test", tmp_path / "data", options) as app:
        [item] = app.enqueue("fetch", site.url("/gate")).wait(timeout=30).items
        assert item.title == "A small page"


# Refresh -------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("value", "target"),
    [
        ("0; url=/a", "/a"),
        ("0;URL='/a b' trailing", "/a b"),
        (' 5 , url = "/a"', "/a"),
        ("0.5; /a", "/a"),
        ("3 url=/a", "/a"),
        ("0; url=/a?url=/b", "/a?url=/b"),
        ("300; url=/a", None),
        ("5", None),
        ("0;", None),
        ("x; url=/a", None),
        (f"{'9' * 5000}; url=/a", None),
    ],
)
def test_a_refresh_is_read_as_the_standard_says(value: str, target: str | None) -> None:
    assert refresh_target(value, b"") == target
    page = f"<html><meta content='{value}' http-equiv=Refresh>".replace(
        "'/a b'", "&apos;/a b&apos;"
    )
    assert refresh_target(None, page.encode()) == target


LONG = b"<p>" + b"There is enough to read here. " * 20


@pytest.mark.parametrize(
    ("page", "is_followed"),
    [
        (b"<!-- %s -->", False),
        (b"<script>'%s'</script>", False),
        (b"<template>%s</template>", False),
        (b"<noscript>%s</noscript>", True),
        (b"<noscript>%s</noscript>" + LONG, False),
        (b"%s" + LONG, True),
    ],
)
def test_a_refresh_counts_where_browsers_see_it(page: bytes, is_followed: bool) -> None:
    found = refresh_target(None, page % b"<meta http-equiv=refresh content='0; url=/a'>")
    assert found == ("/a" if is_followed else None)


def meta(target: str) -> bytes:
    return f"<html><meta http-equiv=refresh content='0; url={target}'>Moved.</html>".encode()


def test_a_refresh_is_followed_within_the_limits_of_redirects(
    site: Site, settings: FetchSettings
) -> None:
    moved = site.add("/moved", b"", headers={"Refresh": "0; url=/ok"})
    assert get(moved, settings).url == site.url("/ok")
    assert get(site.add("/page", meta("ok")), settings).url == site.url("/ok")
    assert get(site.add("/to-other", meta("/moved")), settings).url == site.url("/ok")
    for number in range(9):
        site.add(f"/hop/{number}", meta(f"/hop/{number + 1}"))
    with pytest.raises(PermanentError, match=r"redirected more than 5 times"):
        get(site.url("/hop/0"), settings)


@pytest.mark.parametrize(
    "target", ["/self", "/self#part", "file:///etc/passwd", "javascript:alert(1)", "ftp://a/", ""]
)
def test_a_refresh_that_leads_nowhere_else_leaves_the_page(
    site: Site, settings: FetchSettings, target: str
) -> None:
    url = site.add("/self", meta(target))
    assert get(url, settings).data == meta(target)


def test_a_refresh_leads_to_no_private_address(site: Site, settings: FetchSettings) -> None:
    url = site.add("/self", meta("http://127.0.0.1:9/")).replace("127.0.0.1", "127.0.0.2")
    limited = replace(settings, allow_private_addresses=False)
    with pytest.raises(PermanentError, match="not a public address"):
        get(url, limited)


# Cut off -------------------------------------------------------------------------------------

BROKEN = [
    b"Content-Length: 9999\r\n\r\n" + PAGE,
    b"Transfer-Encoding: chunked\r\n\r\n%x\r\n%s\r\n" % (len(PAGE), PAGE),
    b"Transfer-Encoding: chunked\r\n\r\n%x\r\n%s" % (len(PAGE) + 50, PAGE),
    b"Content-Encoding: gzip\r\nContent-Length: 999\r\n\r\n" + gzip.compress(PAGE),
]


@pytest.mark.parametrize("answer", BROKEN)
def test_what_came_of_a_page_is_kept_and_marked(
    raw: Callable[[bytes], str], settings: FetchSettings, answer: bytes
) -> None:
    head = OK + b'Content-Type: text/html\r\nETag: "1"\r\nLast-Modified: x\r\n'
    fetched = get(raw(head + answer), settings)
    assert fetched.data == PAGE
    assert fetched.meta == {"status": 200, "truncated": True}


def test_nothing_at_all_is_no_page(raw: Callable[[bytes], str], settings: FetchSettings) -> None:
    for answer in (b"Content-Length: 9\r\n\r\n", b"Transfer-Encoding: chunked\r\n\r\n"):
        with pytest.raises(TransientError, match=r"cut off|connection failed"):
            get(raw(OK + answer), settings)


def test_a_truncated_page_is_stored_and_a_truncated_document_tried_again(
    app: App, site: Site
) -> None:
    job = app.enqueue("fetch", site.url("/cut"))
    assert (job.attempt, len(job.items)) == (1, 1)
    assert job.items[0].metadata["source"]["truncated"] is True
    assert "truncated: the server sent only a part" in str(job.items[0])
    site.add(
        "/a.bin",
        b"%PDF-1.4 \0\1",
        "application/pdf",
        headers={"Content-Length": "99", "Connection": "close"},
    )
    job = app.enqueue("fetch", site.url("/a.bin"))
    assert [attempt["outcome"] for attempt in job.attempts] == ["failed", "completed"]
    assert json.loads(json.dumps(job.result(timeout=0)))["truncated"] is True


# URLs ----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("given", "sent"),
    [
        ("/a[1]?b[]=c", "/a[1]?b[]=c"),
        ("/100%", "/100%"),
        ("/50%25%zz", "/50%25%zz"),
        ("/x|y z?q=a|b c", "/x%7Cy%20z?q=a%7Cb%20c"),
        ("/(a)'b'!$&*+,;=:@~", "/(a)'b'!$&*+,;=:@~"),
        ("/ü/%c3%bc", "/%C3%BC/%c3%bc"),
        ("/a//b/../c", "/a//b/../c"),
    ],
)
def test_a_url_goes_out_as_the_user_gave_it(
    site: Site, settings: FetchSettings, given: str, sent: str
) -> None:
    with suppress(PermanentError):  # what matters is what the site was asked for
        get(site.url("") + given, settings)
    assert site.requests[-1].path == sent


@pytest.mark.parametrize(
    ("host", "sent"),
    [
        ("made-up-.example", "made-up-.example"),
        ("i❤.example", "xn--i-7iq.example"),
        ("💩.example", "xn--ls8h.example"),
        ("r3---sn-x.example", "r3---sn-x.example"),
        ("BÜCHER.example", "xn--bcher-kva.example"),
        ("例え。テスト", "xn--r8jz45g.xn--zckzah"),
    ],
)
def test_hosts_that_browsers_load_are_hosts(host: str, sent: str) -> None:
    assert parse(f"http://{host}/").host == sent
