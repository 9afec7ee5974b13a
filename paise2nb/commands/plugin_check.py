"""A plugin is tried in a fresh process before anything else loads it: the cell's rules, and --try.

Whatever it does there, it does under limits of time and memory, and nothing of it is left. The
answer comes back as JSON in a file, so that what the plugin prints can't be taken for it.
"""

from __future__ import annotations

import builtins
import contextlib
import dis
import faulthandler
import importlib
import inspect
import json
import os
import re
import subprocess
import sys
import threading
import time
from collections.abc import Collection, Iterator
from pathlib import Path
from types import CodeType
from typing import IO, TYPE_CHECKING, Any

import pluggy

from paise2nb.core import processes as process
from paise2nb.core.errors import PluginError
from paise2nb.core.render import amount

if TYPE_CHECKING:
    from types import ModuleType

    from paise2nb.app import App
    from paise2nb.config.settings import Settings
    from paise2nb.plugins import Plugins, Task

SECONDS = 10.0  # in which a plugin has to load
START_SECONDS = 30.0  # that the fresh process may take until then
POLL_SECONDS = 0.01
FILES = 1024
SAID = 2000  # characters of what it printed that are shown
_TIMEOUT = re.compile(r"^Timeout \(\d", re.MULTILINE)  # what faulthandler writes
_DEFINES = {"STORE_GLOBAL", "STORE_NAME"}
_READS = {"LOAD_GLOBAL", "LOAD_NAME"}


# In the process that asks --------------------------------------------------------------------


def check(
    settings: Settings, candidate: Path, notebook: Collection[str] = (), to_try: int | None = None
) -> dict[str, Any]:
    """Load a plugin in a fresh process, and let it work on a job or an item if one is named.

    Args:
        settings: what an app of that process is opened with.
        candidate: the module's file, in a directory where nothing else lies.
        notebook: the names that the notebook defines.
        to_try: the id of the job or item.

    Returns:
        ``registers`` in words, ``said`` (what it printed), and what came of the trial.

    Raises:
        PluginError: what is wrong, and in which line of the cell.
    """
    answer, said = candidate.with_name("answer"), candidate.with_name("said")
    seconds = SECONDS + (0 if to_try is None else settings.workers.timeout)
    order = {
        "settings": settings.to_json(), "candidate": str(candidate), "answer": str(answer),
        "seconds": seconds, "to_try": to_try,
    }  # fmt: skip
    with said.open("wb") as output:
        ended = _run(order, output, seconds, settings.workers.memory_mb)
    text = said.read_text("utf-8", "replace")
    if _TIMEOUT.search(text):
        ended = f"still ran after {seconds:g} s"
    try:
        found: dict[str, Any] = json.loads(answer.read_bytes())
    except (FileNotFoundError, ValueError):
        found = {"problem": ended or "ended its process", "line": _last_line(text, candidate)}
    lines = candidate.read_text("utf-8").splitlines()
    for name, line in sorted(found.get("undefined", {}).items(), key=lambda pair: pair[1]):
        if name in notebook:
            raise PluginError(
                f"`{name}` is defined in the notebook, not in this cell ({_place(line, lines)}); "
                "copy its definition into this cell, or import it"
            )
        found |= {"problem": f"NameError: name {name!r} is not defined", "line": line}
        break
    if "problem" in found:
        problem, line = found["problem"], found.get("line")
        raise PluginError(problem if line is None else f"{_place(line, lines)}: {problem}")
    return {**found, "said": "" if to_try is None else text[-SAID:].strip()}


def _place(line: int, lines: list[str]) -> str:
    shown = lines[line - 1].strip() if 0 < line <= len(lines) else ""
    return f"line {line}, `{shown}`" if shown else f"line {line}"


def _run(order: dict[str, Any], output: IO[bytes], seconds: float, memory_mb: float) -> str | None:
    """Run the other part; what ended it early, in words."""
    mark = process.new_mark()
    path = [entry or os.getcwd() for entry in sys.path]  # what can be imported here can there
    program = (
        f"import sys; sys.path[:] = {path!r}; "
        "from paise2nb.commands.plugin_check import main; main()"
    )
    child = subprocess.Popen(
        [sys.executable, "-c", program],
        stdin=subprocess.PIPE, stdout=output, stderr=output, start_new_session=True,
        env={**os.environ, process.MARK: mark},
    )  # fmt: skip
    try:
        assert child.stdin is not None
        with contextlib.suppress(BrokenPipeError), child.stdin as pipe:
            pipe.write(json.dumps(order).encode())
        deadline = time.monotonic() + seconds + START_SECONDS  # it ends itself before that
        while child.poll() is None:
            if (held := process.family_mb(child.pid)) > memory_mb:
                return f"took {held:,.0f} MB of memory, more than {memory_mb:g} MB"
            if time.monotonic() > deadline:
                return f"still ran after {seconds:g} s"
            time.sleep(POLL_SECONDS)
    finally:
        child.kill()
        status = child.wait()
        process.end_marked(mark)
    return f"ended its process with {f'status {status}' if status >= 0 else f'signal {-status}'}"


def _last_line(said: str, candidate: Path) -> int | None:
    """Where it was, by the traceback that a watchdog or a crash has left."""
    found = re.search(rf'File "{re.escape(str(candidate))}", line (\d+)', said)
    return int(found[1]) if found else None


# In the fresh process ------------------------------------------------------------------------


def main() -> None:
    """Load the candidate, look at it, try it; write the answer."""
    order = json.loads(sys.stdin.buffer.read())
    candidate, answer, me = Path(order["candidate"]), Path(order["answer"]), os.getpid()
    process.adopt_orphans()
    process.bound_files(FILES)
    faulthandler.enable()
    from paise2nb.plugins import BUILT_IN

    for name in BUILT_IN:
        importlib.import_module(name)
    # The candidate's own time begins; at its end a traceback is left, whatever it is busy with.
    faulthandler.dump_traceback_later(order["seconds"], exit=True)
    try:
        found = _look(order, candidate)
    except Exception as error:
        found = _blamed(error, candidate)
    if os.getpid() == me:  # what it may have forked comes here, too
        aside = answer.with_suffix(".aside")
        aside.write_text(json.dumps(found, default=repr), "utf-8")
        aside.replace(answer)
    sys.stdout.flush()
    os._exit(0)  # whatever threads it has started


def _look(order: dict[str, Any], candidate: Path) -> dict[str, Any]:
    from paise2nb.config.settings import Settings
    from paise2nb.plugins import Plugins

    settings = Settings.from_json(order["settings"])
    plugins = Plugins.of(settings, candidate)
    module = next(
        module for module in sys.modules.values()
        if getattr(module, "__file__", None) == str(candidate)
    )  # fmt: skip
    if undefined := _undefined(candidate, module):
        return {"undefined": undefined}
    rows = [row for row in plugins.describe() if row["origin"] == str(candidate)]
    if not rows:
        return {"problem": "the cell registers nothing; decorate a function with @task, say"}
    for problem, line in _broken_rules(plugins, module):
        return {"problem": problem, "line": line}
    if any(name == module.__name__ for _, name in plugins.startup_hooks()):
        _open_with(settings, plugins)
    found: dict[str, Any] = {
        "registers": ", ".join(f"{row['kind']} {row['name']}".rstrip() for row in rows)
    }
    if order["to_try"] is not None:
        found |= _tried(settings, plugins, module.__name__, order["to_try"])
    return found


def _open_with(settings: Settings, plugins: Plugins) -> None:
    """Open and close an app, for what an app asks of a plugin when it opens. Raises PaiseError."""
    from paise2nb.app import App

    for name, values in plugins.defaults():
        settings = settings.override(values, f"plugin {name}")
    App(settings, plugins=plugins).close()


def _blamed(error: Exception, candidate: Path) -> dict[str, Any]:
    """What went wrong, and in which line of the candidate."""
    cause: BaseException = error
    while isinstance(cause, PluginError) and cause.__cause__ is not None:
        cause = cause.__cause__
    if isinstance(cause, pluggy.PluginValidationError):
        hook = re.search(r"hook '(\w+)'", str(cause))
        function = getattr(cause.plugin, hook[1], None) if hook else None
        return {"problem": str(error), "line": _line_of(function)}
    if isinstance(cause, SyntaxError) and cause.filename == str(candidate):
        return {"problem": f"{type(cause).__name__}: {cause.msg}", "line": cause.lineno}
    line, frames = None, cause.__traceback__
    while frames is not None:
        if frames.tb_frame.f_code.co_filename == str(candidate):
            line = frames.tb_lineno
        frames = frames.tb_next
    from paise2nb.core.errors import message

    if isinstance(cause, NameError) and cause.name and line is not None:
        return {"undefined": {cause.name: line}}
    if line is None:
        return {"problem": str(error), "line": _line_of(getattr(error, "function", None))}
    return {"problem": message(cause), "line": line}


def _undefined(candidate: Path, module: ModuleType) -> dict[str, int]:
    """The global names that the module reads and nobody defines, and where it first does."""
    read: dict[str, int] = {}
    defined = {*vars(module), *vars(builtins)}
    for code in _codes(compile(candidate.read_bytes(), str(candidate), "exec")):
        for instruction in dis.get_instructions(code):
            if instruction.opname in _DEFINES:
                defined.add(instruction.argval)
            elif instruction.opname in _READS and instruction.positions is not None:
                read.setdefault(instruction.argval, instruction.positions.lineno or 1)
    return {name: line for name, line in read.items() if name not in defined}


def _codes(code: CodeType) -> Iterator[CodeType]:
    yield code
    for constant in code.co_consts:
        if isinstance(constant, CodeType):
            yield from _codes(constant)


def _broken_rules(plugins: Plugins, module: ModuleType) -> Iterator[tuple[str, int | None]]:
    own = [task for task in plugins.tasks.values() if task.plugin == module.__name__]
    for task in own:
        for problem in _task_problems(task):
            yield f"task {task.name!r}: {problem}", _line_of(task.function)
    shapes = (
        (plugins.fetchers(), "fetcher", "(context, url)", 2),
        (plugins.extractors(), "extractor", "(context, data, source)", 3),
    )
    for found, kind, wanted, number in shapes:
        for entry in found:
            if entry.plugin == module.__name__ and not _takes(entry.function, number):
                name = entry.function.__name__
                yield f"{kind} {name} has to take {wanted}", _line_of(entry.function)
    if process.has_children():
        yield "it starts processes when it is imported; start them in a task", None
    if left := [t for t in threading.enumerate()[1:] if not t.daemon]:
        started = amount(len(left), "thread")
        yield f"it starts {started} when it is imported; start threads in a task", None


def _task_problems(task: Task) -> Iterator[str]:
    parameters = list(inspect.signature(task.function).parameters.values())
    if not parameters or parameters[0].kind not in (
        inspect.Parameter.POSITIONAL_ONLY, inspect.Parameter.POSITIONAL_OR_KEYWORD,
        inspect.Parameter.VAR_POSITIONAL,
    ):  # fmt: skip
        yield f"it takes no context; write def {task.function.__name__}(context, …)"
    for parameter in parameters[1:]:
        if parameter.kind is parameter.KEYWORD_ONLY and parameter.default is parameter.empty:
            yield f"no job can give it {parameter.name!r}, which has to be named: give a default"
        if parameter.default is not parameter.empty:
            try:
                json.dumps(parameter.default, allow_nan=False)
            except (TypeError, ValueError):
                yield f"the default of {parameter.name!r} is not JSON: {parameter.default!r}"


def _takes(function: Any, number: int) -> bool:
    try:
        inspect.signature(function).bind(*range(number))
    except TypeError:
        return False
    return True


def _line_of(function: Any) -> int | None:
    code = getattr(function, "__code__", None)
    return code.co_firstlineno if code else None


# On a job or an item -------------------------------------------------------------------------


def _tried(settings: Settings, plugins: Plugins, module: str, number: int) -> dict[str, Any]:
    """What the candidate makes of the job, or else the item, of that number.

    Raises:
        PluginError: what it raises, or that neither is anything for it.
    """
    from paise2nb.app import App
    from paise2nb.core.errors import message

    with App(settings, plugins=plugins) as app:
        job = _job_for(app, module, number)
        try:
            if job is not None:
                value = app.replay(job)
                return _shown(app, f"job {job}", value.task, value.value, len(value.followups))
            if _item_for(app, module, number):
                value = app.dry_run("extract", [number])
                return _shown(app, f"item {number}", "extract", value.value, len(value.followups))
        except Exception as error:
            raise PluginError(message(error)) from error
    raise PluginError(f"neither a job nor an item {number} is anything for this cell; nothing ran")


def _job_for(app: App, module: str, number: int) -> int | None:
    """The job of that number or, of its tree, the one that the candidate has a part in."""
    from paise2nb.content.extract.types import choose
    from paise2nb.core.urls import scheme_of, suffix_of

    job_store = app.queue.job_store
    for job_id, row in job_store.rows(job_store.trees([number]).get(number, [])).items():
        if (task := app.plugins.tasks.get(row["task"])) is None:
            continue
        if task.plugin == module:
            return job_id
        if row["task"] == "fetch":
            fetcher = app.plugins.fetcher(scheme_of(row["args"][0]) or "file")
            if fetcher is not None and fetcher.plugin == module:
                return job_id
        if row["task"] == "extract" and len(row["args"]) == 3:
            url, key, facts = row["args"]
            with contextlib.suppress(KeyError):
                data = app.cache.get(key)
                suffix = suffix_of(url) or suffix_of(facts.get("final_url") or "")
                _, extractor = choose(app.plugins, facts.get("mime_type"), data, suffix)
                if extractor is not None and extractor.plugin == module:
                    return job_id
    return None


def _item_for(app: App, module: str, number: int) -> bool:
    from paise2nb.core.urls import suffix_of

    item = app.store.get(number)
    if item is None:
        return False
    extractor = app.plugins.extractor(item["mime_type"], suffix_of(item["url"]))
    return extractor is not None and extractor.plugin == module


def _shown(app: App, what: str, task: str, value: Any, followups: int) -> dict[str, Any]:
    try:
        json.dumps(value, allow_nan=False)
    except (TypeError, ValueError) as error:
        raise PluginError(f"task {task!r} returned what is not JSON: {error}") from None
    found = {"tried": what, "task": task, "value": value, "followups": followups}
    if task == "extract":
        found["documents"] = json.loads(app.cache.get(value["document"]))
    return found


__all__ = ["check", "main"]
