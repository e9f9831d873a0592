"""Draw the pictures of the documentation and of the README into docs/images, but for those of benchmarks.

    python -m docs.draw                all of them; `examples` and `studio` need Chromium
    python -m docs.draw strips plane   only these

Run it at the top of the checkout, after `pip install -e ".[test]"`, after a change of the packaged model or of
any drawing, and look at the pictures.
"""

from __future__ import annotations

import argparse
import io
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from urllib.parse import urlencode

import numpy as np
import numpy.typing as npt
from PIL import Image, ImageDraw, ImageFont
from playwright.sync_api import Page
from railroad import Choice, Diagram, NonTerminal, Sequence, Terminal

import energyql
from energyql.errors import ArgumentError
from energyql.files import replacing, write_text
from energyql.language import bind
from energyql.logic.circuit import compile_query
from energyql.models import read_vocabulary
from energyql.render.graph import Box, draw_graph

ROOT = Path(__file__).parents[1]
sys.path.insert(0, str(ROOT / "tests"))  # not `tests.browser`: some packages install a `tests` of their own
from browser import MISSING, find_chromium, started  # noqa: E402

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

ROOMS = {
    "cli": "commands",
    "studio": "web page and HTTP API",
    "labelling": "pictures and a page to label them",
    "evaluation": "methods compared, experiments",
    "auditing": "true shares, by people",
    "training": "heads, judges, directions",
    "editing": "edits and inversions",
    "gallery": "queries on one page",
    "dataset": "labelled shards",
    "pipeline": "query and model to pictures",
    "energy": "rules on predictions",
    "generators": "latents to pictures",
    "sampling": "latents of low energy",
    "attributes": "heads, judges, predictions",
    "logic": "diagrams and circuits",
    "language": "text to tree",
    "models": "folders and hubs",
    "numerics": "kernels and random numbers",
}
CORE = ("pipeline", "energy", "generators", "sampling", "attributes", "logic", "language", "models", "numerics")
ARROWS = {
    "cli": ("labelling", "studio", "evaluation", "dataset"),
    "labelling": ("training", "auditing"),
    "auditing": ("gallery", "dataset"),
    "studio": ("editing", "gallery"),
    "evaluation": ("editing",),
    **dict.fromkeys(("training", "editing", "gallery", "dataset"), ("pipeline",)),
    "pipeline": ("energy", "generators", "sampling", "models"),
    "energy": ("attributes", "logic"),
    "logic": ("language",),
    **dict.fromkeys(("attributes", "sampling", "generators"), ("numerics",)),
}

EXAMPLES = {
    "faces.webp": ("quickstart", "quickstart.png"),
    "rare.webp": ("gallery", "gallery/rare-elder.png"),
    "editing.webp": ("editing", "editing.png"),
    "edits.webp": ("editing", "editing.webp"),
    "operators.webp": ("operators", "operators-red.png"),
    "counting.webp": ("counting", "counting-at-least-3.png"),
    "continuous.webp": ("continuous", "continuous.png"),
    "weights.webp": ("weights", "weights-5.png"),
    "semantics.webp": ("semantics", "semantics-exact.png"),
    "postcards.webp": ("postcards", "postcards.png"),
    "gallery.png": ("web_page", "web_page.html"),
    "truth-table.png": ("truth_table", "truth_table.html"),
    "traversal.png": ("traversal", "traversal.html"),
}
"""Picture -> the script of examples/ that draws it, and the file that the script writes; of a page, the top."""

OWN_MODEL = "postcards"
"""The script that names its own model."""

ASKED = {"q": "smile AND NOT (glasses OR beard)", "n": 8, "seed": 1}
STUDIO = {
    "studio.png": ASKED,
    "studio-edit.png": ASKED | {"edit": 2, "step": ["glasses", "hair = red"]},
}
"""Picture -> the link of the studio that it shows."""
MEASURED = {
    "digits.png": "benchmarks.digits",
    "robustness-accuracy.png": "benchmarks.robustness",
    "robustness-frequency-error.png": "benchmarks.robustness",
    "robustness-cost.png": "benchmarks.robustness",
    "noise.webp": "recipes.flow, and the code of docs/noise.md",
}
"""Picture -> what makes it, and takes too long to be run here: a benchmark, which writes it into the folder of its
results, or a recipe and the code of a page."""
PAGE = (1280, 860)
"""Width and height of the shown part of a page, in pixels."""


def strips(out: Path, model: str) -> None:
    """Draw eight samples of each query in a row, with a frame where it does not hold; rows share start latents."""
    for name, query in RULES.items():
        save(strip(query, model, "exact"), out / f"rule-{name}.webp")
    for semantics in SEMANTICS:
        save(strip(COMPARED, model, semantics), out / f"compared-{semantics}.webp")


def strip(query: str, model: str, semantics: str, *, side: int = 84, gap: int = 4) -> Image.Image:
    """Return one row of pictures."""
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


def architecture(out: Path, model: str) -> None:
    """The rooms of the package, from the command line down to the errors, with the imports that matter most."""
    names = list(ROOMS)
    boxes = [Box(name, note, "and" if name in CORE else "other") for name, note in ROOMS.items()]
    edges = [(names.index(room), names.index(below)) for room, rooms in ARROWS.items() for below in rooms]
    write_text(out / "architecture.svg", draw_graph(boxes, edges, title="The rooms of energyql", standalone=True))


def rule(out: Path, model: str) -> None:
    """The rule of the grammar for a yes/no condition: a name, or a text in quotes that is no name."""
    text = Choice(0, NonTerminal("name"), NonTerminal("text that is no name"))
    condition = Choice(0, NonTerminal("name"), Sequence(Terminal('"'), text, Terminal('"')))
    with io.StringIO() as page:
        Diagram(condition, type="complex").writeStandalone(page.write)
        write_text(out / "rule.svg", page.getvalue())


def circuits(out: Path, model: str) -> None:
    """Draw the circuits of compiled queries."""
    vocabulary = read_vocabulary(model)
    for name, query in CIRCUITS.items():
        write_text(out / f"{name}.svg", compile_query(bind(energyql.parse(query), vocabulary), vocabulary).svg())


def plane(out: Path, model: str) -> None:
    """Draw exp(-E) of some queries of two attributes, over the square of their probabilities, under each semantics."""
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
    """Return colours: white at 0 to blue at 1, a darker line at each tenth; orange above 1, which is no probability."""
    blue, orange, white = (np.array(c, dtype=float) for c in ((37, 78, 190), (234, 122, 12), (255, 255, 255)))
    share = np.clip(values, 0, 1)[..., None]
    picture = white + share * (blue - white)
    over = np.clip(values - 1, 0, 1)[..., None]
    picture = np.where(values[..., None] > 1 + 1e-9, white + (0.45 + 0.55 * over) * (orange - white), picture)
    band = np.floor(values * 10 + 1e-9)
    edge = (np.diff(band, axis=0, prepend=band[:1]) != 0) | (np.diff(band, axis=1, prepend=band[:, :1]) != 0)
    picture[edge] *= 0.86
    return picture.round().astype(np.uint8)


def directions(out: Path, model: str) -> None:
    """Draw the page of directions that SeFa finds, and that of three that are learned for edits."""
    generator = energyql.load_model(model).generator
    found = {
        "directions.webp": energyql.find_directions(model, "sefa"),
        "steered.webp": energyql.find_directions(model, "steerability", goals=["zoom", "shift_x", "brightness"]),
    }
    for name, each in found.items():
        save(energyql.draw_directions(each, generator), out / name)


def examples(out: Path, model: str) -> None:
    """Run the examples and keep what they draw.

    Raises:
        ArgumentError: there is no browser.
    """
    with tempfile.TemporaryDirectory() as temporary, browsing() as page:
        folder = Path(temporary)
        for script in dict.fromkeys(script for script, _ in EXAMPLES.values()):
            command = [sys.executable, ROOT / "examples" / f"{script}.py", "--out", folder]
            subprocess.run(command if script == OWN_MODEL else [*command, "--model", model], check=True)
        for name, (_, file) in EXAMPLES.items():
            if file.endswith(".html"):
                page.goto((folder / file).as_uri())
                shoot(page, out / name)
            elif Path(name).suffix == Path(file).suffix:
                shutil.copy(folder / file, out / name)  # with its provenance
            else:
                with Image.open(folder / file) as picture:
                    save(picture.convert("RGB"), out / name)


def studio(out: Path, model: str) -> None:
    """Draw the studio with the pictures of a query, and with an edit of one picture.

    Raises:
        ArgumentError: there is no browser.
    """
    command = [Path(sys.executable).with_name("energyql"), "studio", "--port", "0", "--model", model]
    with browsing() as page, subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as server:
        try:
            assert server.stdout is not None
            line = next(line for line in server.stdout if line.startswith("The studio is at"))
            address = line.split()[4].removesuffix(".")
            for name, link in STUDIO.items():
                page.goto("about:blank")
                page.goto(f"{address}#{urlencode(link, doseq=True)}")
                page.locator("#downloads").wait_for()
                page.locator("#view progress").wait_for(state="hidden")
                shoot(page, out / name)
        finally:
            server.terminate()


@contextmanager
def browsing() -> Iterator[Page]:
    """Open a page of a browser.

    Raises:
        ArgumentError: there is no browser.
    """
    path = find_chromium()
    if path is None:
        raise ArgumentError(MISSING)
    with started(path) as browser:
        page = browser.new_page(viewport={"width": PAGE[0], "height": PAGE[1]}, reduced_motion="reduce")
        page.set_default_timeout(120_000)
        yield page


def shoot(page: Page, path: Path) -> None:
    """Write a screenshot of a page."""
    with Image.open(io.BytesIO(page.screenshot())) as picture:
        save(picture.convert("RGB"), path)


def save(picture: Image.Image, path: Path) -> None:
    """Write a picture, whole or not at all."""
    options = {"optimize": True} if path.suffix == ".png" else {"quality": 88, "method": 6}
    with replacing(path) as temporary:
        picture.save(temporary, **options)


DRAWN: dict[str, Callable[[Path, str], None]] = {
    "architecture": architecture, "rule": rule, "strips": strips, "circuits": circuits, "plane": plane,
    "directions": directions, "examples": examples, "studio": studio,
}  # fmt: skip


def main() -> None:
    """Draw the pictures that the command line names."""
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
