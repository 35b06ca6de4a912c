"""Schedule: a tuple of steps. Data that replays on any nest of the same structure and travels as JSON."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

from .errors import ScheduleError
from .nest import Nest
from .spmd import synchronised
from .steps import Step, step_from_json

MAX_STEPS = 400


@dataclass(frozen=True)
class Schedule:
    """Steps in the order in which they apply."""

    steps: tuple[Step, ...] = ()

    def apply(self, nest: Nest) -> Nest:
        """The scheduled nest, with what follows from its threads. Raises ScheduleError with the step that does not
        fit."""
        for step in self.steps:
            nest = step.apply(nest)
        return synchronised(nest)

    def to_json(self) -> list[dict[str, Any]]:
        return [step.to_json() for step in self.steps]

    @cached_property
    def digest(self) -> str:
        text = json.dumps(self.to_json(), sort_keys=True, separators=(",", ":"))
        return hashlib.sha256(text.encode()).hexdigest()[:32]

    def __str__(self) -> str:
        return "\n".join(map(str, self.steps))


def from_json(value: Sequence[Any]) -> Schedule:
    """The schedule that `to_json` wrote. Raises ScheduleError on anything else."""
    if not isinstance(value, list) or len(value) > MAX_STEPS:
        raise ScheduleError(
            f"a schedule is a list of at most {MAX_STEPS} steps, got {type(value).__name__}", "unknown-step"
        )
    return Schedule(tuple(step_from_json(row) for row in value))
