"""Enumerated spaces as data: measures every legal point of a part of each program's space, and keeps what each took.

`python -m benchmarks.spaces record [--program NAME ...] [--seconds S] [--points N] [--seed N] [-o DIR]` goes on where
it was stopped: what is measured is in NAME.partial.jsonl until the space is complete, then in NAME.json.xz, as an Open
Autotuning T4 document. `python -m benchmarks.spaces sharpen [--program NAME ...]` measures the best of what is complete
once more, in turn. `python -m benchmarks.spaces list [-o DIR]` says what there is. The part is drawn by the seed:
values of holes are struck out until there are at most N points.
"""

from __future__ import annotations

import argparse
import json
import sys
import time
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

HERE = Path(__file__).resolve().parent / "results" / "spaces"
POINTS, SECONDS, SEED = 1200, 90.0, 1


@dataclass(frozen=True)
class Program:
    """An operation and its parameters; of its kernels the one with the most arithmetic is taken."""

    op: str
    params: dict[str, Any]

    def __str__(self) -> str:
        return " ".join([self.op, *(f"{k}={v}" for k, v in self.params.items())])


PROGRAMS = {
    "square": Program("gemm", {"m": 192, "n": 192, "k": 192}),
    "skinny": Program("gemm", {"m": 16, "n": 1024, "k": 1024}),
    "tall": Program("gemm", {"m": 3136, "n": 64, "k": 64}),
    "odd": Program("gemm", {"m": 65, "n": 257, "k": 130}),
    "gemv": Program("gemv", {"m": 1024, "k": 1024}),
    "row-product": Program("gemm", {"m": 1, "n": 1024, "k": 1024}),
    "linear": Program("linear", {"m": 128, "n": 256, "k": 256}),
    "dense": Program("gemm", {"m": 128, "n": 256, "k": 256, "bias": 1, "act": "relu"}),
    "conv3x3": Program("conv2d", {"n": 1, "h": 28, "w": 28, "ci": 32, "co": 64, "kh": 3, "kw": 3, "pad": 1}),
    "conv1x1": Program("conv2d", {"n": 1, "h": 28, "w": 28, "ci": 64, "co": 64, "kh": 1, "kw": 1}),
    "softmax": Program("softmax", {"m": 256, "n": 1000}),
    "layer-norm": Program("layer_norm", {"m": 256, "n": 768}),
    "row-sum": Program("reduce", {"shape": "512x1000", "axes": "1"}),
    "column-sum": Program("reduce", {"shape": "1000x512", "axes": "0"}),
    "transpose": Program("transpose", {"shape": "512x512", "perm": "1,0"}),
    "attention": Program("attention", {"b": 1, "heads": 2, "q": 128, "kv": 128, "d": 64}),
}


def kernel(program: Program) -> Any:
    """The kernel whose space is recorded."""
    from autotune.ir.collapse import normal_form
    from autotune.ir.partition import partition
    from autotune.ops.sweeps import OPS
    from autotune.tracer import trace

    function, specs = OPS[program.op].make(program.params, "f32")
    kernels = partition(trace(function, specs, {}).program, True).kernels
    return normal_form(max(kernels, key=lambda k: (k.flops, k.bytes)))


class Journal:
    """What is measured so far of one space: the metadata, then a result a line."""

    def __init__(self, path: Path, metadata: dict[str, Any]) -> None:
        from autotune.ir.errors import CacheError
        from autotune.search import t4

        self.path, self.results = path, list[Any]()
        lines = path.read_text("utf-8").splitlines() if path.exists() else []
        if lines and lines[0] != json.dumps(metadata):
            raise CacheError(f"{path} was begun elsewhere, by another version or with other options: remove it")
        for line in lines[1:]:
            try:
                self.results.append(t4.from_json(json.loads(line)))
            except (ValueError, CacheError):
                break  # cut short: from here on it is measured again
        rows = [json.dumps(metadata), *(json.dumps(t4.to_json(r)) for r in self.results)]
        path.write_text("\n".join(rows) + "\n", "utf-8")

    def keep(self, result: Any) -> None:
        from autotune.search import t4

        self.results.append(result)
        with self.path.open("a", encoding="utf-8") as file:
            file.write(json.dumps(t4.to_json(result)) + "\n")


def record(
    name: str, folder: Path, seconds: float, most: int, seed: int, say: Callable[[str], object] = print
) -> bool:
    """Record one space for at most about so many seconds; is it complete?"""
    from autotune.calibrate import ensure
    from autotune.codegen import build
    from autotune.options import resolve
    from autotune.search import recorded, recorder, t4
    from autotune.search.ranking import Ranking, first_valid
    from autotune.session import session
    from autotune.workshop import Workshop

    begun = time.monotonic()
    options = resolve(tune="off", threads=1)
    shop = Workshop(session(), options)
    spec, program = ensure(shop.spec, say), kernel(PROGRAMS[name])
    part, struck = recorded.reduced(Ranking(program, spec, 1, pruned=False), most, seed)
    about = recorded.metadata(name, str(PROGRAMS[name]), part, spec, 1, build.versions(), most, seed, struck)
    folder.mkdir(parents=True, exist_ok=True)
    journal = Journal(folder / f"{name}.partial.jsonl", about)
    done = {recorder.key(r.configuration) for r in journal.results}
    todo = [p for p in recorder.points(part, seed) if p.key not in done]
    anchor = first_valid(part, lambda c: build.plan(program, c.schedule, spec))
    worker = session().worker(spec, 1, options)
    worker.wait()
    say(f"{name}: {PROGRAMS[name]}: {len(todo)} of {len(done) + len(todo)} points to measure")
    recording = recorder.Recorder(part, program.canonical, worker, shop.policy, journal.keep)
    recording.run(todo, anchor, begun + seconds)
    complete = len(journal.results) == len(done) + len(todo)
    if complete:
        path, document = folder / f"{name}.json.xz", t4.Document(tuple(journal.results), about)
        t4.write(path, recorded.merged(t4.read(path), document) if path.exists() else document)
        journal.path.unlink()
    counts = Counter(str(r.status) for r in journal.results)
    what = ", ".join(f"{n} {word}" for word, n in counts.most_common())
    noisy = sum("noisy" in r.extra for r in journal.results)
    say(f"{name}: {what}; {noisy} noisy; {time.monotonic() - begun:.0f} s; {'complete' if complete else 'go on later'}")
    return complete


def sharpen(name: str, folder: Path, say: Callable[[str], object] = print) -> None:
    """Measure the best points of a complete space once more, in turn, and keep what that says of them."""
    from autotune.devices.client import WorkerClient
    from autotune.search import recorded, recorder, t4

    begun, path = time.monotonic(), folder / f"{name}.json.xz"
    document = t4.read(path)
    space = recorded.space(document, str(path))
    made = recorder.sharpened(document, lambda: WorkerClient(space.spec, space.threads))
    t4.write(path, made)
    after = recorded.space(made, str(path))
    many = sum("rounds" in r.extra for r in made.results)
    say(f"{name}: {many} points measured again; the best took {1e6 * space.optimum:.2f} us by one recording, takes "
        f"{1e6 * after.optimum:.2f} us; {time.monotonic() - begun:.0f} s")  # fmt: skip


def listed(folder: Path) -> None:
    from autotune.devices.records import median
    from autotune.search import recorded

    for path in sorted(folder.glob("*.json.xz")):
        space = recorded.load(path)
        times = sorted(space.seconds.values())
        print(f"{space.name:12s} {len(space.results):5d} points, {len(times):5d} with a time, "
              f"best {1e6 * times[0]:9.2f} us, median {median(times) / times[0]:5.2f}x, "
              f"{space.strangers} of another version, "
              f"{path.stat().st_size >> 10} KiB  {space.case}")  # fmt: skip


def main() -> int:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("command", choices=("record", "sharpen", "list"))
    parser.add_argument("--program", action="append", choices=[*PROGRAMS], help="only this one (may be repeated)")
    parser.add_argument("--seconds", type=float, default=SECONDS, help=f"for each program ({SECONDS:.0f})")
    parser.add_argument("--points", type=int, default=POINTS, help=f"of each space, at most ({POINTS})")
    parser.add_argument("--seed", type=int, default=SEED)
    parser.add_argument("--again", action="store_true", help="record what is complete once more, and keep both")
    parser.add_argument("-o", "--output", type=Path, default=HERE)
    given = parser.parse_args()
    if given.command == "list":
        listed(given.output)
        return 0
    complete = True
    for name in given.program or PROGRAMS:
        if given.command == "sharpen":
            sharpen(name, given.output)
            continue
        if (given.output / f"{name}.json.xz").exists() and not given.again:
            print(f"{name}: complete already; --again records it once more, and keeps both")
            continue
        complete &= record(name, given.output, given.seconds, given.points, given.seed)
    return int(not complete)


if __name__ == "__main__":
    sys.exit(main())
