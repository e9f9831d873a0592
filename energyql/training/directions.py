"""Directions of the latent w along which pictures vary: find and save them, draw them, and make them attributes."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from PIL import Image
from torch import Tensor

from energyql.attributes.bank import FittedCondition, FittedUnder
from energyql.attributes.heads import AttributeBank
from energyql.attributes.judge import load_judge
from energyql.attributes.pictures import heads_of
from energyql.errors import EARLIER, ArgumentError, DataError, ModelError, either
from energyql.files import as_path, fingerprint, read_json, read_tensors, sole_writer, write_json, write_tensors
from energyql.generators.base import Generator, check_fitted_condition, check_layers, device_of, show_pictures
from energyql.generators.families import CONFIG, module_fingerprint
from energyql.language.lexical import check_name
from energyql.numerics import LARGEST
from energyql.numerics.shapes import Float
from energyql.pipeline.model import Model, choose_device
from energyql.pipeline.settings import DirectionMethod, whole_number
from energyql.progress import Report, quiet, reporting
from energyql.render.pictures import Cell, label_grid
from energyql.training.foreign import add_heads, linear_head
from energyql.training.goals import edit_goals, head_numbers, learn_goals, move_along, number_goals
from energyql.training.heads import HeadSettings
from energyql.training.labels import LabelTable
from energyql.training.run import train_attributes
from energyql.training.samples import LATENTS_AT_ONCE, Prior, draw_small
from energyql.training.settings import WITH_GOALS, DirectionOptions, DirectionSettings
from energyql.training.target import AnyModel, Target, call_text, open_source, source_of
from energyql.vocabulary import AttributeSpec, Vocabulary

if TYPE_CHECKING:
    from typing_extensions import Unpack

DRAWS, DRAWS_PER_NUMBER = 8192, 32
"""Prior samples for the covariance of w: `DRAWS`, or `DRAWS_PER_NUMBER` for each number of w if that is more."""
MOST_NUMBERS = 1024
"""Largest size of w for which directions are found: memory grows with the square of the size."""
PICTURES, SIDE = 2048, 16
"""Number of pictures that the method "pictures" draws, and the side in pixels to which it reduces them."""
LEAST_VARIANCE = 1e-4
"""A principal component of w counts as constant if its variance is below this share of the largest."""
NOISE = 1.1
"""Principal components are arbitrary if all have nearly the same variance: limit of the ratio of the largest to the
smallest, as a multiple of that of isotropic noise."""

_Components = tuple[Float[Tensor, "count components"], Float[Tensor, " count"]]
"""Unit vectors in whitened coordinates (`_Whitened`), and the share (0 to 1) of each, see `find_directions`."""


def find_directions(
    model: AnyModel | Model | Target,
    method: DirectionMethod = "ganspace",
    n: int = 10,
    *,
    device: torch.device | str = "auto",
    progress: bool | Report = False,
    **options: Unpack[DirectionOptions],
) -> Directions:
    """Find directions of w along which the pictures of a generator vary. Equal calls find equal directions.

    A direction has a value, which is a linear function of w, and a `share` from 0 to 1, whose meaning depends on the
    method. Styles are the numbers that the layers of a StyleGAN compute from w.

    - `ganspace`: the principal components of w among prior samples (Härkönen et al. 2020, arXiv 2004.02546). `share` is
      the part of the variance of w along a direction.
    - `sefa`: the eigenvectors of AᵀA (Shen and Zhou 2021, arXiv 2007.06600), where A is the matrix from w to the
      styles, with rows scaled to length 1. The value is the coordinate of w along the eigenvector. `share` is the
      eigenvalue divided by the sum of all.
    - `styles`: the principal components of the styles among prior samples, as functions of w. Unlike `sefa`, it counts
      only changes that occur under the prior. `share` is the part of the variance of the styles.
    - `pictures`: the principal components of a linear function of w that is fitted to pictures of 16 pixels a side, for
      generators of any kind. `share` is the part of the variance of the function.
    - `interfacegan`: for each attribute, the linear function of w that is nearest to the output of its head. (Shen et
      al. 2020, arXiv 1907.10786, separate labels by a plane instead.) `share` is R2 of the linear function.
    - `steerability`: for each edit in `energyql.training.goals.EDITS`, such as zoom, the direction along which pictures
      change as if they were edited (Jahanian et al. 2020, arXiv 1907.07171).
    - `ganalyze`: for each number that a labeller or the model's judge reads off pictures, the direction along which it
      rises most evenly (GANalyze, Goetschalckx et al. 2019, arXiv 1906.10112).

    The last two learn by gradients through the generator. Their `share` is 1 - e / u, at least 0, on samples that were
    not learned from: e is the squared error of pictures moved along the direction, u that of unchanged pictures.

    Args:
        model: as for `train_attributes`; or a `Model`, or a `Target` from `open_source`.
        method: one of the methods above.
        n: number of directions; for the last three methods the largest number.
        device, progress: see `train_attributes`.
        options: further fields of `DirectionSettings` by name, such as `goals` or `layers`.

    Raises:
        ArgumentError: an argument has a wrong value; there is no such device, layer or goal; the method needs styles,
            heads or a judge, which are missing; or w varies in fewer directions than `n`, or alike in all.
        DataError: the labeller does not return the same finite numbers, one for each picture, in every call.
    """
    asked = DirectionSettings(method=method, n=n, **options)
    n, goals, labeller, truncation = asked.n, asked.goals, asked.labeller, asked.truncation
    device = choose_device(device)
    source = open_source(model)
    network, heads = source.generator, source.bank if isinstance(source.bank, AttributeBank) else None
    layers = None if asked.layers is None else check_layers(asked.layers, network)
    weights = _style_weights(network, layers, method) if method in ("sefa", "styles") else None
    psi = source.psi if truncation is None else (truncation, truncation)
    prior = source.prior(DIRECTIONS_SEED, source.fitted("w", psi, asked.condition), device)
    titles, learned = tuple(map(str, range(n))), {}
    if method == "steerability":
        learned = edit_goals(goals, n)
    elif method == "ganalyze":
        if labeller is None and isinstance(model, Model):
            labeller = model.judge
        elif labeller is None and source.folder != Path():
            labeller = load_judge(source.folder)
        learned = number_goals(labeller, goals, n, prior)
    elif method == "interfacegan":
        titles = tuple(head_numbers(prior, heads, 1, goals, n))  # refuses wrong goals before samples are drawn
    with reporting(progress) as report:
        space = _Whitened.of(prior, report)
        if learned:
            titles = tuple(learned)
            steps, share = learn_goals(learned, prior, space.scaled, layers, report)
            inner = steps / steps.norm(dim=1, keepdim=True)
        elif method == "interfacegan":
            outputs = head_numbers(prior, heads, len(space.samples), goals, n)
            inner, share = space.nearest(torch.stack(list(outputs.values()), 1).double())
        elif method == "ganspace":
            inner, share = space.own()
        elif weights is None:
            _check_count(space.variances, n)  # before pictures are drawn
            inner, share = _eigenvectors(space.slopes(draw_small(prior, PICTURES, SIDE, report)))
        else:
            inner, share = space.along(weights) if method == "sefa" else _eigenvectors(weights @ space.scaled)
        if method not in WITH_GOALS:
            _check_count(inner, n)
    return space.directions(
        inner[:n], share[:n], method=method, titles=titles, layers=layers, truncation=psi,
        condition=prior.fitted.condition, generator=module_fingerprint(network),
    )  # fmt: skip


def _check_count(components: Tensor, count: int) -> None:
    if len(components) < count:
        raise ArgumentError(f"w varies in {len(components)} directions only, not {count}", hint="ask for fewer")


@dataclass(frozen=True)
class _Whitened:
    """Coordinates of w (float64) in which prior samples have mean 0 and covariance 1: all directions vary equally.

    Attributes:
        samples: prior samples in these coordinates, (n, components).
        variances: variances of the principal components of w that are not constant, (components,), descending.
        axes: unit vectors of these components, (w_dim, components).
    """

    samples: Tensor
    mean: Tensor
    variances: Tensor
    axes: Tensor

    @classmethod
    def of(cls, prior: Prior, report: Report) -> _Whitened:
        """Whiten w by samples from the prior, without components along which it hardly varies."""
        size = prior.w(torch.arange(1)).shape[1]
        if size > MOST_NUMBERS:
            raise ArgumentError(f"w has {size} numbers, and directions are found among at most {MOST_NUMBERS}")
        parts = torch.arange(max(DRAWS, DRAWS_PER_NUMBER * size)).split(8 * LATENTS_AT_ONCE)
        blocks = []
        for i, part in enumerate(parts):
            blocks.append(prior.w(part).double())
            report("sampling", (i + 1) / len(parts))
        w = torch.cat(blocks)
        if not w.isfinite().all():
            raise ArgumentError("the generator maps prior samples to numbers that are not finite")
        mean = w.mean(0)
        variances, axes = (part.flip(-1) for part in torch.linalg.eigh(torch.cov(w.t()).reshape(size, size)))
        if not variances[0] > 0:
            raise ArgumentError("w is the same for all samples of this prior", hint="choose another truncation")
        size = int((variances > LEAST_VARIANCE * variances[0]).sum())
        variances, axes = variances[:size], axes[:, :size]
        return cls((w - mean) @ axes / variances.sqrt(), mean, variances, axes)

    @property
    def scaled(self) -> Tensor:
        """Matrix (w_dim, components) that maps whitened coordinates to differences of w."""
        return self.axes * self.variances.sqrt()

    def own(self) -> _Components:
        """Principal components of w; raise an error if they are arbitrary, as their variances are nearly equal."""
        size, ratio = len(self.variances), (len(self.variances) / len(self.samples)) ** 0.5
        noise = ((1 + ratio) / (1 - ratio)) ** 2  # Marchenko and Pastur 1967
        if self.variances[0] < NOISE * noise * self.variances[-1]:
            hint = 'the method "pictures" finds directions by what they change'
            raise ArgumentError("w varies alike in all directions: its principal components are arbitrary", hint=hint)
        return torch.eye(size, dtype=torch.double), self.variances / self.variances.sum()

    def along(self, weights: Float[Tensor, "styles w_dim"]) -> _Components:
        """Directions of "sefa", without those along which w hardly varies."""
        vectors, share = _eigenvectors(weights / weights.norm(dim=1, keepdim=True).clamp(min=1e-12))
        inner = vectors @ self.scaled
        spread = inner.norm(dim=1)
        varies = spread.square() > LEAST_VARIANCE * self.variances[0]
        return inner[varies] / spread[varies, None], share[varies]

    def slopes(self, values: Float[Tensor, "n outputs"]) -> Float[Tensor, "outputs components"]:
        """Coefficients of the least-squares regression of `values`, such as pixels, on the whitened coordinates.

        Both are those of the first n samples, centred on them, so there is no intercept.
        """
        x = self.samples[: len(values)]
        solution: Tensor = torch.linalg.lstsq(x - x.mean(0), values - values.mean(0)).solution
        return solution.t()

    def nearest(self, outputs: Float[Tensor, "n outputs"]) -> _Components:
        """Regression of each output of heads on w, as a direction whose share is R2, for "interfacegan"."""
        slopes = self.slopes(outputs)
        size = slopes.norm(dim=1)
        return slopes / size[:, None].clamp(min=1e-12), size.square() / outputs.var(0).clamp(min=1e-12)

    def directions(self, inner: Tensor, share: Tensor, **described: Any) -> Directions:
        """Convert directions in whitened coordinates to `Directions`, which are for w itself.

        Where there are no goals, signs are arbitrary: the largest number of each row of `move` is made positive.

        Args:
            inner: unit vectors, (count, components).
            described: other fields of `Directions`, by name.
        """
        move = inner @ self.scaled.t()
        if described["method"] not in WITH_GOALS:  # eigenvectors have no sign of their own
            sign = move.gather(1, move.abs().argmax(1, keepdim=True)).sign()
            inner, move = sign * inner, sign * move
        normal = inner @ (self.axes / self.variances.sqrt()).t()
        ranks = torch.tensor([round(share * (len(self.samples) - 1)) for share in QUANTILES])
        parts = {
            "normal": normal, "offset": -normal @ self.mean, "move": move, "share": share,
            "quantiles": (self.samples @ inner.t()).sort(0).values[ranks].t(),
        }  # fmt: skip
        described |= {name: part.float().contiguous() for name, part in parts.items()}
        return Directions(**described)


def _eigenvectors(rows: Float[Tensor, "outputs inputs"]) -> _Components:
    """Eigenvectors of rowsᵀ rows, the largest eigenvalue first, and the share of each eigenvalue in their sum."""
    values, vectors = torch.linalg.eigh(rows.t() @ rows)
    values = values.flip(0).clamp(min=0)
    return vectors.flip(1).t(), values / values.sum().clamp(min=1e-300)


def _style_weights(generator: Generator, layers: Sequence[int] | None, method: str) -> Float[Tensor, "styles w_dim"]:
    """Matrix from w to the styles of a StyleGAN (float64), or an error that names `method` for other generators."""
    affines = getattr(getattr(generator, "synthesis", None), "affines", None)
    if affines is None:
        name = type(generator).__name__
        raise ArgumentError(f"{method} reads the maps from w to styles, which a {name} does not have; a StyleGAN does")
    affines = affines if layers is None else [affines[layer] for layer in layers]
    return torch.cat([affine.weight.detach().cpu().double() * affine.weight_gain for affine in affines])


RECORD, TENSORS, PAGE = "directions.json", "directions.safetensors", "directions.png"
FORMAT = 1
DIRECTIONS_SEED = 2**32 + 1
"""Seed of the prior samples in which directions are found: larger than those with which users usually draw."""
STD = 0.1
"""Standard deviation that the head of a direction predicts: with 0, conditions would have no gradient at their
limit."""
LABELS, HIDDEN = 40_000, 256
"""Where heads do not read w, a direction's head is fitted to this many prior samples, with this many hidden units."""
RANGE, TOLERANCE = 4.0, 0.25
"""In standard deviations, for attributes of directions: their range is ±`RANGE`, and `=` holds within the tolerance."""
QUANTILES = (0.01, 0.16, 0.5, 0.84, 0.99)
"""Shares of the prior samples below the values at which `draw_directions` draws. Multiples of the standard deviation
would not do: beyond the range of the values pictures break."""
ROWS, TILE, AT_ONCE = 2, 128, 8
"""For `draw_directions`: samples in a row, largest side of a picture in pixels, pictures in a call of the generator."""
_PARTS = ("normal", "offset", "move", "share", "quantiles")


@dataclass(frozen=True, eq=False)
class Directions:
    """Directions of w, the largest share first; or, if the method has goals, in the order of the goals.

    The value of direction i is `normal[i] @ w + offset[i]`, which has mean 0 and standard deviation 1 under the prior.
    If the values of two prior samples differ by 1, their w differ by `move[i]` on average; an edit by 1 adds that to w.

    Attributes:
        method: see `find_directions`.
        move: the covariance of w times `normal`.
        share: how much a direction explains, or how well it reaches its goal, 0 to 1, see `find_directions`.
        quantiles: the values below which 1, 16, 50, 84 and 99 % of the prior samples lie.
        titles: the index of each direction, such as "0"; or the name of its goal.
        layers: layers of the generator in which pictures are moved; `None` for all.
        truncation: range (low, high) of psi of the prior samples.
        condition: condition of the prior samples, or "random"; `None` for a generator without classes.
        generator: fingerprint of the generator; "" for one that is no torch module.

    Raises:
        ArgumentError: a tensor is not finite, not float32 or of another shape; or titles, layers or psi are wrong.
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
    condition: FittedCondition
    generator: str

    def __post_init__(self) -> None:
        if not self.titles:
            raise ArgumentError("there are no directions")
        for text in (self.method, *self.titles):
            check_name(text, "the method or the title of a direction")
        count, size = len(self.titles), self.normal.shape[-1:]
        for name, axes in zip(_PARTS, (size, (), size, (), (len(QUANTILES),)), strict=True):
            part, shape = getattr(self, name), (count, *axes)
            if part.dtype != torch.float32 or part.shape != shape or not part.isfinite().all():
                raise ArgumentError(f"{name} of {count} directions must be finite numbers, float32, of shape {shape}")
        if self.layers is not None and not all(type(layer) is int and layer >= 0 for layer in self.layers):
            raise ArgumentError(f"layers are whole numbers from 0, not {self.layers!r}")
        if not -LARGEST <= self.truncation[0] <= self.truncation[1] <= LARGEST:
            raise ArgumentError(f"{self.truncation} is no range of truncation")

    def __len__(self) -> int:
        return len(self.offset)

    def values(self, w: Float[Tensor, "batch w_dim"]) -> Float[Tensor, "batch count"]:
        """Value of each direction at each w, in standard deviations of the prior."""
        return w @ self.normal.to(w).t() + self.offset.to(w)

    def prior(self, generator: Generator, seed: int, device: torch.device | str) -> Prior:
        """Prior samples of `generator` under the truncation and the condition of the directions."""
        fitted = FittedUnder("w", self.truncation, self.condition, self.generator)
        return Prior(generator, seed, fitted, torch.device(device))

    def check_generator(self, generator: Generator) -> None:
        """Raise an `ArgumentError` if `generator` is not the one of the directions, or lacks their condition."""
        if self.generator != module_fingerprint(generator):
            hint = f"find its own directions, or give the {either('model', '--model')} that they were found from"
            raise ArgumentError("the directions were found from another generator", hint=hint)
        check_fitted_condition(self.condition, generator)

    def save(self, folder: str | Path) -> None:
        """Write `directions.safetensors` and `directions.json` to a folder. No file is ever half written."""
        path = as_path(folder) / TENSORS
        rows = zip(self.titles, self.share.tolist(), self.quantiles.tolist(), strict=True)
        with sole_writer(path.parent, "directions"):
            write_tensors(path, {name: getattr(self, name) for name in _PARTS})
            record = {
                "format": FORMAT, "method": self.method, "generator": self.generator, "truncation": self.truncation,
                "condition": self.condition, "layers": self.layers, "tensors": fingerprint(path),
                "directions": [{"title": title, "share": share, "quantiles": values} for title, share, values in rows],
            }  # fmt: skip
            write_json(path.with_name(RECORD), record)

    @classmethod
    def load(cls, folder: str | Path) -> Directions:
        """Read directions that `save` wrote to a folder.

        Raises:
            DataError: one of the two files is missing or damaged, or they were not written together.
        """
        path, hint = as_path(folder) / RECORD, "find the directions again with energyql directions"
        try:
            data, parts = read_json(path), read_tensors(path.with_name(TENSORS))
            if "condition" not in data:
                raise DataError(f"{path} {EARLIER}", hint=hint)
            titles = tuple(each["title"] for each in data["directions"])
            layers, condition, (low, high) = data["layers"], data["condition"], data["truncation"]
            if data["format"] != FORMAT or data["tensors"] != fingerprint(path.with_name(TENSORS)):
                raise ValueError(f"it does not fit {TENSORS}")
            return cls(
                data["method"], **parts, titles=titles, truncation=(low, high),
                layers=None if layers is None else tuple(layers), generator=str(data["generator"]),
                condition=tuple(condition) if isinstance(condition, list) else condition,
            )  # fmt: skip
        except (ModelError, ArgumentError) as error:
            raise DataError(f"{folder} holds no directions: {error.message}", hint=hint) from error
        except (KeyError, TypeError, ValueError, AttributeError) as error:
            raise DataError(f"{path} is damaged: {error}", hint=hint) from error


def name_directions(
    directions: Directions,
    names: Mapping[int, str],
    model: AnyModel,
    out: str | Path | None = None,
    *,
    replace: bool = False,
    device: torch.device | str = "auto",
    progress: bool = False,
) -> AttributeBank:
    """Make continuous attributes of directions, and add them to the attributes of a model folder.

    The value of an attribute is that of its direction, in standard deviations of the prior. Where the model's heads
    read w, or there are none yet, its head is linear and exact, and has no report. Otherwise a head is fitted to the
    values of 40,000 prior samples, and has a report. No judge is trained for the new attributes.

    Args:
        directions: directions of the generator of this model.
        names: index of a direction (from 0) -> name of the attribute, such as {3: "smile"}.
        out: the model folder to make or to add to; by default the folder of `model`.
        replace: whether the new attributes may replace old ones of the same name.
        model, device, progress: see `train_attributes`.

    Returns:
        All heads of the folder, old and new.

    Raises:
        ArgumentError: there is no such direction or device; a name is blank or not a text; the directions are of
            another generator; or the model reads its attributes off pictures.
        VocabularyError: the model already has an attribute of one of these names, and `replace` is false.
        ModelError: the heads of the model are valid at another truncation or condition than the directions.
    """
    if not isinstance(names, Mapping) or not names:
        raise ArgumentError("name at least one direction", hint="such as " + either('{3: "smile"}', "--name 3=smile"))
    for number, name in names.items():
        if type(number) is not int or not 0 <= number < len(directions):
            raise ArgumentError(f"there is no direction {number!r}", hint=f"numbers are 0 to {len(directions) - 1}")
        if not check_name(name, f"the name of direction {number}").strip():
            raise ArgumentError(f"the name of direction {number} is blank")
    device = choose_device(device)
    has_target = out is not None and (Path(out) / CONFIG).is_file()
    place = dataclasses.replace(source_of(model), model=Path(out)) if out is not None and has_target else model
    source = open_source(place)
    directions.check_generator(source.generator)
    space = "w" if source.bank is None else heads_of(source.bank, "an attribute by directions").space
    specs = Vocabulary(_spec(directions, number, name) for number, name in names.items())
    if space == "w":
        fitted = FittedUnder(space, directions.truncation, directions.condition)
        normal, offset = directions.normal, directions.offset[:, None]
        heads = {name: linear_head(normal[i].clone(), offset[i].clone(), STD) for i, name in names.items()}
        return add_heads(model, AttributeBank(specs, heads, fitted=fitted), out, replace=replace)
    source.check_names(list(names.values()), replace)
    prior, index = directions.prior(source.generator, DIRECTIONS_SEED, device), torch.arange(LABELS)
    values = directions.values(prior.w(index)).t()
    table = LabelTable({name: values[number].tolist() for number, name in names.items()}, latents=prior.z(index))
    trained = train_attributes(
        model, table, out, vocabulary=specs, judge=None, settings=HeadSettings(hidden=HIDDEN), replace=replace,
        space=space, truncation=directions.truncation, condition=directions.condition,
        device=device, progress=progress, command=call_text("name_directions", model, out),
    )  # fmt: skip
    return heads_of(trained.bank, "an attribute by directions")


def _spec(directions: Directions, number: int, name: str) -> AttributeSpec:
    """A continuous attribute of a direction, described by its method, title and range of values."""
    title = directions.titles[number]
    layers = "" if directions.layers is None else f", layers {', '.join(map(str, directions.layers))}"
    low, *_, high = directions.quantiles[number].tolist()
    meaning = f"{directions.method} {title}{layers}, in standard deviations: 98 % lie from {low:.1f} to {high:.1f}"
    return AttributeSpec(name, "continuous", low=-RANGE, high=RANGE, tolerance=TOLERANCE, description=meaning)


@torch.no_grad()
def draw_directions(
    directions: Directions,
    generator: Generator,
    *,
    seed: int = 0,
    rows: int = ROWS,
    report: Report = quiet,
) -> Image.Image:
    """Draw a page of pictures: each row shows prior samples that are moved along one direction.

    Each sample is drawn at five values: those below which 1, 16, 50, 84 and 99 % of the prior samples lie.

    Args:
        generator: the generator of the directions, which draws the pictures on its device.
        seed: seed of the prior samples.
        rows: number of prior samples side by side in each row of the page.
        report: function that is called with the stage and the fraction done.

    Raises:
        ArgumentError: the directions are of another generator, it has no such layers, or seed or rows are wrong.
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
        for picture in show_pictures(generator, generator.synthesize(part.to(device))):
            picture.thumbnail((TILE, TILE), Image.Resampling.LANCZOS)
            pictures.append(picture)
        report("drawing", len(pictures) / len(moved))
    texts = zip(directions.titles, directions.quantiles.tolist(), strict=True)
    captions = [f"{title}:  {value:+.1f}" for title, values in texts for value in rows * values]
    return label_grid(
        [Cell(picture, caption) for picture, caption in zip(pictures, captions, strict=True)],
        columns=rows * len(QUANTILES), title=f"Directions by {directions.method}",
        footer="Each row: samples moved along one direction to values below which 1, 16, 50, 84 and 99 % of all lie.",
    )  # fmt: skip
