"""The extension points: one pluggy specification for each, and what it has to provide."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from types import ModuleType
from typing import TYPE_CHECKING, Any, Protocol

import pluggy

from paise2nb.plugins.api import Document, Extractor, Fetcher, Task

if TYPE_CHECKING:
    from paise2nb.app import App
    from paise2nb.jobs.context import Context
    from paise2nb.workers.queue import JobHuey

hookspec = pluggy.HookspecMarker("paise2")
hookimpl = pluggy.HookimplMarker("paise2")


class TaskQueueProvider(Protocol):
    """Creates the Huey instance, and with it the job table, of a profile.

    Every process on one data directory has to come to the same table; the supervisor, which
    loads no plugin, is told the table's path.
    """

    def create(self, app: App) -> JobHuey:
        """The queue of this app. In a worker (``app.is_worker``) it runs nothing by itself."""


class ConfigurationProvider(Protocol):
    """Gives defaults for settings: over the packaged profile, under the user's files."""

    def defaults(self) -> Mapping[str, Any]:
        """Dotted keys and their values."""


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


class ContentSource(Protocol):
    """Finds addresses to fetch. Its name is a task's: ``paise2 enqueue NAME [ARG…] --every 1d``."""

    def addresses(self, context: Context) -> Iterable[str]:
        """The addresses that it knows now; more parameters are arguments of the enqueue.

        Those that no fetcher takes, and files, are left out; only what is new is fetched.
        """


class LifecycleAction(Protocol):
    """Called when an app opens and closes, in workers too."""

    def opened(self, app: App) -> None:
        """After the app is ready. One that raises keeps the app, or the worker, from opening."""

    def closed(self, app: App) -> None:
        """Before its parts are closed."""


class ResetAction(Protocol):
    """Called by ``reset``."""

    def reset(self, app: App, hard: bool) -> None:
        """Forget what the plugin keeps of its own."""


class Hooks:
    """The specifications. Every hook returns what the plugin adds, or nothing."""

    @hookspec
    def task_queue_providers(self) -> Mapping[str, TaskQueueProvider]:  # type: ignore[empty-body]
        """Queues by the name that ``task_queue.provider`` takes."""

    @hookspec
    def configuration_providers(self) -> Sequence[ConfigurationProvider]:  # type: ignore[empty-body]
        """Defaults for settings."""

    @hookspec(firstresult=True)
    def data_storage_provider(self, app: App) -> DataStorageProvider:  # type: ignore[empty-body]
        """The store of this app."""

    @hookspec(firstresult=True)
    def cache_provider(self, app: App) -> CacheProvider:  # type: ignore[empty-body]
        """The cache of this app."""

    @hookspec
    def content_sources(self) -> Mapping[str, ContentSource]:  # type: ignore[empty-body]
        """Sources by name."""

    @hookspec
    def content_fetchers(self) -> Sequence[Fetcher]:  # type: ignore[empty-body]
        """Fetchers by URL scheme."""

    @hookspec
    def content_extractors(self) -> Sequence[Extractor]:  # type: ignore[empty-body]
        """Extractors by MIME type."""

    @hookspec
    def tasks(self) -> Sequence[Task]:  # type: ignore[empty-body]
        """Tasks by name."""

    @hookspec
    def lifecycle_actions(self) -> Sequence[LifecycleAction]:  # type: ignore[empty-body]
        """Called when an app opens and closes."""

    @hookspec
    def reset_actions(self) -> Sequence[ResetAction]:  # type: ignore[empty-body]
        """Called by ``reset``."""


class DeclaredFunctions:
    """A module's decorated functions, offered through the hooks like anything else."""

    def __init__(self, module: ModuleType) -> None:
        self.declared = [
            entry
            for value in vars(module).values()
            if getattr(value, "__module__", None) == module.__name__
            for entry in getattr(value, "__paise2__", ())
        ]

    @hookimpl
    def tasks(self) -> list[Task]:
        """The tasks that the module declares."""
        return [entry for entry in self.declared if isinstance(entry, Task)]

    @hookimpl
    def content_fetchers(self) -> list[Fetcher]:
        """The fetchers that the module declares."""
        return [entry for entry in self.declared if isinstance(entry, Fetcher)]

    @hookimpl
    def content_extractors(self) -> list[Extractor]:
        """The extractors that the module declares."""
        return [entry for entry in self.declared if isinstance(entry, Extractor)]
