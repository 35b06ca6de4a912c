"""Sketch: a schedule with holes. It lists its legal points as columns of integers, prices all of them at once, and
turns one point into the steps of a schedule. No nest is built here."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Protocol

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
    says)."""

    columns: Columns
    seconds: Column
    terms: dict[str, Column] = field(default_factory=dict)
    rejected: dict[str, int] = field(default_factory=dict)

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


def select(columns: Columns, keep: NDArray[np.bool_]) -> Columns:
    return {name: column[keep] for name, column in columns.items()}


def unique(columns: Columns) -> Columns:
    """Drop points that differ in nothing. (np.unique would import numpy.ma, which costs more than the ranking.)"""
    key = np.zeros(len(next(iter(columns.values()))), dtype=np.uint64)
    for column in columns.values():
        key = (key ^ column.astype(np.uint64)) * np.uint64(0x9E3779B97F4A7C15) + np.uint64(0x7F4A7C15)
    order = np.argsort(key, kind="stable")
    first = np.ones(len(key), dtype=bool)
    first[1:] = key[order][1:] != key[order][:-1]
    return {name: column[np.sort(order[first])] for name, column in columns.items()}


def ceil_div(a: NDArray[np.int64] | int, b: NDArray[np.int64] | int) -> NDArray[np.int64]:
    return -(-np.asarray(a, dtype=np.int64) // np.asarray(b, dtype=np.int64))
