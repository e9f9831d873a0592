"""The shapes of a postcard: SVG of our own, on a square of 128 x 128."""

from __future__ import annotations

import math

SEASONS = ("spring", "summer", "autumn", "winter")
WALLS = ("white", "red", "yellow", "blue")
Shapes = dict[str, tuple[str, ...]]


def _path(d: str, fill: str, **more: object) -> str:
    return f'<path d="{d}" fill="{fill}"{_attributes(more)}/>'


def _rect(x: float, y: float, width: float, height: float, fill: str, **more: object) -> str:
    return f'<rect x="{x}" y="{y}" width="{width}" height="{height}" fill="{fill}"{_attributes(more)}/>'


def _dot(x: float, y: float, radius: float, fill: str, **more: object) -> str:
    return f'<circle cx="{x}" cy="{y}" r="{radius}" fill="{fill}"{_attributes(more)}/>'


def _ellipse(x: float, y: float, rx: float, ry: float, fill: str, **more: object) -> str:
    return f'<ellipse cx="{x}" cy="{y}" rx="{rx}" ry="{ry}" fill="{fill}"{_attributes(more)}/>'


def _line(d: str, stroke: str, width: float, **more: object) -> str:
    return (
        f'<path d="{d}" fill="none" stroke="{stroke}" stroke-width="{width}" stroke-linecap="round" '
        f'stroke-linejoin="round"{_attributes(more)}/>'
    )


def _attributes(more: dict[str, object]) -> str:
    return "".join(f' {name.replace("_", "-")}="{value}"' for name, value in more.items())


# Sky ----------------------------------------------------------------------------------------------------------------
_STARS = (
    (14, 12, 1.0), (27, 33, 0.8), (36, 9, 0.8), (53, 15, 1.1), (59, 37, 0.8), (64, 10, 0.8), (68, 26, 0.7),
    (88, 12, 0.9), (92, 38, 0.8), (101, 15, 0.8), (113, 34, 1.0), (118, 12, 0.8), (12, 38, 0.8), (45, 24, 0.7),
)  # fmt: skip
STARS = "".join(_dot(x, y, radius, "#FFF7D6") for x, y, radius in _STARS)


def _cloud(x: float, y: float, size: float) -> str:
    puffs = ((-9, 0, 5), (-2, -4, 7), (7, -1, 5.5))
    shapes = [_dot(x + size * dx, y + size * dy, size * radius, "#FFFFFF") for dx, dy, radius in puffs]
    base = _rect(x - 15 * size, y, 28 * size, 5 * size, "#FFFFFF", rx=2.5 * size)
    shade = _rect(x - 12 * size, y + 2.6 * size, 22 * size, 2.4 * size, "#D9E4F0", rx=1.2 * size)
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
MOUNTAINS = _path(_PEAKS, "#8C9DBB") + _path(_SHADES, "#7386A8") + _path(_CAPS, "#FFFFFF")

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
        _path(f"M{x + dx} {y - tall} L{x + dx + 2.6} {y} L{x + dx - 2.6} {y} Z", fill)
        for dx, tall in ((0, 6), (4, 8), (8, 6.5), (12, 5))
    )


_WOODS = {"spring": "#4F9A6B", "summer": "#35795A", "autumn": "#9C5F35", "winter": "#8DA9BF"}
HILLS = {
    season: _path(_FAR, far) + _path(_NEAR, near) + _wood(108, 77, _WOODS[season]) + _wood(57, 79.6, _WOODS[season])
    for season, (far, near) in _HILLS.items()
}

# Water --------------------------------------------------------------------------------------------------------------
LAKE = _rect(0, 79, 128, 30, "#FFFFFF")
RIPPLES = "".join(
    _rect(x - width / 2, y, width, 1.3, "#FFFFFF", rx=0.65, opacity=0.75)
    for x, y, width in ((79, 81.2, 10), (81, 84.4, 15), (86, 87.8, 9), (84, 91.4, 14), (88, 95, 8))
)
CRACKS = _line("M66 84 L82 87 L90 84.5 M82 87 L86 93 L100 95 M104 86 L118 88", "#FFFFFF", 1.1, opacity=0.9)
BOAT = (
    _line("M68.5 72 L68.5 91", "#6B4A35", 1.3)
    + _path("M70 73 C77 77 80 83 80 88 L70 88 Z", "#FFF8EA")
    + _path("M67 76 C62 80 59 84 58 88 L67 88 Z", "#F26B5B")
    + _path("M56.5 90 L82 90 C80.5 93.6 78 95.6 75 95.6 L63 95.6 C60 95.6 57.8 93.4 56.5 90 Z", "#9C4A3C")
    + _rect(56.5, 90, 25.5, 1.7, "#FFF8EA")
    + _rect(62, 96.4, 15, 1.1, "#FFFFFF", rx=0.5, opacity=0.6)
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
    return "".join(_dot(x, y, radius, colours[i % len(colours)]) for i, (x, y) in enumerate(_FLOWERS))


_STREWN = {
    "spring": _flowers(("#FFFFFF", "#FF9EB8", "#FFE26B"), 1.5),
    "summer": _flowers(("#F25C54", "#FFD23F"), 1.4),
    "autumn": _flowers(("#D9542B", "#8F4A22"), 1.5),
    "winter": "",
}
MEADOW = {
    season: _path(_MEADOW, light) + _path(_TRACK, track) + _path(_FRONT, dark, opacity=0.92) + _STREWN[season]
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
        _rect(x - 0.9, y - 0.9, 7.8, 8.3, "#FFFFFF") + _rect(x, y, 6, 6.5, "#5F7F97")
        + _line(f"M{x + 3} {y} L{x + 3} {y + 6.5}", "#FFFFFF", 0.9)
        for x, y in _WINDOWS
    )  # fmt: skip
    return (
        _rect(37, 55, 5.5, 12, shade) + _rect(36, 54, 7.5, 2.4, roof)
        + _rect(13, 75, 38, 22, wall) + _rect(13, 75, 38, 3.2, shade)
        + _path("M9 77 L17 62 L47 62 L55 77 Z", roof)
        + _rect(28.5, 84, 7.5, 13, door) + _dot(34.4, 91, 0.8, "#3A2E2A")
        + panes
    )  # fmt: skip


HOUSES = {name: _house(*colours) for name, colours in _HOUSES.items()}
ROOF_SNOW = _path(
    "M9.5 76 L17 61 L47 61 L54.5 76 C52 73 50 77 47.5 74 C44.5 71 43 76 39.5 73.4 C36 71 34 75.6 30 73.2 "
    "C27 71 25 75.8 21.5 73.6 C18 71.4 16 76.6 13.6 74.2 C12 73 10.6 74.6 9.5 76 Z",
    "#FFFFFF",
) + _rect(35.6, 52.6, 8.3, 2.6, "#FFFFFF", rx=1.3)
LIT = "".join(
    _rect(x, y, 6, 6.5, "#FFD66B") + _line(f"M{x + 3} {y} L{x + 3} {y + 6.5}", "#8A6A4A", 0.9) for x, y in _WINDOWS
)
SMOKE = "".join(
    _dot(x, y, radius, "#F4F4F6", opacity=0.9)
    for x, y, radius in ((40, 49.5, 2.6), (37.6, 44, 3.4), (41, 38, 4.2), (36.4, 33.4, 3.4))
)

# Trees --------------------------------------------------------------------------------------------------------------
_BARK, _BARK_SHADE = "#7A5238", "#5E3D2A"


def _pine(winter: bool) -> str:
    tiers = ((54, 72, 11), (64, 85, 14.5), (76, 99, 18))
    shapes = _rect(103.6, 97, 4.8, 11, _BARK)
    for top, bottom, half in reversed(tiers):
        left, right = 106 - half, 106 + half
        shapes += _path(f"M106 {top - 8} L{right} {bottom} Q106 {bottom + 3} {left} {bottom} Z", "#2F7259")
        shapes += _path(f"M106 {top - 8} L{right} {bottom} Q106 {bottom + 3} 106 {bottom + 1.5} Z", "#245A49")
        if winter:
            x, y = half * 0.52, top - 8 + (bottom - top + 8) * 0.52
            shapes += _path(
                f"M106 {top - 8.6} L{106 + x} {y} Q{106 + x * 0.55} {y - 3} {106 + x * 0.3} {y + 2} "
                f"Q106 {y - 3} {106 - x * 0.35} {y + 2.4} Q{106 - x * 0.6} {y - 2.4} {106 - x} {y} Z",
                "#FFFFFF",
            )
    return shapes


_CROWN = ((106, 60, 13), (96.5, 69, 10.5), (115.5, 69, 10.5), (106, 75, 12.5))


def _oak(season: str) -> str:
    trunk = _path("M103 108 C104.4 98 104.4 88 103.6 80 L108.6 80 C107.8 90 108 99 109.6 108 Z", _BARK)
    if season == "winter":
        branches = _line("M106 90 L106 56 M106 82 L95 68 L91 67 M95 68 L95 60 M106 76 L117 63 L121 63 M117 63 L116 54", _BARK, 2.2)
        twigs = _line("M106 66 L100 57 M106 63 L112 53 M100.5 75 L92 76 M111.5 70 L121 72", _BARK, 1.6)
        snow = _line("M96 67.2 L102 74 M116.4 62.4 L111 68.4 M92 75.2 L98.6 74.6 M114.6 69.2 L120.6 71", "#FFFFFF", 1.4)
        return trunk + branches + twigs + snow
    dark, light = {"spring": ("#F08FB0", "#FBB8CC"), "summer": ("#3E8E4B", "#5CAB57"), "autumn": ("#D2602A", "#EE8A3A")}[season]
    crown = "".join(_dot(x, y, radius, dark) for x, y, radius in _CROWN)
    lights = "".join(_dot(x - 2.2, y - 2.6, radius * 0.68, light) for x, y, radius in _CROWN[:3])
    return trunk + _line("M106 88 L113 80 M105.6 84 L99.4 78", _BARK, 2) + crown + lights


def _birch(season: str) -> str:
    trunk = _path("M104 108 C105 90 105 72 105.6 50 L107.6 50 C107.4 72 107.8 90 109 108 Z", "#F5F0E6")
    marks = "".join(_rect(x, y, 2.6, 1.1, "#4A4440") for x, y in ((104.4, 103), (106.4, 97), (104.8, 91), (106, 85), (105, 79)))
    arms = _line("M106.4 84 L114 72 M106.4 78 L98.6 66 M106.4 68 L112.6 58", "#F5F0E6", 1.5)
    if season == "winter":
        twigs = _line("M106.6 52 L106.6 45 M114 72 L118.6 68 M114 72 L115.6 63 M98.6 66 L93.6 64 M98.6 66 L97.6 57 M112.6 58 L116 53 "
                      "M106.4 60 L101.4 51", "#8E8078", 1.3)
        return trunk + marks + arms + twigs
    dark, light = {"spring": ("#A8CF5A", "#C8E384"), "summer": ("#7DB04A", "#9CC765"), "autumn": ("#EDB52E", "#FAD45C")}[season]
    leaves = ((106.5, 52, 7.5, 9), (98.5, 63, 7, 7.5), (114.5, 64, 7, 8), (106, 69, 7.5, 6))
    crown = "".join(_ellipse(x, y, rx, ry, dark) for x, y, rx, ry in leaves)
    lights = "".join(_ellipse(x - 1.4, y - 2, rx * 0.62, ry * 0.62, light) for x, y, rx, ry in leaves[:3])
    return crown + lights + trunk.replace("50", "62") + marks + arms


TREES = {
    "pine": (_pine(False), _pine(True)),
    "oak": tuple(_oak(season) for season in SEASONS),
    "birch": tuple(_birch(season) for season in SEASONS),
}

# Before everything --------------------------------------------------------------------------------------------------
_GOLDEN = (math.sqrt(5) - 1) / 2
FLAKES = "".join(
    _dot(round(9 + 110 * (i * _GOLDEN % 1), 1), round(9 + 110 * (i + 0.5) / 34, 1), (1.9, 1.4, 1.65)[i % 3], "#FFFFFF")
    for i in range(34)
)
FRAME = (
    '<path fill-rule="evenodd" fill="#FBF7EE" d="M0 0 H128 V128 H0 Z M8 5 H120 A3 3 0 0 1 123 8 V120 A3 3 0 0 1 120 123 '
    'H8 A3 3 0 0 1 5 120 V8 A3 3 0 0 1 8 5 Z"/>'
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
