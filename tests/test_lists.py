"""Lists in docstrings, which tell a reader where all uses of something are, name just what the files hold."""

import ast
import re
from pathlib import Path

import energyql
from energyql import pipeline
from energyql.cli import interruption
from energyql.pipeline import provenance

PACKAGE = Path(energyql.__file__).parent
FILES = {".".join(file.relative_to(PACKAGE).with_suffix("").parts): file for file in PACKAGE.rglob("*.py")}
TREES = {module: ast.parse(file.read_text(encoding="utf-8")) for module, file in FILES.items()}
STAGES = {"session", "plan", "calibrate", "propose", "render", "read", "keep", "run"}


def called_from_outside():
    """Function of a stage -> the rooms' modules that import it; types are no functions."""
    found = {}
    for module, tree in TREES.items():
        for node in ast.walk(tree):
            stage = (getattr(node, "module", None) or "").removeprefix("energyql.pipeline.")
            if isinstance(node, ast.ImportFrom) and stage in STAGES and "." in module:
                for name in (each.name for each in node.names if each.name.islower()):
                    if not module.startswith("pipeline."):
                        found.setdefault(f"{stage}.{name}", set()).add(module)
    return found


def reads_provenance(tree):
    """Whether a module reads the attribute `provenance`, or keys of `facts` that are a `Provenance`."""
    typed = "Provenance" in {each.name for node in tree.body if isinstance(node, ast.ImportFrom) for each in node.names}
    for node in ast.walk(tree):
        if typed and isinstance(node, ast.Subscript) and ast.unparse(node.value) == "facts":
            return True
        if isinstance(node, ast.Attribute) and node.attr == "provenance" and isinstance(node.ctx, ast.Load):
            return True
        if isinstance(node, ast.Subscript) and ast.unparse(node.slice) == "'provenance'":
            return True
    return False


def test_callers_of_the_stages_are_listed():
    text, listed = " ".join(pipeline.__doc__.partition("\n\nWhat a run")[0].split()), {}
    for names, by in re.findall(r"((?:`[\w.]+`(?: and )?)+) by ([\w., ]*\w)", text):
        listed |= {name: set(by.split(", ")) for name in re.findall(r"[\w.]+\.\w+", names)}
    assert {name: by - {"__init__"} for name, by in called_from_outside().items()} == listed


def test_readers_of_provenance_are_listed():
    part = provenance.__doc__.partition("Read by:")[2].partition("`")[0]
    listed = re.findall(r"[a-z]+\.[a-z_]+", " ".join(re.findall(r"^- (.*?):", part, re.MULTILINE | re.DOTALL)))
    assert sorted(listed) == sorted(module for module, tree in TREES.items() if reads_provenance(tree))


def test_places_that_keep_what_is_finished_exist():
    names = re.findall(r"`((?:[a-z_]+\.){1,2}[\w.]+)`", interruption.__doc__)
    assert len(names) > 10
    for name in names:
        module = ".".join(name.split(".")[:2])
        assert module in FILES, name
        for part in name.split(".")[2:]:
            assert re.search(rf"(def|class) {part}\b", FILES[module].read_text(encoding="utf-8")), name
    caught = {module for module, tree in TREES.items() for node in ast.walk(tree) if catches_interrupts(node)}
    assert caught == {"cli.interruption", "training.target"}


def catches_interrupts(node):
    """Whether a handler is of `KeyboardInterrupt`, by name or by `isinstance`."""
    if isinstance(node, ast.ExceptHandler):
        return isinstance(node.type, ast.Name) and node.type.id == "KeyboardInterrupt"
    return isinstance(node, ast.Call) and ast.unparse(node).startswith("isinstance(error, KeyboardInterrupt")
