"""Decorated functions over a session whose kernels are a naive evaluator: signatures, refusals, `out`, captured arrays, torch,
threads, fork, memory; each on the native call path and on the one through Python."""

from __future__ import annotations

import contextlib
import copy
import ctypes
import gc
import json
import os
import pickle
import subprocess
import sys
import threading
import weakref
from collections import namedtuple
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import ml_dtypes
import numpy as np
import pytest

import autotune
from autotune.decorator import Kernel, TuningResult, call_path, make_kernel
from autotune.ir.errors import SignatureError, UsageError
from autotune.ir.program import TensorProgram
from autotune.options import CONTEXT, Options
from autotune.signature import array_kind

from .evaluation import evaluate

rng = np.random.default_rng(0)
X, W = rng.standard_normal((4, 6)).astype(np.float32), rng.standard_normal((6, 5)).astype(np.float32)
BIAS = np.ones(5, np.float32)
ENTRY = ctypes.CFUNCTYPE(None, ctypes.POINTER(ctypes.c_void_p), ctypes.POINTER(ctypes.c_int64), ctypes.c_int64)


class Prepared:
    """A program whose entry reads the buffers that it is given and evaluates the program on them; `scale` marks a version."""

    long = False

    def __init__(self, program: TensorProgram, options: Options) -> None:
        self.program, self.options, self.calls, self.subscribers = program, options, 0, []
        self.inputs, self.threads = program.inputs, options.threads or 1
        self.outputs = tuple(next(b for b in program.buffers if b.name == name) for name in program.outputs)
        self.params = tuple((i, d) for i, b in enumerate(self.inputs) for d, s in enumerate(b.strides or ()) if isinstance(s, str))
        self.timings: list[float] = []
        self.install(1)

    def install(self, scale: int) -> None:
        def run(buffers: Any, params: Any, threads: int) -> None:
            self.calls += 1
            arrays = []
            for i, b in enumerate(self.inputs):
                steps = [params[self.params.index((i, d))] if isinstance(s, str) else s for d, s in enumerate(b.element_strides)]
                size = 1 + sum(s * (e - 1) for s, e in zip(steps, b.shape, strict=True))
                flat = np.frombuffer((ctypes.c_char * (size * b.dtype.bytes)).from_address(buffers[i]), b.dtype.numpy)
                bytes_ = [s * b.dtype.bytes for s in steps]
                arrays.append(np.lib.stride_tricks.as_strided(flat, b.shape, bytes_))
            results = evaluate(self.program, arrays, wide=False)
            for i, (b, result) in enumerate(zip(self.outputs, results, strict=True), len(arrays)):
                data = np.ascontiguousarray((result * scale).astype(b.dtype.numpy))
                ctypes.memmove(buffers[i], data.ctypes.data, data.nbytes)

        self.code = ENTRY(run)
        self.entry = ctypes.cast(self.code, ctypes.c_void_p).value or 0
        for changed in self.subscribers:
            changed()

    def subscribe(self, changed: Callable[[], None]) -> None:
        self.subscribers.append(changed)

    def explain(self) -> str:
        return f"{len(self.program.computes)} computes"

    def source(self, target: str) -> str:
        return f"; {target}"

    def tune(self, budget: float | None = None, trials: int | None = None) -> TuningResult:
        self.install(2)
        return TuningResult(1e-6, 2e-6, trials or 0, budget or 0.0, "tuned", ["steps"], {"slow": 1}, [{"seconds": 1e-6}])

    def launched(self, seconds: float) -> None:
        self.timings.append(seconds)


class Fake:
    """A session that remembers what it prepared."""

    def __init__(self) -> None:
        self.prepared: list[Prepared] = []

    def prepare(self, program: TensorProgram, options: Options) -> Prepared:
        self.prepared.append(Prepared(program, options))
        return self.prepared[-1]


@pytest.fixture(autouse=True)
def private_cache(tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AUTOTUNE_CACHE_DIR", str(tmp_path_factory.getbasetemp() / "cache"))


@pytest.fixture
def fake() -> Fake:
    return Fake()


Make = Callable[..., Kernel]


@pytest.fixture(params=["native", "python"])
def make(request: pytest.FixtureRequest, fake: Fake) -> Make:
    """make(fn, **options), on either call path."""
    return lambda fn, **options: make_kernel(fn, options, fake, native=request.param == "native")


def dense(x: Any, w: Any, b: Any) -> Any:
    return np.maximum(x @ w + b, 0)


def check(kernel: Kernel, *args: Any, **kwargs: Any) -> Any:
    """Three calls (the first makes the plan, the others may take the native path) equal to NumPy; the last result."""
    expected = kernel._fn(*args, **kwargs)
    for _ in range(3):
        result = kernel(*args, **kwargs)
        flat = result if isinstance(expected, tuple) else (result,)
        for got, want in zip(flat, expected if isinstance(expected, tuple) else (expected,), strict=True):
            assert type(got) is np.ndarray and got.dtype == np.asarray(want).dtype and got.shape == np.shape(want)
            np.testing.assert_allclose(got, want, rtol=1e-5, atol=1e-6)
            assert got.flags.c_contiguous and got.flags.writeable and (not got.size or got.ctypes.data % 64 == 0)
    return result


def test_the_native_path_is_in_use_here(make: Make, fake: Fake) -> None:
    path = call_path()
    assert not isinstance(path, Exception), path
    kernel = make(dense)
    check(kernel, X, W, BIAS)
    assert (len(kernel._table) == 1) if kernel._table is not None else type(kernel) is Kernel
    assert len(fake.prepared) == 1 and fake.prepared[0].calls == 3


def test_one_plan_a_signature(make: Make, fake: Fake) -> None:
    kernel = make(lambda a, b: a + b)
    a = np.ones((3, 4), np.float32)
    for b in (a, a.copy(), np.ones(4, np.float32), a.astype(np.float64), a[:, :1].copy(), np.float32(2), 2, 2.0, True):
        check(kernel, a, b)
    assert len(fake.prepared) == 8
    check(kernel, a, 3)
    check(kernel, a, b=a)
    assert len(fake.prepared) == 10


BASE = np.arange(4096 * 4, dtype=np.float32).reshape(4, 4096)
LAYOUTS = {
    "contiguous": (BASE, None),
    "transposed": (BASE.T, (1, 4096)),
    "permuted": (BASE.reshape(4, 64, 64).transpose(1, 0, 2), (64, 4096, 1)),
    "columns": (BASE[:, 4:8], ("x.s0", 1)),
    "rows of another stride": (BASE.reshape(16, 1024)[:, :24][::3], ("x.s0", 1)),
    "every second": (BASE[:, ::2], ("x.s0", "x.s1")),
    "broadcast": (np.broadcast_to(BASE[0, :5], (3, 5)), (0, 1)),
    "broadcast column": (np.broadcast_to(BASE[:, :1], (4, 3)), ("x.s0", 0)),
    "one row": (BASE[1:2], None),
    "scalar": (np.array(3, np.float32), None),
    "diagonal": (BASE[:, :4].diagonal(), ("x.s0",)),
    "windows": (np.lib.stride_tricks.sliding_window_view(BASE[0, :9], 4), (1, 1)),
}


@pytest.mark.parametrize("name", LAYOUTS)
def test_layouts(make: Make, fake: Fake, name: str) -> None:
    array, strides = LAYOUTS[name]
    check(make(lambda x: x * 2), array)
    assert fake.prepared[0].inputs[0].strides == strides


def test_stride_values_are_run_time_arguments(make: Make, fake: Fake) -> None:
    kernel = make(lambda x: x + 1)
    for width in (40, 41, 57):
        check(kernel, np.arange(width * 4, dtype=np.float64).reshape(4, width)[:, :30])
    assert len(fake.prepared) == 1
    check(kernel, np.arange(512 * 4, dtype=np.float64).reshape(4, 512)[:, :30])
    assert len(fake.prepared) == 2, "a stride that is a multiple of 4096 bytes is another layout class"


class Sub(np.ndarray):
    pass


def unaligned() -> np.ndarray:
    return np.zeros(33, np.uint8)[1:].view(np.float32)


def odd_stride() -> np.ndarray:
    return np.zeros(4, np.dtype([("a", "f8"), ("b", "i4")]))["a"]


@pytest.mark.parametrize(
    ("array", "words"),
    [(X[::-1], "negative stride"), (X.astype(">f4"), "byte order"), (X.view(Sub), "Sub; array subclasses"),
     (np.matrix(X), "matrix"), (np.array([1, "a"], object), "object"), (X.astype(complex), "complex"),
     (np.array(["a"]), "U1"), (unaligned(), "aligned"), (odd_stride(), "aligned|12 bytes"), (object(), "object"),
     ({1, 2}, "set"), (np.zeros(3, "M8[s]"), "M8"), (autotune.spec("f32", 3), "spec stands for")],
    ids=["negative", "byte order", "subclass", "matrix", "object", "complex", "text", "misaligned", "odd stride", "any object",
         "set", "time", "spec"],
)  # fmt: skip
def test_what_no_kernel_accepts_is_refused_by_name(make: Make, array: Any, words: str) -> None:
    kernel = make(lambda x, y=None: x if y is None else y)
    with pytest.raises(SignatureError, match=words):
        kernel(array)
    with pytest.raises(SignatureError, match=words):
        kernel(X, y=array)
    if not isinstance(array, autotune.tracer.Spec):
        with pytest.raises(SignatureError, match="argument 'y'|argument 2" if words != "byte order" else "argument"):
            kernel(X, y=array)


STATICS = [0, 1, True, 1.0, -0.0, 0.0, float("nan"), "sum", None, (1, 2), (1.0, 2), [1, 2], {"a": 1}, np.float32(1), slice(1, 2)]


def test_static_values_are_part_of_the_signature_with_their_types(make: Make, fake: Fake) -> None:
    seen: list[Any] = []

    def fn(x: Any, how: Any) -> Any:
        seen.append(how)
        return x + len(seen)

    kernel = make(fn)
    for n, value in enumerate(STATICS, 1):
        for _ in range(2):
            same = copy.deepcopy(value)
            np.testing.assert_array_equal(kernel(X, same), X + np.float32(2 * n - 1))
            np.testing.assert_array_equal(kernel(X, how=same), X + np.float32(2 * n))
    assert len(seen) == 2 * len(STATICS)
    changing = [5]
    first = kernel(X, changing)
    changing.append(6)
    assert kernel(X, changing)[0, 0] != first[0, 0], "a list that has changed is another argument"


Pair = namedtuple("Pair", "low high")


def flat(value: Any) -> list[Any]:
    items = value.values() if isinstance(value, dict) else value
    return [leaf for item in items for leaf in (flat(item) if isinstance(item, (tuple, list)) else [item])]


@pytest.mark.parametrize(
    ("fn", "kind"),
    [(lambda x: (x + 1, x * 2), tuple), (lambda x: [x + 1, x.sum()], list), (lambda x: {"a": x + 1, "b": (x * 2, 3)}, dict),
     (lambda x: Pair(x.min(), x.max()), Pair), (lambda x: (x * 2, x * 2), tuple), (lambda x: (x.sum(),), tuple),
     (lambda x: (x, 1, None), tuple)],
    ids=["tuple", "list", "dict", "namedtuple", "twice", "one", "with values"],
)  # fmt: skip
def test_the_structure_of_the_result(make: Make, fn: Callable[[Any], Any], kind: type) -> None:
    kernel, expected = make(fn), fn(X)
    for _ in range(3):
        result = kernel(X)
        assert type(result) is kind
        for got, want in zip(flat(result), flat(expected), strict=True):
            np.testing.assert_allclose(got, want, rtol=1e-5) if want is not None else None
            assert not isinstance(got, np.ndarray) or not np.may_share_memory(got, X), "never a view of an input"


def test_arguments_inside_containers(make: Make) -> None:
    kernel = make(lambda p, scale=1, *rest, **named: p["w"][0] * scale + p["b"] + sum(rest) + sum(named.values()))
    for scale in (2, 3):
        parameters = {"w": (rng.standard_normal((4, 6)), 7), "b": rng.standard_normal(6)}
        np.testing.assert_allclose(kernel(parameters, scale), parameters["w"][0] * scale + parameters["b"])
        extra = kernel(parameters, scale, X, z=X)
        np.testing.assert_allclose(extra, parameters["w"][0] * scale + parameters["b"] + 2 * X, rtol=1e-6)


# ---- out --------------------------------------------------------------------------------------------------------------


def test_out_is_written_and_returned(make: Make) -> None:
    kernel = make(dense)
    out = np.empty((4, 5), np.float32)
    for _ in range(3):
        out[:] = np.nan
        assert kernel(X, W, BIAS, out=out) is out
        np.testing.assert_allclose(out, dense(X, W, BIAS), rtol=1e-5)
    np.testing.assert_allclose(kernel(X, W, b=BIAS, out=None), out)
    two = make(lambda x: (x + 1, x.sum()))
    outs = (np.empty_like(X), np.empty((), np.float32))
    for _ in range(3):
        first, second = two(X, out=outs)
        assert first is outs[0] and second is outs[1]
    np.testing.assert_allclose(outs[0], X + 1)


def frozen() -> np.ndarray:
    array = np.empty_like(X)
    array.flags.writeable = False
    return array


@pytest.mark.parametrize(
    ("out", "words"),
    [(frozen(), "read-only"), (np.empty((6, 4), np.float32), "float32.*6, 4"), (np.empty((4, 6)), "float64"), ([1], "not int"),
     (np.empty((4, 6), ">f4"), "out="), (np.empty((4, 6), np.float32).view(Sub), "Sub"), ((X.copy(), X.copy()), "2 arrays"),
     ("text", "str")],
    ids=["read-only", "shape", "dtype", "list", "byte order", "subclass", "too many", "text"],
)  # fmt: skip
def test_an_out_that_does_not_fit_is_refused(make: Make, out: Any, words: str) -> None:
    kernel = make(lambda x: x + 1)
    for _ in range(2):
        with pytest.raises(SignatureError, match=words):
            kernel(X, out=out)
        kernel(X, out=X.copy())


def test_outs_that_overlap_each_other_are_refused(make: Make) -> None:
    block = np.empty(9, np.float32)
    with pytest.raises(SignatureError, match="overlap"):
        make(lambda x: (x + 1, x * 2))(BIAS, out=(block[:5], block[4:]))


def test_an_out_that_overlaps_an_input_or_is_strided_is_still_right(make: Make) -> None:
    kernel = make(lambda x, y: x * 2 + y.sum())
    kernel(BIAS, BIAS, out=np.empty(5, np.float32))
    for start in (0, 1, 3, 5):
        block = np.arange(10, dtype=np.float32)
        expected = block[0:5] * 2 + block[0:5].sum()
        out = block[start : start + 5]
        assert kernel(block[0:5], block[0:5].copy() if start == 1 else block[0:5], out=out) is out
        np.testing.assert_allclose(out, expected)
    wide = np.zeros(10, np.float32)
    assert kernel(BIAS, BIAS, out=wide[::2]).base is wide
    np.testing.assert_allclose(wide[::2], BIAS * 2 + 5)
    assert not wide[1::2].any()


# ---- captured values ---------------------------------------------------------------------------------------------------

WEIGHTS = np.ones(6, np.float32)
SCALE = 2.0


def helper(x: Any) -> Any:
    return x * WEIGHTS


def test_captured_arrays_are_read_on_every_call(make: Make, fake: Fake, monkeypatch: pytest.MonkeyPatch) -> None:
    inner = np.full(6, 3, np.float32)
    kernels = [make(lambda x: x * inner), make(lambda x: x * WEIGHTS), make(helper), make(lambda x: helper(x) + 0)]
    monkeypatch.setattr(sys.modules[__name__], "WEIGHTS", np.ones(6, np.float32))
    for kernel in kernels:
        check(kernel, X)
    WEIGHTS[2] = inner[2] = 7
    for kernel in kernels:
        check(kernel, X)
    inner = np.full(6, 9, np.float32)
    monkeypatch.setattr(sys.modules[__name__], "WEIGHTS", np.full(6, 5, np.float32))
    for kernel in kernels:
        check(kernel, X)
    assert len(fake.prepared) == len(kernels)
    inner = np.full((4, 6), 9, np.float64)
    monkeypatch.setattr(sys.modules[__name__], "WEIGHTS", np.full((4, 1), 5, np.float32))
    for kernel in kernels:
        check(kernel, X)
    assert len(fake.prepared) == 2 * len(kernels)


def test_captured_scalars_are_read_once_a_signature(make: Make, monkeypatch: pytest.MonkeyPatch) -> None:
    kernel = make(lambda x: x * SCALE)
    np.testing.assert_allclose(kernel(X), X * 2)
    monkeypatch.setattr(sys.modules[__name__], "SCALE", 3.0)
    np.testing.assert_allclose(kernel(X), X * 2)
    np.testing.assert_allclose(kernel(X[:2]), X[:2] * 3)


def test_a_kernel_inside_a_kernel(make: Make, fake: Fake) -> None:
    inner = make(lambda x: x * WEIGHTS)
    np.testing.assert_allclose(make(lambda x: inner(x) + 1)(X), X * WEIGHTS + 1)
    assert len(fake.prepared) == 1


# ---- empty arrays ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("fn", "shape"),
    [(lambda x: x + 1, (0, 3)), (lambda x: x.sum(), (0,)), (lambda x: x.sum(axis=0), (0, 3)), (lambda x: x[:0] * 2, (4,)),
     (lambda x: x @ np.ones((0, 2), np.float32), (3, 0)), (lambda x: (x.T, x.sum(axis=1)), (2, 0)), (lambda x: x.prod(), (0,))],
    ids=["elementwise", "sum", "sum rows", "empty slice", "product", "two", "prod"],
)  # fmt: skip
def test_empty_arrays(make: Make, fake: Fake, fn: Callable[[Any], Any], shape: tuple[int, ...]) -> None:
    kernel = make(fn)
    x = np.ones(shape, np.float32)
    result = check(kernel, x)
    assert not fake.prepared
    if not isinstance(result, tuple):
        out = np.empty_like(result)
        assert kernel(x, out=out) is out and (out == result).all()
    with pytest.raises(SignatureError, match="empty"):
        kernel.tune(x)
    assert "NumPy" in kernel.explain(x)


def test_reductions_of_nothing_raise_what_numpy_raises(make: Make) -> None:
    with pytest.raises(ValueError, match="zero-size array to reduction"):
        make(lambda x: x.max())(np.ones((0, 3)))


@pytest.mark.parametrize("shape", [(), (1,), (1, 1, 1)])
def test_one_element(make: Make, shape: tuple[int, ...]) -> None:
    check(make(lambda x: x + 1), np.full(shape, 2.5))
    check(make(lambda x: x.sum()), np.full(shape, 2.5))


def test_sizes_beyond_all_memory(make: Make) -> None:
    huge = np.broadcast_to(np.float32(1), (1 << 40,))
    with pytest.raises(autotune.AutotuneError, match="bytes or more"):
        make(lambda x: x[:, None] + x)(huge)


# ---- tuning, options ---------------------------------------------------------------------------------------------------


def test_tuning_changes_what_calls_run(make: Make, fake: Fake, tmp_path: Path) -> None:
    kernel = make(lambda x, y: x + y)
    out = np.empty_like(X)
    kernel(X, X), kernel(X, X, out=out), kernel(X, y=X)
    result = kernel.tune(autotune.spec("f32", (4, 6)), X, budget=0.5, trials=3)
    assert (result.trials, result.elapsed, result.winner) == (3, 0.5, "tuned") and len(fake.prepared) == 2 - 1 + 1
    np.testing.assert_allclose(kernel(X, X), 4 * X)
    np.testing.assert_allclose(kernel(X, X, out=out), 4 * X)
    np.testing.assert_allclose(kernel(X, y=X), 2 * X), "keywords are another signature"
    fake.prepared[0].install(3)  # as tuning in the background does
    np.testing.assert_allclose(kernel(X, X), 6 * X)
    result.save(tmp_path / "result.json")
    saved = json.loads((tmp_path / "result.json").read_text())
    assert saved["winner"] == "tuned" and saved["rejections"] == {"slow": 1} and saved["history"] == [{"seconds": 1e-6}]


def test_specs_stand_for_arrays(make: Make, fake: Fake) -> None:
    kernel = make(dense)
    specs = [autotune.spec("f32", (4, 6)), autotune.spec("f32", (6, 5)), autotune.spec("f32", 5)]
    assert kernel.explain(*specs) == "1 computes" or "computes" in kernel.explain(*specs)
    assert kernel.source(*specs, target="cuda") == "; cuda" and kernel.source(*specs) == "; llvm"
    kernel(X, W, BIAS)
    assert len(fake.prepared) == 1
    kernel.source(autotune.spec("f32", (4, 6), strides=(1, 4)), *specs[1:])
    assert fake.prepared[1].inputs[0].strides == (1, 4) and len(fake.prepared) == 2


def test_contexts_choose_other_plans(make: Make, fake: Fake) -> None:
    kernel = make(lambda x: x + 1, tune="off")
    for _ in range(3):
        check(kernel, X)
        with autotune.context(threads=2):
            check(kernel, X)
        with autotune.context(threads=3, debug=2):
            check(kernel, X)
    assert [p.options.threads for p in fake.prepared] == [None, 2, 3]
    assert [len(p.timings) for p in fake.prepared] == [0, 0, 9], "each launch is reported where debugging asks for it"
    assert [p.options.tune for p in fake.prepared] == ["off"] * 3 and not CONTEXT.get()
    assert kernel._table is None or len(kernel._table) == 2


@pytest.mark.parametrize("wrong", [{"tune": "sometimes"}, {"threads": 0}, {"budget": -1}])
def test_wrong_options_are_the_decorated_lines_error(wrong: dict[str, Any]) -> None:
    with pytest.raises(UsageError):
        autotune.kernel(**wrong)(dense)


def test_forms_of_the_decorator() -> None:
    plain, called, direct = autotune.kernel(dense), autotune.kernel(threads=1, name="layer")(dense), autotune.kernel(fn=dense)
    assert all(isinstance(k, Kernel) for k in (plain, called, direct))
    assert plain.__name__ == "dense" and plain.__wrapped__ is dense and plain.__doc__ == dense.__doc__  # type: ignore[attr-defined]
    assert repr(called) == "<autotune.kernel layer>"
    with pytest.raises(TypeError, match="wraps a function"):
        autotune.kernel(3)  # type: ignore[arg-type]


module_kernel = autotune.kernel(helper)
module_kernel.__qualname__ = "module_kernel"


def test_copies_are_the_kernel_itself() -> None:
    assert copy.copy(module_kernel) is module_kernel and copy.deepcopy([module_kernel])[0] is module_kernel
    assert pickle.loads(pickle.dumps(module_kernel)) is module_kernel


# ---- torch -------------------------------------------------------------------------------------------------------------


def test_tensors(make: Make, fake: Fake) -> None:
    torch = pytest.importorskip("torch", reason="torch is not installed")
    kernel = make(dense)
    tensors = [torch.from_numpy(a.copy()) for a in (X, W, BIAS)]
    for _ in range(3):
        result = kernel(*tensors)
        assert isinstance(result, torch.Tensor) and torch.allclose(result, torch.relu(tensors[0] @ tensors[1] + tensors[2]))
    out = torch.empty(4, 5)
    assert kernel(*tensors, out=out) is out and torch.equal(out, result)
    assert torch.equal(kernel(tensors[0], W, BIAS), result), "arrays may be among the tensors"
    assert len(fake.prepared) == 1
    pair = make(lambda x: (x.T + 1, [x.sum()]))(tensors[0].t())
    assert torch.equal(pair[0], tensors[0] + 1) and pair[1][0].shape == ()
    half = torch.arange(6, dtype=torch.bfloat16)
    assert torch.equal(make(lambda x: x * 2)(half), half * 2) and fake.prepared[-1].inputs[0].dtype.name == "bf16"
    assert kernel.tune(*tensors).winner == "tuned"
    with pytest.raises(SignatureError, match="gradient"):
        kernel(tensors[0].clone().requires_grad_(), W, BIAS)
    with torch.no_grad():
        kernel(tensors[0].clone().requires_grad_(), W, BIAS)
    with pytest.raises(SignatureError, match="meta"):
        kernel(tensors[0].to("meta"), W, BIAS)


# ---- threads, processes, memory ----------------------------------------------------------------------------------------


def test_many_threads_make_one_plan(make: Make, fake: Fake) -> None:
    kernel, wrong = make(lambda x, s: x * s), []
    start = threading.Barrier(6)

    def work(seed: int) -> None:
        start.wait()
        for i in range(30):
            x = np.full(8 + i % 3, seed, np.float64)
            wrong.extend([] if (kernel(x, 2) == 2 * seed).all() else [seed])

    threads = [threading.Thread(target=work, args=(i,)) for i in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not wrong and len(fake.prepared) == 3


def test_a_kernel_that_calls_itself_while_tracing(make: Make) -> None:
    holder: list[Kernel] = []
    table = np.arange(4.0)
    holder.append(make(lambda x, depth=0: x + (holder[0](table, 1) if depth == 0 else 0)))
    np.testing.assert_allclose(holder[0](np.ones(4)), 1 + table)


@pytest.mark.skipif(not hasattr(os, "fork"), reason="no fork on this platform")
def test_after_fork(make: Make) -> None:
    kernel = make(lambda x: x + 1)
    kernel(X)
    kernel._lock.acquire()  # as if another thread of the parent were making a plan
    threading.Thread(target=lambda: None).start()
    child = os.fork()
    if not child:
        done = []
        worker = threading.Thread(target=lambda: done.append((kernel(X) == X + 1).all() and (kernel(BIAS) == 2).all()), daemon=True)
        worker.start()
        worker.join(20)
        os._exit(0 if done == [True] else 1)
    kernel._lock.release()
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0


@pytest.mark.skipif(not Path("/proc/self/statm").exists(), reason="memory in use is read from /proc")
def test_calls_leave_nothing_behind(make: Make) -> None:
    kernel, out = make(lambda x: x + 1), np.empty(5, np.float32)
    used = lambda: int(Path("/proc/self/statm").read_text().split()[1])  # noqa: E731

    def calls() -> None:
        for _ in range(400):
            kernel(BIAS)
            kernel(BIAS, out=out)
            with contextlib.suppress(SignatureError):
                kernel(object())

    calls()
    gc.collect()
    before = used()
    calls()
    gc.collect()
    assert used() - before < 100


def test_kernels_are_collected(make: Make) -> None:
    kernel = make(lambda x: x + 1)
    result, alive = kernel(X), weakref.ref(kernel)
    del kernel
    gc.collect()
    assert alive() is None and (result == X + 1).all()


def test_results_outlive_their_kernel_and_the_interpreter() -> None:
    code = """
import numpy as np, autotune
from autotune.codegen import launch
path = autotune.decorator.call_path()
kernel = autotune.kernel(lambda x: x)
kept = [kernel]
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60, cwd=Path(__file__).parents[1])
    assert (done.returncode, done.stderr) == (0, "")


def test_dtypes_of_every_kind(make: Make) -> None:
    kernel = make(lambda x: x + x)
    for dtype in ("f2", "f4", "f8", "i1", "u1", "i2", "i4", "i8", "?", ml_dtypes.bfloat16):
        check(kernel, np.ones(3, dtype))


def test_kinds_say_what_they_depend_on() -> None:
    kind = array_kind(BASE[:, ::2], "x")
    assert kind == array_kind(BASE[:, 1::2], "x") and hash(kind) and kind.size == 4 * 2048
    assert kind != array_kind(BASE[:, ::4][:, :2048], "x") and kind.axes[1].rule == "general not 4K"


@pytest.fixture(autouse=True, scope="module")
def no_context_left() -> Iterator[None]:
    yield
    assert not CONTEXT.get()
