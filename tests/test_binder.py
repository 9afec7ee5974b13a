"""What Binder's builder, repo2docker, does with `binder/`: install, build, open the quickstart."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
import urllib.request
import venv
from pathlib import Path

import nbformat
import pytest
from jupyter_client.kernelspec import KernelSpecManager
from jupyter_client.manager import AsyncKernelManager
from nbclient import NotebookClient
from nbformat.sign import NotebookNotary
from packaging.requirements import Requirement
from packaging.specifiers import SpecifierSet

from tests.browser.lab import free_port, wait_until_it_answers
from tests.save_notebooks import PATTERNS, replace
from tests.test_project import PROJECT

ROOT = Path(__file__).parents[1]
BINDER = ROOT / "binder"
NOTEBOOKS = sorted((ROOT / "notebooks").glob("*.ipynb"))
QUICKSTART = NOTEBOOKS[0]
ENVIRONMENT = {
    name: value
    for name, value in os.environ.items()
    if name != "PYTHONPATH" and not name.startswith("JUPYTER")
}


def test_the_files_are_those_that_the_builder_reads() -> None:
    assert {path.name for path in BINDER.iterdir()} == {
        "postBuild",
        "requirements.txt",
        "runtime.txt",
    }
    runtime = re.fullmatch(r"python-(3\.\d+)\n", (BINDER / "runtime.txt").read_text())
    assert runtime
    assert runtime[1] in SpecifierSet(PROJECT["requires-python"])
    assert os.access(BINDER / "postBuild", os.X_OK)
    lines = (BINDER / "requirements.txt").read_text().splitlines()
    constraints, package = [line for line in lines if not line.startswith("#")]
    assert (BINDER / constraints.removeprefix("-c ")).is_file()
    extras = Requirement("paise2nb" + package.removeprefix(".")).extras
    assert extras <= PROJECT["optional-dependencies"].keys()


def test_after_the_build_jupyterlab_opens_the_quickstart_with_its_outputs(tmp_path: Path) -> None:
    environment = build(tmp_path, Path(sys.executable).parent)
    notary = NotebookNotary(data_dir=str(tmp_path / ".local/share/jupyter"))
    notebooks = [nbformat.read(path, as_version=4) for path in NOTEBOOKS]
    assert all(map(notary.check_signature, notebooks))
    port, log = free_port(), tmp_path / "lab.log"
    command = [
        "jupyter", "lab", "--no-browser", "--allow-root", "--ip=127.0.0.1", f"--port={port}",
        "--ServerApp.port_retries=0", "--IdentityProvider.token=",
    ]  # fmt: skip
    with (
        log.open("wb") as output,
        subprocess.Popen(command, cwd=ROOT, env=environment, stdout=output, stderr=output) as lab,
    ):
        try:
            base = f"http://127.0.0.1:{port}"
            wait_until_it_answers(f"{base}/api/status", lab, log)
            with urllib.request.urlopen(base) as answer:
                assert answer.url == f"{base}/lab/tree/{QUICKSTART.relative_to(ROOT)}"
        finally:
            lab.terminate()


def build(home: Path, scripts: Path) -> dict[str, str]:
    """Run the last step of the build as a new user, with the environment of these scripts.

    Returns the variables of this user.
    """
    environment = ENVIRONMENT | {"HOME": str(home), "PATH": f"{scripts}:{os.environ['PATH']}"}
    subprocess.run(["binder/postBuild"], cwd=ROOT, env=environment, check=True, timeout=60)
    return environment


@pytest.mark.slow
def test_the_quickstart_runs_on_what_the_builder_installs(tmp_path: Path) -> None:
    venv.create(tmp_path / "venv", with_pip=True)
    python = str(tmp_path / "venv/bin/python")
    subprocess.run(
        [python, "-m", "pip", "install", "--quiet", "-r", "binder/requirements.txt"],
        cwd=ROOT,
        env=ENVIRONMENT,
        check=True,
        stdin=subprocess.DEVNULL,
    )
    specification = {
        "argv": [python, "-m", "ipykernel_launcher", "-f", "{connection_file}"],
        "display_name": "Binder",
        "language": "python",
        "env": {"PYTHONPATH": ""},
    }
    (tmp_path / "kernels/binder").mkdir(parents=True)
    (tmp_path / "kernels/binder/kernel.json").write_text(json.dumps(specification))
    notebook = nbformat.read(QUICKSTART, as_version=4)
    expected = outputs(notebook)
    cell = nbformat.v4.new_code_cell("import paise2nb; print(paise2nb.__file__)")
    notebook.cells.append(cell)
    kernel = AsyncKernelManager(
        kernel_name="binder",
        kernel_spec_manager=KernelSpecManager(kernel_dirs=[str(tmp_path / "kernels")]),
    )
    folder = {"metadata": {"path": str(tmp_path)}}
    NotebookClient(
        notebook, km=kernel, resources=folder, timeout=120, coalesce_streams=True
    ).execute()
    *actual, [location] = outputs(notebook)
    assert Path(location.strip()).is_relative_to(tmp_path / "venv")
    assert actual == expected


def outputs(notebook: nbformat.NotebookNode) -> list[list[str]]:
    """The text of each output of each code cell, without what differs between two runs."""
    return [
        [
            replace(output.data["text/plain"] if "data" in output else output.text, *PATTERNS)
            for output in cell.outputs
        ]
        for cell in notebook.cells
        if cell.cell_type == "code" and "nbval-ignore-output" not in cell.metadata.get("tags", [])
    ]
