"""The speed of the whole pipeline, from a URL to an item, compared with scripts and Scrapy.

``python -m tests.benchmarks.pipeline [--pages 300] [--rounds 3]`` serves generated articles from a
separate process on loopback; with ``--articles`` those that tests.benchmarks.extraction downloads,
again and again. It prints the pages per second of two workers (and their pool of
fetchers), of a loop with urllib3 and trafilatura, of Scrapy with trafilatura in its callback
(``pip install '.[bench]'``), and of the loop in two processes (the limit of two cores). These use
trafilatura with its defaults: it searches the text for a date if the page declares none, which
takes half of its time, and for an author. The workers do neither; with ``--declared-dates`` the
others do not search for dates. All are measured alternately, without their start. A ratio is that
of the medians. The exit status is 1 if a ratio is smaller than promised.
"""

from __future__ import annotations

import argparse
import multiprocessing
import random
import statistics
import tempfile
import time
from concurrent.futures import ProcessPoolExecutor
from functools import partial
from importlib.util import find_spec
from pathlib import Path

import trafilatura
import urllib3

import paise2nb
from tests.site import Site

WORDS = [
    "the",
    "of",
    "and",
    "to",
    "in",
    "words",
    "about",
    "things",
    "that",
    "people",
    "wrote",
    "down",
    "at",
    "some",
    "length",
    "today",
]
WARM_UP = 16  # pages that are read first and not counted
PROMISED = {"loop": 2.0, "Scrapy": 1.9, "pool": 0.9}  # the least ratio of two workers to each
DECLARED = {"loop": 1.6, "pool": 0.97}  # the same with --declared-dates
_pool = urllib3.PoolManager()


def article(number: int) -> bytes:
    """A page with navigation, forty paragraphs and a footer, about 40 kB."""
    rng = random.Random(number)
    links = "".join(f"<li><a href='/p/{n}'>Entry {n} of the list</a></li>" for n in range(150))
    body = "".join(
        f"<p>{' '.join(rng.choices(WORDS, k=90))}, as <a href='/p/{n}'>was said</a>.</p>"
        for n in range(40)
    )
    return (
        f"<!doctype html><html lang='en'><head><title>Article {number}</title></head><body>"
        f"<nav><ul>{links}</ul></nav><article><h1>Article {number}</h1>{body}</article>"
        f"<footer><ul>{links}</ul></footer></body></html>"
    ).encode()


def real_articles(number: int) -> list[bytes]:
    """Pages of fourteen sites, again and again, no two with the same bytes."""
    from tests.benchmarks import extraction

    pages = [html for html, _ in extraction.articles()]
    return [f"{pages[n % len(pages)]}<!-- {n} -->".encode() for n in range(number)]


def serve(
    pages: list[bytes],
    port: multiprocessing.Queue[int],
    stop: multiprocessing.Event,  # type: ignore[valid-type]
) -> None:
    """Serve the site in a separate process, so that it does not share a lock with the others."""
    with Site() as site:
        for number, page in enumerate(pages):
            site.add(f"/p/{number}", page)
        port.put(site.port)
        stop.wait()


def read(html: bytes, declared_dates: bool) -> str:
    """The text of a page, as a script would extract it."""
    dates = {"original_date": True, "extensive_search": False} if declared_dates else None
    document = trafilatura.bare_extraction(
        html, fast=True, with_metadata=True, date_extraction_params=dates
    )
    return str(document.text)


def by_hand(url: str, declared_dates: bool) -> int:
    """Fetch and extract one page; returns the number of characters."""
    return len(read(_pool.request("GET", url).data, declared_dates))


def a_loop(urls: list[str], declared_dates: bool) -> float:
    """Read all pages in this process, one after the other; returns the seconds."""
    started = time.perf_counter()
    for url in urls[WARM_UP:]:
        by_hand(url, declared_dates)
    return time.perf_counter() - started


def a_process_pool(urls: list[str], declared_dates: bool) -> float:
    """Read all pages in two processes; returns the seconds without their start."""
    read_one = partial(by_hand, declared_dates=declared_dates)
    with ProcessPoolExecutor(2, multiprocessing.get_context("spawn")) as pool:
        list(pool.map(read_one, urls[:WARM_UP]))
        started = time.perf_counter()
        list(pool.map(read_one, urls[WARM_UP:], chunksize=4))
        return time.perf_counter() - started


def scraped(urls: list[str], declared_dates: bool, seconds: multiprocessing.Queue[float]) -> None:
    """Read all pages with Scrapy, which needs a new process for each run."""
    from scrapy import Spider
    from scrapy.crawler import CrawlerProcess

    class Articles(Spider):
        name = "articles"
        start_urls = urls[WARM_UP:]
        pages = 0

        def parse(self, response):  # type: ignore[no-untyped-def]
            Articles.pages += bool(read(response.body, declared_dates))

    process = CrawlerProcess({
        "LOG_ENABLED": False, "TELNETCONSOLE_ENABLED": False, "ROBOTSTXT_OBEY": False,
        "CONCURRENT_REQUESTS": 16, "CONCURRENT_REQUESTS_PER_DOMAIN": 16, "DOWNLOAD_DELAY": 0,
    })  # fmt: skip
    process.crawl(Articles)
    started = time.perf_counter()
    process.start()
    seconds.put(time.perf_counter() - started)
    assert Articles.pages == len(urls) - WARM_UP


def a_scraper(urls: list[str], declared_dates: bool) -> float:
    """Read all pages with Scrapy; returns the seconds without its start."""
    spawn = multiprocessing.get_context("spawn")
    seconds = spawn.Queue()
    child = spawn.Process(target=scraped, args=(urls, declared_dates, seconds))
    child.start()
    child.join()
    return float(seconds.get(timeout=1))


def two_workers(urls: list[str], root: str) -> float:
    """Read all pages with workers; returns the seconds from the enqueue to the last stored item.

    The first pages are read before that: a worker imports what it needs for its first job.

    Args:
        urls: The pages.
        root: For the data directory, which is left there: ext4 gives inodes that were deleted in
            the last minutes to no other file, and to search past thousands of them takes workers a
            fifth of their time.
    """
    settings = {
        "workers.concurrency": 2, "fetch.host_delay": 0, "fetch.robots": False,
        "fetch.allow_private_addresses": True,
    }  # fmt: skip
    data_dir = Path(tempfile.mkdtemp(dir=root)) / "data"
    with paise2nb.open("development", data_dir=data_dir, settings=settings) as app:
        app.workers.start()
        app.enqueue_many("fetch", urls[:WARM_UP])
        app.wait(600)
        started = time.perf_counter()
        app.enqueue_many("fetch", urls[WARM_UP:])
        app.wait(600)
        spent = time.perf_counter() - started
        assert len(app.items()) == len(urls), app.status()
        app.workers.stop(timeout=30)
    return spent


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--pages", type=int, default=300)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument(
        "--declared-dates", action="store_true", help="without a search for dates in the others"
    )
    parser.add_argument("--articles", action="store_true", help="of fourteen sites")
    parser.add_argument("--dir", type=Path, default=Path("/var/tmp"), help="on a real disk")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory(dir=options.dir) as root:
        short = measure(options, root)
    raise SystemExit(short)


def measure(options: argparse.Namespace, root: str) -> bool:
    """Print a line for each way. Return whether a ratio is smaller than promised."""
    declared = options.declared_dates
    spawn = multiprocessing.get_context("spawn")
    port, stop = spawn.Queue(), spawn.Event()
    number = WARM_UP + options.pages
    pages = real_articles(number) if options.articles else [article(n) for n in range(number)]
    server = spawn.Process(target=serve, args=(pages, port, stop), daemon=True)
    server.start()
    base = f"http://127.0.0.1:{port.get()}/p/"
    urls = [base + str(n) for n in range(number)]
    ways = {
        "loop": partial(a_loop, declared_dates=declared),
        "Scrapy": partial(a_scraper, declared_dates=declared),
        "pool": partial(a_process_pool, declared_dates=declared),
    }
    if find_spec("scrapy") is None:
        print("Scrapy is not installed: pip install '.[bench]'")
        del ways["Scrapy"]
    ways["two workers"] = partial(two_workers, root=root)
    by_hand(urls[0], declared)
    rates: dict[str, list[float]] = {name: [] for name in ways}
    for _ in range(options.rounds):
        for name, way in ways.items():
            rates[name].append(options.pages / way(urls))
    stop.set()
    medians = {name: statistics.median(values) for name, values in rates.items()}
    short, least_ratios = False, DECLARED if declared else PROMISED
    for name, median in medians.items():
        ratio, promised = medians["two workers"] / median, least_ratios.get(name, 0)
        short = short or ratio < promised
        least = f", promised {promised}" if promised else ""
        print(f"{name:12} {median:7.1f} pages/s   two workers: {ratio:.2f} times that{least}")
    return short


if __name__ == "__main__":
    main()
