"""A folder of pictures to label, with a record of how they were drawn: `pictures.json`."""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path

from energyql.errors import DataError, ModelError
from energyql.files import read_json, write_json
from energyql.pipeline.result_folder import LABELLING
from energyql.training.labels import POOL_START, RANDOM, UNSURE, Drawn
from energyql.version import __version__

RECORD = LABELLING
LABELS = "labels.csv"
"""The table of labels, unless another one is named."""
MOST_NUMBER = 1 << 62


@dataclass(frozen=True)
class PictureFolder:
    """Pictures of one generator, seed and truncation.

    Attributes:
        path: the folder.
        drawn: how its pictures were drawn.
        random: number of random pictures, 0 to `random - 1`.
        unsure: numbers of the pictures that were chosen by heads.
    """

    path: Path
    drawn: Drawn
    random: int = 0
    unsure: tuple[int, ...] = ()

    @classmethod
    def read(cls, path: Path) -> PictureFolder:
        """Read the record of a folder.

        Raises:
            DataError: there is none, or it is damaged.
        """
        try:
            data = read_json(path / RECORD)
            random, unsure = data["random"], tuple(data["unsure"])
            if not all(type(number) is int and 0 <= number < MOST_NUMBER for number in (random, *unsure)):
                raise ValueError("its numbers of pictures are none")
            if random > POOL_START:
                raise ValueError(f"it says that {random} pictures are random, more than there can be")
            return cls(path, Drawn.parse(str(data["drawn"]), str(path / RECORD)), random, unsure)
        except (KeyError, TypeError, ValueError) as error:
            raise DataError(f"{path / RECORD} is damaged: {error}", hint="draw the pictures again") from error
        except ModelError as error:
            raise DataError(
                f"{path} is not a folder of pictures to label: {error.message}",
                hint=f"energyql sample MODEL --out {path} draws some",
            ) from error

    @property
    def indices(self) -> list[int]:
        """Numbers of all pictures, the random ones first."""
        return [*range(self.random), *self.unsure]

    def chosen(self, index: int) -> str:
        """Return how a picture was chosen: "random" or "unsure"."""
        return RANDOM if index < self.random else UNSURE

    def file(self, index: int) -> Path:
        """Return the path of a picture."""
        return self.path / f"{index:07d}.png"

    def having(self, random: int, unsure: tuple[int, ...]) -> PictureFolder:
        """Write the record of more pictures, and return the folder with them."""
        grown = replace(self, random=random, unsure=unsure)
        record = {"energyql": __version__, "drawn": str(self.drawn), "random": random, "unsure": list(unsure)}
        write_json(self.path / RECORD, record)
        return grown
