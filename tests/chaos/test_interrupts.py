"""Ctrl-C at random moments, and kernels that are interrupted, restarted and killed."""

from __future__ import annotations

import os
import signal
import sqlite3
import subprocess
import sys
import time
from contextlib import closing

from jupyter_client.blocking.client import BlockingKernelClient
from jupyter_client.manager import KernelManager

from paise2nb.core import processes as process
from tests.chaos.environment import Environment
from tests.chaos.scenarios import Scale, scenario

BATCH = 40
USER = f"""
import itertools
numbers = itertools.count()
interrupted = False
print("begins", flush=True)
while True:
    try:
        if interrupted:
            app.queue.job_store.put("interrupted", str(number))
            print("interrupted", flush=True)
            sys.stdin.readline()
            interrupted = False
            print("continues", flush=True)
        while True:
            number = next(numbers)
            app.enqueue("effect", f"one {{number}}")
            app.enqueue_many(
                "effect", [f"{{number}} {{n}}" for n in range({BATCH})], tag=f"batch {{number}}"
            )
            try:
                app.wait(timeout=0.004)
            except paise2nb.Timeout:
                pass
    except KeyboardInterrupt:
        interrupted = True
"""


@scenario(
    21,
    "Ctrl-C in enqueue, enqueue_many and wait",
    short={"interrupts": 30},
    full={"interrupts": 300},
    seeds=3,
)
def test_an_interrupt_leaves_no_lock_and_no_partial_enqueue(
    environment: Environment, scale: Scale
) -> None:
    environment.open()
    user = subprocess.Popen(
        environment.program(USER), stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True,
        start_new_session=True,
    )  # fmt: skip
    try:
        assert user.stdin is not None
        assert user.stdout is not None
        assert user.stdout.readline() == "begins\n"
        for _ in range(int(scale["interrupts"])):
            time.sleep(environment.random.uniform(0, 0.03))  # a random moment
            user.send_signal(signal.SIGINT)
            assert user.stdout.readline() == "interrupted\n"
            assert writable(environment), "a lock was left behind"
            user.stdin.write("\n")
            user.stdin.flush()
            assert user.stdout.readline() == "continues\n"
    finally:
        user.kill()
        user.wait()
    environment.check()
    batches = environment.rows(
        "SELECT tag, count(*) AS jobs FROM jobs WHERE tag IS NOT NULL GROUP BY 1"
    )
    incomplete = [dict(row) for row in batches if row["jobs"] != BATCH]
    environment.figures |= {"batches": len(batches), "incomplete": len(incomplete)}
    assert not incomplete
    assert batches


def writable(environment: Environment) -> bool:
    with closing(sqlite3.connect(environment.data_dir / "tasks.db", timeout=0.1)) as connection:
        try:
            connection.execute("BEGIN IMMEDIATE")
        except sqlite3.OperationalError:
            return False
        connection.rollback()
        return True


def zombies(of: int) -> list[int]:
    """The children of a process that have ended and were not waited for."""
    listed = subprocess.run(
        ["ps", "-o", "pid=,stat=", "--ppid", str(of)], capture_output=True, text=True, check=False
    )
    rows = [line.split() for line in listed.stdout.splitlines()]
    return [int(pid) for pid, state in rows if state.startswith("Z")]


@scenario(
    13,
    "kernels interrupted, restarted and killed",
    short={"times": 2},
    full={"times": 50},
)
def test_workers_continue_when_the_kernel_is_interrupted_restarted_or_killed(
    environment: Environment, scale: Scale
) -> None:
    app = environment.open()
    manager = KernelManager(kernel_name="python3")
    manager.kernel_spec.argv[0] = sys.executable
    manager.start_kernel(stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    opening = "\n".join(environment.program("", "")[2].splitlines())
    client = connected(manager)
    expected: set[str] = set()
    try:
        run(client, f"{opening}\napp.workers.start()")
        supervisor = environment.supervisor()
        workers = {row["process"] for row in environment.workers(ready=True)}
        assert supervisor is not None
        for round_number in range(int(scale["times"])):
            key = f"round_number {round_number}"
            run(client, f"app.enqueue('tree', {key!r}, 0.1); app.workers.start()")
            expected |= {key, f"{key}/leaf"}
            cell = client.execute(
                "app.enqueue('effect', 'never', delay=3000).wait()\nwhile True: pass"
            )
            if round_number % 3 == 0:  # interrupted in a cell
                wait_until_it_runs(client, cell)
                time.sleep(environment.random.uniform(0, 0.3))  # a random moment
                manager.interrupt_kernel()
            elif round_number % 3 == 1:
                manager.restart_kernel(now=True)
            else:
                assert manager.provisioner is not None
                os.kill(manager.provisioner.pid, signal.SIGKILL)
                manager.restart_kernel(now=True)
            client.stop_channels()
            client = connected(manager)
            run(client, opening)
            assert manager.provisioner is not None
            assert not zombies(manager.provisioner.pid)
            assert environment.supervisor() == supervisor
            assert {row["process"] for row in environment.workers()} == workers
        app.wait(timeout=60)
        run(client, "app.workers.stop(); app.workers.start(); app.workers.stop()")
        assert manager.provisioner is not None
        assert not zombies(manager.provisioner.pid)
        assert not any(map(process.alive, workers))
    finally:
        client.stop_channels()
        manager.shutdown_kernel(now=True)
    environment.check()
    assert environment.effects().keys() == expected
    environment.figures |= {"lost": 0, "zombies": 0, "supervisors": 1}


def connected(manager: KernelManager) -> BlockingKernelClient:
    client: BlockingKernelClient = manager.client()
    client.start_channels()
    client.wait_for_ready(timeout=120)
    return client


def wait_until_it_runs(client: BlockingKernelClient, cell: str) -> None:
    """Wait until a kernel has begun a cell: between two cells it ignores an interrupt."""
    while True:
        message = client.get_iopub_msg(timeout=120)
        if (message["msg_type"], message["parent_header"].get("msg_id")) == ("execute_input", cell):
            return


def run(client: BlockingKernelClient, code: str) -> None:
    """Run a cell, and fail if it raises."""
    reply = client.execute_interactive(code, timeout=120, output_hook=lambda message: None)
    assert reply["content"]["status"] == "ok", reply["content"]
