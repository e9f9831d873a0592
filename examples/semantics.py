"""One query and one set of start latents under the three semantics: exact, product, and the paper's own rules (lace).

Sum, log-sum-exp and negation are exact only after the formula has been compiled to parts that exclude one another;
docs and `energyql explain` say more.
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
