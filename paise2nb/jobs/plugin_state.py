"""The state of a plugin: a few JSON values by key that it keeps from one job to the next.

Nothing is written before the job completes, and then in the same transaction. Each value has a
version: if another job has changed a value that this job has read, the completion is refused and
the job runs again, uncharged. So a counter counts each completed job exactly once.
"""

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
        self._read: dict[str, tuple[str | None, int]] = {}  # value and version
        self._written: dict[str, str | None] = {}  # None: deleted

    def entries(self) -> list[StateEntry]:
        """Return the values that were read or written. Empty if none was written."""
        written, versions = self._written, {key: read[1] for key, read in self._read.items()}
        return [
            StateEntry(self._plugin, key, written.get(key), versions.get(key), key in written)
            for key in (versions | written if written else ())
        ]

    def __getitem__(self, key: str) -> Any:
        if key in self._written:
            value = self._written[key]
        else:
            if key not in self._read:
                self._read[key] = self._job_store.plugin_value(self._plugin, key)
            value, _ = self._read[key]
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
        self._written[key] = text

    def __delitem__(self, key: str) -> None:
        self[key]
        self._written[key] = None

    def __iter__(self) -> Iterator[str]:
        keys = self._job_store.plugin_keys(self._plugin) | self._written.keys()
        return iter(sorted(key for key in keys if self._written.get(key, "") is not None))

    def __len__(self) -> int:
        return len(list(iter(self)))
