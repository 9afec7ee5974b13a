"""When a page was published, by its own dates and not by those of pages that it links to."""

import re
from collections import defaultdict
from contextlib import suppress
from datetime import date
from typing import Any

from lxml.etree import XPath

from paise2nb.content.extract.prose import kind_of_post, outermost

# Day and month, in an order that differs between countries, and a year.
_NUMBERS = re.compile(r"(?<![\d/-])(\d{1,2})([/-])(\d{1,2})\2((?:19|20)\d\d)(?!\d)")
_ISO = re.compile(r"(?<!\d)(\d{4}-\d\d-\d\d)(?!\d)")
MANY = 200  # elements with dates, and dates; more of them tell nothing new
_METAS = XPath("//meta[@content]")
_DATED = XPath("//time | //*[contains(@class, 'date') or contains(@class, 'Date')]")
_LINKED = XPath("ancestor-or-self::*[self::a or .//a][1]")
_APART = XPath("//aside | //nav | //footer[not(ancestor::article or ancestor::main)]")
_IS_OWN = re.compile(r"updated|modified|changed|published|posted|edited", re.IGNORECASE)


def published(
    tree: Any, url: str, attributes: str, *, american: bool, thorough: bool
) -> str | None:
    """The date of a page as YYYY-MM-DD, or None.

    Args:
        tree: The page. Only the contents of its meta elements are changed.
        url: Its URL, which may contain a date.
        attributes: The values of all attributes of the page, in lower case.
        american: Whether the month comes first in numbers if the page itself does not tell.
        thorough: Search the text, too. Slower.
    """
    from htmldate import find_date

    dated = (_DATED(tree) if "date" in attributes else list(tree.iter("time")))[:MANY]
    texts = [element.text for element in dated]
    _clarify(tree, dated, american=american)
    places = [(e.getparent(), e.getparent().index(e), e) for e in _of_others(tree, dated)]
    for parent, _, element in places:
        parent.remove(element)  # with the text behind it
    try:
        return find_date(tree, url=url, original_date=True, extensive_search=thorough)
    finally:
        for parent, index, element in places:
            parent.insert(index, element)
        for element, text in zip(dated, texts, strict=True):
            element.text = text


def _of_others(tree: Any, dated: list[Any]) -> list[Any]:
    """Elements with dates of other pages: navigation, and entries of lists that have links."""
    alike: defaultdict[Any, set[Any]] = defaultdict(set)
    for element in dated:
        for entry in _LINKED(element):
            alike[entry.tag, entry.get("class")].add(entry)
    found = {
        entry
        for entries in alike.values()
        if len(entries) > 1
        for entry in entries
        if not any(kind_of_post(outer) for outer in (entry, *entry.iterancestors()))
    }
    found.update(
        e for e in _APART(tree) if e.tag != "footer" or not _IS_OWN.search(e.text_content())
    )
    return outermost(tree, found)


def _clarify(tree: Any, dated: list[Any], *, american: bool) -> None:
    """Write ambiguous dates as YYYY-MM-DD, in the order that fits the other dates of the page."""
    metas = _METAS(tree)
    texts = [meta.get("content") for meta in metas] + [element.text or "" for element in dated]
    numbers = [match for text in texts for match in _NUMBERS.finditer(text)]
    if not numbers:
        return
    pairs = [(int(match[1]), int(match[3])) for match in numbers]
    pairs += [(int(m[1]), int(m[3])) for m in _NUMBERS.finditer(tree.text_content())]
    known = [*texts, *(element.get("datetime") or "" for element in dated)]
    days = [d for text in known for m in _ISO.finditer(text) if (d := _day(m[1]))]

    def distance(month_first: bool) -> int:
        read = [d for match in numbers[:MANY] if (d := _day(_iso(match, month_first)))]
        return min((abs(d - other).days for d in read for other in days[:MANY]), default=0)

    if any(first > 12 for first, _ in pairs):
        month_first = False
    elif any(second > 12 for _, second in pairs):
        month_first = True
    else:
        nearer = distance(month_first=False) - distance(month_first=True)
        month_first = nearer > 0 or (nearer == 0 and american)

    def clear(numbers: re.Match[str]) -> str:
        iso = _iso(numbers, month_first)
        return iso if _day(iso) else numbers[0]

    for meta in metas:
        meta.set("content", _NUMBERS.sub(clear, meta.get("content")))
    for element in dated:
        element.text = _NUMBERS.sub(clear, element.text or "")


def _iso(numbers: re.Match[str], month_first: bool) -> str:
    day, month = (numbers[3], numbers[1]) if month_first else (numbers[1], numbers[3])
    return f"{numbers[4]}-{month:0>2}-{day:0>2}"


def _day(iso: str) -> date | None:
    with suppress(ValueError):
        return date.fromisoformat(iso)
    return None
