"""Candidates that are known already, measured at length beside each other: in several processes and many places of
their arrays. Knows a `Measurer`; what is made of the samples is for others."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager
from dataclasses import replace
from typing import Any

from ..devices.records import Policy
from ..ir.errors import MeasureError
from .tune import Measurer


def long_run(
    make: Callable[[], AbstractContextManager[Measurer]], groups: Sequence[Sequence[tuple[Any, Any]]], policy: Policy,
    processes: int, looks: int, rounds: int, check: str = "quick",
) -> list[list[list[float]]]:  # fmt: skip
    """Of each (program, schedule) as JSON, its samples, round by round: those of a group take turns, so many looks of
    so many rounds in each process that `make` starts. Arrays lie elsewhere at each look, and nothing is left out for
    its time. Raises MeasureError where one cannot be built or timed."""
    how = replace(policy, race=1e9, moved=True)
    samples: list[list[list[float]]] = [[[] for _ in group] for group in groups]
    for _ in range(processes):
        with make() as measurer:
            for group, rows in zip(groups, samples):
                built = measurer.build(group, check=check)
                if failed := [report for report in built if report.handle is None]:
                    raise MeasureError(f"what was measured before could not be built again: {failed[0].message}")
                for _ in range(looks):
                    for row, m in zip(rows, measurer.time([r.handle or 0 for r in built], how, rounds)):
                        if len(m.samples) < rounds:
                            why = m.message or m.status
                            raise MeasureError(f"what was measured before could not be timed again: {why}")
                        row += m.samples
    return samples
