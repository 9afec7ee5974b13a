"""Databases in real files: privacy, versions, damage, interrupts and crashes."""

from __future__ import annotations

import os
import random
import signal
import sqlite3
import stat
import subprocess
import sys
import threading
from collections import Counter
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from types import FrameType

import pytest

import paise2nb
from paise2nb.core.errors import StorageError
from paise2nb.core.files import make_private_directory
from paise2nb.core.formats import Format, Migration, schema_hash
from paise2nb.core.sqlite import Database
from paise2nb.jobs.database import FORMAT
from paise2nb.jobs.models import NewJob
from paise2nb.jobs.store import JobStore

SCHEMA = Format("CREATE TABLE words (word TEXT)")


@pytest.fixture
def database(tmp_path: Path) -> Iterator[Database]:
    database = Database(tmp_path / "x.db", SCHEMA, durable=False)
    yield database
    database.close()


def add_word(connection: sqlite3.Connection, word: str) -> None:
    connection.execute("INSERT INTO words VALUES (?)", (word,))


def words(database: Database) -> list[str]:
    return [row["word"] for row in database.read("SELECT word FROM words")]


def another_can_write(path: Path) -> bool:
    """Whether another connection can write without waiting, because no lock was left behind."""
    connection = sqlite3.connect(path, timeout=0, isolation_level=None)
    try:
        connection.execute("BEGIN IMMEDIATE")
        connection.execute("ROLLBACK")
    finally:
        connection.close()
    return True


# Privacy -------------------------------------------------------------------------------------


def test_all_files_are_private_whatever_the_umask(tmp_path: Path) -> None:
    page = tmp_path / "page.txt"
    page.write_text("some words")
    script = (
        "import os, sys; os.umask(0); import paise2nb;"
        " app = paise2nb.open('test', data_dir=sys.argv[1]);"
        " job = app.enqueue('fetch', sys.argv[2]);"
        " assert job.state == 'completed', job.error; os._exit(0)"  # leaves the logs of SQLite
    )
    data = tmp_path / "above" / "data"
    subprocess.run([sys.executable, "-c", script, str(data), str(page)], check=True)
    modes = {
        path.relative_to(tmp_path): stat.S_IMODE(path.lstat().st_mode)
        for path in (data.parent, data, *data.rglob("*"))
        if not path.is_socket()
    }
    names = {path.name for path in modes}
    assert {"tasks.db", "tasks.db-wal", "items.db", "items.db-wal"} <= names
    odd = {
        str(path): oct(mode)
        for path, mode in modes.items()
        if mode != (0o700 if (tmp_path / path).is_dir() else 0o600)
    }
    assert odd == {}


def test_an_existing_directory_keeps_its_permissions(tmp_path: Path) -> None:
    shared = tmp_path / "shared"
    shared.mkdir(mode=0o755)
    make_private_directory(shared)
    assert stat.S_IMODE(shared.stat().st_mode) == 0o755


# Unusable files and directories --------------------------------------------------------------


def test_a_directory_that_cannot_be_created_is_named(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("not a directory")
    with pytest.raises(StorageError, match=r"can't create .*/file.*--data-dir"):
        paise2nb.open("test", data_dir=tmp_path / "file" / "data")


@pytest.mark.skipif(os.geteuid() == 0, reason="machine: root may write everywhere")
def test_a_directory_that_cannot_be_written_is_named(tmp_path: Path) -> None:
    locked = tmp_path / "locked"
    locked.mkdir(mode=0o500)
    with pytest.raises(StorageError, match=r"can't write to .*/locked; choose another"):
        Database(locked / "x.db", SCHEMA, durable=False)


@pytest.mark.parametrize("content", [b"not a database at all, but some text" * 99, b"\0" * 9000])
def test_a_damaged_file_is_named_with_a_command_that_helps(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "tasks.db"
    path.write_bytes(content)
    with pytest.raises(StorageError, match=r"tasks\.db: .*paise2 doctor"):
        JobStore(path)
    assert path.read_bytes() == content


def test_a_directory_in_place_of_the_file_is_named(tmp_path: Path) -> None:
    (tmp_path / "x.db").mkdir()
    with pytest.raises(StorageError, match=r"x\.db: unable to open"):
        Database(tmp_path / "x.db", SCHEMA, durable=False)


def test_a_deleted_directory_is_named_and_not_created_again(tmp_path: Path) -> None:
    database = Database(tmp_path / "data" / "x.db", SCHEMA, durable=False)
    database.close()
    for path in (tmp_path / "data").iterdir():
        path.unlink()
    (tmp_path / "data").rmdir()
    for use in (lambda: words(database), lambda: database.write(add_word, "x")):
        with pytest.raises(StorageError, match=r"/x\.db"):
            use()


# Versions ------------------------------------------------------------------------------------


def newer_format(script: str, path: Path) -> Format:
    """A format that is one migration newer than the one of a file."""
    with closing(sqlite3.connect(path)) as connection:
        return Format("", (Migration(schema_hash(connection), script),))


def test_a_newer_version_is_rejected_and_not_changed(tmp_path: Path) -> None:
    path = tmp_path / "tasks.db"
    JobStore(path).close()
    connection = sqlite3.connect(path)
    connection.execute(f"PRAGMA user_version={FORMAT.version + 1}")
    connection.close()
    with pytest.raises(StorageError, match=r"newer paise2nb .*upgrade paise2nb, or use another"):
        JobStore(path)
    connection = sqlite3.connect(path)
    assert connection.execute("PRAGMA user_version").fetchone() == (FORMAT.version + 1,)
    connection.close()


def test_an_older_version_is_migrated_with_its_rows(tmp_path: Path) -> None:
    path = tmp_path / "x.db"
    old = Database(path, SCHEMA, durable=False)
    old.write(add_word, "word")
    old.close()
    script = "ALTER TABLE words ADD COLUMN size INTEGER;\nUPDATE words SET size = 4"
    new = Database(path, newer_format(script, path), durable=False)
    assert [tuple(row) for row in new.read("SELECT * FROM words")] == [("word", 4)]
    new.close()


def test_a_migration_that_fails_changes_nothing(tmp_path: Path) -> None:
    path = tmp_path / "x.db"
    Database(path, SCHEMA, durable=False).close()
    with pytest.raises(StorageError):
        Database(path, newer_format("CREATE TABLE more (n);\nnonsense", path), durable=False)
    database = Database(path, SCHEMA, durable=False)
    assert database.read("SELECT name FROM sqlite_master WHERE name = 'more'") == []
    database.close()


def test_many_processes_can_create_the_same_file(tmp_path: Path) -> None:
    script = (
        "import sys; from pathlib import Path; from paise2nb.jobs.models import NewJob;"
        " from paise2nb.jobs.store import JobStore;"
        " JobStore(Path(sys.argv[1])).add([NewJob('work', '[]', 1)])"
    )
    command = [sys.executable, "-c", script, str(tmp_path / "tasks.db")]
    started = [subprocess.Popen(command) for _ in range(4)]
    assert [process.wait() for process in started] == [0] * 4
    job_store = JobStore(tmp_path / "tasks.db")
    assert len(job_store.find()) == 4
    job_store.close()


# All or nothing ------------------------------------------------------------------------------


@pytest.mark.parametrize("error", [ValueError, KeyboardInterrupt, SystemExit, GeneratorExit])
def test_an_exception_leaves_no_row_and_no_lock(
    database: Database, error: type[BaseException]
) -> None:
    def work(connection: sqlite3.Connection) -> None:
        add_word(connection, "half")
        raise error

    with pytest.raises(error):
        database.write(work)
    assert words(database) == []
    assert another_can_write(database.path)
    database.write(add_word, "whole")
    assert words(database) == ["whole"]


def test_a_crash_between_two_statements_leaves_nothing(tmp_path: Path) -> None:
    script = (
        "import os, sys; from pathlib import Path\n"
        "from paise2nb.core.sqlite import Database, Format\n"
        "def work(connection):\n"
        "    connection.execute(\"INSERT INTO words VALUES ('half')\")\n"
        "    os._exit(9)\n"
        f"Database(Path(sys.argv[1]), Format({SCHEMA.schema!r}), durable=True).write(work)"
    )
    path = tmp_path / "x.db"
    assert subprocess.run([sys.executable, "-c", script, str(path)], check=False).returncode == 9
    database = Database(path, SCHEMA, durable=True)
    assert words(database) == []
    assert another_can_write(path)
    database.close()


def test_a_durable_write_waits_for_the_disk_while_others_can_write(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "x.db"
    with closing(Database(path, SCHEMA, durable=True)) as database:
        seen: list[tuple[Path, bool]] = []

        def fdatasync(descriptor: int) -> None:
            seen.append((Path(f"/proc/self/fd/{descriptor}").readlink(), another_can_write(path)))

        monkeypatch.setattr(os, "fdatasync", fdatasync)
        database.write(add_word, "durable")
    assert seen == [(tmp_path / "x.db-wal", True)]


def test_a_commit_is_told_before_the_wait_for_the_disk(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    steps: list[str] = []
    with closing(Database(tmp_path / "x.db", SCHEMA, durable=True)) as database:
        database.on_commit = lambda: steps.append(f"committed: {words(database)}")
        monkeypatch.setattr(os, "fdatasync", lambda descriptor: steps.append("on the disk"))
        database.write(add_word, "durable")
    assert steps == ["committed: ['durable']", "on the disk"]


def test_a_shorter_wait_is_that_of_open_connections_too(database: Database) -> None:
    def limit(connection: sqlite3.Connection) -> int:
        return int(connection.execute("PRAGMA busy_timeout").fetchone()[0])

    database.write(add_word, "opens a connection")
    database.wait_at_most(0.5)
    assert database.write(limit) == limit(database.connection()) == 500


def test_an_sqlite_error_names_the_file(database: Database) -> None:
    for use in (
        lambda: database.read("SELECT nonsense"),
        lambda: database.write(lambda connection: connection.execute("nonsense")),
    ):
        with pytest.raises(StorageError, match=r"x\.db: .*nonsense"):
            use()


def test_interrupts_at_random_moments_leave_no_lock_and_no_half_bulk(tmp_path: Path) -> None:
    """Ctrl-C while jobs are enqueued: a bulk is stored whole or not at all, and no lock is left."""
    job_store = JobStore(tmp_path / "tasks.db", durable=False)
    bulk = [NewJob("work", '["x"]', 1) for _ in range(50)]
    chance = random.Random(20)
    armed = False

    def interrupt(number: int, frame: FrameType | None) -> None:
        if armed:
            raise KeyboardInterrupt

    previous = signal.signal(signal.SIGALRM, interrupt)
    interrupted = 0
    try:
        for _ in range(150):
            try:
                armed = True
                signal.setitimer(signal.ITIMER_REAL, chance.uniform(1e-5, 1.5e-3))
                job_store.add(bulk)
                job_store.counts()
                armed = False
            except KeyboardInterrupt:
                armed = False
                interrupted += 1
            signal.setitimer(signal.ITIMER_REAL, 0)
            assert another_can_write(job_store.path)
            assert len(job_store.find()) % len(bulk) == 0
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, previous)
    assert interrupted
    assert job_store.counts()[0]["queued"] == len(job_store.find())
    job_store.close()


# Threads and processes -----------------------------------------------------------------------


def test_waiting_for_a_stopped_writer_times_out(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    script = (
        "import os, signal, sys; from pathlib import Path\n"
        "from paise2nb.core.sqlite import Database, Format\n"
        "def work(connection):\n"
        "    print('writes', flush=True)\n"
        "    os.kill(os.getpid(), signal.SIGSTOP)\n"
        f"Database(Path(sys.argv[1]), Format({SCHEMA.schema!r}), durable=True).write(work)"
    )
    path = tmp_path / "x.db"
    database = Database(path, SCHEMA, durable=True)
    other = subprocess.Popen(
        [sys.executable, "-c", script, str(path)], stdout=subprocess.PIPE, text=True
    )
    try:
        assert other.stdout is not None
        assert other.stdout.readline() == "writes\n"
        hasty = Database(path, SCHEMA, durable=True, busy_seconds=0.2)
        stopped = rf"locked it for too long: process {other.pid} .*stopped; continue it: kill -CONT"
        with pytest.raises(StorageError, match=stopped):
            hasty.write(add_word, "waits")
        hasty.close()
        assert words(database) == []  # reading does not wait
        other.send_signal(signal.SIGCONT)
        database.write(add_word, "continues")
        assert words(database) == ["continues"]
        assert other.wait(60) == 0
    finally:
        other.kill()
        other.wait()


def test_many_threads_can_write(database: Database) -> None:
    def work(number: int) -> None:
        for _ in range(20):
            database.write(add_word, str(number))

    threads = [threading.Thread(target=work, args=(number,)) for number in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert Counter(words(database)) == {str(number): 20 for number in range(6)}


def test_a_growing_file_is_not_mistaken_for_a_truncated_one(
    database: Database,
) -> None:
    ended = threading.Event()
    failures: list[Exception] = []

    def read() -> None:
        try:
            while not ended.is_set():
                database.read("SELECT 1")
        except Exception as error:
            failures.append(error)

    interval = sys.getswitchinterval()
    sys.setswitchinterval(1e-6)  # switches threads in the middle of everything
    threads = [threading.Thread(target=read) for _ in range(3)]
    try:
        for thread in threads:
            thread.start()
        for _ in range(30):
            database.write(add_word, "x" * 5000)
            database.checkpoint()
    finally:
        ended.set()
        for thread in threads:
            thread.join()
        sys.setswitchinterval(interval)
    assert failures == []
    assert database.path.exists()


@pytest.mark.skipif(not Path("/proc/self/fd").is_dir(), reason="machine: no /proc")
def test_threads_that_have_ended_leave_no_connection_open(database: Database) -> None:
    def open_files() -> int:
        return sum(1 for _ in Path("/proc/self/fd").iterdir())

    words(database)
    before = open_files()
    for _ in range(20):
        thread = threading.Thread(target=words, args=(database,))
        thread.start()
        thread.join()
    words(database)
    assert open_files() - before <= 4  # the last one's


def test_a_fork_has_its_own_connection(database: Database) -> None:
    before = database.connection()
    child = os.fork()
    if child == 0:
        database.write(add_word, "from the child")
        os._exit(int(database.connection() is before))
    assert os.waitpid(child, 0)[1] == 0
    assert words(database) == ["from the child"]
    database.write(add_word, "from the parent")


def test_a_child_forked_while_other_threads_write_and_read_can_write(tmp_path: Path) -> None:
    script = f"""
import os, signal, sys, threading
from pathlib import Path
from paise2nb.core.sqlite import Database, Format
database = Database(Path({str(tmp_path / "x.db")!r}), Format({SCHEMA.schema!r}), durable=False)
stop = threading.Event()
def add(connection, word):
    connection.execute("INSERT INTO words VALUES (?)", (word,))
def write():
    while not stop.is_set():
        database.write(add, "parent")
def read():
    while not stop.is_set():
        database.read("SELECT count(*) FROM words")
threads = [threading.Thread(target=target) for target in (write, read)]
for thread in threads:
    thread.start()
ended = []
for _ in range(20):
    if (child := os.fork()) == 0:
        signal.alarm(20)
        database.write(add, "child")
        database.close()
        os._exit(0)
    ended.append(os.waitpid(child, 0)[1])
stop.set()
for thread in threads:
    thread.join()
[(count,)] = database.read("SELECT count(*) FROM words WHERE word = 'child'")
assert ended == [0] * 20 and count == 20, (ended, count)
"""
    subprocess.run([sys.executable, "-c", script], check=True, timeout=120)


def test_closing_while_other_threads_read_does_not_crash(tmp_path: Path) -> None:
    script = f"""
import threading
from pathlib import Path
from paise2nb.core.sqlite import Database, Format
database = Database(Path({str(tmp_path / "x.db")!r}), Format({SCHEMA.schema!r}), durable=False)
stop, failures = threading.Event(), []
def read():
    try:
        while not stop.is_set():
            database.read("SELECT * FROM words UNION SELECT name FROM sqlite_master")
    except BaseException as error:
        failures.append(error)
threads = [threading.Thread(target=read) for _ in range(4)]
for thread in threads:
    thread.start()
for _ in range(500):
    database.close()
    database.read("SELECT * FROM words")
stop.set()
for thread in threads:
    thread.join()
assert not failures, failures
"""
    subprocess.run([sys.executable, "-X", "dev", "-c", script], check=True, timeout=120)


def test_a_closed_database_is_opened_again_when_used(database: Database) -> None:
    database.write(add_word, "word")
    database.close()
    assert words(database) == ["word"]


def test_a_checkpoint_truncates_the_log(database: Database) -> None:
    for _ in range(50):
        database.write(add_word, "x" * 1000)
    log = database.path.with_name("x.db-wal")
    assert log.stat().st_size > 0
    database.checkpoint()
    assert log.stat().st_size == 0
