"""The network is back in the moment in which its outage is noticed."""

from __future__ import annotations

import errno
import json
import logging

from paise2nb.jobs.models import Limits, NewJob, Worker
from paise2nb.jobs.store import JobStore
from paise2nb.workers.outage import MIN_UNREACHABLE_HOSTS, OutageMonitor


def test_an_outage_that_another_thread_ends_at_once_is_not_shown_any_more(
    store: JobStore, worker: Worker
) -> None:
    monitor = OutageMonitor(store, [])
    hosts = range(MIN_UNREACHABLE_HOSTS)
    store.add([NewJob("fetch", json.dumps([f"http://h{n}.example/"]), 1) for n in hosts])

    class OtherThread(logging.Handler):
        """Its fetch succeeds between the notice of the outage and whatever follows."""

        def emit(self, record: logging.LogRecord) -> None:
            monitor.recovered("fetch")

    handler, logger = OtherThread(logging.WARNING), logging.getLogger("paise2nb.workers.queue")
    logger.addHandler(handler)
    try:
        offline = OSError(errno.ENETUNREACH, "no network")
        for _ in hosts:
            claim = store.claim(worker, {"fetch": Limits(None, None)})
            assert claim is not None
            is_outage = monitor.is_outage(claim, offline)
    finally:
        logger.removeHandler(handler)
    assert is_outage
    assert monitor.paused_tasks() == set()
    assert store.get("paused") == "null"
