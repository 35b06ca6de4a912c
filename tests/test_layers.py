"""Layers on random shapes, as machine code on one thread and on two, against NumPy in float64; and against torch."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

from autotune import kernel, ops
from autotune.ir.errors import SignatureError, TraceError
from autotune.tracer import spec, trace

from .machine import check

Draw = np.random.Generator
SHAPES = range(20)  # random shapes of each operation


def some(rng: Draw, *shape: int, positive: bool = False) -> np.ndarray[Any, Any]:
    """Normal floats, sometimes as every second element of a larger array or with transposed axes."""
    kind = rng.integers(4)
    if kind == 0 and len(shape) > 1:
        x = rng.standard_normal((*shape[:-1], 2 * shape[-1]))[..., ::2].astype("f4")
    elif kind == 1 and len(shape) > 1:
        x = rng.standard_normal((*shape[:-2], shape[-1], shape[-2])).astype("f4").swapaxes(-1, -2)
    else:
        x = rng.standard_normal(shape).astype("f4")
    return np.abs(x) + np.float32(0.5) if positive else x


def pick(rng: Draw, *choices: Any) -> Any:
    return choices[rng.integers(len(choices))]


def convolution(rng: Draw) -> tuple[Any, ...]:
    groups = pick(rng, 1, 1, 2, 3, "depth")
    ci = int(rng.integers(1, 9)) if groups in (1, "depth") else groups * int(rng.integers(1, 4))
    co = ci if groups == "depth" else int(rng.integers(1, 9)) if groups == 1 else groups * int(rng.integers(1, 4))
    groups = ci if groups == "depth" else groups
    kh, kw, dilation = int(rng.integers(1, 5)), int(rng.integers(1, 4)), pick(rng, 1, 1, 2, (1, 3))
    stride, pad = pick(rng, 1, 1, 2, (2, 1), 3), pick(rng, 0, 1, (2, 0), 3)
    h, w = (int(rng.integers(8, 15)), int(rng.integers(7, 19)))
    layout, n = pick(rng, "nchw", "nhwc"), int(rng.integers(1, 3))
    x = some(rng, n, ci, h, w) if layout == "nchw" else some(rng, n, h, w, ci)
    k = some(rng, co, ci // groups, kh, kw) if layout == "nchw" else some(rng, kh, kw, ci // groups, co)
    bias = (some(rng, co),) if rng.random() < 0.5 else ()
    options = {"stride": stride, "pad": pad, "dilation": dilation, "groups": groups, "layout": layout}
    return ops.conv2d, (x, k, *bias), options


def transposed(rng: Draw) -> tuple[Any, ...]:
    groups, stride, dilation = pick(rng, 1, 1, 2), pick(rng, 1, 2, (1, 3)), pick(rng, 1, 1, 2)
    ci, co = groups * int(rng.integers(1, 4)), groups * int(rng.integers(1, 4))
    x = some(rng, int(rng.integers(1, 3)), ci, int(rng.integers(1, 7)), int(rng.integers(1, 8)))
    w = some(rng, ci, co // groups, int(rng.integers(1, 4)), int(rng.integers(2, 5)))
    extra = 1 if min(np.atleast_1d(stride)) > 1 and rng.random() < 0.5 else 0
    pad = pick(rng, 0, 0, (0, 1)) if x.shape[3] > 2 else 0
    options = {"stride": stride, "pad": pad, "output_pad": extra, "dilation": dilation, "groups": groups}
    return ops.conv_transpose2d, (x, w, some(rng, co)), options


def pooling(rng: Draw) -> tuple[Any, ...]:
    size = int(rng.integers(1, 4)), int(rng.integers(1, 5))
    pad = int(rng.integers(0, size[0])), int(rng.integers(0, size[1]))
    layout = pick(rng, "nchw", "nhwc")
    x = some(rng, *(int(v) for v in rng.integers(1, 4, 1)), *(int(v) for v in rng.integers(4, 12, 3)))
    options = {"size": size, "stride": pick(rng, None, 1, (2, 3)), "pad": pad, "op": pick(rng, "max", "mean"),
               "layout": layout, "count_pad": bool(rng.integers(2))}  # fmt: skip
    return ops.pool2d, (x,), options


def norm(rng: Draw) -> tuple[Any, ...]:
    groups = int(rng.integers(1, 4))
    c = groups * int(rng.integers(1, 4))
    shape = (int(rng.integers(1, 4)), c, *(int(v) for v in rng.integers(1, 9, pick(rng, 1, 2, 2))))
    if rng.random() < 0.5:
        return ops.group_norm, (some(rng, *shape), some(rng, c), some(rng, c)), {"groups": groups, "eps": 0.1}
    own = (some(rng, c), some(rng, c, positive=True)) if rng.random() < 0.5 else ()
    return ops.batch_norm, (some(rng, *shape), some(rng, c), some(rng, c), *own), {"eps": 0.1}


def attending(rng: Draw) -> tuple[Any, ...]:
    kv_heads, group = int(rng.integers(1, 4)), pick(rng, 1, 1, 2, 3)
    b, rows, keys = int(rng.integers(1, 3)), pick(rng, 1, 1, 5, 9, 16), int(rng.integers(1, 20))
    d = pick(rng, 1, 4, 7, 16)
    q, k = some(rng, b, kv_heads * group, rows, d), some(rng, b, kv_heads, keys, d)
    v = some(rng, b, kv_heads, keys, pick(rng, d, 3))
    return ops.attention, (q, k, v), {"causal": bool(rng.integers(2)), "scale": pick(rng, None, 0.3)}


def masked(rng: Draw) -> tuple[Any, ...]:
    b, heads, rows, keys = (int(v) for v in rng.integers(1, 6, 4))
    q, k, v = some(rng, b, heads, rows, 4), some(rng, b, 1, keys, 4), some(rng, b, 1, keys, 5)
    mask = rng.random(pick(rng, (rows, keys), (b, 1, 1, keys), (b, heads, rows, keys))) < 0.5
    causal = bool(rng.integers(2))
    return (lambda q, k, v, mask: ops.attention(q, k, v, causal=causal, mask=mask)), (q, k, v, mask), {}


def sequence(rng: Draw) -> tuple[Any, ...]:
    m, n = int(rng.integers(1, 20)), int(rng.integers(1, 40))
    which = rng.integers(4)
    if which == 0:
        x, angles = some(rng, 2, int(rng.integers(1, 3)), m, 2 * n), rng.standard_normal((m, n))
        tables = np.cos(angles).astype("f4"), np.sin(angles).astype("f4")
        return ops.rope, (x, *tables), {"interleaved": bool(rng.integers(2))}
    if which == 1:
        return ops.swiglu, (some(rng, m, n), some(rng, m, n)), {}
    targets = rng.integers(-1, n + 1, m)
    targets[0] = 0
    return ops.cross_entropy, (some(rng, m, n), targets), {"reduction": pick(rng, "mean", "sum", "none")}


def placing(rng: Draw) -> tuple[Any, ...]:
    shape = [int(v) for v in rng.integers(1, 12, pick(rng, 1, 2, 3))]
    axis = int(rng.integers(-len(shape), len(shape)))
    x, which = some(rng, *shape), rng.integers(6)
    if which == 0:
        others = [[int(rng.integers(0, 6)) if d == axis % len(shape) else e for d, e in enumerate(shape)] for _ in "ab"]
        return ops.concat, (x, *(some(rng, *other) for other in others)), {"axis": axis}
    if which == 1:
        width = [tuple(int(v) for v in rng.integers(0, 9, 2)) for _ in shape]
        return ops.pad, (x,), {"width": width, "mode": pick(rng, "constant", "edge", "wrap", "reflect", "symmetric")}
    if which == 2:
        return ops.transpose, (x,), {"perm": tuple(int(v) for v in rng.permutation(len(shape)))}
    if which == 3:
        x = some(rng, *shape[:-1], int(rng.integers(1, 200)))
        return ops.cumsum, (x,), {"axis": axis}
    x = rng.integers(-3, 4, shape).astype(pick(rng, "f4", "i1", "i4"))
    return ops.reduce, (x,), {"op": pick(rng, "argmax", "argmin"), "axes": pick(rng, None, (axis,))}


MAKERS: list[Callable[[Draw], tuple[Any, ...]]] = [
    convolution, transposed, pooling, norm, attending, masked, sequence, placing,
]  # fmt: skip


@pytest.mark.parametrize("maker", MAKERS, ids=lambda m: m.__name__)
def test_random_shapes(maker: Callable[[Draw], tuple[Any, ...]]) -> None:
    for seed in SHAPES:
        fn, arrays, options = maker(np.random.default_rng(seed))
        shapes = [a.shape for a in arrays]
        try:
            check(fn, *arrays, **options)
        except Exception as error:
            raise AssertionError(f"seed {seed}: {shapes}, {options}: {error}") from error


# ---- edges ----------------------------------------------------------------------------------------------------------

ONE = np.ones((1, 1, 1, 1), np.float32)


def test_sizes_of_one_and_of_nothing() -> None:
    check(ops.conv2d, ONE, ONE * 3, pad=2, stride=3)
    check(ops.conv2d, ONE[:0], ONE)
    check(ops.conv2d, ONE[:, :0], ONE[:, :0])
    check(ops.conv_transpose2d, ONE, ONE * 2, stride=3, output_pad=2)
    check(ops.conv_transpose2d, ONE, np.ones((1, 1, 5, 5), "f4"), pad=2)
    check(ops.pool2d, ONE, size=1)
    check(ops.pool2d, ONE[:0], size=1, op="mean")
    check(ops.attention, ONE[:0], ONE[:0], ONE[:0])
    check(ops.attention, ONE[:, :, :0], ONE, ONE)
    check(ops.attention, ONE, ONE, np.ones((1, 1, 1, 3), "f4"), causal=True)
    for function in (ops.batch_norm, ops.group_norm):
        check(function, ONE[:0], ONE[0, 0, 0], ONE[0, 0, 0], threads=(1,))


def test_queries_without_keys_have_result_zero() -> None:
    q, k, v = (np.random.default_rng(i).standard_normal((1, 2, n, 4)).astype("f4") for i, n in enumerate((5, 3, 3)))
    check(ops.attention, q, k, v, causal=True)
    result = ops.attention(q, k, v, causal=True)
    assert not result[:, :, :2].any() and result[:, :, 2].any()
    blind = np.array([[True, False, False]] * 2 + [[False] * 3] * 3)
    check(lambda q, k, v, mask: ops.attention(q, k, v, mask=mask), q, k, v, blind)
    assert not ops.attention(q, k, v, mask=blind)[:, :, 2:].any()
    empty = ops.attention(q, k[:, :, :0], v[:, :, :0])
    assert empty.shape == q.shape and not empty.any()
    check(ops.attention, q, k[:, :, :0], v[:, :, :0])


def test_numbers_that_are_none_and_endless() -> None:
    x = np.random.default_rng(0).standard_normal((1, 2, 5, 6)).astype("f4")
    x[0, 0, 1, 2], x[0, 1, 4, 0], x[0, 1, 0, 5] = np.nan, np.inf, -np.inf
    check(ops.pool2d, x, size=2, stride=1, pad=1)
    check(ops.pad, x, width=1, value=float("inf"))
    check(ops.argmax, x.reshape(2, 30), axis=1)
    check(ops.cumsum, x[:, :, 2:4])


@pytest.mark.parametrize("dtype", ["i1", "u1", "i2", "i4", "i8"])
def test_integers_are_exact(dtype: str) -> None:
    rng = np.random.default_rng(0)
    x, w = rng.integers(0, 100, (1, 3, 7, 6)).astype(dtype), rng.integers(0, 100, (4, 3, 3, 2)).astype(dtype)
    kind = np.int32 if np.dtype(dtype).itemsize < 4 else np.dtype(dtype)
    assert ops.conv2d(x, w).dtype == kind
    check(ops.conv2d, x, w, pad=1)
    check(ops.conv_transpose2d, x, w.swapaxes(0, 1), stride=2)
    check(ops.pool2d, x, size=3, pad=1)
    check(ops.reduce, x, op="argmax", axes=(2,))
    if dtype != "u1":
        check(ops.cumsum, x, axis=1)


@pytest.mark.parametrize("dtype", ["f2", "f8"])
def test_other_floats(dtype: str) -> None:
    rng = np.random.default_rng(0)
    x, w = rng.standard_normal((1, 3, 7, 6)).astype(dtype), rng.standard_normal((4, 3, 3, 2)).astype(dtype)
    check(ops.conv2d, x, w, pad=1)
    check(ops.pool2d, x, size=2, op="mean")
    check(ops.attention, x, x, x, causal=True)
    check(ops.group_norm, x, x[0, :, 0, 0], x[0, :, 1, 1], eps=0.1)


def computes(fn: Callable[..., Any], *specs: Any) -> list[tuple[tuple[int, ...], str | None, int]]:
    program = trace(fn, specs).program
    return [(c.shape, c.combiner, len(c.reduce_axes)) for c in program.computes]


def test_no_windows_are_written_out() -> None:
    x, w, bias = spec("f32", (2, 8, 9, 9)), spec("f32", (4, 8, 3, 3)), spec("f32", 4)
    assert computes(ops.conv2d, x, w) == [((2, 4, 7, 7), "sum", 3)]
    padded = computes(lambda x, w, b: ops.relu(ops.conv2d(x, w, b, pad=1)), x, w, bias)
    assert padded == [((2, 8, 11, 11), None, 0), ((2, 4, 9, 9), "sum", 3), ((2, 4, 9, 9), None, 0)]
    depth = computes(lambda x, w: ops.conv2d(x, w, pad=1, groups=8), x, spec("f32", (8, 1, 3, 3)))
    assert depth == [((2, 8, 11, 11), None, 0), ((2, 8, 9, 9), "sum", 2)], "what windows share is computed once"
    assert computes(lambda x: ops.pool2d(x, 3), x) == [((2, 8, 3, 3), "max", 2)]
    causal = computes(lambda q: ops.attention(q, q, q, causal=True), x)
    assert [shape for shape, *_ in causal].count((2, 8, 9, 9)) == 5, "the mask is compared, never stored"


# ---- refusals -------------------------------------------------------------------------------------------------------

X, W = np.ones((1, 4, 6, 6), np.float32), np.ones((2, 4, 3, 3), np.float32)
C = np.ones(4, np.float32)
REFUSED: list[tuple[Callable[..., Any], str]] = [
    (lambda x: ops.conv2d(x, np.ones((2, 4, 7, 3), "f4")), "a window of 7 does not fit into the 6"),
    (lambda x: ops.conv2d(x, W, dilation=3), "a window of 7"), (lambda x: ops.conv2d(x, W, groups=3), "do not divide"),
    (lambda x: ops.conv2d(x, W, groups=2), "4 channels in 2 groups"), (lambda x: ops.conv2d(x, W, pad=-1), "0 or more"),
    (lambda x: ops.conv2d(x, W, groups=0), "do not divide"), (lambda x: ops.conv2d(x, W, stride=0), "1 or more"),
    (lambda x: ops.conv2d(x, W, pad=(1, 2, 3)), "one integer or two"), (lambda x: ops.conv2d(x, W, C), "bias of shape"),
    (lambda x: ops.conv2d(x, W, layout="chwn"), "nchw, nhwc"), (lambda x: ops.conv2d(x[0], W), "four dimensions"),
    (lambda x: ops.conv2d(x > 0, W > 0), "numbers"), (lambda x: ops.conv2d(x, W, pad=1.0), "one integer or two"),
    (lambda x: ops.conv_transpose2d(x, W), "do not fit"),
    (lambda x: ops.conv_transpose2d(x, W.swapaxes(0, 1), pad=9), "leaves nothing"),
    (lambda x: ops.conv_transpose2d(x[:, :, :0], W.swapaxes(0, 1)), "nothing to multiply"),
    (lambda x: ops.conv_transpose2d(x, W.swapaxes(0, 1), output_pad=1), "below stride"),
    (lambda x: ops.conv_transpose2d(x, W.swapaxes(0, 1), groups=3), "do not divide"),
    (lambda x: ops.pool2d(x, 2, pad=2), "nothing but padding"), (lambda x: ops.pool2d(x, 7), "a window of 7"),
    (lambda x: ops.pool2d(x, 2, op="sum"), "max, mean"), (lambda x: ops.pool2d(x, 0), "1 or more"),
    (lambda x: ops.group_norm(x, C, C, 3), "3 groups do not divide"), (lambda x: ops.group_norm(x, C[1:], C), "bias"),
    (lambda x: ops.batch_norm(x, C, C, C), "both or neither"),
    (lambda x: ops.batch_norm(x, C, C[1:]), "of the channels"),
    (lambda x: ops.attention(x, x[:, :3], x[:, :3]), "3 groups do not divide the 4 heads"),
    (lambda x: ops.attention(x, x, x[:, :, 1:]), "attention of shapes"),
    (lambda x: ops.attention(x[0], x, x), "shapes"),
    (lambda x: ops.attention(x.astype("i4"), x, x), "floats only"), (lambda x: ops.attention(*[x[..., :0]] * 3), "d=0"),
    (lambda x: ops.attention(x, x, x, mask=np.ones((5, 6), bool)), "mask of shape"),
    (lambda x: ops.rope(x[..., :5], x, x), "d even"), (lambda x: ops.cross_entropy(x, x[..., 0]), "integers"),
    (lambda x: ops.cross_entropy(x, np.ones((1, 4, 6), int), "max"), "mean, sum, none"),
    (lambda x: ops.reduce(x, "argmax", (0, 1)), "give one axis"),
]  # fmt: skip


@pytest.mark.parametrize("fn, message", REFUSED, ids=range(len(REFUSED)))
def test_refusals_on_arrays_and_when_traced(fn: Callable[..., Any], message: str) -> None:
    with pytest.raises(SignatureError, match=message):
        fn(X)
    with pytest.raises((SignatureError, TraceError), match=message):
        trace(fn, (X,))


def test_padding_that_cannot_be() -> None:
    with pytest.raises(TraceError, match="too large"):
        trace(lambda x: ops.pad(x, 1 << 61), (X,))
    with pytest.raises(TraceError, match="0 or more"):
        trace(lambda x: ops.pad(x, -1), (X,))
    with pytest.raises(TraceError, match="too large"):
        trace(lambda x: ops.conv2d(x, W, pad=1 << 61), (X,))


# ---- layers together ------------------------------------------------------------------------------------------------


def encoder(x: Any, wq: Any, wk: Any, wv: Any, wo: Any, u: Any, b: Any, v: Any, g: Any, c: Any) -> Any:
    q, k, p = ((x @ w + c).reshape(1, len(x), 4, -1).transpose(0, 2, 1, 3) for w in (wq, wk, wv))
    mixed = ops.attention(q, k, p).transpose(0, 2, 1, 3).reshape(x.shape)
    h = ops.layer_norm(x + (mixed @ wo + c), g, c)
    return ops.layer_norm(h + ops.gelu(h @ u + b) @ v + c, g, c)


def residual(x: Any, w: Any, v: Any, g: Any, b: Any, m: Any, s: Any) -> Any:
    h = np.maximum(ops.batch_norm(ops.conv2d(x, w, pad=1), g, b, m, s), 0)
    return np.maximum(ops.batch_norm(ops.conv2d(h, v, pad=1), g, b, m, s) + x, 0)


def test_blocks_of_layers() -> None:
    rng = np.random.default_rng(3)
    w = [rng.standard_normal(s) / np.sqrt(s[0]) for s in ((32, 32),) * 4]
    u, v, k = rng.standard_normal((32, 128)) / 6, rng.standard_normal((128, 32)) / 12, rng.standard_normal((8, 8, 3, 3))
    channel = [np.abs(rng.standard_normal(8)) + 0.5 for _ in range(4)]
    blocks: list[tuple[Callable[..., Any], tuple[Any, ...]]] = [
        (encoder, (rng.standard_normal((24, 32)), *w, u, rng.standard_normal(128), v, *rng.standard_normal((2, 32)))),
        (residual, (rng.standard_normal((1, 8, 14, 14)), k / 8, k[::-1] / 8, *channel)),
    ]
    for fn, arrays in blocks:
        single = [a.astype(np.float32) for a in arrays]
        want = fn(*(a.astype(np.float64) for a in single))
        for threads in (1, 2):
            made = kernel(fn, threads=threads, cache="off", tune="off")
            np.testing.assert_allclose(made(*single), want, rtol=1e-4, atol=1e-4)
            assert made.explain(*single).index("plan:") > 0


# ---- torch ----------------------------------------------------------------------------------------------------------


def test_layers_agree_with_torch() -> None:
    torch = pytest.importorskip("torch", reason="torch is the other oracle of these operations")
    f, rng = torch.nn.functional, np.random.default_rng(0)
    x, w = rng.standard_normal((2, 4, 9, 8)), rng.standard_normal((6, 2, 3, 2))
    wt, bias, channel = rng.standard_normal((4, 3, 3, 2)), rng.standard_normal(6), np.abs(rng.standard_normal(4))
    tx, tw, twt, tb, tc = map(torch.from_numpy, (x, w, wt, bias, channel))
    options: Any = {"stride": (2, 1), "dilation": (1, 2), "groups": 2}
    q, k, v = (rng.standard_normal((2, h, n, 4)) for h, n in ((6, 5), (2, 5), (2, 5)))
    tq, tk, tv = map(torch.from_numpy, (q, k.repeat(3, 1), v.repeat(3, 1)))
    seen = rng.random((5, 5)) < 0.7
    seen[:, 0] = True
    targets = np.array([0, 3, 2])
    pairs = [
        (ops.conv2d(x, w, bias, pad=(1, 2), **options), f.conv2d(tx, tw, tb, padding=(1, 2), **options)),
        (ops.conv2d(x.transpose(0, 2, 3, 1), w.transpose(2, 3, 1, 0), bias, layout="nhwc", **options),
         f.conv2d(tx, tw, tb, **options).permute(0, 2, 3, 1)),
        (ops.conv_transpose2d(x, wt, bias, pad=(1, 0), output_pad=(1, 0), **options),
         f.conv_transpose2d(tx, twt, tb, padding=(1, 0), output_padding=(1, 0), **options)),
        (ops.pool2d(x, (3, 2), 2, 1), f.max_pool2d(tx, (3, 2), 2, 1)),
        (ops.pool2d(x, 3, 2, 1, "mean"), f.avg_pool2d(tx, 3, 2, 1)),
        (ops.pool2d(x, 3, 2, 1, "mean", count_pad=False), f.avg_pool2d(tx, 3, 2, 1, count_include_pad=False)),
        (ops.group_norm(x, channel, channel, 2), f.group_norm(tx, 2, tc, tc)),
        (ops.batch_norm(x, channel, channel, channel, channel), f.batch_norm(tx, tc, tc, tc, tc)),
        (ops.batch_norm(x, channel, channel), f.batch_norm(tx, None, None, tc, tc, training=True)),
        (ops.attention(q, k, v), f.scaled_dot_product_attention(tq, tk, tv)),
        (ops.attention(q, k, v, causal=True), f.scaled_dot_product_attention(tq, tk, tv, is_causal=True)),
        (ops.attention(q, k, v, mask=seen), f.scaled_dot_product_attention(tq, tk, tv, torch.from_numpy(seen))),
        (ops.attention(q, k, v, mask=x[0, 0, :5, :5]), f.scaled_dot_product_attention(tq, tk, tv, tx[0, 0, :5, :5])),
        (ops.cross_entropy(x[0, :3, 0], targets), f.cross_entropy(tx[0, :3, 0], torch.from_numpy(targets))),
        (ops.swiglu(x, x + 1), f.silu(tx) * (tx + 1)),
    ]  # fmt: skip
    for n, (got, expected) in enumerate(pairs):
        np.testing.assert_allclose(got, expected.numpy(), rtol=1e-12, atol=1e-12, err_msg=str(n))
