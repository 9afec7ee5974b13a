"""Machines in network and pid namespaces of their own: cut off, frozen and killed in mid-run."""

from __future__ import annotations

import fcntl
import json
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from paise2nb.app import App
from paise2nb.core.errors import WorkersError
from paise2nb.operate.backup import back_up, restore
from tests.machines import OPEN, SECRET, Place, RedisServer
from tests.namespaces import Host
from tests.site import Site
from tests.waiting import until

HOME = """
import json, sys, paise2nb
app = paise2nb.open("development", data_dir=sys.argv[1], settings=json.loads(sys.argv[2]))
app.workers.start(pool="home", foreground=True)
"""


@pytest.fixture
def place(tmp_path: Path) -> Iterator[Place]:
    place = Place(tmp_path, RedisServer(tmp_path / "redis", *OPEN))
    yield place
    place.close()


def home(place: Place, data: str = "data", **settings: object) -> App:
    app = place.home(data, task_queue__redis__secret=SECRET, **settings)
    app.workers.start(pool="home")
    return app


def runs(gate: Path) -> int:
    """How often the job of a gate has begun."""
    file = Path(f"{gate}.ran")
    return len(file.read_text().splitlines()) if file.exists() else 0


def test_the_jobs_of_machines_that_are_cut_off_frozen_or_killed_run_again(place: Place) -> None:
    app = home(place)
    gates = [place.directory / f"gate-{number}" for number in range(3)]
    for _ in gates:
        place.join_from(Host())
    place.joined(app, 3)
    jobs = app.enqueue_many("hold", [(str(gate), gate.name) for gate in gates])  # one for each
    until(lambda: all(map(runs, gates)))
    store = app.queue.job_store
    until(lambda: sum(lease["started"] for lease in store.leases()) == 3)
    rows = store.machines()
    assert {(row["host"], row["pid"]) for row in rows} == {("lab", 1)}
    cut, frozen, killed = place.machines
    survivor = place.join_from(Host())
    place.joined(app, 4)
    assert cut.host is not None
    cut.host.cut()
    frozen.send(signal.SIGSTOP)
    killed.kill()
    until(lambda: sum(map(runs, gates)) > 3)
    silent_until = time.monotonic() + 2 * app.settings.task_queue.redis.lease
    for gate in gates:
        gate.touch()
    app.wait(timeout=60)
    until(lambda: time.monotonic() > silent_until)
    cut.host.connect()
    frozen.send(signal.SIGCONT)
    place.joined(app, 3)
    until(lambda: not store.leases())
    for job, gate in zip(jobs, gates, strict=True):
        assert runs(gate) == 2
        assert [a["outcome"] for a in job.attempts] == ["released", "completed"]
        assert job.result(0).startswith(str(survivor.directory))
        assert len(job.children) == 1


def test_a_frozen_machine_keeps_a_host_waiting_for_a_shorter_time_than_the_lease(
    place: Place, site: Site
) -> None:
    app = home(
        place,
        task_queue__redis__lease=600,
        fetch__allow_private_addresses=True,
        fetch__host_delay=0.01,
    )
    first = place.join(PAISE2_QUEUE_SECRET=SECRET)
    place.joined(app)
    first.send(signal.SIGSTOP)
    job = app.enqueue("fetch", site.url("/status/200?page=1"))
    until(app.queue.job_store.leases)
    place.join(PAISE2_QUEUE_SECRET=SECRET)
    job.wait(60)
    assert job.page_state == "stored"
    assert [a["outcome"] for a in job.attempts] == ["released", "completed"]


@pytest.mark.slow
def test_a_home_that_is_cut_off_from_redis_alone_runs_no_job_twice(place: Place) -> None:
    host = Host()
    url = f"redis://{host.gateway}:{place.redis.port}/0"
    chosen = {"task_queue__redis__url": url, "task_queue__redis__secret": SECRET}
    app, settings = place.home(**chosen), json.dumps(place.settings(**chosen))
    command = [*host.network, sys.executable, "-c", HOME, str(app.data_dir), settings]
    supervisor = subprocess.Popen(command, stderr=subprocess.DEVNULL)
    try:
        place.join(url=url, PAISE2_QUEUE_SECRET=SECRET)
        place.joined(app)
        gate = place.directory / "gate"
        job = app.enqueue("hold", str(gate), "word")
        until(lambda: runs(gate))
        host.cut()
        cut_until = time.monotonic() + 3 * app.settings.task_queue.redis.lease
        until(lambda: time.monotonic() > cut_until)
        host.connect()
        gate.touch()
        job.wait(60)
        assert runs(gate) == len(job.attempts) == len(job.children) == 1
    finally:
        supervisor.terminate()
        supervisor.wait(60)
        host.close()


def test_a_job_that_is_cancelled_and_retried_across_a_partition_ends_once(place: Place) -> None:
    app = home(place)
    cut = place.join_from(Host())
    place.joined(app)
    gate = place.directory / "gate"
    job = app.enqueue("hold", str(gate), "word")
    until(lambda: runs(gate))
    assert cut.host is not None
    cut.host.cut()
    job.cancel()
    job.retry()
    other = place.join_from(Host())
    until(lambda: runs(gate) == 2)
    gate.touch()
    job.wait(60)
    cut.host.connect()
    place.joined(app, 2)
    assert job.result(0).startswith(str(other.directory))
    assert [a["outcome"] for a in job.attempts] == ["cancelled", "completed"]
    assert len(job.children) == 1


def test_a_restored_backup_takes_no_outcome_of_the_time_before(place: Place) -> None:
    app = home(place)
    place.join(PAISE2_QUEUE_SECRET=SECRET)
    place.joined(app)
    gate, backup = place.directory / "gate", place.directory / "backup"
    job = app.enqueue("hold", str(gate), "word")
    until(lambda: runs(gate))
    back_up(app, backup)
    app.workers.stop()
    gate.touch()  # the outcome is for a home that does not come back
    data = place.directory / "restored"
    restore(backup, app.settings.override({"data_dir": str(data)}, "test"))
    restored = home(place, data="restored")
    restored.wait(timeout=60)
    assert runs(gate) == 2
    again = restored.job(job.id)
    assert [a["outcome"] for a in again.attempts] == ["released", "completed"]
    assert len(again.children) == 1
    assert restored.queue.job_store.collection() != app.queue.job_store.collection()


@pytest.mark.slow
def test_a_copied_directory_is_refused_its_queue_and_leaves_the_original_alone(
    place: Place,
) -> None:
    app = home(place)
    place.join(PAISE2_QUEUE_SECRET=SECRET)
    place.joined(app)
    gate = place.directory / "gate"
    job = app.enqueue("hold", str(gate), "word")
    until(lambda: runs(gate))
    with (app.data_dir / "tasks.db.lock").open() as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)  # so that the copy is consistent
        subprocess.run(["cp", "-a", app.data_dir, place.directory / "copy"], check=True)
    with pytest.raises(WorkersError, match=r"has a home already: .*/data/tasks\.db on "):
        home(place, data="copy")
    place.home("copy").workers.stop()
    copy = home(place, data="copy", task_queue__redis__name="other")
    until(lambda: copy.job(job.id).state == "queued")
    assert [a["outcome"] for a in copy.job(job.id).attempts] == ["released"]
    gate.touch()
    job.wait(60)
    assert runs(gate) == len(job.attempts) == len(job.children) == 1
