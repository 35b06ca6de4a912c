"""What other libraries make of the same case, and timing of several calls in paired, interleaved rounds.

Knows how NumPy and torch are asked for what `autotune.ops` names, each through its own Python call and into an array that is
already there where the library can do that. Must not know how our own kernels are made.
"""

from __future__ import annotations

import itertools
import math
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from functools import partial
from importlib.util import find_spec
from typing import Any

import numpy as np

from ..devices.records import median

Array = np.ndarray[Any, Any]
Call = Callable[[], object]
SAMPLE = 1e-3  # seconds of one sample, at least


def paired(calls: Mapping[str, Call], rounds: int, sample: float = SAMPLE) -> dict[str, list[float]]:
    """Seconds of one call: `rounds` samples of each, taken in turns; a short call is repeated within its sample."""
    counts = {name: _count(call, sample) for name, call in calls.items()}
    out: dict[str, list[float]] = {name: [] for name in calls}
    names = list(calls)
    for n in range(rounds):
        for name in names[n % len(names) :] + names[: n % len(names)]:
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
    steps = itertools.repeat(None, count)
    start = time.perf_counter()
    for _ in steps:
        call()
    return (time.perf_counter() - start) / count


def installed(peer: str) -> bool:
    return find_spec(peer) is not None


@contextmanager
def threads(count: int) -> Iterator[bool]:
    """Hold NumPy's linear algebra and torch to `count` threads; False where NumPy's cannot be held."""
    with ExitStack() as stack:
        held = installed("threadpoolctl")
        if held:
            from threadpoolctl import threadpool_limits

            stack.enter_context(threadpool_limits(count))
        if installed("torch"):
            import torch

            stack.callback(torch.set_num_threads, torch.get_num_threads())
            torch.set_num_threads(count)
        yield held


def numpy_call(op: str, params: Mapping[str, Any], fn: Callable[..., Any], arrays: Sequence[Array], out: Array) -> Call:
    """The function as NumPy runs it; a bare product through `np.matmul(..., out=)`."""
    bare = len(arrays) == 2 and params.get("act", "none") == "none"
    if bare and op in ("gemm", "bmm", "gemv", "linear"):
        a = arrays[0].T if params.get("ta") else arrays[0]
        b = arrays[1].T if params.get("tb") or op == "linear" else arrays[1]
        if a.dtype == out.dtype:
            return partial(np.matmul, a, b, out=out)
    return partial(fn, *arrays)


def torch_call(op: str, params: Mapping[str, Any], arrays: Sequence[Array], out: Array) -> Call | None:
    """torch's own function for a named operation; None where it has none."""
    import torch

    if op not in _TORCH or any(a.dtype.name == "bfloat16" for a in (*arrays, out)):
        return None
    made: Call = _TORCH[op](torch, params, [torch.from_numpy(a) for a in arrays], torch.from_numpy(out))
    return made


def _product(torch: Any, p: Mapping[str, Any], x: list[Any], out: Any) -> Call:
    a, b = (t.mT if flip else t for t, flip in zip(x, (p.get("ta"), p.get("tb"))))
    act = _activation(torch, p.get("act", "none"), out)
    if len(x) == 2:
        product = partial(torch.matmul, a, b, out=out)
    else:
        product = partial(torch.addmm, x[2], a, b, out=out)
    return product if act is None else lambda: (product(), act())


def _activation(torch: Any, name: str, out: Any) -> Call | None:
    if name == "none":
        return None
    if name == "gelu":
        return lambda: torch.nn.functional.gelu(out)
    if name == "silu":
        return partial(torch.nn.functional.silu, out, inplace=True)
    return partial(getattr(torch, f"{name}_"), out)


def _reduction(torch: Any, p: Mapping[str, Any], x: list[Any], out: Any) -> Call:
    op = p.get("op", "sum")
    axes = tuple(int(a) for a in str(p["axes"]).strip("()").split(",") if a) if "axes" in p else tuple(range(x[0].ndim))
    if op in ("max", "min"):
        return partial(getattr(torch, f"a{op}"), x[0], axes, out=out)
    if op in ("sum", "mean"):
        return partial(getattr(torch, op), x[0], axes, out=out)
    if op in ("var", "std"):
        return partial(getattr(torch, op), x[0], axes, correction=0)
    if op in ("any", "all"):
        return partial(getattr(torch, op), x[0], axes)

    def prod() -> Any:
        y = x[0]
        for axis in sorted((a % x[0].ndim for a in axes), reverse=True):
            y = torch.prod(y, axis)
        return y

    return prod


def _chain(torch: Any, p: Mapping[str, Any], x: list[Any], out: Any) -> Call:
    """The expression over tensors. `ops.elementwise` has accepted it: nothing but arithmetic and known functions."""
    pick = lambda whole, part: lambda a, b: whole(a, b) if torch.is_tensor(b) else torch.clamp(a, **{part: b})
    f = torch.nn.functional
    names: dict[str, Any] = {"relu": torch.relu, "gelu": f.gelu, "silu": f.silu, "sigmoid": torch.sigmoid, "tanh": torch.tanh,
                             "max": pick(torch.maximum, "min"), "min": pick(torch.minimum, "max"), "rint": torch.round}  # fmt: skip
    for name in ("erf", "abs", "where", "exp", "exp2", "log", "log2", "sqrt", "sin", "cos", "square", "floor"):
        names[name] = getattr(torch, name)
    code = compile(str(p["expr"]).strip(), "expr", "eval")
    letters = sorted(n for n in code.co_names if len(n) == 1)
    return partial(eval, code, {"__builtins__": {}, **names, **dict(zip(letters, x))})


def _normal(torch: Any, p: Mapping[str, Any], x: list[Any], out: Any) -> Call:
    return partial(torch.nn.functional.layer_norm, x[0], x[0].shape[-1:], x[1], x[2])


def _root_normal(torch: Any, p: Mapping[str, Any], x: list[Any], out: Any) -> Call:
    return partial(torch.nn.functional.rms_norm, x[0], x[0].shape[-1:], x[1], 1e-6)


def _turned(torch: Any, p: Mapping[str, Any], x: list[Any], out: Any) -> Call:
    order = [int(d) for d in str(p["perm"]).strip("()").split(",") if d] if "perm" in p else range(x[0].ndim)[::-1]
    return partial(out.copy_, x[0].permute(*order))


_TORCH: dict[str, Callable[[Any, Mapping[str, Any], list[Any], Any], Call]] = {
    "gemm": _product, "bmm": _product, "gemv": _product,
    "linear": lambda torch, p, x, out: _product(torch, {**p, "tb": 1}, x, out),
    "softmax": lambda torch, p, x, out: partial(torch.softmax, x[0], p.get("axis", -1), out=out),
    "log_softmax": lambda torch, p, x, out: partial(torch.log_softmax, x[0], p.get("axis", -1), out=out),
    "logsumexp": lambda torch, p, x, out: partial(torch.logsumexp, x[0], p.get("axis", -1), out=out),
    "layer_norm": _normal, "rms_norm": _root_normal, "reduce": _reduction, "elementwise": _chain, "transpose": _turned,
    "cast": lambda torch, p, x, out: partial(out.copy_, x[0]),
}  # fmt: skip
