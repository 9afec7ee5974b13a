"""Parse URLs strictly, compare them, and show them without credentials.

A URL is fetched as the user gave it; its canonical form is only the key by which duplicates are
found. The standard library's parser is lenient, so its results are checked here.
"""

import ipaddress
import os
import re
import socket
import string
from typing import NamedTuple
from urllib.parse import quote, unquote, urlsplit, urlunsplit

from paise2nb.core.errors import HIDDEN, SECRET_NAME

DEFAULT_PORTS = {"http": 80, "https": 443}

# Query parameters that tell how a reader came to a page, not which page it is: of Google, Meta,
# Microsoft, Yandex, TikTok, X, LinkedIn, Pinterest, Instagram, Mailchimp, HubSpot, Marketo, …
_TRACKER_NAMES = (
    "_ga _gl _hsenc _hsmi _openstat dclid epik fbclid gad_source gbraid gclid gclsrc hsctatracking"
    " igsh igshid li_fat_id mc_cid mc_eid mkt_tok msclkid oly_anon_id oly_enc_id rb_clickid srsltid"
    " ttclid twclid vero_conv vero_id wbraid wickedid yclid ysclid"
)
_TRACKERS = frozenset(_TRACKER_NAMES.split())
_TRACKER_PREFIXES = ("utm_", "pk_", "piwik_", "mtm_")

# The value of a parameter may be followed by the path of an archive's member, after "!/".
_SECRET = re.compile(rf"([?&;#]{SECRET_NAME}=)(?:(?!!/)[^&#])+", re.IGNORECASE)
_HIDDEN_SECRET = re.compile(rf"[?&;#]{SECRET_NAME}=(?:{HIDDEN}|%E2%80%A6)", re.IGNORECASE)
_AUTHORITY = re.compile(r"[A-Za-z][A-Za-z0-9+.-]*://([^/?]*)")
_SCHEME = re.compile(r"([A-Za-z][A-Za-z0-9+.-]*):")
_CONTROL = re.compile(r"[\x00-\x1f\x7f\ud800-\udfff]")
_ESCAPE = re.compile(r"%([0-9A-Fa-f]{2})")
_UNRESERVED = frozenset(string.ascii_letters + string.digits + "-._~")  # RFC 3986, section 2.3
_SAFE = "%:/?#[]@!$&'()*+,;=~"  # the other characters that a URL may contain without an escape
_HOST_NAME = re.compile(r"(?!-)[a-z0-9_-]{1,63}(\.(?!-)[a-z0-9_-]{1,63})*\.?")
# A host that ends in a number is an IPv4 address or invalid: URL Standard, section 3.5.
_IPV4 = re.compile(r"(.*\.)?([0-9]+|0x[0-9a-f]*)\.?")


class ParsedURL(NamedTuple):
    """A parsed http or https URL: the host is ASCII, the target is percent-encoded."""

    scheme: str
    host: str
    port: int
    target: str
    credentials: str | None

    @property
    def origin(self) -> tuple[str, str, int]:
        """Scheme, host and port, the scope of credentials: RFC 6454."""
        return self.scheme, self.host, self.port

    @property
    def netloc(self) -> str:
        """The host, and the port unless it is the default."""
        host = f"[{self.host}]" if ":" in self.host else self.host
        return host if self.port == DEFAULT_PORTS[self.scheme] else f"{host}:{self.port}"

    @property
    def absolute(self) -> str:
        """The URL without credentials."""
        return f"{self.scheme}://{self.netloc}{self.target}"


def scheme_of(text: str) -> str | None:
    """Return the scheme of a URL in lower case, or None if the text has none."""
    match = _SCHEME.match(text)
    return match[1].lower() if match else None


def parse(url: str) -> ParsedURL:
    """Parse an http or https URL.

    Raises:
        ValueError: The URL is invalid. The message tells why, without the URL itself.
    """
    if _CONTROL.search(url):
        raise ValueError("it contains control characters")
    try:
        parts = urlsplit(url.strip())
    except ValueError:
        raise ValueError("the host is not a valid name") from None
    try:
        port = parts.port
    except ValueError:
        port = 0
    if parts.scheme not in DEFAULT_PORTS:
        raise ValueError(f"{parts.scheme or 'no'} scheme where http or https was expected")
    if not parts.hostname:
        raise ValueError("the host is missing")
    if port == 0:
        raise ValueError("the port is not a number from 1 to 65535")
    target = quote(parts.path or "/", safe=_SAFE) + (
        "?" + quote(parts.query, safe=_SAFE) if parts.query else ""
    )
    credentials, at, _ = parts.netloc.rpartition("@")
    return ParsedURL(
        parts.scheme,
        ascii_host(parts.hostname),
        port or DEFAULT_PORTS[parts.scheme],
        target,
        unquote(credentials) if at else None,
    )


def host_of(url: str) -> str | None:
    """Return the host of an http or https URL, by which requests are limited, else None."""
    try:
        return parse(url).host.rstrip(".")
    except ValueError:
        return None


def ascii_host(host: str) -> str:
    """Encode a host name for a request: lower case, with the mapping of UTS 46 and Punycode.

    Like browsers, it accepts symbols and a hyphen at the end of a label. A host that ends in a
    number is an IPv4 address, in whatever spelling: URL Standard, section 3.5.

    Raises:
        ValueError: The host is neither a name nor an IP address.
    """
    host = host.lower()
    try:
        if ":" in host and "%" not in host:  # a zone has no meaning for other computers
            return ipaddress.IPv6Address(host).compressed
        if not host.isascii():
            import idna

            labels = idna.uts46_remap(host).split(".")
            host = ".".join(
                name if name.isascii() else f"xn--{name.encode('punycode').decode()}"
                for name in labels
            )
        if _HOST_NAME.fullmatch(host) and len(host) <= 254:
            number = _IPV4.fullmatch(host)
            return socket.inet_ntoa(socket.inet_aton(host.rstrip("."))) if number else host
    except (ValueError, OSError):  # IDNAError is a ValueError
        pass
    raise ValueError("the host is not a valid name")


def canonical_url(url: str) -> str:
    """Return the key by which different spellings of one URL are known to be the same.

    For http and https: RFC 3986, section 6.2 (case, percent-encoding, dot segments, default
    port, empty path), without fragment, credentials, tracking parameters and the values of secret
    ones. For a path: its ``file:`` URL. An invalid URL is returned as it is.
    """
    scheme = scheme_of(url)
    if scheme not in ("file", None):
        url = shown_url(url)
    try:
        if scheme in ("file", None):
            return file_url(os.path.normpath(url_path(url)))
        if scheme not in DEFAULT_PORTS:
            return url
        parsed = parse(url)
    except ValueError:
        return url
    netloc = parsed._replace(host=parsed.host.rstrip(".")).netloc
    path, _, query = parsed.target.partition("?")
    path = _remove_dot_segments(_normal_escapes(path)) or "/"
    parameters = [part for part in _normal_escapes(query).split("&") if not _is_tracker(part)]
    return urlunsplit((parsed.scheme, netloc, path, "&".join(parameters), ""))


def without_credentials(url: str) -> str:
    """Return a URL without user name and password."""
    scheme, separator, rest = url.partition("://")
    if not separator:
        return url
    authority = re.split(r"[/?#\\]", rest, maxsplit=1)[0]
    return scheme + separator + rest[authority.rfind("@") + 1 :]


def shown_url(url: str) -> str:
    """Return a URL for items and results: without credentials and the values of secret parameters.

    Such as ``?api_key=…&page=2``. It can't be fetched.
    """
    return _SECRET.sub(rf"\g<1>{HIDDEN}", without_credentials(url))


def has_hidden_secret(url: str) -> bool:
    """Whether a URL comes from `shown_url` and lacks a secret."""
    return bool(_HIDDEN_SECRET.search(url))


def name_of(url: str) -> str:
    """Return the last segment of the path, such as ``Report 1.pdf``. It may be empty.

    The path of an archive's member comes last, even after a query.
    """
    try:
        path = urlsplit(url.rpartition("!/")[2]).path
    except ValueError:
        return ""
    names = [name for name in unquote(path).split("/") if name not in ("", ".")]
    return names[-1] if names else ""


def short_url(url: str, length: int = 60) -> tuple[str, str]:
    """Return the host of a URL and the end of its path, with which a list has room for it.

    Args:
        url: A URL or a path.
        length: The most characters of both. What is left out in the middle is an ellipsis.

    Returns:
        The host, which is empty for a file, and the path with the query:
        ``("example.org", "/…/2026/tides.html")``.
    """
    text = shown_url(url)
    if "://" in text:  # in a path, these signs are as they are
        text = text.partition("#")[0]
        readable = unquote(text)
        text = text if "\ufffd" in readable else readable
    authority = _AUTHORITY.match(text)
    host = authority[1] if authority else ""
    path = text[authority.end() :] if authority else text
    if len(host) > length // 2:
        host = f"…{host[-length // 2 :]}"
    path = "" if host and path == "/" else path
    room = max(length - len(host), 8) - 2
    if len(path) > room + 2:
        end = path[-room:]
        # Whole segments, but not if much would be lost.
        first = end.find("/", 0, room // 2)
        path = f"/…{end[max(first, 0) :]}"
    return host, path


def suffix_of(url: str) -> str:
    """Return the suffix of the path in lower case, such as ``.pdf``. It may be empty."""
    return os.path.splitext(name_of(url))[1].lower()


def file_url(path: str) -> str:
    """Return the ``file:`` URL of an absolute path, and a relative path as it is."""
    if not path.startswith("/"):
        return path
    # Several times as fast as pathlib, for each job of a file: see tests.benchmarks.folder.
    names = [name for name in path.split("/") if name not in ("", ".")]
    return "file:///" + quote(os.fsencode("/".join(names)))


def url_path(text: str) -> str:
    """Return the path in a ``file:`` URL, and any other text as it is.

    Raises:
        ValueError: The URL names another host.
    """
    if scheme_of(text) != "file":
        return text
    parts = urlsplit(text)
    if parts.netloc.lower() not in ("", "localhost"):
        raise ValueError(f"the file is on another host, {parts.netloc}")
    return unquote(parts.path)


def _is_tracker(parameter: str) -> bool:
    name = unquote(parameter.partition("=")[0]).lower()
    return not parameter or name in _TRACKERS or name.startswith(_TRACKER_PREFIXES)


def _normal_escapes(text: str) -> str:
    """Decode unreserved characters, and write all other escapes in upper case."""

    def normal(match: re.Match[str]) -> str:
        character = chr(int(match[1], 16))
        return character if character in _UNRESERVED else match[0].upper()

    return _ESCAPE.sub(normal, text)


def _remove_dot_segments(path: str) -> str:
    """RFC 3986, section 5.2.4, for a path that begins with a slash."""
    output: list[str] = []
    segments = path.split("/")[1:]
    for segment in segments:
        if segment == "..":
            del output[-1:]
        elif segment != ".":
            output.append(segment)
    if segments and segments[-1] in (".", ".."):
        output.append("")
    return "/" + "/".join(output)
