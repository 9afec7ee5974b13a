"""The built-in extractors. Specific types come before families, in the order of this file."""

from dataclasses import replace

from paise2nb.content.extract import text
from paise2nb.content.extract.types import (
    ARCHIVES,
    DOCUMENTS,
    FEEDS,
    IMAGES,
    MAILS,
    PAGES,
    SAVED_PAGE,
    SITEMAP,
    SUFFIXES,
    TEXTS,
    WARC,
    XML,
    choose,
)
from paise2nb.core.errors import PermanentError
from paise2nb.core.urls import DEFAULT_PORTS, scheme_of, suffix_of
from paise2nb.jobs.context import Context
from paise2nb.plugins import Document, Source, extractor


@extractor(*PAGES)
def extract_page(context: Context, data: bytes, source: Source) -> Document:
    """Web pages: the main text, without navigation and other boilerplate."""
    # Imported here because its parsers slow down the start of processes that never extract.
    from paise2nb.content.extract import pages

    return pages.read(data, source, precise=context.settings.extract.precision)


@extractor(*DOCUMENTS, "application/x-ipynb+json", *XML)
def extract_document(context: Context, data: bytes, source: Source) -> Document:
    """PDF, office documents, e-books, notebooks and XML."""
    # Imported here for the same reason.
    from paise2nb.content.engine import Reading
    from paise2nb.content.extract import documents

    workers, extract = context.settings.workers, context.settings.extract
    languages = None if extract.ocr == "never" else extract.ocr_languages
    limits = workers.memory_mb, workers.timeout
    document = documents.read(data, source, Reading(*limits, context.is_worker, languages))
    if source.mime_type != SUFFIXES[".docx"]:
        return document
    texts = [document.text]
    for name, content in documents.word_chunks(data):
        kind, read_chunk = choose(context.plugins, None, content, suffix_of(name))
        if read_chunk and kind != source.mime_type:
            found = read_chunk.function(context, content, replace(source, mime_type=kind))
            texts += [part.text for part in (found if isinstance(found, list) else [found])]
    return replace(document, text="\n\n".join(filter(None, texts)))


@extractor(*IMAGES)
def extract_image(context: Context, data: bytes, source: Source) -> Document:
    """Images: the text in them, if `extract.ocr` is on."""
    if context.settings.extract.ocr == "never":
        kind = source.mime_type
        message = f"no extractor for {kind}, unless extract.ocr is auto: {source.url}"
        raise PermanentError(message, "unsupported")
    return extract_document(context, data, source)


@extractor(*FEEDS)
def extract_feed(context: Context, data: bytes, source: Source) -> Document:
    """Feeds and sitemaps of the web: none, they only lead to pages. Of files: their text."""
    if scheme_of(source.url) in DEFAULT_PORTS and "!/" not in source.url:
        name = "sitemap" if source.mime_type == SITEMAP else "feed"
        fix = f"to fetch what it lists: paise2 enqueue {name} {source.url}"
        raise PermanentError(f"this is a {name}, not a page; {fix}", "wrong_task")
    if source.mime_type.endswith("json"):
        return text.read(data, source)
    return extract_document(context, data, replace(source, mime_type=XML[0]))


@extractor(SAVED_PAGE)
def extract_saved_page(context: Context, data: bytes, source: Source) -> Document:
    """Web pages that a browser saved as one file (MHTML)."""
    from paise2nb.content.extract import mail

    return mail.read_page(data, source, precise=context.settings.extract.precision)


@extractor(*ARCHIVES, *MAILS, WARC)
def extract_archive(context: Context, data: bytes, source: Source) -> list[Document]:
    """Archives, WARC files, e-mail and mailboxes: each member by the extractor for its type."""
    from paise2nb.content.extract import archives

    return archives.read(context, data, source)


@extractor(*TEXTS)
def extract_text(context: Context, data: bytes, source: Source) -> Document:
    """Plain text, Markdown, CSV, JSON and source code, unchanged."""
    return text.read(data, source)
