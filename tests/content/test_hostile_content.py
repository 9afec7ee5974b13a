"""Content that wants to hurt, through real workers: the short form of the long run."""

from __future__ import annotations

import io
import json
import resource
import subprocess
import sys
import time
import zipfile
from pathlib import Path

import pytest

from paise2nb.content.engine import Reading
from paise2nb.content.extract import documents as through_library
from paise2nb.content.extract import pages
from paise2nb.content.extract.text import metas
from paise2nb.content.extract.types import SUFFIXES
from paise2nb.content.sources.reading import feed_entries
from paise2nb.core.errors import PermanentError
from paise2nb.plugins import Fetched, Source
from tests import documents, hostile
from tests.benchmarks.hostile import run


@pytest.mark.slow
def test_hostile_content_costs_no_worker_and_little_memory(tmp_path: Path) -> None:
    report = run(tmp_path, documents=60, seconds=300)
    assert report.problems() == [], report
    assert report.ends["fetch failed too_large"] >= 3  # also in gzip, br and zstd
    assert report.ends["fetch failed crash"] + report.ends["fetch failed memory"] >= 2


def test_a_page_of_many_tags_keeps_all_visible_text() -> None:
    head = "<html lang=de><head><title>A &amp; B</title><script>x='<p>no</p>'</script></head><body>"
    rows = "<tr><td>c<b>el</b>l<td>grün" * pages.MAX_TAGS
    found = pages.read(f"{head}<table>{rows}".encode(), Source("http://x/", "text/html"))
    assert (found.title, found.language) == ("A & B", "de")
    assert found.text == "\n".join(["cell\ngrün"] * pages.MAX_TAGS)


@pytest.mark.parametrize(
    "data",
    [
        '"a":' + " " * 1_000_000,
        '"' + r"\"" * 1_000_000,
        '"' + "a" * 1_000_000 + '"',
        '"\\' * 1_000_000,
    ],
    ids=["spaces", "quotes", "letters", "backslashes"],
)
def test_data_of_a_page_that_is_no_text_costs_little_time(data: str) -> None:
    page = f"<p>words<script>[{data}</script>"
    assert pages.read(page.encode(), Source("http://x/", "text/html")).text == "words"


def test_metadata_without_an_end_cost_little_time() -> None:
    data = '"' + r"\"" * 500_000
    page = f'<p>words<script type="application/ld+json">{data}</script>'
    began = time.process_time()
    assert pages.read(page.encode(), Source("http://x/", "text/html")).text == "words"
    assert time.process_time() - began < 20


def test_a_tag_of_many_letters_costs_little_time() -> None:
    tag = b"<meta " + b"a" * 1_000_000 + b' charset=x content="y"z=1>'
    ((_, values),) = metas(tag)
    assert [values[name] for name in ("charset", "content", "z")] == ["x", "y", "1"]


def test_a_page_of_many_dates_costs_little_time() -> None:
    dates = "1/2/2020 " * 50_000, "2020-01-02 " * 50_000
    page = "<p>words" + "".join(f"<meta name=x content='{each}'>" for each in dates)
    assert pages.read(page.encode(), Source("http://x/", "text/html")).text == "words"


@pytest.mark.parametrize("text", ["![" * 300_000, "![](data:image/a;base64,A" * 50_000])
def test_pictures_without_end_cost_little_time(text: str) -> None:
    data = json.dumps({"cells": [{"cell_type": "markdown", "source": text}], "nbformat": 4})
    source = Source("http://x/a.ipynb", SUFFIXES[".ipynb"])
    assert text in through_library.read(data.encode(), source).text.replace("\\", "")


@pytest.mark.parametrize("part", [b"", b"no markup", b"<a><!-- --><?b?></a>"])
@pytest.mark.parametrize("name", ["word/footer1.xml", "word/_rels/document.xml.rels"])
def test_a_damaged_part_of_a_document_does_not_cost_its_text(name: str, part: bytes) -> None:
    data = io.BytesIO(documents.docx("words"))
    with zipfile.ZipFile(data, "a") as package:
        package.writestr(name, part)
    found = through_library.read(data.getvalue(), Source("http://x/a.docx", SUFFIXES[".docx"]))
    assert found.text == "words"
    assert list(through_library.word_chunks(data.getvalue())) == []


@pytest.mark.parametrize(
    ("data", "word"),
    [
        (hostile.zip_bomb(1), "too_large"),
        (hostile.zip_bomb(1, claimed=10), "damaged"),
        (documents.docx("words")[:-30], "damaged"),
    ],
    ids=["too much", "a lie", "cut off"],
)
def test_the_unpacked_size_of_a_document_is_checked_first(data: bytes, word: str) -> None:
    with pytest.raises(PermanentError) as caught:
        through_library.read(data, Source("http://x/a.docx", SUFFIXES[".docx"]))
    assert caught.value.error_class == word


def test_a_document_that_needs_too_much_memory_or_time_ends_only_its_reader() -> None:
    source, long = (
        Source("http://x/a.docx", SUFFIXES[".docx"]),
        documents.docx(" ".join(map(str, range(2_000_000)))),
    )
    for limit, word in (Reading(memory_mb=20), "memory"), (Reading(seconds=0.01), "timeout"):
        with pytest.raises(PermanentError) as caught:
            through_library.read(long, source, limit)
        assert caught.value.error_class == word


_LIMITED = """
import os, resource
from paise2nb.content.engine import Reading
from paise2nb.content.extract import documents as through_library
from paise2nb.plugins import Source
from tests import documents
source = Source("http://x/a.xls", "application/vnd.ms-excel")
text = through_library.read(documents.xls("words"), source, Reading(200, in_process=True)).text
print("words" in text, resource.getrlimit(resource.RLIMIT_DATA)[0], flush=True)
os._exit(0)
"""


def test_the_memory_limit_of_a_parser_ends_with_it() -> None:
    ran = subprocess.run([sys.executable, "-c", _LIMITED], capture_output=True, text=True)
    assert ran.stdout == f"True {resource.RLIM_INFINITY}\n", ran.stderr


def test_a_feed_with_too_many_tags_is_refused() -> None:
    with pytest.raises(PermanentError, match="more than 500000 tags") as caught:
        feed_entries(Fetched(b"<item>" * 500_001, "http://x/feed"))
    assert caught.value.error_class == "too_large"
