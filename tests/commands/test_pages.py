"""What the commands say about pages: the counts of --wait and --burst, exit statuses, filters."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

import paise2nb
from paise2nb.jobs.models import HostDelay, Outcome
from tests.views.queue import end_next

Shell = Callable[..., subprocess.CompletedProcess[str]]


@pytest.fixture
def paise2(tmp_path: Path) -> Shell:
    """Runs a command on a data directory, with a good and a bad document beside it."""
    (tmp_path / "good.md").write_text("# Good\n\nWords about locks.\n")
    (tmp_path / "bad.bin").write_bytes(bytes(range(256)) * 4)
    environment = {**os.environ, "HOME": str(tmp_path), "PAISE2_DATA_DIR": str(tmp_path / "data")}

    def run(*words: str) -> subprocess.CompletedProcess[str]:
        command = [sys.executable, "-m", "paise2nb", *words]
        return subprocess.run(
            command, cwd=tmp_path, env=environment, capture_output=True, text=True, check=False
        )

    return run


def test_a_wait_for_an_enqueue_says_what_became_of_its_pages(paise2: Shell) -> None:
    done = paise2("--immediate", "enqueue", "fetch", "good.md", "--wait")
    assert (done.returncode, done.stderr) == (0, "pages: 1 stored\n")
    done = paise2("--immediate", "enqueue", "fetch", "good.md", "bad.bin", "--force", "--wait")
    assert done.returncode == 1
    assert done.stderr == "pages: 1 unchanged, 1 failed; see: paise2 jobs --state failed\n"
    assert "2 new" in done.stdout


def test_a_wait_reports_failures_and_fails_if_asked_to(paise2: Shell) -> None:
    paise2("--immediate", "enqueue", "fetch", "good.md", "bad.bin")
    assert paise2("wait").returncode == 0
    done = paise2("wait", "2")
    assert (done.returncode, done.stderr.count("1 failed")) == (0, 1)
    for words in ((), ("2",)):
        done = paise2("wait", *words, "--fail")
        assert (done.returncode, done.stderr.count("1 failed")) == (1, 1)
    assert paise2("wait", "1", "--fail").returncode == 0


def test_an_enqueue_that_waits_starts_workers_for_as_long_as_there_is_work(paise2: Shell) -> None:
    done = paise2("enqueue", "fetch", "good.md", "--wait")
    assert done.returncode == 0, done.stderr
    assert "started, until no work is left" in done.stderr
    assert done.stderr.endswith("pages: 1 stored\n")


def test_a_burst_says_what_became_of_the_pages(paise2: Shell) -> None:
    paise2("--immediate", "enqueue", "fetch", "good.md")
    paise2("enqueue", "fetch", "good.md", "bad.bin", "--force")
    done = paise2("worker", "start", "--burst")
    assert done.returncode == 0, done.stderr
    assert "pages: 1 unchanged, 1 failed; see: paise2 jobs --state failed" in done.stderr


def test_all_lists_every_job_with_its_own_state(paise2: Shell) -> None:
    paise2("--immediate", "enqueue", "fetch", "good.md", "bad.bin")
    pages = json.loads(paise2("jobs", "--json").stdout)
    assert [row["state"] for row in pages] == ["stored", "failed"]
    assert all(row["finished_at"] for row in pages)
    everything = json.loads(paise2("jobs", "--all", "--json").stdout)
    assert len(everything) == 5
    assert json.loads(paise2("jobs", "--all", "--state", "failed", "--json").stdout)[0]["task"] == (
        "extract"
    )
    wrong = paise2("jobs", "--all", "--state", "stored")
    assert (wrong.returncode, wrong.stderr.count("\n")) == (2, 1)


def test_a_retry_says_which_host_asked_for_a_pause(paise2: Shell, tmp_path: Path) -> None:
    with paise2nb.open("development", data_dir=tmp_path / "data") as app:
        app.enqueue("fetch", "http://a.example/")
        pause = [HostDelay("a.example", pause=600)]
        failed = Outcome("failed", "failed", None, "throttled", "429", host_delays=pause)
        end_next(app, failed)
    done = paise2("retry", "1")
    assert done.returncode == 0
    assert "a.example asked for a pause until 20" in done.stderr
