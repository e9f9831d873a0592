from dataclasses import replace

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from attack import Attack
from labelled import CHECKPOINTS
from toys import tiny_model

from energyql.attributes.bank import FittedUnder
from energyql.attributes.heads import AttributeBank
from energyql.errors import ModelError, VocabularyError
from energyql.generators.load import load_generator
from energyql.pipeline.model import load_model
from energyql.training.foreign import add_heads, import_boundary, import_lace, linear_head
from energyql.vocabulary import AttributeSpec, Vocabulary

HAIR = AttributeSpec("hair", "categorical", values=("a", "b", "c", "d", "e"))
SMILE, AGE = AttributeSpec("smile", "yes/no"), AttributeSpec("age", "continuous")


class Classifier(torch.nn.Module):
    """The published shape: 1x1 convolutions with identities and leaky ReLUs between, then one linear layer."""

    def __init__(self, outputs, sizes=(16, 12, 8, 4), norm=torch.nn.Identity):
        super().__init__()
        self.net = torch.nn.ModuleList()
        for i, size in enumerate(sizes[1:]):
            layer = torch.nn.Conv2d(sizes[i], size, 1)
            self.net.extend([layer, norm(size) if norm is not torch.nn.Identity else norm(), torch.nn.LeakyReLU(0.2)])
        self.heads = torch.nn.Linear(sizes[-1], sum(outputs))

    def forward(self, w):
        x = w[:, :, None, None]
        for layer in self.net:
            x = layer(x)
        return self.heads(x.flatten(1))


def saved(path, outputs, **settings):
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        network = Classifier(outputs, **settings)
    state = network.state_dict()
    torch.save({"model_state_dict": {f"f.{name}": x for name, x in state.items()}, "state_dict": state}, path)
    return network


def latents(count=9, size=16):
    return torch.randn(count, size, generator=torch.Generator().manual_seed(1))


class TestLace:
    @pytest.mark.parametrize("legacy", [False, True])
    def test_parity(self, tmp_path, legacy):
        path = tmp_path / "clf.pt"
        network = saved(path, [2, 1, 5])
        if legacy:
            torch.save({"state_dict": network.state_dict()}, path, _use_new_zipfile_serialization=False)
        specs = Vocabulary([SMILE, AGE, HAIR])
        bank = AttributeBank(specs, import_lace(path, specs))
        w = latents()
        predictions, outputs = bank.predict(w), network(w).detach()
        torch.testing.assert_close(predictions["smile"].logit.sigmoid(), F.softmax(outputs[:, :2], 1)[:, 1])
        torch.testing.assert_close(predictions["age"].mean, outputs[:, 2])
        assert predictions["age"].std == pytest.approx(0.1)
        torch.testing.assert_close(predictions["hair"].logits, outputs[:, 3:])

    def test_published_sizes(self, tmp_path):
        network = saved(tmp_path / "clf.pt", [2], sizes=(512, 384, 256, 128))
        head = import_lace(tmp_path / "clf.pt", Vocabulary([SMILE]))["smile"]
        assert [tuple(weight.shape) for weight, _ in head.deeper] == [(256, 384), (128, 256)]
        w = latents(3, 512)
        logit = AttributeBank(Vocabulary([SMILE]), {"smile": head}).predict(w)["smile"].logit
        torch.testing.assert_close(logit, network(w)[:, 1] - network(w)[:, 0], rtol=1e-4, atol=1e-5)

    def test_other_attributes(self, tmp_path):
        saved(tmp_path / "clf.pt", [2])
        with pytest.raises(ModelError, match=r"clf\.pt: it has 2 outputs, not 5 for hair"):
            import_lace(tmp_path / "clf.pt", Vocabulary([HAIR]))

    def test_what_is_refused(self, tmp_path, unharmed):
        path, specs = tmp_path / "clf.pt", Vocabulary([SMILE])

        saved(path, [2], norm=torch.nn.BatchNorm2d)
        with pytest.raises(ModelError, match="normalisation layers are not supported"):
            import_lace(path, specs)
        for content, message in (
            (Attack(), "it names .*system"),
            ({"state_dict": {}}, "no state_dict with heads.weight"),
            ({"heads.weight": 3}, "heads.weight is not a tensor"),
            ({"heads.weight": torch.ones(2, 3)}, "it has no hidden layers"),
            ({"heads.weight": torch.ones(2, 3), "net.0.weight": torch.ones(3, 4)}, "no net.0.weight and net.0.bias"),
            (
                {"heads.weight": torch.ones(2, 3), "heads.bias": torch.ones(2), "net.0.weight": torch.ones(4, 4),
                 "net.0.bias": torch.ones(4)},
                "the head of 'smile': out_weight has shape",
            ),
            (
                {"heads.weight": torch.ones(2, 3) * torch.nan, "heads.bias": torch.ones(2),
                 "net.0.weight": torch.ones(3, 4), "net.0.bias": torch.ones(3)},
                "not finite",
            ),
            (
                {"heads.weight": torch.ones(2, 3), "heads.bias": torch.ones(2),
                 "net.0.weight": torch.ones(3, 4, 3, 3), "net.0.bias": torch.ones(3)},
                r"it has net\.0: classifiers with larger convolutions",
            ),
        ):  # fmt: skip
            torch.save(content, path)
            with pytest.raises(ModelError, match=message):
                import_lace(path, specs)
        path.write_bytes(b"no")
        with pytest.raises(ModelError, match=r"not a file of torch\.save"):
            import_lace(path, specs)


class TestBoundary:
    def boundary(self, tmp_path, size=16):
        normal = np.zeros((1, size))
        normal[0, 3] = 2.0
        np.save(tmp_path / "b.npy", normal)
        return tmp_path / "b.npy"

    def logits(self, head, w):
        return AttributeBank(Vocabulary([SMILE]), {"smile": head}).predict(w)["smile"].logit

    def test_without_labels_the_scale_is_one(self, tmp_path):
        w = latents()
        torch.testing.assert_close(self.logits(import_boundary(self.boundary(tmp_path), SMILE), w), w[:, 3])

    def test_with_labels_scale_and_intercept_are_fitted(self, tmp_path):
        w = latents(20_000)
        labels = (torch.rand(20_000, generator=torch.Generator().manual_seed(2)) < (3 * w[:, 3] - 1).sigmoid()).float()
        labels[::7] = torch.nan
        head = import_boundary(self.boundary(tmp_path), SMILE, latents=w, labels=labels)
        assert head.skip_weight[0, 3].item() == pytest.approx(3, rel=0.05)
        assert head.out_bias.item() == pytest.approx(-1, rel=0.1)

    def test_classes_that_are_apart_give_a_finite_scale(self, tmp_path):
        w = latents(500)
        head = import_boundary(self.boundary(tmp_path), SMILE, latents=w, labels=(w[:, 3] > 0).float())
        assert 5 < head.skip_weight[0, 3].item() < 1e4

    def test_what_is_refused(self, tmp_path):
        path = self.boundary(tmp_path)
        with pytest.raises(ModelError, match="'age' cannot be continuous"):
            import_boundary(path, AGE)
        with pytest.raises(ModelError, match="latents of 16 numbers, not 15"):
            import_boundary(path, SMILE, latents=torch.ones(4, 15), labels=torch.ones(4))
        with pytest.raises(ModelError, match="all labels of 'smile' are the same"):
            import_boundary(path, SMILE, latents=torch.ones(4, 16), labels=torch.ones(4))
        with pytest.raises(ModelError, match=r"4 latents, but labels of shape \(5,\)"):
            import_boundary(path, SMILE, latents=torch.ones(4, 16), labels=torch.ones(5))
        with pytest.raises(ModelError, match="a latent has a number that is not finite"):
            import_boundary(path, SMILE, latents=torch.full((4, 16), torch.nan), labels=torch.arange(4.0) % 2)
        for array in (np.zeros((1, 16)), np.ones((2, 16)), np.array([["a"]]), np.array([None, 1], dtype=object)):
            np.save(path, array, allow_pickle=True)
            with pytest.raises(ModelError, match=r"b\.npy"):
                import_boundary(path, SMILE)


class TestAdding:
    def test_to_a_checkpoint(self, tmp_path):
        saved(tmp_path / "clf.pt", [2, 1])
        specs = Vocabulary([SMILE, AGE])
        heads = import_lace(tmp_path / "clf.pt", specs)
        ada = CHECKPOINTS / "ada.pkl"
        add_heads(ada, AttributeBank(specs, heads, fitted=FittedUnder(truncation=(0.5, 0.6))), tmp_path / "m")
        model = load_model(tmp_path / "m")
        assert model.truncation == 0.6
        w = load_generator(ada).encode(torch.randn(4, model.generator.z_dim), 0.6)
        expected = AttributeBank(specs, heads).predict(w)
        torch.testing.assert_close(model.bank.predict(w)["age"].mean, expected["age"].mean)

    def test_beside_heads_that_are_there(self, tmp_path):
        tiny_model(tmp_path / "m", judge=False)
        saved(tmp_path / "clf.pt", [2])
        specs = Vocabulary([AttributeSpec("hat", "yes/no")])
        heads = import_lace(tmp_path / "clf.pt", specs)
        with pytest.raises(ModelError, match="new ones cannot read w at"):
            add_heads(tmp_path / "m", AttributeBank(specs, heads))
        bank = add_heads(tmp_path / "m", AttributeBank(specs, heads, fitted=FittedUnder(truncation=(0.5, 1.0))))
        assert list(bank.vocabulary)[-1] == "hat"
        assert list(load_model(tmp_path / "m").vocabulary) == list(bank.vocabulary)
        with pytest.raises(VocabularyError, match="already has 'hat'"):
            add_heads(tmp_path / "m", AttributeBank(specs, heads, fitted=FittedUnder(truncation=(0.5, 1.0))))

    @pytest.mark.parametrize(
        ("change", "message"),
        [({"out_bias": torch.tensor([torch.nan])}, "not finite"), ({"std": torch.tensor(0.0)}, "not above 0")],
    )
    def test_numbers_that_could_not_be_read_again(self, tmp_path, change, message):
        tiny_model(tmp_path / "m", judge=False)
        head = replace(linear_head(torch.ones(16), torch.zeros(1), 1.0), **change)
        with pytest.raises(ModelError, match=f"the head of 'smile' has a .* {message}"):
            bank = AttributeBank(Vocabulary([SMILE]), {"smile": head}, fitted=FittedUnder(truncation=(0.5, 1.0)))
            add_heads(tmp_path / "m", bank, replace=True)
        assert load_model(tmp_path / "m").bank.heads["smile"].hidden_bias.numel()

    def test_what_does_not_fit(self, tmp_path):
        saved(tmp_path / "clf.pt", [2], sizes=(20, 4))
        specs = Vocabulary([SMILE])
        heads = import_lace(tmp_path / "clf.pt", specs)
        with pytest.raises(ModelError, match="the heads read 20 numbers, but w of the generator has 16"):
            add_heads(CHECKPOINTS / "ada.pkl", AttributeBank(specs, heads), tmp_path / "m")
        tiny_model(tmp_path / "n")
        hat = Vocabulary([AttributeSpec("hat", "yes/no")])
        saved(tmp_path / "clf.pt", [2])
        fitted = FittedUnder(truncation=(0.5, 1.0))
        add_heads(tmp_path / "n", AttributeBank(hat, import_lace(tmp_path / "clf.pt", hat), fitted=fitted))
        model = load_model(tmp_path / "n")
        assert set(model.vocabulary) - set(model.judged_names) == {"hat"}  # the judge was there before
