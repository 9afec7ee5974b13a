"""What has run since a time: counts, and percentiles of waiting and run time, by one property."""

from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any

from paise2nb.core import render
from paise2nb.core.display import RowList
from paise2nb.core.errors import PaiseError, UsageError
from paise2nb.core.render import Column
from paise2nb.core.text import time_span
from paise2nb.jobs.history import quantile
from paise2nb.jobs.statistics import DAY, HOUR
from paise2nb.jobs.store import JobStore

GROUPS = {"task": "task", "pool": "pool", "host": "host", "error": "error_class"}
COUNTS = {"completed": "completed", "failed": "failed", "retrying": "retried"}  # by a job's state
INTERRUPTED = ("released", "cancelled")  # outcomes that say nothing about the time that a run takes
PERCENTILES = (50, 95, 99)
BARS = 150  # at most, in the plot


def _seconds(key: str, title: str) -> Column:
    return Column(key, title=title, right=True, text=render.duration)


_COLUMNS = (
    Column("group", wide=True),
    *(Column(name, right=True, text="{:,}".format) for name in ("started", *COUNTS.values())),
    _seconds("wait_p50", "wait p50"),
    _seconds("wait_p95", "p95"),
    _seconds("wait_p99", "p99"),
    _seconds("run_p50", "run p50"),
    _seconds("run_p95", "p95"),
    _seconds("run_p99", "p99"),
)


@dataclass
class _Group:
    counts: Counter[str] = field(default_factory=Counter)
    wait: Counter[int] = field(default_factory=Counter)
    run: Counter[int] = field(default_factory=Counter)

    def row(self, name: str) -> dict[str, Any]:
        row: dict[str, Any] = {"group": name, "started": self.counts["started"]}
        row |= {count: self.counts[count] for count in COUNTS.values()}
        for label, buckets in (("wait", self.wait), ("run", self.run)):
            for percent in PERCENTILES:
                seconds = quantile(buckets, percent / 100)
                row[f"{label}_p{percent}"] = None if seconds is None else float(f"{seconds:.3g}")
        return row


class Stats(RowList):
    """The executions since a time, grouped by task, pool, host or error class.

    ``started`` has also those that run now. ``failed`` are the last ones of their jobs, ``retried``
    are failed, too, but are followed by another one. A released or cancelled one is only started.
    A job waits from the time when it could have been started, also for its host. Percentiles are at
    most 4.4 % off.

    Attributes:
        since: a moment, in seconds since the epoch.
        by: what the groups are.
    """

    columns = _COLUMNS
    keys = tuple(column.key for column in _COLUMNS)
    empty = "nothing has run in this time"

    def __init__(
        self,
        rows: Sequence[dict[str, Any]],
        *,
        since: float,
        by: str,
        ended: Callable[[], list[tuple[float, int, int]]],
    ) -> None:
        super().__init__(rows)
        self.since, self.by = since, by
        self._ended = ended

    def __str__(self) -> str:
        moment = f"{datetime.fromtimestamp(self.since):%Y-%m-%d %H:%M}"
        return f"since {moment}, by {self.by}\n{super().__str__()}"

    def plot(self) -> Any:
        """Draw the pages and other jobs that completed and failed in this time, as bars.

        Returns:
            The axes of matplotlib.

        Raises:
            PaiseError: matplotlib is not installed.
        """
        try:
            from matplotlib import pyplot
        except ImportError:
            raise PaiseError("plot() needs matplotlib: pip install 'paise2nb[plot]'") from None
        rows = self._ended()
        span = datetime.now().timestamp() - self.since
        step = next(s for s in (60, 600, HOUR, DAY, 7 * DAY, span) if span / s <= BARS)
        bars: dict[str, Counter[float]] = {"completed": Counter(), "failed": Counter()}
        for at, completed, failed in rows:
            bars["completed"][at // step * step] += completed
            bars["failed"][at // step * step] += failed
        starts = sorted(set().union(*bars.values()))
        _, axes = pyplot.subplots(figsize=(9, 3), layout="constrained")
        times: Any = [datetime.fromtimestamp(start) for start in starts]  # local, as all times
        below = [0] * len(starts)
        for (label, numbers), color in zip(bars.items(), ("tab:green", "tab:red"), strict=True):
            heights = [numbers[start] for start in starts]
            axes.bar(times, heights, step / DAY, below, align="edge", label=label, color=color)
            below = heights
        axes.set_ylabel(f"pages and other jobs in {render.duration(step)}")
        axes.legend()
        return axes


def take_stats(job_store: JobStore, since: float | str = "1d", by: str = "task") -> Stats:
    """Read what has run.

    Args:
        job_store: the jobs.
        since: how long ago, in seconds or as a text: ``90``, ``15m``, ``1d``. To the minute; to the
            hour after a day, to the day after a month.
        by: ``task``, ``pool``, ``host`` or ``error``.

    Raises:
        UsageError: ``since`` is no time span, or ``by`` is none of these.
    """
    if by not in GROUPS:
        raise UsageError(f"can't group by {by!r}; one of {', '.join(GROUPS)}")
    seconds = time_span(since) if isinstance(since, str) else since
    if not 0 <= seconds < 10**10:
        raise UsageError(f"since is {since!r}; give a time span such as 15m, 1d or 4w")
    begin = job_store.now() - seconds
    begin -= begin % 60
    groups: dict[str, _Group] = {}
    for (series, host), sums in job_store.sums(begin, by_host=by == "host").items():
        name = host if by == "host" else getattr(series, GROUPS[by])
        if not name or not series.task:
            continue
        group = groups.setdefault(name, _Group())
        group.counts["started"] += sums.number
        group.counts[COUNTS.get(series.state, "")] += sums.number
        group.wait += sums.wait
        if series.outcome not in INTERRUPTED:
            group.run += sums.run
    for row in job_store.running_since(begin):
        if by != "error" and (name := row[GROUPS[by]]):
            groups.setdefault(name, _Group()).counts["started"] += row["number"]

    def ended() -> list[tuple[float, int, int]]:
        return [(job_store.clock.wall(at), n, failed) for at, n, failed in job_store.ended(begin)]

    names = sorted(groups, key=lambda name: (-groups[name].counts["started"], name))
    rows = [groups[name].row(name) for name in names]
    return Stats(rows, since=job_store.clock.wall(begin), by=by, ended=ended)
