"""The extension points: one pluggy specification for each, and what it has to provide."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from types import ModuleType

import pluggy

from paise2nb.plugins.api import Task
from paise2nb.plugins.documents import Extractor, Fetcher
from paise2nb.plugins.protocols import (
    AppInfo,
    CacheProvider,
    ConfigurationProvider,
    ContentSource,
    DataStorageProvider,
    LifecycleAction,
    ResetAction,
    TaskQueueProvider,
)

hookspec = pluggy.HookspecMarker("paise2")
hookimpl = pluggy.HookimplMarker("paise2")


class Hooks:
    """The specifications. Every hook returns what the plugin adds, or nothing."""

    @hookspec
    def task_queue_providers(self) -> Mapping[str, TaskQueueProvider]:
        """Queues by the name that ``task_queue.provider`` takes."""

    @hookspec
    def configuration_providers(self) -> Sequence[ConfigurationProvider]:
        """Defaults for settings."""

    @hookspec(firstresult=True)
    def data_storage_provider(self, app: AppInfo) -> DataStorageProvider:
        """The store of this app."""

    @hookspec(firstresult=True)
    def cache_provider(self, app: AppInfo) -> CacheProvider:
        """The cache of this app."""

    @hookspec
    def content_sources(self) -> Mapping[str, ContentSource]:
        """Sources by name."""

    @hookspec
    def content_fetchers(self) -> Sequence[Fetcher]:
        """Fetchers by URL scheme."""

    @hookspec
    def content_extractors(self) -> Sequence[Extractor]:
        """Extractors by MIME type."""

    @hookspec
    def tasks(self) -> Sequence[Task]:
        """Tasks by name."""

    @hookspec(firstresult=True)
    def source_task(self, name: str, source: ContentSource, plugin: str) -> Task:
        """The task that enqueues what a source of that plugin finds. Built in."""

    @hookspec
    def lifecycle_actions(self) -> Sequence[LifecycleAction]:
        """Called when an app opens and closes."""

    @hookspec
    def reset_actions(self) -> Sequence[ResetAction]:
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
