"""Fetching over HTTP: one GET within limits of time, size and redirects, and an error that says
which limit or answer ended it.

Redirects are followed here, one by one, because each target is an address of its own: it is
read, checked and connected to exactly like the first.
"""

from __future__ import annotations

import base64
import re
import ssl
import time
from collections.abc import Callable, Mapping, Sequence
from email.utils import parsedate_to_datetime
from http import HTTPStatus
from http.client import RemoteDisconnected
from typing import Any
from urllib.parse import urljoin

from urllib3.exceptions import (
    DecodeError,
    HTTPError,
    IncompleteRead,
    ProtocolError,
    ReadTimeoutError,
    SSLError,
)
from urllib3.response import BaseHTTPResponse
from urllib3.util.request import ACCEPT_ENCODING

from paise2nb.config.settings import FetchSettings
from paise2nb.content.fetch.network import budget, pools, proxy_for, refuse_private_behind_proxy
from paise2nb.core.errors import PermanentError, TaskError, TransientError
from paise2nb.core.urls import ParsedURL, host_of, parse, scheme_of, without_credentials
from paise2nb.core.version import __version__
from paise2nb.plugins import Fetched

CHUNK = 65536
HEADERS = 1 << 20  # bytes that an answer may take on the wire beside its body
LONGEST_PAUSE = 86400.0  # seconds; no server asks in earnest for more
ENCODINGS = ("gzip", "x-gzip", "deflate", "br", "zstd", "identity")
REDIRECTS = (301, 302, 303, 307, 308)


def get(
    url: str,
    settings: FetchSettings,
    *,
    before: Callable[[Sequence[str]], None] = lambda seen: None,
    seen: Sequence[str] = (),
    known: Mapping[str, Any] | None = None,
    enough: int | None = None,
) -> Fetched:
    """Fetch an address: every byte, or an error.

    Args:
        url: as the user gave it.
        settings: the limits; ``timeout`` in seconds is for all of it, redirects included.
        before: called before an address is asked for, with all that led to it, itself the last;
            its time does not count.
        seen: the addresses that led, by redirects, to the last of them: it is asked now.
        known: ``etag``, ``last_modified`` and ``final_url`` of an earlier answer: that address
            is asked only for what differs from it (RFC 9110, section 13).
        enough: bytes after which the rest is left; None takes all, at most ``max_bytes``.

    Returns:
        the decoded bytes; ``meta`` holds ``status``, and ``etag`` and ``last_modified`` if given.
        Status 304, without bytes, is the answer that nothing differs from what is known.

    Raises:
        PermanentError: ``bad_address``, ``blocked``, ``http_4xx``, ``redirects``, ``tls``,
            ``too_large`` or ``unsupported``.
        TransientError: ``connection``, ``dns``, ``http_5xx``, ``throttled`` or ``timeout``.
    """
    left = settings.timeout
    seen = [*(seen or [url])]
    first, address = _address(url), _address(seen[-1])
    while True:
        before(seen)
        budget.begin(left, settings.max_bytes + HEADERS)
        # RFC 9110, section 15.4: what was meant for one origin is not shown to another.
        credentials = first.credentials if address.origin == first.origin else None
        same = known is not None and known.get("final_url") == without_credentials(seen[-1])
        conditions = _conditions(known) if known is not None and same else {}
        response = _request(seen[-1], address, credentials, conditions, settings)
        try:
            if response.status == 304 and conditions:
                return Fetched(b"", without_credentials(seen[-1]), meta={"status": 304})
            if response.status not in REDIRECTS:
                return _fetched(seen[-1], response, settings, enough)
            seen.append(_redirect_target(seen, response, settings))
            address = _address(seen[-1])
        finally:
            _let_go(response)
            left = budget.end - time.monotonic()


def agent(settings: FetchSettings) -> str:
    """The name that requests carry."""
    return settings.user_agent or f"paise2nb/{__version__}"


def retry_after(value: str | None, now: float) -> float | None:
    """The seconds that a Retry-After header asks for, at most a day; None for none or nonsense.

    Source: RFC 9110, section 10.2.3: seconds or a date.
    """
    if value is None:
        return None
    if re.fullmatch(r"\s*[0-9]{1,12}\s*", value):
        seconds = float(value)
    else:
        try:
            seconds = parsedate_to_datetime(value).timestamp() - now
        except (TypeError, ValueError, OverflowError):
            return None
    return min(max(seconds, 0.0), LONGEST_PAUSE)


def _address(url: str) -> ParsedURL:
    try:
        return parse(url)
    except ValueError as error:
        raise PermanentError(
            f"not an address that can be fetched, {error}: {without_credentials(url)}",
            "bad_address",
        ) from None


def _conditions(known: Mapping[str, Any]) -> dict[str, str]:
    names = (("If-None-Match", "etag"), ("If-Modified-Since", "last_modified"))
    return {header: known[name] for header, name in names if known.get(name)}


def _request(
    url: str,
    address: ParsedURL,
    credentials: str | None,
    conditions: Mapping[str, str],
    settings: FetchSettings,
) -> BaseHTTPResponse:
    """Send one GET; the response with its headers read and its body still to come."""
    headers = {
        "User-Agent": agent(settings),
        "Accept": "text/html,application/xhtml+xml,*/*;q=0.8",
        "Accept-Encoding": ACCEPT_ENCODING,
        **conditions,
    }
    if credentials is not None:
        token = base64.b64encode(credentials.encode()).decode("ascii")
        headers["Authorization"] = f"Basic {token}"
    private = settings.allow_private_addresses
    while True:
        try:
            proxy = proxy_for(address.scheme, address.host, settings.proxy)
            if proxy and not private:
                refuse_private_behind_proxy(address.host, address.port)
            manager = pools(private=private, proxy=proxy)
            pool = manager.connection_from_host(address.host, address.port, address.scheme)
            whole = proxy and address.scheme == "http"  # RFC 9112, section 3.2.2
            return pool.urlopen(
                "GET",
                address.absolute if whole else address.target,
                headers=headers,
                redirect=False,
                retries=False,
                assert_same_host=False,
                preload_content=False,
                timeout=budget.left(),
            )
        except ProtocolError as error:
            # A connection kept open may have been closed by the server just when it was used
            # again; a GET may then be sent once more on a new one (RFC 9112, section 9.3.1).
            if not (budget.reused and isinstance(error.args[-1], (RemoteDisconnected, OSError))):
                raise _failure(url, error, settings) from error
            if isinstance(error.args[-1], TimeoutError):
                raise _failure(url, error, settings) from error
        except (HTTPError, OSError, TaskError) as error:
            raise _failure(url, error, settings) from error


def _fetched(
    url: str, response: BaseHTTPResponse, settings: FetchSettings, enough: int | None
) -> Fetched:
    """Read the body of a good answer, or raise what a bad one means."""
    if not 200 <= response.status < 300:
        raise _refusal(url, response)
    data = _body(url, response, settings, enough)
    content_type = _text(response.headers.get("Content-Type", ""))
    charset = re.search(r";\s*charset\s*=\s*[\"']?([^\s\"';]+)", content_type, re.IGNORECASE)
    meta: dict[str, Any] = {"status": response.status}
    for name in ("ETag", "Last-Modified"):
        if name in response.headers:
            meta[name.lower().replace("-", "_")] = _text(response.headers[name])
    return Fetched(
        data,
        without_credentials(url),
        content_type.partition(";")[0].strip().lower() or None,
        charset[1] if charset else None,
        meta,
    )


def _body(
    url: str, response: BaseHTTPResponse, settings: FetchSettings, enough: int | None
) -> bytes:
    encodings = response.headers.get("Content-Encoding", "").lower().replace(",", " ").split()
    if unknown := [name for name in encodings if name not in ENCODINGS]:
        raise PermanentError(
            f"sent in an encoding that was not asked for ({_text(unknown[0])}): "
            f"{without_credentials(url)}",
            "unsupported",
        )
    length = response.headers.get("Content-Length", "")
    if enough is None and length.isdigit() and int(length) > settings.max_bytes:
        raise _failure(url, _too_large(settings), settings)
    data = bytearray()
    try:
        # urllib3 decodes no more than is asked for, so a bomb is met here chunk by chunk.
        for chunk in response.stream(CHUNK, decode_content=True):
            data += chunk
            if enough is not None and len(data) >= enough:
                return bytes(data[:enough])
            if len(data) > settings.max_bytes:
                raise _too_large(settings)
    except (HTTPError, OSError, TaskError) as error:
        raise _failure(url, error, settings) from error
    return bytes(data)


def _redirect_target(seen: list[str], response: BaseHTTPResponse, settings: FetchSettings) -> str:
    """Where a redirect leads, if it may be followed."""
    here = without_credentials(seen[-1])
    location = response.headers.get("Location")
    if not location:
        raise PermanentError(f"{_status(response)} without saying where to: {here}", "redirects")
    # Headers are read as Latin-1; addresses in them are UTF-8 where they are not ASCII.
    location = location.encode("latin-1", "replace").decode("utf-8", "replace")
    try:
        target = urljoin(seen[-1], location.strip()).partition("#")[0]
    except ValueError:
        target = location
    if scheme_of(target) not in ("http", "https"):
        raise PermanentError(
            f"redirected to {_text(target)}, which only a user may ask for: {here}", "blocked"
        )
    if target in seen:
        raise PermanentError(f"redirected in a circle: {here}", "redirects")
    if len(seen) > settings.max_redirects:
        raise PermanentError(
            f"redirected more than {settings.max_redirects} times (fetch.max_redirects): "
            f"{without_credentials(seen[0])}",
            "redirects",
        )
    return target


def _refusal(url: str, response: BaseHTTPResponse) -> TaskError:
    """What an answer that is not a success means for the next attempt.

    Source: RFC 9110, section 15; RFC 6585 for 429; RFC 8470 for 425.
    """
    status = response.status
    message = f"{_status(response)}: {without_credentials(url)}"
    pause = retry_after(response.headers.get("Retry-After"), time.time())
    if status == 429 or (status == 503 and pause is not None):
        return TransientError(message, "throttled", retry_after=pause, host=host_of(url))
    if status in (408, 425):
        return TransientError(message, "timeout", retry_after=pause)
    if status >= 500:
        return TransientError(message, "http_5xx", retry_after=pause)
    return PermanentError(message, "http_4xx" if status >= 400 else "redirects")


def _failure(url: str, error: Exception, settings: FetchSettings) -> TaskError:
    """The error of this package for one of urllib3's, or of the network below it."""
    shown = without_credentials(url)
    if isinstance(error, TaskError):
        return type(error)(f"{error}: {shown}", error.error_class)
    reason = error.args[-1] if error.args else None
    if isinstance(error, (ReadTimeoutError, TimeoutError)) or isinstance(reason, TimeoutError):
        return TransientError(
            f"no complete answer within {settings.timeout:g} s (fetch.timeout): {shown}", "timeout"
        )
    if isinstance(error, SSLError) and isinstance(reason, ssl.CertificateError):
        return PermanentError(
            f"the certificate is not valid: {reason.verify_message}: {shown}", "tls"
        )
    if isinstance(error, DecodeError):
        return TransientError(f"the compressed answer is damaged: {shown}", "connection")
    if isinstance(error, IncompleteRead) or isinstance(reason, IncompleteRead):
        return TransientError(f"the answer was cut off: {shown}", "connection")
    own = str(reason) if type(reason) is OSError else ""  # of a proxy that refuses, say
    what = getattr(reason, "strerror", None) or _text(own) or type(reason or error).__name__
    return TransientError(f"the connection failed ({what}): {shown}", "connection")


def _too_large(settings: FetchSettings) -> PermanentError:
    return PermanentError(f"larger than {settings.max_bytes} bytes (fetch.max_bytes)", "too_large")


def _status(response: BaseHTTPResponse) -> str:
    """``404 Not Found``, in the standard's words where it has some."""
    try:
        phrase = HTTPStatus(response.status).phrase
    except ValueError:
        phrase = _text(response.reason or "")
    return f"{response.status} {phrase}".strip()


def _text(header: str) -> str:
    """A header's value without control characters, cut at a length fit for a message."""
    return re.sub(r"[\x00-\x1f\x7f-\x9f]", "", header)[:500]


def _let_go(response: BaseHTTPResponse) -> None:
    """Keep the connection open where little is left to be read on it, else close it."""
    length = response.headers.get("Content-Length", "")
    try:
        if length.isdigit() and int(length) <= CHUNK:
            response.drain_conn()
    finally:
        response.close()
