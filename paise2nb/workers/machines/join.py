"""Join a queue: the supervisor of a machine and its workers, while the link to home lasts."""

import json
import os
import shutil
import signal
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from paise2nb.config.settings import DEFAULT_POOL, Settings
from paise2nb.content.fetch.logins import login_hosts
from paise2nb.core.errors import WorkersError, message
from paise2nb.plugins.saved import SavedPlugins
from paise2nb.workers.machines.machine import Link
from paise2nb.workers.machines.messages import Server, shared_secret
from paise2nb.workers.machines.remote import serve
from paise2nb.workers.machines.turns import Turns
from paise2nb.workers.spawn import start_program
from paise2nb.workers.supervisor import Supervisor

JOIN_SECONDS = 60.0  # for which a join waits for home
CACHE_SECONDS = 3600.0  # for which bytes stay in the cache of a machine


class MachineSupervisor(Supervisor):
    """The supervisor of a machine: it stays without work, and cleans up only its own cache.

    It drains when home has another setup than the given one, or wants this machine to stop, and
    without a deadline when it is the turn of another queue.
    """

    def __init__(
        self,
        settings: Settings,
        options: dict[str, Any],
        link: Link,
        setup: dict[str, Any],
        turns: Turns,
    ) -> None:
        super().__init__(settings, options, link.store)  # type: ignore[arg-type]  # see memory
        self._link, self._setup, self._turns = link, setup, turns
        self._clean_at = 0.0  # monotonic

    def _step(self) -> bool:
        link = self._link
        link.keep_lease()  # the thread that sends may be waiting for Redis
        link.leaving |= self._turns.is_over(idle=not link.store.busy())
        ends = link.stopping or link.setup is not self._setup
        if self._stop_at is None and (ends or (link.leaving and not link.store.busy())):
            self._stop_at = float("inf")
        if self._stop_at is not None or link.leaving:
            link.store.return_waiting()
        elif time.monotonic() > self._clean_at:
            self._clean_at = time.monotonic() + CACHE_SECONDS / 6
            outcomes = list(link.store.outcomes.values())
            needed = {key for outcome in outcomes for key in outcome.get("bytes", ())}
            link.cache.remove(needed, CACHE_SECONDS)
        return super()._step()

    def _on_signal(self, number: int, frame: object) -> None:
        super()._on_signal(number, frame)
        # Whatever else it drains for: no other queue or setup follows.
        self._link.stopping |= number != signal.SIGCHLD

    def _enqueue_cleanup(self) -> None:
        pass

    def _is_idle(self) -> bool:
        return False


def join(
    url: str,
    names: Sequence[str],
    options: dict[str, Any],
    say: Callable[[str], None] = lambda text: None,
    on_joined: Callable[[], None] = lambda: None,
) -> None:
    """Run workers for queues at a Redis server until stopped.

    Args:
        url: Of the server.
        names: Of the queues, which are served in turn.
        options: ``concurrency``, ``pool``, ``foreground`` and ``accept_plugins``; and ``logins``,
            the settings of this machine for them.
        say: Shows what happens.
        on_joined: Called when home has answered.

    Raises:
        WorkersError: The server or the home of the queue does not answer, or a worker can't start.
        SettingsError: The messages must be signed, and there is no secret.
    """
    secret = shared_secret(None, url)
    server = Server(url)
    server.require_noeviction()
    turns, data_dir = Turns(server, names), Path(tempfile.mkdtemp(prefix="paise2-"))
    try:
        while _serve_queue(server, secret, turns, data_dir, options, say, on_joined):
            pass
    finally:
        shutil.rmtree(data_dir, ignore_errors=True)


def _serve_queue(
    server: Server,
    secret: bytes,
    turns: Turns,
    data_dir: Path,
    options: dict[str, Any],
    say: Callable[[str], None],
    on_joined: Callable[[], None],
) -> bool:
    """Run workers for the next queue. Return whether it is the turn of another one."""
    name = turns.begin()
    accepts = bool(options["accept_plugins"])
    link = Link(server, name, secret, data_dir, accepts_plugins=accepts)
    sockets = serve(link.store)
    try:
        link.start()
        say(f"joining queue {name} at {server.url}")
        _wait_for_home(link, name)
        on_joined()
        while not link.stopping:
            setup = link.setup
            assert setup is not None
            say("workers run here until Ctrl-C, which lets running jobs finish")
            _save_plugins(setup["plugins"], data_dir)
            _supervise(link, setup, options, data_dir, turns)
            # Not ==: it may have changed twice.
            if link.setup is setup or link.leaving or link.stopping:
                break
            say("home has other settings or plugins: the workers start again")
        is_over = link.leaving and not link.stopping
        link.stop()
        return is_over
    finally:
        sockets.shutdown()
        sockets.server_close()
        link.store.path.unlink()


def _wait_for_home(link: Link, name: str) -> None:
    deadline = time.monotonic() + JOIN_SECONDS
    while link.setup is None:
        if time.monotonic() > deadline:
            if link.server.redis.exists(link.server.home_key(name)):
                raise WorkersError(
                    f"the home of queue {name} does not answer; give both sides the same secret: "
                    "PAISE2_QUEUE_SECRET"
                )
            raise WorkersError(
                f"no home of queue {name} at {link.server.url}; start its workers: "
                "paise2 worker start, with task_queue.provider redis"
            )
        time.sleep(0.05)


def _save_plugins(plugins: dict[str, str], data_dir: Path) -> None:
    """Replace the plugins that home has sent before."""
    saved = SavedPlugins(data_dir / "plugins")
    for path in saved.paths():
        if path.stem not in plugins:
            path.unlink()
    for name, source in plugins.items():
        if not name.isidentifier():
            raise WorkersError(f"home has sent a plugin with the name {name!r}")
        saved.save(name, source)


def _supervise(
    link: Link, setup: dict[str, Any], options: dict[str, Any], data_dir: Path, turns: Turns
) -> None:
    own: dict[str, Any] = {
        "data_dir": str(data_dir),
        "task_queue.sqlite.path": str(link.store.path),
        "data_storage.sqlite.path": None,
        "alerts": [],  # home sends none: each could run a command here
    }
    if options["concurrency"]:
        own["workers.concurrency"] = options["concurrency"]
    home = Settings.from_json(setup["settings"])
    settings = home.override(own | options["logins"], "worker join")
    headers = dict.fromkeys(home.fetch.headers)  # of home only the hosts are known
    mine = home.override({"fetch.headers": headers}, "").override(options["logins"], "").fetch
    link.logins = sorted(login_hosts(home.fetch) & login_hosts(mine))
    sizes = {DEFAULT_POOL: settings.workers.concurrency}
    sizes |= {pool: configured.processes for pool, configured in settings.workers.pools.items()}
    sizes = {pool: number for pool, number in sizes.items() if pool in setup["pools"]}
    if chosen := options["pool"]:
        if chosen not in sizes:
            raise WorkersError(
                f"home has no pool {chosen!r} for machines; it has {', '.join(sorted(sizes))}"
            )
        sizes = {chosen: settings.workers.concurrency if options["concurrency"] else sizes[chosen]}
    chosen_options = {"sizes": sizes, "burst": False, "drain_timeout": None}
    chosen_options |= {"foreground": options["foreground"]}
    MachineSupervisor(settings, chosen_options, link, setup, turns).run()


def spawn_joined(url: str, names: Sequence[str], options: dict[str, Any]) -> int:
    """Join in a process of its own. Return its pid when its workers have joined.

    Raises:
        WorkersError: They can't. The message contains the reason.
    """
    ready, ready_there = os.pipe()
    given = {"url": url, "names": names, "options": options, "ready": ready_there}
    child = start_program(__name__, "machine", given, pass_fds=[ready_there])
    os.close(ready_there)
    with os.fdopen(ready, encoding="utf-8") as answer:
        if problem := answer.read():
            raise WorkersError(problem)
    return child.pid


def main() -> None:
    """Join in a process of its own."""
    received = json.loads(sys.stdin.buffer.read())
    with os.fdopen(received["ready"], "w", encoding="utf-8") as ready:
        try:
            join(received["url"], received["names"], received["options"], on_joined=ready.close)
        except Exception as error:  # any: without a reason the workers count as joined
            if not ready.closed:
                ready.write(message(error))
            sys.exit(1)
