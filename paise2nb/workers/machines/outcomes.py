"""Outcomes that machines have reported: each waits at home until its bytes are there."""

import logging
from collections.abc import Callable
from typing import Any

from paise2nb.content.fetch import robots
from paise2nb.jobs.models import Outcome
from paise2nb.jobs.parts import Parts
from paise2nb.jobs.transfer import outcome_from_json
from paise2nb.workers.machines.joined import Machine

logger = logging.getLogger("paise2nb.worker")

RELEASED = Outcome("released", "queued")


class Outcomes:
    """The outcomes of all machines.

    Args:
        parts: The parts of the app at home.
        end: Ends a job: called with its machine, its token and its outcome.
    """

    def __init__(self, parts: Parts, end: Callable[[Machine, str, Outcome], None]) -> None:
        self._parts = parts
        self._end = end

    def take(self, machine: Machine, outcomes: dict[str, Any]) -> None:
        """Take what a machine has reported, and ask for the bytes that are missing.

        Args:
            outcomes: By their tokens.
        """
        for token, values in outcomes.items():
            if token not in machine.leases:  # late, twice, or refused
                machine.acknowledge(token)
            elif token not in machine.pending:
                sizes = values.get("bytes", {})
                missing = {key for key in sizes if key not in self._parts.cache}
                machine.pending[token] = (values, missing)
                for key in missing:
                    machine.receiver.want(key, sizes[key])
                machine.receiver.step()
                self._end_complete(machine)

    def keep(self, machine: Machine, key: str, data: bytes | None) -> None:
        """Store bytes of a machine, which some outcomes wait for. None: it no longer has them."""
        if data is not None:
            self._parts.cache.put(data)
            machine.brought.append(key)
        for token, (_, missing) in list(machine.pending.items()):
            if key in missing and data is None:
                machine.pending[token] = (vars(RELEASED), set())
            missing.discard(key)
        self._end_complete(machine)

    def _end_complete(self, machine: Machine) -> None:
        """End the jobs of which all bytes are here."""
        for token, (values, missing) in list(machine.pending.items()):
            if missing:
                continue
            del machine.pending[token]
            values = {name: value for name, value in values.items() if name != "bytes"}
            for level, line in values.pop("log", ()):
                logger.log(int(level), "%s: %s", machine.host, line)
            for key, at in values.pop("visited", {}).items():
                self._parts.store.visited(key, at)
            if rules := values.pop("robots", None):
                try:
                    robots.put_rules(self._parts.data_dir / robots.DIRECTORY, *rules)
                except OSError as error:  # the next fetch reads them again
                    logger.warning("the robots.txt of a host can't be stored: %s", error)
            try:
                outcome = outcome_from_json(values)
            except TypeError:
                logger.warning("an outcome of another version is refused")
                outcome = RELEASED
            self._end(machine, token, outcome)
