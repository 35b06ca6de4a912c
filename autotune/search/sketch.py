"""Sketch: a schedule with holes. It lists its legal points as columns of integers, prices all of them at once, and
turns one point into the steps of a schedule. No nest is built here."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, fields, replace
from typing import Any, Protocol, cast

import numpy as np
from numpy.typing import NDArray

from ..ir.schedule import Schedule
from ..ir.steps import Split, Step, Unroll, Vectorize

Column = NDArray[np.float64]
Columns = dict[str, NDArray[np.int64]]
Point = Mapping[str, int]


@dataclass(frozen=True)
class Priced:
    """Points with their predicted seconds, split into named terms (each a column; they add up or overlap as the model
    says). `why`, of a sketch that was asked not to prune: the rule that would have left a point out, "" if none."""

    columns: Columns
    seconds: Column
    terms: dict[str, Column] = field(default_factory=dict)
    rejected: dict[str, int] = field(default_factory=dict)
    why: NDArray[np.str_] | None = None

    def take(self, rows: NDArray[Any]) -> Priced:
        """Some of the points, chosen by index or mask."""
        columns, terms = ({k: c[rows] for k, c in part.items()} for part in (self.columns, self.terms))
        why = None if self.why is None else self.why[rows]
        return Priced(columns, self.seconds[rows], cast(dict[str, Column], terms), self.rejected, why)

    def point(self, row: int) -> dict[str, int]:
        return {name: int(column[row]) for name, column in self.columns.items()}

    def explain(self, row: int) -> dict[str, float]:
        return {name: float(column[row]) for name, column in self.terms.items()}


class Sketch(Protocol):
    """`name` identifies the sketch among those of one program; `points` are priced for one device and number of
    threads."""

    @property
    def name(self) -> str: ...

    def priced(self) -> Priced: ...

    def schedule(self, point: Point) -> Schedule: ...


def vectorized(stage: str, loop: str, lanes: int) -> list[Step]:
    """Cut a loop of constant extent into vectors and expand the rest."""
    return [Split(stage, loop, lanes), Unroll(stage, f"{loop}.0"), Vectorize(stage, f"{loop}.1", lanes)]


def grid(**holes: tuple[int, ...]) -> Columns:
    """The product of all holes' values, one column a hole."""
    mesh = np.meshgrid(*(np.array(values, dtype=np.int64) for values in holes.values()), indexing="ij")
    return {name: column.ravel() for name, column in zip(holes, mesh)}


def unpruned(sketch: Sketch) -> Sketch:
    """The sketch with every legal point, those too that it leaves out because they are not thought to be worth a
    trial."""
    known: Any = sketch
    return replace(known, pruned=False) if any(f.name == "pruned" for f in fields(known)) else sketch


def broken(rules: Mapping[str, NDArray[np.bool_]]) -> NDArray[np.str_]:
    """For each point the first rule that it breaks, "" if none."""
    names = [*rules]
    return np.select([~rules[name] for name in names], names, "").astype(np.str_)


def select(columns: Columns, keep: NDArray[Any]) -> Columns:
    return {name: column[keep] for name, column in columns.items()}


def unique(columns: Columns) -> NDArray[np.int64]:
    """The first of points that differ in nothing. (np.unique would import numpy.ma, which costs more than the
    ranking.)"""
    key = np.zeros(len(next(iter(columns.values()))), dtype=np.uint64)
    for column in columns.values():
        key = (key ^ column.astype(np.uint64)) * np.uint64(0x9E3779B97F4A7C15) + np.uint64(0x7F4A7C15)
    order = np.argsort(key, kind="stable")
    first = np.ones(len(key), dtype=bool)
    first[1:] = key[order][1:] != key[order][:-1]
    return np.sort(order[first])


def ceil_div(a: NDArray[np.int64] | int, b: NDArray[np.int64] | int) -> NDArray[np.int64]:
    return -(-np.asarray(a, dtype=np.int64) // np.asarray(b, dtype=np.int64))
