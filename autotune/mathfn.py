"""Functions composed of primitives, written as NumPy expressions: they run on arrays and are traced like users' code.

Arguments are f32 or f64; the polynomials are chosen by dtype. The stated errors hold for both, subnormal results
excepted, given exp, log, log2 and sin within 1 ulp; tests measure them against float64 (f32) and 40 digits (f64). The
polynomials are minimax fits (Remez exchange in 50 digits). Must not know tracers, programs or ufuncs.
"""

from __future__ import annotations

from collections.abc import Sequence
from math import factorial, pi
from typing import Any

import numpy as np

Array = Any  # an ndarray or whatever implements NumPy's protocols

_TANH = {
    4: (-0.33333284, 0.1333149, -0.053743497, 0.020650584, -0.005717041),
    8: (-0.33333333333333315, 0.1333333333332989, -0.05396825396613395, 0.02186948847064151, -0.00886323434130579,
        0.0035921142693501355, -0.0014557276043834818, 0.0005894585703838406, -0.00023702997904284184,
        9.158955700464553e-05, -3.0217725559193847e-05, 6.055530303988152e-06),
}  # fmt: skip
_ATAN = {
    4: (-0.33332953, 0.19977866, -0.1387915, 0.08057869),
    8: (-0.333333333333332, 0.19999999999953663, -0.14285714280204131, 0.1111111078382025, -0.09090897767251582,
        0.07692060364948954, -0.06663105492697657, 0.058478976689483875, -0.050393321059851726, 0.03806498800350078,
        -0.01790738058300949),
}  # fmt: skip
# f32: erf(x) / x on |x| < 3.925 as a quotient of polynomials in x^2 (1.9e-8 off at most); beyond, erf is 1 in f32.
_ERF_F32 = (
    (1.1283791462, 0.190368378611, 0.0527442686646, 0.00376414200035, 0.000284877894238, 2.05075685912e-6),
    (1.0, 0.50204232632, 0.11409389956, 0.0149662404121, 0.0011622304831, 3.80983829799e-5),
)
_ERF = (  # f64: erf(x) / x - 1 in x^2 for |x| < 1
    0.1283791670955126, -0.3761263890318375, 0.11283791670954885, -0.02686617064507787, 0.0052239776248283985,
    -0.0008548326981424113, 0.00012055331132916607, -1.4925595771510586e-05, 1.6461008470897266e-06,
    -1.6350396185651564e-07, 1.466032868532933e-08, -1.1374956310598293e-09, 5.960687365484333e-11,
)  # fmt: skip
_LOG_ERFC = (  # f64: -log(erfc(x)) in x - 2 for 1 < x < 6
    5.364941264616633, 4.418160805994332, 0.923750841823993, 0.016465118140495904, -0.0035707563431240283,
    0.0007323993532580811, -0.00013530938329609562, 2.070653623710987e-05, -1.9520013055522503e-06,
    -2.037932221590486e-07, 1.7287544485089178e-07, -5.767194825202436e-08, 1.423360533778005e-08,
    -2.61974586443514e-09, 1.5224536309268991e-10, 8.414348741529228e-11, -1.7396624968664446e-11,
)  # fmt: skip
_PI = {  # pi as a sum of parts whose products with small multiples of 1/2 are exact
    4: (3.140625, 9.67502593994140625e-4, 1.50995799097837643e-7),
    8: (3.14159250259399414062, 1.50995788317231927e-7, 1.07806057163162381e-14),
}


def _horner(x: Array, coefficients: Sequence[float]) -> Array:
    total: Array = coefficients[-1]
    for c in reversed(coefficients[:-1]):
        total = total * x + c
    return total


def tanh(x: Array) -> Array:
    """2 ulp."""
    a, square = np.abs(x), x * x
    large = 1 - 2 / (np.exp(a * 2) + 1)
    small = x + x * (square * _horner(square, _TANH[x.dtype.itemsize]))
    return np.where(a < 0.625, small, np.where(x < 0, -large, large))


def erf(x: Array) -> Array:
    """6 ulp in f32, by a quotient of two polynomials: on CPUs a division beside the multiplications costs less than
    longer polynomials. 1.5 ulp in f64, by a polynomial near zero and 1 - exp(polynomial) elsewhere."""
    if x.dtype.itemsize == 4:
        near = np.clip(x, -3.925, 3.925)
        above, below = (_horner(near * near, c) for c in _ERF_F32)
        return near * above / below
    a, square = np.abs(x), x * x
    large = 1 - np.exp(-_horner(np.minimum(a, 6) - 2, _LOG_ERFC))
    return np.where(a < 1, x + x * _horner(square, _ERF), np.where(x < 0, -large, large))


def expm1(x: Array) -> Array:
    """3 ulp: Taylor's series for |x| < 1/2."""
    terms = [1 / factorial(n) for n in range(2, 9 if x.dtype.itemsize == 4 else 16)]
    return np.where(np.abs(x) < 0.5, x + x * (x * _horner(x, terms)), np.exp(x) - 1)


def log1p(x: Array) -> Array:
    """3 ulp, by log(u) * x / (u - 1) with u = 1 + x rounded (W. Kahan)."""
    u = x + 1
    return np.where(u == 1, x, np.where(u < np.inf, np.log(u) * (x / (u - 1)), u))


def log10(x: Array) -> Array:
    """3 ulp."""
    return np.log2(x) * 0.30102999566398119521


def _halves(x: Array) -> tuple[Array, Array]:
    """exp(|x|) / 2 without overflow before the result's own, and exp(-|x|) / 2."""
    root = np.exp(np.abs(x) * 0.5)
    half = root * 0.5
    return half * root, 0.5 / root / root


def sinh(x: Array) -> Array:
    """5 ulp: Taylor's series for |x| < 1."""
    up, down = _halves(x)
    terms = [1 / factorial(n) for n in range(3, 11 if x.dtype.itemsize == 4 else 19, 2)]
    square = x * x
    large = up - down
    return np.where(np.abs(x) < 1, x + x * (square * _horner(square, terms)), np.where(x < 0, -large, large))


def cosh(x: Array) -> Array:
    """5 ulp."""
    up, down = _halves(x)
    return up + down


def cos(x: Array) -> Array:
    """(-1)^(n+1) sin(|x| - (n + 1/2) pi): 2 ulp up to |x| = 10^4, near the zeros too; less and less exact beyond."""
    a = np.abs(x)
    n = np.rint(a * (1 / pi) - 0.5)
    first, second, third = (part * (n + 0.5) for part in _PI[x.dtype.itemsize])
    odd = n - 2 * np.floor(n * 0.5)
    return np.sin(a - first - second - third) * (2 * odd - 1)


def arctan(x: Array) -> Array:
    """3 ulp: arctan(a) = c + arctan(y) with |y| < tan(pi/8)."""
    a = np.abs(x)
    far, middle = a > 2.414213562373095, a > 0.41421356237309503
    top = np.where(far, -1.0, np.where(middle, a - 1, a))
    bottom = np.where(far, a, np.where(middle, a + 1, 1.0))
    y = (top / bottom).astype(x.dtype)
    square = y * y
    angle = np.where(far, pi / 2, np.where(middle, pi / 4, 0.0)).astype(x.dtype)
    value = angle + (y + y * (square * _horner(square, _ATAN[x.dtype.itemsize])))
    return np.where(x < 0, -value, value)


def power(x: Array, y: Array) -> Array:
    """x ** y: integers up to 64 by repeated squaring (1 ulp a product), 0.5 by sqrt; else exp2(y * log2|x|) in f64:
    1 ulp in f32, a relative error of (2 + |y * log2 x|) * 2^-53 in f64. A base -0.0 counts as 0.0."""
    if isinstance(y, (int, float, np.generic)):
        if y == 0.5:
            return np.sqrt(x)
        if abs(number := float(y)) <= 64 and number.is_integer():
            return integer_power(x, int(number))
    wide, exponent = x.astype(np.float64), y.astype(np.float64) if hasattr(y, "astype") else float(y)
    a, half = np.abs(wide), exponent * 0.5
    whole = np.rint(exponent) == exponent
    odd = whole & (np.floor(half) != half)
    value = np.where(a == 1, 1.0, np.exp2(np.log2(a) * exponent))
    signed = np.where(odd, -value, np.where(whole | (a == np.inf), value, np.nan))
    return np.where((wide == 1) | (exponent == 0), 1.0, np.where(wide < 0, signed, value)).astype(x.dtype)


def integer_power(x: Array, n: int) -> Array:
    """x ** n by repeated squaring."""
    if n < 0:
        return 1 / integer_power(x, -n)
    if n < 2:
        return x if n else np.ones_like(x)
    half = integer_power(x, n // 2)
    return half * half * x if n % 2 else half * half
