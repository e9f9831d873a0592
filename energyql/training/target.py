"""The model folder that attributes are trained into: opening it, checking it, and saving heads and their report."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from energyql.attributes.bank import PICTURE, AttributeBank, FittedLabel
from energyql.attributes.doubt import replace_second
from energyql.attributes.heads import Head
from energyql.attributes.judge import replace_judge
from energyql.attributes.judge_reports import replace_given
from energyql.attributes.pictures import Bank, heads_of
from energyql.errors import ArgumentError, ModelError, VocabularyError
from energyql.files import read_json, real_path, write_json, write_picture
from energyql.generators.base import RANDOM, Generator, check_fitted_label, offers_features
from energyql.generators.families import CONFIG
from energyql.pipeline.saving import save_named_model
from energyql.replacement import changing
from energyql.training.report import draw_report

WORK = ".training"
"""Subfolder for the intermediate results of an interrupted training."""
TEACHER = "teacher"
"""Beginning of the names of the files of a teacher's networks."""


@dataclass(frozen=True)
class Target:
    """The generator and the folder of a training.

    Attributes:
        folder: the model folder.
        generator: the generator whose latents are labelled.
        fingerprint: of its weights, for the bank.
        truncation: the model's own, `None` if the generator is not in the folder.
        bank: the heads that the folder already has.
        code: name of the code that makes the generator, for a folder that only names it.
    """

    folder: Path
    generator: Generator
    fingerprint: str
    truncation: float | None
    bank: Bank | None
    code: str | None = None

    @property
    def space(self) -> str:
        """What heads read by default: what those in the folder read, else features of z if there are any, else w."""
        if self.bank is not None:
            return self.bank.space
        return "features" if offers_features(self.generator) else "w"

    def label(self, given: int | Sequence[float] | str | None, space: str) -> FittedLabel:
        """Return the label that heads are fitted under: the given one, else that of the heads in the folder.

        Raises:
            ArgumentError: the generator needs a label, or has no such label, or heads on `space` cannot be fitted
                under it.
        """
        known = None if self.bank is None else self.bank.label
        checked = check_fitted_label(known if given is None else given, self.generator)
        if checked == RANDOM and space not in ("w", PICTURE):
            raise ArgumentError(
                f"heads that read {space} cannot tell the classes apart", hint="let them read w, or fit one class"
            )
        return checked

    def check_names(self, names: Sequence[str], replace: bool) -> None:
        """Check that attributes of these names can be added.

        Raises:
            VocabularyError: the model already has one of them.
        """
        own = {} if self.bank is None else self.bank.vocabulary
        if not replace and (taken := [name for name in names if name in own]):
            raise VocabularyError(
                f"the model already has {', '.join(map(repr, taken))}",
                hint="rename the attribute, or replace the old one with replace=True, or --replace",
            )

    def check_latents(self, space: str, truncation: tuple[float, float], label: FittedLabel) -> None:
        """Check that new heads read the same latent, at the same truncation, under the same label as those there.

        Raises:
            ModelError: the folder has heads that read another one.
        """
        bank = self.bank
        if bank is not None and (bank.space, bank.truncation, bank.label) != (space, truncation, label):
            old, new = (
                f"{space} at truncation {truncation}" + ("" if label is None else f" under label {label}")
                for space, truncation, label in ((bank.space, bank.truncation, bank.label), (space, truncation, label))
            )
            raise ModelError(
                f"the attributes of {self.folder} read {old}, so new ones cannot read {new}",
                hint="choose another folder",
            )

    @contextmanager
    def changing(self) -> Iterator[Target]:
        """Yield the target in a folder of its own; when the block ends, all that was written there comes into `folder`.

        A process that is killed leaves the model as it was, or as it is after the block. Work on the whole model,
        heads, judges and teacher, is one such block.
        """
        with changing(self.folder) as folder:
            if self.code is not None:
                psi = 1.0 if self.truncation is None else self.truncation
                save_named_model(folder, real_path(self.folder).name, self.code, truncation=psi)
            yield dataclasses.replace(self, folder=folder)

    def save(self, bank: Bank, name: str, *, replace: bool = False, second: Mapping[str, Head] | None = None) -> Bank:
        """Write new heads with their reports, and the second heads; all else in the folder stays as it is.

        Nothing in the folder judges the attributes of the new heads until `store_judge` is called. `name` is that of
        the model, in the picture of the reports.

        Returns:
            All heads of the folder.
        """
        merged = bank
        replace_judge(self.folder, bank.vocabulary, None)
        replace_given(self.folder, bank.vocabulary, None)
        if self.bank is not None:
            old = heads_of(self.bank, "a further head")
            replace_second(self.folder, old, bank.vocabulary, {})
            merged = old.with_heads(heads_of(bank, "a folder of heads"), replace=replace)
        elif self.truncation is not None:  # the truncation of a model without heads must be one of the new heads
            psi = min(max(self.truncation, bank.truncation[0]), bank.truncation[1])
            if psi != self.truncation:
                write_json(self.folder / CONFIG, read_json(self.folder / CONFIG) | {"truncation": psi})
        merged.save(self.folder)
        if isinstance(merged, AttributeBank):
            replace_second(self.folder, merged, bank.vocabulary, second or {})
        if merged.reports:
            picture = draw_report(merged.reports, f"Attribute heads of {name}")
            write_picture(self.folder / "report.png", picture)
        else:
            (self.folder / "report.png").unlink(missing_ok=True)
        return merged
