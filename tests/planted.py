"""Bugs planted in the kernels of real programs: in the nest, where the proofs must see them, and with it in the CUDA
text, where the emulator must, which knows none of the proofs.

A bug is one of a family; families come from `tests/ir/mutate.py` and `tests/ir/test_spmd.py`, and here are those of
texts alone.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from functools import cache, partial

from autotune.codegen import clike
from autotune.codegen.cuda import CUDA
from autotune.devices import device
from autotune.floatcheck import Checker
from autotune.hostrun import ORDERS, SANITIZERS, Program
from autotune.ir.equiv import difference
from autotune.ir.errors import AutotuneError, BuildError
from autotune.ir.limits import Limits
from autotune.ir.lower import lower
from autotune.ir.nest import Nest
from autotune.ir.program import TensorProgram
from autotune.ir.spmd import Entry
from autotune.ir.verify import verify
from autotune.search.ranking import Ranking

from .ir import mutate, test_spmd
from .kernels import named

GPU = "cuda:sm_80"
CASES = ("random", "negative", "magnitudes")
SUBJECTS = {"product": 3, "row": 1, "norm": 1, "chain": 1, "turned": 1}  # with how many bugs of a family
ALL = (*SUBJECTS, "epilogue", "centred", "column sum", "ragged product", "rows", "everything", "batch")


@dataclass(frozen=True)
class Bug:
    """`nest` with the bug, or the text and launches where it is one of the text alone."""

    where: str
    what: str
    family: str
    nest: Nest | None = None
    text: str = ""
    entries: tuple[Entry, ...] = ()


@cache
def subject(name: str) -> tuple[TensorProgram, Nest]:
    """A nest with threads by hand, or the model's choice for a program of the tests."""
    if name in test_spmd.NESTS:
        return test_spmd.made(name)
    program = named(name, (13, 37, 21))[-1]
    return program, next(Ranking(program, device(GPU), 1).best()).schedule.apply(lower(program))


# What changes nothing that a thread does, though a proof, stricter than that, refuses it.
IDLE = (
    r"ends early",  # the text declares shared arrays once, and registers where it may
    r"norm: (t. is smaller|alloc . \(t.\): too small)",  # of one element: an array of none is one of one
    r"norm: (statement 2: dropped|shifted load of t0.acc of t0)",  # whatever is taken as the maximum of a softmax
    r"chain: j.1 is longer",  # the next grid computes the same
    r"(centred|column sum): one element for all .* of t\d.acc",  # each thread has one
    r"(epilogue|row|norm): barrier inside",  # of a loop that all threads are in
    r"(product|column sum|centred|epilogue): alloc \d+ \(t\d.acc\): too small",  # where it is spread over threads
    r"(row|norm): one element for all store of t\d.acc at \(0, 0, (0, .,)? ?4, 0\)",  # one thread is left there
    r"(row|norm): statement \d+: (always|combines)",  # the last step of a tree has one term
)  # fmt: skip
FAMILIES = (
    ("no barrier", "barrier missing"), ("barrier inside", "barrier divergent"), ("shifted", "index shifted"),
    ("one element for all", "one place for all"), ("further", "index shifted"), ("is longer", "off by one"),
    ("is shorter", "off by one"), ("ends one early", "off by one"), ("smaller", "array too small"),
    ("too small", "array too small"),
    ("in registers", "array of another scope"), ("along", "other axis"), ("dropped", "element unwritten"),
    ("never initialises", "start of a sum"), ("always initialises", "start of a sum"), ("too late", "start of a sum"),
    ("combines", "other combiner"), ("guard", "guard"),
)  # fmt: skip


def family(what: str) -> str:
    return next((name for part, name in FAMILIES if part in what), "other")


def nest_bugs(name: str) -> Iterator[Bug]:
    _, nest = subject(name)
    seen = {nest}
    found = [*test_spmd.mutants(nest)]
    found += [(what, change(nest)) for what, change in (*mutate.statements(nest), *mutate.blocks(nest))]
    for what, wrong in found:
        idle = any(re.match(pattern, f"{name}: {what}") or re.search(pattern, what) for pattern in IDLE)
        if wrong not in seen and not idle and not test_spmd.harmless(nest, wrong):
            seen.add(wrong)
            yield Bug(name, what, family(what), wrong)


FENCE = "__syncthreads();"


def fence(new: str) -> Callable[[str], str]:
    """The first barrier becomes something else."""
    return lambda text: text.replace(FENCE, new, 1)


def _undeclared(text: str) -> str:
    return re.sub(r"bounds__\((\d+)\)", lambda m: f"bounds__({int(m[1]) // 2})", text)


def _unstored(text: str) -> str:
    return re.sub(r"\n( *)(t0[_\w]*\[[^\n]*= )", r"\n\1if (threadIdx.x != 1) \2", text, count=1)


TEXTS: dict[str, tuple[str, Callable[[str], str]]] = {
    "half of the threads declared": ("launch bounds", _undeclared),
    "a barrier for half of the threads": ("barrier divergent", fence(f"if (threadIdx.x < blockDim.x / 2) {FENCE}")),
    "a barrier in a branch of its own": (
        "barrier divergent", fence(f"if (threadIdx.x % 2) {{\n{FENCE}\n}} else {{\n{FENCE}\n}}")),
    "the last barrier is gone": ("barrier missing", lambda text: "".join(text.rsplit(FENCE, 1))),
    "a thread ends early": ("barrier divergent", fence(f"if (threadIdx.x == 1) return; {FENCE}")),
    "one thread does not store": ("element unwritten", _unstored),
}  # fmt: skip


def text_bugs(name: str) -> Iterator[Bug]:
    _, nest = subject(name)
    made = clike.render(nest, CUDA)
    text = clike.source([made], CUDA)
    for what, (kind, change) in TEXTS.items():
        if change(text) != text:
            yield Bug(name, what, kind, None, change(text), made.entries)
    launches = [e.launch for e in made.entries]
    for what, fewer in (("too few threads", [replace(n, block=_less(n.block)) for n in launches]),
                        ("a block too few", [replace(n, grid=_less(n.grid)) for n in launches])):  # fmt: skip
        if fewer != launches:
            entries = tuple(replace(e, launch=n) for e, n in zip(made.entries, fewer))
            yield Bug(name, f"launched with {what}", "launch bounds", None, text, entries)


def _less(size: tuple[int, int, int]) -> tuple[int, int, int]:
    """One less along an axis that has more than one."""
    at = next((d for d in range(3) if size[d] > 1), None)
    x, y, z = (n - (d == at) for d, n in enumerate(size))
    return x, y, z


def chosen(name: str, count: int) -> Iterator[Bug]:
    """Up to `count` bugs of each family, from all over the nest."""
    found: dict[str, list[Bug]] = {}
    for bug in (*nest_bugs(name), *text_bugs(name)):
        found.setdefault(bug.family, []).append(bug)
    for bugs in found.values():
        yield from bugs if len(bugs) <= count else [bugs[len(bugs) * n // count] for n in range(count)]


@dataclass(frozen=True)
class Row:
    bug: Bug
    proof: str
    run: str

    def __str__(self) -> str:
        what = f"{self.bug.where:12s}{self.bug.what[:62]:64s}"
        return f"{what}{self.proof or 'NOT PROVED':24s}{self.run[:90] or 'NOT SEEN'}"


def table(name: str, count: int) -> Iterator[Row]:
    for bug in chosen(name, count):
        yield Row(bug, proved(bug), emulated(bug))


def wrong(rows: Sequence[Row], every: bool = True) -> str:
    """What is wrong with a table; "" if nothing: no nest passes the proofs, one text in twenty may the emulator. Unless
    it is `every` bug, one that neither sees is none: an index along a dimension of one, padding that is less."""
    rows = [r for r in rows if every or r.proof or r.run not in ("", "-")]
    passed = [str(r) for r in rows if not r.proof]
    texts = [r for r in rows if r.run != "-"]
    unseen = [str(r) for r in texts if not r.run]
    if passed or 20 * len(unseen) > len(texts):
        return "\n".join(["proved:", *passed, f"not seen of {len(texts)}:", *unseen])
    return ""


def summary(rows: Sequence[Row]) -> str:
    by = Counter(re.split(r",|:| under", r.run)[0] if r.run else "nothing" for r in rows if r.run != "-")
    proofs = Counter(r.proof.split(",")[0] for r in rows if r.bug.nest is not None)
    told = [", ".join(f"{what} {n}" for what, n in counts.most_common()) for counts in (proofs, by)]
    return f"{len(rows)} bugs; nests: {told[0]}; texts: {told[1]}"


def proved(bug: Bug) -> str:
    """By which proof a nest is refused; "" if by none, "-" for a text."""
    if bug.nest is None:
        return "-"
    program, _ = subject(bug.where)
    found = verify(program, bug.nest, Limits()).violations
    if found:
        return f"verifier, {found[0].kind}"
    return "equivalence" if difference(lower(program), bug.nest) else ""


@cache
def _checker(name: str) -> Checker:
    return Checker(subject(name)[0])


def emulated(bug: Bug) -> str:
    """By what the emulator shows a bug: cheapest first; "" if by nothing, "-" where there is no text of it."""
    text, entries = bug.text, bug.entries
    if bug.nest is not None:
        try:
            made = clike.render(bug.nest, CUDA)
        except Exception:  # a renderer takes verified nests: anything may happen with another
            return "-"
        text, entries = clike.source([made], CUDA), made.entries
    buffers = subject(bug.where)[1].buffers
    types = {b.name: CUDA.storage(b.dtype) for b in buffers}
    for sanitize, name in SANITIZERS.items():
        try:
            run = Program(text, entries, buffers, types, sanitize)
        except BuildError:
            return "-"
        except AutotuneError as error:
            return f"launch: {error}"
        for order in ORDERS if sanitize != "thread" else ORDERS[:1]:
            try:
                if _checker(bug.where).check(partial(run, order=order), cases=CASES):
                    return f"results{f' under {name}' if name else ''}, {order}"
            except AutotuneError as error:
                told = str(error).split(": ", 1)[-1]
                return told if name else f"emulator: {told}"
    return ""
