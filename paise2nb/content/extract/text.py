"""Plain text: detecting its character set and its title."""

from __future__ import annotations

import codecs
import json
import re
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

from paise2nb.plugins import Document, Source

# UTF-32 comes before UTF-16, because its little-endian mark begins with that of UTF-16. These
# codecs remove the mark.
_BYTE_ORDER_MARKS = {
    (codecs.BOM_UTF8,): "utf-8-sig",
    (codecs.BOM_UTF32_LE, codecs.BOM_UTF32_BE): "utf-32",
    (codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE): "utf-16",
}
# The wider encodings that browsers use for some labels. Source: the WHATWG encoding standard,
# section 4.2.
_CHARSETS = json.loads(Path(__file__).with_name("charsets.json").read_text("utf-8"))
_DECLARATION = rb"""
<meta[^>]+charset\s*=\s*["']?\s*([A-Za-z0-9_.:-]+)
| <\?xml[^>]+encoding\s*=\s*["']([A-Za-z0-9_.:-]+)
"""
_DECLARED = re.compile(_DECLARATION, re.IGNORECASE | re.VERBOSE)
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
    for marks, codec in _BYTE_ORDER_MARKS.items():
        if data.startswith(marks):
            return data.decode(codec, "replace")
    inner = _DECLARED.search(data[:4096])
    labels = (charset, (inner[1] or inner[2]).decode("ascii") if inner else None)
    declared = [name for label in labels if (name := _codec(label))]
    # UTF-16 without a mark and the 7-bit encodings are valid UTF-8, too, but as gibberish.
    is_likely = b"\0" not in data and b"\x1b" not in data
    declared.insert(0 if is_likely else len(declared), "utf-8")
    for name in declared:
        with suppress(UnicodeError):
            return data.decode(name)
    for name in declared:
        text = data.decode(name, "replace")
        # At most one in ten of the characters that are not ASCII could not be decoded.
        if text.count("\ufffd") * 10 < sum(not character.isascii() for character in text):
            return text
    from charset_normalizer import from_bytes

    best = from_bytes(data[:_DETECTED]).best()
    return data.decode((best.encoding if best else None) or "cp1252", "replace")


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


def _codec(label: str | None) -> str | None:
    """Python's name of the character set that browsers use for a label."""
    label = (label or "").strip().lower()
    for name in (label, label.removeprefix("x-")):
        with suppress(LookupError, ValueError):
            info = codecs.lookup(name)
            if info._is_text_encoding:  # base64 and others are codecs, too
                return str(_CHARSETS.get(info.name, info.name))
    return None
