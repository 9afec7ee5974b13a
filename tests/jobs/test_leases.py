"""Leases: only the outcome with the token of the present claim counts."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest

from paise2nb.jobs.leases import Capacity, Lease
from paise2nb.jobs.models import Limits, NewJob, Outcome
from paise2nb.jobs.store import JobStore

POOLS = {"default": {"fetch": Limits(None, None), "any": Limits(None, None)}}
DONE = Outcome("completed", "completed", "1")


@pytest.fixture
def store(tmp_path: Path) -> Iterator[JobStore]:
    with closing(JobStore(tmp_path / "tasks.db", host_delay=0.01)) as store:
        yield store


def machine(store: JobStore, name: str = "m", slots: int = 1, load: int = 0) -> Capacity:
    values: dict[str, Any] = {"host": name, "pid": 1, "about": {}, "problem": None}
    row = store.put_machine(name, values)
    tasks = frozenset({"fetch", "any"})
    return Capacity(row, 1, 1, tasks, frozenset(), {"default": slots}, {}, load)


def claim(store: JobStore, *machines: Capacity) -> list[Lease]:
    return store.exchange([], POOLS, machines)[1]


def end(store: JobStore, token: str, outcome: Outcome = DONE) -> bool:
    accepted, _ = store.exchange([(token, outcome)], {}, [])
    return token in accepted


def state(store: JobStore, job_id: int = 1) -> str:
    return str(store.rows([job_id])[job_id]["state"])


def test_an_outcome_is_accepted_once(store: JobStore) -> None:
    store.add([NewJob("any", "[1]", 1)])
    [lease] = claim(store, machine(store))
    assert state(store) == "running"
    assert not end(store, "0" * 32)
    assert end(store, lease.token)
    assert not end(store, lease.token)
    assert state(store) == "completed"
    assert not store.leases()


def test_a_doubled_outcome_of_a_snoozed_job_ends_no_later_run(store: JobStore) -> None:
    store.add([NewJob("fetch", '["http://a/"]', 1, host="a")])
    [first] = claim(store, machine(store))
    snoozed = Outcome("snoozed", "queued", host="b")
    assert end(store, first.token, snoozed)
    [second] = claim(store, machine(store))
    assert second.claim.run == first.claim.run
    assert not end(store, first.token, snoozed)
    assert state(store) == "running"
    assert end(store, second.token)


def test_machines_get_no_files_no_recurring_jobs_and_nothing_that_only_home_can_do(
    store: JobStore,
) -> None:
    store.add(
        [
            NewJob("fetch", '["/a"]', 1),
            NewJob("any", "[1]", 1, interval=60.0),
            NewJob("other", "[1]", 1),
            NewJob("any", "[2]", 1),
        ]
    )
    [lease] = claim(store, machine(store, slots=9))
    assert lease.claim.id == 4
    assert end(store, lease.token, Outcome("released", "queued", error_class="home"))
    assert not claim(store, machine(store, slots=9))
    assert store.rows([4])[4]["attempt"] == 0


def test_the_jobs_of_a_lost_machine_return_and_its_outcomes_are_refused(store: JobStore) -> None:
    store.add([NewJob("any", f"[{n}]", 1) for n in range(3)])
    leases = claim(store, machine(store, slots=3))
    store.leases_started([leases[0].token])
    seen = []

    def decide(row: dict[str, Any], alone: bool) -> Outcome:
        seen.append((row["id"], row["started"], alone))
        return Outcome("released", "queued", isolated=bool(row["started"]))

    store.lose_machine(leases[0].machine, decide)
    assert sorted(seen) == [(1, 1, True), (2, 0, True), (3, 0, True)]
    assert not any(end(store, lease.token) for lease in leases)
    assert {state(store, job_id) for job_id in (1, 2, 3)} == {"queued"}


def test_a_job_that_must_run_alone_is_the_only_one_of_its_machine(store: JobStore) -> None:
    store.add([NewJob("any", f"[{n}]", 1) for n in range(3)])
    [lease] = claim(store, machine(store))
    assert end(store, lease.token, Outcome("released", "queued", isolated=True))
    assert not claim(store, machine(store, slots=3, load=1))  # it is left to become free
    [alone] = claim(store, machine(store, slots=3))
    assert (alone.claim.id, alone.claim.isolated) == (1, 1)


def test_a_cancelled_job_that_is_retried_waits_until_its_machine_has_left_it(
    store: JobStore,
) -> None:
    store.add([NewJob("any", "[1]", 1)])
    [lease] = claim(store, machine(store))
    store.cancel([1])
    assert store.leases_cancelled() == {lease.token}
    store.retry([1])
    assert not claim(store, machine(store, "other"))
    assert not end(store, lease.token)
    [again] = claim(store, machine(store, "other"))
    assert end(store, again.token)


def test_a_copy_is_another_collection_without_leases(store: JobStore, tmp_path: Path) -> None:
    store.add([NewJob("any", "[1]", 1)])
    first = store.collection()
    assert store.collection() == first
    [lease] = claim(store, machine(store))
    store.checkpoint()
    (tmp_path / "copy").mkdir()
    for file in tmp_path.glob("tasks.db*"):
        if file.is_file():
            shutil.copy(file, tmp_path / "copy")
    with closing(JobStore(tmp_path / "copy" / "tasks.db")) as copy:
        assert copy.collection() != first
        assert state(copy) == "queued"
        assert not end(copy, lease.token)
    assert end(store, lease.token)
