"""The wall clock changes while workers run, and all processes are stopped for a while."""

from __future__ import annotations

import shutil
import signal
import struct
import subprocess
import time
from pathlib import Path

import pytest

from paise2nb.core import processes as process
from tests.chaos.environment import Environment
from tests.chaos.scenarios import Scale, scenario
from tests.waiting import until

HOUR = 3600.0
MOVES = (2 * HOUR, -2 * HOUR, 24 * HOUR, -24 * HOUR)


class WallClock:
    """The wall clock of processes that are started with the variables of `environment`."""

    def __init__(self, directory: Path) -> None:
        compiler = shutil.which("gcc") or shutil.which("cc")
        if compiler is None:
            pytest.skip("machine: no gcc")
        library, self._offset = directory / "clock.so", directory / "offset"
        source = Path(__file__).with_name("clock.c")
        subprocess.run(
            [compiler, "-shared", "-fPIC", "-O1", "-o", library, source, "-ldl"], check=True
        )
        self._offset.write_bytes(struct.pack("d", 0))
        self.environment = {"LD_PRELOAD": str(library), "CHAOS_CLOCK": str(self._offset)}

    def move(self, seconds: float) -> None:
        """Set the clock to that many seconds after the true time."""
        with self._offset.open("r+b") as file:
            file.write(struct.pack("d", seconds))


@scenario(
    10,
    "the wall clock changes while workers run",
    short={"moves": 2, "delay": 1},
    full={"moves": 12, "delay": 5},
)
def test_a_changed_wall_clock_changes_no_delay_and_removes_or_repeats_no_job(
    environment: Environment, scale: Scale
) -> None:
    clock = WallClock(environment.root)
    delay = scale["delay"]
    app = environment.open(
        workers__retry__retry_delay=delay, workers__retry__backoff=1, history__keep_days=1
    )
    with environment.variables(**clock.environment):
        app.workers.start(concurrency=2)
    wall = subprocess.run(
        environment.program("import time; print(time.time())"),
        env={**clock.environment}, capture_output=True, text=True, check=True,
    )  # fmt: skip
    assert abs(float(wall.stdout) - time.time()) < 60
    expected: set[str] = set()
    late = [0.0]
    for round_number in range(int(scale["moves"])):
        clock.move(MOVES[round_number % 2 if scale["moves"] < 4 else round_number % 4])
        begun = environment.job_store.now()
        scheduled = app.enqueue("effect", f"scheduled {round_number}", delay=delay)
        retried = app.enqueue("retried", f"retried {round_number}")
        until(lambda job=retried: job.state == "retrying")
        clock.move(MOVES[(round_number + 1) % 4])  # again, while both wait
        app.enqueue("cleanup", force=True).wait(timeout=60)
        app.wait(timeout=60, jobs=[scheduled.id, retried.id])
        until(lambda job=scheduled: job.state == "completed")
        times = {
            key: at - begun
            for key, at in environment.effect_times().items()
            if key in (f"scheduled {round_number}", f"retried {round_number}/again")
        }
        assert len(times) == 2
        assert min(times.values()) >= delay, times
        # A retry's delay is up to a tenth longer on purpose.
        late += [taken - 1.1 * delay for taken in times.values()]
        expected |= {
            f"scheduled {round_number}",
            f"retried {round_number}",
            f"retried {round_number}/again",
        }
    assert environment.effects().keys() == expected
    environment.check()
    jobs = environment.rows("SELECT count(*) AS jobs FROM jobs WHERE state = 'completed'")[0][
        "jobs"
    ]
    assert jobs == 3 * scale["moves"], "a job was removed early, or repeated"
    environment.figures |= {"lost": 0, "duplicates": 0}
    environment.within(max(late), 1, "latest")


@scenario(
    10, "supervisor and workers suspended for a while", short={"seconds": 3}, full={"seconds": 90}
)
def test_suspended_processes_lose_and_repeat_no_job(environment: Environment, scale: Scale) -> None:
    app = environment.open()
    app.workers.start()
    keys = [str(number) for number in range(200)]
    app.enqueue_many("effect", [(key, 0.01) for key in keys])
    app.enqueue_many("effect", [f"later {key}" for key in keys], delay=scale["seconds"] / 2)
    until(lambda: app.status().jobs["completed"] > 10)
    supervisor = environment.supervisor()
    assert supervisor is not None
    names = [supervisor, *(row["process"] for row in environment.workers())]
    for name in names:
        process.send(name, signal.SIGSTOP)
    began = time.monotonic()
    while time.monotonic() - began < scale["seconds"]:
        environment.open().close()  # opening an app rescues the jobs of dead workers: none is dead
        time.sleep(0.2)
    for name in names:
        process.send(name, signal.SIGCONT)
    environment.open()
    environment.app.wait(timeout=120)
    assert environment.supervisor() == supervisor
    assert all(map(process.alive, names))
    assert not environment.rows("SELECT 1 FROM attempts")
    environment.check_all_done({*keys, *(f"later {key}" for key in keys)})
