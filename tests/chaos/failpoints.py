"""Failpoints: a process that loads this module ends at once around a transaction of its database.

The variable PAISE2_CHAOS_FAILPOINTS holds a directory and points such as ``claim:inside:3``: the
method that writes (with the state that an execution ends in, ``end.completed``), the moment
(``before`` the transaction begins, ``inside`` it with all statements done, ``after`` it is
committed), and which one of those that the process makes. Each point fires once, and leaves a
file of its name.
"""

from __future__ import annotations

import os
import sys
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

from paise2nb.core.sqlite import Database
from paise2nb.jobs import Outcome

VARIABLE = "PAISE2_CHAOS_FAILPOINTS"
STATUS = 77  # the exit status of a process that a failpoint ended


def variable(directory: Path, points: list[str]) -> dict[str, str]:
    """The environment that arms the points."""
    directory.mkdir(exist_ok=True)
    return {VARIABLE: " ".join([str(directory), *points])}


def kind() -> str:
    """The method of the job store that asked for the transaction."""
    frame = sys._getframe(2)
    method = frame.f_locals.get("method")  # of the decorator `transaction`
    if method is None:
        return frame.f_code.co_name
    outcomes = [arg for arg in frame.f_locals["args"] if isinstance(arg, Outcome)]
    return method.__name__ + (f".{outcomes[0].state}" if outcomes else "")


def arm(directory: Path, points: set[str]) -> None:
    """Wrap the transactions of this process."""
    plain = Database.write
    seen: Counter[str] = Counter()

    def reached(point: str) -> None:
        if point in points:
            try:
                os.close(os.open(directory / point, os.O_CREAT | os.O_EXCL))
            except FileExistsError:
                return
            os._exit(STATUS)

    def write(self: Database, work: Callable[..., Any], *args: Any, **kwargs: Any) -> Any:
        name = kind()
        seen[name] += 1
        number = seen[name]

        def inside(*parameters: Any, **named: Any) -> Any:
            value = work(*parameters, **named)
            reached(f"{name}:inside:{number}")
            return value

        reached(f"{name}:before:{number}")
        value = plain(self, inside, *args, **kwargs)
        reached(f"{name}:after:{number}")
        return value

    Database.write = write  # type: ignore[method-assign]


if VARIABLE in os.environ:
    place, *armed = os.environ[VARIABLE].split(" ")
    arm(Path(place), set(armed))
