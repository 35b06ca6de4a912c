"""What makes a signature: layouts, static values, captured arrays; what is refused; how results are put together.

Each on the native call path and on the one through Python, over kernels that evaluate their program naively.
"""

from __future__ import annotations

import copy
import sys
from collections import namedtuple
from collections.abc import Callable
from typing import Any

import ml_dtypes
import numpy as np
import pytest

import autotune
from autotune.decorator import Kernel, make_kernel
from autotune.ir.errors import SignatureError
from autotune.signature import array_kind
from autotune.tracer import Spec

from .fake_session import Fake, check

rng = np.random.default_rng(0)
X, W = rng.standard_normal((4, 6)).astype(np.float32), rng.standard_normal((6, 5)).astype(np.float32)
BIAS = np.ones(5, np.float32)


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


class Sub(np.ndarray[Any, Any]):
    """An array subclass."""


def unaligned() -> np.ndarray[Any, Any]:
    return np.zeros(33, np.uint8)[1:].view(np.float32)


def odd_stride() -> np.ndarray[Any, Any]:
    return np.zeros(4, np.dtype([("a", "f8"), ("b", "i4")]))["a"]


@pytest.mark.parametrize(
    ("array", "words"),
    [(X[::-1], "negative stride"), (X.astype(">f4"), "byte order"), (X.view(Sub), "Sub; array subclasses"),
     (np.ma.array(X), "MaskedArray"), (np.array([1, "a"], object), "object"), (X.astype(complex), "complex"),
     (np.array(["a"]), "U1"), (unaligned(), "aligned"), (odd_stride(), "aligned|12 bytes"), (object(), "object"),
     ({1, 2}, "set"), (np.zeros(3, "M8[s]"), "M8"), (autotune.spec("f32", 3), "spec stands for")],
    ids=["negative", "byte order", "subclass", "masked", "object", "complex", "text", "misaligned", "odd stride",
         "any object", "set", "time", "spec"],
)  # fmt: skip
def test_what_no_kernel_accepts_is_refused_by_name(make: Make, array: Any, words: str) -> None:
    kernel = make(lambda x, y=None: x if y is None else y)
    with pytest.raises(SignatureError, match=words):
        kernel(array)
    with pytest.raises(SignatureError, match=words):
        kernel(X, y=array)
    if not isinstance(array, Spec):
        with pytest.raises(SignatureError, match="argument 'y'|argument 2" if words != "byte order" else "argument"):
            kernel(X, y=array)


STATICS = [0, 1, True, 1.0, -0.0, 0.0, float("nan"), "sum", None, (1, 2), (1.0, 2), [1, 2], {"a": 1}, np.float32(1)]


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
    [(lambda x: (x + 1, x * 2), tuple), (lambda x: [x + 1, x.sum()], list),
     (lambda x: {"a": x + 1, "b": (x * 2, 3)}, dict), (lambda x: Pair(x.min(), x.max()), Pair),
     (lambda x: (x * 2, x * 2), tuple), (lambda x: (x.sum(),), tuple), (lambda x: (x, 1, None), tuple)],
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
    def fn(p: Any, scale: int = 1, *rest: Any, **named: Any) -> Any:
        return p["w"][0] * scale + p["b"] + sum(rest) + sum(named.values())

    kernel = make(fn)
    for scale in (2, 3):
        parameters: dict[str, Any] = {"w": (rng.standard_normal((4, 6)), 7), "b": rng.standard_normal(6)}
        np.testing.assert_allclose(kernel(parameters, scale), parameters["w"][0] * scale + parameters["b"])
        extra = kernel(parameters, scale, X, z=X)
        np.testing.assert_allclose(extra, parameters["w"][0] * scale + parameters["b"] + 2 * X, rtol=1e-6)


# ---- captured values ------------------------------------------------------------------------------------------------

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


def test_dtypes_of_every_kind(make: Make) -> None:
    kernel = make(lambda x: x + x)
    for dtype in ("f2", "f4", "f8", "i1", "u1", "i2", "i4", "i8", "?", ml_dtypes.bfloat16):
        check(kernel, np.ones(3, dtype))


def test_kinds_say_what_they_depend_on() -> None:
    kind = array_kind(BASE[:, ::2], "x")
    assert kind == array_kind(BASE[:, 1::2], "x") and hash(kind) and kind.size == 4 * 2048
    assert kind != array_kind(BASE[:, ::4][:, :2048], "x") and kind.axes[1].rule == "general not 4K"
