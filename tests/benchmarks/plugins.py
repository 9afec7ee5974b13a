"""How soon running workers use the code of a new cell: ``python -m tests.benchmarks.plugins``.

Two hundred jobs run in one process of two hundred and four threads while a notebook's cell is run,
and changed, and changed again. Each time the clock runs from the cell to the end of a job that a
running worker has run by the new code. Then every one of the two hundred has to end, once.
"""

from __future__ import annotations

import argparse
import statistics
import sys
import tempfile
import time
from pathlib import Path

from IPython.core.interactiveshell import InteractiveShell

HOLD = """\
import time
from pathlib import Path
from paise2nb import task

@task("hold", pool="many")
def hold(context, number, path):
    while not Path(path).exists():
        time.sleep(0.2)
    return number
"""
CELL = """\
%%paise2 plugin fresh
from paise2nb import task

@task("fresh", pool="{pool}")
def fresh(context):
    return {number}
"""


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--jobs", type=int, default=200)
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as root:
        measure(Path(root), arguments.rounds, arguments.jobs)


def measure(root: Path, rounds: int, jobs: int) -> None:
    """Measure, and print the table."""
    import paise2nb

    shell = InteractiveShell.instance()
    shell.run_line_magic("load_ext", "paise2nb")
    pools = f"{{many: {{threads: {jobs + 4}}}, fetch: null}}"
    options = (
        f"--data-dir {root / 'data'} --set=workers.concurrency=1 '--set=workers.pools={pools}'"
    )
    shell.run_line_magic("paise2", f"profile development {options}")
    app = paise2nb.open()
    shell.run_cell_magic("paise2", "plugin hold", HOLD)
    app.workers.start()
    held = app.enqueue_many("hold", [(number, str(root / "go")) for number in range(jobs)])
    while app.status().jobs["running"] < jobs:
        time.sleep(0.05)
    print("| | median | slowest | goal |\n|---|---|---|---|")
    number = 0
    for pool, where in (
        ("default", "an idle process"),
        ("many", f"the process of the {jobs} jobs"),
    ):
        times = []
        for _ in range(rounds):
            number += 1
            began = time.perf_counter()
            if not shell.run_cell(CELL.format(pool=pool, number=number), silent=True).success:
                sys.exit("the cell was refused")
            if app.enqueue("fresh", force=True).result(timeout=60) != number:
                sys.exit("a worker has run the earlier code")
            times.append(time.perf_counter() - began)
        print(
            f"| from the cell to its job done in {where} | {statistics.median(times):.2f} s"
            f" | {max(times):.2f} s | < 2 s |"
        )
    running = app.status().jobs["running"]
    (root / "go").touch()
    app.wait(timeout=120)
    once = sum(job.result() == n and len(job.attempts) == 1 for n, job in enumerate(held))
    print(f"| of {running} jobs that ran meanwhile, completed in one attempt | {once} | | {jobs} |")
    app.workers.stop()
    app.close()


if __name__ == "__main__":
    main()
