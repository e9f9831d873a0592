"""A table of five labelled pictures, of which a training doubts four labels."""

from __future__ import annotations

import torch

from energyql.labelling.folder import PictureFolder
from energyql.labelling.sheet import LabelSheet
from energyql.training.doubts import store_doubts
from energyql.training.labels import read_label_table

WRONG = {"glasses": {0: 0.8, 2: 0.7}, "age": {2: 0.5}, "hair": {4: 0.3, 1: 0.02}}


def doubted_sheet(folder: PictureFolder) -> LabelSheet:
    """Glasses of pictures 0 and 2, the age of 2 and the hair of 4 are doubted; all have the same labels."""
    sheet = LabelSheet.open(folder.path / "labels.csv", folder, "glasses, hair=black|brown, age=0..10")
    sheet.update({index: {"glasses": "no", "hair": "black", "age": 3} for index in range(5)})
    table = read_label_table(sheet.path)
    numbers = table.pictures.tolist()
    store_doubts(table, {name: torch.tensor([at.get(i, 0.0) for i in numbers]) for name, at in WRONG.items()})
    return sheet
