"""A rule for one kind of part, and the workspace of its check."""

import inspect
from collections.abc import Callable, Mapping
from contextlib import ExitStack, closing
from dataclasses import dataclass
from multiprocessing import get_context
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, NamedTuple

from paise2nb.app import open as open_app
from paise2nb.testing.fixtures import LOOPBACK, SECONDS


class Fetching(NamedTuple):
    """An example for a fetcher.

    Attributes:
        url: A URL that can be fetched.
        wrong: URLs that can't be fetched.
        settings: The settings that load the fetcher, by dotted key.
    """

    url: str
    wrong: tuple[str, ...] = ()
    settings: Mapping[str, Any] = {}


class Extracting(NamedTuple):
    """An example for an extractor.

    Attributes:
        data: The bytes of a document.
        mime_type: Their MIME type.
        url: The URL of the document. Its suffix may select the extractor.
        settings: The settings that load the extractor, by dotted key.
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
    """The directory of one check, and the parts that are open in it.

    Attributes:
        subject: See `Rule.check`.
        directory: Empty at first, and removed after the check.
        stack: Closes the parts after the check.
    """

    subject: Any
    directory: Path
    stack: ExitStack

    def open(self, **settings: Any) -> Any:
        """Open a cache or store, or an app that uses the part; on the same data at each call."""
        if callable(self.subject):
            return self.stack.enter_context(closing(self.subject(self.directory)))
        is_queue = isinstance(self.subject, Mapping)
        chosen = self.subject if is_queue else self.subject.settings
        plugins = [*chosen.get("plugins", ()), "paise2nb.testing.queues"]
        merged = {**LOOPBACK, **chosen, **settings, "plugins": plugins}
        profile = "development" if is_queue else "test"  # in which jobs may wait
        return self.stack.enter_context(open_app(profile, self.directory, merged))

    def in_processes(self, work: Callable[[Any], None]) -> None:
        """Have two new processes open the cache or store and work on it at the same time."""
        new, args = get_context("spawn").Process, (work, self.subject, self.directory)
        processes = [new(target=_work, args=args) for _ in range(2)]
        for process in processes:
            process.start()
        for process in processes:
            process.join(SECONDS)
        expect([process.exitcode for process in processes], [0, 0], "exit codes of two processes")


def _work(work: Callable[[Any], None], make: Callable[[Path], Any], directory: Path) -> None:
    work(make(directory))


Test = Callable[[Workspace, Any], None]


class Rule(NamedTuple):
    """One rule for one kind of part.

    Attributes:
        kind: ``cache``, ``store``, ``queue``, ``fetcher`` or ``extractor``.
        says: The rule in one sentence.
        advice: How to follow the rule.
        test: Called with a workspace and an open part. Raises an exception if it breaks the rule.
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
            subject: For ``cache`` and ``store`` a function that opens one in a directory. It has
                to be in a module, because other processes import it. For ``queue`` the settings
                that select it, for ``fetcher`` a `Fetching`, for ``extractor`` an `Extracting`.

        Raises:
            Broken: The part breaks the rule.
        """
        with TemporaryDirectory(prefix="paise2-") as directory, ExitStack() as stack:
            try:
                workspace = Workspace(subject, Path(directory), stack)
                self.test(workspace, workspace.open())
            except Exception as error:  # of the part: an exception breaks the rule, too
                reason = error if isinstance(error, Broken) else f"{type(error).__name__}: {error}"
                message = f'The {self.kind} breaks the rule "{self.says}": {reason}. {self.advice}'
                raise Broken(message) from error


def rule(kind: str) -> Callable[[Test], Rule]:
    """Declare a function as the test of a rule. Its docstring is the rule, then the advice."""

    def declare(test: Test) -> Rule:
        says, _, advice = (inspect.getdoc(test) or "").partition("\n\n")
        return Rule(kind, says.removesuffix("."), advice.replace("\n", " "), test)

    return declare
