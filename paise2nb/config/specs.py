"""Check layers of settings against a declaration.

A declaration is a tree of sections. Their fields are annotated with a type and a range. Each layer
is checked separately, so that a mistake is reported with its file and line even if a later layer
replaces the value.

Neither pydantic nor msgspec replaces this: their errors know no lines and no nearest key.
"""

import os
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from difflib import get_close_matches
from functools import cache
from pathlib import Path
from types import GenericAlias, MappingProxyType
from typing import (
    Any,
    Literal,
    NamedTuple,
    NewType,
    dataclass_transform,
    get_args,
    get_origin,
    get_type_hints,
)
from urllib.parse import urlsplit

from paise2nb.config.conditions import parse_condition
from paise2nb.config.parser import WrittenKey, printable, shown
from paise2nb.core.errors import SettingsError, UsageError
from paise2nb.core.processes import usable_cores
from paise2nb.core.text import time_span

Key = tuple[str, ...]
"""The parts of a dotted key. An error class such as ``fetch.timeout`` is one part."""

Module = NewType("Module", str)
"""The name of a module, or the path of a ``.py`` file."""
Proxy = NewType("Proxy", str)
"""The URL of a proxy, or ``environment``."""
HeaderText = NewType("HeaderText", str)
"""The value of a header, which is sent in Latin-1."""
RedisURL = NewType("RedisURL", str)
"""The URL of a Redis server, with or without a password."""
Secret = NewType("Secret", str)
"""A text that is never shown."""
Processes = NewType("Processes", int)
"""A number of processes. ``auto`` is one for each core that this process may use."""
TimeSpan = NewType("TimeSpan", float)
"""Seconds, written as a number or with a unit: ``15m``."""
WhenText = NewType("WhenText", str)
"""The condition of an alert."""
SecretURL = NewType("SecretURL", str)
"""A URL of which only the scheme may be shown."""

AUTO = "auto"
# The types of values, and what they allow.
_TYPES: dict[Any, str] = {
    bool: "true or false",
    int: "a whole number",
    Processes: "auto or a whole number",
    float: "a number",
    str: "text",
    Proxy: "an http:// or https:// URL, environment",
    HeaderText: "text",
    RedisURL: "a redis://, rediss:// or unix:// URL",
    Secret: "text",
    TimeSpan: "a time span such as 90, 15m, 2h or 1d",
    WhenText: "a condition such as failed_rate > 0.2",
    SecretURL: "an Apprise URL such as ntfy://TOPIC",
    Path: "a path",
    tuple[str, ...]: "a list of words",
    tuple[Module, ...]: "a list of modules and paths of .py files",
}
_PATTERNS = {
    Proxy: r"https?://[^/\s]|environment$",
    RedisURL: r"(rediss?|unix)://[^/\s]*/?",
    SecretURL: r"[a-z][a-z0-9]*://[^/\s]",
}


@dataclass_transform(frozen_default=True, field_specifiers=(field,))
class Section:
    """Base class of the sections. Each is a frozen dataclass."""

    def __init_subclass__(cls) -> None:
        dataclass(frozen=True)(cls)


class Entry(NamedTuple):
    """A value in its JSON form, and the layer that set it."""

    value: Any
    origin: str


class Range(NamedTuple):
    """The smallest and the largest value of a number."""

    low: float
    high: float


class MappingSpec(NamedTuple):
    """A mapping with arbitrary keys.

    ``values`` declares the values: a section, of which ``complete`` tells whether they have all
    keys or only those that were written; a single value; or another mapping. Keys match
    ``pattern``, which ``allowed`` describes.
    """

    values: "type | FieldSpec | MappingSpec"
    complete: bool
    pattern: str
    allowed: str


class FieldSpec(NamedTuple):
    """The annotation of one field."""

    kind: Any
    nullable: bool = False
    limits: Range | None = None
    choices: tuple[str, ...] = ()
    mapping: MappingSpec | None = None

    @property
    def is_section(self) -> bool:
        """Whether it contains other fields."""
        return isinstance(self.kind, type) and issubclass(self.kind, Section)

    @property
    def element(self) -> type | None:
        """The section of which it is a list, or None."""
        inner = next(iter(get_args(self.kind)), None)
        return inner if isinstance(inner, type) and issubclass(inner, Section) else None

    @property
    def is_value(self) -> bool:
        """Whether it is neither a section nor a mapping."""
        return self.kind in _TYPES

    @property
    def allowed(self) -> str:
        """A description of the allowed values."""
        if self.choices:
            return ", ".join(self.choices) + ", null" * self.nullable
        limits = f" from {self.limits.low:,} to {self.limits.high:,}" if self.limits else ""
        return _TYPES[self.kind] + limits + " or null" * self.nullable

    def checked(self, value: Any, base: Path) -> Any:
        """Return the JSON form of a value, with absolute paths.

        Raises:
            ValueError, TypeError, RuntimeError: The value is not allowed.
        """
        if value is None and self.nullable:
            return None
        accepted = _checked(self.kind, value, base)
        if self.limits and accepted != AUTO:
            low, high = self.limits
            if not low <= accepted <= high:
                raise ValueError
        if self.choices and accepted not in self.choices:
            raise ValueError
        return accepted

    def shown(self, value: Any) -> str:
        """Format a value for a message."""
        return "a value that is not shown" if self.kind in (Secret, SecretURL) else shown(value)


def _checked(kind: Any, value: Any, base: Path) -> Any:
    if kind is Processes:
        return value if value == AUTO else _checked(int, value, base)
    if isinstance(kind, GenericAlias):  # tuple[…]
        if not isinstance(value, list | tuple):
            raise TypeError
        return [_checked(get_args(kind)[0], element, base) for element in value]
    if kind is TimeSpan and isinstance(value, str):
        value = time_span(value)
    if kind in (bool, int, float, TimeSpan):
        allowed = int | float if kind in (float, TimeSpan) else kind
        if not isinstance(value, allowed) or isinstance(value, bool) is not (kind is bool):
            raise TypeError
        return value
    if kind is Path or (kind is Module and str(value).endswith(".py")):
        # expanduser() raises RuntimeError if there is no such user.
        return os.path.normpath(base / Path(_checked(str, os.fspath(value), base)).expanduser())
    if not isinstance(value, str) or not value.strip() or re.search(r"[\x00-\x1f\x7f]", value):
        raise ValueError
    if kind is WhenText:
        parse_condition(value)
    if kind is HeaderText and not re.fullmatch(r"[\x20-\xff]*", value):
        raise UsageError(f"{shown(value)} can't be sent in a header; write it in Latin-1")
    if not re.match(_PATTERNS.get(kind, ""), value):
        raise ValueError
    if kind in (Proxy, RedisURL):
        _ = urlsplit(value).port  # raises ValueError for a wrong one
    return value


@cache
def field_specs(section: type) -> dict[str, FieldSpec]:
    """Return the fields of a section that layers may set."""
    annotated = get_type_hints(section, include_extras=True)
    specs = {}
    for name, hint in get_type_hints(section).items():
        extras = {type(extra): extra for extra in getattr(annotated[name], "__metadata__", ())}
        nullable = type(None) in get_args(hint)
        kind = get_args(hint)[0] if nullable else hint
        choices = get_args(kind) if get_origin(kind) is Literal else ()
        kind = str if choices else kind
        spec = FieldSpec(kind, nullable, extras.get(Range), choices, extras.get(MappingSpec))
        if spec.is_value or spec.is_section or spec.mapping or spec.element:
            specs[name] = spec
    return specs


def _python_value(kind: Any, value: Any) -> Any:
    """Return the Python form of a JSON value."""
    if kind is Path and value is not None:
        return Path(value)
    if kind is Processes and value == AUTO:
        return usable_cores()
    return tuple(value) if isinstance(value, list) else value


@cache
def keys(section: type) -> tuple[str, ...]:
    """Return every dotted key in a section, as declared."""
    found: list[str] = []
    for name, spec in field_specs(section).items():
        found += [f"{name}.{key}" for key in keys(spec.kind)] if spec.is_section else [name]
    return tuple(found)


def build(section: type, entries: Mapping[Key, Entry], above: Key = ()) -> dict[str, Any]:
    """Return the arguments for the dataclass of a section, without those that have no entry."""
    values: dict[str, Any] = {}
    for name, spec in field_specs(section).items():
        path = (*above, name)
        if spec.mapping:
            values[name] = _mapping(spec.mapping, entries, path)
        elif spec.is_section:
            values[name] = spec.kind(**build(spec.kind, entries, path))
        elif spec.element:
            each = (Layer(spec.element, "", Path()).apply({}, e) for e in entries[path].value)
            values[name] = tuple(spec.element(**build(spec.element, e)) for e in each)
        elif path in entries:
            value = entries[path].value
            values[name] = _python_value(spec.kind, value)
    return values


def _mapping(spec: MappingSpec, entries: Mapping[Key, Entry], path: Key) -> Mapping[str, Any]:
    found: dict[str, Any] = {}
    for key in [key for key in entries if key[:-1] == path]:
        match spec.values:
            case FieldSpec(kind):
                found[key[-1]] = _python_value(kind, entries[key].value)
            case MappingSpec() as inner:
                found[key[-1]] = _mapping(inner, entries, key)
            case section:
                built = build(section, entries, key)
                found[key[-1]] = section(**built) if spec.complete else MappingProxyType(built)
    return MappingProxyType(found)


_REMOVED: Any = object()


class Layer(NamedTuple):
    """One source of settings.

    ``root`` is the declaration, ``name`` the origin of keys that know no line, and ``base`` the
    directory of relative paths.
    """

    root: type
    name: str
    base: Path

    def apply(self, entries: Mapping[Key, Entry], written: Mapping[str, Any]) -> dict[Key, Entry]:
        """Return entries that are overridden by what this layer contains.

        Raises:
            SettingsError: A key or value is not allowed.
        """
        own: dict[Key, Entry] = {}
        for path, entry in self._section(self.root, written, ()):
            # A mapping has an entry, too, for its origin. It is empty and may be repeated.
            if path in own and entry.value != {}:
                where = f"{entry.origin}: {'.'.join(path)}"
                raise SettingsError(f"{where} is given twice, first at {own[path].origin}")
            own[path] = entry
        removed = [path for path, entry in own.items() if entry.value is _REMOVED]
        return {
            path: entry
            for path, entry in {**entries, **own}.items()
            if not any(path[: len(gone)] == gone for gone in removed)
        }

    def _section(
        self, section: type, written: Mapping[str, Any], above: Key
    ) -> Iterator[tuple[Key, Entry]]:
        for key, value in written.items():
            origin = getattr(key, "origin", self.name)
            head, _, tail = str(key).partition(".")
            spec, path = field_specs(section).get(head), (*above, head)
            if spec is None or (tail and spec.is_value):
                raise self._unknown(origin, (*above, str(key)), section)
            if spec.is_value:
                yield path, self._value(spec, path, value, origin)
                continue
            if spec.element:
                yield path, Entry(self._elements(spec.element, value, path, origin), origin)
                continue
            if tail:
                value = {WrittenKey(tail, origin): value}
            if spec.mapping:
                yield path, Entry({}, origin)
            if value is None:
                continue  # a section in which all keys are commented out
            if not isinstance(value, Mapping):
                raise _wrong(origin, path, shown(value), "a mapping")
            if spec.mapping:
                yield from self._mapping(spec.mapping, value, path, is_dotted=bool(tail))
            else:
                yield from self._section(spec.kind, value, path)

    def _mapping(
        self, spec: MappingSpec, written: Mapping[str, Any], above: Key, *, is_dotted: bool = False
    ) -> Iterator[tuple[Key, Entry]]:
        inner = spec.values
        known = field_specs(inner) if isinstance(inner, type) else {}
        for key, value in written.items():
            origin = getattr(key, "origin", self.name)
            name, _, last = str(key).rpartition(".")
            is_mapping = value is None or isinstance(value, Mapping)
            is_inner = is_dotted and isinstance(inner, MappingSpec) and not is_mapping
            if name and (last in known or is_inner):
                value = {WrittenKey(last, origin): value}
            elif name and isinstance(inner, type) and not is_mapping:
                raise self._unknown(origin, (*above, name, last), inner)
            else:
                name = str(key)
            path = (*above, name)
            if not re.fullmatch(spec.pattern, name):
                where = f"{origin}: {'.'.join(above)}"
                raise SettingsError(f"{where} can't have {shown(name)}; allowed: {spec.allowed}")
            if value is None:
                yield path, Entry(_REMOVED, origin)
            elif isinstance(inner, FieldSpec):
                yield path, self._value(inner, path, value, origin)
            elif isinstance(value, Mapping):
                yield path, Entry({}, origin)
                if isinstance(inner, MappingSpec):
                    yield from self._mapping(inner, value, path)
                else:
                    yield from self._section(inner, value, path)
            else:
                keys = ", ".join(known) or "NAME: VALUE"
                allowed = f"a mapping of {keys}, or null to remove it"
                raise _wrong(origin, path, shown(value) if known else "no mapping", allowed)

    def _value(self, spec: FieldSpec, path: Key, value: Any, origin: str) -> Entry:
        try:
            return Entry(spec.checked(value, self.base), origin)
        except UsageError as error:
            raise SettingsError(f"{origin}: {'.'.join(path)}: {error}") from None
        except (ValueError, TypeError, RuntimeError):
            raise _wrong(origin, path, spec.shown(value), spec.allowed) from None

    def _elements(self, section: type, written: Any, path: Key, origin: str) -> list[Any]:
        """Check a list of sections. Its errors show no value, which may be secret."""
        keys = f"mappings of {', '.join(field_specs(section))}"
        if not isinstance(written, list | tuple):
            raise _wrong(origin, path, "no list", f"a list of {keys}")
        found = []
        for number, element in enumerate(written):
            where = (*path[:-1], f"{path[-1]}[{number}]")
            if not isinstance(element, Mapping):
                raise _wrong(origin, where, "no mapping", keys)
            inner = dict(self._section(section, element, where))
            found.append({key[-1]: entry.value for key, entry in inner.items()})
        return found

    def _unknown(self, origin: str, path: Key, section: type) -> SettingsError:
        """Return the error for a key that a section does not have, with the nearest known key."""
        siblings = {name: ".".join((*path[:-1], name)) for name in field_specs(section)}
        others: dict[str, str] = {}
        for key in keys(self.root):
            for end, name in enumerate(parts := key.split("."), 1):
                others.setdefault(name, ".".join(parts[:end]))
        known = others | siblings
        near = get_close_matches(path[-1][:80], known, 1, 0.5)
        hint = f"did you mean {known[near[0]]}?" if near else f"known here: {', '.join(siblings)}"
        if path == ("profile",):
            hint = "a profile is chosen by --profile NAME or PAISE2_PROFILE"
        return SettingsError(f"{origin}: unknown key {printable('.'.join(path))}; {hint}")


def _wrong(origin: str, path: Key, value: str, allowed: str) -> SettingsError:
    return SettingsError(f"{origin}: {'.'.join(path)} is {value}; allowed: {allowed}")
