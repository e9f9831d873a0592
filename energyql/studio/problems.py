"""Errors of the studio and their description in the API: a message, never a stack trace."""

from __future__ import annotations

from pydantic import BaseModel, Field

from energyql.errors import EnergyQLError


class StudioError(EnergyQLError):
    """The studio refuses a request; `status` is the HTTP status of the response."""

    status = 400


class NotKept(StudioError):
    """There is no such job or picture, or no longer."""

    status = 404


class Forbidden(StudioError):
    """The request comes from another site, or names another host."""

    status = 403


class TooLarge(StudioError):
    """The request is larger than the limit."""

    status = 413


class TooSlow(StudioError):
    """The request did not arrive in time."""

    status = 408


class NotJSON(StudioError):
    """The request is not marked as JSON."""

    status = 415


class NotReady(StudioError):
    """The result is not ready yet."""

    status = 409


class Busy(StudioError):
    """Too many requests are waiting."""

    status = 503


class Unwatched(StudioError):
    """The job had no status request for too long."""


class TimeUp(StudioError):
    """The request took longer than the limit."""


class Problem(BaseModel):
    """The error, its place in the query and how to mend it: the body of every response with a status of 400 or more."""

    error: str = Field(description="The kind of error, such as UnknownAttribute.")
    message: str = Field(description="The error in one sentence.")
    hint: str | None = Field(default=None, description="How to mend it.")
    spans: list[tuple[int, int]] = Field(
        default=[],
        description="Places in the query: pairs (start, end) in Unicode code points, the most important first. "
        "An empty span is a place between two characters.",
    )
    line: int | None = Field(default=None, description="Line of the first span, counted from 1.")
    column: int | None = Field(default=None, description="Column of the first span, counted from 1.")
    drawing: str = Field(description="The whole error as the command line prints it, with carets under the query.")


INTERNAL = Problem(
    error="InternalError",
    message="something went wrong inside the studio",
    hint="its log says what: please report it",
    drawing="InternalError: something went wrong inside the studio",
)


def describe(error: EnergyQLError) -> Problem:
    """Return an error as the API describes it."""
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
    """Return the HTTP status of an error: 422 for errors in the query or its settings."""
    return error.status if isinstance(error, StudioError) else 422
