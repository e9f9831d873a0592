"""An object that runs a command when Python unpickles it; the fixture `unharmed` checks that it did not."""

import os

MARK = "energyql-was-here"


class Attack:
    def __reduce__(self):
        return os.system, (f"touch {MARK}",)
