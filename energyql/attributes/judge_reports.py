"""The quality of the judges of a model folder: of those it holds, and of one that was given when it was measured.

The report on a judge that a folder holds is in the description of the judge. That on a judge which is code, and which
no folder holds, is in a file of its own. Imports no torch, so that the command line can read reports quickly.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from energyql.attributes.quality import HeadReport, read_reports, report_entries, reports_of
from energyql.errors import ModelError
from energyql.files import DAMAGED_MODEL, fingerprint, read_json, write_json

FIRST = "judge"
"""Name of the files of the first judge of a folder; the others are "judge-2", "judge-3" and so on."""
READER = "reader"
"""Name of the files of a network that reads pictures in the place of heads, of its entry in `vocabulary.json`, and of
the argument that takes its place; see `PictureBank`."""
GIVEN = "judge_report.json"
"""The file of the report on a judge that a folder does not hold."""


@dataclass(frozen=True)
class JudgeReport:
    """The quality of one judge.

    Attributes:
        name: of the file in the folder, or of the code.
        attributes: attribute that the judge reads -> its quality; `None` where it was not measured. Of code, the
            attributes that were measured.
        mark: identifies code, see `judge_mark`; "" of a judge that the folder holds.
    """

    name: str
    attributes: Mapping[str, HeadReport | None] = field(default_factory=dict)
    mark: str = ""

    @property
    def measured(self) -> dict[str, HeadReport]:
        """The attributes that were measured."""
        return {name: report for name, report in self.attributes.items() if report is not None}


def judge_names(folder: Path) -> list[str]:
    """Return the names of the judges that a folder holds, the oldest first."""
    found = (re.fullmatch(r"judge(?:-([1-9][0-9]{0,3}))?", path.stem) for path in folder.glob("judge*.json"))
    return [judge_name(number) for number in sorted(int(match[1] or 1) for match in found if match)]


def judge_name(number: int) -> str:
    """Return the name of the files of a judge, counted from 1."""
    return FIRST if number == 1 else f"{FIRST}-{number}"


def describe_reports(folder: Path, name: str, reports: Mapping[str, HeadReport]) -> dict[str, Any]:
    """Return the entry for the description of a judge whose weights the folder holds already."""
    if not reports:
        return {}
    return {"report": {"weights": fingerprint(_weights(folder, name)), "attributes": report_entries(reports)}}


def described_reports(folder: Path, name: str, description: Mapping[str, Any]) -> dict[str, HeadReport]:
    """Return the reports in the description of a judge; those on other weights, or of another form, count as missing.

    Raises:
        ModelError: the description is damaged.
    """
    entry, weights = description.get("report"), _weights(folder, name)
    if not isinstance(entry, dict) or not isinstance(entry.get("attributes"), dict) or not weights.is_file():
        return {}
    if entry.get("weights") != fingerprint(weights):
        return {}
    return reports_of(entry["attributes"], folder / f"{name}.json")


def read_guide_reports(folder: Path) -> dict[str, HeadReport]:
    """Read the reports of what guides samplers: the heads of a folder, or the network that it holds in their place.

    Raises:
        ModelError: a file is damaged.
    """
    path = folder / f"{READER}.json"
    return described_reports(folder, READER, read_json(path)) if path.is_file() else read_reports(folder)


def read_judge_reports(folder: Path, given: object = None) -> list[JudgeReport]:
    """Return the quality of the judges of a folder, without running any code.

    Args:
        folder: a model folder.
        given: name of the judge that takes the place of those in the folder, if its configuration has one.

    Raises:
        ModelError: a file is damaged.
    """
    known = read_given(folder)
    if isinstance(given, str):
        return [known if known is not None and known.name == given else JudgeReport(given)]
    found = []
    for name in judge_names(folder):
        path = folder / f"{name}.json"
        description = read_json(path)
        try:
            names = [str(entry["name"]) for entry in description["vocabulary"]["attributes"]]
        except (KeyError, TypeError) as error:
            raise ModelError(f"{path}: {error} is missing or damaged", hint=DAMAGED_MODEL) from None
        reports = described_reports(folder, name, description)
        found.append(JudgeReport(f"{name}.safetensors", {attribute: reports.get(attribute) for attribute in names}))
    return found if known is None else [*found, known]


def read_given(folder: Path) -> JudgeReport | None:
    """Return the report on a judge that the folder does not hold, if there is one.

    Raises:
        ModelError: the file is damaged.
    """
    path = folder / GIVEN
    if not path.is_file():
        return None
    data = read_json(path)
    try:
        name, mark, entries = str(data["judge"]), str(data["mark"]), dict(data["attributes"])
    except KeyError as error:
        raise ModelError(f"{path}: {error} is missing", hint=DAMAGED_MODEL) from None
    except (TypeError, ValueError) as error:
        raise ModelError(f"{path}: {error}", hint=DAMAGED_MODEL) from error
    return JudgeReport(name, reports_of(entries, path), mark)


def replace_given(folder: Path, names: Iterable[str], report: JudgeReport | None) -> None:
    """Replace what is known of the attributes `names` and a judge that the folder does not hold.

    Reports on other attributes stay if they are about the same judge, or if `report` is `None`.
    """
    old, taken = read_given(folder), set(names)
    kept = {}
    if old is not None and (report is None or (old.name, old.mark) == (report.name, report.mark)):
        kept = {name: each for name, each in old.measured.items() if name not in taken}
    now = report or old
    entries = kept | ({} if report is None else report.measured)
    if now is None or not entries:
        (folder / GIVEN).unlink(missing_ok=True)
    else:
        write_json(folder / GIVEN, {"judge": now.name, "mark": now.mark, "attributes": report_entries(entries)})


def _weights(folder: Path, name: str) -> Path:
    return folder / f"{name}.safetensors"
