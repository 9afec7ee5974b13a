"""PDF, office documents, e-books, notebooks and e-mail as Markdown, all by kreuzberg.

A process runs one parser at a time: PDFium is not thread-safe, and memory is limited per process.
"""

import re
import resource
import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, nullcontext, suppress
from datetime import datetime
from email.utils import parsedate_to_datetime
from pathlib import Path
from typing import Any

from paise2nb.content.extract.archives import check_size
from paise2nb.content.extract.rtf import with_unicode
from paise2nb.content.extract.text import first_heading
from paise2nb.content.extract.types import OLE, ZIP
from paise2nb.core.errors import PermanentError
from paise2nb.plugins import Document, Source

UNPACKED = 40 << 20  # bytes of a zipped document; its parser takes up to nine times as much
_ENCRYPTED = "EncryptedPackage".encode("utf-16-le")  # the stream of a document with a password
_parser_lock = threading.Lock()


def read(data: bytes, source: Source, memory_mb: float | None = None) -> Document:
    """Extract a document.

    Args:
        data: The document.
        source: Its URL and MIME type.
        memory_mb: What the parser may allocate. If it needs more, this process ends.

    Raises:
        PermanentError: ``damaged``: the bytes are not of the MIME type. ``too_large``.
    """
    if data.startswith(OLE) and _ENCRYPTED in data:
        raise PermanentError(f"needs a password: {source.url}", "password")
    if data.startswith(ZIP):
        check_size(data, source.url, UNPACKED)
    if source.mime_type == "application/rtf":
        data = with_unicode(data)
    import kreuzberg

    # Its cache would keep a second copy of everything. OCR needs programs that may be missing.
    config = kreuzberg.ExtractionConfig(
        use_cache=False,
        disable_ocr=True,  # type: ignore[call-arg]  # missing in its stub
        output_format="markdown",
        concurrency=kreuzberg.ConcurrencyConfig(max_threads=1),
    )
    with _parser_lock, nullcontext() if memory_mb is None else _memory_limit(memory_mb):
        try:
            result = kreuzberg.extract_bytes_sync(data, source.mime_type, config=config)
        # It raises OSError for a damaged archive, and its panics are not even an Exception.
        except BaseException as error:
            known = isinstance(error, kreuzberg.KreuzbergError | OSError | RuntimeError)
            if not known and type(error).__name__ != "PanicException":
                raise
            reason = (str(error).splitlines() or [""])[0].removeprefix("ParsingError: ")[:200]
            if re.search("password|encrypted", reason, re.IGNORECASE):
                raise PermanentError(f"needs a password: {source.url}", "password") from error
            message = f"can't be read as {source.mime_type} ({reason}): {source.url}"
            raise PermanentError(message, "damaged") from error
    found: Mapping[str, Any] = dict(result.metadata)
    text = result.content.strip()
    title = found.get("title") or found.get("subject") or first_heading(text)
    authors = found.get("authors") or [found.get("from_name") or found.get("from_email")]
    names = {"pages": "page_count", "modified": "modified_at", "to": "to_emails"}
    return Document(
        text,
        title=title.strip() if isinstance(title, str) else None,
        author=", ".join(author for author in authors if author) or None,
        date=_date(found.get("created_at")),
        language=found.get("language"),
        metadata={name: found[key] for name, key in names.items() if found.get(key)},
    )


@contextmanager
def _memory_limit(megabytes: float) -> Iterator[None]:
    """Limit the memory that this process can allocate in addition while the block runs.

    A damaged spreadsheet takes gigabytes at once, faster than the supervisor can notice.
    """
    pages = int(Path("/proc/self/statm").read_bytes().split()[5])
    soft, hard = resource.getrlimit(resource.RLIMIT_DATA)
    limit = pages * resource.getpagesize() + int(megabytes * (1 << 20))
    if hard != resource.RLIM_INFINITY:
        limit = min(limit, hard)
    resource.setrlimit(resource.RLIMIT_DATA, (limit, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_DATA, (soft, hard))


def _date(text: Any) -> str | None:
    """A date of a document (ISO 8601) or an e-mail (RFC 5322) as ISO 8601."""
    if not isinstance(text, str):
        return None
    for read_date in (datetime.fromisoformat, parsedate_to_datetime):
        with suppress(ValueError, OverflowError):
            return read_date(text).isoformat()
    return None
