"""Other libraries beside a kernel: what NumPy and torch make of a named operation, timed in paired, interleaved rounds.

Knows how the peers are asked, each through its own Python call and, where it can, into an array that is already there.
Must not know how our own kernels are made: they are calls like the others.
"""

from __future__ import annotations

import ast
import itertools
import math
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from functools import partial
from importlib.util import find_spec
from typing import Any

import numpy as np

from .devices.records import median

PEERS = ("numpy", "torch")
_TORCH: dict[type, str] = {
    ast.Add: "add", ast.Sub: "sub", ast.Mult: "mul", ast.Div: "div", ast.Pow: "pow", ast.Lt: "lt", ast.Gt: "gt",
}  # fmt: skip
_TOLERANCE = {2: 2e-2, 4: 1e-3, 8: 1e-9}  # by bytes of a float
Call = Callable[[], object]


def paired(calls: Mapping[str, Call], rounds: int, sample: float = 1e-3) -> dict[str, list[float]]:
    """Seconds of one call: `rounds` samples of each, taken in turns; a short call is repeated within its sample."""
    counts = {name: _count(call, sample) for name, call in calls.items()}
    out: dict[str, list[float]] = {name: [] for name in calls}
    for n in range(rounds):
        for name in [*calls][n % len(calls) :] + [*calls][: n % len(calls)]:
            out[name].append(_sample(calls[name], counts[name]))
    return out


def ratio(theirs: Sequence[float], ours: Sequence[float]) -> float:
    """How many times faster ours is: the median of the rounds' ratios."""
    return median(a / b for a, b in zip(theirs, ours))


def _count(call: Call, sample: float) -> int:
    call()
    count = 1
    while (spent := _sample(call, count) * count) < sample:
        count = max(2 * count, min(100 * count, math.ceil(1.2 * count * sample / max(spent, 1e-9))))
    return count


def _sample(call: Call, count: int) -> float:
    start = time.perf_counter()
    for _ in itertools.repeat(None, count):
        call()
    return (time.perf_counter() - start) / count


@contextmanager
def threads(count: int) -> Iterator[bool]:
    """Hold NumPy's linear algebra and torch to `count` threads; False where NumPy's cannot be held."""
    with ExitStack() as stack:
        held = find_spec("threadpoolctl") is not None
        if held:
            from threadpoolctl import threadpool_limits

            stack.enter_context(threadpool_limits(count))
        if find_spec("torch"):
            import torch

            stack.callback(torch.set_num_threads, torch.get_num_threads())
            torch.set_num_threads(count)
        yield held


def numpy_call(fn: Callable[..., Any], op: str, p: Mapping[str, Any], x: Sequence[Any], out: Any) -> Call:
    """The function as NumPy runs it: a bare product through `np.matmul(..., out=)`, and a view as a copy."""
    if np.may_share_memory(fn(*x), x[0]):

        def copied() -> Any:
            np.copyto(out, fn(*x))
            return out

        return copied
    bare = op in ("gemm", "bmm", "gemv", "linear") and len(x) == 2 and p.get("act", "none") == "none"
    if not bare or x[0].dtype != out.dtype:
        return partial(fn, *x)
    a, b = x[0].T if p.get("ta") else x[0], x[1].T if p.get("tb") or op == "linear" else x[1]
    return partial(np.matmul, a, b, out=out)


def torch_call(op: str, p: Mapping[str, Any], arrays: Sequence[Any], out: Any) -> Call:
    """torch's own function for an operation. It, or the call, raises TypeError or RuntimeError if there is none."""
    import torch

    x, o, f = [torch.from_numpy(a) for a in arrays], torch.from_numpy(out), torch.nn.functional
    integers: Callable[..., list[int]] = lambda name, whole: (
        [int(n) for n in str(p[name]).strip("()").split(",") if n] if name in p else whole
    )
    function: Callable[..., Any]
    if op in ("gemm", "bmm", "gemv", "linear"):
        a, b = x[0].mT if p.get("ta") else x[0], x[1].mT if p.get("tb") or op == "linear" else x[1]
        product = partial(torch.matmul, a, b, out=o) if len(x) == 2 else partial(torch.addmm, x[2], a, b, out=o)
        act = p.get("act", "none")
        function = f.gelu if act == "gelu" else f.silu if act == "silu" else getattr(torch, act, f.relu)
        return product if act == "none" else lambda: function(product())
    if op in ("softmax", "log_softmax", "logsumexp"):
        return partial(getattr(torch, op), x[0], p.get("axis", -1), out=o)
    if op in ("layer_norm", "rms_norm"):
        return partial(getattr(f, op), x[0], x[0].shape[-1:], *x[1:])
    if op == "transpose":
        return partial(o.copy_, x[0].permute(*integers("perm", list(range(x[0].ndim))[::-1])))
    if op == "cast":
        return partial(o.copy_, x[0])
    if op == "reduce" and (kind := p.get("op", "sum")) != "prod":
        function = getattr(torch, {"max": "amax", "min": "amin"}.get(kind, kind))
        more = {"correction": 0} if kind in ("var", "std") else {"out": o}
        return partial(function, x[0], integers("axes", list(range(x[0].ndim))), **more)
    if op == "elementwise":
        return _torch_chain(str(p["expr"]), x, o)
    if layer := _torch_layer(op, p, x):
        return layer
    raise TypeError(f"no counterpart of {op}")


def _torch_layer(op: str, p: Mapping[str, Any], x: Sequence[Any]) -> Call | None:
    """torch's function for a layer, in the layout that is given; None where it has none that means the same."""
    import torch

    f = torch.nn.functional
    number: Callable[..., int] = lambda name, otherwise=0: int(p.get(name) or otherwise)
    same = str(p.get("layout", "nchw")) == "nchw"
    if op == "conv2d" and same:
        bias = x[2] if len(x) > 2 else None
        return partial(f.conv2d, x[0], x[1], bias, number("stride", 1), number("pad"), number("dilation", 1),
                       number("groups", 1))  # fmt: skip
    if op == "conv_transpose2d":
        return partial(f.conv_transpose2d, x[0], x[1], None, number("stride", 1), number("pad"), number("output_pad"),
                       number("groups", 1), number("dilation", 1))  # fmt: skip
    if op == "pool2d" and same and str(p.get("op", "max")) == "max":
        size = number("kh"), number("kw")
        return partial(f.max_pool2d, x[0], size, number("stride") or size, number("pad"))
    if op == "group_norm":
        return partial(f.group_norm, x[0], number("groups", 1), x[1], x[2])
    if op == "batch_norm":
        return partial(f.batch_norm, x[0], x[3], x[4], x[1], x[2])
    causal = str(p.get("causal", 0)) in ("1", "True")
    if op == "attention" and x[0].shape[1] == x[1].shape[1] and not (causal and x[0].shape[2] != x[1].shape[2]):
        return partial(f.scaled_dot_product_attention, *x, is_causal=causal)
    if op == "swiglu":
        return lambda: f.silu(x[0]) * x[1]
    if op == "concat":
        return partial(torch.cat, list(x), number("axis"))
    if op == "cumsum":
        return partial(torch.cumsum, x[0], int(p.get("axis", -1)))
    return None


def _torch_chain(expr: str, x: Sequence[Any], out: Any) -> Call:
    """An expression that `ops.elementwise` has accepted, a function of torch at a time and without temporaries.

    Each writes over an intermediate that it reads, the last one into `out`; a product and a sum are one `addcmul`.
    """
    import torch

    tree = ast.parse(expr.strip(), mode="eval").body
    called = {id(n.func) for n in ast.walk(tree) if isinstance(n, ast.Call)}
    letters = sorted({n.id for n in ast.walk(tree) if isinstance(n, ast.Name) and id(n) not in called})
    known, nn, buffers = dict(zip(letters, x)), torch._C._nn, [out]
    tape: list[tuple[Callable[..., Any], tuple[Any, ...], Any]] = []

    def bound(side: str, both: Callable[..., Any]) -> Callable[..., Any]:
        return lambda a, b, **o: both(a, b, **o) if torch.is_tensor(b) else torch.clamp(a, **{side: b}, **o)

    special: dict[str, Callable[..., Any]] = {
        "gelu": nn.gelu, "silu": nn.silu, "relu": partial(torch.clamp, min=0), "rint": torch.round,
        "maximum": bound("min", torch.maximum), "minimum": bound("max", torch.minimum),
    }  # fmt: skip

    def step(function: Callable[..., Any], *args: Any) -> Any:
        if not any(map(torch.is_tensor, args)):
            return function(*map(torch.tensor, args)).item()
        result = function(*args)
        like = [b for b in buffers if b.shape == result.shape and b.dtype == result.dtype]
        over = [a for a in args if any(a is b for b in like)] or [b for b in like if b is out and not tape]
        buffers.append(buffer := over[0] if over else result)
        tape.append((function, args, buffer))
        return buffer

    def value(node: ast.AST) -> Any:
        match node:
            case ast.Name(id=name):
                return known[name]
            case ast.Constant(value=number):
                return number
            case ast.BinOp(left=ast.BinOp(op=ast.Mult()) as product, op=ast.Add(), right=other) | ast.BinOp(
                left=other, op=ast.Add(), right=ast.BinOp(op=ast.Mult()) as product
            ):
                a, b, c = value(product.left), value(product.right), value(other)
                if all(map(torch.is_tensor, (a, b, c))):
                    return step(torch.addcmul, c, a, b)
                return step(torch.add, step(torch.mul, a, b), c)
            case ast.UnaryOp(operand=x):
                return step(torch.neg, value(x))
            case ast.BinOp(left=x, op=symbol, right=y) | ast.Compare(left=x, ops=[symbol], comparators=[y]):
                return step(getattr(torch, _TORCH[type(symbol)]), value(x), value(y))
            case ast.Call(func=ast.Name(id=name), args=args):
                return step(special.get(name) or getattr(torch, name), *map(value, args))
        raise TypeError(f"no counterpart of {ast.unparse(node)}")

    last = value(tree)
    if not tape:
        return partial(out.copy_, last)
    tape[-1] = (*tape[-1][:2], out)

    def chain() -> Any:
        for function, args, buffer in tape:
            function(*args, out=buffer)
        return out

    return chain


def agree(ours: Any, theirs: Any) -> bool:
    """Equal for integers; for floats within a share of the largest magnitude."""
    if ours.shape != theirs.shape or ours.dtype.kind in "biu":
        return bool(np.array_equal(ours, theirs))
    a, b = (np.asarray(x, np.float64) for x in (ours, theirs))
    finite = np.isfinite(b)
    bound = _TOLERANCE[ours.dtype.itemsize] * max(1.0, float(np.abs(b[finite]).max(initial=0)))
    return bool(np.array_equal(finite, np.isfinite(a)) and (np.abs(a[finite] - b[finite]) <= bound).all())
