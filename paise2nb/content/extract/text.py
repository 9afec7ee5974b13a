"""Text that is text already: finding its character set, and taking it as it is."""

from __future__ import annotations

import codecs
import re

from paise2nb.plugins import Document, Source

_MARKS = (
    (codecs.BOM_UTF8, "utf-8"),
    (codecs.BOM_UTF32_LE, "utf-32-le"),  # before UTF-16, whose mark begins it
    (codecs.BOM_UTF32_BE, "utf-32-be"),
    (codecs.BOM_UTF16_LE, "utf-16-le"),
    (codecs.BOM_UTF16_BE, "utf-16-be"),
)
# What browsers read a label as, where Python takes it more narrowly. Source: the WHATWG
# encoding standard, section 4.2.
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
_DETECTED = 65536  # bytes that the detection looks at
_HEADING = re.compile(
    r"^ {0,3}#{1,6}[ \t]+(\S.*)$|^(?! {4})(\S.*)\n(?:=+|-{3,})[ \t]*$", re.MULTILINE
)
_TOP = 65536  # characters in which a heading is looked for


def decode(data: bytes, charset: str | None = None) -> str:
    """The text of bytes: by their mark, as strict UTF-8, as declared, as detected.

    Args:
        data: the bytes.
        charset: what the server declared; what the text itself declares (HTML, XML) comes after.
    """
    for mark, name in _MARKS:
        if data.startswith(mark):
            return data[len(mark) :].decode(name, "replace")
    declared = [name for name in (_codec(charset), _codec(_inner(data))) if name]
    # UTF-16 without a mark and the 7-bit encodings are valid UTF-8 too, as gibberish.
    if b"\0" not in data and b"\x1b" not in data:
        declared.insert(0, "utf-8")
    else:
        declared.append("utf-8")
    for name in declared:
        try:
            return data.decode(name)
        except UnicodeError:
            continue
    for name in declared:
        text = data.decode(name, "replace")
        if _is_nearly_right(text):
            return text
    return data.decode(_detect(data), "replace")


def plain(data: bytes, source: Source) -> Document:
    """Text, CSV, JSON and the like: as they are. A Markdown text is called by its first heading."""
    text = decode(data, source.charset).replace("\r\n", "\n")
    return Document(
        text, title=first_heading(text) if source.mime_type == "text/markdown" else None
    )


def first_heading(markdown: str) -> str | None:
    """The first heading of a Markdown text, without its marks; headings in code are not meant."""
    top = re.sub(r"^(```|~~~).*?^\1", "", markdown[:_TOP], flags=re.MULTILINE | re.DOTALL)
    top = re.sub(r"\A---\n.*?\n---\n", "", top, flags=re.DOTALL)  # front matter
    match = _HEADING.search(top)
    return (match[1] or match[2]).rstrip("# \t\r") or None if match else None


def _inner(data: bytes) -> str | None:
    match = _DECLARED.search(data[:4096])
    return (match[1] or match[2]).decode("ascii") if match else None


def _codec(label: str | None) -> str | None:
    """Python's name for a character set, as browsers understand its label."""
    label = (label or "").strip().lower()
    for name in (label, label.removeprefix("x-")):
        try:
            info = codecs.lookup(name)
        except (LookupError, ValueError):
            continue
        if info._is_text_encoding:  # base64 and the like are codecs too
            return _LABELS.get(info.name, info.name)
    return None


def _is_nearly_right(text: str) -> bool:
    """Whether a character set is right but for a few damaged bytes."""
    foreign = sum(not character.isascii() for character in text)
    return text.count("\ufffd") * 10 < foreign


def _detect(data: bytes) -> str:
    from charset_normalizer import from_bytes

    best = from_bytes(data[:_DETECTED]).best()
    return (best.encoding if best else None) or "cp1252"
