"""The torch backend on what models do beyond plain functions: mutation, aliasing, odd memory, gradients, autocast,
unknown operations, graph breaks, symbolic sizes. Each gives torch's result, or a fallback that a warning names."""

from __future__ import annotations

import copy
import gc
import subprocess
import sys
import tomllib
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

torch = pytest.importorskip("torch", reason="torch is not installed")
from autotune.plugins.torch import FallbackWarning, backend, coverage, sizes, symbolic  # noqa: E402
from tests.plugins.conftest import UNTUNED  # noqa: E402

F: Any = torch.nn.functional
Module: Any = torch.nn.Module
ROOT = Path(__file__).parents[2]


def compiled(function: Any, **options: Any) -> Any:
    return torch.compile(function, backend=backend, options=UNTUNED, **{"dynamic": False, **options})


def close(found: Any, expected: Any) -> None:
    torch.testing.assert_close(found, expected, rtol=1e-4, atol=1e-5, equal_nan=True)


def fallbacks(call: Callable[[], Any]) -> str:
    """What was said to be torch's during the call."""
    with warnings.catch_warnings(record=True) as seen:
        warnings.simplefilter("always")
        call()
    return " ".join(str(w.message) for w in seen if issubclass(w.category, FallbackWarning))


def same(function: Callable[..., Any], *inputs: Any) -> Any:
    """Compiled and plain agree on fresh copies of the inputs, afterwards the inputs agree too. Returns our result."""
    ours, theirs = copy.deepcopy(inputs), copy.deepcopy(inputs)
    found, expected = compiled(function)(*ours), function(*theirs)
    close(found, expected)
    close(ours, theirs)
    return found


# ---- mutation and aliasing ------------------------------------------------------------------------------------------


def _into(x: Any, y: Any) -> Any:
    x.add_(y).mul_(2)
    return x.sum(1)


def _into_a_part(x: Any, y: Any) -> Any:
    x[:, 1:3] = y[:, :2] * 2
    x[0].zero_()
    return x + y


def _into_the_result(x: Any, y: Any) -> Any:
    z = x * y
    z += 1
    z[1] = x[0]
    return z


@pytest.mark.parametrize("function", [_into, _into_a_part, _into_the_result])
def test_in_place(function: Any) -> None:
    same(function, torch.randn(3, 5), torch.randn(3, 5))


def test_an_input_that_is_a_result_is_that_tensor() -> None:
    x = torch.randn(3, 5)
    first, second = compiled(lambda x: (x, x * 2))(x)
    assert first is x
    close(second, x * 2)


def test_a_view_that_is_a_result_shares_memory_with_its_input() -> None:
    x = torch.randn(3, 5)
    view, other = compiled(lambda x: (x.t()[1:], x + 1))(x)
    assert view.data_ptr() == x[:, 1:].data_ptr()
    close(other, x + 1)
    view.zero_()
    assert not x[:, 1:].any()


def test_results_that_are_views_of_one_another_stay_so() -> None:
    def function(x: Any) -> Any:
        y = x * 2
        return y, y.view(-1), y[0], y.t().exp(), y.chunk(2, 1)[1]

    x = torch.randn(3, 5)
    y, flat, row, other, half = compiled(function)(x)
    close(other, (x * 2).t().exp())
    y.zero_()
    assert not flat.any() and not row.any() and not half.any()
    assert other.all()


def test_a_result_is_never_the_memory_of_the_next_call() -> None:
    function = compiled(lambda x: x * 2)
    first = function(torch.ones(4))
    function(torch.zeros(4))
    close(first, torch.full((4,), 2.0))


@pytest.mark.parametrize("views", [lambda x: (x, x), lambda x: (x[:3], x[1:]), lambda x: (x, x.t())])
def test_inputs_that_share_memory(views: Any) -> None:
    def function(a: Any, b: Any) -> Any:
        a.mul_(2)
        return a @ b.t()

    ours, theirs = torch.arange(16.0).reshape(4, 4), torch.arange(16.0).reshape(4, 4)
    close(compiled(function)(*views(ours)), function(*views(theirs)))
    close(ours, theirs)


# ---- memory ---------------------------------------------------------------------------------------------------------

STRIDED: dict[str, Callable[[], Any]] = {
    "transposed": lambda: torch.randn(5, 3).t(), "a part": lambda: torch.randn(8, 9)[1:4, 2:7],
    "every second": lambda: torch.randn(3, 10)[:, ::2], "repeated": lambda: torch.randn(3, 1).expand(3, 5),
    "one number": lambda: torch.tensor(1.5).expand(3, 5), "shifted": lambda: torch.randn(16)[1:].view(3, 5),
    "overlapping": lambda: torch.randn(20).as_strided((3, 5), (2, 3)),
}  # fmt: skip


@pytest.mark.parametrize("make", STRIDED.values(), ids=STRIDED)
@pytest.mark.parametrize("function", [lambda x: torch.tanh(x) + 1, lambda x: x @ x.t(), lambda x: x.softmax(0)])
def test_strides(make: Any, function: Any) -> None:
    x = make()
    found, expected = compiled(function)(x), function(x)
    close(found, expected)
    assert found.stride() == expected.stride()


def test_the_same_function_on_other_strides() -> None:
    function = compiled(lambda x: x * 2 + 1)
    for make in STRIDED.values():
        x = make()
        close(function(x), x * 2 + 1)


def test_channels_last() -> None:
    x, w = torch.randn(2, 4, 6, 5).to(memory_format=torch.channels_last), torch.randn(3, 4, 3, 3)
    found = compiled(lambda x, w: F.relu(F.conv2d(x, w)))(x, w)
    close(found, F.relu(F.conv2d(x, w)))


@pytest.mark.parametrize("shape", [(0,), (0, 5), (3, 0), (2, 0, 4)])
def test_empty(shape: tuple[int, ...]) -> None:
    same(lambda x: (x * 2 + 1, x.sum(), x.sum(-1)), torch.randn(shape))


def test_an_empty_product() -> None:
    same(lambda a, b: torch.relu(a @ b) + 1, torch.randn(3, 0), torch.randn(0, 4))


def test_no_dimension_and_one_element() -> None:
    same(lambda x: (x.exp(), x.sum(), x.softmax(0), x.unsqueeze(0) * 2), torch.tensor(0.5))
    same(lambda x: (x.exp(), x.sum(), x.softmax(0)), torch.randn(1))


DTYPES = [torch.float16, torch.bfloat16, torch.float64, torch.int8, torch.uint8, torch.int16, torch.int32, torch.int64]


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
def test_dtypes(dtype: Any) -> None:
    x, y = (torch.randint(0, 9, (3, 5)).to(dtype) for _ in range(2))
    ours = compiled(lambda x, y: (x + y * 2, x.sum(0), x > y, x.float() / 3))(x, y)
    for found, expected in zip(ours, (x + y * 2, x.sum(0), x > y, x.float() / 3)):
        torch.testing.assert_close(found, expected)


def test_a_dtype_that_kernels_do_not_have() -> None:
    x = torch.randn(3, dtype=torch.complex64)
    said = fallbacks(lambda: close(compiled(lambda x: x * 2 + 1)(x), x * 2 + 1))
    assert "no kernel computes with complex64" in said


def test_infinities_and_nan() -> None:
    x = torch.tensor([[float("nan"), 1.0, -1.0], [float("inf"), -float("inf"), 0.0]])
    same(lambda x: (x.max(1).values, x.amin(0), x.relu(), x.clamp(-1, 1), x.softmax(1), torch.maximum(x, -x)), x)


# ---- gradients ------------------------------------------------------------------------------------------------------


class Net(Module):  # type: ignore[misc]
    def __init__(self) -> None:
        super().__init__()
        self.first, self.norm, self.last = torch.nn.Linear(6, 16), torch.nn.LayerNorm(16), torch.nn.Linear(16, 3)

    def forward(self, x: Any) -> Any:
        return self.last(F.gelu(self.norm(self.first(x))))


def test_only_some_inputs_have_gradients() -> None:
    a, b = torch.randn(3, 5, requires_grad=True), torch.randn(5, 4)
    (compiled(lambda a, b: (a @ b).exp().sum())(a, b)).backward()
    expected = torch.autograd.grad((a @ b).exp().sum(), a)[0]
    close(a.grad, expected)
    assert b.grad is None


def test_no_grad_after_grad() -> None:
    function, x = compiled(lambda x: x.sin() * 2), torch.randn(4, requires_grad=True)
    assert function(x).requires_grad
    with torch.no_grad():
        assert not function(x).requires_grad
    with torch.inference_mode():
        close(function(x), x.sin() * 2)


def test_gradients_of_a_transposed_gradient() -> None:
    """The gradient that comes in lies otherwise than the one the graph was made for."""
    x = torch.randn(3, 5, requires_grad=True)
    y = compiled(lambda x: x * x)(x)
    y.backward(torch.ones(5, 3).t())
    close(x.grad, 2 * x.detach())


def test_a_second_derivative_is_refused_by_torch_itself() -> None:
    x = torch.randn(3, requires_grad=True)
    first = torch.autograd.grad(compiled(lambda x: (x**3).sum())(x), x, create_graph=True)[0]
    with pytest.raises(RuntimeError, match="double backward"):
        first.sum().backward()


def test_parameters_that_change_are_seen() -> None:
    net = Net()
    call, x = compiled(net), torch.randn(2, 6)
    with torch.no_grad():
        call(x)
        net.last.weight.mul_(3)
        net.first.bias = torch.nn.Parameter(torch.ones(16))
        close(call(x), net(x))


def test_dropout_is_torchs() -> None:
    x = torch.ones(64, 64)
    said = fallbacks(lambda: compiled(lambda x: F.dropout(x, 0.5) * 2)(x))
    y = compiled(lambda x: F.dropout(x, 0.5) * 2)(x)
    assert set(y.unique().tolist()) == {0.0, 4.0} and 0.3 < float((y == 0).float().mean()) < 0.7
    assert "rand" in said or "bernoulli" in said or "dropout" in said


# ---- autocast, unknown operations, breaks, symbols -------------------------------------------------------------------


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16], ids=str)
def test_autocast(dtype: Any) -> None:
    net, x = Net(), torch.randn(8, 6)
    call = compiled(net)
    with torch.no_grad(), torch.autocast("cpu", dtype):
        found, expected = call(x), net(x)
    assert found.dtype == expected.dtype == dtype
    torch.testing.assert_close(found, expected, rtol=5e-2, atol=5e-2)
    with torch.no_grad():
        close(call(x), net(x))


def test_an_operation_without_a_rule_is_named() -> None:
    x = torch.rand(3, 5)
    function = lambda x: torch.special.i0(x * 2) + 1
    said = fallbacks(lambda: same(function, x))
    assert "i0.default (no rule)" in said and "graph" in said


def test_an_operator_of_somebody_else() -> None:
    library = torch.library.Library("autotune_tests", "DEF")
    try:
        library.define("twice(Tensor x) -> Tensor")
        library.impl("twice", lambda x: x * 2, "CompositeExplicitAutograd")
        said = fallbacks(lambda: same(lambda x: torch.ops.autotune_tests.twice(x + 1) - 1, torch.randn(3, 5)))
    finally:
        library._destroy()
    assert "autotune_tests::twice.default (no rule)" in said


def test_a_graph_break() -> None:
    def function(x: Any) -> Any:
        y = (x * 2).relu()
        if float(y.sum()) > 3:  # data decides: two graphs
            return y + 1
        return y - 1

    call = compiled(function)
    for scale in (0.01, 10.0):
        x = torch.rand(3, 5) * scale
        close(call(x), function(x))


def test_a_sort_between_kernels() -> None:
    said = fallbacks(lambda: same(lambda x: (torch.sort(x.exp(), 1)[0] * 2).tanh(), torch.randn(3, 5)))
    assert "sort" in said


def test_places_outside_are_an_error_as_in_torch() -> None:
    call = compiled(lambda table, places: F.embedding(places, table) * 2)
    table = torch.randn(4, 3)
    close(call(table, torch.tensor([0, 3])), table[[0, 3]] * 2)
    with pytest.raises(IndexError):
        call(table, torch.tensor([0, 4]))


@pytest.mark.parametrize("dynamic", [True, None])
def test_symbolic_sizes(dynamic: bool | None) -> None:
    net = Net()
    call = compiled(net, dynamic=dynamic)
    with torch.no_grad():
        for n in (2, 3, 5, 3, 0, 1):
            x = torch.randn(n, 6)
            close(call(x), net(x))


def test_no_more_sets_of_sizes_than_the_limit_are_compiled(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(symbolic, "LIMIT", 3)
    gc.collect()
    before = {*sizes()}
    call = compiled(lambda x: x.softmax(1) * 2, dynamic=True)
    given = [torch.randn(n, 6) for n in (2, 3, 2, 4, 3)]
    for x in given:
        close(call(x), x.softmax(1) * 2)
    (line,) = {*sizes()} - before
    assert line.startswith("graph: 3 of at most 3 sets of sizes compiled: ") and "(3, 6)" in line
    more = (*given, torch.randn(5, 6), torch.randn(7, 6))
    said = fallbacks(lambda: close([call(x) for x in more], [x.softmax(1) * 2 for x in more]))
    assert said.count("more than 3 sets of sizes") == 1
    (line,) = {*sizes()} - before
    assert "3 of at most 3 sets of sizes compiled, the rest by torch" in line


def test_symbolic_sizes_with_gradients() -> None:
    net = Net()
    call = compiled(net, dynamic=True)
    for n in (2, 5, 3):
        x = torch.randn(n, 6)
        found = torch.autograd.grad(call(x).square().sum(), [*net.parameters()])
        close(found, torch.autograd.grad(net(x).square().sum(), [*net.parameters()]))


def test_numbers_that_change() -> None:
    call = compiled(lambda x, n, s: x[:n] * s, dynamic=None)
    x = torch.randn(8)
    for n, s in ((2, 1.5), (3, 2.5), (5, -1.0)):
        close(call(x, n, s), x[:n] * s)


def test_meta_tensors_are_torchs() -> None:
    x = torch.empty(3, 5, device="meta")
    said = fallbacks(lambda: compiled(lambda x: x * 2 + 1)(x))
    assert "is on meta" in said


# ---- options, coverage and the entry point ---------------------------------------------------------------------------


def test_a_wrong_option_is_named() -> None:
    call = torch.compile(lambda x: x + 1, backend=backend, options={"tune": "sometimes"})
    with pytest.raises(Exception, match="tune must be off"):
        call(torch.ones(3))


def test_coverage() -> None:
    net, x = Net(), torch.randn(8, 6)
    found = coverage(net, x, options=UNTUNED)
    assert 0 < found.share <= 1 and sum(found.kernels.values()) == found.kernel_seconds
    ours = {row.operation: row.count for row in found.rows if row.where == "kernel"}
    assert ours["addmm.default"] == 2 and ours["native_layer_norm.default"] == ours["gelu.default"] == 1
    assert not [row for row in found.rows if row.where == "torch"]
    lines = str(found).splitlines()
    assert lines[0].split()[:2] == ["operation", "count"] and lines[-1].startswith("kernels: ")
    assert len(lines) == len(found.rows) + 2


def test_coverage_names_what_is_torchs() -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", FallbackWarning)
        found = coverage(lambda x: torch.sort(x * 2)[0] + 1, torch.randn(3, 5), options=UNTUNED)
    rows = [row for row in found.rows if row.where == "torch"]
    assert [row.operation for row in rows] == ["sort.default"] and rows[0].reason == "no rule"
    assert rows[0].seconds and "no rule" in str(found)


def test_the_entry_point_is_the_backend() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))["project"]
    module, _, attribute = project["entry-points"]["torch_dynamo_backends"]["autotune"].partition(":")
    assert (module, attribute) == (backend.__module__.rpartition(".")[0], backend.__name__)
    assert "torch" in project["optional-dependencies"]


def test_the_name_is_known_where_the_package_is_installed_or_imported() -> None:
    x = torch.randn(3)
    close(torch.compile(lambda x: x * 2, backend="autotune", options=UNTUNED)(x), x * 2)


def test_without_torch_the_message_says_what_to_install() -> None:
    code = (
        "import sys; sys.modules['torch'] = None\nimport autotune\n"
        "try:\n    import autotune.plugins.torch\nexcept ImportError as error:\n    print(error)"
    )
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "autotune.plugins.torch needs torch: pip install 'autotune-kernels[torch]'"
