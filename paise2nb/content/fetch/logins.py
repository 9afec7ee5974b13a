"""Logins: the cookies and headers that a request carries for its host, and the signs that they were
not accepted.

A secret is given only to the host for which it is named, and it is in no message. What a waiting
fetch needs of it is in `KeptCookies` and not in the row of its job.
"""

import base64
import os
import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import suppress
from dataclasses import replace
from functools import partial
from http.cookiejar import CookieJar
from ipaddress import ip_address
from operator import itemgetter
from pathlib import Path
from typing import Any, Self

from urllib3 import HTTPHeaderDict

from paise2nb.config.settings import HEADERS, FetchSettings
from paise2nb.content.fetch import cookies, login_page
from paise2nb.content.fetch.kept_cookies import KEPT, KeptCookies
from paise2nb.content.fetch.network import proxy_for
from paise2nb.core.errors import (
    HomeOnly,
    PermanentError,
    SettingsError,
    Snoozed,
    TransientError,
    UsageError,
)
from paise2nb.core.urls import ParsedURL, ascii_host, host_of, parse, without_credentials
from paise2nb.plugins import Fetched

MOST_SET = 50  # Set-Cookie headers that a fetch carries from host to host
_VARIABLE = re.compile(r"\$\{(\w+)\}")
_CONTROL = re.compile(r"[\x00-\x1f\x7f]")


class Session:
    """The cookies and headers of the requests of one fetch. A context manager around it.

    Args:
        settings: Which cookies and headers there are.
        directory: With the file of cookies that outlive a request; None: there are none.
        job: The id of the job; None keeps nothing.
        set_cookies, has_set: The `state` of an earlier execution of the job.

    Attributes:
        has_set: Whether a server has set a cookie in this fetch.
    """

    def __init__(
        self,
        settings: FetchSettings,
        directory: Path | None = None,
        job: int | None = None,
        set_cookies: Sequence[Sequence[str]] = (),
        has_set: bool = False,
    ) -> None:
        self._settings = settings
        self._kept = None if directory is None else KeptCookies(directory)
        self._job = job
        self._jar = CookieJar(cookies.Policy())
        self._loaded: set[str] = set()
        self._public: list[list[str]] = []  # URL and Set-Cookie header, of hosts without a login
        self.has_set = has_set
        for url, header in set_cookies:
            self.take(parse(url), [header])

    @classmethod
    def without_login(cls, settings: FetchSettings) -> "Session":
        """The session of a request that has no login, such as one for robots.txt."""
        return cls(replace(settings, cookies=None, headers={}, keep_cookies=False))

    def headers(
        self, first: ParsedURL, target: ParsedURL, common: Mapping[str, str]
    ) -> HTTPHeaderDict:
        """The headers of a request.

        Args:
            first: The URL of the fetch.
            target: The URL of the request.
            common: The headers that do not depend on the host, which may replace them.

        Raises:
            SettingsError: A variable of the environment is missing.
            TransientError: ``cookies``: the file of cookies can't be used.
        """
        self._load(_host(target))
        found = HTTPHeaderDict(common)
        for name, value in self.named_headers(first, target).items():
            found[name] = value
        for name, value in cookies.cookie_header(self._jar, target).items():
            found[name] = f"{found[name]}; {value}" if name in found else value
        return found

    def named_headers(self, first: ParsedURL, target: ParsedURL) -> dict[str, str]:
        """Those that the settings or the URL of the fetch name. Raises SettingsError."""
        host = _host(target)
        found = {
            name: _with_environment(value, host, name)
            for name, value in headers_of(self._settings, host).items()
            if self._may_send(name, first, target)
        }
        # Those of a URL are not sent to another origin (RFC 9110, section 15.4).
        if first.credentials is not None and target.origin == first.origin:
            token = base64.b64encode(first.credentials.encode()).decode("ascii")
            found = {name: found[name] for name in found if name.lower() != "authorization"}
            found["Authorization"] = f"Basic {token}"
        return found

    def cookies_for(self, host: str) -> list[cookies.Stored]:
        """The cookies for a host, the newest last. Raises TransientError (``cookies``)."""
        found: list[tuple[float, cookies.Stored]] = []
        if (file := self.file()) is not None:
            found += [(file.changed_at, cookie) for cookie in file.of(host)]
        if self._kept is not None:
            owners = [KEPT] if self._settings.keep_cookies else []
            found += self._kept.of(owners if self._job is None else [*owners, self._job], host)
        found.sort(key=itemgetter(0))
        return [cookie for _, cookie in found if not cookie.is_expired]

    def keep(self, found: Iterable[cookies.Stored]) -> None:
        """Keep cookies that a browser got, if the settings want that."""
        if self._settings.keep_cookies and self._kept is not None:
            self._kept.put(KEPT, found)

    def take(self, sender: ParsedURL, set_cookies: Sequence[str]) -> None:
        """Take the Set-Cookie headers of an answer."""
        host = _host(sender)
        self._load(host)
        self.has_set = self.has_set or bool(set_cookies)
        keeps = self._settings.keep_cookies
        for header in set_cookies[-MOST_SET:]:
            found, removed = cookies.take(self._jar, sender, header)
            if not (keeps or self._has_login(host)):
                self._public = [*self._public, [sender.absolute, header]][-MOST_SET:]
            elif self._kept is not None and self._job is not None:
                self._kept.put(KEPT if keeps else self._job, found, removed)

    def has_login(self, url: str) -> bool:
        """Whether the settings have headers or cookies for its host, expired ones included."""
        return self._has_login(host_of(url) or "")

    def require_login(self, url: str) -> None:
        """Raise HomeOnly if home has a login for the host of a URL, and this machine has none."""
        host = host_of(url) or ""
        is_named = {_key(key) for key in self._settings.headers} & {*_names(host)}
        if is_named and not self._has_login(host):
            raise HomeOnly(f"the login for {host}")

    def refuse(self, url: str, problem: str) -> None:
        """Raise PermanentError (``login``) if the settings have a login for the host of a URL."""
        if self.has_login(url):
            raise PermanentError(f"{problem}; {self._advice(host_of(url) or '')}", "login")

    def checked(self, chain: Sequence[str], fetched: Fetched) -> Fetched:
        """Return a page. Raises PermanentError (``login``) if redirects have led to a login."""
        asked, page = without_credentials(chain[0]), without_credentials(chain[-1])
        if len(chain) > 1 and login_page.leads_to_login([*chain[:-1], page], fetched):
            for url in chain[::-1]:
                self.refuse(url, f"redirected to a login page ({page}): {asked}")
        return fetched

    def state(self) -> list[Any]:
        """What another execution of the job needs to go on, for its row: nothing secret."""
        return [self._public, self.has_set]

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: object, error: object, traceback: object) -> None:
        if self.has_set and not isinstance(error, Snoozed) and self._kept:
            self._kept.forget(self._job or -1)

    def _has_login(self, host: str) -> bool:
        return bool(headers_of(self._settings, host) or self.file_cookies(host))

    def _load(self, host: str) -> None:
        """Put the cookies for a host into the jar. The later of two with the same name counts."""
        if host in self._loaded:
            return
        self._loaded.add(host)
        cookies.put(self._jar, self.cookies_for(host))

    def file(self) -> cookies.CookieFile | None:
        """The file of cookies, None if there is none. Raises TransientError (``cookies``)."""
        path = self._settings.cookies
        try:
            return None if path is None else cookies.read_cookies(path)
        except UsageError as error:  # it may just be written
            raise TransientError(str(error), "cookies") from error

    def file_cookies(self, host: str) -> list[cookies.Stored]:
        """The cookies of the file for a host. Raises TransientError (``cookies``)."""
        file = self.file()
        return [] if file is None else file.of(host)

    def _may_send(self, name: str, first: ParsedURL, target: ParsedURL) -> bool:
        """Whether a header may be sent to its host.

        Source: RFC 6750, section 5.3, and RFC 7617, section 4: not readable on the way. The fetch
        standard, "HTTP-redirect fetch": not to another origin of the same host. Other headers
        are sent over http if the fetch is for that very host over http, but not because a
        redirect says so.
        """
        if target.scheme == "http":
            is_secret = name.lower() == "authorization" or target.origin != first.origin
            if is_secret and not self._is_private(target):
                return False
        is_default_tls = (target.scheme, target.port) == ("https", 443)
        return target.host != first.host or target.origin == first.origin or is_default_tls

    def _is_private(self, target: ParsedURL) -> bool:
        """Whether a request over http stays on this machine."""
        proxy = proxy_for(target.scheme, target.host, self._settings.proxy)
        return _is_loopback(target.host) and not proxy

    def _advice(self, host: str) -> str:
        """Why a login may not have been accepted, and what to do."""
        found, headers = self.file_cookies(host), headers_of(self._settings, host)
        parts = []
        if found:
            expired = sum(cookie.is_expired for cookie in found)
            number = "all" if expired == len(found) else "some"
            what = f"{number} cookies for {host} have expired"
            what = what if expired else f"the cookies for {host} were not accepted"
            file = self._settings.cookies
            parts.append(f"{what}: log in with a browser and export its cookies to {file}")
        if headers:
            parts.append(f"check {HEADERS} ({', '.join(headers)}) of {host}")
            if "authorization" in map(str.lower, headers):
                parts.append("Authorization is sent over https only")
        return "; ".join(parts)


def headers_of(settings: FetchSettings, host: str) -> dict[str, str]:
    """The headers that the settings have for a host, with ``${NAME}`` as written.

    Those of the host itself override those of ``*.HOST``, and these those of hosts further above.
    """
    found: dict[str, str] = {}
    by_key = {_key(key): values for key, values in settings.headers.items()}
    for key in reversed(_names(host)):
        found |= by_key.get(key, {})
    return found


def logins_for(settings: FetchSettings, host: str) -> set[str]:
    """The logins that a request to a host needs: the host, or ``*.HOST`` for one above it.

    A file of cookies that can't be read is a login that only this machine has.
    """
    found = {_key(key) for key in settings.headers} & {*_names(host)}
    with suppress(TransientError):
        for cookie in Session(settings).file_cookies(host):
            found.add(f"*.{cookie.host}" if cookie.below and cookie.host != host else cookie.host)
        return found
    return {"the file of fetch.cookies"}


def login_hosts(settings: FetchSettings) -> set[str]:
    """Every host with a login, and ``*.HOST`` for all below one."""
    found = {_key(key) for key in settings.headers}
    with suppress(TransientError):
        file = Session(settings).file()
        for host, named in file.cookies.items() if file else ():
            found |= {host, f"*.{host}"} if any(c.below for c in named) else {host}
    return found


def problems(settings: FetchSettings) -> list[str]:
    """What is wrong with the file of cookies and with the environment, in one line each."""
    checks: list[Callable[[], object]] = [Session(settings).file]
    for host, headers in settings.headers.items():
        checks += [partial(_with_environment, value, host, name) for name, value in headers.items()]
    found = []
    for check in checks:
        try:
            check()
        except (SettingsError, TransientError) as error:
            found.append(str(error))
    return found


def _with_environment(value: str, host: str, name: str) -> str:
    where = f"{HEADERS}: {name} of {host}"

    def variable(match: re.Match[str]) -> str:
        found = os.environ.get(match[1], "").strip()
        if not found:
            problem = f"the environment variable {match[1]} is not set"
            raise SettingsError(f"{where}: {problem}; set it, then: paise2 worker restart")
        return found

    text = _VARIABLE.sub(variable, value)
    if _CONTROL.search(text):
        raise SettingsError(f"{where}: its value has a control character, such as a line break")
    return os.fsencode(text).decode("latin-1")


def _host(url: ParsedURL) -> str:
    return url.host.rstrip(".")


def _names(host: str) -> list[str]:
    """The keys that are for a host, the closest one first."""
    return [host, *(f"*.{above}" for above in cookies.above(host))]


def _key(key: str) -> str:
    """A key of ``fetch.headers`` as hosts of requests are written."""
    star = "*." if key.startswith("*.") else ""
    return star + ascii_host(key.removeprefix(star)).rstrip(".")


def _is_loopback(host: str) -> bool:
    try:
        return ip_address(host).is_loopback
    except ValueError:
        return f".{host.rstrip('.')}".endswith(".localhost")
