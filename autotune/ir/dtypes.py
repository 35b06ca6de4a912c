"""Element types: their names, NumPy counterparts and NumPy 2 promotion. Knows nothing of programs or devices."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache
from typing import Any

import numpy as np

from .errors import SignatureError


@dataclass(frozen=True, slots=True)
class DType:
    """An element type: `name` as users write it, `kind` one of f i u b, `bits` of storage."""

    name: str
    kind: str
    bits: int

    @property
    def bytes(self) -> int:
        return self.bits // 8

    @property
    def is_float(self) -> bool:
        return self.kind == "f"

    @property
    def is_integer(self) -> bool:
        return self.kind in "iu"

    @property
    def numpy(self) -> np.dtype[Any]:
        """The NumPy dtype of the same storage (bf16 needs the ml_dtypes package)."""
        return _numpy_of(self.name)

    @property
    def compute(self) -> DType:
        """The type arithmetic is done in: f16 and bf16 are storage only and compute in f32."""
        return F32 if self.is_float and self.bits == 16 else self

    def __str__(self) -> str:
        return self.name


F16, BF16 = DType("f16", "f", 16), DType("bf16", "f", 16)
F32, F64 = DType("f32", "f", 32), DType("f64", "f", 64)
I8, I16, I32, I64 = (DType(f"i{b}", "i", b) for b in (8, 16, 32, 64))
U8, BOOL = DType("u8", "u", 8), DType("bool", "b", 8)
ALL = (F16, BF16, F32, F64, I8, U8, I16, I32, I64, BOOL)

_BY_NAME = {d.name: d for d in ALL}
_NUMPY_NAMES = {
    "float16": F16, "bfloat16": BF16, "float32": F32, "float64": F64, "int8": I8, "uint8": U8,
    "int16": I16, "int32": I32, "int64": I64, "bool": BOOL,
}  # fmt: skip


@cache
def _numpy_of(name: str) -> np.dtype[Any]:
    if name == "bf16":
        try:
            import ml_dtypes
        except ImportError:
            raise SignatureError("bf16 arrays need the ml_dtypes package: pip install ml_dtypes") from None
        found: np.dtype[Any] = np.dtype(ml_dtypes.bfloat16)
        return found
    return np.dtype(next(long for long, short in _NUMPY_NAMES.items() if short.name == name))


def dtype(value: Any) -> DType:
    """The DType of a short name ("f32"), a NumPy name, type or dtype. Raises SignatureError for any other."""
    if isinstance(value, DType):
        return value
    if isinstance(value, str) and value in _BY_NAME:
        return _BY_NAME[value]
    try:
        name = np.dtype(value).name if value is not None else "None"
    except TypeError:
        name = str(value)
    if name not in _NUMPY_NAMES:
        raise SignatureError(f"dtype {value!r} is not supported; use one of {', '.join(_BY_NAME)}")
    return _NUMPY_NAMES[name]
