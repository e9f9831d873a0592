import importlib
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from safetensors.torch import save_file

from energyql.errors import DataError, LabelWarning
from energyql.training.labels import Drawn, infer, read_label_table, read_latents, warn_of_few_labels
from energyql.vocabulary import AttributeSpec


def written(path, text):
    path.write_text(text, encoding="utf-8")
    return path


@pytest.mark.parametrize("delimiter", [",", ";", "\t"])
def test_csv(tmp_path, delimiter):
    text = "\ufeffindex, smile ,hair\n5,yes,dark red\n\n0,,black\n".replace(",", delimiter)
    table = read_label_table(written(tmp_path / "a.csv", text))
    assert table.columns == {"smile": ["yes", ""], "hair": ["dark red", "black"]}
    assert table.index.tolist() == [5, 0]


@pytest.mark.parametrize("delimiter", [";", "\t"])
def test_decimal_commas(tmp_path, delimiter):
    text = f"Index{delimiter}age, in years{delimiter}note\n5{delimiter}0,31{delimiter}1,5\n"
    text += f"0{delimiter}{delimiter}a, b\n3{delimiter}-2{delimiter}1,5\n"
    table = read_label_table(written(tmp_path / "a.csv", text))
    assert table.columns == {"age, in years": ["0.31", "", "-2"], "note": ["1,5", "a, b", "1,5"]}
    assert table.index.tolist() == [5, 0, 3]


@pytest.mark.parametrize("stated", [False, True])
def test_numbers_under_a_plain_header_are_taken_by_their_values(tmp_path, stated):
    """Also where the table states how its pictures were drawn, and the headers name the attributes."""
    rows = ["index,skin,smile,hat,age=0..2,drawn", "0,0.3,1,yes,0,D", "1,0.7,0,no,1,D", "2,,1,,1,D"]
    rows = [row.replace("D", "seed=7 truncation=0.6 generator=1f") if stated else row.rsplit(",", 2)[0] for row in rows]
    table = read_label_table(written(tmp_path / "a.csv", "\n".join(rows)))
    specs = infer(table.columns, vocabulary=table.vocabulary)
    assert specs["skin"] == AttributeSpec("skin", "continuous", low=0.3, high=0.7, tolerance=0.02)
    assert specs["smile"].kind == specs["hat"].kind == "yes/no"
    assert not stated or (specs["age"].low, specs["age"].high) == (0, 2)


def test_a_table_among_pictures_is_about_these(tmp_path):
    table = written(tmp_path / "a.csv", "index,smile\n5,1\n0,0\n")
    assert read_label_table(table).beside is None
    written(tmp_path / "pictures.json", '{"drawn": "seed=7 truncation=0.6 generator=1f"}')
    read = read_label_table(table)
    assert (read.beside, read.drawn) == (Drawn(7, 0.6, "1f"), None)
    written(tmp_path / "pictures.json", '{"images": []}')
    assert read_label_table(table).beside is None
    for damaged in ('{"drawn": 3}', "[1, 2]", "{"):
        written(tmp_path / "pictures.json", damaged)
        with pytest.raises(DataError, match="pictures.json"):
            read_label_table(table)


def test_rows_without_an_index_are_about_nothing(tmp_path):
    with pytest.raises(
        DataError, match="has no column 'index', so nothing says .*\n.*energyql sample drew; or give latents"
    ):
        read_label_table(written(tmp_path / "a.csv", "smile\n1\n0\n"))


def test_file_names_are_no_classes():
    columns = {
        "file": [f"{i:05d}.png" for i in range(60)],
        "smile": ["yes", "no"] * 30,
        "hair": ["black", "red", ""] * 20,
        "id": list(range(60)),
    }
    with pytest.warns(LabelWarning, match="column 'file' is left out: its texts, such as '00000.png', '00001.png'"):
        assert list(infer(columns)) == ["smile", "hair", "id"]
    assert infer({"file": columns["file"]}, {"file": "categorical"})["file"].kind == "categorical"
    with pytest.warns(LabelWarning), pytest.raises(DataError, match="no column of labels"):
        infer({"file": columns["file"]})


@pytest.mark.parametrize(
    ("labels", "message"),
    [
        ({"smile": [0] * 30 + [1] * 30}, "'smile' has 60;"),
        ({"smile": [0] * 300 + [1] * 19 + [torch.nan] * 50}, "'smile' has 19 of yes;"),
        ({"hair": [0] * 150 + [1] * 150 + [2]}, "'hair' has 1 of c;"),
        ({"age": [0.5] * 199, "smile": [1, 0]}, "'age' has 199, 'smile' has 2;"),
    ],
)
def test_few_labels(labels, message):
    specs = {
        "smile": AttributeSpec("smile", "yes/no"),
        "age": AttributeSpec("age", "continuous"),
        "hair": AttributeSpec("hair", "categorical", values=("a", "b", "c")),
    }
    given = {name: torch.tensor(values, dtype=torch.float32) for name, values in labels.items()}
    with pytest.warns(LabelWarning, match=f"there are few labels: {message}"):
        warn_of_few_labels(given, {name: specs[name] for name in labels})


def test_enough_labels(recwarn):
    specs = {"smile": AttributeSpec("smile", "yes/no"), "age": AttributeSpec("age", "continuous")}
    warn_of_few_labels({"smile": torch.tensor([0.0] * 180 + [1.0] * 20), "age": torch.rand(200)}, specs)
    assert not recwarn.list


def test_a_cell_may_have_any_text(tmp_path):
    cells = ["a\u2028b", "a\u0085b", "a\nb"]
    text = "index,hair\r\n" + "".join(f'{i},"{cell}"\r\n' for i, cell in enumerate(cells))
    (tmp_path / "a.csv").write_bytes(text.encode())
    assert read_label_table(tmp_path / "a.csv").columns["hair"] == cells


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "is empty"),
        ("smile\n", "has no rows"),
        ("smile;index\n1;1\n1;0;2\n", "line 3: 3 cells where the first line has 2"),
        ("index\n1\n", "no column of labels"),
        ("smile,smile\n1,1\n", "column 'smile' appears twice"),
        ("smile,,\n1,,\n", "the first line does not name every column: smile, , "),
        ("smile,\n1,1\n", "name every column"),
        ("smile,hair\n1\n", "line 2: 1 cells where the first line has 2"),
        ("index,smile\n-1,1\n", "row 1: the index is '-1'"),
        ("index,smile\n1,1\nx,0\n", "row 2: the index is 'x'"),
        ("index,smile\n1,1\n1,0\n", "sample 1 has two rows"),
    ],
)
def test_wrong_csv(tmp_path, text, message):
    with pytest.raises(DataError, match=message):
        read_label_table(written(tmp_path / "a.csv", text))


def test_no_file(tmp_path):
    for name in ("a.csv", "a.npy"):
        with pytest.raises(DataError, match=f"{name} is missing"):
            (read_label_table if name == "a.csv" else read_latents)(tmp_path / name)
    with pytest.raises(DataError, match=r"a\.csv is missing\nenergyql label writes labels\.csv into"):
        read_label_table(tmp_path / "a.csv")
    with pytest.raises(DataError, match=r"is a folder, and labels are a table in a file\nenergyql label writes"):
        read_label_table(tmp_path)
    (tmp_path / "b.csv").write_bytes(b"\xff\xfe\xff")
    for wrong in ("bb.csv", ""):
        with pytest.raises(DataError, match=rf"did you mean {tmp_path}/b\.csv\?"):
            read_label_table(tmp_path / wrong)
    with pytest.raises(DataError, match="cannot read"):
        read_label_table(tmp_path / "b.csv")


class TestLatents:
    def table(self, tmp_path, text="index,smile\n3,1\n1,0\n"):
        return written(tmp_path / "a.csv", text)

    def test_rows_of_a_file(self, tmp_path):
        latents = np.random.default_rng(0).random((4, 5))
        np.save(tmp_path / "w.npy", latents)
        found = read_label_table(self.table(tmp_path), tmp_path / "w.npy")
        assert found.index is None
        torch.testing.assert_close(found.latents, torch.tensor(latents[[3, 1]]).float())

    def test_in_the_order_of_the_table(self, tmp_path):
        np.save(tmp_path / "w.npy", np.arange(10.0).reshape(2, 5))
        with pytest.warns(LabelWarning, match=r"a\.csv has no column 'index', so its rows are .*w\.npy in"):
            found = read_label_table(self.table(tmp_path, "smile\n1\n0\n"), tmp_path / "w.npy")
        assert found.latents[:, 0].tolist() == [0, 5]
        with pytest.raises(DataError, match=r"has 1 rows and no column 'index', but .*w\.npy holds 2 latents"):
            read_label_table(self.table(tmp_path, "smile\n1\n"), tmp_path / "w.npy")

    def test_too_few(self, tmp_path):
        np.save(tmp_path / "w.npy", np.ones((3, 5)))
        with pytest.raises(DataError, match="about sample 3, but .* holds only 3"):
            read_label_table(self.table(tmp_path), tmp_path / "w.npy")

    def test_safetensors_and_layers(self, tmp_path):
        w = torch.randn(4, 5)
        save_file({"latents": w[:, None].repeat(1, 3, 1)}, tmp_path / "w.safetensors")
        assert torch.equal(read_latents(tmp_path / "w.safetensors"), w)
        save_file({"a": w, "b": w + 1}, tmp_path / "two.safetensors")
        with pytest.raises(DataError, match="holds 2 tensors"):
            read_latents(tmp_path / "two.safetensors")

    @pytest.mark.parametrize(
        ("array", "message"),
        [
            (np.ones(3), r"shape \(3,\)"),
            (np.ones((0, 3)), "shape"),
            (np.random.default_rng(0).random((2, 3, 4)), r"layer to layer \(W\+\)"),
            (np.full((2, 3), np.nan), "not finite"),
            (np.array([["a", "b"]]), "plain numbers, but of <U1"),
        ],
    )
    def test_wrong_latents(self, tmp_path, array, message):
        np.save(tmp_path / "w.npy", array)
        with pytest.raises(DataError, match=message):
            read_latents(tmp_path / "w.npy")

    @pytest.mark.parametrize("rows", [10**4, 10**12, 10**30])
    def test_size_that_is_only_claimed(self, tmp_path, rows):
        header = f"{{'descr': '<f8', 'fortran_order': False, 'shape': ({rows}, 5)}}".ljust(117).encode() + b"\n"
        (tmp_path / "w.npy").write_bytes(b"\x93NUMPY\x01\x00" + len(header).to_bytes(2, "little") + header + bytes(40))
        with pytest.raises(DataError, match="cannot read"):
            read_latents(tmp_path / "w.npy")

    def test_no_pickle_is_read(self, tmp_path):
        np.save(tmp_path / "w.npy", np.array([[None, 1]], dtype=object), allow_pickle=True)
        with pytest.raises(DataError, match="cannot read"):
            read_latents(tmp_path / "w.npy")


class TestParquet:
    def test_with_pyarrow(self, tmp_path):
        pyarrow = pytest.importorskip("pyarrow")
        parquet = importlib.import_module("pyarrow.parquet")
        table = {"index": [2, 0], "smile": [True, None], "age": [0.5, 1.5], "hair": ["a", "b"]}
        parquet.write_table(pyarrow.table(table), tmp_path / "a.parquet")
        found = read_label_table(tmp_path / "a.parquet")
        assert found.columns == {name: cells for name, cells in table.items() if name != "index"}
        assert found.index.tolist() == [2, 0]
        (tmp_path / "b.parquet").write_bytes(b"no")
        with pytest.raises(DataError, match=r"cannot read .*b\.parquet"):
            read_label_table(tmp_path / "b.parquet")

    def test_with_another_reader(self, tmp_path, monkeypatch):
        def load(name):
            if name != "polars":
                raise ImportError
            columns = {"index": [4, 2], "smile": [1, 0]}
            frame = SimpleNamespace(to_dict=lambda as_series: columns, estimated_size=lambda: 32, item=lambda: rows)
            lazy = SimpleNamespace(collect=lambda: frame, collect_schema=lambda: columns, select=lambda _: lazy)
            return SimpleNamespace(scan_parquet=lambda path: lazy, len=lambda: "len")

        monkeypatch.setattr("energyql.training.tables.importlib.import_module", load)
        path, rows = written(tmp_path / "a.parquet", "no"), 2
        assert read_label_table(path).columns == {"smile": [1, 0]}
        rows = 1 << 30
        with pytest.raises(DataError, match="more than 8,388,608 cells"):
            read_label_table(path)

    def test_with_none(self, tmp_path, monkeypatch):
        def load(name):
            raise ImportError

        monkeypatch.setattr("energyql.training.tables.importlib.import_module", load)
        with pytest.raises(DataError, match="no library that reads it is installed\npip install pyarrow"):
            read_label_table(written(tmp_path / "a.parquet", "no"))
