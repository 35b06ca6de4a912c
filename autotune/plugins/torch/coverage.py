"""What of a model our kernels compute: a table by operation, and the share of the time.

Knows how compiled graphs report their time. Must not know how they are made.
"""

from __future__ import annotations

import time
from collections.abc import Mapping
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from typing import Any

import torch

from .backend import backend
from .graphs import PROFILE, Profile

CALLS = 3


@dataclass(frozen=True)
class Row:
    """An operation that occurs `count` times in one call. `where`: "kernel", where operations that were fused have no
    time of their own (`seconds` None), or "torch", with the `reason`."""

    operation: str
    where: str
    count: int
    seconds: float | None
    reason: str = ""


@dataclass(frozen=True)
class Coverage:
    """Of one call: `seconds` in all and `kernel_seconds` in kernels; what is neither in a kernel nor in an operation of
    torch is Python, Dynamo's guards included. `kernels`: seconds of each kernel by its title."""

    rows: tuple[Row, ...]
    seconds: float
    kernel_seconds: float
    kernels: Mapping[str, float]

    @property
    def share(self) -> float:
        """The share of the time that is spent in kernels, from 0 to 1."""
        return min(self.kernel_seconds / self.seconds, 1.0) if self.seconds else 0.0

    def __str__(self) -> str:
        head = ("operation", "count", "runs in", "time", "reason")
        times = ["fused" if r.seconds is None else f"{r.seconds * 1e3:.3f} ms" for r in self.rows]
        lines = [(r.operation, str(r.count), r.where, t, r.reason) for r, t in zip(self.rows, times)]
        widths = [max(len(line[i]) for line in (head, *lines)) for i in range(len(head))]
        table = ["  ".join(cell.ljust(w) for cell, w in zip(line, widths)).rstrip() for line in (head, *lines)]
        last = (
            f"kernels: {self.share:.1%} of {self.seconds * 1e3:.3f} ms ({self.kernel_seconds * 1e3:.3f} ms in "
            f"{len(self.kernels)}); torch's operations: {sum(r.seconds or 0 for r in self.rows) * 1e3:.3f} ms"
        )
        return "\n".join((*table, last))


def coverage(
    model: Any, *inputs: Any, options: Mapping[str, Any] | None = None, grad: bool = False, **keywords: Any
) -> Coverage:
    """Compile the model, call it with these inputs, and say where the time of a call goes, the mean of a few.

    `options` as for the backend. Without `grad`, gradients are off; with it, only the forward graph is seen.
    """
    plain = getattr(model, "_orig_mod", model)

    def chosen(module: Any, given: Any) -> Any:
        return backend(module, given, options=options)

    compiled = torch.compile(plain, backend=chosen)
    mode: AbstractContextManager[Any] = nullcontext() if grad else torch.no_grad()
    with mode:
        profile, seconds = Profile(), 0.0
        for n in range(CALLS + 1):
            start = time.perf_counter()
            compiled(*inputs, **keywords)  # alone: to time each node takes time, too
            seconds += (time.perf_counter() - start) / CALLS
            token = PROFILE.set(profile)
            try:
                compiled(*inputs, **keywords)
            finally:
                PROFILE.reset(token)
            if n == 0:  # compiled, and everything used once
                profile.clear()
                seconds = 0.0
    rows = [Row(name, "kernel", count // CALLS, None) for name, count in profile.kernel_operations.most_common()]
    rows += [
        Row(name, "torch", profile.torch_calls[name, reason] // CALLS, spent / CALLS, reason)
        for (name, reason), spent in sorted(profile.torch_seconds.items(), key=lambda item: -item[1])
    ]
    kernels = {title: spent / CALLS for title, spent in profile.kernel_seconds.items()}
    return Coverage(tuple(rows), seconds, sum(kernels.values()), kernels)
