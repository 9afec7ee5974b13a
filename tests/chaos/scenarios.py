"""A scenario is one function with a short scale for every test run and a full one."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import NamedTuple

import pytest

from tests.chaos.environment import Environment

Scale = Mapping[str, float]
Run = Callable[[Environment, Scale], None]


class Scenario(NamedTuple):
    """One row of the table.

    Attributes:
        row: its number. Scenarios that test the same promise share one.
        title: what happens in it.
        short: the scale of the short form.
        full: the scale of the full form.
        seeds: how many seeds the full form runs.
        run: asserts what must hold, and stores its figures in the environment.
    """

    row: int
    title: str
    short: Scale
    full: Scale
    seeds: int
    run: Run


SCENARIOS: list[Scenario] = []


def scenario(
    row: int, title: str, *, short: Scale, full: Scale, seeds: int = 1
) -> Callable[[Run], Run]:
    """Register a test as a scenario; pytest runs it with the short scale."""

    def register(run: Run) -> Run:
        SCENARIOS.append(Scenario(row, title, short, full, seeds, run))
        return pytest.mark.parametrize("scale", [pytest.param(short, id="short")])(run)

    return register
