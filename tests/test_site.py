"""The documentation is built as a site without network; its links lead somewhere."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from urllib.parse import unquote, urlsplit

import click
import pytest
from lxml import html

import paise2nb
from tests.test_docs import commands

pytest.importorskip("sphinx", reason="the extra docs is not installed")

ROOT = Path(__file__).parents[1]


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The site. Each warning is an error, and every request would fail."""
    directory = tmp_path_factory.mktemp("site")
    nothing_listens = "http://127.0.0.1:9"
    subprocess.run(
        [sys.executable, "-m", "sphinx", "-W", "--keep-going", "-q", "-c", "docs", ".", directory],
        cwd=ROOT,
        env=os.environ | {"http_proxy": nothing_listens, "https_proxy": nothing_listens},
        check=True,
        timeout=120,
    )
    return directory


@pytest.fixture(scope="module")
def pages(site: Path) -> dict[Path, html.HtmlElement]:
    return {path: html.parse(str(path)).getroot() for path in site.rglob("*.html")}


def test_every_document_and_notebook_is_a_page(pages: dict[Path, html.HtmlElement]) -> None:
    sources = [*(ROOT / "docs").glob("*.md"), *(ROOT / "notebooks").glob("*.ipynb")]
    assert {path.stem for path in sources} <= {path.stem for path in pages}


def test_every_link_within_the_site_leads_to_a_place(pages: dict[Path, html.HtmlElement]) -> None:
    ids = {path: set(page.xpath("//@id")) for path, page in pages.items()}
    broken = []
    for path, page in pages.items():
        for link in map(str, page.xpath("//@href | //@src")):
            parts = urlsplit(link)
            if parts.scheme:
                continue
            target = (path.parent / unquote(parts.path)).resolve() if parts.path else path
            missing = parts.fragment and target in ids and parts.fragment not in ids[target]
            if not target.exists() or missing:
                broken.append(f"{path.name}: {link}")
    assert broken == []


def test_the_site_loads_nothing_from_elsewhere(pages: dict[Path, html.HtmlElement]) -> None:
    loaded = "//script/@src | //link[@rel='stylesheet']/@href | //img/@src"
    found = {str(source) for page in pages.values() for source in page.xpath(loaded)}
    assert {source for source in found if urlsplit(source).scheme not in ("", "data")} == set()


def test_every_command_is_there_with_its_options(
    site: Path, pages: dict[Path, html.HtmlElement]
) -> None:
    text = pages[site / "docs/commands.html"].text_content()
    for words, command in commands():
        assert f"Usage: paise2 {words} " in text
        for option in command.params:
            if isinstance(option, click.Option) and not option.hidden:
                assert option.opts[0] in text


def test_every_error_class_is_there(site: Path, pages: dict[Path, html.HtmlElement]) -> None:
    words = set(pages[site / "docs/failures.html"].xpath("//td[1]//code/span/text()"))
    file = ROOT / "paise2nb/views/remedies.json"
    assert words == set(json.loads(file.read_text("utf-8")))


def test_every_public_name_is_there(site: Path, pages: dict[Path, html.HtmlElement]) -> None:
    described = set(pages[site / "docs/python.html"].xpath("//@id"))
    extension = {"__version__", "load_ipython_extension", "unload_ipython_extension"}
    names = {f"paise2nb.{name}" for name in set(paise2nb.__all__) - extension}
    assert names - described == set()
