"""Metrics for Prometheus, and how it gets them: from a server, or from a file.

``metrics.json`` has the help and the labels of each.
"""

import copy
import json
import re
import shutil
import sqlite3
import time
from collections import Counter, defaultdict
from collections.abc import Iterator, Mapping
from contextlib import closing
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
from paise2nb.core.damage import size_of
from paise2nb.core.display import Message
from paise2nb.core.errors import PaiseError, UsageError
from paise2nb.core.files import write_atomically
from paise2nb.core.processes import resident_mb
from paise2nb.core.version import __version__
from paise2nb.jobs.history import Series, Sums, value
from paise2nb.jobs.models import HERE, RUNNING
from paise2nb.jobs.statistics import OTHER_HOSTS

_FAMILIES = json.loads(Path(__file__).with_name("metrics.json").read_text("utf-8"))
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
        yield _metric("info", {(__version__, self._app.profile): 1})
        yield from self._queue()
        yield from self._ended()
        yield from self._processes()
        yield from self._disk()

    def _queue(self) -> Iterator[Metric]:
        app, store = self._app, self._store
        yield _metric("pages", store.page_counts())
        yield _metric("jobs", store.counts()[0])
        pools = dict.fromkeys((row["pool"] for row in store.workers()), 0.0)
        pools |= dict.fromkeys(map(app.parts.pool_of, app.plugins.tasks), 0.0)
        ready, oldest = dict(pools), dict(pools)
        for task, number, since in store.ready_by_task():
            pool = app.parts.pool_of(task)
            ready[pool] = ready.get(pool, 0) + number
            oldest[pool] = max(oldest.get(pool, 0), store.now() - since)
        yield _metric("ready_jobs", ready)
        yield _metric("oldest_ready_job_age_seconds", oldest)
        waiting = store.waiting_for_hosts()
        hosts = dict(waiting[:HOSTS]) | {OTHER_HOSTS: sum(n for _, n in waiting[HOSTS:])}
        yield _metric("host_waiting_jobs", hosts)
        yield _metric("paused", {pool or "(all)": 1 for pool in store.paused_pools()})
        yield _metric("recurring_failed_jobs", {(): len(store.recurring_failed())})
        yield _metric("items", {(): app.store.count()})

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
        yield _metric("pages_ended", pages, CounterMetricFamily)
        yield _metric("attempts", attempts, CounterMetricFamily)
        yield _histogram("wait_seconds", waits)
        yield _histogram("run_seconds", runs)

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
        present = [row for row in self._store.workers() if row["presence"] in RUNNING]
        yield _metric("workers", Counter((row["pool"], row["state"]) for row in present))
        memory: Counter[str] = Counter()
        for row in present:
            if row["presence"] == HERE:
                memory[row["pool"]] += int(resident_mb(row["pid"]) * 1e6)
        yield _metric("workers_resident_memory_bytes", memory)
        yield _metric("supervisor_up", {(): self._store.running_supervisor() is not None})
        yield _metric("machines", self._store.machine_states())

    def _disk(self) -> Iterator[Metric]:
        app = self._app
        directories = [path for path in app.parts.write_dirs() if path.is_dir()]
        usage = {str(path): shutil.disk_usage(path) for path in directories}
        yield _metric("disk_free_bytes", {path: use.free for path, use in usage.items()})
        yield _metric("disk_size_bytes", {path: use.total for path, use in usage.items()})
        items = app.settings.databases(app.data_dir)[1]
        files = {"jobs": self._store.path, "items": items}
        yield _metric("database_bytes", {name: size_of(path) for name, path in files.items()})
        logs = {name: size_of(Path(f"{path}-wal")) for name, path in files.items()}
        yield _metric("wal_bytes", logs)
        measured_at, kept = self._sizes
        if time.monotonic() - measured_at > SIZES_SECONDS:
            kept = {"cache": sum(map(size_of, (app.data_dir / "cache").glob("*/*")))}
            kept |= _index_size(items)
            self._sizes = (time.monotonic(), kept)
        for name, size in kept.items():
            yield _metric(f"{name}_bytes", {(): size})


def _family(kind: Any, name: str) -> Any:
    unit = next((unit for unit in ("bytes", "seconds") if name.endswith(unit)), "")
    about = _FAMILIES[name]
    return kind(f"paise2_{name}", about["help"], labels=about["labels"], unit=unit)


def _metric(name: str, samples: Mapping[Any, float], kind: Any = GaugeMetricFamily) -> Any:
    """A metric by the values of its labels: a tuple, or one value."""
    family = _family(kind, name)
    for key, number in samples.items():
        family.add_metric(key if isinstance(key, tuple) else (key,), number)
    return family


def _histogram(name: str, found: dict[tuple[str, str], Counter[int]]) -> Any:
    """A histogram by task and pool. Its sum is that of the history's buckets: 4.4 % off at most."""
    family = _family(HistogramMetricFamily, name)
    for key, buckets in found.items():
        below = [
            (str(bound), float(sum(n for b, n in buckets.items() if value(b) < bound)))
            for bound in BOUNDS
        ]
        seconds = sum(n * value(b) for b, n in buckets.items())
        family.add_metric(key, [*below, ("+Inf", float(buckets.total()))], seconds)
    return family


def _index_size(items: Path) -> dict[str, int]:
    """The size of the index, if SQLite was built with what measures it."""
    try:
        with closing(sqlite3.connect(f"{items.as_uri()}?mode=ro", uri=True)) as connection:
            [(size,)] = connection.execute(
                "SELECT sum(pgsize) FROM dbstat WHERE aggregate = TRUE AND name GLOB 'words_*'"
            )
    except sqlite3.Error:
        return {}
    return {"index": size or 0}


# Output --------------------------------------------------------------------------------------


def read(app: App) -> Message:
    """Read the metrics of this moment, as OpenMetrics text and as a list of ``samples``.

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
    return Message(text.rstrip("\n"), {"samples": samples})


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
