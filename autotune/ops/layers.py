"""Layers of networks: convolutions, pooling, norms over channels, attention, embeddings of positions, losses.

Plain NumPy functions; knows NumPy only. Shapes that cannot be are a SignatureError, on arrays as when traced. Images
are (n, c, h, w), or (n, h, w, c) with layout="nhwc". 16-bit floats are computed in f32, products of 8- and 16-bit
integers accumulated in i32.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.lib.stride_tricks import sliding_window_view

from ..ir.errors import SignatureError
from .basic import Array, accumulating, gather, in_f32, silu

_np: Any = np  # its stubs do not know what implements the protocols
Pair = Any  # one integer, or one for the rows and one for the columns
_AXES = {"nchw": (2, 3), "nhwc": (1, 2)}


def _pair(what: str, value: Pair, least: int) -> tuple[int, int]:
    pair = tuple(value) if isinstance(value, (tuple, list)) else (value, value)
    if len(pair) != 2 or not all(isinstance(v, (int, np.integer)) and v >= least for v in pair):
        raise SignatureError(f"{what}={value!r}: one integer or two, {least} or more")
    return int(pair[0]), int(pair[1])


def _image(what: str, x: Array, layout: str) -> tuple[int, int]:
    """The axes of rows and columns."""
    if layout not in _AXES:
        raise SignatureError(f"{what}: layout={layout!r}; there are {', '.join(_AXES)}")
    if x.ndim != 4:
        raise SignatureError(f"{what} of shape {x.shape}: an image has four dimensions, {layout}")
    return _AXES[layout]


def _divided(what: str, groups: int, **channels: int) -> None:
    for name, count in channels.items():
        if groups < 1 or count % groups:
            raise SignatureError(f"{what}: {groups} groups do not divide the {count} {name}")


def _framed(x: Array, axes: tuple[int, int], before: tuple[int, int], after: tuple[int, int], value: Any = 0) -> Array:
    """Rows and columns added on the four sides; negative widths take them away."""
    widths, kept = [(0, 0)] * x.ndim, [slice(None)] * x.ndim
    for d, low, high in zip(axes, before, after):
        kept[d] = slice(max(-low, 0), x.shape[d] - max(-high, 0))
        widths[d] = max(low, 0), max(high, 0)
    x = x[tuple(kept)] if any(w < 0 for w in (*before, *after)) else x
    return _np.pad(x, widths, constant_values=value) if any(map(any, widths)) else x


def _windows(
    what: str, x: Array, axes: tuple[int, int], size: tuple[int, int], stride: tuple[int, int],
    dilation: tuple[int, int],
) -> Array:  # fmt: skip
    """The windows of rows and columns: their positions in place of `axes`, what is inside as two last axes."""
    spans = tuple((k - 1) * d + 1 for k, d in zip(size, dilation))
    for axis, span in zip(axes, spans):
        if span > x.shape[axis]:
            raise SignatureError(f"{what}: a window of {span} does not fit into the {x.shape[axis]} of axis {axis}")
    seen = sliding_window_view(x, spans, axis=axes)
    steps = [slice(None)] * (x.ndim + 2)
    for axis, by in zip((*axes, x.ndim, x.ndim + 1), (*stride, *dilation)):
        steps[axis] = slice(None, None, by)
    return seen[tuple(steps)]


# ---- convolutions ---------------------------------------------------------------------------------------------------


@in_f32
def conv2d(
    x: Array, w: Array, bias: Array = None, stride: Pair = 1, pad: Pair = 0, dilation: Pair = 1, groups: int = 1,
    layout: str = "nchw",
) -> Array:  # fmt: skip
    """Correlation of images with kernels, zeros around the image: sums over input channels and taps.

    nchw: x (n, ci, h, w), w (co, ci / groups, kh, kw); nhwc: x (n, h, w, ci), w (kh, kw, ci / groups, co); bias (co,).
    groups = ci = co is a depthwise convolution.
    """
    axes = _image("conv2d", x, layout)
    if w.ndim != 4 or "b" in (x.dtype.kind, w.dtype.kind):
        raise SignatureError(f"conv2d of {x.dtype} and {w.dtype}, kernels of shape {w.shape}: numbers, four dimensions")
    stride, dilation, pad = _pair("stride", stride, 1), _pair("dilation", dilation, 1), _pair("pad", pad, 0)
    first = layout == "nchw"
    (co, each), size = ((w.shape[0], w.shape[1]), w.shape[2:]) if first else ((w.shape[3], w.shape[2]), w.shape[:2])
    ci = x.shape[1 if first else 3]
    _divided("conv2d", groups, ci=ci, co=co)
    if ci != each * groups:
        raise SignatureError(f"conv2d: {ci} channels in {groups} groups, kernels of {each} channels")
    x = _framed(accumulating(x), axes, pad, pad)
    seen, w = _windows("conv2d", x, axes, size, stride, dilation), accumulating(w)
    if groups == 1:
        y = _np.einsum("ncyxhw,ochw->noyx" if first else "nyxchw,hwco->nyxo", seen, w)
    elif groups == ci == co:
        y = _np.einsum("ncyxhw,chw->ncyx", seen, w[:, 0]) if first else _np.einsum("nyxchw,hwc->nyxc", seen, w[:, :, 0])
    elif first:
        seen = seen.reshape((x.shape[0], groups, each, *seen.shape[2:]))
        y = _np.einsum("ngcyxhw,gochw->ngoyx", seen, w.reshape((groups, co // groups, each, *size)))
        y = y.reshape((x.shape[0], co, *y.shape[3:]))
    else:
        seen = seen.reshape((*seen.shape[:3], groups, each, *size))
        y = _np.einsum("nyxgchw,hwcgo->nyxgo", seen, w.reshape((*size, each, groups, co // groups)))
        y = y.reshape((*y.shape[:3], co))
    return _biased("conv2d", y, bias, first)


def _biased(what: str, y: Array, bias: Array, first: bool) -> Array:
    if bias is None:
        return y
    if bias.shape != (y.shape[1 if first else 3],):
        raise SignatureError(f"{what}: a bias of shape {bias.shape} for {y.shape[1 if first else 3]} channels")
    return y + (bias[:, None, None] if first else bias)


@in_f32
def conv_transpose2d(
    x: Array, w: Array, bias: Array = None, stride: Pair = 1, pad: Pair = 0, output_pad: Pair = 0, dilation: Pair = 1,
    groups: int = 1,
) -> Array:  # fmt: skip
    """The transposed map of conv2d: x (n, ci, h, w), w (ci, co / groups, kh, kw), bias (co,).

    Without dilation, results at one offset from a multiple of the stride are a correlation of the image with the part
    of the kernel at that offset. With it, a correlation with the reversed kernels of an image that has stride - 1 zeros
    between its elements: of the products that are summed, one in stride * stride is with an element.
    """
    axes = _image("conv_transpose2d", x, "nchw")
    if w.ndim != 4 or "b" in (x.dtype.kind, w.dtype.kind) or x.shape[1] != w.shape[0]:
        raise SignatureError(f"conv_transpose2d of {x.dtype}{x.shape} and {w.dtype}{w.shape}: shapes do not fit")
    stride, dilation, pad = _pair("stride", stride, 1), _pair("dilation", dilation, 1), _pair("pad", pad, 0)
    extra = _pair("output_pad", output_pad, 0)
    n, ci, h, width = x.shape
    _, each, *size = w.shape
    _divided("conv_transpose2d", groups, ci=ci)
    if any(a >= max(s, d) for a, s, d in zip(extra, stride, dilation)):
        raise SignatureError(f"conv_transpose2d: output_pad={output_pad} must be below stride or dilation")
    if any(e < 1 for e in (h, width, *size)):
        raise SignatureError(f"conv_transpose2d of shapes {x.shape} and {w.shape}: nothing to multiply")
    reach = [d * (k - 1) - p for d, k, p in zip(dilation, size, pad)]
    if any(e * s - s + 2 * r + a < d * (k - 1)
           for e, s, r, a, d, k in zip((h, width), stride, reach, extra, dilation, size)):  # fmt: skip
        raise SignatureError(f"conv_transpose2d: pad={pad} leaves nothing of the result")
    x, w = accumulating(x), accumulating(w)
    if dilation == (1, 1) and stride != (1, 1):
        return _biased("conv_transpose2d", _by_offsets(x, w, stride, pad, extra, groups), bias, True)
    if stride != (1, 1):
        spread = _np.pad(x[:, :, :, None, :, None], ((0, 0),) * 3 + ((0, stride[0] - 1), (0, 0), (0, stride[1] - 1)))
        x = spread.reshape((n, ci, h * stride[0], width * stride[1]))
        x = x[:, :, : (h - 1) * stride[0] + 1, : (width - 1) * stride[1] + 1]
    x = _framed(x, axes, (reach[0], reach[1]), (reach[0] + extra[0], reach[1] + extra[1]))
    seen = _windows("conv_transpose2d", x, axes, (size[0], size[1]), (1, 1), dilation)
    w = w[:, :, ::-1, ::-1]
    if groups == 1:
        y = _np.einsum("ncyxhw,cohw->noyx", seen, w)
    else:
        seen = seen.reshape((n, groups, ci // groups, *seen.shape[2:]))
        y = _np.einsum("ngcyxhw,gcohw->ngoyx", seen, w.reshape((groups, ci // groups, each, *size)))
        y = y.reshape((n, groups * each, *y.shape[3:]))
    return _biased("conv_transpose2d", y, bias, True)


def _by_offsets(
    x: Array, w: Array, stride: tuple[int, int], pad: tuple[int, int], extra: tuple[int, int], groups: int
) -> Array:
    """conv_transpose2d: result s * m + p is the sum over a of x[m - a] w[s * a + p], along rows and along columns."""
    (n, ci), (each, *size) = x.shape[:2], w.shape[1:]
    parts = [-(-k // s) for k, s in zip(size, stride)]
    length = [(e - 1) * s - 2 * p + k + a for e, s, p, k, a in zip(x.shape[2:], stride, pad, size, extra)]
    blocks = [-(-(p + e) // s) for p, e, s in zip(pad, length, stride)]
    w = _framed(w, (2, 3), (0, 0), (parts[0] * stride[0] - size[0], parts[1] * stride[1] - size[1]))
    w = w.reshape((groups, ci // groups, each, parts[0], stride[0], parts[1], stride[1]))[:, :, :, ::-1, :, ::-1]
    x = _framed(x, (2, 3), (parts[0] - 1, parts[1] - 1), (blocks[0] - x.shape[2], blocks[1] - x.shape[3]))
    seen = _windows("conv_transpose2d", x, (2, 3), (parts[0], parts[1]), (1, 1), (1, 1))
    seen = seen.reshape((n, groups, ci // groups, *seen.shape[2:]))
    y = _np.einsum("ngcyxab,gcoapbq->ngopqyx", seen, w).transpose((0, 1, 2, 5, 3, 6, 4))
    y = y.reshape((n, groups * each, blocks[0] * stride[0], blocks[1] * stride[1]))
    return y[:, :, pad[0] : pad[0] + length[0], pad[1] : pad[1] + length[1]]


@in_f32
def pool2d(
    x: Array, size: Pair, stride: Pair = None, pad: Pair = 0, op: str = "max", layout: str = "nchw",
    count_pad: bool = True,
) -> Array:  # fmt: skip
    """The largest ("max") or the mean ("mean") of each window of `size`; stride: None for windows side by side.

    Padding never is the largest; in a mean it counts as zeros, or does not count where `count_pad` is false.
    """
    axes = _image("pool2d", x, layout)
    size, pad = _pair("size", size, 1), _pair("pad", pad, 0)
    stride = size if stride is None else _pair("stride", stride, 1)
    if op not in ("max", "mean"):
        raise SignatureError(f"pool2d: op={op!r}; there are max, mean")
    if any(p >= k for p, k in zip(pad, size)):
        raise SignatureError(f"pool2d: pad={pad} must be below size={size}, or windows hold nothing but padding")
    lowest = 0 if op == "mean" or x.dtype.kind == "b" else np.iinfo(x.dtype).min if x.dtype.kind in "iu" else -np.inf
    seen = _windows("pool2d", _framed(x, axes, pad, pad, lowest), axes, size, stride, (1, 1))
    if op == "max":
        return seen.max(axis=(-2, -1))
    if count_pad or pad == (0, 0):
        return seen.mean(axis=(-2, -1))
    counts = [_inside(x, axis, seen.shape[axis], k, s, p) for axis, k, s, p in zip(axes, size, stride, pad)]
    count = counts[0][:, None] * counts[1]
    total = seen.sum(axis=(-2, -1))
    return total / (count if layout == "nchw" else count[:, :, None]).astype(total.dtype)


def _inside(x: Array, axis: int, windows: int, size: int, stride: int, pad: int) -> Array:
    """How many elements of each window along an axis are no padding."""
    start = _np.arange(windows, like=x) * stride - pad
    return np.minimum(start + size, x.shape[axis]) - np.maximum(start, 0)


# ---- norms over channels --------------------------------------------------------------------------------------------


@in_f32
def batch_norm(x: Array, weight: Array, bias: Array, mean: Array = None, var: Array = None, eps: float = 1e-5) -> Array:
    """x (n, c, ...) with everything else (c,). Without `mean` and `var`, those of this very batch (var biased)."""
    if x.ndim < 2 or (mean is None) != (var is None):
        raise SignatureError(f"batch_norm of shape {x.shape}: (n, c, ...), and mean and var both or neither")
    if any(a.shape != (x.shape[1],) for a in (weight, bias, mean, var) if a is not None):
        raise SignatureError(f"batch_norm: weight, bias, mean and var have the shape ({x.shape[1]},) of the channels")
    over = (0, *range(2, x.ndim))
    channel = (-1,) + (1,) * (x.ndim - 2)
    centred = x - (x.mean(axis=over, keepdims=True) if mean is None else mean.reshape(channel))
    spread = (centred * centred).mean(axis=over, keepdims=True) if var is None else var.reshape(channel)
    return centred * (1 / np.sqrt(spread + eps)) * weight.reshape(channel) + bias.reshape(channel)


@in_f32
def group_norm(x: Array, weight: Array, bias: Array, groups: int = 1, eps: float = 1e-5) -> Array:
    """x (n, c, ...), weight and bias (c,): each image and group of c / groups channels has mean 0 and variance 1."""
    if x.ndim < 2 or weight.shape != (x.shape[1],) or bias.shape != weight.shape:
        raise SignatureError(f"group_norm of shape {x.shape}: (n, c, ...), weight and bias (c,)")
    _divided("group_norm", groups, channels=x.shape[1])
    parts = x.reshape((x.shape[0], groups, x.shape[1] // groups, *x.shape[2:]))
    over = tuple(range(2, parts.ndim))
    centred = parts - parts.mean(axis=over, keepdims=True)
    scaled = centred * (1 / np.sqrt((centred * centred).mean(axis=over, keepdims=True) + eps))
    channel = (-1,) + (1,) * (x.ndim - 2)
    return scaled.reshape(x.shape) * weight.reshape(channel) + bias.reshape(channel)


# ---- sequences ------------------------------------------------------------------------------------------------------


@in_f32
def attention(
    q: Array, k: Array, v: Array, causal: bool = False, mask: Array = None, scale: float | None = None
) -> Array:
    """softmax(q @ k.T * scale) @ v for each head: q (b, heads, q, d), k (b, kv_heads, kv, d), v (b, kv_heads, kv, dv).

    Each of the kv_heads serves heads / kv_heads queries' heads. `scale`: 1 / sqrt(d) where None. causal: the last query
    sees every key, the one before it all but the last, and so on (so one query sees them all). `mask`, broadcast to
    (b, heads, q, kv): of bool, true where a key is seen; of floats, added to the scaled products. A query that sees no
    key has result 0.
    """
    if not q.ndim == k.ndim == v.ndim == 4 or q.shape[0] != k.shape[0] or q.shape[3] != k.shape[3] or (
        k.shape[:3] != v.shape[:3]
    ):  # fmt: skip
        raise SignatureError(f"attention of shapes {q.shape}, {k.shape}, {v.shape}: (b, heads, q, d), "
                             "(b, kv_heads, kv, d), (b, kv_heads, kv, dv)")  # fmt: skip
    if any(a.dtype.kind in "iub" for a in (q, k, v)):
        raise SignatureError(f"attention of {q.dtype}, {k.dtype}, {v.dtype}: floats only")
    (b, heads, rows, d), (_, kv_heads, keys, dv) = q.shape, v.shape
    _divided("attention", kv_heads, heads=heads)
    if not keys or not d:
        if not keys:
            return _np.zeros((b, heads, rows, dv), q.dtype, like=q)
        raise SignatureError("attention: queries and keys of no element (d=0)")
    group = heads // kv_heads
    if group > 1:  # the queries of all heads that share keys are rows of one product
        q = q.reshape((b, kv_heads, group * rows, d))
    scores = (q @ k.swapaxes(2, 3)) * (d**-0.5 if scale is None else scale)
    seen = None
    if causal and rows > 1:
        last = _np.arange(keys - rows, keys, like=q)
        seen = _np.arange(keys, like=q) <= (_np.tile(last, group) if group > 1 else last)[:, None]
    if mask is not None:
        try:
            given = _np.broadcast_to(mask, (b, heads, rows, keys)).reshape(scores.shape)
        except ValueError as error:
            raise SignatureError(f"attention: mask of shape {mask.shape}: {error}") from None
        if mask.dtype.kind != "b":
            scores = scores + given
        else:
            seen = given if seen is None else seen & given
    if seen is not None:
        scores = np.where(seen, scores, -np.inf)
    high = scores.max(axis=-1, keepdims=True)
    blind = high == -np.inf if mask is not None or (causal and rows > keys) else None  # queries that see no key
    if blind is not None:
        high = np.where(blind, 0.0, high).astype(scores.dtype)
    weights = np.exp(scores - high)
    if causal and seen is not None:
        weights = np.where(seen, weights, 0).astype(scores.dtype)  # they are 0; so that this can be seen
    total = weights.sum(axis=-1, keepdims=True)
    if blind is not None:
        total = np.where(blind, 1.0, total).astype(scores.dtype)
    return ((weights @ v) / total).reshape((b, heads, rows, dv))


def embedding(idx: Array, table: Array) -> Array:
    """The rows of a table (rows, d) that integers `idx` name, clamped to those there are: shape (*idx.shape, d)."""
    return gather(table, idx)


@in_f32
def rope(x: Array, cos: Array, sin: Array, interleaved: bool = False) -> Array:
    """Pairs of elements of x (..., s, d) turned by angles whose cos and sin are (s, d / 2), or broadcast to that.

    A pair is x[..., i] and x[..., i + d / 2]; interleaved: x[..., 2 i] and x[..., 2 i + 1].
    """
    half = x.shape[-1] // 2
    if x.ndim < 2 or x.shape[-1] % 2 or cos.shape[-1] != half or sin.shape != cos.shape:
        raise SignatureError(f"rope of {x.shape}, {cos.shape}, {sin.shape}: (..., s, d), (s, d / 2) twice, d even")
    a, b = (x[..., ::2], x[..., 1::2]) if interleaved else (x[..., :half], x[..., half:])
    turned = a * cos - b * sin, b * cos + a * sin
    return _np.stack(turned, axis=-1).reshape(x.shape) if interleaved else _np.concatenate(turned, axis=-1)


@in_f32
def swiglu(a: Array, b: Array) -> Array:
    """silu(a) * b"""
    return silu(a) * b


@in_f32
def cross_entropy(logits: Array, targets: Array, reduction: str = "mean") -> Array:
    """-log_softmax(logits)[target] of logits (..., n) and integer targets (...): "mean", "sum", or "none" for each.

    A target that is no class (below 0, or n and above) has loss 0 and does not count in the mean.
    """
    if not logits.ndim or targets.shape != logits.shape[:-1] or targets.dtype.kind not in "iu":
        what = f"{logits.shape} and {targets.dtype}{targets.shape}"
        raise SignatureError(f"cross_entropy of {what}: (..., n), integers (...)")
    if reduction not in ("mean", "sum", "none"):
        raise SignatureError(f"cross_entropy: reduction={reduction!r}; there are mean, sum, none")
    high = logits.max(axis=-1, keepdims=True)
    total = np.log(np.exp(logits - high).sum(axis=-1)) + high.squeeze(-1)
    chosen = _np.arange(logits.shape[-1], like=logits) == targets[..., None]
    valid = (targets >= 0) & (targets < logits.shape[-1])
    loss = np.where(valid, total - np.where(chosen, logits, 0).sum(axis=-1), 0).astype(logits.dtype)
    if reduction == "none":
        return loss
    return loss.sum() if reduction == "sum" else loss.sum() / valid.sum().astype(logits.dtype)
