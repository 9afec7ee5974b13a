"""Two hundred hostile strings in every view: none adds a tag or an escape sequence.

The strings are those that titles, names of files and messages of exceptions can contain.
"""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Iterator
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import pytest

import paise2nb
from paise2nb.app import App
from paise2nb.core import render
from paise2nb.core.display import Message
from paise2nb.jobs.workers_status import WorkersStatus
from paise2nb.notebook.panel import close_panels
from paise2nb.plugins import Document
from tests.core.test_render import HOSTILE

FRAMES = (
    "{}", "words {} words", "{}" * 3, 'title="{}"', "https://x.example/{}", "javascript:{}",
    "<a href='{}'>",
)  # fmt: skip
STRINGS = [frame.replace("{}", text) for frame in FRAMES for text in HOSTILE][:200]
PLUGIN = """
from paise2nb import task

@task("stumble", max_retries=0)
def stumble(context, word):
    raise ValueError(word)

@task("trip", max_retries=1, retry_delay=3000)
def trip(context, word):
    raise RuntimeError(word)

@task("echo")
def echo(context, word):
    return {word: word}
"""
OURS = {
    "style", "div", "span", "table", "thead", "tbody", "tr", "th", "td", "mark", "pre", "p", "h3",
    "h4", "b", "code", "details", "summary", "svg", "rect", "a", "wbr",
}  # fmt: skip
ATTRIBUTES = {
    "class", "title", "tabindex", "data-state", "data-value", "href", "target", "rel",
    "width", "height", "viewbox", "role", "aria-label", "x", "y", "preserveaspectratio",
}  # fmt: skip


class Living(HTMLParser):
    """Collects the tags and attributes in HTML that paise2nb does not write itself."""

    def __init__(self, markup: str) -> None:
        super().__init__()
        self.found: list[str] = []
        self.feed(markup)
        self.close()

    def handle_starttag(self, tag: str, attributes: list[tuple[str, str | None]]) -> None:
        if tag not in OURS:
            self.found.append(tag)
        for name, value in attributes:
            safe = name != "href" or (value or "").startswith(("http://", "https://", "file:"))
            if name not in ATTRIBUTES or not safe:
                self.found.append(f"{tag} {name}={value}")

    def handle_comment(self, data: str) -> None:
        self.found.append(f"comment {data}")

    def handle_decl(self, decl: str) -> None:
        self.found.append(f"declaration {decl}")


def check(shown: Any, text: Callable[[Any], str] = str) -> None:
    """Check every form of a result."""
    if isinstance(shown, str):
        assert Living(shown).found == []
        assert not render.UNSAFE.search(shown)
        return
    for words in (text(shown), repr(shown)):
        assert not render.UNSAFE.search(words), words
        words.encode()
    check(shown._repr_html_())


def storable(text: str) -> str:
    return text.encode(errors="backslashreplace").decode()


@pytest.fixture
def app(tmp_path: Path) -> Iterator[App]:
    """An app for jobs and items with hostile strings."""
    plugin = tmp_path / "plugin.py"
    plugin.write_text(PLUGIN)
    settings = {"plugins": [str(plugin)]}
    with paise2nb.open("development", tmp_path / "data", settings) as opened:
        yield opened
        close_panels()


def fill(app: App, strings: list[str]) -> None:
    words = [storable(text) for text in strings]
    app.enqueue_many("echo", words)
    queued = app.enqueue_many("trip", words)
    app.enqueue_many("stumble", words)
    retrying = paise2nb.open("development", app.data_dir, {
        "plugins": list(app.settings.plugins), "task_queue.sqlite.immediate": True,
    })  # fmt: skip
    with retrying:
        retrying.queue.run_ready()
    assert {job.state for job in queued} == {"retrying"}
    app.store.put_many(
        (
            Document(text, title=text, author=text, date=text, language=text),
            {
                "url": text, "key": f"{number} {text}", "mime_type": text, "sha256": text,
                "size": 1, "tag": text, "fetched_at": time.time(),
            },
        )
        for number, text in enumerate(words)
    )  # fmt: skip
    log = app.data_dir / "logs" / "workers.log"
    log.parent.mkdir(exist_ok=True)
    log.write_text("\n".join(words))


def test_there_are_two_hundred_strings() -> None:
    assert len(set(STRINGS)) == len(STRINGS) == 200


@pytest.mark.parametrize("part", range(10))
def test_no_result_shows_hostile_text_unescaped(app: App, part: int) -> None:
    strings = STRINGS[part::10]
    fill(app, strings)
    for listing in (app.jobs(), app.items()):
        check(listing)
        for one in listing:
            check(one)
    for job in app.jobs():
        check(render.escape(job.details()))
        assert not render.UNSAFE.search(job.details())
    check(app.status())
    check(app.since())
    check(app.logs(100))
    for text in strings:
        check(app.search(text))
        check(Message(text))
        check(WorkersStatus([_worker(text)], None, text, text))
    check(app.search("words"))


@pytest.mark.parametrize("part", range(10))
def test_no_live_view_shows_hostile_text_unescaped(app: App, part: int) -> None:
    fill(app, STRINGS[part::10])
    panel = app.watch()
    seen = 0
    strange = iter(app.items())
    for job in app.jobs(state="failed"):
        bundle, _ = panel._repr_mimebundle_()
        assert not render.UNSAFE.search(bundle["text/plain"])
        check(bundle["text/html"])
        texts = json.dumps(panel.state, ensure_ascii=False)
        assert not render.UNSAFE.search(texts)
        seen += len(texts)
        words = app.screen()
        assert not render.UNSAFE.search(words)
        job.retry().cancel()
        item = app.item(next(strange).id)
        app.store.put(
            Document(item.text, title=item.title), url=item.url, key=f"{job.id} again",
            mime_type="text/plain", sha256="x", size=1, tag=None, fetched_at=time.time(),
        )  # fmt: skip
    assert seen


def _worker(text: str) -> dict[str, Any]:
    return {"pool": text, "pid": 1, "state": text, "jobs": [1], "error": text}
