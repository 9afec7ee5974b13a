"""What the fetch task and the sources share: handing bytes to extract, and what is up to date."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Any

from paise2nb.config.settings import Settings
from paise2nb.core.urls import file_url, scheme_of, url_path, without_credentials
from paise2nb.jobs.context import Context
from paise2nb.plugins import Fetched

VALIDATORS = ("etag", "last_modified", "mtime_ns")  # by which a later fetch detects a change


def hand_over(context: Context, url: str, fetched: Fetched, started: float | None = None) -> str:
    """Put bytes into the cache and enqueue their extraction.

    Args:
        context: The execution that fetched them.
        url: As the user gave it.
        fetched: The bytes, and what the server said about them.
        started: When the fetch began, in seconds since the epoch. None means now.

    Returns:
        The key of the bytes in the cache.
    """
    key = context.cache.put(fetched.data)
    shown = without_credentials(url) if scheme_of(url) else file_url(url)
    facts = {
        "mime_type": fetched.mime_type,
        "charset": fetched.charset,
        "size": len(fetched.data),
        "fetched_at": time.time() if started is None else started,
        "final_url": fetched.url,
        **{name: fetched.meta[name] for name in VALIDATORS if name in fetched.meta},
    }
    context.enqueue("extract", shown, key, facts)
    return key


def is_up_to_date(settings: Settings, result: Any, age: float, args: tuple[Any, ...]) -> bool:
    """Whether a fetch need not be repeated: the file is unchanged, the page was fetched recently.

    Args:
        settings: ``fetch.max_age`` is the age in seconds from which on a page is out of date.
        result: Of the earlier fetch.
        age: Seconds since it finished.
        args: Of the new fetch: the URL or path.
    """
    if scheme_of(args[0]) not in ("file", None):
        return age < settings.fetch.max_age
    try:
        found = Path(url_path(args[0])).stat()
    except (OSError, ValueError):
        return False
    return (found.st_size, found.st_mtime_ns) == (result.get("size"), result.get("mtime_ns"))
