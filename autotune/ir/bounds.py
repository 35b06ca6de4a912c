"""Bounds of affines over the loops and guards around a statement, by exact elimination. Knows no buffers, no stages.

Every loop gives 0 <= x and x <= e - 1 for each term e of its extent; every guard g gives g >= 0; floor(a / d) is one
more variable q with d*q <= a <= d*q + d - 1, and a % d is a - d*q. Variables are eliminated innermost first
(Fourier-Motzkin), so a bound is the exact rational maximum; q is bounded by the floors of its argument's bounds too.
Every bound is sound; it is the exact integer one unless the maximum lies between two points of the lattice.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import lru_cache
from math import gcd

from .affine import Affine, Atom, FloorDiv
from .nest import Loop

# A linear form: coefficient by variable, the constant under the empty name.
Var = str | FloorDiv
Form = dict[Var, int]
Rows = dict[Var, dict[frozenset[tuple[Var, int]], int]]
Shape = tuple[tuple[str, tuple[Affine, ...]], ...]

# Fewer constraints and fewer ways tried make bounds looser, never wrong; no nest of a real schedule reaches these.
_MOST_CONSTRAINTS = 24
_MOST_WAYS = 256


class Domain:
    """The integer points of loops (outermost first) that meet all guards (affines >= 0). `empty`: there is none."""

    def __init__(self, loops: Shape, guards: tuple[Affine, ...] = ()) -> None:
        self.empty = False
        self._levels = {name: level for level, (name, _) in enumerate(loops)} | {"": -2}
        self._ranks: dict[Var, tuple[int, int, str]] = {}
        self._upper: dict[Var, list[Form]] = {}  # constraints >= 0 in which the variable has a negative coefficient
        self._lower: dict[Var, list[Form]] = {}  # and a positive one; in both it is the innermost variable
        self._most: dict[Affine, int | None] = {}
        self._ways = 0
        self._close(loops, guards)

    def upper(self, a: Affine) -> int | None:
        """A value that `a` never exceeds; None if the domain is empty or `a` has a name that nothing bounds."""
        if not a.terms:
            return None if self.empty else a.const
        if a not in self._most:
            self._most[a] = None if self.empty else self._query(_form(a))
        return self._most[a]

    def lower(self, a: Affine) -> int | None:
        """A value that `a` never goes below; None as for `upper`."""
        most = self.upper(-a)
        return None if most is None else -most

    def nonnegative(self, a: Affine) -> bool:
        """a >= 0 at every point (so always, where there is none)."""
        least = self.lower(a)
        return self.empty or (least is not None and least >= 0)

    def simplify(self, a: Affine) -> Affine:
        """The same values on this domain, without the divisions whose quotient is one constant here."""
        return a if a.is_linear else a.map_atoms(self._simplify)

    def _simplify(self, atom: Atom) -> Affine:
        if isinstance(atom, str):
            return Affine(((atom, 1),))
        arg = self.simplify(atom.arg)
        least, most = self.lower(arg), self.upper(arg)
        if least is None or most is None or least // atom.divisor != most // atom.divisor:
            return arg // atom.divisor if isinstance(atom, FloorDiv) else arg % atom.divisor
        quotient = least // atom.divisor
        return Affine((), quotient) if isinstance(atom, FloorDiv) else arg - quotient * atom.divisor

    # ---- constraints, closed under elimination ----------------------------------------------------------------------

    def _close(self, loops: Shape, guards: tuple[Affine, ...]) -> None:
        found: Rows = {}
        for name, extents in loops:
            self._add(found, {name: 1, "": 0})
            for extent in extents:
                form = _form(extent - 1)
                form[name] = form.get(name, 0) - 1
                self._add(found, form)
        for guard in guards:
            self._add(found, _form(guard))
        while found:
            x = max(found, key=self._rank)
            rows = found.pop(x)
            forms = [{**dict(terms), "": const} for terms, const in rows.items()]
            if not isinstance(x, str):
                forms += _division(x)
            # Constants first: they end a branch at once, and are what remains when too many ways are open.
            forms.sort(key=len)
            lower, upper = [f for f in forms if f[x] > 0], [f for f in forms if f[x] < 0]
            self._lower[x], self._upper[x] = lower, upper
            for low in lower:
                for high in upper:
                    if len(low) + len(high) > 4:
                        self._add(found, _cancel(low, high, x), derived=True)
                    elif low[""] // low[x] + high[""] // -high[x] < 0:
                        self.empty = True

    def _add(self, found: Rows, form: Form, derived: bool = False) -> None:
        const = form.pop("", 0)
        terms = [(v, c) for v, c in form.items() if c]
        if not terms:
            self.empty |= const < 0
            return
        divisor = gcd(*(c for _, c in terms))
        if divisor > 1:
            terms, const = [(v, c // divisor) for v, c in terms], const // divisor
        x = max(dict(terms), key=self._rank)
        rows, key = found.setdefault(x, {}), frozenset(terms)
        if key in rows:
            rows[key] = min(rows[key], const)
        elif not derived or len(rows) < _MOST_CONSTRAINTS:
            rows[key] = const

    def _rank(self, v: Var) -> tuple[int, int, str]:
        """Order of elimination, greatest first: a division comes just before the innermost loop that it depends on."""
        rank = self._ranks.get(v)
        if rank is None:
            if isinstance(v, str):
                rank = (self._levels.get(v, -1), 0, v)
            else:
                level, depth, _ = max(self._rank(u) for u in _form(v.arg))
                rank = (level, depth + 1, str(v))
            self._ranks[v] = rank
        return rank

    # ---- queries ----------------------------------------------------------------------------------------------------

    def _query(self, form: Form) -> int | None:
        outer, self._ways = self._ways, 0
        most = self._maximum(form, 1)
        self._ways = outer
        return most

    def _maximum(self, form: Form, scale: int) -> int | None:
        """A bound of form / scale, rounded down: the best over all ways to cancel its variables, innermost first."""
        while len(form) > 1:
            x = max(form, key=self._rank)
            ways = self._constraints(x, form[x] > 0)
            if not ways:
                return None
            if len(ways) > 1 and self._ways < _MOST_WAYS:
                self._ways += len(ways)
                found = [self._maximum(*_combine(form, scale, way, x)) for way in ways]
                return min((bound for bound in found if bound is not None), default=None)
            form, scale = _combine(form, scale, ways[0], x)
        return form.get("", 0) // scale

    def _constraints(self, x: Var, above: bool) -> list[Form]:
        if isinstance(x, str):
            return (self._upper if above else self._lower).get(x, [])
        if x in self._upper:
            base = self._upper[x] if above else self._lower[x]
        else:
            base = _division(x)[above:][:1]
        limit = self.upper(x.arg) if above else self.lower(x.arg)
        if limit is None:
            return base
        quotient = limit // x.divisor
        return [{x: -1, "": quotient} if above else {x: 1, "": -quotient}, *base]


def _form(a: Affine) -> Form:
    form: Form = {"": a.const}
    for atom, c in a.terms:
        if isinstance(atom, str):
            form[atom] = form.get(atom, 0) + c
            continue
        quotient = FloorDiv(atom.arg, atom.divisor)
        if atom == quotient:
            form[quotient] = form.get(quotient, 0) + c
        else:
            form[quotient] = form.get(quotient, 0) - c * atom.divisor
            for v, k in _form(atom.arg).items():
                form[v] = form.get(v, 0) + c * k
    return {v: c for v, c in form.items() if c or v == ""}


def _division(q: FloorDiv) -> list[Form]:
    """d*q + d - 1 - arg >= 0 and arg - d*q >= 0."""
    arg = _form(q.arg)
    return [
        {v: -c for v, c in arg.items()} | {q: q.divisor, "": q.divisor - 1 - arg[""]},
        {**arg, q: -q.divisor},
    ]


def _cancel(low: Form, high: Form, x: Var) -> Form:
    a, b = -high[x], low[x]
    form = {v: a * c for v, c in low.items()}
    for v, c in high.items():
        form[v] = form.get(v, 0) + b * c
    del form[x]
    return form


def _combine(form: Form, scale: int, row: Form, x: Var) -> tuple[Form, int]:
    """form / scale <= (form + m * row) / scale with the multiplier m >= 0 that cancels x."""
    a, b = abs(row[x]), abs(form[x])
    if b % a == 0:
        b //= a
        total = dict(form)
    else:
        total = {v: a * c for v, c in form.items()}
        scale *= a
    for v, c in row.items():
        new = total.get(v, 0) + b * c
        if new or v == "":
            total[v] = new
        else:
            del total[v]
    return total, scale


@lru_cache(maxsize=4096)
def domain_of(loops: Shape, guards: tuple[Affine, ...]) -> Domain:
    """The domain of loops given as (name, extents)."""
    return Domain(loops, guards)


def domain(loops: Sequence[Loop], guards: Sequence[Affine] = ()) -> Domain:
    """The domain of a statement inside `loops` (outermost first) under `guards`; made once for equal arguments."""
    return domain_of(tuple((lp.name, lp.extents) for lp in loops), tuple(guards))


def upper(a: Affine, loops: Sequence[Loop], guards: Sequence[Affine] = ()) -> int | None:
    """The largest value of `a`, or a little more; None if nothing bounds it or if no point exists (see `is_empty`)."""
    return domain(loops, guards).upper(a)


def lower(a: Affine, loops: Sequence[Loop], guards: Sequence[Affine] = ()) -> int | None:
    """The smallest value of `a`, or a little less; None if nothing bounds it or if no point exists (see `is_empty`)."""
    return domain(loops, guards).lower(a)


def is_empty(loops: Sequence[Loop], guards: Sequence[Affine] = ()) -> bool:
    """Proved: no point of the loops meets the guards."""
    return domain(loops, guards).empty


def prove_nonnegative(a: Affine, loops: Sequence[Loop], guards: Sequence[Affine] = ()) -> bool:
    """Proved: a >= 0 at every point (vacuously where there is none)."""
    return domain(loops, guards).nonnegative(a)


def simplify(a: Affine, loops: Sequence[Loop], guards: Sequence[Affine] = ()) -> Affine:
    """The same values without the floor divisions and remainders that stay within one period here."""
    return domain(loops, guards).simplify(a)
