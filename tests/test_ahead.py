"""A fork that compiles ahead: what it delivers, what it leaves to its owner, and how it ends."""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Iterator
from contextlib import suppress

import pytest

from autotune import ahead
from autotune.ahead import Ahead
from autotune.devices import device
from autotune.devices.client import WorkerClient
from autotune.ir.program import to_json
from autotune.search.ranking import Ranking
from autotune.worker import Compiler, Native, Offload

from .programs import gemm

pytestmark = pytest.mark.skipif(not hasattr(os, "fork"), reason="this system has no fork")
OWNER = os.getpid()


def make(kind: str, n: int) -> bytes:
    if kind == "fails":
        raise ValueError(n)
    if kind == "dies":
        os._exit(3)
    if kind == "hangs":
        time.sleep(60)
    return f"{kind} {n} {'here' if os.getpid() == OWNER else 'there'}".encode() * n


@pytest.fixture
def fork() -> Iterator[Ahead]:
    made = Ahead(make)
    yield made
    made.close()


def settled(fork: Ahead, jobs: int) -> list[bytes | None]:
    """What the fork makes of a batch where its owner only waits."""
    end = time.monotonic() + 5
    while fork.claims[0] == ahead.FREE and fork.child and time.monotonic() < end:
        time.sleep(0.01)
    return [fork.take(i) for i in range(jobs)]


def test_it_makes_jobs_from_the_end_and_its_owner_those_before(fork: Ahead) -> None:
    fork.begin([("x", n) for n in (1, 2, 2000)])
    assert settled(fork, 3) == [b"x 1 there", b"x 2 there" * 2, b"x 2000 there" * 2000]
    fork.begin([("slow" * 1000, 1)] * 3)
    assert fork.take(0) is None or fork.take(0) == b"slow" * 1000 + b" 1 there"  # one of both makes each
    assert fork.take(7) is None


def test_what_fails_is_left_to_the_owner(fork: Ahead) -> None:
    fork.begin([("x", 1), ("fails", 2), ("x", 3)])
    assert settled(fork, 3) == [b"x 1 there", None, b"x 3 there" * 3]


def test_a_fork_that_dies_or_hangs_costs_only_what_it_had_begun(
    fork: Ahead, monkeypatch: pytest.MonkeyPatch
) -> None:
    fork.begin([("x", 1), ("dies", 2), ("x", 3)])
    end = time.monotonic() + 5
    while fork.claims[1] == ahead.FREE and time.monotonic() < end:
        time.sleep(0.01)
    assert [fork.take(i) for i in range(3)] == [None, None, b"x 3 there" * 3]
    assert not fork.child
    monkeypatch.setattr(ahead, "PATIENCE", 0.1)
    other = Ahead(make)
    other.begin([("x", 1), ("hangs", 2)])
    while other.claims[1] == ahead.FREE and time.monotonic() < end:
        time.sleep(0.01)
    assert other.take(1) is None and not other.child
    other.close()


def test_a_fork_that_was_ended_from_outside(fork: Ahead) -> None:
    os.kill(fork.child, signal.SIGKILL)
    with suppress(OSError):  # how soon the pipe knows of it is the system's affair
        fork.begin([("x", n) for n in range(1, 50)])
    fork.rest()
    assert not fork.child and not fork.busy and fork.take(60) is None


def test_it_rests_where_its_owner_measures(fork: Ahead) -> None:
    fork.begin([("x", n) for n in range(1, 200)])
    fork.rest()
    assert not fork.busy and fork.child
    fork.begin([("y", 1)])
    assert settled(fork, 1) == [b"y 1 there"]


def test_candidates_that_another_process_compiled() -> None:
    """Whether they are sent together or one by one, the same candidates are built, checked and timed."""
    spec, program = device("cpu"), gemm(64, 64, 64)
    ranking = Ranking(program, spec, 1)
    todo = [(to_json(program), c.schedule.to_json()) for c, _ in zip(ranking.best(), range(6))]
    with WorkerClient(spec) as one, WorkerClient(spec) as many:
        single = [one.build([pair])[0] for pair in todo]
        together = many.build(todo)
        assert [r.status for r in together] == [r.status for r in single] == ["ok"] * 6
        assert [r.code_bytes for r in together] == [r.code_bytes for r in single]
    assert isinstance(Native(spec), Compiler) and not isinstance(Offload(spec), Compiler)
