"""The link of a machine that has joined a queue to its home.

A heartbeat carries everything that home must know: the number of the last message that was read,
the executions that the machine has, and each outcome that home has not acknowledged. So any
message may be lost, doubled or late.
"""

import json
import logging
import os
import queue
import socket
import threading
import time
from contextlib import suppress
from pathlib import Path
from typing import Any

from paise2nb.collection.cache import Cache
from paise2nb.core.disks import full_disk
from paise2nb.core.errors import StorageError
from paise2nb.core.version import __version__
from paise2nb.workers.machines.bytes_in_parts import AGAIN_SECONDS, Receiver, Sender, complete
from paise2nb.workers.machines.memory import PLUGINS, MemoryStore, execution_from_json
from paise2nb.workers.machines.messages import (
    HOME,
    Channel,
    Refusals,
    Server,
    new_name,
    session_key,
    setup_digest,
)

logger = logging.getLogger("paise2nb.supervisor")

BEAT_SECONDS = 1.0
REPORT_SECONDS = 0.2  # after which home knows that a job has begun
STALE_SECONDS = 2.5  # a claim that comes later is not begun: home has taken it back
ASKED_TIMES = 30  # how often a question of a worker is sent, until it is answered
GOODBYE_SECONDS = 10.0  # for which a machine that stops waits until home has its outcomes


class Link:
    """The messages between this machine and home.

    Args:
        server: The Redis server.
        name: The name of the queue.
        secret: What home and machines share.
        data_dir: The directory of this machine.
        accepts_plugins: Whether home may send the source of plugins.

    Attributes:
        store: The executions.
        setup: ``settings`` of home as JSON, the ``pools`` for machines, and the saved ``plugins``
            by name; None until home has answered.
        stopping: Home or a user wants this machine to stop.
        leaving: It is the turn of another queue: this machine takes no more jobs of this one.
        logins: The logins of home that this machine has, too.
    """

    def __init__(
        self, server: Server, name: str, secret: bytes, data_dir: Path, *, accepts_plugins: bool
    ) -> None:
        self.server = server
        self._accepts_plugins = accepts_plugins
        self.me = new_name()
        self._data_dir = data_dir
        self.store = MemoryStore(data_dir / "machine.sock", self._changed, self._ask_home)
        self.cache = Cache(data_dir / "cache", durable=False)  # home has all that matters
        self.setup: dict[str, Any] | None = None
        self.stopping = self.leaving = False
        self.logins: list[str] = []
        self._name = name
        self._secret = secret
        self._channel: Channel | None = None
        self._nonce = ""
        self._refusals = Refusals()
        self._lock = threading.RLock()  # of the channel, so that a heartbeat tells one moment
        self._wakeup = threading.Event()
        self._ended = False
        self._beats: dict[int, float] = {}  # number -> when it was sent (monotonic)
        self._sent_outcomes: set[str] = set()
        self._sent_started: set[str] = set()
        self._asked: dict[str, list[queue.SimpleQueue[Any]]] = {}  # questions of workers
        self._sender = Sender(self.cache)
        self._receiver = Receiver(self._ask_part, self._keep, 1 << 30)

    def start(self) -> None:
        """Begin to send and to read."""
        for target in (self._send_always, self._read_always):
            threading.Thread(target=target, daemon=True).start()

    def stop(self) -> None:
        """Wait until home has every outcome, or for some seconds, and say goodbye."""
        self.stopping = True
        deadline = time.monotonic() + GOODBYE_SECONDS
        while self.store.outcomes and time.monotonic() < deadline:
            self._wakeup.set()
            time.sleep(0.05)
        self._ended = True
        with suppress(*self.server.errors), self._lock:
            if self._channel is not None:
                self._send("beat", self._beat() | {"leaves": True})
                self.server.mailbox(self._channel.collection, self.me).flush_queue()

    # Sending -----------------------------------------------------------------------------------

    def _changed(self) -> None:
        self._wakeup.set()

    def _send_always(self) -> None:
        beat_at = 0.0
        while not self._ended:
            self._wakeup.wait(REPORT_SECONDS)
            self._wakeup.clear()
            try:
                if time.monotonic() >= beat_at:
                    beat_at = time.monotonic() + BEAT_SECONDS
                    if self._find_home():
                        self._send_beat()
                    else:  # none that counts this silence; messages would pile up in Redis
                        self.store.heard_at = time.monotonic()
                else:
                    self._send_report()
            except self.server.errors as error:
                logger.warning("Redis can't be reached: %s", type(error).__name__)
                beat_at = time.monotonic() + BEAT_SECONDS / 4
                time.sleep(BEAT_SECONDS / 4)
            except Exception:  # without this thread home would hear nothing any more
                logger.exception("home can't be told now")
            self.keep_lease()

    def keep_lease(self) -> None:
        """End all jobs if home may give them to others."""
        if not self.store.is_leased() and self.store.held():
            logger.warning("Redis was away for too long: this machine ends its jobs")
            self.store.drop(None, grace=False)

    def _find_home(self) -> bool:
        """Begin a new session if the relay has started again, perhaps on another collection.

        Returns:
            Whether there is a relay.
        """
        found = self.server.redis.get(self.server.home_key(self._name))
        if found is None:
            return False
        home = json.loads(found)
        if home["nonce"] == self._nonce:
            return True
        with self._lock:
            if self._channel is not None and self._channel.collection != home["collection"]:
                self.store.drop(None, grace=False)
                self.store.outcomes.clear()
            self._nonce = home["nonce"]
            key = session_key(self._secret, home["collection"], self._nonce, self.me)
            self._channel = Channel(key, home["collection"], self.me, HOME)
            self._beats.clear()
            self._sent_outcomes.clear()
        logger.info("the home of queue %s is %s:%s", self._name, home["host"], home["path"])
        return True

    def _beat(self) -> dict[str, Any]:
        assert self._channel is not None
        plugins, full = self.store.get(PLUGINS), full_disk([self._data_dir])
        claims = not (self.stopping or self.leaving or full)  # on a full disk, no worker does
        return {
            "read": self._channel.received,
            "held": self.store.held(),
            "outcomes": self.store.outcomes,
            "progress": self.store.progress_by_token(),
            "host": socket.gethostname(),
            "pid": os.getpid(),
            "version": __version__,
            "pools": self.store.capacity() if claims else {},
            "plugins": json.loads(plugins) if plugins else None,  # not known yet
            "problem": full or self.store.supervisor().get("problem"),
            "setup": setup_digest(self.setup),
            "accepts_plugins": self._accepts_plugins,
            "logins": self.logins,
        }

    def _send_beat(self) -> None:
        with self._lock:
            if self._channel is None or self._ended:  # after the goodbye it would join again
                return
            self._receiver.step()
            beat = self._beat()
            self._sent_outcomes = set(beat["outcomes"])
            self._sent_started = {token for token, started in beat["held"].items() if started}
            begun = time.monotonic()
            number = self._send("beat", beat)
            self.store.heard_at = begun
            self._beats = {n: at for n, at in self._beats.items() if begun - at < 60}
            self._beats[number] = begun

    def _send_report(self) -> None:
        """Send what is new since the last heartbeat."""
        with self._lock:
            if self._channel is None or self._ended:
                return
            outcomes = {
                token: outcome
                for token, outcome in list(self.store.outcomes.items())
                if token not in self._sent_outcomes
            }
            started = {token for token, begun in self.store.held().items() if begun}
            if outcomes or started - self._sent_started:
                self._send("report", {"outcomes": outcomes, "started": list(started)})
                self._sent_outcomes |= outcomes.keys()
                self._sent_started = started

    def _send(self, kind: str, body: Any) -> int:
        assert self._channel is not None
        with self._lock:
            return self._channel.send(self.server, kind, body)

    def _ask_home(self, kind: str, body: Any) -> Any:
        """Send a question of a worker, again and again, and wait for the answer."""
        answer: queue.SimpleQueue[Any] = queue.SimpleQueue()
        name = body if kind == "bytes" else new_name()
        with self._lock:
            self._asked.setdefault(name, []).append(answer)
        try:
            for _ in range(ASKED_TIMES):
                with suppress(queue.Empty, *self.server.errors):
                    with self._lock:
                        if kind == "bytes":
                            self._receiver.want(name, 0)
                            self._receiver.step()
                        elif self._channel is not None:
                            self._send("ask", {"name": name, "kind": kind, "body": body})
                    return answer.get(timeout=AGAIN_SECONDS)
            raise StorageError("home does not answer")
        finally:
            with self._lock:  # only this question: another worker may wait for the same bytes
                self._asked[name].remove(answer)
                if not self._asked[name]:
                    del self._asked[name]

    def _ask_part(self, key: str, offset: int) -> None:
        self._send("want", [key, offset])

    def _keep(self, key: str, data: bytes | None) -> None:
        if data is not None:
            self.cache.put(data)
        for answer in self._asked.get(key, ()):
            answer.put(data is not None)

    # Reading -----------------------------------------------------------------------------------

    def _read_always(self) -> None:
        while not self._ended:
            channel = self._channel
            if channel is None:
                time.sleep(0.05)
                continue
            try:
                data = self.server.mailbox(channel.collection, self.me).dequeue()
                if data is not None:
                    self._handle(data)
            except self.server.errors:
                time.sleep(BEAT_SECONDS / 4)
            except Exception:  # a damaged message must not stop those that follow
                logger.exception("a message of home can't be used")

    def _handle(self, data: bytes) -> None:
        with self._lock:
            channel = self._channel
            message = channel.accept(data) if channel is not None else None
            if message is None:
                self._refusals.log(HOME)
                return
            kind, body = message
            match kind:
                case "answer":
                    self._take_answer(body)
                case "want":
                    self._send("part", self._sender.part(*body))
                case "part":
                    self._receiver.receive(body)
                    self._receiver.step()
                case "reply":
                    for answer in self._asked.get(body["name"], ()):
                        answer.put(body["value"])

    def _take_answer(self, body: dict[str, Any]) -> None:
        for token in body["acknowledged"]:
            self.store.outcomes.pop(token, None)
            self._sent_outcomes.discard(token)
        self.store.drop(body["drop"], grace=False)
        self.store.drop(body["cancel"], grace=True)
        self.store.lease = body["lease"]
        self.stopping |= body["stop"]
        if (setup := body.get("setup")) is not None and setup != self.setup:
            self.setup = setup
        # Older than the heartbeat that home had read when it claimed them.
        age = time.monotonic() - self._beats.get(body["beat"], float("-inf"))
        if body["jobs"] and age < STALE_SECONDS and not (self.stopping or self.leaving):
            for *_, extras in body["jobs"]:
                came = extras.pop("part", None)
                if came is not None and (data := complete(came)) is not None:
                    with suppress(StorageError):  # the job asks for them, and fails with the reason
                        self.cache.put(data)
            self.store.add(map(execution_from_json, body["jobs"]))
