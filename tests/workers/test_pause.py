"""A paused queue or pool: nothing more is claimed, and every view says so."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from paise2nb.app import App
from paise2nb.core.errors import Timeout, UsageError, WorkersError
from paise2nb.core.render import in_cell_words
from paise2nb.notebook.panel_state import state
from tests import example_plugin
from tests.waiting import until
from tests.workers.conftest import Make

PLUGIN = (
    example_plugin.SOURCE
    + """
@task("own", pool="fetch")
def own(context, word):
    return word
"""
)
REASON = "the queue is paused; to go on: paise2 resume"


def run(app: App, *words: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "paise2nb", *words, "--data-dir", str(app.data_dir)]
    return subprocess.run(command, capture_output=True, text=True, check=False, timeout=60)


def test_running_jobs_go_on_in_a_pause_and_the_others_wait_until_it_ends(
    waiting: App, tmp_path: Path
) -> None:
    waiting.workers.start(concurrency=1)
    try:
        go = tmp_path / "go"
        running = waiting.enqueue("hold", str(go))
        until(lambda: running.state == "running")
        assert waiting.pause().to_dict() == {"paused": REASON, "paused_pools": {}}
        others = waiting.enqueue_many("echo", ["a", "b"])
        go.touch()
        assert running.result(timeout=30) == "released"
        with pytest.raises(WorkersError, match=f"2 jobs wait, and {REASON}"):
            waiting.wait()
        waiting.workers.restart()
        assert waiting.status().jobs["queued"] == 2
        waiting.resume()
        assert [job.result(timeout=30) for job in others] == ["a", "b"]
    finally:
        waiting.workers.stop(timeout=0)


def test_a_paused_pool_claims_nothing_and_other_pools_go_on(waiting: App) -> None:
    waiting.workers.start(concurrency=1)
    try:
        waiting.pause("fetch")
        held, other = waiting.enqueue("own", "x"), waiting.enqueue("echo", "y")
        assert other.result(timeout=30) == "y"
        reason = "pool fetch is paused; to go on: paise2 resume fetch"
        with pytest.raises(WorkersError, match=f"1 job waits, and {reason}"):
            waiting.wait()
        with pytest.raises(Timeout, match=reason):
            held.wait(timeout=0.01)
        assert waiting.status().to_dict()["paused_pools"] == {"fetch": reason}
        assert waiting.status().to_dict()["paused"] is None
        assert waiting.resume("fetch").to_dict() == {"paused": None, "paused_pools": {}}
        assert held.result(timeout=30) == "x"
    finally:
        waiting.workers.stop(timeout=0)


def test_no_claim_succeeds_once_a_pause_is_written(waiting: App) -> None:
    store, limits = waiting.queue.job_store, waiting.parts.limits()
    worker = store.register("fetch", 1, "ready")
    waiting.enqueue_many("own", ["a", "b", "c"])
    first = store.claim(worker, limits)
    assert first is not None
    for pool in ("", "fetch"):
        store.pause(pool)
        assert store.claim(worker, limits) is None
        store.resume(pool)
    store.pause("default")
    assert store.claim(worker, limits) is not None
    assert waiting.status().jobs["running"] == 2


def test_a_pause_ends_only_the_pauses_that_are_named(waiting: App) -> None:
    waiting.pause()
    waiting.pause("fetch")
    waiting.pause("default")
    waiting.resume("fetch")
    assert waiting.workers.pauses().paused == REASON
    assert list(waiting.workers.pauses().paused_pools) == ["default"]
    assert str(waiting.resume()) == "nothing is paused"
    with pytest.raises(UsageError, match="unknown pool 'nowhere'; known: default, fetch"):
        waiting.pause("nowhere")


def test_jobs_wait_in_immediate_mode_too_and_run_after_the_pause(app: App) -> None:
    app.pause()
    job = app.enqueue("echo", "later")
    assert job.state == "queued"
    with pytest.raises(WorkersError, match=REASON):
        app.wait()
    app.resume()
    app.wait()
    assert job.result() == "later"


def test_a_job_of_a_paused_pool_waits_in_immediate_mode(make: Make) -> None:
    app = make(workers__pools={"fetch": {"tasks": ["own"], "processes": 1}})
    app.pause("fetch")
    assert app.enqueue("own", "x").state == "queued"
    assert app.enqueue("echo", "y").state == "completed"


def test_every_view_shows_a_pause(waiting: App) -> None:
    waiting.pause()
    waiting.pause("fetch")
    both = f"{REASON}; pool fetch is paused; to go on: paise2 resume fetch"
    assert f"paused   {both}" in str(waiting.status())
    assert str(waiting.status()).count(REASON) == 1
    assert waiting.workers.status().problem == both
    assert both in waiting.screen()
    assert in_cell_words(both) in state(waiting, waiting.status())["problems"]


def test_a_burst_is_refused_while_jobs_can_not_start(waiting: App) -> None:
    waiting.pause("fetch")
    with pytest.raises(WorkersError, match="a burst would not end: pool fetch is paused"):
        waiting.workers.start(burst=True)


def test_the_commands_pause_and_resume_the_queue_of_a_data_directory(waiting: App) -> None:
    done = run(waiting, "pause")
    assert (done.returncode, done.stdout.strip()) == (0, REASON)
    assert REASON in run(waiting, "enqueue", "cleanup").stderr
    asked = run(waiting, "wait")
    assert asked.returncode == 1
    assert f"1 job waits, and {REASON}" in asked.stderr
    assert run(waiting, "resume").stdout.strip() == "nothing is paused"
    assert "unknown pool" in run(waiting, "pause", "nowhere").stderr
