"""Random formulas over attributes of all kinds, and their probability by listing every world."""

import itertools
import math
from statistics import NormalDist

import numpy as np
import torch
from hypothesis import strategies as st

from energyql.attributes.predictions import Categorical, Continuous, YesNo
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
from energyql.vocabulary import AttributeSpec, Vocabulary

GRID = (0.2, 0.4, 0.6, 0.8)
HAIR = ("black", "brown", "red", "gray")
EYES = ("blue", "green", "brown")
VOCABULARY = Vocabulary(
    [
        AttributeSpec("smile", "yes/no"),
        AttributeSpec("hair", "categorical", values=HAIR),
        AttributeSpec("age", "continuous"),
        AttributeSpec("glasses", "yes/no"),
        AttributeSpec("eyes", "categorical", values=EYES),
        AttributeSpec("yaw", "continuous", low=-1.0, high=2.0, tolerance=0.2),
        AttributeSpec("beard", "yes/no"),
        AttributeSpec("hat", "yes/no"),
    ]
)
YES_NO = [name for name, spec in VOCABULARY.items() if spec.kind == "yes/no"]

yes_no = st.sampled_from(YES_NO).map(Attribute)
one_of = st.sampled_from([("hair", HAIR), ("eyes", EYES)]).flatmap(
    lambda pair: st.builds(
        OneOf,
        st.just(pair[0]),
        st.lists(st.sampled_from(pair[1]), min_size=1, max_size=2, unique=True).map(tuple),
        st.booleans(),
    )
)
bounds = st.lists(st.sampled_from((None, *GRID)), min_size=2, max_size=2, unique=True).map(
    lambda pair: sorted(pair) if None not in pair else pair
)
interval = st.builds(lambda name, pair: Interval(name, *pair), st.sampled_from(["age", "yaw"]), bounds)
near = st.builds(Near, st.sampled_from(["age", "yaw"]), st.just(0.5), st.sampled_from([0.1, 0.3]))
predicates = st.one_of(yes_no, yes_no, one_of, interval, near)


def cardinality(operands):
    return st.one_of(
        st.builds(
            Cardinality,
            st.sampled_from(["AT LEAST", "AT MOST", "EXACTLY"]),
            st.integers(0, len(operands)),
            st.just(operands),
        ),
        st.builds(Cardinality, st.sampled_from(["ALL", "ANY", "NONE"]), st.none(), st.just(operands)),
    )


def compounds(inner):
    many = st.lists(inner, min_size=2, max_size=4).map(tuple)
    return st.one_of(
        st.builds(Not, inner),
        st.builds(And, many),
        st.builds(Or, many),
        st.builds(Xor, many),
        st.builds(Iff, many),
        st.builds(Implies, inner, inner),
        many.flatmap(cardinality),
    )


formulas = st.recursive(
    st.one_of(predicates, predicates, predicates, st.builds(Constant, st.booleans())), compounds, max_leaves=10
)
small = st.recursive(predicates, compounds, max_leaves=3)
weighted = st.builds(Weight, st.sampled_from([0.5, 1.0, 2.0, 7.0]), small)
with_weights = st.recursive(st.one_of(predicates, predicates, weighted), compounds, max_leaves=5)


def predictions(batch=3, dtype=torch.float64, seed=0, spread=2.0):
    """A prediction of every attribute in `VOCABULARY`."""
    random = torch.Generator().manual_seed(seed)
    found = {}
    for name, spec in VOCABULARY.items():
        if spec.kind == "yes/no":
            found[name] = YesNo((spread * torch.randn(batch, generator=random, dtype=torch.float64)).to(dtype))
        elif spec.kind == "categorical":
            logits = spread * torch.randn(batch, len(spec.values), generator=random, dtype=torch.float64)
            found[name] = Categorical(logits.to(dtype), spec.values)
        else:
            mean = torch.rand(batch, generator=random, dtype=torch.float64).to(dtype)
            found[name] = Continuous(mean, 0.2)
    return found


def worlds(names):
    """Every combination of an answer, class or grid interval of `names`: name -> array over the worlds."""
    sizes = {
        name: len(GRID) + 1 if spec.kind == "continuous" else max(len(spec.values), 2)
        for name, spec in VOCABULARY.items()
    }
    grid = np.array(list(itertools.product(*(range(sizes[name]) for name in names))), dtype=int)
    return {name: grid.reshape(len(grid), len(names))[:, i] for i, name in enumerate(names)}, len(grid)


def world_probability(name, index, sample, given):
    """P(attribute is `index`), written independently of the library."""
    prediction = given[name]
    if isinstance(prediction, YesNo):
        p = 1 / (1 + math.exp(-prediction.logit[sample].item()))
        return p if index else 1 - p
    if isinstance(prediction, Categorical):
        weights = np.exp(prediction.logits[sample].double().numpy())
        return weights[index] / weights.sum()
    normal = NormalDist(prediction.mean[sample].item(), prediction.std)
    edges = [0.0, *(normal.cdf(x) for x in GRID), 1.0]
    return edges[index + 1] - edges[index]


def attribute_names(expr):
    below = set().union(*(attribute_names(child) for child in expr.children))
    return below | {expr.name} if hasattr(expr, "name") else below


class BruteForce:
    """Truth and probability of a formula by listing worlds; a weighted part is one more Boolean of the world."""

    def __init__(self, expr):
        self.names = sorted(attribute_names(expr))
        self.world, self.count = worlds(self.names)
        self.weights = {}
        self._collect(expr)
        self.switches = np.array(list(itertools.product([False, True], repeat=len(self.weights))), dtype=bool)
        self.table = self._truth(expr)  # (worlds, switches)

    def _collect(self, expr):
        if isinstance(expr, Weight) and expr.factor != 1:
            inner = BruteForce.plain(self, expr.operand)
            if inner.any() and not inner.all():
                self.weights.setdefault((expr.factor, inner.tobytes()), inner)
            return
        for child in expr.children:
            self._collect(child)

    def plain(self, expr):
        held, self.switches = getattr(self, "switches", None), np.zeros((1, 0), dtype=bool)
        table = self._truth(expr)
        self.switches = held
        return table[:, 0]

    def _truth(self, expr):
        shape = (self.count, len(self.switches))
        if isinstance(expr, Constant):
            return np.full(shape, expr.value)
        if isinstance(expr, Weight):
            inner = self.plain(expr.operand)
            key = (expr.factor, inner.tobytes())
            if key in self.weights:
                return np.broadcast_to(self.switches[:, list(self.weights).index(key)], shape)
            return np.broadcast_to(inner[:, None], shape)
        if hasattr(expr, "name"):
            return np.broadcast_to(self._predicate(expr)[:, None], shape)
        parts = [self._truth(child) for child in expr.children]
        if isinstance(expr, Not):
            return ~parts[0]
        if isinstance(expr, Implies):
            return ~parts[0] | parts[1]
        total = np.sum(parts, axis=0)
        if isinstance(expr, Iff):
            return (len(parts) - total) % 2 == 0
        if isinstance(expr, Xor):
            return total % 2 == 1
        if isinstance(expr, And):
            return total == len(parts)
        if isinstance(expr, Or):
            return total > 0
        tests = {
            "AT LEAST": lambda: total >= expr.count,
            "AT MOST": lambda: total <= expr.count,
            "EXACTLY": lambda: total == expr.count,
            "ALL": lambda: total == len(parts),
            "ANY": lambda: total > 0,
            "NONE": lambda: total == 0,
        }
        return tests[expr.quantifier]()

    def _predicate(self, expr):
        index = self.world[expr.name]
        if isinstance(expr, Attribute):
            return index == 1
        if isinstance(expr, OneOf):
            inside = np.isin(np.array(VOCABULARY[expr.name].values)[index], expr.values)
            return ~inside if expr.negated else inside
        low, high = (
            (expr.low, expr.high)
            if isinstance(expr, Interval)
            else (expr.value - expr.tolerance, expr.value + expr.tolerance)
        )
        centre = np.array([0.1, 0.3, 0.5, 0.7, 0.9])[index]
        return (centre > (-9 if low is None else low)) & (centre < (9 if high is None else high))

    def log_probability(self, given, sample):
        p = np.ones(self.count)
        for name in self.names:
            kinds = self.world[name]
            p = p * np.array([world_probability(name, i, sample, given) for i in range(kinds.max() + 1)])[kinds]
        switch = np.ones(len(self.switches))
        for column, (factor, _) in enumerate(self.weights):
            on = p[list(self.weights.values())[column]].sum() ** factor
            switch = switch * np.where(self.switches[:, column], on, 1 - on)
        return math.log((p[:, None] * switch * self.table).sum())
