"""Files of a few megabytes or less that claim far more: `python -m training.memory FOLDER` reads each in a fork.

It prints the megabytes that reading took, the name, and the outcome.
"""

import os
import resource
import sys
import zlib
from pathlib import Path

import numpy as np
import pyarrow
import pyarrow.parquet

from energyql.editing.pictures import open_picture
from energyql.errors import EnergyQLError
from energyql.training.foreign import read_styleflow
from energyql.training.tables import read_columns


def chunk(kind, data):
    return len(data).to_bytes(4, "big") + kind + data + zlib.crc32(kind + data).to_bytes(4, "big")


def grey_png(path, side):
    """A black picture of one grey channel, made row by row, because at once it would take much memory here as well."""
    packer, row = zlib.compressobj(1), bytes(side + 1)
    data = b"".join([*(packer.compress(row) for _ in range(side)), packer.flush()])
    header = side.to_bytes(4, "big") * 2 + bytes([8, 0, 0, 0, 0])
    path.write_bytes(b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", data) + chunk(b"IEND", b""))
    return path


def parquet(path, column):
    pyarrow.parquet.write_table(pyarrow.table({"smile": column}), path, compression="zstd")
    return path


def pickled(folder, body):
    folder.mkdir()
    (folder / "all_latents.pickle").write_bytes(b"\x80\x04" + body + b".")
    (folder / "att_light.pickle").write_bytes(b"\x80\x04N.")
    return folder


def main(folder):
    bodies = [b"\x8f", b")\x94"]
    files = [
        (read_styleflow, pickled(folder / f"{i}", body * (9_900_000 // len(body)))) for i, body in enumerate(bodies)
    ]
    files += [(open_picture, grey_png(folder / f"{side}.png", side)) for side in (8_000, 11_500)]
    texts = pyarrow.array(["x" * 100_000])
    rows = pyarrow.DictionaryArray.from_arrays(pyarrow.array(np.zeros(9_000_000, np.int8)), pyarrow.array([True]))
    cells = pyarrow.DictionaryArray.from_arrays(pyarrow.array(np.zeros(3_000, np.int8)), texts)
    for name, column in {"rows": rows, "cells": cells, "texts": cells.dictionary_decode()}.items():
        files.append((read_columns, parquet(folder / f"{name}.parquet", column)))
    for read, path in files:
        if pid := os.fork():
            os.waitpid(pid, 0)
            continue
        before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
        try:
            read(path)
            outcome = "read"
        except EnergyQLError as error:
            outcome = f"{type(error).__name__}: {error.message}"
        taken = (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) >> 10
        print(taken, path.name, outcome.replace("\n", " "), sep="\t", flush=True)
        os._exit(0)


if __name__ == "__main__":
    main(Path(sys.argv[1]))
