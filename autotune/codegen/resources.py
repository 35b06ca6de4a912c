"""What a compiled kernel uses of a multiprocessor, as its compiler reports it."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Resources:
    """Of one kernel: `registers` a thread, `spilled` bytes a thread that went to memory instead, `shared` bytes a
    block."""

    registers: int
    spilled: int
    shared: int
