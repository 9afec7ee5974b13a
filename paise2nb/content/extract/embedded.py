"""The text in the data of a page: in JSON-LD for search engines, and in the state of its scripts.

A page that scripts build has no other. Strings are read one by one, because such data comes as
JSON, as JSON in strings of JSON, as JavaScript and with mistakes.
"""

import json
import re
from collections.abc import Callable, Iterable, Iterator
from contextlib import suppress
from html import unescape
from typing import Any

from lxml.etree import XPath, strip_elements
from lxml.html import fragment_fromstring

from paise2nb.content.extract.prose import FEW, LONG, lines_of, squeezed

_LINKED = ("application/ld+json", "application/settings+json")  # those that trafilatura reads
_STATE = re.compile(
    r"\A\s*[\[{]|__[a-z_]+__|(?:state|data|props|context)\w*[\"'\]]*\s*=", re.IGNORECASE
)
_HEAD = 200  # characters of a script by which it is known as state
# Possessive, and to the end of the text if a string has none, so that hostile data takes no more
# than linear time.
_STRING = re.compile(
    r'(?:"(\w++)"\s*+:\s*+\[?+\s*+)?"((?:[^"\\]++|\\.)*+)(?:"|(\\?+\Z))', re.DOTALL
)
SAMPLES = 1000  # pieces of a text by which it is known to be in another one
_PUSH = "__next_f"  # by which a script adds a piece to a text
_JSON = re.compile(r"\s*(?:\w+:)?[\[{]")
_ATTRIBUTES = XPath("//@data-preloaded | //@data-page | //@data-props")
_NOSCRIPT = XPath("//noscript")
# Keys of texts that may be short. Elsewhere a text is known by its length.
_KEYS = re.compile(
    "articleBody|reviewBody|text|transcript|recipeInstructions|recipeIngredient|value|content"
    "|children|body|html|title|headline|heading|caption|description|paragraph"
)
_MARKUP = re.compile(r"</?(?:p|br|div|li|ul|h[1-6]|strong|em|a|span|b|i)\b[^<>]*>", re.IGNORECASE)
# Four words in a row, or ten characters of a script without spaces.
_WORDS = re.compile(
    r"(?<![^\W\d_])(?:[^\W\d_]++[\s,;:'\u2019-]++){3}[^\W\d_]|[\u0e00-\u0eff\u3040-\u9fff]{10}"
)
_CODE = re.compile(r"[{};]\s*$|=>|\bfunction\b|[{;]\s*\n")


def take_scripts(tree: Any) -> list[Any]:
    """Remove what only scripts and styles need from a page, but not JSON-LD; return the scripts."""
    scripts = list(tree.iter("script"))
    for script in scripts:
        if script.get("type") not in _LINKED:
            script.tag = "style"
    strip_elements(tree, "style", "svg", with_tail=False)
    return scripts


def completed(body: str, tree: Any, scripts: Iterable[Any]) -> str:
    """A text with what only the data of its page has.

    Args:
        body: The extracted text.
        tree: The page.
        scripts: Those that it had.
    """
    linked = [script.text for script in scripts if script.get("type") in _LINKED and script.text]
    found = _lines(linked, lambda key, value: key == "articleBody")
    if len(body) < FEW and not found:
        found = _lines(linked, _is_text) or _lines(_states(scripts, tree), _is_text)
        found = found or [line for element in _NOSCRIPT(tree) for line in lines_of(element)]
    if not found:
        return body
    text, kept = squeezed("".join(found)), squeezed(body)
    step = max(LONG, len(text) // SAMPLES)
    samples = [text[at : at + LONG] for at in range(0, len(text), step)]
    if 2 * sum(sample in kept for sample in samples) > len(samples):
        return body
    return "\n".join([*found, *(line for line in body.split("\n") if squeezed(line) not in text)])


def _states(scripts: Iterable[Any], tree: Any) -> Iterator[str]:
    """The data that scripts build a page from."""
    pieces = []
    for script in scripts:
        text = script.text or ""
        if _PUSH in text[:_HEAD]:
            pieces += [value for _, value in _strings(text, inner=False)]
        elif _STATE.search(text, 0, _HEAD):
            yield text
    yield "".join(pieces)
    yield from _ATTRIBUTES(tree)


def _lines(data: Iterable[str], wanted: Callable[[str, str], bool]) -> list[str]:
    """The wanted texts in data, without markup and repetitions."""
    lines: dict[str, None] = {}
    for text in data:
        for key, value in _strings(text):
            if wanted(key, value):
                lines.update(dict.fromkeys(_plain(value)))
    return list(lines)


def _strings(text: str, *, inner: bool = True) -> Iterator[tuple[str, str]]:
    """The strings in some data, each with the key that it belongs to, or an empty one.

    Args:
        text: The data.
        inner: In place of a string that is JSON, its strings.
    """
    for match in _STRING.finditer(text):
        key, value, end = match.groups()
        if end is not None:  # no string, but what follows a mistake
            return
        if "\\" in value:
            with suppress(ValueError):
                value = json.loads(f'"{value}"', strict=False)
        if inner and _JSON.match(value):
            yield from _strings(value)
        else:
            yield key or "", value


def _is_text(key: str, value: str) -> bool:
    """Whether a string is likely to be shown to people."""
    if not _WORDS.search(value) or _CODE.search(value):
        return False
    return bool(_KEYS.fullmatch(key)) or len(value) >= LONG or bool(_MARKUP.search(value))


def _plain(value: str) -> list[str]:
    """The lines of a text that may have markup."""
    value = unescape(value) if "&lt;" in value else value
    # The parser would stop at half of a character.
    value = value.encode("utf-16", "surrogatepass").decode("utf-16", "ignore")
    if _MARKUP.search(value):
        return lines_of(fragment_fromstring(value, create_parent="div"))
    return [line for part in value.split("\n") if (line := " ".join(part.split()))]
