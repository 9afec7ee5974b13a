"""The effect of hostile content on real workers: ``python -m tests.benchmarks.hostile``.

Every trap of `tests.hostile` and ``--documents`` (10,000) damaged documents go through fetch,
extract and store. Bombs of ten gigabytes come over HTTP in every encoding, and feeds and sitemaps
use entity expansion. Prints the largest resident memory of a worker, the outcomes of the jobs, and
whether all workers are still there. The exit status is 1 if a promise is broken.
"""

from __future__ import annotations

import argparse
import tempfile
import threading
from collections import Counter
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path

import paise2nb
from paise2nb.app import App
from tests import hostile
from tests.site import Site

MOST_MB = 500  # that a worker may ever hold
SETTINGS = {
    "workers.concurrency": 2, "workers.memory_mb": 230, "workers.timeout": 120,
    "workers.retry.max_retries": 0, "workers.retry.policies": {"crash": {"retry_delay": 0}},
    "fetch.allow_private_addresses": True, "fetch.host_delay": 0, "fetch.robots": False,
}  # fmt: skip


@dataclass
class Report:
    """What was measured."""

    peak_mb: float = 0.0
    ends: Counter[str] = field(default_factory=Counter)  # of jobs: state, and word of the error
    unfinished: int = 0
    unexplained: int = 0  # failed without a reason
    started: int = 0
    left: int = 0

    def problems(self) -> list[str]:
        """The promises that are broken."""
        found = [f"{self.unfinished} jobs are unfinished"] * bool(self.unfinished)
        found += [f"{self.unexplained} jobs failed without a reason"] * bool(self.unexplained)
        found += [f"a worker held {self.peak_mb:.0f} MB"] * (self.peak_mb >= MOST_MB)
        found += [f"{self.left} of {self.started} workers are left"] * (self.left != self.started)
        return found

    def __str__(self) -> str:
        ends = "".join(f"\n{number:8,} {end}" for end, number in sorted(self.ends.items()))
        return f"largest memory of a worker: {self.peak_mb:.0f} MB; jobs:{ends}"


def put(folder: Path, documents: int) -> None:
    """Write the traps and that many damaged documents into a folder."""
    for name, data in hostile.traps().items():
        (folder / name).write_bytes(data)
    for number in range(documents):
        suffix, data = hostile.fuzzed(number)
        (folder / f"{number:05d}{suffix}").write_bytes(data)


def serve(site: Site) -> list[tuple[str, str]]:
    """Add bombs and entity expansion to a site; returns the tasks and URLs to enqueue."""
    bombs = {
        "gzip": hostile.gzip_bomb, "br": hostile.brotli_bomb, "zstd": hostile.zstd_bomb,
    }  # fmt: skip
    jobs = [
        ("fetch", site.add(f"/{name}", make(10), headers={"Content-Encoding": name}))
        for name, make in bombs.items()
    ]
    for task, data in (("feed", hostile.FEED), ("sitemap", hostile.SITEMAP)):
        jobs.append((task, site.add(f"/laughing-{task}", hostile.laughing(data), "text/xml")))
        jobs.append((task, site.add(f"/deep-{task}", data[:30] + b"<item>" * 600_000)))
    jobs.append(("sitemap", site.add("/sitemap.xml.gz", hostile.gzip_bomb(10))))
    jobs.append(("links", site.add("/links", b"<a href=/ok>x</a>" * 100_000)))
    return jobs


def watch(app: App, report: Report, stop: threading.Event) -> None:
    """Record the largest memory of any worker until the event is set."""
    while not stop.wait(0.02):
        for worker in app.workers.status().workers:
            with suppress(OSError):
                lines = Path(f"/proc/{worker['pid']}/status").read_text().splitlines()
                peak = next((line for line in lines if line.startswith("VmHWM")), "x 0 kB")
                report.peak_mb = max(report.peak_mb, int(peak.split()[1]) / 1024)


def run(place: Path, documents: int, seconds: float) -> Report:
    """Process everything with real workers."""
    folder = place / "documents"
    folder.mkdir(parents=True)
    put(folder, documents)
    report, stop = Report(), threading.Event()
    with Site() as site, paise2nb.open("development", place / "data", SETTINGS) as app:
        report.started = len(app.workers.start().workers)
        watcher = threading.Thread(target=watch, args=(app, report, stop))
        watcher.start()
        try:
            for task, url in serve(site):
                app.enqueue(task, url)
            app.enqueue("folder", str(folder))
            with suppress(paise2nb.Timeout):
                app.wait(seconds)
            report.unfinished = app.queue.job_store.busy()
            # A worker that died with the last job is being replaced.
            while not report.unfinished and app.queue.job_store.claimed():
                stop.wait(0.02)
            report.left = len(app.workers.start().workers)
        finally:
            stop.set()
            watcher.join()
            app.workers.stop(timeout=0)
        for job in app.jobs().to_dicts():
            failed = job["state"] == "failed"
            report.unexplained += failed and not (job["error"] and job["error_class"])
            word = f" {job['error_class']}" if failed else ""
            report.ends[f"{job['task']} {job['state']}{word}"] += 1
    return report


def main() -> None:
    """Run and print."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--documents", type=int, default=10_000)
    parser.add_argument("--seconds", type=float, default=7200)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as place:
        report = run(Path(place), options.documents, options.seconds)
    print(report)
    for problem in report.problems():
        print(f"BROKEN PROMISE: {problem}")
    raise SystemExit(bool(report.problems()))


if __name__ == "__main__":
    main()
