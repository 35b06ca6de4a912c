"""Chains with contractions inside: which programs become one, and that every point of the sketch computes them."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

from autotune import ops
from autotune.devices import device
from autotune.ir.collapse import normal_form
from autotune.ir.errors import AutotuneError
from autotune.ir.partition import partition
from autotune.search.ranking import Ranking
from autotune.tracer import trace
from tests.kernels import HERE, Machine, problem, softmax, spec

Array = Any


def plain(q: Array, k: Array, v: Array) -> Array:
    return softmax(q @ np.swapaxes(k, -1, -2) * np.float32(0.125)) @ v


def masked(q: Array, k: Array, v: Array) -> Array:
    scores = q @ np.swapaxes(k, -1, -2)
    at = np.arange(scores.shape[-2])[:, None] >= np.arange(scores.shape[-1])
    return softmax(np.where(at, scores, np.float32(-1e30))) @ v


def parted(q: Array, k: Array, v: Array) -> Array:
    """Columns of three tables in four groups, each a problem of its own; the sum divides last."""
    q, k, v = (t.reshape(t.shape[0], 4, -1).transpose(1, 0, 2) for t in (q, k, v))
    e = q @ np.swapaxes(k, -1, -2)
    e = np.exp(e - e.max(axis=-1, keepdims=True))
    return (e @ v) / e.sum(axis=-1, keepdims=True)


def beside(x: Array, u: Array, w: Array) -> tuple[Array, Array]:
    return np.maximum(x @ u, 0), x @ w


def layers(x: Array, u: Array, w: Array) -> Array:
    return np.maximum(x @ u, 0) @ w


CHAINS: dict[str, tuple[Callable[..., Any], tuple[tuple[int, ...], ...]]] = {
    "attention": (plain, ((3, 37, 20), (3, 53, 20), (3, 53, 33))), "one head": (plain, ((40, 16), (64, 16), (64, 16))),
    "masked": (masked, ((2, 33, 16), (2, 33, 16), (2, 33, 24))), "layers": (layers, ((45, 19), (19, 70), (70, 35))),
    "groups of columns": (parted, ((33, 64), (40, 64), (40, 48))), "siblings": (beside, ((45, 19), (19, 70), (19, 35))),
    "few rows": (plain, ((2, 3, 16), (2, 40, 16), (2, 40, 16))),
}  # fmt: skip


def causal(q: Array, k: Array, v: Array) -> Array:
    return ops.attention(q, k, v, causal=True)


@pytest.mark.parametrize("rows, keys, threads", [(128, 128, 1), (128, 192, 2), (192, 100, 1), (70, 135, 1)])
def test_rows_that_end_early(rows: int, keys: int, threads: int) -> None:
    """Points whose loops stop at the diagonal: blocks of rows compute the part that they need, and no more."""
    shapes = ((1, 2, n, 16) for n in (rows, keys, keys))
    program = normal_form(trace(causal, [spec(*shape) for shape in shapes], {}).program)
    ranking, seen = Ranking(program, device("cpu"), threads), 0
    clip = ranking.priced[0].columns["clip"]
    for row in map(int, np.random.default_rng(0).permutation(np.flatnonzero(clip))[:6]):
        candidate = ranking.candidate(0, row, "test")
        try:
            wrong = problem(program, candidate.schedule, threads, thorough=False)
        except AutotuneError:
            continue  # tiles that do not fit the ends are refused
        assert wrong == "", candidate.point
        seen += 1
    assert seen or rows % 64 or keys % 64 or keys < rows


def test_the_diagonal_saves_half() -> None:
    from autotune.codegen import build
    from autotune.ir.counts import count_nest

    program = normal_form(trace(causal, [spec(1, 2, 1024, 16)] * 3, {}).program)
    candidate = next(Ranking(program, device("cpu"), 1).best())
    assert candidate.point["clip"] == 1
    nest = build.plan(program, candidate.schedule, device("cpu"))
    assert count_nest(nest).flops < 0.6 * program.flops


@pytest.mark.parametrize("threads", [1, 2])
@pytest.mark.parametrize("name", CHAINS)
def test_points_of_the_sketch_compute_the_same(name: str, threads: int) -> None:
    fn, shapes = CHAINS[name]
    program = normal_form(trace(fn, [spec(*shape) for shape in shapes], {}).program)
    ranking, rng = Ranking(program, device("cpu"), threads), np.random.default_rng(1)
    assert (ranking.sketches[0].name == "chain") == (name != "few rows")
    seconds = ranking.priced[0].seconds
    for row in (int(np.argmin(seconds)), *map(int, rng.permutation(len(seconds))[:3])):
        candidate = ranking.candidate(0, row, "test")
        assert problem(program, candidate.schedule, threads) == "", candidate.point


def kernels_of(*shapes: tuple[int, ...]) -> list[list[str]]:
    program = trace(plain, [spec(*shape) for shape in shapes], {}).program
    return [[c.name for c in k.computes] for k in partition(program, True).kernels]


def test_a_chain_is_one_kernel_where_what_is_between_is_larger_than_what_is_outside() -> None:
    assert len(kernels_of((8, 256, 32), (8, 256, 32), (8, 256, 32))) == 1
    assert len(kernels_of((8, 1, 64), (8, 256, 64), (8, 256, 64))) > 1, "keys and values are all there is to read"
    program = trace(plain, [spec(8, 256, 32)] * 3, {}).program
    assert len(partition(program).kernels) > 1, "only where it is asked for"
    narrow = trace(layers, [spec(64, 128), spec(128, 128), spec(128, 64)], {}).program
    assert len(partition(narrow, True).kernels) == 2


def test_the_scores_of_all_rows_are_never_an_array() -> None:
    (kernel,) = partition(trace(plain, [spec(4, 512, 32)] * 3, {}).program, True).kernels
    program = normal_form(kernel)
    candidate = next(Ranking(program, device("cpu"), 1).best())
    from autotune.codegen import build

    nest = build.plan(program, candidate.schedule, device("cpu"))
    assert max(b.size for b in nest.all_buffers.values() if b.scope not in ("input", "output")) < 512 * 512 // 4


def test_threads_share_rows_where_there_are_few_heads() -> None:
    """Three heads are no work for two threads; blocks of their rows are."""
    rng = np.random.default_rng(0)
    arrays = [rng.standard_normal((3, 100, 16)).astype(np.float32) for _ in range(3)]
    plain: Any = lambda q, k, v: ops.attention(q[None], k[None], v[None])[0]  # noqa: E731
    (kernel,) = partition(trace(plain, [spec(*a.shape) for a in arrays], {}).program, True).kernels
    kernel = normal_form(kernel)
    ranking = Ranking(kernel, HERE, 2)
    assert next(ranking.best()).point["across"] == 1 and "across" not in Ranking(kernel, HERE, 1).priced[0].columns
    want = plain(*(a.astype(np.float64) for a in arrays))
    for across in (0, 1):
        row = next(n for n, at in enumerate(ranking.priced[0].columns["across"]) if at == across)
        made = Machine(kernel, ranking.candidate(0, row, "test").schedule, 2)(arrays)[0]
        np.testing.assert_allclose(made, want, rtol=1e-4, atol=1e-5)
    eight = partition(trace(plain, [spec(8, 100, 16)] * 3, {}).program, True).kernels[0]
    assert next(Ranking(normal_form(eight), HERE, 2).best()).point["across"] == 0
