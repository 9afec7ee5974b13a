"""The job table: every move of every state, and what is refused; crashes and random histories."""

from __future__ import annotations

import json
import os
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

from paise2nb.jobs import (
    STATES,
    UNFINISHED,
    Claim,
    HostDelay,
    JobStore,
    Limits,
    NewJob,
    Outcome,
    Worker,
)
from paise2nb.jobs.host_limits import HAS_SLOT, UNPACED_SLOTS, WAITING

LIMITS = {"work": Limits(60, 512)}
HOSTS = st.sampled_from([None, "a", "b"])
DUE = 1e-9  # seconds: a delay that is over when anything can look

COMPLETED = Outcome("completed", "completed", result='"done"')
RETRYING = Outcome("failed", "retrying", None, "timeout", "too slow", "Traceback …", retry_in=3600)
FAILED = Outcome("failed", "failed", None, "http_4xx", "404 Not Found", "Traceback …")
CRASHED = Outcome("crashed", "retrying", None, "crash", "died", retry_in=3600)
RELEASED = Outcome("released", "queued")
SNOOZED = Outcome("snoozed", "queued", host="b", resume='["x", "y"]')


@pytest.fixture
def table(tmp_path: Path) -> Iterator[JobStore]:
    table = JobStore(tmp_path / "tasks.db", durable=False)
    yield table
    table.close()


@pytest.fixture
def worker(table: JobStore) -> Worker:
    return table.register("default", 1)


def new(key: int | None = None, **values: Any) -> NewJob:
    return NewJob("work", '["x"]', 4, key, **values)


def add(table: JobStore, *jobs: NewJob) -> list[int]:
    return [job_id for job_id, _ in table.add(jobs or [new()]).answers]


def take(table: JobStore, worker: Worker) -> Claim:
    claim = table.claim(worker, LIMITS)
    assert claim is not None
    return claim


def test_what_was_begun_is_brought_to_its_end_before_more_is_begun(
    table: JobStore, worker: Worker
) -> None:
    limits = {"begin": Limits(60, 512), "end": Limits(60, 512)}
    first, second = add(table, *(NewJob("begin", f"[{n}]", 4) for n in range(2)))
    claim = table.claim(worker, limits)
    order = []
    while claim is not None:
        order.append((claim.task, claim.root_id))
        next_claim = [NewJob("end", "[]", 4)] if claim.task == "begin" else []
        ending = Outcome("completed", "completed", followups=next_claim)
        _, claim = table.end(claim, ending, worker, limits)
    assert order == [("begin", first), ("end", first), ("begin", second), ("end", second)]


def row_of(table: JobStore, job_id: int) -> dict[str, Any]:
    return table.rows([job_id])[job_id]


def state_of(table: JobStore, job_id: int) -> str:
    state: str = row_of(table, job_id)["state"]
    return state


def late_claim(table: JobStore, job_id: int) -> Claim:
    """The claim that the row's last execution had, or would have had."""
    row = row_of(table, job_id)
    row["args"] = json.dumps(row["args"])
    return Claim(*(row[name] for name in Claim._fields))


def job_in(table: JobStore, worker: Worker, state: str) -> int:
    """A job that came to a state by the moves that lead there."""
    delays = {"scheduled": 3600.0, "scheduled, due": DUE}
    [job_id] = add(table, new(delay=delays.get(state)))
    if state == "cancelled":
        table.cancel([job_id])
    endings = {
        "retrying": RETRYING,
        "retrying, due": Outcome("failed", "retrying", None, "timeout", "too slow", retry_in=0),
        "completed": COMPLETED,
        "failed": FAILED,
    }
    if state == "running" or state in endings:
        claim = take(table, worker)
        if state in endings:
            assert table.end(claim, endings[state]) == (True, None)
    assert state_of(table, job_id) == state.partition(",")[0]
    return job_id


def real_counts(table: JobStore) -> tuple[dict[str, int], dict[str, int]]:
    """The counts by state, counted."""
    rows = table.database.read(
        "SELECT state, count(*) AS jobs, sum(parent_id IS NULL) AS roots FROM jobs GROUP BY state"
    )
    counted = {row["state"]: row for row in rows}
    return (
        {state: counted[state]["jobs"] if state in counted else 0 for state in STATES},
        {state: counted[state]["roots"] if state in counted else 0 for state in STATES},
    )


# The state table -----------------------------------------------------------------------------

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
def test_a_claim_takes_what_is_queued_or_due(table: JobStore, worker: Worker, state: str) -> None:
    job_id = job_in(table, worker, state)
    before = row_of(table, job_id)
    assert table.claimable(["work"]) == (state in ("queued", "scheduled, due", "retrying, due"))
    claim = table.claim(worker, LIMITS)
    if state in ("queued", "scheduled, due", "retrying, due"):
        assert claim is not None
        assert (claim.id, claim.run) == (job_id, before["run"] + 1)
        after = row_of(table, job_id)
        assert after["state"] == "running"
        assert (after["worker_pid"], after["attempt"]) == (os.getpid(), before["attempt"] + 1)
        assert (after["timeout"], after["memory_mb"]) == LIMITS["work"]
    else:
        assert claim is None
        assert row_of(table, job_id) == before


@pytest.mark.parametrize("state", ALL_STATES)
@pytest.mark.parametrize("outcome", OUTCOMES)
def test_an_outcome_is_accepted_from_a_running_job_only(
    table: JobStore, worker: Worker, state: str, outcome: str
) -> None:
    job_id = job_in(table, worker, state)
    before = row_of(table, job_id)
    attempts = table.attempts(job_id)
    ending, expected = OUTCOMES[outcome]
    followed = Outcome(**{**vars(ending), "followups": [new()]})
    accepted, _ = table.end(late_claim(table, job_id), followed)
    assert accepted == (state == "running")
    if accepted:
        assert state_of(table, job_id) == expected
        assert table.attempts(job_id)[-1]["outcome"] == ending.outcome
        assert len(table.children(job_id)) == 1
    else:
        assert row_of(table, job_id) == before
        assert table.attempts(job_id) == attempts
        assert table.children(job_id) == []
    assert table.counts() == real_counts(table)


@pytest.mark.parametrize("state", ALL_STATES)
def test_a_cancel_takes_out_what_is_unfinished(table: JobStore, worker: Worker, state: str) -> None:
    job_id = job_in(table, worker, state)
    before = row_of(table, job_id)
    moved = table.cancel([job_id])
    if before["state"] in UNFINISHED:
        assert moved == [job_id]
        after = row_of(table, job_id)
        assert (after["state"], after["run_at"]) == ("cancelled", None)
        assert after["finished_at"] is not None
        assert table.claim(worker, LIMITS) is None
    else:
        assert moved == []
        assert row_of(table, job_id) == before
    assert table.counts() == real_counts(table)


@pytest.mark.parametrize("state", ALL_STATES)
def test_a_retry_queues_what_has_failed_or_waits_for_its_time(
    table: JobStore, worker: Worker, state: str
) -> None:
    job_id = job_in(table, worker, state)
    before = row_of(table, job_id)
    history = table.attempts(job_id)
    waiting = table.retry([job_id])
    if before["state"] in ("failed", "cancelled", "retrying", "scheduled"):
        assert waiting == [job_id]
        after = row_of(table, job_id)
        assert (after["state"], after["attempt"], after["crashes"]) == ("queued", 0, 0)
        assert (after["run_at"], after["finished_at"]) == (None, None)
        assert table.attempts(job_id) == history
        assert take(table, worker).run == len(history) + 1
    else:
        assert waiting == []
        assert row_of(table, job_id) == before
    assert table.counts() == real_counts(table)


def test_a_release_is_not_charged(table: JobStore, worker: Worker) -> None:
    [job_id] = add(table)
    table.end(take(table, worker), RETRYING)
    table.retry([job_id])
    first = take(table, worker)
    table.end(first, RELEASED)
    row = row_of(table, job_id)
    assert (row["attempt"], row["run"]) == (0, 2)
    assert [a["outcome"] for a in table.attempts(job_id)] == ["failed", "released"]
    assert take(table, worker).attempt == 1


def test_every_attempt_is_kept_in_order(table: JobStore, worker: Worker) -> None:
    [job_id] = add(table)
    for ending in (
        Outcome("failed", "retrying", None, "timeout", "slow", "Traceback A", retry_in=0),
        Outcome("crashed", "retrying", None, "crash", "died", retry_in=0),
        RELEASED,
        COMPLETED,
    ):
        table.end(take(table, worker), ending)
    attempts = table.attempts(job_id)
    assert [a["number"] for a in attempts] == [1, 2, 3, 4]
    assert [a["outcome"] for a in attempts] == ["failed", "crashed", "released", "completed"]
    assert [a["traceback"] for a in attempts] == ["Traceback A", None, None, None]
    assert {a["worker_pid"] for a in attempts} == {os.getpid()}
    keys = (
        "number", "started_at", "finished_at", "worker_pid", "outcome", "error_class", "error",
        "traceback", "retry_in",
    )  # fmt: skip
    assert all(tuple(a) == keys for a in attempts)
    row = row_of(table, job_id)
    assert (row["attempt"], row["crashes"], row["error"]) == (3, 1, None)


# Fencing -------------------------------------------------------------------------------------


def test_a_late_outcome_of_an_earlier_execution_is_refused(table: JobStore, worker: Worker) -> None:
    [job_id] = add(table)
    early = take(table, worker)
    table.rescue_jobs(worker.id, lambda row, only: RELEASED)
    later = take(table, table.register("default", 1))
    assert later.run == early.run + 1
    late = Outcome("completed", "completed", '"late"', followups=[new()])
    assert table.end(early, late) == (False, None)
    assert state_of(table, job_id) == "running"
    assert row_of(table, job_id)["worker"] == later.worker
    assert table.end(later, COMPLETED)[0] is True
    assert row_of(table, job_id)["result"] == '"done"'
    assert table.children(job_id) == []


def test_a_late_failure_of_an_earlier_execution_leaves_no_trace(
    table: JobStore, worker: Worker
) -> None:
    [job_id] = add(table)
    early = take(table, worker)
    table.rescue_jobs(worker.id, lambda row, only: RELEASED)
    assert table.end(early, FAILED)[0] is False
    assert state_of(table, job_id) == "queued"
    assert [a["outcome"] for a in table.attempts(job_id)] == ["released"]


def test_progress_is_taken_from_the_present_execution_only(table: JobStore, worker: Worker) -> None:
    [job_id] = add(table)
    early = take(table, worker)
    assert table.progress(early, 1, 2)
    assert json.loads(row_of(table, job_id)["progress"]) == [1, 2]
    table.end(early, RELEASED)
    later = take(table, worker)
    assert row_of(table, job_id)["progress"] is None
    assert not table.progress(early, 2, 2)
    assert table.progress(later, 0.5, None)


def test_a_worker_that_was_declared_dead_gets_nothing_more(table: JobStore, worker: Worker) -> None:
    add(table, new(), new())
    claim = take(table, worker)
    table.rescue_jobs(worker.id, lambda row, only: RELEASED)
    assert table.end(claim, COMPLETED, worker, LIMITS) == (False, None)
    assert table.claim(worker, LIMITS) is None
    assert table.heartbeat(worker, "ready") is False


def test_two_claims_never_get_the_same_job(table: JobStore, tmp_path: Path) -> None:
    ids = add(table, *(new() for _ in range(60)))
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
    assert table.counts()[0]["completed"] == 60


# Cancelling and retrying ---------------------------------------------------------------------


def test_a_cancelled_running_job_is_held_until_its_worker_lets_go(
    table: JobStore, worker: Worker
) -> None:
    [job_id] = add(table)
    claim = take(table, worker)
    table.cancel([job_id])
    assert [held["id"] for held in table.held()] == [job_id]
    accepted, _ = table.end(claim, Outcome("completed", "completed", "1", followups=[new()]))
    assert not accepted
    assert table.held() == []
    row = row_of(table, job_id)
    assert (row["state"], row["result"]) == ("cancelled", None)
    assert table.children(job_id) == []
    assert [a["outcome"] for a in table.attempts(job_id)] == ["cancelled"]


def test_a_cancelled_job_that_is_retried_waits_for_its_worker_to_let_go(
    table: JobStore, worker: Worker
) -> None:
    [job_id] = add(table)
    claim = take(table, worker)
    table.cancel([job_id])
    assert table.retry([job_id]) == [job_id]
    assert row_of(table, job_id)["waiting_for"] == "its cancelled run to end"
    assert [held["id"] for held in table.held()] == [job_id]
    other = table.register("default", 1)
    assert table.claim(other, LIMITS) is None
    assert table.end(claim, COMPLETED) == (False, None)
    again = take(table, other)
    assert (again.id, again.run) == (job_id, 2)
    assert row_of(table, job_id)["waiting_for"] is None
    assert table.counts() == real_counts(table)


def test_a_cancelled_job_that_is_retried_may_start_when_its_worker_has_died(
    table: JobStore, worker: Worker
) -> None:
    [job_id] = add(table)
    take(table, worker)
    table.cancel([job_id])
    table.retry([job_id])
    table.rescue_jobs(worker.id, lambda row, only: RELEASED)
    assert take(table, table.register("default", 1)).id == job_id


def test_a_cancel_takes_all_descendants_along(table: JobStore, worker: Worker) -> None:
    [root] = add(table)
    table.end(take(table, worker), Outcome("completed", "completed", followups=[new(), new()]))
    first, second = table.children(root)
    table.end(take(table, worker), Outcome("completed", "completed", followups=[new(delay=60)]))
    [grandchild] = table.children(first)
    [stranger] = add(table)
    assert table.cancel([root]) == [second, grandchild]
    states = [state_of(table, i) for i in (root, first, second, grandchild, stranger)]
    assert states == ["completed", "completed", "cancelled", "cancelled", "queued"]
    assert table.counts() == real_counts(table)


def test_a_retry_answers_with_the_unfinished_twin(table: JobStore, worker: Worker) -> None:
    [old] = add(table, new(7))
    table.end(take(table, worker), FAILED)
    [twin] = add(table, new(7))
    assert table.retry([old]) == [twin]
    assert state_of(table, old) == "failed"


@pytest.mark.parametrize("first", ["failed", "cancelled"])
def test_of_two_twins_that_are_retried_together_one_is_queued(
    table: JobStore, worker: Worker, first: str
) -> None:
    [one] = add(table, new(7))
    if first == "failed":
        table.end(take(table, worker), FAILED)
    else:
        table.cancel([one])
    [two] = add(table, new(7))
    table.end(take(table, worker), FAILED)
    assert table.retry([one, two]) == [one, one]
    assert [state_of(table, i) for i in (one, two)] == ["queued", "failed"]
    assert table.counts() == real_counts(table)


def test_a_thousand_failed_jobs_are_retried_at_once(table: JobStore) -> None:
    ids = add(table, *(new(key) for key in range(1000)))
    table.cancel(ids)
    assert table.retry(ids) == ids
    assert table.counts()[0]["queued"] == 1000


# Adding --------------------------------------------------------------------------------------


@pytest.mark.parametrize("state", ALL_STATES)
def test_only_an_unfinished_twin_keeps_a_job_out(
    table: JobStore, worker: Worker, state: str
) -> None:
    job_id = job_in(table, worker, state)
    table.database.write(lambda c: c.execute("UPDATE jobs SET key = 7"))
    [(answered, answer)] = table.add([new(7)]).answers
    if state.partition(",")[0] in UNFINISHED:
        assert (answered, answer) == (job_id, "waiting")
    else:
        assert (answered != job_id, answer) == (True, "new")
    assert table.counts() == real_counts(table)


def test_a_completed_twin_is_asked_whether_it_is_fresh(table: JobStore, worker: Worker) -> None:
    [job_id] = add(table, new(7))
    table.end(take(table, worker), Outcome("completed", "completed", '{"size": 3}'))
    host_delays: list[Any] = []

    def is_fresh(index: int, result: Any, age: float) -> bool:
        host_delays.append((index, result, age))
        return index == 1

    assert table.add([new(8), new(7)], is_fresh).answers[1] == (job_id, "fresh")
    assert [(index, result) for index, result, _ in host_delays] == [(1, {"size": 3})]
    assert 0 <= host_delays[0][2] <= table.now() - row_of(table, job_id)["finished_at"]
    assert table.add([new(7)], is_fresh).answers[0][1] == "new"


def test_force_adds_beside_a_fresh_twin_but_not_beside_an_unfinished_one(
    table: JobStore, worker: Worker
) -> None:
    add(table, new(7))
    table.end(take(table, worker), COMPLETED)
    [(forced, answer)] = table.add([new(7)], lambda *_: True, force=True).answers
    assert answer == "new"
    assert table.add([new(7)], lambda *_: True, force=True).answers == [(forced, "waiting")]


def test_a_bulk_is_answered_in_its_order_and_its_own_twins_are_seen(table: JobStore) -> None:
    [waiting] = add(table, new(1))
    answers = table.add([new(2), new(1), new(2), new(), new()]).answers
    first = answers[0][0]
    assert [answer for _, answer in answers] == ["new", "waiting", "waiting", "new", "new"]
    assert answers[1][0] == waiting
    assert answers[2][0] == first
    assert len({job_id for job_id, _ in answers}) == 4
    assert table.counts()[0]["queued"] == 4


def test_ids_are_never_given_twice(table: JobStore) -> None:
    ids = add(table, new(), new())
    table.clear()
    assert not set(ids) & set(add(table, new(), new()))


def test_follow_ups_know_their_parent_and_root_and_are_no_roots(
    table: JobStore, worker: Worker
) -> None:
    [root] = add(table, new(tag="news"))
    table.end(take(table, worker), Outcome("completed", "completed", followups=[new()]))
    table.end(take(table, worker), Outcome("completed", "completed", followups=[new()]))
    [child] = table.children(root)
    [grandchild] = table.children(child)
    assert row_of(table, root)["root_id"] == root
    assert (row_of(table, grandchild)["parent_id"], row_of(table, grandchild)["root_id"]) == (
        child, root,
    )  # fmt: skip
    assert table.trees([root, child]) == {
        root: [root, child, grandchild], child: [child, grandchild]
    }  # fmt: skip
    jobs, roots = table.counts()
    assert (jobs["completed"], jobs["queued"]) == (2, 1)
    assert (roots["completed"], roots["queued"]) == (1, 0)


# The order of claims -------------------------------------------------------------------------


def test_claims_go_by_priority_then_age(table: JobStore, worker: Worker) -> None:
    low, first, high, second = add(
        table, new(priority=-1), new(), new(priority=5, delay=DUE), new()
    )
    assert [take(table, worker).id for _ in range(4)] == [high, first, second, low]


def test_a_due_job_keeps_its_state_until_it_is_claimed(table: JobStore, worker: Worker) -> None:
    late, early = add(table, new(delay=DUE), new(priority=9))
    assert take(table, worker).id == early  # makes what is due ready, and takes something else
    row = row_of(table, late)
    assert (row["state"], row["ready"]) == ("scheduled", 1)
    assert row["run_at"] is not None
    assert table.unfinished([late]) == {late}
    assert take(table, worker).id == late


def test_a_worker_takes_only_the_tasks_it_is_given(table: JobStore, worker: Worker) -> None:
    add(table)
    assert not table.claimable(["other"])
    assert table.claim(worker, {"other": Limits(1, 1)}) is None
    assert table.claim(worker, {}) is None


def test_a_worker_without_tasks_survives_a_due_job(table: JobStore, worker: Worker) -> None:
    add(table, new(delay=DUE))
    assert table.claim(worker, {}) is None


def test_the_next_claim_comes_with_an_outcome(table: JobStore, worker: Worker) -> None:
    one, two = add(table, new(), new())
    accepted, next_claim = table.end(take(table, worker), COMPLETED, worker, LIMITS)
    assert accepted
    assert next_claim is not None
    assert [state_of(table, i) for i in (one, two)] == ["completed", "running"]
    assert next_claim.id == two


def test_what_must_run_alone_is_left_to_a_worker_with_one_thread(table: JobStore) -> None:
    crowd = table.register("many", 4)
    one, two = add(table, new(), new())
    take(table, crowd)
    take(table, crowd)
    only: list[bool] = []

    def decide(row: dict[str, Any], alone: bool) -> Outcome:
        only.append(alone)
        return Outcome("released", "queued", isolated=True)

    assert sorted(table.rescue_jobs(crowd.id, decide)) == [one, two]
    assert only == [False, False]
    assert table.pools_waiting_alone() == {"many"}
    assert table.claim(table.register("many", 4), LIMITS) is None
    lone = table.register("many:alone", 1)
    assert [take(table, lone).id, take(table, lone).id] == [one, two]
    assert [row_of(table, i)["attempt"] for i in (one, two)] == [1, 1]


# Jobs that run again and again ---------------------------------------------------------------


@pytest.mark.parametrize("ending", [COMPLETED, FAILED], ids=["completed", "failed"])
def test_a_recurring_job_is_scheduled_again_whatever_its_end(
    table: JobStore, worker: Worker, ending: Outcome
) -> None:
    [job_id] = add(table, new(interval=3600.0))
    claim = take(table, worker)
    table.end(claim, ending)
    row = row_of(table, job_id)
    assert (row["state"], row["attempt"], row["finished_at"]) == ("scheduled", 0, None)
    assert claim.started_at + 3600 <= row["run_at"] <= table.now() + 3600
    assert [a["outcome"] for a in table.attempts(job_id)] == [ending.outcome]
    assert (row["error_class"], row["result"]) == (ending.error_class, ending.result)
    assert table.counts() == real_counts(table)


def test_crashes_of_one_run_are_not_held_against_the_next(table: JobStore, worker: Worker) -> None:
    [job_id] = add(table, new(interval=3600.0))
    for ending in (Outcome("crashed", "retrying", None, "crash", "died", retry_in=0), COMPLETED):
        table.end(take(table, worker), ending)
    assert row_of(table, job_id)["crashes"] == 0


def test_a_cancelled_recurring_job_stays_away(table: JobStore, worker: Worker) -> None:
    [job_id] = add(table, new(interval=1.0))
    claim = take(table, worker)
    table.cancel([job_id])
    assert not table.end(claim, COMPLETED)[0]
    assert state_of(table, job_id) == "cancelled"


# Deaths --------------------------------------------------------------------------------------


def test_a_burial_tells_whether_a_job_ran_alone(table: JobStore, worker: Worker) -> None:
    [job_id] = add(table)
    take(table, worker)
    seen: list[tuple[int, bool]] = []

    def decide(row: dict[str, Any], only: bool) -> Outcome:
        seen.append((row["id"], only))
        return CRASHED

    assert table.rescue_jobs(worker.id, decide) == [job_id]
    assert seen == [(job_id, True)]
    row = row_of(table, job_id)
    assert (row["state"], row["crashes"], row["worker"]) == ("retrying", 1, None)
    assert table.workers() == []
    assert table.rescue_jobs(worker.id, decide) == []


def test_a_worker_in_good_order_gives_back_what_it_holds(table: JobStore, worker: Worker) -> None:
    [job_id] = add(table)
    take(table, worker)
    assert [w["jobs"] for w in table.workers()] == [[job_id]]
    table.leave(worker)
    assert table.workers() == []
    row = row_of(table, job_id)
    assert (row["state"], row["attempt"]) == ("queued", 0)


# Asking --------------------------------------------------------------------------------------


def test_filters_are_joined_by_and(table: JobStore, worker: Worker) -> None:
    add(table, new(tag="a"))
    table.end(take(table, worker), FAILED)
    add(table, new(tag="a"), new(tag="b"))
    table.end(take(table, worker), RETRYING)
    one, two, three = table.find()
    assert table.find(state="failed") == [one]
    assert table.find(tag="a") == [one, two]
    assert table.find(tag="a", error="timeout") == [two]
    assert table.find(task="other") == []
    assert table.find([two, three, 99], limit=1) == [two]
    assert table.find(limit=0) == []


def test_the_next_time_is_that_of_the_first_job_that_has_one(table: JobStore) -> None:
    assert table.next_time() is None
    assert table.next_time(["work"]) is None
    far, near = add(table, new(delay=500.0), new(delay=50.0))
    assert table.next_time() == row_of(table, near)["run_at"]
    assert table.next_time(["work"]) == row_of(table, near)["run_at"]
    assert table.next_time(["other"]) is None
    assert table.next_time(["work"], within=1) is None
    table.cancel([near])
    assert table.next_time() == row_of(table, far)["run_at"]


def test_busy_counts_what_a_wait_waits_for(table: JobStore, worker: Worker) -> None:
    for state in ("scheduled", "completed", "failed", "cancelled", "scheduled, due"):
        expected = int(state == "scheduled, due")
        job_id = job_in(table, worker, state)
        assert table.busy() == expected
        assert table.unfinished([job_id]) == ({job_id} if expected else set())
    take(table, worker)  # the one that was due
    job_in(table, worker, "retrying")
    job_in(table, worker, "running")
    job_in(table, worker, "queued")
    assert table.busy() == 4


def test_a_tree_is_unfinished_while_any_of_it_is(table: JobStore, worker: Worker) -> None:
    [root] = add(table)
    table.end(take(table, worker), Outcome("completed", "completed", followups=[new()]))
    assert table.unfinished([root]) == {root}
    table.end(take(table, worker), FAILED)
    assert table.unfinished([root]) == set()


def test_failures_are_grouped_with_their_last_error(table: JobStore, worker: Worker) -> None:
    add(table, *(new() for _ in range(3)))
    for word, text in (("dns", "no a"), ("http_4xx", "410"), ("dns", "no b")):
        table.end(take(table, worker), Outcome("failed", "failed", None, word, text))
    groups = [(g["error_class"], g["jobs"], g["error"]) for g in table.failures()]
    assert groups == [("dns", 2, "no b"), ("http_4xx", 1, "410")]
    assert table.failed_since(0) == 3
    assert table.failed_since(table.now() + 60) == 0


def test_ends_are_counted_by_the_minute(table: JobStore, worker: Worker) -> None:
    add(table, *(new() for _ in range(4)))
    for ending in (COMPLETED, FAILED, COMPLETED, RELEASED):
        table.end(take(table, worker), ending)
    totals = [sum(row[i] for row in table.pace(5)) for i in (1, 2)]
    assert totals == [2, 1]


def test_keys_of_the_cache_are_found_wherever_they_stand(table: JobStore, worker: Worker) -> None:
    keys = [digit * 64 for digit in "abc"]
    args = json.dumps(["http://x/", keys[0], {"deep": [{"sha256": keys[1]}]}, 5, None])
    table.add([NewJob("work", args, 4), NewJob("work", json.dumps([keys[2]]), 4)])
    assert table.needed_keys() == set(keys)
    table.cancel([2])
    assert table.needed_keys() == set(keys[:2])


@pytest.mark.parametrize("seconds", [1e17, -1e17, 6.7e16, float("inf"), float("nan"), "x", b"x"])
def test_a_time_that_is_none_is_not_shown(table: JobStore, seconds: Any) -> None:
    assert table.shown(seconds) is None


@pytest.mark.parametrize("args", ["{not json", "5", '"word"', '{"a": 1}', "[" * 100_000])
def test_a_row_that_can_not_be_decoded_is_kept_and_shown(table: JobStore, args: str) -> None:
    [job_id] = add(table)
    table.database.write(lambda c: c.execute("UPDATE jobs SET args = ?", (args,)))
    assert row_of(table, job_id)["args"] == [args]
    assert table.needed_keys() == set()


def test_a_state_that_only_a_damaged_row_has_is_not_counted(
    table: JobStore, worker: Worker
) -> None:
    add(table, new(), new())
    table.database.write(lambda c: c.execute("UPDATE jobs SET state = 'odd' WHERE id = 1"))
    for _ in range(2):
        table.end(take(table, worker), COMPLETED)
    names = table.database.read("SELECT name FROM counts")
    assert {row["name"] for row in names} == set(STATES)


# Forgetting ----------------------------------------------------------------------------------


def test_an_id_is_never_used_twice_and_the_counts_stay_right(
    table: JobStore, worker: Worker
) -> None:
    for expected in range(1, 71):  # one by one: most are counted some time later
        assert add(table) == [expected]
        assert table.counts() == real_counts(table)
    for _ in range(70):
        table.end(take(table, worker), COMPLETED)
    assert add(table) == [71]
    assert table.prune(table.now() + 60) == 70
    assert table.counts() == real_counts(table)
    assert table.clear() == 1
    assert table.counts() == real_counts(table)
    assert add(table) == [72]
    assert table.counts() == real_counts(table)


def test_a_tree_is_forgotten_only_as_a_whole(table: JobStore, worker: Worker) -> None:
    [root] = add(table)
    table.end(take(table, worker), RETRYING)
    table.retry([root])
    table.end(take(table, worker), Outcome("completed", "completed", followups=[new()]))
    later = table.now() + 60
    assert table.prune(later) == 0
    table.end(take(table, worker), FAILED)
    assert table.prune(table.now() - 60) == 0
    assert table.prune(later) == 2
    assert table.find() == []
    assert table.attempts(root) == []
    assert table.counts() == real_counts(table)


def test_a_cancelled_job_that_still_runs_is_not_forgotten(table: JobStore, worker: Worker) -> None:
    [job_id] = add(table)
    claim = take(table, worker)
    table.cancel([job_id])
    assert table.prune(table.now() + 60) == 0
    table.end(claim, COMPLETED)
    assert table.prune(table.now() + 60) == 1


def test_old_follow_ups_of_a_recurring_job_are_forgotten(table: JobStore, worker: Worker) -> None:
    [root] = add(table, new(interval=3600.0))
    table.end(take(table, worker), Outcome("completed", "completed", followups=[new(), new()]))
    first, second = table.children(root)
    table.end(take(table, worker), Outcome("completed", "completed", followups=[new()]))
    [grandchild] = table.children(first)
    take(table, worker)
    assert table.prune(table.now() + 60) == 0  # its own follow-up waits, the other one runs
    table.cancel([grandchild])
    assert table.prune(table.now() + 60) == 2
    assert table.find() == [root, second]
    assert table.counts() == real_counts(table)


def test_clearing_forgets_everything(table: JobStore, worker: Worker) -> None:
    for state in ("completed", "failed", "queued"):
        job_in(table, worker, state)
    assert table.clear() == 3
    assert table.find() == []
    assert table.counts() == real_counts(table)
    assert table.pace(5) == []


def test_notes_are_kept(table: JobStore) -> None:
    assert table.get("last_seen") is None
    table.put("last_seen", "1")
    table.put("last_seen", "2")
    assert table.get("last_seen") == "2"


# A process that ends between two statements --------------------------------------------------

SCRIPT = """
import os, sys
from pathlib import Path
from paise2nb.jobs import Outcome, JobStore, Limits, NewJob

table = JobStore(Path(sys.argv[1]), durable=False)
worker = table.register("default", 4)
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
    "an enqueue": "table.add([NewJob('work', '[]', 1), NewJob('work', '[]', 1, 7)], die)",
    "a completion with follow-ups": (
        "table.end(table.claim(worker, limits), Outcome('completed', 'completed',"
        " followups=Fatal([1])))"
    ),
    "a rescue": (
        "table.claim(worker, limits); table.claim(worker, limits);"
        " table.rescue_jobs(worker.id, die_at_the_second)"
    ),
}


@pytest.mark.parametrize(("crash", "running"), list(zip(CRASHES, (0, 1, 2), strict=True)))
def test_a_crash_between_statements_leaves_nothing_half_done(
    tmp_path: Path, crash: str, running: int
) -> None:
    path = tmp_path / "tasks.db"
    table = JobStore(path, durable=False)
    add(table, new(7))
    table.end(take(table, table.register("default", 1)), COMPLETED)
    add(table, new(), new())
    table.close()

    script = SCRIPT + CRASHES[crash]
    ended = subprocess.run([sys.executable, "-c", script, str(path)], check=False)
    assert ended.returncode == 9

    table = JobStore(path, durable=False)
    states = Counter(row["state"] for row in table.rows(table.find()).values())
    assert states == +Counter({"queued": 2 - running, "running": running, "completed": 1})
    assert table.counts() == real_counts(table)
    assert add(table)
    table.close()


# Random histories ----------------------------------------------------------------------------


class Histories(RuleBasedStateMachine):
    """Random moves on one table; after each, what is counted is what is there."""

    host_delay = DUE

    def __init__(self) -> None:
        super().__init__()
        self.directory = tempfile.TemporaryDirectory()
        path = Path(self.directory.name) / "tasks.db"
        self.table = JobStore(path, durable=False, host_delay=self.host_delay)
        self.workers = [self.table.register("default", threads) for threads in (1, 4)]
        self.claims: list[Claim] = []

    def teardown(self) -> None:
        self.table.close()
        self.directory.cleanup()

    def some(self, numbers: list[int]) -> list[int]:
        ids = self.table.find()
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
        assert len(self.table.add(jobs, lambda *_: fresh).answers) == len(keys)

    @rule(index=st.integers(0, 1))
    def claim(self, index: int) -> None:
        claim = self.table.claim(self.workers[index], LIMITS)
        if claim is not None:
            self.claims.append(claim)

    @rule(
        index=st.integers(0, 99),
        ending=st.sampled_from([SNOOZED, *(ending for ending, _ in OUTCOMES.values())]),
        followups=st.lists(HOSTS, max_size=2),
        claims_next=st.booleans(),
        host_delays=st.sampled_from([(), [HostDelay("a", 0.0, 3600.0)], [HostDelay("b", 5.0)]]),
    )
    def end(
        self,
        index: int,
        ending: Outcome,
        followups: list[str | None],
        claims_next: bool,
        host_delays: list[HostDelay],
    ) -> None:
        if not self.claims:
            return
        claim = self.claims[index % len(self.claims)]  # an old one now and then: refused
        row = self.table.rows([claim.id]).get(claim.id)
        # A snoozed execution gives its run number back, so the time belongs to the token.
        token = (claim.run, claim.started_at)
        is_running = row is not None and row["state"] == "running"
        current = is_running and (row["run"], row["started_at"]) == token
        added = [new(host=host) for host in followups]
        full = Outcome(**{**vars(ending), "followups": added, "host_delays": host_delays})
        worker = next((w for w in self.workers if w.id == claim.worker), None)
        accepted, next_claim = self.table.end(
            claim, full, worker if claims_next else None, LIMITS if claims_next else None
        )
        assert accepted == current
        if next_claim is not None:
            self.claims.append(next_claim)

    @rule(numbers=st.lists(st.integers(0, 99), max_size=5))
    def cancel(self, numbers: list[int]) -> None:
        ids = self.some(numbers)
        moved = self.table.cancel(ids)
        assert all(state_of(self.table, job_id) == "cancelled" for job_id in moved)

    @rule(numbers=st.lists(st.integers(0, 99), max_size=5))
    def retry(self, numbers: list[int]) -> None:
        for job_id in self.table.retry(self.some(numbers)):
            assert state_of(self.table, job_id) in UNFINISHED

    @rule(index=st.integers(0, 1), state=st.sampled_from(["released", "charged", "given up"]))
    def die(self, index: int, state: str) -> None:
        endings = {
            "released": Outcome("released", "queued", isolated=True),
            "charged": Outcome("crashed", "retrying", None, "crash", "died", retry_in=0),
            "given up": Outcome("crashed", "failed", None, "crash", "died"),
        }
        self.table.rescue_jobs(self.workers[index].id, lambda row, only: endings[state])
        self.workers[index] = self.table.register("default", (1, 4)[index])

    @rule(offset=st.sampled_from([-60, 60]))
    def prune(self, offset: int) -> None:
        self.table.prune(self.table.now() + offset)

    @invariant()
    def counts_are_what_is_there(self) -> None:
        assert self.table.counts() == real_counts(self.table)

    @invariant()
    def rows_agree_with_themselves(self) -> None:
        living = {worker.id for worker in self.workers}
        keys: list[int] = []
        for row in self.table.rows(self.table.find()).values():
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
            held = int(state == "running")
            attempts = self.table.attempts(row["id"])
            last = row["run"] + 1 - held
            first = last - len(attempts) if row["interval"] else 1  # old ones of what recurs may go
            assert [a["number"] for a in attempts] == list(range(first, last))
            assert 0 <= row["attempt"] <= row["run"]
            if state in UNFINISHED and row["key"] is not None:
                keys.append(row["key"])
        assert len(keys) == len(set(keys)), "two unfinished jobs with one key"

    @invariant()
    def hosts_are_asked_by_one_job_at_a_time_and_no_line_stands_still(self) -> None:
        rows = self.table.rows(self.table.find()).values()
        placed: dict[str, list[int]] = {}
        for row in rows:
            if row["host_slot"]:
                assert row["state"] in UNFINISHED or row["worker"] is not None
                placed.setdefault(row["host"], []).append(row["host_slot"])
            elif row["host"] is not None and row["state"] in ("queued", "running"):
                assert row["worker"] is not None, "neither in line nor next"
        allowed = 1 if self.host_delay else UNPACED_SLOTS
        for host, places in placed.items():
            turns = places.count(HAS_SLOT)
            assert 1 <= turns <= allowed, (host, places)
            assert turns == allowed or WAITING not in places
        known = self.table.database.read("SELECT host, waiting FROM hosts")
        waiting = {row["host"]: row["waiting"] for row in known if row["waiting"]}
        lines = {host: places.count(WAITING) for host, places in placed.items()}
        assert waiting == {host: number for host, number in lines.items() if number}

    @invariant()
    def trees_hang_together(self) -> None:
        rows = self.table.rows(self.table.find())
        for row in rows.values():
            if row["parent_id"] is None:
                assert row["root_id"] == row["id"]
            else:
                assert rows[row["parent_id"]]["root_id"] == row["root_id"]


class UnpacedHistories(Histories):
    """The same where hosts may be asked by many jobs at once."""

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
