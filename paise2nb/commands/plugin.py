"""``%%paise2 plugin NAME``: a cell becomes a module in the data directory, which its apps load."""

from __future__ import annotations

import os
import subprocess
import sys

import click

from paise2nb.commands.session import Said, Session
from paise2nb.commands.verbs import Verb
from paise2nb.database import make_private_directory
from paise2nb.errors import PluginError, UsageError

CHECK_SECONDS = 30
_CHECK = """
import sys
from paise2nb.errors import PaiseError
from paise2nb.plugins import Plugins
try:
    found = [row for row in Plugins([sys.argv[1]]).describe() if row["origin"] == sys.argv[1]]
except PaiseError as error:
    sys.exit(str(error))
print(", ".join(f"{row['kind']} {row['name']}" for row in found))
"""


@click.command("plugin", cls=Verb)
@click.argument("name")
@click.pass_obj
def plugin(session: Session, name: str) -> Said:
    """Save the cell as a plugin in the data directory, and load it."""
    body = session.take_cell()
    if body is None:
        raise UsageError("write the plugin's code in a cell below %%paise2 plugin NAME")
    if not name.isidentifier():
        raise UsageError(f"{name!r} can't be a module's name; use letters, digits and _")
    app = session.app
    directory = app.plugin_directory
    make_private_directory(directory)
    path = directory / f"{name}.py"
    draft = directory / f"{name}.draft"
    draft.mkdir(exist_ok=True)
    candidate = draft / f"{name}.py"
    candidate.write_text(body, "utf-8")
    try:
        registered = _checked(candidate)
        if path.exists():
            path.replace(path.with_suffix(".before"))
        candidate.replace(path)
    finally:
        candidate.unlink(missing_ok=True)
        draft.rmdir()
    session.reload(app.settings)
    words = f"{path.name} registers {registered}; it lies in {directory}"
    if app.workers.present():
        words += "; the workers take it up after: paise2 worker restart"
    return Said(words, {"path": str(path), "registers": registered})


plugin.callback.reads_cell = True  # type: ignore[union-attr]


def _checked(candidate: os.PathLike[str]) -> str:
    """What the module registers, found out in a fresh process.

    Raises:
        PluginError: it can't be loaded there, does not come to an end, or registers nothing.
    """
    try:
        done = subprocess.run(
            [sys.executable, "-c", _CHECK, str(candidate)],
            capture_output=True, text=True, timeout=CHECK_SECONDS, check=False,
        )  # fmt: skip
    except subprocess.TimeoutExpired:
        raise PluginError(f"the cell did not load within {CHECK_SECONDS} s") from None
    if done.returncode:
        last = done.stderr.strip().splitlines() or [f"it ended with status {done.returncode}"]
        raise PluginError(last[-1])
    registered = done.stdout.strip().splitlines()
    if not registered or not registered[-1]:
        raise PluginError("the cell registers nothing; decorate a function with @task, say")
    return registered[-1]
