"""Matrix instructions, each as the small nest that it means: sums of products in which all lanes of a warp take part.

In a nest an instruction is a loop of kind "tensor" inside the loop over the lanes of a warp:

    for lane < 32 thread.x:  for r < 4 tensor:  for kk < 16:  acc[.., lane, r] += A[.. i .. kk ..] * B[.. kk .. j ..]

with i = row(lane, r) and j = column(lane, r). That is all that interpreter, equivalence and coverage see. How operands
are spread over the lanes matters to code generation alone. Layouts are those of the PTX ISA (mma) and of AMD's ISA
documents of CDNA 2 and 3 (mfma), RDNA 3 (wmma) and RDNA 4 (wmma12).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from .affine import Affine, var
from .dtypes import BF16, F16, F32, I8, I32, DType
from .expr import Expr, Load, Op
from .nest import THREAD_KINDS, Alloc, Block, Guard, Loop, Reduce

LANE, ELEMENT = var("lane"), var("e")


@dataclass(frozen=True)
class Fragment:
    """How a matrix lies in the lanes of a warp: element e of `elements` of a lane is at (`row`, `column`), affines in
    "lane" and "e". `copies` lanes hold the same element."""

    elements: int
    row: Affine
    column: Affine
    copies: int = 1

    def words(self, dtype: DType) -> int:
        """32-bit registers of one lane."""
        return self.elements * dtype.bits // 32

    def at(self, lane: Affine, element: Affine) -> tuple[Affine, Affine]:
        where = {"lane": lane, "e": element}
        return self.row.substitute(where), self.column.substitute(where)


@dataclass(frozen=True)
class Instruction:
    """result[m, n] += a[m, k] * b[k, n] by `lanes` threads."""

    name: str
    shape: tuple[int, int, int]
    operand: DType
    result: DType
    lanes: int
    a: Fragment
    b: Fragment
    c: Fragment


@dataclass(frozen=True)
class Use:
    """One place of a nest where an instruction stands: the loops, the statement, and for each operand its load and the
    number of rows (columns) by which each of its dimensions moves with a row (column) of the result."""

    instruction: Instruction
    lane: Loop
    element: Loop
    depth: Loop
    leaf: Reduce
    a: tuple[Load, tuple[int, ...]]
    b: tuple[Load, tuple[int, ...]]

    def index(self, which: str, element: int) -> tuple[Affine, ...]:
        """The load's index at the lane's element of operand "a" or "b"."""
        load, moves = self.a if which == "a" else self.b
        fragment = self.instruction.a if which == "a" else self.instruction.b
        row, column = fragment.at(var(self.lane.name), Affine((), element))
        own, k = (row, column) if which == "a" else (column, row)
        inside = _place(self, which)
        rest = tuple(a - inside * c for a, c in zip(load.index, moves))
        return tuple(a.substitute({self.depth.name: k}) + own * c for a, c in zip(rest, moves))


def _place(use: Use, which: str) -> Affine:
    row, column = use.instruction.c.at(var(use.lane.name), var(use.element.name))
    return row if which == "a" else column


def _pairs(per: int) -> tuple[Fragment, Fragment, Fragment]:
    """mma.m16n8: a lane's `per` neighbouring elements of a row in each 32-bit register, two rows apart by 8, two halves
    of k; the result in pairs."""
    group, at = LANE // 4, (LANE % 4) * per
    a = Fragment(4 * per, group + 8 * ((ELEMENT // per) % 2), at + ELEMENT % per + 4 * per * (ELEMENT // (2 * per)))
    b = Fragment(2 * per, at + ELEMENT % per + 4 * per * (ELEMENT // per), group)
    return a, b, Fragment(4, group + 8 * (ELEMENT // 2), (LANE % 4) * 2 + ELEMENT % 2)


def _half_pairs(per: int) -> tuple[Fragment, Fragment, Fragment]:
    """The same with one half of k."""
    _, _, c = _pairs(per)
    group, at = LANE // 4, (LANE % 4) * per
    return (Fragment(2 * per, group + 8 * (ELEMENT // per), at + ELEMENT % per), Fragment(per, at + ELEMENT, group), c)


def _single() -> tuple[Fragment, Fragment, Fragment]:
    """mma.m8n8k16 of bytes."""
    at = (LANE % 4) * 4 + ELEMENT
    return Fragment(4, LANE // 4, at), Fragment(4, at, LANE // 4), Fragment(2, LANE // 4, (LANE % 4) * 2 + ELEMENT)


def _mfma(per: int) -> tuple[Fragment, Fragment, Fragment]:
    """v_mfma 16x16: lane % 16 is the row of a, the column of b and of the result; the quarters of a wave part k."""
    k = (LANE // 16) * per + ELEMENT
    return Fragment(per, LANE % 16, k), Fragment(per, k, LANE % 16), Fragment(4, (LANE // 16) * 4 + ELEMENT, LANE % 16)


def _wmma() -> tuple[Fragment, Fragment, Fragment]:
    """v_wmma of RDNA 3: both halves of a wave hold all of a and b; rows of the result alternate between them."""
    a, b = Fragment(16, LANE % 16, ELEMENT, 2), Fragment(16, ELEMENT, LANE % 16, 2)
    return a, b, Fragment(8, ELEMENT * 2 + LANE // 16, LANE % 16)


def _wmma12() -> tuple[Fragment, Fragment, Fragment]:
    """v_wmma of RDNA 4: each half of a wave holds half of k, and half of the rows of the result."""
    k = (LANE // 16) * 8 + ELEMENT
    return Fragment(8, LANE % 16, k), Fragment(8, k, LANE % 16), Fragment(8, (LANE // 16) * 8 + ELEMENT, LANE % 16)


def _rows() -> list[Instruction]:
    made = [
        Instruction("mma_m16n8k16_f16", (16, 8, 16), F16, F32, 32, *_pairs(2)),
        Instruction("mma_m16n8k16_bf16", (16, 8, 16), BF16, F32, 32, *_pairs(2)),
        Instruction("mma_m16n8k8_f16", (16, 8, 8), F16, F32, 32, *_half_pairs(2)),
        Instruction("mma_m16n8k8_tf32", (16, 8, 8), F32, F32, 32, *_pairs(1)),
        Instruction("mma_m16n8k32_s8", (16, 8, 32), I8, I32, 32, *_pairs(4)),
        Instruction("mma_m8n8k16_s8", (8, 8, 16), I8, I32, 32, *_single()),
        Instruction("mfma_16x16x16_f16", (16, 16, 16), F16, F32, 64, *_mfma(4)),
        Instruction("mfma_16x16x16_bf16", (16, 16, 16), BF16, F32, 64, *_mfma(4)),
        Instruction("mfma_16x16x16_s8", (16, 16, 16), I8, I32, 64, *_mfma(4)),
        Instruction("mfma_16x16x32_s8", (16, 16, 32), I8, I32, 64, *_mfma(8)),
    ]
    for name, layout in (("wmma", _wmma), ("wmma12", _wmma12)):
        for kind, operand, result in (("f16", F16, F32), ("bf16", BF16, F32), ("s8", I8, I32)):
            made.append(Instruction(f"{name}_16x16x16_{kind}", (16, 16, 16), operand, result, 32, *layout()))
    return made


INSTRUCTIONS = {i.name: i for i in _rows()}


def use(element: Loop, path: Sequence[Block]) -> Use | str:
    """The use of an instruction that a loop of kind "tensor" stands for; why it is none, as a text, otherwise."""
    known = INSTRUCTIONS.get(element.instruction)
    if known is None:
        return f"no instruction {element.instruction!r} is known"
    if element.constant != known.c.elements:
        return f"{known.name} gives a lane {known.c.elements} results, {element.name} has {element.constant}"
    lane = next((b for b in reversed(path) if isinstance(b, Loop) and b.kind == "thread.x"), None)
    if lane is None or lane.constant != known.lanes:
        return f"{known.name} needs a loop over {known.lanes} lanes (thread.x) around it"
    below = path[list(path).index(lane) + 1 :]
    if any(isinstance(b, Guard) for b in below):
        return f"{known.name} stands under a condition inside {lane.name}: all lanes must take part"
    if any(lane.name in e.names() for b in below if isinstance(b, Loop) for e in b.extents):
        return f"how often {known.name} runs depends on the lane"
    first = next(n for n, b in enumerate(path) if isinstance(b, Loop) and b.kind in THREAD_KINDS)
    own = {b.buffer.name for b in path[first:] if isinstance(b, Alloc)}
    depth = element.body[0] if len(element.body) == 1 else None
    if not isinstance(depth, Loop) or depth.constant != known.shape[2] or depth.kind not in ("serial", "unroll"):
        return f"{known.name} sums over one loop of {known.shape[2]}"
    leaf = depth.body[0] if len(depth.body) == 1 else None
    if not isinstance(leaf, Reduce) or leaf.combiner != "sum" or leaf.first is not None:
        return f"{known.name} adds products to results that have begun"
    if leaf.index[-2:] != (var(lane.name), var(element.name)) or any(
        {lane.name, element.name, depth.name} & a.names() for a in leaf.index[:-2]
    ):
        return f"the results of {known.name} are the last two dimensions, by lane and element, of an array"
    factors = _factors(leaf.value, known)
    if factors is None:
        return f"{known.name} multiplies {known.operand} by {known.operand} into {known.result}"
    if kept := own & {ld.buffer for ld in factors}:
        return f"{known.name} has operands from other lanes, and {sorted(kept)[0]} is each thread's own"
    for one, two in (factors, factors[::-1]):
        row, column = known.c.at(var(lane.name), var(element.name))
        inner = {lane.name, element.name}
        a, b = _moves(one, row, inner), _moves(two, column, inner)
        if a is not None and b is not None:
            return Use(known, lane, element, depth, leaf, (one, a), (two, b))
    return f"operands of {known.name} are not indexed by a row and a column of its result"


def _factors(value: Expr, known: Instruction) -> tuple[Load, Load] | None:
    if not isinstance(value, Op) or value.name != "mul" or value.dtype != known.result:
        return None
    found = []
    for x in value.args:
        inner = x.args[0] if isinstance(x, Op) and x.name == "cast" else x
        if not isinstance(inner, Load) or inner.dtype != known.operand:
            return None
        found.append(inner)
    return found[0], found[1]


def _moves(load: Load, place: Affine, inner: set[str]) -> tuple[int, ...] | None:
    """How far each dimension moves with `place`; None where an index depends on the loops in another way."""
    atom, step = place.terms[0]
    moves = []
    for a in load.index:
        c = a.coefficient(atom)
        if c % step or (a - place * (c // step)).names() & inner:
            return None
        moves.append(c // step)
    return tuple(moves)


__all__ = ["INSTRUCTIONS", "Fragment", "Instruction", "Use", "use"]
