"""The project around the package: what it declares, what it pins, and that Binder's way works."""

from __future__ import annotations

import ast
import json
import os
import re
import subprocess
import sys
import tomllib
import venv
from importlib import metadata
from pathlib import Path

import nbformat
import pytest
from jupyter_client.kernelspec import KernelSpecManager
from jupyter_client.manager import AsyncKernelManager
from nbclient import NotebookClient
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

import paise2nb

ROOT = Path(__file__).parents[1]
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
# What an extra brings, and what newer Pythons bring themselves (compression, from 3.14 on).
OPTIONAL = {"pandas", "pyarrow", "compression", "pytest"}


def declared(*extras: str) -> set[str]:
    """The canonical names that the core, or some extras, ask for."""
    lines = [line for extra in extras for line in PROJECT["optional-dependencies"][extra]]
    return {
        canonicalize_name(Requirement(line).name) for line in lines or PROJECT["dependencies"]
    } - {"paise2nb"}


def pins() -> dict[str, str]:
    lines = (ROOT / ".ci/constraints.txt").read_text().splitlines()
    return {
        canonicalize_name(name): version
        for name, _, version in (line.partition("==") for line in lines if line[0] != "#")
    }


def imported(path: Path) -> set[str]:
    """The top-level modules that a file imports."""
    found: set[str] = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            found.update(alias.name.partition(".")[0] for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and not node.level:
            found.add((node.module or "").partition(".")[0])
    return found


def test_the_package_has_the_version_that_the_project_declares() -> None:
    assert paise2nb.__version__ == PROJECT["version"] == metadata.version("paise2nb")


def test_every_module_that_the_package_imports_is_declared() -> None:
    owners = metadata.packages_distributions()
    modules = {name for path in (ROOT / "paise2nb").rglob("*.py") for name in imported(path)}
    foreign = modules - set(sys.stdlib_module_names) - {"paise2nb"} - OPTIONAL
    undeclared = {
        module
        for module in foreign
        if not declared() & {canonicalize_name(name) for name in owners.get(module, [])}
    }
    assert undeclared == set()


def test_every_declared_package_is_pinned_for_the_tests() -> None:
    # The peers of the benchmarks are measured as they are now.
    everything = declared() | declared(*PROJECT["optional-dependencies"].keys() - {"bench"})
    assert everything - set(pins()) == set()


def test_pins_are_versions_and_nothing_else() -> None:
    assert all(re.fullmatch(r"[\w.!+]+", version) for version in pins().values())


@pytest.mark.slow
def test_the_quickstart_runs_on_what_binder_installs(tmp_path: Path) -> None:
    venv.create(tmp_path / "venv", with_pip=True)
    python = str(tmp_path / "venv/bin/python")
    clean = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}
    subprocess.run(
        [python, "-m", "pip", "install", "--quiet", "-r", "binder/requirements.txt"],
        cwd=ROOT, env=clean, check=True, stdin=subprocess.DEVNULL,
    )  # fmt: skip
    specification = {
        "argv": [python, "-m", "ipykernel_launcher", "-f", "{connection_file}"],
        "display_name": "Binder", "language": "python", "env": {"PYTHONPATH": ""},
    }  # fmt: skip
    (tmp_path / "kernels/binder").mkdir(parents=True)
    (tmp_path / "kernels/binder/kernel.json").write_text(json.dumps(specification))
    notebook = nbformat.read(ROOT / "notebooks/01-quickstart.ipynb", as_version=4)
    wanted = said(notebook)
    where = nbformat.v4.new_code_cell("import paise2nb; print(paise2nb.__file__)")
    notebook.cells.append(where)
    kernel = AsyncKernelManager(
        kernel_name="binder",
        kernel_spec_manager=KernelSpecManager(kernel_dirs=[str(tmp_path / "kernels")]),
    )
    folder = {"metadata": {"path": str(tmp_path)}}
    NotebookClient(
        notebook, km=kernel, resources=folder, timeout=120, coalesce_streams=True
    ).execute()
    *given, [location] = said(notebook)
    assert Path(location.strip()).is_relative_to(tmp_path / "venv")
    assert given == wanted


def said(notebook: nbformat.NotebookNode) -> list[list[str]]:
    """The text of each output of each code cell."""
    return [
        [output.data["text/plain"] if "data" in output else output.text for output in cell.outputs]
        for cell in notebook.cells
        if cell.cell_type == "code"
    ]
