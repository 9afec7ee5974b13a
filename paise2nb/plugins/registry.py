"""Find, load and look up plugins: built-in ones, entry points, modules, files and saved cells."""

from __future__ import annotations

import hashlib
import importlib
import importlib.metadata
import importlib.util
import re
import sys
import threading
from collections import ChainMap
from collections.abc import Callable, Collection, Iterable, Mapping
from difflib import get_close_matches
from fnmatch import fnmatchcase
from functools import partial
from operator import attrgetter
from pathlib import Path
from types import ModuleType
from typing import Any

import pluggy

from paise2nb.config.settings import Settings
from paise2nb.core.errors import PaiseError, PluginError, SettingsError, UnknownTask, message
from paise2nb.core.version import __version__
from paise2nb.plugins.api import Task
from paise2nb.plugins.documents import Extractor, Fetcher
from paise2nb.plugins.hookspecs import DeclaredFunctions, Hooks
from paise2nb.plugins.protocols import AppInfo, TaskQueueProvider
from paise2nb.plugins.saved import Fingerprint, SavedPlugins

ENTRY_POINTS = "paise2"  # the group
BUILT_IN = (
    "paise2nb.content.tasks",
    "paise2nb.content.sources",
    "paise2nb.content.fetch",
    "paise2nb.content.extract",
    "paise2nb.workers.queue",
    "paise2nb.collection.items",
    "paise2nb.collection.cache",
)
_OBJECT_HOOKS = (
    "configuration_providers",
    "data_storage_provider",
    "cache_provider",
    "lifecycle_actions",
)
# The hooks that an app calls only when it opens. A change of their plugins needs a new app.
STARTUP_HOOKS = ("task_queue_providers", *_OBJECT_HOOKS)


class Plugins:
    """The plugins of one app.

    Args:
        settings: The resolved settings.
        candidate: A file that replaces the saved plugin with its name.

    Attributes:
        hooks: The pluggy manager.
        tasks: All tasks by name.
        saved: The saved plugins, None if the settings name no data directory.
        generation: A number that changes when plugins are reloaded.

    Raises:
        PluginError: A plugin can't be loaded, or defines a task that exists already.
    """

    def __init__(self, settings: Settings, candidate: Path | None = None) -> None:
        self.hooks = pluggy.PluginManager("paise2")
        self.hooks.add_hookspecs(Hooks)
        self.generation = 0
        self.saved: SavedPlugins | None = None
        self._settings = settings
        self._fingerprint: Fingerprint | None = None
        self._refreshing = threading.Lock()
        self._names: dict[str, str] = {}  # module -> the name that the user gave
        self._versions: dict[str, str] = {}  # module -> version
        self._not_loaded: list[tuple[str, ...]] = []  # rows of `describe`
        paths: dict[str, str] = {}
        manifest: dict[str, Any] = {"versions": {}, "disabled": []}
        if settings.data_dir is not None:
            self.saved = SavedPlugins(settings.data_dir / "plugins")
            self._fingerprint = self.saved.fingerprint()  # first, so that a later change is noticed
            paths = {path.stem: str(path) for path in self.saved.paths()}
            manifest = self.saved.manifest()
        disabled = set(manifest["disabled"])
        if candidate is not None:
            paths[candidate.stem] = str(candidate)
            disabled.discard(candidate.stem)
        for name in BUILT_IN:
            self._register(name, importlib.import_module(name), __version__)
        self._load_entry_points(disabled)
        named: list[tuple[str, str]] = [(name, "") for name in settings.plugins]
        named += [(paths[key], str(manifest["versions"].get(key, ""))) for key in sorted(paths)]
        for name, version in named:
            short = short_name(name)
            if short in disabled:
                self._not_loaded.append(("plugin", short, short, version, "disabled", name))
            else:
                self._register(name, self._load(name, partial(_import, name)), version)
        self.tasks = self._collect_tasks()

    def follow(self, data_dir: Path) -> SavedPlugins:
        """Watch the saved plugins of a data directory, which an app may have chosen after loading.

        Returns:
            The saved plugins.
        """
        if self.saved is None:
            self._settings = self._settings.with_data_dir(data_dir)
            self.saved = SavedPlugins(data_dir / "plugins")
        return self.saved

    def refresh(self) -> bool:
        """Reload the plugins if one was saved, disabled or enabled.

        Running jobs continue with the code that they started with. If nothing has changed, this
        costs one ``stat``, so it is called before each enqueue and each execution.

        Returns:
            False if a new app is needed, because a plugin implements one of the `STARTUP_HOOKS`.

        Raises:
            PluginError: A plugin can't be loaded.
        """
        # Without the lock in the usual case: a forked child could inherit it locked.
        if self.saved is None or self.saved.fingerprint() == self._fingerprint:
            return True
        with self._refreshing:
            if self.saved.fingerprint() == self._fingerprint:
                return True
            loaded = Plugins(self._settings)
            if loaded.startup_hooks() != self.startup_hooks():
                return False
            self.hooks, self.tasks = loaded.hooks, loaded.tasks
            self._names, self._versions = loaded._names, loaded._versions
            self._not_loaded = loaded._not_loaded
            self.generation += 1
            self._fingerprint = loaded._fingerprint  # last: until then others wait for the lock
        return True

    def startup_hooks(self) -> set[tuple[str, str]]:
        """Return the hooks that an app calls only when it opens, each with its module."""
        return {
            (hook, _module_of(implementation))
            for hook in STARTUP_HOOKS
            for implementation in self._implementations(hook)
        }

    def _implementations(self, hook: str) -> list[pluggy.HookImpl]:
        """Return the implementations of a hook, the built-in ones first."""
        return list(getattr(self.hooks.hook, hook).get_hookimpls())

    # Loading ---------------------------------------------------------------------------------

    def _load_entry_points(self, disabled: Collection[str]) -> None:
        chosen = self._settings.entry_points
        for entry in sorted(importlib.metadata.entry_points(group=ENTRY_POINTS)):
            name, version = entry.name, entry.dist.version if entry.dist else ""
            allowed = _matches(name, chosen.allow) and not _matches(name, chosen.deny)
            if allowed and name not in disabled:
                self._register(name, self._load(name, entry.load), version)
            else:
                state = "disabled" if allowed else "not allowed"
                self._not_loaded.append(("entry point", name, name, version, state, entry.value))

    def _load(self, name: str, load: Callable[[], Any]) -> Any:
        try:
            return load()
        except (Exception, SystemExit) as error:
            raise PluginError(
                f"plugin {name!r} can't be loaded: {message(error)}; fix it, or remove it from "
                f"`plugins`, or: paise2 plugins disable {short_name(name)}"
            ) from error

    def _register(self, name: str, plugin: Any, version: str) -> None:
        # A module may contain decorated functions, hook implementations, or both.
        declared = DeclaredFunctions(plugin) if isinstance(plugin, ModuleType) else None
        module = getattr(plugin, "__name__", name)
        self._names[module] = name
        self._versions[module] = version or str(getattr(plugin, "__version__", ""))
        try:
            self.hooks.register(plugin, name)
            self.hooks.check_pending()
            if declared is not None and declared.declared:
                self.hooks.register(declared, f"{name} (declared)")
        except (ValueError, pluggy.PluginValidationError) as error:
            reason = " ".join(str(error).split())
            raise PluginError(f"plugin {name!r} can't be registered: {reason}") from error

    def _collect_tasks(self) -> dict[str, Task]:
        loads = [(hook.plugin_name, hook.function) for hook in self._implementations("tasks")]
        loads += [
            (hook.plugin_name, partial(self._source_tasks, hook))
            for hook in self._implementations("content_sources")
        ]
        tasks: dict[str, Task] = {}
        for plugin, load in loads:
            for task in self._load(plugin, load) or ():
                if task.name in tasks:
                    first, second = tasks[task.name].plugin, task.plugin
                    error = PluginError(
                        f"plugin {self._names.get(second, second)!r} defines task {task.name!r}, "
                        f"which {self._names.get(first, first)!r} has defined already; "
                        "give it another name"
                    )
                    error.function = task.function
                    raise error
                tasks[task.name] = task
        return tasks

    def _source_tasks(self, implementation: pluggy.HookImpl) -> list[Task]:
        """Return a task for each content source of one plugin."""
        sources: Any = implementation.function()
        module = _module_of(implementation)
        source_task = self.hooks.hook.source_task
        return [source_task(name=n, source=source, plugin=module) for n, source in sources.items()]

    # Looking up ------------------------------------------------------------------------------

    def defaults(self) -> list[tuple[str, Mapping[str, Any]]]:
        """Return the defaults of all configuration providers, each with its plugin."""
        return [
            (short_name(plugin), self.call(plugin, "defaults()", provider.defaults))
            for plugin, provider in self.actions("configuration_providers")
        ]

    def task(self, name: str) -> Task:
        """Return the task with that name.

        Raises:
            UnknownTask: There is none. The message contains the most similar name, or explains
                why a function of a notebook can't be enqueued.
        """
        if callable(name):
            raise UnknownTask(_not_a_task(name, self.tasks))
        if name in self.tasks:
            return self.tasks[name]
        main = sys.modules.get("__main__")
        function = getattr(main, name, None)
        is_program = getattr(main, "__package__", None) == "paise2nb"  # python -m paise2nb
        if callable(function) and function.__module__ == "__main__" and not is_program:
            raise UnknownTask(_not_a_task(function, self.tasks))
        similar = get_close_matches(name, self.tasks, 1)
        hint = f"did you mean {similar[0]!r}?" if similar else f"known: {', '.join(self.tasks)}"
        raise UnknownTask(f"unknown task {name!r}; {hint}")

    def fetchers(self) -> list[Fetcher]:
        """Return all fetchers, those of plugins before the built-in ones."""
        return [entry for group in self.hooks.hook.content_fetchers() for entry in group]

    def extractors(self) -> list[Extractor]:
        """Return all extractors, those of plugins before the built-in ones."""
        return [entry for group in self.hooks.hook.content_extractors() for entry in group]

    def fetcher(self, scheme: str) -> Fetcher | None:
        """Return the first fetcher for a URL scheme, or None."""
        return next((f for f in self.fetchers() if scheme in f.schemes), None)

    def schemes(self) -> set[str]:
        """Return the URL schemes that have a fetcher."""
        return {scheme for fetcher in self.fetchers() for scheme in fetcher.schemes}

    def extractor(self, mime_type: str, suffix: str) -> Extractor | None:
        """Return the first extractor for a MIME type, else for a file suffix, or None."""
        found = self.extractors()
        family = mime_type.split("/")[0] + "/*"
        by_type = (e for e in found if mime_type in e.mime_types or family in e.mime_types)
        by_suffix = (e for e in found if suffix and suffix in e.suffixes)
        return next(by_type, None) or next(by_suffix, None)

    def first_result(self, hook: str, app: AppInfo) -> Any:
        """Call a hook for an app. Return the first result, that of a plugin before the built-in.

        Raises:
            PaiseError: The plugin raised it. Any other exception becomes a PluginError.
        """
        results = (
            self.call(found.plugin_name, hook, found.function, *[app][: len(found.argnames)])
            for found in reversed(self._implementations(hook))
        )
        return next(result for result in results if result is not None)

    def actions(self, hook: str) -> list[tuple[str, Any]]:
        """Return the objects that a hook provides, each with its plugin, built-in ones first."""
        return [
            (found.plugin_name, action)
            for found in self._implementations(hook)
            for action in self.call(found.plugin_name, hook, found.function)
        ]

    def call(self, plugin: str, what: str, function: Callable[..., Any], *arguments: Any) -> Any:
        """Call a function of a plugin.

        Raises:
            PaiseError: The function raised it. Any other exception becomes a PluginError, whose
                message names the plugin.
        """
        try:
            return function(*arguments)
        except PaiseError:
            raise
        except Exception as error:
            reason = message(error)
            raise PluginError(f"plugin {plugin!r} failed in {what}: {reason}; fix it") from error

    def provider(self, name: str) -> TaskQueueProvider:
        """Return the task queue provider with that name. Raises SettingsError."""
        known: ChainMap[str, TaskQueueProvider]
        known = ChainMap(*self.hooks.hook.task_queue_providers())
        if name not in known:
            near = get_close_matches(name, known, 1)
            hint = f"did you mean {near[0]}? " if near else ""
            raise SettingsError(
                f"task_queue.provider is {name!r}, which no plugin defines; "
                f"{hint}known: {', '.join(sorted(known))}"
            )
        return known[name]

    def describe(self) -> list[dict[str, str]]:
        """Return a row for each registered object, and for each plugin that is not loaded."""
        found = [("task", task.name, task.plugin) for task in self.tasks.values()]
        found += [("fetcher", ", ".join(f.schemes), f.plugin) for f in self.fetchers()]
        found += [
            ("extractor", ", ".join((*e.mime_types, *e.suffixes)), e.plugin)
            for e in self.extractors()
        ]
        by_name = ("task_queue_providers", "content_sources")
        for hook in (*by_name, *_OBJECT_HOOKS, "reset_actions"):
            kind = hook.removesuffix("s").replace("_", " ")
            for implementation in self._implementations(hook):
                names: Any = implementation.function() if hook in by_name else [""]
                found += [(kind, name, _module_of(implementation)) for name in names]
        rows = [self._row(*values) for values in found] + self._not_loaded
        keys = ("kind", "name", "plugin", "version", "state", "origin")
        return [dict(zip(keys, row, strict=True)) for row in rows]

    def _row(self, kind: str, name: str, module: str) -> tuple[str, ...]:
        file = getattr(sys.modules.get(module), "__file__", None) or ""
        return kind, name, short_name(module), self._versions.get(module, ""), "loaded", file


def resolve(
    profile: str | None = None,
    data_dir: str | Path | None = None,
    settings: Mapping[str, object] | None = None,
) -> tuple[Settings, Plugins]:
    """Return the settings, with the defaults of plugins among the layers, and the loaded plugins.

    Raises:
        SettingsError: A setting, or a plugin's default, is wrong.
        PluginError: A plugin can't be loaded.
    """
    layers = partial(Settings.resolve, profile, data_dir=data_dir, overrides=dict(settings or {}))
    resolved = layers()
    plugins = Plugins(resolved)
    if defaults := plugins.defaults():
        before, resolved = resolved, layers(defaults=defaults)
        chosen = attrgetter("plugins", "entry_points", "data_dir")
        if chosen(resolved) != chosen(before):
            plugins = Plugins(resolved)
    return resolved, plugins


def _module_of(implementation: pluggy.HookImpl) -> str:
    """Return the module that implements a hook, or the plugin's name if it is not a module."""
    return getattr(implementation.plugin, "__name__", implementation.plugin_name)


def _not_a_task(function: Callable[..., Any], tasks: Collection[str]) -> str:
    """Explain why a function can't be enqueued, and what to do instead."""
    name = getattr(function, "__name__", "name")
    declared = [entry.name for entry in getattr(function, "__paise2__", ()) if type(entry) is Task]
    task = declared[0] if declared else name
    if getattr(function, "__module__", None) != "__main__":
        hint = f'by its name: enqueue("{task}", …)' if task in tasks else "from a plugin"
        return f"{name} is a function; a task is enqueued {hint}"
    decorate = "" if declared else f', decorated with @task("{task}")'
    return (
        f"{name} is a function of this notebook, which no worker can find; write it in a cell "
        f'below %%paise2 plugin {name}{decorate}, then: enqueue("{task}", …)'
    )


def short_name(plugin: str) -> str:
    """Return the name that users see: of a file, or of the module made from one, its stem."""
    made = re.fullmatch(r"paise2_plugin_(.+)_[0-9a-f]{8}", plugin)
    return made[1] if made else Path(plugin).stem if plugin.endswith(".py") else plugin


def _matches(name: str, patterns: Iterable[str]) -> bool:
    return any(fnmatchcase(name, pattern) for pattern in patterns)


def _import(name: str) -> ModuleType:
    """Import a module, or a ``.py`` file under a name made from its path and content."""
    if not name.endswith(".py"):
        return importlib.import_module(name)
    path = Path(name).expanduser().resolve()
    if not path.is_file():
        raise FileNotFoundError(f"no file {path}")
    digest = hashlib.blake2b(str(path).encode() + path.read_bytes(), digest_size=4).hexdigest()
    module_name = f"paise2_plugin_{path.stem}_{digest}"
    if module_name in sys.modules:
        return sys.modules[module_name]
    spec = importlib.util.spec_from_file_location(module_name, path)
    assert spec is not None, "there is a loader for .py files"
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[module_name] = module
    try:
        spec.loader.exec_module(module)
    except BaseException:
        del sys.modules[module_name]
        raise
    return module
