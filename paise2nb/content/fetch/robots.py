"""robots.txt on the terms of RFC 9309: what a host asks of programs that read it unasked.

The rules of a host are kept for a day in a file that all worker processes share; the text in it is
the rules in force, so a host without any is an empty file, one whose server fails a refusal of all.
"""

from __future__ import annotations

import hashlib
import os
import threading
import time
from collections.abc import Callable, Sequence
from concurrent.futures import Future
from copy import copy
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING
from urllib.parse import urlsplit

from paise2nb.config.settings import FetchSettings
from paise2nb.core.errors import PermanentError, Snoozed, TransientError
from paise2nb.core.files import make_private_directory
from paise2nb.core.urls import without_credentials

if TYPE_CHECKING:
    from protego import Protego

KEPT = 86400.0  # seconds; RFC 9309, section 2.4
KEPT_FAILING = 300.0  # seconds until a server that failed is asked again
LARGEST = 500 * 1024  # bytes that are read; section 2.5
REFUSE_ALL = "User-agent: *\nDisallow: /\n"

# One thread asks, the others that want the same host's rules wait for its answer.
_asking: dict[Path, Future[str]] = {}
_guard = threading.Lock()


def check(
    url: str,
    agent: str,
    settings: FetchSettings,
    directory: Path,
    *,
    before: Callable[[Sequence[str]], None] = lambda seen: None,
    seen: Sequence[str] = (),
) -> float | None:
    """Refuse an address that its host closes to this agent.

    Args:
        url: an http or https address.
        agent: as requests name it.
        settings: the limits of the request for the rules.
        directory: where the rules of all hosts are kept.
        before: called as by `paise2nb.content.fetch.http.get`, for the rules.
        seen: what it was called with when an earlier check was postponed.

    Returns:
        the seconds that the host wants between two requests (Crawl-delay), 0 for none; None where
        nobody looked: the rules themselves are open to all.

    Raises:
        PermanentError: ``robots``, it is closed, or the rules can't be had (RFC 9309, 2.3.1.4).
        TransientError: the host can't be reached, or asks to come later.
    """
    parts = urlsplit(without_credentials(url))
    if parts.path == "/robots.txt":
        return None
    place = f"{parts.scheme}://{parts.netloc.lower()}/robots.txt"
    file = directory / hashlib.sha256(place.encode()).hexdigest()
    text = _kept(file)
    if text is None:
        way = seen if seen and seen[0] == place else [place]
        text = _shared(way, settings, file, before)
    rules = _parsed(text)
    if not rules.can_fetch(without_credentials(url), agent):
        why = "can't be had from a failing server" if text == REFUSE_ALL else "refuses"
        raise PermanentError(
            f"{place} {why}, so {without_credentials(url)} is not fetched; "
            "`fetch.robots: false` overrides it",
            "robots",
        )
    return float(rules.crawl_delay(agent) or 0)


def forget(directory: Path) -> None:
    """Remove the rules that are too old to hold."""
    for file in directory.glob("*"):
        if file.stat().st_mtime < time.time() - KEPT:
            file.unlink(missing_ok=True)


def _shared(
    way: Sequence[str],
    settings: FetchSettings,
    file: Path,
    before: Callable[[Sequence[str]], None],
) -> str:
    """What one thread asks for all that want it now: the rules, or why they can't be had."""
    with _guard:
        asking = _asking.get(file)
        answer = _asking[file] = asking or Future()
    if asking is not None:
        error = asking.exception()
        if isinstance(error, TransientError):  # one of its own for each job
            raise copy(error) from error
        if isinstance(error, Snoozed):  # it waits for a turn, and this one may have it
            return _shared(way, settings, file, before)
        return asking.result()
    try:
        text = _kept(file)  # another has had its answer just before
        if text is None:
            text, seconds = _asked(way, settings, before)
            _keep(file, text, seconds)
        answer.set_result(text)
        return text
    except BaseException as error:
        answer.set_exception(error)
        raise
    finally:
        with _guard:
            del _asking[file]


def _asked(
    way: Sequence[str], settings: FetchSettings, before: Callable[[Sequence[str]], None]
) -> tuple[str, float]:
    """The rules that a server gives now, and for how many seconds they hold."""
    from paise2nb.content.fetch.http import get

    try:
        found = get(way[0], settings, before=before, seen=way, enough=LARGEST)
        return found.data.decode("utf-8-sig", "replace"), KEPT
    except TransientError as error:
        if error.error_class != "http_5xx":
            raise  # the address itself would end the same way
        return REFUSE_ALL, KEPT_FAILING
    except PermanentError:
        return "", KEPT  # "unavailable" is free: section 2.3.1.3


def _kept(file: Path) -> str | None:
    try:
        age = time.time() - file.stat().st_mtime
        return file.read_text("utf-8") if 0 <= age < KEPT else None
    except FileNotFoundError:
        return None


def _keep(file: Path, text: str, seconds: float) -> None:
    make_private_directory(file.parent)
    aside = file.with_name(f".{file.name}.{os.getpid()}.{threading.get_ident()}")
    aside.write_text(text, "utf-8")
    written = time.time() - (KEPT - seconds)
    os.utime(aside, (written, written))
    aside.replace(file)


@lru_cache(maxsize=32)
def _parsed(text: str) -> Protego:
    from protego import Protego

    return Protego.parse(text)
