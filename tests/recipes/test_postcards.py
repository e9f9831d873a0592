import numpy as np
import pytest
import torch

from energyql import generate
from energyql.attributes.judge import Judge
from energyql.language import bind, parse
from energyql.logic.satisfiability import satisfied
from energyql.models import model_folder
from energyql.pipeline.model import load_model
from energyql.sampling import prior_latents
from recipes.avatars.domain import DOMAIN as AVATARS
from recipes.common.factors import Factors
from recipes.common.measures import measure
from recipes.postcards.domain import DOMAIN
from recipes.postcards.drawing import SIZE, SUN_HIGH, SUN_LOW, SUN_X
from recipes.postcards.shapes import SHAPES

SIDE = 128


@pytest.fixture(scope="module")
def drawing():
    return DOMAIN.drawing(SIDE)


def postcard(drawing, height=0.5, **chosen):
    """One picture (3, side, side) of chosen drawings, without all others, at the coldest light."""
    slots = ("night", "clouds", "mountains", "season", "boat", "house", "roof_snow", "lit", "smoke", "tree", "snow")
    parts = {slot: torch.tensor([chosen.get(slot, 0)]) for slot in slots}
    paints = {paint: stops[:1] for paint, stops in DOMAIN.palettes.items()}
    paints["height_high"] = torch.tensor([[0.0, 0.0, height]])
    return drawing.compose(parts, paints)[0]


@pytest.mark.parametrize("domain", [AVATARS, DOMAIN], ids=lambda domain: domain.name)
def test_relations_hold_in_every_scene(domain):
    vocabulary = domain.vocabulary
    labels = Factors(domain)(prior_latents(3, 0, 20_000, domain.config.z_dim)).labels
    values = {
        name: np.array(spec.values)[labels[name].numpy()] if spec.kind == "categorical" else labels[name].numpy()
        for name, spec in vocabulary.items()
    }
    for relation in vocabulary.relations:
        bound = bind(parse(str(relation)), vocabulary)
        assert satisfied(bound, values, vocabulary).all(), relation


def test_every_drawing_has_a_condition_and_every_condition_a_drawing():
    by_season = {"hills", "ripples", "meadow"}  # their drawings follow the season
    shown = {slot: len(drawings) for slot, drawings in SHAPES.items() if len(drawings) > 1 and slot not in by_season}
    conditions = {slot: len(one) for slot, one in DOMAIN.drawn.items()}
    assert conditions.pop("season") == len(SHAPES["hills"]) == len(SHAPES["ripples"]) == len(SHAPES["meadow"])
    assert shown == conditions


@pytest.mark.parametrize(("slot", "count"), [(slot, len(drawn)) for slot, drawn in DOMAIN.drawn.items()])
def test_drawings_of_a_slot_are_told_apart(drawing, slot, count):
    pictures = [postcard(drawing, **{slot: index}) for index in range(count)]
    for i in range(count):
        for other in pictures[:i]:
            assert ((pictures[i] - other).abs().amax(0) > 0.1).sum() > 15


@pytest.mark.parametrize("height", [0.0, 0.3, 1.0])
def test_the_sun_is_at_its_height(drawing, height):
    changed = (postcard(drawing, height) - postcard(drawing, 0.7)).abs().amax(0) > 0.05
    row = round(SUN_LOW + (SUN_HIGH - SUN_LOW) * height)
    assert changed[row, round(SUN_X)]
    assert not changed[90:].any()
    assert drawing.resolution == SIZE


def test_nothing_hides_the_sun(drawing):
    for slot in ("clouds", "mountains", "house", "smoke", "boat", *(f"tree {i}" for i in range(1, 11))):
        name, _, index = slot.partition(" ")
        chosen = {name: int(index or 1)}
        for height in (0.0, 0.5, 1.0):
            row = round(SUN_LOW + (SUN_HIGH - SUN_LOW) * height)
            centre = (slice(None), slice(row - 3, row + 3), slice(round(SUN_X) - 3, round(SUN_X) + 3))
            difference = postcard(drawing, height, **chosen)[centre] - postcard(drawing, height)[centre]
            assert not difference.any(), slot


def test_the_packaged_generator_draws_what_was_meant():
    measures = measure(DOMAIN, load_model("postcards").generator, Judge.load(model_folder("postcards")), 48)
    assert measures.closeness.psnr.median() > 38
    assert measures.closeness.psnr.quantile(0.1) > 34
    assert measures.closeness.energy.median() > 0.95
    assert measures.seen > 0.97


@pytest.mark.parametrize(
    "query",
    [
        "night AND snow AND house",
        "boat AND season = autumn AND tree = pine AND NOT house AND height > 0.4",
    ],
)
def test_queries_hold_by_the_judge(query):
    result = generate(query, n=48, model="postcards", seed=5, progress=False)
    assert np.mean(result.satisfied.tolist()) >= 0.97


def test_the_model_is_small():
    assert sum(path.stat().st_size for path in model_folder("postcards").iterdir()) < 5e6
