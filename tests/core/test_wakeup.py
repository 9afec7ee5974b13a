"""The doorbell, with real sockets: it wakes, forgets the dead, and bears long paths."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import pytest

from paise2nb.core.wakeup import Listener, Notifier, sockets_directory

LONG = 600.0  # seconds: a wait that a test never sits out


@pytest.fixture(params=["short", "longer than a socket's address"])
def database(request: pytest.FixtureRequest, tmp_path: Path) -> Path:
    if request.param == "short":
        # tmp_path itself may be long: what matters is that both ways are taken
        return tmp_path / "tasks.db"
    if not Path("/proc/self/fd").is_dir():
        pytest.skip("machine: no /proc, so no sockets at long paths")
    directory = tmp_path / ("d" * 90) / ("e" * 90)
    directory.mkdir(parents=True)
    return directory / "tasks.db"


@pytest.fixture
def notifier(database: Path) -> Iterator[Notifier]:
    with closing(Notifier(database)) as notifier:
        yield notifier


def die_with_a_bell(database: Path, name: str) -> None:
    """A process makes a bell and ends without a word."""
    script = (
        "import os, sys; from pathlib import Path; from paise2nb.core.wakeup import Listener;"
        " bell = Listener(Path(sys.argv[1]), sys.argv[2]); os._exit(9)"
    )
    subprocess.run([sys.executable, "-c", script, str(database), name], check=False)


def test_a_ring_is_heard_by_everyone(database: Path, notifier: Notifier) -> None:
    with (
        closing(Listener(database, "worker-1")) as one,
        closing(Listener(database, "worker-2")) as two,
    ):
        assert notifier.notify() is True
        assert one.wait(LONG)
        assert two.wait(LONG)


def test_a_ring_ends_a_wait_that_has_begun(database: Path, notifier: Notifier) -> None:
    with closing(Listener(database, "worker-1")) as listener:
        heard: list[bool] = []
        thread = threading.Thread(target=lambda: heard.append(listener.wait(LONG)))
        thread.start()
        notifier.notify()
        thread.join()
        assert heard == [True]


def test_a_wait_ends_by_itself_and_drains_what_it_heard(database: Path, notifier: Notifier) -> None:
    with closing(Listener(database, "worker-1")) as listener:
        assert listener.wait(0) is False
        for _ in range(5):
            notifier.notify()
        assert listener.wait(LONG) is True
        assert listener.wait(0) is False


def test_many_rings_never_block_and_are_one(database: Path, notifier: Notifier) -> None:
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


def test_who_is_deaf_for_a_while_is_woken_by_itself_alone(
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
        assert listener.wait(0.01, debounce=0.01), "what rang meanwhile is heard afterwards"


def test_nobody_there_is_no_error(database: Path, notifier: Notifier) -> None:
    assert notifier.notify() is False
    sockets_directory(database).mkdir()
    assert notifier.notify() is False


def test_a_closed_bell_leaves_nothing_behind(database: Path, notifier: Notifier) -> None:
    Listener(database, "worker-1").close()
    assert list(sockets_directory(database).iterdir()) == []
    assert notifier.notify() is False


def test_the_dead_are_removed_and_the_living_hear(database: Path, notifier: Notifier) -> None:
    die_with_a_bell(database, "worker-1")
    with closing(Listener(database, "worker-2")) as listener:
        names = {path.name for path in sockets_directory(database).iterdir()}
        assert names == {"worker-1", "worker-2"}
        assert notifier.notify() is True
        assert {path.name for path in sockets_directory(database).iterdir()} == {"worker-2"}
        assert listener.wait(LONG)


def test_a_bell_takes_the_place_of_a_dead_one_of_its_name(
    database: Path, notifier: Notifier
) -> None:
    die_with_a_bell(database, "supervisor")
    with closing(Listener(database, "supervisor")) as listener:
        notifier.notify()
        assert listener.wait(LONG)


def test_without_such_sockets_a_wait_only_sleeps(
    database: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delattr(socket, "AF_UNIX")
    with (
        closing(Listener(database, "worker-1")) as listener,
        closing(Notifier(database)) as notifier,
    ):
        assert notifier.notify() is False
        assert listener.wait(0) is False
        listener.wake()
        assert listener.wait(LONG)
