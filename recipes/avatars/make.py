"""Make the packaged model `avatars` from nothing: `python -m recipes.avatars.make`.

Every stage writes a file into the run folder; an interrupted run continues after the last finished stage.
"""

from __future__ import annotations

from recipes.avatars.domain import DOMAIN
from recipes.common.make import main

if __name__ == "__main__":
    main(DOMAIN, __doc__)
