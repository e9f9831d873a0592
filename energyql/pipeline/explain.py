"""Explanation of a query: canonical text, compiled circuit, and the cost of samples.

Torch is imported only where energies or predictions are computed.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from energyql.language import Expr, as_query, bind, predicates, quote
from energyql.language.binder import is_words
from energyql.logic.circuit import compile_query
from energyql.logic.diagram import relations_for
from energyql.logic.satisfiability import noting_tautologies
from energyql.models import DEFAULT_MODEL, model_folder, read_vocabulary
from energyql.pipeline.settings import DEFAULT_SEMANTICS, EXACT, Semantics
from energyql.render.markup import Markup, element
from energyql.vocabulary import Vocabulary

if TYPE_CHECKING:
    from energyql.energy.rule import EnergyRule
    from energyql.logic.circuit import Circuit
    from energyql.pipeline.explain_pilot import Pilot
    from energyql.pipeline.model import Model
    from energyql.progress import Report


@dataclass(frozen=True)
class Explanation:
    """The explanation of a query for a model; `str(explanation)` is the output of `energyql explain`.

    Attributes:
        query: canonical text of the query.
        semantics: name of the semantics under which the query was compiled.
        relations: the queries that the model declares to hold for every picture, such as "sunglasses IMPLIES glasses",
            as far as they concern this query. Empty unless the semantics is "exact".
        circuit: the compiled query as indented text.
        best: highest probability of the query that any predictions of the heads give, if it is below 0.9. It is low if
            an interval of the query, such as `30 < age < 31`, is narrow relative to the errors of the heads. `None` if
            0.9 can be reached, the semantics is not "exact", or attributes are read off pictures.
        words: for each text in quotes that is read off pictures, how it is calibrated, and a similar attribute.
        pilot: estimates, by a short run, of how common the query is and what a sample costs; `None` if not asked for.
        drawing: the circuit as SVG, for notebooks; `None` without a circuit.
    """

    query: str
    semantics: Semantics
    relations: tuple[str, ...]
    circuit: str
    best: float | None = None
    words: tuple[str, ...] = ()
    pilot: Pilot | None = None
    drawing: Markup | None = field(default=None, compare=False)

    def __repr__(self) -> str:
        lines = [f"query  {self.query}", *(f"always {relation}" for relation in self.relations)]
        lines += [*(f"words  {line}" for line in self.words), self.circuit]
        if self.best is not None:
            lines += [f"at best P = {self.best:.2g} with these heads, whose errors are not small beside the intervals"]
        return "\n".join(lines if self.pilot is None else [*lines, str(self.pilot)])

    def to_dict(self) -> dict[str, Any]:
        """Return the fields, except the drawing, by name as values that JSON can hold."""
        return {name: value for name, value in asdict(replace(self, drawing=None)).items() if name != "drawing"}

    def _repr_html_(self) -> Markup:
        return element("div", element("pre", repr(self)), self.drawing)


def list_attributes(model: str | Path | Model = DEFAULT_MODEL) -> Vocabulary:
    """Return the attributes that queries can name, with the kind, values and range of each. No weights are read.

    Args:
        model: name of a packaged model, a model folder, or a `Model` in memory.

    Raises:
        ModelError: there is no such model.
    """
    return read_vocabulary(model) if isinstance(model, str | Path) else model.vocabulary


def explain(
    query: str | Expr,
    *,
    model: str | Path | Model = DEFAULT_MODEL,
    semantics: Semantics = DEFAULT_SEMANTICS,
    pilot: bool = False,
    device: str = "auto",
    progress: bool | Report = True,
) -> Explanation:
    """Explain a query for a model: its canonical text, the relations that apply, and how its energy is computed.

    A relation is a query that the model declares to hold for every picture, such as "sunglasses IMPLIES glasses". Only
    with the semantics "exact" is the list of relations filled. The computation is a circuit (for "lace" a list of
    rules) as indented text. `Explanation` describes all parts of the result.

    Args:
        query: text or expression, such as `"smile AND NOT hat"`.
        model: name of a packaged model, a model folder, or a `Model` in memory.
        semantics: how the query becomes an energy: "exact", "product", "lace" or "jem".
        pilot: whether to estimate, in some seconds, which share of the model's pictures satisfies the query, and what a
            sample costs.
        device: device of the pilot: "auto" (a GPU if there is one), "cpu", "cuda" and so on.
        progress: whether to show a progress bar of the pilot; or a function of the name of a stage and the fraction of
            it done.

    Raises:
        EnergyQLError: the query or a name is wrong, or nothing satisfies the query; the message says why.
    """
    vocabulary = list_attributes(model)
    expr, text = as_query(query)
    bound = bind(expr, vocabulary, query=text)
    compiled: Circuit | EnergyRule
    relations, best, estimates = [], None, None
    if semantics == EXACT:
        compiled = compile_query(bound, vocabulary, query=text)
        relations = [str(each) for group in relations_for(bound, vocabulary) for each in group]
        best = _best(compiled, model)
    else:
        from energyql.energy.rule import compile_energy_rule

        compiled = compile_energy_rule(bound, vocabulary, semantics, query=text)
    if pilot:
        from energyql.pipeline.explain_pilot import run_pilot

        with noting_tautologies():  # the warnings were given above
            estimates = run_pilot(query, model, semantics, device, progress)
    drawing = compiled.draw()
    words = () if isinstance(model, str | Path) or model.words is None else tuple(_words(bound, model))
    return Explanation(str(expr), semantics, tuple(relations), compiled.explain(), best, words, estimates, drawing)


def _words(bound: Expr, model: Model) -> Iterator[str]:
    """Yield for each text in quotes how its reader is calibrated, and an attribute of a similar name."""
    for node in predicates(bound):
        if is_words(node, model.vocabulary) and model.words is not None:
            near = model.vocabulary.suggest(node.name)
            also = f"; if the attribute is meant: {quote(near)}" if near else ""
            yield f"{node} is read off pictures by {model.words.name}, {model.words.calibration(node.name)}{also}"


def _best(circuit: Circuit, model: str | Path | Model) -> float | None:
    """Highest P(query) of any predictions of the heads; `None` if at least 0.9, or without intervals or heads."""
    if not circuit.has_intervals:
        return None
    from energyql.attributes.heads import AttributeBank
    from energyql.attributes.pictures import load_heads
    from energyql.energy.circuit import CircuitRule
    from energyql.energy.query_energy import SURE, least_energy

    heads = load_heads(model_folder(model)) if isinstance(model, str | Path) else model.bank
    if not isinstance(heads, AttributeBank):
        return None
    best = math.exp(-least_energy(CircuitRule(circuit), heads.std))
    return best if best < SURE else None
