"""Bytes on their way between home and a machine: asked for in parts, checked, then kept.

The receiver asks for each part, a few at a time and within a budget, so that a slow receiver slows
the sender down and Redis never holds more than a few parts. Only the few bytes of a fetched page
come along with the job that extracts them: `python -m tests.benchmarks.redis pages`.
"""

import base64
import hashlib
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

from paise2nb.plugins import CacheProvider

PART = 256 * 1024  # bytes
PARTS_AT_ONCE = 16  # asked for and not received yet, of one sender
OPEN_AT_ONCE = 2  # bytes of which some parts were sent, in memory
AGAIN_SECONDS = 2.0  # after which a part is asked for again


def part(data: bytes, key: str, offset: int) -> dict[str, Any]:
    """One part of some bytes as the body of a message."""
    text = base64.b64encode(data[offset : offset + PART]).decode()
    return {"key": key, "offset": offset, "size": len(data), "data": text}


def complete(body: dict[str, Any]) -> bytes | None:
    """The bytes of a part that is all of them; None if it is not, or was altered."""
    data = base64.b64decode(body["data"])
    return data if hashlib.sha256(data).hexdigest() == body["key"] else None


class Sender:
    """The bytes of one side's cache, read once for all their parts.

    Args:
        cache: Has the bytes.
    """

    def __init__(self, cache: CacheProvider) -> None:
        self._cache = cache
        self._open: dict[str, bytes] = {}

    def part(self, key: str, offset: int) -> dict[str, Any]:
        """One part as the body of a message; ``data`` is None if the cache lacks the bytes."""
        data = self._open.pop(key, None)
        try:
            data = self._cache.get(key) if data is None else data
        except KeyError:
            return {"key": key, "offset": offset, "size": 0, "data": None}
        if offset + PART < len(data):
            self._open[key] = data
            if len(self._open) > OPEN_AT_ONCE:
                del self._open[next(iter(self._open))]
        return part(data, key, offset)


@dataclass
class _Incoming:
    size: int
    parts: dict[int, bytes] = field(default_factory=dict)
    asked: dict[int, float] = field(default_factory=dict)  # offset -> when (monotonic)


class Receiver:
    """The bytes that one side wants from the other.

    Args:
        ask: Sends the request for a part: ``(key, offset)``.
        keep: Stores complete bytes; called with ``(key, data)``, or ``(key, None)`` if the sender
            does not have them.
        budget: Bytes that may be on their way at a time. A single larger one may be, too.
    """

    def __init__(
        self,
        ask: Callable[[str, int], None],
        keep: Callable[[str, bytes | None], None],
        budget: int,
    ) -> None:
        self._ask = ask
        self._keep = keep
        self.budget = budget
        self._waiting: dict[str, int] = {}  # key -> size, not begun yet
        self._incoming: dict[str, _Incoming] = {}

    def want(self, key: str, size: int) -> None:
        """Ask for some bytes when there is room. Size 0 means unknown."""
        if key not in self._incoming:
            self._waiting.setdefault(key, size)

    def forget(self, key: str) -> None:
        """Want some bytes no more."""
        self._waiting.pop(key, None)
        self._incoming.pop(key, None)

    def step(self) -> None:
        """Ask for the next parts, and again for those that did not come."""
        for key, size in list(self._waiting.items()):
            used = sum(incoming.size for incoming in self._incoming.values())
            if self._incoming and used + size > self.budget:
                break
            del self._waiting[key]
            self._incoming[key] = _Incoming(size)
        now = time.monotonic()
        free = PARTS_AT_ONCE
        for key, incoming in self._incoming.items():
            for offset in range(0, max(incoming.size, 1), PART):
                if free <= 0:
                    return
                if offset in incoming.parts:
                    continue
                free -= 1
                if now - incoming.asked.get(offset, float("-inf")) > AGAIN_SECONDS:
                    incoming.asked[offset] = now
                    self._ask(key, offset)

    def receive(self, body: dict[str, Any]) -> None:
        """Take a part. One that was not asked for is ignored."""
        key = body["key"]
        incoming = self._incoming.get(key)
        if incoming is None:
            return
        if body["data"] is None:
            self.forget(key)
            self._keep(key, None)
            return
        incoming.size = body["size"]
        incoming.parts[body["offset"]] = base64.b64decode(body["data"])
        if sum(map(len, incoming.parts.values())) < incoming.size:
            return
        data = b"".join(incoming.parts[offset] for offset in sorted(incoming.parts))
        self.forget(key)
        if hashlib.sha256(data).hexdigest() == key:
            self._keep(key, data)
        else:
            self.want(key, body["size"])
