"""Settings: YAML layers become one frozen, checked object that knows which layer set each value.

Every key is declared once below, with its type, its range and its line of documentation;
reading, checking, ``config show`` and the way to the workers all follow that declaration.
The defaults stand in ``profiles/*.yaml``.
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

from paise2nb.config.specs import (
    Entry,
    Key,
    Layer,
    MappingSpec,
    Module,
    Proxy,
    Range,
    build,
    documentation,
    parse,
    parse_yaml,
    read,
    shown,
)
from paise2nb.core.errors import SettingsError, UsageError

__all__ = [
    "DOCS",
    "FILE_NAME",
    "PROFILES",
    "Pool",
    "Settings",
    "config_files",
    "parse_assignment",
    "parse_yaml",
]

PROFILES = ("development", "test", "production")
FILE_NAME = "paise2.yaml"

Seconds = Annotated[float, Range(0, 10**9)]
SomeSeconds = Annotated[float, Range(0.001, 10**9)]
Days = Annotated[float, Range(0, 36_500)]
Count = Annotated[int, Range(1, 1024)]


# The keys ------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Pool:
    """A named group of workers for some tasks."""

    tasks: Annotated[tuple[str, ...], "the tasks that only this pool runs"] = ()
    processes: Annotated[Count, "worker processes"] = 1
    threads: Annotated[Count, "jobs at a time in each process"] = 1


@dataclass(frozen=True)
class RetryRules:
    """What a retry policy decides."""

    max_retries: Annotated[int, Range(0, 1000), "attempts after the first"]
    retry_delay: Annotated[Seconds, "seconds before the first retry"]
    backoff: Annotated[float, Range(1, 100), "each further delay is this many times longer"]
    max_delay: Annotated[Seconds, "no delay is longer than this many seconds"]


@dataclass(frozen=True)
class RetrySettings(RetryRules):
    """The rules for every error, and what differs for some classes of error."""

    policies: Annotated[
        Mapping[str, Mapping[str, float]],
        MappingSpec(RetryRules, False, r"[\w:.-]+", "an error class, or TASK.CLASS"),
        "what differs for an error class (`timeout`), or for one in a task (`fetch.timeout`)",
    ]


@dataclass(frozen=True)
class WorkerSettings:
    """The processes that run jobs."""

    concurrency: Annotated[Count, "processes for tasks in no pool, one job at a time in each"]
    pools: Annotated[
        Mapping[str, Pool],
        MappingSpec(
            Pool,
            True,
            r"(?!default$)[A-Za-z][\w-]*",
            "letters, digits, - and _, but not `default`: workers.concurrency is its size",
        ),
        "groups of workers for some tasks: `NAME: {tasks: [fetch], processes: 1, threads: 16}`",
    ]
    cancel_grace: Annotated[Seconds, "seconds that a cancelled job has to end by itself"]
    retry: RetrySettings
    timeout: Annotated[SomeSeconds, "seconds for one attempt"]
    memory_mb: Annotated[int, Range(1, 2**24), "memory in MB that a worker process may hold"]
    idle_exit: Annotated[
        Seconds, "seconds without work after which background workers leave; 0: never"
    ]


@dataclass(frozen=True)
class QueueDatabase:
    """The job table."""

    path: Annotated[Path | None, "the database of jobs; null: tasks.db in data_dir"]
    immediate: Annotated[bool, "run jobs in the caller, for debugging"]


@dataclass(frozen=True)
class QueueSettings:
    """Where jobs wait."""

    provider: Annotated[str, "`sqlite`, `none` (jobs run in the caller) or a plugin's"]
    sqlite: QueueDatabase


@dataclass(frozen=True)
class StorageDatabase:
    """The items."""

    path: Annotated[Path | None, "the database of items; null: items.db in data_dir"]


@dataclass(frozen=True)
class StorageSettings:
    """Where items are kept."""

    sqlite: StorageDatabase


@dataclass(frozen=True)
class CacheSettings:
    """The raw bytes."""

    keep_days: Annotated[
        Days, "days that raw bytes are kept; those that a job still needs stay longer"
    ]


@dataclass(frozen=True)
class HistorySettings:
    """The jobs that ended."""

    keep_days: Annotated[Days, "days that finished jobs are kept"]


@dataclass(frozen=True)
class FetchSettings:
    """How addresses are fetched."""

    user_agent: Annotated[str | None, "the name that requests carry; null: paise2nb/VERSION"]
    timeout: Annotated[SomeSeconds, "seconds for one fetch, redirects included"]
    max_bytes: Annotated[int, Range(1, 2**40), "the largest body, decoded, in bytes"]
    max_redirects: Annotated[int, Range(0, 100), "redirects that one fetch may follow"]
    max_age: Annotated[
        Seconds, "seconds for which a fetched address is fresh: fetched again only by --force"
    ]
    host_delay: Annotated[
        Seconds, "seconds between two requests to one host, across all workers; 0: none"
    ]
    robots: Annotated[bool, "obey robots.txt"]
    allow_private_addresses: Annotated[
        bool, "fetch from loopback, link-local and private networks too"
    ]
    proxy: Annotated[
        Proxy | None,
        "fetch through this proxy, `http://HOST:PORT`; `environment`: through those that "
        "http_proxy, https_proxy and no_proxy name; null: through none, whatever they say",
    ]


@dataclass(frozen=True)
class ExtractSettings:
    """How texts are taken out of what was fetched."""

    precision: Annotated[
        bool,
        "of web pages rather too little than too much, and a date from the text where they declare"
        " none; slower (false: fast, nearly as good)",
    ]


@dataclass(frozen=True)
class EntryPointSettings:
    """Which installed plugins are loaded."""

    allow: Annotated[
        tuple[str, ...], "installed plugins to load: names of entry points, `*` for any part"
    ]
    deny: Annotated[tuple[str, ...], "those of them that are listed but never imported"]


@dataclass(frozen=True)
class Settings:
    """The settings of one app. Two are equal when their values are, whatever layers set them."""

    profile: str
    data_dir: Annotated[
        Path | None,
        "where everything is kept; null: ~/.local/share/paise2 for production, "
        "…/paise2/NAME for other profiles, temporary for test",
    ]
    workers: WorkerSettings
    task_queue: QueueSettings
    data_storage: StorageSettings
    cache: CacheSettings
    history: HistorySettings
    fetch: FetchSettings
    extract: ExtractSettings
    plugins: Annotated[tuple[Module, ...], "modules, or paths of .py files"]
    entry_points: EntryPointSettings
    entries: Mapping[Key, Entry] = field(repr=False, compare=False)

    @classmethod
    def resolve(
        cls,
        profile: str | None = None,
        *,
        data_dir: str | Path | None = None,
        overrides: Mapping[str, object] | None = None,
        environ: Mapping[str, str] = os.environ,
        cwd: Path | None = None,
        defaults: Iterable[tuple[str, Mapping[str, Any]]] = (),
        files: Sequence[Path] | None = None,
    ) -> Settings:
        """Read every layer, later over earlier: mappings merge, lists and values replace.

        Args:
            profile: the packaged profile; else ``PAISE2_PROFILE``, else development.
            data_dir: over every layer's.
            overrides: dotted keys or nested mappings, such as ``--set`` gives.
            environ: the environment.
            cwd: where the second ``paise2.yaml`` is looked for, and relative paths start.
            defaults: what plugins say, with their names: over the packaged profile and under the
                user's files.
            files: the user's files, in place of `config_files`.

        Raises:
            UsageError: no such profile.
            SettingsError: a layer can't be read, or a key or value in it is wrong.
        """
        here = Path.cwd() if cwd is None else cwd
        chosen = _chosen_profile(profile, environ)
        name, exported = f"packaged profile {chosen.value}", environ.get("PAISE2_DATA_DIR")
        files = config_files(environ, here) if files is None else files
        layers = [
            *((_packaged(part, name), name, here) for part in ("base", chosen.value)),
            *((values, f"plugin {plugin}", here) for plugin, values in defaults),
            *((read(file), str(file), file.parent) for file in files),
            ({"data_dir": exported} if exported else {}, "PAISE2_DATA_DIR", here),
            (overrides or {}, "--set", here),
            ({} if data_dir is None else {"data_dir": data_dir}, "--data-dir", here),
        ]
        entries: dict[Key, Entry] = {("profile",): chosen}
        for written, name, base in layers:
            entries = _merged(entries, written, name, base)
        return cls._of(entries)

    @classmethod
    def _of(cls, entries: dict[Key, Entry]) -> Settings:
        profile, data_dir = entries["profile",].value, entries["data_dir",]
        if data_dir.value is None and profile != "test":
            shared = Path("~/.local/share/paise2").expanduser()
            own = shared if profile == "production" else shared / profile
            entries["data_dir",] = data_dir._replace(value=str(own))
        _complete_pools(entries)
        return cls(profile, entries=MappingProxyType(entries), **build(cls, entries))

    def override(self, values: Mapping[str, object], origin: str) -> Settings:
        """The same with some other values; ``origin`` says who set them. Raises SettingsError."""
        return self._of(_merged(self.entries, values, origin, Path.cwd()))

    def set_by(self, origin: str) -> dict[str, Any]:
        """The values that one layer has set, as a mapping that `override` takes."""
        found: dict[str, Any] = {}
        for path, entry in self.entries.items():
            if entry.origin == origin:
                place = found
                for part in path[:-1]:
                    place = place.setdefault(part, {})
                place[path[-1]] = copy(entry.value)
        return found

    def with_data_dir(self, path: str | Path) -> Settings:
        """The same in another data directory, such as the temporary one of profile test."""
        return self.override({"data_dir": path}, f"profile {self.profile}")

    def get(self, key: str) -> Any:
        """The value of a dotted key, or a whole section. Raises SettingsError if it is unknown."""
        return reduce(
            lambda value, name: value[name] if isinstance(value, Mapping) else getattr(value, name),
            self._parts(key),
            self,
        )

    def origin(self, key: str) -> str:
        """Which layer set the value of a dotted key, such as ``/home/me/paise2.yaml:7``."""
        path = self._parts(key)
        if path not in self.entries:
            raise SettingsError(f"{key} is a section; ask for one of its keys")
        return self.entries[path].origin

    def _parts(self, key: str) -> Key:
        # An error class may hold a dot, so a dotted key can't just be split.
        for path in self.entries:
            for end in range(1, len(path) + 1):
                if ".".join(path[:end]) == key:
                    return path[:end]
        raise Layer(Settings, "settings", Path()).unknown("settings", (key,), Settings)

    def rows(self) -> list[dict[str, Any]]:
        """Each key with its value and the layer that set it, in the order of the declaration."""

        def place(path: Key) -> int:
            below = ".".join(path) + "."
            return next((i for i, key in enumerate(DOCS) if below.startswith(key + ".")), -1)

        inner = {path[:end] for path in self.entries for end in range(1, len(path))}
        return [
            {"key": ".".join(path), "value": copy(entry.value), "origin": entry.origin}
            for path, entry in sorted(self.entries.items(), key=lambda item: place(item[0]))
            if path not in inner
        ]

    def to_dict(self) -> dict[str, Any]:
        """What a YAML file with every key would hold, as plain JSON values."""
        nested: dict[str, Any] = {}
        for (*outer, name), entry in self.entries.items():
            holder = reduce(lambda value, part: value.setdefault(part, {}), outer, nested)
            holder[name] = copy(entry.value)
        del nested["profile"]
        return nested

    def to_json(self) -> str:
        """Everything, origins included, for `from_json` in another process."""
        return json.dumps([[path, *entry] for path, entry in self.entries.items()])

    @classmethod
    def from_json(cls, text: str) -> Settings:
        """The settings that `to_json` wrote, exactly: no file and no environment is read.

        Raises:
            SettingsError: another version of the package wrote them.
        """
        try:
            return cls._of({tuple(path): Entry(*entry) for path, *entry in json.loads(text)})
        except (KeyError, TypeError, ValueError) as error:
            raise SettingsError(
                "these settings come from another version of paise2nb; type: paise2 worker restart"
            ) from error


DOCS: Mapping[str, str] = documentation(Settings)
"""Every key, dotted, with its line of documentation, in the order of the declaration."""


# Layers --------------------------------------------------------------------------------------


def config_files(environ: Mapping[str, str] = os.environ, cwd: Path | None = None) -> list[Path]:
    """The user's two ``paise2.yaml``, whether they exist or not; the later one wins."""
    here = Path.cwd() if cwd is None else cwd
    directory = Path(environ.get("PAISE2_CONFIG_DIR") or "~/.config/paise2").expanduser()
    return [here / directory / FILE_NAME, here / FILE_NAME]


def parse_assignment(text: str) -> tuple[str, Any]:
    """Split what ``--set`` takes, ``KEY=VALUE``; the value is YAML.

    Raises:
        SettingsError: there is no ``=``, or the value is not YAML.
    """
    key, equals, value = text.partition("=")
    if not equals or not key.strip():
        example = "workers.concurrency=2"
        raise SettingsError(f"--set takes KEY=VALUE, such as {example}, not {shown(text)}")
    try:
        return key.strip(), parse(value, "--set", lines=False)
    except SettingsError as error:
        raise SettingsError(f"{error}, in the value of {shown(key.strip())}") from None


def _chosen_profile(profile: str | None, environ: Mapping[str, str]) -> Entry:
    if profile is not None:
        chosen = Entry(profile, "--profile")
    elif environ.get("PAISE2_PROFILE"):
        chosen = Entry(environ["PAISE2_PROFILE"], "PAISE2_PROFILE")
    else:
        chosen = Entry("development", "the default")
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
    return parse_yaml(file.read_text("utf-8"), origin, lines=False)


def _merged(
    entries: Mapping[Key, Entry], written: Mapping[str, Any], name: str, base: Path
) -> dict[Key, Entry]:
    for key in written:
        if key == "profile":
            raise SettingsError(
                f"{getattr(key, 'origin', name)}: unknown key profile; "
                "a profile is chosen by --profile NAME or PAISE2_PROFILE"
            )
    return Layer(Settings, name, base).over(entries, written)


def _complete_pools(entries: dict[Key, Entry]) -> None:
    """Give every pool all of its keys. Raises SettingsError if two claim the same task."""
    owners: dict[str, tuple[str, str]] = {}
    for path in [key for key in entries if key[:-1] == ("workers", "pools")]:
        for part in fields(Pool):
            default = [*part.default] if isinstance(part.default, tuple) else part.default
            entries.setdefault((*path, part.name), Entry(default, entries[path].origin))
        tasks, origin = entries[*path, "tasks"]
        for task in tasks:
            owner, said = owners.setdefault(task, (path[-1], origin))
            if owner != path[-1]:
                raise SettingsError(
                    f"{origin}: {'.'.join(path)}.tasks: {shown(task)} stands in pool {owner!r} "
                    f"already ({said}); name it once, or give that pool the value null"
                )
