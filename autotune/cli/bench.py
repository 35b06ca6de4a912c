"""`autotune bench`: a case's tuned kernel beside other libraries, after a check that all compute the same.

How the peers are called and timed is in `peers`, how a case is tuned in `run`.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from functools import partial
from importlib.util import find_spec
from typing import Any

import numpy as np

from ..devices.records import Status, median
from ..ir.errors import AutotuneError, DeviceError, UsageError
from ..options import Options
from ..peers import PEERS, Call, agree, numpy_call, paired, ratio, threads, torch_call
from .grid import Case
from .output import say
from .run import Progress, Record, prepare, run, timed


def peers(text: str, cases: Sequence[Case]) -> list[str]:
    """The names in `--against`. Raises UsageError for one that cannot run a case, DeviceError for one not installed."""
    names = [name.strip() for name in text.split(",")]
    for name in names:
        if name not in PEERS:
            raise UsageError(f"--against {name}: compare with {', '.join(PEERS)}")
        if not find_spec(name):
            raise DeviceError(f"--against {name}: it is not installed; pip install {name}, or --against numpy")
    if "torch" in names and (own := next((case.op for case in cases if ":" in case.op), None)):
        raise UsageError(f"torch has no counterpart of {own}: use --against numpy")
    return names


def margin(text: str | None) -> float:
    """The share in `--fail-slower`, "5%" or "0.05"; infinite where there is none."""
    try:
        share = math.inf if text is None else float(text[:-1]) / 100 if text.endswith("%") else float(text)
    except ValueError:
        share = math.nan
    if text is not None and not 0 <= share < 1:
        raise UsageError(f"--fail-slower {text}: a share from 0 to 1 such as 5% or 0.05")
    return share


def compare(
    case: Case, options: Options, names: Sequence[str], rounds: int, tune: bool | None, progress: Progress
) -> Record:
    """The record of a case with `peers` (`tune` as for `run`); its `seconds` are those of the paired rounds."""
    record: Record = {**run(case, options, progress, tune), "peers": {}}
    if record["status"] == Status.OK:
        try:
            _compare(record, case, options, names, rounds)
        except KeyboardInterrupt:
            record |= {"status": str(Status.INTERRUPTED), "message": "while comparing; the winner is stored"}
        except (AutotuneError, MemoryError) as error:
            record |= {"status": str(Status.RUNTIME), "message": f"{type(error).__name__}: {error}"}
    return record


def _compare(record: Record, case: Case, options: Options, names: Sequence[str], rounds: int) -> None:
    from ..decorator import make_kernel

    rng = np.random.default_rng(options.seed)

    def like(a: Any) -> Any:
        if not hasattr(a, "shape"):
            return a
        if a.dtype.is_float:
            return rng.standard_normal(a.shape).astype(a.dtype.numpy)
        return rng.integers(0, 2 if a.dtype.kind == "b" else 5, a.shape).astype(a.dtype.numpy)

    fn, args, kwargs = case.make()
    x, named = [like(a) for a in args], {name: like(a) for name, a in kwargs.items()}
    kernel = make_kernel(fn, {"device": options.device, "threads": options.threads, "cache": options.cache})
    with threads(options.threads or 1) as held, np.errstate(all="ignore"):
        if not held:
            say("note: threadpoolctl is not installed: NumPy's linear algebra may use other threads than asked for")
        result, wanted = kernel(*x, **named), fn(*x, **named)
        single = isinstance(result, np.ndarray)
        pairs = [(result, wanted)] if single else list(zip(result, wanted))
        if not all(agree(a, np.asarray(b).astype(a.dtype)) for a, b in pairs):
            record |= {"status": str(Status.CORRECTNESS), "message": "the result differs from NumPy's"}
            return
        calls: dict[str, Call] = {"ours": partial(kernel, *x, **named, **({"out": result} if single else {}))}
        for name in names:
            out = np.empty(result.shape, result.dtype) if single and not named else None
            ask = torch_call if name == "torch" else partial(numpy_call, fn)
            try:
                call = partial(fn, *x, **named) if out is None else ask(case.op, case.params, x, out)
                call()
                calls[name] = call
            except (RuntimeError, TypeError) as error:  # torch: a dtype or function that it lacks
                record["message"] = f"{name}: {error}".splitlines()[0]
        samples = paired(calls, rounds)
    ours = samples.pop("ours")
    timed(record, prepare(case, options), median(ours))
    record["peers"] = {name: {"seconds": median(row), "ratio": ratio(row, ours)} for name, row in samples.items()}
