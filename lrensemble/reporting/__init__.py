"""Reporting: tables as text and figures as files, from reports, pools and policies. Computes nothing of its own."""

from __future__ import annotations

from lrensemble.evaluation.table import report_table
from lrensemble.reporting.figures import plot_policies, plot_report
from lrensemble.reporting.policy_figures import plot_judgement
from lrensemble.reporting.range_figure import plot_range_test
from lrensemble.reporting.surface_figure import plot_descents
from lrensemble.reporting.tables import (
    ensemble_table,
    members_table,
    plain_table,
    pool_summary,
    resplit_line,
    stopped_table,
)

__all__ = [
    "ensemble_table",
    "members_table",
    "plain_table",
    "plot_descents",
    "plot_judgement",
    "plot_policies",
    "plot_range_test",
    "plot_report",
    "pool_summary",
    "report_table",
    "resplit_line",
    "stopped_table",
]
