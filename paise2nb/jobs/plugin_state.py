"""What a plugin keeps from one job to the next: a few JSON values by key, no other plugin's.

Nothing is written before the job completes; then it is, in that very transaction. Each value has a
version: where another job has changed one that this job has read, this one's completion is not
accepted, and it runs again, uncharged. So a counter counts each completed job once.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, MutableMapping
from typing import TYPE_CHECKING, Any

from paise2nb.core.errors import UsageError
from paise2nb.jobs import StateEntry

if TYPE_CHECKING:
    from paise2nb.jobs import JobStore

MOST = 100_000  # characters of one value, as JSON


class State(MutableMapping[str, Any]):
    """A job's view of its plugin's state.

    Args:
        table: where it is kept.
        plugin: whose it is.
    """

    def __init__(self, job_store: JobStore, plugin: str) -> None:
        self._job_store = job_store
        self._plugin = plugin
        self._known: dict[str, StateEntry] = {}

    def kept(self) -> list[StateEntry]:
        """What was read and written, if anything was written."""
        known = list(self._known.values())
        return known if any(entry.written for entry in known) else []

    def version(self, key: str) -> int:
        """How often the value of a key has been written or deleted; 0: never."""
        return self._read(key).version or 0

    def _read(self, key: str) -> StateEntry:
        known = self._known.get(key)
        if known is None or known.version is None:  # one that was only written so far
            value, version = self._job_store.kept(self._plugin, key)
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
            raise UsageError(f"a key of context.state is a text, not {key!r}")
        try:
            text = json.dumps(value, allow_nan=False)
        except (TypeError, ValueError) as error:
            raise UsageError(f"context.state[{key!r}] is not JSON: {error}") from None
        if len(text) > MOST:
            raise UsageError(
                f"context.state[{key!r}] has {len(text):,} characters, more than {MOST:,}; "
                "put it into context.cache, and keep its key"
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
        stored = self._job_store.kept_keys(self._plugin)
        gone = {key for key, entry in self._known.items() if entry.written and entry.value is None}
        mine = {key for key, entry in self._known.items() if entry.written} - gone
        return iter(sorted((stored | mine) - gone))

    def __len__(self) -> int:
        return len(list(iter(self)))
