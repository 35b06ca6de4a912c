"""Small networks of the examples: results beside float64, nothing left to torch, and training as torch trains."""

from __future__ import annotations

import copy
import sys
import warnings
from collections.abc import Callable
from importlib import import_module
from pathlib import Path
from typing import Any

import pytest

torch = pytest.importorskip("torch", reason="torch is not installed")
from autotune.plugins.torch import FallbackWarning, backend, coverage  # noqa: E402
from tests.plugins.conftest import UNTUNED  # noqa: E402

nn: Any = torch.nn


@pytest.fixture
def examples(monkeypatch: pytest.MonkeyPatch) -> Callable[[str], Any]:
    monkeypatch.setattr(sys, "path", [str(Path(__file__).parents[2] / "examples"), *sys.path])
    return import_module


def images(n: int = 4) -> Any:
    return torch.randn(n, 3, 16, 16)


def residual(e: Any) -> Any:
    body = nn.Sequential(e.normed(8, 16, 3, 2, act=nn.ReLU()), e.normed(16, 16, 3))
    first = (e.normed(3, 8, 3, act=nn.ReLU()), nn.MaxPool2d(3, 2, 1))
    return nn.Sequential(*first, e.Residual(body, e.normed(8, 16, 1, 2), nn.ReLU()), e.Mean(), nn.Linear(16, 10))


def inverted(e: Any) -> Any:
    body = nn.Sequential(
        e.normed(8, 24, 1, act=nn.ReLU6()), e.normed(24, 24, 3, 1, 24, nn.ReLU6()), e.normed(24, 8, 1)
    )
    return nn.Sequential(e.normed(3, 8, 3, 2, act=nn.ReLU6()), e.Residual(body), e.Mean(), nn.Linear(8, 10))


NETWORKS: dict[str, Callable[[Any], Any]] = {
    "residual": residual, "inverted residual": inverted,
    "vision transformer": lambda e: e.VisionTransformer(16, 4, 32, 2, 2, 10),
}  # fmt: skip


@pytest.mark.parametrize("make", NETWORKS.values(), ids=NETWORKS)
def test_networks(examples: Callable[[str], Any], make: Any) -> None:
    model, x = make(examples("torch_networks")), images()
    model.train()(x)  # batch norms see something
    _same(model.eval(), x)


def test_encoder(examples: Callable[[str], Any]) -> None:
    e = examples("torch_encoder")
    model = e.Sentences(e.Encoder(32, 4, 64, 2)).eval()
    tokens, mask = torch.randint(0, 30522, (3, 12)), torch.ones(3, 12, dtype=torch.int64)
    mask[1, 5:] = 0
    _same(model, tokens, mask)


def _same(model: Any, *inputs: Any) -> None:
    """Within 1e-5 of float64, the same largest element, and all of it ours."""
    wide = copy.deepcopy(model).double()
    with torch.no_grad(), warnings.catch_warnings():
        warnings.simplefilter("error", FallbackWarning)
        found = torch.compile(model, backend=backend, options=UNTUNED, dynamic=False)(*inputs)
        exact = wide(*(x.double() if x.is_floating_point() else x for x in inputs))
        assert not [row for row in coverage(model, *inputs, options=UNTUNED).rows if row.where == "torch"]
    assert float((found - exact).abs().max() / exact.abs().max()) < 1e-5
    assert bool((found.argmax(1) == exact.argmax(1)).all())


def mlp(e: Any) -> tuple[Any, Any, Any]:
    return nn.Sequential(nn.Linear(6, 32), nn.Tanh(), nn.Linear(32, 3)), torch.randn(16, 6), torch.randn(16, 3)


def transformer(e: Any) -> tuple[Any, Any, Any]:
    return e.block(16, 2, 2), torch.randn(4, 6, 16), torch.randn(4, 6, 16)


@pytest.mark.parametrize("make", [mlp, transformer])
def test_training_follows_torch(examples: Callable[[str], Any], make: Any) -> None:
    """200 steps by our forward and backward, and by torch's."""
    ours, x, wanted = make(examples("torch_networks"))
    theirs, losses = copy.deepcopy(ours), list[Any]()
    with warnings.catch_warnings():
        warnings.simplefilter("error", FallbackWarning)
        for net, call in ((ours, torch.compile(ours, backend=backend, options=UNTUNED)), (theirs, theirs)):
            optimiser, curve = torch.optim.SGD(net.parameters(), 0.1), list[float]()
            for _ in range(200):
                optimiser.zero_grad()
                loss = nn.functional.mse_loss(call(x), wanted)
                loss.backward()
                optimiser.step()
                curve.append(loss.item())
            losses.append(torch.tensor(curve))
    assert losses[0][-1] < 0.8 * losses[0][0]
    torch.testing.assert_close(losses[0], losses[1], rtol=1e-3, atol=1e-5)
