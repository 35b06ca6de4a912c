"""How much slower than the best a schedule that nobody measured may be: what others of its kind were.

A kind is where a pick comes from and what bounds it. Of each kind there is a list of picks that were measured beside a
tuned schedule; the promise is the least bound that a next one keeps with the stated confidence, if it is like those.
Knows kinds by name only.
"""

from __future__ import annotations

import json
import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path

CONFIDENCE = 0.9
FEW = 9  # picks of a kind, below which nothing can be promised with that confidence
FILE = Path(__file__).with_name("regret.json")
ANY = "any"


@dataclass(frozen=True)
class Promise:
    """A pick takes at most 1 + `bound` times the best schedule's time, with CONFIDENCE; from so many `picks` of its
    `kind`."""

    kind: str
    bound: float
    picks: int

    def __str__(self) -> str:
        return f"at most {100 * self.bound:.0f} % from the best, with {100 * CONFIDENCE:.0f} % confidence"


def kind(source: str, terms: Mapping[str, float]) -> str:
    """The kind of a pick: from the model, by whether memory is what its price is mostly made of; or `source` alone."""
    if not terms or source != "model":
        return source
    memory = terms.get("memory", 0.0)
    return f"{source}, {'memory' if memory >= sum(terms.values()) - memory else 'arithmetic'}"


def bound(regrets: Sequence[float], confidence: float = CONFIDENCE) -> float:
    """The least bound that one more value of the same distribution keeps with this confidence; infinite where there
    are too few to say (split conformal prediction)."""
    place = math.ceil((len(regrets) + 1) * confidence)
    return sorted(regrets)[place - 1] if place <= len(regrets) else math.inf


def promises(rows: Iterable[tuple[str, float]]) -> dict[str, Promise]:
    """The promise of each kind that there are enough picks of, and of any pick, from kinds and regrets."""
    found: dict[str, list[float]] = {ANY: []}
    for name, regret in rows:
        found.setdefault(name, []).append(regret)
        found[ANY].append(regret)
    return {n: Promise(n, bound(v), len(v)) for n, v in found.items() if bound(v) < math.inf}


def of(table: Mapping[str, Promise], name: str) -> Promise | None:
    """The promise for a pick of a kind; of any pick, where there is none."""
    return table.get(name) or table.get(ANY)


@cache
def shipped() -> Mapping[str, Promise]:
    """What `python -m benchmarks.zero fit` found."""
    rows = json.loads(FILE.read_text("utf-8"))["kinds"]
    return {name: Promise(name, float(row["bound"]), int(row["picks"])) for name, row in rows.items()}
