"""What the acceptance tests stand on: a plugin, a site on loopback, the command as a process."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import threading
import time
from collections import Counter
from collections.abc import Callable, Mapping
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any, NamedTuple, Self, TypeVar

import paise2nb

SECONDS = 90.0  # bounds a failure only
T = TypeVar("T")

PLUGIN = '''
import ctypes, os, time
from pathlib import Path
from huey.exceptions import RetryTask
from paise2nb import Document, PermanentError, TransientError, extractor, fetcher, task

@task("shout")
def shout(context, word):
    return word.upper()

@task("add")
def add(context, a: int, b: float = 0.5):
    return a + b

@task("later")
async def later(context, word):
    return word

@task("stumble", max_retries=0)
def stumble(context, word):
    raise ValueError(word)

@task("refuse", max_retries=5)
def refuse(context, word):
    raise PermanentError(word, "gone")

@task("late", max_retries=3, retry_delay=3000)
def late(context, word):
    raise TransientError(word, "timeout")

@task("flaky", max_retries=3, retry_delay=0)
def flaky(context, path, times: int):
    with open(path, "a") as file:
        file.write("tried\\n")
    if len(Path(path).read_text().splitlines()) <= times:
        raise TransientError("not yet", "connection")
    return "done"

@task("parent")
def parent(context, *words):
    for word in words:
        context.enqueue("shout", word)
    return len(words)

@task("half", max_retries=0)
def half(context, word):
    context.enqueue("shout", word)
    raise ValueError("after the follow-up")

@task("unprintable", max_retries=0)
def unprintable(context):
    return {1, 2}

@task("count")
def count(context):
    context.state["runs"] = context.state.get("runs", 0) + 1
    return context.state["runs"]

@task("order")
def order(context, path, word):
    with open(path, "a") as file:
        file.write(word + "\\n")

@task("hold")
def hold(context, path):
    """Runs until the file is there."""
    while not Path(path).exists():
        time.sleep(0.01)
    return "released"

@task("patient")
def patient(context, path):
    """Runs until it is cancelled, and says that it saw it."""
    while not context.cancelled:
        time.sleep(0.01)
    Path(path).touch()

@task("steps")
def steps(context, path):
    context.progress(3, 10)
    while not Path(path).exists():
        time.sleep(0.01)

@task("pid")
def pid(context):
    return [os.getpid(), os.environ.get("ACCEPTANCE")]

@task("asks", max_retries=2)
def asks(context):
    if context.job.attempt < 3:
        raise RetryTask(delay=0)
    return context.job.attempt

@task("say")
def say(context, word):
    context.log.info("logged %s", word)

@task("die", max_retries=0)
def die(context, how):
    if how == "segfault":
        ctypes.string_at(0)
    os._exit(9)

@task("stuck", timeout=0.5, max_retries=0, policies={"crash": {"max_retries": 0}})
def stuck(context):
    time.sleep(600)

@task("hungry", memory_mb=400, max_retries=0, policies={"crash": {"max_retries": 0}})
def hungry(context):
    kept = bytearray(900_000_000)
    kept[::4096] = b"x" * len(kept[::4096])
    time.sleep(600)

@extractor("text/x-lines", suffixes=[".lines"])
def lines(context, data, source):
    first, *rest = data.decode().splitlines()
    return Document("\\n".join(rest), title=first, author="Nobody", metadata={"lines": len(rest)})

@extractor("text/x-several", suffixes=[".several"])
def several(context, data, source):
    return [
        Document(f"part {part}", title=part, url=f"{source.url}/{part}")
        for part in data.decode().split()
    ]

@fetcher("gopher")
def gopher(context, url):
    return b"The gopher burrows below " + url.encode()
'''

SETTINGS = """\
plugins: [{plugin}]
workers:
  concurrency: 1
  cancel_grace: 0.2
  pools: {{fetch: null}}
  retry: {{policies: {{crash: {{max_retries: 2, retry_delay: 0.01}}}}}}
fetch: {{allow_private_addresses: true, host_delay: 0, robots: false}}
"""


def until(condition: Callable[[], T], what: str = "the condition") -> T:
    """Wait until a condition holds; its value."""
    deadline = time.monotonic() + SECONDS
    while not (value := condition()):
        assert time.monotonic() < deadline, f"{what} did not come true"
        time.sleep(0.02)
    return value


def alive(pid: int) -> bool:
    """Whether a process runs: one that waits to be reaped does not."""
    try:
        stat = Path(f"/proc/{pid}/stat").read_text()
    except (FileNotFoundError, ProcessLookupError):
        return False
    return stat.rpartition(")")[2].split()[0] not in ("Z", "X")


# The command -----------------------------------------------------------------------------------


class Done(NamedTuple):
    """How a command ended."""

    status: int
    stdout: str
    stderr: str

    @property
    def json(self) -> Any:
        """What it printed, read as JSON."""
        assert self.status == 0, self.stderr
        return json.loads(self.stdout)


class Place:
    """A working directory with settings, a plugin and a data directory, and its environment."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self.work = root / "work"
        self.data = root / "data"
        self.config = root / "config"
        self.plugin = root / "helper.py"
        self.settings = self.work / "paise2.yaml"
        self.work.mkdir()
        self.plugin.write_text(PLUGIN)
        self.settings.write_text(SETTINGS.format(plugin=self.plugin))

    def environment(self) -> dict[str, str]:
        """What the variables have to be for a process to work here."""
        return {
            "PAISE2_DATA_DIR": str(self.data),
            "PAISE2_CONFIG_DIR": str(self.config),
            "IPYTHONDIR": str(self.root / "ipython"),
            # The processes have to find the package that the tests found.
            "PYTHONPATH": str(Path(paise2nb.__file__).parents[1]),
        }

    def write(self, name: str, text: str) -> Path:
        """Write a file of the working directory."""
        path = self.work / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
        return path


class Shell:
    """Runs ``paise2 …`` as a process."""

    def __init__(self, place: Place) -> None:
        self.place = place

    def start(self, *words: str, **options: Any) -> subprocess.Popen[str]:
        """Start the command."""
        streams = dict.fromkeys(("stdin", "stdout", "stderr"), subprocess.PIPE)
        return subprocess.Popen(
            [sys.executable, "-m", "paise2nb", *words], cwd=self.place.work, text=True,
            **{**streams, **options},
        )  # fmt: skip

    def __call__(self, *words: str, input: str = "", env: Mapping[str, str] | None = None) -> Done:
        """Run the command to its end."""
        with self.start(*words, env={**os.environ, **(env or {})}) as process:
            try:
                stdout, stderr = process.communicate(input, timeout=SECONDS)
            except subprocess.TimeoutExpired:
                process.kill()
                raise
        return Done(process.returncode, stdout, stderr)


# The site --------------------------------------------------------------------------------------


def page(title: str, text: str) -> bytes:
    """A web page."""
    return (
        f"<!doctype html><html lang='en'><head><title>{title}</title></head><body><article>"
        f"<h1>{title}</h1><p>{text}</p></article></body></html>"
    ).encode()


class Answer(NamedTuple):
    """What the site answers to one request."""

    body: bytes
    kind: str = "text/html; charset=utf-8"
    status: int = 200
    headers: Mapping[str, str] = {}


class Site:
    """A web site on loopback. A context manager.

    Attributes:
        visits: how often each path was asked for.
        agents: the names that clients gave, in the order of their requests.
    """

    def __init__(self) -> None:
        self.visits: Counter[str] = Counter()
        agents = self.agents = list[str | None]()
        answers = self._answers = dict[str, list[Answer]]()
        visits = self.visits

        class Visit(BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                visits[self.path] += 1
                agents.append(self.headers["User-Agent"])
                answer = Answer(b"Not here.", "text/plain", 404)
                if waiting := answers.get(self.path):
                    answer = waiting.pop(0) if len(waiting) > 1 else waiting[0]
                tag = answer.headers.get("ETag")
                if tag is not None and self.headers["If-None-Match"] == tag:
                    answer = answer._replace(body=b"", status=304)
                self.send_response(answer.status)
                self.send_header("Content-Type", answer.kind)
                for name, value in answer.headers.items():
                    self.send_header(name, value)
                self.end_headers()
                self.wfile.write(answer.body)

            def log_message(self, format: str, *args: object) -> None:
                """The test report is the log."""

        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Visit)
        self._thread = threading.Thread(target=self._server.serve_forever, args=(0.02,))
        self._thread.start()

    def url(self, path: str) -> str:
        """The URL of a path."""
        return f"http://127.0.0.1:{self._server.server_port}{path}"

    def add(self, path: str, *answers: Answer | bytes) -> str:
        """Answer a path with these, one after the other, and then always with the last; its URL."""
        self._answers[path] = [
            answer if isinstance(answer, Answer) else Answer(answer) for answer in answers
        ]
        return self.url(path)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *error: object) -> None:
        self._server.shutdown()
        self._server.server_close()
        self._thread.join()
