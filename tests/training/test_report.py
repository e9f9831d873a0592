import pytest
import torch

from energyql.attributes.predictions import Categorical, Continuous, YesNo
from energyql.attributes.quality import HeadReport
from energyql.training.report import CARD, draw_report, report_quality
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
