"""Whether and when a failed execution is tried again: one decision, driven by policies.

The word for an error (its class) picks the policy; what a policy leaves open, the next wider one
says. From most to least specific: task and class, plugin and class, class, task, default.
"""

from __future__ import annotations

import json
import random
from collections import ChainMap
from collections.abc import Callable, Iterable, Mapping
from typing import Any, NamedTuple

from paise2nb.config.settings import Settings
from paise2nb.core.errors import PermanentError, TaskError, UsageError
from paise2nb.jobs import Outcome
from paise2nb.plugins import Task, short_name

MOST_ASKED = 7 * 86400.0  # seconds: no other side makes a job wait longer
CRASH = "crash policies"  # the note in the job table by which the supervisor knows them
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
    if task is None:
        return _merged(settings, "", "", word, {}, {})
    declared = {"max_retries": task.max_retries, "retry_delay": task.retry_delay}
    own = {name: value for name, value in declared.items() if value is not None}
    special = task.policies.get(word or "", {})
    return _merged(settings, task.name, short_name(task.plugin), word, special, own)


def crash_policies(tasks: Iterable[Task]) -> str:
    """What decides about the crashes of tasks, for a process that knows no plugins: JSON."""
    return json.dumps({
        task.name: [short_name(task.plugin), dict(task.policies.get("crash", {}))]
        for task in tasks
    })  # fmt: skip


def _merged(
    settings: Settings,
    task: str,
    plugin: str,
    word: str | None,
    special: Mapping[str, float],
    own: Mapping[str, float],
) -> Policy:
    """From most to least specific; of two that are alike the settings' comes first."""
    default = settings.workers.retry

    def chosen(scope: str) -> dict[str, float]:
        return dict(default.policies.get(scope, {})) if word else {}

    chain = ChainMap[str, float](
        chosen(f"{task}.{word}"), dict(special), chosen(f"{plugin}.{word}"), chosen(word or ""),
        dict(own),
        {name: getattr(default, name) for name in Policy._fields},
    )  # fmt: skip
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


def charge_crash(
    settings: Settings,
    task: str,
    crashes: int,
    outcome: str,
    word: str,
    reason: str,
    noted: str | None = None,
) -> Outcome:
    """The ending of an execution that took its process with it, or had to be killed.

    Args:
        task: its name.
        crashes: how often that has happened to the job, this time included.
        outcome: ``crashed``, ``timeout`` or ``memory``.
        word: the error class that listings show.
        reason: the error in one line.
        noted: what `crash_policies` says of the workers' tasks.
    """
    plugin, special = json.loads(noted or "{}").get(task, ("", {}))
    rule = _merged(settings, task, plugin, "crash", special, {})
    delay = None if crashes > rule.max_retries else _jittered(rule.delay(crashes))
    state = "failed" if delay is None else "retrying"
    return Outcome(outcome, state, error_class=word, error=reason, retry_in=delay)


def released(row: dict[str, Any], only: bool) -> Outcome:
    """Back to the queue, uncharged: what stop and drain make of a running job."""
    return Outcome("released", "queued")


def crash_outcomes(
    settings: Settings, noted: str | None
) -> Callable[[dict[str, Any], bool], Outcome]:
    """What becomes of the jobs of a process that died by itself.

    A job that ran alone there is charged; several go back uncharged, and run alone next, so that
    the guilty one is found. ``noted`` is what the workers have noted of their tasks.
    """

    def decide(row: dict[str, Any], only: bool) -> Outcome:
        if not only:
            return Outcome("released", "queued", isolated=True)
        reason = f"its worker process (pid {row['worker_pid']}) died while it ran"
        return charge_crash(
            settings, row["task"], row["crashes"] + 1, "crashed", "crash", reason, noted
        )  # fmt: skip

    return decide
