import pytest

from energyql import generate
from recipes.avatars.make import make


@pytest.mark.slow
@pytest.mark.filterwarnings("default")
def test_the_recipe_makes_a_model_that_answers_queries(tmp_path):
    make(tmp_path / "run", tmp_path / "model", scale=0.02)
    result = generate("smile", n=2, model=tmp_path / "model", progress=False)
    assert len(result.images) == 2
    assert "| smile |" in (tmp_path / "model" / "card.md").read_text()
