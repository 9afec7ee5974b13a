"""The built-in extractors. Specific types come before families, in the order of this file."""

from __future__ import annotations

from typing import TYPE_CHECKING

from paise2nb.content.extract.types import ARCHIVES, PAGES, SHEET, SLIDES, WORD
from paise2nb.plugins import Document, Source, extractor

if TYPE_CHECKING:
    from paise2nb.jobs.context import Context


@extractor(*PAGES)
def extract_page(context: Context, data: bytes, source: Source) -> Document:
    """Web pages, without the furniture around their text."""
    from paise2nb.content.extract.pages import read

    return read(data, source, precise=context.settings.extract.precision)


@extractor(
    "application/pdf",
    WORD,
    SLIDES,
    SHEET,
    "application/msword",
    "application/vnd.ms-excel",
    "application/vnd.ms-powerpoint",
    "application/vnd.ms-outlook",
    "application/vnd.oasis.opendocument.text",
    "application/rtf",
    "application/epub+zip",
    "application/x-ipynb+json",
    "message/rfc822",
    "application/xml",
    "text/xml",
)
def extract_document(context: Context, data: bytes, source: Source) -> Document:
    """PDF, office documents, e-books, notebooks, e-mail and XML."""
    from paise2nb.content.extract.documents import read

    # Only where the end of the process is one attempt, and nobody's kernel.
    bound = context.settings.workers.memory_mb if context.is_worker else None
    return read(data, source, bound)


@extractor(*ARCHIVES)
def extract_archive(context: Context, data: bytes, source: Source) -> list[Document]:
    """Archives: each member by the extractor of its own kind."""
    from paise2nb.content.extract.archives import read

    return read(context, data, source)


@extractor(
    "text/*",
    "application/json",
    "application/ld+json",
    "application/x-ndjson",
    "application/yaml",
    "application/javascript",
    "application/x-sh",
)
def extract_text(context: Context, data: bytes, source: Source) -> Document:
    """Plain text, Markdown, CSV, JSON and source code: as they are."""
    from paise2nb.content.extract.text import plain

    return plain(data, source)
