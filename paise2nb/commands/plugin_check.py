"""The check of a new plugin, in a separate process before anything else loads it.

Limits of time and memory apply there, and everything that the plugin started is ended. The answer
comes back as JSON in a file, so that what the plugin prints can't be taken for it.
"""

import builtins
import dis
import faulthandler
import importlib
import json
import os
import re
import sys
import threading
import time
import traceback
from collections.abc import Collection, Iterator
from pathlib import Path
from types import CodeType, ModuleType
from typing import IO, Any

import pluggy

from paise2nb.app import App
from paise2nb.config.settings import Settings
from paise2nb.core import processes
from paise2nb.core.errors import PluginError, message
from paise2nb.core.files import write_atomically
from paise2nb.core.render import amount
from paise2nb.core.urls import scheme_of
from paise2nb.plugins import BUILT_IN, Extractor, Plugins
from paise2nb.workers.spawn import start_program

LOAD_SECONDS = 10.0
START_SECONDS = 30.0  # that the process may take before it loads the plugin
POLL_SECONDS = 0.01
MAX_FILES = 1024  # open at one time
OUTPUT_LENGTH = 2000  # characters of the plugin's output that --try shows
_FAULTHANDLER_TIMEOUT = re.compile(r"^Timeout \(\d", re.MULTILINE)
_DEFINES = {"STORE_GLOBAL", "STORE_NAME"}
_READS = {"LOAD_GLOBAL", "LOAD_NAME"}


# In the process of the app --------------------------------------------------------------------


def check(
    settings: Settings,
    candidate: Path,
    notebook_names: Collection[str] = (),
    try_id: int | None = None,
    *,
    load_seconds: float = LOAD_SECONDS,
) -> dict[str, Any]:
    """Load a plugin in a separate process, and run it on a job or an item if one is given.

    Args:
        settings: the settings that an app of that process is opened with.
        candidate: the module's file, alone in its directory.
        notebook_names: the names that are defined in the notebook.
        try_id: the id of the job or item.
        load_seconds: seconds that the plugin may take to load.

    Returns:
        ``registers`` (in words), ``said`` (its output), and the outcome of the run.

    Raises:
        PluginError: what is wrong, and in which line of the cell.
    """
    candidate = candidate.resolve()  # as the module that is made from it names its file
    answer_file, output_file = candidate.with_name("answer"), candidate.with_name("output")
    seconds = load_seconds + (0 if try_id is None else settings.workers.timeout)
    order: list[Any] = [settings.to_json(), str(candidate), str(answer_file), seconds, try_id]
    with output_file.open("wb") as output:
        ended = _run_process(order, output, seconds, settings.workers.memory_mb)
    text = output_file.read_text("utf-8", "replace")
    if _FAULTHANDLER_TIMEOUT.search(text):
        ended = f"was still running after {seconds:g} s"
    try:
        answer: dict[str, Any] = json.loads(answer_file.read_bytes())
    except (FileNotFoundError, ValueError):
        # The line is in the traceback that faulthandler wrote at the timeout or the crash.
        found = re.search(rf'File "{re.escape(str(candidate))}", line (\d+)', text)
        answer = {"problem": ended, "line": int(found[1]) if found else None}
    lines = candidate.read_text("utf-8").split("\n")  # not at form feeds, as splitlines()
    if "problem" in answer:
        problem, line = answer["problem"], answer["line"]
        where = _line_text(line, lines) if line else ""
        if answer.get("undefined") in notebook_names:
            raise PluginError(
                f"`{answer['undefined']}` is defined in the notebook, not in this cell ({where}); "
                f"copy its definition into this cell, or import it"
            )
        raise PluginError(f"{where}: {problem}" if where else problem)
    return {**answer, "said": "" if try_id is None else text[-OUTPUT_LENGTH:].strip()}


def _line_text(line: int, lines: list[str]) -> str:
    code = lines[line - 1].strip() if line <= len(lines) else ""
    return f"line {line}, `{code}`" if code else f"line {line}"


def _run_process(order: list[Any], output: IO[bytes], seconds: float, memory_mb: float) -> str:
    """Run `main` in a separate process, and say how it ended."""
    mark = processes.new_mark()
    child = start_program(__name__, "check", order, output, mark=mark)
    try:
        deadline = time.monotonic() + seconds + START_SECONDS  # faulthandler ends it before
        while child.poll() is None:
            if (used := processes.family_mb(child.pid)) > memory_mb:
                return f"used {used:,.0f} MB of memory; the limit is {memory_mb:g} MB"
            if time.monotonic() > deadline:
                return f"was still running after {seconds:g} s"
            time.sleep(POLL_SECONDS)
    finally:
        child.kill()
        status = child.wait()
        processes.end_marked(mark)
    return f"ended its process with {f'status {status}' if status >= 0 else f'signal {-status}'}"


# In the separate process ---------------------------------------------------------------------


def main() -> None:
    """Load the plugin of the order on standard input, check and try it, and write the answer."""
    order = json.loads(sys.stdin.buffer.read())
    settings, candidate, answer_file, seconds, try_id = order
    pid = os.getpid()
    processes.adopt_orphans()
    processes.bound_files(MAX_FILES)
    faulthandler.enable()
    for name in BUILT_IN:
        importlib.import_module(name)
    # From here on the time is the plugin's own. At its end a traceback shows where it was.
    faulthandler.dump_traceback_later(seconds, exit=True)
    try:
        answer = _check_rules(Settings.from_json(settings), Path(candidate), try_id)
    except Exception as error:  # whatever the plugin raises is the answer
        answer = _locate(error, candidate)
    if os.getpid() == pid:  # a child that the plugin forked comes here, too
        write_atomically(Path(answer_file), json.dumps(answer, default=repr), sync=False)
    sys.stdout.flush()
    os._exit(0)  # whatever threads the plugin has started


def _check_rules(settings: Settings, candidate: Path, try_id: int | None) -> dict[str, Any]:
    plugins = Plugins(settings, candidate, tolerant=True)  # others may be broken
    _raise_broken(plugins, candidate)
    modules = list(sys.modules.values())
    module = next(m for m in modules if getattr(m, "__file__", None) == str(candidate))
    if undefined := _undefined_names(candidate, module):
        return _undefined(*min(undefined))
    rows = [row for row in plugins.describe() if row["origin"] == str(candidate)]
    if not rows:
        return _problem("the cell registers nothing; decorate a function, for example with @task")
    if problem := _left_running():
        return _problem(problem)
    if any(name == module.__name__ for _, name in plugins.startup_hooks()):
        with_defaults = settings
        for name, values in plugins.defaults():
            with_defaults = with_defaults.override(values, f"plugin {name}")
        App(with_defaults, plugins=plugins).close()  # calls the hooks of an app that opens
        _raise_broken(plugins, candidate)
    names = ", ".join(f"{row['kind']} {row['name']}".rstrip() for row in rows)
    if try_id is None:
        return {"registers": names}
    return {"registers": names, **_try(settings, plugins, module.__name__, try_id)}


def _problem(text: str, line: int | None = None, **facts: Any) -> dict[str, Any]:
    return {"problem": text, "line": line, **facts}


def _undefined(line: int, name: str) -> dict[str, Any]:
    return _problem(f"NameError: name {name!r} is not defined", line, undefined=name)


def _locate(error: Exception, candidate: str) -> dict[str, Any]:
    """Return the problem that an exception means, and its line in the plugin."""
    cause: BaseException = error
    while isinstance(cause, PluginError) and cause.__cause__ is not None:
        cause = cause.__cause__
    if isinstance(cause, pluggy.PluginValidationError):
        hook = re.search(r"hook '(\w+)'", str(cause))
        function = getattr(cause.plugin, hook[1], None) if hook else None
        return _problem(str(error), _line_of(function))
    if isinstance(cause, SyntaxError) and cause.filename == candidate:
        return _problem(f"{type(cause).__name__}: {cause.msg}", cause.lineno)
    frames = traceback.extract_tb(cause.__traceback__)
    line = next((frame.lineno for frame in reversed(frames) if frame.filename == candidate), None)
    if isinstance(cause, NameError) and cause.name and line is not None:
        return _undefined(line, cause.name)
    if line is None:
        reason = getattr(error, "reason", None) or str(error)
        return _problem(reason, _line_of(getattr(error, "function", None)))
    return _problem(message(cause), line)


def _undefined_names(candidate: Path, module: ModuleType) -> list[tuple[int, str]]:
    """Return the global names that the module reads but nothing defines, each after its line."""
    read: list[tuple[int, str]] = []
    # The body of a class with annotations reads __annotations__, which it has made itself.
    defined = {*vars(module), *vars(builtins), "__annotations__"}
    for code in _code_objects(compile(candidate.read_bytes(), str(candidate), "exec")):
        for instruction in dis.get_instructions(code):
            if instruction.opname in _DEFINES:
                defined.add(instruction.argval)
            elif instruction.opname in _READS and instruction.positions is not None:
                read.append((instruction.positions.lineno or 1, instruction.argval))
    return [(line, name) for line, name in read if name not in defined]


def _code_objects(code: CodeType) -> Iterator[CodeType]:
    yield code
    for constant in code.co_consts:
        if isinstance(constant, CodeType):
            yield from _code_objects(constant)


def _raise_broken(plugins: Plugins, candidate: Path) -> None:
    if error := plugins.broken.get(candidate.stem):
        raise error


def _left_running() -> str | None:
    if processes.has_children():
        return "it starts processes when it is imported; start them in a task"
    if left := sum(not thread.daemon for thread in threading.enumerate()[1:]):
        threads = amount(left, "thread")
        return f"it starts {threads} when it is imported; start threads in a task"
    return None


def _line_of(function: Any) -> int | None:
    return getattr(getattr(function, "__code__", None), "co_firstlineno", None)


# On a job or an item -------------------------------------------------------------------------


def _try(settings: Settings, plugins: Plugins, module: str, number: int) -> dict[str, Any]:
    """Run the plugin on the job, or else the item, of that number.

    Raises:
        PluginError: the plugin raised an exception, or handles neither of them.
    """
    with App(settings, plugins=plugins) as app:
        try:
            if (job := _job_for(app, module, number)) is not None:
                return _run_outcome(app, f"job {job}", app.replay(job))
            item = app.store.get(number)
            if item is not None:
                facts = {"mime_type": item["mime_type"], **item["metadata"].get("source", {})}
                extractor = _extractor(app, item["url"], item["sha256"], facts)
                if getattr(extractor, "plugin", None) == module:
                    run = app.dry_run({"task": "extract", "args": [number]})
                    return _run_outcome(app, f"item {number}", run)
        except Exception as error:  # of the plugin, or of a job that it does not handle
            raise PluginError(message(error)) from error
    raise PluginError(f"the plugin handles neither job {number} nor item {number}; nothing was run")


def _job_for(app: App, module: str, number: int) -> int | None:
    """Return the first job in the tree of that job that the plugin handles."""
    job_store, plugins = app.queue.job_store, app.plugins
    for job_id, row in job_store.rows(job_store.trees([number]).get(number, [])).items():
        handlers: list[Any] = [plugins.tasks.get(row["task"])]
        if row["task"] == "fetch":
            handlers.append(plugins.fetcher(scheme_of(row["args"][0]) or "file"))
        elif row["task"] == "extract" and len(row["args"]) == 3:
            handlers.append(_extractor(app, *row["args"]))
        if module in [getattr(handler, "plugin", None) for handler in handlers]:
            return job_id
    return None


def _extractor(app: App, url: str, key: str, facts: dict[str, Any]) -> Extractor | None:
    """Return the extractor that a job chooses for bytes; without them, by their type."""
    # imports what only extraction needs
    from paise2nb.content.extract.types import choose, suffix_by

    suffix = suffix_by(url, facts)
    declared = facts.get("mime_type")
    try:
        return choose(app.plugins, declared, app.cache.get(key), suffix)[1]
    except KeyError:
        return app.plugins.extractor(declared or "", suffix)


def _run_outcome(app: App, tried: str, run: Any) -> dict[str, Any]:
    try:
        json.dumps(run.value, allow_nan=False)
    except (TypeError, ValueError) as error:
        raise PluginError(f"task {run.task!r} returned a value that is not JSON: {error}") from None
    followups = len(run.followups)
    outcome = {"tried": tried, "task": run.task, "value": run.value, "followups": followups}
    if run.task == "extract" and "document" in run.value:  # else the page has to be rendered
        outcome["documents"] = json.loads(app.cache.get(run.value["document"]))
    return outcome
