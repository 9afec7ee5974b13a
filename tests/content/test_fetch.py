"""URLs, HTTP and files: what is fetched, what is refused, and the error class of each failure."""

from __future__ import annotations

import os
import shutil
import socket
import ssl
import subprocess
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import replace
from email.utils import formatdate
from functools import partial
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any
from urllib.request import urlopen

import pytest

from paise2nb.config.settings import FetchSettings, Settings
from paise2nb.content.fetch import read_file, robots
from paise2nb.content.fetch.http import LONGEST_PAUSE, get, retry_after
from paise2nb.content.fetch.network import is_public
from paise2nb.core.errors import PermanentError, Snoozed, TaskError, TransientError
from paise2nb.core.urls import canonical_url, parse, suffix_of, without_credentials
from paise2nb.plugins import Fetched
from tests.site import PACKERS, PAGE, Server, Site, Visit


@pytest.fixture
def settings() -> FetchSettings:
    return replace(Settings.resolve("test").fetch, allow_private_addresses=True, timeout=20.0)


# URLs ----------------------------------------------------------------------------------------

SAME = [
    ("HTTP://Example.ORG/a", "http://example.org/a"),
    ("http://example.org", "http://example.org/"),
    ("http://example.org:80/", "http://example.org/"),
    ("https://example.org:443/", "https://example.org/"),
    ("https://example.org:80/", "https://example.org:80/"),
    ("http://example.org./", "http://example.org/"),
    ("http://example.org/a#part", "http://example.org/a"),
    ("http://example.org/?", "http://example.org/"),
    ("http://example.org/a/./b/../c", "http://example.org/a/c"),
    ("http://example.org/../../a", "http://example.org/a"),
    ("http://example.org/a/..", "http://example.org/"),
    ("http://example.org/a/b/.", "http://example.org/a/b/"),
    ("http://example.org/%2e%2e/a", "http://example.org/a"),
    ("http://example.org/%7euser/%c3%a9", "http://example.org/~user/%C3%A9"),
    ("http://example.org/é", "http://example.org/%C3%A9"),
    ("http://example.org/a b", "http://example.org/a%20b"),
    ("http://example.org/a%2Fb", "http://example.org/a%2Fb"),
    ("http://example.org/a;x=1?b=2&a=1", "http://example.org/a;x=1?b=2&a=1"),
    ("http://example.org/?utm_source=x&id=7&UTM_Medium=y", "http://example.org/?id=7"),
    ("http://example.org/?fbclid=1&gclid=2&mc_eid=3", "http://example.org/"),
    ("http://example.org/?q=a+b&&page=2", "http://example.org/?q=a+b&page=2"),
    ("http://user:secret@example.org/", "http://example.org/"),
    ("http://bücher.example/", "http://xn--bcher-kva.example/"),
    ("http://faß.example/", "http://xn--fa-hia.example/"),
    ("http://[2001:DB8:0:0::1]/", "http://[2001:db8::1]/"),
    ("http://3221225985/", "http://192.0.2.1/"),
    ("http://0xC0.0.0x201./", "http://192.0.2.1/"),
    ("file:///a/b/../c%20d.txt", "file:///a/c%20d.txt"),
    ("/a/b/../c d.txt", "file:///a/c%20d.txt"),
    ("gopher://example.org/1/A", "gopher://example.org/1/A"),
]  # fmt: skip


@pytest.mark.parametrize(("spelling", "canonical"), SAME)
def test_all_spellings_of_a_url_have_one_key(spelling: str, canonical: str) -> None:
    assert canonical_url(spelling) == canonical
    assert canonical_url(canonical) == canonical


@pytest.mark.parametrize(
    ("url", "reason"),
    [
        ("http://", "the host is missing"),
        ("http:///path", "the host is missing"),
        ("http://exa mple.org/", "the host is not a valid name"),
        ("http://example.org:99999/", "the port is not a number from 1 to 65535"),
        ("http://example.org:port/", "the port is not a number from 1 to 65535"),
        ("http://example.org:0/", "the port is not a number from 1 to 65535"),
        ("http://[::1/", "the host is not a valid name"),
        ("http://-.org/", "the host is not a valid name"),
        ("http://a..b/", "the host is not a valid name"),
        ("http://192.0.2.256/", "the host is not a valid name"),
        ("http://example.09/", "the host is not a valid name"),
        ("http://[fe80::1%eth0]/", "the host is not a valid name"),
        ("http://example.org/\ud800", "it contains control characters"),
        ("http://example.org/\r\nX-Evil: 1", "it contains control characters"),
        ("http://ex\u200eample.org/", "the host is not a valid name"),
        ("ftp://example.org/", "ftp scheme where http or https was expected"),
    ],
)
def test_an_invalid_url_is_refused_with_the_reason(url: str, reason: str) -> None:
    with pytest.raises(ValueError, match=f"^{reason}$"):
        parse(url)


@pytest.mark.parametrize(
    ("url", "shown"),
    [
        ("http://user:secret@example.org/a@b", "http://example.org/a@b"),
        ("http://a@b:secret@example.org?x=@", "http://example.org?x=@"),
        ("http://example.org/a@b", "http://example.org/a@b"),
        ("/a@b", "/a@b"),
    ],
)
def test_credentials_are_never_shown(url: str, shown: str) -> None:
    assert without_credentials(url) == shown


def test_the_suffix_is_that_of_the_path() -> None:
    assert suffix_of("http://example.org/a.PDF?x=y.html#z.txt") == ".pdf"
    assert suffix_of("http://example.org/") == ""


# Good answers --------------------------------------------------------------------------------


def test_a_page_has_the_facts_that_the_server_sent(site: Site, settings: FetchSettings) -> None:
    url = site.add(
        "/page",
        b"Gr\xfc\xdfe",
        'text/HTML ; charset="ISO-8859-1"',
        headers={"ETag": '"1"', "Last-Modified": "Mon, 05 Jan 2026 10:00:00 GMT"},
    )
    fetched = get(url, settings)
    assert fetched.data == b"Gr\xfc\xdfe"
    assert (fetched.url, fetched.mime_type, fetched.charset) == (url, "text/html", "ISO-8859-1")
    assert fetched.meta == {
        "status": 200,
        "etag": '"1"',
        "last_modified": "Mon, 05 Jan 2026 10:00:00 GMT",
    }


def test_a_page_without_a_type_has_none(site: Site, settings: FetchSettings) -> None:
    fetched = get(site.add("/page", b"words", None), settings)
    assert (fetched.data, fetched.mime_type, fetched.charset) == (b"words", None, None)


def test_requests_have_a_user_agent_and_accept_known_encodings(
    site: Site, settings: FetchSettings
) -> None:
    get(site.url(), settings)
    get(site.url(), replace(settings, user_agent="someone/1"))
    first, second = (request.headers for request in site.requests)
    assert first["User-Agent"].startswith("paise2nb/")
    assert second["User-Agent"] == "someone/1"
    assert first["Host"] == f"127.0.0.1:{site.port}"
    assert first["Accept-Encoding"] == "gzip,deflate,br,zstd"


def test_the_path_is_requested_as_given(site: Site, settings: FetchSettings) -> None:
    site.add("/a/%C3%BC/x")
    get(site.url("/a/ü/x?utm_source=b c#part"), settings)
    assert site.requests[0].path == "/a/%C3%BC/x?utm_source=b%20c"


@pytest.mark.parametrize("encoding", PACKERS)
def test_compressed_pages_are_decoded(site: Site, settings: FetchSettings, encoding: str) -> None:
    url = site.add("/page", PACKERS[encoding](PAGE), headers={"Content-Encoding": encoding})
    assert get(url, settings).data == PAGE


def test_a_known_answer_makes_the_request_conditional(site: Site, settings: FetchSettings) -> None:
    def answer(visit: Visit, argument: str) -> None:
        if visit.headers["If-None-Match"] == '"7"':
            visit.begin(None, status=304)
        else:
            visit.answer(headers={"ETag": '"7"', "Last-Modified": "Thu, 01 Jan 2026 00:00:00 GMT"})

    url = site.on("/page", answer)
    first = get(url, settings)
    known = {**first.meta, "final_url": first.url}
    again = get(site.url("/to?url=/page"), settings, known=known)
    assert (again.data, again.meta, again.url) == (b"", {"status": 304}, url)
    asked = [(r.path, r.headers["If-None-Match"]) for r in site.requests[1:]]
    assert asked == [("/to?url=/page", None), ("/page", '"7"')]
    assert site.requests[-1].headers["If-Modified-Since"] == "Thu, 01 Jan 2026 00:00:00 GMT"
    assert get(url, settings, known={"final_url": url}).data == PAGE  # nothing to compare


def test_only_the_first_bytes_are_read_if_asked_for(site: Site, settings: FetchSettings) -> None:
    assert len(get(site.url("/endless"), settings, read_bytes=1000).data) == 1000
    assert get(site.url("/ok"), settings, read_bytes=10**6).data == PAGE


def test_connections_are_reused(site: Site, settings: FetchSettings) -> None:
    ports = []
    url = site.on(
        "/page", lambda visit, _: (ports.append(visit.client_address[1]), visit.answer())[1]
    )
    missing = site.url("/nothing")
    get(url, settings)
    with pytest.raises(PermanentError):
        get(missing, settings)
    get(url, settings)
    assert len(set(ports)) == 1


def test_a_connection_that_the_server_closed_meanwhile_is_replaced(
    site: Site, settings: FetchSettings
) -> None:
    def close_after_answer(visit: Visit, argument: str) -> None:
        visit.answer()  # keeps the connection, but closes it at the next request
        visit.server.site.on("/page", hang_up_once)

    def hang_up_once(visit: Visit, argument: str) -> None:
        visit.server.site.add("/page")
        visit.close_connection = True

    url = site.on("/page", close_after_answer)
    get(url, settings)
    assert get(url, settings).data == PAGE
    assert len(site.requests) == 3


def test_proxies_of_the_environment_are_not_used_by_default(
    site: Site, settings: FetchSettings, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("http_proxy", "HTTP_PROXY", "all_proxy", "ALL_PROXY"):
        monkeypatch.setenv(name, "http://127.0.0.1:9")
    assert get(site.url(), settings).data == PAGE


def test_sixteen_threads_share_the_connections(settings: FetchSettings) -> None:
    with Site("0.0.0.0") as site:
        urls = [site.url("/ok", f"127.0.0.{n % 8 + 1}") for n in range(160)]
        answers: list[bytes] = []
        threads = [
            threading.Thread(
                target=lambda mine=urls[n::16]: answers.extend(get(u, settings).data for u in mine)
            )
            for n in range(16)
        ]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert answers == [PAGE] * 160


# Redirects -----------------------------------------------------------------------------------


@pytest.mark.parametrize("status", [301, 302, 303, 307, 308])
def test_redirects_are_followed(site: Site, settings: FetchSettings, status: int) -> None:
    fetched = get(site.url(f"/to?url=/ok%23part&status={status}"), settings)
    assert (fetched.data, fetched.url) == (PAGE, site.url("/ok"))


def test_the_number_of_redirects_is_limited(site: Site, settings: FetchSettings) -> None:
    assert get(site.url("/redirect/5"), settings).data == PAGE
    with pytest.raises(PermanentError, match="more than 5 times") as caught:
        get(site.url("/redirect/6"), settings)
    assert caught.value.error_class == "redirects"
    with pytest.raises(PermanentError, match="more than 0 times"):
        get(site.url("/redirect/1"), replace(settings, max_redirects=0))


def test_a_redirect_may_be_in_utf_8(site: Site, settings: FetchSettings) -> None:
    site.add("/gr%C3%BC%C3%9Fe", b"hello", "text/plain")

    def answer(visit: Visit, argument: str) -> None:
        visit.answer(b"", status=302, headers={"Location": "/grüße".encode().decode("latin-1")})

    assert get(site.on("/page", answer), settings).data == b"hello"


def test_a_password_is_sent_to_its_origin_only(site: Site, settings: FetchSettings) -> None:
    with Site() as other:
        url = site.url(f"/to?url={other.url('/ok')}").replace("//", "//ada:l%3Avelace@", 1)
        fetched = get(url, settings)
        assert site.requests[0].headers["Authorization"] == "Basic YWRhOmw6dmVsYWNl"
        assert other.requests[0].headers["Authorization"] is None
    assert get(site.url("/ok").replace("//", "//ada:x@"), settings).url == site.url("/ok")
    assert "lace" not in fetched.url


# Failures ------------------------------------------------------------------------------------

T, P = TransientError, PermanentError
FAILURES = [
    ("/status/400", P, "http_4xx", "400 Bad Request: http"),
    ("/status/404", P, "http_4xx", "404 Not Found: http"),
    ("/status/410", P, "http_4xx", "410 Gone: http"),
    ("/status/451", P, "http_4xx", "451 Unavailable For Legal Reasons: http"),
    ("/status/408", T, "timeout", "408 Request Timeout: http"),
    ("/status/425", T, "timeout", "425 Too Early: http"),
    ("/status/429", T, "throttled", "429 Too Many Requests: http"),
    ("/status/500", T, "http_5xx", "500 Internal Server Error: http"),
    ("/status/503", T, "http_5xx", "503 Service Unavailable: http"),
    ("/status/503?after=7", T, "throttled", "503 Service Unavailable: http"),
    ("/status/304", P, "redirects", "304 Not Modified: http"),
    ("/status/300", P, "redirects", "300 Multiple Choices: http"),
    ("/status/302", P, "redirects", "302 Found without a Location header: http"),
    ("/loop", P, "redirects", "redirected in a circle: http"),
    ("/to?url=file:///etc/passwd", P, "blocked", "redirected to file:///etc/passwd, which"),
    ("/to?url=ftp://example.org/", P, "blocked", "redirected to ftp://example.org/, which"),
    ("/to?url=http://[x/", P, "bad_address", "not a URL that can be fetched"),
    ("/to?url=http://example.org:0/", P, "bad_address", "not a URL that can be fetched"),
    ("/close", T, "connection", "the connection failed"),
    ("/damaged", T, "connection", "the compressed answer is damaged: http"),
    ("/unasked", P, "unsupported", "sent in an encoding that was not asked for (sdch): http"),
    ("/bomb/br", P, "too_large", "larger than 20971520 bytes (fetch.max_bytes): http"),
    ("/bomb/zstd", P, "too_large", "larger than 20971520 bytes (fetch.max_bytes): http"),
    ("/hollow", P, "too_large", "more than 22020096 bytes on the wire: http"),
    ("/bomb", P, "too_large", "larger than 20971520 bytes (fetch.max_bytes): http"),
    ("/endless", P, "too_large", "larger than 20971520 bytes (fetch.max_bytes): http"),
]  # fmt: skip


@pytest.mark.parametrize(("path", "kind", "word", "message"), FAILURES)
def test_each_failure_has_its_error_class(
    site: Site,
    settings: FetchSettings,
    path: str,
    kind: type[TaskError],
    word: str,
    message: str,
) -> None:
    with pytest.raises(TaskError) as caught:
        get(site.url(path).replace("//", "//ada:secret@", 1), settings)
    assert type(caught.value) is kind
    assert caught.value.error_class == word
    assert str(caught.value).startswith(message)
    assert "secret" not in str(caught.value)


# robots.txt ------------------------------------------------------------------------------------


ROBOTS = b"""
User-agent: *
Disallow: /

User-agent: paise2nb
Disallow: /private
Allow: /private/but
Disallow: /*.pdf$
Crawl-delay: 2.5
"""


def check_rules(url: str, agent: str, settings: FetchSettings, directory: Path) -> float | None:
    fetch = partial(get, settings=settings, read_bytes=robots.MAX_BYTES)
    return robots.check(url, agent, directory, fetch)


@pytest.mark.parametrize(
    ("path", "allowed"),
    [
        ("/", True),
        ("/private/x", False),
        ("/private/but/this", True),
        ("/a.pdf", False),
        ("/a.pdf?x", True),
        ("/%70rivate", False),
        ("/robots.txt", True),
    ],
)
def test_the_rules_of_a_host_are_obeyed(
    site: Site, settings: FetchSettings, tmp_path: Path, path: str, allowed: bool
) -> None:
    site.add("/robots.txt", b"\xef\xbb\xbf" + ROBOTS, "text/plain")
    if allowed:
        delay = check_rules(site.url(path), "paise2nb/1", settings, tmp_path)
        assert delay == (None if path == "/robots.txt" else 2.5)
    else:
        with pytest.raises(
            PermanentError, match=r"robots\.txt disallows it, so .*: false"
        ) as caught:
            check_rules(site.url(path), "paise2nb/1", settings, tmp_path)
        assert caught.value.error_class == "robots"


GROUPS = """
User-Agent: *
Disallow: *.gif$
Disallow: /example/
Allow: /publications/

User-Agent: foobot
Disallow:/
Allow:/example/page.html
Allow:/example/allowed.gif

User-Agent: barbot
User-Agent: bazbot
Disallow: /example/page.html

User-Agent: quxbot
"""
LONGEST = "User-Agent: foobot\nAllow: /example/page/\nDisallow: /example/page/disallowed.gif"
STANDARD = [
    # RFC 9309, section 5.1: groups
    (GROUPS, "anybot", "/example/", False),
    (GROUPS, "anybot", "/x.gif", False),
    (GROUPS, "anybot", "/x.gif?size=1", True),
    (GROUPS, "anybot", "/publications/", True),
    (GROUPS, "foobot", "/", False),
    (GROUPS, "foobot", "/publications/", False),
    (GROUPS, "foobot", "/example/page.html", True),
    (GROUPS, "FooBot/2.1", "/example/allowed.gif", True),
    (GROUPS, "barbot", "/example/page.html", False),
    (GROUPS, "bazbot", "/example/page.html", False),
    (GROUPS, "bazbot", "/x.gif", True),
    (GROUPS, "quxbot", "/example/", True),
    # 5.2 and 2.2.2: the longest match, and a tie is free
    (LONGEST, "foobot", "/example/page/", True),
    (LONGEST, "foobot", "/example/page/disallowed.gif", False),
    ("User-agent: *\nDisallow: /a\nAllow: /a", "x", "/a", True),
    # 2.2.2: percent-encoding
    ("User-agent: *\nDisallow: /foo/bar?baz=quz", "x", "/foo/bar?baz=quz", False),
    ("User-agent: *\nDisallow: /foo/bar/ツ", "x", "/foo/bar/%E3%83%84", False),
    ("User-agent: *\nDisallow: /foo/bar/%E3%83%84", "x", "/foo/bar/%E3%83%84", False),
    ("User-agent: *\nDisallow: /foo/bar/%62%61%7A", "x", "/foo/bar/baz", False),
    # 2.2.3: special characters
    ("User-agent: * # everybody\nDisallow: /a # and so on", "x", "/a", False),
    ("User-agent: *\nDisallow: /this/*/exactly", "x", "/this/path/exactly", False),
    ("User-agent: *\nDisallow: /this/path/exactly$", "x", "/this/path/exactly/not", True),
    # 2.2.4 and 2.1: other records change nothing; names and line ends as they come
    ("Sitemap: /x.xml\r\nUSER-AGENT: *\rDISALLOW: /a", "x", "/a", False),
    ("User-agent: *\nDisallow: /\n", "x", "/a", False),
]  # fmt: skip


@pytest.mark.parametrize(("rules", "agent", "path", "allowed"), STANDARD)
def test_rules_follow_the_standard(
    site: Site, settings: FetchSettings, tmp_path: Path,
    rules: str, agent: str, path: str, allowed: bool,
) -> None:  # fmt: skip
    site.add("/robots.txt", rules.encode(), "text/plain")
    if allowed:
        check_rules(site.url(path), agent, settings, tmp_path)
    else:
        with pytest.raises(PermanentError, match="disallows it"):
            check_rules(site.url(path), agent, settings, tmp_path)


@pytest.mark.parametrize(
    ("path", "word"),
    [
        ("/status/404", None),
        ("/status/401", None),
        ("/loop", None),
        ("/redirect/3", None),
        ("/to?url=file:///etc/passwd", "blocked"),
        ("/status/500", "robots"),
        ("/status/503", "robots"),
        ("/status/429", "throttled"),
        ("/status/503?after=9", "throttled"),
        ("/close", "connection"),
        ("/to?url=/closed", "robots"),
    ],
)
def test_a_host_without_rules_allows_everything_and_a_failing_one_nothing(
    site: Site, settings: FetchSettings, tmp_path: Path, path: str, word: str | None
) -> None:
    site.add("/closed", b"User-agent: *\nDisallow: /", "text/plain")
    site.on("/robots.txt", lambda visit, _: visit.answer(status=302, headers={"Location": path}))
    if word is None:
        assert check_rules(site.url("/a"), "x", settings, tmp_path) == 0
    else:
        with pytest.raises(TaskError) as caught:
            check_rules(site.url("/a"), "x", settings, tmp_path)
        assert caught.value.error_class == word


def test_a_refusal_of_our_own_is_not_stored_as_a_host_without_rules(
    site: Site, settings: FetchSettings, tmp_path: Path
) -> None:
    site.add("/robots.txt", b"User-agent: *\nDisallow: /", "text/plain")
    careful = replace(settings, allow_private_addresses=False)
    with pytest.raises(PermanentError) as caught:
        check_rules(site.url("/a"), "x", careful, tmp_path)
    assert caught.value.error_class == "blocked"
    with pytest.raises(PermanentError, match="disallows it"):
        check_rules(site.url("/a"), "x", settings, tmp_path)


def test_rules_are_fetched_once_a_day_and_shared(
    site: Site, settings: FetchSettings, tmp_path: Path
) -> None:
    def check() -> None:
        check_rules(site.url("/a"), "x", settings, tmp_path)

    threads = [threading.Thread(target=check) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert site.visits["/robots.txt"] == 1
    (file,) = tmp_path.iterdir()
    os.utime(file, (time.time() - 86401,) * 2)
    check()
    assert site.visits["/robots.txt"] == 2
    robots.remove_expired(tmp_path)
    assert list(tmp_path.iterdir()) == [file]
    os.utime(file, (time.time() - 86401,) * 2)
    robots.remove_expired(tmp_path)
    assert list(tmp_path.iterdir()) == []


def test_threads_share_the_failure_of_a_request_for_rules(
    site: Site, settings: FetchSettings, tmp_path: Path
) -> None:
    site.on("/robots.txt", lambda visit, _: visit.server.site.closing.wait())
    impatient = replace(settings, timeout=2.0)
    together = threading.Barrier(8)

    def check() -> None:
        together.wait()
        check_rules(site.url("/a"), "x", impatient, tmp_path)

    with ThreadPoolExecutor(8) as pool:
        errors = [call.exception() for call in [pool.submit(check) for _ in range(8)]]
    assert [getattr(error, "error_class", error) for error in errors] == ["timeout"] * 8
    assert site.visits["/robots.txt"] == 1


def test_a_thread_that_waited_for_a_snoozed_request_asks_for_the_rules_itself(
    tmp_path: Path,
) -> None:
    delays: list[float | None] = []

    def again(_: object) -> None:
        """What such a thread does, at the first moment at which it may."""
        delays.append(robots.check(url, "x", tmp_path, lambda rules: Fetched(b"", rules)))

    def snoozed(_: str) -> Fetched:
        [waited] = robots._fetching.values()
        waited.add_done_callback(again)
        raise Snoozed("example.org", "[]")

    url = "https://example.org/a"
    with pytest.raises(Snoozed):
        robots.check(url, "x", tmp_path, snoozed)
    assert delays == [0]


def test_rules_that_are_replaced_or_removed_meanwhile_do_not_fail_a_cleanup(tmp_path: Path) -> None:
    (tmp_path / "partial").symlink_to("renamed since the directory was read")
    robots.remove_expired(tmp_path)


def test_a_server_that_failed_is_asked_again_soon(
    site: Site, settings: FetchSettings, tmp_path: Path
) -> None:
    site.on("/robots.txt", lambda visit, _: visit.answer(status=500))
    for _ in range(2):
        with pytest.raises(PermanentError, match="can't be fetched, the server fails"):
            check_rules(site.url("/a"), "x", settings, tmp_path)
    assert site.visits["/robots.txt"] == 1
    (file,) = tmp_path.iterdir()
    age = time.time() - file.stat().st_mtime
    assert 86400 - 300 <= age < 86400


def test_only_the_first_half_megabyte_of_rules_is_read(
    site: Site, settings: FetchSettings, tmp_path: Path
) -> None:
    def endless(visit: Visit, argument: str) -> None:
        visit.begin("text/plain")
        visit.wfile.write(b"User-agent: *\nDisallow: /private\n")
        while not visit.server.site.closing.is_set():
            visit.wfile.write(b"Disallow: /much/more\n" * 1000)

    site.on("/robots.txt", endless)
    assert check_rules(site.url("/a"), "x", settings, tmp_path) == 0
    with pytest.raises(PermanentError):
        check_rules(site.url("/private"), "x", settings, tmp_path)


# Limits ----------------------------------------------------------------------------------------


@pytest.mark.parametrize("path", ["/hang", "/drip", "/drip-headers", "/to?url=/drip"])
def test_the_timeout_is_for_the_whole_fetch(site: Site, settings: FetchSettings, path: str) -> None:
    started = time.monotonic()
    with pytest.raises(TransientError, match=r"no complete answer within 0\.3 s") as caught:
        get(site.url(path), replace(settings, timeout=0.3))
    assert caught.value.error_class == "timeout"
    assert time.monotonic() - started < 10


def test_a_refused_connection_is_a_connection_error(settings: FetchSettings) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        with pytest.raises(TransientError, match=r"no connection to .* refused") as caught:
            get(f"http://127.0.0.1:{taken.getsockname()[1]}/", settings)
    assert caught.value.error_class == "connection"


def test_an_unknown_host_is_a_dns_error(settings: FetchSettings) -> None:
    with pytest.raises(TransientError, match=r"nowhere\.invalid") as caught:
        get("http://nowhere.invalid/", settings)
    assert caught.value.error_class == "dns"


def test_a_declared_size_over_the_limit_fails_at_once(site: Site, settings: FetchSettings) -> None:
    url = site.add("/page", b"x" * 100)
    assert len(get(url, replace(settings, max_bytes=100)).data) == 100
    with pytest.raises(PermanentError, match="larger than 99 bytes"):
        get(url, replace(settings, max_bytes=99))


@pytest.mark.parametrize("encoding", ["gzip", "br", "zstd"])
def test_a_bomb_takes_no_memory(site: Site, settings: FetchSettings, encoding: str) -> None:
    import tracemalloc

    get_once: Callable[[], Any] = lambda: get(site.url(f"/bomb/{encoding}"), settings)  # noqa: E731
    with pytest.raises(PermanentError):
        get_once()
    tracemalloc.start()
    try:
        with pytest.raises(PermanentError):
            get_once()
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert peak < 3 * settings.max_bytes


@pytest.mark.parametrize(
    ("value", "seconds"),
    [
        (None, None),
        ("120", 120.0),
        ("0", 0.0),
        (formatdate(1000, usegmt=True), 0.0),
        ("999999999999", LONGEST_PAUSE),
        ("soon", None),
        ("-5", None),
        ("", None),
    ],
)
def test_retry_after_is_seconds_or_a_date(value: str | None, seconds: float | None) -> None:
    assert retry_after(value) == seconds


def test_retry_after_a_date_is_the_time_until_then() -> None:
    pause = retry_after(formatdate(time.time() + 3600, usegmt=True))
    assert pause is not None
    assert 0 < pause <= 3600


def test_a_throttled_error_carries_the_pause(site: Site, settings: FetchSettings) -> None:
    with pytest.raises(TransientError) as caught:
        get(site.url("/status/429?after=120"), settings)
    assert caught.value.retry_after == 120.0


# Where connections may go --------------------------------------------------------------------

PRIVATE = [
    "127.0.0.1", "127.1", "127.0.1", "127.255.255.254", "2130706433", "0x7f000001", "0x7f.1",
    "0177.0.0.1", "017700000001", "0.0.0.0", "0", "localhost", "LOCALHOST", "localhost.",
    "10.0.0.1", "172.16.0.1", "192.168.1.1", "169.254.169.254", "100.64.0.1", "192.0.2.1",
    "198.18.0.1", "224.0.0.1", "255.255.255.255", "240.0.0.1", "192.88.99.1",
    "[::1]", "[::]", "[::ffff:127.0.0.1]", "[::ffff:7f00:1]", "[::127.0.0.1]",
    "[64:ff9b::127.0.0.1]", "[64:ff9b:1::7f00:1]", "[2002:7f00:1::]", "[fe80::1]", "[fc00::1]",
    "[fec0::1]", "[ff02::1]", "[2001:db8::1]", "[2001::1]", "[100::1]", "[5f00::1]",
    "[2a00:1450::5efe:7f00:1]", "\uff11\uff12\uff17.0.0.1", "127\u30020\u30020\u30021",
    "\u24db\u24de\u24d2\u24d0lhost",
]  # fmt: skip


@pytest.mark.parametrize("host", PRIVATE)
def test_no_spelling_of_a_private_address_is_connected_to(
    settings: FetchSettings, host: str
) -> None:
    with Site("0.0.0.0") as canary:
        for url in (canary.url("/", host), canary.url("/", f"ada:secret@{host}")):
            with pytest.raises(TaskError) as caught:
                get(url, replace(settings, allow_private_addresses=False, timeout=5.0))
            assert caught.value.error_class in ("blocked", "dns")
        assert canary.requests == []


def test_a_refusal_names_the_address_and_the_setting(settings: FetchSettings) -> None:
    with pytest.raises(PermanentError) as caught:
        get("http://localhost/", replace(settings, allow_private_addresses=False))
    assert caught.value.error_class == "blocked"
    assert "is not a public address and fetch.allow_private_addresses is false" in str(caught.value)


@pytest.mark.parametrize(
    "address",
    ["8.8.8.8", "2606:4700:4700::1111", "::ffff:8.8.8.8", "64:ff9b::808:808", "2002:808:808::1"],
)
def test_public_addresses_are_public(address: str) -> None:
    assert is_public(address)


def test_a_name_is_resolved_only_once(
    site: Site, settings: FetchSettings, monkeypatch: pytest.MonkeyPatch
) -> None:
    resolved = []

    def rebinding(host: str, port: int, *args: Any, **named: Any) -> list[Any]:
        resolved.append(host)
        address = "127.0.0.1" if len(resolved) == 1 else "127.0.0.9"
        return [(socket.AF_INET, socket.SOCK_STREAM, 6, "", (address, port))]

    monkeypatch.setattr(socket, "getaddrinfo", rebinding)
    assert get(site.url("/ok", "rebinding.example"), settings).data == PAGE
    assert resolved == ["rebinding.example"]
    assert site.requests[0].headers["Host"] == f"rebinding.example:{site.port}"


def test_one_private_address_among_public_ones_is_refused(
    settings: FetchSettings, monkeypatch: pytest.MonkeyPatch
) -> None:
    def mixed(host: str, port: int, *args: Any, **named: Any) -> list[Any]:
        addresses = ("8.8.8.8", "127.0.0.1")
        return [(socket.AF_INET, socket.SOCK_STREAM, 6, "", (a, port)) for a in addresses]

    monkeypatch.setattr(socket, "getaddrinfo", mixed)
    with pytest.raises(PermanentError, match=r"mixed.example \(127\.0\.0\.1\)"):
        get("http://mixed.example/", replace(settings, allow_private_addresses=False))


def test_the_next_address_is_tried_if_one_does_not_answer(
    site: Site, settings: FetchSettings, monkeypatch: pytest.MonkeyPatch
) -> None:
    def several(host: str, port: int, *args: Any, **named: Any) -> list[Any]:
        return [
            (socket.AF_INET, socket.SOCK_STREAM, 6, "", (address, port))
            for address in ("127.0.0.9", "127.0.0.1")
        ]

    monkeypatch.setattr(socket, "getaddrinfo", several)
    assert get(site.url("/ok", "several.example"), settings).data == PAGE


# TLS -----------------------------------------------------------------------------------------


@pytest.fixture
def certificate(tmp_path: Path) -> Path:
    if shutil.which("openssl") is None:
        pytest.skip("machine: there is no openssl to make a certificate with")
    path = tmp_path / "certificate.pem"
    subprocess.run(
        ["openssl", "req", "-x509", "-newkey", "rsa:2048", "-nodes", "-days", "1",
         "-subj", "/CN=secure.example", "-addext", "subjectAltName=DNS:secure.example",
         "-keyout", path, "-out", tmp_path / "public.pem"],
        check=True, capture_output=True,
    )  # fmt: skip
    with path.open("ab") as file:
        file.write((tmp_path / "public.pem").read_bytes())
    return path


@pytest.fixture
def secure_site(site: Site, certificate: Path, monkeypatch: pytest.MonkeyPatch) -> Site:
    """The site under TLS as ``secure.example``. ``names`` are the names that clients asked for."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(certificate)
    names: list[str | None] = []
    context.sni_callback = lambda sock, name, _: names.append(name)
    site.server.names = names  # type: ignore[attr-defined]
    plain: Server = site.server
    plain.socket = context.wrap_socket(plain.socket, server_side=True)
    plain.handle_error = lambda *_: None  # type: ignore[method-assign]

    def resolver(host: str, port: int, *args: Any, **named: Any) -> list[Any]:
        return [(socket.AF_INET, socket.SOCK_STREAM, 6, "", ("127.0.0.1", port))]

    monkeypatch.setattr(socket, "getaddrinfo", resolver)
    return site


def test_the_server_name_and_the_certificate_are_those_of_the_host(
    secure_site: Site,
    settings: FetchSettings,
    certificate: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("SSL_CERT_FILE", str(certificate.with_name("public.pem")))
    url = f"https://secure.example:{secure_site.port}/ok"
    assert get(url, settings).data == PAGE
    assert secure_site.server.names == ["secure.example"]  # type: ignore[attr-defined]
    with pytest.raises(PermanentError, match="certificate is not valid") as caught:
        get(url.replace("secure.example", "other.example"), settings)
    assert caught.value.error_class == "tls"


def test_an_untrusted_certificate_is_refused(secure_site: Site, settings: FetchSettings) -> None:
    with pytest.raises(PermanentError, match="certificate is not valid") as caught:
        get(f"https://secure.example:{secure_site.port}/ok", settings)
    assert caught.value.error_class == "tls"
    assert secure_site.requests == []


# Proxies -------------------------------------------------------------------------------------


class Relay(BaseHTTPRequestHandler):
    """A proxy that answers every request with a page of one site."""

    server: Any

    def do_GET(self) -> None:
        self.server.requests.append((self.path, self.headers["Proxy-Authorization"]))
        with urlopen(self.server.site.url("/ok")) as answer:
            body = answer.read()
        self.send_response(200)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def do_CONNECT(self) -> None:
        self.server.requests.append((self.path, self.headers["Proxy-Authorization"]))
        if self.path.startswith("closed."):
            self.send_error(403)
            return
        self.send_response(200)
        self.end_headers()
        with socket.create_connection(("127.0.0.1", self.server.site.port)) as there:
            threading.Thread(target=self.copy, args=(there, self.connection), daemon=True).start()
            self.copy(self.connection, there)

    def copy(self, source: socket.socket, sink: socket.socket) -> None:
        with suppress(OSError):
            while data := source.recv(65536):
                sink.sendall(data)

    def log_message(self, format: str, *args: object) -> None:
        """The test report is the log."""


@pytest.fixture
def relay(site: Site, monkeypatch: pytest.MonkeyPatch) -> Iterator[Any]:
    for name in ("http_proxy", "https_proxy", "all_proxy", "no_proxy"):
        monkeypatch.delenv(name, raising=False)
        monkeypatch.delenv(name.upper(), raising=False)
    server: Any = ThreadingHTTPServer(("127.0.0.1", 0), Relay)
    server.daemon_threads = True
    server.site, server.requests = site, []
    server.url = f"http://ada:pass@127.0.0.1:{server.server_port}"
    threading.Thread(target=server.serve_forever, args=(0.02,), daemon=True).start()
    yield server
    server.shutdown()
    server.server_close()


ADA = "Basic YWRhOnBhc3M="


def test_a_configured_proxy_is_used_for_all_hosts(relay: Any, settings: FetchSettings) -> None:
    chosen = replace(settings, proxy=relay.url, allow_private_addresses=False)
    assert get("http://far.invalid/a?b#c", chosen).data == PAGE
    assert relay.requests == [("http://far.invalid/a?b", ADA)]
    with pytest.raises(TransientError, match="403") as caught:
        get("https://closed.invalid/", chosen)
    assert caught.value.error_class == "connection"
    relay.shutdown()
    relay.server_close()
    with pytest.raises(TransientError, match="no connection to 127"):
        get("http://another.invalid/", replace(chosen, proxy=relay.url + "/"))


def test_proxies_of_the_environment_are_used_if_configured(
    relay: Any, settings: FetchSettings, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("http_proxy", relay.url)
    monkeypatch.setenv("no_proxy", "127.0.0.1,.near.invalid")
    chosen = replace(settings, proxy="environment")
    assert get("http://far.invalid/", chosen).data == PAGE
    assert get(relay.site.url("/ok"), chosen).data == PAGE
    assert [path for path, _ in relay.requests] == ["http://far.invalid/"]
    monkeypatch.setenv("http_proxy", "socks5://127.0.0.1:9")
    with pytest.raises(PermanentError, match="socks5:// proxies can't be used"):
        get("http://far.invalid/", chosen)


def test_the_server_name_and_the_certificate_are_checked_through_a_proxy(
    relay: Any,
    secure_site: Site,
    settings: FetchSettings,
    certificate: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("SSL_CERT_FILE", str(certificate.with_name("public.pem")))
    chosen = replace(settings, proxy=relay.url)
    url = f"https://secure.example:{secure_site.port}/ok"
    assert get(url, chosen).data == PAGE
    assert secure_site.server.names == ["secure.example"]  # type: ignore[attr-defined]
    assert relay.requests == [(f"secure.example:{secure_site.port}", ADA)]
    with pytest.raises(PermanentError, match="certificate is not valid"):
        get(url.replace("secure.example", "other.example"), chosen)


@pytest.mark.parametrize("host", ["localhost", "127.1", "0x7f.1", "[::ffff:7f00:1]", "10.0.0.1"])
def test_private_addresses_are_refused_behind_a_proxy(
    relay: Any, settings: FetchSettings, host: str
) -> None:
    chosen = replace(settings, proxy=relay.url, allow_private_addresses=False)
    for url in (f"http://{host}/", f"https://{host}/"):
        with pytest.raises(PermanentError, match="is not a public address"):
            get(url, chosen)
    assert relay.requests == []


# Files ---------------------------------------------------------------------------------------


def test_a_file_is_read_with_its_modification_time(tmp_path: Path, settings: FetchSettings) -> None:
    path = tmp_path / "a b.txt"
    path.write_text("words")
    for name in (str(path), path.as_uri()):
        fetched = read_file(name, settings)
        assert (fetched.data, fetched.url, fetched.mime_type) == (b"words", path.as_uri(), None)
        assert fetched.meta == {"mtime_ns": path.stat().st_mtime_ns}


def test_the_error_of_an_unreadable_file_has_the_reason(
    tmp_path: Path, settings: FetchSettings
) -> None:
    pipe, large = tmp_path / "pipe", tmp_path / "large"
    os.mkfifo(pipe)
    large.write_bytes(b"x" * 11)
    cases = [
        (tmp_path / "missing", "not_found", "no such file"),
        (tmp_path, "unreadable", "not a regular file"),
        (pipe, "unreadable", "not a regular file"),
        (large, "too_large", "larger than 10 bytes"),
    ]
    for path, word, message in cases:
        with pytest.raises(PermanentError, match=message) as caught:
            read_file(str(path), replace(settings, max_bytes=10))
        assert caught.value.error_class == word
        assert str(path) in str(caught.value)


def test_a_file_on_another_host_is_refused(settings: FetchSettings) -> None:
    with pytest.raises(PermanentError, match="another host"):
        read_file("file://elsewhere/etc/passwd", settings)
