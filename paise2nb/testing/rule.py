"""A rule for one kind of part, and what its check has to work with."""

import inspect
from collections.abc import Callable, Mapping
from contextlib import ExitStack
from dataclasses import dataclass
from functools import partial
from multiprocessing import get_context
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, NamedTuple

from paise2nb.app import App
from paise2nb.app import open as open_app
from paise2nb.testing.fixtures import LOOPBACK, SECONDS


class Fetching(NamedTuple):
    """An example for a fetcher.

    Attributes:
        url: it can be fetched.
        wrong: these can't.
        settings: what loads the fetcher, by dotted key.
    """

    url: str
    wrong: tuple[str, ...] = ()
    settings: Mapping[str, Any] = {}


class Extracting(NamedTuple):
    """An example for an extractor.

    Attributes:
        data: the bytes of a document.
        mime_type: their type.
        url: where they may have been fetched from; its suffix counts.
        settings: what loads the extractor, by dotted key.
    """

    data: bytes
    mime_type: str
    url: str = "http://example.org/sample"
    settings: Mapping[str, Any] = {}


class Broken(AssertionError):
    """A part breaks a rule. The message names the rule, the reason, and how to fix it."""


def require(condition: object, reason: str) -> None:
    """Raise Broken with the reason unless the condition is true."""
    if not condition:
        raise Broken(reason)


def expect(found: object, wanted: object, what: str) -> None:
    """Raise Broken unless both are equal."""
    require(found == wanted, f"{what}: {found!r}, not {wanted!r}")


@dataclass
class Workspace:
    """What one check works with.

    Attributes:
        subject: see `Rule.check`.
        directory: an empty directory, removed afterwards.
        stack: closes what the check has opened.
    """

    subject: Any
    directory: Path
    stack: ExitStack

    def open(self) -> Any:
        """Open the cache or store; again in the same directory at each call."""
        part = self.subject(self.directory)
        self.stack.callback(part.close)
        return part

    def app(self, profile: str = "test", **settings: Any) -> App:
        """Open an app that uses the part; again on the same data at each call."""
        chosen = self.subject if isinstance(self.subject, Mapping) else self.subject.settings
        plugins = [*chosen.get("plugins", ()), "paise2nb.testing.queues"]
        merged = {**LOOPBACK, **chosen, **settings, "plugins": plugins}
        return self.stack.enter_context(open_app(profile, self.directory, merged))

    def in_processes(self, work: Callable[[Any], None]) -> None:
        """Have two new processes open the cache or store and work on it at the same time."""
        new = partial(get_context("spawn").Process, target=_work)
        processes = [new(args=(work, self.subject, self.directory)) for _ in range(2)]
        for process in processes:
            process.start()
        for process in processes:
            process.join(SECONDS)
        expect([process.exitcode for process in processes], [0, 0], "exit codes of two processes")


def _work(work: Callable[[Any], None], make: Callable[[Path], Any], directory: Path) -> None:
    work(make(directory))


Test = Callable[[Workspace], None]


class Rule(NamedTuple):
    """One rule for one kind of part.

    Attributes:
        kind: ``cache``, ``store``, ``queue``, ``fetcher`` or ``extractor``.
        says: the rule in one sentence.
        advice: how to keep it.
        test: raises an exception if the part breaks it.
    """

    kind: str
    says: str
    advice: str
    test: Test

    def __str__(self) -> str:
        return self.says

    def check(self, subject: Any) -> None:
        """Check a part.

        Args:
            subject: for ``cache`` and ``store`` a function that opens one in a directory; other
                processes import it, so it has to be in a module. For ``queue`` the settings that
                select it, for ``fetcher`` a `Fetching`, for ``extractor`` an `Extracting`.

        Raises:
            Broken: the part breaks the rule.
        """
        with TemporaryDirectory(prefix="paise2-") as directory, ExitStack() as stack:
            try:
                self.test(Workspace(subject, Path(directory), stack))
            except Exception as error:
                reason = error if isinstance(error, Broken) else f"{type(error).__name__}: {error}"
                message = f'The {self.kind} breaks the rule "{self.says}": {reason}. {self.advice}'
                raise Broken(message) from error


def rule(kind: str) -> Callable[[Test], Rule]:
    """Declare a function as the test of a rule. Its docstring has the rule, then the advice."""

    def declare(test: Test) -> Rule:
        says, _, advice = (inspect.getdoc(test) or "").partition("\n\n")
        return Rule(kind, says.removesuffix("."), advice.replace("\n", " "), test)

    return declare
