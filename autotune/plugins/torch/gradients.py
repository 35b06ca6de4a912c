"""Gradients of decorated functions on torch tensors: the kernel computes the results, a graph of its own the gradients.

The function runs once more on arrays that are torch tensors inside, through torch's own implementation of NumPy; torch
differentiates that, and the graph of ATen operations is compiled as a backward graph of a model is. Knows autograd and
NumPy's protocols; must not know how graphs are compiled.
"""

from __future__ import annotations

import warnings
import weakref
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.lib.mixins import NDArrayOperatorsMixin
from torch.fx.experimental.proxy_tensor import make_fx

from ... import decorator
from ...ir.errors import SignatureError
from ...options import resolve
from ...signature import is_tensor, map_leaves
from .backend import decompositions
from .compiled import Layout
from .graphs import FallbackWarning, Graph, compile_graph
from .site import numpy_dtype

_tnp: Any = torch._numpy
_METHODS = (
    "all", "any", "argmax", "argmin", "astype", "clip", "copy", "cumprod", "cumsum", "dot", "flatten", "max", "mean",
    "min", "prod", "ravel", "repeat", "reshape", "round", "squeeze", "std", "sum", "swapaxes", "take", "transpose",
    "var",
)  # fmt: skip


class _Array(NDArrayOperatorsMixin):
    """A tensor that NumPy's functions accept. Raises SignatureError, naming it, for one that torch does not have."""

    def __init__(self, tensor: Any) -> None:
        self.tensor = tensor

    dtype = property(lambda self: numpy_dtype(self.tensor.dtype))
    shape = property(lambda self: tuple(self.tensor.shape))
    ndim = property(lambda self: self.tensor.ndim)
    size = property(lambda self: self.tensor.numel())
    T = property(lambda self: self.transpose())

    def __len__(self) -> int:
        return len(self.tensor)

    def __array_ufunc__(self, ufunc: Any, method: str, *inputs: Any, **keywords: Any) -> Any:
        if method != "__call__":
            raise _unknown(f"np.{ufunc.__name__}.{method}")
        return _called(getattr(_tnp, ufunc.__name__, None), f"np.{ufunc.__name__}", inputs, keywords)

    def __array_function__(self, function: Any, types: Any, args: Any, keywords: Any) -> Any:
        name = f"{function.__module__}.{function.__name__}"
        if name in _OWN:
            return _OWN[name](*args, **keywords)
        known = name in (f"numpy.{function.__name__}", f"numpy.linalg.{function.__name__}")
        room = _tnp.linalg if "linalg" in name else _tnp
        return _called(getattr(room, function.__name__, None) if known else None, name, args, keywords)

    def __getattr__(self, name: str) -> Any:
        if name not in _METHODS:
            raise AttributeError(f"the gradient of a kernel does not know {name!r} of an array")
        return lambda *args, **keywords: _called(getattr(_tnp.ndarray, name), name, (self, *args), keywords)

    def __getitem__(self, key: Any) -> Any:
        return _called(_tnp.ndarray.__getitem__, "indexing", (self, key), {})


def _windows(x: Any, window_shape: Any, axis: Any = None) -> Any:
    """`sliding_window_view`."""
    sizes = (window_shape,) if isinstance(window_shape, int) else tuple(window_shape)
    axes = range(x.ndim) if axis is None else (axis,) if isinstance(axis, int) else axis
    tensor = x.tensor
    for d, size in zip(axes, sizes, strict=True):
        tensor = tensor.unfold(d, size, 1)
    return _Array(tensor)


def _padded(x: Any, pad_width: Any, mode: str = "constant", constant_values: Any = 0) -> Any:
    if mode != "constant" or not isinstance(constant_values, (int, float)):
        raise _unknown(f"np.pad with mode {mode!r} or several values")
    pairs = np.broadcast_to(np.asarray(pad_width, dtype=int), (x.ndim, 2)).tolist()
    return _Array(torch.nn.functional.pad(x.tensor, [n for pair in pairs[::-1] for n in pair], value=constant_values))


_OWN: dict[str, Callable[..., Any]] = {"numpy.lib.stride_tricks.sliding_window_view": _windows, "numpy.pad": _padded}


def _unknown(name: str) -> SignatureError:
    return SignatureError(f"{name} has no gradient here; pass tensors without one (tensor.detach())")


def _called(function: Any, name: str, args: Any, keywords: Any) -> Any:
    if function is None:
        raise _unknown(name)
    try:
        return map_leaves(_outside, function(*map_leaves(_inside, tuple(args)), **map_leaves(_inside, keywords)))
    except (TypeError, ValueError, RuntimeError, AttributeError) as error:  # NotImplementedError is a RuntimeError
        raise SignatureError(f"{name}, as it is called here, has no gradient: {error}") from error


def _inside(value: Any) -> Any:
    if isinstance(value, _Array):
        return _tnp.ndarray(value.tensor)
    if isinstance(value, (np.ndarray, np.generic)):
        return _tnp.ndarray(torch.from_numpy(np.array(value)))
    if isinstance(value, np.dtype) or isinstance(value, type) and issubclass(value, np.generic):
        return np.dtype(value).name
    return value


def _outside(value: Any) -> Any:
    return _Array(value.tensor) if isinstance(value, _tnp.ndarray) else value


@dataclass(frozen=True)
class _Place:
    """Stands for one of the results."""

    number: int


class _Call:
    """A form of call of a kernel: where its tensors stand among the arguments."""

    def __init__(self, kernel: Any, args: Any, keywords: Mapping[str, Any]) -> None:
        self.kernel, self.options = kernel, resolve(**kernel._options)
        given = args, dict(keywords)
        self.given = map_leaves(lambda v: torch.from_numpy(v) if isinstance(v, np.ndarray) else v, given)
        self.tensors = list[Any]()
        map_leaves(lambda v: self.tensors.append(v) if is_tensor(v) else None, self.given)
        self.structure: Any = None

    def run(self, function: Callable[..., Any], arrays: Sequence[Any]) -> Any:
        """The function on other arrays at the places of the tensors."""
        left = iter(arrays)
        args, keywords = map_leaves(lambda v: next(left) if is_tensor(v) else v, self.given)
        return function(*args, **keywords)

    def results(self, tensors: Sequence[Any]) -> tuple[Any, ...]:
        """What the kernel computes, flat."""
        found = list[Any]()

        def place(value: Any) -> Any:
            if not is_tensor(value):
                return value
            found.append(value)
            return _Place(len(found) - 1)

        self.structure = map_leaves(place, self.run(self.kernel, [t.detach() for t in tensors]))
        return tuple(found)

    def captures(self, tensors: Sequence[Any]) -> bool:
        """Whether the function reads arrays that are no arguments."""
        plan = self.run(lambda *args, **keywords: self.kernel._planned(args, keywords), [t.detach() for t in tensors])
        return bool(plan.captured)

    def pulled(self, wanted: Sequence[bool], floats: Sequence[bool], tensors: Any, grads: Any) -> list[Any]:
        """The gradients of the wanted tensors, by torch: None where a result does not depend on one."""
        given = [t.detach().requires_grad_(want) for t, want in zip(tensors, wanted)]
        found = list[Any]()
        with torch.enable_grad():
            result = self.run(self.kernel._fn, [_Array(t) for t in given])
            map_leaves(lambda v: found.append(v.tensor) if isinstance(v, _Array) else None, result)
        pairs = [(r, g) for r, g, f in zip(found, grads, floats) if f and r.requires_grad]
        for r, g in pairs:
            if r.shape != g.shape or r.dtype != g.dtype:
                both = f"{r.dtype}{tuple(r.shape)}, the kernel {g.dtype}{tuple(g.shape)}"
                raise SignatureError(f"{self.kernel!r} has no gradient: torch's NumPy computes {both}")
        asked = [t for t, want in zip(given, wanted) if want]
        if not pairs:
            return [None] * len(asked)
        return [*torch.autograd.grad([r for r, _ in pairs], asked, [g for _, g in pairs], allow_unused=True)]


class _Differentiated(torch.autograd.Function):  # type: ignore[misc]
    @staticmethod
    def forward(ctx: Any, call: _Call, *tensors: Any) -> Any:
        results = call.results(tensors)
        ctx.call, ctx.floats = call, [r.is_floating_point() for r in results]
        ctx.save_for_backward(*tensors)
        ctx.mark_non_differentiable(*(r for r in results if not r.is_floating_point()))
        return results

    @staticmethod
    def backward(ctx: Any, *grads: Any) -> Any:
        if torch.is_grad_enabled():
            raise SignatureError(f"{ctx.call.kernel._name} has no second derivative: leave out create_graph=True")
        tensors, wanted = ctx.saved_tensors, ctx.needs_input_grad[1:]
        graph = _graph(ctx.call, tensors, grads, wanted, ctx.floats)
        found = iter(graph([*tensors, *grads]))
        return None, *(next(found) if want else None for want in wanted)


_GRAPHS: weakref.WeakKeyDictionary[Any, dict[Any, Graph]] = weakref.WeakKeyDictionary()


def _graph(call: _Call, tensors: Any, grads: Any, wanted: Any, floats: Any) -> Callable[[list[Any]], Any]:
    """The compiled gradient for tensors and static arguments like these. What the function captures may change, and a
    graph would not: then torch computes the gradient, each time by what it finds."""
    title = f"gradient of {call.kernel._name}"
    if call.captures(tensors):
        warnings.warn(f"autotune: torch runs the {title}: it captures arrays", FallbackWarning, stacklevel=2)
        return lambda values: [*call.pulled(wanted, floats, values[: len(tensors)], values[len(tensors) :])]
    static = map_leaves(lambda v: None if is_tensor(v) else v, call.given)
    key = repr(static), tuple(map(Layout.of, (*tensors, *grads))), tuple(wanted), call.options
    made = _GRAPHS.setdefault(call.kernel, {})
    if key not in made:
        made[key] = _made(call, tensors, grads, wanted, floats, title)
    return made[key]


def _made(call: _Call, tensors: Any, grads: Any, wanted: Any, floats: Any, title: str) -> Graph:
    count = len(tensors)

    def pull(*values: Any) -> list[Any]:
        found = call.pulled(wanted, floats, values[:count], values[count:])
        asked = (t for t, want in zip(values, wanted) if want)
        return [torch.zeros_like(t) if g is None else g for t, g in zip(asked, found)]

    with torch._dynamo.utils.preserve_rng_state():
        derived = make_fx(pull, tracing_mode="fake")(*tensors, *grads)
        traced = make_fx(torch.func.functionalize(derived), decompositions(), tracing_mode="fake")(*tensors, *grads)
    changing = [n for n in traced.graph.nodes if n.op == "call_function" and _mutates(n.target)]
    traced.graph.eliminate_dead_code()
    if changing:
        names = ", ".join(sorted({str(n.target) for n in changing}))
        warnings.warn(f"autotune: torch runs the {title}: it writes in place ({names})", FallbackWarning, stacklevel=2)
        return Graph(traced, {n.name: "writes in place" for n in traced.graph.nodes}, title)
    return compile_graph(traced, call.options, title)


def _mutates(target: Any) -> bool:
    return isinstance(target, torch._ops.OpOverload) and target._schema.is_mutable


def differentiated(kernel: Any, args: Any, keywords: Mapping[str, Any]) -> Any:
    """The result of a kernel on tensors of which some want gradients, as torch's functions give it."""
    if keywords.get("out") is not None:
        raise SignatureError(f"{kernel._name}: out= takes no part in gradients; leave it out, or detach the tensors")
    call = _Call(kernel, args, keywords)
    results = _Differentiated.apply(call, *call.tensors)
    return map_leaves(lambda v: results[v.number] if isinstance(v, _Place) else v, call.structure)


decorator.GRADIENTS.append(differentiated)
