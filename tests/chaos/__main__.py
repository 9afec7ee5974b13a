"""The full form of the chaos suite: ``python -m tests.chaos [--rows 1,5] [--seed N] [--short]``.

Prints one line of a Markdown table for each scenario and seed; exit status 1 if one failed.
"""

from __future__ import annotations

import argparse
import importlib
import pkgutil
import sys
import tempfile
import time
import traceback
from pathlib import Path
from typing import Any

import pytest

import tests.chaos
from tests.chaos.environment import Environment
from tests.chaos.scenarios import SCENARIOS, Scale, Scenario


def main() -> int:
    """Run what was asked for; the exit status."""
    parser = argparse.ArgumentParser(prog="python -m tests.chaos", description=__doc__)
    parser.add_argument("--rows", default="", help="only these, as in 1,5")
    parser.add_argument("--seed", type=int, default=1, help="the first seed")
    parser.add_argument("--short", action="store_true", help="the short form, as pytest runs it")
    chosen = parser.parse_args()
    for module in pkgutil.iter_modules(tests.chaos.__path__):
        if module.name.startswith("test_"):
            importlib.import_module(f"tests.chaos.{module.name}")
    rows = {int(number) for number in chosen.rows.split(",") if number}
    failed = False
    print("| row | scenario | scale | seed | result | figures | seconds |")
    print("|---|---|---|---|---|---|---|", flush=True)
    for scenario in sorted(SCENARIOS, key=lambda entry: entry.row):
        if rows and scenario.row not in rows:
            continue
        for seed in range(chosen.seed, chosen.seed + (1 if chosen.short else scenario.seeds)):
            failed |= not _run(scenario, seed, chosen.short)
    return int(failed)


def _run(scenario: Scenario, seed: int, short: bool) -> bool:
    scale = _short(scenario) if short else scenario.full
    began = time.monotonic()
    figures: dict[str, Any] = {}
    # A worker that was just being spawned when all were killed may still write there.
    with tempfile.TemporaryDirectory(prefix="paise2-chaos-", ignore_cleanup_errors=True) as place:
        try:
            with Environment(Path(place), seed=seed, patience=6 if short else 1) as environment:
                figures = environment.figures
                scenario.run(environment, scale)
            result = "holds"
        except pytest.skip.Exception as reason:
            result = f"skipped: {reason}"
        except (Exception, pytest.fail.Exception) as error:
            traceback.print_exc()
            result = f"**fails**: {type(error).__name__}: {' '.join(str(error).split())[:200]}"
    told = ", ".join(f"{name} {value}" for name, value in figures.items())
    sizes = ", ".join(f"{value:g} {name}" for name, value in scale.items())
    seconds = time.monotonic() - began
    print(
        f"| {scenario.row} | {scenario.title} | {sizes} | {seed} | {result} | {told} |"
        f" {seconds:.0f} |",
        flush=True,
    )
    return not result.startswith("**")


def _short(scenario: Scenario) -> Scale:
    marks = getattr(scenario.run, "pytestmark", [])
    scale: Scale = next(m for m in marks if m.name == "parametrize").args[1][0].values[0]
    return scale


if __name__ == "__main__":
    sys.exit(main())
