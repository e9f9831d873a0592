"""The result of a run: pictures with latents, energies, verdicts of the judge, and the record of the run."""

from __future__ import annotations

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
from energyql.errors import ArgumentError, DataError
from energyql.files import PICTURE_SUFFIXES, as_path, check_destination, saving
from energyql.generators.base import shape_list, split_noise
from energyql.language.lexical import shorten
from energyql.pipeline import result_words
from energyql.pipeline.columns import COLUMNS, concatenate, take_rows
from energyql.pipeline.provenance import Provenance, different, join_provenance, of_samples
from energyql.pipeline.result_folder import (
    MOST_PICTURES,
    audited,
    check_free,
    describe,
    held_samples,
    read_folder,
    result_files,
    write_recorded,
    write_result,
)
from energyql.pipeline.result_tables import as_arviz, as_frame
from energyql.pipeline.settings import EXACT
from energyql.render.markup import Markup
from energyql.render.notebook import notebook_html
from energyql.render.pictures import label_grid, png_bytes
from energyql.sampling import Status
from energyql.vocabulary import ByAttribute

if TYPE_CHECKING:
    from pandas import DataFrame
    from xarray import DataTree

_NOISE_TYPES = ("float32", "float16", "bfloat16", "float64")
"""Names of the number types in which a diffusion model can take its noise."""


Key = int | slice | Sequence[int] | Sequence[bool] | npt.NDArray[Any] | Tensor
"""A selection of samples of a result: a position, a slice, a mask with true for each selected sample, or positions."""
_MEANS = ("evaluations_mean", "gradients_mean", "generator_calls_mean", "exact")
_SUMS = ("seconds_sampling", "seconds_drawing", "steps_rejected", "drawn", "accepted", "returned", "generator_calls")
_MAXIMA = ("evaluations_max",)
PROBABILITY_UNIT = 1 << 32
"""Sums of probabilities are whole numbers of units of 1 / `PROBABILITY_UNIT`, so that they have the same bits whatever
the batches were in which the samples were drawn."""


def probability_units(probabilities: npt.NDArray[np.float64]) -> int:
    """Fixed-point sum of probabilities, each rounded to 1 / `PROBABILITY_UNIT`: an integer that no order changes."""
    return int(np.rint(probabilities * PROBABILITY_UNIT).sum())


def positions(key: Key, count: int) -> npt.NDArray[np.int64]:
    """Return the positions, 0 to `count - 1`, of the samples that a key selects.

    Raises:
        ArgumentError: there is no such sample, a mask has another length, or the key is something else.
    """
    try:
        place = key if isinstance(key, slice) else np.asarray(key.cpu() if isinstance(key, Tensor) else key)
        empty = isinstance(place, np.ndarray) and not place.size
        rows = np.atleast_1d(np.arange(count)[[] if empty else place])
        if rows.ndim > 1:
            raise IndexError("it is no slice, whole number, mask or list of whole numbers")
    except (TypeError, ValueError, IndexError) as error:
        raise ArgumentError(f"{shorten(repr(key))} is no index of a result of {count:,} samples: {error}") from None
    return rows.copy()  # torch takes no negative strides


def join_statistics(parts: Sequence[Mapping[str, float]], counts: Sequence[int]) -> dict[str, float]:
    """Return the statistics of joined results: sums, maxima, and means weighted by numbers of samples.

    Statistics that do not follow from those of the parts are left out; parts without samples are ignored.
    """
    parts = [part for part, count in zip(parts, counts, strict=True) if count]
    counts = [count for count in counts if count]
    shared = [name for name in parts[0] if all(name in part for part in parts)] if parts else []
    joined = {name: sum(part[name] for part in parts) for name in shared if name in _SUMS}
    joined |= {name: max(part[name] for part in parts) for name in shared if name in _MAXIMA}
    for name in (name for name in shared if name in _MEANS):
        # The sums are whole numbers.
        joined[name] = sum(round(part[name] * count) for part, count in zip(parts, counts, strict=True)) / sum(counts)
    if "drawn_probability" in shared:
        units = sum(round(part["drawn_probability"] * part["drawn"] * PROBABILITY_UNIT) for part in parts)
        joined["drawn_probability"] = units / PROBABILITY_UNIT / joined["drawn"]
    return joined


@dataclass(frozen=True, eq=False)
class Result:
    """Samples of a query: pictures, latents, and measurements of each sample.

    Attributes:
        images: n pictures (PIL, RGB).
        z, w: latents, (n, z_dim) and (n, w_dim), or (n, num_ws, w_dim) in W+; float32 on the CPU.
        index: number of each sample in its run, (n,) int64. The same seed and number give the same sample again.
        energy: energy of the query at z, in nats, lower is better, (n,) float64.
        probabilities: attribute -> predictions of its head. Yes/no: the probability of yes, (n,). Categorical: a dict
            from each class to its probability, (n,). Continuous: a tuple of means and standard deviations, each (n,).
        judged: attribute -> the values that the judge reads off the pictures, (n,) bool, class names or numbers.
        satisfied: whether the values in `judged` satisfy the query, (n,) bool; `None` if the model has no judge, or its
            judge does not read an attribute of the query. Predictions of the heads, which guide the sampler, do not
            count.
        doubtful: whether the predictions of the heads may be wrong at a sample although they are certain, (n,) bool.
            This is so where two sets of heads disagree about the query, or where z has a larger norm than nearly all
            draws from the prior.
        status: for each sample, how the sampler ended, such as `Status.OK`.
        statistics: numbers about the whole run by name, such as the mean number of energy evaluations for a sample, and
            the seconds for sampling and drawing. If a verifier decided, "drawn" and "accepted" are the numbers of
            pictures that were drawn for the samples of this result, and that the verifier accepted.
        provenance: the facts that are needed to repeat the run: query, seed, model and its fingerprints, settings,
            versions.
        draws: number of pictures that were drawn for each sample until the verifier accepted one, (n,) int64; `None` if
            no verifier decided.
        prompt: prompt of each sample, (n,) texts, if `condition` is a list of prompts; else `None`. Their shares, which
            a pilot run estimated, are in `provenance["mixture"]`, in the order of the list.
        audited: share of all samples that truly satisfies the query, with a 95 % interval, as an audit of the loaded
            folder found it, such as "96.1 % (93.8 to 98.0)"; "" if there was none.
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
    provenance: Provenance = field(repr=False)
    draws: npt.NDArray[np.int64] | None = None
    prompt: npt.NDArray[Any] | None = None
    audited: str = ""

    def __len__(self) -> int:
        return len(self.index)

    def summary(self) -> str:
        """Return sentences for people, such as "14 of 16 satisfy the query, says the image judge".

        They also say how many samples are doubtful (the heads may be wrong), how many the sampler could not finish, for
        how many the verifier accepted no picture, or why no verifier decided. If a verifier decided, or samples were
        drawn until enough satisfy the query, or with a budget, they say how many pictures were drawn.
        """
        return result_words.summary(self)

    @property
    def noise(self) -> Tensor:
        """The noise with which a diffusion or flow model starts, `(n, *shape)`, such as (n, 4, 64, 64).

        For a pipeline of diffusers, it is the argument `latents` of its call.

        Raises:
            ArgumentError: z of the generator has no shape (its attribute `z_shape`).
            DataError: the shape that a saved result records does not fit w.
        """
        return _noise_of(self)[0]

    @property
    def step_noise(self) -> list[Tensor]:
        """The noise that a model adds in its steps, in the order in which it is drawn, each `(n, *shape)`; [] if none.

        Raises:
            ArgumentError: z of the generator has no shape (its attribute `z_shape`).
            DataError: the shape that a saved result records does not fit w.
        """
        return _noise_of(self)[1:]

    @property
    def values(self) -> dict[str, npt.NDArray[Any]]:
        """Attribute -> its value for each sample, (n,).

        The judge's values are used if the judge reads the attribute; otherwise the likeliest values by the heads.
        """
        likely = {name: likeliest(table) for name, table in self.probabilities.items()}
        return ByAttribute({name: self.judged.get(name, value) for name, value in likely.items()})

    def __repr__(self) -> str:
        return f"<Result of {self.provenance['query']!r}: {self.summary()}>"

    def __getitem__(self, key: Key) -> Result:
        """Return the result of some samples: `result[3]`, `result[:8]`, `result[result.satisfied]`, `result[[4, 2]]`.

        Args:
            key: the position of a sample, a slice, a mask (n,) of bool, or positions (k,) in any order. A position may
                occur several times; negative positions count from the end.

        Raises:
            ArgumentError: there is no such sample, a mask has another length, or the key is something else.
        """
        rows = positions(key, len(self))
        selected = {name: take_rows(getattr(self, name), rows) for name in COLUMNS}
        statistics = dict(self.statistics)
        if self.draws is not None and not np.array_equal(np.sort(rows), np.arange(len(self))):
            statistics.pop("drawn_probability", None)  # of all samples
            accepted = len(rows) - selected["status"].count(Status.NOT_ACCEPTED)
            statistics |= {"drawn": float(selected["draws"].sum()), "accepted": float(accepted)}
        provenance = of_samples(self.provenance, len(rows))
        return replace(self, **selected, statistics=statistics, provenance=provenance, audited="")

    def __iter__(self) -> Iterator[Result]:
        """Yield the samples one by one, each as a result of one sample."""
        return (self[i] for i in range(len(self)))

    def __add__(self, other: Result) -> Result:
        """Concatenate two results of the same query on the same model, as `join` does for any number of results."""
        return Result.join([self, other]) if isinstance(other, Result) else NotImplemented

    @classmethod
    def join(cls, parts: Iterable[Result]) -> Result:
        """Concatenate results of the same query on the same model, such as runs with several seeds.

        Results of different queries or models are refused, because all energies and verdicts of a result belong to one
        query and one judge. A setting that differs between the results, such as the seed, becomes a list in the
        provenance. Statistics are sums, means and maxima over all samples. Statistics that cannot be computed from
        the statistics of the single results are left out.

        Args:
            parts: the results; a single result is returned unchanged.

        Raises:
            ArgumentError: there are no results, or they differ in query, model, semantics, truncation, condition or
                judge.
        """
        results = list(parts)
        if not results:
            raise ArgumentError("Result.join needs at least one result")
        if len(results) == 1:
            return results[0]
        counts = [len(part) for part in results]
        provenance = join_provenance([part.provenance for part in results], sum(counts))
        joined = {name: concatenate([getattr(part, name) for part in results]) for name in COLUMNS}
        statistics = join_statistics([part.statistics for part in results], counts)
        # Parts of one run with a budget all have the numbers of the whole run, but "drawn" is of the part if verified.
        whole = {"returned"} if joined["draws"] is not None else {"returned", "drawn"}
        whole |= {"generator_calls", "seconds_sampling", "seconds_drawing"}  # equal seconds: parts of one run
        once = whole.intersection(*(part.statistics for part in results))
        runs = different(
            (of_samples(part.provenance, 0), {name: part.statistics[name] for name in once}) for part in results
        )
        statistics |= {name: sum(numbers[name] for _, numbers in runs) for name in once}
        return replace(results[0], **joined, statistics=statistics, provenance=provenance, audited="")

    @classmethod
    def load(cls, folder: str | Path) -> Result:
        """Read a result, with all measurements and pictures, from a folder that `save` or `energyql.stream` wrote.

        All samples are read. The folder of a long run has further samples in subfolders `01024/`, `02048/` and so on; a
        subfolder can also be read by itself.

        Raises:
            DataError: there is no result in the folder, or its files are damaged or do not fit together.
        """
        folder = as_path(folder)
        whole = cls.join([cls(**fields) for fields in read_folder(folder, COLUMNS)])
        return replace(whole, audited=audited(folder))

    def grid(self, columns: int | None = None) -> Image.Image:
        """Return one picture that shows all pictures of the result, in rows of `columns` pictures.

        By default rows are full where a shape of 1:1 to 4:1 allows it. Below each picture are P(query) or the energy; a
        tick or cross, if the judge can decide whether it satisfies the query; and "doubtful", if the attribute heads
        may be wrong about it.

        Raises:
            ArgumentError: `columns` is below 1, or there are no pictures.
        """
        query, footer = self.provenance["query"], self._footer()
        return label_grid(result_words.cells(self), title=query, footer=footer, columns=columns)

    @property
    def probability(self) -> npt.NDArray[np.float64] | None:
        """P(query) of each sample by the heads, (n,), which is exp(-energy).

        `None` if the semantics is not "exact", because the energy is then not -log P(query).
        """
        return np.exp(-self.energy) if self.provenance["semantics"] == EXACT else None

    def _footer(self) -> str:
        return f"{self.summary()}. {result_words.origin(self.provenance)}"

    def save(self, path: str | Path) -> Path:
        """Write all pictures as one labelled grid to a file, or the whole result to a folder.

        In a folder these files are written: each picture, `grid.png` of the first 64 pictures, `latents.safetensors`
        and `result.json`. An earlier result in the folder is replaced. `load` reads the folder. A process that is
        killed during the writing leaves the earlier result or the new one, never parts of both. Each PNG file contains
        the provenance in its text field "energyql".

        Args:
            path: name of a file that ends in .png, .jpg or .webp, or the path of a folder, which is made if it is
                missing.

        Returns:
            The path.

        Raises:
            ArgumentError: the suffix is that of another kind of file, the path cannot be written, the result has no
                samples, or a file of another program would be overwritten.
        """
        path = check_destination(as_path(path))
        if not self.images:
            hint = "raise the budget, or ask for less" if "wanted" in self.provenance else "choose at least one sample"
            raise ArgumentError(f"there is no picture to save: {self.summary()}", hint=hint)
        if path.suffix.lower() in PICTURE_SUFFIXES:
            write_recorded(path, self.grid(), self.provenance)
            return path
        check_free(path, len(self.images), held_samples(path))
        with saving(path, result_files) as folder:
            write_result(folder, self)
        return path

    def to_dict(self) -> dict[str, Any]:
        """Return provenance, statistics and samples as values that JSON can hold, under these three names.

        `save` writes the same values to `result.json`, with the file name of each picture. Pictures, file names and
        latents are left out here.
        """
        return describe(self)

    def to_pandas(self) -> DataFrame:
        """Return the measurements as a table of pandas, one row per sample.

        The columns are `index`, `energy`, `probability` (only under exact semantics), `satisfied`, `status` and
        `prompt` (only if there are several). Then come the predictions of the heads, such as `smile`, `hair=red`,
        `age.mean` and `age.std`, and the values that the judge read, such as `judged.smile`. The method needs pandas,
        which energyql does not install.

        Raises:
            ArgumentError: pandas is not installed.
        """
        return as_frame(self)

    def to_arviz(self, chains: int = 1) -> DataTree:
        """Return the samples as data of ArviZ, for its plots, summaries and diagnostics.

        Samples do not depend on each other, so the samples of a run can be cut into chains in any way. The method needs
        arviz-base. The groups of the data are:

        - `posterior`: predictions of the heads, which are P(yes), P of each class, or the mean of a number;
        - `unconstrained_posterior`: the latents z;
        - `sample_stats`: the fields `index`, `status`, `satisfied` and `doubtful` of the result, the energy as
          `query_energy`, and the log-density `lp`, which is `-strength * energy - |z|² / 2`. `satisfied` is left out
          without verdicts of the judge, and `lp` if results of several strengths were joined.

        Args:
            chains: number of chains of equal length into which the samples are cut in their order.

        Raises:
            ArgumentError: arviz-base is not installed; or the number of samples is not a multiple of `chains`; or an
                attribute has a name that the data need for something else. Such names are `chain`, `draw`, `z`,
                `z_dim`, and `hair_value` if there is a categorical attribute `hair`.
        """
        return as_arviz(self, chains)

    def _repr_png_(self) -> bytes | None:
        return png_bytes(self.grid()) if self.images else None

    def _repr_html_(self) -> Markup:
        query = self.provenance["query"]
        cells = result_words.cells(self)[:MOST_PICTURES]
        texts = [
            result_words.alternative_text(self, i, [(query, cell.satisfied)], bool(cell.mark))
            for i, cell in enumerate(cells)
        ]
        more = len(self) - len(cells)
        footer = f"{self._footer()}. Not shown: {more:,} more" if more else self._footer()
        return notebook_html(cells, texts, title=query, footer=footer, doubt=DOUBT)


def _noise_of(result: Result) -> list[Tensor]:
    """The parts of the noise of which w of a diffusion or flow model consists."""
    shapes = result.provenance.get("z_shape")
    if not shapes:
        raise ArgumentError("these latents are not the noise of a model: its generator has no z_shape")
    facts = result.provenance.get("generator", {})
    name = facts.get("dtype", "float32") if isinstance(facts, dict) else facts
    checked = shape_list(shapes, result.w.shape[1]) if result.w.ndim == 2 else []
    if not checked or name not in _NOISE_TYPES:
        hint = "draw it again, with the command that wrote it"
        raise DataError(f"the result records noise of {shorten(str(shapes))} {name}, which w is not", hint=hint)
    return [part.to(getattr(torch, name)) for part in split_noise(result.w, checked)]
