"""Requests and responses of the HTTP API as pydantic models, from which the OpenAPI description of the API is made."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Any, Literal

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, create_model, model_validator

from energyql.editing.arguments import Mode
from energyql.energy.rule import check_semantics
from energyql.pipeline.settings import DEFAULT_SEMANTICS, DEFAULTS, SETTINGS, Verify, setting_types, settings_of
from energyql.sampling import MOST_STRENGTH
from energyql.studio.jobs import State
from energyql.studio.limits import Limits
from energyql.studio.problems import Problem
from energyql.studio.web import RequestBody
from energyql.vocabulary import Kind

if TYPE_CHECKING:
    from typing import Self  # since Python 3.11

MOST_SEED = 2**53 - 1
"""Largest seed: larger whole numbers are not exact in JavaScript."""
Index = Annotated[int, Field(ge=0, le=MOST_SEED)]
Strength = Annotated[float | None, Field(gt=0, le=MOST_STRENGTH)]
Psi = Annotated[float | None, Field(ge=0, le=1)]
SemanticsName = Annotated[str, AfterValidator(check_semantics), Field(description=SETTINGS["semantics"].request)]
ModelName = Annotated[str | None, Field(description="One of the models of this studio; by default the first.")]


class _OfModel(RequestBody):
    """A request to a model."""

    model: ModelName = None


class CheckRequest(_OfModel):
    """Check a query without drawing it."""

    query: str = Field(description="A query, such as smile AND NOT (glasses OR beard).")
    semantics: SemanticsName = DEFAULT_SEMANTICS
    allow_weak: list[str] = Field(default=[], description=SETTINGS["allow_weak"].request)
    verify: Verify | None = Field(default=None, description=SETTINGS["verify"].request)


def _setting_fields() -> dict[str, Any]:
    """Return the fields for the settings of `generate` that a request may have: name -> (type, pydantic field).

    The field `model` is not among them: it is in `_OfModel`.
    """
    restricted = {
        "semantics": SemanticsName, "sampler": str, "strength": Strength, "truncation": Psi, "seed": Index,
        "allow_weak": list[str],
    }  # fmt: skip
    types, defaults = setting_types() | restricted, dict(DEFAULTS) | {"allow_weak": []}
    return {
        name: (types[name], Field(default=defaults[name], description=SETTINGS[name].request or SETTINGS[name].help))
        for name in settings_of("request")
    }


if TYPE_CHECKING:
    Settings = _OfModel
else:
    Settings = create_model("Settings", __base__=_OfModel, **_setting_fields())
    """The settings, such as seed and sampler, that determine the pictures of a query."""


class DrawRequest(Settings):
    """Draw n pictures that satisfy a query."""

    query: str = Field(description="A query, such as smile AND NOT (glasses OR beard).")
    n: int = Field(default=16, ge=1, description="Pictures; /api/info says how many at most.")
    first: Index = Field(default=0, description="Number of the first picture in its run.")


class SourceRequest(Settings):
    """A request that begins with pictures of a run (a query, seed and settings), or of a job that the studio still has.

    For a run give `query` and `index` or `indices`; the pictures of the run need not be drawn before. For a job give
    `job` and `positions`.
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
        """Numbers of the pictures in their run, for a request without a job; by default only picture 0."""
        return self.indices or [self.index or 0]


class EditRequest(SourceRequest):
    """Edit one or several pictures. The steps are queries, which are applied to each picture one after the other."""

    steps: list[str] = Field(min_length=1, description="Queries, each of which is applied to what the last one left.")
    mode: Annotated[Mode, Field(description="Whether a step keeps the queries of earlier steps.")] = "cumulative"
    keep: list[str] | None = Field(default=None, description="Attributes to keep; all of them unless it says which.")
    edit_strength: Strength = Field(default=None, description="Multiplies the energy of a step.")
    layers: Annotated[
        list[int] | dict[str, list[int]] | None, Field(description="Layers of W+ that may change; or by attribute.")
    ] = None


class VariationsRequest(SourceRequest):
    """Draw pictures that satisfy a query and are similar to one or several source pictures.

    Each variation begins at a random mixture of the latents of the source pictures, moved towards a new random latent.
    The latent is then changed as little as possible to satisfy `wanted`.
    """

    wanted: str | None = Field(default=None, description="The query of the variations; by default `query`.")
    amount: float = Field(default=0.3, ge=0, le=1, description="Share of the way towards a new sample.")
    n: int = Field(default=8, ge=1, description="Variations; /api/info says how many pictures at most.")
    variation_seed: Index = Field(default=0, description="Other numbers give other variations.")


class TruthTableRequest(Settings):
    """Draw every combination of one to four literals: smile AND hat, smile AND NOT hat, and so on."""

    literals: list[str] = Field(min_length=1, description="Such as smile and hair = red; any query can be one.")
    n: int = Field(default=4, ge=1, description="Pictures of each combination.")


class TraversalRequest(Settings):
    """Draw paths through the latent space, from pictures of one query to pictures of another."""

    start: str = Field(description="The query at the first picture of each path.")
    end: str = Field(description="The query at the last one.")
    steps: int = Field(default=8, ge=2, description="Pictures of a path.")
    n: int = Field(default=3, ge=1, description="Paths.")


class GalleryRequest(Settings):
    """Draw pictures of several queries for one page, which has a section for each query."""

    title: str = Field(default="", max_length=200, description="Of the page.")
    queries: list[str] = Field(min_length=1, description="A section each.")
    n: int = Field(default=4, ge=1, description="Pictures of each query.")


class PhotographRequest(_OfModel):
    """Settings of the search for the latents of a photograph.

    The settings are parameters of the address, because the body of the request is the photograph itself.
    """

    model_config = ConfigDict(strict=False)  # parameters of an address are text

    truncation: Psi = Field(default=None, description=SETTINGS["truncation"].request)
    anyway: bool = Field(default=False, description="Continue with a photograph that the generator cannot draw.")


JobKind = Literal["draw", "edit", "variations", "table", "traversal", "gallery", "photograph"]
"""Kind of a job. The kind decides what the row and the column of a picture mean. In a traversal, for example, the row
is the path of the picture, and the column is its step on the path."""


class Check(BaseModel):
    """The meaning of a query, or its error."""

    ok: bool
    problem: Problem | None = Field(default=None, description="The error.")
    warnings: list[Problem] = Field(default=[], description="Parts of the query that are always or never true.")
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
    verify: Verify = Field(description="How its pictures are verified unless a request says otherwise.")
    words: str | None = Field(description="The reader of texts in quotes; none without one.")
    texts: list[str] = Field(description="Texts for which the reader is calibrated, in quotes.")
    examples: list[str] = Field(description="Queries to begin with.")
    teachable: bool = Field(default=False, description="Whether /lessons/ and its name is the page of a lesson.")


class Info(BaseModel):
    """Models, samplers, semantics and limits of this studio."""

    version: str
    models: list[ModelInfo] = Field(description="The first is the default.")
    semantics: list[str]
    samplers: list[str]
    keywords: list[str] = Field(description="Words of the query language, in any case.")
    limits: Limits


class ClauseInfo(BaseModel):
    """One part of the query, with the mean and the least probability of the part over the pictures so far."""

    text: str
    needed: bool = Field(description="Whether the query is false where this part is false.")
    mean: float | None = Field(default=None, description="Mean probability over the pictures so far.")
    least: float | None = Field(default=None, description="Least probability over the pictures so far.")


class PictureClause(BaseModel):
    """One part of the query, and the probability of the part in one picture."""

    text: str
    probability: float | None = Field(description="By the attribute heads; none where the part is too large.")


class Change(BaseModel):
    """An attribute that a step of an edit changed although the step did not name it."""

    attribute: str
    before: str
    after: str
    implied: bool = Field(description="Whether the step requires it: a frown needs another mouth.")


class Picture(BaseModel):
    """One picture with its energy, the verdict of the judge, and its row and column on the page."""

    position: int = Field(description="Position in this job, from 0.")
    row: int = Field(default=0, description="Picture of an edit, combination, path, or query of a gallery; else 0.")
    column: int = Field(description="Position in its row: of an edit the step, where 0 is the start.")
    index: int = Field(description="Number in its run, which with the seed gives the picture again.")
    query: str = Field(description="The query, in canonical form.")
    image: str = Field(description="A data URI, WebP or PNG, at most 512 pixels wide and high.")
    width: int
    height: int
    alt: str = Field(description="The picture in words.")
    satisfied: bool | None = Field(description="Whether it satisfies the query, by the judge; none if not judged.")
    verdict: str = Field(description="The verdict in words, with the one who says so; or why it was not judged.")
    doubtful: bool = Field(default=False, description="Whether heads disagree about it, or its latent is unusual.")
    doubt: str = Field(default="", description="Why it is doubtful; empty where it is not.")
    energy: float | None = Field(description="Of the query, lower is better; none where it is infinite.")
    probability: float | None = Field(description="exp(-energy), where the semantics makes that a probability.")
    clauses: list[PictureClause] = Field(description="The probability of each part of the query.")
    judged: dict[str, bool | float | str | None] = Field(description="Its attributes, by the judge; empty without one.")
    status: str = Field(description="The status of the solver: OK, or its failure.")
    keeps_query: bool | None = Field(default=None, description="Of a step of an edit: whether the first query holds.")
    changes: list[Change] = Field(default=[], description="Of a step of an edit: other attributes that it changed.")
    superseded: list[str] = Field(default=[], description="Of a step of an edit: earlier steps it makes impossible.")


class Fact(BaseModel):
    """One line on how the pictures were made, such as the name "seed" with the text "7"."""

    name: str
    text: str


class Row(BaseModel):
    """A row of a truth table or a gallery."""

    query: str = Field(description="The query of its pictures, in canonical form.")
    values: list[bool] = Field(default=[], description="Of a table: whether each literal is true.")
    reason: str = Field(default="", description="Why there are no pictures; else empty.")
    summary: str = Field(default="", description="How many pictures satisfy the query, and by which judge.")


class Photograph(BaseModel):
    """A photograph whose latents were found. Picture 0 of the job, its reconstruction, is drawn from the latents."""

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
