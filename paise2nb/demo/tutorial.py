"""The set-up of a tutorial: the bundled site, with settings and data that only its kernel uses.

All else is as in the user's own notebooks, so the cells of a tutorial are those that a user types.
"""

import atexit
import os
import shutil
import tempfile
from contextlib import ExitStack
from pathlib import Path

from paise2nb.app import App, current, make_current
from paise2nb.core.processes import environment
from paise2nb.demo.site import DemoSite
from paise2nb.plugins.registry import resolve


def notebook() -> DemoSite:
    """Prepare a kernel for a tutorial: a site to collect, and a temporary collection.

    The working directory is a temporary one, too, and the settings are the demo's: no pause between
    two requests to one host, and few processes. Closing the site, or ending the kernel, stops the
    workers, deletes the directory and restores what was there before.
    """
    return _TutorialSite()


class _TutorialSite(DemoSite):
    """The bundled site. The collection of its tutorial is deleted when it is closed."""

    def __init__(self) -> None:
        super().__init__()
        folder = Path(tempfile.mkdtemp(prefix="paise2-tutorial-"))
        self._closing = ExitStack()
        self._closing.callback(super().close)
        self._closing.callback(shutil.rmtree, folder, ignore_errors=True)
        self._closing.callback(os.chdir, Path.cwd())
        config, data = folder / "config", folder / "data"
        variables = environment(
            PAISE2_CONFIG_DIR=str(config), PAISE2_DATA_DIR=str(data), PAISE2_PROFILE=None
        )
        self._closing.enter_context(variables)
        self._closing.callback(_stop, data)
        atexit.register(self.close)
        config.mkdir()
        shutil.copy(Path(__file__).with_name("settings.yaml"), config / "paise2.yaml")
        os.chdir(folder)
        make_current(None)  # the next command opens the tutorial's

    def close(self) -> None:
        """End the tutorial. A second call does nothing."""
        self._closing.close()


def _stop(data_dir: Path) -> None:
    """Stop the workers of a collection, and close its app."""
    app = current()
    if app is None or app.data_dir != data_dir:
        settings, plugins = resolve("development", data_dir, tolerant=True)
        app = App(settings, plugins=plugins)
    with app:
        app.workers.stop(timeout=5)
