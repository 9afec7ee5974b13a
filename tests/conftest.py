"""Fixtures that many tests use, and the rule about skips: a passed run means that all tests ran.

A test may be skipped if the machine lacks something, with a reason that begins with ``machine:``.
In continuous integration any other skip fails the run.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

import paise2nb
from paise2nb.app import App
from tests import alternative_plugins
from tests.job_stores import clock as clock  # fixtures for every test
from tests.job_stores import store as store
from tests.job_stores import worker as worker
from tests.site import site as site

# Its tests run where it is installed: see tests/plugins/test_plugin_package.py.
collect_ignore = ["plugin_package"]

FORCED = "machine:"
# These tests run with the built-in parts and with the alternative plugins.
PIPELINE = ("tests/test_pipeline.py", "tests/content/test_tasks.py")


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption(
        "--alternative-plugins", action="store_true",
        help="run all selected tests with the alternative plugins, too",
    )  # fmt: skip


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    everywhere = metafunc.config.getoption("--alternative-plugins")
    if everywhere or metafunc.definition.nodeid.startswith(PIPELINE):
        metafunc.fixturenames.insert(0, "parts")
        metafunc.parametrize("parts", ["built-in", "alternative"], indirect=True)


@pytest.fixture
def parts(
    request: pytest.FixtureRequest,
    tmp_path_factory: pytest.TempPathFactory,
    monkeypatch: pytest.MonkeyPatch,
) -> str:
    """The providers that every process of a test uses: ``built-in`` or ``alternative``."""
    if request.param == "alternative":
        alternative_plugins.install(tmp_path_factory.mktemp("alternative"), monkeypatch)
    chosen: str = request.param
    return chosen


@pytest.fixture
def make(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Callable[..., App]]:
    """Open apps on one data directory, with the PLUGIN of the test's module."""
    plugin = tmp_path / "extra.py"
    plugin.write_text(request.module.PLUGIN)
    opened: list[App] = []

    def open_app(profile: str = "test", **settings: Any) -> App:
        overrides = {key.replace("__", "."): value for key, value in settings.items()}
        overrides["plugins"] = [str(plugin)]
        app = paise2nb.open(profile, data_dir=tmp_path / "data", settings=overrides)
        opened.append(app)
        return app

    yield open_app
    for app in opened:
        app.close()


def unforced_skips(config: pytest.Config) -> list[str]:
    """The skipped tests that the machine did not force."""
    reporter = config.pluginmanager.get_plugin("terminalreporter")
    if os.environ.get("CI") != "true" or reporter is None:
        return []
    return [
        f"{report.nodeid}: {report.longrepr[2] if report.longrepr else 'no reason'}"
        for report in reporter.stats.get("skipped", [])
        if not (report.longrepr and str(report.longrepr[2]).startswith(f"Skipped: {FORCED}"))
    ]


def pytest_sessionfinish(session: pytest.Session) -> None:
    if unforced_skips(session.config) and session.exitstatus == pytest.ExitCode.OK:
        session.exitstatus = pytest.ExitCode.TESTS_FAILED


def pytest_terminal_summary(
    terminalreporter: pytest.TerminalReporter, config: pytest.Config
) -> None:
    skips = unforced_skips(config)
    if skips:
        terminalreporter.section("failed: tests were skipped for other reasons than the machine")
        for line in skips:
            terminalreporter.write_line(line)
