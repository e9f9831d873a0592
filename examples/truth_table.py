"""All combinations of three attributes, one of which is a class: eight rows of pictures on one page.

The pictures of a column start from one latent. The gradient flow moves it only as far as a row asks, so that much the
same person goes through all combinations.
"""

from common import options

import energyql

args = options(__doc__)

gallery = energyql.truth_table("smile", "glasses", "hair = red", n=args.n // 2, sampler="ode", model=args.model)

for row in gallery.sections[0].rows:
    print(f"{row.query}: {row.result.summary()}")
gallery.save(args.out / "truth_table.html")
