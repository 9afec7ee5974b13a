"""Reading a local file that the user named: a regular file of at most ``fetch.max_bytes``."""

from __future__ import annotations

import stat
from pathlib import Path

from paise2nb.config.settings import FetchSettings
from paise2nb.core.errors import PermanentError
from paise2nb.core.urls import file_url, url_path
from paise2nb.plugins import Fetched


def read(url: str, settings: FetchSettings) -> Fetched:
    """Read a file.

    Args:
        url: A ``file:`` URL or an absolute path.
        settings: ``max_bytes`` is the largest size.

    Returns:
        The bytes. ``meta`` holds ``mtime_ns``, by which a later fetch detects a change.

    Raises:
        PermanentError: ``not_found``, ``unreadable`` or ``too_large``.
    """
    try:
        path = Path(url_path(url))
        found = path.stat()
        # Reading a pipe would block the worker until something writes to it.
        if not stat.S_ISREG(found.st_mode):
            raise PermanentError(f"not a regular file: {path}", "unreadable")
        with path.open("rb") as file:
            data = file.read(settings.max_bytes + 1)
    except FileNotFoundError:
        raise PermanentError(f"no such file: {path}", "not_found") from None
    except (OSError, ValueError) as error:
        reason = getattr(error, "strerror", None) or error
        raise PermanentError(f"can't be read, {reason}: {url}", "unreadable") from error
    if len(data) > settings.max_bytes:
        message = f"larger than {settings.max_bytes} bytes (fetch.max_bytes): {path}"
        raise PermanentError(message, "too_large")
    return Fetched(data, file_url(str(path)), meta={"mtime_ns": found.st_mtime_ns})
