"""One query, sixteen pictures.

Under each picture: the probability of the query by the attribute heads, and a tick or cross by the image judge.
"""

from common import options

import energyql

args = options(__doc__)

result = energyql.generate("smile AND NOT (glasses OR beard)", n=args.n, model=args.model)

print(result.summary())
result.save(args.out / "quickstart.png")
