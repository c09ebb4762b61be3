"""Selection: from what a pool predicts on validation data to the weights of an ensemble.

`select` is the door; `cross_validate` says what a selection is worth on samples that it did not see. Each method is a
function of (`Task`, size, options) that returns a `Selection`; all methods compare teams through the same scorers,
under the same combination rule and the same order of ties.
"""

from lrensemble.selection.base import Objective, Selection, Task
from lrensemble.selection.explain import explain
from lrensemble.selection.explanation import Explanation
from lrensemble.selection.pareto_front import ParetoPoint, pareto_front
from lrensemble.selection.resplit import CrossValidation
from lrensemble.selection.select import check_request, cross_validate, select
from lrensemble.selection.spec import SelectorSpec, check_options
from lrensemble.selection.table import SELECTORS

__all__ = [
    "SELECTORS",
    "CrossValidation",
    "Explanation",
    "Objective",
    "ParetoPoint",
    "Selection",
    "SelectorSpec",
    "Task",
    "check_options",
    "check_request",
    "cross_validate",
    "explain",
    "pareto_front",
    "select",
]
