"""The whole road in one call: train the pool, select ensembles on validation data, evaluate them on test data once."""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from lrensemble.ensemble import Ensemble
from lrensemble.evaluation import Report, evaluate
from lrensemble.experiment import Experiment
from lrensemble.files import write_text_atomic
from lrensemble.pool import Pool
from lrensemble.selection import select
from lrensemble.training import train_pool

__all__ = ["Outcome", "ensemble_name", "evaluate_and_write", "run", "select_and_save", "train"]

DEFAULT_RULE = "mean_probability"
LONGEST_NAME = 60


@dataclass(frozen=True)
class Outcome:
    """What ``run`` leaves: the open pool, the ensembles, the report, and where each was written."""

    pool: Pool
    ensembles: tuple[Ensemble, ...]
    report: Report
    paths: dict[str, Path]


def run(experiment: Experiment | str | Path, *, progress: bool | Callable[..., None] | None = None) -> Outcome:
    """Train the experiment's pool (or what is missing of it), select, evaluate, and write all results.

    Parameters
    ----------
    experiment
        An `Experiment`, or the path of an experiment file.
    progress
        None or True: live progress on stderr; False: silent; or a callable that is given the events.

    Raises
    ------
    LREnsembleError
        With one sentence that says what to do. What was trained is in the pool; the same call goes on from there.
    """
    plan = experiment if isinstance(experiment, Experiment) else Experiment.load(experiment)
    pool = train(plan, progress=progress)
    saved = [select_and_save(pool, plan, method) for method in plan.selection.methods]
    ensembles = tuple(ensemble for ensemble, _ in saved)
    report, paths = evaluate_and_write(pool, ensembles, saved[0][1].stem)
    files = {f"ensemble {i}" if i > 1 else "ensemble": path for i, (_, path) in enumerate(saved, start=1)}
    return Outcome(pool, ensembles, report, {"pool": pool.path, **files, **paths})


def train(plan: Experiment, *, progress: bool | Callable[..., None] | None = None) -> Pool:
    """Train what is missing of the experiment's pool and record the experiment in it."""
    pool = train_pool(
        plan.data.name,
        model=plan.model,
        policies=plan.policies,
        seeds=plan.seeds,
        snapshots=plan.snapshots,
        halving=plan.halving,
        budget=plan.budget,
        path=plan.pool,
        config=plan.train,
        lr_range=plan.lr_range,
        progress=progress,
        **_settings(plan.data, "train_size", "val_size", "test_size", "split_seed", "root", "resize", "stream"),
        **_settings(plan.compute, "engine", "jobs", "stack", "device", "scheduler", "checkpoint_seconds", "readers"),
    )
    pool.save_experiment(plan.to_toml())
    return pool


def select_and_save(pool: Pool, plan: Experiment, method: str) -> tuple[Ensemble, Path]:
    """Select one ensemble as the experiment says and save it in the pool."""
    settings = _settings(plan.selection, "metric", "size", "rule", "seed", "resplits", "calibrate", "families")
    ensemble = select(pool, method=method, **settings, **plan.selection.options.get(method, {}))
    return ensemble, pool.save_ensemble(ensemble, ensemble_name(ensemble))


def ensemble_name(ensemble: Ensemble) -> str:
    """File stem of an ensemble: method, objective, and what else was asked for that is not the default.

    ``greedy-nll``, ``top-k-accuracy-majority-size3``: the same request has the same file, another one has another.
    Options that make no short plain text are told apart by eight digits of their hash.
    """
    rule = ensemble.rule if ensemble.rule != DEFAULT_RULE else ""
    asked = {key: value for key, value in ensemble.options.items() if (key, value) != ("seed", 0)}
    options = [f"{key}{value}" for key, value in sorted(asked.items())]
    stem = "-".join(filter(None, [ensemble.method, ensemble.metric, rule]))
    full = "-".join([stem, *options])
    if len(full) <= LONGEST_NAME and all(re.fullmatch(r"\w[\w.]*", option, re.ASCII) for option in options):
        return full
    return f"{stem}-{hashlib.sha256(json.dumps(asked, sort_keys=True).encode()).hexdigest()[:8]}"


def evaluate_and_write(
    pool: Pool, ensembles: tuple[Ensemble, ...], name: str, **more: Any
) -> tuple[Report, dict[str, Path]]:
    """Evaluate on the pool's test data and write ``report.json``, ``report.txt`` and ``report.png``.

    `more` are further arguments of `evaluate`: ``shifts``, ``control``.
    """
    from lrensemble.reporting import plot_report

    report = evaluate(pool, ensembles, **more)
    folder = pool.reports_path(name)
    write_text_atomic(folder / "report.json", report.to_json())
    write_text_atomic(folder / "report.txt", f"{report}\n")
    plot_report(report, folder / "report.png")
    return report, {"report": folder / "report.json", "figure": folder / "report.png"}


def _settings(section: Any, *names: str) -> dict[str, Any]:
    return {name: getattr(section, name) for name in names}
