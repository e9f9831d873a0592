"""Requests that draw a saved picture again, made from the provenance (query, seed, settings) in its file."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

from energyql import __version__
from energyql.errors import EARLIER
from energyql.pipeline.model import WORDS, used_marks
from energyql.pipeline.result_folder import is_of_earlier_version
from energyql.pipeline.settings import settings_of
from energyql.sampling.registry import check_record, registered, sampler_text
from energyql.studio.problems import StudioError
from energyql.studio.schemas import DrawRequest, EditRequest, Restored

COMMON = (
    "query",
    *(name for name in settings_of("request") if name in settings_of("provenance") and name != "sampler"),
)
"""Fields of a request with the same name and value in the provenance; `_sampler` translates the sampler."""
NO_ENTRY = {
    "inverted": "it was made from a photograph, which the picture does not hold: send the photograph again",
    "variations": "it is a variation, and cannot be drawn again from what it says",
}
"""Key in the provenance of a picture that no request can draw again -> the reason, for people."""


def restore(text: object, fingerprints: Mapping[str, Mapping[str, str]]) -> Restored:
    """Return the request that draws a picture again; its `path` is `None` if this studio cannot draw it again.

    Args:
        text: the provenance as JSON, from the field "energyql" of a PNG that may come from a stranger; `None` without
            one.
        fingerprints: name of a model of this studio -> fingerprint of each of its parts.

    Raises:
        StudioError: there is no text, or no valid request can be made from it.
    """
    if not text:
        hint = "only PNG files that energyql saved carry it; other programs and many sites remove it"
        raise StudioError("InvalidRequest", "the picture says nothing of its making", hint=hint)
    try:
        provenance = json.loads(str(text))
        model, index = str(provenance["model"]), provenance.get("index")
        index = index if type(index) is int else None
        reason, path, request = _request(provenance, index)
        if path is not None:
            (EditRequest if "steps" in request else DrawRequest).model_validate(request)
        notes = [*_notes(provenance, fingerprints), *filter(None, [reason])]
        if path is not None and "sampler" not in request:
            record = provenance.get("edit", {}).get("start", provenance)["sampler"]
            notes.append(f"no request has its sampler, {sampler_text(record)[:200]}: the default draws other pictures")
    except (KeyError, TypeError, ValueError, AttributeError, RecursionError) as error:
        hint = "use the original file"
        raise StudioError("InvalidRequest", "what the picture says of its making is damaged", hint=hint) from error
    if model in fingerprints:
        request["model"] = model
    else:
        path = None
    return Restored(request=request, path=path, index=index, notes=notes, provenance=provenance)


def _request(provenance: dict[str, Any], index: int | None) -> tuple[str, str | None, dict[str, Any]]:
    """Return "", and path and body of the request that draws a picture again; else the reason, `None` and {}."""
    edit = provenance.get("edit")
    start = provenance if edit is None else edit["start"]
    if is_of_earlier_version(provenance) or is_of_earlier_version(start):
        raise StudioError("InvalidRequest", f"the picture {EARLIER}", hint="write the query again, and draw it")
    for name, reason in NO_ENTRY.items():
        if name in start:
            return reason, None, {}
    if "query" not in start:
        return "it was made from latents, which the picture does not hold", None, {}
    if isinstance(start["seed"], list):
        return "it shows pictures of several runs", None, {}
    # Without an entry the pictures were not verified; without a field a request takes the default of the model.
    request = {"verify": "off"} | {name: start[name] for name in COMMON if name in start} | _sampler(start["sampler"])
    if edit is None:
        return "", "/api/jobs", request | {"n": start.get("n", 1)}
    steps = edit["queries"][: edit["step"]] or edit["queries"]
    options = {"mode": edit["mode"], "keep": edit["keep"], "edit_strength": edit["preset"]["strength"]}
    return "", "/api/edits", request | options | {"index": index or 0, "steps": steps}


def _sampler(recorded: object) -> dict[str, Any]:
    """Fields `sampler` and `strength` of a request for a recorded sampler; {} if no name and strength make it."""
    check_record(recorded)
    named = registered(recorded)
    return {} if named is None else {"sampler": named[0], "strength": named[1]}


def _notes(provenance: dict[str, Any], fingerprints: Mapping[str, Mapping[str, str]]) -> list[str]:
    """Sentences on what may differ when a picture is drawn again, such as "the model had other weights ..."."""
    name, versions, notes = provenance["model"], provenance.get("versions"), []
    if audited := provenance.get("audited"):
        notes.append(f"audited: {str(audited)[:40]}")
    version = versions.get("energyql") if isinstance(versions, dict) else None  # joined runs have a list of versions
    if name not in fingerprints:
        notes.append(f"this studio does not have the model {name[:80]!r}")
    elif provenance.get("fingerprints") != used_marks(fingerprints[name], texts=WORDS in provenance):
        notes.append("the model had other weights: pictures may differ")
    if version != __version__:
        notes.append(f"it was made by energyql {str(version)[:20]}; this is {__version__}")
    return notes
