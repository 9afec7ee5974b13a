"""Cookies: those of a file that a browser or a program has exported, and those that servers set.

The standard library's `CookieJar` keeps them; the policy makes it follow RFC 6265 and not its own
time. Its reader of files is not used: it names no line, and shows secrets in its errors.
"""

import json
import re
import time
from collections.abc import Iterable, Iterator, Mapping, Sequence
from email.message import Message
from functools import lru_cache
from http.cookiejar import Cookie, CookieJar, DefaultCookiePolicy
from ipaddress import ip_address
from pathlib import Path
from types import SimpleNamespace
from typing import Any, NamedTuple
from urllib.parse import urlsplit
from urllib.request import Request

from paise2nb.core.errors import UsageError, shortened
from paise2nb.core.urls import ParsedURL, ascii_host

LONGEST = 4096  # characters of a Set-Cookie header that is accepted (RFC 6265, section 6.1)
MOST_BYTES = 16 << 20  # of a file of cookies
FIELDS = 7  # of a line: host, subdomains, path, secure, expiry, name, value
NEVER = 2.0**40  # seconds since the epoch; later times mean the same
_UNFIT = re.compile(r"[\x00-\x1f\x7f;\ud800-\udfff]")  # in no header, and between two cookies
_EXPIRY = ("expirationDate", "expires", "expiry")  # the first that a cookie has
# Of a cookie that scripts may not read.
_HTTP_ONLY_SET = re.compile(r";\s*httponly\s*(?:[;=]|$)", re.IGNORECASE)
_HTTP_ONLY = "#HttpOnly_"  # before lines with such cookies


class Stored(NamedTuple):
    """A cookie of a file, or one that is kept.

    Attributes:
        host: The host in lower case.
        below: Whether it is for all hosts below that one, too.
        expires: Seconds since the epoch, None if it does not expire.
        http_only: Whether the scripts of a page may not read it.
    """

    host: str
    below: bool
    path: str
    secure: bool
    expires: float | None
    name: str
    value: str
    http_only: bool = False

    @property
    def is_expired(self) -> bool:
        """Whether its time is over."""
        return self.expires is not None and self.expires <= time.time()


class CookieFile(NamedTuple):
    """What a file of cookies contains.

    Attributes:
        path: The file.
        changed_at: When it was changed last, in seconds since the epoch.
        cookies: By host.
    """

    path: Path
    changed_at: float
    cookies: Mapping[str, Sequence[Stored]]

    def of(self, host: str) -> list[Stored]:
        """The cookies for a host, whatever their path and expiry."""
        found = list(self.cookies.get(host, ()))
        for name in above(host):
            found += [cookie for cookie in self.cookies.get(name, ()) if cookie.below]
        return found


# Files ---------------------------------------------------------------------------------------


def read_cookies(path: Path) -> CookieFile:
    """Read a file of cookies: cookies.txt, or JSON as browsers' extensions and Playwright export.

    It is read again only when it has changed.

    Raises:
        UsageError: It can't be read, or something in it is wrong. The message names the file and
            the line or cookie, but no value.
    """
    try:
        found = path.stat()
        return _read(path, found.st_mtime_ns, found.st_size, found.st_ino)
    except OSError as error:
        raise UsageError(f"can't read the cookies file {path}: {error.strerror}") from error


@lru_cache(maxsize=4)
def _read(path: Path, changed_ns: int, size: int, inode: int) -> CookieFile:
    if not path.is_file():
        raise UsageError(f"can't read the cookies file {path}: not a regular file")
    if size > MOST_BYTES:
        raise UsageError(f"can't read the cookies file {path}: {size} bytes are too many")
    try:
        text = path.read_bytes().decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise UsageError(f"{path}: byte {error.start + 1} is not UTF-8") from None
    is_json = text.lstrip()[:1] in ("[", "{")
    cookies: dict[str, list[Stored]] = {}
    for cookie in (_from_json if is_json else _from_lines)(path, text):
        cookies.setdefault(cookie.host, []).append(cookie)
    return CookieFile(path, changed_ns / 1e9, cookies)


def _from_lines(path: Path, text: str) -> Iterator[Stored]:
    """The cookies of a cookies.txt in the format of Netscape, curl and wget."""
    # Not splitlines(), which also cuts at characters that a value may have.
    for number, line in enumerate(text.split("\n"), 1):
        whole = line.rstrip("\r")
        line = whole.removeprefix(_HTTP_ONLY)
        if not line.strip() or line.startswith("#"):
            continue
        where, parts = f"{path}, line {number}", line.split("\t")
        if len(parts) == FIELDS - 1:
            parts.append("")  # an editor has removed the tab before an empty value
        if len(parts) != FIELDS:
            raise UsageError(
                f"{where}: not a cookie, which has {FIELDS} fields with tabs between them (host, "
                "subdomains, path, secure, expiry, name, value)"
            )
        host, below, cookie_path, secure, expires, name, value = parts
        flags = [flag.upper() for flag in (below, secure)]
        if not {"TRUE", "FALSE"}.issuperset(flags):
            raise UsageError(f"{where}: subdomains and secure must be TRUE or FALSE")
        is_below, is_secure = (flag == "TRUE" for flag in flags)
        found = _stored(where, host, is_below, cookie_path, is_secure, expires or 0, name, value)
        yield found._replace(http_only=line != whole)


def _from_json(path: Path, text: str) -> Iterator[Stored]:
    """The cookies of a list, or of Playwright's ``{"cookies": […]}``.

    The keys are those of Chrome's API for extensions, of Playwright, Puppeteer and Selenium.
    """
    try:
        content = json.loads(text)
    except (ValueError, RecursionError) as error:
        line = getattr(error, "lineno", 1)
        problem = getattr(error, "msg", "nested too deeply")
        raise UsageError(f"{path}, line {line}: not valid JSON: {problem}") from None
    listed = content.get("cookies") if isinstance(content, dict) else content
    if not isinstance(listed, list):
        raise UsageError(f'{path}: neither a list of cookies nor {{"cookies": […]}}')
    for number, cookie in enumerate(listed, 1):
        where = f"{path}, cookie {number}"
        if not isinstance(cookie, dict):
            raise UsageError(f"{where}: not a mapping")
        for key in ("name", "value", "domain"):
            if not isinstance(cookie.get(key), str):
                raise UsageError(f"{where}: {key} is missing or not text")
        host = cookie["domain"]
        is_below = not cookie.get("hostOnly", not host.startswith("."))
        expires = next((cookie[key] for key in _EXPIRY if key in cookie), 0)
        secure, cookie_path = bool(cookie.get("secure")), cookie.get("path") or "/"
        found = _stored(
            where, host, is_below, cookie_path, secure, expires, cookie["name"], cookie["value"]
        )
        yield found._replace(http_only=bool(cookie.get("httpOnly")))


def _stored(
    where: str, host: str, below: bool, path: str, secure: bool, expires: Any, name: str, value: str
) -> Stored:
    """Check the fields of a cookie. Times of 0 and below mean that it does not expire."""
    try:
        host = ascii_host(host.strip().removeprefix(".").removesuffix("."))
    except ValueError:
        raise UsageError(f"{where}: {shortened(host.strip(), 100)!r} is not a host") from None
    try:
        seconds = min(float(expires or 0), NEVER)
    except (TypeError, ValueError, OverflowError):
        raise UsageError(f"{where}: the expiry is not a number of seconds") from None
    if any(_UNFIT.search(part) for part in (name, value, str(path))):
        raise UsageError(f"{where}: it has a character that no cookie may have")
    if not (name or value):
        raise UsageError(f"{where}: it has neither a name nor a value")
    if not str(path).startswith("/"):
        path = "/"
    name, value, path = map(as_header, (name, value, str(path)))
    is_below = below and not is_public_suffix(host) and not _is_ip(host)
    return Stored(host, is_below, path, secure, seconds if seconds > 0 else None, name, value)


def as_header(text: str) -> str:
    """A text as it is in a header, also in one that a server sends: UTF-8 read as Latin-1."""
    return text.encode().decode("latin-1")


def from_header(text: str) -> str:
    """The text that is in a header as UTF-8, or else as it is."""
    try:
        return text.encode("latin-1").decode()
    except UnicodeError:
        return text


# Jars ----------------------------------------------------------------------------------------


class Policy(DefaultCookiePolicy):
    """Which cookies are accepted and returned: RFC 6265, where the standard library differs."""

    def __init__(self) -> None:
        # A cookie without Domain is only for the host that set it: section 5.3, step 6.
        super().__init__(strict_ns_domain=self.DomainStrictNonDomain)

    def set_ok_domain(self, cookie: Cookie, request: Request) -> bool:
        """Also refuse cookies for public suffixes and parts of IP addresses (section 5.3)."""
        domain, host = cookie.domain.removeprefix("."), urlsplit(request.full_url).hostname or ""
        if cookie.domain_specified and (_is_ip(host) or is_public_suffix(domain)):
            if domain != host:
                return False
            cookie.domain, cookie.domain_specified = host, False
        return super().set_ok_domain(cookie, request)


def is_public_suffix(host: str) -> bool:
    """Whether independent sites have names below a host, such as ``co.uk`` and ``github.io``."""
    from tld.utils import is_tld  # takes 50 ms, with the list of Mozilla

    return "." not in host or bool(is_tld(host, search_private=True))


def cookie_header(jar: CookieJar, target: ParsedURL) -> dict[str, str]:
    """The Cookie header of a request, if it has one."""
    request = _request(target)
    jar.add_cookie_header(request)
    return dict(request.unredirected_hdrs)


def put(jar: CookieJar, cookies: Iterable[Stored]) -> None:
    """Add stored cookies to a jar. One of the same name, host and path is replaced."""
    for host, below, path, secure, expires, name, value, _ in cookies:
        domain = f".{host}" if below else host if "." in host else f"{bracketed(host)}.local"
        jar.set_cookie(
            Cookie(
                0, name, value, None, False, domain, below, below, path, True, secure,
                None if expires is None else int(expires), expires is None, None, None, {},
            )
        )  # fmt: skip


def take(jar: CookieJar, sender: ParsedURL, header: str) -> list[list[Stored]]:
    """Take a Set-Cookie header into a jar.

    Returns:
        What it has set, and what it has removed from the jar.
    """
    if len(header) > LONGEST:
        return [[], []]
    head = Message()
    head["Set-Cookie"] = header
    answer: Any = SimpleNamespace(info=lambda: head)
    before = dict(_keyed(jar))
    jar.extract_cookies(answer, _request(sender))
    after = dict(_keyed(jar))
    changed = [cookie for key, cookie in after.items() if before.get(key) is not cookie]
    removed = [cookie for key, cookie in before.items() if key not in after]
    http_only = bool(_HTTP_ONLY_SET.search(header))
    return [[_from_jar(each, sender, http_only) for each in found] for found in (changed, removed)]


def _keyed(jar: CookieJar) -> Iterator[tuple[tuple[str, str, str], Cookie]]:
    for cookie in jar:
        yield (cookie.domain, cookie.path, cookie.name), cookie


def _from_jar(cookie: Cookie, sender: ParsedURL, http_only: bool) -> Stored:
    is_below = cookie.domain_specified
    # The jar gives hosts without a dot the ending .local.
    host = cookie.domain.removeprefix(".") if is_below else sender.host.rstrip(".")
    value, secure = cookie.value or "", bool(cookie.secure)
    return Stored(
        host, is_below, cookie.path, secure, cookie.expires, cookie.name, value, http_only
    )


def _request(target: ParsedURL) -> Request:
    return Request(target._replace(host=target.host.rstrip(".")).absolute)


def bracketed(host: str) -> str:
    """A host as it is written in a URL."""
    return f"[{host}]" if ":" in host else host


def above(host: str) -> Iterator[str]:
    """The names above a host: ``b.example`` and ``example`` for ``a.b.example``."""
    while not _is_ip(host) and "." in host:
        host = host.partition(".")[2]
        yield host


def _is_ip(host: str) -> bool:
    try:
        return bool(ip_address(host))
    except ValueError:
        return False
