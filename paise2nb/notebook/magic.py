"""``%paise2`` and ``%%paise2``: the command table in a kernel, its results as objects.

Errors are one line, and yet fail the cell, so that Run All stops there.
"""

from __future__ import annotations

import atexit
import sys
from contextlib import suppress
from typing import TYPE_CHECKING, Any

from IPython.core.magic import needs_local_scope, no_var_expand

from paise2nb.core.errors import PaiseError
from paise2nb.core.render import in_cell_words, one_line
from paise2nb.notebook.completion import matcher
from paise2nb.notebook.magic_line import keep_question_marks, split

if TYPE_CHECKING:
    from IPython.core.interactiveshell import InteractiveShell

    from paise2nb.app import App
    from paise2nb.notebook.session import NotebookSession

NAME = "paise2"
NOTEBOOK_HELP = f"""\
%{NAME} jobs --help explains one of them. %%{NAME} enqueue fetch takes one argument a line from the
cell. $name and {{expression}} give the values of variables where they are whole words, and
x = %{NAME} status keeps a result."""


class Magic:
    """The magic of one shell, and the apps that its lines have opened."""

    def __init__(self, shell: InteractiveShell) -> None:
        self.shell = shell
        self.others: dict[str, App] = {}

    def session(self) -> NotebookSession:
        """The session of one line."""
        from paise2nb.notebook.session import NotebookSession

        return NotebookSession(self.shell, self.others)

    def run(self, line: str, cell: str | None, local: dict[str, Any] | None) -> Any:
        """Run one line; its result.

        Args:
            line: the words after ``%paise2``.
            cell: the lines below ``%%paise2``, None for ``%paise2``.
            local: the variables of the function in which the line stands.

        Raises:
            Exception: what went wrong, shown in one line; raw from ``replay`` or with ``--debug``.
        """
        from paise2nb.commands import main

        session = self.session()
        session.cell = cell
        try:
            words = split(line, {**self.shell.user_ns, **(local or {})})
            result = main(words, session, f"%{NAME}")
            return result.to_dict() if session.json and hasattr(result, "to_dict") else result
        except KeyboardInterrupt as interrupt:
            _show_as(interrupt, "interrupted")
            raise
        except PaiseError as error:
            if not (session.debug or session.raw):
                _show_as(error, f"error: {in_cell_words(str(error))}")
            raise
        except Exception as error:
            if not (session.debug or session.raw):
                said = one_line(f"error: {type(error).__name__}: {error}")
                _show_as(error, f"{said}; --debug shows the traceback")
            raise
        finally:
            session.close()

    def close(self) -> None:
        """Close every app that is open in this kernel."""
        from paise2nb import app as apps

        current = apps.current()
        # The current one first: an older one may own the temporary directory of both.
        opened = [*([] if current is None else [current]), *self.others.values()]
        self.others.clear()
        for app in opened:
            # What can't be closed at the kernel's end is not worth a traceback there.
            with suppress(PaiseError):
                app.close()


def _show_as(error: BaseException, line: str) -> None:
    """Make IPython show an exception as one line; to code that catches it, it stays what it is."""
    error._render_traceback_ = lambda: [one_line(line)]  # type: ignore[attr-defined]


def _help() -> str:
    """What ``%paise2?`` shows: the commands as they are, and what is special to a notebook."""
    from paise2nb.commands import table

    with table.make_context(f"%{NAME}", [], resilient_parsing=True) as context:
        return f"{context.get_help()}\n\n{NOTEBOOK_HELP}"


def load(shell: InteractiveShell) -> None:
    """Register the magic in a shell; a second time changes nothing."""
    if NAME in shell.magics_manager.magics["line"]:
        return
    magic = Magic(shell)

    @no_var_expand
    @needs_local_scope
    def paise2(line: str, cell: str | None = None, local_ns: dict[str, Any] | None = None) -> Any:
        return magic.run(line, cell, local_ns)

    paise2.magic = magic  # type: ignore[attr-defined]
    paise2.matcher = matcher(magic)  # type: ignore[attr-defined]
    paise2.getdoc = _help  # type: ignore[attr-defined]
    shell.Completer.custom_matchers.append(paise2.matcher)  # type: ignore[attr-defined]
    shell.register_magic_function(paise2, "line_cell", NAME)  # type: ignore[arg-type]
    shell.input_transformers_cleanup.append(keep_question_marks)
    atexit.register(magic.close)


def unload(shell: InteractiveShell) -> None:
    """Take the magic out of a shell, and close what it has opened."""
    function = shell.magics_manager.magics["line"].pop(NAME, None)
    shell.magics_manager.magics["cell"].pop(NAME, None)
    with suppress(ValueError):
        shell.input_transformers_cleanup.remove(keep_question_marks)
    if function is not None:
        with suppress(ValueError):
            shell.Completer.custom_matchers.remove(function.matcher)
        atexit.unregister(function.magic.close)
        if dashboard := sys.modules.get("paise2nb.notebook.dashboard"):
            dashboard.close_panels()
        function.magic.close()
