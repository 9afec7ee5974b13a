"""Take the README's picture: ``python -m tests.picture``.

A real run: workers collect 300 pages of six hosts, with the settings of a new user. A proxy on
loopback answers for the hosts, so it needs no network.
"""

from __future__ import annotations

import os
import tempfile
from pathlib import Path
from urllib.parse import urlsplit

import paise2nb
from paise2nb.core.loopback import Answer, LoopbackServer
from tests.browser.lab import jupyter_lab

PICTURE = Path(__file__).parents[1] / "notebooks/images/dashboard.png"
HOSTS = {
    "tidetables.example": ("Harmonic constants of", "Spring tides at", "The gauge at"),
    "lighthouses.example": ("The light at", "Keepers of", "A new lens for"),
    "harbour-news.example": ("The pilots of", "Dredging at", "Fog signals at"),
    "old-charts.example": ("Soundings off", "A survey of", "The chart of"),
    "ferries.example": ("The timetable of", "Winter crossings to", "The last boat from"),
    "sea-weather.example": ("Gales at", "A calm year at", "The barometer of"),
}
PLACES = [
    f"{kind} {name}"
    for name in ("Ansel", "Brannock", "Corrie", "Dunlin", "Eastmere", "Farrow", "Gannet", "Holm")
    for kind in ("Cape", "Port", "Isle of", "Point", "Loch", "Bay of", "Little")
][:50]


class Hosts(LoopbackServer):
    """A proxy that answers for all hosts. A few pages are gone, busy or of an unknown type."""

    def answer(self, path: str) -> Answer:
        parts = urlsplit(path)
        host, name = str(parts.hostname), parts.path.rpartition("/")[2]
        if not name.isdigit():
            return Answer(b"", 404)  # robots.txt
        number = int(name)
        if (number + len(host)) % 29 == 3:
            return Answer(b"This page has moved away.", 404)
        if (number + len(host)) % 37 == 5:
            return Answer(b"Busy.", 503)
        if (number + len(host)) % 91 == 7:
            return Answer(b"\0\1", headers={"Content-Type": "application/x-chart"})
        place = PLACES[number]
        title = f"{HOSTS[host][number % 3]} {place}"
        text = f"<p>{title}: a page of {host}. " + f"What is known about {place} is told here. " * 9
        page = (
            f"<html lang=en><title>{title}</title><article><h1>{title}</h1>{text}</article></html>"
        )
        return Answer(page.encode(), headers={"Content-Type": "text/html; charset=utf-8"})


def take(folder: Path) -> None:
    """Collect the pages in a notebook of JupyterLab, and take the picture before the end."""
    notebooks, home = folder / "notebooks", folder / "home"
    notebooks.mkdir()
    home.mkdir()
    urls = [f"http://{host}/notes/{number}" for number in range(len(PLACES)) for host in HOSTS]
    (notebooks / "reading-list.txt").write_text("\n".join(urls))
    with Hosts() as proxy, jupyter_lab(notebooks, home, PICTURE.parent) as lab:
        (folder / "paise2.yaml").write_text(f"fetch: {{proxy: '{proxy.base}'}}\n")
        cells = (
            "%load_ext paise2nb",
            "%paise2 enqueue fetch --from reading-list.txt --tag reading",
            "%paise2 watch",
        )
        lab.open(lab.write("reading.ipynb", cells))
        lab.execute("application:toggle-left-area")
        lab.run_all()
        panel = lab.outputs().locator(".paise2-watch")
        panel.get_by_role("button", name="Start workers", exact=True).first.click()
        lab.page.wait_for_function(
            """() => {
                const count = (state) =>
                    document.querySelector(`.paise2-count[data-state=${state}]`).dataset.value;
                return count("stored") > 210;
            }""",
            timeout=600_000,
        )
        lab.shot(PICTURE.stem)


if __name__ == "__main__":
    with tempfile.TemporaryDirectory() as name:
        here = Path(name)
        os.environ |= {"PAISE2_CONFIG_DIR": name, "PAISE2_DATA_DIR": str(here / "data")}
        try:
            take(here)
        finally:
            with paise2nb.open() as app:
                app.workers.stop(timeout=0)
