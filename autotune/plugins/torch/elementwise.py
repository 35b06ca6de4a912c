"""Rules of ATen operations that work element by element. See `site` for what a rule is.

Types are torch's business: it is asked which type the operands are computed in, and the result is rounded to the type
that torch gives it. The formulas are those of torch's documentation.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from torch._prims_common import ELEMENTWISE_TYPE_PROMOTION_KIND as KIND
from torch._prims_common import elementwise_dtypes

from ... import ops
from .site import Array, Refused, Rule, Site, numpy_dtype, rounded

_np: Any = np


def _elementwise(function: Callable[..., Array], kind: Any = KIND.DEFAULT, operands: int = 3) -> Rule:
    """The rule of a function: its first `operands` arguments in the type that torch computes with."""

    def rule(site: Site, *args: Any, **options: Any) -> Array:
        given = [a for a in site.node.args[:operands] if a is not None]
        seen = [a.meta["val"] if isinstance(a, torch.fx.Node) else a for a in given]
        compute = numpy_dtype(elementwise_dtypes(*seen, type_promotion_kind=kind)[0])
        values = [_as(site, a, compute) for a in args[:operands]]
        return rounded(site, function(*values, *args[operands:], **options))

    return rule


def _as(site: Site, value: Any, dtype: np.dtype[Any]) -> Any:
    if value is None or isinstance(value, str):
        return value
    if hasattr(value, "dtype"):
        return value if value.dtype == dtype else value.astype(dtype)
    if dtype.kind in "iu" and isinstance(value, float):
        raise Refused(f"{value!r} among integers")
    return site.full(value, dtype)


def _scaled(function: Callable[..., Array]) -> Callable[..., Array]:
    """a and alpha * b."""
    return lambda a, b, alpha=1: function(a, b if alpha == 1 else b * _like(b, alpha))


def _like(x: Array, value: Any) -> Any:
    return x.dtype.type(value) if x.dtype.kind in "iuf" else value


def _division(a: Array, b: Array, rounding_mode: str | None = None) -> Array:
    if a.dtype.kind not in "iub":
        ratio = a / b
        return ratio if rounding_mode is None else _np.trunc(ratio) if rounding_mode == "trunc" else a // b
    raise Refused("a division of integers by what may be 0")


def _integer_division(function: Callable[..., Array]) -> Rule:
    """Of integers only by a number that is not 0: torch raises an error where an element of the divisor is."""
    plain = _elementwise(function, operands=2)

    def rule(site: Site, a: Any, b: Any, **options: Any) -> Array:
        mode = options.get("rounding_mode", "floor")
        if site.result.is_floating_point():
            return plain(site, a, b, **options)
        if not isinstance(b, int) or isinstance(b, bool) or b == 0 or not hasattr(a, "dtype"):
            raise Refused("a division of integers by what may be 0")
        a, n = a.astype(site.dtype), site.full(b)
        if function is not _division:
            return rounded(site, a % n)
        if mode == "floor":
            return rounded(site, a // n)
        raise Refused("a division of integers towards 0")

    return rule


def _true_division(site: Site, a: Any, b: Any, *, rounding_mode: str | None = None) -> Array:
    if rounding_mode is None:
        return _elementwise(lambda x, y: x / y, KIND.INT_TO_FLOAT, 2)(site, a, b)
    return _integer_division(_division)(site, a, b, rounding_mode=rounding_mode)


def _power(site: Site, a: Any, b: Any) -> Array:
    """By the cases that torch has for constant exponents."""
    x = _as(site, a, numpy_dtype(elementwise_dtypes(
        *(n.meta["val"] if isinstance(n, torch.fx.Node) else n for n in site.node.args),
        type_promotion_kind=KIND.BOOL_TO_LONG)[0]))  # fmt: skip
    if hasattr(b, "dtype"):
        if x.dtype.kind in "iu":
            raise Refused("a power of integers whose exponents are data")
        return rounded(site, _np.power(x, b.astype(x.dtype)))
    if x.dtype.kind in "iu":
        return rounded(site, _np.power(x, int(b)))
    cases: dict[float, Callable[[], Array]] = {
        0.5: lambda: _np.sqrt(x), 1.0: lambda: x, 2.0: lambda: x * x, 3.0: lambda: x * x * x,
        -0.5: lambda: 1 / _np.sqrt(x), -1.0: lambda: 1 / x, -2.0: lambda: 1 / (x * x),
    }  # fmt: skip
    return rounded(site, cases[b]() if b in cases else _np.power(x, float(b)))


def _sign(x: Array) -> Array:
    one = _like(x, 1)
    return x if x.dtype.kind == "b" else _np.where(x > 0, one, 0 * one) - _np.where(x < 0, one, 0 * one)


def _clamp(x: Array, low: Any = None, high: Any = None) -> Array:
    x = x if low is None else _np.maximum(x, low)
    return x if high is None else _np.minimum(x, high)


def _gelu(x: Array, *, approximate: str = "none") -> Array:
    if approximate == "none":
        return ops.gelu(x)
    return 0.5 * x * (1 + _np.tanh(0.7978845608028654 * (x + 0.044715 * x * x * x)))


def _elu(x: Array, alpha: float = 1.0, scale: float = 1.0, input_scale: float = 1.0) -> Array:
    return _np.where(x > 0, x * scale, _np.expm1(_np.minimum(x, 0) * input_scale) * (alpha * scale))


def _where(site: Site, condition: Array, a: Any, b: Any) -> Array:
    return _np.where(condition, _as(site, a, site.dtype), _as(site, b, site.dtype))


def _masked_fill(site: Site, x: Array, mask: Array, value: Any) -> Array:
    return _np.where(mask, _as(site, value, site.dtype), x)


def _copied(site: Site, x: Array, *_: Any, **options: Any) -> Array:
    """`_to_copy`: another type; to bool, whether it is not 0."""
    return x != 0 if site.dtype.kind == "b" and x.dtype.kind != "b" else x.astype(site.dtype)


def _addcmul(x: Array, a: Array, b: Array, *, value: Any = 1) -> Array:
    return x + (a * b if value == 1 else a * b * _like(x, value))


def _addcdiv(x: Array, a: Array, b: Array, *, value: Any = 1) -> Array:
    return x + (a / b if value == 1 else a / b * _like(x, value))


def _both(function: Callable[..., Array], *names: str, kind: Any = KIND.DEFAULT) -> dict[str, Rule]:
    return dict.fromkeys(names, _elementwise(function, kind))


_FLOAT, _BOOL = KIND.INT_TO_FLOAT, KIND.ALWAYS_BOOL


def _one(function: Callable[..., Array]) -> Rule:
    return _elementwise(function, KIND.DEFAULT, 1)


def _float(function: Callable[..., Array]) -> Rule:
    return _elementwise(function, _FLOAT, 1)


def _compare(function: Callable[..., Array]) -> Rule:
    return _elementwise(function, _BOOL, 2)


RULES: dict[str, Rule] = {
    **_both(_scaled(lambda a, b: a + b), "add.Tensor", "add.Scalar"),
    **_both(_scaled(lambda a, b: a - b), "sub.Tensor", "sub.Scalar"),
    "rsub.Scalar": _elementwise(_scaled(lambda a, b: b - a), operands=2),
    **_both(lambda a, b: a * b, "mul.Tensor", "mul.Scalar"),
    "div.Tensor": _true_division, "div.Scalar": _true_division,
    "div.Tensor_mode": _true_division, "div.Scalar_mode": _true_division,
    "floor_divide.default": _integer_division(_division),
    **dict.fromkeys(("remainder.Tensor", "remainder.Scalar"), _integer_division(lambda a, b: a % b)),
    "pow.Tensor_Scalar": _power, "pow.Tensor_Tensor": _power, "pow.Scalar": _power,
    "maximum.default": _elementwise(_np.maximum), "minimum.default": _elementwise(_np.minimum),
    "clamp.default": _elementwise(_clamp), "clamp.Tensor": _elementwise(_clamp),
    "clamp_min.default": _elementwise(_clamp), "clamp_max.default": _elementwise(lambda x, high: _clamp(x, None, high)),
    "addcmul.default": _elementwise(_addcmul), "addcdiv.default": _elementwise(_addcdiv),
    "lerp.Scalar": _elementwise(lambda a, b, w: a + w * (b - a)),
    "neg.default": _one(lambda x: -x), "abs.default": _one(_np.abs), "sign.default": _one(_sign),
    "square.default": _one(lambda x: x * x), "positive.default": _one(lambda x: x),
    "floor.default": _one(_np.floor), "ceil.default": _one(_np.ceil), "trunc.default": _one(_np.trunc),
    "round.default": _one(lambda x: _np.rint(x) if x.dtype.kind == "f" else x),
    "exp.default": _float(_np.exp), "exp2.default": _float(_np.exp2), "expm1.default": _float(_np.expm1),
    "log.default": _float(_np.log), "log2.default": _float(_np.log2), "log10.default": _float(_np.log10),
    "log1p.default": _float(_np.log1p), "sqrt.default": _float(_np.sqrt),
    "rsqrt.default": _float(lambda x: 1 / _np.sqrt(x)), "reciprocal.default": _float(lambda x: 1 / x),
    "sin.default": _float(_np.sin), "cos.default": _float(_np.cos),
    "tan.default": _float(lambda x: _np.sin(x) / _np.cos(x)), "sinh.default": _float(_np.sinh),
    "cosh.default": _float(_np.cosh), "tanh.default": _float(_np.tanh), "atan.default": _float(_np.arctan),
    "erf.default": _float(ops.erf), "sigmoid.default": _float(ops.sigmoid),
    "relu.default": _one(ops.relu), "silu.default": _float(ops.silu), "gelu.default": _float(_gelu),
    "elu.default": _float(_elu),
    "leaky_relu.default": _elementwise(lambda x, slope=0.01: _np.where(x > 0, x, x * slope), operands=1),
    "hardtanh.default": _elementwise(lambda x, low=-1.0, high=1.0: _clamp(x, low, high), operands=1),
    "isnan.default": _elementwise(_np.isnan, KIND.NO_OPMATH, 1),
    "isinf.default": _elementwise(_np.isinf, KIND.NO_OPMATH, 1),
    **_both(lambda a, b: a == b, "eq.Tensor", "eq.Scalar", kind=_BOOL),
    **_both(lambda a, b: a != b, "ne.Tensor", "ne.Scalar", kind=_BOOL),
    **_both(lambda a, b: a < b, "lt.Tensor", "lt.Scalar", kind=_BOOL),
    **_both(lambda a, b: a <= b, "le.Tensor", "le.Scalar", kind=_BOOL),
    **_both(lambda a, b: a > b, "gt.Tensor", "gt.Scalar", kind=_BOOL),
    **_both(lambda a, b: a >= b, "ge.Tensor", "ge.Scalar", kind=_BOOL),
    "logical_and.default": _compare(_np.logical_and), "logical_or.default": _compare(_np.logical_or),
    "logical_xor.default": _compare(_np.logical_xor), "logical_not.default": _compare(_np.logical_not),
    **_both(lambda a, b: a & b, "bitwise_and.Tensor", "bitwise_and.Scalar"),
    **_both(lambda a, b: a | b, "bitwise_or.Tensor", "bitwise_or.Scalar"),
    **_both(lambda a, b: a ^ b, "bitwise_xor.Tensor", "bitwise_xor.Scalar"),
    "bitwise_not.default": _one(lambda x: ~x),
    "where.self": _where, "where.ScalarOther": _where, "where.ScalarSelf": _where, "where.Scalar": _where,
    "masked_fill.Scalar": _masked_fill, "masked_fill.Tensor": _masked_fill,
    "_to_copy.default": _copied, "convert_element_type.default": _copied,
}  # fmt: skip
