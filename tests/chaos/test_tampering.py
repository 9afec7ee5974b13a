"""Tampering with the files: mutated rows and messages, a newer format, loose permissions."""

from __future__ import annotations

import json
import os
import pickle
import sqlite3
import stat
import subprocess
import sys
from contextlib import closing, suppress
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, Phase, given, seed, settings
from hypothesis import strategies as st

import paise2nb
from paise2nb.core.errors import StorageError
from paise2nb.workers.queue import JSONSerializer
from tests.chaos.environment import Environment
from tests.chaos.scenarios import Scale, scenario
from tests.waiting import until


class Trap:
    """An object that creates a file when it is unpickled."""

    def __init__(self, path: Path) -> None:
        self.path = str(path)

    def __reduce__(self) -> tuple[Any, tuple[str, str]]:
        return os.system, (f"touch {self.path}",)


json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=20),
    lambda inner: (
        st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=5), inner, max_size=4)
    ),
    max_leaves=10,
)


def texts(trap: Path) -> st.SearchStrategy[Any]:
    """What a row may have as its arguments, or a message as its text."""
    return st.one_of(
        st.text(max_size=40),
        st.binary(max_size=40),
        json_values.map(json.dumps),
        st.lists(json_values, max_size=3).map(json.dumps),
        st.integers(1, 100_000).map(lambda depth: "[" * depth),
        st.integers(1, 100_000).map(lambda depth: "[" * depth + "]" * depth),
        st.sampled_from([
            pickle.dumps(Trap(trap)), pickle.dumps(Trap(trap), 0).decode(), "NaN", "[NaN]",
            "[1e999]", f"[1{'0' * 5000}]", '["\\ud800"]', '{"0": "x"}', "null", "", b"\xff\xfe",
            '["key", 0, 1, 2, 3]', "[]", '[["key"]]',
        ]),
    )  # fmt: skip


odd_values = st.one_of(
    st.none(),
    st.integers(-(2**63), 2**63 - 1),
    st.floats(),
    st.text(max_size=20),
    st.binary(max_size=20),
    st.just(Path("bytes that are no UTF-8")),  # stored as a text with these bytes
)
# The columns to mutate. The others (state, ready, worker, number) decide which process may change
# the row; with a wrong value it stays as it is.
COLUMNS = (
    "task", "args", "key", "priority", "tag", "attempt", "max_attempts", "crashes", "run",
    "timeout", "memory_mb", "interval", "error_class", "error", "progress", "result", "root_id",
    "parent_id", "waiting_for", "started_at", "finished_at", "run_at", "enqueued_at", "pool",
)  # fmt: skip


@scenario(19, "mutated rows", short={"rows": 300}, full={"rows": 10_000}, seeds=3)
def test_mutated_rows_crash_no_worker_run_no_code_and_are_shown(
    environment: Environment, scale: Scale
) -> None:
    app = environment.open()
    trap = environment.root / "trap"
    batches: list[list[dict[str, Any]]] = []
    columns = st.dictionaries(st.sampled_from(COLUMNS), odd_values, max_size=2)
    row = st.builds(
        lambda odd, task, args: {"task": task, "args": args, **odd},
        columns,
        st.sampled_from(["effect", "threaded", "no such task", "cleanup"]),
        st.just('["good"]') | texts(trap),
    )

    @seed(environment.seed)
    @settings(
        max_examples=int(scale["rows"] / 20), database=None, deadline=None,
        phases=[Phase.generate], suppress_health_check=list(HealthCheck),
    )  # fmt: skip
    @given(st.lists(row, min_size=20, max_size=20))
    def collect(rows: list[dict[str, Any]]) -> None:
        batches.append(rows)

    collect()
    stored = sum(insert(environment, rows) for rows in batches)
    app.workers.start()
    good = app.enqueue("effect", "afterwards", priority=-1000)
    good.wait(timeout=300)
    # Some have an interval: they and their follow-up jobs never end.
    waiting = (
        "SELECT 1 FROM jobs WHERE id <= ? AND interval IS NULL AND (worker IS NOT NULL"
        " OR (ready = 1 AND task IN ('effect', 'threaded', 'cleanup'))) LIMIT 1"
    )
    until(lambda: not environment.rows(waiting, good.id), 300, pause=0.02)
    assert not trap.exists()
    assert all(worker["state"] != "failed" for worker in app.workers.status().workers)
    log = (environment.data_dir / "logs" / "workers.log").read_text()
    assert "ended with status" not in log, log[-3000:]
    assert environment.supervisor() is not None
    shown = app.jobs(all=True)
    assert len(shown) >= stored
    assert len(shown.to_dicts()) == len(shown)
    for job in shown:
        json.dumps(job.to_dict())
    json.dumps(app.status().to_dict())
    assert str(app.status())
    assert str(shown)
    assert shown._repr_html_()
    undecodable = app.jobs(error="undecodable", all=True)
    environment.figures |= {"rows": stored, "kept as undecodable": len(undecodable), "crashes": 0}
    assert len(undecodable) > 0
    job = undecodable[0]
    shell = [sys.executable, "-m", "paise2nb", "--data-dir", str(environment.data_dir)]
    for command in (["job", str(job.id)], ["jobs", "--limit", "5"], ["status"]):
        done = subprocess.run(
            [*shell, *command, "--json"], capture_output=True, text=True, check=False
        )
        assert done.returncode == 0, done.stderr
        json.loads(done.stdout)


def insert(environment: Environment, rows: list[dict[str, Any]]) -> int:
    """Insert the rows as they are; returns the number that SQLite accepted."""
    accepted = 0
    with closing(
        sqlite3.connect(environment.data_dir / "tasks.db", isolation_level=None)
    ) as connection:
        [(last,)] = connection.execute("SELECT coalesce(max(id), 0) FROM jobs").fetchall()
        for row in rows:
            values = {
                "id": last + accepted + 1, "state": "queued", "ready": 1, "priority": 0,
                "max_attempts": 1, "enqueued_at": 0.0, **row,
            }  # fmt: skip
            places = ", ".join(
                "CAST(x'22ff22' AS TEXT)" if isinstance(value, Path) else "?"
                for value in values.values()
            )
            parameters = [value for value in values.values() if not isinstance(value, Path)]
            connection.execute("BEGIN")
            try:
                connection.execute(
                    f"INSERT INTO jobs ({', '.join(values)}) VALUES ({places})", parameters
                )
                connection.execute(
                    "UPDATE counters SET jobs = jobs + 1, roots = roots + ?"
                    " WHERE name = 'queued' AND kind = 'state'",
                    (values.get("parent_id") is None,),
                )
                connection.execute(
                    "UPDATE counters SET jobs = ? WHERE kind = 'id'", (values["id"],)
                )
                connection.execute("COMMIT")
                accepted += 1
            except (sqlite3.IntegrityError, UnicodeEncodeError):
                connection.execute("ROLLBACK")
    return accepted


@scenario(19, "mutated messages", short={"messages": 300}, full={"messages": 10_000}, seeds=3)
def test_mutated_messages_run_no_code(environment: Environment, scale: Scale) -> None:
    trap = environment.root / "trap"
    serializer = JSONSerializer()

    @seed(environment.seed)
    @settings(
        max_examples=int(scale["messages"]), database=None, deadline=None,
        suppress_health_check=list(HealthCheck),
    )  # fmt: skip
    @given(texts(trap))
    def read(message: Any) -> None:
        data = message if isinstance(message, bytes) else message.encode(errors="surrogatepass")
        with suppress(ValueError, RecursionError):
            serializer.deserialize(data)
        assert not trap.exists()

    read()
    environment.figures |= {"messages": int(scale["messages"]), "code run": 0}


@scenario(
    20, "a newer version migrates while a worker runs", short={"jobs": 60}, full={"jobs": 6000}
)
def test_a_newer_format_is_refused_and_no_job_is_lost(
    environment: Environment, scale: Scale
) -> None:
    app = environment.open()
    app.workers.start()
    keys = [str(number) for number in range(int(scale["jobs"]))]
    app.enqueue_many("effect", [(key, 0.02) for key in keys])
    until(lambda: app.status().jobs["completed"] > 5)
    with closing(sqlite3.connect(environment.data_dir / "tasks.db", timeout=60)) as newer:
        [(version,)] = newer.execute("PRAGMA user_version").fetchall()
        newer.executescript(
            "BEGIN IMMEDIATE; ALTER TABLE jobs ADD COLUMN novelty TEXT;"
            "CREATE TABLE novelties (id); UPDATE workers SET state = 'stopping';"
            f"PRAGMA user_version = {version + 1}; COMMIT"
        )
        with pytest.raises(StorageError, match="newer paise2nb"):
            paise2nb.open("development", environment.data_dir, environment.settings())
        # Running workers and their supervisor end; a new one of this version is refused.
        until(lambda: not app.workers.present())
        environment.check_counts()
        newer.executescript(f"PRAGMA user_version = {version}")  # as if the newer version went on
    app.workers.start()
    app.wait(timeout=300)
    environment.check_all_done(set(keys))
    charged = "SELECT count(*) FROM attempts WHERE outcome != 'released'"
    assert environment.job_store.database.read(charged)[0][0] == 0


@scenario(22, "umask 0", short={"jobs": 5}, full={"jobs": 50})
def test_files_are_private_even_under_umask_0(environment: Environment, scale: Scale) -> None:
    keys = [str(number) for number in range(int(scale["jobs"]))]
    before = os.umask(0)
    try:
        app = environment.open()
        app.workers.start()
        app.enqueue_many("tree", keys)
        app.cache.put(b"bytes")
        app.wait(timeout=60)
        app.workers.restart()
    finally:
        os.umask(before)
    loose = []
    for path in (environment.data_dir, *environment.data_dir.rglob("*")):
        mode = path.lstat().st_mode
        if path.name.startswith("effects.db") or stat.S_ISSOCK(mode):
            continue  # written by the suite; a socket inside a private directory
        if stat.S_IMODE(mode) != (0o700 if path.is_dir() else 0o600):
            loose.append((str(path), oct(mode)))
    environment.figures["loose"] = len(loose)
    assert not loose


@scenario(22, "a data directory of another user", short={"users": 1}, full={"users": 1})
def test_a_data_directory_of_another_user_is_refused(
    environment: Environment, scale: Scale
) -> None:
    if os.geteuid() != 0:
        pytest.skip("machine: only root can give a directory away")
    environment.data_dir.mkdir()
    os.chown(environment.data_dir, 65534, 65534)
    with pytest.raises(StorageError, match="belongs to another user"):
        environment.open()
    assert not list(environment.data_dir.iterdir())
    environment.figures["refused"] = 1
