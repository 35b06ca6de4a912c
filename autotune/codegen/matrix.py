"""Functions of one matrix instruction each, in CUDA's and HIP's own words.

`at_NAME(c, a, b)` is called by every lane of a warp with its part of the matrices (`ir.instructions`): accumulators c,
and operands in 32-bit words, the first element lowest. Where a text runs on a CPU (AT_HOST) the emulator has functions
of the same names.
"""

from __future__ import annotations

from ..ir.instructions import INSTRUCTIONS

_PTX = {
    "mma_m16n8k16_f16": "m16n8k16.row.col.f32.f16.f16.f32", "mma_m16n8k16_bf16": "m16n8k16.row.col.f32.bf16.bf16.f32",
    "mma_m16n8k8_f16": "m16n8k8.row.col.f32.f16.f16.f32", "mma_m16n8k8_tf32": "m16n8k8.row.col.f32.tf32.tf32.f32",
    "mma_m16n8k32_s8": "m16n8k32.row.col.s32.s8.s8.s32", "mma_m8n8k16_s8": "m8n8k16.row.col.s32.s8.s8.s32",
}  # fmt: skip
# The builtin, the type of one operand, and what stands before and after the operands.
_AMD = {
    "mfma_16x16x16_f16": ("mfma_f32_16x16x16f16", "_Float16", "{a}, {b}, {c}, 0, 0, 0"),
    "mfma_16x16x16_bf16": ("mfma_f32_16x16x16bf16_1k", "short", "{a}, {b}, {c}, 0, 0, 0"),
    "mfma_16x16x16_s8": ("mfma_i32_16x16x16i8", "int", "{a}, {b}, {c}, 0, 0, 0"),
    "mfma_16x16x32_s8": ("mfma_i32_16x16x32_i8", "long", "{a}, {b}, {c}, 0, 0, 0"),
    "wmma_16x16x16_f16": ("wmma_f32_16x16x16_f16_w32", "_Float16", "{a}, {b}, {c}"),
    "wmma_16x16x16_bf16": ("wmma_f32_16x16x16_bf16_w32", "short", "{a}, {b}, {c}"),
    "wmma_16x16x16_s8": ("wmma_i32_16x16x16_iu8_w32", "int", "true, {a}, true, {b}, {c}, false"),
    "wmma12_16x16x16_f16": ("wmma_f32_16x16x16_f16_w32_gfx12", "_Float16", "{a}, {b}, {c}"),
    "wmma12_16x16x16_bf16": ("wmma_f32_16x16x16_bf16_w32_gfx12", "short", "{a}, {b}, {c}"),
    "wmma12_16x16x16_s8": ("wmma_i32_16x16x16_iu8_w32_gfx12", "int", "true, {a}, true, {b}, {c}, false"),
}
_BITS = {"_Float16": 16, "short": 16, "int": 32, "long": 64}


def _guarded(text: str) -> str:
    return f"#ifndef AT_HOST\n{text}\n#endif"


def _ptx(name: str) -> str:
    i = INSTRUCTIONS[name]
    a, b, c, real = i.a.words(i.operand), i.b.words(i.operand), i.c.elements, i.result.is_float
    kind, letter = ("float", "f") if real else ("int", "r")
    at = [f"%{n}" for n in range(c + a + b)]
    groups = ", ".join(f"{{{', '.join(at[n:m])}}}" for n, m in ((0, c), (c, c + a), (c + a, c + a + b), (0, c)))
    outs = ", ".join(f'"+{letter}"(c[{n}])' for n in range(c))
    ins = ", ".join([f'"r"(a[{n}])' for n in range(a)] + [f'"r"(b[{n}])' for n in range(b)])
    return _guarded(
        f"FN void at_{name}({kind} *c, const U32 *a, const U32 *b) {{\n"
        f'  asm("mma.sync.aligned.{_PTX[name]} {groups};"\n    : {outs} : {ins});\n}}'
    )


def _amd(name: str) -> str:
    i = INSTRUCTIONS[name]
    builtin, element, form = _AMD[name]
    kind = "float" if i.result.is_float else "int"
    n = i.a.elements * i.operand.bits // _BITS[element]
    vector = f"typedef {element} at_{name}_v __attribute__((ext_vector_type({n})));" if n > 1 else \
        f"typedef {element} at_{name}_v;"  # fmt: skip
    call = form.format(a="x", b="y", c="z")
    return _guarded(
        f"{vector}\ntypedef {kind} at_{name}_c __attribute__((ext_vector_type({i.c.elements})));\n"
        f"FN void at_{name}({kind} *c, const U32 *a, const U32 *b) {{\n"
        f"  at_{name}_v x, y; at_{name}_c z;\n"
        f"  __builtin_memcpy(&x, a, sizeof x); __builtin_memcpy(&y, b, sizeof y); __builtin_memcpy(&z, c, sizeof z);\n"
        f"  z = __builtin_amdgcn_{builtin}({call});\n  __builtin_memcpy(c, &z, sizeof z);\n}}"
    )


CUDA_INSTRUCTIONS = {f"at_{name}": _ptx(name) for name in _PTX}
HIP_INSTRUCTIONS = {f"at_{name}": _amd(name) for name in _AMD}
