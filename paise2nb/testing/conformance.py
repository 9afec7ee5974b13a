"""The rules for parts that plugins provide. See `paise2nb.testing`, which checks them.

A rule uses a part only as the package itself does. Its tasks are for the queues that it checks.
"""

from __future__ import annotations

import hashlib
import json
import os
import re
import signal
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from pathlib import Path
from typing import Any

from paise2nb.content.extract.types import choose
from paise2nb.core.errors import PermanentError, TaskError, TransientError
from paise2nb.core.urls import scheme_of, suffix_of
from paise2nb.jobs.context import Context
from paise2nb.plugins import Document, Fetched, Source, task
from paise2nb.testing import SECONDS, Bench, Broken, Rule, Site, need, run_all
from paise2nb.workers.queue import JobHuey

RULES: list[Rule] = []


def _rule(kind: str, says: str, advice: str) -> Callable[[Callable[[Bench], None]], None]:
    return lambda test: RULES.append(Rule(kind, says, advice, test))


# Caches --------------------------------------------------------------------------------------

SOME_BYTES = (b"", b"a", bytes(range(256)) * 4096)


@_rule(
    "cache", "a key is the SHA-256 of bytes and leads to them", "get() raises KeyError otherwise"
)
def _(bench: Bench) -> None:
    cache = bench.open()
    for data in (*SOME_BYTES, b"a"):
        key = cache.put(data)
        need(key == hashlib.sha256(data).hexdigest(), f"put({data[:9]!r}) answered {key!r}")
        need(key in cache and cache.get(key) == data, f"{key} leads to other bytes than were put")
    for key in ("0" * 64, "", "../" * 9 + "etc/passwd"):
        need(key not in cache, f"{key!r} is in it, and was never put")
        with suppress(KeyError):
            raise Broken(f"get({key!r}) answered {cache.get(key)!r}")


@_rule("cache", "bytes that were put are on the disk", "write and sync before put() returns")
def _(bench: Bench) -> None:
    first, second = bench.open(), bench.open()
    key = first.put(b"a")
    for other in (second, bench.open()):
        need(key in other and other.get(key) == b"a", "another one in the same place lacks them")


@_rule("cache", "remove() spares what is needed or was put lately", "note the time of each put()")
def _(bench: Bench) -> None:
    cache = bench.open()
    keys = [cache.put(data) for data in SOME_BYTES]
    need(cache.remove(set(), 3600.0) == 0, "it removed what was younger than older_than")
    need(cache.remove({keys[0]}, 0.0) == 2, "it did not answer with the number of entries removed")
    there = [key in cache for key in keys]
    need(there == [True, False, False], f"of [needed, old, old] it has {there} afterwards")
    time.sleep(0.9)
    again = time.time()
    cache.put(SOME_BYTES[0])
    cache.remove(set(), time.time() - again + 0.8)
    need(keys[0] in cache, "an entry that was put again was removed by the age of its first put()")
    need((cache.clear(), cache.clear()) == (1, 0), "clear() did not answer with what it removed")


def _fill_cache(make: Callable[[Path], Any], directory: Path) -> None:
    cache = make(directory)
    for number in range(20):  # the same in every process
        data = b"%d" % number * 99
        need(cache.get(cache.put(data)) == data, "other bytes than were put")


@_rule("cache", "many processes use one at once", "write aside and rename, or use transactions")
def _(bench: Bench) -> None:
    bench.in_processes(_fill_cache)
    need(bench.open().clear() == 20, "2 processes put the same 20 entries; it holds another number")


# Stores --------------------------------------------------------------------------------------


def _about(name: str, at: float = 1.7e9, **changed: Any) -> dict[str, Any]:
    url, digest = f"http://example.org/{name}", hashlib.sha256(name.encode()).hexdigest()
    given = {"url": url, "key": url, "mime_type": "text/html", "sha256": digest, "size": 9}
    return {**given, "tag": "news", "fetched_at": at, "job_id": 7, **changed}


@_rule("store", "an item is shown as it was put", "keep every field; times in ISO 8601, UTC")
def _(bench: Bench) -> None:
    store = bench.open()
    empty = store.get(1), store.find("key"), store.visited("key", 1.0), store.list(), store.count()
    need(empty == (None, None, None, [], 0), f"of an empty one get() and others answered {empty}")
    given = {"title": "T", "author": "Ada", "date": "2024-02-03", "language": "en"}
    wanted = {name: _about("a")[name] for name in ("url", "mime_type", "sha256", "size", "tag")}
    wanted |= {**given, "text": "a text", "words": 2, "metadata": {"a": [1, None]}, "versions": 1}
    wanted |= {"duplicates": [], "fetched_at": "2023-11-14T22:13:20.000Z"}
    item_id = store.put(Document("a text", metadata={"a": [1, None]}, **given), **_about("a"))
    shown = store.get(item_id)
    differs = {k: shown.get(k) for k in wanted if shown.get(k) != wanted[k]}
    need(not differs, f"get() shows {differs}")
    whole = {"text", "metadata", "versions", "duplicates"}
    need(set(store.list()[0]) >= set(shown) - whole, "list() lacks what get() has")
    odd = store.put(Document("\ud800\0 text", "\ud800"), **_about("b"))
    need(store.get(odd)["text"].encode(), "the text holds what UTF-8 can't")


@_rule("store", "a key is one item, and late content is refused", "compare fetched_at and visits")
def _(bench: Bench) -> None:
    store = bench.open()
    item_id = store.put(Document("old"), **_about("a"))
    again = _about("a", url="http://EXAMPLE.org/a#part", tag=None)
    ids = store.put_many([(Document("b"), _about("b")), (Document("new"), again)])
    need(ids[1] == item_id == store.find(_about("a")["key"]) != ids[0], "the id of a key changed")
    need(store.get(item_id)["tag"] == "news", "a tag of None took the earlier one away")
    store.put(Document("late"), **_about("a", 1.6e9))
    need(store.get(item_id)["text"] == "new", "a fetch that was overtaken replaced a later one")
    noted = store.visited(_about("a")["key"], 1.8e9)
    need(noted == item_id, f"visited() answered {noted}, not the id")
    need(store.get(item_id)["visited_at"][:10] == "2027-01-15", "the visit is not shown")
    store.put(Document("late"), **_about("a", 1.75e9))
    need(store.get(item_id)["text"] == "new", "a fetch from before the visit replaced the content")


@_rule("store", "put_many() stores all or nothing", "take all entries first, use one transaction")
def _(bench: Bench) -> None:
    store = bench.open()

    def entries() -> Iterator[tuple[Document, dict[str, Any]]]:
        yield Document("whole"), _about("a")
        raise ZeroDivisionError

    with suppress(ZeroDivisionError):
        store.put_many(entries())
    need(store.count() == bench.open().count() == 0, "an entry is stored though the next failed")


@_rule("store", "what an item held is a version", "keep it where both bytes and text change")
def _(bench: Bench) -> None:
    store = bench.open()
    for number, text in enumerate(("a\none", "a\none", "a\ntwo")):
        item_id = store.put(Document(text), **_about("a", 1.7e9 + number, sha256=f"{number}" * 64))
    held = [(row["version"], row["sha256"][0]) for row in store.versions(item_id)]
    need(held == [(1, "1"), (2, "2")], f"versions() has (version, sha256) {held}, not 1 and 2")
    need(store.get(item_id)["versions"] == 2, "get() does not count them")
    need({"-one", "+two"} <= set(store.diff(item_id).splitlines()), "diff() is no unified diff")
    twin = store.put(Document("a\ntwo"), **_about("b", sha256="2" * 64))
    need(store.get(twin)["duplicates"] == [item_id], "get() lacks the duplicates: equal sha256")


@_rule("store", "items are listed newest first, and counted", "sort by fetched_at, then id")
def _(bench: Bench) -> None:
    store, now = bench.open(), time.time()
    ids = [
        store.put(Document("text"), **_about(f"{number}", 1.7e9 - (number == 1), tag=tag))
        for number, tag in enumerate("xyx")
    ]
    for named, wanted in (({}, "201"), ({"tag": "x"}, "20"), ({"limit": 2}, "20")):
        found = "".join(row["url"][-1] for row in store.list(**named))
        need(found == wanted, f"list({named}) has {found}, not {wanted}")
    counts = store.count(), store.count_since(now - 1), store.count_since(now + 99)
    need(counts == (3, 3, 0), f"count() and count_since() then and later answered {counts}")
    need((store.clear(), store.clear()) == (3, 0), "clear() did not answer with what it removed")
    store.checkpoint()
    again = store.put(Document("text"), **_about("9"))
    need(again not in ids, "an id was given twice: results of jobs name ids")


_FOUND = {
    "bird": "ab", "BIRD sang": "ab", '"bird sang"': "a", "son*": "b", "bird nowhere": "", "": "",
    "site:example.org bird": "ab", "site:other.org bird": "", "tag:x bird": "b", "tag:x": "b",
    "before:2024 bird": "a", "after:2024-01-01 bird": "b",
}  # fmt: skip


@_rule(
    "store",
    "a search finds by words, the best first",
    "see `DataStorageProvider.search`",
)
def _(bench: Bench) -> None:
    store = bench.open()
    store.put(Document("The bird sang.", date="2023-05-06"), **_about("a"))
    store.put(Document("It sang to a bird, a song", date="2024-01-01"), **_about("b", tag="x"))
    store.put(Document("A stone, " + "silent " * 300, date="2025"), **_about("c"))
    for query, wanted in _FOUND.items():
        found = "".join(sorted(row["url"][-1] for row in store.search(query, 10)))
        need(found == wanted, f"{query!r} finds {found or 'nothing'}, not {wanted or 'nothing'}")
    store.put(Document("stone stone", "A stone"), **_about("a", sha256="5" * 64))
    need(len(store.search("bird", 10)) == 1, "a text that was replaced is still found")
    first, second = store.search("stone", 10)
    need(first["url"][-1] == "a" and first["score"] >= second["score"], "the best is not the first")
    need("stone" in first["snippet"] and first["id"] and first["title"], f"a hit is {first}")
    need(len(store.search("stone", 1)) == 1, "there are more hits than the limit")
    for query in ('"', "AND", "a -b", "((", "*", "NEAR(a b)", "a:b", "\0", "'; --", "\ud800", "^a"):
        need(isinstance(store.search(query, 5), list), f"search({query!r}) did not answer a list")


@_rule("store", "items are on the disk", "write and sync before put() returns, read others' writes")
def _(bench: Bench) -> None:
    first, second = bench.open(), bench.open()
    item_id = first.put(Document("text"), **_about("a"))
    for other in (second, bench.open()):
        need(other.get(item_id), "another one in the same place lacks it")
    first.checkpoint()
    second.put(Document("more"), **_about("b"))
    need(first.count() == bench.open().count() == 2, "after checkpoint() a write was lost")


def _fill_store(make: Callable[[Path], Any], directory: Path) -> None:
    store = make(directory)
    for number in range(40):  # the same in every process
        store.put(Document(f"text {number}"), **_about(f"{number}"))


@_rule("store", "many processes write at once", "take turns by a lock, or use transactions")
def _(bench: Bench) -> None:
    bench.in_processes(_fill_store)
    store = bench.open()
    ids = {row["id"] for row in store.list()}
    need(len(ids) == store.count() == 40, f"2 processes put 40 keys; they became {store.count()}")


# Queues --------------------------------------------------------------------------------------


@task("kit-echo")
def kit_echo(context: Context, word: str, seconds: float = 0.0) -> str:
    """Note the word, and answer with it after some time."""
    time.sleep(seconds)
    with (context.data_dir / "kit-ran").open("a") as file:
        file.write(word + "\n")
    return word


@task("kit-parent", max_retries=2, retry_delay=0)
def kit_parent(context: Context, good_at: int) -> None:
    """Enqueue a follow-up, and fail before the attempt of that number."""
    context.enqueue("kit-echo", f"of attempt {context.job.attempt}")
    if context.job.attempt < good_at:
        raise TransientError("not good yet")


@_rule("queue", "every app comes to one job table", "make a JobHuey over open_table(app, path)")
def _(bench: Bench) -> None:
    first, second = bench.app("development"), bench.app("development")
    need(isinstance(first.queue, JobHuey), f"create() answered {type(first.queue).__name__}")
    job = first.enqueue("kit-echo", "a")
    need(second.jobs().ids == [job.id], "a second app does not see the job of the first")


@_rule("queue", "a job runs once, follow-ups come with its completion", "leave execute() as it is")
def _(bench: Bench) -> None:
    apps = [bench.app("development"), bench.app("development")]
    words = [f"{number}" for number in range(20)]
    jobs = apps[0].enqueue_many("kit-echo", words)
    parent, gone = (apps[0].enqueue("kit-parent", good_at) for good_at in (2, 9))
    with ThreadPoolExecutor() as threads:
        list(threads.map(run_all, apps))
    need([job.result(0) for job in jobs] == words, "results are not kept")
    ran = (bench.directory / "kit-ran").read_text().split("\n")
    need(all(ran.count(word) == 1 for word in words), "a job ran twice, or not at all")
    outcomes = [attempt["outcome"] for attempt in parent.attempts]
    need(outcomes == ["failed", "completed"], f"what fails once had the outcomes {outcomes}")
    need("not good yet" in str(parent.attempts[0]["traceback"]), "a failure's traceback is lost")
    children = [child.result(0) for child in parent.children]
    need(children == ["of attempt 2"], f"the follow-ups of a completion answered {children}")
    need(gone.state == "failed" and len(gone.children) == 0, "a failed job has follow-ups")


@_rule("queue", "what waits is kept and left alone until its time", "run nothing before a claim")
def _(bench: Bench) -> None:
    app = bench.app("development")
    if app.immediate:
        return  # nothing waits in it
    job, later = app.enqueue("kit-echo", "a"), app.enqueue("kit-echo", "later", delay=3600)
    need(job.state == "queued", f"a job without workers is {job.state}")
    need(app.enqueue("kit-echo", "a").id == job.id, "a duplicate of a waiting job was added")
    cancelled = app.enqueue("kit-echo", "b").cancel()[0]
    app.close()
    app = bench.app("development")
    run_all(app)
    states = [app.job(each.id).state for each in (job, later, cancelled)]
    need(states == ["completed", "scheduled", "cancelled"], f"after a while they are {states}")


@_rule(
    "queue", "workers run its jobs, and a killed one loses none", "lead workers to the same table"
)
def _(bench: Bench) -> None:
    app = bench.app("development", **{"workers.retry.retry_delay": 0})
    if app.immediate:
        return  # it has no workers
    bench.left.callback(app.workers.stop, timeout=0)
    app.workers.start(concurrency=1, pool="default")
    jobs = app.enqueue_many("kit-echo", [(f"{number}", 0.05) for number in range(10)])
    jobs[1].wait(SECONDS)
    os.kill(app.workers.status().workers[0]["pid"], signal.SIGKILL)
    states = [job.state for job in jobs.wait(SECONDS)]
    need(set(states) == {"completed"}, f"after a worker was killed they are {states}")


# Fetchers and extractors ---------------------------------------------------------------------

_TYPE = re.compile(r"[a-z0-9][^A-Z\s;/]*/[^A-Z\s;/]+")  # RFC 6838, in lower case


def _fetcher(bench: Bench, **settings: Any) -> tuple[tuple[str, ...], Callable[[str], Any]]:
    app = bench.app(**settings)
    found = app.plugins.fetcher(scheme_of(bench.subject.url) or "file")
    if found is None:
        raise Broken(f"no fetcher is declared for {bench.subject.url}")
    return found.schemes, lambda url: found.function(app.context("fetch").of(found.plugin), url)


def _stored(bench: Bench, url: str) -> None:
    job = bench.app().enqueue("fetch", url)
    errors = [each.error for each in job.tree if each.error]
    need(len(job.items) > 0, f"{url[:99]} became no item: {errors}")


@_rule(
    "fetcher", "it answers with bytes or Fetched, and they become an item", "see paise2nb.Fetched"
)
def _(bench: Bench) -> None:
    schemes, fetch = _fetcher(bench)
    bad = [scheme for scheme in schemes if not re.fullmatch(r"[a-z][a-z0-9+.-]*", scheme)]
    need(not bad, f"it is declared for {bad}: lower case, and no colon")
    first, second = fetch(bench.subject.url), fetch(bench.subject.url)
    need(isinstance(first, bytes | Fetched), f"it answered {type(first).__name__}")
    if isinstance(first, Fetched):
        need(isinstance(first.data, bytes), f"data is {type(first.data).__name__}")
        need(isinstance(first.url, str), f"url is {first.url!r}")
        kind = first.mime_type
        need(kind is None or _TYPE.fullmatch(kind), f"mime_type is {kind!r}, not like text/html")
        json.dumps(first.meta, allow_nan=False)
        first, second = first.data, second.data
    need(first == second, "a second call brought other bytes: a job may run twice")
    _stored(bench, bench.subject.url)


@_rule(
    "fetcher",
    "what it can't bring is an error for retry policies",
    "raise PermanentError(…, CLASS)",
)
def _(bench: Bench) -> None:
    _, fetch = _fetcher(bench)
    for url in bench.subject.wrong:
        with suppress(TaskError):
            raise Broken(f"{url!r} brought {fetch(url)!r}")
    _, fetch = _fetcher(bench, **{"fetch.max_bytes": 1})
    try:
        raise Broken(f"it brought {len(fetch(bench.subject.url).data)} bytes over fetch.max_bytes")
    except PermanentError as error:
        need(error.error_class == "too_large", f"over fetch.max_bytes it is {error.error_class!r}")


def _extractor(bench: Bench) -> tuple[Any, Callable[[bytes], list[Any]]]:
    app, (data, mime_type, url, _) = bench.app(), bench.subject
    family, suffix = mime_type.split("/")[0], suffix_of(url)
    kind, found = choose(app.plugins, mime_type, data, suffix)
    taken = () if found is None else (*found.mime_types, *found.suffixes)
    if found is None or not {mime_type, f"{family}/*", suffix} & set(taken):
        raise Broken(f"no extractor is declared for {mime_type} {suffix}")

    def extract(data: bytes) -> list[Any]:
        context = app.context("extract").of(found.plugin)
        made = found.function(context, data, Source(url, kind))
        return made if isinstance(made, list) else [made]

    return found, extract


@_rule("extractor", "it makes documents, the same every time", "see `paise2nb.Document`")
def _(bench: Bench) -> None:
    found, extract = _extractor(bench)
    bad = [kind for kind in found.mime_types if not _TYPE.fullmatch(kind)]
    bad += [suffix for suffix in found.suffixes if not re.fullmatch(r"\.[^A-Z./]+", suffix)]
    need(not bad, f"it is declared for {bad}: types like text/html, suffixes like .html")
    documents = extract(bench.subject.data)
    for document in documents:
        need(isinstance(document, Document), f"it made {type(document).__name__}")
        need(isinstance(document.text, str), f"a text is {type(document.text).__name__}")
        for name in ("title", "author", "date", "language", "url"):
            value = getattr(document, name)
            need(value is None or isinstance(value, str), f"{name} is {value!r}")
        date = document.date or "2024"
        need(re.match(r"\d{4}(-\d\d(-\d\d([T ]\d\d:.*)?)?)?$", date), f"{date!r} is not ISO 8601")
        json.dumps(document.metadata, allow_nan=False)
    urls = {document.url for document in documents}
    need(len(urls) == len(documents), "two documents have the same url: each needs its own")
    need(extract(bench.subject.data) == documents, "a second call made others: a job may run twice")
    with Site() as site:
        path = f"/sample{suffix_of(bench.subject.url)}"
        _stored(bench, site.add(path, bench.subject.data, bench.subject.mime_type))


@_rule(
    "extractor",
    "damaged bytes are a PermanentError",
    "catch what the parser raises: no retry helps",
)
def _(bench: Bench) -> None:
    _, extract = _extractor(bench)
    data = bench.subject.data
    for damaged in (b"", data[: len(data) // 2], data[::-1], b"\xff\0\x80" * 50, data + b"\x80"):
        with suppress(PermanentError):
            extract(damaged)
