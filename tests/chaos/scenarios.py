"""What a scenario is: one function, with a short scale for every test run and a full one."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import NamedTuple

import pytest

from tests.chaos.environment import Environment

Scale = Mapping[str, float]
Hurt = Callable[[Environment, Scale], None]


class Scenario(NamedTuple):
    """One row of the table.

    Args:
        row: its number.
        title: what is done to whom.
        full: the scale of the full form.
        seeds: how many seeds the full form runs.
        run: the scenario itself: it asserts, and notes its figures in the house.
    """

    row: int
    title: str
    full: Scale
    seeds: int
    run: Hurt


SCENARIOS: list[Scenario] = []


def scenario(
    row: int, title: str, *, short: Scale, full: Scale, seeds: int = 1
) -> Callable[[Hurt], Hurt]:
    """Register a test as a scenario; pytest runs it with the short scale."""

    def register(run: Hurt) -> Hurt:
        SCENARIOS.append(Scenario(row, title, full, seeds, run))
        return pytest.mark.parametrize("scale", [pytest.param(short, id="short")])(run)

    return register
