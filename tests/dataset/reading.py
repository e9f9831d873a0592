"""Reads a data set as its users do, without energyql: `python reading.py LIBRARY FOLDER`; prints what it found."""

import json
import sys
from collections import Counter
from pathlib import Path


def with_webdataset(folder):
    import webdataset

    last = max(path.stem for path in (folder / "shards").iterdir())
    pairs = webdataset.WebDataset(f"{folder}/shards/{{000000..{last}}}.tar", shardshuffle=False)
    for picture, known, number in pairs.decode("pil").to_tuple("png", "json", "cls"):
        yield picture.size, known, number


def with_loader(folder):
    """By worker processes of a torch DataLoader, which divide the shards among themselves."""
    import torch
    import webdataset

    last = max(path.stem for path in (folder / "shards").iterdir())
    pairs = webdataset.WebDataset(f"{folder}/shards/{{000000..{last}}}.tar", shardshuffle=False)
    pairs = pairs.decode("torchrgb").to_tuple("png", "json", "cls")
    loader = torch.utils.data.DataLoader(pairs, batch_size=None, num_workers=2)
    for picture, known, number in loader:
        yield tuple(picture.shape[1:]), known, number


def with_datasets(folder):
    import datasets

    rows = datasets.load_dataset(str(folder), split="train", cache_dir=str(folder.parent / "cache"))
    for row in rows:
        yield row["png"].size, row["json"], row["cls"]


if __name__ == "__main__":
    found = list(globals()[f"with_{sys.argv[1]}"](Path(sys.argv[2])))
    assert "energyql" not in sys.modules
    print(
        json.dumps(
            {
                "sizes": sorted({tuple(size) for size, _, _ in found}),
                "classes": dict(Counter(known["class"] for _, known, _ in found)),
                "numbers": dict(Counter(number for _, _, number in found)),
                "samples": sorted([known["class"], known["index"]] for _, known, _ in found),
                "satisfied": sum(known["satisfied"] for _, known, _ in found),
            }
        )
    )
