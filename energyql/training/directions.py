"""Directions of w in standard deviations of the prior: stored in a folder, drawn on a page, and named as attributes."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from PIL import Image
from torch import Tensor

from energyql.attributes.bank import AttributeBank, FittedLabel
from energyql.attributes.heads import Head
from energyql.attributes.pictures import heads_of
from energyql.errors import ArgumentError, DataError, ModelError
from energyql.files import as_path, fingerprint, read_json, read_tensors, write_json, write_tensors
from energyql.generators.base import Generator, check_fitted_label, check_layers, device_of
from energyql.generators.families import CONFIG, module_fingerprint
from energyql.language.lexical import check_name
from energyql.numerics.shapes import Float
from energyql.pipeline.model import choose_device
from energyql.pipeline.settings import whole_number
from energyql.progress import Report
from energyql.render.pictures import label_grid, to_pictures
from energyql.training.fitting import HeadSettings
from energyql.training.foreign import add_heads
from energyql.training.goals import move_along
from energyql.training.labels import LabelTable
from energyql.training.opening import open_source
from energyql.training.run import train_attributes
from energyql.training.samples import Prior
from energyql.vocabulary import AttributeSpec, Vocabulary

RECORD, TENSORS, PAGE = "directions.json", "directions.safetensors", "directions.png"
FORMAT = 1
DIRECTIONS_SEED = 2**32 + 1
"""Seed of the prior samples, outside the range of seeds that pictures are usually drawn with."""
STD = 0.1
"""Deviation of the value that an exact head predicts: a boundary of this width gives samplers a gradient to follow."""
LABELS, HIDDEN = 40_000, 256
"""Prior samples that other heads of directions are fitted to, which need no labels, and the width of the heads."""
RANGE, TOLERANCE = 4.0, 0.25
"""Of named directions: queries compare values from -4 to 4, and `=` holds within a quarter of a standard deviation."""
QUANTILES = (0.01, 0.16, 0.5, 0.84, 0.99)
"""Shares of the prior samples below the values that the page shows. These are not multiples of the standard deviation,
because a value may be far from normal, and beyond its range pictures break."""
ROWS, TILE, AT_ONCE = 2, 128, 8
"""Pictures that the page moves along each direction, their largest side on it, and how many are drawn together."""
_PARTS = ("normal", "offset", "move", "share", "quantiles")


@dataclass(frozen=True, eq=False)
class Directions:
    """Directions of w, the most important first.

    The value of direction i is `normal[i] @ w + offset[i]`. Under the prior its mean is 0 and its standard deviation 1.
    Among prior samples, w moves by `move[i]` on average where the value rises by 1; queries and edits of the value do
    the same.

    Attributes:
        method: that found them; see `find_directions`.
        normal: (count, w_dim).
        offset: (count,).
        move: (count, w_dim), the covariance of w times `normal`.
        share: how much each accounts for, (count,), from 0 to 1; of what, depends on the method, see `find_directions`.
        quantiles: of the value among prior samples, (count, 5): 1, 16, 50, 84 and 99 % lie below.
        titles: one each: its number, or the attribute whose head it follows.
        layers: rows of W+ to which the pictures of a direction restrict the move; `None` for all.
        truncation: range of psi of the prior samples.
        label: their class label, as heads have it.
        generator: fingerprint of the generator; "" for one that is no torch module.

    Raises:
        ArgumentError: tensors are not finite, not float32 or of other shapes; titles, layers or truncation are wrong.
    """

    method: str
    normal: Float[Tensor, "count w_dim"]
    offset: Float[Tensor, " count"]
    move: Float[Tensor, "count w_dim"]
    share: Float[Tensor, " count"]
    quantiles: Float[Tensor, "count 5"]
    titles: tuple[str, ...]
    layers: tuple[int, ...] | None
    truncation: tuple[float, float]
    label: FittedLabel
    generator: str

    def __post_init__(self) -> None:
        if not self.titles:
            raise ArgumentError("there are no directions")
        for text in (self.method, *self.titles):
            check_name(text, "the method or the title of a direction")
        count, size = len(self.titles), self.normal.shape[-1] if self.normal.ndim else 0
        shapes: dict[str, tuple[int, ...]] = dict.fromkeys(_PARTS, (count,)) | {"quantiles": (count, len(QUANTILES))}
        for name, shape in (shapes | dict.fromkeys(("normal", "move"), (count, size))).items():
            part = getattr(self, name)
            if part.dtype != torch.float32 or part.shape != shape or not part.isfinite().all():
                raise ArgumentError(f"{name} of {count} directions must be finite numbers, float32, of shape {shape}")
        if self.layers is not None and not all(type(layer) is int and layer >= 0 for layer in self.layers):
            raise ArgumentError(f"layers are whole numbers from 0, not {self.layers!r}")
        if not -math.inf < self.truncation[0] <= self.truncation[1] < math.inf:
            raise ArgumentError(f"{self.truncation} is no range of truncation")

    def __len__(self) -> int:
        return len(self.offset)

    def values(self, w: Float[Tensor, "batch w_dim"]) -> Float[Tensor, "batch count"]:
        """Return the value of each direction, in standard deviations of the prior."""
        return w @ self.normal.to(w).t() + self.offset.to(w)

    def prior(self, generator: Generator, seed: int, device: torch.device | str) -> Prior:
        """Return the prior of the directions."""
        return Prior(generator, seed, self.truncation, torch.device(device), self.label)

    def check_generator(self, generator: Generator) -> None:
        """Raise an `ArgumentError` if the directions are those of another generator, or of a label that it lacks."""
        if self.generator != module_fingerprint(generator):
            raise ArgumentError(
                "the directions were found from another generator",
                hint="find those of this one with energyql directions, or give the model that they were found from, "
                "--model",
            )
        check_fitted_label(self.label, generator)

    def save(self, folder: str | Path) -> None:
        """Write `directions.safetensors` and `directions.json`, each whole or not at all."""
        path = as_path(folder) / TENSORS
        write_tensors(path, {name: getattr(self, name) for name in _PARTS})
        each = zip(self.titles, self.share.tolist(), self.quantiles.tolist(), strict=True)
        record = {
            "format": FORMAT, "method": self.method, "generator": self.generator, "truncation": self.truncation,
            "label": self.label, "layers": self.layers, "tensors": fingerprint(path),
            "directions": [{"title": title, "share": share, "quantiles": values} for title, share, values in each],
        }  # fmt: skip
        write_json(as_path(folder) / RECORD, record)

    @classmethod
    def load(cls, folder: str | Path) -> Directions:
        """Read what `save` wrote.

        Raises:
            DataError: a file is missing or damaged, or does not fit the other.
        """
        path, hint = as_path(folder) / RECORD, "find the directions again with energyql directions"
        try:
            data, parts = read_json(path), read_tensors(path.with_name(TENSORS))
            titles = tuple(each["title"] for each in data["directions"])
            layers, label, (low, high) = data["layers"], data["label"], data["truncation"]
            if data["format"] != FORMAT or data["tensors"] != fingerprint(path.with_name(TENSORS)):
                raise ValueError(f"it does not fit {TENSORS}")
            return cls(
                data["method"], **parts, titles=titles, truncation=(low, high),
                layers=None if layers is None else tuple(layers),
                label=tuple(label) if isinstance(label, list) else label, generator=str(data["generator"]),
            )  # fmt: skip
        except (ModelError, ArgumentError) as error:
            raise DataError(f"{folder} holds no directions: {error.message}", hint=hint) from error
        except (KeyError, TypeError, ValueError, AttributeError) as error:
            raise DataError(f"{path} is damaged: {error}", hint=hint) from error


def name_directions(
    directions: Directions,
    names: Mapping[int, str],
    model: str | Path | Generator,
    out: str | Path | None = None,
    *,
    replace: bool = False,
    generator: str | None = None,
    allow_plugins: bool = False,
    device: torch.device | str = "cpu",
    progress: bool = False,
) -> AttributeBank:
    """Make continuous attributes of directions, in a model folder, beside the attributes that it has.

    The value of such an attribute is that of the direction, in standard deviations of the prior. All heads of a folder
    read the same latent. If this is w, or if there are no heads yet, the head of a direction is linear and exact, and
    has no report. Otherwise the head is fitted like those of `train_attributes`, to the values of `LABELS` prior
    samples, and has a report. No judge reads the attribute.

    Args:
        directions: found from the generator of this model.
        names: number of a direction, from 0 -> name of the attribute.
        model: the model, as for `train_attributes`.
        out: the model folder to make or to add to; by default that of `model`.
        replace: whether the names may replace attributes.
        generator: name of the generator's code, for a model folder that only names it.
        allow_plugins: whether to import the generator that the model folder names.
        device: where to fit, as for `find_directions`.
        progress: show progress bars.

    Returns:
        All heads of the folder.

    Raises:
        ArgumentError: there is no such direction, name or device, or the directions are those of another generator.
        VocabularyError: the model has an attribute of that name already.
        ModelError: heads of the model hold for samples of another truncation or label.
    """
    if not isinstance(names, Mapping) or not names:
        raise ArgumentError("name at least one direction", hint='such as {3: "smile"}, or --name 3=smile')
    if wrong := [number for number in names if type(number) is not int or not 0 <= number < len(directions)]:
        raise ArgumentError(f"there is no direction {wrong[0]!r}", hint=f"numbers are 0 to {len(directions) - 1}")
    names = {number: check_name(name, f"the name of direction {number}") for number, name in names.items()}
    if blank := [number for number, name in names.items() if not name.strip()]:
        raise ArgumentError(f"the name of direction {blank[0]} is blank", hint="give it one such as smile")
    device = choose_device(device)
    there = out is not None and (Path(out) / CONFIG).is_file()
    place = Path(out) if out is not None and there else model
    source = open_source(place, generator=generator, allow_plugins=allow_plugins)
    directions.check_generator(source.generator)
    space = "w" if source.bank is None else heads_of(source.bank, "an attribute by directions").space
    specs = Vocabulary(_spec(directions, number, name) for number, name in names.items())
    fixed: dict[str, Any] = {
        "space": space, "truncation": directions.truncation, "label": directions.label, "replace": replace,
        "generator": generator, "allow_plugins": allow_plugins,
    }  # fmt: skip
    if space == "w":
        heads = {name: _linear_head(directions, number) for number, name in names.items()}
        return add_heads(model, specs, heads, out, **fixed)
    source.check_names(list(names.values()), replace)
    prior = directions.prior(source.generator, DIRECTIONS_SEED, device)
    index = torch.arange(LABELS)
    values = directions.values(prior.w(index)).t()
    table = LabelTable({name: values[number].tolist() for number, name in names.items()}, latents=prior.z(index))
    settings = HeadSettings(hidden=HIDDEN)
    trained = train_attributes(
        model, table, out, vocabulary=specs, judge=None, settings=settings, device=device, progress=progress, **fixed
    )
    return heads_of(trained.bank, "an attribute by directions")


def _spec(directions: Directions, number: int, name: str) -> AttributeSpec:
    title = directions.titles[number]
    layers = "" if directions.layers is None else f", layers {', '.join(map(str, directions.layers))}"
    low, *_, high = directions.quantiles[number].tolist()
    meaning = f"{directions.method} {title}{layers}, in standard deviations: 98 % lie from {low:.1f} to {high:.1f}"
    return AttributeSpec(name, "continuous", low=-RANGE, high=RANGE, tolerance=TOLERANCE, description=meaning)


def _linear_head(directions: Directions, number: int) -> Head:
    """Return the value of a direction as a head on w."""
    normal, offset, none = directions.normal[number], directions.offset[number], torch.zeros(0)
    return Head(
        none.view(0, len(normal)), none, none.view(1, 0), normal[None].clone(), offset[None].clone(), torch.tensor(STD)
    )


@torch.no_grad()
def draw_directions(
    directions: Directions,
    generator: Generator,
    *,
    seed: int = 0,
    rows: int = ROWS,
    report: Report = lambda stage, fraction: None,
) -> Image.Image:
    """Draw a page with a row for each direction: prior samples moved along it to the `quantiles` of the value.

    Args:
        directions: of this generator.
        generator: draws the pictures, on its device.
        seed: of the prior samples.
        rows: how many of them stand side by side.
        report: told the progress.

    Raises:
        ArgumentError: the directions are those of another generator or of other layers, or seed or rows are wrong.
    """
    rows, seed = whole_number("rows", rows), whole_number("seed", seed, least=0, most=2**64 - 1)
    directions.check_generator(generator)
    layers = None if directions.layers is None else check_layers(directions.layers, generator)
    device = device_of(generator) or torch.device("cpu")
    w = directions.prior(generator, seed, device).w(torch.arange(rows))
    steps = directions.quantiles[:, None] - directions.values(w).t()[:, :, None]
    moves = (steps[..., None] * directions.move[:, None, None]).flatten(0, 2)
    moved = w[:, None].expand(-1, len(QUANTILES), -1).flatten(0, 1).repeat(len(directions), 1)
    moved = move_along(moved, moves, layers, generator)
    pictures: list[Image.Image] = []
    for part in moved.split(AT_ONCE):
        for picture in to_pictures(generator.synthesize(part.to(device))):
            picture.thumbnail((TILE, TILE), Image.Resampling.LANCZOS)
            pictures.append(picture)
        report("drawing", len(pictures) / len(moved))
    captions = [
        f"{title}:  {value:+.1f}"
        for title, values in zip(directions.titles, directions.quantiles.tolist(), strict=True)
        for value in rows * values
    ]
    return label_grid(
        pictures, captions=captions, columns=rows * len(QUANTILES), title=f"Directions by {directions.method}",
        footer="Each row: samples moved along one direction to values below which 1, 16, 50, 84 and 99 % of all lie.",
    )  # fmt: skip
