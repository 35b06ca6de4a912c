"""Limits: what a nest may ask of a machine. A device description produces them; the verifier holds nests to them."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Limits:
    """`scratch_bytes`: live scratch memory of one thread; `bodies`: statements that evaluate one stage (its main and
    tail copies); `instances`: statements after unrolling, which is what compile time grows with. Of a device with
    blocks: `threads` of one block, its `shared_bytes`, the matrix `instructions` that it has, how many threads, a
    `warp`, may read each other's registers, and blocks of a `grid` along x, y, z."""

    vector_bits: int = 512
    vector_registers: int = 32
    scratch_bytes: int = 64 << 20
    bodies: int = 16
    instances: int = 8192
    threads: int = 1024
    shared_bytes: int = 48 << 10
    instructions: tuple[str, ...] = ()
    warp: int = 1
    grid: tuple[int, int, int] = (2**31 - 1,) * 3
