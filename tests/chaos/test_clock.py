"""The wall clock is moved under living workers, and everybody is stopped for a while."""

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
    """The wall clock of the processes that are started within `environment`."""

    def __init__(self, place: Path) -> None:
        compiler = shutil.which("gcc") or shutil.which("cc")
        if compiler is None:
            pytest.skip("machine: no gcc")
        library, self._offset = place / "clock.so", place / "offset"
        source = Path(__file__).with_name("clock.c")
        subprocess.run(
            [compiler, "-shared", "-fPIC", "-O1", "-o", library, source, "-ldl"], check=True
        )
        self._offset.write_bytes(struct.pack("d", 0))
        self.environment = {"LD_PRELOAD": str(library), "CHAOS_CLOCK": str(self._offset)}

    def move(self, seconds: float) -> None:
        """So far from the true time, from now on."""
        with self._offset.open("r+b") as file:
            file.write(struct.pack("d", seconds))


@scenario(
    10,
    "the wall clock moved under living workers",
    short={"moves": 2, "delay": 1},
    full={"moves": 12, "delay": 5},
)
def test_a_moved_wall_clock_changes_no_delay_prunes_nothing_and_doubles_nothing(
    environment: Environment, scale: Scale
) -> None:
    clock = WallClock(environment.place)
    delay = scale["delay"]
    app = environment.open(
        workers__retry__retry_delay=delay, workers__retry__backoff=1, history__keep_days=1
    )
    with environment.environment(**clock.environment):
        app.workers.start(concurrency=2)
    wall = subprocess.run(
        environment.program("import time; print(time.time())"),
        env={**clock.environment}, capture_output=True, text=True, check=True,
    )  # fmt: skip
    assert abs(float(wall.stdout) - time.time()) < 60
    expected: set[str] = set()
    late = [0.0]
    for turn in range(int(scale["moves"])):
        clock.move(MOVES[turn % 2 if scale["moves"] < 4 else turn % 4])
        begun = app.queue.job_store.now()
        scheduled = app.enqueue("effect", f"scheduled {turn}", delay=delay)
        retried = app.enqueue("retried", f"retried {turn}")
        until(lambda job=retried: job.state == "retrying")
        clock.move(MOVES[(turn + 1) % 4])  # and on, while both wait
        app.enqueue("cleanup", force=True).wait(timeout=60)
        app.wait(timeout=60, jobs=[scheduled.id, retried.id])
        until(lambda job=scheduled: job.state == "completed")
        times = {
            key: at - begun
            for key, at in environment.moments().items()
            if key in (f"scheduled {turn}", f"retried {turn}/again")
        }
        assert len(times) == 2
        assert min(times.values()) >= delay, times
        # A retry's delay is up to a tenth longer on purpose.
        late += [taken - 1.1 * delay for taken in times.values()]
        expected |= {f"scheduled {turn}", f"retried {turn}", f"retried {turn}/again"}
    assert environment.effects().keys() == expected
    environment.check()
    jobs = environment.rows("SELECT count(*) AS jobs FROM jobs WHERE state = 'completed'")[0][
        "jobs"
    ]
    assert jobs == 3 * scale["moves"], "something was pruned early, or doubled"
    environment.figures |= {"lost": 0, "duplicates": 0}
    environment.within(max(late), 1, "latest")


@scenario(
    10, "supervisor and workers stopped for a while", short={"seconds": 3}, full={"seconds": 90}
)
def test_a_stop_of_all_processes_loses_and_doubles_nothing(
    environment: Environment, scale: Scale
) -> None:
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
        environment.open().close()  # looks for the dead meanwhile: there are none
        time.sleep(0.2)
    for name in names:
        process.send(name, signal.SIGCONT)
    environment.open()
    environment.app.wait(timeout=120)
    assert environment.supervisor() == supervisor
    assert all(map(process.alive, names))
    assert not environment.rows("SELECT 1 FROM attempts")
    environment.check_all_done({*keys, *(f"later {key}" for key in keys)})
