"""What a plugin declares with a decorator, and what its functions take and give."""

from __future__ import annotations

import hashlib
import inspect
import json
import math
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from functools import cached_property
from types import MappingProxyType
from typing import Any, TypeVar

from paise2nb.config.settings import Settings
from paise2nb.core.errors import PluginError, UsageError
from paise2nb.plugins.documents import Extractor, Fetcher
from paise2nb.plugins.protocols import AppInfo

RULES = {"max_retries", "retry_delay", "backoff", "max_delay"}  # of a retry policy
F = TypeVar("F", bound=Callable[..., Any])
_encode = json.JSONEncoder(allow_nan=False, sort_keys=True).encode


# What a decorator records --------------------------------------------------------------------


@dataclass(frozen=True)
class Task:
    """A named function that jobs run. Times in seconds; None means the setting decides.

    ``check`` turns the arguments of an enqueue into the ones that are stored, or raises
    UsageError; ``key`` gives the text by which duplicates are found; ``fresh`` says whether a
    completed job with the same key still stands, given the settings, its result, how long ago
    it finished (seconds) and the new arguments; ``host`` names the host whose turn a job needs.
    ``policies`` says what differs for errors of some classes, ``crash`` included:
    ``{"timeout": {"max_retries": 5, "retry_delay": 1}}``, also ``backoff`` and ``max_delay``.
    """

    name: str
    function: Callable[..., Any]
    max_retries: int | None = None
    retry_delay: float | None = None
    timeout: float | None = None
    memory_mb: int | None = None
    pool: str | None = None
    plugin: str = ""
    check: Callable[[AppInfo, tuple[Any, ...]], tuple[Any, ...]] | None = None
    key: Callable[[tuple[Any, ...]], str] | None = None
    fresh: Callable[[Settings, Any, float, tuple[Any, ...]], bool] | None = None
    host: Callable[[tuple[Any, ...]], str | None] | None = None
    policies: Mapping[str, Mapping[str, float]] = field(default_factory=dict)

    def __post_init__(self) -> None:
        for word, rule in self.policies.items():
            if unknown := sorted(set(rule) - RULES):
                raise PluginError(
                    f"task {self.name!r}: the policy for {word!r} knows no {unknown[0]!r}; "
                    f"it has {', '.join(sorted(RULES))}"
                )

    @cached_property
    def arity(self) -> tuple[int, float]:
        """How many arguments it takes, at least and at most."""
        taken = list(inspect.signature(self.function).parameters.values())[1:]
        positional = [p for p in taken if p.kind in (p.POSITIONAL_ONLY, p.POSITIONAL_OR_KEYWORD)]
        least = sum(1 for p in positional if p.default is p.empty)
        unbounded = any(p.kind is p.VAR_POSITIONAL for p in taken)
        return least, math.inf if unbounded else len(positional)

    @cached_property
    def _numbers(self) -> dict[int, tuple[str, type]]:
        """The parameters that are annotated as numbers, by their places: names and types."""
        taken = list(inspect.signature(self.function).parameters.values())[1:]
        kinds: dict[Any, type] = {int: int, "int": int, float: float, "float": float}
        return {
            place: (parameter.name, kinds[parameter.annotation])
            for place, parameter in enumerate(taken)
            if parameter.annotation in kinds
        }

    def _number(self, place: int, value: Any) -> Any:
        """An argument; a text in the place of a number, as one types it, is that number."""
        name, kind = self._numbers.get(place, ("", str))
        if not isinstance(value, str) or kind is str:
            return value
        try:
            return kind(value)
        except ValueError:
            words = "a whole number" if kind is int else "a number"
            raise UsageError(f"task {self.name!r}: {name} is {value!r}; give {words}") from None

    def with_options(
        self, argument: tuple[Any, ...], options: Mapping[str, Any]
    ) -> tuple[Any, ...]:
        """All arguments in their places, where some are given by name.

        Raises:
            UsageError: it has no parameter of that name.
        """
        taken = inspect.signature(self.function)
        if unknown := [name for name in options if name not in taken.parameters]:
            option = unknown[0].replace("_", "-")
            raise UsageError(f"task {self.name!r} takes no --{option}")
        try:
            bound = taken.bind(None, *argument, **options)
        except TypeError as error:
            raise UsageError(f"task {self.name!r}: {error}") from None
        bound.apply_defaults()
        return bound.args[1:]

    def accept(self, app: AppInfo, arguments: tuple[Any, ...]) -> tuple[str, int, str | None]:
        """Check the arguments of one job against the signature and the task's own check.

        Returns:
            The arguments as JSON text, a 64-bit number that is equal for duplicates, and the host
            whose turn the job needs.

        Raises:
            UsageError: they do not fit, or are not JSON.
        """
        least, most = self.arity
        if not least <= len(arguments) <= most:
            names = ", ".join(list(inspect.signature(self.function).parameters)[1:])
            raise UsageError(f"task {self.name!r} takes ({names}), not {arguments!r}")
        if self._numbers:
            arguments = tuple(map(self._number, range(len(arguments)), arguments))
        if self.check is not None:
            arguments = self.check(app, arguments)
        try:
            # One by one: for a list the encoder makes ready anew, for a text or number it need not.
            texts = [str(one) if type(one) is int else _encode(one) for one in arguments]
            text = f"[{', '.join(texts)}]"
        except (TypeError, ValueError) as error:
            raise UsageError(
                f"the arguments of task {self.name!r} must be JSON "
                f"(text, numbers, lists, objects): {error}"
            ) from None
        same = self.key(arguments) if self.key else text
        digest = hashlib.blake2b(f"{self.name}\0{same}".encode(errors="replace"), digest_size=8)
        number = int.from_bytes(digest.digest(), "big", signed=True)
        return text, number, self.host(arguments) if self.host else None


def task(
    name: str,
    *,
    max_retries: int | None = None,
    retry_delay: float | None = None,
    timeout: float | None = None,
    memory_mb: int | None = None,
    pool: str | None = None,
    check: Callable[[AppInfo, tuple[Any, ...]], tuple[Any, ...]] | None = None,
    key: Callable[[tuple[Any, ...]], str] | None = None,
    fresh: Callable[[Settings, Any, float, tuple[Any, ...]], bool] | None = None,
    host: Callable[[tuple[Any, ...]], str | None] | None = None,
    policies: Mapping[str, Mapping[str, float]] = MappingProxyType({}),
) -> Callable[[F], F]:
    """Make a function ``(context, *arguments)`` a task. See `Task` for the parameters."""

    def mark(function: F) -> F:
        declared = Task(
            name, function, max_retries, retry_delay, timeout, memory_mb, pool,
            function.__module__, check, key, fresh, host, policies,
        )  # fmt: skip
        return _declare(function, declared)

    return mark


def fetcher(*schemes: str) -> Callable[[F], F]:
    """Make a function ``(context, url)`` the fetcher of some URL schemes."""

    def mark(function: F) -> F:
        return _declare(function, Fetcher(function, schemes, function.__module__))

    return mark


def extractor(*mime_types: str, suffixes: Iterable[str] = ()) -> Callable[[F], F]:
    """Make a function ``(context, data, source)`` the extractor of some MIME types."""

    def mark(function: F) -> F:
        declared = Extractor(function, mime_types, tuple(suffixes), function.__module__)
        return _declare(function, declared)

    return mark


def _declare(function: F, declared: Task | Fetcher | Extractor) -> F:
    declarations: list[Any] = getattr(function, "__paise2__", [])
    # The type of a function does not declare the attributes that it can have.
    function.__paise2__ = [*declarations, declared]  # type: ignore[attr-defined]
    return function
