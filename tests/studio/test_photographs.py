"""Photographs of visitors: sent, inverted, edited; and what is no photograph."""

import io
import struct
import zlib

import pytest
from markup import decode
from PIL import Image

from energyql import generate, invert
from energyql.editing import invert as invert_module
from energyql.studio import guard
from energyql.studio.limits import Limits
from studio.client import serving
from studio.test_memory import held


def encoded(picture, kind="PNG", **options):
    buffer = io.BytesIO()
    picture.save(buffer, kind, **options)
    return buffer.getvalue()


def send(client, data, kind="image/png", query=""):
    return client.request("POST", f"/api/photographs{query}", data, {"content-type": kind})


@pytest.fixture(scope="module")
def drawable(tiny):
    """A picture that the generator can draw, since it drew it."""
    result = generate("smile", 3, model=tiny, seed=11, device="cpu", progress=False)
    pictures = [image.resize((64, 64)) for image in result.images]
    for picture in pictures:
        if invert(picture, model=tiny, device="cpu", progress=False, anyway=True).drawable[0]:
            return picture
    raise AssertionError("none can be drawn")


@pytest.fixture(scope="module")
def inverted(studio, drawable):
    answer = send(studio, encoded(drawable))
    assert answer.status == 202, answer.body
    return studio.finish(answer.json()["id"])


def test_the_reconstruction_is_that_of_invert(inverted, drawable, tiny):
    expected = invert(drawable, model=tiny, device="cpu", progress=False)
    assert (inverted["state"], inverted["kind"], inverted["total"]) == ("done", "photograph", 1)
    assert decode(inverted["pictures"][0]["image"]).convert("RGB").tobytes() == expected.result.images[0].tobytes()
    photograph = inverted["photograph"]
    assert photograph["pixel_error"] == pytest.approx(expected.pixel_error[0])
    assert photograph["drawable"]
    assert decode(photograph["image"]).convert("RGB").tobytes() == expected.pictures[0].tobytes()


@pytest.mark.parametrize(("kind", "name"), [("image/jpeg", "JPEG"), ("image/webp", "WEBP")])
def test_other_formats_upside_down(studio, drawable, kind, name):
    turned = drawable.rotate(180)
    exif = Image.Exif()
    exif[0x0112] = 3  # to be turned by 180 degrees
    answer = send(studio, encoded(turned, name, exif=exif, quality=95), kind, "?anyway=true")
    job = studio.finish(answer.json()["id"])
    assert job["state"] == "done"
    seen = decode(job["photograph"]["image"]).convert("L").resize((2, 2)).tobytes()
    wanted = drawable.convert("L").resize((2, 2)).tobytes()
    assert max(abs(a - b) for a, b in zip(seen, wanted, strict=True)) < 20


def test_it_can_be_edited_and_varied(studio, inverted):
    edited = studio.draw("/api/edits", job=inverted["id"], steps=["beard"])
    assert edited["pictures"][0]["image"] == inverted["pictures"][0]["image"]
    assert edited["pictures"][1]["query"] == "beard"
    grid = Image.open(io.BytesIO(studio.get(f"/api/jobs/{edited['id']}/grid.png").body))
    again = studio.draw("/api/edits", query="smile", steps=["beard"])
    plain = Image.open(io.BytesIO(studio.get(f"/api/jobs/{again['id']}/grid.png").body))
    assert grid.width > plain.width  # the photograph itself is a column
    varied = studio.draw("/api/variations", job=inverted["id"], n=2, wanted="beard")
    assert varied["done"] == 2
    assert studio.draw("/api/variations", job=inverted["id"], n=2)["state"] == "done"  # nothing is asked of it


def test_downloads(studio, inverted):
    base = f"/api/jobs/{inverted['id']}"
    for file, start in (("result.zip", b"PK"), ("grid.png", b"\x89PNG"), ("pictures/0.png", b"\x89PNG")):
        assert studio.get(f"{base}/{file}").body.startswith(start)


def test_what_the_generator_cannot_draw(studio, monkeypatch):
    monkeypatch.setattr(invert_module, "MOST_DISTANCE", 0.0)
    noise = Image.effect_noise((64, 64), 200).convert("RGB")
    job = studio.finish(send(studio, encoded(noise)).json()["id"])
    assert (job["state"], job["problem"]["error"]) == ("failed", "OutOfDomainError")
    assert "cannot draw the picture" in job["problem"]["message"]
    assert job["problem"]["hint"].endswith("or edit it anyway")  # what the page offers, not an argument of Python
    anyway = studio.finish(send(studio, encoded(noise), query="?anyway=true").json()["id"])
    assert (anyway["state"], anyway["photograph"]["drawable"]) == ("done", False)


def png_of(width, height):
    """A small PNG that claims to be large."""

    def chunk(kind, data):
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    header = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    return (
        b"\x89PNG\r\n\x1a\n"
        + chunk(b"IHDR", header)
        + chunk(b"IDAT", zlib.compress(b"\0" * 1000))
        + chunk(b"IEND", b"")
    )


@pytest.mark.parametrize(
    ("data", "status", "words"),
    [
        (b"", 422, "cannot be read"),
        (b"no picture", 422, "cannot be read"),
        (encoded(Image.new("RGB", (9, 9)), "GIF"), 422, "cannot be read"),
        (encoded(Image.new("RGB", (9, 9)), "BMP"), 422, "cannot be read"),
        (png_of(8000, 4001), 413, "more than 32 million pixels"),
        (png_of(11_500, 11_500), 413, "more than 32 million pixels"),
        (png_of(2**31 - 1, 2**31 - 1), 413, "more than 32 million pixels"),
        (b"\x89PNG\r\n\x1a\n" + b"\0" * 100, 422, "cannot be read"),
    ],
)
def test_what_is_refused_at_once(studio, data, status, words):
    answer = send(studio, data)
    assert answer.status == status
    assert words in answer.json()["message"]


def test_one_that_is_damaged_further_on_is_a_failed_job(studio, drawable):
    job = studio.finish(send(studio, png_of(1000, 1000)).json()["id"])
    assert (job["state"], job["problem"]["error"]) == ("failed", "InvalidRequest")
    assert "cannot be read" in job["problem"]["message"]


@pytest.mark.parametrize("kind", ["image/gif", "application/json", "", "multipart/form-data; boundary=x", "text/plain"])
def test_other_media_types_are_refused(studio, kind):
    answer = send(studio, b"x", kind)
    assert answer.status == 415
    assert "image/png" in answer.json()["hint"]


def test_settings_are_checked(studio, drawable):
    for query, words in (
        ("?truncation=7", "truncation: Input should be less than or equal to 1"),
        ("?model=x", "no model 'x'"),
        ("?colour=1", "colour: Extra inputs are not permitted"),
    ):
        answer = send(studio, encoded(drawable), query=query)
        assert answer.status == 422
        assert words in answer.json()["message"]


def test_bytes_are_bounded(tiny, drawable):
    with serving([str(tiny)], Limits(photograph_bytes=2000)) as client:
        data = encoded(drawable)
        assert len(data) > 2000
        answer = send(client, data)
        assert answer.status == 413
        assert send(client, data[:2000]).status in (202, 422)


def test_uploads_at_a_time_are_bounded(studio, monkeypatch, drawable):
    monkeypatch.setattr(guard, "MOST_UPLOADS", 0)
    answer = send(studio, encoded(drawable))
    assert (answer.status, answer.json()["error"]) == (503, "Busy")


def test_a_waiting_photograph_is_counted(tiny, drawable):
    with serving([str(tiny)]) as client:
        first = client.start(query="smile AND hair = black", n=64, sampler="published-predictor-corrector")
        before = held(client)
        data = encoded(drawable) + b"\0" * 100_000
        key = send(client, data).json()["id"]
        assert held(client) - before > len(data)
        client.request("DELETE", f"/api/jobs/{first}")
        assert client.finish(key)["state"] == "done"


def test_it_is_cancelled_like_all_jobs(tiny, drawable):
    with serving([str(tiny)]) as client:
        first = client.start(query="smile AND hair = black", n=64, sampler="published-predictor-corrector")
        key = send(client, encoded(drawable)).json()["id"]
        assert client.request("DELETE", f"/api/jobs/{key}").json()["state"] == "cancelled"
        client.request("DELETE", f"/api/jobs/{first}")
