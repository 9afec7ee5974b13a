"""The MIME type of bytes, from the declared type, their first bytes and the suffix of their name.

Servers send ``text/plain`` or ``application/octet-stream`` for types they don't know, and
``text/html`` for PDFs. So a signature in the bytes outweighs a vague declaration, and a declaration
outweighs a suffix. ``types.json`` lists suffixes, other names in use for a type (``aliases``),
declarations that only mean "bytes" (``vague``), the suffixes of documents and archives, the types
that are plain text, the regular expressions of signatures, what is in each container, and what is
at the beginning of feeds and sitemaps.
"""

import io
import json
import re
import zipfile
import zlib
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple
from urllib.parse import quote

from paise2nb.content.extract import ole
from paise2nb.content.extract.text import CONTROLS, utf_16
from paise2nb.core.errors import PermanentError
from paise2nb.core.urls import canonical_url, suffix_of
from paise2nb.plugins import Document, Extractor, PluginLookup

_TABLES = json.loads(Path(__file__).with_name("types.json").read_text("utf-8"))
SUFFIXES: dict[str, str] = _TABLES["suffixes"]
VAGUE = frozenset(_TABLES["vague"])

HEAD = 4096  # bytes that are examined
UNKNOWN = "application/octet-stream"
PAGES = ("text/html", "application/xhtml+xml")
MAILBOX = "application/mbox"
OUTLOOK = "application/vnd.ms-outlook"
MAILS = ("message/rfc822", "message/global", MAILBOX, OUTLOOK)
WARC = "application/warc"
SAVED_PAGE = "multipart/related"  # MHTML
XML = ("application/xml", "text/xml")
PDF = SUFFIXES[".pdf"]
ZIP = b"PK\x03\x04"
OLE = b"\xd0\xcf\x11\xe0\xa1\xb1\x1a\xe1"
TAR = "application/x-tar"
OPC = "application/vnd.openxmlformats-package"
ODF_MANIFEST = "META-INF/manifest.xml"
DOCUMENTS = tuple(SUFFIXES[suffix] for suffix in _TABLES["documents"])
TEXTS: list[str] = _TABLES["texts"]
IMAGES = tuple(SUFFIXES[suffix] for suffix in _TABLES["images"])
ARCHIVES = tuple(SUFFIXES[suffix] for suffix in _TABLES["archives"])
FEEDS: tuple[str, ...] = tuple(_TABLES["feeds"].values())
SITEMAP = "application/x-sitemap+xml"
MAX_MEMBERS = 10_000  # of one archive

_SIGNED = frozenset((*DOCUMENTS, *ARCHIVES, OUTLOOK))  # these always begin with a signature
_KNOWN = frozenset((*SUFFIXES.values(), *TEXTS)) - frozenset(FEEDS)
# Types that are text: a suffix can tell which one, if the declaration only says "text".
_TEXTUAL = tuple(_TABLES["textual"])
_SIGNATURE, _FEED = (
    re.compile("|".join(map("({})".format, _TABLES[name])).encode(), re.DOTALL)
    for name in ("signatures", "feeds")
)
_SIGNATURE_TYPES: list[str] = list(_TABLES["signatures"].values())
# Possessive, with one way to match each comment, so that hostile bytes cause no backtracking.
_PROLOG = re.compile(
    rb"(?:\xef\xbb\xbf)?\s*+(?:(?:<\?[^>]*+>|<!--(?:(?!-->).)*+-->|<!doctype\s(?!\s*html)[^>]*+>)\s*+)*+",
    re.IGNORECASE | re.DOTALL,
)
_UNREADABLE = (zipfile.BadZipFile, zlib.error, ValueError, RuntimeError, OSError, EOFError)
# In the file ``mimetype`` of a package or, if it is missing, the manifest of OpenDocument.
_PACKAGE_TYPE = re.compile(rb"\Aapplication/[\w.+-]+(?=\s*\Z)|application/vnd\.oasis\.[\w.-]+")
_HTML = re.compile(
    rb"<(?:!doctype\s+html|html|head|body|title|script|h1|div|p|table|a)\b", re.IGNORECASE
)


class Member(NamedTuple):
    """A file in a container: its name, and its bytes or why they can't be read.

    Attributes:
        url: Of a page, which does not depend on the container.
        fetched_at: When that page was fetched, in seconds since the epoch.
    """

    name: str
    data: bytes | PermanentError
    mime_type: str | None = None
    charset: str | None = None
    url: str | None = None
    fetched_at: float | None = None


def suffix_by(url: str, facts: Mapping[str, Any]) -> str:
    """The suffix by which the extractor of fetched bytes is chosen: of their name, or of a URL."""
    names = quote(facts.get("name") or ""), url, facts.get("final_url") or ""
    return next(filter(None, map(suffix_of, names)), "")


def choose(
    plugins: PluginLookup, declared: str | None, data: bytes, suffix: str
) -> tuple[str, Extractor | None]:
    """The MIME type of bytes, see `media_type`, and the extractor for them, if there is one."""
    if declared and _is_unknown(declared) and (own := plugins.extractor(declared.lower(), "")):
        return declared.lower(), own
    kind = media_type(declared, data, suffix)
    # A plugin's suffix counts only if neither the declaration nor a signature says what they are.
    is_vague = (declared or "") in (*VAGUE, "text/plain") and signature(data) is None
    extractor = plugins.extractor("", suffix) if is_vague else None
    return kind, extractor or plugins.extractor(kind, suffix)


def require_distinct_urls(documents: Sequence[Document], url: str, kind: str) -> None:
    """Raise PermanentError (``plugin``) if two of an extractor's documents have one URL."""
    distinct = {canonical_url(document.url or url) for document in documents}
    if len(distinct) < len(documents):
        problem = "several documents with the same URL; give each a `url` of its own"
        raise PermanentError(f"the extractor for {kind} returned {problem}: {url}", "plugin")


def media_type(declared: str | None, data: bytes, suffix: str = "") -> str:
    """The MIME type to treat bytes as.

    Args:
        declared: The type that the server sent, without parameters, or None.
        data: The bytes.
        suffix: Of the file's name, with its dot, in lower case.

    Returns:
        A MIME type in lower case, ``application/octet-stream`` if nothing fits.
    """
    declared = (declared or "").lower()
    declared = str(_TABLES["aliases"].get(declared, declared))
    named = SUFFIXES.get(suffix, "")
    is_unknown = _is_unknown(declared)
    is_signed, is_vague = declared in _SIGNED, is_unknown or declared in VAGUE
    is_textual = declared.startswith(("text/", "application/json", "application/xml"))
    if not (is_signed or is_vague or is_textual):
        return declared
    container = declared if is_signed else named
    if proven := signature(data) or _container(data, container) or _feed(data):
        # Many formats are packed in one of these; the files in it would be of no use.
        return declared if is_unknown and proven in ARCHIVES and proven != named else proven
    if is_signed or is_vague:  # in place of a document, there may be a page to log in
        found = _textual(data, named if is_vague else "")
        if is_unknown and declared.endswith("+json") and found == "text/plain":  # RFC 6839
            return "application/json"
        return declared if is_unknown and found == UNKNOWN else found
    if declared == "text/plain" and not is_text(data[:HEAD]):
        return UNKNOWN  # some servers declare unknown files as text
    if declared == "text/plain" or (declared == "application/json" and suffix == ".ipynb"):
        return named if named.startswith(_TEXTUAL) and named != "text/html" else declared
    return declared


def _is_unknown(declared: str) -> bool:
    """Whether a declared type is one that says nothing about the extractor."""
    declared = declared.lower()
    known = declared in _KNOWN or declared in VAGUE or declared in _TABLES["aliases"]
    return declared.startswith("application/") and not known


def _feed(data: bytes) -> str | None:
    """The type of a feed or sitemap, by what is at its beginning, or None.

    Source: the MIME sniffing standard, section 7.3; the JSON Feed specification, version 1.1.
    """
    match = _FEED.match(_PROLOG.sub(b"", data[:HEAD], count=1))
    return FEEDS[match.lastindex - 1] if match and match.lastindex else None


def signature(data: bytes) -> str | None:
    """The type that the first bytes prove, or None."""
    match = _SIGNATURE.match(data[:HEAD])
    return _SIGNATURE_TYPES[match.lastindex - 1] if match and match.lastindex else None


def _container(data: bytes, named: str) -> str | None:
    """The type of a document in a zip or OLE container. By its name if the content can't tell."""
    if data.startswith(ZIP):
        return _zipped(data) or (named if named in _SIGNED else "application/zip")
    if data.startswith(OLE):
        names = ole.root_streams(data)
        for stream, kind in _TABLES["ole_streams"].items():
            if stream.lower() in names or (not names and stream.encode("utf-16-le") in data):
                return str(kind)
        return named if named in _SIGNED else "application/x-ole-storage"
    # Readers accept what comes before the header: ISO 32000-1, annex H, note 13.
    if named == PDF and b"%PDF-" in data[:1024]:
        return PDF
    return None


def _zipped(data: bytes) -> str | None:
    """The type of a zipped document, by the parts that its format requires.

    Packages of formats that can't be read have a type, too: their parts would be no documents.
    """
    if data.count(b"PK\x01\x02") > MAX_MEMBERS:  # no document has that many
        return None
    try:
        with zipfile.ZipFile(io.BytesIO(data)) as archive:
            names = set(archive.namelist())
            for name in ("mimetype", ODF_MANIFEST):
                is_small = name in names and archive.getinfo(name).file_size <= 1 << 20
                if is_small and (found := _PACKAGE_TYPE.search(archive.read(name))):
                    return found[0].decode().removesuffix("-template")
    except _UNREADABLE:
        return None
    if "[Content_Types].xml" in names:
        folders: dict[str, str] = _TABLES["office_folders"]
        return next((folders[f] for f in folders if any(n.startswith(f) for n in names)), OPC)
    return next((kind for name, kind in _TABLES["packages"].items() if name in names), None)


def _textual(data: bytes, named: str) -> str:
    """The type of bytes without a signature: by their name if it fits, or else by content."""
    head = data[:HEAD]
    if not is_text(head):
        return named if named and not named.startswith(_TEXTUAL) else UNKNOWN
    if named and named not in _SIGNED and named != "text/plain":
        return named
    if _HTML.match(_PROLOG.sub(b"", head, count=1)):
        return "text/html"
    return "application/xml" if re.match(rb"(?:\xef\xbb\xbf)?\s*<\?xml\s", head) else "text/plain"


def is_text(head: bytes) -> bool:
    """Whether bytes may be text: they have no control characters, or they are UTF-16.

    Source: the WHATWG MIME sniffing standard, section 7.1.
    """
    is_utf_16 = head.startswith((b"\xff\xfe", b"\xfe\xff")) or utf_16(head) is not None
    return is_utf_16 or not CONTROLS.search(head)
