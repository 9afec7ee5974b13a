"""Every exception of the package, in one tree.

    PaiseError
    ├── UsageError            what was asked for is wrong: nothing was done (exit status 2)
    │   ├── SettingsError     a setting: names the file, the line, the key and the nearest known key
    │   └── UnknownTask       no loaded plugin defines that task
    ├── NotFound              no job or item with that id
    ├── Timeout               a wait ended before the work did (also a TimeoutError)
    ├── JobFailed             the result of a job that failed or was cancelled was asked for
    ├── PluginError           a plugin can't be loaded or breaks a rule: names the plugin
    ├── StorageError          a database, the cache or the data directory can't be used
    ├── WorkersError          workers can't be started, stopped or found
    ├── Postponed             not an error: an execution waits for its turn at a host
    └── TaskError             an execution of a task failed, for a reason the retry policies know
        ├── TransientError    may pass by itself: retried
        └── PermanentError    will not: failed at once

A message says what happened and what to type next, in one line.
"""

from __future__ import annotations

import re

# In an address: the password before the host, and the value of a parameter with such a name.
_SECRETS = re.compile(
    r"(?<=://)(?P<user>[^/\s:@'\"]*):[^/\s@'\"]+(?=@)"
    r"|(?P<name>[?&;][\w.-]*(?:token|secret|passw|api-?_?key|signature|credential)[\w.-]*=)"
    r"[^&;#\s'\"]+",
    re.IGNORECASE,
)


def redacted(text: str) -> str:
    """A text for logs, errors and listings: without the passwords and tokens in its addresses."""
    if "://" not in text:
        return text
    return _SECRETS.sub(lambda m: f"{m['user']}:…" if m["name"] is None else f"{m['name']}…", text)


class PaiseError(Exception):
    """Base of every exception that paise2nb raises on purpose."""

    exit_status = 1


class UsageError(PaiseError):
    """An unknown command, task, profile or key, or a malformed value; nothing was done."""

    exit_status = 2


class SettingsError(UsageError):
    """A setting that is unknown, of a wrong type or out of range."""


class UnknownTask(UsageError):
    """A task that no loaded plugin defines."""


class NotFound(PaiseError):
    """No job or item has that id."""


class Timeout(PaiseError, TimeoutError):
    """A wait ended before the work did; the work goes on."""


class JobFailed(PaiseError):
    """The result of a failed or cancelled job was asked for.

    ``traceback`` is the worker's traceback as text, empty where there was none.
    """

    def __init__(self, message: str, traceback: str = "") -> None:
        super().__init__(message)
        self.traceback = traceback

    def __str__(self) -> str:
        message = super().__str__()
        return f"{message}\n\nIn the worker:\n{self.traceback}" if self.traceback else message


class PluginError(PaiseError):
    """A plugin that can't be loaded or that breaks a rule of its extension point.

    ``function`` is the one that breaks it, where that is known.
    """

    function: object = None


class StorageError(PaiseError):
    """A database, the cache or the data directory can't be used as it is."""


class WorkersError(PaiseError):
    """Workers can't be started, stopped or found."""


class Snoozed(PaiseError):
    """An execution needs its turn at a host first; it is none until then, and holds no worker.

    Args:
        host: whose turn.
        resume: where it goes on then, JSON; ``context.job.resume`` tells it.
        crawl_delay: seconds between two requests that a host asked for meanwhile, with its name.
    """

    def __init__(
        self, host: str, resume: str | None, crawl_delay: tuple[str, float] | None = None
    ) -> None:
        super().__init__(f"waits for its turn at {host}")
        self.host = host
        self.resume = resume
        self.crawl_delay = crawl_delay


class TaskError(PaiseError):
    """An execution of a task failed.

    ``error_class`` is the word that retry policies, filters and listings use, such as
    ``timeout``, ``dns`` or ``http_4xx``. ``retry_after`` is the least delay in seconds before
    the next attempt that the other side asked for, or None; ``host`` who asked for it, so that
    all jobs for it wait.
    """

    error_class = "error"

    def __init__(
        self,
        message: str,
        error_class: str | None = None,
        *,
        retry_after: float | None = None,
        host: str | None = None,
    ) -> None:
        super().__init__(message)
        if error_class is not None:
            self.error_class = error_class
        self.retry_after = retry_after
        self.host = host


class TransientError(TaskError):
    """May pass by itself: the retry policy of its class decides when to try again."""

    error_class = "transient"


class PermanentError(TaskError):
    """Will not pass by itself: the job fails at once, whatever attempts are left."""

    error_class = "permanent"


ERROR_LENGTH = 1000  # characters of an error's text that are kept; its traceback is kept whole


def message(error: BaseException) -> str:
    """An error in one line: a TaskError's own words, else with the name of its class."""
    try:
        text = " ".join(str(error).split())
    except Exception:
        text = "(no words)"
    if not isinstance(error, PaiseError):
        text = f"{type(error).__name__}: {text}" if text else type(error).__name__
    return storable(redacted(text)[:ERROR_LENGTH])


def storable(text: str) -> str:
    """Text that SQLite takes: the odd bytes of a file's name become visible."""
    return text.encode(errors="backslashreplace").decode()
