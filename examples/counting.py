"""AT LEAST, AT MOST and EXACTLY so many of a list of conditions."""

from common import options

import energyql
from energyql import E, at_least, exactly

args = options(__doc__)

accessories = [E.glasses, E.hat, E.beard, E.moustache]
queries = {
    "at-least-3": at_least(3, accessories),
    "exactly-1": exactly(1, accessories) & E.smile,
    "none": "NONE OF (glasses, hat, beard, moustache)",  # the same in text
}

for name, query in queries.items():
    result = energyql.generate(query, n=args.n, model=args.model)
    print(f"{query}: {result.summary()}")
    result.save(args.out / f"counting-{name}.png")
