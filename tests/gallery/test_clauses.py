import pytest
from toys import VOCABULARY

from energyql import generate, parse
from energyql.gallery.words import ALL, MOST_CLAUSES, probability, score_clauses, split_clauses
from energyql.language import bind


@pytest.mark.parametrize(
    ("query", "joined", "expected"),
    [
        ("smile AND NOT (glasses OR beard)", ALL, ["smile", "NOT glasses", "NOT beard"]),
        ("2 * smile AND 0.5 * (beard OR glasses)", ALL, ["2 * smile", "0.5 * (beard OR glasses)"]),
        ("NONE OF (smile, beard)", ALL, ["NOT smile", "NOT beard"]),
        ("smile OR beard", "at least one must hold", ["smile", "beard"]),
        ("3 * (smile OR beard)", "at least one must hold", ["smile", "beard"]),
        ("smile XOR beard", "its parts", ["smile", "beard"]),
        ("AT LEAST 2 OF (smile, beard, glasses)", "its parts", ["smile", "beard", "glasses"]),
        ("smile -> beard", "its parts", ["smile", "beard"]),
        ("smile", "", ["smile"]),
        ("NOT (smile AND beard)", "", ["NOT (smile AND beard)"]),
        ("TRUE", "", ["TRUE"]),
    ],
)
def test_parts(query, joined, expected):
    how, parts = split_clauses(parse(query))
    assert (how, [str(part) for part in parts]) == (joined, expected)


@pytest.mark.parametrize("word", ["AND", "OR"])
def test_too_many_parts_are_one(word):
    query = f" {word} ".join(f"a{i}" for i in range(MOST_CLAUSES + 1))
    assert split_clauses(parse(query)) == ("", [parse(query)])


@pytest.fixture(scope="module")
def result(tiny):
    return generate("smile OR beard", 6, model=tiny, progress=False)


def asked(query, result):
    return probability(bind(parse(query), VOCABULARY), result, VOCABULARY)


@pytest.mark.parametrize(
    "query", ["smile OR beard", "smile AND age IN [0, 0.5]", "age = 0.5", 'hair IN {black, "dark red"} XOR glasses']
)
def test_the_probability_of_a_query_is_that_of_its_energy(tiny, query):
    result = generate(query, 4, model=tiny, progress=False)
    assert asked(query, result) == pytest.approx(result.probability, rel=1e-4)


def test_weights_contradictions_and_tautologies(result):
    assert asked("2 * (3 * smile)", result) == pytest.approx(result.probabilities["smile"])
    assert asked("smile AND NOT smile", result).tolist() == [0.0] * 6
    assert asked("smile OR NOT smile", result).tolist() == [1.0] * 6


def test_names_and_numbers(result):
    joined, scored = score_clauses(bind(parse("smile AND NOT beard"), VOCABULARY), result, VOCABULARY)
    assert joined == ALL
    assert [clause.text for clause in scored] == ["smile", "NOT beard"]
    assert scored[1].probability == pytest.approx(1 - result.probabilities["beard"])
