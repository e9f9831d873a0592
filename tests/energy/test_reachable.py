"""The least reachable energy against all predictions of small formulas, and what samplers make of it."""

import math
from itertools import product

import numpy as np
import pytest
import torch

from energyql.attributes.predictions import Categorical, Continuous, YesNo
from energyql.energy.query_energy import least_energy
from energyql.energy.rule import compile_energy_rule
from energyql.language import bind, parse
from energyql.sampling import DescentSampler, ODESolver, make_sampler, prior_latents
from energyql.vocabulary import AttributeSpec, Vocabulary

VOCABULARY = Vocabulary(
    [
        *(AttributeSpec(name, "yes/no") for name in ("a", "b")),
        AttributeSpec("c", "categorical", ("x", "y", "z")),
        *(AttributeSpec(f"n{i}", "continuous", low=0, high=1) for i in range(7)),
    ]
)
STD = {f"n{i}": torch.tensor(0.1) for i in range(7)}
NARROW = " AND ".join(f"0.4 < n{i} < 0.6" for i in range(7))


def rule_of(text, semantics="exact"):
    return compile_energy_rule(bind(parse(text), VOCABULARY), VOCABULARY, semantics)


@pytest.mark.parametrize(
    ("text", "probability"),
    [
        ("a AND NOT b", 1.0),
        ("n0 > 0.5", 1.0),
        ("0.4 < n0 < 0.6", math.erf(math.sqrt(0.5))),
        (NARROW, math.erf(math.sqrt(0.5)) ** 7),  # 0.07
        ("0.4 < n0 < 0.6 OR a", 1.0),
        ("NOT (0.4 < n0 < 0.6)", 1.0),
        ("2 * (0.4 < n0 < 0.6) AND a", math.erf(math.sqrt(0.5)) ** 2),
        ("(a AND 0.4 < n0 < 0.5) OR (NOT a AND 0.2 < n0 < 0.6)", math.erf(math.sqrt(2))),
    ],
)
def test_known_values(text, probability):
    assert math.exp(-least_energy(rule_of(text), STD)) == pytest.approx(probability, abs=2e-4)


def test_products_may_be_as_low_as_they_like():
    assert least_energy(rule_of("0.4 < n0 < 0.6", "product"), STD) == 0


def test_one_prediction_of_unknown_width_makes_the_least_energy_unknown():
    rule = rule_of("0.4 < n0 < 0.6 AND 0.4 < n1 < 0.6")
    assert least_energy(rule, {"n0": STD["n0"]}) == 0 < least_energy(rule, STD)


def all_energies(rule):
    """Energies for every class, and means on a fine grid."""
    values = {"a": (-60.0, 60.0), "b": (-60.0, 60.0), "c": (0, 1, 2)}
    columns = {name: values.get(name, np.linspace(-1, 2, 301)) for name in rule.attributes}
    rows = np.array(list(product(*columns.values())))
    predictions = {}
    for i, name in enumerate(columns):
        column = torch.tensor(rows[:, i])
        if name in ("a", "b"):
            predictions[name] = YesNo(column)
        elif name == "c":
            predictions[name] = Categorical(
                60 * torch.nn.functional.one_hot(column.long(), 3).double(), ("x", "y", "z")
            )
        else:
            predictions[name] = Continuous(column, 0.1)
    return -rule.log_value(predictions)


def random_formula(random):
    low = random.uniform(0, 0.8)
    parts = ["a", "b", "c = x", "c IN {y, z}", f"{low:.2f} < n0 < {low + random.uniform(0.02, 0.3):.2f}"]
    low = random.uniform(0, 0.8)
    parts += [f"{low:.2f} < n0 < {low + 0.15:.2f}", f"n0 > {random.uniform(0.1, 0.9):.2f}"]
    chosen = [parts[i] for i in random.permutation(len(parts))[:4]]
    signs = ["NOT " if random.random() < 0.3 else "" for _ in chosen]
    first, second, third, fourth = (f"{sign}({part})" for sign, part in zip(signs, chosen, strict=True))
    ops = random.choice(["AND", "OR", "XOR", "IMPLIES", "AND"], 3)
    return f"(({first} {ops[0]} {second}) {ops[1]} {third}) {ops[2]} {fourth}"


def test_random_formulas_against_all_predictions():
    random = np.random.default_rng(0)
    compared = exact = 0
    while compared < 60:
        try:
            rule = rule_of(random_formula(random))
        except Exception:  # contradictions have no energy
            continue
        if not rule.attributes:
            continue
        least, best = least_energy(rule, STD), float(all_energies(rule).min())
        assert least >= best - 5e-3  # the grid is not infinitely fine
        compared += 1
        exact += least <= best + 5e-3
    assert exact >= 57


class Bowl:
    """An energy of at least 2.67 nats."""

    least = 2.67

    def __call__(self, z):
        return self.least + z.square().sum(1)


@pytest.mark.parametrize("sampler", [DescentSampler(), ODESolver(enough=0.1), make_sampler("slice+descent")])
def test_samplers_measure_from_the_least_energy(sampler):
    z0 = prior_latents(0, 0, 64, 8)
    result, energy = sampler.sample(Bowl(), z0), Bowl()
    assert result.ok.all()
    assert (energy(result.z) <= 2.67 + 0.1 + 1e-5).all()
    unaware = sampler.sample(lambda z: energy(z), z0)
    assert result.gradients.sum() < unaware.gradients.sum()
    if "value" in result.diagnostics:
        torch.testing.assert_close(result.diagnostics["value"], energy(result.z))
