"""A graph of kernels drawn as SVG: layers from top to bottom, so that data flows down, with few crossings.

Nodes go where the longest way to them ends; an edge over several layers gets a place in each. The order within a layer
and the places follow the means of the neighbours (K. Sugiyama et al., 1981). Knows boxes and lines, no kernels.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from html import escape
from typing import Any

LETTER, LINE, PAD, GAP, LEVEL = 7.3, 16, 9, 26, 46  # pixels: a letter's width, a line, and what is between boxes
WIDEST = 44  # letters of a line
STYLE = """
.at-graph text { font: 12px ui-monospace, Menlo, Consolas, monospace; fill: #1d2733 }
.at-graph .head { font-weight: 600 }
.at-graph .label { font-size: 10px; fill: #66727f }
.at-graph .edge { fill: none; stroke: #9aa7b5; stroke-width: 1.4 }
.at-graph rect { stroke: #b9c4d0; fill: #fff }
.at-graph .torch rect { stroke-dasharray: 4 3; fill: #f3f4f6 }
""".strip()


@dataclass(frozen=True)
class Node:
    """A box with lines of text, the first one its title. `weight`: its time, in any unit; `link`: the number
    of the kernel that it shows; `kind`: "kernel", or "torch" for what other code computes."""

    key: str
    lines: tuple[str, ...]
    weight: float = 0.0
    link: int | None = None
    kind: str = "kernel"


@dataclass(frozen=True)
class Edge:
    """`source` is read by `target`; the label says what."""

    source: str
    target: str
    label: str = ""


@dataclass
class _Place:
    layer: int
    width: float
    height: float
    x: float = 0.0  # of the middle
    y: float = 0.0  # of the upper edge


def draw(nodes: Sequence[Node], edges: Sequence[Edge], title: str = "") -> str:
    """SVG text of an acyclic graph. Raises ValueError for an edge to a node that is not there, and for a cycle."""
    known = {node.key for node in nodes}
    if lost := [e for e in edges if not {e.source, e.target} <= known]:
        raise ValueError(f"edge {lost[0].source} -> {lost[0].target}: no such node")
    wires, places, layers = _layered(nodes, edges)
    _ordered(layers, wires)
    width, height = _placed(layers, places, wires)
    top = 30 if title else 6
    body = [*_lines(edges, wires, places), *_boxes(nodes, places)]
    head = f'<text class="head" x="12" y="20">{escape(title)}</text>' if title else ""
    size = f'width="{width:.0f}" height="{height + top:.0f}" viewBox="0 {-top} {width:.0f} {height + top:.0f}"'
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" class="at-graph" {size}><style>{STYLE}</style>'
        f'<g transform="translate(0 {-top})">{head}</g>{"".join(body)}</svg>\n'
    )


def _layered(
    nodes: Sequence[Node], edges: Sequence[Edge]
) -> tuple[dict[int, list[str]], dict[str, _Place], list[list[str]]]:
    """For each edge the keys that it passes, the places of all keys, and the keys of each layer."""
    import networkx

    graph: Any = networkx.DiGraph()
    graph.add_nodes_from(node.key for node in nodes)
    graph.add_edges_from((e.source, e.target) for e in edges)
    try:
        generations = [*networkx.topological_generations(graph)]
    except networkx.NetworkXUnfeasible:
        raise ValueError("the graph has a cycle") from None
    layer = {key: n for n, keys in enumerate(generations) for key in keys}
    for key in reversed([key for keys in generations for key in keys]):  # near its readers, where that is no longer way
        if graph.out_degree(key) >= max(graph.in_degree(key), 1):
            layer[key] = min(layer[other] for other in graph.successors(key)) - 1
    places = {node.key: _box(node, layer[node.key]) for node in nodes}
    wires: dict[int, list[str]] = {}
    for n, e in enumerate(edges):
        between = range(layer[e.source] + 1, layer[e.target])
        wires[n] = [e.source, *(f"{n}/{at}" for at in between), e.target]
        places |= {f"{n}/{at}": _Place(at, 10.0, 0.0) for at in between}
    layers: list[list[str]] = [[] for _ in generations]
    for key, place in places.items():
        layers[place.layer].append(key)
    return wires, places, [keys for keys in layers if keys]


def _box(node: Node, layer: int) -> _Place:
    letters = max(len(line[:WIDEST]) for line in node.lines)
    return _Place(layer, letters * LETTER + 2 * PAD, len(node.lines) * LINE + 2 * PAD - 4)


def _neighbours(wires: Mapping[int, Sequence[str]]) -> tuple[dict[str, list[str]], dict[str, list[str]]]:
    above: dict[str, list[str]] = {}
    below: dict[str, list[str]] = {}
    for wire in wires.values():
        for a, b in zip(wire, wire[1:]):
            below.setdefault(a, []).append(b)
            above.setdefault(b, []).append(a)
    return above, below


def _ordered(layers: list[list[str]], wires: Mapping[int, Sequence[str]]) -> None:
    """Sort each layer by the mean rank of its neighbours above, then below, a few times."""
    above, below = _neighbours(wires)
    for turn in range(8):
        near, whole = (above, layers) if turn % 2 == 0 else (below, layers[::-1])
        for before, keys in zip(whole, whole[1:]):
            rank = {key: n for n, key in enumerate(before)}
            now = {key: n for n, key in enumerate(keys)}
            keys.sort(key=lambda k: _mean([rank[o] for o in near.get(k, ()) if o in rank], now[k]))  # noqa: B023


def _mean(values: Sequence[float], default: float) -> float:
    return sum(values) / len(values) if values else default


def _placed(
    layers: Sequence[Sequence[str]], places: Mapping[str, _Place], wires: Mapping[int, Sequence[str]]
) -> tuple[float, float]:
    """Give every key its x and y; the size of all."""
    above, below = _neighbours(wires)
    for turn in range(12):
        whole = layers if turn % 2 == 0 else layers[::-1]
        for keys in whole:
            near = {k: [*above.get(k, ()), *below.get(k, ())] for k in keys}
            _spread(keys, places, [_mean([places[o].x for o in near[k]], places[k].x) for k in keys])
    left = min(p.x - p.width / 2 for p in places.values()) - 12
    y = 8.0
    for keys in layers:
        for key in keys:
            places[key].x, places[key].y = places[key].x - left, y
        tallest = max(places[k].height for k in keys)
        for key in keys:
            places[key].height = places[key].height or tallest
        y += tallest + LEVEL
    return max(p.x + p.width / 2 for p in places.values()) + 12, y - LEVEL + 12


def _spread(keys: Sequence[str], places: Mapping[str, _Place], wanted: Sequence[float]) -> None:
    """In this order and without overlap, each as near to where it wants to be as the squares of distances can be:
    neighbours that collide become one block, which goes to its mean."""
    blocks: list[tuple[float, int, list[float]]] = []  # where its first one wants to be, its members' offsets from it
    for n, want in enumerate(wanted):
        sums, count, offsets = want, 1, [0.0]
        while blocks:
            first, members, gaps = blocks[-1]
            last = keys[n - count]
            reach = gaps[-1] + (places[last].width + places[keys[n - count + 1]].width) / 2 + GAP
            if first / members + reach <= sums / count:
                break
            blocks.pop()
            sums, offsets = first + sums - count * reach, [*gaps, *(reach + o for o in offsets)]
            count += members
        blocks.append((sums, count, offsets))
    at = (total / count + offset for total, count, offsets in blocks for offset in offsets)
    for key, x in zip(keys, at):
        places[key].x = x


def _lines(edges: Sequence[Edge], wires: Mapping[int, Sequence[str]], places: Mapping[str, _Place]) -> Iterator[str]:
    yield ('<defs><marker id="at-tip" viewBox="0 0 8 8" refX="7" refY="4" markerWidth="7" markerHeight="7" '
           'orient="auto"><path d="M0 0L8 4L0 8z" fill="#9aa7b5"/></marker></defs>')  # fmt: skip
    told: dict[str, int] = {}
    for n, e in enumerate(edges):
        start, *inner, end = (places[key] for key in wires[n])
        x, y = start.x, start.y + start.height
        path = f"M{x:.1f} {y:.1f}"
        for p in (*inner, end):
            half = (p.y - y) / 2
            path += f"C{x:.1f} {y + half:.1f} {p.x:.1f} {p.y - half:.1f} {p.x:.1f} {p.y:.1f}"
            x, y = p.x, p.y + p.height
            path += f"L{x:.1f} {y:.1f}" if p is not end else ""
        yield f'<path class="edge" d="{path}" marker-end="url(#at-tip)"/>'
        if e.label and not inner:
            told[e.target] = told.get(e.target, 0) + 1
            across, down = 0.15 * start.x + 0.85 * end.x + 7, end.y + 1 - 12 * told[e.target]
            yield f'<text class="label" x="{across:.1f}" y="{down:.1f}">{escape(e.label)}</text>'


def _boxes(nodes: Sequence[Node], places: Mapping[str, _Place]) -> Iterator[str]:
    most = max((node.weight for node in nodes), default=0.0) or 1.0
    for node in nodes:
        p = places[node.key]
        left, share = p.x - p.width / 2, node.weight / most
        fill = f' style="fill: hsl(28 95% {97 - 22 * share:.0f}%)"' if node.kind == "kernel" else ""
        link = f' data-kernel="{node.link}" tabindex="0"' if node.link is not None else ""
        rows = "".join(
            f'<text class="{"head" if n == 0 else "line"}" x="{left + PAD:.1f}" y="{p.y + PAD + 8 + n * LINE:.1f}">'
            f"{escape(_cut(line))}</text>"
            for n, line in enumerate(node.lines)
        )
        whole = escape("\n".join(node.lines))
        yield (
            f'<g class="{node.kind}"{link}><title>{whole}</title><rect x="{left:.1f}" y="{p.y:.1f}" '
            f'width="{p.width:.1f}" height="{p.height:.1f}" rx="6"{fill}/>{rows}</g>'
        )


def _cut(line: str) -> str:
    return line if len(line) <= WIDEST else line[: WIDEST - 1] + "…"
