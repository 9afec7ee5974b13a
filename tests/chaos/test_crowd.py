"""Many processes enqueue while many workers run."""

from __future__ import annotations

import subprocess

from tests.chaos.environment import Environment
from tests.chaos.scenarios import Scale, scenario

PRODUCER = """
import time
worst = 0
for number in range(int(sys.argv[2])):
    began = time.monotonic()
    app.enqueue("effect", f"{sys.argv[1]}-{number}")
    worst = max(worst, time.monotonic() - began)
print(worst)
"""


@scenario(
    11,
    "many producers and workers at the same time",
    short={"producers": 4, "workers": 3, "jobs": 400},
    full={"producers": 16, "workers": 8, "jobs": 20_000},
)
def test_many_processes_get_no_lock_error_and_none_waits_long(
    environment: Environment, scale: Scale
) -> None:
    app = environment.open()
    app.workers.start(concurrency=int(scale["workers"]))
    each = int(scale["jobs"] / scale["producers"])
    processes = [
        subprocess.Popen(
            environment.program(PRODUCER, name, each), stdout=subprocess.PIPE, text=True
        )
        for name in range(int(scale["producers"]))
    ]
    worst = [float(producer.communicate(timeout=1200)[0]) for producer in processes]
    assert {producer.returncode for producer in processes} == {0}
    app.wait(timeout=1200)
    environment.check_all_done(
        {f"{name}-{n}" for name in range(len(processes)) for n in range(each)}
    )
    log = (environment.data_dir / "logs" / "workers.log").read_text()
    assert "locked" not in log
    assert "another process held it" not in log
    environment.within(max(worst), 0.5, "worst enqueue")
