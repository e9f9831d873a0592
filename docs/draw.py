"""Draws the pictures of the documentation into docs/images.

    python docs/draw.py                all of them; `gallery` needs Chromium
    python docs/draw.py strips plane   only these

Run it again when the packaged model or the looks have changed, and look at what it made.
"""

from __future__ import annotations

import argparse
import shutil
import subprocess
import tempfile
from collections.abc import Callable
from pathlib import Path

import numpy as np
import numpy.typing as npt
from PIL import Image, ImageDraw, ImageFont

import energyql
from energyql.errors import ArgumentError
from energyql.files import replacing, write_text
from energyql.language import bind
from energyql.logic.circuit import compile_query
from energyql.models import read_vocabulary

PAPER, INK, FAINT, YES, NO = "#ffffff", "#1d2433", "#6b7280", "#15803d", "#b91c1c"
SEMANTICS = ("exact", "product", "lace")

RULES = {
    "smile": "smile",
    "glasses": "glasses",
    "not": "NOT smile",
    "and": "smile AND glasses",
    "or": "smile OR glasses",
    "xor": "smile XOR glasses",
    "weight": "smile AND 0.2 * glasses",
}
COMPARED = "(smile AND NOT glasses) OR (glasses AND beard)"
CIRCUITS = {"circuit": "smile AND NOT (glasses OR beard)", "circuit-overlap": "glasses OR beard"}
PLANE = ("a AND b", "a OR b", "NOT (a AND b)", "a AND a", "(a AND b) OR (a AND NOT b)")

GALLERY = {
    "Elder": "long_hair AND beard AND hair = gray AND hat AND sunglasses",
    "Two moods": "((smile AND hat) OR (frown AND glasses)) AND NOT (beard OR moustache)",
    "No glasses, no beard": "smile AND NOT (glasses OR beard)",
    "One of two": "beard XOR long_hair",
    "Any two": "AT LEAST 2 OF (glasses, beard, hat) AND smile",
    "Numbers": "0.2 < skin_tone < 0.5 AND hair IN {gray, black} AND background > 0.6",
}
PAGE = (1280, 860)
"""What of the gallery is shown, in pixels."""
CHROMIUM = ("chromium", "chromium-browser", "google-chrome")
FLAGS = ("--headless", "--no-sandbox", "--disable-gpu", "--hide-scrollbars", "--no-first-run", "--disable-sync",
         "--disable-background-networking", "--disable-component-update", "--disable-quic")  # fmt: skip


def strips(out: Path, model: str) -> None:
    """Eight samples of a query in a row, all rows from the same start latents; a frame where the judge disagrees."""
    for name, query in RULES.items():
        save(strip(query, model, "exact"), out / f"rule-{name}.webp")
    for semantics in SEMANTICS:
        save(strip(COMPARED, model, semantics), out / f"compared-{semantics}.webp")


def strip(query: str, model: str, semantics: str, *, side: int = 84, gap: int = 4) -> Image.Image:
    """One row of pictures."""
    result = energyql.generate(query, n=8, model=model, semantics=semantics, sampler="ode", progress=False)
    row = Image.new("RGB", (len(result) * (side + gap) - gap, side), PAPER)
    for i, (picture, holds) in enumerate(zip(result.images, result.satisfied, strict=True)):
        tile = picture.resize((side, side), Image.Resampling.LANCZOS)
        if not holds:
            draw = ImageDraw.Draw(tile)
            draw.rectangle((0, 0, side - 1, side - 1), outline=NO, width=3)
            draw.rectangle((side - 20, side - 20, side, side), fill=NO)
            draw.line((side - 15, side - 15, side - 6, side - 6), fill=PAPER, width=2)
            draw.line((side - 15, side - 6, side - 6, side - 15), fill=PAPER, width=2)
        row.paste(tile, (i * (side + gap), 0))
    return row


def circuits(out: Path, model: str) -> None:
    """Compiled queries."""
    vocabulary = read_vocabulary(model)
    for name, query in CIRCUITS.items():
        write_text(out / f"{name}.svg", compile_query(bind(energyql.parse(query), vocabulary), vocabulary).svg())


def plane(out: Path, model: str) -> None:
    """exp(-E) of some queries about two attributes, over the square of their probabilities, by each semantics."""
    del model
    side, gap, left, top = 128, 14, 236, 34
    sheet = Image.new("RGB", (left + len(SEMANTICS) * (side + gap), top + len(PLANE) * (side + gap) + 12), PAPER)
    draw, font = ImageDraw.Draw(sheet), ImageFont.load_default(15)
    steps = (np.arange(side) + 0.5) / side
    b, a = (axis.ravel() for axis in np.meshgrid(steps[::-1], steps, indexing="ij"))
    for column, semantics in enumerate(SEMANTICS):
        draw.text((left + column * (side + gap), 8), semantics, INK, font)
        for row, query in enumerate(PLANE):
            values = np.exp(-energyql.score(query, {"a": a, "b": b}, semantics)).reshape(side, side)
            corner = (left + column * (side + gap), top + row * (side + gap))
            sheet.paste(Image.fromarray(colours(values)), corner)
    for row, query in enumerate(PLANE):
        draw.text((8, top + row * (side + gap) + side // 2 - 9), query, INK, font)
    save(sheet, out / "plane.png")


def colours(values: npt.NDArray[np.float64]) -> npt.NDArray[np.uint8]:
    """White at 0 to blue at 1, a darker line at each tenth; orange above 1, which no probability is."""
    blue, orange, white = (np.array(c, dtype=float) for c in ((37, 78, 190), (234, 122, 12), (255, 255, 255)))
    share = np.clip(values, 0, 1)[..., None]
    picture = white + share * (blue - white)
    over = np.clip(values - 1, 0, 1)[..., None]
    picture = np.where(values[..., None] > 1 + 1e-9, white + (0.45 + 0.55 * over) * (orange - white), picture)
    band = np.floor(values * 10 + 1e-9)
    edge = (np.diff(band, axis=0, prepend=band[:1]) != 0) | (np.diff(band, axis=1, prepend=band[:, :1]) != 0)
    picture[edge] *= 0.86
    return picture.round().astype(np.uint8)


def gallery(out: Path, model: str) -> None:
    """The top of a gallery page as a browser shows it.

    Raises:
        ArgumentError: there is no browser.
    """
    browser = next(filter(None, map(shutil.which, CHROMIUM)), None)
    if browser is None:
        raise ArgumentError("a picture of a page needs Chromium", hint="apt-get install chromium")
    made = energyql.Gallery(GALLERY, n=8, title="Avatars by query", model=model)
    with tempfile.TemporaryDirectory() as folder:
        page = made.save(Path(folder) / "page.html")
        shot = Path(folder) / "shot.png"
        size = f"--window-size={PAGE[0]},{PAGE[1]}"
        subprocess.run(
            [browser, *FLAGS, f"--user-data-dir={folder}/profile", size, f"--screenshot={shot}", page.as_uri()],
            check=True, capture_output=True, timeout=120,
        )  # fmt: skip
        with Image.open(shot) as picture:
            save(picture.convert("RGB"), out / "gallery.png")


def save(picture: Image.Image, path: Path) -> None:
    """Write a picture, whole or not at all."""
    options = {"optimize": True} if path.suffix == ".png" else {"quality": 88, "method": 6}
    with replacing(path) as temporary:
        picture.save(temporary, **options)


DRAWN: dict[str, Callable[[Path, str], None]] = {
    "strips": strips, "circuits": circuits, "plane": plane, "gallery": gallery,
}  # fmt: skip


def main() -> None:
    """Draw what the command line names."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("names", nargs="*", metavar="NAME", help=f"out of {', '.join(DRAWN)}; all by default")
    parser.add_argument("--out", type=Path, default=Path(__file__).parent / "images", help="folder to write to")
    parser.add_argument("--model", default="avatars", help="a packaged model, or a model folder")
    given = parser.parse_args()
    if unknown := [name for name in given.names if name not in DRAWN]:
        parser.error(f"there is no picture {', '.join(unknown)}; there are {', '.join(DRAWN)}")
    for name in given.names or DRAWN:
        DRAWN[name](given.out, given.model)
        print(name)


if __name__ == "__main__":
    main()
