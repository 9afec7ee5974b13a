"""The traceback of a replay: the frames of the user's own code first."""

from collections.abc import Iterator
from functools import partial
from pathlib import Path
from types import TracebackType
from typing import Any

from paise2nb.core.errors import PaiseError
from paise2nb.core.render import one_line
from paise2nb.views.history import is_own_code


def show_own_frames(error: BaseException, formatter: Any) -> None:
    """Let IPython show the frames of the user's code, and name those of libraries below them.

    The traceback stays as it is, so ``%debug`` opens the frame that failed. An error that the
    package itself raises, such as ``404 Not Found``, is shown in one line.

    Args:
        error: what the task has raised.
        formatter: formats tracebacks: the ``InteractiveTB`` of IPython's shell.
    """
    vars(error)["_render_traceback_"] = partial(_lines, error, formatter)


def _lines(error: BaseException, formatter: Any) -> list[str]:
    own, libraries = None, []
    for step in reversed(list(_after_the_replay(error.__traceback__))):
        if is_own_code(step.tb_frame.f_code.co_filename):
            own = TracebackType(own, step.tb_frame, step.tb_lasti, step.tb_lineno)
        elif own is None:
            libraries.append(step)
    if own is None and isinstance(error, PaiseError):
        return [one_line(f"error: {error}; %debug opens the frame that raised it")]
    shown = error.__traceback__ if own is None else own
    lines: list[str] = formatter.structured_traceback(type(error), error, shown, tb_offset=0)
    if own is not None and libraries:
        names = ", ".join(map(_name, reversed(libraries)))
        lines.insert(-1, f"It was raised in {names}. %debug opens that frame; u leads up to yours.")
    return lines


def _after_the_replay(step: TracebackType | None) -> Iterator[TracebackType]:
    """The steps below the function that calls the task, which is the last of the package's own."""
    steps = []
    while step is not None:
        steps.append(step)
        step = step.tb_next
    calls = [n for n, s in enumerate(steps) if s.tb_frame.f_code.co_name == "call_function"]
    yield from steps[calls[0] + 1 :] if calls else steps


def _name(step: TracebackType) -> str:
    path = Path(step.tb_frame.f_code.co_filename)
    return f"{path.parent.name}/{path.name}:{step.tb_lineno}"
