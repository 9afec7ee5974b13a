"""The values that fetchers and extractors take and return."""

from dataclasses import dataclass, field
from typing import Any, NamedTuple, Protocol


@dataclass(frozen=True)
class Fetched:
    """The result of a fetcher.

    Attributes:
        data: The bytes. None are needed if ``meta["status"]`` is 304: the stored item is up to
            date.
        url: The URL after redirects.
        mime_type: The declared MIME type, None if unknown.
        charset: The declared character encoding.
        meta: JSON that a later request needs, for example to check whether the page has changed.
    """

    data: bytes
    url: str
    mime_type: str | None = None
    charset: str | None = None
    meta: dict[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class Source:
    """Where the bytes that an extractor gets come from: the URL that was enqueued, and the type."""

    url: str
    mime_type: str
    charset: str | None = None


@dataclass(frozen=True)
class Document:
    """The result of an extractor.

    Attributes:
        text: The text.
        date: ISO 8601.
        language: A BCP 47 tag.
        url: Needed only if one source contains several documents: a URL for each.
        metadata: Anything else, as JSON.
    """

    text: str
    title: str | None = None
    author: str | None = None
    date: str | None = None
    language: str | None = None
    url: str | None = None
    metadata: dict[str, Any] = field(default_factory=dict)


class ContentFetcher(Protocol):
    """The function of a fetcher, which ``@fetcher`` declares."""

    def __call__(self, context: Any, url: str, /) -> bytes | Fetched:
        """Return what a URL leads to. Raises PermanentError or TransientError."""


class ContentExtractor(Protocol):
    """The function of an extractor, which ``@extractor`` declares."""

    def __call__(self, context: Any, data: bytes, source: Source, /) -> Document | list[Document]:
        """Return the text of fetched bytes. Raises PermanentError."""


class Fetcher(NamedTuple):
    """A function ``(context, url) -> bytes | Fetched`` for some URL schemes."""

    function: ContentFetcher
    schemes: tuple[str, ...]
    plugin: str = ""


class Extractor(NamedTuple):
    """A function ``(context, data, source) -> Document | list[Document]`` for some MIME types.

    A MIME type may end in ``/*``. Suffixes, such as ``.txt``, select an extractor only if none
    takes the MIME type.
    """

    function: ContentExtractor
    mime_types: tuple[str, ...]
    suffixes: tuple[str, ...] = ()
    plugin: str = ""
