"""The values that go into and come out of the job store."""

import json
import sqlite3
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from operator import index
from typing import Any, NamedTuple, TypeAlias

from paise2nb.core.errors import UsageError

STATES = ("queued", "scheduled", "running", "retrying", "completed", "failed", "cancelled")
UNFINISHED = STATES[:4]
PAGE_TASKS = ("fetch", "links")  # a `links` job that a user enqueues is no page
PAGE_PARTS = ("extract", "render", "store")  # the tasks that follow from a page's own
PAGE_STATES = (*UNFINISHED, "stored", "unchanged", "failed", "cancelled", "skipped")
_STATES_OF = {"state": STATES, "part": STATES, "page": PAGE_STATES}  # kinds of counters
CLEANED_AT = "cleaned_at"  # the key of the time of the last cleanup
IMMEDIATE = "immediate"  # the pool of a process that runs its own jobs

# The presence of a registered process. Unknown is not dead.
HERE = "here"  # it runs, and this process sees it
ELSEWHERE = "elsewhere"  # in another container or on another machine, with a recent heartbeat
DEAD = "dead"  # this process sees that it has ended
LOST = "lost"  # it can't be seen, and its heartbeat is too old
COPIED = "copied"  # it belongs to the file of which this one is a copy
RUNNING = (HERE, ELSEWHERE)


class NewJob(NamedTuple):
    """A job to be added.

    Attributes:
        args: JSON text.
        max_attempts: executions in all.
        key: jobs with the same key are duplicates.
        interval: seconds from the start of one run to the next, for a job that recurs.
        host: the job waits for a slot of this host.
        delay: seconds until the job may start.
    """

    task: str
    args: str
    max_attempts: int
    key: int | None = None
    tag: str | None = None
    priority: int = 0
    interval: float | None = None
    host: str | None = None
    delay: float | None = None


class EnqueueResult(NamedTuple):
    """The result of an enqueue.

    Attributes:
        answers: for each job its id and ``new``, ``waiting`` (an unfinished twin) or ``fresh``.
        idle: the workers have exited because there was nothing to do.
    """

    answers: list[tuple[int, str]]
    idle: bool


class Claim(NamedTuple):
    """One execution of a job by one worker. ``id``, ``run`` and ``started_at`` identify it.

    Attributes:
        due_at: since when the job could have been started, but for workers and its host.
        isolated: 1 if no other job may run in its process.
    """

    id: int
    task: str
    args: str
    run: int
    attempt: int
    crashes: int
    max_attempts: int
    tag: str | None
    priority: int
    parent_id: int | None
    root_id: int
    page_id: int | None
    interval: float | None
    due_at: float | None
    started_at: float
    pool: str
    worker: int
    worker_pid: int
    host: str | None
    resume: str | None
    isolated: int

    @property
    def is_root(self) -> bool:
        """Whether the job has no parent."""
        return self.parent_id is None


class Limits(NamedTuple):
    """The limits of one execution, in seconds and MB."""

    timeout: float | None
    memory_mb: float | None


class HostDelay(NamedTuple):
    """The delays that a host asked for during an execution, in seconds.

    Attributes:
        crawl_delay: between two requests, from robots.txt; None if it was not read.
        pause: from now until the next request.
    """

    host: str
    crawl_delay: float | None = None
    pause: float = 0.0


class StateEntry(NamedTuple):
    """One value of a plugin's state as an execution knows it.

    Attributes:
        value: JSON text, None if there is none.
        version: the version that was read, None if none was read.
        written: whether the execution has set or deleted the value.
    """

    plugin: str
    key: str
    value: str | None
    version: int | None
    written: bool


class Link(NamedTuple):
    """A URL that a page of a crawl links to.

    Attributes:
        key: equal for all spellings of the URL.
        depth: how far the links of its page are followed.
        reason: why it is left out, empty if it is not.
        job: makes it a page.
    """

    key: int
    url: str
    depth: int
    reason: str
    job: NewJob | None


class Found(NamedTuple):
    """The links that an execution has found for its crawl, and the most pages of the crawl."""

    links: Sequence[Link]
    max_pages: int

    @property
    def jobs(self) -> list[NewJob]:
        """The jobs of all links that are not left out."""
        return [link.job for link in self.links if link.job is not None and not link.reason]


@dataclass(frozen=True)
class Outcome:
    """How an execution ended.

    Attributes:
        outcome: the outcome of the attempt: ``completed``, ``failed``, ``crashed``, ``released``,
            ``snoozed``, … A snoozed execution does not count: it continues with ``resume`` when
            ``host`` has a slot.
        state: the new state of the job.
        retry_in: seconds until the next attempt.
        max_attempts: executions in all, if the error's policy changes the number.
        isolated: the job has to run alone in its process next.
        found: links that become pages of the crawl.
        host_delays: the delays that hosts asked for.
    """

    outcome: str
    state: str
    result: str | None = None
    error_class: str | None = None
    error: str | None = None
    traceback: str | None = None
    retry_in: float | None = None
    max_attempts: int | None = None
    followups: Sequence[NewJob] = ()
    found: Found | None = None
    state_entries: Sequence[StateEntry] = ()
    isolated: bool = False
    host_delays: Sequence[HostDelay] = ()
    host: str | None = None
    resume: str | None = None


Decide: TypeAlias = Callable[[dict[str, Any], bool], Outcome]
"""Decides about a job of a dead process: ``(row, alone) -> Outcome``; ``alone`` says that no other
job ran in that process."""


class StateCounters:
    """The changes that one transaction makes to the table ``counters``.

    Attributes:
        sums: By kind and name the number of jobs to add, and of those without a parent.
        pages: The ids of the pages that may have another state now.
    """

    def __init__(self) -> None:
        self.sums: dict[tuple[str, str | int | None], list[int]] = {}
        self.pages: set[int] = set()

    def move(self, old: str, new: str, root: bool, page_id: int | None) -> None:
        """Move one job from a state to another."""
        self.count("state", old, -1, root)
        self.count("state", new, 1, root)
        if page_id is not None:
            self.pages.add(page_id)
            self.count("part", old, -1)
            self.count("part", new, 1)

    def count(self, kind: str, name: str | int | None, number: int, root: bool = False) -> None:
        """Add to a counter of a kind, unless only a damaged row can have that state."""
        if name not in _STATES_OF.get(kind, (name,)):  # a new page has none
            return
        sums = self.sums.setdefault((kind, name), [0, 0])
        sums[0] += number
        sums[1] += number * root

    @property
    def newly_counted(self) -> int:
        """How many jobs this transaction has counted that were not counted before."""
        return self.sums.get(("id", "counted"), [0])[0]

    def count_late(self, late: int, pages: int, counted: int = 0) -> None:
        """Count jobs that were not counted yet (see ``schema.sql``).

        Args:
            late: how many, all of them queued and without a parent.
            pages: how many of them are pages.
            counted: later jobs, which this transaction counts itself.
        """
        self.count("state", "queued", late, True)
        self.count("page", "queued", pages)
        self.count("part", "queued", pages)
        self.count("id", "counted", late + counted)


class Worker(NamedTuple):
    """A registered worker process.

    Attributes:
        one_at_a_time: whether its jobs run alone, except those of tasks with ``threads=True``.
    """

    id: int
    pid: int
    pool: str
    one_at_a_time: bool


class Wanted(NamedTuple):
    """What a worker process claims next.

    Attributes:
        limits: the tasks to choose from, each with the limits of one execution.
        brief: those of them with ``threads=True``, of which several jobs may be claimed at once.
        number: the most jobs of a task with ``threads=True`` to claim.
        beside: other jobs run in the process: a job that must run alone is left in the queue, and
            so are those behind it.
        short: a task without ``threads=True`` whose last job was short: two of its jobs may be
            claimed at once, which then run in turn.
    """

    limits: Mapping[str, Limits]
    brief: frozenset[str] = frozenset()
    number: int = 1
    beside: bool = False
    short: str | None = None


def claim_of(row: sqlite3.Row) -> Claim:
    """The claim of a job that a worker has, from its complete row."""
    return Claim(*(row[name] for name in Claim._fields))


def page_of(task: str, job_id: int, parent: Claim | None) -> int | None:
    """The id of the page that a new job is a part of, see ``schema.sql``; None if of none."""
    if task == "fetch" or (task == "links" and parent is not None):
        return job_id
    return parent.page_id if parent is not None and task in PAGE_PARTS else None


def argument_tuples(arguments: Iterable[Any]) -> list[tuple[Any, ...]]:
    """The arguments of many jobs: a tuple as it is, anything else as one argument.

    Raises:
        UsageError: they are a text, a mapping or a table: their elements are no arguments.
    """
    if isinstance(arguments, str | bytes | Mapping) or hasattr(arguments, "columns"):
        kind = type(arguments).__name__
        raise UsageError(f"arguments is a {kind}; give a list, or one column of a table")
    return [a if isinstance(a, tuple) else (a,) for a in arguments]


def check_state(state: str | None, *, pages: bool) -> None:
    """Raise UsageError unless it is a job state or, with ``pages``, a page state, or None."""
    states = dict.fromkeys((*PAGE_STATES, *STATES) if pages else STATES)
    if state is not None and state not in states:
        raise UsageError(f"unknown state {state!r}; one of {', '.join(states)}")


def whole_number(name: str, value: Any, hint: str = "") -> int:
    """The value of an argument as an int, also that of a NumPy integer. Raises UsageError."""
    try:
        number = index(value)
    except TypeError:
        raise UsageError(f"{name} is {value!r}; give a whole number{hint}") from None
    if not -(2**63) <= number < 2**63:  # which SQLite takes
        raise UsageError(f"{name} is {number}; give a smaller number")
    return number


def value_of(result: str | None) -> Any:
    """The value that an execution returned; text that is not JSON is returned as it is."""
    try:
        return json.loads(result or "null")
    except (ValueError, RecursionError):
        return result
