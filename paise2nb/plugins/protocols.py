"""What the parts of an app have to provide, and what their authors are given."""

from __future__ import annotations

import logging
from collections.abc import Iterable, Mapping, MutableMapping
from pathlib import Path
from typing import Any, Protocol

from paise2nb.config.settings import Settings
from paise2nb.plugins.documents import Document, Extractor, Fetcher


class CacheProvider(Protocol):
    """Keeps bytes by the SHA-256 of their content."""

    def put(self, data: bytes) -> str:
        """Store bytes durably; the key is their SHA-256 in hexadecimal."""

    def get(self, key: str) -> bytes:
        """The bytes of a key. Raises KeyError."""

    def __contains__(self, key: str) -> bool: ...

    def remove(self, needed: set[str], older_than: float) -> int:
        """Remove entries whose key is not needed and which are older than that many seconds."""

    def clear(self) -> int:
        """Remove everything; the number of entries."""

    def close(self) -> None:
        """Let go of files."""


class DataStorageProvider(Protocol):
    """Keeps items and finds them by their words."""

    def put(self, document: Document, *, url: str, key: str, **provenance: Any) -> int:
        """Insert or update the item with that key, unless it is newer; its id."""

    def put_many(self, entries: Iterable[tuple[Document, Mapping[str, Any]]]) -> list[int]:
        """The same for many, all of them or none; their ids."""

    def visited(self, key: str, at: float) -> int | None:
        """Note that the content of the item with that key still stands; its id."""

    def get(self, item_id: int) -> dict[str, Any] | None:
        """One item with its text."""

    def versions(self, item_id: int) -> list[dict[str, Any]]:
        """What an item has held, oldest first."""

    def diff(self, item_id: int, a: int = -2, b: int = -1) -> str:
        """What changed in the text of an item from one version to another."""

    def find(self, key: str) -> int | None:
        """The id of the item with that key."""

    def search(self, query: str, limit: int) -> list[dict[str, Any]]:
        """Ranked hits with snippets."""

    def list(self, *, tag: str | None = None, limit: int | None = None) -> list[dict[str, Any]]:
        """Items without their texts, newest first."""

    def count(self) -> int:
        """The number of items."""

    def count_since(self, since: float) -> int:
        """The number of items stored since that time (seconds since the epoch)."""

    def clear(self) -> int:
        """Remove every item; the number of them."""

    def checkpoint(self) -> None:
        """Bound what writing leaves behind on the disk."""

    def close(self) -> None:
        """Let go of files."""


class PluginLookup(Protocol):
    """The loaded fetchers and extractors; a user's come before the built-in ones."""

    def fetchers(self) -> list[Fetcher]:
        """Every fetcher."""

    def fetcher(self, scheme: str) -> Fetcher | None:
        """The first fetcher of a URL scheme."""

    def schemes(self) -> set[str]:
        """The URL schemes that some fetcher takes."""

    def extractors(self) -> list[Extractor]:
        """Every extractor."""

    def extractor(self, mime_type: str, suffix: str) -> Extractor | None:
        """The extractor for a MIME type, else for a file suffix."""


class AppInfo(Protocol):
    """What a plugin may know of the app that it is a part of.

    Attributes:
        profile: the name of the profile.
        settings: the resolved settings.
        data_dir: where everything is kept.
        is_worker: whether this is the app of a worker process.
        plugins, cache, store: the parts.
    """

    @property
    def profile(self) -> str: ...
    @property
    def settings(self) -> Settings: ...
    @property
    def data_dir(self) -> Path: ...
    @property
    def is_worker(self) -> bool: ...
    @property
    def plugins(self) -> PluginLookup: ...
    @property
    def cache(self) -> CacheProvider: ...
    @property
    def store(self) -> DataStorageProvider: ...


class TaskContext(Protocol):
    """What a task, fetcher or extractor gets as its first argument.

    Attributes:
        job: the execution: ``id``, ``task``, ``args``, ``tag``, ``attempt``, ``parent_id``,
            ``root_id``.
        settings, data_dir, cache, items, plugins: what it may use of the app.
        state: what the plugin keeps from job to job, written with the completion.
        log: a logger whose lines carry the job's id.
        cancelled: whether the job was cancelled meanwhile.
    """

    @property
    def job(self) -> Any: ...
    @property
    def settings(self) -> Settings: ...
    @property
    def data_dir(self) -> Path: ...
    @property
    def cache(self) -> CacheProvider: ...
    @property
    def items(self) -> DataStorageProvider: ...
    @property
    def plugins(self) -> PluginLookup: ...
    @property
    def state(self) -> MutableMapping[str, Any]: ...
    @property
    def log(self) -> logging.LoggerAdapter[logging.Logger]: ...
    @property
    def cancelled(self) -> bool: ...

    def enqueue(
        self, task: str, *args: Any, priority: int | None = None, delay: float | None = None
    ) -> None:
        """Add a follow-up job, together with this job's completion or not at all."""

    def progress(self, done: float, total: float | None = None) -> None:
        """Say how far this execution is."""


class TaskQueueProvider(Protocol):
    """Creates the Huey instance, and with it the job table, of a profile.

    Every process on one data directory has to come to the same table; the supervisor, which
    loads no plugin, is told the table's path.
    """

    def create(self, app: Any) -> Any:
        """The queue of this app. In a worker (``app.is_worker``) it runs nothing by itself."""


class ConfigurationProvider(Protocol):
    """Gives defaults for settings: over the packaged profile, under the user's files."""

    def defaults(self) -> Mapping[str, Any]:
        """Dotted keys and their values."""


class ContentSource(Protocol):
    """Finds addresses to fetch. Its name is a task's: ``paise2 enqueue NAME [ARG…] --every 1d``."""

    def addresses(self, context: TaskContext) -> Iterable[str]:
        """The addresses that it knows now; more parameters are arguments of the enqueue.

        Those that no fetcher takes, and files, are left out; only what is new is fetched.
        """


class LifecycleAction(Protocol):
    """Called when an app opens and closes, in workers too."""

    def opened(self, app: AppInfo) -> None:
        """After the app is ready. One that raises keeps the app, or the worker, from opening."""

    def closed(self, app: AppInfo) -> None:
        """Before its parts are closed."""


class ResetAction(Protocol):
    """Called by ``reset``."""

    def reset(self, app: AppInfo, hard: bool) -> None:
        """Forget what the plugin keeps of its own."""
