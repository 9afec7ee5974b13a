"""The rules for caches and stores: see `paise2nb.plugins.protocols`."""

import hashlib
import time
from collections.abc import Iterator
from contextlib import suppress
from typing import Any

from paise2nb.plugins import Document
from paise2nb.testing.rule import Broken, Workspace, expect, require, rule

SAMPLES = (b"", b"a", bytes(range(256)) * 4096)


@rule("cache")
def _key_is_the_hash(workspace: Workspace, cache: Any) -> None:
    """The key of bytes is their SHA-256, and get() returns them.

    For any other key get() raises KeyError.
    """
    for data in (*SAMPLES, b"a"):
        key = cache.put(data)
        expect(key, hashlib.sha256(data).hexdigest(), f"put({data[:9]!r})")
        require(key in cache and cache.get(key) == data, f"get({key!r}) returned other bytes")
    for key in ("0" * 64, "", "../" * 9 + "etc/passwd"):
        require(key not in cache, f"{key!r} is in the cache and was never put")
        with suppress(KeyError):
            raise Broken(f"get({key!r}) returned {cache.get(key)!r}")


@rule("cache")
def _bytes_are_durable(workspace: Workspace, cache: Any) -> None:
    """Bytes that were put are on the disk.

    Write and sync before put() returns.
    """
    second = workspace.open()
    key = cache.put(b"a")
    for other in (second, workspace.open()):
        found = other.get(key) if key in other else None
        expect(found, b"a", "bytes in another cache in the directory")


@rule("cache")
def _needed_and_recent_entries_stay(workspace: Workspace, cache: Any) -> None:
    """remove() spares entries that are needed or were put recently.

    Store the time of every put(), also of bytes that the cache has already.
    """
    keys = [cache.put(data) for data in SAMPLES]
    expect(cache.remove(set(), 3600.0), 0, "entries that remove() took before older_than")
    expect(cache.remove({keys[0]}, 0.0), 2, "the number of entries that remove() returned")
    expect([key in cache for key in keys], [True, False, False], "of [needed, old, old] it left")
    time.sleep(0.9)
    again = time.time()
    cache.put(SAMPLES[0])
    cache.remove(set(), time.time() - again + 0.8)
    require(keys[0] in cache, "an entry put again was removed by the age of its first put()")
    expect((cache.clear(), cache.clear()), (1, 0), "clear() twice, with one entry left")


def _fill_cache(cache: Any) -> None:
    for data in (b"%d" % number * 99 for number in range(20)):  # the same in every process
        expect(cache.get(cache.put(data)), data, "get()")


@rule("cache")
def _processes_share_a_cache(workspace: Workspace, cache: Any) -> None:
    """Many processes can use one cache at the same time.

    Write to a temporary file and rename it, or use transactions.
    """
    workspace.in_processes(_fill_cache)
    expect(cache.clear(), 20, "entries after 2 processes put the same 20")


def _provenance(name: str, at: float = 1.7e9, **changed: Any) -> dict[str, Any]:
    url, digest = f"http://example.org/{name}", hashlib.sha256(name.encode()).hexdigest()
    fields = {"url": url, "key": url, "mime_type": "text/html", "sha256": digest, "size": 9}
    return {**fields, "tag": "news", "fetched_at": at, "job_id": 7, **changed}


@rule("store")
def _items_are_shown_as_put(workspace: Workspace, store: Any) -> None:
    """get() and list() show an item as it was put.

    Keep every field, and show times in ISO 8601, in UTC.
    """
    found = (
        store.get(1),
        store.find("key"),
        store.visited("key", 1.0),
        [*store.list()],
        store.count(),
    )
    expect(found, (None, None, None, [], 0), "an empty store returned")
    fields = {"title": "T", "author": "Ada", "date": "2024-02-03", "language": "en"}
    wanted = {n: _provenance("a")[n] for n in ("url", "mime_type", "sha256", "size", "tag")}
    wanted |= {**fields, "text": "a text", "words": 2, "metadata": {"a": [1, None]}, "versions": 1}
    wanted |= {"duplicates": [], "fetched_at": "2023-11-14T22:13:20.000Z"}
    document = Document("a text", metadata={"a": [1, None]}, **fields)
    shown = store.get(store.put(document, **_provenance("a")))
    differs = {name: shown.get(name) for name in wanted if shown.get(name) != wanted[name]}
    require(not differs, f"get() shows {differs}")
    only_get = {"text", "metadata", "versions", "duplicates"}
    require(set(store.list()[0]) >= set(shown) - only_get, "list() lacks fields that get() has")
    odd = store.put(Document("\ud800\0 text", "\ud800"), **_provenance("b"))
    require(store.get(odd)["text"].encode(), "the text has characters that UTF-8 can't encode")


@rule("store")
def _newest_content_wins(workspace: Workspace, store: Any) -> None:
    """A key is one item, and older content never replaces newer content.

    Compare fetched_at with that of the stored content and with its last visit.
    """
    key = _provenance("a")["key"]
    item_id = store.put(Document("old"), **_provenance("a"))
    again = _provenance("a", url="http://EXAMPLE.org/a#part", tag=None)
    ids = store.put_many([(Document("b"), _provenance("b")), (Document("new"), again)])
    require(ids[1] == item_id == store.find(key) != ids[0], "the id of a key changed")
    expect(store.get(item_id)["tag"], "news", "the tag after a put() with the tag None")
    store.put(Document("late"), **_provenance("a", 1.6e9))
    expect(store.get(item_id)["text"], "new", "the text after a put() of an earlier fetch")
    expect(store.visited(key, 1.8e9), item_id, "visited()")
    expect(store.get(item_id)["visited_at"][:10], "2027-01-15", "visited_at")
    store.put(Document("late"), **_provenance("a", 1.75e9))
    expect(store.get(item_id)["text"], "new", "the text after a fetch from before the visit")


@rule("store")
def _many_are_stored_or_none(workspace: Workspace, store: Any) -> None:
    """put_many() stores all entries or none.

    Read all entries first, then write them in one transaction.
    """

    def entries() -> Iterator[tuple[Document, dict[str, Any]]]:
        yield Document("first"), _provenance("a")
        raise ZeroDivisionError

    with suppress(ZeroDivisionError):
        store.put_many(entries())
    expect((store.count(), workspace.open().count()), (0, 0), "items though the next entry failed")


@rule("store")
def _versions_are_kept(workspace: Workspace, store: Any) -> None:
    """Content that was replaced is kept as a version.

    Keep it where both the bytes and the text differ.
    """
    for number, text in enumerate(("a\none", "a\none", "a\ntwo")):
        changed = _provenance("a", 1.7e9 + number, sha256=f"{number}" * 64)
        item_id = store.put(Document(text), **changed)
    found = [(row["version"], row["sha256"][0]) for row in store.versions(item_id)]
    expect(found, [(1, "1"), (2, "2")], "(version, first digit of sha256) in versions()")
    expect(store.get(item_id)["versions"], 2, "versions in get()")
    lines = store.diff(item_id).splitlines()
    require({"-one", "+two"} <= set(lines), "diff() is not a unified diff")
    twin = store.put(Document("a\ntwo"), **_provenance("b", sha256="2" * 64))
    expect(store.get(twin)["duplicates"], [item_id], "duplicates in get(), by sha256")


@rule("store")
def _items_are_listed_and_counted(workspace: Workspace, store: Any) -> None:
    """Items are listed newest first, and counted.

    Sort by fetched_at, then by id.
    """
    now, ids = time.time(), []
    for number, tag in enumerate("xyx"):
        changed = _provenance(f"{number}", 1.7e9 - (number == 1), tag=tag)
        ids.append(store.put(Document("text"), **changed))
    for options, wanted in (({}, "201"), ({"tag": "x"}, "20"), ({"limit": 2}, "20")):
        expect("".join(row["url"][-1] for row in store.list(**options)), wanted, f"list({options})")
    counts = store.count(), store.count_since(now - 1), store.count_since(now + 99)
    expect(counts, (3, 3, 0), "count(), count_since() the first put() and since later")
    expect((store.clear(), store.clear()), (3, 0), "clear() twice")
    store.checkpoint()
    again = store.put(Document("text"), **_provenance("9"))
    require(again not in ids, "an id was given twice; results of jobs refer to ids")


# The last letters of the URLs that a search finds, and the queries.
_FOUND = {
    "ab": ("bird", "BIRD sang", "site:example.org bird"),
    "a": ('"bird sang"', "before:2024 bird"),
    "b": ("son*", "tag:x bird", "tag:x", "after:2024-01-01 bird"),
    "": ("bird nowhere", "", "site:other.org bird"),
}
_ODD_QUERIES = ('"', "AND", "a -b", "((", "*", "NEAR(a b)", "a:b", "\0", "'; --", "\ud800", "^a")


@rule("store")
def _search_finds_words(workspace: Workspace, store: Any) -> None:
    """A search finds items by their words, the best match first.

    `DataStorageProvider.search` describes the query language.
    """
    store.put(Document("The bird sang.", date="2023-05-06"), **_provenance("a"))
    store.put(Document("It sang to a bird, a song", date="2024-01-01"), **_provenance("b", tag="x"))
    store.put(Document("A stone, " + "silent " * 300, date="2025"), **_provenance("c"))
    for wanted, queries in _FOUND.items():
        for query in queries:
            found = "".join(sorted(row["url"][-1] for row in store.search(query, 10)))
            expect(found, wanted, f"search({query!r}) finds")
    store.put(Document("stone stone", "A stone"), **_provenance("a", sha256="5" * 64))
    expect(len(store.search("bird", 10)), 1, "hits after a text was replaced")
    first, second = store.search("stone", 10)
    expect((first["url"][-1], first["score"] >= second["score"]), ("a", True), "the best match")
    require("stone" in first["snippet"] and first["id"] and first["title"], f"a hit is {first}")
    expect(len(store.search("stone", 1)), 1, "hits with a limit of 1")
    for query in _ODD_QUERIES:
        require(isinstance(store.search(query, 5), list), f"search({query!r}) returned no list")


@rule("store")
def _items_are_durable(workspace: Workspace, store: Any) -> None:
    """Items that were put are on the disk.

    Write and sync before put() returns, and read what other processes have written.
    """
    second = workspace.open()
    item_id = store.put(Document("text"), **_provenance("a"))
    for other in (second, workspace.open()):
        require(other.get(item_id), "another store in the directory lacks it")
    store.checkpoint()
    second.put(Document("more"), **_provenance("b"))
    expect((store.count(), workspace.open().count()), (2, 2), "items after checkpoint()")


def _fill_store(store: Any) -> None:
    for number in range(40):  # the same in every process
        store.put(Document(f"text {number}"), **_provenance(f"{number}"))


@rule("store")
def _processes_share_a_store(workspace: Workspace, store: Any) -> None:
    """Many processes can write at the same time.

    Lock a file while writing, or use transactions.
    """
    workspace.in_processes(_fill_store)
    found = len({row["id"] for row in store.list()}), store.count()
    expect(found, (40, 40), "items after 2 processes put the same 40")
