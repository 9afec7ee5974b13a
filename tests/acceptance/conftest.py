"""Fixtures of the acceptance tests: a place to work in, the command, an app and a site."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from IPython.core.interactiveshell import InteractiveShell
from traitlets.config import Config

import paise2nb
from tests.acceptance.support import Place, Shell, Site


@pytest.fixture
def place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Place]:
    """A place of the test's own, which this process works in too; its workers are gone at the end.

    Whatever opens the profile ``development`` here, the command, a kernel or the test itself,
    works on the same data.
    """
    made = Place(tmp_path)
    for name in [name for name in os.environ if name.startswith("PAISE2_")]:
        monkeypatch.delenv(name)
    for name, value in made.environment().items():
        monkeypatch.setenv(name, value)
    monkeypatch.chdir(made.work)
    yield made
    if made.data.exists():
        with paise2nb.open("development") as app:
            app.workers.stop(timeout=0)


@pytest.fixture
def table(place: Place) -> Place:
    """The place with a page and a table of two columns."""
    place.write("page.md", "# A page\n\nWith a few words.\n")
    place.write("table.csv", "id,url\n1,page.md\n")
    return place


@pytest.fixture
def shell(place: Place) -> Shell:
    """The command ``paise2``."""
    return Shell(place)


@pytest.fixture
def app(place: Place) -> Iterator[paise2nb.App]:
    """An app whose jobs wait for workers; none run."""
    with paise2nb.open("development") as opened:
        yield opened


@pytest.fixture
def here(place: Place) -> Iterator[paise2nb.App]:
    """An app that runs jobs in this process, before an enqueue returns."""
    with paise2nb.open("test", data_dir=place.data) as opened:
        yield opened


@pytest.fixture
def cell(place: Place, monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[[str], Any]]:
    """Run a cell in an IPython shell of this process that has loaded the extension."""
    monkeypatch.setenv("PAISE2_PROFILE", "development")  # a cell may choose another
    InteractiveShell.clear_instance()
    shell: Any = InteractiveShell.instance(config=Config(HistoryManager={"enabled": False}))
    shell.run_line_magic("load_ext", "paise2nb")
    yield lambda text: shell.run_cell(text)
    shell.run_line_magic("unload_ext", "paise2nb")
    InteractiveShell.clear_instance()


@pytest.fixture
def site() -> Iterator[Site]:
    """A web site of the test's own."""
    with Site() as running:
        yield running
