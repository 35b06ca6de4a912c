"""How to time native code in this process, and when to distrust the result. Knows nothing of programs or of who asks.

A `Run` calls one kernel n times and returns the seconds that took; a loop around the calls is native where the kernel
is short. Candidates are timed in interleaved rounds, so that a drift of the machine meets all of them alike.
"""

from __future__ import annotations

import os
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path

from .records import Measurement, Policy, Status, median

Run = Callable[[int], float]

CPU_SHARE = 0.97  # of the wall time that the timing thread must have run for
DRIFT = 1.12  # a sentinel this many times its best marks its round as disturbed
ATTEMPTS = 3  # for one sample, while it is being preempted and shorter than LONG
LONG = 0.05  # seconds over which preemption averages out
MOST_REPEATS = 1 << 20  # of a kernel within one sample: one that takes no time at all is not waited for
FIRST_CUT = 3.0  # a candidate this many times slower than the leader at first touch is timed no further
SECOND_CUT = 2.0  # the same after one full round


def timed(call: Callable[[int], object]) -> Run:
    """A Run of something that repeats the kernel by itself."""

    def run(n: int) -> float:
        start = time.perf_counter()
        call(n)
        return time.perf_counter() - start

    return run


class Sentinel:
    """A fixed piece of work whose time tells whether the machine is as fast as it has been at its best."""

    def __init__(self, run: Run, seconds: float = 1e-4) -> None:
        self._run, self._n, self.best = run, 1, float("inf")
        while (spent := run(self._n)) < seconds / 2:
            self._n *= max(2, int(seconds / max(spent, 1e-7)) // 2)

    def ratio(self) -> float:
        """Time now over the best ever: about 1 on a quiet machine."""
        now = min(self._run(self._n), self._run(self._n))
        self.best = min(self.best * 1.0001, now)  # slowly forgets a boost that is over
        return now / self.best


@dataclass
class _Entry:
    index: int
    run: Run
    repeat: int = 1
    estimate: float = 0.0
    samples: list[float] = field(default_factory=list)
    disturbed: int = 0


def time_interleaved(
    runs: Sequence[Run],
    policy: Policy,
    deadline: float,
    sentinel: Sentinel | None = None,
    touch: Callable[[int], None] = lambda index: None,
) -> list[Measurement]:
    """One Measurement a run. `deadline` is a `time.monotonic()`; it is overrun by at most the sample being taken.

    `touch(i)` is called before each sample of run i. A round that the sentinel finds disturbed is repeated, while time
    lasts and up to half as often as there are rounds; where that does not help, the samples are kept and marked noisy.
    """
    entries = [_Entry(i, run) for i, run in enumerate(runs)]
    live = _first_touch(entries, policy, deadline, touch)
    taken = kept = bad = 0
    ratio = sentinel.ratio if sentinel else lambda: 1.0
    after = ratio()
    while live and kept < policy.rounds:
        before = after
        row = [(e, *_sample(e, policy, deadline, touch)) for e in _order(live, taken) if _fits(e, deadline)]
        taken += 1
        after = ratio()
        drifted = max(before, after) > DRIFT
        late = len(row) < len(live) or time.monotonic() + sum(e.estimate * e.repeat for e in live) > deadline
        if drifted and not late and taken - kept <= policy.rounds // 2:
            continue
        kept, bad = kept + 1, bad + drifted
        for entry, seconds, quiet in row:
            entry.samples.append(seconds)
            entry.disturbed += not quiet
        if late:
            break
        live = _raced(live, policy, kept)
    out = []
    for e in entries:
        if e.samples:
            out.append(Measurement.of(e.samples, taken, 2 * max(e.disturbed, bad) > len(e.samples)))
        elif e.estimate:
            out.append(Measurement.of([e.estimate], 0, noisy=e in live))
        else:
            out.append(Measurement(status=Status.INTERRUPTED, message="the time was up before its first run"))
    return out


def _first_touch(entries: list[_Entry], policy: Policy, deadline: float, touch: Callable[[int], None]) -> list[_Entry]:
    """Warm each run up, find its repeat count, and leave out those that are hopeless at first sight."""
    for e in entries:
        if time.monotonic() >= deadline:
            break
        touch(e.index)
        e.estimate = e.run(1)
        if e.estimate < 20 * policy.sample_seconds:  # the first call meets cold caches, and perhaps a disturbance
            e.estimate = min(e.estimate, e.run(1))
        while policy.warm and e.estimate * e.repeat < policy.sample_seconds / 2 and e.repeat < MOST_REPEATS:
            e.repeat = min(e.repeat * 64, max(e.repeat + 1, int(policy.sample_seconds / max(e.estimate, 1e-9))))
            e.estimate = max(e.run(e.repeat) / e.repeat, 1e-12)
        e.repeat = policy.repeats(e.estimate)
    touched = [e for e in entries if e.estimate]
    limit = max(FIRST_CUT, policy.race) * min((e.estimate for e in touched), default=0.0)
    for e in touched:
        if e.estimate > limit and _fits(e, deadline):  # its first run may have met a disturbance
            touch(e.index)
            e.estimate = min(e.estimate, e.run(e.repeat) / e.repeat)
    return [e for e in touched if e.estimate <= limit]


def _fits(entry: _Entry, deadline: float) -> bool:
    return time.monotonic() + entry.estimate * entry.repeat < deadline


def _order(live: list[_Entry], turn: int) -> list[_Entry]:
    """Another starting point each round, and every second round backwards: nobody always follows the same neighbour."""
    start = turn % len(live)
    row = live[start:] + live[:start]
    return row[::-1] if turn % 2 else row


def _sample(entry: _Entry, policy: Policy, deadline: float, touch: Callable[[int], None]) -> tuple[float, bool]:
    """Seconds a call, and whether the thread kept its CPU meanwhile (of several threads only the wall clock knows).

    A call before is not counted: what ran before has left its own data in the caches, or nothing."""
    best, quiet = float("inf"), False
    for _ in range(ATTEMPTS):
        touch(entry.index)
        if policy.warm and policy.alone and entry.repeat > 1:
            entry.run(1)
        busy = time.thread_time()
        wall = entry.run(entry.repeat)
        busy = time.thread_time() - busy
        quiet = policy.threads > 1 or busy >= CPU_SHARE * wall
        best = wall if quiet else min(best, wall)
        if policy.warm and wall < policy.sample_seconds / 2:  # it was disturbed when its repeat count was found
            entry.repeat *= max(2, min(64, int(policy.sample_seconds / max(wall, 1e-9))))
            best, quiet = float("inf"), False
            continue
        if quiet or wall > LONG or not _fits(entry, deadline):
            break
    if best == float("inf"):  # the last attempt only found that more repetitions are needed
        best = entry.run(entry.repeat)
    return best / entry.repeat, quiet


def _raced(live: list[_Entry], policy: Policy, kept: int) -> list[_Entry]:
    factor = policy.race if kept >= policy.race_after else max(policy.race, SECOND_CUT)
    leader = min(median(e.samples) for e in live)
    return [e for e in live if min(e.samples) <= factor * leader]


@contextmanager
def device_lock(directory: Path | None, device: str, deadline: float) -> Iterator[bool]:
    """Hold the advisory lock under which one process at a time measures on `device` of this machine.

    Yields False where it was not free before `deadline` (the caller's samples are then noisy), or cannot be had at all.
    """
    if directory is None or sys.platform == "win32":
        yield True
        return
    import fcntl

    name = f"{os.uname().nodename}-{device}".replace(":", "-").replace("/", "-")
    try:
        file = open(directory / f"measuring-{name}.lock", "a")  # noqa: SIM115
    except OSError as error:
        print(f"autotune: measuring without a lock, {directory} is not writable: {error}", file=sys.stderr)
        yield False
        return
    with file:
        held = said = False
        while not held:
            with suppress(BlockingIOError):
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
                held = True
                break
            if not said:
                print(f"autotune: waiting for another process that is measuring on {device}", file=sys.stderr)
                said = True
            if time.monotonic() >= deadline:
                break
            time.sleep(0.002)
        try:
            yield held
        finally:
            if held:
                fcntl.flock(file, fcntl.LOCK_UN)
