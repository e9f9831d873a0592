"""Imports run one way. Read from the source, so that a breach is found whether or not it is run."""

import ast
from pathlib import Path

import pytest

PACKAGE = Path(__file__).parents[1] / "energyql"
ALLOWED = {
    # From the bottom up, what each part may import beside itself. A part is a module or a package of `energyql`.
    "errors": set(),
    "version": set(),
    "progress": set(),
    "files": {"errors"},
    "locks": {"errors", "files"},
    "replacement": {"errors", "temporary", "files", "locks"},
    "vocabulary": {"errors"},
    "render": {"errors"},
    "numerics": {"errors"},
    "plugins": {"errors", "vocabulary"},
    "models": {"errors", "files", "locks", "replacement", "vocabulary", "plugins"},
    "language": {"errors", "vocabulary", "render"},
    "logic": {"errors", "vocabulary", "render", "language"},
    "sampling": {"errors", "numerics"},
    "generators": {"errors", "files", "numerics", "plugins"},
    "attributes": {"errors", "files", "vocabulary", "numerics", "plugins"},
    "energy": {"errors", "files", "vocabulary", "plugins", "render", "numerics", "language", "logic", "attributes"},
}
BELOW = {*ALLOWED}  # what may be imported by everything that follows
for name, more in {
    "pipeline": set(),
    "training": {"pipeline"},
    "gallery": {"pipeline"},
    "dataset": {"pipeline"},
    "editing": {"pipeline"},
    "evaluation": {"pipeline", "editing"},
    "studio": {"pipeline", "editing", "gallery"},
    "labelling": {"pipeline", "training", "studio"},
    "cli": {"pipeline", "training", "gallery", "dataset", "editing", "evaluation", "studio", "labelling"},
    "__main__": {"cli"},
    "__init__": {
        "pipeline",
        "training",
        "gallery",
        "dataset",
        "editing",
        "evaluation",
        "labelling",
    },  # names, looked up when first used
}.items():
    ALLOWED[name] = BELOW | more
LOCAL = {"cli", "__init__"}
"""These may import inside functions, so that they start at once."""
LOCAL_IMPORTS = {
    ("files", "torch"),  # reading a vocabulary must not wait for torch
    ("files", "safetensors"),
    ("files", "safetensors.torch"),
    ("pipeline", "energyql.energy.rule"),  # explaining most queries must not wait for torch either
    ("pipeline", "energyql.attributes.heads"),
    ("pipeline", "energyql.energy.circuit"),
    ("pipeline", "energyql.energy.query_energy"),
    ("pipeline", "energyql.pipeline.pilot"),
    ("progress", "IPython.display"),  # there in notebooks only
    ("sampling", "torchdiffeq._impl.odeint"),  # takes SciPy along, which only the ODE needs
}
WITHOUT_TORCH = {
    "errors",
    "vocabulary",
    "files",
    "locks",
    "version",
    "progress",
    "plugins",
    "language",
    "models",
    "cli",
    "__init__",
}
MODULES = sorted(PACKAGE.rglob("*.py"))


def part(path):
    return path.relative_to(PACKAGE).with_suffix("").parts[0]


def imported(tree):
    """Modules that the import statements name, and whether each stands inside a function; not those for types only."""
    inside = {
        id(node)
        for function in ast.walk(tree)
        if isinstance(function, ast.FunctionDef | ast.AsyncFunctionDef | ast.Lambda)
        for node in ast.walk(function)
    }
    typing_only = {
        id(node)
        for block in ast.walk(tree)
        if isinstance(block, ast.If) and "TYPE_CHECKING" in ast.unparse(block.test)
        for node in ast.walk(block)
    }
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            names = [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, "write imports in full"
            assert "*" not in [alias.name for alias in node.names], "import names one by one"
            names = [node.module]
            if node.module == "energyql":
                names = [f"energyql.{alias.name}" for alias in node.names]
        else:
            continue
        for name in names:
            yield name, id(node) in inside, id(node) in typing_only


def statements(path):
    return list(imported(ast.parse(path.read_text(encoding="utf-8"))))


def breaches(path):
    for name, _, _ in statements(path):
        if name.startswith("energyql.") and name.split(".")[1] not in ALLOWED[part(path)] | {part(path)}:
            yield name


def test_every_part_has_its_place():
    assert {part(path) for path in MODULES} == set(ALLOWED)


@pytest.mark.parametrize("path", MODULES, ids=lambda path: str(path.relative_to(PACKAGE)))
def test_imports_run_one_way(path):
    assert list(breaches(path)) == []


@pytest.mark.parametrize("path", MODULES, ids=lambda path: str(path.relative_to(PACKAGE)))
def test_no_import_inside_a_function(path):
    local = {(part(path), name) for name, inside, _ in statements(path) if inside}
    assert part(path) in LOCAL or local <= LOCAL_IMPORTS


@pytest.mark.parametrize("path", MODULES, ids=lambda path: str(path.relative_to(PACKAGE)))
def test_what_must_start_at_once_does_not_import_torch(path):
    heavy = {"torch", "numpy", "torchdiffeq", "safetensors", "PIL"}
    found = {name for name, inside, typing in statements(path) if not inside and not typing}
    assert part(path) not in WITHOUT_TORCH or not {name.split(".")[0] for name in found} & heavy


@pytest.mark.parametrize(
    ("code", "expected"),
    [
        ("import a.b", [("a.b", False, False)]),
        ("from energyql import pipeline", [("energyql.pipeline", False, False)]),
        ("def f():\n    from energyql.pipeline.model import Model", [("energyql.pipeline.model", True, False)]),
        ("f = lambda: 1\nif TYPE_CHECKING:\n    from torch import Tensor", [("torch", False, True)]),
        ("class A:\n    async def f(self):\n        import torch", [("torch", True, False)]),
    ],
)
def test_this_test_reads_imports(code, expected):
    assert list(imported(ast.parse(code))) == expected


def test_this_test_finds_a_breach(monkeypatch):
    monkeypatch.setitem(ALLOWED, "logic", {"errors"})
    assert any(list(breaches(path)) for path in MODULES if part(path) == "logic")


def cycles(edges):
    """Modules that import themselves by way of others, or import such modules."""
    left = {name: set(needed) for name, needed in edges.items()}
    while free := {name for name, needed in left.items() if not needed & left.keys()}:
        left = {name: needed for name, needed in left.items() if name not in free}
    return sorted(left)


def dotted(path):
    parts = path.relative_to(PACKAGE.parent).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


def test_no_file_imports_itself_by_way_of_others():
    """Counting every import statement, also those inside functions and those for types only."""
    names = {dotted(path): path for path in MODULES}
    edges = {}
    for name, path in names.items():
        edges[name] = set()
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.ImportFrom):
                whole = [f"{node.module}.{alias.name}" for alias in node.names]
                edges[name] |= {full if full in names else node.module for full in whole} & names.keys()
            elif isinstance(node, ast.Import):
                edges[name] |= {alias.name for alias in node.names} & names.keys()
    assert cycles(edges) == []


def test_cycles_are_found():
    assert cycles({"a": {"b"}, "b": set(), "c": {"b", "d"}, "d": {"e"}, "e": {"c"}}) == ["c", "d", "e"]
