"""The state of a plugin: a few JSON values by key that it keeps from one job to the next.

Nothing is written before the job completes, and then in the same transaction. Each value has a
version: if another job has changed a value that this job has read, the completion is refused and
the job runs again, uncharged. So a counter counts each completed job exactly once.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, MutableMapping
from typing import Any

from paise2nb.core.errors import UsageError
from paise2nb.jobs.models import StateEntry
from paise2nb.jobs.store import JobStore

LONGEST_VALUE = 100_000  # characters, as JSON


class State(MutableMapping[str, Any]):
    """The state of a plugin as one execution sees it.

    Args:
        job_store: stores the state.
        plugin: the name of the plugin.
    """

    def __init__(self, job_store: JobStore, plugin: str) -> None:
        self._job_store = job_store
        self._plugin = plugin
        self._known: dict[str, StateEntry] = {}

    def entries(self) -> list[StateEntry]:
        """The values that were read and written; empty if none was written."""
        known = list(self._known.values())
        return known if any(entry.written for entry in known) else []

    def version(self, key: str) -> int:
        """The number of times that a value was written or deleted."""
        return self._read(key).version or 0

    def _read(self, key: str) -> StateEntry:
        known = self._known.get(key)
        if known is None or known.version is None:  # only written so far
            value, version = self._job_store.plugin_value(self._plugin, key)
            read = StateEntry(self._plugin, key, value, version, False)
            known = self._known[key] = read if known is None else known._replace(version=version)
        return known

    def __getitem__(self, key: str) -> Any:
        known = self._known.get(key)
        value = known.value if known is not None and known.written else self._read(key).value
        if value is None:
            raise KeyError(key)
        return json.loads(value)

    def __setitem__(self, key: str, value: Any) -> None:
        if not isinstance(key, str):
            raise UsageError(f"a key of context.state must be a string, not {key!r}")
        try:
            text = json.dumps(value, allow_nan=False)
        except (TypeError, ValueError) as error:
            raise UsageError(f"context.state[{key!r}] is not JSON: {error}") from None
        if len(text) > LONGEST_VALUE:
            raise UsageError(
                f"context.state[{key!r}] has {len(text):,} characters, more than "
                f"{LONGEST_VALUE:,}; put it into context.cache, and keep its key"
            )
        self._write(key, text)

    def __delitem__(self, key: str) -> None:
        self[key]
        self._write(key, None)

    def _write(self, key: str, value: str | None) -> None:
        known = self._known.get(key)
        version = None if known is None else known.version
        self._known[key] = StateEntry(self._plugin, key, value, version, True)

    def __iter__(self) -> Iterator[str]:
        stored = self._job_store.plugin_keys(self._plugin)
        written = {key: entry.value for key, entry in self._known.items() if entry.written}
        deleted = {key for key, value in written.items() if value is None}
        return iter(sorted((stored | written.keys()) - deleted))

    def __len__(self) -> int:
        return len(list(iter(self)))
