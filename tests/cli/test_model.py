"""`autotune model`, and the option that selects a strategy."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest

from autotune import devices
from autotune.devices import device
from autotune.options import user_directory
from autotune.search import t4
from tests.cli.conftest import QUICK, Run
from tests.search.spaces import SPEC, document


@pytest.fixture
def spaces(place: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder of recorded spaces, and a configuration directory of its own."""
    monkeypatch.setenv("XDG_CONFIG_HOME", str(place / "config"))
    devices.forget()
    folder = place / "spaces"
    folder.mkdir()
    for name in ("square", "tall", "gemv"):
        t4.write(folder / f"{name}.json.xz", document(name, 120))
    return folder


def test_fit_show_eval(run: Run, spaces: Path) -> None:
    done = run("model", "fit", str(spaces), "-o", "model.json")
    assert done.code == 0 and "panel" in done.out and "of 3 spaces; kept in model.json" in done.err
    assert json.loads(Path("model.json").read_text())["coefficients"]["panel"]
    done = run("model", "show")
    assert done.code == 0 and "nothing was fitted" in done.out
    assert json.loads(run("model", "show", "--format", "json").out) is None
    done = run("model", "eval", str(spaces))
    assert done.code == 0 and done.out.splitlines()[0].startswith("space") and "mean" in done.out.splitlines()[-1]
    found = json.loads(run("model", "eval", str(spaces), "--format", "json").out)
    assert found["plain"].keys() == found["fitted"].keys() == {"square", "tall", "gemv"}


def test_a_fit_for_this_machine_is_kept(run: Run, spaces: Path) -> None:
    """Spaces of this machine are used from then on; those of another one are refused."""
    here = device("cpu", user_directory("config"))
    t4.write(spaces / "here.json.xz", document("square", 120, spec=here))
    done = run("model", "fit", "spaces/here.json.xz")
    assert done.code == 0 and str(Path("config", "autotune", "models")) in done.err
    assert "square" in run("model", "show").out
    if here.digest != SPEC.digest:
        done = run("model", "fit", "spaces/square.json.xz")
        assert done.code == 2 and "recorded on another machine" in done.err


@pytest.mark.parametrize(
    ("arguments", "code", "told"),
    [
        (("eval", "spaces/square.json.xz"), 2, "1 recorded spaces in .*, and 2 are needed"),
        (("fit", "nothing.json.xz"), 1, "nothing.json.xz: not a file of results, or cut short"),
        (("fit",), 2, "Missing argument"), (("fit", "."), 2, "0 recorded spaces"),
    ],
)  # fmt: skip
def test_what_is_wrong_is_said(run: Run, spaces: Path, arguments: tuple[str, ...], code: int, told: str) -> None:
    done = run("model", *arguments)
    assert done.code == code and re.search(told, done.err), done.err


def test_a_space_that_is_cut_short(run: Run, spaces: Path) -> None:
    path = spaces / "square.json.xz"
    path.write_bytes(path.read_bytes()[:200])
    done = run("model", "fit", str(spaces))
    assert done.code == 1 and "square.json.xz: not a file of results, or cut short" in done.err


def test_a_sweep_with_a_strategy(run: Run, place: Path) -> None:
    done = run("sweep", "gemm", "m=8", "n=16", "k=8", *QUICK, "--strategy", "evolution", "--format", "jsonl")
    assert done.code == 0 and done.records[0]["status"] == "ok"
    done = run("sweep", "gemm", "m=8", "n=16", "k=8", *QUICK, "--strategy", "luck")
    assert done.code == 2 and "luck" in done.err
    done = run("sweep", "gemm", "m=8", "n=24", "k=8", *QUICK, "--strategy", "random", "--study", "sqlite:///x.db")
    assert "keeps no study" in done.err or "keeps no study" in done.out
