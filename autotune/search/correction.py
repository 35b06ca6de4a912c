"""A correction of the cost model for one device: coefficients, none below zero, of the model's price and of its terms.

Corrected seconds of a point are the sum of coefficient times term, by the name of the sketch. Knows terms by name only;
they are fitted to recorded spaces by relative error, what is near an optimum counting for more.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np

from ..ir.errors import CacheError
from .metrics import TIE, Array, pairwise, peak
from .recorded import Space
from .sketch import Column, Priced

FORMAT = 1
PRICE = "price"  # what the model says, as one term
TINY = 1e-6  # a coefficient that is left by rounding
LEAST = 24  # points of a sketch below which it keeps the model's price


@dataclass(frozen=True)
class Correction:
    """`device` is the digest of the hardware that it was fitted on; `coefficients`: sketch -> term -> factor."""

    device: str
    coefficients: Mapping[str, Mapping[str, float]]
    spaces: tuple[str, ...] = ()
    points: int = 0

    def apply(self, name: str, priced: Priced) -> Priced:
        """The points of a sketch with corrected seconds; as they were where nothing is known of its kind."""
        factors = self.coefficients.get(name)
        if not factors or set(factors) - {PRICE, *priced.terms}:
            return priced
        seconds: Column = np.zeros(len(priced.seconds))
        for term, factor in factors.items():
            seconds = seconds + factor * (priced.seconds if term == PRICE else priced.terms[term])
        return replace(priced, seconds=seconds)

    def to_json(self) -> dict[str, Any]:
        return {
            "format": FORMAT, "device": self.device, "coefficients": {k: dict(v) for k, v in self.coefficients.items()},
            "spaces": list(self.spaces), "points": self.points,
        }  # fmt: skip

    @staticmethod
    def from_json(value: Any) -> Correction:
        """What `to_json` wrote. Raises CacheError on anything else."""
        names = {"format", "device", "coefficients", "spaces", "points"}
        form = value.get("format") if isinstance(value, dict) else value
        if not isinstance(value, dict) or form != FORMAT:
            raise CacheError(f"a fitted model of format {form!r:.40}; this version of autotune reads {FORMAT}")
        if wrong := sorted(names ^ value.keys()):
            raise CacheError(f"field {wrong[0]!r:.40} is {'missing' if wrong[0] in names else 'unknown'}")
        found: dict[str, dict[str, float]] = {}
        try:
            for sketch, factors in value["coefficients"].items():
                found[str(sketch)] = {str(term): float(factor) for term, factor in factors.items()}
            spaces, points = tuple(map(str, value["spaces"])), int(value["points"])
        except (AttributeError, TypeError, ValueError) as error:
            raise CacheError(f"the coefficients cannot be read: {error}") from error
        rows = [f for factors in found.values() for f in factors.values()]
        if not all(0 <= f < math.inf for f in rows) or not all(any(v.values()) for v in found.values()):
            raise CacheError("a coefficient is below zero or infinite, or all of a sketch are zero")
        return Correction(str(value["device"]), found, spaces, points)


@dataclass
class _Samples:
    """Terms and measured seconds of one kind of sketch."""

    terms: list[dict[str, float]] = field(default_factory=list)
    measured: list[float] = field(default_factory=list)
    weights: list[float] = field(default_factory=list)


def fit(spaces: Sequence[Space]) -> Correction:
    """The coefficients that fit the spaces best. Raises CacheError where these are of several devices."""
    from scipy.optimize import nnls

    devices = {s.spec.digest for s in spaces}
    if len(devices) != 1:
        raise CacheError(f"a model is of one device, and these spaces are of {len(devices)}")
    found: dict[str, dict[str, float]] = {}
    points = 0
    for name, samples in _samples(spaces).items():
        if len(samples.measured) < LEAST:
            continue
        names = [PRICE, *samples.terms[0]]
        table = np.array([[row[n] for n in names] for row in samples.terms])
        scale = np.sqrt(samples.weights) / np.array(samples.measured)
        factors, _ = nnls(table * scale[:, None], np.array(samples.measured) * scale)
        if factors.any():
            found[name] = {n: float(f) for n, f in zip(names, factors) if f > TINY}
            points += len(samples.measured)
    return Correction(devices.pop(), found, tuple(s.name for s in spaces), points)


def _samples(spaces: Iterable[Space]) -> dict[str, _Samples]:
    out: dict[str, _Samples] = {}
    for space in spaces:
        times = {row: t for row, t in space.seconds.items() if row[0] >= 0}
        if not times:
            continue
        least = min(times.values())
        for (n, at), seconds in times.items():
            mine, priced = out.setdefault(space.whole.sketches[n].name, _Samples()), space.whole.priced[n]
            mine.terms.append({PRICE: float(priced.seconds[at]), **priced.explain(at)})
            mine.measured.append(seconds)
            mine.weights.append(least / seconds / len(times))  # every space counts alike
    return out


def predictions(space: Space, correction: Correction | None = None) -> tuple[Array, Array]:
    """Predicted and measured seconds of all points that a search may pick and that have a time."""
    priced = space.whole.priced
    if correction is not None:
        priced = [correction.apply(s.name, p) for s, p in zip(space.whole.sketches, priced)]
    rows = [row for row in space.seconds if row[0] >= 0 and not space.why(row)]
    predicted = np.array([float(priced[n].seconds[at]) for n, at in rows])
    return predicted, np.array([space.seconds[row] for row in rows])


def judged(space: Space, correction: Correction | None = None) -> dict[str, float]:
    """How well a space is predicted."""
    predicted, measured = predictions(space, correction)
    pairs = {"pairwise": pairwise(predicted, measured, max(TIE, space.noise)), "noise": space.noise}
    return {f"peak@{k}": peak(predicted, measured, k) for k in (1, 5, 8)} | pairs


def left_out(spaces: Sequence[Space]) -> dict[str, dict[str, float]]:
    """How well each space is predicted by what the others say."""
    return {s.name: judged(s, fit([o for o in spaces if o is not s])) for s in spaces}
