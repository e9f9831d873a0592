"""A kind of attributes costs two records and, where it brings conditions of its own, their syntax.

docs/extending.md walks through it.
"""

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
EDITS = [
    (
        "energyql/kinds.py",
        'Kind = Literal["yes/no", "categorical", "continuous"]\n',
        'Kind = Literal["yes/no", "categorical", "continuous", "ordinal"]\n',
    ),
    (
        "energyql/kinds.py",
        "class _Continuous(AttributeKind):\n",
        '''class _OrdinalLabels(Labels):
    def domain(self, spec: Spec) -> str:
        return f"={'<'.join(spec.values)}"

    def parse_domain(self, text: str) -> dict[str, Any] | None:
        return {"values": tuple(value.strip() for value in text[1:].split("<"))} if "<" in text else None

    def fits(self, entries: Sequence[Any]) -> bool:
        return False


class _OrdinalQueries(Queries):
    forms = (CLASSES, "order")

    def cells(self, literal: Any, spec: Spec) -> CellSet:
        if literal.form == CLASSES:
            return super().cells(literal, spec)
        at, place = spec.values.index(literal.value), "=" in literal.sign
        return spec.values[at + 1 - place :] if ">" in literal.sign else spec.values[: at + place]


class _Ordinal(_Categorical):
    """Attributes with one of several classes that have an order."""

    name, noun = "ordinal", "an ordinal attribute"
    labels, queries = _OrdinalLabels(), _OrdinalQueries()


class _Continuous(AttributeKind):
''',
    ),
    (
        "energyql/kinds.py",
        "(_YesNo(), _Categorical(), _Continuous())",
        "(_YesNo(), _Categorical(), _Continuous(), _Ordinal())",
    ),
    (
        "energyql/attributes/predictions.py",
        "@dataclass(frozen=True, slots=True)\nclass Continuous(Prediction):\n",
        '''@dataclass(frozen=True, slots=True)
class Ordinal(Categorical):
    """A categorical prediction that learns the order of its classes."""

    kind = "ordinal"


@dataclass(frozen=True, slots=True)
class Continuous(Prediction):
''',
    ),
    (
        "energyql/attributes/predictions.py",
        "class _ContinuousHeads(",
        '''class _OrdinalHeads(_CategoricalHeads):
    prediction = Ordinal

    def losses(self, outputs: Tensor, labels: Float[Tensor, " batch"], spec: AttributeSpec) -> Float[Tensor, " batch"]:
        """Add the ranked probability score (Epstein 1969)."""
        below = outputs.softmax(1).cumsum(1)[:, :-1]
        came = labels[:, None] <= torch.arange(below.shape[1], device=labels.device)
        return super().losses(outputs, labels, spec) + (below - came.to(below)).square().sum(1)


class _ContinuousHeads(''',
    ),
    (
        "energyql/attributes/predictions.py",
        "(_YesNoHeads(), _CategoricalHeads(), _ContinuousHeads())",
        "(_YesNoHeads(), _CategoricalHeads(), _ContinuousHeads(), _OrdinalHeads())",
    ),
    (
        "grammar/query.lark",
        "    | NUMBER less name -> compare\n",
        "    | NUMBER less name -> compare\n    | name less name -> ordered\n    | name greater name -> ordered\n",
    ),
    (
        "energyql/language/expr.py",
        "class Namespace:\n",
        '''@dataclass(frozen=True, slots=True, eq=False, repr=False)
class Ordered(Predicate):
    """An ordinal attribute is on one side of a class: `size >= mid`; `sign` is one of <, <=, > and >=."""

    form = "order"
    value: str
    sign: str

    @property
    def values(self) -> tuple[str, ...]:
        """The class, as `OneOf` has its own."""
        return (self.value,)

    def _check(self) -> None:
        Predicate._check(self)
        self._set(value=check_name(self.value, "a value"))

    def _spell(self, operands: Sequence[str]) -> str:
        return f"{quote(self.name)} {self.sign} {quote(self.value)}"


class Namespace:
''',
    ),
    ("energyql/language/parser.py", "    OneOf,\n", "    OneOf,\n    Ordered,\n"),
    (
        "energyql/language/parser.py",
        "    def one_of(",
        """    def ordered(self, parts: list[Part]) -> Expr:
        name, sign, value = _tokens(parts)
        return _node(parts, Ordered, text_of(name), text_of(value), str(sign))

    def one_of(""",
    ),
    (
        "energyql/studio/static/build.js",
        "categorical: () => this.classes(attribute),",
        "categorical: () => this.classes(attribute), ordinal: () => this.classes(attribute),",
    ),
    (
        "energyql/studio/static/language.js",
        "categorical: `${written} = `,",
        "categorical: `${written} = `, ordinal: `${written} = `,",
    ),
]
CHECK = """
import sys
from pathlib import Path

import numpy as np
import torch
from toys import random_generator

import energyql
from energyql import AttributeSpec, KindError, Vocabulary, parse, score
from energyql.attributes.predictions import tabulate
from energyql.errors import Contradiction
from energyql.labelling.sample import sample_pictures
from energyql.labelling.sheet import LabelSheet
from energyql.language import bind
from energyql.logic.circuit import compile_query
from energyql.logic.satisfiability import satisfied
from energyql.generators.families import save_model
from energyql.pipeline.model import load_model
from energyql.training.heads import HeadSettings
from energyql.training.labels import attribute_text, parse_attribute

assert energyql.__file__.startswith(sys.argv[1])
size = AttributeSpec("size", "ordinal", values=("low", "mid", "high"))
vocabulary = Vocabulary([AttributeSpec("bright", "yes/no"), size])
assert Vocabulary.from_dict(vocabulary.to_dict()) == vocabulary and "size    low, mid, high" in repr(vocabulary)
assert attribute_text(size) == "size=low<mid<high" and parse_attribute("size = low < mid < high") == size

def message(query):
    try:
        compile_query(bind(parse(query), vocabulary), vocabulary)
    except (Contradiction, KindError) as error:
        return error.message

# Language and logic.
values = {"size": np.array(["low", "mid", "high"]), "bright": np.array([True, False, True])}
for query, truths in {
    "size >= mid": [0, 1, 1], "size > mid": [0, 0, 1], "size <= low": [1, 0, 0], "size < high AND bright": [1, 0, 0],
    "NOT size < mid": [0, 1, 1], "size != mid": [1, 0, 1], "bright IFF size > low": [0, 0, 1],
}.items():
    assert str(parse(query)) == query
    assert satisfied(bind(parse(query), vocabulary), values, vocabulary).tolist() == list(map(bool, truths)), query
assert compile_query(parse("size >= mid"), vocabulary) == compile_query(parse("size != low"), vocabulary)
assert message("size >= tall") == "'tall' is not a value of size"
assert message("size > 0.5") == "size has 3 values: write `size = low`"
assert message("bright > mid") == "bright is yes or no: write `bright` or `NOT bright`"
assert message("size > mid AND size < mid") == "size > mid and size < mid cannot both hold"
known = {"size": {"low": 0.2, "mid": 0.3, "high": 0.5}}
np.testing.assert_allclose(np.exp(-score("size >= mid", known, vocabulary={"size": size})), 0.8)

# Labels by hand.
folder = Path(sys.argv[1])
save_model(folder / "model", "tiny", random_generator(), dtype=torch.float32)
pictures = sample_pictures(folder / "model", folder / "pictures", 4)
sheet = LabelSheet.open(folder / "labels.csv", pictures, "size=low<mid<high")
sheet.decide(0, {"size": "mid"})
assert LabelSheet.open(folder / "labels.csv", pictures, None).attributes["size"] == size

# Training, queries and edits.
generator = energyql.load_generator(folder / "model")
drawn = generator.synthesize(generator.encode(torch.randn(200, generator.z_dim), 1.0)).mean((1, 2, 3))
edges = drawn.quantile(torch.tensor([0.3, 0.7]))

def look(images):
    mean = images.mean((1, 2, 3))
    return {"size": [size.values[k] for k in torch.bucketize(mean, edges)], "bright": mean > edges.mean()}

trained = energyql.train_attributes(
    folder / "model", look, vocabulary=vocabulary, n=400, settings=HeadSettings(steps=90, hidden=8, batch=64),
    judge=None, progress=False,
)
report = trained.report["size"]
assert report.kind == "ordinal" and list(report.labels) == list(size.values) and report.score > report.chance
result = energyql.generate("size >= mid", 4, model=folder / "model", progress=False, allow_weak=["size"])
shares = result.probabilities["size"]
np.testing.assert_allclose(np.exp(-result.energy), shares["mid"] + shares["high"], rtol=1e-3)
edited = energyql.edit(
    3, ["size <= low", "NOT bright"], model=folder / "model", n=1, allow_weak=list(vocabulary), progress=False
)
assert len(edited.steps) >= 2
print("learned")
"""


@pytest.mark.slow
def test_a_kind_costs_at_most_eight_files(tmp_path):
    for folder in ("energyql", "grammar"):
        ignored = shutil.ignore_patterns("*.pyc.*", "avatars", "postcards")
        shutil.copytree(ROOT / folder, tmp_path / folder, ignore=ignored)
    for name, old, new in EDITS:
        text = (tmp_path / name).read_text(encoding="utf-8")
        assert text.count(old) == 1, f"{name} has no single {old!r}"
        (tmp_path / name).write_text(text.replace(old, new), encoding="utf-8")
    shutil.copytree(tmp_path / "grammar", tmp_path / "energyql" / "grammar")  # where it is installed
    assert len({name for name, _, _ in EDITS}) <= 8

    environment = os.environ | {"PYTHONPATH": os.pathsep.join([str(tmp_path), str(ROOT / "tests")])}
    done = subprocess.run(
        [sys.executable, "-c", CHECK, str(tmp_path)],
        cwd=tmp_path, env=environment, capture_output=True, text=True, encoding="utf-8",
    )  # fmt: skip
    assert done.stdout.strip() == "learned", done.stdout + done.stderr
