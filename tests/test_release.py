"""What is released: an sdist, and wheels from it and from the checkout, that draw where no checkout is."""

import os
import re
import shutil
import subprocess
import sys
import sysconfig
import tarfile
import zipfile
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
pytestmark = pytest.mark.slow
BUILD = "import sys; from setuptools import build_meta; build_meta.build_{kind}(sys.argv[1])"
DRAW = """
import energyql, sys
assert energyql.__file__.startswith(sys.prefix), energyql.__file__
for model in ("avatars", "postcards"):
    name = next(iter(energyql.list_attributes(model)))
    assert len(energyql.generate(energyql.E[name], n=2, model=model, progress=False)) == 2
print(energyql.__version__)
"""


def run(*words, cwd):
    variables = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}
    done = subprocess.run(
        list(map(str, words)), cwd=cwd, env=variables, capture_output=True, text=True, check=False
    )  # fmt: skip
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def environment(folder):
    """Make a virtual environment and return its Python; it has no pip of its own, which would take seconds."""
    run(sys.executable, "-m", "venv", "--without-pip", folder, cwd=folder.parent)
    return folder / ("Scripts" if os.name == "nt" else "bin") / "python"


def install(python, *words):
    """Install what `words` name into an environment."""
    run(sys.executable, "-m", "pip", "--python", python, "install", "--quiet", *words, cwd=python.parent)


def built(python, kind, source, out):
    """Build an sdist or a wheel of a source tree as pip does."""
    run(python, "-c", BUILD.format(kind=kind), out, cwd=source)
    (path,) = out.glob("*.tar.gz" if kind == "sdist" else "*.whl")
    return path


@pytest.fixture(scope="module")
def released(tmp_path_factory):
    """The sdist, a wheel from the checkout, and a wheel from the sdist."""
    folder = tmp_path_factory.mktemp("release")
    python = environment(folder / "tools")
    (requirement,) = re.findall(r'^requires = \["(.*)"\]$', (ROOT / "pyproject.toml").read_text(), re.MULTILINE)
    install(python, requirement)
    names = run("git", "ls-files", "-z", cwd=ROOT).split("\0")
    for name in filter(None, names):  # without what lies about in the checkout
        if (ROOT / name).is_file():
            (folder / "checkout" / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(ROOT / name, folder / "checkout" / name)
    sdist = built(python, "sdist", folder / "checkout", folder)
    with tarfile.open(sdist) as file:
        file.extractall(folder / "unpacked", filter="data")
    (unpacked,) = (folder / "unpacked").iterdir()
    (folder / "first").mkdir()
    (folder / "second").mkdir()
    return (
        sdist,
        built(python, "wheel", folder / "checkout", folder / "first"),
        built(python, "wheel", unpacked, folder / "second"),
    )  # fmt: skip


def test_the_sdist_is_complete(released):
    """It makes the wheel that the checkout makes."""
    _, first, second = released
    with zipfile.ZipFile(first) as one, zipfile.ZipFile(second) as other:
        records = [{entry.filename: entry.CRC for entry in file.infolist()} for file in (one, other)]
        records = [{name: crc for name, crc in record.items() if not name.endswith("RECORD")} for record in records]
    assert records[0] == records[1]
    assert {"energyql/grammar/query.lark", "energyql/models/avatars/generator.safetensors"} <= records[0].keys()
    assert not [name for name in records[0] if name.startswith(("tests", "benchmarks", "recipes", "docs"))]


def test_the_wheel_draws(released, tmp_path):
    """In an environment of its own, which takes the libraries from this one but not the checkout."""
    python = environment(tmp_path / "venv")
    install(python, "--no-deps", "--no-index", released[2])
    (site,) = run(python, "-c", "import site; print(site.getsitepackages()[0])", cwd=tmp_path).splitlines()
    libraries = [sysconfig.get_path("purelib"), *(path for path in sys.path if path.endswith("site-packages"))]
    (Path(site) / "libraries.pth").write_text("\n".join(dict.fromkeys(libraries)))
    assert run(python, "-c", DRAW, cwd=tmp_path).split() == [released[1].name.split("-")[1]]
    program = python.with_name("energyql")
    printed = run(program, "generate", "smile AND hat", "-n", "2", "--out", "faces.png", cwd=tmp_path)
    assert "Saved faces.png" in printed
    assert (tmp_path / "faces.png").stat().st_size > 1000
