"""Run the notebooks and save them with their outputs: ``python -m tests.save_notebooks [FILE…]``.

Run it after a change of what results look like. All outputs of a notebook are of one run; it stays
as it is if they differ from the saved ones only in what tests/nbval.cfg names, such as times. Only
the last state of a progress bar is saved.
"""

from __future__ import annotations

import json
import os
import re
import sys
from pathlib import Path

import nbformat
import pytest
from nbclient import NotebookClient
from nbval.plugin import get_sanitize_patterns

ROOT = Path(__file__).parents[1]
PATTERNS = get_sanitize_patterns((ROOT / "tests/nbval.cfg").read_text("utf-8"))
FOLDER = next(pattern for pattern in PATTERNS if "paise2-tut" in pattern[0])
# Where a tutorial, the package and the environment are is nothing that a reader wants to see.
PATHS = [FOLDER, *((re.escape(str(path)), "…") for path in (ROOT, sys.prefix))]


def save(path: Path) -> None:
    """Run one notebook in its folder and write it back. Raises if a cell fails."""
    notebook = nbformat.read(path, as_version=4)
    saved = [cell.get("outputs", []) for cell in notebook.cells]
    folder = {"metadata": {"path": str(path.parent)}}
    os.environ["PYTEST_VERSION"] = "as under nbval: the panel shows no saved picture"
    NotebookClient(
        notebook,
        resources=folder,
        timeout=120,
        coalesce_streams=True,
        record_timing=False,
        store_widget_state=False,
    ).execute()
    for cell in notebook.cells:
        if cell.cell_type == "code":
            cell.outputs = nbformat.from_dict(json.loads(replace(json.dumps(cell.outputs), *PATHS)))
    outputs = [cell.get("outputs", []) for cell in notebook.cells]
    if list(map(comparable, outputs)) == list(map(comparable, saved)):
        return
    notebook.metadata["language_info"] = {"name": "python"}
    nbformat.write(notebook, path)


def replace(text: str, *patterns: tuple[str, str]) -> str:
    for regex, replacement in patterns:
        text = re.sub(regex, replacement, text)
    return text


def comparable(outputs: list[nbformat.NotebookNode]) -> str:
    text = json.dumps(outputs, sort_keys=True).replace('\\"', '"').replace("\\n", "\n")
    return replace(text, ('"model_id": "[0-9a-f]+"', ""), *PATTERNS)


if __name__ == "__main__":
    # The panel's picture for readers without a kernel has the time, and is not shown under pytest.
    os.environ["PYTEST_VERSION"] = pytest.__version__
    paths = map(Path, sys.argv[1:]) if sys.argv[1:] else (ROOT / "notebooks").glob("*.ipynb")
    for path in sorted(paths):
        save(path)
        print(path.name)
