"""Small functions that texts in C-like languages call: what NumPy's integers, 16-bit floats and NaN need beyond C.

Written in what OpenCL C 1.2, CUDA and HIP share; a text gets only those that it calls. `FN` is the language's word for
a function of the device; U16, U32, I64 and U64 are its types.
"""

from __future__ import annotations

import re
from collections.abc import Mapping

_RANGES = {"i8": 8, "i16": 16, "i32": 32, "i64": 64, "u8": 8}
_SATURATE = """FN {type} at_to_{name}({from} x) {{
  return x != x ? 0 : x <= {low} ? ({type}){least} : x >= {high} ? ({type}){most} : ({type})x;
}}"""

HELPERS: dict[str, str] = {
    "at_min": "FN int at_min(int a, int b) { return a < b ? a : b; }",
    "at_floordiv": "FN int at_floordiv(int a, int b) { return a / b - (a % b < 0); }",
    "at_floormod": "FN int at_floormod(int a, int b) { return (a % b + b) % b; }",
    "at_max_f32": "FN float at_max_f32(float a, float b) { return a > b || a != a ? a : b; }",
    "at_min_f32": "FN float at_min_f32(float a, float b) { return a < b || a != a ? a : b; }",
    "at_max_f64": "FN double at_max_f64(double a, double b) { return a > b || a != a ? a : b; }",
    "at_min_f64": "FN double at_min_f64(double a, double b) { return a < b || a != a ? a : b; }",
    "at_imax": "FN I64 at_imax(I64 a, I64 b) { return a > b ? a : b; }",
    "at_imin": "FN I64 at_imin(I64 a, I64 b) { return a < b ? a : b; }",
    "at_iabs": "FN I64 at_iabs(I64 a) { return a < 0 ? (I64)(0 - (U64)a) : a; }",
    "at_idiv": """FN I64 at_idiv(I64 a, I64 b) {
  if (b == 0) return 0;
  if (b == -1) return (I64)(0 - (U64)a);
  return a / b - (a % b != 0 && (a % b < 0) != (b < 0));
}""",
    "at_imod": """FN I64 at_imod(I64 a, I64 b) {
  if (b == 0 || b == -1) return 0;
  I64 r = a % b;
  return r != 0 && (r < 0) != (b < 0) ? r + b : r;
}""",
    "at_mod_f32": """FN float at_mod_f32(float a, float b) {
  float r = FMOD32(a, b);
  return r != 0 && (r < 0) != (b < 0) ? r + b : r;
}""",
    "at_mod_f64": """FN double at_mod_f64(double a, double b) {
  double r = fmod(a, b);
  return r != 0 && (r < 0) != (b < 0) ? r + b : r;
}""",
    "at_bits": "FN U32 at_bits(float x) { union { float f; U32 u; } v; v.f = x; return v.u; }",
    "at_float": "FN float at_float(U32 x) { union { float f; U32 u; } v; v.u = x; return v.f; }",
    "at_from_bf16": "FN float at_from_bf16(U16 h) { return at_float((U32)h << 16); }",
    "at_as_bf16": """FN U16 at_as_bf16(float x) {
  U32 u = at_bits(x);
  return (u & 0x7fffffff) > 0x7f800000 ? (U16)(u >> 16 | 64) : (U16)((u + 0x7fff + (u >> 16 & 1)) >> 16);
}""",
    "at_from_f16": """FN float at_from_f16(U16 h) {
  U32 sign = (U32)(h & 0x8000) << 16, e = h >> 10 & 31, m = h & 1023;
  if (e == 0) {
    float tiny = (float)m * 5.9604644775390625e-8f;
    return sign ? -tiny : tiny;
  }
  return at_float(sign | (e == 31 ? 0x7f800000 : (e + 112) << 23) | m << 13);
}""",
    "at_as_f16": """FN U16 at_as_f16(float x) {
  U32 u = at_bits(x), sign = u >> 16 & 0x8000, a = u & 0x7fffffff, shift, m;
  if (a > 0x7f800000) return (U16)(sign | 0x7e00 | (a >> 13 & 1023));
  if (a >= 0x47800000) return (U16)(sign | 0x7c00);
  if (a < 0x33000000) return (U16)sign;
  if (a >= 0x38800000) return (U16)(sign | (a - 0x38000000 + 0xfff + (a >> 13 & 1)) >> 13);
  shift = 126 - (a >> 23);
  m = (a & 0x7fffff) | 0x800000;
  return (U16)(sign | ((m >> shift) + ((m & ((1u << shift) - 1)) + (m >> shift & 1) > 1u << (shift - 1))));
}""",
}  # fmt: skip


def _saturating(types: Mapping[str, str]) -> dict[str, str]:
    """Casts from floats that truncate and saturate; by way of double, which holds every bound but those of i64."""
    made = {}
    for name, bits in _RANGES.items():
        low = 0 if name[0] == "u" else -(1 << bits - 1)
        most = (1 << bits) - 1 if name[0] == "u" else (1 << bits - 1) - 1
        least = f"(-{most}{'L' if bits == 64 else ''} - 1)" if low else "0"
        made[f"at_to_{name}"] = _SATURATE.format(**{
            "type": types[name], "name": name, "from": "double", "low": f"{float(low)!r}", "high": f"{float(most)!r}",
            "least": least, "most": f"{most}{'L' if bits == 64 else ''}",
        })  # fmt: skip
    return made


def needed(text: str, types: Mapping[str, str], function: str, fmod: str, own: Mapping[str, str]) -> str:
    """The helpers that a text calls, and those that these call, in an order in which each is known before its use.
    `own`: helpers of the language alone."""
    known = HELPERS | _saturating(types) | dict(own)
    words = {"FN": function, "I64": types["i64"], "U64": types["u64"], "U32": types["u32"], "U16": types["u16"],
             "FMOD32": fmod}  # fmt: skip
    wanted, seen = dict[str, None](), set[str]()

    def visit(text: str) -> None:
        for name in dict.fromkeys(re.findall(r"\bat_\w+(?=\()", text)):
            if name in known and name not in seen:
                seen.add(name)
                visit(known[name].partition("{")[2])
                wanted[name] = None

    visit(text)
    code = "\n".join(known[name] for name in wanted)
    return re.sub(r"\b(FN|I64|U64|U32|U16|FMOD32)\b", lambda m: words[m[0]], code)
