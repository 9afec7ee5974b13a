"""Run the full form of the chaos suite and print its table.

Prints one row of a Markdown table for each scenario and seed. The exit status is 1 if one of them
failed. With --results an interrupted suite can be resumed: what has passed is not run again.
"""

from __future__ import annotations

import argparse
import importlib
import json
import pkgutil
import subprocess
import sys
import tempfile
import time
import traceback
from collections.abc import Iterator
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import pytest

import tests.chaos
from tests.chaos.environment import ROOT, Environment
from tests.chaos.scenarios import SCENARIOS, Scenario


@dataclass
class Result:
    """What one run of a scenario came to; one line of the results file.

    Attributes:
        commit: of the code that ran; it ends with ``-dirty`` if files were changed since.
        outcome: ``passed``, ``failed: …`` or ``skipped: …``, with the reason.
    """

    commit: str
    row: int
    title: str
    scale: dict[str, float]
    seed: int
    outcome: str = "passed"
    figures: dict[str, Any] = field(default_factory=dict)
    seconds: float = 0.0

    @property
    def key(self) -> str:
        """What two runs of the same scenario on the same code have in common."""
        return json.dumps([self.commit, self.row, self.title, self.scale, self.seed])

    def __str__(self) -> str:
        scale = ", ".join(f"{value:g} {name}" for name, value in self.scale.items())
        figures = ", ".join(f"{name} {value}" for name, value in self.figures.items())
        outcome = f"**{self.outcome}**" if self.outcome.startswith("failed") else self.outcome
        cells = (self.row, self.title, scale, self.seed, outcome, figures, f"{self.seconds:.0f}")
        return f"| {' | '.join(map(str, cells))} |"


def main() -> int:
    """Run the chosen scenarios; returns the exit status."""
    options = parsed()
    for module in pkgutil.iter_modules(tests.chaos.__path__):
        if module.name.startswith("test_"):
            importlib.import_module(f"tests.chaos.{module.name}")
    earlier = {result.key: result for result in stored(options.results)}
    failed = False
    print("| row | scenario | scale | seed | result | figures | seconds |")
    print("|---|---|---|---|---|---|---|", flush=True)
    for scenario, result in planned(options, commit()):
        known = earlier.get(result.key)
        if known and known.outcome == "passed" and not known.commit.endswith("-dirty"):
            print(known, flush=True)
            continue
        run(scenario, result, tolerance=6 if options.short else 1)
        failed |= result.outcome.startswith("failed")
        print(result, flush=True)
        if options.results:
            with options.results.open("a") as file:
                file.write(json.dumps(asdict(result)) + "\n")
    return int(failed)


def parsed() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m tests.chaos", description=__doc__)
    parser.add_argument("--rows", default="", help="run only these rows, such as 1,5")
    parser.add_argument("--seed", type=int, default=1, help="the first seed (default 1)")
    parser.add_argument("--short", action="store_true", help="run the short form, as pytest does")
    parser.add_argument(
        "--results",
        type=Path,
        metavar="FILE",
        help="append each result to FILE, and skip what it lists as passed at the same commit",
    )
    return parser.parse_args()


def commit() -> str:
    """The commit that is checked out, with ``-dirty`` if files were changed."""
    command = ["git", "describe", "--always", "--abbrev=40", "--exclude=*", "--dirty"]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    return done.stdout.strip() or "unknown-dirty"


def stored(path: Path | None) -> list[Result]:
    """The results in the file of an earlier run."""
    if path is None or not path.exists():
        return []
    return [Result(**json.loads(line)) for line in path.read_text().splitlines()]


def planned(options: argparse.Namespace, commit: str) -> Iterator[tuple[Scenario, Result]]:
    """The chosen scenarios in the order of their rows, each with its result to be."""
    rows = {int(number) for number in options.rows.split(",") if number}
    for scenario in sorted(SCENARIOS, key=lambda entry: entry.row):
        if not rows or scenario.row in rows:
            scale = dict(scenario.short if options.short else scenario.full)
            for seed in range(
                options.seed, options.seed + (1 if options.short else scenario.seeds)
            ):
                yield scenario, Result(commit, scenario.row, scenario.title, scale, seed)


def run(scenario: Scenario, result: Result, *, tolerance: float) -> None:
    """Run a scenario and complete its result."""
    began = time.monotonic()
    # A worker that was being spawned when all were killed may still write to the directory.
    with tempfile.TemporaryDirectory(prefix="paise2-chaos-", ignore_cleanup_errors=True) as root:
        try:
            with Environment(Path(root), seed=result.seed, tolerance=tolerance) as environment:
                result.figures = environment.figures
                scenario.run(environment, result.scale)
        except pytest.skip.Exception as reason:
            result.outcome = f"skipped: {reason}"
        except (Exception, pytest.fail.Exception) as error:
            traceback.print_exc()
            words = " ".join(str(error).split())[:200]
            result.outcome = f"failed: {type(error).__name__}: {words}"
    result.seconds = round(time.monotonic() - began, 1)


if __name__ == "__main__":
    sys.exit(main())
