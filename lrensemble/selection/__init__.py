"""Selection: from what a pool predicts on validation data to the weights of an ensemble.

`select` is the door. Each method is a function of (`Task`, size, options) that returns a `Selection`; all methods
compare teams through the same scorers, under the same combination rule and the same order of ties.
"""

from lrensemble.selection.base import Objective, Selection, Task
from lrensemble.selection.select import check_request, select
from lrensemble.selection.table import SELECTORS, SelectorSpec

__all__ = ["SELECTORS", "Objective", "Selection", "SelectorSpec", "Task", "check_request", "select"]
