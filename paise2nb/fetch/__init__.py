"""The built-in fetchers: http and https, and files that the user names."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from paise2nb.fetch.urls import canonical_url
from paise2nb.plugins import Fetched, fetcher

if TYPE_CHECKING:
    from collections.abc import Mapping

    from paise2nb.app import Context

ROBOTS = "robots"  # the folder in the data directory


@fetcher("http", "https")
def fetch_web(context: Context, url: str) -> Fetched:
    """Fetch over HTTP, where an item of that address is stored only if it has changed."""
    item_id = context.items.find(canonical_url(url))
    item = None if item_id is None else context.items.get(item_id)
    # Without the bytes, an answer that they still hold would leave nothing to extract again.
    kept = item is not None and item["sha256"] in context.cache
    return visit(context, url, item["metadata"].get("source") if item and kept else None)


def visit(context: Context, url: str, known: Mapping[str, Any] | None = None) -> Fetched:
    """Fetch over HTTP as the hosts on the way ask for it: robots.txt is read first.

    Args:
        known: what is stored about an earlier answer, see `paise2nb.fetch.http.get`.
    """
    # The libraries for it are imported by the process that does it.
    from paise2nb.fetch import http, robots

    settings = context.settings.fetch

    def before(address: str) -> None:
        if settings.robots:
            robots.check(address, http.agent(settings), settings, context.app.data_dir / ROBOTS)

    return http.get(url, settings, before=before, known=known)


@fetcher("file")
def fetch_file(context: Context, url: str) -> Fetched:
    """Read a local file."""
    from paise2nb.fetch.files import read

    return read(url, context.settings.fetch)
