"""`autotune bench`: a case's tuned kernel beside other libraries, and a check that both mean the same.

Knows peers, ratios and tolerances; how peers are called is in `peers`, how a case is tuned in `run`.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from functools import partial
from typing import Any

import numpy as np

from ..devices.records import Status, median
from ..ir.dtypes import dtype as parse_dtype
from ..ir.errors import AutotuneError, DeviceError, UsageError
from ..options import Options
from ..report import duration
from . import peers as libraries
from .grid import Case
from .output import say
from .run import Progress, Record, prepare, rates, run

PEERS = ("numpy", "torch")
_TOLERANCE = {16: 2e-2, 32: 1e-3, 64: 1e-9}


def peers(text: str) -> list[str]:
    """The names in `--against`. Raises UsageError for an unknown one, DeviceError for one that is not installed."""
    names = [name.strip() for name in text.split(",") if name.strip()]
    for name in names:
        if name not in PEERS:
            raise UsageError(f"--against {name}: compare with {', '.join(PEERS)}")
        if not libraries.installed(name):
            raise DeviceError(f"--against {name}: it is not installed; pip install {name}, or --against numpy")
    if not names:
        raise UsageError(f"--against names nothing; compare with {', '.join(PEERS)}")
    return names


def margin(text: str | None) -> float | None:
    """The share in `--fail-slower`: "5%" or "0.05"."""
    if text is None:
        return None
    try:
        share = float(text[:-1]) / 100 if text.endswith("%") else float(text)
        if 0 <= share < 1:
            return share
    except ValueError:
        pass  # said below, like a share out of range
    raise UsageError(f"--fail-slower {text}: a share from 0 to 1 such as 5% or 0.05")


def check(cases: Sequence[Case], names: Sequence[str]) -> None:
    """Only NumPy can run a user's NumPy function."""
    if "torch" in names and (own := next((case.op for case in cases if ":" in case.op), None)):
        raise UsageError(f"torch has no counterpart of {own}: use --against numpy")


def behind(records: Sequence[Record], share: float) -> Iterator[str]:
    for r in records:
        for name, peer in r.get("peers", {}).items():
            if peer["ratio"] < 1 - share:
                yield f"{r['op']} {r['params']}: {peer['ratio']:.3f}x {name} ({duration(peer['seconds'])})"


def arrays(specs: Sequence[Any], seed: int) -> list[Any]:
    """Inputs like the Specs: normal floats, small integers."""
    rng = np.random.default_rng(seed)

    def like(s: Any) -> Any:
        if s.dtype.is_float:
            return rng.standard_normal(s.shape).astype(s.dtype.numpy)
        return rng.integers(0, 2 if s.dtype.kind == "b" else 5, s.shape).astype(s.dtype.numpy)

    return [like(s) for s in specs]


def agree(ours: Any, theirs: Any) -> bool:
    """Equal for integers; for floats within a share of the largest magnitude."""
    if ours.shape != theirs.shape:
        return False
    if not parse_dtype(ours.dtype).is_float:
        return bool(np.array_equal(ours, theirs))
    a, b = (np.asarray(x, np.float64) for x in (ours, theirs))
    bound = _TOLERANCE[ours.dtype.itemsize * 8] * max(1.0, float(np.abs(b[np.isfinite(b)]).max(initial=0)))
    return bool(np.array_equal(np.isfinite(a), np.isfinite(b)) and (np.abs(a - b)[np.isfinite(b)] <= bound).all())


def compare(
    case: Case, options: Options, names: Sequence[str], rounds: int, tune: bool, progress: Progress
) -> Record:  # fmt: skip
    """The record of a case with `peers`; its `seconds` are those of the paired rounds."""
    record: Record = {**run(case, options, progress, tune), "peers": {}}
    if record["status"] != Status.OK:
        return record
    try:
        _compare(record, case, options, names, rounds)
    except KeyboardInterrupt:
        record |= {"status": str(Status.INTERRUPTED), "message": "interrupted while comparing; the winner is stored"}
    except (AutotuneError, MemoryError) as error:
        record |= {"status": str(Status.RUNTIME), "message": f"{type(error).__name__}: {error}"}
    return record


def _compare(record: Record, case: Case, options: Options, names: Sequence[str], rounds: int) -> None:
    from ..decorator import make_kernel

    fn, args, kwargs = case.make()
    specs = [a for a in (*args, *kwargs.values()) if hasattr(a, "shape")]
    made = iter(arrays(specs, options.seed))
    values = [next(made) if hasattr(a, "shape") else a for a in args]
    named = {n: next(made) if hasattr(a, "shape") else a for n, a in kwargs.items()}
    given = {"device": options.device, "threads": options.threads, "cache": options.cache, "cache_dir": options.cache_dir}
    kernel = make_kernel(fn, {name: value for name, value in given.items() if value is not None})
    with libraries.threads(options.threads or 1) as held:
        if not held:
            say("note: threadpoolctl is not installed, so NumPy's linear algebra may use other threads than asked for")
        with np.errstate(all="ignore"):
            result, wanted = kernel(*values, **named), fn(*values, **named)
        single = isinstance(result, np.ndarray)
        pairs = [(result, wanted)] if single else list(zip(result, wanted))
        if not all(agree(a, np.asarray(b).astype(a.dtype)) for a, b in pairs):
            record |= {"status": str(Status.CORRECTNESS), "message": "the result differs from NumPy's"}
            return
        calls: dict[str, Callable[[], object]] = {
            "ours": partial(kernel, *values, **named, **({"out": result} if single else {}))
        }
        for name in names:
            call = _peer(name, case, fn, values, named, np.empty_like(result) if single else None)
            if call is None:
                record["message"] = f"{name} has no counterpart"
            else:
                calls[name] = call
        samples = libraries.paired(calls, rounds)
    ours = samples.pop("ours")
    record["seconds"] = median(ours)
    rates(record, prepare(case, options))
    for name, row in samples.items():
        record["peers"][name] = {"seconds": median(row), "ratio": libraries.ratio(row, ours)}


def _peer(
    name: str, case: Case, fn: Callable[..., Any], values: list[Any], named: dict[str, Any], out: Any
) -> Callable[[], object] | None:  # fmt: skip
    if named or out is None:
        return partial(fn, *values, **named) if name == "numpy" else None
    if name == "numpy":
        return libraries.numpy_call(case.op, case.params, fn, values, out)
    return libraries.torch_call(case.op, case.params, values, out)
