"""ONNX models as generators, against their formulas, in folders, on the command line, and damaged."""

from __future__ import annotations

import json
import math
import shutil
import sys
import warnings
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from markdown import call
from needed import needed
from PIL import Image

needed("onnxruntime")
ONNX = needed("onnx")
from onnx_files import gan, heights, outside, save  # noqa: E402

from energyql import ArgumentError, AttributeSpec, CheckpointWarning, Model, ModelError, Vocabulary, generate  # noqa: E402
from energyql.attributes.pictures import PictureBank  # noqa: E402
from energyql.files import fingerprint, read_json, write_json  # noqa: E402
from energyql.generators.families import CONFIG, module_fingerprint  # noqa: E402
from energyql.generators.load import load_generator, save_converted  # noqa: E402
from energyql.generators.onnx import OnnxGenerator, load_onnx  # noqa: E402
from energyql.numerics.random import normals  # noqa: E402
from energyql.pipeline.explain import explain  # noqa: E402
from energyql.pipeline.model import load_model  # noqa: E402
from energyql.training.heads import HeadSettings  # noqa: E402
from energyql.training.run import train_attributes  # noqa: E402

FLOAT16, FLOAT, DOUBLE = ONNX.TensorProto.FLOAT16, ONNX.TensorProto.FLOAT, ONNX.TensorProto.DOUBLE
UINT8, INT64, STRING = ONNX.TensorProto.UINT8, ONNX.TensorProto.INT64, ONNX.TensorProto.STRING
LAND = {"noise": "noise", "scale": 5.0, "fixed": {"sigma": 5.0}, "conditions": {"level": (-1.0, 3.0)}}
CONVERT = ["--noise", "noise", "--scale", "5", "--fixed", "sigma=5", "--condition", "level=-1..3", "--range", "-1..1"]


@pytest.fixture
def land(tmp_path: Path) -> OnnxGenerator:
    return load_onnx(heights(tmp_path / "land.onnx"), **LAND, values=(-1, 1))


def latents(generator: Any, count: int = 5) -> torch.Tensor:
    return normals(1, 0, count, generator.z_dim, stream="test")


# What is drawn


def test_noise_fixed_inputs_and_conditions(land: OnnxGenerator) -> None:
    z = latents(land)
    level = -1 + 4 * torch.special.ndtr(z[:, -1])
    expected = torch.tanh(z[:, :-1].view(5, 1, 16, 16) + level[:, None, None, None])
    assert (land.z_dim, land.z_shape) == (257, (1, 16, 16))
    assert torch.equal(land.encode(z, 0.5), z / 2)
    assert torch.allclose(land.synthesize(z), expected, atol=1e-6)


def test_a_condition_of_whole_numbers(tmp_path: Path) -> None:
    generator = load_onnx(heights(tmp_path / "a.onnx", level=INT64), **LAND | {"fixed": {"sigma": 1e9}}, values=(-1, 1))
    z = latents(generator, 400)
    levels = generator.synthesize(z).mean((1, 2, 3)).atanh().round()
    shares = [(levels == level).float().mean().item() for level in range(-1, 4)]
    assert shares == pytest.approx([0.2] * 5, abs=4 * math.sqrt(0.16 / 400))
    extreme = generator.synthesize(torch.tensor([[0.0] * 256 + [side] for side in (-40.0, 40.0)]))
    assert extreme.mean((1, 2, 3)).atanh().round().tolist() == [-1, 3]


@pytest.mark.parametrize("threads", [1, 2])
def test_a_picture_has_the_same_bits_in_any_batch_and_is_one_call(
    tmp_path: Path, threads: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    runs, before = list[int](), torch.get_num_threads()
    raw_picture = OnnxGenerator.raw_picture
    for generator in (
        load_onnx(gan(tmp_path / "gan.onnx"), values=(-1, 1)),
        load_onnx(heights(tmp_path / "a.onnx"), **LAND, values=(-1, 1)),
    ):
        monkeypatch.setattr(OnnxGenerator, "raw_picture", lambda self, w: runs.append(len(w)) or raw_picture(self, w))
        z = latents(generator)
        try:
            torch.set_num_threads(threads)
            together = generator.synthesize(z)
            assert runs == [1] * 5
            assert torch.equal(together, torch.cat([generator.synthesize(row) for row in z.split(1)]))
            assert torch.equal(together, torch.cat([generator.synthesize(part) for part in z.split([2, 3])]))
        finally:
            torch.set_num_threads(before)
        runs.clear()


@pytest.mark.parametrize(
    ("last", "kind", "values"),
    [
        ([("Cast", "image", "other", {"to": DOUBLE})], DOUBLE, (-1, 1)),
        ([("Cast", "image", "other", {"to": FLOAT16})], FLOAT16, (-1, 1)),
        ([("Transpose", "image", "other", {"perm": [0, 2, 3, 1]})], FLOAT, (-1, 1)),
        ([("Add", "image one", "up"), ("Mul", "up half", "other")], FLOAT, (0, 1)),
    ],
)  # fmt: skip
def test_other_forms_of_pictures(tmp_path: Path, last: Any, kind: int, values: tuple[float, float]) -> None:
    plain = load_onnx(gan(tmp_path / "plain.onnx"), values=(-1, 1))
    other = load_onnx(gan(tmp_path / "other.onnx", last, output="other", other=kind), values=values)
    z = latents(plain)
    assert plain.synthesize(z).shape == (5, 3, 2, 2)
    assert torch.allclose(other.synthesize(z), plain.synthesize(z), atol=2e-3)


def test_bytes_are_pictures_of_0_to_255(tmp_path: Path) -> None:
    last: Any = [("Abs", "image", "up"), ("Div", "up small", "large"), ("Cast", "large", "other", {"to": UINT8})]
    last.insert(0, ("Constant", "", "small", {"value_float": 1 / 255}))
    with pytest.warns(
        CheckpointWarning, match=r"output other were from \d+ to 2\d\d in 8 pictures; 0\.\.255 is assumed"
    ):
        generator = load_onnx(gan(tmp_path / "a.onnx", last, output="other", other=UINT8))
    plain = load_onnx(gan(tmp_path / "plain.onnx"), values=(-1, 1))
    z = latents(plain)
    assert torch.allclose(generator.synthesize(z), plain.synthesize(z).abs() * 2 - 1, atol=2 / 255)


@pytest.mark.filterwarnings("ignore::energyql.CheckpointWarning")
def test_the_range_of_values_is_measured(tmp_path: Path) -> None:
    config = load_onnx(gan(tmp_path / "plain.onnx")).config
    assert (config.low, config.high) == (-1, 1)
    config = load_onnx(gan(tmp_path / "abs.onnx", [("Abs", "image", "other")], output="other")).config
    assert (config.low, config.high) == (0, 1)
    large: Any = [("Add", "image one", "up"), ("Div", "up half", "wide"), ("Sub", "wide half", "other")]
    with pytest.raises(ModelError, match=r"from -0\.\d+ to 3\.\d+ in 8 pictures, which is no usual range.*\n.*values="):
        load_onnx(gan(tmp_path / "wide.onnx", large, output="other"))
    images = load_onnx(tmp_path / "wide.onnx", values=(0, 1)).synthesize(torch.randn(20, 4))
    assert images.max() == 1  # what is outside is clipped
    assert images.min() == -1


def test_heads_read_means_of_blocks(land: OnnxGenerator, tmp_path: Path) -> None:
    z = torch.zeros(1, 257)
    z[0, 0], z[0, 2 * 16 + 5], z[0, -1] = 1, 3, 7  # in blocks 0 and 8 + 2 of 8 x 8
    features = land.features(z)
    assert features.nonzero()[:, 1].tolist() == [0, 10, 64]
    assert features[0, [0, 10, 64]].tolist() == pytest.approx([0.5, 1.5, 7])
    assert latents(land, 200)[:, :-1].std().item() == pytest.approx(
        land.features(latents(land, 200)).std().item(), abs=0.05
    )
    assert not hasattr(load_onnx(gan(tmp_path / "gan.onnx"), values=(-1, 1)), "features")


def test_there_is_no_gradient(land: OnnxGenerator) -> None:
    with pytest.raises(ArgumentError, match="have no gradient"):
        land.synthesize(latents(land).requires_grad_())

    class Reader(torch.nn.Module):
        def forward(self, images: torch.Tensor) -> dict[str, Any]:
            return {"light": images.mean((1, 2, 3))}

    names = Vocabulary([AttributeSpec("light", "continuous", low=-1, high=1)])
    model = Model("land", land, PictureBank(Reader(), names))
    with pytest.raises(ArgumentError, match=r"follows a gradient.*code without one draws the pictures.*\n.*slice"):
        generate("light > 0.9", 2, model=model, sampler="ode", progress=False)
    result = generate("light > 0.9", 2, model=model, progress=False)
    assert result.provenance["sampler"]["name"] == "population"
    assert (land.synthesize(result.z).mean((1, 2, 3)) > 0.8).all()
    assert result.statistics["generator_calls_mean"] >= 1
    assert explain("light > 0.9", model=model, pilot=True).pilot is not None


# What is refused


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({}, r"it has 3 inputs for noise: noise \(n x 1 x 16 x 16\), sigma \(n\), level \(n\)\nchoose one"),
        ({"noise": "noise"}, r"input sigma needs a value\ngive it, such as fixed=\{'sigma': 80\} or conditions="),
        (LAND | {"noise": "nosy"}, r"no input nosy\nits inputs are noise \(n x 1 x 16 x 16\), sigma \(n\)"),
        (LAND | {"fixed": {"sigma": 1, "x": 2}}, "no input x"),
        (LAND | {"fixed": {"sigma": 1, "level": 2}}, "input level takes noise, fixed numbers or a condition, not two"),
        (LAND | {"fixed": {"sigma": [1, 2]}}, "input sigma takes 1 numbers, not 2"),
        (LAND | {"shape": (1, 16, 17)}, r"noise is not of the shape \(1, 16, 17\)\nits inputs are"),
        (LAND | {"shape": (16, 16)}, r"noise is not of the shape \(16, 16\)"),
        (LAND | {"conditions": {"level": (1, 1)}}, r"1\.\.1 is no range of level"),
        (LAND | {"values": (math.nan, 1)}, r"nan\.\.1 is no range of the output"),
        (LAND | {"scale": 0}, "scale of the noise must be above 0, not 0"),
        (LAND | {"output": "picture"}, "it has no output picture\nit has land"),
        ({"noise": "level", "fixed": {"sigma": 1, "noise": 0}}, "input level has no first axis for a batch"),
        (LAND | {"conditions": {}, "fixed": {"sigma": 1, "level": 0}, "scale": 1e-99}, "same picture for each noise"),
    ],
)  # fmt: skip
def test_arguments_that_do_not_fit(tmp_path: Path, settings: dict[str, Any], message: str) -> None:
    with pytest.raises(ModelError, match=rf"cannot read .*land\.onnx: .*{message}"):
        load_onnx(heights(tmp_path / "land.onnx"), **{"values": (-1, 1)} | settings)


@pytest.mark.parametrize(
    ("argument", "message"),
    [
        ({"values": (1,)}, r"values is a pair of numbers, not \(1,\)"),
        ({"values": ()}, r"values is a pair of numbers, not \(\)"),
        ({"values": 2.0}, "values is a pair"),
        ({"conditions": {"level": 3}}, "level is a pair"),
        ({"shape": 16}, "shape is a sequence of sizes, not 16"),
        ({"shape": (1, 2.5)}, "shape is a sequence"),
        ({"fixed": {"sigma": "a"}}, "fixed: sigma is a number or numbers, not 'a'"),
        ({"scale": "x"}, "scale is a number, not 'x'"),
    ],
)
def test_arguments_of_other_types(tmp_path: Path, argument: dict[str, Any], message: str) -> None:
    path = heights(tmp_path / "land.onnx")
    with pytest.raises(ArgumentError, match=message):
        load_onnx(path, **argument)


@pytest.mark.parametrize(
    ("last", "message"),
    [
        ([("RandomNormalLike", "image", "luck"), ("Add", "image luck", "other")], "another picture each time"),
        ([("Sub", "image image", "zero"), ("Div", "image zero", "other")], "other has values that are not finite"),
        ([("Identity", "flat", "other")], r"output other of the ONNX model has the shape \(1, 12\), which is"),
        ([("Constant", "", "two", {"value_ints": [2, 1, 2, 3]}), ("Reshape", "flat two", "other")],
         r"output other of the ONNX model has the shape \(2, 1, 2, 3\), which is no picture"),
        ([("Constant", "", "six", {"value_ints": [1, 6, 2, 1, 1]}), ("Reshape", "flat six", "other")], "no picture"),
        ([("Reshape", "z shape", "other")], "onnxruntime cannot run the ONNX model"),
    ],
)  # fmt: skip
def test_outputs_that_are_no_pictures(tmp_path: Path, last: Any, message: str) -> None:
    with pytest.raises(ModelError, match=message):
        load_onnx(gan(tmp_path / "a.onnx", last, output="other"), values=(-1, 1))


def test_text_is_no_picture(tmp_path: Path) -> None:
    path = gan(tmp_path / "a.onnx", [("Cast", "image", "other", {"to": STRING})], output="other", other=STRING)
    with pytest.raises(ModelError, match="which is no picture"):
        load_onnx(path, values=(-1, 1))


def test_inputs_of_other_shapes_and_types(tmp_path: Path) -> None:
    path = save(tmp_path / "a.onnx", [("Tanh", "noise", "image")], {"noise": ["n", 1, "h", "w"]}, "image", {})
    with pytest.raises(ModelError, match=r"input noise leaves the shape of the noise open: 1 x h x w\ngive shape="):
        load_onnx(path, values=(-1, 1))
    assert load_onnx(path, shape=(1, 6, 7), values=(-1, 1)).synthesize(torch.zeros(2, 42)).shape == (2, 1, 6, 7)
    path = save(tmp_path / "b.onnx", [("Tanh", "noise", "image")], {"noise": [4, 1, 3, 3]}, "image", {})
    with pytest.raises(ModelError, match=r"no first axis for a batch of any size, or of 1\n.*noise \(4 x 1 x 3 x 3\)"):
        load_onnx(path)
    path = save(
        tmp_path / "c.onnx", [("Cast", "n", "image", {"to": FLOAT})], {"n": ["n", 1, 3, 3]}, "image", {}, n=INT64
    )
    with pytest.raises(ModelError, match=r"input n takes tensor\(int64\), not noise"):
        load_onnx(path)
    path = save(
        tmp_path / "d.onnx", [("Identity", "n", "image")], {"n": ["n", 1, 3, 3]}, "image", {}, n=STRING, image=STRING
    )
    with pytest.raises(ModelError, match=r"input n takes tensor\(string\)\npossible are tensor\(float\)"):
        load_onnx(path)
    path = heights(tmp_path / "e.onnx", level=UINT8)
    for level, message in ((0.5, r"0\.5"), (300, "300"), (-1, "-1")):
        with pytest.raises(ModelError, match=rf"input level takes tensor\(uint8\), not {message}"):
            load_onnx(path, noise="noise", fixed={"sigma": 1, "level": level})
    with pytest.raises(ModelError, match=r"not 2\.5"):
        load_onnx(path, noise="noise", fixed={"sigma": 1}, conditions={"level": (0, 2.5)})


@pytest.mark.parametrize("location", ["weights.bin", "../secret", "/etc/passwd", "*/_ORT_MEM_ADDR_/*"])
def test_weights_in_other_files_are_not_read(tmp_path: Path, location: str) -> None:
    path = gan(tmp_path / "models" / "a.onnx")
    for file in ("models/weights.bin", "secret"):
        (tmp_path / file).write_bytes(np.ones((4, 12), np.float32).tobytes())
    with pytest.raises(ModelError, match="weights lie in other files, which are not read\nsave it as one file"):
        load_onnx(outside(path, location))


def test_weights_of_a_branch_in_other_files_are_not_read(tmp_path: Path) -> None:
    path, helper = tmp_path / "a.onnx", ONNX.helper
    inner = outside(gan(tmp_path / "inner.onnx"), "weights.bin")
    tensor = ONNX.load(inner, load_external_data=False).graph.initializer[0]
    branch = helper.make_graph([helper.make_node("Constant", [], ["value"], value=tensor)], "branch", [], [])
    model = ONNX.load(gan(path))
    model.graph.node.append(helper.make_node("If", ["one"], ["x"], then_branch=branch, else_branch=branch))
    path.write_bytes(model.SerializeToString())
    with pytest.raises(ModelError, match="weights lie in other files"):
        load_onnx(path)


@pytest.mark.parametrize("content", [b"", b"hello", b"\x08\x08", b"\x80\x04N.", b"PK\x03\x04", bytes(range(256))])
def test_other_files_are_no_models(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "a.onnx").write_bytes(content)
    with pytest.raises(ModelError, match=r"cannot read .*a\.onnx: it is (no ONNX model|empty)"):
        load_generator(tmp_path / "a.onnx")


def test_only_what_was_checked_is_read(tmp_path: Path) -> None:
    """onnxruntime takes bytes with ORTM at this place as a model of its own format, whatever else they are."""
    path = gan(tmp_path / "a.onnx")
    plain = load_onnx(path, values=(-1, 1))
    unknown_field = bytes([0x7A, 8]) + b"..ORTM.."
    path.write_bytes(unknown_field + path.read_bytes())
    z = latents(plain)
    assert torch.equal(load_onnx(path, values=(-1, 1)).synthesize(z), plain.synthesize(z))


def test_operators_of_other_libraries(tmp_path: Path) -> None:
    model = ONNX.load(gan(tmp_path / "a.onnx"))
    model.graph.node[1].domain = "evil"
    model.opset_import.append(ONNX.helper.make_opsetid("evil", 1))
    (tmp_path / "a.onnx").write_bytes(model.SerializeToString())
    with pytest.raises(ModelError, match="onnxruntime cannot run the ONNX model: .*evil"):
        load_onnx(tmp_path / "a.onnx")


@pytest.mark.parametrize("library", ["onnx", "onnxruntime"])
def test_a_library_is_missing(tmp_path: Path, library: str, monkeypatch: pytest.MonkeyPatch) -> None:
    path = gan(tmp_path / "a.onnx")
    monkeypatch.setitem(sys.modules, library, None)
    with pytest.raises(
        ModelError, match=rf'a\.onnx: it needs {library}, which is not .*\npip install "onnx>=1\.16" "onnxruntime'
    ):
        load_generator(path)


# Folders and commands


def test_a_folder(tmp_path: Path, land: OnnxGenerator) -> None:
    save_converted(tmp_path / "m", "land", land, tmp_path / "land.onnx")
    assert fingerprint(tmp_path / "m" / "generator.onnx") == fingerprint(tmp_path / "land.onnx")
    (tmp_path / "land.onnx").unlink()
    read: Any = load_generator(tmp_path / "m")
    assert (read.config, module_fingerprint(read)) == (land.config, module_fingerprint(land))
    assert torch.equal(read.synthesize(latents(read)), land.synthesize(latents(land)))
    other = OnnxGenerator(replace(land.config, scale=4), land._data, land._session)
    assert module_fingerprint(other) != module_fingerprint(land)
    card = (tmp_path / "m" / "card.md").read_text()
    assert "| scale | 5.0 |" in card
    assert "parameters" not in card


def test_the_file_is_overwritten_before_it_is_saved(tmp_path: Path, land: OnnxGenerator) -> None:
    content = (tmp_path / "land.onnx").read_bytes()
    (tmp_path / "land.onnx").write_bytes(bytes(len(content)))
    land.save(tmp_path / "copy.onnx")
    assert (tmp_path / "copy.onnx").read_bytes() == content


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"noise": "nosy"}, r"generator\.onnx: it has no input nosy"),
        ({"conditions": {"level": 3}}, r"config\.json: it is damaged"),
        ({"conditions": {"level": [3, "x"]}}, r"config\.json: it is damaged"),
        ({"fixed": {"sigma": "much"}}, r"config\.json: it is damaged"),
        ({"z_shape": "big"}, r"generator\.onnx|config\.json"),
        ({"z_shape": [1, 16, 1e9]}, r"noise is not of the shape"),
        ({"low": 3}, r"config\.json: 3\.\.1 is no range of the output"),
        ({"other": 3}, r"unknown setting other"),
    ],
)
def test_damaged_settings(tmp_path: Path, land: OnnxGenerator, change: dict[str, Any], message: str) -> None:
    save_converted(tmp_path / "m", "land", land, tmp_path / "land.onnx")
    config = read_json(tmp_path / "m" / CONFIG)
    config["generator"] |= change
    write_json(tmp_path / "m" / CONFIG, config)
    with pytest.raises(ModelError, match=message):
        load_generator(tmp_path / "m")


def look(images: torch.Tensor) -> dict[str, Any]:
    assert images.shape[1:] == (1, 16, 16)  # heights, not the pictures that people see
    return {"high": images.mean((1, 2, 3))}


LAYER = torch.nn.Identity()


def red(images: torch.Tensor) -> torch.Tensor:
    return torch.cat([images, -torch.ones_like(images), -torch.ones_like(images)], 1)[:, :, :8]


def negative(images: torch.Tensor) -> torch.Tensor:
    return -images


@pytest.fixture
def user(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The folder in which a user works, with an ONNX model and the functions above."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(str(Path(__file__).parent))
    shutil.copy(heights(tmp_path / "land.onnx"), tmp_path / "land.bin")
    return tmp_path


def test_commands(user: Path) -> None:
    text = call(["energyql", "convert", "land.onnx", "--out", "m", *CONVERT, "--render", "test_onnx:red"])
    assert "Saved m: kind OnnxGenerator, z_dim 257, w_dim 257\n" in text
    train = ["energyql", "train", "m", "--labeller", "test_onnx:look", "--judge", "test_onnx:look", "-n", "200", "-q"]
    call([*train, "--steps", "100", "--allow-plugins"])
    assert load_model("m", judge="none").bank.space == "features"
    text = call(["energyql", "generate", "high > 0.5", "--model", "m", "-n", "4", "--out", "drawn", "--allow-plugins"])
    assert "4 of 4 satisfy the query by the definition test_onnx:look" in text
    picture = np.asarray(Image.open("drawn/00000.png"))
    assert picture.shape == (8, 16, 3)
    assert not picture[..., 1:].any()
    call(
        [
            "energyql",
            "generate",
            "high > 0.5",
            "--model",
            "m",
            "-n",
            "1",
            "--judge",
            "none",
            "--allow-weak",
            "high",
            "--out",
            "grey",
        ]
    )
    assert np.asarray(Image.open("grey/00000.png")).shape == (16, 16, 3)
    call(["energyql", "sample", "m", "--out", "p", "-n", "2", "--allow-plugins"])
    assert np.asarray(Image.open("p/0000001.png")).shape == (8, 16, 3)
    Path("queries.txt").write_text("high > 0.5\n")
    call(["energyql", "gallery", "queries.txt", "--model", "m", "-n", "2", "--allow-plugins", "--out", "g.html"])
    assert Path("g.html").stat().st_size > 1000


def test_a_generator_with_classes_may_have_a_function_of_what_people_see(user: Path) -> None:
    checkpoint = Path(__file__).parent / "checkpoints" / "data" / "projected-gan-conditional.pkl"
    call(["energyql", "convert", str(checkpoint), "--out", "m", "--render", "test_onnx:negative"])
    assert read_json(Path("m") / CONFIG)["render"] == "test_onnx:negative"


@pytest.mark.parametrize(
    ("options", "kind", "message"),
    [
        (["--fixed", "sigma"], ArgumentError, "--fixed: 'sigma' is not of the form INPUT=NUMBER\nsuch as sigma=80"),
        (["--fixed", "sigma=a"], ArgumentError, "--fixed: 'a' are not numbers\nsuch as 80, or 0,0,1"),
        (["--fixed", "sigma=1", "--fixed", "sigma=2"], ArgumentError, "--fixed: sigma is given twice"),
        (["--condition", "level=x"], ArgumentError, r"--condition: 'x' is not of the form LOW\.\.HIGH"),
        (["--condition", "level=1"], ArgumentError, r"--condition: '1' is not of the form LOW\.\.HIGH\nsuch as 0\.\.1"),
        (["--range", "-1,1"], ArgumentError, r"--range: '-1,1' is not of the form LOW\.\.HIGH"),
        (["--range", "5"], ArgumentError, r"--range: '5' is not of the form LOW\.\.HIGH"),
        (["--shape", "1x-2"], ArgumentError, "--shape: '1x-2' is no shape"),
        (["--lr-mlp", "1"], ModelError, "an ONNX model takes no lr_multiplier and no conv_clamp"),
        (["--lr-mlp", "1", "--noise", "noise"], ArgumentError, "are not for ONNX models"),
        (["--call", "steps=4", "--noise", "noise"], ArgumentError, "are not for ONNX models"),
        ([*CONVERT, "--render", "test_onnx:look"], ArgumentError, "render returned a"),
        ([*CONVERT, "--render", "test_onnx:missing"], ArgumentError, "has no 'missing'"),
        ([*CONVERT, "--render", "test_onnx:LAYER"], ArgumentError, "test_onnx:LAYER is a Identity, and a function"),
    ],
)
def test_options_that_do_not_fit(user: Path, options: list[str], kind: type[Exception], message: str) -> None:
    with pytest.raises(kind, match=message):
        call(["energyql", "convert", "land.onnx", "--out", "m", *options])
    assert not Path("m").exists()


def test_options_of_onnx_models_for_another_file(user: Path) -> None:
    torch.save({}, "other.pt")
    with pytest.raises(ModelError, match=r"other\.pt: it is no ONNX model"):
        call(["energyql", "convert", "other.pt", "--out", "m", *CONVERT])
    call(["energyql", "convert", "land.bin", "--out", "m", *CONVERT])  # an ONNX model of another name


def test_heads_are_of_a_file_with_its_settings(tmp_path: Path) -> None:
    def labels(images: torch.Tensor) -> dict[str, Any]:
        return {"high": images.mean((1, 2, 3))}

    path, settings = heights(tmp_path / "land.onnx"), HeadSettings(steps=5, hidden=2)
    for folder, conditions in (("m", {"level": (-1, 3)}), ("other", {"level": (-3, 1)})):
        generator = load_onnx(path, **LAND | {"conditions": conditions}, values=(-1, 1))
        save_converted(tmp_path / folder, "a", generator, path)
    train_attributes(tmp_path / "m", labels, n=60, judge=None, settings=settings, progress=False)
    with pytest.raises(ModelError, match="m holds another generator than .*other"):
        train_attributes(tmp_path / "other", labels, tmp_path / "m", n=60, judge=None, progress=False)
    shutil.copy(tmp_path / "other" / CONFIG, tmp_path / "m" / CONFIG)
    with pytest.raises(ModelError, match="the attributes were fitted to another generator"):
        load_model(tmp_path / "m")


def test_a_model_without_choices_needs_no_conversion(tmp_path: Path) -> None:
    path, settings = gan(tmp_path / "gan.onnx"), HeadSettings(steps=20, hidden=4)
    with pytest.warns(CheckpointWarning, match=r"-1\.\.1 is assumed"):
        train_attributes(
            path, lambda images: {"red": images[:, 0].mean((1, 2))}, tmp_path / "m", n=100, judge=None,
            settings=settings, progress=False,
        )  # fmt: skip
    with warnings.catch_warnings():
        warnings.simplefilter("error")  # the folder holds the range
        model = load_model(tmp_path / "m")
    assert model.bank.space == "w"
    assert model.fingerprints["generator"] == model.bank.generator
    write_json(tmp_path / "m" / CONFIG, read_json(tmp_path / "m" / CONFIG) | {"render": "looks:red"})
    again = model.save_pretrained(tmp_path / "copy")
    assert read_json(again / CONFIG)["render"] == "looks:red"
    assert fingerprint(again / "generator.onnx") == fingerprint(path)
    assert json.loads((again / CONFIG).read_text())["source"]["file"] == "gan.onnx"
    query = {"n": 2, "allow_weak": ["red"], "progress": False}
    assert torch.equal(generate("red > 0", model=again, **query).z, generate("red > 0", model=model, **query).z)
