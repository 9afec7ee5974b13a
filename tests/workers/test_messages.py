"""Messages between home and machines: signed, numbered, and bytes in parts."""

from __future__ import annotations

import hashlib
from pathlib import Path
from typing import Any

import pytest

from paise2nb.collection.cache import Cache
from paise2nb.core.errors import SettingsError
from paise2nb.workers.machines.bytes_in_parts import PART, Receiver, complete, part
from paise2nb.workers.machines.bytes_in_parts import Sender as BytesSender
from paise2nb.workers.machines.messages import HOME, Channel, session_key, shared_secret

KINDS = ("beat", "answer", "report")


def pair(secret: bytes = b"secret", nonce: str = "nonce") -> tuple[Channel, Channel]:
    """The ends of a machine and of home, which has a secret of its own."""
    keys = [session_key(each, "collection", nonce, "machine") for each in (secret, b"secret")]
    machine = Channel(keys[0], "collection", "machine", HOME)
    return machine, Channel(keys[1], "collection", HOME, "machine")


@pytest.mark.parametrize("kind", KINDS)
def test_a_message_is_accepted_once(kind: str) -> None:
    machine, home = pair()
    data = machine.seal(kind, {"token": 1})
    assert home.accept(data) == (kind, {"token": 1})
    assert home.accept(data) is None


@pytest.mark.parametrize("kind", KINDS)
def test_an_altered_message_is_refused(kind: str) -> None:
    machine, home = pair()
    data = machine.seal(kind, {"token": 1})
    for position in range(0, len(data), 7):
        changed = bytes([data[position] ^ 1])
        assert home.accept(data[:position] + changed + data[position + 1 :]) is None
    assert home.accept(data) is not None


def test_a_message_of_another_secret_session_or_direction_is_refused() -> None:
    machine, home = pair()
    assert home.accept(pair(secret=b"wrong")[0].seal("beat", {})) is None
    assert home.accept(pair(nonce="earlier")[0].seal("beat", {})) is None
    assert machine.accept(machine.seal("beat", {})) is None
    assert home.accept(home.seal("answer", {})) is None


def test_a_lost_message_does_not_stop_those_after_it() -> None:
    machine, home = pair()
    first, second = machine.seal("report", 1), machine.seal("report", 2)
    assert home.accept(second) == ("report", 2)
    assert home.accept(first) is None


@pytest.mark.parametrize("url", ["redis://192.0.2.1", "redis:///0?host=192.0.2.1"])
def test_messages_that_leave_this_machine_need_a_secret(url: str) -> None:
    with pytest.raises(SettingsError, match="must be signed"):
        shared_secret(None, url)
    assert shared_secret("word", url) == b"word"


class Sender:
    """Holds bytes, and answers requests for parts."""

    def __init__(self, *contents: bytes) -> None:
        self.contents = {hashlib.sha256(data).hexdigest(): data for data in contents}
        self.asked: list[tuple[str, int]] = []

    def answers(self) -> list[dict[str, Any]]:
        asked, self.asked = self.asked, []
        return [part(self.contents[key], key, offset) for key, offset in asked]


def test_bytes_arrive_in_parts_within_the_budget() -> None:
    sender = Sender(*(bytes([n]) * (PART * 3 + n) for n in range(8)))
    kept: dict[str, bytes | None] = {}
    receiver = Receiver(lambda *each: sender.asked.append(each), kept.__setitem__, 7 * PART)
    for key, data in sender.contents.items():
        receiver.want(key, len(data))
    while len(kept) < 8:
        receiver.step()
        assert len({key for key, _ in sender.asked}) <= 2
        for body in reversed(sender.answers()):  # in any order
            receiver.receive(body)
            receiver.receive(body)
    assert kept == sender.contents


def test_bytes_are_read_once_for_all_their_parts(tmp_path: Path) -> None:
    cache = Cache(tmp_path)
    keys = [cache.put(bytes([n]) * 3 * PART) for n in range(2)]
    sender, reads = BytesSender(cache), list[str]()
    get = cache.get
    cache.get = lambda key: reads.append(key) or get(key)  # type: ignore[method-assign,func-returns-value]
    for offset in range(0, 3 * PART, PART):
        for key in keys:
            assert sender.part(key, offset)["size"] == 3 * PART
    assert reads == keys


def test_a_part_is_complete_or_nothing() -> None:
    data = b"x" * (PART + 1)
    key = hashlib.sha256(data).hexdigest()
    assert complete(part(data[:10], hashlib.sha256(data[:10]).hexdigest(), 0)) == data[:10]
    assert complete(part(data, key, 0)) is None


def test_damaged_bytes_are_asked_for_again() -> None:
    sender = Sender(b"x" * 10)
    [key] = sender.contents
    kept: dict[str, bytes | None] = {}
    receiver = Receiver(lambda *each: sender.asked.append(each), kept.__setitem__, PART)
    receiver.want(key, 10)
    receiver.step()
    sender.asked.clear()
    receiver.receive(part(b"y" * 10, key, 0))
    assert not kept
    receiver.step()
    for body in sender.answers():
        receiver.receive(body)
    assert kept == sender.contents
