"""Extension points: what a plugin can add, how it says so, and how plugins are found.

The built-in providers, fetchers, extractors and tasks are registered through the same hooks as a
stranger's, after them in the order of calls, so that the user's come first. Decorated functions
need no hook: they are collected from the module that defines them.
"""

from paise2nb.plugins.api import Task, extractor, fetcher, task
from paise2nb.plugins.documents import Document, Extractor, Fetched, Fetcher, Source
from paise2nb.plugins.hookspecs import hookimpl
from paise2nb.plugins.protocols import (
    AppInfo,
    CacheProvider,
    ConfigurationProvider,
    ContentSource,
    DataStorageProvider,
    LifecycleAction,
    PluginLookup,
    ResetAction,
    TaskContext,
    TaskQueueProvider,
)
from paise2nb.plugins.registry import BUILT_IN, ENTRY_POINTS, Plugins, short_name

__all__ = [
    "BUILT_IN", "ENTRY_POINTS", "AppInfo", "CacheProvider", "ConfigurationProvider",
    "ContentSource", "DataStorageProvider", "Document", "Extractor", "Fetched", "Fetcher",
    "LifecycleAction", "PluginLookup", "Plugins", "ResetAction", "Source", "Task", "TaskContext",
    "TaskQueueProvider", "extractor", "fetcher", "hookimpl", "short_name", "task",
]  # fmt: skip
