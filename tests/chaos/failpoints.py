"""Failpoints: end a process around a transaction of its database.

A process that loads this module as a plugin exits at the points that the environment variable
PAISE2_CHAOS_FAILPOINTS names. The variable holds a directory and points such as
``claim:inside:3``:

- the method that writes; for ends the state of the first outcome, as in ``end.completed``, and
  ``claim`` where nothing has ended,
- the moment: ``before`` the transaction begins, ``inside`` it after all statements, or ``after``
  it is committed,
- the number of the call in this process.

Each point fires once, and then leaves a file of its name in the directory.
"""

from __future__ import annotations

import os
import sys
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

from paise2nb.core.sqlite import Database

VARIABLE = "PAISE2_CHAOS_FAILPOINTS"
STATUS = 77  # the exit status of a process that a failpoint ended


def variables(directory: Path, points: list[str]) -> dict[str, str]:
    """The environment variables that set these points."""
    directory.mkdir(exist_ok=True)
    return {VARIABLE: " ".join([str(directory), *points])}


def writing_method() -> str:
    """The name of the method of the job store that asked for the transaction."""
    frame = sys._getframe(2)
    method = frame.f_locals.get("method")  # of the decorator `transaction`
    if method is None:
        return frame.f_code.co_name
    name, first = method.__name__.removeprefix("_"), next(iter(frame.f_locals["args"]), None)
    if name != "end_several":
        return str(name)
    return f"end.{first[0][1].state}" if first else "claim"


def set_points(directory: Path, points: set[str]) -> None:
    """Wrap the transactions of this process."""
    original = Database.write
    calls: Counter[str] = Counter()

    def reach(point: str) -> None:
        if point in points:
            try:
                os.close(os.open(directory / point, os.O_CREAT | os.O_EXCL))
            except FileExistsError:  # it has fired in another process
                return
            os._exit(STATUS)

    def write(self: Database, work: Callable[..., Any], *args: Any, **kwargs: Any) -> Any:
        name = writing_method()
        calls[name] += 1
        number = calls[name]

        def inside(*parameters: Any, **named: Any) -> Any:
            value = work(*parameters, **named)
            reach(f"{name}:inside:{number}")
            return value

        reach(f"{name}:before:{number}")
        value = original(self, inside, *args, **kwargs)
        reach(f"{name}:after:{number}")
        return value

    Database.write = write  # type: ignore[method-assign]


if VARIABLE in os.environ:
    directory, *points = os.environ[VARIABLE].split(" ")
    set_points(Path(directory), set(points))
