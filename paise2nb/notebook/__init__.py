"""The notebook's face: ``%load_ext paise2nb`` adds the magic ``%paise2`` to a kernel.

Nothing outside this package imports IPython, and loading it imports little: the command table
and the parts of an app come with the first command.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from IPython.core.interactiveshell import InteractiveShell

    from paise2nb.app import App
    from paise2nb.notebook.dashboard import Panel


def load_ipython_extension(shell: InteractiveShell) -> None:
    """Add ``%paise2`` and ``%%paise2`` to a shell. Called by ``%load_ext paise2nb``."""
    from paise2nb.notebook import magic

    magic.load(shell)


def unload_ipython_extension(shell: InteractiveShell) -> None:
    """Take the magic out again, and close what it has opened."""
    from paise2nb.notebook import magic

    magic.unload(shell)


def watch(app: App) -> Panel:
    """The live panel of an app: always the same one, however often it is displayed."""
    from paise2nb.notebook.dashboard import panel_of

    return panel_of(app)
