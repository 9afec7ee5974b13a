"""Extension points: what a plugin can add, how it says so, and how plugins are found.

One pluggy specification for each extension point. The built-in providers, fetchers, extractors
and tasks are registered through the same hooks as a stranger's, after them in the order of
calls, so that the user's come first. Decorated functions need no hook: they are collected
from the module that defines them.
"""

from __future__ import annotations

import hashlib
import importlib
import importlib.metadata
import importlib.util
import inspect
import json
import math
import re
import sys
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from difflib import get_close_matches
from fnmatch import fnmatchcase
from functools import cached_property, partial
from pathlib import Path
from types import MappingProxyType, ModuleType
from typing import TYPE_CHECKING, Any, NamedTuple, Protocol, TypeVar

import pluggy

from paise2nb.cells import Cells
from paise2nb.errors import PaiseError, PluginError, UnknownTask, UsageError

if TYPE_CHECKING:
    from paise2nb.app import App, Context
    from paise2nb.queue import JobHuey
    from paise2nb.settings import Settings

hookspec = pluggy.HookspecMarker("paise2")
hookimpl = pluggy.HookimplMarker("paise2")

ENTRY_POINTS = "paise2"
BUILT_IN = (
    "paise2nb.tasks",
    "paise2nb.sources",
    "paise2nb.fetch",
    "paise2nb.extract",
    "paise2nb.queue",
    "paise2nb.items",
    "paise2nb.cache",
)
RULES = {"max_retries", "retry_delay", "backoff", "max_delay"}  # of a retry policy
# What an app asks for once, when it opens: another one takes a new app, or a fresh process.
BOUND = (
    "task_queue_providers", "configuration_providers", "data_storage_provider", "cache_provider",
    "lifecycle_actions",
)  # fmt: skip
F = TypeVar("F", bound=Callable[..., Any])
_encode = json.JSONEncoder(allow_nan=False, sort_keys=True).encode


# What flows between fetchers, extractors and stores ------------------------------------------


@dataclass(frozen=True)
class Fetched:
    """What a fetcher brought: the bytes and what the other side said about them.

    ``url`` is the address after redirects, ``mime_type`` None where it is not known,
    ``charset`` as declared, ``meta`` what a later request or a freshness check needs (JSON);
    a ``status`` of 304 in it says that the stored item still stands, and there are no bytes.
    """

    data: bytes
    url: str
    mime_type: str | None = None
    charset: str | None = None
    meta: dict[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class Source:
    """Where bytes came from, for an extractor: the address as given, and its type."""

    url: str
    mime_type: str
    charset: str | None = None


@dataclass(frozen=True)
class Document:
    """What an extractor made of bytes: the text and what is known about it.

    ``date`` is ISO 8601, ``language`` a BCP 47 tag, ``metadata`` anything else (JSON). ``url``
    is only set where one source holds several documents: each needs an address of its own.
    """

    text: str
    title: str | None = None
    author: str | None = None
    date: str | None = None
    language: str | None = None
    url: str | None = None
    metadata: dict[str, Any] = field(default_factory=dict)


# What a decorator records --------------------------------------------------------------------


@dataclass(frozen=True)
class Task:
    """A named function that jobs run. Times in seconds; None means the setting decides.

    ``check`` turns the arguments of an enqueue into the ones that are stored, or raises
    UsageError; ``key`` gives the text by which duplicates are found; ``fresh`` says whether a
    completed job with the same key still stands, given the settings, its result, how long ago
    it finished (seconds) and the new arguments; ``host`` names the host whose turn a job needs.
    ``policies`` says what differs for errors of some classes, ``crash`` included:
    ``{"timeout": {"max_retries": 5, "retry_delay": 1}}``, also ``backoff`` and ``max_delay``.
    """

    name: str
    function: Callable[..., Any]
    max_retries: int | None = None
    retry_delay: float | None = None
    timeout: float | None = None
    memory_mb: int | None = None
    pool: str | None = None
    plugin: str = ""
    check: Callable[[App, tuple[Any, ...]], tuple[Any, ...]] | None = None
    key: Callable[[tuple[Any, ...]], str] | None = None
    fresh: Callable[[Settings, Any, float, tuple[Any, ...]], bool] | None = None
    host: Callable[[tuple[Any, ...]], str | None] | None = None
    policies: Mapping[str, Mapping[str, float]] = field(default_factory=dict)

    def __post_init__(self) -> None:
        for word, rule in self.policies.items():
            if unknown := sorted(set(rule) - RULES):
                raise PluginError(
                    f"task {self.name!r}: the policy for {word!r} knows no {unknown[0]!r}; "
                    f"it has {', '.join(sorted(RULES))}"
                )

    @cached_property
    def arity(self) -> tuple[int, float]:
        """How many arguments it takes, at least and at most."""
        taken = list(inspect.signature(self.function).parameters.values())[1:]
        positional = [p for p in taken if p.kind in (p.POSITIONAL_ONLY, p.POSITIONAL_OR_KEYWORD)]
        least = sum(1 for p in positional if p.default is p.empty)
        unbounded = any(p.kind is p.VAR_POSITIONAL for p in taken)
        return least, math.inf if unbounded else len(positional)

    @cached_property
    def _numbers(self) -> dict[int, tuple[str, type]]:
        """The parameters that are annotated as numbers, by their places: names and types."""
        taken = list(inspect.signature(self.function).parameters.values())[1:]
        kinds: dict[Any, type] = {int: int, "int": int, float: float, "float": float}
        return {
            place: (parameter.name, kinds[parameter.annotation])
            for place, parameter in enumerate(taken)
            if parameter.annotation in kinds
        }

    def _number(self, place: int, value: Any) -> Any:
        """An argument; a text in the place of a number, as one types it, is that number."""
        name, kind = self._numbers.get(place, ("", str))
        if not isinstance(value, str) or kind is str:
            return value
        try:
            return kind(value)
        except ValueError:
            words = "a whole number" if kind is int else "a number"
            raise UsageError(f"task {self.name!r}: {name} is {value!r}; give {words}") from None

    def with_options(
        self, argument: tuple[Any, ...], options: Mapping[str, Any]
    ) -> tuple[Any, ...]:
        """All arguments in their places, where some are given by name.

        Raises:
            UsageError: it has no parameter of that name.
        """
        taken = inspect.signature(self.function)
        if unknown := [name for name in options if name not in taken.parameters]:
            option = unknown[0].replace("_", "-")
            raise UsageError(f"task {self.name!r} takes no --{option}")
        try:
            bound = taken.bind(None, *argument, **options)
        except TypeError as error:
            raise UsageError(f"task {self.name!r}: {error}") from None
        bound.apply_defaults()
        return bound.args[1:]

    def accept(self, app: App, arguments: tuple[Any, ...]) -> tuple[str, int, str | None]:
        """Check the arguments of one job against the signature and the task's own check.

        Returns:
            The arguments as JSON text, a 64-bit number that is equal for duplicates, and the host
            whose turn the job needs.

        Raises:
            UsageError: they do not fit, or are not JSON.
        """
        least, most = self.arity
        if not least <= len(arguments) <= most:
            names = ", ".join(list(inspect.signature(self.function).parameters)[1:])
            raise UsageError(f"task {self.name!r} takes ({names}), not {arguments!r}")
        if self._numbers:
            arguments = tuple(map(self._number, range(len(arguments)), arguments))
        if self.check is not None:
            arguments = self.check(app, arguments)
        try:
            text = _encode(arguments)
        except (TypeError, ValueError) as error:
            raise UsageError(
                f"the arguments of task {self.name!r} must be JSON "
                f"(text, numbers, lists, objects): {error}"
            ) from None
        same = self.key(arguments) if self.key else text
        digest = hashlib.blake2b(f"{self.name}\0{same}".encode(errors="replace"), digest_size=8)
        number = int.from_bytes(digest.digest(), "big", signed=True)
        return text, number, self.host(arguments) if self.host else None


class Fetcher(NamedTuple):
    """A function ``(context, url) -> bytes | Fetched`` for some URL schemes."""

    function: Callable[..., bytes | Fetched]
    schemes: tuple[str, ...]
    plugin: str = ""


class Extractor(NamedTuple):
    """A function ``(context, data, source) -> Document | list[Document]`` for some types.

    A MIME type may end in ``/*``. A suffix (with its dot) counts where the type says nothing.
    """

    function: Callable[..., Document | list[Document]]
    mime_types: tuple[str, ...]
    suffixes: tuple[str, ...] = ()
    plugin: str = ""


def task(
    name: str,
    *,
    max_retries: int | None = None,
    retry_delay: float | None = None,
    timeout: float | None = None,
    memory_mb: int | None = None,
    pool: str | None = None,
    check: Callable[[App, tuple[Any, ...]], tuple[Any, ...]] | None = None,
    key: Callable[[tuple[Any, ...]], str] | None = None,
    fresh: Callable[[Settings, Any, float, tuple[Any, ...]], bool] | None = None,
    host: Callable[[tuple[Any, ...]], str | None] | None = None,
    policies: Mapping[str, Mapping[str, float]] = MappingProxyType({}),
) -> Callable[[F], F]:
    """Make a function ``(context, *arguments)`` a task. See `Task` for the parameters."""

    def mark(function: F) -> F:
        declared = Task(
            name, function, max_retries, retry_delay, timeout, memory_mb, pool,
            function.__module__, check, key, fresh, host, policies,
        )  # fmt: skip
        return _declare(function, declared)

    return mark


def fetcher(*schemes: str) -> Callable[[F], F]:
    """Make a function ``(context, url)`` the fetcher of some URL schemes."""

    def mark(function: F) -> F:
        return _declare(function, Fetcher(function, schemes, function.__module__))

    return mark


def extractor(*mime_types: str, suffixes: Iterable[str] = ()) -> Callable[[F], F]:
    """Make a function ``(context, data, source)`` the extractor of some MIME types."""

    def mark(function: F) -> F:
        declared = Extractor(function, mime_types, tuple(suffixes), function.__module__)
        return _declare(function, declared)

    return mark


def _declare(function: F, declared: Task | Fetcher | Extractor) -> F:
    declarations: list[Any] = getattr(function, "__paise2__", [])
    function.__paise2__ = [*declarations, declared]  # type: ignore[attr-defined]
    return function


# The extension points ------------------------------------------------------------------------


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
    """Keeps items and finds them by their words. The built-in one is `paise2nb.items.ItemStore`."""

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


class Declared:
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


# Finding and keeping them --------------------------------------------------------------------


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
        from paise2nb import __version__

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
        if settings.data_dir is not None:
            cells = Cells(settings.data_dir / "plugins")
            paths, note = {path.stem: str(path) for path in cells.paths()}, cells.note()
            disabled = set(note["disabled"])
            versions = {paths[name]: n for name, n in note["versions"].items() if name in paths}
        if candidate is not None:
            paths[candidate.stem] = str(candidate)
            disabled.discard(candidate.stem)
        rules = settings.entry_points
        return cls(
            [*settings.plugins, *(paths[name] for name in sorted(paths))],
            allow=rules.allow, deny=rules.deny, disabled=disabled, versions=versions,
        )  # fmt: skip

    def bound(self) -> set[tuple[str, str]]:
        """Who stands behind the extension points that an app asks only once."""
        return {
            (point, _module_of(implementation))
            for point in BOUND
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
        declared = Declared(plugin) if isinstance(plugin, ModuleType) else None
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
            (hook.plugin_name, partial(_source_tasks, hook))
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

    def part(self, point: str, app: App) -> Any:
        """What the first provider of an extension point makes for this app, the user's own first.

        Raises:
            PaiseError: as the provider says; whatever else it raises becomes a PluginError.
        """
        hooks = reversed(getattr(self.hooks.hook, point).get_hookimpls())
        made = (
            self.call(hook.plugin_name, point, hook.function, *[app][: len(hook.argnames)])
            for hook in hooks
        )
        return next(part for part in made if part is not None)

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


def _source_tasks(implementation: pluggy.HookImpl) -> list[Task]:
    """A task for each content source of one plugin."""
    from paise2nb.sources import source_task

    module = _module_of(implementation)
    found: Mapping[str, ContentSource] = implementation.function()  # type: ignore[assignment]
    return [source_task(name, source, module) for name, source in found.items()]


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
