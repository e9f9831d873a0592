"""Requests and responses of the HTTP API; its OpenAPI description is made from these."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import AfterValidator, BaseModel, ConfigDict, Field

from energyql.energy.rule import check_semantics
from energyql.pipeline.settings import DEFAULT_NOISE, DEFAULT_SAMPLER, DEFAULT_SEMANTICS, Noise
from energyql.sampling import MOST_STRENGTH
from energyql.studio.jobs import State
from energyql.studio.limits import Limits
from energyql.studio.problems import Problem
from energyql.vocabulary import Kind

MOST_SEED = 2**53 - 1
"""Largest seed that a number of JavaScript holds exactly."""


class CheckRequest(BaseModel):
    """Check a query without drawing it."""

    model_config = ConfigDict(extra="forbid", allow_inf_nan=False)  # an unknown field is an error

    query: str = Field(description="A query, such as smile AND NOT (glasses OR beard).")
    model: str | None = Field(default=None, description="One of the models of this studio; by default the first.")
    semantics: Annotated[str, AfterValidator(check_semantics)] = Field(
        default=DEFAULT_SEMANTICS, description="One of the semantics that /api/info lists."
    )
    allow_weak: list[str] = Field(default=[], description="Attributes that may be used although their heads are weak.")


class DrawingRequest(CheckRequest):
    """A query and the settings that determine its pictures."""

    sampler: str = Field(default=DEFAULT_SAMPLER, description="One of the samplers that /api/info lists.")
    strength: float | None = Field(
        default=None, gt=0, le=MOST_STRENGTH, description="Multiplies the energy. By default the sampler's own."
    )
    truncation: float | None = Field(default=None, ge=0, le=1, description="psi. By default the model's own.")
    noise: Noise = Field(default=DEFAULT_NOISE, description="Of a generator with noise: const, random or none.")
    seed: int = Field(default=0, ge=0, le=MOST_SEED, description="The same seed gives the same pictures.")


class DrawRequest(DrawingRequest):
    """Draw n pictures."""

    n: int = Field(default=16, ge=1, description="Pictures; /api/info says how many at most.")
    first: int = Field(default=0, ge=0, le=MOST_SEED, description="Number of the first picture in its run.")


class EditRequest(DrawingRequest):
    """Edit one picture step by step: picture `index` of the settings' run, which need not have been drawn before."""

    index: int = Field(default=0, ge=0, le=MOST_SEED, description="Number of the picture in its run.")
    steps: list[str] = Field(min_length=1, description="Queries, each of which is applied to what the last one left.")
    keep: list[str] | None = Field(default=None, description="Attributes that the steps keep; by default all others.")
    edit_strength: float | None = Field(
        default=None, gt=0, le=MOST_STRENGTH, description="Multiplies the energy of the steps. By default 3."
    )
    layers: list[int] | None = Field(default=None, description="Layers of W+ that may change; by default all.")


class Check(BaseModel):
    """The meaning of a query, or its error."""

    ok: bool
    problem: Problem | None = Field(default=None, description="The error.")
    warning: str | None = Field(default=None, description="A warning: the query is always true.")
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
    energy: float | None = Field(description="Of the query, lower is better; none where it is infinite.")
    probability: float | None = Field(description="exp(-energy), where the semantics makes that a probability.")
    clauses: list[PictureClause] = Field(description="The probability of each part of the query.")
    judged: dict[str, bool | float | str | None] = Field(
        description="The attributes of the picture, by the judge; empty without one."
    )
    doubtful: bool = Field(
        description="Whether two sets of heads disagree about the query here, or the latent is unusually far out."
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


class JobInfo(BaseModel):
    """A job: its progress, and the pictures that are drawn already."""

    id: str = Field(description="Unguessable; it gives the right to see, cancel and download.")
    kind: Literal["draw", "edit"]
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
    problem: Problem | None = Field(default=None, description="Why it failed or was given up.")
