"""Files of cookies, and which cookie goes to which URL."""

from __future__ import annotations

import json
import os
import sqlite3
import subprocess
import sys
import time
from contextlib import closing
from http.cookiejar import CookieJar
from pathlib import Path
from typing import Any

import pytest

from paise2nb.content.fetch.cookies import Policy, cookie_header, put, read_cookies, take
from paise2nb.content.fetch.kept_cookies import KEPT, MOST, KeptCookies
from paise2nb.core.errors import StorageError, UsageError
from paise2nb.core.urls import parse

LATER = int(time.time()) + 1000
NETSCAPE = f"""\
# Netscape HTTP Cookie File
# https://curl.se/docs/http-cookies.html

.example.org\tTRUE\t/\tFALSE\t{LATER}\tsite\t1
a.example.org\tFALSE\t/\tFALSE\t0\town\t2
#HttpOnly_a.example.org\tFALSE\t/\tTRUE\t{LATER}.5\thidden\t3=3
example.org\tTRUE\t/dir\tFALSE\t{LATER}\tdeep\t4
a.example.org\tFALSE\t/\tFALSE\t1000\told\t5
.co.uk\tTRUE\t/\tFALSE\t{LATER}\tsuffix\t6
bücher.example\tFALSE\t/\tFALSE\t{LATER}\tname\tgrün
127.0.0.1\tTRUE\t/\tFALSE\t{LATER}\tip\t7
localhost\tFALSE\t/\tFALSE\t{LATER}\tlocal\t8
"""


def header(path: Path, url: str) -> str:
    """The Cookie header that a file gives a request."""
    target, jar = parse(url), CookieJar(Policy())
    put(jar, read_cookies(path).of(target.host.rstrip(".")))
    return cookie_header(jar, target).get("Cookie", "")


def written(path: Path, content: Any) -> Path:
    path.write_text(content if isinstance(content, str) else json.dumps(content), "utf-8")
    return path


@pytest.mark.parametrize(
    ("url", "expected"),
    [
        ("https://a.example.org/", {"site=1", "own=2", "hidden=3=3"}),
        ("http://a.example.org/", {"site=1", "own=2"}),
        ("http://a.example.org:8080/dir", {"site=1", "own=2", "deep=4"}),
        ("http://a.example.org/directory", {"site=1", "own=2"}),
        ("http://A.Example.Org./dir/x?y", {"site=1", "own=2", "deep=4"}),
        ("https://b.a.example.org/", {"site=1"}),
        ("https://example.org/", {"site=1"}),
        ("https://badexample.org/", set()),
        ("https://example.org.evil.example/", set()),
        ("https://shop.co.uk/", set()),
        ("http://xn--bcher-kva.example/", {"name=" + "grün".encode().decode("latin-1")}),
        ("http://sub.bücher.example/", set()),
        ("http://127.0.0.1:5000/", {"ip=7"}),
        ("http://27.0.0.1/", set()),
        ("http://localhost:5000/", {"local=8"}),
        ("http://x.localhost/", set()),
    ],
)
def test_a_cookie_goes_only_to_the_hosts_and_paths_that_it_names(
    tmp_path: Path, url: str, expected: set[str]
) -> None:
    found = header(written(tmp_path / "cookies.txt", NETSCAPE), url)
    assert set(found.split("; ")) - {""} == expected


def test_a_cookies_txt_says_which_cookies_scripts_may_not_read(tmp_path: Path) -> None:
    line = "a.example\tFALSE\t/\tFALSE\t0\tid\tx\n"
    found = read_cookies(written(tmp_path / "cookies.txt", f"#HttpOnly_{line}{line}"))
    assert [cookie.http_only for cookie in found.of("a.example")] == [True, False]


def test_the_longest_path_comes_first_and_a_later_line_counts(tmp_path: Path) -> None:
    lines = [f"example.org\tFALSE\t{path}\tFALSE\t0\tid\t{value}" for path, value in (
        ("/", "1"), ("/a/b", "2"), ("/a", "3"), ("/", "4"),
    )]  # fmt: skip
    path = written(tmp_path / "cookies.txt", "\r\n".join(lines))
    assert header(path, "http://example.org/a/b/c") == "id=2; id=3; id=4"


COOKIE = {"name": "id", "value": "s", "domain": ".example.org", "path": "/"}


@pytest.mark.parametrize(
    ("content", "with_subdomains", "is_expired"),
    [
        # Of extensions (Chrome's API), of Playwright and Puppeteer, and of Selenium.
        ([{**COOKIE, "hostOnly": False, "session": True, "storeId": "0"}], True, False),
        ([{**COOKIE, "domain": "example.org", "hostOnly": True}], False, False),
        ([{**COOKIE, "hostOnly": True, "expirationDate": LATER + 0.25}], False, False),
        ([{**COOKIE, "hostOnly": False, "expirationDate": 1000.5}], True, True),
        ({"cookies": [{**COOKIE, "expires": -1}], "origins": []}, True, False),
        ({"cookies": [{**COOKIE, "domain": "example.org", "expires": LATER}]}, False, False),
        ([{**COOKIE, "expires": 1000}], True, True),
        ([{**COOKIE, "expiry": 1000}], True, True),
        ([{**COOKIE, "expirationDate": 1e300}], True, False),
    ],
)
def test_the_common_json_exports_are_read(
    tmp_path: Path, content: Any, with_subdomains: bool, is_expired: bool
) -> None:
    path = written(tmp_path / "cookies.json", content)
    sent = "" if is_expired else "id=s"
    assert header(path, "https://example.org/") == sent
    assert header(path, "https://www.example.org/") == (sent if with_subdomains else "")


@pytest.mark.parametrize(
    ("content", "problem"),
    [
        ("\n\nexample.org\tTRUE\t/", ", line 3: not a cookie, which has 7 fields with tabs"),
        ("a.org TRUE / FALSE 0 id s3cret", ", line 1: not a cookie"),
        ("a.org\tyes\t/\tFALSE\t0\tid\ts3cret", ", line 1: subdomains and secure must be TRUE"),
        ("#x\na.org\tTRUE\t/\tFALSE\tsoon\tid\ts3cret", ", line 2: the expiry is not a number"),
        ("a b\tTRUE\t/\tFALSE\t0\tid\ts3cret", ", line 1: 'a b' is not a host"),
        (
            "a.org\tTRUE\t/\tFALSE\t0\tid\ts3cret;x=1",
            ", line 1: it has a character that no cookie may",
        ),
        ("a.org\tTRUE\t/\tFALSE\t0\t\t", ", line 1: it has neither a name nor a value"),
        ('[\n{\n"s3cret"', ", line 3: not valid JSON: Expecting ':' delimiter"),
        ("[" * 100_000, ", line 1: not valid JSON: nested too deeply"),
        ({"other": []}, ': neither a list of cookies nor {"cookies"'),
        ([COOKIE, 5], ", cookie 2: not a mapping"),
        ([COOKIE, {**COOKIE, "value": None}], ", cookie 2: value is missing or not text"),
        ([{**COOKIE, "expires": "s3cret"}], ", cookie 1: the expiry is not a number"),
        (
            [{**COOKIE, "value": "s3cret\r\nX-Evil: 1"}],
            ", cookie 1: it has a character that no cookie may",
        ),
        (
            [{**COOKIE, "value": "s3cret\ud800"}],
            ", cookie 1: it has a character that no cookie may",
        ),
    ],
)
def test_what_is_wrong_is_told_with_file_and_line_and_without_values(
    tmp_path: Path, content: Any, problem: str
) -> None:
    path = written(tmp_path / "cookies.txt", content)
    with pytest.raises(UsageError) as error:
        read_cookies(path)
    assert str(error.value).startswith(f"{path}{problem}")
    assert "s3cret" not in str(error.value)
    assert "\n" not in str(error.value)


def test_a_file_that_can_not_be_read_is_told(tmp_path: Path) -> None:
    missing = tmp_path / "none.txt"
    with pytest.raises(UsageError, match=f"^can't read the cookies file {missing}: No such file"):
        read_cookies(missing)
    with pytest.raises(UsageError, match="not a regular file"):
        read_cookies(tmp_path)
    (tmp_path / "binary").write_bytes(b"# ok\n\xff")
    with pytest.raises(UsageError, match="byte 6 is not UTF-8"):
        read_cookies(tmp_path / "binary")


def test_a_changed_file_is_read_again(tmp_path: Path) -> None:
    path = written(tmp_path / "cookies.json", [COOKIE])
    assert header(path, "https://example.org/") == "id=s"
    assert read_cookies(path) is read_cookies(path)
    other = written(tmp_path / "other.json", [{**COOKIE, "value": "t"}])
    os.replace(other, path)
    assert header(path, "https://example.org/") == "id=t"


# Set-Cookie ----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("set_cookie", "sent_to"),
    [
        ("id=1", {"https://a.example.org/dir/x"}),
        ("id=1; Path=/", {"https://a.example.org/dir/x", "https://a.example.org/"}),
        (
            "id=1; Domain=example.org; Path=/dir",
            {"https://a.example.org/dir/x", "https://b.a.example.org/dir/", "https://b.example.org/dir"},
        ),
        ("id=1; Domain=other.example; Path=/", set()),
        ("id=1; Domain=org; Path=/", set()),
        ("id=1; Max-Age=0", set()),
        ("id=" + "x" * 5000, set()),
    ],
)  # fmt: skip
def test_the_cookie_of_a_server_goes_where_it_may(set_cookie: str, sent_to: set[str]) -> None:
    jar = CookieJar(Policy())
    take(jar, parse("https://a.example.org/dir/page"), set_cookie)
    urls = {
        "https://a.example.org/dir/x", "https://a.example.org/", "https://b.a.example.org/dir/",
        "https://b.example.org/dir", "https://other.example/", "https://c.org/",
    }  # fmt: skip
    assert {url for url in urls if cookie_header(jar, parse(url))} == sent_to


@pytest.mark.parametrize(
    ("sender", "domain", "other"),
    [
        ("https://shop.co.uk/", "co.uk", "https://bank.co.uk/"),
        ("https://me.github.io/", "github.io", "https://you.github.io/"),
        ("https://github.io/", "github.io", "https://you.github.io/"),
        ("http://10.0.0.1/", "0.0.1", "http://11.0.0.1/"),
        ("http://localhost/", "localhost", "http://x.localhost/"),
    ],
)
def test_a_public_suffix_and_a_part_of_an_ip_address_get_no_cookies(
    sender: str, domain: str, other: str
) -> None:
    jar = CookieJar(Policy())
    take(jar, parse(sender), f"id=1; Domain={domain}; Path=/")
    assert cookie_header(jar, parse(other)) == {}


# Kept ----------------------------------------------------------------------------------------


def kept_values(kept: KeptCookies, host: str, *jobs: int) -> list[str]:
    return sorted(cookie.value for _, cookie in kept.of(jobs or [KEPT], host))


def test_cookies_are_kept_for_their_hosts_and_jobs(tmp_path: Path) -> None:
    kept, jar, sender = KeptCookies(tmp_path), CookieJar(Policy()), parse("https://a.example.org/")
    assert kept_values(kept, "a.example.org") == []
    kept.forget(1)
    kept.remove_expired()
    assert not kept.path.exists()
    kept.put(KEPT, *take(jar, sender, "id=1; Domain=example.org"))
    kept.put(KEPT, *take(jar, sender, "own=2; Max-Age=1000"))
    kept.put(7, *take(jar, sender, "job=3"))
    assert kept.path.stat().st_mode & 0o777 == 0o600
    assert kept_values(kept, "a.example.org") == ["1", "2"]
    assert kept_values(kept, "a.example.org", KEPT, 7) == ["1", "2", "3"]
    assert kept_values(kept, "b.example.org") == ["1"]
    kept.put(KEPT, *take(jar, sender, "own=4; Max-Age=1000"))
    assert kept_values(kept, "a.example.org") == ["1", "4"]
    kept.put(KEPT, *take(jar, sender, "own=; Max-Age=0"))
    kept.forget(7)
    assert kept_values(kept, "a.example.org", KEPT, 7) == ["1"]
    kept.clear()
    assert list(tmp_path.iterdir()) == []


def test_a_host_has_a_limited_number_of_kept_cookies(tmp_path: Path) -> None:
    kept, jar, sender = KeptCookies(tmp_path), CookieJar(Policy()), parse("https://example.org/")
    for number in range(MOST + 10):
        kept.put(KEPT, *take(jar, sender, f"c{number}={number:02}"))
    values = kept_values(kept, "example.org")
    assert (len(values), values[0]) == (MOST, "10")


def test_expired_cookies_are_removed_from_the_file(tmp_path: Path) -> None:
    kept, jar, sender = KeptCookies(tmp_path), CookieJar(Policy()), parse("https://example.org/")
    found, _ = take(jar, sender, "id=s3cret; Max-Age=1000")
    kept.put(KEPT, [found[0]._replace(expires=time.time() - 1)])
    kept.remove_expired()
    assert b"s3cret" not in kept.path.read_bytes()


def test_damaged_kept_cookies_are_told(tmp_path: Path) -> None:
    (tmp_path / "cookies.db").write_bytes(b"not a database, but long enough to look like one" * 99)
    with pytest.raises(StorageError, match=r"cookies\.db: the file is damaged"):
        KeptCookies(tmp_path).forget(1)


def test_a_thread_that_keeps_cookies_takes_no_lock_from_another_thread(tmp_path: Path) -> None:
    """Closing any descriptor of a file releases all locks that the process has on it: fcntl(2)."""
    kept = KeptCookies(tmp_path)
    kept.put(KEPT, [])
    connect = "import sqlite3, sys; other = sqlite3.connect(sys.argv[1], timeout=0)"
    with closing(sqlite3.connect(kept.path, isolation_level=None)) as connection:
        connection.execute("BEGIN IMMEDIATE")
        kept.put(KEPT, [])
        command = [sys.executable, "-c", f"{connect}; other.execute('BEGIN IMMEDIATE')", kept.path]
        done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert "database is locked" in done.stderr
