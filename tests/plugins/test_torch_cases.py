"""Every case of `torch_cases`, forward and backward, against torch: results, strides, gradients, fallbacks."""

from __future__ import annotations

import re
import warnings
from typing import Any

import pytest

torch = pytest.importorskip("torch", reason="torch is not installed")
from autotune.plugins.torch import FallbackWarning, backend  # noqa: E402
from tests.plugins.conftest import UNTUNED  # noqa: E402

from .torch_cases import CASES, Case, tensors  # noqa: E402

_POOL = {"max_pool2d_with_indices.default", "max_pool2d_with_indices_backward.default"}
# What torch computes, by case. Everything else is ours, forward and backward.
FALLBACKS = {
    "slice": {"slice_scatter.default"}, "diagonal": {"diagonal_scatter.default"},
    "embedding": {"embedding_dense_backward.default"}, "index": {"index_put.default"},
    "index two": {"index_put.default"}, "index_select": {"index_put.default"}, "gather": {"scatter_add.default"},
    "nearest": {"index_put.default"},
    "conv_transpose2d": {"convolution_backward.default"}, "max_pool2d": _POOL, "max_pool2d padded": _POOL,
    "avg_pool2d": {"avg_pool2d_backward.default"}, "avg_pool2d uncounted": {"avg_pool2d_backward.default"},
    "adaptive pool 2": {"_adaptive_avg_pool2d_backward.default"},
}  # fmt: skip


def test_there_are_enough_cases_and_each_name_is_one() -> None:
    names = [name for name, _, _ in CASES]
    assert len(set(names)) == len(names) >= 100
    assert set(FALLBACKS) <= set(names)


@pytest.mark.parametrize("case", CASES, ids=[name for name, _, _ in CASES])
def test_as_torch_computes_it(case: Case) -> None:
    name, function, shapes = case
    compiled = torch.compile(function, backend=backend, options=UNTUNED, fullgraph=True, dynamic=False)
    with warnings.catch_warnings(record=True) as seen:
        warnings.simplefilter("always")
        found, found_gradients = _run(compiled, shapes)
    expected, gradients = _run(function, shapes)
    assert len(found) == len(expected) and len(found_gradients) == len(gradients)
    for ours, torchs in zip(found, expected):
        torch.testing.assert_close(ours, torchs, rtol=1e-4, atol=1e-5, equal_nan=True)
        assert ours.stride() == torchs.stride()
    for ours, torchs in zip(found_gradients, gradients):
        torch.testing.assert_close(ours, torchs, rtol=1e-3, atol=1e-4, equal_nan=True)
    texts = [str(w.message) for w in seen if issubclass(w.category, FallbackWarning)]
    named = {n for text in texts for n in re.findall(r"(?:runs |, )(?:\d+ x )?([\w:]+\.\w+) \(", text)}
    assert named == FALLBACKS.get(name, set()), texts


def _run(function: Any, shapes: tuple[Any, ...]) -> tuple[list[Any], list[Any]]:
    """Results, and the gradients of all inputs (zeros for those that do not matter) for random ones of the results."""
    inputs = [x.requires_grad_(x.is_floating_point()) for x in tensors(shapes)]
    result = function(*inputs)
    results = [*result] if isinstance(result, (tuple, list)) else [result]
    leaves = [x for x in inputs if x.requires_grad]
    ends = [y for y in results if y.requires_grad]
    if not ends:
        return results, []
    generator = torch.Generator().manual_seed(1)
    given = [torch.randn(y.shape, generator=generator, dtype=y.dtype) for y in ends]
    found = torch.autograd.grad(ends, leaves, given, allow_unused=True)
    return [y.detach() for y in results], [torch.zeros_like(x) if g is None else g for x, g in zip(leaves, found)]
