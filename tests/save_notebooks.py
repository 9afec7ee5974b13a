"""Run the notebooks and save them with their outputs: ``python -m tests.save_notebooks``.

Run it after a change of what results look like. Only the last state of a progress bar is saved,
and nothing that differs between runs, such as times.
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
