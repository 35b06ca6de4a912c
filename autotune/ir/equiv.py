"""Does a scheduled nest compute what its program means? Decided exactly: both run on the same random residues.

The question is asked at a small instance of the same program and schedule that has the same structure: extents and
factors shrink together, and the scheduled nest must keep its tree of loops, bodies and statements. So it shows that the
steps are right for this structure; that the nest of the real size stays in bounds is the verifier's business. Steps are
read by their fields (`factor`, `tiles`, `unroll`, `panels`), never by what they do.
"""

from __future__ import annotations

import time
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field, replace
from itertools import islice, product
from math import prod
from typing import Any

import numpy as np

from .affine import const
from .bounds import upper
from .domains import Array, P, Residues
from .errors import ScheduleError, VerifyError
from .expr import Op, gathers, loads, walk
from .interp import Interpreter, Memory
from .lower import lower, with_shared_axes
from .nest import Alloc, Guard, Loop, Nest, Reduce, Stmt, Store, leaves, reads
from .nest import walk as walk_nest
from .program import Buffer, TensorProgram
from .schedule import Schedule
from .steps import Step, copy_loop

MAX_POINTS = 2_000_000  # an instance with more points is sampled
GATHERED = 5  # places along a dimension whose index is data
MAX_EXTENT = 1000  # what has no smaller number up to here keeps its own
_BASES = (3, 4, 5)  # extents of innermost blocks: unequal, so that no axis can stand in for another


@dataclass(frozen=True)
class EquivalenceReport:
    """`message` says where the two differ, or why the nest cannot be evaluated; `extents` are those of the instance."""

    ok: bool
    message: str
    extents: tuple[tuple[str, int], ...]
    sampled: bool
    milliseconds: float


def equivalent(
    program: TensorProgram, schedule: Schedule, seeds: int = 2, nest: Nest | None = None
) -> EquivalenceReport:
    """Compares the program with `schedule` applied to it; `nest` is the scheduled nest, where it exists already."""
    begun = time.perf_counter()
    program = with_shared_axes(program)
    small, scheduled = _instance(program, schedule, nest or schedule.apply(lower(program)))
    sampled = sum(c.points for c in small.computes) > MAX_POINTS
    message = difference(lower(small), scheduled, 1 if _algebraic(program) else seeds, sampled)
    extents = {a.name: a.extent for c in small.computes for a in c.all_axes}
    spent = (time.perf_counter() - begun) * 1e3
    return EquivalenceReport(not message, message, tuple(sorted(extents.items())), sampled, spent)


def prove(program: TensorProgram, schedule: Schedule, nest: Nest) -> None:
    """Raises VerifyError where `nest`, which is the program under `schedule`, computes another function."""
    if not (report := equivalent(program, schedule, nest=nest)).ok:
        raise VerifyError(f"the schedule computes another function: {report.message}\nschedule:\n{schedule}")


def _algebraic(program: TensorProgram) -> bool:
    """Nothing but floats, and nothing that picks one of two values: unequal values then agree once in P."""
    nodes = [n for c in program.computes for n in walk(c.body)]
    picks = any(not n.dtype.is_float or isinstance(n, Op) and n.name in ("max", "min") for n in nodes)
    return not picks and all(c.combiner in (None, "sum", "prod") for c in program.computes)


def difference(source: Nest, scheduled: Nest, seeds: int = 2, sampled: bool = False) -> str:
    """Where the outputs of two nests with the same inputs and outputs differ; "" if nowhere."""
    first = Interpreter(source)
    second = Interpreter(scheduled, frozenset(_sampled_loops(scheduled)) if sampled else frozenset())
    values = [s.value for s in leaves(source.body) if isinstance(s, (Store, Reduce))]
    places = {ld.buffer for value in values for _, _, index in gathers(value) for ld in loads(index)}
    for seed in range(seeds):
        rng = np.random.default_rng(seed)
        arrays = {b.name: _random(rng, b, seed) for b in source.buffers if b.scope == "input"}
        for b in source.buffers:
            if b.name in places and b.dtype.is_integer:  # most of them inside, the others on both sides
                arrays[b.name] = rng.integers(-1 if b.dtype.kind == "i" else 0, GATHERED + 1, b.shape, b.dtype.numpy)
        want = first.run(arrays, Residues(seed))
        settle = (lambda made, want=want: _settle(want, made)) if sampled else None
        try:
            made = second.run(arrays, Residues(seed), settle)
            for b in source.buffers:
                if b.scope == "output" and (found := _unlike(want[b.name].array(), made[b.name].array(), b.name)):
                    return f"{found}, seed {seed}"
        except VerifyError as error:
            return str(error)
    return ""


def _random(rng: np.random.Generator, b: Buffer, seed: int) -> Array:
    if b.dtype.kind == "b":
        return rng.integers(0, 2, b.shape).astype(bool)
    if not b.dtype.is_float:
        info = np.iinfo(b.dtype.numpy)
        return np.asarray(rng.integers(info.min, info.max, b.shape, b.dtype.numpy, endpoint=True))
    values = rng.integers(0, P, b.shape)
    return np.where(rng.random(b.shape) < 0.1, 0, values) if seed % 2 else np.asarray(values)  # zeros meet comparisons


def _unlike(want: Array, made: Array, name: str) -> str:
    if want.shape != made.shape:
        return f"{name} has shape {list(made.shape)}, the program says {list(want.shape)}"
    wrong = np.argwhere(want != made)
    if not wrong.size and (want == made).all():
        return ""
    at = tuple(int(i) for i in wrong[0])
    return f"{name}{list(at)} is {made[at]}, the program gives {want[at]} ({len(wrong)} of {want.size} elements differ)"


# ---- sampling -------------------------------------------------------------------------------------------------------


def _sampled_loops(nest: Nest) -> Iterator[int]:
    """Loops whose iterations do not need each other: all that leaves one is a finished part of a result."""
    for top in nest.body:
        statements = list(walk_nest((top,)))
        kept = {s.buffer.name for s, _ in statements if isinstance(s, Alloc)}
        for loop, _ in statements:
            if not isinstance(loop, Loop):
                continue
            inside = {id(s) for s in leaves((loop,))}
            own = {s.buffer.name for s, _ in walk_nest((loop,)) if isinstance(s, Alloc)}
            if len(inside) == 1 and loop is not top:
                continue  # runs at once
            read = {b for s in leaves((top,)) if id(s) not in inside for b, _ in reads(s)}
            leaving = [s for s in leaves((loop,)) if isinstance(s, (Store, Reduce)) and s.buffer not in own]
            if leaving and all(s.buffer not in read | kept and not _carries(loop, s) for s in leaving):
                yield id(loop)


def _carries(loop: Loop, leaf: Store | Reduce) -> bool:
    if isinstance(leaf, Store):
        return False
    return leaf.first is None or any(loop.name in a.names() for a in leaf.first)


def _settle(want: dict[str, Memory], made: dict[str, Memory]) -> None:
    """Compare what was written so far, then complete it: the next nest needs all of it."""
    for name, memory in made.items():
        if memory.defined is not None and memory.defined.any() and name in want:
            full = want[name].array()
            filled = np.where(memory.defined, memory.data, full.reshape(-1))
            if found := _unlike(full, filled.reshape(full.shape), name):
                raise VerifyError(found)
            memory.data[:], memory.defined[:] = full.reshape(-1), True


# ---- the small instance ---------------------------------------------------------------------------------------------


def _instance(program: TensorProgram, schedule: Schedule, full: Nest) -> tuple[TensorProgram, Nest]:
    """The smallest tried program and scheduled nest of the structure of `full`; at worst the program itself."""
    structure = _skeleton(full.body)
    if all(a.extent > 0 for c in program.computes for a in c.all_axes):
        tries = [(2, False, False), (3, False, False), (2, True, False)]
        if any(hasattr(step, "cuts") for step in schedule.steps):
            tries += [(2, False, True), (2, True, True)]
        for most, keep, whole in tries:
            shrink = _Shrink(program, schedule, most, keep, whole)
            try:
                small = shrink.program()
                nest = shrink.schedule().apply(lower(small))
            except ScheduleError:
                continue  # these numbers do not fit together; the next ones are closer to the original
            if _skeleton(nest.body) == structure:
                return small, nest
    return program, full


def _skeleton(body: tuple[Stmt, ...]) -> tuple[Any, ...]:
    """The tree of statements that compute, with names, without any number."""
    out: list[Any] = []
    for s in body:
        match s:
            case Loop():
                out.append((s.name, s.kind, len(s.extents), _skeleton(s.body)))
            case Guard():
                out.append((len(s.conditions), _skeleton(s.body)))
            case Alloc():
                out.append((s.buffer.name, s.buffer.scope, _skeleton(s.body)))
            case Store() | Reduce():
                out.append((type(s).__name__, s.tag, s.buffer, *(b for b, _ in reads(s))))
    return tuple(out)


@dataclass
class _Axis:
    """An axis, or several fused ones: its extent, and the sizes of blocks that the steps cut it into."""

    extent: int
    parts: tuple[str, ...]
    sizes: set[int] = field(default_factory=set)


Unit = tuple[str, int]  # an axis, and the distance between iterations along it


class _Shrink:
    """Smaller numbers for a schedule. Along each axis the chain of block sizes keeps its divisibilities, remainders,
    and whether there are one or several of each block in the next (`most` is several); with `keep` only extents shrink,
    with `whole` no axis that is cut at given points does."""

    def __init__(self, program: TensorProgram, schedule: Schedule, most: int, keep: bool, whole: bool) -> None:
        self._program, self._schedule, self._most, self._keep = program, schedule, most, keep
        extents = {a.name: a.extent for c in program.computes for a in c.all_axes}
        self._axes = {name: _Axis(n, (name,)) for name, n in extents.items()}
        self._units: dict[tuple[str, str], Unit] = {("", f"{n}{e}"): (n, 1) for n in extents for e in ("", ".e")}
        self._numbers = [self._read(step) for step in schedule.steps]
        self._sizes: dict[str, dict[int, int]] = {}
        named = [(step.stage, getattr(step, "loop", "")) for step in schedule.steps if whole and hasattr(step, "cuts")]
        cut = [self._unit(*loop) for loop in named]
        self._least = dict.fromkeys(extents, 1) | {unit[0]: self._axes[unit[0]].extent for unit in cut if unit}
        self._shapes = {b.name: b.shape for b in program.buffers}

    def _read(self, step: Any) -> dict[tuple[str, Any], Unit]:
        """Where the numbers of a step lie: (field, loop or dimension) -> unit. Notes the loops that the step makes."""
        found: dict[tuple[str, Any], Unit] = {}
        pairs = [(name, *pair) for name in ("tiles", "unroll") for pair in getattr(step, name, ())]
        if hasattr(step, "factor"):
            pairs.append(("factor", step.loop, step.factor))
        for name, loop, f in pairs:
            if unit := self._unit(step.stage, loop):
                found[name, loop] = unit
                self._axes[unit[0]].sizes.add(unit[1] * f)
                self._units[step.stage, f"{loop}.0"] = (unit[0], unit[1] * f)
                self._units[step.stage, f"{loop}.1"] = unit
        if hasattr(step, "panels"):
            widths = dict(step.panels)
            for d, axis in enumerate(self._moved_by(step)):
                self._units[step.name, copy_loop(step.name, d)] = (axis, 1)
                if axis and d in widths:
                    found["panels", d] = (axis, 1)
                    self._axes[axis].sizes.add(widths[d])
        if hasattr(step, "outer") and step.outer in self._axes and step.inner in self._axes:
            sides, name = (self._axes[step.outer], self._axes[step.inner]), f"{step.outer}_{step.inner}"
            self._axes[name] = _Axis(prod(a.extent for a in sides), sides[0].parts + sides[1].parts)
            self._units["", name] = (name, 1)
        return found

    def _moved_by(self, step: Any) -> Iterator[str]:
        """For each dimension of a packed operand the axis that moves it by one, or ""."""
        bodies = [c.body for c in self._program.computes if c.name == step.stage]
        for load in [ld for body in bodies for ld in loads(body)][step.load : step.load + 1]:
            for index in load.index:
                yield next((n for n, c in index.terms if isinstance(n, str) and c == 1), "")

    def _unit(self, stage: str, loop: str) -> Unit | None:
        unit = self._units.get((stage, loop)) or next((u for (_, n), u in self._units.items() if n == loop), None)
        return unit if unit and unit[0] else None

    def program(self) -> TensorProgram:
        """The program at the smallest extents that hold what its stages read of each other."""
        made = {c.name: c for c in self._program.computes}
        while True:
            extents = self._choose()
            inputs = {b.name: [1] * len(b.shape) for b in self._program.inputs}
            wanted = dict.fromkeys(extents, 1)
            for c in self._program.computes:
                was = [Loop(a.name, (const(a.extent),), ()) for a in c.all_axes]
                now = [Loop(a.name, (const(extents[a.name]),), ()) for a in c.all_axes]
                data = {(load, d) for load, d, _ in gathers(c.body)}
                for load, d in [(ld, d) for ld in loads(c.body) for d in range(len(ld.index))]:
                    need = (upper(load.index[d], now) or 0) + 1
                    if (load, d) in data:
                        need = min(GATHERED, self._shapes[load.buffer][d])
                    if load.buffer in made:  # what was larger than this read needs stays larger
                        axis = made[load.buffer].axes[d]
                        need += min(1, axis.extent - 1 - (upper(load.index[d], was) or 0))
                        wanted[axis.name] = max(wanted[axis.name], min(need, axis.extent))
                    else:
                        inputs[load.buffer][d] = max(inputs[load.buffer][d], need)
            if all(extents[n] >= need for n, need in wanted.items()):
                break
            self._least = {n: max(need, self._least[n]) for n, need in wanted.items()}
        resized = {a: replace(a, extent=extents[a.name]) for c in made.values() for a in c.all_axes}
        computes = [
            replace(c, axes=tuple(resized[a] for a in c.axes), reduce_axes=tuple(resized[a] for a in c.reduce_axes))
            for c in self._program.computes
        ]
        buffers = [replace(b, shape=tuple(inputs[b.name]), strides=None) for b in self._program.inputs]
        return TensorProgram(tuple(buffers), tuple(computes), self._program.outputs)

    def schedule(self) -> Schedule:
        """The steps with the numbers that go with `program`."""
        steps: list[Step] = []
        for step, units in zip(self._schedule.steps, self._numbers):
            changed: dict[str, Any] = {}
            for (name, key), unit in units.items():
                old = changed.get(name, getattr(step, name))
                if name == "factor":
                    changed[name] = self._number(unit, old)
                else:
                    changed[name] = tuple((k, self._number(unit, f) if k == key else f) for k, f in old)
            steps.append(replace(step, **changed))
        return Schedule(tuple(steps))

    def _number(self, unit: Unit, factor: int) -> int:
        axis, size = unit
        whole, part = self._sizes[axis][size * factor], self._sizes[axis][size]
        if whole % part:
            raise ScheduleError(f"no smaller factor for {factor} along {axis}", "shrink")
        return whole // part

    def _choose(self) -> dict[str, int]:
        """Smaller numbers for the sizes of every axis; returns the extents. Fused axes come first: they bind parts."""
        extents: dict[str, int] = {}
        for name, axis in sorted(self._axes.items(), key=lambda item: -len(item[1].parts)):
            if len(axis.parts) == 1:
                fixed = [extents[name]] if name in extents else None
                extents[name] = self._chain(name, fixed or self._tried(name, axis.extent))
                continue
            few = int(2000 ** (1 / len(axis.parts)))
            rows = [[extents[p]] if p in extents else list(islice(self._options(p), few)) for p in axis.parts]
            whole = {prod(row): row for row in product(*rows)}
            row = whole.get(self._chain(name, sorted(whole)))
            extents |= zip(axis.parts, row or [self._axes[p].extent for p in axis.parts])
        return extents

    def _options(self, name: str) -> Iterator[int]:
        """Extents that suit the blocks of an axis."""
        n = self._axes[name].extent
        self._chain(name, self._tried(name, n))
        below = {s: t for s, t in self._sizes[name].items() if 1 < s < n}
        return (v for v in self._tried(name, n) if self._alike(n, v, below, self._base(name)))

    def _tried(self, name: str, most: int) -> range:
        least = self._least.get(name, 1)
        return range(least, min(most, least + MAX_EXTENT) + 1)

    def _base(self, name: str) -> int:
        return _BASES[list(self._axes).index(name) % len(_BASES)]

    def _chain(self, name: str, options: Iterable[int]) -> int:
        """Smaller numbers for the sizes of an axis, the smallest first; returns the extent's, taken from `options`."""
        n, sizes = self._axes[name].extent, dict[int, int]()
        for s in sorted({*self._axes[name].sizes, n} - {1}):
            tried = options if s == n else [s] if self._keep else range(1, min(s, MAX_EXTENT) + 1)
            sizes[s] = next((v for v in tried if self._alike(s, v, sizes, self._base(name))), s)
        self._sizes[name] = {1: 1, **sizes}
        return self._sizes[name][n]

    def _alike(self, n: int, v: int, sizes: dict[int, int], base: int) -> bool:
        """Whether n in blocks of the given sizes looks like v in blocks of their smaller numbers."""
        if any((n % s == 0) != (v % t == 0) for s, t in sizes.items()):
            return False
        if not sizes:
            return v >= min(base, n)
        s, t = max(sizes.items())
        if min(n // s, self._most) != min(v // t, self._most):
            return False
        for s in sorted(sizes, reverse=True):
            (blocks, n), (ours, v) = divmod(n, s), divmod(v, sizes[s])
            if (blocks == 0) != (ours == 0):
                return False
        return min(n, 2) == min(v, 2)
