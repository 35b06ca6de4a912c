"""Tracing: run the user's function once, on arrays that record what is done to them, and hand back the TensorProgram.

Knows Python's and NumPy's dispatch protocols and how to write a Compute down. What each NumPy function means is in
`tracing_rules`; which of the recorded Computes remain, in `inlining`. Must not know kernels, schedules or devices.
"""

from __future__ import annotations

import inspect
import linecache
import math
import os
import sys
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, field
from typing import Any, NoReturn

import numpy as np
from numpy.lib.stride_tricks import as_strided

from .inlining import inline, simplify
from .ir.affine import Affine, const, var
from .ir.dtypes import BOOL, DType
from .ir.dtypes import dtype as parse_dtype
from .ir.errors import SignatureError, TraceError
from .ir.expr import Const, Expr, Load, cast
from .ir.program import COMBINERS, Axis, Buffer, Compute, TensorProgram
from .tracing_calls import Calls, Operation

_np: Any = np  # its stubs do not know what implements the protocols
_INSIDE = (os.path.dirname(os.path.abspath(__file__)) + os.sep, os.path.dirname(np.__file__) + os.sep)


@dataclass(frozen=True)
class Spec:
    """Stands for an array where only its type matters. `strides` in elements; None means C-contiguous."""

    dtype: DType
    shape: tuple[int, ...]
    strides: tuple[int, ...] | None = None

    def __post_init__(self) -> None:
        if any(e < 0 for e in self.shape):
            raise SignatureError(f"shape {self.shape}: an extent is negative")
        if math.prod(self.shape) * self.dtype.bytes >= 1 << 63:
            raise SignatureError(f"shape {self.shape} of {self.dtype} has 2**63 bytes or more")
        if self.strides is not None and len(self.strides) != len(self.shape):
            raise SignatureError(f"{len(self.strides)} strides for a shape of {len(self.shape)} dimensions")

    @property
    def size(self) -> int:
        return math.prod(self.shape)

    def __str__(self) -> str:
        return f"{self.dtype}[{', '.join(map(str, self.shape))}]"


def spec(dtype: Any, shape: int | Sequence[int], strides: Sequence[int] | None = None) -> Spec:
    """A Spec: `spec("f32", (128, 768))`. `dtype` as autotune or NumPy names it; `strides` in elements."""
    whole = (shape,) if isinstance(shape, int) else shape
    return Spec(parse_dtype(dtype), tuple(map(int, whole)), None if strides is None else tuple(map(int, strides)))


@dataclass(frozen=True)
class Traced:
    """What one run of the function recorded.

    `arguments` says what to pass for each input of `program`: ("arg", position or keyword, path of keys inside that
    argument), or ("hidden", ndarray) for an array that the function reached by itself and whose present contents each
    call must pass. `result` describes the value that the function returned: ("output", ordinal), ("value", constant),
    ("sequence", type, children) or ("dict", keys, children). `operations`: for each Compute of `program`, the calls of
    NumPy that it computes, by number and name; a call that several of them compute is in each.
    """

    name: str
    program: TensorProgram
    arguments: tuple[tuple[Any, ...], ...]
    result: tuple[Any, ...]
    operations: Mapping[str, tuple[Operation, ...]] = field(default_factory=dict)

    def rebuild(self, outputs: Sequence[Any]) -> Any:
        """The function's result with `outputs` (one a program output) in place of its arrays."""

        def build(node: tuple[Any, ...]) -> Any:
            match node:
                case ("output", ordinal):
                    return outputs[ordinal]
                case ("sequence", kind, children):
                    return _sequence(kind, map(build, children))
                case ("dict", keys, children):
                    return {key: build(child) for key, child in zip(keys, children)}
            return node[1]

        return build(self.result)


def _sequence(kind: Any, items: Iterable[Any]) -> Any:
    """A tuple, a named tuple or a list of the items."""
    return kind(*items) if hasattr(kind, "_fields") else kind(items)


def trace(
    fn: Callable[..., Any], args: Sequence[Any] = (), kwargs: Mapping[str, Any] | None = None, name: str | None = None
) -> Traced:
    """Run `fn` on tracer arrays and return its program.

    Arrays and Specs in `args` and `kwargs`, also inside tuples, lists and dictionaries, become inputs (only their dtype
    and shape are used); everything else is passed as it is. Raises TraceError, naming the user's line, for what cannot
    be traced, and SignatureError for an array of an unsupported dtype. The function's own exceptions pass through.
    """
    recorder = Recorder()

    def enter(value: Any, label: str, source: tuple[Any, ...]) -> Any:
        if isinstance(value, (np.ndarray, Spec)):
            try:
                return recorder.input(label, parse_dtype(value.dtype), value.shape, source)
            except SignatureError as error:
                raise SignatureError(f"argument {label}: {error}") from None
        if not isinstance(value, (dict, tuple, list)):
            return value
        items = value.items() if isinstance(value, dict) else enumerate(value)
        inner = {key: enter(item, f"{label}_{key}", (*source[:2], (*source[2], key))) for key, item in items}
        return inner if isinstance(value, dict) else _sequence(type(value), inner.values())

    outputs: list[str] = []

    def leave(value: Any) -> tuple[Any, ...]:
        if isinstance(value, np.ndarray):
            value = recorder.array(value)
        if isinstance(value, Tracer):
            made = recorder.output(recorder.array(value))
            if made not in outputs:
                outputs.append(made)
            return ("output", outputs.index(made))
        if isinstance(value, dict):
            return ("dict", tuple(value), tuple(leave(item) for item in value.values()))
        if isinstance(value, (tuple, list)):
            return ("sequence", type(value), tuple(leave(item) for item in value))
        return ("value", value)

    labels = _parameter_names(fn, len(args))
    positional = [enter(value, labels[i], ("arg", i, ())) for i, value in enumerate(args)]
    keywords = {key: enter(value, key, ("arg", key, ())) for key, value in (kwargs or {}).items()}
    random = _random_state()
    result = fn(*positional, **keywords)
    title = str(name or getattr(fn, "__name__", type(fn).__name__))
    if _random_state() != random:
        code = getattr(fn, "__code__", None)
        where = f"{code.co_filename}:{code.co_firstlineno}: " if code else ""
        raise TraceError(f"{where}{title} draws random numbers; it must be pure: draw outside and pass them in")
    structure = leave(result)
    program, parts = inline(recorder.inputs, recorder.computes, outputs, recorder.rounded)
    return Traced(title, program, tuple(recorder.sources), structure, recorder.calls.operations(parts))


def called(like: Any, name: str) -> AbstractContextManager[None]:
    """What is recorded meanwhile in the trace that `like` belongs to is one call of this name; an array has none."""
    return like.recorder.calls.call(name) if isinstance(like, Tracer) else nullcontext()


def _parameter_names(fn: Callable[..., Any], count: int) -> list[str]:
    try:
        parameters = list(inspect.signature(fn).parameters.values())
    except (TypeError, ValueError):  # a ufunc or builtin without a signature
        parameters = []
    names = [p.name for p in parameters if p.kind in (p.POSITIONAL_ONLY, p.POSITIONAL_OR_KEYWORD)][:count]
    rest = next((p.name for p in parameters if p.kind is p.VAR_POSITIONAL), "arg")
    return names + [f"{rest}{i}" for i in range(count - len(names))]


def _random_state() -> tuple[Any, ...]:
    """The state of the two global generators, for those that are loaded."""
    python, numpy = sys.modules.get("random"), sys.modules.get("numpy.random")
    state = numpy.get_state(legacy=False)["state"] if numpy else {}
    return python.getstate() if python else None, *(np.asarray(part).tobytes() for part in state.values())


def location() -> str:
    """File, line and function of the innermost frame that is neither ours nor NumPy's, and the text of that line."""
    frame = sys._getframe(1)
    while frame.f_code.co_filename.startswith(_INSIDE) and frame.f_back is not None:
        frame = frame.f_back
    code, line = frame.f_code, frame.f_lineno
    text = linecache.getline(code.co_filename, line).strip()
    return f"{code.co_filename}:{line} in {code.co_name}" + (f" (`{text}`)" if text else "")


def fail(message: str) -> NoReturn:
    """Raise a TraceError about the user's line."""
    raise TraceError(f"{location()}: {message}")


def constant(value: Any, dtype: DType) -> Const:
    """A literal of the type's arithmetic, rounded and range-checked as NumPy does it."""
    with np.errstate(over="ignore", invalid="ignore"):
        rounded = np.asarray(value).astype(dtype.numpy) if hasattr(value, "dtype") else np.array(value, dtype.numpy)
    python = float if dtype.is_float else bool if dtype == BOOL else int
    return Const(python(rounded[()]), dtype.compute)


def convert(value: Expr, dtype: DType) -> Expr:
    """The value in another type; 16-bit floats come from and go to f32."""
    if value.dtype == dtype:
        return value
    if isinstance(value, Const):
        return cast(constant(value.value, dtype), dtype)
    return cast(cast(cast(value, value.dtype.compute), dtype.compute), dtype)


class Recorder:
    """The program so far: one Compute an operation, named %0, %1, ... with axes a0.. and reduction axes r0.."""

    def __init__(self) -> None:
        self.inputs: list[Buffer] = []
        self.sources: list[tuple[Any, ...]] = []
        self.computes: list[Compute] = []
        self.rounded: set[str] = set()  # 16-bit floats whose rounding the user asked for
        self.calls = Calls()
        self._hidden: dict[int, Tracer] = {}

    def input(self, label: str, dtype: DType, shape: tuple[int, ...], source: tuple[Any, ...]) -> Tracer:
        while any(b.name == label for b in self.inputs):
            label += "_"
        self.inputs.append(Buffer(label, dtype, shape))
        self.sources.append(source)
        return Tracer(self, label, shape, dtype)

    def output(self, value: Tracer) -> str:
        """The name of a Compute that holds the value; an input is copied."""
        return value.name if value.name.startswith("%") else self.define(value.shape, value.load(value.axes)).name

    def operand(self, value: Any) -> Any:
        """A Tracer for anything array-like, or the Python or NumPy scalar itself."""
        if isinstance(value, Tracer):
            if value.recorder is not self:
                fail("an array kept from an earlier call of a traced function; pass it as an argument")
            return value
        if isinstance(value, (list, tuple)):
            value = np.asarray(value)
        if isinstance(value, np.ndarray):
            if type(value) is not np.ndarray:
                fail(f"a captured {type(value).__name__}: no subclasses of ndarray; use np.asarray outside")
            if not value.dtype.isnative or any(s < 0 for s in value.strides):
                fail("a captured array has foreign byte order or negative strides; make a copy outside")
            if id(value) not in self._hidden:
                label = f"captured{len(self._hidden)}"
                self._hidden[id(value)] = self.input(label, self.dtype(value.dtype), value.shape, ("hidden", value))
            return self._hidden[id(value)]
        if not isinstance(value, (bool, int, float, np.generic)):
            fail(f"an operand of type {type(value).__name__} is neither an array nor a real number")
        return value

    def array(self, value: Any) -> Tracer:
        """A Tracer for an array-like; scalars become arrays of no dimension."""
        value = self.operand(value)
        if not isinstance(value, Tracer):
            dtype = self.dtype(np.asarray(value).dtype)
            value = self.define((), convert(constant(value, dtype), dtype))
        made: Tracer = value
        return made

    @staticmethod
    def dtype(value: Any) -> DType:
        try:
            if isinstance(value, str) and value not in ("f16", "f32", "f64", "bf16"):
                value = np.dtype(value)  # in NumPy's code "i8" is eight bytes
            return parse_dtype(value)
        except TypeError:
            fail(f"{value!r} is no dtype of NumPy")
        except SignatureError as error:
            fail(str(error))

    def define(self, shape: Sequence[int], body: Expr, reduced: Sequence[int] = (), combiner: str = "") -> Tracer:
        """Record body over a0.. < shape, combined over r0.. < reduced."""
        if math.prod(shape) * 8 >= 1 << 63 or math.prod(reduced) >= 1 << 63:
            fail(f"an array of shape {tuple(shape)} is too large to address")
        if combiner and 0 in reduced:
            body, reduced = Const(COMBINERS[combiner].identity(body.dtype), body.dtype), ()
        axes = tuple(Axis(f"a{i}", e) for i, e in enumerate(shape))
        reduce_axes = tuple(Axis(f"r{i}", e) for i, e in enumerate(reduced))
        name = f"%{len(self.computes)}"
        self.calls.record(name)
        self.computes.append(Compute(name, body.dtype, axes, body, reduce_axes, combiner if reduced else None))
        return Tracer(self, name, tuple(shape), body.dtype)

    def cast(self, value: Tracer, dtype: DType, explicit: bool = False) -> Tracer:
        if value.type == dtype:
            return value
        made = self.define(value.shape, convert(value.load(value.axes), dtype))
        if explicit and dtype.bits == 16:
            self.rounded.add(made.name)
        return made

    def broadcast(self, shapes: Sequence[tuple[int, ...]], what: str) -> tuple[int, ...]:
        try:
            return np.broadcast_shapes(*shapes)
        except ValueError:
            fail(f"{what}: shapes {' and '.join(map(str, shapes))} do not broadcast together")

    def map(
        self, what: str, build: Callable[..., Expr], operands: Sequence[Any], types: Sequence[DType], out: DType
    ) -> Tracer:
        """Record out = build(operands), elementwise after broadcasting; operand i is computed with as types[i]."""
        shape = self.broadcast([o.shape for o in operands if isinstance(o, Tracer)], what)
        try:
            values = [
                convert(o.spread(shape), t.compute) if isinstance(o, Tracer) else constant(o, t)
                for o, t in zip(operands, types)
            ]
        except OverflowError as error:
            fail(f"{what}: {error}")
        return self.define(shape, convert(build(*values), out))

    def view(self, what: str, function: Callable[..., Any], value: Tracer, *args: Any, **kwargs: Any) -> Any:
        """Record what `function` makes of an array, given that NumPy answers with a view of it.

        NumPy itself is asked, with an array of one byte an element whose memory is never touched: offset and strides of
        the view are an affine map to positions in the source, hence to its indices.
        """
        strides = Buffer("", value.type, value.shape).contiguous_strides
        ghost = as_strided(np.zeros(1, np.int8), value.shape, strides)
        try:
            seen = function(ghost, *args, **kwargs)
        except (ValueError, IndexError, TypeError) as error:
            fail(f"{what} of shape {value.shape}: {error}")
        if isinstance(seen, (list, tuple)):
            return type(seen)(self._seen(what, value, ghost, each) for each in seen)
        return self._seen(what, value, ghost, seen)

    def _seen(self, what: str, value: Tracer, ghost: np.ndarray, seen: np.ndarray) -> Tracer:
        if seen.shape == value.shape and seen.strides == ghost.strides:
            return value
        extents = {f"a{i}": e for i, e in enumerate(seen.shape)}
        flat = const(seen.__array_interface__["data"][0] - ghost.__array_interface__["data"][0])
        for name, extent, stride in zip(extents, seen.shape, seen.strides):
            flat = flat + (var(name) * stride if extent > 1 else 0)
        index: list[Affine] = []
        for extent in reversed(value.shape):
            flat = flat if seen.size else const(0)
            index.append(simplify(flat % max(extent, 1), extents))
            flat = simplify(flat // max(extent, 1), extents)
        return self.define(seen.shape, value.load(tuple(reversed(index))))


def _method(function: Any) -> Callable[..., Any]:
    return lambda self, *args, **kwargs: function(self, *args, **kwargs)


def _operator(function: Any) -> tuple[Callable[..., Any], Callable[..., Any]]:
    return (lambda self, other: function(self, other)), (lambda self, other: function(other, self))


def _no_value(use: str, instead: str) -> Callable[..., Any]:
    def refuse(self: Tracer, *args: Any, **kwargs: Any) -> NoReturn:
        fail(f"{use} {self!r}, whose values are unknown while tracing; {instead}")

    return refuse


class Tracer:
    """An array whose shape and dtype are known and whose elements are not."""

    __slots__ = ("recorder", "name", "shape", "type")

    def __init__(self, recorder: Recorder, name: str, shape: tuple[int, ...], type: DType) -> None:
        self.recorder, self.name, self.shape, self.type = recorder, name, shape, type

    def __repr__(self) -> str:
        return f"traced {self.type}[{', '.join(map(str, self.shape))}]"

    # ---- as an operand of expressions

    @property
    def axes(self) -> tuple[Affine, ...]:
        return tuple(var(f"a{i}") for i in range(len(self.shape)))

    def load(self, index: tuple[Affine, ...]) -> Expr:
        return Load(self.name, index, self.type)

    def spread(self, shape: tuple[int, ...]) -> Expr:
        """The element that broadcasting to `shape` puts at a0.. ."""
        skip = len(shape) - len(self.shape)
        pairs = zip(self.shape, shape[skip:])
        return self.load(tuple(var(f"a{skip + d}") if e == s else const(0) for d, (e, s) in enumerate(pairs)))

    # ---- NumPy's protocols

    def __array_ufunc__(self, ufunc: np.ufunc, method: str, *inputs: Any, out: Any = None, **kwargs: Any) -> Any:
        from . import tracing_rules

        if out is not None:
            fail(f"np.{ufunc.__name__}(..., out=...) writes into an array; use its result instead")
        with self.recorder.calls.call(ufunc.__name__):
            return tracing_rules.call_ufunc(self.recorder, ufunc, method, inputs, kwargs)

    def __array_function__(self, function: Any, types: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        from . import tracing_rules

        with self.recorder.calls.call(function.__name__):
            return tracing_rules.call_function(self.recorder, function, args, kwargs)

    def __getattr__(self, name: str) -> Any:
        if not name.startswith("_") and hasattr(np.ndarray, name):
            fail(f"ndarray.{name} cannot be traced; compute it outside the function and pass the result as an argument")
        raise AttributeError(f"{self!r} has no attribute {name!r}")

    _outside = "compute it outside the function, or pass it as a Python number"
    __array__ = _no_value("converting to a NumPy array (np.asarray, np.array, a random generator)",
                          "use the array as it is; build arrays with np.stack or np.where")  # fmt: skip
    __bool__ = _no_value("a branch (if, while, and, or, not, assert) on", "use np.where, np.logical_and, np.maximum")
    __float__ = _no_value("float() or a math function of", "use the NumPy function (np.exp, np.sqrt), or " + _outside)
    __int__ = _no_value("int() of", "use .astype(np.int64) for an array of integers, or " + _outside)
    __complex__ = _no_value("complex() of", "complex numbers are not supported")
    __index__ = _no_value("an index, extent or axis taken from", "only Python integers can be one: " + _outside)
    __setitem__ = _no_value("assigning to elements of", "build the result with np.where or np.stack")
    __delitem__ = __setitem__
    __iter__ = _no_value("iterating over", "use reductions and whole-array operations, or static indices t[0], t[1]")
    __contains__ = _no_value("`in` on", "use np.any(t == value)")

    def __getitem__(self, key: Any) -> Any:
        for part in key if isinstance(key, tuple) else (key,):
            integer = isinstance(part, (int, np.integer)) and not isinstance(part, bool)
            if not (integer or part is None or part is Ellipsis or isinstance(part, slice)):
                fail(f"indexing {self!r} with {part!r}: only static integers, slices, None and ... select elements; "
                     'use np.where(mask, a, b) for masks, ops.gather or np.take(mode="clip") for places')  # fmt: skip
        whole = key if isinstance(key, tuple) else (key,)  # with ..., so that NumPy answers with a view in any case
        whole = whole if any(part is Ellipsis for part in whole) else (*whole, ...)
        with self.recorder.calls.call("index"):
            return self.recorder.view(f"index {key!r}", lambda ghost: ghost[whole], self)

    # ---- what an ndarray has

    @property
    def dtype(self) -> np.dtype[Any]:
        return self.type.numpy

    @property
    def ndim(self) -> int:
        return len(self.shape)

    @property
    def size(self) -> int:
        return math.prod(self.shape)

    @property
    def T(self) -> Any:
        return _np.transpose(self)

    @property
    def mT(self) -> Any:
        return _np.swapaxes(self, -1, -2)

    def __len__(self) -> int:
        if not self.shape:
            raise TypeError("len() of an array of no dimension")
        return self.shape[0]

    def astype(self, dtype: Any, *args: Any, **kwargs: Any) -> Tracer:
        with self.recorder.calls.call("astype"):
            return self.recorder.cast(self, self.recorder.dtype(dtype), explicit=True)

    def reshape(self, *shape: Any, order: str = "C") -> Any:
        return _np.reshape(self, shape[0] if len(shape) == 1 else shape, order)

    def transpose(self, *axes: Any) -> Any:
        return _np.transpose(self, (axes[0] if len(axes) == 1 else axes) if axes else None)

    sum, prod, max, min, any, all = map(_method, (np.sum, np.prod, np.max, np.min, np.any, np.all))
    mean, var, std, clip, round, dot = map(_method, (np.mean, np.var, np.std, np.clip, np.round, np.dot))
    swapaxes, squeeze, diagonal, ravel = map(_method, (np.swapaxes, np.squeeze, np.diagonal, np.ravel))
    flatten, copy, repeat, take = map(_method, (np.ravel, np.copy, np.repeat, np.take))
    argmax, argmin, cumsum, cumprod = map(_method, (np.argmax, np.argmin, np.cumsum, np.cumprod))

    __add__, __radd__ = _operator(np.add)
    __sub__, __rsub__ = _operator(np.subtract)
    __mul__, __rmul__ = _operator(np.multiply)
    __truediv__, __rtruediv__ = _operator(np.true_divide)
    __floordiv__, __rfloordiv__ = _operator(np.floor_divide)
    __mod__, __rmod__ = _operator(np.remainder)
    __divmod__, __rdivmod__ = _operator(np.divmod)
    __pow__, __rpow__ = _operator(np.power)
    __matmul__, __rmatmul__ = _operator(np.matmul)
    __and__, __rand__ = _operator(np.bitwise_and)
    __or__, __ror__ = _operator(np.bitwise_or)
    __xor__, __rxor__ = _operator(np.bitwise_xor)
    __lshift__, __rlshift__ = _operator(np.left_shift)
    __rshift__, __rrshift__ = _operator(np.right_shift)
    __lt__, __gt__ = _operator(np.less)
    __le__, __ge__ = _operator(np.less_equal)
    __eq__, _ = _operator(np.equal)
    __ne__, _ = _operator(np.not_equal)
    __neg__, __pos__, __abs__, __invert__ = map(_method, (np.negative, np.positive, np.absolute, np.invert))
    __hash__ = None  # type: ignore[assignment]
