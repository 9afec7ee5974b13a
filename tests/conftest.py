"""What all tests share: the rule about skips, for a green run has to mean that everything ran.

A test may skip where the machine lacks something, with a reason that opens with ``machine:``.
On a continuous integration machine any other skip fails the run.
"""

from __future__ import annotations

import os

import pytest

from tests.site import site as site  # a fixture for every test

FORCED = "machine:"


def unforced_skips(config: pytest.Config) -> list[str]:
    """The skips of this run that no lack of the machine explains."""
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
        terminalreporter.section("skips that the machine did not force fail this run")
        for line in skips:
            terminalreporter.write_line(line)
