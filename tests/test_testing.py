"""The public kit for plugin authors: its rules pass for good parts and explain what is wrong."""

from __future__ import annotations

import hashlib
import os
import time
import uuid
from contextlib import closing, nullcontext
from pathlib import Path
from typing import Any

import pytest

from paise2nb import plugins
from paise2nb.collection.cache import Cache
from paise2nb.collection.items import ItemStore
from paise2nb.core.errors import UsageError
from paise2nb.testing import KINDS, Broken, Extracting, Fetching, Rule, Site, rules
from tests import documents
from tests.alternative_plugins.cache import SQLiteCache
from tests.alternative_plugins.store import JSONLinesStore
from tests.machines import RedisServer
from tests.site import PAGE

ALTERNATIVE = {"plugins": ["tests.alternative_plugins"]}


def built_in_cache(directory: Path) -> Cache:
    return Cache(directory / "cache")


def alternative_cache(directory: Path) -> SQLiteCache:
    return SQLiteCache(directory / "cache.db")


def built_in_store(directory: Path) -> ItemStore:
    return ItemStore(directory / "items.db")


def alternative_store(directory: Path) -> JSONLinesStore:
    return JSONLinesStore(directory / "items")


def test_the_rules_of_a_kind_are_found_by_the_name_of_its_protocol() -> None:
    for name, kind in KINDS.items():
        assert getattr(plugins, name)
        assert rules(name) == rules(kind) != []
    with pytest.raises(UsageError, match="unknown kind 'cash'; known: cache, store, queue"):
        rules("cash")


@pytest.mark.parametrize("rule", rules("cache"), ids=str)
@pytest.mark.parametrize("make", [built_in_cache, alternative_cache])
def test_a_cache_follows_the_rules(make: Any, rule: Rule) -> None:
    rule.check(make)


@pytest.mark.parametrize("rule", rules("store"), ids=str)
@pytest.mark.parametrize("make", [built_in_store, alternative_store])
def test_a_store_follows_the_rules(make: Any, rule: Rule) -> None:
    rule.check(make)


@pytest.mark.parametrize("rule", rules("queue"), ids=str)
@pytest.mark.parametrize("provider", ["none", "sqlite", "redis", "folder"])
def test_a_queue_follows_the_rules(provider: str, rule: Rule, tmp_path: Path) -> None:
    plugins = ALTERNATIVE if provider == "folder" else {}
    with closing(RedisServer(tmp_path)) if provider == "redis" else nullcontext() as server:
        url = {"task_queue.redis.url": server.url} if server else {}
        rule.check({**plugins, "task_queue.provider": provider, **url})


@pytest.mark.parametrize("rule", rules("fetcher"), ids=str)
@pytest.mark.parametrize("scheme", ["http", "file", "data"])
def test_a_fetcher_follows_the_rules(scheme: str, rule: Rule, tmp_path: Path) -> None:
    file = tmp_path / "page.html"
    file.write_bytes(PAGE)
    with Site() as site:
        examples = {
            "http": Fetching(site.add("/page", PAGE), (site.add("/x", b"", status=500), "http://")),
            "file": Fetching(str(file), (str(tmp_path), str(tmp_path / "none"))),
            "data": Fetching(
                "data:,some%20words", ("data:no-comma", "data:;base64,?"), ALTERNATIVE
            ),
        }
        rule.check(examples[scheme])


SAMPLES = {
    "html": Extracting(PAGE, "text/html"),
    "pdf": Extracting(documents.pdf("some words"), "application/pdf"),
    "plain": Extracting(b"some words", "text/plain"),
    "shopping list": Extracting(b"one\ntwo", "text/x-shopping-list", settings=ALTERNATIVE),
}


@pytest.mark.parametrize("rule", rules("extractor"), ids=str)
@pytest.mark.parametrize("sample", SAMPLES)
def test_an_extractor_follows_the_rules(sample: str, rule: Rule) -> None:
    rule.check(SAMPLES[sample])


# Broken parts --------------------------------------------------------------------------------


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


class CacheInDirectory(Cache):
    """The built-in cache in the directory of a check."""

    def __init__(self, directory: Path) -> None:
        super().__init__(directory / "cache")


class UpperCaseKeys(CacheInDirectory):
    def put(self, data: bytes) -> str:
        return super().put(data).upper()


class NoKeyError(CacheInDirectory):
    def get(self, key: str) -> bytes:
        return super().get(key) if key in self else b""


class RemovesNeeded(CacheInDirectory):
    def remove(self, needed: set[str], older_than: float) -> int:
        return super().remove(set(), older_than)


class KeepsFirstTime(CacheInDirectory):
    def put(self, data: bytes) -> str:
        key = hashlib.sha256(data).hexdigest()
        return key if key in self else super().put(data)


class ClearReturnsNone(CacheInDirectory):
    def clear(self) -> None:  # type: ignore[override]
        super().clear()


class OneProcessPerEntry(CacheInDirectory):
    """Takes an entry only from the process that had it first."""

    def put(self, data: bytes) -> str:
        owner = self.directory / f"{hashlib.sha256(data).hexdigest()}.{os.getpid()}"
        owner.touch()
        if len(list(self.directory.glob(owner.stem + ".*"))) > 1:
            raise FileExistsError(owner)
        return super().put(data)


class StoreInDirectory(ItemStore):
    """The built-in store in the directory of a check."""

    def __init__(self, directory: Path) -> None:
        super().__init__(directory / "items.db")


class AnotherFileEachTime(ItemStore):
    def __init__(self, directory: Path) -> None:
        super().__init__(directory / f"{uuid.uuid4()}.db")


class LosesFields(StoreInDirectory):
    def get(self, item_id: int) -> Any:
        found = super().get(item_id)
        return found and {**found, "metadata": {}, "title": None}


class KeyIsURL(StoreInDirectory):
    def put_many(self, entries: Any) -> list[int]:
        return super().put_many([(d, {**about, "key": about["url"]}) for d, about in entries])


class ForgetsVisits(StoreInDirectory):
    def put_many(self, entries: Any) -> list[int]:
        self.database.write(lambda connection: connection.execute("DELETE FROM visits"))
        return super().put_many(entries)


class PutsOneByOne(StoreInDirectory):
    def put_many(self, entries: Any) -> list[int]:
        return [i for entry in entries for i in super(PutsOneByOne, self).put_many([entry])]


class OnlyNewestVersion(StoreInDirectory):
    def versions(self, item_id: int) -> list[dict[str, Any]]:
        return super().versions(item_id)[-1:]


class OldestFirst(StoreInDirectory):
    def list(self, **named: Any) -> Any:
        return super().list(**named)[::-1]


class ReusesIds(StoreInDirectory):
    def clear(self) -> int:
        self.database.write(lambda connection: connection.execute("DELETE FROM sqlite_sequence"))
        number = super().clear()
        self.database.write(lambda connection: connection.execute("DELETE FROM sqlite_sequence"))
        return number


class AnyWord(StoreInDirectory):
    def search(self, query: str, limit: int) -> list[dict[str, Any]]:
        words = query.split() if '"' not in query and ":" not in query else [query]
        hits = {
            row["id"]: row for word in words for row in super(AnyWord, self).search(word, limit)
        }
        return list(hits.values())


class RefusesQuotes(StoreInDirectory):
    def search(self, query: str, limit: int) -> list[dict[str, Any]]:
        if query.count('"') % 2:
            raise ValueError("unbalanced quotes")
        return super().search(query, limit)


class WithoutVisited(StoreInDirectory):
    visited = None  # type: ignore[assignment]


class OneProcess(StoreInDirectory):
    """Opens for one process only."""

    def __init__(self, directory: Path) -> None:
        (directory / f"{os.getpid()}.owner").touch()
        if len(list(directory.glob("*.owner"))) > 1:
            raise PermissionError("in use")
        super().__init__(directory)


HASH, DURABLE, REMOVE, SHARED_CACHE = map(str, rules("cache"))
SHOWN, NEWEST, ALL, VERSIONS, LISTED, SEARCH, ON_DISK, SHARED_STORE = map(str, rules("store"))
EXIT_CODES = "exit codes of two processes: ["


@pytest.mark.parametrize(
    ("kind", "make", "broken"),
    [
        ("cache", InMemory, {DURABLE: "bytes in another cache in the directory: None"}),
        (
            "cache",
            UpperCaseKeys,
            {
                HASH: "put(b''): 'E3B0C4",
                REMOVE: "the number of entries that remove() returned: 3, not 2",
                DURABLE: "bytes in another cache in the directory: None",
            },
        ),
        ("cache", NoKeyError, {HASH: f"get('{'0' * 64}') returned b''"}),
        ("cache", RemovesNeeded, {REMOVE: "entries that remove() returned: 3, not 2"}),
        ("cache", KeepsFirstTime, {REMOVE: "by the age of its first put()"}),
        ("cache", ClearReturnsNone, {REMOVE: "clear() twice, with one entry left: (None, None)"}),
        ("cache", OneProcessPerEntry, {SHARED_CACHE: EXIT_CODES}),
        ("store", AnotherFileEachTime, {ON_DISK: "another store in the directory lacks it"}),
        ("store", LosesFields, {SHOWN: "get() shows {'title': None, 'metadata': {}}"}),
        ("store", KeyIsURL, {NEWEST: "the id of a key changed"}),
        ("store", ForgetsVisits, {NEWEST: "the text after a fetch from before the visit: 'late'"}),
        ("store", PutsOneByOne, {ALL: "items though the next entry failed: (1, 1)"}),
        ("store", OnlyNewestVersion, {VERSIONS: "in versions(): [(2, '2')], not [(1, '1'),"}),
        ("store", OldestFirst, {LISTED: "list({}): '102', not '201'"}),
        ("store", ReusesIds, {LISTED: "an id was given twice"}),
        ("store", AnyWord, {SEARCH: "search('bird nowhere') finds: 'ab', not ''"}),
        ("store", RefusesQuotes, {SEARCH: "ValueError: unbalanced quotes"}),
        (
            "store",
            WithoutVisited,
            {SHOWN: "TypeError: 'NoneType' object is not callable", NEWEST: "TypeError"},
        ),
        ("store", OneProcess, {SHARED_STORE: EXIT_CODES}),
    ],
)
def test_the_rules_explain_what_is_wrong_with_a_cache_or_store(
    kind: str, make: Any, broken: dict[str, str]
) -> None:
    slow = {REMOVE, SHARED_CACHE, SHARED_STORE} - broken.keys()
    check([rule for rule in rules(kind) if str(rule) not in slow], make, broken)


def check(checked: list[Rule], subject: Any, broken: dict[str, str]) -> None:
    """Exactly these rules are broken; each message has the rule, the reason and the advice."""
    messages: dict[str, str] = {}
    for rule in checked:
        try:
            rule.check(subject)
        except Broken as error:
            messages[str(rule)] = str(error)
    for rule in checked:
        message = messages.get(str(rule))
        assert not message or message.startswith(f'The {rule.kind} breaks the rule "{rule}": ')
        assert not message or message.endswith(f". {rule.advice}")
    assert messages.keys() == broken.keys(), messages
    assert [rule for rule, reason in broken.items() if reason not in messages[rule]] == [], messages


@pytest.mark.parametrize("kind", ["cache", "store", "queue", "fetcher", "extractor"])
def test_every_rule_is_one_sentence_with_advice(kind: str) -> None:
    for rule in rules(kind):
        assert rule.kind == kind
        assert str(rule) == rule.says
        assert "\n" not in rule.says + rule.advice
        assert rule.advice.endswith(".")


QUEUES = """
import uuid
from dataclasses import replace
from huey import MemoryHuey
from paise2nb import hookimpl
from paise2nb.workers.queue import JobHuey, open_job_store

class Provider:
    huey = JobHuey
    def create(self, app):
        huey = self.huey(app, open_job_store(app, self.path(app)), immediate=self.immediate(app))
        run = huey._executor.run
        huey._executor.run = lambda task: self.run(run, task)
        return huey
    def run(self, run, task): return run(task)
    def path(self, app): return None
    def immediate(self, app): return False

class Stock(Provider):
    def create(self, app): return MemoryHuey()

class Scattered(Provider):
    def path(self, app): return app.data_dir / f"{uuid.uuid4()}.db"

class Twice(Provider):
    def run(self, run, task):
        run(task)
        return run(task)

class Childless(Provider):
    def run(self, run, task): return replace(run(task), followups=[])

class Traceless(Provider):
    def run(self, run, task): return replace(run(task), traceback=None)

class Lossy(Provider):
    class huey(JobHuey):
        def close(self):
            self.job_store.clear()
            super().close()

class Idle(Provider):
    def immediate(self, app): return app.is_worker

@hookimpl
def task_queue_providers():
    return {c.__name__.lower(): c() for c in Provider.__subclasses__()}
"""
STORE, ONCE, WAITS, WORKERS = map(str, rules("queue"))


@pytest.mark.parametrize(
    ("provider", "rule", "reason"),
    [
        ("stock", STORE, "create() returned MemoryHuey, not a JobHuey"),
        ("scattered", STORE, "a second app does not see the job of the first"),
        ("twice", ONCE, "a job ran twice"),
        ("childless", ONCE, "follow-up jobs ran: [], not ['of attempt 2']"),
        ("traceless", ONCE, "the traceback of a failure is lost"),
        ("lossy", WAITS, "NotFound: no job 1"),
        ("idle", WORKERS, "provider idle gives a worker no jobs of"),
    ],
)
def test_the_rules_explain_what_is_wrong_with_a_queue(
    tmp_path: Path, provider: str, rule: str, reason: str
) -> None:
    (tmp_path / "queues.py").write_text(QUEUES)
    settings = {"plugins": [str(tmp_path / "queues.py")], "task_queue.provider": provider}
    check([each for each in rules("queue") if str(each) == rule], settings, {rule: reason})


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

@fetcher("plain")
def plain(context, url):
    greedy(context, url.replace("plain", "greedy"))
    return b"some words"

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
        ("none", {ANSWERS: "it returned NoneType"}),
        ("text", {ANSWERS: "it returned str"}),
        ("shout", {ANSWERS: "no fetcher is declared for shout:x", ERRORS: "no fetcher"}),
        ("typed", {ANSWERS: "mime_type 'Text/Plain; charset=utf-8' is not like text/html"}),
        ("meta", {ANSWERS: "TypeError: Object of type set is not JSON serializable"}),
        ("picture", {ANSWERS: "picture:x became no item: ['no extractor for image/png"}),
        ("chance", {ANSWERS: "a second call returned other bytes"}),
        ("greedy", {ERRORS: "it returned 10 bytes, more than fetch.max_bytes"}),
        ("plain", {ERRORS: "it returned 10 bytes, more than fetch.max_bytes"}),
        ("mute", {ERRORS: "'mute:wrong' returned Fetched("}),
        ("system", {ERRORS: "OSError: no such thing"}),
    ],
)
def test_the_rules_explain_what_is_wrong_with_a_fetcher(
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
        ("text", {DOCUMENTS: "it returned str"}),
        ("bytes", {DOCUMENTS: "a text is bytes"}),
        ("author", {DOCUMENTS: "author is ['Ada']"}),
        ("date", {DOCUMENTS: "'yesterday' is not a date in ISO 8601"}),
        ("meta", {DOCUMENTS: "TypeError: Object of type bytes is not JSON serializable"}),
        ("twins", {DOCUMENTS: "two documents have the same url"}),
        ("clock", {DOCUMENTS: "a second call returned others"}),
        ("empty", {DOCUMENTS: "became no item: ['no text in it"}),
        ("SHOUT", {DOCUMENTS: "no extractor is declared", DAMAGED: "no extractor is declared"}),
        ("strict", {DAMAGED: "UnicodeDecodeError"}),
    ],
)
def test_the_rules_explain_what_is_wrong_with_an_extractor(
    tmp_path: Path, kind: str, broken: dict[str, str]
) -> None:
    (tmp_path / "extractors.py").write_text(EXTRACTORS)
    settings = {"plugins": [str(tmp_path / "extractors.py")]}
    subject = Extracting(b"some words", f"application/x-{kind}", settings=settings)
    check(rules("extractor"), subject, broken)
