"""LogDiff's rule against a flow of known densities, and the loop that differentiates pipelines of the recipe."""

import json
import math

import numpy as np
import pytest
import torch
from commanding import command
from evaluation.lively import silent

from energyql.attributes.judge import Convolutions, Judge
from energyql.attributes.predictions import Categorical, Continuous, YesNo
from energyql.errors import ArgumentError
from energyql.generators.load import load_generator
from energyql.language import bind, parse
from recipes.avatars.vocabulary import VOCABULARY

pytest.importorskip("transformers")
diffusers = pytest.importorskip("diffusers")

from benchmarks import noise, noise_flow  # noqa: E402
from benchmarks.noise_flow import FlowGenerator, LogDiff  # noqa: E402
from energyql.energy.rule import compile_energy_rule  # noqa: E402
from recipes.flow import make, networks, training  # noqa: E402
from recipes.flow.captions import PHRASES  # noqa: E402

pytestmark = pytest.mark.filterwarnings("ignore::DeprecationWarning")
SHARES = {"glasses": 0.3, "hat": 0.5}
SPREAD = 0.15


class Two:
    """A flow of two independent numbers near 1 where an attribute is present, and near -1 where it is not."""

    def read(self, texts):
        codes = [[float(PHRASES[name][1] in text) for name in SHARES] for text in texts]
        return torch.tensor([codes]).view(1, 1, 2), torch.ones(1, 1)

    def velocity(self, x, sigma, states, mask):
        at, left = sigma[0].item(), 1 - sigma[0].item()
        variance = (left * SPREAD) ** 2 + at**2
        columns = []
        for i, share in enumerate(SHARES.values()):
            column = x[:, i, 0, 0]
            yes = torch.sigmoid(math.log(share / (1 - share)) + 2 * left * column / variance)
            yes = torch.where(states[:, 0, i] > 0, 1.0, yes)
            ends = [mean + left * SPREAD**2 / variance * (column - left * mean) for mean in (1, -1)]
            columns.append((column - yes * ends[0] - (1 - yes) * ends[1]) / at)
        return torch.stack(columns, 1)[:, :, None, None]


def drawn(query, n=400, steps=256):
    """Whether each of n samples has glasses, and a hat, and how many numbers are near one of the ends."""
    rule = LogDiff(Two(), lambda x: x, (2, 1, 1), "a person", 4, "", steps=steps)
    shares = {name: YesNo(torch.full((5,), math.log(share / (1 - share)))) for name, share in SHARES.items()}
    x = rule.draw(bind(parse(query), VOCABULARY), VOCABULARY, shares, n, silent).view(n, 2)
    return x[:, 0] > 0, x[:, 1] > 0, ((x.abs() - 1).abs() < 4 * SPREAD).double().mean().item()


@pytest.mark.parametrize(
    ("query", "holds"),
    [
        pytest.param("NOT glasses", lambda a, b: ~a, marks=pytest.mark.slow),
        ("glasses AND NOT hat", lambda a, b: a & ~b),
        pytest.param("glasses OR hat", lambda a, b: a | b, marks=pytest.mark.slow),
        pytest.param("glasses XOR hat", lambda a, b: a ^ b, marks=pytest.mark.slow),
    ],
)
def test_logdiff_samples_the_posterior_of_a_known_flow(query, holds):
    a, b, near = drawn(query)
    assert holds(a, b).double().mean() > 0.95  # it goes to 1 with more steps: 0.93 for AND with 64
    assert near > 0.97
    yes, no = torch.tensor([True, True, False, False]), torch.tensor([True, False, True, False])
    weights = torch.tensor([0.15, 0.15, 0.35, 0.35]) * holds(yes, no)
    for sampled, values in ((a, yes), (b, no)):
        assert sampled.double().mean() == pytest.approx(float(weights[values].sum() / weights.sum()), abs=0.08)


def test_logdiff_does_not_depend_on_the_number_of_samples():
    few, many = drawn("glasses XOR hat", 70, steps=8), drawn("glasses XOR hat", 90, steps=8)
    assert all(torch.equal(some, more[:70]) for some, more in zip(few[:2], many[:2], strict=True))


def named(query):
    rule = compile_energy_rule(bind(parse(query), VOCABULARY), VOCABULARY, relations=False)
    return rule, {name: noise_flow.Named.of(rule.fold, VOCABULARY[name]) for name in rule.attributes}


def test_few_classes_have_prompts():
    _, one = named("hair != red AND NOT hat")
    assert one["hair"].classes == [3]
    assert one["hat"].classes == [1]
    _, several = named("hair IN {red, gray} OR hair = black AND hat")
    assert several["hair"].classes == [0, 3, 4]
    assert named("skin_tone > 0.5")[1]["skin_tone"].classes == [0, 1, 2]


@pytest.mark.parametrize(
    "query",
    ["hair IN {red, gray} OR hair = black AND hat", "skin_tone > 0.5 AND NOT hat", "hair != red XOR skin_tone < 0.2"],
)
def test_probabilities_of_leaves_are_those_of_the_classes(query):
    """The value of the circuit is that of predictions with these probabilities, up to the thirds of numbers."""
    rule, parts = named(query)
    random = torch.Generator().manual_seed(1)
    hair = torch.rand(5, 6, generator=random).double().softmax(1)
    hat, thirds = torch.rand(5, generator=random).double(), torch.rand(5, 3, generator=random).double().softmax(1)
    tables = {"hair": hair, "hat": torch.stack([1 - hat, hat], 1), "skin_tone": thirds}
    leaves = torch.zeros(len(rule.fold.leaves), 5).double()
    for name, each in parts.items():
        leaves[each.rows] = each.leaves(each.normal(tables[name][:, each.classes].t().log()))
    found = rule.fold(leaves).exp()
    red, gray, black = hair[:, 3], hair[:, 4], hair[:, 0]
    above, low = thirds[:, 2] + thirds[:, 1] / 2, thirds[:, 0] * 0.6
    wanted = {
        "hair IN": red + gray + black * hat,
        "skin_to": above * (1 - hat),
        "hair !=": (1 - red) * (1 - low) + red * low,
    }[query[:7]]
    torch.testing.assert_close(found, wanted)


def test_shares_of_classes():
    number = Continuous(torch.tensor([0.1, 0.2, 0.9]), 0.1)
    torch.testing.assert_close(
        noise_flow._shares(number, VOCABULARY["skin_tone"]).exp(), torch.tensor([2.5, 0.5, 1.5]).double() / 4.5
    )
    certain = Categorical(torch.tensor([[9.0, 0, 0, 0], [0, 9.0, 0, 0]]), VOCABULARY["mouth"].values)
    assert noise_flow._shares(certain, VOCABULARY["mouth"]).exp().tolist()[:2] == pytest.approx([0.5, 0.5], abs=0.01)


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """A flow and its teacher with random weights, a guide and a judge."""
    place = tmp_path_factory.mktemp("flow")
    with pytest.MonkeyPatch.context() as patch, torch.random.fork_rng(devices=[]):
        for name, value in {"WIDTH": 32, "TEXT_WIDTH": 32, "LAYERS": 1, "CHANNELS": (8, 8, 8, 16)}.items():
            patch.setattr(networks, name, value)
        torch.manual_seed(0)
        network, flow = networks.autoencoder().eval(), training.new_flow()
        few = diffusers.FlowMatchEulerDiscreteScheduler(shift_terminal=1 / networks.STEPS)
        make.save(make.pipeline(network, flow, few), place / make.FLOW)
        make.save(make.pipeline(network, flow, diffusers.FlowMatchEulerDiscreteScheduler()), place / make.TEACHER)
        pictures = training.decode(network, torch.randn(64, *networks.LATENT)).detach()
        for name in ("guide", "judge"):
            reader = Judge(VOCABULARY, Convolutions(networks.SIDE, (4, 6))).eval().requires_grad_(False)
            outputs = reader.features(pictures) @ reader.head.weight.T
            reader.head.weight.mul_(2 / outputs.std(0)[:, None])
            reader.head.bias.copy_(-2 * outputs.mean(0) / outputs.std(0))  # so that both values are common
            reader.save(place, name)
    return place


CALL = {
    "num_inference_steps": 4, "guidance_scale": 1.0, "height": 64, "width": 64, "use_resolution_binning": False,
    "complex_human_instruction": None, "prompt": "a person",
}  # fmt: skip


def test_the_loop_draws_the_pictures_of_the_pipeline_and_has_gradients(folder):
    pipeline = load_generator(folder / make.FLOW, **CALL)
    for more in ({}, {"guidance_scale": 2.0, "negative_prompt": "glasses"}):
        flow = FlowGenerator(pipeline._pipeline, CALL | more)
        z = torch.randn(2, flow.z_dim, generator=torch.Generator().manual_seed(3)).requires_grad_()
        pictures = flow.synthesize(flow.encode(z))
        plain = load_generator(folder / make.FLOW, **CALL | more)
        torch.testing.assert_close(pictures, plain.synthesize(z.detach()), atol=1e-4, rtol=0)
        assert torch.autograd.grad(pictures.square().sum(), z)[0].abs().sum() > 0
        assert flow.evaluations == (8 if more else 4)
    with pytest.raises(ArgumentError, match="our loop differs"):
        FlowGenerator(pipeline._pipeline, {name: CALL[name] for name in CALL if name != "complex_human_instruction"})


def test_prompts_are_captions(folder):
    flow = FlowGenerator(load_generator(folder / make.FLOW, **CALL)._pipeline, CALL)
    query = bind(parse("smile AND NOT (glasses OR hair = red) AND skin_tone > 0.7"), VOCABULARY)
    words = {"phrase": flow.phrase, "sentence": flow.sentence}
    told = noise.caption("a person", query, negate=False, **words)[0]
    assert told == "a person with a smile, no glasses, no red hair, dark skin"
    assert noise.caption("a person", query, negate=True, **words) == (
        "a person with a smile, dark skin", "glasses, red hair",
    )  # fmt: skip
    assert flow.sentence("a person with a hat", ["a smile"]) == "a person with a hat, a smile"


def test_a_flow_has_a_row_of_every_method(folder, tmp_path):
    calls = [f"--call={name}={json.dumps(value)}" for name, value in CALL.items()]
    done = command(
        noise, str(folder / make.FLOW), "--guide", str(folder), "--judge", str(folder), *calls, "--smoke",
        "--differentiate", "--teacher", str(folder / make.TEACHER), "--formulas", "hat OR beard",
        "--labels", "200", "--out", str(tmp_path),
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    rows = {row["method"]: row for row in json.loads((tmp_path / "results.json").read_text())["rows"]}
    assert set(rows) == set(noise.METHODS)
    assert not [row["refused"] for row in rows.values() if "refused" in row]
    assert rows[noise.LOGDIFF]["calls"] == pytest.approx(32 * 3 / 4 + 64)  # the shares of 192 pictures
    assert rows[noise.WORDS]["calls"] == 1
    assert rows[noise.GRADIENTS]["calls"] > 2
    assert rows[noise.RENO]["calls"] == pytest.approx(99, abs=0.5)
    assert np.isfinite([row["judge"] for row in rows.values()]).all()
