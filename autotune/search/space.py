"""The sketches of a program, chosen by its structure: what its stages share and along which axes they are
contiguous."""

from __future__ import annotations

from ..devices.spec import DeviceSpec
from ..ir.program import TensorProgram
from .blocks import block_sketches
from .chain import chain_sketches
from .facts import Facts, Stage, facts
from .lanes import lanes_sketches
from .maps import MapSketch
from .panel import panel_sketches
from .rows import rows_sketches
from .sketch import Sketch

SMALL_FLOPS = 1 << 22


def sketches(program: TensorProgram, spec: DeviceSpec, threads: int) -> list[Sketch]:
    """All sketches that fit a one-kernel program; empty where only the plain nest is known to be right (a scalar,
    say)."""
    if any(a.extent == 0 for c in program.computes for a in c.all_axes):
        return []
    known = facts(program)
    if spec.blocks:
        first, rest = known.stages[0], known.stages[1:]
        epilogues = tuple(s.name for s in rest) if _pointwise_after(first, rest) else None
        return block_sketches(known, epilogues, spec)
    found = _fitting(known, spec, threads)
    if threads > 1 and program.flops < SMALL_FLOPS:
        found += _fitting(known, spec, 1)  # waking threads may cost more than they save
    return found


def _fitting(known: Facts, spec: DeviceSpec, threads: int) -> list[Sketch]:
    first, rest = known.stages[0], known.stages[1:]
    found: list[Sketch] = []
    if first.is_reduction and _pointwise_after(first, rest):
        names = tuple(s.name for s in rest)
        found += panel_sketches(known, first, names, spec, threads)
        found += lanes_sketches(known, first, names, spec, threads)
    if len(known.stages) == 1 and not first.is_reduction:
        found.append(MapSketch(known, first, spec, threads))
    elif rest and (chains := chain_sketches(known, spec, threads)):
        found += chains
    elif not found or rest or first.slides:
        found += rows_sketches(known, spec, threads)
    return found


def _pointwise_after(first: Stage, rest: tuple[Stage, ...]) -> bool:
    """Every later stage is a plain store over the first one's result axes that reads it point by point."""
    moving = {a for a in first.axes if first.extents[a] > 1}
    for s in rest:
        if s.is_reduction or set(s.axes) != set(first.axes):
            return False
        read = [a for a in s.loads if a.buffer.name == first.name]
        if not read or any(not moving <= set(a.dims) for a in read):
            return False
        if any(a.buffer.name in {r.name for r in rest} for a in s.loads):
            return False
    return True


__all__ = ["Facts", "sketches"]
