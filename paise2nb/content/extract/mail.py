"""E-mail, mailboxes and pages saved as MHTML, by the parser of the standard library.

The text of an e-mail is one document. Its attachments and the messages of a mailbox are members,
like those of an archive.
"""

import binascii
import dataclasses
import hashlib
import re
import struct
from codecs import BOM_UTF8
from collections.abc import Iterator
from contextlib import suppress
from datetime import UTC
from email import message_from_bytes
from email.errors import HeaderParseError, MessageError
from email.header import decode_header
from email.message import Message
from email.parser import BytesHeaderParser
from email.policy import Compat32
from email.utils import getaddresses, parsedate_to_datetime
from mimetypes import guess_extension
from typing import Any

from paise2nb.content.extract.text import codec_of, decode
from paise2nb.content.extract.types import MAILS, PAGES, SAVED_PAGE, Member
from paise2nb.content.extract.visible import visible_text
from paise2nb.core.errors import PermanentError
from paise2nb.core.urls import host_of
from paise2nb.plugins import Document, Source

MAX_PARTS = 100_000  # of one message; each takes some memory
MAIL = MAILS[0]
_HEADERS = ("From", "To", "Cc", "Date", "Subject")  # shown above the text
_ADDRESSES = ("From", "To", "Cc")
# A line that begins a message, as most programs write it, with the header below: RFC 4155.
# Atomic, so that hostile bytes cause no backtracking.
_FROM_LINE = re.compile(
    rb"^From (?>[^\r\n]*\d:\d\d[^\r\n]*|\S*)\r?\n(?=>?[!-9;-~]++[: ])", re.MULTILINE
)
_QUOTED_FROM = re.compile(rb"^>(?=>*From )", re.MULTILINE)
_WORD = r"=\?[^?\s]+\?[bBqQ]\?[^?]*\?="  # RFC 2047
# No more at once: the time of decode_header() grows with the square of their number.
_WORDS = re.compile(rf"{_WORD}(?:\s*{_WORD}){{0,999}}")
_UNSAFE = re.compile(r"[\x00-\x1f\x7f/\\]+")
_SIGNATURES = ("application/pgp-signature", "application/pkcs7-signature")
_ENCRYPTED = ("multipart/encrypted", "application/pkcs7-mime", "application/x-pkcs7-mime")
_LOCKED = PermanentError("is encrypted: needs the key of its reader", "password")
SIGNED = 3  # signatures around each other; all layers are in memory at once
_DEEP = PermanentError(f"is signed more than {SIGNED} times", "damaged")
_DATA_TYPE = b"\x06\x09\x2a\x86\x48\x86\xf7\x0d\x01\x07\x01"  # of what is signed: id-data
_SIGNED_TYPE = _DATA_TYPE[:-1] + b"\x02"
_FILES = ("text/calendar", "text/rtf")  # not for people to read as they are
_TNEF = ("application/ms-tnef", "application/vnd.ms-tnef")
_TNEF_TITLE, _TNEF_DATA = 0x18010, 0x6800F


class _Policy(Compat32):
    """Headers as text, also where they contain bytes that are not ASCII."""

    def header_fetch_parse(self, name: str, value: str) -> str:
        """Decode the bytes of a header."""
        value = " ".join(value.split())
        return value if value.isascii() else _text(value.encode("utf-8", "surrogateescape"))


def messages(data: bytes) -> Iterator[Member]:
    """The messages of a mailbox, named by their ``Message-ID``, so that names don't change."""
    known: dict[str, str] = {}
    starts = [match.span() for match in _FROM_LINE.finditer(data)]
    if not starts or data[: starts[0][0]].strip():  # the first message has no such line
        starts.insert(0, (0, 0))
    ends = [begin for begin, _ in starts[1:]] + [len(data)]
    for (_, begin), end in zip(starts, ends, strict=True):
        content = _QUOTED_FROM.sub(b"", data[begin:end]).strip() + b"\n"
        digest = hashlib.sha256(content).hexdigest()[:16]
        head = BytesHeaderParser(policy=_Policy()).parsebytes(content)
        name = _file_name(head.get("Message-ID", "").strip("<> ")) or digest
        if known.setdefault(name, digest) != digest:  # another message with the same id
            name = f"{name}-{digest}"
        yield Member(f"{name}.eml", content, MAIL)


def parts(data: bytes, source: Source) -> Iterator[Document | Member]:
    """The text of an e-mail as a document, and its attachments as members.

    Raises:
        PermanentError: ``damaged`` or ``too_large``.
    """
    message = _parsed(data, source.url)
    if _is_saved_page(message):
        yield _page(message, source)
        return
    attachments: list[Member] = []
    body = "\n\n".join(_bodies(message, attachments))
    shown = {name: _header(message, name) for name in _HEADERS}
    if names := ", ".join(member.name for member in attachments):
        shown["Attachments"] = names
    head = "\n".join(f"{name}: {value}" for name, value in shown.items() if value)
    metadata = {name.lower(): shown[name] for name in ("To", "Cc") if shown[name]}
    yield Document(
        f"{head}\n\n{body}".strip(),
        title=shown["Subject"] or None,
        author=re.sub(r" <[^<>]*>", "", shown["From"]) or None,
        date=_date(message),
        language=message.get("Content-Language") or None,
        metadata=metadata,
    )
    seen: set[str] = set()
    for number, member in enumerate(attachments, 1):
        is_double = member.name in seen
        seen.add(member.name)
        yield member._replace(name=f"{number}/{member.name}") if is_double else member


def read_page(data: bytes, source: Source, *, precise: bool = False) -> Document:
    """The page of an MHTML file, with the text of its frames.

    Raises:
        PermanentError: ``damaged``.
    """
    return _page(_parsed(data, source.url), source, precise)


def _parsed(data: bytes, url: str = "") -> "Message[str, str]":
    if match := re.match(rb"\d+\s*\n(?=[!-9;-~]+:)", data):  # Apple Mail: its size comes first
        data = data[match.end() :][: int(match[0])]
    if data.count(b"\n--") > MAX_PARTS:
        raise PermanentError(f"has more than {MAX_PARTS} parts: {url}", "too_large")
    try:
        return message_from_bytes(data.removeprefix(BOM_UTF8).lstrip(), policy=_Policy())
    except RecursionError as error:
        message = f"can't be read as {MAIL} (parts in parts, too deep): {url}"
        raise PermanentError(message, "damaged") from error


def _is_saved_page(message: "Message[str, str]") -> bool:
    if "Snapshot-Content-Location" in message or "Saved by " in message.get("From", ""):
        return True
    is_sent = any(name in message for name in ("To", "Received", "Message-ID"))
    return message.get_content_type() == SAVED_PAGE and not is_sent


def _page(message: "Message[str, str]", source: Source, precise: bool = False) -> Document:
    # Imported here because its parsers slow down the start of processes that never extract.
    from paise2nb.content.extract import pages

    found = [part for part in message.walk() if part.get_content_type() in PAGES]
    start = message.get_param("start")
    found.sort(key=lambda part: start is None or part.get("Content-ID") != start)
    read = []
    for part in found:
        url = part.get("Content-Location", "")
        about = Source(url if host_of(url) else source.url, PAGES[0], _charset(part))
        read.append(pages.read(_content(part), about, precise=precise))
    page = read[0] if read else Document("\n\n".join(_bodies(message, [])))
    text = "\n\n".join(document.text for document in read or [page] if document.text)
    title = page.title or _header(message, "Subject") or None
    return dataclasses.replace(page, text=text, title=title)


# Parts ---------------------------------------------------------------------------------------


def _bodies(part: "Message[str, str]", attachments: list[Member], signatures: int = 0) -> list[str]:
    """The texts of a part and the parts in it. Adds its files to the attachments."""
    kind, name = part.get_content_type(), _file_name(_decoded(part.get_filename() or ""))
    children: Any = part.get_payload() if part.is_multipart() else []
    if kind in MAILS and children:
        name = name or _file_name(f"{_header(children[0], 'Subject') or 'message'}.eml")
        attachments.append(Member(name, _attached_mail(part, children[0]), MAIL))
        return []
    if kind in _ENCRYPTED:
        signed: Any = _signed_content(_content(part)) if not children else None
        if signed and name.lower() in ("", "smime.p7m"):
            if signatures < SIGNED:
                return _bodies(_parsed(signed), attachments, signatures + 1)
            signed = _DEEP
        name = name.removesuffix(".p7m") if signed else name
        attachments.append(Member(name or "encrypted", signed or _LOCKED))
        return []
    if kind == "message/delivery-status":
        fields = (field for child in children for field in child.items())
        return ["\n".join(map(": ".join, fields))]
    found = [_bodies(child, attachments, signatures) for child in children]
    if kind == "multipart/alternative":
        return max(found, key=_richness, default=[])
    if children:
        return [text for texts in found for text in texts]
    data, charset = _content(part), _charset(part)
    is_text = kind.startswith(("text/", "multipart/")) and kind not in _FILES
    if is_text and not name and part.get_content_disposition() != "attachment":
        text = _text(data, charset)
        if kind.endswith("html"):
            return [visible_text(text).text]
        if str(part.get_param("format")).lower() == "flowed":
            text = _unflowed(text, without_space=str(part.get_param("delsp")).lower() == "yes")
        return [text]
    if kind in _TNEF or name.lower() == "winmail.dat":
        attachments.extend(_tnef(data))
    elif kind not in _SIGNATURES:
        name = name or f"part-{len(attachments) + 1}{guess_extension(kind) or ''}"
        attachments.append(Member(name, data, kind, charset))
    return []


def _signed_content(data: bytes) -> bytes | None:
    """What is signed, or None if something else is done with it: RFC 5652, section 5.1, in BER."""
    kind, _, data = data.partition(_DATA_TYPE)
    at, content = 0, bytearray()
    while _SIGNED_TYPE in kind and at + 2 <= len(data):
        tag, length, at = data[at], data[at + 1], at + 2
        if length > 0x80:
            at += length & 0x7F
            length = int.from_bytes(data[at - (length & 0x7F) : at], "big")
        if tag == 0x04:
            content += data[at : at + length]
            at += length
        elif tag not in (0xA0, 0x24) or content:  # these contain strings
            break
    return bytes(content) or None


def _attached_mail(part: "Message[str, str]", inner: "Message[str, str]") -> bytes | PermanentError:
    try:
        data = inner.as_bytes()
        encoding = part.get("Content-Transfer-Encoding", "").lower()  # against RFC 2046
        return binascii.a2b_base64(data) if encoding == "base64" else data
    except (ValueError, MessageError, RecursionError) as error:
        return PermanentError(f"can't be read as {MAIL} ({error})", "damaged")


def _tnef(data: bytes) -> Iterator[Member]:
    """The files in Outlook's ``winmail.dat``. Source: [MS-OXTNEF], section 2.1.3."""
    name, position = "", 6
    while position + 9 <= len(data):
        attribute, size = struct.unpack_from("<xLL", data, position)
        value = data[position + 9 : position + 9 + size]
        position += 9 + size + 2
        if attribute == _TNEF_TITLE:
            name = _file_name(_text(value.rstrip(b"\0")))
        elif attribute == _TNEF_DATA:
            yield Member(name or "attachment", value)


def _content(part: "Message[str, str]") -> bytes:
    data = part.get_payload(decode=True)
    return data if isinstance(data, bytes) else b""


def _charset(part: "Message[str, str]") -> str | None:
    label = part.get_content_charset()
    return None if label in (None, "us-ascii", "ascii") else label


def _richness(texts: list[str]) -> int:
    """The number of distinct words, without URLs."""
    return len(set(re.findall(r"\w+", re.sub(r"https?://\S+", "", " ".join(texts)))))


# Text ----------------------------------------------------------------------------------------


def _text(data: bytes, charset: str | None = None) -> str:
    if codec_of(charset) == "utf-7":  # valid ASCII, but as gibberish
        return data.decode("utf-7", "replace")
    return decode(data, charset).replace("\r\n", "\n")


def _unflowed(text: str, without_space: bool) -> str:
    """Join the lines that a mail program has wrapped: RFC 3676, section 4."""
    lines: list[list[str]] = []  # the pieces of each line
    depth, is_open = 0, False
    for line in text.split("\n"):
        content = line.lstrip(">")
        quotes, content = len(line) - len(content), content.removeprefix(" ")
        if is_open and quotes == depth and content != "-- ":
            if without_space:
                lines[-1][-1] = lines[-1][-1][:-1]
            lines[-1].append(content)
        else:
            lines.append([">" * quotes + " " * bool(quotes), content])
        depth, is_open = quotes, content.endswith(" ") and content != "-- "
    return "\n".join(map("".join, lines))


def _header(message: "Message[str, str]", name: str) -> str:
    """The decoded value of a header, or nothing."""
    value = message.get(name, "")
    if name not in _ADDRESSES:
        return _decoded(value)
    found = [(_decoded(shown), address) for shown, address in getaddresses([value])]
    if not found or not all("@" in address for _, address in found):
        return _decoded(value)
    return ", ".join(f"{shown} <{address}>" if shown else address for shown, address in found)


def _decoded(value: str) -> str:
    """Decode the words of a header that are not ASCII: RFC 2047.

    Words of one encoding are decoded together: some programs cut characters in two.
    """

    def decoded(match: re.Match[str]) -> str:
        with suppress(HeaderParseError):
            words = decode_header(match[0])
            return "".join(_text(word, str(label).partition("*")[0]) for word, label in words)
        return match[0]

    return _WORDS.sub(decoded, value).strip()


def _file_name(text: str) -> str:
    """The last part of a path, without characters that would make it another one."""
    return " ".join(_UNSAFE.sub(" ", re.split(r"[/\\]", text)[-1]).split()).lstrip(".")[:150]


def _date(message: "Message[str, str]") -> str | None:
    """When it was sent or, if it does not say that, received."""
    for text in (message.get("Date", ""), message.get("Received", "").rpartition(";")[2]):
        with suppress(ValueError, TypeError, OverflowError):
            found = parsedate_to_datetime(text)
            found = found if found.tzinfo else found.replace(tzinfo=UTC)
            return found.astimezone(UTC).isoformat()
    return None
