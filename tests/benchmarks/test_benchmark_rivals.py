"""The rivals: a flow that learns a density given attributes, and the benchmark in miniature."""

import json
import math
from dataclasses import replace

import pytest
import torch
import torchdiffeq
from avatars import random_avatars
from torch.testing import assert_close

from benchmarks import flow as flows
from benchmarks import rival_methods, rivals
from benchmarks.flow import EPSILON, ConditionalFlow, FlowSettings, MovingNorm, train_flow
from benchmarks.rival_methods import DIRECTIONS, EDITS, MOVES, PRESETS, SAMPLERS, Rivals, exact, learn
from benchmarks.rivals import EDITED_COLUMNS
from energyql.errors import ModelError
from energyql.evaluation.judged import EvaluatedModel
from energyql.language import bind, parse
from energyql.sampling import normals

SMALL = FlowSettings(hidden=16, layers=1, pairs=500, batch=128, steps=120, rate=1e-2, tolerance=1e-4, ours=True)


TINY = {
    "a": replace(SMALL, pairs=300, steps=2, batch=8),
    "b": replace(SMALL, pairs=200, steps=3, batch=8, ours=False),
}


def silent(*_):
    pass


def random(*shape, seed=0):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def pairs(count=2000):
    """Points of two numbers, of which the first lies near 3 or -3 as the attribute says."""
    attributes = random(count, 1).sign()
    return torch.cat([3 * attributes + 0.5 * random(count, 1, seed=1), 1 + random(count, 1, seed=2)], 1), attributes


@pytest.fixture(scope="module")
def flow(tmp_path_factory):
    w, attributes = pairs()
    found, losses, _ = train_flow(w, attributes, SMALL, 0, tmp_path_factory.mktemp("flow") / "flow.safetensors", silent)
    assert sum(losses[-10:]) / 10 < losses[0] - 0.5
    return found


def test_a_norm_standardises_by_batches_seen_before_and_back():
    norm, x = MovingNorm(2), 2 + 3 * random(4000, 2)
    assert_close(norm(x), x / math.sqrt(1 + EPSILON))  # nothing was seen before
    assert_close(norm.mean, 0.1 * x.mean(0))
    assert_close(norm.variance, 0.9 + 0.1 * x.var(0))
    for _ in range(200):
        norm(x)
    with torch.no_grad():
        norm.scale.fill_(0.5)
        norm.shift.fill_(-1.0)
    norm.eval()
    y = norm(x)
    assert_close(y.mean(0), -torch.ones(2), rtol=0, atol=1e-3)
    assert_close(y.std(0), torch.full((2,), math.exp(0.5)), rtol=1e-3, atol=0)
    assert_close(norm.inverse(y), x)
    assert_close(torch.autograd.functional.jacobian(norm, x[0]).diagonal().log(), norm.log_slope())


def test_the_loss_is_the_density_of_the_change_of_variables():
    torch.manual_seed(0)
    flow, size = ConditionalFlow(3, 2, replace(SMALL, tolerance=1e-6)), 3
    with torch.no_grad():
        for name, parameter in flow.named_parameters():
            if "first" in name or "last" in name or name == "root_time":
                parameter.add_(0.3)
    flow.eval()
    x, attributes, before = random(1, 3), random(1, 2, seed=1), flow.first.mean
    probes = math.sqrt(size) * torch.eye(size)  # their mean is the exact divergence
    found = torch.stack([flow.loss(x, attributes, probe[None]) for probe in probes]).mean()

    def lead(x):
        times = torch.linspace(0, 1, 2)
        path = torchdiffeq.odeint(
            lambda t, x: flow.velocity(t, x, attributes, x[:0])[0], flow.first(x), times, rtol=1e-7, atol=1e-7
        )
        return flow.last(path[-1])

    jacobian = torch.autograd.functional.jacobian(lead, x).reshape(size, size)
    noise = flow.to_noise(x, attributes)
    expected = 0.5 * noise.square().sum() + 0.5 * size * math.log(2 * math.pi) - torch.linalg.slogdet(jacobian)[1]
    assert_close(found, expected, rtol=1e-4, atol=1e-4)
    assert_close(lead(x), noise, rtol=1e-4, atol=1e-4)
    assert torch.equal(flow.first.mean, before)


def test_the_density_of_one_number_adds_up_to_one(tmp_path):
    w, attributes = random(500, 1), random(500, 1, seed=1).sign()
    flow, *_ = train_flow(w, attributes, replace(SMALL, steps=20), 0, tmp_path / "flow.safetensors", silent)
    x = torch.linspace(-8, 8, 2001)[:, None]
    density = torch.exp(-flow.loss(x, torch.ones(len(x), 1), torch.ones(len(x), 1))).detach()
    assert_close(torch.trapezoid(density, x[:, 0]), torch.ones(()), rtol=1e-2, atol=0)
    assert (density - torch.exp(-0.5 * x[:, 0] ** 2) / math.sqrt(2 * math.pi)).abs().max() > 1e-3


def test_samples_follow_the_attribute(flow):
    for sign in (1.0, -1.0):
        w = flow.to_w(random(400, 2, seed=3), torch.full((400, 1), sign))
        assert_close(w.mean(0), torch.tensor([3 * sign, 1.0]), rtol=0, atol=0.5)
        assert (w[:, 0] * sign > 0).float().mean() > 0.95


def test_edits_change_the_attribute_and_no_other_number(flow):
    w, attributes = pairs(200)
    noise = flow.to_noise(w, attributes)
    assert_close(flow.to_w(noise, attributes), w, rtol=0, atol=0.02)
    moved = flow.to_w(noise, -attributes)
    assert (moved[:, 0] * attributes[:, 0] < 0).float().mean() > 0.95
    assert (moved[:, 1] - w[:, 1]).abs().mean() < 0.5


def test_a_flow_is_read_again_and_only_under_the_same_settings(tmp_path):
    w, attributes = pairs(300)
    path, short = tmp_path / "flow.safetensors", replace(SMALL, steps=3)
    first, losses, seconds = train_flow(w, attributes, short, 0, path, silent)

    def never(done):
        raise AssertionError("it is trained again")

    again, known, took = train_flow(w, attributes, short, 0, path, never)
    assert_close(known, losses)
    assert took == seconds > 0
    assert all(torch.equal(a, b) for a, b in zip(first.state_dict().values(), again.state_dict().values(), strict=True))
    with pytest.raises(AssertionError, match="trained again"):
        train_flow(w, attributes, short, 1, path, never)


def test_an_interrupted_training_ends_as_another(tmp_path, monkeypatch):
    w, attributes = pairs(300)
    settings = replace(SMALL, steps=6)
    whole, losses, _ = train_flow(w, attributes, settings, 0, tmp_path / "whole.safetensors", silent)
    monkeypatch.setattr(flows, "KEPT_EVERY", 2)

    def stop(done):
        if done > 0.5:
            raise KeyboardInterrupt

    path = tmp_path / "flow.safetensors"
    with pytest.raises(KeyboardInterrupt):
        train_flow(w, attributes, settings, 0, path, stop)
    told = []
    resumed, known, _ = train_flow(w, attributes, settings, 0, path, told.append)
    assert told == [1.0]
    assert known == losses
    assert all(
        torch.equal(a, b) for a, b in zip(whole.state_dict().values(), resumed.state_dict().values(), strict=True)
    )


@pytest.fixture
def model(tmp_path):
    return str(random_avatars(tmp_path / "model"))


def common(model):
    """Return a condition that heads and judge of a random model find in many pictures."""
    evaluated = EvaluatedModel(model, device="cpu")
    samples = evaluated.judge(normals(0, 0, 40, evaluated.z_dim, stream="test"))
    heads = evaluated.read_heads(samples.z)
    names = [name for name, spec in evaluated.vocabulary.items() if spec.kind == "yes/no"]
    for text in (*names, *(f"NOT {name}" for name in names)):
        query = bind(parse(text), evaluated.vocabulary)
        if (evaluated.satisfied(query, samples.values) & evaluated.satisfied(query, heads)).mean() > 0.2:
            return text
    raise AssertionError("there is none")


def run(model, out, **changes):
    settings = {"queries": [common(model)], "n": 4, "starts": 2, "exact_count": 40, "seed": 0, "flows": TINY}
    return rivals.run(model, **settings | changes, out=out, report=silent)


@pytest.mark.slow
def test_every_rival_is_measured_and_none_twice(model, tmp_path, monkeypatch):
    for module in (rivals, rival_methods):  # of five edits, two
        monkeypatch.setattr(module, "EDITS", EDITS[:2])
    monkeypatch.setattr(rivals, "EDITED_COLUMNS", EDITED_COLUMNS[:3] + EDITED_COLUMNS[-3:])
    data = run(model, tmp_path / "out")
    (text,) = data["samples"]
    assert set(data["samples"][text]) == {*SAMPLERS, *TINY}
    assert all(found["frechet"] >= 0 for found in data["samples"][text].values())
    assert set(data["edits"]) == {*PRESETS, *TINY, DIRECTIONS, MOVES}
    for found in data["edits"].values():
        assert len(found["satisfied"]) == len(found["leaked"]) == 2
        assert all(0 <= share <= 1 for share in (*found["satisfied"], *found["leaked"], found["all"]))
    path = tmp_path / "out" / "results.json"
    stored = json.loads(path.read_text())
    assert stored["edits"] == data["edits"]
    del stored["samples"][text]["a"]
    path.write_text(json.dumps(stored))
    monkeypatch.setattr(rivals, "measure_edits", None)  # measured already
    again = run(model, tmp_path / "out")
    assert again["samples"][text]["a"]["satisfied"] == data["samples"][text]["a"]["satisfied"]
    written = (tmp_path / "out" / "results.md").read_text()
    assert "| latent JEM |" in written
    assert "| InterFaceGAN |" in written


def test_the_seconds_of_a_training_are_those_of_its_flow(model, tmp_path):
    evaluated = EvaluatedModel(model, device="cpu")
    first, again, other = (learn(Rivals.of(evaluated), TINY, seed, tmp_path, silent)[1] for seed in (0, 0, 1))
    assert first == again  # read, and not trained
    assert list(first) == list(TINY)
    for name in TINY:
        assert other[name]["seconds"] > 0  # trained over the file of another digest
        assert other[name]["nats"] != first[name]["nats"]


def test_exact_pictures_satisfy_the_query_by_heads_and_judge(model):
    evaluated = EvaluatedModel(model, device="cpu")
    query = bind(parse(common(model)), evaluated.vocabulary)
    found = exact(evaluated, query, 30, 0)
    assert 0 < len(found) <= 30
    assert evaluated.satisfied(query, found.values).all()
    assert evaluated.satisfied(query, evaluated.read_heads(found.z)).all()
    with pytest.raises(ModelError, match="none of 262,144 latents satisfies"):
        exact(evaluated, bind(parse("smile AND NOT smile"), evaluated.vocabulary), 30, 0)


def test_the_tables():
    one = {"satisfied": 1.0, "frechet": 2.0, "floor": 0.5, "seconds": 3.0}
    data = {
        "samples": {"a": {"x": one, "y": one | {"satisfied": 0.5}}, "b AND c": {"x": one | {"frechet": 4.0}}},
        "training": {"x": {"seconds": 12.3, "nats": [5.04, 4.0]}},
        "edits": {"x": {"satisfied": [1.0] * 5, "all": 0.25, "leaked": [0.0, 0.1, 0.2, 0.3, 0.4], "seconds": 9.0}},
    }
    assert rivals.sampled_rows(data) == [
        ["x", "100.0", "100.0", "", "2.00", "4.00", "", "6.0"],
        ["y", "50.0", "", "", "2.00", "", "", "3.0"],
        ["exact", "100.0", "100.0", "", "0.50", "0.50", "", ""],
    ]
    data["samples"] = {"a AND b AND c": {"x": one | {"frechet": None}}}  # the last size alone
    assert rivals.sampled_rows(data) == [
        ["x", "", "", "100.0", "", "", "", "3.0"],
        ["exact", "", "", "100.0", "", "", "0.50", ""],
    ]
    assert all(len(row) == len(rivals.SAMPLED_COLUMNS) for row in rivals.sampled_rows(data))
    assert rivals.trained_rows(data) == [["x", "12", "5.0, 4.0"]]
    assert rivals.edited_rows(data) == [["x", *["100.0"] * 5, "25.0", "20.0", "9.0"]]
