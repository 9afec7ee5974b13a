"""Whether and when a failed execution is tried again: one decision, made by policies.

The class of an error selects the policy. Each value comes from the most specific policy that sets
it: task and class, plugin and class, class, task, default.
"""

import json
import random
from collections import ChainMap
from collections.abc import Iterable
from typing import Any

from paise2nb.config.settings import RetryRules, Settings
from paise2nb.core.errors import PermanentError, TaskError, UsageError
from paise2nb.jobs.models import COPIED, LOST, Decide, Outcome
from paise2nb.plugins import Task, short_name
from paise2nb.plugins.api import POLICY_FIELDS

LONGEST_RETRY_AFTER = 7 * 86400.0  # seconds; a longer Retry-After of a server is cut
JITTER = 0.1  # of the delay, added to it, so that jobs that failed together return one by one
CRASH_POLICIES = "crash policies"  # the key in the job store under which workers leave them

# Exceptions of the standard library for errors that have a class of their own.
_BUILT_IN = {TimeoutError: "timeout", ConnectionError: "connection", MemoryError: "memory"}


def error_class(error: BaseException) -> str:
    """The class of an error: that of a TaskError or a built-in error, or else its type's name."""
    if isinstance(error, TaskError):
        return error.error_class
    names = (name for kind, name in _BUILT_IN.items() if isinstance(error, kind))
    return next(names, type(error).__name__)


def policy(settings: Settings, task: Task | None, error_class: str | None = None) -> RetryRules:
    """Return the policy for errors of one class in a task.

    Args:
        settings: They contain policies and the default.
        task: The task; None if no plugin defines it any more.
        error_class: None gives the policy of the task itself.
    """
    default = settings.workers.retry
    by_scope = default.policies if error_class else {}
    levels = [by_scope.get(error_class or "", {})]
    if task is not None:
        own = {"max_retries": task.max_retries, "retry_delay": task.retry_delay}
        levels = [
            by_scope.get(f"{task.name}.{error_class}", {}),
            task.policies.get(error_class or "", {}),
            by_scope.get(f"{short_name(task.plugin)}.{error_class}", {}),
            *levels,
            {name: value for name, value in own.items() if value is not None},
        ]
    levels.append({name: getattr(default, name) for name in POLICY_FIELDS})
    chosen: dict[str, Any] = dict(ChainMap(*map(dict, levels)))
    return RetryRules(**chosen)


def crash_policies(tasks: Iterable[Task]) -> str:
    """Return the crash policies of tasks as JSON, for a process that loads no plugins."""
    policies = {
        task.name: [short_name(task.plugin), dict(task.policies.get("crash", {}))] for task in tasks
    }
    return json.dumps(policies)


def decide(
    settings: Settings, task: Task | None, error: BaseException, failures: int
) -> tuple[float | None, int]:
    """Decide what follows a failed execution.

    Args:
        settings: contain the policies.
        task: the task; None if no plugin defines it any more.
        error: the exception that it raised.
        failures: the number of failed executions including this one, without crashes.

    Returns:
        Seconds until the next attempt, or None if there is none; and the executions in all.
    """
    chosen = policy(settings, task, error_class(error))
    if isinstance(error, PermanentError | UsageError) or failures > chosen.max_retries:
        return None, chosen.max_attempts
    retry_after = getattr(error, "retry_after", None) or 0.0
    delay = max(chosen.delay(failures), min(retry_after, LONGEST_RETRY_AFTER))
    return _jittered(delay, chosen.max_delay), chosen.max_attempts


def _jittered(delay: float, max_delay: float) -> float:
    """Add jitter to a delay, up to max_delay; only a server may require a longer one."""
    return max(delay, min(delay * (1 + JITTER * random.random()), max_delay))


def charge_crash(
    settings: Settings, row: dict[str, Any], outcome: str, reason: str, policies: str | None
) -> Outcome:
    """Return the outcome of an execution that crashed its process, or that had to be killed.

    Args:
        settings: They contain policies and the default.
        row: The row of the job.
        outcome: ``crashed``, ``timeout`` or ``memory``.
        reason: The error in one line.
        policies: The `crash_policies` of the workers' tasks.
    """
    crashes = row["crashes"] + 1
    plugin, own = json.loads(policies or "{}").get(row["task"], ("", {}))
    # Without the task's other values: crashes have a limit of their own.
    task = Task(row["task"], charge_crash, plugin=plugin, policies={"crash": own})
    chosen = policy(settings, task, "crash")
    may_retry = crashes <= chosen.max_retries
    delay = _jittered(chosen.delay(crashes), chosen.max_delay) if may_retry else None
    state = "retrying" if may_retry else "failed"
    error_class = "crash" if outcome == "crashed" else outcome
    return Outcome(outcome, state, error_class=error_class, error=reason, retry_in=delay)


def released(row: dict[str, Any], alone: bool) -> Outcome:
    """Queue a running job again, uncharged: after a stop or a drain."""
    return Outcome("released", "queued")


def crash_outcomes(settings: Settings, policies: str | None) -> Decide:
    """Decide about the jobs of a process that died by itself.

    A job that ran alone is charged. Several jobs are queued again, uncharged, and each runs alone
    next, so that the one that crashes is found.

    Args:
        settings: contain policies and the default.
        policies: the `crash_policies` of the workers' tasks.
    """

    def decide(row: dict[str, Any], alone: bool) -> Outcome:
        if not alone:
            return Outcome("released", "queued", isolated=True)
        reason = f"its worker process (pid {row['worker_pid']}) died while it ran"
        return charge_crash(settings, row, "crashed", reason, policies)

    return decide


def rescue_outcomes(settings: Settings, policies: str | None, worker: dict[str, Any]) -> Decide:
    """Decide about the jobs of a worker process that is gone.

    Jobs of a worker that had to stop, or that belongs to the file of which this one is a copy, are
    queued again, uncharged. So are those of a container or machine that is gone. But a job that is
    lost twice in succession, alone in its process, is charged: it may be what ended the container.

    Args:
        settings: contain policies and the default.
        policies: the `crash_policies` of the workers' tasks.
        worker: its row, with its presence.
    """
    crashed = crash_outcomes(settings, policies)
    if worker["state"] == "stopping" or worker["presence"] == COPIED:
        return released
    if worker["presence"] != LOST:
        return crashed

    def decide(row: dict[str, Any], alone: bool) -> Outcome:
        if alone and row["error_class"] == "lost":
            return crashed(row, alone)
        reason = "its container or machine ended while it ran"
        return Outcome("released", "queued", error_class="lost", error=reason)

    return decide
