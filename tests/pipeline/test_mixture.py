"""Prompts as conditions: one for all pictures, or several in the shares that the query gives them."""

import json
from dataclasses import replace

import numpy as np
import pyarrow.parquet
import pytest
import torch

from energyql import (
    ArgumentError,
    AttributeSpec,
    DataError,
    DatasetClass,
    DatasetPlan,
    Model,
    Result,
    UnreachableError,
    Vocabulary,
    edit,
    generate,
    sample_latents,
    stream,
    traverse,
    write_dataset,
)
from energyql.attributes.pictures import ANY_PICTURES, PictureBank
from energyql.attributes.predictions import YesNo

PROMPTS = ("dark", "dim", "bright")
BRIGHTNESS = {"dark": 0.04, "dim": 0.3, "bright": 0.9}  # share of the pictures of a prompt that are white
KNOWN = Vocabulary([AttributeSpec("white", "yes/no"), AttributeSpec("tall", "yes/no")])


class Prompted:
    """A generator of texts: a picture is white with the probability of its prompt, and tall in half of all cases."""

    z_dim, differentiable = 2, False
    z_shape = (2,)

    def __init__(self, prompt="dark", conditions=()):
        self.prompt, self.conditions, self.c_dim = prompt, conditions, len(conditions)
        self.description = {"call": {"prompt": list(conditions) or prompt}}

    def under(self, prompt):
        return self if prompt == self.prompt else Prompted(prompt)

    def encode(self, z, truncation=1.0, condition=None):
        return truncation * z if condition is None else torch.cat([truncation * z, condition], 1)

    def synthesize(self, w):
        names = [self.conditions[k] for k in w[:, 2:].argmax(1)] if self.c_dim else [self.prompt] * len(w)
        limit = torch.tensor([BRIGHTNESS[name] for name in names])
        white, tall = torch.special.ndtr(w[:, 0]) < limit, w[:, 1] > 0
        return torch.stack([white, tall], 1).float()[:, :, None, None].repeat(1, 1, 4, 4)[:, [0, 1, 1]] * 2 - 1


def look(images):
    return {"white": images[:, 0, 0, 0] > 0, "tall": images[:, 1, 0, 0] > 0}


def see(images):
    return look(images)


def model(generator=None, fitted=""):
    bank = PictureBank(look, KNOWN, fitted=replace(ANY_PICTURES, generator=fitted))
    return Model("prompted", generator or Prompted(), bank, judge=see)


def draw(query, n=4, condition=PROMPTS, **options):
    settings = {"model": model(), "verify": "off", "progress": False}
    return generate(query, n, condition=condition, **settings | options)


def posterior():
    shares = np.array([BRIGHTNESS[prompt] for prompt in PROMPTS])
    return shares / shares.sum()


def soft(images):
    """A reader that is not sure of white pictures."""
    white, tall = images[:, 0, 0, 0] > 0, images[:, 1, 0, 0] > 0
    return {"white": YesNo(torch.where(white, 0.4, -9.2)), "tall": YesNo(torch.where(tall, 5.0, -5.0))}


class TestShares:
    def test_they_do_not_depend_on_the_strength_where_all_samples_are_as_sure(self, monkeypatch):
        monkeypatch.setitem(BRIGHTNESS, "half", 0.6)
        monkeypatch.setitem(BRIGHTNESS, "few", 0.1)
        asked = replace(model(), bank=PictureBank(soft, KNOWN))
        for strength in (1.0, 3.0):
            entry = draw("white", 1, ("half", "few"), model=asked, strength=strength).provenance["mixture"]
            shares, errors = np.array(entry["shares"]), np.array(entry["errors"])
            assert (np.abs(shares - [6 / 7, 1 / 7]) < 3 * errors).all()

    @pytest.mark.parametrize("verify", ["off", "sure"])
    def test_a_prompt_that_cannot_satisfy_the_query_has_none(self, verify, monkeypatch):
        monkeypatch.setitem(BRIGHTNESS, "never", 0.0)
        result = draw(
            "white", 8, ("dim", "never"), model=replace(model(), bank=PictureBank(soft, KNOWN)), verify=verify
        )
        assert result.provenance["mixture"]["shares"] == [1.0, 0.0]
        assert set(result.prompt) == {"dim"}

    def test_results_of_other_shares_can_be_joined_and_told(self):
        one, other = draw("white"), draw("white", first=4)
        other.provenance["mixture"] = {"shares": [0.1, 0.2, 0.7], "errors": [0.0, 0.0, 0.0]}
        assert (one + other).summary() == (one + draw("white", first=4)).summary()


class TestOnePrompt:
    def test_of_a_generator_of_one(self):
        results = {prompt: draw("tall", 24, condition=prompt) for prompt in PROMPTS}
        for prompt, result in results.items():
            assert result.satisfied.all()
            assert result.provenance["condition"] == prompt
            assert result.provenance["generator"]["call"]["prompt"] == prompt
            assert result.prompt is None
        shares = [results[prompt].judged["white"].mean() for prompt in PROMPTS]
        assert shares[0] < shares[1] < shares[2]
        own = draw("tall", 24, condition=None)
        assert torch.equal(own.z, results["dark"].z)
        assert own.provenance["condition"] is None

    def test_of_a_generator_of_several(self):
        several = model(Prompted(conditions=PROMPTS))
        result = draw("tall", 4, condition="dim", model=several)
        assert result.provenance["condition"] == 1
        assert torch.equal(result.w, draw("tall", 4, condition=1, model=several).w)
        with pytest.raises(ArgumentError, match="'pink' is not a condition\n.* from 0 to 2, its prompt, or"):
            draw("tall", condition="pink", model=several)

    def test_attributes_of_another_prompt(self):
        with pytest.raises(
            ArgumentError,
            match="were learned from pictures of another prompt\nmake the generator with a list of all prompts",
        ):
            draw("tall", condition="dim", model=model(fitted="0123"))
        assert draw("tall", condition="dark", model=model(fitted="0123")).satisfied.all()

    def test_a_generator_without_prompts(self, tiny):
        with pytest.raises(ArgumentError, match="takes no condition, such as 'a house'"):
            generate("smile", 1, model=tiny, condition="a house", progress=False)


class TestSeveralPrompts:
    @pytest.mark.parametrize("generator", [Prompted(), Prompted(conditions=PROMPTS)], ids=["one", "several"])
    def test_shares_are_those_of_the_posterior(self, generator):
        result = draw("white", 80, model=model(generator))
        assert result.satisfied.mean() > 0.98
        mixture = result.provenance["mixture"]
        shares, errors = np.array(mixture["shares"]), np.array(mixture["errors"])
        assert shares.sum() == pytest.approx(1)
        assert (np.abs(shares - posterior()) < 3 * errors + 1e-9).all()
        assert (errors < 0.08).all()
        counts = np.array([(result.prompt == prompt).mean() for prompt in PROMPTS])
        assert np.abs(counts - shares).max() < 0.12
        assert result.provenance["condition"] == PROMPTS

    def test_a_sample_does_not_depend_on_the_others(self):
        many = draw("white", 12)
        few = draw("white", 5, first=4, batch_size=2)
        assert torch.equal(few.z, many.z[4:9])
        assert few.prompt.tolist() == many.prompt[4:9].tolist()
        assert [np.array(image).tolist() for image in few.images] == [
            np.array(one).tolist() for one in many.images[4:9]
        ]
        assert draw("white", 12, seed=1).prompt.tolist() != many.prompt.tolist()

    def test_pictures_are_those_of_their_prompts(self):
        result = draw("tall", 40, condition=("dark", "bright"))
        for prompt in ("dark", "bright"):
            alone = draw("tall", 40, condition=prompt)
            rows = np.flatnonzero(result.prompt == prompt)
            assert len(rows) > 5
            assert torch.equal(result.z[rows], alone.z[rows])
            assert all(np.array_equal(result.images[i], alone.images[i]) for i in rows)

    def test_verified(self):
        """The reader is never against a picture, and the verifier decides, so it gives the shares."""

        def hopeful(images):
            return look(images) | {"white": torch.ones(len(images), dtype=torch.bool)}

        checked = Model("checked", Prompted(), PictureBank(hopeful, KNOWN), judge=look)
        result = draw("white", 60, model=checked, verify="sure")
        assert result.satisfied.all()
        shares, errors = (np.array(result.provenance["mixture"][name]) for name in ("shares", "errors"))
        assert (np.abs(shares - posterior()) < 3 * errors + 1e-9).all()
        assert (errors < 0.1).all()

    def test_saved_and_continued(self, tmp_path):
        folder = tmp_path / "run"
        whole = draw("white", 9)
        for n in (4, 9):
            list(stream("white", n, model=model(), condition=list(PROMPTS), verify="off", out=folder, progress=False))
        loaded = Result.load(folder)
        assert loaded.prompt.tolist() == whole.prompt.tolist()
        assert loaded.provenance["mixture"] == whole.provenance["mixture"]
        assert json.loads((folder / "result.json").read_text())["samples"][0]["prompt"] == whole.prompt[0]
        assert "Prompts in the shares " in loaded.summary()
        assert '% "bright"' in loaded.summary()
        assert loaded[:3].prompt.tolist() == whole.prompt[:3].tolist()
        single = draw("white", 2, condition="dim")
        assert "prompt" not in single.to_dict()["samples"][0]

    def test_what_needs_one_prompt(self):
        with pytest.raises(ArgumentError, match="possible under one prompt, not under several"):
            edit(draw("white", 1), "tall", model=model(), progress=False)

    @pytest.mark.parametrize("steps", [3, 8])
    def test_a_path_has_one_prompt(self, steps):
        """Its pictures are samples of a run, each of which would have a prompt of its own."""
        settings = {"model": model(), "verify": "off", "progress": False}
        with pytest.raises(ArgumentError, match="possible under one prompt, not under several"):
            traverse("white", "tall", steps, n=2, condition=PROMPTS, **settings)
        assert len(traverse("white", "tall", steps, n=2, condition="dim", **settings).sections[0].result) == 2 * steps

    def test_latents_without_their_prompts(self):
        with pytest.raises(ArgumentError, match="possible under one prompt, not under several"):
            sample_latents("white", 3, model=model(), condition=PROMPTS)

    @pytest.mark.parametrize("prompt", ["half \ud800", "zero\0"])
    @pytest.mark.parametrize("several", [False, True])
    def test_a_prompt_that_no_file_can_hold(self, prompt, several):
        with pytest.raises(ArgumentError, match=r"the prompt '\w+ ?\\\S+' holds a character that is no text"):
            draw("white", 1, condition=[prompt, "dark"] if several else prompt)

    @pytest.mark.parametrize("prompts", [["a\n\t'b' \"c\" | <i> é \U0001f3e0", ""], ["dark", "dark"], ["dim"]])
    def test_odd_prompts(self, prompts, tmp_path, monkeypatch):
        for prompt in prompts:
            monkeypatch.setitem(BRIGHTNESS, prompt, 0.5)
        result = draw("white", 6, condition=prompts)
        result.save(tmp_path / "a")
        loaded = Result.load(tmp_path / "a")
        assert loaded.prompt.tolist() == result.prompt.tolist()
        assert set(loaded.prompt) <= {*prompts}
        assert loaded.provenance["condition"] == tuple(prompts)
        assert "\n" not in loaded.summary()
        assert (loaded + draw("white", 2, condition=prompts, first=6)).prompt.shape == (8,)

    def test_a_summary_states_the_most_common_of_many_prompts(self, monkeypatch):
        prompts = [f"p{k}" for k in range(50)]
        for k, prompt in enumerate(prompts):
            monkeypatch.setitem(BRIGHTNESS, prompt, 0.1 if k else 0.9)
        summary = draw("white", 1, condition=prompts[::-1]).summary()
        assert summary.count('% "p') == 8
        assert summary.index('"p0", ') < summary.index('% "p4')
        assert summary.endswith(" and 42 others")

    @pytest.mark.parametrize(
        ("change", "message"),
        [
            (lambda data: data["provenance"]["mixture"].update(shares=[1.0]), "its prompts and their shares differ"),
            (lambda data: data["provenance"].update(mixture="even"), "'even' is no dict"),
            (lambda data: data["provenance"].pop("condition"), "'condition' is missing"),
            (lambda data: data["provenance"].update(condition=["dark", 3, "dim"]), "3 is no str"),
            (lambda data: data["samples"][1].update(prompt=3), "3 is no str"),
        ],
    )
    def test_a_damaged_record(self, tmp_path, change, message):
        draw("white", 3).save(tmp_path)
        data = json.loads((tmp_path / "result.json").read_text())
        change(data)
        (tmp_path / "result.json").write_text(json.dumps(data))
        with pytest.raises(DataError, match=f"holds a damaged result: {message}"):
            Result.load(tmp_path)

    def test_tables_name_the_prompts(self, tmp_path):
        result, generates = draw("white", 4), model()
        assert result.to_pandas()["prompt"].tolist() == result.prompt.tolist()
        assert "prompt" not in draw("white", 1, condition="dim").to_pandas()
        classes = [
            DatasetClass(name=name, query="white", count=3, model=generates, settings={"condition": condition})
            for name, condition in (("several", list(PROMPTS)), ("one", "dim"))
        ]
        write_dataset(DatasetPlan(classes=classes, shard_size=4), tmp_path, device="cpu", progress=False)
        rows = pyarrow.parquet.read_table(tmp_path / "index.parquet").to_pylist()
        assert {row["prompt"] for row in rows if row["class"] == "several"} <= {*PROMPTS}
        assert [row["prompt"] for row in rows if row["class"] == "one"] == [None, None, None]

    def test_an_edit_takes_no_prompt(self):
        with pytest.raises(ArgumentError, match="so it takes no condition, such as 'dark'"):
            edit(3, "white", model=model(), condition="dark", progress=False)

    @pytest.mark.parametrize("condition", [7, [], ["bright", 7]])
    def test_what_is_no_prompt(self, condition):
        with pytest.raises(ArgumentError, match="so it takes no condition(.|\n)*give a prompt"):
            draw("white", 1, condition=condition)

    def test_no_prompt_satisfies(self):
        class Black(Prompted):
            def under(self, prompt):
                return self

            def synthesize(self, w):
                return -torch.ones(len(w), 3, 4, 4)

        with pytest.raises(UnreachableError):
            draw("white", model=model(Black()))

    @pytest.mark.parametrize("settings", [{"verify": "faithful"}, {"semantics": "jem"}])
    def test_what_has_no_shares(self, settings):
        with pytest.raises(ArgumentError):
            draw("white", **settings)
