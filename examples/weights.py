"""Weights: how much a part of the query counts. A weight multiplies the energy of what follows it.

The weighted part becomes more or less certain relative to the rest. This is to be seen in draws from the posterior,
from which the default sampler would go on until every picture is sure.
"""

from common import options

import energyql

args = options(__doc__)

for weight in (0.1, 1, 5):
    result = energyql.generate(f"smile AND {weight} * hat", n=args.n, model=args.model, sampler="slice")
    smile, hat = (result.probabilities[name].mean() for name in ("smile", "hat"))
    print(f"weight {weight}: mean probability of smile {smile:.3f}, of hat {hat:.3f}")
    result.save(args.out / f"weights-{weight}.png")
