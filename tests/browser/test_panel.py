"""The panel and its buttons in JupyterLab, in a browser."""

from __future__ import annotations

import os
import re
import signal
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from playwright.sync_api import Locator, expect

from tests.browser.lab import CHROMIUM, Lab, opening
from tests.site import Site, Visit

pytestmark = [
    pytest.mark.browser,
    pytest.mark.skipif(CHROMIUM is None, reason="machine: no Chromium"),
]
ATTACK = "<img src=x onerror='window.hacked=1'>"

DARK = """() => {
    const style = getComputedStyle(document.querySelector('.paise2-watch'));
    const sum = colour => colour.match(/\\d+/g).slice(0, 3).reduce((a, b) => a + Number(b), 0);
    return sum(style.backgroundColor) < 200 && sum(style.color) > 500;
}"""


@pytest.fixture(autouse=True)
def no_complaints(lab: Lab) -> Iterator[None]:
    """Fail a test during which the page's console reports an error."""
    lab.complaints.clear()
    yield
    assert lab.complaints == []


def panel(lab: Lab) -> Locator:
    return lab.outputs().locator(".paise2-watch")


def press(lab: Lab, name: str) -> None:
    panel(lab).get_by_role("button", name=name, exact=True).first.click()


def press_and_time(lab: Lab, name: str, answer: Locator) -> None:
    """Press a button, wait for its answer, and print how long that took: ``pytest -s`` shows it."""
    began = time.monotonic()
    press(lab, name)
    expect(answer).to_be_visible()
    print(f"{name}: answered after {(time.monotonic() - began) * 1000:.0f} ms")


def expect_count(lab: Lab, state: str, number: int) -> None:
    shown = panel(lab).locator(f'.paise2-count[data-state="{state}"]')
    expect(shown).to_have_attribute("data-value", str(number))
    expect(shown).to_have_text(f"{number:,}")


def part(lab: Lab, title: str) -> Locator:
    """The button that opens a part of the panel."""
    return panel(lab).get_by_role("button", name=re.compile(rf"^{title}( \(|$)"))


def expect_updates(lab: Lab) -> None:
    """Expect that the time of the panel goes on."""
    updated = panel(lab).locator(".updated")
    before = updated.inner_text()
    expect(updated).not_to_have_text(before)


def test_the_panel_starts_and_follows_the_work(lab: Lab, data_dir: Path, site: Site) -> None:
    gate = threading.Semaphore(0)

    def wait_for_the_gate(visit: Visit, argument: str) -> None:
        gate.acquire(timeout=60)
        visit.answer()

    pages = " ".join(site.on(f"/page/{number}", wait_for_the_gate) for number in range(12))
    cells = [opening(data_dir), "%paise2 watch", f"jobs = %paise2 enqueue fetch {pages}"]
    lab.open(lab.write("follow.ipynb", cells))
    lab.run_all()
    expect_count(lab, "queued", 12)
    expect(panel(lab)).to_contain_text("12 jobs wait and no worker runs")
    lab.shot("01-jobs-wait")
    press(lab, "Start workers")
    expect(panel(lab)).to_contain_text("2 workers (default 1, fetch 1) started")
    expect_count(lab, "running", 12)
    part(lab, "Running jobs").click()
    rows = panel(lab).locator("section", has_text="Running jobs").locator(".row")
    expect(rows).to_have_count(12)
    lab.shot("02-running")
    rows.first.hover()  # nothing moves below the pointer
    gate.release(5)
    expect_count(lab, "stored", 5)
    gate.release(7)
    expect_count(lab, "stored", 12)
    expect(panel(lab)).to_contain_text("12 items")
    expect(panel(lab).locator(".row[data-gone]")).to_have_count(12)
    lab.page.mouse.move(0, 0)
    expect(rows).to_have_count(0)
    lab.shot("03-done")
    number = panel(lab).get_by_role("spinbutton")
    number.fill("3")
    number.press("Enter")
    expect(panel(lab)).to_contain_text("workers (default 3, fetch 1) scaled")
    part(lab, "Workers").click()
    expect(panel(lab).get_by_role("row", name="default")).to_have_count(3)
    press(lab, "Stop workers")
    expect(panel(lab)).to_contain_text("workers stopped")
    assert lab.errors() == []


def test_a_retry_counts_down_and_can_be_started_now(lab: Lab, data_dir: Path, site: Site) -> None:
    settings = {"workers__retry__max_retries": 3, "workers__retry__retry_delay": 3000}
    enqueue = f"%paise2 enqueue fetch {site.url('/busy/1')} {site.url('/busy/9')}"
    cells = [opening(data_dir, **settings), "%paise2 worker start", enqueue, "%paise2 watch"]
    lab.open(lab.write("retry.ipynb", cells))
    lab.run_all()
    expect_count(lab, "retrying", 2)
    shown = panel(lab).locator(".entry", has_text="/busy/1")
    expect(shown).to_contain_text("attempt 2 of 4")
    expect(shown.locator(".reason")).to_have_text("503 Service Unavailable")
    countdown = shown.locator(".soon").inner_text()
    assert countdown.startswith("in ")
    expect(shown.locator(".soon")).not_to_have_text(countdown)
    lab.shot("04-retries")
    shown.get_by_role("button", name="Retry now").click()
    expect_count(lab, "stored", 1)
    expect(panel(lab).locator(".live")).to_contain_text("waiting for retries")
    shown = panel(lab).locator(".entry", has_text="/busy/9")
    shown.get_by_role("button", name="Cancel").click()
    expect_count(lab, "retrying", 1)
    shown.get_by_role("button", name="Really cancel?").click()
    expect_count(lab, "cancelled", 1)
    assert lab.errors() == []


def test_failures_are_grouped_opened_and_retried(lab: Lab, data_dir: Path, site: Site) -> None:
    busy = [site.add(f"/down/{n}", status=500) for n in range(3)]
    cells = [
        opening(data_dir), "%paise2 worker start",
        f"%paise2 enqueue fetch {' '.join(busy)} {site.url('/status/404')}", "%paise2 watch",
    ]  # fmt: skip
    lab.open(lab.write("failures.ipynb", cells))
    lab.run_all()
    expect_count(lab, "failed", 4)
    down = panel(lab).locator(".group", has_text="3 × 500 Internal Server Error")
    gone = panel(lab).locator(".group", has_text="1 × 404 Not Found")
    expect(gone).to_contain_text("Check the URL in a browser")
    gone.get_by_role("button", name="404").click()
    expect(gone.locator(".row")).to_have_count(1)
    assert gone.get_by_role("button", name=re.compile("^Retry")).all_inner_texts() == []
    down.get_by_role("button", name="500").click()
    expect(down.locator(".row")).to_have_count(3)
    expect(down.get_by_role("link").first).to_have_attribute("rel", "noopener noreferrer")
    down.get_by_role("button", name="1 attempt").first.click()
    expect(down.get_by_role("cell", name="500 Internal Server Error")).to_have_count(1)
    expect(down.locator("pre")).to_have_count(0)
    lab.shot("05-failures")
    with lab.page.expect_download() as download:
        down.get_by_role("button", name="Export CSV").click()
    exported = download.value.path().read_text()
    assert all(url in exported for url in busy)
    for number in range(3):
        site.add(f"/down/{number}")
    down.get_by_role("checkbox").first.check()
    down.get_by_role("button", name="Retry selected (1)").click()
    expect_count(lab, "stored", 1)
    press(lab, "Retry all 2")
    press(lab, "Really retry all 2?")
    expect_count(lab, "stored", 3)
    expect_count(lab, "failed", 1)
    site.add("/status/404")
    press(lab, "Retry failed")
    expect_count(lab, "stored", 4)
    expect_count(lab, "failed", 0)
    lab.shot("06-retried")
    assert lab.errors() == []


def test_a_recurring_failure_is_shown_with_its_next_time(
    lab: Lab, data_dir: Path, site: Site
) -> None:
    url = site.url("/status/403")
    cells = [
        opening(data_dir), "%paise2 worker start",
        f"job = %paise2 enqueue fetch {url} --every 1d", "%paise2 watch",
    ]  # fmt: skip
    lab.open(lab.write("recurring.ipynb", cells))
    lab.run_all()
    shown = panel(lab).locator(".group", has_text="every 1 d")
    expect(shown).to_contain_text(re.compile(r"; next \w{3} \d\d:\d\d"))
    lab.shot("14-recurring")
    site.add("/status/403")
    press(lab, "Retry")
    lab.page.mouse.move(0, 0)
    lab.page.evaluate("() => document.activeElement.blur()")
    expect(shown).to_have_count(0)
    expect_count(lab, "scheduled", 1)
    expect(panel(lab)).to_contain_text("1 item")
    assert lab.errors() == []


def test_buttons_answer_while_a_cell_runs(lab: Lab, data_dir: Path, site: Site) -> None:
    gate = data_dir / "gate"
    patient = "panel._esm = panel._esm.replace('SECONDS = 3;', 'SECONDS = 300;')"
    # While a thread sends heartbeats, a widget without our remedy would answer, too.
    sleep = (
        "import time\nfrom paise2nb.notebook import panel as panels\npanels._poller.stop()\n"
        "panel.refresh()\nprint('no heartbeat')\n"
        f"from pathlib import Path\nwhile not Path({str(gate)!r}).exists(): time.sleep(0.1)"
    )
    cells = [
        opening(data_dir), "%paise2 worker start", f"panel = %paise2 watch\n{patient}\npanel",
        f"job = %paise2 enqueue fetch {site.add('/gone', status=404)} --wait", sleep,
    ]  # fmt: skip
    lab.open(lab.write("busy.ipynb", cells))
    lab.run_all(wait=False)
    expect_count(lab, "failed", 1)
    expect(lab.outputs().nth(4)).to_contain_text("no heartbeat")
    press_and_time(lab, "Retry failed", panel(lab).get_by_text("1 job back in the queue"))
    press_and_time(lab, "Pause", panel(lab).get_by_role("button", name="Resume"))
    press(lab, "Stop workers")
    expect(panel(lab)).to_contain_text("workers stopped")
    running = lab.page.locator(".jp-InputPrompt", has_text="[*]")
    assert running.count() == 1
    lab.shot("07-stopped-while-busy")
    gate.touch()
    expect(running).to_have_count(0)
    assert lab.errors() == []


def test_the_panel_comes_back_after_a_reload_and_a_restart(
    lab: Lab, data_dir: Path, site: Site
) -> None:
    cells = [opening(data_dir), "%paise2 worker start", "panel = %paise2 watch\npanel"]
    name = lab.write("again.ipynb", [*cells, f"%paise2 enqueue fetch {site.url('/ok')} --wait"])
    lab.open(name)
    lab.run_all()
    expect_count(lab, "stored", 1)
    expect(lab.outputs().locator(".paise2-saved")).to_be_hidden()
    lab.execute("docmanager:save")
    lab.open(name)
    expect_count(lab, "stored", 1)
    expect_updates(lab)
    lab.shot("08-after-a-reload")
    lab.restart_kernel()
    notice = panel(lab).locator(".notice")
    expect(notice).to_contain_text("kernel restarted: run this cell again")
    expect(panel(lab).get_by_role("button", name="Stop workers")).to_be_disabled()
    expect_count(lab, "stored", 1)
    lab.shot("09-after-a-restart")
    lab.run_all()
    expect(panel(lab)).to_have_count(1)
    expect_count(lab, "stored", 1)
    expect_updates(lab)
    lab.run_all()
    lab.run_all()
    expect(panel(lab)).to_have_count(1)
    expect_updates(lab)
    lab.shot("10-run-again")
    assert lab.errors() == []


def test_a_kernel_that_is_gone_leaves_its_last_picture(
    lab: Lab, data_dir: Path, site: Site
) -> None:
    cells = [opening(data_dir), "import os", f"%paise2 enqueue fetch {site.url('/ok')}"]
    name = lab.write("gone.ipynb", [*cells, "%paise2 watch", "print('pid', os.getpid())"])
    lab.open(name)
    lab.run_all()
    expect_count(lab, "queued", 1)
    lab.execute("docmanager:save")
    text = lab.outputs().nth(4).inner_text()
    os.kill(int(text.split()[1]), signal.SIGSTOP)
    try:
        notice = panel(lab).locator(".notice")
        expect(notice).to_contain_text("no sign of the kernel since")
        expect(panel(lab).get_by_role("button", name="Start workers")).to_be_disabled()
        lab.shot("15-silent")
    finally:
        os.kill(int(text.split()[1]), signal.SIGCONT)
    expect(notice).to_be_hidden()
    expect(panel(lab).get_by_role("button", name="Start workers")).to_be_enabled()
    lab.restart_kernel()
    lab.open(name)
    saved = lab.outputs().locator(".paise2-saved")
    expect(saved).to_contain_text("1 queued")
    expect(saved).to_contain_text(re.compile(r"\d{4}-\d\d-\d\d \d\d:\d\d:\d\d"))
    expect(panel(lab)).to_have_count(0)
    expect(lab.outputs().locator(".jupyter-widgets")).to_contain_text("model not found")
    expect(lab.outputs().get_by_text("model not found")).to_be_hidden()
    lab.shot("16-without-a-kernel")
    lab.complaints.clear()  # JupyterLab's own, about the model


def test_it_is_accessible_in_both_themes_and_fits_a_narrow_window(
    lab: Lab, data_dir: Path, site: Site
) -> None:
    settings = {"workers__retry__max_retries": 3, "workers__retry__retry_delay": 3000}
    pages = " ".join(site.url(path) for path in ("/ok", "/status/404", "/busy/9"))
    cells = [
        opening(data_dir, **settings), "%paise2 worker start",
        f"jobs = %paise2 enqueue fetch {pages} --tag reading",
        f"job = %paise2 enqueue fetch {site.url('/later')} --delay 3600", "%paise2 watch",
    ]  # fmt: skip
    lab.open(lab.write("dark.ipynb", cells))
    try:
        lab.run_all()
        expect_count(lab, "retrying", 1)
        expect_count(lab, "failed", 1)
        expect_count(lab, "stored", 1)
        closed = panel(lab).locator("h3 button[aria-expanded=false]:visible")
        closed.evaluate_all("buttons => buttons.forEach(button => button.click())")
        panel(lab).get_by_role("button", name="1 × 404").click()
        panel(lab).get_by_role("button", name="A small page").click()
        expect(panel(lab).locator("article")).to_contain_text("Nothing much is written here")
        panel(lab).get_by_role("searchbox", name="Search").fill("nothing written")
        panel(lab).get_by_role("button", name="Search").click()
        expect(panel(lab).locator("mark").first).to_be_visible()
        lab.page.set_viewport_size({"width": 1280, "height": 2200})
        lab.expect_accessible()
        lab.shot("11-light")
        wide = "node => node.scrollWidth - node.clientWidth"
        whole = panel(lab).locator(".scroll, .page .time")
        assert max(whole.evaluate_all(f"all => all.map({wide})")) <= 0
        lab.execute("apputils:change-theme", theme="JupyterLab Dark")
        lab.page.wait_for_function(DARK)
        lab.expect_accessible()
        lab.shot("11-dark")
        lab.execute("application:toggle-left-area")
        lab.page.set_viewport_size({"width": 640, "height": 2200})
        narrow = "() => document.querySelector('.paise2-watch').clientWidth < 600"
        lab.page.wait_for_function(narrow)
        assert panel(lab).evaluate(wide) <= 1
        assert max(whole.evaluate_all(f"all => all.map({wide})")) <= 0
        lab.shot("12-narrow")
    finally:
        lab.page.set_viewport_size({"width": 1280, "height": 1000})
        lab.execute("apputils:change-theme", theme="JupyterLab Light")
    assert lab.errors() == []


def test_the_first_pages_are_pasted_listed_and_found(lab: Lab, data_dir: Path, site: Site) -> None:
    gate = threading.Semaphore(0)

    def wait_for_the_gate(visit: Visit, argument: str) -> None:
        gate.acquire(timeout=60)
        visit.answer()

    waiting = [site.on(f"/late/{number}", wait_for_the_gate) for number in range(3)]
    lab.open(lab.write("first.ipynb", [opening(data_dir), "%paise2 watch"]))
    lab.run_all()
    assert panel(lab).locator("button:visible").all_inner_texts() == ["Fetch"]
    expect(panel(lab).get_by_role("textbox")).to_have_count(1)
    lab.shot("20-first")
    urls = panel(lab).get_by_role("textbox", name="URLs")
    urls.fill("http://")
    press(lab, "Fetch")
    expect(panel(lab).locator(".boxes .said")).to_contain_text("http://")
    expect(urls).to_have_value("http://")
    urls.fill("\n".join([site.add("/one"), site.add("/two", status=404), *waiting]))
    press(lab, "Fetch")
    expect_count(lab, "stored", 1)
    expect_count(lab, "failed", 1)
    expect_count(lab, "running", 3)
    rows = panel(lab).locator(".pages .row")
    expect(rows).to_have_count(5)
    panel(lab).get_by_role("combobox", name="State").select_option("stored")
    expect(rows).to_have_count(1)
    rows.first.hover()
    gate.release(3)
    expect_count(lab, "stored", 4)
    new = panel(lab).get_by_role("button", name="3 new")
    expect(new).to_be_visible()
    expect(rows).to_have_count(1)
    lab.shot("21-new-rows-wait")
    new.click()
    expect(rows).to_have_count(4)
    panel(lab).get_by_role("button", name="1 failed").click()
    expect(rows).to_have_count(1)
    rows.get_by_role("button", name="404 Not Found").click()
    expect(rows.get_by_role("cell", name="fetch")).to_be_visible()
    panel(lab).get_by_role("combobox", name="State").select_option("all states")
    panel(lab).get_by_role("searchbox", name="Filter").fill("/late/1")
    expect(rows).to_have_count(1)
    plot = panel(lab).locator(".plot svg")
    plot.focus()
    plot.press("ArrowLeft")
    said = panel(lab).locator("section", has_text="Pace").get_by_role("status")
    expect(said).to_contain_text("completed")
    lab.shot("22-pages")
    press(lab, "Stop workers")
    expect(panel(lab)).to_contain_text("workers stopped")
    assert lab.errors() == []


def test_a_setting_rebinds_the_panel_which_also_opens_beside_the_notebook(
    lab: Lab, data_dir: Path
) -> None:
    cells = [
        opening(data_dir), "%paise2 watch", "job = %paise2 enqueue fetch http://127.0.0.1:9/",
        f"%paise2 profile development --data-dir {data_dir} --set workers.concurrency=7",
        "%paise2 watch --side",
    ]  # fmt: skip
    lab.open(lab.write("rebind.ipynb", cells))
    lab.run_all()
    expect(panel(lab)).to_have_count(1)
    expect(panel(lab).get_by_role("spinbutton")).to_have_value("7")
    expect_count(lab, "queued", 1)
    beside = lab.page.locator(".jp-MainAreaWidget, .lm-DockPanel-widget, .jupyter-widgets").locator(
        ".paise2-watch"
    )
    expect(lab.page.locator(".paise2-watch")).to_have_count(2)
    expect(beside.first).to_be_visible()
    lab.shot("23-beside")
    assert lab.errors() == []


def test_two_views_are_one_panel(lab: Lab, data_dir: Path) -> None:
    lab.open(lab.write("views.ipynb", [opening(data_dir), "%paise2 watch", "%paise2 watch"]))
    lab.run_all()
    expect(panel(lab)).to_have_count(2)
    before = panel(lab).nth(0).locator(".updated").inner_text()
    for number in range(2):
        expect(panel(lab).nth(number).locator(".updated")).not_to_have_text(before)
    assert lab.errors() == []


def test_hostile_text_in_the_panel_runs_no_code(lab: Lab, data_dir: Path, tmp_path: Path) -> None:
    escaped = ATTACK.replace("<", "&lt;")
    page = tmp_path / "attack.html"
    page.write_text(
        f"<html><head><title>{escaped} by name</title></head><body><p>{escaped} Words about "
        "hedgehogs, and some more of them, so that this is a text.</p></body></html>"
    )
    plugin = tmp_path / "plugin.py"
    plugin.write_text(
        "from paise2nb import task\n\n@task('stumble', max_retries=0)\n"
        "def stumble(context, word):\n    raise ValueError(word)\n"
        "\n@task('trip', max_retries=1, retry_delay=3000)\n"
        "def trip(context, word):\n    raise ValueError(word)\n"
    )
    cells = [
        opening(data_dir, plugins=f"[{plugin}]"), "%paise2 worker start", "%paise2 watch",
        f"%paise2 enqueue fetch {page} --wait",
        f'a = %paise2 enqueue stumble "{ATTACK}"\nb = %paise2 enqueue trip "{ATTACK}"',
        "%paise2 search hedgehogs",
    ]  # fmt: skip
    lab.open(lab.write("hostile.ipynb", cells))
    lab.run_all()
    expect_count(lab, "stored", 1)
    expect(panel(lab).locator(".soon")).to_be_visible()
    group = panel(lab).locator(".group")
    group.get_by_role("button", name="1 × ValueError").click()
    group.get_by_role("button", name="1 attempt").click()
    expect(group.locator("pre").first).to_contain_text(ATTACK)
    panel(lab).get_by_role("searchbox", name="Search").fill("hedgehogs")
    panel(lab).get_by_role("searchbox", name="Search").press("Enter")
    expect(panel(lab)).to_contain_text(f"{ATTACK} by name")
    expect(lab.outputs().nth(5)).to_contain_text(ATTACK)
    lab.shot("13-hostile")
    assert lab.page.evaluate("() => window.hacked") is None
    assert lab.outputs().locator("img, script").count() == 0
    assert lab.errors() == []
