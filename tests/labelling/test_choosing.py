import torch

from energyql.attributes.predictions import Categorical, Continuous, YesNo
from energyql.labelling.sample import BINS, choose_unsure


def test_both_answers_of_a_rare_attribute_take_turns_the_least_sure_first():
    logit = torch.tensor([-9.0, -0.5, 2.0, -3.0, 0.1, -0.2, -7.0])
    assert choose_unsure({"hat": YesNo(logit)}, 5) == [4, 5, 2, 1, 3]


def test_a_class_that_is_never_predicted_gets_its_most_probable_rows():
    logits = torch.tensor([[5.0, 0.0, -9.0], [0.0, 5.0, -1.0], [0.3, 0.0, -8.0], [0.0, 0.9, -7.0]])
    chosen = choose_unsure({"hair": Categorical(logits, ("black", "brown", "red"))}, 3)
    assert chosen == [2, 3, 1]


def test_numbers_are_spread_over_their_range():
    middles = (torch.arange(BINS).repeat(3) + 0.5) / BINS
    mean = torch.cat([torch.zeros(50), torch.ones(1), middles])
    chosen = choose_unsure({"age": Continuous(mean, torch.tensor(0.1))}, 2 * BINS)
    parts = (mean[torch.tensor(chosen)] * BINS).long().clamp(max=BINS - 1)
    assert torch.bincount(parts, minlength=BINS).tolist() == [2] * BINS


def test_attributes_share_the_choice_and_no_row_is_chosen_twice():
    random = torch.Generator().manual_seed(0)
    predictions = {name: YesNo(torch.randn(40, generator=random)) for name in "ab"}
    chosen = choose_unsure(predictions, 40)
    assert sorted(chosen) == list(range(40))
    for name in "ab":
        least = predictions[name].logit.abs().argsort()[:4].tolist()
        assert set(least) <= set(chosen[:24])
