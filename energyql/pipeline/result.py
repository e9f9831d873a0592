"""The result of a run: pictures, latents, energies, verdicts and provenance, by columns and in words."""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt
import torch
from PIL import Image
from torch import Tensor

from energyql.attributes.heads import DOUBT
from energyql.attributes.predictions import Table, likeliest
from energyql.errors import ArgumentError
from energyql.files import PICTURE_SUFFIXES, as_path, check_destination, saving
from energyql.language.lexical import shorten
from energyql.pipeline.result_folder import (
    GRID,
    check_free,
    describe,
    held_samples,
    read_folder,
    result_files,
    write_measurements,
    write_picture,
    write_pictures,
)
from energyql.pipeline.settings import EXACT, several
from energyql.plugins import import_optional
from energyql.render.markup import Markup, element
from energyql.render.pictures import DOUBTFUL, NO, YES, label_grid, picture_uri, png_bytes
from energyql.sampling import Status
from energyql.sampling.registry import strengths
from energyql.vocabulary import ByAttribute

if TYPE_CHECKING:
    from pandas import DataFrame
    from xarray import DataTree

MOST_QUERY = 300
"""Most characters of a query in a picture's alternative text."""
HOLDS = {True: "holds", False: "does not hold", None: "is not judged"}
"""Verdicts on a query, in words."""
MARK = "doubtful"
"""Mark of a doubtful sample; see `Result`."""
_SIDE = 128


def reading(judged: Mapping[str, npt.NDArray[Any]], index: int, only: Iterable[str] | None = None) -> str:
    """Return the judged values of a picture in words, of all or `only` some attributes: smile, hair = red; no hat."""
    present: list[str] = []
    absent: list[str] = []
    for name in judged if only is None else [name for name in only if name in judged]:
        value = judged[name][index].item()
        if isinstance(value, bool):
            (present if value else absent).append(name if value else f"no {name}")
        else:
            present.append(f"{name} = {value if isinstance(value, str) else f'{value:.2f}'}")
    return "; ".join(", ".join(part) for part in (present, absent) if part)


def alternative_text(
    judged: Mapping[str, npt.NDArray[Any]],
    index: int,
    count: int,
    judge: str | None,
    verdicts: Sequence[tuple[str, bool | None]],
    doubtful: bool = False,
) -> str:
    """Describe a picture in words.

    Args:
        judged: values of all pictures by the judge.
        index: the picture, counted from 0.
        count: number of all pictures.
        judge: name of the judge.
        verdicts: pairs of a query, and whether it holds.
        doubtful: whether the sample is doubtful, see `Result`.
    """
    read = f"{judge[:1].upper()}{judge[1:]}: {reading(judged, index)}. " if judge and judged else ""
    answers = " ".join(
        f"The query {query if len(query) <= MOST_QUERY else query[:MOST_QUERY] + '…'} {HOLDS[holds]}."
        for query, holds in verdicts
    )
    doubt = f" It is doubtful: {DOUBT}." if doubtful else ""
    return f"Picture {index + 1} of {count}. {read}{answers}{doubt}"


def tile(picture: Image.Image, caption: str, holds: bool | None, text: str, doubtful: bool = False) -> Markup:
    """Return a picture as HTML, above its verdict (a tick or a cross), its caption, and the mark of a doubtful sample.

    The caption has the colours of the notebook.
    """
    source, style = picture_uri(picture, 2 * _SIDE), "display:block;max-width:none;border-radius:8px"
    image = element("img", src=source, alt=text, title=text, width=_SIDE, style=style)
    mark: Markup | str = ""
    if holds is not None:
        path = "M2 6l3 4 7-9" if holds else "M2 1l9 9m0-9l-9 9"
        stroke = element("path", d=path, fill="none", stroke=YES if holds else NO, stroke_width=3)
        mark = element("svg", stroke, width=14, height=12, viewBox="0 0 14 12", aria_hidden="true")
    warning = element("strong", MARK, title=DOUBT, style=f"color:{DOUBTFUL};font-weight:600") if doubtful else ""
    below = element("span", mark, " ", caption, " " if doubtful else "", warning, style="font-size:12px;opacity:.85")
    return element("figure", image, below, style=f"margin:0;width:{_SIDE}px")


Key = int | slice | Sequence[int] | Sequence[bool] | npt.NDArray[Any] | Tensor
"""A selection of samples of a result; see `Result.__getitem__`."""
COMMON = ("canonical", "model", "fingerprints", "semantics", "truncation", "label", "judge")
"""Facts of the provenance that must be equal in results to be joined, because measurements depend on them."""
COUNTED = ("wanted", "budget")
"""Facts of the provenance that are summed when results are joined."""
_MEANS = ("evaluations_mean", "gradients_mean", "generator_calls_mean", "exact")
_SUMS = ("seconds_sampling", "seconds_drawing", "steps_rejected", "drawn")
_MAXIMA = ("evaluations_max",)


def positions(key: Key, count: int) -> npt.NDArray[np.int64]:
    """Return the positions of the samples that a key selects among `count`; see `Result.__getitem__`.

    Raises:
        ArgumentError: as for `Result.__getitem__`.
    """
    if isinstance(key, slice):
        try:
            return np.arange(count)[key].copy()  # torch takes no negative strides
        except (TypeError, ValueError, IndexError) as error:
            raise ArgumentError(f"a result cannot be sliced in this way: {error}") from None
    try:
        rows = np.asarray(key.cpu() if isinstance(key, Tensor) else key)
    except ValueError:  # lists of several lengths
        rows = np.asarray(None)
    if rows.dtype == bool:
        if rows.shape != (count,):
            raise ArgumentError(f"a mask for this result has the shape ({count},), not {rows.shape}")
        return rows.nonzero()[0]
    if rows.ndim > 1 or (rows.dtype.kind not in "iu" and rows.shape != (0,)):
        kinds = "a whole number, a slice, a mask or a list of whole numbers"
        raise ArgumentError(f"a result is indexed by {kinds}, not by {shorten(repr(key))}")
    numbers = rows.reshape(-1).astype(np.int64)
    outside = numbers[(numbers < -count) | (numbers >= count)]
    if len(outside):
        held = f"it has {count:,}, numbered from 0" if count else "it is empty"
        raise ArgumentError(f"the result has no sample {outside[0]}: {held}")
    return np.where(numbers < 0, numbers + count, numbers)


def take_rows(column: Any, rows: npt.NDArray[np.int64]) -> Any:
    """Return some rows of a list, array or tensor, or of each one in a dict or tuple of them; None stays None."""
    if column is None:
        return None
    if isinstance(column, dict):
        return type(column)((name, take_rows(part, rows)) for name, part in column.items())
    if isinstance(column, tuple):
        return tuple(take_rows(part, rows) for part in column)
    return [column[i] for i in rows] if isinstance(column, list) else column[rows]


def concatenate(columns: Sequence[Any]) -> Any:
    """Concatenate lists, arrays or tensors, or those of equal dicts or tuples of them; None if one is None."""
    first = columns[0]
    if any(column is None for column in columns):
        return None
    if isinstance(first, dict):
        return type(first)((name, concatenate([column[name] for column in columns])) for name in first)
    if isinstance(first, tuple):
        return tuple(concatenate(parts) for parts in zip(*columns, strict=True))
    if isinstance(first, list):
        return [entry for column in columns for entry in column]
    return torch.cat(list(columns)) if isinstance(first, Tensor) else np.concatenate(columns)


def join_provenance(parts: Sequence[Mapping[str, Any]], count: int) -> dict[str, Any]:
    """Return the provenance of joined results: what the parts share, and lists of what differs.

    Args:
        parts: provenance of each result, at least one.
        count: number of samples of all parts together.

    Raises:
        ArgumentError: there are none, or they differ in one of the `COMMON` facts.
    """
    if not parts:
        raise ArgumentError("Result.join needs at least one result; got an empty sequence")
    first = parts[0]
    for part in parts[1:]:
        for name in COMMON:
            if (mine := first.get(name)) != (theirs := part.get(name)):
                difference = "" if name == "fingerprints" else f": {shorten(str(mine))} and {shorten(str(theirs))}"
                raise ArgumentError(
                    f"these results differ in their {'query' if name == 'canonical' else name}{difference}",
                    hint="join results of one query, model and judge, and keep others in a list",
                )
    joined = {name: value for name, value in first.items() if all(name in part for part in parts)}
    for name in joined.keys() - {"n", "query", *COMMON, *COUNTED}:
        different: list[Any] = []
        for part in parts:
            values = part[name] if isinstance(part[name], list) else [part[name]]
            different += [value for value in values if value not in different]
        if len(different) > 1:
            joined[name] = different
    joined |= {name: sum(part[name] for part in parts) for name in COUNTED if name in joined}
    return joined | {"n": count}


def join_statistics(parts: Sequence[Mapping[str, float]], counts: Sequence[int]) -> dict[str, float]:
    """Return those statistics of joined results that follow from the statistics and sample counts of the parts."""
    parts = [part for part, count in zip(parts, counts, strict=True) if count]
    counts = [count for count in counts if count]
    shared = [name for name in parts[0] if all(name in part for part in parts)] if parts else []
    joined = {name: sum(part[name] for part in parts) for name in shared if name in _SUMS}
    joined |= {name: max(part[name] for part in parts) for name in shared if name in _MAXIMA}
    for name in (name for name in shared if name in _MEANS):
        joined[name] = sum(part[name] * count for part, count in zip(parts, counts, strict=True)) / sum(counts)
    return joined


def as_frame(measurements: Mapping[str, Any], probability: npt.NDArray[np.float64] | None) -> DataFrame:
    """Return the measurements of a result as a table of pandas; see `Result.to_pandas`.

    Raises:
        ArgumentError: pandas is not installed.
    """
    pandas = import_optional("pandas", "a table needs pandas", "pip install pandas")
    table: dict[str, Any] = {"index": measurements["index"], "energy": measurements["energy"]}
    if probability is not None:
        table["probability"] = probability
    table |= {"satisfied": measurements["satisfied"], "status": [status.name for status in measurements["status"]]}
    for name, prediction in measurements["probabilities"].items():
        if isinstance(prediction, dict):
            table |= {f"{name}={value}": column for value, column in prediction.items()}
        elif isinstance(prediction, tuple):
            table |= {f"{name}.mean": prediction[0], f"{name}.std": prediction[1]}
        else:
            table[name] = prediction
    table |= {f"judged.{name}": values for name, values in measurements["judged"].items()}
    frame: DataFrame = pandas.DataFrame(table)
    return frame


def as_inference(
    measurements: Mapping[str, Any], statistics: Mapping[str, float], provenance: Mapping[str, Any], chains: int
) -> DataTree:
    """Return the measurements of a result as data of ArviZ; see `Result.to_arviz`.

    Raises:
        ArgumentError: as for `Result.to_arviz`.
    """
    arviz = import_optional(
        "arviz_base", "data of ArviZ need arviz-base", 'pip install "arviz-base>=0.6", with Python 3.11 or later'
    )
    count = len(measurements["index"])
    if type(chains) is not int or not 1 <= chains <= count or count % chains:
        raise ArgumentError(f"{count} samples do not make {chains} chains of one length", hint="take another number")

    def by_chain(column: Any) -> npt.NDArray[Any]:
        array = np.asarray(column)
        return array.reshape(chains, count // chains, *array.shape[1:])

    reserved = {"chain", "draw", "z", "z_dim"}
    for name, prediction in measurements["probabilities"].items():
        names = {name, f"{name}_value"} if isinstance(prediction, dict) else {name}
        if clash := names & reserved:
            raise ArgumentError(
                f"ArviZ needs the name {min(clash)!r} once, and the attribute {name!r} takes it again",
                hint="use to_pandas, or give the attribute another name where it is trained",
            )
        reserved |= names
    posterior: dict[str, npt.NDArray[Any]] = {}
    dims, coords = {"z": ["z_dim"]}, {}
    for name, prediction in measurements["probabilities"].items():
        if isinstance(prediction, dict):
            dims[name], coords[f"{name}_value"] = [f"{name}_value"], list(prediction)
            posterior[name] = by_chain(np.stack(list(prediction.values()), 1))
        else:
            posterior[name] = by_chain(prediction[0] if isinstance(prediction, tuple) else prediction)
    z, energy = measurements["z"].numpy(), measurements["energy"]
    stats = {
        "query_energy": by_chain(energy),
        "status": by_chain([status.name for status in measurements["status"]]),
        **{name: by_chain(measurements[name]) for name in ("index", "doubtful")},
    }
    strength_values = strengths(provenance.get("sampler")) or {1.0}
    if len(strength_values) == 1:  # joined results of several strengths have no common density
        stats["lp"] = by_chain(-strength_values.pop() * energy - 0.5 * np.square(z, dtype=float).sum(1))
    if measurements["satisfied"] is not None:
        stats["satisfied"] = by_chain(measurements["satisfied"])
    facts = {name: json.dumps(value) for name, value in (("provenance", provenance), ("statistics", statistics))}
    tree: DataTree = arviz.from_dict(
        {"posterior": posterior, "unconstrained_posterior": {"z": by_chain(z)}, "sample_stats": stats},
        dims=dims, coords=coords, attrs={"/": {"inference_library": "energyql", **facts}},
    )  # fmt: skip
    return tree


MOST_PICTURES = 64
"""Most pictures that a notebook or the grid in a folder shows; a grid of its own or a gallery shows all."""
PER_SAMPLE = ("images", "z", "w", "index", "energy", "probabilities", "judged", "satisfied", "doubtful", "status")
"""The fields of a `Result` that hold an entry for each sample."""


@dataclass(frozen=True, eq=False)
class Result:
    """Samples of a query with their pictures, and the measurements of each.

    Attributes:
        images: n pictures (PIL, RGB).
        z, w: latents, (n, z_dim) and (n, w_dim), or (n, num_ws, w_dim) in W+; float32 on the CPU.
        index: number of each sample in its run, which with the seed gives the sample again, (n,) int64.
        energy: energy of the query at z, in nats, lower is better, (n,) float64.
        probabilities: predictions of the attribute heads, by attribute, in the form that `energyql.score` takes.
        judged: the judge's value of each attribute that it reads, (n,) bool, class names or numbers.
        satisfied: whether the judged values satisfy the query, (n,) bool; `None` if the model has no judge or its judge
            does not read an attribute of the query. Heads never judge themselves.
        doubtful: whether two sets of heads disagree about the query at a sample, or its z has a larger norm than prior
            samples, (n,) bool. There the heads may be certain and wrong.
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
    doubtful: npt.NDArray[np.bool_]
    status: list[Status]
    statistics: dict[str, float]
    provenance: dict[str, Any] = field(repr=False)

    def __len__(self) -> int:
        return len(self.index)

    def summary(self) -> str:
        """Return one line: how many samples satisfy the query, by which judge, and the cost."""
        failed = sum(status != Status.OK for status in self.status)
        line = self.verdict()
        if "budget" in self.provenance:
            line += f", out of {self.statistics['drawn']:.0f} drawn"
            if len(self) < self.provenance["wanted"]:
                line += (
                    f"; {self.provenance['wanted']} were wanted, but the budget of {self.provenance['budget']} ended"
                )
        if marked := int(self.doubtful.sum()):
            line += f"; {marked} {'is' if marked == 1 else 'are'} doubtful: {DOUBT}"
        return line if not failed else f"{line}; the solver could not finish {failed}"

    def verdict(self) -> str:
        """Return how many samples satisfy the query, and by which judge; or why they were not judged."""
        if self.satisfied is not None:
            return f"{self.satisfied.sum()} of {len(self)} satisfy the query, says the {self.provenance['judge']}"
        line, heads = f"not judged: {self.provenance['unjudged']}", self.provenance.get("heads")
        if not len(self) or not heads:
            return line
        value = f"energy {self.energy.mean():.3g}" if self.probability is None else f"P {self.probability.mean():.2f}"
        qualities = [f"{name}: {score or 'quality not measured'}" for name, score in heads.items()]
        return f"{line}; mean {value} by the attribute heads ({', '.join(qualities)})"

    @property
    def values(self) -> dict[str, npt.NDArray[Any]]:
        """The value of each attribute, (n,): the judge's where it reads one, else the likeliest by the heads."""
        likely = {name: likeliest(table) for name, table in self.probabilities.items()}
        return ByAttribute({name: self.judged.get(name, value) for name, value in likely.items()})

    def __repr__(self) -> str:
        return f"<Result of {self.provenance['query']!r}: {self.summary()}>"

    def __getitem__(self, key: Key) -> Result:
        """Return the result of some samples: `result[3]`, `result[:8]`, `result[result.satisfied]`, `result[[4, 2]]`.

        Args:
            key: the number of a sample, a slice, a mask (n,) of bool, or numbers (k,) in any order, also several times.
                Negative numbers count from the end.

        Raises:
            ArgumentError: there is no such sample, a mask has another length, or the key is something else.
        """
        rows = positions(key, len(self))
        selected = {name: take_rows(getattr(self, name), rows) for name in PER_SAMPLE}
        provenance = self.provenance | {"n": len(rows)}
        return replace(self, **selected, statistics=dict(self.statistics), provenance=provenance)

    def __iter__(self) -> Iterator[Result]:
        """Yield the samples one by one, each as a result of one sample."""
        return (self[i] for i in range(len(self)))

    def __add__(self, other: Result) -> Result:
        """Concatenate two results; see `join`."""
        return Result.join([self, other]) if isinstance(other, Result) else NotImplemented

    @classmethod
    def join(cls, parts: Iterable[Result]) -> Result:
        """Concatenate results of one query on one model, such as those of several seeds.

        Results of two queries or models are refused, because energies and verdicts of a result refer to one query and
        one judge. Settings in which the parts may differ, such as the seed, become lists in the provenance. Statistics
        are sums, means and maxima over all samples; those that do not follow from the parts are left out.

        Raises:
            ArgumentError: there are no parts, one is no result, or they are of different queries, models, semantics or
                judges.
        """
        results: list[Result] = several(parts, ())
        for part in results:
            if not isinstance(part, Result):
                raise ArgumentError(f"Result.join takes results, not {part!r}")
        if len(results) == 1:
            return results[0]
        counts = [len(part) for part in results]
        provenance = join_provenance([part.provenance for part in results], sum(counts))
        joined = {name: concatenate([getattr(part, name) for part in results]) for name in PER_SAMPLE}
        statistics = join_statistics([part.statistics for part in results], counts)
        return replace(results[0], **joined, statistics=statistics, provenance=provenance)

    @classmethod
    def load(cls, folder: str | Path) -> Result:
        """Read what `save` or `energyql.stream` wrote to a folder, with all measurements and pictures.

        The folder of a long run has its samples in parts, `01024/`, `02048/` and so on: each can be read by itself.

        Raises:
            DataError: there is no result in the folder, or its files are damaged or do not fit together.
        """
        return cls.join([cls(**fields) for fields in read_folder(as_path(folder), PER_SAMPLE)])

    def grid(self, columns: int | None = None) -> Image.Image:
        """Draw all pictures, each with P(query) or the energy, the judge's verdict if any, and a mark if doubtful.

        Raises:
            ArgumentError: `columns` is below 1.
        """
        return label_grid(
            self.images,
            title=self.provenance["query"],
            captions=self._captions(),
            verdicts=None if self.satisfied is None else self.satisfied.tolist(),
            marks=[MARK if doubtful else "" for doubtful in self.doubtful],
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
        origin = f"Model {settings['model']}{label}, seed {settings['seed']}, {settings['semantics']} semantics"
        return f"{self.summary()}. {origin}"

    def save(self, path: str | Path) -> Path:
        """Write the labelled grid to a path that ends in .png, .jpg or .webp, or everything to a folder.

        A folder gets each picture, `grid.png` of the first 64, `latents.safetensors` and `result.json`; an earlier
        result in it is replaced, and `load` reads it. A process that is killed meanwhile leaves the earlier result or
        the new one, never parts of both. A PNG holds the provenance in its text field "energyql".

        Returns:
            The path.

        Raises:
            ArgumentError: the suffix is that of another kind of file, the path cannot be written, or other files are in
                the way.
        """
        path = check_destination(as_path(path))
        if not self.images:
            hint = "raise the budget, or ask for less" if "budget" in self.provenance else "choose at least one sample"
            raise ArgumentError(f"there is no picture to save: {self.summary()}", hint=hint)
        if path.suffix.lower() in PICTURE_SUFFIXES:
            write_picture(path, self.grid(), self.provenance)
            return path
        check_free(path, len(self.images), held_samples(path))
        with saving(path, result_files) as folder:
            self.write_files(folder)
        return path

    def write_files(self, folder: Path) -> None:
        """Write the files of `save` to an empty folder."""
        write_pictures(folder, self.images, self.index.tolist(), self.provenance)
        write_measurements(folder, self.measurements(), self.statistics, self.provenance)
        self.save_grid(folder)

    def save_grid(self, folder: Path) -> None:
        """Write `grid.png`, of the first `MOST_PICTURES` samples, to a folder."""
        first = self[:MOST_PICTURES]
        write_picture(folder / GRID, first.grid(), first.provenance)

    def measurements(self) -> dict[str, Any]:
        """Return the fields with an entry for each sample, without the pictures."""
        return {name: getattr(self, name) for name in PER_SAMPLE if name != "images"}

    def to_dict(self) -> dict[str, Any]:
        """Return provenance, statistics and samples as JSON values, as `save` writes them."""
        return describe(self.measurements(), self.statistics, self.provenance)

    def to_pandas(self) -> DataFrame:
        """Return the measurements as a table of pandas, one row per sample.

        Columns: `index`, `energy`, `probability` under exact semantics, `satisfied`, `status`; the predictions of the
        heads as `energyql score` reads them, `smile`, `hair=red`, `age.mean` and `age.std`; and the values that were
        judged, `judged.smile`, `judged.hair`. Needs pandas, which energyql does not install.

        Raises:
            ArgumentError: pandas is not installed.
        """
        return as_frame(self.measurements(), self.probability)

    def to_arviz(self, chains: int = 1) -> DataTree:
        """Return the samples as data of ArviZ, for its plots, summaries and diagnostics.

        Samples do not depend on each other, so any parts of a run may be its chains. Needs arviz-base. The groups are
        `posterior`, predictions of the heads: P(yes), the P of each class, or the mean; `unconstrained_posterior`, z;
        and `sample_stats`: `lp`, which is -strength · energy - z² / 2 and is left out where results of several
        strengths are joined, and the energy, status and verdicts.

        Raises:
            ArgumentError: it is not installed, the samples do not make so many chains of one length, or an attribute
                has a name that the data need for something else: `chain`, `draw`, `z`, `z_dim`, or the `hair_value`
                of a class `hair`.
        """
        return as_inference(self.measurements(), self.statistics, self.provenance, chains)

    def _repr_png_(self) -> bytes | None:
        return png_bytes(self.grid()) if self.images else None

    def _repr_html_(self) -> Markup:
        query, judge = self.provenance["query"], self.provenance["judge"]
        entries = [
            (image, self._holds(i), bool(self.doubtful[i])) for i, image in enumerate(self.images[:MOST_PICTURES])
        ]
        tiles = [
            tile(
                image, caption, holds,
                alternative_text(self.judged, i, len(self), judge, [(query, holds)], doubtful), doubtful,
            )
            for i, ((image, holds, doubtful), caption) in enumerate(zip(entries, self._captions(), strict=False))
        ]  # fmt: skip
        more = len(self) - len(tiles)
        rows = element("div", *tiles, style="display:flex;flex-wrap:wrap;gap:10px;margin:8px 0")
        note = f"{self._footer()}. Not shown: {more:,} more" if more else self._footer()
        return element("div", element("code", query), rows, element("div", note, style="font-size:12px;opacity:.75"))
