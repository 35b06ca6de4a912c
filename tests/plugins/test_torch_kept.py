"""Compiled graphs that a later compilation finds again: only the very same is found, and it computes the same."""

from __future__ import annotations

import os
import subprocess
import sys
import warnings
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

torch = pytest.importorskip("torch", reason="torch is not installed")
import autotune  # noqa: E402
from autotune.plugins.torch import FallbackWarning, backend, coverage, graphs, tune  # noqa: E402
from tests.plugins.conftest import UNTUNED  # noqa: E402

F: Any = torch.nn.functional
ROOT = Path(__file__).parents[2]
Made = list[str]


@pytest.fixture
def made(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Made]:
    """The titles of graphs that were really compiled, with a cache of this test's own."""
    found: Made = []
    original = graphs.compile_graph

    def compile_graph(module: Any, options: Any, title: str, constants: Any = ()) -> Any:
        found.append(title)
        return original(module, options, title, constants)

    monkeypatch.setattr(graphs, "compile_graph", compile_graph)
    with autotune.context(cache_dir=str(tmp_path)):
        yield found


def again(function: Callable[..., Any], *inputs: Any, **options: Any) -> Any:
    """The result of a compilation as in a new process: Dynamo knows nothing any more."""
    torch._dynamo.reset()
    call = torch.compile(function, backend=backend, options={**UNTUNED, **options}, dynamic=False)
    with torch.no_grad():
        return call(*inputs)


def net() -> Any:
    torch.manual_seed(3)
    return torch.nn.Sequential(torch.nn.Linear(6, 16), torch.nn.LayerNorm(16), torch.nn.GELU(), torch.nn.Linear(16, 3))


def test_the_same_model_is_found_and_right(made: Made) -> None:
    x = torch.randn(4, 6)
    for _ in range(2):
        torch.testing.assert_close(again(net(), x), net()(x).detach(), rtol=1e-4, atol=1e-5)
    assert made == ["graph"]


def test_a_found_part_still_has_torchs_way_of_it(made: Made) -> None:
    x = torch.randn(4, 6)
    again(lambda x: torch.relu(x * 2) + x.sum(0), x)
    found_graphs: list[Any] = []
    token = graphs.MADE.set(found_graphs)
    try:
        again(lambda x: torch.relu(x * 2) + x.sum(0), x)
    finally:
        graphs.MADE.reset(token)
    found = found_graphs[0].kernels[0].state()["original"](x)
    torch.testing.assert_close(found[0] if isinstance(found, tuple) else found, torch.relu(x * 2) + x.sum(0))
    assert made == ["graph"]


def test_weights_are_no_part_of_what_is_kept(made: Made) -> None:
    x, first, second = torch.randn(4, 6), net(), net()
    again(first, x)
    with torch.no_grad():
        second[0].weight.mul_(-2)
    torch.testing.assert_close(again(second, x), second(x).detach(), rtol=1e-4, atol=1e-5)
    assert made == ["graph"]


OTHERS: dict[str, Callable[[Any], Any]] = {
    "another number": lambda x: torch.relu(x * 3) + x.sum(0), "another axis": lambda x: torch.relu(x * 2) + x.sum(1),
    "another order": lambda x: torch.relu(x * 2) - x.sum(0), "another function": lambda x: torch.tanh(x * 2) + x.sum(0),
}  # fmt: skip


@pytest.mark.parametrize("other", OTHERS.values(), ids=OTHERS)
def test_another_function_is_not_found(made: Made, other: Callable[[Any], Any]) -> None:
    x = torch.randn(4, 4)
    again(lambda x: torch.relu(x * 2) + x.sum(0), x)
    torch.testing.assert_close(again(other, x), other(x))
    assert len(made) == 2


def test_other_inputs_and_options_are_not_found(made: Made) -> None:
    def function(x: Any) -> Any:
        return (x * 2).sum(0)

    x = torch.randn(4, 4)
    for given in (x, x.t(), x.double(), x[:3], torch.randn(8, 8)[::2, ::2]):
        torch.testing.assert_close(again(function, given), function(given))
    again(function, x, threads=2)
    assert len(made) == 6


def test_the_warning_comes_again(made: Made) -> None:
    x = torch.randn(3, 5)
    for _ in range(2):
        with warnings.catch_warnings(record=True) as seen:
            warnings.simplefilter("always")
            found = again(lambda x: (torch.sort(x.exp(), 1)[0] * 2).tanh(), x)
        assert ["sort.default (no rule)" in str(w.message) for w in seen if w.category is FallbackWarning] == [True]
        torch.testing.assert_close(found, (torch.sort(x.exp(), 1)[0] * 2).tanh())
    assert made == ["graph"]


def _in_place(x: Any) -> Any:
    x.mul_(2)
    return x + 1


NEVER: dict[str, Callable[[Any], Any]] = {
    "in place": _in_place, "a view of an input": lambda x: (x.t(), x * 2),
    "a constant": lambda x: x * torch.tensor([1.0, 2.0, 3.0]),
}  # fmt: skip


@pytest.mark.parametrize("function", NEVER.values(), ids=NEVER)
def test_what_autograd_or_constants_surround_is_compiled_anew(made: Made, function: Callable[[Any], Any]) -> None:
    for _ in range(2):
        ours, theirs = torch.ones(3, 3), torch.ones(3, 3)
        torch.testing.assert_close(again(function, ours), function(theirs))
        torch.testing.assert_close(ours, theirs)
    assert len(made) == 2


def test_results_that_are_views_of_one_another_stay_so(made: Made) -> None:
    for _ in range(2):
        whole, row = again(lambda x: ((y := x * 2), y[0]), torch.ones(3, 3))
        whole.zero_()
        assert not row.any()
    assert made == ["graph"]


def test_arguments_of_every_kind(made: Made) -> None:
    def function(x: Any) -> Any:
        y = torch.sort(x * float("inf"), dim=-1, descending=True)[0]
        z = torch.full((3, 3), 2, dtype=torch.int64, device="cpu") + torch.bucketize(x, x[0].contiguous())
        return y, z, torch.special.i0(x.clone(memory_format=torch.contiguous_format))

    x = torch.arange(1.0, 10.0).reshape(3, 3)
    for _ in range(2):
        torch.testing.assert_close(again(function, x), function(x))
    assert made == ["graph"]


def test_an_operator_of_somebody_else_is_compiled_anew(made: Made) -> None:
    library = torch.library.Library("autotune_kept", "DEF")
    try:
        library.define("twice(Tensor x) -> Tensor")
        library.impl("twice", lambda x: x * 2, "CompositeExplicitAutograd")
        for _ in range(2):
            found = again(lambda x: torch.ops.autotune_kept.twice(x + 1) - 1, torch.ones(3))
            torch.testing.assert_close(found, torch.full((3,), 3.0))
    finally:
        library._destroy()
    assert len(made) == 2


def test_autocast_and_gradients_are_apart(made: Made) -> None:
    x, model = torch.randn(4, 6), net()
    again(model, x)
    with torch.autocast("cpu", torch.bfloat16):
        assert again(model, x).dtype == torch.bfloat16
    torch._dynamo.reset()
    y = torch.compile(model, backend=backend, options=UNTUNED)(x)
    y.sum().backward()
    assert model[0].weight.grad is not None and y.requires_grad
    assert made == ["graph", "graph", "forward graph", "backward graph"]


def test_without_gradients_the_result_has_none_although_they_are_enabled(made: Made) -> None:
    x = torch.randn(4, 4)
    for _ in range(2):
        torch._dynamo.reset()
        found = torch.compile(lambda x: (x * 2).sum(0), backend=backend, options=UNTUNED, dynamic=False)(x)
        assert not found.requires_grad
        torch.testing.assert_close(found, (x * 2).sum(0))
    assert made == ["graph"]


def test_what_was_tuned_meanwhile_is_run(made: Made) -> None:
    x, model = torch.randn(4, 6), net()
    again(model, x, tune="cached")
    parts = tune(model, x, budget=1.0, options={"threads": 1})
    assert sum(part.trials for part in parts) > 0
    torch.testing.assert_close(again(model, x, tune="cached"), model(x).detach(), rtol=1e-4, atol=1e-5)
    assert made == ["graph"]
    found = coverage(model, x, options={"threads": 1})
    assert {row.operation: row.count for row in found.rows if row.where == "kernel"}["addmm.default"] == 2


SCRIPT = """
import sys, torch
sys.path.insert(0, {folder!r})
from model import net
import autotune.plugins.torch
from torch._dynamo.utils import counters
model, x = net(), torch.arange(24.0).reshape(4, 6) / 7
call = torch.compile(model, backend="autotune", options={options!r}, dynamic=False)
with torch.no_grad():
    found = call(x)
    torch.testing.assert_close(found, model(x), rtol=1e-4, atol=1e-5)
torch.compiler.save_cache_artifacts()
print(counters["frames"]["total"], counters["dynamo_cache"]["dynamo_cache_hit"])
"""
MODEL = """
import torch
class Net(torch.nn.Module):
    def __init__(self):
        super().__init__()
        self.first, self.last = torch.nn.Linear(6, 16), torch.nn.Linear(16, 3)
    def forward(self, x):
        return self.last(torch.nn.functional.gelu(self.first(x)))
def net():
    torch.manual_seed(0)
    return Net()
"""


def test_a_package_of_dynamos_spares_dynamo_too(tmp_path: Path) -> None:
    (tmp_path / "model.py").write_text(MODEL, "utf-8")
    code = SCRIPT.format(folder=str(tmp_path), options=UNTUNED)
    more = {"TORCH_CACHING_PRECOMPILE": "1", "TORCHINDUCTOR_CACHE_DIR": str(tmp_path / "torch"),
            "AUTOTUNE_CACHE_DIR": str(tmp_path / "ours"), "PYTHONPATH": str(ROOT)}  # fmt: skip
    said = [
        subprocess.run([sys.executable, "-c", code], env={**os.environ, **more}, capture_output=True, text=True)
        for _ in range(2)
    ]
    assert [done.returncode for done in said] == [0, 0], said[0].stderr + said[1].stderr
    assert [done.stdout.split() for done in said] == [["1", "0"], ["0", "1"]]
