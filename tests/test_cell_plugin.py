"""A cell becomes a plugin: checked in a fresh process, kept, and loaded by the workers."""

from __future__ import annotations

from pathlib import Path

import pytest

import paise2nb
from paise2nb.commands import main
from paise2nb.commands.session import Session
from paise2nb.errors import PluginError, UsageError

SHOUT = """
from paise2nb import task

@task("shout")
def shout(context, word):
    return word.upper()
"""


def write_cell(data_dir: Path, name: str, body: str | None) -> object:
    session = Session()
    session.cell = body
    return main(["plugin", name, "--data-dir", str(data_dir)], session)


def test_a_cell_becomes_a_plugin_that_workers_load(tmp_path: Path) -> None:
    said = write_cell(tmp_path, "loud", SHOUT)
    assert "loud.py registers task shout" in str(said)
    with paise2nb.open("development", tmp_path, {"workers.concurrency": 1}) as app:
        app.workers.start(pool="default")
        assert app.enqueue("shout", "hello").result(timeout=60) == "HELLO"
        again = write_cell(tmp_path, "loud", SHOUT.replace("upper", "title"))
        assert "paise2 worker restart" in str(again)
        app.workers.restart()
        assert app.enqueue("shout", "hello you").result(timeout=60) == "Hello You"
        app.workers.stop()
    assert "upper" in (tmp_path / "plugins" / "loud.before").read_text()


@pytest.mark.parametrize(
    ("body", "words"),
    [
        ("x = 1", "registers nothing"),
        ("import not_there_at_all", "No module named 'not_there_at_all'"),
        ("def broken(:\n", "SyntaxError"),
        (SHOUT.replace('"shout"', '"fetch"'), "'fetch'"),
    ],
)
def test_a_cell_that_is_no_plugin_is_refused_and_nothing_is_kept(
    tmp_path: Path, body: str, words: str
) -> None:
    with pytest.raises(PluginError, match=words):
        write_cell(tmp_path, "loud", body)
    assert list((tmp_path / "plugins").iterdir()) == []


def test_a_line_without_a_cell_and_an_odd_name_are_told_what_to_type(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="below %%paise2 plugin NAME"):
        write_cell(tmp_path, "loud", None)
    with pytest.raises(UsageError, match="use letters, digits and _"):
        write_cell(tmp_path, "../loud", SHOUT)
