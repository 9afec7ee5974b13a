"""Items of extreme size: they are stored within bounds, and searched without long waits."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from paise2nb.collection.items import LINE_LENGTH, METADATA_LENGTH, ItemStore
from paise2nb.collection.sql import LONG
from paise2nb.core.render import HIT_END, HIT_START
from paise2nb.plugins import Document


@pytest.fixture
def store(tmp_path: Path) -> Iterator[ItemStore]:
    store = ItemStore(tmp_path / "items.db")
    yield store
    store.close()


def put(store: ItemStore, text: str, **fields: Any) -> dict[str, Any]:
    item_id = store.put(
        Document(text=text, **fields), url="http://h/", key="http://h/", mime_type="text/plain",
        sha256="ab" * 32, size=1, tag=None, fetched_at=1.0,
    )  # fmt: skip
    item = store.get(item_id)
    assert item is not None
    return item


def test_fields_of_an_item_are_bounded(store: ItemStore) -> None:
    item = put(store, "text", title="T" * 10_000_000, author="A " * 10_000, metadata={
        "keywords": ["word"] * 1_000_000, "source": {"etag": "x"},
    })  # fmt: skip
    assert len(item["title"]) == len(item["author"]) == LINE_LENGTH
    assert "characters left out" in item["title"]
    assert item["metadata"] == {
        "keywords": "left out: 8,000,000 characters", "source": {"etag": "x"},
    }  # fmt: skip
    assert len(str(item["metadata"])) < METADATA_LENGTH


@pytest.mark.parametrize("name", ["word {}", "x" * METADATA_LENGTH + "{}"])
def test_metadata_of_many_short_entries_or_long_names_is_bounded(
    store: ItemStore, name: str
) -> None:
    number = 20_000 if len(name) < 100 else 1
    metadata = {name.format(n): n for n in range(number)}
    item = put(store, "two words", metadata={**metadata, "source": {"etag": "x"}})
    left_out = [f"{number:,} entries of the metadata"]
    assert item["metadata"] == {"source": {"etag": "x"}, "left_out": left_out}
    assert item["words"] == 2


def test_an_item_names_some_of_very_many_with_equal_bytes(store: ItemStore) -> None:
    facts = {"mime_type": "text/plain", "sha256": "0" * 64, "size": 1, "tag": None}
    urls = (f"http://h/{number}" for number in range(200))
    ids = store.put_many(
        (Document("x"), {"url": url, "key": url, "fetched_at": 1.0, "job_id": 1, **facts})
        for url in urls
    )
    item = store.get(ids[0])
    assert item is not None
    assert item["duplicates"] == ids[1:101]


def test_a_word_that_occurs_a_million_times_is_found_at_once(store: ItemStore) -> None:
    """FTS5 alone would take hours for the snippet."""
    item = put(store, "error " * 1_000_000)
    [hit] = store.search("error", 10)
    assert (hit["id"], hit["snippet"][:7]) == (item["id"], f"{HIT_START}error{HIT_END}")


@pytest.mark.parametrize(
    ("query", "marked"),
    [
        ("penguin ice", ["Penguins", "ice"]),
        ('"on the ice"', ["on", "the", "ice"]),
        ("peng*", ["Penguins"]),
        ("penguin OR (ice", ["Ice", "or"]),
    ],
)
def test_the_snippet_of_a_long_text_has_the_most_terms(
    store: ItemStore, query: str, marked: list[str]
) -> None:
    filler = "Nothing of interest stands here. " * (LONG // 30)
    put(store, f"{filler} Ice or not. {filler} Penguins sleep on the ice. {filler} OR")
    [hit] = store.search(query, 10)
    for word in marked:
        assert f"{HIT_START}{word}{HIT_END}" in hit["snippet"]
    assert len(hit["snippet"]) < 300


def test_a_match_in_the_title_alone_shows_the_beginning_of_a_long_text(store: ItemStore) -> None:
    put(store, "Some words. " * LONG, title="Penguins")
    [hit] = store.search("penguin", 10)
    assert hit["snippet"].startswith("Some words. ")
