"""Words are found inside of scripts without spaces, and whatever form their letters have."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import pytest

from paise2nb.collection.index_text import indexed, readable
from paise2nb.collection.items import ItemStore
from paise2nb.core.render import HIT_END, HIT_START
from paise2nb.plugins import Document

TEXTS = {
    "chinese": "港口的账本放在木箱里。第1章节",
    "japanese": "古い港の帳簿は木の箱にあった。カタカナ ﾊﾝｶｸ",
    "korean": "대한민국의 항구에는 오래된 장부가 있다",
    "thai": "สมุดบัญชีของท่าเรืออยู่ในกล่องไม้",
    "mixed": "Die PDF文件 der Werft",
    "soft": "Der Hafen\u00adschreiber\u200blehrling war e\ufb03zient",
    "decomposed": "Le cafe\u0301 du quai",
    "hindi": "बंदरगाह की पुरानी किताब",
}


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ItemStore]:
    """A collection of the texts, each titled by its name."""
    path: Path = tmp_path_factory.mktemp("texts") / "items.db"
    with closing(ItemStore(path)) as opened:
        for name, text in TEXTS.items():
            url = f"https://example.org/{name}"
            facts = {"url": url, "key": url, "mime_type": "text/plain", "sha256": "0" * 64}
            about = {"size": len(text), "tag": None, "fetched_at": time.time()}
            opened.put(Document(text, title=name), **facts, **about)
        yield opened


@pytest.mark.parametrize(
    ("query", "name"),
    [
        *[
            (word, "chinese")
            for word in ("账本", "木箱", "账本放在木箱", "里", "账", "第1章", "1章节")
        ],
        *[(word, "japanese") for word in ("帳簿", "カタカナ", "ハンカク", "ﾊﾝｶｸ", "簿")],
        *[(word, "korean") for word in ("민국", "항구", "장부", "민국*")],
        *[(word, "thai") for word in ("บัญชี", "ท่าเรือ", "ไม้")],
        *[(word, "mixed") for word in ("PDF", "文件", "PDF文件", "pdf文")],
        *[(word, "soft") for word in ("Hafenschreiberlehrling", "effizient", "eﬃzient")],
        *[(word, "decomposed") for word in ("café", "cafe", "cafe\u0301")],
        *[(word, "hindi") for word in ("किताब", "पुरानी")],
    ],
)
def test_a_word_is_found(store: ItemStore, query: str, name: str) -> None:
    assert [row["title"] for row in store.search(query, 5)] == [name]


@pytest.mark.parametrize("query", ["箱木", "本账", "账箱", "국민", "件PDF", "कितब"])
def test_characters_that_are_not_neighbours_are_not_found(store: ItemStore, query: str) -> None:
    assert store.search(query, 5) == []


@pytest.mark.parametrize(
    ("query", "snippet"),
    [
        ("木箱", "港口的账本放在«木箱»里。第1章节"),
        ("账本 木箱", "港口的«账本»放在«木箱»里。第1章节"),
        ("账本放", "港口的«账本放»在木箱里。第1章节"),
        ("PDF文件", "Die «PDF文件» der Werft"),
        ("effizient", "Der Hafenschreiberlehrling war «effizient»"),
        ("里", "港口的账本放在木箱«里»。第1章节"),
    ],
)
def test_a_snippet_has_each_character_once(store: ItemStore, query: str, snippet: str) -> None:
    [row] = store.search(query, 5)
    assert row["snippet"].replace(HIT_START, "«").replace(HIT_END, "»") == snippet


@pytest.mark.parametrize("text", [*TEXTS.values(), "ascii only", "", "一", "一二", "a一b"])
def test_the_indexed_form_leads_back_to_the_text(text: str) -> None:
    plain = readable(indexed(text) or "")
    assert indexed(plain) == indexed(text)
    assert len(plain) <= len(text) + 2  # a ligature became three letters


def test_stored_text_is_composed(store: ItemStore) -> None:
    [row] = store.search("café", 5)
    item = store.get(row["id"])
    assert item is not None
    assert item["text"] == "Le café du quai"


def test_a_long_text_has_a_snippet_around_the_word(store: ItemStore) -> None:
    text = "码头" * 15_000 + "灯塔在海边" + "码头" * 5000
    url = "https://example.org/long"
    facts = {"url": url, "key": url, "mime_type": "text/plain", "sha256": "1" * 64}
    store.put(Document(text, title="long"), **facts, size=1, tag=None, fetched_at=time.time())
    [row] = store.search("灯塔", 5)
    assert f"{HIT_START}灯塔{HIT_END}在海边" in row["snippet"]
