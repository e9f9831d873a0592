"""Errors about long names, long lists and many mistakes are short, and still name the place and what to do."""

import warnings

import pytest
from evaluation.lively import known_model

import energyql
from energyql.editing.settings import choose_preset
from energyql.errors import ArgumentError, DataError, EnergyQLError, LabelWarning, abridge, draw, listed
from energyql.language import as_query, bind
from energyql.pipeline.queries import check_all, read_queries
from energyql.pipeline.score import rank_table
from energyql.training.labels import read_label_table
from energyql.vocabulary import AttributeSpec, Vocabulary

MOST = 3000
LONG, MANY = "x" * 5000, [f"column{number}" for number in range(5000)]
CLASS = '[[class]]\nname = "{}"\nquery = "{}"\ncount = {}\n'
BIG = Vocabulary([AttributeSpec("hair", "categorical", tuple(MANY)), *(AttributeSpec(f"{n}?", "yes/no") for n in MANY)])
ZEROS = ",".join("0" for _ in MANY)


def asked(query, **settings):
    return lambda path: energyql.generate(query, 1, model=known_model(), progress=False, **settings)


def bound(query):
    def call(path):
        expr, text = as_query(query)
        bind(expr, BIG, query=text)

    return call


def plan(text):
    return lambda path: energyql.write_dataset(written(path, text), path.parent / "out", progress=False)


def written(path, text):
    path.write_text(text, encoding="utf-8")
    return path


def table(text, read):
    return lambda path: read(written(path.with_suffix(".csv"), text))


def queries(text):
    return lambda path: check_all(read_queries(written(path, text)), known_model().vocabulary, "exact", source="q.txt")


CASES = {
    "a long name": asked(LONG),
    "names": asked(" AND ".join(MANY[:500])),
    "control characters": asked("a AND " + "\x01" * 3000),
    "lines of control characters": asked("a AND\n" * 9 + "\n".join(["\u200b" * 300] * 9)),
    "lines": asked("\n".join(f"{'y' * 300} AND" for _ in range(200)) + " a"),
    "parentheses": asked("(" * 5000),
    "a sampler": asked("a", sampler=LONG),
    "a seed": asked("a", seed=LONG),
    "a condition": asked("a", condition=list(range(9000))),
    "a weak name": asked("a", allow_weak=[LONG]),
    "an attribute": bound("nothing"),
    "a value": bound("hair = nothing"),
    "values": bound("hair IN {" + ", ".join(f"nothing{number}" for number in range(20)) + "}"),
    "a model": lambda path: energyql.generate("a", 1, model=LONG, progress=False),
    "a device": lambda path: energyql.load_model("avatars", LONG),
    "code": lambda path: energyql.load_model("avatars", judge=f"code:{LONG}"),
    "a path": lambda path: energyql.Result.load(LONG),
    "a deep path": lambda path: energyql.load_generator("a/" * 2000 + "x.pt"),
    "a picture": lambda path: energyql.edit(LONG, "a", model=known_model()),
    "a preset": lambda path: choose_preset(LONG, None, "exact"),
    "columns": table(f"{','.join(MANY)}\n{ZEROS}\n", lambda path: rank_table("smile", path)),
    "a column": table(f"{LONG},{LONG}\n1,1\n", lambda path: rank_table("smile", path)),
    "a cell": table(f"smile\n{LONG}\n", lambda path: rank_table("smile", path)),
    "labels": table(f"{','.join(MANY)}\n{ZEROS}\n{LONG}\n", read_label_table),
    "a list of queries": queries("\n".join(f"nothing{number} AND {LONG[:200]}" for number in range(1500))),
    "a title": queries(f"{LONG}: nothing"),
    "mistakes": plan("".join(CLASS.format(f"c{number}", "a", 0) for number in range(500))),
    "keys": plan("".join(f"k{number} = 1\n" for number in range(900)) + CLASS.format("a", "a", 1)),
    "a key": plan(f"{LONG} = 1\n" + CLASS.format("a", "a", 1)),
    "a query of a plan": plan(CLASS.format("a", LONG, 1)),
    "a name twice": plan(2 * CLASS.format(LONG, "a", 1)),
    "no TOML": plan(LONG),
    "fields": lambda path: AttributeSpec.from_dict({"name": "a", "kind": "yes/no", **dict.fromkeys(MANY, 1)}),
    "a kind": lambda path: AttributeSpec("a", LONG),
}


@pytest.mark.parametrize("case", CASES)
def test_no_error_is_long(tmp_path, case):
    with pytest.raises(EnergyQLError) as caught:
        CASES[case](tmp_path / "file")
    assert len(caught.value.render()) <= MOST


def test_the_first_mistakes_and_the_number_of_the_others_are_shown(tmp_path):
    with pytest.raises(DataError) as caught:
        CASES["mistakes"](tmp_path / "file")
    text = str(caught.value)
    assert "file has 500 mistakes, and nothing was written" in text
    assert f"and {500 - text.count('count must be')} more" in text
    assert text.count("count must be") > 5
    assert "line 4: ArgumentError" in text


def test_texts_lose_their_middle():
    assert abridge("a" * 30, 30) == "a" * 30
    assert abridge("a" * 100 + "b" * 100, 30) == "a" * 15 + " ... " + "b" * 10
    error = ArgumentError("first " + LONG + " last", hint=LONG)
    error.hint += LONG
    assert error.message.startswith("first x")
    assert error.message.endswith("x last")
    assert len(str(error)) < MOST


def test_one_long_mistake_is_shown():
    assert listed("two", [LONG, "b"]) == f"two\n\n{LONG}\n\nand 1 more"
    assert listed("two", ["a", "b"]) == "two\n\na\n\nb"


@pytest.mark.parametrize("place", [0, 57, 400, 2999])
def test_a_drawing_of_escapes_shows_the_place(place):
    query = "\x01" * place + "Y" + "\x01" * (2999 - place)
    text, carets = draw(query, [(place, place + 1)]).split("\n")
    assert text[carets.index("^")] == "Y"
    assert len(text) < 220


def test_no_warning_is_long(capsys):
    from energyql.cli.failures import show_warning

    with warnings.catch_warnings():
        show_warning(LabelWarning(LONG * 3), LabelWarning, "file", 1)
    assert len(capsys.readouterr().err) < MOST
