"""The project around the package: declared and pinned dependencies, code limits."""

from __future__ import annotations

import ast
import re
import subprocess
import sys
import tokenize
import tomllib
from importlib import metadata
from pathlib import Path

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

import paise2nb

ROOT = Path(__file__).parents[1]
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
PACKAGE = ROOT / "paise2nb"
MODULES = sorted(PACKAGE.rglob("*.py"))
# Installed by an extra, or part of newer Pythons (compression, since 3.14).
OPTIONAL = {
    "playwright",
    "apprise",
    "redis",
    "sidecar",
    "pandas",
    "pyarrow",
    "compression",
    "pytest",
    "matplotlib",
}
# The layers: what `from paise2nb import …` may name inside the package.
LAYERS = {path.stem for path in PACKAGE.iterdir() if path.stem != "__init__"}


def declared(*extras: str) -> set[str]:
    """The canonical names of the packages that the project, or some of its extras, requires."""
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
    modules = {name for path in MODULES for name in imported(path)}
    third_party = modules - set(sys.stdlib_module_names) - {"paise2nb"} - OPTIONAL
    undeclared = {
        module
        for module in third_party
        if not declared() & {canonicalize_name(name) for name in owners.get(module, [])}
    }
    assert undeclared == set()


def test_every_declared_package_is_pinned_for_the_tests() -> None:
    # Benchmarks compare with the newest versions of other libraries.
    everything = declared() | declared(*PROJECT["optional-dependencies"].keys() - {"bench"})
    assert everything - set(pins()) == set()


def test_pins_are_versions_and_nothing_else() -> None:
    assert all(re.fullmatch(r"[\w.!+]+", version) for version in pins().values())


def test_files_and_functions_are_short() -> None:
    found = []
    for path in MODULES:
        source = path.read_text()
        name = str(path.relative_to(ROOT))
        found += [name] * (len(source.splitlines()) > 450)
        for node in ast.walk(ast.parse(source)):
            if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
                lines = (node.end_lineno or node.lineno) - node.lineno + 1
                found += [f"{name}: {node.name}"] * (lines > 60)
    assert found == []


def test_checks_are_suppressed_rarely_and_with_a_reason() -> None:
    ignored, skipped, bare = [], [], []
    for path in MODULES:
        lines = path.read_text().splitlines()
        with path.open("rb") as file:
            for token in tokenize.tokenize(file.readline):
                if token.type != tokenize.COMMENT:
                    continue
                number = token.start[0]
                where = f"{path.relative_to(ROOT)}:{number}: {token.string}"
                skipped += [where] * ("fmt: skip" in token.string)
                if "type: ignore" in token.string:
                    ignored.append(where)
                    same_line = re.search(r"type: ignore\[[^]]+\]  # \w", token.string)
                    if not same_line and not lines[number - 2].lstrip().startswith("#"):
                        bare.append(where)
    assert len(ignored) <= 15, ignored
    assert len(skipped) <= 15, skipped
    assert bare == []


def test_no_module_imports_the_root_package() -> None:
    found = []
    for path in MODULES:
        for node in ast.walk(ast.parse(path.read_text())):
            root = isinstance(node, ast.Import) and "paise2nb" in {a.name for a in node.names}
            if isinstance(node, ast.ImportFrom) and node.module == "paise2nb":
                root = not {alias.name for alias in node.names} <= LAYERS
            if root:
                found.append(f"{path.relative_to(ROOT)}:{node.lineno}")
    assert found == []


@pytest.mark.parametrize(
    "started",
    [
        *("paise2nb.commands", "paise2nb.notebook", "paise2nb.app", "paise2nb.worker"),
        *("paise2nb.content.tasks", "paise2nb.content.sources.web_archives"),
    ],
)
def test_starting_imports_no_extraction_library_and_nothing_for_other_machines(
    started: str,
) -> None:
    code = f"import sys, {started}; print(*sys.modules)"
    result = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True, timeout=60
    )
    heavy = {"chardetng_py", "feedparser", "htmldate", "lxml", "pypdfium2", "trafilatura", "xberg"}
    heavy |= {
        "asyncio",
        "playwright",
        "redis",
        "paise2nb.content.extract.mail",
        "paise2nb.workers.machines.relay",
        "paise2nb.workers.machines.remote",
    }
    assert heavy & set(result.stdout.split()) == set()
