"""Directions of the latent w along which pictures vary: find and save them, draw them, and make them attributes."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, get_args

import torch
from PIL import Image
from torch import Tensor

from energyql.attributes.bank import FittedCondition, FittedUnder
from energyql.attributes.heads import AttributeBank
from energyql.attributes.judge import load_judge
from energyql.attributes.labels import ImageLabeller
from energyql.attributes.pictures import heads_of
from energyql.errors import ArgumentError, DataError, ModelError
from energyql.files import as_path, fingerprint, read_json, read_tensors, sole_writer, write_json, write_tensors
from energyql.generators.base import Generator, check_fitted_condition, check_layers, device_of, show_pictures
from energyql.generators.families import CONFIG, module_fingerprint
from energyql.language.lexical import check_name
from energyql.numerics import LARGEST
from energyql.numerics.shapes import Float
from energyql.pipeline.model import Model, choose_device
from energyql.pipeline.settings import DirectionMethod, finite_number, whole_number
from energyql.progress import Report, reporting
from energyql.renamed import renamed, takes_label
from energyql.render.pictures import label_grid
from energyql.training.foreign import add_heads, linear_head
from energyql.training.goals import edit_goals, head_numbers, learn_goals, move_along, number_goals
from energyql.training.heads import HeadSettings
from energyql.training.labels import LabelTable
from energyql.training.run import train_attributes
from energyql.training.samples import LATENTS_AT_ONCE, Prior, draw_small
from energyql.training.target import Source, Target, call_text, open_source
from energyql.vocabulary import AttributeSpec, Vocabulary

WITH_GOALS = ("interfacegan", "steerability", "ganalyze")
"""Methods that find one direction for each goal, such as an attribute or an edit. For these methods, the argument
`count` of `find_directions` is the largest number of goals."""
DRAWS, DRAWS_PER_NUMBER = 8192, 32
"""The covariance of w is estimated from `DRAWS` prior samples, or from `DRAWS_PER_NUMBER` times the size of w, if that
is more."""
MOST_NUMBERS = 1024
"""Largest size of w for which directions are found: memory grows with the square of the size."""
PICTURES, SIDE = 2048, 16
"""Number of pictures that the method "pictures" draws, and the side in pixels to which it reduces them."""
LEAST_VARIANCE = 1e-4
"""A principal component of w counts as constant if its variance is less than this share of the largest variance."""
NOISE = 1.1
"""Principal components are arbitrary if w varies equally in all directions. They count as arbitrary if the ratio of the
largest to the smallest variance is below a limit. The limit is `NOISE` times the ratio that the same number of samples
of an isotropic distribution would have."""

_Components = tuple[Float[Tensor, "count components"], Float[Tensor, " count"]]
"""Directions, and the share of each. Directions are unit vectors in whitened coordinates, in which w has covariance 1.
A share is a number from 0 to 1, how much of what the method explains lies along the direction."""


@takes_label
def find_directions(
    model: str | Path | Generator | Model | Target,
    method: DirectionMethod = "ganspace",
    count: int = 10,
    *,
    goals: Sequence[str] | None = None,
    labeller: ImageLabeller | None = None,
    layers: Sequence[int] | None = None,
    truncation: float | None = None,
    condition: int | Sequence[float] | str | None = None,
    generator: str | None = None,
    allow_plugins: bool = False,
    device: torch.device | str = "cpu",
    progress: bool | Report = False,
) -> Directions:
    """Find directions of w along which the pictures of a generator vary. Equal calls find equal directions.

    A direction has a value, which is a linear function of w, and a `share` from 0 to 1, whose meaning depends on the
    method. Styles are the numbers that the layers of a StyleGAN compute from w.

    - `ganspace`: the principal components of w among prior samples (Härkönen et al. 2020, arXiv 2004.02546). `share` is
      the part of the variance of w that lies along a direction.
    - `sefa`: the eigenvectors of AᵀA (Shen and Zhou 2021, arXiv 2007.06600). A is the matrix of the linear maps from w
      to the styles, with each row scaled to length 1. The value of a direction is the coordinate of w along the
      eigenvector. `share` is the eigenvalue divided by the sum of all eigenvalues.
    - `styles`: the principal components of the styles among prior samples, as functions of w. Unlike `sefa`, `styles`
      counts only changes that occur under the prior. `share` is the part of the variance of the styles that lies along
      a direction.
    - `pictures`: a linear function of w is fitted to pictures of `SIDE` pixels a side. The principal components of this
      function are the directions. Generators of any kind will do. `share` is the part of the variance of the function
      that lies along a direction.
    - `interfacegan`: for each attribute, the linear function of w that is nearest to the output of its head. (The
      method of Shen et al. 2020, arXiv 1907.10786, separates labels by a plane instead.) `share` is R2 of the linear
      function: 1 if the head is linear.
    - `steerability`: for each edit in `energyql.training.goals.EDITS`, such as zoom, the direction along which pictures
      change as if they were edited (Jahanian et al. 2020, arXiv 1907.07171).
    - `ganalyze`: for each number that a labeller or the judge of the model reads from pictures, the direction along
      which the number rises most evenly (GANalyze, Goetschalckx et al. 2019, arXiv 1906.10112).

    The last two methods learn by gradients through the generator. Their `share` is how well the edit or the rise is
    reached on samples that were not learned from. It is 1 - e / u, at least 0, where e is the squared error of pictures
    moved along the direction, and u is the squared error of unchanged pictures.

    Args:
        model: a packaged model, a model folder, a checkpoint, a generator of your own or the name of its code, a
            `Model`, or a `Target` from `open_source`.
        method: the method, one of those above.
        count: number of directions; for the last three methods the largest number.
        goals: names of attributes (for `interfacegan`), of edits (`steerability`) or of numbers (`ganalyze`) to find
            directions for, at most `count`; by default the first `count` that exist. Other methods have no goals.
        labeller: for `ganalyze`, a function of pictures or a torch module that reads the numbers, in place of the judge
            of the model. Its result, name -> tensor (batch,), must have gradients.
        layers: layers of the generator, 0 to `num_ws - 1`; by default all. Only styles of these layers count. In
            pictures, a direction moves w only for these layers.
        truncation: psi of the prior samples, 0 to 2. By default the range of psi for which the model's heads are valid;
            without heads, the psi of the model.
        condition: condition of the prior samples, for a conditional generator: a class, as many numbers as there are
            classes, or "random"; by default the condition for which the model's heads are valid.
        generator: name of the generator's code, for a model folder that only names it.
        allow_plugins: whether to import the generator that the model folder names.
        device: where to compute: "cpu", "cuda" or "mps"; "auto" is a GPU if there is one.
        progress: whether to show progress bars, or a function that is called with the stage and the fraction done.

    Returns:
        The directions, the largest share first; for methods with goals, in the order of the goals.

    Raises:
        ArgumentError: an argument has a wrong value; there is no such device, layer or goal; the method needs styles,
            heads or a judge, which are missing; more goals are named than `count`; w varies in fewer directions than
            `count`, or alike in all directions.
        DataError: the labeller does not return the same finite numbers, one for each picture, in every call.
    """
    if method not in (methods := get_args(DirectionMethod)):
        raise ArgumentError(f"there is no method {method!r}", hint=f"methods: {', '.join(methods)}")
    if goals is not None and method not in WITH_GOALS:
        raise ArgumentError(f"{method} has no goals", hint=f"leave them out, or choose {', '.join(WITH_GOALS)}")
    if labeller is not None and method != "ganalyze":
        raise ArgumentError(f"{method} reads no labeller; ganalyze does")
    count, device = whole_number("count", count), choose_device(device)
    if truncation is not None and not 0 <= (truncation := finite_number("truncation", truncation)) <= 2:
        raise ArgumentError(f"truncation is a number from 0 to 2, not {truncation:g}")
    source = open_source(Source(model, generator, allow_plugins))
    network, heads = source.generator, None if source.bank is None else source.bank.as_heads
    layers = None if layers is None else check_layers(layers, network)
    weights = _style_weights(network, layers, method) if method in ("sefa", "styles") else None
    psi = source.psi if truncation is None else (truncation, truncation)
    prior = source.prior(DIRECTIONS_SEED, source.fitted("w", psi, condition), device)
    titles, learned = tuple(map(str, range(count))), {}
    if method == "steerability":
        learned = edit_goals(goals, count)
    elif method == "ganalyze":
        if labeller is None and isinstance(model, Model):
            labeller = model.judge
        elif labeller is None and source.folder != Path():
            labeller = load_judge(source.folder)
        learned = number_goals(labeller, goals, count, prior)
    elif method == "interfacegan":
        titles = tuple(head_numbers(prior, heads, 1, goals, count))  # refuses wrong goals before samples are drawn
    with reporting(progress) as report:
        space = _Whitened.of(prior, report)
        if learned:
            titles = tuple(learned)
            steps, share = learn_goals(learned, prior, space.scaled, layers, report)
            inner = steps / steps.norm(dim=1, keepdim=True)
        elif method == "interfacegan":
            outputs = head_numbers(prior, heads, len(space.samples), goals, count)
            inner, share = space.nearest(torch.stack(list(outputs.values()), 1).double())
        elif method == "ganspace":
            inner, share = space.own()
        elif weights is None:
            _check_count(space.variances, count)  # before pictures are drawn
            inner, share = _eigenvectors(space.slopes(draw_small(prior, PICTURES, SIDE, report)))
        else:
            inner, share = space.along(weights) if method == "sefa" else _eigenvectors(weights @ space.scaled)
        if method not in WITH_GOALS:
            _check_count(inner, count)
    return space.directions(
        inner[:count], share[:count], method=method, titles=titles, layers=layers, truncation=psi,
        condition=prior.fitted.condition, generator=module_fingerprint(network),
    )  # fmt: skip


def _check_count(components: Tensor, count: int) -> None:
    if len(components) < count:
        raise ArgumentError(f"w varies in {len(components)} directions only, not {count}", hint="ask for fewer")


@dataclass(frozen=True)
class _Whitened:
    """Coordinates of w in which prior samples have mean 0 and covariance 1, so that all directions vary equally.

    All tensors are float64.

    Attributes:
        samples: prior samples in these coordinates, (n, components).
        mean: mean of w, (w_dim,).
        variances: variances of the principal components of w that are not constant, (components,), descending.
        axes: unit vectors of the principal components that are not constant, (w_dim, components).
    """

    samples: Tensor
    mean: Tensor
    variances: Tensor
    axes: Tensor

    @classmethod
    def of(cls, prior: Prior, report: Report) -> _Whitened:
        """Draw samples of w from the prior, and return them in whitened coordinates, with the map to these coordinates.

        Principal components along which w hardly varies are left out.

        Args:
            prior: prior samples.
            report: function that is called with the stage and the fraction done.

        Raises:
            ArgumentError: w has more than `MOST_NUMBERS` numbers, is not finite, or is equal for all samples.
        """
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
        """Return the principal components of w as directions, with the share of each component in the variance of w.

        Raises:
            ArgumentError: the components are arbitrary, because all have nearly the same variance.
        """
        size, ratio = len(self.variances), (len(self.variances) / len(self.samples)) ** 0.5
        noise = ((1 + ratio) / (1 - ratio)) ** 2  # Marchenko and Pastur 1967
        if self.variances[0] < NOISE * noise * self.variances[-1]:
            hint = 'the method "pictures" finds directions by what they change'
            raise ArgumentError("w varies alike in all directions: its principal components are arbitrary", hint=hint)
        return torch.eye(size, dtype=torch.double), self.variances / self.variances.sum()

    def along(self, weights: Float[Tensor, "styles w_dim"]) -> _Components:
        """Return the directions of the method "sefa": eigenvectors of AᵀA, where A is `weights` with rows of length 1.

        The share of a direction is its eigenvalue divided by the sum of all eigenvalues. Eigenvectors along which w
        hardly varies are left out.

        Args:
            weights: matrix of the linear maps from w to the styles.
        """
        vectors, share = _eigenvectors(weights / weights.norm(dim=1, keepdim=True).clamp(min=1e-12))
        inner = vectors @ self.scaled
        spread = inner.norm(dim=1)
        varies = spread.square() > LEAST_VARIANCE * self.variances[0]
        return inner[varies] / spread[varies, None], share[varies]

    def slopes(self, values: Float[Tensor, "n outputs"]) -> Float[Tensor, "outputs components"]:
        """Return the coefficients of a linear regression that predicts `values` from the whitened coordinates.

        `values` are numbers for the first n samples, such as pixels of their pictures.
        """
        x = self.samples[: len(values)]
        solution: Tensor = torch.linalg.lstsq(x - x.mean(0), values - values.mean(0)).solution
        return solution.t()

    def nearest(self, outputs: Float[Tensor, "n outputs"]) -> _Components:
        """Return a direction for each output of heads: the linear function of w that is nearest to the output.

        The function is computed by least squares. The share of a direction is R2 of the linear function. `outputs` has
        the outputs of the heads for the first n samples.
        """
        slopes = self.slopes(outputs)
        size = slopes.norm(dim=1)
        return slopes / size[:, None].clamp(min=1e-12), size.square() / outputs.var(0).clamp(min=1e-12)

    def directions(self, inner: Tensor, share: Tensor, **described: Any) -> Directions:
        """Convert directions in whitened coordinates to `Directions`, which are for w itself.

        Args:
            inner: unit vectors, (count, components). For methods without goals, the sign of a direction is arbitrary.
                The sign is chosen such that, in the row of `move` of the direction, the number with the largest
                absolute value is positive.
            share: share of each direction, (count,).
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
    """Return the eigenvectors of the matrix rowsᵀ rows, and their eigenvalues divided by the sum of all eigenvalues.

    The eigenvectors are the rows of a tensor, the one with the largest eigenvalue first.
    """
    values, vectors = torch.linalg.eigh(rows.t() @ rows)
    values = values.flip(0).clamp(min=0)
    return vectors.flip(1).t(), values / values.sum().clamp(min=1e-300)


def _style_weights(generator: Generator, layers: Sequence[int] | None, method: str) -> Float[Tensor, "styles w_dim"]:
    """Return the weights of the linear maps from w to styles, the numbers that layers of a StyleGAN compute from w.

    Args:
        generator: the generator.
        layers: layers of the generator; `None` for all.
        method: the method that needs the weights, for messages.

    Returns:
        float64, a row for each style of the layers.

    Raises:
        ArgumentError: the generator has no such maps.
    """
    affines = getattr(getattr(generator, "synthesis", None), "affines", None)
    if affines is None:
        name = type(generator).__name__
        raise ArgumentError(f"{method} reads the maps from w to styles, which a {name} does not have; a StyleGAN does")
    affines = affines if layers is None else [affines[layer] for layer in layers]
    return torch.cat([affine.weight.detach().cpu().double() * affine.weight_gain for affine in affines])


RECORD, TENSORS, PAGE = "directions.json", "directions.safetensors", "directions.png"
FORMAT = 1
DIRECTIONS_SEED = 2**32 + 1
"""Seed of the prior samples that directions are found from. It is larger than the seeds with which users usually draw
pictures."""
STD = 0.1
"""Standard deviation that the head of a direction predicts. The value of a direction is exact, but with a standard
deviation of 0 samplers would have no gradient at the boundary of a condition."""
LABELS, HIDDEN = 40_000, 256
"""Number of prior samples to which the heads of directions are fitted if they read another latent than w, and width of
these heads. (Heads on w are exact, and not fitted.)"""
RANGE, TOLERANCE = 4.0, 0.25
"""Values of attributes that are made of directions range from -4 to 4 standard deviations. The condition `=` of a query
holds within a quarter of a standard deviation."""
QUANTILES = (0.01, 0.16, 0.5, 0.84, 0.99)
"""`draw_directions` moves samples along a direction to the values below which these shares of the prior samples lie.
Multiples of the standard deviation would not do: the values of a direction may be far from normally distributed, and
beyond the range of the values pictures break."""
ROWS, TILE, AT_ONCE = 2, 128, 8
"""Constants of `draw_directions`: number of samples that are moved along each direction, largest side of the pictures
in pixels, and number of pictures that are drawn in one call of the generator."""
_PARTS = ("normal", "offset", "move", "share", "quantiles")


@dataclass(frozen=True, eq=False)
class Directions:
    """Directions of w, the largest share first; or, if a method has goals, in the order of the goals.

    The value of direction i is `normal[i] @ w + offset[i]`. Under the prior its mean is 0 and its standard deviation 1.
    If the values of two prior samples differ by 1, their latents w differ by `move[i]` on average. An edit that raises
    the value by 1 adds `move[i]` to w.

    Attributes:
        method: name of the method that found the directions, such as "ganspace"; see `find_directions`.
        normal: (count, w_dim).
        offset: (count,).
        move: (count, w_dim), the covariance of w times `normal`.
        share: (count,), from 0 to 1. It is how much of what the method explains lies along each direction, such as a
            part of the variance of w; or how well the direction reaches its goal. See `find_directions`.
        quantiles: (count, 5), the values below which 1, 16, 50, 84 and 99 % of the prior samples lie.
        titles: a text for each direction: its index, such as "0"; or, if the method has goals, the name of the
            attribute, edit or number.
        layers: layers of the generator for which w is moved in pictures; `None` for all.
        truncation: range (low, high) of truncation psi of the prior samples.
        condition: condition of the prior samples, or "random"; `None` for a generator without classes.
        generator: fingerprint of the generator; "" for one that is no torch module.

    Raises:
        ArgumentError: a tensor is not finite, not float32 or of another shape; or titles, layers or truncation are
            wrong.
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
        """Return the value of each direction at each w, in standard deviations of the prior."""
        return w @ self.normal.to(w).t() + self.offset.to(w)

    def prior(self, generator: Generator, seed: int, device: torch.device | str) -> Prior:
        """Return prior samples of `generator` under the truncation and the condition of the directions.

        Args:
            generator: the generator of the directions.
            seed: seed of the samples.
            device: where the samples are computed.
        """
        fitted = FittedUnder("w", self.truncation, self.condition, self.generator)
        return Prior(generator, seed, fitted, torch.device(device))

    def check_generator(self, generator: Generator) -> None:
        """Raise an `ArgumentError` if the directions were found from another generator than `generator`.

        The error is also raised if `generator` does not have the condition of the directions.
        """
        if self.generator != module_fingerprint(generator):
            hint = "find its own with energyql directions, or give the model that they were found from, --model"
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
            data, parts = renamed(read_json(path)), read_tensors(path.with_name(TENSORS))
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
    model: str | Path | Generator,
    out: str | Path | None = None,
    *,
    replace: bool = False,
    generator: str | None = None,
    allow_plugins: bool = False,
    device: torch.device | str = "cpu",
    progress: bool = False,
) -> AttributeBank:
    """Make continuous attributes of directions, and add them to the attributes of a model folder.

    The value of a new attribute is the value of its direction, in standard deviations of the prior. All heads of a
    folder read the same latent. If the heads read w, or if there are no heads yet, the head of a direction is linear
    and exact, and has no report. Otherwise `train_attributes` fits the head to the values of the direction for 40,000
    prior samples, and the head has a report. No judge (a network that reads attributes off pictures) is trained for the
    new attributes.

    Args:
        directions: directions of the generator of this model.
        names: index of a direction (from 0) -> name of the attribute, such as {3: "smile"}.
        model: a packaged model, a model folder, a checkpoint, or a generator of your own: the object, or the name of
            its code.
        out: the model folder to make or to add to; by default the folder of `model`.
        replace: whether the new attributes may replace old ones of the same name.
        generator: name of the generator's code, for a model folder that only names it.
        allow_plugins: whether to import the generator that the model folder names.
        device: where to fit: "cpu", "cuda" or "mps"; "auto" is a GPU if there is one.
        progress: whether to show progress bars.

    Returns:
        All heads of the folder, old and new.

    Raises:
        ArgumentError: there is no such direction or device; a name is blank or not a text; the directions are of
            another generator; or the model reads its attributes off pictures.
        VocabularyError: the model already has an attribute of one of these names, and `replace` is false.
        ModelError: the heads of the model are valid at another truncation or condition than the directions.
    """
    if not isinstance(names, Mapping) or not names:
        raise ArgumentError("name at least one direction", hint='such as {3: "smile"}, or --name 3=smile')
    for number, name in names.items():
        if type(number) is not int or not 0 <= number < len(directions):
            raise ArgumentError(f"there is no direction {number!r}", hint=f"numbers are 0 to {len(directions) - 1}")
        if not check_name(name, f"the name of direction {number}").strip():
            raise ArgumentError(f"the name of direction {number} is blank")
    device = choose_device(device)
    place = Path(out) if out is not None and (Path(out) / CONFIG).is_file() else model
    source = open_source(Source(place, generator, allow_plugins))
    directions.check_generator(source.generator)
    space = "w" if source.bank is None else heads_of(source.bank, "an attribute by directions").space
    specs = Vocabulary(_spec(directions, number, name) for number, name in names.items())
    fixed: dict[str, Any] = {
        "space": space, "truncation": directions.truncation, "condition": directions.condition, "replace": replace,
        "generator": generator, "allow_plugins": allow_plugins,
    }  # fmt: skip
    if space == "w":
        normal, offset = directions.normal, directions.offset[:, None]
        heads = {name: linear_head(normal[i].clone(), offset[i].clone(), STD) for i, name in names.items()}
        return add_heads(model, specs, heads, out, **fixed)
    source.check_names(list(names.values()), replace)
    prior, index = directions.prior(source.generator, DIRECTIONS_SEED, device), torch.arange(LABELS)
    values = directions.values(prior.w(index)).t()
    table = LabelTable({name: values[number].tolist() for number, name in names.items()}, latents=prior.z(index))
    trained = train_attributes(
        model, table, out, vocabulary=specs, judge=None, settings=HeadSettings(hidden=HIDDEN), device=device,
        progress=progress, command=call_text("name_directions", model, out), **fixed,
    )  # fmt: skip
    return heads_of(trained.bank, "an attribute by directions")


def _spec(directions: Directions, number: int, name: str) -> AttributeSpec:
    """Return a continuous attribute called `name`, whose value is the value of direction `number` in `directions`.

    The description of the attribute states the method, the title of the direction and the range of its values.
    """
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
    report: Report = lambda stage, fraction: None,
) -> Image.Image:
    """Draw a page of pictures with a row for each direction.

    The row shows prior samples that are moved along the direction. Each sample is drawn at five values of the
    direction: those below which 1, 16, 50, 84 and 99 % of all prior samples lie.

    Args:
        directions: the directions.
        generator: the generator of the directions, which draws the pictures on its device.
        seed: seed of the prior samples.
        rows: number of prior samples that are moved along each direction, side by side in one row of the page.
        report: function that is called with the stage and the fraction done.

    Raises:
        ArgumentError: the directions are of another generator, `generator` has no such layers, or seed or rows are
            wrong.
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
        pictures, captions=captions, columns=rows * len(QUANTILES), title=f"Directions by {directions.method}",
        footer="Each row: samples moved along one direction to values below which 1, 16, 50, 84 and 99 % of all lie.",
    )  # fmt: skip
