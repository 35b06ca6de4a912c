"""Optuna's samplers over the ranks of the holes' values: a tree of Parzen estimators, or CMA-ES.

What a sampler suggests need not be legal or new: the nearest point that is both is tried, and the sampler is told what
that one took. CMA-ES wants one kind of vector, so it searches the sketch that the model likes best.
"""

from __future__ import annotations

import warnings
from collections.abc import Sequence

import numpy as np
import optuna

from ...ir.errors import UsageError
from ..ranking import Candidate, Ranking
from . import Told
from .points import Points

FAILED = 1e6  # seconds: worse than anything


class Sampled:
    def __init__(
        self, name: str, ranking: Ranking, seeds: Sequence[Candidate], seed: int, study: str | None = None
    ) -> None:
        self.points, self.first, self.rng = Points(ranking), list(seeds), np.random.default_rng(seed)
        self.sketches = self.points.sketches
        if name == "cma" and self.sketches:
            self.sketches = [min(self.sketches, key=lambda n: float(ranking.priced[n].seconds.min()))]
        optuna.logging.set_verbosity(optuna.logging.WARNING)
        title = f"{name} {ranking.program.digest}"
        try:
            self.study = optuna.create_study(storage=study, study_name=title, load_if_exists=study is not None)
            # Who joins a study must not suggest what another began with.
            seed += len(self.study.get_trials(deepcopy=False))
            self.study.sampler = _sampler(name, seed)
        except ImportError as error:
            need = f"{error.name or error}: pip install 'autotune-kernels[search]'"
            raise UsageError(f"the strategy {name!r} needs {need}") from error
        except Exception as error:  # whatever the storage's driver raises
            if study is None:
                raise
            raise UsageError(f"the study {study!r} cannot be opened: {error}") from error
        self.open: dict[tuple[int, int], optuna.Trial] = {}

    def ask(self, n: int) -> list[Candidate]:
        out, self.first = self.first[:n], self.first[n:]
        while len(out) < n and self.sketches and len(self.points):
            trial = self.study.ask()
            sketch = self.sketches[0]
            if len(self.sketches) > 1:
                sketch = int(trial.suggest_categorical("sketch", self.sketches))
            at = [
                trial.suggest_int(f"{sketch}.{hole}", 0, int(size) - 1)
                for hole, size in zip(self.points.holes[sketch], self.points.sizes[sketch]) if size > 1
            ]  # fmt: skip
            vector = np.zeros(len(self.points.sizes[sketch]))
            vector[self.points.sizes[sketch] > 1] = at
            row = self.points.near(sketch, vector)
            if row is None:  # all of that sketch is known: any point of another one
                self.study.tell(trial, state=optuna.trial.TrialState.FAIL)
                drawn = self.points.draw(self.rng) if len(self.sketches) > 1 else None
                if drawn is None:
                    break
                out.append(self.points.take(*drawn, "random"))
                continue
            self.open[sketch, row] = trial
            out.append(self.points.take(sketch, row, "sampled"))
        return out

    def tell(self, results: Sequence[Told]) -> None:
        for r in results:
            self.points.mark(r.candidate)
            if (trial := self.open.pop((r.candidate.sketch, r.candidate.row), None)) is not None:
                self.study.tell(trial, min(r.seconds, FAILED))


def _sampler(name: str, seed: int) -> optuna.samplers.BaseSampler:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", optuna.exceptions.ExperimentalWarning)
        if name == "tpe":
            return optuna.samplers.TPESampler(seed=seed, multivariate=True, group=True, constant_liar=True)
        import cmaes  # noqa: F401

        return optuna.samplers.CmaEsSampler(seed=seed, warn_independent_sampling=False)
