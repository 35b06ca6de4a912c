"""The runtime under kernels: scratch blocks, the thread pool in good and bad conditions, the timing loop, fork."""

from __future__ import annotations

import ctypes
import os
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

from autotune.cache.objects import ObjectCache
from autotune.codegen import jit
from autotune.codegen import runtime as module
from autotune.codegen.runtime import Runtime, runtime

COUNTERS = """
declare void @at_parallel(ptr, ptr, i64, i64, i64)
; ctx: [2n] i64, a count an index and the last thread an index
define void @visit(ptr %ctx, i64 %lo, i64 %hi, i64 %tid) {
  %n = load i64, ptr %ctx
  %any = icmp slt i64 %lo, %hi
  br i1 %any, label %loop, label %end
loop:
  %i = phi i64 [ %lo, %0 ], [ %i1, %loop ]
  %i1 = add i64 %i, 1
  %p = getelementptr i64, ptr %ctx, i64 %i1
  %old = atomicrmw add ptr %p, i64 1 monotonic
  %j = add i64 %i1, %n
  %q = getelementptr i64, ptr %ctx, i64 %j
  %seen = atomicrmw umax ptr %q, i64 %tid monotonic
  %more = icmp slt i64 %i1, %hi
  br i1 %more, label %loop, label %end
end:
  ret void
}
define void @entry(ptr %buffers, ptr %params, i64 %threads) {
  %ctx = load ptr, ptr %buffers
  %count = load i64, ptr %params
  %cp = getelementptr i64, ptr %params, i64 1
  %chunk = load i64, ptr %cp
  call void @at_parallel(ptr @visit, ptr %ctx, i64 %count, i64 %chunk, i64 %threads)
  ret void
}
; an outer job of 4 points, each of which starts the same inner one
define void @inner(ptr %ctx, i64 %lo, i64 %hi, i64 %tid) {
  %any = icmp slt i64 %lo, %hi
  br i1 %any, label %loop, label %end
loop:
  %i = phi i64 [ %lo, %0 ], [ %i1, %loop ]
  %n = load i64, ptr %ctx
  call void @at_parallel(ptr @visit, ptr %ctx, i64 %n, i64 2, i64 3)
  %i1 = add i64 %i, 1
  %more = icmp slt i64 %i1, %hi
  br i1 %more, label %loop, label %end
end:
  ret void
}
define void @nested(ptr %buffers, ptr %params, i64 %threads) {
  %ctx = load ptr, ptr %buffers
  call void @at_parallel(ptr @inner, ptr %ctx, i64 4, i64 1, i64 %threads)
  ret void
}
"""


@pytest.fixture(scope="module")
def pool() -> Runtime:
    return runtime()


@pytest.fixture(scope="module")
def code(pool: Runtime) -> Iterator[jit.Loaded]:
    yield jit.load(jit.assemble(COUNTERS, ""), "entry", pool.symbols, ("nested",))


def visit(pool: Runtime, entry: int, count: int, chunk: int, threads: int, n: int = 1) -> np.ndarray:
    """Visits an index, and the largest thread that did; shape (2, count)."""
    counters = np.zeros(1 + 2 * count, np.int64)
    counters[0] = count
    pool.repeat(entry, [counters.ctypes.data], [count, chunk], threads, n)
    return counters[1:].reshape(2, count)


@pytest.mark.parametrize("count", [0, 1, 2, 7, 100, 1001])
@pytest.mark.parametrize("chunk", [0, 1, 3, 64, 5000])
@pytest.mark.parametrize("threads", [1, 2, 3, 8])
def test_every_index_once_on_a_thread_below_the_limit(
    pool: Runtime, code: jit.Loaded, count: int, chunk: int, threads: int
) -> None:
    visits, thread = visit(pool, code.address, count, chunk, threads, n=5)
    assert (visits == 5).all() and (thread < threads).all()


def test_more_threads_than_there_can_be(pool: Runtime, code: jit.Loaded) -> None:
    visits, _ = visit(pool, code.address, 3000, 0, 10**6)
    assert (visits == 1).all() and pool.workers < module.MAX_THREADS


def test_nested_jobs_run_in_their_caller(pool: Runtime, code: jit.Loaded) -> None:
    visits, _ = visit(pool, code.addresses["nested"], 9, 0, 3, n=10)
    assert (visits == 40).all()


def test_many_python_threads_at_once(pool: Runtime, code: jit.Loaded) -> None:
    """One of them has the pool, the others do their own work; six spinning threads keep the machine busy meanwhile."""
    wrong: list[int] = []

    def work(seed: int) -> None:
        for i in range(60):
            visits, _ = visit(pool, code.address, 50 + seed, i % 4, 2 + i % 3, n=3)
            wrong.extend(visits[visits != 3])

    threads = [threading.Thread(target=work, args=(seed,)) for seed in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not wrong


def test_sleeping_workers_are_woken(pool: Runtime, code: jit.Loaded) -> None:
    """With nothing polled at all, every join and every wait goes through the kernel of the operating system."""
    if not pool.parallel:
        pytest.skip("no thread pool on this platform")
    pool.call("at_spin", 0)
    try:
        for count in (2, 64):
            visits, _ = visit(pool, code.address, count, 1, 4, n=400)
            assert (visits == 400).all()
    finally:
        pool.call("at_spin", module._spins(pool))


@pytest.mark.parametrize("spins", [0, 1, None])
def test_jobs_while_workers_are_kept_awake(pool: Runtime, code: jit.Loaded, spins: int | None) -> None:
    """By calls inside of each other too, and by one that never ends."""
    if spins is not None:
        pool.call("at_spin", spins)
    try:
        for steps in ((1,), (1, 1, -1), (-1,)):
            for step in steps:
                pool.call("at_awake", step)
            for count in (2, 64):
                visits, _ = visit(pool, code.address, count, 1, 4, n=50)
                assert (visits == 50).all()
                time.sleep(0.01)  # longer than any patience: they sleep
    finally:
        pool.call("at_spin", module._spins(pool) if pool.parallel else 0)


def test_another_thread_really_works(pool: Runtime, code: jit.Loaded) -> None:
    if not pool.parallel or len(os.sched_getaffinity(0)) < 2:
        pytest.skip("needs two processors")
    assert any(visit(pool, code.address, 4000, 1, 2, n=20)[1].any() for _ in range(200)), "the worker never joined"


@pytest.mark.filterwarnings("ignore:.*multi-threaded:DeprecationWarning")
@pytest.mark.skipif(not hasattr(os, "fork"), reason="no fork on this platform")
@pytest.mark.parametrize("cores", [1, 2])
def test_workers_give_up_no_core_but_their_caller_s(pool: Runtime, code: jit.Loaded, cores: int) -> None:
    """A worker woken on its caller's core leaves it, if there is another one that it may use; and it uses no other."""
    if not pool.parallel or len(os.sched_getaffinity(0)) < cores:
        pytest.skip(f"needs a thread pool and {cores} processors")
    child = os.fork()
    if not child:
        allowed = set(sorted(os.sched_getaffinity(0))[:cores])
        os.sched_setaffinity(0, allowed)
        pool.call("at_spin", 0)
        right = all((visit(pool, code.address, 64, 1, 2, n=50)[0] == 50).all() for _ in range(20))
        own = [os.sched_getaffinity(int(task)) for task in os.listdir("/proc/self/task")]
        os._exit(0 if right and len(own) == 2 and all(mask and mask <= allowed for mask in own) else 1)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0


@pytest.mark.filterwarnings("ignore:.*multi-threaded:DeprecationWarning")
@pytest.mark.skipif(not hasattr(os, "fork"), reason="no fork on this platform")
def test_a_forked_child_starts_its_own_pool(pool: Runtime, code: jit.Loaded) -> None:
    visit(pool, code.address, 100, 0, 3)
    child = os.fork()
    if not child:
        fresh = pool.workers == 0
        visits, _ = visit(pool, code.address, 100, 1, 3, n=50)
        os._exit(0 if fresh and (visits == 50).all() else 1)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0


@pytest.mark.parametrize("kind", ["scratch", "array"])
def test_blocks_are_aligned_apart_and_taken_again(pool: Runtime, kind: str) -> None:
    def release(block: int, size: int) -> None:
        pool.call(f"at_{kind}_release", block, *([size] if kind == "scratch" else []))

    sizes = [1, 64, 1000, 40000, 100000, 1 << 20, 0]
    blocks = [pool.call(f"at_{kind}_acquire", size) for size in sizes]
    spans = sorted((block, block + size) for block, size in zip(blocks, sizes, strict=True))
    assert all(block % 64 == 0 for block in blocks)
    assert all(end <= start for (_, end), (start, _) in zip(spans, spans[1:], strict=False))
    for block, size in zip(blocks, sizes, strict=True):
        ctypes.memset(block, 7, size)
        release(block, size)
    again = pool.call(f"at_{kind}_acquire", 900000)
    assert again in blocks, "a kept block of nearly this size is used again"
    release(again, 900000)


def test_what_cannot_be_allocated_is_refused(pool: Runtime) -> None:
    assert pool.call("at_array_acquire", 1 << 62) == 0
    assert pool.call("at_array_acquire", -1) == 0


def used() -> int:
    return int(Path("/proc/self/statm").read_text().split()[1]) * 4096


@pytest.mark.skipif(not Path("/proc/self/statm").exists(), reason="memory in use is read from /proc")
def test_kept_blocks_are_few(pool: Runtime) -> None:
    before = used()
    for i in range(300):
        size = (1 + i % 37) << 18
        block = pool.call("at_array_acquire", size)
        ctypes.memset(block, 1, size)
        pool.call("at_array_release", block)
    assert used() - before < 64 << 20


def test_repeat(pool: Runtime, code: jit.Loaded) -> None:
    for n in (0, 1, 1000):
        visits, _ = visit(pool, code.address, 4, 0, 1, n=n)
        assert (visits == n).all()


def test_the_object_is_kept_by_digest(tmp_path: Path) -> None:
    store = ObjectCache(tmp_path / "objects")
    source = module._MEMORY + module._SERIAL
    first = module.kept(source, store)
    assert module.kept(source, store) == first and len(list((tmp_path / "objects").glob("*.o"))) == 1
    assert module.kept(source + "\nextra = 8\n", store) and len(list((tmp_path / "objects").glob("*.o"))) == 2


def test_without_a_pool_the_caller_does_it_all(pool: Runtime) -> None:
    obj = module.kept(module._MEMORY + module._SERIAL, None)
    serial = jit.load(obj, "at_parallel", jit.library_symbols("malloc", "free"))
    code = jit.load(jit.assemble(COUNTERS, ""), "entry", {"at_parallel": serial.address})
    visits, thread = visit(pool, code.address, 100, 1, 8, n=2)
    assert (visits == 2).all() and not thread.any()
