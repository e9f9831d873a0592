"""Conditions on numbers: a row for each start latent, a column for each interval of the background, light to dark.

A picture depends on its seed and number alone, so all pictures of a row start from the same latent.
"""

from common import options

import energyql
from energyql.render.pictures import Cell, label_grid

args = options(__doc__)

INTERVALS = ["background < 0.25", "background IN [0.25, 0.5]", "background IN [0.5, 0.75]", "background > 0.75"]
people = "skin_tone > 0.6 AND smile"

columns = [energyql.generate(f"{people} AND {part}", n=args.n // 2, model=args.model) for part in INTERVALS]

rows = range(args.n // 2)
grid = label_grid(
    [
        Cell(column.images[i], part.removeprefix("background "), bool(column.satisfied[i]))
        for i in rows
        for part, column in zip(INTERVALS, columns, strict=True)
    ],
    title=f"{people} AND background ...",
    columns=len(INTERVALS),
)
args.out.mkdir(parents=True, exist_ok=True)
grid.save(args.out / "continuous.png")
for part, column in zip(INTERVALS, columns, strict=True):
    print(f"{part}: {column.summary()}, mean {column.judged['background'].mean():.2f}")
