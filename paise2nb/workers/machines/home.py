"""What machines get from home: settings, plugins, what a fetch needs, and answers to questions."""

import json
from collections.abc import Collection, Iterable
from functools import cached_property, partial
from typing import Any

from paise2nb.content.fetch import robots
from paise2nb.jobs.leases import Logins
from paise2nb.jobs.models import Claim
from paise2nb.jobs.parts import Parts
from paise2nb.workers.machines.bytes_in_parts import PART, part
from paise2nb.workers.machines.remote import item_key
from paise2nb.workers.machines.versions import saved_sources


class HomeParts:
    """The parts of the app at home, as far as machines get them.

    Args:
        parts: Those of the app.
    """

    def __init__(self, parts: Parts) -> None:
        self._parts = parts

    @cached_property
    def logins(self) -> Logins | None:
        """The logins that a request to a host needs; None if there are none here."""
        fetch = self._parts.settings.fetch
        if fetch.cookies is None and not fetch.headers:
            return None
        from paise2nb.content.fetch.logins import logins_for  # it imports urllib3

        return partial(logins_for, fetch)

    def extras(
        self, claim: Claim, brought: Collection[str] = (), room: int = PART
    ) -> dict[str, Any]:
        """What a job needs from home.

        A fetch: the item with its validators, and the robots rules. An extraction: the bytes, if
        they are few.

        Args:
            claim: The execution.
            brought: The keys of bytes that its machine has sent home.
            room: How many bytes may go along.
        """
        if claim.task == "extract":
            return self._few_bytes(json.loads(claim.args), brought, min(room, PART))
        if claim.task != "fetch":
            return {}
        url, key = str(json.loads(claim.args)[0]), item_key(claim.args)
        item_id = self._parts.store.find(key)
        found = None if item_id is None else self._parts.store.get(item_id)
        row = found and {name: found[name] for name in ("id", "sha256", "tag", "metadata")}
        extras: dict[str, Any] = {"item": {"key": key, "row": row}}
        if row and row["sha256"] in self._parts.cache:
            extras["cached"] = row["sha256"]
        if rules := robots.stored_rules(self._parts.data_dir / robots.DIRECTORY, url):
            extras["robots"] = rules
        return extras

    def _few_bytes(self, args: list[Any], brought: Collection[str], room: int) -> dict[str, Any]:
        if len(args) < 3 or args[1] in brought or args[2]["size"] > room:
            return {}
        try:
            return {"part": part(self._parts.cache.get(args[1]), args[1], 0)}
        except KeyError:  # the job will fail with the reason
            return {}

    def reply(self, kind: str, body: Any) -> Any:
        """Answer a question of a task: the value of a key of its plugin's state, or the keys."""
        if kind == "state":
            return self._parts.job_store.plugin_value(*body)
        return sorted(self._parts.job_store.plugin_keys(*body))

    def setup(self, pools: Iterable[str], *, accepts_plugins: bool) -> dict[str, Any]:
        """The settings without paths and secrets of this machine, and the saved plugins.

        Args:
            pools: Those with tasks that run anywhere.
            accepts_plugins: Whether the machine does.
        """
        plugins = saved_sources(self._parts.plugins) if accepts_plugins else {}
        return {"settings": self._settings, "plugins": plugins, "pools": sorted(pools)}

    @cached_property
    def _settings(self) -> str:
        from paise2nb.content.fetch.logins import login_hosts

        own: dict[str, Any] = {
            "data_dir": "/",
            "task_queue.sqlite.path": None,
            "data_storage.sqlite.path": None,
            "alerts": [],  # with the addresses of people
            "fetch.cookies": None,
            "fetch.headers": {host: {} for host in login_hosts(self._parts.settings.fetch)},
        }
        return self._parts.settings.without_secrets().override(own, "home").to_json()
