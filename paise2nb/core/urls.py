"""Addresses: reading them strictly, comparing them, and showing them without their secrets.

An address is fetched as the user gave it; `canonical_url` is only the key by which duplicates
are found. The standard library's parser is lenient, so its result is checked here, once.
"""

from __future__ import annotations

import ipaddress
import os
import re
import socket
from pathlib import Path, PurePosixPath
from typing import NamedTuple
from urllib.parse import quote, unquote, urlsplit, urlunsplit
from urllib.request import url2pathname

DEFAULT_PORTS = {"http": 80, "https": 443}

# Query parameters that say how a reader came to a page, never which page it is: Google, Meta,
# Microsoft, Yandex, TikTok, X, LinkedIn, Pinterest, Instagram, Mailchimp, HubSpot, Marketo, …
TRACKERS = frozenset({
    "_ga", "_gl", "_hsenc", "_hsmi", "_openstat", "dclid", "epik", "fbclid", "gad_source",
    "gbraid", "gclid", "gclsrc", "hsctatracking", "igsh", "igshid", "li_fat_id", "mc_cid",
    "mc_eid", "mkt_tok", "msclkid", "oly_anon_id", "oly_enc_id", "rb_clickid", "srsltid",
    "ttclid", "twclid", "vero_conv", "vero_id", "wbraid", "wickedid", "yclid", "ysclid",
})  # fmt: skip
_TRACKER_FAMILIES = ("utm_", "pk_", "piwik_", "mtm_")

_SCHEME = re.compile(r"([A-Za-z][A-Za-z0-9+.-]*):")
_CONTROL = re.compile(r"[\x00-\x1f\x7f\ud800-\udfff]")
_ESCAPE = re.compile(r"%([0-9A-Fa-f]{2})")
_UNRESERVED = frozenset(
    "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-._~"
)  # RFC 3986, section 2.3
_SAFE = "%:/?#[]@!$&'()*+,;=~"  # what an address may hold as it is, beside the unreserved
_HOST_NAME = re.compile(r"(?!-)[a-z0-9_-]{1,63}(?<!-)(\.(?!-)[a-z0-9_-]{1,63}(?<!-))*\.?")
# What ends so is an IPv4 address, or nothing.
_NUMBER = re.compile(r"(.*\.)?([0-9]+|0x[0-9a-f]*)\.?")


class Address(NamedTuple):
    """An http or https address, checked: the host is ASCII, the target ready to be sent."""

    scheme: str
    host: str
    port: int
    target: str
    credentials: str | None

    @property
    def origin(self) -> tuple[str, str, int]:
        """Scheme, host and port: what credentials may be sent to (RFC 6454)."""
        return self.scheme, self.host, self.port

    @property
    def absolute(self) -> str:
        """All of it, without credentials."""
        host = f"[{self.host}]" if ":" in self.host else self.host
        port = "" if self.port == DEFAULT_PORTS[self.scheme] else f":{self.port}"
        return f"{self.scheme}://{host}{port}{self.target}"


def scheme_of(text: str) -> str | None:
    """The scheme of an address in lower case, None where the text has none."""
    match = _SCHEME.match(text)
    return match[1].lower() if match else None


def parse(url: str) -> Address:
    """Read an http or https address.

    Raises:
        ValueError: what is wrong with it, in a few words without the address itself.
    """
    if _CONTROL.search(url):
        raise ValueError("it holds control characters")
    try:
        parts = urlsplit(url.strip())
    except ValueError:
        raise ValueError("the host is not a valid name") from None
    try:
        port = parts.port
    except ValueError:
        raise ValueError("the port is not a number from 1 to 65535") from None
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
    return Address(
        parts.scheme,
        ascii_host(parts.hostname),
        port or DEFAULT_PORTS[parts.scheme],
        target,
        unquote(credentials) if at else None,
    )


def host_of(url: str) -> str | None:
    """The host of an http or https address, by which requests are paced; None for all else."""
    try:
        return parse(url).host.rstrip(".")
    except ValueError:
        return None


def ascii_host(host: str) -> str:
    """A host name as it is sent: lower case, IDNA 2008 with the mapping of UTS 46.

    What ends in a number is an IPv4 address, however it is spelled (URL Standard, section 3.5).

    Raises:
        ValueError: it is neither a name nor an IP address.
    """
    host = host.lower()
    try:
        if ":" in host and "%" not in host:  # a zone means nothing to other computers
            return ipaddress.IPv6Address(host).compressed
        if not host.isascii():
            import idna

            host = idna.encode(host, uts46=True).decode("ascii")
        if _HOST_NAME.fullmatch(host) and len(host) <= 254:
            number = _NUMBER.fullmatch(host)
            return socket.inet_ntoa(socket.inet_aton(host.rstrip("."))) if number else host
    except (ValueError, OSError):  # idna's errors are of the first kind
        pass
    raise ValueError("the host is not a valid name")


def canonical_url(url: str) -> str:
    """The key by which two spellings of one address are known to be the same.

    For http and https: RFC 3986, section 6.2 (case, percent-encoding, dot segments, default
    port, empty path), without fragment, credentials and tracking parameters. A path is the
    ``file:`` address of that path. What can't be read as an address stays as it is.
    """
    scheme = scheme_of(url)
    try:
        if scheme in ("file", None):
            return file_url(os.path.normpath(url_path(url)))
        if scheme not in DEFAULT_PORTS:
            return url
        address = parse(url)
    except ValueError:
        return url
    host = address.host.rstrip(".")
    netloc = f"[{host}]" if ":" in host else host
    if address.port != DEFAULT_PORTS[address.scheme]:
        netloc += f":{address.port}"
    path, _, query = address.target.partition("?")
    path = _remove_dot_segments(_normal_escapes(path)) or "/"
    kept = [part for part in _normal_escapes(query).split("&") if not _is_tracker(part)]
    return urlunsplit((address.scheme, netloc, path, "&".join(kept), ""))


def without_credentials(url: str) -> str:
    """The address for messages, items and links: the user name and password are left out."""
    scheme, mark, rest = url.partition("://")
    if not mark:
        return url
    authority = re.split(r"[/?#\\]", rest, maxsplit=1)[0]
    return scheme + mark + rest[authority.rfind("@") + 1 :]


def name_of(url: str) -> str:
    """The last segment of the path, such as ``Report 1.pdf``; may be empty."""
    try:
        path = urlsplit(url).path
    except ValueError:
        return ""
    return PurePosixPath(unquote(path)).name


def suffix_of(url: str) -> str:
    """The suffix of the last segment of the path in lower case, such as ``.pdf``; may be empty."""
    return PurePosixPath(name_of(url)).suffix.lower()


def file_url(path: str) -> str:
    """The ``file:`` address of an absolute path."""
    return Path(path).as_uri() if Path(path).is_absolute() else path


def url_path(text: str) -> str:
    """The path that a ``file:`` address names; a path is returned as it is.

    Raises:
        ValueError: the address names another computer.
    """
    if scheme_of(text) != "file":
        return text
    parts = urlsplit(text)
    if parts.netloc.lower() not in ("", "localhost"):
        raise ValueError(f"the file is on another host, {parts.netloc}")
    return url2pathname(parts.path)


def _is_tracker(parameter: str) -> bool:
    name = unquote(parameter.partition("=")[0]).lower()
    return not parameter or name in TRACKERS or name.startswith(_TRACKER_FAMILIES)


def _normal_escapes(text: str) -> str:
    """Decode what needs no escape, write the other escapes in upper case."""

    def normal(match: re.Match[str]) -> str:
        character = chr(int(match[1], 16))
        return character if character in _UNRESERVED else match[0].upper()

    return _ESCAPE.sub(normal, text)


def _remove_dot_segments(path: str) -> str:
    """RFC 3986, section 5.2.4, for a path that begins with a slash."""
    kept: list[str] = []
    segments = path.split("/")[1:]
    for segment in segments:
        if segment == "..":
            del kept[-1:]
        elif segment != ".":
            kept.append(segment)
    if segments and segments[-1] in (".", ".."):
        kept.append("")
    return "/" + "/".join(kept)
