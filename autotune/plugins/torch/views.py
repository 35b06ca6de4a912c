"""Rules of ATen operations that move, join or place elements, and of those that make constants. See `site`."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import numpy as np

from .site import Array, Refused, Rule, Site

_np: Any = np


def _reshape(site: Site, x: Array, *_: Any, **__: Any) -> Array:
    return x.reshape(site.shape)


def _same(site: Site, x: Array, *_: Any, **__: Any) -> Array:
    return x


def _transpose(site: Site, x: Array, a: int = 0, b: int = 1) -> Array:
    return _np.swapaxes(x, a, b) if x.ndim > 1 else x


def _expand(site: Site, x: Array, *_: Any, **__: Any) -> Array:
    return _np.broadcast_to(x, site.shape)


def _along(ndim: int, dim: int, key: Any) -> tuple[Any, ...]:
    return (*(slice(None),) * (dim % ndim), key)


def _select(site: Site, x: Array, dim: int, index: int) -> Array:
    return x[_along(x.ndim, dim, index)]


def _slice(
    site: Site, x: Array, dim: int = 0, start: int | None = None, end: int | None = None, step: int = 1
) -> Array:
    return x[_along(x.ndim, dim, slice(start, end, step))]


def _bounds(extent: int, start: int | None, end: int | None) -> tuple[int, int]:
    first, last, _ = slice(start, end).indices(extent)
    return first, max(first, last)


def _slice_scatter(
    site: Site, x: Array, source: Array, dim: int = 0, start: int | None = None, end: int | None = None, step: int = 1
) -> Array:
    if step != 1:
        raise Refused("slice_scatter with a step")
    d = dim % x.ndim
    first, last = _bounds(x.shape[d], start, end)
    source = _np.broadcast_to(source, (*x.shape[:d], last - first, *x.shape[d + 1 :])).astype(x.dtype)
    parts = [x[_along(x.ndim, d, slice(0, first))], source, x[_along(x.ndim, d, slice(last, None))]]
    return _np.concatenate([p for p in parts if p.shape[d]], axis=d)


def _select_scatter(site: Site, x: Array, source: Array, dim: int, index: int) -> Array:
    d = dim % x.ndim
    at = index % x.shape[d]
    return _slice_scatter(site, x, _np.expand_dims(source, d), d, at, at + 1)


def _split(site: Site, x: Array, sizes: Any, dim: int = 0) -> tuple[Array, ...]:
    extent, start, parts = x.shape[dim], 0, []
    widths = sizes if isinstance(sizes, (list, tuple)) else [sizes] * math.ceil(extent / sizes)
    for width in widths:
        parts.append(x[_along(x.ndim, dim, slice(start, min(start + width, extent)))])
        start += width
    return tuple(parts)


def _unbind(site: Site, x: Array, dim: int = 0) -> tuple[Array, ...]:
    return tuple(x[_along(x.ndim, dim, i)] for i in range(x.shape[dim]))


def _cat(site: Site, parts: Sequence[Array], dim: int = 0) -> Array:
    kept = [p.astype(site.dtype) for p in parts if p.shape != (0,)]  # torch lets these pass beside any other shape
    return _np.concatenate(kept, axis=dim)


def _stack(site: Site, parts: Sequence[Array], dim: int = 0) -> Array:
    return _np.stack([p.astype(site.dtype) for p in parts], axis=dim)


def _flip(site: Site, x: Array, dims: Sequence[int]) -> Array:
    return _np.flip(x, tuple(dims)) if dims else x


def _pad(site: Site, x: Array, widths: Sequence[int], value: Any = 0) -> Array:
    """torch counts from the last axis; a negative width takes away."""
    pairs = [(0, 0)] * x.ndim
    for n in range(len(widths) // 2):
        pairs[x.ndim - 1 - n] = widths[2 * n], widths[2 * n + 1]
    kept = tuple(slice(max(-a, 0), e - max(-b, 0)) for (a, b), e in zip(pairs, x.shape))
    added = [(max(a, 0), max(b, 0)) for a, b in pairs]
    x = x[kept] if any(w < 0 for w in widths) else x
    return _np.pad(x, added, constant_values=value) if any(map(any, added)) else x


def _triangle(lower: bool) -> Rule:
    return lambda site, x, diagonal=0: (_np.tril if lower else _np.triu)(x, diagonal)


def _diagonal(site: Site, x: Array, offset: int = 0, dim1: int = 0, dim2: int = 1) -> Array:
    return _np.diagonal(x, offset, dim1, dim2)


def _roll(site: Site, x: Array, shifts: Any, dims: Any = ()) -> Array:
    return _np.roll(x, tuple(shifts), tuple(dims)) if dims else _np.roll(x, shifts[0])


# ---- at places that are data ----------------------------------------------------------------------------------------


def _checked(site: Site, places: Array, extent: int, wraps: bool) -> Array:
    """The places, counted from the end where they are negative and that is allowed; those outside are recorded."""
    if places.dtype.kind not in "iu" or places.dtype.itemsize < 4:
        raise Refused(f"places of {places.dtype}")
    places = places.astype(np.int64)
    site.wrong.append((places < (-extent if wraps else 0)) | (places >= extent))
    return _np.where(places < 0, places + extent, places) if wraps else places


def _embedding(site: Site, table: Array, places: Array, *_: Any) -> Array:
    return _np.take(table, _checked(site, places, table.shape[0], False), axis=0, mode="clip")


def _index_select(site: Site, x: Array, dim: int, places: Array) -> Array:
    return _np.take(x, _checked(site, places.reshape((-1,)), x.shape[dim], False), axis=dim % x.ndim, mode="clip")


def _gather(site: Site, x: Array, dim: int, places: Array, **_: Any) -> Array:
    """The other coordinates are those of the place itself."""
    d, flat = dim % x.ndim, site.full(0, np.int64)
    at = _checked(site, places, x.shape[d], False)
    for axis, (extent, size) in enumerate(zip(x.shape, at.shape)):
        here = site.arange(0, size).reshape((-1,) + (1,) * (x.ndim - 1 - axis))
        flat = flat * extent + (at if axis == d else here)
    return _np.take(x.reshape((-1,)), _np.broadcast_to(flat, at.shape), mode="clip")


def _index(site: Site, x: Array, indices: Sequence[Array | None]) -> Array:
    """Arrays of places for axes side by side are one array of places in those axes, flattened."""
    given = [d for d, places in enumerate(indices) if places is not None]
    if given != list(range(given[0], given[-1] + 1)):
        raise Refused("places for axes that are not side by side")
    first, count = given[0], len(given)
    flat = site.full(0, np.int64)
    for d in given:
        flat = flat * x.shape[d] + _checked(site, indices[d], x.shape[d], True)
    rows = x.reshape((*x.shape[:first], -1, *x.shape[first + count :])) if count > 1 else x
    return _np.take(rows, flat, axis=first, mode="clip")


def _scatter(site: Site, x: Array, dim: int, places: Array, value: Any) -> Array:
    """One place a row, so that no two meet: each element looks whether it is the place."""
    d = dim % max(x.ndim, 1)
    if not x.ndim or places.shape != (*x.shape[:d], 1, *x.shape[d + 1 :]):
        raise Refused("a store at several places that are data")
    at = _checked(site, places, x.shape[d], False)
    here = site.arange(0, x.shape[d]).reshape((-1,) + (1,) * (x.ndim - 1 - d))
    return _np.where(here == at, value if hasattr(value, "dtype") else site.full(value), x)


# ---- constants ------------------------------------------------------------------------------------------------------


def _filled(position: int | None, value: Any = None) -> Rule:
    def rule(site: Site, *args: Any, **_: Any) -> Array:
        fill = value if position is None else args[position]
        fill = fill.astype(site.dtype) if hasattr(fill, "dtype") else site.full(fill)
        return _np.broadcast_to(fill, site.shape)

    return rule


def _arange(site: Site, *args: Any, **_: Any) -> Array:
    start, end, step = (0, *args, 1) if len(args) == 1 else (*args, 1)[:3]
    if not all(isinstance(v, int) for v in (start, end, step)):
        raise Refused("positions that are no integers")
    return site.arange(start, end, step).astype(site.dtype)


RULES: dict[str, Rule] = {
    **dict.fromkeys((
        "view.default", "_unsafe_view.default", "reshape.default", "unsqueeze.default", "squeeze.dim", "squeeze.dims",
        "squeeze.default", "view_as.default", "flatten.using_ints",
    ), _reshape),
    **dict.fromkeys((
        "clone.default", "alias.default", "detach.default", "contiguous.default", "lift_fresh_copy.default",
    ), _same),
    "permute.default": lambda site, x, dims: _np.transpose(x, [d % x.ndim for d in dims]),
    "transpose.int": _transpose, "t.default": _transpose, "expand.default": _expand, "select.int": _select,
    "slice.Tensor": _slice, "slice_scatter.default": _slice_scatter, "select_scatter.default": _select_scatter,
    "split_with_sizes.default": _split, "split.Tensor": _split, "unbind.int": _unbind, "cat.default": _cat,
    "stack.default": _stack, "flip.default": _flip, "constant_pad_nd.default": _pad,
    "repeat.default": lambda site, x, counts: _np.tile(x, counts), "tril.default": _triangle(True),
    "triu.default": _triangle(False), "diagonal.default": _diagonal, "roll.default": _roll,
    "embedding.default": _embedding, "index_select.default": _index_select, "gather.default": _gather,
    "scatter.value": _scatter, "scatter.src": _scatter, "index.Tensor": _index, "_unsafe_index.Tensor": _index,
    "full.default": _filled(1), "full_like.default": _filled(1), "scalar_tensor.default": _filled(0),
    "new_full.default": _filled(2), "fill.Scalar": _filled(1), "fill.Tensor": _filled(1),
    **dict.fromkeys(("zeros.default", "zeros_like.default", "new_zeros.default"), _filled(None, 0)),
    **dict.fromkeys(("ones.default", "ones_like.default", "new_ones.default"), _filled(None, 1)),
    "arange.start_step": _arange, "arange.default": _arange, "arange.start": _arange,
}  # fmt: skip

# What torch does without touching an element, or by a plain copy: a part of a graph that has nothing else is its.
MOVES = frozenset({
    "view.default", "_unsafe_view.default", "reshape.default", "unsqueeze.default", "squeeze.dim", "squeeze.dims",
    "squeeze.default", "clone.default", "alias.default", "detach.default", "permute.default", "transpose.int",
    "t.default", "expand.default", "select.int", "slice.Tensor", "split_with_sizes.default", "split.Tensor",
    "unbind.int", "full.default", "full_like.default", "scalar_tensor.default", "zeros.default", "zeros_like.default",
    "ones.default", "ones_like.default", "arange.start_step", "arange.default", "arange.start", "getitem",
    "diagonal.default", "lift_fresh_copy.default",
})  # fmt: skip
