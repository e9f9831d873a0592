"""Four edits in sequence, each a query: a filmstrip, an animation, and a report of the attributes that changed besides.

`energyql.edit("photograph.png", ...)` starts from a picture of your own instead.
"""

from common import options

import energyql

EDITS = ["smile", "glasses AND NOT hat", "hair = red", "background > 0.6"]

args = options(__doc__)

edited = energyql.edit(7, EDITS, n=args.n // 4, model=args.model)
print(edited.summary())
edited.save_filmstrip(args.out / "editing.png")
edited.animate(args.out / "editing.webp", frames=2 if args.smoke else 8)
