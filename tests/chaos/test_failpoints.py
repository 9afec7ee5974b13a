"""A process exits before, inside or after each kind of transaction."""

from __future__ import annotations

import os
import signal
import subprocess
import time
from pathlib import Path

from tests.chaos import failpoints
from tests.chaos.environment import PLUGIN, Environment
from tests.chaos.scenarios import Scale, scenario
from tests.waiting import until

MOMENTS = ("before", "inside", "after")
PLUGINS = [str(PLUGIN), str(Path(failpoints.__file__))]
WHILE_STARTING = ("heartbeat",)
WHILE_WORKING = ("claim", "end.completed", "end.retrying", "end.failed")


def batch(environment: Environment, number: int) -> set[str]:
    """Enqueue jobs with every outcome, some for later; returns the effects to expect."""
    app = environment.app
    names = {f"{number}-{index}" for index in range(6)}
    app.enqueue_many("tree", [f"tree {name}" for name in names])
    app.enqueue_many("threaded", [f"threaded {name}" for name in names])
    app.enqueue_many("flaky", [f"flaky {name}" for name in names])
    app.enqueue_many("broken", [f"broken {name}" for name in names])
    app.enqueue_many("effect", [f"later {name}" for name in names], delay=0.2)
    expected = {f"{kind} {name}" for kind in ("flaky", "broken", "later") for name in names}
    trees = {f"{kind} {name}" for kind in ("tree", "threaded") for name in names}
    return expected | trees | {f"{tree}/leaf" for tree in trees}


@scenario(3, "workers exit around a commit", short={"rounds": 1}, full={"rounds": 20}, seeds=3)
def test_a_worker_that_exits_around_a_commit_leaves_no_partial_change(
    environment: Environment, scale: Scale
) -> None:
    app = environment.open(plugins=PLUGINS)
    expected: set[str] = set()
    batches = fired = 0
    for round_number in range(int(scale["rounds"])):
        fired_points = environment.root / f"points-{round_number}"
        points = [f"{kind}:{moment}:1" for kind in WHILE_STARTING for moment in MOMENTS]
        points += [
            f"{kind}:{moment}:{environment.random.randint(1, 4 if kind != 'end.failed' else 2)}"
            for kind in WHILE_WORKING
            for moment in MOMENTS
        ]
        with environment.variables(**failpoints.variables(fired_points, points)):
            subprocess.Popen(
                environment.program("app.workers.start(foreground=True)"),
                start_new_session=True, stdout=subprocess.DEVNULL,
            )  # fmt: skip
        deadline = time.monotonic() + 60 * environment.tolerance
        while missing := set(points) - set(os.listdir(fired_points)):
            assert time.monotonic() < deadline, f"not reached: {missing}"
            if environment.job_store.busy() < 20:
                expected |= batch(environment, batches)
                batches += 1
            environment.check_counts()
            time.sleep(0.01)
        fired += len(points)
        app.wait(timeout=60 * environment.tolerance)
        until(lambda: environment.job_store.next_time() is None)
        app.wait(timeout=60)
        environment.check()
        app.workers.stop(timeout=30)
        environment.check()
    check_ends(environment, expected)
    environment.figures["points"] = fired


def check_ends(environment: Environment, expected: set[str]) -> None:
    """Check that every effect is there, "broken" jobs have failed and all others completed."""
    wrong = environment.rows(
        "SELECT * FROM jobs WHERE state != iif(task = 'broken', 'failed', 'completed')"
    )
    assert not [dict(row) for row in wrong]
    lost = expected - environment.effects().keys()
    jobs = environment.rows(
        "SELECT count(*) - count(DISTINCT task || args) AS duplicates FROM jobs"
    )
    environment.figures |= {"lost": len(lost), "duplicates": jobs[0]["duplicates"]}
    assert not lost
    assert not jobs[0]["duplicates"]


@scenario(3, "supervisors exit around a commit", short={"points": 4}, full={"points": 60}, seeds=3)
def test_after_a_supervisor_exits_around_a_commit_another_takes_over(
    environment: Environment, scale: Scale
) -> None:
    app = environment.open(plugins=PLUGINS)
    kinds = ("rescue_jobs", "take_supervision", "leave_supervision", "set_supervisor")
    expected: set[str] = set()
    for number in range(int(scale["points"])):
        name, moment = kinds[number % len(kinds)], environment.random.choice(MOMENTS)
        fired_points = environment.root / f"points-{number}"
        with environment.variables(**failpoints.variables(fired_points, [f"{name}:{moment}:1"])):
            supervisor = subprocess.Popen(
                environment.program("app.workers.start(foreground=True)"), start_new_session=True,
                stdout=subprocess.DEVNULL,
            )  # fmt: skip
        go = environment.root / f"go {number}"
        if name == "rescue_jobs":
            job = app.enqueue("hold", f"held {number}", str(go))
            until(lambda job=job: job.state == "running")
            os.kill(job.worker_pid, signal.SIGKILL)
            expected |= {f"held {number}", f"held {number}/leaf"}
        elif name == "leave_supervision":
            until(lambda pid=supervisor.pid: (environment.supervisor() or "").startswith(f"{pid}-"))
            until(lambda: len(environment.workers(ready=True)) >= 2)
            supervisor.send_signal(signal.SIGTERM)
        assert supervisor.wait(60) == failpoints.STATUS, f"{name}:{moment}"
        environment.check_counts()
        go.touch()
    app.workers.start()
    app.wait(timeout=60)
    environment.check()
    check_ends(environment, expected)
    environment.figures["points"] = scale["points"]


USER_COMMANDS = {
    "add": "app.enqueue_many('effect', [f'{sys.argv[1]} {n}' for n in range(10)])",
    "cancel": "app.jobs(tag='old').cancel()",
    "retry": "app.jobs(state='failed').retry()",
    "prune_jobs": "app.queue.job_store.prune(app.queue.job_store.now() + 1)",
}


@scenario(3, "users exit around a commit", short={"rounds": 1}, full={"rounds": 20}, seeds=3)
def test_a_command_that_exits_around_a_commit_has_done_all_or_nothing(
    environment: Environment, scale: Scale
) -> None:
    app = environment.open(plugins=PLUGINS)
    fired = 0
    for round_number in range(int(scale["rounds"])):
        for kind, text in USER_COMMANDS.items():
            moment = environment.random.choice(MOMENTS)
            environment.job_store.clear()
            app.enqueue_many("effect", [f"old {n}" for n in range(10)], tag="old")
            if kind in ("retry", "prune_jobs"):
                with_state = "UPDATE jobs SET state = 'failed', ready = 0, finished_at = 1"
                environment.job_store.database.write(lambda c, sql=with_state: c.execute(sql))
                counts = (
                    "UPDATE counters SET jobs = 10 * (name = 'failed'), roots = jobs WHERE kind"
                )
                late = "UPDATE counters SET jobs = (SELECT last FROM ids) WHERE kind = 'id'"
                for sql in (f"{counts} = 'state'", "UPDATE counters SET roots = jobs", late):
                    environment.job_store.database.write(lambda c, sql=sql: c.execute(sql))
            before = environment.rows("SELECT state FROM jobs ORDER BY id")
            fired_points = environment.root / f"points-{round_number}-{kind}"
            with environment.variables(
                **failpoints.variables(fired_points, [f"{kind}:{moment}:1"])
            ):
                ended = subprocess.run(environment.program(text, kind), timeout=120, check=False)
            assert ended.returncode == failpoints.STATUS
            fired += 1
            after = environment.rows("SELECT state FROM jobs ORDER BY id")
            changed = {
                "add": [*before, *([("queued",)] * 10)],
                "cancel": [("cancelled",)] * 10,
                "retry": [("queued",)] * 10,
                "prune_jobs": [],
            }[kind]
            wanted = changed if moment == "after" else before
            assert [tuple(row) for row in after] == [tuple(row) for row in wanted], (kind, moment)
            environment.check_counts()
    environment.figures["points"] = fired
