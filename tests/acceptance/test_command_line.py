"""The command as a process: what it does, what lands on which stream, and the keys of its JSON."""

from __future__ import annotations

import json
import os
import pty
import re
import signal
import subprocess
import sys
from pathlib import Path

import pytest

import paise2nb
from tests.acceptance.support import Place, Shell, until

# JSON ------------------------------------------------------------------------------------------

STATES = {"queued", "scheduled", "running", "retrying", "completed", "failed", "cancelled"}
PAGE_STATES = STATES - {"completed"} | {"stored", "unchanged", "skipped"}
STATUS = {
    "profile", "data_dir", "immediate", "pages", "jobs", "roots", "workers", "supervisor",
    "oldest_queued_seconds", "next_retry_at", "completed_per_minute", "seconds_left", "items",
    "paused", "paused_pools",
}  # fmt: skip
JOB = {
    "id", "task", "args", "state", "waiting_for", "tag", "attempt", "max_attempts", "error_class",
    "error", "enqueued_at", "started_at", "finished_at", "run_at", "worker_pid", "parent_id",
    "root_id",
}  # fmt: skip
ATTEMPT = {
    "number", "started_at", "finished_at", "worker_pid", "outcome", "error_class", "error",
    "traceback", "retry_in",
}  # fmt: skip
ITEM = {
    "id", "url", "title", "author", "date", "language", "mime_type", "sha256", "size", "tag",
    "fetched_at", "stored_at",
}  # fmt: skip
STATS = {"group", "started", "completed", "failed", "retried"} | {
    f"{time}_p{percent}" for time in ("wait", "run") for percent in (50, 95, 99)
}
ROWS = [
    ("status", STATUS),
    ("stats", STATS),
    ("metrics", {"samples"}),
    ("watch", STATUS),
    ("jobs", JOB),
    ("job 1", JOB | {"result", "attempts", "children"}),
    ("items", ITEM),
    ("item 1", ITEM | {"text"}),
    ("item 1 --versions", {"version", "fetched_at", "size", "title", "sha256"}),
    ("item 1 --diff", {"id", "diff"}),
    ("search page", {"id", "url", "title", "snippet", "score"}),
    ("enqueue shout new", {"jobs", "new", "waiting", "fresh"}),
    ("worker status", {"workers", "supervisor", "problem"}),
    ("replay 1", {"job", "task", "value", "followups"}),
    ("export all.jsonl", {"path", "items"}),
    ("profile", {"profile", "origin", "data_dir"}),
    ("config show", {"key", "value", "origin"}),
    ("config path", {"path", "exists"}),
    ("config validate", {"valid", "profile", "files"}),
    ("plugins", {"kind", "name", "plugin", "version", "state", "origin"}),
    ("plugins disable helper", {"plugin", "state"}),
    ("doctor", {"ok", "findings"}),
    ("reset --yes", {"jobs", "cached", "items"}),
    ("wait", STATUS),
]


@pytest.mark.parametrize(("line", "keys"), ROWS, ids=[line for line, _ in ROWS])
def test_the_json_of_a_command_has_its_keys(
    table: Place, shell: Shell, line: str, keys: set[str]
) -> None:
    with paise2nb.open("test", data_dir=table.data) as here:
        here.enqueue("fetch", str(table.work / "page.md"))
    found = shell(*line.split(), "--json").json
    rows = found if isinstance(found, list) else [found]
    assert rows
    for row in rows:
        assert keys <= set(row)


def test_the_status_counts_every_state_of_jobs_and_roots(shell: Shell) -> None:
    status = shell("status", "--json").json
    assert set(status["jobs"]) >= STATES
    assert set(status["roots"]) >= STATES
    assert set(status["jobs"].values()) == {0}
    assert (status["immediate"], status["workers"], status["supervisor"]) == (False, [], None)
    assert (status["profile"], status["items"], status["paused"]) == ("development", 0, None)
    assert status["data_dir"] == str(shell.place.data)


def test_the_status_counts_pages_by_their_state(table: Place, shell: Shell) -> None:
    bad = table.work / "bad.nobody"
    bad.write_bytes(bytes(range(256)))
    page = str(table.work / "page.md")
    done = shell("--immediate", "enqueue", "fetch", page, str(bad), "--wait")
    assert (done.status, "1 stored, 1 failed" in done.stderr) == (1, True)
    status = shell("status", "--json").json
    assert set(status["pages"]) == PAGE_STATES
    assert {state: n for state, n in status["pages"].items() if n} == {"stored": 1, "failed": 1}
    assert [row["state"] for row in shell("jobs", "--json").json] == ["stored", "failed"]
    assert len(shell("jobs", "--all", "--json").json) == 5
    [failed] = shell("jobs", "--all", "--state", "failed", "--json").json
    assert failed["task"] == "extract"
    assert [row["id"] for row in shell("jobs", "--state", "stored", "--json").json] == [1]
    assert (shell("wait").status, shell("wait", "--fail").status) == (0, 1)
    assert "store" in shell("job", "1").stdout, "the whole way of the page"


def test_the_json_of_an_attempt_has_its_keys_and_its_traceback(shell: Shell) -> None:
    shell("--immediate", "enqueue", "stumble", "over this")
    job = shell("job", "1", "--json").json
    [attempt] = job["attempts"]
    assert set(attempt) >= ATTEMPT
    assert (attempt["number"], attempt["outcome"]) == (1, "failed")
    assert attempt["error_class"] == job["error_class"] == "ValueError"
    assert "over this" in attempt["error"]
    assert "in stumble" in attempt["traceback"]
    assert (job["state"], job["attempt"], job["max_attempts"]) == ("failed", 1, 1)
    assert (job["children"], job["parent_id"], job["root_id"]) == ([], None, 1)


def test_the_json_of_an_enqueue_has_an_entry_for_each_argument_in_their_order(
    shell: Shell,
) -> None:
    answer = shell("enqueue", "shout", "a", "b", "a", "--json").json
    assert [entry["args"] for entry in answer["jobs"]] == [["a"], ["b"], ["a"]]
    assert set(answer["jobs"][0]) >= {"id", "task", "args", "state"}
    assert (answer["new"], answer["waiting"], answer["fresh"]) == (2, 1, 0)
    single = shell("enqueue", "shout", "c", "--json").json
    assert [entry["args"] for entry in single["jobs"]] == [["c"]]


def test_json_holds_no_character_that_acts_on_a_terminal(shell: Shell) -> None:
    hostile = "\x1b[31m \x9b1m \u202e é"
    shell("--immediate", "enqueue", "stumble", hostile)
    done = shell("job", "1", "--json")
    assert json.loads(done.stdout)["args"] == [hostile]
    text = done.stdout + shell("jobs").stdout + shell("job", "1").stdout + shell("status").stdout
    assert not {"\x1b", "\x9b", "\u202e"} & set(text)


# The main job ----------------------------------------------------------------------------------


def test_what_is_enqueued_is_found(table: Place, shell: Shell) -> None:
    added = shell("enqueue", "fetch", "page.md", "--tag", "harbour")
    assert added.status == 0
    assert "paise2 worker start" in added.stderr  # no worker runs
    assert shell("--immediate", "wait").status == 0
    [hit] = shell("search", "few words", "--json").json
    assert hit["title"] == "A page"
    assert hit["url"].endswith("page.md")
    assert "A page" in shell("search", "few").stdout
    assert "With a few words." in shell("item", str(hit["id"])).stdout
    assert "A page" in shell("items", "--tag", "harbour").stdout


def test_arguments_come_from_standard_input_a_file_or_a_column(table: Place, shell: Shell) -> None:
    table.write("list.txt", "one\n\n# a remark\n  two #2\n")
    answer = shell("enqueue", "shout", "--from", "-", "--json", input="a\n\nb\n").json
    assert [entry["args"] for entry in answer["jobs"]] == [["a"], ["b"]]
    answer = shell("enqueue", "shout", "--from", "list.txt", "--json").json
    assert [entry["args"] for entry in answer["jobs"]] == [["one"], ["two #2"]]
    words = ("enqueue", "fetch", "--from", "table.csv", "--column", "url", "--json")
    answer = shell(*words).json
    assert [entry["args"] for entry in answer["jobs"]] == [[str(table.work / "page.md")]]


def test_patterns_and_homes_expand_and_paths_become_absolute(table: Place, shell: Shell) -> None:
    other = table.write("other.md", "Others.")
    page = table.work / "page.md"
    answer = shell("enqueue", "fetch", "*.md", "--json").json
    assert [entry["args"] for entry in answer["jobs"]] == [[str(other)], [str(page)]]
    home = {"HOME": str(table.work)}
    answer = shell("enqueue", "fetch", "~/page.md", "./other.md", "--json", env=home).json
    assert [entry["args"] for entry in answer["jobs"]] == [[str(page)], [str(other)]]
    assert answer["waiting"] == 2


def test_the_log_is_shown_and_an_empty_one_is_no_error(shell: Shell) -> None:
    done = shell("worker", "logs")
    assert (done.status, done.stderr) == (0, "")


def test_a_wait_ends_at_once_where_no_worker_runs_and_by_its_timeout(shell: Shell) -> None:
    shell("enqueue", "shout", "a")
    done = shell("wait")
    assert (done.status, done.stderr.count("\n")) == (1, 1)
    assert "paise2 worker start" in done.stderr
    assert shell("wait", "--timeout", "0.1").status == 1
    assert shell("--immediate", "wait", "1").status == 0


def test_failures_are_no_reason_for_a_wait_to_fail(shell: Shell) -> None:
    shell("--immediate", "enqueue", "stumble", "a")
    done = shell("wait")
    assert (done.status, done.stderr) == (0, "")
    assert "paise2 retry --error ValueError" in shell("status").stdout


def test_an_enqueue_that_waits_returns_when_all_of_it_has_ended(shell: Shell) -> None:
    answer = shell("--immediate", "enqueue", "shout", "a", "b", "--wait", "--json").json
    assert [entry["state"] for entry in answer["jobs"]] == ["completed", "completed"]


def test_a_replay_prints_the_value_or_fails_with_the_tasks_own_error(shell: Shell) -> None:
    shell("--immediate", "enqueue", "parent", "a")
    shell("--immediate", "enqueue", "stumble", "over")
    replayed = shell("replay", "1", "--json").json
    assert (replayed["value"], replayed["task"]) == (1, "parent")
    assert replayed["followups"] == [{"task": "shout", "args": ["a"]}]
    [stumble] = shell("jobs", "--task", "stumble", "--json").json
    failed = shell("replay", str(stumble["id"]))
    assert (failed.status, failed.stderr.count("\n")) == (1, 1)
    assert "ValueError: over" in failed.stderr
    assert "in stumble" in shell("replay", str(stumble["id"]), "--debug").stderr
    assert shell("jobs", "--task", "stumble", "--json").json == [stumble]


def test_moves_that_move_nothing_are_no_errors(shell: Shell) -> None:
    shell("--immediate", "enqueue", "shout", "a")
    for line in (("cancel", "1"), ("retry", "1"), ("cancel", "--state", "queued")):
        done = shell(*line, "--json")
        assert (done.status, json.loads(done.stdout)) == (0, [])


def test_jobs_are_cancelled_and_put_back_by_id_or_filter(shell: Shell) -> None:
    shell("enqueue", "shout", "a", "b", "--tag", "t")
    assert [job["state"] for job in shell("cancel", "--tag", "t", "--json").json] == [
        "cancelled", "cancelled",
    ]  # fmt: skip
    assert [job["state"] for job in shell("retry", "2", "--json").json] == ["queued"]
    assert [job["id"] for job in shell("jobs", "--state", "cancelled", "--json").json] == [1]
    assert len(shell("jobs", "--limit", "1", "--json").json) == 1


@pytest.mark.parametrize("name", ["all.jsonl", "all.csv", "pages"])
def test_an_export_overwrites_only_by_force(table: Place, shell: Shell, name: str) -> None:
    shell("--immediate", "enqueue", "fetch", "page.md")
    assert shell("export", name).status == 0
    again = shell("export", name)
    assert (again.status, again.stderr.count("\n")) == (1, 1)
    assert name in again.stderr
    assert "--force" in again.stderr
    assert shell("export", name, "--force").status == 0


def test_a_reset_says_what_it_forgot_and_keeps_the_items(table: Place, shell: Shell) -> None:
    shell("--immediate", "enqueue", "fetch", "page.md")
    counts = shell("reset", "--yes", "--json").json
    assert (counts["jobs"], counts["items"]) == (3, 0)
    assert counts["cached"] > 0
    assert len(shell("items", "--json").json) == 1
    assert shell("reset", "--hard", "--yes", "--json").json["items"] == 1
    assert shell("items", "--json").json == []


def test_a_profile_is_chosen_by_a_line_to_paste(shell: Shell) -> None:
    assert shell("profile", "production").stdout == "export PAISE2_PROFILE=production\n"
    assert shell("profile", "--json").json["profile"] == "development"
    chosen = shell("profile", "--json", env={"PAISE2_PROFILE": "production"}).json
    assert (chosen["profile"], chosen["origin"]) == ("production", "PAISE2_PROFILE")


def test_without_a_terminal_a_watch_prints_the_status_once(shell: Shell) -> None:
    shell("enqueue", "shout", "a")
    done = shell("watch")
    assert (done.status, done.stderr) == (0, "")
    assert "1 queued" in done.stdout


def test_a_sound_installation_is_found_sound_and_an_unsound_one_is_not(
    place: Place, shell: Shell
) -> None:
    report = shell("doctor", "--json").json
    assert report["ok"]
    place.write("broken.py", "import not_there_at_all")
    done = shell("doctor", "--set", "plugins=[broken.py]", "--json")
    assert (done.status, json.loads(done.stdout)["ok"]) == (1, False)
    assert "not_there_at_all" in done.stdout


def test_the_demo_works(shell: Shell) -> None:
    done = shell("demo")
    assert done.status == 0, done.stderr


@pytest.mark.parametrize("name", ["tasks.db", "items.db"])
def test_a_damaged_database_is_named_in_one_line(table: Place, shell: Shell, name: str) -> None:
    shell("--immediate", "enqueue", "fetch", "page.md")
    path = table.data / name
    kept = path.read_bytes()
    path.write_bytes(b"no database " * 1000)
    done = shell("status")
    assert (done.status, done.stdout, done.stderr.count("\n")) == (1, "", 1)
    assert name in done.stderr
    assert shell("doctor").status == 1
    path.write_bytes(kept)
    assert shell("status").status == 0


def in_terminal(place: Place, *words: str, until_shown: str = "") -> tuple[int, str]:
    """Run the command in a terminal: its status and what the terminal was sent.

    With ``until_shown`` it is interrupted when that was shown.
    """
    leader, follower = pty.openpty()
    process = subprocess.Popen(
        [sys.executable, "-m", "paise2nb", *words], cwd=place.work,
        env={**os.environ, "TERM": "xterm-256color", "COLUMNS": "100"},
        stdin=follower, stdout=follower, stderr=follower,
    )  # fmt: skip
    os.close(follower)
    shown = b""
    while True:
        try:
            piece = os.read(leader, 65536)
        except OSError:  # the other side is closed
            break
        if not piece:
            break
        shown += piece
        if until_shown and until_shown.encode() in shown:
            process.send_signal(signal.SIGINT)
            until_shown = ""
    os.close(leader)
    return process.wait(timeout=60), shown.decode()


def test_a_terminal_shows_the_work_live_until_an_interrupt(place: Place, shell: Shell) -> None:
    shell("enqueue", "shout", "a")
    shell("--immediate", "enqueue", "stumble", "over")
    [failed] = shell("jobs", "--state", "failed", "--json").json
    status, shown = in_terminal(place, "watch", until_shown=f"paise2 replay {failed['id']}")
    assert status == 130
    assert "ValueError" in shown
    assert "Traceback" not in shown


def test_a_terminal_gets_colours_and_a_pipe_does_not(place: Place, shell: Shell) -> None:
    shell("--immediate", "enqueue", "shout", "a")
    assert "\x1b[" in in_terminal(place, "jobs")[1]
    assert "\x1b[" not in shell("jobs").stdout


def test_a_reader_that_leaves_is_no_error(shell: Shell) -> None:
    line = f"{sys.executable} -m paise2nb config show | true"
    done = subprocess.run(
        ["bash", "-c", line], cwd=shell.place.work, capture_output=True, text=True, check=False
    )
    assert done.stderr == ""


def test_an_interrupt_ends_a_wait_with_status_130_and_the_work_goes_on(
    place: Place, shell: Shell, app: paise2nb.App
) -> None:
    app.workers.start()
    gate = place.root / "gate"
    job = app.enqueue("hold", str(gate))
    until(lambda: job.state == "running")
    waiting = shell.start("wait")
    until(lambda: "tasks.db" in open_files(waiting.pid), "the wait")
    waiting.send_signal(signal.SIGINT)
    _, said = waiting.communicate(timeout=60)
    assert waiting.returncode == 130
    assert "Traceback" not in said
    gate.touch()
    assert job.result(timeout=60) == "released"


def open_files(pid: int) -> str:
    """The names of the files that a process has open."""
    names = []
    for entry in Path(f"/proc/{pid}/fd").iterdir():
        try:
            names.append(str(entry.readlink()))
        except FileNotFoundError:
            continue
    return "\n".join(names)


def test_metrics_are_openmetrics_text(table: Place, shell: Shell) -> None:
    with paise2nb.open("test", data_dir=table.data) as here:
        here.enqueue("fetch", str(table.work / "page.md"))
    shown = shell("metrics").stdout
    assert shown.endswith("# EOF\n")
    assert 'paise2_pages{state="stored"} 1.0' in shown
    assert re.search(r'^paise2_attempts_total\{.*task="store".*\} 1.0$', shown, re.MULTILINE)
    assert shell("metrics", "--write", "paise2.prom").status == 0
    assert 'paise2_pages{state="stored"} 1.0' in (table.work / "paise2.prom").read_text()
