"""What a process launches: each kernel's own time, a line a launch, and the drawing of what was launched."""

from __future__ import annotations

import os
import re
import subprocess
import sys
import xml.etree.ElementTree as tree
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from autotune.decorator import make_kernel
from autotune.options import Options
from autotune.page.graph import Edge, Node, draw
from autotune.session import Said, Session
from autotune.tracer import spec, trace

NAME = "{http://www.w3.org/2000/svg}"


def two(x: np.ndarray, u: np.ndarray, v: np.ndarray) -> Any:
    return np.tanh(np.maximum(x @ u, 0) @ v)


def arrays() -> list[np.ndarray]:
    rng = np.random.default_rng(0)
    return [rng.standard_normal(shape, dtype="f4") for shape in ((40, 50), (50, 60), (60, 70))]


def boxes(svg: str) -> list[list[str]]:
    """The lines of every box of a drawing."""
    found = tree.fromstring(svg).iter(f"{NAME}g")
    return [[t.text or "" for t in g.iter(f"{NAME}text")] for g in found if g.get("class") in ("kernel", "torch")]


def test_a_watched_program_times_its_kernels(tmp_path: Path) -> None:
    kernel = make_kernel(two, {"threads": 1, "tune": "off", "cache_dir": str(tmp_path)})
    x, u, v = arrays()
    plain = kernel(x, u, v)
    (plan,) = kernel._plans.values()
    prepared = plan.prepared
    assert prepared is not None and len(prepared.kernels) == 2 and not prepared.watched
    prepared.watch(True)
    np.testing.assert_array_equal(kernel(x, u, v), plain)
    spent = prepared.launched()
    assert len(spent) == 2 and all(0 < s < 60 for s in spent)
    prepared.watch(False)
    np.testing.assert_array_equal(kernel(x, u, v), plain)
    assert not prepared.code[0].addresses.keys() - {"chain"}, "nobody notes times any more"


def test_operations_are_named_by_kernel() -> None:
    traced = trace(two, [spec("f32", a.shape) for a in arrays()])
    options = Options(threads=1, tune="off", cache="off")
    prepared = Session().prepare(traced.program, options, Said(traced.name, traced.operations))
    assert [prepared.operations(n) for n in range(2)] == [["matmul", "maximum"], ["matmul", "tanh"]]
    assert "operations: matmul, maximum\n" in prepared.explain()


def test_calls_inside_of_calls_are_part_of_them() -> None:
    found = trace(lambda x: np.mean(x, axis=1) + x[:, 0].astype("f8"), [spec("f32", (3, 4))]).operations
    names = sorted({op for ops in found.values() for op in ops})
    assert [name for _, name in names] == ["mean", "index", "astype", "add"]
    twice = trace(lambda x: np.exp(np.exp(x)), [spec("f32", (3,))]).operations
    assert [[name for _, name in ops] for ops in twice.values()] == [["exp", "exp"]]


def test_every_launch_is_told_and_drawn(tmp_path: Path) -> None:
    code = (
        "import numpy as np, autotune\nfrom tests.test_launches import arrays, two\n"
        "kernel = autotune.kernel(two, threads=1, tune='off')\n"
        "for _ in range(3): kernel(*arrays())\nkernel(*[a[:30, :] for a in arrays()[:1]], *arrays()[1:])\n"
    )
    more = {"AUTOTUNE_DEBUG": "2", "AUTOTUNE_GRAPH": str(tmp_path / "g.svg"), "AUTOTUNE_CACHE_DIR": str(tmp_path)}
    done = subprocess.run(
        [sys.executable, "-c", code], env=os.environ | more, cwd=Path(__file__).parent.parent, capture_output=True,
        text=True, check=True,
    )  # fmt: skip
    lines = done.stderr.splitlines()
    assert len(lines) == 8, "two kernels, four launches"
    whole = r"autotune: two \[[12]/2\] \(matmul, (maximum|tanh)\) [\d.]+ [mun]?s [\d,]+ flops [\d,]+ bytes .*roofline"
    assert all(re.fullmatch(whole, line) for line in lines)
    found = boxes((tmp_path / "g.svg").read_text())
    assert [rows[:2] for rows in found[:2]] == [["two 0", "matmul, maximum"], ["two 1", "matmul, tanh"]]
    assert [rows[-1] for rows in found] == ["launched 3 times"] * 2 + ["launched 1 time"] * 2
    assert (tmp_path / "g.svg").read_text().count('class="edge"') == 2


def test_a_drawing_that_cannot_be_written(tmp_path: Path) -> None:
    options = {"threads": 1, "tune": "off", "cache_dir": str(tmp_path), "graph": str(tmp_path / "no" / "g.svg")}
    kernel = make_kernel(np.tanh, options)
    with pytest.warns(RuntimeWarning, match="g.svg cannot be written: No such file or directory; name a file"):
        kernel(np.ones(3, "f4"))
    np.testing.assert_allclose(kernel(np.ones(3, "f4")), np.tanh(np.ones(3)), rtol=1e-5)


def test_boxes_do_not_overlap_and_data_flows_down() -> None:
    nodes = [Node(str(n), (f"kernel {n}", "a<b & c")) for n in range(12)]
    pairs = [(a, b) for a in range(12) for b in range(a + 1, 12) if (a * 7 + b * 5) % 4 == 0]
    svg = draw(nodes, [Edge(str(a), str(b), "f32") for a, b in pairs])
    rects = [r.attrib for g in tree.fromstring(svg).iter(f"{NAME}g") for r in g.iter(f"{NAME}rect")]
    at = [tuple(float(r[k]) for k in ("x", "y", "width", "height")) for r in rects]
    assert len(at) == 12 and boxes(svg)[3] == ["kernel 3", "a<b & c"]
    for a, b in pairs:
        assert at[a][1] + at[a][3] <= at[b][1]
    for n, (x, y, w, h) in enumerate(at):
        assert x >= 0 and y >= 0
        for u, v, p, q in at[n + 1 :]:
            assert x + w <= u or u + p <= x or y + h <= v or v + q <= y


@pytest.mark.parametrize(
    ("edges", "told"), [([Edge("a", "c")], "a -> c: no such node"), ([Edge("a", "b"), Edge("b", "a")], "cycle")]
)
def test_what_is_no_graph(edges: list[Edge], told: str) -> None:
    with pytest.raises(ValueError, match=told):
        draw([Node("a", ("a",)), Node("b", ("b",))], edges)
