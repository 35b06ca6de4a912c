"""What kernels call at run time: scratch memory, a thread pool, a timing loop. Native, with no C compiler needed.

Knows the kernel ABI and Linux's futex; knows nothing of nests, arrays or Python objects. Elsewhere than on Linux
`at_parallel` runs the whole range in the caller. The object code holds no address and may be kept on disk.
"""

from __future__ import annotations

import ctypes
import hashlib
import os
import platform
import re
import sys
import threading
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Protocol

from . import jit
from .native import translate


class ObjectStore(Protocol):
    """Keeps bytes by digest between processes."""

    def get(self, digest: str) -> bytes | None: ...
    def put(self, digest: str, data: bytes) -> bool: ...


MAX_THREADS = 256
_PLACES = ("sched_getcpu", "sched_getaffinity", "sched_setaffinity")
PATIENCE = 100  # spins of that length while a call of several kernels goes on
SPIN_SECONDS = 20e-6  # how long a thread without work polls before it sleeps; longer starves a busy machine
_FUTEX = {"x86_64": 202, "aarch64": 98, "riscv64": 98, "loongarch64": 98, "ppc64le": 221}  # system call numbers

# A block is 64-byte aligned; the 64 bytes before it hold its size and what malloc returned. Of the larger ones a few
# freed ones are kept, for fresh pages cost more than most kernels; a request of at least half its size takes one again.
_MEMORY = """
scratch = 32
arrays = 32
turn = 8

def fresh(size):
    if size < 0:
        return 0
    base = malloc(size + 128)
    if base == 0:
        return 0
    p = (base + 127) & -64
    store(p - 64, size)
    store(p - 56, base)
    return p

def drop(p):
    if p != 0:
        free(load(p - 56))

def take(slots, size):
    if size >= 32768:
        for i in range(4):
            slot = slots + 8 * i
            if aload(slot) != 0:
                p = swap(slot, 0)
                if p != 0:
                    if load(p - 64) >= size and load(p - 64) <= 2 * size:
                        return p
                    drop(swap(slot, p))
    return fresh(size)

def give(slots, p, most):
    if load(p - 64) < 32768 or load(p - 64) > most:
        drop(p)
        return
    for i in range(4):
        if cas(slots + 8 * i, 0, p):
            return
    drop(swap(slots + 8 * (fetch_add(turn, 1) & 3), p))

def at_scratch_acquire(size):
    p = take(scratch, size)
    if p == 0:
        trap()
    return p

def at_scratch_release(p, size):
    give(scratch, p, 536870912)

def at_array_acquire(size):
    return take(arrays, size)

def at_array_release(p):
    give(arrays, p, 67108864)

def at_repeat(entry, buffers, params, threads, n):
    for i in range(n):
        call(entry, buffers, params, threads)
"""

_SERIAL = """
def at_parallel(fn, ctx, count, chunk, threads):
    if count > 0:
        call(fn, ctx, 0, count, 0)

def at_reset(): return
def at_pause(n): return
def at_spin(n): return
def at_workers(): return
def at_awake(step): return
"""

# state is [generation: 32 | threads: 16 | the caller sleeps: 1 | workers inside: 15]; threads is 0 while no job can be
# joined. Worker w joins a job of more than w threads, at most once, by compare-and-swap: so nothing ever waits for a
# worker that has not joined, and a job's fields stay until those that joined have left. Workers sleep on the
# generation, the caller on the low half. A static block is claimed too, so that others do what a descheduled worker has
# not begun. Where all cores are busy, Linux wakes a thread on the core of the one that wakes it: a worker that finds
# itself on its caller's core (place) gives that core up, and so gets its share of another one. lock belongs to the one
# caller that has the pool; every other one runs its range itself. While a call of several kernels goes on (awake),
# who waits polls a while longer before it sleeps: to be woken takes as long as a small kernel.
_POOL = """
state = 8
lock = 8
sleepers = 8
next = 8
job = 32
taken = 8 * MAX
started = 8
limit = 8
place = 8
awake = 8

def futex(word, operation, value):
    syscall(FUTEX, word, operation, value, 0, 0, 0)

def work(tid, threads):
    fn = load(job)
    ctx = load(job + 8)
    count = load(job + 16)
    chunk = load(job + 24)
    if chunk > 0:
        low = fetch_add(next, chunk)
        while low < count:
            high = low + chunk
            if high > count:
                high = count
            call(fn, ctx, low, high, tid)
            low = fetch_add(next, chunk)
        return
    for k in range(threads):
        b = tid + k
        if b >= threads:
            b -= threads
        if swap(taken + 8 * b, 1) == 0:
            call(fn, ctx, count * b // threads, count * (b + 1) // threads, tid)

def toggle(mask, cpu):
    word = mask + 8 * (cpu >> 6)
    bit = 1 << (cpu & 63)
    store(word, load(word) + bit - 2 * (load(word) & bit))

def elsewhere(cpu, avoided):
    mask = stack(128)
    memset(mask, 0, 128)
    if int32(sched_getaffinity(0, 128, mask)) != 0:
        return avoided
    if avoided >= 0:
        toggle(mask, avoided)
    toggle(mask, cpu)
    left = 0
    for i in range(16):
        left = left | load(mask + 8 * i)
    if left == 0:
        return avoided
    if int32(sched_setaffinity(0, 128, mask)) != 0:
        return avoided
    return cpu

def worker(w):
    signals = stack(128)
    memset(signals, 255, 128)
    pthread_sigmask(0, signals, 0)
    last = 0
    avoided = 0 - 1
    slept = 0
    spin = load(limit)
    patience = PATIENCE
    while 1:
        s = aload(state)
        generation = s >> 32
        threads = (s >> 16) & 65535
        if generation == last:
            if spin > 0:
                pause()
                spin -= 1
                continue
            if patience > 0 and aload(awake) != 0:
                patience -= 1
                spin = load(limit)
                continue
            patience = PATIENCE
            fetch_add(sleepers, 1)
            futex(state + 4, 128, last)
            fetch_add(sleepers, -1)
            spin = load(limit)
            slept = 1
        elif w >= threads:
            last = generation
        elif cas(state, s, s + 1):
            if slept != 0:
                slept = 0
                cpu = load(place)
                if cpu == int32(sched_getcpu()) and cpu != avoided:
                    avoided = elsewhere(cpu, avoided)
            work(w, threads)
            if (fetch_add(state, -1) & 4294967295) == 32769:
                futex(state, 129, 1)
            last = generation
            spin = load(limit)
            patience = PATIENCE

def start(need):
    thread = stack(8)
    while load(started) < need:
        if int32(pthread_create(thread, 0, worker, load(started) + 1)) != 0:
            return
        store(started, load(started) + 1)
        pthread_detach(load(thread))

def finish():
    fetch_and(state, -4294901761)
    spin = load(limit)
    if aload(awake) != 0:
        spin *= 10
    while aload(state) & 32767:
        if spin > 0:
            pause()
            spin -= 1
            continue
        s = fetch_or(state, 32768)
        if s & 32767:
            futex(state, 128, s | 32768)
            spin = load(limit)

def at_parallel(fn, ctx, count, chunk, threads):
    if count < threads:
        threads = count
    if threads > MAX:
        threads = MAX
    if threads < 2 or not cas(lock, 0, 1):
        if count > 0:
            call(fn, ctx, 0, count, 0)
        return
    start(threads - 1)
    store(job, fn)
    store(job + 8, ctx)
    store(job + 16, count)
    store(job + 24, chunk)
    store(next, 0)
    store(place, int32(sched_getcpu()))
    memset(taken, 0, 8 * threads)
    astore(state, (((load(state) >> 32) + 1) << 32) | (threads << 16))
    if aload(sleepers) != 0:
        futex(state + 4, 129, 2147483647)
    work(0, threads)
    finish()
    astore(lock, 0)

def at_awake(step):
    fetch_add(awake, step)
    if step > 0 and aload(sleepers) != 0:
        futex(state + 4, 129, 2147483647)

def at_reset():
    store(awake, 0)
    store(state, 0)
    store(sleepers, 0)
    store(started, 0)
    astore(lock, 0)

def at_pause(n):
    while n > 0 and aload(state) >= 0:
        pause()
        n -= 1

def at_spin(n):
    store(limit, n)

def at_workers():
    return load(started)
"""
_EXPORTS = tuple(re.findall(r"def (at_\w+)", _MEMORY + _POOL))


@dataclass(frozen=True)
class Runtime:
    """`symbols`: the address of each function that kernels and the call path may use."""

    symbols: dict[str, int]
    parallel: bool
    _code: jit.Loaded = field(repr=False)

    def repeat(self, entry: int, buffers: Sequence[int], params: Sequence[int], threads: int, n: int = 1) -> None:
        """Call a kernel n times in a native loop (GIL released); `buffers` are data addresses."""
        data = (ctypes.c_void_p * max(len(buffers), 1))(*buffers)
        strides = (ctypes.c_int64 * max(len(params), 1))(*params)
        self.call("at_repeat", entry, ctypes.addressof(data), ctypes.addressof(strides), threads, n)

    def call(self, name: str, *args: int) -> int:
        """Call a runtime function by name with 64-bit arguments (GIL released)."""
        prototype = ctypes.CFUNCTYPE(ctypes.c_int64, *[ctypes.c_int64] * len(args))
        return int(prototype(self.symbols[name])(*args))

    @property
    def workers(self) -> int:
        """Threads that the pool has started in this process."""
        return self.call("at_workers")


_lock = threading.Lock()
_runtime: Runtime | None = None


def runtime(store: ObjectStore | None = None) -> Runtime:
    """The process's one runtime; `store` keeps its object code between processes (only the first call can need it)."""
    global _runtime
    with _lock:
        if _runtime is None:
            _runtime = _load(store)
        return _runtime


def kept(source: str, store: ObjectStore | None) -> bytes:
    """The object code of a `native` source for any CPU of this kind, through `store` where there is one."""
    language = Path(__file__).with_name("native.py").read_text("utf-8")
    key = hashlib.sha256(f"{language} {jit.version()} {platform.machine()} {source}".encode()).hexdigest()[:32]
    found = store.get(key) if store else None
    if found is None:
        found = jit.assemble(translate(source), "", quick=True)
        if store:
            store.put(key, found)
    return found


def immortal(loaded: jit.Loaded) -> jit.Loaded:
    """Never unload: threads and live objects may still be inside this code while the interpreter shuts down."""
    if sys.implementation.name == "cpython":
        ctypes.pythonapi.Py_IncRef(ctypes.py_object(loaded))
    return loaded


def _source() -> tuple[str, bool]:
    machine = platform.machine()
    if not sys.platform.startswith("linux") or machine not in _FUTEX or sys.byteorder != "little":
        return _MEMORY + _SERIAL, False
    pool = _POOL.replace("8 * MAX", str(8 * MAX_THREADS))
    for name, value in {"MAX": MAX_THREADS, "PATIENCE": PATIENCE}.items():
        pool = pool.replace(name, str(value))
    return _MEMORY + pool.replace("FUTEX", str(_FUTEX[machine])), True


def _load(store: ObjectStore | None) -> Runtime:
    source, parallel = _source()
    posix = ("pthread_create", "pthread_detach", "pthread_sigmask", "syscall", *_PLACES) if parallel else ()
    symbols = jit.library_symbols("malloc", "free", *posix)
    loaded = immortal(jit.load(kept(source, store), _EXPORTS[0], symbols, _EXPORTS[1:]))
    made = Runtime(loaded.addresses, parallel, loaded)
    if parallel:
        made.call("at_spin", _spins(made))
        os.register_at_fork(after_in_child=lambda: made.call("at_reset"))
    return made


def _spins(made: Runtime) -> int:
    """Polls in SPIN_SECONDS: a pause takes 10 to 140 cycles, depending on the processor."""
    best = SPIN_SECONDS
    pause = ctypes.CFUNCTYPE(None, ctypes.c_int64)(made.symbols["at_pause"])
    for _ in range(3):
        start = time.perf_counter()
        pause(200)
        best = min(best, time.perf_counter() - start)
    return max(16, min(20000, int(200 * SPIN_SECONDS / best)))
