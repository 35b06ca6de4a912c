"""Kernels that read an input in panels: which do, and that they compute what they did before."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

from autotune import ops
from autotune.ir.panels import Panels, paneled
from autotune.ir.program import TensorProgram
from autotune.options import Options
from autotune.session import Session
from autotune.tracer import trace
from tests.evaluation import evaluate
from tests.kernels import spec

rng = np.random.default_rng(0)
W = 8


def program(fn: Callable[..., Any], *shapes: tuple[int, ...]) -> TensorProgram:
    return trace(fn, [spec(*shape) for shape in shapes], {}).program


def cut(array: Any, panels: Panels) -> Any:
    """An array in panels, by its definition."""
    shape = array.shape[: panels.dim] + (-1, panels.width) + array.shape[panels.dim + 1 :]
    return np.ascontiguousarray(np.moveaxis(array.reshape(shape), (panels.dim, panels.dim + 1), (0, -1)))


SERVED: dict[str, tuple[Callable[..., Any], list[tuple[int, ...]], int]] = {
    "rows of weights": (lambda x, w: x @ w.T, [(16, 6), (24, 6)], 0),
    "columns of weights": (lambda x, w: x @ w, [(16, 6), (6, 24)], 1),
    "with an epilogue": (lambda x, w, b, r: ops.gelu(x @ w.T + b) + r, [(16, 6), (24, 6), (24,), (16, 24)], 0),
    "a batch": (lambda x, w: x @ w.T, [(2, 16, 6), (24, 6)], 0),
    "two axes summed": (lambda x, w: np.einsum("iab,oab->io", x, w), [(16, 3, 4), (24, 3, 4)], 0),
}  # fmt: skip


@pytest.mark.parametrize(("fn", "shapes", "dim"), SERVED.values(), ids=SERVED)
def test_panels_compute_the_same(fn: Callable[..., Any], shapes: list[tuple[int, ...]], dim: int) -> None:
    before = program(fn, *shapes)
    source = before.inputs[1].name
    after, (panels,) = paneled(before, {source: W})
    assert (panels.source, panels.dim, panels.width) == (source, dim, W)
    assert [b.name for b in after.inputs] == [*(b.name for b in before.inputs if b.name != source), panels.name]
    arrays = {b.name: rng.standard_normal(b.shape).astype(np.float32) for b in before.inputs}
    made = cut(arrays[source], panels)
    assert after.inputs[-1].shape == made.shape
    expected = evaluate(before, [*arrays.values()])
    found = evaluate(after, [*(arrays[b.name] for b in after.inputs[:-1]), made])
    for a, b in zip(expected, found, strict=True):
        np.testing.assert_allclose(np.ravel(a), np.ravel(b), rtol=1e-5, atol=1e-5)


LEFT: dict[str, tuple[Callable[..., Any], list[tuple[int, ...]]]] = {
    "few results share an element": (lambda x, w: x @ w.T, [(4, 6), (24, 6)]),
    "panels do not fit": (lambda x, w: x @ w.T, [(16, 6), (20, 6)]),
    "it is read twice": (lambda x, w: x @ w.T + w.sum(1), [(16, 6), (24, 6)]),
    "its rows are summed afterwards": (lambda x, w: ops.softmax(x @ w.T), [(16, 6), (24, 6)]),
    "several sums": (lambda x, w, v: (x @ w.T, x @ v.T), [(16, 6), (24, 6), (24, 6)]),
    "places are data": (lambda x, w: np.take(w, x.astype(np.int32), axis=0, mode="clip"), [(16,), (24, 6)]),
    "nothing is summed": (lambda x, w: x + w, [(16, 24), (16, 24)]),
    "its last axis is another one's": (lambda x, w: (x @ w.T).T.copy(), [(16, 6), (24, 6)]),
}  # fmt: skip


@pytest.mark.parametrize(("fn", "shapes"), LEFT.values(), ids=LEFT)
def test_what_panels_do_not_serve_stays(fn: Callable[..., Any], shapes: list[tuple[int, ...]]) -> None:
    before = program(fn, *shapes)
    assert paneled(before, {before.inputs[1].name: W}) == (before, ())


def test_a_plan_says_so_and_only_of_constants(tmp_path: Any) -> None:
    made = program(lambda x, w, v: (x @ w.T) @ v.T, (32, 48), (64, 48), (64, 64))
    options = Options(threads=1, tune="off", cache_dir=str(tmp_path))
    session = Session()
    name = made.inputs[1].name
    plain, kept = session.prepare(made, options), session.prepare(made, options, constants=[name])
    assert plain.code[2] == () and "panels" not in plain.explain()
    width = 2 * kept.workshop.spec.lanes("f32")
    assert kept.code[2] == ((1, 0, width),) and f"{name}: kept in panels of {width}" in kept.explain()
    again = session.prepare(made, options, constants=[name])
    assert again.code[2] == kept.code[2] and "kernels" not in vars(again)
