import threading
import warnings

import pytest

from energyql.errors import TautologyWarning
from energyql.logic.tautology import noting_tautologies, warn_tautology


def test_notes_take_the_place_of_warnings():
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        with noting_tautologies() as notes:
            warn_tautology("a")
            with noting_tautologies() as inner:
                warn_tautology("b")
            warn_tautology("c")
    assert (notes, inner) == (["a", "c"], ["b"])
    with pytest.warns(TautologyWarning, match="d"):
        warn_tautology("d")


def test_another_thread_keeps_its_own():
    found = []

    def other():
        with noting_tautologies() as notes:
            warn_tautology("theirs")
        found.extend(notes)

    with noting_tautologies() as mine:
        thread = threading.Thread(target=other)
        thread.start()
        thread.join()
        warn_tautology("mine")
    assert (mine, found) == (["mine"], ["theirs"])
