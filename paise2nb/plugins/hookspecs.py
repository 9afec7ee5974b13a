"""The hook specifications: one for each extension point, with what it returns."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from types import ModuleType
from typing import Any

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
    """The hooks that a plugin can implement. A hook that adds nothing may return None."""

    @hookspec
    def task_queue_providers(self) -> Mapping[str, TaskQueueProvider]:
        """Return queues by the name that selects them in ``task_queue.provider``."""

    @hookspec
    def configuration_providers(self) -> Sequence[ConfigurationProvider]:
        """Return providers of default settings."""

    @hookspec(firstresult=True)
    def data_storage_provider(self, app: AppInfo) -> DataStorageProvider:
        """Return the store of this app's items."""

    @hookspec(firstresult=True)
    def cache_provider(self, app: AppInfo) -> CacheProvider:
        """Return the cache of this app."""

    @hookspec
    def content_sources(self) -> Mapping[str, ContentSource]:
        """Return sources of URLs by name. Each becomes a task of that name."""

    @hookspec
    def content_fetchers(self) -> Sequence[Fetcher]:
        """Return fetchers. The decorator ``@fetcher`` makes this hook unnecessary."""

    @hookspec
    def content_extractors(self) -> Sequence[Extractor]:
        """Return extractors. The decorator ``@extractor`` makes this hook unnecessary."""

    @hookspec
    def tasks(self) -> Sequence[Task]:
        """Return tasks. The decorator ``@task`` makes this hook unnecessary."""

    @hookspec(firstresult=True)
    def source_task(self, name: str, source: ContentSource, plugin: str) -> Task:
        """Return the task that enqueues the URLs of a content source. Built in."""

    @hookspec
    def lifecycle_actions(self) -> Sequence[LifecycleAction]:
        """Return actions to call when an app opens and closes."""

    @hookspec
    def reset_actions(self) -> Sequence[ResetAction]:
        """Return actions to call on ``reset``."""


class DeclaredFunctions:
    """Implements the hooks for the decorated functions of a module."""

    def __init__(self, module: ModuleType) -> None:
        self.declared: list[Any] = [
            declaration
            for value in vars(module).values()
            if getattr(value, "__module__", None) == module.__name__
            for declaration in getattr(value, "__paise2__", ())
        ]

    @hookimpl
    def tasks(self) -> list[Task]:
        """Return the tasks that the module declares."""
        return [entry for entry in self.declared if isinstance(entry, Task)]

    @hookimpl
    def content_fetchers(self) -> list[Fetcher]:
        """Return the fetchers that the module declares."""
        return [entry for entry in self.declared if isinstance(entry, Fetcher)]

    @hookimpl
    def content_extractors(self) -> list[Extractor]:
        """Return the extractors that the module declares."""
        return [entry for entry in self.declared if isinstance(entry, Extractor)]
