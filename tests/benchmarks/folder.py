"""How soon the files of a large folder are searchable, and the processor time of each.

``python -m tests.benchmarks.folder [--files 2000] [--html]`` enqueues a folder of small files, of
text or pages, with the production profile. For some shares of the whole time it prints the share of
the items that can be found by then. They are about equal, because what was begun is finished first.
The exit status is 1 if less than half of that share can be found. The processor time is that of the
workers without their start.
"""

from __future__ import annotations

import argparse
import os
import tempfile
import time
from pathlib import Path
from typing import NamedTuple

import paise2nb

SHARES = (0.01, 0.05, 0.2, 0.5)
WORDS = "File {0} says a few words about a thing that has the number {0}.\n"
PAGE = """<!doctype html>
<html lang="en"><head><meta charset="utf-8"><title>File {0}</title></head>
<body><nav><a href="/">Start</a> <a href="/all">All files</a></nav>
<article><h1>File {0}</h1>
{1}</article>
<footer>Made by a benchmark.</footer></body></html>
"""


class Measured(NamedTuple):
    """A run: the seconds of processor time, and moments with the number of items."""

    processor: float
    moments: list[tuple[float, int]]


def measure(files: int, html: bool, directory: Path) -> Measured:
    """Run all; the moments are seconds since the workers are ready."""
    folder = directory / "files"
    folder.mkdir()
    for number in range(files):
        words = WORDS.format(number)
        text = PAGE.format(number, f"<p>{words}</p>\n" * 5) if html else words * 5
        (folder / f"{number:06}.{'html' if html else 'txt'}").write_text(text)
    moments: list[tuple[float, int]] = []
    with paise2nb.open("production", data_dir=directory / "data") as app:
        app.enqueue("folder", str(folder))
        app.workers.start()
        began, used = time.monotonic(), processor_time(app)
        while not moments or moments[-1][1] < files:
            moments.append((time.monotonic() - began, app.status().items))
            time.sleep(0.02)
        processor = processor_time(app) - used
        app.workers.stop()
    return Measured(processor, moments)


def processor_time(app: paise2nb.App) -> float:
    """The seconds of processor time of all workers and their supervisor until now."""
    status = app.workers.status()
    pids = [worker["pid"] for worker in [*status.workers, status.supervisor]]
    # After the last parenthesis, utime and stime are the twelfth and thirteenth: proc(5).
    fields = [Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split() for pid in pids]
    return sum(int(each[11]) + int(each[12]) for each in fields) / os.sysconf("SC_CLK_TCK")


def main() -> int:
    """Measure and print; return the exit status."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--files", type=int, default=2000)
    parser.add_argument("--html", action="store_true")
    options = parser.parse_args()
    files = options.files
    with tempfile.TemporaryDirectory(dir="/var/tmp") as directory:
        processor, moments = measure(files, options.html, Path(directory))
    whole = moments[-1][0]
    print(f"{files:,} files in {whole:.1f} s: {files / whole:.0f}/s")
    print(f"{1000 * processor / files:.2f} ms of processor time a file")
    print("| of the time | of the items |\n|---|---|")
    found = {}
    for share in SHARES:
        items = max(items for seconds, items in moments if seconds <= share * whole)
        found[share] = items / files
        print(f"| {share:.0%} | {found[share]:.1%} |")
    return int(any(found[share] < share / 2 for share in SHARES))


if __name__ == "__main__":
    raise SystemExit(main())
