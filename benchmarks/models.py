"""Whole models of torch: eager, Inductor and our backend in one process, in turn, medians and minima.

`python -m benchmarks.models [--models encoder-1,resnet18] [--threads N] [--budget SECONDS] [--json FILE]`. Every call
of a round follows the others', and the first of a round changes; ratios are medians of the rounds' own, above 1 we are
faster. Results are compared with torch's in float64; exits with 1 where one is wrong, never because of a time.
"""

from __future__ import annotations

import argparse
import copy
import json
import os
import statistics
import sys
import time
import warnings
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from importlib import import_module
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parent.parent
UNSET = ("OPENBLAS_CORETYPE", "OPENBLAS_L2_SIZE")  # change what is compared
TOLERANCE = 1e-4
MODELS = ("encoder-1", "encoder-8", "resnet18", "mobilenet_v2", "vit_tiny")
WAYS = ("autotune", "eager", "inductor", "channels last")  # the last one where images come in


@dataclass(frozen=True)
class Row:
    """A model: seconds of each way, median and minimum; `ratios` of the others' times to ours; `first`: seconds of each
    way's first call, compilation and, if asked for, tuning included; `error` of ours, relative to the largest value."""

    model: str
    threads: int
    seconds: Mapping[str, float]
    minimum: Mapping[str, float]
    ratios: Mapping[str, float]
    first: Mapping[str, float]
    share: float
    error: float
    right: bool


def model(name: str) -> tuple[Any, tuple[Any, ...]]:
    """A model of MODELS and its inputs."""
    import torch

    sys.path.insert(0, str(ROOT / "examples"))
    kind, _, batch = name.partition("-")
    if kind == "encoder":
        encoder = import_module("torch_encoder")
        return encoder.make_model(), encoder.make_inputs(int(batch))
    made = import_module("torch_networks").networks()[name]
    return made, (torch.randn(1, 3, 224, 224, generator=torch.Generator().manual_seed(1)),)


def compare(name: str, given: argparse.Namespace) -> Row:
    """One row. A way that cannot be compiled here is left out, with a line that says why."""
    import torch

    from autotune.peers import paired
    from autotune.plugins.torch import coverage
    from autotune.plugins.torch.inspection import ways

    torch.set_num_threads(given.threads)
    torch._dynamo.reset()
    made, inputs = model(name)
    options = {"threads": given.threads, "tune": "first-call" if given.budget else given.tune}
    options |= {"budget": given.budget} if given.budget else {}
    first: dict[str, float] = {}
    with torch.no_grad():
        exact = copy.deepcopy(made).double()(*(x.double() if x.is_floating_point() else x for x in inputs))
        calls = ways(made, inputs, WAYS, options)
        for way, call in [*calls.items()]:
            start = time.perf_counter()
            try:
                found = call()
            except torch._dynamo.exc.BackendCompilerFailed as error:
                print(f"{name}: without {way}: {str(error).splitlines()[0]}", file=sys.stderr)
                del calls[way]
                continue
            first[way] = time.perf_counter() - start
            if way == "autotune":
                difference = float((found - exact).abs().max() / exact.abs().max())
                same = bool((found.argmax(-1) == exact.argmax(-1)).all())
        paired(calls, 3, 0.0)
        times = paired(calls, given.rounds, 0.0, 0.02 if given.threads > 1 else 0.0)
    share = coverage(made, *inputs, options={**options, "tune": given.tune}).share
    ratios = {
        way: statistics.median(a / b for a, b in zip(seconds, times["autotune"]))
        for way, seconds in times.items()
        if way != "autotune"
    }
    return Row(
        name, given.threads, {w: statistics.median(t) for w, t in times.items()}, {w: min(t) for w, t in times.items()},
        ratios, first, share, difference, difference <= TOLERANCE and same,
    )  # fmt: skip


def text(rows: list[Row]) -> str:
    """The table, in Markdown."""
    lines = ["| model | threads | way | median | minimum | ratio | first call |", "|---|---|---|---|---|---|---|"]
    for row in rows:
        for way, seconds in row.seconds.items():
            ratio = f"{row.ratios[way]:.2f}" if way in row.ratios else ""
            lines.append(
                f"| {row.model} | {row.threads} | {way} | {seconds * 1e3:.2f} ms | {row.minimum[way] * 1e3:.2f} ms | "
                f"{ratio} | {row.first[way]:.1f} s |"
            )
        lines.append(f"| {row.model} | | in our kernels: {row.share:.1%}, error {row.error:.0e} | | | | |")
    return "\n".join(lines)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--models", default=",".join(MODELS), help=", ".join(MODELS))
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--rounds", type=int, default=20)
    parser.add_argument("--budget", type=float, default=0.0, help="seconds of tuning each model; 0: none")
    parser.add_argument("--tune", default="cached", help="without a budget: cached (what is stored) or off")
    parser.add_argument("--json", type=Path, help="write the rows here too")
    given = parser.parse_args()
    if wrong := set(given.models.split(",")) - set(MODELS):
        parser.error(f"no such model: {', '.join(sorted(wrong))}")
    for variable in UNSET:
        os.environ.pop(variable, None)
    warnings.filterwarnings("ignore", message=".*max_autotune|.*TensorFloat32")
    rows = [compare(name, given) for name in given.models.split(",")]
    print(text(rows))
    if given.json:
        given.json.write_text(json.dumps([asdict(row) for row in rows], indent=1) + "\n", encoding="utf-8")
    return int(not all(row.right for row in rows))


if __name__ == "__main__":
    sys.exit(main())
