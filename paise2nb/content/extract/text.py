"""Plain text: detecting its character set and its title."""

from __future__ import annotations

import codecs
import re
from collections.abc import Iterator
from contextlib import suppress

from paise2nb.plugins import Document, Source

_BYTE_ORDER_MARKS = (
    (codecs.BOM_UTF8, "utf-8"),
    (codecs.BOM_UTF32_LE, "utf-32-le"),  # before UTF-16, its mark begins like that one
    (codecs.BOM_UTF32_BE, "utf-32-be"),
    (codecs.BOM_UTF16_LE, "utf-16-le"),
    (codecs.BOM_UTF16_BE, "utf-16-be"),
)
# The wider encodings that browsers use for some labels. Source: the WHATWG encoding standard,
# section 4.2.
_LABELS = {
    "ascii": "cp1252",
    "iso8859-1": "cp1252",
    "iso8859-9": "cp1254",
    "iso8859-11": "cp874",
    "tis-620": "cp874",
    "shift_jis": "cp932",
    "gb2312": "gb18030",
    "gbk": "gb18030",
    "euc_kr": "cp949",
    "big5": "big5hkscs",
}
_DECLARED = re.compile(
    rb"<meta[^>]+charset\s*=\s*[\"']?\s*([A-Za-z0-9_.:-]+)"
    rb"|<\?xml[^>]+encoding\s*=\s*[\"']([A-Za-z0-9_.:-]+)",
    re.IGNORECASE,
)
CHUNK = 65536  # bytes that a parser gets at once
_DETECTED = 65536  # bytes by which the character set is detected
_HEADING = re.compile(
    r"^ {0,3}#{1,6}[ \t]+(\S.*)$|^(?! {4})(\S.*)\n(?:=+|-{3,})[ \t]*$", re.MULTILINE
)
_TOP = 65536  # characters that are searched for a heading


def decode(data: bytes, charset: str | None = None) -> str:
    """Decode bytes by their byte order mark, as valid UTF-8, as declared, or as detected.

    Args:
        data: The bytes.
        charset: The declaration of the server. That of the text itself (HTML, XML) comes second.
    """
    for mark, name in _BYTE_ORDER_MARKS:
        if data.startswith(mark):
            return data[len(mark) :].decode(name, "replace")
    declared = [name for name in (_codec(charset), _codec(_inner(data))) if name]
    # UTF-16 without a mark and the 7-bit encodings are valid UTF-8, too, but as gibberish.
    is_likely = b"\0" not in data and b"\x1b" not in data
    declared.insert(0 if is_likely else len(declared), "utf-8")
    for name in declared:
        with suppress(UnicodeError):
            return data.decode(name)
    for name in declared:
        text = data.decode(name, "replace")
        if _is_nearly_valid(text):
            return text
    return data.decode(_detect(data), "replace")


def chunks(data: bytes) -> Iterator[bytes]:
    """Split bytes for a parser, so that it builds nothing as large as all of them."""
    return (data[start : start + CHUNK] for start in range(0, len(data), CHUNK))


def read(data: bytes, source: Source) -> Document:
    """Take text, CSV, JSON and the like unchanged. The first heading is the title of Markdown."""
    text = decode(data, source.charset).replace("\r\n", "\n")
    is_markdown = source.mime_type == "text/markdown"
    return Document(text, title=first_heading(text) if is_markdown else None)


def first_heading(markdown: str) -> str | None:
    """The first heading of a Markdown text outside of code, without its marks."""
    top = re.sub(r"^(```|~~~).*?^\1", "", markdown[:_TOP], flags=re.MULTILINE | re.DOTALL)
    top = re.sub(r"\A---\n.*?\n---\n", "", top, flags=re.DOTALL)  # front matter
    match = _HEADING.search(top)
    return (match[1] or match[2]).rstrip("# \t\r") or None if match else None


def _inner(data: bytes) -> str | None:
    match = _DECLARED.search(data[:4096])
    return (match[1] or match[2]).decode("ascii") if match else None


def _codec(label: str | None) -> str | None:
    """Python's name of the character set that browsers use for a label."""
    label = (label or "").strip().lower()
    for name in (label, label.removeprefix("x-")):
        with suppress(LookupError, ValueError):
            info = codecs.lookup(name)
            if info._is_text_encoding:  # base64 and others are codecs, too
                return _LABELS.get(info.name, info.name)
    return None


def _is_nearly_valid(text: str) -> bool:
    """Whether only a few of the characters that are not ASCII could not be decoded."""
    return text.count("\ufffd") * 10 < sum(not character.isascii() for character in text)


def _detect(data: bytes) -> str:
    from charset_normalizer import from_bytes

    best = from_bytes(data[:_DETECTED]).best()
    return (best.encoding if best else None) or "cp1252"
