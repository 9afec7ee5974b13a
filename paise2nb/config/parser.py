"""YAML with keys that remember their file and line, so that a mistake can be reported with both."""

from __future__ import annotations

import json
import re
import reprlib
from collections.abc import Hashable, Mapping
from functools import cache
from pathlib import Path
from typing import Any

from paise2nb.core.errors import SettingsError


class WrittenKey(str):
    """A key of a mapping, with the place where it was written."""

    origin: str

    def __new__(cls, text: str, origin: str) -> WrittenKey:  # noqa: D102
        key = super().__new__(cls, text)
        key.origin = origin
        return key


@cache
def _loader() -> Any:
    import yaml  # here, because workers get their settings as JSON

    # Not libyaml's loader: it saves 3 ms, but its messages differ and deep nesting crashes it.
    class Loader(yaml.SafeLoader):
        """Adds origins to keys, and rejects duplicate keys: YAML forbids them, PyYAML does not."""

        name: str
        lines: bool

        def construct_mapping(self, node: Any, deep: bool = False) -> dict[Hashable, Any]:
            mapping: dict[Hashable, Any] = {}
            for written, value in node.value:
                mark = written.start_mark
                if not isinstance(written, yaml.ScalarNode):
                    raise yaml.MarkedYAMLError(problem="a key must be a word", problem_mark=mark)
                line = f":{mark.line + 1}" if self.lines else ""
                key = WrittenKey(written.value, self.name + line)
                if key in mapping:
                    problem = f"the key {printable(key)} is given twice"
                    raise yaml.MarkedYAMLError(problem=problem, problem_mark=mark)
                mapping[key] = self.construct_object(value, deep=deep)
            return mapping

        def construct_object(self, node: Any, deep: bool = False) -> Any:
            # PyYAML does not convert these, for dates such as 2024-13-45 or tags such as !!int x.
            try:
                return super().construct_object(node, deep)
            except (ValueError, LookupError, AttributeError) as error:
                mark = node.start_mark
                raise yaml.MarkedYAMLError(problem=str(error), problem_mark=mark) from error

    # In YAML 1.2, 1e3 is a number. PyYAML accepts only 1.0e+3.
    number = re.compile(r"[-+]?(\d+\.?\d*|\.\d+)[eE][-+]?\d+$")
    Loader.add_implicit_resolver("tag:yaml.org,2002:float", number, list("-+.0123456789"))
    return Loader


def parse(text: str, name: str, *, lines: bool = True) -> Any:
    """Parse a YAML document. The keys of its mappings are `WrittenKey`.

    Args:
        text: The document. An empty one is None.
        name: The name of the file, or another origin, for errors and keys.
        lines: Whether errors and keys tell the line, too.

    Raises:
        SettingsError: The text is not valid YAML, or contains a key twice.
    """
    import yaml

    try:
        loader = _loader()(text)
        loader.name, loader.lines = name, lines
        return loader.get_single_data()
    except yaml.reader.ReaderError as error:
        line, problem = text[: error.position].count("\n") + 1, f"{error.reason}"
    except yaml.MarkedYAMLError as error:
        line, problem = error.problem_mark.line + 1 if error.problem_mark else 1, f"{error.problem}"
    except RecursionError:
        line, problem = 1, "nested too deep"
    raise SettingsError(f"{name}{f':{line}' * lines}: not valid YAML: {problem}")


def parse_mapping(text: str, name: str, *, lines: bool = True) -> Mapping[str, Any]:
    """Parse a YAML document that must be a mapping or empty. Arguments and errors as of `parse`."""
    written = parse(text, name, lines=lines)
    if written is None:
        return {}
    if not isinstance(written, Mapping):
        where = f"{name}{':1' * lines}"
        raise SettingsError(f"{where}: settings are lines of `key: value`, not {shown(written)}")
    return written


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


def read_file(file: Path) -> Mapping[str, Any]:
    """Return the mapping in a YAML file, empty if there is no such file. Raises SettingsError."""
    try:
        data = file.read_bytes()
        return parse_mapping(data.decode("utf-8-sig"), str(file))
    except (FileNotFoundError, NotADirectoryError):
        return {}
    except OSError as error:
        raise SettingsError(f"{file}: can't be read: {error.strerror}; fix or move it") from error
    except UnicodeDecodeError as error:
        line = data.count(b"\n", 0, error.start) + 1
        raise SettingsError(f"{file}:{line}: not UTF-8; save the file as UTF-8") from error


def shown(value: Any) -> str:
    """Format a value on one short line, as in YAML where that differs from Python."""
    if value is None or isinstance(value, bool):
        return json.dumps(value)
    short = reprlib.Repr()
    short.maxlevel, short.maxstring, short.maxother = 2, 60, 60
    return short.repr(value)


def printable(key: str) -> str:
    """Format a key, quoted if it is very long or contains control characters."""
    return key if key.isprintable() and len(key) < 100 else shown(key)
