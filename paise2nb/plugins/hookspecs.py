"""The hook specifications: one for each extension point, with what it returns."""

from collections.abc import Mapping, Sequence
from types import ModuleType
from typing import Any

import pluggy

from paise2nb.plugins import protocols
from paise2nb.plugins.api import Task
from paise2nb.plugins.protocols import Extractor, Fetcher

hookspec = pluggy.HookspecMarker("paise2")
hookimpl = pluggy.HookimplMarker("paise2")


class Hooks:
    """The hooks that a plugin can implement. Each returns what the plugin adds."""

    @hookspec
    def task_queue_providers(self) -> Mapping[str, protocols.TaskQueueProvider]:
        """Return queues by the name that selects them in ``task_queue.provider``."""

    @hookspec
    def configuration_providers(self) -> Sequence[protocols.ConfigurationProvider]:
        """Return providers of default settings."""

    @hookspec(firstresult=True)
    def data_storage_provider(self, app: protocols.AppInfo) -> protocols.DataStorageProvider:
        """Return the store of this app's items."""

    @hookspec(firstresult=True)
    def cache_provider(self, app: protocols.AppInfo) -> protocols.CacheProvider:
        """Return the cache of this app."""

    @hookspec
    def content_sources(self) -> Mapping[str, protocols.ContentSource]:
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
    def source_task(self, name: str, source: protocols.ContentSource, plugin: str) -> Task:
        """Return the task that enqueues the URLs of a content source. Built in."""

    @hookspec
    def lifecycle_actions(self) -> Sequence[protocols.LifecycleAction]:
        """Return actions to call when an app opens and closes."""

    @hookspec
    def reset_actions(self) -> Sequence[protocols.ResetAction]:
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
