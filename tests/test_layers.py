"""Imports run one way. Read from the source, so that a breach is found whether or not it is run."""

import ast
from pathlib import Path

import pytest

PACKAGE = Path(__file__).parents[1] / "energyql"
BASE = {
    "dense", "display", "errors", "files", "normalization", "pictures", "progress", "pullback", "result_html",
    "version", "vocabulary",
}  # fmt: skip
LANGUAGE = BASE | {"language"}
LOGIC = LANGUAGE | {"logic"}
ENERGY = LOGIC | {"energy", *(f"attributes.{name}" for name in ("normal", "predictions", "outputs", "fused"))}
MODEL = BASE | {"generators", "attributes", "evaluation", "models"}
ALLOWED = {
    # What each part may import beside itself. A part is a module or a package of `energyql`.
    "errors": set(),
    "version": set(),
    "progress": set(),
    "vocabulary": {"errors"},
    "files": {"errors"},
    "pictures": {"errors"},
    "display": set(),
    "result_html": {"display", "pictures"},
    "pullback": {"errors"},
    "dense": {"errors", "pullback"},
    "normalization": set(),
    "language": BASE,
    "logic": LANGUAGE,
    "attributes": BASE,
    "generators": BASE,
    "sampling": BASE,
    "energy": ENERGY,
    "scoring": ENERGY,
    "tables": ENERGY | {"scoring"},
    "evaluation": BASE | {"attributes"},
    "models": BASE,
    "model": MODEL,
    "result": BASE | {"attributes", "sampling"},
    "arguments": {"errors", "sampling"},
    "drawing": MODEL | {"model"},
    "prepared": ENERGY | MODEL | {"sampling", "model", "result", "drawing"},
    "until": BASE | {"sampling", "result", "prepared"},
    "pipeline": ENERGY | MODEL | {"sampling", "model", "result", "arguments", "prepared", "until"},
    "training": MODEL | {"sampling", "model"},
    "gallery": ENERGY | MODEL | {"sampling", "model", "result", "pipeline", "scoring"},
    "bench": ENERGY | MODEL | {"sampling", "model", "drawing", "arguments", "prepared", "pipeline", "gallery.queries"},
    "studio": ENERGY
    | MODEL
    | {"sampling", "model", "result", "arguments", "prepared", "pipeline", "editing", "gallery"},
    "protocols": ENERGY | MODEL | {"sampling", "model", "arguments", "bench", "editing"},
    "cli_bench": None,
    "cli_evaluate": None,
    "editing": ENERGY
    | MODEL
    | {"sampling", "model", "result", "arguments", "prepared", "pipeline", "drawing", "gallery.traversal"},
    "cli_edit": None,
    "cli_gallery": None,
    "cli_studio": None,
    "cli_train": None,
    "cli": None,
    "__main__": None,  # the top
    "__init__": None,  # names only, looked up when first used
}
LOCAL = {"cli", "cli_bench", "cli_edit", "cli_evaluate", "cli_gallery", "cli_studio", "cli_train", "__init__"}
"""These may import inside functions, so that they start at once."""
LOCAL_IMPORTS = {("files", "torch"), ("files", "safetensors.torch")}  # reading a vocabulary must not wait for torch
WITHOUT_TORCH = {
    "errors",
    "vocabulary",
    "files",
    "version",
    "progress",
    "display",
    "language",
    "models",
    "cli",
    "cli_bench",
    "cli_edit",
    "cli_evaluate",
    "cli_gallery",
    "cli_studio",
    "cli_train",
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
    allowed = ALLOWED[part(path)]
    for name, _, _ in statements(path):
        if not name.startswith("energyql.") or allowed is None:
            continue
        target = name.removeprefix("energyql.").split(".")
        if target[0] not in allowed | {part(path)} and ".".join(target[:2]) not in allowed:
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


def test_only_a_prepared_query_knows_every_layer():
    layers = {"language", "logic", "energy", "attributes", "sampling", "model"}
    everything = [
        part(path)
        for path in MODULES
        if layers <= {name.split(".")[1] for name, _, _ in statements(path) if name.startswith("energyql.")}
    ]
    assert everything == ["prepared"]


@pytest.mark.parametrize(
    ("code", "expected"),
    [
        ("import a.b", [("a.b", False, False)]),
        ("from energyql import pipeline", [("energyql.pipeline", False, False)]),
        ("def f():\n    from energyql.model import Model", [("energyql.model", True, False)]),
        ("f = lambda: 1\nif TYPE_CHECKING:\n    from torch import Tensor", [("torch", False, True)]),
        ("class A:\n    async def f(self):\n        import torch", [("torch", True, False)]),
    ],
)
def test_this_test_reads_imports(code, expected):
    assert list(imported(ast.parse(code))) == expected


def test_this_test_finds_a_breach(monkeypatch):
    monkeypatch.setitem(ALLOWED, "logic", BASE)
    assert any(list(breaches(path)) for path in MODULES if part(path) == "logic")
