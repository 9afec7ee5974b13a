"""Metrics for Prometheus, and how it gets them: from a server, or from a file."""

import copy
import re
import shutil
import sqlite3
import time
from collections import Counter, defaultdict
from collections.abc import Iterator, Mapping
from pathlib import Path
from threading import Lock, Thread
from types import SimpleNamespace
from typing import Any

from prometheus_client import CollectorRegistry, generate_latest, start_http_server
from prometheus_client.core import (
    CounterMetricFamily,
    GaugeMetricFamily,
    HistogramMetricFamily,
    Metric,
)
from prometheus_client.openmetrics.exposition import generate_latest as generate_openmetrics

from paise2nb.app import App
from paise2nb.core.display import Message
from paise2nb.core.errors import PaiseError, UsageError
from paise2nb.core.files import write_atomically
from paise2nb.core.processes import resident_mb
from paise2nb.core.version import __version__
from paise2nb.jobs.history import Series, Sums, value
from paise2nb.jobs.models import HERE, RUNNING
from paise2nb.jobs.statistics import OTHER_HOSTS

HOSTS = 20  # with the most waiting jobs; the others are added up
ERROR_CLASSES = 50  # the most frequent ones; a plugin may make up any number of them
OTHER = "(other)"
BOUNDS = tuple(4.0**n for n in range(-4, 7))  # seconds; they are bounds of buckets of the history
SETTLED_SECONDS = 300.0  # after which the history changes no more, but for its resolution
SIZES_SECONDS = 300.0  # for which the sizes of the cache and the index are not measured again


class Collector:
    """Reads the metrics of one app.

    Args:
        app: The app, which stays open.
    """

    def __init__(self, app: App) -> None:
        self._app = app
        self._store = app.queue.job_store
        self._lock = Lock()
        self._settled: dict[Series, Sums] = {}
        self._settled_until = 0.0
        self._sizes: tuple[float, dict[str, int]] = (float("-inf"), {})

    def collect(self) -> Iterator[Metric]:
        """Read all metrics."""
        yield self._gauge(
            "info",
            "The version and the profile.",
            {(__version__, self._app.profile): 1},
            "version",
            "profile",
        )
        yield from self._queue()
        yield from self._ended()
        yield from self._processes()
        yield from self._disk()

    @staticmethod
    def _gauge(name: str, text: str, samples: Mapping[Any, float], *labels: str) -> Metric:
        unit = next((unit for unit in ("bytes", "seconds") if name.endswith(unit)), "")
        family = GaugeMetricFamily(f"paise2_{name}", text, labels=labels, unit=unit)
        for key, number in samples.items():
            family.add_metric(key if isinstance(key, tuple) else (key,), number)
        return family

    def _queue(self) -> Iterator[Metric]:
        app, store, gauge = self._app, self._store, self._gauge
        yield gauge("pages", "Pages by state.", dict(store.page_counts()), "state")
        yield gauge(
            "jobs", "Jobs by state, parts of pages included.", dict(store.counts()[0]), "state"
        )
        pools = dict.fromkeys((row["pool"] for row in store.workers()), 0.0)
        pools |= dict.fromkeys(map(app.parts.pool_of, app.plugins.tasks), 0.0)
        ready, oldest = dict(pools), dict(pools)
        for task, number, since in store.ready_by_task():
            pool = app.parts.pool_of(task)
            ready[pool] = ready.get(pool, 0) + number
            oldest[pool] = max(oldest.get(pool, 0), store.now() - since)
        yield gauge("ready_jobs", "Jobs that may start now.", ready, "pool")
        text = "For how long the oldest job that may start now could have been started."
        yield gauge("oldest_ready_job_age_seconds", text, oldest, "pool")
        waiting = store.waiting_for_hosts()
        hosts = dict(waiting[:HOSTS]) | {OTHER_HOSTS: sum(n for _, n in waiting[HOSTS:])}
        text = "Jobs that wait for their host: one request at a time, with a pause."
        yield gauge("host_waiting_jobs", text, hosts, "host")
        paused = {pool or "(all)": 1.0 for pool in store.paused_pools()}
        yield gauge("paused", "1 for a pool that is paused.", paused, "pool")
        text = "Recurring jobs whose last run failed."
        yield gauge("recurring_failed_jobs", text, {(): len(store.recurring_failed())})
        yield gauge("items", "Stored items.", {(): app.store.count()})

    def _ended(self) -> Iterator[Metric]:
        pages: Counter[str] = Counter()
        attempts: Counter[tuple[str, str, str, str]] = Counter()
        waits: defaultdict[tuple[str, str], Counter[int]] = defaultdict(Counter)
        runs: defaultdict[tuple[str, str], Counter[int]] = defaultdict(Counter)
        found = self._sums()
        errors: Counter[str] = Counter()
        for series, sums in found.items():
            errors[series.error_class] += sums.number if series.error_class else 0
        known = {"", *(name for name, _ in errors.most_common(ERROR_CLASSES))}
        for series, sums in found.items():
            if not series.task:
                pages[series.outcome] += sums.number
                continue
            key = (series.task, series.pool)
            waits[key] += sums.wait
            runs[key] += sums.run
            error = series.error_class if series.error_class in known else OTHER
            attempts[(*key, series.outcome, error)] += sums.number
        text = "Pages that have ended, by state."
        ended = CounterMetricFamily("paise2_pages_ended", text, labels=["state"])
        for state, number in pages.items():
            ended.add_metric([state], number)
        yield ended
        labels = ["task", "pool", "outcome", "error_class"]
        text = "Executions that have ended."
        counter = CounterMetricFamily("paise2_attempts", text, labels=labels)
        for names, number in attempts.items():
            counter.add_metric(names, number)
        yield counter
        text = "How long jobs could have been started before they were."
        yield _histogram("wait_seconds", text, waits)
        yield _histogram("run_seconds", "How long executions have taken.", runs)

    def _sums(self) -> dict[Series, Sums]:
        """All that has ended. What is older than some minutes is read once."""
        with self._lock:
            until = self._store.now() - SETTLED_SECONDS
            for (series, _), sums in self._store.sums(self._settled_until, until).items():
                self._settled.setdefault(series, Sums()).merge(sums)
            self._settled_until = until
            found = copy.deepcopy(self._settled)
        for (series, _), sums in self._store.sums(until).items():
            found.setdefault(series, Sums()).merge(sums)
        return found

    def _processes(self) -> Iterator[Metric]:
        workers, supervisor = self._store.workers(), self._store.supervisor()
        present = [row for row in workers if row["presence"] in RUNNING]
        states = Counter((row["pool"], row["state"]) for row in present)
        yield self._gauge("workers", "Worker processes.", dict(states), "pool", "state")
        memory: Counter[str] = Counter()
        for row in present:
            if row["presence"] == HERE:
                memory[row["pool"]] += int(resident_mb(row["pid"]) * 1e6)
        text = "Memory of the worker processes on this machine."
        yield self._gauge("workers_resident_memory_bytes", text, dict(memory), "pool")
        runs = supervisor is not None and supervisor["presence"] in RUNNING
        yield self._gauge("supervisor_up", "1 if the supervisor of the workers runs.", {(): runs})
        text = "Other machines that have joined the queue."
        yield self._gauge("machines", text, self._store.machine_states(), "state")

    def _disk(self) -> Iterator[Metric]:
        app, gauge = self._app, self._gauge
        directories = [path for path in app.parts.write_dirs() if path.is_dir()]
        usage = {str(path): shutil.disk_usage(path) for path in directories}
        free = {path: use.free for path, use in usage.items()}
        yield gauge("disk_free_bytes", "Free space at a directory of the data.", free, "path")
        total = {path: use.total for path, use in usage.items()}
        yield gauge("disk_size_bytes", "Size of the disk of such a directory.", total, "path")
        settings = app.settings.data_storage.sqlite
        files = {"jobs": self._store.path, "items": settings.path or app.data_dir / "items.db"}
        sizes = {name: _size(path) for name, path in files.items()}
        yield gauge("database_bytes", "The file of a database.", sizes, "database")
        logs = {name: _size(Path(f"{path}-wal")) for name, path in files.items()}
        yield gauge("wal_bytes", "Its write-ahead log.", logs, "database")
        measured_at, kept = self._sizes
        if time.monotonic() - measured_at > SIZES_SECONDS:
            kept = {"cache": sum(map(_size, (app.data_dir / "cache").glob("*/*")))}
            kept |= _index_size(files["items"])
            self._sizes = (time.monotonic(), kept)
        for name, size in kept.items():
            yield gauge(f"{name}_bytes", _KEPT[name], {(): size})


_KEPT = {
    "cache": "Raw bytes of pages and documents.",
    "index": "The index of the full-text search; a part of the database of the items.",
}


def _histogram(
    name: str, text: str, found: dict[tuple[str, str], Counter[int]]
) -> HistogramMetricFamily:
    """A histogram by task and pool. Its sum is that of the history's buckets: 4.4 % off at most."""
    labels = ["task", "pool"]
    family = HistogramMetricFamily(f"paise2_{name}", text, labels=labels, unit="seconds")
    for key, buckets in found.items():
        below = [
            (str(bound), float(sum(n for b, n in buckets.items() if value(b) < bound)))
            for bound in BOUNDS
        ]
        seconds = sum(n * value(b) for b, n in buckets.items())
        family.add_metric(key, [*below, ("+Inf", float(buckets.total()))], seconds)
    return family


def _size(path: Path) -> int:
    try:
        return path.stat().st_size
    except OSError:  # it is not there yet, or not any more
        return 0


def _index_size(items: Path) -> dict[str, int]:
    """The size of the index, if SQLite was built with what measures it."""
    try:
        connection = sqlite3.connect(f"{items.as_uri()}?mode=ro", uri=True)
        try:
            [(size,)] = connection.execute(
                "SELECT sum(pgsize) FROM dbstat WHERE aggregate = TRUE AND name GLOB 'words_*'"
            )
        finally:
            connection.close()
    except sqlite3.Error:
        return {}
    return {"index": size or 0}


# Output --------------------------------------------------------------------------------------


class Metrics(Message):
    """The metrics of one moment, in OpenMetrics text. ``samples`` is a list."""


def read(app: App) -> Metrics:
    """Read the metrics.

    In the text, the help of a counter has the name of its sample, and there is no type: `promtool
    check metrics` knows only the older format, where a counter has the name of its sample.
    """
    families = list(Collector(app).collect())
    text = generate_openmetrics(SimpleNamespace(collect=lambda: families)).decode()
    text = re.sub(r"# HELP (\S+) (.*)\n# TYPE \1 counter\n", r"# HELP \1_total \2\n", text)
    samples = [
        {"name": sample.name, "labels": sample.labels, "value": sample.value}
        for family in families
        for sample in family.samples
    ]
    return Metrics(text.rstrip("\n"), {"samples": samples})


def write(app: App, path: Path) -> None:
    """Write the metrics to a file for the textfile collector of a node exporter.

    It replaces the file at once, and has the older text format, the only one that is read there.
    """
    made = generate_latest(Collector(app)).decode()
    try:
        write_atomically(path, made, mode=0o644, sync=False)
    except OSError as error:
        raise PaiseError(f"can't write {path}: {error.strerror}") from error


def serve(app: App, place: str) -> tuple[str, Thread]:
    """Serve the metrics from a thread.

    Args:
        app: the app.
        place: ``PORT`` on the loopback interface, or ``HOST:PORT``. Port 0: any free one.

    Returns:
        The URL, and the thread.

    Raises:
        UsageError: the place is none of these.
        PaiseError: the port can't be used.
    """
    found = re.fullmatch(r"(?:\[([\da-fA-F:]+)\]:|([^:\[\]]+):)?(\d{1,5})", place)
    if found is None or int(found[3]) > 65535:
        raise UsageError(f"{place!r} is no [HOST:]PORT; write 9464 or 0.0.0.0:9464")
    host = found[1] or found[2] or "127.0.0.1"
    registry = CollectorRegistry(auto_describe=False)
    registry.register(Collector(app))
    try:
        server, thread = start_http_server(int(found[3]), host, registry)
    except OSError as error:
        raise PaiseError(f"can't serve at {place}: {error.strerror}") from error
    shown = f"[{host}]" if ":" in host else host
    return f"http://{shown}:{server.server_port}/metrics", thread
