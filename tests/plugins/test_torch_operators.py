"""Kernels as operators of torch: alone, in a compiled model, with a gradient, and what cannot be an operator."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

import autotune
from autotune.ir.errors import UsageError

torch = pytest.importorskip("torch", reason="torch is not installed")
from autotune.plugins.torch import custom_op  # noqa: E402

_np: Any = np


def dense(x: Any, w: Any, b: Any, low: float = 0.0) -> Any:
    return _np.maximum(x @ w + b, low)


def both(x: Any) -> Any:
    return x + 1, x.sum(axis=1)


DENSE: Any = custom_op("autotune_tests::dense", autotune.kernel(dense, tune="off", threads=1))
BOTH: Any = custom_op("autotune_tests::both", autotune.kernel(both, tune="off", threads=1), results=2)


def inputs() -> list[Any]:
    return [torch.randn(3, 5), torch.randn(5, 4), torch.randn(4)]


def expected(x: Any, w: Any, b: Any, low: float = 0.0) -> Any:
    """What `dense` is, by torch."""
    return torch.clamp(x @ w + b, min=low)


def test_alone() -> None:
    given = inputs()
    torch.testing.assert_close(DENSE(*given), expected(*given))
    x, w, b = given
    torch.testing.assert_close(DENSE(x, w, b, low=0.5), expected(x, w, b, low=0.5))
    first, second = BOTH(given[0])
    torch.testing.assert_close(first, given[0] + 1)
    torch.testing.assert_close(second, given[0].sum(1))


def test_torchs_own_checks() -> None:
    torch.library.opcheck(DENSE, tuple(inputs()))
    torch.library.opcheck(BOTH, (torch.randn(3, 5),))


@pytest.mark.parametrize("backend", ["autotune", "aot_eager"])
def test_in_a_compiled_model(backend: str) -> None:
    options = {"options": {"tune": "off", "threads": 1}} if backend == "autotune" else {}

    def model(x: Any, w: Any, b: Any) -> Any:
        return DENSE(x * 2, w, b).sum(1) + 1

    compiled = torch.compile(model, backend=backend, fullgraph=True, **options)
    given = inputs()
    x, w, b = given
    torch.testing.assert_close(compiled(*given), expected(x * 2, w, b).sum(1) + 1)


def test_with_a_gradient() -> None:
    given = [x.requires_grad_() for x in inputs()]

    def backward(ctx: Any, grad: Any) -> Any:
        x, w, b = ctx.saved_tensors
        grad = grad * (x @ w + b > 0)
        return grad @ w.t(), x.t() @ grad, grad.sum(0), None

    DENSE.register_autograd(backward, setup_context=lambda ctx, inputs, output: ctx.save_for_backward(*inputs[:3]))
    found = torch.autograd.grad(DENSE(*given).square().sum(), given)
    torch.testing.assert_close(found, torch.autograd.grad(expected(*given).square().sum(), given))


def test_what_cannot_be_an_operator() -> None:
    with pytest.raises(UsageError, match="neither a tensor nor has a default"):
        custom_op("autotune_tests::keyword", lambda *x: x)
    with pytest.raises(UsageError, match="no number, truth value or string"):
        custom_op("autotune_tests::default", lambda x, axes=(0, 1): x)
