"""All teams of given sizes as heads and tails: each team is one head and one tail, whose sums are added.

A search over a million teams of 20 members thus holds sums of a thousand heads and a thousand tails, and what is left
for each team is one addition a sample. Teams are split by member (a tail is what a team has of the last members: when
teams may be large) or by place (a tail is the last members that a team has: for small teams of many members), whichever
takes less time. The members of a head always precede those of its tails.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property
from itertools import pairwise
from math import comb

import numpy as np
import numpy.typing as npt

__all__ = ["NONE", "Halves"]

Ints = npt.NDArray[np.int64]
HEAD = 6  # what a head takes, roughly, if the sum of a tail takes 1 each time that it is taken: once a block
BLOCKS, BLOCK = 4, 1 << 20  # a search takes some blocks, of no more than so many teams
FEW = 1 << 14  # teams that are not worth a thread of their own
NONE = -1  # fills up the rows of members of smaller teams


@dataclass(frozen=True, eq=False)
class Halves:
    """Teams of head k are those with each of the tails ``start[k]:stop[k]``; positions number all teams, head by head.

    Attributes
    ----------
    heads, tails
        Members, rising, each row filled up with −1, shapes (H, …) and (T, …). The first tail has no members.
    run, parent, last
        Tails that differ in their last member only lie side by side: tails ``run[r]:run[r + 1]`` are tail ``parent[r]``
        and one of the members ``last[r]``, ``last[r] + 1``, …, shapes (R + 1,), (R,), (R,). They are all but the first.
    start, stop
        Shape (H,).
    """

    heads: Ints
    tails: Ints
    run: Ints
    parent: Ints
    last: Ints
    start: Ints
    stop: Ints

    @classmethod
    def of(cls, n_members: int, sizes: range) -> Halves:
        """Split the teams of the given sizes (a rising range, from 1 or more)."""
        by_member = [(_numbers_by_member(n_members, sizes, n), _by_member, n) for n in range(n_members + 1)]
        by_place = [(_numbers_by_place(n_members, sizes, n), _by_place, n) for n in range(1, sizes[-1] + 1)]
        blocks = max(BLOCKS, sum(comb(n_members, k) for k in sizes) / BLOCK)
        _, split, n = min([*by_member, *by_place], key=lambda way: HEAD * way[0][0] + blocks * way[0][1])
        return split(n_members, sizes, n)

    @classmethod
    def _of(cls, heads: Ints, tails: list[Ints], parents: list[Ints], start: Ints, stop: Ints) -> Halves:
        """Drop heads without tails, and find the runs of the tails, which come by size; parents as in `_subsets`."""
        stacked, used = _stacked(tails), stop > start
        begin = np.cumsum([0, *map(len, tails)])
        parent = np.concatenate([parents[0], *(b + p for b, p in zip(begin, parents[1:], strict=False))])
        last = stacked.max(axis=1, initial=NONE)
        starts = (parent[1:] != parent[:-1]) | (last[1:] != last[:-1] + 1)
        run = 1 + np.flatnonzero(starts | (np.arange(len(starts)) == 0))
        return cls(heads[used], stacked, np.append(run, begin[-1]), parent[run], last[run], start[used], stop[used])

    @cached_property
    def offset(self) -> Ints:
        """Position of the first team of each head, and the number of all teams, shape (H + 1,)."""
        return np.concatenate([[0], np.cumsum(self.stop - self.start)])

    @cached_property
    def sizes(self) -> tuple[Ints, Ints]:
        """Numbers of members of the heads and of the tails."""
        return (self.heads != NONE).sum(axis=1), (self.tails != NONE).sum(axis=1)

    @cached_property
    def largest(self) -> int:
        """No team has more members."""
        return self.heads.shape[1] + self.tails.shape[1]

    def blocks(self) -> Iterator[slice]:
        """Return runs of heads that have about as many teams each: a single one if there are few."""
        total = int(self.offset[-1])
        n_teams = min(BLOCK, max(FEW, -(-total // BLOCKS)))
        cuts = np.searchsorted(self.offset, np.arange(n_teams, total, n_teams))
        edges = np.unique([0, *cuts, len(self.heads)])
        return (slice(int(a), int(b)) for a, b in pairwise(edges))

    def sizes_of(self, heads: slice) -> Ints:
        """Size of each team of a run of heads, in the order of positions."""
        of_head, of_tail = self.sizes
        runs = zip(of_head[heads], self.start[heads], self.stop[heads], strict=True)
        return np.concatenate([size + of_tail[a:b] for size, a, b in runs])

    def teams(self, positions: Ints) -> dict[int, tuple[Ints, Ints]]:
        """Return, by rising size: members of teams, in lexicographic order, and which of `positions` each team is."""
        head = np.searchsorted(self.offset, positions, side="right") - 1
        tail = self.start[head] + positions - self.offset[head]
        members = np.concatenate([self.heads[head], self.tails[tail]], axis=1)
        size = (members != NONE).sum(axis=1)
        found = {}
        for k in np.unique(size):
            which = np.flatnonzero(size == k)
            rows = members[which]
            rows = rows[rows != NONE].reshape(len(which), k)
            order = np.lexsort(rows.T[::-1])
            found[int(k)] = rows[order], which[order]
        return found


def _numbers_by_member(n_members: int, sizes: range, n_last: int) -> tuple[int, int]:
    """Count heads and tails."""
    heads, tails = (sum(comb(n, k) for k in range(min(n, sizes[-1]) + 1)) for n in (n_members - n_last, n_last))
    return heads, tails


def _by_member(n_members: int, sizes: range, n_last: int) -> Halves:
    """Tails are the subsets of the last members, by rising size, so that those a head can have lie side by side."""
    tails, parents = _subsets(n_members - n_last, n_members, sizes[-1])
    heads, _ = _subsets(0, n_members - n_last, sizes[-1])
    begin = np.concatenate([[0], np.cumsum([len(rows) for rows in tails])])
    size = np.concatenate([np.full(len(rows), k) for k, rows in enumerate(heads)])
    start = begin[np.clip(sizes[0] - size, 0, len(tails))]
    stop = begin[np.clip(sizes[-1] + 1 - size, 0, len(tails))]
    return Halves._of(_stacked(heads), tails, parents, start, stop)


def _numbers_by_place(n_members: int, sizes: range, n_places: int) -> tuple[int, int]:
    """Count heads and tails."""
    head_sizes = range(max(sizes[0] - n_places, 1), sizes[-1] - n_places + 1)
    tails = sum(comb(n_members, k) for k in range(n_places + 1))
    return 1 + sum(comb(n_members - n_places, k) for k in head_sizes), tails


def _by_place(n_members: int, sizes: range, n_places: int) -> Halves:
    """Tails have `n_places` members, from high ones to low ones, so that those above a head lie side by side.

    Teams that are smaller than that have the empty head.
    """
    tails, parents = _subsets(0, n_members, n_places)
    order = np.argsort(-tails[-1][:, 0], kind="stable")
    tails[-1], parents[-1] = tails[-1][order], parents[-1][order]
    begin = np.concatenate([[0], np.cumsum([len(rows) for rows in tails])])
    heads, _ = _subsets(0, n_members - n_places, sizes[-1] - n_places)
    size = np.concatenate([np.full(len(rows), k) for k, rows in enumerate(heads)])
    stacked = _stacked(heads)
    above = n_members - 1 - stacked.max(axis=1, initial=NONE)
    stop = begin[-2] + np.array([comb(int(n), n_places) for n in above])
    stop[size + n_places < sizes[0]] = 0  # too small
    start = np.full(len(stacked), begin[-2])
    start[0], stop[0] = begin[min(sizes[0], n_places + 1)], begin[-1]  # the empty head
    return Halves._of(stacked, tails, parents, start, stop)


def _subsets(low: int, high: int, most: int) -> tuple[list[Ints], list[Ints]]:
    """Subsets of the members low…high−1 by size, 0…most, in lexicographic order.

    And, for each, the position of the subset without its last member among those that are smaller by one.
    """
    subsets, parents = [np.empty((1, 0), dtype=np.int64)], [np.zeros(1, dtype=np.int64)]
    for size in range(1, min(most, high - low) + 1):
        before = subsets[-1][:, -1] if size > 1 else np.array([low - 1])
        children = high - 1 - before
        parent = np.repeat(np.arange(len(before)), children)
        nth = np.arange(len(parent)) - np.repeat(np.cumsum(children) - children, children)
        subsets.append(np.column_stack([subsets[-1][parent], before[parent] + 1 + nth]))
        parents.append(parent)
    return subsets, parents


def _stacked(subsets: list[Ints]) -> Ints:
    out = np.full((sum(map(len, subsets)), len(subsets) - 1), NONE, dtype=np.int64)
    begin = 0
    for rows in subsets:
        out[begin : begin + len(rows), : rows.shape[1]] = rows
        begin += len(rows)
    return out
