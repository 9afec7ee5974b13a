"""Pages behind a login: what a request carries, to whom, and how a missing login is noticed."""

from __future__ import annotations

import json
import os
import sqlite3
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any
from urllib.parse import urljoin

import pytest

import paise2nb
from paise2nb.app import App
from paise2nb.config.settings import FetchSettings, Settings
from paise2nb.content.fetch.login_page import leads_to_login
from paise2nb.content.fetch.logins import Session, login_hosts, logins_for
from paise2nb.core.errors import HomeOnly, SettingsError
from paise2nb.core.urls import parse
from paise2nb.plugins import Fetched
from tests.site import PAGE, Site, Visit

SECRET = "s3cr3t-of-the-session"
TOKEN = "t0k3n-of-the-user"
LATER = int(time.time()) + 10_000
MEMBERS = PAGE.replace(b"A small page", b"For members")
LOGIN = (
    b"<html><head><title>Welcome</title></head><body><form method=post action=/login>"
    b"<input name=user><input type='password' name=word></form></body></html>"
)

OpenApp = Callable[..., App]


def cookie_file(tmp_path: Path, *cookies: dict[str, Any]) -> Path:
    path = tmp_path / "cookies.json"
    default = {"name": "session", "value": SECRET, "domain": "127.0.0.1", "expires": LATER}
    path.write_text(json.dumps([{**default, **cookie} for cookie in cookies]))
    return path


def open_app(tmp_path: Path, profile: str = "test", **settings: Any) -> App:
    chosen = {f"fetch.{name}": value for name, value in settings.items()}
    chosen |= {"fetch.allow_private_addresses": True, "workers.retry.max_retries": 0}
    return paise2nb.open(profile, tmp_path / "data", chosen)


def members(visit: Visit, _: str) -> None:
    """A page for those with the cookie or the token. Others are sent to the login."""
    has_cookie = f"session={SECRET}" in (visit.headers["Cookie"] or "")
    if has_cookie or visit.headers["Authorization"] == f"Bearer {TOKEN}":
        visit.answer(MEMBERS)
    else:
        visit.answer(b"", status=302, headers={"Location": "/login?next=/members"})


@pytest.fixture
def club(site: Site) -> Site:
    """A site with a login."""
    site.on("/members", members)
    site.add("/login", LOGIN)
    return site


def secrets_of(site: Site, path: str = "") -> list[str]:
    """The cookies and secret headers that requests for a path had."""
    return [
        f"{name}: {value}"
        for request in site.requests
        if request.path.startswith(path)
        for name, value in request.headers.items()
        if name.lower() in ("cookie", "authorization", "x-key")
    ]


# Cookies -------------------------------------------------------------------------------------


def test_a_page_behind_a_login_is_stored_with_the_cookie(tmp_path: Path, club: Site) -> None:
    with open_app(tmp_path, cookies=cookie_file(tmp_path, {})) as app:
        [item] = app.enqueue("fetch", club.url("/members")).items
        assert item.title == "For members"
    # Other requests than that of the page need no login.
    assert secrets_of(club) == secrets_of(club, "/members") == [f"Cookie: session={SECRET}"]
    assert [request.path for request in club.requests] == ["/robots.txt", "/members"]


def test_an_expired_cookie_fails_with_the_words_that_help(tmp_path: Path, club: Site) -> None:
    path = cookie_file(tmp_path, {"expires": 1000})
    with open_app(tmp_path, cookies=path) as app:
        job = app.enqueue("fetch", club.url("/members"))
        assert (job.state, job.error_class, len(job.attempts)) == ("failed", "login", 1)
        assert job.error == (
            f"redirected to a login page ({club.url('/login?next=/members')}): "
            f"{club.url('/members')}; all cookies for 127.0.0.1 have expired: log in with a "
            f"browser and export its cookies to {path}"
        )
        [group] = app.status().failures
        assert "Log in with your browser" in str(group)
        assert len(app.items()) == 0
        # As soon as the file is changed.
        cookie_file(tmp_path, {})
        assert [item.title for item in app.enqueue("fetch", club.url("/members")).items] == [
            "For members"
        ]
    assert secrets_of(club) == [f"Cookie: session={SECRET}"]


@pytest.mark.parametrize("status", [401, 403])
def test_a_refusal_by_a_host_with_a_login_is_about_the_login(
    tmp_path: Path, site: Site, status: int
) -> None:
    with open_app(tmp_path, cookies=cookie_file(tmp_path, {})) as app:
        job = app.enqueue("fetch", site.url(f"/status/{status}"))
        assert job.error_class == "login"
        assert "the cookies for 127.0.0.1 were not accepted" in str(job.error)
        assert app.enqueue("fetch", site.url("/status/404")).error_class == "http_4xx"
        # A host without a login.
        job = app.enqueue("fetch", site.url(f"/status/{status}", host="localhost"))
        assert job.error_class == "http_4xx"


def test_a_missing_login_page_is_stored_where_there_is_no_login(tmp_path: Path, club: Site) -> None:
    club.add("/login", LOGIN.replace(b"<form", b"<p>Members log in here.</p><form"))
    with open_app(tmp_path) as app:
        assert len(app.enqueue("fetch", club.url("/members")).items) == 1


def test_a_redirect_to_another_host_takes_no_secret_along(
    tmp_path: Path, site: Site, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("CLUB_TOKEN", TOKEN)
    site.add("/there", headers={"Set-Cookie": "theirs=1"})
    there = site.url("/there", "localhost")
    headers = {"Location": there, "Set-Cookie": f"session={SECRET}; Path=/"}
    site.add("/away", b"", status=302, headers=headers)
    options = {"127.0.0.1": {"Authorization": "Bearer ${CLUB_TOKEN}", "X-Key": TOKEN}}
    with open_app(tmp_path, cookies=cookie_file(tmp_path, {}), headers=options) as app:
        assert len(app.enqueue("fetch", site.url("/away")).items) == 1
    assert len(secrets_of(site, "/away")) == 3
    assert secrets_of(site, "/there") == secrets_of(site, "/robots.txt") == []
    assert len(site.requests) == 4


def test_secure_cookies_and_other_paths_are_kept_off(tmp_path: Path, site: Site) -> None:
    cookies = [{"secure": True}, {"path": "/other"}, {"domain": "localhost"}, {"expires": 1000}]
    with open_app(tmp_path, cookies=cookie_file(tmp_path, *cookies)) as app:
        assert len(app.enqueue("fetch", site.url("/ok")).items) == 1
    assert secrets_of(site) == []


@pytest.mark.parametrize("content", [None, "no cookies\n"])
def test_a_file_of_cookies_that_can_not_be_read_fails_the_fetch_in_one_line(
    tmp_path: Path, site: Site, content: str | None
) -> None:
    path = tmp_path / "cookies.txt"
    if content is not None:
        path.write_text(content)
    with open_app(tmp_path, cookies=path) as app:
        job = app.enqueue("fetch", site.url())
        assert (job.state, job.error_class) == ("failed", "cookies")
        problem = "can't read the cookies file" if content is None else f"{path}, line 1: not a"
        assert str(job.error).startswith(problem)
    assert [request.path for request in site.requests] == ["/robots.txt"]


# Headers -------------------------------------------------------------------------------------


@pytest.fixture
def fetch() -> FetchSettings:
    return Settings.resolve("test").fetch


def sent(settings: FetchSettings, url: str, first: str | None = None) -> dict[str, str]:
    return dict(Session(settings).headers(parse(first or url), parse(url), {}))


def test_headers_are_for_a_host_or_for_all_below_one(fetch: FetchSettings) -> None:
    headers = {
        "*.example.org": {"X-A": "all", "X-B": "all"},
        "*.a.example.org": {"X-A": "below"},
        "B.a.Example.org": {"x-own": "own"},
        "::1": {"X-A": "v6"},
    }
    settings = replace(fetch, headers=headers)
    assert sent(settings, "https://example.org/") == {}
    assert sent(settings, "https://x.example.org/") == {"X-A": "all", "X-B": "all"}
    expected = {"X-A": "below", "X-B": "all", "x-own": "own"}
    assert sent(settings, "https://b.a.example.org./") == expected
    assert sent(settings, "https://badexample.org/") == {}
    assert sent(settings, "http://[::1]:8000/") == {"X-A": "v6"}


@pytest.mark.parametrize(
    ("url", "is_sent"),
    [
        ("https://host.example/", True),
        ("http://host.example/", False),
        ("http://localhost:8000/", True),
        ("http://x.localhost/", True),
        ("http://127.1.2.3/", True),
        ("http://[::1]/", True),
        ("http://10.0.0.1/", False),
        ("http://localhost.example/", False),
    ],
)
def test_authorization_is_sent_over_https_or_loopback(
    fetch: FetchSettings, url: str, is_sent: bool
) -> None:
    settings = replace(fetch, headers={parse(url).host: {"authorization": "Basic x", "X-Key": "y"}})
    assert sent(settings, url) == {"X-Key": "y"} | ({"authorization": "Basic x"} if is_sent else {})
    # A proxy on the way could read it.
    through = replace(settings, proxy="http://proxy.example")
    assert ("authorization" in sent(through, url)) == url.startswith("https")


@pytest.mark.parametrize(
    ("first", "url", "is_sent"),
    [
        ("https://a.example/", "https://a.example/x", True),
        ("http://a.example/", "https://a.example/", True),
        ("https://a.example/", "http://a.example/", False),
        ("https://a.example/", "https://a.example:8443/", False),
        ("https://other.example/", "https://a.example/", True),
        ("https://other.example/", "http://a.example/", False),
        ("http://other.example/", "http://a.example/", False),
        ("http://a.example/", "http://a.example/x", True),
    ],
)
def test_a_redirect_to_another_port_of_a_host_or_to_http_gets_no_headers(
    fetch: FetchSettings, first: str, url: str, is_sent: bool
) -> None:
    settings = replace(fetch, headers={"a.example": {"X-Key": "y"}})
    assert bool(sent(settings, url, first)) == is_sent


def test_values_come_from_the_environment(
    fetch: FetchSettings, monkeypatch: pytest.MonkeyPatch
) -> None:
    headers = {"a.example": {"Authorization": "Bearer ${A_TOKEN}:${B_TOKEN}", "X": "$1 {a} ${a-b}"}}
    settings = replace(fetch, headers=headers)
    monkeypatch.setenv("A_TOKEN", "one\n")
    monkeypatch.setenv("B_TOKEN", "zwölf")
    expected = {
        "Authorization": "Bearer one:" + "zwölf".encode().decode("latin-1"),
        "X": "$1 {a} ${a-b}",
    }
    assert sent(settings, "https://a.example/") == expected
    monkeypatch.setenv("B_TOKEN", os.fsdecode(b"no UTF-8: \xff"))
    assert sent(settings, "https://a.example/")["Authorization"] == "Bearer one:no UTF-8: \xff"
    monkeypatch.setenv("A_TOKEN", "s3cret\r\nX-Evil: 1")
    with pytest.raises(SettingsError, match="a control character") as error:
        sent(settings, "https://a.example/")
    assert "s3cret" not in str(error.value)
    monkeypatch.delenv("A_TOKEN")
    with pytest.raises(SettingsError, match="the environment variable A_TOKEN is not set"):
        sent(settings, "https://a.example/")
    assert sent(settings, "https://b.example/") == {}


def test_a_machine_without_the_login_of_a_host_gives_its_pages_back(
    fetch: FetchSettings, tmp_path: Path
) -> None:
    at_home = replace(
        fetch,
        headers={"A.example": {"X-Key": "y"}, "*.b.example": {"X-Key": "y"}},
        cookies=cookie_file(tmp_path, {"domain": ".c.example"}),
    )
    assert logins_for(at_home, "a.example") == {"a.example"}
    assert logins_for(at_home, "x.y.b.example") == {"*.b.example"}
    assert logins_for(at_home, "c.example") == {"c.example"}
    assert logins_for(at_home, "x.c.example") == {"*.c.example"}
    assert logins_for(at_home, "b.example") == logins_for(at_home, "d.example") == set()
    known = login_hosts(at_home)
    assert known == {"a.example", "*.b.example", "c.example", "*.c.example"}
    there = Session(replace(fetch, headers={host: {} for host in known}))
    for url in ("https://b.example/", "https://d.example/", "https://x.a.example/"):
        there.require_login(url)
    for url in ("https://a.example/", "https://x.b.example/", "https://x.c.example/"):
        with pytest.raises(HomeOnly, match="the login for"):
            there.require_login(url)
    Session(replace(fetch, headers={"a.example": {"X": "y"}})).require_login("https://a.example/")
    (tmp_path / "cookies.json").unlink()
    assert logins_for(at_home, "d.example") == {"the file of fetch.cookies"}


def test_a_missing_variable_fails_the_pages_of_its_host(tmp_path: Path, site: Site) -> None:
    headers = {"127.0.0.1": {"X-Key": "${NO_SUCH_VARIABLE}"}}
    with open_app(tmp_path, headers=headers) as app:
        job = app.enqueue("fetch", site.url())
        assert (job.state, job.error_class) == ("failed", "SettingsError")
        assert "the environment variable NO_SUCH_VARIABLE is not set" in str(job.error)
        assert len(app.enqueue("fetch", site.url(host="localhost")).items) == 1


def test_a_header_replaces_one_of_every_request(tmp_path: Path, club: Site) -> None:
    headers = {"127.0.0.1": {"user-agent": "mine", "Authorization": f"Bearer {TOKEN}"}}
    with open_app(tmp_path, headers=headers, robots=False) as app:
        [item] = app.enqueue("fetch", club.url("/members")).items
        assert item.title == "For members"
    assert club.requests[0].headers.get_all("User-Agent") == ["mine"]


# Login pages ---------------------------------------------------------------------------------

BOX = b"<form action=/login><input name=u><input type=password></form>"
ARTICLE = b"<html><title>Tides</title>%s<p>%s</p></html>" % (BOX, b"Long text. " * 300)
SHELL = b"<html><title>App</title><div id=app></div><script>var a = '<p>'</script></html>"
NAME_FIRST = b"<html><title>Hello</title><form><input type=email><button>Next</button></form>"
GREETING = b"<html><title>Sign in - Wiki</title><form><input TYPE=Password></form></html>"
AUTHORS = b"<html><title>How to log in</title><p>" + b"A long text about it. " * 100


LANDED = [
    ("x", "login", LOGIN, True),
    ("x", "users/sign_in", LOGIN, True),
    ("x", "wp-login.php?redirect_to=%2Fx", LOGIN, True),
    ("x", "accounts/login/?next=/x", ARTICLE, True),
    ("x", "welcome?return=https%3A%2F%2Fa.example%2Fx", LOGIN, True),
    ("x", "", GREETING, True),
    ("x", "//login.example/realms/a", LOGIN, True),
    ("x", "Login.aspx", SHELL, True),
    ("x", "//accounts.example/v3/id?continue=https://a.example/x", NAME_FIRST, True),
    ("x", "auth/realms/b?to=%2Fx", SHELL, True),
    ("x", "member.php?action=login", LOGIN, True),
    ("x", "", GREETING.replace(b"Sign in", "ログイン".encode()), True),
    # Other pages, though many have a login in their header.
    ("x", "x/", ARTICLE, False),
    ("x", "//www.a.example/x", ARTICLE, False),
    ("?p=5", "2026/tides", ARTICLE, False),
    ("?p=5", "blog/login-security-for-all", ARTICLE, False),
    ("x", "authors/x", ARTICLE, False),
    ("gone", "", ARTICLE, False),
    ("x", "x?session=5", SHELL, False),
    ("x", "y", SHELL, False),
    ("help/6", "help/login", AUTHORS, False),
    ("x", "consent?to=/x", b"<p>Cookies?</p>", False),
    ("login", "login/", LOGIN, False),
    ("member.php?action=login", "//www.a.example/member.php?action=login", LOGIN, False),
    ("x", "x/?ref=login", ARTICLE, False),
    ("x", "x/", ARTICLE.replace(b"Tides", "Входные двери".encode()), False),
    ("//accounts.example/x", "//accounts.example/y", ARTICLE, False),
    ("x", "en/x", b"<!-- %s -->%s" % (BOX, SHELL), False),
    ("x", "help", b"<script>%s</script>" % BOX, False),
]


@pytest.mark.parametrize(("asked", "landed", "page", "expected"), LANDED)
def test_a_login_page_is_told_from_other_pages(
    asked: str, landed: str, page: bytes, expected: bool
) -> None:
    chain = [urljoin("https://a.example/", url) for url in (asked, landed)]
    fetched = Fetched(page, chain[-1], "text/html")
    assert leads_to_login(chain, fetched) is expected
    assert leads_to_login(chain, replace(fetched, mime_type="application/pdf")) is False


@pytest.mark.parametrize(
    "piece", [b"<input ", b"<h1 ", b"<h1>log", b"<!--", b"<script", b"<", b">"]
)
def test_a_hostile_page_takes_no_long_time(piece: bytes) -> None:
    page = Fetched(piece * (1_000_000 // len(piece)), "https://a.example/login", "text/html")
    began = time.process_time()
    leads_to_login(["https://a.example/x", "https://a.example/login"], page)
    assert time.process_time() - began < 5


# Set-Cookie ----------------------------------------------------------------------------------


def entrance(visit: Visit, _: str) -> None:
    """Set a cookie, and send the client back; with it, show the page."""
    if "visited=" in (visit.headers["Cookie"] or ""):
        visit.answer()
    else:
        headers = {"Location": "/entrance?again", "Set-Cookie": f"visited={SECRET}; Max-Age=1000"}
        visit.answer(b"", status=302, headers=headers)


@pytest.mark.parametrize("keeps", [False, True])
def test_cookies_of_servers_last_for_one_fetch_unless_they_are_kept(
    tmp_path: Path, site: Site, keeps: bool
) -> None:
    site.on("/entrance", entrance)
    with open_app(tmp_path, keep_cookies=keeps, robots=False) as app:
        for _ in range(2):
            assert app.enqueue("fetch", site.url("/entrance"), force=True).state != "failed"
        assert len(site.requests) == (3 if keeps else 4)
        file = tmp_path / "data" / "cookies.db"
        assert file.exists() == keeps
        if keeps:
            assert file.stat().st_mode & 0o777 == 0o600
            app.enqueue("cleanup")
            assert SECRET.encode() in file.read_bytes()
        app.reset(hard=True)
        assert not file.exists()


def test_cookies_of_a_file_that_is_newer_count_more_than_kept_ones(
    tmp_path: Path, site: Site
) -> None:
    site.add("/ok", headers={"Set-Cookie": "session=changed; Path=/; Max-Age=1000"})
    path = cookie_file(tmp_path, {})
    with open_app(tmp_path, keep_cookies=True, robots=False, cookies=path) as app:
        for moment in (time.time() - 10, time.time() - 10, time.time() + 10):
            os.utime(path, (moment, moment))
            app.enqueue("fetch", site.url(), force=True)
    found = [request.headers["Cookie"] for request in site.requests]
    assert found == [f"session={SECRET}", "session=changed", f"session={SECRET}"]


def test_secrets_are_in_no_file_of_the_data_directory(
    tmp_path: Path, club: Site, monkeypatch: pytest.MonkeyPatch
) -> None:
    """While a fetch waits for its host, with a cookie that was set again, and afterwards."""
    monkeypatch.setenv("CLUB_TOKEN", TOKEN)
    renewed = {"Location": "/entrance", "Set-Cookie": f"session={SECRET}; Path=/"}
    club.add("/renew", b"", status=302, headers=renewed)
    club.on("/entrance", entrance)
    club.add("/refused", b"", status=403)
    options = {
        "cookies": cookie_file(tmp_path, {}),
        "headers": {"127.0.0.1": {"Authorization": "Bearer ${CLUB_TOKEN}", "X-Key": TOKEN + "2"}},
        "host_delay": 0.05,
    }
    data = tmp_path / "data"
    with open_app(tmp_path, "development", **options) as app:
        seen = []

        def renew(visit: Visit, _: str) -> None:
            with sqlite3.connect(data / "tasks.db") as connection:
                seen.extend(connection.execute("SELECT resume FROM jobs WHERE resume IS NOT NULL"))
            entrance(visit, _)

        club.on("/entrance", renew)
        jobs = app.enqueue_many("fetch", map(club.url, ("/members", "/renew", "/refused", "/cut")))
        app.workers.start(concurrency=1)
        app.wait(timeout=60)
        assert [job.error_class for job in jobs] == [None, None, "login", None]
        told = json.dumps([app.status().to_dict(), jobs.to_dicts(), app.logs(1000).text])
        told += repr(app.settings) + json.dumps(app.settings.rows())
        app.workers.stop(timeout=10)
    assert seen  # the fetch has waited for its host
    assert len(secrets_of(club, "/entrance?again")) == 3
    assert [secret for secret in (TOKEN, SECRET) if secret in told + str(seen)] == []
    files = [path for path in data.rglob("*") if path.is_file()]
    assert {"tasks.db", "items.db", "workers.log"} <= {path.name for path in files}
    content = b"".join(path.read_bytes() for path in files)
    assert [secret for secret in (TOKEN, SECRET) if secret.encode() in content] == []
