"""Second looks at labels that readers doubt: pictures are shown again, and what a person says then is settled."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from energyql.errors import DataError, either
from energyql.labelling.sheet import Cells, LabelSheet
from energyql.training.doubts import open_doubts, read_settled, write_settled


@dataclass
class Looks:
    """Second looks at the pictures of a table whose labels readers doubt. Every method reads the files again.

    Attributes:
        looked: pictures that were looked at since the start, each with its labels and settled ones from before.
    """

    sheet: LabelSheet
    looked: list[tuple[int, Cells, dict[str, str]]] = field(default_factory=list)

    def left(self) -> dict[int, list[str]]:
        """Number of a picture -> its attributes with doubted labels; those with most wrong labels, as expected, first.

        Raises:
            DataError: there are no doubts, or a file is damaged.
        """
        doubts = open_doubts(self.sheet.path) if self.sheet.path.exists() else None
        if doubts is None:
            train = either("train_attributes", f"energyql train MODEL --labels {self.sheet.path} --out FOLDER")
            wrong = f"no training has looked for wrong labels in {self.sheet.path}"
            raise DataError(wrong, hint=f"train first: {train}")
        shares, names = dict[int, float](), dict[int, list[str]]()
        for doubt in doubts:
            shares[doubt.picture] = shares.get(doubt.picture, 0.0) + doubt.wrong
            names.setdefault(doubt.picture, []).append(doubt.attribute)
        order = sorted(shares, key=lambda picture: -shares[picture])
        return {picture: [name for name in self.sheet.attributes if name in names[picture]] for picture in order}

    def decide(self, index: int, cells: Mapping[str, Any]) -> dict[int, Cells]:
        """Write labels of a picture, where its row is, and settle its doubted ones; other arguments as of a sheet.

        Raises:
            DataError: the picture has no doubted label, or a label is no value of its attribute.
        """
        left = self.left()
        if index not in left:
            raise DataError(f"no label of picture {index} is doubted any more")
        before, settled = self.sheet.rows()[index], read_settled(self.sheet.path)
        rows = self.sheet.update({index: cells})
        own = settled.get(str(index), {})
        kept = {name: rows[index][name] for name in left[index] if rows[index][name]}
        write_settled(self.sheet.path, settled | {str(index): own | kept})
        self.looked.append((index, before, own))
        return rows

    def undo(self, index: int) -> dict[int, Cells]:
        """Take back the last look since the start, if it was at this picture."""
        if not self.looked or self.looked[-1][0] != index:
            raise DataError(f"picture {index} is not the last that you looked at")
        index, before, own = self.looked.pop()
        write_settled(self.sheet.path, read_settled(self.sheet.path) | {str(index): own})
        return self.sheet.update({index: before})
