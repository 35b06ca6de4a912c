"""LLVM text to object bytes, and object bytes to an address that can be called.

Knows LLVM (through llvmlite) and nothing else: no nest, no kernel ABI, no cache. The text that comes in must be clean,
for no middle-end pass runs except `sroa`. OPTIONS are options of the whole process, set at first use.
"""

from __future__ import annotations

import ctypes
import itertools
import os
import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import cache, lru_cache
from typing import Any

import llvmlite
import llvmlite.binding as llvm

from ..ir.errors import BuildError

# No rewriting of induction variables: addresses are as the text has them. Of more than 32 memory instructions in a row
# the schedulers forget the oldest: what they know of each pair takes half of all time for 30 KB of unrolled code, and
# the code is as fast without it.
OPTIONS = ("-disable-lsr", "-dag-maps-huge-region=32")
_serial = itertools.count()
_GENERATION = 64  # LLVM's linker keeps about 10 KB for each library ever loaded: start a new one from time to time
_LIBC = ("memcpy", "memmove", "memset", "fmodf", "fmod")  # what LLVM's code generator may call by itself


@dataclass(frozen=True)
class Loaded:
    """Machine code in this process: the `address` of its entry and of each export. Dropping it unloads the code."""

    address: int
    addresses: dict[str, int]
    keep: Any = field(repr=False)


def assemble(
    text: str, arch: str, features: tuple[str, ...] = (), triple: str | None = None, quick: bool = False
) -> bytes:
    """The object code of LLVM `text` for a CPU: `arch` as LLVM names it ("znver4"), `features` like "+avx512f", "-fma".

    `triple` names another kind of CPU ("aarch64-linux-gnu"); None is this process's. `quick`: a fifth of the time, for
    code without inner loops. Raises BuildError with the log.
    """
    with _module(text, arch, features, triple, quick) as (module, machine):
        return bytes(machine.emit_object(module))


def assembly(text: str, arch: str, features: tuple[str, ...] = (), triple: str | None = None) -> str:
    """The same as `assemble`, as assembly text: for people and tests."""
    with _module(text, arch, features, triple) as (module, machine):
        return str(machine.emit_assembly(module))


def load(obj: bytes, symbol: str, symbols: Mapping[str, int] | None = None, exports: tuple[str, ...] = ()) -> Loaded:
    """Link object code into this process: `symbols` gives the address of every external symbol that it uses.

    `symbol` is its entry; `exports` names more symbols to look up. Raises BuildError where a symbol is missing or the
    bytes are no object.
    """
    builder = llvm.JITLibraryBuilder().add_object_img(obj)
    for name, address in (_libc() | dict(symbols or {})).items():
        builder.import_symbol(name, address)
    for name in (symbol, *exports):
        builder.export_symbol(name)
    try:
        serial = next(_serial)
        library = builder.link(jit := _jit(serial // _GENERATION), f"autotune.{serial}")
    except RuntimeError as error:
        raise BuildError(f"cannot load the object code of {symbol!r}: {error}", str(error), "link") from None
    library.jit = jit  # must outlive the code
    return Loaded(library[symbol], {name: library[name] for name in (symbol, *exports)}, library)


@contextmanager
def _module(
    text: str, arch: str, features: tuple[str, ...], triple: str | None, quick: bool = False
) -> Iterator[tuple[Any, Any]]:
    """Parse, verify and run `sroa`. A context of its own, so that nothing of the module outlives the build."""
    machine, builder = _target(arch, features, triple, quick)
    try:
        with llvm.create_context() as context, llvm.parse_assembly(text, context) as module:
            module.verify()
            module.triple, module.data_layout = machine.triple, str(machine.target_data)
            with llvm.create_new_module_pass_manager() as passes:
                passes.add_sroa_pass()
                passes.run(module, builder)
            yield module, machine
    except RuntimeError as error:
        raise BuildError(f"LLVM refused the generated text: {str(error).strip()}", str(error), "compile") from None


@cache
def _target(arch: str, features: tuple[str, ...], triple: str | None, quick: bool) -> tuple[Any, Any]:
    _initialize(foreign=triple is not None)
    triple = triple or llvm.get_process_triple()
    try:
        target = llvm.Target.from_triple(triple)
    except RuntimeError as error:
        raise BuildError(f"LLVM here has no target for {triple!r}", str(error), "target") from None
    machine = target.create_target_machine(
        cpu=arch, features=",".join(features), opt=0 if quick else 2, reloc="pic", codemodel="small"
    )
    return machine, llvm.create_pass_builder(machine, llvm.create_pipeline_tuning_options(speed_level=0))


@cache
def _initialize(foreign: bool = False) -> None:
    if foreign:
        _initialize(False)
        llvm.initialize_all_targets()
        llvm.initialize_all_asmprinters()
        return
    llvm.initialize_native_target()
    llvm.initialize_native_asmprinter()
    # The option parser ends the process when an option is given twice: the mark outlives a reload of this module.
    if not getattr(llvm.set_option, "autotune", False):
        for option in OPTIONS:
            llvm.set_option("autotune", option)
        llvm.set_option.autotune = True


@lru_cache(maxsize=1)
def _jit(generation: int) -> Any:
    """The linker of the next loads; it goes when the code that it loaded has gone."""
    _initialize()
    # JITLink puts a kernel and its constants into one allocation; the other linker may put them out of reach
    # of each other, which ends the process.
    return llvm.create_lljit_compiler(use_jit_link=sys.platform != "win32", suppress_errors=True)


def library_symbols(*names: str) -> dict[str, int]:
    """Addresses of functions of the C library."""
    library = ctypes.CDLL(None if os.name != "nt" else "msvcrt")
    return {name: ctypes.cast(getattr(library, name), ctypes.c_void_p).value or 0 for name in names}


def version() -> str:
    """What the bytes of an object depend on besides its text: llvmlite's and LLVM's version."""
    return f"llvmlite {llvmlite.__version__} llvm {'.'.join(map(str, llvm.llvm_version_info))}"


@cache
def _libc() -> dict[str, int]:
    return library_symbols(*_LIBC)
