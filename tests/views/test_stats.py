"""Statistics: each execution is counted once, as what it was, in the groups that it belongs to."""

from __future__ import annotations

import math
import random
import sys
import time
from collections import Counter
from datetime import datetime

import pytest
from matplotlib.dates import num2date

from paise2nb.core.errors import PaiseError, UsageError
from paise2nb.jobs.history import GROWTH, LONGEST, SHORTEST, bucket, quantile
from paise2nb.jobs.models import Limits, NewJob, Outcome, Worker
from paise2nb.jobs.statistics import DAY, HOSTS, HOUR, OTHER_HOSTS
from paise2nb.jobs.store import JobStore
from paise2nb.views.stats import Stats, take_stats
from tests.job_stores import Clock

TASKS = {name: Limits(None, None) for name in ("fetch", "extract", "store", "count")}
DONE = Outcome("completed", "completed", "null")
TIMEOUT = Outcome("failed", "retrying", None, "timeout", "too slow", retry_in=60.0)
GONE = Outcome("failed", "failed", None, "http_4xx", "404 Not Found")
CRASH = Outcome("crashed", "retrying", None, "crash", "died", retry_in=10.0)
RELEASED = Outcome("released", "queued")


def run(
    store: JobStore, worker: Worker, clock: Clock, outcome: Outcome = DONE, *, seconds: float = 1
) -> None:
    """Run the next job for some seconds."""
    claim = store.claim(worker, TASKS)
    assert claim is not None
    clock.now += seconds
    assert store.end(claim, outcome)


@pytest.mark.parametrize("seed", range(5))
def test_a_quantile_is_at_most_4_4_percent_off(seed: int) -> None:
    numbers = random.Random(seed)
    durations = sorted(numbers.lognormvariate(0, 2) for _ in range(2000))
    buckets = Counter(map(bucket, durations))
    for q in (0.01, 0.5, 0.95, 0.99, 1.0):
        exact = durations[math.ceil(q * len(durations)) - 1]
        assert quantile(buckets, q) == pytest.approx(exact, rel=0.0434)


def test_every_duration_has_a_bucket() -> None:
    assert bucket(-5) == bucket(0) == bucket(0.0005) == SHORTEST
    assert bucket(1e9) == LONGEST
    assert [bucket(GROWTH ** (i - 0.5)) for i in (-70, 0, 8)] == [-70, 0, 8]
    assert quantile({}, 0.5) is None


def test_executions_are_counted_as_what_they_were(
    store: JobStore, worker: Worker, clock: Clock
) -> None:
    store.add([NewJob("count", f"[{n}]", 4) for n in range(5)])
    for outcome in (DONE, TIMEOUT, GONE, CRASH, RELEASED):
        run(store, worker, clock, outcome)
    store.claim(worker, TASKS)  # the released job runs again
    [row] = take_stats(store).to_dicts()
    counts = {name: row[name] for name in ("group", "started", "completed", "failed", "retried")}
    assert counts == {"group": "count", "started": 6, "completed": 1, "failed": 1, "retried": 2}
    errors = {row["group"]: row for row in take_stats(store, by="error").to_dicts()}
    assert {name: (row["failed"], row["retried"]) for name, row in errors.items()} == {
        "timeout": (0, 1), "http_4xx": (1, 0), "crash": (0, 1),
    }  # fmt: skip


def test_groups_are_tasks_pools_or_hosts(store: JobStore, clock: Clock) -> None:
    for number in range(3):
        store.add([NewJob("fetch", f"[{number}]", 4, host=f"{number % 2}.example")])
        run(store, store.register(f"pool {number}", 1), clock)
    store.add([NewJob("count", "[]", 4)])
    run(store, store.register("pool 0", 1), clock)

    def groups(by: str) -> dict[str, int]:
        return {row["group"]: row["completed"] for row in take_stats(store, by=by).to_dicts()}

    assert groups("task") == {"fetch": 3, "count": 1}
    assert groups("pool") == {"pool 0": 2, "pool 1": 1, "pool 2": 1}
    assert groups("host") == {"0.example": 2, "1.example": 1}
    assert groups("error") == {}
    with pytest.raises(UsageError, match="task, pool, host, error"):
        take_stats(store, by="tag")
    with pytest.raises(UsageError, match="not a time span"):
        take_stats(store, "yesterday")


def test_a_job_waits_from_the_time_when_it_could_have_been_started(
    store: JobStore, worker: Worker, clock: Clock
) -> None:
    def waited() -> float:
        [row] = take_stats(store, 60).to_dicts()
        clock.now += 120 - clock.now % 60
        return float(row["wait_p50"])

    store.add([NewJob("count", "[]", 4)])
    clock.now += 8
    run(store, worker, clock, TIMEOUT)  # tried again after 60 s
    assert waited() == pytest.approx(8, rel=0.05)
    [job] = store.rows(store.find()).values()
    clock.now = job["due_at"] + 2
    run(store, worker, clock, GONE)
    assert waited() == pytest.approx(2, rel=0.05)
    clock.now += 500
    store.retry(store.find())
    clock.now += 4
    run(store, worker, clock, RELEASED)
    assert waited() == pytest.approx(4, rel=0.05)
    store.cancel(store.find())
    store.add([NewJob("count", "[2]", 4, delay=3600.0)])
    clock.now += 3616
    run(store, worker, clock)
    assert waited() == pytest.approx(16, rel=0.05)


def test_a_snoozed_execution_only_waits_longer(
    store: JobStore, worker: Worker, clock: Clock
) -> None:
    store.add([NewJob("count", "[]", 4)])
    clock.now += 5
    run(store, worker, clock, Outcome("snoozed", "queued", resume="[]"), seconds=0.5)
    clock.now += 10.5
    run(store, worker, clock)
    [row] = take_stats(store).to_dicts()
    assert row["started"] == row["completed"] == 1
    assert row["wait_p50"] == pytest.approx(16, rel=0.05)


def test_the_time_of_interrupted_executions_says_nothing(
    store: JobStore, worker: Worker, clock: Clock
) -> None:
    store.add([NewJob("count", "[]", 4)])
    run(store, worker, clock, RELEASED, seconds=50)
    claim = store.claim(worker, TASKS)
    assert claim is not None
    clock.now += 50
    store.cancel([claim.id])
    [row] = take_stats(store).to_dicts()
    assert (row["started"], row["failed"], row["run_p50"]) == (2, 0, None)


def test_failures_of_an_outage_become_releases(
    store: JobStore, worker: Worker, clock: Clock
) -> None:
    store.add([NewJob("count", "[]", 4)])
    claim = store.claim(worker, TASKS)
    assert claim is not None
    clock.now += 1
    store.end(claim, GONE)
    assert store.ended_since(clock.now - 60) == (0, 1)
    assert store.refund([claim]) == []
    assert take_stats(store).to_dicts()[0]["failed"] == 0
    assert store.ended_since(clock.now - 60) == (0, 0)


def test_rates_of_pages_are_for_alerts(store: JobStore, worker: Worker, clock: Clock) -> None:
    began = clock.now
    item = Outcome("completed", "completed", '{"item": 1}')
    for last in (item, GONE, item, item):
        store.add([NewJob("fetch", "[]", 4)])
        for outcome in (
            Outcome("completed", "completed", "null", followups=[NewJob("extract", "[]", 4)]),
            Outcome("completed", "completed", "null", followups=[NewJob("store", "[]", 4)]),
            last,
        ):
            run(store, worker, clock, outcome)
    assert (store.stored(began), store.ended_since(began)) == (3, (3, 1))
    assert (store.stored(clock.now + 1), store.ended_since(clock.now + 1)) == (0, (0, 0))


def test_the_history_becomes_coarser_and_loses_nothing(
    store: JobStore, worker: Worker, clock: Clock
) -> None:
    def totals() -> list[dict[str, object]]:
        return take_stats(store, 2e9).to_dicts()

    def rows() -> int:
        return len(store._read("SELECT 1 FROM history"))

    numbers = random.Random(1)
    for _ in range(400):
        store.add([NewJob("count", "[]", 4, host=f"{numbers.randrange(30)}.example")])
        clock.now += 10
        run(store, worker, clock, seconds=numbers.choice([1, 2]))
    before, sizes = totals(), [rows()]
    for age in (2 * DAY, 40 * DAY, 400 * DAY):
        clock.now += age
        store.prune(0)
        assert totals() == before
        sizes.append(rows())
        store.roll_up()
        assert rows() == sizes[-1]
    assert sizes == sorted(sizes, reverse=True)
    assert take_stats(store, 366 * DAY).to_dicts() == []
    assert store.ended_since(0) == (400, 0)
    hosts = {row["group"]: row["started"] for row in take_stats(store, 2e9, "host").to_dicts()}
    assert sum(hosts.values()) == 400
    assert OTHER_HOSTS in hosts
    assert len(hosts) <= HOSTS + 1


def test_a_day_is_known_to_the_minute_and_a_month_to_the_hour(
    store: JobStore, worker: Worker, clock: Clock
) -> None:
    now = clock.now - clock.now % DAY
    ages = [960, *range(725, 715, -1), *range(205, 195, -1), *range(30, -1, -1)]  # in hours
    for age in ages:
        clock.now = now - age * HOUR - 1
        store.add([NewJob("count", "[]", 4)])
        run(store, worker, clock, seconds=1)
    store.roll_up()
    for hours in (1, 23, 24, 200, 30 * 24):
        [row] = take_stats(store, hours * HOUR).to_dicts()
        # That which ended at the beginning, too.
        assert row["completed"] == sum(age <= hours for age in ages)


def test_the_table_shows_durations_in_words(store: JobStore, worker: Worker, clock: Clock) -> None:
    assert "nothing has run in this time" in str(take_stats(store))
    store.add([NewJob("count", "[]", 4)])
    clock.now += 90
    run(store, worker, clock, seconds=0.25)
    stats = take_stats(store)
    title, heading, row = str(stats).splitlines()
    assert title.endswith("by task")
    assert heading.split()[:5] == ["group", "started", "completed", "failed", "retried"]
    assert row.split()[:5] == ["count", "1", "1", "0", "0"]
    assert "1 min 2" in row
    assert ">count</td>" in stats._repr_html_()
    frame = stats.to_frame()
    assert list(frame.columns) == list(stats.keys)
    assert frame["run_p50"][0] == pytest.approx(0.25, rel=0.05)


def test_the_plot_has_what_completed_and_failed(
    store: JobStore, worker: Worker, clock: Clock, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("MPLBACKEND", "agg")
    store.add([NewJob("count", f"[{n}]", 4) for n in range(10)])
    for number in range(10):
        run(store, worker, clock, GONE if number % 5 == 0 else DONE)
    axes = take_stats(store).plot()
    heights = [sum(bar.get_height() for bar in bars) for bars in axes.containers]
    assert heights == [8, 2]
    assert [text.get_text() for text in axes.get_legend().get_texts()] == ["completed", "failed"]


def test_the_plot_is_in_local_time(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MPLBACKEND", "agg")
    monkeypatch.setenv("TZ", "UTC-9")
    time.tzset()
    try:
        now = time.time()
        stats = Stats([], since=now - 600, by="task", ended=lambda: [(now, 1, 0)])
        [[bar], _] = stats.plot().containers
        assert num2date(bar.get_x()).hour == datetime.fromtimestamp(now).hour
    finally:
        monkeypatch.undo()
        time.tzset()


def test_the_plot_names_what_to_install(store: JobStore, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "matplotlib", None)
    with pytest.raises(PaiseError, match=r"pip install 'paise2nb\[plot\]'"):
        take_stats(store).plot()
