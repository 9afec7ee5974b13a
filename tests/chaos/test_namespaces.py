"""Workers in containers: seen from elsewhere, killed while they drain, and their data copied."""

from __future__ import annotations

import fcntl
import subprocess
import time

import paise2nb
from paise2nb.app import App
from paise2nb.jobs.worker_registry import LEASE_SECONDS
from tests.chaos.environment import Environment
from tests.chaos.scenarios import Scale, scenario
from tests.namespaces import Container, run_in_namespace
from tests.waiting import until

WORKERS = "app.workers.start(concurrency=2, foreground=True)"
COMMANDS = {  # and whether they are refused
    "app.status().to_dict(), app.jobs().to_dicts(), app.workers.status().to_dict()": False,
    "app.enqueue('effect', sys.argv[1])": False,
    "app.workers.start()": True,
    "app.workers.stop(timeout=0)": True,
}
FORK = """
import threading, time
stop = threading.Event()
def write():
    number = 0
    while not stop.is_set():
        app.enqueue("effect", f"{sys.argv[1]} thread {number}")
        number += 1
    print(number)
writer = threading.Thread(target=write)
writer.start()
hung = 0
for number in range(int(sys.argv[2])):
    if os.fork() == 0:
        signal.alarm(10)
        app.enqueue("effect", f"{sys.argv[1]} child {number}")
        os._exit(0)
    hung += os.waitstatus_to_exitcode(os.wait()[1]) != 0
stop.set()
writer.join()
print(hung)
"""


@scenario(23, "commands in other pid namespaces", short={"rounds": 1}, full={"rounds": 50})
def test_commands_in_another_pid_namespace_do_not_harm_workers(
    environment: Environment, scale: Scale
) -> None:
    app = environment.open()
    expected: set[str] = set()
    with Container(environment.program(WORKERS), stderr=subprocess.DEVNULL):
        for number in range(int(scale["rounds"])):
            go = environment.root / f"go {number}"
            keys = [f"{number} {name}" for name in "ab"]
            expected |= {*keys, *(f"{key}/leaf" for key in keys), f"enqueued {number}"}
            jobs = [app.enqueue("hold", key, str(go)) for key in keys]
            until(lambda jobs=jobs: all(job.state == "running" for job in jobs))
            for command, refused in COMMANDS.items():
                done = run_in_namespace(environment.program(command, f"enqueued {number}"))
                assert bool(done.returncode) is refused, done.stderr
                assert ("in another container" in done.stderr) is refused
            assert app.workers.present()
            assert [(job.state, job.attempts) for job in jobs] == [("running", [])] * 2
            go.touch()
            app.wait(timeout=60)
        environment.figures["commands"] = len(COMMANDS) * int(scale["rounds"])
    forget_heartbeats(environment)
    environment.check_all_done(expected)


@scenario(
    24,
    "SIGKILL in the middle of a drain, then a new container",
    short={"rounds": 2, "lease": 0},
    full={"rounds": 20, "lease": LEASE_SECONDS},
)
def test_a_container_killed_while_it_drains_charges_no_job(
    environment: Environment, scale: Scale
) -> None:
    app = environment.open()
    go = environment.root / "go"
    jobs = [app.enqueue("hold", name, str(go)) for name in "ab"]
    takeovers = []
    for number in range(int(scale["rounds"])):
        with Container(environment.program(WORKERS), stderr=subprocess.DEVNULL) as container:
            began = time.monotonic()
            for job in jobs:
                until(lambda job=job, n=number: job.state == "running" and len(job.attempts) == n)
            takeovers.append(time.monotonic() - began)
            container.terminate()
            # The supervisor says it before the workers know it.
            until(lambda: "stopping" in {row["state"] for row in environment.job_store.workers()})
            time.sleep(environment.random.uniform(0, 0.3))  # a random moment
            container.kill()
        if not scale["lease"]:
            forget_heartbeats(environment)
    app.workers.start(concurrency=2)
    go.touch()
    app.wait(timeout=60)
    for job in jobs:
        outcomes = [attempt["outcome"] for attempt in job.attempts]
        assert outcomes == ["released"] * int(scale["rounds"]) + ["completed"]
        assert job.attempt == 1
    environment.within(max(takeovers), scale["lease"] + 5, "slowest takeover")
    environment.check_all_done({"a", "b", "a/leaf", "b/leaf"})


@scenario(25, "a data directory copied while workers run", short={"rounds": 1}, full={"rounds": 30})
def test_a_copy_has_its_own_workers_and_leaves_those_of_the_original(
    environment: Environment, scale: Scale
) -> None:
    app = environment.open()
    app.workers.start(concurrency=2)
    expected: set[str] = set()
    for number in range(int(scale["rounds"])):
        go = environment.root / f"go {number}"
        expected |= {f"held {number}", f"held {number}/leaf"}
        job = app.enqueue("hold", f"held {number}", str(go))
        until(lambda job=job: job.state == "running")
        before = environment.ready_pools()
        with copied(environment, number) as copy:
            assert not copy.workers.present()
            assert str(copy.workers.stop()).startswith("workers not running")
            assert (copy.job(job.id).state, copy.job(job.id).attempt) == ("queued", 0)
            copy.workers.start(concurrency=1, pool="default")
            until(lambda copy=copy, job=job: copy.job(job.id).state == "running")
            assert environment.ready_pools() == before
            assert (job.state, job.attempts) == ("running", [])
            copy.workers.stop(timeout=0)
            outcomes = {attempt["outcome"] for attempt in copy.job(job.id).attempts}
            assert outcomes == {"released"}
        assert environment.ready_pools() == before
        go.touch()
        app.wait(timeout=60)
    environment.check_all_done(expected)


def copied(environment: Environment, number: int) -> App:
    """Copy the data directory as it is now, and open the copy."""
    copy = environment.root / f"copy {number}"
    with (environment.data_dir / "tasks.db.lock").open() as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)  # so that the copy is consistent
        subprocess.run(["cp", "-a", environment.data_dir, copy], check=True)
    return paise2nb.open("development", data_dir=copy, settings=environment._settings)


@scenario(26, "forks while a thread writes", short={"forks": 12}, full={"forks": 2000})
def test_a_forked_child_enqueues_while_a_thread_of_its_parent_writes(
    environment: Environment, scale: Scale
) -> None:
    app = environment.open()
    app.workers.start(concurrency=2)
    command = environment.program(FORK, "forked", int(scale["forks"]))
    done = subprocess.run(command, capture_output=True, text=True, check=True, timeout=1200)
    written, hung = map(int, done.stdout.split())
    environment.figures["hung"] = hung
    assert not hung
    app.wait(timeout=600)
    expected = {f"forked thread {number}" for number in range(written)}
    expected |= {f"forked child {number}" for number in range(int(scale["forks"]))}
    environment.check_all_done(expected)


def forget_heartbeats(environment: Environment) -> None:
    """Let the leases of all processes run out."""
    for table in ("workers", "supervisor"):
        environment.job_store.database.write(
            lambda connection, table=table: connection.execute(
                f"UPDATE {table} SET heartbeat_at = heartbeat_at - {2 * LEASE_SECONDS}"
            )
        )
