"""The arithmetics in which a nest is evaluated: `Float64` and `Residues`. Knows primitives and combiners, not nests.

Integers and booleans keep their own width and wrap around in both; only floats differ.
"""

from __future__ import annotations

import random
import zlib
from collections.abc import Callable
from fractions import Fraction
from math import isfinite, isnan
from typing import Any

import numpy as np
import numpy.typing as npt

from .dtypes import DType
from .errors import VerifyError
from .expr import Op
from .program import COMBINERS

Array = npt.NDArray[Any]
Monoid = tuple[np.ufunc, Callable[[Array], Array], Callable[[Array], Array]]

_SAME: Callable[[Array], Array] = lambda x: x  # noqa: E731
_EXACT: dict[str, Callable[..., Any]] = {
    "add": np.add, "sub": np.subtract, "mul": np.multiply, "div": np.floor_divide, "mod": np.remainder,
    "max": np.maximum, "min": np.minimum, "fma": lambda a, b, c: a * b + c, "neg": np.negative, "abs": np.abs,
    "floor": _SAME, "rint": _SAME, "lt": np.less, "le": np.less_equal, "eq": np.equal, "ne": np.not_equal,
    "where": np.where, "and": np.bitwise_and, "or": np.bitwise_or, "xor": np.bitwise_xor, "not": np.invert,
    "shl": np.left_shift, "shr": np.right_shift,
}  # fmt: skip
_FLOAT: dict[str, Callable[..., Any]] = _EXACT | {
    "div": np.divide, "exp": np.exp, "exp2": np.exp2, "log": np.log, "log2": np.log2, "sqrt": np.sqrt, "sin": np.sin,
    "recip": lambda x: 1.0 / x, "floor": np.floor, "rint": np.rint,
}  # fmt: skip


class Float64:
    """Floats widened to float64, with NumPy's semantics; casts to integers truncate and saturate, NaN gives 0."""

    seed = 0
    floats: np.dtype[Any] = np.dtype(np.float64)

    def storage(self, dtype: DType) -> np.dtype[Any]:
        return self.floats if dtype.is_float else dtype.numpy

    def encode(self, values: Any, dtype: DType) -> Array:
        """An input array in the representation of this domain."""
        return np.asarray(values).astype(self.storage(dtype))

    def constant(self, value: float | int | bool, dtype: DType) -> Array:
        return np.asarray(value, self.storage(dtype))

    def apply(self, node: Op, args: list[Array]) -> Array:
        """A primitive on evaluated arguments."""
        source = node.args[-1].dtype
        if node.name == "cast":
            return np.asarray(args[0] != 0) if node.dtype.kind == "b" else self.cast(args[0], source, node.dtype)
        return np.asarray(self.primitive(node.name, args) if source.is_float else _EXACT[node.name](*args))

    def primitive(self, name: str, args: list[Array]) -> Any:
        return _FLOAT[name](*args)

    def cast(self, x: Array, source: DType, target: DType) -> Array:
        if target.is_float or not source.is_float:
            return x.astype(self.storage(target))
        info = np.iinfo(target.numpy)
        whole = np.where(np.isnan(x), 0.0, np.trunc(x))
        inside = np.where(whole <= float(info.min), info.min, whole.astype(target.numpy))
        return np.where(whole >= float(info.max), info.max, inside).astype(target.numpy)

    def monoid(self, combiner: str, dtype: DType) -> Monoid:
        """A combiner as a ufunc between two conversions."""
        ufunc: Any = (_FLOAT if dtype.is_float else _EXACT)[COMBINERS[combiner].primitive]
        return ufunc, _SAME, _SAME

    def contract(self, x: Array, y: Array, spec: str) -> Array:
        """The sum of products that an einsum `spec` names."""
        return np.asarray(np.einsum(spec, x, y, optimize=True))


P = (1 << 31) - 1  # the prime, and the mask of the 31-bit words that hashes and orders are


class Residues(Float64):
    """Floats as residues modulo P = 2^31 - 1, from a seed.

    Field operations and rational constants are exact. max, min and comparisons use a hashed order: a keyed bijection,
    the infinities its ends. 0 lies a sixteenth below its upper end (odd seeds: above its lower end), so that a maximum
    of many values can be below 0, a minimum above. Other primitives and narrowing casts are fixed random maps.
    """

    floats = np.dtype(np.int64)

    def __init__(self, seed: int = 0) -> None:
        rng = random.Random(seed)
        self.seed, self._salt, self._shift = seed, rng.getrandbits(31), 0
        self._keys = [rng.getrandbits(31) | 1 for _ in range(3)]
        self._inverses = [pow(k, -1, P + 1) for k in reversed(self._keys)]
        self._shift = (P >> 4 if seed % 2 else P - (P >> 4)) - int(self._order(np.asarray(0)))
        # P itself is no residue, so where it is an end of the order its neighbour is.
        self._infinities = {
            sign: next(x for k in ends if (x := int(self._unorder(np.asarray(k)))) != P)
            for sign, ends in ((-1, (0, 1)), (1, (P, P - 1)))
        }

    def encode(self, values: Any, dtype: DType) -> Array:
        array = super().encode(values, dtype)
        if dtype.is_float and (np.asarray(values).dtype.kind not in "iu" or (array % P != array).any()):
            raise ValueError(f"floats of this domain are integers in 0..{P - 1}, got {np.asarray(values).dtype}")
        return array

    def constant(self, value: float | int | bool, dtype: DType) -> Array:
        if not dtype.is_float:
            return super().constant(value, dtype)
        if isnan(value):
            return self._map("nan", np.asarray(1))
        if not isfinite(value):
            return np.asarray(self._infinities[1 if value > 0 else -1])
        ratio = Fraction(value)
        return np.asarray(ratio.numerator * pow(ratio.denominator, -1, P) % P)

    def primitive(self, name: str, args: list[Array]) -> Any:
        match name, args:
            case "add", [x, y]:
                return (x + y) % P
            case "sub", [x, y]:
                return (x - y) % P
            case "neg", [x]:
                return -x % P
            case "mul", [x, y]:
                return x * y % P
            case "fma", [x, y, z]:
                return (x * y + z) % P
            case "recip", [x]:
                return _inverse(x)
            case "div", [x, y]:
                return x * _inverse(y) % P
            case (("max" | "min"), [x, y]):
                return self._unorder(_EXACT[name](self._order(x), self._order(y)))
            case (("lt" | "le"), [x, y]):
                return _EXACT[name](self._order(x), self._order(y))
            case (("eq" | "ne" | "where"), _):
                return _EXACT[name](*args)
            case "mod", [x, y]:
                return self._map(name, (self._map(name, x) + y) % P)
            case _, [x]:
                return self._map(name, x)
        raise VerifyError(f"{name} is not defined on floats")

    def cast(self, x: Array, source: DType, target: DType) -> Array:
        if not source.is_float:
            return x.astype(np.int64) % P if target.is_float else x.astype(target.numpy)
        if target.is_float and target.bits > source.bits:
            return x
        return self._map(f"cast {target}", x).astype(self.storage(target))

    def monoid(self, combiner: str, dtype: DType) -> Monoid:
        ufunc, same, _ = super().monoid(combiner, dtype)
        match dtype.is_float, combiner:
            case False, _:
                return ufunc, same, same
            case True, "sum":
                return ufunc, same, lambda x: x % P
            case True, "prod":
                return _PRODUCT, lambda x: x.astype(object), lambda x: np.asarray(x, np.int64)
        return ufunc, self._order, self._unorder

    def contract(self, x: Array, y: Array, spec: str) -> Array:
        # Halves of 16 bits: their products add up exactly in float64 for any sum of up to 2^21 terms.
        halves = [((v >> 16).astype(np.float64), (v & 0xFFFF).astype(np.float64)) for v in (x, y)]
        products = (super(Residues, self).contract(a, b, spec) for a in halves[0] for b in halves[1])
        high, mid, cross, low = (p.astype(np.int64) % P for p in products)
        return (((high << 16) + mid + cross) % P * (1 << 16) + low) % P

    def _hash(self, x: Array) -> Array:
        for key in self._keys:
            x = x * key & P
            x = x ^ (x >> 16)
        return x

    def _map(self, name: str, x: Array) -> Array:
        return self._hash(x ^ (zlib.crc32(name.encode()) ^ self._salt) & P) % P

    def _order(self, x: Array) -> Array:
        return (self._hash(x) + self._shift) & P

    def _unorder(self, x: Array) -> Array:
        x = (x - self._shift) & P
        for key in self._inverses:
            x = (x ^ (x >> 16)) * key & P
        return x


_PRODUCT: np.ufunc = np.frompyfunc(lambda a, b: a * b % P, 2, 1, identity=1)


def _inverse(x: Array) -> Array:
    """x^(P - 2), which is 1/x, and 0 for 0. `powers[k]` is x^(2^k - 1)."""
    powers = {1: x}
    for k, j in ((2, 1), (4, 2), (8, 4), (16, 8), (24, 8), (28, 4), (29, 1)):
        y = powers[k - j]
        for _ in range(j):
            y = y * y % P
        powers[k] = y * powers[j] % P
    y = powers[29] * powers[29] % P
    return y * y % P * x % P
