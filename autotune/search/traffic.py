"""What blocks of threads cost beside arithmetic: their own beginning, and what their warps ask of the memory.

A multiprocessor takes one line of a warp's access a cycle; what threads that lie apart fetch comes in whole sectors
from the L2, and what a thread reads one after another arrives `IN_FLIGHT` loads at a time.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from math import prod
from typing import Any

import numpy as np

from ..devices.spec import DeviceSpec
from .facts import Stage
from .sketch import Column

LINE_BYTES, SECTOR, LANES = 128, 32, 32
IN_FLIGHT = 16  # loads of a thread that compilers begin before they wait for one


def moved(stages: Sequence[Stage]) -> float:
    """Bytes of everything that the stages read and write, each array once for each stage."""
    return float(sum(a.buffer.bytes for s in stages for a in (*s.reads, s.store)))


def rate(spec: DeviceSpec, size: float) -> float:
    """Bytes a second of the memory that so many bytes come from when they were used before."""
    near = bool(spec.caches) and size < 0.75 * spec.caches[0].bytes
    return spec.bytes_per_second("L2" if near else "DRAM", "copy")


def fetched(spec: DeviceSpec, traffic: Any, once: float) -> Any:
    """Seconds in which blocks get `traffic` bytes from the L2, which gets `once` bytes from where they are."""
    return np.maximum(traffic / spec.bytes_per_second("L2", "copy"), once / rate(spec, once))


def latency(spec: DeviceSpec) -> float:
    """Seconds between a load that no near cache serves and its value; 0 where that is not known."""
    return spec.core.latency / spec.frequency_hz if spec.core else 0.0


def beginning(spec: DeviceSpec, blocks: Any) -> Any:
    """Seconds that blocks take to begin, whatever they do."""
    cycles = spec.core.block_cycles if spec.core else 0
    return np.ceil(blocks / spec.cores) * cycles / spec.frequency_hz


def resident(spec: DeviceSpec, threads: Any, shared: Any = 0, registers: Any = 32) -> Any:
    """Blocks that one multiprocessor holds at once."""
    core = spec.core
    if core is None:
        return np.maximum(1.0, np.floor(1024 / threads))
    held = np.minimum(core.warps * spec.warp / threads, core.registers / (threads * registers))
    return np.clip(np.floor(np.minimum(held, core.shared_bytes / np.maximum(shared, 1))), 1, core.blocks)


@dataclass(frozen=True)
class Asked:
    """Of one point of a stage: `lines` that its loads and its store are asked of the memory as, and `apart`: bytes that
    are fetched in sectors of which neighbours use nothing."""

    lines: Any
    apart: Any


def asked(
    s: Stage, warp: Sequence[tuple[str, Any]], inside: Sequence[str], beside: str | None = None, shared: Any = 1
) -> Asked:
    """Where the lanes of a warp lie along axes, so many along each, and each of its threads walks the axes `inside`;
    `shared` threads of a block lie along `beside`."""
    lines, apart = 0.0, 0.0
    stored = 1 / prod(s.extents[a] for a in s.reduce_axes)
    for a, share in [*((a, 1.0) for a in s.reads), (s.store, stored)]:
        size = a.buffer.dtype.bytes
        rows, sectors, left = 1.0, 1.0, LANES
        for axis, count in warp:
            here, step = np.minimum(count, left), abs(a.strides.get(axis, 0)) * size
            rows = rows * np.minimum(here, np.maximum(1.0, here * step / LINE_BYTES))
            sectors = sectors * np.minimum(here, np.maximum(1.0, here * step / SECTOR))
            left = left / here
        lines = lines + rows / LANES * share
        if not any(a.contiguous(x) for x in inside):
            near = np.minimum(SECTOR / size, shared) if beside and a.contiguous(beside) else 1
            apart = apart + np.maximum(sectors * SECTOR / LANES / near - size, 0) * share
    return Asked(lines, apart)


def plain(s: Stage, side: Any, more: int) -> Asked:
    """Where a warp's accesses are all to neighbours, `side` of them at least; `more` stay in shared memory."""
    wide = np.maximum(1.0, LANES / side)
    return Asked((len(s.reads) + 1 + more) * wide / LANES, 0.0)


def memory(spec: DeviceSpec, s: Stage, blocks: Any, of: Asked, bytes_: Any, size: float) -> Column:
    """Seconds in which `bytes_` (of arrays of `size` bytes) move, and in which a stage's warps are served."""
    points = float(max(s.compute.points, 1))
    busy = np.minimum(blocks, spec.cores)
    served = points * of.lines / (busy * spec.frequency_hz)
    apart = points * of.apart / spec.bytes_per_second("L2", "copy")
    # A multiprocessor by itself moves a few times its share of the bandwidth, no more.
    moving = bytes_ / (rate(spec, size) * np.minimum(1.0, 3 * blocks / spec.cores)) + apart
    seconds: Column = np.maximum(served, moving)
    return seconds


def arithmetic(spec: DeviceSpec, stage: Stage, blocks: Any, threads: Any, share: Any, enough: int = 512) -> Column:
    """Seconds. `share`: of a multiprocessor's peak that its threads reach by themselves; the last wave of blocks is as
    long as a full one, and fewer threads than are `enough` hide no latency."""
    flops = float(stage.compute.points * max(stage.light + 8 * stage.heavy, 1))
    waves = np.ceil(blocks / spec.cores) * spec.cores / blocks
    busy = np.minimum(1.0, threads * np.maximum(blocks / spec.cores, 1.0) / enough)
    seconds: Column = flops / (spec.peak("f32", spec.cores) * share * np.maximum(busy, 0.05)) * waves
    return seconds


def together(*terms: Any) -> Column:
    """Terms that overlap: the longest, and a tenth of the others."""
    longest: Column = np.maximum.reduce(np.broadcast_arrays(*terms)).astype(float)
    rest: Column = np.add.reduce(np.broadcast_arrays(*terms)) - longest
    return longest + 0.1 * rest


def waiting(spec: DeviceSpec, work: Any, ahead: Any) -> Any:
    """Seconds of one step of a product's reduction in which all resident blocks of a multiprocessor do `work` seconds
    of arithmetic: what of the memory's latency no arithmetic hides comes on top. `ahead`: steps whose copies are under
    way meanwhile; with none, the other blocks hide about half of it."""
    late = latency(spec)
    return work + np.where(ahead > 0, np.maximum(0.0, late / np.maximum(ahead, 1) - work), 0.5 * late)
