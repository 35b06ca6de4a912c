"""How far a tuner's choice can be trusted: a program tuned again and again from an empty store, and all that was picked
measured beside each other afterwards, long and by processes of their own.

Knows sessions and how picks are compared; must not know how they are shown.
"""

from __future__ import annotations

import os
import subprocess
import sys
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass, replace
from tempfile import TemporaryDirectory

from .devices import DeviceSpec
from .devices.client import WorkerClient
from .devices.records import Policy, median
from .ir.errors import MeasureError
from .ir.program import TensorProgram
from .ir.schedule import Schedule
from .options import Options
from .search.longrun import long_run
from .session import Session

CONDITIONS = ("quiet", "noisy")
PROCESSES, LOOKS, ROUNDS = 6, 8, 5  # of the measurement afterwards; arrays lie elsewhere at each look
MARGIN = 0.03  # a pick is slow where it takes so much longer than the best of all picks
ALLOWED = 0.05  # of all tunes may end with a slow one
_NEIGHBOUR = """
import os, sys
parent, size = int(sys.argv[1]), 1 << 26
one, other = bytearray(size), bytearray(size)
print("ready", flush=True)
while os.getppid() == parent:
    one[:] = other
"""
Pick = tuple[tuple[TensorProgram, Schedule], ...]  # the kernels of a program, in order
Name = tuple[tuple[str, str], ...]  # their digests


@dataclass(frozen=True)
class Stability:
    """N tunes under one condition. `picks`: how many different ones; `flips`: the share of tunes that did not pick what
    most did; `slow`: the share whose pick is slower than the best of all picks by more than the margin; regrets: times
    over that best, less 1; `trials`: candidates that the middle tune measured."""

    tunes: int
    picks: int
    flips: float
    slow: float
    median_regret: float
    worst_regret: float
    trials: float


@contextmanager
def neighbour() -> Iterator[None]:
    """A process that keeps one core and the memory busy; it ends with the block, or with this process."""
    child = subprocess.Popen([sys.executable, "-c", _NEIGHBOUR, str(os.getpid())], stdout=subprocess.PIPE)
    try:
        assert child.stdout is not None
        if not child.stdout.readline():
            raise MeasureError(f"the noisy neighbour ended with exit code {child.wait()}")
        yield
    finally:
        child.kill()
        child.wait()
        if child.stdout is not None:
            child.stdout.close()


def tuned(program: TensorProgram, options: Options) -> tuple[Pick, int]:
    """What one tuning picks that knows nothing of any other, and how many candidates it measured."""
    session = Session()
    try:
        with TemporaryDirectory(prefix="autotune-") as empty:
            alone = replace(options, cache="readwrite", cache_dir=empty, frozen=False, tune="cached", study=None)
            prepared = session.prepare(program, alone)
            session.worker(prepared.workshop.spec, prepared.threads, alone).wait()  # no budget pays for its start
            result = prepared.tune()
            return tuple((k.program, k.choice.schedule) for k in prepared.kernels), result.trials
    finally:
        session.close()


def compared(picks: Sequence[Pick], spec: DeviceSpec, threads: int) -> tuple[list[float], float]:
    """Of each pick, its regret: the median over all rounds of its time over that of the fastest, less 1; and the
    fastest one's seconds. A pick of several kernels takes the sum of their times. Raises MeasureError."""
    distinct = {(k.digest, s.digest): (k, s) for pick in picks for k, s in pick}
    programs = dict.fromkeys(name[0] for name in distinct)
    names = [[name for name in distinct if name[0] == program] for program in programs]
    todo = [[(distinct[name][0].canonical, distinct[name][1].to_json()) for name in group] for group in names]
    rows = long_run(
        lambda: WorkerClient(spec, threads), todo, Policy(threads=threads), PROCESSES, LOOKS, ROUNDS, check="none"
    )
    samples = {name: row for group, found in zip(names, rows) for name, row in zip(group, found)}
    whole = [
        [sum(parts) for parts in zip(*(samples[k.digest, s.digest] for k, s in pick))] for pick in picks
    ]  # fmt: skip
    best = min(whole, key=median)
    return [max(0.0, median(a / b for a, b in zip(row, best)) - 1) for row in whole], median(best)


def stability(
    program: TensorProgram, options: Options, tunes: int, margin: float = MARGIN,
    told: Callable[[str, int], None] = lambda condition, done: None,
) -> tuple[dict[str, Stability], float]:  # fmt: skip
    """`tunes` tunings under each condition; and the seconds of the best pick. `told` hears of each that is done."""
    found: dict[str, list[tuple[Pick, int]]] = {}
    for condition in CONDITIONS:
        found[condition] = []
        with neighbour() if condition == "noisy" else nullcontext():
            for n in range(tunes):
                found[condition].append(tuned(program, options))
                told(condition, n + 1)
    names = {condition: [_name(pick) for pick, _ in rows] for condition, rows in found.items()}
    distinct = {_name(pick): pick for rows in found.values() for pick, _ in rows}
    session = Session()
    regrets, seconds = compared([*distinct.values()], session.spec(options), session.threads(options))
    regret = dict(zip(distinct, regrets))
    return {
        condition: summary(names[condition], regret, margin, [trials for _, trials in rows])
        for condition, rows in found.items()
    }, seconds


def _name(pick: Pick) -> Name:
    return tuple((program.digest, schedule.digest) for program, schedule in pick)


def summary(picks: Sequence[Name], regret: Mapping[Name, float], margin: float, trials: Sequence[int]) -> Stability:
    """Of one condition: what each tune picked, and what each pick loses."""
    counts, lost = Counter(picks), [regret[pick] for pick in picks]
    return Stability(
        len(picks), len(counts), 1 - counts.most_common(1)[0][1] / len(picks),
        sum(r > margin for r in lost) / len(lost), median(lost), max(lost), median(trials),
    )  # fmt: skip
