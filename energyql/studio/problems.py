"""Everything that can go wrong, in one shape: a message, never a stack trace."""

from __future__ import annotations

from pydantic import BaseModel, Field

from energyql.errors import EnergyQLError


class StudioError(EnergyQLError):
    """The studio refuses a request; `status` is the HTTP status that says so."""

    status = 400


class NotKept(StudioError):
    """There is no such thing here, or no longer."""

    status = 404


class Forbidden(StudioError):
    """The request comes from another site, or asks for another host."""

    status = 403


class TooLarge(StudioError):
    """The request has more bytes than the studio reads."""

    status = 413


class TooSlow(StudioError):
    """The request does not arrive."""

    status = 408


class NotJSON(StudioError):
    """The request is not marked as JSON."""

    status = 415


class NotReady(StudioError):
    """The result is not there yet."""

    status = 409


class Busy(StudioError):
    """Too many requests are waiting."""

    status = 503


class Unwatched(StudioError):
    """Nobody asks about the request any more."""


class TimeUp(StudioError):
    """The request took longer than the studio lets it."""


class Problem(BaseModel):
    """What is wrong, where and what to do. Every answer with a status of 400 or more has this shape."""

    error: str = Field(description="The kind of error, such as UnknownAttribute.")
    message: str = Field(description="What is wrong, in one sentence.")
    hint: str | None = Field(default=None, description="What to do about it.")
    spans: list[tuple[int, int]] = Field(
        default=[],
        description="Where in the query: pairs (start, end) in Unicode code points, the most important first. "
        "An empty span is a place between two characters.",
    )
    line: int | None = Field(default=None, description="Line of the first span, counted from 1.")
    column: int | None = Field(default=None, description="Column of the first span, counted from 1.")
    drawing: str = Field(description="All of it as the command line prints it, with carets under the query.")


INTERNAL = Problem(
    error="InternalError",
    message="something went wrong inside the studio",
    hint="its log says what: please report it",
    drawing="InternalError: something went wrong inside the studio",
)


def describe(error: EnergyQLError) -> Problem:
    """An error as the API says it."""
    return Problem(
        error=type(error).__name__,
        message=error.message,
        hint=error.hint,
        spans=[(span.start, span.end) for span in error.spans],
        line=error.line,
        column=error.column,
        drawing=error.render(),
    )


def status_of(error: EnergyQLError) -> int:
    """The HTTP status that goes with an error: 422 for whatever is wrong with the query or its settings."""
    return error.status if isinstance(error, StudioError) else 422
