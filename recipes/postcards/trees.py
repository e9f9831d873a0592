"""The trees of a postcard, by season."""

from __future__ import annotations

from recipes.postcards.svg import dot, ellipse, line, path, rect

SEASONS = ("spring", "summer", "autumn", "winter")
_BARK, _BIRCH = "#7A5238", "#F5F0E6"


def _pine(winter: bool) -> str:
    tiers = ((54, 72, 11), (64, 85, 14.5), (76, 99, 18))
    shapes = rect(103.6, 97, 4.8, 11, _BARK)
    for top, bottom, half in reversed(tiers):
        left, right = 106 - half, 106 + half
        shapes += path(f"M106 {top - 8} L{right} {bottom} Q106 {bottom + 3} {left} {bottom} Z", "#2F7259")
        shapes += path(f"M106 {top - 8} L{right} {bottom} Q106 {bottom + 3} 106 {bottom + 1.5} Z", "#245A49")
        if winter:
            x, y = half * 0.52, top - 8 + (bottom - top + 8) * 0.52
            shapes += path(
                f"M106 {top - 8.6} L{106 + x} {y} Q{106 + x * 0.55} {y - 3} {106 + x * 0.3} {y + 2} "
                f"Q106 {y - 3} {106 - x * 0.35} {y + 2.4} Q{106 - x * 0.6} {y - 2.4} {106 - x} {y} Z",
                "#FFFFFF",
            )
    return shapes


_CROWN = ((106, 60, 13), (96.5, 69, 10.5), (115.5, 69, 10.5), (106, 75, 12.5))


def _oak(season: str) -> str:
    trunk = path("M103 108 C104.4 98 104.4 88 103.6 80 L108.6 80 C107.8 90 108 99 109.6 108 Z", _BARK)
    if season == "winter":
        branches = line(
            "M106 90 L106 56 M106 82 L95 68 L91 67 M95 68 L95 60 M106 76 L117 63 L121 63 M117 63 L116 54", _BARK, 2.2
        )
        twigs = line("M106 66 L100 57 M106 63 L112 53 M100.5 75 L92 76 M111.5 70 L121 72", _BARK, 1.6)
        snow = line("M96 67.2 L102 74 M116.4 62.4 L111 68.4 M92 75.2 L98.6 74.6 M114.6 69.2 L120.6 71", "#FFFFFF", 1.4)
        return trunk + branches + twigs + snow
    dark, light = {
        "spring": ("#F08FB0", "#FBB8CC"),
        "summer": ("#3E8E4B", "#5CAB57"),
        "autumn": ("#D2602A", "#EE8A3A"),
    }[season]
    crown = "".join(dot(x, y, radius, dark) for x, y, radius in _CROWN)
    lights = "".join(dot(x - 2.2, y - 2.6, radius * 0.68, light) for x, y, radius in _CROWN[:3])
    return trunk + line("M106 88 L113 80 M105.6 84 L99.4 78", _BARK, 2) + crown + lights


def _birch(season: str) -> str:
    top = 50 if season == "winter" else 62  # below the leaves
    trunk = path(f"M104 108 C105 90 105 72 105.6 {top} L107.6 {top} C107.4 72 107.8 90 109 108 Z", _BIRCH)
    marks = "".join(
        rect(x, y, 2.6, 1.1, "#4A4440") for x, y in ((104.4, 103), (106.4, 97), (104.8, 91), (106, 85), (105, 79))
    )
    arms = line("M106.4 84 L114 72 M106.4 78 L98.6 66 M106.4 68 L112.6 58", _BIRCH, 1.5)
    if season == "winter":
        twigs = line(
            "M106.6 52 L106.6 45 M114 72 L118.6 68 M114 72 L115.6 63 M98.6 66 L93.6 64 M98.6 66 L97.6 57 "
            "M112.6 58 L116 53 M106.4 60 L101.4 51",
            "#8E8078",
            1.3,
        )
        return trunk + marks + arms + twigs
    dark, light = {
        "spring": ("#A8CF5A", "#C8E384"),
        "summer": ("#7DB04A", "#9CC765"),
        "autumn": ("#EDB52E", "#FAD45C"),
    }[season]
    leaves = ((106.5, 52, 7.5, 9), (98.5, 63, 7, 7.5), (114.5, 64, 7, 8), (106, 69, 7.5, 6))
    crown = "".join(ellipse(x, y, rx, ry, dark) for x, y, rx, ry in leaves)
    lights = "".join(ellipse(x - 1.4, y - 2, rx * 0.62, ry * 0.62, light) for x, y, rx, ry in leaves[:3])
    return crown + lights + trunk + marks + arms


TREES = {
    "pine": (_pine(False), _pine(True)),
    "oak": tuple(_oak(season) for season in SEASONS),
    "birch": tuple(_birch(season) for season in SEASONS),
}
