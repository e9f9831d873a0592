import pytest
import torch
from commands import CHECKPOINTS, invoke

import energyql
from energyql import load_generator, load_model
from energyql.errors import ArgumentError, ModelError
from energyql.files import fingerprint, read_json
from energyql.training.target import open_target


@pytest.mark.parametrize(
    "checkpoint", sorted([*CHECKPOINTS.glob("*.pkl"), *CHECKPOINTS.glob("*.pt")]), ids=lambda p: p.name
)
def test_convert_makes_a_model_folder(checkpoint, tmp_path):
    outcome = invoke("convert", checkpoint, "--out", tmp_path / "model", "--name", "mine")
    assert outcome.exit_code == 0, outcome.output
    converted, original = load_generator(tmp_path / "model"), load_generator(checkpoint)
    assert f"kind {type(original).__name__}, " in outcome.output
    z = torch.randn(2, original.z_dim, generator=torch.Generator().manual_seed(0))
    label = torch.eye(original.config.c_dim)[:2] if original.config.c_dim else None
    w = original.encode(z, 0.7, label)
    assert torch.allclose(converted.encode(z, 0.7, label), w, atol=1e-5)
    assert torch.allclose(converted.synthesize(w), original.synthesize(w), atol=1e-4)  # other memory layouts
    with pytest.raises(ModelError, match="model 'mine' has no attributes yet"):
        load_model(tmp_path / "model")


def test_a_converted_folder_says_where_it_is_from(tmp_path):
    checkpoint = CHECKPOINTS / "rosinality_64.pt"
    assert invoke("convert", checkpoint, "--out", tmp_path / "model", "--lr-mlp", "0.01").exit_code == 0
    config, digest = read_json(tmp_path / "model" / "config.json"), fingerprint(checkpoint)
    assert config["truncation"] == 0.7
    assert config["source"] == {
        "file": "rosinality_64.pt", "sha256": digest, "licence": "unknown", "energyql": energyql.__version__
    }  # fmt: skip
    card = (tmp_path / "model" / "card.md").read_text(encoding="utf-8")
    for text in ("# rosinality_64", digest, "`rosinality_64.pt`", "carries no licence", "| resolution | 64 |"):
        assert text in card


def test_convert_keeps_the_licence_in_the_file(tmp_path):
    content = torch.load(CHECKPOINTS / "rosinality_64.pt", weights_only=True)
    torch.save(content | {"license": "CC0\nfor all"}, tmp_path / "x.pt")
    assert invoke("convert", tmp_path / "x.pt", "--out", tmp_path / "model").exit_code == 0
    assert read_json(tmp_path / "model" / "config.json")["source"]["licence"] == "CC0\nfor all"
    assert "    CC0\n    for all\n" in (tmp_path / "model" / "card.md").read_text(encoding="utf-8")


def test_training_from_a_checkpoint_says_where_it_is_from_too(tmp_path):
    checkpoint = CHECKPOINTS / "rosinality_64.pt"
    with open_target(checkpoint, tmp_path / "model").changing():
        pass
    config = read_json(tmp_path / "model" / "config.json")
    assert (config["truncation"], config["source"]["sha256"]) == (0.7, fingerprint(checkpoint))
    assert (tmp_path / "model" / "card.md").is_file()


def test_a_copy_of_a_converted_folder_keeps_the_card_with_the_licence(tmp_path):
    assert invoke("convert", CHECKPOINTS / "rosinality_64.pt", "--out", tmp_path / "model").exit_code == 0
    with open_target(tmp_path / "model", tmp_path / "copy").changing():
        pass
    assert (tmp_path / "copy" / "card.md").read_bytes() == (tmp_path / "model" / "card.md").read_bytes()
    assert read_json(tmp_path / "copy" / "config.json") == read_json(tmp_path / "model" / "config.json") | {
        "name": "copy"
    }


def test_convert_reads_files_only(tiny, tmp_path):
    outcome = invoke("convert", "https://example.org/ffhq.pkl", "--out", tmp_path / "model")
    assert isinstance(outcome.exception, ArgumentError)
    assert "https://example.org/ffhq.pkl is an address, and energyql reads files" in str(outcome.exception)
    assert isinstance(invoke("convert", tiny, "--out", tmp_path / "model").exception, ArgumentError)
    assert not (tmp_path / "model").exists()


def test_convert_refuses_what_is_no_checkpoint(tmp_path):
    (tmp_path / "notes.pkl").write_text("hello")
    outcome = invoke("convert", tmp_path / "notes.pkl", "--out", tmp_path / "model")
    assert isinstance(outcome.exception, ModelError)
    assert "notes.pkl" in str(outcome.exception)
    assert not (tmp_path / "model").exists()
