"""The built-in fetchers: http and https, and files that the user names."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

from paise2nb.core.errors import Snoozed
from paise2nb.core.urls import canonical_url, host_of
from paise2nb.jobs import HostDelay
from paise2nb.plugins import Fetched, fetcher

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from paise2nb.jobs.context import Context

ROBOTS = "robots"  # the folder in the data directory


@fetcher("http", "https")
def fetch_web(context: Context, url: str) -> Fetched:
    """Fetch over HTTP, where an item of that address is stored only if it has changed.

    A replay fetches in any case, so that it shows what would follow.
    """
    item_id = context.items.find(canonical_url(url))
    item = None if item_id is None else context.items.get(item_id)
    # Without the bytes, an answer that they still hold would leave nothing to extract again.
    kept = item is not None and item["sha256"] in context.cache
    known = item["metadata"].get("source") if item and kept and context.job.run else None
    return visit(context, url, known)


def visit(context: Context, url: str, known: Mapping[str, Any] | None = None) -> Fetched:
    """Fetch over HTTP as the hosts on the way ask for it: robots.txt is read first.

    Args:
        known: what is stored about an earlier answer, see `paise2nb.content.fetch.http.get`.
    """
    # The libraries for it are imported by the process that does it.
    from paise2nb.content.fetch import http, robots

    settings = context.settings.fetch
    directory = context.app.data_dir / ROBOTS
    turn = Turn(context)

    def before(seen: Sequence[str]) -> None:
        address = seen[-1]
        if settings.robots:
            delay = robots.check(
                address, http.agent(settings), settings, directory,
                before=lambda way: turn.use(way[-1], (seen, way)), seen=rules,
            )  # fmt: skip
            if delay is not None:
                turn.note(address, delay)
        turn.use(address, (seen, ()))

    # The addresses on the way so far, and those on the way to the rules of the last of them.
    seen, rules = json.loads(context.job.resume) if context.job.resume else ((), ())
    return http.get(url, settings, before=before, seen=seen, known=known)


class Turn:
    """The one request that an execution may make: at its job's host, whose turn the job has.

    Another one, of a page after its robots.txt or after a redirect, is another turn.
    """

    def __init__(self, context: Context) -> None:
        job = context.job
        self._context = context
        # A replay is a user's own request, here and now.
        self._is_paced = bool(job.run and job.host and context.settings.fetch.host_delay)
        self._host = job.host
        self._crawl_delay: tuple[str, float] | None = None

    def note(self, address: str, crawl_delay: float) -> None:
        """Keep what a host's robots.txt says about the seconds between two requests."""
        if host := host_of(address):
            self._crawl_delay = (host, crawl_delay)
            self._context.host_delays.append(HostDelay(host, crawl_delay))

    def use(self, address: str, resume: tuple[Sequence[str], Sequence[str]]) -> None:
        """Take the turn for a request. Raises Postponed where it is another host's, or used."""
        host = host_of(address)
        if not self._is_paced or host is None:
            return
        if host != self._host:
            raise Snoozed(host, json.dumps(resume), self._crawl_delay)
        self._host = None


@fetcher("file")
def fetch_file(context: Context, url: str) -> Fetched:
    """Read a local file."""
    from paise2nb.content.fetch.files import read

    return read(url, context.settings.fetch)
