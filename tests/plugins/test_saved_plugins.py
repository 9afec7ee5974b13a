"""A cell becomes a plugin: checked in a new process, saved, and loaded by running workers."""

from __future__ import annotations

import os
import sys
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest

import paise2nb
from paise2nb import App
from paise2nb.commands import main, plugin_check
from paise2nb.commands.session import Session
from paise2nb.core import processes as process
from paise2nb.core.errors import PluginError, UnknownTask, UsageError
from paise2nb.plugins.loading import import_plugin
from paise2nb.plugins.saved import SavedPlugins
from tests.waiting import until

SHOUT = """\
from paise2nb import task

@task("shout")
def shout(context, word):
    return word.upper()
"""
LINES = """\
from paise2nb import Document, extractor

@extractor("text/x-lines", suffixes=[".lines"])
def lines(context, data, source):
    print("looked at", len(data), "bytes")
    first, *rest = data.decode().splitlines()
    return Document(" / ".join(rest), title=first)
"""


class CellSession(Session):
    """What a notebook's session is to a command: a cell, the names outside of it, an open app."""

    def __init__(self, app: App, cell: str | None, names: set[str]) -> None:
        super().__init__()
        self._app, self.cell, self._defined = app, cell, names
        self.data_dir = str(app.data_dir)

    def names(self) -> set[str]:
        return self._defined

    def plugins_changed(self) -> None:
        self.app.plugins.refresh()


@pytest.fixture
def app(tmp_path: Path) -> Iterator[App]:
    settings = {"workers.concurrency": 1, "workers.memory_mb": 300, "workers.pools.fetch": None}
    with paise2nb.open("development", tmp_path, settings) as opened:
        yield opened
        opened.workers.stop(timeout=0)


def write_cell(
    app: App, body: str | None, *options: str, name: str = "loud", names: tuple[str, ...] = ()
) -> Any:
    return main(["plugin", name, *options], CellSession(app, body, set(names)))


def plugins(app: App, *words: str) -> Any:
    return main(["plugins", *words], CellSession(app, None, set()))


# Saved and loaded ----------------------------------------------------------------------------


def test_a_cell_is_loaded_here_and_by_running_workers(app: App) -> None:
    app.workers.start()
    before = {worker["pid"] for worker in app.workers.status().workers}
    message = write_cell(app, SHOUT)
    assert str(message) == f"{app.saved_plugins.path('loud')} registers task shout"
    assert message.data["path"] == str(app.saved_plugins.path("loud"))
    assert app.enqueue("shout", "hello you").result(timeout=60) == "HELLO YOU"
    again = write_cell(app, SHOUT.replace("upper", "title"))
    assert f"version 2, the previous one is {app.saved_plugins.previous('loud')}" in str(again)
    assert app.enqueue("shout", "hello you", force=True).result(timeout=60) == "Hello You"
    assert "upper" in Path(again.data["before"]).read_text()
    assert {worker["pid"] for worker in app.workers.status().workers} == before
    [row] = [row for row in plugins(app).to_dicts() if row["plugin"] == "loud"]
    path = str(app.saved_plugins.path("loud"))
    assert row == {
        "kind": "task", "name": "shout", "plugin": "loud", "version": "2", "state": "loaded",
        "origin": path,
    }  # fmt: skip


HOLD = """
import time
from pathlib import Path
from paise2nb import task

@task("hold", pool="many")
def hold(context, number, path):
    while not Path(path).exists():
        time.sleep(0.05)
    return "{word}"
"""


def test_running_jobs_finish_with_the_code_that_they_began_with(tmp_path: Path) -> None:
    settings = {"workers.concurrency": 1, "workers.pools": {"many": {"threads": 30}}}
    with paise2nb.open("development", tmp_path / "data", settings) as app:
        write_cell(app, HOLD.format(word="old"), name="hold")
        app.workers.start()
        path = str(tmp_path / "go")
        blocked = app.enqueue_many("hold", [(number, path) for number in range(30)])
        while app.status().jobs["running"] < 30:
            time.sleep(0.02)
        write_cell(app, HOLD.format(word="new"), name="hold")
        Path(path).touch()
        late = app.enqueue("hold", 30, path)
        assert late.result(timeout=60) == "new"
        assert [job.result(timeout=60) for job in blocked] == ["old"] * 30
        assert all(len(job.attempts) == 1 for job in blocked)
        app.workers.stop()


def test_an_app_in_another_process_loads_it_with_its_next_enqueue(app: App) -> None:
    with paise2nb.open("development", app.data_dir) as other:
        with pytest.raises(UnknownTask):
            other.enqueue("shout", "hello")
        write_cell(app, SHOUT)
        assert other.enqueue("shout", "hello").state == "queued"


def test_commands_of_an_app_in_another_process_know_it(app: App) -> None:
    with paise2nb.open("development", app.data_dir, {"workers.concurrency": 1}) as other:
        other.workers.start(pool="fetch")
        write_cell(app, SHOUT)
        app.enqueue("shout", "hello")
        assert "pool default has no workers" in str(other.workers.status().problem)
    with paise2nb.open("development", app.data_dir) as other:
        write_cell(app, SHOUT.replace("shout", "whisper"), name="quiet")
        assert main(["enqueue", "whisper", "hello"], CellSession(other, None, set()))


HOOKED = """
from paise2nb import hookimpl, task

seen = []

class Opened:
    def opened(self, app): seen.append(app.is_worker)
    def closed(self, app): pass

@hookimpl
def lifecycle_actions(): return [Opened()]

@task("shout", pool="many")
def shout(context, word): return seen
"""


def test_providers_are_loaded_by_new_processes_only(tmp_path: Path) -> None:
    settings = {"workers.concurrency": 1, "workers.pools": {"many": {"threads": 3}}}
    with paise2nb.open("development", tmp_path / "data", settings) as app:
        write_cell(app, HOLD.format(word="old"), name="hold")
        app.workers.start(pool="many")
        [worker] = app.workers.status().workers
        blocked = app.enqueue("hold", 1, str(tmp_path / "go"))
        while blocked.state != "running":
            time.sleep(0.02)
        pools = "workers.pools.many.threads=3"
        main(["plugin", "loud", f"--data-dir={app.data_dir}", f"--set={pools}"], in_shell(HOOKED))
    with paise2nb.open("development", tmp_path / "data", settings) as app:
        # The job that runs keeps its process, which finishes it beside a fresh one.
        assert app.enqueue("shout", "hello").result(timeout=60) == [True]
        assert process.identity(worker["pid"])
        (tmp_path / "go").touch()
        blocked = app.job(blocked.id)
        assert blocked.result(timeout=60) == "old"
        assert (blocked.worker_pid, len(blocked.attempts)) == (worker["pid"], 1)
        app.workers.stop()


def in_shell(cell: str) -> Session:
    session = Session()
    session.cell = cell
    return session


def test_jobs_of_a_disabled_plugin_wait_until_it_is_enabled(app: App) -> None:
    write_cell(app, SHOUT)
    app.workers.start()
    waiting = app.enqueue("shout", "hello", delay=3600)
    plugins(app, "disable", "loud")
    waiting.retry()  # it may start now
    with pytest.raises(UnknownTask):
        app.enqueue("shout", "hello")
    states = {row["plugin"]: row["state"] for row in plugins(app).to_dicts()}
    assert states["loud"] == "disabled"
    until(app.queue.job_store.ready_tasks)
    assert "paise2 plugins enable" in str(app.workers.status().problem)
    plugins(app, "enable", "loud")
    assert waiting.result(timeout=60) == "HELLO"


def test_a_plugin_that_can_no_longer_be_loaded_can_be_disabled(app: App) -> None:
    write_cell(app, SHOUT)
    app.saved_plugins.path("loud").write_text("import not_there_at_all")
    with pytest.raises(PluginError, match="paise2 plugins disable loud"):
        paise2nb.open("development", app.data_dir)
    main(["plugins", "disable", "loud", "--data-dir", str(app.data_dir)], Session())
    paise2nb.open("development", app.data_dir).close()


@pytest.mark.parametrize(
    ("words", "answer"),
    [
        (("disable", "fetch"), "no plugin 'fetch'; known: loud"),
        (("enable", "loud"), "'loud' is not disabled; disabled: none"),
    ],
)
def test_only_existing_plugins_are_disabled_or_enabled(
    app: App, words: tuple[str, ...], answer: str
) -> None:
    write_cell(app, SHOUT)
    with pytest.raises(UsageError, match=answer):
        plugins(app, *words)


POINT = """\
from dataclasses import dataclass
from paise2nb import task

@dataclass
class Point:
    x: int

@task("point")
def point(context, x: int):
    return Point(x).x
"""


def test_a_cell_may_have_a_class_with_annotations(immediate: App) -> None:
    write_cell(immediate, POINT, name="points")
    assert immediate.enqueue("point", 3).result() == 3


def test_a_cell_is_saved_in_a_data_directory_that_is_a_link(tmp_path: Path) -> None:
    (tmp_path / "data").mkdir(mode=0o700)
    (tmp_path / "link").symlink_to(tmp_path / "data")
    with paise2nb.open("test", tmp_path / "link") as app:
        assert write_cell(app, SHOUT).data["registers"] == "task shout"
        with pytest.raises(PluginError, match=r"^line 4, `1 / 0`: ZeroDivisionError"):
            write_cell(app, REFUSED["an error"][0])


# Refused -------------------------------------------------------------------------------------

REFUSED = {
    "nothing registered": ("x = 1", "the cell registers nothing"),
    "an import that fails": ("\nimport nowhere_at_all", "line 3, `import nowhere.*No module named"),
    "an error": ("x = 1\n\n1 / 0", "^line 4, `1 / 0`: ZeroDivisionError: division by zero$"),
    "a mistake of syntax": (SHOUT + "def broken(:", "^line 7, `def broken.*SyntaxError: invalid"),
    "a taken name": (SHOUT.replace('"shout"', '"fetch"'), "^line 4, .*defines task 'fetch', which"),
    "a bad hook": (
        "from paise2nb import hookimpl\n\n@hookimpl\ndef cache_provider(app, more): ...",
        "^line 4, `@hookimpl`: .*more",
    ),
    "an unknown hook": (
        "from paise2nb import hookimpl\n@hookimpl\ndef no_such_hook(): ...",
        "^line 3, `@hookimpl`: .*no_such_hook",
    ),
    "a hook that raises": (
        "from paise2nb import hookimpl\n@hookimpl\ndef content_fetchers(): return 1 / 0",
        "^line 4, `def content_fetchers.*ZeroDivisionError",
    ),
    "a name of the notebook": (
        SHOUT.replace("word.upper()", "clean(word)"),
        r"^`clean` is defined in the notebook, not in this cell \(line 6, `return clean\(word\)`\)",
    ),
    "a name of the notebook at once": (SHOUT + "x = clean", "^`clean` is defined in the notebook"),
    "an unknown name": (
        SHOUT.replace("word.upper()", "claen(word)"),
        "^line 6, .*NameError: name 'claen' is not defined",
    ),
    "a task without a context": (
        SHOUT.replace("context, word", "").replace("word", "''"),
        "line 4, .*takes no context",
    ),
    "a default that is not JSON": (
        SHOUT.replace("word)", "word, when={1})"),
        "line 4, .*the default of 'when' is not JSON: {1}",
    ),
    "an argument that can't be given": (
        SHOUT.replace("context, ", "context, *, "),
        "no job can pass 'wo",
    ),
    "an extractor of a wrong shape": (
        LINES.replace("data, source", "data"),
        r"extractor lines must take \(context, data, source\)",
    ),
    "a default of no setting": (
        "from paise2nb import hookimpl\nclass Odd:\n    def defaults(self):\n"
        "        return {'fetch.tmeout': 3}\n\n@hookimpl\n"
        "def configuration_providers(): return [Odd()]",
        "^plugin loud: unknown key fetch.tmeout; did you mean fetch.timeout",
    ),
    "an opening that fails": (
        "from paise2nb import hookimpl\nclass Odd:\n    def opened(self, app):\n        1 / 0\n"
        "    def closed(self, app): ...\n@hookimpl\ndef lifecycle_actions(): return [Odd()]",
        "^line 5, `1 / 0`: ZeroDivisionError",
    ),
    "an exit": ("raise SystemExit", "^line 2, `raise SystemExit`: SystemExit"),
    "an end of the process": ("import os; os._exit(3)", "ended its process with status 3"),
    "a crash": (
        "import ctypes\nctypes.string_at(0)",
        r"^line 3, `ctypes.string_at\(0\)`: .*signal 11",
    ),
    "a fork": ("import os, time\nos.fork() or time.sleep(1000)\n" + SHOUT, "starts processes when"),
    "a process": (
        "import subprocess\nsubprocess.Popen(['sleep', '1000'], start_new_session=True)\n" + SHOUT,
        "starts processes when it is imported",
    ),
    "a thread": (
        "import threading, time\nthreading.Thread(target=time.sleep, args=[9]).start()\n" + SHOUT,
        "starts 1 thread when it is imported",
    ),
    "memory eaten": (
        "x = []\nwhile True: x.append(b'x' * 10**7)",
        "MB of memory; the limit is 300",
    ),
    "memory eaten by a child": (
        "import os\nx = []\nwhile not os.fork(): x.append(b'x' * 4 * 10**7)\nos.wait()",
        "MB of memory; the limit is 300",
    ),
}


@pytest.mark.parametrize("what", REFUSED)
def test_a_bad_cell_is_refused_in_one_line_and_leaves_nothing_behind(
    app: App, what: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    body, words = REFUSED[what]
    monkeypatch.setattr(process, "new_mark", lambda: f"{os.getpid()}-cell")
    with pytest.raises(PluginError, match=words) as caught:
        write_cell(app, body, names=("clean",))
    assert "\n" not in str(caught.value)
    assert list(app.saved_plugins.directory.iterdir()) == []
    assert process.end_marked(f"{os.getpid()}-cell") == 0


def test_a_cell_that_hangs_is_stopped_and_its_line_is_named(app: App, tmp_path: Path) -> None:
    candidate = tmp_path / "draft" / "loud.py"
    candidate.parent.mkdir()
    candidate.write_text("x = 1\nwhile True: pass")
    message = r"^line 2, `while True: pass`: was still running after 1 s$"
    with pytest.raises(PluginError, match=message):
        plugin_check.check(app.settings, candidate, load_seconds=1.0)


def test_the_error_for_a_damaged_manifest_says_what_to_do(app: App) -> None:
    write_cell(app, SHOUT)
    (app.saved_plugins.directory / "cells.json").write_text("{")
    with pytest.raises(PluginError, match=r"cells\.json is damaged; remove it"):
        app.enqueue("shout", "hello")


def test_a_refused_cell_changes_neither_the_earlier_one_nor_the_workers(app: App) -> None:
    write_cell(app, SHOUT)
    app.workers.start()
    before = [worker["pid"] for worker in app.workers.status().workers]
    for what in ("an error", "a crash", "a fork", "a taken name", "memory eaten"):
        with pytest.raises(PluginError):
            write_cell(app, REFUSED[what][0])
    assert app.enqueue("shout", "hello").result(timeout=60) == "HELLO"
    assert [worker["pid"] for worker in app.workers.status().workers] == before
    assert app.saved_plugins.manifest()["versions"] == {"loud": 1}
    assert "upper" in app.saved_plugins.path("loud").read_text()


def test_a_name_that_another_cell_has_is_taken(app: App) -> None:
    write_cell(app, SHOUT)
    with pytest.raises(
        PluginError, match=r"defines task 'shout', which .*loud.py' has defined already"
    ):
        write_cell(app, SHOUT, name="louder")


def test_a_name_that_a_plugin_of_the_settings_has_is_taken(tmp_path: Path) -> None:
    (tmp_path / "loud.py").write_text(SHOUT)
    settings = {"plugins": [str(tmp_path / "loud.py")]}
    with paise2nb.open("test", tmp_path / "data", settings) as app:
        session = CellSession(app, SHOUT, set())
        session.overrides = settings
        with pytest.raises(UsageError, match="there is another plugin named 'loud'; choose"):
            main(["plugin", "loud"], session)


def test_errors_for_a_missing_cell_and_a_bad_name_say_what_to_type(app: App) -> None:
    with pytest.raises(UsageError, match="below %%paise2 plugin NAME"):
        write_cell(app, None)
    with pytest.raises(UsageError, match="use letters, digits and _"):
        write_cell(app, SHOUT, name="../loud")


# Tried first ---------------------------------------------------------------------------------


@pytest.fixture
def immediate(tmp_path: Path) -> Iterator[App]:
    with paise2nb.open("test", tmp_path / "data") as opened:
        yield opened


def test_a_task_is_tried_on_a_job_and_nothing_is_saved(immediate: App) -> None:
    write_cell(immediate, SHOUT)
    job = immediate.enqueue("shout", "hello")
    tried = write_cell(immediate, SHOUT.replace("upper", "title"), "--try", str(job.id))
    assert 'job 1 (shout): "Hello"' in str(tried).replace("'", '"')
    assert (tried.data["value"], job.result()) == ("Hello", "HELLO")
    assert immediate.enqueue("shout", "again").result() == "AGAIN"
    with pytest.raises(PluginError, match="task 'shout' returned a value that is not JSON"):
        write_cell(immediate, SHOUT.replace("word.upper()", "{1}"), "--try", str(job.id))
    with pytest.raises(PluginError, match=r"^line 6, `return word.nothing.*AttributeError"):
        write_cell(immediate, SHOUT.replace("upper", "nothing"), "--try", str(job.id))


def test_an_extractor_is_tried_on_a_file_of_an_unsupported_type(
    immediate: App, tmp_path: Path
) -> None:
    file = tmp_path / "poem.lines"
    file.write_bytes(b"A title\none\x00\ntwo\n")
    job = immediate.enqueue("fetch", str(file))
    assert immediate.jobs(state="failed")[0].error_class == "unsupported"
    tried = write_cell(immediate, LINES, "--try", str(job.id))
    assert "looked at 17 bytes" in str(tried)
    assert [d["title"] for d in tried.data["documents"]] == ["A title"]
    write_cell(immediate, LINES)
    immediate.jobs(state="failed").retry()
    [item] = immediate.items()
    shorter = LINES.replace("title=first", "title=first[:1]")
    again = write_cell(immediate, shorter, "--try", str(item.id))
    assert [d["title"] for d in again.data["documents"]] == ["A"]
    assert [item.title for item in immediate.items()] == ["A title"]


def test_an_extractor_is_tried_on_an_item_that_another_one_has_made(
    immediate: App, tmp_path: Path
) -> None:
    file = tmp_path / "poem.lines"
    file.write_text("A title\none\ntwo\n")
    immediate.enqueue("fetch", str(file))
    immediate.queue.job_store.clear()  # a job would have the same number
    [item] = immediate.items()
    tried = write_cell(immediate, LINES, "--try", str(item.id))
    assert [d["title"] for d in tried.data["documents"]] == ["A title"]


def test_a_plugin_is_not_tried_on_a_job_that_it_does_not_handle(immediate: App) -> None:
    write_cell(immediate, SHOUT)
    job = immediate.enqueue("shout", "hello")
    with pytest.raises(PluginError, match=f"handles neither job {job.id} nor item {job.id}"):
        write_cell(immediate, LINES, "--try", str(job.id), name="lines")


def test_of_changes_at_the_same_time_none_is_lost(tmp_path: Path) -> None:
    names = {f"plugin{number}" for number in range(40)}
    with ThreadPoolExecutor(4) as pool:
        for name in names:  # each as in a process of its own
            pool.submit(SavedPlugins(tmp_path / "plugins").set_enabled, name, False)
    assert set(SavedPlugins(tmp_path / "plugins").manifest()["disabled"]) == names


def test_a_version_that_is_saved_in_the_same_second_is_not_taken_for_the_earlier_one(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sys, "dont_write_bytecode", False)
    values = []
    for number in (1, 2):
        (tmp_path / "p.py").write_text(f"VALUE = {number}")
        os.utime(tmp_path / "p.py", (1e9 + number / 10,) * 2)
        values.append(import_plugin(str(tmp_path / "p.py")).VALUE)
    assert values == [1, 2]
