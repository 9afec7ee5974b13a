"""The log of a lighthouse: a hundred short pages of the bundled site, not all of which can be read.

The pages are made when they are asked for, and are the same each time.
"""

import json
from datetime import date, timedelta
from functools import cache
from pathlib import Path
from string import Template
from typing import Any

from paise2nb.core.loopback import Answer

_DAYS = [date(2025, 1, 1) + timedelta(number) for number in range(100)]
FILES = [f"log-{day}" for day in _DAYS]
TORN_OUT = {FILES[number] for number in (7, 32, 57, 82)}
BUSY = {FILES[number] for number in (20, 53, 86)}
_BAROGRAPH = 71  # the number of a file of a type that nothing reads


@cache
def _words() -> dict[str, Any]:
    text: str = Path(__file__).with_name("logbook.json").read_text("utf-8")
    words: dict[str, Any] = json.loads(text)
    return words


def answer(file: str) -> Answer:
    """Return a page of the log."""
    number = FILES.index(file)
    if number == _BAROGRAPH:
        return Answer(bytes(range(256)), headers={"Content-Type": "application/x-barograph"})
    words, day = _words(), _DAYS[number]
    title = Template(words["title"]).substitute(day=f"{day.day} {day:%B %Y}")
    page = Template(words["page"]).substitute(
        {name: choices[number % len(choices)] for name, choices in words["choices"].items()},
        title=title,
        iso=day,
        force=number * 5 % 11,
        ships=6 + number // 12 + number * 7 % 9,
        boats=number * 3 % 7,
        oil=14 - number // 20,
    )
    return Answer(page.encode(), headers={"Content-Type": "text/html; charset=utf-8"})
