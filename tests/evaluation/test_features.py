from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch

from energyql.errors import EnergyQLError, ModelError
from energyql.evaluation.metrics import inception_features, judge_features
from energyql.pipeline.model import load_model


def test_features_of_a_judge_are_averaged_over_positions(tiny: Path) -> None:
    judge: Any = load_model(tiny).judge
    images = torch.randn(3, 3, 16, 16, generator=torch.Generator().manual_seed(0))
    features = judge_features(judge)
    assert features is not None
    assert features.name == "judge"
    result = features.read(images)
    assert result.shape == (3, judge.body.width)
    torch.testing.assert_close(result, judge.features(images).reshape(3, judge.body.width, -1).mean(2))


def test_a_judge_that_is_a_function_has_no_features() -> None:
    assert judge_features(lambda images: {"smile": [True]}) is None
    assert judge_features(None) is None


def test_a_judge_may_have_a_method_features() -> None:
    class Own:
        def __call__(self, images: torch.Tensor) -> dict[str, list[bool]]:
            return {}

        def features(self, images: torch.Tensor) -> torch.Tensor:
            return images.mean((2, 3))

    features = judge_features(Own())
    assert features is not None
    assert features.read(torch.ones(2, 3, 4, 4)).tolist() == [[1.0] * 3] * 2


def test_inception_without_its_package(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(__import__("sys").modules, "torch_fidelity.feature_extractor_inceptionv3", None)
    with pytest.raises(EnergyQLError, match=r"pip install \"torch-fidelity"):
        inception_features()


def test_inception_without_its_weights(tmp_path: Path) -> None:
    pytest.importorskip("torch_fidelity")
    with pytest.raises(ModelError, match=r"is missing(.|\n)*download it"):
        inception_features(tmp_path / "none.pth")


class Evil:
    def __reduce__(self) -> Any:
        return (print, ("this was run",))


def test_a_file_that_would_run_something_is_refused(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    pytest.importorskip("torch_fidelity")
    torch.save({"fc.weight": Evil()}, tmp_path / "evil.pth")
    with pytest.raises(ModelError, match="does not hold the weights of Inception"):
        inception_features(tmp_path / "evil.pth")
    assert capsys.readouterr().out == ""


def test_inception_reads_pictures(tmp_path: Path) -> None:
    module = pytest.importorskip("torch_fidelity.feature_extractor_inceptionv3")

    class Blank(module.FeatureExtractorInceptionV3):
        def load_state_dict(self, *_: Any, **__: Any) -> None:
            pass

    torch.save({}, tmp_path / "empty.pth")
    blank = Blank("blank", ["2048"], feature_extractor_weights_path=str(tmp_path / "empty.pth"))
    torch.save(blank.state_dict(), tmp_path / "random.pth")
    images = torch.rand(2, 3, 20, 20) * 2 - 1
    features = inception_features(tmp_path / "random.pth")
    result = features.read(images)
    assert result.shape == (2, 2048)
    pixels = ((images + 1) * 127.5).round().to(torch.uint8)
    torch.testing.assert_close(result, blank(pixels)[0])
    assert features.name.startswith("inception ")
