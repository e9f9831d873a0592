"""Queries with texts in quotes, read by a toy reader on pictures whose red is z_0, green 0 and blue z_1."""

from dataclasses import replace

import numpy as np
import pytest
import torch

from energyql import E, Gallery, Model, edit, explain, generate, sample_latents, stream, until_satisfied, write_dataset
from energyql.attributes import words as module
from energyql.attributes.bank import FittedUnder
from energyql.attributes.heads import AttributeBank, Head
from energyql.attributes.pictures import PictureBank
from energyql.attributes.quality import HeadReport
from energyql.attributes.words import Calibration, NoBank, Words
from energyql.errors import (
    DataError,
    KindError,
    LimitError,
    ModelError,
    QuerySyntaxError,
    UnknownAttribute,
    WeakHeadError,
)
from energyql.pipeline import texts
from energyql.pipeline.plan import plan_query
from energyql.pipeline.result import Result
from energyql.pipeline.session import Session, open_session
from energyql.vocabulary import AttributeSpec, Vocabulary

Z_DIM = 4
VOCABULARY = Vocabulary([AttributeSpec("bright", "yes/no"), AttributeSpec("hair", "categorical", ("red", "black"))])


class Pixels(torch.nn.Module):
    z_dim = Z_DIM

    def encode(self, z, truncation=1.0):
        return z

    def synthesize(self, w):
        colours = torch.stack([w[:, 0], torch.zeros_like(w[:, 0]), w[:, 1]], 1) / 8
        return colours[:, :, None, None].expand(-1, -1, 4, 4)


class Colours:
    """Its logits are 40 times the red, or the blue, of a picture; those of other texts are 0."""

    def __init__(self):
        self.read_pictures = 0

    def read(self, pictures, texts):
        self.read_pictures += len(pictures)
        red, _, blue = pictures.mean((2, 3)).unbind(1)
        of = {"somebody red": 80 * red, "brigt": 80 * blue, "nothing red": -80 * red}
        return torch.stack([of.get(text, 0 * red) for text in texts], 1)


def look(images):
    return {"bright": images[:, 2, 0, 0] > 0, "hair": ["red"] * len(images)}


def head(outputs):
    none, weights = torch.zeros(0), torch.zeros(outputs, Z_DIM)
    weights[0, 1] = 6
    return Head(none.view(0, Z_DIM), none, none.view(outputs, 0), weights, torch.zeros(outputs), torch.ones(()))


@pytest.fixture(autouse=True)
def few(monkeypatch):
    monkeypatch.setattr(texts, "COUNT", 256)
    monkeypatch.setattr(module, "STEPS", 200)
    monkeypatch.setenv("ENERGYQL_CACHE", "")


@pytest.fixture
def model():
    bank = AttributeBank(VOCABULARY, {"bright": head(1), "hair": head(2)}, fitted=FittedUnder("z"))
    return Model("pixels", Pixels(), bank, look, words=Words(Colours(), "colours", "1" * 64))


QUERY = '"somebody red" AND NOT bright'


def test_the_reader_decides_on_every_picture(model):
    result = generate(QUERY, n=32, model=model, progress=False)
    assert (result.z[:, 0] > 0).all() and (result.z[:, 1] <= 0).all()
    assert result.satisfied is None
    assert "accepted by the reader of words colours, zero-shot" in result.summary()
    assert result.provenance["words"] == {"reader": "colours", "texts": {"somebody red": "zero-shot"}}
    assert result.provenance["canonical"] == QUERY


def test_a_reader_is_recorded_only_where_it_reads(model):
    marks = {"generator": "2" * 64}
    plain = replace(model, fingerprints=marks, words=None)
    model = replace(model, fingerprints=marks | {"words": model.words.mark})
    alone, beside = (generate("bright", n=2, model=one, progress=False) for one in (plain, model))
    assert alone.provenance == beside.provenance and torch.equal(alone.z, beside.z)
    assert generate(QUERY, n=2, model=model, progress=False).provenance["fingerprints"] == model.fingerprints


def test_a_session_with_texts_is_complete_before_other_threads_see_it(model):
    class Shared(dict):
        def __setitem__(self, key, session):
            assert session.texts == key[0]
            super().__setitem__(key, session)

    pipeline = Session(model, model.device)
    pipeline._reading = Shared()
    plan_query(pipeline, QUERY)
    assert [texts for texts, *_ in pipeline._reading] == [("somebody red",)]


class Mirrored(Pixels):
    """In its second class, z_0 is the other way round."""

    c_dim = 2

    def encode(self, z, truncation=1.0, condition=None):
        return z if condition is None else torch.cat([z, condition], 1)

    def synthesize(self, w):
        return super().synthesize(torch.cat([w[:, :1] * (w[:, Z_DIM:][:, :1] * 2 - 1), w[:, 1:]], 1))


def test_each_condition_has_heads_of_its_own(model):
    both = replace(model, generator=Mirrored())
    for condition in (0, 1):
        result = generate('"somebody red"', n=16, model=both, condition=condition, verify="off", progress=False)
        assert (result.w[:, 0] * (1 - 2 * condition) > 0).double().mean() > 0.8


def test_heads_say_where_to_look(model):
    """Of random pictures an eighth satisfies the query; the heads of the texts lead to most of the others."""
    result = generate('"somebody red" AND NOT "brigt"', n=16, model=model, progress=False)
    assert result.statistics["drawn"] < 3 * 16


def test_pictures_depend_on_seed_and_number_alone(model):
    whole = generate(QUERY, n=8, model=model, progress=False, seed=3)
    later = generate(QUERY, n=4, first=4, model=model, progress=False, seed=3, batch_size=3)
    assert torch.equal(whole.z[4:], later.z)


def test_the_same_in_python(model):
    by_text = generate(QUERY, n=4, model=model, progress=False)
    for query in (E["somebody red"] & ~E.bright, model.E["somebody red"] & ~model.E["bright"]):
        assert torch.equal(generate(query, n=4, model=model, progress=False).z, by_text.z)
    with pytest.raises(UnknownAttribute):
        model.E.brigt  # noqa: B018


def test_every_surface(model, tmp_path):
    assert sum(len(batch.z) for batch in sample_latents(QUERY, 4, model=model, progress=False)) == 4
    assert sum(len(part) for part in stream(QUERY, 4, model=model, progress=False)) == 4
    gallery = Gallery([QUERY, '"nothing red"'], n=2, model=model, progress=False)
    assert "somebody red" in gallery.to_html()
    explanation = explain('"brigt" AND bright', model=model, pilot=True, progress=False)
    assert '"brigt" is read off pictures by colours, zero-shot; if the attribute is meant: bright' in str(explanation)
    with pytest.raises(ModelError, match="the judge does not read 'somebody red'"):
        until_satisfied(QUERY, 2, model=model, progress=False)
    folder = generate(QUERY, n=2, model=model, progress=False).save(tmp_path / "saved")
    assert Result.load(folder).provenance["words"]["texts"] == {"somebody red": "zero-shot"}


def test_edits_follow_the_heads_of_texts(model):
    edited = edit(5, '"somebody red"', n=4, model=model, progress=False)
    assert (edited.steps[-1].w[:, 0] > 0).all()


def test_attributes_that_are_read_off_pictures(model):
    bank = PictureBank(lambda images: {"bright": images[:, 2, 0, 0] > 0}, Vocabulary([VOCABULARY["bright"]]))
    by_picture = Model("pixels", Pixels(), bank, words=model.words)
    result = generate(QUERY, n=8, model=by_picture, sampler="slice", progress=False)
    assert (result.z[:, 0] > -0.5).all() and (result.z[:, 1] <= 0).all(), "log-odds are 10 z_0"
    assert "accepted by the reader of words" in result.summary()  # the code that defines `bright` decides too


def test_a_generator_without_attributes(model):
    bare = Model("pixels", Pixels(), NoBank(Vocabulary([])), words=model.words)
    result = generate('"somebody red" AND NOT "brigt"', n=8, model=bare, progress=False)
    assert (result.z[:, 0] > 0).all() and (result.z[:, 1] <= 0).all()


def test_random_pictures_are_read_once_for_a_text(model):
    reader = model.words.reader
    generate('"somebody red"', n=1, model=model, progress=False)
    first = reader.read_pictures
    generate('"somebody red"', n=1, model=model, progress=False, seed=1)
    assert first >= 256 > reader.read_pictures - first


@pytest.mark.parametrize(("query", "error", "message"), [
    ('""', QuerySyntaxError, "must not be empty"),
    (f'"{"x " * 5000}"', LimitError, "a text has 10,000 characters, more than 400"),
    ("brigt", UnknownAttribute, "did you mean bright"),
    ('"somebody red" > 0.5', UnknownAttribute, "stands alone"),
    ('"somebody red" = "x"', UnknownAttribute, "stands alone"),
    ('"hair" = "x"', KindError, "not a value of hair"),
])  # fmt: skip
def test_wrong_queries(model, query, error, message):
    with pytest.raises(error) as caught:
        generate(query, n=1, model=model, progress=False)
    assert (message in caught.value.render() and "^" in caught.value.render()) or error is LimitError


def test_a_model_without_a_reader_says_how_to_give_one():
    with pytest.raises(UnknownAttribute, match="give model 'avatars' a reader: reader=") as caught:
        generate('"somebody red"', n=1)
    assert '"somebody red"\n  ^^^^' in caught.value.render()


@pytest.mark.parametrize(("read", "message"), [
    (lambda pictures, texts: torch.full((len(pictures), len(texts)), torch.nan), "logits that are not finite"),
    (lambda pictures, texts: torch.zeros(len(pictures), len(texts), dtype=torch.long), "must return logits"),
    (lambda pictures, texts: torch.zeros(len(pictures)), "must return logits"),
    (lambda pictures, texts: None, "not NoneType"),
])  # fmt: skip
def test_wrong_readers(model, read, message):
    reader = Colours()
    reader.read = read
    model = Model("pixels", model.generator, model.bank, words=Words(reader, "colours", ""))
    with pytest.raises(DataError, match=message):
        generate('"somebody red"', n=1, model=model, progress=False)


def test_the_judge_is_no_reader(model):
    reader = Colours()
    reader.__class__.__call__ = lambda self, images: look(images)
    with pytest.raises(ModelError, match="the judge of model 'pixels' is the reader of words"):
        Model("pixels", model.generator, model.bank, reader, words=Words(reader, "colours", ""))


def test_calibrations_are_used_and_a_reader_no_better_than_chance_is_weak(model):
    report = HeadReport("yes/no", 0, 30, {"no": 15, "yes": 15}, 0.5, (0.3, 0.7), {"no": (0.5, 0.3, 0.7)}, 0.1)
    words = Words(
        model.words.reader, "colours", "", {"somebody red": Calibration(offset=-20, labels=30, report=report)}
    )
    weak = Model("pixels", model.generator, model.bank, look, words=words)
    with pytest.raises(WeakHeadError, match="the reader of 'somebody red' is too weak"):
        generate(QUERY, n=1, model=weak, progress=False)
    result = generate(QUERY, n=8, model=weak, allow_weak=("somebody red",), progress=False)
    assert (result.z[:, 0] > 2).all(), "80 z / 8 - 20 > 0"
    assert "calibrated on 30 labels" in result.summary()


def test_embeddings_are_stored(model, tmp_path, monkeypatch):
    class Embedding(Colours):
        embedded = 0

        def embed(self, pictures):
            Embedding.embedded += len(pictures)
            return pictures.mean((2, 3))

        def score(self, embedded, texts):
            return Colours.read(self, embedded[:, :, None, None], texts)

    monkeypatch.setenv("ENERGYQL_CACHE", str(tmp_path))
    for _ in range(2):
        words = Words(Embedding(), "colours", "2")
        fresh = Model("pixels", Pixels(), model.bank, look, fingerprints={"generator": "g"}, words=words)
        generate('"somebody red"', n=1, model=fresh, progress=False)
    assert Embedding.embedded == 256
    (path,) = (tmp_path / "words").iterdir()
    path.write_bytes(b"damaged")
    generate('"somebody red"', n=1, model=Model("pixels", Pixels(), model.bank, look, fingerprints={"generator": "g"},
             words=words), progress=False)  # fmt: skip
    assert Embedding.embedded == 512


def test_a_data_set(model, tmp_path):
    from energyql.dataset.plan import DatasetClass, DatasetPlan

    classes = [
        DatasetClass(name="red", query='"somebody red"', count=3, model=model),
        DatasetClass(name="dark", query="NOT bright", count=3, model=model),
    ]
    write_dataset(DatasetPlan(classes=classes), tmp_path / "set", progress=False)
    assert plan_query(open_session(model, "cpu"), '"somebody red"').model.vocabulary["somebody red"].kind == "yes/no"
    assert np.isfinite(len(list((tmp_path / "set").iterdir())))
