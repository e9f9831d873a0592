"""Errors of the studio and their description in the API: a message, never a stack trace."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

from pydantic import BaseModel, Field
from starlette.responses import JSONResponse

from energyql.errors import EnergyQLError, QueryWarning

REFUSALS = {
    "HTTPError": (400, "The request is JSON that cannot be read: it is not UTF-8, or nested too deeply."),
    "NoToken": (401, "The studio is open to other machines, and the request lacks its token."),
    "Forbidden": (403, "The request comes from another site, or names another host."),
    "NotKept": (404, "There is no such request, or no longer."),
    "TooSlow": (408, "The request did not arrive in time."),
    "NotReady": (409, "It is not there yet."),
    "TooLarge": (413, "The request is too large."),
    "NotJSON": (415, "The request is not JSON, or not a picture where one is sent."),
    "InvalidRequest": (422, "The query or a setting is wrong."),
    "InternalError": (500, "Something went wrong inside the studio."),
    "Busy": (503, "Too many requests are waiting, or too many connections are open."),
}
"""Kind of a refusal -> HTTP status of the response, and description."""

_FAULTS = {
    "missing": "is missing",
    "extra_forbidden": "is nothing that this request takes",
    "int_type": "must be a whole number",
    "int_parsing": "must be a whole number",
    "int_from_float": "must be a whole number",
    "float_type": "must be a number",
    "float_parsing": "must be a number",
    "finite_number": "must be a finite number",
    "string_type": "must be text",
    "bool_type": "must be true or false",
    "bool_parsing": "must be true or false",
    "list_type": "must be a list",
    "dict_type": "must be an object",
    "model_attributes_type": "must be an object",
    "literal_error": "must be {expected}",
    "greater_than": "must be above {gt}",
    "greater_than_equal": "must be at least {ge}",
    "less_than": "must be below {lt}",
    "less_than_equal": "must be at most {le}",
    "too_short": "must have at least {min_length} entry",
    "string_too_long": "must have at most {max_length} characters",
}
"""Type of an error of pydantic -> message about the wrong value."""


class StudioError(EnergyQLError):
    """A refusal of the studio, or the reason for which it ended a job.

    Args:
        kind: name of the error in the API: one of `REFUSALS`, or "Unwatched" or "TimeUp" for a job that is ended.
        message: see `EnergyQLError`.
        hint: see `EnergyQLError`.
    """

    def __init__(self, kind: str, message: str, *, hint: str | None = None) -> None:
        super().__init__(message, hint=hint)
        self.kind = kind


class Correction(BaseModel):
    """A text that may have been meant in place of a part of the query."""

    span: tuple[int, int] = Field(description="The part, as in `spans`.")
    text: str


class Problem(BaseModel):
    """The error, its place in the query and how to mend it: the body of every response with a status of 400 or more.

    A warning has the same form.
    """

    error: str = Field(description="The kind of error or warning, such as UnknownAttribute.")
    message: str = Field(description="The error in one sentence.")
    hint: str | None = Field(default=None, description="How to mend it.")
    spans: list[tuple[int, int]] = Field(
        default=[],
        description="Places in the query: pairs (start, end) in Unicode code points, the most important first. "
        "An empty span is a place between two characters.",
    )
    suggestions: list[Correction] = Field(
        default=[], description="Corrections, each of one part; those of different parts may be made together."
    )
    line: int | None = Field(default=None, description="Line of the first span, counted from 1.")
    column: int | None = Field(default=None, description="Column of the first span, counted from 1.")
    drawing: str = Field(description="The whole error as the command line prints it, with carets under the query.")


INTERNAL = StudioError(
    "InternalError", "something went wrong inside the studio", hint="its log says what: please report it"
)


def describe(error: EnergyQLError | QueryWarning) -> Problem:
    """Return an error or warning as the API describes it."""
    kind = error.kind if isinstance(error, StudioError) else type(error).__name__
    return Problem(
        error=kind,
        message=error.message,
        hint=error.hint,
        spans=list(error.spans),
        suggestions=[Correction(span=span, text=text) for span, text in error.suggestions],
        line=error.line,
        column=error.column,
        drawing=f"{kind}: {error}",
    )


def describe_fault(fault: Mapping[str, Any]) -> str:
    """Return in plain words what is wrong with a request: the place, and what belongs there.

    Args:
        fault: one of the errors of pydantic's `ValidationError`.
    """
    kind, values, (_, *place) = fault["type"], fault.get("ctx", {}), fault["loc"]  # the first is body, query or path
    if kind == "value_error":  # from a validator in `schemas`
        return str(values["error"]).replace("\n", ": ")
    if kind == "json_invalid":
        return f"the request is not JSON: {values['error']} at character {place[0] + 1}"
    # Names of alternative types, such as list[int], are left out, and 1.0 is written as 1.
    where = ".".join(str(step) for step in place if not re.fullmatch(r"(list|dict)\[.*\]", str(step)))
    limits = {name: int(one) if isinstance(one, float) and one.is_integer() else one for name, one in values.items()}
    return f"{where or 'the request'} {_FAULTS.get(kind, fault['msg']).format(**limits)}"


def respond(error: EnergyQLError, status: int | None = None) -> JSONResponse:
    """Return the response to a failed request; its status is by default that of its refusal, else 422."""
    if status is None:
        status = REFUSALS[error.kind][0] if isinstance(error, StudioError) else 422
    headers = {"retry-after": "2"} if status == 503 else None
    return JSONResponse(describe(error).model_dump(), status_code=status, headers=headers)
