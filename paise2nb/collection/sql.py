"""The collection's SQL: ``statements.sql`` as a dictionary by name, and the numbers in it."""

from pathlib import Path

from paise2nb.core.formats import read_statements
from paise2nb.core.render import HIT_END, HIT_START

LONG = 20_000  # characters of a text for which FTS5 makes no snippet

SQL = read_statements(
    Path(__file__).parent,
    hit_start=HIT_START,
    hit_end=HIT_END,
    snippet_words=24,
    long=LONG,
    title_weight=5.0,  # a match in the title counts as much as five in the text
    twins=100,  # with equal bytes, which an item names
    common=5000,  # items with the facets of a query from which on the newest items are searched
)
