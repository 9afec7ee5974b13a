"""What kind of thing some bytes are, from what was declared, what they look like and their name.

Servers say ``text/plain`` or ``application/octet-stream`` for what they do not know, and
``text/html`` for PDFs; so a signature in the bytes weighs more than a vague declaration, and a
declaration more than a name.
"""

from __future__ import annotations

import io
import re
import zipfile
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from paise2nb.plugins import Extractor, Plugins

HEAD = 4096  # bytes that are looked at
UNKNOWN = "application/octet-stream"
PAGES = ("text/html", "application/xhtml+xml")
WORD = "application/vnd.openxmlformats-officedocument.wordprocessingml.document"
SLIDES = "application/vnd.openxmlformats-officedocument.presentationml.presentation"
SHEET = "application/vnd.openxmlformats-officedocument.spreadsheetml.sheet"

ZIP = b"PK\x03\x04"
TAR = "application/x-tar"
ARCHIVES = (
    "application/zip", TAR, "application/gzip", "application/x-bzip2", "application/x-xz",
    "application/zstd",
)  # fmt: skip
MOST_MEMBERS = 10_000  # of one archive

# Declarations that say no more than "bytes".
VAGUE = frozenset(
    {"", UNKNOWN, "binary/octet-stream", "application/binary", "application/x-binary",
     "application/download", "application/x-download", "application/force-download",
     "application/unknown", "application/x-unknown", "unknown/unknown", "content/unknown"}
)  # fmt: skip

UNSAID = VAGUE | {"text/plain"}  # declared types beside which a file's name counts

# Other names in use for a type.
ALIASES = {
    "application/x-pdf": "application/pdf",
    "application/acrobat": "application/pdf",
    "text/pdf": "application/pdf",
    "text/rtf": "application/rtf",
    "application/x-rtf": "application/rtf",
    "text/x-markdown": "text/markdown",
    "text/json": "application/json",
    "text/comma-separated-values": "text/csv",
    "application/csv": "text/csv",
    "application/x-zip-compressed": "application/zip",
    "application/x-gzip": "application/gzip",
    "application/x-bzip": "application/x-bzip2",
    "application/x-gtar": TAR,
    "application/x-compressed-tar": "application/gzip",
    "application/x-gtar-compressed": "application/gzip",
    "application/x-tgz": "application/gzip",
    "application/x-zstd": "application/zstd",
    "application/x-jupyter-notebook": "application/x-ipynb+json",
}  # fmt: skip

SUFFIXES = {
    ".bz2": "application/x-bzip2",
    ".gz": "application/gzip",
    ".tar": TAR,
    ".tbz2": "application/x-bzip2",
    ".tgz": "application/gzip",
    ".txz": "application/x-xz",
    ".xz": "application/x-xz",
    ".zip": "application/zip",
    ".zst": "application/zstd",
    ".csv": "text/csv",
    ".doc": "application/msword",
    ".docx": WORD,
    ".eml": "message/rfc822",
    ".epub": "application/epub+zip",
    ".htm": "text/html",
    ".html": "text/html",
    ".ipynb": "application/x-ipynb+json",
    ".json": "application/json",
    ".jsonl": "application/x-ndjson",
    ".markdown": "text/markdown",
    ".md": "text/markdown",
    ".msg": "application/vnd.ms-outlook",
    ".odt": "application/vnd.oasis.opendocument.text",
    ".pdf": "application/pdf",
    ".ppt": "application/vnd.ms-powerpoint",
    ".pptx": SLIDES,
    ".rtf": "application/rtf",
    ".tsv": "text/tab-separated-values",
    ".txt": "text/plain",
    ".xhtml": "application/xhtml+xml",
    ".xls": "application/vnd.ms-excel",
    ".xlsx": SHEET,
    ".xml": "application/xml",
}

# Kinds that are text inside: a name can say which, where the declaration says only "text".
_TEXTUAL = ("text/", "message/", "application/json", "application/x-ipynb", "application/x-nd")

# Types that always begin with a signature.
_SIGNED = frozenset(
    {*ARCHIVES, "application/pdf", "application/rtf", "application/epub+zip",
     WORD, SLIDES, SHEET, "application/msword", "application/vnd.ms-excel",
     "application/vnd.ms-powerpoint", "application/vnd.ms-outlook",
     "application/vnd.oasis.opendocument.text"}
)  # fmt: skip

_SIGNATURES: tuple[tuple[bytes, str], ...] = (
    (rb"(?:\xef\xbb\xbf)?\s*%PDF-\d", "application/pdf"),
    (rb"{\\rtf", "application/rtf"),
    (rb"\x89PNG\r\n\x1a\n", "image/png"),
    (rb"\xff\xd8\xff", "image/jpeg"),
    (rb"GIF8[79]a", "image/gif"),
    (rb"RIFF....WEBP", "image/webp"),
    (rb"II\*\x00|MM\x00\*", "image/tiff"),
    (rb"\x1f\x8b\x08", "application/gzip"),
    (rb"BZh[1-9]1AY&SY", "application/x-bzip2"),
    (rb"\xfd7zXZ\x00", "application/x-xz"),
    (rb"\x28\xb5\x2f\xfd", "application/zstd"),
    (rb"7z\xbc\xaf\x27\x1c", "application/x-7z-compressed"),
    (rb"Rar!\x1a\x07", "application/vnd.rar"),
    (rb"ID3[\x02-\x04]\x00|\xff\xfb", "audio/mpeg"),
    (rb"OggS\x00", "audio/ogg"),
    (rb"....ftyp", "video/mp4"),
    (rb"\x7fELF", "application/x-executable"),
    (rb".{257}ustar", TAR),
    (rb"SQLite format 3\x00", "application/vnd.sqlite3"),
)
_SIGNATURE = re.compile(b"|".join(b"(%s)" % pattern for pattern, _ in _SIGNATURES), re.DOTALL)
_OLE = b"\xd0\xcf\x11\xe0\xa1\xb1\x1a\xe1"
_OLE_STREAMS = (
    ("WordDocument", "application/msword"),
    ("Workbook", "application/vnd.ms-excel"),
    ("PowerPoint Document", "application/vnd.ms-powerpoint"),
    ("__substg1.0_", "application/vnd.ms-outlook"),
    ("Book", "application/vnd.ms-excel"),
)
# Possessive, and with one way to read each comment: hostile bytes find nothing to try again.
_HTML = re.compile(
    rb"(?:\xef\xbb\xbf)?\s*+(?:<\?xml[^>]*+>\s*+|<!--(?:(?!-->).)*+-->\s*+)*+"
    rb"<(?:!doctype\s+html|html|head|body|title|script|h1|div|p|table|a)\b",
    re.IGNORECASE | re.DOTALL,
)
_XML = re.compile(rb"(?:\xef\xbb\xbf)?\s*<\?xml\s")


def choose(
    plugins: Plugins, declared: str | None, data: bytes, suffix: str
) -> tuple[str, Extractor | None]:
    """The MIME type to treat bytes as, see `media_type`, and the extractor for them, if any."""
    kind = media_type(declared, data, suffix)
    by_name = (declared or "") in UNSAID and signature(data) is None
    extractor = plugins.extractor("", suffix) if by_name else None
    return kind, extractor or plugins.extractor(kind, suffix)


def media_type(declared: str | None, data: bytes, suffix: str = "") -> str:
    """The MIME type to treat bytes as.

    Args:
        declared: what the server said, without parameters; None where nothing was said.
        data: the bytes.
        suffix: of the file's name, with its dot, in lower case.

    Returns:
        a MIME type in lower case, ``application/octet-stream`` where nothing fits.
    """
    declared = ALIASES.get((declared or "").lower(), (declared or "").lower())
    named = SUFFIXES.get(suffix, "")
    if declared in VAGUE:
        return signature(data) or _container(data, named) or _textual(data, named)
    if declared.startswith(("text/", "application/json", "application/xml")):
        if found := signature(data) or _container(data, named):
            return found
        if declared == "text/plain" and not is_text(data[:HEAD]):
            return UNKNOWN  # what some servers say of every file that they do not know
        if declared == "text/plain" or (declared == "application/json" and suffix == ".ipynb"):
            return named if named.startswith(_TEXTUAL) and named != "text/html" else declared
        return declared
    if declared in _SIGNED:
        # What was promised, or the page instead of it that says "please log in".
        return signature(data) or _container(data, declared) or _textual(data, "")
    return declared


def signature(data: bytes) -> str | None:
    """The type that the first bytes prove, None where they prove nothing."""
    match = _SIGNATURE.match(data[:HEAD])
    return _SIGNATURES[match.lastindex - 1][1] if match and match.lastindex else None


def _container(data: bytes, named: str) -> str | None:
    """The type of what is kept in a zip or in an OLE file; the name decides where it can't."""
    if data.startswith(ZIP):
        return _zipped(data) or (named if named in _SIGNED else "application/zip")
    if data.startswith(_OLE):
        for stream, kind in _OLE_STREAMS:
            if stream.encode("utf-16-le") in data:
                return kind
        return named if named in _SIGNED else "application/x-ole-storage"
    return None


def _zipped(data: bytes) -> str | None:
    """The kind of document that a zip archive is, by the parts that its format demands."""
    if data.count(b"PK\x01\x02") > MOST_MEMBERS:  # more than a document has: not worth a list
        return None
    try:
        with zipfile.ZipFile(io.BytesIO(data)) as archive:
            names = set(archive.namelist())
            if "mimetype" in names and archive.getinfo("mimetype").file_size <= 200:
                return archive.read("mimetype").decode("ascii").strip()
    except (zipfile.BadZipFile, ValueError, NotImplementedError, RuntimeError, OSError, EOFError):
        return None
    if "[Content_Types].xml" not in names:
        return None
    for part, kind in (("word/", WORD), ("ppt/", SLIDES), ("xl/", SHEET)):
        if any(name.startswith(part) for name in names):
            return kind
    return None


def _textual(data: bytes, named: str) -> str:
    """The type of bytes without a signature: by their name if it fits, else by their look."""
    head = data[:HEAD]
    if not is_text(head):
        return named if named and not named.startswith(_TEXTUAL) else UNKNOWN
    if named and named not in _SIGNED and named != "text/plain":
        return named
    if _HTML.match(head):
        return "text/html"
    return "application/xml" if _XML.match(head) else "text/plain"


def is_text(head: bytes) -> bool:
    """Whether bytes look like text in some character set: no control characters but spaces.

    Source: the WHATWG MIME sniffing standard, section 7.1; UTF-16 is known by its mark.
    """
    if head.startswith((b"\xff\xfe", b"\xfe\xff")):
        return True
    return not re.search(rb"[\x00-\x08\x0b\x0e-\x1a\x1c-\x1f]", head)
