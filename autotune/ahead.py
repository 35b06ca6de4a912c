"""Compiling in a second process while the first one compiles and checks: it takes candidates from the end of a list.

Knows how to fork and to hand bytes over; must not know what they are. What the fork does not deliver, its owner makes
itself: whatever fails there is found again, and reported, here.
"""

from __future__ import annotations

import json
import mmap
import os
import select
import signal
import struct
import time
import warnings
from collections.abc import Callable, Sequence
from contextlib import suppress
from typing import BinaryIO

FREE, MINE, THEIRS = 0, 1, 2
MOST = 256  # jobs in a batch
FILES = 1 << 16  # descriptors that may be open
PIPE = 1 << 20  # bytes that may wait to be read
PATIENCE = 5.0  # seconds to wait for what the fork has begun, before it is done again here
LIMIT = 20  # seconds of computing after which a fork whose owner died ends, too
_HEAD = struct.Struct("<III")  # of a reply: batch, job, bytes that follow
_END = MOST  # in place of a job: the batch is done


def _enlarge(pipe: int) -> None:
    """Room for a batch of kernels, where the system can: whoever writes into a full pipe waits for its reader."""
    import fcntl

    if hasattr(fcntl, "F_SETPIPE_SZ"):
        with suppress(OSError):
            fcntl.fcntl(pipe, fcntl.F_SETPIPE_SZ, PIPE)


class Ahead:
    """A fork of this process that makes bytes out of jobs, which are JSON values. Raises OSError where it cannot be
    forked."""

    def __init__(self, make: Callable[..., bytes]) -> None:
        self.claims = mmap.mmap(-1, MOST)  # shared: who has begun what
        requests, mine = os.pipe()
        self.replies, theirs = os.pipe()
        _enlarge(theirs)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", DeprecationWarning)  # of forks beside threads: this one needs none of them
            self.child = os.fork()
        if not self.child:
            self._serve(make, requests, theirs)
        os.close(requests)
        os.close(theirs)
        self.requests: BinaryIO = os.fdopen(mine, "wb")
        self.batch, self.busy, self.size = 0, False, 0
        self.done: dict[int, bytes] = {}
        self.data = b""

    def _serve(self, make: Callable[..., bytes], requests: int, replies: int) -> None:
        """The fork's whole life. It lets go of its parent's pipes: whoever reads them is to see the parent's end."""
        try:
            import resource

            low, high = sorted((requests, replies))
            for first, last in ((3, low), (low + 1, high), (high + 1, FILES)):
                os.closerange(first, last)
            with os.fdopen(requests, "rb") as lines, os.fdopen(replies, "wb") as out:
                for line in lines:
                    batch, jobs = json.loads(line)
                    for i in reversed(range(len(jobs))):
                        if self.claims[i] != FREE:
                            break
                        self.claims[i] = THEIRS
                        spent = int(time.process_time())
                        resource.setrlimit(resource.RLIMIT_CPU, (spent + LIMIT, resource.RLIM_INFINITY))
                        try:
                            made = make(*jobs[i])
                        except Exception:  # the owner finds the same, and says what it is
                            made = b""
                        out.write(_HEAD.pack(batch, i, len(made)) + made)
                        out.flush()
                    out.write(_HEAD.pack(batch, _END, 0))
                    out.flush()
        finally:
            os._exit(0)

    def begin(self, jobs: Sequence[Sequence[object]]) -> None:
        """A new batch; the fork has done with the last one."""
        self.batch, self.busy, self.size, self.done = self.batch + 1, True, min(len(jobs), MOST), {}
        self.claims[:] = bytes(MOST)
        self.requests.write(json.dumps([self.batch, list(jobs[:MOST])]).encode() + b"\n")
        self.requests.flush()

    def take(self, i: int) -> bytes | None:
        """The bytes of job i; None where the caller has to make them, which nobody else does from now on."""
        if i >= self.size:
            return None
        if self.claims[i] == FREE:
            self.claims[i] = MINE
        until = time.monotonic() + PATIENCE
        while self.busy and self.claims[i] == THEIRS and i not in self.done:
            self._receive(until)
        return self.done.get(i) or None

    def rest(self) -> None:
        """Begin nothing more, and be idle at the return."""
        self.claims[:] = bytes([c or MINE for c in self.claims[:]])
        until = time.monotonic() + PATIENCE
        while self.busy:
            self._receive(until)

    def _receive(self, until: float) -> None:
        """Read what has come; end the fork where nothing more will."""
        if not select.select([self.replies], [], [], max(until - time.monotonic(), 0.0))[0] or not (
            part := os.read(self.replies, 1 << 20)
        ):
            self.close()
            return
        self.data += part
        while len(self.data) >= _HEAD.size:
            batch, i, size = _HEAD.unpack_from(self.data)
            if len(self.data) < _HEAD.size + size:
                break
            if batch == self.batch and i == _END:
                self.busy = False
            elif batch == self.batch:
                self.done[i] = self.data[_HEAD.size : _HEAD.size + size]
            self.data = self.data[_HEAD.size + size :]

    def close(self) -> None:
        """End the fork."""
        if self.child:
            os.kill(self.child, signal.SIGKILL)
            os.waitpid(self.child, 0)
            os.close(self.replies)
            with suppress(OSError):  # what it was not told any more
                self.requests.close()
            self.child, self.busy = 0, False
