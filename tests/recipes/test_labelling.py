import pytest
import torch
from recipes.avatars.heads import SEEDS, fit_heads
from recipes.avatars.labelling import BATCH, LATENT_SEED, PER_QUERY, Labelled, Labeller
from recipes.avatars.queries import LEAST_PARTS, MOST_PARTS, random_query

from energyql.attributes.judge import Judge
from energyql.generators.stylegan2 import StyleGAN2, StyleGAN2Config
from energyql.language import bind
from energyql.pipeline.model import Model
from energyql.sampling import prior_latents
from recipes.avatars import labelling
from recipes.avatars.factors import Z_DIM, Factors
from recipes.avatars.vocabulary import VOCABULARY


@pytest.fixture(scope="module")
def model():
    torch.manual_seed(0)
    generator = StyleGAN2(StyleGAN2Config(64, z_dim=Z_DIM, w_dim=16, channel_base=1024, channel_max=16))
    z = prior_latents(5, 0, 4000, Z_DIM)
    labels = {name: values.float() for name, values in Factors()(z).labels.items()}
    bank = fit_heads(Labelled(z, labels), None, "", scale=0.02, seeds=SEEDS[:1])
    judge = Judge(VOCABULARY, channels=(8, 8)).eval().requires_grad_(False)
    return Model("avatars", generator.eval().requires_grad_(False), bank, judge)


@pytest.fixture
def labeller(model, monkeypatch):
    monkeypatch.setattr(torch, "compile", lambda function: function)
    return Labeller(model.generator, model.judge)


def test_random_queries_join_two_to_six_parts_and_use_every_attribute():
    queries = [bind(random_query(1, index), VOCABULARY) for index in range(300)]
    assert {len(query.operands) for query in queries} == set(range(LEAST_PARTS, MOST_PARTS + 1))
    assert all(any(name in str(query) for query in queries) for name in VOCABULARY)
    assert len({str(query) for query in queries}) > 290


def test_labels_are_what_the_judge_says(labeller, model):
    z = prior_latents(3, 0, 8, 64)
    found = labeller.label(z)
    assert set(found.labels) == set(VOCABULARY)
    with torch.no_grad():
        read = model.judge(model.generator.synthesis(model.generator.encode(z)))
    assert torch.equal(found.labels["smile"].bool(), read["smile"].logit > 0)
    assert torch.equal(found.labels["hair"].long(), read["hair"].logits.argmax(1))
    assert torch.equal(found.labels["skin_tone"], read["skin_tone"].mean)


def test_labels_of_the_prior_are_kept_and_read_again(labeller, model, tmp_path, monkeypatch):
    monkeypatch.setattr(labelling, "KEPT_TOGETHER", 1)
    count = BATCH + 6
    first = labeller.label_prior(tmp_path / "prior", count)
    assert torch.equal(first.latents, prior_latents(LATENT_SEED, 0, count, model.generator.z_dim))
    assert len(list((tmp_path / "prior").iterdir())) == 2
    (tmp_path / "prior" / "1-2.pt").unlink()
    drawn = []
    label = labeller.label
    monkeypatch.setattr(labeller, "label", lambda z: drawn.append(len(z)) or label(z))
    again = labeller.label_prior(tmp_path / "prior", count)
    assert drawn == [6]
    assert torch.equal(again.latents, first.latents)
    for name in VOCABULARY:
        assert torch.equal(again.labels[name], first.labels[name])


def test_found_latents_satisfy_their_queries_by_the_heads_and_contradictions_are_left_out(
    labeller, model, tmp_path, monkeypatch
):
    texts = ("glasses AND beard", "smile AND frown", "hat AND NOT smile")
    monkeypatch.setattr(labelling, "random_query", lambda seed, index: texts[index])
    monkeypatch.setattr(labeller, "label", lambda z: Labelled(z, dict.fromkeys(VOCABULARY, z[:, 0])))
    z = labeller.label_found(tmp_path / "found", model, 3).latents
    assert len(z) == 2 * PER_QUERY
    read = model.bank.predict(z)
    first, second = slice(PER_QUERY), slice(PER_QUERY, None)
    for name, rows, sign in (("glasses", first, 1), ("beard", first, 1), ("hat", second, 1), ("smile", second, -1)):
        assert (sign * read[name].logit > 0)[rows].float().mean() > 0.8
