"""Jobs that crash their process or exceed their limits, and workers that can't start."""

from __future__ import annotations

import time

import pytest

from paise2nb.core.errors import WorkersError
from tests.chaos.environment import PLUGIN, Environment
from tests.chaos.scenarios import Scale, scenario
from tests.waiting import until

OUTCOMES = {"exit": "crashed", "segfault": "crashed", "memory": "memory"}
# Three crashes in all, as by default, but without the delay between them.
SHIPPED = {"crash": {"max_retries": 2, "retry_delay": 0.01}}


@scenario(
    5, "crashing jobs in separate processes", short={"neighbours": 100}, full={"neighbours": 100}
)
def test_a_crashing_job_fails_after_three_crashes_and_no_other_job_is_charged(
    environment: Environment, scale: Scale
) -> None:
    app = environment.open(workers__retry__policies=SHIPPED)
    app.workers.start()
    keys = [str(number) for number in range(int(scale["neighbours"]))]
    app.enqueue_many("effect", keys[::2])
    guilty = {how: app.enqueue("die", how) for how in OUTCOMES}
    app.enqueue_many("effect", keys[1::2])
    app.wait(timeout=120)
    for how, job in guilty.items():
        assert job.state == "failed"
        assert [a["outcome"] for a in job.attempts] == [OUTCOMES[how]] * 3
        assert job.error
    check_neighbours(environment, set(keys))


@scenario(
    5,
    "crashing jobs among 16 threads",
    short={"neighbours": 100},
    full={"neighbours": 100},
    seeds=3,
)
def test_a_crashing_job_among_threads_fails_after_three_crashes_alone(
    environment: Environment, scale: Scale
) -> None:
    app = environment.open(workers__retry__policies=SHIPPED)
    go = environment.root / "go"
    keys = [str(number) for number in range(int(scale["neighbours"]))]
    app.enqueue_many("thread_hold", [(key, str(go)) for key in keys[:13]])
    guilty = {how: app.enqueue("thread_die", how, str(go)) for how in OUTCOMES}
    app.enqueue_many("thread_hold", [(key, str(go)) for key in keys[13:]])
    app.workers.start(concurrency=1)
    until(lambda: app.status().jobs["running"] == 16)
    go.touch()
    app.wait(timeout=120)
    for how, job in guilty.items():
        charged = [a["outcome"] for a in job.attempts if a["outcome"] != "released"]
        assert (job.state, charged) == ("failed", [OUTCOMES[how]] * 3)
    check_neighbours(environment, set(keys))


def check_neighbours(environment: Environment, keys: set[str]) -> None:
    environment.check()
    rows = environment.rows(
        "SELECT state, attempt, crashes FROM jobs WHERE task NOT IN ('die', 'thread_die')"
    )
    uncharged = [tuple(row) for row in rows].count(("completed", 1, 0))
    environment.figures |= {
        "neighbours uncharged": uncharged,
        "lost": len(keys - environment.effects().keys()),
    }
    assert uncharged == len(keys)
    assert environment.effects().keys() == keys


@scenario(17, "workers that can't start", short={"seconds": 6}, full={"seconds": 60})
def test_workers_that_can_not_start_are_tried_eight_times_a_minute_and_status_shows_why(
    environment: Environment, scale: Scale
) -> None:
    app = environment.open()
    plugin, starts = environment.root / "broken.py", environment.root / "starts"
    plugin.write_text("")
    app = environment.open(plugins=[str(PLUGIN), str(plugin)])
    plugin.write_text(
        f"with open({str(starts)!r}, 'a') as file: file.write('x')\nimport not_there_at_all\n"
    )
    began = time.monotonic()
    with pytest.raises(WorkersError, match="not_there_at_all"):
        app.workers.start()
    job = app.enqueue("effect", "waits")
    until(lambda: starts.read_text().count("x") >= 8)
    until(lambda: time.monotonic() - began >= scale["seconds"])
    environment.figures["starts in a minute"] = starts.read_text().count("x")
    assert starts.read_text().count("x") == 8
    found = app.status()
    assert "not_there_at_all" in found.problem
    assert "not_there_at_all" in str(found)
    assert job.state == "queued"
    plugin.write_text("")
    app.workers.restart()
    job.wait(timeout=60)
    assert app.status().problem is None
    environment.check()


@scenario(18, "jobs that exceed their limits", short={"rounds": 1}, full={"rounds": 20})
def test_a_job_that_exceeds_its_limit_is_killed_on_time_and_the_next_one_starts(
    environment: Environment, scale: Scale
) -> None:
    limits(environment, scale, "default")


@scenario(
    18, "jobs that exceed their limits, among threads", short={"rounds": 1}, full={"rounds": 20}
)
def test_a_job_that_exceeds_its_limit_is_killed_on_time_among_threads(
    environment: Environment, scale: Scale
) -> None:
    limits(environment, scale, "many")


def limits(environment: Environment, scale: Scale, pool: str) -> None:
    app = environment.open(workers__retry__policies={"crash": {"max_retries": 0, "retry_delay": 0}})
    app.workers.start(pool=pool, concurrency=1)
    name, after = ("stick", "hold") if pool == "default" else ("thread_stick", "thread_hold")
    late, pauses = [], []
    for round_number in range(int(scale["rounds"])):
        for how in ("sleep", "regex", "memory"):
            # Without a timeout, which it may exceed first if the machine is busy.
            task = name.replace("stick", "grow") if how == "memory" else name
            job = app.enqueue(task, how, tag=str(round_number), force=True)
            until(lambda job=job: job.state == "running")
            following = app.enqueue(after, f"{round_number} {how}", "/")
            until(lambda job=job: job.state == "failed")
            following.wait(timeout=60)
            [attempt] = environment.rows(
                # Among threads it may first be released with the job that started beside it.
                "SELECT * FROM attempts WHERE job_id = ? AND outcome != 'released'",
                job.id,
            )
            outcome = "memory" if how == "memory" else "timeout"
            assert (attempt["outcome"], attempt["error_class"]) == (outcome, outcome)
            assert attempt["error"].startswith(f"{outcome}: ")
            if outcome == "timeout":
                late.append(attempt["finished_at"] - attempt["started_at"] - 1)
            [started] = environment.rows("SELECT started_at FROM jobs WHERE id = ?", following.id)
            pauses.append(started["started_at"] - attempt["finished_at"])
    environment.check()
    environment.within(max(late), 1, "killed after the deadline")
    environment.within(max(pauses), 2, "pause until the next job")
