"""Cutting a program into kernels: which Computes share one nest. Knows only which axes and arrays they share.

Two patterns always make a kernel of several Computes: plain stores that read a contraction point by point (its
epilogue), and stages that all have the same outer axes, so that they can run row by row (norms, chains of reductions
and stores). Where a machine runs them so, others may, and the plan then has both ways: chains with contractions inside,
block of rows by block of rows; stages along the rows behind a contraction; siblings, which read the same input; and an
epilogue may be apart, which is close where it computes much. Which way pays is for prices and measurements to say.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from itertools import takewhile

from .affine import Affine
from .collapse import collapse
from .expr import HEAVY, Load, Op, distinct, gathers, loads
from .lower import with_shared_axes
from .plan import Group, Plan, Region, kernel, size
from .program import Compute, TensorProgram

MAX_STAGES = 12
MIN_ROWS = 8  # of a chain with contractions
MUCH = 16  # operations of an epilogue from which it may be better off with all registers for itself

# Some groups, the other way to run them, and which way structure takes.
Offer = tuple[tuple[int, ...], tuple[Group, ...], int]


def partition(program: TensorProgram, chains: bool = False) -> Plan:
    """The plan that structure alone suggests. `chains`: contractions may follow each other in one kernel, and siblings
    may share one."""
    known = _Known(program, chains)
    joined = _joined(known)
    groups = [joined[n] for n in known.order(joined, [(n,) for n in range(len(joined))])]
    offers = [*_offers(known, groups)] if chains else []
    taken = {n for own, _, _ in offers for n in own}
    offers += [((n,), (), 0) for n in range(len(groups)) if n not in taken]
    regions, chosen = [], []
    for own, other, way in (offers[n] for n in known.order(groups, [own for own, _, _ in offers])):
        base = tuple(groups[n] for n in sorted(own))
        light = len(own) == 1 and not _much(known, base[0].names[1:])
        regions.append(Region((base, other) if other else (base,), not light))
        chosen.append(way)
    return Plan(program, tuple(regions), tuple(chosen))


class _Known:
    """Computes under the shared names of their axes, in the whole program and in parts of it; who reads whom."""

    def __init__(self, program: TensorProgram, rows: bool) -> None:
        """`rows`: where windows slide over what is made row by row, they join it."""
        self.program, self.rows = program, rows
        self._parts: dict[tuple[str, ...], TensorProgram] = {}
        self.bytes = {b.name: b.bytes for b in program.buffers}
        self.shared = {c.name: c for c in with_shared_axes(program).computes}
        self.reads = {c.name: tuple({ld.buffer: 0 for ld in loads(c.body)}) for c in program.computes}

    def part(self, names: Sequence[str]) -> TensorProgram:
        own = self.sorted(names)
        if own not in self._parts:
            self._parts[own] = kernel(self.program, own)
        return self._parts[own]

    def sorted(self, names: Sequence[str]) -> tuple[str, ...]:
        inside = set(names)
        return tuple(name for name in self.shared if name in inside)

    def contracts(self, c: Compute) -> bool:
        """It uses what it reads many times, and not only because windows overlap."""
        return reuses_operands(c) and not (self.rows and slides(c))

    def by_blocks(self, names: Sequence[str]) -> bool:
        """There are rows enough to take them in blocks; inside a row each member is a vector or a product of them."""
        members = with_shared_axes(collapse(self.part(names))).computes
        rows = list(takewhile(lambda a: all(a in m.axes for m in members), members[0].axes))
        inside = [len(m.all_axes) - len(rows) for m in members]
        few = all(n <= 1 + reuses_operands(m) for n, m in zip(inside, members))
        return bool(rows) and rows[-1].extent >= MIN_ROWS and few

    def rowwise(self, names: Sequence[str]) -> bool:
        return not _not_rowwise(list(with_shared_axes(self.part(names)).computes))

    def runs(self, name: str) -> bool:
        """No reduction, or one over what lies next to each other in some operand: others better go row by row of it."""
        c = self.shared[name]
        over = {a.name for a in c.reduce_axes}
        return not over or any(ld.index and ld.index[-1].names() & over for ld in loads(c.body))

    def moved(self, names: Sequence[str]) -> int:
        """Bytes of all that goes into a kernel and out of it."""
        part = self.part(names)
        return sum(self.bytes[b.name] for b in part.inputs) + sum(self.bytes[name] for name in part.outputs)

    def edges(self, where: Mapping[str, int]) -> set[tuple[int, int]]:
        """(a, b): something in kernel b reads an array of kernel a. `where`: kernels by their Computes."""
        pairs = ((where[b], n) for name, n in where.items() for b in self.reads[name] if b in where)
        return {(a, b) for a, b in pairs if a != b}

    def order(self, groups: Sequence[Group], regions: Sequence[tuple[int, ...]]) -> list[int]:
        """Regions such that what one reads is made before; else in program order."""
        place = {name: n for n, name in enumerate(self.shared)}
        first = [min(place[name] for name in _names(groups, own)) for own in regions]
        order = sorted(range(len(regions)), key=first.__getitem__)
        edges = self.edges({name: r for r, own in enumerate(regions) for name in _names(groups, own)})
        if all(first[a] < first[b] for a, b in edges):
            return order
        import networkx  # slow to import, and seldom needed

        graph = networkx.DiGraph(edges)
        graph.add_nodes_from(order)
        return list(networkx.lexicographical_topological_sort(graph, key=first.__getitem__))


def _leads(edges: set[tuple[int, int]], start: int, end: int) -> bool:
    """Does kernel `end` need, through whichever others, what kernel `start` makes?"""
    if (start, end) in edges or not any(b == end for _, b in edges):
        return (start, end) in edges
    if end < start and all(a < b for a, b in edges):
        return False
    import networkx

    graph = networkx.DiGraph(edges)
    return start in graph and bool(networkx.has_path(graph, start, end))


def _joined(known: _Known) -> list[Group]:
    """Each Compute in the kernel of one that it reads, the one from which it reads most, else in one of its own."""
    members: list[list[Compute]] = []
    whys: list[list[str]] = []
    where: dict[str, int] = {}
    for name, c in known.shared.items():
        read = [b for b in known.reads[name] if b in where]
        most = {n: sum(known.bytes[b] for b in read if where[b] == n) for n in {where[b] for b in read}}
        cuts = []
        for n in sorted(most, key=lambda n: (most[n], n), reverse=True):
            why, joins = _joins(known, c, members[n])
            if joins and not any(_leads(known.edges(where), n, other) for other in most if other != n):
                members[n].append(c)
                whys[n].append(why)
                where[name] = n
                break
            cuts.append(why if not joins else f"reads what others make of {members[n][0].name} too")
        else:
            where[name] = len(members)
            members.append([c])
            whys.append([f"cut: {cuts[0]}" if cuts else "reads inputs only"])
    return [Group(tuple(c.name for c in own), "; ".join(dict.fromkeys(why))) for own, why in zip(members, whys)]


# ---- what may go another way ----


def _offers(known: _Known, groups: Sequence[Group]) -> Iterator[Offer]:
    """Groups that might share a kernel, and kernels that might be two; no group twice. Groups next to each other can
    always be one; of others this is asked of the graph."""
    free = set(range(len(groups)))
    regions: list[tuple[int, ...]] = []
    for find in (_chain, _behind):
        for n in range(len(groups)):
            if n in free and (offer := find(known, groups, n, free)):
                free -= set(offer[0])
                regions.append(offer[0])
                yield offer
    for n in range(len(groups)):
        if n in free and (offer := _siblings(known, groups, n, free, regions)):
            free -= set(offer[0])
            regions.append(offer[0])
            yield offer
    for n in sorted(free):
        first, *rest = groups[n].names
        if rest and known.contracts(known.shared[first]):
            why = f"apart from {first}, to which it is an epilogue"
            yield (n,), (Group((first,), _cut(groups[n])), Group(tuple(rest), why)), 0


def _names(groups: Sequence[Group], own: Sequence[int]) -> list[str]:
    return [name for n in own for name in groups[n].names]


def _cut(group: Group) -> str:
    """Why a kernel begins here."""
    return group.why.partition(";")[0]


def _chain(known: _Known, groups: Sequence[Group], n: int, free: set[int]) -> Offer | None:
    """The longest run of groups from this one on whose arrays in between are at least half of all that goes in and
    out; taken where they are more than that."""
    found: Offer | None = None
    for end in range(n + 2, len(groups) + 1):
        own = tuple(range(n, end))
        names = _names(groups, own)
        if not free.issuperset(own) or len(names) > MAX_STAGES or not known.rowwise(names):
            break
        between = {b for m in own for b in known.part(groups[m].names).outputs} - set(known.part(names).outputs)
        moved, saved = known.moved(names), sum(known.bytes[b] for b in between)
        if 2 * saved > moved and known.by_blocks(names) and (saved > moved or not found or not found[2]):
            why = f"chain of {len(own)} kernels: {size(saved)} in between, {size(moved)} in and out"
            found = own, (Group(known.sorted(names), f"{_cut(groups[n])}; {why}"),), int(saved > moved)
    return found


def _behind(known: _Known, groups: Sequence[Group], n: int, free: set[int]) -> Offer | None:
    """A contraction and the stages along its rows that follow it."""
    own = (n, n + 1)
    if n + 1 >= len(groups) or not free.issuperset(own):
        return None
    first, rest = (known.part(groups[m].names) for m in own)
    near = {b.name for b in rest.inputs} & set(first.outputs)
    if not near or not known.contracts(first.computes[0]) or any(map(known.contracts, rest.computes)):
        return None
    names = _names(groups, own)
    if len(names) > MAX_STAGES or not known.rowwise(names):
        return None
    why = f"rows behind a contraction: {', '.join(sorted(near))} stays near"
    return own, (Group(known.sorted(names), f"{_cut(groups[n])}; {why}"),), 0


def _siblings(
    known: _Known, groups: Sequence[Group], n: int, free: set[int], regions: Sequence[tuple[int, ...]]
) -> Offer | None:  # fmt: skip
    """This group and later ones of its kind that read an input of it row by row alike, and nothing of each other."""
    own: tuple[int, ...] = (n,)
    inputs = [{b.name for b in known.part(g.names).inputs if b.size > 1} for g in groups]
    kinds = [known.contracts(known.shared[g.names[0]]) for g in groups]
    for m in sorted(free):
        names = _names(groups, (*own, m))
        alike = m > n and kinds[m] == kinds[n] and inputs[m] & inputs[n]
        fits = alike and len(names) <= MAX_STAGES and (kinds[n] or all(map(known.runs, names)))
        if fits and known.rowwise(names) and _independent(known, groups, regions, (*own, m)):
            own = (*own, m)
    if len(own) == 1:
        return None
    joined = known.sorted(_names(groups, own))
    apart = sum(known.bytes[b] for m in own for b in inputs[m])
    together = sum(known.bytes[b] for b in set[str]().union(*(inputs[m] for m in own)))
    why = f"siblings: read {size(together)} together, {size(apart)} apart"
    return own, (Group(joined, f"{_cut(groups[n])}; {why}"),), 1


def _independent(
    known: _Known, groups: Sequence[Group], regions: Sequence[tuple[int, ...]], own: tuple[int, ...]
) -> bool:  # fmt: skip
    """None of these groups needs another of them, with the groups of each region as one."""
    joined = {m: -1 - r for r, region in enumerate(regions) for m in region}
    where = {name: joined.get(m, m) for m, g in enumerate(groups) for name in g.names}
    edges = known.edges(where)
    return not any(_leads(edges, a, b) for a in own for b in own if a != b)


def _much(known: _Known, names: Sequence[str]) -> bool:
    operations = [node for name in names for node in distinct(known.shared[name].body) if isinstance(node, Op)]
    return len(operations) >= MUCH or any(node.name in HEAVY for node in operations)


# ---- what always shares a kernel ----


def _joins(known: _Known, c: Compute, group: list[Compute]) -> tuple[str, bool]:
    """Whether a Compute joins a group, and why or why not."""
    first = group[0]
    if len(group) >= MAX_STAGES:
        return f"a kernel has {MAX_STAGES} stages at most", False
    if table := {source.buffer for source, *_ in gathers(c.body)} & {g.name for g in group}:
        return f"gathers from {sorted(table)[0]}, which is finished before", False
    if known.contracts(first):
        if known.contracts(c):
            return f"a contraction behind {first.name}", False
        if not _pointwise(c, first, {g.name for g in group}):
            return f"reads {first.name} otherwise than point by point", False
        return f"{c.name} joins {first.name}: reads it point by point (epilogue)", True
    if any(map(known.contracts, (*group, c))):
        return "a contraction, which uses its operands many times", False
    why = _not_rowwise([*group, c])
    return why or f"stages of {first.name} run row by row", not why


def _not_rowwise(members: list[Compute]) -> str:
    """"" where all have the same outer axes, what passes between them is read at the same row, and no row reduces over
    rows; else why not."""
    rows = 0
    for names in zip(*([a.name for a in m.axes] for m in members)):
        if len(set(names)) != 1:
            break
        rows += 1
    common = {a.name for a in members[0].axes[:rows]}
    made = {m.name: m for m in members}
    for m in members:
        for ld in loads(m.body):
            if ld.buffer in made and any(
                index.single() != axis.name
                for index, axis in zip(ld.index, made[ld.buffer].axes) if axis.name in common
            ):  # fmt: skip
                return f"reads other rows of {ld.buffer}"
    if not rows:
        return f"has no rows in common with {members[0].name}"
    over = next((m for m in members if {a.name for a in m.reduce_axes} & common), None)
    return f"{over.name} reduces over the rows" if over else ""


def reuses_operands(c: Compute) -> bool:
    """A reduction with an operand that several results share: every element of it is read many times."""
    if c.combiner is None:
        return False
    reduced = {a.name for a in c.reduce_axes if a.extent > 1}
    results = {a.name for a in c.axes if a.extent > 1}
    for ld in loads(c.body):
        used = _used(ld)
        if used & reduced and results - used:
            return True
    return False


def slides(c: Compute) -> bool:
    """A reduction of windows of an operand that moves with every axis of the result: neighbours share what they read
    of it, and nothing else is worth keeping near."""
    reduced = {a.name for a in c.reduce_axes if a.extent > 1}
    results = {a.name for a in c.axes if a.extent > 1}
    return c.combiner is not None and any(
        results <= _used(ld) and any(i.names() & reduced and i.names() & results for i in ld.index)
        for ld in loads(c.body)
    )


def _pointwise(c: Compute, first: Compute, group: set[str]) -> bool:
    """A plain store over the very axes of `first`, reading it (and nothing else of the group) at its own point."""
    if c.combiner is not None or [a.name for a in c.axes] != [a.name for a in first.axes]:
        return False
    own = [ld for ld in loads(c.body) if ld.buffer in group]
    return all(ld.buffer == first.name and ld.index == first.index for ld in own)


def _used(ld: Load) -> frozenset[str]:
    found: frozenset[str] = frozenset()
    index: Affine
    for index in ld.index:
        found |= index.names()
    return found
