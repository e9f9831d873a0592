import sys
from types import ModuleType, SimpleNamespace

import pytest

from energyql import generate
from energyql.progress import reporting


def test_bars_go_to_standard_error(capsys, monkeypatch):
    monkeypatch.setenv("FORCE_COLOR", "1")  # so that it counts as a terminal
    with reporting(True) as report:
        report("sampling", 0.5)
        report("sampling", 1.0)
        report("drawing", 1.0)
    captured = capsys.readouterr()
    assert captured.out == ""
    assert "sampling" in captured.err
    assert "drawing" in captured.err
    assert "100%" in captured.err


@pytest.fixture
def clock(monkeypatch):
    """A clock that shows `clock.now` seconds."""
    clock = SimpleNamespace(now=1000.0)
    monkeypatch.setattr("energyql.progress.time.monotonic", lambda: clock.now)
    return clock


def test_a_file_gets_a_line_every_ten_seconds(capsys, clock):
    with reporting(True) as report:
        for second in range(1, 36):
            clock.now += 1
            report("sampling" if second < 25 else "[b] :smile:", second / 35)
    assert capsys.readouterr() == ("", "sampling 29 %\nsampling 57 %\n[b] :smile: 86 %\n")


def test_a_file_gets_no_line_of_short_work(capsys, clock):
    with reporting(True) as report:
        for _ in range(9):
            clock.now += 1
            report("sampling", 0.5)
    clock.now += 60  # afterwards
    assert capsys.readouterr() == ("", "")


def test_a_file_gets_no_line_unless_asked(capsys, clock):
    with reporting(False) as report:
        clock.now += 60
        report("sampling", 0.5)
    assert capsys.readouterr() == ("", "")


def test_nothing_is_drawn_unless_asked(capsys):
    with reporting(False) as report:
        report("sampling", 0.5)
    with reporting(True):
        pass  # what is refused before the first stage leaves no line
    assert capsys.readouterr() == ("", "")


def test_a_function_is_called_instead(capsys):
    told = []
    with reporting(lambda stage, fraction: told.append((stage, fraction))) as report:
        report("sampling", 0.25)
    assert told == [("sampling", 0.25)]
    assert capsys.readouterr() == ("", "")


def test_a_run_tells_how_far_it_is_and_can_be_ended(tiny):
    told = []
    generate("smile", 3, model=tiny, device="cpu", batch_size=2, progress=lambda *step: told.append(step))
    assert list(dict.fromkeys(stage for stage, _ in told)) == ["sampling", "drawing"]
    for stage in ("sampling", "drawing"):
        fractions = [fraction for name, fraction in told if name == stage]
        assert fractions == sorted(fractions)
        assert fractions[-1] == 1.0

    def stop(stage, fraction):
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        generate("smile", 3, model=tiny, device="cpu", progress=stop)


def test_a_notebook_shows_one_line_which_ends_empty_and_needs_no_other_package(capsys, monkeypatch, recwarn):
    shown = []

    def show(content, *, raw, display_id=None):
        shown.append(content)
        return SimpleNamespace(update=show)

    monkeypatch.setitem(sys.modules, "IPython", ModuleType("IPython"))
    monkeypatch.setitem(sys.modules, "IPython.display", SimpleNamespace(display=show))
    monkeypatch.setattr("rich.console._is_jupyter", lambda: True)
    with reporting(True) as report:
        report("sampling", 1.0)
    assert shown == []  # so short that no output is made
    monkeypatch.setattr("energyql.progress.NOTEBOOK_DELAY", 0.0)
    with reporting(True) as report:
        for fraction in (0.5, 0.501, 1.0):
            report("sampling", fraction)
    assert shown == [{"text/plain": "sampling 50 %"}, {"text/plain": "sampling 100 %"}, {}]
    assert capsys.readouterr() == ("", "")
    assert not recwarn.list
