"""Evaluation: score ensembles and baselines on test data, once, with intervals, a paired test and a verdict.

`protocol` says what is done in what order; `baselines` who is compared, `statistics` how sure one can be, `verdict`
what is concluded, `report` what is kept of it, `table` how it reads.
"""

from __future__ import annotations

from lrensemble.evaluation.protocol import evaluate
from lrensemble.evaluation.report import Comparison, MemberScore, Report, Row, Score
from lrensemble.evaluation.statistics import McNemar, bootstrap_means, mcnemar, percentile_interval
from lrensemble.evaluation.table import report_table

__all__ = [
    "Comparison",
    "McNemar",
    "MemberScore",
    "Report",
    "Row",
    "Score",
    "bootstrap_means",
    "evaluate",
    "mcnemar",
    "percentile_interval",
    "report_table",
]
