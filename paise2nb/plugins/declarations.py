"""The rules of what plugins declare and return, checked when they are loaded."""

import inspect
import json
import re
from collections.abc import Collection, Iterable, Iterator, Mapping
from typing import Any

from paise2nb.config.settings import Settings
from paise2nb.core.errors import PluginError, SettingsError, shortened
from paise2nb.core.text import did_you_mean
from paise2nb.plugins.api import Task
from paise2nb.plugins.loading import rule_error
from paise2nb.plugins.protocols import (
    CacheProvider,
    ConfigurationProvider,
    ContentSource,
    DataStorageProvider,
    Extractor,
    Fetcher,
    LifecycleAction,
    ResetAction,
)

_CONTEXT_NAMES = ("context", "ctx", "c")
_NAMED_ONLY = (inspect.Parameter.KEYWORD_ONLY, inspect.Parameter.VAR_KEYWORD)
_SHAPES = {Fetcher: "(context, url)", Extractor: "(context, data, source)"}
# The forms of what each is declared for, and an example.
_NAMES: dict[Any, tuple[dict[str, str], str]] = {
    Fetcher: ({"schemes": r"[^:/]+"}, '"ftp"'),
    Extractor: (
        {"mime_types": r"[^/]+/[^/]+", "suffixes": r"\..+"},
        '"text/csv", suffixes=[".csv"]',
    ),
}
# What those hooks return that are called when a plugin is loaded.
RETURNED = {
    "tasks": ("a list of Task", Iterable, Task),
    "content_fetchers": ("a list of Fetcher", Iterable, Fetcher),
    "content_extractors": ("a list of Extractor", Iterable, Extractor),
    "content_sources": ("a mapping of names to a ContentSource", Mapping, str),
    "task_queue_providers": ("a mapping of names to a TaskQueueProvider", Mapping, str),
}


# What each object has to be that the other hooks return.
PROTOCOLS: dict[str, type] = {
    "configuration_providers": ConfigurationProvider,
    "data_storage_provider": DataStorageProvider,
    "cache_provider": CacheProvider,
    "lifecycle_actions": LifecycleAction,
    "reset_actions": ResetAction,
}


def checked(plugin: str, hook: str, value: Any) -> Any:
    """Return what a hook of a plugin returned, which may be a generator. Raises PluginError."""
    wanted, collection, element = RETURNED[hook]
    value = list(value) if isinstance(value, Iterator) else value
    if not isinstance(value, collection) or not all(isinstance(e, element) for e in value):
        raise rule_error(plugin, f"{hook} returned {_shown(value)}; return {wanted}")
    return value


def check_provider(plugin: str, hook: str, provider: Any) -> None:
    """Check that an object has the methods of the protocol of a hook. Raises PluginError."""
    protocol = PROTOCOLS.get(hook, ContentSource)
    names = [name for name in vars(protocol) if callable(getattr(protocol, name))]
    methods = [name for name in names if not name.startswith("_")]
    if missing := [name for name in methods if not callable(getattr(provider, name, None))]:
        lacking = ", ".join(f"{name}()" for name in missing)
        reason = f"{hook} returned {_shown(provider)}, which has no {lacking}"
        raise rule_error(plugin, f"{reason}; return a {protocol.__name__}")


def check_all(plugin: str, hook: str, providers: Any) -> None:
    """Check each of the objects that a hook returned. Raises PluginError."""
    if not isinstance(providers, Collection) or isinstance(providers, str | bytes | Mapping):
        reason = f"{hook} returned {_shown(providers)}; return a list of {PROTOCOLS[hook].__name__}"
        raise rule_error(plugin, reason)
    for provider in providers:
        check_provider(plugin, hook, provider)


def check_defaults(plugin: str, values: Any) -> None:
    """Check the defaults of a configuration provider. Raises PluginError."""
    if not isinstance(values, Mapping):
        reason = f"defaults() returned {_shown(values)}; return a mapping of dotted keys to values"
        raise rule_error(plugin, reason)


def check_task(plugin: str, task: Task, pools: Collection[str]) -> None:
    """Check a task.

    Args:
        plugin: The name that the user gave.
        task: The task.
        pools: The names of all pools.

    Raises:
        PluginError: The task breaks a rule.
    """

    def broken(reason: str) -> PluginError:
        return rule_error(plugin, f"task {task.name!r}: {reason}", task.function)

    if not isinstance(task.name, str) or not task.name.strip() or task.name.startswith("-"):
        raise broken("a name must be a word")
    if task.pool is not None and task.pool not in pools:
        known = ", ".join(sorted(pools))
        raise broken(f"pool is {task.pool!r}, which workers.pools does not have; known: {known}")
    parameters = _parameters(task.function)
    name = getattr(task.function, "__name__", "function")
    if not parameters or not _is_context(parameters[0]):
        others = "".join(f", {parameter}" for parameter in parameters)
        raise broken(f"it takes no context; write def {name}(context{others or ', …'})")
    for parameter in parameters[1:]:
        if parameter.default is not parameter.empty:
            try:
                json.dumps(parameter.default, allow_nan=False)
            except (TypeError, ValueError):
                default = _shown(parameter.default)
                raise broken(f"the default of {parameter.name!r} is not JSON: {default}") from None
        elif parameter.kind is parameter.KEYWORD_ONLY:
            raise broken(f"no job can pass {parameter.name!r} by name; give it a default")


def taken_error(plugin: str, task: Task, first: str) -> PluginError:
    """Return the error for a task with a name that another plugin has taken first."""
    error = PluginError(
        f"plugin {plugin!r} defines task {task.name!r}, which {first!r} has defined already; "
        "give it another name"
    )
    error.function = task.function
    return error


def check_content(plugin: str, entry: Fetcher | Extractor) -> None:
    """Check the function of a fetcher or an extractor, and its names. Raises PluginError."""
    shape, parameters = _SHAPES[type(entry)], _parameters(entry.function)
    kind, name = type(entry).__name__.lower(), getattr(entry.function, "__name__", "function")
    forms, example = _NAMES[type(entry)]
    names = [(each, form) for field, form in forms.items() for each in getattr(entry, field)]
    fitting = [isinstance(each, str) and re.fullmatch(form, each) for each, form in names]
    if not names or not all(fitting):
        given = _shown([each for each, _ in names])
        reason = f"{kind} {name} is declared for {given}; write @{kind}({example})"
        raise rule_error(plugin, reason, entry.function)
    try:
        inspect.signature(entry.function).bind(*shape.split(","))
        fits = _is_context(parameters[0])
    except TypeError:
        fits = False
    if not fits:
        raise rule_error(plugin, f"{kind} {name} must take {shape}", entry.function)


def check_pools(settings: Settings, tasks: Collection[str]) -> None:
    """Check that the tasks of all pools exist. Raises SettingsError."""
    for name, pool in settings.workers.pools.items():
        for task in pool.tasks:
            if task not in tasks:
                key = ("workers", "pools", name, "tasks")
                where = f"{settings.entries[key].origin}: {'.'.join(key)}"
                hint = did_you_mean(task, tasks)
                raise SettingsError(f"{where}: unknown task {task!r}; {hint}")


def _parameters(function: Any) -> list[inspect.Parameter]:
    try:
        return list(inspect.signature(function).parameters.values())
    except (TypeError, ValueError):  # not a function, or one written in C
        return []


def _is_context(parameter: inspect.Parameter) -> bool:
    """Whether a first parameter is the context, by its name or its annotation."""
    if parameter.kind is parameter.VAR_POSITIONAL:
        return True
    named = parameter.name in _CONTEXT_NAMES or parameter.name.startswith("_")
    annotated = getattr(parameter.annotation, "__name__", str(parameter.annotation))
    return parameter.kind not in _NAMED_ONLY and (named or "Context" in annotated)


def _shown(value: Any) -> str:
    return f"{shortened(repr(value), 100)} ({type(value).__name__})"
