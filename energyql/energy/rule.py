"""Named semantics of a query, and the interface that their compiled rules share."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass
from functools import reduce
from operator import add
from typing import NamedTuple, Protocol

from torch import Tensor

from energyql.attributes.predictions import Predictions
from energyql.energy.circuit import CircuitRule
from energyql.energy.lace import compile_lace
from energyql.energy.product import compile_product
from energyql.errors import ArgumentError, LimitError
from energyql.language import Expr
from energyql.logic.circuit import compile_query
from energyql.logic.diagram import DEFAULT_MAX_NODES
from energyql.logic.satisfiability import check_satisfiable
from energyql.numerics.shapes import Float
from energyql.render.markup import Markup
from energyql.vocabulary import AttributeSpec


class EnergyRule(Protocol):
    """A compiled query: a function from predictions to a log-value. The energy is minus this value."""

    @property
    def attributes(self) -> tuple[str, ...]:
        """Names of the attributes whose predictions `log_value` needs, in the vocabulary's order."""

    @property
    def is_probability(self) -> bool:
        """Whether the energy is -log P, where P is the probability of the query."""

    @property
    def has_floor(self) -> bool:
        """Whether the energy has a lower bound."""

    def log_value(self, predictions: Predictions) -> Float[Tensor, " batch"]:
        """Return the log-value of the query, `(batch,)`, in nats, higher is better.

        Args:
            predictions: predictions of `attributes`, at least one.
        """

    def explain(self) -> str:
        """Return the rule as indented text."""

    def draw(self) -> Markup | None:
        """Return the rule as SVG, or `None` where there is no circuit to draw."""


class JointRule:
    """The `jem` semantics: a joint energy of latent and attributes from unnormalised logits; see `EnergyRule`.

    JEM (Grathwohl et al. 2020, arXiv 1912.03263) reads the logits f(z)[y] of a classifier as an energy -f(z)[y] of z
    and y, so that p(z) gets the factor exp(logsumexp_y f(z)[y]). With one such classifier an attribute, the energy of a
    query is -log of the sum of exp(sum of logits) over all values of its attributes that satisfy it. That equals
    -log P(query | z) less the log-sum-exp of the logits of each attribute that the query depends on. So AND, OR and NOT
    are those of `exact`, all laws of Boolean algebra hold, and a weight multiplies -log P alone.

    The one logit of a yes/no attribute is the difference of two, of which each gets half. The normal distribution of a
    continuous attribute has no logits, and adds nothing.

    Args:
        conditional: the rule of the probability of the query given z.
    """

    is_probability = False

    def __init__(self, conditional: CircuitRule) -> None:
        self.conditional, self.attributes = conditional, conditional.attributes
        self.has_floor = not conditional.attributes

    def log_value(self, predictions: Predictions) -> Float[Tensor, " batch"]:
        """Return the log-value, in nats, which has no bound."""
        return self.conditional.log_value(predictions) + self.log_mass(predictions)

    def log_mass(self, predictions: Predictions) -> Float[Tensor, " batch"]:
        """Return the log-sum-exp of all logits, summed over the attributes, of which there is at least one."""
        return reduce(add, [predictions[name].log_mass() for name in self.attributes])

    def explain(self) -> str:
        """Return the circuit as indented text, and the term that is added."""
        circuit = self.conditional.circuit
        logits = [name for name, cells in circuit.cells.items() if not isinstance(cells[0][0], tuple)]
        added = "".join(f" - logsumexp({name})" for name in logits)
        return circuit.explain(f"-log P(query){added}, in nats: lower is better" + "; no probability" * bool(added))

    def draw(self) -> Markup:
        """Return the circuit as SVG."""
        return self.conditional.draw()


class CompileOptions(NamedTuple):
    """What a semantics may use besides the query and the vocabulary; see `compile_energy_rule`."""

    query: str | None = None
    max_nodes: int = DEFAULT_MAX_NODES
    relations: bool = True


Compiler = Callable[[Expr, Mapping[str, AttributeSpec], CompileOptions], EnergyRule]


@dataclass(frozen=True, slots=True)
class NamedSemantics:
    """A semantics: how queries become energies.

    Attributes:
        name: the name that users write.
        compile: function from a bound query, the vocabulary and the options to the rule.
        has_floor: whether energies have a lower bound; most samplers, the default too, refuse the others.
    """

    name: str
    compile: Compiler
    has_floor: bool = True


def _compile_exact(expr: Expr, vocabulary: Mapping[str, AttributeSpec], options: CompileOptions) -> CircuitRule:
    return CircuitRule(compile_query(expr, vocabulary, **options._asdict()))


def _compile_joint(expr: Expr, vocabulary: Mapping[str, AttributeSpec], options: CompileOptions) -> JointRule:
    return JointRule(_compile_exact(expr, vocabulary, options._replace(relations=False)))


def _without_diagram(compile_rule: Callable[[Expr, Mapping[str, AttributeSpec]], EnergyRule]) -> Compiler:
    """Return a compiler that needs no decision diagram: it reports a contradiction only where one is small enough."""

    def compiled(expr: Expr, vocabulary: Mapping[str, AttributeSpec], options: CompileOptions) -> EnergyRule:
        with suppress(LimitError):  # too large to decide, and not needed
            check_satisfiable(expr, vocabulary, query=options.query, max_nodes=options.max_nodes)
        return compile_rule(expr, vocabulary)

    return compiled


SEMANTICS = {
    each.name: each
    for each in (
        NamedSemantics("exact", _compile_exact),
        NamedSemantics("product", _without_diagram(compile_product)),
        NamedSemantics("lace", _without_diagram(compile_lace)),
        NamedSemantics("jem", _compile_joint, has_floor=False),
    )
}
"""Every semantics by its name."""


def check_semantics(name: str) -> str:
    """Return the name of a semantics.

    Raises:
        ArgumentError: there is none of that name.
    """
    if name not in SEMANTICS:
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
    """Compile a bound query under one of the named semantics.

    - `exact`: log-probability by weighted model counting, of the query and of what the vocabulary's relations add to
      it; every Boolean law holds.
    - `product`: negation normal form, then AND = sum and OR = log-sum-exp; no diagram, so no query is too large.
    - `lace`: the rules published with LACE (Nie et al. 2021, arXiv 2110.10873), on the tree as written.
    - `jem`: joint energies from unnormalised logits; see `JointRule`.

    A contradiction is an error under all, as far as the diagram that finds it fits `max_nodes`.

    Args:
        expr: the query, as `bind` returned it.
        vocabulary: the attributes it may use.
        semantics: one of these names.
        query: the text it came from, for drawing errors.
        max_nodes: the largest decision diagram to build.
        relations: for `exact`, whether the vocabulary's relations are part of a query that they concern.

    Raises:
        ArgumentError: no such semantics.
        Contradiction: nothing satisfies the query.
        LimitError: the diagram is too large (`exact` and `jem`), or the expansion of a cardinality is (only `lace`).

    Warns:
        TautologyWarning: everything satisfies the query.
        ConstantPartWarning: a part of it is never or always true, as far as the diagram fits `max_nodes`.
    """
    options = CompileOptions(query, max_nodes, relations)
    return SEMANTICS[check_semantics(semantics)].compile(expr, vocabulary, options)
