import math

import numpy as np
import pytest

from energyql.errors import ArgumentError, Contradiction, DataError, EnergyQLError, KindError, UnknownAttribute
from energyql.language import And, Attribute, Not
from energyql.pipeline.score import score
from energyql.vocabulary import AttributeSpec, Vocabulary

TABLE = {
    "smile": [0.9, 0.5, 0.0, 1.0],
    "hat": np.array([0.2, 0.5, 0.0, 1.0]),
    "hair": {"red": [0.1, 0.2, 0.0, 1.0], "gray": [0.3, 0.2, 1.0, 0.0], "dark brown": [0.6, 0.6, 0.0, 0.0]},
    "age": ([0.5, 0.7, 0.9, 0.1], 0.1),
}


def test_text_and_trees():
    expected = [-math.log(0.9 * 0.8), -math.log(0.25), math.inf, math.inf]
    assert score("smile AND NOT hat", TABLE) == pytest.approx(expected)
    assert score(And((Attribute("smile"), Not(Attribute("hat")))), TABLE) == pytest.approx(expected)


def test_certainty_is_exact():
    energy = score("smile", {"smile": [0.0, 1.0]})
    assert energy.tolist() == [math.inf, 0.0]
    assert not np.signbit(energy).any()
    assert score("hair = red OR hat", TABLE).tolist()[2:] == [math.inf, 0.0]
    assert score("NOT (2 * (smile OR hat))", TABLE).tolist()[2:] == [0.0, math.inf]


def test_an_or_counts_once():
    assert score("smile OR hat", TABLE)[:2] == pytest.approx([-math.log(1 - 0.1 * 0.8), -math.log(0.75)])


def test_categorical_and_continuous():
    assert score('hair IN {red, "dark brown"}', TABLE)[:3] == pytest.approx([-math.log(0.7), -math.log(0.8), math.inf])
    assert score("age > 0.5", TABLE)[0] == pytest.approx(math.log(2))
    assert score("age > -1e6 AND smile", TABLE) == pytest.approx(score("smile", TABLE))
    wide = score("400 < age < 500", {"age": (450.0, 50.0)})
    assert wide == pytest.approx([-math.log(0.682689492137)])


def test_a_table_of_numbers_is_one_row():
    energy = score("smile AND hat", {"smile": 0.5, "hat": 0.25})
    assert energy.shape == (1,)
    assert energy.dtype == np.float64
    assert energy == pytest.approx([math.log(8)])
    assert score("smile AND hat", {"smile": 0.5, "hat": [0.25, 0.5]}) == pytest.approx([math.log(8), math.log(4)])


def test_an_empty_table():
    assert score("smile", {"smile": []}).shape == (0,)


def test_product_and_lace_values():
    assert score("smile OR hat", TABLE, "product")[1] == pytest.approx(0.0)
    assert score("smile OR hat", TABLE, "lace")[1] == pytest.approx(-math.log(10.5))


@pytest.mark.parametrize(
    ("table", "message"),
    [
        ({"smile": [0.1, 1.5]}, "smile is 1.5 in row 1; it must be a probability from 0 to 1"),
        (
            {"smile": [0.1, math.nan, math.nan]},
            r"smile is nan in row 1 \(and 1 more rows\); it must be a finite number",
        ),
        ({"smile": -0.5}, "smile is -0.5 in row 0"),
        ({"smile": [0.1], "hat": [0.1, 0.2]}, r"different lengths \(smile: 1, hat: 2\)"),
        ({"smile": [[0.1]]}, r"smile has shape \(1, 1\)"),
        ({"smile": ["yes"]}, "smile is not an array of numbers"),
        (
            {"smile": 0.1, "hair": {"red": [0.5, 0.5], "gray": [0.5, 0.4]}},
            "sum of the probabilities of hair is 0.9 in row 1",
        ),
        ({"smile": 0.1, "hair": {"red": [0.5, 0.5], "gray": [0.5]}}, "different lengths"),
        ({"smile": 0.1, "age": ([0.5, 0.6], [0.1, 0.0])}, "std of age is 0 in row 1; it must be above 0"),
        ({"smile": 0.1, "age": (0.5, 0.1, 0.2)}, "tuple of 3"),
    ],
)
def test_wrong_data_is_named(table, message):
    with pytest.raises(DataError, match=message):
        score("smile", table)


def test_nearly_one_is_scaled_to_one():
    assert score("hair = red", {"hair": {"red": 0.5, "gray": 0.4995}}) == pytest.approx([-math.log(0.5 / 0.9995)])


def test_wrong_forms_of_predictions_are_explained():
    with pytest.raises(KindError, match=r"age is yes or no(.|\n)*predictions: .* a tuple \(mean, std\) is"):
        score("age > 0.5", {"age": [0.4]})
    with pytest.raises(UnknownAttribute, match="no predictions of 'smile'(.|\n)*attributes: none"):
        score("smile", {})


def test_wrong_queries():
    with pytest.raises(UnknownAttribute, match="'glasses'"):
        score("smile AND glasses", TABLE)
    with pytest.raises(KindError):
        score("hair", TABLE)
    with pytest.raises(Contradiction, match="smile and NOT smile"):
        score("smile AND NOT smile", TABLE)
    with pytest.raises(ArgumentError, match="no semantics"):
        score("smile", TABLE, "fuzzy")
    with pytest.raises(EnergyQLError):
        score("smile AND", TABLE)


class TestVocabulary:
    """What a model knows of the attributes and a table does not say."""

    KNOWN = Vocabulary(
        [
            AttributeSpec("smile", "yes/no"),
            AttributeSpec("hat", "yes/no"),
            AttributeSpec("hair", "categorical", values=("gray", "dark brown", "red")),
            AttributeSpec("age", "continuous", low=0.0, high=1.0, tolerance=0.2),
            AttributeSpec("more", "yes/no"),
        ]
    )

    def test_ranges_and_tolerances(self):
        assert score("age IN [0, 0.5]", TABLE, vocabulary=self.KNOWN) == pytest.approx(score("age < 0.5", TABLE))
        assert score("age IN [0, 0.5]", TABLE)[3] > score("age < 0.5", TABLE)[3]
        assert score("age = 0.5", TABLE, vocabulary=self.KNOWN) == pytest.approx(score("age = 0.5 +- 0.2", TABLE))

    def test_classes_in_another_order(self):
        for query in ("hair = red", 'hair != "dark brown" AND smile'):
            assert score(query, TABLE, vocabulary=self.KNOWN) == pytest.approx(score(query, TABLE))

    @pytest.mark.parametrize(
        ("name", "data", "message"),
        [
            ("beard", [0.5], "the vocabulary has no attribute 'beard'"),
            ("smile", ([0.5], 0.1), "attribute 'smile' is continuous, and should be yes/no"),
            ("hair", {"red": 0.4, "gray": 0.6}, "'hair' is red, gray, and should be gray, dark brown, red"),
        ],
    )
    def test_data_that_do_not_fit(self, name, data, message):
        with pytest.raises(DataError, match=message):
            score("smile", {name: data}, vocabulary=self.KNOWN)

    def test_only_what_the_data_hold_can_be_asked(self):
        with pytest.raises(UnknownAttribute, match="there are no predictions of 'more'"):
            score("more", TABLE, vocabulary=self.KNOWN)
