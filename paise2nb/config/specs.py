"""Layers of YAML, read against a declaration: what may be written, what was, and where.

A declaration is a tree of dataclasses whose fields carry a type, a range and a line of
documentation. Each layer is checked by itself, so that an error names its file and line even
where a later layer would have replaced the value.
"""

from __future__ import annotations

import json
import os
import re
import reprlib
from collections.abc import Callable, Hashable, Iterator, Mapping
from dataclasses import is_dataclass
from difflib import get_close_matches
from functools import cache
from pathlib import Path
from types import MappingProxyType
from typing import Annotated, Any, NamedTuple, NewType, get_args, get_origin, get_type_hints

from paise2nb.core.errors import SettingsError

Key = tuple[str, ...]
"""A dotted key in its parts: an error class such as ``fetch.timeout`` is one part."""

Module = NewType("Module", str)
"""The name of a module, or the path of a ``.py`` file."""
Proxy = NewType("Proxy", str)
"""The address of a proxy, or ``environment``."""


class Entry(NamedTuple):
    """A value as JSON knows it, and the layer that set it."""

    value: Any
    origin: str


# Declarations --------------------------------------------------------------------------------


class Range(NamedTuple):
    """The least and the greatest value of a number."""

    low: float
    high: float


class MappingSpec(NamedTuple):
    """A mapping whose keys the user chooses.

    ``section`` declares what stands under each; ``whole`` makes that a section of its own, else
    it is a mapping of what was written. ``pattern`` is what a key looks like, ``names`` in words.
    """

    section: type
    whole: bool
    pattern: str
    names: str


class FieldSpec(NamedTuple):
    """What the annotation of one field says. A field without a doc is a section."""

    kind: Any
    nullable: bool = False
    doc: str = ""
    limits: Range | None = None
    entries: MappingSpec | None = None

    @property
    def allowed(self) -> str:
        """What the value may be, in words."""
        words = _KINDS[self.kind][0]
        if self.limits:
            words += f" from {self.limits.low:,} to {self.limits.high:,}"
        return words + " or null" * self.nullable

    def checked(self, value: Any, base: Path) -> Any:
        """The value as JSON knows it, paths made absolute. Raises ValueError, TypeError."""
        if value is None and self.nullable:
            return None
        accepted = _KINDS[self.kind][1](value, base)
        if self.limits and not self.limits.low <= accepted <= self.limits.high:
            raise ValueError
        return accepted


@cache
def field_specs(section: type) -> dict[str, FieldSpec]:
    """The keys of a section: its annotated fields, and those that are sections themselves."""
    found = {}
    for name, hint in get_type_hints(section, include_extras=True).items():
        if is_dataclass(hint):
            found[name] = FieldSpec(hint)
        elif get_origin(hint) is Annotated:
            kind, *extras = get_args(hint)
            nullable = type(None) in get_args(kind)
            of_type = {type(extra): extra for extra in extras}
            found[name] = FieldSpec(
                get_args(kind)[0] if nullable else kind,
                nullable, of_type[str], of_type.get(Range), of_type.get(MappingSpec),
            )  # fmt: skip
    return found


@cache
def documentation(section: type) -> Mapping[str, str]:
    """Every dotted key below a section with its line of documentation, as declared."""
    docs: dict[str, str] = {}
    for name, declared in field_specs(section).items():
        inner = {} if declared.doc else documentation(declared.kind)
        docs |= {f"{name}.{key}": doc for key, doc in inner.items()} or {name: declared.doc}
    return MappingProxyType(docs)


def build(section: type, entries: Mapping[Key, Entry], above: Key = ()) -> dict[str, Any]:
    """The arguments for a section's dataclass; a key without an entry is left out."""
    values: dict[str, Any] = {}
    for name, declared in field_specs(section).items():
        path = (*above, name)
        if declared.entries:
            inner, whole, *_ = declared.entries
            named = {k[-1]: build(inner, entries, k) for k in entries if k[:-1] == path}
            values[name] = MappingProxyType(
                {k: inner(**v) if whole else MappingProxyType(v) for k, v in named.items()}
            )
        elif not declared.doc:
            values[name] = declared.kind(**build(declared.kind, entries, path))
        elif path in entries:
            value = entries[path].value
            typed = Path if declared.kind is Path else tuple if isinstance(value, list) else None
            values[name] = typed(value) if typed and value is not None else value
    return values


def _one_of(*types: type) -> Callable[[Any, Path], Any]:
    def accept(value: Any, base: Path) -> Any:
        if not isinstance(value, types) or (isinstance(value, bool) and bool not in types):
            raise TypeError
        return value

    return accept


def _text(value: Any, base: Path) -> str:
    if not isinstance(value, str) or not value.strip() or re.search(r"[\x00-\x1f\x7f]", value):
        raise ValueError
    return value


def _path(value: Any, base: Path) -> str:
    return os.path.normpath(base / Path(_text(os.fspath(value), base)).expanduser())


def _module(value: Any, base: Path) -> str:
    return (_path if str(value).endswith(".py") else _text)(value, base)


def _list_of(accept: Callable[[Any, Path], str]) -> Callable[[Any, Path], list[str]]:
    def accept_all(value: Any, base: Path) -> list[str]:
        return [accept(element, base) for element in _one_of(list, tuple)(value, base)]

    return accept_all


def _proxy(value: Any, base: Path) -> str:
    text = _text(value, base)
    if text != "environment" and not re.match(r"https?://[^/\s]", text):
        raise ValueError
    return text


_KINDS: dict[Any, tuple[str, Callable[[Any, Path], Any]]] = {
    bool: ("true or false", _one_of(bool)),
    int: ("a whole number", _one_of(int)),
    float: ("a number", _one_of(int, float)),
    str: ("text", _text),
    Proxy: ("an http:// or https:// address, environment", _proxy),
    Path: ("a path", _path),
    tuple[str, ...]: ("a list of words", _list_of(_text)),
    tuple[Module, ...]: ("a list of modules and paths of .py files", _list_of(_module)),
}


# YAML ----------------------------------------------------------------------------------------


class _WrittenKey(str):
    """A key of a mapping that remembers where it was written."""

    origin: str

    def __new__(cls, text: str, origin: str) -> _WrittenKey:
        key = super().__new__(cls, text)
        key.origin = origin
        return key


@cache
def _loader() -> Any:
    import yaml  # here: a worker gets its settings as JSON and reads no YAML

    # Not libyaml's loader: it saves 3 ms, but its messages differ and deep nesting crashes it.
    class Loader(yaml.SafeLoader):
        """Keys keep their line; duplicates, which YAML forbids and PyYAML takes, are refused."""

        name: str
        lines: bool

        def construct_mapping(self, node: Any, deep: bool = False) -> dict[Hashable, Any]:
            mapping: dict[Hashable, Any] = {}
            for written, value in node.value:
                mark = written.start_mark
                if not isinstance(written, yaml.ScalarNode):
                    raise yaml.MarkedYAMLError(problem="a key must be a word", problem_mark=mark)
                line = f":{mark.line + 1}" if self.lines else ""
                key = _WrittenKey(written.value, self.name + line)
                if key in mapping:
                    problem = f"the key {_printable(key)} is given twice"
                    raise yaml.MarkedYAMLError(problem=problem, problem_mark=mark)
                mapping[key] = self.construct_object(value, deep=deep)
            return mapping

        def construct_object(self, node: Any, deep: bool = False) -> Any:
            # PyYAML lets these through for a date such as 2024-13-45 or a tag such as !!int x.
            try:
                return super().construct_object(node, deep)
            except (ValueError, LookupError, AttributeError) as error:
                mark = node.start_mark
                raise yaml.MarkedYAMLError(problem=str(error), problem_mark=mark) from error

    # YAML 1.2 and people write 1e3 for a number; PyYAML knows only 1.0e+3.
    number = re.compile(r"[-+]?(\d+\.?\d*|\.\d+)[eE][-+]?\d+$")
    Loader.add_implicit_resolver("tag:yaml.org,2002:float", number, list("-+.0123456789"))
    return Loader


def parse(text: str, name: str, *, lines: bool = True) -> Any:
    """A YAML document in which every mapping's keys know where they stand.

    Args:
        text: the document; an empty one is None.
        name: the file, or what else errors and origins are to say.
        lines: whether they say the line too.

    Raises:
        SettingsError: it is not YAML, or has a key twice.
    """
    import yaml

    try:
        loader = _loader()(text)
        loader.name, loader.lines = name, lines
        try:
            return loader.get_single_data()
        finally:
            loader.dispose()
    except yaml.reader.ReaderError as error:
        line, problem = text[: error.position].count("\n") + 1, f"{error.reason}"
    except yaml.MarkedYAMLError as error:
        line, problem = error.problem_mark.line + 1 if error.problem_mark else 1, f"{error.problem}"
    except RecursionError:
        line, problem = 1, "nested too deep"
    raise SettingsError(f"{name}{f':{line}' * lines}: not valid YAML: {problem}")


def parse_yaml(text: str, name: str, *, lines: bool = True) -> Mapping[str, Any]:
    """As `parse`, for a document that has to be a mapping; an empty one is an empty mapping."""
    written = parse(text, name, lines=lines)
    if written is None:
        return {}
    if not isinstance(written, Mapping):
        where = f"{name}{':1' * lines}"
        raise SettingsError(f"{where}: settings are lines of `key: value`, not {shown(written)}")
    return written


def read(file: Path) -> Mapping[str, Any]:
    """The mapping in a YAML file; one that does not exist is empty. Raises SettingsError."""
    try:
        data = file.read_bytes()
    except (FileNotFoundError, NotADirectoryError):
        return {}
    except OSError as error:
        raise SettingsError(f"{file}: can't be read: {error.strerror}; mend or move it") from error
    try:
        return parse_yaml(data.decode("utf-8-sig"), str(file))
    except UnicodeDecodeError as error:
        line = data.count(b"\n", 0, error.start) + 1
        raise SettingsError(f"{file}:{line}: not UTF-8; save the file as UTF-8") from error


# A layer -------------------------------------------------------------------------------------

_REMOVED: Any = object()


class Layer(NamedTuple):
    """One layer: the section at the root, what keys without a line are said to come from, and
    the directory in which relative paths start."""

    root: type
    name: str
    base: Path

    def over(self, entries: Mapping[Key, Entry], written: Mapping[str, Any]) -> dict[Key, Entry]:
        """Check what was written and lay it over the entries. Raises SettingsError."""
        mine: dict[Key, Entry] = {}
        # An entry with an empty mapping only marks that something stands there.
        for path, entry in self._section(self.root, written, ()):
            if path in mine and entry.value != {}:
                where = f"{entry.origin}: {'.'.join(path)}"
                raise SettingsError(f"{where} is given twice, first at {mine[path].origin}")
            mine[path] = entry
        removed = [path for path, entry in mine.items() if entry.value is _REMOVED]
        merged = {**entries, **mine}
        return {
            path: entry
            for path, entry in merged.items()
            if not any(path[: len(gone)] == gone for gone in removed)
        }

    def _section(
        self, section: type, written: Mapping[str, Any], above: Key
    ) -> Iterator[tuple[Key, Entry]]:
        for key, value in written.items():
            origin = getattr(key, "origin", self.name)
            head, _, tail = str(key).partition(".")
            declared, path = field_specs(section).get(head), (*above, head)
            is_value = declared and declared.kind in _KINDS
            if declared is None or (tail and is_value):
                raise self.unknown(origin, (*above, str(key)), section)
            if is_value:
                try:
                    yield path, Entry(declared.checked(value, self.base), origin)
                except (ValueError, TypeError, RuntimeError):  # RuntimeError: ~nobody has no home
                    raise _wrong(origin, path, value, declared.allowed) from None
                continue
            if tail:
                value = {_WrittenKey(tail, origin): value}
            if declared.entries:
                yield path, Entry({}, origin)
            if value is None:
                continue  # all of its lines are commented out
            if not isinstance(value, Mapping):
                raise _wrong(origin, path, value, "a mapping")
            if declared.entries:
                yield from self._entries(declared.entries, value, path)
            else:
                yield from self._section(declared.kind, value, path)

    def _entries(
        self, entries: MappingSpec, written: Mapping[str, Any], above: Key
    ) -> Iterator[tuple[Key, Entry]]:
        known = field_specs(entries.section)
        for key, value in written.items():
            origin = getattr(key, "origin", self.name)
            name, _, last = str(key).rpartition(".")
            if name and last in known:
                value = {_WrittenKey(last, origin): value}
            elif name and not (value is None or isinstance(value, Mapping)):
                raise self.unknown(origin, (*above, name, last), entries.section)
            else:
                name = str(key)
            path = (*above, name)
            if not re.fullmatch(entries.pattern, name):
                where = f"{origin}: {'.'.join(above)}"
                raise SettingsError(f"{where} can't have {shown(name)}; allowed: {entries.names}")
            if value is None:
                yield path, Entry(_REMOVED, origin)
            elif isinstance(value, Mapping):
                yield path, Entry({}, origin)
                yield from self._section(entries.section, value, path)
            else:
                allowed = f"a mapping of {', '.join(known)}, or null to remove it"
                raise _wrong(origin, path, value, allowed)

    def unknown(self, origin: str, path: Key, section: type) -> SettingsError:
        """The error for a key that its section does not have: it names the nearest known one."""
        siblings = {name: ".".join((*path[:-1], name)) for name in field_specs(section)}
        others: dict[str, str] = {}
        for key in documentation(self.root):
            for end, name in enumerate(parts := key.split("."), 1):
                others.setdefault(name, ".".join(parts[:end]))
        known = others | siblings
        near = get_close_matches(path[-1][:80], known, 1, 0.5)
        hint = f"did you mean {known[near[0]]}?" if near else f"known here: {', '.join(siblings)}"
        return SettingsError(f"{origin}: unknown key {_printable('.'.join(path))}; {hint}")


def _wrong(origin: str, path: Key, value: Any, allowed: str) -> SettingsError:
    return SettingsError(f"{origin}: {'.'.join(path)} is {shown(value)}; allowed: {allowed}")


def shown(value: Any) -> str:
    """A value on one short line, as YAML writes it where that differs from Python."""
    if value is None or isinstance(value, bool):
        return json.dumps(value)
    short = reprlib.Repr()
    short.maxlevel, short.maxstring, short.maxother = 2, 60, 60
    return short.repr(value)


def _printable(key: str) -> str:
    return key if key.isprintable() and len(key) < 100 else shown(key)
