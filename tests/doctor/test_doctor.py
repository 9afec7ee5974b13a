"""What doctor finds: each damage is made, its words are read, its fix is carried out."""

from __future__ import annotations

import os
import signal
import sqlite3
import subprocess
from collections.abc import Callable, Iterator
from contextlib import closing
from pathlib import Path

import pytest

import paise2nb
from paise2nb.app import App
from paise2nb.commands import Session, main
from paise2nb.core.errors import StorageError, WorkersError
from paise2nb.doctor import Report
from paise2nb.doctor.data import Finding
from tests.job_stores import suspend
from tests.small_disk import fill, small_disk

STORED = Path(__file__).parents[1] / "data"


@pytest.fixture
def data(tmp_path: Path) -> Path:
    """A data directory with two items, closed."""
    for name in ("owls", "knots"):
        (tmp_path / f"{name}.md").write_text(f"All about {name}.")
    with paise2nb.open("development", tmp_path / "data") as app:
        app.workers.start(concurrency=1)
        app.enqueue_many("fetch", [str(tmp_path / "owls.md"), str(tmp_path / "knots.md")])
        app.wait(timeout=60)
        app.workers.stop(timeout=10)
    assert problems(tmp_path / "data") == []
    return tmp_path / "data"


def run(data: Path, *words: str) -> object:
    session = Session()
    try:
        return main(["--data-dir", str(data), *words], session)
    finally:
        session.close()


def problems(data: Path) -> list[Finding]:
    report = run(data, "doctor")
    assert isinstance(report, Report)
    return [finding for finding in report.findings if finding.state != "ok"]


def execute(path: Path, sql: str) -> None:
    with closing(sqlite3.connect(path)) as connection, connection:
        connection.execute(sql)


def delete(data: Path, pattern: str) -> None:
    for path in data.glob(pattern):
        if path.is_file():
            path.unlink()


def cached(data: Path) -> Path:
    return sorted((data / "cache").glob("*/*"))[0]


def shell(command: str) -> None:
    """Carry out an advice as it is written."""
    subprocess.run(command, shell=True, check=True)


def reset(data: Path) -> None:
    run(data, "reset", "--yes")


def old_format(data: Path) -> None:
    delete(data, "tasks.db*")
    (data / "tasks.db").write_bytes((STORED / "tasks-2.db").read_bytes())


Act = Callable[[Path], object]
# The damage, words of the finding, words of its advice, and what the advice says.
DAMAGES: dict[str, tuple[Act, str, str, Act]] = {
    "empty jobs": (
        lambda data: (delete(data, "tasks.db*"), (data / "tasks.db").touch()),
        "tasks.db is empty (0 bytes), but items.db shows that it had content",
        "go on with an empty file: paise2 reset",
        reset,
    ),
    "missing jobs": (
        lambda data: delete(data, "tasks.db*"),
        "tasks.db is missing, but items.db shows",
        "paise2 reset",
        reset,
    ),
    "no database": (
        lambda data: (delete(data, "tasks.db"), delete(data, "items.db")),
        "tasks.db is missing, but tasks.db.lock shows",
        "restore a backup into an empty directory (paise2 restore PATH)",
        reset,
    ),
    "empty items": (
        lambda data: (data / "items.db").write_bytes(b""),
        "items.db is empty (0 bytes), but tasks.db shows",
        "paise2 reset",
        reset,
    ),
    "missing items": (
        lambda data: delete(data, "items.db*"),
        "items.db is missing, but tasks.db shows",
        "paise2 reset",
        reset,
    ),
    "damaged jobs": (
        lambda data: (data / "tasks.db").write_bytes(b"no database " * 1000),
        "tasks.db: file is not a database",
        "tasks.db.bad, then: paise2 reset",
        lambda data: ((data / "tasks.db").rename(data / "tasks.db.bad"), reset(data)),
    ),
    "jobs put aside": (
        lambda data: (data / "tasks.db").rename(data / "tasks.db.damaged-20260101-000000"),
        "tasks.db was damaged and moved aside",
        "repair",
        reset,
    ),
    "no full-text index": (
        lambda data: execute(data / "items.db", "DROP TABLE words"),
        "items.db has no table words; made again from the rows",
        "",
        lambda data: None,
    ),
    "a missing trigger": (
        lambda data: (
            execute(data / "items.db", "DROP TRIGGER words_changed"),
            execute(data / "items.db", "UPDATE items SET text = 'All about stoats.' WHERE id = 1"),
        ),
        "items.db has no trigger words_changed; made again",
        "",
        lambda data: None,
    ),
    "a missing index": (
        lambda data: execute(data / "tasks.db", "DROP INDEX jobs_active"),
        "tasks.db has no index jobs_active; made again",
        "",
        lambda data: None,
    ),
    "a missing table": (
        lambda data: execute(data / "items.db", "DROP TABLE versions"),
        "items.db has no table versions",
        "restore a backup",
        lambda data: ((data / "items.db").rename(data / "items.db.bad"), reset(data)),
    ),
    "a damaged cached file": (
        lambda data: cached(data).write_bytes(b"other bytes"),
        "1 of 4 cached files are damaged",
        "fetched again when needed: rm ",
        lambda data: shell(problems(data)[0].advice.partition(": ")[2]),
    ),
    "a read-only database": (
        lambda data: (data / "items.db").chmod(0o400),
        "read-only: ",
        "chmod u+w ",
        lambda data: shell(problems(data)[0].advice),
    ),
    "logs as a file": (
        lambda data: ((data / "logs").rename(data / "logs.before"), (data / "logs").touch()),
        "logs is a file, not a directory",
        "move it away: mv ",
        lambda data: shell(problems(data)[0].advice.partition(": ")[2]),
    ),
    "an old format": (
        old_format,
        "tasks.db has format 2 of an earlier paise2nb",
        "migrate it: paise2 status",
        lambda data: (run(data, "status"), run(data, "reset", "--hard", "--yes")),
    ),
    "loose permissions": (
        lambda data: data.chmod(0o755),
        "can be read by other users",
        "chmod 700",
        lambda data: shell(problems(data)[0].advice),
    ),
}


@pytest.mark.parametrize(("damage", "text", "advice", "fix"), DAMAGES.values(), ids=DAMAGES.keys())
def test_a_damage_is_found_and_gone_after_its_fix(
    data: Path, damage: Act, text: str, advice: str, fix: Act
) -> None:
    damage(data)
    [finding, *_] = problems(data)
    assert text in finding.text
    assert advice in finding.advice
    fix(data)
    assert problems(data) == []
    with paise2nb.open("development", data) as app:
        assert len(app.search("about")) == len(app.items())
        assert len(app.search("stoats")) == ("words_changed" in text)


@pytest.mark.parametrize("name", ["empty jobs", "missing jobs", "empty items", "missing items"])
def test_a_lost_database_is_refused_by_all_commands(data: Path, name: str) -> None:
    damage, text, advice, _ = DAMAGES[name]
    damage(data)
    for words in (["status"], ["enqueue", "fetch", "https://example.org/"], ["search", "owls"]):
        with pytest.raises(StorageError) as refused:
            run(data, *words)
        assert text in str(refused.value)
        assert advice in str(refused.value)


def test_an_unknown_queue_is_found_before_there_are_data(tmp_path: Path) -> None:
    report = run(tmp_path / "data", "doctor", "--set", "task_queue.provider=nonsense")
    assert "task_queue.provider is 'nonsense', which no plugin defines" in str(report)


def test_a_file_in_place_of_the_data_directory_is_one_finding(tmp_path: Path) -> None:
    (tmp_path / "data").touch()
    [finding] = problems(tmp_path / "data")
    assert (finding.check, finding.text) == (
        "data directory",
        f"can't write to {tmp_path / 'data'}",
    )


def test_a_job_whose_cached_file_is_missing(data: Path) -> None:
    with paise2nb.open("development", data) as app:
        job = app.enqueue("extract", "https://example.org/", "ab" * 32, {})
    finding = problems(data)[0]
    assert f"job {job.id} (extract https://example.org/) has lost its cached file" in finding.text
    assert f"paise2 cancel {job.id}, then: paise2 enqueue fetch --force" in finding.advice
    run(data, "cancel", str(job.id))
    assert problems(data) == []


def test_putting_bytes_into_the_cache_replaces_a_damaged_file(data: Path) -> None:
    with paise2nb.open("development", data) as app:
        key = app.cache.put(b"some bytes")
        (data / "cache" / key[:2] / key[2:]).write_bytes(b"sum bytes")
        assert app.cache.put(b"some bytes") == key
        assert app.cache.get(key) == b"some bytes"


@pytest.fixture
def app(data: Path) -> Iterator[App]:
    with paise2nb.open("development", data) as app:
        yield app
        app.workers.stop(timeout=5)


@pytest.mark.parametrize("who", ["workers", "supervisor"])
def test_a_stopped_process_is_found(app: App, who: str) -> None:
    app.workers.start(concurrency=1)
    status = app.workers.status()
    assert status.supervisor is not None
    pid = status.workers[0]["pid"] if who == "workers" else status.supervisor["pid"]
    suspend(app.queue.job_store, pid)
    try:
        execute(app.data_dir / "tasks.db", f"UPDATE {who} SET heartbeat_at = heartbeat_at - 40")
        found = [finding for finding in problems(app.data_dir) if str(pid) in finding.text]
        assert "it is stopped" in found[0].text
        assert found[0].advice == f"continue it: kill -CONT {pid}"
    finally:
        os.kill(pid, signal.SIGCONT)


def test_a_full_disk_is_no_damage(tmp_path: Path) -> None:
    page = tmp_path / "page.txt"
    page.write_text("the last page that fits")
    with small_disk(tmp_path / "disk", megabytes=6):
        data = tmp_path / "disk" / "data"
        with paise2nb.open("test", data) as app:
            app.enqueue("fetch", str(page))
            app.cache.put(os.urandom(2_000_000))
        fill(tmp_path / "disk" / "filler")
        found = problems(data)
        assert [finding.check for finding in found] == ["disk"]
        assert "the disk is full" in found[0].text
        assert "nothing is lost" in found[0].text
        assert not [f for f in found if "mv " in f.advice or "restore" in f.advice]
        for words in (["status"], ["search", "fits"], ["items"], ["jobs"], ["item", "1"],
                      ["job", "1"], ["worker", "status"],
                      ["export", str(tmp_path / "items.jsonl")]):  # fmt: skip
            assert str(run(data, *words))
        with pytest.raises(StorageError, match=r"the disk is full.*nothing is lost"):
            run(data, "enqueue", "fetch", str(page), "--force")
        with pytest.raises(WorkersError, match=r"did not start: no space left at"):
            run(data, "worker", "start", "--daemonize")
        run(data, "reset", "--yes")  # deletes the cached bytes first, for which no space is needed
        run(data, "enqueue", "fetch", str(page), "--force")
