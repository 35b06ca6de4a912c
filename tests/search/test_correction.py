"""The fitted model: known coefficients are found again, and a fit is used where it says something, and only there."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import replace
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import autotune
from autotune import calibrate, devices
from autotune.devices import device
from autotune.devices.records import Status
from autotune.ir.errors import CacheError
from autotune.options import user_directory
from autotune.search import t4
from autotune.search.correction import PRICE, Correction, fit, judged, left_out, predictions
from autotune.search.ranking import Ranking
from autotune.search.recorded import Space, space
from benchmarks.spaces import PROGRAMS, kernel
from tests.search.spaces import SPEC, document

FACTORS = {PRICE: 0.5, "tile": 3.0, "memory": 0.25}


@cache
def planted(name: str) -> Space:
    """A space that takes what other coefficients predict."""
    written = document(name)
    plain = space(written, name)
    priced = {
        (n, at): sum(f * (p.seconds[at] if t == PRICE else p.terms[t][at]) for t, f in FACTORS.items() if t in terms)
        for n, p in enumerate(plain.whole.priced) for terms in [{PRICE, *p.terms}] for at in range(len(p.seconds))
    }  # fmt: skip
    return replace(plain, results={
        row: replace(r, seconds=float(priced[row])) if row[0] >= 0 and r.status is Status.OK else r
        for row, r in plain.results.items()
    })  # fmt: skip


def test_planted_coefficients_are_found() -> None:
    found = fit([planted("square"), planted("tall"), planted("skinny")])
    assert found.coefficients["panel"] == pytest.approx(FACTORS, rel=1e-3) and found.device == SPEC.digest
    assert found.spaces == ("square", "tall", "skinny") and found.points > 100
    predicted, measured = predictions(planted("odd"), found)
    assert predicted == pytest.approx(measured, rel=1e-3)


def test_the_one_that_is_left_out_is_predicted_by_the_others() -> None:
    spaces = [planted(name) for name in ("square", "tall", "odd")]
    for name, row in left_out(spaces).items():
        assert row["pairwise"] > 0.99 and row["peak@5"] > 0.99
        assert row["pairwise"] >= judged(planted(name))["pairwise"]


def test_what_is_not_known_stays_as_it_is() -> None:
    (priced,) = Ranking(kernel(PROGRAMS["gemv"]), SPEC, 1).priced
    found = Correction(SPEC.digest, {"panel": {PRICE: 2.0}, "map": {"no such term": 1.0}})
    assert found.apply("lanes", priced) is priced and found.apply("map", priced) is priced
    assert np.array_equal(found.apply("panel", priced).seconds, 2 * priced.seconds)
    few = fit([planted("gemv")])
    assert few.coefficients == {}, "too few points to learn from"


def test_spaces_of_one_device_only() -> None:
    other = replace(planted("square"), spec=device("cpu:znver4"))
    with pytest.raises(CacheError, match="these spaces are of 2"):
        fit([planted("tall"), other])


def test_there_and_back() -> None:
    found = Correction("d" * 32, {"panel": {PRICE: 1.0, "pack": 0.5}}, ("a", "b"), 7)
    assert Correction.from_json(json.loads(json.dumps(found.to_json()))) == found
    for change, message in (
        ({"format": 2}, "a fitted model of format 2; .* reads 1"), ({"more": 1}, "field 'more' is unknown"),
        ({"coefficients": {"panel": {"pack": -1}}}, "below zero"), ({"coefficients": {"panel": {}}}, "are zero"),
        ({"coefficients": {"panel": 3}}, "cannot be read"), ({"coefficients": {"panel": {"x": "y"}}}, "cannot be read"),
    ):  # fmt: skip
        with pytest.raises(CacheError, match=message):
            Correction.from_json({**found.to_json(), **change})
    broken: tuple[Any, ...] = (3, [], None)
    for value in broken:
        with pytest.raises(CacheError, match="a fitted model of format"):
            Correction.from_json(value)


@pytest.fixture
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path / "config"))
    monkeypatch.setenv("AUTOTUNE_CACHE_DIR", str(tmp_path / "cache"))
    devices.forget()
    yield tmp_path
    devices.forget()


def test_a_kept_model_orders_the_candidates(home: Path) -> None:
    """What is kept for this machine is what its rankings use, and a file that is broken is an error."""
    here = device("cpu", user_directory("config"))
    assert calibrate.correction(here) is None
    program = kernel(PROGRAMS["square"])
    terms = Ranking(program, here, 1).priced[0].terms
    found = Correction(here.digest, {"panel": {next(iter(terms)): 1.0}})
    path = calibrate.keep_correction(found)
    assert calibrate.correction(here) == found
    (priced,) = Ranking(program, here, 1, correction=found).priced
    assert np.array_equal(priced.seconds, terms[next(iter(terms))])
    made = autotune.kernel(lambda x, y: x @ y, name="product", threads=1)
    arrays = np.ones((24, 40), np.float32), np.ones((40, 32), np.float32)
    assert np.all(made(*arrays) == 40)
    path.write_text("{}")
    with pytest.raises(CacheError, match="the fitted model cannot be read .* fit again"):
        calibrate.correction(here)


def test_documents_for_the_command_line(tmp_path: Path) -> None:
    """`planted` spaces pass through files like any other."""
    path = tmp_path / "square.json.xz"
    t4.write(path, document())
    assert fit([space(t4.read(path), "")]).coefficients["panel"]
