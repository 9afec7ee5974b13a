"""No network, as after a laptop's sleep: the queue pauses, charges nobody and goes on by itself."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

# Runs in a network namespace of its own, where even loopback is down at first.
PROGRAM = """
import json, subprocess, sys, time
from pathlib import Path
import paise2nb
from tests.site import Site

settings = {
    "fetch.allow_private_addresses": True, "fetch.host_delay": 0, "fetch.robots": False,
    "workers.concurrency": 1, "workers.retry.max_retries": 1, "workers.retry.retry_delay": 0.2,
}
with Site("0.0.0.0") as site, paise2nb.open("development", sys.argv[1], settings) as app:
    app.workers.start()
    urls = [site.url(f"/ok?{n}", host=f"127.0.0.{n + 2}") for n in range(40)]
    jobs = app.enqueue_many("fetch", urls)
    while not (paused := app.status().paused):
        time.sleep(0.02)
    subprocess.run(["ip", "link", "set", "lo", "up"], check=True)
    jobs.wait(timeout=120)
    after = app.status()
    outcomes = {a["outcome"] for job in jobs for a in job.attempts}
    print(json.dumps({
        "paused": paused, "afterwards": after.paused, "jobs": after.jobs, "items": after.items,
        "attempts": sorted({job.attempt for job in jobs}), "outcomes": sorted(outcomes),
    }))
    app.workers.stop(timeout=0)
"""


def has_namespaces() -> bool:
    """Whether this machine lets a test have a network of its own."""
    if not shutil.which("unshare") or not shutil.which("ip"):
        return False
    return (
        subprocess.run(["unshare", "-n", "true"], capture_output=True, check=False).returncode == 0
    )


@pytest.mark.skipif(not has_namespaces(), reason="machine: no network namespaces")
def test_without_a_network_the_queue_pauses_and_no_attempt_is_spent(tmp_path: Path) -> None:
    done = subprocess.run(
        ["unshare", "-n", sys.executable, "-c", PROGRAM, str(tmp_path / "data")],
        cwd=Path(__file__).parents[1], capture_output=True, text=True, timeout=240, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    found = json.loads(done.stdout)
    assert found["paused"].startswith("no network: 3 hosts in a row")
    assert found["afterwards"] is None
    assert found["items"] == 40
    assert found["jobs"]["failed"] == 0
    assert found["attempts"] == [1]
    assert set(found["outcomes"]) == {"released", "completed"}
