"""Evaluation: score ensembles and baselines on test data, once, with intervals, a paired test and a verdict.

`protocol` says what is done in what order; `baselines` and `control` who is compared, `scores` by what, `statistics`
how sure one can be, `equivalent` what an ensemble is worth in networks, `shifts` what happens on other data, `verdict`
what is concluded, `report` what is kept of it, `table` how it reads.
"""

from __future__ import annotations

from lrensemble.evaluation.protocol import evaluate
from lrensemble.evaluation.report import Comparison, MemberScore, Report, Row, Score, Shift, ShiftScore
from lrensemble.evaluation.statistics import McNemar, bootstrap_means, mcnemar, percentile_interval
from lrensemble.evaluation.table import report_table

__all__ = [
    "Comparison",
    "McNemar",
    "MemberScore",
    "Report",
    "Row",
    "Score",
    "Shift",
    "ShiftScore",
    "bootstrap_means",
    "evaluate",
    "mcnemar",
    "percentile_interval",
    "report_table",
]
