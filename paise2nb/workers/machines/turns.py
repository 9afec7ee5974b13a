"""Which of several queues on one Redis server a machine serves: each in turn."""

import json
import time
from collections.abc import Sequence
from typing import Any

from paise2nb.workers.machines.messages import Server

TURN_SECONDS = 30.0  # after which a queue leaves the machine to another one with waiting jobs
CHECK_SECONDS = 1.0


class Turns:
    """The queues of a machine.

    Args:
        server: The Redis server.
        names: Of the queues, in their order.

    Attributes:
        name: The queue that is served now.
    """

    def __init__(self, server: Server, names: Sequence[str]) -> None:
        self._server = server
        self._names = list(dict.fromkeys(names))
        self.name = self._names[-1]
        self._began_at = self._checked_at = time.monotonic()

    def _homes(self) -> dict[str, dict[str, Any]]:
        """What the homes of the other queues say, and that of this one last; in their order."""
        at = self._names.index(self.name) + 1
        names = self._names[at:] + self._names[:at]
        found = self._server.redis.mget([self._server.home_key(name) for name in names])
        return {name: json.loads(text) for name, text in zip(names, found, strict=True) if text}

    def begin(self) -> str:
        """Choose the next queue: one with waiting jobs, or at least with a home."""
        homes = self._homes()
        waiting = [name for name, home in homes.items() if home["waits"]]
        self.name = next(iter([*waiting, *homes]), self._names[0])
        self._began_at = self._checked_at = time.monotonic()
        return self.name

    def is_over(self, *, idle: bool) -> bool:
        """Whether jobs wait in another queue, and this one has none or has had its time.

        Args:
            idle: Whether the machine has no jobs.
        """
        now = time.monotonic()
        if len(self._names) == 1 or now - self._checked_at < CHECK_SECONDS:
            return False
        self._checked_at = now
        if not idle and now - self._began_at < TURN_SECONDS:
            return False
        try:
            homes = self._homes()
        except self._server.errors:
            return False
        own = homes.pop(self.name, {"waits": False})
        is_done = not own["waits"] or now - self._began_at >= TURN_SECONDS
        return is_done and any(home["waits"] for home in homes.values())
