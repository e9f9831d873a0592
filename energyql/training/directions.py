"""Directions of w along which pictures vary: found by one of several methods, stored, drawn and named as attributes."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, get_args

import torch
from PIL import Image
from torch import Tensor

from energyql.attributes.bank import FittedLabel, FittedUnder
from energyql.attributes.heads import AttributeBank, Head
from energyql.attributes.judge import load_judge
from energyql.attributes.labels import ImageLabeller
from energyql.attributes.pictures import heads_of
from energyql.errors import ArgumentError, DataError, ModelError
from energyql.files import as_path, fingerprint, read_json, read_tensors, sole_writer, write_json, write_tensors
from energyql.generators.base import Generator, check_fitted_label, check_layers, device_of
from energyql.generators.families import CONFIG, module_fingerprint
from energyql.language.lexical import check_name
from energyql.numerics import LARGEST
from energyql.numerics.shapes import Float
from energyql.pipeline.model import Model, choose_device
from energyql.pipeline.settings import DirectionMethod, finite_number, whole_number
from energyql.progress import Report, reporting
from energyql.render.pictures import label_grid, to_pictures
from energyql.training.foreign import add_heads
from energyql.training.goals import edit_goals, head_numbers, learn_goals, move_along, number_goals
from energyql.training.heads import HeadSettings
from energyql.training.labels import LabelTable
from energyql.training.run import train_attributes
from energyql.training.samples import LATENTS_AT_ONCE, Prior, draw_small
from energyql.training.target import Target, call_text, open_source
from energyql.vocabulary import AttributeSpec, Vocabulary

WITH_GOALS = ("interfacegan", "steerability", "ganalyze")
"""Methods that find a direction for each of some names; `count` is the most that there may be."""
DRAWS, DRAWS_PER_NUMBER, MOST_NUMBERS = 8192, 32, 1024
"""Prior samples that the covariance of w is taken from, how many for each number of w at least, and how many numbers
there may be: memory grows with their square."""
PICTURES, SIDE = 2048, 16
"""Pictures that the method "pictures" draws, and the side to which it reduces them."""
LEAST_VARIANCE = 1e-4
"""Principal components of w whose variance is a smaller share of that of the first count as constant."""
NOISE = 1.1
"""Principal components are arbitrary where their variances differ by no more than those of samples of an isotropic
distribution do, times this."""

_Found = tuple[Float[Tensor, "found components"], Float[Tensor, " found"]]
"""Unit vectors in whitened coordinates, one a direction, and the share of each."""


def find_directions(
    model: str | Path | Generator | Model | Target,
    method: DirectionMethod = "ganspace",
    count: int = 10,
    *,
    goals: Sequence[str] | None = None,
    labeller: ImageLabeller | None = None,
    layers: Sequence[int] | None = None,
    truncation: float | None = None,
    label: int | Sequence[float] | str | None = None,
    generator: str | None = None,
    allow_plugins: bool = False,
    device: torch.device | str = "cpu",
    progress: bool | Report = False,
) -> Directions:
    """Find directions of w along which the pictures of a generator vary; the same ones in every run.

    - `ganspace`: the principal components of w among prior samples (Härkönen et al. 2020, arXiv 2004.02546). `share` is
      that of the variance of w.
    - `sefa`: the eigenvectors of AᵀA, where A has a row of length 1 for each style of the layers (Shen and Zhou 2021,
      arXiv 2007.06600). The value is the place of w along the eigenvector, and `share` that of the sum of eigenvalues.
    - `styles`: the principal components of the styles among prior samples, as functions of w. Unlike `sefa`
      it counts only changes that occur under the prior. `share` is that of the variance of the styles.
    - `pictures`: the principal components of small pictures, as far as they are linear in w, for generators of any
      kind. `share` is that of the variance of this linear part.
    - `interfacegan`: for each attribute, the linear function of w that is nearest to the output of its head, where
      InterFaceGAN (Shen et al. 2020, arXiv 1907.10786) separates labels. `share` is R2, how linear the head is.
    - `steerability`: for each of `energyql.training.goals.EDITS`, such as zoom, the direction along which pictures
      change as if they were edited (Jahanian et al. 2020, arXiv 1907.07171).
    - `ganalyze`: for each number that a labeller or the judge of the model reads from pictures, the direction along
      which it rises most evenly (GANalyze, Goetschalckx et al. 2019, arXiv 1906.10112).

    The last two are learned through the generator, which must have gradients. `share` is how much of the goal the
    direction reaches on other samples: 1 minus the squared error, relative to that of unchanged pictures.

    Args:
        model: a packaged model, a model folder, a checkpoint, a generator of your own, its name, a `Model`, or what
            `open_source` returned.
        method: as above.
        count: how many directions; of the last three methods at most.
        goals: names of the attributes, edits or numbers that these three find directions for, at most `count`; by
            default the first of them.
        labeller: reads the numbers of `ganalyze`, in place of the judge of the model: a function of pictures or a
            torch module, whose result, name -> tensor (batch,), has gradients.
        layers: rows of W+, 0 to `num_ws - 1`: only their styles count, and only they change in the pictures.
        truncation: psi of the prior samples. By default that of the model's heads, else that of the model.
        label: of a conditional generator: a class, numbers, or "random"; by default that of the model's heads.
        generator: name of the generator's code, for a model folder that only names it.
        allow_plugins: whether to import the generator that the model folder names.
        device: where to compute: "cpu", "cuda" or "mps"; "auto" is a GPU if there is one.
        progress: whether to show progress bars, or a function that is told the progress.

    Raises:
        ArgumentError: an argument has no such value, the generator has no such layers or no styles, the model has no
            heads or no judge, there is no such device or goal, more goals are named than `count`, or the
            prior varies in fewer directions, or in all alike.
        DataError: the labeller does not return the same finite numbers, one for each picture, in every call.
    """
    if method not in (methods := get_args(DirectionMethod)):
        raise ArgumentError(f"there is no method {method!r}", hint=f"methods: {', '.join(methods)}")
    if goals is not None and method not in WITH_GOALS:
        raise ArgumentError(f"{method} has no goals", hint=f"leave them out, or choose {', '.join(WITH_GOALS)}")
    if labeller is not None and method != "ganalyze":
        raise ArgumentError(f"{method} reads no labeller", hint="leave it out, or choose ganalyze")
    count, place = whole_number("count", count), choose_device(device)
    if truncation is not None and not 0 <= (truncation := finite_number("truncation", truncation)) <= 2:
        raise ArgumentError(f"truncation is a number from 0 to 2, not {truncation:g}")
    wanted = edit_goals(goals, count) if method == "steerability" else {}
    source = open_source(model, generator=generator, allow_plugins=allow_plugins)
    network, bank = source.generator, source.bank
    chosen = None if layers is None else check_layers(layers, network)
    weights = _style_weights(network, chosen, method) if method in ("sefa", "styles") else None
    if isinstance(network, torch.nn.Module):
        network.to(place).eval()
    own = 1.0 if source.truncation is None else source.truncation
    psi = bank.truncation if bank is not None and truncation is None else (own, own)
    psi = psi if truncation is None else (truncation, truncation)
    prior = Prior(network, DIRECTIONS_SEED, source.fitted("w", psi, label), place)
    titles = tuple(map(str, range(count)))
    heads = None if bank is None else bank.as_heads
    if method == "interfacegan":  # wrong goals are refused before samples are drawn
        titles = tuple(head_numbers(prior, heads, 1, goals, count))
    elif method == "ganalyze":
        judge = model.judge if isinstance(model, Model) else _judge(source)
        wanted = number_goals(judge if labeller is None else labeller, goals, count, prior)
    with reporting(progress) as report:
        space = _Whitened.of(prior, report)
        if method == "ganspace":
            inner, share = space.own()
        elif method == "interfacegan":
            outputs = head_numbers(prior, heads, len(space.samples), goals, count)
            inner, share = space.nearest(torch.stack(list(outputs.values()), 1).double())
        elif method == "sefa":
            assert weights is not None
            inner, share = space.along(weights)
        elif method in WITH_GOALS:
            titles = tuple(wanted)
            steps, share = learn_goals(wanted, prior, space.scaled, chosen, report)
            inner = steps / steps.norm(dim=1, keepdim=True)
        else:
            _check_count(len(space.variances), count, method)  # before pictures are drawn
            slopes = (
                space.slopes(draw_small(prior, PICTURES, SIDE, report)) if weights is None else weights @ space.scaled
            )
            inner, share = _eigenvectors(slopes)
    _check_count(len(inner), count, method)
    return space.directions(
        inner[:count], share[:count], method=method, titles=titles[:count], layers=chosen, truncation=psi,
        label=prior.fitted.label, generator=module_fingerprint(network),
    )  # fmt: skip


def _check_count(found: int, count: int, method: str) -> None:
    """Raise an `ArgumentError` if w varies in fewer directions than `count`, which with goals is only the most."""
    if found < count and method not in WITH_GOALS:
        raise ArgumentError(f"w varies in {found} directions only, not {count}", hint="ask for fewer, with -n")


@dataclass(frozen=True)
class _Whitened:
    """Coordinates of w in which prior samples have mean 0 and covariance 1. All is float64.

    Attributes:
        samples: of the prior, whitened, (n, components).
        mean: of w, (w_dim,).
        variances: of the principal components of w that are not constant, (components,), descending.
        axes: of them, (w_dim, components).
    """

    samples: Tensor
    mean: Tensor
    variances: Tensor
    axes: Tensor

    @classmethod
    def of(cls, prior: Prior, report: Report) -> _Whitened:
        """Draw prior samples and whiten them."""
        size = prior.w(torch.arange(1)).shape[1]
        if size > MOST_NUMBERS:
            raise ArgumentError(f"w has {size} numbers, and directions are found among at most {MOST_NUMBERS}")
        parts = torch.arange(max(DRAWS, DRAWS_PER_NUMBER * size)).split(8 * LATENTS_AT_ONCE)
        found = []
        for i, part in enumerate(parts):
            found.append(prior.w(part).double())
            report("sampling", (i + 1) / len(parts))
        w = torch.cat(found)
        if not w.isfinite().all():
            raise ArgumentError(
                "the generator maps prior samples to numbers that are not finite", hint="check its weights"
            )
        mean = w.mean(0)
        variances, axes = (part.flip(-1) for part in torch.linalg.eigh(torch.cov(w.t()).reshape(size, size)))
        if not variances[0] > 0:
            raise ArgumentError("w is the same for all samples of this prior", hint="choose another truncation")
        kept = int((variances > LEAST_VARIANCE * variances[0]).sum())
        variances, axes = variances[:kept], axes[:, :kept]
        return cls((w - mean) @ axes / variances.sqrt(), mean, variances, axes)

    @property
    def scaled(self) -> Tensor:
        """From whitened coordinates to w, (w_dim, components)."""
        return self.axes * self.variances.sqrt()

    def own(self) -> _Found:
        """Return the principal components of w.

        Raises:
            ArgumentError: they are arbitrary, because all have the same variance.
        """
        size, ratio = len(self.variances), (len(self.variances) / len(self.samples)) ** 0.5
        noise = ((1 + ratio) / (1 - ratio)) ** 2  # Marchenko and Pastur 1967
        if self.variances[0] < NOISE * noise * self.variances[-1]:
            raise ArgumentError(
                "w varies alike in all directions, as for a generator without a mapping network: its principal "
                "components are arbitrary",
                hint='the method "pictures" finds directions by what they change',
            )
        return torch.eye(size, dtype=torch.double), self.variances / self.variances.sum()

    def along(self, weights: Float[Tensor, "styles w_dim"]) -> _Found:
        """Return the places of w along the eigenvectors of SeFa."""
        rows = weights / weights.norm(dim=1, keepdim=True).clamp(min=1e-12)
        vectors, share = _eigenvectors(rows)
        inner = vectors @ self.scaled
        spread = inner.norm(dim=1)
        varies = spread.square() > LEAST_VARIANCE * self.variances[0]
        return inner[varies] / spread[varies, None], share[varies]

    def slopes(self, values: Float[Tensor, "n outputs"]) -> Float[Tensor, "outputs components"]:
        """Return the linear regression of values, centred, of the first samples on whitened coordinates."""
        x = self.samples[: len(values)]
        values = values - values.mean(0)
        found: Tensor = torch.linalg.lstsq(x - x.mean(0), values).solution
        return found.t()

    def nearest(self, outputs: Float[Tensor, "n outputs"]) -> _Found:
        """Return the linear function nearest to each output, and R2 of it."""
        slopes = self.slopes(outputs)
        size = slopes.norm(dim=1)
        return slopes / size[:, None].clamp(min=1e-12), size.square() / outputs.var(0).clamp(min=1e-12)

    def directions(self, inner: Tensor, share: Tensor, **described: Any) -> Directions:
        """Return directions of whitened coordinates as those of w; the largest number of each move is positive."""
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


def _eigenvectors(rows: Float[Tensor, "outputs inputs"]) -> _Found:
    """Return the eigenvectors of rowsᵀ rows, one a row, largest eigenvalue first, and the shares of their sum."""
    values, vectors = torch.linalg.eigh(rows.t() @ rows)
    values = values.flip(0).clamp(min=0)
    return vectors.flip(1).t(), values / values.sum().clamp(min=1e-300)


def _style_weights(generator: Generator, layers: Sequence[int] | None, method: str) -> Float[Tensor, "styles w_dim"]:
    """Return the weights of the maps from w to the styles of these layers, all by default, float64."""
    affines = getattr(getattr(generator, "synthesis", None), "affines", None)
    if affines is None:
        raise ArgumentError(
            f"{method} reads the maps from w to styles, which a {type(generator).__name__} does not have",
            hint="a StyleGAN has them; ganspace and pictures need none",
        )
    chosen = affines if layers is None else [affines[layer] for layer in layers]
    return torch.cat([affine.weight.detach().cpu().double() * affine.weight_gain for affine in chosen])


def _judge(source: Target) -> ImageLabeller | None:
    return None if source.folder == Path() else load_judge(source.folder)


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
        if not -LARGEST <= self.truncation[0] <= self.truncation[1] <= LARGEST:
            raise ArgumentError(f"{self.truncation} is no range of truncation")

    def __len__(self) -> int:
        return len(self.offset)

    def values(self, w: Float[Tensor, "batch w_dim"]) -> Float[Tensor, "batch count"]:
        """Return the value of each direction, in standard deviations of the prior."""
        return w @ self.normal.to(w).t() + self.offset.to(w)

    def prior(self, generator: Generator, seed: int, device: torch.device | str) -> Prior:
        """Return the prior of the directions."""
        fitted = FittedUnder("w", self.truncation, self.label, self.generator)
        return Prior(generator, seed, fitted, torch.device(device))

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
        each = zip(self.titles, self.share.tolist(), self.quantiles.tolist(), strict=True)
        with sole_writer(path.parent, "directions"):
            write_tensors(path, {name: getattr(self, name) for name in _PARTS})
            record = {
                "format": FORMAT, "method": self.method, "generator": self.generator, "truncation": self.truncation,
                "label": self.label, "layers": self.layers, "tensors": fingerprint(path),
                "directions": [{"title": title, "share": share, "quantiles": values} for title, share, values in each],
            }  # fmt: skip
            write_json(path.with_name(RECORD), record)

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
        model, table, out, vocabulary=specs, judge=None, settings=settings, device=device, progress=progress,
        command=call_text("name_directions", model, out), **fixed,
    )  # fmt: skip
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
