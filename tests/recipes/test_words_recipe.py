"""The recipe of the dual encoder, in miniature."""

import pytest
import torch

from energyql.attributes.words import open_words
from energyql.pipeline.model import judge_mark
from recipes.common.factors import Factors

pytest.importorskip("transformers")
pytest.importorskip("python_avatars")

from recipes.words import captions, facts, make, training


def test_facts_of_avatars_agree_with_their_attributes():
    scenes = Factors(facts.SUBJECTS[0].domain)(torch.randn(500, 64, generator=torch.Generator().manual_seed(0)))
    truth = dict(zip(facts.AVATAR_FACTS, facts.SUBJECTS[0].truths(scenes).T, strict=True))
    assert torch.equal(truth["hat"], scenes.labels["hat"].float())
    assert torch.equal(truth["woolly hat"] + truth["brim"], truth["hat"])
    assert torch.equal(truth["long hair"], scenes.labels["long_hair"].float())
    assert torch.equal(truth["gray hair"] == 1, scenes.labels["hair"] == 4)
    colours = torch.stack([truth[f"{colour} hat"] for colour in ("red", "yellow", "green", "blue", "purple")])
    assert (colours.amax(0) <= truth["hat"]).all() and ((colours == 1).sum(0) <= 1).all()


@pytest.mark.parametrize("held_out", [False, True])
def test_captions_are_true_as_their_words_say(held_out):
    random = torch.Generator().manual_seed(3)
    scenes = Factors(facts.SUBJECTS[0].domain)(torch.randn(64, 64, generator=random))
    truth, names = facts.SUBJECTS[0].truths(scenes), list(facts.AVATAR_FACTS)
    writer, kinds = captions.Writer(0), set()
    for row in range(64):
        caption = writer.about(truth[row], random, held_out=held_out)
        kinds.add(caption.kind)
        assert caption.held_out == held_out and len(caption.text.split()) <= captions.LONGEST
        if caption.text.startswith("a picture of a hat"):
            assert torch.equal(caption.truth(truth), truth[:, names.index("hat")])
        if caption.kind == "without":
            assert " but without " in caption.text
    assert kinds == {"one", "and", "or", "without"}
    words = captions.tokenizer()
    assert words.unk_token_id not in words("a person in a hat but without shades or a boat")["input_ids"]


def test_an_encoder_is_trained_resumed_and_read_without_a_special_case(tmp_path, monkeypatch):
    class Interruption(Exception):
        pass

    monkeypatch.setattr("recipes.common.loop.SAVED_EVERY", 1)
    monkeypatch.setattr(training, "draw", draw)

    def interrupt(fraction):
        if fraction >= 0.5:
            raise Interruption

    with pytest.raises(Interruption):
        training.train_encoder(tmp_path, 0.001, interrupt)
    make.make(tmp_path, scale=0.001, count=4, captions=16, progress=False)
    straight = training.train_encoder(tmp_path / "straight", 0.001, lambda fraction: None)
    words = open_words(tmp_path / make.READER, judge_mark)
    pictures = torch.rand(2, 3, training.SIDE, training.SIDE) * 2 - 1
    with torch.no_grad():
        torch.testing.assert_close(
            words.log_odds(pictures, ["a hat", "somebody old"]), straight.log_odds(pictures, ["a hat", "somebody old"])
        )
    assert "held out %" in (tmp_path / "accuracy.md").read_text()


def draw(subject, count, random):
    """Return noise in place of drawings, whose layers take a minute to render, with the truths of scenes."""
    chosen = facts.SUBJECTS[subject]
    scenes = Factors(chosen.domain)(torch.randn(count, chosen.domain.config.z_dim, generator=random))
    return torch.rand(count, 3, training.SIDE, training.SIDE, generator=random) * 2 - 1, chosen.truths(scenes)
