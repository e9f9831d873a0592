"""Weights: a weight multiplies the energy of the part that follows it, so that part becomes more or less probable.

The slice sampler draws from the posterior, where the effect is visible. The default sampler would continue until the
whole query is almost certain in every picture.
"""

from common import options

import energyql

args = options(__doc__)

for weight in (0.1, 1, 5):
    result = energyql.generate(f"smile AND {weight} * hat", n=args.n, model=args.model, sampler="slice")
    smile, hat = (result.probabilities[name].mean() for name in ("smile", "hat"))
    print(f"weight {weight}: mean probability of smile {smile:.3f}, of hat {hat:.3f}")
    result.save(args.out / f"weights-{weight}.png")
