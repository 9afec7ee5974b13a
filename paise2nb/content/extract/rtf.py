"""RTF with its 8-bit text as Unicode, for a parser that knows one code page at most.

Source: the Rich Text Format specification 1.9.1: "Character set", "Font table", "Unicode RTF".
"""

from __future__ import annotations

import codecs
import re
from contextlib import suppress

_TOKEN = re.compile(
    rb"\\'(?P<hex>[0-9a-fA-F]{2})|\\(?P<word>[a-zA-Z]+)(?P<number>-?\d{1,9})? ?|\\.|[{}]"
    rb"|(?P<raw>[\x80-\xff]+)|(?P<text>[^\\{}\x80-\xff]+)|\\",
    re.DOTALL,
)
_CHARSETS = {
    77: "mac-roman", 128: "cp932", 129: "cp949", 130: "johab", 134: "gbk", 136: "big5",
    161: "cp1253", 162: "cp1254", 163: "cp1258", 177: "cp1255", 178: "cp1256", 186: "cp1257",
    204: "cp1251", 222: "cp874", 238: "cp1250", 254: "cp437", 255: "cp850",
}  # fmt: skip
_DOCUMENT_CHARSETS = {b"mac": "mac-roman", b"pc": "cp437", b"pca": "cp850"}


def with_unicode(data: bytes) -> bytes:
    """Replace characters of 8-bit code pages by Unicode escapes.

    The code page is that of the document (``\\ansicpg``) or of the current font (``\\fcharset``).
    """
    default = "cp1252"
    fonts: dict[int, str] = {}
    codec, fallback, in_fonts = default, 1, False  # the state, which a group restores at its end
    groups: list[tuple[str, int, bool]] = []
    output, run, font, skip, end = bytearray(), bytearray(), 0, 0, 0
    while match := _TOKEN.match(data, end):
        token, end, word = match[0], match.end(), match["word"]
        if skip and not word and token not in b"{}":  # what other readers see for a Unicode escape
            taken = 1 if match["hex"] else min(skip, len(token))
            end = end if match["hex"] else match.start() + taken
            output += data[match.start() : end]
            skip -= taken
            continue
        if match["hex"] or match["raw"]:
            run += bytes.fromhex(match["hex"].decode()) if match["hex"] else token
            continue
        if run:
            decoder = codecs.getincrementaldecoder(codec)("replace")
            text = decoder.decode(run)
            if match["text"] and decoder.getstate()[0]:  # the second byte of a character is ASCII
                text, token = text + decoder.decode(token[:1]), token[1:]
            output += _escaped(text + decoder.decode(b"", True), fallback)
            run.clear()
        number, skip = int(match["number"] or 0), 0
        if token == b"{":
            groups.append((codec, fallback, in_fonts))
        elif token == b"}" and groups:
            codec, fallback, in_fonts = groups.pop()
        elif word == b"ansicpg" or word in _DOCUMENT_CHARSETS:
            with suppress(LookupError):
                default = codecs.lookup(_DOCUMENT_CHARSETS.get(word, f"cp{number}")).name
                codec = default
        elif word == b"fonttbl":
            in_fonts = True
        elif word == b"f":
            font, codec = number, codec if in_fonts else fonts.get(number, default)
        elif word == b"fcharset":
            fonts[font] = codec = _CHARSETS.get(number, default)
        elif word == b"plain":
            codec = default
        elif word == b"uc":
            fallback = number
        elif word == b"u":
            skip = fallback
        elif word == b"bin":
            token += data[end : end + number]
            end += number
        output += token
    return bytes(output)


def _escaped(text: str, fallback: int) -> bytes:
    """Unicode escapes, each with so many characters for other readers."""
    end = "?" * fallback or " "
    units = memoryview(text.encode("utf-16-le")).cast("h")
    return "".join(f"\\u{unit}{end}" for unit in units).encode()
