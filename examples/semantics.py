"""One query and one set of start latents under three semantics: exact, product, and the rules of the paper (lace).

Sum, log-sum-exp and negation are exact only on a formula that is compiled to parts that exclude one another; see
docs/semantics.md and `energyql explain`.
"""

from common import options

import energyql

args = options(__doc__)

for semantics in ("exact", "product", "lace"):
    result = energyql.generate(
        "(smile AND NOT glasses) OR (glasses AND beard)", n=args.n, model=args.model, semantics=semantics
    )
    evaluations = result.statistics["evaluations_mean"]
    print(f"{semantics}: {result.summary()}, {evaluations:.0f} evaluations a picture")
    result.save(args.out / f"semantics-{semantics}.png")
