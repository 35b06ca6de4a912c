"""Scheduled nests that tests of the verifier share: small, and with every structure that schedules produce."""

from __future__ import annotations

from functools import cache

from autotune.ir.lower import lower
from autotune.ir.nest import Nest
from autotune.ir.program import TensorProgram
from autotune.ir.steps import (
    ComputeAt,
    Fuse,
    Pack,
    Parallel,
    Prefetch,
    RegisterTile,
    Reorder,
    Split,
    Step,
    Unroll,
    Vectorize,
)

from .programs import biased, chained, normalised, product, row_sum, shifted, transposed, window


def blocked(stage: str, nc: int, kc: int, mc: int, mr: int, nr: int, lanes: int) -> tuple[Step, ...]:
    """Cache blocks, a packed operand, register tiles with tails, vectors, prefetch."""
    pack = f"{stage}.load1"
    return (
        Split(stage, "j", nc), Split(stage, "k", kc), Split(stage, "i", mc),
        Reorder(stage, ("j.0", "k.0", "i.0", "j.1", "i.1", "k.1")),
        Pack(stage, 1, "k.0", ((1, nr),)), RegisterTile(stage, (("i.1", mr), ("j.1", nr))),
        *lanes_of(stage, "j.1.1", lanes), Unroll(stage, "j.1.1.0"), Unroll(stage, "i.1.1"),
        Split(pack, f"{pack}.b", nr), Vectorize(pack, f"{pack}.b.1", nr), Prefetch(stage),
    )  # fmt: skip


def lanes_of(stage: str, loop: str, lanes: int) -> tuple[Step, ...]:
    return Split(stage, loop, lanes), Vectorize(stage, f"{loop}.1", lanes)


_AT_ROW = (ComputeAt("t1", "t2", "i"), ComputeAt("t0", "t2", "i"))
SCHEDULES: dict[str, tuple[TensorProgram, tuple[Step, ...]]] = {
    "plain": (product(5, 6, 7), ()),
    "packed": (product(25, 39, 17), (*blocked("t0", 24, 8, 12, 4, 8, 4), Parallel("t0", "j.0"))),
    "prologue": (product(12, 24, 8, prologue=True), blocked("t0", 24, 8, 12, 4, 8, 4)),
    "registers": (biased(13, 15, 7), (
        Split("t0", "i", 8), RegisterTile("t0", (("i.1", 4), ("j", 8))), *lanes_of("t0", "j.1", 4),
        Unroll("t0", "j.1.0"), Unroll("t0", "i.1.1"), ComputeAt("t1", "t0"),
    )),
    "last block": (biased(12, 16, 17), (
        Split("t0", "k", 8), Split("t0", "i", 4), Reorder("t0", ("i.0", "k.0", "i.1", "j", "k.1")),
        RegisterTile("t0", (("i.1", 4), ("j", 8))), ComputeAt("t1", "t0", "i.0"),
        *lanes_of("t0", "j.1", 8), Unroll("t0", "i.1.1"), Unroll("t0", "j.1.0"),
    )),
    "rows": (normalised(6, 19), (
        *_AT_ROW, RegisterTile("t0", (("r", 8),)), RegisterTile("t1", (("k", 8),)), *lanes_of("t2", "j", 8),
        Vectorize("t0", "r.1", 8), Vectorize("t1", "k.1", 8), Parallel("t2", "i", 2),
    )),
    "row blocks": (normalised(6, 19), (
        Split("t0", "i", 4), Split("t1", "i", 4), Split("t2", "i", 4),
        ComputeAt("t1", "t2", "i.0"), ComputeAt("t0", "t2", "i.0"),
    )),
    "transposed": (transposed(13, 21), (
        Split("t0", "i", 8), Split("t0", "j", 8), Reorder("t0", ("i.0", "j.0", "i.1", "j.1")),
        Vectorize("t0", "j.1", 8), Vectorize("t0", "i.1", 8),
    )),
    "chain": (chained(37), (ComputeAt("t0", "t1", "i"), Split("t1", "i", 8), Parallel("t1", "i.0"))),
    "two nests": (chained(37), (*lanes_of("t0", "i", 8), *lanes_of("t1", "i", 8), Parallel("t0", "i.0", 2))),
    "fused": (shifted(7, 9), (Fuse("t0", "i", "j"), *lanes_of("t0", "i_j", 8), Parallel("t0", "i_j.0"))),
    "fused blocks": (product(10, 20, 3), (
        Split("t0", "i", 4), Split("t0", "j", 8), Reorder("t0", ("i.0", "j.0", "i.1", "k", "j.1")),
        Fuse("t0", "i.0", "j.0"), Parallel("t0", "i.0_j.0", 1), Vectorize("t0", "j.1", 8),
    )),
    "window": (window(21, 3), (Reorder("t0", ("k", "i")), *lanes_of("t0", "i", 8))),
    "sums": (row_sum(5, 21), (
        RegisterTile("t0", (("i", 2), ("k", 4))), Vectorize("t0", "k.1", 4), Unroll("t0", "i.1"),
    )),
}  # fmt: skip


@cache
def scheduled(name: str) -> tuple[TensorProgram, Nest]:
    """The program, and its nest after the schedule."""
    program, steps = SCHEDULES[name]
    nest = lower(program)
    for step in steps:
        nest = step.apply(nest)
    return program, nest
