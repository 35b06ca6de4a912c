"""Dot instructions: in every lane of a vector, the sum of a few products of narrow numbers is added to a wide one.

In a nest such an instruction is a loop of kind "dot" inside a vector loop:

    for v < 16 vector(16):  for p < 2 dot:  acc[v] += wide(a[p]) * wide(b[v, p])

and that is all that interpreter, equivalence and coverage see. Operands that lie otherwise in memory make it slow,
never wrong. `dpbf16` and `dpwssd` are VDPBF16PS and VPDPWSSD of the Intel 64 and IA-32 manual, volume 2.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from .dtypes import BF16, F32, I16, I32, DType
from .expr import Expr, Load, Op
from .nest import Block, Loop, Reduce


@dataclass(frozen=True)
class Dot:
    """result += a[0] * b[0] + ... by `length` pairs of `operand`s a lane; `feature`: LLVM's name for a processor that
    has it."""

    name: str
    operand: DType
    result: DType
    length: int
    feature: str

    def takes(self, dtype: DType) -> bool:
        """Are all its values operands? Integers may be narrower."""
        narrower = dtype.kind in "iu" and self.operand.kind == "i" and dtype.bits < self.operand.bits
        return dtype == self.operand or narrower


DOTS = {d.name: d for d in (
    Dot("dpbf16", BF16, F32, 2, "+avx512bf16"), Dot("dpwssd", I16, I32, 2, "+avx512vnni"),
)}  # fmt: skip


def factors(value: Expr, result: DType) -> tuple[Load, Load] | None:
    """The two loads of a product of widened loads."""
    if not isinstance(value, Op) or value.name != "mul" or value.dtype != result:
        return None
    found = [x.args[0] if isinstance(x, Op) and x.name == "cast" else x for x in value.args]
    a, b = found
    return (a, b) if isinstance(a, Load) and isinstance(b, Load) else None


def misuse(loop: Loop, path: Sequence[Block]) -> str:
    """Why a loop of kind "dot" is no dot instruction; empty where it is one."""
    known = DOTS.get(loop.instruction)
    if known is None:
        return f"no dot instruction {loop.instruction!r} is known"
    if not path or not isinstance(path[-1], Loop) or path[-1].kind != "vector":
        return f"{known.name} stands right inside a vector loop"
    if loop.constant != known.length:
        return f"{known.name} sums {known.length} products"
    leaf = loop.body[0] if len(loop.body) == 1 else None
    if not isinstance(leaf, Reduce) or leaf.combiner != "sum" or leaf.first is not None:
        return f"{known.name} adds products to results that have begun"
    if loop.name in {n for a in leaf.index for n in a.names()}:
        return f"{known.name} adds all its products to one result"
    found = factors(leaf.value, known.result)
    if found is None or any(ld.dtype != known.operand for ld in found):
        return f"{known.name} multiplies {known.operand} by {known.operand} into {known.result}"
    return ""


__all__ = ["DOTS", "Dot", "factors", "misuse"]
