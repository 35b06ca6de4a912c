"""Gradients of decorated functions: the same as torch's for the same function, or an error that names the reason."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

torch = pytest.importorskip("torch", reason="torch is not installed")
import autotune  # noqa: E402
from autotune import decorator, ops  # noqa: E402
from autotune.ir.errors import SignatureError  # noqa: E402
from autotune.plugins.torch import FallbackWarning  # noqa: E402

F: Any = torch.nn.functional
M, W, IMAGE = (4, 5), (5, 6), (1, 3, 8, 8)


@pytest.fixture(autouse=True)
def untuned(tmp_path: Path) -> Iterator[None]:
    with autotune.context(tune="off", threads=1, cache_dir=str(tmp_path)):
        yield


def _softmax(x: Any) -> Any:
    e = np.exp(x - x.max(axis=-1, keepdims=True))
    return e / e.sum(axis=-1, keepdims=True)


Case = tuple[Callable[..., Any], Callable[..., Any], list[tuple[int, ...]]]
CASES: dict[str, Case] = {
    "dense": (lambda x, w, b: np.maximum(x @ w + b, 0), lambda x, w, b: F.relu(x @ w + b), [M, W, (6,)]),
    "softmax": (_softmax, lambda x: x.softmax(-1), [M]),
    "tanh": (lambda x: np.tanh(x * 100), lambda x: torch.tanh(x * 100), [M]),
    "sqrt of a sum": (lambda x: np.sqrt((x * x).sum(axis=0)), lambda x: (x * x).sum(0).sqrt(), [M]),
    "einsum": (lambda a, b: np.einsum("ik,jk->ij", a, b), lambda a, b: a @ b.t(), [M, (3, 5)]),
    "where": (lambda x: np.where(x > 0, x, 0.1 * x), lambda x: F.leaky_relu(x, 0.1), [M]),
    "views": (lambda x: x.T[1:].reshape(-1) * 2, lambda x: x.t()[1:].reshape(-1) * 2, [M]),
    "concatenate": (lambda a, b: np.concatenate([a, b * 2], 1), lambda a, b: torch.cat([a, b * 2], 1), [M, (4, 3)]),
    "pad": (lambda x: np.pad(x, ((1, 0), (0, 2))) * 2, lambda x: F.pad(x, (0, 2, 1, 0)) * 2, [M]),
    "var": (lambda x: x.var(axis=1, ddof=1), lambda x: x.var(1), [M]),
    "maximum": (lambda x: x.max(axis=1), lambda x: x.amax(1), [M]),
    "another type": (lambda x: x.astype(np.float64) * 2, lambda x: x.double() * 2, [M]),
    "a constant": (lambda x: x * np.float32(3) + 1, lambda x: x * 3 + 1, [M]),
    "gelu": (ops.gelu, F.gelu, [M]), "silu": (ops.silu, F.silu, [M]),
    "layer norm": (ops.layer_norm, lambda x, w, b: F.layer_norm(x, (5,), w, b), [M, (5,), (5,)]),
    "attention": (ops.attention, F.scaled_dot_product_attention, [(1, 2, 4, 8)] * 3),
    "conv2d": (ops.conv2d, F.conv2d, [IMAGE, (4, 3, 3, 3)]),
}  # fmt: skip


def inputs(shapes: list[tuple[int, ...]]) -> list[Any]:
    return [torch.randn(shape, requires_grad=True) for shape in shapes]


def close(found: Any, expected: Any) -> None:
    torch.testing.assert_close(found, expected, rtol=1e-4, atol=1e-4)


@pytest.mark.filterwarnings("ignore::autotune.plugins.torch.FallbackWarning")
@pytest.mark.parametrize(("ours", "theirs", "shapes"), CASES.values(), ids=CASES)
def test_as_torch(ours: Any, theirs: Any, shapes: list[tuple[int, ...]]) -> None:
    kernel = autotune.kernel(ours)
    for _ in range(2):  # compiled, and found
        x = inputs(shapes)
        found, expected = kernel(*x), theirs(*x)
        close(found, expected)
        weights = torch.randn_like(expected)
        for a, b in zip(*(torch.autograd.grad((y * weights).sum(), x) for y in (found, expected)), strict=True):
            close(a, b)
        close(torch.autograd.grad(kernel(*x).sum(), x)[0], torch.autograd.grad(theirs(*x).sum(), x)[0])


def test_gradients_are_kernels() -> None:
    from autotune.plugins.torch.graphs import MADE

    graphs: list[Any] = []
    token = MADE.set(graphs)
    try:
        x, w = inputs([M, W])
        autotune.kernel(lambda x, w: np.tanh(x @ w))(x, w).sum().backward()
    finally:
        MADE.reset(token)
    assert graphs and "mm.default" in graphs[0].kernels[0].operations


def test_several_results_static_arguments_and_nests() -> None:
    @autotune.kernel
    def both(pair: Any, low: float = 0.0, *, scale: float) -> Any:
        a, b = pair
        return {"sum": np.maximum(a + b, low) * scale, "positive": a > 0}, a * b

    a, b = inputs([M, M])
    for low, scale in ((0.0, 2.0), (0.5, 2.0), (0.0, 3.0)):
        named, product = both((a, b), low, scale=scale)
        assert not named["positive"].requires_grad and (named["positive"] == (a > 0)).all()
        expected = (a + b).clamp(min=low) * scale
        for want in ([named["sum"]], [product], [named["sum"], product]):
            total = sum(y.square().sum() for y in want)
            same = sum(y.square().sum() for y in ([expected] if want[0] is named["sum"] else []))
            same = same + ((a * b).square().sum() if want[-1] is product else 0)
            for found, by_torch in zip(torch.autograd.grad(total, (a, b), retain_graph=True),
                                       torch.autograd.grad(same, (a, b), retain_graph=True)):  # fmt: skip
                close(found, by_torch)


def test_only_what_is_asked_for_and_what_does_not_matter() -> None:
    a, b, c = torch.randn(M, requires_grad=True), torch.randn(M), torch.randn(M, requires_grad=True)
    autotune.kernel(lambda a, b, c: a * b)(a, b, c).sum().backward()
    close(a.grad, b)
    assert b.grad is None and c.grad is not None and not c.grad.any()
    with torch.no_grad():
        assert not autotune.kernel(lambda a: a * 2)(a).requires_grad


def test_strides_and_numpy_arrays_among_the_arguments() -> None:
    a = torch.randn(5, 4, requires_grad=True)
    b = np.arange(20, dtype=np.float32).reshape(4, 5)
    kernel = autotune.kernel(lambda a, b: (a * b).sum(axis=0))
    for n in (1, 7):
        (found,) = torch.autograd.grad(kernel(a.t(), b * n).sum(), a)
        close(found, torch.from_numpy(b.T * n))


def test_captured_arrays_are_read_each_time() -> None:
    weights = np.ones(5, np.float32)
    kernel = autotune.kernel(lambda x: np.tanh(x * weights))
    x = torch.randn(M, requires_grad=True)
    for n in (1.0, 3.0):
        weights[:] = n
        with pytest.warns(FallbackWarning, match="it captures arrays"):
            (found,) = torch.autograd.grad(kernel(x).sum(), x)
        close(found, torch.autograd.grad(torch.tanh(x * n).sum(), x)[0])


def test_a_function_is_trained_as_torch_trains_it() -> None:
    def losses(layer: Callable[..., Any]) -> list[float]:
        torch.manual_seed(1)
        x, y = torch.randn(16, 6), torch.randn(16, 3)
        w, b = (torch.nn.Parameter(torch.randn(s) * 0.3) for s in ((6, 3), (3,)))
        optimizer = torch.optim.SGD([w, b], lr=0.1)
        found = []
        for _ in range(30):
            optimizer.zero_grad()
            loss = (layer(x, w, b) - y).square().mean()
            loss.backward()
            optimizer.step()
            found.append(float(loss.detach()))
        return found

    ours = losses(autotune.kernel(lambda x, w, b: np.tanh(x @ w + b)))
    assert ours[-1] < ours[0]
    np.testing.assert_allclose(ours, losses(lambda x, w, b: torch.tanh(x @ w + b)), rtol=1e-4)


def test_what_is_refused_says_so(monkeypatch: pytest.MonkeyPatch) -> None:
    x = torch.randn(M, requires_grad=True)
    with pytest.raises(SignatureError, match="out= takes no part in gradients"):
        autotune.kernel(lambda x: x * 2)(x, out=torch.empty(M))
    with pytest.raises(SignatureError, match=r"np.add.accumulate has no gradient here"):
        autotune.kernel(lambda x: np.add.accumulate(x, axis=0))(x).sum().backward()
    with pytest.raises(SignatureError, match="no second derivative"):
        torch.autograd.grad(autotune.kernel(lambda x: x**3)(x).sum(), x, create_graph=True)
    monkeypatch.setattr(decorator, "GRADIENTS", [])
    with pytest.raises(SignatureError, match="import autotune.plugins.torch"):
        autotune.kernel(lambda x: x * 2)(x)
