"""Requests out of the provenance that pictures carry, so that a picture that is dragged in can be drawn again."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

from pydantic import ValidationError

from energyql.pipeline.settings import settings_of
from energyql.sampling.record import read_record, registered
from energyql.studio.problems import StudioError
from energyql.studio.schemas import DrawRequest, EditRequest, ModelInfo, Restored
from energyql.version import __version__

COMMON = (
    "query",
    *(name for name in settings_of("request") if name in settings_of("provenance") and name != "sampler"),
)
"""Fields of a request that the provenance holds as they are; of the sampler it holds all settings, see `_sampler`."""
NO_ENTRY = {
    "photograph": "it was made from a photograph, which the picture does not hold: send the photograph again",
    "variations": "it is a variation, and cannot be drawn again from what it says",
    "latents": "it was made from latents, which the picture does not hold",
    "joined": "it shows pictures of several runs",
}
"""Reasons why a picture cannot be drawn again by one request."""


def restore(text: str, models: Mapping[str, ModelInfo], fingerprints: Mapping[str, Mapping[str, str]]) -> Restored:
    """Return the request that draws a picture again, out of its text field.

    Args:
        text: the text field "energyql" of a PNG; anyone may have written it.
        models: of this studio, by name.
        fingerprints: of their weights, by name and part.

    Raises:
        StudioError: the text is no provenance.
    """
    known = _parsed(text)
    notes = _notes(known, models, fingerprints)
    index = known.get("index")
    index = index if isinstance(index, int) and not isinstance(index, bool) else None
    try:
        reason, path, request = _request(known, index)
        if reason:
            notes.append(NO_ENTRY[reason])
        elif path == "/api/edits":
            EditRequest.model_validate(request)
        else:
            DrawRequest.model_validate(request)
    except (ValidationError, KeyError, TypeError, ValueError, AttributeError) as error:
        raise _damaged() from error
    if known["model"] not in models:
        path = None
    else:
        request["model"] = known["model"]
    return Restored(request=request, path=path, index=index, notes=notes, provenance=known)


def _parsed(text: str) -> dict[str, Any]:
    if not text:
        hint = "only PNG files that energyql saved carry it; other programs and many sites remove it"
        raise StudioError("InvalidRequest", "the picture says nothing of its making", hint=hint)
    try:
        known = json.loads(text)
    except (ValueError, RecursionError) as error:
        raise _damaged() from error
    if (
        not isinstance(known, dict)
        or not isinstance(known.get("query"), str)
        or not isinstance(known.get("model"), str)
    ):
        raise _damaged()
    return known


def _request(known: dict[str, Any], index: int | None) -> tuple[str, str | None, dict[str, Any]]:
    """Return why there is none, or the path and the body of a request."""
    edit = known.get("edit")
    start = known if edit is None else edit["start"]
    if "inverted" in start:
        return "photograph", None, {}
    if "variations" in start:
        return "variations", None, {}
    if "query" not in start:
        return "latents", None, {}
    if isinstance(start["seed"], list):
        return "joined", None, {}
    request = {name: start[name] for name in COMMON if name in start} | _sampler(start["sampler"])
    if edit is None:
        return "", "/api/jobs", request | {"n": start.get("n", 1)}
    steps = edit["queries"][: edit["step"]] or edit["queries"]
    options = {"mode": edit["mode"], "keep": edit["keep"], "edit_strength": edit["preset"]["strength"]}
    return "", "/api/edits", request | options | {"index": index or 0, "steps": steps}


def _sampler(recorded: object) -> dict[str, Any]:
    """Return the name and strength of a recorded sampler; nothing if it has no name here."""
    found = registered(read_record(recorded))
    return {} if found is None else {"sampler": found[0], "strength": found[1]}


def _notes(
    known: dict[str, Any], models: Mapping[str, ModelInfo], fingerprints: Mapping[str, Mapping[str, str]]
) -> list[str]:
    name, notes = known["model"], []
    if name not in models:
        notes.append(f"this studio does not have the model {name[:80]!r}")
    elif known.get("fingerprints") != dict(fingerprints[name]):
        notes.append("the model had other weights: pictures may differ")
    versions = known.get("versions")
    version = versions.get("energyql") if isinstance(versions, dict) else None
    if version != __version__:
        notes.append(f"it was made by energyql {str(version)[:20]}; this is {__version__}")
    return notes


def _damaged() -> StudioError:
    return StudioError("InvalidRequest", "what the picture says of its making is damaged", hint="use the original file")
