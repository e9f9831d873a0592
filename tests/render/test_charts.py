import numpy as np

from energyql.render.charts import SCALE, Axes, Canvas, blend
from energyql.render.pictures import legible


def test_values_lie_where_the_axes_say():
    axes = Axes(Canvas(100, 80), (10, 20), (50, 40), (-1, 1), (0, 8))
    assert [axes.at(-1, 0), axes.at(0, 4), axes.at(1, 8)] == [(10, 60), (35, 40), (60, 20)]


def test_a_bar_ends_at_its_value_and_one_without_height_is_not_drawn():
    canvas = Canvas(30, 20)
    axes = Axes(canvas, (5, 0), (20, 20))
    axes.bar(0, 0.5, 0.5, "#000000", gap=1)
    axes.bar(0.5, 1, 0, "#000000")
    dark = np.argwhere(np.asarray(canvas.picture().convert("L")) < 100)
    assert dark.min(0).tolist() == [10, 6]
    assert dark.max(0).tolist() == [19, 13]
    assert canvas.picture().size == (30, 20)
    assert SCALE > 1


def test_text_is_legible():
    sheets = []
    for text in ("Größe", "Grosse", "grosse"):
        canvas = Canvas(60, 20)
        canvas.text((5, 5), text, "#000000")
        sheets.append(np.asarray(canvas.picture()))
    assert (sheets[0] == sheets[1]).all()
    assert (sheets[1] != sheets[2]).any()
    assert legible("Größe x\u030c й 각 ≤") == "Grosse x й 각 ≤"  # other scripts stay whole


def test_colours_between():
    assert [blend("#ff0000", "#00ff80", share) for share in (0, 0.5, 1)] == ["#ff0000", "#808040", "#00ff80"]
