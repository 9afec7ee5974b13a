"""Settings: layers of YAML become one frozen, checked object that knows the origin of each value.

Each key is declared once, with its type, its range and its description. Parsing, checking,
``config show`` and the transfer to workers follow that declaration. The default values are in
``profiles/*.yaml``.
"""

from __future__ import annotations

import json
import os
from collections.abc import Iterable, Mapping, Sequence
from copy import copy
from dataclasses import dataclass, field, fields
from difflib import get_close_matches
from functools import reduce
from pathlib import Path
from types import MappingProxyType
from typing import Annotated, Any

from paise2nb.config.parser import parse, parse_mapping, read_file, shown
from paise2nb.config.specs import Entry, Key, Layer, MappingSpec, Module, Proxy, Range, build, docs
from paise2nb.core.errors import SettingsError, UsageError
from paise2nb.core.files import working_directory

PROFILES = ("development", "test", "production")
FILE_NAME = "paise2.yaml"

Seconds = Annotated[float, Range(0, 10**9)]
SomeSeconds = Annotated[float, Range(0.001, 10**9)]
Days = Annotated[float, Range(0, 36_500)]
Count = Annotated[int, Range(1, 1024)]


# The declaration -----------------------------------------------------------------------------


@dataclass(frozen=True)
class Pool:
    """A named group of worker processes for certain tasks."""

    tasks: Annotated[tuple[str, ...], "tasks that only this pool runs"] = ()
    processes: Annotated[Count, "worker processes"] = 1
    threads: Annotated[Count, "jobs at a time in each process"] = 1


@dataclass(frozen=True)
class RetryRules:
    """A retry policy."""

    max_retries: Annotated[int, Range(0, 1000), "attempts after the first"]
    retry_delay: Annotated[Seconds, "seconds before the first retry"]
    backoff: Annotated[float, Range(1, 100), "factor by which each further delay is longer"]
    max_delay: Annotated[Seconds, "longest delay in seconds"]


_POOLS = MappingSpec(
    Pool,
    complete=True,
    pattern=r"(?!default$)[A-Za-z][\w-]*",
    allowed="letters, digits, - and _, but not `default`: workers.concurrency is its size",
)
_POLICIES = MappingSpec(
    RetryRules, complete=False, pattern=r"[\w:.-]+", allowed="an error class, or TASK.CLASS"
)


@dataclass(frozen=True)
class RetrySettings(RetryRules):
    """The policy for every error, and the differences for some error classes."""

    policies: Annotated[
        Mapping[str, Mapping[str, float]],
        _POLICIES,
        "differences for an error class (`timeout`), or for one of a task (`fetch.timeout`)",
    ]


@dataclass(frozen=True)
class WorkerSettings:
    """The processes that run jobs."""

    concurrency: Annotated[Count, "processes for tasks without a pool, each with one job at a time"]
    pools: Annotated[
        Mapping[str, Pool],
        _POOLS,
        "workers for certain tasks: `NAME: {tasks: [fetch], processes: 1, threads: 16}`",
    ]
    cancel_grace: Annotated[Seconds, "seconds for a cancelled job to end by itself"]
    retry: RetrySettings
    timeout: Annotated[SomeSeconds, "seconds for one attempt"]
    memory_mb: Annotated[int, Range(1, 2**24), "memory limit of a worker process in MB"]
    idle_exit: Annotated[Seconds, "seconds without work until background workers exit; 0: never"]


@dataclass(frozen=True)
class QueueDatabase:
    """The database of jobs."""

    path: Annotated[Path | None, "database of jobs; null: tasks.db in data_dir"]
    immediate: Annotated[bool, "run jobs in the caller, for debugging"]


@dataclass(frozen=True)
class QueueSettings:
    """Where jobs are queued."""

    provider: Annotated[str, "`sqlite`, `none` (jobs run in the caller) or one from a plugin"]
    sqlite: QueueDatabase


@dataclass(frozen=True)
class StorageDatabase:
    """The database of items."""

    path: Annotated[Path | None, "database of items; null: items.db in data_dir"]


@dataclass(frozen=True)
class StorageSettings:
    """Where items are stored."""

    sqlite: StorageDatabase


@dataclass(frozen=True)
class CacheSettings:
    """Fetched bytes."""

    keep_days: Annotated[Days, "days to keep fetched bytes; longer while a job needs them"]


@dataclass(frozen=True)
class HistorySettings:
    """Finished jobs."""

    keep_days: Annotated[Days, "days to keep finished jobs"]


@dataclass(frozen=True)
class FetchSettings:
    """How URLs are fetched."""

    user_agent: Annotated[str | None, "User-Agent of requests; null: paise2nb/VERSION"]
    timeout: Annotated[SomeSeconds, "seconds for one fetch, including redirects"]
    max_bytes: Annotated[int, Range(1, 2**40), "largest body in bytes, after decompression"]
    max_redirects: Annotated[int, Range(0, 100), "redirects to follow in one fetch"]
    max_age: Annotated[Seconds, "seconds until a URL is fetched again without --force"]
    host_delay: Annotated[Seconds, "seconds between requests to one host, by all workers; 0: none"]
    robots: Annotated[bool, "obey robots.txt"]
    allow_private_addresses: Annotated[bool, "fetch from loopback, link-local and private networks"]
    proxy: Annotated[
        Proxy | None,
        "proxy, `http://HOST:PORT`; `environment`: from http_proxy, https_proxy and no_proxy; "
        "null: none",
    ]


@dataclass(frozen=True)
class ExtractSettings:
    """How text is extracted from fetched documents."""

    precision: Annotated[
        bool,
        "prefer precision over recall, and search the text for a date when the page declares none; "
        "slower",
    ]


@dataclass(frozen=True)
class EntryPointSettings:
    """Which installed plugins are loaded."""

    allow: Annotated[tuple[str, ...], "installed plugins to load, by name; `*` matches anything"]
    deny: Annotated[tuple[str, ...], "installed plugins to list but never import"]


@dataclass(frozen=True)
class Settings:
    """The settings of one app. Two are equal if their values are, whatever their origins."""

    profile: str
    data_dir: Annotated[
        Path | None,
        "directory of all data; null: ~/.local/share/paise2 for production, "
        "…/paise2/NAME for other profiles, temporary for test",
    ]
    workers: WorkerSettings
    task_queue: QueueSettings
    data_storage: StorageSettings
    cache: CacheSettings
    history: HistorySettings
    fetch: FetchSettings
    extract: ExtractSettings
    plugins: Annotated[tuple[Module, ...], "plugins to load: modules, or paths of .py files"]
    entry_points: EntryPointSettings
    entries: Mapping[Key, Entry] = field(repr=False, compare=False)

    @classmethod
    def resolve(
        cls,
        profile: str | None = None,
        *,
        data_dir: str | Path | None = None,
        overrides: Mapping[str, object] | None = None,
        defaults: Iterable[tuple[str, Mapping[str, Any]]] = (),
        files: Sequence[Path] | None = None,
    ) -> Settings:
        """Merge all layers. Later ones override earlier ones: mappings merge, lists are replaced.

        Args:
            profile: The packaged profile. None means ``PAISE2_PROFILE``, else development.
            data_dir: The data directory, which overrides all layers.
            overrides: Dotted keys or nested mappings, as from ``--set``.
            defaults: The names of plugins with their default settings, which override the
                packaged profile but not the user's files.
            files: The user's files. None means `config_files`.

        Raises:
            UsageError: There is no such profile.
            SettingsError: A layer can't be read, or a key or value in it is wrong.
        """
        here = working_directory()
        chosen = _chosen_profile(profile)
        packaged, exported = f"packaged profile {chosen.value}", os.environ.get("PAISE2_DATA_DIR")
        files = config_files() if files is None else files
        layers = [
            *((_packaged(part, packaged), packaged, here) for part in ("base", chosen.value)),
            *((values, f"plugin {plugin}", here) for plugin, values in defaults),
            *((read_file(file), str(file), file.parent) for file in files),
            ({"data_dir": exported} if exported else {}, "PAISE2_DATA_DIR", here),
            (overrides or {}, "--set", here),
            ({} if data_dir is None else {"data_dir": data_dir}, "--data-dir", here),
        ]
        entries: dict[Key, Entry] = {("profile",): chosen}
        for written, name, base in layers:
            entries = Layer(cls, name, base).apply(entries, written)
        return cls._of(entries)

    @classmethod
    def _of(cls, entries: dict[Key, Entry]) -> Settings:
        profile, data_dir = entries["profile",].value, entries["data_dir",]
        if data_dir.value is None and profile != "test":
            try:
                shared = Path("~/.local/share/paise2").expanduser()
            except RuntimeError:
                raise SettingsError(
                    "this user has no home directory for the data; choose a directory with "
                    "--data-dir or PAISE2_DATA_DIR"
                ) from None
            path = shared if profile == "production" else shared / profile
            entries["data_dir",] = data_dir._replace(value=str(path))
        _complete_pools(entries)
        return cls(profile, entries=MappingProxyType(entries), **build(cls, entries))

    def override(self, values: Mapping[str, object], origin: str) -> Settings:
        """Return these settings with other values, set by ``origin``. Raises SettingsError."""
        return self._of(Layer(Settings, origin, working_directory()).apply(self.entries, values))

    def set_by(self, origin: str) -> dict[str, Any]:
        """Return the values that one layer has set, as a mapping for `override`."""
        return _nested({k: entry for k, entry in self.entries.items() if entry.origin == origin})

    def with_data_dir(self, path: str | Path) -> Settings:
        """Return these settings with another data directory, as for profile test."""
        return self.override({"data_dir": path}, f"profile {self.profile}")

    def rows(self) -> list[dict[str, Any]]:
        """Return each key with its value and its origin, in the order of the declaration."""
        sections = {path[:end] for path in self.entries for end in range(1, len(path))}
        found = {".".join(k): entry for k, entry in self.entries.items() if k not in sections}
        return [
            {"key": key, "value": copy(entry.value), "origin": entry.origin}
            for declared in ("profile", *DOCS)
            for key, entry in found.items()
            if f"{key}.".startswith(f"{declared}.")
        ]

    def to_dict(self) -> dict[str, Any]:
        """Return all settings as JSON values, nested as in a YAML file."""
        nested = _nested(self.entries)
        del nested["profile"]
        return nested

    def to_json(self) -> str:
        """Return all settings with their origins, for `from_json` in another process."""
        return json.dumps([[path, *entry] for path, entry in self.entries.items()])

    @classmethod
    def from_json(cls, text: str) -> Settings:
        """Return the settings that `to_json` wrote. Reads no file and no environment.

        Raises:
            SettingsError: Another version of the package wrote them.
        """
        try:
            return cls._of({tuple(path): Entry(*entry) for path, *entry in json.loads(text)})
        except (KeyError, TypeError, ValueError) as error:
            raise SettingsError(
                "these settings come from another version of paise2nb; type: paise2 worker restart"
            ) from error


DOCS: Mapping[str, str] = docs(Settings)
"""The description of every dotted key, in the order of the declaration."""


# Layers --------------------------------------------------------------------------------------


def config_files() -> list[Path]:
    """Return the paths of the user's two ``paise2.yaml``, which may not exist."""
    # Not Path.expanduser(), which raises RuntimeError for a user without a home directory.
    directory = os.path.expanduser(os.environ.get("PAISE2_CONFIG_DIR") or "~/.config/paise2")
    here = working_directory()
    return [here / directory / FILE_NAME, here / FILE_NAME]


def parse_assignment(text: str) -> tuple[str, Any]:
    """Parse ``KEY=VALUE``, as for ``--set``. The value is YAML.

    Raises:
        SettingsError: There is no ``=``, or the value is not valid YAML.
    """
    key, equals, value = text.partition("=")
    if not equals or not key.strip():
        example = "workers.concurrency=2"
        raise SettingsError(f"--set takes KEY=VALUE, such as {example}, not {shown(text)}")
    try:
        return key.strip(), parse(value, "--set", lines=False)
    except SettingsError as error:
        raise SettingsError(f"{error}, in the value of {shown(key.strip())}") from None


def _chosen_profile(profile: str | None) -> Entry:
    chosen = Entry("development", "the default")
    if profile is not None:
        chosen = Entry(profile, "--profile")
    elif exported := os.environ.get("PAISE2_PROFILE"):
        chosen = Entry(exported, "PAISE2_PROFILE")
    if chosen.value not in PROFILES:
        near = get_close_matches(str(chosen.value), PROFILES, 1)
        hint = f"did you mean {near[0]}? " if near else ""
        raise UsageError(
            f"{chosen.origin}: unknown profile {shown(chosen.value)}; "
            f"{hint}known: {', '.join(PROFILES)}"
        )
    return chosen


def _packaged(name: str, origin: str) -> Mapping[str, Any]:
    file = Path(__file__).parent / "profiles" / f"{name}.yaml"
    return parse_mapping(file.read_text("utf-8"), origin, lines=False)


def _nested(entries: Mapping[Key, Entry]) -> dict[str, Any]:
    nested: dict[str, Any] = {}
    for (*outer, name), entry in entries.items():
        section = reduce(lambda value, part: value.setdefault(part, {}), outer, nested)
        section[name] = copy(entry.value)
    return nested


def _complete_pools(entries: dict[Key, Entry]) -> None:
    """Add the default values of pools. Raises SettingsError if two pools have the same task."""
    owners: dict[str, tuple[str, str]] = {}
    for path in [key for key in entries if key[:-1] == ("workers", "pools")]:
        for part in fields(Pool):
            default = [*part.default] if isinstance(part.default, tuple) else part.default
            entries.setdefault((*path, part.name), Entry(default, entries[path].origin))
        tasks, origin = entries[*path, "tasks"]
        for task in tasks:
            owner, other_origin = owners.setdefault(task, (path[-1], origin))
            if owner != path[-1]:
                raise SettingsError(
                    f"{origin}: {'.'.join(path)}.tasks: pool {owner!r} runs {shown(task)} already "
                    f"({other_origin}); name it once, or set that pool to null"
                )
