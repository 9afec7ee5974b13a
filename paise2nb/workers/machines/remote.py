"""What a worker process on a joined machine has in place of the job store and the collection.

Its machine's supervisor holds the executions (see `memory`) and is asked through a socket. What
only home has can't be read here: the job then goes home, uncharged.
"""

import json
import logging
import os
import socket
import socketserver
import threading
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any, NoReturn, cast

from paise2nb.collection.cache import Cache
from paise2nb.content.fetch import robots
from paise2nb.core import processes
from paise2nb.core.errors import HomeOnly, StorageError, redacted, shortened
from paise2nb.core.urls import canonical_url
from paise2nb.core.wakeup import short_path
from paise2nb.jobs.models import Claim, Outcome, Wanted, Worker
from paise2nb.jobs.parts import Parts
from paise2nb.jobs.transfer import outcome_to_json
from paise2nb.plugins import DataStorageProvider
from paise2nb.workers.machines.memory import PLUGINS, MemoryStore
from paise2nb.workers.machines.versions import fingerprints

LOG_LENGTH = 64_000  # bytes of the log lines of one execution that home gets
LOG_LINE = 4_000  # characters of one line

# What workers may call of a `MemoryStore`.
_CALLS = (
    "register", "heartbeat", "leave", "claimable", "end_several", "runs", "report_progress", "ask",
    "put", "get",
)  # fmt: skip


class _Handler(socketserver.StreamRequestHandler):
    def handle(self) -> None:
        server: Any = self.server
        for request in self.rfile:
            name, arguments = json.loads(request)
            if name not in _CALLS:
                return
            try:
                answer = json.dumps(getattr(server.store, name)(*arguments))
            except StorageError as error:
                answer = f"!{error}"
            self.wfile.write(answer.encode() + b"\n")


class _Server(socketserver.ThreadingUnixStreamServer):
    daemon_threads = True
    request_queue_size = 128


def serve(store: MemoryStore) -> socketserver.BaseServer:
    """Answer the workers in threads, until `shutdown` of the server that is returned."""
    with short_path(store.path.parent) as directory:
        server: Any = _Server(f"{directory}/{store.path.name}", _Handler)
    server.store = store
    threading.Thread(target=server.serve_forever, args=(0.1,), daemon=True).start()
    return server  # type: ignore[no-any-return]  # it has got an attribute


class _Local(threading.local):
    """Of one thread of a worker.

    Attributes:
        stream: Its connection.
        claim: The execution that it runs.
    """

    stream: Any = None
    claim: Claim | None = None


class RemoteStore:
    """The job store of a worker on a joined machine. See `JobStore` for the methods.

    Args:
        path: The socket of the machine's supervisor.
        data_dir: The directory of the machine.
    """

    is_remote = True

    def __init__(self, path: Path, data_dir: Path) -> None:
        self.path = path
        self.database = self
        self.data_dir = data_dir
        self._local = _Local()
        self._extras: dict[Claim, Mapping[str, Any]] = {}  # what home sent along
        # What its task has logged, and the bytes for which there is room.
        self._lines: dict[Claim, tuple[list[tuple[int, str]], int]] = {}
        self._made: dict[Claim, dict[str, Any]] = {}  # what home needs beside the outcome

    def _call(self, name: str, *arguments: Any) -> Any:
        local = self._local
        try:
            if local.stream is None:
                connection = socket.socket(socket.AF_UNIX)
                with short_path(self.path.parent) as directory:
                    connection.connect(f"{directory}/{self.path.name}")
                local.stream = connection.makefile("rwb")
            local.stream.write(json.dumps([name, arguments]).encode() + b"\n")
            local.stream.flush()
            answer = local.stream.readline()
        except OSError as error:
            local.stream = None
            raise StorageError(f"the supervisor of this machine is gone: {error}") from error
        if not answer:
            local.stream = None
            raise StorageError("the supervisor of this machine is gone")
        if answer.startswith(b"!"):
            raise StorageError(answer[1:].decode().strip())
        return json.loads(answer)

    def __getattr__(self, name: str) -> NoReturn:
        if name.startswith("_"):
            raise AttributeError(name)
        raise HomeOnly(f"job_store.{name}")

    # What the worker process calls -------------------------------------------------------------

    def check(self) -> None:
        """Raise StorageError if the supervisor is gone."""
        self._call("get", "")

    def close(self) -> None:
        """Close the connection of this thread."""
        if self._local.stream is not None:
            with suppress(OSError):
                self._local.stream.close()
            self._local.stream = None

    def counts(self) -> tuple[dict[str, int], dict[str, int]]:
        """Nothing: the jobs are counted at home."""
        self.check()
        return {}, {}

    def register(self, pool: str, threads: int) -> Worker:
        """Register this process as a worker."""
        worker_id = self._call("register", pool, threads, processes.identity(os.getpid()))
        return Worker(worker_id, os.getpid(), pool.partition(":")[0], threads == 1)

    def heartbeat(self, worker: Worker, state: str, error: str | None = None) -> bool:
        """Tell the state of this worker; False if it was declared dead."""
        return bool(self._call("heartbeat", worker.id, state, error))

    def leave(self, worker: Worker) -> None:
        """Leave the registry."""
        self._call("leave", worker.id)

    def get(self, key: str) -> Any:
        """A value about the whole machine."""
        return self._call("get", key)

    def put(self, key: str, value: str) -> None:
        """Set a value about the whole machine."""
        self._call("put", key, value)

    def paused_pools(self) -> set[str]:
        """Nothing: home claims nothing for a paused pool."""
        return set()

    def take_unused_slots(self, tasks: Collection[str]) -> bool:
        """False: home gives the slots of hosts."""
        return False

    def is_ahead(self, tasks: Collection[str]) -> bool:
        """False: home decides which fetches come first."""
        return False

    def next_time(self, *arguments: Any, **options: Any) -> None:
        """None: home waits for times."""

    def refund(self, claims: Iterable[Claim]) -> list[Claim]:
        """Nothing: home has the outcomes already."""
        return []

    # Executions --------------------------------------------------------------------------------

    def claimable(self, tasks: Collection[str]) -> bool:
        """Whether an execution of these tasks waits."""
        return bool(self._call("claimable", list(tasks)))

    def begin(self, claim: Claim) -> None:
        """Note that this thread runs an execution."""
        self._local.claim = claim
        if rules := self.extras.get("robots"):
            robots.put_rules(self.data_dir / robots.DIRECTORY, _url(claim), *rules)

    def end_several(
        self, ended: Sequence[tuple[Claim, Outcome]], worker: Worker, wanted: Wanted | None
    ) -> tuple[list[bool], list[Claim]]:
        """Report outcomes, and begin the next executions."""
        outcomes = [(_key(claim), self._report(claim, outcome)) for claim, outcome in ended]
        chosen = wanted and (list(wanted.limits), list(wanted.brief), wanted.number, wanted.beside)
        accepted, answers = self._call(
            "end_several", outcomes, worker.id, worker.one_at_a_time, chosen
        )
        for claim, _ in ended:
            self._extras.pop(claim, None)
            self._made.pop(claim, None)
        claims = []
        for values, extras in answers:
            claims.append(Claim(*values))
            self._extras[claims[-1]] = extras
        return accepted, claims

    def _report(self, claim: Claim, outcome: Outcome) -> dict[str, Any]:
        values = outcome_to_json(outcome)
        if outcome.outcome == "completed":
            values |= self._made.get(claim, {})
        if rules := self._new_rules(claim):
            values["robots"] = rules
        if logged := self._lines.pop(claim, None):
            values["log"] = logged[0]
        return values

    def keep_line(self, record: logging.LogRecord) -> None:
        """Keep what a task logs, for the log at home, up to a limit."""
        if self._local.claim is not None and record.name.startswith("paise2nb.task."):
            lines, room = self._lines.get(self._local.claim, ([], LOG_LENGTH))
            line = shortened(redacted(record.getMessage()), LOG_LINE)
            left = room - len(json.dumps(line))
            if left >= 0:
                lines.append((record.levelno, line))
            elif room >= 0:
                lines.append((logging.WARNING, "the other lines of this run are left out"))
            self._lines[self._local.claim] = lines, left if room >= 0 else room

    def runs(self, claim: Claim) -> bool:
        """Whether an execution still has its job, and this machine its lease."""
        return bool(self._call("runs", _key(claim)))

    def progress(self, claim: Claim, done: float, total: float | None) -> bool:
        """Report the progress of an execution."""
        return bool(self._call("report_progress", _key(claim), done, total))

    def plugin_value(self, plugin: str, key: str) -> tuple[str | None, int]:
        """A value of a plugin's state, and its version."""
        value, version = self._call("ask", "state", [plugin, key])
        return value, int(version)

    def plugin_keys(self, plugin: str) -> set[str]:
        """The keys of a plugin's state."""
        return set(self._call("ask", "keys", [plugin]))

    def bytes_from_home(self, key: str) -> bool:
        """Have the bytes of a key put into this machine's cache; False if home has none."""
        return bool(self._call("ask", "bytes", key))

    @property
    def extras(self) -> Mapping[str, Any]:
        """What home sent along with the execution of this thread. Raises HomeOnly elsewhere."""
        if self._local.claim is None:
            raise HomeOnly("context.items in a thread of its own")
        return self._extras.get(self._local.claim, {})

    def add_made(self, name: str, key: str, value: Any) -> None:
        """Note what home needs beside the outcome of this thread's execution."""
        if self._local.claim is not None:
            self._made.setdefault(self._local.claim, {}).setdefault(name, {})[key] = value

    def _new_rules(self, claim: Claim) -> tuple[str, str, float] | None:
        """The rules of the host of a fetch, if this machine has fetched them."""
        if claim.task != "fetch" or claim.host is None:
            return None
        rules = robots.stored_rules(self.data_dir / robots.DIRECTORY, _url(claim))
        known = self._extras.get(claim, {}).get("robots")
        if rules is None or (known and known[0] == rules[0]):
            return None
        return _url(claim), *rules


def _key(claim: Claim) -> tuple[int, float]:
    return claim.id, claim.started_at


def _url(claim: Claim) -> str:
    return str(json.loads(claim.args)[0])


class MachineCache(Cache):
    """The bytes on this machine. Missing ones come from home, and home gets new ones.

    Args:
        directory: Of the files.
        store: Asks home.
    """

    def __init__(self, directory: Path, store: RemoteStore) -> None:
        super().__init__(directory, durable=False)
        self._store = store

    def put(self, data: bytes) -> str:
        """Store bytes, and note that the outcome of the execution needs them at home."""
        key = super().put(data)
        self._store.add_made("bytes", key, len(data))
        return key

    put_derived = put

    def get(self, key: str) -> bytes:
        """The bytes of a key, perhaps from home. Raises KeyError."""
        try:
            return super().get(key)
        except KeyError:
            if not self._store.bytes_from_home(key):
                raise
            return super().get(key)

    def __contains__(self, key: str) -> bool:
        return super().__contains__(key) or self._store.extras.get("cached") == key


class RemoteItems:
    """The collection, of which a machine knows the one item that a fetch may compare with."""

    def __init__(self, store: RemoteStore) -> None:
        self._store = store

    def find(self, key: str) -> int | None:
        """The id of the item that home sent along. Raises HomeOnly for another URL."""
        known = self._store.extras.get("item")
        if known is None or known["key"] != key:
            raise HomeOnly("context.items")
        return known["row"] and int(known["row"]["id"])

    def get(self, item_id: int) -> dict[str, Any] | None:
        """The item that home sent along. Raises HomeOnly for another one."""
        known = self._store.extras.get("item")
        if known is None or not known["row"] or known["row"]["id"] != item_id:
            raise HomeOnly("context.items")
        return dict(known["row"])

    def visited(self, key: str, at: float) -> int | None:
        """Note that home has to record a visit."""
        self._store.add_made("visited", key, at)
        return self.find(key)

    def count(self) -> int:
        """0: the items are at home."""
        return 0

    def close(self) -> None:
        """Do nothing."""

    def __getattr__(self, name: str) -> NoReturn:
        if name.startswith("_"):
            raise AttributeError(name)
        raise HomeOnly("context.items")


class LineHandler(logging.Handler):
    """Gives each record to a function. A record that can't be formatted fails no task."""

    def __init__(self, keep: Callable[[logging.LogRecord], None]) -> None:
        super().__init__()
        self._keep = keep

    def emit(self, record: logging.LogRecord) -> None:
        """Keep a record."""
        try:
            self._keep(record)
        except Exception:  # of the task's arguments, as in the handlers of `logging`
            self.handleError(record)


def use_remote_parts(parts: Parts) -> None:
    """Replace what only home has: the cache asks home, and the collection is out of reach."""
    store: Any = parts.job_store
    parts.cache = MachineCache(parts.data_dir / "cache", store)
    parts.store = cast(DataStorageProvider, RemoteItems(store))
    logging.root.addHandler(LineHandler(store.keep_line))
    store.put(PLUGINS, json.dumps(fingerprints(parts.plugins)))


def item_key(args: str) -> str:
    """The key of the item that a fetch compares with."""
    return canonical_url(str(json.loads(args)[0]))
