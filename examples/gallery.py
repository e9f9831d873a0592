"""A gallery of compositions: AND, OR, AND NOT, nested, and combinations that are rare in the training data.

The queries follow the zero-shot experiments of Nie et al. 2021 (arXiv 2110.10873). Add a line to draw your own.
"""

from common import options

import energyql

SETUPS = {
    "and": "smile AND glasses AND hat",
    "or": "hat OR bald",
    "and-not": "long_hair AND NOT smile",
    "not-or": "smile AND NOT (glasses OR beard)",
    "nested": "(beard OR moustache) AND NOT (glasses AND hat)",
    "nested-deep": "((smile AND hat) OR (frown AND glasses)) AND NOT (beard OR moustache)",
    "either-or": "beard XOR long_hair",
    "implies": "hat AND (smile IMPLIES sunglasses)",
    # Each of these is at most one in a hundred of the training pictures, some are fewer than one in a thousand.
    "rare-elder": "long_hair AND beard AND hair = gray AND hat AND sunglasses",
    "rare-rocker": "long_hair AND moustache AND hair = red AND sunglasses AND smile",
    "rare-gloomy": "frown AND hat AND beard AND sunglasses",
    "rare-bald": "bald AND glasses AND NOT beard AND NOT moustache AND smile",
}

args = options(__doc__)

for name, query in SETUPS.items():
    result = energyql.generate(query, n=args.n, model=args.model)
    print(f"{query}: {result.summary()}")
    result.save(args.out / "gallery" / f"{name}.png")
