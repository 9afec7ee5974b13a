"""The collection: one item for each URL, and the searches that find it."""

from __future__ import annotations

import sqlite3
import stat
import subprocess
import sys
import threading
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as some

from paise2nb.collection.items import FORMAT, ItemStore
from paise2nb.collection.search import RANKED, search, terms_of
from paise2nb.core.errors import NotFound, StorageError
from paise2nb.core.render import HIT_END, HIT_START
from paise2nb.core.urls import canonical_url
from paise2nb.plugins import Document

FIELDS = [
    "id", "url", "title", "author", "date", "language", "mime_type", "sha256", "size", "tag",
    "fetched_at", "stored_at", "visited_at",
]  # fmt: skip


@pytest.fixture
def store(tmp_path: Path) -> ItemStore:
    return ItemStore(tmp_path / "items.db")


def put(store: ItemStore, url: str, text: str, title: str | None = None, **changed: Any) -> int:
    named: dict[str, Any] = {
        "key": canonical_url(url), "mime_type": "text/plain", "sha256": "0" * 64, "size": len(text),
        "tag": None, "fetched_at": 1000.0, "job_id": 1, **changed,
    }  # fmt: skip
    return store.put(Document(text, title=title), url=url, **named)


def found(store: ItemStore, query: str, limit: int = 100, **limits: int) -> list[int]:
    return [row["id"] for row in search(store.database, query, limit, **limits)]


# Storing -------------------------------------------------------------------------------------


def test_an_item_is_read_as_it_was_stored(store: ItemStore) -> None:
    document = Document(
        "The text.", title="A title", author="Ada", date="2026-01-02", language="en",
        metadata={"pages": 3},
    )  # fmt: skip
    item_id = store.put(
        document, url="http://example.org/A", key="http://example.org/A", mime_type="text/html",
        sha256="ab" * 32, size=9, tag="news", fetched_at=1767225600.25, job_id=7,
    )  # fmt: skip
    row = store.get(item_id)
    assert row is not None
    assert list(row) == [
        *FIELDS, "versions", "duplicates", "site", "words", "metadata", "text",
    ]  # fmt: skip
    assert row["fetched_at"] == "2026-01-01T00:00:00.250Z"
    assert (row["text"], row["metadata"], row["tag"]) == ("The text.", {"pages": 3}, "news")
    assert row["words"] == 2
    assert list(store.list()[0]) == [*FIELDS, "site", "words"]
    assert store.get(item_id + 1) is None


def test_all_spellings_of_a_url_are_one_item(store: ItemStore) -> None:
    first = put(store, "http://example.org/a", "old words")
    second = put(store, "HTTP://EXAMPLE.org:80/a?utm_source=x#top", "new words")
    assert first == second
    assert store.count() == 1
    assert found(store, "old") == []
    assert found(store, "new") == [first]
    assert store.find("http://example.org/a") == first
    assert store.find("http://example.org/b") is None


def test_two_urls_with_equal_bytes_are_two_items(store: ItemStore) -> None:
    assert put(store, "http://example.org/a", "same") != put(store, "http://example.org/b", "same")
    assert store.count() == 2


def test_older_content_never_replaces_newer(store: ItemStore) -> None:
    first = put(store, "http://example.org/a", "newer", fetched_at=2000.0, tag="news")
    assert put(store, "http://example.org/a", "stale", fetched_at=1999.9, tag="old") == first
    assert found(store, "stale") == []
    assert found(store, "newer") == [first]
    assert put(store, "http://example.org/a", "again", fetched_at=2000.0) == first
    assert found(store, "again") == [first]
    row = store.get(first)
    assert row is not None
    assert row["tag"] == "news"  # an untagged re-fetch keeps the tag


def test_a_visit_that_found_no_change_is_recorded(store: ItemStore) -> None:
    item = put(store, "http://example.org/a", "words", fetched_at=1000.0)
    assert store.visited("http://example.org/a", 1500.0) == item
    assert store.visited("http://example.org/b", 1500.0) is None
    row = store.get(item)
    assert row is not None
    assert (row["fetched_at"], row["visited_at"]) == (
        "1970-01-01T00:16:40.000Z", "1970-01-01T00:25:00.000Z",
    )  # fmt: skip
    assert store.list()[0]["visited_at"] == row["visited_at"]
    put(store, "http://example.org/a", "stale", fetched_at=1400.0)  # the visit was later
    assert found(store, "stale") == []
    put(store, "http://example.org/a", "changed", fetched_at=2000.0)
    for row in (store.get(item), store.list()[0]):
        assert row is not None
        assert row["visited_at"] == row["fetched_at"] == "1970-01-01T00:33:20.000Z"


def test_many_are_stored_together_or_not_at_all(store: ItemStore) -> None:
    def entry(number: int, **changed: Any) -> tuple[Document, dict[str, Any]]:
        return Document(f"words {number}"), {
            "url": f"http://example.org/{number}", "key": f"http://example.org/{number}",
            "mime_type": "text/plain", "sha256": "0" * 64, "size": 1, "tag": None,
            "fetched_at": 1.0, "job_id": 1, **changed,
        }  # fmt: skip

    assert store.put_many(entry(number) for number in range(3)) == [1, 2, 3]
    with pytest.raises(StorageError):
        store.put_many([entry(4), entry(5, mime_type=None)])
    assert store.count() == 3
    assert store.put_many([]) == []


# Versions ------------------------------------------------------------------------------------


def test_an_item_keeps_its_earlier_versions(store: ItemStore) -> None:
    url = "http://example.org/a"
    for number, text in enumerate(["one\ntwo", "one\ntwo", "one\n2\nthree", "one\n2\nthree é"]):
        item = put(
            store, url, text, f"T{number}", fetched_at=float(number), sha256=f"{number}" * 64
        )
    versions = store.versions(item)
    assert [(row["version"], row["title"]) for row in versions] == [(1, "T1"), (2, "T2"), (3, "T3")]
    assert versions[0]["fetched_at"] == "1970-01-01T00:00:01.000Z"
    row = store.get(item)
    assert row is not None
    assert row["versions"] == 3
    assert store.diff(item).splitlines()[2:] == [
        "@@ -1,3 +1,3 @@",
        " one",
        " 2",
        "-three",
        "+three é",
    ]
    assert store.diff(item, 1, 3).splitlines() == [
        "--- version 1, 1970-01-01T00:00:01.000Z",
        "+++ version 3, 1970-01-01T00:00:03.000Z",
        "@@ -1,2 +1,3 @@", " one", "-two", "+2", "+three é",
    ]  # fmt: skip
    assert store.diff(item, 2, 2) == ""
    assert found(store, "two") == []  # a search finds the present text only
    with pytest.raises(NotFound, match="has 3 versions, none is 4"):
        store.diff(item, 1, 4)
    for number in (0, -4):
        with pytest.raises(NotFound, match=f"has 3 versions, none is {number}$"):
            store.diff(item, number)
    with pytest.raises(NotFound):
        store.diff(99, 1, 2)


def test_a_version_that_is_replaced_while_it_is_compared_has_its_text(
    store: ItemStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    url = "http://example.org/a"
    for number, text in enumerate(["one", "two"]):
        item = put(store, url, text, fetched_at=float(number), sha256=f"{number}" * 64)
    known = store.versions(item)

    def versions(item_id: int) -> list[dict[str, Any]]:
        put(store, url, "three", fetched_at=9.0, sha256="9" * 64)  # another process is faster
        return known

    monkeypatch.setattr(store, "versions", versions)
    assert store.diff(item).splitlines()[-2:] == ["-one", "+two"]


def test_storing_equal_content_again_adds_no_version(store: ItemStore) -> None:
    for text in ("words", "words", "words extracted in a better way"):
        item = put(store, "http://example.org/a", text)  # the same bytes each time
    assert len(store.versions(item)) == 1
    assert store.diff(item) == ""
    put(store, "http://example.org/a", "late", fetched_at=1.0, sha256="1" * 64)
    assert len(store.versions(item)) == 1


def test_items_with_equal_bytes_name_each_other(store: ItemStore) -> None:
    ids = [put(store, f"http://example.org/{n}", "x", sha256=f"{n % 2}" * 64) for n in range(5)]
    assert [store.get(item)["duplicates"] for item in ids] == [[3, 5], [4], [1, 5], [2], [1, 3]]  # type: ignore[index]


# What is not stored --------------------------------------------------------------------------


def test_characters_that_can_not_be_stored_are_left_out(store: ItemStore) -> None:
    text = f"a\x00b {HIT_START}c{HIT_END} \ud800 d\te\nf \x1b[31m 𝄞"
    item_id = put(store, "http://example.org/a", text, title="  two\n lines\x07 ")
    row = store.get(item_id)
    assert row is not None
    assert row["text"] == "ab c  d\te\nf [31m 𝄞"
    assert row["title"] == "two lines"
    provenance = {"mime_type": "text/html", "sha256": "0" * 64, "size": 1, "tag": None}
    document = Document("text", metadata={"site": "The \ud83d Times", "source": {"etag": "é"}})
    url = "http://example.org/b"
    row = store.get(store.put(document, url=url, key=url, fetched_at=1.0, **provenance))
    assert row is not None
    assert (row["site"], row["metadata"]["source"]) == ("The ? Times", {"etag": "é"})


def test_listing_is_by_time_and_tag(store: ItemStore) -> None:
    for number, (tag, at) in enumerate([("a", 3.0), ("b", 1.0), (None, 2.0), ("a", 2.0)]):
        put(store, f"http://example.org/{number}", "x", tag=tag, fetched_at=at)
    assert [row["id"] for row in store.list()] == [1, 4, 3, 2]
    assert [row["id"] for row in store.list(limit=2)] == [1, 4]
    assert [row["id"] for row in store.list(tag="a")] == [1, 4]
    assert [row["id"] for row in store.list(tag="a", limit=1)] == [1]
    assert len(store.list(tag="none")) == 0


def test_an_item_is_found_by_each_tag_under_which_it_was_stored(store: ItemStore) -> None:
    for at, tag in enumerate(["first", "second", None, "first", "third"]):
        put(store, "http://example.org/a", f"text {at}", tag=tag, fetched_at=float(at))
    for tag in ("first", "second", "third"):
        assert len(store.list(tag=tag)) == len(found(store, f"tag:{tag}")) == 1
    assert store.list()[0]["tag"] == "third"
    assert len(store.list(tag="fourth")) == len(store.list(tag="")) == 0


def test_items_since_a_time_are_counted(store: ItemStore) -> None:
    put(store, "http://example.org/a", "x")
    assert store.count_since(0) == 1
    assert store.count_since(9e9) == 0


def test_clearing_removes_items_and_words(store: ItemStore) -> None:
    for number in range(5):
        put(store, f"http://example.org/{number}", "words")
    assert store.clear() == 5
    assert (store.count(), found(store, "words")) == (0, [])
    last = put(store, "http://example.org/0", "words")
    assert found(store, "words") == [last]
    put(store, "http://example.org/0", "other")
    assert found(store, "words") == []
    assert store.clear() == 1
    assert store.versions(last) == []


# Searching -----------------------------------------------------------------------------------


def test_words_phrases_and_prefixes(store: ItemStore) -> None:
    a = put(store, "http://example.org/a", "The quick brown fox jumps over the lazy dog")
    b = put(store, "http://example.org/b", "A brown dog, quickly running")
    assert set(found(store, "brown dog")) == {a, b}
    assert found(store, '"brown dog"') == [b]
    assert found(store, '"quick brown" fox') == [a]
    assert set(found(store, "qui*")) == {a, b}
    assert found(store, "qu") == []
    assert found(store, '"the la"*') == [a]
    assert found(store, "runs") == [b]  # stems
    assert found(store, "brown cat") == []


@pytest.mark.parametrize(
    ("query", "words"),
    [
        ("educa*", ["education"]),
        ("Organiz*", ["organization"]),
        ("happine*", ["happiness"]),
        ("possibi*", ["possibility"]),
        ("key*", ["key", "keyboard"]),
        ("analy*", ["analysis", "analytical"]),
        ("bus*", ["bus", "business"]),
        ("news*", ["news", "newspaper"]),
        ("généra*", ["génération"]),
        ('"the key"*', ["key", "keyboard"]),
    ],
)
def test_a_prefix_finds_the_words_that_begin_with_it(
    store: ItemStore, query: str, words: list[str]
) -> None:
    known = "education organization happiness possibility key keyboard analysis analytical"
    for word in f"{known} bus business but build news newspaper newt génération".split():
        put(store, f"http://example.org/{word}", f"It is about the {word}.", title=word)
    assert sorted(row["title"] for row in store.search(query, 100)) == words


def test_accents_and_case_do_not_matter(store: ItemStore) -> None:
    item = put(store, "http://example.org/a", "Größe und Café")
    assert found(store, "grosse") == []
    assert found(store, "GROßE cafe") == [item]


def test_a_title_weighs_more_than_text(store: ItemStore) -> None:
    text = put(store, "http://example.org/a", "zebra and more", title="About")
    title = put(store, "http://example.org/b", "about stripes and more", title="Zebra")
    assert found(store, "zebra") == [title, text]
    scores = [row["score"] for row in store.search("zebra", 10)]
    assert scores[0] > scores[1] > 0


def test_a_result_has_its_snippet(store: ItemStore) -> None:
    text = f"{'before ' * 100}the needle itself{' after' * 100}"
    item = put(store, "http://example.org/a", text, title="T")
    (row,) = store.search("needle", 10)
    assert list(row) == ["id", "url", "title", "snippet", "score"]
    assert (row["id"], row["url"], row["title"]) == (item, "http://example.org/a", "T")
    assert f"{HIT_START}needle{HIT_END}" in row["snippet"]
    assert row["snippet"].startswith("…")
    assert row["snippet"].endswith("…")
    assert len(row["snippet"].split()) <= 30


def test_only_the_newest_matches_of_a_common_word_are_ranked(store: ItemStore) -> None:
    def entry(number: int) -> tuple[Document, dict[str, Any]]:
        url = f"http://example.org/{number}"
        return Document("common words" + (" rarity" if number == 0 else "")), {
            "url": url, "key": url, "mime_type": "text/plain", "sha256": "0" * 64, "size": 1,
            "tag": "old" if number == 0 else None, "fetched_at": 1.0, "job_id": 1,
        }  # fmt: skip

    store.put_many(entry(number) for number in range(RANKED + 10))
    assert len(store.search("common", 10**6)) == RANKED
    assert min(found(store, "common")) > 1
    assert found(store, "common rarity") == [1]
    assert found(store, "common tag:old") == [1]


def test_a_phrase_of_common_words_gives_the_newest_items(store: ItemStore) -> None:
    few = {"read_for_ranking": 16}
    assert found(store, '"to be"', **few) == []
    short = put(store, "http://example.org/short", "to be or not to be")
    title = put(store, "http://example.org/title", "a play", title="To be, or not to be")
    news = put(store, "http://example.org/new", f"to be or not{' and more' * 50}", tag="news")
    put(store, "http://example.org/other", "to not be")
    assert found(store, '"to be"', **few) == [title, short, news]  # 2 words of 4 documents: ranked
    newest = put(store, "http://example.org/newest", f"to be{' and more' * 50}")
    rows = search(store.database, '"to be"', 10, **few)
    assert [(row["id"], row["score"]) for row in rows] == [
        (title, 1.0), (newest, 0.0), (news, 0.0), (short, 0.0),
    ]  # fmt: skip
    assert f"{HIT_START}to be{HIT_END}" in rows[1]["snippet"]
    assert found(store, '"to be" tag:news', **few) == [news]
    two = {**few, "unranked": 2}
    assert found(store, '"to be"', **two) == [title, newest, news, short]  # as many as asked for
    assert found(store, '"to be"', 2, **two) == [newest, news]


def test_the_commonest_words_do_not_count_beside_rarer_ones(store: ItemStore) -> None:
    often = put(store, "http://example.org/often", f"{'words ' * 20}zebra")
    best = put(store, "http://example.org/best", f"words zebra zebra{' filler' * 18}")
    for number in range(5):
        put(store, f"http://example.org/{number}", "words")
    for number in range(5, 25):
        put(store, f"http://example.org/{number}", "others")
    queries = (
        "words zebra",
        "words zeb*",
        "words zebra site:example.org",
        "words zebra before:2030",
    )
    assert [found(store, query) for query in queries] == [[often, best]] * 4
    # 7 items have the one word, 2 the other.
    ids = [found(store, query, read_for_ranking=6) for query in queries]
    assert ids == [[best, often]] * 4


def test_operators_with_many_matches_give_the_latest_fetch_first(store: ItemStore) -> None:
    def entry(number: int, fetched_at: float) -> tuple[Document, dict[str, Any]]:
        url = f"http://news.example.org/{number}"
        return Document(f"words {number}"), {
            "url": url, "key": url, "mime_type": "text/plain", "sha256": "0" * 64, "size": 1,
            "tag": "all", "fetched_at": fetched_at, "job_id": 1,
        }  # fmt: skip

    number = RANKED + 10
    store.put_many(entry(n, 1000.0 + n) for n in range(number))
    store.put_many([entry(3, 9000.0)])
    for query in ("tag:all", "site:example.org", "tag:all site:news.example.org"):
        assert [row["id"] for row in store.search(query, 3)] == [4, number, number - 1]
        assert len(store.search(query, 10**6)) == number


OPERATORS = [
    ("words site:example.org", [1, 2]),
    ("site:news.example.org words", [2]),
    ("words site:EXAMPLE.org site:other.net", [1, 2, 3]),
    ("words site:ample.org", []),
    ("words site:bücher.example", [4]),
    ("words tag:news", [1, 3]),
    ('words tag:"two words"', [4]),
    ('words tag:news tag:"two words"', [1, 3, 4]),
    ("words before:2026-01-02", [1]),
    ("words before:2026", []),
    ("words after:2026-01-02 before:2026-02", [2]),
    ("words after:2026-02", [3, 4]),
    ("tag:news site:other.net", [3]),
    ("after:2026-02", [3, 4]),
    ("tag:news missing", []),
    ('"site:example.org" words', []),  # a phrase is text
    ("words before:yesterday", []),  # and so is an invalid date
]


@pytest.mark.parametrize(("query", "ids"), OPERATORS)
def test_operators_select_by_site_tag_and_date(
    store: ItemStore, query: str, ids: list[int]
) -> None:
    january, february = 1767225600.0, 1767225600.0 + 40 * 86400
    put(store, "http://example.org/a", "words", tag="news", fetched_at=january)
    dated = Document("words", date="2026-01-15T10:00:00+01:00")
    url = "http://news.example.org:8080/other.net/"
    store.put(
        dated, url=url, key=url, mime_type="text/html", sha256="0" * 64, size=1, tag=None,
        fetched_at=february, job_id=1,
    )  # fmt: skip
    put(store, "https://other.net/?x=example.org", "words", tag="news", fetched_at=february)
    put(store, "http://bücher.example/", "words", tag="two words", fetched_at=february)
    assert sorted(found(store, query)) == ids


def test_the_limit_holds(store: ItemStore) -> None:
    for number in range(5):
        put(store, f"http://example.org/{number}", "words")
    assert len(store.search("words", 3)) == 3


@pytest.mark.parametrize(
    ("query", "expression"),
    [
        ("two words", '"two" "words"'),
        ("site: tag: before: after:", '"site:" "tag:" "before:" "after:"'),
        ('"a phrase" word', '"a phrase" "word"'),
        ("pre* \"phrase pre\"*", '{title text} : "pre"* {title text} : "phrase pre"*'),
        ("NOT a AND (b OR c) NEAR/2 title:d -e ^f +g", '"NOT" "a" "AND" "(b" "OR" "c)" "NEAR/2"'
         ' "title:d" "-e" "^f" "+g"'),
        ('odd "quote', '"odd" "quote"'),
        ('"', ""),
        ('""', ""),
        ('" "* *** - ; \' \x00', ""),
        ("", ""),
    ],
)  # fmt: skip
def test_a_query_becomes_a_valid_expression(query: str, expression: str) -> None:
    assert " ".join(terms_of(query)) == expression


OPERATOR = some.sampled_from(["site:", "tag:", "before:", "after:2026", 'tag:"', "site:. "])
ODD = "\"'*()[]{}^:+-~/\\;,.!?&|<>=@#$%\x00\x01\x02\t\n aXé中🎉\ud800\ue000\u0301"


@pytest.mark.parametrize("read_for_ranking", [0, 2, 100_000])
def test_no_query_is_an_error(store: ItemStore, read_for_ranking: int) -> None:
    item = put(store, "http://example.org/a", "a X é 中 aX", title="aXé")

    @settings(max_examples=300, deadline=None)
    @given(operator=OPERATOR, query=some.text(alphabet=ODD, max_size=20) | some.text(max_size=40))
    def try_query(operator: str, query: str) -> None:
        for text in (query, f"a {operator}{query}"):
            assert found(store, text, read_for_ranking=read_for_ranking) in ([], [item])

    try_query()


# The file ------------------------------------------------------------------------------------


def test_the_file_is_private_and_survives_a_reopening(tmp_path: Path) -> None:
    path = tmp_path / "items.db"
    store = ItemStore(path)
    put(store, "http://example.org/a", "words")
    for file in tmp_path.glob("items.db*"):
        assert stat.S_IMODE(file.stat().st_mode) == 0o600
    store.close()
    assert found(ItemStore(path), "words") == [1]


def test_a_newer_file_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "items.db"
    ItemStore(path).close()
    with sqlite3.connect(path) as connection:
        connection.execute(f"PRAGMA user_version = {FORMAT.version + 1}")
    connection.close()
    with pytest.raises(StorageError, match="newer paise2nb"):
        ItemStore(path)


def test_a_file_that_is_not_a_database_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "items.db"
    path.write_text("words, and more of them, but no database" * 100)
    with pytest.raises(StorageError, match=r"items\.db: .*paise2 doctor"):
        ItemStore(path)


def test_threads_and_processes_write_at_the_same_time(tmp_path: Path) -> None:
    store = ItemStore(tmp_path / "items.db")
    script = (
        "import sys; from pathlib import Path\n"
        "from paise2nb.collection.items import ItemStore; from paise2nb.plugins import Document\n"
        "store = ItemStore(Path(sys.argv[1]))\n"
        "for n in range(40):\n"
        "    url = f'http://example.org/{sys.argv[2]}/{n}'\n"
        "    store.put(Document(f'words {n}'), url=url, key=url, mime_type='text/plain',\n"
        "        sha256='0' * 64, size=1, tag=None, fetched_at=1.0, job_id=n)\n"
    )
    writers = [
        subprocess.Popen([sys.executable, "-c", script, str(store.database.path), name])
        for name in ("p", "q")
    ]

    def write(name: int) -> None:
        for number in range(40):
            put(store, f"http://example.org/{name}/{number}", f"words {number}")
            put(store, "http://example.org/shared", f"words {number}")

    threads = [threading.Thread(target=write, args=(name,)) for name in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert [writer.wait(60) for writer in writers] == [0, 0]
    assert store.count() == 6 * 40 + 1
    assert len(store.search("words", 1000)) == 6 * 40 + 1
    store.database.write(lambda c: c.execute("INSERT INTO words(words) VALUES('integrity-check')"))


def test_a_checkpoint_merges_the_segments_of_the_index(store: ItemStore) -> None:
    for number in range(40):
        put(store, f"http://h/{number}", f"words of page {number}")
    before = segments(store)
    store.checkpoint()
    assert segments(store) < before
    assert len(store.search("words", 100)) == 40


def segments(store: ItemStore) -> int:
    """The number of segments of the full-text index."""
    return int(store.database.read("SELECT count(DISTINCT segid) FROM words_idx")[0][0])
