"""Queries from Python operators instead of text: the same tree, the same pictures."""

from common import options

import energyql
from energyql import E

args = options(__doc__)

base = E.smile & ~E.glasses  # expressions are values: name them, keep them in lists, combine them
for color in ("black", "red"):
    query = base & E.hair.eq(color) & ~E.hat
    assert query == energyql.parse(f"smile AND NOT glasses AND hair = {color} AND NOT hat")

    result = energyql.generate(query, n=args.n, model=args.model)
    print(f"{query}: {result.summary()}")
    result.save(args.out / f"operators-{color}.png")
