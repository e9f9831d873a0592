import csv
import io
import math

import pytest

from energyql.errors import DataError, UnknownAttribute
from energyql.pipeline.score import rank_table, score

TABLE = """\
file,smile,hair=black,hair = dark red,age,age_std,note
a.png,0.9,0.2,0.8,0.5,0.1,"first, best"
b.png,0.1,0.7,0.3,0.9,0.1,
c.png,0.5,0.5,0.5,0.1,0.2,größe
"""


def write(tmp_path, text, encoding="utf-8"):
    path = tmp_path / "table.csv"
    path.write_bytes(text.encode(encoding))
    return path


def rank(path, query, **settings):
    return list(csv.DictReader(io.StringIO(rank_table(query, path, **settings).to_csv())))


class TestRanking:
    def test_best_first_with_everything_kept(self, tmp_path):
        rows = rank(write(tmp_path, TABLE), "smile")
        assert list(rows[0]) == ["rank", "energy", "probability", *TABLE.splitlines()[0].split(",")]
        assert [(row["rank"], row["file"]) for row in rows] == [("1", "a.png"), ("2", "c.png"), ("3", "b.png")]
        assert float(rows[0]["energy"]) == pytest.approx(-math.log(0.9), rel=1e-5)
        assert float(rows[0]["probability"]) == pytest.approx(0.9)
        assert rows[0]["note"] == "first, best"
        assert rows[1]["note"] == "größe"

    def test_every_kind(self, tmp_path):
        rows = rank(write(tmp_path, TABLE), 'smile AND hair = "dark red" AND age > 0.5')
        expected = score(
            'smile AND hair = "dark red" AND age > 0.5',
            {
                "smile": [0.9, 0.1, 0.5],
                "hair": {"black": [0.2, 0.7, 0.5], "dark red": [0.8, 0.3, 0.5]},
                "age": ([0.5, 0.9, 0.1], [0.1, 0.1, 0.2]),
            },
        )
        found = {row["file"]: float(row["energy"]) for row in rows}
        assert [found[name] for name in ("a.png", "b.png", "c.png")] == pytest.approx(expected.tolist(), rel=1e-5)

    def test_top(self, tmp_path):
        assert [row["file"] for row in rank(write(tmp_path, TABLE), "NOT smile", top=2)] == ["b.png", "c.png"]
        assert len(rank(write(tmp_path, TABLE), "smile", top=99)) == 3

    def test_ties_keep_their_order(self, tmp_path):
        rows = rank(write(tmp_path, "file,smile\na,0.5\nb,0.7\nc,0.5\nd,0.7\n"), "smile")
        assert "".join(row["file"] for row in rows) == "bdac"

    def test_other_semantics_are_no_probabilities(self, tmp_path):
        rows = rank(write(tmp_path, TABLE), "smile OR smile", semantics="product")
        assert list(rows[0])[:3] == ["rank", "energy", "file"]
        assert float(rows[0]["energy"]) == pytest.approx(-math.log(1.8), rel=1e-5)

    def test_certain_and_impossible(self, tmp_path):
        rows = rank(write(tmp_path, "smile\n0\n1\n"), "smile")
        assert [(row["energy"], row["probability"]) for row in rows] == [("0", "1"), ("inf", "0")]

    def test_a_byte_order_mark_and_windows_lines(self, tmp_path):
        text = "smile,file\r\n0.5,a\r\n"
        assert rank(write(tmp_path, text, "utf-8-sig"), "smile")[0]["smile"] == "0.5"

    @pytest.mark.parametrize("header", ["age.mean,age.std", "age,age.std", "age_mean,age_std", "age,age_std"])
    def test_spellings_of_moments(self, tmp_path, header):
        rows = rank(write(tmp_path, f"{header}\n0.5,0.1\n"), "age > 0.5")
        assert float(rows[0]["probability"]) == pytest.approx(0.5)

    def test_a_name_that_looks_like_a_moment_or_class(self, tmp_path):
        path = write(tmp_path, "skin_mean,a=b\n0.25,0.5\n")
        assert float(rank(path, "skin_mean")[0]["probability"]) == pytest.approx(0.25)
        assert float(rank(path, '"a=b"')[0]["probability"]) == pytest.approx(0.5)

    def test_columns_that_are_not_asked_for_may_hold_anything(self, tmp_path):
        assert len(rank(write(tmp_path, "smile,hat,hair=red\n0.5,yes,2\n"), "smile")) == 1

    def test_a_query_without_attributes(self, tmp_path):
        with pytest.warns(UserWarning, match="true of every sample|always|every"):
            assert len(rank(write(tmp_path, TABLE), "TRUE")) == 3


class TestDelimiters:
    """Spreadsheets of many countries write semicolons, and commas for decimal points."""

    @pytest.mark.parametrize(
        "text",
        [
            "file;smile\nann.jpg;0,9\nben.jpg;0,2\n",
            "file\tsmile\nann.jpg\t0,9\nben.jpg\t0.2\n",
            'file,smile\nann.jpg,"0.9"\nben.jpg,0.2\n',
        ],
    )
    def test_the_same_table(self, tmp_path, text):
        ranking = rank_table("NOT smile", write(tmp_path, text))
        assert ranking.header[3:] == ["file", "smile"]
        assert [row[3:] for row in ranking.rows] == [["ben.jpg", "0.2"], ["ann.jpg", "0.9"]]

    def test_other_cells_stay(self, tmp_path):
        text = 'note;smile\n"a, b";0,9\n1,5 or 2;0,2\n'
        rows = rank_table("smile", write(tmp_path, text)).rows
        assert [row[3:] for row in rows] == [["a, b", "0.9"], ["1,5 or 2", "0.2"]]
        quoted = '"a;b",smile\n"x;y;z",0.5\n'
        assert rank_table("smile", write(tmp_path, quoted)).rows[0][3:] == ["x;y;z", "0.5"]


class TestErrors:
    @pytest.mark.parametrize(
        ("text", "message"),
        [
            ("", "is empty"),
            ("smile\n", "has no rows"),
            ("\n\n", "is empty"),
            ("smile,smile\n0.5,0.5\n", "column 'smile' appears twice"),
            ("smile,file\n0.5\n", "line 2: 1 cells where the first line has 2"),
            ("smile\n0.5\n\nyes\n", "line 4, column 'smile': 'yes' is not a number"),
            ('note,smile\n"two\nlines",0.5\nx,\n', "line 4, column 'smile': '' is not a number"),
            ("smile\n0.5\n1.5\n", "smile is 1.5 in .*table.csv, line 3; it must be a probability from 0 to 1"),
            ("smile\n-0.1\n", "smile is -0.1 in .*table.csv, line 2; it must be a probability"),
            ("smile\nnan\n", "smile is nan in .*table.csv, line 2; it must be a finite number"),
            ('smile\n"0.5\n', "cannot read"),
            ("rank,smile\n1,0.5\n", "has a column 'rank' already\nrename it"),
            ("smile,smile=x,smile=y\n1,0.5,0.5\n", "columns 'smile' and 'smile=x' both predict 'smile'"),
        ],
    )
    def test_tables(self, tmp_path, text, message):
        with pytest.raises(DataError, match=message) as caught:
            rank_table("smile", write(tmp_path, text))
        assert "table.csv" in str(caught.value)

    def test_files(self, tmp_path):
        with pytest.raises(DataError, match=r"none\.csv is missing\nit was looked for in"):
            rank_table("smile", tmp_path / "none.csv")
        with pytest.raises(DataError, match="cannot read"):
            rank_table("smile", tmp_path)
        with pytest.raises(DataError, match="cannot read"):
            rank_table("smile", write(tmp_path, "größe\n0.5\n", "latin-1"))

    def test_missing_columns_are_underlined(self, tmp_path):
        path = write(tmp_path, TABLE)
        with pytest.raises(UnknownAttribute) as caught:
            rank_table("smile AND hairs = black AND hat", path)
        assert str(caught.value).splitlines() == [
            f"{path} has no column for 'hairs'",
            "  smile AND hairs = black AND hat",
            "            ^^^^^^^^^^^^^     ^^^",
            "did you mean hair?",
        ]
        assert caught.value.names == ("hairs", "hat")

    def test_without_a_likely_column_all_are_listed(self, tmp_path):
        with pytest.raises(UnknownAttribute, match="columns: file, smile, hair=black"):
            rank_table("xyzzy", write(tmp_path, TABLE))

    def test_a_mean_alone(self, tmp_path):
        path = write(tmp_path, "age\n0.5\n")
        for query in ("age > 0.5", "age = 0.5"):
            with pytest.raises(DataError, match=r"'age' has no std\nadd a column age\.std"):
                rank_table(query, path)
        with pytest.raises(DataError, match=r"'age' has no mean\nadd a column age\.mean"):
            rank_table("age > 0.5", write(tmp_path, "age_std\n0.5\n"))

    def test_a_standard_deviation_of_zero(self, tmp_path):
        with pytest.raises(DataError, match="std of age is 0 in .*table.csv, line 2; it must be above 0"):
            rank_table("age > 0.5", write(tmp_path, "age,age_std\n0.5,0\n"))

    def test_classes_must_add_up(self, tmp_path):
        with pytest.raises(DataError, match="sum of the probabilities of hair"):
            rank_table("hair = red", write(tmp_path, "hair=red,hair=gray\n0.5,0.6\n"))
