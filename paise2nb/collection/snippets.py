"""Snippets of long texts.

The time of FTS5's snippet() grows with the square of the matches in a text: 10,000 take two
seconds, a million take hours.
"""

import re
from itertools import islice

from paise2nb.collection.index_text import indexed, readable
from paise2nb.core.render import HIT_END, HIT_START

COMPARED = 200  # first matches, among which the part with most of the terms is found
LENGTH = 160  # characters of a snippet


def snippet_of(text: str, terms: list[str]) -> str:
    """The part of a long text that has most of the terms, with the matches marked.

    A word matches if it begins like one of the terms: nearly what the index does, in a time that
    grows with the text only.
    """
    phrases = [readable(phrase) for term in terms for phrase in re.findall(r'"([^"]*)"', term)]
    words = dict.fromkeys(word.lower() for word in re.findall(r"\w+", " ".join(phrases)))
    patterns = [_pattern(word) for word in words]
    match_any = re.compile("|".join(patterns) or "(?!)", re.IGNORECASE)
    found = list(islice(match_any.finditer(text), COMPARED))
    if not found:
        return text[:LENGTH].strip() + "…"

    def variety(begin: int) -> int:
        end = begin + LENGTH
        return len({m[0].lower()[:3] for m in found if begin <= m.start() < end})

    begin = max((match.start() for match in found), key=variety)
    begin = max(begin - LENGTH // 4, 0)
    part = text[begin : begin + LENGTH]
    if begin > 0:
        part = "…" + (part.partition(" ")[2] or part)
    marked = match_any.sub(lambda match: f"{HIT_START}{match[0]}{HIT_END}", part.strip())
    return marked + "…"


def _pattern(word: str) -> str:
    """The pattern of the words that begin like a word; without spaces, of the word itself."""
    if indexed(word) != word:
        return re.escape(word)
    return rf"\b{re.escape(word[: max(3, len(word) - 3)])}\w*"
