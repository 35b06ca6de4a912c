"""`autotune explain --counterfactual`: the decisions of a schedule taken otherwise, and what rules removed, as text."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path

from ..counterfactual import Counterfactual, Flip, counterfactual
from ..devices.records import Status
from ..ir.errors import UsageError
from ..search.recorded import Space, load
from ..session import Prepared
from .output import aligned, clean

HEADS = ("decision", "chosen", "otherwise", "predicted", "measured", "95 %", "left out by")


def shown(prepared: Prepared) -> Iterator[str]:
    """Text for each kernel."""
    for n, kernel in enumerate(prepared.kernels):
        yield f"kernel {n}, each decision taken otherwise (times over the chosen schedule's, in paired rounds):\n"
        yield text(counterfactual(prepared.workshop, kernel.program, kernel.choice.schedule))


def text(found: Counterfactual) -> str:
    done = [f for f in found.flips if f.status is Status.OK]
    rows = [_row(f) for f in sorted(done, key=lambda f: f.measured.middle if f.measured else 0.0)]
    out = aligned(HEADS, rows) if rows else "nothing can be decided otherwise\n"
    if not found.sketch:
        out += "the schedule is of no sketch of this program: its holes are not known\n"
    for f in (f for f in found.flips if f.status is not Status.OK):
        what = f"{f.decision} {f.chosen}: {f.other}"
        out += f"not measured, {f.status}: {clean(what)}: {clean(f.message.partition(chr(10))[0])[:120]}\n"
    out += f"space: {found.points} points are left to the search\n"
    for rule, count in found.removed.items():
        out += f"  {count} removed by {rule} ({'a rule of thumb' if rule in found.thumb else 'a limit'})\n"
    return out


def _row(f: Flip) -> list[str]:
    m = f.measured
    ends = "-" if m is None or m.low == 0 else f"{m.low:.3f} to {m.high:.3f}"
    predicted = "-" if f.predicted is None else f"{f.predicted:.2f}x"
    return [f.decision, f.chosen, f.other, predicted, "-" if m is None else f"{m.middle:.3f}x", ends, f.rule or "-"]


def spaces(folder: Path) -> list[Space]:
    """The recorded spaces of a folder. Raises UsageError where there is none."""
    files = sorted(folder.glob("*.json.xz"))
    if not files:
        raise UsageError(f"--spaces {folder}: no recorded space (NAME.json.xz) is there; see docs/search.md")
    return [load(file) for file in files]


def judged(found: Sequence[Space]) -> str:
    """What each rule of thumb left out of recorded spaces, and whether it was ever the best."""
    rows = []
    for space in found:
        for rule, (count, best) in sorted(space.pruned().items()):
            rows.append([space.name, rule, str(count), f"{best:.3f}"])
    out = aligned(("space", "rule", "points left out", "best of these over the optimum"), rows) if rows else ""
    lost = sorted({row[0] for row in rows if float(row[3]) < 1})
    return out + _verdict(len(found), lost)


def _verdict(many: int, lost: Sequence[str]) -> str:
    if not lost:
        return f"no rule removed an optimum in {many} spaces\n"
    return f"a rule removed an optimum in {len(lost)} of {many} spaces: {', '.join(lost)}\n"
