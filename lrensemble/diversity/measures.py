"""The diversity measures: functions of (pair tables, teams of one size), and their table `DIVERSITY`.

Every measure is returned raw, as its paper defines it; which direction is the diverse one is data
(`higher_is_more_diverse`). The notation is that of Kuncheva & Whitaker 2003: Nab counts the samples with member i
right (a = 1) or wrong (a = 0), and member j likewise for b.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from itertools import combinations

import numpy as np
import numpy.typing as npt

from lrensemble.diversity.tables import PairTables

__all__ = ["DIVERSITY", "DiversityMetric"]

Doubles = npt.NDArray[np.float64]
Teams = npt.NDArray[np.intp]  # (T, L): T teams of L distinct members
Measure = Callable[[PairTables, Teams], Doubles]
BLOCK = 1 << 22  # bytes of votes held at a time


@dataclass(frozen=True)
class DiversityMetric:
    """One measure of diversity.

    Attributes
    ----------
    name
        Key in `DIVERSITY`.
    title
        Full name.
    higher_is_more_diverse
        Direction.
    formula, source
        For listings and documentation.
    function
        ``(tables, teams (T, L)) -> (T,)``, raw values.
    """

    name: str
    title: str
    higher_is_more_diverse: bool
    formula: str
    source: str
    function: Measure

    @property
    def description(self) -> str:
        """One line for listings."""
        return f"{self.title} ({'higher' if self.higher_is_more_diverse else 'lower'} = more diverse), {self.source}"


def cohen_kappa(tables: PairTables, teams: Teams) -> Doubles:
    """Mean over pairs of (p_o − p_e)/(1 − p_e) on predicted labels; a pair with p_e = 1 counts 1."""
    n = tables.n_samples
    return _pair_mean(1 - _ratio(n * n - n * tables.agree, n * n - tables.chance), teams)


def q_statistic(tables: PairTables, teams: Teams) -> Doubles:
    """Mean over pairs of (N11 N00 − N01 N10)/(N11 N00 + N01 N10); a pair with 0/0 counts 0."""
    same, crossed = _odds(tables)
    return _pair_mean(_ratio(same - crossed, same + crossed), teams)


def correlation(tables: PairTables, teams: Teams) -> Doubles:
    """Mean over pairs of the correlation of being right; a pair with a member that never varies counts 0."""
    same, crossed = _odds(tables)
    spread = np.sqrt(tables.n_right * (tables.n_samples - tables.n_right))
    return _pair_mean(_ratio(same - crossed, np.outer(spread, spread)), teams)


def disagreement(tables: PairTables, teams: Teams) -> Doubles:
    """Mean over pairs of (N01 + N10)/N."""
    return _pair_mean(tables.differ, teams) / tables.n_samples


def double_fault(tables: PairTables, teams: Teams) -> Doubles:
    """Mean over pairs of N00/N."""
    return _pair_mean(tables.both_wrong, teams) / tables.n_samples


def fleiss_kappa(tables: PairTables, teams: Teams) -> Doubles:
    """(P̄ − P_e)/(1 − P_e) on predicted labels; 1 when P_e = 1.

    P̄, the mean over samples of the share of agreeing pairs, is the mean over pairs of their agreement; and
    P_e = Σ_c p_c² expands into the pair products of class counts. So two tables of pairs are enough.
    """
    n, size = tables.n_samples, teams.shape[1]
    own = tables.chance.diagonal()[teams].sum(axis=1)
    votes = n * size
    expected = own + size * (size - 1) * _pair_mean(tables.chance, teams)
    observed = votes * size * _pair_mean(tables.agree, teams)
    return 1 - _ratio(votes * votes - observed, votes * votes - expected)


def kohavi_wolpert(tables: PairTables, teams: Teams) -> Doubles:
    """(1/NL²) Σ l(L − l), l = members right on a sample; which is disagreement × (L − 1)/2L."""
    size = teams.shape[1]
    return disagreement(tables, teams) * (size - 1) / (2 * size)


def generalised_diversity(tables: PairTables, teams: Teams) -> Doubles:
    """1 − p(2)/p(1); p(1): chance that a random member fails, p(2): that two random ones do; 0 without any failure."""
    failures = tables.both_wrong.diagonal()[teams].mean(axis=1)
    return np.where(failures > 0, 1 - _ratio(_pair_mean(tables.both_wrong, teams), failures), 0.0)


def entropy(tables: PairTables, teams: Teams) -> Doubles:
    """Mean over samples of min(l, L − l)/(L − ⌈L/2⌉), l = members right on the sample."""
    size = teams.shape[1]
    right = tables.right.astype(np.min_scalar_type(size))
    out = np.empty(len(teams))
    step = max(1, BLOCK // right[0].nbytes)
    for start in range(0, len(teams), step):
        columns = teams[start : start + step].T
        votes = right[columns[0]]
        for column in columns[1:]:
            votes += right[column]
        out[start : start + step] = np.minimum(votes, size - votes).mean(axis=1)
    return out / (size // 2)


def _odds(tables: PairTables) -> tuple[Doubles, Doubles]:
    """N11·N00 and N01·N10 of every pair."""
    lone = tables.n_right[:, None] - tables.both_right  # (i, j): i right, j wrong
    return tables.both_right * tables.both_wrong, lone * lone.T


def _ratio(above: Doubles, below: Doubles) -> Doubles:
    """above/below, and 0 where the denominator is 0."""
    return np.divide(above, below, out=np.zeros_like(below), where=below != 0)


def _pair_mean(table: Doubles, teams: Teams) -> Doubles:
    """Mean of table[i, j] over the pairs i < j of each team."""
    columns = np.ascontiguousarray(teams.T)
    rows, flat = columns * len(table), table.ravel()
    total = np.zeros(len(teams))
    for a, b in combinations(range(len(columns)), 2):
        total += flat.take(rows[a] + columns[b])
    return total / (len(columns) * (len(columns) - 1) / 2)


_KW03 = "Kuncheva & Whitaker 2003"

DIVERSITY: dict[str, DiversityMetric] = {
    metric.name: metric
    for metric in (
        DiversityMetric("CK", "Cohen's kappa", False, "mean (p_o − p_e)/(1 − p_e)", "Cohen 1960", cohen_kappa),
        DiversityMetric(
            "QS", "Q statistic", False, "mean (N11·N00 − N01·N10)/(N11·N00 + N01·N10)", "Yule 1900", q_statistic
        ),
        DiversityMetric("BD", "binary disagreement", True, "mean (N01 + N10)/N", "Skalak 1996", disagreement),
        DiversityMetric("FK", "Fleiss' kappa", False, "(P̄ − P_e)/(1 − P_e)", "Fleiss 1971", fleiss_kappa),
        DiversityMetric(
            "KW", "Kohavi–Wolpert variance", True, "Σ l(L − l)/NL²", "Kohavi & Wolpert 1996", kohavi_wolpert
        ),
        DiversityMetric(
            "GD", "generalised diversity", True, "1 − p(2)/p(1)", "Partridge & Krzanowski 1997", generalised_diversity
        ),
        DiversityMetric(
            "COR", "correlation coefficient", False, "mean (N11·N00 − N01·N10)/√(n_i·n̄_i·n_j·n̄_j)", _KW03, correlation
        ),
        DiversityMetric("DF", "double fault", False, "mean N00/N", "Giacinto & Roli 2001", double_fault),
        DiversityMetric("ENT", "entropy of votes", True, "mean min(l, L − l)/(L − ⌈L/2⌉)", _KW03, entropy),
    )
}
