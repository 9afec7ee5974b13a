"""The notebooks and the magic in JupyterLab, in a browser."""

from __future__ import annotations

import re
import shutil
import threading
from collections.abc import Callable
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
    lab.page.wait_for_function(
        "() => [...window.jupyterapp.shell.currentWidget.content.model.cells]"
        ".filter(cell => cell.type === 'code').every(cell => cell.executionCount > 0)"
    )
    assert lab.errors() == []
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


# axe-core measures no contrast in outputs that JupyterLab may leave undrawn. WCAG 2, 1.4.3.
CONTRASTS = """nodes => {
    const context = document.createElement('canvas').getContext('2d');
    const back = getComputedStyle(document.body).getPropertyValue('--jp-layout-color1');
    const luminance = colors => {
        for (const color of colors) {
            context.fillStyle = color.trim();
            context.fillRect(0, 0, 1, 1);
        }
        const [r, g, b] = [...context.getImageData(0, 0, 1, 1).data].map(
            c => c / 255 <= 0.03928 ? c / 255 / 12.92 : ((c / 255 + 0.055) / 1.055) ** 2.4);
        return 0.2126 * r + 0.7152 * g + 0.0722 * b + 0.05;
    };
    const ground = luminance([back]);
    return nodes.map(node => {
        const ratio = luminance([back, getComputedStyle(node).color]) / ground;
        return Math.max(ratio, 1 / ratio);
    });
}"""


def small_page(number: int) -> Callable[[Visit, str], None]:
    return lambda visit, _: visit.answer(f"A small page about lock {number}.".encode())


def test_listings_with_long_urls_have_one_line_for_each_row_and_are_accessible(
    lab: Lab, data_dir: Path, site: Site
) -> None:
    path = "/archive/of/the/canal/society/2026/november/lectures-and-excursions"
    urls = [
        site.on(f"{path}/part-{n}/tides-and-locks-of-the-canal.html", small_page(n))
        for n in range(22)
    ]
    urls += [site.url(f"/status/404{path}")]
    (lab.folder / "urls.txt").write_text("\n".join(urls))
    cells = [
        opening(data_dir), "jobs = %paise2 enqueue fetch --from urls.txt --tag canals --wait\njobs",
        "%paise2 jobs", "%paise2 jobs --state failed", "%paise2 items", "%paise2 search small page",
        "%paise2 status", "%paise2 plugins", "%paise2 config show", "%paise2 doctor",
    ]  # fmt: skip
    lab.open(lab.write("listings.ipynb", cells))
    try:
        lab.run_all()
        expect(lab.outputs().nth(1)).to_contain_text("23 new; pages: 22 stored, 1 failed")
        assert lab.errors() == []
        for number in (2, 4, 7, 8):
            height = lab.outputs().nth(number).evaluate("area => area.offsetHeight")
            assert height < 600, number
        boxes = lab.page.locator(".paise2 .box")
        assert max(boxes.evaluate_all("all => all.map(b => b.scrollWidth - b.clientWidth)")) <= 0
        first = lab.outputs().nth(2).locator("a").first
        expect(first).to_have_attribute("href", urls[0])
        expect(first).to_have_attribute("title", urls[0])
        expect(first).to_have_text(re.compile(r"^127\.0\.0\.1:\d+/….*of-the-canal\.html$"))
        hit = lab.outputs().nth(5).locator(".hit").first
        expect(hit.locator("mark").first).to_be_visible()
        for theme in ("JupyterLab Dark", "JupyterLab Light"):
            lab.execute("apputils:change-theme", theme=theme)
            lab.page.wait_for_function(
                "name => document.body.dataset.jpThemeName === name", arg=theme
            )
            lab.violations(".paise2")
            found = lab.page.locator(".paise2").locator(".good, .bad, .note, th, a")
            assert min(found.evaluate_all(CONTRASTS)) >= 4.5  # WCAG AA
            lab.shot(f"listings-{theme[11:].lower()}")
    finally:
        lab.execute("apputils:change-theme", theme="JupyterLab Light")
