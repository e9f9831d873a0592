"""Runs of any length: results batch by batch, and a folder that grows with them and can be continued."""

from __future__ import annotations

import json
import logging
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, nullcontext, suppress
from dataclasses import replace
from itertools import takewhile
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from energyql.errors import ArgumentError, DataError
from energyql.files import (
    PICTURE_SUFFIXES,
    as_path,
    check_destination,
    finish_saving,
    naming_target,
    saving,
    sole_writer,
)
from energyql.language import Expr
from energyql.language.lexical import shorten
from energyql.models import DEFAULT_MODEL
from energyql.pipeline.draw import PreparedQuery, pipeline_for
from energyql.pipeline.model import Model
from energyql.pipeline.result import MOST_PICTURES, PER_SAMPLE, Result, take_rows
from energyql.pipeline.result_folder import (
    RESULT,
    check_free,
    part_files,
    part_folders,
    part_name,
    picture_files,
    read_part,
    write_measurements,
    write_pictures,
)
from energyql.pipeline.settings import DEFAULTS, PICTURES, DrawOptions, settings_of, whole_number
from energyql.progress import Report
from energyql.sampling.registry import sampler_text

if TYPE_CHECKING:
    from typing_extensions import Unpack

PART = 1024
"""Number of samples at which a part of a folder is full. Each batch rewrites all measurements of its part."""
OPENING = 16
"""Samples of the first batch of a folder, small so that a run that is interrupted early has pictures: 64 pictures of
`avatars` take 3.3 s of CPU time, 16 of them 0.8 s, and 16 and then 48 no more than 64."""
_ONE_RUN = ("canonical", "model", "fingerprints", "judge", *settings_of("provenance"), "discriminator")
"""Facts that are the same for all samples of a folder."""
_MEASURED = tuple(name for name in PER_SAMPLE if name != "images")
_log = logging.getLogger("energyql")


def stream(
    query: str | Expr,
    n: int,
    *,
    model: str | Path | Model = DEFAULT_MODEL,
    save_to: str | Path | None = None,
    first: int = 0,
    device: str = "auto",
    progress: bool | Report = True,
    **options: Unpack[DrawOptions],
) -> Iterator[Result]:
    """Draw pictures that satisfy a query batch by batch: memory does not grow with n.

    With `save_to` each batch is written to a folder before it is yielded, so an interrupted run keeps its pictures.
    The same call then continues it: existing batches are neither drawn nor yielded again. A call with a larger n, or
    one whose `first` is the number after the last sample, continues it too; a smaller n removes the samples beyond it.
    `Result.load` reads the folder. It holds about the first thousand samples itself, and the further ones in parts,
    `01024/`, `02048/` and so on, each of which can be loaded by itself.

        for part in stream("smile AND hat", 100_000, save_to="hats/"):
            print(part.summary())

    Args:
        query: as for `generate`.
        n: number of pictures, of any size.
        model: as for `generate`.
        save_to: a folder that is new or holds the beginning of this run.
        first: as for `generate`.
        device: as for `generate`.
        progress: as for `generate`.
        options: the settings, as for `generate`.

    Returns:
        An iterator over results of 64 consecutive samples each, or of `batch_size` if that is more; with `save_to`, the
        first of them comes as two, the first of which has 16 samples.

    Raises:
        DataError: the folder holds another run, or a damaged one.
        EnergyQLError: as for `generate`, at the call and not at the first batch.
    """
    prepared = pipeline_for(model, device).prepare(query, **options)
    if save_to is None:
        return prepared.stream(n, first=first, progress=progress)
    return FolderRun(as_path(save_to), prepared, n, first).draw(progress)


class FolderRun:
    """A run that is written to a folder batch by batch, after the samples that the folder holds.

    Args:
        folder: a new folder, or one with the beginning of the same run.
        prepared: the compiled query.
        n: number of samples of the whole run; by default `PICTURES`, or as many as the folder holds if that is more.
        first: number of its first sample, or of the one after the last in the folder.

    Attributes:
        removed: number of samples that the folder held beyond the n-th.

    Other writers of the folder are refused until the run has ended.

    Raises:
        ArgumentError: `folder` cannot be written, holds other files of these names, or is being written by somebody
            else; or a number is out of range.
        DataError: the folder holds another run, or a damaged one.
    """

    def __init__(self, folder: Path, prepared: PreparedQuery, n: int | None, first: int = 0) -> None:
        count, first = (
            whole_number("n", PICTURES if n is None else n, most=2**62),
            whole_number("first", first, least=0, most=2**62),
        )
        if folder.suffix.lower() in PICTURE_SUFFIXES:
            raise ArgumentError(f"a run is saved to a folder, not to {folder}", hint="name a folder")
        self.folder, self._prepared = check_destination(folder), prepared
        self._verdicts: list[Result] = []
        self._start = 0  # position of the last part
        self._last: Result | None = None  # its samples, without pictures
        with ExitStack() as stack:
            self._writer = stack.enter_context(sole_writer(folder, "a run"))
            self._look(n, count, first)
            self._seen = self._mark()
            self._held = stack.pop_all()

    def _look(self, n: int | None, count: int, first: int) -> None:
        """Read the samples in the folder, and remove files that are not, or no longer, of the run."""
        folder = self.folder
        finish_saving(folder)
        begin = self._read() if (folder / RESULT).is_file() else first
        held = len(self)
        if first not in (begin, begin + held):
            raise DataError(
                f"{folder} holds samples {begin} to {begin + held - 1} of this run, which {first} does not continue",
                hint=f"begin with {begin + held} (first, --first), or name another folder",
            )
        self._first, self._n = begin, max(first - begin + count, held if n is None else 0)
        check_free(folder, self._n, held)
        self.removed = max(0, held - self._n)
        if held:
            _log.info("%s holds %d samples of this run, of %d", folder, held, self._n)
            self._remove_excess()

    def __len__(self) -> int:
        return sum(map(len, self._verdicts))

    @property
    def verdicts(self) -> Result:
        """All samples of the folder with index, energy, verdict and status only, which are enough for a summary."""
        return Result.join(self._verdicts)

    def draw(self, progress: bool | Report = True) -> Iterator[Result]:
        """Draw the samples that the folder lacks, and yield each batch when it is written."""
        with self._held:
            if (held := len(self)) == self._n:
                return
            begin = self._first + held
            for batch in self._prepared.stream(self._n - held, first=begin, opening=OPENING, progress=progress):
                self._writer.move()
                if self._mark() != self._seen:
                    raise DataError(
                        f"{self.folder} has changed since the last batch of this run was written",
                        hint="let one run write a folder; the same call continues it",
                    )
                with naming_target(self.folder):
                    self._append(batch)
                self._seen = self._mark()
                yield batch

    def _mark(self) -> tuple[int, ...] | None:
        """Return numbers that change whenever the last `result.json` is replaced; `None` if there is none."""
        with suppress(FileNotFoundError):
            facts = (self._part(self.folder) / RESULT).stat()
            return facts.st_dev, facts.st_ino, facts.st_size, facts.st_mtime_ns
        return None

    def _read(self) -> int:
        """Read the samples in the folder; return the index of the first one in the run."""
        check_run(self.folder, self._prepared.provenance)
        begin = 0
        for start, part in [(0, self.folder), *part_folders(self.folder)]:
            self._start, self._last = start, Result(images=[], **read_part(part, _MEASURED))
            begin = begin if start else int(self._last.index[0])
            expected = np.arange(begin + start, begin + start + len(self._last))
            if start != len(self) or not np.array_equal(self._last.index, expected):
                raise DataError(f"the samples in {part} do not continue those before them", hint="name another folder")
            self._verdicts.append(_verdicts_only(self._last))
        return begin

    def _remove_excess(self) -> None:
        """Remove samples beyond the n-th, and pictures of a batch whose writing was interrupted."""
        if len(self) <= self._n:
            with saving(self.folder, self._excess) as staged:
                self._save_grid(staged)
            return
        *before, self._start = [0, *(start for start, _ in part_folders(self.folder) if start < self._n)]
        columns = read_part(self._part(self.folder), _MEASURED)
        rows = np.arange(self._n - self._start)
        last = Result(images=[], **columns | {name: take_rows(columns[name], rows) for name in _MEASURED})
        self._last, self._verdicts = last, [*self._verdicts[: len(before)], _verdicts_only(last)]
        with saving(self.folder, lambda folder: [self._part(folder) / RESULT, *self._excess(folder)]) as staged:
            self._write(last, staged)
            self._save_grid(staged)

    def _excess(self, folder: Path) -> list[Path]:
        """Return the files of samples that are not, or no longer, of this run."""
        unfinished = folder / part_name(len(self))
        left = [] if (unfinished / RESULT).is_file() else picture_files(unfinished)
        return [*picture_files(self._part(folder), len(self)), *left, *part_files(folder, len(self))]

    def _save_grid(self, folder: Path) -> None:
        """Write the grid again if the folder has fewer samples than a grid."""
        if len(self) < MOST_PICTURES:
            Result(**read_part(self.folder, PER_SAMPLE))[: len(self)].save_grid(folder)

    def _append(self, batch: Result) -> None:
        """Write a batch to the last part, or to a new part if that is full."""
        held = len(self)
        if self._last is not None and len(self._last) >= PART:
            self._start, self._last = held, None
        bare = replace(batch, images=[])
        self._last = bare if self._last is None else Result.join([self._last, bare])
        # No picture of an interrupted first batch may stay: nothing in the folder says yet of which run they are.
        with nullcontext(self.folder) if held else saving(self.folder, lambda _: ()) as folder:
            write_pictures(self._part(folder), batch.images, batch.index.tolist(), batch.provenance, held)
            self._write(self._last, folder)
            if held < MOST_PICTURES:
                Result(**read_part(folder, PER_SAMPLE)).save_grid(folder)
        self._verdicts.append(_verdicts_only(batch))

    def _part(self, folder: Path) -> Path:
        """Return the folder of the last part, below that of the run."""
        return folder / part_name(self._start) if self._start else folder

    def _write(self, last: Result, folder: Path) -> None:
        provenance = last.provenance | {"n": len(last)}
        write_measurements(self._part(folder), last.measurements(), last.statistics, provenance, self._start)


def check_run(folder: Path, provenance: Mapping[str, Any]) -> None:
    """Check that a folder, if it holds a result, holds samples of the run with this provenance.

    Raises:
        DataError: they are of another query, model, seed or setting.
    """
    finish_saving(folder)
    if not (folder / RESULT).is_file():
        return
    old = read_part(folder, ())["provenance"]
    hint = "name another folder, or remove this one"
    for name in _ONE_RUN:
        default = DEFAULTS.get(name)  # of a setting that is not recorded
        theirs, ours = (json.loads(json.dumps(facts.get(name, default))) for facts in (old, provenance))
        if theirs != ours:
            start, as_text = 0, sampler_text if name == "sampler" else str
            theirs, ours = as_text(theirs), as_text(ours)
            if name == "sampler":  # its many settings, from the first one that differs
                same = sum(1 for _ in takewhile(lambda pair: pair[0] == pair[1], zip(theirs, ours, strict=False)))
                start = 1 + max(theirs.rfind("(", 0, same), theirs.rfind(" ", 0, same))
            difference = "" if name == "fingerprints" else f": {shorten(theirs[start:])}, not {shorten(ours[start:])}"
            what = {"canonical": "query", "fingerprints": "training of the model"}.get(name, name)
            raise DataError(f"{folder} holds a run of another {what}{difference}", hint=hint)
    if ("budget" in old) != ("budget" in provenance):
        kind = "with" if "budget" in old else "without"
        raise DataError(f"{folder} holds a run {kind} a budget", hint=hint)


def _verdicts_only(result: Result) -> Result:
    return replace(result, images=[], z=torch.empty(0), w=torch.empty(0), probabilities={}, judged={})
