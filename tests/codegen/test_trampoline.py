"""The native call path: which calls a guard lets through, what they return, and that nothing leaks or is mixed up."""

from __future__ import annotations

import ctypes
import gc
import sys
import sysconfig
import threading
import weakref
from collections.abc import Callable
from contextvars import ContextVar
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from autotune.codegen import jit, launch, trampoline
from autotune.codegen.launch import ArrayGuard, Axis, Form, Launch, StaticGuard, Table, aligned_empty
from autotune.codegen.runtime import runtime
from autotune.ir.errors import BuildError

F32, I64 = np.dtype(np.float32), np.dtype(np.int64)
TOKEN: ContextVar[Any] = ContextVar("token", default=())
# out[i] = a[i * stride] + b[i] for params = [stride] (or 1 without one), i < 4; the second output is the first doubled
KERNELS = """
define internal void @sum(ptr %a, ptr %b, ptr %c, i64 %s) {
  br label %loop
loop:
  %i = phi i64 [ 0, %0 ], [ %n, %loop ]
  %j = mul i64 %i, %s
  %pa = getelementptr float, ptr %a, i64 %j
  %pb = getelementptr float, ptr %b, i64 %i
  %pc = getelementptr float, ptr %c, i64 %i
  %x = load float, ptr %pa, align 4
  %y = load float, ptr %pb, align 4
  %z = fadd float %x, %y
  store float %z, ptr %pc, align 4
  %n = add i64 %i, 1
  %more = icmp slt i64 %n, 4
  br i1 %more, label %loop, label %end
end:
  ret void
}
define void @add(ptr %buffers, ptr %params, i64 %threads) {
  %a = load ptr, ptr %buffers
  %q = getelementptr ptr, ptr %buffers, i64 1
  %b = load ptr, ptr %q
  %r = getelementptr ptr, ptr %buffers, i64 2
  %c = load ptr, ptr %r
  call void @sum(ptr %a, ptr %b, ptr %c, i64 1)
  ret void
}
define void @strided(ptr %buffers, ptr %params, i64 %threads) {
  %a = load ptr, ptr %buffers
  %q = getelementptr ptr, ptr %buffers, i64 1
  %b = load ptr, ptr %q
  %r = getelementptr ptr, ptr %buffers, i64 2
  %c = load ptr, ptr %r
  %s = load i64, ptr %params
  call void @sum(ptr %a, ptr %b, ptr %c, i64 %s)
  ret void
}
define void @two(ptr %buffers, ptr %params, i64 %threads) {
  call void @add(ptr %buffers, ptr %params, i64 1)
  %r = getelementptr ptr, ptr %buffers, i64 2
  %c = load ptr, ptr %r
  %t = getelementptr ptr, ptr %buffers, i64 3
  %d = load ptr, ptr %t
  call void @sum(ptr %c, ptr %c, ptr %d, i64 1)
  ret void
}
"""


class Base:
    """A class of Python whose instances are called natively through the subclass under test."""

    def __init__(self, name: str) -> None:
        self.name = name

    def method(self) -> str:
        return self.name


def miss(self: Base, /, *args: Any, **kwargs: Any) -> Any:
    if kwargs.get("fail"):
        raise KeyError("from the slow path")
    return ("miss", self, args, kwargs)


@pytest.fixture(scope="module")
def fast() -> trampoline.FastType:
    return trampoline.fast_type(Base, miss, TOKEN, runtime())


@pytest.fixture(scope="module")
def code() -> jit.Loaded:
    return jit.load(jit.assemble(KERNELS, ""), "add", {}, ("strided", "two"))


UNIT = (Axis(4, "exact", 4),)
PAIR = (ArrayGuard(0, F32, UNIT, 0), ArrayGuard(1, F32, UNIT, 1))
OUT = (*PAIR, ArrayGuard(2, F32, UNIT, 2, out=True))
A, B = np.arange(4, dtype=np.float32), np.array([10, 20, 30, 40], np.float32)
WIDE = np.arange(8, dtype=np.float32)


def make(fast: trampoline.FastType, *entries: tuple[Form, Launch]) -> Any:
    instance, table = fast.type("k"), Table()
    for i, (form, run) in enumerate(entries):
        table.add(i, form, run)
    instance.table = table
    fast.attach(instance, table)
    return instance


@pytest.fixture
def adder(fast: trampoline.FastType, code: jit.Loaded) -> Any:
    run = Launch(code.address, 1, 2, ((F32, (4,)),), owner=code)
    return make(fast, (Form(2, (), PAIR, ()), run), (Form(2, ("out",), OUT, ()), run))


def missed(result: Any) -> bool:
    return isinstance(result, tuple) and result[0] == "miss"


def test_the_instance_is_an_ordinary_object(fast: trampoline.FastType, adder: Any) -> None:
    assert isinstance(adder, Base) and adder.method() == "k" and callable(adder)
    vars(adder)["extra"] = 1
    assert getattr(adder, "extra", 0) == 1 and weakref.ref(adder)() is adder
    with pytest.raises(TypeError):
        fast.type("not attached to a table")(A, B)


def test_a_fresh_result(adder: Any) -> None:
    result = adder(A, B)
    np.testing.assert_array_equal(result, [10, 21, 32, 43])
    assert type(result) is np.ndarray and result.dtype is F32 and result.ctypes.data % 64 == 0 and result.base is None
    assert result.flags.owndata and result.flags.c_contiguous and result.flags.writeable and result.flags.aligned
    assert sys.getrefcount(result) <= 2
    again = adder(A, B)
    assert not np.may_share_memory(result, again)


def test_results_are_numpy_arrays_in_every_way(adder: Any) -> None:
    result = adder(A, B)
    result.resize(9, refcheck=False)
    np.testing.assert_array_equal(result, [10, 21, 32, 43, 0, 0, 0, 0, 0])
    assert result.ctypes.data % 64 == 0
    result.resize(2, refcheck=False)
    result.sort()
    view, result = result[1:], None
    gc.collect()
    assert view[0] == 21


def test_out(adder: Any) -> None:
    out = np.empty(4, np.float32)
    assert adder(A, B, out=out) is out
    np.testing.assert_array_equal(out, A + B)
    before = sys.getrefcount(out)
    for _ in range(100):
        adder(A, B, out=out)
    assert sys.getrefcount(out) == before


def read_only() -> np.ndarray:
    out = np.empty(4, np.float32)
    out.flags.writeable = False
    return out


@pytest.mark.parametrize(
    "out",
    [read_only, lambda: np.empty(5, np.float32), lambda: np.empty(4), lambda: np.empty(8, np.float32)[::2],
     lambda: np.empty((4, 1), np.float32), lambda: None, lambda: np.empty(4, ">f4"), lambda: A, lambda: B],
    ids=["read-only", "shape", "dtype", "stride", "rank", "none", "byte order", "first input", "second input"],
)  # fmt: skip
def test_an_out_that_does_not_fit_goes_to_python(adder: Any, out: Callable[[], Any]) -> None:
    assert missed(adder(A, B, out=out()))


def test_overlap_is_seen_to_the_byte(adder: Any) -> None:
    block = np.zeros(12, np.float32)
    assert missed(adder(block[0:4], B, out=block[3:7])) and missed(adder(block[4:8], B, out=block[1:5]))
    assert not missed(adder(block[0:4], block[8:12], out=block[4:8]))


class Sub(np.ndarray):
    pass


@pytest.mark.parametrize(
    "array",
    [np.arange(4.0), np.arange(5, dtype=np.float32), WIDE[::2], A[None], A.view(Sub), A.astype(">f4"), A.tolist(), None,
     3, WIDE.view(np.uint8)[1:17].view(np.float32)],
    ids=["dtype", "extent", "stride", "rank", "subclass", "byte order", "list", "none", "int", "misaligned"],
)  # fmt: skip
def test_other_arguments_go_to_python(adder: Any, array: Any) -> None:
    for args in ((array, B), (A, array)):
        kind, instance, given, kwargs = adder(*args)
        assert kind == "miss" and instance is adder and not kwargs
        assert all(g is a for g, a in zip(given, args, strict=True))


def test_the_form_of_the_call_counts(adder: Any) -> None:
    assert missed(adder()) and missed(adder(A)) and missed(adder(A, B, B)) and missed(adder(A, b=B))
    assert adder(A, B, x=1, y="z")[3] == {"x": 1, "y": "z"} and missed(adder(*[A] * 300))
    with pytest.raises(KeyError, match="slow path"):
        adder(A, fail=True)
    assert missed(adder(A, B, **{"".join(["o", "ut"]): A})), "names are compared by identity; Python compares the rest"


@pytest.mark.parametrize(
    ("rule", "accepted"),
    [
        ("general not 4K", [8, 12, 64]),
        ("general 4K", [4096, 8192]),
        ("general", [8, 12, 64, 4096, 8192]),
        ("exact", [4]),
    ],
)
def test_run_time_strides(fast: trampoline.FastType, code: jit.Loaded, rule: str, accepted: list[int]) -> None:
    guards = (ArrayGuard(0, F32, (Axis(4, rule, 4),), 0), PAIR[1])
    params = ((0, 0),) if rule != "exact" else ()
    run = Launch(code.addresses["strided" if params else "add"], 1, 2, ((F32, (4,)),), params, owner=code)
    strided = make(fast, (Form(2, (), guards, ()), run))
    source = np.arange(8192, dtype=np.float32)
    for stride in (0, 4, 8, 12, 64, 4096, 8192, 6, -4):
        view = np.lib.stride_tricks.as_strided(source[16:], (4,), (stride,))
        result = strided(view, B)
        assert missed(result) == (stride not in accepted), stride
        if stride in accepted:
            np.testing.assert_array_equal(result, view + B)
            np.testing.assert_array_equal(run.run([view, B])[0], view + B)


def test_a_stride_of_one_element_does_not_matter(fast: trampoline.FastType, code: jit.Loaded) -> None:
    axes = (Axis(1, "any"), Axis(4, "exact", 4))
    run = Launch(code.address, 1, 2, ((F32, (1, 4)),), owner=code)
    wide = make(fast, (Form(2, (), (ArrayGuard(0, F32, axes, 0), PAIR[1]), ()), run))
    odd = np.lib.stride_tricks.as_strided(A, (1, 4), (1234, 4))
    np.testing.assert_array_equal(wide(odd, B), (A + B)[None])


STATICS = [3, 2**70, 0.5, float("nan"), -0.0, "sum", "µ" * 50, None, True, (1, 2), np.sqrt]


@pytest.mark.parametrize("value", STATICS, ids=repr)
def test_static_values_are_compared_by_value_and_type(fast: trampoline.FastType, code: jit.Loaded, value: Any) -> None:
    form = Form(3, ("axis",), (*PAIR, StaticGuard(2, value), StaticGuard(3, value)), ())
    kernel = make(fast, (form, Launch(code.address, 1, 2, ((F32, (4,)),), owner=code)))
    assert not missed(kernel(A, B, value, axis=value))
    equal = float(str(value)) if type(value) is float else int(str(value)) if type(value) is int else value
    equal = "".join(list(value)) if value == "sum" else equal
    assert not missed(kernel(A, B, equal, axis=equal))
    others: list[Any] = [x for x in (*STATICS, 0.0, 1, 1.0, 3.0, "sun", [], A) if x is not value]
    for other in others:
        assert missed(kernel(A, B, value, axis=other)) and missed(kernel(A, B, other, axis=value)), other


def test_several_outputs_make_a_tuple(fast: trampoline.FastType, code: jit.Loaded) -> None:
    run = Launch(code.addresses["two"], 1, 2, ((F32, (4,)), (F32, (2, 2))), single=False, owner=code)
    kernel = make(fast, (Form(2, (), PAIR, ()), run))
    for result in (kernel(A, B), tuple(run.run([A, B]))):
        assert type(result) is tuple and [r.shape for r in result] == [(4,), (2, 2)]
        np.testing.assert_array_equal(result[0], A + B)
        np.testing.assert_array_equal(result[1].ravel(), 2 * (A + B))


def test_captured_arrays_are_read_where_they_stand(fast: trampoline.FastType, code: jit.Loaded) -> None:
    fixed, held = B.copy(), B.copy()
    variables: dict[str, Any] = {"w": B.copy()}

    def cell() -> Any:
        return held

    places: list[dict[str, Any]] = [
        {"holder": fixed}, {"holder": cell.__closure__[0]}, {"holder": variables, "name": "w"},  # type: ignore[index]
    ]  # fmt: skip
    for long in (False, True):
        run = Launch(code.address, 1, 2, ((F32, (4,)),), long=long, owner=code)
        kernels = [make(fast, (Form(1, (), (PAIR[0], ArrayGuard(None, F32, UNIT, 1, **p)), ()), run)) for p in places]
        fixed[:] = held[:] = variables["w"][:] = [1, 1, 1, 1]
        for kernel in kernels:
            np.testing.assert_array_equal(kernel(A), A + 1)
        held, variables["w"] = np.full(4, 5, np.float32), np.full(4, 5, np.float32)
        for kernel in kernels[1:]:
            np.testing.assert_array_equal(kernel(A), A + 5)
        count = sys.getrefcount(held)
        kernels[1](A)
        assert sys.getrefcount(held) == count
        held, variables["w"] = np.zeros(5, np.float32), "no array"
        assert missed(kernels[1](A)) and missed(kernels[2](A)) and not missed(kernels[0](A))
        del held, variables["w"]
        assert missed(kernels[1](A)) and missed(kernels[2](A))
        held, variables["w"] = B.copy(), B.copy()


def test_entries_hold_only_under_their_token(fast: trampoline.FastType, code: jit.Loaded) -> None:
    run = Launch(code.address, 1, 2, ((F32, (4,)),), owner=code)
    kernel, token = make(fast, (Form(2, (), PAIR, ()), run)), {"threads": 1}
    before = TOKEN.set(token)
    assert missed(kernel(A, B))
    kernel.table.add("inside", Form(2, (), PAIR, token), run)
    assert not missed(kernel(A, B))
    TOKEN.reset(before)
    assert not missed(kernel(A, B)), "the entry of the default is still there"
    assert not missed(threaded(lambda: kernel(A, B)))
    other = {"threads": 1}
    kernel.table.add("inside", Form(2, (), PAIR, other), run)
    assert len(kernel.table) == 2
    TOKEN.set(other)
    assert not missed(kernel(A, B))
    TOKEN.set(token)
    assert missed(kernel(A, B))
    TOKEN.set(())


def threaded(work: Callable[[], Any]) -> Any:
    results: list[Any] = []
    thread = threading.Thread(target=lambda: results.append(work()))
    thread.start()
    thread.join()
    return results[0]


def test_many_entries_and_replacement(fast: trampoline.FastType, code: jit.Loaded) -> None:
    run = Launch(code.address, 1, 2, ((F32, (4,)),), owner=code)
    entries = [(Form(3, (), (*PAIR, StaticGuard(2, i)), ()), run) for i in range(100)]
    kernel = make(fast, *entries)
    for i in (0, 99, 50, 0, 99, 7, 7):
        assert not missed(kernel(A, B, i))
    assert missed(kernel(A, B, 100))
    other = jit.load(jit.assemble(KERNELS.replace("fadd", "fsub"), ""), "add")
    gone = weakref.ref(other.keep)
    kernel.table.add(7, entries[7][0], Launch(other.address, 1, 2, ((F32, (4,)),), owner=other))
    np.testing.assert_array_equal(kernel(A, B, 7), A - B)
    np.testing.assert_array_equal(kernel(A, B, 8), A + B)
    kernel.table.add(7, *entries[7])
    del other
    np.testing.assert_array_equal(kernel(A, B, 7), A + B)
    assert gone() is not None, "a call may still be inside of the code that was replaced"
    del kernel
    assert gone() is None


def test_what_is_too_large_is_left_to_python(fast: trampoline.FastType, code: jit.Loaded) -> None:
    guards = tuple(ArrayGuard(i, F32, UNIT, i) for i in range(launch.MAX_BUFFERS))
    kernel = make(fast, (Form(len(guards), (), guards, ()), Launch(code.address, 1, len(guards), ((F32, (4,)),))))
    assert missed(kernel(*[A] * len(guards)))
    huge = Launch(code.address, 1, 2, ((F32, (1 << 60,)),))
    kernel = make(fast, (Form(2, (), PAIR, ()), huge))
    with pytest.raises(MemoryError):
        kernel(A, B)


def test_the_lock_is_released_for_long_kernels(fast: trampoline.FastType) -> None:
    """The kernel waits until another Python thread has run, which it can only if the lock is free."""
    flag = np.zeros(1, np.int64)
    text = """
    define void @wait(ptr %buffers, ptr %params, i64 %threads) {
      %p = load ptr, ptr %buffers
      br label %again
    again:
      %v = load atomic i64, ptr %p acquire, align 8
      %set = icmp ne i64 %v, 0
      br i1 %set, label %end, label %again
    end:
      ret void
    }"""
    code = jit.load(jit.assemble(text, ""), "wait")
    run = Launch(code.address, 1, 1, ((I64, (1,)),), long=True, owner=code)
    kernel = make(fast, (Form(1, (), (ArrayGuard(0, I64, (Axis(1, "any"),), 0),), ()), run))
    setter = threading.Timer(0.02, lambda: flag.__setitem__(0, 1))
    setter.start()
    assert kernel(flag).shape == (1,) and flag[0] == 1


def test_threads_do_not_mix_results(adder: Any) -> None:
    wrong: list[int] = []

    def work(seed: int) -> None:
        a, out = np.full(4, seed, np.float32), np.empty(4, np.float32)
        for _ in range(3000):
            wrong.extend([] if adder(a, B)[0] == seed + 10 and adder(a, B, out=out)[3] == seed + 40 else [seed])

    threads = [threading.Thread(target=work, args=(i,)) for i in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not wrong


def used() -> int:
    return int(Path("/proc/self/statm").read_text().split()[1])


@pytest.mark.skipif(not Path("/proc/self/statm").exists(), reason="memory in use is read from /proc")
def test_ten_thousand_calls_leave_nothing(fast: trampoline.FastType, code: jit.Loaded, adder: Any) -> None:
    two = Launch(code.addresses["two"], 1, 2, ((F32, (4,)), (F32, (2, 2))), single=False, owner=code)
    pair, out = make(fast, (Form(2, (), PAIR, ()), two)), np.empty(4, np.float32)

    def calls() -> None:
        for _ in range(10_000):
            adder(A, B)
            adder(A, B, out=out)
            pair(A, B)
            adder(A, 3)

    calls()
    before, references = used(), sys.getrefcount(F32)
    calls()
    assert used() - before < 25 and abs(sys.getrefcount(F32) - references) < 5


def test_instances_are_collected(fast: trampoline.FastType, code: jit.Loaded) -> None:
    run = Launch(code.address, 1, 2, ((F32, (4,)),), owner=code)
    kernel = make(fast, (Form(2, (), PAIR, ()), run))
    kernel.cycle = [kernel]
    result, alive = kernel(A, B), weakref.ref(kernel)
    del kernel
    gc.collect()
    assert alive() is None
    np.testing.assert_array_equal(result, A + B)


def test_the_python_path_runs_the_same(code: jit.Loaded) -> None:
    run = Launch(code.address, 1, 2, ((F32, (4,)),), owner=code)
    (fresh,) = run.run([A, B])
    np.testing.assert_array_equal(fresh, A + B)
    assert fresh.ctypes.data % 64 == 0 and fresh.flags.c_contiguous
    out = np.empty(4, np.float32)
    assert run.run([A, B], [out])[0] is out and (out == A + B).all()


@pytest.mark.parametrize("shape", [(), (0,), (3, 0), (5,), (7, 3)])
@pytest.mark.parametrize("dtype", [np.float64, np.bool_, np.int16])
def test_aligned_arrays(dtype: Any, shape: tuple[int, ...]) -> None:
    array = aligned_empty(np.dtype(dtype), shape)
    assert array.shape == shape and array.dtype == dtype and array.flags.c_contiguous
    assert array.size == 0 or array.ctypes.data % 64 == 0


def test_a_layout_that_is_not_understood_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    assert trampoline.probe().data
    nothing = ctypes.cast(NOTHING, ctypes.c_void_p).value
    changes: list[tuple[Any, str, Any, str]] = [
        (sys, "byteorder", "big", "little-endian"), (sysconfig, "get_config_var", lambda name: 1, "lock"),
        (trampoline, "_numpy_api", lambda slot: nothing, "allocator"),
    ]  # fmt: skip
    for module, name, value, words in changes:
        with monkeypatch.context() as patch:
            patch.setattr(module, name, value)
            with pytest.raises(BuildError, match=words):
                trampoline.probe()


NOTHING = ctypes.CFUNCTYPE(ctypes.c_void_p)(lambda: None)
