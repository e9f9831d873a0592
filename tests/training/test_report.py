import dataclasses

import pytest
import torch

from energyql.attributes.predictions import Categorical, Continuous, YesNo
from energyql.attributes.quality import HeadReport
from energyql.training.report import CARD, area, correlated, draw_report, report_quality, weighted_share
from energyql.vocabulary import AttributeSpec, Vocabulary

SPECS = Vocabulary(
    [
        AttributeSpec("smile", "yes/no"),
        AttributeSpec("hair", "categorical", values=("black", "brown", "red")),
        AttributeSpec("age", "continuous", low=0, high=10),
        AttributeSpec("nothing known of this one, with a long name", "yes/no"),
    ]
)
N = 20_000


def calibrated():
    """Predictions, and labels drawn from them."""
    random = torch.Generator().manual_seed(0)
    logit = 2 * torch.randn(N, generator=random)
    logits = torch.randn(N, 3, generator=random)
    mean = 5 + torch.randn(N, generator=random)
    labels = {
        "smile": (torch.rand(N, generator=random) < logit.sigmoid()).float(),
        "hair": torch.multinomial(logits.softmax(1), 1, generator=random)[:, 0].float(),
        "age": mean + 0.5 * torch.randn(N, generator=random),
    }
    labels["smile"][:100] = torch.nan
    labels["nothing known of this one, with a long name"] = torch.full((N,), torch.nan)
    predictions = {
        "smile": YesNo(logit),
        "hair": Categorical(logits, SPECS["hair"].values),
        "age": Continuous(mean, 0.5),
        "nothing known of this one, with a long name": YesNo(logit),
    }
    return predictions, labels


def measured(predictions, labels, specs=SPECS):
    """Reports, where the heads were fitted to ten labels: no, no, ..., yes."""
    return report_quality(predictions, labels, specs, {name: torch.tensor([0.0] * 9 + [1.0]) for name in predictions})


def test_calibrated_predictions_look_calibrated():
    report = measured(*calibrated())
    for name in ("smile", "hair", "age"):
        assert report[name].calibration_error < 0.015
        assert all(abs(p - o) < 0.05 for p, o, n in report[name].details["reliability"] if n > 500)
    assert (report["smile"].fitted, report["smile"].held_out) == (10, N - 100)
    assert sum(report["smile"].labels.values()) == N - 100 + 10
    assert report["smile"].labels["yes"] == pytest.approx(N / 2, rel=0.02)
    assert report["age"].score == pytest.approx(0.8, abs=0.02)
    assert report["age"].details["error"] == pytest.approx(0.5 * 0.798, abs=0.01)
    assert sum(report["age"].details["errors"]) == N
    confusion = report["hair"].details["confusion"]
    assert [sum(row) for row in confusion] == torch.bincount(calibrated()[1]["hair"].long()).tolist()
    assert report["hair"].score == pytest.approx(sum(confusion[k][k] / sum(confusion[k]) for k in range(3)) / 3)
    nothing = report["nothing known of this one, with a long name"]
    assert nothing == HeadReport("yes/no", 10, 0, {"no": 9, "yes": 1}, None, None, {}, None)
    assert nothing.weak == "its quality is unknown"


def pairs_in_order(scores, true):
    """Share of pairs of a true and another sample in which the true one has the larger score; equal ones count half."""
    difference = scores[true][:, None] - scores[~true][None]
    return ((difference > 0).double() + 0.5 * (difference == 0)).mean().item()


def test_area_and_weighted_share():
    random = torch.Generator().manual_seed(0)
    true = torch.rand(300, generator=random) < 0.1
    scores = (torch.randn(300, generator=random) + true).round(decimals=1)
    assert area(scores, true)[0] == pytest.approx(pairs_in_order(scores, true))
    weights = scores.exp().double()
    assert weighted_share(weights, true)[0] == pytest.approx((weights[true].sum() / weights.sum()).item())
    for scores, value in ((true.float(), 1.0), (1 - true.float(), 0.0), (torch.zeros(300), 0.5)):
        middle, low, high = area(scores, true)
        assert middle == pytest.approx(value)
        assert high - low > 0.04  # not of no width, though all placements are equal


@pytest.mark.parametrize("positives", [3, 14])
@pytest.mark.parametrize("distance", [0.0, 1.0, 2.3])
def test_the_interval_of_auc_holds_the_truth_also_with_few_positives(positives, distance):
    random = torch.Generator().manual_seed(0)
    truth, true = torch.special.ndtr(torch.tensor(distance / 2**0.5)).item(), torch.arange(300) < positives
    ends = torch.tensor([area(torch.randn(300, generator=random) + distance * true, true) for _ in range(400)])
    assert (ends[:, 1] > truth).float().mean() < 0.05
    assert (ends[:, 2] < truth).float().mean() < 0.06
    assert ((ends[:, 1] > 0.55).float().mean() < 0.02) == (distance == 0)


@pytest.mark.parametrize("prevalence", [0.05, 0.3])
@pytest.mark.parametrize("distance", [0.0, 1.0, 3.0])
def test_the_interval_of_precision_holds_the_truth(prevalence, distance):
    random = torch.Generator().manual_seed(0)

    def sample(count):
        true = torch.rand(count, generator=random) < prevalence
        shift = torch.randn(count, generator=random).double() + distance * true
        return (torch.logit(torch.tensor(prevalence)) + distance * shift - distance**2 / 2).sigmoid(), true

    weights, true = sample(1_000_000)
    truth = (weights[true].sum() / weights.sum()).item()
    ends = torch.tensor([weighted_share(*sample(500)) for _ in range(400)])
    assert (ends[:, 1] > truth).float().mean() < 0.06
    assert (ends[:, 2] < truth).float().mean() < 0.06


def test_rank_correlation():
    random = torch.Generator().manual_seed(0)
    numbers = torch.randn(200, generator=random)
    labels = numbers + torch.randn(200, generator=random)
    value, low, high = correlated(numbers, labels)
    assert correlated(numbers.exp(), labels) == pytest.approx((value, low, high))  # only the order counts
    assert low < 6 / torch.pi * torch.asin(torch.tensor(0.5**1.5)) < high
    assert correlated(torch.arange(5.0), torch.arange(5.0))[1:] == pytest.approx((0.16, 1.0), abs=0.05)
    assert correlated(torch.arange(3.0), torch.arange(3.0)) is None
    assert correlated(torch.zeros(9), torch.arange(9.0)) is None


def test_how_well_the_heads_rank():
    report = measured(*calibrated())
    predictions, labels = calibrated()
    yes = report["smile"].ranking["yes"]
    rows = ~labels["smile"].isnan()
    p, true = predictions["smile"].logit[rows].sigmoid(), labels["smile"][rows] == 1
    assert list(report["smile"].ranking) == ["yes"]
    assert list(report["hair"].ranking) == ["black", "brown", "red"]
    assert yes.prevalence == pytest.approx(true.float().mean().item())
    assert yes.precision[0] == pytest.approx((p[true].sum() / p.sum()).item(), abs=1e-5)
    assert yes.lift[0] == pytest.approx(yes.precision[0] / yes.prevalence)
    assert yes.auc[1] < pairs_in_order(p[:2000], true[:2000]) < yes.auc[2] + 0.02
    assert report["age"].ranking == {}
    assert report["age"].correlation[0] == pytest.approx(0.88, abs=0.02)


def test_a_rare_attribute_is_not_weak_if_its_head_ranks_well():
    true = torch.arange(640) % 46 == 0  # 14 of 640
    random = torch.Generator().manual_seed(1)
    logit = 2.3 * (torch.randn(640, generator=random) + 2.3 * true) - 11  # never above 0 for most of them
    spec = {"rare": AttributeSpec("rare", "yes/no")}
    report = measured({"rare": YesNo(logit)}, {"rare": true.float()}, spec)["rare"]
    assert report.recall["yes"][0] < 0.1
    assert report.ranking["yes"].auc[0] > 0.9
    assert report.ranking["yes"].lift[1] > 5
    assert report.weak is None
    assert dataclasses.replace(report, ranking={}).weak  # by balanced accuracy
    chance = measured({"rare": YesNo(torch.randn(640, generator=random))}, {"rare": true.float()}, spec)["rare"]
    assert "is not clearly above chance, 0.50" in chance.weak


def test_values_without_probabilities_have_no_ranking():
    predictions, labels = calibrated()
    values = {name: predictions[name].number().float() for name in ("smile", "age")}
    report = measured(values, labels)
    assert report["smile"].ranking == {}
    assert report["age"].correlation == measured(predictions, labels)["age"].correlation


def test_overconfidence_shows():
    predictions, labels = calibrated()
    sure = {"smile": YesNo(4 * predictions["smile"].logit), "age": Continuous(predictions["age"].mean, 0.1)}
    report = measured(sure, labels)
    assert report["smile"].calibration_error > 0.08
    assert report["age"].calibration_error > 0.1


def test_the_picture():
    picture = draw_report(measured(*calibrated()), "Heads")
    assert picture.width > 2 * CARD[0]
    assert picture.height > 2 * CARD[1]
    assert len(picture.getcolors(1 << 20)) > 50
    assert picture.tobytes() == draw_report(measured(*calibrated()), "Heads").tobytes()


def test_many_classes_and_a_label_of_one_kind():
    spec = AttributeSpec("x", "categorical", values=tuple(f"class {i}" for i in range(15)))
    predictions = {"x": Categorical(torch.randn(30, 15), spec.values), "age": Continuous(torch.zeros(30), 1.0)}
    labels = {"x": torch.zeros(30), "age": torch.zeros(30)}
    report = measured(predictions, labels, {"x": spec, "age": SPECS["age"]})
    assert report["age"].score is None
    assert report["x"].weak == "no label of 'class 1' was held out"
    assert draw_report(report).size == draw_report({name: report[name] for name in ("age", "x")}).size
