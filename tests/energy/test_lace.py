"""The published rules against a second statement of them, written here from the paper's description."""

import itertools
import math

import pytest
import torch
from formulas import VOCABULARY, formulas, predictions
from hypothesis import assume, given, settings

from energyql.energy.lace import compile_lace, log_or, negated
from energyql.errors import Contradiction, KindError, LimitError
from energyql.language import (
    And,
    Attribute,
    Cardinality,
    Constant,
    Iff,
    Implies,
    Interval,
    Near,
    Not,
    OneOf,
    Or,
    Weight,
    Xor,
)
from energyql.vocabulary import Vocabulary

A, B, C = Attribute("smile"), Attribute("hat"), Attribute("beard")
HEADS = predictions()


def lace_or(left, right):
    return math.log(20 * math.exp(left) + math.exp(right))


def lace_not(x):
    return -min(1.0, 0.1 / abs(x) if x else 1.0) * x


def restated(node, i):
    """The value of sample i, in plain floats."""
    if isinstance(node, Attribute):
        return -math.log(1 + math.exp(-HEADS[node.name].logit[i].item()))
    if isinstance(node, OneOf):
        logits = HEADS[node.name].logits[i].tolist()
        total = math.log(sum(map(math.exp, logits)))
        parts = [logits[HEADS[node.name].values.index(value)] - total for value in node.values]
        value = folded(lace_or, parts)
        return lace_not(value) if node.negated else value
    if isinstance(node, Near):
        return -((HEADS[node.name].mean[i].item() - node.value) ** 2) / 0.02
    if isinstance(node, Interval):
        mean = HEADS[node.name].mean[i].item()
        gap = max(
            0.0, (node.low if node.low is not None else -9) - mean, mean - (node.high if node.high is not None else 9)
        )
        return -(gap**2) / 0.02
    if isinstance(node, Not):
        return lace_not(restated(node.operand, i))
    if isinstance(node, Weight):
        return node.factor * restated(node.operand, i)
    if isinstance(node, Implies):
        return lace_or(lace_not(restated(node.left, i)), restated(node.right, i))
    parts = [restated(operand, i) for operand in node.operands]
    if isinstance(node, And):
        return sum(parts)
    if isinstance(node, Or):
        return folded(lace_or, parts)
    if isinstance(node, Xor):
        return folded(lambda x, y: lace_or(x + lace_not(y), lace_not(x) + y), parts)
    if isinstance(node, Iff):
        return folded(lambda x, y: lace_or(x + y, lace_not(x) + lace_not(y)), parts)
    return restated_count(node, parts)


def restated_count(node, parts):
    def at_least(count):
        return folded(lace_or, [sum(group) for group in itertools.combinations(parts, count)])

    if node.quantifier == "ALL":
        return sum(parts)
    if node.quantifier == "ANY":
        return folded(lace_or, parts)
    if node.quantifier == "NONE":
        return lace_not(folded(lace_or, parts))
    if node.quantifier == "AT LEAST":
        return at_least(node.count)
    if node.quantifier == "AT MOST":
        return lace_not(at_least(node.count + 1))
    groups = itertools.combinations(range(len(parts)), node.count)
    signed = [[x if i in group else lace_not(x) for i, x in enumerate(parts)] for group in groups]
    return folded(lace_or, [sum(values) for values in signed])


def folded(function, values):
    result = values[0]
    for value in values[1:]:
        result = function(result, value)
    return result


def trivial(node):
    """A cardinality that every count satisfies is a constant, which the published rules do not know."""
    if isinstance(node, Constant):
        return True
    if not isinstance(node, Cardinality) or node.count is None:
        return False
    return (node.quantifier, node.count) in [("AT LEAST", 0), ("AT MOST", len(node.operands))]


@settings(max_examples=80, deadline=None)
@given(formulas)
def test_random_trees_against_the_rules_restated(query):
    assume(not any(trivial(node) for node in query.walk()))
    value = compile_lace(query, VOCABULARY).log_value(HEADS)
    expected = torch.tensor([restated(query, i) for i in range(3)], dtype=torch.float64)
    torch.testing.assert_close(value, expected, atol=1e-5, rtol=1e-5)


def test_or_prefers_its_left_operand():
    left = compile_lace(Or((A, B)), VOCABULARY).log_value(HEADS)
    right = compile_lace(Or((B, A)), VOCABULARY).log_value(HEADS)
    assert not torch.allclose(left, right)


def test_or_does_not_underflow():
    assert log_or(torch.tensor(-200.0), torch.tensor(-200.0)).item() == pytest.approx(math.log(21) - 200)


@pytest.mark.parametrize(
    ("value", "expected", "slope"), [(-5.0, 0.1, -0.02), (-0.05, 0.05, -1.0), (0.0, 0.0, -1.0), (2.0, -0.1, -0.05)]
)
def test_not_caps_the_value_and_lets_no_gradient_through_the_cap(value, expected, slope):
    x = torch.tensor(value, requires_grad=True)
    result = negated(x)
    result.backward()
    assert result.item() == pytest.approx(expected)
    assert x.grad.item() == pytest.approx(slope)


def test_not_of_an_impossible_value():
    assert negated(torch.tensor(-math.inf)).item() == pytest.approx(0.1)


def test_weight_multiplies():
    torch.testing.assert_close(
        compile_lace(Weight(3.0, A), VOCABULARY).log_value(HEADS), 3 * compile_lace(A, VOCABULARY).log_value(HEADS)
    )


def test_constants_are_folded_first():
    assert compile_lace(Or((A, And((B, Constant(True))))), VOCABULARY).expr == Or((A, B))


def test_what_folds_to_false_is_refused():
    with pytest.raises(Contradiction):
        compile_lace(Cardinality("NONE", None, (A, Constant(True))), VOCABULARY)


def test_a_large_cardinality_is_refused():
    many = tuple(Or((A, B)) if i % 2 else A for i in range(30))
    with pytest.raises(LimitError, match="expands to 155,117,520 groups"):
        compile_lace(Cardinality("AT LEAST", 15, many), VOCABULARY)


def test_a_head_of_the_wrong_kind():
    rule = compile_lace(A, VOCABULARY)
    with pytest.raises(KindError, match="'smile'"):
        rule.log_value({"smile": HEADS["age"]})


def test_explain_shows_the_rules_on_the_tree():
    text = compile_lace(Or((A, Weight(2.0, Not(B)))), Vocabulary(VOCABULARY.values())).explain()
    assert text.splitlines()[:5] == [
        "OR: log(20 exp(left) + exp(right))",
        "  smile",
        "  2 times",
        "    NOT: -min(1, 0.1 / |value|) * value",
        "      hat",
    ]
