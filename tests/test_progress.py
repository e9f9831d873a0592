import pytest

from energyql.progress import reporting


def test_bars_go_to_standard_error(capsys):
    with reporting(True) as report:
        report("sampling", 0.5)
        report("sampling", 1.0)
        report("drawing", 1.0)
    captured = capsys.readouterr()
    assert captured.out == ""
    assert "sampling" in captured.err
    assert "drawing" in captured.err
    assert "100%" in captured.err


def test_nothing_is_drawn_unless_asked(capsys):
    with reporting(False) as report:
        report("sampling", 0.5)
    assert capsys.readouterr() == ("", "")


def test_errors_pass(capsys):
    def fail():
        with reporting(True) as report:
            report("sampling", 0.2)
            raise ValueError("stop")

    with pytest.raises(ValueError, match="stop"):
        fail()
    assert "sampling" in capsys.readouterr().err
