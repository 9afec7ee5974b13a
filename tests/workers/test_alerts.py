"""Alerts: a message when a condition begins to hold, repeats, and one when it is over."""

from __future__ import annotations

import json
import os
import signal
import sqlite3
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import closing, suppress
from pathlib import Path
from typing import Any

import pytest

import paise2nb
from paise2nb.app import App
from paise2nb.commands import Session, main
from paise2nb.config.alerts import Alert
from paise2nb.core import processes
from paise2nb.core.errors import StorageError
from paise2nb.jobs.alerts import AlertState, read_states
from paise2nb.workers.alerts import SETTLE_SECONDS, advance
from tests import example_plugin
from tests.receivers import mail_receiver, web_receiver
from tests.small_disk import small_disk
from tests.waiting import until

PLUGIN = (
    example_plugin.SOURCE
    + """
@task("needs", max_retries=0)
def needs(context, path):
    Path(path).read_text()
"""
)

Open = Callable[..., App]


@pytest.fixture
def data_dir(tmp_path: Path) -> Path:
    return tmp_path / "data"


@pytest.fixture
def opened(tmp_path: Path, data_dir: Path) -> Iterator[Open]:
    plugin = tmp_path / "extra.py"
    plugin.write_text(PLUGIN)
    apps: list[App] = []

    def open_app(*alerts: dict[str, Any], **settings: Any) -> App:
        values = {key.replace("__", "."): value for key, value in settings.items()}
        values |= {
            "alerts": list(alerts),
            "plugins": [str(plugin)],
            "workers.pools": {"fetch": None},
        }
        values.setdefault("workers.concurrency", 1)
        apps.append(paise2nb.open("development", data_dir, values))
        return apps[-1]

    yield open_app
    for app in apps:
        with suppress(StorageError):  # its disk is gone
            app.workers.stop(timeout=5)
        app.close()


def to_file(path: Path) -> list[str]:
    """A command that appends the message to a file."""
    return ["sh", "-c", 'cat >> "$0"', str(path)]


def messages(path: Path) -> list[dict[str, Any]]:
    return list(map(json.loads, path.read_text().splitlines())) if path.exists() else []


def events(path: Path) -> list[str]:
    return [message["event"] for message in messages(path)]


def ran(app: App) -> bool:
    return bool(app.enqueue("echo", "hello", force=True).result(timeout=30) == "hello")


# The rules -----------------------------------------------------------------------------------

DAY = 86400.0


@pytest.mark.parametrize(
    ("alert", "course", "told"),
    [
        # By second: whether the condition holds from then on.
        ({"every": 0}, {0: True}, {0: "firing"}),
        ({"every": 3600}, {0: True, 8000: False},
         {0: "firing", 3600: "repeated", 7200: "repeated", 8000 + SETTLE_SECONDS: "over"}),
        ({"over": 600}, {0: True, 590: False, 700: True, 1500: False},
         {1300: "firing", 1500 + SETTLE_SECONDS: "over"}),
        ({"every": 60}, {0: True, 30: False, 80: True, 100: False},
         {0: "firing", 80: "repeated", 160: "over"}),  # a short break is no end
        ({"every": 0}, {0: False}, {}),
    ],
)  # fmt: skip
def test_an_alert_fires_once_repeats_and_ends(
    alert: dict[str, Any], course: dict[int, bool], told: dict[int, str]
) -> None:
    rules, state = Alert("a", "paused", command=("x",), **alert), AlertState()  # type: ignore[arg-type]
    holds, found = False, {}
    for second in range(0, 10_000, 10):
        holds = course.get(second, holds)
        if event := advance(rules, state, holds, DAY + second):
            found[second] = event
    assert found == told


# Each condition, with real workers -----------------------------------------------------------


def test_each_condition_fires_to_a_command_and_ends_through_a_restart(
    opened: Open, tmp_path: Path
) -> None:
    needed, log = tmp_path / "needed", {}
    conditions = {
        "paused": "paused",
        "oldest_waiting": "oldest_waiting > 0.5s",
        "recurring_failed": "recurring_failed >= 1",
        "failed_rate": "failed_rate > 40%",
        "stored": "stored < 1",
    }
    alerts = []
    for name, when in conditions.items():
        log[name] = tmp_path / f"{name}.jsonl"
        over = "30s" if name in ("failed_rate", "stored") else 0
        alerts.append({"name": name, "when": when, "over": over, "every": "2s",
                       "command": to_file(log[name])})  # fmt: skip
    app = opened(*alerts)
    app.workers.start()
    app.enqueue("needs", str(needed), every=3600)
    until(lambda: "firing" in events(log["recurring_failed"]))
    app.workers.pause()
    app.enqueue("echo", "waits")
    for name in conditions:
        until(lambda name=name: "repeated" in events(log[name]))  # type: ignore[misc]
    assert {alert["name"] for alert in app.status().alerts} == set(conditions)
    assert "alert    paused: paused" in str(app.status())
    app.workers.restart()
    needed.write_text("here")
    app.workers.resume()
    app.jobs(task="needs").retry()
    page = tmp_path / "page.txt"
    page.write_text("words of a page that is stored " * 20)
    app.enqueue("fetch", str(page))
    for name in conditions:
        until(lambda name=name: events(log[name])[-1] == "over")  # type: ignore[misc]
        told = messages(log[name])
        assert [m["event"] for m in told].count("firing") == 1
        assert {m["began_at"] for m in told} == {told[0]["began_at"]}
        assert (told[0]["alert"], told[0]["when"]) == (name, conditions[name])
    assert messages(log["failed_rate"])[0]["text"].startswith("100% of 1 page failed in the last")
    assert "needed" in messages(log["recurring_failed"])[0]["text"]


def test_missing_workers_and_a_disk_that_fills_up(
    opened: Open, tmp_path: Path, data_dir: Path
) -> None:
    log = {name: tmp_path / f"{name}.jsonl" for name in ("disk_free < 20MB", "workers_missing")}
    with small_disk(data_dir, 40):
        data_dir.chmod(0o700)
        app = opened(*({"name": name, "when": name, "every": "1s", "command": to_file(path)}
                       for name, path in log.items()))  # fmt: skip
        app.workers.start()
        (data_dir / "filler").write_bytes(bytes(30_000_000))
        [worker] = app.workers.status().workers
        os.kill(worker["pid"], signal.SIGSTOP)
        app.enqueue("echo", "waits")
        with closing(sqlite3.connect(data_dir / "tasks.db")) as connection, connection:
            connection.execute("UPDATE workers SET heartbeat_at = heartbeat_at - 40")
        for path in log.values():
            until(lambda path=path: "firing" in events(path))  # type: ignore[misc]
        assert f"kill -CONT {worker['pid']}" in messages(log["workers_missing"])[0]["text"]
        os.kill(worker["pid"], signal.SIGCONT)
        (data_dir / "filler").unlink()
        for path in log.values():
            until(lambda path=path: events(path)[-1] == "over")  # type: ignore[misc]
        app.workers.stop()


# Delivery ------------------------------------------------------------------------------------


def test_messages_by_mail_and_to_a_web_hook(
    opened: Open, monkeypatch: pytest.MonkeyPatch, data_dir: Path
) -> None:
    monkeypatch.setenv("MAIL_PASSWORD", "hunter2")
    with mail_receiver() as (mail, letters), web_receiver() as (web, posts):
        alert = {"when": "paused", "every": "1s"}
        to_mail = f"mailto://me:${{MAIL_PASSWORD}}@127.0.0.1:{mail}?from=a@b.org&to=c@d.org"
        app = opened(
            {"name": "by mail", **alert, "notify": to_mail},
            {"name": "by web", **alert, "notify": f"json://127.0.0.1:{web}/t0ken"},
        )
        app.workers.start()
        app.workers.pause()
        until(lambda: any("goes on" in post["title"] for post in posts))
        app.workers.resume()
        until(lambda: letters and "by mail is over" in letters[-1])
        until(lambda: "by web is over" in posts[-1]["title"])
    assert "To: c@d.org" in letters[0]
    assert posts[0]["message"] == "the queue is paused; to go on: paise2 resume"
    assert (posts[0]["type"], posts[-1]["type"]) == ("warning", "success")
    assert "t0ken" not in (data_dir / "logs/workers.log").read_text()


def test_what_cannot_be_delivered_is_said_and_tried_again(
    opened: Open, tmp_path: Path, data_dir: Path
) -> None:
    log, fixed = tmp_path / "log.jsonl", tmp_path / "fixed"
    fails = f'test -e {fixed} && cat >> {log} || {{ echo "no route" >&2; exit 3; }}'
    with web_receiver() as (port, _):
        pass  # nothing listens there any more
    alert = {"when": "paused", "over": 0.1, "every": 0}
    app = opened(
        {"name": "web", **alert, "notify": f"json://me:hunter2@127.0.0.1:{port}/t0ken?+key=s3cret"},
        {"name": "unset", **alert, "notify": "json://me:${NOT_SET}@127.0.0.1"},
        {"name": "unknown", **alert, "notify": "carrier://pigeon"},
        {"name": "missing", **alert, "command": ["/no/such/program"]},
        {"name": "fails", **alert, "command": ["sh", "-c", fails]},
        workers__retry__retry_delay=0.1,
    )
    app.workers.start()
    app.workers.pause()
    expected = {
        "web": "Connection error",
        "unset": "the environment variable NOT_SET in notify is not set",
        "unknown": "Apprise does not know this kind of URL",
        "missing": "/no/such/program: No such file or directory",
        "fails": "exit status 3: no route",
    }

    def undelivered() -> dict[str, str]:
        return {alert["name"]: alert["undelivered"] or "" for alert in app.status().alerts}

    for name, reason in expected.items():
        until(lambda name=name, reason=reason: reason in undelivered().get(name, ""))  # type: ignore[misc]
    report = main(["--data-dir", str(data_dir), *options(app), "doctor"], Session())
    said = (data_dir / "logs/workers.log").read_text() + str(app.status()) + str(report)
    assert "fails can't be delivered to sh: exit status 3: no route" in str(report)
    for secret in ("hunter2", "t0ken", "s3cret"):
        assert secret not in said
    fixed.touch()
    until(lambda: events(log) == ["firing"])
    until(lambda: "fails" in undelivered() and not undelivered()["fails"])


def options(app: App) -> list[str]:
    """The options of a shell command with the same settings."""
    return ["--set", f"alerts={json.dumps(app.settings.to_dict()['alerts'])}"]


def test_a_hanging_command_is_killed_with_its_group_and_holds_up_nothing(
    opened: Open, tmp_path: Path
) -> None:
    pids = tmp_path / "pids"
    command = ["sh", "-c", f"sleep 600 & echo $! >> {pids}; sleep 600"]
    app = opened({"name": "hangs", "when": "workers_missing < 1", "command": command,
                  "timeout": "60s"})  # fmt: skip
    app.workers.start()
    until(pids.exists)
    assert ran(app)  # while the delivery hangs
    [worker] = app.workers.status().workers
    os.kill(worker["pid"], signal.SIGKILL)
    assert ran(app)
    app.workers.stop()  # ends running deliveries
    until(lambda: processes.identity(int(pids.read_text().split()[0])) is None)
    message = read_states(app.queue.job_store)["hangs"].message
    assert message is not None  # to be repeated after the next start
    app = opened({"name": "hangs", "when": "workers_missing < 1", "command": command,
                  "timeout": "0.3s"})  # fmt: skip
    app.workers.start()
    until(lambda: app.status().alerts[0]["undelivered"] == "it took longer than 300 ms")
    for pid in pids.read_text().split():
        assert processes.identity(int(pid)) is None


# The supervisor ------------------------------------------------------------------------------


def test_a_supervisor_with_alerts_does_not_leave_and_health_finds_its_death(
    opened: Open, tmp_path: Path, data_dir: Path
) -> None:
    log = tmp_path / "log.jsonl"
    alert = {"name": "a", "when": "paused", "over": "0.1s", "every": 0, "command": to_file(log)}
    app = opened(alert, workers__idle_exit=2)
    app.workers.start()
    until(lambda: not app.workers.status().workers)

    def health() -> list[str]:
        found = main(["--data-dir", str(data_dir), *options(app), "health"], Session())
        return [reason["code"] for reason in found.reasons]

    assert health() == []
    app.workers.pause()
    until(lambda: events(log) == ["firing"])
    until(lambda: read_states(app.queue.job_store)["a"].message is None)
    supervisor = app.workers.status().supervisor
    assert supervisor
    os.kill(supervisor["pid"], signal.SIGKILL)
    until(lambda: app.workers.status().supervisor is None)
    assert health() == ["paused", "workers_missing"]
    app.workers.start()
    assert health() == ["paused"]
    app.workers.resume()
    assert ran(app)
    assert events(log) == ["firing"]


def test_alerts_test_sends_each_alert_once(tmp_path: Path) -> None:
    log = tmp_path / "log.jsonl"
    alerts = [{"name": "good", "when": "paused", "command": to_file(log)}]

    def run() -> tuple[int, list[dict[str, Any]]]:
        words = [sys.executable, "-m", "paise2nb", "--data-dir", str(tmp_path / "data")]
        words += ["--set", f"alerts={json.dumps(alerts)}", "alerts", "test", "--json"]
        done = subprocess.run(words, capture_output=True, text=True, check=False)
        return done.returncode, json.loads(done.stdout)

    assert run() == (0, [{"name": "good", "to": "sh", "error": None, "result": "delivered"}])
    alerts.append({"name": "bad", "when": "stored < 1", "command": ["false"]})
    status, (good, bad) = run()
    assert (status, good["error"], bad["error"]) == (1, None, "exit status 1")
    assert [(m["event"], m["test"], m["alert"]) for m in messages(log)] == [
        ("test", True, "good"), ("test", True, "good"),
    ]  # fmt: skip
    alerts.clear()
    assert run() == (0, {"alerts": []})
