"""`autotune report`: what the page says is what was measured, and in a browser a click opens a kernel's source."""

from __future__ import annotations

import json
import re
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from autotune.page import document
from tests import browser
from tests.cli.conftest import QUICK, Done, Run

pytest.importorskip("plotly", reason="plotly is not installed")
NET = """
import numpy as np

def net(x, u, v):
    h = np.maximum(x @ u, 0) @ v
    return np.exp(h - h.max(axis=1, keepdims=True))
"""
CASES = ("report", "fns:net", "x=f32[m,24]", "u=f32[24,40]", "v=f32[40,56]", "m=8,16", "--threads", "1")


def shown(page: Path) -> Any:
    """The data of a page."""
    found = re.search(r'<script type="application/json" id="data">(.*?)</script>', page.read_text("utf-8"), re.DOTALL)
    assert found
    return json.loads(found[1])


def written(place: Path, records: list[dict[str, Any]]) -> str:
    (place / "records.jsonl").write_text("".join(json.dumps(r) + "\n" for r in records))
    return "records.jsonl"


def records(run: Run, *more: str) -> list[dict[str, Any]]:
    return run("sweep", "gemm", "m=8,16", "n=8", "k=8", *QUICK, *more, "-q", "--format", "jsonl").records


def test_a_report_of_cases(run: Run, place: Path) -> None:
    (place / "fns.py").write_text(NET)
    done = run(*CASES, "--budget", "500ms", "-o", "r.html")
    assert done.code == 0 and done.out == "" and done.err.splitlines()[-1] == "r.html: 4 kernels"
    data = shown(place / "r.html")
    assert [w["title"] for w in data["wholes"]] == ["fns:net m=8", "fns:net m=16"]
    assert [w["kernels"] for w in data["wholes"]] == [[0, 1], [2, 3]]
    first, second = data["kernels"][2:]
    assert (first["operations"], second["operations"]) == ("matmul, maximum", "matmul, max, subtract, exp")
    assert first["flops"] == 2 * 16 * 24 * 40 + 16 * 40 and first["bytes"] == 4 * (16 * 24 + 24 * 40 + 16 * 40)
    for k in data["kernels"]:
        assert k["seconds"] > 0 and k["roof"] > 0 and k["schedule"] and "define void @kernel(" in k["source"]
        assert k["trials"] and all(t["status"] == "ok" and t["seconds"] > 0 for t in k["trials"])
        assert [t["at"] for t in k["trials"]] == sorted(t["at"] for t in k["trials"])
    assert data["wholes"][1]["graph"].count("data-kernel=") == 2 and "f32 16x40" in data["wholes"][1]["graph"]
    assert {"device", "threads", "date", "Python", "NumPy", "LLVM"} <= {name for name, _ in data["environment"]}


def test_without_a_budget_nothing_is_tuned(run: Run, place: Path) -> None:
    assert run("report", "gemm", "m=8", "n=8", "k=8", "--threads", "1", "-q", "-o", "r.html").code == 0
    (kernel,) = shown(place / "r.html")["kernels"]
    assert kernel["chosen"].startswith("model") and kernel["trials"] == []
    assert kernel["seconds"] > 0 and kernel["how"] == "in turn, for this report" and kernel["predicted"] > 0


def test_a_report_of_records(run: Run, place: Path) -> None:
    rows = records(run)
    rows[1]["peers"] = {"numpy": {"seconds": 5e-6, "ratio": 2.5}}
    done = run("report", written(place, rows), "-o", "r.html")
    assert done.code == 0, done.err
    data = shown(place / "r.html")
    assert [w["seconds"] for w in data["wholes"]] == [r["seconds"] for r in rows]
    assert [k["seconds"] for k in data["kernels"]] == [r["seconds"] for r in rows]
    assert data["wholes"][1]["peers"] == rows[1]["peers"] and data["wholes"][0]["peers"] == {}
    for k, r in zip(data["kernels"], rows):
        assert k["chosen"].startswith("cache") and len(k["trials"]) == r["trials"] == 2
        assert r["seconds"] * r["gflops"] * 1e9 == pytest.approx(k["flops"])
        assert k["roof"] / k["seconds"] == pytest.approx(r["roofline_fraction"])


def test_records_of_what_is_not_here(run: Run, place: Path) -> None:
    row = records(run)[0]
    own = {**row, "op": "nowhere:fn", "message": "as it was"}
    far = {**row, "device": "cuda:sm_90"}
    failed = {**row, "status": "compile", "seconds": None, "gflops": None, "message": "no compiler", "schedule": ""}
    assert run("report", written(place, [own, far, failed]), "-o", "r.html").code == 0
    data = shown(place / "r.html")
    assert data["kernels"] == [] and [w["status"] for w in data["wholes"]] == ["ok", "ok", "compile"]
    assert data["wholes"][1]["flops"] == pytest.approx(2 * 8**3) and data["wholes"][2]["message"] == "no compiler"
    assert len(data["notes"]) == 2 and all("cannot be shown here" in note for note in data["notes"])


def changed(row: dict[str, Any], **other: Any) -> list[dict[str, Any]]:
    return [{**row, **other}]


@pytest.mark.parametrize(
    ("change", "told"),
    [({"seconds": -1.0}, "record 1: seconds is -1.0, expected a number above 0"),
     ({"gflops": "many"}, "record 1: gflops is 'many'"), ({"params": 3}, "params and peers are objects"),
     ({"peers": {"numpy": {"seconds": 1}}}, "peer 'numpy' has no seconds and ratio"),
     ({"trials": None}, "threads and trials integers")],
)  # fmt: skip
def test_records_that_are_none(run: Run, place: Path, change: dict[str, Any], told: str) -> None:
    row = dict.fromkeys(records(run)[0], "") | {"params": {}, "trials": 0, "threads": 1}
    row |= dict.fromkeys(("seconds", "default_seconds", "gflops", "gbytes_per_s", "roofline_fraction"))
    done = run("report", written(place, changed(row, **change)))
    assert done.code == 2 and told in done.err and not (place / "report.html").exists()


@pytest.mark.parametrize(
    ("arguments", "told"),
    [(["nothing.json"], "nothing.json cannot be read"), (["gemm"], "gemm"), ([], "name an operation"),
     (["x.csv"], "write the sweep with --format json"), (["gemm", "m=8", "-o", "no/r.html"], "no such folder"),
     (["list.json"], "lists candidates, and nothing of it was measured"), (["empty.json"], "no records and no cases"),
     (["short.json"], "record 1 has no field 'params'"), (["a.py:make", "--dtype", "f32"], "is a model: --dtype"),
     (["a.py:make", "--against", "numpy"], "a model is compared with eager, inductor or both"),
     (["short.json", "--budget", "1s"], "holds what was measured: --budget has no meaning")],
)  # fmt: skip
def test_usage(run: Run, place: Path, arguments: list[str], told: str) -> None:
    (place / "list.json").write_text('{"kind": "autotune shortlist", "schema": 1, "entries": []}')
    (place / "empty.json").write_text("[]")
    (place / "short.json").write_text('[{"op": "gemm", "status": "ok"}]')
    done: Done = run("report", *arguments)
    assert done.code == 2 and told in done.err


def test_without_plotly(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    document.plotly_js.cache_clear()
    monkeypatch.setitem(sys.modules, "plotly.offline", None)
    done = run("report", "gemm", "m=8", "n=8", "k=8")
    assert done.code == 3 and "pip install 'autotune-kernels[report]'" in done.err


# ---- in a browser


@pytest.fixture
def page(tmp_path: Path) -> Iterator[browser.Browser]:
    if browser.program() is None:
        pytest.skip("no chromium here: apt-get install chromium")
    with browser.Browser(tmp_path / "profile") as opened:
        yield opened


POINTS = "document.querySelectorAll('#roofline .scatterlayer .trace:last-child .point')"


def test_a_click_opens_the_kernel(run: Run, place: Path, page: browser.Browser) -> None:
    (place / "fns.py").write_text(NET)
    assert run(*CASES, "--budget", "500ms", "-q", "-o", "r.html").code == 0
    kernels = shown(place / "r.html")["kernels"]
    page.open(place / "r.html")
    assert page.run("document.querySelector('h1').textContent") == "2 cases of fns:net"
    trace = page.run("(t => [t.x, t.y])(document.getElementById('roofline').data.find(t => t.name === 'measured'))")
    assert trace[0] == pytest.approx([k["flops"] / k["bytes"] for k in kernels])
    assert trace[1] == pytest.approx([k["flops"] / k["seconds"] / 1e9 for k in kernels])
    names = page.run("document.getElementById('roofline').data.map(t => t.name)")
    assert {"predicted", "measured", "autotune, the whole", "DRAM", "f32"} <= set(names)
    assert page.run(f"{POINTS}.length") == 4 and page.run("document.getElementById('kernel').hidden")
    assert page.run("document.querySelectorAll('#times .point').length") == 4
    assert page.run("document.querySelectorAll('#curves .trace').length") == 4
    page.click(f"{POINTS}[2]")
    page.wait("!document.getElementById('kernel').hidden")
    opened = page.run("document.querySelector('#kernel h2').textContent")
    assert opened == kernels[2]["title"]
    assert "\n".join(kernels[2]["schedule"]) in page.run("document.querySelector('#kernel pre').textContent")
    page.click("document.querySelector('#kernel [data-tab=source]')")
    page.wait("document.querySelector('#kernel [data-tab=source]').className === 'on'")
    assert page.run("document.querySelector('#kernel pre').textContent") == kernels[2]["source"]
    page.click("document.querySelector('#kernel [data-tab=explain]')")
    assert page.run("document.querySelector('#kernel pre').textContent") == "\n".join(kernels[2]["explain"])
    page.key("Escape")
    page.wait("document.getElementById('kernel').hidden")
    page.click("document.querySelector('#graph [data-kernel=\"1\"] rect')")
    page.wait("document.querySelector('#kernel h2').textContent === 'fns:net m=8, kernel 1'")
    page.screenshot(place / "page.png")
    assert (place / "page.png").read_bytes()[:4] == b"\x89PNG"
    assert page.errors == [] and {r.partition(":")[0] for r in page.requests} <= {"file", "data", "blob"}


def test_the_address_opens_a_kernel(run: Run, place: Path, page: browser.Browser) -> None:
    rows = records(run)
    rows[0]["peers"] = {"numpy": {"seconds": 5e-6, "ratio": 0.5}, "torch": {"seconds": 9e-6, "ratio": 2.0}}
    assert run("report", written(place, rows), "-o", "r.html").code == 0
    page.open(place / "r.html", "#kernel=1&tab=source")
    assert page.run("document.querySelector('#kernel pre').textContent").startswith("define")
    peers = "document.getElementById('roofline').data.find(t => t.name === 'torch').y"
    assert page.run(peers) == pytest.approx([2 * 8**3 / 9e-6 / 1e9])
    cells = page.run("[...document.querySelectorAll('#comparison tbody tr:first-child td')].map(c => c.textContent)")
    assert cells[-4:] == ["5 us", "0.50x", "9 us", "2.00x"]
    assert page.run("document.querySelectorAll('#comparison .better, #comparison .worse').length") == 2
    page.key("Escape")
    page.click("document.querySelector('#kernels tbody tr')")
    page.wait("document.querySelector('#kernel h2').textContent === 'gemm m=8 n=8 k=8'")
    assert page.errors == []


def test_a_stranger_s_text_is_text(run: Run, place: Path, page: browser.Browser) -> None:
    row = records(run)[0]
    bad = "</script><script>window.bad = 1</script><img src=x onerror='window.bad = 2'>"
    row |= {"message": bad, "params": {bad: bad}, "peers": {bad: {"seconds": 1e-3, "ratio": 2.0}}}
    assert run("report", written(place, [row]), "-o", "r.html").code == 0
    page.open(place / "r.html")
    assert page.run("window.bad === undefined && document.querySelectorAll('img').length === 0")
    assert page.run("document.querySelector('#comparison').textContent").count(bad) >= 3
    assert page.errors == [] and {r.partition(":")[0] for r in page.requests} <= {"file", "data", "blob"}
