import numpy as np
import pytest
import torch
from labelled import CHECKPOINTS

from energyql.errors import ArgumentError, EnergyQLError
from energyql.generators.base import (
    PIXEL_BATCH,
    RANDOM,
    Generator,
    check_condition,
    check_fitted_condition,
    class_count,
    condition_vector,
    draw_batches,
    drawing,
    encode_under,
    fitting,
)
from energyql.generators.load import load_generator

CONDITIONAL = ["ada_conditional.pkl", "tensorflow_conditional.pkl", "stylegan3-t-conditional.pkl"]


class Plain:
    """A generator without classes, in as few lines as the protocol promises."""

    z_dim = 2

    def encode(self, z, truncation=1.0):
        return truncation * z

    def synthesize(self, w):
        return w[:, :, None, None]


class Own(Plain):
    """A conditional generator of one's own."""

    c_dim = 3

    def encode(self, z, truncation=1.0, condition=None):
        return torch.cat([truncation * z, condition], 1)


@pytest.mark.parametrize(
    ("condition", "expected"),
    [
        (0, 0),
        (2, 2),
        (np.int64(1), 1),
        (torch.tensor(1), 1),
        ([0.0, 1.0, 0.0], 1),
        ((0, 1, 0), 1),
        (torch.eye(3)[2], 2),
        (np.array([0.5, 0.25, 0.25]), (0.5, 0.25, 0.25)),
        ([1, 1, 0], (1.0, 1.0, 0.0)),
    ],
)
def test_a_label_is_a_class_wherever_it_is_one(condition, expected):
    checked = check_condition(condition, Own())
    assert (checked, type(checked)) == (expected, type(expected))
    assert check_fitted_condition(condition, Own()) == expected


@pytest.mark.parametrize(
    ("condition", "message"),
    [
        (None, "this generator is conditional on 3 classes: give a condition"),
        (3, "3 is not a condition"),
        (-1, "-1 is not a condition"),
        (True, "True is not a condition"),
        (1.5, "1.5 is not a condition"),
        ("cat", "'cat' is not a condition"),
        (RANDOM, "'random' is not a condition"),
        ({}, "{} is not a condition"),
        ([1.0, 0.0], r"\[1.0, 0.0\] is not a condition"),
        ([0.5, float("nan"), 0.5], "is not a condition"),
        ([0, "b", "c"], "is not a condition"),
        ([True, False, False], "is not a condition"),
        (torch.eye(3), "is not a condition"),
    ],
)
def test_wrong_labels_are_refused(condition, message):
    with pytest.raises(ArgumentError, match=message + "(.|\n)*a class from 0 to 2, or a list of 3 finite numbers"):
        check_condition(condition, Own())


def test_generators_without_classes():
    assert class_count(Plain()) == 0
    assert check_condition(None, Plain()) is None
    assert condition_vector(None, Plain()) is None
    for condition in (0, [1.0], RANDOM):
        for check in (check_condition, check_fitted_condition):
            with pytest.raises(ArgumentError, match="has no classes, so it takes no condition"):
                check(condition, Plain())
    z = torch.ones(2, 2)
    assert torch.equal(encode_under(Plain(), z, 0.5), 0.5 * z)


def test_random_is_a_label_to_fit_heads_under():
    assert check_fitted_condition("random", Own()) == RANDOM


def test_a_generator_of_ones_own():
    z = torch.randn(2, 2, dtype=torch.float64)
    for condition in (1, (0.5, 0.0, 0.5)):
        w = encode_under(Own(), z, 0.5, condition_vector(condition, Own()))
        vector = torch.eye(3)[1] if condition == 1 else torch.tensor(condition)
        assert torch.equal(w, torch.cat([0.5 * z, vector.expand(2, -1).double()], 1))
    each = torch.eye(3)[[2, 0]]
    assert torch.equal(encode_under(Own(), z, 1.0, each)[:, 2:], torch.eye(3).double()[[2, 0]])


@pytest.mark.parametrize("name", CONDITIONAL)
def test_stylegans(name):
    generator = load_generator(CHECKPOINTS / name)
    count, z = class_count(generator), torch.randn(3, generator.z_dim)
    assert count == generator.config.c_dim > 1
    for condition in (0, count - 1):
        expected = generator.encode(z, 0.7, torch.eye(count)[[condition] * 3])
        assert torch.equal(encode_under(generator, z, 0.7, condition_vector(condition, generator)), expected)
    with pytest.raises(ArgumentError, match=f"{count} is not a condition"):
        check_condition(count, generator)


def test_isinstance_tests_the_protocol_generator():
    assert isinstance(Plain(), Generator)
    assert not isinstance(torch.nn.Linear(3, 3), Generator)


class Cramped:
    """A function from w to pictures that has memory for few pictures."""

    def __init__(self, most):
        self.most, self.sizes = most, []

    def __call__(self, w):
        if len(w) > self.most:
            raise torch.cuda.OutOfMemoryError("tried to allocate 20 GiB")
        self.sizes.append(len(w))
        return w[:, :, None, None]


@pytest.mark.parametrize("batch_size", [None, 8])
def test_too_little_memory_halves_the_batch_and_says_so_once(batch_size, caplog):
    draw, z = Cramped(3), torch.arange(20.0)[:, None]
    parts = list(draw_batches(draw, lambda z: z, z, batch_size))
    assert torch.equal(torch.cat([images for _, images in parts])[:, :, 0, 0], z)
    assert max(draw.sizes) <= 3
    assert len(draw.sizes) <= 12
    assert len(caplog.messages) == 1
    assert "smaller batches" in caplog.messages[0]


def test_too_little_memory_for_one_picture_is_an_error():
    with pytest.raises(EnergyQLError, match="too little memory for one picture"):
        list(draw_batches(Cramped(0), lambda z: z, torch.zeros(2, 1)))


def test_a_batch_takes_half_of_the_free_memory(monkeypatch):
    class Memory:
        mem_get_info = staticmethod(lambda device: (900, 2000))
        memory_reserved = staticmethod(lambda device: 150)
        memory_allocated = staticmethod(lambda device: 50)
        max_memory_allocated = staticmethod(lambda device: 60)

    class Picture:
        device, shape = torch.device("cuda"), (1, 3, 64, 64)

        def __len__(self):
            return self.shape[0]

    monkeypatch.setattr(torch, "cuda", Memory)
    assert fitting(Picture(), used=40, most=1000) == 1000 // 2 // 20
    assert fitting(Picture(), used=40, most=7) == 7
    Picture.shape = (4, 3, 64, 64)
    assert fitting(Picture(), used=40, most=1000) == 4 * 1000 // 2 // 20
    assert fitting(Picture(), used=-(10**6), most=7) == 1
    Picture.device = torch.device("cpu")
    assert fitting(Picture(), used=0, most=1) == PIXEL_BATCH // 64**2


@pytest.mark.parametrize("differentiable", [False, True])
def test_samplers_look_at_drafts_unless_they_could_need_gradients(differentiable):
    class Drafting(Plain):
        def synthesize(self, w):
            return w

        def draft(self, w):
            return w + 1

    generator = Drafting()
    generator.differentiable = differentiable
    looked_at = drawing(generator, torch.float32, "const", 0)(torch.zeros(1, 2), torch.zeros(1).long())
    assert looked_at.tolist() == [[0, 0] if differentiable else [1, 1]]
