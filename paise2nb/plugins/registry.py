"""How plugins are found, loaded and asked: the built-in ones, entry points, files and cells."""

from __future__ import annotations

import hashlib
import importlib
import importlib.metadata
import importlib.util
import re
import sys
import threading
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from difflib import get_close_matches
from fnmatch import fnmatchcase
from functools import partial
from pathlib import Path
from types import MappingProxyType, ModuleType
from typing import Any

import pluggy

from paise2nb.config.settings import Settings
from paise2nb.core.errors import PaiseError, PluginError, UnknownTask
from paise2nb.plugins.api import Task
from paise2nb.plugins.documents import Extractor, Fetcher
from paise2nb.plugins.hookspecs import DeclaredFunctions, Hooks
from paise2nb.plugins.protocols import AppInfo, TaskQueueProvider
from paise2nb.plugins.saved import Fingerprint, SavedPlugins

ENTRY_POINTS = "paise2"
BUILT_IN = (
    "paise2nb.content.tasks",
    "paise2nb.content.sources",
    "paise2nb.content.fetch",
    "paise2nb.content.extract",
    "paise2nb.workers.queue",
    "paise2nb.collection.items",
    "paise2nb.collection.cache",
)
# What an app asks for once, when it opens: another one takes a new app, or a fresh process.
STARTUP_HOOKS = (
    "task_queue_providers", "configuration_providers", "data_storage_provider", "cache_provider",
    "lifecycle_actions",
)  # fmt: skip


class Plugins:
    """The plugins of one app: the built-in ones, entry points, and those the settings name."""

    def __init__(
        self,
        named: Iterable[str] = (),
        *,
        allow: Sequence[str] = ("*",),
        deny: Sequence[str] = (),
        disabled: Collection[str] = (),
        versions: Mapping[str, int] = MappingProxyType({}),
    ) -> None:
        """Load every plugin.

        Args:
            named: modules, or paths of ``.py`` files.
            allow, deny: patterns for the names of entry points; one that is denied, or not
                allowed, is listed and never imported.
            disabled: plugins that are listed and not loaded, by what a person calls them.
            versions: of those among the named that came from cells.

        Raises:
            PluginError: one can't be loaded, or takes a name that is taken; it is named.
        """
        self.hooks = pluggy.PluginManager("paise2")
        self.hooks.add_hookspecs(Hooks)
        self._names: dict[str, str] = {}  # of modules, as the user knows them
        self._versions: dict[str, str] = {}  # of modules
        self._left_out: list[dict[str, str]] = []
        from paise2nb.core.version import __version__

        for name in BUILT_IN:
            self._add(name, importlib.import_module(name), __version__)
        for entry in sorted(importlib.metadata.entry_points(group=ENTRY_POINTS)):
            version = entry.dist.version if entry.dist else ""
            allowed = _fits(entry.name, allow) and not _fits(entry.name, deny)
            if allowed and entry.name not in disabled:
                self._add(entry.name, self._guard(entry.name, entry.load), version)
            else:
                state = "disabled" if allowed else "not allowed"
                self._leave_out("entry point", entry.name, version, state, entry.value)
        for name in named:
            short = short_name(name)
            version = str(versions.get(name, ""))
            if short in disabled:
                self._leave_out("plugin", short, version, "disabled", name)
            else:
                self._add(name, self._guard(name, partial(_import, name)), version)
        self.tasks = self._tasks()
        self.generation = 0  # changes when plugins are loaded again
        self._settings: Settings | None = None
        self._saved: SavedPlugins | None = None
        self._fingerprint: Fingerprint | None = None
        self._refreshing = threading.Lock()

    @classmethod
    def of(cls, settings: Settings, candidate: Path | None = None) -> Plugins:
        """The plugins of some settings: entry points, modules that they name, cells.

        Args:
            settings: resolved.
            candidate: a file that stands in for the cell of its name.

        Raises:
            PluginError: as above.
        """
        paths: dict[str, str] = {}
        disabled: set[str] = set()
        versions: dict[str, int] = {}
        saved, fingerprint = None, None
        if settings.data_dir is not None:
            saved = SavedPlugins(settings.data_dir / "plugins")
            fingerprint = saved.fingerprint()  # first: what is saved meanwhile is loaded again
            paths, manifest = {path.stem: str(path) for path in saved.paths()}, saved.manifest()
            disabled = set(manifest["disabled"])
            versions = {paths[name]: n for name, n in manifest["versions"].items() if name in paths}
        if candidate is not None:
            paths[candidate.stem] = str(candidate)
            disabled.discard(candidate.stem)
        entry_points = settings.entry_points
        plugins = cls(
            [*settings.plugins, *(paths[name] for name in sorted(paths))],
            allow=entry_points.allow,
            deny=entry_points.deny,
            disabled=disabled,
            versions=versions,
        )
        plugins._settings, plugins._saved, plugins._fingerprint = settings, saved, fingerprint
        return plugins

    def refresh(self) -> bool:
        """Load again what has changed since: plugins saved, disabled or enabled.

        Jobs that run go on with the code that they began with. Where nothing has changed it costs
        one ``stat``, so every enqueue and every execution may call it.

        Returns:
            False where that takes a new app, because an app asks for some hooks only when it opens.

        Raises:
            PluginError: a plugin can't be loaded any more.
        """
        if self._settings is None or self._saved is None:
            return True
        fingerprint = self._saved.fingerprint()
        if fingerprint == self._fingerprint:
            return True
        with self._refreshing:
            if fingerprint != self._fingerprint:
                loaded = Plugins.of(self._settings)
                if loaded.startup_hooks() != self.startup_hooks():
                    return False
                self.hooks, self.tasks = loaded.hooks, loaded.tasks
                self._names, self._versions = loaded._names, loaded._versions
                self._left_out = loaded._left_out
                self.generation += 1
                # Last: until then other threads wait for the lock.
                self._fingerprint = loaded._fingerprint
        return True

    def startup_hooks(self) -> set[tuple[str, str]]:
        """Who stands behind the extension points that an app asks only once."""
        return {
            (point, _module_of(implementation))
            for point in STARTUP_HOOKS
            for implementation in getattr(self.hooks.hook, point).get_hookimpls()
        }

    def _leave_out(self, kind: str, name: str, version: str, state: str, origin: str) -> None:
        self._left_out.append({
            "kind": kind, "name": name, "plugin": name, "version": version, "state": state,
            "origin": origin,
        })  # fmt: skip

    def _guard(self, name: str, load: Callable[[], Any]) -> Any:
        try:
            return load()
        except (Exception, SystemExit) as error:
            reason = " ".join(f"{type(error).__name__}: {error}".split())
            raise PluginError(
                f"plugin {name!r} can't be loaded: {reason}; mend it, or remove it from `plugins`, "
                f"or: paise2 plugins disable {short_name(name)}"
            ) from error

    def _add(self, name: str, plugin: Any, version: str) -> None:
        # A module may hold decorated functions, hook implementations, or both.
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

    def _tasks(self) -> dict[str, Task]:
        tasks: dict[str, Task] = {}
        hooks = self.hooks.hook
        offers = [(hook.plugin_name, hook.function) for hook in hooks.tasks.get_hookimpls()]
        offers += [
            (hook.plugin_name, partial(self._source_tasks, hook))
            for hook in hooks.content_sources.get_hookimpls()
        ]
        for name, offered in offers:  # the built-in ones first
            for declared in self._guard(name, offered) or ():
                if declared.name in tasks:
                    taken, plugin = tasks[declared.name].plugin, declared.plugin
                    error = PluginError(
                        f"plugin {self._names.get(plugin, plugin)!r} defines task "
                        f"{declared.name!r}, which {self._names.get(taken, taken)!r} has already; "
                        "give it another name"
                    )
                    error.function = declared.function
                    raise error
                tasks[declared.name] = declared
        return tasks

    def _source_tasks(self, implementation: pluggy.HookImpl) -> list[Task]:
        """A task for each content source of one plugin."""
        module = _module_of(implementation)
        found: Any = implementation.function()
        as_task = self.hooks.hook.source_task
        return [as_task(name=name, source=source, plugin=module) for name, source in found.items()]

    def defaults(self) -> list[tuple[str, Mapping[str, Any]]]:
        """What configuration providers give, each with its plugin; the user's own last."""
        return [
            (short_name(name), self.call(name, "defaults()", provider.defaults))
            for name, provider in self.actions("configuration_providers")
        ]

    def task(self, name: str) -> Task:
        """The task of that name.

        Raises:
            UnknownTask: with the nearest known name; for a function of a notebook, which no
                worker could find, with what to do about it.
        """
        if callable(name):
            raise UnknownTask(_not_by_function(name, self.tasks))
        try:
            return self.tasks[name]
        except KeyError:
            main = sys.modules.get("__main__")
            function = getattr(main, name, None)
            ours = getattr(main, "__package__", None) == "paise2nb"
            if callable(function) and function.__module__ == "__main__" and not ours:
                raise UnknownTask(_not_by_function(function, self.tasks)) from None
            near = get_close_matches(name, self.tasks, 1)
            hint = f"did you mean {near[0]!r}?" if near else f"known: {', '.join(self.tasks)}"
            raise UnknownTask(f"unknown task {name!r}; {hint}") from None

    def fetchers(self) -> list[Fetcher]:
        """Every fetcher, plugins before the built-in ones."""
        return [entry for group in self.hooks.hook.content_fetchers() for entry in group]

    def extractors(self) -> list[Extractor]:
        """Every extractor, plugins before the built-in ones."""
        return [entry for group in self.hooks.hook.content_extractors() for entry in group]

    def fetcher(self, scheme: str) -> Fetcher | None:
        """The first fetcher of a URL scheme, plugins before the built-in ones."""
        return next((f for f in self.fetchers() if scheme in f.schemes), None)

    def schemes(self) -> set[str]:
        """The URL schemes that some fetcher takes."""
        return {scheme for fetcher in self.fetchers() for scheme in fetcher.schemes}

    def extractor(self, mime_type: str, suffix: str) -> Extractor | None:
        """The extractor for a MIME type, else for a file suffix; plugins come first."""
        found = self.extractors()
        family = mime_type.split("/")[0] + "/*"
        by_type = (e for e in found if mime_type in e.mime_types or family in e.mime_types)
        by_suffix = (e for e in found if suffix and suffix in e.suffixes)
        return next(by_type, None) or next(by_suffix, None)

    def first_result(self, point: str, app: AppInfo) -> Any:
        """What the first provider of an extension point makes for this app, the user's own first.

        Raises:
            PaiseError: as the provider says; whatever else it raises becomes a PluginError.
        """
        hooks = reversed(getattr(self.hooks.hook, point).get_hookimpls())
        made = (
            self.call(hook.plugin_name, point, hook.function, *[app][: len(hook.argnames)])
            for hook in hooks
        )
        return next(first_result for first_result in made if first_result is not None)

    def actions(self, point: str) -> list[tuple[str, Any]]:
        """The objects of an extension point, each with its plugin; the built-in ones first."""
        return [
            (hook.plugin_name, action)
            for hook in getattr(self.hooks.hook, point).get_hookimpls()
            for action in self.call(hook.plugin_name, point, hook.function)
        ]

    def call(self, plugin: str, what: str, function: Callable[..., Any], *arguments: Any) -> Any:
        """Call a plugin's function; what it raises becomes a PluginError that names the plugin."""
        try:
            return function(*arguments)
        except PaiseError:
            raise
        except Exception as error:
            reason = " ".join(f"{type(error).__name__}: {error}".split())
            raise PluginError(f"plugin {plugin!r} failed in {what}: {reason}; mend it") from error

    def provider(self, name: str) -> TaskQueueProvider:
        """The task queue provider of that name. Raises PluginError with the known names."""
        known: dict[str, TaskQueueProvider] = {}
        for group in reversed(self.hooks.hook.task_queue_providers()):
            known.update(group)
        if name not in known:
            raise PluginError(
                f"task_queue.provider is {name!r}, which no plugin defines; "
                f"known: {', '.join(sorted(known))}"
            )
        return known[name]

    def describe(self) -> list[dict[str, str]]:
        """One row for each thing that is registered, and for each plugin that is left out."""
        rows: list[dict[str, str]] = []
        hook = self.hooks.hook

        def row(kind: str, name: str, module: str) -> None:
            file = getattr(sys.modules.get(module), "__file__", None) or ""
            rows.append({
                "kind": kind, "name": name, "plugin": short_name(module),
                "version": self._versions.get(module, ""), "state": "loaded", "origin": file,
            })  # fmt: skip

        for declared in self.tasks.values():
            row("task", declared.name, declared.plugin)
        for fetches in self.fetchers():
            row("fetcher", ", ".join(fetches.schemes), fetches.plugin)
        for extracts in self.extractors():
            row("extractor", ", ".join((*extracts.mime_types, *extracts.suffixes)), extracts.plugin)
        for point in ("task_queue_providers", "content_sources"):
            for implementation in getattr(hook, point).get_hookimpls():
                for name in implementation.function():
                    row(point.removesuffix("s").replace("_", " "), name, _module_of(implementation))
        for point in (
            "configuration_providers", "data_storage_provider", "cache_provider",
            "lifecycle_actions", "reset_actions",
        ):  # fmt: skip
            for implementation in getattr(hook, point).get_hookimpls():
                row(point.removesuffix("s").replace("_", " "), "", _module_of(implementation))
        return rows + self._left_out


def _module_of(implementation: pluggy.HookImpl) -> str:
    """The name of the module that implements a hook; of a plugin that is none, its own."""
    return getattr(implementation.plugin, "__name__", implementation.plugin_name)


def _not_by_function(function: Callable[..., Any], known: Iterable[str]) -> str:
    """Why a function can't be enqueued, and what to do instead."""
    name = getattr(function, "__name__", "name")
    declared = [entry.name for entry in getattr(function, "__paise2__", ()) if type(entry) is Task]
    task = declared[0] if declared else name
    if getattr(function, "__module__", None) != "__main__":
        hint = f'by its name: enqueue("{task}", …)' if task in known else "from a plugin"
        return f"{name} is a function; a task is enqueued {hint}"
    decorate = "" if declared else f', decorated with @task("{task}")'
    return (
        f"{name} is a function of this notebook, which no worker can find; write it in a cell "
        f'below %%paise2 plugin {name}{decorate}, then: enqueue("{task}", …)'
    )


def short_name(plugin: str) -> str:
    """What a person calls a plugin: a file, or the module made of one, by the file's name."""
    made = re.fullmatch(r"paise2_plugin_(.+)_[0-9a-f]{8}", plugin)
    return made[1] if made else Path(plugin).stem if plugin.endswith(".py") else plugin


def _fits(name: str, patterns: Iterable[str]) -> bool:
    return any(fnmatchcase(name, pattern) for pattern in patterns)


def _import(name: str) -> ModuleType:
    """Import a module, or a ``.py`` file under a name made of its path and content."""
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
    if spec is None or spec.loader is None:
        raise ImportError(f"{path} is not a Python file")
    module = importlib.util.module_from_spec(spec)
    sys.modules[module_name] = module
    try:
        spec.loader.exec_module(module)
    except BaseException:
        del sys.modules[module_name]
        raise
    return module
