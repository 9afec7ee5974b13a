"""The services of deploy/docker-compose.yml, each run as a process in place of a container."""

from __future__ import annotations

import json
import os
import re
import shutil
import socket
import subprocess
import sys
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest
import yaml

from tests.waiting import until

DEPLOY = Path(__file__).parents[2] / "deploy"
PAISE2 = [sys.executable, "-m", "paise2nb"]

pytestmark = pytest.mark.slow


def image() -> tuple[dict[str, str], list[str]]:
    """The environment of the image, and the command that tells whether a container is healthy."""
    text = (DEPLOY / "Dockerfile").read_text("utf-8")
    assert 'ENTRYPOINT ["paise2"]' in text
    [environment], [health] = re.findall("^ENV (.*)", text, re.M), re.findall("CMD (.*)", text)[:1]
    return dict(word.split("=", 1) for word in environment.split()[1:]), json.loads(health)


def test_the_services_find_each_other_and_run_jobs(tmp_path: Path) -> None:
    if shutil.which("redis-server") is None:
        pytest.skip("machine: it has no redis-server")
    described: dict[str, Any] = yaml.safe_load((DEPLOY / "docker-compose.yml").read_text("utf-8"))
    services = described["services"]
    assert all(set(each.get("depends_on", ())) <= services.keys() for each in services.values())
    assert {each["build"]["dockerfile"] for each in services.values() if "build" in each} == {
        "deploy/Dockerfile"
    }
    [volume] = services["home"]["volumes"]
    of_image, health = image()
    name, _, directory = volume.partition(":")
    assert name in described["volumes"]
    assert directory == of_image["PAISE2_DATA_DIR"]
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = str(free.getsockname()[1])

    def environment(service: str, number: int = 0) -> dict[str, str]:
        """That of a container, with directories here and without the network of containers."""
        own = {key: value for key, value in os.environ.items() if not key.startswith("PAISE2_")}
        home = tmp_path / f"{service}-{number}"
        home.mkdir(exist_ok=True)
        (home / "paise2.yaml").write_text("logging: {format: json}")
        given = {**of_image, **services[service]["environment"]}
        # Not a name of loopback, so that the secret is needed as between containers.
        url = given["PAISE2_REDIS_URL"].replace("redis:6379", f"127.0.0.2:{port}")
        assert given["PAISE2_QUEUE_SECRET"].startswith("${PAISE2_QUEUE_SECRET:?")
        given["PAISE2_QUEUE_SECRET"] = "a secret of one's own"
        given |= {
            "PAISE2_REDIS_URL": url,
            "PAISE2_DATA_DIR": str(home / "data"),
            "PAISE2_CONFIG_DIR": str(home),
        }
        return {**own, "HOME": str(home), **given}

    def at_home(*words: str) -> str:
        return subprocess.run(
            [*PAISE2, *words], env=environment("home"), capture_output=True, text=True, timeout=60
        ).stdout

    server = [*services["redis"]["command"], "--port", port, "--dir", str(tmp_path)]
    started = [subprocess.Popen(server, stdout=subprocess.DEVNULL)]
    try:
        for service, number in (("home", 0), ("machine", 0), ("machine", 1)):
            command = [*PAISE2, *services[service]["command"]]
            with (tmp_path / f"{service}-{number}.log").open("w") as output:
                started.append(subprocess.Popen(
                    command, env=environment(service, number), stdout=output, stderr=output
                ))  # fmt: skip
        assert services["machine"]["deploy"]["replicas"] == 2

        def ready() -> bool:
            with suppress(ValueError):
                machines = json.loads(at_home("worker", "status", "--json"))["machines"]
                return [bool(machine["pools"]) for machine in machines] == [True, True]
            return False

        until(ready, 120, pause=0.5)
        at_home("enqueue", "fetch", "http://127.0.0.1:1/")
        until(lambda: "private" in at_home("job", "1"), pause=0.5)
        assert subprocess.run([*PAISE2, *health[1:]], env=environment("home")).returncode == 0
        for process in reversed(started[1:]):  # as `docker compose stop` does
            process.terminate()
            assert process.wait(60) == 0
    finally:
        for process in started:
            process.kill()
            process.wait()
