"""What the tasks of plugins can use, how they fail, and what they may leave behind."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

import paise2nb
from paise2nb import App, Job
from paise2nb.core import processes as process
from paise2nb.core.errors import JobFailed, UnknownTask, UsageError
from tests.waiting import until

PLUGIN = '''
import asyncio, os, resource, subprocess, sys, threading, time
from pathlib import Path
from paise2nb import Document, TransientError, extractor, task

@task("count", pool="many")
def count(context, number, seconds=0):
    before = context.state.get("count", 0)
    time.sleep(seconds)
    context.state["count"] = before + 1
    return context.state["count"]

@task("keep")
def keep(context, key, value):
    context.state[key] = value

@task("forget")
def forget(context, key):
    del context.state[key]

@task("tell")
def tell(context):
    version = lambda key: context.job_store.plugin_value("extra", key)[1]
    return {key: [value, version(key)] for key, value in context.state.items()}

@task("half", max_retries=0)
def half(context):
    context.state["half"] = 1
    raise ValueError("after the write")

@task("odd", max_retries=0)
def odd(context, what):
    context.state["odd"] = {"not JSON": {1}, "too long": "x" * 200_000}[what]

@extractor("text/x-counted", suffixes=[".counted"])
def counted(context, data, source):
    context.state["seen"] = context.state.get("seen", 0) + 1
    return Document(f"seen {context.state['seen']}")

@task("steps")
def steps(context, path, total=None):
    for done in range(1000):
        context.progress(done, 1000)
    context.progress(3, total)
    time.sleep(0.3)
    context.progress(4, total)
    context.log.info("four of them")
    while not (context.cancelled or Path(path).exists()):
        time.sleep(0.01)
    Path(path + ".ended").write_text(str(context.cancelled))

@task("huge", max_retries=0)
def huge(context):
    context.progress(2**63, 2**64)

@task("wait_for", policies={"crash": {"max_retries": 0}, "dns": {"max_retries": 1}})
async def wait_for(context, how):
    await asyncio.sleep(0)
    if how == "crash":
        os._exit(9)
    raise TransientError("no such name", "dns")

@task("leave", timeout=20)
def leave(context, what, path):
    """Leave processes behind, and write their pids."""
    sleep = [sys.executable, "-c", "import time; time.sleep(600)"]
    if what == "a child":
        left = subprocess.Popen(sleep).pid
    elif what == "a child in a session of its own":
        left = subprocess.Popen(sleep, start_new_session=True).pid
    elif what == "a fork":
        left = os.fork() or time.sleep(600)
    else:
        code = f"import subprocess as s; print(s.Popen({sleep}, stdout=s.DEVNULL).pid)"
        left = int(subprocess.check_output([sys.executable, "-c", code]))
    Path(path).write_text(str(left))

@task("orphan", pool="many")
def orphan(context):
    return int(subprocess.check_output(["sh", "-c", "sleep 0.2 >&2 & echo $!"]))

@task("twin", max_retries=0)
def twin(context, ends):
    if os.fork() == 0 and ends == "an error":
        raise ValueError("in the fork")
    return os.getpid()

@task("hold_children", timeout=3)
def hold_children(context, path):
    sleep = [sys.executable, "-c", "import time; time.sleep(600)"]
    children = [subprocess.Popen(sleep), subprocess.Popen(sleep, start_new_session=True)]
    Path(path).write_text(" ".join(str(child.pid) for child in children))
    time.sleep(600)

@task("feed_a_child", memory_mb=300, policies={"crash": {"max_retries": 0}})
def feed_a_child(context, path):
    code = "import time; x = bytearray(500_000_000); x[::4096] = b'x' * len(x[::4096])"
    child = subprocess.Popen([sys.executable, "-c", code + "; time.sleep(600)"])
    Path(path).write_text(str(child.pid))
    child.wait()

@task("limits")
def limits(context):
    return [resource.getrlimit(name)[0] for name in (resource.RLIMIT_NOFILE, resource.RLIMIT_CORE)]

kept = []

@task("hoard")
def hoard(context, what, number):
    for _ in range(number):
        if what == "files":
            kept.append(open(os.devnull))
        else:
            threading.Thread(target=time.sleep, args=[600]).start()
    return os.getpid()
'''


@pytest.fixture
def file(tmp_path: Path) -> str:
    path = tmp_path / "extra.py"
    path.write_text(PLUGIN)
    return str(path)


@pytest.fixture
def app(tmp_path: Path, file: str) -> Iterator[App]:
    """Jobs run immediately, in this process."""
    with paise2nb.open("test", tmp_path / "data", {"plugins": [file]}) as opened:
        yield opened


@pytest.fixture(scope="module")
def working(tmp_path_factory: pytest.TempPathFactory) -> Iterator[App]:
    """Jobs run in a worker with one thread and in one with eight, shared by all tests."""
    place = tmp_path_factory.mktemp("working")
    (place / "extra.py").write_text(PLUGIN)
    settings = {
        "plugins": [str(place / "extra.py")],
        "workers.concurrency": 1,
        "workers.cancel_grace": 30,
        "workers.pools": {"many": {"threads": 8}, "fetch": None},
        "workers.retry.retry_delay": 0,
    }
    with paise2nb.open("development", place / "data", settings) as opened:
        opened.workers.start()
        yield opened
        opened.workers.stop(timeout=0)


def outcomes(job: Job) -> list[str]:
    return [attempt["outcome"] for attempt in job.attempts]


# State ---------------------------------------------------------------------------------------


def test_a_progress_that_can_not_be_stored_is_named(app: App) -> None:
    job = app.enqueue("huge")
    assert (job.state, job.error) == ("failed", f"progress is {2**63}; give a smaller number")


def test_state_is_kept_between_jobs_and_each_write_is_a_version(app: App) -> None:
    for value in (1, {"deep": [None, "ü"]}):
        app.enqueue("keep", "a", value)
    app.enqueue("keep", "b", "gone")
    app.enqueue("forget", "b")
    assert app.enqueue("tell").result() == {"a": [{"deep": [None, "ü"]}, 2]}
    app.enqueue("keep", "b", "back")
    assert app.enqueue("tell", force=True).result()["b"] == ["back", 3]


def test_state_is_written_with_the_completion_or_not_at_all(app: App) -> None:
    failed = app.enqueue("half")
    assert failed.state == "failed"
    counted = app.enqueue("count", 1)
    assert app.replay(counted.id).value == 2
    assert app.enqueue("tell").result() == {"count": [1, 1]}


def test_each_plugin_has_separate_state_and_a_hard_reset_removes_it(
    app: App, tmp_path: Path
) -> None:
    other = tmp_path / "other.py"
    other.write_text(
        "from paise2nb import task\n@task('peek')\n"
        "def peek(context):\n    return dict(context.state)\n"
    )
    app.enqueue("count", 1)
    for name in ("one", "two"):
        (tmp_path / f"{name}.counted").write_text(name)
        app.enqueue("fetch", str(tmp_path / f"{name}.counted"))
    settings = {"plugins": [*app.settings.plugins, str(other)]}
    with paise2nb.open("test", app.data_dir, settings) as both:
        assert both.enqueue("peek").result() == {}
        # An extractor has state, too, although the task of its job is built in.
        assert both.enqueue("tell").result() == {"count": [1, 1], "seen": [2, 2]}
        assert sorted(both.item(item.id).text for item in both.items()) == ["seen 1", "seen 2"]
        both.reset(hard=True)
        assert both.enqueue("tell", force=True).result() == {}


def test_a_counter_that_many_jobs_increase_at_once_counts_each_job_once(working: App) -> None:
    jobs = working.enqueue_many("count", [(number, 0.01) for number in range(40)])
    working.wait(timeout=60)
    assert sorted(job.result() for job in jobs) == list(range(1, 41))
    again = [job for job in jobs if len(job.attempts) > 1]
    assert again, "eight threads never read the same number at once"
    assert {name for job in again for name in outcomes(job)} == {"released", "completed"}
    assert all(job.attempt == 1 for job in jobs)
    assert "changed the state 'count' of extra" in again[0].attempts[0]["error"]


@pytest.mark.parametrize(
    ("what", "words"), [("not JSON", "is not JSON"), ("too long", "put it into context.cache")]
)
def test_a_state_must_be_small_json(app: App, what: str, words: str) -> None:
    assert words in app.enqueue("odd", what).error


# Progress, log, cancelling -------------------------------------------------------------------


def test_progress_is_shown_while_a_job_runs_and_the_log_names_the_job(
    working: App, tmp_path: Path
) -> None:
    job = working.enqueue("steps", str(tmp_path / "go"), 1200)
    until(lambda: "(4 of 1,200)" in str(job))
    assert f"job {job.id} (4 of 1,200): steps" in working.screen()
    (tmp_path / "go").touch()
    job.wait(timeout=60)
    assert "of 1,200)" not in str(job)
    assert any(f"job {job.id}: four of them" in line for line in working.logs(50).lines)


def test_a_task_can_notice_that_it_was_cancelled_and_end(working: App, tmp_path: Path) -> None:
    job = working.enqueue("steps", str(tmp_path / "go"))
    until(lambda: "(4)" in str(job))
    [pid] = {worker["pid"] for worker in working.workers.status().workers if worker["jobs"]}
    job.cancel()
    until((tmp_path / "go.ended").exists)
    assert until((tmp_path / "go.ended").read_text) == "True"
    assert process.identity(pid) is not None
    assert job.state == "cancelled"


# Policies ------------------------------------------------------------------------------------


def test_policies_of_the_task_apply_to_errors_and_crashes(working: App) -> None:
    unknown = working.enqueue("wait_for", "dns")
    assert unknown.wait(timeout=60).state == "failed"
    assert outcomes(unknown) == ["failed"] * 2
    crashed = working.enqueue("wait_for", "crash")
    assert crashed.wait(timeout=60).state == "failed"
    assert outcomes(crashed) == ["crashed"]


def test_a_policy_with_an_unknown_key_is_refused(app: App, tmp_path: Path) -> None:
    odd = tmp_path / "odd.py"
    odd.write_text(
        "from paise2nb import task\n@task('x', policies={'dns': {'tries': 2}})\ndef x(c): ...\n"
    )
    with pytest.raises(
        paise2nb.PluginError, match="unknown field 'tries' in the policy for 'dns'; known:"
    ):
        paise2nb.open("test", app.data_dir, {"plugins": [str(odd)]})


# Functions of a notebook ---------------------------------------------------------------------


def clean(context: Any, word: str) -> str:
    return word


def test_a_function_of_the_notebook_is_refused_with_advice(
    app: App, monkeypatch: pytest.MonkeyPatch
) -> None:
    words = (
        "clean is a function of this notebook, which no worker can find; write it in a cell below "
        '%%paise2 plugin clean, decorated with @task("clean"), then: enqueue("clean", …)'
    )
    monkeypatch.setattr(clean, "__module__", "__main__")
    with pytest.raises(UsageError) as caught:
        app.enqueue(clean, "a")  # type: ignore[arg-type]
    assert str(caught.value) == words
    monkeypatch.setattr(sys.modules["__main__"], "clean", clean, raising=False)
    with pytest.raises(UnknownTask) as by_name:
        app.enqueue("clean", "a")
    assert str(by_name.value) == words
    decorated = paise2nb.task("tidy")(clean)
    with pytest.raises(UsageError, match=r"plugin clean, then: enqueue\(\"tidy\""):
        app.enqueue(decorated, "a")  # type: ignore[arg-type]


def test_other_functions_are_refused_by_name(app: App) -> None:
    with pytest.raises(UsageError, match="loads is a function; a task is enqueued from a plugin"):
        app.enqueue(json.loads, "a")  # type: ignore[arg-type]
    count = app.plugins.task("count").function
    with pytest.raises(UsageError, match=r"count is a function; .*by its name: enqueue\(\"count\""):
        app.enqueue(count, 1)  # type: ignore[arg-type]


# Leftovers of jobs ---------------------------------------------------------------------------


def test_a_worker_bounds_its_files_and_leaves_no_core(working: App) -> None:
    hard = int(subprocess.check_output(["sh", "-c", "ulimit -Hn"]).replace(b"unlimited", b"9999"))
    assert working.enqueue("limits").result(timeout=60) == [min(1024 + 4 * 32, hard), 0]


@pytest.mark.parametrize(
    "what", ["a child", "a child in a session of its own", "a fork", "a grandchild"]
)
def test_processes_that_a_job_leaves_behind_are_killed_and_the_worker_continues(
    working: App, tmp_path: Path, what: str
) -> None:
    job = working.enqueue("leave", what, str(tmp_path / "left")).wait(timeout=60)
    assert job.state == "completed"
    assert process.identity(int((tmp_path / "left").read_text())) is None
    assert working.enqueue("limits").wait(timeout=60).worker_pid == job.worker_pid
    assert f"job {job.id} has left 1 processes behind" in str(working.logs(50))


def test_an_orphaned_process_of_a_job_among_threads_leaves_no_zombie(working: App) -> None:
    job = working.enqueue("orphan")
    pid = job.result(timeout=60)
    until(lambda: not Path(f"/proc/{pid}").exists())
    assert process.identity(job.worker_pid) is not None


@pytest.mark.parametrize("ends", ["a return", "an error"])
def test_a_forked_process_that_returns_from_its_task_does_not_become_a_worker(
    working: App, ends: str
) -> None:
    twin = working.enqueue("twin", ends)
    after = working.enqueue_many("keep", [(str(number), number) for number in range(50)])
    working.wait(timeout=60)
    assert (outcomes(twin), twin.result()) == (["completed"], twin.worker_pid)
    assert {job.worker_pid for job in after} == {twin.worker_pid}


def test_processes_of_a_killed_worker_are_killed(working: App, tmp_path: Path) -> None:
    job = working.enqueue("hold_children", str(tmp_path / "left"))
    until(lambda: outcomes(job) == ["timeout"])
    left = [int(pid) for pid in (tmp_path / "left").read_text().split()]
    job.cancel()
    assert len(left) == 2
    until(lambda: all(process.identity(pid) is None for pid in left))


def test_the_memory_of_a_child_process_counts_for_its_job(working: App, tmp_path: Path) -> None:
    job = working.enqueue("feed_a_child", str(tmp_path / "left")).wait(timeout=60)
    assert (job.state, outcomes(job)) == ("failed", ["memory"])
    left = int((tmp_path / "left").read_text())
    until(lambda: process.identity(left) is None)


@pytest.mark.parametrize(("what", "number"), [("files", 900), ("threads", 60)])
def test_a_worker_with_too_many_leftovers_is_replaced(working: App, what: str, number: int) -> None:
    pid = working.enqueue("hoard", what, number).result(timeout=60)
    until(lambda: process.identity(pid) is None)
    fresh = working.enqueue("hoard", what, 0)
    assert fresh.result(timeout=60) != pid
    assert f"{what} {'open' if what == 'files' else 'running'}" in str(working.logs(50))


def test_a_job_that_opens_too_many_files_fails_alone(working: App) -> None:
    job = working.enqueue("hoard", "files", 5000)
    until(lambda: job.attempts)
    job.cancel()
    with pytest.raises(JobFailed):
        job.result(timeout=60)
    assert job.attempts[0]["error_class"] == "OSError"
    assert "Too many open files" in job.attempts[0]["error"]
    until(lambda: process.identity(job.attempts[0]["worker_pid"]) is None)
    assert working.enqueue("keep", "a", 1).wait(timeout=60).state == "completed"
