"""The live panel without a browser: what it shows, what its buttons do, and what it closes."""

from __future__ import annotations

import json
import re
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import ipywidgets
import pytest
from ipywidgets.widgets.widget import _instances

import paise2nb
from paise2nb.app import App
from paise2nb.jobs.models import PAGE_STATES, HostDelay, NewJob, Outcome
from paise2nb.notebook import panel_html
from paise2nb.notebook.panel import Panel, close_panels
from paise2nb.notebook.panel_widgets import Button, Look, inside
from paise2nb.notebook.poller import Poller
from paise2nb.plugins import Document
from paise2nb.views import snapshot
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


def shown(panel: Panel) -> str:
    """The text of the panel, without tags."""
    rows = [*panel._retries.rows, *panel._failures.rows]
    pieces = [*panel._html.values(), *(row.text for row in rows), *(row.details for row in rows)]
    return re.sub(r"<[^>]+>", "", " ".join(piece.value for piece in pieces))


def buttons(widget: Any) -> dict[str, Any]:
    found = {widget.description: widget} if isinstance(widget, ipywidgets.Button) else {}
    for child in getattr(widget, "children", ()):
        found.update(buttons(child))
    return found


def press(panel: Panel, name: str) -> None:
    """Press a button, and wait until its action has ended."""
    until(lambda: all(row.settled for row in (*panel._retries.rows, *panel._failures.rows)))
    buttons(panel)[name].click()
    until(lambda: not panel._action)
    panel.refresh()


def count(panel: Panel, state: str) -> int:
    """The number in the only element of the panel that counts the pages in a state."""
    whole = "".join(piece.value for piece in every(panel, ipywidgets.HTML))
    [found] = re.findall(
        rf'<span class="paise2-count" data-state="{state}" data-value="(\d+)">([\d,]+)</span>',
        whole,
    )
    assert f"{int(found[0]):,}" == found[1]
    return int(found[0])


def every(widget: Any, kind: type) -> list[Any]:
    """All widgets of a kind in a widget."""
    below = [found for child in getattr(widget, "children", ()) for found in every(child, kind)]
    return [widget, *below] if isinstance(widget, kind) else below


def test_pages_are_counted_in_each_state(app: App, tmp_path: Path) -> None:
    (tmp_path / "page.md").write_text("# A page\n\nWith words.")
    (tmp_path / "odd.bin").write_bytes(bytes(range(256)))
    app.enqueue_many("fetch", [str(tmp_path / name) for name in ("page.md", "odd.bin")])
    app.enqueue("stumble", "x")
    panel = app.watch()
    assert [count(panel, state) for state in PAGE_STATES] == [2, 0, 0, 0, 0, 0, 0, 0, 0]
    run_ready_jobs(app)
    panel.refresh()
    assert (count(panel, "stored"), count(panel, "failed"), count(panel, "queued")) == (1, 1, 0)
    assert "other jobs: 1 failed" in shown(panel)
    assert "A page With words." in re.sub(r"<[^>]+>|\s+", " ", panel._html["items"].value)


def test_counts_of_thousands_are_readable(app: App) -> None:
    app.enqueue_many("fetch", [f"http://127.0.0.1:9/{number}" for number in range(1200)])
    assert count(app.watch(), "queued") == 1200


def test_the_buttons_have_their_names(app: App) -> None:
    panel = app.watch()
    assert {"Start workers", "Stop workers", "Retry failed", "Pause"} <= set(buttons(panel))
    assert panel.concurrency.value == 1


def test_buttons_start_and_stop_workers(app: App) -> None:
    panel = app.watch()
    app.enqueue("shout", "a")
    panel.concurrency.value = 2
    press(panel, "Start workers")
    assert "3 workers (default 2, fetch 1) started" in shown(panel)
    app.wait(timeout=60)
    press(panel, "Stop workers")
    assert "workers stopped" in shown(panel)
    assert app.workers.status().workers == []


def test_the_number_of_processes_scales_running_workers_and_follows_them(app: App) -> None:
    def running() -> int:
        return sum(worker["pool"] == "default" for worker in app.workers.status().workers)

    app.workers.start(concurrency=3)
    panel = app.watch()
    assert panel.concurrency.value == 3
    panel.concurrency.value = 1
    until(lambda: not panel._action)
    panel.refresh()
    assert "scaled" in shown(panel)
    until(lambda: running() == 1)
    app.workers.start(concurrency=2)
    panel.refresh()
    assert panel.concurrency.value == 2
    assert not panel._action
    press(panel, "Stop workers")
    panel.concurrency.value = 5
    assert not panel._action
    assert app.workers.status().workers == []


def test_the_queue_is_paused_and_resumed_by_one_button(app: App) -> None:
    panel = app.watch()
    press(panel, "Pause")
    assert app.status().paused is not None
    assert shown(panel).count("the queue is paused; to go on: %paise2 resume") == 1
    press(panel, "Resume")
    assert app.status().paused is None
    assert "Pause" in buttons(panel)
    app.pause()
    panel.refresh()
    assert "Resume" in buttons(panel)


def test_the_failure_of_a_recurring_job_is_shown_with_its_next_time(app: App) -> None:
    app.enqueue("stumble", "over", every=86400)
    run_ready_jobs(app)
    panel = app.watch()
    assert re.search(r"stumble over every 1 d: ValueError; next \w+ \d\d:\d\d", shown(panel))
    assert "1 × stumble" not in shown(panel)
    press(panel, "Retry")
    assert app.job(1).state == "queued"
    run_ready_jobs(app)
    panel.refresh()
    press(panel, "Retry failed")
    assert app.job(1).state == "queued"
    assert "1 job back in the queue" in shown(panel)


def test_retries_are_listed_with_a_countdown(app: App) -> None:
    panel = app.watch()
    app.enqueue("late", "tide")
    run_ready_jobs(app)
    panel.refresh()
    assert re.search(r"in 1 min( \d s)? · attempt 2 of 4 · job 1: late tide", shown(panel))
    assert "the tide" in shown(panel)
    press(panel, "Retry now")
    assert app.job(1).state == "queued"
    run_ready_jobs(app)
    panel.refresh()
    press(panel, "Cancel")
    assert app.job(1).state == "cancelled"


def test_failures_are_grouped_with_the_command_that_helps(app: App) -> None:
    panel = app.watch()
    app.enqueue_many("refused", ["404 Not Found: a", "404 Not Found: b", "403 Forbidden: c"])
    app.enqueue("stumble", "over")
    run_ready_jobs(app)
    panel.refresh()
    assert "2 × 404 Not Found" in shown(panel)
    assert "1 × 403 Forbidden" in shown(panel)
    assert "A page that is gone, or behind a login, stays failed" in shown(panel)
    assert "%paise2 retry" not in shown(panel)
    assert "%paise2 replay 4" in shown(panel)
    assert "ValueError: over" in shown(panel)
    assert "Traceback (most recent call last)" in shown(panel)


def test_a_group_is_retried_after_a_second_click(app: App) -> None:
    panel = app.watch()
    app.enqueue_many("refused", ["404 Not Found: a", "404 Not Found: b", "403 Forbidden: c"])
    run_ready_jobs(app)
    panel.refresh()
    press(panel, "Retry all 2")
    assert app.status().jobs["failed"] == 3
    press(panel, "Really retry 2?")
    assert [job.state for job in app.jobs()] == ["queued", "queued", "failed"]
    press(panel, "Retry failed")
    assert app.status().jobs["queued"] == 3


def test_retry_failed_also_retries_what_followed_from_a_job(app: App) -> None:
    panel = app.watch()
    assert buttons(panel)["Retry failed"].disabled
    app.enqueue("parent", "over")
    run_ready_jobs(app)
    panel.refresh()
    assert app.status().pages["failed"] == 0
    press(panel, "Retry failed")
    assert [job.state for job in app.jobs(all=True)] == ["completed", "queued"]
    assert "1 job back in the queue" in shown(panel)


def test_a_click_on_a_row_that_has_just_changed_is_ignored(app: App) -> None:
    panel = app.watch()
    app.enqueue_many("late", ["tide", "train"])
    run_ready_jobs(app)
    app.job(2).cancel()
    panel.refresh()
    app.job(1).cancel()
    app.job(2).retry()
    run_ready_jobs(app)
    panel.refresh()
    buttons(panel)["Cancel"].click()
    assert app.job(2).state == "retrying"
    press(panel, "Cancel")
    assert app.job(2).state == "cancelled"


def test_a_refresh_sends_again_what_a_thread_has_set(app: App) -> None:
    panel = app.watch()
    sent: list[Any] = []
    comm = panel._html["counts"].comm
    comm.send = lambda **message: sent.append(message["data"]["state"])
    buttons(panel)["Refresh"].click()
    assert ["value" in state for state in sent] == [True]


def test_an_error_is_shown_and_the_panel_goes_on(app: App) -> None:
    panel = app.watch()
    path = app.queue.job_store.path
    path.rename(path.with_suffix(".away"))
    panel.refresh()
    assert "was deleted or replaced" in shown(panel)
    path.with_suffix(".away").rename(path)
    panel.refresh()
    assert "was deleted or replaced" not in shown(panel)


def test_the_saved_form_is_the_same_for_the_same_work(app: App) -> None:
    panel = app.watch()
    app.enqueue("shout", "a")
    app.enqueue("fetch", "http://127.0.0.1:9/", delay=3600)
    first, second = panel._repr_mimebundle_(), panel._repr_mimebundle_()
    assert first == second
    assert "1 queued" in first["text/plain"]
    assert 'data-state="scheduled" data-value="1">1</span>' in first["text/html"]
    assert not re.search(r"\d\d:\d\d|pid", first["text/html"].partition("</style>")[2])
    assert "application/vnd.jupyter.widget-view+json" in first


def test_an_app_has_one_panel_which_closes_with_it(app: App, tmp_path: Path) -> None:
    before = set(_instances)
    other = paise2nb.open("test", tmp_path / "other")
    panel = other.watch()
    assert other.watch() is panel
    other.close()
    panel.refresh()
    assert "was closed" in shown(panel)
    app.watch()
    close_panels()
    assert set(_instances) == before


def test_the_state_of_the_panel_is_small_whatever_jobs_say(app: App) -> None:
    loud = "<\"'&\U0001f600\u202e\n" * 150_000
    long_url = "http://127.0.0.1:9/" + "q'&" * 30_000
    for number in range(8):
        app.enqueue("refused", f"40{number} {loud}{number}")
        app.enqueue("late", f"{loud}{number}")
        app.enqueue("fetch", f"{long_url}{number}")
        app.enqueue("stumble", f"{loud}{number}", every=86400)
        app.store.put(
            Document(loud, title=loud), url=f"{long_url}{number}", key=f"{number}", size=1,
            mime_type="text/html", sha256="0" * 64, tag=None, fetched_at=1.0,
        )  # fmt: skip
    app.logs()
    (app.data_dir / "logs").mkdir(exist_ok=True)
    (app.data_dir / "logs" / "workers.log").write_text(loud.replace("\n", "") + "\n" + "'\n" * 9)
    run_ready_jobs(app)
    panel = app.watch()
    panel._message = loud
    panel.refresh()
    assert len(panel._failures.rows) == len(panel._retries.rows) == snapshot.FAILURES
    assert state_bytes(panel) < 200_000
    assert len(str(panel._repr_mimebundle_()).encode()) < 100_000


def state_bytes(panel: Panel) -> int:
    """The size of all traits of the panel and of every widget in it, as JSON."""
    every_widget = {widget.model_id: widget for widget in (panel, *inside(panel))}
    states = (json.dumps(widget.get_state(), default=str) for widget in every_widget.values())
    return sum(len(state.encode()) for state in states)


def test_an_unchanged_panel_sends_nothing(app: App) -> None:
    panel = app.watch()
    app.enqueue("stumble", "x")
    run_ready_jobs(app)
    panel.refresh()
    sent: list[str] = []
    for name, piece in panel._html.items():
        piece.observe(lambda _, name=name: sent.append(name), "value")  # type: ignore[misc]
    for _ in range(5):
        panel.refresh()
    assert set(sent) <= {"head", "facts"}  # the time, and for how long the oldest waits


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
        until(lambda: "was deleted or replaced" in shown(panels[1]))
        path.with_suffix(".away").rename(path)
        other.enqueue("fetch", "http://127.0.0.1:9/")
        until(lambda: count(panels[1], "queued") == 1)
        assert count(unseen, "queued") == 0
        assert len(set(threading.enumerate()) - before) == 1
    close_panels()
    assert set(threading.enumerate()) == before


def test_the_frontend_chooses_the_shell_of_its_messages() -> None:
    button = Button(Look(), "x", lambda: None)
    button.comm._reply_subshell_id = None
    button.description = "y"
    assert "_reply_subshell_id" not in vars(button.comm)


# The words of a snapshot ---------------------------------------------------------------------


def claim(app: App, pool: str = "fetch") -> Any:
    worker = app.queue.job_store.register(pool, 1, "ready")
    return app.queue.job_store.claim(worker, app.parts.limits())


def test_the_time_left_waits_for_the_last_retry(app: App) -> None:
    app.enqueue("late", "x")
    job = claim(app, "default")
    app.queue.job_store.end(job, Outcome("failed", "retrying", retry_in=50))
    left = app.snapshot().left
    assert left is not None
    assert left.startswith("the last retry comes at ")


def test_the_time_left_is_that_of_the_slowest_host(app: App) -> None:
    job_store = app.queue.job_store
    job_store.host_delay = 1.0
    job_store.add([NewJob("fetch", f'["http://slow/{n}"]', 1, host="slow") for n in range(301)])
    claim(app)
    left = app.snapshot().left
    assert left is not None
    assert left.startswith("300 on slow at 1 s each: about ")
    assert left.endswith("; more workers won't help")
    seconds = app.status().seconds_left
    assert seconds is not None
    assert 299 < seconds < 302


def test_a_host_that_asked_for_a_pause_is_named(app: App) -> None:
    job_store = app.queue.job_store
    job_store.add([NewJob("fetch", f'["http://slow/{n}"]', 1, host="slow") for n in range(2)])
    host_delays = [HostDelay("slow", pause=600)]
    job_store.end(claim(app), Outcome("failed", "retrying", retry_in=600, host_delays=host_delays))
    left = app.snapshot().left
    assert left is not None
    assert left.startswith("slow asked for a pause: about ")


def test_without_work_there_is_no_estimate(app: App) -> None:
    assert app.snapshot().left is None


def test_the_plot_has_minutes_in_which_no_job_finished(app: App) -> None:
    app.enqueue("shout", "a")
    run_ready_jobs(app)
    seen = app.snapshot()
    minutes = seen.pace
    assert len(minutes) == snapshot.PACE_MINUTES
    assert sum(done for _, done, _ in minutes) == 1
    assert snapshot.sparkline([0, 1, 2]) == "▁▅█"
    assert panel_html.plot(seen).count("<rect") == 1


def test_a_terminal_shows_the_same(app: App) -> None:
    app.enqueue("late", "tide")
    app.enqueue("stumble", "over")
    run_ready_jobs(app)
    words = snapshot.text(app.snapshot(), time.time())
    assert "1 retrying   1 failed" in words
    assert "attempt 2 of 4" in words
    assert "1 × ValueError" in words
    assert "paise2 replay 2" in words
    assert len(snapshot.text(app.snapshot(), time.time(), height=5).split("\n")) == 5
