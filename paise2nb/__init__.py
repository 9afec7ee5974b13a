"""The background worker of the notebook: fetch, extract, store, search; the kernel stays free."""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from paise2nb.app import App, open
    from paise2nb.config.settings import Settings
    from paise2nb.core.errors import (
        JobFailed,
        NotFound,
        PaiseError,
        PermanentError,
        PluginError,
        SettingsError,
        StorageError,
        Timeout,
        TransientError,
        UnknownTask,
        UsageError,
        WorkersError,
    )
    from paise2nb.core.version import __version__
    from paise2nb.jobs.context import Context
    from paise2nb.notebook import load_ipython_extension, unload_ipython_extension
    from paise2nb.plugins import (
        Document,
        Fetched,
        Source,
        extractor,
        fetcher,
        hookimpl,
        task,
    )
    from paise2nb.views.items import Item, Items
    from paise2nb.views.jobs import Job, Jobs
    from paise2nb.views.status import Status

# Where each public name lives; imported when first used, so that loading the extension in a
# kernel costs little.
_HOMES = {
    "app": ("App", "open"),
    "jobs.context": ("Context",),
    "core.errors": (
        "JobFailed", "NotFound", "PaiseError", "PermanentError", "PluginError", "SettingsError",
        "StorageError", "Timeout", "TransientError", "UnknownTask", "UsageError", "WorkersError",
    ),
    "core.version": ("__version__",),
    "notebook": ("load_ipython_extension", "unload_ipython_extension"),
    "plugins": ("Document", "Fetched", "Source", "extractor", "fetcher", "hookimpl", "task"),
    "views.items": ("Item", "Items"),
    "views.jobs": ("Job", "Jobs"),
    "views.status": ("Status",),
    "config.settings": ("Settings",),
}  # fmt: skip
_HOME = {name: module for module, names in _HOMES.items() for name in names}


def __getattr__(name: str) -> Any:
    if name not in _HOME:
        raise AttributeError(f"module 'paise2nb' has no attribute {name!r}")
    return getattr(importlib.import_module(f"paise2nb.{_HOME[name]}"), name)


__all__ = [
    "App", "Context", "Document", "Fetched", "Item", "Items", "Job", "JobFailed", "Jobs",
    "NotFound", "PaiseError", "PermanentError", "PluginError", "Settings", "SettingsError",
    "Source", "Status", "StorageError", "Timeout", "TransientError", "UnknownTask", "UsageError",
    "WorkersError", "__version__", "extractor", "fetcher", "hookimpl", "load_ipython_extension",
    "open", "task", "unload_ipython_extension",
]  # fmt: skip
