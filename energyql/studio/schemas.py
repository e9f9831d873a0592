"""What goes in and out of the HTTP API. The OpenAPI description is made of these."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field

from energyql.sampling import MOST_STRENGTH
from energyql.studio.jobs import State
from energyql.studio.problems import Problem

MOST_SEED = 2**53 - 1
"""Largest seed that a number of JavaScript holds exactly."""

Semantics = Literal["exact", "product", "lace"]
Text = Annotated[str, Field(description="A query, such as smile AND NOT (glasses OR beard).")]
ModelName = Annotated[str | None, Field(description="One of the models of this studio; by default the first.")]


class Strict(BaseModel):
    """Something that comes in: a field that is not known is an error, not a silent nothing."""

    model_config = ConfigDict(extra="forbid", allow_inf_nan=False)


class Settings(Strict):
    """A query and all that decides which pictures answer it."""

    query: Text
    model: ModelName = None
    semantics: Semantics = "exact"
    sampler: str = Field(default="slice+descent", description="One of the samplers that /api/info lists.")
    strength: float | None = Field(
        default=None, gt=0, le=MOST_STRENGTH, description="Multiplies the energy. By default the sampler's own."
    )
    truncation: float | None = Field(default=None, ge=0, le=1, description="psi. By default the model's own.")
    seed: int = Field(default=0, ge=0, le=MOST_SEED, description="The same seed gives the same pictures.")


class DrawRequest(Settings):
    """Draw n pictures."""

    n: int = Field(default=16, ge=1, description="Pictures; /api/info says how many at most.")


class EditRequest(Settings):
    """Edit one picture step by step: picture `index` of the settings' run, which need not have been drawn before."""

    index: int = Field(default=0, ge=0, le=MOST_SEED, description="Number of the picture in its run.")
    steps: list[str] = Field(min_length=1, description="Queries, each of which is applied to what the last one left.")


class CheckRequest(Strict):
    """Is this a query, and what does it mean?"""

    query: Text
    model: ModelName = None
    semantics: Semantics = "exact"


class Check(BaseModel):
    """What a query means, or what is wrong with it."""

    ok: bool
    problem: Problem | None = Field(default=None, description="What is wrong.")
    warning: str | None = Field(default=None, description="What is odd: a query that is always true.")
    canonical: str = Field(default="", description="The query as energyql prints it.")
    caption: str = Field(default="", description="What the drawing shows: the circuit, or the tree.")
    drawing: str = Field(default="", description="The compiled query as SVG.")
    explanation: str = Field(default="", description="The same in words.")


class Attribute(BaseModel):
    """What a query can name."""

    name: str
    written: str = Field(description="The name as a query writes it, in double quotes where it needs them.")
    kind: Literal["yes/no", "categorical", "continuous"]
    values: list[str] = Field(default=[], description="Of a categorical attribute, as a query writes them.")
    low: float | None = None
    high: float | None = None
    tolerance: float | None = Field(default=None, description="What = means for a continuous attribute.")
    description: str = ""


class ModelInfo(BaseModel):
    """One of the models of this studio."""

    name: str
    fingerprint: str = Field(description="Changes with the weights: other weights draw other pictures.")
    attributes: list[Attribute]
    truncation: float = Field(description="psi unless a request says otherwise.")
    truncation_low: float
    truncation_high: float
    judge: str = Field(description="Who says whether a picture satisfies the query.")
    examples: list[str] = Field(description="Queries to begin with.")


class LimitsInfo(BaseModel):
    """What one request may cost."""

    pictures: int
    characters: int
    steps: int
    seconds: float
    waiting: int


class Info(BaseModel):
    """What this studio offers."""

    version: str
    models: list[ModelInfo] = Field(description="The first is the one that requests without a model get.")
    semantics: list[Semantics]
    samplers: list[str]
    keywords: list[str] = Field(description="Words of the query language, in any case.")
    limits: LimitsInfo


class ClauseInfo(BaseModel):
    """One part of the query."""

    text: str
    needed: bool = Field(description="Whether the query fails where this part does.")
    mean: float | None = Field(default=None, description="Mean probability over the pictures so far.")
    least: float | None = Field(default=None, description="Least probability over the pictures so far.")


class PictureClause(BaseModel):
    """One part of the query in one picture."""

    text: str
    probability: float | None = Field(description="By the attribute heads; none where it is too large to tell.")


class Change(BaseModel):
    """An attribute that a step of an edit moved although the step did not name it."""

    attribute: str
    before: str
    after: str
    implied: bool = Field(description="Whether the step could not be had without: a frown needs another mouth.")


class Picture(BaseModel):
    """One picture and what is known of it."""

    position: int = Field(description="Place in this answer, from 0.")
    index: int = Field(description="Number in its run, which with the seed gives the picture again.")
    query: str = Field(description="What it was measured by, in canonical form.")
    image: str = Field(description="A data URI, WebP or PNG, at most 512 pixels wide and high.")
    width: int
    height: int
    alt: str = Field(description="The picture in words.")
    satisfied: bool = Field(description="Whether the judge sees what the query asks for.")
    energy: float | None = Field(description="Of the query, lower is better; none where it is infinite.")
    probability: float | None = Field(description="exp(-energy), where the semantics makes that a probability.")
    clauses: list[PictureClause] = Field(description="How sure each part of the query is.")
    judged: dict[str, bool | float | str | None] = Field(description="What the judge reads off the picture.")
    status: str = Field(description="How the solver ended: OK, or what went wrong.")
    changes: list[Change] = Field(default=[], description="Of a step of an edit: what else it moved.")
    superseded: list[str] = Field(default=[], description="Of a step of an edit: earlier steps it makes impossible.")


class Fact(BaseModel):
    """How the pictures were made, a line each."""

    name: str
    text: str


class JobInfo(BaseModel):
    """A request on its way: how far it is, and the pictures that are there already."""

    id: str = Field(description="Unguessable. Whoever knows it can see, cancel and download.")
    kind: Literal["draw", "edit"]
    state: State
    stage: str = Field(description="What it is doing: waiting, sampling, drawing, editing.")
    fraction: float = Field(description="How much of the stage is done, from 0 to 1.")
    place: int = Field(description="How many requests are before it.")
    total: int = Field(description="Pictures there will be.")
    done: int = Field(description="Pictures there are.")
    pictures: list[Picture] = Field(description="Those from position `after` on.")
    joined: str = Field(default="", description="How the clauses belong together.")
    clauses: list[ClauseInfo] = []
    summary: str = Field(default="", description="How many satisfy the query, and who says so.")
    facts: list[Fact] = Field(default=[], description="How it was drawn.")
    problem: Problem | None = Field(default=None, description="Why it failed, or was given up.")
