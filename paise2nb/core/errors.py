"""All exceptions of the package, in one tree.

    PaiseError
    ├── UsageError            the request is wrong and nothing was done (exit status 2)
    │   ├── SettingsError     a setting: names the file, the line, the key and the nearest known key
    │   └── UnknownTask       no loaded plugin defines the task
    ├── NotFound              no job or item has the id
    ├── Timeout               a wait ended before the work did (also a TimeoutError)
    ├── JobFailed             the result of a failed or cancelled job was requested
    ├── PluginError           a plugin can't be loaded or breaks a rule: names the plugin
    ├── StorageError          a database, the cache or the data directory can't be used
    │   ├── NewerFormat       a newer version has written it
    │   ├── DatabaseLocked    another process has locked it for too long
    │   └── DiskFull          there is no space left; nothing is lost
    ├── WorkersError          workers can't be started, stopped or found
    ├── HomeOnly              a task on another machine used what only home has: it runs there
    ├── Snoozed               not an error: a job has to wait for a host
    └── TaskError             a task failed; its error class selects the retry policy
        ├── TransientError    may succeed later: retried
        └── PermanentError    will never succeed: failed at once

A message tells what happened and what to type next, in one line.
"""

import re
from typing import Any


class PaiseError(Exception):
    """Base of all exceptions that paise2nb raises on purpose.

    Its message has no secrets of URLs: it may reach a notebook's output, a log or the job store.
    """

    exit_status = 1

    def __init__(self, *args: Any) -> None:
        super().__init__(*(redacted(arg) if isinstance(arg, str) else arg for arg in args))


class UsageError(PaiseError):
    """An unknown command, task, profile or key, or an invalid value. Nothing was done."""

    exit_status = 2


class SettingsError(UsageError):
    """A setting is unknown, of a wrong type or out of range."""


class UnknownTask(UsageError):
    """No loaded plugin defines the task."""


class NotFound(PaiseError):
    """No job or item has the id."""


class Timeout(PaiseError, TimeoutError):
    """A wait ended before the work did. The work continues."""


class JobFailed(PaiseError):
    """The result of a failed or cancelled job was requested.

    Args:
        message: Why there is no result.
        traceback: The traceback of the worker as text, empty if there is none.
    """

    def __init__(self, message: str, traceback: str = "") -> None:
        super().__init__(message)
        self.traceback = traceback

    def __str__(self) -> str:
        message = super().__str__()
        return f"{message}\n\nIn the worker:\n{self.traceback}" if self.traceback else message


class PluginError(PaiseError):
    """A plugin can't be loaded, or breaks a rule of its hook.

    ``function`` is the function that breaks it, and ``reason`` the rule, if known.
    """

    function: object = None
    reason: str | None = None


class StorageError(PaiseError):
    """A database, the cache or the data directory can't be used."""


class NewerFormat(StorageError):
    """A newer version has written a database; this one may not change it."""


class DatabaseLocked(StorageError):
    """Another process has locked a database for too long.

    ``pid`` is that process, if known.
    """

    pid: int | None = None


class DiskFull(StorageError):
    """There is no space left on the disk. Nothing was stored, and nothing is lost."""


class WorkersError(PaiseError):
    """Workers can't be started, stopped or found."""


class HomeOnly(PaiseError):
    """A task on another machine used what only the home of the collection has.

    Args:
        what: What it used.
    """

    def __init__(self, what: str) -> None:
        super().__init__(f"{what} is not available on another machine; the job runs at home")


class Snoozed(PaiseError):
    """A job has to wait for a host, and gives back its worker until then.

    Args:
        host: The host.
        resume: JSON for ``context.job.resume``, from which the next execution continues.
        crawl_delay: A host and the seconds between requests that its robots.txt requires.
    """

    def __init__(
        self, host: str, resume: str | None, crawl_delay: tuple[str, float] | None = None
    ) -> None:
        super().__init__(f"waiting for {host}")
        self.host = host
        self.resume = resume
        self.crawl_delay = crawl_delay


class TaskError(PaiseError):
    """A task failed.

    Args:
        message: What happened.
        error_class: The name that retry policies, filters and listings use, such as ``timeout``,
            ``dns`` or ``http_4xx``. None means that of the exception class.
        retry_after: The shortest delay before the next attempt in seconds, as the server requires.
        host: The server that requires it. All jobs for that host wait.
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
    """May succeed later. The retry policy of its error class decides when to try again."""

    error_class = "transient"


class PermanentError(TaskError):
    """Will never succeed. The job fails at once, whatever attempts are left."""

    error_class = "permanent"


# Messages ------------------------------------------------------------------------------------

ERROR_LENGTH = 1000  # characters of a stored message

# The name of a URL's parameter that holds a secret. A token for the next page is none. The lengths
# are bounded, so that the time to match does not grow with the square of a long name.
_PART = r"[\w.%\[\]-]{0,60}"
SECRET_NAME = (
    rf"(?!{_PART}(?:page|next|prev|continuation|cursor|sync)(?:[_-]|%2D|%5F)?token=)"
    rf"(?:{_PART}(?:token|(?:secret|passw|pwd|(?:api|access)(?:[_-]|%2D|%5F)?key|signature"
    rf"|credential){_PART})|auth|hmac|jwt|sig)"
)
HIDDEN = "…"  # in place of a secret
# In a text: the password before a host, and the value of such a parameter.
_SECRETS = re.compile(
    rf"(?<=://)(?P<user>[^/\s:@'\"]*):[^/\s@'\"]+(?=@)"
    rf"|(?P<name>[?&;#]{SECRET_NAME}=)(?:(?!!/)[^&;#\s'\"])+",
    re.IGNORECASE,
)


def message(error: BaseException) -> str:
    """Return the message of an error in one line. Foreign ones begin with the name of the class."""
    try:
        text = " ".join(str(error).split())
    except Exception:  # of its own __str__
        text = "(no message)"
    if not isinstance(error, PaiseError):
        text = f"{type(error).__name__}: {text}" if text else type(error).__name__
    return storable(shortened(redacted(text), ERROR_LENGTH))


def redacted(text: str) -> str:
    """Remove passwords and tokens from the URLs in a text, for logs, errors and listings."""
    if "://" not in text:
        return text
    return _SECRETS.sub(
        lambda m: f"{m['user']}:{HIDDEN}" if m["name"] is None else m["name"] + HIDDEN, text
    )


def without_secrets(value: Any) -> Any:
    """Remove passwords and tokens from all texts in a JSON value, and what is nested too deeply."""
    try:
        match value:
            case str():
                return redacted(value)
            case list() | tuple():
                return [without_secrets(element) for element in value]
            case dict():
                return {without_secrets(key): without_secrets(part) for key, part in value.items()}
    except RecursionError:
        return "[…nested too deeply to be shown…]"
    return value


def shortened(text: str, length: int) -> str:
    """Leave out the middle of a text that is longer than `length` characters, and tell so."""
    if len(text) <= length:
        return text
    left_out = f" […{len(text) - length:,} characters left out…] "
    half = (length - len(left_out)) // 2
    return text[: length - len(left_out) - half] + left_out + text[-half:]


def storable(text: str) -> str:
    """Escape the lone surrogates of undecodable file names, which SQLite does not accept."""
    return text.encode(errors="backslashreplace").decode()
