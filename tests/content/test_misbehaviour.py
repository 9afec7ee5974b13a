"""Real workers fetch from a site that misbehaves in every way.

Each URL has the right outcome after the right number of attempts, and no request comes too early.
"""

from __future__ import annotations

import math
import time
from email.utils import formatdate
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest

import paise2nb
from tests.site import Site, Visit

SETTINGS: dict[str, Any] = {
    "workers.concurrency": 1, "fetch.host_delay": 0,
    "fetch.robots": False, "fetch.allow_private_addresses": True,
    "workers.pools": {"fetch": {"tasks": ["fetch"], "threads": 32}},
    "workers.retry.max_retries": 2, "workers.retry.retry_delay": 0.05, "workers.retry.backoff": 1,
    "workers.retry.policies": {
        "timeout": {"max_retries": 1}, "throttled": {"max_retries": 1},
        "fetch.http_5xx": {"max_retries": 3},
    },
}  # fmt: skip
DONE = "completed"
ENDS = {
    # path: state or error class, attempts, requests
    "/ok": (DONE, 1, 1),
    "/ok?utm_source=x#part": (DONE, 1, 1),
    "/busy/2": (DONE, 3, 3),
    "/busy/9": ("http_5xx", 4, 4),
    "/redirect/5": (DONE, 1, 6),
    "/redirect/6": ("redirects", 1, 6),
    "/loop": ("redirects", 1, 1),
    "/to?url=file:///etc/passwd": ("blocked", 1, 1),
    "/to?url=ftp://example.org/": ("blocked", 1, 1),
    "/to?url=http://[x/": ("bad_address", 1, 1),
    "/status/302": ("redirects", 1, 1),
    "/status/304": ("redirects", 1, 1),
    "/status/400": ("http_4xx", 1, 1),
    "/status/401": ("http_4xx", 1, 1),
    "/status/404": ("http_4xx", 1, 1),
    "/status/408": ("timeout", 2, 2),
    "/status/410": ("http_4xx", 1, 1),
    "/status/425": ("timeout", 2, 2),
    "/status/429": ("throttled", 2, 2),
    "/status/429?after=1": ("throttled", 2, 2),
    "/status/451": ("http_4xx", 1, 1),
    "/status/500": ("http_5xx", 4, 4),
    "/status/502?after=1": ("http_5xx", 4, 4),
    "/status/503": ("http_5xx", 4, 4),
    "/status/503?after=1": ("throttled", 2, 2),
    "/until": (DONE, 2, 2),
    "/cut": (DONE, 1, 1),
    "/close": ("connection", 3, 3),
    "/damaged": ("connection", 3, 3),
    "/endless": ("too_large", 1, 1),
    "/bomb": ("too_large", 1, 1),
    "/bomb/br": ("too_large", 1, 1),
    "/bomb/zstd": ("too_large", 1, 1),
    "/hollow": ("too_large", 1, 1),
    "/unasked": ("unsupported", 1, 1),
    "/picture": ("unsupported", 1, 1),
    "/empty": ("empty", 1, 1),
}
NEVER_END = {
    "/hang": ("timeout", 2, 2),
    "/drip": ("timeout", 2, 2),
    "/drip-headers": ("timeout", 2, 2),
    "/to?url=/hang": ("timeout", 2, 4),
}
AFTER = {"after=1": 1.0, "/until": 1.0}  # seconds that a refusal asks for
asked_until: list[float] = []


def until(visit: Visit, argument: str) -> None:
    """Refuse with a date in Retry-After until that date, then answer with a page."""
    if asked_until:
        visit.answer()
        return
    asked_until.append(math.ceil(time.time()) + 1.0)
    date = formatdate(asked_until[0], usegmt=True)
    visit.answer(b"Busy.", "text/plain", status=503, headers={"Retry-After": date})


@pytest.mark.parametrize(
    ("timeout", "ends"), [(60, ENDS), (1, NEVER_END)], ids=["with an end", "without an end"]
)
def test_each_url_has_the_right_outcome_after_the_right_number_of_attempts(
    tmp_path: Path, timeout: float, ends: dict[str, tuple[str, int, int]]
) -> None:
    asked_until.clear()
    settings = {**SETTINGS, "fetch.timeout": timeout}
    with Site("0.0.0.0") as site, paise2nb.open("development", tmp_path / "data", settings) as app:
        site.on("/until", until)
        site.add("/picture", b"\x89PNG\r\n\x1a\n", "image/png")
        site.add("/empty", b"<html></html>")
        # Each has a host of its own, so that a pause at one does not delay the others.
        hosts = {f"127.0.1.{number}": path for number, path in enumerate(ends, 1)}
        app.workers.start()
        try:
            urls = [site.url(path, host) for host, path in hosts.items()]
            jobs = app.enqueue_many("fetch", urls).wait(timeout=180)
        finally:
            app.workers.stop(timeout=0)
        found = {}
        for job, (host, path) in zip(jobs, hosts.items(), strict=True):
            visits = [r.at for r in site.requests if r.headers["Host"] == f"{host}:{site.port}"]
            worse = [(one.state, one.error_class) for one in job.tree if one.state != DONE]
            [(state, word)] = worse or [(DONE, None)]
            assert state in (DONE, "failed")
            found[path] = (word or state, job.attempt, len(visits))
            least = next((s for sign, s in AFTER.items() if sign in path), 0.0)
            assert all(later - earlier >= least for earlier, later in pairwise(visits)), path
        assert found == ends
        assert len(app.items()) == sum(end == DONE for end, _, _ in ends.values())
        for page in app.jobs(state="failed"):
            [job] = [one for one in page.tree if one.state == "failed"]
            assert (job.attempts[-1]["outcome"], job.attempts[-1]["retry_in"]) == ("failed", None)
