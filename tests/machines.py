"""A real Redis server, a home with a relay, and machines that join it, for tests on loopback."""

from __future__ import annotations

import os
import shutil
import signal
import socket
import subprocess
import sys
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest

import paise2nb
from paise2nb.app import App
from tests.namespaces import Host
from tests.waiting import until

PLUGIN = """
import os, time
from pathlib import Path
from paise2nb import task

@task("where", runs="anywhere")
def where(context, word):
    with (Path(context.settings.plugins[0]).parent / "ran").open("a") as file:
        file.write(f"{word}\\n")
    return str(context.data_dir)

@task("hold", runs="anywhere")
def hold(context, path, word):
    with Path(path + ".ran").open("a") as file:
        file.write(f"{word} {context.data_dir}\\n")
    context.progress(1, 2)
    while not Path(path).exists():
        time.sleep(0.02)
    context.enqueue("at-home", word)
    return str(context.data_dir)

@task("at-home")
def at_home(context, word):
    return str(context.data_dir)

@task("count-up", runs="anywhere")
def count_up(context, word):
    context.state["n"] = context.state.get("n", 0) + 1
    return context.state["n"]

@task("needs-items", runs="anywhere")
def needs_items(context, word):
    return [len(list(context.items.list())), str(context.data_dir)]

@task("put-bytes", runs="anywhere")
def put_bytes(context, size, seed):
    key = context.cache.put(bytes([seed]) * size)
    context.enqueue("get-bytes", key)
    return key

@task("get-bytes")
def get_bytes(context, key):
    return len(context.cache.get(key))

@task("read-bytes", runs="anywhere")
def read_bytes(context, key):
    return len(context.cache.get(key))

@task("die", runs="anywhere")
def die(context, word):
    os._exit(9)

@task("kill-machine", runs="anywhere")
def kill_machine(context, word):
    os.kill(os.getppid(), 9)
    os._exit(9)

@task("too-long", runs="anywhere", timeout=0.5, max_retries=0)
def too_long(context, word):
    time.sleep(600)

@task("grow", memory_mb=200, max_retries=0)
def grow(context, word):
    kept = []
    while True:
        kept.append(bytearray(10_000_000))
        time.sleep(0.01)

@task("say", runs="anywhere")
def say(context, word):
    context.log.info("it says %s", word)

@task("chatter", runs="anywhere")
def chatter(context, word):
    for number in range(1000):
        context.progress(number, 1000)
        context.log.info("%s %s", number, "ü" * 500)

@task("grow-there", runs="anywhere", memory_mb=200, max_retries=0)
def grow_there(context, word):
    grow(context, word)
"""


SECRET = "a word that both sides know"
OPEN = ("--bind", "0.0.0.0", "--protected-mode", "no")


class RedisServer:
    """A redis-server on a free port, without persistence."""

    def __init__(self, directory: Path, *options: str) -> None:
        if shutil.which("redis-server") is None:
            pytest.skip("machine: it has no redis-server")
        directory.mkdir(exist_ok=True)
        self.directory = directory
        self.options = options
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            self.port: int = free.getsockname()[1]
        self.address = f"localhost:{self.port}/0"
        self.url = f"redis://{self.address}"
        self.start()

    def start(self) -> None:
        command = ["redis-server", "--port", str(self.port), "--save", "", "--appendonly", "no"]
        command += ["--maxmemory-policy", "noeviction", "--dir", str(self.directory)]
        self.process = subprocess.Popen([*command, *self.options], stdout=subprocess.DEVNULL)
        until(self.answers)

    def answers(self) -> bool:
        with suppress(OSError), socket.create_connection(("localhost", self.port), 1) as connection:
            connection.sendall(b"PING\r\n")
            return connection.recv(16)[:5] in (b"+PONG", b"-NOAU")
        return False

    def kill(self) -> None:
        self.process.kill()
        self.process.wait()

    close = kill


class Machine:
    """``worker join`` in a session of its own: it stands for another machine.

    Args:
        host: Where it runs, if that is not this machine.
    """

    def __init__(
        self,
        url: list[str],
        directory: Path,
        *words: str,
        host: Host | None = None,
        **environment: str,
    ) -> None:
        directory.mkdir(exist_ok=True)
        self.directory = directory
        self.host = host
        there = host.command if host else []
        values = {"HOME": str(directory), "TMPDIR": str(directory), **environment}
        with (directory / "output").open("w") as output:
            self.process = subprocess.Popen(
                [*there, sys.executable, "-m", "paise2nb", "worker", "join", *url, *words],
                env={**os.environ, **values}, stdout=output, stderr=output, start_new_session=True,
            )  # fmt: skip

    @property
    def output(self) -> str:
        return (self.directory / "output").read_text()

    def pids(self) -> list[int]:
        """All processes of this machine: they have its directory in their environment."""
        mark, found = f"TMPDIR={self.directory}".encode(), []
        for entry in Path("/proc").glob("[0-9]*/environ"):
            with suppress(OSError):
                if mark in entry.read_bytes().split(b"\0"):
                    found.append(int(entry.parent.name))
        return found

    def send(self, number: signal.Signals) -> None:
        """Send a signal to all processes of this machine."""
        for pid in self.pids():
            self.send_to(pid, number)

    @staticmethod
    def send_to(pid: int, number: signal.Signals) -> None:
        """Send a signal to a process, which may have ended."""
        with suppress(ProcessLookupError):
            os.kill(pid, number)

    def kill(self) -> None:
        """End it at once, as if its power were cut."""
        while self.pids():
            self.send(signal.SIGKILL)
            self.process.wait()

    close = kill

    def drain(self) -> int:
        self.process.send_signal(signal.SIGTERM)
        return self.process.wait(60)


class Place:
    """A home on a Redis server, and machines.

    Attributes:
        redis: The server.
        directory: Of all of it.
    """

    def __init__(self, directory: Path, redis: RedisServer, plugin: str = PLUGIN) -> None:
        self.directory = directory
        self.plugin = plugin
        self.redis = redis
        self.machines: list[Machine] = []
        self._apps: list[App] = []

    def home(self, data: str = "data", profile: str = "development", **settings: Any) -> App:
        """Open an app whose queue is on the Redis server."""
        values = self.settings(**settings)
        app = paise2nb.open(profile, data_dir=self.directory / data, settings=values)
        self._apps.append(app)
        return app

    def settings(self, **chosen: Any) -> dict[str, Any]:
        """The settings of a home, and the chosen ones, with two underscores for a dot."""
        plugin = self.directory / "extra.py"
        plugin.write_text(self.plugin)
        return {
            "task_queue.provider": "redis", "task_queue.redis.url": self.redis.url,
            "task_queue.redis.lease": 3, "plugins": [str(plugin)], "workers.concurrency": 1,
            "workers.pools.home": {"tasks": ["store", "cleanup", "at-home", "get-bytes"]},
            "workers.retry.retry_delay": 0.1,
            **{key.replace("__", "."): value for key, value in chosen.items()},
        }  # fmt: skip

    def home_with_machine(self) -> App:
        """Open an app with a running pool ``home``, whose queue one machine has joined."""
        app = self.home()
        app.workers.start(pool="home")
        self.join()
        self.joined(app)
        return app

    def join(self, *words: str, url: str | None = None, **environment: str) -> Machine:
        """Start a machine, without waiting for it."""
        directory = self.directory / f"machine-{len(self.machines)}"
        urls = [] if "PAISE2_REDIS_URL" in environment else [url or self.redis.url]
        machine = Machine(urls, directory, *words, **environment)
        self.machines.append(machine)
        return machine

    def join_from(self, host: Host) -> Machine:
        """Start a machine on another host, which needs the secret and a server that lets it in."""
        directory = self.directory / f"machine-{len(self.machines)}"
        url = f"redis://{host.gateway}:{self.redis.port}/0"
        machine = Machine([url], directory, host=host, PAISE2_QUEUE_SECRET=SECRET)
        self.machines.append(machine)
        return machine

    def joined(self, app: App, number: int = 1) -> list[dict[str, Any]]:
        """Wait until that many machines have ready workers."""

        def ready() -> list[dict[str, Any]]:
            found = app.workers.status().machines
            return found if sum(bool(each["pools"]) for each in found) == number else []

        try:
            return until(ready)
        except AssertionError:
            raise AssertionError("\n".join(m.output for m in self.machines)) from None

    def close(self) -> None:
        for machine in self.machines:
            machine.kill()
            if machine.host:
                machine.host.close()
        for app in self._apps:
            app.workers.stop(timeout=0)
            app.close()
        self.redis.kill()
