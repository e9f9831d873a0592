"""Compilation of a query under one of the semantics `exact`, `product`, `lace` and `jem`; and the rule of `jem`."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import reduce
from operator import add
from pkgutil import resolve_name
from typing import NamedTuple

from torch import Tensor

from energyql.attributes.predictions import Predictions
from energyql.catalog import SEMANTICS as SEMANTICS
from energyql.energy.circuit import CircuitRule
from energyql.energy.circuit import EnergyRule as EnergyRule
from energyql.errors import ArgumentError
from energyql.language import Expr
from energyql.logic.circuit import compile_query
from energyql.logic.nodes import DEFAULT_MAX_NODES
from energyql.numerics.shapes import Float
from energyql.render.markup import Markup
from energyql.vocabulary import AttributeSpec


class JointRule:
    """The rule of the `jem` semantics: a joint energy of latent and attributes from unnormalised logits.

    JEM (Grathwohl et al. 2020, arXiv 1912.03263) takes the logit of class y as minus an energy of z and y together.
    Here the head of each attribute is such a classifier. The energy of a query is -log P(query | z), minus the
    log-sum-exp of the logits of each of its attributes: -log of the sum of exp(added logits) over all values of the
    attributes that make the query true. So all laws of Boolean algebra hold, as under `exact`. A weight in the query
    multiplies only -log P.

    A yes/no attribute has one logit x, which counts as the two logits x / 2 and -x / 2. A continuous attribute adds
    nothing.

    Args:
        conditional: the rule whose log-value is log P(query | z).
    """

    is_probability = False

    def __init__(self, conditional: CircuitRule) -> None:
        self.conditional, self.attributes = conditional, conditional.attributes
        self.has_floor = not conditional.attributes

    def log_value(self, predictions: Predictions) -> Float[Tensor, " batch"]:
        """Return minus the energy of the query, `(batch,)`, in nats; this value has no upper bound."""
        return self.conditional.log_value(predictions) + self.log_mass(predictions)

    def log_mass(self, predictions: Predictions) -> Float[Tensor, " batch"]:
        """Return the sum over all attributes of the log-sum-exp of their logits, `(batch,)`, in nats."""
        return reduce(add, [predictions[name].log_mass() for name in self.attributes])

    def explain(self) -> str:
        """Return the circuit as indented text, followed by the formula of the energy with the terms that `jem` adds."""
        circuit = self.conditional.circuit
        logits = [name for name, cells in circuit.cells.items() if not isinstance(cells[0][0], tuple)]
        added = "".join(f" - logsumexp({name})" for name in logits)
        return circuit.explain(f"-log P(query){added}, in nats: lower is better" + "; no probability" * bool(added))

    def draw(self) -> Markup:
        """Return a drawing of the circuit for log P(query | z) as SVG; the terms that `jem` adds are not in it."""
        return self.conditional.draw()


class CompileOptions(NamedTuple):
    """Options of the compilers of all semantics, as in `compile_energy_rule`; only `exact` uses `relations`."""

    query: str | None = None
    max_nodes: int = DEFAULT_MAX_NODES
    relations: bool = True


Compiler = Callable[[Expr, Mapping[str, AttributeSpec], CompileOptions], EnergyRule]


def exact_rule(expr: Expr, vocabulary: Mapping[str, AttributeSpec], options: CompileOptions) -> CircuitRule:
    """Compile the query `expr`, as `bind` returned it, to a circuit for log P(query | z): the `exact` semantics."""
    return CircuitRule(compile_query(expr, vocabulary, **options._asdict()))


def joint_rule(expr: Expr, vocabulary: Mapping[str, AttributeSpec], options: CompileOptions) -> JointRule:
    """Compile the query `expr`, as `bind` returned it, under the semantics `jem` (`JointRule`), without relations."""
    return JointRule(exact_rule(expr, vocabulary, options._replace(relations=False)))


def check_semantics(name: str) -> str:
    """Return `name`; raise an `ArgumentError` if no semantics has it."""
    if not isinstance(name, str) or name not in SEMANTICS:
        raise ArgumentError(f"no semantics is called {name!r}", hint=f"choose one of {', '.join(SEMANTICS)}")
    return name


def compile_energy_rule(
    expr: Expr,
    vocabulary: Mapping[str, AttributeSpec],
    semantics: str = "exact",
    *,
    query: str | None = None,
    max_nodes: int = DEFAULT_MAX_NODES,
    relations: bool = True,
) -> EnergyRule:
    """Compile a query under one of the four semantics, which differ in the energy of the query.

    - `exact`: the energy is -log P(query | z), by weighted model counting, given the relations of the vocabulary. All
      laws of Boolean algebra hold.
    - `product`: NOT is moved to the attributes; then AND is a sum and OR a log-sum-exp. No decision diagram is needed.
    - `lace`: the rules of the paper on LACE (Nie et al. 2021, arXiv 2110.10873), applied to the query as it is written.
    - `jem`: the energy of `exact`, without relations, minus the log-sum-exp of the logits of each attribute.

    `product` and `lace` report contradictions, and parts that are never or always true, only if the decision diagram of
    the query has at most `max_nodes` nodes.

    Args:
        expr: the query, as `bind` returned it.
        vocabulary: the attributes that the query may use.
        semantics: "exact", "product", "lace" or "jem".
        query: the text that `expr` was parsed from, which errors and warnings show; `None` for no text.
        max_nodes: the largest number of nodes that the decision diagram of the query may have.
        relations: for `exact`, whether the probability is conditioned on the relations that concern the query, such as
            `NOT (smile AND frown)`.

    Raises:
        ArgumentError: no semantics has the name `semantics`.
        Contradiction: nothing satisfies the query.
        LimitError: the diagram is too large (`exact`, `jem`), a count has more than 4096 groups of operands (`lace`),
            or the circuit has more than a million nodes (`product`).
        VocabularyError: the text of a relation is not a valid query about attributes of the vocabulary (`exact`).

    Warns:
        TautologyWarning: everything satisfies the query.
        ConstantPartWarning: a part of the query is never or always true.
    """
    compiler: Compiler = resolve_name(SEMANTICS[check_semantics(semantics)].code)
    return compiler(expr, vocabulary, CompileOptions(query, max_nodes, relations))
