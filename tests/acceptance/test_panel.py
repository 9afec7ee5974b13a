"""The panel in a notebook: what it counts, and what its buttons do."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from typing import Any

import ipywidgets
import pytest
from IPython.core.formatters import DisplayFormatter

import paise2nb
from paise2nb import App
from tests.acceptance.support import SECONDS, Place, until


@pytest.fixture
def panel(app: App, cell: Callable[[str], Any]) -> Any:
    """The panel of an app that no worker serves yet.

    What keeps it up to date ends with the extension, before the app is closed.
    """
    shown = app.watch()
    assert app.watch() is shown  # an app has one
    return shown


def widgets(widget: Any) -> Iterator[Any]:
    """A widget and all in it."""
    yield widget
    for child in getattr(widget, "children", ()):
        yield from widgets(child)


def button(panel: Any, name: str) -> Any:
    """The button of that name."""
    [found] = [
        widget
        for widget in widgets(panel)
        if isinstance(widget, ipywidgets.Button) and widget.description == name
    ]
    return found


def press(panel: Any, name: str) -> None:
    """Press a button, and wait until what it does is done: until then others are disabled."""
    button(panel, name).click()
    until(lambda: saved(panel) and not button(panel, "Start workers").disabled)


def saved(panel: Any) -> dict[str, str]:
    """The forms in which a notebook keeps the panel, by their types."""
    formatter: Any = DisplayFormatter()
    data, _ = formatter.format(panel)
    return dict(data)


def count(panel: Any, state: str) -> str:
    """What the panel counts in a state."""
    [found] = re.findall(
        rf'<(\w+)(?=[^>]*class="paise2-count")(?=[^>]*data-state="{state}")[^>]*>([^<]*)</\1>',
        saved(panel)["text/html"],
    )
    return str(found[1])


def test_each_state_has_one_count(panel: Any, app: App) -> None:
    app.enqueue_many("fetch", ["http://127.0.0.1:9/a", "http://127.0.0.1:9/b"])
    app.enqueue("fetch", "http://127.0.0.1:9/c", delay=3600)
    app.job(1).cancel()
    assert (count(panel, "queued"), count(panel, "scheduled")) == ("1", "1")
    assert (count(panel, "stored"), count(panel, "unchanged"), count(panel, "skipped")) == (
        "0",
        "0",
        "0",
    )
    assert (count(panel, "cancelled"), count(panel, "failed")) == ("1", "0")
    assert (count(panel, "running"), count(panel, "retrying")) == ("0", "0")


def test_a_page_that_failed_is_counted_and_retried_by_the_button(
    panel: Any, app: App, place: Place
) -> None:
    gone = place.root / "gone.md"
    gone.write_text("# Here again\n\nWith words.\n")
    job = app.enqueue("fetch", str(gone))
    gone.unlink()
    with paise2nb.open("test", place.data) as here:
        here.wait()
    assert (job.state, count(panel, "failed")) == ("failed", "1")
    assert "paise2 retry" in saved(panel)["text/html"]
    press(panel, "Retry failed")
    assert job.state == "queued"
    assert (count(panel, "failed"), count(panel, "queued")) == ("0", "1")


def test_workers_are_started_and_stopped_by_the_buttons(panel: Any, app: App) -> None:
    job = app.enqueue("shout", "a")
    [concurrency] = [
        widget
        for widget in widgets(panel)
        if isinstance(getattr(widget, "value", None), int) and hasattr(widget, "max")
    ]
    assert concurrency.value == 1
    concurrency.value = 2
    press(panel, "Start workers")
    assert [row["pool"] for row in app.workers.status().workers] == ["default"] * 2
    assert job.result(timeout=SECONDS) == "A"
    press(panel, "Stop workers")
    assert app.workers.status().workers == []


def test_a_notebook_keeps_a_form_without_a_kernel(panel: Any, app: App) -> None:
    app.enqueue("fetch", "http://127.0.0.1:9/a")
    first, second = saved(panel), saved(panel)
    assert first == second
    assert "queued" in first["text/plain"]
    assert "application/vnd.jupyter.widget-view+json" in first


def test_what_a_job_says_can_not_become_part_of_the_panel(
    panel: Any, app: App, place: Place
) -> None:
    with paise2nb.open("test", place.data) as here:
        here.enqueue("stumble", "<script>alert(1)</script>")
    assert "<script>alert" not in saved(panel)["text/html"]
    assert "<script>alert" not in "".join(
        widget.value for widget in widgets(panel) if isinstance(widget, ipywidgets.HTML)
    )
