"""The job store: every change of state, what is refused, crashes and random histories."""

from __future__ import annotations

import json
import os
import sqlite3
import subprocess
import sys
import tempfile
import threading
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, rule

from paise2nb.jobs.batch import BatchFile, execution_key
from paise2nb.jobs.execution import PROMOTED_AT_ONCE
from paise2nb.jobs.host_limits import HAS_SLOT, UNPACED_SLOTS, WAITING
from paise2nb.jobs.models import (
    STATES,
    UNFINISHED,
    Claim,
    Found,
    HostDelay,
    Limits,
    Link,
    NewJob,
    Outcome,
    Wanted,
    Worker,
)
from paise2nb.jobs.store import JobStore
from tests.job_stores import end_and_claim

LIMITS = {"work": Limits(60, 512)}
HOSTS = st.sampled_from([None, "a", "b"])
DUE = 1e-9  # seconds: a delay that is over at once

COMPLETED = Outcome("completed", "completed", result='"done"')
RETRYING = Outcome("failed", "retrying", None, "timeout", "too slow", "Traceback …", retry_in=3600)
FAILED = Outcome("failed", "failed", None, "http_4xx", "404 Not Found", "Traceback …")
CRASHED = Outcome("crashed", "retrying", None, "crash", "died", retry_in=3600)
RELEASED = Outcome("released", "queued")
SNOOZED = Outcome("snoozed", "queued", host="b", resume='["x", "y"]')


@pytest.fixture
def store(tmp_path: Path) -> Iterator[JobStore]:
    store = JobStore(tmp_path / "tasks.db", durable=False)
    yield store
    store.close()


@pytest.fixture
def worker(store: JobStore) -> Worker:
    return store.register("default", 1)


def new(key: int | None = None, **values: Any) -> NewJob:
    return NewJob("work", '["x"]', 4, key, **values)


def add(store: JobStore, *jobs: NewJob) -> list[int]:
    return [job_id for job_id, _ in store.add(jobs or [new()]).answers]


def take(store: JobStore, worker: Worker) -> Claim:
    claim = store.claim(worker, LIMITS)
    assert claim is not None
    return claim


def test_a_tree_that_has_begun_is_finished_before_another_begins(
    store: JobStore, worker: Worker
) -> None:
    limits = {"begin": Limits(60, 512), "end": Limits(60, 512)}
    first, second = add(store, *(NewJob("begin", f"[{n}]", 4) for n in range(2)))
    claim = store.claim(worker, limits)
    order = []
    while claim is not None:
        order.append((claim.task, claim.root_id))
        followups = [NewJob("end", "[]", 4)] if claim.task == "begin" else []
        outcome = Outcome("completed", "completed", followups=followups)
        _, claim = end_and_claim(store, claim, outcome, worker, limits)
    assert order == [("begin", first), ("end", first), ("begin", second), ("end", second)]


def row_of(store: JobStore, job_id: int) -> dict[str, Any]:
    return store.rows([job_id])[job_id]


def state_of(store: JobStore, job_id: int) -> str:
    state: str = row_of(store, job_id)["state"]
    return state


def late_claim(store: JobStore, job_id: int) -> Claim:
    """The claim that the last execution of a job had, or would have had."""
    row = row_of(store, job_id)
    row["args"] = json.dumps(row["args"])
    return Claim(*(row[name] for name in Claim._fields))


def job_in(store: JobStore, worker: Worker, state: str) -> int:
    """A job that has reached a state in the usual way."""
    delays = {"scheduled": 3600.0, "scheduled, due": DUE}
    [job_id] = add(store, new(delay=delays.get(state)))
    if state == "cancelled":
        store.cancel([job_id])
    outcomes = {
        "retrying": RETRYING,
        "retrying, due": Outcome("failed", "retrying", None, "timeout", "too slow", retry_in=0),
        "completed": COMPLETED,
        "failed": FAILED,
    }
    if state == "running" or state in outcomes:
        claim = take(store, worker)
        if state in outcomes:
            assert store.end(claim, outcomes[state])
    assert state_of(store, job_id) == state.partition(",")[0]
    return job_id


def real_counts(store: JobStore) -> tuple[dict[str, int], dict[str, int]]:
    """The numbers of jobs by state, counted from the rows."""
    rows = store.database.read(
        "SELECT state, count(*) AS jobs, sum(parent_id IS NULL) AS roots FROM jobs GROUP BY state"
    )
    counted = {row["state"]: row for row in rows}
    return (
        {state: counted[state]["jobs"] if state in counted else 0 for state in STATES},
        {state: counted[state]["roots"] if state in counted else 0 for state in STATES},
    )


# The table of states ---------------------------------------------------------------------------

ALL_STATES = (*STATES, "scheduled, due", "retrying, due")
OUTCOMES = {
    "success": (COMPLETED, "completed"),
    "a retryable error": (RETRYING, "retrying"),
    "the last attempt": (FAILED, "failed"),
    "a crash": (CRASHED, "retrying"),
    "a time limit": (Outcome("timeout", "retrying", None, "timeout", retry_in=9), "retrying"),
    "too much memory": (Outcome("memory", "failed", None, "memory"), "failed"),
    "a release": (RELEASED, "queued"),
}


@pytest.mark.parametrize("state", ALL_STATES)
def test_a_claim_takes_a_queued_or_due_job(store: JobStore, worker: Worker, state: str) -> None:
    job_id = job_in(store, worker, state)
    before = row_of(store, job_id)
    assert store.claimable(["work"]) == (state in ("queued", "scheduled, due", "retrying, due"))
    claim = store.claim(worker, LIMITS)
    if state in ("queued", "scheduled, due", "retrying, due"):
        assert claim is not None
        assert (claim.id, claim.run) == (job_id, before["run"] + 1)
        after = row_of(store, job_id)
        assert after["state"] == "running"
        assert (after["worker_pid"], after["attempt"]) == (os.getpid(), before["attempt"] + 1)
        assert (after["timeout"], after["memory_mb"]) == LIMITS["work"]
    else:
        assert claim is None
        assert row_of(store, job_id) == before


@pytest.mark.parametrize("state", ALL_STATES)
@pytest.mark.parametrize("kind", OUTCOMES)
def test_an_outcome_is_accepted_from_a_running_job_only(
    store: JobStore, worker: Worker, state: str, kind: str
) -> None:
    job_id = job_in(store, worker, state)
    before = row_of(store, job_id)
    attempts = store.attempts(job_id)
    outcome, expected = OUTCOMES[kind]
    followed = Outcome(**{**vars(outcome), "followups": [new()]})
    accepted = store.end(late_claim(store, job_id), followed)
    assert accepted == (state == "running")
    if accepted:
        assert state_of(store, job_id) == expected
        assert store.attempts(job_id)[-1]["outcome"] == outcome.outcome
        assert len(store.children(job_id)) == 1
    else:
        assert row_of(store, job_id) == before
        assert store.attempts(job_id) == attempts
        assert store.children(job_id) == []
    assert store.counts() == real_counts(store)


@pytest.mark.parametrize("state", ALL_STATES)
def test_only_unfinished_jobs_are_cancelled(store: JobStore, worker: Worker, state: str) -> None:
    job_id = job_in(store, worker, state)
    before = row_of(store, job_id)
    moved = store.cancel([job_id])
    if before["state"] in UNFINISHED:
        assert moved == [job_id]
        after = row_of(store, job_id)
        assert (after["state"], after["run_at"]) == ("cancelled", None)
        assert after["finished_at"] is not None
        assert store.claim(worker, LIMITS) is None
    else:
        assert moved == []
        assert row_of(store, job_id) == before
    assert store.counts() == real_counts(store)


@pytest.mark.parametrize("state", ALL_STATES)
def test_a_retry_queues_jobs_that_failed_or_wait_for_a_time(
    store: JobStore, worker: Worker, state: str
) -> None:
    job_id = job_in(store, worker, state)
    before = row_of(store, job_id)
    history = store.attempts(job_id)
    waiting = store.retry([job_id])
    if before["state"] in ("failed", "cancelled", "retrying", "scheduled"):
        assert waiting == [job_id]
        after = row_of(store, job_id)
        assert (after["state"], after["attempt"], after["crashes"]) == ("queued", 0, 0)
        assert (after["run_at"], after["finished_at"]) == (None, None)
        assert store.attempts(job_id) == history
        assert take(store, worker).run == len(history) + 1
    else:
        assert waiting == []
        assert row_of(store, job_id) == before
    assert store.counts() == real_counts(store)


def test_a_release_is_not_charged(store: JobStore, worker: Worker) -> None:
    [job_id] = add(store)
    store.end(take(store, worker), RETRYING)
    store.retry([job_id])
    first = take(store, worker)
    store.end(first, RELEASED)
    row = row_of(store, job_id)
    assert (row["attempt"], row["run"]) == (0, 2)
    assert [a["outcome"] for a in store.attempts(job_id)] == ["failed", "released"]
    assert take(store, worker).attempt == 1


def test_every_attempt_is_kept_in_order(store: JobStore, worker: Worker) -> None:
    [job_id] = add(store)
    for outcome in (
        Outcome("failed", "retrying", None, "timeout", "slow", "Traceback A", retry_in=0),
        Outcome("crashed", "retrying", None, "crash", "died", retry_in=0),
        RELEASED,
        COMPLETED,
    ):
        store.end(take(store, worker), outcome)
    attempts = store.attempts(job_id)
    assert [a["number"] for a in attempts] == [1, 2, 3, 4]
    assert [a["outcome"] for a in attempts] == ["failed", "crashed", "released", "completed"]
    assert [a["traceback"] for a in attempts] == ["Traceback A", None, None, None]
    assert {a["worker_pid"] for a in attempts} == {os.getpid()}
    keys = "number started_at finished_at worker_pid outcome error_class error traceback retry_in"
    assert all(" ".join(a) == keys for a in attempts)
    row = row_of(store, job_id)
    assert (row["attempt"], row["crashes"], row["error"]) == (3, 1, None)


# Fencing -------------------------------------------------------------------------------------


def test_a_late_outcome_of_an_earlier_execution_is_refused(store: JobStore, worker: Worker) -> None:
    [job_id] = add(store)
    early = take(store, worker)
    store.rescue_jobs(worker.id, lambda row, only: RELEASED)
    later = take(store, store.register("default", 1))
    assert later.run == early.run + 1
    late = Outcome("completed", "completed", '"late"', followups=[new()])
    assert not store.end(early, late)
    assert state_of(store, job_id) == "running"
    assert row_of(store, job_id)["worker"] == later.worker
    assert store.end(later, COMPLETED)
    assert row_of(store, job_id)["result"] == '"done"'
    assert store.children(job_id) == []


def test_a_late_failure_of_an_earlier_execution_is_not_recorded(
    store: JobStore, worker: Worker
) -> None:
    [job_id] = add(store)
    early = take(store, worker)
    store.rescue_jobs(worker.id, lambda row, only: RELEASED)
    assert not store.end(early, FAILED)
    assert state_of(store, job_id) == "queued"
    assert [a["outcome"] for a in store.attempts(job_id)] == ["released"]


def test_progress_is_accepted_from_the_current_execution_only(
    store: JobStore, worker: Worker
) -> None:
    [job_id] = add(store)
    early = take(store, worker)
    assert store.progress(early, 1, 2)
    assert json.loads(row_of(store, job_id)["progress"]) == [1, 2]
    store.end(early, RELEASED)
    later = take(store, worker)
    assert row_of(store, job_id)["progress"] is None
    assert not store.progress(early, 2, 2)
    assert store.progress(later, 0.5, None)


def test_a_worker_that_was_declared_dead_gets_no_more_jobs(store: JobStore, worker: Worker) -> None:
    add(store, new(), new())
    claim = take(store, worker)
    store.rescue_jobs(worker.id, lambda row, only: RELEASED)
    assert end_and_claim(store, claim, COMPLETED, worker, LIMITS) == (False, None)
    assert store.claim(worker, LIMITS) is None
    assert store.heartbeat(worker, "ready") is False


def test_no_two_claims_get_the_same_job(store: JobStore, tmp_path: Path) -> None:
    ids = add(store, *(new() for _ in range(60)))
    taken: list[int] = []

    def work() -> None:
        own = JobStore(tmp_path / "tasks.db", durable=False)
        me = own.register("default", 1)
        while (claim := own.claim(me, LIMITS)) is not None:
            taken.append(claim.id)
            own.end(claim, COMPLETED)
        own.close()

    threads = [threading.Thread(target=work) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(taken) == ids
    assert store.counts()[0]["completed"] == 60


# Cancelling and retrying ---------------------------------------------------------------------


def test_a_cancelled_running_job_stays_claimed_until_its_run_ends(
    store: JobStore, worker: Worker
) -> None:
    [job_id] = add(store)
    claim = take(store, worker)
    store.cancel([job_id])
    assert [row["id"] for row in store.claimed()] == [job_id]
    accepted = store.end(claim, Outcome("completed", "completed", "1", followups=[new()]))
    assert not accepted
    assert store.claimed() == []
    row = row_of(store, job_id)
    assert (row["state"], row["result"]) == ("cancelled", None)
    assert store.children(job_id) == []
    assert [a["outcome"] for a in store.attempts(job_id)] == ["cancelled"]


def test_a_cancelled_job_that_is_retried_waits_for_its_run_to_end(
    store: JobStore, worker: Worker
) -> None:
    [job_id] = add(store)
    claim = take(store, worker)
    store.cancel([job_id])
    assert store.retry([job_id]) == [job_id]
    assert row_of(store, job_id)["waiting_for"] == "the cancelled run to stop"
    assert [row["id"] for row in store.claimed()] == [job_id]
    other = store.register("default", 1)
    assert store.claim(other, LIMITS) is None
    assert not store.end(claim, COMPLETED)
    again = take(store, other)
    assert (again.id, again.run) == (job_id, 2)
    assert row_of(store, job_id)["waiting_for"] is None
    assert store.counts() == real_counts(store)


def test_a_cancelled_job_that_is_retried_may_start_when_its_worker_has_died(
    store: JobStore, worker: Worker
) -> None:
    [job_id] = add(store)
    take(store, worker)
    store.cancel([job_id])
    store.retry([job_id])
    store.rescue_jobs(worker.id, lambda row, only: RELEASED)
    assert take(store, store.register("default", 1)).id == job_id


def test_all_descendants_are_cancelled_as_well(store: JobStore, worker: Worker) -> None:
    [root] = add(store)
    store.end(take(store, worker), Outcome("completed", "completed", followups=[new(), new()]))
    first, second = store.children(root)
    store.end(take(store, worker), Outcome("completed", "completed", followups=[new(delay=60)]))
    [grandchild] = store.children(first)
    [unrelated] = add(store)
    assert store.cancel([root]) == [second, grandchild]
    states = [state_of(store, i) for i in (root, first, second, grandchild, unrelated)]
    assert states == ["completed", "completed", "cancelled", "cancelled", "queued"]
    assert store.counts() == real_counts(store)


def test_a_retry_returns_the_unfinished_twin(store: JobStore, worker: Worker) -> None:
    [old] = add(store, new(7))
    store.end(take(store, worker), FAILED)
    [twin] = add(store, new(7))
    assert store.retry([old]) == [twin]
    assert state_of(store, old) == "failed"


@pytest.mark.parametrize("first", ["failed", "cancelled"])
def test_of_two_twins_that_are_retried_together_one_is_queued(
    store: JobStore, worker: Worker, first: str
) -> None:
    [one] = add(store, new(7))
    if first == "failed":
        store.end(take(store, worker), FAILED)
    else:
        store.cancel([one])
    [two] = add(store, new(7))
    store.end(take(store, worker), FAILED)
    assert store.retry([one, two]) == [one, one]
    assert [state_of(store, i) for i in (one, two)] == ["queued", "failed"]
    assert store.counts() == real_counts(store)


def test_a_thousand_failed_jobs_are_retried_at_once(store: JobStore) -> None:
    ids = add(store, *(new(key) for key in range(1000)))
    store.cancel(ids)
    assert store.retry(ids) == ids
    assert store.counts()[0]["queued"] == 1000


# Adding --------------------------------------------------------------------------------------


@pytest.mark.parametrize("state", ALL_STATES)
def test_only_an_unfinished_twin_prevents_a_job(
    store: JobStore, worker: Worker, state: str
) -> None:
    job_id = job_in(store, worker, state)
    store.database.write(lambda c: c.execute("UPDATE jobs SET key = 7"))
    [(answered, answer)] = store.add([new(7)]).answers
    if state.partition(",")[0] in UNFINISHED:
        assert (answered, answer) == (job_id, "waiting")
    else:
        assert (answered != job_id, answer) == (True, "new")
    assert store.counts() == real_counts(store)


def test_a_completed_twin_is_checked_for_freshness(store: JobStore, worker: Worker) -> None:
    [job_id] = add(store, new(7))
    store.end(take(store, worker), Outcome("completed", "completed", '{"size": 3}'))
    checked: list[Any] = []

    def is_fresh(index: int, result: Any, age: float) -> bool:
        checked.append((index, result, age))
        return index == 1

    assert store.add([new(8), new(7)], is_fresh).answers[1] == (job_id, "fresh")
    assert [(index, result) for index, result, _ in checked] == [(1, {"size": 3})]
    assert 0 <= checked[0][2] <= store.now() - row_of(store, job_id)["finished_at"]
    assert store.add([new(7)], is_fresh).answers[0][1] == "new"


def test_without_is_fresh_only_an_unfinished_job_is_a_duplicate(
    store: JobStore, worker: Worker
) -> None:
    add(store, new(7))
    store.end(take(store, worker), COMPLETED)
    [(forced, answer)] = store.add([new(7)]).answers
    assert answer == "new"
    assert store.add([new(7)]).answers == [(forced, "waiting")]


def test_many_jobs_are_answered_in_order_and_their_own_twins_are_found(store: JobStore) -> None:
    [waiting] = add(store, new(1))
    answers = store.add([new(2), new(1), new(2), new(), new()]).answers
    first = answers[0][0]
    assert [answer for _, answer in answers] == ["new", "waiting", "waiting", "new", "new"]
    assert answers[1][0] == waiting
    assert answers[2][0] == first
    assert len({job_id for job_id, _ in answers}) == 4
    assert store.counts()[0]["queued"] == 4


def test_ids_are_never_used_twice(store: JobStore) -> None:
    ids = add(store, new(), new())
    store.clear()
    assert not set(ids) & set(add(store, new(), new()))


def test_follow_up_jobs_have_their_parent_and_root_and_are_no_roots(
    store: JobStore, worker: Worker
) -> None:
    [root] = add(store, new(tag="news"))
    store.end(take(store, worker), Outcome("completed", "completed", followups=[new()]))
    store.end(take(store, worker), Outcome("completed", "completed", followups=[new()]))
    [child] = store.children(root)
    [grandchild] = store.children(child)
    assert row_of(store, root)["root_id"] == root
    last = row_of(store, grandchild)
    assert (last["parent_id"], last["root_id"]) == (child, root)
    trees = store.trees([root, child])
    assert trees == {root: [root, child, grandchild], child: [child, grandchild]}
    jobs, roots = store.counts()
    assert (jobs["completed"], jobs["queued"]) == (2, 1)
    assert (roots["completed"], roots["queued"]) == (1, 0)


# The order of claims -------------------------------------------------------------------------


def test_claims_take_jobs_by_priority_then_age(store: JobStore, worker: Worker) -> None:
    low, first, high, second = add(
        store, new(priority=-1), new(), new(priority=5, delay=DUE), new()
    )
    assert [take(store, worker).id for _ in range(4)] == [high, first, second, low]


def test_a_due_job_keeps_its_state_until_it_is_claimed(store: JobStore, worker: Worker) -> None:
    late, early = add(store, new(delay=DUE), new(priority=9))
    assert take(store, worker).id == early  # makes the due job ready, and takes another
    row = row_of(store, late)
    assert (row["state"], row["ready"]) == ("scheduled", 1)
    assert row["run_at"] is not None
    assert store.unfinished([late]) == {late}
    assert take(store, worker).id == late


def test_a_worker_claims_only_its_tasks(store: JobStore, worker: Worker) -> None:
    add(store)
    assert not store.claimable(["other"])
    assert store.claim(worker, {"other": Limits(1, 1)}) is None
    assert store.claim(worker, {}) is None


def test_a_worker_without_tasks_claims_no_due_job(store: JobStore, worker: Worker) -> None:
    add(store, new(delay=DUE))
    assert store.claim(worker, {}) is None


def test_the_next_claim_comes_with_an_outcome(store: JobStore, worker: Worker) -> None:
    one, two = add(store, new(), new())
    accepted, next_claim = end_and_claim(store, take(store, worker), COMPLETED, worker, LIMITS)
    assert accepted
    assert next_claim is not None
    assert [state_of(store, i) for i in (one, two)] == ["completed", "running"]
    assert next_claim.id == two


def test_a_job_that_must_run_alone_is_left_to_a_single_threaded_worker(store: JobStore) -> None:
    threaded = store.register("many", 4)
    one, two = add(store, new(), new())
    take(store, threaded)
    take(store, threaded)
    only: list[bool] = []

    def decide(row: dict[str, Any], alone: bool) -> Outcome:
        only.append(alone)
        return Outcome("released", "queued", isolated=True)

    assert sorted(store.rescue_jobs(threaded.id, decide)) == [one, two]
    assert only == [False, False]
    assert store.pools_waiting_alone() == {"many"}
    assert store.claim(store.register("many", 4), LIMITS) is None
    single = store.register("many:alone", 1)
    assert [take(store, single).id, take(store, single).id] == [one, two]
    assert [row_of(store, i)["attempt"] for i in (one, two)] == [1, 1]


# Jobs that run again and again ---------------------------------------------------------------


@pytest.mark.parametrize("outcome", [COMPLETED, FAILED], ids=["completed", "failed"])
def test_a_recurring_job_is_scheduled_again_whatever_its_outcome(
    store: JobStore, worker: Worker, outcome: Outcome
) -> None:
    [job_id] = add(store, new(interval=3600.0))
    claim = take(store, worker)
    store.end(claim, outcome)
    row = row_of(store, job_id)
    assert (row["state"], row["attempt"], row["finished_at"]) == ("scheduled", 0, None)
    assert claim.started_at + 3600 <= row["run_at"] <= store.now() + 3600
    assert [a["outcome"] for a in store.attempts(job_id)] == [outcome.outcome]
    assert (row["error_class"], row["result"]) == (outcome.error_class, outcome.result)
    assert store.counts() == real_counts(store)


def test_the_next_run_of_a_recurring_job_starts_without_crashes(
    store: JobStore, worker: Worker
) -> None:
    [job_id] = add(store, new(interval=3600.0))
    for outcome in (Outcome("crashed", "retrying", None, "crash", "died", retry_in=0), COMPLETED):
        store.end(take(store, worker), outcome)
    assert row_of(store, job_id)["crashes"] == 0


def test_a_cancelled_recurring_job_does_not_come_back(store: JobStore, worker: Worker) -> None:
    [job_id] = add(store, new(interval=1.0))
    claim = take(store, worker)
    store.cancel([job_id])
    assert not store.end(claim, COMPLETED)
    assert state_of(store, job_id) == "cancelled"


# Dead workers ----------------------------------------------------------------------------------


def test_a_rescue_knows_whether_a_job_ran_alone(store: JobStore, worker: Worker) -> None:
    [job_id] = add(store)
    take(store, worker)
    seen: list[tuple[int, bool]] = []

    def decide(row: dict[str, Any], only: bool) -> Outcome:
        seen.append((row["id"], only))
        return CRASHED

    assert store.rescue_jobs(worker.id, decide) == [job_id]
    assert seen == [(job_id, True)]
    row = row_of(store, job_id)
    assert (row["state"], row["crashes"], row["worker"]) == ("retrying", 1, None)
    assert store.workers() == []
    assert store.rescue_jobs(worker.id, decide) == []


def test_a_worker_that_exits_gives_back_its_jobs(store: JobStore, worker: Worker) -> None:
    [job_id] = add(store)
    take(store, worker)
    assert [w["jobs"] for w in store.workers()] == [[job_id]]
    store.leave(worker)
    assert store.workers() == []
    row = row_of(store, job_id)
    assert (row["state"], row["attempt"]) == ("queued", 0)


# The supervisor --------------------------------------------------------------------------------


@pytest.mark.parametrize("values", [{}, {"delay": 3600.0}], ids=["ready", "scheduled"])
def test_a_supervisor_without_work_stays_for_a_job_that_has_just_come(
    store: JobStore, values: dict[str, Any]
) -> None:
    assert store.take_supervision("{}", "{}")
    add(store, new(**values))
    assert not store.leave_supervision("idle", unless_ready=True)
    store.clear()
    assert store.leave_supervision("idle", unless_ready=True)


def test_a_stop_does_not_stop_a_supervisor_that_has_just_been_started(store: JobStore) -> None:
    assert store.take_supervision("{}", "{}")
    store.stop_supervision()
    assert store.running_supervisor() is not None
    store.leave_supervision("idle", unless_ready=True)
    store.stop_supervision()
    assert (store.supervisor() or {})["state"] == "stopped"


# Queries -------------------------------------------------------------------------------------


def test_a_job_must_match_every_filter(store: JobStore, worker: Worker) -> None:
    add(store, new(tag="a"))
    store.end(take(store, worker), FAILED)
    add(store, new(tag="a"), new(tag="b"))
    store.end(take(store, worker), RETRYING)
    one, two, three = store.find()
    assert store.find(state="failed") == [one]
    assert store.find(tag="a") == [one, two]
    assert store.find(tag="a", error="timeout") == [two]
    assert store.find(task="other") == []
    assert store.find([two, three, 99], limit=1) == [two]
    assert store.find(limit=0) == []


def test_the_next_time_is_that_of_the_first_waiting_job(store: JobStore) -> None:
    assert store.next_time() is None
    assert store.next_time(["work"]) is None
    far, near = add(store, new(delay=500.0), new(delay=50.0))
    assert store.next_time() == row_of(store, near)["run_at"]
    assert store.next_time(["work"]) == row_of(store, near)["run_at"]
    assert store.next_time(["other"]) is None
    assert store.next_time(["work"], within=1) is None
    store.cancel([near])
    assert store.next_time() == row_of(store, far)["run_at"]


def test_busy_counts_the_jobs_that_a_wait_waits_for(store: JobStore, worker: Worker) -> None:
    for state in ("scheduled", "completed", "failed", "cancelled", "scheduled, due"):
        expected = int(state == "scheduled, due")
        job_id = job_in(store, worker, state)
        assert store.busy() == expected
        assert store.unfinished([job_id]) == ({job_id} if expected else set())
    take(store, worker)  # the one that was due
    job_in(store, worker, "retrying")
    job_in(store, worker, "running")
    job_in(store, worker, "queued")
    assert store.busy() == 4


def test_a_tree_is_unfinished_while_any_of_its_jobs_is(store: JobStore, worker: Worker) -> None:
    [root] = add(store)
    store.end(take(store, worker), Outcome("completed", "completed", followups=[new()]))
    assert store.unfinished([root]) == {root}
    store.end(take(store, worker), FAILED)
    assert store.unfinished([root]) == set()


def test_failures_are_grouped_with_their_last_error(store: JobStore, worker: Worker) -> None:
    add(store, *(new() for _ in range(3)))
    for word, text in (("dns", "no a"), ("http_4xx", "410"), ("dns", "no b")):
        store.end(take(store, worker), Outcome("failed", "failed", None, word, text))
    groups = [(g["error_class"], g["jobs"], g["error"]) for g in store.failures()]
    assert groups == [("dns", 2, "no b"), ("http_4xx", 1, "410")]
    assert store.failed_pages(0) == 3
    assert store.failed_pages(store.now() + 60) == 0


def test_completed_and_failed_jobs_are_counted_by_minute(store: JobStore, worker: Worker) -> None:
    add(store, *(new() for _ in range(4)))
    for outcome in (COMPLETED, FAILED, COMPLETED, RELEASED):
        store.end(take(store, worker), outcome)
    totals = [sum(row[i] for row in store.pace(5)) for i in (1, 2)]
    assert totals == [2, 1]


def test_cache_keys_are_found_anywhere_in_the_arguments(store: JobStore, worker: Worker) -> None:
    keys = [digit * 64 for digit in "abc"]
    args = json.dumps(["http://x/", keys[0], {"deep": [{"sha256": keys[1]}]}, 5, None])
    store.add([NewJob("work", args, 4), NewJob("work", json.dumps([keys[2]]), 4)])
    assert store.needed_keys() == set(keys)
    store.cancel([2])
    assert store.needed_keys() == set(keys[:2])


@pytest.mark.parametrize("seconds", [1e17, -1e17, 6.7e16, float("inf"), float("nan"), "x", b"x"])
def test_an_impossible_time_is_not_shown(store: JobStore, seconds: Any) -> None:
    assert store.iso_time(seconds) is None


@pytest.mark.parametrize("args", ["{not json", "5", '"word"', '{"a": 1}', "[" * 100_000])
def test_arguments_that_can_not_be_decoded_are_shown_as_they_are(
    store: JobStore, args: str
) -> None:
    [job_id] = add(store)
    store.database.write(lambda c: c.execute("UPDATE jobs SET args = ?", (args,)))
    assert row_of(store, job_id)["args"] == [args]
    assert store.needed_keys() == set()


def test_arguments_that_became_an_empty_blob_are_shown(store: JobStore) -> None:
    [job_id] = add(store)
    store.database.write(lambda c: c.execute("UPDATE jobs SET args = x''"))
    assert row_of(store, job_id)["args"] == [""]


def test_the_unknown_state_of_a_damaged_row_is_not_counted(store: JobStore, worker: Worker) -> None:
    add(store, new(), new())
    store.database.write(lambda c: c.execute("UPDATE jobs SET state = 'odd' WHERE id = 1"))
    for _ in range(2):
        store.end(take(store, worker), COMPLETED)
    names = store.database.read("SELECT name FROM counts")
    assert {row["name"] for row in names} == set(STATES)


def test_a_damaged_row_that_is_due_holds_up_no_other(store: JobStore, worker: Worker) -> None:
    ids = add(store, *(new(delay=DUE) for _ in range(PROMOTED_AT_ONCE + 1)))
    damage = "UPDATE jobs SET isolated = 'x' WHERE id = ?"
    store.database.write(lambda c: c.execute(damage, (ids[-1],)))
    assert take(store, worker).id == ids[0]


# Deleting jobs -------------------------------------------------------------------------------


def test_an_id_is_never_used_twice_and_the_counts_stay_right(
    store: JobStore, worker: Worker
) -> None:
    for expected in range(1, 71):  # one by one: most are counted later
        assert add(store) == [expected]
        assert store.counts() == real_counts(store)
    for _ in range(70):
        store.end(take(store, worker), COMPLETED)
    assert add(store) == [71]
    assert store.prune(store.now() + 60) == 70
    assert store.counts() == real_counts(store)
    assert store.clear() == 1
    assert store.counts() == real_counts(store)
    assert add(store) == [72]
    assert store.counts() == real_counts(store)


def test_a_tree_is_only_deleted_as_a_whole(store: JobStore, worker: Worker) -> None:
    [root] = add(store)
    store.end(take(store, worker), RETRYING)
    store.retry([root])
    store.end(take(store, worker), Outcome("completed", "completed", followups=[new()]))
    later = store.now() + 60
    assert store.prune(later) == 0
    store.end(take(store, worker), FAILED)
    assert store.prune(store.now() - 60) == 0
    assert store.prune(later) == 2
    assert store.find() == []
    assert store.attempts(root) == []
    assert store.counts() == real_counts(store)


def test_a_cancelled_job_that_still_runs_is_not_deleted(store: JobStore, worker: Worker) -> None:
    [job_id] = add(store)
    claim = take(store, worker)
    store.cancel([job_id])
    assert store.prune(store.now() + 60) == 0
    store.end(claim, COMPLETED)
    assert store.prune(store.now() + 60) == 1


def test_old_follow_up_jobs_of_a_recurring_job_are_deleted(store: JobStore, worker: Worker) -> None:
    [root] = add(store, new(interval=3600.0))
    store.end(take(store, worker), Outcome("completed", "completed", followups=[new(), new()]))
    first, second = store.children(root)
    store.end(take(store, worker), Outcome("completed", "completed", followups=[new()]))
    [grandchild] = store.children(first)
    take(store, worker)
    assert store.prune(store.now() + 60) == 0  # its own follow-up waits, the other one runs
    store.cancel([grandchild])
    assert store.prune(store.now() + 60) == 2
    assert store.find() == [root, second]
    assert store.counts() == real_counts(store)


def test_clear_deletes_everything(store: JobStore, worker: Worker) -> None:
    for state in ("completed", "failed", "queued"):
        job_in(store, worker, state)
    assert store.clear() == 3
    assert store.find() == []
    assert store.counts() == real_counts(store)
    assert store.pace(5) == []


def test_values_about_the_whole_store_are_stored(store: JobStore) -> None:
    assert store.get("last_seen") is None
    store.put("last_seen", "1")
    store.put("last_seen", "2")
    assert store.get("last_seen") == "2"


# A process that dies between two statements -------------------------------------------------

SCRIPT = """
import os, sys
from pathlib import Path
from paise2nb.jobs.models import Outcome, Limits, NewJob
from paise2nb.jobs.store import JobStore

store = JobStore(Path(sys.argv[1]), durable=False)
worker = store.register("default", 4)
limits = {"work": Limits(None, None)}

class Fatal(list):
    def __iter__(self):
        yield NewJob("work", "[]", 1)
        os._exit(9)

def die(*arguments):
    os._exit(9)

def die_at_the_second(row, only):
    if row["id"] == 3:
        os._exit(9)
    return Outcome("released", "queued")
"""

CRASHES = {
    "an enqueue": "store.add([NewJob('work', '[]', 1), NewJob('work', '[]', 1, 7)], die)",
    "a completion with follow-ups": (
        "store.end(store.claim(worker, limits), Outcome('completed', 'completed',"
        " followups=Fatal([1])))"
    ),
    "a rescue": (
        "store.claim(worker, limits); store.claim(worker, limits);"
        " store.rescue_jobs(worker.id, die_at_the_second)"
    ),
}


@pytest.mark.parametrize(("crash", "running"), list(zip(CRASHES, (0, 1, 2), strict=True)))
def test_a_crash_between_two_statements_changes_nothing(
    tmp_path: Path, crash: str, running: int
) -> None:
    path = tmp_path / "tasks.db"
    store = JobStore(path, durable=False)
    add(store, new(7))
    store.end(take(store, store.register("default", 1)), COMPLETED)
    add(store, new(), new())
    store.close()

    script = SCRIPT + CRASHES[crash]
    ended = subprocess.run([sys.executable, "-c", script, str(path)], check=False)
    assert ended.returncode == 9

    store = JobStore(path, durable=False)
    states = Counter(row["state"] for row in store.rows(store.find()).values())
    assert states == +Counter({"queued": 2 - running, "running": running, "completed": 1})
    assert store.counts() == real_counts(store)
    assert add(store)
    store.close()


@pytest.mark.parametrize(
    "jobs", [{"task": "fetch"}, {"task": "work", "host": "a"}, {"task": "other"}], ids=str
)
def test_only_jobs_of_the_short_task_that_need_nothing_else_are_claimed_together(
    store: JobStore, worker: Worker, jobs: dict[str, str]
) -> None:
    store.add([NewJob(args=f"[{n}]", max_attempts=4, **jobs) for n in range(3)])
    wanted = Wanted(dict.fromkeys(("work", "fetch", "other"), Limits(None, None)))
    short = "fetch" if jobs["task"] == "fetch" else "work"
    _, claims = store.end_several([], worker, wanted._replace(short=short))
    assert len(claims) == 1
    store.add([NewJob("work", f"[{n}]", 4, priority=9) for n in range(3)])
    ended = [(claims[0], COMPLETED)]
    _, claims = store.end_several(ended, worker, wanted._replace(short="work"))
    assert [claim.task for claim in claims] == ["work", "work"]


# Random histories ----------------------------------------------------------------------------


class Histories(RuleBasedStateMachine):
    """Random changes of one job store; after each the rows and the counters must agree."""

    host_delay = DUE

    def __init__(self) -> None:
        super().__init__()
        self.directory = tempfile.TemporaryDirectory()
        path = Path(self.directory.name) / "tasks.db"
        self.store = JobStore(path, durable=False, host_delay=self.host_delay)
        self.workers = [self.store.register("default", threads) for threads in (1, 4)]
        self.claims: list[Claim] = []

    def teardown(self) -> None:
        self.store.close()
        self.directory.cleanup()

    def some(self, numbers: list[int]) -> list[int]:
        ids = self.store.find()
        return [ids[number % len(ids)] for number in numbers] if ids else []

    @rule(
        keys=st.lists(st.none() | st.integers(0, 3), min_size=1, max_size=4),
        delay=st.sampled_from([None, DUE, 3600.0]),
        interval=st.sampled_from([None, None, 3600.0]),
        fresh=st.booleans(),
        host=HOSTS,
    )
    def enqueue(
        self,
        keys: list[int | None],
        delay: float | None,
        interval: float | None,
        fresh: bool,
        host: str | None,
    ) -> None:
        jobs = [new(key, delay=delay, interval=interval, host=host) for key in keys]
        assert len(self.store.add(jobs, lambda *_: fresh).answers) == len(keys)

    @rule(index=st.integers(0, 1))
    def claim(self, index: int) -> None:
        claim = self.store.claim(self.workers[index], LIMITS)
        if claim is not None:
            self.claims.append(claim)

    @rule(
        index=st.integers(0, 99),
        outcome=st.sampled_from([SNOOZED, *(outcome for outcome, _ in OUTCOMES.values())]),
        followups=st.lists(HOSTS, max_size=2),
        claims_next=st.booleans(),
        host_delays=st.sampled_from([(), [HostDelay("a", 0.0, 3600.0)], [HostDelay("b", 5.0)]]),
    )
    def end(
        self,
        index: int,
        outcome: Outcome,
        followups: list[str | None],
        claims_next: bool,
        host_delays: list[HostDelay],
    ) -> None:
        if not self.claims:
            return
        claim = self.claims[index % len(self.claims)]  # an old one now and then, which is refused
        row = self.store.rows([claim.id]).get(claim.id)
        # A snoozed execution gives its run number back, so the time belongs to the token.
        token = (claim.run, claim.started_at)
        is_running = row is not None and row["state"] == "running"
        current = is_running and (row["run"], row["started_at"]) == token
        added = [new(host=host) for host in followups]
        full = Outcome(**{**vars(outcome), "followups": added, "host_delays": host_delays})
        worker = next((w for w in self.workers if w.id == claim.worker), None)
        next_claim = None
        if worker is not None and claims_next:
            accepted, next_claim = end_and_claim(self.store, claim, full, worker, LIMITS)
        else:
            accepted = self.store.end(claim, full)
        assert accepted == current
        if next_claim is not None:
            self.claims.append(next_claim)

    @rule(
        numbers=st.sets(st.integers(0, 99), max_size=4),
        outcome=st.sampled_from([COMPLETED, RETRYING, RELEASED]),
        followups=st.integers(0, 2),
        number=st.integers(1, 4),
        beside=st.booleans(),
        index=st.integers(0, 1),
    )
    def end_several(
        self,
        numbers: set[int],
        outcome: Outcome,
        followups: int,
        number: int,
        beside: bool,
        index: int,
    ) -> None:
        full = Outcome(**{**vars(outcome), "followups": [new()] * followups})
        claims = {self.claims[n % len(self.claims)] for n in numbers if self.claims}
        wanted = Wanted(LIMITS, frozenset(LIMITS), number, beside)
        ended = [(claim, full) for claim in claims]
        accepted, new_claims = self.store.end_several(ended, self.workers[index], wanted)
        assert len(accepted) == len(claims)
        assert len(new_claims) <= number
        self.claims += new_claims

    @rule(index=st.integers(0, 1), completed=st.integers(0, 2))
    def settle(self, index: int, completed: int) -> None:
        worker = self.workers[index]
        claims = [claim for claim in self.claims if claim.worker == worker.id][-3:]
        file = BatchFile.open(self.store.path, worker.id)
        assert file is not None
        assert file.write([(claim, "1") for claim in claims[:completed]], claims[completed:])
        file.close()
        before = {row["id"] for row in self.store.claimed()}
        self.store.settle(worker.id, {execution_key(row) for row in self.store.claimed()})
        held = [(row["id"], row["run"], row["started_at"]) for row in self.store.claimed()]
        assert not {execution_key(claim._asdict()) for claim in claims[:completed]} & {*held}
        left = {execution_key(claim._asdict()) for claim in claims[completed:]} & {*held}
        assert len(left) <= 1
        others = {claim.id for claim in claims}
        assert before - others == {job_id for job_id, _, _ in held} - others

    @rule(numbers=st.lists(st.integers(0, 99), max_size=5))
    def cancel(self, numbers: list[int]) -> None:
        ids = self.some(numbers)
        moved = self.store.cancel(ids)
        assert all(state_of(self.store, job_id) == "cancelled" for job_id in moved)

    @rule(numbers=st.lists(st.integers(0, 99), max_size=5))
    def retry(self, numbers: list[int]) -> None:
        for job_id in self.store.retry(self.some(numbers)):
            assert state_of(self.store, job_id) in UNFINISHED

    @rule(index=st.integers(0, 1), state=st.sampled_from(["released", "charged", "given up"]))
    def die(self, index: int, state: str) -> None:
        outcomes = {
            "released": Outcome("released", "queued", isolated=True),
            "charged": Outcome("crashed", "retrying", None, "crash", "died", retry_in=0),
            "given up": Outcome("crashed", "failed", None, "crash", "died"),
        }
        self.store.rescue_jobs(self.workers[index].id, lambda row, only: outcomes[state])
        self.workers[index] = self.store.register("default", (1, 4)[index])

    @rule(offset=st.sampled_from([-60, 60]))
    def prune(self, offset: int) -> None:
        self.store.prune(self.store.now() + offset)

    @invariant()
    def counters_agree_with_the_rows(self) -> None:
        assert self.store.counts() == real_counts(self.store)
        others = "SELECT state, count(*) FROM jobs WHERE page_id IS NULL GROUP BY state"
        counted = {state: n for state, n in self.store.other_counts().items() if n}
        assert counted == dict(map(tuple, self.store.database.read(others)))

    @invariant()
    def each_row_is_consistent(self) -> None:
        living = {worker.id for worker in self.workers}
        keys: list[int] = []
        for row in self.store.rows(self.store.find()).values():
            state = row["state"]
            if row["ready"]:
                assert state in ("queued", "scheduled", "retrying")
            waits_for_host = row["host_slot"] and state in UNFINISHED
            if state == "queued" and not waits_for_host:
                assert bool(row["ready"]) == (row["worker"] is None)
            if not waits_for_host:
                assert (row["run_at"] is not None) == (state in ("scheduled", "retrying"))
            assert (row["finished_at"] is None) == (state in UNFINISHED)
            assert row["worker"] is None or row["worker"] in living
            if state == "running":
                assert row["worker"] is not None
            running = int(state == "running")
            attempts = self.store.attempts(row["id"])
            last = row["run"] + 1 - running
            first = (
                last - len(attempts) if row["interval"] else 1
            )  # old attempts of a recurring job may be deleted
            assert [a["number"] for a in attempts] == list(range(first, last))
            assert 0 <= row["attempt"] <= row["run"]
            if state in UNFINISHED and row["key"] is not None:
                keys.append(row["key"])
        assert len(keys) == len(set(keys)), "two unfinished jobs with one key"

    @invariant()
    def hosts_have_one_running_job_at_a_time_and_give_slots_to_waiting_jobs(self) -> None:
        rows = self.store.rows(self.store.find()).values()
        slots: dict[str, list[int]] = {}
        for row in rows:
            if row["host_slot"]:
                assert row["state"] in UNFINISHED or row["worker"] is not None
                slots.setdefault(row["host"], []).append(row["host_slot"])
            elif row["host"] is not None and row["state"] in ("queued", "running"):
                assert row["worker"] is not None, "it neither waits for its host nor has a slot"
        allowed = 1 if self.host_delay else UNPACED_SLOTS
        for host, of_host in slots.items():
            used = of_host.count(HAS_SLOT)
            assert 1 <= used <= allowed, (host, of_host)
            assert used == allowed or WAITING not in of_host
        known = self.store.database.read("SELECT host, waiting FROM hosts")
        waiting = {row["host"]: row["waiting"] for row in known if row["waiting"]}
        numbers = {host: of_host.count(WAITING) for host, of_host in slots.items()}
        assert waiting == {host: number for host, number in numbers.items() if number}

    @invariant()
    def trees_are_consistent(self) -> None:
        rows = self.store.rows(self.store.find())
        for row in rows.values():
            if row["parent_id"] is None:
                assert row["root_id"] == row["id"]
            else:
                assert rows[row["parent_id"]]["root_id"] == row["root_id"]


class UnpacedHistories(Histories):
    """The same without a delay between requests."""

    host_delay = 0.0


RANDOM = settings(
    max_examples=40,
    stateful_step_count=30,
    deadline=None,
    suppress_health_check=[HealthCheck.too_slow],
)
TestHistories = Histories.TestCase
TestHistories.settings = RANDOM
TestUnpacedHistories = UnpacedHistories.TestCase
TestUnpacedHistories.settings = settings(RANDOM, max_examples=20)


def test_jobs_with_long_arguments_need_no_statement_with_all_of_them(store: JobStore) -> None:
    text = json.dumps(["x" * 300_000])
    store.database.write(lambda c: c.setlimit(sqlite3.SQLITE_LIMIT_LENGTH, 1_000_000))
    store.add([NewJob("work", text, 4, number) for number in range(10)])
    assert [row["args"] for row in store.database.read("SELECT args FROM jobs")] == [text] * 10


def test_arguments_and_keys_of_many_jobs_are_stored_unchanged(store: JobStore) -> None:
    texts = ['["\\u0000 \\ud800"]', '["é \U0001f600 \\" \\\\"]', "[1.0, null]"] * 700
    keys = [-(2**63), 2**63 - 1, None, *range(len(texts) - 3)]
    expected = list(zip(texts, keys, strict=True))
    store.add([NewJob("work", text, 4, key) for text, key in expected])
    rows = store.database.read("SELECT args, key FROM jobs ORDER BY id")
    assert [tuple(row) for row in rows] == expected


def test_outcomes_that_are_written_together_keep_to_the_limit_of_their_crawl(
    store: JobStore, worker: Worker
) -> None:
    """So are those of several threads after the job store could not be written."""

    def found(*keys: int) -> Outcome:
        page = NewJob("links", "[]", 1)
        links = [Link(key, f"https://example.org/{key}", 1, "", page) for key in keys]
        return Outcome("completed", "completed", "{}", found=Found(links, 5))

    limits = {"links": Limits(None, None)}
    store.add([NewJob("links", "[]", 1)])
    root = store.claim(worker, limits)
    assert root is not None
    store.end(root, found(1, 2))
    pages = [store.claim(worker, limits) for _ in range(2)]
    ended = [(page, found(n, n + 1)) for n, page in zip((3, 5), pages, strict=True) if page]
    store.end_several(ended, worker, None)
    assert sum(store.counts()[0].values()) == 1 + 5, "the first page, and those it may have"
    assert store.left_out(root.id)["max_pages"]["number"] == 1
