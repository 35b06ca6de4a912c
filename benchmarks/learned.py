"""Whether trees learn more from the model's terms than the model says: each recorded space predicted by LightGBM
trained on all others, beside the model and its fitted coefficients.

`python -m benchmarks.learned [--spaces DIR]`; needs the extra `learn`. "residual" learns the logarithm of measured over
predicted, "rank" the order within a space. Features: the price beside the least of the space, and each term's share.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from autotune.search.correction import fit, judged
from autotune.search.metrics import TIE, Array, pairwise, peak
from autotune.search.recorded import Space, load

from .search import HERE, table

TREES = {"n_estimators": 60, "learning_rate": 0.05, "num_leaves": 7, "min_child_samples": 30, "verbose": -1,
         "n_jobs": 1, "random_state": 0}  # fmt: skip
FAR = 1.0  # of the logarithm: slower points are all alike to a search
GRADES = 16
KEYS = ("peak@1", "peak@5", "peak@8", "pairwise")


def features(space: Space, terms: Sequence[str]) -> tuple[Array, Array]:
    """Of the points that a search may pick: features, and the logarithm of the time over the optimum."""
    rows = [row for row in space.seconds if row[0] >= 0 and not space.why(row)]
    priced = space.whole.priced
    least = min(float(priced[n].seconds[at]) for n, at in rows)
    x = []
    for n, at in rows:
        price, known = float(priced[n].seconds[at]), priced[n].explain(at)
        x.append([np.log(price / least), *(known.get(term, 0.0) / price for term in terms)])
    return np.array(x), np.log([space.seconds[row] / space.optimum for row in rows])


def residual(seen: Sequence[tuple[Array, Array]], x: Array) -> Array:
    from lightgbm import LGBMRegressor

    given = np.concatenate([a for a, _ in seen])
    errors = np.concatenate([np.minimum(t, FAR) - np.minimum(a[:, 0], FAR) for a, t in seen])
    weights = np.concatenate([np.full(len(t), 1 / len(t)) for _, t in seen])  # every space counts alike
    return np.asarray(x[:, 0] + LGBMRegressor(**TREES).fit(given, errors, sample_weight=weights).predict(x))


def rank(seen: Sequence[tuple[Array, Array]], x: Array) -> Array:
    from lightgbm import LGBMRanker

    given = np.concatenate([a for a, _ in seen])
    grades = np.concatenate([np.round(GRADES * (1 - np.clip(t, 0, FAR) / FAR)) for _, t in seen]).astype(int)
    gains = list(range(GRADES + 1))
    made = LGBMRanker(label_gain=gains, **TREES).fit(given, grades, group=[len(t) for _, t in seen])
    return -np.asarray(made.predict(x))


def compared(spaces: Sequence[Space]) -> dict[str, list[dict[str, float]]]:
    """Scores of each way to predict, by space."""
    terms = sorted({t for s in spaces for p in s.whole.priced for t in p.terms})
    rows = [features(s, terms) for s in spaces]
    learners: dict[str, Callable[[Any, Array], Array]] = {"residual": residual, "rank": rank}
    out: dict[str, list[dict[str, float]]] = {name: [] for name in ("model", "fitted", *learners)}
    for n, s in enumerate(spaces):
        others = [o for o in spaces if o is not s]
        out["model"].append(judged(s))
        out["fitted"].append(judged(s, fit(others)))
        x, t = rows[n]
        for name, learn in learners.items():
            predicted, measured = learn([row for k, row in enumerate(rows) if k != n], x), np.exp(t)
            found = {f"peak@{k}": peak(predicted, measured, k) for k in (1, 5, 8)}
            out[name].append(found | {"pairwise": pairwise(predicted, measured, max(TIE, s.noise))})
    return out


def main() -> int:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--spaces", type=Path, default=HERE)
    given = parser.parse_args()
    try:
        import lightgbm  # noqa: F401
    except ImportError as error:
        print(f"LightGBM is not here ({error}): pip install 'autotune-kernels[learn]'", file=sys.stderr)
        return 1
    found = compared([load(path) for path in sorted(given.spaces.glob("*.json.xz"))])
    lines = [["", *KEYS, "least@8"]]
    for name, scores in found.items():
        means = [f"{np.exp(np.mean(np.log([s[key] for s in scores]))):.3f}" for key in KEYS]
        lines.append([name, *means, f"{min(s['peak@8'] for s in scores):.3f}"])
    print("geometric means, each space predicted from the others:")
    for line in table(lines):
        print(line)
    return 0


if __name__ == "__main__":
    sys.exit(main())
