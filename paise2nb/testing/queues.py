"""The rules for queues, and the tasks of their jobs. See `paise2nb.plugins.TaskQueueProvider`."""

import os
import signal
import time
from concurrent.futures import ThreadPoolExecutor

from paise2nb.app import App
from paise2nb.core.errors import TransientError
from paise2nb.jobs.context import Context
from paise2nb.plugins import task
from paise2nb.testing.fixtures import SECONDS, run_all
from paise2nb.testing.rule import Workspace, expect, require, rule
from paise2nb.workers.queue import JobHuey


@task("kit-echo")
def kit_echo(context: Context, word: str, seconds: float = 0.0) -> str:
    """Write the word to a file after some seconds, and return it."""
    time.sleep(seconds)
    with (context.data_dir / "kit-ran").open("a") as file:
        file.write(word + "\n")
    return word


@task("kit-parent", max_retries=2, retry_delay=0)
def kit_parent(context: Context, good_at: int) -> None:
    """Enqueue a follow-up job, and fail before the attempt of that number."""
    context.enqueue("kit-echo", f"of attempt {context.job.attempt}")
    if context.job.attempt < good_at:
        raise TransientError("not this attempt")


@rule("queue")
def _apps_share_one_job_store(workspace: Workspace, app: App) -> None:
    """Every app on the data directory uses one job store.

    Return a JobHuey over open_job_store(app, path) from create().
    """
    require(isinstance(app.queue, JobHuey), f"create() returned {type(app.queue).__name__}")
    job = app.enqueue("kit-echo", "a")
    require(
        workspace.open().jobs().ids == [job.id], "a second app does not see the job of the first"
    )


@rule("queue")
def _jobs_run_once(workspace: Workspace, app: App) -> None:
    """A job runs once, and its follow-up jobs are added with its completion.

    Do not change execute().
    """
    words = [f"{number}" for number in range(20)]
    jobs = app.enqueue_many("kit-echo", words)
    parent, failing = (app.enqueue("kit-parent", good_at) for good_at in (2, 9))
    with ThreadPoolExecutor() as threads:
        list(threads.map(run_all, [app, workspace.open()]))
    expect([job.result(0) for job in jobs], words, "results")
    ran = (workspace.directory / "kit-ran").read_text().split("\n")
    require(all(ran.count(word) == 1 for word in words), "a job ran twice, or not at all")
    outcomes = [attempt["outcome"] for attempt in parent.attempts]
    expect(outcomes, ["failed", "completed"], "outcomes of a job that fails once")
    traceback = str(parent.attempts[0]["traceback"])
    require("not this attempt" in traceback, "the traceback of a failure is lost")
    expect([child.result(0) for child in parent.children], ["of attempt 2"], "follow-up jobs ran")
    expect((failing.state, len(failing.children)), ("failed", 0), "a job that fails, its children")


@rule("queue")
def _jobs_wait_for_their_time(workspace: Workspace, app: App) -> None:
    """A waiting job survives a restart, and does not run before its time.

    Run a job only after it was claimed from the job store.
    """
    if app.immediate:
        return  # no job waits
    job, later = app.enqueue("kit-echo", "a"), app.enqueue("kit-echo", "later", delay=3600)
    expect(job.state, "queued", "the state of a job without workers")
    expect(app.enqueue("kit-echo", "a").id, job.id, "the id of a duplicate of a waiting job")
    cancelled = app.enqueue("kit-echo", "b").cancel()[0]
    app.close()
    app = workspace.open()
    run_all(app)
    states = [app.job(each.id).state for each in (job, later, cancelled)]
    expect(states, ["completed", "scheduled", "cancelled"], "states after reopening")


@rule("queue")
def _workers_lose_nothing(workspace: Workspace, app: App) -> None:
    """Workers run the jobs, and a killed worker loses none.

    Open the same job store in a worker as in the app that started it.
    """
    if app.immediate:
        return  # it has no workers
    app = workspace.open(**{"workers.retry.retry_delay": 0})
    workspace.stack.callback(app.workers.stop, timeout=0)
    app.workers.start(concurrency=1, pool="default")
    jobs = app.enqueue_many("kit-echo", [(f"{number}", 0.05) for number in range(10)])
    jobs[1].wait(SECONDS)
    os.kill(app.workers.status().workers[0]["pid"], signal.SIGKILL)
    states = {job.state for job in jobs.wait(SECONDS)}
    expect(states, {"completed"}, "states after a worker was killed")
