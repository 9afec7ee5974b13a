"""From claim to outcome, each in one transaction; an outcome and the next claim together in one.

A row has ``ready`` (1: may be claimed now) beside its state, so that claims read one small index
whatever else the table holds. ``run`` counts executions and is the fencing token of a claim: an
outcome is accepted only from the execution that the row still names.
"""

import json
import sqlite3
from collections.abc import Collection, Iterable, Mapping, Sequence
from functools import cache
from operator import itemgetter
from typing import Any

from paise2nb.jobs.crawls import CrawlMixin
from paise2nb.jobs.database import Transaction, transaction
from paise2nb.jobs.enqueue import EnqueueMixin
from paise2nb.jobs.history import execution
from paise2nb.jobs.host_limits import HAS_SLOT, WAITING
from paise2nb.jobs.models import UNFINISHED, Claim, Limits, NewJob, Outcome, Wanted, Worker
from paise2nb.jobs.sql import SQL

UNUSED_SECONDS = 1.0  # for which a free slot is left to the pool that it was given to
MOST_AHEAD = 64  # extractions that wait before fetches without a host's delay wait, too
# Jobs of a short task that one worker claims at once: the lines "drain" of tests.benchmarks.queue.
IN_TURN = 2
PROMOTED_AT_ONCE = 1000  # due jobs made ready by one claim: bounds its time
_ORDER = itemgetter("rank", "tree", "id")


@cache  # Each claim of a worker is for the same tasks: the lines "drain" of tests.benchmarks.queue.
def _as_json(names: tuple[str, ...]) -> str:
    return json.dumps(names)


def _fetches_only(tasks: Collection[str]) -> bool:
    return "fetch" in tasks and "extract" not in tasks


def _without_fetch(tasks: Iterable[str]) -> tuple[str, ...]:
    return tuple(name for name in tasks if name != "fetch")


class ExecutionMixin(EnqueueMixin, CrawlMixin):
    """The methods of an execution."""

    def claimable(self, tasks: Sequence[str]) -> bool:
        """Whether a claim of these tasks may find a job. Takes no lock."""
        tasks, now = tuple(tasks), self.now()
        if self.is_ahead(tasks):
            if self.host_delay and self._read(SQL["next_with_slot"], (_as_json(tasks), "[0, 1]")):
                return True
            tasks = _without_fetch(tasks)
        return bool(self._read(SQL["claimable"], (_as_json(tasks), now)))

    def is_ahead(self, tasks: Sequence[str]) -> bool:
        """Whether a worker for these tasks would fetch pages long before they are extracted.

        Then it fetches only from hosts with a delay, which would lose time. Otherwise fetches
        without a delay, of files above all, would take processor time from the extractions, and
        be done long before the first pages are searchable. A worker that extracts, too, finishes
        what was begun first: see `_claim`.
        """
        return _fetches_only(tasks) and bool(self._read(SQL["is_ahead"], (MOST_AHEAD,)))

    def take_unused_slots(self, tasks: Sequence[str]) -> bool:
        """Give jobs of these tasks the slots of jobs of other tasks that no worker claims.

        The workers of the other tasks are busy, or there are none. Takes no lock if there are no
        such slots.

        Returns:
            Whether a job has got a slot.
        """
        parameters = {"tasks": json.dumps(tasks), "limit": PROMOTED_AT_ONCE}
        parameters["free_since"] = self.now() - UNUSED_SECONDS
        return bool(self._read(SQL["unused_slots"], parameters)) and self._preempt(parameters)

    @transaction
    def _preempt(self, tx: Transaction, parameters: dict[str, Any]) -> bool:
        unused = tx.execute(SQL["unused_slots"], parameters).fetchall()
        given = [tx.host_limits.preempt(row["next_id"], row["host"]) for row in unused]
        return any(given)

    # Claims ----------------------------------------------------------------------------------

    def _claim(
        self,
        tx: Transaction,
        worker: Worker,
        limits: Mapping[str, Limits],
        *,
        tree: int | None = None,
        page: int | None = None,
        beside: Collection[str] | None = None,
    ) -> Claim | None:
        """Claim the next job: the one with the highest priority, then the oldest.

        Between tasks the job of the oldest page is first (of the oldest root, if it is part of no
        page), so that what was begun is finished first.

        Args:
            worker: only one that runs jobs alone gets those that must; one that was declared dead
                gets none.
            limits: the tasks to choose from, each with the limits of one execution.
            tree: only jobs of the tree below this job.
            page: of these only this job and, if it is a page, its parts.
            beside: the tasks with jobs that may run beside others, if others run in the process.
        """
        now = self.now()
        while True:
            if tree is None:
                found = self._next(tx, worker, limits, now)
            else:
                found = self._next_in_tree(tx, tree, page, limits, now)
            if found is None:
                return None
            if not tx.host_limits.is_crowded(found["host"]):
                break
            tx.host_limits.send_back(found["id"])
            tx.host_limits.release(found["host"], waited=-1)
        if beside is not None and (found["task"] not in beside or found["isolated"]):
            return None
        limit = limits.get(found["task"], Limits(None, None))
        return self._start(tx, worker, found, (now, *limit))

    claim = transaction(_claim)

    @staticmethod
    def _start(
        tx: Transaction, worker: Worker, found: sqlite3.Row, values: tuple[object, ...]
    ) -> Claim | None:
        """Give a job to a worker. The values are the time and the limits."""
        ids = (found["id"], worker.id, worker.id, worker.pool)
        row = tx.execute(SQL["claim"], (worker.pool, worker.id, worker.pid, *values, *ids))
        if (columns := row.fetchone()) is None:
            return None
        claim = Claim(*columns)
        tx.counters.move(found["state"], "running", claim.is_root, claim.page_id)
        return claim

    def _claim_several(self, tx: Transaction, worker: Worker, wanted: Wanted) -> list[Claim]:
        """Claim the next job and, if its task is brief or short, the next ones of that task."""
        beside = wanted.brief if wanted.beside else None
        first = self._claim(tx, worker, wanted.limits, beside=beside)
        if first is None:
            return []
        claims = [first]
        number = wanted.number if first.task in wanted.brief else 1
        # What follows from a page's job comes before the job of the next page.
        if first.task == wanted.short and first.host is None and first.page_id is None:
            number = IN_TURN
        if number > 1 and not first.isolated:
            values = first.task, first.priority, number - 1
            started = (first.started_at, *wanted.limits[first.task])
            for row in tx.execute(SQL["next_of_task"], values).fetchall():
                if claim := self._start(tx, worker, row, started):
                    claims.append(claim)
        return claims

    def _next(
        self, tx: Transaction, worker: Worker, limits: Mapping[str, Limits], now: float
    ) -> sqlite3.Row | None:
        rows = tx.execute(SQL["next_jobs"], (now,)).fetchall()
        if rows and rows[0]["due"]:
            self._promote(tx, now)
            rows = tx.execute(SQL["next_jobs"], (now,)).fetchall()
        tasks: Collection[str] = limits.keys()
        if _fetches_only(tasks) and tx.execute(SQL["is_ahead"], (MOST_AHEAD,)).fetchone():
            parameters = _as_json(tuple(tasks)), "[0, 1]" if worker.one_at_a_time else "[0]"
            with_slot: sqlite3.Row | None = None
            if self.host_delay:
                with_slot = tx.execute(SQL["next_with_slot"], parameters).fetchone()
            if with_slot is not None:
                return with_slot
            tasks = _without_fetch(tasks)
        found = [
            row
            for row in rows
            if not row["due"] and row["task"] in tasks and row["isolated"] <= worker.one_at_a_time
        ]
        return min(found, key=_ORDER, default=None)

    def _next_in_tree(
        self, tx: Transaction, tree: int, page: int | None, limits: Mapping[str, Limits], now: float
    ) -> sqlite3.Row | None:
        self._promote(tx, now)
        parameters = {"ids": f"[{tree}]", "page": page, "tasks": _as_json(tuple(limits))}
        found: sqlite3.Row | None = tx.execute(SQL["next_in_tree"], parameters).fetchone()
        if found is None:  # a job of another tree, which no worker runs, may have the slot
            waiting = tx.execute(SQL["next_waiting_in_tree"], parameters).fetchone()
            if waiting is not None and tx.host_limits.preempt(waiting["id"], waiting["host"]):
                found = tx.execute(SQL["next_in_tree"], parameters).fetchone()
        return found

    @staticmethod
    def _promote(tx: Transaction, now: float) -> None:
        """Make due jobs ready, unless they need a slot of their host first."""
        due = tx.execute(SQL["due_jobs"], {"now": now, "limit": PROMOTED_AT_ONCE}).fetchall()
        free = []
        for row in due:
            if row["host"] is None or row["host_slot"] == HAS_SLOT:
                free.append(row["id"])
            else:
                tx.host_limits.requeue(row["id"], row["host"])
        if free:
            tx.execute(SQL["make_ready"], {"ids": json.dumps(free)})

    # Outcomes --------------------------------------------------------------------------------

    @transaction
    def end_several(
        self,
        tx: Transaction,
        ended: Sequence[tuple[Claim, Outcome]],
        worker: Worker,
        wanted: Wanted | None,
    ) -> tuple[list[bool], list[Claim]]:
        """Write the outcomes of several executions, and claim the next jobs.

        Returns:
            Whether each outcome was accepted, as by `end`, and the next claims.
        """
        accepted = [self._end(tx, *each) for each in ended]
        claims = self._claim_several(tx, worker, wanted) if wanted and wanted.limits else []
        return accepted, claims

    def _end(self, tx: Transaction, claim: Claim, outcome: Outcome) -> bool:
        """Write the outcome of an execution with its follow-up jobs.

        Returns:
            Whether it was accepted. It is refused if the job was cancelled or given to another
            worker in the meantime.
        """
        now = self.now()
        outcome = self._write_plugin_state(tx, claim, outcome)
        token = (claim.id, claim.run, claim.started_at)
        row = tx.execute(SQL["end"], (*_row_after(claim, outcome, now), *token)).fetchone()
        if row is None:
            left = tx.execute(SQL["leave_cancelled"], claim._asdict()).fetchone()
            if left is not None:
                self._release_slot(tx, claim, outcome, left["state"], claim.host)
            return False
        state = outcome.state
        if outcome.outcome != "snoozed":
            tx.ended.append(execution(claim, outcome, now))
        # The row's interval: a user may have set one, or another one, since the claim.
        recurs = row["interval"] and state in ("completed", "failed")
        # The row of a completed job describes its last execution; a snoozed one goes on.
        if recurs or (state != "completed" and outcome.outcome != "snoozed"):
            self._record_attempt(tx, claim, outcome, now)
        if recurs:
            state = "scheduled"
            tx.execute(SQL["schedule_again"], {**claim._asdict(), "now": now})
        tx.counters.move("running", state, claim.is_root, claim.page_id)
        self._release_slot(tx, claim, outcome, state, outcome.host or claim.host)
        pages = self._new_pages(tx, claim, outcome.found) if outcome.found else []
        if outcome.found and len(pages) < len(outcome.found.jobs):
            tx.execute(SQL["count_new"], (len(pages), claim.id))
        self._add_followups(tx, claim, [*outcome.followups, *pages])
        return True

    end = transaction(_end)

    @transaction
    def add_followups(self, tx: Transaction, claim: Claim, jobs: Sequence[NewJob]) -> bool:
        """Add follow-up jobs of an execution before it ends.

        Returns:
            Whether the execution still has the job. If not, nothing is added.
        """
        if tx.execute(SQL["is_running"], (claim.id, claim.run)).fetchone() is None:
            return False
        self._add_followups(tx, claim, jobs)
        return True

    def _add_followups(self, tx: Transaction, claim: Claim, jobs: Sequence[NewJob]) -> None:
        if jobs:
            last, counted, _ = tx.ids()
            self._insert(tx, jobs, last, counted, claim)

    @staticmethod
    def _write_plugin_state(tx: Transaction, claim: Claim, outcome: Outcome) -> Outcome:
        """Write what an execution has changed in its plugin's state, if it still has the job.

        Returns:
            The outcome; a release if another job has changed a value that this one has read.
        """
        entries = outcome.state_entries
        if not entries or not tx.execute(SQL["is_running"], (claim.id, claim.run)).fetchone():
            return outcome
        for plugin, key, _, version, _ in entries:
            row = tx.execute(SQL["plugin_state"], (plugin, key)).fetchone()
            if version is not None and version != (row["version"] if row else 0):
                reason = f"another job has changed the state {key!r} of {plugin} meanwhile"
                return Outcome("released", "queued", error_class="state", error=reason)
        tx.executemany(
            SQL["write_plugin_state"],
            [(plugin, key, value) for plugin, key, value, _, written in entries if written],
        )
        return outcome

    @staticmethod
    def _release_slot(
        tx: Transaction, claim: Claim, outcome: Outcome, state: str, host: str | None
    ) -> None:
        """Release the slot of an execution. If its job is queued again, it needs another one."""
        tx.host_limits.record(outcome.host_delays)
        if claim.host is not None:
            tx.host_limits.release(claim.host, began=claim.started_at)
        if host is not None and state == "queued":
            tx.host_limits.requeue(claim.id, host)

    @staticmethod
    def _record_attempt(tx: Transaction, claim: Claim, outcome: Outcome, now: float) -> None:
        values = {**claim._asdict(), **vars(outcome), "finished_at": now}
        tx.execute(SQL["record_attempt"], values)

    @transaction
    def refund(self, tx: Transaction, claims: Iterable[Claim]) -> list[Claim]:
        """Queue these jobs again, uncharged: an outage caused their failures.

        Returns:
            Those that failed and for which that is not written yet.
        """
        unwritten = []
        for claim in claims:
            token = (claim.id, claim.run)
            refunded = tx.execute(SQL["refundable_attempt"], token).fetchone()
            if refunded:
                tx.execute(SQL["refund_attempt"], token)
                failed_at, error, state = refunded
                tx.ended.append(
                    execution(claim, Outcome("failed", state, None, error), failed_at, -1)
                )
                tx.ended.append(execution(claim, Outcome("released", "queued"), failed_at))
            row = tx.execute(SQL["refundable"], token).fetchone()
            if row is None:
                continue
            if not refunded and row["state"] == "running":
                unwritten.append(claim)
            elif refunded and row["state"] in ("retrying", "failed"):
                tx.counters.move(row["state"], "queued", claim.is_root, claim.page_id)
                tx.execute(SQL["refund_job"], (self.now(), claim.id))
                if row["host"] is not None:
                    tx.host_limits.release(row["host"], waited=row["host_slot"] == WAITING)
                    tx.host_limits.requeue(claim.id, row["host"])
        return unwritten


def _row_after(claim: Claim, outcome: Outcome, now: float) -> tuple[object, ...]:
    """The values that the end of an execution writes into the row of its job."""
    snoozed = outcome.outcome == "snoozed"
    charged = outcome.outcome != "released" and not snoozed
    crashed = outcome.outcome in ("crashed", "timeout", "memory")
    starts_over = outcome.state == "queued" and charged
    goes_on = not charged and outcome.error_class is None
    retry_at = now + (outcome.retry_in or 0) if outcome.state == "retrying" else None
    return (
        outcome.state,
        outcome.state == "queued",
        retry_at,
        snoozed,
        0 if starts_over else claim.attempt - (not charged),
        0 if starts_over else claim.crashes + crashed,
        outcome.max_attempts,
        None if outcome.state in UNFINISHED else now,
        outcome.result,
        goes_on,
        outcome.error_class,
        goes_on,
        outcome.error,
        outcome.isolated,
        outcome.host,
        outcome.resume,
        now if outcome.state == "queued" and not snoozed else retry_at,  # can be started since then
    )
