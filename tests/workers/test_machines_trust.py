"""Machines and homes that must not trust each other, or a server that can't be trusted."""

from __future__ import annotations

import json
import shlex
import shutil
import socket
import sqlite3
import subprocess
import threading
from collections.abc import Iterator
from contextlib import closing, suppress
from pathlib import Path

import pytest
import redis

from paise2nb.core.errors import WorkersError
from paise2nb.workers.machines.machine import Link
from paise2nb.workers.machines.messages import Server, shared_secret
from tests.machines import Place, RedisServer
from tests.waiting import until


@pytest.fixture
def place(tmp_path: Path) -> Iterator[Place]:
    place = Place(tmp_path, RedisServer(tmp_path / "redis"))
    yield place
    place.close()


class Recorder:
    """Records the messages that a Redis server gets.

    Attributes:
        messages: Each with its list.
    """

    def __init__(self, url: str) -> None:
        self.messages: list[tuple[str, bytes]] = []
        self._monitor = Server(url).redis.monitor().__enter__()
        threading.Thread(target=self._record, daemon=True).start()

    def _record(self) -> None:
        with suppress(redis.RedisError, OSError, ValueError, AttributeError):
            while True:
                # "TIME [DB ADDRESS] "LPUSH" "LIST" "MESSAGE"", quoted as in a shell
                words = shlex.split(self._monitor.connection.read_response().decode())
                if words[3].upper() == "LPUSH":
                    self.messages.append((words[4], words[5].encode()))

    def of(self, kind: str, content: str = "") -> list[tuple[str, bytes]]:
        """The messages of a kind that contain some text."""
        found = [(key, data, json.loads(data[64:])) for key, data in list(self.messages)]
        return [(k, data) for k, data, m in found if m[3] == kind and content in json.dumps(m[5])]


def altered(data: bytes, before: bytes, after: bytes) -> bytes:
    assert before in data
    return data.replace(before, after)


def test_messages_that_are_repeated_or_altered_are_refused_and_logged_once(place: Place) -> None:
    app = place.home(task_queue__redis__secret="word")
    app.workers.start(pool="home")
    store, server = app.queue.job_store, Server(place.redis.url)
    recorder = Recorder(place.redis.url)
    machine = place.join(PAISE2_QUEUE_SECRET="word")
    [row] = place.joined(app)
    job = app.enqueue("count-up", "word")
    assert job.result(60) == 1
    leaving = place.join(PAISE2_QUEUE_SECRET="word")
    place.joined(app, 2)
    names = {each["name"]: each["pid"] for each in store.machines()}
    me = next(name for name, pid in names.items() if pid == row["pid"])
    with closing(sqlite3.connect(store.path)) as connection, connection:
        connection.execute("UPDATE machines SET state = 'stopping' WHERE name != ?", (me,))
    assert leaving.process.wait(60) == 0
    until(lambda: len(store.machines()) == 1)
    [before], row_before, attempts = store.machines(), job.row(), job.attempts

    # In a heartbeat if one was due just then.
    [outcome, *_] = recorder.of("report", "completed") or recorder.of("beat", "completed")
    beat = recorder.of("beat")[0]
    stop = recorder.of("answer", '"stop": true')[0]
    [answer, *_] = [each for each in recorder.of("answer") if each[0].endswith(me)]
    home, mine = outcome[0], answer[0]
    for key, data in (
        (home, beat[1]), (home, outcome[1]), (mine, answer[1]),  # again
        (mine, stop[1]),  # that of the other machine
        (home, altered(beat[1], b'"held":{}', b'"held":[]')),
        (home, altered(outcome[1], b'"completed"', b'"cancelled"')),
        (mine, altered(answer[1], b'"stop":false', b'"stop":true ')),
        (home, b"[" * 100_000),
    ):  # fmt: skip
        server.redis.lpush(key, data)
    assert app.enqueue("count-up", "again").result(60) == 2
    log = (app.data_dir / "logs" / "workers.log").read_text()
    assert log.count(f"a message from machine {me} is refused") == 1
    until(lambda: machine.output.count("a message from home is refused") == 1)
    [after] = store.machines()
    assert (after["state"], after["name"]) == (before["state"], before["name"])
    assert (job.row(), job.attempts) == (row_before, attempts)
    assert machine.process.poll() is None


def test_a_server_that_may_delete_messages_is_refused(tmp_path: Path) -> None:
    redis = RedisServer(tmp_path / "redis", "--maxmemory-policy", "allkeys-lru")
    place = Place(tmp_path, redis)
    try:
        with pytest.raises(WorkersError, match="maxmemory-policy is allkeys-lru; set it to"):
            place.home().workers.start(pool="home")
        machine = place.join()
        assert machine.process.wait(60) == 1
        assert "set it to noeviction" in machine.output
    finally:
        place.close()


def test_a_second_home_is_refused_with_the_place_of_the_first(place: Place) -> None:
    place.home().workers.start(pool="home")
    with pytest.raises(WorkersError, match=r"has a home already: .*/data/tasks.db on "):
        place.home("other").workers.start(pool="home")


def test_without_a_secret_only_loopback_is_used(place: Place) -> None:
    app = place.home(task_queue__redis__url="redis://192.0.2.1:6379/0")
    with pytest.raises(WorkersError, match="PAISE2_QUEUE_SECRET"):
        app.workers.start(pool="home")
    machine = place.join(url="redis://:hidden@192.0.2.1:6379/0")
    assert machine.process.wait(60) == 2
    assert "PAISE2_QUEUE_SECRET" in machine.output
    assert "hidden" not in machine.output


def test_a_machine_with_a_wrong_secret_gets_nothing(place: Place) -> None:
    app = place.home(task_queue__redis__secret="right")
    app.workers.start(pool="home")
    place.join(PAISE2_QUEUE_SECRET="wrong")
    right = place.join(PAISE2_QUEUE_SECRET="right")
    place.joined(app, 1)
    job = app.enqueue("where", "word")
    assert job.result(60).startswith(str(right.directory))
    assert "right" not in app.queue.job_store.supervisor()["settings"]
    assert len(app.workers.status().machines) == 1


def test_a_password_is_in_no_row_log_argument_or_error(tmp_path: Path) -> None:
    if shutil.which("openssl") is None:
        pytest.skip("machine: it has no openssl")
    certificate, key = tmp_path / "certificate.pem", tmp_path / "key.pem"
    subprocess.run(
        ["openssl", "req", "-x509", "-newkey", "rsa:2048", "-nodes", "-subj", "/CN=localhost",
         "-addext", "subjectAltName=DNS:localhost", "-keyout", key, "-out", certificate],
        capture_output=True, check=True,
    )  # fmt: skip
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        address = f"localhost:{free.getsockname()[1]}/0"
    given = ("--tls-cert-file", str(certificate), "--tls-key-file", str(key))
    port = ("--tls-port", address[10:-2], "--tls-auth-clients", "no")
    redis_server = RedisServer(tmp_path / "redis", "--requirepass", "pass-word", *given, *port)
    place, texts = Place(tmp_path, redis_server), list[str]()
    trusted = f"ssl_ca_certs={certificate}"
    try:
        for number, url in enumerate((
            f"rediss://:wrong-one@{address}?{trusted}",
            f"rediss://{address}?password=wrong-one&{trusted}",
            f"rediss://:pass-word@{address}",  # without the certificate
        )):  # fmt: skip
            with pytest.raises(WorkersError, match="no Redis server answers") as caught:
                place.home(f"{number}", task_queue__redis__url=url).workers.start(pool="home")
            texts.append(str(caught.value))
        url = f"rediss://:pass-word@{address}?{trusted}"
        app = place.home(task_queue__redis__url=url)
        app.workers.start(pool="home")
        machine = place.join("--daemonize", PAISE2_REDIS_URL=url)
        place.joined(app)
        assert app.enqueue("where", "word").result(60)
        texts.append(machine.output)
        for entry in Path("/proc").glob("[0-9]*/cmdline"):
            with suppress(OSError):
                arguments = entry.read_text(errors="replace")
                texts.append(arguments.partition("--requirepass")[0])
        files = [file for file in tmp_path.rglob("*") if file.is_file()]
        texts += [file.read_bytes().decode(errors="replace") for file in files]
        assert len(texts) > 20
        assert not [text for text in texts for word in ("pass-word", "wrong-one") if word in text]
    finally:
        place.close()


def test_a_machine_that_leaves_does_not_join_again_by_a_late_heartbeat(
    place: Place, tmp_path: Path
) -> None:
    app = place.home()
    app.workers.start(pool="home")
    server, url = Server(place.redis.url), place.redis.url
    link = Link(server, "paise2", shared_secret(None, url), tmp_path, accepts_plugins=False)
    link.start()
    until(lambda: app.queue.job_store.machines() and link.setup is not None)
    recorder = Recorder(url)
    link.stop()
    goodbye = until(lambda: recorder.of("beat", '"leaves": true'))
    link._send_beat()  # by its thread, which may have been about to send one
    link._send_report()
    until(lambda: not app.queue.job_store.machines())
    assert recorder.of("beat")[-1:] == goodbye
