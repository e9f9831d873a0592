"""Plans: what belongs to which shard, and that mistakes are refused with their place before anything is written."""

import random

import pytest
from growth import growth

from dataset.plans import TOML, known_plan, write
from energyql import DatasetClass, DatasetPlan, E
from energyql.dataset.plan import _locate, read_plan, tomllib
from energyql.dataset.shard import Estimate
from energyql.errors import ArgumentError, ConstantPartWarning, DataError


class TestShares:
    @pytest.mark.parametrize("counts", [(1,), (7, 1), (100, 3, 50), (1000, 999)])
    @pytest.mark.parametrize("size", [1, 7, 64])
    def test_shards_divide_each_class_evenly(self, counts, size):
        classes = [DatasetClass(name=f"class {k}", query="a", count=count) for k, count in enumerate(counts)]
        plan = DatasetPlan(classes=classes, shard_size=size, only_satisfied=True, budget=3)
        assert plan.shards == -(-sum(counts) // size)
        for one in plan.classes:
            parts = [plan.positions(one, shard) for shard in range(plan.shards)]
            assert [position for part in parts for position in part] == list(range(one.count))
            assert max(map(len, parts)) - min(map(len, parts)) <= 1
            tried = [number for shard in range(plan.shards) for number in plan.candidates(one, shard)]
            assert tried == list(range(3 * one.count))

    def test_classes_have_seeds_of_their_own(self):
        plan = known_plan()
        seeds = [plan.seed_of(one) for one in plan.classes]
        assert len({*seeds, *[known_plan(seed=6).seed_of(one) for one in plan.classes]}) == 4
        assert max(seeds) < 2**48  # a float of JavaScript holds it
        assert plan.seed_of(DatasetClass(name="b", query="c", count=1)) == seeds[0]  # name and seed alone decide
        assert plan.seed_of(DatasetClass(name="b", query="c", count=1, seed=2**64 - 1)) == 2**64 - 1


class TestObjects:
    @pytest.mark.parametrize(
        ("wrong", "message"),
        [
            ({"name": ""}, "must not be empty"),
            ({"name": "a\nb"}, "control character"),
            ({"count": 0}, "count must be a whole number"),
            ({"count": 1.5}, "count must be a whole number"),
            ({"seed": -1}, "seed must be a whole number"),
            ({"settings": {"seed": 3}}, "there is no setting of a class 'seed'"),
            ({"settings": {"precison": "float32"}}, "did you mean precision?"),
            ({"settings": {"precision": "float8"}}, "there is no precision 'float8'"),
            ({"settings": {"strength": "much"}}, "strength must be a finite number"),
        ],
    )
    def test_a_wrong_class(self, wrong, message):
        with pytest.raises(ArgumentError, match=".") as caught:
            DatasetClass(**({"name": "a", "query": "a", "count": 3} | wrong))
        assert message in str(caught.value)

    @pytest.mark.parametrize(
        ("wrong", "message"),
        [
            ({"classes": []}, "at least one"),
            ({"classes": 2 * [DatasetClass(name="a", query=E.a, count=1)]}, "two classes have the name 'a'"),
            ({"format": "gif"}, "there is no format 'gif'"),
            ({"quality": 101}, "quality must be"),
            ({"shard_size": 0}, "shard_size must be"),
            ({"budget": 0}, "budget must be"),
            ({"only_satisfied": "yes"}, "only_satisfied must be true or false"),
        ],
    )
    def test_a_wrong_plan(self, wrong, message):
        with pytest.raises(ArgumentError) as caught:
            known_plan(**wrong)
        assert message in str(caught.value)

    def test_mistakes_of_an_object_are_named_by_class(self, tmp_path):
        model = known_plan().classes[0].model
        classes = [
            DatasetClass(name="one", query="a AND d", count=1, model=model),
            DatasetClass(name="two", query="a", count=1, model=model, settings={"truncation": 2.0}),
        ]
        with pytest.raises(DataError) as caught:
            write(DatasetPlan(classes=classes), tmp_path / "out")
        assert str(caught.value).splitlines() == [
            "the plan has 2 mistakes, and nothing was written",
            "",
            "class 1, query: UnknownAttribute: 'd' is not an attribute of this model",
            "  a AND d",
            "        ^",
            "attributes: a, b, c, n",
            "",
            "class 2, truncation: ArgumentError: the attributes of model 'known' do not hold at truncation 2",
            "they were fitted at truncation 1",
        ]
        assert not (tmp_path / "out").exists()

    def test_a_class_of_whose_query_a_part_is_never_true(self, tmp_path):
        model = known_plan().classes[0].model
        queries = {"odd": "a OR b AND NOT b", "plain": "b"}
        classes = [DatasetClass(name=name, query=query, count=1, model=model) for name, query in queries.items()]
        with pytest.warns(ConstantPartWarning) as warned:
            write(DatasetPlan(classes=classes), tmp_path / "out")
        message = "b and NOT b cannot both hold, so this part changes nothing"
        assert [str(warning.message).splitlines() for warning in warned] == [
            [f"class 'odd': {message}", "  a OR b AND NOT b", "       ^     ^^^^^"]
        ]
        card = (tmp_path / "out" / "README.md").read_text(encoding="utf-8")
        assert f"all or a part is always or never true:\n\n- `odd`: {message}\n\n" in card


class TestFiles:
    def refused(self, tmp_path, text, tiny, whole=False):
        path = tmp_path / "plan.toml"
        path.write_text(text.replace("MODEL", str(tiny)), encoding="utf-8")
        with pytest.raises(DataError) as caught:
            write(path, tmp_path / "out")
        assert [entry.name for entry in tmp_path.iterdir()] == ["plan.toml"]
        return str(caught.value).replace(str(path), "plan.toml")

    def test_a_plan_is_read(self, tmp_path, tiny):
        path = tmp_path / "plan.toml"
        text = "\ufeff" + TOML.replace("\n", "\r\n").replace("MODEL", str(tiny)) + 'sampler = "slice"\r\nseed = 9\r\n'
        path.write_bytes(text.encode())
        plan, _ = read_plan(path)
        first, second = plan.classes
        assert (plan.seed, plan.shard_size, plan.count, plan.shards) == (3, 10, 33, 4)
        assert first == DatasetClass(name="with", query="glasses AND beard", count=21, model=str(tiny))
        assert (second.seed, second.settings) == (9, {"sampler": "slice"})

    def test_every_mistake_is_shown_with_its_line(self, tmp_path, tiny):
        text = TOML.replace("glasses AND beard", "glases AND beard").replace("NOT glasses", "NOT (glasses")
        assert self.refused(tmp_path, text, tiny) == "\n".join(
            [
                "plan.toml has 2 mistakes, and nothing was written",
                "",
                "line 7: UnknownAttribute: 'glases' is not an attribute of model 'tiny'",
                '  7 | query = "glases AND beard"',
                "    |          ^^^^^^",
                "did you mean glasses?",
                "",
                "line 12: QuerySyntaxError: ')' is missing to close '('",
                '  12 | query = "NOT (glasses"',
                "     |              ^       ^",
            ]
        )

    @pytest.mark.parametrize(
        ("old", "new", "shown"),
        [
            ("shard_size", "shard_sise", ["line 2: ArgumentError", "2 | shard_sise", "did you mean shard_size?"]),
            ("count = 21", 'count = "many"', ["line 8: ArgumentError: count must be", 'count = "many"', "^^^^^^"]),
            ("count = 21", "cuont = 21", ["there is no entry of a class 'cuont'", "the class has no count"]),
            ("count = 21", "count = -4\nsemantic = 1", ["did you mean semantics", "count must be", "line 9"]),
            ("[[class]]\nname = \"with\"", "[[class]]\nname = \"without\"", ["two classes have the name", "line 11"]),
            ("seed = 3", "seed = -3", ["line 1: ArgumentError: seed must be", "seed = -3", "^^"]),
            ("seed = 3", 'format = "tiff"', ["line 1: ArgumentError: there is no format", "^^^^^^"]),
            ("seed = 3", 'sampler = "slic"', ["line 1: ArgumentError: there is no sampler 'slic'"]),
            ("seed = 3", "truncation = 0.2", ["line 1: ArgumentError", "do not hold at truncation 0.2"]),
            ('model = "MODEL"', 'model = "nobody"', ["line 3: ModelError: there is no model 'nobody'", "^^^^^^^^"]),
            ('model = "MODEL"', "model = 7", ["line 3: ArgumentError: a model is a name or the path of a folder"]),
            ("count = 21", 'count = 21\nlabel = 3', ["line 9: ArgumentError", "label = 3"]),
            ("seed = 3", "seed = = 3", ["plan.toml, line 1, is not TOML", "seed = = 3", "       ^"]),
            ("count = 12", 'count = 12\nnoise = "const', ["line 14, is not TOML"]),
            ("glasses AND beard", "smile AND NOT smile", ["line 7: Contradiction"]),
            ('"glasses AND beard"', "[1, 2]", ["line 7: ArgumentError: a query is a string", "[1, 2]", "^^^^^^"]),
        ],
    )  # fmt: skip
    def test_a_mistake(self, tmp_path, tiny, old, new, shown):
        assert old in TOML
        message = self.refused(tmp_path, TOML.replace(old, new, 1), tiny)
        for part in shown:
            assert part in message, message

    def test_queries_of_several_lines_get_their_own_carets(self, tmp_path, tiny):
        long = '"""\nglasses\n  AND berd\n"""'
        message = self.refused(tmp_path, TOML.replace('"glasses AND beard"', long), tiny)
        assert "line 9: UnknownAttribute: 'berd'" in message
        assert "  9 |   AND berd\n    |       ^^^^\n" in message

    def test_a_query_with_escapes_is_marked_as_a_whole(self, tmp_path, tiny):
        message = self.refused(tmp_path, TOML.replace('"glasses AND beard"', r'"glases AND \u0062eard"'), tiny)
        assert 'query = "glases AND \\u0062eard"\n    |         ^^^^^^^^^^^^^^^^^^^^^^^\n' in message

    @pytest.mark.parametrize(
        ("content", "message"),
        [
            (b"\xff\xfe", "is not text in UTF-8"),
            (b"", "a plan has no class"),
            (b"class = 3", "a plan has no class"),
            (b"class = [3]", "a plan has no class"),
            (b"a = " + 2000 * b"[", "is not TOML"),
        ],
    )
    def test_other_files(self, tmp_path, content, message):
        path = tmp_path / "plan.toml"
        path.write_bytes(content)
        with pytest.raises(DataError, match=message):
            read_plan(path)

    def test_a_missing_file(self, tmp_path):
        with pytest.raises(DataError, match="plan.toml is missing"):
            read_plan(tmp_path / "plan.toml")


ODD = '''
# a comment with a = "b"
title = "x # no comment"   # one
a.b . "c d" = 'single \\'
"quo\\"ted" = """
a "quoted" ""text\\""""
numbers = [ 1, # one
  [2, "]"], {x = 1, y.z = "}"} ]
when = 1979-05-27 07:32:00
empty = []
none = {}
[table . sub]
key = """"two quotes"""""
[[list]]
k = 1
[[list.inner]]
k = 2
[[list.inner]]
k = 3
[list.deep]
k = 4
[[list]]
k = \'\'\'raw
'' text\'\'\'
'''


def at(data, path):
    for key in path:
        data = data[key]
    return data


def entries(data, path=()):
    """The paths of the entries of all tables, but for those of tables in lists in one entry."""
    if isinstance(data, dict) and data:
        return [entry for key, value in data.items() for entry in entries(value, (*path, key))]
    if isinstance(data, list) and path[::2] in (("list",), ("list", "inner")):
        return [entry for number, value in enumerate(data) for entry in entries(value, (*path, number))]
    return [path]


class TestPlaces:
    def test_every_entry_of_an_odd_file_is_found(self):
        data, places = tomllib.loads(ODD), _locate(ODD)
        for path in entries(data):
            key, value = places[path]
            if path != ("numbers",):
                assert tomllib.loads(f"value = {ODD[value.start : value.end]}")["value"] == at(data, path), path
            assert path[-1].replace('"', '\\"') in ODD[key.start : key.end]

    def test_texts_are_found_among_random_signs(self):
        chance = random.Random(0)
        signs = "ab\"\\'#=[]{},. \n"
        for _ in range(200):
            text = "".join(chance.choice(signs) for _ in range(chance.randrange(12)))
            basic = '"' + text.replace("\\", "\\\\").replace('"', '\\"').replace("\n", "\\n") + '"'
            long = f'"""\n{basic[1:-1]}\n"""'
            document = f"first = {basic} # {basic}\n# {basic}\n[[class]]\nlong = {long}\n[[class]]\nlast = {basic}"
            places = _locate(document)
            for path, value in ((("first",), basic), (("class", 0, "long"), long), (("class", 1, "last"), basic)):
                start, end = places[path][1]
                assert document[start:end] == value

    @pytest.mark.parametrize(
        "value",
        [
            "{Q}\n[[class]]\n{Q}",
            "{{a = {Q}\n[[class]]\n{Q}}}",
            '[[[{Q}\n["\\q"]\n{Q}]]]',
            '{{a = {Q}\n"\\q" = 3\n{Q}}}',
        ],
    )
    def test_lines_of_a_text_are_no_entries(self, value):
        document = f"first = {value.format(Q=chr(39) * 3)}\nlast = 1"
        assert list(tomllib.loads(document)) == ["first", "last"]
        assert _locate(document)["last",][1] == (len(document) - 1, len(document))

    def test_lines_in_the_middle_of_an_entry_are_not_parsed(self):
        inner = "".join(f'  {{name = "a{i}", query = "smile", count = 1}},\n' for i in range(300))
        query = "a OR\n" * 300
        places = _locate(f'class = [\n{inner}]\nquery = """\n{query}b"""\nafter = 1\n')
        assert list(places) == [("class",), ("query",), ("after",)]

    def test_odd_texts_take_time_in_proportion_to_their_length(self):
        def odd(count):
            return 'a = [[[[\n"""' + "b = [ ''' \n" * count + '"""]]]]\nlast = 1'

        assert list(_locate(odd(100))) == [("a",), ("last",)]
        assert growth(odd, _locate, 500) < 9  # 4 is linear

    def test_classes_in_one_list_are_named_by_number(self, tmp_path, tiny):
        path = tmp_path / "plan.toml"
        path.write_text(f'model = "{tiny}"\nclass = [\n  {{name = "a", query = "smile AND", count = 1}},\n]\n')
        with pytest.raises(DataError) as caught:
            write(path, tmp_path / "out")
        assert "line 2, class 1, query: QuerySyntaxError" in str(caught.value)


def test_one_of_a_thing_is_named_as_one():
    assert str(Estimate(1, 1, 1000, 1, 1.2, 1)) == "1 picture in 1 shard, about 1.0 kB; 0:00:01 for one worker"
    text = "2 pictures (3 samples to draw) in 2 shards, about 2 bytes; 0:02:10 for one worker, 0:01:05 for 2"
    assert str(Estimate(2, 2, 2, 3, 130, 2)) == text
