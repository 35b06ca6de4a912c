"""Spaces for tests: recorded ones that nobody measured. What a point takes follows from its holes, by a seed."""

from __future__ import annotations

import math
from functools import cache
from typing import Any

import numpy as np

from autotune.devices import device
from autotune.devices.records import Status
from autotune.devices.spec import DeviceSpec
from autotune.search import t4
from autotune.search.ranking import Ranking
from autotune.search.recorded import Space, configuration, metadata, reduced, space
from benchmarks.spaces import PROGRAMS, kernel

SPEC = device("cpu:znver3")  # of the table: the same on every machine


def document(name: str = "square", most: int = 300, seed: int = 1, spec: DeviceSpec = SPEC) -> t4.Document:
    """What the model predicts, times an effect of each hole's value, and some noise; one point in 16 fails."""
    draw = np.random.default_rng(seed)
    part, struck = reduced(Ranking(kernel(PROGRAMS[name]), spec, 1, pruned=False), most, seed)
    effects: dict[tuple[int, str, int], float] = {}
    results = [t4.Result({"sketch": "plain"}, seconds=1e-2, runtimes=(1e-2,), compile_seconds=0.01)]
    for n, p in enumerate(part.priced):
        for at in range(len(p.seconds)):
            seconds = float(p.seconds[at])
            for hole, value in p.point(at).items():
                seconds *= effects.setdefault((n, hole, value), math.exp(0.15 * draw.standard_normal()))
            fails, digest = at % 16 == 7, part.candidate(n, at, "test").schedule.digest[:10]
            extra: dict[str, tuple[Any, str]] = {"schedule": (digest, ""), "anchor": (0.1, "ms")}
            results.append(t4.Result(
                configuration(part, (n, at)), Status.COMPILE if fails else Status.OK,
                math.inf if fails else seconds, () if fails else (seconds, 1.01 * seconds, seconds), 0.02, 0.003, 0.001,
                extra=extra | ({"reason": ("planted", "")} if fails else {}),
            ))  # fmt: skip
    return t4.Document(
        tuple(results), metadata(name, str(PROGRAMS[name]), part, spec, 1, {"test": "1"}, most, seed, struck)
    )


@cache
def made(name: str = "square", most: int = 300, seed: int = 1) -> Space:
    return space(document(name, most, seed), "made")
