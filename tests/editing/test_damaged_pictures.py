"""Pictures that are none: `open_picture` reads them or raises an `ArgumentError`, whatever Pillow raises."""

import struct

import numpy as np
import pytest
from PIL import Image

from energyql.editing import pictures
from energyql.editing.pictures import open_picture
from energyql.errors import ArgumentError


@pytest.mark.parametrize(
    "error",
    [SyntaxError("bad"), NotImplementedError(), MemoryError(), struct.error("x"), EOFError(), IndexError("i")],
)
def test_every_error_of_pillow(tmp_path, monkeypatch, error):
    def fail(*_, **__):
        raise error

    Image.new("RGB", (4, 4)).save(tmp_path / "a.png")
    monkeypatch.setattr(Image.Image, "load", fail)
    monkeypatch.setattr("PIL.ImageFile.ImageFile.load", fail)
    with pytest.raises(ArgumentError, match=r"cannot read .*a\.png as a picture: \w+"):
        open_picture(tmp_path / "a.png")


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("broken.dds", b"DDS " + struct.pack("<I", 124) + bytes(120)),
        ("broken.png", b"\x89PNG\r\n\x1a\n" + struct.pack(">I", 13) + b"IHDR" + bytes(9)),
        ("broken.tif", b"II*\x00\x08\x00\x00\x00\x01\x00"),
        ("program.eps", b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 8 8\n%%EndComments\nshowpage\n"),
    ],
)
def test_damaged_files(tmp_path, name, content):
    (tmp_path / name).write_bytes(content)
    with pytest.raises(ArgumentError, match=f"cannot read .*{name} as a picture"):
        open_picture(tmp_path / name)


@pytest.mark.parametrize(("suffix", "read"), [(".png", False), (".jpg", True)])
def test_too_large(tmp_path, monkeypatch, suffix, read):
    monkeypatch.setattr(pictures, "MOST_PIXELS", 64 * 64)
    monkeypatch.setattr(pictures, "_SIDE", 16)
    pixels = np.random.default_rng(0).integers(0, 255, (128, 96, 3), np.uint8)
    Image.fromarray(pixels).save(tmp_path / f"a{suffix}")
    if read:
        picture = open_picture(tmp_path / f"a{suffix}")
        assert (picture.mode, picture.size) == ("RGB", (24, 32))
    else:
        with pytest.raises(ArgumentError, match="is too large: 96 x 128 pixels\nmake it smaller"):
            open_picture(tmp_path / f"a{suffix}")


@pytest.mark.parametrize("mode", ["RGB", "L", "RGBA", "P", "1", "LA"])
def test_a_picture_outlives_its_file(tmp_path, mode):
    pixels = np.random.default_rng(0).integers(0, 255, (6, 4, 3), np.uint8)
    image = Image.fromarray(pixels).convert(mode)
    exif = image.getexif()
    exif[0x0112] = 6  # turned by a quarter
    image.save(tmp_path / "a.png", exif=exif)
    picture = open_picture(tmp_path / "a.png")
    (tmp_path / "a.png").unlink()
    assert (picture.mode, picture.size) == ("RGB", (6, 4))
    assert np.array_equal(picture, np.rot90(np.asarray(image.convert("RGB")), -1))
