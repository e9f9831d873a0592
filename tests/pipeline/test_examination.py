"""A reader of words is examined before it decides about pictures without labels."""

import numpy as np
import pytest
import torch
from typer.testing import CliRunner

from energyql import Model, generate
from energyql.attributes.bank import FittedUnder
from energyql.attributes.heads import AttributeBank, Head
from energyql.attributes.pictures import PictureBank
from energyql.attributes.words import MOST_ZERO_SHOT, Calibration, Words
from energyql.errors import ArgumentError, WeakHeadError
from energyql.pipeline import texts
from energyql.pipeline.session import open_session
from energyql.pipeline.settings import DrawSettings
from energyql.vocabulary import AttributeSpec, Vocabulary

NAMES = ("hat", "beard", "long_hair", "smile", "earring", "glasses")
SIZE = len(NAMES)


class Columns(torch.nn.Module):
    """Its pictures have z_i in column i, beside stripes by which mixed up pixels differ."""

    z_dim = SIZE

    def encode(self, z, truncation=1.0):
        return z

    def synthesize(self, w):
        return (w / 8)[:, None, None, :].expand(-1, 3, SIZE, -1)


def column(text):
    words = text.removeprefix("no ").removeprefix("somebody with ").replace(" ", "_")
    return NAMES.index(words) if words in NAMES else None


class Reader:
    """Logits are `scale` times the column of the named attribute, and 0 for other texts."""

    def __init__(self, scale=100.0, negates=True, order=range(SIZE)):
        self.scale, self.negates, self.order = scale, negates, list(order)

    def embed(self, pictures):
        return pictures[:, 0].mean(1)

    def score(self, embedded, texts):
        def one(text):
            if (i := column(text)) is None:
                return 0 * embedded[:, 0]
            sign = -1 if self.negates and text.startswith("no ") else 1
            return sign * self.scale * embedded[:, self.order[i]]

        return torch.stack([one(text) for text in texts], 1)

    def read(self, pictures, texts):
        return self.score(self.embed(pictures), texts)


class Guessing(Reader):
    """It weighs columns at random by the text, and is sure."""

    def score(self, embedded, texts):
        weights = [np.random.RandomState(sum(map(ord, text)) % 2**31).randn(SIZE) for text in texts]
        return 100 * embedded @ torch.tensor(np.stack(weights, 1), dtype=torch.float32)


class Hopeful(Reader):
    """Names hold for it too often; a text without a name is the contrast."""

    def score(self, embedded, texts):
        named = torch.tensor([column(text) is not None and not text.startswith("no ") for text in texts])
        return super().score(embedded, texts) + 10 * named


class Blind(Reader):
    def embed(self, pictures):
        return torch.ones(len(pictures), SIZE) + 1e-9 * pictures[:, 0].mean(1)


@pytest.fixture(autouse=True)
def few(monkeypatch, tmp_path):
    monkeypatch.setattr(texts, "COUNT", 256)
    monkeypatch.setattr("energyql.attributes.words.STEPS", 100)
    monkeypatch.setenv("ENERGYQL_CACHE", str(tmp_path / "cache"))


def heads(names=NAMES):
    def head(i):
        none, weights = torch.zeros(0), torch.zeros(1, SIZE)
        weights[0, i] = 12
        return Head(none.view(0, SIZE), none, none.view(1, 0), weights, torch.zeros(1), torch.ones(()))

    known = Vocabulary([AttributeSpec(name, "yes/no") for name in names])
    return AttributeBank(known, {name: head(i) for i, name in enumerate(names)}, fitted=FittedUnder("z"))


def model_of(reader, bank=None):
    return Model("columns", Columns(), bank or heads(), words=Words(reader, "my-reader", type(reader).__name__ * 8))


def examined(reader, bank=None):
    return open_session(model_of(reader, bank), "cpu").examination(DrawSettings())


TEXT = '"somebody with hat"'


def test_a_reader_that_reads():
    found = examined(Reader())
    assert (found.texts, found.failure, found.doubts(["hat"])) == (SIZE, None, "")
    assert found.auc > 0.99 and found.right > 0.95 and found.contradicted == 0 and found.off < 0.05
    result = generate(TEXT, 8, model=model_of(Reader()), progress=False)
    assert "doubts" not in result.provenance["words"]
    assert (result.z[:, 0] > 0).all()


@pytest.mark.parametrize(("reader", "why"), [
    (Guessing(), r"it tells the model's 6 own attributes, asked by their names, no better than chance \(AUC "),
    (Reader(order=[3, 4, 5, 0, 1, 2]), "it tells the model's 6 own attributes"),  # sure, and about another column
    (Blind(), r"it tells .* no better than chance \(AUC 0\.\d\d, "),
])  # fmt: skip
def test_a_reader_that_cannot_read_is_refused_by_name(reader, why):
    model = model_of(reader)
    with pytest.raises(WeakHeadError, match=rf"my-reader cannot decide about {TEXT}: {why}") as caught:
        generate(f"{TEXT} AND hat", 4, model=model, progress=False)
    assert "energyql calibrate" in caught.value.hint and "allow_weak=[" in caught.value.hint


def test_labels_or_the_user_overrule_the_examination():
    model, text = model_of(Guessing()), TEXT.strip('"')
    result = generate(TEXT, 4, model=model, allow_weak=[text], attempts=2000, progress=False)
    assert ". Of the reader of words: it tells the model's 6 own attributes" in result.summary()
    calibrated = Words(Guessing(), "my-reader", "1", {text: Calibration(labels=30)})
    model = Model("columns", Columns(), heads(), words=calibrated)
    assert "doubts" not in generate(TEXT, 4, model=model, attempts=2000, progress=False).provenance["words"]


def test_doubts_are_told():
    found = examined(Reader(negates=False))
    assert found.failure is None and 0.4 < found.contradicted < 0.6
    assert found.doubts(["a hat"]) == ""
    assert found.doubts(["No hat"]) == "it does not understand negations, so write NOT before the quotes"
    hopeful = examined(Hopeful())
    assert hopeful.failure is None and 0.6 < hopeful.right < 0.75 and hopeful.off > 0.15
    assert hopeful.doubts(["a hat"]) == (
        f"{hopeful.right:.0%} of its surest answers are right; its P is off by {hopeful.off:.2f}"
    )
    result = generate('"no hat"', 4, model=model_of(Reader(negates=False)), progress=False)
    told = ". Of the reader of words: it does not understand negations, so write NOT before the quotes"
    assert result.summary().endswith(told)


def test_too_few_names_conclude_nothing():
    found = examined(Guessing(), heads(NAMES[:2]))
    assert (found.failure, found.texts) == (None, 2)
    assert str(found) == "not examined, because the model has too few attributes to ask about"
    generate(TEXT, 2, model=model_of(Guessing(), heads(NAMES[:2])), verify="off", progress=False)
    with pytest.raises(WeakHeadError, match="its scores do not depend on what a picture shows"):
        generate(TEXT, 2, model=model_of(Blind(), heads(NAMES[:2])), progress=False)


def test_attributes_that_are_read_off_pictures():
    def look(images):
        return {name: images[:, 0, 0, i] > 0 for i, name in enumerate(NAMES)}

    bank = PictureBank(look, heads().vocabulary)
    assert examined(Reader(), bank).failure is None
    assert "no better than chance" in examined(Guessing(), bank).failure


def test_p_never_reaches_certainty_without_labels():
    pictures, text = Columns().synthesize(8 * torch.eye(SIZE)), "somebody with hat"
    sharp = Words(Reader(scale=1e4), "my-reader", "1")
    assert sharp.log_odds(pictures, [text]).abs().max() == pytest.approx(MOST_ZERO_SHOT)
    labelled = Words(Reader(scale=1e4), "my-reader", "1", {text: Calibration(labels=30)})
    assert labelled.log_odds(pictures, [text]).abs().max() > 1000
    drawn = generate(TEXT, 8, model=model_of(Reader(scale=1e4)), progress=False)
    assert drawn.probabilities[text].max() < 0.999
    assert drawn.statistics["drawn_probability"] < 0.995


def test_it_is_made_once_for_a_model_and_reader(monkeypatch):
    class Counted(Reader):
        embedded = 0

        def embed(self, pictures):
            self.embedded += len(pictures)
            return super().embed(pictures)

    reader = Counted()
    first = examined(reader)
    before = reader.embedded
    assert examined(reader) == first and reader.embedded == before  # read from the folder for caches
    monkeypatch.setenv("ENERGYQL_CACHE", "")
    assert examined(reader) == first and reader.embedded > before


def test_a_model_without_a_reader_of_words_is_told():
    with pytest.raises(ArgumentError, match="model 'columns' has no reader of words to examine\nname a folder"):
        open_session(Model("columns", Columns(), heads()), "cpu").examination(DrawSettings())


def test_the_command_shows_it(tmp_path, monkeypatch):
    from energyql.cli.main import app

    monkeypatch.setattr("energyql.pipeline.model.load_model", lambda *_, **__: model_of(Reader()))
    shown = CliRunner().invoke(app, ["attributes", "--reader", "my-reader"])
    assert shown.exit_code == 0, shown.output
    assert "reader of words my-reader: AUC 1.00 on 6 names of attributes, " in " ".join(shown.output.split())
