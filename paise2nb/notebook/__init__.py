"""The notebook extension: ``%load_ext paise2nb`` adds the magic ``%paise2`` to a kernel.

Only this package imports IPython. Loading it imports little: the command table and the parts of
an app are imported by the first command.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from paise2nb.notebook.magic import load_ipython_extension, unload_ipython_extension

if TYPE_CHECKING:
    from paise2nb.app import App
    from paise2nb.notebook.panel import Panel

__all__ = ["load_ipython_extension", "unload_ipython_extension", "watch"]


def watch(app: App) -> Panel:
    """Return the live panel of an app. It is the same one however often it is displayed."""
    from paise2nb.notebook.panel import panel_of

    return panel_of(app)
