"""Hidden functions: what pictures of three foreign generators show, measured, for `benchmarks.own_models`.

They stand in for a person who labels, and they are the truth that results are held against. No example uses them, and
nothing was tuned to them. Each threshold is a quantile of 2,000 pictures (1,000 of the eyes, 150 of the terrain), so
that the attributes are as common as their comments say.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from examples.terrain.looks import CELL, heights


def faces(images: Tensor) -> dict[str, Any]:
    """Return what faces of `examples.faces.generator:Faces` show, for images in [-1, 1], (batch, 3, 64, 64)."""
    light, colourful = images.mean(1), images.amax(1) - images.amin(1)
    scene = torch.cat([images[:, :, :44, :6], images[:, :, :44, -6:]], 3).mean((2, 3))
    cheeks, chin = light[:, 34:41, 19:45].mean((1, 2)), light[:, 40:58, 24:40].mean((1, 2))
    beside = torch.cat([light[:, 40:58, 8:18], light[:, 40:58, 46:56]], 2).mean((1, 2))
    hue = images[:, 0].mean((1, 2)) - images[:, 2].mean((1, 2))
    return {
        "pale": light[:, 22:46, 20:44].mean((1, 2)) > -0.148,  # 20 %
        "night": scene.mean(1) < -0.487,  # 35 %
        "green": scene[:, 1] - scene[:, [0, 2]].amax(1) > -0.006,  # 10 %
        "shades": light[:, 24:31, 19:45].mean((1, 2)) - cheeks < -0.471,  # 5 %
        "toothy": light[:, 42:53, 25:40].flatten(1).std(1) > 0.258,  # 20 %
        "gaudy": colourful[:, 1:9, 18:46].mean((1, 2)) > 0.384,  # 20 %
        "smooth": _roughness(light) < 0.049,  # 2 %
        "mane": beside - chin < -0.09,  # 20 %
        "hue": ["cool" if x < 0.051 else "warm" if x > 0.34 else "even" for x in hue.tolist()],  # 10, 70, 20 %
    }


def eyes(images: Tensor) -> dict[str, Any]:
    """Return what eyes of `examples.eyes.energyql_eyes:Eyes` show, for images in [-1, 1], (batch, 3, 128, 128).

    The thresholds are those of class 1, blue.
    """
    light, middle = images.mean(1), images[:, :, 44:84, 44:84].mean((2, 3))
    beside = torch.cat([light[:, 52:76, 16:36], light[:, 52:76, 92:112]], 2).mean((1, 2))
    dark = 1 - light[:, 40:88].mean(1)
    centre = (dark * torch.linspace(-1, 1, 128)).sum(1) / dark.sum(1)
    below = images[:, :, 100:].mean((2, 3))
    skin = (below[:, 0] - below[:, 2]).tolist()
    return {
        "icy": middle[:, 2] - middle[:, 0] > 0.264,  # 20 %
        "dim": light.mean((1, 2)) < -0.266,  # 20 %
        "sketch": _roughness(light) > 0.091,  # 20 %
        "bright": (images.amin(1) > 0.5).float().mean((1, 2)) > 0.147,  # 10 %
        "pupil": beside - light[:, 52:76, 52:76].mean((1, 2)) > 0.172,  # 35 %
        "brow": light[:, 96:].mean((1, 2)) - light[:, :32].mean((1, 2)) > 0.529,  # 5 %
        "left": centre < -0.062,  # 10 %
        "gray": (images.amax(1) - images.amin(1)).mean((1, 2)) < 0.109,  # 2 %
        "skin": ["cool" if x < -0.035 else "ruddy" if x > 0.485 else "fair" for x in skin],  # 20, 60, 20 %
    }


def terrain(images: Tensor) -> dict[str, Any]:
    """Return what the terrains of `examples/terrain` show, for images in [-1, 1], (batch, 1, 128, 128)."""
    height = heights(images)
    south, east = torch.gradient(height / CELL, dim=(1, 2))
    slope, middle = (south**2 + east**2).sqrt(), height.shape[1] // 2
    mean, relief = height.mean((1, 2)), height.amax((1, 2)) - height.amin((1, 2))
    eastward = height[:, :, middle:].mean((1, 2)) - height[:, :, :middle].mean((1, 2))
    northward = height[:, :middle].mean((1, 2)) - height[:, middle:].mean((1, 2))
    centre = (height[:, 40:72, 40:72].mean((1, 2)) - mean) / relief
    return {
        "gentle": slope.atan().rad2deg().mean((1, 2)) < 2.68,  # 10 %
        "cliffs": slope.flatten(1).quantile(0.99, dim=1) > 0.498,  # 20 %
        "east": eastward / relief > 0.198,  # 35 %
        "north": northward / relief > 0.201,  # 20 %
        "dome": centre > 0.0546,  # 20 %
        "bowl": centre < -0.0687,  # 10 %
        "high": mean > 1.22,  # 10 %
    }


def _roughness(light: Tensor) -> Tensor:
    """Return the mean of the steps of brightness to the pixels below and to the right, added, (batch,)."""
    down, right = light[:, 1:, :-1] - light[:, :-1, :-1], light[:, :-1, 1:] - light[:, :-1, :-1]
    return (down.abs() + right.abs()).mean((1, 2))
