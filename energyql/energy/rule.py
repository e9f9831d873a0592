"""Compilation of a query under one of the semantics `exact`, `product`, `lace` and `jem`."""

from __future__ import annotations

from collections.abc import Callable, Mapping

from energyql.catalog import SEMANTICS as SEMANTICS
from energyql.energy.circuit import CompileOptions
from energyql.energy.circuit import EnergyRule as EnergyRule
from energyql.energy.exact import exact_rule, joint_rule
from energyql.energy.lace import lace_rule
from energyql.energy.product import product_rule
from energyql.errors import ArgumentError
from energyql.language import Expr
from energyql.logic.nodes import DEFAULT_MAX_NODES
from energyql.vocabulary import AttributeSpec

Compiler = Callable[[Expr, Mapping[str, AttributeSpec], CompileOptions], EnergyRule]
"""Function from a query, as `bind` returned it, and a vocabulary to the rule of its energy."""

COMPILERS: Mapping[str, Compiler] = {
    "exact": exact_rule,
    "product": product_rule,
    "lace": lace_rule,
    "jem": joint_rule,
}
"""The compiler of every semantics by name."""


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
    compile_rule = COMPILERS[check_semantics(semantics)]
    return compile_rule(expr, vocabulary, CompileOptions(query, max_nodes, relations))
