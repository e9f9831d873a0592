import pytest

from energyql import generate
from recipes.avatars.domain import DOMAIN
from recipes.common.make import make
from recipes.postcards.domain import DOMAIN as POSTCARDS


@pytest.mark.slow
@pytest.mark.filterwarnings("default")
@pytest.mark.parametrize(("domain", "query"), [(DOMAIN, "smile"), (POSTCARDS, "house")])
def test_the_recipe_makes_a_model_that_answers_queries(domain, query, tmp_path):
    make(domain, tmp_path / "run", tmp_path / "model", scale=0.02)
    result = generate(query, n=2, model=tmp_path / "model", progress=False)
    assert len(result.images) == 2
    assert f"| {query} |" in (tmp_path / "model" / "card.md").read_text()
