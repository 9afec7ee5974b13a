"""Find, load and look up plugins: built-in ones, entry points, modules, files and saved cells."""

import importlib
import importlib.metadata
import importlib.util
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

from paise2nb.config.settings import DEFAULT_POOL, Settings
from paise2nb.core.errors import PaiseError, PluginError, SettingsError, message
from paise2nb.core.version import __version__
from paise2nb.plugins.api import Task
from paise2nb.plugins.declarations import (
    PROTOCOLS,
    RETURNED,
    check_all,
    check_content,
    check_defaults,
    check_pools,
    check_provider,
    check_task,
    checked,
    taken_error,
)
from paise2nb.plugins.hookspecs import DeclaredFunctions, Hooks
from paise2nb.plugins.loading import import_plugin, load_error, short_name, unknown_task
from paise2nb.plugins.protocols import AppInfo, Extractor, Fetcher, TaskQueueProvider
from paise2nb.plugins.saved import Fingerprint, SavedPlugins

ENTRY_POINTS = "paise2"  # the group
BUILT_IN = (
    "paise2nb.content.tasks",
    "paise2nb.content.sources",
    "paise2nb.content.sources.links",
    "paise2nb.content.sources.rendered",
    "paise2nb.content.sources.sitemaps",
    "paise2nb.content.sources.web_archives",
    "paise2nb.content.fetch",
    "paise2nb.content.extract",
    "paise2nb.workers.queue",
    "paise2nb.collection.items",
    "paise2nb.collection.cache",
)
# The hooks that an app calls only when it opens. A change of their plugins needs a new app.
STARTUP_HOOKS = ("task_queue_providers", *(PROTOCOLS.keys() - {"reset_actions"}))


class Plugins:
    """The plugins of one app.

    Args:
        settings: The resolved settings.
        candidate: A file that replaces the saved plugin with its name.
        tolerant: Load the other plugins if one can't be loaded.

    Attributes:
        hooks: The pluggy manager.
        tasks: All tasks by name.
        broken: Why plugins can't be loaded, by their names. Empty unless ``tolerant``.
        saved: The saved plugins, None if the settings name no data directory.
        generation: A number that changes when plugins are reloaded.

    Raises:
        PluginError: A plugin can't be loaded, or defines a task that exists already.
        SettingsError: A pool has a task that no plugin defines.
    """

    def __init__(
        self, settings: Settings, candidate: Path | None = None, *, tolerant: bool = False
    ) -> None:
        self.hooks = pluggy.PluginManager("paise2")
        self.hooks.add_hookspecs(Hooks)
        self.generation = 0
        self.saved: SavedPlugins | None = None
        self.tasks: dict[str, Task] = {}
        self.broken: dict[str, PluginError] = {}
        self._settings = settings
        self._tolerant = tolerant
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
            try:
                manifest = self.saved.manifest()
                paths = {path.stem: str(path) for path in self.saved.paths()}
            except PluginError as error:  # which of them are disabled is not known
                self.refuse(str(self.saved.directory), error)
        disabled = set(manifest["disabled"])
        if candidate is not None:
            paths[candidate.stem] = str(candidate)
            disabled.discard(candidate.stem)
        for name in BUILT_IN:
            self._add(name, partial(import_plugin, name), __version__)
        self._load_entry_points(disabled)
        named: list[tuple[str, str]] = [(name, "") for name in settings.plugins]
        named += [(paths[key], str(manifest["versions"].get(key, ""))) for key in sorted(paths)]
        for name, version in named:
            short = short_name(name)
            if short in disabled:
                self._not_loaded.append(("plugin", short, short, version, "disabled", name))
            else:
                self._add(name, partial(import_plugin, name), version)
        if not self._not_loaded:  # else one of those may define the task
            check_pools(settings, self.tasks)

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
            loaded = Plugins(self._settings, tolerant=self._tolerant)
            if loaded.startup_hooks() != self.startup_hooks():
                return False
            self.hooks, self.tasks, self.broken = loaded.hooks, loaded.tasks, loaded.broken
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
                self._add(name, entry.load, version)
            else:
                state = "disabled" if allowed else "not allowed"
                row = "entry point", name, name, version, state, entry.value
                self._not_loaded.append(row)

    def _add(self, name: str, load: Callable[[], Any], version: str) -> None:
        """Load a plugin with all that it declares.

        Raises:
            PluginError: It can't be loaded, unless this is tolerated.
        """
        tasks = dict(self.tasks)
        registered = (name, f"{name} (declared)")
        if self.hooks.has_plugin(name):
            self.refuse(
                name, PluginError(f"plugin {name!r} can't be registered: it is named twice")
            )
            return
        try:
            self._register(name, self._load(name, load), version)
            self._collect(name, registered)
        except PluginError as error:
            self.tasks = tasks
            for each in filter(self.hooks.has_plugin, registered):
                self.hooks.unregister(name=each)
            self.refuse(name, error, version)

    def refuse(self, name: str, error: PluginError, version: str = "") -> None:
        """Record that a plugin is broken, if this is tolerated; raise the error if not."""
        if not self._tolerant:
            raise error
        short = short_name(name)
        self.broken[short] = error
        self._not_loaded.append(("plugin", short, short, version, "broken", name, str(error)))

    def require_all(self) -> None:
        """Raise the PluginError of the first plugin that can't be loaded, if there is one."""
        for error in self.broken.values():
            raise error

    def _load(self, name: str, load: Callable[[], Any]) -> Any:
        try:
            return load()
        except (Exception, SystemExit) as error:
            raise load_error(name, error) from error

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

    def _collect(self, name: str, registered: Collection[str]) -> None:
        """Check what a plugin declares, and add its tasks.

        Args:
            name: The name that the user gave.
            registered: The names under which it is registered.
        """
        found: dict[str, list[Any]] = {}
        for hook in RETURNED:
            for implementation in self._implementations(hook):
                if implementation.plugin_name in registered:
                    value = self._load(name, implementation.function)
                    if value is not None:
                        value = checked(name, hook, value)
                        found.setdefault(hook, []).append((implementation, value))
        tasks = [task for _, some in found.get("tasks", ()) for task in some]
        for implementation, sources in found.get("content_sources", ()):
            tasks += self._source_tasks(name, implementation, sources)
        queue, pools = self._settings.task_queue, {DEFAULT_POOL, *self._settings.workers.pools}
        if queue.provider == "none" or queue.sqlite.immediate:  # there are no workers
            pools |= {task.pool for task in tasks}
        for task in tasks:
            check_task(name, task, pools)
            if first := self.tasks.get(task.name):
                raise taken_error(name, task, self._names.get(first.plugin, first.plugin))
            self.tasks[task.name] = task
        for hook in ("content_fetchers", "content_extractors"):
            for entry in (entry for _, some in found.get(hook, ()) for entry in some):
                check_content(name, entry)

    def _source_tasks(
        self, name: str, implementation: pluggy.HookImpl, sources: Mapping[str, Any]
    ) -> list[Task]:
        """Return a task for each content source of one plugin."""
        for source in sources.values():
            check_provider(name, "content_sources", source)
        module, make = _module_of(implementation), self.hooks.hook.source_task
        return [make(name=n, source=source, plugin=module) for n, source in sources.items()]

    # Looking up ------------------------------------------------------------------------------

    def defaults(self) -> list[tuple[str, Mapping[str, Any]]]:
        """Return the defaults of all configuration providers, each with its plugin."""
        found = []
        for plugin, provider in self.actions("configuration_providers"):
            try:
                values = self.call(plugin, "defaults()", provider.defaults)
                check_defaults(plugin, values)
                found.append((short_name(plugin), values))
            except PluginError as error:
                self.refuse(plugin, error)
        return found

    def task(self, name: str) -> Task:
        """Return the task with that name.

        Raises:
            UnknownTask: There is none. The message contains the most similar name, or explains
                why a function of a notebook can't be enqueued.
        """
        if not callable(name) and name in self.tasks:
            return self.tasks[name]
        raise unknown_task(name, self.tasks, self.broken)

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
        for found in reversed(self._implementations(hook)):
            plugin, arguments = found.plugin_name, [app][: len(found.argnames)]
            try:
                result = self.call(plugin, hook, found.function, *arguments)
                if result is not None:
                    check_provider(plugin, hook, result)
                    return result
            except PluginError as error:
                self.refuse(plugin, error)
        raise AssertionError(f"a built-in plugin implements {hook}")

    def actions(self, hook: str) -> list[tuple[str, Any]]:
        """Return the objects that a hook provides, each with its plugin, built-in ones first."""
        actions = []
        for found in self._implementations(hook):
            plugin = found.plugin_name
            try:
                provided = self.call(plugin, hook, found.function)
                check_all(plugin, hook, provided)
                actions += [(plugin, action) for action in provided]
            except PluginError as error:
                self.refuse(plugin, error)
        return actions

    def call(self, plugin: str, what: str, function: Callable[..., Any], *arguments: Any) -> Any:
        """Call a function of a plugin.

        Raises:
            PaiseError: The function raised it. Any other exception becomes a PluginError that names
                the plugin.
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
            self.require_all()  # one of those may define it
            near = get_close_matches(name, known, 1)
            hint = f"did you mean {near[0]}? " if near else ""
            origin = self._settings.entries["task_queue", "provider"].origin
            raise SettingsError(
                f"{origin}: task_queue.provider is {name!r}, which no plugin defines; "
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
        for hook in (*by_name, *PROTOCOLS):
            kind = hook.removesuffix("s").replace("_", " ")
            for implementation in self._implementations(hook):
                names: Any = implementation.function() if hook in by_name else [""]
                found += [(kind, name, _module_of(implementation)) for name in names]
        rows = [self._row(*values) for values in found] + self._not_loaded
        keys = ("kind", "name", "plugin", "version", "state", "origin", "reason")
        return [dict(zip(keys, row, strict=False)) for row in rows]  # only some have a reason

    def _row(self, kind: str, name: str, module: str) -> tuple[str, ...]:
        file = getattr(sys.modules.get(module), "__file__", None) or ""
        return kind, name, short_name(module), self._versions.get(module, ""), "loaded", file


def resolve(
    profile: str | None = None,
    data_dir: str | Path | None = None,
    settings: Mapping[str, object] | None = None,
    *,
    tolerant: bool = False,
) -> tuple[Settings, Plugins]:
    """Return the settings, with the defaults of plugins among the layers, and the loaded plugins.

    Args:
        profile, data_dir, settings: As in `Settings.resolve`.
        tolerant: As in `Plugins`.

    Raises:
        SettingsError: A setting, or a plugin's default, is wrong.
        PluginError: A plugin can't be loaded.
    """
    layers = partial(Settings.resolve, profile, data_dir=data_dir, overrides=dict(settings or {}))
    resolved = layers()
    plugins = Plugins(resolved, tolerant=tolerant)
    if defaults := plugins.defaults():
        before, resolved = resolved, layers(defaults=defaults)
        chosen = attrgetter("plugins", "entry_points", "data_dir")
        if chosen(resolved) != chosen(before):
            plugins = Plugins(resolved, tolerant=tolerant)
    return resolved, plugins


def _module_of(implementation: pluggy.HookImpl) -> str:
    """Return the module that implements a hook, or the plugin's name if it is not a module."""
    return getattr(implementation.plugin, "__name__", implementation.plugin_name)


def _matches(name: str, patterns: Iterable[str]) -> bool:
    return any(fnmatchcase(name, pattern) for pattern in patterns)
