"""Outcomes as JSON values, for processes that do not open the job store."""

import dataclasses
from collections.abc import Mapping
from typing import Any

from paise2nb.jobs.models import HostDelay, NewJob, Outcome, StateEntry

_PARTS = {"followups": NewJob, "state_entries": StateEntry, "host_delays": HostDelay}
_DEFAULTS = {field.name: field.default for field in dataclasses.fields(Outcome)}


def outcome_to_json(outcome: Outcome) -> dict[str, Any]:
    """An outcome without the values that are the default."""
    return {name: value for name, value in vars(outcome).items() if value != _DEFAULTS[name]}


def outcome_from_json(values: Mapping[str, Any]) -> Outcome:
    """The outcome that `outcome_to_json` gave. Raises TypeError for anything else."""
    parts = {
        name: [kind(*part) for part in values[name]]
        for name, kind in _PARTS.items()
        if name in values
    }
    return Outcome(**{**values, **parts})
