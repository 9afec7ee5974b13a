"""The panel in a notebook: what it counts, and what is saved of it.

Its buttons are in a browser: see ``tests/browser/test_panel.py``.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Any

import pytest
from IPython.core.formatters import DisplayFormatter

import paise2nb
from paise2nb import App
from tests.acceptance.support import Place


@pytest.fixture
def panel(app: App, cell: Callable[[str], Any]) -> Any:
    """The panel of an app that no worker serves yet.

    What keeps it up to date ends with the extension, before the app is closed.
    """
    shown = app.watch()
    assert app.watch() is shown  # an app has one
    return shown


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


def test_a_page_that_failed_is_counted_with_the_command_that_helps(
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
    job.retry()
    assert (count(panel, "failed"), count(panel, "queued")) == ("0", "1")


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
