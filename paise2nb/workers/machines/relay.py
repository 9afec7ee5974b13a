"""The relay gives jobs to other machines and writes their outcomes, beside the job store at home.

One thread reads Redis and wakes the other, which writes outcomes and claims in batches, one
transaction each. The relay may die at any time: the leases are in the job store.
"""

import logging
import threading
import time
from collections import deque
from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import replace
from itertools import takewhile
from typing import Any

from paise2nb.core.errors import StorageError
from paise2nb.core.wakeup import Listener, Notifier
from paise2nb.jobs.leases import HOME_ONLY
from paise2nb.jobs.models import Limits, Outcome
from paise2nb.jobs.parts import Parts
from paise2nb.jobs.retry import CRASH_POLICIES, charge_crash
from paise2nb.workers.machines.bytes_in_parts import PART, Receiver, Sender
from paise2nb.workers.machines.home import HomeParts
from paise2nb.workers.machines.home_key import HomeKey
from paise2nb.workers.machines.joined import AHEAD, AHEAD_SECONDS, MOST_AHEAD, Leased, Machine
from paise2nb.workers.machines.messages import (
    HOME,
    Channel,
    Refusals,
    Server,
    new_name,
    redis_url,
    sender_of,
    session_key,
    setup_digest,
    shared_secret,
)
from paise2nb.workers.machines.outcomes import RELEASED, Outcomes
from paise2nb.workers.machines.versions import tasks_for

logger = logging.getLogger("paise2nb.worker")

TICK_SECONDS = 0.5
RENEW_SECONDS = 1.0  # between two renewals of the key that names this home
GAP_SECONDS = 2.0  # a longer pause of this process is none of the machines
SILENT_SECONDS = 2.0  # after which a machine gets no more jobs until it is heard again
RECALL_SECONDS = 2.0  # after which a job that has not begun goes to another machine
AWAKE_SECONDS = 1.5  # a machine that was not heard for longer may have begun its jobs
CHECK_SECONDS = 0.4  # between two checks of that: its host waits for at most 3 seconds


class Relay:
    """The relay of one job store.

    Args:
        parts: The parts of the app at home.
        lasts: Whether to go on; called often.

    Raises:
        WorkersError: The server does not answer, may delete messages, or has another home.
        SettingsError: The messages must be signed, and there is no secret.
    """

    def __init__(self, parts: Parts, lasts: Callable[[], bool]) -> None:
        self._parts = parts
        self._home = HomeParts(parts)
        self._sender = Sender(parts.cache)
        self._store = parts.job_store
        self._lasts = lasts
        self._settings = parts.settings.task_queue.redis
        url = redis_url(self._settings)
        self._secret = shared_secret(self._settings.secret, url)
        self._server = Server(url)
        self._server.require_noeviction()
        self._nonce = new_name()
        self._refusals = Refusals()
        self._budget = self._settings.blob_mb * 1_000_000  # of all machines together
        self._collection = self._store.collection()
        self._channels: dict[str, Channel] = {}  # of machines, those that were lost included
        self._outgoing: list[tuple[str, bytes]] = []  # with their receivers
        self._machines: dict[str, Machine] = {}
        self._incoming: deque[bytes] = deque()
        self._ended: list[tuple[Machine, str, Outcome]] = []  # with their tokens
        self._outcomes = Outcomes(parts, lambda *ended: self._ended.append(ended))
        self._key = HomeKey(
            self._server, self._settings.name, self._store.path, self._collection, self._nonce,
            self._settings.lease,
        )  # fmt: skip
        self._listener = Listener(self._store.path, "relay")
        self._notifier = Notifier(self._store.path)
        self._renewed_at = self._checked_at = self._stepped_at = time.monotonic()
        self._read_plugins()
        self._renew()
        self._load()

    def run(self) -> None:
        """Relay until told to end. Machines keep their jobs."""
        threading.Thread(target=self._read_always, daemon=True).start()
        while self._lasts():
            self._listener.wait(TICK_SECONDS)
            if not self._lasts():  # the next relay, which may have begun, would not know the claims
                break
            try:
                self._step()
            except self._server.errors as error:
                logger.warning("Redis can't be reached: %s", type(error).__name__)
                self._grant()
                time.sleep(TICK_SECONDS)
            except StorageError:
                logger.exception("the job store can't be used now")
                time.sleep(TICK_SECONDS)
        with suppress(*self._server.errors):
            self._key.delete()
        self._listener.close()
        self._notifier.close()

    def _renew(self) -> None:
        self._key.renew(waits=bool(self._tasks) and self._store.claimable(self._tasks))

    def _load(self) -> None:
        """Know the leases that an earlier relay has given. Each machine gets a full lease."""
        now = time.monotonic()
        for row in self._store.machines():
            name = row["name"]
            self._channels[name] = self._channel(name)
            self._machines[name] = self._new_machine(row["id"], row["host"], name, now)
        self._adopt()

    def _adopt(self) -> None:
        """Know the leases of an earlier relay, which may have claimed while this one began."""
        machines, now = {each.row: each for each in self._machines.values()}, time.monotonic()
        ended = {token for _, token, _ in self._ended}
        for row in self._store.leases():
            machine, token = machines.get(row["machine"]), row["token"]
            if machine is not None and token not in machine.leases and token not in ended:
                # Messages of an earlier session can't be read any more: they count as read.
                lease = Leased(0, now, row["pool"], bool(row["isolated"]), bool(row["started"]))
                machine.leases[token] = lease

    def _new_machine(self, row: int, host: str, name: str, now: float) -> Machine:
        machine = Machine(row, host, now, self._channel(name))
        machine.receiver = Receiver(
            lambda key, offset: self._send(machine, "want", [key, offset]),
            lambda key, data: self._outcomes.keep(machine, key, data),
            self._budget,
        )
        return machine

    def _channel(self, name: str) -> Channel:
        if (known := self._channels.get(name)) is not None:
            return known
        key = session_key(self._secret, self._collection, self._nonce, name)
        return Channel(key, self._collection, HOME, name)

    def _grant(self) -> None:
        """Give each machine a full lease: it was this process that heard nothing."""
        now = time.monotonic()
        for machine in self._machines.values():
            machine.heard_at = now
            for lease in machine.leases.values():
                lease.given_at = now

    def _read_always(self) -> None:
        mailbox = self._server.mailbox(self._collection, HOME)
        while True:
            try:
                data = mailbox.dequeue()
            except self._server.errors:
                time.sleep(TICK_SECONDS)
                continue
            if data is not None:
                self._incoming.append(data)
                self._listener.wake()

    # One round ---------------------------------------------------------------------------------

    def _step(self) -> None:
        now = time.monotonic()
        if now - self._stepped_at > GAP_SECONDS:
            self._grant()
        self._stepped_at = now
        while self._incoming:
            try:
                self._receive(self._incoming.popleft())
            except (LookupError, TypeError, ValueError, AttributeError):
                logger.exception("a message of a machine can't be used")
        if now - self._renewed_at > RENEW_SECONDS:
            self._renewed_at = now
            self._read_plugins()
            self._renew()
            self._watch()
        if now - self._checked_at > CHECK_SECONDS:
            self._checked_at = now
            self._take_back(now)
        self._exchange(now)
        self._answer_all()
        # Those that Redis does not take are lost, which both sides can tell.
        outgoing, self._outgoing = self._outgoing, []
        self._server.deliver(self._collection, outgoing)

    def _watch(self) -> None:
        """Learn what a user wants, and how much each machine can take."""
        self._adopt()
        cancelled = self._store.leases_cancelled()
        stopping = {row["name"] for row in self._store.machines() if row["state"] == "stopping"}
        for machine in self._machines.values():
            machine.receiver.budget = self._budget // len(self._machines)
            machine.receiver.step()
            machine.cancel = cancelled & machine.leases.keys()
            machine.stop = machine.name in stopping
            machine.ahead = min(max(AHEAD, int(machine.ended * AHEAD_SECONDS)), MOST_AHEAD)
            machine.ended = 0
        self._store.take_unused_slots(self._tasks)

    def _take_back(self, now: float) -> None:
        """Take jobs back: of silent machines, and those that did not begin."""
        for machine in list(self._machines.values()):
            if now - machine.heard_at > self._settings.lease:
                self._lose(machine, "has been silent")
                continue
            leases = machine.leases.items()  # in the order of their claims
            old = takewhile(lambda each: now - each[1].given_at > RECALL_SECONDS, leases)
            for token in [
                t for t, x in old if not (x.started or x.isolated or t in machine.pending)
            ]:
                self._release(machine, token)
                machine.drop.append(token)

    def _lose(self, machine: Machine, why: str) -> None:
        policies = self._store.get(CRASH_POLICIES)

        def decide(row: dict[str, Any], alone: bool) -> Outcome:
            if not row["started"] or machine.about.get("leaves"):
                return RELEASED
            reason = f"its machine {machine.host} was lost while it ran"
            if alone and row["isolated"]:
                return charge_crash(self._parts.settings, row, "crashed", reason, policies)
            return Outcome("released", "queued", error_class="lost", error=reason, isolated=True)

        # What the machine did not say to wait may have begun, and may be what ended it.
        self._store.leases_started([t for t, x in machine.leases.items() if not x.waits])
        jobs = self._store.lose_machine(machine.row, decide)
        logger.warning("machine %s %s; its jobs %s return", machine.host, why, jobs)
        del self._machines[machine.name]
        self._notifier.notify()
        self._server.mailbox(self._collection, machine.name).flush_queue()

    def _release(self, machine: Machine, token: str) -> None:
        """Take a job back. If its machine is silent, it may have begun: see `_lose`."""
        lease, missed = machine.leases.pop(token), time.monotonic() - machine.heard_at
        is_silent = machine.heard_at < lease.given_at or missed > AWAKE_SECONDS
        self._ended.append((machine, token, replace(RELEASED, isolated=is_silent)))

    def _read_plugins(self) -> None:
        """Find the tasks that run anywhere, by pool, with their limits; and which are brief."""
        self._parts.plugins.refresh()
        self._pools: dict[str, dict[str, Limits]] = {}
        for task, limits in self._parts.limits().items():
            if self._parts.plugins.tasks[task].runs == "anywhere":
                self._pools.setdefault(self._parts.pool_of(task), {})[task] = limits
        self._tasks = [task for tasks in self._pools.values() for task in tasks]
        brief = (name for pool in self._pools for name in self._parts.brief_tasks(pool))
        self._brief = frozenset(brief)

    def _exchange(self, now: float) -> None:
        """Write the outcomes that came, and claim jobs for the free threads."""
        ended, self._ended = self._ended, []
        for machine, token, _ in ended:  # first, because their threads are free
            machine.leases.pop(token, None)
        machines = {
            machine.row: machine
            for machine in self._machines.values()
            if now - machine.heard_at < SILENT_SECONDS
        }
        capacities = [c for m in machines.values() if (c := m.capacity(self._brief))]
        waits = capacities and self._tasks and self._store.claimable(self._tasks)
        if not (ended or waits):
            return
        try:
            accepted, leases = self._store.exchange(
                [each[1:] for each in ended], self._pools, capacities, self._home.logins
            )
        except StorageError:
            self._ended = ended  # for the next round
            raise
        for machine, token, _ in ended:
            machine.acknowledge(token)
            machine.ended += 1
        if any(outcome.followups for _, token, outcome in ended if token in accepted):
            self._notifier.notify()
        for lease in leases:
            machine, claim = machines[lease.machine], lease.claim
            machine.leases[lease.token] = Leased(
                lease.sequence, now, claim.pool, bool(claim.isolated)
            )
            machine.given.append(lease)

    # Messages ----------------------------------------------------------------------------------

    def _send(self, machine: Machine, kind: str, body: Any) -> None:
        self._outgoing.append((machine.name, machine.channel.seal(kind, body)))

    def _receive(self, data: bytes) -> None:
        """Take one message. An altered, repeated or crafted one is refused."""
        try:
            name = sender_of(data)
        except ValueError:
            self._refusals.log("a sender without a name")
            return
        channel = self._channel(name)
        message = channel.accept(data)
        if message is None:
            self._refusals.log(f"machine {name}")
            return
        self._channels[name] = channel  # now that the sender is known to have the secret
        kind, body = message
        machine = self._machines.get(name)
        if machine is None:
            if kind != "beat" or body.get("leaves"):
                return
            row = self._store.put_machine(name, self._values(body, None))
            machine = self._machines[name] = self._new_machine(
                row, body["host"], name, time.monotonic()
            )
            logger.info("machine %s (pid %s) has joined", body["host"], body["pid"])
        machine.heard_at = time.monotonic()
        match kind:
            case "beat":
                machine.beat = channel.received
                self._take_beat(machine, body)
            case "report":
                self._take_started(machine, body["started"])
                self._outcomes.take(machine, body["outcomes"])
            case "part":
                machine.receiver.receive(body)
                machine.receiver.step()
            case "want":
                self._send(machine, "part", self._sender.part(*body))
            case "ask":
                value = self._home.reply(body["kind"], body["body"])
                self._send(machine, "reply", {"name": body["name"], "value": value})

    def _values(self, beat: dict[str, Any], problem: str | None) -> dict[str, Any]:
        about = {name: beat[name] for name in ("version", "pools")}
        return {"host": beat["host"], "pid": beat["pid"], "about": about, "problem": problem}

    def _take_beat(self, machine: Machine, beat: dict[str, Any]) -> None:
        machine.about = beat
        known, version = beat["plugins"], beat["version"]
        tasks, problem = (
            ([], None) if known is None else tasks_for(self._parts.plugins, version, known)
        )
        machine.tasks = frozenset(tasks)
        self._store.put_machine(machine.name, self._values(beat, beat["problem"] or problem))
        if not (beat["held"].keys() | beat["outcomes"].keys()) <= machine.leases.keys():
            self._adopt()  # before they are dropped: an earlier relay may have given them just now
        self._take_started(machine, [token for token, begun in beat["held"].items() if begun])
        for token, lease in machine.leases.items():
            lease.waits = beat["held"].get(token) == 0
        self._outcomes.take(machine, beat["outcomes"])
        for token, lease in list(machine.leases.items()):
            known = token in beat["held"] or token in beat["outcomes"]
            if lease.sequence <= beat["read"] and not known:
                self._release(machine, token)  # its message was lost
        machine.drop += [token for token in beat["held"] if token not in machine.leases]
        for token, progress in beat["progress"].items():
            found = machine.leases.get(token)
            if found is not None and found.progress != progress:
                found.progress = progress
                self._store.progress_of(token, *progress)
        machine.answer = "beat"
        if beat.get("leaves"):
            self._exchange(time.monotonic())
            self._lose(machine, "has left")

    def _take_started(self, machine: Machine, tokens: list[str]) -> None:
        new = [t for t in tokens if t in machine.leases and not machine.leases[t].started]
        for token in new:
            machine.leases[token].started = True
        if new:
            self._store.leases_started(new)

    def _answer_all(self) -> None:
        """Answer heartbeats and outcomes, and send the new claims."""
        for machine in self._machines.values():
            due = machine.answer or machine.cancel or machine.stop or machine.drop or machine.given
            if not (due and machine.about):  # there is no heartbeat yet since this relay began
                continue
            body: dict[str, Any] = {
                "acknowledged": machine.acknowledged,
                "drop": machine.drop,
                "cancel": list(machine.cancel),
                "stop": machine.stop,
                "lease": self._settings.lease,
                "beat": machine.beat,
                "jobs": list(self._given(machine)),
            }
            if machine.answer == "beat":
                accepts = machine.about["accepts_plugins"]
                setup = self._home.setup(self._pools, accepts_plugins=accepts)
                if machine.about["setup"] != setup_digest(setup):
                    body["setup"] = setup
            self._send(machine, "answer", body)
            machine.acknowledged, machine.drop, machine.answer = [], [], ""
            machine.cancel, machine.stop, machine.given = set(), False, []

    def _given(self, machine: Machine) -> Iterator[list[Any]]:
        """The new claims for a machine, with what they need."""
        # As if each job that has not begun had come with as many bytes as may go along.
        waiting = sum(not lease.started for lease in machine.leases.values())
        room = machine.receiver.budget - PART * (waiting - 1)
        for token, _, claim, limits, _ in machine.given:
            try:
                given = [token, claim, limits, self._home.extras(claim, machine.brought, room)]
            except (LookupError, TypeError, ValueError):  # damaged arguments
                at_home = Outcome("released", "queued", error_class=HOME_ONLY)
                self._ended.append((machine, token, at_home))
            else:
                machine.leases[token].sequence = machine.channel.sent + 1
                yield given
