"""PDF, office documents, e-books, notebooks and e-mail through one library, as Markdown.

One parser at a time in a process: PDFium is not thread-safe, and memory has one owner to blame.
"""

from __future__ import annotations

import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, nullcontext
from datetime import datetime
from email.utils import parsedate_to_datetime
from pathlib import Path
from typing import Any

from paise2nb.content.extract.archives import weigh
from paise2nb.content.extract.text import first_heading
from paise2nb.content.extract.types import ZIP
from paise2nb.core.errors import PermanentError
from paise2nb.plugins import Document, Source

UNPACKED = 40 << 20  # bytes of a zipped document: its parser takes up to nine times that
_turn = threading.Lock()


def read(data: bytes, source: Source, memory_mb: float | None = None) -> Document:
    """Extract a document.

    Args:
        memory_mb: what its parser may take; where that is too little, this process ends.

    Raises:
        PermanentError: ``damaged``, the bytes are not what their type promises; ``too_large``.
    """
    if data.startswith(ZIP):
        weigh(data, source.url, UNPACKED)
    import kreuzberg

    # Its own cache would be a second copy beside ours; OCR needs programs that may be missing.
    config = kreuzberg.ExtractionConfig(
        use_cache=False,
        disable_ocr=True,  # type: ignore[call-arg]  # missing in its stub
        output_format="markdown",
        concurrency=kreuzberg.ConcurrencyConfig(max_threads=1),
    )
    with _turn, nullcontext() if memory_mb is None else _bounded(memory_mb):
        try:
            result = kreuzberg.extract_bytes_sync(data, source.mime_type, config=config)
        # A damaged archive is an OSError, a panic of the library no Exception at all.
        except BaseException as error:
            known = isinstance(error, kreuzberg.KreuzbergError | OSError | RuntimeError)
            if not known and type(error).__name__ != "PanicException":
                raise
            reason = (str(error).splitlines() or [""])[0].removeprefix("ParsingError: ")[:200]
            raise PermanentError(
                f"can't be read as {source.mime_type} ({reason}): {source.url}", "damaged"
            ) from error
    found: Mapping[str, Any] = dict(result.metadata)
    text = result.content.strip()
    title = found.get("title") or found.get("subject") or first_heading(text)
    authors = found.get("authors") or [found.get("from_name") or found.get("from_email")]
    metadata = {
        name: found[key]
        for name, key in (("pages", "page_count"), ("modified", "modified_at"), ("to", "to_emails"))
        if found.get(key)
    }
    return Document(
        text,
        title=title.strip() if isinstance(title, str) else None,
        author=", ".join(author for author in authors if author) or None,
        date=_date(found.get("created_at")),
        language=found.get("language"),
        metadata=metadata,
    )


@contextmanager
def _bounded(megabytes: float) -> Iterator[None]:
    """Let this process ask for no more than so many megabytes on top while the block runs.

    A damaged spreadsheet takes gigabytes at once, between two looks of whoever watches.
    """
    import resource

    try:
        pages = int(Path("/proc/self/statm").read_bytes().split()[5])
    except OSError:  # no /proc: only the watcher
        yield
        return
    soft, hard = resource.getrlimit(resource.RLIMIT_DATA)
    most = pages * resource.getpagesize() + int(megabytes * (1 << 20))
    if hard != resource.RLIM_INFINITY:
        most = min(most, hard)
    resource.setrlimit(resource.RLIMIT_DATA, (most, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_DATA, (soft, hard))


def _date(text: Any) -> str | None:
    """ISO 8601 for a date as documents (already ISO) and e-mail (RFC 5322) write it."""
    if not isinstance(text, str):
        return None
    for read_date in (datetime.fromisoformat, parsedate_to_datetime):
        try:
            return read_date(text).isoformat()
        except (ValueError, OverflowError):
            continue
    return None
