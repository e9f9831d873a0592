"""Make the packaged model `postcards` from nothing: `python -m recipes.postcards.make`.

Every stage writes a file into the run folder; an interrupted run continues after the last finished stage.
"""

from __future__ import annotations

from recipes.common.make import main
from recipes.postcards.domain import DOMAIN

if __name__ == "__main__":
    main(DOMAIN, __doc__)
