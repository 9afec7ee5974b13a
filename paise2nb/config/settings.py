"""Settings: layers of YAML become one frozen, checked object that knows the origin of each value.

Each key is declared once, with its type and its range. Parsing, checking, ``config show`` and the
transfer to workers follow that declaration. The descriptions and the default values are in
``profiles/base.yaml``.
"""

from __future__ import annotations

import json
import os
from collections.abc import Iterable, Mapping, Sequence
from copy import copy
from dataclasses import field, fields
from difflib import get_close_matches
from functools import reduce
from pathlib import Path
from types import MappingProxyType
from typing import Annotated, Any, Literal, NewType, get_args

from paise2nb.config import specs
from paise2nb.config.alerts import Alert, check_alerts, public
from paise2nb.config.parser import parse_mapping, read_file, shown
from paise2nb.config.specs import (
    Entry,
    FieldSpec,
    HeaderText,
    Key,
    Layer,
    MappingSpec,
    Module,
    Processes,
    Proxy,
    Range,
    RedisURL,
    Secret,
    Section,
)
from paise2nb.core.errors import HIDDEN, SettingsError, UsageError, without_secrets
from paise2nb.core.files import working_directory
from paise2nb.core.urls import shown_url

PROFILES = ("development", "test", "production")
FILE_NAME = "paise2.yaml"

Seconds = Annotated[float, Range(0, 10**9)]
SomeSeconds = Annotated[float, Range(0.001, 10**9)]
Count = Annotated[int, Range(1, 1024)]
Size = Annotated[Processes, Range(1, 1024)]
DEFAULT_POOL = "default"  # of tasks without a pool of their own
Profile = NewType("Profile", str)  # not a setting: no layer may set it


# The declaration -----------------------------------------------------------------------------


class Pool(Section):
    """A named group of worker processes for certain tasks.

    Attributes:
        tasks: The tasks that only this pool runs.
        processes: The number of worker processes.
        threads: Jobs at a time in each process.
    """

    tasks: tuple[str, ...] = ()
    processes: Size = Processes(1)
    threads: Count = 1


class RetryRules(Section):
    """A retry policy: how often an execution is retried, and with which delays in seconds."""

    max_retries: Annotated[int, Range(0, 1000)]
    retry_delay: Seconds
    backoff: Annotated[float, Range(1, 100)]
    max_delay: Seconds

    @property
    def max_attempts(self) -> int:
        """Executions in all."""
        return self.max_retries + 1

    def delay(self, retry: int) -> float:
        """Return the seconds before a retry, without jitter; the first retry is 1."""
        try:
            return min(self.retry_delay * self.backoff ** (retry - 1), self.max_delay)
        except OverflowError:
            return self.max_delay


SECRET = "task_queue.redis.secret"
RELAY = "relay"  # the pool of the process that gives jobs to other machines
_POOLS = MappingSpec(
    Pool,
    complete=True,
    pattern=r"(?!(default|relay)$)[A-Za-z][\w-]*",
    allowed="letters, digits, - and _; not `relay`; not `default`: workers.concurrency is its size",
)
_POLICIES = MappingSpec(
    RetryRules, complete=False, pattern=r"[\w:.-]+", allowed="an error class, or TASK.CLASS"
)
_HOSTS = r"(\*\.)?[^\s/*@:\[\]]+|[0-9A-Fa-f:]+:[0-9A-Fa-f:.]*"
_ANY_HOST = "a host such as example.org, or *.example.org for all hosts below it"
RenderMode = Literal["never", "auto", "always"]
RENDER = "render"  # the task, and its pool
RENDER_THREADS = 2  # most of the time of a page is waiting: tests.benchmarks.render
_RENDER_HOSTS = MappingSpec(
    FieldSpec(str, choices=get_args(RenderMode)), complete=True, pattern=_HOSTS, allowed=_ANY_HOST
)
HEADERS = "fetch.headers"
_HEADERS = MappingSpec(
    MappingSpec(
        FieldSpec(Secret),
        complete=True,
        # Those of the connection itself, which a request must not contradict (RFC 9110).
        pattern=r"(?!(?i:host|connection|content-length|transfer-encoding|te|upgrade|trailer"
        r"|proxy-.*)$)[!#$%&'*+^_`|~0-9A-Za-z-]+",
        allowed="the name of a header such as Authorization, but none of the connection's own",
    ),
    complete=True,
    pattern=_HOSTS,
    allowed=_ANY_HOST,
)


class RetrySettings(RetryRules):
    """The policy for every error, and the differences for some error classes."""

    policies: Annotated[Mapping[str, Mapping[str, float]], _POLICIES]


class WorkerSettings(Section):
    """The processes that run jobs."""

    concurrency: Size
    pools: Annotated[Mapping[str, Pool], _POOLS]
    cancel_grace: Seconds
    retry: RetrySettings
    timeout: SomeSeconds
    memory_mb: Annotated[int, Range(1, 2**24)]
    idle_exit: Seconds

    def pool_of(self, task: str) -> str | None:
        """Return the pool that names a task, or None."""
        return next((name for name, pool in self.pools.items() if task in pool.tasks), None)


class QueueDatabase(Section):
    """The database of jobs."""

    path: Path | None
    immediate: bool


class RedisSettings(Section):
    """The Redis server through which jobs reach other machines."""

    url: RedisURL
    name: str
    secret: Secret | None
    lease: Annotated[float, Range(3, 3600)]
    blob_mb: Annotated[int, Range(1, 2**16)]


class QueueSettings(Section):
    """Where jobs are queued."""

    provider: str
    sqlite: QueueDatabase
    redis: RedisSettings


class StorageDatabase(Section):
    """The database of items."""

    path: Path | None


class StorageSettings(Section):
    """Where items are stored."""

    sqlite: StorageDatabase


class Retention(Section):
    """How long something is kept."""

    keep_days: Annotated[float, Range(0, 36_500)]


class FetchSettings(Section):
    """How URLs are fetched."""

    user_agent: HeaderText | None
    timeout: SomeSeconds
    max_bytes: Annotated[int, Range(1, 2**40)]
    max_redirects: Annotated[int, Range(0, 100)]
    max_age: Seconds
    host_delay: Seconds
    robots: bool
    allow_private_addresses: bool
    proxy: Proxy | None
    cookies: Path | None
    headers: Annotated[Mapping[str, Mapping[str, str]], _HEADERS] = field(repr=False)
    keep_cookies: bool
    render: RenderMode
    render_hosts: Annotated[Mapping[str, RenderMode], _RENDER_HOSTS]
    render_sandbox: bool
    render_executable: Path | None


class ExtractSettings(Section):
    """How text is extracted from fetched documents."""

    precision: bool
    ocr: Literal["never", "auto"]
    ocr_languages: tuple[str, ...]


class LoggingSettings(Section):
    """The workers' log."""

    level: Literal["debug", "info", "warning", "error"]
    format: Literal["text", "json"]


class EntryPointSettings(Section):
    """Which installed plugins are loaded."""

    allow: tuple[str, ...]
    deny: tuple[str, ...]


class Settings(Section):
    """The settings of one app. Two are equal if their values are, whatever their origins."""

    profile: Profile
    data_dir: Path | None
    workers: WorkerSettings
    task_queue: QueueSettings
    data_storage: StorageSettings
    cache: Retention
    history: Retention
    fetch: FetchSettings
    extract: ExtractSettings
    alerts: tuple[Alert, ...]
    logging: LoggingSettings
    plugins: tuple[Module, ...]
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
        _add_render_pool(entries)
        _complete_pools(entries)
        check_alerts(*entries["alerts",])
        return cls(profile, entries=MappingProxyType(entries), **specs.build(cls, entries))

    def override(self, values: Mapping[str, object], origin: str) -> Settings:
        """Return these settings with other values, set by ``origin``. Raises SettingsError."""
        return self._of(Layer(Settings, origin, working_directory()).apply(self.entries, values))

    def set_by(self, origin: str) -> dict[str, Any]:
        """Return the values that one layer has set, as a mapping for `override`."""
        return _nested({k: entry for k, entry in self.entries.items() if entry.origin == origin})

    def with_data_dir(self, path: str | Path) -> Settings:
        """Return these settings with another data directory, as for profile test."""
        return self.override({"data_dir": path}, f"profile {self.profile}")

    def databases(self, data_dir: Path) -> tuple[Path, Path]:
        """Return the files of the jobs and the items, which are in a data directory by default."""
        jobs, items = self.task_queue.sqlite.path, self.data_storage.sqlite.path
        return jobs or data_dir / "tasks.db", items or data_dir / "items.db"

    def without_secrets(self) -> Settings:
        """Return these settings without what may be in no database, listing or message."""
        url = shown_url(self.task_queue.redis.url)
        alerts = public(self.entries["alerts",].value)
        headers = {host: dict.fromkeys(named) for host, named in self.fetch.headers.items()}
        values = {"task_queue.redis.url": url, SECRET: None, "alerts": alerts, HEADERS: headers}
        return self.override(values, "hidden")

    def rows(self) -> list[dict[str, Any]]:
        """Return each key with its value and its origin, in the order of the declaration."""
        sections = {path[:end] for path in self.entries for end in range(1, len(path))}
        found = {".".join(k): entry for k, entry in self.entries.items() if k not in sections}
        for key, entry in found.items():
            if entry.value and (key == SECRET or key.startswith(f"{HEADERS}.")):
                found[key] = entry._replace(value=HIDDEN)
        return [
            {"key": key, "value": without_secrets(public(entry.value)), "origin": entry.origin}
            for declared in ("profile", *KEYS)
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


KEYS = specs.keys(Settings)
"""Every dotted key, in the order of the declaration."""


# Layers --------------------------------------------------------------------------------------


def config_files() -> list[Path]:
    """Return the paths of the user's two ``paise2.yaml``, which may not exist."""
    # Not Path.expanduser(), which raises RuntimeError for a user without a home directory.
    directory = os.path.expanduser(os.environ.get("PAISE2_CONFIG_DIR") or "~/.config/paise2")
    here = working_directory()
    return [here / directory / FILE_NAME, here / FILE_NAME]


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


def _add_render_pool(entries: dict[Key, Entry]) -> None:
    """Add the pool that renders if pages may be rendered, unless another pool does."""
    hosts = [entry for key, entry in entries.items() if key[:-1] == ("fetch", "render_hosts")]
    on = [entry for entry in (entries["fetch", "render"], *hosts) if entry.value != "never"]
    pools = [key for key in entries if key[:2] == ("workers", "pools") and key[3:] == ("tasks",)]
    path = ("workers", "pools", RENDER)
    if on and not any(RENDER in entries[key].value for key in pools):
        entries.setdefault(path, Entry({}, on[0].origin))
        own = entries.get((*path, "tasks"), Entry([], "")).value
        entries[*path, "tasks"] = Entry([*own, RENDER], on[0].origin)
        entries.setdefault((*path, "threads"), Entry(RENDER_THREADS, on[0].origin))


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
