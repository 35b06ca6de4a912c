"""A model's kernels are tuned within a budget, stored, and found again; and how the command line says so."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest

torch = pytest.importorskip("torch", reason="torch is not installed")
from autotune.plugins.torch import tune  # noqa: E402
from autotune.plugins.torch.graphs import MADE  # noqa: E402
from autotune.plugins.torch.tuning import Tuned  # noqa: E402
from tests.cli.conftest import Run, place, run  # noqa: E402, F401

SCRIPT = """
import torch

def make_model():
    torch.manual_seed(0)
    return torch.nn.Sequential(torch.nn.Linear(24, 32), torch.nn.GELU(), torch.nn.Linear(32, 24), torch.nn.GELU())

def make_inputs():
    return torch.ones(8, 24)

def both():
    return make_model(), (make_inputs(),)

def neither():
    return 3
"""


@pytest.mark.usefixtures("place")
def test_what_is_tuned_is_found_by_the_next_compilation() -> None:
    model, x = torch.nn.Linear(24, 32), torch.randn(8, 24)
    told: list[str] = []
    (part,) = tune(model, x, budget=1.0, options={"threads": 1}, progress=lambda title, *_: told.append(title))
    assert isinstance(part, Tuned) and part.kernels >= part.distinct >= 1 and part.trials >= 1
    assert part.seconds is not None and part.default_seconds is not None and set(told) == {part.title}
    torch._dynamo.reset()
    token = MADE.set([])
    try:
        with torch.no_grad():
            found = torch.compile(model, backend="autotune", options={"threads": 1})(x)
        (graph,) = MADE.get() or []
        (made,) = graph.kernels
    finally:
        MADE.reset(token)
    assert {k.choice.source for k in made.prepared.kernels} == {"cache"}
    torch.testing.assert_close(found, model(x))


@pytest.mark.usefixtures("place")
def test_a_budget_of_nothing_begins_nothing() -> None:
    (part,) = tune(torch.nn.Linear(24, 32), torch.randn(8, 24), budget=1e-9, options={"threads": 1})
    assert part.seconds is None and part.trials == 0


@pytest.mark.parametrize("name", ["make_model", "both"])
def test_the_command(run: Run, place: Path, name: str) -> None:  # noqa: F811
    (place / f"script_{name}.py").write_text(SCRIPT)
    done = run("tune-model", f"script_{name}.py:{name}", "--budget", "1s", "--threads", "1")
    assert done.code == 0, done.err
    assert done.out.split("\n")[0].split() == ["part", "kernels", "distinct", "default", "tuned", "trials"]
    assert done.out.split("\n")[1].startswith("graph, kernel 0") and "graph, kernel 0" in done.err


def test_the_command_as_json(run: Run, place: Path) -> None:  # noqa: F811
    (place / "script_json.py").write_text(SCRIPT)
    how = ("--budget", "500ms", "--threads", "1", "-q", "--format", "json")
    done = run("tune-model", "script_json.py:make_model", *how)
    (row,) = json.loads(done.out)
    assert done.code == 0 and row["title"] == "graph, kernel 0" and row["kernels"] >= 2


@pytest.mark.parametrize(
    ("name", "told"),
    [("nowhere.py:make_model", "nowhere.py: no such file"), ("script_wrong.py:nothing", "nothing"),
     ("script_wrong.py:neither", "must return .model, inputs., or have a function make_inputs")],
)  # fmt: skip
def test_what_is_no_model(run: Run, place: Path, name: str, told: str) -> None:  # noqa: F811
    (place / "script_wrong.py").write_text(SCRIPT.replace("def make_inputs", "def other"))
    done = run("tune-model", name)
    assert done.code == 2 and re.search(told, done.err)
