"""`autotune bench`: a tuned kernel beside NumPy and torch, in paired, interleaved rounds, after a check that all agree.

Knows how the peers are asked for what `autotune.ops` names, each through its own Python call and, where it can, into an
array that is already there. How a case is tuned is in `run`.
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

from ..devices.records import Status, median
from ..ir.errors import AutotuneError, DeviceError, UsageError
from ..options import Options
from ..report import duration
from .grid import Case
from .output import say, words
from .run import Progress, Record, prepare, run, timed

PEERS = ("numpy", "torch")
_TOLERANCE = {2: 2e-2, 4: 1e-3, 8: 1e-9}  # by bytes of a float
Call = Callable[[], object]


# ---- timing -----------------------------------------------------------------------------------------------------------


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


# ---- peers ------------------------------------------------------------------------------------------------------------


@contextmanager
def threads(count: int) -> Iterator[None]:
    """Hold NumPy's linear algebra and torch to `count` threads."""
    with ExitStack() as stack:
        if find_spec("threadpoolctl"):
            from threadpoolctl import threadpool_limits

            stack.enter_context(threadpool_limits(count))
        else:
            say("note: threadpoolctl is not installed, so NumPy's linear algebra may use other threads than asked for")
        if find_spec("torch"):
            import torch

            stack.callback(torch.set_num_threads, torch.get_num_threads())
            torch.set_num_threads(count)
        yield


def numpy_call(op: str, p: Mapping[str, Any], fn: Callable[..., Any], x: Sequence[Any], out: Any) -> Call:
    """The function as NumPy runs it; a bare product through `np.matmul(..., out=)`."""
    bare = op in ("gemm", "bmm", "gemv", "linear") and len(x) == 2 and p.get("act", "none") == "none"
    if not bare or x[0].dtype != out.dtype:
        return partial(fn, *x)
    return partial(np.matmul, x[0].T if p.get("ta") else x[0], x[1].T if p.get("tb") or op == "linear" else x[1], out=out)


def torch_call(op: str, p: Mapping[str, Any], arrays: Sequence[Any], out: Any) -> Call | None:
    """torch's own function for a named operation; None where it has none."""
    import torch

    if any(a.dtype.name == "bfloat16" for a in (*arrays, out)):
        return None
    x, o, f = [torch.from_numpy(a) for a in arrays], torch.from_numpy(out), torch.nn.functional
    integers = lambda name, whole: [int(n) for n in str(p[name]).strip("()").split(",")] if name in p else whole
    function: Callable[..., Any]
    if op in ("gemm", "bmm", "gemv", "linear"):
        a, b = x[0].mT if p.get("ta") else x[0], x[1].mT if p.get("tb") or op == "linear" else x[1]
        product = partial(torch.matmul, a, b, out=o) if len(x) == 2 else partial(torch.addmm, x[2], a, b, out=o)
        act = p.get("act", "none")
        function = f.gelu if act == "gelu" else f.silu if act == "silu" else getattr(torch, act, None)
        return product if act == "none" else lambda: function(product())
    if op in ("softmax", "log_softmax", "logsumexp"):
        return partial(getattr(torch, op), x[0], p.get("axis", -1), out=o)
    if op in ("layer_norm", "rms_norm"):
        return partial(getattr(f, op), x[0], x[0].shape[-1:], *x[1:])
    if op == "transpose":
        return partial(o.copy_, x[0].permute(*integers("perm", range(x[0].ndim)[::-1])))
    if op == "cast":
        return partial(o.copy_, x[0])
    if op == "reduce" and (kind := p.get("op", "sum")) != "prod":
        function = getattr(torch, {"max": "amax", "min": "amin"}.get(kind, kind))
        more = {"correction": 0} if kind in ("var", "std") else {"out": o}
        return partial(function, x[0], integers("axes", list(range(x[0].ndim))), **more)
    if op == "elementwise":  # `ops.elementwise` has accepted it: nothing but arithmetic and calls of known functions
        either = lambda both, one: lambda a, b: both(a, b) if torch.is_tensor(b) else torch.clamp(a, **{one: b})
        names = {"gelu": f.gelu, "silu": f.silu, "rint": torch.round, "max": either(torch.maximum, "min"),
                 "min": either(torch.minimum, "max"), "__builtins__": {}}  # fmt: skip
        code = compile(str(p["expr"]).strip(), "expr", "eval")
        letters = sorted(name for name in code.co_names if len(name) == 1)
        known = {name: getattr(torch, name) for name in code.co_names if len(name) > 1 and name not in names}
        return partial(eval, code, {**names, **known, **dict(zip(letters, x))})
    return None


def agree(ours: Any, theirs: Any) -> bool:
    """Equal for integers; for floats within a share of the largest magnitude."""
    if ours.shape != theirs.shape or ours.dtype.kind in "biu":
        return bool(np.array_equal(ours, theirs))
    a, b = (np.asarray(x, np.float64) for x in (ours, theirs))
    finite = np.isfinite(b)
    bound = _TOLERANCE[ours.dtype.itemsize] * max(1.0, float(np.abs(b[finite]).max(initial=0)))
    return bool(np.array_equal(finite, np.isfinite(a)) and (np.abs(a - b)[finite] <= bound).all())


# ---- the command ------------------------------------------------------------------------------------------------------


def peers(text: str) -> list[str]:
    """The names in `--against`. Raises UsageError for an unknown one, DeviceError for one that is not installed."""
    names = [name.strip() for name in text.split(",")]
    for name in names:
        if name not in PEERS:
            raise UsageError(f"--against {name}: compare with {', '.join(PEERS)}")
        if not find_spec(name):
            raise DeviceError(f"--against {name}: it is not installed; pip install {name}, or --against numpy")
    return names


def margin(text: str | None) -> float | None:
    """The share in `--fail-slower`: "5%" or "0.05"."""
    try:
        share = None if text is None else float(text[:-1]) / 100 if text.endswith("%") else float(text)
    except ValueError:
        share = math.nan
    if share is not None and not 0 <= share < 1:
        raise UsageError(f"--fail-slower {text}: a share from 0 to 1 such as 5% or 0.05")
    return share


def check(cases: Sequence[Case], names: Sequence[str]) -> None:
    """Only NumPy can run a user's NumPy function."""
    if "torch" in names and (own := next((case.op for case in cases if ":" in case.op), None)):
        raise UsageError(f"torch has no counterpart of {own}: use --against numpy")


def behind(records: Sequence[Record], share: float | None) -> list[str]:
    """A line for each peer that is faster by more than the share."""
    rows = [(r, name, peer) for r in records for name, peer in r["peers"].items()]
    return [f"{r['op']} {words(r['params'])}: {peer['ratio']:.3f}x {name} ({duration(peer['seconds'])})"
            for r, name, peer in rows if share is not None and peer["ratio"] < 1 - share]  # fmt: skip


def compare(case: Case, options: Options, names: Sequence[str], rounds: int, tune: bool, progress: Progress) -> Record:
    """The record of a case with `peers`; its `seconds` are those of the paired rounds."""
    record: Record = {**run(case, options, progress, tune), "peers": {}}
    if record["status"] == Status.OK:
        try:
            _compare(record, case, options, names, rounds)
        except KeyboardInterrupt:
            record |= {"status": str(Status.INTERRUPTED), "message": "interrupted while comparing; the winner is stored"}
        except (AutotuneError, MemoryError) as error:
            record |= {"status": str(Status.RUNTIME), "message": f"{type(error).__name__}: {error}"}
    return record


def _compare(record: Record, case: Case, options: Options, names: Sequence[str], rounds: int) -> None:
    from ..decorator import make_kernel

    rng = np.random.default_rng(options.seed)

    def like(s: Any) -> Any:
        made = rng.standard_normal(s.shape) if s.dtype.is_float else rng.integers(0, 2 + 3 * s.dtype.is_integer, s.shape)
        return made.astype(s.dtype.numpy)

    fn, args, kwargs = case.make()
    x = [like(a) if hasattr(a, "shape") else a for a in args]
    named = {name: like(a) if hasattr(a, "shape") else a for name, a in kwargs.items()}
    kernel = make_kernel(fn, {"device": options.device, "threads": options.threads, "cache": options.cache})
    with threads(options.threads or 1), np.errstate(all="ignore"):
        result, wanted = kernel(*x, **named), fn(*x, **named)
        single = isinstance(result, np.ndarray)
        if not all(agree(a, np.asarray(b).astype(a.dtype)) for a, b in [(result, wanted)] * single or zip(result, wanted)):
            record |= {"status": str(Status.CORRECTNESS), "message": "the result differs from NumPy's"}
            return
        calls: dict[str, Call] = {"ours": partial(kernel, *x, **named, **({"out": result} if single else {}))}
        for name in names:
            out = np.empty_like(result) if single and not named else None
            if name == "numpy":
                calls[name] = partial(fn, *x, **named) if out is None else numpy_call(case.op, case.params, fn, x, out)
            elif call := torch_call(case.op, case.params, x, out):
                calls[name] = call
            else:
                record["message"] = f"{name} has no counterpart"
        samples = paired(calls, rounds)
    timed(record, prepare(case, options), median(samples["ours"]))
    for name in [name for name in calls if name != "ours"]:
        record["peers"][name] = {"seconds": median(samples[name]), "ratio": ratio(samples[name], samples["ours"])}
