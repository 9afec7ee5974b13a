"""How much of a page's body is found, and how much else: ``python -m tests.benchmarks.extraction``.

The pages are those of Debian's python3-doc, which ships the reStructuredText that each was made
from: that text, without its markup, is the truth. No package of a registry ships a set of mixed
sites with ground truth, so this says how extractors compare on one kind of page, no more. F1 is
that of runs of four words, a page's mean; beside it precision, recall and pages a second. Peers
(``pip install '.[bench]'``) that are missing are left out. Exit status 1 where one is better.
"""

from __future__ import annotations

import argparse
import random
import re
import statistics
import time
from collections import Counter
from collections.abc import Callable
from importlib.util import find_spec
from pathlib import Path

from paise2nb.extract import pages
from paise2nb.plugins import Source

DOCS = Path("/usr/share/doc/python3-doc/html")
PARTS = ("library", "howto", "tutorial", "faq", "reference", "c-api", "extending", "using")
RUN = 4  # words
MARGIN = 0.005  # of F1, within which two are alike

Extract = Callable[[str], str]


def truth(source: str) -> str:
    """The words of a reStructuredText without its markup."""
    text = re.sub(r"^\s*\.\. (?:[\w-]+::|_[^:]*:|\[|\|).*$", "", source, flags=re.MULTILINE)
    text = re.sub(r"^\s*\.\. .*(?:\n[ \t]+.*)*", "", text, flags=re.MULTILINE)  # comments
    text = re.sub(r"^\s*:[\w -]+:.*$", "", text, flags=re.MULTILINE)  # options
    text = re.sub(r":[\w:+-]+:`[~!]?([^`<]*?)\s*(?:<[^`>]*>)?`", r"\1", text)  # roles
    text = re.sub(r"`([^`<]*?)\s*(?:<[^`>]*>)?`_*", r"\1", text)
    return re.sub(r"^[=\-~^*#\"'+.]{3,}\s*$", "", text, flags=re.MULTILINE)


def runs(text: str) -> Counter[tuple[str, ...]]:
    """Each run of words of a text, counted."""
    words = re.findall(r"\w+", text.lower())
    return Counter(zip(*(words[start:] for start in range(RUN)), strict=False))


def judged(found: str, wanted: Counter[tuple[str, ...]]) -> tuple[float, float, float]:
    """F1, precision and recall of what was found."""
    mine = runs(found)
    common = (mine & wanted).total()
    precision = common / mine.total() if mine else 0.0
    recall = common / wanted.total()
    return 2 * common / (mine.total() + wanted.total()), precision, recall


def ours(precise: bool) -> Extract:
    """This package's extraction."""

    def extract(html: str) -> str:
        source = Source("https://docs.example.org/page.html", "text/html")
        return pages.read(html.encode(), source, precise=precise).text

    return extract


def peers() -> dict[str, Extract]:
    """The others that are installed."""
    found: dict[str, Extract] = {}
    if find_spec("readability"):
        from lxml.html import fromstring
        from readability import Document

        found["readability-lxml"] = lambda html: str(
            fromstring(Document(html).summary()).text_content()
        )
    if find_spec("resiliparse"):
        from resiliparse.extract.html2text import extract_plain_text

        found["resiliparse"] = lambda html: str(extract_plain_text(html, main_content=True))
    return found


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--pages", type=int, default=200)
    options = parser.parse_args()
    if not DOCS.exists():
        parser.error("there is no python3-doc here: apt-get install python3-doc")
    sources = sorted(p for part in PARTS for p in DOCS.glob(f"_sources/{part}/*.rst.txt"))
    random.Random(1).shuffle(sources)
    chosen = []
    for path in sources:
        name = path.relative_to(DOCS / "_sources")
        page = DOCS / name.with_name(name.name.removesuffix(".rst.txt") + ".html")
        wanted = runs(truth(path.read_text("utf-8")))
        if page.exists() and wanted.total() > 200:
            chosen.append((page.read_text("utf-8"), wanted))
    chosen = chosen[: options.pages]
    ways = {"paise2nb": ours(precise=False), "paise2nb, precise": ours(precise=True), **peers()}
    scores: dict[str, float] = {}
    for name, extract in ways.items():
        extract(chosen[0][0])
        started = time.perf_counter()
        texts = [extract(html) for html, _ in chosen]
        spent = time.perf_counter() - started
        rows = [judged(text, wanted) for text, (_, wanted) in zip(texts, chosen, strict=True)]
        f1, precision, recall = map(statistics.mean, zip(*rows, strict=True))
        scores[name] = f1
        print(
            f"{name:18} F1 {f1:.3f}   precision {precision:.3f}   recall {recall:.3f}"
            f"   {len(chosen) / spent:7.1f} pages/s"
        )
    best = max((scores[name] for name in peers()), default=0.0)
    raise SystemExit(max(scores["paise2nb"], scores["paise2nb, precise"]) < best - MARGIN)


if __name__ == "__main__":
    main()
