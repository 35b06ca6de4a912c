"""Decorated functions: `out`, empty arrays, tuning, options, torch, threads, fork and memory.

Each on the native call path and on the one through Python, over kernels that evaluate their program naively.
"""

from __future__ import annotations

import contextlib
import copy
import gc
import json
import os
import pickle
import subprocess
import sys
import threading
import weakref
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import autotune
from autotune import decorator
from autotune.decorator import Kernel, call_path, make_kernel
from autotune.ir.errors import SignatureError, UsageError
from autotune.options import CONTEXT

from .fake_session import Fake, check, pages

rng = np.random.default_rng(0)
X, W = rng.standard_normal((4, 6)).astype(np.float32), rng.standard_normal((6, 5)).astype(np.float32)
BIAS = np.ones(5, np.float32)


class Sub(np.ndarray[Any, Any]):
    """An array subclass."""


def dense(x: Any, w: Any, b: Any) -> Any:
    return np.maximum(x @ w + b, 0)


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


def test_the_native_path_is_in_use_here(make: Make, fake: Fake) -> None:
    path = call_path()
    assert not isinstance(path, Exception), path
    kernel = make(dense)
    check(kernel, X, W, BIAS)
    assert (len(kernel._table) == 1) if kernel._table is not None else type(kernel) is Kernel
    assert len(fake.prepared) == 1 and fake.prepared[0].calls == 3


# ---- out ------------------------------------------------------------------------------------------------------------


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


def frozen() -> np.ndarray[Any, Any]:
    array = np.empty_like(X)
    array.flags.writeable = False
    return array


@pytest.mark.parametrize(
    ("out", "words"),
    [(frozen(), "read-only"), (np.empty((6, 4), np.float32), "float32.*6, 4"), (np.empty((4, 6)), "float64"),
     ([1], "not int"), (np.empty((4, 6), ">f4"), "out="), (np.empty((4, 6), np.float32).view(Sub), "Sub"),
     ((X.copy(), X.copy()), "2 arrays"), ("text", "str")],
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


# ---- empty arrays ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("fn", "shape"),
    [(lambda x: x + 1, (0, 3)), (lambda x: x.sum(), (0,)), (lambda x: x.sum(axis=0), (0, 3)),
     (lambda x: x[:0] * 2, (4,)), (lambda x: x @ np.ones((0, 2), np.float32), (3, 0)),
     (lambda x: (x.T, x.sum(axis=1)), (2, 0)), (lambda x: x.prod(), (0,))],
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
    with pytest.raises(autotune.AutotuneError):
        make(lambda x: x[:, None] + x)(huge)
    with pytest.raises(MemoryError):
        make(lambda x: x + 1)(np.broadcast_to(np.float32(1), (1 << 59,)))


# ---- tuning, options ------------------------------------------------------------------------------------------------


def test_tuning_changes_what_calls_run(make: Make, fake: Fake, tmp_path: Path) -> None:
    kernel = make(lambda x, y: x + y)
    out = np.empty_like(X)
    for first in (kernel(X, X), kernel(X, X, out=out), kernel(X, y=X)):
        np.testing.assert_allclose(first, 2 * X)
    result = kernel.tune(autotune.spec("f32", (4, 6)), X, budget=0.5, trials=3)
    assert (result.trials, result.elapsed, result.winner) == (3, 0.5, "tuned") and len(fake.prepared) == 2
    np.testing.assert_allclose(kernel(X, X), 4 * X)
    np.testing.assert_allclose(kernel(X, X, out=out), 4 * X)
    np.testing.assert_allclose(kernel(X, y=X), 2 * X)  # keywords are another signature
    fake.prepared[0].install(3)  # as tuning in the background does
    np.testing.assert_allclose(kernel(X, X), 6 * X)
    result.save(tmp_path / "result.json")
    saved = json.loads((tmp_path / "result.json").read_text())
    assert saved["winner"] == "tuned" and saved["rejections"] == {"slow": 1} and saved["history"] == [{"seconds": 1e-6}]


def test_specs_stand_for_arrays(make: Make, fake: Fake) -> None:
    kernel = make(dense)
    specs = [autotune.spec("f32", (4, 6)), autotune.spec("f32", (6, 5)), autotune.spec("f32", 5)]
    assert "computes" in kernel.explain(*specs)
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
    assert [p.launches for p in fake.prepared] == [0, 0, 9], "each launch is reported where debugging asks for it"
    assert [p.options.tune for p in fake.prepared] == ["off"] * 3 and not CONTEXT.get()
    assert kernel._table is None or len(kernel._table) == 2


@pytest.mark.parametrize("wrong", [{"tune": "sometimes"}, {"threads": 0}, {"budget": -1}])
def test_wrong_options_are_the_decorated_lines_error(wrong: dict[str, Any]) -> None:
    with pytest.raises(UsageError):
        autotune.kernel(**wrong)(dense)


def test_forms_of_the_decorator() -> None:
    plain, called = autotune.kernel(dense), autotune.kernel(threads=1, name="layer")(dense)
    assert all(isinstance(k, Kernel) for k in (plain, called, autotune.kernel(fn=dense)))
    assert plain.__name__ == "dense" and plain.__wrapped__ is dense and plain.__doc__ == dense.__doc__
    assert repr(called) == "<autotune.kernel layer>"
    with pytest.raises(TypeError, match="wraps a function"):
        make_kernel(3, {})  # type: ignore[arg-type]


module_kernel = autotune.kernel(dense)
module_kernel.__qualname__ = "module_kernel"


def test_copies_are_the_kernel_itself() -> None:
    assert copy.copy(module_kernel) is module_kernel and copy.deepcopy([module_kernel])[0] is module_kernel
    assert pickle.loads(pickle.dumps(module_kernel)) is module_kernel


# ---- torch ----------------------------------------------------------------------------------------------------------


def test_tensors(make: Make, fake: Fake, monkeypatch: pytest.MonkeyPatch) -> None:
    torch = pytest.importorskip("torch", reason="torch is not installed")
    monkeypatch.setattr(decorator, "GRADIENTS", [])  # the plugin may be imported
    kernel = make(dense)
    tensors = [torch.from_numpy(a.copy()) for a in (X, W, BIAS)]
    for _ in range(3):
        result = kernel(*tensors)
        expected = torch.relu(tensors[0] @ tensors[1] + tensors[2])
        assert isinstance(result, torch.Tensor) and torch.allclose(result, expected)
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


# ---- threads, processes, memory -------------------------------------------------------------------------------------


def test_many_threads_make_one_plan(make: Make, fake: Fake) -> None:
    kernel = make(lambda x, s: x * s)
    wrong: list[int] = []
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


@pytest.mark.filterwarnings("ignore:.*multi-threaded:DeprecationWarning")
@pytest.mark.skipif(not hasattr(os, "fork"), reason="no fork on this platform")
def test_after_fork(make: Make) -> None:
    kernel = make(lambda x: x + 1)
    kernel(X)
    kernel._lock.acquire()  # as if another thread of the parent were making a plan
    threading.Thread(target=lambda: None).start()
    child = os.fork()
    if not child:
        done: list[bool] = []
        right = lambda: done.append(bool((kernel(X) == X + 1).all() and (kernel(BIAS) == 2).all()))  # noqa: E731
        worker = threading.Thread(target=right, daemon=True)
        worker.start()
        worker.join(20)
        os._exit(0 if done == [True] else 1)
    kernel._lock.release()
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0


@pytest.mark.skipif(not Path("/proc/self/statm").exists(), reason="memory in use is read from /proc")
def test_calls_leave_nothing_behind(make: Make) -> None:
    kernel, out = make(lambda x: x + 1), np.empty(5, np.float32)

    def calls() -> None:
        for _ in range(400):
            kernel(BIAS)
            kernel(BIAS, out=out)
            with contextlib.suppress(SignatureError):
                kernel(object())

    calls()
    gc.collect()
    before = pages()
    calls()
    gc.collect()
    assert pages() - before < 100


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
    root = Path(__file__).parents[1]
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60, cwd=root)
    assert (done.returncode, done.stderr) == (0, "")


@pytest.fixture(autouse=True, scope="module")
def no_context_left() -> Iterator[None]:
    yield
    assert not CONTEXT.get()
