import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from toys import VOCABULARY

from energyql import E
from energyql.errors import ArgumentError, Contradiction, DataError, KindError
from energyql.pipeline.queries import MOST_BYTES, ListedQuery, check, check_all, list_queries, read_queries
from energyql.pipeline.queries import split_line as split


@pytest.mark.parametrize(
    ("line", "title", "query"),
    [
        ("smile AND hair = black", "", "smile AND hair = black"),
        ("Elder: beard", "Elder", "beard"),
        (" : beard", "", "beard"),
        ("  5 o'clock shadow :  beard  # why not", "5 o'clock shadow", "beard"),
        ("12:30: beard", "12", "30: beard"),
        ('"a:b" AND c', "", '"a:b" AND c'),
        (r'"a\":b" AND c', "", r'"a\":b" AND c'),
        ('The "old" one: beard', 'The "old" one', "beard"),
        ('"a # b" OR c # d: e', "", '"a # b" OR c'),
        ("# nothing: here", "", ""),
        ("title:", "title", ""),
        ('"12:30 # noon": smile', "12:30 # noon", "smile"),
        ("", "", ""),
        (": smile", "", "smile"),
        ('"open: smile', "", '"open: smile'),
    ],
)
def test_a_line(line, title, query):
    assert split(line) == (title, query)


@settings(deadline=None)
@given(st.text())
def test_any_line(line):
    title, query = split(line)
    assert title in line
    assert query in line


def write(path, text, encoding="utf-8"):
    path.write_bytes(text.encode(encoding))
    return path


class TestReading:
    def test_a_file(self, tmp_path):
        text = "# faces\n\nsmile\r\nElder: beard # gray\n  größe: smile OR beard\n"
        assert read_queries(write(tmp_path / "q.txt", text, "utf-8-sig")) == [
            ListedQuery("smile", "", "line 3"),
            ListedQuery("beard", "Elder", "line 4"),
            ListedQuery("smile OR beard", "größe", "line 5"),
        ]

    @pytest.mark.parametrize("text", ["", "\n\n", "# only a comment\n"])
    def test_no_query(self, tmp_path, text):
        with pytest.raises(DataError, match=r"holds no query\nwrite one a line"):
            read_queries(write(tmp_path / "q.txt", text))

    def test_files_that_cannot_be_read(self, tmp_path):
        with pytest.raises(DataError, match=r"none\.txt is missing\nit was looked for in"):
            read_queries(tmp_path / "none.txt")
        with pytest.raises(DataError, match=r"cannot read .*: it is a folder"):
            read_queries(tmp_path)
        with pytest.raises(DataError, match="is not text in UTF-8"):
            read_queries(write(tmp_path / "q.txt", "größe", "latin-1"))
        with pytest.raises(DataError, match="is larger than 1 MiB"):
            read_queries(write(tmp_path / "q.txt", "#" * (MOST_BYTES + 1)))


class TestChecking:
    def test_all_mistakes_at_once(self):
        entries = [
            ListedQuery("smile", "", "line 1"),
            ListedQuery("smile AND", "Half", "line 2"),
            ListedQuery("smile AND (glases OR beerd)", "", "line 5"),
            ListedQuery("smile AND NOT smile", "", "line 6"),
            ListedQuery("", "Nothing", "line 7"),
        ]
        with pytest.raises(DataError) as caught:
            check_all(entries, VOCABULARY, "exact", source="q.txt")
        blocks = str(caught.value).split("\n\n")
        assert blocks[0] == "q.txt: 4 queries are wrong"
        assert blocks[1].splitlines() == [
            "line 2 (Half): QuerySyntaxError: an operand is missing after AND",
            "  smile AND",
            "           ^",
        ]
        assert blocks[2].splitlines()[2] == "             ^^^^^^    ^^^^^"
        assert blocks[3].startswith("line 6: Contradiction")
        assert blocks[4].startswith("line 7 (Nothing): QuerySyntaxError")
        assert len(blocks) == 5

    def test_one_mistake(self):
        with pytest.raises(DataError, match=r"the list: one query is wrong\n\nquery 2: KindError"):
            check_all(list_queries(["beard", "hair = green"]), VOCABULARY, "exact")

    def test_the_mistake_of_the_only_query_is_the_error(self):
        with pytest.raises(KindError, match="green"):
            check_all(list_queries("hair = green"), VOCABULARY, "exact")
        with pytest.raises(DataError, match="q.txt: one query is wrong"):
            check_all(list_queries("hair = green"), VOCABULARY, "exact", source="q.txt")

    def test_what_is_checked(self):
        checked = check(ListedQuery("beard and  age = 0.5", "T"), VOCABULARY, "product")
        assert str(checked.expr) == "beard AND age = 0.5"
        assert str(checked.bound) == "beard AND age = 0.5 +- 0.05"
        assert checked.rule.attributes == ("age", "beard")
        with pytest.raises(Contradiction):
            check(ListedQuery("beard AND NOT beard"), VOCABULARY, "product")

    @pytest.mark.parametrize(
        ("given", "expected"),
        [
            ("smile", [("", "smile")]),
            (E.smile, [("", E.smile)]),
            (["smile", E.beard], [("", "smile"), ("", E.beard)]),
            ([("A", "smile")], [("A", "smile")]),
            ({"A": "smile", "B": "beard"}, [("A", "smile"), ("B", "beard")]),
            ([ListedQuery("smile", "A", "line 9")], [("A", "smile")]),
        ],
    )
    def test_forms_of_lists(self, given, expected):
        assert [(entry.title, entry.query) for entry in list_queries(given)] == expected

    def test_what_is_no_query(self):
        with pytest.raises(ArgumentError, match="a query is a string or an expression, not 3"):
            check_all(list_queries([3]), VOCABULARY, "exact")
        with pytest.raises(ArgumentError, match="no semantics is called 'odd'"):
            check(ListedQuery("smile"), VOCABULARY, "odd")


@pytest.mark.parametrize(
    ("query", "expected"),
    [
        ("smile AND NOT (glasses OR beard)", [True, False]),
        ("NOT beard AND NOT glasses AND smile", [True, False]),
        ("beard", [False, True]),
        ("NOT NOT beard", [False, True]),
        ("glasses", [False, False]),
    ],
)
def test_repetitions(query, expected):
    earlier = [check(ListedQuery(text), VOCABULARY, "exact") for text in ("smile AND NOT (glasses OR beard)", "beard")]
    new = check(ListedQuery(query), VOCABULARY, "exact")
    assert [one.means_the_same(new) for one in earlier] == expected


def test_repetitions_without_circuits():
    first, second = (check(ListedQuery(text), VOCABULARY, "lace") for text in ("smile", "NOT NOT smile"))
    assert first.means_the_same(first)
    assert not second.means_the_same(first)
