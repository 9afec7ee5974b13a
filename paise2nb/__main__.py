"""The command line: ``paise2 …`` and ``python -m paise2nb …``."""

import json
import os
import signal
import sys
import traceback
from collections.abc import Sequence
from contextlib import closing
from typing import Any, NoReturn

from paise2nb.core.errors import PaiseError, redacted
from paise2nb.core.render import UNSAFE, one_line, painted, plain

INTERRUPTED = 130


def main(args: Sequence[str] | None = None) -> int:
    """Run one command line and return its exit status.

    Args:
        args: the words after the program's name; None takes those of this process.
    """
    try:
        return _run(args)
    except KeyboardInterrupt as interrupt:  # also while it imports, or prints an error
        if str(interrupt):
            print(interrupt, file=sys.stderr)
        return INTERRUPTED


def _run(args: Sequence[str] | None) -> int:
    if os.getpid() == 1:  # of a container: the kernel drops signals that have no handler
        signal.signal(signal.SIGTERM, _on_term)
    from paise2nb.commands import Session, table
    from paise2nb.commands import main as run

    for name, mode in (("stdin", "r"), ("stdout", "w"), ("stderr", "w")):
        if getattr(sys, name) is None:  # it was closed, as a daemon's may be
            setattr(sys, name, os.fdopen(os.open(os.devnull, os.O_RDWR), mode))
    for stream in (sys.stdout, sys.stderr):
        if hasattr(stream, "reconfigure"):
            stream.reconfigure(errors="backslashreplace")
    if "_PAISE2_COMPLETE" in os.environ:  # set by the completion script that click generates
        table.main(prog_name="paise2")
    words = sys.argv[1:] if args is None else args
    session = Session()
    try:
        with closing(session):
            result = run(words, session)
            show(result, session)
            return int(getattr(result, "exit_status", session.exit_status))
    except BrokenPipeError:
        # The reader has closed the pipe. What is still buffered must not raise again at exit.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 1
    except Exception as error:  # of any command: one line unless --debug asks for the traceback
        return print_error(error, debug=session.debug or "--debug" in words)


def _on_term(number: int, frame: object) -> NoReturn:
    """End a start that is too young to have workers; a supervisor has a handler of its own."""
    sys.exit(128 + number)


def show(result: Any, session: Any) -> None:
    """Print a result as JSON or as text, with colours in a terminal."""
    if session.json:
        print(as_json(result), flush=True)
    elif result is not None:
        text = plain(session.text(result))
        if sys.stdout.isatty() and "NO_COLOR" not in os.environ:
            from rich.console import Console

            Console(highlight=False).print(painted(text), soft_wrap=True)
        else:
            print(text, flush=True)


def as_json(result: Any) -> str:
    """Format a result as JSON without characters that act on a terminal."""
    data = result.to_dict() if hasattr(result, "to_dict") else result
    text = json.dumps(data, ensure_ascii=False, indent=2, default=str)
    return UNSAFE.sub(lambda found: json.dumps(found[0])[1:-1], text)


def print_error(error: Exception, *, debug: bool) -> int:
    """Print an error in one line on standard error, and return the exit status."""
    if debug:
        traceback.print_exception(error)
    if isinstance(error, PaiseError):
        print(f"error: {one_line(error)}", file=sys.stderr)
        return error.exit_status
    text = one_line(redacted(f"{type(error).__name__}: {error}"))
    hint = "" if debug else "; --debug shows the traceback"
    print(f"error: {text}{hint}", file=sys.stderr)
    return 1


if __name__ == "__main__":
    sys.exit(main())
