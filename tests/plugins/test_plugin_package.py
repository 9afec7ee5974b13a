"""A plugin as a package: it is installed, found by its entry point, and passes its tests."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import sysconfig
import venv
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]


@pytest.fixture(scope="module")
def package(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The directory of the plugin; beside it a new environment with the plugin and the project.

    Their dependencies come from the packages of this environment.
    """
    here = tmp_path_factory.mktemp("package")
    shutil.copytree(ROOT / "tests/plugin_package", here / "package")
    venv.create(here / "venv")
    [packages] = (here / "venv/lib").glob("python*/site-packages")
    (packages / "dependencies.pth").write_text(sysconfig.get_path("purelib") + "\n")
    install = [
        sys.executable, "-m", "pip", "--python", str(here / "venv/bin/python"), "install",
        "--quiet", "--no-index", "--no-deps", "--no-build-isolation", "--ignore-installed",
    ]  # fmt: skip
    run([*install, str(ROOT), str(here / "package")], here)
    assert (packages / "paise2nb/py.typed").exists()
    return here / "package"


def run(words: list[str], where: Path) -> str:
    """Run a command in a clean environment, and return its output."""
    clean = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}
    clean["PYTEST_DISABLE_PLUGIN_AUTOLOAD"] = "1"  # the packages of this environment
    ended = subprocess.run(
        words, cwd=where, env=clean, stdin=subprocess.DEVNULL, capture_output=True, text=True,
        check=False,
    )  # fmt: skip
    assert ended.returncode == 0, ended.stdout + ended.stderr
    return ended.stdout


def test_the_plugin_is_found_by_its_entry_point_with_its_version(package: Path) -> None:
    words = ["-m", "paise2nb", "plugins", "--json", "--data-dir", str(package.parent / "data")]
    rows = json.loads(run([str(package.parent / "venv/bin/python"), *words], package))
    assert [
        (row["kind"], row["name"], row["version"], Path(row["origin"]).parts[-2:])
        for row in rows
        if row["plugin"] == "paise2_vcard"
    ] == [
        ("task", "introduce", "0.1.0", ("site-packages", "paise2_vcard.py")),
        ("extractor", "text/vcard, text/x-vcard, .vcf", "0.1.0",
         ("site-packages", "paise2_vcard.py")),
    ]  # fmt: skip


def test_the_tests_of_the_plugin_pass(package: Path) -> None:
    output = run([str(package.parent / "venv/bin/python"), "-m", "pytest", "-q"], package)
    assert "4 passed" in output, output
