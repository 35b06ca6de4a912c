"""A report on a model: kernels timed within its calls, what torch computes, and the model beside eager."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

torch = pytest.importorskip("torch", reason="torch is not installed")
pytest.importorskip("plotly", reason="plotly is not installed")
from autotune.plugins.torch import inspect  # noqa: E402
from tests.cli.conftest import Run, place, run  # noqa: E402, F401
from tests.cli.test_report import shown  # noqa: E402
from tests.plugins.conftest import UNTUNED  # noqa: E402

SCRIPT = """
import torch

class Model(torch.nn.Module):
    def __init__(self):
        super().__init__()
        self.first, self.last = torch.nn.Linear(24, 40), torch.nn.Linear(40, 24)

    def forward(self, x):
        return torch.softmax(torch.sort(self.last(torch.relu(self.first(x))))[0] * 2, -1)

def make_model():
    torch.manual_seed(0)
    return Model(), (torch.ones(8, 24),)
"""


def test_the_command(run: Run, place: Path) -> None:  # noqa: F811
    (place / "model_here.py").write_text(SCRIPT)
    done = run("report", "model_here.py:make_model", "--threads", "1", "--against", "eager", "-o", "r.html")
    assert done.code == 0 and "torch runs sort.default (no rule)" in done.err
    data = shown(place / "r.html")
    (whole,) = data["wholes"]
    assert whole["seconds"] > 0 and [*whole["peers"]] == ["eager"] and whole["peers"]["eager"]["ratio"] > 0
    assert whole["kernels"] == [*range(len(data["kernels"]))] and len(data["kernels"]) >= 3
    said = [k["operations"] for k in data["kernels"]]
    assert said[0] == "addmm, relu" and said[-1].endswith("_softmax") and "mul" in said[-1]
    for k in data["kernels"]:
        assert 0 < k["seconds"] < whole["seconds"] * 100 and k["how"] == "median of 15 calls of the model"
        assert "define void @kernel(" in k["source"] and k["flops"] > 0
    sort = next(r for r in whole["rest"] if r["title"] == "sort.default")
    assert (sort["count"], sort["reason"]) == (1, "no rule") and sort["seconds"] > 0
    graph = whole["graph"]
    assert graph.count("data-kernel=") == len(data["kernels"]) and graph.count('class="torch"') == 1
    assert graph.count('class="edge"') == len(data["kernels"]), "a chain, with torch's operation in it"
    assert "torch" in {name for name, _ in data["environment"]}


def test_a_model_without_kernels(run: Run, place: Path) -> None:  # noqa: F811
    script = SCRIPT.replace("return torch.softmax", "return torch.sort(x)[0]\n        return torch.softmax")
    (place / "model_none.py").write_text(script)
    done = run("report", "model_none.py:make_model", "--threads", "1", "--against", "eager", "-o", "r.html")
    assert done.code == 4 and "no part of this model is computed by kernels" in done.err


def test_what_is_inspected_stays_as_it_was() -> None:
    model, x = torch.nn.Sequential(torch.nn.Linear(24, 32), torch.nn.GELU()), torch.randn(8, 24)
    seen = inspect(model, x, options=UNTUNED, rounds=3)
    assert [*seen.ways] == ["autotune"] and all(len(p.seconds) == len(p.prepared.kernels) for p in seen.parts)
    assert not any(p.prepared.watched for p in seen.parts) and torch.get_num_threads() >= 1


@pytest.mark.usefixtures("place")
def test_every_launch_is_told(capfd: pytest.CaptureFixture[str]) -> None:
    model, x = torch.nn.Linear(24, 32), torch.randn(8, 24)
    compiled = torch.compile(model, backend="autotune", options={**UNTUNED, "debug": 2})
    with torch.no_grad():
        torch.testing.assert_close(compiled(x), model(x))
    lines = [line for line in capfd.readouterr().err.splitlines() if line.startswith("autotune: ")]
    assert len(lines) == 1
    flops = f"{2 * 8 * 24 * 32 + 8 * 32:,}"
    assert re.fullmatch(rf"autotune: graph, kernel 0 \(addmm\) .* {flops} flops .* GB/s \d+ % of roofline", lines[0])
