"""Schedules of a program drawn at random, proved, and their texts run together by the emulator."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import replace
from functools import partial
from typing import Any

import numpy as np

from autotune.codegen import clike
from autotune.codegen.clike import Dialect
from autotune.devices.spec import DeviceSpec
from autotune.floatcheck import QUICK, Checker
from autotune.hostrun import Program
from autotune.ir.equiv import equivalent
from autotune.ir.errors import AutotuneError
from autotune.ir.lower import lower
from autotune.ir.nest import Nest
from autotune.ir.program import Buffer, TensorProgram
from autotune.ir.spmd import Entry
from autotune.ir.verify import verify
from autotune.search.ranking import Candidate, Ranking

SIZES = (13, 37, 21)
Array = np.ndarray[Any, Any]


def drawn(program: TensorProgram, spec: DeviceSpec, count: int, seed: int = 0) -> Iterator[Candidate]:
    """The model's choice, then points of sketches that take turns, each at random."""
    ranking, rng = Ranking(program, spec, 1), np.random.default_rng(seed)
    yield next(ranking.best())
    rows = [rng.permutation(len(priced.seconds)) for priced in ranking.priced]
    turns = [(turn, n, int(r[turn])) for n, r in enumerate(rows) for turn in range(min(len(r), count))]
    for _, n, row in sorted(turns, key=lambda t: t[0])[:count]:
        yield ranking.candidate(n, row, "random")


def legal(program: TensorProgram, spec: DeviceSpec, count: int, seed: int = 0) -> Iterator[tuple[str, Nest]]:
    """Up to `count` of them as nests that both proofs accept; what the device has no room for is left out."""
    for candidate in drawn(program, spec, 3 * count, seed):
        nest = candidate.schedule.apply(lower(program))
        violations = verify(program, nest, spec.limits()).violations
        if violations and all(v.kind == "limit" for v in violations):
            continue
        assert not violations, f"{violations[0]}\n{candidate.schedule}"
        report = equivalent(program, candidate.schedule, nest=nest)
        assert report.ok, f"{report.message}\n{candidate.schedule}"
        yield str(candidate.point), nest
        count -= 1
        if not count:
            return


class Together:
    """Nests of one program as one text: compiled once, and run one after another on the same inputs."""

    def __init__(
        self, program: TensorProgram, nests: Sequence[Nest], dialect: Dialect, sanitize: str = "", warp: int = 32,
    ) -> None:  # fmt: skip
        self.program, self.count = program, len(nests)
        given = {b.name for b in program.inputs}
        texts, entries, buffers = list[clike.Text](), list[Entry](), list[Buffer](program.inputs)
        for n, nest in enumerate(nests):
            text = clike.render(nest, dialect, f"kernel{n}")
            own = {b.name: b.name if b.name in given else f"{n}.{b.name}" for b in text.buffers}
            buffers += [replace(b, name=own[b.name]) for b in text.buffers if b.name not in given]
            entries += [replace(e, buffers=tuple(own[name] for name in e.buffers)) for e in text.entries]
            texts.append(text)
        self.text = clike.source(texts, dialect)
        types = {b.name: dialect.storage(b.dtype) for b in buffers}
        self.run = Program(self.text, entries, buffers, types, sanitize, warp)
        self.checker = Checker(program)

    def problems(self, order: str = "forward", cases: Sequence[str] = QUICK) -> list[str]:
        """What is wrong with each nest; "" if nothing."""
        known: dict[bytes, list[Array]] = {}

        def results(inputs: Sequence[Array], n: int) -> list[Array]:
            key = b"".join(np.ascontiguousarray(a).tobytes() for a in inputs)
            if key not in known:
                known[key] = self.run(inputs, order)
            each = len(known[key]) // self.count
            return known[key][n * each : (n + 1) * each]

        try:
            return [self.checker.check(partial(results, n=n), cases=tuple(cases)) or "" for n in range(self.count)]
        except AutotuneError as error:
            return [str(error)] * self.count
