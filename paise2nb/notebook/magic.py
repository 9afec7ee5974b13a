"""``%paise2`` and ``%%paise2``: the command table in a kernel, with results as objects.

An error is shown as one line and still fails the cell, so that Run All stops there.
"""

from __future__ import annotations

import atexit
import sys
from contextlib import suppress
from typing import TYPE_CHECKING, Any

from IPython.core.magic import needs_local_scope, no_var_expand

from paise2nb.core.errors import PaiseError, redacted
from paise2nb.core.render import in_cell_words, one_line
from paise2nb.notebook.completion import matcher
from paise2nb.notebook.magic_line import keep_line_ends, split, statement, unexpanded

if TYPE_CHECKING:
    from IPython.core.interactiveshell import InteractiveShell

    from paise2nb.app import App
    from paise2nb.notebook.session import NotebookSession

NAME = "paise2"
NOTEBOOK_HELP = f"""\
%{NAME} jobs --help explains one command. %%{NAME} enqueue fetch takes one argument per line from
the cell. Whole words $name and {{expression}} are replaced by the values of variables, and
x = %{NAME} status keeps a result. A final ; hides it (put a space between a URL and the ;)."""


class Magic:
    """The magic of one shell, and the apps that its lines have opened."""

    def __init__(self, shell: InteractiveShell) -> None:
        self.shell = shell
        self.other_apps: dict[str, App] = {}
        self.matcher = matcher(self.session)

    def session(self) -> NotebookSession:
        """Make the session of one line."""
        from paise2nb.notebook.session import NotebookSession

        return NotebookSession(self.shell, self.other_apps)

    def __call__(
        self, line: str, cell: str | None = None, local_ns: dict[str, Any] | None = None
    ) -> Any:
        """Run one line and return its result.

        Args:
            line: the words after ``%paise2``.
            cell: the lines below ``%%paise2``, None for ``%paise2``.
            local_ns: the variables of the function that contains the line.

        Raises:
            Exception: shown in one line, or unchanged from ``replay`` and with ``--debug``.
        """
        from paise2nb.commands import main

        session = self.session()
        session.cell = cell
        try:
            names = {**self.shell.user_ns, **(local_ns or {})}
            words = split(line, names)
            if note := unexpanded(line, names):
                session.say(note)
            result = main(words, session, f"%{NAME}")
            if statement(line)[1]:
                return None
            return result.to_dict() if session.json and hasattr(result, "to_dict") else result
        except KeyboardInterrupt as interrupt:
            _show_as(interrupt, str(interrupt) or "interrupted")
            raise
        except Exception as error:
            if session.raw and not session.debug:
                from paise2nb.notebook.tracebacks import show_own_frames

                show_own_frames(error, self.shell.InteractiveTB)
            elif not session.debug:
                text = f"error: {type(error).__name__}: {error}; --debug shows the traceback"
                if isinstance(error, PaiseError):
                    text = f"error: {in_cell_words(str(error))}"
                _show_as(error, text)
            raise
        finally:
            session.close()

    def getdoc(self) -> str:
        """Return what ``%paise2?`` shows: the help, and what is special to a notebook."""
        from paise2nb.commands import table

        with table.make_context(f"%{NAME}", [], resilient_parsing=True) as context:
            return f"{context.get_help()}\n\n{NOTEBOOK_HELP}"

    def close(self) -> None:
        """Close every app that is open in this kernel."""
        from paise2nb import app as apps

        current = apps.current()
        # The current one first: an older one may own the temporary directory of both.
        opened = [*([] if current is None else [current]), *self.other_apps.values()]
        self.other_apps.clear()
        for app in opened:
            with suppress(PaiseError):  # no traceback when the kernel ends
                app.close()


def _show_as(error: BaseException, line: str) -> None:
    """Make IPython show an exception as one line. It stays what it is for code that catches it."""
    vars(error)["_render_traceback_"] = lambda: [one_line(redacted(line))]


def load_ipython_extension(shell: InteractiveShell) -> None:
    """Add ``%paise2`` and ``%%paise2`` to a shell. Called by ``%load_ext paise2nb``."""
    if NAME in shell.magics_manager.magics["line"]:
        return
    magic = Magic(shell)
    function: Any = no_var_expand(needs_local_scope(magic))
    shell.register_magic_function(function, "line_cell", NAME)
    shell.Completer.custom_matchers.append(magic.matcher)
    shell.input_transformers_cleanup.append(keep_line_ends)
    atexit.register(magic.close)


def unload_ipython_extension(shell: InteractiveShell) -> None:
    """Remove the magic, and close what it has opened. Called by ``%unload_ext paise2nb``."""
    magic = shell.magics_manager.magics["line"].pop(NAME, None)
    shell.magics_manager.magics["cell"].pop(NAME, None)
    with suppress(ValueError):
        shell.input_transformers_cleanup.remove(keep_line_ends)
    if magic is not None:
        with suppress(ValueError):
            shell.Completer.custom_matchers.remove(magic.matcher)
        atexit.unregister(magic.close)
        if panel := sys.modules.get("paise2nb.notebook.panel"):
            panel.close_panels()
        magic.close()
