"""The parent's end of the measuring process: starts it, talks to it, and outlives it when it hangs or dies.

Programs and schedules pass through as JSON; nothing here knows what is in them. A candidate that took the worker with
it is remembered and never tried again; the others are rebuilt in the next worker when they are asked for.
"""

from __future__ import annotations

import itertools
import json
import os
import select
import subprocess
import sys
import tempfile
import threading
import time
import weakref
from collections.abc import Iterable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from pathlib import Path
from typing import IO, Any

from ..ir.errors import MeasureError
from .measure import device_lock
from .records import BuildReport, Measurement, Policy, Status
from .spec import DeviceSpec
from .wire import NOTE, frame

# Seconds that a stage may take from its last sign of life.
LIMITS = {"start": 60.0, "compile": 20.0, "check": 60.0, "launch": 10.0, "run": 20.0}
START_GRACE = 3.0  # seconds that a starting worker gets, whatever the deadline
GRACE = 0.3  # after a deadline, before a worker that is still building is ended
TICK = 50  # milliseconds between two looks at what a silent worker is doing
_NONE: Mapping[str, float] = {}
_ROOT = str(Path(__file__).resolve().parents[2])
# The worker imports what this process would, and its linear algebra does not spin beside what is being timed.
_BOOT = (
    "import os, sys, importlib; [os.putenv(n + '_NUM_THREADS', '1') for n in ('OPENBLAS', 'MKL', 'OMP')];"
    "name, sys.path[:] = sys.argv.pop(2), sys.argv[2:]; importlib.import_module(name).main()"
)


@dataclass(frozen=True)
class _Candidate:
    """A program and a schedule as JSON text, and a number of threads."""

    program: str
    schedule: str
    threads: int


class _Lost(Exception):
    """The worker is gone: why, and what it was doing."""

    def __init__(self, message: str, status: Status, stage: str, handle: int) -> None:
        super().__init__(message)
        self.status, self.stage, self.handle = status, stage, handle


class _Process:
    """One worker: its pipes, its file of notes and its standard error."""

    def __init__(self, spec: DeviceSpec, module: str) -> None:
        self.notes, self.errors = tempfile.TemporaryFile(), tempfile.TemporaryFile()  # noqa: SIM115
        paths = sys.path if _ROOT in sys.path else [_ROOT, *sys.path]
        self.child = subprocess.Popen(
            [sys.executable, "-c", _BOOT, str(self.notes.fileno()), module, *paths], bufsize=0, stdin=subprocess.PIPE,
            stdout=subprocess.PIPE, stderr=self.errors, pass_fds=(self.notes.fileno(),),
        )  # fmt: skip
        self.owner, self.greeted = os.getpid(), False
        self.close = weakref.finalize(self, _end, self.child, self.owner, (self.notes, self.errors))
        self.send({"job": "hello", "spec": spec.to_json()})

    def send(self, job: Mapping[str, Any]) -> None:
        assert self.child.stdin is not None
        self.since = time.monotonic()
        try:
            self.child.stdin.write(frame(job))
        except OSError:
            raise self.lost("ended") from None

    def receive(self, limits: Mapping[str, float], end: float) -> Any:
        """The next reply. Raises _Lost when the worker dies, exceeds a limit, or is still busy at `end`."""
        assert self.child.stdout is not None
        waiter = select.poll()
        waiter.register(self.child.stdout, select.POLLIN)
        data, need = b"", 4
        while len(data) < need:
            if not waiter.poll(TICK):
                stage, _, since = self.note()
                now = time.monotonic()
                if now >= end:
                    raise self.lost("was stopped, the time was up", Status.INTERRUPTED)
                if now >= since + limits.get(stage, limits["start"]):
                    raise self.lost(f"gave no sign of life for {now - since:.1f} s", Status.TIMEOUT)
                continue
            part = os.read(self.child.stdout.fileno(), 1 << 16)
            if not part:
                raise self.lost("ended")
            data += part
            need = 4 + int.from_bytes(data[:4], "little") if len(data) >= 4 else 4
        self.greeted = True
        return json.loads(data[4:])

    def note(self) -> tuple[str, int, float]:
        """What the worker noted last: stage, handle, and since when."""
        raw = os.pread(self.notes.fileno(), NOTE.size, 0)
        stage, handle, since = NOTE.unpack(raw) if raw else (b"start", 0, 0.0)
        return stage.rstrip(b"\0").decode(), handle, max(since, self.since)

    def lost(self, what: str, status: Status | None = None) -> _Lost:
        """End the process and say how it went."""
        stage, handle, _ = self.note()
        if status is None:
            code = self.child.wait()
            what = f"was ended by signal {-code}" if code < 0 else f"ended with exit code {code}"
            status = Status.COMPILE if stage == "compile" else Status.RUNTIME
        self.errors.seek(max(0, self.errors.seek(0, os.SEEK_END) - 2000))
        tail = self.errors.read().decode(errors="replace").strip().splitlines()
        self.close()
        return _Lost(f"the measuring process {what}, at stage {': '.join([stage, *tail[-1:]])}", status, stage, handle)


def _end(child: subprocess.Popen[bytes], owner: int, files: Iterable[IO[bytes]]) -> None:
    """Kill and reap a worker; in a fork of its parent only let go of it."""
    for file in (child.stdin, child.stdout, *files):
        if file is not None:
            file.close()
    if os.getpid() == owner:
        child.kill()
        child.wait()


class WorkerClient:
    """Builds, checks and times candidates in a worker. Safe to use from several threads, and after a fork.

    `lock`: the directory of the lock that measuring processes share. `limits` overrides some of LIMITS.
    """

    def __init__(
        self, spec: DeviceSpec, threads: int = 1, lock: Path | None = None, limits: Mapping[str, float] | None = None,
        module: str = "autotune.worker",
    ) -> None:  # fmt: skip
        self.spec, self.threads, self.lock, self.module = spec, threads, lock, module
        self.limits, self.restarts = {**LIMITS, **(limits or {})}, 0
        self._process: _Process | None = None
        self._handles = itertools.count(1)
        self._known: dict[int, _Candidate] = {}
        self._bad: dict[_Candidate, BuildReport] = {}
        self._mutex = threading.RLock()

    def start(self) -> None:
        """Start the worker, if none runs, without waiting for it."""
        with self._mutex:
            if self._process is not None and self._process.owner != os.getpid():
                self.close()
            if self._process is None:
                try:
                    self._process = _Process(self.spec, self.module)
                except OSError as error:
                    raise MeasureError(f"the measuring process cannot be started: {error}") from error

    def wait(self) -> None:
        """Return when the worker runs, so that no budget pays for its start. Raises MeasureError where it does not."""
        with self._mutex:
            self._ask({"job": "drop", "handles": []}, float("inf"))

    def unlock(self) -> None:
        """A fresh lock, in a forked child: a thread of the parent may have held the old one."""
        self._mutex = threading.RLock()

    def close(self) -> None:
        with self._mutex:
            if self._process is not None:
                self._process.close()
                self._process = None

    def __enter__(self) -> WorkerClient:
        self.start()
        return self

    def __exit__(self, *exc: object) -> None:
        self.close()

    def build(
        self, candidates: Sequence[tuple[Any, Any]], deadline: float | None = None, check: str = "quick",
        threads: int | None = None, limits: Mapping[str, float] | None = None,
    ) -> list[BuildReport]:  # fmt: skip
        """One report for each (program, schedule) in JSON values. `check`: "quick" | "thorough" | "none".

        Candidates for which `deadline` (a `time.monotonic()`) leaves no time are "interrupted". `limits` override the
        client's: {"launch": 0.5} gives up on kernels that take longer for one call.
        """
        end, out, texts = float("inf") if deadline is None else deadline, [], dict[int, str]()
        rows = list[_Candidate]()
        for program, schedule in candidates:
            if id(program) not in texts:
                texts[id(program)] = sys.intern(json.dumps(program, separators=(",", ":")))
            rows.append(_Candidate(texts[id(program)], json.dumps(schedule, sort_keys=True), threads or self.threads))
        with self._mutex:
            self._announce([c for c in rows if c not in self._bad], end)
            for c in rows:
                if c not in self._bad and time.monotonic() >= end:
                    out.append(BuildReport(Status.INTERRUPTED, reason="deadline", message="the time was up"))
                else:
                    out.append(self._bad.get(c) or self._build(next(self._handles), c, end, check, limits or {}))
        return out

    def _announce(self, coming: Sequence[_Candidate], end: float) -> None:
        """Tell the worker what it is to build, so that it compiles some of it ahead."""
        if len(coming) > 1 and time.monotonic() < end:
            with suppress(_Lost):  # what ended it is found again, by the candidate that does it
                self._ask({"job": "ahead", "candidates": [(c.program, c.schedule, c.threads) for c in coming]}, end)

    def _build(
        self, handle: int, c: _Candidate, end: float, check: str = "none", limits: Mapping[str, float] = _NONE
    ) -> BuildReport:
        job = {"job": "build", "handle": handle, "program": c.program, "schedule": c.schedule, "threads": c.threads}
        try:
            report = BuildReport.from_json(self._ask({**job, "check": check}, end + GRACE, limits))
        except _Lost as lost:
            return self._blame(c, lost)
        if report.ok:
            self._known[handle] = c
        return report

    def _blame(self, c: _Candidate, lost: _Lost) -> BuildReport:
        report = BuildReport(lost.status, reason=lost.stage, message=str(lost))
        if lost.status is not Status.INTERRUPTED:
            self._bad[c] = report
        return report

    def time(
        self, handles: Sequence[int], policy: Policy, rounds: int | None = None, deadline: float | None = None
    ) -> list[Measurement]:
        """Interleaved timings of built candidates, in their order. One that kills the worker costs only itself."""
        how, end = replace(policy, rounds=rounds or policy.rounds), float("inf") if deadline is None else deadline
        done: dict[int, Measurement] = {}
        attempts = itertools.count()
        with self._mutex, device_lock(self.lock, self.spec.id, end) as alone:
            while live := [h for h in handles if h not in done]:
                job = {"job": "time", "handles": live, "policy": how.to_json()}
                try:  # the worker keeps the deadline by itself; each sample has its limit
                    reply = self._ask({**job, "seconds": min(end - time.monotonic(), 1e9)}, float("inf"))
                except _Lost as lost:
                    if lost.handle in live:
                        self._blame(self._known.pop(lost.handle), lost)
                    for h in [lost.handle] if lost.handle in live else live:
                        done[h] = Measurement(status=lost.status, message=str(lost))
                    continue
                many = next(attempts) > len(handles)
                for h in reply.get("missing", ()):  # it is another worker, or it has let go of some
                    why = (
                        "too many candidates or programs for one worker" if many else f"no candidate has the handle {h}"
                    )
                    report = BuildReport(Status.RUNTIME, message=why)
                    if h in self._known and not many and (report := self._build(h, self._known[h], end)).ok:
                        continue
                    done[h] = Measurement(status=report.status, message=report.message)
                for h, row in zip(live, reply.get("measurements", ())):
                    m = Measurement.from_json(row)
                    done[h] = m if alone else replace(m, noisy=True)
        return [done[h] for h in handles]

    def drop(self, handles: Iterable[int]) -> None:
        """Forget built candidates and free their code."""
        with self._mutex:
            gone = [h for h in handles if self._known.pop(h, None) is not None]
            if gone and self._process is not None and self._process.owner == os.getpid():
                self._ask({"job": "drop", "handles": gone}, float("inf"))

    def _ask(self, job: Mapping[str, Any], end: float, limits: Mapping[str, float] = _NONE) -> Any:
        for again in (True, False):
            self.start()
            assert self._process is not None
            process, self._process = self._process, None
            try:  # whatever leaves early, an interrupt too, leaves pipes that are out of step: no process then
                if not process.greeted:  # it is started for whoever comes next, too: a deadline does not end it
                    process.receive(self.limits, max(end, time.monotonic() + START_GRACE))
                process.send(job)
                reply = process.receive({**self.limits, **limits}, end)
            except _Lost as lost:
                self.restarts += 1
                if not process.greeted and lost.status is not Status.INTERRUPTED:
                    raise MeasureError(f"cannot measure: {lost}") from None
                if again and lost.stage == "idle" and lost.status is Status.RUNTIME:
                    continue  # it was ended from outside between two jobs
                raise
            self._process = process
            return reply
