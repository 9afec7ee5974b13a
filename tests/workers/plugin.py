"""The tasks of the tests of the queue, and what these tests share."""

from __future__ import annotations

from paise2nb.app import App
from tests import example_plugin

PLUGIN = (
    example_plugin.SOURCE
    + '''
import os, signal
from huey.exceptions import RetryTask
from paise2nb import PermanentError, TransientError, hookimpl

def count(context, name):
    """Count the calls of a task in a file of the data directory."""
    path = context.data_dir / name
    number = int(path.read_text()) + 1 if path.exists() else 1
    path.write_text(str(number))
    return number

@task("describe")
def describe(context):
    job = context.job
    return [job.id, job.task, job.args, job.tag, job.attempt, job.parent_id, job.root_id]

@task("meet")
def meet(context, number, which):
    (context.data_dir / f"here {context.job.id}").touch()
    while len(list(context.data_dir.glob("here *"))) < number:
        time.sleep(0.001)

@task("flaky", max_retries=5)
def flaky(context, times):
    if count(context, "flaky") <= times:
        raise TransientError(f"not yet", "connection")
    return "done"

@task("hopeless", max_retries=2, retry_delay=0)
def hopeless(context, word):
    raise ValueError(word)

@task("permanent", max_retries=9)
def permanent(context, word):
    raise PermanentError(word, "gone")

@task("asks", max_retries=1, retry_delay=0)
def asks(context, *words):
    raise RetryTask(*words, delay=0)

@task("odd", max_retries=0)
def odd(context, kind):
    class Mute(Exception):
        def __str__(self):
            raise RuntimeError("no words")
    raise {
        "exit": SystemExit(3),
        "cancelled": asyncio.CancelledError(),
        "generator": GeneratorExit(),
        "surrogate": PermanentError("no file 'a\\udcffb'", "not_found"),
        "long": ValueError("x" * 50_000),
        "lines": ValueError("one\\n  two\\tthree"),
        "mute": Mute(),
        "empty": KeyError(),
    }[kind]

@task("parent")
def parent(context, *words):
    for word in words:
        context.enqueue("echo", word)
    return len(words)

@task("half", max_retries=0)
def half(context, word):
    context.enqueue("echo", word)
    raise ValueError("after the follow-up")

@task("not_json")
def not_json(context, kind):
    context.enqueue("echo", "never")
    return {"object": object(), "nan": float("nan"), "bytes": b"x"}[kind]

@task("wrong_followup", max_retries=0)
def wrong_followup(context, name, *arguments):
    context.enqueue(name, *arguments)

@task("steps")
def steps(context, total):
    for done in range(total):
        context.progress(done + 1, total)

@task("interrupted")
def interrupted(context, word):
    if count(context, "interrupted") == 1:
        signal.raise_signal(signal.SIGINT)
    return word

@task("chain")
def chain(context, word):
    context.enqueue("interrupted", word)

@task("nested")
def nested(context, word):
    [app] = apps.opened_here
    return [app.enqueue("echo", word).state, app.enqueue("nested", word).state]

class Apps:
    opened_here = ()
    def opened(self, app):
        self.opened_here = (app,)
    def closed(self, app): pass

apps = Apps()

@hookimpl
def lifecycle_actions():
    return [apps]

@task("die")
def die(context):
    os._exit(9)
'''
)


def outcomes(app: App, job_id: int) -> list[str]:
    """The outcomes of a job's attempts."""
    return [attempt["outcome"] for attempt in app.job(job_id).attempts]
