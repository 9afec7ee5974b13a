"""The decorators of a plugin, and the task that one of them declares."""

import hashlib
import inspect
import json
import math
import struct
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field, fields
from functools import cached_property
from numbers import Integral, Real
from types import MappingProxyType
from typing import Any, TypeAlias, TypeVar

from paise2nb.config.settings import RetryRules, Settings
from paise2nb.core.errors import PluginError, UsageError
from paise2nb.plugins.protocols import AppInfo, Extractor, Fetcher

_LEAST = {  # of the numbers in a declaration
    "max_retries": ("a whole number", 0),
    "retry_delay": ("seconds", 0),
    "backoff": ("a factor", 1),
    "max_delay": ("seconds", 0),
    "timeout": ("seconds", 0.001),
    "memory_mb": ("megabytes", 1),
}
PLACES = ("home", "anywhere")
POLICY_FIELDS = {part.name for part in fields(RetryRules)}
F = TypeVar("F", bound=Callable[..., Any])
Arguments: TypeAlias = tuple[Any, ...]


def _plain_number(value: object) -> int | float:
    """Return a number of NumPy as one of Python. Raises TypeError for other values."""
    if isinstance(value, Integral):
        return int(value)
    if isinstance(value, Real):
        return float(value)
    raise TypeError(f"{type(value).__name__} is not JSON")


_to_number = struct.Struct(">q").unpack  # of 8 bytes
_encode = json.JSONEncoder(allow_nan=False, sort_keys=True, default=_plain_number).encode
_NUMBERS: dict[Any, type] = {int: int, "int": int, float: float, "float": float}  # annotations


@dataclass(frozen=True)
class Task:
    """A named function that jobs run. None means that the settings decide.

    Attributes:
        name: The name to enqueue it by.
        function: ``(context, *arguments)``. It returns JSON.
        max_retries: How often a failed job is retried.
        retry_delay: Seconds before the first retry.
        timeout: Seconds that one execution may take.
        memory_mb: MB that one execution may use.
        pool: The worker pool that runs it.
        plugin: The module that defines it.
        check: ``(app, arguments) -> arguments`` returns the arguments to store, or raises
            UsageError.
        key: ``(arguments) -> text`` returns a text that is equal for duplicates.
        fresh: ``(settings, result, age, arguments) -> bool`` tells whether a completed job with
            the same key is up to date, given its result and the seconds since it finished.
        host: ``(arguments) -> host`` returns the host that limits the request rate of the job.
        threads: Its jobs are brief, and a few of them may run at once in one process.
        runs: ``home``, or ``anywhere``: also on other machines that have joined the queue.
        policies: Retry policies by error class, ``crash`` included:
            ``{"timeout": {"max_retries": 5, "retry_delay": 1}}``, also ``backoff``, ``max_delay``.
    """

    name: str
    function: Callable[..., Any]
    max_retries: int | None = None
    retry_delay: float | None = None
    timeout: float | None = None
    memory_mb: int | None = None
    pool: str | None = None
    plugin: str = ""
    check: Callable[[AppInfo, Arguments], Arguments] | None = None
    key: Callable[[Arguments], str] | None = None
    fresh: Callable[[Settings, Any, float, Arguments], bool] | None = None
    host: Callable[[Arguments], str | None] | None = None
    policies: Mapping[str, Mapping[str, float]] = field(default_factory=dict)
    runs: str = "home"
    threads: bool = False

    def __post_init__(self) -> None:
        if self.runs not in PLACES:
            known = " or ".join(map(repr, PLACES))
            raise self._broken(f"runs is {self.runs!r}; give {known}")
        if not isinstance(self.threads, bool):
            raise self._broken(f"threads is {self.threads!r}; give True or False")
        for name in ("max_retries", "retry_delay", "timeout", "memory_mb"):
            if (value := getattr(self, name)) is not None:
                self._check_number(name, value, "")
        policies: Mapping[str, Any] = self.policies
        for error_class, policy in policies.items():
            if not isinstance(policy, Mapping):
                reason = f"the policy for {error_class!r} is {policy!r}"
                raise self._broken(f'{reason}; give a mapping such as {{"max_retries": 5}}')
            for name, value in policy.items():
                where = f" in the policy for {error_class!r}"
                if name not in POLICY_FIELDS:
                    known = ", ".join(sorted(POLICY_FIELDS))
                    raise self._broken(f"unknown field {name!r}{where}; known: {known}")
                self._check_number(name, value, where)

    def _check_number(self, name: str, value: Any, where: str) -> None:
        kind, least = _LEAST[name]
        number = int if name == "max_retries" else int | float
        if isinstance(value, bool) or not isinstance(value, number) or not value >= least:
            raise self._broken(f"{name} is {value!r}{where}; give {kind}, {least} or more")

    def _broken(self, reason: str) -> PluginError:
        return PluginError(f"task {self.name!r}: {reason}")

    @cached_property
    def _parameters(self) -> list[inspect.Parameter]:
        """The parameters of the function without the context."""
        return list(inspect.signature(self.function).parameters.values())[1:]

    @property
    def parameters(self) -> list[str]:
        """The names of the task's arguments."""
        return [parameter.name for parameter in self._parameters]

    @cached_property
    def _arity(self) -> tuple[int, float]:
        """The least and the largest number of arguments."""
        kinds = (inspect.Parameter.POSITIONAL_ONLY, inspect.Parameter.POSITIONAL_OR_KEYWORD)
        positional = [p for p in self._parameters if p.kind in kinds]
        least = sum(1 for p in positional if p.default is p.empty)
        unbounded = any(p.kind is p.VAR_POSITIONAL for p in self._parameters)
        return least, math.inf if unbounded else len(positional)

    @cached_property
    def _numbers(self) -> list[tuple[int, str, type]]:
        """The position, name and type of each parameter that takes a number."""
        return [
            (index, parameter.name, _NUMBERS[parameter.annotation])
            for index, parameter in enumerate(self._parameters)
            if parameter.annotation in _NUMBERS
        ]

    @cached_property
    def _digest(self) -> Any:
        """The beginning of the digest of each job: copies of it are faster than new ones."""
        return hashlib.blake2b(f"{self.name}\0".encode(errors="replace"), digest_size=8)

    def _to_numbers(self, arguments: Arguments) -> Arguments:
        """Convert text, as typed in a command, where the function takes a number."""
        converted = list(arguments)
        for index, name, number in self._numbers:
            try:
                if isinstance(value := converted[index], str):
                    converted[index] = number(value)
            except IndexError:  # this parameter and those after it keep their defaults
                break
            except ValueError:
                kind = "a whole number" if number is int else "a number"
                raise UsageError(f"task {self.name!r}: {name} is {value!r}; give {kind}") from None
        return tuple(converted)

    def with_options(self, argument: Arguments, options: Mapping[str, Any]) -> Arguments:
        """Return all arguments by position, given some of them by name.

        Raises:
            UsageError: The task has no parameter with one of the names.
        """
        signature = inspect.signature(self.function)
        if unknown := [name for name in options if name not in self.parameters]:
            option = unknown[0].replace("_", "-")
            raise UsageError(f"task {self.name!r} takes no --{option}")
        try:
            bound = signature.bind(None, *argument, **options)
        except TypeError as error:
            raise UsageError(f"task {self.name!r}: {error}") from None
        bound.apply_defaults()
        return bound.args[1:]

    def accept(self, app: AppInfo, arguments: Arguments) -> tuple[str, int, str | None]:
        """Check the arguments of one job.

        Returns:
            The arguments as JSON text; a 64-bit number that is equal for duplicates; the host
            that limits the request rate of the job, or None.

        Raises:
            UsageError: They do not fit, or are not JSON.
        """
        least, most = self._arity
        if not least <= len(arguments) <= most:
            given = least if len(arguments) < least else None  # required ones, or all
            names = ", ".join(self.parameters[:given])
            raise UsageError(f"task {self.name!r} takes ({names}), not {arguments!r}")
        if self._numbers:
            arguments = self._to_numbers(arguments)
        if self.check is not None:
            arguments = self.check(app, arguments)
        try:
            # One by one, for the enqueue benchmark: encoding a list costs more than its texts.
            texts = [str(value) if type(value) is int else _encode(value) for value in arguments]
            text = f"[{', '.join(texts)}]"
        except (TypeError, ValueError) as error:
            raise UsageError(
                f"the arguments of task {self.name!r} must be JSON "
                f"(text, numbers, lists, objects): {error}"
            ) from None
        key = self.key(arguments) if self.key else text
        digest = self._digest.copy()
        digest.update(key.encode(errors="replace"))
        [number] = _to_number(digest.digest())
        return text, number, self.host(arguments) if self.host else None


def task(
    name: str,
    *,
    max_retries: int | None = None,
    retry_delay: float | None = None,
    timeout: float | None = None,
    memory_mb: int | None = None,
    pool: str | None = None,
    check: Callable[[AppInfo, Arguments], Arguments] | None = None,
    key: Callable[[Arguments], str] | None = None,
    fresh: Callable[[Settings, Any, float, Arguments], bool] | None = None,
    host: Callable[[Arguments], str | None] | None = None,
    policies: Mapping[str, Mapping[str, float]] = MappingProxyType({}),
    runs: str = "home",
    threads: bool = False,
) -> Callable[[F], F]:
    """Make a function ``(context, *arguments)`` a task. See `Task` for the options."""

    def declared(function: Any, module: str) -> Task:
        limits = max_retries, retry_delay, timeout, memory_mb, pool
        hooks = check, key, fresh, host, policies
        return Task(name, function, *limits, module, *hooks, runs, threads)

    return _declare(declared, name)


def fetcher(*schemes: str) -> Callable[[F], F]:
    """Make a function ``(context, url)`` the fetcher of some URL schemes."""
    return _declare(lambda function, module: Fetcher(function, schemes, module), *schemes)


def extractor(*mime_types: str, suffixes: Iterable[str] = ()) -> Callable[[F], F]:
    """Make a function ``(context, data, source)`` the extractor of some MIME types."""
    names = (suffixes,) if isinstance(suffixes, str) else tuple(suffixes)
    return _declare(
        lambda function, module: Extractor(function, mime_types, names, module), *mime_types
    )


def _declare(
    make: Callable[[Any, str], Task | Fetcher | Extractor], *names: object
) -> Callable[[F], F]:
    """Return the decorator that adds what ``make(function, module)`` returns to a function.

    Raises:
        PluginError: One of the names is the function: the decorator was written without any.
    """
    if any(map(callable, names)):
        raise PluginError('a decorator needs a name, such as @task("shout")')

    def decorate(function: F) -> F:
        declared = make(function, function.__module__)
        # A new list, because functools.wraps shares the list between functions.
        function.__dict__["__paise2__"] = [*getattr(function, "__paise2__", ()), declared]
        return function

    return decorate
