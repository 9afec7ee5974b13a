"""How soon the files of a large folder are searchable.

``python -m tests.benchmarks.folder [--files 2000]`` enqueues a folder of small files with the
production profile. For some shares of the whole time it prints the share of the items that can be
found by then. They are about equal, because what was begun is finished first. The exit status is 1
if less than half of that share can be found.
"""

from __future__ import annotations

import argparse
import tempfile
import time
from pathlib import Path

import paise2nb

SHARES = (0.01, 0.05, 0.2, 0.5)


def measure(files: int, directory: Path) -> list[tuple[float, int]]:
    """Return the seconds since the workers are ready, and the number of items, at many moments."""
    folder = directory / "files"
    folder.mkdir()
    for number in range(files):
        text = f"File {number} says a few words about a thing that has the number {number}.\n"
        (folder / f"{number:06}.txt").write_text(text * 5)
    moments: list[tuple[float, int]] = []
    with paise2nb.open("production", data_dir=directory / "data") as app:
        app.enqueue("folder", str(folder))
        app.workers.start()
        began = time.monotonic()
        while not moments or moments[-1][1] < files:
            moments.append((time.monotonic() - began, app.status().items))
            time.sleep(0.02)
        app.workers.stop()
    return moments


def main() -> int:
    """Measure and print; return the exit status."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--files", type=int, default=2000)
    files = parser.parse_args().files
    with tempfile.TemporaryDirectory(dir="/var/tmp") as directory:
        moments = measure(files, Path(directory))
    whole = moments[-1][0]
    print(f"{files:,} files in {whole:.1f} s: {files / whole:.0f}/s")
    print("| of the time | of the items |\n|---|---|")
    found = {}
    for share in SHARES:
        items = max(items for seconds, items in moments if seconds <= share * whole)
        found[share] = items / files
        print(f"| {share:.0%} | {found[share]:.1%} |")
    return int(any(found[share] < share / 2 for share in SHARES))


if __name__ == "__main__":
    raise SystemExit(main())
