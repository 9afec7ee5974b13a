"""Whether and when a failed execution is tried again: one decision, driven by policies.

The word for an error (its class) picks the policy; what a policy leaves open, the next wider one
says. From most to least specific: task and class, plugin and class, class, task, default.
"""

from __future__ import annotations

import random
from collections import ChainMap
from collections.abc import Mapping, Sequence
from typing import NamedTuple

from paise2nb.errors import PermanentError, TaskError, UsageError
from paise2nb.jobs import Ending
from paise2nb.plugins import Task
from paise2nb.settings import Settings

MOST_ASKED = 7 * 86400.0  # seconds: no other side makes a job wait longer
JITTER = 0.1  # of the delay, added on top: jobs that failed together do not return together

# Exceptions that the standard library raises for errors which have a word of their own.
_BUILT_IN: tuple[tuple[type[BaseException], str], ...] = (
    (TimeoutError, "timeout"),
    (ConnectionError, "connection"),
    (MemoryError, "memory"),
)


class Policy(NamedTuple):
    """How often, and how long between: delays in seconds."""

    max_retries: int
    retry_delay: float
    backoff: float
    max_delay: float

    @property
    def max_attempts(self) -> int:
        """Executions in all."""
        return self.max_retries + 1

    def delay(self, retry: int) -> float:
        """Seconds before the given retry (1 is the first)."""
        try:
            return min(self.retry_delay * self.backoff ** (retry - 1), self.max_delay)
        except OverflowError:
            return self.max_delay


def error_class(error: BaseException) -> str:
    """The word for an error: a TaskError's own, else the one of a built-in kind, else its name."""
    if isinstance(error, TaskError):
        return error.error_class
    for kind, word in _BUILT_IN:
        if isinstance(error, kind):
            return word
    return type(error).__name__


def policy(settings: Settings, task: Task | None, word: str | None = None) -> Policy:
    """The policy for errors of one class in one task; without a word, the task's own."""
    own: dict[str, float] = {}
    scopes = [word] if word else []
    if task is not None:
        declared = {"max_retries": task.max_retries, "retry_delay": task.retry_delay}
        own = {name: value for name, value in declared.items() if value is not None}
        scopes = [f"{task.name}.{word}", f"{task.plugin}.{word}", *scopes] if word else []
    return _merged(settings, scopes, own)


def _merged(settings: Settings, scopes: Sequence[str], own: Mapping[str, float]) -> Policy:
    default = settings.workers.retry
    chain = ChainMap[str, float](
        *(dict(default.policies.get(scope, {})) for scope in scopes),
        dict(own),
        {name: getattr(default, name) for name in Policy._fields},
    )
    return Policy(
        int(chain["max_retries"]), chain["retry_delay"], chain["backoff"], chain["max_delay"]
    )


def decide(
    settings: Settings, task: Task | None, error: BaseException, failures: int
) -> tuple[float | None, int]:
    """What follows a failed execution.

    Args:
        task: the task, None where no plugin defines it any more.
        error: what it raised.
        failures: how many executions have failed, this one included, crashes not counted.

    Returns:
        Seconds until the next attempt, or None for the end; and the attempts that are granted.
    """
    rule = policy(settings, task, error_class(error))
    if isinstance(error, PermanentError | UsageError) or failures > rule.max_retries:
        return None, rule.max_attempts
    asked = getattr(error, "retry_after", None) or 0.0
    return _jittered(max(rule.delay(failures), min(asked, MOST_ASKED))), rule.max_attempts


def _jittered(delay: float) -> float:
    return delay * (1 + JITTER * random.random())


def charge(
    settings: Settings, task: str, crashes: int, outcome: str, word: str, reason: str
) -> Ending:
    """The ending of an execution that took its process with it, or had to be killed.

    Args:
        task: its name.
        crashes: how often that has happened to the job, this time included.
        outcome: ``crashed``, ``timeout`` or ``memory``.
        word: the error class that listings show.
        reason: the error in one line.
    """
    rule = _merged(settings, [f"{task}.crash", "crash"], {})
    delay = None if crashes > rule.max_retries else _jittered(rule.delay(crashes))
    state = "failed" if delay is None else "retrying"
    return Ending(outcome, state, error_class=word, error=reason, retry_in=delay)
