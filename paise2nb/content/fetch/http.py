"""Fetching over HTTP: one GET within limits of time, size and redirects.

Redirects are followed here, not by urllib3, so that each target is parsed, checked and connected to
like the first URL.
"""

import re
import ssl
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from http import client
from typing import Any
from urllib.parse import urljoin

from urllib3 import exceptions
from urllib3.response import BaseHTTPResponse
from urllib3.util import Retry
from urllib3.util.request import ACCEPT_ENCODING

from paise2nb.config.settings import FetchSettings
from paise2nb.content.extract.types import PAGES, UNKNOWN, media_type
from paise2nb.content.fetch import head
from paise2nb.content.fetch.logins import Session
from paise2nb.content.fetch.network import budget, pools, proxy_for, refuse_private_behind_proxy
from paise2nb.core import urls
from paise2nb.core.errors import PermanentError, TaskError, TransientError
from paise2nb.core.version import __version__
from paise2nb.plugins import Fetched

CHUNK = 65536  # bytes
HEADERS = 1 << 20  # bytes on the wire that an answer may have beside its body
LONGEST_PAUSE = 86400  # seconds; longer ones in Retry-After are mistakes
ENCODINGS = ("gzip", "x-gzip", "deflate", "br", "zstd")

_FIXED_HEADERS = {
    "Accept": "text/html,application/xhtml+xml,*/*;q=0.8",
    "Accept-Encoding": ACCEPT_ENCODING,
}
_CONDITIONS = (("If-None-Match", "etag"), ("If-Modified-Since", "last_modified"))
# Of `urlopen`: leave everything to this module.
_OPTIONS: dict[str, Any] = dict.fromkeys(
    ("redirect", "retries", "assert_same_host", "preload_content", "enforce_content_length"), False
)


def get(
    url: str,
    settings: FetchSettings,
    *,
    before_request: Callable[[Sequence[str]], None] = lambda chain: None,
    chain: Sequence[str] = (),
    session: Session | None = None,
    known: Mapping[str, Any] | None = None,
    read_bytes: int | None = None,
) -> Fetched:
    """Fetch a URL completely, or raise an error.

    Args:
        url: As the user gave it.
        settings: The limits. ``timeout``, in seconds, is for all requests together.
        before_request: Called before each request with the chain of URLs that redirects led to so
            far. The last one is requested next. The time of the call does not count.
        chain: Such a chain, to go on with its last URL.
        session: The cookies and headers of the requests. None: those of no login.
        known: ``etag``, ``last_modified`` and ``final_url`` of an earlier answer. The request for
            that URL is conditional (RFC 9110, section 13).
        read_bytes: Read only the first bytes of the body. None reads all, at most ``max_bytes``.

    Returns:
        The decoded bytes. ``meta`` holds ``status``, and ``etag``, ``last_modified``, ``robots``
        (X-Robots-Tag) and the ``name`` of the file if the server sent them; ``truncated`` if it
        closed the connection too early. Status 304, without bytes, means unchanged since then.

    Raises:
        PermanentError: ``bad_address``, ``blocked``, ``http_4xx``, ``login``, ``redirects``,
            ``tls``, ``too_large`` or ``unsupported``.
        TransientError: ``connection``, ``dns``, ``http_5xx``, ``throttled`` or ``timeout``.
    """
    left = settings.timeout
    chain = [*(chain or [url])]
    session = session or Session.without_login(settings)
    first, target = _parsed(url), _parsed(chain[-1])
    while True:
        before_request(chain)
        here = urls.without_credentials(chain[-1])
        budget.begin(left, settings.max_bytes + HEADERS)
        may_be_login = len(chain) > 1 and session.has_login(here)  # and was stored as a page
        conditions = {} if may_be_login else _conditions(known, here)
        headers = _FIXED_HEADERS | {"User-Agent": user_agent(settings)} | conditions
        response = _request(here, target, session.headers(first, target, headers), settings)
        try:
            if response.status == 304 and conditions:
                return Fetched(b"", here, meta={"status": 304})
            session.take(target, response.headers.getlist("Set-Cookie"))
            if response.status in (401, 403):
                session.refuse(here, f"{_status(response.status, response.reason)}: {here}")
            fetched = _fetched(here, response, settings, read_bytes)
            following = _next_url(chain, response, fetched, session.has_set, settings)
            if fetched and (read_bytes or not following):
                return session.checked(chain, fetched)
            chain.append(following)
            target = _parsed(chain[-1])
        finally:
            _release(response)
            left = budget.end - time.monotonic()


def user_agent(settings: FetchSettings) -> str:
    """The User-Agent of every request."""
    return settings.user_agent or f"paise2nb/{__version__}"


def retry_after(value: str | None) -> float | None:
    """The seconds to wait for a Retry-After header, at most a day. None if it is not valid.

    Source: RFC 9110, section 10.2.3: a number of seconds, or a date.
    """
    try:
        return float(Retry(retry_after_max=LONGEST_PAUSE).parse_retry_after(value or ""))
    except (exceptions.InvalidHeader, ValueError, OverflowError):
        return None


def _parsed(url: str) -> urls.ParsedURL:
    try:
        return urls.parse(url)
    except ValueError as error:
        message = f"not a URL that can be fetched, {error}: {urls.without_credentials(url)}"
        raise PermanentError(message, "bad_address") from None


def _conditions(known: Mapping[str, Any] | None, url: str) -> dict[str, str]:
    """The headers with which a server answers only if it has something else than before."""
    same = known if known and known.get("final_url") == urls.shown_url(url) else {}
    return {header: same[name] for header, name in _CONDITIONS if same.get(name)}


def _request(
    url: str, target: urls.ParsedURL, headers: Mapping[str, str], settings: FetchSettings
) -> BaseHTTPResponse:
    """Send one GET and read the headers of the response, but not yet its body."""
    private = settings.allow_private_addresses
    while True:
        try:
            proxy = proxy_for(target.scheme, target.host, settings.proxy)
            if proxy and not private:
                refuse_private_behind_proxy(target.host, target.port)
            manager = pools(private=private, proxy=proxy)
            pool = manager.connection_from_host(target.host, target.port, target.scheme)
            is_absolute = proxy and target.scheme == "http"  # RFC 9112, section 3.2.2
            budget.target = target.absolute if is_absolute else target.target
            left = budget.left()
            return pool.urlopen("GET", budget.target, headers=headers, timeout=left, **_OPTIONS)
        except exceptions.ProtocolError as error:
            # The server may have closed an idle connection just when it was used again. A GET may
            # then be sent once more on a new connection (RFC 9112, section 9.3.1).
            reason = error.args[-1]
            is_closed = isinstance(reason, OSError) and not isinstance(reason, TimeoutError)
            if not (budget.reused and is_closed):
                raise _failure(url, error, settings) from error
        except (exceptions.HTTPError, OSError, TaskError) as error:
            raise _failure(url, error, settings) from error


def _fetched(
    url: str, response: BaseHTTPResponse, settings: FetchSettings, read_bytes: int | None
) -> Fetched | None:
    """Read the body of a response, None for a redirect. Raise the error for any other."""
    if response.status in response.REDIRECT_STATUSES:
        return None
    if not 200 <= response.status < 300:
        after = response.headers.get("Retry-After")
        raise refusal(url, response.status, response.reason, after)
    codings = response.headers.get("Content-Encoding", "").lower().replace(",", " ").split()
    unknown = [name for name in codings if name not in ENCODINGS]
    response.headers["Content-Encoding"] = ", ".join(n for n in codings if n not in unknown)
    limit = settings.max_bytes if read_bytes is None else read_bytes
    message = f"larger than {limit} bytes (fetch.max_bytes): {url}"
    length = response.headers.get("Content-Length", "")
    if read_bytes is None and length.isdigit() and int(length) > limit:
        raise PermanentError(message, "too_large")
    data, meta = bytearray(), dict[str, Any](status=response.status)
    try:
        # urllib3 decodes no more than each chunk asks for, so bombs take no memory.
        for chunk in response.stream(CHUNK, decode_content=True):
            data += chunk
            if len(data) > limit:
                break
        else:
            if response.length_remaining:
                raise exceptions.IncompleteRead(len(data), response.length_remaining)
    except (exceptions.HTTPError, OSError, TaskError) as error:
        is_cut_off = isinstance(error, exceptions.ProtocolError | exceptions.IncompleteRead)
        if not (data and is_cut_off and budget.is_closed):
            raise _failure(url, error, settings) from error
        meta["truncated"] = True
    if read_bytes is None and len(data) > limit:
        raise PermanentError(message, "too_large")
    mime_type, charset = head.content_type(response.headers.getlist("Content-Type"))
    if unknown and media_type(None, bytes(data)) == UNKNOWN:
        message = f"sent in an encoding that was not asked for ({_printable(unknown[0])}): {url}"
        raise PermanentError(message, "unsupported")
    for header in ("ETag", "Last-Modified"):
        # With these of half a page, it would never be fetched whole.
        if header in response.headers and "truncated" not in meta:
            meta[header.lower().replace("-", "_")] = _printable(response.headers[header])
    if robots := response.headers.get("X-Robots-Tag"):
        meta["robots"] = _printable(robots)
    if name := head.file_name(response.headers.get("Content-Disposition", "")):
        meta["name"] = name
    return Fetched(bytes(data[:limit]), url, mime_type, charset, meta)


def _next_url(
    chain: list[str],
    response: BaseHTTPResponse,
    fetched: Fetched | None,
    has_cookies: bool,
    settings: FetchSettings,
) -> str:
    """The URL that a redirect, or what was fetched, leads to. Empty if it is what was asked for."""
    here = urls.without_credentials(chain[-1])
    if fetched:
        is_page = fetched.mime_type in (None, *PAGES)
        page = fetched.data[:CHUNK] if is_page else b""
        location = head.refresh_target(response.headers.get("Refresh"), page)
    else:
        location = response.headers.get("Location")
    if not (location or fetched):
        raise PermanentError(
            f"{_status(response.status, response.reason)} without a Location header: {here}",
            "redirects",
        )
    target = location or ""
    # Headers are decoded as Latin-1, but URLs in them that are not ASCII are UTF-8.
    with suppress(UnicodeError):
        target = target.encode("latin-1").decode()
    with suppress(ValueError):
        target = urljoin(chain[-1], target.strip()).partition("#")[0]
    is_web = urls.scheme_of(target) in urls.DEFAULT_PORTS
    if fetched and (not location or not is_web or target in chain):
        return ""
    if not is_web:
        message = f"redirected to {_printable(target)}, which only a user may ask for: {here}"
        raise PermanentError(message, "blocked")
    # With a cookie that it has set, a server may answer the same request in another way.
    if target in chain and not has_cookies:
        raise PermanentError(f"redirected in a circle: {here}", "redirects")
    if len(chain) > settings.max_redirects:
        start, limit = urls.without_credentials(chain[0]), settings.max_redirects
        message = f"redirected more than {limit} times (fetch.max_redirects): {start}"
        raise PermanentError(message, "redirects")
    return target


def refusal(url: str, status: int, reason: str | None, after: str | None) -> TaskError:
    """The error for a response that is not successful.

    Args:
        url: What was asked for.
        status: Of the response.
        reason: The phrase beside it.
        after: The header Retry-After.

    Source: RFC 9110, section 15; RFC 6585 for 429; RFC 8470 for 425.
    """
    message = f"{_status(status, reason)}: {url}"
    pause = retry_after(after)
    if status == 429 or (status == 503 and pause is not None):
        return TransientError(message, "throttled", retry_after=pause, host=urls.host_of(url))
    if status in (408, 425):
        return TransientError(message, "timeout", retry_after=pause)
    if status >= 500:
        return TransientError(message, "http_5xx", retry_after=pause)
    return PermanentError(message, "http_4xx" if status >= 400 else "redirects")


def _failure(url: str, error: Exception, settings: FetchSettings) -> TaskError:
    """The TaskError for an error of urllib3 or of the network."""
    if isinstance(error, TaskError):
        return type(error)(f"{error}: {url}", error.error_class)
    reason = error.args[-1] if error.args else None
    match error, reason:
        case (exceptions.ReadTimeoutError() | TimeoutError(), _) | (_, TimeoutError()):
            message = f"no complete answer within {settings.timeout:g} s (fetch.timeout): {url}"
            return TransientError(message, "timeout")
        case exceptions.SSLError(), ssl.CertificateError(verify_message=problem):
            return PermanentError(f"the certificate is not valid: {problem}: {url}", "tls")
        case exceptions.DecodeError(), _:
            what = "the compressed answer is damaged"
        case (exceptions.IncompleteRead(), _) | (_, exceptions.IncompleteRead()):
            what = "the answer was cut off"
        case _:
            # A plain OSError has a text of its own, such as that of a proxy that refuses.
            text = _printable(str(reason)) if type(reason) is OSError else ""
            problem = getattr(reason, "strerror", None) or text or type(reason or error).__name__
            what = f"the connection failed ({problem})"
    return TransientError(f"{what}: {url}", "connection")


def _status(status: int, reason: str | None) -> str:
    """``404 Not Found``, with the standard's phrase if there is one."""
    phrase = client.responses.get(status) or _printable(reason or "")
    return f"{status} {phrase}".strip()


def _printable(header: str) -> str:
    """The value of a header without control characters, cut to a length fit for a message."""
    return re.sub(r"[\x00-\x1f\x7f-\x9f]", "", header)[:500]


def _release(response: BaseHTTPResponse) -> None:
    """Keep the connection for reuse if little is left to read from it, or else close it."""
    length = response.headers.get("Content-Length", "")
    try:
        if length.isdigit() and int(length) <= CHUNK:
            response.drain_conn()
    finally:
        response.close()
