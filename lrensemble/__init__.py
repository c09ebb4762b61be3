"""LREnsemble: turn learning-rate tuning into deep ensembles.

The road is ``data set → training → pool → selection → ensemble.json → evaluation → report``; each arrow is one function
here and one command of the same name::

    import lrensemble as lre
    pool = lre.train_pool("digits", model="mlp", policies="default", seeds=2, path="checkpoints/digits")
    ensemble = lre.select(pool, method="greedy", metric="nll")   # validation data only
    report = lre.evaluate(pool, ensemble)                        # test data, once
    print(report)

Names are imported when they are first used, so that ``import lrensemble`` does not wait for PyTorch.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

__version__ = "0.1.0"

_HOME = {
    "Ensemble": "ensemble",
    "Experiment": "experiment",
    "LREnsembleError": "errors",
    "Member": "pool",
    "Policy": "policies",
    "Pool": "pool",
    "Predictions": "predictions",
    "Report": "evaluation",
    "Splits": "data",
    "TrainConfig": "training",
    "build_model": "models",
    "compose": "tuning",
    "cross_validate": "selection",
    "evaluate": "evaluation",
    "explain": "selection",
    "focal_diversity": "diversity",
    "import_arrays": "pool",
    "judge_policies": "tuning",
    "load_data": "data",
    "pareto_front": "selection",
    "parse_policy": "policies",
    "preset": "policies",
    "range_test": "tuning",
    "recommend": "tuning",
    "run": "road",
    "select": "selection",
    "team_diversity": "diversity",
    "train_pool": "training",
    "verify": "tuning",
}

__all__ = sorted(_HOME)  # the table above is the list

if TYPE_CHECKING:
    from lrensemble.data import Splits as Splits
    from lrensemble.data import load_data as load_data
    from lrensemble.diversity import focal_diversity as focal_diversity
    from lrensemble.diversity import team_diversity as team_diversity
    from lrensemble.ensemble import Ensemble as Ensemble
    from lrensemble.errors import LREnsembleError as LREnsembleError
    from lrensemble.evaluation import Report as Report
    from lrensemble.evaluation import evaluate as evaluate
    from lrensemble.experiment import Experiment as Experiment
    from lrensemble.models import build_model as build_model
    from lrensemble.policies import Policy as Policy
    from lrensemble.policies import parse_policy as parse_policy
    from lrensemble.policies import preset as preset
    from lrensemble.pool import Member as Member
    from lrensemble.pool import Pool as Pool
    from lrensemble.pool import import_arrays as import_arrays
    from lrensemble.predictions import Predictions as Predictions
    from lrensemble.road import run as run
    from lrensemble.selection import cross_validate as cross_validate
    from lrensemble.selection import explain as explain
    from lrensemble.selection import pareto_front as pareto_front
    from lrensemble.selection import select as select
    from lrensemble.training import TrainConfig as TrainConfig
    from lrensemble.training import train_pool as train_pool
    from lrensemble.tuning import compose as compose
    from lrensemble.tuning import judge_policies as judge_policies
    from lrensemble.tuning import range_test as range_test
    from lrensemble.tuning import recommend as recommend
    from lrensemble.tuning import verify as verify


def __getattr__(name: str) -> Any:
    if name not in _HOME:
        raise AttributeError(f"module 'lrensemble' has no attribute '{name}'")
    value = getattr(import_module(f"lrensemble.{_HOME[name]}"), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *_HOME})
