"""The result of a run: pictures, latents, energies, verdicts and provenance."""

from __future__ import annotations

import json
import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from PIL import Image, PngImagePlugin
from torch import Tensor

from energyql.attributes.predictions import Table, likeliest
from energyql.errors import ArgumentError
from energyql.files import PICTURE_SUFFIXES, check_destination, naming_target, replacing, write_json, write_tensors
from energyql.pipeline.settings import EXACT
from energyql.render.markup import Markup, element
from energyql.render.pictures import NO, YES, label_grid, picture_uri, png_bytes
from energyql.sampling import Status

MOST_PICTURES = 64
"""Most pictures that a notebook shows; a grid or a gallery shows all."""
MOST_QUERY = 300
"""Most characters of a query in a picture's alternative text."""
HOLDS = {True: "holds", False: "does not hold", None: "is not judged"}
"""Verdicts on a query, in words."""
_SIDE = 128
PER_SAMPLE = ("images", "z", "w", "index", "energy", "probabilities", "judged", "satisfied", "status")
"""The fields of a `Result` that hold an entry for each sample."""


@dataclass(frozen=True, eq=False)
class Result:
    """Samples of a query with their pictures, and the measurements of each.

    Attributes:
        images: n pictures (PIL, RGB).
        z, w: latents, (n, z_dim) and (n, w_dim), or (n, num_ws, w_dim) in W+; float32 on the CPU.
        index: number of each sample in its run, which with the seed gives the sample again, (n,) int64.
        energy: of the query at z, in nats, lower is better, (n,) float64.
        probabilities: predictions of the attribute heads, by attribute, in the form that `energyql.score` takes.
        judged: the judge's value of each attribute that it reads, (n,) bool, class names or numbers.
        satisfied: whether the judged values satisfy the query, (n,) bool; `None` where nobody judged, because the
            model has no judge, or its judge does not read an attribute of the query. Heads never judge themselves.
        status: how the sampler ended, one a sample.
        statistics: evaluations, seconds and diagnostics of the sampler; see `energyql.sampling.summarize`.
        provenance: the facts that replay this result: query, seed, model and its fingerprints, settings, versions.
    """

    images: list[Image.Image]
    z: Tensor
    w: Tensor
    index: npt.NDArray[np.int64]
    energy: npt.NDArray[np.float64]
    probabilities: dict[str, Table]
    judged: dict[str, npt.NDArray[Any]]
    satisfied: npt.NDArray[np.bool_] | None
    status: list[Status]
    statistics: dict[str, float]
    provenance: dict[str, Any] = field(repr=False)

    def __len__(self) -> int:
        return len(self.images)

    def summary(self) -> str:
        """Return one line: how many samples satisfy the query, according to whom, and at what cost."""
        failed = sum(status != Status.OK for status in self.status)
        line = self.verdict()
        if "budget" in self.provenance:
            line += f", out of {self.statistics['drawn']:.0f} drawn"
            if len(self) < self.provenance["wanted"]:
                line += (
                    f"; {self.provenance['wanted']} were wanted, but the budget of {self.provenance['budget']} ended"
                )
        return line if not failed else f"{line}; the solver could not finish {failed}"

    def verdict(self) -> str:
        """Return how many samples satisfy the query, and who says so; or why they were not judged."""
        if self.satisfied is not None:
            return f"{self.satisfied.sum()} of {len(self)} satisfy the query, says the {self.provenance['judge']}"
        line, heads = f"not judged: {self.provenance['unjudged']}", self.provenance.get("heads")
        if not len(self) or not heads:
            return line
        value = f"energy {self.energy.mean():.3g}" if self.probability is None else f"P {self.probability.mean():.2f}"
        known = [f"{name}: {score or 'quality not measured'}" for name, score in heads.items()]
        return f"{line}; mean {value} by the attribute heads ({', '.join(known)})"

    @property
    def values(self) -> dict[str, npt.NDArray[Any]]:
        """The value of each attribute, (n,): the judge's where it reads one, else the likeliest by the heads."""
        return {name: self.judged.get(name, likeliest(table)) for name, table in self.probabilities.items()}

    def __repr__(self) -> str:
        return f"<Result of {self.provenance['query']!r}: {self.summary()}>"

    def select(self, rows: Sequence[int] | npt.NDArray[np.int64]) -> Result:
        """Return the result of some of the samples, in the order of `rows`."""
        rows = np.asarray(rows, dtype=np.int64)
        selected = {name: take_rows(getattr(self, name), rows) for name in PER_SAMPLE}
        provenance = self.provenance | {"n": len(rows)}
        return replace(self, **selected, statistics=dict(self.statistics), provenance=provenance)

    @classmethod
    def join(cls, parts: Sequence[Result]) -> Result:
        """Concatenate results of one query; provenance and statistics are those of the first.

        Raises:
            ArgumentError: there are no parts.
        """
        if not parts:
            raise ArgumentError("Result.join needs at least one result; got an empty sequence")
        joined = {name: concatenate([getattr(part, name) for part in parts]) for name in PER_SAMPLE}
        provenance = parts[0].provenance | {"n": sum(map(len, parts))}
        return replace(parts[0], **joined, statistics=dict(parts[0].statistics), provenance=provenance)

    def grid(self, columns: int | None = None) -> Image.Image:
        """Draw all pictures with the probability of the query (or its energy) and the judge's verdict, if there is one.

        Raises:
            ArgumentError: `columns` is below 1.
        """
        return label_grid(
            self.images,
            title=self.provenance["query"],
            captions=self._captions(),
            verdicts=None if self.satisfied is None else self.satisfied.tolist(),
            footer=self._footer(),
            columns=columns,
        )

    @property
    def probability(self) -> npt.NDArray[np.float64] | None:
        """P(query) of each sample, exp(-energy), (n,); `None` under semantics whose energy is not -log P."""
        return np.exp(-self.energy) if self.provenance["semantics"] == EXACT else None

    def _holds(self, index: int) -> bool | None:
        return None if self.satisfied is None else bool(self.satisfied[index])

    def _captions(self) -> list[str]:
        if self.probability is None:
            return [f"E {energy:.3f}" for energy in self.energy]
        return [f"P {probability:.3f}" for probability in self.probability]

    def _footer(self) -> str:
        settings = self.provenance
        label = "" if settings.get("label") is None else f", label {settings['label']}"
        made = f"Model {settings['model']}{label}, seed {settings['seed']}, {settings['semantics']} semantics"
        return f"{self.summary()}. {made}"

    def save(self, path: str | Path) -> Path:
        """Write the labelled grid to a path that ends in .png, .jpg or .webp, or everything to a folder.

        A folder gets each picture, `grid.png`, `latents.safetensors` and `result.json`. Each file is written
        atomically. A PNG holds the provenance in its text field "energyql".

        Returns:
            The path.

        Raises:
            ArgumentError: the suffix is that of another kind of file, or the path cannot be written.
        """
        path = check_destination(Path(path))
        if not self.images:
            raise ArgumentError(
                f"there is no picture to save: {self.summary()}", hint="raise the budget, or ask for less"
            )
        with naming_target(path):
            if path.suffix.lower() in PICTURE_SUFFIXES:
                self._save_picture(self.grid(), path)
            else:
                self._save_folder(path)
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
                "satisfied": self._holds(i),
                "energy": json_value(self.energy[i]),
                "status": self.status[i].name,
                "judged": {name: json_value(values[i]) for name, values in self.judged.items()},
            }
            for i in range(len(self))
        ]
        write_json(
            folder / "result.json",
            {"provenance": self.provenance, "statistics": self.statistics, "samples": samples},
        )

    def _repr_png_(self) -> bytes:
        return png_bytes(self.grid())

    def _repr_html_(self) -> Markup:
        query, judge = self.provenance["query"], self.provenance["judge"]
        shown = [(image, self._holds(i)) for i, image in enumerate(self.images[:MOST_PICTURES])]
        tiles = [
            _tile(image, caption, holds, alternative_text(self.judged, i, len(self), judge, [(query, holds)]))
            for i, ((image, holds), caption) in enumerate(zip(shown, self._captions(), strict=False))
        ]
        more = len(self) - len(tiles)
        rows = element("div", *tiles, style="display:flex;flex-wrap:wrap;gap:10px;margin:8px 0")
        note = f"{self._footer()}. Not shown: {more:,} more" if more else self._footer()
        return element("div", element("code", query), rows, element("div", note, style="font-size:12px;opacity:.75"))


def take_rows(column: Any, rows: npt.NDArray[np.int64]) -> Any:
    """Return some rows of a list, array or tensor, or of each one in a dict or tuple of them; `None` has no rows."""
    if column is None:
        return None
    if isinstance(column, dict):
        return {name: take_rows(part, rows) for name, part in column.items()}
    if isinstance(column, tuple):
        return tuple(take_rows(part, rows) for part in column)
    return [column[i] for i in rows] if isinstance(column, list) else column[rows]


def concatenate(columns: Sequence[Any]) -> Any:
    """Concatenate lists, arrays or tensors, or those of equal dicts or tuples of them, or `None`s."""
    first = columns[0]
    if first is None:
        return None
    if isinstance(first, dict):
        return {name: concatenate([column[name] for column in columns]) for name in first}
    if isinstance(first, tuple):
        return tuple(concatenate(parts) for parts in zip(*columns, strict=True))
    if isinstance(first, list):
        return [entry for column in columns for entry in column]
    return torch.cat(list(columns)) if isinstance(first, Tensor) else np.concatenate(columns)


def reading(judged: Mapping[str, npt.NDArray[Any]], index: int, only: Iterable[str] | None = None) -> str:
    """Return the judged values of one picture, of all or `only` some attributes: "smile, hair = red; no hat, beard"."""
    present: list[str] = []
    absent: list[str] = []
    for name in judged if only is None else [name for name in only if name in judged]:
        value = judged[name][index].item()
        if isinstance(value, bool):
            (present if value else absent).append(name)
        else:
            present.append(f"{name} = {value if isinstance(value, str) else f'{value:.2f}'}")
    parts = [", ".join(present)] if present else []
    return "; ".join([*parts, f"no {', '.join(absent)}"] if absent else parts)


def alternative_text(
    judged: Mapping[str, npt.NDArray[Any]],
    index: int,
    count: int,
    judge: str | None,
    verdicts: Sequence[tuple[str, bool | None]],
) -> str:
    """Describe picture `index` of `count` in words: its values by the judge of that name, and which queries hold."""
    read = f"{judge[:1].upper()}{judge[1:]}: {reading(judged, index)}. " if judge and judged else ""
    asked = " ".join(
        f"The query {query if len(query) <= MOST_QUERY else query[:MOST_QUERY] + '…'} {HOLDS[holds]}."
        for query, holds in verdicts
    )
    return f"Picture {index + 1} of {count}. {read}{asked}"


def _tile(picture: Image.Image, caption: str, holds: bool | None, text: str) -> Markup:
    """Return a picture above its caption and its verdict, a tick or a cross, in the colours of the notebook."""
    source, style = picture_uri(picture, 2 * _SIDE), "display:block;max-width:none;border-radius:8px"
    shown = element("img", src=source, alt=text, title=text, width=_SIDE, style=style)
    mark: Markup | str = ""
    if holds is not None:
        path = "M2 6l3 4 7-9" if holds else "M2 1l9 9m0-9l-9 9"
        stroke = element("path", d=path, fill="none", stroke=YES if holds else NO, stroke_width=3)
        mark = element("svg", stroke, width=14, height=12, viewBox="0 0 14 12", aria_hidden="true")
    below = element("span", mark, " ", caption, style="font-size:12px;opacity:.85")
    return element("figure", shown, below, style=f"margin:0;width:{_SIDE}px")


def json_value(value: np.generic) -> Any:
    """Return a value as JSON has it, without NaN and infinity."""
    plain = value.item()
    return None if isinstance(plain, float) and not math.isfinite(plain) else plain
