"""Make a dual encoder that compares drawings of avatars and postcards with texts: `python -m recipes.words.make`.

An interrupted run continues. The folder `reader` is one of transformers, for `--reader`.
"""

from __future__ import annotations

import argparse
from pathlib import Path

from energyql.files import temporary, write_json, write_text
from energyql.progress import reporting
from recipes.words.training import SIDE, DualEncoder, accuracy, train_encoder

READER = "reader"
"""Subfolder of the encoder."""
IMAGES = "preprocessor_config.json"


def save(model: DualEncoder, folder: Path) -> None:
    """Write the encoder as a folder of safetensors, in place of an earlier one."""
    with temporary(folder.parent) as part:
        model.network.save_pretrained(part / "new")
        model.tokenizer.save_pretrained(part / "new")
        half = [0.5] * 3
        write_json(
            part / "new" / IMAGES, {"size": {"height": SIDE, "width": SIDE}, "image_mean": half, "image_std": half}
        )
        if folder.exists():
            folder.rename(part / "old")
        (part / "new").rename(folder)


def make(out: Path, *, scale: float = 1.0, count: int = 300, captions: int = 400, progress: bool = True) -> None:
    """Train the encoder, and write it with a table of its accuracy.

    Args:
        out: the folder; `reader` in it is the encoder, and `accuracy.md` the table.
        scale: multiplies the length of the training; a value far below 1 only tests that the recipe runs.
        count: number of drawings on which the accuracy is measured, see `accuracy`.
        captions: number of captions on which it is measured, of those that were learned and of those held out.
        progress: whether to show a progress bar.
    """
    out.mkdir(parents=True, exist_ok=True)
    with reporting(progress) as report:
        model = train_encoder(out, scale, lambda fraction: report("training", fraction))
    save(model, out / READER)
    rows = accuracy(model, count=count, captions=captions)
    lines = ["| captions with | learned % | held out % |", "|---|---|---|"]
    lines += [
        f"| {kind} | " + " | ".join(f"{100 * share:.1f}" for share in row.values()) + " |" for kind, row in rows.items()
    ]
    write_text(out / "accuracy.md", "\n".join(lines) + "\n")


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--out", type=Path, default=Path("runs/words"), help="the folder")
    parser.add_argument("--scale", type=float, default=1.0, help="multiplies the length of the training")
    arguments = parser.parse_args()
    make(arguments.out, scale=arguments.scale)
