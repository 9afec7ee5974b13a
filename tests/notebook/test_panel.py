"""The live panel without a browser: what it shows, what its buttons do, and what it closes."""

from __future__ import annotations

import csv
import io
import json
import re
import sys
import threading
import time
from collections.abc import Iterator
from datetime import datetime
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from ipywidgets.widgets.widget import _instances

import paise2nb
from paise2nb.app import App
from paise2nb.core.errors import PaiseError
from paise2nb.jobs.models import PAGE_STATES, HostDelay, NewJob, Outcome
from paise2nb.notebook import panel as panels
from paise2nb.notebook.panel import Panel, close_panels, show_instead
from paise2nb.notebook.panel_commands import CHANGES, QUESTIONS
from paise2nb.notebook.panel_state import ROWS, saved
from paise2nb.notebook.poller import Poller
from paise2nb.notebook.session import NotebookSession
from paise2nb.plugins import Document
from paise2nb.views.screen import PACE_MINUTES, sparkline
from tests import example_plugin
from tests.waiting import until

PLUGIN = (
    example_plugin.SOURCE
    + """
from paise2nb import PermanentError, TransientError

@task("refused", max_retries=0)
def refused(context, word):
    raise PermanentError(word, "http_4xx")

@task("parent")
def parent(context, word):
    context.enqueue("stumble", word)

@task("late", max_retries=3, retry_delay=3000)
def late(context, word):
    raise TransientError("the " + word, "timeout")
"""
)


@pytest.fixture
def app(tmp_path: Path) -> Iterator[App]:
    (tmp_path / "plugin.py").write_text(PLUGIN)
    settings = {"plugins": [str(tmp_path / "plugin.py")], "workers.concurrency": 1}
    with paise2nb.open("development", tmp_path / "data", settings) as opened:
        yield opened
        close_panels()


def run_ready_jobs(app: App) -> None:
    """Run each ready job once in this process, as a worker would."""
    settings = {"plugins": list(app.settings.plugins), "task_queue.sqlite.immediate": True}
    with paise2nb.open("development", app.data_dir, settings) as here:
        here.queue.run_ready()


def ask(panel: Panel, do: str, **values: object) -> Any:
    """Send a command as a browser does, and wait for the answer."""
    answers: list[dict[str, Any]] = []
    panel.send = answers.append
    panel._receive(panel, {"call": "1", "do": do, **values}, [])
    [answer] = until(lambda: answers)
    assert answer.pop("call") == "1"
    return answer.get("result", answer)


def count(panel: Panel, state: str) -> int:
    """The number of pages in a state."""
    number: int = panel.state["pages"][state]
    return number


def test_pages_are_counted_in_each_state_and_by_tag(app: App, tmp_path: Path) -> None:
    (tmp_path / "page.md").write_text("# A page\n\nWith words.")
    (tmp_path / "odd.bin").write_bytes(bytes(range(256)))
    app.enqueue_many("fetch", [str(tmp_path / name) for name in ("page.md", "odd.bin")], tag="a")
    app.enqueue("stumble", "x")
    panel = app.watch()
    assert [count(panel, state) for state in PAGE_STATES] == [2, 0, 0, 0, 0, 0, 0, 0, 0]
    assert panel.state["tags"] == [{"tag": "a", "pages": {"queued": 2}}]
    app.enqueue("fetch", "http://127.0.0.1:9/", delay=3600)
    run_ready_jobs(app)
    panel.refresh()
    assert (count(panel, "stored"), count(panel, "failed"), count(panel, "queued")) == (1, 1, 0)
    assert panel.state["others"] == {"failed": 1}
    assert panel.state["tags"] == [
        {"tag": "a", "pages": {"failed": 1, "stored": 1}},
        {"tag": "no tag", "pages": {"scheduled": 1}},
    ]


def test_commands_start_and_stop_workers(app: App) -> None:
    panel = app.watch()
    app.enqueue("shout", "a")
    assert ask(panel, "start", concurrency=2) == "3 workers (default 2, fetch 1) started"
    assert panel.state["message"] == "3 workers (default 2, fetch 1) started"
    app.wait(timeout=60)
    assert "workers stopped" in ask(panel, "stop")
    assert app.workers.status().workers == []


def test_the_number_of_processes_scales_running_workers_and_follows_them(app: App) -> None:
    def running() -> int:
        return sum(worker["pool"] == "default" for worker in app.workers.status().workers)

    app.workers.start(concurrency=3)
    panel = app.watch()
    assert (panel.state["concurrency"], panel.state["scales"]) == (3, True)
    assert "scaled" in ask(panel, "scale", concurrency=1)
    until(lambda: running() == 1)
    app.workers.start(concurrency=2)
    panel.refresh()
    assert panel.state["concurrency"] == 2
    ask(panel, "stop")
    assert not panel.state["scales"]


def test_workers_are_started_or_stopped_one_at_a_time(app: App, monkeypatch: Any) -> None:
    gate = threading.Event()
    stop = ("stopping workers", lambda app: gate.wait(60) and "stopped")
    monkeypatch.setitem(CHANGES, "stop", stop)
    panel = app.watch()
    answers: list[Any] = []
    panel.send = answers.append
    panel._receive(panel, {"call": "1", "do": "stop"}, [])
    assert panel.state["action"] == "stopping workers …"
    panel._receive(panel, {"call": "2", "do": "start", "concurrency": 1}, [])
    assert answers == [{"call": "2", "error": "not now: stopping workers …"}]
    panel._receive(panel, {"call": "3", "do": "pause"}, [])  # anything else goes on
    until(lambda: app.status().paused)
    gate.set()
    until(lambda: len(answers) == 3)
    assert panel.state["action"] == ""


def test_the_queue_is_paused_and_resumed(app: App) -> None:
    panel = app.watch()
    ask(panel, "pause")
    assert app.status().paused is not None
    assert panel.state["paused"]
    assert panel.state["problems"] == ["the queue is paused; to go on: %paise2 resume"]
    ask(panel, "resume")
    assert app.status().paused is None
    assert not panel.state["paused"]
    app.pause()
    panel.refresh()
    assert panel.state["paused"]


def test_the_failure_of_a_recurring_job_is_shown_with_its_next_time(app: App) -> None:
    app.enqueue("stumble", "over", every=86400)
    run_ready_jobs(app)
    panel = app.watch()
    [group] = panel.state["groups"]
    assert re.fullmatch(r"stumble over every 1 d: ValueError; next \w+ \d\d:\d\d", group["name"])
    assert group["recurs"]
    assert [row["every"] for row in panel.state["later"]] == ["every 1 d"]
    assert ask(panel, "retry_group", key=group["key"]) == "1 job back in the queue"
    assert app.job(1).state == "queued"
    run_ready_jobs(app)
    panel.refresh()
    ask(panel, "retry_failed")
    assert app.job(1).state == "queued"
    assert panel.state["message"] == "1 job back in the queue"


def test_retries_are_listed_with_their_time(app: App) -> None:
    panel = app.watch()
    app.enqueue("late", "tide")
    run_ready_jobs(app)
    panel.refresh()
    [row] = panel.state["retries"]
    assert (row["task"], row["text"], row["attempt"]) == ("late", "tide", "attempt 2 of 4")
    assert row["error"] == "the tide"
    assert 0 < row["due"] - time.time() < 3600
    assert ask(panel, "retry", ids=[row["id"]]) == "1 job back in the queue"
    assert app.job(1).state == "queued"
    run_ready_jobs(app)
    assert ask(panel, "cancel", id=1) == "1 job cancelled"
    assert app.job(1).state == "cancelled"


def test_failures_are_grouped_with_the_command_that_helps(app: App) -> None:
    panel = app.watch()
    app.enqueue_many("refused", ["404 Not Found: a", "404 Not Found: b", "403 Forbidden: c"])
    app.enqueue("stumble", "over")
    app.enqueue("fetch", "http://127.0.0.1:9/")
    run_ready_jobs(app)
    panel.refresh()
    gone, code, *_, forbidden = panel.state["groups"]
    assert (gone["name"], gone["jobs"], gone["retry"]) == ("404 Not Found", 2, False)
    assert "A page that is gone, or behind a login, stays failed" in gone["advice"]
    assert (forbidden["name"], forbidden["jobs"]) == ("403 Forbidden", 1)
    assert (code["name"], code["command"], code["retry"]) == (
        "ValueError",
        "%paise2 replay 4",
        True,
    )
    rows = ask(panel, "failures", key=gone["key"])
    assert [(row["id"], row["error"], row["attempt"]) for row in rows] == [
        (2, "404 Not Found: b", 1), (1, "404 Not Found: a", 1),
    ]  # fmt: skip
    assert ask(panel, "failures", key=gone["key"], offset=1) == rows[1:]
    [(name, traceback)] = ask(panel, "page", id=4)["tracebacks"]
    assert name == "job 4"
    assert traceback.startswith("Traceback (most recent call last)")
    assert ask(panel, "page", id=5)["tracebacks"] == []  # the package's own error


def test_a_group_is_retried_whole_or_in_part(app: App) -> None:
    panel = app.watch()
    app.enqueue_many("refused", ["404 Not Found: a", "404 Not Found: b", "403 Forbidden: c"])
    run_ready_jobs(app)
    panel.refresh()
    key = panel.state["groups"][0]["key"]
    assert ask(panel, "retry", ids=[2]) == "1 job back in the queue"
    assert ask(panel, "retry_group", key=key) == "1 job back in the queue"
    assert [job.state for job in app.jobs()] == ["queued", "queued", "failed"]
    assert ask(panel, "retry_failed") == "1 job back in the queue"
    assert app.status().jobs["queued"] == 3


def test_failures_are_exported_without_formulas(app: App) -> None:
    app.enqueue_many("refused", ["404 Not Found: a", "=1+1"])
    run_ready_jobs(app)
    panel = app.watch()
    texts = [ask(panel, "failures_csv", key=group["key"]) for group in panel.state["groups"]]
    rows = [row for text in texts for row in csv.DictReader(io.StringIO(text))]
    assert {(row["id"], row["task"], row["url"], row["error"]) for row in rows} == {
        ("1", "refused", "404 Not Found: a", "404 Not Found: a"),
        ("2", "refused", "'=1+1", "'=1+1"),
    }
    assert all(datetime.fromisoformat(row["failed_at"]).tzinfo for row in rows)


def test_retry_failed_also_retries_what_followed_from_a_job(app: App) -> None:
    panel = app.watch()
    app.enqueue("parent", "over")
    run_ready_jobs(app)
    assert app.status().pages["failed"] == 0
    assert ask(panel, "retry_failed") == "1 job back in the queue"
    assert [job.state for job in app.jobs(all=True)] == ["completed", "queued"]


def test_retry_failed_leaves_what_a_retry_can_not_help_until_nothing_else_has_failed(
    app: App,
) -> None:
    panel = app.watch()
    app.enqueue_many("refused", ["404 Not Found: a", "404 Not Found: b"])
    app.enqueue("stumble", "over")
    run_ready_jobs(app)
    panel.refresh()
    assert panel.state["failures"] == 3
    assert ask(panel, "retry_failed") == (
        "1 job back in the queue; 2 not retried, as a retry seldom helps there: press again to "
        "retry the rest"
    )
    assert [app.job(number).state for number in (1, 2, 3)] == ["failed", "failed", "queued"]
    assert ask(panel, "retry_failed") == "2 jobs back in the queue"
    assert ask(panel, "retry_failed") == "there is nothing to retry"


def test_all_failures_are_counted_although_not_all_groups_are_shown(app: App) -> None:
    app.enqueue_many("refused", [f"4{number} odd: {number}" for number in range(10, 30)])
    run_ready_jobs(app)
    panel = app.watch()
    assert (panel.state["failures"], panel.state["more_groups"]) == (20, 8)


def test_an_export_holds_up_no_other_command(app: App, monkeypatch: Any) -> None:
    gate = threading.Event()
    monkeypatch.setitem(QUESTIONS, "failures_csv", lambda app: gate.wait(60) and "id,task")
    panel = app.watch()
    answers: list[Any] = []
    panel.send = answers.append
    panel._receive(panel, {"call": "1", "do": "failures_csv"}, [])
    panel._receive(panel, {"call": "2", "do": "here"}, [])
    assert answers == [{"call": "2", "result": None}]
    gate.set()
    until(lambda: len(answers) == 2)
    assert answers[1] == {"call": "1", "result": "id,task"}


def test_an_unknown_command_is_answered(app: App) -> None:
    answer = ask(app.watch(), "nonsense")
    assert answer == {"error": "unknown command nonsense: run the cell again"}


def test_pasted_urls_are_fetched_with_their_tag(app: App, tmp_path: Path) -> None:
    panel = app.watch()
    (tmp_path / "a page.md").write_text("# A page\n\nWith words.")
    text = f"http://127.0.0.1:9/a http://127.0.0.1:9/b\n\n  {tmp_path / 'a page.md'}\n"
    assert ask(panel, "enqueue", text=text, tag=" reading ") == "3 new"
    assert ask(panel, "enqueue", text="http://127.0.0.1:9/a") == "1 already waiting"
    assert [job.tag for job in app.jobs()] == ["reading"] * 3
    assert panel.state["tags"][0]["tag"] == "reading"
    assert ask(panel, "enqueue", text=" ") == {"error": "paste at least one URL"}
    assert "http://" in ask(panel, "enqueue", text="http://")["error"]
    assert app.status().pages["queued"] == 3


def test_stored_pages_are_found_listed_and_previewed(app: App, tmp_path: Path) -> None:
    (tmp_path / "page.md").write_text("# A page\n\nWith words about hedgehogs.")
    app.enqueue("fetch", str(tmp_path / "page.md"), tag="reading")
    app.enqueue("fetch", "http://127.0.0.1:9/", delay=3600)
    panel = app.watch()
    app.job(1).cancel()
    app.job(1).retry()
    settings = {"task_queue.sqlite.immediate": True}
    with paise2nb.open("development", app.data_dir, settings) as here:
        here.queue.run_ready()
    [found] = ask(panel, "search", words="hedgehogs")
    assert (found["title"], found["snippet"][1]) == ("A page", "hedgehogs")
    listed = ask(panel, "pages", states=[])
    assert [row["state"] for row in listed["rows"]] == ["scheduled", "stored"]
    assert listed["total"] == 2
    [row] = ask(panel, "pages", states=["stored"], words="hedgehogs")["rows"]
    assert row["name"] == "A page"
    page = ask(panel, "page", id=row["id"])
    assert [run["task"] for run in page["runs"]] == ["fetch", "extract", "store"]
    assert "With words about hedgehogs." in page["items"][0]["text"]


def test_the_pace_and_the_log_are_read_when_they_are_opened(app: App) -> None:
    app.enqueue_many("shout", ["a", "b"])
    app.enqueue("stumble", "x")
    run_ready_jobs(app)
    panel = app.watch()
    for seconds in (900, 3600, 86400):
        pace = ask(panel, "pace", seconds=seconds)
        assert (sum(pace["completed"]), sum(pace["failed"])) == (2, 1)
        ended = pace["start"] + pace["step"] * len(pace["completed"])
        assert pace["start"] <= time.time() <= ended + 1
    (app.data_dir / "logs").mkdir(exist_ok=True)
    (app.data_dir / "logs" / "workers.log").write_text("one\ntwo \x1b[1mbold\n")
    assert ask(panel, "log") == ["one", "two bold"]


def test_an_error_is_shown_and_the_panel_goes_on(app: App) -> None:
    panel = app.watch()
    path = app.queue.job_store.path
    path.rename(path.with_suffix(".away"))
    panel.refresh()
    assert "was deleted or replaced" in panel.state["problems"][0]
    assert "was deleted or replaced" in ask(panel, "pages", states=[])["error"]
    path.with_suffix(".away").rename(path)
    panel.refresh()
    assert panel.state["problems"] == []


def test_the_saved_form_is_the_same_for_the_same_work(app: App) -> None:
    panel = app.watch()
    app.enqueue("shout", "a")
    app.enqueue("fetch", "http://127.0.0.1:9/", delay=3600)
    first, second = panel._repr_mimebundle_(), panel._repr_mimebundle_()
    assert first == second
    data, _ = first
    assert "1 queued" in data["text/plain"]
    assert 'data-state="scheduled" data-value="1">1</b>' in data["text/html"]
    assert not re.search(r"\d\d:\d\d|pid", data["text/html"].partition("</style>")[2])
    assert "application/vnd.jupyter.widget-view+json" in data


def test_the_picture_in_the_notebook_has_its_time_and_no_count_of_the_live_panel(app: App) -> None:
    app.enqueue("fetch", "http://127.0.0.1:9/")
    picture = saved(app.status(), 1.0)
    assert "paise2-count" not in picture.partition("</style>")[2]
    assert re.search(r"19(69|70)-\d\d-\d\d \d\d:\d\d:\d\d", picture)
    assert 'data-state="queued" data-value="1">1</b>' in picture


def test_the_picture_is_published_again_when_it_has_changed_but_not_too_often(
    app: App, monkeypatch: Any
) -> None:
    passed, again = 0.0, list[bool]()
    clock = SimpleNamespace(monotonic=lambda: passed, time=time.time, thread_time=time.thread_time)
    monkeypatch.setattr(panels, "time", clock)
    monkeypatch.setattr(panels, "display", lambda data, update, **_: again.append(update))
    monkeypatch.setattr(panels, "get_ipython", lambda: SimpleNamespace(kernel=None))
    monkeypatch.delenv("PYTEST_VERSION")
    panel = app.watch()
    panel._repr_mimebundle_()
    app.enqueue("fetch", "http://127.0.0.1:9/1")
    for passed, published in (
        (29.0, [False]),
        (31.0, [False, True]),
        (300.0, [False, True]),  # nothing has changed
    ):
        panel.refresh(reread=False)
        assert again == published, passed
    app.enqueue("fetch", "http://127.0.0.1:9/2")
    monkeypatch.setenv("PYTEST_VERSION", "as under nbval")
    passed = 400.0
    panel.refresh(reread=False)
    assert panel.state["pages"]["queued"] == 2
    assert len(again) == 2


def test_an_app_has_one_panel_which_closes_with_it(app: App, tmp_path: Path) -> None:
    before = set(_instances)
    other = paise2nb.open("test", tmp_path / "other")
    panel = other.watch()
    assert other.watch() is panel
    other.close()
    panel.refresh()
    assert "was closed" in panel.state["problems"][0]
    app.watch()
    close_panels()
    assert set(_instances) == before


def test_the_panel_of_an_app_shows_the_one_that_replaces_it(app: App, tmp_path: Path) -> None:
    panel = app.watch()
    ask(panel, "resume")
    with paise2nb.open("development", tmp_path / "new", {"workers.concurrency": 3}) as new:
        new.enqueue("fetch", "http://127.0.0.1:9/")
        show_instead(app, new)
        assert new.watch() is panel
        assert (count(panel, "queued"), panel.state["concurrency"]) == (1, 3)
        assert panel.state["message"] == ""
        close_panels()


def test_without_the_package_sidecar_one_line_says_how_to_get_it(
    app: App, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "sidecar", None)
    session: Any = NotebookSession(None, {})  # type: ignore[arg-type]  # no cell is run
    with pytest.raises(PaiseError, match=r"--side needs sidecar: pip install 'paise2nb\[lab\]'"):
        session.beside(app.watch())


def test_the_state_of_the_panel_is_small_whatever_jobs_say(app: App) -> None:
    loud = "<\"'&\U0001f600\u202e\n" * 50_000
    long_url = "http://127.0.0.1:9/" + "q'&" * 30_000
    for number in range(13):
        app.enqueue("refused", f"4{number + 10} {loud}{number}")
        app.enqueue("late", f"{loud}{number}")
        app.enqueue("fetch", f"{long_url}{number}", tag=f"{number}" + "\U0001f600" * 90)
        app.enqueue("fetch", f"{long_url[:1900]}{number}", tag=f"{number}", delay=3600)
        app.enqueue("stumble", f"{loud}{number}", every=86400)
        app.store.put(
            Document(loud, title=loud), url=f"{long_url}{number}", key=f"{number}", size=1,
            mime_type="text/html", sha256="0" * 64, tag=None, fetched_at=1.0,
        )  # fmt: skip
    (app.data_dir / "logs").mkdir(exist_ok=True)
    (app.data_dir / "logs" / "workers.log").write_text(loud.replace("\n", "") + "\n" + "'\n" * 9)
    run_ready_jobs(app)
    panel = app.watch()
    panel._message = loud
    panel.refresh()
    assert len(panel.state["groups"]) == len(panel.state["retries"]) == ROWS
    assert len(json.dumps(panel.get_state()).encode()) < 200_000
    assert len(str(panel._repr_mimebundle_()).encode()) < 100_000
    for command in ({"do": "pages", "states": []}, {"do": "page", "id": 1}, {"do": "log"}):
        answer = ask(panel, **command)
        assert "error" not in answer
        assert len(json.dumps(answer).encode()) < 400_000


def test_an_unchanged_panel_sends_only_its_heartbeat(app: App) -> None:
    panel = app.watch()
    app.enqueue("stumble", "x")
    run_ready_jobs(app)
    panel.refresh()
    sent: list[str] = []
    panel.observe(lambda change: sent.append(change["name"]))
    panel.beat -= 2
    for _ in range(5):
        panel.refresh()
    assert set(sent) == {"beat"}


def test_one_thread_refreshes_what_is_displayed_until_it_is_stopped() -> None:
    threads: list[threading.Thread] = []
    displayed = threading.Event()

    def refresh(reread: bool) -> bool:
        threads.append(threading.current_thread())
        return displayed.is_set()

    before = set(threading.enumerate())
    poller = Poller(refresh)
    assert set(threading.enumerate()) == before
    displayed.set()
    poller.wake()
    until(lambda: len(threads) >= 3)  # wake causes the first; the others follow twice a second
    (thread,) = set(threading.enumerate()) - before
    assert set(threads) == {thread}
    displayed.clear()
    poller.wake()
    poller.stop()
    assert not thread.is_alive()
    poller.wake()
    assert set(threading.enumerate()) == before


@pytest.mark.filterwarnings("ignore::pytest.PytestUnhandledThreadExceptionWarning")
def test_after_an_error_the_thread_is_started_again() -> None:
    threads: list[threading.Thread] = []

    def refresh(reread: bool) -> bool:
        threads.append(threading.current_thread())
        raise OSError("the connection is closed")

    poller = Poller(refresh)
    for number in (1, 2):
        poller.wake()
        until(lambda number=number: len(threads) == number and not threads[-1].is_alive())
    poller.stop()


def test_one_thread_keeps_all_displayed_panels_up_to_date(app: App, tmp_path: Path) -> None:
    before = set(threading.enumerate())
    with (
        paise2nb.open("development", tmp_path / "other") as other,
        paise2nb.open("development", tmp_path / "hidden") as hidden,
    ):
        panels = [app.watch(), other.watch()]
        unseen = hidden.watch()
        for panel in panels:
            panel._view_count = 1  # as a frontend does
        path = other.queue.job_store.path
        path.rename(path.with_suffix(".away"))
        for one in (app, hidden):
            one.enqueue("fetch", "http://127.0.0.1:9/")
        until(lambda: count(panels[0], "queued") == 1)
        until(lambda: "was deleted or replaced" in str(panels[1].state["problems"]))
        path.with_suffix(".away").rename(path)
        other.enqueue("fetch", "http://127.0.0.1:9/")
        until(lambda: count(panels[1], "queued") == 1)
        assert count(unseen, "queued") == 0
        assert len(set(threading.enumerate()) - before) == 1
    close_panels()
    assert set(threading.enumerate()) == before


def test_the_poller_that_a_message_wakes_finds_the_panel_displayed(app: App) -> None:
    found: list[bool] = []
    poller: Any = SimpleNamespace(wake=lambda: found.append(panel.displayed))  # it looks at once
    panel = Panel(app, poller)
    assert ask(panel, "here") is None
    panel.close()
    assert found == [True]


def test_the_frontend_chooses_the_shell_of_its_messages(app: App) -> None:
    panel = app.watch()
    panel.comm._reply_subshell_id = None
    panel.beat += 1
    assert "_reply_subshell_id" not in vars(panel.comm)


# The time left, and the screen of a terminal -------------------------------------------------


def claim(app: App, pool: str = "fetch") -> Any:
    worker = app.queue.job_store.register(pool, 1, "ready")
    return app.queue.job_store.claim(worker, app.parts.limits())


def test_the_time_left_waits_for_the_last_retry(app: App) -> None:
    app.enqueue("late", "x")
    job = claim(app, "default")
    app.queue.job_store.end(job, Outcome("failed", "retrying", retry_in=50))
    left = app.status().left
    assert left is not None
    assert left.text.startswith("the last retry comes at ")


def test_the_time_left_is_that_of_the_slowest_host(app: App) -> None:
    job_store = app.queue.job_store
    job_store.host_delay = 1.0
    job_store.add([NewJob("fetch", f'["http://slow/{n}"]', 1, host="slow") for n in range(301)])
    claim(app)
    left = app.status().left
    assert left is not None
    assert left.text.startswith("300 on slow at 1 s each: about ")
    assert left.text.endswith("; more workers won't help")
    seconds = app.status().seconds_left
    assert seconds is not None
    assert 299 < seconds < 302


def test_a_host_that_asked_for_a_pause_is_named(app: App) -> None:
    job_store = app.queue.job_store
    job_store.add([NewJob("fetch", f'["http://slow/{n}"]', 1, host="slow") for n in range(2)])
    host_delays = [HostDelay("slow", pause=600)]
    job_store.end(claim(app), Outcome("failed", "retrying", retry_in=600, host_delays=host_delays))
    left = app.status().left
    assert left is not None
    assert left.text.startswith("slow asked for a pause: about ")


def test_without_work_there_is_no_estimate(app: App) -> None:
    assert app.status().left is None


def test_the_plot_has_minutes_in_which_no_job_finished(app: App) -> None:
    app.enqueue("shout", "a")
    run_ready_jobs(app)
    assert re.search(f"^[▁▂▃▄▅▆▇█]{{{PACE_MINUTES}}}$", app.screen(), re.MULTILINE)
    assert sparkline([0, 1, 2]) == "▁▅█"


def test_a_terminal_shows_the_same(app: App) -> None:
    app.enqueue("late", "tide")
    app.enqueue("stumble", "over")
    run_ready_jobs(app)
    words = app.screen()
    assert "1 retrying   1 failed" in words
    assert "attempt 2 of 4" in words
    assert "1 × ValueError" in words
    assert "paise2 replay 2" in words
    assert len(app.screen(5).split("\n")) == 5
