"""The metrics: valid in both formats, bounded, and the same numbers as those of the status."""

from __future__ import annotations

import json
import os
import re
import shutil
import signal
import socket
import subprocess
import sys
import urllib.parse
import urllib.request
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest
from prometheus_client.openmetrics.parser import text_string_to_metric_families

import paise2nb
from paise2nb.app import App
from paise2nb.commands import Session, main
from paise2nb.core.errors import PaiseError, UsageError
from paise2nb.jobs.models import Limits, NewJob, Outcome
from paise2nb.operate import metrics
from paise2nb.operate.metrics import ERROR_CLASSES, HOSTS
from tests import example_plugin
from tests.waiting import until

ROOT = Path(__file__).parents[2]
RULES = ROOT / "deploy" / "prometheus-rules.yml"


@pytest.fixture
def app(tmp_path: Path) -> Iterator[App]:
    (tmp_path / "plugin.py").write_text(example_plugin.SOURCE)
    settings = {"plugins": [str(tmp_path / "plugin.py")]}
    with paise2nb.open("development", tmp_path / "data", settings) as app:
        yield app
        app.workers.stop(timeout=5)


def program(name: str) -> str:
    found = shutil.which(name)
    if found is None:
        pytest.skip(f"machine: no {name}; install Debian's package prometheus")
    return found


def check(kind: str, *words: str, text: str = "") -> None:
    """Have promtool check something; it also complains about what is only against a convention."""
    command = [program("promtool"), "check", kind, *words]
    done = subprocess.run(command, input=text, capture_output=True, text=True)
    assert (done.returncode, done.stderr) == (0, "")


def work_done(app: App) -> None:
    """Pages of several states, a retry, a failure, a paused pool and hosts that are waited for."""
    store = app.queue.job_store
    store.host_delay = 1000.0
    store.add([NewJob("fetch", f"[{n}]", 4, host=f"{n % 3}.example") for n in range(9)])
    store.add([NewJob("count", f"[{n}]", 4) for n in range(4)])
    worker = store.register("default", 1)
    limits = {name: Limits(None, None) for name in ("fetch", "count")}
    for outcome in (
        Outcome("completed", "completed", "null"),
        Outcome("failed", "failed", None, "http_4xx", '404 "Not Found"\n'),
        Outcome("crashed", "retrying", None, "crash", "died", retry_in=60.0),
        Outcome("completed", "completed", "null"),
        Outcome("released", "queued"),
    ):
        claim = store.claim(worker, limits)
        assert claim is not None
        store.end(claim, outcome)
    store.leave(worker)
    store.pause("fetch")


def values(app: App, name: str) -> dict[str, float]:
    """The samples of a metric by their labels: ``task=fetch,pool=default``."""
    return {
        ",".join(f"{key}={label}" for key, label in sample["labels"].items()): sample["value"]
        for sample in metrics.read(app).samples
        if sample["name"] == name
    }


def test_the_text_is_valid_and_follows_the_conventions(app: App) -> None:
    check("metrics", text=f"{metrics.read(app)}\n")  # of an empty collection
    work_done(app)
    text = f"{metrics.read(app)}\n"
    check("metrics", text=text)
    families = {family.name: family for family in text_string_to_metric_families(text)}
    assert all(name.startswith("paise2_") and f.documentation for name, f in families.items())
    assert families["paise2_run_seconds"].type == "histogram"
    assert families["paise2_disk_free_bytes"].unit == "bytes"


def test_the_numbers_are_those_of_the_status(app: App) -> None:
    work_done(app)
    status = app.status()
    assert values(app, "paise2_pages") == {f"state={s}": n for s, n in status.pages.items()}
    assert values(app, "paise2_jobs") == {f"state={s}": n for s, n in status.jobs.items()}
    assert values(app, "paise2_paused") == {"pool=fetch": 1}
    assert values(app, "paise2_oldest_ready_job_age_seconds")["pool=default"] > 0
    waiting = values(app, "paise2_host_waiting_jobs")
    rows = app.queue.job_store._column("SELECT id FROM jobs WHERE host_slot = 1")
    assert sum(waiting.values()) == len(rows) > 0
    ended = values(app, "paise2_attempts_total")
    assert sum(ended.values()) == 5
    assert {key.partition("outcome=")[2] for key in ended} == {
        "completed,error_class=", "failed,error_class=http_4xx", "crashed,error_class=crash",
        "released,error_class=",
    }  # fmt: skip
    assert sum(values(app, "paise2_wait_seconds_count").values()) == 5


def test_sizes_are_those_of_the_files(app: App, tmp_path: Path) -> None:
    page = tmp_path / "page.md"
    page.write_text("# Knots\n\n" + "Many words about knots and ferries.\n" * 100)
    app.enqueue("fetch", str(page))
    app.workers.start(concurrency=1)
    app.wait(timeout=60)
    app.workers.stop()
    databases = values(app, "paise2_database_bytes")
    assert databases == {
        "database=jobs": (app.data_dir / "tasks.db").stat().st_size,
        "database=items": (app.data_dir / "items.db").stat().st_size,
    }
    assert values(app, "paise2_cache_bytes")[""] >= page.stat().st_size
    log = values(app, "paise2_wal_bytes")["database=items"]
    assert 0 < values(app, "paise2_index_bytes")[""] < databases["database=items"] + log
    assert values(app, "paise2_items") == {"": 1}
    assert values(app, "paise2_pages_ended_total") == {"state=stored": 1}


def test_hosts_and_error_classes_are_bounded(app: App) -> None:
    store = app.queue.job_store
    store.host_delay = 1000.0
    store.add([NewJob("fetch", f"[{n}]", 4, host=f"{n % 200}.example") for n in range(600)])
    worker, limits = store.register("default", 1), {"fetch": Limits(None, None)}
    for number in range(ERROR_CLASSES + 30):
        claim = store.claim(worker, limits)
        assert claim is not None
        store.end(claim, Outcome("failed", "failed", None, f"Error{number}", "wrong"))
    store.leave(worker)
    waiting = values(app, "paise2_host_waiting_jobs")
    assert len(waiting) == HOSTS + 1
    assert sum(waiting.values()) == len(store._column("SELECT id FROM jobs WHERE host_slot = 1"))
    failed = values(app, "paise2_attempts_total")
    assert len(failed) == ERROR_CLASSES + 1
    assert sum(failed.values()) == ERROR_CLASSES + 30


def test_a_file_is_replaced_at_once(app: App, tmp_path: Path) -> None:
    path = tmp_path / "paise2.prom"
    path.write_text("old")
    old = path.stat().st_ino
    work_done(app)
    session = Session()
    line = ["--data-dir", str(app.data_dir), "metrics", "--write", str(path)]
    assert main(line, session).path == path
    with pytest.raises(UsageError, match="not both"):
        main([*line, "--serve", "0"], session)
    session.close()
    assert path.stat().st_ino != old
    assert path.stat().st_mode & 0o444 == 0o444  # the node exporter is another user
    check("metrics", text=path.read_text())
    assert "# TYPE paise2_attempts_total counter" in path.read_text()
    with pytest.raises(PaiseError, match=r"can't write .*: No such file or directory"):
        metrics.write(app, tmp_path / "missing" / "paise2.prom")


@pytest.mark.parametrize("place", ["", "x", "localhost:", "1:2:3", "70000", "host:99999", "-1"])
def test_a_wrong_place_is_one_line(app: App, place: str) -> None:
    with pytest.raises(UsageError, match=r"is no \[HOST:\]PORT; write 9464"):
        metrics.serve(app, place)


def test_a_used_port_is_one_line(app: App) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        place = f"127.0.0.1:{taken.getsockname()[1]}"
        with pytest.raises(PaiseError, match=f"can't serve at {place}: Address already in use"):
            metrics.serve(app, place)


def test_each_reader_gets_the_format_that_it_knows(app: App) -> None:
    url, _ = metrics.serve(app, "0")
    assert url.startswith("http://127.0.0.1:")

    def read(accept: str) -> tuple[str, str]:
        request = urllib.request.Request(url, headers={"Accept": accept})
        with urllib.request.urlopen(request) as answer:
            return answer.headers["Content-Type"], answer.read().decode()

    kind, text = read("application/openmetrics-text; version=1.0.0")
    assert kind.startswith("application/openmetrics-text; version=1.0.0")
    families = {family.name: family.type for family in text_string_to_metric_families(text)}
    assert families["paise2_attempts"] == "counter"
    kind, text = read("*/*")
    assert kind.startswith("text/plain; version=0.0.4")
    check("metrics", text=text)


def test_the_rules_are_valid_and_use_only_metrics_that_exist(app: App) -> None:
    check("rules", str(RULES))
    work_done(app)
    known = {sample["name"] for sample in metrics.read(app).samples}
    used = set(re.findall(r"paise2_\w+", RULES.read_text()))
    assert used
    assert used <= known


def test_a_prometheus_reads_a_run_and_agrees_with_the_status(app: App, tmp_path: Path) -> None:
    prometheus = program("prometheus")
    app.enqueue_many("fetch", [str(page) for page in example_pages(tmp_path)])
    missing = tmp_path / "missing.md"
    missing.touch()
    app.enqueue("fetch", str(missing))
    missing.unlink()
    with ExitStack() as stack:
        served = stack.enter_context(
            subprocess.Popen(
                [sys.executable, "-m", "paise2nb", "metrics", "--serve", "0"],
                env={**os.environ, "PAISE2_DATA_DIR": str(app.data_dir), "PYTHONPATH": str(ROOT)},
                stderr=subprocess.PIPE, text=True,
            )
        )  # fmt: skip
        stack.callback(served.kill)
        assert served.stderr is not None
        found = re.search(r"metrics at http://(\S+)/metrics", served.stderr.readline())
        assert found is not None
        with socket.create_server(("127.0.0.1", 0)) as free:
            port = free.getsockname()[1]
        config = {
            "global": {"scrape_interval": "1s"},
            "rule_files": [str(RULES)],
            "scrape_configs": [
                {"job_name": "paise2", "static_configs": [{"targets": [found[1]]}]},
            ],
        }
        (tmp_path / "prometheus.yml").write_text(json.dumps(config))
        with (tmp_path / "prometheus.log").open("w") as log:
            server = stack.enter_context(
                subprocess.Popen(
                    [
                        prometheus, f"--config.file={tmp_path / 'prometheus.yml'}",
                        f"--storage.tsdb.path={tmp_path / 'tsdb'}",
                        f"--web.listen-address=127.0.0.1:{port}",
                    ],
                    stdout=log, stderr=log,
                )
            )  # fmt: skip
        stack.callback(server.kill)

        def query(expression: str) -> dict[str, float]:
            """The values of a query by the label ``state``, ``outcome`` or ``pool``."""
            url = f"http://127.0.0.1:{port}/api/v1/query"
            data = urllib.parse.urlencode({"query": expression}).encode()
            try:
                with urllib.request.urlopen(url, data) as answer:
                    rows: list[Any] = json.load(answer)["data"]["result"]
            except OSError:  # it does not listen yet
                return {}
            labels = ("state", "outcome", "pool")
            names = [
                next((row["metric"].get(x, "") for x in labels if x in row["metric"]), "")
                for row in rows
            ]
            return {name: float(row["value"][1]) for name, row in zip(names, rows, strict=True)}

        until(lambda: query("paise2_pages").get("queued") == 21, pause=0.2)
        app.workers.start(concurrency=1)
        app.wait(timeout=60)
        status = app.status()
        assert (status.pages["stored"], status.pages["failed"]) == (20, 1)
        until(lambda: query("paise2_pages") == status.pages, pause=0.2)
        until(lambda: query("paise2_jobs") == status.jobs, pause=0.2)
        attempts = query("sum by (outcome) (paise2_attempts_total)")
        assert attempts == {"completed": 60, "failed": 1}
        assert query('sum(paise2_workers{state!="failed"})') == {"": len(status.workers)}
        memory = query("paise2_workers_resident_memory_bytes")
        assert memory.keys() == {worker["pool"] for worker in status.workers}
        assert min(memory.values()) > 1e6
        assert query("paise2_items") == {"": status.items}
        assert query("paise2_supervisor_up") == {"": 1}
        slowest = query("histogram_quantile(1, sum by (le) (paise2_run_seconds_bucket))")
        assert slowest[""] > 0
        served.send_signal(signal.SIGINT)
        assert served.wait(timeout=30) == 130


def example_pages(directory: Path) -> list[Path]:
    pages = [directory / f"page-{number}.md" for number in range(20)]
    for number, page in enumerate(pages):
        page.write_text(f"# Page {number}\n\nThe words of page {number}.\n")
    return pages
