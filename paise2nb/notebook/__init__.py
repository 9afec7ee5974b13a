"""The notebook extension: ``%load_ext paise2nb`` adds the magic ``%paise2`` to a kernel.

Only this package imports IPython. Loading it imports little: the command table and the parts of
an app are imported by the first command.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from IPython.core.interactiveshell import InteractiveShell

    from paise2nb.app import App
    from paise2nb.notebook.panel import Panel


def load_ipython_extension(shell: InteractiveShell) -> None:
    """Add ``%paise2`` and ``%%paise2`` to a shell. Called by ``%load_ext paise2nb``."""
    from paise2nb.notebook import magic

    magic.load(shell)


def unload_ipython_extension(shell: InteractiveShell) -> None:
    """Remove the magic, and close what it has opened. Called by ``%unload_ext paise2nb``."""
    from paise2nb.notebook import magic

    magic.unload(shell)


def watch(app: App) -> Panel:
    """Return the live panel of an app. It is the same one however often it is displayed."""
    from paise2nb.notebook.panel import panel_of

    return panel_of(app)
