"""Import plugins, and say in one line why one can't be loaded, or why a task is unknown."""

import hashlib
import importlib
import importlib.util
import re
import sys
import traceback
from collections.abc import Callable, Collection, Mapping
from pathlib import Path
from types import ModuleType
from typing import Any

from paise2nb.core.errors import PaiseError, PluginError, UnknownTask, message
from paise2nb.core.text import did_you_mean
from paise2nb.plugins.api import Task

_HERE = str(Path(__file__).parent)


def short_name(plugin: str) -> str:
    """Return the name that users see: of a file, or of the module made from one, its stem."""
    made = re.fullmatch(r"paise2_plugin_(.+)_[0-9a-f]{8}", plugin)
    return made[1] if made else Path(plugin).stem if plugin.endswith(".py") else plugin


def import_plugin(name: str) -> ModuleType:
    """Import a module, or a ``.py`` file under a name made from its path and content."""
    if not name.endswith(".py"):
        return importlib.import_module(name)
    path = Path(name).expanduser().resolve()
    if not path.is_file():
        raise FileNotFoundError(f"no file {path}")
    source = path.read_bytes()
    digest = hashlib.blake2b(str(path).encode() + source, digest_size=4).hexdigest()
    module_name = f"paise2_plugin_{path.stem}_{digest}"
    if module_name in sys.modules:
        return sys.modules[module_name]
    spec = importlib.util.spec_from_file_location(module_name, path)
    assert spec is not None, "there is a loader for .py files"
    module = importlib.util.module_from_spec(spec)
    sys.modules[module_name] = module
    try:
        # Not by its loader: that may read a later version of the file, or take the bytecode of an
        # earlier one with the same size that was saved in the same second.
        exec(compile(source, path, "exec", dont_inherit=True), vars(module))
    except BaseException:
        del sys.modules[module_name]
        raise
    return module


def load_error(plugin: str, error: BaseException) -> PluginError:
    """Return the error for a plugin that raised one while it was loaded."""
    where = _place(plugin, *_failing_line(error))
    reason = f"SyntaxError: {error.msg}" if isinstance(error, SyntaxError) else message(error)
    return PluginError(
        f"plugin {plugin!r} can't be loaded: {where}{reason}; fix it, or remove it from "
        f"`plugins`, or: paise2 plugins disable {short_name(plugin)}"
    )


def rule_error(plugin: str, reason: str, function: Any = None) -> PluginError:
    """Return the error for a plugin that breaks a rule of its declarations.

    Args:
        plugin: The name that the user gave.
        reason: The name, the value, and what to write instead.
        function: The function that breaks the rule.
    """
    code = getattr(function, "__code__", None)
    file, line = (code.co_filename, code.co_firstlineno) if code else ("", None)
    error = PluginError(f"plugin {plugin!r}: {_place(plugin, file, line)}{reason}")
    error.reason, error.function = reason, function
    return error


def _place(plugin: str, file: str, line: int | None) -> str:
    if line is None:
        return ""
    return f"line {line}: " if plugin.endswith(".py") else f"{file}, line {line}: "


def _failing_line(error: BaseException) -> tuple[str, int | None]:
    """Return the file of a plugin and the line in it that raised an error, if it has run."""
    if isinstance(error, SyntaxError) and error.filename:
        return error.filename, error.lineno
    frames = [
        frame
        for frame in traceback.extract_tb(error.__traceback__)
        if not frame.filename.startswith((_HERE, "<frozen ", importlib.__path__[0]))
    ]
    if not frames or (isinstance(error, PaiseError) and error.__cause__ is not None):
        return "", None
    file = frames[0].filename  # the plugin's own: what it imports and calls comes after it
    return file, next(frame.lineno for frame in reversed(frames) if frame.filename == file)


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
    return UnknownTask(f"unknown task {name!r}; {did_you_mean(name, tasks, '{!r}')}")


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
