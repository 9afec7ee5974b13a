"""Text as the full-text index sees it, and the way back for snippets.

The tokenizer of the index divides text at spaces and punctuation, which Chinese, Japanese, Korean
and Thai do not need. There, each two neighbouring characters are a word of the index, and the last
one of a run is a word, too. So a word inside of a run is found as a phrase of such pairs.
"""

import re
import sqlite3
import unicodedata
from contextlib import closing
from functools import lru_cache
from itertools import chain, islice, pairwise

from paise2nb.core.render import HIT_END, HIT_START

# Of the snippets of long texts:
COMPARED = 200  # first matches, among which the part with most of the terms is found
LENGTH = 160  # characters of a snippet

# No text that is stored contains these: see UNSTORABLE.
_BOUNDARY, _JOINT = "\x1e", "\x1f"  # around a run of pairs, and between two of them

_INVISIBLE = re.compile("[\u00ad\u180e\u200b-\u200d\u2060\ufeff]")  # soft hyphens, zero width
_MARKS = "\u0e31\u0e34-\u0e3a\u0e47-\u0e4e\u0eb1\u0eb4-\u0ebc\u0ec8-\u0ece"
_LETTERS = (
    "\u0e01-\u0e30\u0e32\u0e33\u0e40-\u0e46\u0e81-\u0eb0\u0eb2\u0eb3\u0ebd-\u0ec6\u0edc-\u0edf"
    "\u1100-\u11ff\u3005-\u3007\u3041-\u3096\u309d-\u309f\u30a1-\u30fa\u30fc-\u30ff\u3131-\u318e"
    "\u31f0-\u31ff\u3400-\u4dbf\u4e00-\u9fff\ua960-\ua97c\uac00-\ud7fb\uf900-\ufaff"
    "\U00020000-\U000323af"
)
# Not compiled here, because that takes 10 ms: most processes need none of them.
_UNIT = f"[{_LETTERS}][{_MARKS}]*"
_RUN = f"(?:{_UNIT})+"
SEPARATORS = re.compile(f"[\\s{_BOUNDARY}{_JOINT}]+")
_PIECE = f"[{HIT_START}{HIT_END}]|{_UNIT}"
_JOINED = f"(?:{_PIECE})+(?:{_JOINT}(?:{_PIECE})+)+"
_LAST = f"{_JOINT}{_UNIT}{_BOUNDARY}$"
_SINGLE = f"{_BOUNDARY}{_UNIT}{_BOUNDARY}$"

# Endings of English words that the stemmer of the index takes off.
_ENDINGS = (
    "ability able ably al ality alize ance ant ation ative ator ed ement ence ent er es ful fully"
    " fulness ibility ible ic ical icate icity ies ing ion ism ity ive iveness ization logy ly ment"
    " ness ous ously ousness y"
)


def indexed(text: str | None) -> str | None:
    """Return a text in the form that is indexed: NFKC, without invisible characters, in pairs."""
    if text is None or text.isascii():
        return text
    text = _INVISIBLE.sub("", unicodedata.normalize("NFKC", text))
    return re.sub(_RUN, _in_pairs, text)


def _in_pairs(run: re.Match[str]) -> str:
    units = re.findall(_UNIT, run[0])
    pairs = [first + second for first, second in pairwise(units)]
    return f"{_BOUNDARY}{_JOINT.join([*pairs, units[-1]])}{_BOUNDARY}"


def searched(phrase: str) -> tuple[str, bool]:
    """Return a phrase of a query in the form that is indexed.

    Returns:
        The phrase, and whether it is the beginning of a word: one character may be the first of
        a pair.
    """
    text = indexed(phrase) or ""
    return re.sub(_LAST, _BOUNDARY, text), bool(re.search(_SINGLE, text))


@lru_cache(maxsize=1000)
def with_prefix(beginning: str) -> tuple[str, list[str]]:
    """Return words that find all words with a beginning.

    The index has stems, and makes stems of the words of a query: "organization" is there as
    "organ", without the prefix "organiz", and "key" becomes "kei", with which no "keyboard" begins.

    Returns:
        A word whose stem it is if there is one, else itself, and a word for each other stem.
    """
    letters = unicodedata.normalize("NFD", beginning.lower())
    prefix = "".join(c for c in letters if not unicodedata.combining(c))
    if not prefix.isascii():  # the stemmer knows no other letters
        return beginning, []
    words = [prefix, f"{prefix}ful", f"{prefix}e"]  # of the last two most stems are the prefix
    for ending in _ENDINGS.split():
        parts = (n for n in range(len(ending)) if prefix.endswith(ending[:n]))
        words += [prefix + ending[n:] for n in parts]
    with closing(sqlite3.connect(":memory:")) as stemmer:
        stemmer.execute("CREATE VIRTUAL TABLE words USING fts5 (word, tokenize = 'porter')")
        stemmer.execute("CREATE VIRTUAL TABLE stems USING fts5vocab (words, instance)")
        stemmer.executemany("INSERT INTO words VALUES (?)", zip(words))
        rows = stemmer.execute("SELECT doc, term FROM stems ORDER BY doc").fetchall()
    stems: dict[str, str] = {}
    for number, stem in rows:
        if number == 1 or len(stem) > 2:  # shorter ones are those of other words
            stems.setdefault(stem, words[number - 1])
    common = prefix if prefix in stems else rows[0][1]
    return stems[common], [word for stem, word in stems.items() if not stem.startswith(common)]


def readable(snippet: str) -> str:
    """Return a part of an indexed text with its hits as it was, but in NFKC."""
    return re.sub(_JOINED, _without_pairs, snippet).replace(_BOUNDARY, "")


def _without_pairs(run: re.Match[str]) -> str:
    """Each character of a run once, in a hit if one of its pairs is in one."""
    before = run.string[: run.start()]
    in_hit = was_in_hit = before.rfind(HIT_START) > before.rfind(HIT_END)
    units: list[str] = []
    hits: list[bool] = []
    for pair in run[0].split(_JOINT):
        position = max(0, len(units) - 1)  # of the character that it shares with the one before
        for piece in re.findall(_PIECE, pair):
            if piece in (HIT_START, HIT_END):
                in_hit = piece == HIT_START
                continue
            if position == len(units):
                units.append(piece)
                hits.append(False)
            hits[position] |= in_hit
            position += 1
    marks = {(False, True): HIT_START, (True, False): HIT_END}
    changes = [marks.get(pair, "") for pair in pairwise([was_in_hit, *hits, in_hit])]
    return "".join(chain.from_iterable(zip(changes, [*units, ""], strict=True)))


def snippet_of(text: str, terms: list[str]) -> str:
    """The part of a long text that has most of the terms, with the matches marked.

    The time of FTS5's snippet() grows with the square of the matches in a text: 10,000 take two
    seconds, a million take hours. Here a word matches if it begins like one of the terms:
    nearly what the index does, in a time that grows with the text only.
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
