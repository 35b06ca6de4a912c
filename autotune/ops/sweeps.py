"""What a sweep may ask for: the operations by name, their parameters, and the Specs of a case's arguments.

Knows how parameters are written. Must not know what the operations compute, nor how anything is compiled.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial
from typing import Any

from ..ir.dtypes import dtype as parse_dtype
from ..ir.errors import SignatureError, UsageError
from ..tracer import Spec, spec
from .basic import (
    ACTIVATIONS,
    REDUCTIONS,
    Array,
    bmm,
    cast,
    concat,
    cumsum,
    elementwise,
    gather,
    gemm,
    gemv,
    layer_norm,
    log_softmax,
    logsumexp,
    pad,
    reduce,
    rms_norm,
    softmax,
    transpose,
)
from .layers import (
    attention,
    batch_norm,
    conv2d,
    conv_transpose2d,
    cross_entropy,
    group_norm,
    pool2d,
    rope,
    swiglu,
)

Case = tuple[Callable[..., Array], tuple[Spec, ...]]
Parser = Callable[[str], Any]
REQUIRED: Any = inspect.Parameter.empty


@dataclass(frozen=True)
class OpDef:
    """An operation and its parameters: name -> (default or REQUIRED, parser of its text)."""

    name: str
    params: Mapping[str, tuple[Any, Parser]]
    build: Callable[[Mapping[str, Any], Callable[..., Spec]], Case]

    def bind(self, given: Mapping[str, Any]) -> dict[str, Any]:
        """All parameters with their values. Raises UsageError for unknown, missing and malformed ones."""
        if unknown := [name for name in given if name not in self.params]:
            raise UsageError(f"{self.name} has no parameter {unknown[0]!r}; it takes {', '.join(self.params)}")
        bound = {}
        for name, (default, parse) in self.params.items():
            if name not in given and default is REQUIRED:
                raise UsageError(f"{self.name} needs {name}=...; it takes {', '.join(self.params)}")
            try:
                bound[name] = parse(str(given[name])) if name in given else default
            except (ValueError, SignatureError) as error:
                raise UsageError(f"{self.name} {name}={given[name]}: {error}") from None
        return bound

    def make(self, given: Mapping[str, Any], dtype: Any) -> Case:
        """The function and the Specs of its arguments for one case."""
        return self.build(self.bind(given), partial(spec, dtype))


def _extent(text: str) -> int:
    if (value := int(text)) < 0:
        raise ValueError("an extent is negative")
    return value


def _positive(text: str) -> int:
    if (value := int(text)) < 1:
        raise ValueError("it is 1 or more")
    return value


def _choice(names: Mapping[str, Any]) -> Parser:
    def parse(text: str) -> str:
        if text not in names:
            raise ValueError(f"choose from {', '.join(names)}")
        return text

    return parse


def _flag(text: str) -> bool:
    return _choice(dict.fromkeys(("0", "1", "True", "False")))(text) in ("1", "True")


def _integers(text: str) -> tuple[int, ...]:
    return tuple(int(part) for part in text.strip("()").split(",") if part)


def _shape(text: str) -> tuple[int, ...]:
    return tuple(_extent(part) for part in text.split("x"))


def _gemm(p: Mapping[str, Any], array: Callable[..., Spec]) -> Case:
    a, b = (p["k"], p["m"]) if p["ta"] else (p["m"], p["k"]), (p["n"], p["k"]) if p["tb"] else (p["k"], p["n"])
    function = partial(gemm, ta=p["ta"], tb=p["tb"], act=p["act"])
    return function, (array(a), array(b), *((array(p["n"]),) if p["bias"] else ()))


def _norm(function: Callable[..., Array], weights: int) -> OpDef:
    build = lambda p, array: (function, (array((p["m"], p["n"])), *[array(p["n"])] * weights))
    return OpDef(function.__name__, _MN, build)


def _elementwise(p: Mapping[str, Any], array: Callable[..., Spec]) -> Case:
    chain = elementwise(p["expr"])
    return chain, (array(p["n"]),) * len(inspect.signature(chain).parameters)


def _rows(function: Callable[..., Array]) -> OpDef:
    build = lambda p, array: (partial(function, axis=p["axis"]), (array((p["m"], p["n"])),))
    return OpDef(function.__name__, {**_MN, "axis": (-1, int)}, build)


def _shaped(function: Callable[..., Array], **params: tuple[Any, Parser]) -> OpDef:
    def build(p: Mapping[str, Any], array: Callable[..., Spec]) -> Case:
        return partial(function, **{name: p[name] for name in params}), (array(p["shape"]),)

    return OpDef(function.__name__, {"shape": (REQUIRED, _shape), **params}, build)


def _images(p: Mapping[str, Any], channels: str) -> tuple[int, ...]:
    whole = p["n"], p[channels], p["h"], p["w"]
    return whole if p["layout"] == "nchw" else (whole[0], *whole[2:], whole[1])


def _conv2d(p: Mapping[str, Any], array: Callable[..., Spec]) -> Case:
    ci, co, size = p["ci"] // p["groups"], p["co"], (p["kh"], p["kw"])
    options = {name: p[name] for name in ("stride", "pad", "dilation", "groups", "layout")}
    kernels = (co, ci, *size) if p["layout"] == "nchw" else (*size, ci, co)
    return partial(conv2d, **options), (array(_images(p, "ci")), array(kernels), *((array(co),) if p["bias"] else ()))


def _conv_transpose2d(p: Mapping[str, Any], array: Callable[..., Spec]) -> Case:
    options = {name: p[name] for name in ("stride", "pad", "output_pad", "dilation", "groups")}
    kernels = (p["ci"], p["co"] // p["groups"], p["kh"], p["kw"])
    return partial(conv_transpose2d, **options), (array((p["n"], p["ci"], p["h"], p["w"])), array(kernels))


def _pool2d(p: Mapping[str, Any], array: Callable[..., Spec]) -> Case:
    options = {name: p[name] for name in ("stride", "pad", "op", "layout")}
    return partial(pool2d, size=(p["kh"], p["kw"]), **options), (array(_images(p, "c")),)


def _attention(p: Mapping[str, Any], array: Callable[..., Spec]) -> Case:
    keys = array((p["b"], p["kv_heads"] or p["heads"], p["kv"], p["d"]))
    return partial(attention, causal=p["causal"]), (array((p["b"], p["heads"], p["q"], p["d"])), keys, keys)


def _rope(p: Mapping[str, Any], array: Callable[..., Spec]) -> Case:
    angles = array((p["q"], p["d"] // 2))
    function = partial(rope, interleaved=p["interleaved"])
    return function, (array((p["b"], p["heads"], p["q"], p["d"])), angles, angles)


def _concat(p: Mapping[str, Any], array: Callable[..., Spec]) -> Case:
    return partial(concat, axis=p["axis"]), (array(p["shape"]), array(p["other"] or p["shape"]))


_SIZE: tuple[Any, Parser] = (REQUIRED, _extent)
_ONE: tuple[Any, Parser] = (1, _positive)
_NONE: tuple[Any, Parser] = (0, _extent)
_NO: tuple[Any, Parser] = (False, _flag)
_MNK, _MN = dict.fromkeys("mnk", _SIZE), dict.fromkeys("mn", _SIZE)
_NCHW = dict.fromkeys("nchw", _SIZE)
_LAYOUT: dict[str, tuple[Any, Parser]] = {"layout": ("nchw", _choice(dict.fromkeys(("nchw", "nhwc"))))}
_KERNELS = dict.fromkeys(("n", "h", "w", "ci", "co", "kh", "kw"), _SIZE) | {
    "stride": _ONE, "pad": _NONE, "dilation": _ONE, "groups": _ONE,
}  # fmt: skip
_MODES = ("constant", "edge", "wrap", "reflect", "symmetric")
_EPILOGUE: dict[str, tuple[Any, Parser]] = {"bias": _NO, "act": ("none", _choice(ACTIVATIONS))}

_DEFINED = (
    OpDef("gemm", {**_MNK, "ta": _NO, "tb": _NO, **_EPILOGUE}, _gemm),
    OpDef("bmm", {"b": _SIZE, **_MNK},
          lambda p, array: (bmm, (array((p["b"], p["m"], p["k"])), array((p["b"], p["k"], p["n"]))))),
    OpDef("gemv", {"m": _SIZE, "k": _SIZE}, lambda p, array: (gemv, (array((p["m"], p["k"])), array(p["k"])))),
    OpDef("linear", {**_MNK, **_EPILOGUE}, lambda p, array: _gemm({**p, "ta": False, "tb": True}, array)),
    _rows(softmax), _rows(log_softmax), _rows(logsumexp), _norm(layer_norm, 2), _norm(rms_norm, 1),
    OpDef("group_norm", {**_NCHW, "groups": _ONE},
          lambda p, array: (partial(group_norm, groups=p["groups"]),
                            (array((p["n"], p["c"], p["h"], p["w"])), array(p["c"]), array(p["c"])))),
    OpDef("batch_norm", {**_NCHW, "groups": (1, lambda text: int(_choice({"1": 1})(text)))},
          lambda p, array: (batch_norm, (array((p["n"], p["c"], p["h"], p["w"])), *[array(p["c"])] * 4))),
    OpDef("conv2d", {**_KERNELS, **_LAYOUT, "bias": _NO}, _conv2d),
    OpDef("conv_transpose2d", {**_KERNELS, "output_pad": _NONE}, _conv_transpose2d),
    OpDef("pool2d", {**dict.fromkeys(("n", "h", "w", "c", "kh", "kw"), _SIZE), "stride": (None, _positive),
                     "pad": _NONE, "op": ("max", _choice(dict.fromkeys(("max", "mean")))), **_LAYOUT}, _pool2d),
    OpDef("attention", {**dict.fromkeys(("b", "heads", "q", "kv", "d"), _SIZE), "causal": _NO,
                        "kv_heads": (None, _positive)}, _attention),
    OpDef("rope", {**dict.fromkeys(("b", "heads", "q", "d"), _SIZE), "interleaved": _NO}, _rope),
    OpDef("swiglu", _MN, lambda p, array: (swiglu, (array((p["m"], p["n"])),) * 2)),
    OpDef("cross_entropy", _MN, lambda p, array: (cross_entropy, (array((p["m"], p["n"])), spec("i64", p["m"])))),
    _shaped(reduce, axes=(None, _integers), op=("sum", _choice(REDUCTIONS))),
    _shaped(transpose, perm=(None, _integers)),
    OpDef("gather", {"shape": (REQUIRED, _shape), "n": _SIZE, "axis": (0, int)},
          lambda p, array: (partial(gather, axis=p["axis"]), (array(p["shape"]), spec("i64", p["n"])))),
    OpDef("concat", {"shape": (REQUIRED, _shape), "other": (None, _shape), "axis": (0, int)}, _concat),
    _shaped(pad, width=(REQUIRED, _extent), mode=("constant", _choice(dict.fromkeys(_MODES)))),
    _shaped(cumsum, axis=(-1, int)),
    _shaped(cast, dtype=(REQUIRED, lambda text: parse_dtype(text).name)),
    OpDef("elementwise", {"n": _SIZE, "expr": (REQUIRED, str)}, _elementwise),
)  # fmt: skip
OPS: dict[str, OpDef] = {definition.name: definition for definition in _DEFINED}
