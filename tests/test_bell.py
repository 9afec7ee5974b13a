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

from paise2nb.core.wakeup import Bell, Ringer, bells_directory

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
def ringer(database: Path) -> Iterator[Ringer]:
    with closing(Ringer(database)) as ringer:
        yield ringer


def die_with_a_bell(database: Path, name: str) -> None:
    """A process makes a bell and ends without a word."""
    script = (
        "import os, sys; from pathlib import Path; from paise2nb.core.wakeup import Bell;"
        " bell = Bell(Path(sys.argv[1]), sys.argv[2]); os._exit(9)"
    )
    subprocess.run([sys.executable, "-c", script, str(database), name], check=False)


def test_a_ring_is_heard_by_everyone(database: Path, ringer: Ringer) -> None:
    with closing(Bell(database, "worker-1")) as one, closing(Bell(database, "worker-2")) as two:
        assert ringer.ring() is True
        assert one.wait(LONG)
        assert two.wait(LONG)


def test_a_ring_ends_a_wait_that_has_begun(database: Path, ringer: Ringer) -> None:
    with closing(Bell(database, "worker-1")) as bell:
        heard: list[bool] = []
        thread = threading.Thread(target=lambda: heard.append(bell.wait(LONG)))
        thread.start()
        ringer.ring()
        thread.join()
        assert heard == [True]


def test_a_wait_ends_by_itself_and_drains_what_it_heard(database: Path, ringer: Ringer) -> None:
    with closing(Bell(database, "worker-1")) as bell:
        assert bell.wait(0) is False
        for _ in range(5):
            ringer.ring()
        assert bell.wait(LONG) is True
        assert bell.wait(0) is False


def test_many_rings_never_block_and_are_one(database: Path, ringer: Ringer) -> None:
    with closing(Bell(database, "worker-1")) as bell:
        for _ in range(5000):
            assert ringer.ring() is True
        assert bell.wait(LONG)
        assert bell.wait(0) is False


def test_a_process_can_wake_itself(database: Path) -> None:
    with closing(Bell(database, "worker-1")) as bell:
        bell.wake()
        assert bell.wait(LONG)
        assert bell.wait(0) is False
        os.write(bell.wake_descriptor, b"!")  # as a signal does
        assert bell.wait(LONG)


def test_who_is_deaf_for_a_while_is_woken_by_itself_alone(database: Path, ringer: Ringer) -> None:
    with closing(Bell(database, "worker-1")) as bell:
        thread = threading.Thread(target=lambda: bell.wait(LONG, deaf=LONG))
        thread.start()
        assert ringer.ring()
        thread.join(0.2)
        assert thread.is_alive()
        bell.wake()
        thread.join(LONG)
        assert not thread.is_alive()
        assert ringer.ring()
        assert bell.wait(0.01, deaf=0.01), "what rang meanwhile is heard afterwards"


def test_nobody_there_is_no_error(database: Path, ringer: Ringer) -> None:
    assert ringer.ring() is False
    bells_directory(database).mkdir()
    assert ringer.ring() is False


def test_a_closed_bell_leaves_nothing_behind(database: Path, ringer: Ringer) -> None:
    Bell(database, "worker-1").close()
    assert list(bells_directory(database).iterdir()) == []
    assert ringer.ring() is False


def test_the_dead_are_removed_and_the_living_hear(database: Path, ringer: Ringer) -> None:
    die_with_a_bell(database, "worker-1")
    with closing(Bell(database, "worker-2")) as bell:
        names = {path.name for path in bells_directory(database).iterdir()}
        assert names == {"worker-1", "worker-2"}
        assert ringer.ring() is True
        assert {path.name for path in bells_directory(database).iterdir()} == {"worker-2"}
        assert bell.wait(LONG)


def test_a_bell_takes_the_place_of_a_dead_one_of_its_name(database: Path, ringer: Ringer) -> None:
    die_with_a_bell(database, "supervisor")
    with closing(Bell(database, "supervisor")) as bell:
        ringer.ring()
        assert bell.wait(LONG)


def test_without_such_sockets_a_wait_only_sleeps(
    database: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delattr(socket, "AF_UNIX")
    with closing(Bell(database, "worker-1")) as bell, closing(Ringer(database)) as ringer:
        assert ringer.ring() is False
        assert bell.wait(0) is False
        bell.wake()
        assert bell.wait(LONG)
