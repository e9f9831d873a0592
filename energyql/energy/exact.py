"""The semantics `exact` (a circuit for log P(query | z)) and `jem`, which adds the logits of the attributes."""

from __future__ import annotations

from collections.abc import Mapping
from functools import reduce
from operator import add

from torch import Tensor

from energyql.attributes.predictions import Predictions
from energyql.energy.circuit import CircuitRule, CompileOptions
from energyql.language import Expr
from energyql.logic.circuit import compile_query
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


def exact_rule(expr: Expr, vocabulary: Mapping[str, AttributeSpec], options: CompileOptions) -> CircuitRule:
    """Compile the query `expr`, as `bind` returned it, to a circuit for log P(query | z): the `exact` semantics."""
    return CircuitRule(compile_query(expr, vocabulary, **options._asdict()))


def joint_rule(expr: Expr, vocabulary: Mapping[str, AttributeSpec], options: CompileOptions) -> JointRule:
    """Compile the query `expr`, as `bind` returned it, to a `JointRule` (semantics `jem`), without `relations`."""
    return JointRule(exact_rule(expr, vocabulary, options._replace(relations=False)))
