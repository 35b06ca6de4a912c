"""From the recorded program, one Compute an operation, to the one that is compiled: which arrays exist, which do not.

Knows Computes, index affines and a rough price of each primitive. Must not know NumPy, tracers, schedules or devices:
whether two Computes share a loop nest is decided later, here only whether an array has a name of its own.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import replace

from .filtering import filtered
from .ir.affine import Affine, Atom, FloorDiv, const, var
from .ir.expr import HEAVY, Expr, Index, Load, Op, gathers, loads, substitute, walk
from .ir.program import Axis, Buffer, Compute, TensorProgram
from .windows import overlap, spread

MAX_OPS = 96  # operations of one body, each shared sub-expression once
MAX_TREE = 1024  # nodes of one body written out as a tree
POSITIONS = 5  # price from which arithmetic on positions alone counts
_PRICES = {"cast": 0, "div": 4, "mod": 4, "sqrt": 4, "recip": 4} | dict.fromkeys(HEAVY, 8)

Site = tuple[str, tuple[Affine, ...]]  # a Compute that will exist, and at which index of its axes it needs a value


def inline(
    inputs: Sequence[Buffer], computes: Sequence[Compute], outputs: Sequence[str], rounded: Collection[str] = ()
) -> tuple[TensorProgram, dict[str, frozenset[str]]]:
    """The program in which a Compute remains only where one of these holds; others are inlined in their consumers.
    Beside it, for each Compute that remains, the names of the recorded ones that it computes.

    It is an output; it reduces; a consumer would evaluate it repeatedly (a broadcast, an operand of a contraction) and
    it costs more than one cheap operation (inside a contraction: anything); several remaining Computes, or several
    index maps, need it and it costs more than one cheap operation; a body would grow beyond MAX_OPS or MAX_TREE. The
    rounding of a 16-bit float between inlined operations is dropped unless its name is in `rounded`.
    """
    graph = _Graph(inputs, computes, outputs)
    cost = graph.costs()
    graph.sweep(lambda c, sites: any(graph.repeats(site, cost[c.name]) for site in sites))
    cost, before = graph.costs(), set(graph.roots)
    graph.sweep(lambda c, sites: len(sites) > 1 and cost[c.name] > 1)
    for name in [c.name for c in graph.order if c.name in graph.roots - before]:
        graph.roots.remove(name)  # its price may have lain in a producer that is an array itself by now
        if graph.costs()[name] > 1:
            graph.roots.add(name)
    graph.limit()
    made = [graph.build(c, rounded) for c in graph.order if c.name in graph.roots]
    parts = graph.parts()
    absorbed = _absorb(made, outputs)
    gone = {c.name for c in made} - {c.name for c in absorbed}
    for c in made:
        if isinstance(c.body, Load) and c.body.buffer in gone:
            parts[c.name] |= parts[c.body.buffer]
    left = spread(filtered(_squeeze(absorbed, outputs), {*outputs}))
    program = _named(inputs, left, outputs)
    return program, {new.name: parts[old.name.partition(".")[0]] for new, old in zip(program.computes, left)}


class _Graph:
    """The recorded Computes that the outputs need, and `roots`: those that will remain."""

    def __init__(self, inputs: Sequence[Buffer], computes: Sequence[Compute], outputs: Sequence[str]) -> None:
        self.nodes = {c.name: c for c in computes}
        self.loads = {c.name: tuple(ld for ld in loads(c.body) if ld.buffer in self.nodes) for c in computes}
        live = set(outputs)
        for c in reversed(computes):
            if c.name in live:
                live.update(ld.buffer for ld in self.loads[c.name])
        self.order = [c for c in computes if c.name in live]
        self.roots = set(outputs) | {c.name for c in self.order if c.combiner}
        self.roots |= {source.buffer for c in self.order for source, *_ in gathers(c.body)} & self.nodes.keys()
        self.ops = {c.name: [n.name for n in walk(c.body) if isinstance(n, Op)] for c in self.order}
        self.price = {name: sum(_PRICES.get(n, 1) for n in ops) for name, ops in self.ops.items()}
        for c in self.order:  # backwards: a vector of it is a gather, and a contraction cannot pack it
            back = any(k < 0 for ld in loads(c.body) for i in ld.index for _, k in i.terms)
            self.price[c.name] += back
        positions: dict[str, int] = {}  # what compares and adds positions only costs less than reading an array of it
        for c in self.order:
            sources = [positions.get(ld.buffer, POSITIONS) for ld in loads(c.body)]
            if (whole := self.price[c.name] + sum(sources)) < POSITIONS and not c.combiner:
                positions[c.name], self.price[c.name] = whole, 0
        self.extents = {c.name: {a.name: a.extent for a in c.all_axes} for c in self.order}
        self.shapes = {b.name: b.shape for b in inputs} | {c.name: c.shape for c in self.order}

    def inlined(self, name: str) -> list[str]:
        """The producers that are inlined here, once for each load of them."""
        return [ld.buffer for ld in self.loads[name] if ld.buffer not in self.roots]

    def parts(self) -> dict[str, frozenset[str]]:
        """Of each node, itself and all that is inlined into it."""
        found: dict[str, frozenset[str]] = {}
        for c in self.order:
            found[c.name] = frozenset({c.name}).union(*(found[producer] for producer in self.inlined(c.name)))
        return found

    def costs(self) -> dict[str, int]:
        """The price of each node with all that is inlined into it, shared parts once: exact up to 1, else above."""
        priced: dict[str, list[str]] = {}  # the first two members that cost anything
        for c in self.order:
            own = [c.name] if self.price[c.name] else []
            members = dict.fromkeys(m for part in (own, *map(priced.get, self.inlined(c.name))) for m in part or ())
            priced[c.name] = list(members)[:2]
        return {name: sum(self.price[m] for m in members) for name, members in priced.items()}

    def sweep(self, keep: Callable[[Compute, set[Site]], bool]) -> None:
        """Visit consumers before producers and make roots of those that `keep` wants; movements are not asked."""
        sites: dict[str, set[Site]] = {c.name: set() for c in self.order}
        for c in reversed(self.order):
            if c.name not in self.roots and self.price[c.name] and keep(c, sites[c.name]):
                self.roots.add(c.name)
            own = {(c.name, c.index)} if c.name in self.roots else sites[c.name]
            for root, index in own if self.loads[c.name] else ():
                values = {a.name: i for a, i in zip(c.axes, index)}
                for ld in self.loads[c.name]:
                    at = tuple(simplify(i.substitute(values), self.extents[root]) for i in ld.index)
                    sites[ld.buffer].add((root, at))

    def repeats(self, site: Site, cost: int) -> bool:
        """Evaluating the value at this site would repeat it, and that is not worth it."""
        root, index = self.nodes[site[0]], site[1]
        names = frozenset[str]().union(*(i.names() for i in index))
        extents = self.extents[site[0]]
        seen = all(a.name in names or a.extent <= 1 for a in root.all_axes)
        if seen and not any(overlap(i, extents) for i in index):
            return False
        return cost > (0 if any(a.name in names for a in root.reduce_axes) else 1)

    def limit(self) -> None:
        """Where a body is too large, make a root of the member that shrinks it most: x in a polynomial in x."""
        place = {c.name: i for i, c in enumerate(self.order)}
        inside: dict[str, set[str]] = {}
        tree: dict[str, int] = {}

        def measure(name: str) -> None:
            inside[name] = {name}.union(*(inside[producer] for producer in self.inlined(name)))
            own = sum(1 for _ in walk(self.nodes[name].body))
            tree[name] = own + sum(tree[producer] - 1 for producer in self.inlined(name))

        for c in self.order:
            measure(c.name)
            while sum(len(self.ops[m]) for m in inside[c.name]) > MAX_OPS or tree[c.name] > MAX_TREE:
                members = sorted(inside[c.name], key=place.__getitem__)
                count = Counter({c.name: 1})  # how often each occurs in the tree
                for name in reversed(members):
                    for producer in self.inlined(name):
                        count[producer] += count[name]
                # nodes left here and nodes of the new array, if m became one
                sizes = {m: (tree[c.name] - count[m] * (tree[m] - 1), tree[m]) for m in members[:-1] if self.price[m]}
                if not sizes:
                    break
                best = min(sizes, key=lambda m: (sum(sizes[m]), max(sizes[m])))
                self.roots.add(best)
                for later in self.order[place[best] : place[c.name] + 1]:
                    measure(later.name)

    def build(self, c: Compute, rounded: Collection[str]) -> Compute:
        """The Compute with everything that is no root inlined; an expression that is used twice is one object."""
        extents = self.extents[c.name]
        done: dict[Site, Expr] = {}

        def producer(name: str) -> str:
            """Past mere movements, where the value was computed."""
            body = None if name in self.roots else self.nodes[name].body
            return producer(body.buffer) if isinstance(body, Load) and body.buffer in self.nodes else name

        def expand(node: Expr, values: Mapping[str, Affine]) -> Expr:
            if isinstance(node, Op) and node.name == "gather" and isinstance(source := node.args[0], Load):
                index = tuple(simplify(a.substitute(values), extents) for a in source.index)
                return replace(node, args=(replace(source, index=index), node.args[1], expand(node.args[2], values)))
            if isinstance(node, Op):
                args = tuple(expand(a, values) for a in node.args)
                inner = args[0]
                if (
                    node.name == "cast" and isinstance(inner, Op) and inner.name == "cast" and inner.dtype.bits == 16
                    and inner.args[0].dtype == node.dtype == inner.dtype.compute
                    and isinstance(load := node.args[0], Load) and producer(load.buffer) not in rounded
                ):  # fmt: skip
                    return inner.args[0]
                return Op(node.name, args, node.dtype)
            if isinstance(node, Index):
                return Index(simplify(node.value.substitute(values), extents))
            if not isinstance(node, Load):
                return node
            key = node.buffer, tuple(simplify(a.substitute(values), extents) for a in node.index)
            if key not in done:
                name, index = key
                if name in self.nodes and name not in self.roots:
                    made = self.nodes[name]
                    done[key] = expand(made.body, {a.name: i for a, i in zip(made.axes, index)})
                    return done[key]
                index = _along_units(index, self.shapes[name], c.axes)
                done[key] = Load(name, index, node.dtype)
            return done[key]

        return replace(c, body=expand(c.body, {}))


def _reload(body: Expr, new: Callable[[Load], Load]) -> Expr:
    """The body with every Load replaced; what was one object stays one."""
    done: dict[int, Expr] = {}

    def rebuild(node: Expr) -> Expr:
        if id(node) not in done:
            made = new(node) if isinstance(node, Load) else node
            done[id(node)] = Op(node.name, tuple(map(rebuild, node.args)), node.dtype) if isinstance(node, Op) else made
        return done[id(node)]

    return rebuild(body)


def _absorb(computes: Sequence[Compute], outputs: Sequence[str]) -> list[Compute]:
    """Let a reduction write an output directly where the output only permutes its axes or adds extents of one."""
    made = {c.name: c for c in computes}
    for c in computes:
        source = made.get(c.body.buffer) if isinstance(c.body, Load) else None
        if not isinstance(c.body, Load) or source is None or not source.combiner or source.name in outputs:
            continue
        pairs = [(i.single(), a.extent) for i, a in zip(c.body.index, source.axes) if a.extent != 1]
        wide = [(a.name, a.extent) for a in c.axes if a.extent != 1]
        uses = sum(ld.buffer == source.name for other in computes for ld in loads(other.body))
        if uses == 1 and sorted(map(str, pairs)) == sorted(map(str, wide)):
            body = substitute(source.body, {a.name: i for a, i in zip(source.axes, c.body.index)})
            made[c.name] = replace(source, name=c.name, axes=c.axes, body=body)
            del made[source.name]
    return list(made.values())


def _squeeze(computes: Sequence[Compute], outputs: Sequence[str]) -> list[Compute]:
    """Drop the extents of one that keepdims leaves in intermediate arrays and no consumer reads along its own axis."""
    made = list(computes)
    readers: dict[str, list[int]] = {}
    for n, c in enumerate(made):
        for name in {ld.buffer for ld in loads(c.body)}:
            readers.setdefault(name, []).append(n)
    kept = {*outputs, *(source.buffer for c in made for source, *_ in gathers(c.body))}
    for n in reversed(range(len(made))):
        c = made[n]
        unit = [d for d, a in enumerate(c.axes) if a.extent == 1] if c.name not in kept else []
        mine = readers.get(c.name, []) if unit else []
        reads = [ld for m in mine for ld in loads(made[m].body) if ld.buffer == c.name]
        gone = {d for d in unit if all(ld.index[d].is_const for ld in reads)}
        if gone:
            body = substitute(c.body, {c.axes[d].name: const(0) for d in gone})
            made[n] = replace(c, axes=tuple(a for d, a in enumerate(c.axes) if d not in gone), body=body)

            def shorter(ld: Load, name: str = c.name, gone: set[int] = gone) -> Load:
                index = tuple(i for d, i in enumerate(ld.index) if d not in gone)
                return Load(name, index, ld.dtype) if ld.buffer == name else ld

            for m in mine:
                made[m] = replace(made[m], body=_reload(made[m].body, shorter))
    return made


def _named(inputs: Sequence[Buffer], computes: Sequence[Compute], outputs: Sequence[str]) -> TensorProgram:
    """Computes become t0, t1, ..., avoiding the inputs' names."""
    names = {b.name: b.name for b in inputs}
    free = (name for i in range(len(inputs) + len(computes)) if (name := f"t{i}") not in names)
    names |= {c.name: name for c, name in zip(computes, list(free))}
    load = lambda ld: Load(names[ld.buffer], ld.index, ld.dtype)
    made = tuple(replace(c, name=names[c.name], body=_reload(c.body, load)) for c in computes)
    return TensorProgram(tuple(inputs), made, tuple(names[o] for o in outputs))


def simplify(value: Affine, extents: Mapping[str, int]) -> Affine:
    """The same value for 0 <= name < extents[name], floor divisions and remainders removed where their ranges allow."""
    return value if value.is_linear else value.map_atoms(lambda atom: _simple_atom(atom, extents))


def _simple_atom(atom: Atom, extents: Mapping[str, int]) -> Affine:
    if isinstance(atom, str):
        return var(atom)
    arg, d = simplify(atom.arg, extents), atom.divisor
    # arg = g*A + r with 0 <= r < g and d = g*e:  arg // d = A // e,  arg % d = g * (A % e) + r.
    for g in sorted({d, *(math.gcd(c, d) for _, c in arg.terms)} - {1}, reverse=True):
        big = Affine(tuple((t, c // g) for t, c in arg.terms if c % g == 0), arg.const // g)
        rest = Affine(tuple((t, c) for t, c in arg.terms if c % g), arg.const % g)
        low, high = _range(rest, extents)
        if low >= 0 and high < g:
            if isinstance(atom, FloorDiv):
                return simplify(big // (d // g), extents)
            return simplify(big % (d // g), extents) * g + rest
    return arg // d if isinstance(atom, FloorDiv) else arg % d


def _along_units(index: tuple[Affine, ...], shape: Sequence[int], axes: Sequence[Axis]) -> tuple[Affine, ...]:
    """The same place: index 0 along an extent of one is the axis of extent one there, so that an identity shows."""
    position = {a.name: n for n, a in enumerate(axes)}
    at = [position.get(i.single() or "") for i in index]
    out, last = list(index), -1
    for d, (i, extent) in enumerate(zip(index, shape)):
        if (here := at[d]) is None and extent == 1 and i.is_const:
            behind = min((p for p in at[d + 1 :] if p is not None and p > last), default=len(axes))
            here = next((n for n in range(last + 1, behind) if axes[n].extent == 1), None)
            out[d] = i if here is None else var(axes[here].name)
        last = last if here is None else max(last, here)
    return tuple(out)


def _range(value: Affine, extents: Mapping[str, int]) -> tuple[int, int]:
    """Bounds of the value, attained where it is linear; empty axes count as one point."""
    low = high = value.const
    for atom, c in value.terms:
        if isinstance(atom, str):
            first, last = 0, max(extents[atom] - 1, 0)
        else:
            first, last = _range(atom.arg, extents)
            if isinstance(atom, FloorDiv):
                first, last = first // atom.divisor, last // atom.divisor
            elif first // atom.divisor == last // atom.divisor:
                first, last = first % atom.divisor, last % atom.divisor
            else:
                first, last = 0, atom.divisor - 1
        low, high = low + min(c * first, c * last), high + max(c * first, c * last)
    return low, high
