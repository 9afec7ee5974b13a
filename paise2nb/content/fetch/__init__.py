"""The built-in fetchers: http and https, and local files that the user names."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import Any

from paise2nb.content.fetch import files, robots
from paise2nb.core.errors import Snoozed
from paise2nb.core.urls import canonical_url, host_of
from paise2nb.jobs.context import Context
from paise2nb.jobs.models import HostDelay
from paise2nb.plugins import Fetched, fetcher


@fetcher("http", "https")
def fetch_web(context: Context, url: str) -> Fetched:
    """Fetch over HTTP. Ask for the page only if it differs from the stored item.

    A replay always fetches the page, to show what would follow.
    """
    item_id = context.items.find(canonical_url(url))
    item = None if item_id is None else context.items.get(item_id)
    # If the bytes are gone, "unchanged" would leave nothing to extract from.
    is_cached = item is not None and item["sha256"] in context.cache
    is_usable = is_cached and not context.is_replay
    known = item["metadata"].get("source") if item and is_usable else None
    return visit(context, url, known)


def visit(context: Context, url: str, known: Mapping[str, Any] | None = None) -> Fetched:
    """Fetch over HTTP. Obey robots.txt, and wait for a slot at each host on the way.

    Args:
        context: The execution that fetches.
        url: An http or https URL.
        known: What is stored about an earlier answer, see `paise2nb.content.fetch.http.get`.

    Raises:
        Snoozed: The next request needs a slot at another host, or another slot at this one.
        TaskError: The page can't be fetched.
    """
    # Imported here because urllib3 slows down the start of processes that never fetch.
    from paise2nb.content.fetch import http

    settings = context.settings.fetch
    slot = HostSlot(context)

    def before_request(chain: Sequence[str]) -> None:
        if settings.robots:
            delay = robots.check(
                chain[-1],
                http.user_agent(settings),
                settings,
                context.data_dir / robots.DIRECTORY,
                before_request=lambda rules: slot.use(rules[-1], (chain, rules)),
                chain=rules_chain,
            )
            if delay is not None:
                slot.record_crawl_delay(chain[-1], delay)
        slot.use(chain[-1], (chain, ()))

    # A snoozed execution goes on where it stopped: at the last of some redirects, perhaps with
    # those of the robots.txt for it.
    chain, rules_chain = json.loads(context.job.resume) if context.job.resume else ((), ())
    return http.get(url, settings, before_request=before_request, chain=chain, known=known)


class HostSlot:
    """The one request that an execution may make: to the host that its job has a slot at.

    Any further request, for a page after its robots.txt or after a redirect, needs another slot.
    """

    def __init__(self, context: Context) -> None:
        job = context.job
        self._context = context
        # A replay is not paced: the user asks for one request, here and now.
        is_paced = bool(job.host and context.settings.fetch.host_delay)
        self._is_paced = is_paced and not context.is_replay
        self._host = job.host
        self._crawl_delay: tuple[str, float] | None = None

    def record_crawl_delay(self, url: str, seconds: float) -> None:
        """Record the time between two requests that the robots.txt of a host asks for."""
        if host := host_of(url):
            self._crawl_delay = (host, seconds)
            self._context.host_delays.append(HostDelay(host, seconds))

    def use(self, url: str, resume: tuple[Sequence[str], Sequence[str]]) -> None:
        """Use the slot for a request.

        Args:
            url: What is requested.
            resume: Where to go on if the execution has to wait for another slot.

        Raises:
            Snoozed: The slot is at another host, or is used already.
        """
        host = host_of(url)
        if not self._is_paced or host is None:
            return
        if host != self._host:
            raise Snoozed(host, json.dumps(resume), self._crawl_delay)
        self._host = None


@fetcher("file")
def fetch_file(context: Context, url: str) -> Fetched:
    """Read a local file."""
    return files.read(url, context.settings.fetch)
