"""The commands that check logins: cookies, config and doctor. None shows a secret."""

from __future__ import annotations

import json
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from paise2nb.commands import Session, main
from paise2nb.core.errors import SettingsError, UsageError

SECRET = "s3cr3t"
LATER = int(time.time()) + 10_000
COOKIES = f"""\
.example.org\tTRUE\t/\tFALSE\t{LATER}\tsite\t{SECRET}
example.org\tFALSE\t/\tFALSE\t1000\told\t{SECRET}
other.example\tFALSE\t/\tFALSE\t0\tid\t{SECRET}
"""

Run = Callable[..., Any]


@pytest.fixture
def run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Run:
    """Run one line in a directory with a file of cookies, which only the user can read."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("PAISE2_DATA_DIR", str(tmp_path / "data"))
    monkeypatch.setenv("PAISE2_CONFIG_DIR", str(tmp_path / "config"))
    monkeypatch.delenv("PAISE2_PROFILE", raising=False)
    path = tmp_path / "cookies.txt"
    path.write_text(COOKIES)
    path.chmod(0o600)

    def run(*words: str) -> Any:
        session = Session()
        try:
            return main([*words], session)
        finally:
            session.close()

    return run


def test_a_file_of_cookies_is_counted_and_what_has_expired_is_named(
    run: Run, tmp_path: Path
) -> None:
    found = run("cookies", "cookies.txt")
    assert str(found) == (
        "cookies.txt: 3 cookies for 2 hosts, 1 expired\n"
        "  expired: old of example.org (1970-01-01T00:16:40.000Z)\n"
        "log in with a browser and export the cookies again"
    )
    assert found.to_dict() == {
        "path": "cookies.txt", "hosts": 2, "cookies": 3, "expired": 1,
        "by_host": [
            {"host": "example.org", "cookies": 2, "expired": 1},
            {"host": "other.example", "cookies": 1, "expired": 0},
        ],
        "expired_cookies": [
            {"host": "example.org", "name": "old", "expired_at": "1970-01-01T00:16:40.000Z"}
        ],
    }  # fmt: skip
    assert "3 cookies for 2 hosts" in found._repr_html_()
    assert SECRET not in json.dumps(found.to_dict()) + str(found)
    (tmp_path / "cookies.txt").chmod(0o644)
    assert "other users can read it: chmod 600 cookies.txt" in str(run("cookies", "cookies.txt"))


def test_without_a_file_the_one_of_the_settings_is_checked(run: Run, tmp_path: Path) -> None:
    with pytest.raises(UsageError, match=r"fetch\.cookies is not set; name a file"):
        run("cookies")
    found = run("--set", "fetch.cookies=cookies.txt", "cookies")
    assert found.path == str(tmp_path / "cookies.txt")
    with pytest.raises(UsageError, match=r"the cookies file none\.txt: No such file"):
        run("cookies", "none.txt")


def test_no_command_shows_the_value_of_a_header(run: Run, tmp_path: Path) -> None:
    (tmp_path / "paise2.yaml").write_text(
        "fetch:\n"
        "  headers:\n"
        f"    example.org: {{X-Key: {SECRET}, Authorization: 'Bearer ${{TOKEN}}'}}\n"
        f'    "*.example.org": {{X-Key: {SECRET}}}\n'
    )
    rows = {row["key"]: row for row in run("config", "show").to_dict()}
    hidden = rows["fetch.headers.example.org.X-Key"]
    assert (hidden["value"], hidden["origin"]) == ("…", f"{tmp_path / 'paise2.yaml'}:3")
    assert SECRET not in str(run("config", "show"))
    assert "TOKEN" not in str(run("config", "show"))
    changed = run("--set", f"fetch.headers.example.org.X-Key={SECRET}2", "config", "show")
    origins = {row["key"]: row["origin"] for row in changed.to_dict()}
    assert origins["fetch.headers.example.org.X-Key"] == "--set"
    assert origins["fetch.headers.example.org.Authorization"].endswith("paise2.yaml:3")
    removed = run("--set", "fetch.headers={example.org: null}", "config", "show").to_dict()
    assert [r["key"] for r in removed if "headers" in r["key"]] == [
        "fetch.headers.*.example.org.X-Key"
    ]


@pytest.mark.parametrize(
    ("headers", "problem"),
    [
        ("{example.org: s3cr3t}", "allowed: a mapping of NAME: VALUE, or null to remove it"),
        ("{example.org: {X-Key: [s3cr3t]}}", "X-Key is a value that is not shown; allowed: text"),
        ("{'https://example.org/': {X: s3cr3t}}", "allowed: a host such as example.org, or"),
        ("{example.org: {Host: s3cr3t}}", "but none of the connection's own"),
        ("{example.org: {Content-Length: '3'}}", "but none of the connection's own"),
        ("{example.org: {'X Y': s3cr3t}}", "allowed: the name of a header such as"),
        ("s3cr3t", "fetch.headers is 's3cr3t'; allowed: a mapping"),
    ],
)
def test_wrong_headers_are_refused(run: Run, headers: str, problem: str) -> None:
    with pytest.raises(SettingsError) as error:
        run("--set", f"fetch.headers={headers}", "config", "show")
    assert problem in str(error.value)
    assert headers == "s3cr3t" or SECRET not in str(error.value)


def test_what_is_wrong_with_logins_is_told_before_pages_fail(
    run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    token = ["--set", "fetch.headers={example.org: {X-Key: '${MY_TOKEN}'}}"]
    with pytest.raises(SettingsError, match="the environment variable MY_TOKEN is not set"):
        run(*token, "config", "validate")
    with pytest.raises(SettingsError, match="can't read the cookies file"):
        run("--set", "fetch.cookies=none.txt", "config", "validate")
    given = [*token, "--set", "fetch.cookies=cookies.txt"]
    report = run(*given, "doctor")
    wrong = [finding.text for finding in report.findings if finding.state == "wrong"]
    assert ["MY_TOKEN is not set" in text for text in wrong] == [True]
    monkeypatch.setenv("MY_TOKEN", SECRET)
    assert run(*given, "config", "validate").valid
    [found] = [f for f in run(*given, "doctor").findings if f.check == "logins"]
    assert found.text == f"1 of 3 cookies have expired: {tmp_path / 'cookies.txt'}"
    assert SECRET not in str(run(*given, "doctor"))
