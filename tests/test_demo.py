"""The bundled site, and the demo that collects it with real workers."""

from __future__ import annotations

import html
import os
import re
import subprocess
import sys
import urllib.error
import urllib.request
from collections.abc import Iterator
from contextlib import chdir, nullcontext
from pathlib import Path

import pytest

import paise2nb
from paise2nb import demo as demo_package
from paise2nb.config.parser import read_file
from paise2nb.config.settings import Settings
from paise2nb.core import processes
from paise2nb.demo import DemoSite, logbook, notebook, run_demo
from paise2nb.demo.run import QUERY
from paise2nb.demo.site import FLAKY, GONE, PAGES
from tests.waiting import until


def status(url: str) -> int:
    try:
        with urllib.request.urlopen(url) as answer:
            return int(answer.status)
    except urllib.error.HTTPError as error:
        return error.code


@pytest.fixture
def site() -> Iterator[DemoSite]:
    with DemoSite() as site:
        yield site


def test_ordinary_pages_answer(site: DemoSite) -> None:
    assert {status(site.base + page.file) for page in PAGES} == {200}


def test_the_flaky_page_is_busy_twice(site: DemoSite) -> None:
    assert [status(site.flaky) for _ in range(4)] == [503, 503, 200, 200]


def test_the_page_that_is_gone_stays_gone_until_it_is_reopened(site: DemoSite) -> None:
    assert [status(site.gone), status(site.gone)] == [410, 410]
    site.reopen()
    assert status(site.gone) == 200


def test_a_path_outside_the_site_is_not_found(site: DemoSite) -> None:
    assert status(site.base + "../../pyproject.toml") == 404


def html_pages(site: DemoSite) -> dict[str, str]:
    """The HTML pages, by their files, with single spaces."""
    site.reopen()
    while status(site.flaky) != 200:
        pass
    texts = {}
    for page in (*PAGES, FLAKY, GONE):
        if page.file.endswith(".html"):
            with urllib.request.urlopen(site.base + page.file) as answer:
                texts[page.file] = " ".join(answer.read().decode().split())
    return texts


def titles(texts: dict[str, str]) -> list[str]:
    found = (re.search("<title>(.+?)</title>", text) for text in texts.values())
    return [html.unescape(title[1]) for title in found if title]


def test_the_phrase_of_each_page_is_on_no_other_page(site: DemoSite) -> None:
    texts = html_pages(site)
    for page in (*PAGES, FLAKY, GONE):
        if page.file in texts:
            assert [file for file, text in texts.items() if page.phrase in text] == [page.file]


def test_each_page_has_a_title_of_its_own(site: DemoSite) -> None:
    texts = html_pages(site)
    assert len(set(titles(texts))) == len(texts)


def test_the_log_has_a_hundred_pages_of_which_some_are_busy_or_gone(site: DemoSite) -> None:
    answers = {url.rpartition("/")[2]: status(url) for url in site.logbook}
    assert len(answers) == 100
    assert {file for file, code in answers.items() if code == 410} == logbook.TORN_OUT
    assert {file for file, code in answers.items() if code == 503} == logbook.BUSY
    site.reopen()
    assert [status(url) for url in site.logbook].count(410) == 0


def test_a_tutorial_has_a_collection_of_its_own_until_it_is_closed(tmp_path: Path) -> None:
    mine = {"PAISE2_DATA_DIR": str(tmp_path), "PAISE2_PROFILE": "production"}
    with chdir(tmp_path), pytest.MonkeyPatch.context() as patch:
        for name, value in mine.items():
            patch.setenv(name, value)
        tutorial = notebook()
        folder = Path.cwd()
        with paise2nb.open() as app:
            assert app.profile == "development"
            assert app.data_dir.is_relative_to(folder)
            app.workers.start()
            [item] = app.enqueue("fetch", tutorial.base).wait(timeout=30).items
            assert item.title == "An Almanac of Patient Things"
        tutorial.close()
        assert not folder.exists()
        assert Path.cwd() == tmp_path
        assert {name: os.environ[name] for name in mine} == mine
        assert "PAISE2_CONFIG_DIR" not in os.environ
        with pytest.raises(urllib.error.URLError):
            status(tutorial.base)
        tutorial.close()


def test_a_tutorial_that_is_not_closed_ends_with_its_process() -> None:
    code = """
import os, paise2nb
from paise2nb import demo

demo.notebook()
with paise2nb.open() as app:
    app.workers.start()
    print(app.workers.status().supervisor["pid"], os.getcwd())
"""
    ended = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60)
    assert (ended.returncode, ended.stderr) == (0, "")
    pid, folder = ended.stdout.split()
    assert not Path(folder).exists()
    until(lambda: processes.identity(int(pid)) is None)


def test_a_closed_site_does_not_answer() -> None:
    site = DemoSite()
    site.close()
    site.close()
    with pytest.raises(urllib.error.URLError):
        status(site.base)


def test_the_demo_succeeds_and_reports_what_it_did() -> None:
    with DemoSite() as site:
        known = set(titles(html_pages(site)))
    said: list[str] = []
    demo = run_demo(said.append)
    assert demo.problems == []
    assert demo.succeeded
    assert (demo.pages, demo.items) == (len(PAGES) + 2, len(PAGES) + 1)
    assert demo.jobs == demo.pages + 2 * demo.items
    assert len({hit["title"] for hit in demo.hits} & known) == 3
    assert all(QUERY[:4] in hit["snippet"].lower() for hit in demo.hits)
    assert demo.data_dir is None
    told = "\n".join([*said, str(demo)])
    assert f"{FLAKY.file} is completed after 3 attempts" in told
    assert "410 Gone" in told
    assert f"All {demo.jobs} jobs ended as they should" in told


def test_the_demo_does_not_use_what_the_user_has_set(tmp_path: Path) -> None:
    file = tmp_path / "paise2.yaml"
    file.write_text(
        "fetch: {proxy: 'http://127.0.0.1:1', cookies: none.txt, render: always}\n"
        "alerts: [{name: a, when: stored < 1, notify: 'ntfy://mine'}]\n"
    )
    own = read_file(Path(demo_package.__file__).with_name("settings.yaml"))
    settings = Settings.resolve("development", files=[file], overrides=own)
    fetch = settings.fetch
    assert (fetch.proxy, fetch.cookies, fetch.render, settings.alerts) == (None, None, "never", ())


def test_the_demo_shows_its_progress() -> None:
    seen: list[tuple[int, int]] = []
    bar = nullcontext(lambda done, total: seen.append((done, total)))
    assert run_demo(lambda line: None, lambda words: bar).exit_status == 0
    done, totals = zip(*seen, strict=True)
    assert list(done) == sorted(done)
    assert set(totals) == {len(PAGES) + 2}
    assert done[-1] == totals[-1]
