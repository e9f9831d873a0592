"""The result of a run: pictures with latents, energies, verdicts of the judge, and the record of the run."""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

import numpy as np
import numpy.typing as npt
import torch
from PIL import Image
from torch import Tensor

from energyql.attributes.heads import DOUBT
from energyql.attributes.judge import IMAGE_JUDGE
from energyql.attributes.predictions import Table, likeliest, table_columns
from energyql.attributes.quality import VERIFIER
from energyql.errors import ArgumentError, DataError
from energyql.files import PICTURE_SUFFIXES, as_path, check_destination, saving
from energyql.generators.base import shape_list, split_noise
from energyql.language.lexical import shorten
from energyql.pipeline.columns import COLUMNS, concatenate, take_rows
from energyql.pipeline.provenance import different, join_provenance
from energyql.pipeline.result_folder import (
    GRID,
    audited,
    check_free,
    describe,
    held_samples,
    read_folder,
    result_files,
    write_measurements,
    write_pictures,
    write_recorded,
)
from energyql.pipeline.settings import DEFAULT_PURITY, EXACT
from energyql.plugins import import_optional
from energyql.render.markup import Markup, element
from energyql.render.pictures import DOUBTFUL, NO, YES, label_grid, picture_uri, png_bytes
from energyql.sampling import Status
from energyql.sampling.registry import strengths
from energyql.vocabulary import ByAttribute, repeated

if TYPE_CHECKING:
    from pandas import DataFrame
    from xarray import DataTree

MOST_QUERY = 300
"""Largest number of characters of a query in the alternative text of a picture (for readers who cannot see it)."""
HOLDS = {True: "holds", False: "does not hold", None: "is not judged"}
"""Verdicts on a query as words: "The query smile holds"."""
MARK = "doubtful"
"""Text beside a picture for which the predictions of the attribute heads may be wrong."""
MOST_GAP = 0.1
"""A summary proposes a remedy if the share of pictures that satisfy the query by the judge is smaller than expected by
more than this number. The expected share is P(query) by the heads, or the setting `purity`."""
MOST_PROMPTS = 8
"""Largest number of prompts whose shares a summary states."""
_SIDE = 128
"""Width of a picture in a notebook, in pixels of the page."""
_NOISE_TYPES = ("float32", "float16", "bfloat16", "float64")
"""Names of the number types in which a diffusion model can take its noise."""


def reading(judged: Mapping[str, npt.NDArray[Any]], index: int, only: Iterable[str] | None = None) -> str:
    """Values that the judge read off a picture, as a text such as "smile, hair = red; no hat".

    Args:
        judged: attribute -> the judge's value for each of n pictures, (n,).
        index: position of the picture.
        only: names of the attributes to include, by default all.
    """
    present: list[str] = []
    absent: list[str] = []
    for name in judged if only is None else [name for name in only if name in judged]:
        value = judged[name][index].item()
        if isinstance(value, bool):
            (present if value else absent).append(name if value else f"no {name}")
        else:
            present.append(f"{name} = {value if isinstance(value, str) else f'{value:.2f}'}")
    return "; ".join(", ".join(part) for part in (present, absent) if part)


Key = int | slice | Sequence[int] | Sequence[bool] | npt.NDArray[Any] | Tensor
"""A selection of samples of a result: a position, a slice, a mask with true for each selected sample, or positions."""
_MEANS = ("evaluations_mean", "gradients_mean", "generator_calls_mean", "exact")
_SUMS = ("seconds_sampling", "seconds_drawing", "steps_rejected", "drawn", "accepted", "returned", "generator_calls")
_MAXIMA = ("evaluations_max",)
PROBABILITY_UNIT = 1 << 32
"""Sums of probabilities are whole numbers of units of 1 / `PROBABILITY_UNIT`, so that they have the same bits whatever
the batches were in which the samples were drawn."""


def probability_units(probabilities: npt.NDArray[np.float64]) -> int:
    """Return the sum of probabilities in units of 1 / `PROBABILITY_UNIT`."""
    return int(np.rint(probabilities * PROBABILITY_UNIT).sum())


def _describe_shares(prompts: Sequence[str], mixture: Mapping[str, Sequence[float]]) -> str:
    """The largest shares of prompts in one line, as in `60% ± 2% "a house", 40% ± 2% "a hill"`."""
    parts = sorted(zip(mixture["shares"], mixture["errors"], prompts, strict=True), key=lambda part: -part[0])
    texts = [f'{share:.0%} ± {error:.0%} "{shorten(" ".join(prompt.split()))}"' for share, error, prompt in parts]
    return ", ".join(texts[:MOST_PROMPTS]) + (f" and {more} others" if (more := len(texts) - MOST_PROMPTS) > 0 else "")


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


MOST_PICTURES = 64
"""Largest number of pictures that a notebook or `grid.png` in a folder shows; `Result.grid` and a gallery show all."""


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
    provenance: dict[str, Any] = field(repr=False)
    draws: npt.NDArray[np.int64] | None = None
    prompt: npt.NDArray[Any] | None = None
    audited: str = ""

    def __len__(self) -> int:
        return len(self.index)

    def summary(self) -> str:
        """Return one line for people, such as "14 of 16 satisfy the query, says the image judge".

        The line also says how many samples are doubtful (the heads may be wrong), how many the sampler could not
        finish, for how many the verifier accepted no picture, or why no verifier decided. If samples were drawn until
        enough satisfy the query, or with a budget, it says how many were drawn.
        """
        refused = self.status.count(Status.NOT_ACCEPTED)
        failed = len(self) - self.status.count(Status.OK) - refused
        line = self.verdict()
        if "wanted" in self.provenance:
            returned = round(self.statistics.get("returned", len(self)))
            whole = "" if returned == len(self) else f" for all {returned}"  # this is a part of them
            line += "" if "verified" in self.provenance else f", out of {self.statistics['drawn']:.0f} drawn{whole}"
            if len(self) < (wanted := self.provenance["wanted"]) and not whole:
                budget = self.provenance.get("budget")
                ended = "few satisfy the query" if budget is None else f"the budget of {budget} calls ended"
                line += f"; {wanted} were wanted, but {ended}"
        if marked := int(self.doubtful.sum()):
            line += f"; {marked} {'is' if marked == 1 else 'are'} doubtful: {DOUBT}"
        if mixture := self.provenance.get("mixture"):
            line += f"; prompts in the shares {_describe_shares(self.provenance['condition'], mixture)}"
        if doubts := (self.provenance.get("words") or {}).get("doubts"):
            line += f"; of the reader of words: {doubts}"
        if reason := self.provenance.get("unverified"):
            line += f"; no verifier decided, because {reason}"
        if refused:
            line += f"; {refused} {'was' if refused == 1 else 'were'} not accepted in as many draws as attempts allows"
            line += " (--attempts; more labels of such pictures help)"
        line += f"; the solver could not finish {failed}" if failed else ""
        effective = round(self.statistics.get("effective_samples", len(self)))
        if self._guide == "reader" and effective < len(self):
            more = "" if 2 * effective >= len(self) else "draw more for exact frequencies (-n): "
            line += f"; {more}they count as {effective} independent samples, by their weights"
        return f"{line}; audited: {self.audited}" if self.audited else line

    def verdict(self) -> str:
        """Return a line that says how many samples satisfy the query, and what decided it.

        - Judged samples: "9 of 16 satisfy the query, says the image judge". If this share is far below the mean
          P(query) by the attribute heads, the line also has the mean, and says what helps.
        - Verified and judged samples: the line also names the verifier, which selected the samples among all drawn
          pictures: "..., accepted by the verifier (of 31 drawn, heads 92%)". The percentage is the mean P(query) by the
          attribute heads over all drawn pictures. If too few samples satisfy the query by the judge, the line says what
          helps.
        - Verified samples without a judge: the line says how many samples the verifier accepted.
        - Samples verified by code that returns values of attributes, not probabilities: these values count as the
          definition of the attributes. The line says how many samples satisfy the query by them; a judge is not named.
        - Other samples: the line says why they were not judged, with the mean P(query), or the mean energy, by the
          attribute heads, and the quality of the heads.
        """
        verified, drawn = self.provenance.get("verified"), self.statistics.get("drawn")
        by = verified["by"] if verified else ""
        by = f"the {by}" if by in (VERIFIER, IMAGE_JUDGE) else by
        kept = f"{len(self) - self.status.count(Status.NOT_ACCEPTED)} of {len(self)}"
        if verified and verified["stated"]:
            return f"{kept} satisfy the query by the definition {verified['by']}{self._drawn()}"
        if self.satisfied is not None:
            line = f"{self.satisfied.sum()} of {len(self)} satisfy the query, says the {self.provenance['judge']}"
            if not verified:
                return line + self._expected()
            line = f"{line}, accepted by {by}{self._drawn()}"
            few = len(self) > 0 and self.satisfied.mean() < self._purity - MOST_GAP
            return f"{line}: more labels improve {by}" if few else line
        if verified and drawn is not None:
            return f"{kept} accepted by {by}{self._drawn()}; no second reader checked them"
        line, qualities = f"not judged: {self.provenance['unjudged']}", self.provenance.get(self._guide)
        if not len(self) or not qualities:
            return line
        value = f"energy {self.energy.mean():.3g}" if self.probability is None else f"P {self.probability.mean():.2f}"
        by = "reader" if self._guide == "reader" else "attribute heads"
        return f"{line}; mean {value} by the {by} ({describe_qualities(qualities)})"

    @property
    def noise(self) -> Tensor:
        """The noise with which a diffusion or flow model starts, `(n, *shape)`, such as (n, 4, 64, 64).

        For a pipeline of diffusers, it is the argument `latents` of its call.

        Raises:
            ArgumentError: z of the generator has no shape (its attribute `z_shape`).
            DataError: the shape that a saved result records does not fit w.
        """
        return self._noise()[0]

    @property
    def step_noise(self) -> list[Tensor]:
        """The noise that a model adds in its steps, in the order in which it is drawn, each `(n, *shape)`; [] if none.

        Raises:
            ArgumentError: z of the generator has no shape (its attribute `z_shape`).
            DataError: the shape that a saved result records does not fit w.
        """
        return self._noise()[1:]

    def _noise(self) -> list[Tensor]:
        shapes = self.provenance.get("z_shape")
        if not shapes:
            raise ArgumentError("these latents are not the noise of a model: its generator has no z_shape")
        facts = self.provenance.get("generator", {})
        name = facts.get("dtype", "float32") if isinstance(facts, dict) else facts
        checked = shape_list(shapes, self.w.shape[1]) if self.w.ndim == 2 else []
        if not checked or name not in _NOISE_TYPES:
            hint = "draw it again, with the command that wrote it"
            raise DataError(f"the result records noise of {shorten(str(shapes))} {name}, which w is not", hint=hint)
        return [part.to(getattr(torch, name)) for part in split_noise(self.w, checked)]

    @property
    def _guide(self) -> str:
        """What predicted the attributes for the sampler: "reader", which reads them off pictures, or "heads"."""
        return "reader" if "reader" in self.provenance else "heads"

    def _drawn(self) -> str:
        """Return words for a summary of verified pictures, such as " (of 31 drawn, heads 92 %)".

        The words say how many pictures were drawn, and the mean P(query) by the heads over these pictures. If far fewer
        of the accepted pictures are right than wanted, as held-out labels let one expect, the words say how many. The
        result is "" if the number of drawn pictures is not recorded.
        """
        if "drawn" not in self.statistics:
            return ""
        probability = self.statistics.get("drawn_probability")
        heads = "" if probability is None else f", heads {probability:.0%}"
        right = (self.provenance.get("verified") or {}).get("threshold", {}).get("precision")
        poor = right is not None and right < self._purity - MOST_GAP
        expected = f"; {right:.0%} of what it accepts is right, by held-out labels" if poor else ""
        return f" (of {self.statistics['drawn']:,.0f} drawn{heads}{expected})"

    @property
    def _purity(self) -> float:
        """Wanted share of right pictures among those that a verifier accepts, from 0 to 1."""
        return float(self.provenance.get("purity", DEFAULT_PURITY))

    def _expected(self) -> str:
        """Return words for a summary if far fewer pictures satisfy the query than the heads predict; else "".

        The words are P(query) by the heads, and what helps, such as " (heads 90%; more labels improve the heads)".
        """
        if self.probability is None or not len(self) or self.satisfied is None:
            return ""
        share, expected = float(self.satisfied.mean()), float(self.probability.mean())
        if share >= expected - MOST_GAP:
            return ""
        sure = "" if "unverified" in self.provenance else "--verify sure keeps only those, "
        helps = f"{sure}--only-satisfied draws until {len(self)} do; more labels improve the {self._guide}"
        return f" ({self._guide} {expected:.0%}; {helps})"

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
        provenance = self.provenance | {"n": len(rows)}
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
            (part.provenance | {"n": 0}, {name: part.statistics[name] for name in once}) for part in results
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

    def alternative_text(
        self, index: int, verdicts: Sequence[tuple[str, bool | None]], doubtful: bool, count: int | None = None
    ) -> str:
        """Return a text for readers who cannot see a picture: "Picture 1 of 16. Image judge: smile. The query ...".

        Args:
            index: position of the picture in the result, counted from 0.
            verdicts: pairs of the text of a query and whether the picture satisfies it; `None` if that is unknown.
            doubtful: whether the text warns that the attribute heads may be wrong about the picture.
            count: number of all pictures, for "of 16"; by default the number of samples of the result.
        """
        judge = self.provenance["judge"] or ""
        read = f"{judge[:1].upper()}{judge[1:]}: {reading(self.judged, index)}. " if judge and self.judged else ""
        texts = [(f"{query[:MOST_QUERY]}…" if len(query) > MOST_QUERY else query, holds) for query, holds in verdicts]
        answers = " ".join(f"The query {query} {HOLDS[holds]}." for query, holds in texts)
        doubt = f" It is doubtful: {DOUBT}." if doubtful else ""
        return f"Picture {index + 1} of {count or len(self)}. {read}{answers}{doubt}"

    def grid(self, columns: int | None = None) -> Image.Image:
        """Return one picture that shows all pictures of the result, in rows of `columns` pictures.

        By default rows are full where a shape of 1:1 to 4:1 allows it. Below each picture are P(query) or the energy; a
        tick or cross, if the judge can decide whether it satisfies the query; and "doubtful", if the attribute heads
        may be wrong about it.

        Raises:
            ArgumentError: `columns` is below 1, or there are no pictures.
        """
        marks = [MARK if doubtful else "" for doubtful in self.doubtful]
        verdicts = None if self.satisfied is None else self.satisfied.tolist()
        return label_grid(
            self.images, title=self.provenance["query"], captions=self._captions(), verdicts=verdicts, marks=marks,
            footer=self._footer(), columns=columns,
        )  # fmt: skip

    @property
    def probability(self) -> npt.NDArray[np.float64] | None:
        """P(query) of each sample by the heads, (n,), which is exp(-energy).

        `None` if the semantics is not "exact", because the energy is then not -log P(query).
        """
        return np.exp(-self.energy) if self.provenance["semantics"] == EXACT else None

    def _captions(self) -> list[str]:
        letter, values = ("E", self.energy) if self.probability is None else ("P", self.probability)
        return [f"{letter} {value:.3f}" for value in values]

    def _footer(self) -> str:
        settings = self.provenance
        condition = "" if settings.get("condition") is None else f", condition {settings['condition']}"
        origin = f"Model {settings['model']}{condition}, seed {settings['seed']}, {settings['semantics']} semantics"
        return f"{self.summary()}. {origin}"

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
            self.write_files(folder)
        return path

    def write_files(self, folder: Path) -> None:
        """Write all pictures, `grid.png`, `latents.safetensors` and `result.json` to an empty folder."""
        write_pictures(folder, self)
        write_measurements(folder, self)
        self.save_grid(folder)

    def save_grid(self, folder: Path) -> None:
        """Write `grid.png`, one labelled picture of the first 64 pictures, to a folder."""
        first = self[:MOST_PICTURES]
        write_recorded(folder / GRID, first.grid(), first.provenance)

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
        pandas = import_optional("pandas", "a table needs pandas", "pip install pandas")
        table: dict[str, Any] = {"index": self.index, "energy": self.energy}
        if self.probability is not None:
            table["probability"] = self.probability
        table |= {"satisfied": self.satisfied, "status": [status.name for status in self.status]}
        if self.prompt is not None:
            table["prompt"] = self.prompt
        for name, prediction in self.probabilities.items():
            table |= table_columns(name, prediction)
        frame: DataFrame = pandas.DataFrame(table | {f"judged.{name}": values for name, values in self.judged.items()})
        return frame

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
        hint = 'pip install "arviz-base>=0.6", with Python 3.11 or later'
        arviz = import_optional("arviz_base", "data of ArviZ need arviz-base", hint)
        if type(chains) is not int or not 1 <= chains <= len(self) or len(self) % chains:
            raise ArgumentError(f"{len(self)} samples do not make {chains} chains of one length")

        def by_chain(column: Any) -> npt.NDArray[Any]:
            array = np.asarray(column)
            return array.reshape(chains, len(self) // chains, *array.shape[1:])

        posterior: dict[str, npt.NDArray[Any]] = {}
        dims, coords = {"z": ["z_dim"]}, {}
        for name, prediction in self.probabilities.items():
            column: Any = prediction[0] if isinstance(prediction, tuple) else prediction
            if isinstance(prediction, dict):
                dims[name], coords[f"{name}_value"] = [f"{name}_value"], list(prediction)
                column = np.stack(list(prediction.values()), 1)
            posterior[name] = by_chain(column)
        if clash := repeated(["chain", "draw", "z", "z_dim", *posterior, *coords]):
            raise ArgumentError(f"ArviZ needs the name {clash!r} once, and an attribute takes it again")
        stats = {"query_energy": self.energy, "status": [status.name for status in self.status]}
        stats |= {"index": self.index, "doubtful": self.doubtful}
        stats |= {} if self.satisfied is None else {"satisfied": self.satisfied}
        z, strength_values = self.z.numpy(), strengths(self.provenance.get("sampler")) or {1.0}
        if len(strength_values) == 1:  # joined results of several strengths have no common density
            stats["lp"] = -strength_values.pop() * self.energy - 0.5 * np.square(z, dtype=float).sum(1)
        groups = {"posterior": posterior, "unconstrained_posterior": {"z": by_chain(z)}}
        groups["sample_stats"] = {name: by_chain(column) for name, column in stats.items()}
        facts = {name: json.dumps(getattr(self, name)) for name in ("provenance", "statistics")}
        attributes = {"/": {"inference_library": "energyql", **facts}}
        return cast("DataTree", arviz.from_dict(groups, dims=dims, coords=coords, attrs=attributes))

    def _repr_png_(self) -> bytes | None:
        return png_bytes(self.grid()) if self.images else None

    def _repr_html_(self) -> Markup:
        query, captions = self.provenance["query"], self._captions()
        tiles = []
        for i, image in enumerate(self.images[:MOST_PICTURES]):
            holds = None if self.satisfied is None else bool(self.satisfied[i])
            doubtful = bool(self.doubtful[i])
            text = self.alternative_text(i, [(query, holds)], doubtful)
            tiles.append(_tile(image, captions[i], holds, text, doubtful))
        more = len(self) - len(tiles)
        rows = element("div", *tiles, style="display:flex;flex-wrap:wrap;gap:10px;margin:8px 0")
        note = f"{self._footer()}. Not shown: {more:,} more" if more else self._footer()
        return element("div", element("code", query), rows, element("div", note, style="font-size:12px;opacity:.75"))


def describe_qualities(qualities: Mapping[str, str | None]) -> str:
    """Qualities of heads or of a reader as text, such as "smile: R2 0.80 (0.70 to 0.90), hat: ..."."""
    return ", ".join(f"{name}: {quality or 'quality not measured'}" for name, quality in qualities.items())


def _tile(picture: Image.Image, caption: str, holds: bool | None, text: str, doubtful: bool) -> Markup:
    """HTML of a picture in a notebook, with a tick or cross, a caption, and perhaps "doubtful" below it."""
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
