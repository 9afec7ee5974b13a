"""What plugins implement, get as arguments, and return."""

import logging
from collections.abc import Iterable, Mapping, MutableMapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NamedTuple, Protocol

from paise2nb.config.settings import Settings


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
        metadata: Anything else, as JSON. Its ``source`` is replaced by facts about the bytes.
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


class CacheProvider(Protocol):
    """Stores bytes by the SHA-256 of their content."""

    def put(self, data: bytes) -> str:
        """Store bytes durably. Return their SHA-256 in hexadecimal."""

    def get(self, key: str) -> bytes:
        """Return the bytes of a key. Raises KeyError."""

    def __contains__(self, key: str) -> bool: ...

    def remove(self, needed: set[str], older_than: float) -> int:
        """Remove entries that are not needed and older than some seconds. Return their number."""

    def clear(self) -> int:
        """Remove all entries. Return their number."""

    def close(self) -> None:
        """Close files and connections."""


class DataStorageProvider(Protocol):
    """Stores items, and searches their texts."""

    def put(self, document: Document, *, url: str, key: str, **provenance: Any) -> int:
        """Insert or update the item with that key, unless it is newer. Return its id."""

    def put_many(self, entries: Iterable[tuple[Document, Mapping[str, Any]]]) -> list[int]:
        """Put many items, or none if one fails. Return their ids."""

    def visited(self, key: str, at: float) -> int | None:
        """Record that the item with that key was up to date at a time. Return its id, or None."""

    def get(self, item_id: int) -> dict[str, Any] | None:
        """Return an item with its text, or None."""

    def versions(self, item_id: int) -> list[dict[str, Any]]:
        """Return the versions of an item, oldest first."""

    def diff(self, item_id: int, a: int = -2, b: int = -1) -> str:
        """Return the differences between two versions of the text of an item."""

    def find(self, key: str) -> int | None:
        """Return the id of the item with that key, or None."""

    def search(self, query: str, limit: int) -> list[dict[str, Any]]:
        """Return the best matches with snippets, the best one first."""

    def list(self, *, tag: str | None = None, limit: int | None = None) -> Sequence[dict[str, Any]]:
        """Return items without their texts, newest first."""

    def count(self) -> int:
        """Return the number of items."""

    def count_since(self, since: float) -> int:
        """Return the number of items stored since a time (seconds since the epoch)."""

    def clear(self) -> int:
        """Remove all items. Return their number."""

    def checkpoint(self) -> None:
        """Limit the size of the write-ahead log, if there is one."""

    def close(self) -> None:
        """Close files and connections."""


class PluginLookup(Protocol):
    """The loaded fetchers and extractors. Those of plugins come before the built-in ones."""

    def fetcher(self, scheme: str) -> Fetcher | None:
        """Return the first fetcher for a URL scheme, or None."""

    def schemes(self) -> set[str]:
        """Return the URL schemes that have a fetcher."""

    def extractor(self, mime_type: str, suffix: str) -> Extractor | None:
        """Return the first extractor for a MIME type, else for a file suffix, or None."""


class Environment(Protocol):
    """What the app and the context of a task have in common."""

    @property
    def settings(self) -> Settings: ...
    @property
    def data_dir(self) -> Path: ...
    @property
    def cache(self) -> CacheProvider: ...
    @property
    def plugins(self) -> PluginLookup: ...


class AppInfo(Environment, Protocol):
    """The app, as plugins see it.

    Attributes:
        profile: The name of the profile.
        settings: The resolved settings.
        data_dir: The directory of the databases, the cache and the logs.
        is_worker: Whether this is the app of a worker process.
        plugins: The loaded fetchers and extractors.
        cache: The fetched bytes.
        store: The items.
    """

    @property
    def profile(self) -> str: ...
    @property
    def is_worker(self) -> bool: ...
    @property
    def store(self) -> DataStorageProvider: ...


class TaskContext(Environment, Protocol):
    """The first argument of tasks, fetchers and extractors.

    Attributes:
        job: The execution: ``id``, ``task``, ``args``, ``tag``, ``attempt``, ``parent_id``,
            ``root_id``.
        settings: The resolved settings.
        data_dir: The directory of the databases, the cache and the logs.
        cache: The fetched bytes.
        items: The stored items.
        plugins: The loaded fetchers and extractors.
        state: A mapping that the plugin keeps from job to job. Changes are written when the job
            completes.
        log: A logger that adds the job's id to each line.
        cancelled: Whether the job was cancelled while it runs.
    """

    @property
    def job(self) -> Any: ...
    @property
    def items(self) -> DataStorageProvider: ...
    @property
    def state(self) -> MutableMapping[str, Any]: ...
    @property
    def log(self) -> logging.LoggerAdapter[logging.Logger]: ...
    @property
    def cancelled(self) -> bool: ...

    def enqueue(
        self, task: str, *args: Any, priority: int | None = None, delay: float | None = None
    ) -> None:
        """Add a follow-up job when this job completes. Nothing is added if it fails."""

    def progress(self, done: float, total: float | None = None) -> None:
        """Report the progress of this execution."""


class TaskQueueProvider(Protocol):
    """Creates the Huey instance of a profile, and with it the job store.

    All processes on one data directory must open the same job store. The supervisor
    loads no plugins; it opens the job store by its path.
    """

    def create(self, app: Any) -> Any:
        """Create the queue of an app. If ``app.is_worker``, it must not run jobs by itself."""


class ConfigurationProvider(Protocol):
    """Provides defaults of settings, above the packaged profile and below the user's files."""

    def defaults(self) -> Mapping[str, Any]:
        """Return values by dotted key."""


class ContentSource(Protocol):
    """Finds URLs to fetch. It becomes a task: ``paise2 enqueue NAME [ARG…] --every 1d``."""

    def addresses(self, context: TaskContext) -> Iterable[str]:
        """Return the URLs that exist now. More parameters are arguments of the job.

        Files, and URLs without a fetcher, are left out. Only URLs that are new or have changed are
        fetched.
        """


class LifecycleAction(Protocol):
    """Called when an app opens and closes, in workers too."""

    def opened(self, app: AppInfo) -> None:
        """Called after the app has opened. An exception closes it again."""

    def closed(self, app: AppInfo) -> None:
        """Called before its parts are closed."""


class ResetAction(Protocol):
    """Called by ``reset``."""

    def reset(self, app: AppInfo, hard: bool) -> None:
        """Delete the data of the plugin.

        Args:
            app: The app.
            hard: Whether everything is deleted, not only what can be made again.
        """
