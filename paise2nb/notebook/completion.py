"""Completion after ``%paise2``, ``x = %paise2`` and ``%%paise2``, in a terminal and JupyterLab.

A matcher of IPython's own kind: the older hook for commands mixes in keywords, and does not see
a line that opens with an assignment.
"""

from __future__ import annotations

import re
import shlex
from contextlib import suppress
from glob import escape, glob
from typing import TYPE_CHECKING

from IPython.core.completer import (
    CompletionContext,
    SimpleCompletion,
    SimpleMatcherResult,
    context_matcher,
)

from paise2nb.core.errors import PaiseError
from paise2nb.notebook.magic_line import shell_words

if TYPE_CHECKING:
    from paise2nb.notebook.magic import Magic

LINE = re.compile(r"[ \t]*(?:%%|(?:[\w.,\[\]\"' \t]+=[ \t]*)?%)paise2[ \t]+(?P<line>.*)")


def matcher(magic: Magic) -> object:
    """The matcher of a shell's magic, for ``Completer.custom_matchers``."""

    @context_matcher()  # type: ignore[untyped-decorator]
    def paise2_matcher(context: CompletionContext) -> SimpleMatcherResult:
        match = LINE.fullmatch(context.text_until_cursor)
        if match is None:
            return {"completions": []}
        from paise2nb.commands import table
        from paise2nb.commands.completion import complete

        line = match["line"]
        words = shell_words(line)
        incomplete = words.pop() if words and not line[-1:].isspace() else ""
        found: list[str] = []
        with suppress(PaiseError):
            found = [item.value for item in complete(table, words, incomplete, magic.session())]
        if not found and words[:1] in (["enqueue"], ["export"]):
            found = [shlex.quote(name) for name in sorted(glob(f"{escape(incomplete)}*"))]
        # Never nothing: IPython would offer Python's names and its own magics in its place.
        return {
            "completions": [
                SimpleCompletion(word, type="paise2") for word in found or [incomplete]
            ],
            "suppress": True,
            "matched_fragment": incomplete,
        }

    return paise2_matcher


__all__ = ["matcher"]
