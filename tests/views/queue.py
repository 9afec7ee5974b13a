"""Jobs that tests claim and end themselves."""

from __future__ import annotations

from paise2nb.app import App
from paise2nb.jobs.models import Outcome


def end_next(app: App, outcome: Outcome) -> int:
    """Claim the next job and end it with an outcome; returns its id."""
    job_store = app.queue.job_store
    worker = job_store.register("default", 1)
    claim = job_store.claim(worker, app.parts.limits())
    assert claim is not None
    assert job_store.end(claim, outcome)
    job_store.leave(worker)
    return claim.id
