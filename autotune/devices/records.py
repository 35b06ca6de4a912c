"""What building and timing report, as plain data that travels through JSON."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum
from typing import Any


def median(values: Iterable[float]) -> float:
    """The middle value, or the mean of the two middle ones; NaN of none."""
    row = sorted(values)
    half = len(row) // 2
    return (row[half] + row[~half]) / 2 if row else float("nan")


class Status(StrEnum):
    """How one candidate or one sweep case ended. `interrupted`: no verdict, the budget or the user ended the work."""

    OK = "ok"
    UNSUPPORTED = "unsupported"
    TIMEOUT = "timeout"
    COMPILE = "compile"
    RUNTIME = "runtime"
    CORRECTNESS = "correctness"
    CONSTRAINTS = "constraints"
    INTERRUPTED = "interrupted"


@dataclass(frozen=True, slots=True)
class Policy:
    """How timings are taken. `threads`, `warm` and `alone` change what is measured and are part of a record's key
    (`id`): not alone is among kernels of other programs, each in its turn, which leave the caches as they do in a call.

    sample_seconds: one sample repeats the kernel for at least this long. rounds: samples a candidate, interleaved with
    the others. race: one whose best sample is this many times the leader's median is dropped after `race_after` rounds.
    moved: arrays are made anew first; where they lie in memory, and so how they share the caches, is a matter of luck.
    """

    threads: int = 1
    warm: bool = True
    sample_seconds: float = 1e-3
    rounds: int = 7
    race: float = 1.1
    race_after: int = 3
    alone: bool = True
    moved: bool = False

    @property
    def id(self) -> str:
        return f"{'warm' if self.warm else 'cold'}-{self.threads}t{'' if self.alone else '-turn'}"

    def repeats(self, seconds: float) -> int:
        """How often a sample repeats a kernel that takes `seconds`."""
        return max(1, math.ceil(self.sample_seconds / seconds)) if self.warm else 1

    def sample(self, seconds: float) -> float:
        """What one sample takes: its repetitions, and a call before them."""
        many = self.repeats(seconds)
        return seconds * (many + (many > 1 and self.alone))

    @staticmethod
    def in_turn(threads: int) -> Policy:
        """For kernels of several programs: as few calls a sample as can be timed, and none is dropped for its time."""
        return Policy(threads, sample_seconds=2e-5, rounds=25, race=1e9, alone=False)

    def to_json(self) -> dict[str, Any]:
        return dataclasses.asdict(self)


@dataclass(frozen=True, slots=True)
class BuildReport:
    """One candidate built, loaded and checked. `handle` names it to the measurer; None unless the status is ok.

    `reason` is a short code that search counts ("register-tile", "out-of-bounds"), `message` the sentence for people.
    """

    status: Status = Status.OK
    handle: int | None = None
    seconds: float = 0.0
    check_seconds: float = 0.0
    code_bytes: int = 0
    reason: str = ""
    message: str = ""

    @property
    def ok(self) -> bool:
        return self.status is Status.OK

    def to_json(self) -> dict[str, Any]:
        return dataclasses.asdict(self)

    @staticmethod
    def from_json(value: Mapping[str, Any]) -> BuildReport:
        return BuildReport(**{**value, "status": Status(value["status"])})


@dataclass(frozen=True, slots=True)
class Measurement:
    """Seconds of one call: the median of `samples` (in the order of rounds, so that two candidates' samples pair up).

    `rounds` counts those taken, the discarded ones included; `noisy`: the machine was disturbed and stayed so.
    """

    seconds: float = float("inf")
    minimum: float = float("inf")
    mad: float = 0.0
    samples: tuple[float, ...] = ()
    rounds: int = 0
    noisy: bool = False
    status: Status = Status.OK
    message: str = ""

    @staticmethod
    def of(samples: Sequence[float], rounds: int, noisy: bool = False) -> Measurement:
        middle = median(samples)
        mad = median(abs(s - middle) for s in samples)
        return Measurement(middle, min(samples), mad, tuple(samples), rounds, noisy)

    @property
    def ok(self) -> bool:
        return self.status is Status.OK

    def to_json(self) -> dict[str, Any]:
        return dataclasses.asdict(self)

    @staticmethod
    def from_json(value: Mapping[str, Any]) -> Measurement:
        return Measurement(**{**value, "samples": tuple(value["samples"]), "status": Status(value["status"])})
