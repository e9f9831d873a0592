"""All combinations of three attributes, one of which is a class: eight rows of pictures on one page.

The pictures of a column start from the same latent. The gradient flow moves it only until the query holds, so the
rows of a column show similar faces.
"""

from common import options

import energyql

args = options(__doc__)

gallery = energyql.truth_table("smile", "glasses", "hair = red", n=args.n // 2, sampler="ode", model=args.model)

for row in gallery.sections[0].rows:
    print(f"{row.query}: {row.result.summary()}")
gallery.save(args.out / "truth_table.html")
