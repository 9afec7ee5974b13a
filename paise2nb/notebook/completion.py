"""Completion after ``%paise2``, ``x = %paise2`` and ``%%paise2``, in a terminal and JupyterLab.

This is a matcher of IPython's completer: the older hook for commands mixes in keywords, and does
not see a line that begins with an assignment.
"""

from __future__ import annotations

import re
import shlex
from collections.abc import Callable
from contextlib import suppress
from glob import escape, glob
from typing import TYPE_CHECKING

from IPython.core import completer

from paise2nb.core.errors import PaiseError
from paise2nb.notebook.magic_line import shell_words

if TYPE_CHECKING:
    from paise2nb.commands.session import Session

LINE = r"[ \t]*(?:%%|(?:[\w.,\[\]\"' \t]+=[ \t]*)?%)paise2[ \t]+(?P<line>.*)"


def matcher(session: Callable[[], Session]) -> object:
    """Make a matcher for IPython's ``Completer.custom_matchers``.

    Args:
        session: makes the session of one line.
    """

    @completer.context_matcher()  # type: ignore[untyped-decorator]  # IPython declares no types here
    def paise2_matcher(context: completer.CompletionContext) -> completer.SimpleMatcherResult:
        match = re.fullmatch(LINE, context.text_until_cursor)
        if match is None:
            return {"completions": []}
        from paise2nb.commands import table
        from paise2nb.commands.completion import complete

        words = shell_words(match["line"])
        incomplete = words.pop() if words and not match["line"][-1:].isspace() else ""
        found: list[str] = []
        with suppress(PaiseError):
            found = [item.value for item in complete(table, words, incomplete, session())]
        if not found and words[:1] in (["enqueue"], ["export"]):
            found = [shlex.quote(name) for name in sorted(glob(f"{escape(incomplete)}*"))]
        # For an empty answer IPython would offer Python's names and its own magics.
        completions = [
            completer.SimpleCompletion(word, type="paise2") for word in found or [incomplete]
        ]
        return {"completions": completions, "suppress": True, "matched_fragment": incomplete}

    return paise2_matcher
