"""Runs of any length: results come batch by batch, and can be written to a folder, so that the run can be continued."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from contextlib import ExitStack, nullcontext, suppress
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import torch

from energyql.errors import ArgumentError, DataError, either
from energyql.files import (
    PICTURE_SUFFIXES,
    as_path,
    check_destination,
    file_mark,
    finish_saving,
    naming_target,
    saving,
    sole_writer,
)
from energyql.language import Expr
from energyql.models import DEFAULT_MODEL
from energyql.pipeline.columns import COLUMNS, MEASURED
from energyql.pipeline.model import Model, changed_parts
from energyql.pipeline.plan import Plan, plan_call
from energyql.pipeline.provenance import Provenance, difference_of_runs, of_samples
from energyql.pipeline.result import Result
from energyql.pipeline.result_folder import (
    MOST_PICTURES,
    RESULT,
    audited,
    check_free,
    part_files,
    part_folders,
    part_name,
    picture_files,
    read_part,
    write_grid,
    write_measurements,
    write_pictures,
)
from energyql.pipeline.run import stream_batches
from energyql.pipeline.settings import PICTURES, CallOptions, whole_number
from energyql.progress import Report

if TYPE_CHECKING:
    from typing_extensions import Unpack

PART = 1024
"""When a part of a folder has this number of samples or more, a new part (a subfolder) begins. Parts are not larger,
because all measurements of a part are written again with each new batch."""
OPENING = 16
"""Number of samples in the first result of a run to a folder. It is small, so that a run that is interrupted early has
pictures: 16 pictures of `avatars` take 0.8 s of CPU time, 64 take 3.3 s, also if 16 of the 64 are drawn first."""
_log = logging.getLogger("energyql")


def stream(
    query: str | Expr,
    n: int,
    *,
    model: str | Path | Model = DEFAULT_MODEL,
    out: str | Path | None = None,
    first: int = 0,
    progress: bool | Report = True,
    **options: Unpack[CallOptions],
) -> Iterator[Result]:
    """Draw pictures that satisfy a query batch by batch, so that memory does not grow with n.

    With `out` each batch is written to a folder before it is yielded, so an interrupted run keeps its pictures. The
    same call then continues the run: batches in the folder are neither drawn nor yielded again. A call with a larger n
    continues the run too. A call with a smaller n removes the samples after the first n from the folder. With `first`,
    a call draws n samples from this number on; the folder must be new, or its last sample must be the one before.

    `Result.load` reads all samples of the folder. About the first thousand are in the folder itself, further ones in
    its subfolders `01024/`, `02048/` and so on, each of which can be loaded by itself too.

        for part in stream("smile AND hat", 100_000, out="hats/"):
            print(part.summary())

    Args:
        query: text or expression, such as `"smile AND NOT hat"`.
        n: number of pictures, of any size.
        model: name of a packaged model, a model folder, or a `Model` in memory.
        out: a folder that is new or holds the beginning of this run.
        first: number of the first sample in the run; by default 0.
        progress: whether to show a progress bar; or a function of the name of a stage and the fraction of it done.
        options: other arguments of `generate` by name, such as `seed`, `sampler` or `device`.

    Returns:
        An iterator over results of 64 consecutive samples each, or of `batch_size` if that is more. With `out`, the
        first result has only 16 samples, and the second one the rest of that batch, so that pictures are there soon.

    Raises:
        DataError: the folder holds another run, or a damaged run.
        EnergyQLError: the query, a name or a setting is wrong; raised at the call, before the first batch.
    """
    plan = plan_call(query, model, **options)
    if out is None:
        return stream_batches(plan, n, first=first, progress=progress)
    return FolderRun(as_path(out), plan, n, first).draw(progress)


class FolderRun:
    """A run that is written to a folder batch by batch, and continues after the samples that are in the folder.

    No other process or thread can write to the folder until `draw` has ended. `len(run)` is the number of samples in
    the folder.

    Args:
        folder: a new folder, or a folder with the beginning of the same run.
        plan: the plan of the run.
        n: number of samples from `first` on. `None` means 16, or all that the folder holds if these are more.
        first: number of the first sample of the run. To add n samples to a folder, the number after its last sample: if
            it holds samples 0 to 15, this is 16.

    Attributes:
        removed: number of samples that were removed from the folder, because the run now ends before them.

    Raises:
        ArgumentError: `folder` cannot be written, or is being written by another process or thread; it holds files of
            other programs with names such as `00012.png`; or a number is out of range.
        DataError: the folder holds another run, or a damaged run.
    """

    def __init__(self, folder: Path, plan: Plan, n: int | None, first: int = 0) -> None:
        count = whole_number("n", PICTURES if n is None else n, most=2**62)
        first = whole_number("first", first, least=0, most=2**62)
        if folder.suffix.lower() in PICTURE_SUFFIXES:
            raise ArgumentError(f"a run is saved to a folder, not to {folder}", hint="name a folder")
        self.folder, self._plan = check_destination(folder), plan
        self._verdicts: list[Result] = []
        self._start = 0  # position of the last part
        self._last: Result | None = None  # its samples, without pictures
        with ExitStack() as stack:
            self._writer = stack.enter_context(sole_writer(folder, "a run"))
            self._look(n, count, first)
            self._seen = self._mark()
            self._held = stack.pop_all()

    def _look(self, n: int | None, count: int, first: int) -> None:
        """Read the samples in the folder, set first sample and length of the run, and remove samples after its end.

        `n` is that of the user, `None` to keep all samples of the folder; `count` is 16 for `None`.
        """
        folder = self.folder
        check_run(folder, self._plan.provenance)
        begin = self._read() if (folder / RESULT).is_file() else first
        held = len(self)
        if first not in (begin, begin + held):
            samples = f"samples {begin} to {begin + held - 1} of this run"
            hint = f"begin with {either('first=', '--first ')}{begin + held}, or name another folder"
            raise DataError(f"{folder} holds {samples}, which {first} does not continue", hint=hint)
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
        """All samples in the folder as one result for a summary, without pictures, latents, predictions and values."""
        return replace(Result.join(self._verdicts), audited=audited(self.folder))

    def draw(self, progress: bool | Report = True) -> Iterator[Result]:
        """Draw the samples that are not in the folder yet, and yield each batch after it is written.

        Raises:
            DataError: something else changed the folder since the last batch.
            ArgumentError: the folder cannot be written.
        """
        with self._held:
            if (held := len(self)) == self._n:
                return
            begin = self._first + held
            for batch in stream_batches(self._plan, self._n - held, first=begin, opening=OPENING, progress=progress):
                self._writer.move()
                if self._mark() != self._seen:
                    message = f"{self.folder} has changed since the last batch of this run was written"
                    raise DataError(message, hint="let one run write a folder; the same call continues it")
                with naming_target(self.folder):
                    self._append(batch)
                self._seen = self._mark()
                yield batch

    def _mark(self) -> tuple[int, ...] | None:
        """Mark of `result.json` of the last part, by which a foreign writer is noticed; `None` if there is none."""
        with suppress(FileNotFoundError):
            return file_mark(self._part(self.folder) / RESULT)
        return None

    def _read(self) -> int:
        """Read all samples in the folder, and return the number of the first one in the run."""
        begin = 0
        for start, part in [(0, self.folder), *part_folders(self.folder)]:
            self._start, self._last = start, Result(images=[], **read_part(part, MEASURED))
            begin = begin if start else int(self._last.index[0])
            expected = np.arange(begin + start, begin + start + len(self._last))
            if start != len(self) or not np.array_equal(self._last.index, expected):
                raise DataError(f"the samples in {part} do not continue those before them", hint="name another folder")
            self._verdicts.append(_verdicts_only(self._last))
        return begin

    def _remove_excess(self) -> None:
        """Remove the samples after the end of the run, and pictures of a batch that is not complete."""
        if len(self) <= self._n:
            with saving(self.folder, self._excess) as staged:
                self._save_grid(staged)
            return
        *before, self._start = [0, *(start for start, _ in part_folders(self.folder) if start < self._n)]
        columns = read_part(self._part(self.folder), MEASURED)
        whole = Result(images=[None] * len(columns["index"]), **columns)  # type: ignore[list-item]
        last = replace(whole[: self._n - self._start], images=[])
        self._last, self._verdicts = last, [*self._verdicts[: len(before)], _verdicts_only(last)]
        with saving(self.folder, lambda folder: [self._part(folder) / RESULT, *self._excess(folder)]) as staged:
            self._write(last, staged)
            self._save_grid(staged)

    def _excess(self, folder: Path) -> list[Path]:
        """Files in `folder` of samples after the last sample of the run, which an earlier, longer run left."""
        unfinished = folder / part_name(len(self))
        left = [] if (unfinished / RESULT).is_file() else picture_files(unfinished)
        return picture_files(self._part(folder), len(self)) + left + part_files(folder, len(self))

    def _save_grid(self, folder: Path) -> None:
        """Write `grid.png`, unless it would show the same first samples as before."""
        if len(self) < MOST_PICTURES:
            write_grid(folder, self._read_first(self.folder)[: len(self)])

    def _read_first(self, folder: Path) -> Result:
        """Samples in `folder` itself, without a statistic that not all batches of a long run would have."""
        result = Result(**read_part(folder, COLUMNS))
        if self._n > MOST_PICTURES:
            result.statistics.pop("drawn_probability", None)
        return result

    def _append(self, batch: Result) -> None:
        """Write a batch to the last part of the folder, or to a new part if the last one is full."""
        held = len(self)
        if self._last is not None and len(self._last) >= PART:
            self._start, self._last = held, None
        bare = replace(batch, images=[])
        self._last = bare if self._last is None else Result.join([self._last, bare])
        # No picture of an interrupted first batch may stay: nothing in the folder says yet of which run they are.
        with nullcontext(self.folder) if held else saving(self.folder, lambda _: ()) as folder:
            write_pictures(self._part(folder), batch, held)
            self._write(self._last, folder)
            if held < MOST_PICTURES:
                write_grid(folder, self._read_first(folder))
        self._verdicts.append(_verdicts_only(batch))

    def _part(self, folder: Path) -> Path:
        """Folder of the last part: a subfolder such as `01024`, or `folder` itself."""
        return folder / part_name(self._start) if self._start else folder

    def _write(self, last: Result, folder: Path) -> None:
        last = replace(last, provenance=of_samples(last.provenance, len(last)))
        write_measurements(self._part(folder), last, self._start)


def check_run(folder: Path, provenance: Provenance, *, limited: bool = False) -> None:
    """Check that the samples in a folder, if any, belong to the run of this provenance.

    `limited` says that the run has a number of wanted samples, as with a budget.

    Raises:
        DataError: they are of another query, model, seed or setting; the folder is damaged; or only one of the two runs
            has a number of wanted samples, as with a budget.
    """
    finish_saving(folder)
    if not (folder / RESULT).is_file():
        return
    old = read_part(folder, ())["provenance"]
    hint = "name another folder, or remove this one"
    if found := difference_of_runs(old, provenance):
        name, theirs, ours, what = found
        if name == "fingerprints":
            parts = changed_parts(theirs if isinstance(theirs, dict) else {}, ours)
            what = f"training of the model (changed: {parts})"
        raise DataError(f"{folder} holds a run of another {what}", hint=hint)
    if ("wanted" in old) != limited:
        kind = "with" if "wanted" in old else "without"
        all_of_them = either("until_satisfied", "--only-satisfied")
        raise DataError(f"{folder} holds a run {kind} a budget, or of {all_of_them}", hint=hint)


def _verdicts_only(result: Result) -> Result:
    return replace(result, images=[], z=torch.empty(0), w=torch.empty(0), probabilities={}, judged={})
