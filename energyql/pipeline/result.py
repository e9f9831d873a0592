"""What a call of `generate` returns."""

from __future__ import annotations

import io
import json
import math
import os
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from PIL import Image, PngImagePlugin
from torch import Tensor

from energyql.attributes.predictions import Table, join_tables, select_rows
from energyql.errors import ArgumentError
from energyql.files import check_writable, replacing, write_json, write_tensors
from energyql.pipeline.result_html import alternative_text, result_html
from energyql.pipeline.settings import EXACT
from energyql.render.pictures import label_grid
from energyql.sampling import Status

PICTURE_SUFFIXES = (".png", ".jpg", ".jpeg", ".webp")


def check_destination(path: Path) -> Path:
    """Refuse, before any work is done, a path that no result can be saved as.

    Raises:
        ArgumentError: the path ends like another kind of file, is a folder where a file is asked for or the other way
            round, or lies where nothing can be written.
    """
    picture = path.suffix.lower() in PICTURE_SUFFIXES
    if path.suffix and not picture and not os.path.isdir(path):
        raise ArgumentError(
            f"a result cannot be saved as {path.suffix}",
            hint=f"end the path in {', '.join(PICTURE_SUFFIXES)}, or name a folder",
        )
    if picture and os.path.isdir(path):
        raise ArgumentError(f"cannot write {path}: it is a folder", hint="name a file in it, or another folder")
    check_writable(path, path.parent if picture else path)
    return path


@dataclass(frozen=True, eq=False)
class Result:
    """Pictures that answer a query, and everything known about them.

    Attributes:
        images: n pictures (PIL, RGB).
        z, w: latents, (n, z_dim) and (n, w_dim), or (n, num_ws, w_dim) in W+; float32 on the CPU.
        index: number of each sample in its run, which with the seed gives the sample again, (n,) int64.
        energy: of the query at z, in nats, lower is better, (n,) float64.
        probabilities: what the attribute heads predict, by attribute, in the form that `energyql.score` takes.
        judged: the value of each attribute according to the judge, (n,) bool, class names or numbers.
        satisfied: whether what the judge sees satisfies the query, (n,) bool.
        status: how the solver ended, one a sample.
        statistics: evaluations, seconds, and what the sampler tells; see `energyql.sampling.summarize`.
        provenance: what replays this result: query, seed, model and its fingerprints, settings, versions.
    """

    images: list[Image.Image]
    z: Tensor
    w: Tensor
    index: npt.NDArray[np.int64]
    energy: npt.NDArray[np.float64]
    probabilities: dict[str, Table]
    judged: dict[str, npt.NDArray[Any]]
    satisfied: npt.NDArray[np.bool_]
    status: list[Status]
    statistics: dict[str, float]
    provenance: dict[str, Any] = field(repr=False)

    def __len__(self) -> int:
        return len(self.images)

    def summary(self) -> str:
        """One line: how many satisfy the query, who says so, and at what cost."""
        failed = sum(status != Status.OK for status in self.status)
        line = f"{self.satisfied.sum()} of {len(self)} satisfy the query, says the {self.provenance['judge']}"
        if "budget" in self.provenance:
            line += f", out of {self.statistics['drawn']:.0f} drawn"
            if len(self) < self.provenance["wanted"]:
                line += (
                    f"; {self.provenance['wanted']} were wanted, but the budget of {self.provenance['budget']} ended"
                )
        return line if not failed else f"{line}; the solver could not finish {failed}"

    def __repr__(self) -> str:
        return f"<Result of {self.provenance['query']!r}: {self.summary()}>"

    def select(self, rows: Sequence[int] | npt.NDArray[np.int64]) -> Result:
        """The result of some of the samples, in the order of `rows`."""
        rows = np.asarray(rows, dtype=np.int64)
        return replace(
            self,
            images=[self.images[i] for i in rows],
            z=self.z[rows],
            w=self.w[rows],
            index=self.index[rows],
            energy=self.energy[rows],
            probabilities={name: select_rows(table, rows) for name, table in self.probabilities.items()},
            judged={name: values[rows] for name, values in self.judged.items()},
            satisfied=self.satisfied[rows],
            status=[self.status[i] for i in rows],
            statistics=dict(self.statistics),
            provenance=self.provenance | {"n": len(rows)},
        )

    @classmethod
    def join(cls, parts: Sequence[Result]) -> Result:
        """The samples of several results of one query as one, with the provenance and statistics of the first.

        Raises:
            ArgumentError: there are no parts.
        """
        if not parts:
            raise ArgumentError("Result.join needs at least one result; got an empty sequence")
        return cls(
            images=[image for part in parts for image in part.images],
            z=torch.cat([part.z for part in parts]),
            w=torch.cat([part.w for part in parts]),
            index=np.concatenate([part.index for part in parts]),
            energy=np.concatenate([part.energy for part in parts]),
            probabilities={
                name: join_tables([part.probabilities[name] for part in parts]) for name in parts[0].probabilities
            },
            judged={name: np.concatenate([part.judged[name] for part in parts]) for name in parts[0].judged},
            satisfied=np.concatenate([part.satisfied for part in parts]),
            status=[status for part in parts for status in part.status],
            statistics=dict(parts[0].statistics),
            provenance=parts[0].provenance | {"n": sum(map(len, parts))},
        )

    def grid(self, columns: int | None = None) -> Image.Image:
        """All pictures with the probability of the query (or its energy, where that is none) and the judge's verdict.

        Raises:
            ArgumentError: `columns` is below 1.
        """
        return label_grid(
            self.images,
            title=self.provenance["query"],
            captions=self.captions(),
            verdicts=self.satisfied.tolist(),
            footer=self._footer(),
            columns=columns,
        )

    @property
    def probability(self) -> npt.NDArray[np.float64] | None:
        """P(query) of each sample, exp(-energy), (n,); `None` under semantics whose energy is not -log P."""
        return np.exp(-self.energy) if self.provenance["semantics"] == EXACT else None

    def captions(self) -> list[str]:
        """Return the caption of each picture: the probability of the query, or its energy where there is none."""
        if self.probability is None:
            return [f"E {energy:.3f}" for energy in self.energy]
        return [f"P {probability:.3f}" for probability in self.probability]

    def _footer(self) -> str:
        settings = self.provenance
        label = "" if settings.get("label") is None else f", label {settings['label']}"
        made = f"Model {settings['model']}{label}, seed {settings['seed']}, {settings['semantics']} semantics"
        return f"{self.summary()}. {made}"

    def save(self, path: str | Path) -> Path:
        """Write the labelled grid (a path that ends in .png, .jpg or .webp), or everything (a folder).

        A folder gets each picture, `grid.png`, `latents.safetensors` and `result.json`. Every file appears whole or
        not at all. A PNG grid carries the provenance in its text field "energyql".

        Returns:
            The path.

        Raises:
            ArgumentError: the ending is that of another kind of file, or the path cannot be written.
        """
        path = check_destination(Path(path))
        if not self.images:
            raise ArgumentError(
                f"there is no picture to save: {self.summary()}", hint="raise the budget, or ask for less"
            )
        try:
            if path.suffix.lower() in PICTURE_SUFFIXES:
                self._save_picture(self.grid(), path)
            else:
                self._save_folder(path)
        except OSError as error:
            raise ArgumentError(f"cannot write {path}: {error.strerror or error}") from error
        return path

    def _save_picture(self, picture: Image.Image, path: Path) -> None:
        text = PngImagePlugin.PngInfo()
        text.add_itxt("energyql", json.dumps(self.provenance, ensure_ascii=False))
        with replacing(path) as temporary:
            try:
                picture.save(temporary, **({"pnginfo": text} if path.suffix.lower() == ".png" else {"quality": 92}))
            except ValueError as error:  # a side that the format cannot hold
                raise ArgumentError(f"cannot write {path}: {error}", hint="save as .png, or to a folder") from error

    def _save_folder(self, folder: Path) -> None:
        for i, image in enumerate(self.images):
            self._save_picture(image, folder / f"{i:05d}.png")
        self._save_picture(self.grid(), folder / "grid.png")
        write_tensors(folder / "latents.safetensors", {"z": self.z, "w": self.w})
        samples = [
            {
                "picture": f"{i:05d}.png",
                "index": int(self.index[i]),
                "satisfied": bool(self.satisfied[i]),
                "energy": _plain(self.energy[i]),
                "status": self.status[i].name,
                "judged": {name: _plain(values[i]) for name, values in self.judged.items()},
            }
            for i in range(len(self))
        ]
        write_json(
            folder / "result.json",
            {"provenance": self.provenance, "statistics": self.statistics, "samples": samples},
        )

    def _repr_png_(self) -> bytes:
        buffer = io.BytesIO()
        self.grid().save(buffer, "PNG")
        return buffer.getvalue()

    def _repr_html_(self) -> str:
        verdicts: list[bool] = self.satisfied.tolist()
        query, judge = self.provenance["query"], self.provenance["judge"]
        words = [
            alternative_text(self.judged, i, len(self), judge, [(query, holds)]) for i, holds in enumerate(verdicts)
        ]
        return result_html(
            self.images, title=query, captions=self.captions(), verdicts=verdicts, words=words, footer=self._footer()
        )


def _plain(value: np.generic) -> Any:
    """As JSON has it, which knows neither NaN nor infinity."""
    plain = value.item()
    return None if isinstance(plain, float) and not math.isfinite(plain) else plain
