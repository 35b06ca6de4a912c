"""`autotune verify`: the kernels of one case are proved, and with --execute their CUDA or HIP text is run on this CPU.

Knows what is checked and in which words it is told. The proofs belong to `shipping`, the emulator to `hostrun`, and the
expected results to `floatcheck`.
"""

from __future__ import annotations

from collections.abc import Iterator
from functools import partial

from ..codegen.clike import Dialect
from ..codegen.offload import dialect
from ..devices import DeviceSpec
from ..floatcheck import Checker
from ..hostrun import ORDERS, SANITIZERS, Program
from ..ir.banks import conflicts
from ..ir.errors import AutotuneError
from ..options import Options
from ..shipping import Made, file, texts, usual
from .grid import Case
from .run import program

Finding = tuple[str, str | None]  # what was checked, and what is wrong: "" if nothing; None: only told


def verify(case: Case, options: Options, target: str, execute: bool) -> Iterator[Finding]:
    """The findings of one case, each when it is known. Raises VerifyError where a proof fails."""
    language, spec = dialect(target), usual(target, options.device)
    for made in texts(program(case), target, spec):
        barriers = made.text.body.count(language.atoms["barrier"])
        told = f"{barriers} barriers, {len(made.text.entries)} grids"
        yield f"{made.symbol}: in bounds, free of races, complete, and the same function ({told})", ""
        yield f"{made.symbol}: {conflicts(made.nest, spec.memory()).summary()}", None
        if execute:
            yield from _executed(made, target, language, spec)


def _executed(made: Made, target: str, language: Dialect, spec: DeviceSpec) -> Iterator[Finding]:
    checker, text = Checker(made.program), file([made], target)
    types = {b.name: language.storage(b.dtype) for b in made.text.buffers}
    for sanitize, name in SANITIZERS.items():
        under = f" under {name}" if name else ""
        try:
            run = Program(text, made.text.entries, made.text.buffers, types, sanitize, spec.warp)
        except AutotuneError as error:
            yield f"{made.symbol}: is ready to run{under}", str(error)
            continue
        for order in ORDERS[:1] if sanitize == "thread" else ORDERS:  # a race is one in every order
            what = f"{made.symbol}: runs {order}{under}"
            try:
                yield what, checker.check(partial(run, order=order)) or ""
            except AutotuneError as error:
                yield what, str(error)
