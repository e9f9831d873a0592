import json
import math
from dataclasses import replace

import numpy as np
import pytest
from toys import VOCABULARY, random_heads

from energyql.attributes.heads import AttributeBank
from energyql.attributes.quality import (
    REPORT,
    HeadReport,
    Ranking,
    balanced,
    explained,
    lacking_labels,
    read_reports,
    verdict_on,
    wilson,
)
from energyql.errors import ModelError

BELOW = "is not clearly above chance, 0.50"
GOOD = HeadReport(
    "yes/no",
    320,
    80,
    {"no": 300, "yes": 100},
    0.8,
    (0.7, 0.87),
    {"no": (0.9, 0.8, 0.95), "yes": (0.7, 0.5, 0.85)},
    0.04,
)
AGE = HeadReport("continuous", 320, 80, {}, 0.4, (0.2, 0.6), {}, 0.1, {"error": 0.2}, correlation=(0.6, 0.5, 0.7))
RARE = Ranking((0.95, 0.84, 0.99), (0.62, 0.41, 0.79), 0.022)
RANKED = replace(GOOD, score=0.5, interval=(0.48, 0.6), ranking={"yes": RARE})
"""A head of a rare attribute, which never predicts yes as likelier than no, and ranks well."""


@pytest.mark.parametrize(
    ("successes", "trials", "low", "high"),
    [(10, 20, 0.2993, 0.7007), (0, 10, 0.0, 0.2775), (10, 10, 0.7225, 1.0), (81, 263, 0.2553, 0.3662)],
)
def test_wilson(successes, trials, low, high):
    assert wilson(successes, trials) == pytest.approx((low, high), abs=1e-4)


def test_the_interval_of_balanced_accuracy():
    score, (low, high) = balanced([[8, 2], [5, 5]])
    (low_no, _), (_, high_yes) = wilson(8, 10), wilson(5, 10)
    assert score == pytest.approx(0.65)
    assert low == pytest.approx(0.65 - math.hypot(0.8 - low_no, 0.5 - wilson(5, 10)[0]) / 2)
    assert high == pytest.approx(0.65 + math.hypot(wilson(8, 10)[1] - 0.8, high_yes - 0.5) / 2)


def covered(count, measure, truth):
    """Share of `count` intervals that hold the truth."""
    inside = 0
    for seed in range(count):
        _, (low, high) = measure(np.random.default_rng(seed))
        inside += low <= truth <= high
    return inside / count


def test_intervals_hold_the_truth_as_often_as_they_say():
    def counts(random):
        hits = random.binomial(30, 0.7), random.binomial(15, 0.9)
        return balanced([[int(hits[0]), 30 - int(hits[0])], [15 - int(hits[1]), int(hits[1])]])

    def numbers(random):
        labels = random.normal(size=80)
        return explained((0.8 * random.normal(size=80)).tolist(), labels.tolist())

    assert 0.92 < covered(2000, counts, 0.8) < 0.98
    assert 0.91 < covered(1000, numbers, 1 - 0.64) < 0.98


def test_r2():
    assert explained([0.0, 0.0, 0.0], [1.0, 2.0, 4.0]) == (1.0, (1.0, 1.0))
    assert explained([-1.0, 0.0, 1.0], [-1.0, 0.0, 1.0])[0] == 0  # the head says the mean
    assert explained([1.0, 1.0], [1.0, 2.0]) is None
    assert explained([0.0, 1.0, 2.0], [1.0, 1.0, 1.0]) is None


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        ({}, None),
        (
            {"interval": (0.5, 0.87)},
            f"balanced accuracy 0.80 (0.50 to 0.87) {BELOW}",
        ),
        ({"recall": {"no": (0.9, 0.8, 1.0), "yes": (0.05, 0, 0.2)}}, "it recognises only 5 % of 'yes'"),
        ({"score": None, "interval": None, "recall": {"no": (1.0, 0.9, 1.0)}}, "no label of 'yes' was held out"),
        ({"held_out": 0, "score": None, "interval": None, "recall": {}}, "its quality is unknown"),
        ({"kind": "categorical", "labels": dict.fromkeys("abcd", 9), "interval": (0.31, 0.87)}, None),
        ({"kind": "continuous", "labels": {}, "recall": {}, "interval": (0.01, 0.9)}, None),
        ({"kind": "continuous", "labels": {}, "recall": {}, "interval": (0.0, 0.9)}, "R2 0.80 (0.00 to 0.90) is not"),
    ],
)
def test_what_is_weak(change, reason):
    weak = replace(GOOD, **change).weak
    assert weak == reason or (reason and weak.startswith(reason))


@pytest.mark.parametrize(
    ("aucs", "reason"),
    [
        ([(0.95, 0.84, 0.99)], None),
        ([(0.75, 0.501, 0.99)], None),
        ([(0.75, 0.5, 0.99)], f"AUC 0.75 (0.50 to 0.99) {BELOW}"),
        ([(0.9, 0.8, 1.0), (0.8, 0.4, 0.9), (0.7, 0.5, 0.9)], None),
        ([(0.9, 0.85, 1.0), (0.55, 0.3, 0.7)], "for 'b', AUC 0.55 (0.30 to 0.70) is hardly above chance, 0.50"),
        ([(0.9, 0.85, 1.0), (0.55, 0.51, 0.6)], None),
        (
            [(0.9, 0.6, 1.0), (0.8, 0.38, 0.9)],
            f"mean AUC 0.85 (0.49 to 0.95) {BELOW}",
        ),
    ],
)
def test_weak_is_what_ranks_badly(aucs, reason):
    ranking = {name: replace(RARE, auc=auc) for name, auc in zip("abc", aucs, strict=False)}
    recall = {"no": (1.0, 0.99, 1.0), "yes": (0.0, 0.0, 0.2)}
    assert replace(RANKED, recall=recall, ranking=ranking).weak == reason


FEW_YES = replace(RANKED, labels={"no": 286, "yes": 14})


def ranked(auc, report=FEW_YES):
    return replace(report, ranking={"yes": replace(RARE, auc=auc)})


@pytest.mark.parametrize(
    ("report", "lacking"),
    [
        (GOOD, None),
        (ranked((0.75, 0.49, 0.89)), (10, "yes")),  # nearly enough: twice the 14
        (ranked((0.75, 0.32, 0.89)), (30, "yes")),  # (0.43 / 0.25)^2 times the 14
        (ranked((0.55, 0.28, 0.8)), (90, "yes")),  # at 0.6, (0.27 / 0.1)^2 times
        (ranked((0.5, 0.1, 0.9)), (100, "yes")),  # at most ten times
        (replace(ranked((0.55, 0.28, 0.8)), labels={"no": 3, "yes": 297}), (20, "no")),
        (replace(GOOD, score=0.6, interval=(0.5, 0.7)), (100, "yes")),
        (replace(GOOD, recall={"no": (0.05, 0.04, 0.06), "yes": (1.0, 0.9, 1.0)}), (300, "no")),
        (replace(GOOD, score=None, recall={"no": (1.0, 0.9, 1.0)}, labels={"no": 9, "yes": 3}), (20, "yes")),
        (replace(AGE, score=0.1, interval=(-0.1, 0.3)), (1_000, "")),  # four times the 400, so 1,200 more
        (replace(AGE, score=-9.0, interval=(-99.0, 0.4)), (4_000, "")),
    ],
)  # fmt: skip
def test_how_many_labels_are_lacking(report, lacking):
    assert lacking_labels(report) == lacking


def test_more_labels_of_the_rarer_answer_lack_until_they_suffice():
    """An interval that shrinks as 1 / sqrt(labels) is above its bound with the labels that are asked for."""
    for count, auc, width in ((20, 0.75, 0.3), (50, 0.72, 0.26), (40, 0.7, 0.22)):
        report = ranked((auc, auc - width, 0.99), replace(FEW_YES, labels={"no": 1_000, "yes": count}))
        more, _ = lacking_labels(report)
        shrunk = width * math.sqrt(count / (count + more))
        assert ranked((auc, auc - shrunk + 0.02, 0.99)).weak is None  # to the one digit


def test_verdicts():
    few, number = ranked((0.55, 0.28, 0.8)), replace(AGE, score=0.1, interval=(-0.1, 0.3))
    assert [verdict_on(GOOD, verified) for verified in (False, True)] == ["ready", "ready"]
    assert (verdict_on(few, False), verdict_on(few, True)) == (
        "needs about 90 more labels of yes",
        "works where pictures are verified",
    )
    assert verdict_on(number, False) == "needs about 1,000 more labels"


def test_reports_as_text():
    line = "AUC 0.95 (0.84 to 0.99), lift 28 (19 to 36)"
    assert (str(RARE), str(RANKED)) == (line, "balanced accuracy 0.50 (0.48 to 0.60)")
    assert repr(RANKED) == f"{RANKED}; yes: {line}, precision 0.62 (0.41 to 0.79), prevalence 0.022"
    assert RANKED.ranking_text == line
    assert repr(AGE) == "R2 0.40 (0.20 to 0.60); rank correlation 0.60 (0.50 to 0.70)"
    assert (AGE.ranking_text, GOOD.ranking_text) == ("rank correlation 0.60 (0.50 to 0.70)", "")
    several = replace(RANKED, ranking={"a": RARE, "b": replace(RARE, auc=(0.75, 0.64, 0.89))})
    assert several.ranking_text == "mean AUC 0.85 (0.74 to 0.94)"


@pytest.fixture
def folder(tmp_path):
    AttributeBank(VOCABULARY, random_heads(VOCABULARY, 4), reports={"smile": RANKED, "age": AGE, "no": GOOD}).save(
        tmp_path
    )
    return tmp_path


class TestFiles:
    def test_reports_come_back(self, folder):
        assert read_reports(folder) == AttributeBank.load(folder).reports == {"smile": RANKED, "age": AGE}
        entry = json.loads((folder / REPORT).read_text())["attributes"]["smile"]
        assert (entry["measure"], entry["weak"]) == ("balanced accuracy", None)

    def test_reports_without_ranking_keep_their_rule(self, folder):
        data = json.loads((folder / REPORT).read_text())
        for entry in data["attributes"].values():
            entry.update(ranking={}, correlation=None)
        (folder / REPORT).write_text(json.dumps(data))
        reports = read_reports(folder)
        assert reports == {"smile": replace(RANKED, ranking={}), "age": replace(AGE, correlation=None)}
        assert reports["smile"].weak == f"balanced accuracy 0.50 (0.48 to 0.60) {BELOW}"
        assert (RANKED.weak, reports["age"].weak) == (None, None)

    def test_reports_of_other_heads_count_as_missing(self, folder):
        report = (folder / REPORT).read_bytes()
        bank = AttributeBank.load(folder)
        AttributeBank(VOCABULARY, random_heads(VOCABULARY, 4, seed=1)).save(folder)
        assert not (folder / REPORT).exists()
        (folder / REPORT).write_bytes(report)
        assert AttributeBank.load(folder).reports == {}
        bank.save(folder)
        assert AttributeBank.load(folder).reports == bank.reports

    def test_reports_of_earlier_versions_count_as_missing(self, folder):
        (folder / REPORT).write_text(json.dumps({"energyql": "0.1.0", "attributes": {"smile": {"accuracy": 0.9}}}))
        assert AttributeBank.load(folder).reports == {}

    @pytest.mark.parametrize(
        ("change", "message"),
        [
            ({"interval": [0.1]}, "report.json"),
            ({"interval": ["low", "high"]}, "could not convert"),
            ({"kind": "maybe"}, "there is no kind 'maybe'"),
            ({"labels": {}}, "at least two classes"),
            ({"recall": {"yes": 1}}, "report.json"),
            ({"ranking": {"yes": {"auc": [0.9, 0.8, 1.0], "precision": [0.5]}}}, "'prevalence' is missing"),
            ({"ranking": {"yes": {"auc": [0.9], "precision": [], "prevalence": 0.1}}}, "report.json"),
            ({"ranking": {"yes": {"auc": [0.9] * 3, "precision": [1] * 3, "prevalence": 0}}}, "between 0 and 1, not 0"),
            ({"ranking": ["yes"]}, "report.json"),
            ({"correlation": [0.5]}, "report.json"),
            ({"score": None}, None),
        ],
    )
    def test_damaged_files(self, folder, change, message):
        data = json.loads((folder / REPORT).read_text())
        data["attributes"]["smile"].update(change)
        if message is None:
            del data["attributes"]["smile"]["fitted"]
            message = "'fitted' is missing"
        (folder / REPORT).write_text(json.dumps(data))
        with pytest.raises(ModelError, match=message):
            AttributeBank.load(folder)
        data["attributes"] = []
        (folder / REPORT).write_text(json.dumps(data))
        with pytest.raises(ModelError, match=r"report\.json"):
            read_reports(folder)

    def test_they_go_with_the_heads(self, folder):
        bank = AttributeBank.load(folder)
        assert bank.to("meta").reports == bank.reports
        specs = VOCABULARY["age"], VOCABULARY["hair"]
        other = AttributeBank(type(VOCABULARY)(specs), random_heads(type(VOCABULARY)(specs), 4), reports={"hair": GOOD})
        assert bank.with_heads(other, replace=True).reports == {"smile": RANKED, "hair": GOOD}
