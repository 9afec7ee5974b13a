"""A real JupyterLab on loopback, and a page of Chromium that drives it.

Commands of JupyterLab are run by their names rather than by clicking through its menus: they
settle when their work is done, so nothing here has to guess.
"""

from __future__ import annotations

import contextlib
import os
import secrets
import shutil
import signal
import socket
import subprocess
import sys
import urllib.error
import urllib.request
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import nbformat
from axe_playwright_python.sync_playwright import Axe
from playwright.sync_api import ConsoleMessage, Locator, Page, sync_playwright

CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser")
SECONDS = 90.0
KERNEL_IS_IDLE = """() => {
    const panel = window.jupyterapp && window.jupyterapp.shell.currentWidget;
    const kernel = panel?.sessionContext?.session?.kernel;
    return kernel?.connectionStatus === 'connected' && kernel?.status === 'idle';
}"""


class Lab:
    """One browser page on one running JupyterLab.

    Attributes:
        folder: where the notebooks lie.
        page: the browser's page.
        complaints: what the page's console called an error.
    """

    def __init__(self, base: str, token: str, folder: Path, page: Page, shots: Path) -> None:
        self.base = base
        self.token = token
        self.folder = folder
        self.page = page
        self.shots = shots
        self.complaints: list[str] = []
        page.on("pageerror", lambda error: self.complaints.append(str(error)))
        page.on("console", self._hear)

    def _hear(self, message: ConsoleMessage) -> None:
        # JupyterLab's own, after a restart of the kernel.
        its_own = message.text.startswith("Could not restore the debugger state")
        if message.type == "error" and not its_own:
            self.complaints.append(message.text)

    def write(self, name: str, cells: Sequence[str]) -> str:
        """Write a notebook of code cells into the folder; its name."""
        notebook = nbformat.v4.new_notebook(
            cells=[nbformat.v4.new_code_cell(source) for source in cells],
            metadata={"kernelspec": {"name": "python3", "display_name": "Python 3"}},
        )
        nbformat.write(notebook, self.folder / name)
        return name

    def open(self, name: str) -> None:
        """Load a notebook of the folder; return when its kernel is idle."""
        self.page.goto(f"{self.base}/lab/tree/{name}?token={self.token}&reset")
        self.page.wait_for_selector(".jp-NotebookPanel .jp-Cell", timeout=SECONDS * 1000)
        self.page.wait_for_function(KERNEL_IS_IDLE, timeout=SECONDS * 1000)

    def execute(self, command: str, wait: bool = True, **arguments: str) -> None:
        """Run a command of JupyterLab; return when it has ended, if so wished."""
        self.page.evaluate(
            "([name, args, wait]) => {"
            " const done = window.jupyterapp.commands.execute(name, args).then(() => null);"
            " return wait ? done : null; }",
            [command, arguments, wait],
        )

    def run_all(self, wait: bool = True) -> None:
        """Run every cell; return when the last has ended."""
        self.execute("notebook:run-all-cells", wait)

    def shot(self, name: str) -> None:
        """Keep what the page looks like."""
        self.page.screenshot(path=self.shots / f"{name}.png")

    def restart_kernel(self) -> None:
        """Restart the kernel alone; the page stays."""
        self.page.evaluate(
            "() => window.jupyterapp.shell.currentWidget.sessionContext.restartKernel()"
            ".then(() => null)"
        )
        self.page.wait_for_function(KERNEL_IS_IDLE, timeout=SECONDS * 1000)

    def outputs(self) -> Locator:
        """The output areas of the notebook that is shown, one for each code cell."""
        return self.page.locator(".jp-NotebookPanel:not(.lm-mod-hidden) .jp-Cell-outputArea")

    def expect_accessible(self) -> None:
        """Expect that nothing is wrong in the panel, and that its contrast could be measured."""
        found = self.violations(".paise2-watch")
        assert "color-contrast" in {rule["id"] for rule in found["passes"]}
        assert "color-contrast" not in {rule["id"] for rule in found["incomplete"]}

    def violations(self, selector: str) -> dict[str, Any]:
        """Expect that axe-core finds nothing wrong in some elements; its whole answer."""
        found = Axe().run(self.page, context=selector, options={"resultTypes": ["violations"]})
        wrong = [(rule["id"], rule["nodes"][0]["html"]) for rule in found.response["violations"]]
        assert wrong == [], wrong
        response: dict[str, Any] = found.response
        return response

    def errors(self) -> list[str]:
        """The errors that cells have raised, but for those marked as raising one."""
        errors: list[str] = self.page.evaluate(
            "() => [...window.jupyterapp.shell.currentWidget.content.model.cells]"
            ".filter(cell => !(cell.getMetadata('tags') ?? []).includes('raises-exception'))"
            ".flatMap(cell => cell.outputs?.toJSON() ?? [])"
            ".filter(output => output.output_type === 'error')"
            ".map(output => `${output.ename}: ${output.evalue}`)"
        )
        return errors


def opening(data_dir: Path, **chosen: object) -> str:
    """The cell that opens the app of a test, with some settings (dots as double underscores)."""
    settings: dict[str, object] = {
        "fetch.allow_private_addresses": "true",
        "fetch.host_delay": 0,
        "workers.concurrency": 1,
        "workers.retry.max_retries": 0,
        **{key.replace("__", "."): value for key, value in chosen.items()},
    }
    options = " ".join(f"--set {key}={value}" for key, value in settings.items())
    return f"%load_ext paise2nb\n%paise2 profile development --data-dir {data_dir} {options}"


@contextlib.contextmanager
def jupyter_lab(folder: Path, home: Path, shots: Path) -> Iterator[Lab]:
    """Start JupyterLab and Chromium; both end with the block.

    Args:
        folder: what JupyterLab shows.
        home: the home of its configuration, so that the user's is neither read nor changed.
        shots: where screenshots land.
    """
    assert CHROMIUM is not None
    port = free_port()
    token = secrets.token_hex(16)
    settings = home / "settings/@jupyterlab"
    # Every cell is drawn, also those out of sight, and nothing asks the network for news.
    for extension, file, text in (
        ("notebook-extension", "tracker", '{"windowingMode": "none"}'),
        ("apputils-extension", "notification", '{"fetchNews": "false", "checkForUpdates": false}'),
    ):
        (settings / extension).mkdir(parents=True)
        (settings / extension / f"{file}.jupyterlab-settings").write_text(text)
    environment = {
        # By this name the panel knows a kernel of nbval.
        **{name: value for name, value in os.environ.items() if name != "PYTEST_VERSION"},
        "JUPYTER_CONFIG_DIR": str(home / "config"),
        "JUPYTER_RUNTIME_DIR": str(home / "runtime"),
        "JUPYTERLAB_SETTINGS_DIR": str(home / "settings"),
        "JUPYTERLAB_WORKSPACES_DIR": str(home / "workspaces"),
    }
    command = [
        sys.executable, "-m", "jupyterlab", "--no-browser", "--expose-app-in-browser",
        "--allow-root", "--ip=127.0.0.1", f"--port={port}", "--ServerApp.port_retries=0",
        f"--IdentityProvider.token={token}", f"--ServerApp.root_dir={folder}",
    ]  # fmt: skip
    base = f"http://127.0.0.1:{port}"
    with (home / "lab.log").open("wb") as log:
        server = subprocess.Popen(
            command, stdin=subprocess.DEVNULL, stdout=log, stderr=log, env=environment,
            start_new_session=True,
        )  # fmt: skip
    try:
        wait_until_it_answers(f"{base}/api/status?token={token}", server, home / "lab.log")
        with sync_playwright() as playwright:
            browser = playwright.chromium.launch(
                executable_path=CHROMIUM, args=["--no-sandbox"], timeout=SECONDS * 1000
            )
            page = browser.new_page(viewport={"width": 1280, "height": 1000})
            page.set_default_timeout(SECONDS * 1000)
            yield Lab(base, token, folder, page, shots)
            browser.close()
    finally:
        os.killpg(server.pid, signal.SIGTERM)
        try:
            server.wait(15)
        except subprocess.TimeoutExpired:
            os.killpg(server.pid, signal.SIGKILL)
            server.wait()


def free_port() -> int:
    with contextlib.closing(socket.socket()) as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


def wait_until_it_answers(url: str, server: subprocess.Popen[bytes], log: Path) -> None:
    """Wait for a server that has just been started, or raise with the end of its log."""
    while server.poll() is None:
        try:
            with urllib.request.urlopen(url, timeout=SECONDS):
                return
        except (urllib.error.URLError, ConnectionError):
            with contextlib.suppress(subprocess.TimeoutExpired):
                server.wait(0.2)
    raise RuntimeError(f"the server ended at its start: {log.read_text()[-2000:]}")
