"""RTF with its 8-bit text as Unicode, for a parser that knows one code page at most.

Source: the Rich Text Format specification 1.9.1: "Character set", "Font table", "Unicode RTF".
"""

import codecs
import re

from paise2nb.content.extract.text import codec_of

_TOKEN = re.compile(
    rb"\\'(?P<hex>[0-9a-fA-F]{2})|\\(?P<word>[a-zA-Z]+)(?P<number>-?\d{1,9})? ?|\\.|[{}]"
    rb"|(?P<raw>[\x80-\xff]+)|(?P<text>[^\\{}\x80-\xff]+)|\\",
    re.DOTALL,
)
_CHARSETS = {
    77: "mac", 128: "cp932", 129: "cp949", 130: "johab", 134: "gbk", 136: "big5", 161: "cp1253",
    162: "cp1254", 163: "cp1258", 177: "cp1255", 178: "cp1256", 186: "cp1257", 204: "cp1251",
    222: "cp874", 238: "cp1250", 254: "cp437", 255: "cp850",
}  # fmt: skip
_DEFAULT = re.compile(rb"\\(?:ansi(cpg\d{1,5})|(mac|pca?)\b)")
_FONT = re.compile(rb"\\f(\d{1,9})[^{}]{0,99}?\\fcharset(\d{1,9})")


def with_unicode(data: bytes) -> bytes:
    """Replace characters of 8-bit code pages by Unicode escapes.

    The code page is that of the document (``\\ansicpg``) or of the current font (``\\fcharset``).
    """
    named = _DEFAULT.search(data[:1024])
    label = (named[1] or named[2]).decode().replace("pca", "cp850") if named else ""
    default = codec_of("cp437" if label == "pc" else label.replace("cpg", "cp")) or "cp1252"
    fonts = {int(m[1]): _CHARSETS.get(int(m[2]), default) for m in _FONT.finditer(data)}
    codec, fallback = default, 1  # which a group restores at its end
    groups, output, run = list[tuple[str, int]](), bytearray(), bytearray()
    skip = end = 0
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
            groups.append((codec, fallback))
        elif token == b"}" and groups:
            codec, fallback = groups.pop()
        elif word in (b"f", b"plain"):
            codec = fonts.get(number, default) if word == b"f" else default
        elif word == b"uc":
            fallback = min(number, 9)
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
