"""Run one claimed job and decide its outcome.

Huey calls the task's function, which returns or raises; one `match` decides what that means for
the job. The caller writes the outcome together with the follow-up jobs and the next claim.
"""

import datetime
import inspect
import json
import logging
import os
import traceback
from collections.abc import Coroutine, Sequence
from types import TracebackType
from typing import Any, NoReturn

from huey import signals
from huey.api import Huey
from huey.api import Task as HueyTask
from huey.exceptions import CancelExecution, RetryTask

from paise2nb.core.errors import (
    HomeOnly,
    PermanentError,
    Snoozed,
    TaskError,
    message,
    redacted,
    shortened,
    storable,
)
from paise2nb.jobs.context import Context
from paise2nb.jobs.leases import HOME_ONLY
from paise2nb.jobs.models import Claim, HostDelay, Outcome
from paise2nb.jobs.parts import Parts
from paise2nb.jobs.retry import decide, error_class
from paise2nb.workers.logs import running
from paise2nb.workers.outage import OutageMonitor

logger = logging.getLogger("paise2nb.worker")

# Made once: json.dumps() would make one for each job. The lines "drain" of tests.benchmarks.queue.
_encode = json.JSONEncoder(allow_nan=False).encode
TRACEBACK_LENGTH = 20_000  # characters of a stored traceback
# A stored traceback begins after the frames of these modules, which are the same for every task.
_ENGINE = ("paise2nb.workers.executor", "paise2nb.workers.queue", "huey.api")


class Executor:
    """Runs the claimed jobs of one queue.

    Args:
        huey: Sends signals and runs the registered hooks.
        parts: The parts that tasks use.
    """

    def __init__(self, huey: Huey, parts: Parts) -> None:
        self._huey = huey
        self._parts = parts
        self.outages: OutageMonitor | None = None  # set in worker processes

    def run(self, task: HueyTask) -> Outcome:
        """Run a claimed job and return its outcome. Nothing is written.

        Raises:
            KeyboardInterrupt: Ctrl-C, except in worker processes, which ignore it.
        """
        token = running.set(task.claim)
        try:
            return self._run(task)
        finally:
            running.reset(token)

    def _run(self, task: HueyTask) -> Outcome:
        huey = self._huey
        huey._emit(signals.SIGNAL_EXECUTING, task)
        huey._tasks_in_flight.add(task)
        try:
            huey._run_pre_execute(task)
            outcome: Outcome = task.execute()  # calls `call`
        except BaseException as error:  # SystemExit of a task, too: `_decide` tells what follows
            if not isinstance(error, Snoozed):  # a snoozed job has not been executed
                huey._run_post_execute(task, None, error)
            return self._decide(task, error)
        finally:
            huey._tasks_in_flight.discard(task)
        if huey._post_execute:
            huey._run_post_execute(task, json.loads(outcome.result or "null"), None)
        huey._emit(signals.SIGNAL_COMPLETE, task)
        if self.outages:
            self.outages.recovered(task.claim.task)
        return outcome

    def call(self, *arguments: Any, task: HueyTask) -> Outcome:
        """Call the task's function and return the outcome of its completion. Huey calls this.

        Raises:
            RetryTask: The job failed, and its retry policy grants another attempt.
            Exception: The job failed for good, was snoozed or was cancelled.
        """
        pid = os.getpid()
        try:
            if self._parts.job_store.is_remote:
                self._parts.job_store.begin(task.claim)
            context = Context(self._parts, task.claim)
            value = call_function(self._parts, context, arguments)
            return Outcome(
                "completed",
                "completed",
                _to_json(task.name, value),
                followups=context.followups,
                found=context.found,
                state_entries=context.state_entries(),
                host_delays=context.host_delays,
            )
        except (Snoozed, CancelExecution, HomeOnly):
            raise
        except RetryTask as request:  # raised by the task: counts like any other failure
            reason = request.args[0] or "requested a retry"
            error = TaskError(reason, "retry", retry_after=_requested_delay(request))
            error.__cause__ = request
            self._raise(task.claim, error)
        except Exception as error:  # of the task: its retry policy decides
            self._raise(task.claim, error)
        finally:
            if os.getpid() != pid:  # a child that the task has forked must not write an outcome
                os._exit(0)

    def _raise(self, claim: Claim, error: Any) -> NoReturn:
        """Raise a RetryTask with the delay of the retry policy, or the error if that is the end."""
        definition = self._parts.plugins.tasks.get(claim.task)
        failures = claim.attempt - claim.crashes
        delay, max_attempts = decide(self._parts.settings, definition, error, failures)
        error.__paise2_max_attempts__ = max_attempts  # a name that no exception has of its own
        if delay is None:
            raise error
        raise RetryTask(delay=delay) from error

    def _decide(self, task: HueyTask, error: BaseException) -> Outcome:
        """Return the outcome of an execution that raised."""
        match error:
            case Snoozed():
                delays = [HostDelay(*error.crawl_delay)] if error.crawl_delay else []
                return Outcome(
                    "snoozed", "queued", host_delays=delays, host=error.host, resume=error.resume
                )
            case HomeOnly():
                logger.info("job %s goes home: %s", task.claim.id, error)
                return Outcome("released", "queued", error_class=HOME_ONLY, error=message(error))
            case KeyboardInterrupt() if not self._parts.is_worker:
                raise error
            case CancelExecution():
                self._huey._emit(signals.SIGNAL_CANCELED, task)
                logger.info("job %s was cancelled by its task", task.claim.id)
                return Outcome("cancelled", "cancelled", error=message(error) or None)
            case RetryTask():
                self._huey._emit(signals.SIGNAL_RETRYING, task)
                return self._failure(task.claim, error.__cause__ or error, error.delay)
            case _:
                self._huey._emit(signals.SIGNAL_ERROR, task, error)
                return self._failure(task.claim, error, None)

    def _failure(self, claim: Claim, error: BaseException, delay: float | None) -> Outcome:
        """Return the outcome of a failure. One that an outage caused is not charged to the job."""
        name, text = error_class(error), message(error)
        if self.outages and self.outages.is_outage(claim, error):
            logger.info("job %s is released uncharged: %s", claim.id, error)
            return Outcome("released", "queued", error_class=name, error=text)
        ending = "failed" if delay is None else f"will be retried in {delay:.1f} s"
        logger.info("job %s %s: %s", claim.id, ending, error)
        pauses = []
        if isinstance(error, TaskError) and error.host:  # it throttles all jobs of this host
            pauses = [HostDelay(error.host, pause=max(error.retry_after or 0.0, delay or 0.0))]
        return Outcome(
            "failed",
            "failed" if delay is None else "retrying",
            error_class=name,
            error=text,
            traceback=_format_traceback(error),
            retry_in=delay,
            max_attempts=getattr(error, "__paise2_max_attempts__", None),
            host_delays=pauses,
        )


def call_function(parts: Parts, context: Context, arguments: Sequence[Any]) -> Any:
    """Call the function of a job's task, and await it if it is a coroutine function."""
    value = parts.plugins.task(context.job.task).function(context, *arguments)
    return _await(value) if inspect.iscoroutine(value) else value


def _await(coroutine: Coroutine[Any, Any, Any]) -> Any:
    # Imported here: they would make every command start later.
    import asyncio
    from concurrent.futures import ThreadPoolExecutor

    try:
        asyncio.get_running_loop()
    except RuntimeError:
        return asyncio.run(coroutine)
    with ThreadPoolExecutor(1) as pool:  # this thread runs a loop already: a kernel's
        return pool.submit(asyncio.run, coroutine).result()


def _to_json(task: str, value: Any) -> str:
    try:
        return _encode(value)
    except (TypeError, ValueError) as error:
        reason = f"task {task!r} returned what is not JSON: {error}"
        raise PermanentError(reason, "result") from error


def _requested_delay(request: RetryTask) -> float | None:
    """Return the delay in seconds that a task asked for. Like Huey, read a naive time as UTC."""
    delay: float | None = request.delay
    if request.eta is not None:
        eta = request.eta if request.eta.tzinfo else request.eta.replace(tzinfo=datetime.UTC)
        delay = max(0.0, (eta - datetime.datetime.now(datetime.UTC)).total_seconds())
    return delay


def _format_traceback(error: BaseException) -> str:
    """Format the traceback, beginning at the task's own frames."""
    frames: TracebackType | None = error.__traceback__
    while frames is not None and frames.tb_next is not None:
        if frames.tb_frame.f_globals.get("__name__") not in _ENGINE:
            break
        frames = frames.tb_next
    text = "".join(traceback.format_exception(type(error), error, frames))
    return storable(shortened(redacted(text), TRACEBACK_LENGTH))
