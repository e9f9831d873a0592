import dataclasses
import json
import math
from functools import partial
from xml.etree import ElementTree

import pytest
import torch
from toys import tiny_model

from energyql import E, Explanation, Vocabulary, explain, list_attributes, load_model
from energyql.errors import ArgumentError, Contradiction, ModelError, UnknownAttribute
from energyql.pipeline.calibrate import ENOUGH, prevalence
from energyql.pipeline.explain_pilot import run_pilot
from energyql.pipeline.plan import plan_query
from energyql.pipeline.propose import PRIOR
from energyql.pipeline.run import run_latents
from energyql.pipeline.session import open_session
from energyql.sampling import SampleResult


class TestExplain:
    def test_it_is_data_and_text(self, tiny):
        found = explain("smile and not glasses", model=tiny)
        assert (found.query, found.semantics, found.relations) == ("smile AND NOT glasses", "exact", ())
        assert (found.best, found.pilot) == (None, None)
        assert str(found) == repr(found) == f"query  smile AND NOT glasses\n{found.circuit}"
        assert "log P(NOT glasses)" in found.circuit
        assert Explanation(**found.to_dict()) == found
        with pytest.raises(dataclasses.FrozenInstanceError):
            found.query = "hat"

    def test_a_notebook_shows_text_and_drawing(self, tiny):
        found = explain("smile AND 0.2 < age", model=tiny)
        page = ElementTree.fromstring(found._repr_html_())
        assert page.findtext("pre") == str(found)
        assert found.drawing in found._repr_html_()
        assert "drawing" not in found.to_dict()
        assert "svg" not in explain("smile", model=tiny, semantics="lace")._repr_html_()

    def test_expressions_and_other_semantics(self, tiny):
        found = explain(E.smile & ~E.glasses, model=tiny, semantics="lace")
        assert found.query == "smile AND NOT glasses"
        assert "not a probability" in found.circuit

    def test_a_model_in_memory_explains_the_same(self, tiny):
        query = "0.5 < age < 0.5001 AND smile"
        assert explain(query, model=load_model(tiny)) == explain(query, model=tiny)
        assert 0 < explain(query, model=tiny).best < 0.01

    def test_relations_of_the_model(self):
        found = explain("smile AND mouth = laugh")
        assert any("mouth" in relation for relation in found.relations)
        assert f"always {found.relations[0]}" in str(found)
        assert "P(part AND relations) / P(relations); both counted, the part drawn" in str(found)

    def test_errors(self, tiny):
        for query, error in (("smil", UnknownAttribute), ("smile AND NOT smile", Contradiction)):
            with pytest.raises(error):
                explain(query, model=tiny)
        with pytest.raises(ArgumentError, match="no semantics is called 'odd'"):
            explain("smile", model=tiny, semantics="odd")


class TestAttributes:
    def test_of_every_kind_of_model(self, tiny):
        model = load_model(tiny)
        assert list_attributes(tiny) == list_attributes(str(tiny)) == list_attributes(model) == model.vocabulary
        assert isinstance(list_attributes(), Vocabulary)
        with pytest.raises(ModelError, match="there is no model 'avatar'\ndid you mean avatars"):
            list_attributes("avatar")

    def test_their_namespace(self, tiny):
        model = load_model(tiny)
        assert model.E.smile == E.smile
        assert dir(model.E) == sorted(model.vocabulary)
        with pytest.raises(UnknownAttribute, match="model 'tiny'\ndid you mean glasses"):
            model.E.glases  # noqa: B018


class TestPilot:
    def test_prevalence_and_cost(self, tiny):
        pilot = explain("smile", model=tiny, pilot=True).pilot
        assert "by the heads, whose errors `energyql report --full` shows" in str(pilot)
        prepared = plan_query(open_session(tiny, "auto"), "smile")
        random = torch.Generator().manual_seed(5)
        energies = prepared.energy(torch.randn(20_000, 8, generator=random)).double()
        truth, error = prevalence(energies)
        assert truth == pytest.approx(torch.exp(-energies).mean())
        assert abs(pilot.prevalence - truth) < 4 * math.hypot(pilot.prevalence_error, error)
        assert 0 < error < pilot.prevalence_error < 0.02
        (sampled,) = run_latents(prepared, 64, progress=False)
        assert pilot.evaluations == sampled.evaluations.double().mean()
        assert 0 < pilot.evaluations_error < pilot.evaluations
        assert pilot.satisfied == pytest.approx(prepared.energy(sampled.z).double().neg().exp().mean())
        assert pilot.satisfied > 0.8
        assert pilot.finished == 1
        assert explain("smile", model=tiny, pilot=True).pilot == pilot

    def test_it_is_text_and_json(self, tiny):
        found = explain("smile", model=tiny, pilot=True)
        assert "of the model's pictures to satisfy it, by the heads\n" in str(found)
        assert json.loads(json.dumps(found.to_dict()))["pilot"]["prevalence"] == found.pilot.prevalence
        rare = dataclasses.replace(found.pilot, prevalence=2.34e-5, prevalence_error=1.2e-6, finished=0.75)
        assert str(rare).startswith("expect a share of 2.3e-05 ± 1e-06 of")
        assert str(rare).endswith("the sampler cannot finish 25% of the samples")

    def test_weights_and_semantics_change_the_cost_but_no_prevalence(self, tiny):
        plain = explain("smile AND NOT glasses", model=tiny, pilot=True).pilot
        for query, semantics in (("2 * smile AND NOT glasses", "exact"), ("smile AND NOT glasses", "lace")):
            other = explain(query, model=tiny, semantics=semantics, pilot=True).pilot
            assert other.prevalence == pytest.approx(plain.prevalence, rel=1e-6)
            assert other.evaluations != plain.evaluations

    def test_there_is_none_without_a_sampler_for_it(self, tiny):
        for make in (partial(explain, pilot=True), run_pilot):
            with pytest.raises(ArgumentError, match="a pilot cannot be made under jem"):
                make("smile", model=tiny, semantics="jem")

    def test_a_rare_query_is_estimated_by_the_proposals(self, tmp_path):
        model = load_model(tiny_model(tmp_path))
        query = "smile AND glasses AND beard AND hair = black AND age > 0.9"
        prepared = plan_query(open_session(model, "cpu"), query)
        random = torch.Generator().manual_seed(5)
        energies = torch.cat([prepared.energy(torch.randn(50_000, 8, generator=random)) for _ in range(4)]).double()
        truth, error = prevalence(energies)
        assert truth * PRIOR < ENOUGH / 2  # too rare for the draws of a pilot
        pilot = explain(query, model=model, pilot=True).pilot
        assert abs(pilot.prevalence - truth) < 4 * math.hypot(pilot.prevalence_error, error)
        assert pilot.prevalence_error < 0.5 * pilot.prevalence

    def test_annealed_samples_count_where_proposals_say_nothing(self):
        counts = torch.ones(4, dtype=torch.long)
        log_weight = torch.tensor([-9.0, -10.0, -11.0, 0.0])
        diagnostics = {
            "exact": torch.tensor([0, 0, 0, 1]), "proposals": 100 * counts, "mass": 1e-9 * counts,
            "log_weight": log_weight, "stages": counts,
        }  # fmt: skip
        sampled = SampleResult(torch.zeros(4, 2), 0 * counts, counts, counts, diagnostics)
        share, error = prevalence(torch.full((PRIOR,), torch.inf), sampled)
        weights = log_weight[:3].double().exp()
        assert share == pytest.approx(weights.mean().item())
        assert error == pytest.approx(weights.std().item() / 3**0.5)
