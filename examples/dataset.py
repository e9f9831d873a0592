"""Two data sets of one size train a classifier of glasses: one where glasses with a beard are rare, one balanced."""

import tarfile
from tempfile import TemporaryDirectory

import numpy as np
import torch
from common import options
from PIL import Image

from energyql import DatasetClass, DatasetPlan, write_dataset

GROUPS = ("glasses AND beard", "glasses AND NOT beard", "beard AND NOT glasses", "NOT (glasses OR beard)")
COUNTS = {"test": (200, 200, 200, 200), "rare": (2, 66, 66, 66), "balanced": (50, 50, 50, 50)}
args, read, lines = options(__doc__), {}, [",".join(("accuracy", *GROUPS))]

for seed, (name, counts) in enumerate(COUNTS.items()):
    pairs = zip(GROUPS, (min(count, 2) if args.smoke else count for count in counts), strict=True)
    classes = [DatasetClass(name=query, query=query, count=count, model=args.model) for query, count in pairs]
    with TemporaryDirectory() as folder:
        write_dataset(DatasetPlan(classes=classes, seed=seed), folder, progress=False)
        with tarfile.open(f"{folder}/shards/000000.tar") as archive:  # a thousand pictures fit into one
            found = {entry.name: archive.extractfile(entry) for entry in archive}
            images = [np.float32(Image.open(found[key]).resize((32, 32))) for key in found if key.endswith("png")]
            groups = [int(found[key].read()) for key in found if key.endswith("cls")]
    read[name] = torch.tensor(np.stack(images)).permute(0, 3, 1, 2) / 127.5 - 1, torch.tensor(groups)

for name in ("rare", "balanced"):
    (images, group), (tested, groups), _ = read[name], read["test"], torch.manual_seed(0)
    layers = [torch.nn.Conv2d(3, 32, 5, 2), torch.nn.ReLU(), torch.nn.Flatten(), torch.nn.Linear(32 * 14 * 14, 1)]
    optimizer = torch.optim.Adam((network := torch.nn.Sequential(*layers)).parameters(), 1e-3)
    for rows in (rows for _ in range(1 if args.smoke else 40) for rows in torch.randperm(len(images)).split(32)):
        optimizer.zero_grad()
        torch.nn.functional.soft_margin_loss(network(images[rows])[:, 0], 2.0 * (group[rows] < 2) - 1).backward()
        optimizer.step()
    right = (network(tested)[:, 0] > 0) == (groups < 2)
    lines.append(name + "".join(f",{right[groups == number].float().mean():.3f}" for number in range(4)))
args.out.mkdir(parents=True, exist_ok=True)
(args.out / "dataset.csv").write_text("\n".join(lines) + "\n")
print(*lines, sep="\n")
