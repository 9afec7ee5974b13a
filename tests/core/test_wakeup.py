"""Waking idle processes through real sockets, also at long paths and after crashes."""

from __future__ import annotations

import os
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import pytest

from paise2nb.core.wakeup import Listener, Notifier, sockets_directory

LONG = 600.0  # seconds: a wait that a test never sits out


@pytest.fixture(params=["short", "longer than a socket address"])
def database(request: pytest.FixtureRequest, tmp_path: Path) -> Path:
    if request.param == "short":
        return tmp_path / "tasks.db"
    directory = tmp_path / ("d" * 90) / ("e" * 90)
    directory.mkdir(parents=True)
    return directory / "tasks.db"


@pytest.fixture
def notifier(database: Path) -> Iterator[Notifier]:
    with closing(Notifier(database)) as notifier:
        yield notifier


def crash_while_listening(database: Path, name: str) -> None:
    """A process creates its socket and ends without removing it."""
    script = (
        "import os, sys; from pathlib import Path; from paise2nb.core.wakeup import Listener;"
        " listener = Listener(Path(sys.argv[1]), sys.argv[2]); os._exit(9)"
    )
    subprocess.run([sys.executable, "-c", script, str(database), name], check=False)


def test_a_notification_wakes_every_listener(database: Path, notifier: Notifier) -> None:
    with (
        closing(Listener(database, "worker-1")) as one,
        closing(Listener(database, "worker-2")) as two,
    ):
        assert notifier.notify() is True
        assert one.wait(LONG)
        assert two.wait(LONG)


def test_a_notification_ends_a_wait_that_has_begun(database: Path, notifier: Notifier) -> None:
    with closing(Listener(database, "worker-1")) as listener:
        woken: list[bool] = []
        thread = threading.Thread(target=lambda: woken.append(listener.wait(LONG)))
        thread.start()
        notifier.notify()
        thread.join()
        assert woken == [True]


def test_a_wait_times_out_and_consumes_all_notifications(
    database: Path, notifier: Notifier
) -> None:
    with closing(Listener(database, "worker-1")) as listener:
        assert listener.wait(0) is False
        for _ in range(5):
            notifier.notify()
        assert listener.wait(LONG) is True
        assert listener.wait(0) is False


def test_many_notifications_never_block_and_wake_once(database: Path, notifier: Notifier) -> None:
    with closing(Listener(database, "worker-1")) as listener:
        for _ in range(5000):
            assert notifier.notify() is True
        assert listener.wait(LONG)
        assert listener.wait(0) is False


def test_a_process_can_wake_itself(database: Path) -> None:
    with closing(Listener(database, "worker-1")) as listener:
        listener.wake()
        assert listener.wait(LONG)
        assert listener.wait(0) is False
        os.write(listener.wake_descriptor, b"!")  # as a signal does
        assert listener.wait(LONG)


def test_during_the_debounce_only_the_process_itself_ends_its_wait(
    database: Path, notifier: Notifier
) -> None:
    with closing(Listener(database, "worker-1")) as listener:
        thread = threading.Thread(target=lambda: listener.wait(LONG, debounce=LONG))
        thread.start()
        assert notifier.notify()
        thread.join(0.2)
        assert thread.is_alive()
        listener.wake()
        thread.join(LONG)
        assert not thread.is_alive()
        assert notifier.notify()
        assert listener.wait(0.01, debounce=0.01), "notifications during the debounce are not lost"


def test_notifying_without_listeners_is_no_error(database: Path, notifier: Notifier) -> None:
    assert notifier.notify() is False
    sockets_directory(database).mkdir()
    assert notifier.notify() is False


def test_a_closed_listener_leaves_nothing_behind(database: Path, notifier: Notifier) -> None:
    Listener(database, "worker-1").close()
    assert list(sockets_directory(database).iterdir()) == []
    assert notifier.notify() is False


def test_sockets_of_ended_processes_are_removed_and_the_others_notified(
    database: Path, notifier: Notifier
) -> None:
    crash_while_listening(database, "worker-1")
    with closing(Listener(database, "worker-2")) as listener:
        names = {path.name for path in sockets_directory(database).iterdir()}
        assert names == {"worker-1", "worker-2"}
        assert notifier.notify() is True
        assert {path.name for path in sockets_directory(database).iterdir()} == {"worker-2"}
        assert listener.wait(LONG)


def test_a_listener_replaces_the_socket_of_an_ended_process(
    database: Path, notifier: Notifier
) -> None:
    crash_while_listening(database, "supervisor")
    with closing(Listener(database, "supervisor")) as listener:
        notifier.notify()
        assert listener.wait(LONG)


def test_where_no_socket_can_be_created_a_wait_only_sleeps(
    database: Path, notifier: Notifier
) -> None:
    (sockets_directory(database) / "worker-1").mkdir(parents=True)
    with closing(Listener(database, "worker-1")) as listener:
        assert notifier.notify() is False
        assert listener.wait(0) is False
        listener.wake()
        assert listener.wait(LONG)
