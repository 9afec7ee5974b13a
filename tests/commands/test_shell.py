"""The command line as a process: its streams and its exit status."""

from __future__ import annotations

import json
import os
import pty
import select
import shlex
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import pytest

from paise2nb.workers.logs import LOG_BYTES, LogLimiter, log_path
from tests import example_plugin
from tests.waiting import until

PLUGIN = example_plugin.SOURCE

Done = subprocess.CompletedProcess[str]
Shell = Callable[..., Done]


@pytest.fixture
def environment(tmp_path: Path) -> dict[str, str]:
    """An environment with a plugin and without the user's settings."""
    (tmp_path / "plugin.py").write_text(PLUGIN)
    (tmp_path / "work").mkdir()
    (tmp_path / "work" / "paise2.yaml").write_text(
        f"plugins: [{tmp_path / 'plugin.py'}]\nworkers: {{concurrency: 1}}\n"
    )
    cleared = {k: v for k, v in os.environ.items() if not k.startswith("PAISE2_")}
    return {
        **cleared,
        "PAISE2_DATA_DIR": str(tmp_path / "data"),
        "PAISE2_CONFIG_DIR": str(tmp_path / "config"),
        "PYTHONPATH": str(Path(__file__).parents[2]),
    }


def command(*words: str) -> list[str]:
    return [sys.executable, "-m", "paise2nb", *words]


@pytest.fixture
def paise2(environment: dict[str, str], tmp_path: Path) -> Iterator[Shell]:
    """Run ``paise2 …`` and wait for it. Workers are stopped at the end."""

    def run(*words: str, **options: Any) -> Done:
        return subprocess.run(
            command(*words), env=environment, cwd=tmp_path / "work", text=True,
            capture_output=True, check=False, timeout=120,
            **{"stdin": subprocess.DEVNULL, **({} if "input" not in options else {"stdin": None})},
            **options,
        )  # fmt: skip

    yield run
    run("worker", "stop", "--timeout", "0")


@pytest.fixture
def in_terminal(environment: dict[str, str], tmp_path: Path) -> Callable[..., str]:
    """Run ``paise2 …`` in its own terminal and return the output.

    It is interrupted when the output contains ``until``.
    """

    def run(*words: str, until: str | None = None, term: str = "xterm-256color") -> str:
        leader, follower = pty.openpty()
        process = subprocess.Popen(
            command(*words), env={**environment, "TERM": term, "COLUMNS": "100"},
            cwd=tmp_path / "work", stdin=follower, stdout=follower, stderr=follower,
        )  # fmt: skip
        os.close(follower)
        shown = b""
        while True:
            try:
                piece = os.read(leader, 65536)
            except OSError:  # Linux: the other side is closed
                break
            if not piece:
                break
            shown += piece
            if until is not None and until.encode() in shown:
                process.send_signal(signal.SIGINT)
                until = None
        os.close(leader)
        process.wait(timeout=60)
        return shown.decode()

    return run


def test_a_page_is_fetched_and_found_with_real_workers(paise2: Shell, tmp_path: Path) -> None:
    (tmp_path / "work" / "page.md").write_text("# A page\n\nabout quiet harbours\n")
    added = paise2("enqueue", "fetch", "page.md", "--tag", "harbour")
    assert (added.returncode, added.stdout.startswith("job 1: fetch ")) == (0, True)
    assert "paise2 worker start" in added.stderr
    started = paise2("worker", "start", "--daemonize")
    assert (started.returncode, "2 workers (default 1, fetch 1) started" in started.stdout) == (
        0,
        True,
    )
    again = paise2("workers", "start", "--daemonize")
    assert (again.returncode, "already running" in again.stdout) == (0, True)
    assert paise2("wait").returncode == 0
    (hit,) = json.loads(paise2("search", "harbour", "--json").stdout)
    assert hit["title"] == "A page"
    status = json.loads(paise2("status", "--json").stdout)
    assert (status["items"], status["jobs"]["completed"], status["roots"]["completed"]) == (1, 3, 1)
    assert paise2("worker", "stop").stdout.startswith("workers stopped")


def test_a_burst_worker_ends_when_no_work_is_left(paise2: Shell) -> None:
    paise2("enqueue", "shout", "hello")
    done = paise2("worker", "start", "--burst")
    assert done.returncode == 0, done.stderr
    assert json.loads(paise2("job", "1", "--json").stdout)["result"] == "HELLO"


def test_an_enqueue_names_the_pool_that_has_no_workers(paise2: Shell) -> None:
    paise2("worker", "start", "--daemonize", "--pool", "fetch")
    added = paise2("enqueue", "shout", "hello")
    assert added.stderr == (
        "jobs wait, and pool default has no workers; start them: "
        "paise2 worker start --pool default\n"
    )
    paise2("worker", "start", "--daemonize", "--pool", "default")
    assert paise2("wait", "1", "--timeout", "60").returncode == 0
    assert paise2("enqueue", "shout", "again").stderr == ""


BROKEN_FILES = {
    "not YAML": "data_dir: {data}\nworkers: [\n",
    "an unknown key": "data_dir: {data}\nfetch:\n  tmeout: 3\n",
    "an unknown queue": "data_dir: {data}\ntask_queue:\n  provider: nonsense\n",
    "a missing plugin": "data_dir: {data}\nplugins: [nowhere_at_all]\n",
}


@pytest.mark.parametrize("what", BROKEN_FILES)
def test_workers_are_stopped_whatever_is_wrong_with_the_settings(
    paise2: Shell, environment: dict[str, str], tmp_path: Path, what: str
) -> None:
    data = environment.pop("PAISE2_DATA_DIR")
    file = tmp_path / "work" / "paise2.yaml"
    file.write_text(f"data_dir: {data}\n")
    started = paise2("worker", "start", "--daemonize", "--concurrency", "1")
    assert started.returncode == 0, started.stderr
    file.write_text(BROKEN_FILES[what].format(data=data))
    if what != "a missing plugin":
        assert paise2("status").returncode == 2
    stopped = paise2("worker", "stop")
    assert stopped.returncode == 0, stopped.stderr
    assert stopped.stdout.startswith("workers stopped")
    assert stopped.stderr


def test_workers_of_the_profile_test_are_refused(paise2: Shell, tmp_path: Path) -> None:
    for words in ((), ("--data-dir", str(tmp_path / "own"))):
        refused = paise2("worker", "start", "--profile", "test", *words)
        assert refused.returncode == 2
        assert "choose another profile" in refused.stderr


def test_an_unknown_provider_is_a_wrong_setting(paise2: Shell) -> None:
    refused = paise2("status", "--set", "task_queue.provider=nonsense")
    assert refused.returncode == 2
    assert "task_queue.provider is 'nonsense', which no plugin defines; did you mean none?" in (
        refused.stderr
    )


def test_ctrl_c_drains_a_foreground_worker(
    paise2: Shell, environment: dict[str, str], tmp_path: Path
) -> None:
    gate = tmp_path / "gate"
    paise2("enqueue", "hold", str(gate))
    worker = subprocess.Popen(
        command("worker", "start"), env=environment, cwd=tmp_path / "work",
        stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
        start_new_session=True,
    )  # fmt: skip
    while json.loads(paise2("job", "1", "--json").stdout)["state"] != "running":
        assert worker.poll() is None
    worker.send_signal(signal.SIGINT)
    gate.touch()
    assert worker.wait(timeout=60) in (0, 130)
    assert json.loads(paise2("job", "1", "--json").stdout)["state"] == "completed"


def test_a_foreground_worker_shows_its_log_and_what_a_drain_waits_for(
    paise2: Shell, environment: dict[str, str], tmp_path: Path
) -> None:
    gate, shown = tmp_path / "gate", tmp_path / "shown"
    paise2("enqueue", "fetch", str(tmp_path / "plugin.py"))
    paise2("enqueue", "hold", str(gate))
    with shown.open("w") as stderr:
        worker = subprocess.Popen(
            command("worker", "start"), env=environment, cwd=tmp_path / "work",
            stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=stderr,
        )  # fmt: skip
    until(lambda: json.loads(paise2("job", "2", "--json").stdout)["state"] == "running")
    worker.send_signal(signal.SIGTERM)
    until(lambda: " s for jobs 2 (hold)\n" in shown.read_text())
    gate.touch()
    assert worker.wait(timeout=60) == 0
    assert "supervisor stops\n" in shown.read_text()


@pytest.mark.parametrize("closed", ["<&-", ">&-", "2>&-", "<&- >&- 2>&-"])
def test_closed_standard_streams_are_no_error(
    environment: dict[str, str], tmp_path: Path, closed: str
) -> None:
    words = shlex.join(command("enqueue", "shout", "--from", "-"))
    done = subprocess.run(
        ["sh", "-c", f"{words} {closed} && {shlex.join(command('status'))} {closed}"],
        env=environment, cwd=tmp_path / "work", text=True, capture_output=True, check=False,
        stdin=subprocess.DEVNULL, timeout=120,
    )  # fmt: skip
    assert "Error" not in done.stdout + done.stderr
    assert done.returncode in (0, 1, 2)


def test_a_deleted_working_directory_is_one_line(
    environment: dict[str, str], tmp_path: Path
) -> None:
    script = f"mkdir gone; cd gone; rmdir ../gone; {shlex.join(command('status'))}"
    done = subprocess.run(
        ["sh", "-c", script], env=environment, cwd=tmp_path, text=True,
        capture_output=True, check=False, timeout=120,
    )  # fmt: skip
    assert "error: the working directory was deleted; change to another one: cd\n" in done.stderr
    assert done.returncode == 2


@pytest.mark.parametrize(
    ("words", "status", "message"),
    [
        (["staus"], 2, "error: unknown command 'staus'; did you mean 'status'?\n"),
        (["job", "7"], 1, "error: no job 7; `paise2 jobs` lists them\n"),
        (["--profile", "nope", "status"], 2, "error: --profile: unknown profile 'nope'; known: "),
        (["enqueue", "fetch", "http://"], 2, "error: "),
        (["--debug", "job", "7"], 1, "Traceback (most recent call last):\n"),
        (["wait", "--timeout", "0.1", "1"], 1, "error: no job 1"),
    ],
)
def test_an_error_is_one_line_on_standard_error(
    paise2: Shell, words: list[str], status: int, message: str
) -> None:
    done = paise2(*words)
    assert (done.returncode, done.stdout) == (status, "")
    assert done.stderr.startswith(message)
    assert "--debug" in words or done.stderr.count("\n") == 1


def test_a_database_of_a_newer_version_is_refused_in_one_line(
    paise2: Shell, tmp_path: Path
) -> None:
    import sqlite3

    paise2("status")
    connection = sqlite3.connect(tmp_path / "data" / "tasks.db")
    connection.execute("PRAGMA user_version = 99")
    connection.close()
    done = paise2("status")
    assert (done.returncode, done.stderr.count("\n")) == (1, 1)
    assert "newer paise2nb" in done.stderr
    assert paise2("doctor").returncode == 1


def test_arguments_come_from_standard_input(paise2: Shell) -> None:
    done = paise2("--immediate", "enqueue", "shout", "--from", "-", input="\ufeffa\n\nb\n")
    assert (done.stdout, done.returncode) == ("2 new\n", 0)
    listed = json.loads(paise2("jobs", "--json").stdout)
    assert [job["args"] for job in listed] == [["a"], ["b"]]


def test_a_failed_replay_shows_the_exception_of_the_task(paise2: Shell) -> None:
    paise2("--immediate", "enqueue", "stumble", "here")
    done = paise2("replay", "1")
    assert (done.returncode, done.stderr) == (
        1, "error: ValueError: here; --debug shows the traceback\n",
    )  # fmt: skip
    assert "in stumble" in paise2("replay", "1", "--debug").stderr


def test_reset_needs_a_yes(
    paise2: Shell,
) -> None:
    paise2("--immediate", "enqueue", "shout", "x")
    assert paise2("reset").returncode == 2
    assert paise2("reset", "--yes").stdout == "deleted 1 job, 0 cached files and 0 items\n"


def test_a_closed_pipe_is_not_an_error(environment: dict[str, str], tmp_path: Path) -> None:
    paise2 = " ".join(command("config", "show"))
    done = subprocess.run(
        ["bash", "-c", f"{paise2} | true; echo ${{PIPESTATUS[0]}}"], env=environment,
        cwd=tmp_path / "work", capture_output=True, text=True, check=True,
    )  # fmt: skip
    assert done.stderr == ""
    assert done.stdout in ("0\n", "1\n")


def test_an_interrupt_ends_a_wait_but_not_the_work(
    paise2: Shell, environment: dict[str, str], tmp_path: Path
) -> None:
    paise2("worker", "start", "--daemonize")
    gate = tmp_path / "gate"
    paise2("enqueue", "hold", str(gate))
    waiting = subprocess.Popen(
        command("wait"), env=environment, cwd=tmp_path / "work", stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
    )  # fmt: skip
    while "tasks.db" not in open_files(waiting.pid):
        time.sleep(0.01)
    waiting.send_signal(signal.SIGINT)
    _, said = waiting.communicate(timeout=60)
    assert waiting.returncode == 130
    assert "Traceback" not in said
    gate.touch()
    assert paise2("wait").returncode == 0


def open_files(pid: int) -> str:
    """The names of a process's open files, one per line."""
    folder = Path(f"/proc/{pid}/fd")
    names = []
    for entry in folder.iterdir():
        try:
            names.append(str(entry.readlink()))
        except FileNotFoundError:
            continue
    return "\n".join(names)


def test_a_terminal_gets_colours_but_no_escapes_from_the_data(
    paise2: Shell, in_terminal: Callable[..., str], tmp_path: Path
) -> None:
    (tmp_path / "work" / "page.md").write_text("# Red \u202eherring\n\nfish\n")
    hostile = "\x1b[31mherring\x1b]0;owned\x07\x9b31m \u202egnp"
    paise2("--immediate", "enqueue", "fetch", "page.md")
    paise2("--immediate", "enqueue", "stumble", hostile)
    assert "\x1b[32mstored" in in_terminal("jobs")
    for words in (["jobs"], ["job", "4"], ["status"], ["items"], ["item", "1"], ["search", "fish"]):
        shown = in_terminal(*words)
        assert "herring" in shown
        for escape in ("\x1b[31mh", "\x1b]", "\x9b", "\u202e", "\x07"):
            assert escape not in shown


def test_a_wait_shows_a_progress_bar_only_in_a_terminal(
    paise2: Shell, in_terminal: Callable[..., str]
) -> None:
    paise2("--immediate", "enqueue", "shout", "x")
    bar = "\x1b[?25l"  # hides the cursor while it is drawn
    assert bar in in_terminal("wait", "1")
    assert bar not in in_terminal("wait", "1", "--json")
    quiet = paise2("wait", "1")
    assert (quiet.stderr, quiet.returncode) == ("jobs: 1 completed\n", 0)


def test_the_log_can_be_read(paise2: Shell) -> None:
    assert paise2("worker", "logs").stdout == "the log is empty\n"
    paise2("worker", "start", "--daemonize")
    assert "supervisor" in paise2("worker", "logs", "-n", "5").stdout


@contextmanager
def followed_log(
    environment: dict[str, str], place: Path, lines: str
) -> Iterator[subprocess.Popen[bytes]]:
    """Run ``worker logs --follow``, at most 90 seconds."""
    with subprocess.Popen(
        command("worker", "logs", "-n", lines, "--follow"), env=environment, cwd=place / "work",
        stdout=subprocess.PIPE,
    ) as following:  # fmt: skip
        limit = threading.Timer(90, following.kill)
        limit.start()
        try:
            yield following
        finally:
            limit.cancel()
            following.kill()


def test_a_followed_log_loses_no_line_between_its_end_and_what_is_added(
    paise2: Shell, environment: dict[str, str], tmp_path: Path
) -> None:
    assert paise2("worker", "logs").returncode == 0  # creates the data directory
    log = log_path(Path(environment["PAISE2_DATA_DIR"]))
    log.write_text("".join(f"{number:099}\n" for number in range(6000)))
    with followed_log(environment, tmp_path, "5000") as following:
        assert following.stdout is not None
        # It has read the end of the log, and waits because nobody reads what it prints.
        assert select.select([following.stdout], [], [], 90)[0]
        with log.open("a") as file:
            file.write("added\n")
        shown = []
        for line in following.stdout:
            shown.append(line.strip())
            if line == b"added\n":
                break
    assert shown == [*(b"%099d" % number for number in range(1000, 6000)), b"added"]


def test_a_followed_log_loses_no_line_when_the_log_is_emptied(
    paise2: Shell, environment: dict[str, str], tmp_path: Path
) -> None:
    assert paise2("worker", "logs").returncode == 0  # creates the data directory
    log = log_path(Path(environment["PAISE2_DATA_DIR"]))
    log.write_text("x" * LOG_BYTES + "\nseen\n")
    with followed_log(environment, tmp_path, "1") as following:
        assert following.stdout is not None
        shown = [following.stdout.readline()]
        following.send_signal(signal.SIGSTOP)  # for it, all that follows comes between two looks
        with log.open("a") as file:
            print("before", file=file, flush=True)
            LogLimiter(log).check()
            print("after", file=file, flush=True)
        following.send_signal(signal.SIGCONT)
        for line in following.stdout:
            shown.append(line)
            if line == b"after\n":
                break
    assert shown == [b"seen\n", b"before\n", b"after\n"]


def test_an_interrupt_while_a_command_is_imported_is_no_traceback(
    environment: dict[str, str], tmp_path: Path
) -> None:
    slow, path = tmp_path / "slow", environment["PYTHONPATH"]
    slow.mkdir()
    os.mkfifo(slow / "fifo")
    (slow / "click.py").write_text(f"open({str(slow / 'fifo')!r}).read()")
    starting = subprocess.Popen(
        command("status"), env={**environment, "PYTHONPATH": f"{slow}:{path}"},
        cwd=tmp_path / "work", stderr=subprocess.PIPE, text=True,
    )  # fmt: skip

    def opened() -> int | None:
        with suppress(OSError):  # it has no reader yet
            return os.open(slow / "fifo", os.O_WRONLY | os.O_NONBLOCK)
        return None

    fifo = until(opened)
    starting.send_signal(signal.SIGINT)
    _, said = starting.communicate(timeout=60)
    os.close(fifo)
    assert (starting.returncode, said) == (130, "")


def test_a_shell_can_complete_commands(environment: dict[str, str]) -> None:
    asked = {"_PAISE2_COMPLETE": "bash_complete", "COMP_WORDS": "paise2 re", "COMP_CWORD": "1"}
    done = subprocess.run(
        command(), env={**environment, **asked}, capture_output=True, text=True, check=False
    )
    words = {word.removeprefix("plain,") for word in done.stdout.split()}
    assert words >= {"retry", "replay", "reset"}


def test_help_is_not_an_error(paise2: Shell) -> None:
    for words in ([], ["--help"], ["worker"], ["jobs", "--help"], ["--version"]):
        done = paise2(*words)
        assert (done.returncode, done.stderr) == (0, "")
        assert done.stdout


def test_watch_shows_the_work_until_it_is_interrupted(
    paise2: Shell, in_terminal: Callable[..., str]
) -> None:
    paise2("enqueue", "shout", "a", "b", "c")
    paise2("--immediate", "enqueue", "stumble", "over")
    shown = in_terminal("watch", until="paise2 replay 4")
    assert "3 queued" in shown
    assert "1 × ValueError" in shown
    assert "Traceback" not in shown
    assert "3 queued" in paise2("watch").stdout


def test_watch_shows_plain_text_once_in_a_dumb_terminal(
    paise2: Shell, in_terminal: Callable[..., str]
) -> None:
    paise2("enqueue", "shout", "a")
    shown = in_terminal("watch", term="dumb")
    assert "1 queued" in shown
    assert "\x1b" not in shown


def test_workers_are_refused_for_a_temporary_data_directory(
    environment: dict[str, str], tmp_path: Path
) -> None:
    del environment["PAISE2_DATA_DIR"]
    words = ("--profile", "test", "worker", "start", "--daemonize")
    done = subprocess.run(
        command(*words), env=environment, cwd=tmp_path / "work", capture_output=True, text=True,
        timeout=60, check=False,
    )  # fmt: skip
    assert (done.returncode, done.stdout, done.stderr.count("\n")) == (2, "", 1)
    assert "the data directory of profile test is temporary" in done.stderr


def test_an_unknown_queue_is_a_wrong_setting(paise2: Shell) -> None:
    done = paise2("--set", "task_queue.provider=sqlit", "status")
    assert (done.returncode, done.stderr.count("\n")) == (2, 1)
    assert "did you mean sqlite? known: none, redis, sqlite" in done.stderr
