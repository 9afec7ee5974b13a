"""The machines that have joined a queue, and their leases, as the relay knows them."""

from collections import Counter, deque
from dataclasses import dataclass, field
from typing import Any

from paise2nb.jobs.leases import Capacity, Lease
from paise2nb.workers.machines.bytes_in_parts import Receiver
from paise2nb.workers.machines.messages import Channel

# Brief jobs that may wait on a machine, in each pool: what it ends in a short time. `python -m
# tests.benchmarks.redis`: with a fixed 64, a job costs a fifth more processor time.
AHEAD, MOST_AHEAD = 64, 512
AHEAD_SECONDS = 0.1
BROUGHT = 100  # keys


@dataclass
class Leased:
    """A lease as the relay knows it."""

    sequence: int
    given_at: float  # monotonic
    pool: str
    isolated: bool
    started: bool = False
    waits: bool = False  # the machine has said that it has not begun it
    progress: list[float | None] | None = None


@dataclass(eq=False)
class Machine:
    """A machine as the relay knows it.

    Attributes:
        row: Its id in the job store.
        host: The name of its host.
        heard_at: When its last message came (monotonic).
        beat: The number of its last heartbeat.
        about: Its last heartbeat.
        leases: By token.
        pending: Outcomes that wait for bytes: the outcome and the keys that are missing.
        acknowledged: Outcomes that it need not send again.
        drop, cancel: Executions that it has to end, at once or after a grace period.
        stop: Whether it has to stop.
        receiver: The bytes that home wants from it.
        brought: The keys of the last bytes that it has sent home.
        tasks: What it may run.
        ended: How many jobs it has ended in this second.
        ahead: How many brief jobs may wait there, in each pool.
        given: Claims that were not sent to it yet.
        answer: What waits for an answer: ``beat`` for a heartbeat, ``report``, or nothing.
    """

    row: int
    host: str
    heard_at: float
    channel: Channel
    beat: int = 0
    about: dict[str, Any] = field(default_factory=dict)
    leases: dict[str, Leased] = field(default_factory=dict)
    pending: dict[str, tuple[dict[str, Any], set[str]]] = field(default_factory=dict)
    acknowledged: list[str] = field(default_factory=list)
    drop: list[str] = field(default_factory=list)
    cancel: set[str] = field(default_factory=set)
    stop: bool = False
    receiver: Receiver = field(init=False)
    brought: deque[str] = field(default_factory=lambda: deque(maxlen=BROUGHT))
    tasks: frozenset[str] = frozenset()
    ended: int = 0
    ahead: int = AHEAD
    given: list[Lease] = field(default_factory=list)
    answer: str = ""

    @property
    def name(self) -> str:
        """Its random name."""
        return self.channel.other

    def acknowledge(self, token: str) -> None:
        """Answer that an outcome need not be sent again."""
        self.acknowledged.append(token)
        self.answer = self.answer or "report"

    def capacity(self, brief: frozenset[str]) -> Capacity | None:
        """What it may be given now; None for nothing.

        Args:
            brief: The tasks with ``threads=True``: their jobs may wait there.
        """
        if any(lease.isolated for lease in self.leases.values()) or not self.tasks:
            return None
        threads = self.about.get("pools", {})
        ahead = dict.fromkeys(threads, self.ahead if brief else 0)
        # A job needs no thread while its bytes are on their way home. For no more jobs than
        # there are threads: then the machine waits for home.
        coming = Counter(self.leases[t].pool for t in self.pending.keys() & self.leases.keys())
        has = Counter(lease.pool for lease in self.leases.values())
        slots = {pool: n - has[pool] + min(coming[pool], n) for pool, n in threads.items()}
        for pool, free in slots.items():
            if -free > ahead.get(pool, 0) / 2:  # many at once later: each message has its price
                ahead[pool] = 0
        if not any(free + ahead.get(pool, 0) > 0 for pool, free in slots.items()):
            return None
        pid, sequence = int(self.about["pid"]), self.channel.sent + 1
        load = len(self.leases)
        logins = frozenset(self.about.get("logins", ()))
        return Capacity(self.row, pid, sequence, self.tasks, brief, slots, ahead, load, logins)
