import dataclasses
import json
import os
import sys

import numpy as np
import pytest
import torch
from markup import Document, decode
from PIL import Image, ImageColor
from safetensors.torch import load_file, save
from toys import pixels

from energyql.errors import ArgumentError, DataError
from energyql.files import check_destination
from energyql.pipeline import folder as folders
from energyql.pipeline import result as module
from energyql.pipeline.columns import concatenate, take_rows
from energyql.pipeline.description import MOST_QUERY, alternative_text, reading
from energyql.pipeline.result import MOST_PICTURES, Result
from energyql.render.pictures import NO, YES, png_bytes
from energyql.sampling import Status

QUERY = "größe AND 😀 OR smile"


def make(n=3, energy=None, semantics="exact", **changes):
    energy = np.array([0.0, 0.5, np.inf][:n] if energy is None else energy)
    fields = {
        "images": [Image.new("RGB", (16, 16), (i * 60, 0, 0)) for i in range(n)],
        "z": torch.arange(8.0 * n).reshape(n, 8),
        "w": torch.arange(16.0 * n).reshape(n, 16),
        "index": np.arange(n),
        "energy": energy,
        "probabilities": {
            "smile": np.arange(n) / 10,
            "hair": {"red": np.arange(n) / 10, "black": np.ones(n)},
            "age": (np.arange(n) / 10, np.full(n, 0.1)),
        },
        "judged": {"smile": np.array([True, False, True][:n]), "hair": np.array(["red"] * n), "age": np.full(n, 0.5)},
        "satisfied": np.array([True, False, True][:n]),
        "doubtful": np.zeros(n, bool),
        "status": [Status.OK, Status.STEP_LIMIT, Status.OK][:n],
        "statistics": {"evaluations_mean": 3.0},
        "provenance": {"query": QUERY, "seed": 7, "model": "tiny", "semantics": semantics, "judge": "image judge"},
    }
    if "satisfied" in changes:  # not judged
        heads = {"smile": "balanced accuracy 0.9", "hat": None}
        fields["provenance"] |= {"judge": None, "unjudged": "the model has no judge", "heads": heads}
    return Result(**(fields | changes))


def test_a_summary_counts_and_says_who_says_so():
    assert make().summary() == "2 of 3 satisfy the query, says the image judge; the solver could not finish 1"
    assert make(1).summary() == "1 of 1 satisfy the query, says the image judge"
    one = make(1, doubtful=np.ones(1, bool)).summary()
    assert one.endswith("; 1 is doubtful: two sets of heads disagree, or the latent is too far out")
    assert len(make()) == 3
    assert repr(make()).startswith(f"<Result of '{QUERY}': 2 of 3")


def test_what_nobody_judged_has_no_tick_and_no_cross(tmp_path):
    result = make(2, satisfied=None, judged={})
    heads = "by the attribute heads (smile: balanced accuracy 0.9, hat: quality not measured)"
    assert result.verdict() == f"not judged: the model has no judge; mean P 0.80 {heads}"
    assert make(2, semantics="lace", satisfied=None).verdict().endswith(f"mean energy 0.25 {heads}")
    assert result[[1]].satisfied is Result.join([result, result]).satisfied is None
    marks = {ImageColor.getrgb(YES), ImageColor.getrgb(NO)}
    assert not {colour for _, colour in result.grid().getcolors(1 << 16)} & marks
    assert {colour for _, colour in make(2).grid().getcolors(1 << 16)} >= marks
    page = Document(result._repr_html_())
    assert page.all("svg") == page.all("path") == []
    assert page.all("img")[0]["alt"] == f"Picture 1 of 2. The query {QUERY} is not judged."
    saved = json.loads((result.save(tmp_path / "run") / "result.json").read_text(encoding="utf-8"))
    assert [sample["satisfied"] for sample in saved["samples"]] == [None, None]
    values = make(2, satisfied=None, judged={"hair": np.array(["red", "black"])}).values
    assert {name: column.tolist() for name, column in values.items()} == {
        "smile": [False, False], "hair": ["red", "black"], "age": [0.0, 0.1]
    }  # fmt: skip
    assert result.values["hair"].tolist() == ["black", "black"]


@pytest.mark.parametrize("suffix", [".png", ".PNG", ".jpg", ".jpeg", ".webp"])
def test_a_grid_in_every_format(tmp_path, suffix):
    path = tmp_path / "new" / f"faces{suffix}"
    assert make().save(path) == path
    with Image.open(path) as picture:
        assert picture.size == make().grid().size
        assert picture.format == {".jpg": "JPEG", ".jpeg": "JPEG", ".webp": "WEBP"}.get(suffix, "PNG")
    assert list(path.parent.iterdir()) == [path]


def test_a_png_carries_its_provenance(tmp_path):
    with Image.open(make().save(str(tmp_path / "faces.png"))) as picture:
        assert json.loads(picture.text["energyql"]) == make().provenance


class TestFolder:
    def test_everything_is_there(self, tmp_path):
        result, folder = make(), tmp_path / "run"
        assert result.save(folder) == folder
        names = ["00000.png", "00001.png", "00002.png", "grid.png", "latents.safetensors", "result.json"]
        assert sorted(path.name for path in folder.iterdir()) == names
        latents = load_file(folder / "latents.safetensors")
        assert torch.equal(latents["z"], result.z)
        assert torch.equal(latents["w"], result.w)
        with Image.open(folder / "00001.png") as picture:
            assert picture.tobytes() == result.images[1].tobytes()
            assert json.loads(picture.text["energyql"])["seed"] == 7

    def test_the_json_is_strict(self, tmp_path):
        make(judged={"age": np.array([0.5, np.nan, np.inf])}).save(tmp_path)

        def refuse(constant):
            raise AssertionError(f"{constant} is not JSON")

        data = json.loads((tmp_path / "result.json").read_text(encoding="utf-8"), parse_constant=refuse)
        assert data["provenance"]["query"] == QUERY
        assert [sample["energy"] for sample in data["samples"]] == [0.0, 0.5, "Infinity"]
        assert [sample["judged"]["age"] for sample in data["samples"]] == [0.5, None, "Infinity"]
        assert data["samples"][1]["status"] == "STEP_LIMIT"
        assert data["samples"][0]["satisfied"] is True

    def test_a_folder_with_a_dot_that_is_there(self, tmp_path):
        (tmp_path / "run.v2").mkdir()
        make().save(tmp_path / "run.v2")
        assert (tmp_path / "run.v2" / "grid.png").exists()

    def test_latents_that_are_one_tensor(self, tmp_path):
        z = torch.ones(3, 8)
        make(z=z, w=z).save(tmp_path)
        assert torch.equal(load_file(tmp_path / "latents.safetensors")["w"], z)


class TestFailures:
    @pytest.mark.parametrize("name", ["faces.gif", "faces.txt", "run.v2"])
    def test_endings(self, tmp_path, name):
        with pytest.raises(
            ArgumentError, match=r"cannot be saved as \.\w+\nend the path in \.png, .* or name a folder"
        ):
            check_destination(tmp_path / name)

    def test_a_folder_called_faces_png(self, tmp_path):
        (tmp_path / "faces.png").mkdir()
        with pytest.raises(ArgumentError, match="it is a folder"):
            make().save(tmp_path / "faces.png")
        assert list((tmp_path / "faces.png").iterdir()) == []

    @pytest.mark.parametrize("name", ["file", "file/run", "file/faces.png", "file/deep/faces.png"])
    def test_below_a_file(self, tmp_path, name):
        (tmp_path / "file").write_text("mine")
        with pytest.raises(ArgumentError, match="file is not a folder"):
            make().save(tmp_path / name)
        assert (tmp_path / "file").read_text() == "mine"

    def test_where_nothing_can_be_written(self, tmp_path, monkeypatch):
        monkeypatch.setattr(os, "access", lambda path, mode: False)
        with pytest.raises(ArgumentError, match="is not writable"):
            check_destination(tmp_path / "faces.png")

    def test_what_the_system_refuses(self, tmp_path):
        with pytest.raises(ArgumentError, match=r"cannot write .*: File name too long"):
            make().save(tmp_path / ("n" * 300 + ".png"))
        assert list(tmp_path.iterdir()) == []

    def test_a_disk_that_fills_up_leaves_the_old_file(self, tmp_path, monkeypatch):
        path = tmp_path / "faces.png"
        path.write_bytes(b"old")

        def full(self, target, **settings):
            target.write_bytes(b"half")
            raise OSError(28, "No space left on device")

        monkeypatch.setattr(Image.Image, "save", full)
        with pytest.raises(ArgumentError, match=r"cannot write .*faces\.png: No space left on device"):
            make().save(path)
        assert path.read_bytes() == b"old"
        assert list(tmp_path.iterdir()) == [path]

    def test_a_folder_that_fails_has_no_result_file(self, tmp_path, monkeypatch):
        def full(path, tensors):
            raise OSError(28, "No space left on device")

        monkeypatch.setattr(folders, "write_tensors", full)
        with pytest.raises(ArgumentError, match="No space left"):
            make().save(tmp_path / "run")
        assert not (tmp_path / "run" / "result.json").exists()

    def test_a_side_that_the_format_cannot_hold(self, tmp_path, monkeypatch):
        monkeypatch.setattr(Result, "grid", lambda self: Image.new("RGB", (20_000, 2)))
        with pytest.raises(ArgumentError, match=r"cannot write .*\nsave as \.png"):
            make().save(tmp_path / "faces.webp")
        assert list(tmp_path.iterdir()) == []


class TestGrid:
    def test_columns(self):
        assert make().grid(columns=1).height > make().grid().height
        with pytest.raises(ArgumentError, match="at least one column, not 0"):
            make().grid(columns=0)

    @pytest.mark.parametrize(
        ("semantics", "captions"), [("exact", ["P 0.050"]), ("lace", ["E 2.996"]), ("product", ["E 2.996"])]
    )
    def test_only_exact_energies_are_probabilities(self, monkeypatch, semantics, captions):
        seen = {}
        monkeypatch.setattr(module, "label_grid", lambda images, **settings: seen.update(settings))
        make(1, energy=[-np.log(0.05)], semantics=semantics).grid()
        assert seen["captions"] == captions
        probability = make(energy=[0.0, np.inf, np.log(2)], semantics=semantics).probability
        assert probability is None if semantics != "exact" else probability == pytest.approx([1, 0, 0.5])
        assert seen["title"] == QUERY
        assert seen["verdicts"] == [True]

    def test_energies_without_bounds(self):
        make(energy=[np.nan, np.inf, -2000.0], semantics="lace").grid()


class TestParts:
    def test_some_samples(self):
        some = make()[[2, 0]]
        assert some.index.tolist() == [2, 0]
        assert [image.getpixel((0, 0))[0] for image in some.images] == [120, 0]
        assert (some.z[:, 0].tolist(), some.w[:, 0].tolist()) == ([16.0, 0.0], [32.0, 0.0])
        assert some.energy.tolist() == [np.inf, 0.0]
        read = some.probabilities
        assert [column.tolist() for column in (read["smile"], read["hair"]["red"], read["age"][0])] == [[0.2, 0.0]] * 3
        assert some.judged["smile"].tolist() == some.satisfied.tolist() == [True, True]
        assert (some.status, some.provenance["n"]) == ([Status.OK, Status.OK], 2)

    @pytest.mark.parametrize(
        ("key", "rows"),
        [
            (1, [1]),
            (-1, [2]),
            (np.int64(2), [2]),
            (slice(1, None), [1, 2]),
            (slice(None, None, -1), [2, 1, 0]),
            (slice(5, 9), []),
            ([True, False, True], [0, 2]),
            (np.array([False, False, True]), [2]),
            (torch.tensor([True, False, False]), [0]),
            (np.zeros(3, bool), []),
            ([-1, 0, 0], [2, 0, 0]),
            (np.array([1, -3]), [1, 0]),
            (torch.tensor([2]), [2]),
            (range(2), [0, 1]),
            ([], []),
        ],
    )
    def test_every_kind_of_key(self, key, rows):
        assert make()[key].index.tolist() == rows
        assert len(make()[key]) == len(make()[key].images) == len(rows)

    @pytest.mark.parametrize(
        ("key", "message"),
        [
            (3, "no sample 3: it has 3, numbered from 0"),
            (-4, "no sample -4"),
            ([0, 7], "no sample 7"),
            ([True, False], r"a mask for this result has the shape \(3,\), not \(2,\)"),
            (True, r"not \(\)"),
            (1.0, "indexed by a whole number, a slice, a mask or a list of whole numbers, not by 1.0"),
            ([0.5], "not by "),
            ("smile", "not by 'smile'"),
            (None, "not by None"),
            ([[0], [1, 2]], "not by "),
            ([[0, 1]], "not by "),
            (slice(None, None, 0), "sliced"),
            (slice("a"), "sliced"),
        ],
    )
    def test_wrong_keys(self, key, message):
        with pytest.raises(ArgumentError, match=message):
            make()[key]
        with pytest.raises(ArgumentError, match="it is empty"):
            make()[[]][0]

    def test_one_by_one(self):
        ones = list(make())
        assert [(len(one), one.index[0], one.status) for one in ones] == [
            (1, 0, [Status.OK]), (1, 1, [Status.STEP_LIMIT]), (1, 2, [Status.OK])
        ]  # fmt: skip
        assert ones[1].summary().startswith("0 of 1")

    def test_joined_again(self):
        whole = make()
        for joined in (Result.join([whole[:1], whole[[]], whole[1:]]), whole[0] + whole[1:], Result.join([whole])):
            assert torch.equal(joined.z, whole.z)
            assert str(joined.probabilities) == str(whole.probabilities)
            assert joined.status == whole.status
            assert len(joined.images) == len(joined) == 3
        assert (whole + whole).provenance["n"] == 6
        with pytest.raises(TypeError):
            whole + 1

    def test_no_parts(self):
        with pytest.raises(ArgumentError, match="at least one result"):
            Result.join([])

    @pytest.mark.parametrize(
        ("facts", "message"),
        [
            ({"canonical": "hat"}, "differ in their query: None and hat"),
            ({"model": "other"}, "differ in their model: tiny and other"),
            ({"fingerprints": {"generator": "1"}}, "differ in their fingerprints$"),
            ({"semantics": "lace"}, "semantics: exact and lace"),
            ({"judge": "attribute heads"}, "judge: image judge and attribute heads"),
            ({"truncation": 0.5}, "truncation: None and 0.5"),
        ],
    )
    def test_other_queries_and_models_are_refused(self, facts, message):
        other = make(provenance=make().provenance | facts)
        with pytest.raises(ArgumentError, match="(?m)" + message):
            make() + other

    def test_seeds_are_listed(self):
        def of(seed, drawn):
            return make(
                provenance=make().provenance | {"seed": seed, "budget": 5, "wanted": 3},
                statistics={"drawn": drawn, "evaluations_mean": drawn, "evaluations_max": drawn, "acceptance": 0.5},
            )

        joined = of(7, 3.0) + of(8, 5.0)[:1] + of(7, 3.0)
        assert joined.provenance["seed"] == [7, 8]
        assert (joined.provenance["budget"], joined.provenance["wanted"]) == (15, 9)
        # means are weighted by samples; an acceptance does not follow from the parts
        assert joined.statistics == {"drawn": 11.0, "evaluations_mean": (9 + 5 + 9) / 7, "evaluations_max": 5.0}
        assert "seed [7, 8]" in joined._footer()

    def test_fields_that_are_none(self):
        assert take_rows(None, np.arange(2)) is None
        assert concatenate([None, None]) is None
        assert concatenate([{"a": None}, {"a": None}]) == {"a": None}

    def test_nothing_to_save(self, tmp_path):
        with pytest.raises(ArgumentError, match="there is no picture to save: 0 of 0 satisfy"):
            make()[[]].save(tmp_path / "faces.png")
        assert not list(tmp_path.iterdir())


def equal(left, right):
    """Whether two results hold the same, in every field."""
    for one, other in ((getattr(left, field.name), getattr(right, field.name)) for field in dataclasses.fields(left)):
        if isinstance(one, list) and isinstance(one[0], Image.Image):
            one, other = pixels(one), pixels(other)
        if isinstance(one, torch.Tensor):
            one, other = one.numpy(), other.numpy()
        np.testing.assert_equal(one, other)
    return True


class TestLoad:
    def test_everything_comes_back(self, tmp_path):
        odd = {
            "smile": np.array([True, False, True]),
            "hair": np.array(["Infinity", "dark red", ""]),
            "age": np.array([np.nan, -np.inf, 1 / 3]),
        }
        for number, result in enumerate([make(), make(judged=odd), make(energy=np.array([np.nan, -np.inf, 1e-300]))]):
            folder = tmp_path / str(number)
            result.save(folder)
            assert equal(Result.load(folder), result)
            assert equal(Result.load(str(folder)), Result.load(folder))

    def test_of_a_real_run(self, draw, tmp_path):
        result = draw()
        assert equal(Result.load(result.save(tmp_path)), result)

    def test_verdicts_that_nobody_gave(self, tmp_path):
        make().save(tmp_path)
        damage(tmp_path, lambda data: [sample.update(satisfied=None) for sample in data["samples"]])
        assert Result.load(tmp_path).satisfied is None

    def test_a_second_smaller_result_leaves_nothing_of_the_first(self, tmp_path):
        (tmp_path / "00077.txt").write_text("mine")
        make(3).save(tmp_path)
        make(1).save(tmp_path)
        names = ["00000.png", "00077.txt", "grid.png", "latents.safetensors", "result.json"]
        assert sorted(path.name for path in tmp_path.iterdir()) == names
        assert len(Result.load(tmp_path)) == 1

    def test_pictures_of_the_users_are_left_alone(self, tmp_path):
        (tmp_path / "00077.png").write_bytes(b"mine")
        make(1).save(tmp_path)
        assert (tmp_path / "00077.png").read_bytes() == b"mine"

    def test_no_result(self, tmp_path):
        for folder in (tmp_path, tmp_path / "missing"):
            with pytest.raises(DataError, match="holds no result\nname one that generate"):
                Result.load(folder)

    @pytest.mark.parametrize(
        "change",
        [
            lambda data: data.pop("samples"),
            lambda data: data.update(samples=[]),
            lambda data: data.update(samples=3),
            lambda data: data.update(samples=[1, 2, 3]),
            lambda data: data.update(provenance=[]),
            lambda data: data["provenance"].pop("query"),
            lambda data: data["provenance"].update(judge=3),
            lambda data: data.update(statistics={"a": []}),
            lambda data: data["samples"].append(data["samples"][0]),
            lambda data: data["samples"][1].update(picture="../../secret.png"),
            lambda data: data["samples"][1].update(picture="00099.png"),
            lambda data: data["samples"][1].update(picture=None),
            lambda data: data["samples"][1].update(index=-1),
            lambda data: data["samples"][1].update(index=True),
            lambda data: data["samples"][1].update(index=1 << 80),
            lambda data: data["samples"][1].update(energy="high"),
            lambda data: data["samples"][1].update(energy=10**400),
            lambda data: data["samples"][1].update(satisfied=1),
            lambda data: data["samples"][1].update(status="EXCELLENT"),
            lambda data: data["samples"][1].update(status=[]),
            lambda data: data["samples"][1].pop("judged"),
            lambda data: data["samples"][1].update(judged={"cat": True}),
            lambda data: data["samples"][1]["judged"].update(smile=[1]),
            lambda data: data["samples"][1]["probabilities"].update(age=[0.5]),
            lambda data: [sample.update(probabilities=0.5) for sample in data["samples"]],
        ],
    )
    def test_damaged_measurements_are_refused(self, tmp_path, change):
        make().save(tmp_path)
        damage(tmp_path, change)
        with pytest.raises(DataError, match="holds a damaged result: "):
            Result.load(tmp_path)

    @pytest.mark.parametrize(
        ("name", "content"),
        [
            ("result.json", b"{"),
            ("result.json", b"[]"),
            ("result.json", b"[" * 100_000),
            ("result.json", b"\xff"),
            ("latents.safetensors", b""),
            ("latents.safetensors", b"\xff" * 100),
            ("latents.safetensors", save({"z": torch.ones(3, 2)})),
            ("latents.safetensors", save({"z": torch.ones(2, 2), "w": torch.ones(3, 2)})),
            ("latents.safetensors", save({"z": torch.ones(3, 2), "w": torch.ones(3, 2, dtype=torch.int8)})),
            ("00001.png", b""),
            ("00001.png", b"GIF89a"),
            ("00001.png", png_bytes(Image.effect_noise((64, 64), 50))[:500]),
        ],
    )
    def test_damaged_files_are_refused(self, tmp_path, name, content):
        make().save(tmp_path)
        (tmp_path / name).write_bytes(content)
        with pytest.raises(DataError, match="holds a damaged result: "):
            Result.load(tmp_path)


def damage(folder, change):
    data = json.loads((folder / "result.json").read_text(encoding="utf-8"))
    change(data)
    (folder / "result.json").write_text(json.dumps(data), encoding="utf-8")


class TestPandas:
    def test_a_row_a_sample(self, monkeypatch):
        class Pandas:
            DataFrame = dict

        monkeypatch.setitem(sys.modules, "pandas", Pandas)
        table = make().to_pandas()
        assert list(table) == [
            "index", "energy", "probability", "satisfied", "status",
            "smile", "hair=red", "hair=black", "age.mean", "age.std", "judged.smile", "judged.hair", "judged.age",
        ]  # fmt: skip
        assert {len(column) for column in table.values()} == {3}
        assert table["status"] == ["OK", "STEP_LIMIT", "OK"]
        assert table["age.mean"].tolist() == [0, 0.1, 0.2]
        assert "probability" not in make(semantics="lace").to_pandas()

    def test_by_pandas_itself(self):
        pandas = pytest.importorskip("pandas")
        table = make().to_pandas()
        assert isinstance(table, pandas.DataFrame)
        assert table.shape == (3, 13)
        assert table[table.satisfied]["index"].tolist() == [0, 2]

    def test_without_it(self, monkeypatch):
        monkeypatch.setitem(sys.modules, "pandas", None)
        with pytest.raises(ArgumentError, match="a table needs pandas, which is not installed\npip install pandas"):
            make().to_pandas()


JUDGED = {
    "smile": np.array([True, False]),
    "hair": np.array(["red", "dark brown"]),
    "age": np.array([0.125, 0.5]),
    "hat": np.array([False, False]),
}


@pytest.mark.parametrize(
    ("index", "only", "expected"),
    [
        (0, None, "smile, hair = red, age = 0.12; no hat"),
        (1, None, "hair = dark brown, age = 0.50; no smile, hat"),
        (1, ["hat"], "no hat"),
        (0, ["smile", "bald"], "smile"),
        (0, [], ""),
    ],
)
def test_a_reading(index, only, expected):
    assert reading(JUDGED, index, only) == expected


def test_alternative_text():
    assert alternative_text(JUDGED, 0, 2, "image judge", [("smile", True), ("hat", False)]) == (
        "Picture 1 of 2. Image judge: smile, hair = red, age = 0.12; no hat. "
        "The query smile holds. The query hat does not hold."
    )
    assert alternative_text({}, 0, 1, None, [("x" * 9999, True)]) == (
        f"Picture 1 of 1. The query {'x' * MOST_QUERY}… holds."
    )


def many(count):
    return make(3)[[0, 1] * (count // 2) + [2] * (count % 2)]


def test_a_notebook_shows_pictures_verdicts_and_words():
    html = make(3)._repr_html_()
    document = Document(html)
    images = document.all("img")
    assert [decode(image["src"]).getpixel((0, 0))[0] for image in images] == [0, 60, 120]
    read = "Image judge: hair = red, age = 0.50; no smile"
    assert images[1]["alt"] == f"Picture 2 of 3. {read}. The query {QUERY} does not hold."
    assert document.texts("code") == [QUERY]
    assert len({attributes["d"] for attributes in document.all("path")}) == 2
    assert f"{make().summary()}. Model tiny, seed 7, exact semantics" in document.texts("div")
    assert make()._repr_png_().startswith(b"\x89PNG")


def test_a_notebook_shows_not_too_many_pictures():
    html = many(MOST_PICTURES + 3)._repr_html_()
    assert len(Document(html).all("img")) == MOST_PICTURES
    assert "Not shown: 3 more" in html
    assert Document(many(0)._repr_html_()).all("img") == []
