"""Requests that draw a saved picture again, made from the provenance in its file."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

from pydantic import ValidationError

from energyql.pipeline.settings import settings_of
from energyql.sampling.registry import read_record, registered
from energyql.studio.problems import StudioError
from energyql.studio.schemas import DrawRequest, EditRequest, ModelInfo, Restored
from energyql.version import __version__

COMMON = (
    "query",
    *(name for name in settings_of("request") if name in settings_of("provenance") and name != "sampler"),
)
"""Fields of a request that have the same name and value in the provenance; for the sampler see `_sampler`."""
NO_ENTRY = {
    "photograph": "it was made from a photograph, which the picture does not hold: send the photograph again",
    "variations": "it is a variation, and cannot be drawn again from what it says",
    "latents": "it was made from latents, which the picture does not hold",
    "joined": "it shows pictures of several runs",
}
"""Kind of a picture that no request draws again -> the reason, in words."""


def restore(text: str, models: Mapping[str, ModelInfo], fingerprints: Mapping[str, Mapping[str, str]]) -> Restored:
    """Return the request that draws a picture again; its `path` is `None` if this studio cannot draw it.

    Args:
        text: the text field "energyql" of a PNG, which may come from a stranger.
        models: name -> description of the models of this studio.
        fingerprints: name of a model -> fingerprint of each of its parts.

    Raises:
        StudioError: the text is empty, or no provenance.
    """
    provenance = _parsed(text)
    notes = _notes(provenance, models, fingerprints)
    index = provenance.get("index")
    index = index if isinstance(index, int) and not isinstance(index, bool) else None
    try:
        reason, path, request = _request(provenance, index)
        if reason:
            notes.append(NO_ENTRY[reason])
        elif path == "/api/edits":
            EditRequest.model_validate(request)
        else:
            DrawRequest.model_validate(request)
    except (ValidationError, KeyError, TypeError, ValueError, AttributeError) as error:
        raise _damaged() from error
    if provenance["model"] not in models:
        path = None
    else:
        request["model"] = provenance["model"]
    return Restored(request=request, path=path, index=index, notes=notes, provenance=provenance)


def _parsed(text: str) -> dict[str, Any]:
    if not text:
        hint = "only PNG files that energyql saved carry it; other programs and many sites remove it"
        raise StudioError("InvalidRequest", "the picture says nothing of its making", hint=hint)
    try:
        provenance = json.loads(text)
    except (ValueError, RecursionError) as error:
        raise _damaged() from error
    if (
        not isinstance(provenance, dict)
        or not isinstance(provenance.get("query"), str)
        or not isinstance(provenance.get("model"), str)
    ):
        raise _damaged()
    return provenance


def _request(provenance: dict[str, Any], index: int | None) -> tuple[str, str | None, dict[str, Any]]:
    """Return the request that draws a picture again.

    Args:
        provenance: the provenance of the picture.
        index: its number in its run; `None` for a grid.

    Returns:
        A key of `NO_ENTRY` if there is no such request, else ""; the path of the request, or `None`; and its body.
    """
    edit = provenance.get("edit")
    start = provenance if edit is None else edit["start"]
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
    """Return the fields `sampler` and `strength` of a request; none for a recorded sampler that has no name."""
    named = registered(read_record(recorded))
    return {} if named is None else {"sampler": named[0], "strength": named[1]}


def _notes(
    provenance: dict[str, Any], models: Mapping[str, ModelInfo], fingerprints: Mapping[str, Mapping[str, str]]
) -> list[str]:
    name, notes = provenance["model"], []
    if name not in models:
        notes.append(f"this studio does not have the model {name[:80]!r}")
    elif provenance.get("fingerprints") != dict(fingerprints[name]):
        notes.append("the model had other weights: pictures may differ")
    versions = provenance.get("versions")
    version = versions.get("energyql") if isinstance(versions, dict) else None
    if version != __version__:
        notes.append(f"it was made by energyql {str(version)[:20]}; this is {__version__}")
    return notes


def _damaged() -> StudioError:
    return StudioError("InvalidRequest", "what the picture says of its making is damaged", hint="use the original file")
