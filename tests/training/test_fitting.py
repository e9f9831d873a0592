"""Early stopping, balance and going on after an interruption."""

from functools import cache

import pytest
import torch

from energyql.attributes.predictions import HEAD_KINDS
from energyql.training.heads import (
    CHECKS,
    HeadSettings,
    attribute_loss,
    balancing_weights,
    train_heads,
)
from energyql.training.labelled import Labelled
from energyql.training.steps import Course, StepFile, digest
from energyql.vocabulary import AttributeSpec, Vocabulary

SPECS = Vocabulary(
    [
        AttributeSpec("rare", "yes/no"),
        AttributeSpec("luck", "yes/no"),
        AttributeSpec("age", "continuous"),
        AttributeSpec("hair", "categorical", values=("a", "b", "c")),
    ]
)


def data(count=1200, dim=5):
    random = torch.Generator().manual_seed(0)
    x = torch.randn(count, dim, generator=random)
    chance = torch.sigmoid(2 * x[:, 0] - 4)
    labels = {
        "rare": (torch.rand(count, generator=random) < chance).float(),
        "luck": torch.randint(2, (count,), generator=random).float(),
        "age": 0.5 + 0.1 * x[:, 1],
        "hair": torch.where(x[:, 2] > 1.3, 2.0, (x[:, 3] > 0).float()),
    }
    labels["age"][::3] = torch.nan
    return x, labels


def fit(path=None, *, stop_at=None, seed=1, **changes):
    class Stop(Exception):
        pass

    seen = []

    def progress(done):
        seen.append(done)
        if stop_at is not None and len(seen) == stop_at:
            raise Stop

    quick = {"hidden": 8, "steps": 90, "batch": 64, "lr": 2e-2, "weight_decay": 1e-2, "patience": 99}
    settings = HeadSettings(**quick | changes)
    try:
        return train_heads(Labelled(*data(), SPECS), settings, Course(seed, checkpoint=path, progress=progress)), seen
    except Stop:
        return None, seen


@cache
def whole(patience=99):
    """A fit that nothing interrupted."""
    return fit(patience=patience)[0]


def same(first, second):
    return all(
        torch.equal(tensor, second.heads[name].tensors()[field])
        for name, head in first.heads.items()
        for field, tensor in head.tensors().items()
    )


class TestGoingOn:
    ALSO = ((2, None), (40, 99), (40, None), (89, None))

    @pytest.mark.parametrize(
        ("stop_at", "patience"),
        [(2, 99), (45, 99), (45, None), (89, 99), *(pytest.param(*case, marks=pytest.mark.slow) for case in ALSO)],
    )
    def test_the_end_is_that_of_a_run_without_interruption(self, tmp_path, stop_at, patience):
        path = tmp_path / "state.safetensors"
        fit(path, stop_at=stop_at, patience=patience)
        resumed, seen = fit(path, patience=patience)
        assert len(seen) == 90 - stop_at // 3 * 3  # the state is written every three steps
        assert same(whole(patience)[0], resumed[0])
        assert whole(patience)[1] == resumed[1]
        finished, seen = fit(path, patience=patience)
        assert not seen  # nothing is left to do
        assert same(whole(patience)[0], finished[0])
        assert whole(patience)[1] == finished[1]

    def test_the_state_of_another_training_is_not_used(self, tmp_path):
        path = tmp_path / "state.safetensors"
        fit(path, stop_at=50, seed=2)
        assert same(whole()[0], fit(path)[0][0])
        content = path.read_bytes()
        for damaged in (b"", content[:-1] + bytes([content[-1] ^ 1])):
            path.write_bytes(damaged)
            assert same(whole()[0], fit(path)[0][0])

    def test_what_tells_trainings_apart(self, tmp_path):
        x = torch.zeros(2, 3)
        runs = [digest(1, x), digest(2, x), digest(1, x + 1), digest(1, x.view(3, 2)), digest(1, x.double())]
        assert len(set(runs)) == 5
        StepFile(tmp_path / "s", runs[0]).write_tensors({"a": x})
        assert torch.equal(StepFile(tmp_path / "s", runs[0]).read_tensors()["a"], x)
        assert StepFile(tmp_path / "s", runs[1]).read_tensors() is None
        assert StepFile(tmp_path / "t", runs[0]).read_json() is None
        assert StepFile(None, runs[0]).read() is None


class TestEarlyStopping:
    def test_it_stops_when_nothing_gets_better(self):
        x, labels = data(300)
        vocabulary = Vocabulary([SPECS["luck"]])
        seen = []
        settings = HeadSettings(steps=3000, batch=64, lr=1e-2, weight_decay=1e-2, patience=3)
        _, reports = train_heads(
            Labelled(x, {"luck": labels["luck"]}, vocabulary), settings, Course(progress=seen.append)
        )
        assert len(seen) < 3000
        assert seen[-1] == 1.0
        assert 0 < reports["luck"].steps <= 3000 - 3 * 3000 // CHECKS

    def test_each_head_is_kept_at_its_best(self):
        (_, reports), _ = fit(steps=300)
        assert reports["luck"].steps < reports["age"].steps


class TestBalance:
    def test_probabilities_stay_honest(self):
        (bank, _), _ = fit(balance=True, steps=300, lr=1e-2)
        x, labels = data()
        mean = bank.predict(x)["rare"].logit.sigmoid().mean()
        assert mean == pytest.approx(labels["rare"].mean().item(), abs=0.03)

    @pytest.mark.parametrize("name", ["rare", "hair"])
    def test_the_correction_is_exact(self, name):
        """The constant that is best under weights is, corrected, the one that is best without them."""
        spec, labels = SPECS[name], torch.tensor([0.0] * 6 + [1.0] * 3 + ([2.0] if name == "hair" else []))
        weights = balancing_weights(labels, spec)

        def best(weights):
            outputs = torch.zeros(1, 1 if name == "rare" else 3, requires_grad=True)
            optimizer = torch.optim.LBFGS([outputs], max_iter=100, line_search_fn="strong_wolfe")

            def closure():
                optimizer.zero_grad()
                loss = attribute_loss(outputs.expand(len(labels), -1), labels, spec, weights)
                loss.backward()
                return loss

            optimizer.step(closure)
            return outputs.detach()[0]

        corrected, plain = best(weights) - HEAD_KINDS[spec.kind].shift_of(weights), best(None)
        if name == "hair":
            corrected, plain = corrected.log_softmax(0), plain.log_softmax(0)
        torch.testing.assert_close(corrected, plain, atol=1e-3, rtol=1e-3)


def test_units_do_not_matter():
    """An age in years is learned as well as one in 0 to 1."""
    x, labels = data()
    errors = []
    for unit in (1.0, 100.0):
        spec = AttributeSpec("age", "continuous", low=0, high=unit, tolerance=0.05 * unit)
        age = {"age": unit * labels["age"]}
        settings = HeadSettings(8, 200, 64, lr=1e-2, weight_decay=1e-2, patience=None)
        bank, _ = train_heads(Labelled(x, age, Vocabulary([spec])), settings)
        errors.append(bank.heads["age"].std.item() / unit)
    assert errors[0] < 0.03
    assert errors[0] == pytest.approx(errors[1], rel=0.05)


def test_training_starts_at_the_base_rates():
    (bank, _), _ = fit(steps=1, lr=0.0)
    x, labels = data()
    predictions = bank.predict(x[:1000])
    assert predictions["rare"].logit.sigmoid().median() == pytest.approx(labels["rare"].mean().item(), abs=0.03)
    assert predictions["age"].mean.mean() == pytest.approx(0.5, abs=0.1)
