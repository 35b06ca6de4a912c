"""`autotune verify`: the kernels of one case are proved, and with --execute their CUDA or HIP text is run on this CPU.

Knows what is checked and in which words it is told. The proofs belong to `shipping`, the emulator to `hostrun`, and the
expected results to `floatcheck`.
"""

from __future__ import annotations

from collections.abc import Iterator
from functools import partial

from ..codegen.clike import Dialect
from ..codegen.offload import dialect
from ..floatcheck import Checker
from ..hostrun import ORDERS, Program
from ..ir.errors import AutotuneError
from ..options import Options
from ..shipping import Made, file, texts, usual
from .grid import Case
from .run import program

Finding = tuple[str, str]  # what was checked, and what is wrong: "" if nothing


def verify(case: Case, options: Options, target: str, execute: bool) -> Iterator[Finding]:
    """The findings of one case, each when it is known. Raises VerifyError where a proof fails."""
    language = dialect(target)
    for made in texts(program(case), target, usual(target, options.device)):
        barriers = made.text.body.count(language.atoms["barrier"])
        told = f"{barriers} barriers, {len(made.text.entries)} grids"
        yield f"{made.symbol}: in bounds, free of races, complete, and the same function ({told})", ""
        if execute:
            yield from _executed(made, target, language)


def _executed(made: Made, target: str, language: Dialect) -> Iterator[Finding]:
    checker, text = Checker(made.program), file([made], target)
    types = {b.name: language.storage(b.dtype) for b in made.nest.buffers}
    for sanitize in (False, True):
        run = Program(text, made.text.entries, made.nest.buffers, types, sanitize)
        for order in ORDERS:
            what = f"{made.symbol}: runs {order}" + (" under AddressSanitizer" if sanitize else "")
            try:
                yield what, checker.check(partial(run, order=order)) or ""
            except AutotuneError as error:
                yield what, str(error)
