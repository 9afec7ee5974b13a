"""Workers as real processes: started, killed, drained, scaled by pools, and found again."""

from __future__ import annotations

import json
import os
import random
import re
import signal
import threading
from collections import Counter
from contextlib import suppress
from typing import Any

import pytest

import paise2nb
from paise2nb import App
from tests.acceptance.support import SECONDS, Place, Shell, Site, alive, page, until

WORKER = {"pool", "pid", "state", "jobs", "started_at", "heartbeat_at", "error"}


def workers(shell: Shell) -> list[dict[str, Any]]:
    """The workers, as the command lists them."""
    found: list[dict[str, Any]] = shell("worker", "status", "--json").json["workers"]
    return found


# Starting and stopping -------------------------------------------------------------------------


def test_workers_start_work_and_stop(table: Place, shell: Shell) -> None:
    started = shell("worker", "start", "--daemonize")
    assert (started.status, started.stderr) == (0, "")
    found = shell("worker", "status", "--json").json
    [worker] = found["workers"]
    assert set(worker) >= WORKER
    assert (worker["pool"], worker["state"], worker["jobs"]) == ("default", "idle", [])
    assert set(found["supervisor"]) >= {"pid", "started_at"}
    assert (alive(worker["pid"]), alive(found["supervisor"]["pid"])) == (True, True)
    assert shell("workers", "start", "--daemonize").status == 0
    assert [row["pid"] for row in workers(shell)] == [worker["pid"]]
    shell("enqueue", "fetch", "page.md", "--tag", "t")
    assert shell("wait", "--timeout", str(SECONDS)).status == 0
    status = shell("status", "--json").json
    assert (status["items"], status["roots"]["completed"]) == (1, 1)
    assert shell("worker", "logs").stdout
    assert shell("worker", "stop").status == 0
    assert workers(shell) == []
    until(lambda: not alive(found["supervisor"]["pid"]))
    assert shell("worker", "stop").status == 0


def test_a_restart_takes_settings_and_plugins_as_they_are_now(
    place: Place, shell: Shell, app: App
) -> None:
    shell("worker", "start", "--daemonize")
    before = {row["pid"] for row in workers(shell)}
    assert app.enqueue("shout", "hello you").result(timeout=SECONDS) == "HELLO YOU"
    assert shell("worker", "status", "--json").json["problem"] is None
    place.plugin.write_text(place.plugin.read_text().replace("upper()", "title()"))
    place.settings.write_text(place.settings.read_text() + "history: {keep_days: 7}\n")
    assert "paise2 worker restart" in shell("worker", "status", "--json").json["problem"]
    assert shell("worker", "restart").status == 0
    assert not before & {row["pid"] for row in workers(shell)}
    assert shell("worker", "status", "--json").json["problem"] is None
    assert app.enqueue("shout", "hello us").result(timeout=SECONDS) == "Hello Us"


def test_a_start_takes_the_number_of_its_processes(shell: Shell) -> None:
    assert shell("worker", "start", "--daemonize", "--concurrency", "3").status == 0
    assert [row["pool"] for row in workers(shell)] == ["default"] * 3


def test_a_log_is_followed_until_an_interrupt(app: App, shell: Shell) -> None:
    app.workers.start()
    following = shell.start("worker", "logs", "--follow")
    assert following.stdout is not None
    limit = threading.Timer(SECONDS, following.kill)
    limit.start()
    assert following.stdout.readline()  # what is there is shown, and more is waited for
    app.enqueue("say", "added since").wait(timeout=SECONDS)
    assert any("logged added since" in line for line in following.stdout)
    limit.cancel()
    following.send_signal(signal.SIGINT)
    following.communicate(timeout=SECONDS)
    assert following.returncode == 130


def test_a_foreground_start_ends_when_all_is_done(shell: Shell) -> None:
    shell("enqueue", "shout", "a", "b")
    done = shell("worker", "start", "--burst")
    assert done.status == 0, done.stderr
    assert shell("job", "2", "--json").json["result"] == "B"


def test_an_interrupt_drains_a_foreground_start(place: Place, shell: Shell, app: App) -> None:
    gate = place.root / "gate"
    job = app.enqueue("hold", str(gate))
    running = shell.start("worker", "start", start_new_session=True)
    until(lambda: job.state == "running")
    running.send_signal(signal.SIGINT)
    gate.touch()
    running.communicate(timeout=SECONDS)
    assert running.returncode in (0, 130)
    assert job.state == "completed"


def test_workers_have_the_environment_and_outlive_the_process_that_started_them(
    app: App, shell: Shell
) -> None:
    assert shell("worker", "start", "--daemonize", env={"ACCEPTANCE": "seen"}).status == 0
    pid, variable = app.enqueue("pid").result(timeout=SECONDS)
    assert pid == app.workers.status().workers[0]["pid"]
    assert variable == "seen"


def test_a_stop_lets_a_job_finish_and_puts_one_that_does_not_back_uncharged(
    app: App, place: Place, shell: Shell
) -> None:
    app.workers.start(concurrency=2)
    gate = place.root / "gate"
    short, long = app.enqueue_many("hold", [str(gate), str(place.root / "never")])
    until(lambda: app.status().jobs["running"] == 2)
    stopping = shell.start("worker", "stop", "--timeout", "3")
    until(lambda: any(row["state"] == "stopping" for row in app.workers.status().workers))
    gate.touch()
    stopping.communicate(timeout=SECONDS)
    assert stopping.returncode == 0
    assert short.state == "completed"
    assert (long.state, long.attempt) == ("queued", 0)
    assert [attempt["outcome"] for attempt in long.attempts] == ["released"]
    assert app.workers.status().workers == []


def test_a_start_that_fails_says_why(place: Place, shell: Shell) -> None:
    with paise2nb.open("development") as app:
        text = place.plugin.read_text()
        place.plugin.write_text("import not_there_at_all")
        with pytest.raises(paise2nb.WorkersError, match="not_there_at_all"):
            app.workers.start()
        place.plugin.write_text(text)
        app.workers.stop(timeout=0)
        app.workers.start()
        assert app.enqueue("shout", "on").result(timeout=SECONDS) == "ON"


def test_simultaneous_starts_leave_one_supervisor(shell: Shell) -> None:
    starts = [shell.start("worker", "start", "--daemonize", "--json") for _ in range(4)]
    said = [start.communicate(timeout=SECONDS)[0] for start in starts]
    assert [start.returncode for start in starts] == [0] * 4
    assert len({json.loads(text)["supervisor"]["pid"] for text in said}) == 1
    assert len(workers(shell)) == 1


def test_idle_workers_leave_and_an_enqueue_brings_them_back(place: Place) -> None:
    with paise2nb.open("development", settings={"workers.idle_exit": 0.3}) as app:
        app.workers.start()
        until(lambda: not app.workers.status().workers)
        assert app.enqueue("shout", "back").result(timeout=SECONDS) == "BACK"
        app.workers.stop()
        app.enqueue("shout", "nobody")
        assert app.workers.status().workers == []


def test_a_delayed_job_runs_when_it_is_due_and_a_retry_when_its_time_has_come(
    app: App, place: Place
) -> None:
    app.workers.start()
    assert app.enqueue("shout", "later", delay=0.2).result(timeout=SECONDS) == "LATER"
    tries = place.root / "tries"
    assert app.enqueue("flaky", str(tries), 1).result(timeout=SECONDS) == "done"
    job = app.enqueue("late", "tide")
    until(lambda: job.state == "retrying")
    assert app.status().next_retry_at == job.run_at
    assert job.attempts[0]["retry_in"] > 0
    job.retry()
    until(lambda: job.state == "retrying" and len(job.attempts) == 2)
    job.cancel()
    assert job.state == "cancelled"


def test_a_job_that_runs_says_how_far_it_is_and_who_runs_it(app: App, place: Place) -> None:
    app.workers.start()
    gate = place.root / "gate"
    job = app.enqueue("steps", str(gate))
    until(lambda: re.search(r"\b3\b\D+\b10\b", str(job)))
    [worker] = app.workers.status().workers
    assert (worker["jobs"], worker["state"]) == ([job.id], "busy")
    assert job.worker_pid == worker["pid"]
    gate.touch()
    job.wait(timeout=SECONDS)


def test_what_a_task_logs_can_be_read(app: App, shell: Shell) -> None:
    app.workers.start()
    app.enqueue("say", "a word of its own").wait(timeout=SECONDS)
    assert "logged a word of its own" in shell("worker", "logs", "-n", "100").stdout


def test_a_job_that_recurs_runs_again_and_again_until_it_is_cancelled(
    app: App, place: Place
) -> None:
    app.workers.start()
    path = place.root / "runs"
    path.touch()
    job = app.enqueue("order", str(path), "ran", every=1)
    until(lambda: len(path.read_text().split()) >= 2)
    assert (job.cancel().ids, job.state) == ([job.id], "cancelled")
    assert len(app.jobs()) == 1
    before = len(path.read_text().split())
    job.retry()
    until(lambda: len(path.read_text().split()) > before)
    job.cancel()


def test_a_page_waits_for_its_turn_at_a_host_and_says_so(place: Place, site: Site) -> None:
    urls = [site.add(path, page(path, "Words.")) for path in ("/a", "/b")]
    with paise2nb.open("development", settings={"fetch.host_delay": 600}) as app:
        jobs = app.enqueue_many("fetch", urls)
        app.workers.start()
        until(lambda: len(app.items()) == 1)
        [waiting] = [job for job in jobs if job.state == "queued"]
        assert "127.0.0.1" in waiting.waiting_for
        assert (waiting.attempt, site.visits.total()) == (0, 1)
        assert app.enqueue("shout", "beside").result(timeout=SECONDS) == "BESIDE"


def test_processes_that_enqueue_at_once_lose_nothing(app: App, shell: Shell) -> None:
    app.workers.start()
    words = [[f"{process}-{number}" for number in range(50)] for process in range(4)]
    running = [shell.start("enqueue", "shout", *some) for some in words]
    for process in running:
        process.communicate(timeout=SECONDS)
    assert [process.returncode for process in running] == [0] * 4
    app.wait(timeout=SECONDS)
    expected = {word.upper() for some in words for word in some}
    assert {job.result() for job in app.jobs()} == expected
    assert app.status().jobs["completed"] == len(expected)


# Pools -----------------------------------------------------------------------------------------


def test_a_pool_of_threads_runs_several_jobs_in_one_process(place: Place) -> None:
    settings = {"workers.pools": {"many": {"tasks": ["hold"], "processes": 1, "threads": 3}}}
    with paise2nb.open("development", settings=settings) as app:
        found = app.workers.start()
        assert sorted(row["pool"] for row in found.workers) == ["default", "many"]
        jobs = app.enqueue_many("hold", [str(place.root / name) for name in "abc"])
        until(lambda: app.status().jobs["running"] == 3)
        assert len({job.worker_pid for job in jobs}) == 1
        assert app.enqueue("shout", "beside").result(timeout=SECONDS) == "BESIDE"
        jobs.cancel()


def test_a_job_that_kills_a_process_of_threads_leaves_the_others_uncharged(place: Place) -> None:
    settings = {"workers.pools": {"many": {"tasks": ["hold", "die"], "threads": 4}}}
    with paise2nb.open("development", settings=settings) as app:
        app.workers.start(pool="many")
        gate = place.root / "gate"
        neighbour = app.enqueue("hold", str(gate))
        until(lambda: neighbour.state == "running")
        guilty = app.enqueue("die", "exit")
        until(lambda: neighbour.attempts)
        gate.touch()
        app.wait(timeout=SECONDS)
        assert (neighbour.result(), neighbour.attempt) == ("released", 1)
        assert {one["outcome"] for one in neighbour.attempts} == {"released", "completed"}
        assert guilty.state == "failed"
        charged = [one["outcome"] for one in guilty.attempts if one["outcome"] != "released"]
        assert charged == ["crashed"] * 3


def test_a_pool_starts_alone_and_jobs_of_another_say_which_command_helps(
    place: Place, shell: Shell
) -> None:
    place.settings.write_text(
        place.settings.read_text().replace("fetch: null", "own: {tasks: [add]}")
    )
    assert shell("worker", "start", "--daemonize", "--pool", "own").status == 0
    assert [row["pool"] for row in workers(shell)] == ["own"]
    added = shell("enqueue", "shout", "a")
    assert "paise2 worker start --pool default" in added.stderr
    assert shell("worker", "start", "--daemonize", "--pool", "default").status == 0
    assert sorted(row["pool"] for row in workers(shell)) == ["default", "own"]
    assert shell("wait", "1", "--timeout", str(SECONDS)).status == 0


# What goes wrong -------------------------------------------------------------------------------


def test_the_job_of_a_killed_worker_comes_back(app: App, place: Place, shell: Shell) -> None:
    app.workers.start()
    gate = place.root / "gate"
    job = app.enqueue("hold", str(gate))
    until(lambda: job.state == "running")
    [worker] = workers(shell)
    assert worker["jobs"] == [job.id]
    os.kill(worker["pid"], signal.SIGKILL)
    until(lambda: job.attempts)
    gate.touch()
    assert job.result(timeout=SECONDS) == "released"
    assert [attempt["outcome"] for attempt in job.attempts] == ["crashed", "completed"]
    assert job.attempts[0]["error_class"] == "crash"
    assert job.attempts[0]["worker_pid"] == worker["pid"] != job.attempts[1]["worker_pid"]


@pytest.mark.parametrize("how", ["exit", "segfault"])
def test_a_job_that_kills_its_worker_is_given_up_and_its_neighbours_are_not_charged(
    app: App, how: str
) -> None:
    app.workers.start()
    job = app.enqueue("die", how)
    neighbours = app.enqueue_many("shout", [str(number) for number in range(20)])
    app.wait(timeout=SECONDS)
    assert (job.state, job.error_class) == ("failed", "crash")
    assert [attempt["outcome"] for attempt in job.attempts] == ["crashed"] * 3
    assert {(one.state, one.attempt) for one in neighbours} == {("completed", 1)}


@pytest.mark.parametrize(("task", "outcome"), [("stuck", "timeout"), ("hungry", "memory")])
def test_a_job_past_its_limit_is_ended_and_says_why(app: App, task: str, outcome: str) -> None:
    app.workers.start()
    job = app.enqueue(task)
    app.wait(timeout=SECONDS)
    assert job.state == "failed"
    assert {attempt["outcome"] for attempt in job.attempts} == {outcome}
    assert outcome in job.error
    assert app.enqueue("shout", "next").result(timeout=SECONDS) == "NEXT"


def test_a_cancelled_job_is_ended_and_its_worker_replaced(app: App, place: Place) -> None:
    app.workers.start()
    job = app.enqueue("hold", str(place.root / "never"))
    until(lambda: job.state == "running")
    pid = job.worker_pid
    job.cancel()
    assert job.state == "cancelled"
    until(lambda: not alive(pid))
    assert app.enqueue("shout", "next").result(timeout=SECONDS) == "NEXT"
    assert [attempt["outcome"] for attempt in job.attempts] == ["cancelled"]


def test_a_job_can_see_that_it_is_cancelled_and_end_by_itself(place: Place) -> None:
    with paise2nb.open("development", settings={"workers.cancel_grace": 60}) as app:
        app.workers.start()
        seen = place.root / "seen"
        job = app.enqueue("patient", str(seen))
        until(lambda: job.state == "running")
        pid = job.worker_pid
        job.cancel()
        until(seen.exists)
        assert app.enqueue("pid").result(timeout=SECONDS)[0] == pid
        assert job.state == "cancelled"


def test_when_supervisor_and_workers_are_killed_a_new_start_takes_their_jobs_back(
    app: App, place: Place, shell: Shell
) -> None:
    found = app.workers.start()
    gate = place.root / "gate"
    job = app.enqueue("hold", str(gate))
    until(lambda: job.state == "running")
    assert found.supervisor is not None
    for pid in (found.supervisor["pid"], *(row["pid"] for row in found.workers)):
        os.kill(pid, signal.SIGKILL)
    until(lambda: not workers(shell))
    gate.touch()
    assert shell("worker", "start", "--daemonize").status == 0
    assert job.result(timeout=SECONDS) == "released"


def test_a_reset_is_refused_while_workers_run(app: App, shell: Shell) -> None:
    app.workers.start()
    refused = shell("reset", "--yes")
    assert (refused.status, refused.stderr.count("\n")) == (1, 1)
    assert "paise2 worker stop" in refused.stderr


def test_nothing_is_lost_or_done_twice_when_workers_are_killed_at_random(
    place: Place, site: Site
) -> None:
    pages = [
        site.add(f"/{number}", page(f"Page {number}", f"All about number{number}."))
        for number in range(100)
    ]
    settings = {
        "workers.concurrency": 2,
        # No number of kills is too many for a job that is not to blame.
        "workers.retry.policies": {"crash": {"max_retries": 100, "retry_delay": 0.01}},
    }
    with paise2nb.open("development", settings=settings) as app:
        # A hundred pages are 300 jobs; each stored effect of a hundred parents is one follow-up.
        fetches = app.enqueue_many("fetch", pages)
        parents = app.enqueue_many("parent", [f"word {number}" for number in range(100)])
        app.workers.start()
        chance = random.Random(7)
        killed = 0
        for completed in range(20, 480, 20):
            until(lambda completed=completed: app.status().jobs["completed"] >= completed)  # type: ignore[misc]
            running = until(lambda: app.workers.status().workers)
            with suppress(ProcessLookupError):
                os.kill(chance.choice(running)["pid"], signal.SIGKILL)
                killed += 1
        app.wait(timeout=SECONDS)
        assert killed >= 10
        assert {job.state for job in (*fetches, *parents)} == {"completed"}
        assert sorted(item.url for item in app.items()) == sorted(pages)
        assert [len(app.search(f"number{number}")) for number in range(100)] == [1] * 100
        children = [job.children for job in parents]
        assert [len(found) for found in children] == [1] * 100
        assert Counter(found[0].result() for found in children) == Counter(
            f"WORD {number}" for number in range(100)
        )
        assert app.status().jobs["completed"] == 300 + 200
