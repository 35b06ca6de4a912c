"""Rules of ATen operations that reduce along axes, and of the rows' norms built on them. See `site`.

16-bit floats are reduced in f32 and rounded once, as torch does it.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from ... import ops
from .site import Array, Refused, Rule, Site, axes_of, numpy_dtype, rounded, wide

_np: Any = np


def _typed(site: Site, x: Array, dtype: Any = None) -> Array:
    """The elements in the type of the result before they are combined; 16-bit floats in f32."""
    target = site.dtype if dtype is None else numpy_dtype(dtype)
    if x.dtype != target:
        x = x != 0 if target.kind == "b" else x.astype(target)
    return wide(x)


def _sum(site: Site, x: Array, dim: Any = None, keepdim: bool = False, *, dtype: Any = None) -> Array:
    return rounded(site, _typed(site, x).sum(axis=axes_of(dim, x.ndim), keepdims=keepdim))


def _mean(site: Site, x: Array, dim: Any = None, keepdim: bool = False, *, dtype: Any = None) -> Array:
    return rounded(site, _typed(site, x).mean(axis=axes_of(dim, x.ndim), keepdims=keepdim))


def _prod(site: Site, x: Array, dim: Any = None, keepdim: bool = False, *, dtype: Any = None) -> Array:
    return rounded(site, _typed(site, x).prod(axis=axes_of(dim, x.ndim), keepdims=keepdim))


def _extreme(function: Callable[..., Array]) -> Rule:
    return lambda site, x, dim=None, keepdim=False: function(x, axis=axes_of(dim, x.ndim), keepdims=keepdim)


def _truth(function: Callable[..., Array]) -> Rule:
    def rule(site: Site, x: Array, dim: Any = None, keepdim: bool = False) -> Array:
        found = function(x if x.dtype.kind == "b" else x != 0, axis=axes_of(dim, x.ndim), keepdims=keepdim)
        return rounded(site, found)

    return rule


def _position(function: Callable[..., Array]) -> Rule:
    def rule(site: Site, x: Array, dim: int | None = None, keepdim: bool = False) -> Array:
        if not x.ndim:
            return site.full(0)
        return function(x, axis=None if dim is None else dim % x.ndim, keepdims=keepdim)

    return rule


def _extreme_at(extreme: Callable[..., Array], position: Callable[..., Array]) -> Rule:
    """`max.dim` and `min.dim`: the extreme and the first place of it."""

    def rule(site: Site, x: Array, dim: int, keepdim: bool = False) -> tuple[Array, Array]:
        if not x.ndim:
            return x, site.full(0, np.int64)
        d = dim % x.ndim
        return extreme(x, axis=d, keepdims=keepdim), position(x, axis=d, keepdims=keepdim)

    return rule


def _variance(x: Array, axes: tuple[int, ...], correction: Any, keepdim: bool) -> tuple[Array, Array]:
    """(variance, mean). torch divides by max(0, n - correction)."""
    mean = x.mean(axis=axes, keepdims=True)
    centred = x - mean
    count = max(math.prod(x.shape[d] for d in axes) - (1 if correction is None else correction), 0)
    total = (centred * centred).sum(axis=axes, keepdims=keepdim)
    return total / x.dtype.type(count), mean if keepdim else mean.squeeze(axes) if axes else mean


def _var(site: Site, x: Array, dim: Any = None, *, correction: Any = None, keepdim: bool = False) -> Array:
    return rounded(site, _variance(wide(x), axes_of(dim, x.ndim), correction, keepdim)[0])


def _var_mean(site: Site, x: Array, dim: Any = None, *, correction: Any = None, keepdim: bool = False) -> Any:
    both = _variance(wide(x), axes_of(dim, x.ndim), correction, keepdim)
    return tuple(value.astype(x.dtype) for value in both)


def _softmax(function: Callable[..., Array]) -> Rule:
    def rule(site: Site, x: Array, dim: int, half_to_float: bool = False) -> Array:
        value = wide(x)
        return rounded(site, function(value, axis=dim % x.ndim) if x.ndim else value * 0 + (function is ops.softmax))

    return rule


def _cumsum(site: Site, x: Array, dim: int, *, dtype: Any = None) -> Array:
    return rounded(site, _np.cumsum(_typed(site, x), axis=dim % x.ndim)) if x.ndim else rounded(site, x)


def _cumprod(site: Site, x: Array, dim: int, *, dtype: Any = None) -> Array:
    return rounded(site, _np.cumprod(_typed(site, x), axis=dim % x.ndim)) if x.ndim else rounded(site, x)


def _vector_norm(
    site: Site, x: Array, ord: float = 2, dim: Any = None, keepdim: bool = False, *, dtype: Any = None
) -> Array:
    value, axes = _np.abs(_typed(site, x)), axes_of(dim, x.ndim)
    if ord == 2:
        return rounded(site, _np.sqrt((value * value).sum(axis=axes, keepdims=keepdim)))
    if ord == 1:
        return rounded(site, value.sum(axis=axes, keepdims=keepdim))
    if abs(ord) == math.inf:
        return rounded(site, (value.max if ord > 0 else value.min)(axis=axes, keepdims=keepdim))
    raise Refused(f"a norm of order {ord}")


def _normed(x: Array, axes: tuple[int, ...], eps: float) -> tuple[Array, Array, Array]:
    """(x - mean) * rstd, mean, rstd, the axes kept as ones."""
    mean = x.mean(axis=axes, keepdims=True)
    centred = x - mean
    rstd = 1 / _np.sqrt((centred * centred).mean(axis=axes, keepdims=True) + eps)
    return centred * rstd, mean, rstd


def _affine(x: Array, weight: Array | None, bias: Array | None, shape: Sequence[int]) -> Array:
    x = x if weight is None else x * wide(weight).reshape(shape)
    return x if bias is None else x + wide(bias).reshape(shape)


def _layer_norm(
    site: Site, x: Array, shape: Sequence[int], weight: Array | None, bias: Array | None, eps: float
) -> tuple[Array, ...]:
    value, mean, rstd = _normed(wide(x), tuple(range(x.ndim - len(shape), x.ndim)), eps)
    return _as_results(site, _affine(value, weight, bias, shape), mean, rstd)


def _as_results(site: Site, *values: Array) -> tuple[Array, ...]:
    """In the shapes and types of the node's results."""
    pairs = zip(values, site.result)
    return tuple(v.reshape(tuple(r.shape)).astype(numpy_dtype(r.dtype)) for v, r in pairs)


def _group_norm(
    site: Site, x: Array, weight: Array | None, bias: Array | None, n: int, c: int, inner: int, groups: int, eps: float
) -> tuple[Array, ...]:
    value, mean, rstd = _normed(wide(x).reshape((n, groups, -1)), (2,), eps)
    channel = (-1,) + (1,) * (x.ndim - 2)
    return _as_results(site, _affine(value.reshape(x.shape), weight, bias, channel), mean, rstd)


def _batch_norm(
    site: Site, x: Array, weight: Array | None, bias: Array | None, mean: Array, var: Array, momentum: float, eps: float
) -> tuple[Array, ...]:
    """By stored statistics; the two saved results are empty."""
    channel = (-1,) + (1,) * (x.ndim - 2)
    scale = 1 / _np.sqrt(wide(var) + eps)
    value = (wide(x) - wide(mean).reshape(channel)) * scale.reshape(channel)
    return (_affine(value, weight, bias, channel).astype(x.dtype), None, None)


def _batch_norm_of_batch(
    site: Site, x: Array, weight: Array | None, bias: Array | None, *stored: Any
) -> tuple[Array, ...]:
    """By the batch's own statistics. `stored`: (training, momentum, eps) alone, or after the running mean and variance,
    which are then given back too, moved towards those of the batch, the variance unbiased."""
    training, momentum, eps = stored[-3:]
    if not training:
        raise Refused("batch norm that is not training, and yet is to return statistics")
    value = wide(x)
    axes, channel = (0, *range(2, x.ndim)), (-1,) + (1,) * (x.ndim - 2)
    normed, mean, rstd = _normed(value, axes, eps)
    results = [_affine(normed, weight, bias, channel), mean, rstd]
    if len(stored) == 5:
        new = mean.reshape((-1,)), _variance(value, axes, 1, False)[0]
        results += [old + (now - old) * old.dtype.type(momentum) for old, now in zip(stored[:2], new)]
    return _as_results(site, *results)


RULES: dict[str, Rule] = {
    "sum.dim_IntList": _sum, "sum.default": _sum, "mean.dim": _mean, "mean.default": _mean, "prod.default": _prod,
    "prod.dim_int": _prod, "amax.default": _extreme(_np.max), "amin.default": _extreme(_np.min),
    "max.default": _extreme(_np.max), "min.default": _extreme(_np.min), "max.dim": _extreme_at(_np.max, _np.argmax),
    "min.dim": _extreme_at(_np.min, _np.argmin), "argmax.default": _position(_np.argmax),
    "argmin.default": _position(_np.argmin),
    **dict.fromkeys(("any.default", "any.dim", "any.dims"), _truth(_np.any)),
    **dict.fromkeys(("all.default", "all.dim", "all.dims"), _truth(_np.all)),
    "var.correction": _var, "var_mean.correction": _var_mean, "cumsum.default": _cumsum, "cumprod.default": _cumprod,
    "linalg_vector_norm.default": _vector_norm, "_softmax.default": _softmax(ops.softmax),
    "_log_softmax.default": _softmax(ops.log_softmax), "native_layer_norm.default": _layer_norm,
    "native_group_norm.default": _group_norm, "_native_batch_norm_legit_no_training.default": _batch_norm,
    "_native_batch_norm_legit.no_stats": _batch_norm_of_batch,
    "_native_batch_norm_legit_functional.default": _batch_norm_of_batch,
}  # fmt: skip
