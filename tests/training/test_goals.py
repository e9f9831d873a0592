"""Directions that are learned through a generator: edits of its pictures, and numbers that are read from them."""

import math

import pytest
import torch
from planted import Planted, rotation
from torch.testing import assert_close
from toys import tiny_model

from energyql.attributes.bank import FittedUnder
from energyql.attributes.predictions import Categorical, Continuous, YesNo
from energyql.errors import ArgumentError, DataError
from energyql.pipeline.model import load_model
from energyql.training import directions as directions_module
from energyql.training import goals
from energyql.training.directions import find_directions
from energyql.training.goals import EDITS, as_numbers, learn_goals, move_along
from energyql.training.samples import Prior

SIDE = 16
PLACES = (torch.arange(SIDE) + 0.5) / SIDE * 2 - 1


class Spot:
    """A spot whose place from left to right and whose brightness are numbers of w; its height is fixed."""

    z_dim = 4

    def __init__(self):
        self.axes = rotation(4)

    def encode(self, z, truncation=1.0):
        return 1 + truncation * z * torch.tensor([1.0, 2.0, 0.5, 1.0])

    def synthesize(self, w):
        x, light = 0.2 * (w - 1) @ self.axes[:, 0], 0.1 * (w - 1) @ self.axes[:, 1]
        spot = torch.exp(-((PLACES[None, None] - x[:, None, None]) ** 2 + PLACES[None, :, None] ** 2) / 0.1)
        return (spot + light[:, None, None] - 0.5)[:, None].expand(-1, 3, -1, -1)


def read_spot(images):
    weights = (images[:, 0] + 0.5).clamp(min=0.2) - 0.2
    return {
        "light": images.mean((1, 2, 3)),
        "place": (weights * PLACES).sum((1, 2))[:, None] / weights.sum((1, 2))[:, None],
    }


def aligned(a, b):
    return torch.cosine_similarity(a.double(), b.double(), dim=-1)


def test_steerability_finds_what_moves_and_lights_a_spot():
    found = find_directions(Spot(), "steerability", goals=["shift_x", "shift_y", "brightness"])
    assert found.titles == ("shift_x", "shift_y", "brightness")
    axes = Spot().axes
    assert aligned(found.normal[0], axes[:, 0]) > 0.95  # with the sign: to the right
    assert aligned(found.normal[2], axes[:, 1]) > 0.97
    right, up, light = found.share.tolist()
    assert right > 0.8
    assert light > 0.9
    assert up < 0.1  # the spot has one height
    w = Spot().encode(torch.randn(500, 4, generator=torch.Generator().manual_seed(0)))
    assert (found.values(w).std(0) - 1).abs().max() < 0.1
    assert_close(found.values(w + found.move[0])[:, 0], found.values(w)[:, 0] + 1, rtol=1e-4, atol=1e-4)


def test_ganalyze_finds_what_raises_a_number():
    found = find_directions(Spot(), "ganalyze", labeller=read_spot)
    assert found.titles == ("light", "place")
    axes = Spot().axes
    assert aligned(found.normal[0], axes[:, 1]) > 0.97
    assert aligned(found.normal[1], axes[:, 0]) > 0.97
    assert (found.share > 0.9).all()
    only = find_directions(Spot(), "ganalyze", labeller=read_spot, goals=["place"])
    assert only.titles == ("place",)
    assert aligned(only.move, found.move[1]) > 0.999


def test_the_same_call_learns_the_same():
    first, second = (find_directions(Spot(), "steerability", goals=["shift_x"]) for _ in range(2))
    assert torch.equal(first.move, second.move)
    assert torch.equal(first.share, second.share)


def test_the_length_of_a_step_is_that_of_the_edit():
    generator = Spot()
    prior = Prior(generator, 0, FittedUnder(), torch.device("cpu"))
    step, _ = learn_goals(goals.edit_goals(["shift_x"], 1), prior, torch.eye(4).double(), None, lambda *_: None)
    moved = 0.2 * step[0].float() @ generator.axes[:, 0]
    assert_close(moved, torch.tensor(2 * goals.SHIFT), rtol=0.05, atol=0)  # places go from -1 to 1


def test_edits_do_what_they_say():
    x = torch.zeros(1, 3, 8, 8)
    x[0, :, 2:4, 4:6] = 1.0  # a square to the right of the middle and above it
    one, none = torch.ones(1), torch.zeros(1)
    for edit in EDITS.values():
        unchanged, known = edit(x, none)
        assert_close(unchanged, x, rtol=0, atol=1e-5)
        assert known.all()
    right, known = EDITS["shift_x"](x, one)
    assert_close(right, x.roll(1, 3), rtol=0, atol=1e-5)
    assert not known[..., 0].any()
    assert known[..., 1:].all()
    up, known = EDITS["shift_y"](x, one)
    assert_close(up, x.roll(-1, 2), rtol=0, atol=1e-5)
    assert not known[:, :, -1].any()
    larger, known = EDITS["zoom"](x, torch.tensor([2.0]))  # twice the size
    assert known.all()
    assert larger.sum() > 3 * x.sum()
    _, known = EDITS["zoom"](x, torch.tensor([-2.0]))
    assert known.float().mean() == 0.25
    turned, _ = EDITS["rotation"](x, torch.tensor([math.pi / 2 / goals.TURN]))
    assert_close(turned, x.rot90(1, (2, 3)), rtol=0, atol=1e-4)  # against the clock
    green, _ = EDITS["green"](x, one)
    assert_close((green - x)[0].mean((1, 2)), torch.tensor([0.0, 0.5, 0.0]))
    lighter, _ = EDITS["brightness"](x, -one)
    assert_close(x - lighter, torch.full_like(x, 0.5))
    stronger, _ = EDITS["contrast"](x, one)
    assert_close(stronger.mean(), x.mean())
    assert_close(stronger.std(), x.std() * 2**0.5)


def test_pixels_that_an_edit_does_not_know_do_not_count():
    error = goals.edit_goals(["shift_x"], 1)["shift_x"]
    before = torch.rand(2, 3, 64, 64, generator=torch.Generator().manual_seed(0)) - 0.5
    after = before.roll(8, 3)
    after[..., :8] = 9.0
    assert_close(error(before, after, torch.ones(2)), torch.zeros(2), rtol=0, atol=1e-6)
    assert (error(before, before, torch.ones(2)) > 0.05).all()


def test_layers_alone_move(tmp_path, monkeypatch):
    monkeypatch.setattr(goals, "STEPS", 8)
    model = load_model(tiny_model(tmp_path / "m"))
    shown, synthesize = [], type(model.generator).synthesize
    monkeypatch.setattr(type(model.generator), "synthesize", lambda self, w: [shown.append(w), synthesize(self, w)][1])
    found = find_directions(model, "steerability", goals=["red"], layers=[1, 4])
    assert found.layers == (1, 4)
    moved = [w for w in shown if w.ndim == 3]
    assert (moved[-1][:, [1, 4]] - moved[-1][:, [0]]).abs().amin((1, 2)).max() > 0
    assert all(torch.equal(w[:, [0, 2, 3]], w[:, [5]].expand(-1, 3, -1)) for w in moved)
    w = torch.ones(2, 3)
    assert torch.equal(move_along(w, w, None, model.generator), 2 * w)


def test_the_judge_of_the_model_reads_the_numbers(tmp_path, monkeypatch):
    monkeypatch.setattr(goals, "STEPS", 8)
    folder = tiny_model(tmp_path / "m")
    found = find_directions(folder, "ganalyze", goals=["hair", "age"])
    assert found.titles == ("hair = black", "hair = brown", "hair = dark red", "age")
    again = find_directions(load_model(folder), "ganalyze", goals=["age"])
    assert aligned(found.move[3], again.move[0]) > 0.999
    assert find_directions(folder, "ganalyze", 2).titles == ("smile", "hair = black")
    with pytest.raises(ArgumentError, match="no goal 'wings'\ngoals are smile, hair = black, hair = brown"):
        find_directions(folder, "ganalyze", goals=["wings"])


def test_interfacegan_follows_chosen_heads(tmp_path):
    folder = tiny_model(tmp_path / "m")
    every = find_directions(folder, "interfacegan")
    found = find_directions(folder, "interfacegan", goals=["beard", "hair = brown"])
    assert found.titles == ("hair = brown", "beard")
    assert_close(found.move, every.move[[2, 6]])


def test_numbers_of_predictions_and_tensors():
    logits = torch.tensor([[0.0, 3.0]])
    found = as_numbers(
        {
            "a": YesNo(torch.ones(1)), "b": Categorical(logits, ("x", "y")), "c": Continuous(torch.zeros(1), 1.0),
            "d": torch.ones(1, 1),
        },
        1,
    )  # fmt: skip
    assert {name: float(value) for name, value in found.items()} == {
        "a": 1.0, "b = x": -1.5, "b = y": 1.5, "c": 0.0, "d": 1.0
    }  # fmt: skip
    for wrong in ([True], torch.tensor([1]), torch.ones(1, 2), "yes"):
        with pytest.raises(DataError, match="'a' is a .*, not a tensor of one number for each picture"):
            as_numbers({"a": wrong}, 1)
    four = torch.zeros(4)
    for wrong in (
        torch.zeros(()), four[:3], four[:1], four[:1, None], YesNo(four[:3]), Continuous(four[:1], 1.0),
        Categorical(torch.zeros(4, 3), ("x", "y")), Categorical(torch.zeros(2), ("x", "y")),
    ):  # fmt: skip
        with pytest.raises(DataError, match=r"'a' is a torch.float32 of shape \(.*\), not a tensor of one"):
            as_numbers({"a": wrong}, 4)
    for wrong in (math.nan, math.inf):
        with pytest.raises(DataError, match="'a' is not finite for all pictures"):
            as_numbers({"a": torch.tensor([0.0, wrong])}, 2)


def test_what_cannot_be_learned(tmp_path):
    spot = Spot()
    for arguments, message in (
        (("ganspace", 1, {"goals": ["zoom"]}), "ganspace has no goals"),
        (("steerability", 1, {"labeller": read_spot}), "steerability reads no labeller"),
        (("steerability", 1, {"goals": ["fly"]}), "there is no goal 'fly'\ngoals are zoom, shift_x"),
        (("steerability", 1, {"goals": []}), "goals are a list of names"),
        (("steerability", 1, {"goals": "zoom"}), "goals are a list of names, not 'zoom'"),
        (("ganalyze", 1, {}), "this model has no judge\ngive a labeller"),
        (("ganalyze", 1, {"labeller": lambda x: {"a": torch.ones(len(x))}}), "'a' is the same number for all pictures"),
        (("ganalyze", 1, {"labeller": lambda x: {"a": x.detach().mean((1, 2, 3))}}), "'a' has no gradient that leads"),
    ):
        method, count, given = arguments
        with pytest.raises(ArgumentError, match=message):
            find_directions(spot, method, count, **given)
    with pytest.raises(ArgumentError, match="no move of w changes what the goal 'noise' is about"):
        find_directions(spot, "ganalyze", labeller=lambda x: {"noise": torch.rand(len(x)) + 0 * x.mean((1, 2, 3))})
    with pytest.raises(ArgumentError, match="no judge"):
        find_directions(Planted(), "ganalyze")


class Detached(torch.nn.Module):
    """Has weights to train, and its numbers do not hang on the pictures by a gradient."""

    def __init__(self):
        super().__init__()
        self.factor = torch.nn.Parameter(torch.ones(()))

    def forward(self, images):
        return {"a": self.factor * images.detach().mean((1, 2, 3))}


class Fickle:
    """Returns other labels from some call on."""

    def __init__(self, calls, later):
        self.calls, self.later = calls, later

    def __call__(self, images):
        self.calls -= 1
        return {"a": images.mean((1, 2, 3))} if self.calls >= 0 else self.later(images)


@pytest.mark.parametrize(
    ("labeller", "kind", "message"),
    [
        (Detached(), ArgumentError, "'a' has no gradient that leads to w"),
        (lambda x: {"a": x.mean()}, DataError, r"'a' is a torch.float32 of shape \(\), not a tensor .*, \(4,\)"),
        (lambda x: {"a": x.mean((1, 2, 3)) * math.nan}, DataError, "'a' is not finite"),
        (lambda x: {"a": x.mean((1, 2, 3)).double() * 1e200}, DataError, "the standard deviation of 'a' is not finite"),
        (lambda x: [1.0], DataError, r"the labeller must return a dict .* not \[1\.0\]"),
        (Fickle(2, lambda x: {"b": x.mean((1, 2, 3))}), DataError, "returned 'a' for the first .* and only 'b' later"),
        (Fickle(10, lambda x: {"b": x.mean((1, 2, 3))}), DataError, "returned 'a' for the first .* and only 'b' later"),
        (Fickle(20, lambda x: {"a": x.mean((1, 2, 3)) * math.nan}), DataError, "'a', or its gradient, is not finite"),
        (Fickle(9, lambda x: {}), DataError, r"the labeller must return a dict .* not \{\}"),
    ],
)
def test_labellers_that_return_something_else(labeller, kind, message):
    with pytest.raises(kind, match=message):
        find_directions(Spot(), "ganalyze", labeller=labeller)


def test_goals_that_are_named_are_never_left_out(tmp_path, monkeypatch):
    model = load_model(tiny_model(tmp_path / "m"))
    two = ["smile", "age"]
    for method, named in (("steerability", ["zoom", "red"]), ("ganalyze", ["hair"]), ("interfacegan", two)):
        with pytest.raises(ArgumentError, match=r"\d goals are named, for at most 1 directions\nraise count, -n \d"):
            find_directions(model, method, 1, goals=named)
    for wrong in (5, [["zoom"]], [3], {}):
        for method in ("steerability", "ganalyze", "interfacegan"):
            with pytest.raises(ArgumentError, match="goals are a list of names, not"):
                find_directions(model, method, goals=wrong)
    monkeypatch.setattr(directions_module._Whitened, "of", lambda *_: pytest.fail("w was sampled"))
    for method in ("ganalyze", "interfacegan"):
        with pytest.raises(ArgumentError, match="no goal 'fly'"):
            find_directions(model, method, goals=["fly"])
    monkeypatch.setattr(Prior, "w", lambda *_: pytest.fail("w was sampled"))
    with pytest.raises(ArgumentError, match="no goal 'fly'"):
        find_directions(model, "steerability", goals=["fly"])
