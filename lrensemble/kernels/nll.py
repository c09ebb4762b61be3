"""Kernels of NLL: products in place of sums of logarithms, and upper bounds of many such sums at once."""

from typing import Any

import numpy as np
from numba import types

from lrensemble.kernels import compiled

__all__ = ["bounds_of_sums", "leading_products", "levels", "part", "product", "products", "sum_of_logs"]

LANES = 64  # products that grow side by side
DEPTH = 8  # factors before exponents are taken out: 8 numbers above 1e-38 do not underflow a float64
FRACTION = 0x000FFFFFFFFFFFFF  # of the bits of a float64; what is above it is 1023 + exponent, for a number above 0
ONE = 0x3FF0000000000000  # bits of 1.0
LOG_2 = np.log(2.0)
EPSILON = 2.0**-52
CONSTANT = 110.0  # a sample's share of the constant part of a bound is less: logarithms of numbers in 1e-38…1e9, and 2
BLOCK = 1024  # samples of which sums stay in the cache next to a core
TURNS = 512  # products of so many mantissas below 2 do not overflow

TOTAL = types.Array(types.float64, 1, "C", readonly=True)
OWN = types.Array(types.float32, 2, "C", readonly=True)
ROW = types.Array(types.float32, 1, "C", readonly=True)
INDICES = types.Array(types.int64, 1, "C", readonly=True)


@compiled(types.Tuple([types.float64, types.int64])(TOTAL, ROW, types.float64))
def product(total: Any, own: Any, least: Any) -> Any:
    """Mantissa in 1…2 and exponent of Π_n max(total[n] + own[n], least)."""
    n = len(total)
    mantissa, factor = np.ones(LANES), np.empty(LANES)
    mantissa_bits, factor_bits = mantissa.view(np.int64), factor.view(np.int64)
    exponents = np.zeros(LANES, dtype=np.int64)
    whole = n - n % (LANES * DEPTH)
    for turn, start in enumerate(range(0, whole, LANES * DEPTH)):
        factor[:] = 1.0
        for row in range(start, start + LANES * DEPTH, LANES):
            for i in range(LANES):
                value = total[row + i] + own[row + i]
                factor[i] *= value if value > least else least
        for i in range(LANES):
            exponents[i] += (factor_bits[i] >> 52) - 1023
            factor_bits[i] = (factor_bits[i] & FRACTION) | ONE
            mantissa[i] *= factor[i]
        if turn % TURNS == TURNS - 1:
            for i in range(LANES):
                exponents[i] += (mantissa_bits[i] >> 52) - 1023
                mantissa_bits[i] = (mantissa_bits[i] & FRACTION) | ONE
    factor[:] = 1.0
    for i in range(whole, n):
        value = total[i] + own[i]
        factor[i % LANES] *= value if value > least else least
    for i in range(LANES):
        exponents[i] += (factor_bits[i] >> 52) - 1023
        factor_bits[i] = (factor_bits[i] & FRACTION) | ONE
        mantissa[i] *= factor[i]
        exponents[i] += (mantissa_bits[i] >> 52) - 1023
        mantissa_bits[i] = (mantissa_bits[i] & FRACTION) | ONE
    half = LANES // 2
    while half > 0:
        for i in range(half):
            mantissa[i] *= mantissa[half + i]
        half //= 2
    exponent = exponents.sum() + (mantissa_bits[0] >> 52) - 1023
    mantissa_bits[0] = (mantissa_bits[0] & FRACTION) | ONE
    return mantissa[0], exponent


@compiled(types.float64(TOTAL, ROW, types.float64))
def sum_of_logs(total: Any, own: Any, least: Any) -> Any:
    """Σ_n log max(total[n] + own[n], least)."""
    mantissa, exponent = product(total, own, least)
    return LOG_2 * exponent + np.log(mantissa)


@compiled(types.void(TOTAL, OWN, INDICES, types.float64, types.float64[::1], types.float64[::1]))
def products(total: Any, own: Any, members: Any, least: Any, mantissa: Any, exponent: Any) -> None:
    """Write mantissa and exponent of Π_n max(total[n] + own[j, n], least) to the last two, for the members j in turn.

    `total` is (N,), `own` (M, N), 1e-38 < least, sums < 1e38.
    """
    for i in range(len(members)):
        mantissa[i], exponent[i] = product(total, own[members[i]], least)


@compiled(types.void(OWN, types.float32[::1], types.float32[::1], types.float32[::1]))
def levels(own: Any, mean: Any, low: Any, top: Any) -> None:
    """Write to the last three, (N,), what the members `own` (M, N) have on each sample: about the mean, least, most."""
    count, n = own.shape
    for start in range(0, n, BLOCK):
        stop = min(start + BLOCK, n)
        sums, least, most = mean[start:stop], low[start:stop], top[start:stop]
        sums[:] = least[:] = most[:] = own[0, start:stop]
        for j in range(1, count):
            row = own[j, start:stop]
            for i in range(len(row)):
                value = row[i]
                sums[i] += value
                least[i] = min(least[i], value)
                most[i] = max(most[i], value)
        sums /= np.float32(count)


@compiled(types.void(OWN, TOTAL, INDICES, types.float64[::1], types.float32[:, ::1]), fastmath={"reassoc", "contract"})
def part(own: Any, weights: Any, kept: Any, shares: Any, out: Any) -> None:
    """``shares[j] = Σ_n own[j, n] weights[n]``, in float64, and ``out[j] = own[j, kept]``."""
    for j in range(len(own)):
        row, out_row, total = own[j], out[j], 0.0
        for i in range(len(row)):
            total += row[i] * weights[i]
        shares[j] = total
        for i in range(len(kept)):
            out_row[i] = row[kept[i]]


@compiled(
    types.void(TOTAL, OWN, INDICES, ROW, ROW, types.float64, types.float64, types.float64[::1]),
    fastmath={"reassoc", "contract"},
)
def bounds_of_sums(total: Any, own: Any, members: Any, mean: Any, top: Any, size: Any, least: Any, out: Any) -> None:
    """Write upper bounds of Σ_n log max(total[n] + own[j, n], least) to `out`, for the members j in turn.

    Of each sample, max(s + p, least) ≤ s' + p with s' = s + least, and of 0 ≤ p ≤ top the logarithm is at most
    log(s' + a) + (p − a)/(s' + a) − (p − a)²/2(s' + max(top, a))², for any a ≥ 0: its second derivative is at most
    −1/(s' + max(top, a))² there. A bound is then Σ_n p (u − p v) and a constant. It is raised by more than what n
    roundings take away, in whatever order the sums are done.

    `top` (N,) is at least every ``own[j]``, `mean` (N,) is about their mean, and `size` is the number of members in
    `total`. The parabola touches the logarithm half-way between the mean of all and that of the team.
    """
    n, count = len(total), len(members)
    at, u, v = np.empty(n), np.empty(n), np.empty(n)
    of_mean, of_total = (0.5, 0.5 / size) if size > 0 else (1.0, 0.0)
    constant = 0.0
    for i in range(n):
        start, a = total[i] + least, of_mean * mean[i] + of_total * total[i]
        at[i] = start + a
        far = start + max(np.float64(top[i]), a)
        slope, bend = 1.0 / at[i], 0.5 / (far * far)
        u[i], v[i] = slope + 2.0 * a * bend, bend
        constant -= a * (slope + a * bend)
    constant += sum_of_logs(at, np.zeros(n, dtype=np.float32), 0.0)
    rounding = EPSILON * (n + 8)
    for k in range(0, count, 4):  # four side by side, to load u and v once; the last ones more than once if need be
        k0, k1, k2, k3 = k, min(k + 1, count - 1), min(k + 2, count - 1), min(k + 3, count - 1)
        p0, p1, p2, p3 = own[members[k0]], own[members[k1]], own[members[k2]], own[members[k3]]
        s0 = s1 = s2 = s3 = 0.0
        for i in range(n):
            s0 += p0[i] * (u[i] - p0[i] * v[i])
            s1 += p1[i] * (u[i] - p1[i] * v[i])
            s2 += p2[i] * (u[i] - p2[i] * v[i])
            s3 += p3[i] * (u[i] - p3[i] * v[i])
        out[k0], out[k1], out[k2], out[k3] = s0, s1, s2, s3
    for k in range(count):
        out[k] += constant + rounding * (CONSTANT * n + 3.0 * out[k])


@compiled(
    types.void(
        TOTAL,
        OWN,
        TOTAL,
        OWN,
        ROW,
        ROW,
        TOTAL,
        INDICES,
        types.float64,
        types.float64,
        types.float64,
        types.float64[::1],
        types.float64[::1],
    )
)
def leading_products(
    total: Any,
    own: Any,
    left_total: Any,
    left_own: Any,
    mean: Any,
    top: Any,
    agreed: Any,
    members: Any,
    size: Any,
    least: Any,
    slack: Any,
    mantissa: Any,
    exponent: Any,
) -> None:
    """Write what `products` does to the last two, but 1 and −∞ for members that cannot be best.

    Those from `left_total` to `top` are of the samples that are left without the ones of which `agreed` bounds the sums
    of logarithms. Members come in the order of their upper bounds. One that leads is replaced by a closer one, with the
    sum over the samples that are left; only if that still leads the whole product is taken. Once a bound is below the
    best sum so far by more than `slack`, all others are passed over.
    """
    bounds = np.empty(len(members))
    bounds_of_sums(left_total, left_own, members, mean, top, size, least, bounds)
    bounds += agreed
    closer = np.zeros(len(members), dtype=np.bool_)
    mantissa[:], exponent[:] = 1.0, -np.inf
    best = -np.inf
    while True:
        i = bounds.argmax()
        if bounds[i] == -np.inf or bounds[i] < best - slack:
            return
        if closer[i]:
            mantissa[i], exponent[i] = product(total, own[members[i]], least)
            best = max(best, LOG_2 * exponent[i] + np.log(mantissa[i]))
            bounds[i] = -np.inf
        else:
            bounds[i] = min(bounds[i], sum_of_logs(left_total, left_own[members[i]], least) + agreed[i])
            closer[i] = True
