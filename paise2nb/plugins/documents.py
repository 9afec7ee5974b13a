"""What fetchers and extractors are, and what they take and give."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, NamedTuple


@dataclass(frozen=True)
class Fetched:
    """What a fetcher brought: the bytes and what the other side said about them.

    ``url`` is the address after redirects, ``mime_type`` None where it is not known,
    ``charset`` as declared, ``meta`` what a later request or a freshness check needs (JSON);
    a ``status`` of 304 in it says that the stored item still stands, and there are no bytes.
    """

    data: bytes
    url: str
    mime_type: str | None = None
    charset: str | None = None
    meta: dict[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class Source:
    """Where bytes came from, for an extractor: the address as given, and its type."""

    url: str
    mime_type: str
    charset: str | None = None


@dataclass(frozen=True)
class Document:
    """What an extractor made of bytes: the text and what is known about it.

    ``date`` is ISO 8601, ``language`` a BCP 47 tag, ``metadata`` anything else (JSON). ``url``
    is only set where one source holds several documents: each needs an address of its own.
    """

    text: str
    title: str | None = None
    author: str | None = None
    date: str | None = None
    language: str | None = None
    url: str | None = None
    metadata: dict[str, Any] = field(default_factory=dict)


class Fetcher(NamedTuple):
    """A function ``(context, url) -> bytes | Fetched`` for some URL schemes."""

    function: Callable[..., bytes | Fetched]
    schemes: tuple[str, ...]
    plugin: str = ""


class Extractor(NamedTuple):
    """A function ``(context, data, source) -> Document | list[Document]`` for some types.

    A MIME type may end in ``/*``. A suffix (with its dot) counts where the type says nothing.
    """

    function: Callable[..., Document | list[Document]]
    mime_types: tuple[str, ...]
    suffixes: tuple[str, ...] = ()
    plugin: str = ""
