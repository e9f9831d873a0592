"""Requests and responses of the HTTP API; its OpenAPI description is made from them."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Any, Literal, Self

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, create_model, model_validator

from energyql.energy.rule import check_semantics
from energyql.pipeline.settings import DEFAULT_SEMANTICS, DEFAULTS, SETTINGS, setting_types, settings_of
from energyql.sampling import MOST_STRENGTH
from energyql.studio.jobs import State
from energyql.studio.limits import Limits
from energyql.studio.problems import Problem
from energyql.vocabulary import Kind

MOST_SEED = 2**53 - 1
"""Largest seed: larger whole numbers are not exact in JavaScript."""
Index = Annotated[int, Field(ge=0, le=MOST_SEED)]
Psi = Annotated[float | None, Field(ge=0, le=1)]
SemanticsName = Annotated[str, AfterValidator(check_semantics), Field(description=SETTINGS["semantics"].request)]
STRICT = ConfigDict(extra="forbid", allow_inf_nan=False, strict=True)
"""Settings of requests: an unknown field is an error, and so is "4" or true in place of a number."""


class CheckRequest(BaseModel):
    """Check a query without drawing it."""

    model_config = STRICT

    query: str = Field(description="A query, such as smile AND NOT (glasses OR beard).")
    model: str | None = Field(default=None, description="One of the models of this studio; by default the first.")
    semantics: SemanticsName = DEFAULT_SEMANTICS
    allow_weak: list[str] = Field(default=[], description=SETTINGS["allow_weak"].request)


class _OfModel(BaseModel):
    model_config = STRICT

    model: str | None = Field(default=None, description="One of the models of this studio; by default the first.")


def _setting_fields() -> dict[str, Any]:
    """Return field name -> (type, field) of the settings of a drawing that a request may have, without the model."""
    restricted = {
        "semantics": SemanticsName,
        "sampler": str,
        "strength": Annotated[float | None, Field(gt=0, le=MOST_STRENGTH)],
        "truncation": Psi,
        "seed": Index,
        "allow_weak": list[str],
    }
    types, defaults = setting_types() | restricted, dict(DEFAULTS) | {"allow_weak": []}
    return {
        name: (types[name], Field(default=defaults[name], description=SETTINGS[name].request or SETTINGS[name].help))
        for name in settings_of("request")
    }


if TYPE_CHECKING:
    Settings = _OfModel
else:
    Settings = create_model("Settings", __base__=_OfModel, **_setting_fields())
    """The settings that, with the queries, determine the pictures."""


class DrawRequest(Settings):
    """Draw n pictures."""

    query: str = Field(description="A query, such as smile AND NOT (glasses OR beard).")
    n: int = Field(default=16, ge=1, description="Pictures; /api/info says how many at most.")
    first: Index = Field(default=0, description="Number of the first picture in its run.")


class SourceRequest(Settings):
    """The pictures to begin with: those of a run, drawn before or not, or those of a job that the studio still has.

    For a run give `query` and `index` or `indices`; for a job give `job` and `positions`.
    """

    query: str | None = Field(default=None, description="The query of the run.")
    index: Index | None = Field(default=None, description="Number of the picture in its run; 0 by default.")
    indices: list[Index] = Field(default=[], description="Numbers of several pictures, in place of `index`.")
    job: str | None = Field(default=None, description="A job whose pictures are held, in place of a run.")
    positions: list[Index] = Field(default=[], description="Its pictures; by default all, of an edit the last ones.")

    @model_validator(mode="after")
    def _one_source(self) -> Self:
        if self.job is None and self.query is None:
            raise ValueError("give the query of a run, or a job")
        if self.job is not None and (self.index is not None or self.indices):
            raise ValueError("index and indices count in a run: of a job give positions")
        if self.job is None and self.positions:
            raise ValueError("positions count in a job: of a run give index or indices")
        if self.index is not None and self.indices:
            raise ValueError("give index or indices, not both")
        return self

    @property
    def numbers(self) -> list[int]:
        """Numbers of the pictures in their run."""
        return self.indices or [self.index or 0]


class EditRequest(SourceRequest):
    """Edit one or several pictures by the same steps."""

    steps: list[str] = Field(min_length=1, description="Queries, each of which is applied to what the last one left.")
    mode: Literal["cumulative", "alone"] = Field(
        default="cumulative", description="Whether a step also keeps the queries of the steps before satisfied."
    )
    keep: list[str] | None = Field(default=None, description="Attributes to keep; all of them unless it says which.")
    edit_strength: float | None = Field(
        default=None, gt=0, le=MOST_STRENGTH, description="Multiplies the energy of a step. By default the edit's own."
    )
    layers: list[int] | dict[str, list[int]] | None = Field(
        default=None, description="Layers of W+ that may change; or attribute -> layers. By default all."
    )


class VariationsRequest(SourceRequest):
    """Draw pictures similar to one or several, that satisfy a query.

    Each begins at a random mixture of the given pictures, moved towards a new sample, and is changed as little as
    possible to satisfy `wanted`.
    """

    wanted: str | None = Field(default=None, description="The query of the variations; by default `query`.")
    amount: float = Field(
        default=0.3, ge=0, le=1, description="The way towards a new sample: at 0 only the query moves it."
    )
    n: int = Field(default=8, ge=1, description="Variations; /api/info says how many pictures at most.")
    variation_seed: Index = Field(default=0, description="Other numbers give other variations.")


class TruthTableRequest(Settings):
    """Draw every combination of one to four literals."""

    literals: list[str] = Field(min_length=1, description="Such as smile and hair = red; any query can be one.")
    n: int = Field(default=4, ge=1, description="Pictures of each combination.")


class TraversalRequest(Settings):
    """Draw paths from pictures of one query to pictures of another."""

    start: str = Field(description="The query at the first picture of each path.")
    end: str = Field(description="The query at the last one.")
    steps: int = Field(default=8, ge=2, description="Pictures of a path.")
    n: int = Field(default=3, ge=1, description="Paths.")


class GalleryRequest(Settings):
    """Draw several queries for one page."""

    title: str = Field(default="", max_length=200, description="Of the page.")
    queries: list[str] = Field(min_length=1, description="A section each.")
    n: int = Field(default=4, ge=1, description="Pictures of each query.")


class PhotographRequest(BaseModel):
    """Settings of an inversion: parameters of the address, because the body is the photograph itself."""

    model_config = ConfigDict(extra="forbid", allow_inf_nan=False)  # not strict: parameters of an address are text

    model: str | None = Field(default=None, description="One of the models of this studio; by default the first.")
    truncation: Psi = Field(default=None, description=SETTINGS["truncation"].request)
    anyway: bool = Field(default=False, description="Continue with a photograph that the generator cannot draw.")


JobKind = Literal["draw", "edit", "variations", "table", "traversal", "gallery", "photograph"]
"""Kind of a job, which decides what rows and columns of its pictures mean; see `Picture.row`."""


class Check(BaseModel):
    """The meaning of a query, or its error."""

    ok: bool
    problem: Problem | None = Field(default=None, description="The error.")
    warnings: list[Problem] = Field(default=[], description="That the query, or a part of it, is always or never true.")
    canonical: str = Field(default="", description="The query as energyql prints it.")
    caption: str = Field(default="", description="The kind of drawing: the circuit, or the tree.")
    drawing: str = Field(default="", description="The compiled query as SVG.")
    explanation: str = Field(default="", description="The compiled query as text.")


class Attribute(BaseModel):
    """An attribute that queries can name."""

    name: str
    written: str = Field(description="The name as a query writes it, in double quotes where it needs them.")
    kind: Kind
    values: list[str] = Field(default=[], description="Of a categorical attribute, as a query writes them.")
    low: float | None = None
    high: float | None = None
    tolerance: float | None = Field(default=None, description="The tolerance of = for a continuous attribute.")
    description: str = ""
    weak: str | None = Field(default=None, description="Why queries refuse its head, unless it is allowed by name.")


class ModelInfo(BaseModel):
    """One of the models of this studio."""

    name: str
    fingerprint: str = Field(description="Changes with the weights: other weights draw other pictures.")
    attributes: list[Attribute]
    truncation: float = Field(description="psi unless a request says otherwise.")
    truncation_low: float
    truncation_high: float
    judge: str | None = Field(description="The judge of whether a picture satisfies the query; none without one.")
    examples: list[str] = Field(description="Queries to begin with.")


class Info(BaseModel):
    """Models, samplers, semantics and limits of this studio."""

    version: str
    models: list[ModelInfo] = Field(description="The first is the default.")
    semantics: list[str]
    samplers: list[str]
    keywords: list[str] = Field(description="Words of the query language, in any case.")
    limits: Limits


class ClauseInfo(BaseModel):
    """One part of the query."""

    text: str
    needed: bool = Field(description="Whether the query is false where this part is false.")
    mean: float | None = Field(default=None, description="Mean probability over the pictures so far.")
    least: float | None = Field(default=None, description="Least probability over the pictures so far.")


class PictureClause(BaseModel):
    """One part of the query in one picture."""

    text: str
    probability: float | None = Field(description="By the attribute heads; none where the part is too large.")


class Change(BaseModel):
    """An attribute that a step of an edit changed although the step did not name it."""

    attribute: str
    before: str
    after: str
    implied: bool = Field(description="Whether the step requires it: a frown needs another mouth.")


class Picture(BaseModel):
    """One picture, its energies and verdicts."""

    position: int = Field(description="Position in this job, from 0.")
    row: int = Field(
        default=0,
        description="Of an edit the picture that is edited, of a table the combination, of a traversal the path, of a "
        "gallery the query; else 0.",
    )
    column: int = Field(description="Position in its row: of an edit the step, where 0 is the start.")
    index: int = Field(description="Number in its run, which with the seed gives the picture again.")
    query: str = Field(description="The query, in canonical form.")
    image: str = Field(description="A data URI, WebP or PNG, at most 512 pixels wide and high.")
    width: int
    height: int
    alt: str = Field(description="The picture in words.")
    satisfied: bool | None = Field(
        description="Whether the picture satisfies the query, by the judge; none where it was not judged."
    )
    verdict: str = Field(description="The verdict in words, with the one who says so; or why it was not judged.")
    doubtful: bool = Field(
        default=False,
        description="Whether two sets of heads disagree about the query here, or the latent is unusually far out.",
    )
    doubt: str = Field(default="", description="Why it is doubtful; empty where it is not.")
    energy: float | None = Field(description="Of the query, lower is better; none where it is infinite.")
    probability: float | None = Field(description="exp(-energy), where the semantics makes that a probability.")
    clauses: list[PictureClause] = Field(description="The probability of each part of the query.")
    judged: dict[str, bool | float | str | None] = Field(
        description="The attributes of the picture, by the judge; empty without one."
    )
    status: str = Field(description="The status of the solver: OK, or its failure.")
    keeps_query: bool | None = Field(
        default=None, description="Of a step of an edit: whether the picture satisfies the query that it was drawn for."
    )
    changes: list[Change] = Field(default=[], description="Of a step of an edit: other attributes that it changed.")
    superseded: list[str] = Field(default=[], description="Of a step of an edit: earlier steps it makes impossible.")


class Fact(BaseModel):
    """One line on how the pictures were made."""

    name: str
    text: str


class Row(BaseModel):
    """A row of a truth table or a gallery."""

    query: str = Field(description="The query of its pictures, in canonical form.")
    values: list[bool] = Field(default=[], description="Of a table: whether each literal is true.")
    reason: str = Field(default="", description="Of a table: why no picture can be like this.")
    summary: str = Field(default="", description="How many pictures satisfy the query, and by which judge.")


class Photograph(BaseModel):
    """A photograph that was inverted: picture 0 of the job is its reconstruction."""

    image: str = Field(description="The photograph, cropped and resized: a data URI.")
    pixel_error: float = Field(description="Mean absolute error of the reconstruction, a fraction of the range.")
    drawable: bool = Field(description="Whether the generator can draw it; otherwise picture 0 is another picture.")


class JobInfo(BaseModel):
    """A job: its progress, and the pictures that are drawn already."""

    id: str = Field(description="Unguessable; it gives the right to see, cancel and download.")
    kind: JobKind
    state: State
    stage: str = Field(description="The current stage: waiting, sampling, drawing, editing.")
    fraction: float = Field(description="The fraction of the stage that is done, from 0 to 1.")
    place: int = Field(description="The number of jobs before it.")
    total: int = Field(description="The number of pictures when it is done.")
    done: int = Field(description="The number of pictures so far.")
    pictures: list[Picture] = Field(description="Those from position `after` on.")
    joined: str = Field(default="", description="How the clauses are joined.")
    clauses: list[ClauseInfo] = []
    summary: str = Field(default="", description="How many pictures satisfy the query, and by which judge.")
    facts: list[Fact] = Field(default=[], description="How the pictures were made.")
    literals: list[str] = Field(default=[], description="Of a truth table.")
    rows: list[Row] = Field(default=[], description="Of a truth table or a gallery, those that are drawn.")
    photograph: Photograph | None = Field(default=None, description="Of a photograph that is inverted.")
    problem: Problem | None = Field(default=None, description="Why it failed or was given up.")


class Restored(BaseModel):
    """The request that draws a saved picture again, made from its provenance."""

    request: dict[str, Any] = Field(description="A request that draws it again: the body of POST `path`.")
    path: str | None = Field(description="/api/jobs or /api/edits; none if this studio cannot draw it again.")
    index: int | None = Field(description="Number of the picture in its run; none for a grid.")
    notes: list[str] = Field(description="What may differ: another model, other weights, another version.")
    provenance: dict[str, Any] = Field(description="All that the picture says.")
