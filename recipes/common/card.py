"""Write the model card."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from energyql.attributes.quality import HeadReport
from energyql.files import write_picture, write_text
from energyql.render.pictures import to_pictures
from recipes.common.domain import Domain
from recipes.common.measures import Measures

CARD = """# {name}

{summary}
Made from nothing by `python -m recipes.{name}.make`.

![Renderings above, generated pictures of the same latents below](side-by-side.png)

Above renderings of eight latents, below the generated pictures of the same latents.

## Data and licence

{licence}

## How it was made

Each picture is a set of choices made by smooth Gaussian scores of z. The synthesis network learned pictures pixel by
pixel from codes that name every drawing; the mapping network that gives the same codes from z was written down rather
than trained. The judge is a network that learned from rendered pictures only, and the heads learned the choices that
latents make: neither saw an answer of the other, or a generated picture.

## Measures

Generated pictures beside the renderings of the same {count} latents, which no training used:

| pictures | medians, and 10th percentiles in brackets |
|---|---|
| all | {closeness} |
| with `{watched}` | {closeness_watched} |

Gradient energy is that of the generated picture over that of the rendering. The judge sees every choice that was meant
in {seen:.1%} of the pictures.

The judge on 4,096 rendered pictures that it was not trained on, and the heads on 20,000 latents that they did not learn
from. Balanced accuracy; for continuous attributes, 1 - mean absolute error over the range.

| attribute | kind | judge | heads |
|---|---|---|---|
{rows}

## Known faults

{faults}"""


def write_card(
    domain: Domain, folder: Path, judge: Mapping[str, float], heads: Mapping[str, HeadReport], measures: Measures
) -> None:
    """Write `card.md` and its picture, with the measures of this run."""
    rows = []
    for name, spec in domain.vocabulary.items():
        report = heads[name]
        score = 1 - report.details["error"] / (spec.high - spec.low) if spec.kind == "continuous" else report.score
        rows.append(f"| {name} | {spec.kind} | {judge[name]:.1%} | {'-' if score is None else f'{score:.1%}'} |")
    text = CARD.format(
        name=domain.name,
        summary=domain.card.summary,
        licence=domain.card.licence,
        faults=domain.card.faults,
        count=len(measures.closeness.psnr),
        closeness=measures.closeness,
        watched=domain.watched,
        closeness_watched=measures.watched,
        seen=measures.seen,
        rows="\n".join(rows),
    )
    write_picture(folder / "side-by-side.png", to_pictures(measures.side_by_side()[None])[0])
    write_text(folder / "card.md", text)
