"""What Huey can't do on a job store says what to use; what it can do is right."""

from __future__ import annotations

import datetime
import re
import subprocess
import sys
from collections.abc import Callable
from typing import Any

import pytest
from huey import crontab, signals
from huey.api import chord, group

from paise2nb.app import App
from paise2nb.core.errors import UsageError
from paise2nb.workers.huey_interface import SENT
from tests import example_plugin

PLUGIN = example_plugin.SOURCE

Use = Callable[[Any, Any], object]
REFUSED: dict[str, Use] = {
    "a call": lambda huey, add: add(1, 2),
    "enqueue": lambda huey, add: huey.enqueue(add.s(1, 2)),
    "schedule by delay": lambda huey, add: add.schedule((1, 2), delay=5),
    "schedule by time": lambda huey, add: add.schedule((1, 2), eta=datetime.datetime(2030, 1, 1)),
    "add_schedule": lambda huey, add: huey.add_schedule(add.s(1, 2)),
    "map": lambda huey, add: add.map([(1, 2)]),
    "then": lambda huey, add: add.s(1, 2).then(add, 3),
    "error": lambda huey, add: add.s(1, 2).error(add),
    "group": lambda huey, add: huey.enqueue(group([add.s(1, 2)])),
    "chord": lambda huey, add: huey.enqueue(chord([add.s(1, 2)], add.s())),
    "periodic_task": lambda huey, add: huey.periodic_task(crontab(minute="*")),
    "revoke": lambda huey, add: add.revoke(),
    "revoke_by_id": lambda huey, add: huey.revoke_by_id("1"),
    "revoke_all": lambda huey, add: huey.revoke_all(add),
    "restore": lambda huey, add: add.restore(),
    "restore_by_id": lambda huey, add: huey.restore_by_id("1"),
    "is_revoked": lambda huey, add: add.is_revoked(),
    "is_revoked by id": lambda huey, add: huey.is_revoked("1"),
    "result": lambda huey, add: huey.result("1"),
    "all_results": lambda huey, add: huey.all_results(),
    "result_count": lambda huey, add: huey.result_count(),
    "get": lambda huey, add: huey.get("k"),
    "put": lambda huey, add: huey.put("k", 1),
    "put_if_empty": lambda huey, add: huey.put_if_empty("k", 1),
    "delete": lambda huey, add: huey.delete("k"),
    "lock_task": lambda huey, add: huey.lock_task("x"),
    "is_locked": lambda huey, add: huey.is_locked("x"),
    "flush_locks": lambda huey, add: huey.flush_locks(),
    "rate_limit": lambda huey, add: huey.rate_limit("x", 2, 60),
    "flush": lambda huey, add: huey.flush(),
    "immediate": lambda huey, add: setattr(huey, "immediate", True),
    "a consumer": lambda huey, add: huey.create_consumer(),
    "a signal": lambda huey, add: huey.signal(signals.SIGNAL_ENQUEUED),
    "the storage's queue": lambda huey, add: huey.storage.enqueue(b"x"),
    "the storage's data": lambda huey, add: huey.storage.put_data("k", b"x"),
    "the storage's counters": lambda huey, add: huey.storage.incr("k"),
    "the storage's results": lambda huey, add: huey.storage.result_items(),
}


@pytest.mark.parametrize("what", REFUSED)
def test_what_does_not_work_says_in_one_sentence_what_to_use(waiting: App, what: str) -> None:
    huey = waiting.queue.huey

    @huey.task()
    def add(a: int, b: int) -> int:
        return a + b

    with pytest.raises(UsageError) as caught:
        REFUSED[what](huey, add)
    assert re.fullmatch(r"Huey's .+ does not work on a job store; use \S.*", str(caught.value))
    assert waiting.status().jobs["queued"] == 0
    assert add.call_local(1, 2) == 3


def test_the_jobs_that_wait_are_read_as_huey_tasks(waiting: App) -> None:
    waiting.enqueue("echo", "a")
    waiting.enqueue("shout", "b")
    waiting.enqueue("echo", "c", delay=60)
    huey = waiting.queue.huey
    assert (len(huey), huey.pending_count(), huey.scheduled_count()) == (2, 2, 1)
    assert [(task.name, task.args) for task in huey.pending()] == [
        ("echo", ("a",)),
        ("shout", ("b",)),
    ]
    assert [task.id for task in huey.pending(1)] == ["1"]
    [later] = huey.scheduled()
    left = later.eta - datetime.datetime.now(datetime.UTC).replace(tzinfo=None)
    assert (later.name, later.args) == ("echo", ("c",))
    assert 0 < left.total_seconds() <= 60


def test_immediate_tells_where_jobs_run(app: App, make: Callable[..., App]) -> None:
    assert app.queue.immediate is True
    app.queue.immediate = True
    background = make("development")
    assert background.queue.immediate is False
    background.queue.immediate = False


def test_the_signals_that_are_sent_can_be_received(app: App) -> None:
    seen: list[str] = []
    app.queue.signal(*SENT)(lambda name, task, *rest: seen.append(f"{name} {task.name}"))
    app.enqueue("echo", "x")
    app.enqueue("stumble", "x")
    assert seen == ["executing echo", "complete echo", "executing stumble", "error stumble"]


def test_redis_is_imported_only_by_a_huey_on_redis() -> None:
    program = (
        "import sys, paise2nb.app; from huey import RedisHuey, storage; "
        "assert 'redis' not in sys.modules; "
        "conn = RedisHuey('a', port=1).storage.conn; "
        "import redis; assert isinstance(conn, redis.Redis); "
        "assert storage.ConnectionError is redis.exceptions.ConnectionError"
    )
    subprocess.run([sys.executable, "-c", program], check=True)
