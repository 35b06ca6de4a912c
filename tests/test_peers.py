"""What other libraries make of a case is the case: NumPy's and torch's calls give the operation's own result."""

from __future__ import annotations

import importlib.util
from collections.abc import Mapping
from typing import Any

import numpy as np
import pytest

from autotune.cli.grid import cases
from autotune.ops import OPS
from autotune.peers import agree, numpy_call, paired, ratio, threads, torch_call

# Operations for which torch has no single function that means the same.
ALONE = [
    "rope b=1 heads=2 q=3 d=4", "cross_entropy m=3 n=5", "gather shape=5x3 n=4", "pad shape=3x4 width=1",
]  # fmt: skip
WORDS = [
    "gemm m=5 n=7 k=3", "gemm m=5 n=7 k=3 ta=1", "gemm m=5 n=7 k=3 tb=1 bias=1 act=gelu", "bmm b=2 m=3 n=4 k=5",
    "gemm m=5 n=7 k=3 act=relu", "gemv m=5 k=7", "linear m=5 n=7 k=3", "linear m=5 n=7 k=3 bias=1 act=silu",
    "softmax m=4 n=9", "softmax m=4 n=9 axis=0", "log_softmax m=4 n=9", "logsumexp m=4 n=9", "layer_norm m=4 n=9",
    "rms_norm m=4 n=9", "reduce shape=4x5x6 axes=0,2", "reduce shape=4x5 op=max", "reduce shape=4x5 axes=1 op=var",
    "reduce shape=4x5 axes=0 op=mean", "transpose shape=3x4x5 perm=2,0,1", "transpose shape=3x4",
    "cast shape=5 dtype=f64", "conv2d n=1 h=6 w=7 ci=3 co=4 kh=3 kw=3 pad=1 stride=2",
    "conv_transpose2d n=1 h=4 w=5 ci=3 co=2 kh=3 kw=3 stride=2", "pool2d n=1 h=6 w=6 c=2 kh=2 kw=2",
    "group_norm n=2 c=4 h=3 w=3 groups=2", "batch_norm n=2 c=4 h=3 w=3", "attention b=1 heads=2 q=5 kv=5 d=4 causal=1",
    "swiglu m=3 n=5", "concat shape=3x4 other=2x4", "cumsum shape=3x9",
    *ALONE,
    "elementwise n=9 expr=gelu(a*b+c)", "elementwise n=9 expr=silu(a)*tanh(b)-abs(a)", "elementwise n=9 expr=a",
    "elementwise n=9 expr=exp(a)*exp(b)+exp(c)", "elementwise n=9 expr=where(a<b,2*a+b,-b)**2/(1+2)",
    "elementwise n=9 expr=maximum(minimum(rint(a),1),relu(b)-c)",
]  # fmt: skip


def made(words: str) -> tuple[str, Mapping[str, Any], Any, list[Any], Any]:
    op, *rest = words.split()
    (case,) = cases(op, rest)
    fn, specs, _ = case.make()
    rng = np.random.default_rng(0)
    x = [rng.standard_normal(s.shape).astype(s.dtype.numpy) for s in specs]
    return op, case.params, fn, x, np.asarray(fn(*x))


def test_every_operation_has_a_case_here() -> None:
    assert {w.split()[0] for w in WORDS} == set(OPS)


@pytest.mark.parametrize("words", WORDS)
def test_numpy_s_call(words: str) -> None:
    op, params, fn, x, wanted = made(words)
    out = np.full_like(wanted, 0)
    result = numpy_call(fn, op, params, x, out)()
    assert agree(np.asarray(result), wanted)


@pytest.mark.skipif(importlib.util.find_spec("torch") is None, reason="torch is not installed")
@pytest.mark.parametrize("words", [w for w in WORDS if w not in ALONE])
def test_torch_s_call(words: str) -> None:
    op, params, _, x, wanted = made(words)
    call: Any = torch_call(op, params, x, np.zeros_like(wanted))
    assert all(agree(call().numpy(), wanted) for _ in range(2)), "what it writes over is not read again"


@pytest.mark.skipif(importlib.util.find_spec("torch") is None, reason="torch is not installed")
@pytest.mark.parametrize("words", ALONE)
def test_torch_has_none(words: str) -> None:
    op, params, _, x, wanted = made(words)
    with pytest.raises((TypeError, RuntimeError)):
        torch_call(op, params, x, np.zeros_like(wanted))()


@pytest.mark.skipif(importlib.util.find_spec("torch") is None, reason="torch is not installed")
def test_torch_lacks_some() -> None:
    op, params, _, x, wanted = made("reduce shape=4x5 op=prod")
    with pytest.raises((TypeError, RuntimeError)):
        torch_call(op, params, x, np.zeros_like(wanted))()


def test_agree() -> None:
    a = np.array([1.0, np.inf, -3.0], np.float32)
    assert agree(a, a) and agree(a, a + np.float32(1e-6)) and not agree(a, -a) and not agree(a, a[:2])
    assert not agree(a, np.array([1.0, 2.0, -3.0], np.float32))
    assert agree(np.array([1, 2]), np.array([1, 2])) and not agree(np.array([1, 2]), np.array([1, 3]))


def test_samples_are_paired() -> None:
    order: list[str] = []
    calls = {name: (lambda name=name: order.append(name)) for name in "ab"}
    samples = paired(calls, 4, sample=1e-6)
    assert {name: len(row) for name, row in samples.items()} == {"a": 4, "b": 4}
    assert all(s > 0 for row in samples.values() for s in row)
    runs = [name for n, name in enumerate(order) if n == 0 or order[n - 1] != name]
    assert runs[-4:] in (list("abba"), list("baab"), list("abab"), list("baba")) or len(runs) >= 6, "in turns"
    assert ratio([2.0, 4.0, 9.0], [1.0, 2.0, 3.0]) == 2.0


def test_threads_are_given_back() -> None:
    torch = pytest.importorskip("torch", reason="torch is not installed")
    before = torch.get_num_threads()
    with threads(1):
        assert torch.get_num_threads() == 1
    assert torch.get_num_threads() == before
