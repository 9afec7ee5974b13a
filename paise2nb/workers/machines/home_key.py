"""The key in Redis by which the relay of a queue makes itself known, and keeps other homes away."""

import json
import socket
from pathlib import Path
from typing import Any

from paise2nb.core.errors import WorkersError
from paise2nb.workers.machines.messages import Server


class HomeKey:
    """The key of one relay.

    Args:
        server: The Redis server.
        name: The name of the queue.
        path: Of the job store.
        collection: Its random id.
        nonce: Of the relay.
        lease: Seconds without a renewal after which another home may take the queue.
    """

    def __init__(
        self, server: Server, name: str, path: Path, collection: str, nonce: str, lease: float
    ) -> None:
        self._server = server
        self._name = name
        self._key = server.home_key(name)
        self._mine = {"host": socket.gethostname(), "path": str(path), "collection": collection}
        self._nonce = nonce
        self._milliseconds = int(lease * 1000)

    def renew(self, *, waits: bool) -> None:
        """Keep the key, unless another home has it.

        Args:
            waits: Whether jobs wait for machines, which serve several queues in turn.

        Raises:
            WorkersError: The queue has another home.
        """
        value = json.dumps({**self._mine, "nonce": self._nonce, "waits": waits})
        redis = self._server.redis
        if redis.set(self._key, value, nx=True, px=self._milliseconds):
            return
        other = json.loads(redis.get(self._key) or "{}")
        # That of an earlier relay of this home has another nonce. It may have run out just now.
        if other and any(other.get(name) != mine for name, mine in self._mine.items()):
            raise WorkersError(
                f"the queue {self._name!r} at {self._server.url} has a home already: "
                f"{other.get('path')} on {other.get('host')}; stop its workers, or choose "
                "another task_queue.redis.name"
            )
        redis.set(self._key, value, px=self._milliseconds)

    def delete(self) -> None:
        """Leave the queue to the next relay, unless that has already taken it."""

        def delete_own(pipe: Any) -> None:
            nonce = json.loads(pipe.get(self._key) or "{}").get("nonce")
            pipe.multi()
            if nonce == self._nonce:
                pipe.delete(self._key)

        self._server.redis.transaction(delete_own, self._key)
