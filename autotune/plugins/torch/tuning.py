"""The kernels of a model, tuned within one budget: each once, wherever it runs.

Knows how a model is compiled and that a part of a graph can be tuned. Must not know how that is done.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from contextlib import nullcontext
from dataclasses import dataclass
from typing import Any

import torch

from ...tuning import together
from .backend import backend
from .graphs import MADE

LEAST = 0.05  # seconds: with less nothing is begun
Progress = Callable[[str, int, float], None]


@dataclass(frozen=True)
class Tuned:
    """A part of a graph: how many kernels it is, how many of them differ, and seconds of all of them, measured each
    apart: as they would be without a search, and as they are now. None where the budget ended before it."""

    title: str
    kernels: int
    distinct: int
    default_seconds: float | None
    seconds: float | None
    trials: int


def tune(
    model: Any, *inputs: Any, budget: float = 60.0, options: Mapping[str, Any] | None = None, grad: bool = False,
    progress: Progress | None = None, **keywords: Any,
) -> list[Tuned]:  # fmt: skip
    """Tune what the model's call with these inputs runs, and store it: `budget` in seconds, measuring alone.

    `options` as for the backend; what is stored is found by any later process with the same of them. With `grad`, the
    kernels of the forward graph that training runs. `progress` is told a part's title, its trials and its best seconds.
    """
    graphs: list[Any] = []
    token = MADE.set(graphs)
    try:
        plain = getattr(model, "_orig_mod", model)
        chosen = {"tune": "cached", **(options or {})}
        compiled = torch.compile(plain, backend=lambda module, given: backend(module, given, options=chosen))
        with nullcontext() if grad else torch.no_grad():
            compiled(*inputs, **keywords)
    finally:
        MADE.reset(token)
    parts = [part for graph in graphs for part in graph.kernels]
    if not parts:
        return []
    titles = {id(part.prepared): part.title for part in reversed(parts)}

    def told(prepared: Any, trials: int, best: float) -> None:
        if progress is not None:
            progress(titles[id(prepared)], trials, best)

    found, prepared = [], [part.prepared for part in parts]
    results = together(prepared, budget, progress=told) if budget >= LEAST else [None] * len(parts)
    for part, result in zip(parts, results):
        kernels = part.prepared.kernels
        count = len(kernels), len({k.program.digest for k in kernels})
        known = (result.default_seconds, result.seconds, result.trials) if result else (None, None, 0)
        found.append(Tuned(part.title, *count, *known))
    return found
