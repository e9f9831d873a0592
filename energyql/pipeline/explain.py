"""A query in words and as a circuit, and what its samples will cost. Torch is imported for numbers alone."""

from __future__ import annotations

import math
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from energyql.errors import ArgumentError
from energyql.language import Expr, as_query, bind
from energyql.logic.circuit import compile_query
from energyql.logic.diagram import relations_for
from energyql.logic.satisfiability import noting_tautologies
from energyql.models import DEFAULT_MODEL, model_folder, read_vocabulary
from energyql.pipeline.settings import DEFAULT_SEMANTICS, EXACT, Semantics
from energyql.render.markup import Markup, element
from energyql.vocabulary import Vocabulary

if TYPE_CHECKING:
    from energyql.logic.circuit import Circuit
    from energyql.pipeline.model import Model
    from energyql.pipeline.pilot import Pilot


@dataclass(frozen=True)
class Explanation:
    """The explanation of a query for a model; `str` of it is the output of `energyql explain`.

    Attributes:
        query: its canonical text.
        semantics: name of the semantics under which it was compiled.
        relations: relations of the model that concern the query, as text; under "exact" only.
        circuit: the compiled query as indented text.
        best: highest probability that the heads can give to the query, if it has intervals that are narrow relative to
            their errors; `None` if they can be certain, under other semantics, and for attributes read off pictures.
        pilot: estimated prevalence and cost; `None` without a pilot.
        drawing: the circuit as SVG, for notebooks; `None` without a circuit.
    """

    query: str
    semantics: Semantics
    relations: tuple[str, ...]
    circuit: str
    best: float | None = None
    pilot: Pilot | None = None
    drawing: Markup | None = field(default=None, compare=False)

    def __repr__(self) -> str:
        lines = [f"query  {self.query}", *(f"always {relation}" for relation in self.relations), self.circuit]
        if self.best is not None:
            sure = f"at best P = {self.best:.2g} with these heads"
            lines.append(f"{sure}, whose errors are not small beside the intervals")
        return "\n".join(lines if self.pilot is None else [*lines, str(self.pilot)])

    def to_dict(self) -> dict[str, Any]:
        """Return the fields as JSON values, without the drawing."""
        values = asdict(replace(self, drawing=None))
        del values["drawing"]
        return values

    def _repr_html_(self) -> Markup:
        return element("div", element("pre", repr(self)), self.drawing)


def list_attributes(model: str | Path | Model = DEFAULT_MODEL) -> Vocabulary:
    """Return the attributes that queries can name: their kinds, values and ranges, by name. No weights are read.

    Args:
        model: name of a packaged model, a model folder, or a `Model` in memory.

    Raises:
        ModelError: there is no such model.
    """
    return read_vocabulary(model) if isinstance(model, str | Path) else _in_memory(model).vocabulary


def explain(
    query: str | Expr,
    *,
    model: str | Path | Model = DEFAULT_MODEL,
    semantics: Semantics = DEFAULT_SEMANTICS,
    pilot: bool = False,
    device: str = "auto",
) -> Explanation:
    """Explain a query: canonical text, relations of the model that concern it, compiled circuit.

    Args:
        query: as for `generate`.
        model: as for `generate`.
        semantics: as for `generate`.
        pilot: whether to estimate, in some seconds, how many pictures of the model satisfy the query, and the cost of a
            sample.
        device: device of the pilot, as for `generate`.

    Raises:
        EnergyQLError: the query or a name is wrong, or nothing satisfies the query; the message says why.
    """
    vocabulary = list_attributes(model)
    expr, text = as_query(query)
    bound = bind(expr, vocabulary, query=text)
    parts: dict[str, Any] = {"relations": (), "best": None}
    if semantics == EXACT:
        circuit = compile_query(bound, vocabulary, query=text)
        parts |= {"relations": tuple(str(each) for group in relations_for(bound, vocabulary) for each in group)}
        parts |= {"circuit": circuit.explain(), "best": _best(circuit, model), "drawing": circuit.draw()}
    else:
        from energyql.energy.rule import compile_energy_rule

        rule = compile_energy_rule(bound, vocabulary, semantics, query=text)
        parts |= {"circuit": rule.explain(), "drawing": rule.draw()}
    if pilot:
        from energyql.pipeline.pilot import run_pilot

        with noting_tautologies():  # the warnings were given above
            parts["pilot"] = run_pilot(query, model, semantics, device)
    return Explanation(str(expr), semantics, **parts)


def _best(circuit: Circuit, model: str | Path | Model) -> float | None:
    """Return the highest probability that the heads can give to a query, or `None` if they can be certain."""
    if not circuit.has_intervals:
        return None
    from energyql.attributes.pictures import load_heads
    from energyql.energy.circuit import CircuitRule
    from energyql.energy.query_energy import SURE, least_energy

    heads = load_heads(model_folder(model)) if isinstance(model, str | Path) else model.bank.as_heads
    if heads is None:
        return None
    best = math.exp(-least_energy(CircuitRule(circuit), heads.std))
    return best if best < SURE else None


def _in_memory(model: Any) -> Model:
    if not isinstance(getattr(model, "vocabulary", None), Vocabulary):
        raise ArgumentError(f"a model is a name, the path of a folder or a Model, not {type(model).__name__}")
    checked: Model = model
    return checked
