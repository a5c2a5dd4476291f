"""exp, log and sum with the same bits everywhere: for what must not depend on the batch or device.

A library `exp`, `log` or `sum` may round differently in the vectorised body and the scalar tail of a
loop, between builds, and between CPU and GPU. The functions here use only +, -, *, /, max and scaling
by powers of two, which IEEE 754 defines exactly, in an order that depends on shapes alone.
"""

import math
from decimal import Decimal

import torch
from torch import Tensor

# log 2 in two parts: the first has 32 bits, so that multiples of it below 2^20 are exact.
_LN2_HIGH = math.floor(math.log(2.0) * 2**32) / 2**32
_LN2_LOW = float(Decimal("0.693147180559945309417232121458176568") - Decimal(_LN2_HIGH))
_EXP_TERMS = tuple(1.0 / math.factorial(n) for n in range(15))
LOG_TERMS = tuple(2.0 / (2 * n + 1) for n in range(12))  # the first eight give 1e-12
_LOWEST = -700.0
_HALVINGS = torch.tensor([2.0**-n for n in range(1012)], dtype=torch.float64)


def horner(x: Tensor, terms: tuple[float, ...]) -> Tensor:
    """sum_n terms[n] x^n, shaped like x."""
    # Separate multiply and add: a fused one would round differently where it is not available.
    value = (x * terms[-1]).add_(terms[-2])
    for term in reversed(terms[:-2]):
        value.mul_(x).add_(term)
    return value


def exp(x: Tensor) -> Tensor:
    """exp(x) for x <= 0 (float64, to 1e-16 relative; below -700 as at -700; NaN stays NaN)."""
    x = x.clamp(min=_LOWEST)
    halvings = torch.round(x / -math.log(2.0))
    rest = (x + halvings * _LN2_HIGH) + halvings * _LN2_LOW
    return horner(rest, _EXP_TERMS) * _HALVINGS.to(x.device)[halvings.nan_to_num().long()]


def log(x: Tensor) -> Tensor:
    """log(x), positive normal x, float64, to 1e-15: atanh series of m in [sqrt(1/2), sqrt(2)), x = m 2^e."""
    mantissa, exponent = torch.frexp(x)
    low = mantissa < math.sqrt(0.5)
    mantissa = torch.where(low, mantissa * 2, mantissa)
    s = (mantissa - 1) / (mantissa + 1)
    return (exponent.double() - low.double()) * math.log(2.0) + s * horner(s * s, LOG_TERMS)


def tree_sum(values: Tensor) -> Tensor:
    """Sum over the last dimension, in an order that depends on its length only."""
    n = values.shape[-1]
    while n > 1:
        half = (n + 1) // 2
        if n % 2:
            head = values[..., :half].clone()
            head[..., : n - half] += values[..., half:]
        else:
            head = values[..., :half] + values[..., half:]
        values, n = head, half
    return values[..., 0]
