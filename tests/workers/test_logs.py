"""The workers' log: bounded whatever tasks print and log, and quiet about workers that stop."""

from __future__ import annotations

import json
import logging
import os
import signal
import socket
from collections.abc import Iterator
from pathlib import Path

import pytest

import paise2nb
from paise2nb.app import App
from paise2nb.workers.logs import LOG_BYTES, RECORD_LENGTH, LogLimiter
from tests.waiting import until

PLUGIN = """
import os
from paise2nb import task

@task("chatty")
def chatty(context, megabytes):
    for _ in range(megabytes * 1000):
        print("c" * 999)
    print("the end", flush=True)

@task("from_below")
def from_below(context, megabytes):
    os.write(1, b"z" * megabytes * 1_000_000)

@task("long_print")
def long_print(context, length):
    print("y" * length, flush=True)

@task("odd_record")
def odd_record(context):
    context.log.info("no file caf\\udce9.txt")

@task("long_record")
def long_record(context, length):
    context.log.info("z" * length)
"""


@pytest.fixture
def plugin(tmp_path: Path) -> str:
    (tmp_path / "extra.py").write_text(PLUGIN)
    return str(tmp_path / "extra.py")


@pytest.fixture
def app(tmp_path: Path, plugin: str) -> Iterator[App]:
    settings = {"plugins": [plugin], "workers.idle_exit": 0.3, "workers.pools": {}}
    with paise2nb.open("development", data_dir=tmp_path / "data", settings=settings) as app:
        yield app
        app.workers.stop(timeout=0)


def log_of(app: App) -> Path:
    return app.data_dir / "logs" / "workers.log"


def test_what_tasks_print_is_bounded_and_its_end_is_kept(app: App) -> None:
    app.enqueue("chatty", 12)
    app.workers.start(pool="default", concurrency=1)
    app.wait(timeout=60)
    until(lambda: log_of(app).stat().st_size < LOG_BYTES)
    files = list(log_of(app).parent.iterdir())
    assert sum(file.stat().st_size for file in files) < 5 * LOG_BYTES
    assert any(b"the end\n" in file.read_bytes() for file in files)
    assert {file.stat().st_mode & 0o777 for file in files} == {0o600}


def test_the_log_is_never_longer_than_its_limit_while_a_task_prints(app: App) -> None:
    app.workers.start(pool="default", concurrency=1)
    job, longest = app.enqueue("chatty", 60), 0
    while job.state != "completed":
        longest = max(longest, log_of(app).stat().st_size)
    assert longest < 1.1 * LOG_BYTES
    app.enqueue("long_print", 30_000_000).wait(timeout=60)
    assert max(map(len, log_of(app).read_bytes().splitlines())) <= RECORD_LENGTH


def test_what_a_process_of_a_task_prints_is_bounded_soon(app: App) -> None:
    app.enqueue("from_below", 60)
    app.workers.start(pool="default", concurrency=1)
    app.wait(timeout=60)
    until(lambda: log_of(app).stat().st_size < LOG_BYTES)
    files = list(log_of(app).parent.iterdir())
    assert max(file.stat().st_size for file in files) < 1.1 * LOG_BYTES


def test_the_open_files_of_others_keep_working_when_the_log_is_emptied(tmp_path: Path) -> None:
    path = tmp_path / "workers.log"
    with path.open("a") as printed:
        limiter = LogLimiter(path)
        for number in range(6):
            printed.write("x" * LOG_BYTES + f"{number}\n")
            printed.flush()
            limiter.check()
        printed.write("then\n")
    assert path.read_text() == "then\n"
    kept = sorted(tmp_path.glob("workers.log.*"))
    assert [file.read_text()[-2] for file in kept] == ["5", "4", "3"]
    assert {file.stat().st_size for file in kept} == {LOG_BYTES}


def test_no_line_is_left_out_that_came_before_another_process_emptied_the_log(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / "workers.log"
    path.write_text("x" * (LOG_BYTES - 10) + "\n")
    limiter, other = LogLimiter(path, show=True), LogLimiter(path)
    with path.open("a") as printed:
        for name, looks in (("seen", limiter), ("before", other), ("after", limiter)):
            print(name, file=printed, flush=True)
            looks.check()
    assert capsys.readouterr().err.splitlines() == ["seen", "before", "after"]


def test_a_long_record_is_cut(app: App) -> None:
    app.enqueue("long_record", 1_000_000)
    app.workers.start(pool="default", concurrency=1)
    app.wait(timeout=60)
    app.workers.stop()
    assert "characters left out" in log_of(app).read_text()
    assert max(map(len, log_of(app).read_text().splitlines())) <= RECORD_LENGTH


def test_a_record_with_the_name_of_any_file_is_written(app: App) -> None:
    app.enqueue("odd_record")
    app.workers.start(pool="default", concurrency=1)
    app.wait(timeout=60)
    app.workers.stop()
    assert r": no file caf\udce9.txt" in log_of(app).read_text()
    assert "Traceback" not in log_of(app).read_text()


def test_workers_that_were_told_to_stop_leave_no_warning(app: App) -> None:
    app.workers.start(pool="default", concurrency=4)
    until(lambda: not app.workers.present())
    text = log_of(app).read_text()
    assert text.count("ended with status 0") == 4
    assert logging.getLevelName(logging.WARNING) not in text
    assert "Traceback" not in text
    assert "status -15" not in text


def test_lines_in_json_tell_the_job_the_page_and_the_worker(tmp_path: Path, plugin: str) -> None:
    (tmp_path / "empty.txt").touch()
    settings = {"plugins": [plugin], "workers.pools": {"fetch": None}, "logging.format": "json"}
    with paise2nb.open("development", tmp_path / "data", settings) as app:
        [worker] = app.workers.start(concurrency=1).workers
        job = app.enqueue("long_record", 9)
        fetch = app.enqueue("fetch", str(tmp_path / "empty.txt"))
        app.wait(timeout=60)
        os.kill(worker["pid"], signal.SIGKILL)
        path = log_of(app)
        until(lambda: f"worker {worker['pid']} of pool default ended" in path.read_text())
        app.workers.stop()
    lines = [json.loads(line) for line in path.read_text().splitlines()]
    assert {line["host"] for line in lines} == {socket.gethostname()}
    [logged] = [line for line in lines if "z" * 9 in line["message"]]
    assert (logged["job"], logged["task"], logged["worker"]) == (
        job.id, "long_record", worker["pid"],
    )  # fmt: skip
    [failed] = [line for line in lines if line.get("page") and " failed: " in line["message"]]
    assert (failed["page"], failed["worker"]) == (fetch.id, worker["pid"])
    assert failed["message"].startswith(f"job {failed['job']} failed")
    [ended] = [line for line in lines if " of pool default ended" in line["message"]][:1]
    assert (ended["worker"], "job" in ended) == (worker["pid"], False)
