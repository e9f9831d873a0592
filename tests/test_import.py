import subprocess
import sys

import pytest

import energyql
from energyql import errors
from energyql.errors import EnergyQLError

PUBLIC = {getattr(energyql, name) for name in energyql.__all__ if isinstance(getattr(energyql, name), type)}


@pytest.mark.parametrize("name", energyql.__all__)
def test_public_names(name):
    assert getattr(energyql, name) is not None
    assert name in dir(energyql)


@pytest.mark.parametrize("kind", [EnergyQLError, UserWarning])
def test_all_errors_and_warnings_are_public(kind):
    mine = [value for value in vars(errors).values() if isinstance(value, type) and issubclass(value, kind)]
    assert len(mine) > 1
    assert [value.__name__ for value in mine if value.__module__ == errors.__name__ and value not in PUBLIC] == []


def test_unknown_names():
    with pytest.raises(AttributeError, match="module 'energyql' has no attribute 'generator'"):
        energyql.generator  # noqa: B018


def test_a_star_brings_the_public_names():
    names = {}
    exec("from energyql import *", names)
    assert set(energyql.__all__) <= set(names)


@pytest.mark.parametrize(
    "code",
    [
        "import energyql",
        "import energyql; energyql.parse('smile AND NOT glasses')",
        "from energyql import E; str(E.smile & ~E.glasses)",
        "import energyql.models, energyql.cli.main",
        "import energyql; dir(energyql)",
    ],
)
def test_torch_is_imported_when_needed_and_not_before(code):
    check = f"{code}\nimport sys; sys.exit(sorted({{'torch', 'numpy', 'PIL', 'jinja2'}} & set(sys.modules)) or None)"
    done = subprocess.run([sys.executable, "-c", check], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr


def test_importing_prints_nothing_and_reads_no_model():
    code = "import energyql, energyql.pipeline.session; print(energyql.pipeline.session._session.cache_info().currsize)"
    done = subprocess.run([sys.executable, "-W", "error", "-c", code], capture_output=True, text=True, check=False)
    assert (done.stdout, done.stderr) == ("0\n", "")
