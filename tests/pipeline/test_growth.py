"""Large tables and vocabularies take time in proportion to their size, also where they are refused."""

from pathlib import Path

import pytest
from growth import growth

from energyql.errors import DataError, EnergyQLError, VocabularyError
from energyql.pipeline.score import rank_table, read_predictions, read_table
from energyql.training.labels import read_label_table
from energyql.training.tables import read_columns
from energyql.vocabulary import AttributeSpec, Vocabulary, repeated

LINEAR = 9
"""Above it, work that is four times as much is not linear: linear work gives 4, quadratic work 16."""


def refused(call, kind=EnergyQLError):
    def run(given):
        with pytest.raises(kind):
            call(given)

    return run


def test_the_measure_knows_quadratic_work():
    names = lambda count: [str(i) for i in range(count)]  # noqa: E731
    assert growth(names, lambda given: [given.count(name) for name in given], 300) > LINEAR
    assert growth(names, repeated, 5_000) < LINEAR


def test_rows_of_labels(tmp_path):
    def table(count):
        path = tmp_path / f"{count}.csv"
        path.write_text("index,smile\n" + "".join(f"{i},1\n" for i in range(count)) + f"{count - 1},0\n")
        return path

    assert growth(table, refused(read_label_table, DataError), 5_000) < LINEAR


@pytest.mark.parametrize("read", [read_table, read_columns])
def test_columns_of_a_table(tmp_path, read):
    def table(count):
        path = tmp_path / f"{count}.csv"
        names = ",".join([f"c{i}" for i in range(count)] + [f"c{count - 1}"])
        path.write_text(f"{names}\n{','.join(['0'] * (count + 1))}\n")
        return path

    assert growth(table, refused(read, DataError), 5_000) < LINEAR


def test_values_of_an_attribute():
    def values(count):
        return [*(f"v{i}" for i in range(count)), f"v{count - 1}"]

    spec = refused(lambda given: AttributeSpec("a", "categorical", values=tuple(given)), VocabularyError)
    assert growth(values, spec, 3_000) < LINEAR
    assert (
        growth(lambda n: values(n)[:-1], lambda given: AttributeSpec("a", "categorical", tuple(given)), 3_000) < LINEAR
    )


def test_attributes_of_a_vocabulary():
    def specs(count):
        return [AttributeSpec(f"a{i}", "yes/no") for i in range(count)]

    assert growth(specs, Vocabulary, 5_000) < LINEAR


@pytest.mark.parametrize("header", [lambda n: "a" + " " * n, lambda n: "a" + " =" * n, lambda n: "a." * n + "b"])
def test_a_long_header(header):
    def read(given):
        read_predictions({given: ["0.5"]}, {"smile"}, "table.csv", [2])

    assert growth(header, lambda given: [read(given) for _ in range(20)], 5_000) < LINEAR


@pytest.mark.parametrize(
    ("header", "name", "value"),
    [
        ("hair=black", "hair", "black"),
        ("hair = dark red", "hair", "dark red"),
        ("a=b=c", "a", "b=c"),
        ("=a=b", "=a", "b"),
    ],
)
def test_headers_of_classes(header, name, value):
    assert read_predictions({header: ["0.25"]}, {name}, "t", [2]) == {name: {value: [0.25]}}


@pytest.mark.parametrize("header", ["hair=", "=", "hair", "= black", ""])
def test_headers_without_a_class(header):
    assert read_predictions({header: ["0.25"]}, {"black"}, "t", [2]) == {}


class TestTablesWithoutEnd:
    @pytest.mark.skipif(not Path("/dev/zero").exists(), reason="there is no device without end")
    @pytest.mark.parametrize("read", [lambda path: rank_table("smile", path), read_columns])
    def test_a_device(self, read):
        with pytest.raises(DataError, match="cannot read /dev/zero: it is no regular file"):
            read(Path("/dev/zero"))

    def test_standard_input(self, monkeypatch):
        class Endless:
            def read(self, count):
                return "0.5\n" * (count // 4 + 1)

        monkeypatch.setattr("energyql.pipeline.score.MOST_CHARACTERS", 1 << 20)
        with pytest.raises(DataError, match="standard input is longer than 1 Mi characters"):
            read_table(Endless())
