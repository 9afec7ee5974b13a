"""The conformance kit: all that is built in keeps every rule, and what is broken is told why."""

from __future__ import annotations

import hashlib
import os
import time
import uuid
from pathlib import Path
from typing import Any

import pytest

from paise2nb.collection.cache import Cache
from paise2nb.collection.items import ItemStore
from paise2nb.testing import Broken, Extracting, Fetching, Rule, Site, rules
from tests import documents
from tests.alternative_plugins.cache import SQLiteCache
from tests.alternative_plugins.store import JSONLinesStore
from tests.site import PAGE

SECOND = {"plugins": ["tests.alternative_plugins"]}


def built_in_cache(directory: Path) -> Cache:
    return Cache(directory / "cache")


def second_cache(directory: Path) -> SQLiteCache:
    return SQLiteCache(directory / "cache.db")


def built_in_store(directory: Path) -> ItemStore:
    return ItemStore(directory / "items.db")


def second_store(directory: Path) -> JSONLinesStore:
    return JSONLinesStore(directory / "items")


@pytest.mark.parametrize("rule", rules("cache"), ids=str)
@pytest.mark.parametrize("make", [built_in_cache, second_cache])
def test_a_cache_keeps_the_rules(make: Any, rule: Rule) -> None:
    rule.check(make)


@pytest.mark.parametrize("rule", rules("store"), ids=str)
@pytest.mark.parametrize("make", [built_in_store, second_store])
def test_a_store_keeps_the_rules(make: Any, rule: Rule) -> None:
    rule.check(make)


@pytest.mark.parametrize("rule", rules("queue"), ids=str)
@pytest.mark.parametrize("provider", ["none", "sqlite", "folder"])
def test_a_queue_keeps_the_rules(provider: str, rule: Rule) -> None:
    plugins = SECOND if provider == "folder" else {}
    rule.check({**plugins, "task_queue.provider": provider})


@pytest.mark.parametrize("rule", rules("fetcher"), ids=str)
@pytest.mark.parametrize("scheme", ["http", "file", "data"])
def test_a_fetcher_keeps_the_rules(scheme: str, rule: Rule, tmp_path: Path) -> None:
    file = tmp_path / "page.html"
    file.write_bytes(PAGE)
    with Site() as site:
        examples = {
            "http": Fetching(site.add("/page", PAGE), (site.add("/x", b"", status=500), "http://")),
            "file": Fetching(str(file), (str(tmp_path), str(tmp_path / "none"))),
            "data": Fetching("data:,some%20words", ("data:no-comma", "data:;base64,?"), SECOND),
        }
        rule.check(examples[scheme])


SAMPLES = {
    "html": Extracting(PAGE, "text/html"),
    "pdf": Extracting(documents.pdf("some words"), "application/pdf"),
    "plain": Extracting(b"some words", "text/plain"),
    "two lines": Extracting(b"one\ntwo", "text/x-shopping-list", settings=SECOND),
}


@pytest.mark.parametrize("rule", rules("extractor"), ids=str)
@pytest.mark.parametrize("sample", SAMPLES)
def test_an_extractor_keeps_the_rules(sample: str, rule: Rule) -> None:
    rule.check(SAMPLES[sample])


# Broken ones ---------------------------------------------------------------------------------


class InMemory:
    """A cache that no other process sees."""

    def __init__(self, directory: Path) -> None:
        self.put_at: dict[str, float] = {}
        self.entries: dict[str, bytes] = {}

    def put(self, data: bytes) -> str:
        key = hashlib.sha256(data).hexdigest()
        self.entries[key], self.put_at[key] = data, time.time()
        return key

    def get(self, key: str) -> bytes:
        return self.entries[key]

    def __contains__(self, key: str) -> bool:
        return key in self.entries

    def remove(self, needed: set[str], older_than: float) -> int:
        before = time.time() - older_than
        gone = [k for k, at in self.put_at.items() if at <= before and k not in needed]
        for key in gone:
            del self.entries[key], self.put_at[key]
        return len(gone)

    def clear(self) -> int:
        return self.remove(set(), 0)

    def close(self) -> None: ...


class OwnCache(Cache):
    """The built-in cache in the directory of a check."""

    def __init__(self, directory: Path) -> None:
        super().__init__(directory / "cache")


class Shouting(OwnCache):
    def put(self, data: bytes) -> str:
        return super().put(data).upper()


class Forgiving(OwnCache):
    def get(self, key: str) -> bytes:
        return super().get(key) if key in self else b""


class Ruthless(OwnCache):
    def remove(self, needed: set[str], older_than: float) -> int:
        return super().remove(set(), older_than)


class Ageing(OwnCache):
    def put(self, data: bytes) -> str:
        key = hashlib.sha256(data).hexdigest()
        return key if key in self else super().put(data)


class Uncounted(OwnCache):
    def clear(self) -> None:  # type: ignore[override]
        super().clear()


class Jealous(OwnCache):
    """Takes an entry only from the process that had it first."""

    def put(self, data: bytes) -> str:
        owner = self.directory / f"{hashlib.sha256(data).hexdigest()}.{os.getpid()}"
        owner.touch()
        if len(list(self.directory.glob(owner.stem + ".*"))) > 1:
            raise FileExistsError(owner)
        return super().put(data)


class OwnStore(ItemStore):
    """The built-in store in the directory of a check."""

    def __init__(self, directory: Path) -> None:
        super().__init__(directory / "items.db")


class Elsewhere(ItemStore):
    def __init__(self, directory: Path) -> None:
        super().__init__(directory / f"{uuid.uuid4()}.db")


class Wordless(OwnStore):
    def get(self, item_id: int) -> Any:
        found = super().get(item_id)
        return found and {**found, "metadata": {}, "title": None}


class ByAddress(OwnStore):
    def put_many(self, entries: Any) -> list[int]:
        return super().put_many([(d, {**about, "key": about["url"]}) for d, about in entries])


class Overtaken(OwnStore):
    def put_many(self, entries: Any) -> list[int]:
        self.database.write(lambda connection: connection.execute("DELETE FROM visits"))
        return super().put_many(entries)


class OneByOne(OwnStore):
    def put_many(self, entries: Any) -> list[int]:
        return [i for entry in entries for i in super(OneByOne, self).put_many([entry])]


class Present(OwnStore):
    def versions(self, item_id: int) -> list[dict[str, Any]]:
        return super().versions(item_id)[-1:]


class OldestFirst(OwnStore):
    def list(self, **named: Any) -> Any:
        return super().list(**named)[::-1]


class Forgetful(OwnStore):
    def clear(self) -> int:
        self.database.write(lambda connection: connection.execute("DELETE FROM sqlite_sequence"))
        number = super().clear()
        self.database.write(lambda connection: connection.execute("DELETE FROM sqlite_sequence"))
        return number


class AnyWord(OwnStore):
    def search(self, query: str, limit: int) -> list[dict[str, Any]]:
        words = query.split() if '"' not in query and ":" not in query else [query]
        hits = {
            row["id"]: row for word in words for row in super(AnyWord, self).search(word, limit)
        }
        return list(hits.values())


class Literal(OwnStore):
    def search(self, query: str, limit: int) -> list[dict[str, Any]]:
        if query.count('"') % 2:
            raise ValueError("unbalanced quotes")
        return super().search(query, limit)


class Unfinished(OwnStore):
    visited = None  # type: ignore[assignment]


class Lonely(OwnStore):
    """Opens for one process only."""

    def __init__(self, directory: Path) -> None:
        (directory / f"{os.getpid()}.owner").touch()
        if len(list(directory.glob("*.owner"))) > 1:
            raise PermissionError("in use")
        super().__init__(directory)


SHA, DISK, REMOVE = (str(rule) for rule in rules("cache")[:3])
SHOWN, KEY, ALL, VERSIONS, LISTED, SEARCH, ON_DISK = (str(rule) for rule in rules("store")[:7])
MANY = {"cache": str(rules("cache")[-1]), "store": str(rules("store")[-1])}


@pytest.mark.parametrize(
    ("kind", "make", "broken"),
    [
        ("cache", InMemory, {DISK: "another one in the same place lacks them"}),
        ("cache", Shouting, {SHA: "put(b'') answered 'E3B0C4", REMOVE: "number of entries removed",
                             DISK: "lacks them"}),
        ("cache", Forgiving, {SHA: f"get('{'0' * 64}') answered b''"}),
        ("cache", Ruthless, {REMOVE: "number of entries removed"}),
        ("cache", Ageing, {REMOVE: "by the age of its first put()"}),
        ("cache", Uncounted, {REMOVE: "clear() did not answer"}),
        ("cache", Jealous, {MANY["cache"]: "processes ended with ["}),
        ("store", Elsewhere, {ON_DISK: "another one in the same place lacks it"}),
        ("store", Wordless, {SHOWN: "get() shows {'title': None, 'metadata': {}}"}),
        ("store", ByAddress, {KEY: "the id of a key changed"}),
        ("store", Overtaken, {KEY: "a fetch from before the visit replaced the content"}),
        ("store", OneByOne, {ALL: "an entry is stored though the next failed"}),
        ("store", Present, {VERSIONS: "versions() has (version, sha256) [(2, '2')]"}),
        ("store", OldestFirst, {LISTED: "list({}) has 102, not 201"}),
        ("store", Forgetful, {LISTED: "an id was given twice"}),
        ("store", AnyWord, {SEARCH: "'bird nowhere' finds ab, not nothing"}),
        ("store", Literal, {SEARCH: "ValueError: unbalanced quotes"}),
        ("store", Unfinished, {SHOWN: "TypeError: 'NoneType' object is not callable",
                               KEY: "TypeError"}),
        ("store", Lonely, {MANY["store"]: "processes ended with ["}),
    ],
)  # fmt: skip
def test_a_broken_part_is_told_which_rule_it_breaks_and_how(
    kind: str, make: Any, broken: dict[str, str]
) -> None:
    slow = {REMOVE, *MANY.values()} - broken.keys()
    tried = [rule for rule in rules(kind) if str(rule) not in slow]
    check(tried, make, broken)


def check(tried: list[Rule], subject: Any, broken: dict[str, str]) -> None:
    """Exactly these rules are broken, each with these words in its reason, and say what helps."""
    said: dict[str, str] = {}
    for rule in tried:
        try:
            rule.check(subject)
        except Broken as error:
            said[str(rule)] = str(error)
    assert said.keys() == broken.keys(), said
    assert [says for says, words in broken.items() if words not in said[says]] == [], said
    for rule in tried:
        words = said.get(
            str(rule), f"{rule.kind}: {rule.says}. Not here: What helps: {rule.advice}"
        )
        assert words.startswith(f"{rule.kind}: {rule.says}. Not here: ")
        assert words.endswith(f"What helps: {rule.advice}")


QUEUES = """
import uuid
from dataclasses import replace
from huey import MemoryHuey
from paise2nb import hookimpl
from paise2nb.workers.queue import JobHuey, open_table

class Provider:
    huey = JobHuey
    def create(self, app):
        return self.huey(app, open_table(app, self.path(app)), immediate=self.immediate(app))
    def path(self, app): return None
    def immediate(self, app): return False

class Stock(Provider):
    def create(self, app): return MemoryHuey()

class Scattered(Provider):
    def path(self, app): return app.data_dir / f"{uuid.uuid4()}.db"

class Twice(Provider):
    class huey(JobHuey):
        def _run(self, task):
            super()._run(task)
            return super()._run(task)

class Barren(Provider):
    class huey(JobHuey):
        def _run(self, task): return replace(super()._run(task), followups=[])

class Silent(Provider):
    class huey(JobHuey):
        def _run(self, task): return replace(super()._run(task), traceback=None)

class Leaky(Provider):
    class huey(JobHuey):
        def close(self):
            self.table.clear()
            super().close()

class Idle(Provider):
    def immediate(self, app): return app.is_worker

@hookimpl
def task_queue_providers():
    return {c.__name__.lower(): c() for c in Provider.__subclasses__()}
"""
TABLE, ONCE, WAITS, WORKERS = map(str, rules("queue"))


@pytest.mark.parametrize(
    ("provider", "says", "words"),
    [
        ("stock", TABLE, "AttributeError: 'MemoryHuey' object has no attribute 'table'"),
        ("scattered", TABLE, "a second app does not see the job of the first"),
        ("twice", ONCE, "a job ran twice"),
        ("barren", ONCE, "the follow-ups of a completion answered []"),
        ("silent", ONCE, "a failure's traceback is lost"),
        ("leaky", WAITS, "NotFound: no job 1"),
        ("idle", WORKERS, "provider idle gives a worker no jobs of"),
    ],
)
def test_a_broken_queue_is_told_which_rule_it_breaks_and_how(
    tmp_path: Path, provider: str, says: str, words: str
) -> None:
    (tmp_path / "queues.py").write_text(QUEUES)
    settings = {"plugins": [str(tmp_path / "queues.py")], "task_queue.provider": provider}
    check([rule for rule in rules("queue") if str(rule) == says], settings, {says: words})


FETCHERS = """
import random
from paise2nb import Document, Fetched, PermanentError, extractor, fetcher

def limited(context, data):
    if len(data) > context.settings.fetch.max_bytes:
        raise PermanentError("too much", "too_large")
    return data

@fetcher("good")
def good(context, url):
    if "wrong" in url:
        raise PermanentError("nothing there", "not_found")
    return Fetched(limited(context, b"some words"), url, "text/plain")

def like_good(scheme, change):
    @fetcher(scheme)
    def fetch(context, url):
        return change(good(context, url), url)
    fetch.__module__ = __name__
    return fetch

def meta(fetched, url): return Fetched(fetched.data, url, "text/plain", meta={"a": {1}})
def typed(fetched, url): return Fetched(fetched.data, url, "Text/Plain; charset=utf-8")
def picture(fetched, url): return Fetched(b"words", url, "image/png")

none = like_good("none", lambda fetched, url: None)
text = like_good("text", lambda fetched, url: "some words")
shouted = like_good("SHOUT", lambda fetched, url: fetched)
typed = like_good("typed", typed)
meta = like_good("meta", meta)
picture = like_good("picture", picture)
chance = like_good("chance", lambda fetched, url: b"%f words" % random.random())

@fetcher("greedy")
def greedy(context, url):
    good(context, url.replace("greedy", "good")) if "wrong" in url else None
    return Fetched(b"some words", url, "text/plain")

@fetcher("mute")
def mute(context, url):
    return Fetched(limited(context, b"some words"), url, "text/plain")

@fetcher("system")
def system(context, url):
    if "wrong" in url:
        raise OSError("no such thing")
    return good(context, url)
"""
ANSWERS, ERRORS = map(str, rules("fetcher"))


@pytest.mark.parametrize(
    ("scheme", "broken"),
    [
        ("good", {}),
        ("none", {ANSWERS: "it answered NoneType"}),
        ("text", {ANSWERS: "it answered str"}),
        ("shout", {ANSWERS: "no fetcher is declared for shout:x", ERRORS: "no fetcher"}),
        ("typed", {ANSWERS: "mime_type is 'Text/Plain; charset=utf-8', not like text/html"}),
        ("meta", {ANSWERS: "TypeError: Object of type set is not JSON serializable"}),
        ("picture", {ANSWERS: "picture:x became no item: ['no extractor for image/png"}),
        ("chance", {ANSWERS: "a second call brought other bytes"}),
        ("greedy", {ERRORS: "it brought 10 bytes over fetch.max_bytes"}),
        ("mute", {ERRORS: "'mute:wrong' brought Fetched("}),
        ("system", {ERRORS: "OSError: no such thing"}),
    ],
)
def test_a_broken_fetcher_is_told_which_rule_it_breaks_and_how(
    tmp_path: Path, scheme: str, broken: dict[str, str]
) -> None:
    (tmp_path / "fetchers.py").write_text(FETCHERS)
    settings = {"plugins": [str(tmp_path / "fetchers.py")]}
    subject = Fetching(f"{scheme}:x", (f"{scheme}:wrong",), settings)
    check(rules("fetcher"), subject, broken)


EXTRACTORS = """
import time
from paise2nb import Document, PermanentError, extractor

def like_good(name, change):
    @extractor(f"application/x-{name}")
    def extract(context, data, source):
        if b"words" not in data:
            raise PermanentError("no words", "damaged")
        return change(data.decode(errors="replace"))
    extract.__module__ = __name__
    return extract

good = like_good("good", lambda text: [Document(text, date="2024-02"), Document(text, url="x:2")])
text = like_good("text", lambda text: text)
bytes_ = like_good("bytes", lambda text: Document(text.encode()))
author = like_good("author", lambda text: Document(text, author=["Ada"]))
date = like_good("date", lambda text: Document(text, date="yesterday"))
meta = like_good("meta", lambda text: Document(text, metadata={"a": b""}))
twins = like_good("twins", lambda text: [Document(text), Document(text)])
clock = like_good("clock", lambda text: Document(f"{text} {time.time_ns()}"))
empty = like_good("empty", lambda text: Document(" "))
shout = like_good("SHOUT", Document)

@extractor("application/x-strict")
def strict(context, data, source):
    return Document(data.decode())
"""
DOCUMENTS, DAMAGED = map(str, rules("extractor"))


@pytest.mark.parametrize(
    ("kind", "broken"),
    [
        ("good", {}),
        ("text", {DOCUMENTS: "it made str"}),
        ("bytes", {DOCUMENTS: "a text is bytes"}),
        ("author", {DOCUMENTS: "author is ['Ada']"}),
        ("date", {DOCUMENTS: "'yesterday' is not ISO 8601"}),
        ("meta", {DOCUMENTS: "TypeError: Object of type bytes is not JSON serializable"}),
        ("twins", {DOCUMENTS: "two documents have the same url"}),
        ("clock", {DOCUMENTS: "a second call made others"}),
        ("empty", {DOCUMENTS: "became no item: ['no text in it"}),
        ("SHOUT", {DOCUMENTS: "no extractor is declared", DAMAGED: "no extractor is declared"}),
        ("strict", {DAMAGED: "UnicodeDecodeError"}),
    ],
)
def test_a_broken_extractor_is_told_which_rule_it_breaks_and_how(
    tmp_path: Path, kind: str, broken: dict[str, str]
) -> None:
    (tmp_path / "extractors.py").write_text(EXTRACTORS)
    settings = {"plugins": [str(tmp_path / "extractors.py")]}
    subject = Extracting(b"some words", f"application/x-{kind}", settings=settings)
    check(rules("extractor"), subject, broken)
