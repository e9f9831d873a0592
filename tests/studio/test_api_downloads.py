"""The files of a job."""

import io
import json
import zipfile

import pytest
from PIL import Image

from energyql import generate

QUERY = "smile AND NOT (glasses OR beard)"


@pytest.fixture(scope="module")
def key(studio):
    key = studio.start(query=QUERY, n=3, seed=2)
    studio.finish(key)
    return key


@pytest.fixture(scope="module")
def expected(tiny):
    return generate(QUERY, 3, model=tiny, seed=2, device="cpu", progress=False)


class TestDownloads:
    def test_a_picture_with_its_provenance(self, studio, key, expected):
        answer = studio.get(f"/api/jobs/{key}/pictures/1.png")
        assert answer.headers["content-disposition"] == 'attachment; filename="energyql-01.png"'
        with Image.open(io.BytesIO(answer.body)) as picture:
            assert picture.tobytes() == expected.images[1].tobytes()
            assert json.loads(picture.text["energyql"])["query"] == QUERY

    def test_the_grid(self, studio, key):
        with Image.open(io.BytesIO(studio.get(f"/api/jobs/{key}/grid.png").body)) as picture:
            assert picture.width > 300

    def test_provenance(self, studio, key, expected):
        (entry,) = studio.get(f"/api/jobs/{key}/provenance.json").json()
        assert entry == json.loads(json.dumps(expected.provenance | {"index": [0, 1, 2]}))

    def test_everything(self, studio, key):
        with zipfile.ZipFile(io.BytesIO(studio.get(f"/api/jobs/{key}/result.zip").body)) as packed:
            names = [f"{i:05d}.png" for i in range(3)]
            files = [*names, "grid.png", "latents.safetensors", "result.json"]
            assert {name for name in packed.namelist() if name[-1] != "/"} == {f"energyql/{name}" for name in files}
            assert json.loads(packed.read("energyql/result.json"))["provenance"]["seed"] == 2

    @pytest.mark.parametrize("position", ["3", "99", "x"])
    def test_pictures_that_are_not_there(self, studio, key, position):
        answer = studio.get(f"/api/jobs/{key}/pictures/{position}.png")
        assert answer.status == (422 if position == "x" else 404)
        assert answer.json()["message"]
