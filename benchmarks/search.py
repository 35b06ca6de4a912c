"""Strategies and the cost model, judged on spaces that were measured point by point: no device, no noise.

`python -m benchmarks.search [--spaces DIR] [--seeds N] [--strategies a,b] [--json FILE]`. "Fraction" is the optimum
over the best that was found, 1 at best; the optimum is that of the points that a search may pick.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from copy import copy
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np

from autotune.devices.records import Policy, Status, median
from autotune.search.correction import judged
from autotune.search.metrics import Array, expected
from autotune.search.ranking import Candidate, Ranking
from autotune.search.recorded import Simulated, Space, load
from autotune.search.strategies import NAMES, make
from autotune.search.tune import Tuner

HERE = Path(__file__).resolve().parent / "results" / "spaces"
GUIDED = ("default", "greedy")  # these know the model; the others begin at a random point
BLIND = "default, no model"
TRIALS, NEAR = 100, 1.03
FOREVER = 1e9
MOMENTS = 20  # of the curve over time
CUT = 0.95  # the curve ends where a random search has come so far from the median to the optimum


@dataclass(frozen=True)
class Run:
    """One simulated search: what each trial took (infinite where it failed), and when it was over."""

    seconds: tuple[float, ...]
    elapsed: tuple[float, ...]

    @cached_property
    def best(self) -> Array:
        return np.minimum.accumulate(np.array(self.seconds))

    def after(self, trials: int) -> float:
        """The best of the first trials."""
        return float(self.best[min(trials, len(self.best)) - 1])

    def at(self, moments: Array, otherwise: float) -> Array:
        """The best by each moment, `otherwise` before the first has a time."""
        place = np.searchsorted(np.array(self.elapsed), moments, side="right") - 1
        found = np.where(place >= 0, self.best[np.maximum(place, 0)], np.inf)
        return np.where(np.isfinite(found), found, otherwise)

    def until(self, limit: float) -> float:
        """Trials until something within `limit` is found; infinite where it never was."""
        hits = np.flatnonzero(self.best <= limit)
        return float(hits[0] + 1) if len(hits) else float("inf")


def search(
    space: Space, strategy: str, seed: int, trials: int | None = TRIALS, budget: float = FOREVER
) -> Run:
    """A search of a recorded space by the tuner itself."""
    measurer = Simulated(space)
    default = space.default() if strategy in GUIDED else _anywhere(space, seed)
    ranking = blind(space.ranking, seed) if strategy == BLIND else space.ranking
    made = make("default" if strategy == BLIND else strategy, ranking, seed=seed)
    tuner = Tuner(ranking, None, measurer, Policy(), budget, trials, made, clock=measurer.clock)
    outcome = tuner.run(default)
    rows = [
        (r.seconds if t.build.ok and (r := space.of(t.candidate)) is not None else float("inf"), t.elapsed)
        for t in outcome.trials
    ]
    return Run(tuple(s for s, _ in rows), tuple(e for _, e in rows))


def blind(ranking: Ranking, seed: int) -> Ranking:
    """The same points with prices drawn at random: what a strategy is worth without its model."""
    draw, part = np.random.default_rng(seed), copy(ranking)
    part.__dict__.pop("_order", None)
    part.__dict__["priced"] = [replace(p, seconds=draw.random(len(p.seconds))) for p in ranking.priced]
    return part


def _anywhere(space: Space, seed: int) -> Candidate:
    """A point with a time, of those that a search may pick."""
    rows = [(n, at) for n, p in enumerate(space.ranking.priced) for at in range(len(p.seconds))]
    order = np.random.default_rng(seed + 1000).permutation(len(rows))
    drawn = (space.ranking.candidate(rows[k][0], rows[k][1], "random") for k in order)
    return next(c for c in drawn if (r := space.of(c)) is not None and r.status is Status.OK)


# ---- the model ----


def pruning(space: Space) -> tuple[float, str, int]:
    """What the rules of thumb do to a space: the best point they leave out over the best they keep (below 1: they have
    removed the optimum), by which rule; and how many points they leave out."""
    found = space.pruned()
    rule = min(found, key=lambda name: found[name][1], default="")
    return found[rule][1] if rule else float("inf"), rule, sum(count for count, _ in found.values())


# ---- strategies ----


def curve(space: Space, runs: Sequence[Run], random: Sequence[Run]) -> float:
    """Kernel Tuner's score P_t, averaged over time: how much of the way from what a random search has found by then to
    the optimum is done; 0 as good as random, 1 always at the optimum (arXiv 2509.26300). The random search is the
    expected one; `random` are some real ones, which say how many trials it has made by then."""
    rows = [row for row in space.results if not space.why(row) and row[0] >= 0]
    times = np.array([space.seconds[row] for row in rows if row in space.seconds])
    best, middle = expected(times), float(np.median(times))
    least = int(np.flatnonzero(best <= middle - CUT * (middle - space.optimum))[0]) + 1  # trials that the goal takes
    least = max(least, MOMENTS)
    end = mean([r.elapsed[min(least, len(r.elapsed)) - 1] for r in random])
    moments = np.linspace(0, end, MOMENTS + 1)[1:]
    trials = np.mean([np.searchsorted(np.array(r.elapsed), moments, side="right") for r in random], axis=0)
    base = np.interp(trials, np.arange(len(best) + 1), [best[0], *best])
    found = np.mean([r.at(moments, float(best[0])) for r in runs], axis=0)
    return float(np.mean((base - found) / np.maximum(base - space.optimum, 1e-3 * space.optimum)))


def mean(values: Sequence[float]) -> float:
    return sum(values) / len(values)


def table(rows: Sequence[Sequence[str]]) -> Iterator[str]:
    widths = [max(len(r[n]) for r in rows) for n in range(len(rows[0]))]
    for row in rows:
        yield "  ".join(c.ljust(w) if n == 0 else c.rjust(w) for n, (c, w) in enumerate(zip(row, widths))).rstrip()


def judge(
    spaces: Sequence[Space], names: Sequence[str], seeds: int, say: Callable[[str], object] = print
) -> dict[str, Any]:
    """Everything, as tables and as data."""
    rows = [["space", "points", "peak@1", "peak@5", "peak@8", "pairwise", "left out", "best of these", "by rule"]]
    model: dict[str, Any] = {}
    for s in spaces:
        ratio, rule, left_out = pruning(s)
        model[s.name] = {
            "points": sum(not s.why(row) for row in s.seconds), **judged(s), "left_out": left_out,
            "pruning_ratio": min(ratio, FOREVER), "rule": rule,
            "failed": sum(r.status is not Status.OK for r in s.results.values()),
        }  # fmt: skip
        m = model[s.name]
        rows.append([s.name, str(m["points"]), *(f"{m[f'peak@{k}']:.3f}" for k in (1, 5, 8)), f"{m['pairwise']:.3f}",
                     str(left_out), f"{ratio:.3f}" if left_out else "-", rule])  # fmt: skip
    keys = ("peak@1", "peak@5", "peak@8", "pairwise")
    rows.append(["mean", "", *(f"{mean([m[k] for m in model.values()]):.3f}" for k in keys), "", "", ""])
    for line in table(rows):
        say(line)
    lost = [name for name, m in model.items() if m["pruning_ratio"] < 1 / NEAR]
    say(f"rules of thumb removed a point better than all others by more than 3 % in {len(lost)} of {len(spaces)} spaces"
        + (f": {', '.join(lost)}" if lost else ""))  # fmt: skip
    base = {s.name: [search(s, "random", seed) for seed in range(seeds)] for s in spaces}
    head = [["strategy", "fraction@30", "least@30", "fraction@100", "least@100", "P_t", "trials to 3 %", "not reached"]]
    found: dict[str, Any] = {}
    for name in names:
        runs = {s.name: _runs(s, name, seeds, base[s.name]) for s in spaces}
        at = {n: [mean([s.optimum / r.after(n) for r in runs[s.name]]) for s in spaces] for n in (30, TRIALS)}
        until = [r.until(NEAR * s.optimum) for s in spaces for r in runs[s.name]]
        found[name] = {
            "fraction@30": mean(at[30]), f"fraction@{TRIALS}": mean(at[TRIALS]), "least@30": min(at[30]),
            "least@100": min(at[TRIALS]), "P_t": mean([curve(s, runs[s.name], base[s.name]) for s in spaces]),
            "trials_to_3%": sorted(min(u, FOREVER) for u in until)[len(until) // 2],
            "not_reached": sum(u == float("inf") for u in until) / len(until),
            "spaces": {
                s.name: {
                    "fraction@30": a, "fraction@100": b,
                    "trials_to_3%": median(min(r.until(NEAR * s.optimum), FOREVER) for r in runs[s.name]),
                }
                for s, a, b in zip(spaces, at[30], at[TRIALS])
            },
        }  # fmt: skip
        f = found[name]
        reach = f["trials_to_3%"]
        head.append([name, f"{f['fraction@30']:.3f}", f"{f['least@30']:.3f}", f"{f['fraction@100']:.3f}",
                     f"{f['least@100']:.3f}", f"{f['P_t']:.3f}", f"{reach:.0f}" if reach < FOREVER else "-",
                     f"{100 * f['not_reached']:.0f} %"])  # fmt: skip
    say("")
    for line in table(head):
        say(line)
    prior = _prior(spaces, found, say) if {"default", BLIND} <= found.keys() else None
    return {"model": model, "strategies": found, "prior": prior}


def _prior(spaces: Sequence[Space], found: Mapping[str, Any], say: Callable[[str], object]) -> dict[str, Any]:
    """What the model saves: trials to within 3 % of each optimum with it, without it, and of a random search."""
    names = ("default", BLIND, "random") if "random" in found else ("default", BLIND)
    rows = {s.name: [found[n]["spaces"][s.name]["trials_to_3%"] for n in names] for s in spaces}
    fewer = [median(row[k] / row[0] for row in rows.values()) for k in range(1, len(names))]
    say("")
    for line in table([["trials to 3 %", *names], *([n, *(f"{t:.0f}" for t in row)] for n, row in rows.items())]):
        say(line)
    times = ", ".join(f"{ratio:.1f} times fewer than {name}" for ratio, name in zip(fewer, names[1:]))
    say(f"with the model, at the median over programs, {times}")
    return {"trials_to_3%": rows, "fewer": dict(zip(names[1:], fewer))}


def _runs(space: Space, name: str, seeds: int, base: list[Run]) -> list[Run]:
    if name == "random":
        return base
    return [search(space, name, seed) for seed in range(1 if name in GUIDED else seeds)]  # the guided draw nothing


def main() -> int:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--spaces", type=Path, default=HERE)
    parser.add_argument("--seeds", type=int, default=9)
    parser.add_argument("--strategies", help=f"a,b (all, and '{BLIND}')")
    parser.add_argument("--json", type=Path)
    given = parser.parse_args()
    paths = sorted(given.spaces.glob("*.json.xz"))
    if not paths:
        print(f"no space in {given.spaces}: python -m benchmarks.spaces record", file=sys.stderr)
        return 1
    spaces = [load(path) for path in paths]
    for s in spaces:
        if s.strangers:
            print(f"{s.name}: {s.strangers} recorded points are of another version of the sketches", file=sys.stderr)
    result = judge(spaces, given.strategies.split(",") if given.strategies else [*NAMES, BLIND], given.seeds)
    if given.json:
        given.json.write_text(json.dumps(result, indent=1) + "\n", "utf-8")
    return 0


if __name__ == "__main__":
    sys.exit(main())
