"""What the panel draws of a state, in a page without a kernel."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from playwright.sync_api import Page, expect

import paise2nb
from paise2nb.notebook import panel as panels
from paise2nb.notebook.panel_state import state
from tests.browser.lab import CHROMIUM, Lab
from tests.browser.test_panel import ATTACK

pytestmark = [
    pytest.mark.browser,
    pytest.mark.skipif(CHROMIUM is None, reason="machine: no Chromium"),
]
# A model as anywidget gives it. The kernel's answers are in `answers`, by command.
DRAW = """async ([source, state, answers]) => {
    const url = URL.createObjectURL(new Blob([source], { type: "text/javascript" }));
    const { default: widget } = await import(url);
    const values = { state, beat: Date.now() / 1000, _view_count: 1 };
    window.asked = [];
    window.listeners = [];
    const model = {
        get: (name) => values[name],
        on: (name, listener) => listeners.push([name, listener]),
        off: (name, listener) => {
            window.listeners = listeners.filter((one) => one[0] !== name || one[1] !== listener);
        },
        send: (message) => {
            asked.push(message.do);
            const answer = { call: message.call, result: answers[message.do] ?? "" };
            setTimeout(() => tell("msg:custom", answer));
        },
    };
    window.tell = (name, value) => {
        for (const [known, listener] of listeners) if (known === name) listener(value);
    };
    window.change = (changes) => {
        values.state = { ...values.state, ...changes };
        values.beat = Date.now() / 1000;
        tell("change:state");
        tell("change:beat");
    };
    window.dispose = widget.render({ model, el: document.body });
}"""


@pytest.fixture
def page(lab: Lab) -> Iterator[Page]:
    """A page of its own, which no error may end."""
    browser = lab.page.context.browser  # one process may drive only one
    assert browser is not None
    errors: list[str] = []
    with contextlib.closing(browser.new_page()) as shown:
        shown.on("pageerror", lambda error: errors.append(str(error)))
        yield shown
        assert errors == []


@pytest.fixture
def drawn(tmp_path: Path) -> dict[str, Any]:
    """The state of a collection in which one page waits."""
    with paise2nb.open("development", tmp_path / "data") as app:
        app.enqueue("fetch", "http://127.0.0.1:9/")
        return state(app, app.status()) | {
            "concurrency": 1, "scales": False, "action": "", "message": "",
        }  # fmt: skip


def test_what_is_drawn_is_true_safe_and_removed(page: Page, drawn: dict[str, Any]) -> None:
    queued = drawn["pages"] | {"queued": 1}
    none = dict.fromkeys(queued, 0)
    row = {
        "id": 1, "task": "fetch", "state": "failed", "attempt": 1, "duration": 1, "time": 1,
        "url": "", "text": ATTACK, "short": ATTACK, "name": ATTACK, "place": ATTACK,
        "error": ATTACK,
    }  # fmt: skip
    ahead = drawn["utc_offset"] % 86400
    pace = {"start": 86400 * 20_000 - ahead, "step": 1440, "completed": [1] * 60}
    answers = {
        "pages": {"rows": [row], "total": 1},
        "pace": {**pace, "failed": [0] * 60},
        "failures": [row],
    }
    source = (Path(panels.__file__).parent / "panel.js").read_text()
    source = source.replace("SILENT_SECONDS = 3;", "SILENT_SECONDS = 300;")
    page.evaluate(DRAW, [source, drawn, answers])
    live = page.locator(".live")
    for changes, words in (
        ({}, "waiting · 0 workers"),
        ({"all_workers": 2}, "waiting · 2 workers"),
        ({"hosts": [{"host": ATTACK, "waiting": 1, "why": "1/s"}]}, "waiting for hosts"),
        ({"pages": none, "all_running": 1}, "running"),
        ({"all_running": 0, "others": {"retrying": 1}}, "waiting for retries"),
        ({"others": {}}, "idle"),
        ({"pages": queued, "paused": True, "hosts": []}, "paused"),
    ):
        page.evaluate("(changes) => change(changes)", changes)
        expect(live).to_contain_text(words)
    for rate, others, words in (
        (90, {}, "90 pages/min"),
        (9000, {}, "150 pages/s"),
        (9000, {"completed": 5}, "150 pages and jobs/s"),
    ):
        page.evaluate("(changes) => change(changes)", {"rate": rate, "others": others})
        expect(page.locator(".facts").first).to_contain_text(words)
    # A plot of another day has times, not dates.
    times = page.locator(".plot text").all_text_contents()
    assert "00:00" in times, times
    # Tags whose first characters are the same, and more than there is room for.
    tags = [{"tag": ATTACK, "pages": queued}] * 2
    group = {
        "key": "a", "id": 1, "name": ATTACK, "jobs": 1, "recurs": False, "error": ATTACK,
        "advice": ATTACK, "command": ATTACK, "retry": False,
    }  # fmt: skip
    page.evaluate(
        "(changes) => change(changes)",
        {"tags": tags, "more_tags": 3, "groups": [group], "failures": 99, "problems": [ATTACK]},
    )
    expect(page.locator(".gauge")).to_have_count(3)
    expect(page.locator(".bars")).to_contain_text("and 3 more tags")
    expect(page.get_by_role("button", name="Needs you (99)")).to_be_visible()
    page.locator(".group .toggle").first.click()
    expect(page.locator(".failures .row")).to_have_count(1)
    # The list follows its group when the pointer has left.
    page.evaluate("asked.length = 0")
    page.evaluate("(group) => change({ groups: [group] })", group | {"jobs": 2})
    assert "failures" not in page.evaluate("asked")
    page.evaluate("document.activeElement.blur()")
    page.mouse.move(0, 0)
    page.wait_for_function("asked.includes('failures')")
    assert page.locator("img, script").count() == 0
    assert page.evaluate("window.hacked") is None
    page.evaluate("dispose()")
    assert page.evaluate("listeners") == []
