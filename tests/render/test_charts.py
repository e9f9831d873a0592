import numpy as np

from energyql.render.charts import GRID, HEAT, MARK, SCALE, Axes, Canvas, HeatMap, blend, heat
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


def test_heat_is_ever_lighter_and_stays_on_its_scale():
    assert [heat(share) for share in (-1, 0, 0.25, 0.5, 0.75, 1, 9)] == [HEAT[0], *HEAT, HEAT[-1]]
    light = [sum(int(heat(k / 20)[i : i + 2], 16) * part for i, part in ((1, 3), (3, 6), (5, 1))) for k in range(21)]
    assert light == sorted(light)
    assert len(set(light)) == 21


def test_cells_lie_in_their_rows_and_columns_and_the_marked_one_has_a_frame():
    canvas = Canvas(100, 80)
    heat_map = HeatMap(
        ["a", "b"], ["1", "2", "3"], [[0.0, 1.0, None], [1.0, 0.0, 1.0]], float, lambda value: "", (1, 0)
    )
    heat_map.draw(canvas, (20, 10), (20, 20), "below")
    picture = canvas.picture()

    def at(i, j):
        return "#" + "".join(f"{part:02x}" for part in picture.getpixel((20 * j + 30, 20 * i + 20)))

    assert [[at(i, j) for j in range(3)] for i in range(2)] == [
        [HEAT[0], HEAT[-1], GRID],
        [HEAT[-1], HEAT[0], HEAT[-1]],
    ]
    red = np.abs(np.asarray(picture, int) - [int(MARK[i : i + 2], 16) for i in (1, 3, 5)]).max(2) < 40
    rows, columns = np.nonzero(red)
    box = [rows.min(), rows.max(), columns.min(), columns.max()]
    assert np.abs(np.subtract(box, [30, 49, 20, 39])).max() <= 1
