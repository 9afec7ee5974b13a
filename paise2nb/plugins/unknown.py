"""Why a task is unknown, and what to do about it."""

import sys
from collections.abc import Callable, Collection, Mapping
from difflib import get_close_matches
from typing import Any

from paise2nb.core.errors import PaiseError, PluginError, UnknownTask
from paise2nb.plugins.api import Task


def unknown_task(
    name: Any, tasks: Collection[str], broken: Mapping[str, PluginError]
) -> PaiseError:
    """Return the error for a task that does not exist.

    Args:
        name: Its name, or by mistake a function.
        tasks: The names of all tasks.
        broken: Why plugins can't be loaded, by their names.
    """
    if callable(name):
        return UnknownTask(_not_a_task(name, tasks))
    for error in broken.values():
        return PluginError(f"unknown task {name!r}; a broken plugin may define it: {error}")
    main = sys.modules.get("__main__")
    function = getattr(main, name, None)
    is_program = getattr(main, "__package__", None) == "paise2nb"  # python -m paise2nb
    if callable(function) and function.__module__ == "__main__" and not is_program:
        return UnknownTask(_not_a_task(function, tasks))
    similar = get_close_matches(name, tasks, 1)
    hint = f"did you mean {similar[0]!r}?" if similar else f"known: {', '.join(tasks)}"
    return UnknownTask(f"unknown task {name!r}; {hint}")


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
