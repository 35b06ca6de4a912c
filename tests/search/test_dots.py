"""Sums of products of narrow numbers: which points take dot instructions, that they hold, and what misuse is."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from autotune.ir.dots import DOTS, misuse
from autotune.ir.nest import Block, Loop, Nest, Reduce, walk
from autotune.ir.program import TensorProgram
from autotune.ir.verify import verify
from autotune.search.ranking import Candidate, Ranking
from tests.kernels import HERE, Machine, kernels, problem, spec

WIDE = np.int32


def widened(x: Any, y: Any) -> Any:
    return x.astype(WIDE) @ y.astype(WIDE)


CASES: dict[str, tuple[Callable[..., Any], tuple[str, ...], str]] = {
    "product": (lambda x, y: x @ y, ("bf16", "bf16"), "ac cb"),
    "turned": (lambda x, y: x @ y.T, ("bf16", "bf16"), "ac bc"),
    "batch": (lambda x, y: x @ y, ("bf16", "bf16"), "2ac 2cb"),
    "epilogue": (lambda x, y, v: np.maximum(x @ y + v, 0), ("bf16", "bf16", "f32"), "ac cb b"),
    "bytes": (widened, ("i8", "i8"), "ac cb"), "bytes turned": (lambda x, y: widened(x, y.T), ("u8", "i8"), "ac bc"),
    "words": (widened, ("i16", "i8"), "ac cb"),
}  # fmt: skip


def programs(case: str, sizes: tuple[int, int, int]) -> list[TensorProgram]:
    fn, dtypes, shapes = CASES[case]
    extents = dict(zip("abc", sizes), **{"2": 2})
    return kernels(
        fn, *(spec(*map(extents.__getitem__, shape), dtype=d) for d, shape in zip(dtypes, shapes.split(), strict=True))
    )


def grouped(program: TensorProgram, count: int, seed: int) -> list[Candidate]:
    """Random points with dot instructions."""
    found, rng = [], np.random.default_rng(seed)
    ranking = Ranking(program, HERE, 1)
    for n, priced in enumerate(ranking.priced):
        rows = np.flatnonzero(priced.columns.get("dot", np.zeros(len(priced.seconds))))
        found += [ranking.candidate(n, int(row), "random") for row in rng.permutation(rows)[:count]]
    return found


@pytest.mark.skipif(not HERE.dots, reason="this processor has no dot instructions of bf16 and of 16-bit integers")
@pytest.mark.parametrize("case", CASES)
def test_points_hold(case: str) -> None:
    for seed, sizes in enumerate(((9, 40, 64), (17, 77, 130), (3, 16, 20), (40, 5, 34))):
        for program in programs(case, sizes):
            found = grouped(program, 4, seed)
            assert found, sizes
            for candidate in found:
                wrong = problem(program, candidate.schedule, 1, HERE, thorough=False)
                assert not wrong, f"{wrong}\n{sizes} {candidate.point}\n{candidate.schedule}"


@pytest.mark.skipif(not HERE.dots, reason="this processor has no dot instructions of bf16 and of 16-bit integers")
def test_machine_code_has_them() -> None:
    from autotune.codegen import build

    for case, symbol in (("product", "dpbf16ps.512"), ("bytes turned", "vpdpwssd.512")):
        (program,) = programs(case, (32, 64, 64))
        kernel = build.build(program, grouped(program, 1, 0)[0].schedule, HERE, 1)
        assert symbol in kernel.source.text


def test_odd_sums_and_other_types_have_none() -> None:
    """An odd number of products, f16, and numbers that do not fit into the instruction's."""
    unfit = [(programs("product", (8, 16, 33)))[0]]
    unfit += kernels(lambda x, y: x @ y, spec(8, 32, dtype="f16"), spec(32, 16, dtype="f16"))
    unfit += kernels(widened, spec(8, 32, dtype="i32"), spec(32, 16, dtype="i16"))
    for program in unfit:
        assert not grouped(program, 1, 0)


def test_the_largest_numbers_do_not_saturate() -> None:
    (program,) = programs("bytes", (8, 16, 512))
    x, y = np.full((8, 512), -128, np.int8), np.full((512, 16), -128, np.int8)
    for candidate in (grouped(program, 2, 0) or [next(Ranking(program, HERE, 1).best())]):
        assert (Machine(program, candidate.schedule)([x, y])[0] == 512 * 128 * 128).all()


def dot_nest() -> tuple[TensorProgram, Nest]:
    from tests.ir.test_steps import CASES as STEPS

    case = next(c for c in STEPS if c.name == "dot_product")
    from autotune.ir.lower import lower
    from autotune.ir.schedule import Schedule

    return case.program, Schedule((*case.before, case.step)).apply(lower(case.program))


def test_misuse() -> None:
    """What is changed of a right one is named, by the verifier too."""
    program, nest = dot_nest()
    loop, path = next((s, p) for s, p in walk(nest.body) if isinstance(s, Loop) and s.kind == "dot")
    leaf = loop.body[0]
    assert isinstance(leaf, Reduce) and not misuse(loop, path)
    wrong: list[tuple[Loop, tuple[Block, ...], str]] = [
        (replace(loop, instruction="fma"), path, "no dot instruction 'fma'"),
        (loop, path[:-1], "right inside a vector loop"),
        (replace(loop, extents=(loop.extents[0] * 2,)), path, "sums 2 products"),
        (replace(loop, body=(replace(leaf, combiner="max"),)), path, "results that have begun"),
        (replace(loop, body=(leaf, leaf)), path, "results that have begun"),
        (replace(loop, instruction="dpwssd"), path, "multiplies i16 by i16"),
    ]
    for changed, around, words in wrong:
        assert words in misuse(changed, around)
    assert set(DOTS) == {"dpbf16", "dpwssd"}
    text = [str(v) for v in verify(program, nest, replace(HERE.limits(), instructions=())).violations]
    assert any("the device has no instruction dpbf16" in v for v in text)
