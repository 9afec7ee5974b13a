"""A machine that has joined a queue: its link to home, and the supervisor of its workers.

A heartbeat carries everything that home must know: the number of the last message that was read,
the executions that the machine has, and each outcome that home has not acknowledged. So any
message may be lost, doubled or late.
"""

import json
import logging
import os
import queue
import shutil
import socket
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any

from paise2nb.collection.cache import Cache
from paise2nb.config.settings import DEFAULT_POOL, Settings
from paise2nb.core.errors import PaiseError, StorageError, WorkersError
from paise2nb.core.version import __version__
from paise2nb.workers.machines.bytes_in_parts import AGAIN_SECONDS, Receiver, part
from paise2nb.workers.machines.memory import PLUGINS, MemoryStore, execution_from_json
from paise2nb.workers.machines.messages import (
    HOME,
    Channel,
    Server,
    new_name,
    session_key,
    shared_secret,
)
from paise2nb.workers.machines.remote import serve
from paise2nb.workers.supervisor import Supervisor

logger = logging.getLogger("paise2nb.supervisor")

BEAT_SECONDS = 1.0
REPORT_SECONDS = 0.2  # after which home knows that a job has begun
STALE_SECONDS = 2.5  # a claim that comes later is not begun: home has taken it back
ASKED_TIMES = 30  # how often a question of a worker is sent, until it is answered
JOIN_SECONDS = 60.0  # for which a join waits for home
GOODBYE_SECONDS = 10.0  # for which a machine that stops waits until home has its outcomes
CACHE_SECONDS = 3600.0  # for which bytes stay in the cache of a machine


class Link:
    """The messages between this machine and home.

    Args:
        server: The Redis server.
        name: The name of the queue.
        secret: What home and machines share.
        data_dir: The directory of this machine.

    Attributes:
        store: The executions.
        settings: Those of home as JSON, None until home has answered.
        stopping: Home or a user wants this machine to stop.
        on_settings: Called when home has other settings, or wants this machine to stop.
    """

    def __init__(self, server: Server, name: str, secret: bytes, data_dir: Path) -> None:
        self.server = server
        self.me = new_name()
        self.store = MemoryStore(data_dir / "machine.sock", self._changed, self._ask_home)
        self.cache = Cache(data_dir / "cache")
        self.settings: str | None = None
        self.stopping = False
        self.on_settings: Callable[[], None] = lambda: None
        self._name = name
        self._secret = secret
        self._channel: Channel | None = None
        self._nonce = ""
        self._lock = threading.RLock()  # of the channel, so that a heartbeat tells one moment
        self._wakeup = threading.Event()
        self._ended = False
        self._beats: dict[int, float] = {}  # number -> when it was sent (monotonic)
        self._sent_outcomes: set[str] = set()
        self._sent_started: set[str] = set()
        self._asked: dict[str, list[queue.SimpleQueue[Any]]] = {}  # questions of workers
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
                    self._find_home()
                    self._send_beat()
                else:
                    self._send_report()
            except self.server.errors as error:
                logger.warning("Redis can't be reached: %s", type(error).__name__)
                beat_at = time.monotonic() + BEAT_SECONDS / 4
                time.sleep(BEAT_SECONDS / 4)
            except StorageError:
                logger.exception("the cache of this machine can't be used")
            if not self.store.is_leased() and self.store.held():
                logger.warning("Redis was away for too long: this machine ends its jobs")
                self.store.drop(None, grace=False)

    def _find_home(self) -> None:
        """Begin a new session if the relay has started again, perhaps on another collection."""
        found = self.server.redis.get(self.server.home_key(self._name))
        if found is None:
            return
        home = json.loads(found)
        if home["nonce"] == self._nonce:
            return
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

    def _beat(self) -> dict[str, Any]:
        assert self._channel is not None
        plugins = self.store.get(PLUGINS)
        return {
            "read": self._channel.received,
            "held": self.store.held(),
            "outcomes": self.store.outcomes,
            "progress": self.store.progress_by_token(),
            "host": socket.gethostname(),
            "pid": os.getpid(),
            "version": __version__,
            "pools": {} if self.stopping else self.store.capacity(),
            "plugins": json.loads(plugins) if plugins else {},
            "problem": self.store.supervisor().get("problem"),
            "has_settings": self.settings is not None,
        }

    def _send_beat(self) -> None:
        with self._lock:
            if self._channel is None:
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
            if self._channel is None:
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
            with self._lock:
                self._asked.pop(name, None)

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
            except Exception:
                logger.exception("a message of home can't be used")

    def _handle(self, data: bytes) -> None:
        with self._lock:
            channel = self._channel
            message = channel.accept(data) if channel is not None else None
            if message is None:
                return
            kind, body = message
            match kind:
                case "jobs":
                    # Older than the heartbeat that home had read when it claimed them.
                    age = time.monotonic() - self._beats.get(body["beat"], float("-inf"))
                    if age < STALE_SECONDS and not self.stopping:
                        self.store.add(map(execution_from_json, body["jobs"]))
                case "answer":
                    self._take_answer(body)
                case "want":
                    self._send_part(*body)
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
        if body["stop"] and not self.stopping:
            self.stopping = True
            self.on_settings()
        if (settings := body.get("settings")) is not None and settings != self.settings:
            self.settings = settings
            self.on_settings()

    def _send_part(self, key: str, offset: int) -> None:
        try:
            self._send("part", part(self.cache.get(key), key, offset))
        except KeyError:
            self._send("part", {"key": key, "offset": offset, "size": 0, "data": None})


class MachineSupervisor(Supervisor):
    """The supervisor of a machine: it stays without work, and cleans up only its own cache."""

    def __init__(self, settings: Settings, options: dict[str, Any], link: Link) -> None:
        super().__init__(settings, options, link.store)  # type: ignore[arg-type]  # see memory
        self._link = link
        self._clean_at = 0.0  # monotonic
        link.on_settings = self._drain_now

    def _drain_now(self) -> None:
        self._stop_at = float("inf")

    def _step(self) -> bool:
        if self._stop_at is not None:
            self._link.store.return_waiting()
        elif time.monotonic() > self._clean_at:
            self._clean_at = time.monotonic() + CACHE_SECONDS / 6
            outcomes = list(self._link.store.outcomes.values())
            needed = {key for outcome in outcomes for key in outcome.get("bytes", ())}
            self._link.cache.remove(needed, CACHE_SECONDS)
        return super()._step()

    def _enqueue_cleanup(self) -> None:
        pass

    def _is_idle(self) -> bool:
        return False


def join(
    url: str,
    name: str,
    options: dict[str, Any],
    say: Callable[[str], None] = lambda text: None,
    on_joined: Callable[[], None] = lambda: None,
) -> None:
    """Run workers for the queue at a Redis server until stopped.

    Args:
        url: Of the server.
        name: The queue's.
        options: ``concurrency``, ``pool`` and ``foreground``.
        say: Shows what happens.
        on_joined: Called when home has answered.

    Raises:
        WorkersError: The server or the home of the queue does not answer, or a worker can't start.
        SettingsError: The messages must be signed, and there is no secret.
    """
    secret = shared_secret(None, url)
    server = Server(url)
    server.require_noeviction()
    data_dir = Path(tempfile.mkdtemp(prefix="paise2-"))
    link = Link(server, name, secret, data_dir)
    sockets = serve(link.store)
    try:
        link.start()
        say(f"joining queue {name} at {server.url}")
        _wait_for_home(link, name)
        on_joined()
        while not link.stopping:
            settings = link.settings
            assert settings is not None
            say("workers run here until Ctrl-C, which lets running jobs finish")
            _supervise(link, Settings.from_json(settings), options, data_dir)
            if link.settings == settings:
                break
            say("home has other settings: the workers start again")
        link.stop()
    finally:
        sockets.shutdown()
        shutil.rmtree(data_dir, ignore_errors=True)


def _wait_for_home(link: Link, name: str) -> None:
    deadline = time.monotonic() + JOIN_SECONDS
    while link.settings is None:
        if time.monotonic() > deadline:
            if link.server.redis.exists(link.server.home_key(name)):
                raise WorkersError(
                    f"the home of queue {name} does not answer; give both sides the same secret: "
                    "PAISE2_QUEUE_SECRET"
                )
            raise WorkersError(
                f"no home of queue {name} at {link.server.url}; start its workers: "
                "paise2 worker start, with task_queue.provider redis"
            )
        time.sleep(0.05)


def _supervise(link: Link, settings: Settings, options: dict[str, Any], data_dir: Path) -> None:
    own: dict[str, Any] = {
        "data_dir": str(data_dir),
        "task_queue.sqlite.path": str(link.store.path),
        "data_storage.sqlite.path": None,
    }
    if options["concurrency"] and not options["pool"]:
        own["workers.concurrency"] = options["concurrency"]
    settings = settings.override(own, "worker join")
    sizes = {DEFAULT_POOL: settings.workers.concurrency}
    sizes |= {pool: configured.processes for pool, configured in settings.workers.pools.items()}
    if chosen := options["pool"]:
        if chosen not in sizes:
            raise WorkersError(f"home has no pool {chosen!r}; it has {', '.join(sorted(sizes))}")
        sizes = {chosen: options["concurrency"] or sizes[chosen]}
    chosen_options = {"sizes": sizes, "burst": False, "drain_timeout": None}
    MachineSupervisor(settings, chosen_options | {"foreground": options["foreground"]}, link).run()


def spawn_joined(url: str, name: str, options: dict[str, Any]) -> int:
    """Join in a process of its own. Return its pid when its workers have joined.

    Raises:
        WorkersError: They can't. The message contains the reason.
    """
    ready, ready_there = os.pipe()
    message = {"url": url, "name": name, "options": options, "ready": ready_there}
    child = subprocess.Popen(
        [sys.executable, "-c", f"from {__name__} import main; main()", "paise2nb", "machine"],
        stdin=subprocess.PIPE,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        start_new_session=True,
        pass_fds=[ready_there],
    )
    os.close(ready_there)
    assert child.stdin is not None
    with child.stdin as pipe:
        pipe.write(json.dumps(message).encode())
    with os.fdopen(ready, encoding="utf-8") as answer:
        if problem := answer.read():
            raise WorkersError(problem)
    return child.pid


def main() -> None:
    """Join in a process of its own."""
    received = json.loads(sys.stdin.buffer.read())
    with os.fdopen(received["ready"], "w", encoding="utf-8") as ready:
        try:
            join(received["url"], received["name"], received["options"], on_joined=ready.close)
        except PaiseError as error:
            if not ready.closed:
                ready.write(str(error))
            sys.exit(1)
