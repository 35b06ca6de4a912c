"""The measuring process and its client, with a compiler whose kernels misbehave on purpose."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from autotune.devices.client import WorkerClient
from autotune.devices.records import BuildReport, Policy, Status
from autotune.devices.spec import DeviceSpec
from autotune.ir.errors import MeasureError
from autotune.ir.program import to_json
from autotune.worker import MAX_PROGRAMS

from ..programs import elementwise

FAKE = "tests.devices.fake_worker"
SPEC = DeviceSpec("cpu", "test", "test", "generic")
PROGRAM = to_json(elementwise(33))
QUICK = Policy(sample_seconds=2e-4, rounds=3)


@pytest.fixture(scope="module")
def client() -> Iterator[WorkerClient]:
    with WorkerClient(SPEC, module=FAKE, limits={"launch": 0.4, "run": 0.4}) as made:
        yield made


def build(client: WorkerClient, kind: str, **more: Any) -> BuildReport:
    return client.build([(PROGRAM, {"kind": kind, **more})])[0]


@pytest.mark.parametrize(
    ("kind", "status", "reason", "message"),
    [
        ("ok", Status.OK, "", ""),
        ("chatty", Status.OK, "", ""),
        ("refused", Status.CONSTRAINTS, "split-exact", "3 does not divide 8"),
        ("broken", Status.COMPILE, "render", "LLVM refused"),
        ("nonsense-of-the-compiler", Status.COMPILE, "internal", "KeyError in the compiler"),
        ("wrong", Status.CORRECTNESS, "float-check", "1 of 33 compared elements are wrong"),
        ("unwritten", Status.CORRECTNESS, "float-check", "1 of 33 elements are never written"),
        ("overrun", Status.CORRECTNESS, "float-check", "memory outside of t"),
        ("underrun", Status.CORRECTNESS, "float-check", "memory outside of t"),
        ("far", Status.RUNTIME, "launch", "signal 11"),
        ("crash", Status.RUNTIME, "launch", "signal 11"),
        ("hang", Status.TIMEOUT, "launch", "no sign of life for 0."),
        ("compiler-dies", Status.COMPILE, "compile", "exit code 3"),
    ],
)
def test_each_failure_is_a_value(client: WorkerClient, kind: str, status: Status, reason: str, message: str) -> None:
    report = build(client, kind)
    assert (report.status, report.reason) == (status, reason) and message in report.message
    assert (report.handle is not None) == report.ok
    assert build(client, "ok", after=kind).ok


def test_what_killed_a_worker_is_never_tried_again(client: WorkerClient) -> None:
    first = build(client, "crash", n=1)
    before = client.restarts
    assert build(client, "crash", n=1) == first and client.restarts == before


def test_timing_keeps_the_order(client: WorkerClient) -> None:
    slow, fast = (build(client, "ok", seconds=s).handle for s in (2e-3, 5e-4))
    assert slow and fast
    rows = client.time([slow, fast, slow], QUICK)
    assert rows[0] == rows[2] and rows[0].seconds > rows[1].seconds > 5e-4 and all(r.ok for r in rows)
    assert len(client.time([fast], QUICK, rounds=5)[0].samples) == 5


def test_a_crash_while_timing_costs_only_the_culprit(client: WorkerClient) -> None:
    good, bad, stuck = (build(client, k, n=9).handle for k in ("ok", "crash-later", "hang-later"))
    assert good and bad and stuck
    rows = client.time([good, bad, stuck], QUICK)
    assert [r.status for r in rows] == [Status.OK, Status.RUNTIME, Status.TIMEOUT] and "signal 11" in rows[1].message
    assert build(client, "crash-later", n=9).status is Status.RUNTIME  # remembered
    assert client.time([good], QUICK)[0].ok


def test_handles_survive_a_new_worker(client: WorkerClient) -> None:
    good = build(client, "ok", n=2).handle
    assert good and client._process
    os.kill(client._process.child.pid, signal.SIGKILL)
    assert client.time([good], QUICK)[0].ok  # ended from outside while idle: nobody's fault
    again = build(client, "ok", n=3).handle
    assert again
    client.close()
    assert client.time([again], QUICK)[0].ok


def test_dropped_and_unknown_handles(client: WorkerClient) -> None:
    good = build(client, "ok", n=4).handle
    assert good
    client.drop([good, 10**6])
    rows = client.time([good, 10**6], QUICK)
    assert [r.status for r in rows] == [Status.RUNTIME] * 2 and "no candidate has the handle" in rows[0].message


def test_deadlines(client: WorkerClient) -> None:
    build(client, "ok", n=5)
    (late,) = client.build([(PROGRAM, {"kind": "ok", "n": 6})], deadline=time.monotonic() - 1)
    assert late.status is Status.INTERRUPTED
    start = time.monotonic()
    stopped, after = client.build([(PROGRAM, {"kind": k, "n": 7, "seconds": 9}) for k in ("ok", "ok")], start + 0.05)
    assert stopped.status is after.status is Status.INTERRUPTED
    assert client._bad.get(next(iter(client._bad))) != stopped  # the time was up: no verdict, so it may be tried again
    good = build(client, "ok", seconds=0.01).handle
    assert good and client.time([good], Policy(rounds=10**6), deadline=time.monotonic() + 0.1)[0].ok


def test_a_limit_for_one_build(client: WorkerClient) -> None:
    (report,) = client.build([(PROGRAM, {"kind": "ok", "seconds": 0.3})], limits={"launch": 0.1})
    assert report.status is Status.TIMEOUT and "at stage launch" in report.message
    assert build(client, "ok", seconds=0.2).ok


def test_threads_share_a_client(client: WorkerClient) -> None:
    reports: list[BuildReport] = []
    threads = [threading.Thread(target=lambda i=i: reports.append(build(client, "ok", t=i))) for i in range(8)]
    for t in threads:
        t.start()
    for t in threads:
        t.join()
    assert len({r.handle for r in reports}) == 8 and all(r.ok for r in reports)


def test_a_fork_gets_a_worker_of_its_own(client: WorkerClient) -> None:
    assert build(client, "ok", n=10).ok and client._process
    pid = client._process.child.pid
    child = os.fork()
    if child == 0:
        try:
            fine = build(client, "ok", n=11).ok and client._process is not None and client._process.child.pid != pid
            client.close()
        finally:
            os._exit(0 if fine else 1)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
    before = client.restarts
    assert build(client, "ok", n=12).ok and client.restarts == before


def test_interrupt_leaves_a_usable_client(client: WorkerClient) -> None:
    timer = threading.Timer(0.15, lambda: os.kill(os.getpid(), signal.SIGINT))
    timer.start()
    with pytest.raises(KeyboardInterrupt):
        build(client, "ok", seconds=0.3, n=13)
    assert build(client, "ok", n=14).ok


def test_many_workers_leave_no_trace() -> None:
    before = set(os.listdir("/proc/self/fd")) if os.path.isdir("/proc/self/fd") else set()
    children: list[int] = []
    for n in range(8):
        with WorkerClient(SPEC, module=FAKE) as c:
            assert n % 4 or build(c, "ok").ok
            assert c._process
            children.append(c._process.child.pid)
    del c
    after = set(os.listdir("/proc/self/fd")) if before else set()
    assert len(after) <= len(before)
    for pid in children:  # ended and reaped
        with pytest.raises(ProcessLookupError):
            os.kill(pid, 0)


def test_a_worker_that_cannot_start() -> None:
    with pytest.raises(MeasureError, match="No module named 'no_such_module'"):
        build(WorkerClient(SPEC, module="no_such_module"), "ok")


def test_the_worker_ends_with_its_parent() -> None:
    code = (
        "import os, sys\nfrom tests.devices.test_client import *\n"
        "c = WorkerClient(SPEC, module=FAKE)\nassert build(c, 'ok').ok\nprint(c._process.child.pid, flush=True)\n"
        "os._exit(0)"
    )
    root = Path(__file__).parents[2]
    # As in a notebook: the program comes from standard input, and there is no file that could be imported again.
    done = subprocess.run([sys.executable, "-"], input=code, capture_output=True, text=True, cwd=root, timeout=60)
    assert done.returncode == 0, done.stderr
    pid, end = int(done.stdout), time.monotonic() + 20
    while time.monotonic() < end:
        try:
            os.kill(pid, 0)
        except ProcessLookupError:
            return
        if Path(f"/proc/{pid}/stat").exists() and Path(f"/proc/{pid}/stat").read_text().split(") ")[1][0] == "Z":
            return
        time.sleep(0.05)
    raise AssertionError("the worker outlived its parent")


def test_more_programs_than_a_worker_keeps(client: WorkerClient) -> None:
    reports = client.build([(to_json(elementwise(n)), {"kind": "ok"}) for n in range(3, 3 + MAX_PROGRAMS + 1)])
    rows = client.time([r.handle for r in reports if r.handle], QUICK)
    assert len(rows) == MAX_PROGRAMS + 1 and any("too many" in r.message for r in rows if not r.ok)
