import dataclasses
from itertools import pairwise

import pytest
import torch
from toys import VOCABULARY, random_heads

from energyql.attributes.bank import AttributeBank
from energyql.attributes.heads import Head
from energyql.attributes.predictions import output_count
from energyql.errors import ModelError, VocabularyError
from energyql.vocabulary import AttributeSpec, Vocabulary

DIM = 6


def deep(outputs, widths=(5, 4, 3), seed=0):
    random = torch.Generator().manual_seed(seed)
    sizes = [DIM, *widths]
    layers = [(torch.randn(b, a, generator=random), torch.randn(b, generator=random)) for a, b in pairwise(sizes)]
    out = torch.randn(outputs, widths[-1], generator=random)
    skip, bias = torch.randn(outputs, DIM, generator=random), torch.randn(outputs, generator=random)
    return Head(*layers[0], out, skip, bias, torch.tensor(1.0), tuple(layers[1:]))


def latents(count=7):
    return torch.randn(count, DIM, generator=torch.Generator().manual_seed(1))


def linear(outputs=1):
    return Head(
        torch.zeros(0, DIM), torch.zeros(0), torch.zeros(outputs, 0), torch.ones(outputs, DIM), torch.ones(outputs),
        torch.tensor(1.0),
    )  # fmt: skip


def test_a_bank_of_deep_heads_is_stored_exactly(tmp_path):
    heads = {name: deep(output_count(spec), seed=i) for i, (name, spec) in enumerate(VOCABULARY.items())}
    bank = AttributeBank(VOCABULARY, heads)
    bank.save(tmp_path)
    loaded = AttributeBank.load(tmp_path)
    for name, head in heads.items():
        assert len(loaded.heads[name].deeper) == 2
        for field, tensor in head.tensors().items():
            assert torch.equal(loaded.heads[name].tensors()[field], tensor)
    assert bank.to("meta").heads["age"].deeper[1][1].device.type == "meta"


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"deeper": ((torch.zeros(4, 6), torch.zeros(4)),)}, r"deeper0_weight has shape \(4, 6\), not \(4, 5\)"),
        ({"deeper": ((torch.zeros(4, 5), torch.zeros(3)),)}, r"deeper0_weight has shape \(4, 5\), not \(3, 5\)"),
        ({"deeper": ((torch.zeros(4, 5), torch.zeros(())),)}, "deeper0"),
        ({"deeper": ()}, r"out_weight has shape \(1, 3\), not \(1, 5\)"),
    ],
)
def test_layers_that_do_not_fit(change, message):
    with pytest.raises(ModelError, match=f"the head of 'smile': {message}"):
        dataclasses.replace(deep(1), **change).check("smile", 1, DIM)


class TestMoreHeads:
    def bank(self):
        return AttributeBank(
            VOCABULARY, random_heads(VOCABULARY, DIM), space="z", truncation=(0.5, 1.0), generator="abc"
        )

    def test_others_stay_the_same_objects(self):
        bank, new = self.bank(), Vocabulary([AttributeSpec("hat", "yes/no")])
        more = bank.with_heads(new, {"hat": deep(1)})
        assert list(more.vocabulary) == [*VOCABULARY, "hat"]
        assert all(more.heads[name] is head for name, head in bank.heads.items())
        assert (more.space, more.truncation, more.generator) == ("z", (0.5, 1.0), "abc")
        torch.testing.assert_close(more.predict(latents())["age"].mean, bank.predict(latents())["age"].mean)
        assert more.vocabulary.model == VOCABULARY.model

    def test_a_name_that_is_taken(self):
        new = Vocabulary([AttributeSpec("age", "yes/no")])
        with pytest.raises(VocabularyError, match="already has 'age'\n.*replace"):
            self.bank().with_heads(new, {"age": deep(1)})
        more = self.bank().with_heads(new, {"age": deep(1)}, replace=True)
        assert list(more.vocabulary) == list(VOCABULARY)
        assert more.vocabulary["age"].kind == "yes/no"

    def test_a_head_for_other_latents(self):
        head = dataclasses.replace(linear(), skip_weight=torch.zeros(1, DIM + 1), hidden_weight=torch.zeros(0, DIM + 1))
        with pytest.raises(ModelError, match="the head of 'hat'"):
            self.bank().with_heads(Vocabulary([AttributeSpec("hat", "yes/no")]), {"hat": head})
