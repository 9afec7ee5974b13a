"""No network, as after a laptop wakes up: the queue pauses, charges no attempt, and resumes."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys

import pytest

from tests.chaos.environment import ROOT, Environment
from tests.chaos.scenarios import Scale, scenario

# Runs in a separate network namespace, where even loopback is down at first.
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
    urls = [site.url(f"/ok?{n}", host=f"127.0.0.{n + 2}") for n in range(int(sys.argv[2]))]
    began = time.monotonic()
    jobs = app.enqueue_many("fetch", urls)
    while not (paused := app.status().paused):
        time.sleep(0.02)
    delay = time.monotonic() - began
    subprocess.run(["ip", "link", "set", "lo", "up"], check=True)
    jobs.wait(timeout=120)
    after = app.status()
    outcomes = {a["outcome"] for job in jobs for a in job.attempts}
    print(json.dumps({
        "paused": paused, "delay": delay, "afterwards": after.paused, "jobs": after.jobs,
        "items": after.items, "attempts": sorted({job.attempt for job in jobs}),
        "outcomes": sorted(outcomes),
    }))
    app.workers.stop(timeout=0)
"""


def has_namespaces() -> bool:
    """Whether a test may create a network namespace on this machine."""
    if not shutil.which("unshare") or not shutil.which("ip"):
        return False
    return (
        subprocess.run(["unshare", "-n", "true"], capture_output=True, check=False).returncode == 0
    )


@scenario(8, "no network", short={"jobs": 40}, full={"jobs": 250})
def test_without_a_network_the_queue_pauses_and_charges_no_attempt(
    environment: Environment, scale: Scale
) -> None:
    if not has_namespaces():
        pytest.skip("machine: no network namespaces")
    number = int(scale["jobs"])
    done = subprocess.run(
        ["unshare", "-n", sys.executable, "-c", PROGRAM, str(environment.data_dir), str(number)],
        cwd=ROOT, capture_output=True, text=True, timeout=240, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    found = json.loads(done.stdout)
    assert found["paused"].startswith("no network: 3 hosts in a row")
    assert found["afterwards"] is None
    assert found["items"] == number
    assert found["jobs"]["failed"] == 0
    assert found["attempts"] == [1]
    assert set(found["outcomes"]) == {"released", "completed"}
    environment.within(found["delay"], 2, "pause shown after")
    environment.figures |= {"lost": 0}
