"""Memory between kernels: what is alive at the same time never overlaps, and reuse never costs."""

from __future__ import annotations

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from autotune.ir.memory import LINE, Memory, Slot, memory, place
from autotune.ir.partition import partition
from autotune.tracer import trace
from tests.kernels import spec

SLOTS = st.lists(st.tuples(st.integers(1, 40), st.integers(0, 9), st.integers(0, 5)), max_size=14)


@given(SLOTS)
def test_what_is_alive_at_once_lies_apart(rows: list[tuple[int, int, int]]) -> None:
    made = place([Slot(f"t{n}", 0, LINE * size, a, a + more) for n, (size, a, more) in enumerate(rows)])
    assert len(made.offsets) == len(rows) and made.peak <= made.apart
    for n, a in enumerate(made.slots):
        assert a.offset % LINE == 0
        for b in made.slots[n + 1 :]:
            assert not a.meets(b) or a.offset + a.bytes <= b.offset or b.offset + b.bytes <= a.offset
    alive = [sum(s.bytes for s in made.slots if s.first <= k <= s.last) for k in range(15)]
    assert made.peak >= max(alive)


def test_a_row_of_products_needs_the_memory_of_two() -> None:
    def fn(x: np.ndarray, u: np.ndarray) -> np.ndarray:
        for _ in range(6):
            x = x @ u
        return x

    program = trace(fn, (spec(16, 16), spec(16, 16)), {}).program
    made = memory(program, partition(program).kernels)
    assert [(s.first, s.last) for s in made.slots] == [(n, n + 1) for n in range(5)]
    assert made.peak == 2 * made.slots[0].bytes and made.apart == 5 * made.slots[0].bytes
    assert made.slots[0].bytes >= 16 * 16 * 4 + LINE


def test_nothing_between_kernels_takes_nothing() -> None:
    program = trace(lambda x, y: (x @ x, y.sum(axis=0)), (spec(5, 5), spec(4, 9)), {}).program
    made = memory(program, partition(program).kernels)
    assert made == Memory() and made.peak == 0
