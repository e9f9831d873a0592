"""A folder of pictures to label. Its file `pictures.json` records how the pictures were drawn and chosen."""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path

from energyql import __version__
from energyql.errors import DataError, ModelError, either
from energyql.files import read_json, write_json
from energyql.labelling.settings import MOST_NUMBER
from energyql.pipeline.result_folder import LABELLING
from energyql.training.labels import RANDOM, UNSURE, Drawn
from energyql.training.settings import POOL_START

RECORD = LABELLING
LABELS = "labels.csv"
"""Default name of the table of labels in a folder of pictures."""


@dataclass(frozen=True)
class PictureFolder:
    """A folder of pictures of one generator, seed, truncation and condition.

    Picture number i is drawn from prior sample i of the seed, its i-th random latent.

    Attributes:
        drawn: how the pictures were drawn: seed, truncation, generator and condition.
        random: number of random pictures, which have the numbers 0 to `random - 1`.
        unsure: numbers of the pictures that were chosen because predictions for them were uncertain.
    """

    path: Path
    drawn: Drawn
    random: int = 0
    unsure: tuple[int, ...] = ()

    @classmethod
    def read(cls, path: Path) -> PictureFolder:
        """Read a folder of pictures, as its file `pictures.json` describes it.

        Raises:
            DataError: the file is missing or damaged.
        """
        record = path / RECORD
        try:
            data = read_json(record)
            random, unsure = data["random"], tuple(data["unsure"])
            if not all(type(number) is int and 0 <= number < MOST_NUMBER for number in (random, *unsure)):
                raise ValueError("its numbers of pictures are none")
            if random > POOL_START:
                raise ValueError(f"it says that {random} pictures are random, more than there can be")
            return cls(path, Drawn.parse(str(data["drawn"]), str(record)), random, unsure)
        except (KeyError, TypeError, ValueError) as error:
            raise DataError(f"{record} is damaged: {error}", hint="draw the pictures again") from error
        except ModelError as error:
            message = f"{path} is not a folder of pictures to label: {error.message}"
            draws = either(f"sample_pictures(model, {str(path)!r})", f"energyql sample MODEL --out {path}")
            raise DataError(message, hint=f"{draws} draws some") from error

    @property
    def indices(self) -> list[int]:
        """Numbers of all pictures, the random ones first."""
        return [*range(self.random), *self.unsure]

    def chosen(self, index: int) -> str:
        """Return how a picture was chosen: "random" or "unsure"."""
        return RANDOM if index < self.random else UNSURE

    def file(self, index: int) -> Path:
        """Return the path of a picture, such as `folder/0000012.png`."""
        return self.path / f"{index:07d}.png"

    def having(self, random: int, unsure: tuple[int, ...]) -> PictureFolder:
        """Record in `pictures.json` that the folder has more pictures; both arguments count old and new ones."""
        grown = replace(self, random=random, unsure=unsure)
        record = {"energyql": __version__, "drawn": str(self.drawn), "random": random, "unsure": list(unsure)}
        write_json(self.path / RECORD, record)
        return grown
