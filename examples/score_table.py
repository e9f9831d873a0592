"""Rank rows of predictions by a query, without any model: the predictions may come from any classifier of yours."""

import csv

from common import options

import energyql

args = options(__doc__)

files = ["anna.jpg", "ben.jpg", "carla.jpg", "dan.jpg"]
predictions = {
    "smile": [0.97, 0.90, 0.15, 0.60],  # yes/no: the probability of yes
    "hair": {"black": [0.9, 0.1, 0.2, 0.3], "gray": [0.1, 0.9, 0.8, 0.7]},  # categorical: of each class
    "age": ([0.3, 0.7, 0.8, 0.6], [0.05, 0.05, 0.1, 0.1]),  # continuous: mean and standard deviation
}

energies = energyql.score("smile AND (hair = gray OR age > 0.65)", predictions)  # nats, lower is better

args.out.mkdir(parents=True, exist_ok=True)
with (args.out / "score_table.csv").open("w", newline="", encoding="utf-8") as file:
    writer = csv.writer(file)
    writer.writerow(["file", "energy"])
    for energy, name in sorted(zip(energies, files, strict=True)):
        writer.writerow([name, f"{energy:.3f}"])
        print(f"{energy:8.3f}  {name}")
