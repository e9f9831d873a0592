"""The scripted person who teaches in a browser, on a generator of coloured squares."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from benchmarks import teaching
from benchmarks.own_models import Subject

pytestmark = pytest.mark.browser
HERE = Path(__file__).parent
GENERATOR, HIDDEN = "holes:Stains", "latents:test_benchmark_own_models:signs"


@pytest.fixture
def few(monkeypatch: pytest.MonkeyPatch) -> None:
    """Few pictures for the shares, and attributes of all shares."""
    monkeypatch.setattr(teaching, "PICTURES", 300)
    monkeypatch.setenv("PYTHONPATH", f"{HERE.parent}:{HERE}")


def test_pairs_have_both_attributes(few: None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    subject = Subject(GENERATOR, HIDDEN, None, 300, tmp_path)
    monkeypatch.setattr(teaching, "SHARES", (0.0, 1.0))
    assert teaching.pairs_of(subject, 10, 0) == [("hat", "boat")]
    monkeypatch.setattr(teaching, "LEAST", 1.0)
    assert teaching.pairs_of(subject, 10, 0) == []


@pytest.mark.slow
@pytest.mark.parametrize("one_by_one", [False, True])
def test_a_person_teaches(
    few: None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, chromium_path: str, one_by_one: bool
) -> None:
    monkeypatch.setattr(teaching, "SHARES", (0.0, 1.0))
    teaching.main(tmp_path, GENERATOR, HIDDEN, count=1, clicks=70, pause=0.0, one_by_one=one_by_one)
    (record,) = json.loads((tmp_path / "results.json").read_text())["records"]
    assert record["pair"] == ["hat", "boat"]
    assert record["pictures"] == 16
    assert record["true"] > 0.6
    assert 20 < record["clicks"] <= 71


@pytest.mark.slow
def test_refits_are_measured(few: None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(teaching, "MOST_LABELS", 100)
    found = teaching.refits(Subject(GENERATOR, HIDDEN, None, 300, tmp_path), ("hat", "boat"), 300)
    assert [record["labels"] for record in found] == [320]
    assert 0 < found[0]["seconds"] < 60
    assert 100 < found[0]["MB"] <= found[0]["most MB"]
