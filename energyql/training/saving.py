"""New heads into a model folder, beside those that are there."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from energyql.attributes.bank import AttributeBank
from energyql.attributes.heads import Head
from energyql.errors import ModelError
from energyql.files import read_json, write_json, write_picture
from energyql.generators.base import Generator, latent_size
from energyql.training.report_picture import draw_report
from energyql.training.target import Target, check_reading, fitted_label, nothing_left, open_target, set_truncation
from energyql.version import __version__
from energyql.vocabulary import Vocabulary


def add_heads(
    model: str | Path | Generator,
    specs: Vocabulary,
    heads: Mapping[str, Head],
    out: str | Path | None = None,
    *,
    space: str = "w",
    truncation: tuple[float, float] = (1.0, 1.0),
    label: int | Sequence[float] | str | None = None,
    replace: bool = False,
) -> AttributeBank:
    """Put heads that were made elsewhere into a model folder, as they are.

    Args:
        model, out, replace: as for `train_attributes`.
        specs: the attributes.
        heads: one for each of them.
        space, truncation, label: what the heads read; where the folder has heads already, the same as theirs.

    Raises:
        ArgumentError: a conditional generator needs a label, or has no such label.
        ModelError: the heads do not fit the generator or the heads that are there.
    """
    with nothing_left(out):
        target = open_target(model, out, truncation[1])
        label = fitted_label(target, label, space)
        bank = AttributeBank(
            specs, heads, space=space, truncation=truncation, label=label, generator=target.fingerprint
        )
        check_reading(target, space, truncation, label)
        size = latent_size(target.generator, space)
        if size not in (None, bank.latent_dim):
            raise ModelError(f"the heads read {bank.latent_dim} numbers, but {space} of the generator has {size}")
        if (target.folder / "judge.json").is_file() and (
            target.bank is None or set(specs) - set(target.bank.vocabulary)
        ):
            raise ModelError(
                f"the judge of {target.folder} does not know {', '.join(map(repr, specs))}",
                hint="choose another folder: the copy there goes without a judge",
            )
        return save_heads(target, bank, {}, replace=replace)


def save_heads(
    target: Target, bank: AttributeBank, report: Mapping[str, Mapping[str, Any]], *, replace: bool = False
) -> AttributeBank:
    """Write a bank and what is to be said of it; heads that the folder has already stay as they are.

    Returns:
        The bank as it is in the folder now.
    """
    merged = bank
    if target.bank is not None:
        merged = target.bank.with_heads(bank.vocabulary, bank.heads, replace=replace)
    set_truncation(target, bank.truncation)
    merged.save(target.folder)
    _write_report(target.folder, report, [name for name in merged.vocabulary if name not in bank.vocabulary])
    return merged


def _write_report(folder: Path, report: Mapping[str, Mapping[str, Any]], kept: Sequence[str]) -> None:
    """`report.json` and `report.png`, with what earlier trainings said of the attributes in `kept`."""
    path = folder / "report.json"
    earlier = read_json(path).get("attributes", {}) if path.is_file() else {}
    merged: dict[str, Mapping[str, Any]] = {name: earlier[name] for name in kept if name in earlier} | dict(report)
    if not merged:
        return
    write_json(path, {"energyql": __version__, "attributes": merged})
    picture = draw_report(merged, f"Attribute heads of {folder.resolve().name}")
    write_picture(folder / "report.png", picture)
