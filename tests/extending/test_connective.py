"""A connective that can be expressed by others costs at most six files; docs/extending.md walks through the edits."""

import os
import shutil
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parents[2]

# File, a line that is there, what takes its place. Nand stands for any connective that others define.
EDITS = [
    (
        "grammar/query.lark",
        "?xor: and_\n    | and_ (XOR and_)+ -> xor\n",
        "?xor: nand\n    | nand (XOR nand)+ -> xor\n?nand: and_\n    | nand NAND and_ -> nand\n",
    ),
    ("grammar/query.lark", 'AND.2: "AND"i END | "&&" | "&"\n', 'AND.2: "AND"i END | "&&" | "&"\nNAND.2: "NAND"i END\n'),
    (
        "energyql/language/expr.py",
        "@dataclass(frozen=True, slots=True, eq=False, repr=False)\nclass Implies(Paired):\n",
        '''@dataclass(frozen=True, slots=True, eq=False, repr=False)
class Nand(Paired):
    """`left NAND right`: false only where both are true."""

    word, level, nests, note = "NAND", 55, (0,), "not both hold"

    def _lower(self, kernel: Kernel[T], operands: Sequence[T]) -> T:
        return kernel.negation(kernel.conjunction(operands))


@dataclass(frozen=True, slots=True, eq=False, repr=False)
class Implies(Paired):
''',
    ),
    ("energyql/language/parser.py", "    Interval,\n    Near,\n", "    Interval,\n    Nand,\n    Near,\n"),
    (
        "energyql/language/parser.py",
        "    implies, not_ = _of(Implies), _of(Not)\n",
        "    implies, not_, nand = _of(Implies), _of(Not), _of(Nand)\n",
    ),
    ("energyql/language/__init__.py", "    ModelNamespace,\n", "    ModelNamespace,\n    Nand,\n"),
    ("energyql/language/__init__.py", '"Near", ', '"Nand", "Near", '),
    (
        "grammar/README.md",
        "| exclusive or | `a XOR b`",
        "| not both | `a NAND b` | | groups to the left |\n| exclusive or | `a XOR b`",
    ),
    ("grammar/README.md", "MOST NONE NOT OF OR", "MOST NAND NONE NOT OF OR"),
]

CHECK = """
import pickle, warnings
import numpy as np
from energyql import AttributeSpec, E, Vocabulary, parse, score
from energyql.energy.rule import compile_energy_rule
from energyql.errors import Contradiction, QuerySyntaxError
from energyql.language import Nand, bind
from energyql.logic.circuit import compile_query
from energyql.logic.satisfiability import conjuncts, satisfied

def message(make):
    try:
        make()
    except (Contradiction, QuerySyntaxError) as error:
        return str(error)

# Text, tree, drawing.
expr = parse("smile nand hat")
assert expr == Nand(E.smile, E.hat) and str(expr) == "smile NAND hat" and expr.span == (0, 14)
assert pickle.loads(pickle.dumps(expr)) == expr
for text in (
    "a NAND b NAND c", "a NAND (b NAND c)", "a AND b NAND c XOR d", "NOT (a NAND b) OR c NAND NOT d", '"NAND" AND a'
):
    assert str(parse(text)) == text
assert str(E.NAND) == '"NAND"'
assert message(lambda: parse("smile NAND")).startswith("an operand is missing after NAND")
assert message(lambda: parse("smile NAND OR hat")).startswith("an operand is missing between NAND and OR")
assert all(words in expr._repr_html_() for words in (">NAND<", "not both hold"))

# Truth, circuit, contradictions.
vocabulary = Vocabulary([AttributeSpec(name, "yes/no") for name in ("smile", "hat", "beard")])
values = {"smile": np.array([False, False, True, True]), "hat": np.array([False, True, False, True])}
assert satisfied(expr, values, vocabulary).tolist() == [True, True, True, False]
same = parse("NOT (smile AND hat)")
assert compile_query(expr, vocabulary) == compile_query(same, vocabulary)
assert compile_query(expr, vocabulary).explain() == compile_query(same, vocabulary).explain()
assert message(lambda: compile_query(parse("(smile NAND hat) AND smile AND hat"), vocabulary)) == (
    "smile NAND hat, smile and hat cannot all hold"
)
assert [str(part) for part in conjuncts(parse("NOT (smile NAND hat) AND beard"))] == ["smile", "hat", "beard"]
assert "NAND: NOT (left AND right)" in compile_energy_rule(expr, vocabulary, "lace").explain()

# Energy.
known = {"smile": [0.9, 0.5], "hat": [0.8, 0.1], "beard": [0.3, 0.6]}
for semantics in ("exact", "product", "lace"):
    for text in ("{}", "beard OR {}", "beard XOR {}"):
        new, old = (score(text.format(part), known, semantics=semantics) for part in ("(smile NAND hat)", str(same)))
        np.testing.assert_allclose(new, old)
np.testing.assert_allclose(np.exp(-score("smile NAND hat", known)), [0.28, 0.95], rtol=1e-5)
"""


def test_a_definable_connective_costs_at_most_six_files(tmp_path):
    shutil.copytree(ROOT / "energyql", tmp_path / "energyql", ignore=shutil.ignore_patterns("*.pyc.*"))
    shutil.copytree(ROOT / "grammar", tmp_path / "energyql" / "grammar")  # where it is installed
    for name, old, new in EDITS:
        path = tmp_path / (name if name.startswith("energyql/") else f"energyql/{name}")
        text = path.read_text(encoding="utf-8")
        assert text.count(old) == 1, f"{name} has no single {old!r}"
        path.write_text(text.replace(old, new), encoding="utf-8")
    assert len({name for name, _, _ in EDITS}) <= 6
    environment = os.environ | {"PYTHONPATH": str(tmp_path)}
    done = subprocess.run([sys.executable, "-c", CHECK], cwd=tmp_path, env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
