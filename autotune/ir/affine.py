"""Affine integer expressions over loop names: the only arithmetic that indices, extents and guards may use.

An `Affine` is `const + sum(coefficient * atom)`; an atom is a loop name or a floor division or remainder of an Affine
by a positive constant. Values are immutable and canonical, so that equality is structural equality.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from functools import lru_cache
from typing import Any, Union

Atom = Union[str, "FloorDiv", "Mod"]


@dataclass(frozen=True, slots=True)
class FloorDiv:
    """floor(arg / divisor), divisor > 0."""

    arg: Affine
    divisor: int

    def __str__(self) -> str:
        return f"({self.arg})//{self.divisor}"


@dataclass(frozen=True, slots=True)
class Mod:
    """arg - divisor * floor(arg / divisor), so 0 <= value < divisor."""

    arg: Affine
    divisor: int

    def __str__(self) -> str:
        return f"({self.arg})%{self.divisor}"


@dataclass(frozen=True, slots=True)
class Affine:
    """const + sum of coefficient * atom; `terms` is sorted by the atom's text and holds no zero coefficient."""

    terms: tuple[tuple[Atom, int], ...] = ()
    const: int = 0

    @property
    def is_const(self) -> bool:
        return not self.terms

    def names(self) -> frozenset[str]:
        """Every loop name that the value depends on, inside floor divisions too."""
        if all(isinstance(atom, str) for atom, _ in self.terms):
            return frozenset(atom for atom, _ in self.terms)  # type: ignore[misc]
        found: set[str] = set()
        for atom, _ in self.terms:
            found |= {atom} if isinstance(atom, str) else atom.arg.names()
        return frozenset(found)

    @property
    def is_linear(self) -> bool:
        """No floor division or remainder occurs."""
        return all(isinstance(atom, str) for atom, _ in self.terms)

    def coefficient(self, name: Atom) -> int:
        return next((c for atom, c in self.terms if atom == name), 0)

    def single(self) -> str | None:
        """The loop name, if the value is exactly one loop name."""
        if self.const == 0 and len(self.terms) == 1 and self.terms[0][1] == 1 and isinstance(self.terms[0][0], str):
            return self.terms[0][0]
        return None

    def __add__(self, other: Affine | int) -> Affine:
        if isinstance(other, int):
            return Affine(self.terms, self.const + other)
        if not other.terms:
            return Affine(self.terms, self.const + other.const)
        if not self.terms:
            return Affine(other.terms, self.const + other.const)
        return _collect([*self.terms, *other.terms], self.const + other.const)

    __radd__ = __add__

    def __neg__(self) -> Affine:
        return self * -1

    def __sub__(self, other: Affine | int) -> Affine:
        return self + (-other)

    def __rsub__(self, other: int) -> Affine:
        return other + self * -1

    def __mul__(self, factor: int) -> Affine:
        if factor == 0:
            return Affine()
        return Affine(tuple((atom, c * factor) for atom, c in self.terms), self.const * factor)

    __rmul__ = __mul__

    def __floordiv__(self, divisor: int) -> Affine:
        """floor(self / divisor); terms that the divisor divides leave the division exactly."""
        if divisor == 1:
            return self
        out, rest = self._divided(divisor)
        if rest.is_const:
            return out + rest.const // divisor
        whole = rest.const // divisor
        return out + whole + _of(FloorDiv(rest - whole * divisor, divisor))

    def __mod__(self, divisor: int) -> Affine:
        if divisor == 1:
            return Affine()
        _, rest = self._divided(divisor)
        if rest.is_const:
            return Affine((), rest.const % divisor)
        return _of(Mod(Affine(rest.terms, rest.const % divisor), divisor))

    def _divided(self, divisor: int) -> tuple[Affine, Affine]:
        exact = tuple((atom, c // divisor) for atom, c in self.terms if c % divisor == 0)
        rest = tuple((atom, c) for atom, c in self.terms if c % divisor)
        return Affine(exact), Affine(rest, self.const)

    def substitute(self, values: Mapping[str, Affine]) -> Affine:
        """Replace loop names by affines, everywhere."""
        if not self.terms or not any(
            (atom in values) if isinstance(atom, str) else bool(atom.arg.names() & values.keys())
            for atom, _ in self.terms
        ):
            return self
        total: list[tuple[Atom, int]] = []
        const = self.const
        for atom, c in self.terms:
            if isinstance(atom, str):
                new = values.get(atom)
                if new is None:
                    total.append((atom, c))
                    continue
            else:
                arg = atom.arg.substitute(values)
                new = arg // atom.divisor if isinstance(atom, FloorDiv) else arg % atom.divisor
            total.extend((a, k * c) for a, k in new.terms)
            const += new.const * c
        return _collect(total, const)

    def map_atoms(self, fn: Callable[[Atom], Affine]) -> Affine:
        """Rebuild with every top-level atom replaced by fn(atom)."""
        total: list[tuple[Atom, int]] = []
        const = self.const
        for atom, c in self.terms:
            new = fn(atom)
            total.extend((a, k * c) for a, k in new.terms)
            const += new.const * c
        return _collect(total, const)

    def evaluate(self, env: Mapping[str, Any]) -> Any:
        """The value for ints or NumPy integer arrays (broadcast against each other) in `env`."""
        total: Any = self.const
        for atom, c in self.terms:
            if isinstance(atom, str):
                value = env[atom]
            else:
                inner = atom.arg.evaluate(env)
                value = inner // atom.divisor if isinstance(atom, FloorDiv) else inner % atom.divisor
            total = total + c * value
        return total

    def __str__(self) -> str:
        parts: list[str] = []
        for atom, c in self.terms:
            sign = "-" if c < 0 else "+"
            text = str(atom) if abs(c) == 1 else f"{abs(c)}*{atom}"
            parts.append(f" {sign} {text}" if parts else (f"-{text}" if c < 0 else text))
        if self.const or not parts:
            sign = "-" if self.const < 0 else "+"
            parts.append(f" {sign} {abs(self.const)}" if parts else str(self.const))
        return "".join(parts)


def _of(atom: Atom) -> Affine:
    return Affine(((atom, 1),), 0)


def _collect(terms: Iterable[tuple[Atom, int]], const: int) -> Affine:
    total: dict[Atom, int] = {}
    for atom, c in terms:
        total[atom] = total.get(atom, 0) + c
    # d*(x//d) + (x%d) is x: the pair that Fuse leaves behind in every contiguous index.
    for atom in list(total):
        if isinstance(atom, Mod) and (m := total.get(atom, 0)):
            quotient = FloorDiv(atom.arg, atom.divisor)
            if total.get(quotient, 0) == m * atom.divisor:
                del total[atom], total[quotient]
                return _collect([*total.items(), *((a, c * m) for a, c in atom.arg.terms)], const + m * atom.arg.const)
    kept = [(a, c) for a, c in total.items() if c]
    if len(kept) > 1:
        kept.sort(key=lambda term: term[0] if isinstance(term[0], str) else str(term[0]))
    return Affine(tuple(kept), const)


@lru_cache(maxsize=4096)
def var(name: str) -> Affine:
    """The affine that is one loop name."""
    return Affine(((name, 1),), 0)


@lru_cache(maxsize=4096)
def const(value: int) -> Affine:
    return Affine((), value)


def affine(value: Affine | int | str) -> Affine:
    """An Affine from an int, a loop name or an Affine."""
    if isinstance(value, Affine):
        return value
    return const(int(value)) if not isinstance(value, str) else var(value)
