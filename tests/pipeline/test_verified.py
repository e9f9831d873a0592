import math
from dataclasses import replace
from functools import partial

import numpy as np
import pytest
import torch

from energyql import Gallery, Model, Result, explain, generate, sample_latents, stream, until_satisfied
from energyql.attributes.bank import FittedUnder
from energyql.attributes.heads import AttributeBank, Head
from energyql.attributes.held_out import HeldOut
from energyql.attributes.judge import Convolutions, Judge
from energyql.attributes.predictions import YesNo
from energyql.energy.clipped import clipped_density
from energyql.errors import ArgumentError, ModelError, RefusedError, TautologyWarning
from energyql.pipeline import verifier as verified
from energyql.pipeline.calibrate import TRIAL, TRIAL_ROUND, calibrate, sure
from energyql.pipeline.clips import CLIPS, MOST_LOST, PILOT_ROUND, choose_clip, estimate_clips
from energyql.pipeline.ledger import Ledger
from energyql.pipeline.plan import metered, plan_query
from energyql.pipeline.run import draw, draw_until_satisfied, stream_batches
from energyql.pipeline.session import open_session
from energyql.pipeline.verifier import (
    FAITHFUL_RECALL,
    LEAST_RECALL,
    LEAST_THRESHOLD,
    POOR_RECALL,
    choose_threshold,
    fit_balance,
    log_odds,
    probabilities_of,
)
from energyql.sampling import RandomStreams, Status
from energyql.sampling.traversal import Given, interpolate
from energyql.vocabulary import AttributeSpec, Vocabulary

VOCABULARY = Vocabulary([AttributeSpec("bright", "yes/no"), AttributeSpec("warm", "yes/no")])
Z_DIM = 4


class Pixels(torch.nn.Module):
    """Pictures whose red is z_0 and whose blue is z_1."""

    z_dim = Z_DIM

    def encode(self, z, truncation=1.0):
        return z

    def synthesize(self, w):
        colours = torch.stack([w[:, 0], torch.zeros_like(w[:, 0]), w[:, 1]], 1) / 8
        return colours[:, :, None, None].expand(-1, -1, 4, 4)


def look(images):
    return {"bright": images[:, 0, 0, 0] > 1 / 8, "warm": images[:, 2, 0, 0] > 0}


def head(*weights, bias=0.0):
    none = torch.zeros(0)
    return Head(
        none.view(0, Z_DIM), none, none.view(1, 0), torch.tensor([weights]), torch.tensor([bias]), torch.ones(())
    )


@pytest.fixture(scope="module")
def model():
    """Heads that are wrong in part: the logit of bright depends on warm, and is sure far beyond the edge only."""
    heads = {"bright": head(2.0, 1.0, 0.0, 0.0, bias=-2.0), "warm": head(0.0, 3.0, 0.0, 0.0)}
    return Model("pixels", Pixels(), AttributeBank(VOCABULARY, heads, fitted=FittedUnder("z")), judge=look)


def draws(model, n=64, **options):
    return generate("bright", n, model=model, progress=False, **options)


def test_all_pictures_satisfy_the_query(model):
    assert not draws(model, sampler="slice").satisfied.all()
    for mode in ("sure", "faithful"):
        result = draws(model, verify=mode)
        assert result.satisfied.all()
        assert result.statistics["accepted"] == 64 < result.statistics["drawn"]
        assert result.index.tolist() == list(range(64))


@pytest.mark.parametrize("mode", ["sure", "faithful"])
def test_a_picture_depends_on_seed_and_number_alone(model, mode):
    whole = draws(model, 24, verify=mode, seed=3)
    assert torch.equal(draws(model, 24, verify=mode, seed=3, batch_size=5).z, whole.z)
    assert torch.equal(draws(model, 10, verify=mode, seed=3, first=7).z, whole.z[7:17])
    parts = stream("bright", 24, model=model, verify=mode, seed=3, batch_size=7, progress=False)
    assert torch.equal(torch.cat([part.z for part in parts]), whole.z)
    latents = sample_latents("bright", 24, model=model, verify=mode, seed=3, progress=False)
    assert torch.equal(torch.cat([part.z for part in latents]), whole.z)


def test_faithful_pictures_have_the_frequencies_of_the_prior(model):
    n = 2000
    kept = draws(model, n, verify="faithful")
    error = 4 * 0.5 / math.sqrt(n)
    assert abs(kept.judged["warm"].mean() - 0.5) < error + MOST_LOST
    assert draws(model, n, verify="sure").judged["warm"].mean() > 0.5 + error + MOST_LOST


def test_the_last_picture_is_returned_if_none_is_accepted(model):
    seldom = Model("pixels", Pixels(), model.bank, judge=lambda images: {"bright": images[:, 0, 0, 0] > 3 / 8})
    result = draws(seldom, 64, verify="sure", attempts=3)
    assert len(result) == 64
    assert 0 < result.satisfied.sum() < 64
    assert [status == Status.NOT_ACCEPTED for status in result.status] == (~result.satisfied).tolist()


def test_a_run_of_which_nothing_is_accepted_ends(model):
    stubborn = Model("pixels", Pixels(), model.bank, judge=lambda images: {"bright": [False] * len(images)})
    for mode in ("sure", "faithful"):
        with pytest.raises(RefusedError, match="attempts is 16"):
            draws(stubborn, 64, verify=mode, attempts=16)


@pytest.mark.parametrize("options", [{}, {"verify": "sure"}, {"verify": "faithful"}])
def test_pictures_of_a_traversal_are_those_of_its_paths(model, options):
    """A point on the way need not satisfy the query, and is not drawn again."""
    by_default = replace(model, verifier=look)
    queries, times = ("bright", "NOT bright"), [0.0, 0.5, 1.0]
    ends = [generate(query, 8, model=model, verify="off", progress=False).z for query in queries]
    gallery = Gallery(model=by_default, progress=False, **options)
    result = gallery.add_traversal(*queries, steps=3, n=8).result
    assert torch.equal(result.z, interpolate(*ends, times).flatten(0, 1))
    assert not any(status == Status.NOT_ACCEPTED for status in result.status)


def test_a_query_without_accepted_pictures_does_not_end_a_gallery(model, tmp_path):
    stubborn = replace(model, judge=lambda images: look(images) | {"bright": [False] * len(images)})
    gallery = Gallery(["bright", "warm"], n=64, model=stubborn, verify="sure", attempts=16, progress=False)
    reason = "none of 64 pictures was accepted, and attempts is 16"
    assert [(section.kind, len(section.results)) for section in gallery.sections] == [("refused", 0), ("query", 1)]
    assert gallery.sections[0].reason == reason
    table = gallery.add_truth_table("bright", n=64)
    assert [(row.reason, row.contradiction) for row in table.rows] == [(reason, False), ("", False)]
    assert gallery.summary().startswith("1 query, 1 query without pictures, 1 truth table, 128 pictures")
    assert gallery.save(tmp_path).read_text().count(f"no pictures: {reason}") == 2
    with pytest.raises(RefusedError, match=reason):
        gallery.add("bright")


def test_a_judge_that_disagrees_with_the_verifier_is_a_reason_for_more_labels(model):
    generous = replace(model, verifier=lambda images: {"bright": YesNo(torch.full([len(images)], 9.0))})
    summary = draws(generous, 40, sampler="slice").summary()
    assert summary.endswith(" pictures were drawn. More labels improve test_verified:<lambda>")
    assert "labels" not in draws(replace(generous, judge=generous.verifier), 40).summary()


def test_a_pilot_names_no_threshold_of_a_function(model):
    pilot = explain("bright", model=replace(model, verifier=look), pilot=True).pilot
    assert (pilot.threshold, len(pilot.clips)) == (None, len(CLIPS))


def test_other_errors_end_a_gallery(model):
    def broken(images):
        if len(images) > 1:
            raise ModelError("the weights of the reader are gone")
        return look(images)

    with pytest.raises(ModelError, match="are gone"):
        Gallery(["bright"], n=64, model=replace(model, judge=broken), verify="sure", progress=False)


def test_a_function_that_reads_a_part_verifies_that_part_by_default(model):
    partly = replace(model, judge=lambda images: {"bright": look(images)["bright"]})
    partly = replace(partly, verifier=partly.judge)
    assert draws(partly, 4).provenance["verify"] == "sure"
    result = generate("bright AND warm", 4, model=partly, progress=False)
    assert "verify" not in result.provenance
    assert result.summary().endswith(". No verifier decided, because test_verified:<lambda> does not read 'warm'")
    with pytest.raises(ModelError, match="cannot be verified: test_verified:<lambda> does not read 'warm'"):
        plan_query(open_session(partly, "cpu"), "bright AND warm", verify="sure")


def test_the_mean_probability_is_of_all_drawn_pictures(model):
    """By the heads: an attempt, drawn alone, is what `verify="off"` draws."""
    result = draws(model, 64, verify="sure", attempts=2)
    first, again = (draws(model, 64, sampler="slice+descent"), result.statistics["drawn"] - 64)
    assert 0 < again < 64
    missed = np.flatnonzero(~look(model.generator.synthesize(first.w))["bright"].numpy())
    assert len(missed) == again
    total = first.probability.sum() + result.probability[missed].sum()
    assert result.statistics["drawn_probability"] == pytest.approx(total / result.statistics["drawn"])


def test_a_page_of_refused_queries_alone(model):
    stubborn = replace(model, judge=lambda images: dict.fromkeys(("bright", "warm"), [False] * len(images)))
    gallery = Gallery(["bright"], n=64, model=stubborn, verify="sure", attempts=16, progress=False)
    gallery.add_truth_table("bright AND warm", "bright XOR warm")
    assert "no pictures: none of" in gallery.to_html()


def test_existing_latents_of_some_samples():
    latents, streams = torch.randn(12, Z_DIM), RandomStreams(start=3).of_samples([1, 4, 6])
    assert torch.equal(Given(latents).sample(None, torch.zeros(3, Z_DIM), noise=streams).z, latents[[4, 7, 9]])


def test_a_reader_is_needed(model):
    with pytest.raises(ModelError, match="has no verifier and no judge"):
        draws(Model("pixels", Pixels(), model.bank), verify="sure")


def test_clip_by_a_pilot():
    random = np.random.default_rng(0)

    def exact(number):
        """Heads that are sure and right: nothing is missed by any clip."""
        truth = random.random(PILOT_ROUND) < 0.5
        return np.where(truth, 0.9, CLIPS[-1]), truth

    def blind(number):
        """Satisfying pictures of which the heads think little."""
        truth = random.random(PILOT_ROUND) < 0.5
        return np.where(truth, 0.04, 0.9), truth

    none = (np.zeros(0), np.zeros(0, bool))
    assert choose_clip(estimate_clips(exact, none), 64).probability == CLIPS[0]
    clip = choose_clip(estimate_clips(blind, none), 64)
    assert (clip.probability, clip.lost, clip.held_out) == (0.04, 0.0, False)
    assert clip.samples % PILOT_ROUND == 0
    hopeless = estimate_clips(lambda _: (np.full(PILOT_ROUND, 0.5), np.zeros(PILOT_ROUND, bool)), none)
    assert {clip.calls for clip in hopeless} == {None}
    dear = [replace(clip, calls=clip.calls * 40) for clip in estimate_clips(blind, none)]
    assert choose_clip(dear, 64).lost > MOST_LOST
    assert choose_clip(dear, 1) == dear[0]


def test_clip_by_held_out_labels():
    def refused(number):
        pytest.fail("no pilot is needed")

    truth = np.arange(1000) < 100
    by_heads = np.where(truth, np.where(np.arange(1000) < 85, 0.4, 0.02), 0.001)
    clip = choose_clip(estimate_clips(refused, (by_heads, truth)), 64)
    density = clipped_density(by_heads, clip.probability)
    assert (clip.probability, clip.held_out) == (0.03, True)
    assert clip.lost == pytest.approx(0.15 * (1 - 4 / 9))
    assert clip.calls == pytest.approx(density.sum() / density[truth].sum())


def test_the_density_is_that_of_the_energy(model):
    prepared = plan_query(open_session(model, "cpu"), "bright", verify="faithful")
    source, z = calibrate(prepared, Ledger()).calibration.source, 2 * torch.randn(64, Z_DIM)
    by_heads = prepared.energy_in_float32(z).neg().exp().double().numpy()
    energy, density = source.energy, clipped_density(by_heads, source.clip.probability)
    assert 0 < (density < 1).sum() < 64
    assert energy(z).neg().exp().numpy() == pytest.approx(density, rel=1e-4)
    values, gradient = energy.gradient(z)
    assert torch.equal(values, energy(z))
    moved = energy(z + 1e-2 * gradient) - energy(z)
    assert moved.numpy() == pytest.approx(1e-2 * gradient.square().sum(1).numpy(), rel=0.2, abs=1e-3)


def test_the_threshold_is_the_lowest_that_is_right_often_enough():
    p = np.linspace(0, 1, 2001)
    honest = np.random.default_rng(1).random(2001) < p
    threshold = choose_threshold(p, np.ones_like(p), honest, purity=0.8)
    assert 0.55 < threshold.probability < 0.65  # the mean above it is 0.8
    assert threshold.precision == pytest.approx(0.8, abs=0.005)
    vain = choose_threshold(p, np.ones_like(p), np.random.default_rng(1).random(2001) < 0.9 * p, purity=0.97)
    assert vain.recall == pytest.approx(LEAST_RECALL, abs=0.01)
    assert vain.precision < 0.97
    unlikely = choose_threshold(p / 4, np.ones_like(p), np.random.default_rng(1).random(2001) < p / 4, purity=0.97)
    assert unlikely.probability == LEAST_THRESHOLD
    assert choose_threshold(p[:0], p[:0], honest[:0], purity=0.9).precision is None


@pytest.mark.parametrize(("samples", "least", "most"), [(20_000, 0, 0.02), (20, 0.05, 0.3)])
def test_a_balance_accepts_each_kind_of_satisfying_pictures_equally_often(samples, least, most):
    source = np.random.default_rng(1)
    truth, warm = source.random(100_000) < 0.3, source.random(100_000) < 0.4
    readings = {"warm": YesNo(torch.from_numpy(np.where(warm, 4.0, -4.0)))}  # as probable among satisfying samples
    odds = np.where(truth, 2, -4) + source.normal(size=100_000) + truth * np.where(warm, 1.5, 0)
    probable = 1 / (1 + np.exp(-odds))  # the verifier is surer of warm pictures
    cells = [("warm", True)]
    kinds, some = probabilities_of(cells, readings), slice(samples)
    balance = fit_balance(cells, kinds[some], probable[some], probable[some])

    def difference(corrected):
        kept = truth & (corrected > 0.9)
        return abs(warm[kept].mean() - warm[truth].mean())

    corrected = balance.correct(probable, kinds)
    assert difference(probable) > 0.1
    assert least <= difference(corrected) <= most
    assert (corrected[probable < LEAST_THRESHOLD] == 0).all()
    unseen = balance.correct(np.full(2, 0.9), np.array([[-1e3], [1e3]]))  # the correction has a bound
    assert np.abs(log_odds(unseen) - log_odds(np.full(2, 0.9))) == pytest.approx(balance.most)


def read(model, share, labelled=2000, count=2000):
    """Return a verifier of "bright" with held-out samples: P(bright) rises evenly, and warm ones are read more surely.

    The labels of the first `labelled` samples say that the share `share * P(bright)` is bright.
    """
    source = np.random.default_rng(1)
    p = source.permutation(np.linspace(0.001, 0.999, count))
    bright = torch.from_numpy(np.where(np.arange(count) < labelled, source.random(count) < share * p, np.nan))
    warm = torch.from_numpy(np.where(source.random(count) < p, 3.0, -3.0))
    readings = {"bright": YesNo(torch.from_numpy(log_odds(p))), "warm": YesNo(warm)}
    heads = {"bright": YesNo(torch.full((count,), 9.0)), "warm": YesNo(torch.zeros(count))}
    prepared = plan_query(open_session(model, "cpu"), "bright", verify="faithful")
    held_out = HeldOut({"bright": bright, "warm": (warm > 0).double()}, heads, readings)
    return replace(prepared.verifier, held_out=held_out, is_own=True)


@pytest.mark.parametrize(("share", "recall"), [(0.9, FAITHFUL_RECALL), (0.6, POOR_RECALL)])
def test_faithful_pictures_are_accepted_more_often_unless_few_are_right(model, share, recall):
    verifier = read(model, share)
    sure, faithful = verifier.for_draws(), verifier.for_draws(0.5)
    assert sure.threshold.recall == pytest.approx(LEAST_RECALL, abs=0.01)
    assert faithful.threshold.recall == pytest.approx(recall, abs=0.01)
    assert (sure.balance, len(faithful.balance.slopes)) == (None, 1)


def test_labels_choose_the_threshold_of_the_models_own_networks_alone(model):
    labelled = replace(model, held_out=(read(model, 1.0).held_out,))
    own, other = (
        plan_query(open_session(replace(labelled, verifier=verifier), "cpu"), "bright", verify="sure").verifier
        for verifier in (Judge(VOCABULARY, Convolutions(16, (4, 6))).eval(), look)
    )
    assert LEAST_RECALL <= own.for_draws().threshold.recall < 1
    assert (other.for_draws().threshold.recall, other.for_draws().threshold.probability) == (None, 0.9)


@pytest.mark.parametrize(
    ("drawn", "expected"),
    [
        (np.linspace(0.65, 0.3, 16), (0.7, 0.5)),  # the threshold by labels is higher, and stays
        (np.repeat([0.99, 0.95, 0.6], 16), (0.95, 0.97)),  # the mean of the first two parts is the wanted one
        (np.linspace(0.93, 0.3, 64), (0.86, 0.895)),  # it is out of reach: eight are accepted
    ],
)
def test_drawn_pictures_raise_the_threshold(model, drawn, expected):
    verifier = replace(read(model, 1.0), threshold=verified.Threshold(0.7, 0.5))
    threshold = verifier.surer(np.random.default_rng(0).permutation(np.asarray(drawn))).threshold
    assert (threshold.probability, threshold.precision) == pytest.approx(expected, abs=1e-3)


def certain(images, most):
    """Read `Pixels` with log-odds of bright pictures that are at most `most`."""
    return {"bright": YesNo((16 * images[:, 0, 0, 0]).clamp(max=most)), "warm": YesNo(16 * images[:, 2, 0, 0])}


@pytest.mark.parametrize(
    ("share", "most", "budget", "pictures"),
    [
        (0.95, 4, math.inf, TRIAL_ROUND),
        (0.95, 2.5, math.inf, TRIAL),  # P of 0.92: never as certain as wanted
        (0.95, 2.5, 4 * 40, 2 * TRIAL_ROUND),
        (0.95, 2.5, 4 * TRIAL_ROUND - 1, 0),
        (1.05, 4, math.inf, 0),
    ],
)
def test_a_trial_where_labels_do_not_show_the_wanted_purity(model, share, most, budget, pictures):
    thresholds = []
    for seed in (0, 1):
        ledger = Ledger(budget)
        plan = metered(plan_query(open_session(model, "cpu"), "bright", verify="sure", seed=seed), ledger)
        plan = replace(plan, verifier=replace(read(model, share), reader=partial(certain, most=most)))
        by_labels = plan.verifier.for_draws()
        assert by_labels.needs_trial == (share < 1)
        verifier = calibrate(plan, ledger).calibration.source.verifier
        thresholds.append(verifier.threshold)
        several = replace(plan, mixture=object())
        assert sure(several, ledger).threshold == by_labels.threshold
    assert thresholds[0] == thresholds[1]
    assert (ledger.pilot_calls, ledger.calls) == (pictures, pictures)
    before, after = by_labels.threshold, verifier.threshold
    if not pictures:
        assert after == before
    else:
        assert after.probability > before.probability
        assert after.precision == pytest.approx(1 / (1 + math.exp(-most)), abs=0.02)


def test_samples_without_labels_count_for_the_balance_and_not_for_the_threshold(model):
    few, more = read(model, 1.0, 60, 60), read(model, 1.0, 60, 4000)
    assert [len(verifier.labelled[1]) for verifier in (few, more)] == [60, 60]
    slopes = [abs(verifier.for_draws(0.5).balance.slopes[0]) for verifier in (few, more)]
    assert 0 < 1.5 * slopes[0] < slopes[1]


def test_no_balance_without_other_attributes_or_satisfying_samples():
    ones = np.ones(3)
    assert fit_balance([], np.zeros((3, 0)), ones, ones) is None
    assert fit_balance([("warm", True)], np.ones((3, 1)), ones, np.zeros(3)) is None


def test_streams_of_some_samples_are_rows_of_all():
    streams, like, some = RandomStreams(5, 100), torch.zeros(9, 3), [1, 4, 8]
    part, few = streams.of_samples(some), torch.zeros(3, 3)
    rows, numbers = torch.tensor([0, 2]), torch.tensor([[0, 2], [1, 2]])
    assert torch.equal(part.normals(few, "a"), streams.normals(like, "a")[some])
    assert torch.equal(part.normals(few, "a", rows), streams.normals(like, "a")[[1, 8]])
    assert torch.equal(part.uniforms(few, 2, "a", rows), streams.uniforms(like, 2, "a")[[1, 8]])
    both = (
        part.several_normals(few, "a", rows, numbers, 3),
        streams.several_normals(like, "a", rows * 7 + 1, numbers, 3),
    )
    assert torch.equal(both[0][0], both[1][0])
    assert part.offsets(rows).tolist() == [1, 8]


def test_a_reader_with_probabilities_decides_by_that_of_the_whole_query(model):
    def judge(images):
        return {"bright": YesNo(16 * images[:, 0, 0, 0]), "warm": YesNo(16 * images[:, 2, 0, 0])}

    reading = Model("pixels", Pixels(), model.bank, judge=judge)
    result = generate("bright XOR warm", 64, model=reading, verify="sure", progress=False)
    bright, warm = torch.sigmoid(2 * result.z[:, :2].double()).unbind(1)
    assert (bright + warm - 2 * bright * warm).min() >= verified.LEAST_PROBABILITY - 1e-6


def test_runs_in_several_modes_are_not_joined(model):
    parts = [draws(model, 8, verify="faithful", seed=seed) for seed in (0, 1)]
    joined = Result.join(parts)
    assert joined.statistics["drawn"] == sum(part.statistics["drawn"] for part in parts)
    assert "of 16 satisfy the query by the definition" in joined.summary()
    with pytest.raises(ArgumentError, match="differ in their verify"):
        Result.join([parts[0], draws(model, 8, verify="sure")])


def test_relations_need_a_reader_of_their_attributes(model):
    vocabulary = Vocabulary(VOCABULARY.values(), relations=["NOT (bright AND warm)"])
    bank = AttributeBank(vocabulary, model.bank.heads, fitted=FittedUnder("z"))

    class Part(torch.nn.Module):
        vocabulary = Vocabulary([VOCABULARY["bright"]])

        def forward(self, images):
            return {"bright": YesNo(16 * images[:, 0, 0, 0])}

    related = Model("pixels", Pixels(), bank, verifier=Part())
    assert generate("bright", 2, model=related, progress=False).provenance.get("verified") is None
    with pytest.raises(ModelError, match="test_verified:Part does not read 'warm'"):
        generate("bright", 2, model=related, verify="sure", progress=False)


def test_what_is_always_true_is_not_verified(model):
    own = replace(model, verifier=look)
    with pytest.warns(TautologyWarning):
        assert len(generate("bright OR NOT bright", 3, model=own, progress=False)) == 3
    with pytest.warns(TautologyWarning), pytest.raises(ModelError, match="every picture satisfies"):
        generate("bright OR NOT bright", 3, model=own, verify="sure", progress=False)


def test_faithful_needs_strength_one(model):
    with pytest.raises(ArgumentError, match="strength 1"):
        draws(model, 4, verify="faithful", strength=2.0)


def test_a_judge_that_chose_counts_nothing(model):
    class Own(Judge):
        def forward(self, images):
            return {name: YesNo(16 * images[:, k, 0, 0]) for name, k in (("bright", 0), ("warm", 2))}

    judged = Model("pixels", Pixels(), model.bank, judge=Own(VOCABULARY, Convolutions(4, (2,))).eval())
    result = draws(judged, 8, verify="sure")
    assert result.satisfied is None
    assert "accepted by the image judge" in result.summary()
    with pytest.raises(ModelError, match="the judge decided which pictures are kept"):
        until_satisfied("bright", 8, model=judged, verify="sure", progress=False)


def test_a_pilot_counts_acceptance_once():
    def draw(number):
        return np.full(PILOT_ROUND, 0.5), np.arange(PILOT_ROUND) % 2 == 0

    (clip, *_) = estimate_clips(draw, (np.zeros(0), np.zeros(0, bool)), lambda c: 0.25)
    assert clip.calls == pytest.approx(2)


def test_pictures_that_were_not_accepted_do_not_count_as_accepted(model):
    """The last draw of a sample is kept in any case: it must not hide that the verifier accepts nothing."""
    stubborn = Model("pixels", Pixels(), model.bank, judge=lambda images: {"bright": [False] * len(images)})
    prepared = plan_query(open_session(stubborn, "cpu"), "bright", verify="sure", attempts=2)
    for _ in range(3):  # a run knows nothing of earlier ones
        assert draw(prepared, 3, progress=False).status == 3 * [Status.NOT_ACCEPTED]
    with pytest.raises(RefusedError, match="none of 8 pictures was accepted"):
        draw(prepared, 4, progress=False)


def test_a_slice_counts_its_own_draws(model, tmp_path):
    result = draws(model, 64, sampler="slice", verify="sure", seed=3)
    result.save(tmp_path / "saved")
    in_batches = draws(model, 64, sampler="slice", verify="sure", seed=3, batch_size=5)
    for whole in (result, Result.load(tmp_path / "saved"), in_batches):
        assert whole.draws.sum() == whole.statistics["drawn"]
        few = whole[whole.draws > 1]
        assert 0 < len(few) < 64
        assert few.summary().endswith(f". {few.draws.sum()} pictures were drawn")
        assert (whole[:9] + whole[9:]).summary() == result.summary()
        assert whole[::-1].summary() == result.summary()
    assert draws(model, 4, verify="off").draws is None


def test_a_folder_that_was_shortened_counts_its_own_draws(model, tmp_path):
    for n in (32, 4):
        list(stream("bright", n, model=model, sampler="slice", verify="sure", out=tmp_path, progress=False))
    short = Result.load(tmp_path)
    assert len(short) == 4
    assert short.draws.sum() == short.statistics["drawn"]
    assert short.statistics["accepted"] == 4


def test_a_slice_does_not_say_that_a_budget_ended(model):
    partly = replace(model, judge=lambda images: {"bright": images[:, 0, 0, 0] > 2 / 8})
    for mode, budget in (("off", 10), ("sure", 18)):
        result = until_satisfied("bright", 9, budget=budget, model=partly, verify=mode, attempts=2, progress=False)
        assert 0 < len(result) < 9
        assert f"9 were wanted, but the budget of {budget} calls ended" in result.summary()
        assert "budget" not in result[:1].summary()
        if mode == "off":
            assert result[1:2].summary().endswith(f":<lambda>. 10 pictures were drawn for all {len(result)}")
    whole = draws(partly, 10, verify="sure", attempts=2)
    for name in ("drawn", "accepted", "drawn_probability"):
        assert result.statistics[name] == pytest.approx(whole.statistics[name])


@pytest.mark.parametrize("verify", ["sure", "faithful"])
def test_progress_of_a_pilot_run(model, verify):
    """It is shown once, before the draws, and from 0 to 1; held-out labels and few pictures need no pilot run."""
    stages, prepared = [], plan_query(open_session(model, "cpu"), "bright", verify=verify)

    def pilots(n):
        stages.clear()
        plan = calibrate(prepared, Ledger(), lambda stage, done: stages.append((stage, done)), n)
        for run in (draw, draw_until_satisfied, lambda *plan, **how: [*stream_batches(*plan, **how)]):
            run(plan, n, progress=lambda stage, done: stages.append((stage, done)))
        return [done for stage, done in stages if stage == "pilot"]

    assert pilots(4) == []
    pilot = pilots(100)
    assert (len(pilot) > 1) == (verify == "faithful")
    assert pilot == sorted(pilot)
    assert pilot[-1:] == ([1.0] if pilot else [])
    begin = [stage for stage, _ in stages if stage != "trial"][: len(pilot)]
    assert begin == ["pilot"] * len(pilot)
    explained = list[float]()
    own = replace(model, verifier=look)
    explain("bright", model=own, pilot=True, progress=lambda stage, done: explained.append(done))
    assert explained == pilot or verify == "sure"


def test_code_of_a_notebook_or_program_has_a_name_that_one_finds(model, monkeypatch):
    def guess(images):
        return {"bright": YesNo(16 * images[:, 0, 0, 0]), "warm": YesNo(16 * images[:, 2, 0, 0])}

    for code in (guess, own := lambda images: look(images)):
        code.__module__ = "__main__"
    monkeypatch.delattr("__main__.__file__", raising=False)
    place = "(defined in a notebook or console)"
    definition = draws(replace(model, judge=own), 4, verify="sure").summary()
    assert definition.startswith(f"4 of 4 satisfy the query by the definition <lambda> {place}. ")
    monkeypatch.setattr("__main__.__file__", "/here/my_program.py", raising=False)
    summary = draws(replace(model, verifier=guess), 4, verify="sure").summary()
    assert ", accepted by guess (defined in my_program.py). " in summary


def test_the_pilot_looks_at_drafts_and_results_do_not(model):
    """A draft is drawn for each picture of the pilot; those that the verifier keeps are drawn as they will be shown."""

    class Drafting(Pixels):
        differentiable = False
        drafted = drawn = 0

        def draft(self, w):
            self.drafted += len(w)
            return super().synthesize(w)

        def synthesize(self, w):
            self.drawn += len(w)
            return super().synthesize(w)

    generator = Drafting()
    prepared = plan_query(open_session(replace(model, generator=generator), "cpu"), "bright", verify="faithful")
    before = generator.drawn
    calibration = calibrate(prepared, Ledger()).calibration
    pilot = calibration.clips[0].samples + calibration.prior_source.clip.samples
    assert (generator.drafted, generator.drawn) == (pilot, before)
    result = draw(prepared, 16, progress=False)
    pilot += calibration.prior_source.clip.samples  # 16 samples need no pilot run
    assert (generator.drafted, generator.drawn) == (pilot, before + result.statistics["drawn"])
    assert result.images[3].tobytes() == draws(model, 16, verify="faithful").images[3].tobytes()
