"""Rules of ATen operations that are sums of products: matrices, convolutions and their gradients, pooling, attention.

See `site`. 16-bit floats are summed in f32 and rounded once, as torch does it.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.lib.stride_tricks import sliding_window_view

from ... import ops
from .site import Array, Refused, Rule, Site, rounded, wide

_np: Any = np


def _product(site: Site, a: Array, b: Array) -> Array:
    return rounded(site, wide(a) @ wide(b))


def _times(x: Array, factor: Any) -> Array:
    return x if factor == 1 else x * x.dtype.type(factor)


def _added_product(site: Site, c: Array, a: Array, b: Array, *, beta: Any = 1, alpha: Any = 1) -> Array:
    """beta * c + alpha * (a @ b); what is in c does not matter where beta is 0."""
    product = _times(wide(a) @ wide(b), alpha)
    return rounded(site, product if beta == 0 else product + _times(wide(c), beta))


# ---- convolutions ---------------------------------------------------------------------------------------------------


def _planes(x: Array) -> Array:
    """Signals (n, c, w) as images (n, c, 1, w)."""
    return x[:, :, None, :] if x.ndim == 3 else x


def _pairs(ndim: int, *values: Sequence[int]) -> list[tuple[int, int]]:
    """One number an axis, for rows and columns; rows of a signal are one high."""
    if ndim not in (3, 4):
        raise Refused(f"a convolution along {ndim - 2} axes")
    neutral = (1, 0, 1, 0)
    whole = [tuple(v) * (ndim - 2 if len(v) == 1 else 1) for v in values]
    return [(neutral[n], v[0]) if ndim == 3 else (v[0], v[1]) for n, v in enumerate(whole)]


def _convolution(
    site: Site, x: Array, w: Array, bias: Array | None, stride: Sequence[int], padding: Sequence[int],
    dilation: Sequence[int], transposed: bool, output_padding: Sequence[int], groups: int,
) -> Array:  # fmt: skip
    step, pad, reach, more = _pairs(w.ndim, stride, padding, dilation, output_padding)
    if x.ndim != w.ndim:
        raise Refused("a convolution of an image without a batch")
    arrays = _planes(wide(x)), _planes(wide(w)), None if bias is None else wide(bias)
    if transposed:
        y = ops.conv_transpose2d(*arrays, step, pad, more, reach, groups)
    else:
        y = ops.conv2d(*arrays, step, pad, reach, groups)
    return rounded(site, y.reshape(site.shape))


def _convolution_backward(
    site: Site, grad: Array, x: Array, w: Array, bias_sizes: Any, stride: Sequence[int], padding: Sequence[int],
    dilation: Sequence[int], transposed: bool, output_padding: Sequence[int], groups: int, wanted: Sequence[bool],
) -> tuple[Array | None, ...]:  # fmt: skip
    """The gradients of image, kernels and bias, each only if `wanted`."""
    step, pad, reach, _ = _pairs(w.ndim, stride, padding, dilation, output_padding)
    if transposed:
        raise Refused("the gradient of a transposed convolution")
    g, image, kernels = (_planes(wide(a)) for a in (grad, x, w))
    size = kernels.shape[2:]
    results: list[Array | None] = [None, None, None]
    if wanted[0]:
        covered = [(o - 1) * s - 2 * p + d * (k - 1) + 1 for o, s, p, d, k in zip(g.shape[2:], step, pad, reach, size)]
        rest = tuple(e - c for e, c in zip(image.shape[2:], covered))
        if any(r >= max(s, d) for r, s, d in zip(rest, step, reach)):
            raise Refused("the gradient of a convolution that leaves out a part of its image")
        results[0] = ops.conv_transpose2d(g, kernels, None, step, pad, rest, reach, groups).reshape(x.shape)
    if wanted[1]:
        results[1] = _kernels_gradient(g, image, kernels.shape, step, pad, reach, groups).reshape(w.shape)
    if wanted[2]:
        results[2] = g.sum(axis=(0, 2, 3))
    return tuple(None if r is None else r.astype(x.dtype) for r in results)


def _kernels_gradient(
    g: Array, x: Array, shape: tuple[int, ...], step: tuple[int, int], pad: tuple[int, int], reach: tuple[int, int],
    groups: int,
) -> Array:  # fmt: skip
    """sum over n, y, x of g[n, o, y, x] * image[n, c, y * step + kh * reach, ...], in groups."""
    co, each, kh, kw = shape
    x = _np.pad(x, ((0, 0), (0, 0), (pad[0],) * 2, (pad[1],) * 2)) if any(pad) else x
    seen = sliding_window_view(x, ((kh - 1) * reach[0] + 1, (kw - 1) * reach[1] + 1), axis=(2, 3))
    seen = seen[:, :, :: step[0], :: step[1], :: reach[0], :: reach[1]][:, :, : g.shape[2], : g.shape[3]]
    if groups == 1:
        return _np.einsum("noyx,ncyxhw->ochw", g, seen)
    g = g.reshape((g.shape[0], groups, co // groups, *g.shape[2:]))
    seen = seen.reshape((seen.shape[0], groups, each, *seen.shape[2:]))
    return _np.einsum("ngoyx,ngcyxhw->gochw", g, seen).reshape(shape)


# ---- pooling --------------------------------------------------------------------------------------------------------


def _pool_options(x: Array, size: Any, stride: Any, padding: Any, ceil_mode: bool) -> tuple[Any, ...]:
    if ceil_mode:
        raise Refused("pooling with ceil_mode")
    if x.ndim != 4:
        raise Refused("pooling of an image without a batch")
    size, stride, padding = (tuple(v) * (2 if len(v) == 1 else 1) for v in (size, stride, padding))
    return size, stride or None, padding


def _max_pool(
    site: Site, x: Array, size: Any, stride: Any = (), padding: Any = (0, 0), dilation: Any = (1, 1),
    ceil_mode: bool = False,
) -> tuple[Array | None, ...]:  # fmt: skip
    size, stride, padding = _pool_options(x, size, stride, padding, ceil_mode)
    if tuple(dilation) not in ((1,), (1, 1)):
        raise Refused("pooling with dilation")
    return ops.pool2d(x, size, stride, padding, "max"), None


def _avg_pool(
    site: Site, x: Array, size: Any, stride: Any = (), padding: Any = (0, 0), ceil_mode: bool = False,
    count_include_pad: bool = True, divisor_override: int | None = None,
) -> Array:  # fmt: skip
    size, stride, padding = _pool_options(x, size, stride, padding, ceil_mode)
    mean = ops.pool2d(wide(x), size, stride, padding, "mean", count_pad=count_include_pad)
    if divisor_override:
        raise Refused("pooling with a divisor of its own")
    return rounded(site, mean)


def _adaptive_avg_pool(site: Site, x: Array, size: Sequence[int]) -> Array:
    """Where the windows are side by side and of one size."""
    if any(e % s for e, s in zip(x.shape[-2:], size)):
        raise Refused("adaptive pooling by windows of several sizes")
    (h, w), (rows, columns) = x.shape[-2:], size
    parts = wide(x).reshape((*x.shape[:-2], rows, h // rows, columns, w // columns))
    return rounded(site, parts.mean(axis=(-3, -1)))


# ---- attention ------------------------------------------------------------------------------------------------------


def _scores(site: Site, q: Array, k: Array, causal: bool, mask: Array | None, scale: float | None) -> Array:
    """The scaled products, what is not seen at -inf. Causal: query i sees the keys up to i."""
    scores = _times(q @ _np.swapaxes(k, -1, -2), q.shape[-1] ** -0.5 if scale is None else scale)
    if causal:
        scores = _np.where(_seen(site, scores), scores, scores.dtype.type(-math.inf))
    if mask is not None and mask.dtype.kind == "b":
        return _np.where(mask, scores, scores.dtype.type(-math.inf))
    return scores if mask is None else scores + wide(mask)


def _seen(site: Site, scores: Array) -> Array:
    return site.arange(0, scores.shape[-1]) <= site.arange(0, scores.shape[-2])[:, None]


def _attention(
    site: Site, q: Array, k: Array, v: Array, dropout: float = 0.0, causal: bool = False, *,
    attn_mask: Array | None = None, scale: float | None = None,
) -> tuple[Array | None, ...]:  # fmt: skip
    """torch's fused attention of CPUs: (result, logarithm of each query's sum). A query that sees no key has 0."""
    if dropout:
        raise Refused("attention with dropout")
    scores = _scores(site, wide(q), wide(k), causal, attn_mask, scale)
    high, zero = scores.max(axis=-1, keepdims=True), scores.dtype.type(0)
    blind = None
    if attn_mask is not None:
        blind = high == -math.inf
        high = _np.where(blind, zero, high)
    weights = _np.exp(scores - high)
    if causal:
        weights = _np.where(_seen(site, scores), weights, zero)  # they are 0; so that this can be seen
    total = weights.sum(axis=-1, keepdims=True)
    if blind is not None:
        total = _np.where(blind, scores.dtype.type(1), total)
    result = ((weights @ wide(v)) / total).astype(q.dtype)
    return result, (_np.log(total) + high).reshape(tuple(site.result[1].shape))


def _attention_backward(
    site: Site, grad: Array, q: Array, k: Array, v: Array, out: Array, logs: Array, dropout: float, causal: bool, *,
    attn_mask: Array | None = None, scale: float | None = None,
) -> tuple[Array, ...]:  # fmt: skip
    """T. Dao et al., FlashAttention, appendix B: the weights again from the stored logarithms."""
    if dropout:
        raise Refused("attention with dropout")
    factor = q.shape[-1] ** -0.5 if scale is None else scale
    g, keys, values = wide(grad), wide(k), wide(v)
    scores = _scores(site, wide(q), keys, causal, attn_mask, scale)
    weights = _np.exp(scores - logs[..., None])
    inner = (g * wide(out)).sum(axis=-1, keepdims=True)
    slope = _times(weights * (g @ _np.swapaxes(values, -1, -2) - inner), factor)
    results = slope @ keys, _np.swapaxes(slope, -1, -2) @ wide(q), _np.swapaxes(weights, -1, -2) @ g
    return tuple(r.astype(q.dtype) for r in results)


RULES: dict[str, Rule] = {
    "mm.default": _product, "bmm.default": _product, "mv.default": _product, "dot.default": _product,
    "matmul.default": _product, "addmm.default": _added_product, "baddbmm.default": _added_product,
    "addmv.default": _added_product, "convolution.default": _convolution,
    "convolution_backward.default": _convolution_backward, "max_pool2d_with_indices.default": _max_pool,
    "avg_pool2d.default": _avg_pool, "_adaptive_avg_pool2d.default": _adaptive_avg_pool,
    "_scaled_dot_product_flash_attention_for_cpu.default": _attention,
    "_scaled_dot_product_flash_attention_for_cpu_backward.default": _attention_backward,
}  # fmt: skip
