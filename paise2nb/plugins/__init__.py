"""The extension points: what a plugin can add, how it declares that, and how plugins are found.

The built-in providers, fetchers, extractors and tasks are registered through the same hooks as
those of other plugins, which take precedence. Decorated functions need no hook: they are collected
from the module that defines them.
"""

from paise2nb.plugins.api import Task, extractor, fetcher, task
from paise2nb.plugins.hookspecs import hookimpl
from paise2nb.plugins.loading import short_name
from paise2nb.plugins.protocols import (
    AppInfo,
    CacheProvider,
    ConfigurationProvider,
    ContentExtractor,
    ContentFetcher,
    ContentSource,
    DataStorageProvider,
    Document,
    Extractor,
    Fetched,
    Fetcher,
    LifecycleAction,
    PluginLookup,
    ResetAction,
    Source,
    TaskContext,
    TaskQueueProvider,
)
from paise2nb.plugins.registry import BUILT_IN, ENTRY_POINTS, Plugins

__all__ = ["Document", "Extractor", "Fetched", "Fetcher", "Source", "Task"]
__all__ += ["extractor", "fetcher", "hookimpl", "task"]
__all__ += ["AppInfo", "CacheProvider", "ConfigurationProvider"]
__all__ += ["ContentExtractor", "ContentFetcher", "ContentSource"]
__all__ += ["DataStorageProvider", "LifecycleAction", "PluginLookup", "ResetAction"]
__all__ += ["TaskContext", "TaskQueueProvider"]
__all__ += ["BUILT_IN", "ENTRY_POINTS", "Plugins", "short_name"]
