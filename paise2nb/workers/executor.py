"""The execution of a job, from top to bottom: run it, decide what its end means, write, wake.

Huey calls the task's function; a task raises, and nothing turns an exception into a value. What
the exception means for the job is decided in one place, and written in one transaction together
with the follow-up jobs and the claim of the next job.
"""

from __future__ import annotations

import asyncio
import datetime
import inspect
import json
import logging
import os
import traceback
from collections.abc import Coroutine, Sequence
from concurrent.futures import ThreadPoolExecutor
from types import TracebackType
from typing import Any, NoReturn

from huey import signals
from huey.api import Huey
from huey.api import Task as HueyTask
from huey.exceptions import CancelExecution, RetryTask

from paise2nb.core.errors import (
    PermanentError,
    Snoozed,
    TaskError,
    message,
    redacted,
    storable,
)
from paise2nb.jobs import Claim, HostDelay, Outcome
from paise2nb.jobs.context import Context
from paise2nb.jobs.parts import Parts
from paise2nb.jobs.retry import decide, error_class
from paise2nb.workers.outage import OutageMonitor

logger = logging.getLogger("paise2nb.worker")

# The frames of these modules say nothing about a task, so a stored traceback begins after them.
_ENGINE = ("paise2nb.workers.executor", "paise2nb.workers.queue", "huey.api")


class Executor:
    """Runs claimed jobs for one queue.

    Args:
        huey: sends the signals, and calls the hooks that are registered on it.
        parts: what tasks may use.
    """

    def __init__(self, huey: Huey, parts: Parts) -> None:
        self._huey = huey
        self._parts = parts
        self.outages: OutageMonitor | None = None  # of a worker process

    def run(self, task: HueyTask) -> Outcome:
        """Run a claimed job; what its end means. Nothing is written.

        Raises:
            KeyboardInterrupt: outside worker processes, which ignore Ctrl-C.
        """
        claim: Claim = task.claim
        outcome: Outcome | None = None
        error: BaseException | None = None
        self._huey._emit(signals.SIGNAL_EXECUTING, task)
        self._huey._tasks_in_flight.add(task)
        try:
            self._huey._run_pre_execute(task)
            outcome = task.execute()
        except BaseException as raised:
            error = raised
        finally:
            self._huey._tasks_in_flight.discard(task)
        if error is None:
            assert outcome is not None
            if self._huey._post_execute:
                self._huey._run_post_execute(task, json.loads(outcome.result or "null"), None)
            self._huey._emit(signals.SIGNAL_COMPLETE, task)
            if self.outages:
                self.outages.recovered(claim.task)
            return outcome
        if not isinstance(error, Snoozed):  # a snoozed execution has not happened
            self._huey._run_post_execute(task, None, error)
        return self._decide(task, claim, error)

    def _decide(self, task: HueyTask, claim: Claim, error: BaseException) -> Outcome:
        """What an exception means for the job."""
        cause = (error.__cause__ or error) if isinstance(error, RetryTask) else error
        match error:
            case Snoozed():
                delays = [HostDelay(*error.crawl_delay)] if error.crawl_delay else []
                return Outcome(
                    "snoozed", "queued", host_delays=delays, host=error.host, resume=error.resume
                )
            case KeyboardInterrupt() if not self._parts.is_worker:
                raise error
            case CancelExecution():
                self._huey._emit(signals.SIGNAL_CANCELED, task)
                logger.info("job %s was cancelled by its task", claim.id)
                return Outcome("cancelled", "cancelled", error=message(error) or None)
            case RetryTask():
                self._huey._emit(signals.SIGNAL_RETRYING, task)
            case _:
                self._huey._emit(signals.SIGNAL_ERROR, task, error)
        if self.outages and self.outages.is_outage(claim, cause):
            logger.info("job %s goes back uncharged: %s", claim.id, cause)
            return Outcome(
                "released", "queued", error_class=error_class(cause), error=message(cause)
            )
        delay = error.delay if isinstance(error, RetryTask) else None
        if delay is None:
            logger.info("job %s failed: %s", claim.id, cause)
        else:
            logger.info("job %s will be retried in %.1f s: %s", claim.id, delay, cause)
        return _failure(cause, delay, getattr(error, "max_attempts", None))

    # Inside Huey's task -------------------------------------------------------------------------

    def call(self, claim: Claim, arguments: Sequence[Any]) -> Outcome:
        """Call the task's function; the job's completion with what it asked for.

        Raises:
            RetryTask: it failed, and its policy grants another attempt after a delay.
            Exception: it failed for good, or it was snoozed or cancelled.
        """
        pid = os.getpid()
        try:
            context = Context(self._parts, claim)
            value = call_function(self._parts, context, arguments)
            return Outcome(
                "completed",
                "completed",
                _as_json(claim, value),
                followups=context.followups,
                state_entries=context.state_entries(),
                host_delays=context.host_delays,
            )
        except (Snoozed, CancelExecution):
            raise
        except RetryTask as asked:  # by the task itself: its attempts are counted like any other's
            error = TaskError(asked.args[0] or "asked to be retried", "retry")
            error.retry_after = _seconds(asked)
            error.__cause__ = asked
            self._raise(claim, error)
        except Exception as error:
            self._raise(claim, error)
        finally:
            if os.getpid() != pid:  # a child that the task has forked must not write an outcome
                os._exit(0)

    def _raise(self, claim: Claim, error: Any) -> NoReturn:
        """Raise the RetryTask with the policy's delay, or the error itself at the end."""
        task = self._parts.plugins.tasks.get(claim.task)
        failures = claim.attempt - claim.crashes
        delay, error.max_attempts = decide(self._parts.settings, task, error, failures)
        if delay is None:
            raise error
        retry = RetryTask(delay=delay)
        retry.max_attempts = error.max_attempts
        raise retry from error


def call_function(parts: Parts, context: Context, arguments: Sequence[Any]) -> Any:
    """What a job's function returns; an ``async`` function is run to its end."""
    value = parts.plugins.task(context.job.task).function(context, *arguments)
    return _awaited(value) if inspect.iscoroutine(value) else value


def _awaited(coroutine: Coroutine[Any, Any, Any]) -> Any:
    try:
        asyncio.get_running_loop()
    except RuntimeError:
        return asyncio.run(coroutine)
    with ThreadPoolExecutor(1) as pool:  # a kernel's loop runs in this thread already
        return pool.submit(asyncio.run, coroutine).result()


def _as_json(claim: Claim, value: Any) -> str:
    try:
        return json.dumps(value, allow_nan=False)
    except (TypeError, ValueError) as error:
        raise PermanentError(
            f"task {claim.task!r} returned what is not JSON: {error}", "result"
        ) from error


def _seconds(asked: RetryTask) -> float | None:
    """The delay that a task asked for, in seconds; Huey takes a moment without a zone as UTC."""
    delay: float | None = asked.delay
    if asked.eta is not None:
        eta = asked.eta if asked.eta.tzinfo else asked.eta.replace(tzinfo=datetime.UTC)
        delay = max(0.0, (eta - datetime.datetime.now(datetime.UTC)).total_seconds())
    return delay


def _failure(error: BaseException, retry_in: float | None, max_attempts: int | None) -> Outcome:
    return Outcome(
        "failed",
        "failed" if retry_in is None else "retrying",
        error_class=error_class(error),
        error=message(error),
        traceback=_traceback(error),
        retry_in=retry_in,
        max_attempts=max_attempts,
        host_delays=_pause(error, retry_in),
    )


def _pause(error: BaseException, retry_in: float | None) -> list[HostDelay]:
    """The pause of a host that throttles: it holds for all jobs of the host, not only this one."""
    if not isinstance(error, TaskError) or error.host is None:
        return []
    return [HostDelay(error.host, pause=max(error.retry_after or 0.0, retry_in or 0.0))]


def _traceback(error: BaseException) -> str:
    """The traceback from the task's own frames on."""
    frames: TracebackType | None = error.__traceback__
    while frames is not None and frames.tb_next is not None:
        if frames.tb_frame.f_globals.get("__name__") not in _ENGINE:
            break
        frames = frames.tb_next
    text = "".join(traceback.format_exception(type(error), error, frames))
    return storable(redacted(text))
