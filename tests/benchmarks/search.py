"""The speed of storing and searching: ``python -m tests.benchmarks.search [--documents 100000]``.

``--chinese`` writes the words without spaces, in 3,000 characters, the most common pairs of which
are in tens of thousands of documents.

Prints how many items a second are stored, one by one (by one and by four processes, of which each
waits for the disk) and in batches, and how long searches take.
The words of the documents are as frequent as in natural language (Zipf's law), which is what makes
a full-text search slow: a common word is in most documents. ``--dir`` should be on a real disk.
"""

from __future__ import annotations

import argparse
import multiprocessing
import random
import statistics
import tempfile
import time
from collections.abc import Callable, Iterator
from itertools import accumulate
from pathlib import Path
from typing import Any

from paise2nb.collection.items import ItemStore
from paise2nb.plugins import Document

VOCABULARY, WORDS, BATCH, QUERIES = 50_000, 300, 1000, 300
SHARE = 500  # items that each of four processes stores
rng = random.Random(5)
SYLLABLES = [a + b for a in "bdfgklmnprst" for b in "aeiou"]
NAMES = ["".join(rng.choices(SYLLABLES, k=rng.randint(1, 4))) + "aeiou"[n % 5] * (n % 3) for n in
         range(VOCABULARY)]  # fmt: skip
CHARACTERS = [chr(0x4E00 + n) for n in rng.sample(range(20_000), 3000)]
COMMON_FIRST = list(accumulate(1 / (rank + 20) for rank in range(3000)))
LENGTHS = (1, 2, 2, 2, 3)  # of words in characters
CHINESE = [
    "".join(rng.choices(CHARACTERS, cum_weights=COMMON_FIRST, k=rng.choice(LENGTHS)))
    for _ in range(VOCABULARY)
]
WEIGHTS = list(accumulate(1 / (rank + 10) for rank in range(VOCABULARY)))


def document(number: int, chinese: bool = False) -> tuple[Document, dict[str, Any]]:
    """A random document with its provenance."""
    words = rng.choices(CHINESE if chinese else NAMES, cum_weights=WEIGHTS, k=WORDS)
    space = "" if chinese else " "
    url = f"http://site{number % 500}.example.org/{number}"
    text, title = space.join(words), space.join(words[:6])
    facts = {
        "url": url, "key": url, "mime_type": "text/html", "sha256": f"{number:064x}", "size": 3000,
        "tag": f"tag{number % 50}", "fetched_at": 1.7e9 + number, "job_id": number,
    }  # fmt: skip
    return Document(text, title=title, date=f"20{number % 26:02}-01-02"), facts


def queries() -> Iterator[tuple[str, Callable[[], str]]]:
    """Kinds of queries, each with a function that makes one."""

    def rare() -> str:
        return rng.choice(NAMES[500:])

    def common() -> str:
        return rng.choice(NAMES[:20])

    def phrase() -> str:
        made, _ = document(rng.randrange(1000))
        first = rng.randrange(WORDS - 3)
        return f'"{" ".join(made.text.split()[first : first + 3])}"'

    yield "a rare word", rare
    yield "two words, as people write", lambda: f"{rng.choice(NAMES[50:2000])} {rare()}"
    yield "three words of a document", lambda: phrase().strip('"')
    yield "a phrase from a document", phrase
    yield "a phrase of common words", lambda: f'"{common()} {rng.choice(NAMES[:200])}"'
    yield "a prefix", lambda: rare()[:5] + "*"
    yield "a word of one site", lambda: f"{rare()} site:site{rng.randrange(500)}.example.org"
    yield "a word before a day", lambda: f"{rare()} before:2015"
    yield "a tag alone", lambda: f"tag:tag{rng.randrange(50)}"
    yield "a very common word", common


def chinese_queries() -> Iterator[tuple[str, Callable[[], str]]]:
    """The same of words without spaces."""

    def word(first: int, last: int | None = None) -> str:
        return rng.choice([word for word in CHINESE[first:last] if len(word) > 1])

    yield "a rare word", lambda: word(500)
    yield "two words", lambda: f"{word(50, 2000)} {word(500)}"
    yield "eight characters of a text", lambda: document(5, chinese=True)[0].text[100:108]
    yield "a common word", lambda: word(0, 20)
    yield "a common and a rare word", lambda: f"{word(0, 20)} {word(500)}"
    yield "one character", lambda: rng.choice(CHARACTERS)


def put_some(path: Path, first: int) -> None:
    """Store some items one by one."""
    store = ItemStore(path)
    for number in range(first, first + SHARE):
        made, provenance = document(number)
        store.put(made, **provenance)
    store.close()


def by_four_processes(path: Path) -> float:
    """The items a second that four processes store, with their start."""
    spawn = multiprocessing.get_context("spawn")
    children = [spawn.Process(target=put_some, args=(path, n * SHARE)) for n in range(4)]
    started = time.perf_counter()
    for child in children:
        child.start()
    for child in children:
        child.join()
    return 4 * SHARE / (time.perf_counter() - started)


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--documents", type=int, default=100_000)
    parser.add_argument("--dir", type=Path, default=None)
    parser.add_argument("--chinese", action="store_true")
    options = parser.parse_args()
    kinds = chinese_queries() if options.chinese else queries()
    with tempfile.TemporaryDirectory(dir=options.dir) as place:
        store = ItemStore(Path(place) / "items.db")
        single = [document(number, options.chinese) for number in range(1000)]
        started = time.perf_counter()
        for made, provenance in single:
            store.put(made, **provenance)
        print(f"one by one: {len(single) / (time.perf_counter() - started):8,.0f} items/s")
        print(f"by four processes: {by_four_processes(Path(place) / 'four.db'):8,.0f} items/s")
        spent = 0.0
        for first in range(1000, options.documents, BATCH):
            batch = [document(number, options.chinese) for number in range(first, first + BATCH)]
            started = time.perf_counter()
            store.put_many(batch)
            spent += time.perf_counter() - started
        print(f"in batches: {(options.documents - 1000) / spent:8,.0f} items/s")
        print(f"{store.count():,} documents of {WORDS} words")
        everything: list[float] = []
        for name, make in kinds:
            times = []
            for _ in range(QUERIES):
                query = make()
                started = time.perf_counter()
                store.search(query, 10)
                times.append((time.perf_counter() - started) * 1000)
            everything += times
            p95 = statistics.quantiles(times, n=20)[-1]
            print(f"{name:28} p50 {statistics.median(times):7.2f} ms   p95 {p95:7.2f} ms")
        print(f"{'all of them':28} p95 {statistics.quantiles(everything, n=20)[-1]:7.2f} ms")
        store.close()


if __name__ == "__main__":
    main()
