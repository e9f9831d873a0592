"""From a sample of one query to a sample of another, in equal steps through the latent space.

Under each picture: the probabilities of both queries, and the values that the judge read.
"""

from common import options

import energyql

args = options(__doc__)

gallery = energyql.traverse(
    "smile AND NOT beard AND NOT hat", "NOT smile AND beard AND hat", steps=8, n=args.n // 4, sampler="ode",
    model=args.model,
)  # fmt: skip

section = gallery.sections[0]
for query, holds in zip((section.start, section.end), section.holds, strict=True):
    print(f"{query.expr}: holds in {holds.sum()} of {len(holds)} pictures")
gallery.save(args.out / "traversal.html")
