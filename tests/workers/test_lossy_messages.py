"""Home and machines over messages that are lost, doubled and late, on a clock of the test's own.

The parts are real: relay, job store, links and the executions of machines. Only the Redis server
and the time are not, so that a seed decides everything.
"""

from __future__ import annotations

import json
import os
import random
from collections import Counter, defaultdict, deque
from collections.abc import Iterable, Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

import paise2nb
from paise2nb.app import App
from paise2nb.core import processes
from paise2nb.jobs import leases
from paise2nb.jobs.models import Claim, NewJob, Outcome
from paise2nb.jobs.transfer import outcome_to_json
from paise2nb.workers.machines import bytes_in_parts, machine, memory, relay
from paise2nb.workers.machines.memory import PLUGINS
from paise2nb.workers.machines.messages import HOME, Channel, session_key
from paise2nb.workers.machines.versions import fingerprints

STEP = 0.1  # seconds of the test's clock
BEAT_STEPS = 10
LEASE_STEPS = 30
STEPS = 1000  # only a failure takes so many
JOBS, BRIEF = 40, 8
THREADS = 2
PLUGIN = """
from paise2nb import task

@task("one", runs="anywhere")
def one(context, number): ...

@task("brief", runs="anywhere", threads=True)
def brief(context, number): ...

@task("after")
def after(context, number): ...
"""


class Redis:
    """A server that loses, doubles and delays messages, but loses no two of a sender in a row.

    Attributes:
        is_bad: Whether it does.
    """

    errors = (OSError,)
    url = "redis://localhost"

    def __init__(self, rng: random.Random) -> None:
        self.rng = rng
        self.is_bad = True
        self.redis = self
        self._keys: dict[str, str] = {}
        self._lists: dict[str, deque[tuple[int, bytes]]] = defaultdict(deque)
        self._lost: set[tuple[str, str]] = set()  # senders and receivers whose last one was lost
        self.step = 0

    def require_noeviction(self) -> None:
        pass

    def home_key(self, name: str) -> str:
        return name

    def set(self, key: str, value: str, nx: bool = False, px: int = 0) -> bool:
        if nx and key in self._keys:
            return False
        self._keys[key] = value
        return True

    def get(self, key: str) -> str | None:
        return self._keys.get(key)

    def deliver(self, collection: str, messages: Iterable[tuple[str, bytes]]) -> None:
        for receiver, data in messages:
            self.mailbox(collection, receiver).enqueue(data)

    def mailbox(self, collection: str, receiver: str) -> Any:
        return SimpleNamespace(
            enqueue=lambda data: self._put(receiver, data),
            flush_queue=lambda: self._lists[receiver].clear(),
        )

    def _put(self, receiver: str, data: bytes) -> None:
        fate = self.rng.random() if self.is_bad else 1.0
        way = json.loads(data[64:])[1], receiver
        if fate < 0.2 and way not in self._lost:
            self._lost.add(way)
            return
        self._lost.discard(way)
        for _ in range(2 if fate < 0.4 else 1):
            late = self.rng.randrange(4) if self.is_bad else 0
            self._lists[receiver].append((self.step + late, data))

    def messages(self, receiver: str) -> Iterator[bytes]:
        """Those that arrive in this step."""
        waiting = self._lists[receiver]
        while waiting and waiting[0][0] <= self.step:
            yield waiting.popleft()[1]


class Machine:
    """The link of a machine, and a worker whose jobs end at random moments."""

    def __init__(self, redis: Redis, app: App, directory: Path, begun: Counter[str]) -> None:
        directory.mkdir()
        self.redis = redis
        self.begun = begun
        server: Any = redis
        self.link = machine.Link(server, "paise2", b"", directory, accepts_plugins=False)
        self.cut_until = 0  # the step until which it reaches no Redis
        self._store = self.link.store
        self._store.put(PLUGINS, json.dumps(fingerprints(app.plugins)))
        process = processes.identity(os.getpid())
        assert process is not None
        self._worker = self._store.register("default", THREADS, process)
        self._store.heartbeat(self._worker, "ready", None)
        self._claims: list[Claim] = []

    def step(self, number: int) -> None:
        self._work()
        if number >= self.cut_until:
            for data in self.redis.messages(self.link.me):
                self.link._handle(data)
            if number % BEAT_STEPS == 0:
                self.link._find_home()
                self.link._send_beat()
            else:
                self.link._send_report()
        if not self._store.is_leased():
            self._store.drop(None, grace=False)

    def _work(self) -> None:
        ended = [claim for claim in self._claims if self.redis.rng.random() < 0.7]
        self._claims = [claim for claim in self._claims if claim not in ended]
        reports = [((c.id, c.started_at), outcome_to_json(self._end(c))) for c in ended]
        beside = bool(self._claims)
        wanted = (["one", "brief"], ["brief"], THREADS - len(self._claims), beside)
        free = len(self._claims) < THREADS
        _, found = self._store.end_several(reports, self._worker, True, wanted if free else None)
        for claim, _ in found:
            self._claims.append(claim)
            self.begun[claim.args] += 1

    def _end(self, claim: Claim) -> Outcome:
        if self.redis.rng.random() < 0.2:
            self.begun[claim.args] -= 1
            return Outcome("snoozed", "queued")
        result = json.dumps([self.link.me, claim.started_at])
        return Outcome("completed", "completed", result, followups=[NewJob("after", "[1]", 1)])


class Run:
    """One run of some jobs on three machines.

    Args:
        begun: How often each job began, by its arguments.
    """

    def __init__(self, directory: Path, monkeypatch: pytest.MonkeyPatch, seed: int) -> None:
        self.rng = random.Random(seed)
        self.redis = Redis(self.rng)
        self.begun: Counter[str] = Counter()
        self._directory = directory
        self._now = 1000.0
        clock = SimpleNamespace(monotonic=lambda: self._now, sleep=lambda seconds: None)
        for module in (bytes_in_parts, machine, memory, relay):
            monkeypatch.setattr(module, "time", clock)
        monkeypatch.setattr(relay, "Server", lambda url: self.redis)
        plugin = directory / "extra.py"
        plugin.write_text(PLUGIN)
        settings = {
            "task_queue.provider": "redis", "task_queue.redis.lease": LEASE_STEPS * STEP,
            "plugins": [str(plugin)], "workers.pools.home": {"tasks": ["after"]},
            "workers.retry.policies": {"crash": {"max_retries": 99, "retry_delay": 0}},
        }  # fmt: skip
        self.app = paise2nb.open("development", data_dir=directory / "data", settings=settings)
        self.machines = [self._machine() for _ in range(3)]
        self._restart_relay()

    def _machine(self) -> Machine:
        number = len(list(self._directory.glob("machine-*")))
        return Machine(self.redis, self.app, self._directory / f"machine-{number}", self.begun)

    def _restart_relay(self) -> None:
        self._relay = relay.Relay(self.app.parts, lambda: True)

    def disturb(self) -> None:
        """Let one of the parts fail for a while."""
        match self.rng.randrange(30 * 3):
            case 0:
                self.machines[self.rng.randrange(3)] = self._machine()
            case 1:
                self.rng.choice(self.machines).cut_until = self.redis.step + 2 * LEASE_STEPS
            case 2:
                self._relay._listener.close()
                self._restart_relay()

    def jobs(self, *, disturbed: bool) -> None:
        """Run jobs until all have ended. Check that each effect is there once."""
        jobs = [*self.app.enqueue_many("one", range(JOBS))]
        jobs += self.app.enqueue_many("brief", range(JOBS, JOBS + BRIEF))
        store = self.app.queue.job_store
        while store.counts()[0]["completed"] < len(jobs):
            self.redis.step += 1
            self._now += STEP
            assert self.redis.step < STEPS, "a job is lost"
            if disturbed and self.redis.step < STEPS / 4:
                self.disturb()
            for each in self.machines:
                each.step(self.redis.step)
            self._relay._incoming += self.redis.messages(HOME)
            self._relay._step()
        for job in jobs:
            assert len(job.children) == 1, "an effect is there twice"
            started_at = store.rows([job.id])[job.id]["started_at"]
            assert json.loads(job.row()["result"])[1] == started_at, "a late outcome is accepted"

    def close(self) -> None:
        self._relay._listener.close()
        self.app.close()


def run(directory: Path, monkeypatch: pytest.MonkeyPatch, seed: int, *, disturbed: bool) -> Run:
    (directory / f"{seed}").mkdir()
    found = Run(directory / f"{seed}", monkeypatch, seed)
    try:
        found.jobs(disturbed=disturbed)
    finally:
        found.close()
    return found


@pytest.mark.parametrize("seed", range(4))
def test_messages_that_are_lost_or_doubled_make_no_job_begin_twice(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, seed: int
) -> None:
    found = run(tmp_path, monkeypatch, seed, disturbed=False)
    assert set(found.begun.values()) == {1}


@pytest.mark.parametrize("seed", range(6))
def test_each_effect_is_there_once_when_machines_and_the_relay_end(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, seed: int
) -> None:
    run(tmp_path, monkeypatch, seed, disturbed=True)


def test_messages_of_senders_without_the_secret_leave_nothing_behind(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    found = Run(tmp_path, monkeypatch, 0)
    home = json.loads(found.redis.get("paise2") or "")
    for number in range(100):
        name = f"{number:032x}"
        key = session_key(b"wrong", home["collection"], home["nonce"], name)
        found._relay._receive(Channel(key, home["collection"], name, HOME).seal("beat", {}))
    assert not found._relay._channels
    found.close()


# What the protocol needs -----------------------------------------------------------------------


def take_out_numbers(monkeypatch: pytest.MonkeyPatch) -> None:
    accept = Channel.accept

    def accept_any(self: Channel, data: bytes) -> tuple[str, Any] | None:
        self.received, before = 0, self.received
        message = accept(self, data)
        self.received = max(before, self.received)
        return message

    monkeypatch.setattr(Channel, "accept", accept_any)


def take_out_what_was_read(monkeypatch: pytest.MonkeyPatch) -> None:
    beat = machine.Link._beat
    monkeypatch.setattr(machine.Link, "_beat", lambda self: beat(self) | {"read": 1 << 30})


def take_out_tokens(monkeypatch: pytest.MonkeyPatch) -> None:
    lease = leases.Lease

    def numbered(token: str, machine: int, claim: Claim, *rest: Any) -> leases.Lease:
        return lease(f"{claim.id}-{claim.run}", machine, claim, *rest)

    monkeypatch.setattr(leases, "Lease", numbered)


def take_out_resending(monkeypatch: pytest.MonkeyPatch) -> None:
    send = machine.Link._send

    def send_once(self: machine.Link, kind: str, body: Any) -> int:
        number = send(self, kind, body)
        if kind in ("beat", "report"):
            self.store.outcomes.clear()
        return number

    monkeypatch.setattr(machine.Link, "_send", send_once)


@pytest.mark.parametrize(
    "take_out", [take_out_numbers, take_out_what_was_read, take_out_tokens, take_out_resending]
)
def test_a_protocol_without_one_of_its_parts_is_found_to_be_wrong(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, take_out: Any
) -> None:
    take_out(monkeypatch)
    with pytest.raises(AssertionError, match=r"twice|late|lost"):
        run_seeds(tmp_path, monkeypatch)


def run_seeds(directory: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for seed in range(10):
        found = run(directory, monkeypatch, seed, disturbed=False)
        assert set(found.begun.values()) == {1}, "a job begins twice"
