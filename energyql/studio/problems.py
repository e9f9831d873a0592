"""Errors of the studio, and what the API returns for an error: a message with a hint, never a stack trace."""

from __future__ import annotations

import json
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
"""Kind of a refused request -> HTTP status, and description of the refusal in the API."""


class StudioError(EnergyQLError):
    """Error for a request that the studio refuses, or for a job that the studio ended.

    Args:
        kind: name of the error in the API: a key of `REFUSALS`; for a job that was ended, "TimeUp" (it took too long)
            or "Unwatched" (no client requested its status).
    """

    def __init__(self, kind: str, message: str, *, hint: str | None = None) -> None:
        super().__init__(message, hint=hint)
        self.kind = kind


class Json(JSONResponse):
    """A response in JSON of ASCII characters, so that halves of characters can be sent.

    Python puts them in place of bytes of a file name that are not UTF-8, and requests may contain them.
    """

    def render(self, content: Any) -> bytes:
        """Bytes of the response."""
        return json.dumps(content, allow_nan=False, separators=(",", ":")).encode()


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
        default=[], description="Places in the query: pairs (start, end) in code points, the most important first."
    )
    suggestions: list[Correction] = Field(default=[], description="Corrections, each of one part of the query.")
    line: int | None = Field(default=None, description="Line of the first span, counted from 1.")
    column: int | None = Field(default=None, description="Column of the first span, counted from 1.")
    drawing: str = Field(description="The whole error as the command line prints it, with carets under the query.")


INTERNAL = StudioError("InternalError", "something went wrong inside the studio", hint="see its log; please report it")


def describe(error: EnergyQLError | QueryWarning) -> Problem:
    """Description of an error or warning in the API."""
    kind = error.kind if isinstance(error, StudioError) else type(error).__name__
    suggestions = [Correction(span=span, text=text) for span, text in error.suggestions]
    # `str` makes plain texts: of a derived class, pydantic refuses the name of a file that is no text
    hint = None if error.hint is None else str(error.hint)
    return Problem(
        error=kind, message=str(error.message), hint=hint, spans=list(error.spans), suggestions=suggestions,
        line=error.line, column=error.column, drawing=f"{kind}: {error}",
    )  # fmt: skip


def describe_fault(fault: Mapping[str, Any]) -> str:
    """What is wrong with a request: a field, and what its value should be, such as "n: Input should be ...".

    Args:
        fault: one of the dicts that `errors()` of pydantic's `ValidationError` returns.
    """
    (_, *place), context = fault["loc"], fault.get("ctx", {})  # the first is body, query or path
    if fault["type"] == "value_error":  # from a validator in `schemas`
        return str(context["error"]).replace("\n", ": ")
    if fault["type"] == "json_invalid":
        return f"the request is not JSON: {context['error']} at character {place[0] + 1}"
    return f"{'.'.join(map(str, place)) or 'the request'}: {fault['msg']}"


def respond(error: EnergyQLError, status: int | None = None) -> Json:
    """Response to a request that raised `error`; by default its status is in `REFUSALS`, or 422 for other errors."""
    status = status or (REFUSALS[error.kind][0] if isinstance(error, StudioError) else 422)
    headers = {"retry-after": "2"} if status == 503 else None
    return Json(describe(error).model_dump(), status_code=status, headers=headers)
