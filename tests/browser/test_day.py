"""A panel that stays open for a day, and one whose cell is run again and again, grow nothing.

``pytest -m slow -s tests/browser/test_day.py`` sends the messages of a day, and prints what the
page, the kernel and the notebook then need.
"""

from __future__ import annotations

import operator
from pathlib import Path
from typing import NamedTuple

import psutil
import pytest
from playwright.sync_api import CDPSession, expect

from tests.browser.lab import CHROMIUM, Lab, opening
from tests.waiting import until

pytestmark = [
    pytest.mark.slow,
    pytest.mark.browser,
    pytest.mark.skipif(CHROMIUM is None, reason="machine: no Chromium"),
]
HOURS, RUNS = 24, 50
# The panel's clock runs ahead: a second passes with each heartbeat, and work comes twice a minute.
# The pause keeps below the number of messages that Jupyter's server passes on.
HOUR = """import os, time
from types import SimpleNamespace
from paise2nb.notebook import panel as panels
ahead = 0
panels.time = SimpleNamespace(thread_time=time.thread_time,
    time=lambda: time.time() + ahead, monotonic=lambda: time.monotonic() + ahead)
def hour():
    global ahead
    for second in range(3600):
        ahead += 1
        if second % 30 == 0:
            app.enqueue("fetch", f"http://127.0.0.1:9/{ahead}")
        panel.refresh(reread=False)
        time.sleep(0.001)
print("pid", os.getpid())"""


class Use(NamedTuple):
    """What a page and a kernel need."""

    heap_mb: float
    nodes: int
    listeners: int
    kernel_mb: float

    def is_near(self, before: Use) -> bool:
        grown = [now - then for now, then in zip(self, before, strict=True)]
        return all(map(operator.lt, grown, (10, 1000, 2000, 20)))


def measured(session: CDPSession, kernel: psutil.Process) -> Use:
    session.send("HeapProfiler.collectGarbage")
    found = session.send("Performance.getMetrics")["metrics"]
    page = {metric["name"]: metric["value"] for metric in found}
    heap, kernel_mb = page["JSHeapUsedSize"] / 1e6, kernel.memory_info().rss / 1e6
    return Use(round(heap, 1), page["Nodes"], page["JSEventListeners"], round(kernel_mb, 1))


def test_a_day_and_fifty_runs_grow_nothing(lab: Lab, data_dir: Path) -> None:
    opened = opening(data_dir).replace("%paise2", "app = %paise2")
    cells = [opened, "panel = %paise2 watch\npanel", HOUR, "hour()"]
    name = lab.write("day.ipynb", cells)
    lab.open(name)
    lab.run_all()
    panel = lab.outputs().locator(".paise2-watch")
    expect(panel).to_have_count(1)
    kernel = psutil.Process(int(lab.outputs().nth(2).inner_text().split()[1]))
    session = lab.page.context.new_cdp_session(lab.page)
    session.send("Performance.enable")
    before = measured(session, kernel)
    print(f"\nafter an hour  {before}")
    select = "i => { window.jupyterapp.shell.currentWidget.content.activeCellIndex = i; }"
    lab.page.evaluate(select, 3)
    for _ in range(1, HOURS):
        lab.execute("notebook:run-cell")
    count = panel.locator('.paise2-count[data-state="queued"]')
    expect(count).to_have_attribute("data-value", str(HOURS * 120))
    after = measured(session, kernel)
    print(f"after a day    {after}")
    lab.page.evaluate(select, 1)
    for _ in range(RUNS):
        lab.execute("notebook:run-cell")
    expect(panel).to_have_count(1)
    expect(count).to_have_attribute("data-value", str(HOURS * 120))
    until(lambda: measured(session, kernel).is_near(before))  # the browser frees views late
    again = measured(session, kernel)
    print(f"after {RUNS} runs  {again}")
    lab.execute("docmanager:save")
    size = (lab.folder / name).stat().st_size
    print(f"the notebook   {size / 1000:.1f} kB")
    assert after.is_near(before), (before, after)
    assert size < 200_000
    assert lab.errors() == []
