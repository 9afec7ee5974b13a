"""The notebooks and the magic in JupyterLab, in a browser."""

from __future__ import annotations

import shutil
import threading
from pathlib import Path

import pytest
from playwright.sync_api import expect

from tests.browser.lab import CHROMIUM, Lab, opening
from tests.site import Site, Visit

NOTEBOOKS = Path(__file__).parents[2] / "notebooks"

pytestmark = [
    pytest.mark.browser,
    pytest.mark.skipif(CHROMIUM is None, reason="machine: no Chromium"),
]


@pytest.mark.parametrize("name", sorted(path.name for path in NOTEBOOKS.glob("*.ipynb")))
def test_a_bundled_notebook_runs_to_its_end(lab: Lab, name: str) -> None:
    shutil.copy(NOTEBOOKS / name, lab.folder)
    lab.open(name)
    lab.page.evaluate("() => window.jupyterapp.commands.execute('notebook:clear-all-cell-outputs')")
    lab.run_all()
    assert lab.errors() == []
    expect(lab.outputs().get_by_text("workers stopped")).to_be_visible()
    lab.page.set_viewport_size({"width": 1280, "height": 3000})
    lab.page.locator(".jp-NotebookPanel h1").first.scroll_into_view_if_needed()
    lab.shot(f"notebook-{Path(name).stem}")
    lab.page.set_viewport_size({"width": 1280, "height": 1000})


def test_when_the_kernel_restarts_the_work_goes_on(lab: Lab, data_dir: Path, site: Site) -> None:
    gate = threading.Event()

    def wait_for_the_gate(visit: Visit, argument: str) -> None:
        gate.wait(60)
        visit.answer()

    pages = " ".join(site.on(f"/page/{number}", wait_for_the_gate) for number in range(12))
    enqueue = f"jobs = %paise2 enqueue fetch {pages}\njobs"
    cells = [opening(data_dir), "%paise2 worker start", enqueue]
    lab.open(lab.write("before.ipynb", cells))
    lab.run_all()
    expect(lab.outputs().nth(0)).to_contain_text("new; 0 waiting, 0 workers")
    expect(lab.outputs().nth(1)).to_contain_text("2 workers (default 1, fetch 1) started")
    expect(lab.outputs().nth(2)).to_contain_text("12 new")
    lab.restart_kernel()
    lab.run_all()
    expect(lab.outputs().nth(0)).to_contain_text("0 stored, 0 failed, 12 waiting, 2 workers")
    expect(lab.outputs().nth(1)).to_contain_text("already running")
    expect(lab.outputs().nth(2)).to_contain_text("12 waiting")
    gate.set()
    lab.open(lab.write("after.ipynb", [opening(data_dir), "%paise2 wait", "%paise2 status"]))
    lab.run_all()
    expect(lab.outputs().nth(2)).to_contain_text("12 stored")
    expect(lab.outputs().nth(2).get_by_role("row", name="items 12")).to_be_visible()
    assert lab.errors() == []


def test_no_page_runs_code_in_the_browser(lab: Lab, data_dir: Path, tmp_path: Path) -> None:
    attack = "<img src=x onerror='window.hacked=1'><script>window.hacked=1</script>"
    shown = attack.replace("<", "&lt;")
    page = tmp_path / "attack.html"
    page.write_text(
        f"<html><head><title>Title {shown}</title><meta name='author' content=\"{attack}\"></head>"
        f"<body><article><h1>Title {shown}</h1><p>Some words about hedgehogs and {shown} to be "
        f"found, and some more, so that this is a text.</p></article></body></html>"
    )
    refused = "http://127.0.0.1:1/"
    lab.open(
        lab.write(
            "attack.ipynb",
            [
                opening(data_dir),
                f"job = %paise2 enqueue fetch '{page}' --wait --immediate\njob",
                "%paise2 search hedgehogs --immediate",
                "%paise2 items --immediate",
                "%paise2 item 1 --immediate",
                f"failed = %paise2 enqueue fetch {refused}{attack!r} --immediate\nfailed",
                "%paise2 status --immediate",
                "%paise2 jobs --immediate",
            ],
        )
    )
    lab.run_all()
    assert lab.errors() == []
    expect(lab.outputs().nth(2)).to_contain_text("<img src=x onerror='window.hacked=1'>")
    assert lab.page.evaluate("() => window.hacked") is None
    assert lab.outputs().locator("img, script").count() == 0
