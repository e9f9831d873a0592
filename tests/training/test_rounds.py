"""Tables that say how their pictures were drawn and chosen, and what a round of labels gains."""

import pytest
import torch
from brief import SHORT
from labelled import CHECKPOINTS, answers, latents_of, write_csv

from energyql import sample_pictures
from energyql.attributes.bank import FittedUnder
from energyql.attributes.heads import AttributeBank, Head
from energyql.attributes.predictions import Categorical, Continuous, YesNo
from energyql.attributes.quality import HeadReport
from energyql.errors import ArgumentError, DataError, VocabularyError
from energyql.generators.load import load_generator
from energyql.labelling.sheet import LabelSheet
from energyql.pipeline.model import load_model
from energyql.training.labels import (
    TEST_SHARE,
    Drawn,
    attribute_text,
    held_out_order,
    parse_attributes,
    read_label_table,
)
from energyql.training.report import _gain, describe_gain, with_gains
from energyql.training.run import train_attributes
from energyql.training.samples import Prior
from energyql.training.settings import POOL_START
from energyql.vocabulary import AttributeSpec, Vocabulary

pytestmark = pytest.mark.filterwarnings("ignore:there are few labels")
ADA = CHECKPOINTS / "ada.pkl"
DRAWN = Drawn(7, 0.6, "0123456789ab")


class TestDrawn:
    @pytest.mark.parametrize("condition", [None, 3, (0.5, 0.25, 0.25)])
    def test_text(self, condition):
        drawn = Drawn(2**40, 0.1 + 0.2, "", condition)
        assert Drawn.parse(str(drawn), "a.csv") == drawn

    @pytest.mark.parametrize("text", ["", "seed=1", "seed=x truncation=1 generator=", "what is this"])
    def test_other_texts(self, text):
        with pytest.raises(DataError, match=r"a\.csv: .* does not say how the pictures were drawn"):
            Drawn.parse(text, "a.csv")

    def test_conflicts(self):
        DRAWN.check("a.csv", seed=7, truncation=0.6, condition=None)
        for given in ({"seed": 8}, {"truncation": 0.7}, {"truncation": (0.5, 0.6)}, {"condition": 1}):
            (name,) = given
            with pytest.raises(ArgumentError, match=f"a.csv is about pictures of {name} .*\nleave out the {name}"):
                DRAWN.check("a.csv", **{"seed": None, "truncation": None, "condition": None, **given})


class TestAttributes:
    def test_text(self):
        text = "glasses, hair = black | dark red, age=0..1, tilt=-20..20.5, tiny=1e-3..2E-2"
        specs = parse_attributes(text)
        assert [spec.kind for spec in specs.values()] == ["yes/no", "categorical", *3 * ["continuous"]]
        assert specs["hair"].values == ("black", "dark red")
        assert (specs["tilt"].low, specs["tilt"].high, specs["tiny"].low) == (-20, 20.5, 0.001)
        assert parse_attributes(",".join(map(attribute_text, specs.values()))) == specs
        assert attribute_text(specs["age"]) == "age=0..1"

    @pytest.mark.parametrize(
        ("text", "message"),
        [
            (" , ", "there are no attributes"),
            ("hair=black", "'hair=black' is not an attribute\nwrite hair for yes/no, hair=black|brown for classes"),
            ("age=1..0", "low must be below high"),
            ("age=a..b", "is not an attribute"),
            ("age=-..1", "is not an attribute"),
            ("hair=black|", "a value must not be empty"),
            ("hat, hat", "defined twice"),
            ("index", "cannot be called 'index'"),
            ("=a|b", "the name of an attribute"),
        ],
    )
    def test_mistakes(self, text, message):
        with pytest.raises(VocabularyError) as caught:
            parse_attributes(text)
        assert message in str(caught.value)


class TestHeldOut:
    def test_the_same_pictures_are_kept_in_every_round(self):
        index = torch.arange(400)
        order, learned, test = held_out_order(index, ["random"] * 400, 7, "a.csv")
        kept = set(order[-test:])
        assert learned == 0
        assert test / 400 == pytest.approx(TEST_SHARE, abs=0.05)
        more = torch.cat([POOL_START + torch.arange(30), index.flip(0)])
        order, learned, again = held_out_order(more, ["unsure"] * 30 + ["random"] * 400, 7, "a.csv")
        assert (learned, again) == (30, test)
        assert {int(more[row]) for row in order[-test:]} == kept
        assert all(more[row] >= POOL_START for row in order[:30])
        assert sorted(order) == list(range(430))
        assert held_out_order(index, ["random"] * 400, 8, "a.csv")[0][-test:] != order[-test:]

    def test_other_words(self):
        with pytest.raises(DataError, match=r"a\.csv, row 2: 'chosen' is 'maybe', not random or unsure"):
            held_out_order(torch.arange(2), ["random", "maybe"], 7, "a.csv")


class TestTables:
    def table(self, path, **columns):
        count = len(next(iter(columns.values())))
        return write_csv(path, {"index": range(count), "drawn": [str(DRAWN)] * count, **columns})

    def test_headers_are_attributes(self, tmp_path):
        path = self.table(
            tmp_path / "a.csv", chosen=["random"] * 3, **{"hair=1|2": [1, 2, ""], "hat": ["yes", "", "no"]}
        )
        table = read_label_table(path)
        assert (table.drawn, table.pool) == (DRAWN, tmp_path / ".pool")
        assert sorted(table.columns) == ["hair", "hat"]
        assert table.vocabulary["hair"].values == ("1", "2")
        assert read_label_table(self.table(path, hat=["yes"])).test is None

    def test_damage(self, tmp_path):
        path = self.table(tmp_path / "a.csv", hat=["yes", "no"])
        path.write_text(path.read_text().replace("seed=7", "seed=8", 1))
        with pytest.raises(DataError, match="drawn in different ways: 'seed=7 .*' and 'seed=8 "):
            read_label_table(path)
        torch.save({}, tmp_path / "x.npy")
        with pytest.raises(DataError):
            read_label_table(self.table(path, hat=["yes"]), tmp_path / "x.npy")

    def test_without_the_column_nothing_is_special(self, tmp_path):
        table = read_label_table(
            write_csv(tmp_path / "a.csv", {"index": [0, 1], "chosen": ["random", "unsure"], "a=b": [1, 2]})
        )
        assert list(table.columns) == ["chosen", "a=b"]


def label(folder, path):
    """Labels by a person who sees w, added to those that are there."""
    sheet = LabelSheet.open(path, folder, None if path.exists() else "glasses, hair=0|1|2|3|4, age=0..1")
    generator = load_generator(ADA)
    centre = latents_of(generator, 500, folder.drawn.truncation)
    prior = Prior(generator, folder.drawn.seed, FittedUnder("w", 2 * (folder.drawn.truncation,)), torch.device("cpu"))
    w = prior.w(torch.tensor(folder.indices))
    found = answers(torch.cat([centre, w]))
    cells = {
        index: {"glasses": int(found["glasses"][i]), "hair": int(found["haircolor"][i]), "age": float(found["age"][i])}
        for i, index in enumerate(folder.indices, len(centre))
    }
    known = sheet.rows()
    sheet.update({index: row for index, row in cells.items() if index not in known})
    return path


@pytest.mark.slow
def test_rounds_and_their_gain(tmp_path):
    pictures, table, model = tmp_path / "p", tmp_path / "p" / "labels.csv", tmp_path / "m"
    label(sample_pictures(ADA, pictures, 60, seed=7, truncation=0.6), table)
    first = train_attributes(ADA, table, model, n=0, settings=SHORT, progress=False)
    assert load_model(model).bank.truncation == (0.6, 0.6)
    assert "round" not in first.report["glasses"].details
    held_out = first.report["glasses"].held_out

    label(sample_pictures(model, pictures, 20, unsure=True, pool=100), table)
    second = train_attributes(model, table, n=0, replace=True, settings=SHORT, progress=False)
    for name, report in second.report.items():
        found = report.details["round"]
        assert (found["labels"], found["labels_before"], found["samples"]) == (80, 60, held_out)
        assert found["gain"] == pytest.approx(found["now"] - found["before"], abs=1e-5)
        assert found["low"] < found["gain"] < found["high"]
        for each, score in ((first.report[name], found["before"]), (report, found["now"])):
            if each.score is not None:
                assert score == pytest.approx(each.score, abs=1e-5)
    assert second.report["age"].score is not None

    with pytest.raises(ArgumentError, match="pictures of seed 7, not 8"):
        train_attributes(model, table, replace=True, seed=8, progress=False)
    with pytest.raises(ArgumentError, match=r"pictures of truncation 0\.6, not \(0\.5, 0\.6\)"):
        train_attributes(model, table, replace=True, truncation=(0.5, 0.6), progress=False)
    with pytest.raises(DataError, match="pictures of another generator"):
        train_attributes(CHECKPOINTS / "rosinality.pt", table, tmp_path / "other", progress=False)
    assert not (tmp_path / "other").exists()
    lines = table.read_text().splitlines(keepends=True)
    table.write_text("".join([lines[0], *lines[-20:]]))
    with pytest.raises(DataError, match="too few random pictures to measure heads on"):
        train_attributes(model, table, replace=True, progress=False)


class TestGains:
    labels = torch.tensor([1.0, 1, 1, 1, 0, 0, 0, 0])

    def test_classes(self):
        sure = 10 * (2 * self.labels - 1)
        before, now = sure.clone(), sure.clone()
        before[:2] *= -1  # recall 1/2 of yes
        now[-1] *= -1  # recall 3/4 of no
        found = _gain(YesNo(before), YesNo(now), self.labels)
        assert (found["before"], found["now"], found["gain"]) == (0.75, 0.875, 0.125)
        assert found["low"] < 0 < found["high"]
        pair = (Categorical(torch.stack([-x, x], 1), ("no", "yes")) for x in (before, now))
        assert _gain(*pair, self.labels) == found

    def test_numbers(self):
        labels = torch.linspace(0, 1, 11)
        nothing = Continuous(torch.full((11,), 0.5), torch.tensor(1.0))
        found = _gain(nothing, Continuous(labels, torch.tensor(1.0)), labels)
        assert found["before"] == pytest.approx(0, abs=1e-6)
        assert (found["measure"], found["now"], found["gain"]) == ("R2", 1, pytest.approx(1))

    def test_the_interval_covers_the_gain(self):
        """Of simulated rounds with a known gain, about 95 in 100 intervals hold it."""
        random, covered = torch.Generator().manual_seed(0), 0
        labels = (torch.rand(80, generator=random) < 0.25).float()
        for _ in range(300):
            right = [torch.rand(80, generator=random) < share for share in (0.7, 0.8)]
            before, now = (YesNo(torch.where(x, 1.0, -1.0) * (2 * labels - 1)) for x in right)
            found = _gain(before, now, labels)
            covered += found["low"] <= 0.1 <= found["high"]
        assert 0.92 <= covered / 300 <= 0.99

    def test_heads_of_other_trainings_are_not_compared(self):
        specs = Vocabulary([AttributeSpec("hat", "yes/no")])
        zeros = torch.zeros
        bank = AttributeBank(specs, {"hat": Head(zeros(1, 2), zeros(1), zeros(1, 1), zeros(1, 2), zeros(1), zeros(()))})
        report = HeadReport("yes/no", 4, 1, {"no": 2, "yes": 3}, 0.5, (0.4, 0.6), {}, None, {"drawn": str(DRAWN)})
        reported, latents = bank.with_reports({"hat": report}), torch.randn(8, 2)

        def compared(old, drawn=DRAWN):
            found = with_gains({"hat": report}, old, bank, latents, {"hat": self.labels}, drawn)["hat"].details
            assert found["drawn"] == str(drawn)
            return found.get("round")

        assert compared(reported)["labels_before"] == 5
        assert "with 5 labels, 50.0 with 5: +0.0 points" in describe_gain(compared(reported))
        assert compared(bank) is compared(None) is compared(reported, Drawn(8, 0.6, "0123456789ab")) is None
        other = AttributeBank(Vocabulary([AttributeSpec("hat", "continuous")]), bank.heads, reports={"hat": report})
        assert compared(other) is None
