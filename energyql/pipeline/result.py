"""The result of a run: pictures, latents, energies, verdicts and provenance."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt
from PIL import Image
from torch import Tensor

from energyql.attributes.doubt import DOUBT
from energyql.attributes.predictions import Table, likeliest
from energyql.errors import ArgumentError
from energyql.files import PICTURE_SUFFIXES, as_path, check_destination
from energyql.pipeline.columns import (
    Key,
    as_frame,
    as_inference,
    concatenate,
    join_provenance,
    join_statistics,
    positions,
    take_rows,
)
from energyql.pipeline.description import MARK, alternative_text, tile
from energyql.pipeline.folder import describe, read_folder, write_measurements, write_picture, write_pictures
from energyql.pipeline.saved import GRID, check_free, held_samples, result_files
from energyql.pipeline.settings import EXACT, several
from energyql.render.markup import Markup, element
from energyql.render.pictures import label_grid, png_bytes
from energyql.replacement import saving
from energyql.sampling import Status
from energyql.vocabulary import ByAttribute

if TYPE_CHECKING:
    from pandas import DataFrame
    from xarray import DataTree

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
        energy: of the query at z, in nats, lower is better, (n,) float64.
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
        known = [f"{name}: {score or 'quality not measured'}" for name, score in heads.items()]
        return f"{line}; mean {value} by the attribute heads ({', '.join(known)})"

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
        made = f"Model {settings['model']}{label}, seed {settings['seed']}, {settings['semantics']} semantics"
        return f"{self.summary()}. {made}"

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
        shown = self[:MOST_PICTURES]
        write_picture(folder / GRID, shown.grid(), shown.provenance)

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
        shown = [(image, self._holds(i), bool(self.doubtful[i])) for i, image in enumerate(self.images[:MOST_PICTURES])]
        tiles = [
            tile(
                image, caption, holds,
                alternative_text(self.judged, i, len(self), judge, [(query, holds)], doubtful), doubtful,
            )
            for i, ((image, holds, doubtful), caption) in enumerate(zip(shown, self._captions(), strict=False))
        ]  # fmt: skip
        more = len(self) - len(tiles)
        rows = element("div", *tiles, style="display:flex;flex-wrap:wrap;gap:10px;margin:8px 0")
        note = f"{self._footer()}. Not shown: {more:,} more" if more else self._footer()
        return element("div", element("code", query), rows, element("div", note, style="font-size:12px;opacity:.75"))
