"""PDF, office documents, e-books, notebooks and scans as text."""

import base64
import io
import posixpath
import re
import zipfile
from collections.abc import Iterator
from contextlib import suppress
from datetime import datetime
from email.utils import parsedate_to_datetime
from typing import Any

from paise2nb.content import engine
from paise2nb.content.engine import Reading
from paise2nb.content.engine.office import parsed_part
from paise2nb.content.extract import ole
from paise2nb.content.extract.archives import check_size
from paise2nb.content.extract.rtf import with_unicode
from paise2nb.content.extract.text import decode, first_heading
from paise2nb.content.extract.types import OLE, SUFFIXES, XML, ZIP
from paise2nb.content.extract.visible import visible_text
from paise2nb.core.clock import first_day
from paise2nb.core.errors import PermanentError
from paise2nb.core.urls import suffix_of
from paise2nb.plugins import Document, Source

UNPACKED = 40 << 20  # bytes of a zipped document; its parser takes up to nine times as much
_BY_DEFAULT = Reading()
EPUB = "application/epub+zip"
ENCRYPTION = "META-INF/encryption.xml"
_RELATIONS = "word/_rels/document.xml.rels"
_CHAPTERS = (".xhtml", ".html", ".htm", ".xml")
# Each try ends where the next picture begins, so that hostile text takes no more than linear time.
_PICTURE = re.compile(r"!\[(?:[^\]!]|!(?!\[))*+\]\(data:image/([\w.+-]++);base64,([^)!]*+)\)")
# Their headings are the names of sheets and elements.
_NAMED_PARTS = (*(SUFFIXES[suffix] for suffix in (".xlsx", ".xls", ".xlsb", ".ods")), *XML)
_ENCRYPTED = "EncryptedPackage".encode("utf-16-le")  # the stream of a document with a password


def read(data: bytes, source: Source, how: Reading = _BY_DEFAULT) -> Document:
    """Extract a document.

    Raises:
        PermanentError: ``damaged``: the bytes are not of the MIME type. ``password``,
            ``too_large``, ``scan``, ``ocr``; not in a worker also ``memory``, ``timeout`` and
            ``crash``.
    """
    if data.startswith(OLE) and _is_locked(data):
        raise PermanentError(f"needs a password: {source.url}", "password")
    if data.startswith(ZIP):
        check_size(data, source.url, UNPACKED)
        if source.mime_type == EPUB and _is_protected(data):
            message = f"is protected (DRM), and needs the key of its reader: {source.url}"
            raise PermanentError(message, "password")
    if source.mime_type == "application/rtf":
        data = with_unicode(data)
    try:
        found = engine.extract(data, source.mime_type, how)
    except engine.EngineError as error:
        raise PermanentError(_reason(error, source), error.error_class) from error
    facts, text = found["metadata"], _PICTURE.sub(_shown_drawing, found["text"]).strip()
    heading = None if source.mime_type in _NAMED_PARTS else first_heading(text)
    title = facts.get("title") or facts.get("subject") or heading
    names = {"pages": "page_count", "modified": "modified_at", "recognised": "recognised"}
    return Document(
        text,
        title=title.strip() if title else None,
        author=", ".join(facts.get("authors") or []) or None,
        date=_date(facts.get("created_at")),
        language=facts.get("language"),
        metadata={name: facts[key] for name, key in names.items() if facts.get(key)},
    )


def word_chunks(data: bytes) -> Iterator[tuple[str, bytes]]:
    """The documents that a Word document shows as a part of its text (altChunk): name, content.

    Source: ECMA-376, part 1, section 11.3.1.
    """
    with zipfile.ZipFile(io.BytesIO(data)) as package:
        names = package.namelist()
        for relation in _elements(package, _RELATIONS, "Relationship"):
            name = posixpath.join("/word", relation.get("Target", ""))[1:]
            if relation.get("Type", "").endswith("/aFChunk") and name in names:
                yield name, package.read(name)


def _reason(error: engine.EngineError, source: Source) -> str:
    """Why a document can't be read, with what to do about it."""
    match error.error_class:
        case "password":
            return f"needs a password: {source.url}"
        case "scan":
            return f"{error}; see extract.ocr, which needs Tesseract: {source.url}"
        case "ocr":
            return f"{error}, needed to read {source.url}"
    reason = (str(error).splitlines() or [""])[0].removeprefix("Parsing error: ")[:200]
    return f"can't be read as {source.mime_type} ({reason}): {source.url}"


def _is_locked(data: bytes) -> bool:
    streams = ole.root_streams(data)
    return ole.is_locked(streams) or (not streams and _ENCRYPTED in data)


def _is_protected(book: bytes) -> bool:
    """Whether chapters of an e-book are encrypted, and not only its fonts.

    Source: EPUB Open Container Format 3.3, sections 4.2.6.3.2 and 5.
    """
    with zipfile.ZipFile(io.BytesIO(book)) as archive:
        encrypted = _elements(archive, ENCRYPTION, "CipherReference")
        return any(suffix_of(file.get("URI", "")) in _CHAPTERS for file in encrypted)


def _elements(archive: zipfile.ZipFile, part: str, name: str) -> Iterator[Any]:
    """The elements of a name in a part of a package, if it has that part."""
    root = parsed_part(archive.read(part)) if part in archive.namelist() else None
    yield from [] if root is None else root.iter(f"{{*}}{name}")


def _shown_drawing(match: re.Match[str]) -> str:
    """The text of a drawing (SVG) that is embedded in Markdown, and nothing of other pictures."""
    if match[1] != "svg+xml":
        return ""
    with suppress(ValueError):
        return visible_text(decode(base64.b64decode(match[2]))).text
    return ""


def _date(text: Any) -> str | None:
    """A date of a document (ISO 8601) or an e-mail (RFC 5322) as ISO 8601."""
    if not isinstance(text, str):
        return None
    text = first_day(text)
    for read_date in (datetime.fromisoformat, parsedate_to_datetime):
        with suppress(ValueError, OverflowError):
            return read_date(text).isoformat()
    return None
