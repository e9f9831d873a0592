"""The shapes of a postcard: SVG of our own, on a square of 128 x 128."""

from __future__ import annotations

import math

from recipes.postcards.svg import dot, line, path, rect
from recipes.postcards.trees import SEASONS, TREES

WALLS = ("white", "red", "yellow", "blue")
Shapes = dict[str, tuple[str, ...]]


# Sky ----------------------------------------------------------------------------------------------------------------
_STARS = (
    (14, 12, 1.0), (27, 33, 0.8), (36, 9, 0.8), (53, 15, 1.1), (59, 37, 0.8), (64, 10, 0.8), (68, 26, 0.7),
    (88, 12, 0.9), (92, 38, 0.8), (101, 15, 0.8), (113, 34, 1.0), (118, 12, 0.8), (12, 38, 0.8), (45, 24, 0.7),
)  # fmt: skip
STARS = "".join(dot(x, y, radius, "#FFF7D6") for x, y, radius in _STARS)


def _cloud(x: float, y: float, size: float) -> str:
    puffs = ((-9, 0, 5), (-2, -4, 7), (7, -1, 5.5))
    shapes = [dot(x + size * dx, y + size * dy, size * radius, "#FFFFFF") for dx, dy, radius in puffs]
    base = rect(x - 15 * size, y, 28 * size, 5 * size, "#FFFFFF", rx=2.5 * size)
    shade = rect(x - 12 * size, y + 2.6 * size, 22 * size, 2.4 * size, "#D9E4F0", rx=1.2 * size)
    return "".join(shapes) + base + shade


CLOUDS = _cloud(28, 22, 1.05) + _cloud(108, 25, 0.72)

# Far land -----------------------------------------------------------------------------------------------------------
_PEAKS = "M0 84 L0 60 L12 50 L20 56 L44 30 L62 53 L72 63 L82 68 L94 60 L102 54 L110 60 L119 50 L128 58 L128 84 Z"
_SHADES = (
    "M44 30 L62 53 L72 63 L82 68 L82 84 L52 84 L46 62 L51 52 L44 42 Z"
    "M12 50 L20 56 L26 50 L24 66 L18 84 L10 84 L15 64 Z"
    "M102 54 L110 60 L114 57 L112 68 L116 84 L104 84 L106 66 Z"
    "M119 50 L128 58 L128 84 L122 84 L123 66 Z"
)
_CAPS = (
    "M44 30 L51.8 40 L48.6 43.4 L46 40.6 L42.6 45 L39.4 41.4 L35 44.2 L34.2 40.6 Z"
    "M12 50 L16 53 L13.5 55.6 L11 53.8 L8 56.6 L6.5 54.6 Z"
    "M119 50 L123.8 54.3 L121 57 L118.6 54.8 L115.4 57.4 L114.4 55.2 Z"
)
MOUNTAINS = path(_PEAKS, "#8C9DBB") + path(_SHADES, "#7386A8") + path(_CAPS, "#FFFFFF")

_FAR = "M0 71 C16 64 34 66 50 71 S84 77 100 70 S122 66 128 68 L128 90 L0 90 Z"
_NEAR = "M0 79 C22 70 40 74 58 79.5 L128 79.5 L128 90 L0 90 Z M84 80 C98 73 112 72 128 75 L128 80 Z"
_HILLS = {
    "spring": ("#8FC8A0", "#6FB57E"),
    "summer": ("#74B08A", "#4F9A6B"),
    "autumn": ("#D9A873", "#C38448"),
    "winter": ("#D3E0EC", "#BCCFE0"),
}


def _wood(x: float, y: float, fill: str) -> str:
    """A row of small firs far away."""
    return "".join(
        path(f"M{x + dx} {y - tall} L{x + dx + 2.6} {y} L{x + dx - 2.6} {y} Z", fill)
        for dx, tall in ((0, 6), (4, 8), (8, 6.5), (12, 5))
    )


_WOODS = {"spring": "#4F9A6B", "summer": "#35795A", "autumn": "#9C5F35", "winter": "#8DA9BF"}
HILLS = {
    season: path(_FAR, far) + path(_NEAR, near) + _wood(108, 77, _WOODS[season]) + _wood(57, 79.6, _WOODS[season])
    for season, (far, near) in _HILLS.items()
}

# Water --------------------------------------------------------------------------------------------------------------
LAKE = rect(0, 79, 128, 30, "#FFFFFF")
RIPPLES = "".join(
    rect(x - width / 2, y, width, 1.3, "#FFFFFF", rx=0.65, opacity=0.75)
    for x, y, width in ((79, 81.2, 10), (81, 84.4, 15), (86, 87.8, 9), (84, 91.4, 14), (88, 95, 8))
)
CRACKS = line("M66 84 L82 87 L90 84.5 M82 87 L86 93 L100 95 M104 86 L118 88", "#FFFFFF", 1.1, opacity=0.9)
BOAT = (
    line("M68.5 72 L68.5 91", "#6B4A35", 1.3)
    + path("M70 73 C77 77 80 83 80 88 L70 88 Z", "#FFF8EA")
    + path("M67 76 C62 80 59 84 58 88 L67 88 Z", "#F26B5B")
    + path("M56.5 90 L82 90 C80.5 93.6 78 95.6 75 95.6 L63 95.6 C60 95.6 57.8 93.4 56.5 90 Z", "#9C4A3C")
    + rect(56.5, 90, 25.5, 1.7, "#FFF8EA")
    + rect(62, 96.4, 15, 1.1, "#FFFFFF", rx=0.5, opacity=0.6)
)

# Near land ----------------------------------------------------------------------------------------------------------
_MEADOW = "M0 86 C20 81 42 84 54 91 C66 99 92 103 128 97 L128 128 L0 128 Z"
_FRONT = "M0 113 C26 104 58 107 82 113 C100 117 116 115 128 110 L128 128 L0 128 Z"
_TRACK = "M30 96 C34 102 46 103 47 109 C48 116 38 120 36 128 L52 128 C54 120 60 114 55 107 C51 101 40 101 36 96 Z"
_LAND = {
    "spring": ("#A7D676", "#84C36A", "#F3E3B3"),
    "summer": ("#86BE5A", "#5FA34F", "#EBD9A0"),
    "autumn": ("#E2B458", "#C98E3F", "#F0DDB4"),
    "winter": ("#F7FAFD", "#E3ECF5", "#CFDDEA"),
}
_FLOWERS = ((12, 119), (20, 111), (27, 121), (66, 118), (74, 123), (88, 121), (97, 118.5), (116, 120), (62, 110.5))


def _flowers(colours: tuple[str, ...], radius: float) -> str:
    return "".join(dot(x, y, radius, colours[i % len(colours)]) for i, (x, y) in enumerate(_FLOWERS))


_STREWN = {
    "spring": _flowers(("#FFFFFF", "#FF9EB8", "#FFE26B"), 1.5),
    "summer": _flowers(("#F25C54", "#FFD23F"), 1.4),
    "autumn": _flowers(("#D9542B", "#8F4A22"), 1.5),
    "winter": "",
}
MEADOW = {
    season: path(_MEADOW, light) + path(_TRACK, track) + path(_FRONT, dark, opacity=0.92) + _STREWN[season]
    for season, (light, dark, track) in _LAND.items()
}

# House --------------------------------------------------------------------------------------------------------------
_HOUSES = {  # wall, its shade, roof, door
    "white": ("#FBF4E6", "#E6DAC6", "#C8553D", "#4F7C8C"),
    "red": ("#C8483E", "#A63A36", "#5B4A52", "#F6E7CB"),
    "yellow": ("#F6C453", "#DDA63E", "#8A5A44", "#5B7F5A"),
    "blue": ("#5C94C4", "#457AA8", "#EFE6D8", "#F3C567"),
}
_WINDOWS = ((17.5, 82), (40.5, 82))


def _house(wall: str, shade: str, roof: str, door: str) -> str:
    panes = "".join(
        rect(x - 0.9, y - 0.9, 7.8, 8.3, "#FFFFFF") + rect(x, y, 6, 6.5, "#5F7F97")
        + line(f"M{x + 3} {y} L{x + 3} {y + 6.5}", "#FFFFFF", 0.9)
        for x, y in _WINDOWS
    )  # fmt: skip
    return (
        rect(37, 55, 5.5, 12, shade) + rect(36, 54, 7.5, 2.4, roof)
        + rect(13, 75, 38, 22, wall) + rect(13, 75, 38, 3.2, shade)
        + path("M9 77 L17 62 L47 62 L55 77 Z", roof)
        + rect(28.5, 84, 7.5, 13, door) + dot(34.4, 91, 0.8, "#3A2E2A")
        + panes
    )  # fmt: skip


HOUSES = {name: _house(*colours) for name, colours in _HOUSES.items()}
ROOF_SNOW = path(
    "M9.5 76 L17 61 L47 61 L54.5 76 C52 73 50 77 47.5 74 C44.5 71 43 76 39.5 73.4 C36 71 34 75.6 30 73.2 "
    "C27 71 25 75.8 21.5 73.6 C18 71.4 16 76.6 13.6 74.2 C12 73 10.6 74.6 9.5 76 Z",
    "#FFFFFF",
) + rect(35.6, 52.6, 8.3, 2.6, "#FFFFFF", rx=1.3)
LIT = "".join(
    rect(x, y, 6, 6.5, "#FFD66B") + line(f"M{x + 3} {y} L{x + 3} {y + 6.5}", "#8A6A4A", 0.9) for x, y in _WINDOWS
)
SMOKE = "".join(
    dot(x, y, radius, "#F4F4F6", opacity=0.9)
    for x, y, radius in ((40, 49.5, 2.6), (37.6, 44, 3.4), (41, 38, 4.2), (36.4, 33.4, 3.4))
)

# Before everything --------------------------------------------------------------------------------------------------
_GOLDEN = (math.sqrt(5) - 1) / 2
FLAKES = "".join(
    dot(round(9 + 110 * (i * _GOLDEN % 1), 1), round(9 + 110 * (i + 0.5) / 34, 1), (1.9, 1.4, 1.65)[i % 3], "#FFFFFF")
    for i in range(34)
)
FRAME = (
    '<path fill-rule="evenodd" fill="#FBF7EE" d="M0 0 H128 V128 H0 Z M8 5 H120 A3 3 0 0 1 123 8 V120 '
    'A3 3 0 0 1 120 123 H8 A3 3 0 0 1 5 120 V8 A3 3 0 0 1 8 5 Z"/>'
)

# Slot -> its drawings, in the order of the conditions of the domain; "" draws nothing.
SHAPES: Shapes = {
    "night": ("", STARS),
    "clouds": ("", CLOUDS),
    "mountains": ("", MOUNTAINS),
    "hills": tuple(HILLS[season] for season in SEASONS),
    "lake": (LAKE,),
    "ripples": (RIPPLES, RIPPLES, RIPPLES, CRACKS),
    "boat": ("", BOAT),
    "meadow": tuple(MEADOW[season] for season in SEASONS),
    "smoke": ("", SMOKE),
    "house": ("", *(HOUSES[wall] for wall in WALLS)),
    "roof_snow": ("", ROOF_SNOW),
    "lit": ("", LIT),
    "tree": ("", *TREES["pine"], *TREES["oak"], *TREES["birch"]),
    "snow": ("", FLAKES),
    "frame": (FRAME,),
}
