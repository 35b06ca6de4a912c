"""The model of devices with blocks beside what an H200 measured, and the memory that its first choices ask for."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from autotune.cli.run import program
from autotune.devices import device, gpu
from autotune.ir.banks import conflicts
from autotune.ir.collapse import normal_form
from autotune.ir.lower import lower
from autotune.ir.partition import partition
from autotune.search.ranking import Ranking
from benchmarks.archs import case
from benchmarks.gpu import spearman
from tests.kernels import kernels, softmax, spec

RECORDED = json.loads((Path(__file__).parents[2] / "benchmarks" / "results" / "h200.json").read_text("utf-8"))
ROWS = {row["case"]: row for row in RECORDED["shortlist"]["rows"]}
H200 = gpu.present("cuda", "NVIDIA", "NVIDIA H200", "sm_90", 0, 132, 1.98e9, 4.814e12, 62914560, 1024, 49152, 32)


def predicted(ranking: Ranking, point: dict[str, int]) -> float:
    """Seconds, of the sketch that has these holes."""
    for priced in ranking.priced:
        if point.keys() == priced.columns.keys():
            found = np.flatnonzero(np.logical_and.reduce([priced.columns[n] == v for n, v in point.items()]))
            return float(priced.seconds[found[0]])
    raise AssertionError(f"no sketch has the point {point}")


@pytest.mark.parametrize("name", ROWS)
def test_the_model_orders_what_was_measured(name: str) -> None:
    """On another day than the constants are of."""
    for kernel, found in zip(partition(program(case(name))).kernels, ROWS[name]["kernels"], strict=True):
        ranking = Ranking(normal_form(kernel), H200, H200.cores)
        ours = [predicted(ranking, c["point"]) for c in found["candidates"]]
        theirs = [c["seconds"] for c in found["candidates"]]
        assert spearman(ours, theirs) > 0.65, list(zip(ours, theirs))
        assert np.std(np.log(np.divide(ours, theirs))) < 0.35


SIDEWAYS: dict[str, tuple[Callable[..., Any], tuple[tuple[int, ...], ...], str]] = {
    "column sums": (lambda x: x.sum(axis=0), ((512, 1024),), "team"),
    "few columns": (lambda x: x.sum(axis=0), ((1 << 16, 64),), "parted"),
    "softmax of columns": (lambda x: softmax(x, axis=0), ((256, 1024),), "team"),
    "transpose": (lambda x: x.T * 2, ((1024, 512),), "turned"),
    "one of two turned": (lambda x, y, b: x.T * y + b, ((1024, 512), (512, 1024), (1024,)), "turned"),
    "last two axes": (lambda x: x.transpose(0, 2, 1) + 1, ((4, 256, 512),), "turned"),
}


@pytest.mark.parametrize("name", SIDEWAYS)
def test_what_runs_sideways_is_read_and_written_by_whole_lines(name: str) -> None:
    fn, shapes, sketch = SIDEWAYS[name]
    made = kernels(fn, *(spec(*shape) for shape in shapes))[0]
    ranking = Ranking(made, device("cuda:sm_90a"), 132)
    first = next(ranking.best())
    assert ranking.sketches[first.sketch].name == sketch
    found = conflicts(first.schedule.apply(lower(made)))
    assert found.ratio("global") < 1.01 and found.ratio("shared") < 1.01, found.summary()
