"""Edits of a tiny random model: steps, presets, layers, identity and wrong arguments."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from toys import CONFIG, pixels

import energyql
from energyql import E
from energyql.editing.settings import PRESETS, Preset
from energyql.errors import ArgumentError, ConstantPartWarning, Contradiction, UnknownAttribute


class TestSteps:
    def test_heads_predict_what_is_asked(self, edited):
        last = edited.final.probabilities
        assert (last["smile"] > 0.9).all()
        assert (last["hair"]["black"] > 0.9).all()
        assert (edited.final.energy < 0.3).all()
        assert [str(step.provenance["query"]) for step in edited.steps] == [
            "smile",
            "smile AND hair = black",
            "smile AND hair = black AND age > 0.5",
        ]

    def test_other_predictions_are_kept(self, edited, edit):
        free = edit(5, edited.queries, n=6, preset=replace(PRESETS["default"], keep_predictions=0.0))

        def moved(result):  # after two steps: in this model the query of the third takes glasses with it
            before, after = result.start.probabilities, result.steps[1].probabilities
            return np.mean([np.abs(after[name] - before[name]).mean() for name in ("glasses", "beard")])

        assert moved(edited) < 0.1
        assert moved(edited) < 0.6 * moved(free)

    def test_only_named_attributes_are_kept(self, edit):
        assert edit(5, ["smile"], n=2, keep=["beard"]).leaks[0].kept == ("beard",)

    def test_a_picture_does_not_depend_on_its_batch(self, edited, edit):
        alone = edit(edited.start[3], edited.queries)
        for step, whole in zip(alone.steps, edited.steps, strict=True):
            assert torch.equal(step.z, whole.z[3:4])

    def test_the_same_call_gives_the_same_pictures(self, edited, edit):
        assert pixels(edit(5, edited.queries, n=6).final.images) == pixels(edited.final.images)

    @pytest.mark.parametrize(("mode", "superseded"), [("alone", ()), ("cumulative", ("smile",))])
    def test_a_query_that_the_next_makes_impossible(self, edit, mode, superseded):
        turned = edit(5, ["smile", "NOT smile"], n=4, mode=mode)
        assert turned.leaks[1].superseded == superseded
        assert turned.steps[1].provenance["query"] == "NOT smile"
        assert (turned.final.probabilities["smile"] < 0.1).all()

    def test_one_query_as_a_tree(self, edit):
        assert edit(5, E.smile & ~E.beard).queries == ["smile AND NOT beard"]

    def test_reweighted_preset(self, edit):
        assert len(edit(5, ["smile", "age > 0.5"], n=2, preset="lace-reweighted").steps) == 2

    def test_energies_above_the_tolerance_get_a_larger_weight(self, edit):
        plain = edit(5, ["smile"], n=6, strength=0.2, preset=Preset(enough=100.0))
        surer = edit(5, ["smile"], n=6, strength=0.2, preset=Preset(enough=0.1))
        assert (plain.final.probabilities["smile"] < 0.8).any()
        assert (surer.final.probabilities["smile"] > 0.8).all()
        settled = plain.final.energy <= 0.1
        assert torch.equal(plain.final.z[settled], surer.final.z[settled])

    def test_what_relations_rule_out_is_refused_before_anything_is_drawn(self):
        with pytest.raises(Contradiction, match="smile and frown cannot both hold"):
            energyql.edit(7, ["hat", "smile AND frown"], n=1)

    def test_a_part_that_relations_rule_out_is_told_of_once(self):
        with pytest.warns(ConstantPartWarning) as warned:
            energyql.edit(7, ["beard", "hat OR smile AND frown"], n=1, progress=False)
        assert [str(warning.message).splitlines()[:2] for warning in warned] == [
            ["smile and frown cannot both hold, so this part changes nothing", "  hat OR smile AND frown"]
        ]

    def test_progress_can_end_the_run(self, edit):
        stages = []

        def stop(stage, fraction):
            stages.append(stage)
            if stage == "editing":
                raise InterruptedError

        with pytest.raises(InterruptedError):
            edit(0, ["smile"], progress=stop)
        assert stages[-1] == "editing"


class TestLengthOfZ:
    """Where heads and generator depend on the direction of z only, edits compare z at one length."""

    def test_the_length_of_the_start_has_no_effect(self, edit, turning, edited):
        z, queries = torch.randn(4, CONFIG.z_dim, generator=torch.Generator().manual_seed(1)), edited.queries[:2]
        expected = edit(z, queries, model=turning)
        assert (expected.final.probabilities["smile"] > 0.9).all()
        for length in (0.01, 30.0):
            outcome = edit(length * z, queries, model=turning)
            assert torch.allclose(outcome.final.z, expected.final.z, atol=1e-2)
            assert torch.allclose(outcome.final.z.norm(dim=1), torch.tensor(CONFIG.z_dim**0.5), atol=1e-3)

    @pytest.mark.parametrize("preset", ["lace", "query-only"])
    def test_flows(self, edit, turning, edited, preset):
        result = edit(5, edited.queries, model=turning, n=3, preset=preset)
        assert torch.allclose(result.final.z.norm(dim=1), torch.tensor(CONFIG.z_dim**0.5), atol=1e-3)

    def test_zero_is_a_start(self, edit, turning):
        assert edit(torch.zeros(1, CONFIG.z_dim), ["smile"], model=turning).final.probabilities["smile"] > 0.9

    def test_the_length_stays_where_heads_read_it(self, edit):
        z = torch.full((1, CONFIG.z_dim), 2.0)
        nearly_no_strength = Preset(strength=1e-6, enough=100.0)
        assert torch.allclose(edit(z, ["smile"], preset=nearly_no_strength).final.z, z, atol=0.01)


class TestLayers:
    def test_only_some_layers_change(self, edit):
        result = edit(5, ["smile"], n=2, layers=[1, 2])
        before, after = result.start.w, result.final.w
        assert after.shape == (2, CONFIG.num_ws, CONFIG.w_dim)
        same = [(after[:, i] - before).abs().max() < 1e-5 for i in range(CONFIG.num_ws)]
        assert same == [i not in (1, 2) for i in range(CONFIG.num_ws)]
        assert edit(result, ["glasses"]).final.w.shape == after.shape  # from W+ on

    def test_layers_of_an_attribute(self, edit):
        result = edit(5, ["smile", "age > 0.5"], layers={"smile": [0]})
        assert (result.steps[0].w[:, 1] - result.start.w).abs().max() < 1e-5
        assert (result.steps[1].w[:, 1] - result.start.w).abs().max() > 1e-3

    def test_an_unknown_attribute(self, edit):
        with pytest.raises(UnknownAttribute, match="'smirk' is not an attribute of model"):
            edit(5, ["smile"], layers={"smirk": [0]})


def test_an_identity_term_keeps_the_picture(edit):
    def change(**settings):
        result = edit(5, ["smile"], n=4, **settings)
        before, after = ([np.asarray(image, float) for image in part.images] for part in (result.start, result.final))
        return np.abs(np.subtract(after, before)).mean()

    assert change(identity=torch.nn.Flatten(), preset=Preset(identity=50.0)) < change()


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"mode": "both"}, "there is no mode 'both'"),
        ({"keep": ["smirk"]}, "'smirk' is not an attribute of model"),
        ({"keep": "smile"}, 'keep is "everything" or a list'),
        ({"keep": 3}, 'keep is "everything" or a list of attributes, not 3'),
        ({"preset": "best"}, "there is no preset 'best'"),
        ({"preset": ["default"]}, r"there is no preset \['default'\]"),
        ({"strength": -1.0}, "strength must be from 0 to 1,000,000"),
        ({"strength": 0.0}, "strength, newest and newest_continuous must be above 0"),
        ({"identity": torch.nn.Flatten(), "preset": "lace"}, "identity has no weight"),
        ({"queries": []}, "at least one query"),
        ({"queries": ["smile", "smirk"]}, "smirk"),
    ],
)
def test_wrong_arguments(edit, settings, message):
    with pytest.raises((ArgumentError, UnknownAttribute), match=message):
        edit(5, **{"queries": ["smile"], **settings})
