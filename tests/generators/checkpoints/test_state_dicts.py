"""State dicts: official names, rosinality's, decoders of encoders for pictures; and what they do not hold."""

from __future__ import annotations

import json
import math
import pickle
import struct
import sys
import types
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor

from energyql.errors import ArgumentError, CheckpointWarning, ModelError
from energyql.generators.checkpoints import state_dicts
from energyql.generators.load import load_generator, read_checkpoint, read_licence
from energyql.generators.stylegan2 import StyleGAN2
from energyql.generators.stylegan3 import StyleGAN3
from generators.checkpoints.writer import DATA, Call, dumps, official

CLAMP = {"conv_clamp": 256.0, "lr_multiplier": 0.01}
"""The settings of `ada.pkl`, which a state dict of it does not hold."""


@pytest.fixture(scope="module")
def state() -> dict[str, Tensor]:
    return dict(read_checkpoint(DATA / "ada.pkl").network.tensors)


@pytest.fixture(scope="module")
def rosinality() -> dict[str, Any]:
    loaded: dict[str, Any] = torch.load(DATA / "rosinality.pt", weights_only=True)
    return loaded


def save_torch(content: Any, path: Path) -> None:
    torch.save(content, path)


def save_pickle(content: Any, path: Path) -> None:
    path.write_bytes(pickle.dumps(content))


def check_pictures(path: Path, reference: str, **settings: Any) -> None:
    generator = load_generator(path, **settings)
    assert isinstance(generator, StyleGAN2 | StyleGAN3)
    expected = load_file(DATA / f"{reference}.safetensors")
    w = generator.encode(expected["z"], 0.7, expected.get("label"))
    image = expected["image_0.7"]
    torch.testing.assert_close(generator.synthesize(w), image, atol=1e-4, rtol=0)


@pytest.mark.parametrize(
    "place",
    [
        lambda state: state,
        lambda state: {"G_ema": state, "G": {name: 2 * tensor for name, tensor in state.items()}, "step": 3},
        lambda state: {"model": {"g_ema": state}, "optimizer": {"lr": 0.1}},
        lambda state: {"module." + name: tensor for name, tensor in state.items()},
        lambda state: {"state_dict": {f"{net}.{name}": t for net in ("G", "G_ema") for name, t in state.items()}},
    ],
    ids=["bare", "training", "nested", "parallel", "lightning"],
)
@pytest.mark.parametrize("save", [save_torch, save_pickle])
def test_official_names(
    state: dict[str, Tensor], tmp_path: Path, save: Callable[[Any, Path], None], place: Callable[[Any], Any]
) -> None:
    save(place(state), tmp_path / "model")
    check_pictures(tmp_path / "model", "ada", **CLAMP)


def test_official_names_in_safetensors(state: dict[str, Tensor], tmp_path: Path) -> None:
    path = tmp_path / "model.safetensors"
    save_file({f"module.{name}": tensor.contiguous() for name, tensor in state.items()}, path, {"license": "CC0"})
    check_pictures(path, "ada", **CLAMP)
    assert read_licence(path) == "CC0"


@pytest.mark.parametrize("save", [save_torch, save_pickle])
def test_stylegan3_names(tmp_path: Path, save: Callable[[Any, Path], None]) -> None:
    for name in ("stylegan3-t", "stylegan3-r"):
        record = read_checkpoint(DATA / f"{name}.pkl").network
        save({"G_ema": record.tensors}, tmp_path / name)
        settings = {"conv_clamp": record.init_kwargs.get("conv_clamp", 256), "lr_multiplier": 0.01}
        generator = load_generator(tmp_path / name, **settings)
        original = load_generator(DATA / f"{name}.pkl")
        w = original.encode(torch.ones(2, original.z_dim))
        torch.testing.assert_close(generator.synthesize(w), original.synthesize(w), atol=1e-4, rtol=0)


def test_a_whole_network_alone(state: dict[str, Tensor], tmp_path: Path) -> None:
    path = tmp_path / "G_ema.pkl"
    path.write_bytes(dumps(official(state, init_kwargs={"conv_clamp": 256})))
    check_pictures(path, "ada")


class Persistent:
    """An object that pickles as those of the official code do."""

    def __init__(self, call: Call) -> None:
        (meta,) = call.arguments
        modules = {name: Persistent(module) for name, module in meta["state"]["_modules"].items()}
        self.meta = meta | {"state": meta["state"] | {"_modules": modules}}

    def __reduce__(self) -> tuple[Any, ...]:
        return sys.modules["torch_utils.persistence"]._reconstruct_persistent_obj, (self.meta,)


def test_a_whole_network_saved_by_torch(
    state: dict[str, Tensor], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def _reconstruct_persistent_obj(meta: Any) -> None:
        raise AssertionError("it must not be called")

    module = types.ModuleType("torch_utils.persistence")
    _reconstruct_persistent_obj.__module__ = module.__name__
    _reconstruct_persistent_obj.__qualname__ = _reconstruct_persistent_obj.__name__
    module._reconstruct_persistent_obj = _reconstruct_persistent_obj  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "torch_utils", types.ModuleType("torch_utils"))
    monkeypatch.setitem(sys.modules, module.__name__, module)
    network = Persistent(official(state, init_kwargs={"conv_clamp": 256}))
    for content in (network, {"G_ema": network}):
        torch.save(content, tmp_path / "G_ema.pt")
        check_pictures(tmp_path / "G_ema.pt", "ada")


@pytest.mark.parametrize("rows", [None, 8])
def test_the_decoder_of_an_encoder_for_pictures(rosinality: dict[str, Any], tmp_path: Path, rows: int | None) -> None:
    weights = {f"decoder.{name}": tensor for name, tensor in rosinality["g_ema"].items()}
    average = rosinality["latent_avg"] if rows is None else rosinality["latent_avg"].repeat(rows, 1)
    content = {"state_dict": weights | {"encoder.body.0.weight": torch.ones(3)}, "latent_avg": average, "opts": {}}
    torch.save(content, tmp_path / "psp.pt")
    check_pictures(tmp_path / "psp.pt", "rosinality")
    if rows:
        content["latent_avg"] = average + torch.arange(8.0)[:, None]
        torch.save(content, tmp_path / "psp.pt")
        with pytest.raises(ModelError, match="latent_avg differs between layers"):
            load_generator(tmp_path / "psp.pt")


def test_several_generators(state: dict[str, Tensor], tmp_path: Path) -> None:
    torch.save({"G_A": state, "G_B": dict(state)}, tmp_path / "x.pt")
    with pytest.raises(ModelError, match=r"x\.pt: it holds several generators \(G_A, G_B\)"):
        load_generator(tmp_path / "x.pt")


class TestWhatItDoesNotHold:
    def test_it_is_said(self, state: dict[str, Tensor], tmp_path: Path) -> None:
        torch.save(state, tmp_path / "x.pt")
        with pytest.warns(CheckpointWarning, match=r"leaky ReLU, and .* multiplier of 0\.01 and a limit of 256"):
            generator = load_generator(tmp_path / "x.pt")
        assert generator.config.conv_clamp == 256  # type: ignore[attr-defined]
        with pytest.warns(CheckpointWarning, match="leaky ReLU, and a limit of 256 of activations, with which"):
            load_generator(tmp_path / "x.pt", lr_multiplier=0.01)

    def test_clamping_is_asked_for_where_it_matters(self, state: dict[str, Tensor], tmp_path: Path) -> None:
        strong = state | {"synthesis.b32.torgb.bias": torch.tensor([0.0, 0.0, 300.0])}
        torch.save(strong, tmp_path / "x.pt")
        with pytest.raises(ModelError, match="activations exceed 256.*\n.*Give conv_clamp to load_generator"):
            load_generator(tmp_path / "x.pt")
        free = load_generator(tmp_path / "x.pt", conv_clamp=math.inf, lr_multiplier=0.01)
        assert free.config.conv_clamp is None  # type: ignore[attr-defined]

    @pytest.mark.parametrize("multiplier", [1.0, 0.1, 0.02])
    def test_the_multiplier_is_asked_for(self, rosinality: dict[str, Any], tmp_path: Path, multiplier: float) -> None:
        ratio = 0.01 / multiplier
        weights = {
            name: tensor * ratio if name.startswith("style.") else tensor
            for name, tensor in rosinality["g_ema"].items()
        }
        torch.save(rosinality | {"g_ema": weights}, tmp_path / "x.pt")
        with pytest.raises(ModelError, match=rf"its weights have the size .*\n.*about {multiplier:g}\. Give lr_"):
            load_generator(tmp_path / "x.pt")
        check_pictures(tmp_path / "x.pt", "rosinality", lr_multiplier=multiplier)

    def test_a_stored_mean_of_another_size(self, rosinality: dict[str, Any], tmp_path: Path) -> None:
        torch.save(rosinality | {"latent_avg": 20 * rosinality["latent_avg"]}, tmp_path / "x.pt")
        with pytest.raises(ModelError, match=r"with 0\.01 the mean of w has the size .*, and the stored one"):
            load_generator(tmp_path / "x.pt")

    def test_parameters_without_buffers(self, state: dict[str, Tensor], tmp_path: Path) -> None:
        buffers = ("noise_const", "resample_filter", "w_avg")
        torch.save({name: t for name, t in state.items() if not name.endswith(buffers)}, tmp_path / "x.pt")
        with pytest.warns(CheckpointWarning, match="lacks noise pictures, .* and resampling filters"):
            generator = load_generator(tmp_path / "x.pt", **CLAMP)
        assert isinstance(generator, StyleGAN2)
        expected = load_file(DATA / "ada.safetensors")
        image = generator.synthesize(generator.encode(expected["z"]), "none")
        torch.testing.assert_close(image, expected["image_none"], atol=1e-4, rtol=0)

    def test_unusual_filters_of_a_stylegan3(self, tmp_path: Path) -> None:
        tensors = dict(read_checkpoint(DATA / "stylegan3-t.pkl").network.tensors)
        name = next(name for name in tensors if name.endswith("up_filter"))
        torch.save(tensors | {name: tensors[name].roll(1)}, tmp_path / "x.pt")
        with pytest.raises(ModelError, match="its layers are of no known StyleGAN3.*\n.*give the official pickle"):
            load_generator(tmp_path / "x.pt", conv_clamp=256, lr_multiplier=0.01)

    @pytest.mark.parametrize(
        ("name", "value"), [("lr_multiplier", 0.0), ("conv_clamp", -1.0), ("conv_clamp", math.nan), ("conv_clamp", "x")]
    )
    def test_impossible_settings(self, name: str, value: Any) -> None:
        with pytest.raises(ArgumentError, match=f"{name} must be above 0"):
            load_generator(DATA / "ada.pkl", **{name: value})

    def test_settings_that_the_file_holds(self, tiny: Path) -> None:
        assert load_generator(DATA / "ada.pkl", **CLAMP).config.conv_clamp == 256  # type: ignore[attr-defined]
        with pytest.raises(ModelError, match=r"its conv_clamp is 256, not 3\n"):
            load_generator(DATA / "ada.pkl", conv_clamp=3)
        with pytest.raises(ModelError, match="do not clamp activations"):
            load_generator(DATA / "rosinality.pt", conv_clamp=256)
        with pytest.raises(ArgumentError, match="a model folder takes no lr_multiplier"):
            load_generator(tiny, conv_clamp=256)


class TestSafetensors:
    @pytest.mark.parametrize(
        "entry",
        [
            {"dtype": "F12", "shape": [1], "data_offsets": [0, 1]},
            {"dtype": "F32", "shape": [2], "data_offsets": [0, 4]},
            {"dtype": "F32", "shape": [1 << 47], "data_offsets": [0, 1 << 49]},
            {"dtype": "F32", "shape": [-1], "data_offsets": [0, 4]},
            {"dtype": "F32", "shape": "1", "data_offsets": [0, 4]},
            {"dtype": "F32", "shape": [1], "data_offsets": [4, 8]},
            {"shape": [1]},
            3,
        ],
    )
    def test_damaged_headers(self, tmp_path: Path, entry: Any) -> None:
        header = json.dumps({"synthesis.b4.const": entry}).encode()
        (tmp_path / "x").write_bytes(struct.pack("<Q", len(header)) + header + bytes(4))
        with pytest.raises(ModelError, match="it is damaged"):
            load_generator(tmp_path / "x")

    def test_no_json(self, tmp_path: Path) -> None:
        for header in (b"{", b"{" + b"[" * 100_000):
            (tmp_path / "x").write_bytes(struct.pack("<Q", len(header)) + header)
            with pytest.raises(ModelError, match="damaged"):
                load_generator(tmp_path / "x")

    def test_a_long_header(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(state_dicts, "MAX_HEADER", 64)
        save_file({"a" * 64: torch.ones(1)}, tmp_path / "x")
        with pytest.raises(ModelError, match="its header of .* is longer than 64"):
            load_generator(tmp_path / "x")

    def test_layouts(self, tmp_path: Path) -> None:
        tensors = {"a": torch.randn(2, 3, 4), "b": torch.randn(()), "c": torch.ones(0, 3), "d": torch.ones(3).half()}
        save_file(tensors, tmp_path / "x")
        content = read_checkpoint(tmp_path / "x").content
        assert all(torch.equal(content[name].tensor(), tensor) for name, tensor in tensors.items())

    def test_the_weights_of_a_model_folder(self, tiny: Path) -> None:
        with pytest.raises(ModelError, match="it is a part of a model folder\ngive the folder"):
            load_generator(tiny / "generator.safetensors")


def test_licences(state: dict[str, Tensor], tmp_path: Path) -> None:
    notice = "# Copyright (c) 2021, A Company.\n#\n# See the license.\n\n# more\nimport torch\n"
    (tmp_path / "x").write_bytes(dumps({"G_ema": official(state, source=notice)}))
    assert read_licence(tmp_path / "x") == "Copyright (c) 2021, A Company.\n\nSee the license."
    assert read_licence(DATA / "ada.pkl") == ""
    torch.save({"license": " MIT ", "g_ema": {}}, tmp_path / "y")
    assert read_licence(tmp_path / "y") == "MIT"


def test_addresses(tmp_path: Path) -> None:
    for address in ("https://example.org/ffhq.pkl", Path("https://example.org/ffhq.pkl")):
        with pytest.raises(
            ArgumentError, match="is an address, and energyql reads files\ndownload it, and give the file"
        ):
            load_generator(address)
