"""robots.txt as RFC 9309 defines it: which URLs of a host a program may fetch.

The rules of a host are valid for a day. All worker processes share the file with them. A host
without rules has an empty file. A host that fails has one that disallows everything.
"""

import hashlib
import os
import time
from collections.abc import Callable
from concurrent.futures import Future
from contextlib import suppress
from copy import copy
from functools import lru_cache
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from paise2nb.core.errors import PermanentError, Snoozed, TaskError, TransientError
from paise2nb.core.files import make_private_directory, replacement
from paise2nb.core.urls import without_credentials
from paise2nb.plugins import Fetched

DIRECTORY = "robots"  # in the data directory
MAX_AGE = 86400.0  # seconds; RFC 9309, section 2.4
MAX_AGE_FAILED = 300.0  # seconds until the rules of a server that failed are fetched again
MAX_BYTES = 500 * 1024  # bytes that are read; section 2.5
# Error classes of answers with which a host allows everything; sections 2.3.1.2 and 2.3.1.3.
UNAVAILABLE = ("http_4xx", "redirects")
# With a comment, because many hosts have these very rules.
DISALLOW_ALL = "# the server fails\nUser-agent: *\nDisallow: /\n"

# One thread fetches the rules of a host. The others that need them wait for its result.
_fetching: dict[str, Future[str]] = {}


def check(url: str, agent: str, directory: Path, fetch: Callable[[str], Fetched]) -> float | None:
    """Refuse a URL that the rules of its host disallow.

    Args:
        url: An http or https URL.
        agent: The user agent of the requests.
        directory: Contains the rules of all hosts.
        fetch: Fetches the first `MAX_BYTES` of the rules from their URL.

    Returns:
        The Crawl-delay of the host in seconds, 0 for none. None if the rules don't apply, because
        robots.txt itself may always be fetched.

    Raises:
        PermanentError: ``robots``: the URL is disallowed, or the rules can't be fetched (RFC 9309,
            section 2.3.1.4). Another class: the request for the rules was not sent
            or its answer not accepted.
        TransientError: The host can't be reached, or asks to be left alone for a time.
    """
    url = without_credentials(url)
    if urlsplit(url).path == "/robots.txt":
        return None
    rules_url = _rules_url(url)
    file = directory / _name(rules_url)
    text = _load_or_fetch(rules_url, file, fetch)
    rules = _parse(text)
    if not rules.can_fetch(url, agent):
        reason = "can't be fetched, the server fails" if text == DISALLOW_ALL else "disallows it"
        override = "`fetch.robots: false` overrides it"
        raise PermanentError(f"{rules_url} {reason}, so {url} is not fetched; {override}", "robots")
    return float(rules.crawl_delay(agent) or 0)


def stored_rules(directory: Path, url: str) -> tuple[str, float] | None:
    """The rules for a URL that are stored and valid, with their age in seconds; or None."""
    file = directory / _name(_rules_url(url))
    with suppress(FileNotFoundError):  # a cleanup may remove it meanwhile
        if (text := _load(file)) is not None:
            return text, time.time() - file.stat().st_mtime
    return None


def put_rules(directory: Path, url: str, text: str, age: float) -> None:
    """Store rules for a URL that another machine has fetched, unless there are some."""
    file = directory / _name(_rules_url(url))
    if _load(file) is None:
        _store(file, text, age)


def remove_expired(directory: Path) -> None:
    """Remove the files with rules that are no longer valid."""
    for file in directory.glob("*"):
        with suppress(FileNotFoundError):  # renamed or removed since the directory was read
            if file.stat().st_mtime < time.time() - MAX_AGE:
                file.unlink()


def _load_or_fetch(url: str, file: Path, fetch: Callable[[str], Fetched]) -> str:
    """Load rules, or fetch them in one thread for all threads that need them now."""
    mine: Future[str] = Future()
    while (result := _fetching.setdefault(str(file), mine)) is not mine:
        error = result.exception()
        if isinstance(error, TaskError):  # each job raises an instance of its own
            raise copy(error) from error
        if not isinstance(error, Snoozed):  # that job waits for a slot, this one may have it
            return result.result()
    try:
        text = _load(file)
        if text is None:
            text, seconds = _fetch(url, fetch)
            _store(file, text, MAX_AGE - seconds)
    except BaseException as error:  # for the threads that wait for it, too
        del _fetching[str(file)]  # first: after a Snoozed they look there again
        result.set_exception(error)
        raise
    del _fetching[str(file)]
    result.set_result(text)
    return text


def _fetch(url: str, fetch: Callable[[str], Fetched]) -> tuple[str, float]:
    """The rules, and for how many seconds they are valid."""
    try:
        return fetch(url).data.decode("utf-8-sig", "replace"), MAX_AGE
    except TransientError as error:
        if error.error_class != "http_5xx":
            raise  # a request for the URL itself would fail in the same way
        return DISALLOW_ALL, MAX_AGE_FAILED
    except PermanentError as error:
        if error.error_class not in UNAVAILABLE:
            raise  # refused here, such as a private address: the rules are still unknown
        return "", MAX_AGE


def _rules_url(url: str) -> str:
    parts = urlsplit(without_credentials(url))
    return f"{parts.scheme}://{parts.netloc.lower()}/robots.txt"


def _name(rules_url: str) -> str:
    return hashlib.sha256(rules_url.encode()).hexdigest()


def _store(file: Path, text: str, age: float) -> None:
    make_private_directory(file.parent)
    # Rules that are lost in a power cut are fetched again, so they need no sync.
    with replacement(file, sync=False) as partial:
        partial.write_text(text, "utf-8")
        modified = time.time() - age
        os.utime(partial, (modified, modified))


def _load(file: Path) -> str | None:
    try:
        age = time.time() - file.stat().st_mtime
        return file.read_text("utf-8") if 0 <= age < MAX_AGE else None
    except FileNotFoundError:
        return None


@lru_cache(maxsize=32)
def _parse(text: str) -> Any:
    from protego import Protego  # takes some milliseconds

    return Protego.parse(text)
