"""Deliver the message of an alert: to a program, or by Apprise to mail, chat and webhooks.

Each delivery is a process in a group of its own, so that one that hangs holds up nothing and can be
killed with all that it has started.
"""

import json
import logging
import os
import re
import signal
import subprocess
import sys
import time
from contextlib import suppress
from io import StringIO
from tempfile import TemporaryFile
from typing import Any
from urllib.parse import unquote

from paise2nb.config.alerts import Alert
from paise2nb.core.errors import HIDDEN, redacted, shortened
from paise2nb.core.processes import DYING_SECONDS, program
from paise2nb.core.render import duration, one_line
from paise2nb.jobs.alerts import INSTALL_APPRISE

ERROR_LENGTH = 300  # characters
ERROR_BYTES = 100_000  # of what a program prints


class Delivery:
    """One delivery, which runs from the start.

    Args:
        alert: Where to.
        message: What.
    """

    def __init__(self, alert: Alert, message: dict[str, Any]) -> None:
        self.message = message
        self._deadline = time.monotonic() + alert.timeout
        self._timeout = alert.timeout
        self._is_own = bool(alert.notify)  # the program is `main`
        self._printed = TemporaryFile()  # noqa: SIM115 - it is closed with the delivery
        self._process: subprocess.Popen[bytes] | None = None
        self._failure: str | None = None
        command, given = list(alert.command), message
        if alert.notify:
            command = program(__name__, "paise2nb", "notify")
            # By standard input: a command line can be read by all users of the machine.
            given = {**message, "url": alert.notify}
        with TemporaryFile() as stdin:  # not a pipe, which is full if the program does not read
            stdin.write(json.dumps(given).encode() + b"\n")
            stdin.seek(0)
            try:
                self._process = subprocess.Popen(
                    command,
                    stdin=stdin,
                    stdout=self._printed,
                    stderr=self._printed,
                    start_new_session=True,
                )
            except OSError as error:
                self._failure = f"{command[0]}: {error.strerror}"

    def ended(self) -> bool:
        """Whether it has ended. It is killed if it takes too long."""
        if self._process is None or self._process.poll() is not None:
            return True
        if time.monotonic() >= self._deadline:
            self.kill()
            self._failure = f"it took longer than {duration(self._timeout)}"
        return self._failure is not None

    def kill(self) -> None:
        """Kill the process and all of its group."""
        if self._process is not None:
            with suppress(ProcessLookupError):
                os.killpg(self._process.pid, signal.SIGKILL)
            with suppress(subprocess.TimeoutExpired):  # it waits for a device
                self._process.wait(DYING_SECONDS)

    def error(self) -> str | None:
        """Why a delivery that has ended failed, in one line; None if it did not."""
        with self._printed as file:
            file.seek(0)
            printed = file.read(ERROR_BYTES).decode(errors="replace").strip()
        if self._failure is None and self._process is not None and self._process.returncode:
            reason = printed.splitlines()[-1:]
            if not (self._is_own and reason):
                reason.insert(0, f"exit status {self._process.returncode}")
            self._failure = ": ".join(reason)
        return self._failure and shortened(one_line(redacted(self._failure)), ERROR_LENGTH)


# The program that sends a message by Apprise -------------------------------------------------


def main() -> None:
    """Send the message on standard input. The exit status is 1 if that fails."""
    message = json.loads(sys.stdin.buffer.read())
    try:
        url = re.sub(r"\$\{(\w+)\}", lambda name: os.environ[name[1]], message.pop("url"))
        error = _notify(url, message)
    except LookupError as missing:
        error = f"the environment variable {missing.args[0]} in notify is not set"
    if error:
        print(error, file=sys.stderr)
        sys.exit(1)


def _notify(url: str, message: dict[str, Any]) -> str | None:
    """Send a message. Return the reason if that fails, without any part of the URL."""
    try:
        import apprise
    except ImportError:
        return f"notify needs Apprise: {INSTALL_APPRISE}"
    over = message["event"] == "over"
    kind = apprise.NotifyType.SUCCESS if over else apprise.NotifyType.WARNING
    target = apprise.Apprise()
    captured = StringIO()
    logging.basicConfig(stream=captured, level=logging.WARNING, format="%(message)s")
    if target.add(url) and target.notify(message["text"], message["title"], kind):
        return None
    lines = captured.getvalue().split("\n")
    if not len(target):
        return "Apprise does not know this kind of URL, or a part of it is missing"
    return _without_parts(next(filter(None, reversed(lines)), "Apprise gives no reason"), url)


def _without_parts(text: str, url: str) -> str:
    """Replace every part of a URL in a text, because each may be a secret, except its scheme."""
    parts = re.split(r"[^\w.+-]+", url.partition("://")[2] + " " + unquote(url))
    for part in sorted({part for part in parts if len(part) > 2}, key=len, reverse=True):
        if part != url.partition(":")[0]:
            text = text.replace(part, HIDDEN)
    return text
