"""What a first call is worth: picks that cost no measurement beside schedules that were tuned, and whether what is
promised of them holds.

`python -m benchmarks.zero record [--seconds S] [-o FILE]` tunes every case (one thread, an empty store), then times in
turn: the tuned schedule, the model's first pick, and the schedule of the nearest other case, where that is near.
`python -m benchmarks.zero eval [FILE]` prints the fraction of tuned speed, and promises against what became of them,
each case judged by the others; `fit` writes the promises that are shipped. No case is among the recorded spaces.
"""

from __future__ import annotations

import argparse
import json
import math
import sys
import tempfile
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from autotune.devices.records import median
from autotune.search import regret
from autotune.session import LIMIT

HERE = Path(__file__).resolve().parent / "results" / "zero.json"
SECONDS, LAYOUTS, ROUNDS = 3.0, 5, 5  # of tuning; how often arrays are laid out anew, and rounds in each layout
CASES = (
    *(f"gemm m={m} n={n} k={k}" for m, n, k in (
        (96, 96, 96), (256, 256, 256), (384, 384, 384), (512, 512, 512), (768, 768, 768), (1000, 1000, 64),
        (511, 513, 129), (200, 300, 400), (2048, 64, 2048), (4096, 32, 64), (64, 3136, 576), (32, 4096, 256),
        (8, 1024, 4096), (4, 768, 768), (2, 2048, 512), (1, 768, 3072), (1, 3000, 1000), (48, 64, 2000),
        (300, 300, 300), (240, 320, 256), (640, 768, 768), (1, 900, 3072), (5, 768, 1024), (2500, 64, 1800),
    )),
    *(f"gemm m={m} n={n} k={k} bias=1 act={act}" for m, n, k, act in (
        (128, 768, 3072, "gelu"), (128, 3072, 768, "relu"), (33, 500, 250, "relu"), (512, 512, 512, "gelu"),
    )),
    *(f"linear m={m} n={n} k={k}" for m, n, k in (
        (128, 768, 768), (1, 768, 768), (16, 1024, 1024), (512, 512, 256), (100, 200, 300), (64, 1000, 512),
        (120, 768, 900), (20, 1000, 1024),
    )),
    *(f"gemv m={m} k={k}" for m, k in ((512, 2048), (4096, 1024), (300, 300), (768, 3072), (600, 2600))),
    *(f"bmm b={b} m={m} n={n} k={k}" for b, m, n, k in ((12, 128, 128, 64), (96, 32, 32, 32), (8, 256, 64, 256))),
    *(f"conv2d n=1 h={h} w={h} ci={ci} co={co} kh={k} kw={k} pad={k // 2} stride={s} groups={g}" for h, ci, co, k, s, g
      in ((56, 64, 64, 3, 1, 1), (28, 128, 128, 3, 1, 1), (14, 256, 256, 3, 1, 1), (56, 64, 256, 1, 1, 1),
          (14, 1024, 256, 1, 1, 1), (28, 128, 256, 3, 2, 1), (112, 32, 32, 3, 1, 32), (28, 192, 192, 3, 1, 192))),
    *(f"softmax m={m} n={n}" for m, n in ((64, 4096), (1024, 128), (4096, 64), (128, 1000), (37, 333), (150, 1200))),
    *(f"layer_norm m={m} n={n}" for m, n in ((128, 768), (1024, 256), (64, 4096), (512, 384), (150, 900))),
    *(f"rms_norm m={m} n={n}" for m, n in ((256, 1024), (64, 512))),
    *(f"reduce shape={shape} axes={axes}" for shape, axes in (
        ("1000x1000", "0"), ("1000x1000", "1"), ("64x128x256", "1"), ("4096x64", "0"), ("64x128x256", "0,1"),
        ("200x3000", "1"), ("300x700", "0"), ("1200x900", "1"), ("250x600", "0"),
    )),
    *(f"transpose shape={shape} perm={perm}" for shape, perm in (
        ("1000x1000", "1,0"), ("256x4096", "1,0"), ("8x128x64x64", "0,2,1,3"), ("300x500", "1,0"), ("1200x900", "1,0"),
    )),
    "elementwise n=100000 expr=gelu(a*b+c)", "elementwise n=4000000 expr=a*b+c", "elementwise n=1000000 expr=exp(a)",
    "attention b=1 heads=12 q=128 kv=128 d=64", "attention b=1 heads=8 q=512 kv=512 d=64",
    "attention b=1 heads=4 q=200 kv=200 d=32", "swiglu m=128 n=2048", "batch_norm n=1 c=64 h=56 w=56",
    "pool2d n=1 h=112 w=112 c=64 kh=3 kw=3 stride=2 pad=1",
)  # fmt: skip


def record(seconds: float, path: Path, say: Callable[[str], object] = print) -> None:
    """Tune and compare every case; one JSON document."""
    from autotune.cache.records import Key
    from autotune.calibrate import ensure
    from autotune.cli.grid import cases
    from autotune.cli.run import program as traced
    from autotune.ir.collapse import normal_form
    from autotune.options import resolve
    from autotune.session import session
    from autotune.tuning import alone
    from autotune.workshop import Workshop, near

    options = resolve(tune="cached", threads=1)
    shop = Workshop(session(), options)
    ensure(shop.spec, say)
    shop.spec = session().spec(options)
    worker = session().worker(shop.spec, 1, options)
    worker.wait()
    tuned: list[tuple[str, Any, Key, Any]] = []
    for words in CASES:
        op, *rest = words.split()
        (case,) = cases(op, rest)
        kernels = [normal_form(k) for k in shop.plans(traced(case))[0].kernels]
        kernel = max(kernels, key=lambda k: (k.flops, k.bytes))
        if kernel.digest in {key.program for *_, key, _ in tuned}:
            continue
        outcome = alone(shop, kernel, seconds)
        tuned.append((words, kernel, shop.key(kernel), outcome))
        say(f"{words}: {len(outcome.trials)} trials, {1e6 * outcome.seconds:.1f} us")
    rows = []
    for words, kernel, key, outcome in tuned:
        ranking = shop.ranking(kernel)
        first = outcome.default
        schedules = {"tuned": outcome.winner.schedule, "model": first.schedule}
        kinds = {"model": regret.kind("model", first.terms)}
        others = [(k, o) for _, _, k, o in tuned if k.program != key.program and k.family == key.family]
        others = [(k, o) for k, o in others if near(k.extents, key.extents)]
        if others:
            k, o = min(others, key=lambda row: _distance(row[0].extents, key.extents))
            schedules["transfer"], kinds["transfer"] = o.winner.schedule, "transfer"
        seconds_of = _paired(shop, worker, kernel, schedules)
        best = min(seconds_of.values())
        found = {n: {"kind": kinds[n], "regret": s / best - 1} for n, s in seconds_of.items() if n in kinds}
        rows.append({"case": words, "points": ranking.size, "seconds": seconds_of, "picks": found})
        say(f"{words}: " + ", ".join(f"{n} {1e6 * s:.1f} us" for n, s in seconds_of.items()))
    document = {"device": shop.spec.to_json(), "tuning_seconds": seconds, "rows": rows}
    path.write_text(json.dumps(document, indent=1) + "\n", "utf-8")


def _distance(a: Sequence[int], b: Sequence[int]) -> float:
    return sum(abs(math.log(x / y)) for x, y in zip(a, b))


def _paired(shop: Any, worker: Any, kernel: Any, schedules: Mapping[str, Any]) -> dict[str, float]:
    """Medians of rounds in turn, in several layouts of the arrays; equal schedules are timed once. What cannot be built
    for this kernel has none."""
    places = {s.digest: s for s in schedules.values()}
    built = dict(zip(places, worker.build([(kernel.canonical, s.to_json()) for s in places.values()])))
    handles = {digest: r.handle for digest, r in built.items() if r.ok}
    policy, samples = replace(shop.policy, race=1e9, moved=True), {digest: list[float]() for digest in handles}
    for _ in range(LAYOUTS):
        for digest, row in zip(handles, worker.time([*handles.values()], policy, ROUNDS)):
            samples[digest] += row.samples
    worker.drop([*handles.values()])
    return {name: median(samples[s.digest]) for name, s in schedules.items() if samples.get(s.digest)}


def picks(document: Mapping[str, Any]) -> list[tuple[str, str, float]]:
    """(case, kind, regret) of every pick."""
    return [(row["case"], p["kind"], p["regret"]) for row in document["rows"] for p in row["picks"].values()]


def judge(document: Mapping[str, Any], say: Callable[[str], object] = print) -> dict[str, Any]:
    """Fractions of tuned speed, and what became of promises made from the other cases."""
    rows = picks(document)
    out: dict[str, Any] = {"kinds": {}}
    say("kind                 picks  fraction of tuned  least  promised")
    names = sorted({k for _, k, _ in rows})
    for name in [*names, "zero search"]:
        mine = [r for _, k, r in rows if k == name] if name in names else [_zero(row) for row in document["rows"]]
        mean = math.exp(-sum(math.log1p(r) for r in mine) / len(mine))
        told = regret.bound(mine) if name in names else sorted(mine)[min(len(mine) - 1, int(0.95 * len(mine)))]
        out["kinds"][name] = {"picks": len(mine), "fraction": mean, "least": 1 / (1 + max(mine)), "bound": told}
        word = "promised within" if name in names else "95th percentile"
        say(f"{name:20s} {len(mine):5d}  {mean:17.3f}  {1 / (1 + max(mine)):5.3f}  {word} {100 * told:.0f} %")
    kept = promised = close = 0
    for case, name, r in rows:
        table = regret.promises((k, x) for c, k, x in rows if c != case)
        promise = regret.of(table, name)
        if promise is None:
            continue
        kept += r <= promise.bound
        promised += promise.bound <= LIMIT
        close += promise.bound <= LIMIT and r <= LIMIT
    out |= {"kept": kept / len(rows), "promised": promised, "close": close}
    say(f"promises kept, each made from the other cases: {kept} of {len(rows)} ({100 * kept / len(rows):.0f} %; "
        f"{100 * regret.CONFIDENCE:.0f} % stated)")  # fmt: skip
    if promised:
        share = f"{close} were ({100 * close / promised:.0f} %)"
        say(f"promised within {100 * LIMIT:.0f} %: {promised}, of which {share}")
    return out


def _zero(row: Mapping[str, Any]) -> float:
    """Regret of what a first call runs: the nearest case's schedule where that is near, else the model's pick."""
    found = row["picks"]
    return float((found.get("transfer") or found["model"])["regret"])


def fit(document: Mapping[str, Any]) -> dict[str, Any]:
    """What is shipped."""
    made = regret.promises((k, r) for _, k, r in picks(document))
    device = document["device"]
    return {
        "device": device["arch"], "confidence": regret.CONFIDENCE,
        "kinds": {name: {"bound": round(p.bound, 4), "picks": p.picks} for name, p in sorted(made.items())},
    }  # fmt: skip


def main() -> int:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("command", choices=("record", "eval", "fit"))
    parser.add_argument("file", nargs="?", type=Path, default=HERE)
    parser.add_argument("--seconds", type=float, default=SECONDS, help=f"of tuning, for each case ({SECONDS:g})")
    given = parser.parse_args()
    if given.command == "record":
        import autotune

        with tempfile.TemporaryDirectory() as empty, autotune.context(cache=empty):
            record(given.seconds, given.file)
        return 0
    if not given.file.exists():
        print(f"no {given.file}: python -m benchmarks.zero record", file=sys.stderr)
        return 1
    document = json.loads(given.file.read_text("utf-8"))
    if given.command == "eval":
        judge(document)
    else:
        regret.FILE.write_text(json.dumps(fit(document), indent=1) + "\n", "utf-8")
    return 0


if __name__ == "__main__":
    sys.exit(main())
