"""Runs the notebooks and saves them with their outputs: ``python -m tests.save_notebooks``.

For after a change of what results look like. What a progress bar drew is saved as it ends, and
nothing that differs from run to run (times, prompts' metadata) is saved at all.
"""

from __future__ import annotations

from pathlib import Path

import nbformat
from nbclient import NotebookClient

NOTEBOOKS = Path(__file__).parents[1] / "notebooks"


def save(path: Path) -> None:
    """Run one notebook in its folder and write it back. Raises if a cell fails."""
    notebook = nbformat.read(path, as_version=4)
    folder = {"metadata": {"path": str(path.parent)}}
    NotebookClient(
        notebook, resources=folder, timeout=120, coalesce_streams=True, record_timing=False
    ).execute()
    notebook.metadata["language_info"] = {"name": "python"}
    nbformat.write(notebook, path)


if __name__ == "__main__":
    for path in sorted(NOTEBOOKS.glob("*.ipynb")):
        save(path)
        print(path.name)
