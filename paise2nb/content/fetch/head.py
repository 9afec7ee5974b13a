"""The head of an answer, read as browsers read it: what is malformed does not spoil the rest."""

import html
import re
from collections.abc import Sequence
from pathlib import PurePosixPath
from typing import BinaryIO
from urllib.parse import unquote

from paise2nb.content.extract.text import metas

LONGEST = 1 << 20  # bytes of a line
MOST = 98  # lines that the standard library's parser accepts
MAX_DELAY = 30  # seconds; a page that is shown for longer is not only a way to another one

_FIELD = re.compile(rb"([!#$%&'*+.^_`|~0-9A-Za-z-]+)[ \t]*:(.*)", re.DOTALL)
_INTERIM = re.compile(rb"HTTP/\d\.\d\s+1(?!01)\d\d\b")
_NEEDED = re.compile(
    rb"(?i)content-|transfer-|connection|location|refresh|etag|last-|retry-|x-robots-"
)
_LIST = re.compile(r'(?:[^,"]|"(?:[^"\\]|\\.)*+"?)+')
_PARAMETER = re.compile(r';\s*([^=;\s]+)\s*=\s*("(?:[^"\\]|\\.)*+"?|[^;]*)', re.DOTALL)
_MIME_TYPE = re.compile(r"(?!\*/\*)[\w!#$%&'*+.^`|~-]+/[\w!#$%&'*+.^`|~-]+", re.ASCII)
_REFRESH = re.compile(
    r"\s*(\d++)[\d.]*+(?:\s*[;,]|\s)\s*(?:url\s*=\s*)?([\"']?)(.*)", re.IGNORECASE | re.DOTALL
)
_ELEMENT = rb"<(%s)\b(?:(?!</\1).)*+"
_SCRIPTS = re.compile(_ELEMENT % b"script|style|template|textarea", re.IGNORECASE | re.DOTALL)
_NOSCRIPT = re.compile(_ELEMENT % b"noscript", re.IGNORECASE | re.DOTALL)
_SHORT = 300  # bytes of text; a page with less may be nothing but a way to another one


def read_head(stream: BinaryIO) -> bytes:
    """Read the head of the final answer, without interim answers and malformed lines.

    Source: RFC 9110, sections 5.5 and 15.2; RFC 9112, sections 2.2, 5.1 and 5.2. 101 is final,
    because nothing here asks for another protocol.
    """
    while True:
        status, lines = stream.readline(LONGEST), list[bytes]()
        while (line := stream.readline(LONGEST)).strip(b"\r\n"):
            line = re.sub(rb"[\r\0]", b" ", line.rstrip(b"\r\n"))
            if lines and line[:1] in b" \t":
                lines[-1] += b" " + line.strip()
            elif match := _FIELD.fullmatch(line):
                lines.append(match[1] + b":" + match[2])
        if not _INTERIM.match(status):
            lines.sort(key=lambda line: not _NEEDED.match(line))
            return b"\r\n".join([status.rstrip(b"\r\n"), *lines[:MOST], b"", b""]) * bool(status)


def content_type(values: Sequence[str]) -> tuple[str | None, str | None]:
    """The MIME type and the character set that all Content-Type headers together declare.

    Source: the fetch standard, "extract a MIME type", and the MIME sniffing standard, section 4.4.
    The last valid one of several counts. What can't be parsed counts as undeclared.
    """
    essence = charset = None
    for value in _LIST.findall(",".join(values)):
        name = value.partition(";")[0].strip().lower()
        if _MIME_TYPE.fullmatch(name):
            named = _parameters(value).get("charset")
            charset = named or (charset if name == essence else None)
            essence = name
    return essence, charset


def file_name(disposition: str) -> str | None:
    """The name that Content-Disposition gives a file, without directories.

    Source: RFC 6266, section 4.3; RFC 8187. Like browsers, it accepts UTF-8 and escapes.
    """
    named = _parameters(disposition)
    charset, quoted, extended = named.get("filename*", "").partition("'")
    name = named.get("filename", "")
    try:
        name = name.encode("latin-1").decode()
        name = unquote(extended.partition("'")[2] if quoted else name, charset or "utf-8")
    except (LookupError, UnicodeError):
        pass  # the name as it is
    name = PurePosixPath(name.replace("\\", "/")).name
    return "".join(filter(str.isprintable, name)).strip(". ")[:200] or None


def _parameters(value: str) -> dict[str, str]:
    """The parameters of a header by their names in lower case. The first of each name counts."""
    found: dict[str, str] = {}
    for name, text in _PARAMETER.findall(value):
        if text.startswith('"'):
            text = re.sub(r"\\([\"\\])", r"\1", text[1:].removesuffix('"'))
        found.setdefault(name.lower(), text.strip().strip("'"))
    return found


def refresh_target(header: str | None, page: bytes) -> str | None:
    """The URL that a Refresh header or a page itself soon leads to, as it is written there.

    Source: the HTML standard, "shared declarative refresh steps". One for browsers without scripts
    counts if the page has next to no text.
    """
    found = [header or ""]
    if b"refresh" in page.lower():
        page = _SCRIPTS.sub(b"", page)
        scripted = _NOSCRIPT.sub(b"", page)
        is_short = len(re.sub(rb"<[^<>]*+>|\s", b"", scripted)) < _SHORT
        tags = metas(page if is_short else scripted)
        found += [
            html.unescape(values.get("content", ""))
            for _, values in tags
            if values.get("http-equiv", "").lower() == "refresh"
        ]
    for value in found:
        if (match := _REFRESH.match(value)) and int(match[1][:9]) <= MAX_DELAY:
            return (match[3].partition(match[2])[0] if match[2] else match[3]).strip() or None
    return None
