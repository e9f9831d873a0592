import subprocess
import sys

import pytest

import energyql


@pytest.mark.parametrize("name", energyql.__all__)
def test_public_names(name):
    assert getattr(energyql, name) is not None
    assert name in dir(energyql)


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
    code = (
        "import energyql, energyql.pipeline.generate; print(energyql.pipeline.generate._pipeline.cache_info().currsize)"
    )
    done = subprocess.run([sys.executable, "-W", "error", "-c", code], capture_output=True, text=True, check=False)
    assert (done.stdout, done.stderr) == ("0\n", "")
