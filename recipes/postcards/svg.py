"""SVG shapes as strings, on a square of 128 x 128."""

from __future__ import annotations


def path(d: str, fill: str, **more: object) -> str:
    """Return a filled path."""
    return f'<path d="{d}" fill="{fill}"{_attributes(more)}/>'


def rect(x: float, y: float, width: float, height: float, fill: str, **more: object) -> str:
    """Return a rectangle: left, top, width, height."""
    return f'<rect x="{x}" y="{y}" width="{width}" height="{height}" fill="{fill}"{_attributes(more)}/>'


def dot(x: float, y: float, radius: float, fill: str, **more: object) -> str:
    """Return a circle: centre and radius."""
    return f'<circle cx="{x}" cy="{y}" r="{radius}" fill="{fill}"{_attributes(more)}/>'


def ellipse(x: float, y: float, rx: float, ry: float, fill: str, **more: object) -> str:
    """Return an ellipse: centre and half axes."""
    return f'<ellipse cx="{x}" cy="{y}" rx="{rx}" ry="{ry}" fill="{fill}"{_attributes(more)}/>'


def line(d: str, stroke: str, width: float, **more: object) -> str:
    """Return a stroke with round ends."""
    return (
        f'<path d="{d}" fill="none" stroke="{stroke}" stroke-width="{width}" stroke-linecap="round" '
        f'stroke-linejoin="round"{_attributes(more)}/>'
    )


def _attributes(more: dict[str, object]) -> str:
    return "".join(f' {name.replace("_", "-")}="{value}"' for name, value in more.items())
