"""What a call of `edit` returns."""

from __future__ import annotations

import io
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from PIL import Image

from energyql.editing.animation import Film
from energyql.editing.filmstrip import draw_filmstrip
from energyql.editing.leaks import Leaks
from energyql.errors import ArgumentError
from energyql.files import write_json, write_picture
from energyql.pipeline.result import Result, check_destination


@dataclass(frozen=True, eq=False)
class Edit:
    """Pictures, and what became of them step by step. Sample i of every result is the same picture, edited further.

    Attributes:
        start: the pictures before the first step.
        steps: one result a query. What it is `satisfied` by is the query of the step, in mode "cumulative" together
            with the earlier ones.
        leaks: one report a query: what changed although nobody asked.
        queries: as they were given.
        provenance: what replays the edit.
    """

    start: Result
    steps: list[Result]
    leaks: list[Leaks]
    queries: list[str]
    provenance: dict[str, Any] = field(repr=False)
    film: Film = field(repr=False)

    def __len__(self) -> int:
        """Number of pictures."""
        return len(self.start)

    @property
    def final(self) -> Result:
        """The pictures after the last step."""
        return self.steps[-1]

    def summary(self) -> str:
        """A line for each step: how many satisfy it, who says so, and what leaked."""
        return "\n".join(
            f"{i}. {result.satisfied.sum()} of {len(self)} satisfied, says the {result.provenance['judge']}; {leaks}"
            for i, (result, leaks) in enumerate(zip(self.steps, self.leaks, strict=True), 1)
        )

    def __repr__(self) -> str:
        return f"<Edit of {len(self)} pictures in {len(self.steps)} steps>\n{self.summary()}"

    def filmstrip(self, rows: Sequence[int] | None = None) -> Image.Image:
        """A row for each picture, a column for the start and each step, with verdicts, and what leaked.

        Args:
            rows: which pictures; by default the first eight.

        Raises:
            ArgumentError: there is no such picture.
        """
        return draw_filmstrip(self.start, self.steps, self.leaks, self.queries, rows)

    def animate(
        self, path: str | Path, *, rows: Sequence[int] | None = None, frames: int = 8, seconds: float = 0.06
    ) -> Path:
        """Write the way from the start through all steps as a moving picture; it rests at each of them.

        Args:
            path: ends in .gif or .webp.
            rows: which pictures, side by side; by default the first eight.
            frames: pictures from one step to the next, at least 1.
            seconds: for which each is shown, at least 0.02.

        Returns:
            The path.

        Raises:
            ArgumentError: the path cannot be written, or an argument is outside its range.
        """
        return self.film.write([self.start, *self.steps], path, rows=rows, frames=frames, seconds=seconds)

    def save(self, folder: str | Path) -> Path:
        """Write everything to a folder: `filmstrip.png`, `edit.json`, and a folder for the start and for each step.

        Returns:
            The folder.

        Raises:
            ArgumentError: it cannot be written.
        """
        folder = check_destination(Path(folder))
        if folder.suffix and not folder.is_dir():
            raise ArgumentError(f"an edit is saved to a folder, not to {folder}", hint="or save edit.filmstrip()")
        self.start.save(folder / "0-start")
        for i, result in enumerate(self.steps, 1):
            result.save(folder / str(i))
        try:
            write_picture(folder / "filmstrip.png", self.filmstrip())
            write_json(folder / "edit.json", self.to_dict())
        except OSError as error:
            raise ArgumentError(f"cannot write {folder}: {error.strerror or error}") from error
        return folder

    def save_filmstrip(self, path: str | Path) -> Path:
        """Write the filmstrip of all pictures as .png, .jpg or .webp.

        Returns:
            The path.

        Raises:
            ArgumentError: the path cannot be written.
        """
        path = check_destination(Path(path))
        if not path.suffix:
            raise ArgumentError(f"{path} does not end like a picture", hint="name a .png, or save(folder)")
        try:
            write_picture(path, self.filmstrip(range(len(self))))
        except (OSError, ValueError) as error:
            raise ArgumentError(f"cannot write {path}: {error}", hint="save to a folder") from error
        return path

    def to_dict(self) -> dict[str, Any]:
        """Provenance and reports as JSON values, without pictures and latents."""
        steps = [
            leaks.to_dict() | {"satisfied": result.satisfied.tolist(), "statistics": result.statistics}
            for result, leaks in zip(self.steps, self.leaks, strict=True)
        ]
        return {"provenance": self.provenance, "steps": steps}

    def _repr_png_(self) -> bytes:
        buffer = io.BytesIO()
        self.filmstrip().save(buffer, "PNG")
        return buffer.getvalue()
