"""Kernels of the exhaustive search: bounds for all teams of a block at once, and exact scores of teams in a list.

A block of teams is given as *heads* and *tails* (see `lrensemble.selection.halves`): a team is a head and a tail, whose
sums are added. Sums of all tails are tabled for a few samples at a time, so that the table stays in the processor's
cache, and the innermost loops run over tails that lie side by side.
"""

from typing import Any

import numpy as np
from numba import types

from lrensemble.kernels import compiled

__all__ = ["log_bounds", "log_means", "lost_bounds", "lost_counts"]

GROUP = 8  # probabilities that are multiplied before the exponent is taken off
TABLE = 1 << 17  # numbers in a table of tails: half a megabyte
MOST = 30_000  # samples that are counted in 16 bits
WIDTH = 128  # tails are taken in multiples of this, those beyond the last in vain: loops over what is left are slow
LEAST = 2.0**-125  # of a product in float32: what is smaller is rounded up to this

SINGLES = types.Array(types.float32, 2, "C", readonly=True)
DOUBLES = types.Array(types.float64, 1, "C", readonly=True)
INDICES = types.Array(types.int64, 1, "C", readonly=True)
TEAMS = types.Array(types.int64, 2, "C", readonly=True)
FLAGS = types.Array(types.boolean, 1, "C", readonly=True)
BLOCK = (INDICES, INDICES, INDICES, TEAMS, INDICES, INDICES, INDICES)  # run, parent, last, heads, start, stop, offset


@compiled(
    types.void(types.float64[:, ::1], types.int64, INDICES, INDICES, INDICES, types.float64[::1], types.float64[::1])
)
def _tail_sums(values: Any, column: Any, run: Any, parent: Any, last: Any, members: Any, sums: Any) -> None:
    """Sum over the members of each tail: its parent and one member more, which rises by 1 in a run of one parent."""
    members[:] = values[:, column]
    sums[0] = 0.0
    for r in range(len(run) - 1):
        base, tails = sums[parent[r]], sums[run[r] : run[r + 1]]
        more = members[last[r] : last[r] + len(tails)]
        for t in range(len(tails)):
            tails[t] = base + more[t]


@compiled(types.void(types.float64[:, ::1], INDICES, types.int64, types.float64[::1]))
def _head_sums(values: Any, head: Any, n: Any, sums: Any) -> None:
    """Sum over the members of one head (−1: none), in the first `n` columns."""
    sums[:n] = 0.0
    for j in head:
        if j >= 0:
            for s in range(n):
                sums[s] += values[j, s]


@compiled(
    types.void(types.float64[::1], types.float64, types.int16[::1]),
    types.void(types.float64[::1], types.float64, types.float64[::1]),
)
def _round_up(values: Any, scale: Any, out: Any) -> None:
    """Write values × scale to `out`, rounded up to integers."""
    for i in range(len(values)):
        out[i] = np.ceil(values[i] * scale)


@compiled(types.void(SINGLES, *BLOCK, types.float32[::1], types.int32[::1]))
def log_bounds(
    own: Any,
    run: Any,
    parent: Any,
    last: Any,
    heads: Any,
    start: Any,
    stop: Any,
    offset: Any,
    mantissa: Any,
    exponent: Any,
) -> None:
    """Multiply, for each team, (1/M) Σ_j own (M, N) over all samples: the product is mantissa × 2^exponent.

    It is not less than the truth, apart from rounding: a relative 2^−24 for each number that is rounded, three a
    sample. No factor is above 1, so that a product which falls below the smallest float32 can be rounded up to that.
    Each head has room for a multiple of `WIDTH` teams from its `offset` on.
    """
    n_members, n_samples, n_tails = own.shape[0], own.shape[1], run[-1]
    tile = max(GROUP, min(64, TABLE // n_tails // GROUP * GROUP))
    table = np.ones((tile, n_tails + WIDTH), dtype=np.float32)
    values, members, sums = np.zeros((n_members, tile)), np.empty(n_members), np.empty(n_tails)
    head_sums, h = np.zeros(tile), np.zeros(tile, dtype=np.float32)
    all_bits, least = mantissa.view(np.int32), np.float32(LEAST)
    for begin in range(0, n_samples, tile):
        n = min(tile, n_samples - begin)
        for j in range(n_members):
            for s in range(n):
                values[j, s] = np.float64(own[j, begin + s]) / n_members
        for s in range(n):
            _tail_sums(values, s, run, parent, last, members, sums)
            for t in range(n_tails):
                table[s, t] = sums[t]
        for s in range(n, tile):  # factors of 1
            table[s] = 1
            h[s] = 0
        for k in range(len(heads)):
            _head_sums(values, heads[k], n, head_sums)
            for s in range(n):
                h[s] = head_sums[s]
            a, width = start[k], (stop[k] - start[k] + WIDTH - 1) // WIDTH * WIDTH
            product, power, bits = mantissa[offset[k] :], exponent[offset[k] :], all_bits[offset[k] :]
            for g in range(0, n, GROUP):
                for i in range(g, g + GROUP, 4):
                    h0, h1, h2, h3 = h[i], h[i + 1], h[i + 2], h[i + 3]
                    t0, t1, t2, t3 = table[i, a:], table[i + 1, a:], table[i + 2, a:], table[i + 3, a:]
                    for t in range(width):
                        product[t] *= ((t0[t] + h0) * (t1[t] + h1)) * ((t2[t] + h2) * (t3[t] + h3))
                for t in range(width):
                    product[t] = product[t] if product[t] > least else least
                for t in range(width):
                    power[t] += (bits[t] >> np.int32(23)) - np.int32(127)
                    bits[t] = (bits[t] & np.int32(0x7FFFFF)) | np.int32(0x3F800000)


_LOST = (SINGLES, SINGLES, INDICES, INDICES, DOUBLES, *BLOCK, types.float64)


@compiled(
    types.void(*_LOST, types.int16[::1], types.int32[::1]),
    types.void(*_LOST, types.float64[::1], types.int32[::1]),
)
def lost_bounds(
    own: Any,
    rivals: Any,
    sample: Any,
    first: Any,
    guard: Any,
    run: Any,
    parent: Any,
    last: Any,
    heads: Any,
    start: Any,
    stop: Any,
    offset: Any,
    scale: Any,
    memory: Any,
    lost: Any,
) -> None:
    """Count, for each team, the samples that it surely gets wrong: those with a duel of margin Σ_j below −guard.

    Duels as in `lrensemble.kernels.accuracy`, members last. One that no tail can turn is decided for a whole head. The
    table lies in `memory`, whose type is that of the comparisons. Sums are rounded up to multiples of 1/`scale`, which
    can only make a loss less sure.
    """
    n_members, n_samples, n_tails = own.shape[1], len(first) - 1, run[-1]
    n_rows = len(memory) // (n_tails + WIDTH)
    table = memory[: n_rows * (n_tails + WIDTH)].reshape(n_rows, n_tails + WIDTH)
    values, members, sums = np.empty((n_members, n_rows)), np.empty(n_members), np.empty(n_tails)
    lowest, highest, limit = np.empty_like(table[:, 0]), np.empty_like(table[:, 0]), np.empty_like(table[:, 0])
    head_sums, undecided = np.empty(n_rows), np.empty(n_rows, dtype=np.int64)
    count, flag = np.empty(n_tails + WIDTH, dtype=np.int16), np.empty(n_tails + WIDTH, dtype=np.int16)
    done = 0
    while done < n_samples:
        begin, to = first[done], done + 1
        while to < min(n_samples, done + MOST) and first[to + 1] - begin <= n_rows:
            to += 1
        n = first[to] - begin
        for d in range(n):
            for j in range(n_members):
                values[j, d] = np.float64(own[sample[begin + d], j]) - np.float64(rivals[begin + d, j])
            _tail_sums(values, d, run, parent, last, members, sums)
            _round_up(sums, scale, table[d])
            lowest[d], highest[d] = table[d, :n_tails].min(), table[d, :n_tails].max()
        for k in range(len(heads)):
            _head_sums(values, heads[k], n, head_sums)
            for d in range(n):
                head_sums[d] += guard[begin + d]
            _round_up(head_sums[:n], scale, limit[:n])
            for d in range(n):
                limit[d] = -limit[d]
            n_teams, a = stop[k] - start[k], start[k]
            width = (n_teams + WIDTH - 1) // WIDTH * WIDTH
            always = np.int16(0)
            count[:width] = 0
            for s in range(done, to):
                n_open = 0
                for d in range(first[s] - begin, first[s + 1] - begin):
                    x = limit[d]
                    if highest[d] < x:
                        n_open = -1
                        break
                    if lowest[d] < x:
                        undecided[n_open] = d
                        n_open += 1
                if n_open < 0:
                    always += np.int16(1)
                elif n_open == 1:
                    x, row = limit[undecided[0]], table[undecided[0], a:]
                    for t in range(width):
                        count[t] += np.int16(row[t] < x)
                elif n_open > 1:  # two duels at a time, for half as many passes over the flags; two alone need no flags
                    x, row = limit[undecided[0]], table[undecided[0], a:]
                    x2, row2 = limit[undecided[1]], table[undecided[1], a:]
                    if n_open == 2:
                        for t in range(width):
                            count[t] += np.int16(row[t] < x) | np.int16(row2[t] < x2)
                        continue
                    for t in range(width):
                        flag[t] = np.int16(row[t] < x) | np.int16(row2[t] < x2)
                    for i in range(2, n_open - 1, 2):
                        x, row = limit[undecided[i]], table[undecided[i], a:]
                        x2, row2 = limit[undecided[i + 1]], table[undecided[i + 1], a:]
                        for t in range(width):
                            flag[t] |= np.int16(row[t] < x) | np.int16(row2[t] < x2)
                    x, row = limit[undecided[n_open - 1]], table[undecided[n_open - 1], a:]
                    for t in range(width):
                        count[t] += flag[t] | np.int16(row[t] < x)
            found = lost[offset[k] : offset[k] + n_teams]
            for t in range(n_teams):
                found[t] += count[t] + always
        done = to


@compiled(types.void(SINGLES, DOUBLES, types.float64, TEAMS, types.float64[::1]))
def log_means(own: Any, begun: Any, least: Any, teams: Any, out: Any) -> None:
    """Mean over samples of log max(begun + Σ_j own, least) for each team; neighbours share the sums that they can."""
    length, n_samples = teams.shape[1], own.shape[1]
    sums = np.empty((length, n_samples))
    sums[0] = begun
    mantissa = np.empty(GROUP)
    bits = mantissa.view(np.int64)
    whole = n_samples // (GROUP * GROUP) * GROUP * GROUP
    for i in range(len(teams)):
        same = 0
        while i and same < length - 1 and teams[i, same] == teams[i - 1, same]:
            same += 1
        for level in range(same, length - 1):
            p = own[teams[i, level]]
            for s in range(n_samples):
                sums[level + 1, s] = sums[level, s] + p[s]
        base, p = sums[length - 1], own[teams[i, length - 1]]
        mantissa[:] = 1.0
        power = 0
        for s in range(0, whole, GROUP * GROUP):
            for g in range(s, s + GROUP * GROUP, GROUP):
                for lane in range(GROUP):
                    x = base[g + lane] + p[g + lane]
                    mantissa[lane] *= x if x > least else least
            for lane in range(GROUP):
                power += (bits[lane] >> 52) - 1023
                bits[lane] = (bits[lane] & 0xFFFFFFFFFFFFF) | 0x3FF0000000000000
        total = power * np.log(2.0)
        for lane in range(GROUP):
            total += np.log(mantissa[lane])
        for s in range(whole, n_samples):
            total += np.log(max(base[s] + p[s], least))
        out[i] = total / n_samples


@compiled(types.void(SINGLES, SINGLES, FLAGS, INDICES, DOUBLES, DOUBLES, TEAMS, types.int64[::1]))
def lost_counts(
    own: Any, rivals: Any, comes_before: Any, slot: Any, own_begun: Any, rivals_begun: Any, teams: Any, out: Any
) -> None:
    """Count the samples that each team gets wrong: begun + Σ_j own against begun + Σ_j rivals, as float64 has it.

    Duels lie in slots: slot i holds one duel of each of the first ``slot[i + 1] − slot[i]`` samples, in their order.
    """
    length, n_samples, n_duels = teams.shape[1], own.shape[1], rivals.shape[1]
    own_sums, rival_sums = np.empty((length, n_samples)), np.empty((length, n_duels))
    own_sums[0], rival_sums[0] = own_begun, rivals_begun
    mine, flags = np.empty(n_samples), np.empty(n_samples, dtype=np.uint8)
    for i in range(len(teams)):
        same = 0
        while i and same < length - 1 and teams[i, same] == teams[i - 1, same]:
            same += 1
        for level in range(same, length - 1):
            p, q = own[teams[i, level]], rivals[teams[i, level]]
            for s in range(n_samples):
                own_sums[level + 1, s] = own_sums[level, s] + p[s]
            for d in range(n_duels):
                rival_sums[level + 1, d] = rival_sums[level, d] + q[d]
        p, q, theirs = own[teams[i, length - 1]], rivals[teams[i, length - 1]], rival_sums[length - 1]
        for s in range(n_samples):
            mine[s] = own_sums[length - 1, s] + p[s]
        flags[:] = 0
        for k in range(len(slot) - 1):
            a, n = slot[k], slot[k + 1] - slot[k]
            before, r, q_k = comes_before[a : a + n], theirs[a : a + n], q[a : a + n]
            for s in range(n):
                x = r[s] + q_k[s]
                flags[s] |= np.uint8(x > mine[s]) | (np.uint8(x == mine[s]) & np.uint8(before[s]))
        total = 0
        for s in range(n_samples):
            total += flags[s]
        out[i] = total
