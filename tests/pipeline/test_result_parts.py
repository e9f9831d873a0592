"""Results as containers and as tables: parts, joins, and frames of pandas."""

import ast
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from made_results import make

import energyql
from energyql import edit, generate, until_satisfied
from energyql.errors import ArgumentError, DataError
from energyql.pipeline.columns import concatenate, take_rows
from energyql.pipeline.provenance import ENTRIES
from energyql.pipeline.result import Result
from energyql.pipeline.settings import SETTINGS, RecordedSettings, settings_of
from energyql.sampling import Status


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
            (3, "3 is no index of a result of 3 samples: index 3 is out of bounds"),
            (-4, "-4 is no index of a result of 3 samples"),
            ([0, 7], "index 7 is out of bounds"),
            ([True, False], "size of axis is 3 but size of corresponding boolean axis is 2"),
            (True, "True is no index of a result of 3 samples: it is no slice, whole number, mask"),
            (1.0, "1.0 is no index"),
            ([0.5], "is no index"),
            ("smile", "'smile' is no index"),
            (None, "None is no index"),
            ([[0], [1, 2]], "is no index"),
            ([[0, 1]], "is no index"),
            (slice(None, None, 0), "slice step cannot be zero"),
            (slice("a"), "slice indices must be integers"),
        ],
    )
    def test_wrong_keys(self, key, message):
        with pytest.raises(ArgumentError, match=message):
            make()[key]
        with pytest.raises(ArgumentError, match="0 is no index of a result of 0 samples"):
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

    def test_from_a_generator(self):
        whole = make()
        assert torch.equal(Result.join(one for one in whole).z, whole.z)

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

    @pytest.mark.parametrize(
        "facts", [{"z_shape": [[9, 9, 9]]}, {"z_shape": "a"}, {"generator": {"dtype": "load"}}, {"generator": 3}]
    )
    def test_noise_of_a_changed_result_is_refused(self, facts):
        result = make()
        shape = {"z_shape": [[1, result.w.shape[1]]]}
        assert make(provenance=result.provenance | shape).noise.shape == (3, 1, result.w.shape[1])
        with pytest.raises(DataError, match="the result records noise of"):
            _ = make(provenance=result.provenance | shape | facts).noise

    def test_fields_that_are_none(self):
        assert take_rows(None, np.arange(2)) is None
        assert concatenate([None, None]) is None
        assert concatenate([{"a": None}, {"a": None}]) == {"a": None}

    def test_nothing_to_save(self, tmp_path):
        with pytest.raises(ArgumentError, match="there is no picture to save: 0 of 0 satisfy.*\nchoose at least one"):
            make()[[]].save(tmp_path / "faces.png")
        assert not list(tmp_path.iterdir())

    def test_no_samples_in_a_notebook(self):
        empty = make()[[]]
        assert empty._repr_png_() is None
        assert "0 of 0 satisfy" in empty._repr_html_()
        assert "<img" not in empty._repr_html_()


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


def test_every_entry_of_provenance_is_in_the_table(tiny):
    """Its keys, writers and rules of joining stand in one module."""
    runs = [
        generate("smile", 2, model=tiny, progress=False),
        generate("smile", 2, model=tiny, verify="off", noise="random", semantics="lace", progress=False),
        until_satisfied("smile", 2, model=tiny, budget=9, progress=False),
    ]
    runs.append(edit(runs[0], ["glasses"], model=tiny, progress=False).final)
    for result in runs:
        assert result.provenance.keys() <= ENTRIES.keys()
    for name, entry in ENTRIES.items():
        source = (Path(energyql.__file__).parent / f"{entry.writer.replace('.', '/')}.py").read_text(encoding="utf-8")
        written = (f'"{name}"', f"{name}=", name.upper())
        assert name in SETTINGS or any(each in source for each in written), name


def written(tree):
    """Keys that a module writes into provenance: by `| {...}`, in `facts: Provenance = {...}`, by `facts["key"] =`."""
    typed = {
        node.target.id
        for node in ast.walk(tree)
        if isinstance(node, ast.AnnAssign) and isinstance(node.target, ast.Name) and holds(node.annotation)
    }

    def is_record(node):
        return holds(node) or (isinstance(node, ast.Name) and node.id in typed)

    for node in ast.walk(tree):
        match node:
            case ast.BinOp(left=left, op=ast.BitOr(), right=ast.Dict() as right) if is_record(left):
                yield from keys(right)
            case ast.AnnAssign(target=ast.Name(id=name), value=value) if name in typed:
                parts = [value.body, value.orelse] if isinstance(value, ast.IfExp) else [value]
                yield from (key for part in parts for key in keys(part))
            case ast.Assign(targets=[ast.Subscript(value=value, slice=ast.Constant(value=key))]) if is_record(value):
                yield key


def holds(node):
    name = node.attr if isinstance(node, ast.Attribute) else getattr(node, "id", "")
    return name in ("provenance", "Provenance")


def keys(node):
    return [key.value for key in getattr(node, "keys", []) if isinstance(key, ast.Constant)]


OTHER_WRITERS = {
    ("studio.downloads", "index"),  # of all pictures, in a list that the studio sends beside the provenance
    ("pipeline.result_folder", "condition"),  # the tuple of before it was saved, again
}


def test_no_entry_of_provenance_has_two_writers():
    package, found = Path(energyql.__file__).parent, set()
    for path in package.rglob("*.py"):
        module = ".".join(path.relative_to(package).with_suffix("").parts)
        for name in written(ast.parse(path.read_text(encoding="utf-8"))):
            found.add(name)
            if (module, name) not in OTHER_WRITERS:
                assert ENTRIES[name].writer == module, (name, module)
    assert found >= ENTRIES.keys() - SETTINGS.keys() - {"index"}


def test_the_types_of_recorded_settings_are_those_of_the_settings():
    assert tuple(RecordedSettings.__annotations__) == settings_of("provenance")


def test_the_reference_lists_the_entries_of_provenance():
    page = (Path(__file__).parents[2] / "docs/api/calls.md").read_text(encoding="utf-8")
    for name, entry in ENTRIES.items():
        assert f"| `{name}` | {entry.meaning} | `{entry.writer}` |" in page
