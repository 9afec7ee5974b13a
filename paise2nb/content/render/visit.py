"""The rendering of one page for a job: paced by its host, and within robots.txt."""

import json
from collections.abc import Sequence
from typing import Any

from paise2nb.content.fetch import http, robots
from paise2nb.content.fetch.cookies import Stored, as_header, bracketed, from_header
from paise2nb.content.fetch.logins import Session
from paise2nb.content.render.browser import browser
from paise2nb.core.errors import PermanentError, Snoozed
from paise2nb.core.urls import host_of, parse, without_credentials
from paise2nb.jobs.context import Context
from paise2nb.jobs.models import HostDelay
from paise2nb.plugins import Fetched

LATEST = 253_402_300_799  # the latest time of a cookie that Playwright accepts


class Visit:
    """Decides which requests of a page are made.

    The document waits for a slot of its host, and robots.txt must allow it. What it loads from
    there belongs to it, so it needs no slot, but robots.txt must allow it, too. For other hosts'
    scripts and data, theirs would have to be fetched first, so their address alone is checked.

    Headers of a login are sent to the host of the document only. Cookies have the browser's own
    rules for the requests of a page to other sites (SameSite).

    Args:
        context: The execution that renders.
        asked: The URL of the fetch.
        url: The URL to begin with.
    """

    def __init__(self, context: Context, asked: str, url: str) -> None:
        self._context = context
        self._settings = context.settings.fetch
        self._first = parse(asked)
        self._session = Session(self._settings, context.data_dir)
        # A snoozed execution goes on at the last of some redirects.
        self.chain: list[str] = json.loads(context.job.resume or "[]") or [url]
        self._host = context.job.host or host_of(self.chain[-1])

    def check_document(self, url: str) -> None:
        """Raise Snoozed if the document is of another host, PermanentError if it is disallowed."""
        settings, host = self._settings, host_of(url)
        is_paced = bool(self._context.job.host and settings.host_delay)
        if host and host != self._host and is_paced and not self._context.is_replay:
            if len(self.chain) > settings.max_redirects:
                limit = f"{settings.max_redirects} times (fetch.max_redirects)"
                shown = without_credentials(self.chain[0])
                raise PermanentError(f"redirected more than {limit}: {shown}", "redirects")
            raise Snoozed(host, json.dumps([*self.chain, url]))
        self._host = host
        delay = self._check_robots(url)
        if delay is not None and host and is_paced:
            self._context.host_delays.append(HostDelay(host, delay))

    def allows(self, url: str) -> bool:
        """Whether robots.txt allows a part of the page; that of another host is not asked."""
        if host_of(url) != self._host:
            return True
        try:
            self._check_robots(url)
        except PermanentError as error:
            return error.error_class != "robots"
        return True

    def headers(self, url: str) -> dict[str, str]:
        """The headers of the login for the host of the document. Raises SettingsError."""
        if host_of(url) != self._host:
            return {}
        return self._session.named_headers(self._first, parse(url))

    def cookies(self, host: str) -> list[dict[str, Any]]:
        """The cookies for a host, in Playwright's form. Raises TransientError (``cookies``)."""
        newest = {(*cookie[:3], cookie.name): cookie for cookie in self._session.cookies_for(host)}
        return [
            {
                "name": from_header(cookie.name),
                "value": from_header(cookie.value),
                "domain": f".{cookie.host}" if cookie.below else bracketed(cookie.host),
                "path": from_header(cookie.path),
                "secure": cookie.secure,
                "httpOnly": cookie.http_only,
                "sameSite": "Lax",
                "expires": -1 if cookie.expires is None else min(cookie.expires, LATEST),
            }
            for cookie in newest.values()
        ]

    def keep(self, cookies: Sequence[dict[str, Any]]) -> None:
        """Keep all cookies that the browser has in the end, if the settings want that."""
        self._session.keep(
            Stored(
                found["domain"].removeprefix(".").strip("[]"),
                found["domain"].startswith("."),
                found["path"],
                found["secure"],
                found["expires"] if found["expires"] > 0 else None,
                as_header(found["name"]),
                as_header(found["value"]),
                found["httpOnly"],
            )
            for found in cookies
        )

    def checked(self, fetched: Fetched) -> Fetched:
        """Return a page. Raises PermanentError (``login``) if it is a login page."""
        return self._session.checked([self.chain[0], fetched.url], fetched)

    def _check_robots(self, url: str) -> float | None:
        if not self._settings.robots:
            return None
        agent, directory = http.user_agent(self._settings), self._context.data_dir
        return robots.check(url, agent, directory / robots.DIRECTORY, self._fetch_rules)

    def _fetch_rules(self, url: str) -> Fetched:
        return http.get(url, self._settings, read_bytes=robots.MAX_BYTES)


def render_page(context: Context, asked: str, url: str) -> Fetched:
    """Load a page in the browser. See `paise2nb.content.render.browser.Browser.render`.

    Args:
        context: The execution that renders.
        asked: The URL of the fetch.
        url: The URL to begin with.
    """
    visit = Visit(context, asked, url)
    fetched = browser.render(visit.chain[-1], context.settings.fetch, visit)
    return fetched if fetched.url == visit.chain[0] else visit.checked(fetched)
