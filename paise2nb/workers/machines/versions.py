"""Which tasks a machine may run: those with the same code there as at home."""

import hashlib
import inspect
import sys
from collections.abc import Mapping
from functools import cache

from paise2nb.core.version import __version__
from paise2nb.plugins import Plugins, short_name

_OURS = "paise2nb."


def _content_modules(plugins: Plugins) -> set[str]:
    return {f.plugin for f in plugins.fetchers()} | {e.plugin for e in plugins.extractors()}


@cache
def _fingerprint(module: str, generation: int) -> str:
    try:
        source = inspect.getsource(sys.modules[module])
    except (KeyError, OSError, TypeError):
        return "unknown"
    return hashlib.sha256(source.encode()).hexdigest()[:16]


def fingerprints(plugins: Plugins) -> dict[str, str]:
    """A hash of the source of each plugin with tasks, fetchers or extractors, by its name."""
    modules = {task.plugin for task in plugins.tasks.values()} | _content_modules(plugins)
    return {
        short_name(module): _fingerprint(module, plugins.generation)
        for module in modules
        if not module.startswith(_OURS)
    }


def tasks_for(
    plugins: Plugins, version: str, theirs: Mapping[str, str]
) -> tuple[list[str], str | None]:
    """The tasks that a machine may run, and why it may not run the others.

    Args:
        plugins: Those of home.
        version: The machine's, of paise2nb.
        theirs: The `fingerprints` of the machine.
    """
    if version != __version__:
        return [], f"it has paise2nb {version}, home has {__version__}; install the same version"
    ours = fingerprints(plugins)
    different = {name for name in ours if ours[name] != theirs.get(name)}
    content = {short_name(module) for module in _content_modules(plugins)}
    tasks, refused = [], set()
    for task in plugins.tasks.values():
        if task.runs != "anywhere":
            continue
        # Built-in tasks call the fetchers and extractors of plugins.
        needed = content if task.plugin.startswith(_OURS) else {short_name(task.plugin)}
        if needed & different:
            refused |= needed & different
        else:
            tasks.append(task.name)
    if not refused:
        return tasks, None
    names = ", ".join(sorted(refused))
    return tasks, f"plugin {names} is missing there or differs; install the same one"


def saved_sources(plugins: Plugins) -> dict[str, str]:
    """The source of each plugin that was written in a cell and is enabled, by its name."""
    if plugins.saved is None:
        return {}
    disabled = plugins.saved.manifest()["disabled"]
    return {p.stem: p.read_text("utf-8") for p in plugins.saved.paths() if p.stem not in disabled}
