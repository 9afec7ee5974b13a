"""Plain text: detecting its character set and its title."""

import codecs
import json
import re
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

from paise2nb.core.errors import PermanentError
from paise2nb.core.urls import host_of
from paise2nb.plugins import Document, Source

# UTF-32 comes before UTF-16, because its little-endian mark begins with that of UTF-16. These
# codecs remove the mark.
_BYTE_ORDER_MARKS = {
    (codecs.BOM_UTF8,): "utf-8-sig",
    (codecs.BOM_UTF32_LE, codecs.BOM_UTF32_BE): "utf-32",
    (codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE): "utf-16",
}
# By codec, the labels for which browsers use it and Python another one or none. Source: the WHATWG
# encoding standard, section 4.2. And by language, the top-level domain of a country with it.
_TABLES = json.loads(Path(__file__).with_name("charsets.json").read_text("utf-8"))
_CODECS = {label: codec for codec, names in _TABLES["labels"].items() for label in names.split()}
# An encoding of browsers that Python lacks: section 14.5 there.
_USER_DEFINED, _PRIVATE = "x-user-defined", {byte: 0xF700 + byte for byte in range(0x80, 0x100)}
_UNREADABLE = ("iso-2022-cn", "iso-2022-cn-ext")  # neither browsers nor Python decode these
_SHIFTED = ("hz", "iso2022")  # how the names of 7-bit encodings begin
# Possessive, with one way to match each piece, so that hostile bytes cause no backtracking.
_ATTRIBUTES = r"""((?:[^>"']++|"[^"]*+"|'[^']*+'|["'])*+)"""
_TAGS = re.compile(
    rf"<!--(?:(?!-->).)*+|<(meta|html)[\s/]{_ATTRIBUTES}|</?[a-z][^\s/>]*+{_ATTRIBUTES}",
    re.IGNORECASE | re.DOTALL,
)
_ATTRIBUTE = re.compile(r"""([^\s/>=]++)(?:\s*+=\s*+(?:"([^"]*+)"?|'([^']*+)'?|([^\s>"']*+)))?""")
_CHARSET = re.compile(r"charset\s*=\s*[\"']?\s*([^\s\"';]+)", re.IGNORECASE)
_XML = re.compile(rb"\s*<\?xml[^>]+?encoding\s*=\s*[\"']\s*([A-Za-z0-9_.:-]+)", re.IGNORECASE)
# Bytes that are not ASCII, with the ASCII between and after them: no character is cut in two.
_EVIDENCE = re.compile(rb"[\x80-\xff]++(?:[\x00-\x7f]{1,32}+[\x80-\xff]++)*+[\x00-\x7f]{0,32}")
CONTROLS = re.compile(rb"[\x00-\x08\x0b\x0e-\x1a\x1c-\x1f]")  # no text has these
HEAD = 16384  # bytes that are searched for declarations
CHUNK = 65536  # bytes that a parser gets at once
SAMPLE = 16384  # bytes by which the character set is detected
_ASCII = bytes(range(128))
FEW = 3  # bytes that are not ASCII; with fewer of them, a text is western unless it says otherwise
_JSON_ESCAPES = re.compile(r'(?:\\(?:u[0-9a-fA-F]{4}|["\\/bfnrt]))+')  # RFC 8259, section 7
_FOLDED = ("text/calendar", "text/vcard")  # lines are cut in words: RFC 5545, section 3.1
_HEADING = re.compile(
    r"^ {0,3}#{1,6}[ \t]+(\S.*)$|^(?! {4})(\S.*)\n(?:=+|-{3,})[ \t]*$", re.MULTILINE
)
_TOP = 65536  # characters that are searched for a heading


def decode(data: bytes, charset: str | None = None, url: str = "") -> str:
    """Decode bytes by their byte order mark, as UTF-8, as declared, or as detected.

    Args:
        data: The bytes.
        charset: The declaration of the server. That of the text itself (HTML, XML) comes second.
        url: Where they come from. Its top-level domain helps the detection.

    Raises:
        PermanentError: ``unsupported``.
    """
    for marks, codec in _BYTE_ORDER_MARKS.items():
        if data.startswith(marks):
            return data.decode(codec, "replace")
    # UTF-16 without a mark and the 7-bit encodings are valid UTF-8, too, but as gibberish.
    is_shifted = data.isascii() and (b"\x1b" in data or b"~{" in data)
    if wide := utf_16(data[:HEAD]) if b"\0" in data else None:
        return data.decode(wide, "replace")
    if not is_shifted and b"\0" not in data:
        text = data.decode("utf-8", "replace")
        broken = text.count("\ufffd")
        # A stray byte does not change the encoding. Others hardly ever contain valid UTF-8.
        if not broken or _not_ascii(text) >= 2 * broken:
            return text
    inner, language = declarations(data)
    declared = [name for label in (charset, inner) if (name := codec_of(label))]
    if is_shifted:
        if unreadable := {(charset or "").lower(), inner.lower()} & {*_UNREADABLE}:
            message = f"is encoded as {unreadable.pop()}, which can't be decoded: {url}"
            raise PermanentError(message, "unsupported")
        declared = [name for name in declared if name.startswith(_SHIFTED)]
    if not declared and (is_shifted or b"\0" in data):
        found = detected(data, url, language)
        declared = [found if found == "iso2022_jp_ext" else "utf-8"]
    for errors in ("strict", "replace"):
        for name in declared:
            if name == _USER_DEFINED:
                return data.decode("latin-1").translate(_PRIVATE)
            with suppress(UnicodeError):
                text = data.decode(name, errors)
                # At most one in ten of the characters that are not ASCII could not be decoded.
                if errors == "strict" or text.count("\ufffd") * 10 < _not_ascii(text):
                    return text
    return data.decode(detected(data, url, language), "replace")


def utf_16(head: bytes) -> str | None:
    """The codec of western text in UTF-16 without a byte order mark, or None."""
    for codec, zeros, others in (
        ("utf-16-le", head[1::2], head[::2]),
        ("utf-16-be", head[::2], head[1::2]),
    ):
        if zeros.count(0) * 10 > len(zeros) * 7 and not CONTROLS.search(others):
            return codec
    return None


def metas(data: bytes) -> Iterator[tuple[str, dict[str, str]]]:
    """The ``meta`` and ``html`` tags of a page outside of comments, with their attributes.

    Names are in lower case. Values are decoded as Latin-1; the first one of each name counts.
    """
    for tag in _TAGS.finditer(data.decode("latin-1")):
        if tag[1]:
            found = [*_ATTRIBUTE.finditer(tag[2])]
            values = {m[1].lower(): m[2] or m[3] or m[4] or "" for m in reversed(found)}
            yield tag[1].lower(), values


def declarations(data: bytes) -> tuple[str, str]:
    """The character set and the language that the head of a page or XML declares, or nothing.

    Source: the HTML standard, section 13.2.3.2 (prescan). Unlike there, a declaration may come
    after the first 1024 bytes, as browsers accept it while they parse.
    """
    xml, language = _XML.match(data), ""
    label = xml[1].decode() if xml else ""
    for tag, values in metas(data[:HEAD]):
        pragma, content = values.get("http-equiv", "").lower(), values.get("content", "")
        if tag == "html":
            language = language or values.get("lang") or values.get("xml:lang", "")
        elif pragma == "content-language":
            language = language or content
        elif not label:
            named = _CHARSET.search(content) if pragma == "content-type" else None
            label = values.get("charset") or (named[1] if named else "")
            # UTF-16 would not have been readable up to here.
            label = "utf-8" if label.lower().startswith("utf-16") else label
            label = "cp1252" if label.lower() == _USER_DEFINED else label
    return label, language.strip().lower()


def codec_of(label: str | None) -> str | None:
    """Python's name of the encoding that browsers use for a label, or None."""
    label = (label or "").strip().lower()
    if label == _USER_DEFINED:
        return label
    with suppress(LookupError, ValueError):
        info = codecs.lookup(_CODECS.get(label, label))
        return info.name if info._is_text_encoding else None  # base64 is a codec, too
    return None


def detected(data: bytes, url: str = "", language: str = "") -> str:
    """The encoding that fits the bytes best, by the detector of Firefox."""
    from chardetng_py import EncodingDetector

    sample = bytearray()
    for match in [] if data.isascii() else _EVIDENCE.finditer(data):
        begin = max(data.rfind(b" ", 0, match.start()), data.rfind(b"\n", 0, match.start()), 0)
        sample += data[max(begin, match.start() - 32) : min(match.end(), match.start() + SAMPLE)]
        if len(sample) > SAMPLE:
            break
    if not sample:  # a 7-bit encoding
        sample += data[max(data.find(b"\x1b"), 0) :][:SAMPLE]
    domains = _TABLES["domains"]
    named = language and (domains.get(language) or domains.get(language[:2], language[:2]))
    top = named or (host_of(url) or "").rpartition(".")[2]
    if not named and (len(top) != 2 or not top.isalpha()):
        top = "uk" if len(sample.translate(None, _ASCII)) < FEW else ""
    detector = EncodingDetector()
    detector.feed(bytes(sample), last=False)
    found = detector.guess(tld=top.encode("ascii", "ignore") or None, allow_utf8=False)
    return codec_of(found) or "cp1252"


def _not_ascii(text: str) -> int:
    """The number of characters that are not ASCII, in little time."""
    return len(text) - len(text.encode("ascii", "ignore"))


def chunks(data: bytes) -> Iterator[bytes]:
    """Split bytes for a parser, so that it builds nothing as large as all of them."""
    return (data[start : start + CHUNK] for start in range(0, len(data), CHUNK))


def read(data: bytes, source: Source) -> Document:
    """Take text, CSV and the like unchanged, and JSON without escapes, which hide words.

    The first heading is the title of Markdown.
    """
    if source.mime_type in _FOLDED:
        data = re.sub(rb"\r?\n[ \t]", b"", data)
    text = decode(data, source.charset, source.url).replace("\r\n", "\n")
    if source.mime_type.endswith("json"):
        text = _JSON_ESCAPES.sub(lambda escapes: json.loads(f'"{escapes[0]}"'), text)
    is_markdown = source.mime_type == "text/markdown"
    return Document(text, title=first_heading(text) if is_markdown else None)


def first_heading(markdown: str) -> str | None:
    """The first heading of a Markdown text outside of code, without its marks."""
    top = re.sub(r"^(```|~~~).*?^\1", "", markdown[:_TOP], flags=re.MULTILINE | re.DOTALL)
    top = re.sub(r"\A---\n.*?\n---\n", "", top, flags=re.DOTALL)  # front matter
    match = _HEADING.search(top)
    return (match[1] or match[2]).rstrip("# \t\r") or None if match else None
