"""Requests of the HTTP API; its OpenAPI description is made from these and from `schemas`."""

from __future__ import annotations

from typing import Annotated, Literal, Self

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, model_validator

from energyql.energy.rule import check_semantics
from energyql.pipeline.settings import DEFAULT_NOISE, DEFAULT_SAMPLER, DEFAULT_SEMANTICS, Noise
from energyql.sampling import MOST_STRENGTH

MOST_SEED = 2**53 - 1
"""Largest seed that a number of JavaScript holds exactly."""
Index = Annotated[int, Field(ge=0, le=MOST_SEED)]
SemanticsName = Annotated[
    str, AfterValidator(check_semantics), Field(description="One of the semantics that /api/info lists.")
]
STRICT = ConfigDict(extra="forbid", allow_inf_nan=False, strict=True)
"""An unknown field is an error, and so is "4" or true where a number is meant."""


class CheckRequest(BaseModel):
    """Check a query without drawing it."""

    model_config = STRICT

    query: str = Field(description="A query, such as smile AND NOT (glasses OR beard).")
    model: str | None = Field(default=None, description="One of the models of this studio; by default the first.")
    semantics: SemanticsName = DEFAULT_SEMANTICS
    allow_weak: list[str] = Field(default=[], description="Attributes that may be used although their heads are weak.")


class Settings(BaseModel):
    """The settings that, with the queries, determine the pictures."""

    model_config = STRICT

    model: str | None = Field(default=None, description="One of the models of this studio; by default the first.")
    semantics: SemanticsName = DEFAULT_SEMANTICS
    sampler: str = Field(default=DEFAULT_SAMPLER, description="One of the samplers that /api/info lists.")
    strength: float | None = Field(
        default=None, gt=0, le=MOST_STRENGTH, description="Multiplies the energy. By default the sampler's own."
    )
    truncation: float | None = Field(default=None, ge=0, le=1, description="psi. By default the model's own.")
    noise: Noise = Field(default=DEFAULT_NOISE, description="Of a generator with noise: const, random or none.")
    seed: Index = Field(default=0, description="The same seed gives the same pictures.")
    allow_weak: list[str] = Field(default=[], description="Attributes that may be used although their heads are weak.")


class DrawRequest(Settings):
    """Draw n pictures."""

    query: str = Field(description="A query, such as smile AND NOT (glasses OR beard).")
    n: int = Field(default=16, ge=1, description="Pictures; /api/info says how many at most.")
    first: Index = Field(default=0, description="Number of the first picture in its run.")


class SourceRequest(Settings):
    """Pictures to begin with: of a run, by number, drawn before or not; or of a job that is held.

    Of a run give `query` and `index` or `indices`; of a job give `job` and `positions`.
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
    """Edit pictures step by step, each of them alike."""

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
    """Draw pictures near one, or more like several, that satisfy a query.

    Each begins at a random mixture of the given pictures, moved towards a new sample, and takes the smallest change
    that satisfies `wanted`.
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
    truncation: float | None = Field(default=None, ge=0, le=1, description="psi. By default the model's own.")
    anyway: bool = Field(default=False, description="Continue with a photograph that the generator cannot draw.")
