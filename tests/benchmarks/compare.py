"""Run benchmarks on another commit and on this one: ``python -m tests.benchmarks.compare COMMIT``.

Machines are noisy, so the two run alternately, in several rounds. A figure has changed if its
values on one side are all above those on the other, and the medians differ by more than 5 %.
"""

from __future__ import annotations

import argparse
import os
import re
import statistics
import subprocess
import sys
import tempfile
from collections import Counter, defaultdict
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from itertools import chain
from pathlib import Path

ROOT = Path(__file__).parents[2]
NUMBER = re.compile(r"\d[\d,]*(?:\.\d+)?")
LEAST_CHANGE = 1.05
# With options that make one round of all take about ten minutes.
BENCHMARKS = {
    "queue": "--rounds 1 --idle 20 --history 100000 --waiting 20000",
    "pipeline": "--rounds 1 --pages 150",
    "folder": "--files 500",
    "search": "--documents 20000",
    "listings": "--jobs 20000 --items 5000",
    "dashboard": "--jobs 20000 --seconds 5",
    "plugins": "--rounds 1 --jobs 50",
}
Figure = tuple[str, int, int]
"""A line with ``#`` for each number, which of several such lines, and the index of the number."""


@contextmanager
def checkout(commit: str) -> Iterator[Path]:
    """Check a commit out into a directory of its own."""
    with tempfile.TemporaryDirectory() as parent:
        path = Path(parent) / "earlier"
        git = ["git", "-C", str(ROOT), "worktree"]
        subprocess.run([*git, "add", "--quiet", "--detach", str(path), commit], check=True)
        try:
            yield path
        finally:
            subprocess.run([*git, "remove", "--force", str(path)], check=True)


def run(tree: Path, name: str) -> dict[Figure, float]:
    """Run one benchmark of a source tree, and return the figures that it prints."""
    file = tree / "tests" / "benchmarks" / f"{name}.py"
    if not file.exists():
        print(f"{name} is not in {tree.name}", flush=True)
        return {}
    words, source = BENCHMARKS[name].split(), file.read_text()
    pairs = [pair for pair in zip(words[::2], words[1::2], strict=True) if f'"{pair[0]}"' in source]
    command = [sys.executable, "-m", f"tests.benchmarks.{name}", *chain.from_iterable(pairs)]
    environment = {**os.environ, "PYTHONPATH": str(tree)}
    done = subprocess.run(
        command, cwd=tree, env=environment, text=True, capture_output=True, check=False
    )
    if done.returncode:  # also when a figure is worse than promised
        reason = done.stderr.strip().splitlines()[-1:]
        print(f"{name} of {tree.name}: exit status {done.returncode} {reason}", flush=True)
    return figures(done.stdout)


def figures(output: str) -> dict[Figure, float]:
    """Return the numbers in a benchmark's output."""
    found: dict[Figure, float] = {}
    seen: Counter[str] = Counter()
    for line in output.splitlines():
        label = " ".join(NUMBER.sub("#", line).split())
        for index, number in enumerate(NUMBER.findall(line)):
            found[label, seen[label], index] = float(number.replace(",", ""))
        seen[label] += 1
    return found


def has_changed(before: Sequence[float], after: Sequence[float]) -> bool:
    """Whether two series differ beyond their noise."""
    low, high = sorted((before, after), key=statistics.median)
    ratio = statistics.median(high) / (statistics.median(low) or 1e-9)
    return max(low) < min(high) and ratio > LEAST_CHANGE


def main() -> None:
    """Compare, and print a line for each figure that has changed."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("commit", help="the commit to compare with")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--only", default=",".join(BENCHMARKS), help="benchmarks, such as queue")
    options = parser.parse_args()
    with checkout(options.commit) as earlier:
        for name in options.only.split(","):
            series: dict[Figure, tuple[list[float], list[float]]] = defaultdict(lambda: ([], []))
            for _ in range(options.rounds):
                for side, tree in enumerate((earlier, ROOT)):
                    for figure, value in run(tree, name).items():
                        series[figure][side].append(value)
            report(name, series)


def report(name: str, series: dict[Figure, tuple[list[float], list[float]]]) -> None:
    """Print what has changed in one benchmark."""
    both = {figure: sides for figure, sides in series.items() if all(sides)}
    changed = {figure: sides for figure, sides in both.items() if has_changed(*sides)}
    print(f"{name}: {len(changed)} of {len(both)} figures have changed", flush=True)
    for (label, _, index), sides in changed.items():
        before, after = map(statistics.median, sides)
        ratio = after / before if before else float("inf")
        print(
            f"  {label}\n    number {index + 1}: {before:,g} → {after:,g} ({ratio:.2f}×)",
            flush=True,
        )


if __name__ == "__main__":
    main()
