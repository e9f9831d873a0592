"""A third kind of bank, which is neither heads nor a reader, needs no change in the pipeline."""

import numpy as np
import pytest
import torch

from energyql import E, explain, generate
from energyql.attributes.bank import PICTURE, Bank, FittedUnder
from energyql.attributes.pictures import heads_of
from energyql.attributes.predictions import YesNo
from energyql.errors import ArgumentError
from energyql.pipeline.explain_pilot import run_pilot
from energyql.pipeline.model import Model
from energyql.vocabulary import AttributeSpec, Vocabulary
from tests.evaluation.lively import Plain

VOCABULARY = Vocabulary([AttributeSpec("left", "yes/no"), AttributeSpec("low", "yes/no")])


class Signs(Bank):
    """Reads the signs of the first two numbers of z, which the pictures of `Plain` show too."""

    part = "signs"
    device = torch.device("cpu")
    vocabulary = VOCABULARY

    def __init__(self, space):
        self.fitted, self.reports = FittedUnder(space, (0.5, 1.0)), {}

    def to(self, device):
        return self

    def predict(self, read, names=None):
        numbers = read if read.ndim == 2 else 4 * torch.atanh(read[:, 0, 0])
        logits = {"left": -8 * numbers[:, 0], "low": -8 * numbers[:, 1]}
        return {name: YesNo(logits[name]) for name in names or VOCABULARY}


@pytest.mark.parametrize("space", ["z", "w", PICTURE])
def test_queries_are_sampled(space):
    model = Model("signs", Plain(), Signs(space))
    query = E.left & ~E.low
    result = generate(query, 8, model=model, progress=False)
    signs = (result.z[:, :2] < 0).double().mean(0)
    assert signs[0] > 0.8
    assert signs[1] < 0.2
    assert np.isfinite(result.energy).all()
    assert not result.doubtful.any()
    assert run_pilot(query, model).prevalence == pytest.approx(0.25, abs=0.1)
    assert explain(query, model=model).best is None


def test_its_truncation_is_checked_and_edits_are_refused():
    model = Model("signs", Plain(), Signs("z"))
    with pytest.raises(ArgumentError, match="do not hold at truncation 0.2\nthey were fitted at truncation 0.5 to 1"):
        generate(E.left, 1, model=model, truncation=0.2, progress=False)
    with pytest.raises(ArgumentError, match="an edit needs heads"):
        heads_of(model.bank, "an edit")
    assert model.bank.of_generator("mark").generator == "mark"
    assert model.bank.generator == ""
