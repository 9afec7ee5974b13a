"""Leases: the executions that other machines have, each known by a random token.

The rows of the jobs stay the only record. A lease is written in the transaction of its claim, and
deleted in that of its outcome: an outcome without a lease is refused. So what a machine reports
late, twice, or about a job that was given to another one changes nothing.
"""

import json
import secrets
import sqlite3
from collections.abc import Callable, Iterable, Mapping, Sequence, Set
from dataclasses import dataclass
from heapq import heapify, heappop, heapreplace
from itertools import product
from random import random
from typing import Any, NamedTuple

from paise2nb.jobs.database import Transaction, transaction
from paise2nb.jobs.execution import ExecutionMixin
from paise2nb.jobs.models import Claim, Decide, Limits, Outcome, Worker, claim_of
from paise2nb.jobs.queries import QueryMixin
from paise2nb.jobs.sql import SQL

COLLECTION = "collection"  # the key of the random id that the keys in Redis carry
CLAIMED_AT_ONCE = 512  # jobs of one pool: bounds the time of a transaction
HOME_ONLY = "home"  # the error class of an outcome that only home can do better

Logins = Callable[[str], Set[str]]
"""``(host) -> logins``: the hosts, or ``*.HOST``, of the logins that a request needs."""


class Lease(NamedTuple):
    """A claim for another machine.

    Attributes:
        token: Identifies the execution.
        machine: The id of the machine.
        claim: The execution.
        limits: Its limits.
        sequence: The number of the message that carries it to the machine.
    """

    token: str
    machine: int
    claim: Claim
    limits: Limits
    sequence: int


@dataclass
class Capacity:
    """What one machine may be given now. Claims reduce it.

    Attributes:
        machine: Its id.
        pid: That of its supervisor.
        sequence: The number of the message that will carry the claims.
        tasks: The tasks that it can run.
        brief: Those of which some may wait there.
        slots: The free threads by pool.
        ahead: How many brief jobs may wait, by pool.
        load: The jobs that it has.
        logins: The hosts for which it has a login, or ``*.HOST``.
    """

    machine: int
    pid: int
    sequence: int
    tasks: frozenset[str]
    brief: frozenset[str]
    slots: dict[str, int]
    ahead: dict[str, int]
    load: int
    logins: frozenset[str] = frozenset()

    def takes(self, pool: str, row: sqlite3.Row, logins: Set[str]) -> bool:
        """Whether it may be given a job. One that must run alone is the machine's only job.

        Args:
            pool: The pool of the job.
            row: The job.
            logins: Those that it needs.
        """
        if row["task"] not in self.tasks or (row["isolated"] and self.load):
            return False
        if not logins <= self.logins:
            return False
        free = self.slots.get(pool, 0)
        waits = row["task"] in self.brief and row["host"] is None
        return free > 0 or (waits and free + self.ahead.get(pool, 0) > 0)

    def give(self, pool: str, isolated: bool) -> None:
        """Count a job that it is given."""
        self.load += 1
        self.slots[pool] = self.slots.get(pool, 0) - 1
        if isolated:
            self.slots, self.ahead = {}, {}


def _least_loaded(
    order: list[tuple[int, float, Capacity]], pool: str, row: sqlite3.Row, logins: Set[str]
) -> Capacity | None:
    """The machine with the most free threads of those that take a job.

    Args:
        order: A heap of the machines; their free threads may have become fewer since. Those that
            take no more jobs are removed.
        pool: The pool of the job.
        row: The job.
        logins: Those that it needs.
    """
    while order:
        known, chance, machine = order[0]
        free = machine.slots.get(pool, 0)
        if free + machine.ahead.get(pool, 0) <= 0:
            heappop(order)
        elif -known != free:
            heapreplace(order, (-free, chance, machine))
        else:
            break
    if order and order[0][2].takes(pool, row, logins):
        return order[0][2]
    taking = [machine for _, _, machine in order if machine.takes(pool, row, logins)]
    return max(taking, key=lambda machine: machine.slots.get(pool, 0), default=None)


class LeaseMixin(QueryMixin, ExecutionMixin):
    """The methods of leases and of the machines that have them."""

    def leases(self) -> list[dict[str, Any]]:
        """Every lease, with ``task``, ``pool``, ``state`` and ``isolated`` of its job."""
        return [dict(row) for row in self._read(SQL["leases"])]

    @transaction
    def exchange(
        self,
        tx: Transaction,
        outcomes: Sequence[tuple[str, Outcome]],
        pools: Mapping[str, dict[str, Limits]],
        machines: Sequence[Capacity],
        logins: Logins | None = None,
    ) -> tuple[set[str], list[Lease]]:
        """Write outcomes, and claim the next jobs.

        Args:
            outcomes: By their tokens.
            pools: The tasks of each pool that run anywhere, with their limits.
            machines: What they may be given; it is reduced.
            logins: The logins that a job for a host needs; None: none.

        Returns:
            The tokens of the accepted outcomes, and the new claims.
        """
        accepted = self._end_leases(tx, outcomes)
        leases = []
        if any(machine.slots or machine.ahead for machine in machines):
            now = self.now()
            if tx.execute(SQL["is_due"], (now,)).fetchone():
                self._promote(tx, now)
            paused = {row["key"] for row in tx.execute(SQL["pauses"])}
            for pool, limits in pools.items():
                if paused.isdisjoint({"pause:", f"pause:{pool}"}):
                    leases += self._claim_for(tx, pool, limits, machines, logins)
        return accepted, leases

    def _end_leases(self, tx: Transaction, outcomes: Sequence[tuple[str, Outcome]]) -> set[str]:
        tokens = json.dumps([token for token, _ in outcomes])
        claims = {row[0]: Claim(*row[1:]) for row in tx.execute(SQL["leased_jobs"], (tokens,))}
        tx.execute(SQL["delete_leases"], (tokens,))
        accepted = set()
        for token, outcome in outcomes:
            claim = claims.pop(token, None)
            if claim is None or not self._end(tx, claim, outcome):
                continue
            accepted.add(token)
            if outcome.error_class == HOME_ONLY:
                tx.execute("UPDATE jobs SET home = 1 WHERE id = ?", (claim.id,))
        return accepted

    def _claim_for(
        self,
        tx: Transaction,
        pool: str,
        limits: dict[str, Limits],
        machines: Sequence[Capacity],
        logins: Logins | None,
    ) -> list[Lease]:
        """Claim jobs of a pool for the least loaded of the machines that may run them."""
        threads = sum(max(0, machine.slots.get(pool, 0)) for machine in machines)
        ahead = sum(machine.ahead.get(pool, 0) for machine in machines)
        brief = {task for machine in machines for task in machine.brief}
        # Chance decides between equals, or the first machine would get all jobs that come singly.
        order = [(-m.slots.get(pool, 0), random(), m) for m in machines]
        heapify(order)
        rows: list[sqlite3.Row] = []
        for task, isolated in product(limits, (1, 0)):
            # An isolated job may wait for a machine to have no other.
            most = threads + (ahead if isolated or task in brief else 0)
            if most and logins:  # jobs that only home can run must not hide the others
                most = CLAIMED_AT_ONCE
            if most:
                values = (task, isolated, min(most, CLAIMED_AT_ONCE))
                rows += tx.execute(SQL["leasable"], values).fetchall()
        leases = []
        for row in sorted(rows, key=lambda row: (-row["priority"], row["tree"], row["id"])):
            needed = logins(row["host"]) if logins and row["host"] else frozenset()
            chosen = _least_loaded(order, pool, row, needed)
            if chosen is None:
                able = [m for m in machines if row["isolated"] and row["task"] in m.tasks]
                able = [machine for machine in able if needed <= machine.logins]
                if able:  # it waits for this one to have no other job
                    least = min(able, key=lambda machine: machine.load)
                    least.slots, least.ahead = {}, {}
                continue
            if tx.host_limits.is_crowded(row["host"]):
                tx.host_limits.send_back(row["id"])
                tx.host_limits.release(row["host"], waited=-1)
                continue
            worker = Worker(-chosen.machine, chosen.pid, pool, False)
            claim = self._start(tx, worker, row, (self.now(), *limits[row["task"]]))
            if claim is not None:
                chosen.give(pool, bool(row["isolated"]))
                token = secrets.token_hex(16)
                limit = limits[row["task"]]
                leases.append(Lease(token, chosen.machine, claim, limit, chosen.sequence))
        given = [(lease.token, lease.claim.id, lease.machine, lease.sequence) for lease in leases]
        tx.executemany("INSERT INTO leases VALUES (?, ?, ?, ?, 0)", given)
        return leases

    @transaction
    def leases_started(self, tx: Transaction, tokens: Iterable[str]) -> None:
        """Store that executions have begun."""
        tx.execute(SQL["leases_started"], (json.dumps(list(tokens)),))

    def leases_cancelled(self) -> set[str]:
        """The tokens of the executions of cancelled jobs."""
        return set(self._column(SQL["leases_cancelled"]))

    # Machines ----------------------------------------------------------------------------------

    def machines(self) -> list[dict[str, Any]]:
        """The machines, with ``jobs``: the ids of those that they have."""
        rows = map(dict, self._read(SQL["machines"]))
        return [
            {**row, "about": json.loads(row["about"]), "jobs": json.loads(row["jobs"])}
            for row in rows
        ]

    @transaction
    def put_machine(self, tx: Transaction, name: str, values: Mapping[str, Any]) -> int:
        """Insert or update a machine, with its heartbeat. Return its id.

        Args:
            name: Its random name.
            values: ``host``, ``pid``, ``about`` (JSON values) and ``problem``.
        """
        about = json.dumps(values["about"])
        row = {**values, "about": about, "name": name, "now": self.now()}
        return int(tx.execute(SQL["put_machine"], row).fetchone()[0])

    @transaction
    def stop_machines(self, tx: Transaction, host: str) -> int:
        """Ask the machines with a host name to stop. Return their number."""
        return tx.execute("UPDATE machines SET state = 'stopping' WHERE host = ?", (host,)).rowcount

    @transaction
    def lose_machine(self, tx: Transaction, machine: int, decide: Decide) -> list[int]:
        """Delete a machine, and end the executions that it has. Return the ids of their jobs.

        ``row["started"]`` tells whether a job had begun; ``alone``, that it was the only one.
        """
        rows = tx.execute(SQL["jobs_of_machine"], (machine,)).fetchall()
        alone = sum(row["started"] for row in rows) == 1
        for row in rows:
            self._end(tx, claim_of(row), decide(dict(row), alone))
        tx.execute("DELETE FROM leases WHERE machine = ?", (machine,))
        tx.execute("DELETE FROM machines WHERE id = ?", (machine,))
        return [row["id"] for row in rows]

    def collection(self, *, new: bool = False) -> str:
        """The random id of this collection; another one for a copy of it.

        Args:
            new: Whether to choose another one, and to queue the jobs of all machines again.
        """
        known, _, file = (self.get(COLLECTION) or "").partition(" ")
        if known and file == self.database.file and not new:
            return known
        for machine in self.machines():
            self.lose_machine(machine["id"], lambda row, alone: Outcome("released", "queued"))
        chosen = secrets.token_hex(8)
        self.put(COLLECTION, f"{chosen} {self.database.file}")
        return chosen
