"""The answer to an enqueue, and the result of a replay."""

import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

from paise2nb.core import render
from paise2nb.core.clock import local_time
from paise2nb.core.display import Displayable, arguments
from paise2nb.core.errors import without_secrets
from paise2nb.jobs.models import NewJob
from paise2nb.views.client import JobClient
from paise2nb.views.history import counts_in_words
from paise2nb.views.job_rows import LATER, NOW
from paise2nb.views.jobs import Job, Jobs


class Enqueued(Jobs):
    """The answer to an enqueue: an entry for each argument, in order.

    Attributes:
        answers: how each argument was answered: new, waiting, fresh, or now for a waiting job
            that `run_now` has queued.
        new, waiting, fresh: the number of jobs that were added, that were already waiting, and
            that had an up-to-date result.
    """

    def __init__(self, client: JobClient, answers: Sequence[tuple[int, str]]) -> None:
        super().__init__(client, [job_id for job_id, _ in answers])
        self.answers = [answer for _, answer in answers]
        self.new, self.waiting, self.fresh = map(self.answers.count, ("new", "waiting", "fresh"))

    def __getitem__(self, index: Any) -> Any:
        if isinstance(index, slice):
            return Jobs(self._client, self.ids[index])
        job = self._element(self._rows[index])
        job.answer = self.answers[index]
        return job

    def __iter__(self) -> Iterator[Job]:
        return (self[index] for index in range(len(self)))

    def _answered(self, answer: str) -> Jobs:
        pairs = zip(self.ids, self.answers, strict=True)
        return Jobs(self._client, dict.fromkeys(job_id for job_id, a in pairs if a == answer))

    def run_now(self) -> None:
        """Queue the jobs that waited already, but for a later time or their next retry."""
        new = set(self._answered("new").ids)
        waiting = [job_id for job_id in self._answered("waiting").ids if job_id not in new]
        if waiting:
            now = set(self._client.job_store.retry(waiting, self._client.is_cached))
            self._client.jobs_added(list(now))
            pairs = zip(self.ids, self.answers, strict=True)
            self.answers = ["now" if job_id in now else answer for job_id, answer in pairs]

    def to_dict(self) -> Any:
        """The JSON of ``enqueue``."""
        keys = ("id", "task", "args", "state")
        jobs = [{key: row[key] for key in keys} for row in self.to_dicts()]
        return {"jobs": jobs, "new": self.new, "waiting": self.waiting, "fresh": self.fresh}

    def __str__(self) -> str:
        now = self.answers.count("now")
        counts = {"new": self.new, "waiting": self.waiting - now, NOW: now}
        counts["up to date"] = self.fresh
        text = ", ".join(f"{n:,} {word}" for word, n in counts.items() if n) or "nothing to add"
        waiting = self._answered("waiting").to_dicts() if self.waiting else []
        if later := [row["run_at"] for row in waiting if row["state"] in LATER and row["run_at"]]:
            text += f"; {len(later):,} not before {local_time(min(later))}: --force runs them now"
        ended = counts_in_words(*self.ended()) if self.waited else ""
        return f"{text}; {ended}" if ended else text

    def _repr_html_(self) -> str:
        return render.panel(render.note(str(self)))


@dataclass(repr=False)
class Replay(Displayable):
    """The result of a replay: the value, and the follow-up jobs a worker would have enqueued."""

    job: int
    task: str
    value: Any
    followups: list[NewJob]

    def to_dict(self) -> dict[str, Any]:
        """As JSON."""
        followups = [{"task": job.task, "args": json.loads(job.args)} for job in self.followups]
        shown: dict[str, Any] = without_secrets({**vars(self), "followups": followups})
        return shown

    def __str__(self) -> str:
        value = json.dumps(without_secrets(self.value), ensure_ascii=False, default=repr)
        lines = [f"replay of job {self.job} ({self.task}): {render.one_line(value, 200)}"]
        for job in self.followups:
            lines.append(f"  would enqueue {job.task} {arguments(json.loads(job.args))}")
        return "\n".join(map(render.one_line, lines))
