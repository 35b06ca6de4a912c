"""Panels of parameters that are kept between calls: whatever way a parameter changes, the next call sees it."""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

torch = pytest.importorskip("torch", reason="torch is not installed")
import autotune  # noqa: E402
from autotune.plugins.torch import backend, graphs, tune  # noqa: E402
from tests.plugins.conftest import UNTUNED  # noqa: E402

Module: Any = torch.nn.Module
Parts = list[Any]


@pytest.fixture
def parts(tmp_path: Path) -> Iterator[Parts]:
    """The graphs compiled in a test."""
    found: Parts = []
    token = graphs.MADE.set(found)
    with autotune.context(cache_dir=str(tmp_path)):
        yield found
    graphs.MADE.reset(token)


class Net(Module):  # type: ignore[misc]
    def __init__(self) -> None:
        super().__init__()
        self.first, self.last = torch.nn.Linear(48, 64), torch.nn.Linear(64, 64)

    def forward(self, x: Any) -> Any:
        return self.last(torch.nn.functional.gelu(self.first(x)))


def compiled(net: Any) -> Any:
    return torch.compile(net, backend=backend, options=UNTUNED, dynamic=False)


def close(found: Any, expected: Any) -> None:
    torch.testing.assert_close(found, expected, rtol=1e-4, atol=1e-4)


def calls(parts: Parts) -> list[Any]:
    return [call for graph in parts for call in graph.kernels]


def panels(parts: Parts) -> int:
    return sum(len(call.prepared.code[2]) for call in calls(parts))


def _in_place(net: Any) -> None:
    net.first.weight.mul_(-2)


def _a_row(net: Any) -> None:
    net.last.weight[5] = 3.0


def _other_memory(net: Any) -> None:
    net.first.weight.data = torch.randn(64, 48)


def _behind_its_back(net: Any) -> None:
    net.first.weight.data.mul_(-2)


def _by_numpy(net: Any) -> None:
    net.last.weight.detach().numpy()[...] = 0.5


def _state(net: Any) -> None:
    net.load_state_dict(Net().state_dict())


def _another_parameter(net: Any) -> None:
    net.first.weight = torch.nn.Parameter(torch.randn(64, 48))


def _a_step(net: Any) -> None:
    with torch.enable_grad():
        optimizer = torch.optim.SGD(net.parameters(), lr=0.5)
        net(torch.ones(32, 48)).square().mean().backward()
        optimizer.step()


CHANGES = [_in_place, _a_row, _other_memory, _behind_its_back, _by_numpy, _state, _another_parameter, _a_step]


@pytest.mark.parametrize("change", CHANGES, ids=lambda f: f.__name__.strip("_"))
def test_a_parameter_that_changes_is_seen(parts: Parts, change: Callable[[Any], None]) -> None:
    net, x = Net(), torch.randn(32, 48)
    call = compiled(net)
    with torch.no_grad():
        before = call(x).clone()
        assert panels(parts) == 2
        close(call(x), net(x))
        change(net)
        close(call(x), net(x))
        assert not torch.allclose(call(x), before, rtol=1e-3)
        change(net)
        close(call(x), net(x))


def test_panels_are_used_again_while_nothing_changes(parts: Parts) -> None:
    net, x = Net(), torch.randn(32, 48)
    call = compiled(net)
    with torch.no_grad():
        call(x)
        kept = {place: k.panels.data_ptr() for place, k in calls(parts)[0]._panels.items()}
        call(torch.randn(32, 48))
        assert len(kept) == 2 and kept == {place: k.panels.data_ptr() for place, k in calls(parts)[0]._panels.items()}


def test_where_gradients_are_recorded_nothing_is_kept(parts: Parts) -> None:
    net, x = Net(), torch.randn(32, 48)
    ours, theirs = compiled(net)(x), net(x)
    close(ours, theirs)
    ours.sum().backward()
    assert len(calls(parts)) == 2 and panels(parts) == 0


def test_only_parameters_are_kept(parts: Parts) -> None:
    x, w = torch.randn(32, 48), torch.randn(64, 48)
    with torch.no_grad():
        close(compiled(lambda x, w: x @ w.t())(x, w), x @ w.t())
    assert len(calls(parts)) == 1 and panels(parts) == 0


def test_a_parameter_without_a_version_is_never_taken_for_the_same(parts: Parts) -> None:
    x = torch.randn(32, 48)
    with torch.inference_mode():
        net = Net()
        call = compiled(net)
        close(call(x), net(x))
        net.last.weight[5] = 3.0
        close(call(x), net(x))
    assert panels(parts) == 2


def test_parameters_that_lie_otherwise(parts: Parts) -> None:
    net, x = Net(), torch.randn(32, 48)
    net.first.weight = torch.nn.Parameter(torch.randn(48, 64).t())
    net.last.weight = torch.nn.Parameter(torch.randn(128, 64)[::2])
    with torch.no_grad():
        call = compiled(net)
        for _ in range(2):
            close(call(x), net(x))
            net.last.weight.mul_(2)


def test_copies_of_a_compiled_model_have_their_own_parameters(parts: Parts) -> None:
    net, x = Net(), torch.randn(32, 48)
    other = copy.deepcopy(net)
    with torch.no_grad():
        other.first.weight.mul_(3)
        calls = compiled(net), compiled(other)
        for _ in range(2):
            close(calls[0](x), net(x))
            close(calls[1](x), other(x))


def test_kernels_in_panels_are_tuned(parts: Parts) -> None:
    net, x = Net(), torch.randn(32, 48)
    tune(net, x, budget=1.0, options={"threads": 1})
    torch._dynamo.reset()
    with torch.no_grad():
        call = torch.compile(net, backend=backend, options={"tune": "cached", "threads": 1}, dynamic=False)
        close(call(x), net(x))
        net.first.weight.neg_()
        close(call(x), net(x))
    assert panels(parts) == 2
