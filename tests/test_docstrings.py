"""What modules and interfaces say of themselves."""

from __future__ import annotations

import importlib
import inspect
import pkgutil
import re
import subprocess
import sys

import pytest

from kpm.errors import UserError, pick
from kpm.models.baselines import dse_films, linear_films, lstm, ncdssm, predictor, rkn, spectra

PREDICTORS = [
    dse_films.DSEPredictor,
    linear_films.LinearPredictor,
    linear_films.KernelPredictor,
    lstm.LSTMPredictor,
    ncdssm.NCDSSM,
    rkn.RKN,
]


@pytest.mark.parametrize("name", ["kpm.models", "kpm.metrics"])
def test_a_package_lists_its_modules(name):
    package = importlib.import_module(name)
    listed = re.findall(r"^- `(\w+)`: \S", package.__doc__, re.MULTILINE)
    assert sorted(listed) == sorted(module.name for module in pkgutil.iter_modules(package.__path__))


def test_the_lists_import_nothing():
    code = "import sys, kpm.models, kpm.metrics; sys.exit(any(m in sys.modules for m in ('torch', 'sklearn', 'numpy')))"
    assert subprocess.run([sys.executable, "-c", code]).returncode == 0


@pytest.mark.parametrize("kind", PREDICTORS)
@pytest.mark.parametrize("method", ["beliefs", "advance", "decode"])
def test_predictors_of_films_give_their_shapes(kind, method):
    assert issubclass(kind, predictor.FilmPredictor)
    assert "``(n, t" in vars(kind)[method].__doc__


def test_spectral_methods_give_the_shape_of_a_record():
    methods = [f for f in vars(spectra).values() if inspect.isfunction(f) and f.__module__ == spectra.__name__]
    methods = [f for f in methods if f.__name__.startswith(("hankel", "subspace", "edmd", "realization"))]
    assert len(methods) == 9
    for method in methods:
        assert re.search(r"`y` ``\(time, (2|channels)\)``", method.__doc__), method.__name__


def test_a_choice_of_nothing_says_so():
    with pytest.raises(UserError, match=r"unknown result 'x'; there are none$"):
        pick("result", "x", [])
