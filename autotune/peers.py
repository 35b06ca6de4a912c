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


def paired(calls: Mapping[str, Call], rounds: int, sample: float = 1e-3, rest: float = 0.0) -> dict[str, list[float]]:
    """Seconds of one call: `rounds` samples of each, taken in turns; a short call is repeated within its sample.
    `rest`: seconds before each, in which threads of the one before, which wait for work and spin, go to sleep."""
    counts = {name: _count(call, sample) for name, call in calls.items()}
    out: dict[str, list[float]] = {name: [] for name in calls}
    for n in range(rounds):
        for name in [*calls][n % len(calls) :] + [*calls][: n % len(calls)]:
            if rest:
                time.sleep(rest)
                calls[name]()
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
    if op == "reduce" and p.get("op") in ("argmax", "argmin"):
        return partial(getattr(torch, p["op"]), x[0], *integers("axes", []))
    if op == "reduce" and (kind := p.get("op", "sum")) != "prod":
        function = getattr(torch, {"max": "amax", "min": "amin"}.get(kind, kind))
        more = {"correction": 0} if kind in ("var", "std") else {"out": o}
        return partial(function, x[0], integers("axes", list(range(x[0].ndim))), **more)
    if op == "elementwise":
        return _torch_chain(str(p["expr"]), x, o)
    return _torch_layer(op, p, x, o)


def _torch_layer(op: str, given: Mapping[str, Any], x: Sequence[Any], out: Any) -> Call:
    """Layers, and what places elements; indices that torch would refuse are made valid beforehand."""
    import torch

    from .ops import OPS

    f, p = torch.nn.functional, OPS[op].bind(given)
    match op:
        case "conv2d":
            options = {"stride": p["stride"], "padding": p["pad"], "dilation": p["dilation"], "groups": p["groups"]}
            if p["layout"] == "nchw":
                return partial(f.conv2d, *x, **options)
            image, kernels = x[0].permute(0, 3, 1, 2), x[1].permute(3, 2, 0, 1).contiguous()
            return lambda: f.conv2d(image, kernels, *x[2:], **options).permute(0, 2, 3, 1)
        case "conv_transpose2d":
            more = p["stride"], p["pad"], p["output_pad"], p["groups"], p["dilation"]
            return partial(f.conv_transpose2d, x[0], x[1], None, *more)
        case "pool2d":
            pool, size = f.max_pool2d if p["op"] == "max" else f.avg_pool2d, (p["kh"], p["kw"])
            if p["layout"] == "nchw":
                return partial(pool, x[0], size, p["stride"] or size, p["pad"])
            image = x[0].permute(0, 3, 1, 2)
            return lambda: pool(image, size, p["stride"] or size, p["pad"]).permute(0, 2, 3, 1)
        case "group_norm":
            return partial(f.group_norm, x[0], p["groups"], x[1], x[2])
        case "batch_norm":
            return partial(f.batch_norm, x[0], x[3], x[4], x[1], x[2])
        case "attention" if not p["causal"] or p["q"] <= p["kv"]:
            grouped = p["kv_heads"] not in (None, p["heads"])
            if not p["causal"] or p["q"] in (1, p["kv"]):
                causal = p["causal"] and p["q"] > 1
                return partial(f.scaled_dot_product_attention, *x, is_causal=causal, enable_gqa=grouped)
            seen = torch.ones(p["q"], p["kv"], dtype=torch.bool).tril(p["kv"] - p["q"])
            return partial(f.scaled_dot_product_attention, *x, seen, enable_gqa=grouped)
        case "rope":
            return lambda: _torch_rope(x[0], x[1], x[2], p["interleaved"])
        case "swiglu":
            return lambda: f.silu(x[0]) * x[1]
        case "cross_entropy":
            targets = torch.where((x[1] >= 0) & (x[1] < p["n"]), x[1], -100)
            return partial(f.cross_entropy, x[0], targets)
        case "concat":
            return partial(torch.cat, list(x), p["axis"], out=out)
        case "gather":
            return partial(torch.index_select, x[0], p["axis"], x[1].clamp(0, x[0].shape[p["axis"]] - 1), out=out)
        case "pad" if p["mode"] == "constant":
            return partial(f.pad, x[0], [p["width"]] * 2 * x[0].ndim)
        case "cumsum":
            return partial(torch.cumsum, x[0], p["axis"], out=out)
    raise TypeError(f"no counterpart of {op}")


def _torch_rope(x: Any, cos: Any, sin: Any, interleaved: bool) -> Any:
    import torch

    a, b = (x[..., ::2], x[..., 1::2]) if interleaved else x.chunk(2, -1)
    turned = a * cos - b * sin, b * cos + a * sin
    return torch.stack(turned, -1).flatten(-2) if interleaved else torch.cat(turned, -1)


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
