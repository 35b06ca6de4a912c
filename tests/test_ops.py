"""Named operations: the same values on arrays and traced, and the parameters of their sweeps."""

from __future__ import annotations

import inspect
from collections.abc import Callable
from typing import Any

import ml_dtypes
import numpy as np
import pytest

from autotune import ops
from autotune.ir.errors import UsageError
from autotune.ir.expr import Op, walk
from autotune.ops import OPS, elementwise
from autotune.tracer import trace

from .evaluation import run

rng = np.random.default_rng(0)


def array(shape: tuple[int, ...], dtype: Any) -> np.ndarray:
    kind = np.dtype(dtype).kind
    return (rng.integers(-4, 5, shape) if kind == "i" else rng.standard_normal(shape)).astype(dtype)


CASES: list[tuple[str, dict[str, Any]]] = [
    ("gemm", {"m": 3, "n": 4, "k": 5}),
    ("gemm", {"m": 3, "n": 4, "k": 5, "ta": 1, "tb": "1", "bias": 1, "act": "gelu"}),
    ("bmm", {"b": 2, "m": 3, "n": 4, "k": 5}), ("gemv", {"m": 3, "k": 5}), ("linear", {"m": 3, "n": 4, "k": 5}),
    ("linear", {"m": 3, "n": 4, "k": 5, "bias": "1", "act": "silu"}), ("softmax", {"m": 3, "n": 7}),
    ("softmax", {"m": 3, "n": 7, "axis": "0"}), ("log_softmax", {"m": 3, "n": 7}), ("logsumexp", {"m": 3, "n": 7}),
    ("logsumexp", {"m": 3, "n": 7, "axis": 0}), ("layer_norm", {"m": 3, "n": 7}), ("rms_norm", {"m": 3, "n": 7}),
    ("reduce", {"shape": "3x4x5", "axes": "0,2", "op": "max"}), ("reduce", {"shape": "6"}),
    ("transpose", {"shape": "3x4x5", "perm": "2,0,1"}), ("transpose", {"shape": "3x4"}),
    ("reduce", {"shape": "3x4x5", "axes": "1", "op": "argmax"}), ("reduce", {"shape": "3x4x5", "op": "argmin"}),
    ("concat", {"shape": "3x4", "axis": 1, "other": "3x2"}), ("concat", {"shape": "3x4"}),
    ("pad", {"shape": "3x4", "width": 2, "mode": "edge"}), ("pad", {"shape": "3x4", "width": "1"}),
    ("gather", {"shape": "3x4", "n": 5, "axis": 1}), ("gather", {"shape": "3x4", "n": 5}),
    ("cumsum", {"shape": "3x40"}), ("group_norm", {"n": 2, "c": 6, "h": 3, "w": 5, "groups": 3}),
    ("batch_norm", {"n": 2, "c": 3, "h": 3, "w": 5, "groups": 1}),
    ("conv2d", {"n": 2, "h": 6, "w": 5, "ci": 4, "co": 6, "kh": 3, "kw": 2, "pad": 1, "groups": 2, "bias": 1}),
    ("conv2d", {"n": 1, "h": 7, "w": 5, "ci": 4, "co": 3, "kh": 3, "kw": 2, "stride": 2, "layout": "nhwc"}),
    ("conv2d", {"n": 1, "h": 7, "w": 5, "ci": 3, "co": 3, "kh": 2, "kw": 2, "dilation": 2, "groups": 3}),
    ("conv_transpose2d", {"n": 1, "h": 4, "w": 3, "ci": 2, "co": 3, "kh": 3, "kw": 2, "stride": 2, "output_pad": 1}),
    ("pool2d", {"n": 1, "h": 7, "w": 5, "c": 2, "kh": 3, "kw": 2}),
    ("pool2d", {"n": 1, "h": 7, "w": 5, "c": 2, "kh": 3, "kw": 2, "stride": 1, "op": "mean", "layout": "nhwc"}),
    ("attention", {"b": 2, "heads": 4, "q": 3, "kv": 5, "d": 6, "causal": 1, "kv_heads": 2}),
    ("attention", {"b": 1, "heads": 2, "q": 3, "kv": 3, "d": 4}), ("rope", {"b": 1, "heads": 2, "q": 3, "d": 4}),
    ("rope", {"b": 1, "heads": 2, "q": 3, "d": 4, "interleaved": 1}), ("swiglu", {"m": 3, "n": 4}),
    ("cross_entropy", {"m": 5, "n": 4}), ("cast", {"shape": "3x4", "dtype": "i8"}),
    ("elementwise", {"n": 9, "expr": "gelu(a*b+c)"}),
    ("elementwise", {"n": 9, "expr": "where(b < 0, -a ** 2, tanh(b) / 2.5)"}),
]  # fmt: skip


def test_every_operation_has_a_case() -> None:
    assert {name for name, _ in CASES} == set(OPS)


@pytest.mark.parametrize(
    "name, params", CASES, ids=lambda v: v if isinstance(v, str) else "-".join(map(str, v.values()))
)
def test_traced_equals_plain(name: str, params: dict[str, Any]) -> None:
    for dtype in (np.float32, np.float64, np.float16, ml_dtypes.bfloat16):
        function, specs = OPS[name].make(params, dtype)
        arrays = [np.abs(a) if name == "batch_norm" else a for a in (array(s.shape, s.dtype.numpy) for s in specs)]
        assert all(s.dtype.numpy == np.dtype(dtype) or s.dtype.is_integer for s in specs)
        expected, got = function(*arrays), run(function, *arrays)
        assert got.dtype == expected.dtype and got.shape == expected.shape
        limit = {2: 0.05, 4: 3e-6, 8: 1e-13}[np.dtype(dtype).itemsize]
        np.testing.assert_allclose(got.astype(np.float64), expected.astype(np.float64), rtol=limit, atol=limit)


def test_operations_agree_with_torch() -> None:
    torch = pytest.importorskip("torch", reason="torch is the other oracle of these operations")
    x, w, b = array((5, 8), "f8"), array((8,), "f8"), array((8,), "f8")
    tx, tw, tb = map(torch.from_numpy, (x, w, b))
    f = torch.nn.functional
    pairs = [
        (ops.gelu(x), f.gelu(tx)), (ops.silu(x), f.silu(tx)), (ops.sigmoid(x), torch.sigmoid(tx)),
        (ops.erf(x), torch.erf(tx)), (ops.softmax(x), f.softmax(tx, -1)),
        (ops.log_softmax(x, axis=0), f.log_softmax(tx, 0)), (ops.relu(x), f.relu(tx)),
        (ops.logsumexp(x), torch.logsumexp(tx, -1)), (ops.layer_norm(x, w, b), f.layer_norm(tx, (8,), tw, tb)),
        (ops.rms_norm(x, w), f.rms_norm(tx, (8,), tw, 1e-6)),
        (ops.linear(x, x[:3], b[:3]), f.linear(tx, tx[:3], tb[:3])),
    ]  # fmt: skip
    for got, expected in pairs:
        np.testing.assert_allclose(got, expected.numpy(), rtol=1e-13, atol=1e-14)


def test_small_integers_accumulate_in_i32() -> None:
    a, b = np.full((2, 300), 100, np.int8), np.full((300, 2), 100, np.int8)
    np.testing.assert_array_equal(run(ops.gemm, a, b), np.full((2, 2), 3_000_000, np.int32))
    assert len(trace(ops.gemm, (a, b)).program.computes) == 1


@pytest.mark.parametrize("dtype, limit", [("f4", 60), ("f8", 90)])
def test_gelu_of_a_chain_is_one_compute(dtype: str, limit: int) -> None:
    function, specs = OPS["elementwise"].make({"n": 64, "expr": "gelu(a*b+c)"}, dtype)
    program = trace(function, specs).program
    assert [b.name for b in program.inputs] == ["a", "b", "c"] and len(program.computes) == 1
    assert len({n for n in walk(program.computes[0].body) if isinstance(n, Op)}) <= limit


@pytest.mark.parametrize(
    "expr, message",
    [
        ("__import__('os')", "single letters"), ("a.b", "not allowed"), ("a if b else c", "not allowed"),
        ("a[0]", "not allowed"), ("open(a)", "not allowed"), ("a +", "expr="), ("1 + 2", "at least one"),
        ("abc * 2", "single letters"), ("(lambda: a)()", "not allowed"), ("tanh(x=a)", "not allowed"),
        ("a * 'x'", "not allowed"), ("a * True", "not allowed"), ("a and b", "not allowed"),
        ("a * 1j", "not allowed"), ("a @ b", "not allowed"), ("a < b < c", "not allowed"), ("", "expr="),
        ("tanh(a, b, c)", "tanh"),
    ],
)  # fmt: skip
def test_expressions_are_parsed_and_never_run(expr: str, message: str) -> None:
    with pytest.raises(UsageError, match=message):
        elementwise(expr)


BAD: list[tuple[str, dict[str, Any], str]] = [
    ("gemm", {"m": 3, "n": 4}, "needs k"), ("gemm", {"m": 3, "n": 4, "k": 5, "q": 1}, "no parameter 'q'"),
    ("gemm", {"m": "x", "n": 4, "k": 5}, "m=x"), ("gemm", {"m": -3, "n": 4, "k": 5}, "negative"),
    ("gemm", {"m": 3, "n": 4, "k": 5, "act": "mish"}, "choose from none, relu"),
    ("reduce", {"shape": "3xq"}, "shape=3xq"), ("gemm", {"m": 3, "n": 4, "k": 5, "ta": 2}, "choose from 0, 1"),
    ("cast", {"shape": "3", "dtype": "c16"}, "not supported"),
    ("conv2d", {"n": 1, "h": 4, "w": 4, "ci": 1, "co": 1, "kh": 1, "kw": 1, "groups": 0}, "1 or more"),
    ("conv2d", {"n": 1, "h": 4, "w": 4, "ci": 1, "co": 1, "kh": 1, "kw": 1, "layout": "chwn"}, "nchw, nhwc"),
    ("pool2d", {"n": 1, "h": 4, "w": 4, "c": 1, "kh": 1, "kw": 1, "op": "sum"}, "choose from max, mean"),
    ("batch_norm", {"n": 1, "c": 4, "h": 4, "w": 4, "groups": 2}, "choose from 1"),
    ("attention", {"b": 1, "heads": 4, "q": 4, "kv": 4, "d": 4, "kv_heads": 0}, "1 or more"),
    ("pad", {"shape": "4", "width": -1}, "negative"), ("reduce", {"shape": "4", "op": "cumsum"}, "argmax"),
]  # fmt: skip


@pytest.mark.parametrize("name, params, message", BAD)
def test_bad_parameters(name: str, params: dict[str, Any], message: str) -> None:
    with pytest.raises(UsageError, match=message):
        OPS[name].bind(params)


def test_public_functions_run_on_plain_arrays_of_16_bits() -> None:
    functions: list[Callable[..., Any]] = [ops.gelu, ops.silu, ops.sigmoid, ops.erf, ops.softmax, ops.relu]
    for function in functions:
        assert function(array((4, 4), np.float16)).dtype == np.float16
        assert inspect.signature(function).parameters
