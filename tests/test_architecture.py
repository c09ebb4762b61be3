"""The house keeps its shape: nothing imports upwards, no circles, light imports stay light, every `__all__` is true."""

import ast
import importlib
import pkgutil
import subprocess
import sys
from pathlib import Path

import pytest

import lrensemble

PACKAGE = Path(lrensemble.__file__).parent

# Rooms by floor: a module may import from rooms of lower floors, from its own room, and from the rooms named beside it.
FLOORS = {
    "errors": -1,
    "files": 0,
    "kernels": 0,
    "memory": 0,
    "references": 0,
    "predictions": 1,
    "policies": 1,
    "data": 1,
    "models": 1,
    "diversity": 2,
    "combine": 1,
    "stacked": 1,
    "stacker": 1,
    "calibration": 2,
    "metrics": 3,
    "ensemble": 3,
    "pool": 4,
    "selection": 5,
    "training": 5,
    "evaluation": 6,
    "tuning": 6,
    "reporting": 7,
    "experiment": 8,
    "road": 9,
    "cli": 10,
}
MODULES = sorted(m.name for m in pkgutil.walk_packages([str(PACKAGE)], "lrensemble."))


def room_of(module):
    return module.split(".")[1]


def imports_of(module):
    """Modules of the package that `module` imports, at once or when its functions are called (not for types only)."""
    spec = importlib.util.find_spec(module)
    tree = ast.parse(Path(spec.origin).read_text(encoding="utf-8"))
    for node in ast.walk(tree):
        if isinstance(node, ast.If) and "TYPE_CHECKING" in ast.unparse(node.test):
            node.body = []
    for node in ast.walk(tree):
        if isinstance(node, ast.ImportFrom) and (node.module or "").startswith("lrensemble."):
            yield node.module
        elif isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names if alias.name.startswith("lrensemble."))


@pytest.mark.parametrize("module", [m for m in MODULES if room_of(m) != "__main__"])
def test_imports_point_down(module):
    own = room_of(module)
    for imported in imports_of(module):
        other = room_of(imported)
        assert other == own or FLOORS[other] < FLOORS[own], f"{module} imports {imported}, which is not below it"


@pytest.mark.parametrize("module", MODULES)
def test_every_module_says_what_it_is_for(module):
    if module == "lrensemble.__main__":
        return
    assert importlib.import_module(module).__doc__


@pytest.mark.parametrize("module", [m for m in MODULES if m != "lrensemble.__main__"])
def test_all_names_exist(module):
    loaded = importlib.import_module(module)
    for name in getattr(loaded, "__all__", []):
        assert hasattr(loaded, name)


def test_public_names_exist():
    for name in lrensemble.__all__:
        assert getattr(lrensemble, name) is not None
    with pytest.raises(AttributeError, match="no attribute 'nothing'"):
        _ = lrensemble.nothing
    assert set(lrensemble.__all__) <= set(dir(lrensemble))


HEAVY = (
    "torch",
    "torchvision",
    "matplotlib",
    "sklearn",
    "scipy",
    "joblib",
    "pydantic",
    "h5py",
    "pandas",
    "numba",
    "optuna",
    "sqlalchemy",
)


@pytest.mark.parametrize(
    "statement",
    [
        "import lrensemble",
        "import lrensemble as lre; lre.parse_policy; lre.select; lre.Predictions; lre.team_diversity",
        "from lrensemble.cli.main import build_parser; build_parser()",
        "from lrensemble.models import MODELS; from lrensemble.data import DATASETS",
        "from lrensemble.training import TrainConfig, OPTIMIZERS",
    ],
)
def test_light_imports_stay_light(statement):
    code = f"{statement}\nimport sys\nprint([m for m in {HEAVY!r} if m in sys.modules])"
    found = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert found.stdout.strip() == "[]"
